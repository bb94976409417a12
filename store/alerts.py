"""What people are to be told, once per cause, and whether they were told. No patient data: UIDs, destinations, AE titles, numbers.

`causes` and `sender_causes` are pure: the condition of the installation in, causes out. `Alerts` compares them with what stands: a new one
is raised and told, one that is gone is cleared and told, one that comes back later is new. Telling is at least once.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from store import tables
from store.condition import Facts, Process, Sender, by_configuration, refusing
from store.database import database_now
from store.files import Room
from store.ledger import OWING
from store.pace import UNLIMITED, Pace
from store.pauses import Paused
from store.study import digest

log = logging.getLogger(__name__)

#: So many studies of one kind are told one by one; the others in one alert that counts them.
MOST_SINGLE = 20
#: A pause is told after this long.
LONG_PAUSE = timedelta(hours=4)
#: Work that waits for so long without a worker is told: a restart is shorter.
WITHOUT_WORKER = timedelta(minutes=2)
#: A sender of which this many instances of a day, and all of them, were ignored is told.
FEWEST_IGNORED = 10
#: Of the 14 days before it was heard last: a sender that was heard on so many is missed when it is silent.
MOST_DAYS = 8
#: A sender that was not heard for so long is no longer in use.
RETIRED_HOURS = 60 * 24.0
#: Processes that work by different configurations for so long do not only follow each other.
ONE_AFTER_THE_OTHER = timedelta(minutes=1)
FIRST_RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 900.0


class AlertKind(StrEnum):
    """What people are told of; docs/operations.md says what each means and what to do."""

    HELD = "held"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    REFUSED = "refused"
    EXPIRED = "expired"
    DISK = "disk"
    WAITING = "waiting"
    NO_WORKER = "no worker"
    NEVER_SEEN = "never seen"
    RECONCILE = "reconcile"
    PAUSED = "paused"
    SILENT = "silent"
    IGNORED = "ignored"
    CONFIGURATION = "configuration"
    PACE = "pace"
    ENGINE = "engine"


#: Found by `sender_causes`, the others by `causes`.
OF_SENDERS = frozenset({AlertKind.SILENT, AlertKind.IGNORED})
#: Happenings, not conditions: they end after a while by themselves, and nobody is told that they did.
HAPPENINGS = frozenset({AlertKind.WITHDRAWN})


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One thing to be told. The same `cause` is the same thing, whatever its text and count become meanwhile."""

    cause: str
    kind: AlertKind
    text: str
    command: str
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """From when on what waits or is silent is told, and what the disk must keep free, in bytes."""

    waiting_minutes: float
    silent_hours: float  # 0: never
    min_free_bytes: int
    pace: Pace = UNLIMITED


def causes(facts: Facts, limits: Limits, room: Room | None, standing: Collection[str] = ()) -> list[Cause]:
    """What is wrong by `facts`; `room` is None when a volume cannot be asked. `standing`: causes that people know."""
    return [
        *_singles(AlertKind.HELD, facts.held, facts.studies.get("held", 0), standing, "study {uid} waits for a person's decision"),
        *_singles(AlertKind.FAILED, facts.failed, facts.studies.get("failed", 0), standing, "no view of study {uid} could be read"),
        *_singles(
            AlertKind.WITHDRAWN,
            facts.withdrawn,
            len(facts.withdrawn),
            standing,
            "the result of study {uid} was withdrawn after sending",
        ),
        *_dead(facts),
        *_disk(limits, room),
        *_held_disk(facts, limits, room),
        *_waiting(facts, timedelta(minutes=limits.waiting_minutes)),
        *_reconciled(facts.reconciled),
        *_long_pauses(facts),
        *_configuration(facts),
        *_behind(facts, limits.pace),
        *_engine(facts),
    ]


def sender_causes(senders: Iterable[Sender], limits: Limits, now: datetime) -> list[Cause]:
    """Senders that are missed, and senders of which nothing is used."""
    found = []
    for one in senders:
        hours = (now - one.last_at).total_seconds() / 3600
        if limits.silent_hours and one.days >= MOST_DAYS and limits.silent_hours < hours < RETIRED_HOURS:
            text = f"{one.ae_title} sent something on {one.days} of the last 14 days, and now nothing for {hours:.0f} hours"
            found.append(Cause(cause=f"silent:{one.ae_title}", kind=AlertKind.SILENT, text=text, command="fourview check"))
        if one.received >= FEWEST_IGNORED and one.ignored == one.received:
            text = f"everything that {one.ae_title} sent in the last 24 hours was ignored ({one.received} instances)"
            command = "fourview studies --state ignored"
            found.append(Cause(cause=f"ignored:{one.ae_title}", kind=AlertKind.IGNORED, text=text, command=command, count=one.received))
    return found


