"""What the PACS holds compared with what came here: received, received in part, never seen. How a site knows that nothing was lost.

Orthanc's own routing does not try again, so what it could not deliver stays behind. What is no mammogram and our own results (SR, page) do
not count.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import Any

from listener.config import Config
from listener.fetch import fetch_and_keep, source
from pipeline.holdings import HeldInstance, HeldStudy, Holdings, Unanswered, holdings_of
from pipeline.orthanc import FetchFailed
from store.accounting import Accounting, Known
from store.archive import Archive
from store.chores import Chores
from store.files import Files
from store.rows import Busy
from store.study import StudyState

log = logging.getLogger(__name__)

NAME = "reconcile"
#: What arrived at the PACS since may still be on its way to us.
GRACE = timedelta(minutes=10)
#: The scheduled comparison looks back no further.
LONGEST = timedelta(days=30)
#: And this far when there was none before.
FIRST = timedelta(hours=24)
#: After a comparison that failed the next one comes this soon.
AGAIN_SECONDS = 900.0
#: One that takes longer than this is taken for dead. A month of a large archive takes its time, and twice at once harms nobody.
ABANDONED_SECONDS = 6 * 3600.0
#: So many UIDs are remembered of it; when more are missing the next one covers the same time again.
LISTED = 100


class Standing(StrEnum):
    """How a study stands that the PACS holds, beside the states of those that were received whole."""

    NEVER_SEEN = "never_seen"
    PARTLY_SEEN = "partly_seen"  # some of its instances never came
    ARRIVING = "arriving"  # the PACS received something of it in the last minutes
    ON_DEMAND = "on_demand"  # never sent here, but a person had some of it read
    COPY = "copy"  # made by the PACS itself, by modifying or anonymising another one
    FORGOTTEN = "forgotten"


#: Nothing is lost until one of these is there.
MISSING = (Standing.NEVER_SEEN, Standing.PARTLY_SEEN)


@dataclass
class Account:
    """What a comparison found; `studies` are Study Instance UIDs by standing, at most `listed` of each (None: all)."""

    since: datetime
    until: datetime
    listed: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    ignored_by: Counter[str] = field(default_factory=Counter)
    studies: dict[str, list[str]] = field(default_factory=dict)
    fetched: int = 0
    not_fetched: dict[str, str] = field(default_factory=dict)  # study -> why

    @property
    def missing(self) -> int:
        """How many were never seen or seen in part."""
        return sum(self.counts[standing] for standing in MISSING)

    def add(self, standing: str, study_instance_uid: str, rule: str) -> None:
        """Count a study."""
        self.counts[standing] += 1
        if standing == StudyState.IGNORED:
            self.ignored_by[rule or "(no rule)"] += 1
        listed = self.studies.setdefault(standing, [])
        if self.listed is None or len(listed) < self.listed:
            listed.append(study_instance_uid)

    def as_json(self) -> dict[str, Any]:
        """Everything, for scripts and for the chore's memory."""
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "counts": dict(self.counts),
            "ignored_by": dict(self.ignored_by),
            **{standing.value: self.studies.get(standing, []) for standing in MISSING},
            "fetched": self.fetched,
            "not_fetched": self.not_fetched,
        }


def compare(
    found: Iterable[HeldStudy],
    holdings: Holdings,
    accounting: Accounting,
    account: Account,
    fetch: Callable[[HeldStudy, Mapping[str, str]], str] | None = None,
) -> None:
    """Count each study of `found` once, and fetch what is missing of it if `fetch` is given. Raises Unanswered.

    A study that cannot be fetched does not stop the others.
    """
    counted: set[str] = set()
    for held in found:
        standing, missing, known = _judge(held, holdings, accounting, account.until)
        if held.study_instance_uid in counted and standing not in MISSING:
            continue  # the PACS has it twice, under two patients
        counted.add(held.study_instance_uid)
        if fetch is not None and standing in MISSING:
            if _fetched(held, missing, fetch, account):
                account.fetched += 1
            standing, missing, known = _judge(held, holdings, accounting, account.until)
            if standing in MISSING:
                account.not_fetched.setdefault(held.study_instance_uid, f"{len(missing)} of its instances were fetched but not kept")
        account.add(standing, held.study_instance_uid, known.rule)


def _judge(held: HeldStudy, holdings: Holdings, accounting: Accounting, until: datetime) -> tuple[str, list[HeldInstance], Known]:
    """How a study stands, and what of it never came and may be fetched."""
    known = accounting.known(held.study_instance_uid, [one.sop_instance_uid for one in held.instances])
    if known.forgotten:
        return Standing.FORGOTTEN, [], known
    missing = [one for one in held.instances if one.sop_instance_uid not in known.instances]
    if missing:
        made_here = holdings.made_here(missing)
        missing = [one for one in missing if one.sop_instance_uid not in made_here]
    if not missing:
        return (known.state if known.state is not None and known.instances else Standing.COPY), [], known
    if held.arrived_at is not None and held.arrived_at > until:
        return Standing.ARRIVING, missing, known
    if known.on_demand and not known.instances:
        return Standing.ON_DEMAND, missing, known  # a person has seen it; whether it should have been sent, the list leaves to people
    return (Standing.PARTLY_SEEN if known.instances else Standing.NEVER_SEEN), missing, known


