"""What every transaction on rows has in common: a study's lock, its columns, its timeline, its state, and handing rows out.

While a row is handed out, its `workflow_id` names the workflow that works on it; an id is used once.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa

from store import tables
from store.acts import study_key
from store.study import Event, StudyState, next_state

log = logging.getLogger(__name__)

#: A study that nobody works on any more, its look or its report having ended well; one whose worker died keeps what that counted.
AT_REST: Mapping[str, Any] = {"workflow_id": None, "begun_by": None, "crashes": 0}


#: The database is locked, full, broken, read-only (a standby), gone in the middle.
CANNOT_KEEP = (sa.exc.OperationalError, sa.exc.InternalError, sa.exc.InterfaceError, sa.exc.TimeoutError)


class Busy(Exception):
    """The database stayed locked or is away. The sender may try again (answer 0xA700). `unsure`: a commit was under way and may stand;
    otherwise nothing was kept."""

    def __init__(self, message: str, *, unsure: bool) -> None:
        super().__init__(message)
        self.unsure = unsure

    @classmethod
    def keeping(cls, sop_instance_uid: str, error: Exception, *, unsure: bool) -> Self:
        """Of an instance that was not kept, because of one of CANNOT_KEEP."""
        return cls(f"the database did not keep {sop_instance_uid}: {type(error).__name__}", unsure=unsure)


class UnknownStudy(Exception):
    """No study with this UID was ever received; the message says so."""


def lock_study(connection: sa.Connection, study_instance_uid: str) -> sa.Row[Any]:
    """A study's row, locked until the transaction ends: no two of them touch one study. Raises UnknownStudy."""
    row = tables.study
    query = sa.select(row).where(row.c.study_instance_uid == study_instance_uid)
    # NO KEY UPDATE: rows of other tables that name the study may be written meanwhile; else their writers and we might wait for each other.
    found = connection.execute(query.with_for_update(key_share=True)).first()
    if found is None:
        raise unknown_study(connection, study_instance_uid)
    return found


def lock_studies(connection: sa.Connection, study_instance_uids: Iterable[str]) -> None:
    """Lock several studies in the one order in which all do so; one that was forgotten at this very moment has no rows any more."""
    for uid in sorted(set(study_instance_uids)):
        with suppress(UnknownStudy):
            lock_study(connection, uid)


def unknown_study(connection: sa.Connection, study_instance_uid: str) -> UnknownStudy:
    """What to raise of a study that has no row."""
    row = tables.tombstone
    at = connection.execute(sa.select(row.c.at).where(row.c.study_key == study_key(connection, study_instance_uid))).scalar()
    if at is None:
        return UnknownStudy(f"no study {study_instance_uid} is known here; `fourview studies` lists those that are")
    again = f"`fourview forget --allow-again {study_instance_uid}` lets it come again"
    return UnknownStudy(f"study {study_instance_uid} was forgotten on {at:%Y-%m-%d}; {again}")


def change_study(connection: sa.Connection, study_instance_uid: str, **values: Any) -> None:
    """Set columns of a study's row."""
    connection.execute(sa.update(tables.study).where(tables.study.c.study_instance_uid == study_instance_uid).values(**values))


def say(connection: sa.Connection, study_instance_uid: str, now: datetime, text: str, reason: str = "") -> None:
    """Append a line to a study's timeline."""
    line = f"{text}: {reason}" if reason else text
    connection.execute(sa.insert(tables.timeline), {"study_instance_uid": study_instance_uid, "at": now, "text": line})


def move(connection: sa.Connection, study: sa.Row[Any], event: Event, reason: str, now: datetime, **values: Any) -> StudyState:
    """Take a study through the state table; the new state. A study that stays where it is keeps its reason."""
    before = StudyState(study.state)
    state = next_state(before, event)
    if state is before:
        change_study(connection, study.study_instance_uid, **values)
        say(connection, study.study_instance_uid, now, event.value, reason)
    else:
        change_study(connection, study.study_instance_uid, state=state, state_reason=reason, **{"due_at": None, "doubts": [], **values})
        say(connection, study.study_instance_uid, now, state.value, reason)
    log.info("study state study_instance_uid=%s from=%s to=%s event=%s", study.study_instance_uid, before, state, event.name)
    return state


@dataclass(frozen=True)
class Claim:
    """A row handed to the workflow engine under an id that is used once."""

    workflow_id: str
    row: str  # study_instance_uid, or the number of a score


def new_workflow_id(name: str, row: object, attempt: int) -> str:
    """An id that was never used before, also not before a backup was restored: a workflow id that has ended is spent for ever."""
    return f"{name}:{row}:{attempt}:{secrets.token_hex(4)}"


#: Every so many rows the one that waits longest is handed out, whatever its priority: nothing waits for ever.
TURN_OF_THE_OLDEST = 10


def turns(handed_out: int, room: int) -> int:
    """How many of the next `room` rows are the oldest ones, when `handed_out` went before them; the others go by priority."""
    return (handed_out + room) // TURN_OF_THE_OLDEST - handed_out // TURN_OF_THE_OLDEST


def claim_rows(
    connection: sa.Connection,
    name: str,
    row: sa.Table,
    key: sa.Column[Any],
    wanted: sa.ColumnElement[bool] | sa.TextClause,
    order: Sequence[sa.Column[Any]],
    limit: int,
    now: datetime,
) -> list[Claim]:
    """Hand out the rows that are `wanted` and that nobody holds."""
    query = sa.select(key, row.c.attempt).where(wanted).order_by(*order).limit(limit).with_for_update(skip_locked=True)
    claims = []
    for value, attempt in connection.execute(query, {"now": now}).all():
        claim = Claim(new_workflow_id(name, value, attempt + 1), str(value))
        connection.execute(sa.update(row).where(key == value).values(attempt=attempt + 1, workflow_id=claim.workflow_id, claimed_at=now))
        claims.append(claim)
    return claims