def _singles(kind: AlertKind, uids: Sequence[str], total: int, standing: Collection[str], text: str) -> Iterator[Cause]:
    """Studies one by one, as far as people know them or there is room for a new one; the others in one alert."""
    known = [uid for uid in uids if f"{kind}:{uid}" in standing]
    single = [*known, *(uid for uid in uids if uid not in set(known))][: max(MOST_SINGLE, len(known))]
    for uid in single:
        yield Cause(cause=f"{kind}:{uid}", kind=kind, text=text.format(uid=uid), command=f"fourview show {uid}")
    if more := total - len(single):
        words = f"{more} more studies of the kind: {kind}"
        yield Cause(cause=f"{kind}:more", kind=kind, text=words, command=f"fourview studies --state {kind}", count=more)


#: What differs from object to object in a reason: UIDs and names of files.
_PECULIAR = re.compile(r"\d+(?:\.\d+){4,}|[0-9a-f]{2}/[0-9a-f]{30}|\b[0-9a-f]{30}\b")


def _dead(facts: Facts) -> Iterator[Cause]:
    """One alert for each destination and reason, however many objects."""
    counts: dict[tuple[str, str, str], int] = {}
    for one in facts.dead:
        key = (one.destination, one.state, _PECULIAR.sub("...", one.reason))
        counts[key] = counts.get(key, 0) + one.count
    words = {"refused": "were refused by", "expired": "did not arrive in time at"}
    for (destination, state, reason), count in counts.items():
        yield Cause(
            cause=f"{state}:{destination}:{digest('reason', reason)[:16]}",
            kind=AlertKind(state),
            text=f"{count} objects {words[state]} {destination}: {reason}",
            command=f"fourview deliveries --state {state}",
            count=count,
        )


def _disk(limits: Limits, room: Room | None) -> Iterator[Cause]:
    floor = limits.min_free_bytes
    if room is None:
        text = "the files folder cannot be read: nothing is received, read or sent"
        yield Cause(cause="disk:away", kind=AlertKind.DISK, text=text, command="fourview check")
        return
    gib = f"{room.free_bytes / (1 << 30):.1f} GiB are free in the {room.volume}"
    if room.free_bytes < floor:
        text = f"{gib}, less than min_free_gib: C-STORE answers 0xA700"
        yield Cause(cause="disk:full", kind=AlertKind.DISK, text=text, command="fourview status")
    elif room.free_bytes < 2 * floor:
        text = (
            f"{gib}, less than twice min_free_gib: below it nothing is received; in the files folder images of delivered studies go early"
        )
        yield Cause(cause="disk:low", kind=AlertKind.DISK, text=text, command="fourview status")


def _held_disk(facts: Facts, limits: Limits, room: Room | None) -> Iterator[Cause]:
    """What holds a disk that gets full and cannot go before a destination takes it."""
    if room is None or room.free_bytes >= 2 * limits.min_free_bytes:
        return
    for destination, size in facts.originals_bytes.items():
        why = facts.delivery_error.get(destination, "")
        text = f"{size / (1 << 30):.1f} GiB of images are kept until they are forwarded to {destination}" + (f": {why}" if why else "")
        yield Cause(cause=f"disk:for:{destination}", kind=AlertKind.DISK, text=text, command="fourview deliveries --state waiting")


def _waiting(facts: Facts, longest: timedelta) -> Iterator[Cause]:
    paused = {one["what"] for one in facts.pauses}
    since = facts.study_waits_since  # what is above its sender's pace waits with reason
    if since is not None and Paused.ANALYSING not in paused:
        minutes = (facts.now - since).total_seconds() / 60
        if facts.now - since > longest:
            text = f"a study has waited {minutes:.0f} minutes for a worker, {facts.open_studies} in all"
            yield Cause(
                cause="waiting:study",
                kind=AlertKind.WAITING,
                text=text,
                command="fourview studies --state analysing",
                count=facts.open_studies,
            )
    first = min((one for one in (since, facts.behind_waits_since) if one is not None), default=facts.now)
    if Paused.ANALYSING not in paused and not facts.living("work") and facts.now - first > WITHOUT_WORKER:
        text = f"no worker is running while {facts.open_studies} studies wait"
        yield Cause(cause="no worker", kind=AlertKind.NO_WORKER, text=text, command="fourview status", count=facts.open_studies)
    for destination, created_at in facts.delivery_waits_since.items():
        if Paused.SENDING not in paused and facts.now - created_at > longest:
            count = sum(facts.deliveries.get((destination, state), 0) for state in OWING)
            minutes = (facts.now - created_at).total_seconds() / 60
            why = facts.delivery_error.get(destination, "")
            text = f"a delivery has waited {minutes:.0f} minutes for {destination}, {count} in all" + (f": {why}" if why else "")
            command = "fourview deliveries --state waiting"
            yield Cause(cause=f"waiting:for:{destination}", kind=AlertKind.WAITING, text=text, command=command, count=count)


