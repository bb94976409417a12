"""Studies as the rules see them, from the rows that are kept: what was decided at its time, and what other rules would say. Read-only.

What rules look at is told by the functions by which a worker's look tells it (`store.look`, `store.images`), at the same card of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from store import tables
from store.database import database_now
from store.found_by import hour_of
from store.images import Decisions, Judged
from store.look import UNSEEN, decided, evidence_as_assigned, image_of
from store.rows import unknown_study
from store.seen import Seen, seen_of
from store.study import HANGING_ORDER, RELEASED, SENT, Policy, Ruling, View

#: Studies that one transaction reads: each takes some 40 KiB while it is looked at.
BATCH = 100
#: A study that receives an image while the others are looked at moves into the hour of that, which may be a later one than it was at first.
MEANWHILE_HOURS = 24


@dataclass(frozen=True, kw_only=True)
class KeptRuling:
    """What was decided of a study when it was last looked at. `overruled`: a person let it go on although a rule held or ignored it."""

    rule_name: str = ""  # "": no rule matched
    rule_hash: str = ""
    action: str = ""  # "": nothing was decided yet
    reason: str = ""
    send_to: tuple[str, ...] = ()
    slots: tuple[View, ...] = HANGING_ORDER
    card: str = ""
    priority: int = 5
    forward_to: tuple[str, ...] = ()
    overruled: bool = False


#: Of a study of which nothing was decided.
NOTHING_KEPT = KeptRuling()


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A study whose rules can be asked again; `sent_to`: where a person sent it."""

    study_instance_uid: str
    first_instance_at: datetime
    last_instance_at: datetime
    kept: KeptRuling
    sent_to: tuple[str, ...]
    see: Callable[[str], Seen | None]

    def ruling(self, decide: Callable[[Seen], Ruling]) -> Ruling | None:
        """What `decide` says; None when headers that it must look at are not here. Raises ModelError for a card that cannot be read.

        A rule may name the card of another model, which takes other images: then it is asked again with those, as a worker does.
        """
        card, tried, circle = self.kept.card, {self.kept.card}, False
        while (seen := self.see(card)) is not None:
            ruling = decide(seen)
            if circle or ruling.card == card:
                return ruling
            circle = ruling.card in tried
            tried.add(ruling.card)
            card = min(tried) if circle else ruling.card
        return None


#: Of what rules look at and of what was decided.
_STUDY = tuple(
    tables.study.c[name]
    for name in (
        "study_instance_uid",
        "first_instance_at",
        "last_instance_at",
        "last_hour",
        "rule_name",
        "rule_hash",
        "rule_action",
        "rule_reason",
        "rule_send_to",
        "rule_slots",
        "rule_priority",
        "rule_forward_to",
        "card",
    )
)
_SCORE = tuple(tables.score.c[name] for name in ("study_instance_uid", "instance_id", "model_key", "state", "background", "error"))


