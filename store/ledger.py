"""The delivery ledger: which result object is on its way to which destination, how often it was tried, and what the destination said.

A delivery is committed with the version it belongs to, so neither a restart nor a PACS that is down costs a second inference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa

from store import tables
from store.database import database_now
from store.pauses import Paused, is_paused
from store.rows import Claim, new_workflow_id, say
from store.study import StudyState, digest

log = logging.getLogger(__name__)

#: At most so many objects go out in one association.
BATCH = 50
FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 900.0
#: How often a destination is asked whether it has an object that it answered Success for.
CONFIRM_TRIES = 5


class DeliveryState(StrEnum):
    """How far an object is on its way."""

    WAITING = "waiting"
    SENT = "sent"  # the destination answered Success
    CONFIRMED = "confirmed"  # and found it when asked
    REFUSED = "refused"  # for good: a person must act
    EXPIRED = "expired"  # tried for as long as the site allows
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Delivery:
    """One object to be sent to, or confirmed by, one destination."""

    delivery_id: int
    destination: str
    state: DeliveryState
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    file_name: str


class Ledger:
    """The deliveries of one installation. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock

    def claim(self) -> list[Claim]:
        """Hand each destination's due deliveries to the engine, in version order, one batch at a time; none of a held study."""
        row, study = tables.delivery, tables.study
        with self._engine.begin() as connection:
            if is_paused(connection, Paused.SENDING):
                return []
            if connection.dialect.name != "sqlite":
                # Two hosts must not give one destination two batches; SQLite has one writer anyway.
                connection.exec_driver_sql("LOCK TABLE delivery IN SHARE ROW EXCLUSIVE MODE")
            now = self._clock(connection)
            busy = sa.select(row.c.destination).where(row.c.workflow_id.is_not(None))
            older = row.alias()
            # A destination gets the versions of a study in their order: a newer one waits until an older one is through.
            earlier = sa.exists().where(
                older.c.study_instance_uid == row.c.study_instance_uid,
                older.c.destination == row.c.destination,
                older.c.id < row.c.id,
                older.c.state == DeliveryState.WAITING,
                older.c.due_at > now,
            )
            due = connection.execute(
                sa.select(row.c.id, row.c.destination, row.c.attempt)
                .join(study, study.c.study_instance_uid == row.c.study_instance_uid)
                .where(
                    row.c.due_at <= now,
                    row.c.workflow_id.is_(None),
                    row.c.destination.not_in(busy),
                    study.c.state != StudyState.HELD,
                    study.c.generation <= study.c.settled_generation,  # what just came may be a doubt: look first
                    sa.not_(earlier),
                )
                .order_by(row.c.id)
            ).all()
            claims: dict[str, Claim] = {}
            taken: dict[str, list[int]] = {}
            for delivery_id, destination, attempt in due:
                claims.setdefault(destination, Claim(new_workflow_id("delivery", delivery_id, attempt + 1), destination))
                taken.setdefault(destination, []).append(delivery_id)
            for destination, claim in claims.items():
                connection.execute(
                    sa.update(row)
                    .where(row.c.id.in_(taken[destination][:BATCH]))
                    .values(workflow_id=claim.workflow_id, claimed_at=now, attempt=row.c.attempt + 1)
                )
            return list(claims.values())

    def batch(self, workflow_id: str) -> list[Delivery]:
        """The deliveries that a workflow holds, in version order; none of a study that was held meanwhile."""
        row, result, study = tables.delivery, tables.result_object, tables.study
        with self._engine.begin() as connection:
            # The study may have been held since: its deliveries go back.
            stopped = sa.select(study.c.study_instance_uid).where(study.c.state == StudyState.HELD)
            mine = row.c.workflow_id == workflow_id
            connection.execute(sa.update(row).where(mine, row.c.study_instance_uid.in_(stopped)).values(workflow_id=None))
            found = connection.execute(
                sa.select(
                    row.c.id,
                    row.c.destination,
                    row.c.state,
                    row.c.study_instance_uid,
                    result.c.series_instance_uid,
                    row.c.sop_instance_uid,
                    result.c.file_name,
                )
                .join(result, result.c.sop_instance_uid == row.c.sop_instance_uid)
                .where(row.c.workflow_id == workflow_id)
                .order_by(row.c.id)
            ).all()
            return [Delivery(one[0], one[1], DeliveryState(one[2]), *one[3:]) for one in found]

    def sent(self, delivery_id: int, status: int | None, reason: str, *, ask: bool) -> float:
        """The destination answered Success; seconds since the delivery was made. `ask`: it shall be asked whether it has the object."""
        return self._settle(delivery_id, DeliveryState.SENT, status, reason, retry_seconds=0.0 if ask else None)

    def refused(self, delivery_id: int, status: int | None, reason: str) -> None:
        """It will not go well until somebody changes something: stop at once and say what."""
        self._settle(delivery_id, DeliveryState.REFUSED, status, reason, retry_seconds=None)

    def not_sent(self, delivery_id: int, status: int | None, reason: str, *, retry_days: float) -> None:
        """It may go well later: try again with growing pauses, until `retry_days` after the version was made."""
        self._settle(delivery_id, DeliveryState.WAITING, status, reason, retry_seconds=FIRST_RETRY_SECONDS, retry_days=retry_days)

    def confirmed(self, delivery_id: int) -> None:
        """The destination found the object when asked. That proves the UID, not the bytes."""
        self._settle(delivery_id, DeliveryState.CONFIRMED, None, "", retry_seconds=None)

    def not_confirmed(self, delivery_id: int, reason: str) -> None:
        """The destination did not find it: ask again a few times, then leave it as sent."""
        self._settle(delivery_id, DeliveryState.SENT, None, reason, retry_seconds=FIRST_RETRY_SECONDS, confirming=True)

    def cancel(self, destinations: Sequence[str]) -> int:
        """Cancel what waits for destinations that the configuration no longer names; how many."""
        row = tables.delivery
        with self._engine.begin() as connection:
            gone = sa.and_(row.c.destination.not_in(destinations), row.c.due_at.is_not(None), row.c.workflow_id.is_(None))
            reason = "the configuration no longer names this destination"
            return connection.execute(sa.update(row).where(gone).values(state=DeliveryState.CANCELLED, due_at=None, reason=reason)).rowcount

    def _settle(
        self,
        delivery_id: int,
        state: DeliveryState,
        status: int | None,
        reason: str,
        *,
        retry_seconds: float | None,
        retry_days: float | None = None,
        confirming: bool = False,
    ) -> float:
        row = tables.delivery
        with self._engine.begin() as connection:
            now = self._clock(connection)
            before = connection.execute(sa.select(row).where(row.c.id == delivery_id).with_for_update()).one()
            if before.state == DeliveryState.CANCELLED and state is not DeliveryState.SENT:
                return 0.0  # cancelled while it was on its way, and it did not arrive: it stays so
            values: dict[str, object] = {"workflow_id": None, "state": state, "due_at": None, "reason": reason}
            if status is not None:
                values["status"] = status
            if confirming:
                tries = before.confirm_tries + 1
                values["confirm_tries"] = tries
                if tries >= CONFIRM_TRIES:
                    retry_seconds = None
            elif state in (DeliveryState.WAITING, DeliveryState.SENT, DeliveryState.REFUSED):
                tries = before.tries + 1
                values["tries"] = tries
            else:
                tries = 0
            if retry_days is not None and now > before.created_at + timedelta(days=retry_days):
                state = DeliveryState.EXPIRED
                values |= {"state": state, "reason": f"gave up after {retry_days:g} days; last: {reason}"}
            elif retry_seconds is not None:
                values["due_at"] = now + timedelta(seconds=_pause(retry_seconds, tries, delivery_id))
            if state is DeliveryState.SENT and not confirming:
                values["sent_at"] = now
            if state is DeliveryState.CONFIRMED:
                values["confirmed_at"] = now
            connection.execute(sa.update(row).where(row.c.id == delivery_id).values(**values))
            if (str(state), reason) != (before.state, before.reason):
                line = f"{before.destination}: {before.sop_instance_uid} {state}"
                say(connection, before.study_instance_uid, now, line, reason if state is not DeliveryState.SENT else "")
            return float((now - before.created_at).total_seconds())


def _pause(first: float, tries: int, delivery_id: int) -> float:
    """Seconds before the next try: doubled each time, with up to a quarter more so that many deliveries do not knock at once."""
    pause = min(first * 2.0 ** max(tries - 1, 0), LONGEST_RETRY_SECONDS)
    return pause * (1 + int(digest("pause", str(delivery_id), str(tries))[:4], 16) / 0xFFFF / 4)