def _reconciled(outcome: Mapping[str, Any]) -> Iterator[Cause]:
    if outcome.get("error") or outcome.get("failed"):
        text = "the comparison with the PACS failed: nobody knows whether a study never came"
        yield Cause(cause="reconcile", kind=AlertKind.RECONCILE, text=text, command="fourview reconcile --since 24h")
    never, partly = (_how_many(outcome.get(name)) for name in ("never_seen", "partly_seen"))
    if never or partly:
        text = f"the PACS has {never} mammography studies that never came here, and {partly} of which images are missing here"
        command = "fourview reconcile --since 24h --fetch"
        yield Cause(cause="never seen", kind=AlertKind.NEVER_SEEN, text=text, command=command, count=never + partly)


def _how_many(value: object) -> int:
    return len(value) if isinstance(value, list | tuple | dict) else int(value) if isinstance(value, int | float) else 0


def _long_pauses(facts: Facts) -> Iterator[Cause]:
    for one in facts.pauses:
        if facts.now - one["at"] > LONG_PAUSE:
            hours = (facts.now - one["at"]).total_seconds() / 3600
            text = f"{one['what']} has been paused for {hours:.0f} hours by {one['person']}"
            yield Cause(cause=f"paused:{one['what']}", kind=AlertKind.PAUSED, text=text, command=f"fourview resume {one['what']}")


def _engine(facts: Facts) -> Iterator[Cause]:
    if facts.openvino_refused:
        why = facts.openvino_refused[0]
        yield Cause(
            cause="engine:openvino refused",
            kind=AlertKind.ENGINE,
            text=f"torch reads instead of OpenVINO, which takes twice as long: {why}",
            command="fourview model engine",
            count=len(facts.openvino_refused),
        )


def _configuration(facts: Facts) -> Iterator[Cause]:
    refused = refusing(facts.processes)
    if refused:
        complaints = list(dict.fromkeys(complaint for one in refused if one.configured for complaint in one.configured.complaints))
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        text = f"the configuration file is refused by {_named(refused)}, which work on with the one before it: {complaints[0]}{more}"
        yield Cause(cause="configuration:refused", kind=AlertKind.CONFIGURATION, text=text, command="fourview config check")
        return
    differing = by_configuration(facts.processes)
    newest = max((one.configured.since for each in differing.values() for one in each if one.configured), default=facts.now)
    # They take a new one within seconds of each other.
    if len(differing) > 1 and facts.now - newest > ONE_AFTER_THE_OTHER:
        each = "; ".join(f"{hash_}: {_named(processes)}" for hash_, processes in differing.items())
        text = f"processes work by different configurations, so they decide differently: {each}"
        yield Cause(cause="configuration:differs", kind=AlertKind.CONFIGURATION, text=text, command="fourview config reload")


def _named(processes: Sequence[Process]) -> str:
    names = [one.process for one in processes]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _behind(facts: Facts, pace: Pace) -> Iterator[Cause]:
    """One alert for each sender that is faster than its pace, until its last image was read and an hour went by without another one."""
    for one in facts.behind:
        allowed = f", more than {per_hour} in an hour" if (per_hour := pace.of(one.ae_title)) else ""
        text = (
            f"{one.ae_title} sends faster than its pace{allowed}: {one.studies} studies of the last hour are above it, and {one.images} "
            "images are read after all others. A migration or a prefetch: nothing need be done, or `fourview reprocess` what is urgent. "
            f"The work of every day: raise studies_per_hour in the [[sender]] of {one.ae_title}"
        )
        command = f"fourview studies --sender {shlex.quote(one.ae_title)}"
        yield Cause(cause=f"pace:{one.ae_title}", kind=AlertKind.PACE, text=text, command=command, count=max(one.studies, 1))