class Replay:
    """Reads studies of one installation; `site` is the policy of its model card, which knows those of others."""

    def __init__(self, engine: sa.Engine, site: Policy) -> None:
        self._engine = engine
        self._site = site

    def study(self, study_instance_uid: str) -> Replayed:
        """One study. Raises UnknownStudy."""
        row = tables.study
        with self._engine.begin() as connection:
            found = connection.execute(sa.select(*_STUDY).where(row.c.study_instance_uid == study_instance_uid)).all()
            if not found:
                raise unknown_study(connection, study_instance_uid)
            return self._replayed(connection, found)[0]

    def of_last(self, days: float) -> Iterator[Replayed]:
        """The studies that received an image in the last `days`, in the order of the hours in which they last did.

        However many they are, it takes the memory of one batch, and each batch is one transaction. A study that receives an image meanwhile
        may come twice, and is never left out.
        """
        since: datetime | None = None
        place, last = (0, ""), 0
        while True:
            with self._engine.begin() as connection:
                if since is None:
                    now = database_now(connection)
                    since, last = now - timedelta(days=days), hour_of(now) + MEANWHILE_HOURS
                    place = (hour_of(since), "")
                found = connection.execute(page(place, last)).all()
                batch = self._replayed(connection, [one for one in found if one.last_instance_at >= since])
            yield from batch
            if len(found) < BATCH:
                return
            place = (found[-1].last_hour, found[-1].study_instance_uid)

    def _replayed(self, connection: sa.Connection, studies: Sequence[sa.Row[Any]]) -> list[Replayed]:
        uids = [one.study_instance_uid for one in studies]

        def rows(table: sa.Table, columns: Sequence[Any], *met: sa.ColumnElement[bool]) -> dict[str, list[sa.Row[Any]]]:
            found: dict[str, list[sa.Row[Any]]] = {uid: [] for uid in uids}
            query = sa.select(*columns).where(table.c.study_instance_uid.in_(uids), *met).order_by(table.c.id)
            for one in connection.execute(query):
                found[one.study_instance_uid].append(one)
            return found

        instance, score, decision = tables.instance, tables.score, tables.decision
        received = rows(instance, tuple(instance.c), instance.c.disposition.not_in(UNSEEN))
        scores = rows(score, _SCORE)
        effects = rows(decision, (decision.c.study_instance_uid, decision.c.effect), decision.c.effect.is_not(None))
        replayed = []
        for one in studies:
            uid = one.study_instance_uid
            decisions = decided(found.effect for found in effects[uid])
            see = _See(one, {row.id: row for row in received[uid]}, scores[uid], decisions, self._site)
            replayed.append(
                Replayed(
                    study_instance_uid=uid,
                    first_instance_at=one.first_instance_at,
                    last_instance_at=one.last_instance_at,
                    kept=_kept(one),
                    sent_to=decisions.send_to,
                    see=see,
                )
            )
        return replayed


def page(place: tuple[int, str], last_hour: int) -> sa.Select[Any]:
    """The next batch of studies behind `place` (hour, Study Instance UID), which an index gives in this order."""
    row = tables.study
    hour, after = place
    behind = sa.or_(row.c.last_hour > hour, row.c.study_instance_uid > after)
    within = row.c.last_hour.between(hour, last_hour)
    return sa.select(*_STUDY).where(within, behind).order_by(row.c.last_hour, row.c.study_instance_uid).limit(BATCH)


@dataclass
class _See:
    """What rules see of a study through the eyes of a model's card; the same for the same card."""

    study: sa.Row[Any]
    rows: Mapping[int, sa.Row[Any]]
    scores: Sequence[sa.Row[Any]]
    decisions: Decisions
    site: Policy
    seen: dict[str, Seen | None] = field(default_factory=dict)

    def __call__(self, card: str) -> Seen | None:
        if card not in self.seen:
            self.seen[card] = self._look(self.site.of(card))
        return self.seen[card]

    def _look(self, policy: Policy) -> Seen | None:
        scores = {one.instance_id: one for one in self.scores if one.model_key == policy.model.key}
        images = [image_of(row, scores.get(row.id)) for row in self.rows.values()]
        judged = Judged(images, self.decisions, policy, lambda number, view: evidence_as_assigned(self.rows[number], view, policy))
        return seen_of(judged, self.rows, self.study.first_instance_at)


def _kept(one: sa.Row[Any]) -> KeptRuling:
    return KeptRuling(
        rule_name=one.rule_name,
        rule_hash=one.rule_hash,
        action=one.rule_action,
        reason=one.rule_reason,
        send_to=tuple(one.rule_send_to or ()),
        slots=tuple(View(view) for view in one.rule_slots or HANGING_ORDER),
        card=one.card,
        priority=one.rule_priority,
        forward_to=tuple(one.rule_forward_to or ()),
        overruled=one.rule_reason.endswith((f"; {RELEASED}", f"; {SENT}")),
    )