def _fetched(held: HeldStudy, missing: list[HeldInstance], fetch: Callable[[HeldStudy, Mapping[str, str]], str], account: Account) -> bool:
    only = {one.sop_instance_uid: one.series_instance_uid for one in missing}
    try:
        words = fetch(held, only)
    except (FetchFailed, Busy, OSError) as error:
        # an OSError may quote a path; its kind is enough
        why = f"the disk refused it ({error.strerror})" if isinstance(error, OSError) else str(error)
        log.warning("not fetched study_instance_uid=%s reason=%r", held.study_instance_uid, why)
        account.not_fetched[held.study_instance_uid] = why
        return False
    log.info("fetched what never came study_instance_uid=%s instances=%d what=%r", held.study_instance_uid, len(only), words)
    return True


def reconcile(
    config: Config,
    accounting: Accounting,
    since: datetime,
    now: datetime,
    *,
    archive: Archive,
    files: Files,
    fetch: bool,
    again: Iterable[str] = (),
    listed: int | None = None,
    grace: timedelta,
) -> Account:
    """Compare what `[study] fetch_from` received since then, and the studies `again`, with what is known.

    What the PACS received within `grace` before `now` may still be on its way. Raises FetchFailed, Unanswered.
    """
    pacs = source(config)

    def get(held: HeldStudy, only: Mapping[str, str]) -> str:
        return fetch_and_keep(config, archive, files, held.study_instance_uid, only)

    account = Account(since=since, until=now - grace, listed=listed)
    with holdings_of(pacs, now) as holdings:
        asked = frozenset(again)
        earlier = (held for uid in sorted(asked) for held in holdings.study(uid) if _recent(held, now))
        since_then = (held for held in holdings.received_since(since) if held.study_instance_uid not in asked)
        compare(chain(earlier, since_then), holdings, accounting, account, get if fetch else None)
    return account


def _recent(held: HeldStudy, now: datetime) -> bool:
    return held.arrived_at is None or held.arrived_at > now - LONGEST


class Scheduled:
    """The comparison as a chore: from where the last one ended to now, with what was missing then."""

    def __init__(self, config: Config, accounting: Accounting, book: Chores, archive: Archive, files: Files) -> None:
        self._config = config
        self._accounting = accounting
        self._book = book
        self._archive = archive
        self._files = files

    def do(self) -> dict[str, Any]:
        """Compare; what is worth remembering. A PACS that does not answer is an `error`, and the next time covers this one's too."""
        now = self._accounting.now()
        before = self._book.outcome(NAME)
        since = begin(before, now)
        try:
            account = reconcile(
                self._config,
                self._accounting,
                since,
                now,
                archive=self._archive,
                files=self._files,
                fetch=self._config.study.reconcile == "fetch",
                again=missing_then(before),
                listed=LISTED,
                grace=GRACE,
            )
        except (FetchFailed, Unanswered) as error:
            log.warning("not reconciled since=%s reason=%r", since.isoformat(), str(error))
            kept = {standing.value: (before or {}).get(standing, []) for standing in MISSING}
            return {"since": since.isoformat(), "until": since.isoformat(), "counts": {}, **kept, "error": str(error)}
        for standing in MISSING:
            for uid in account.studies.get(standing, []):
                log.warning("%s study_instance_uid=%s", standing.replace("_", " "), uid)
        counts = " ".join(f"{name}={count}" for name, count in sorted(account.counts.items()))
        log.info("reconciled since=%s until=%s fetched=%d %s", since.isoformat(), account.until.isoformat(), account.fetched, counts)
        account.until = max(account.until, since)
        if any(account.counts[standing] > LISTED for standing in MISSING):
            account.until = since  # those beyond the list must not be lost sight of
        account.not_fetched = dict(list(account.not_fetched.items())[:LISTED])
        return account.as_json()

    def again(self) -> dict[str, Any]:
        """Have it done again soon when the PACS did not answer."""
        failed = bool({"error", "failed"} & set(self._book.outcome(NAME) or {}))
        if failed:
            self._book.ask(NAME)
        return {"asked": failed}


def missing_then(before: Mapping[str, Any] | None) -> list[str]:
    """What the comparison before found missing, however long ago it came to the PACS."""
    return [uid for standing in MISSING for uid in (before or {}).get(standing, [])]


def begin(before: Mapping[str, Any] | None, now: datetime) -> datetime:
    """Where the comparison after `before` (None: there was none) begins."""
    if before is None:
        return now - FIRST
    if "until" not in before:
        return now - LONGEST  # it failed and forgot how far it had come
    return min(max(datetime.fromisoformat(before["until"]), now - LONGEST), now - GRACE)