@dataclass(frozen=True, kw_only=True)
class Message:
    """What is to be told now; `raised_at` and `cleared_at` tell which happening of the cause it is."""

    cause: str
    kind: str
    text: str
    count: int
    command: str
    raised_at: datetime
    cleared_at: datetime | None
    tries: int


class Alerts:
    """The alerts of one installation. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock

    def settle(self, found: Sequence[Cause], kinds: Collection[AlertKind], *, tell: bool) -> tuple[int, int]:
        """Raise what is new among `found`, clear what stands of these `kinds` and is not found; (raised, cleared). `tell`: to somebody."""
        row = tables.alert
        raised = cleared = 0
        with self._engine.begin() as connection:
            if connection.dialect.name != "sqlite":
                # Two processes that look at once must not both insert; SQLite has one writer anyway.
                connection.exec_driver_sql("LOCK TABLE alert IN SHARE ROW EXCLUSIVE MODE")
            now = self._clock(connection)
            known = {one.cause: one for one in connection.execute(sa.select(row).where(row.c.kind.in_(kinds))).all()}
            for one in found:
                before = known.pop(one.cause, None)
                values: dict[str, Any] = {"kind": one.kind, "text": one.text, "count": one.count, "command": one.command}
                fresh = {"raised_at": now, "cleared_at": None, "told_at": None, "tries": 0, "error": "", "due_at": now if tell else None}
                if before is None:
                    connection.execute(sa.insert(row).values(cause=one.cause, **values, **fresh))
                elif before.cleared_at is not None:
                    connection.execute(sa.update(row).where(row.c.cause == one.cause).values(**values, **fresh))
                else:
                    if tell and before.told_at is None and before.due_at is None:
                        values |= {"due_at": now}  # it was raised while there was nobody to be told
                    connection.execute(sa.update(row).where(row.c.cause == one.cause).values(**values))
                    continue
                raised += 1
                log.warning("alert raised kind=%r cause=%r count=%d", str(one.kind), one.cause, one.count)
            for gone in known.values():
                if gone.cleared_at is None:
                    cleared += 1
                    unsaid = gone.kind in HAPPENINGS
                    due = gone.due_at if unsaid or not tell else now
                    connection.execute(sa.update(row).where(row.c.cause == gone.cause).values(cleared_at=now, tries=0, due_at=due))
                    log.info("alert cleared kind=%r cause=%r", gone.kind, gone.cause)
        return raised, cleared

    def standing(self) -> set[str]:
        """The causes that people know and that are not gone."""
        row = tables.alert
        with self._engine.begin() as connection:
            return set(connection.execute(sa.select(row.c.cause).where(row.c.cleared_at.is_(None))).scalars())

    def due(self, limit: int = 50) -> list[Message]:
        """What is to be told now, oldest first."""
        row = tables.alert
        names = ("cause", "kind", "text", "count", "command", "raised_at", "cleared_at", "tries")
        with self._engine.begin() as connection:
            query = sa.select(*(row.c[name] for name in names)).where(row.c.due_at <= self._clock(connection))
            return [Message(**one._mapping) for one in connection.execute(query.order_by(row.c.raised_at, row.c.cause).limit(limit))]

    def told(self, message: Message) -> None:
        """It was told. What happened to the cause meanwhile is still to be told."""
        row = tables.alert
        with self._engine.begin() as connection:
            same = sa.and_(row.c.cause == message.cause, row.c.raised_at == message.raised_at)
            now = self._clock(connection)
            connection.execute(sa.update(row).where(same).values(told_at=now, error=""))
            cleared = row.c.cleared_at.is_(None) if message.cleared_at is None else row.c.cleared_at == message.cleared_at
            connection.execute(sa.update(row).where(same, cleared).values(due_at=None, tries=0))

    def not_told(self, message: Message, error: str) -> None:
        """Whoever should be told does not answer: nothing is told until a pause is over that grows with each try."""
        row = tables.alert
        with self._engine.begin() as connection:
            pause = min(FIRST_RETRY_SECONDS * 2.0 ** min(message.tries, 10), LONGEST_RETRY_SECONDS)
            later = self._clock(connection) + timedelta(seconds=pause)
            mine = row.c.cause == message.cause
            connection.execute(sa.update(row).where(mine).values(tries=row.c.tries + 1, error=error))
            connection.execute(sa.update(row).where(row.c.due_at.is_not(None), row.c.due_at < later).values(due_at=later))
