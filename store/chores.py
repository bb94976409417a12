"""What is due now and then, and is done by one process of all hosts: upkeep, reconciliation, alerts. What came of it is remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from store import tables
from store.database import database_now, insert_or_ignore

#: A chore that was begun so long ago and never ended: whoever did it is dead.
ABANDONED_SECONDS = 3600.0


class Chores:
    """The book of chores. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock

    def begin(self, name: str, every_seconds: float, process: str, abandoned_seconds: float = ABANDONED_SECONDS) -> bool:
        """Whether `process` shall do the chore now: it is due, and nobody who began it within `abandoned_seconds` is at it."""
        row = tables.chore
        with self._engine.begin() as connection:
            now = self._clock(connection)
            # A new chore is not due at once: a start has more urgent work, and what must be done at a start asks for it by name.
            insert_or_ignore(connection, row, {"name": name, "done_at": now})
            due = sa.and_(
                row.c.name == name,
                sa.or_(row.c.done_at.is_(None), row.c.done_at <= now - timedelta(seconds=every_seconds)),
                sa.or_(row.c.begun_at.is_(None), row.c.begun_at <= now - timedelta(seconds=max(abandoned_seconds, every_seconds))),
            )
            # `done_at` from now on, so that whoever asks for it while it is being done is not taken for whoever asked before.
            taken = connection.execute(sa.update(row).where(due).values(begun_at=now, begun_by=process, done_at=now))
            return taken.rowcount == 1

    def done(self, name: str, outcome: Mapping[str, Any]) -> None:
        """It is done; the next time counts from now, unless somebody asked for it meanwhile."""
        row = tables.chore
        with self._engine.begin() as connection:
            done_at = sa.case((row.c.done_at.is_(None), None), else_=self._clock(connection))
            values = {"begun_at": None, "begun_by": "", "done_at": done_at, "outcome": dict(outcome)}
            connection.execute(sa.update(row).where(row.c.name == name).values(**values))

    def outcome(self, name: str) -> dict[str, Any] | None:
        """What came of it when it was done last; None when it never was."""
        row = tables.chore
        with self._engine.begin() as connection:
            found: dict[str, Any] | None = connection.execute(sa.select(row.c.outcome).where(row.c.name == name)).scalar()
            return found

    def standing(self, name: str) -> dict[str, Any]:
        """How it stands: `done_at`, `begun_at` and `begun_by` of who is at it, `asked`: whether somebody waits for it, `outcome` of the
        last time (None: it never was done)."""
        row = tables.chore
        with self._engine.begin() as connection:
            found = connection.execute(sa.select(row).where(row.c.name == name)).first()
        if found is None:
            return {"done_at": None, "begun_at": None, "begun_by": "", "asked": False, "outcome": None}
        begun = {"begun_at": found.begun_at, "begun_by": found.begun_by}
        return {"done_at": found.done_at, **begun, "asked": found.done_at is None, "outcome": found.outcome}

    def clear(self, name: str) -> None:
        """It is not done any more: what came of it last is laid aside. Not as if it had never been done: the next one looks back far."""
        row = tables.chore
        with self._engine.begin() as connection:
            connection.execute(sa.update(row).where(row.c.name == name, row.c.outcome.is_not(None)).values(outcome={}))

    def ask(self, name: str) -> None:
        """Have it done as soon as a worker looks."""
        row = tables.chore
        with self._engine.begin() as connection:
            insert_or_ignore(connection, row, {"name": name, "done_at": None})
            connection.execute(sa.update(row).where(row.c.name == name).values(done_at=None))

    def give_back(self, process: str) -> None:
        """`process` begins anew or ends: what it had begun and not done is to be done as soon as anybody looks."""
        row = tables.chore
        with self._engine.begin() as connection:
            connection.execute(sa.update(row).where(row.c.begun_by == process).values(begun_at=None, begun_by="", done_at=None))
