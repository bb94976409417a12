"""Who works on what: rows taken back from workflows that ended without settling them, and the leases of processes that live."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from store import ledger, tables
from store.database import database_now, insert_or_ignore
from store.grouping import STALLED_SECONDS
from store.scoring import take_back

#: Processes renew their lease every `BEAT_SECONDS`; one that did not for `LEASE_SECONDS` is taken for dead.
BEAT_SECONDS = 3.0
LEASE_SECONDS = 15.0


def living_processes(connection: sa.Connection, role: str, now: datetime) -> list[str]:
    """The processes of a role that renewed their lease lately."""
    row = tables.lease
    limit = now - timedelta(seconds=LEASE_SECONDS)
    return list(connection.execute(sa.select(row.c.process).where(row.c.role == role, row.c.beat_at > limit)).scalars())


class Claims:
    """What is handed out, and who lives. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock

    def claimed(self, older_than_seconds: float) -> list[str]:
        """Workflow ids of rows that were handed out longer ago than this: the engine is asked what became of them."""
        with self._engine.begin() as connection:
            limit = self._clock(connection) - timedelta(seconds=older_than_seconds)
            found: set[str] = set()
            for row in (tables.study, tables.score, tables.delivery):
                query = sa.select(row.c.workflow_id).where(row.c.workflow_id.is_not(None), row.c.claimed_at <= limit)
                found.update(connection.execute(query).scalars())
            return sorted(found)

    def release(self, workflow_ids: Sequence[str], reason: str, *, deadly: Collection[str] = ()) -> int:
        """Take rows back from workflows that are absent or ended without settling them; how many.

        Over the `deadly` ones a worker died again and again: that counts against the image. An image that did so too often fails.
        """
        with self._engine.begin() as connection:
            now = self._clock(connection)
            row = tables.study
            # Not at once: whatever ended the workflow may end the next one too.
            values: dict[str, Any] = {"workflow_id": None, "due_at": now + timedelta(seconds=STALLED_SECONDS)}
            values["settled_generation"] = row.c.generation  # due_at makes it look at everything anyway
            released = connection.execute(sa.update(row).where(row.c.workflow_id.in_(workflow_ids)).values(**values)).rowcount
            released += ledger.take_back(connection, workflow_ids, now)
            return released + take_back(connection, workflow_ids, reason, deadly, now)

    def beat(self, process: str, role: str, figures: Mapping[str, float] | None = None, alive_seconds: float = 0.0) -> None:
        """This process lives and is ready to work; `figures` is what it counted in the `alive_seconds` since it started."""
        row = tables.lease
        with self._engine.begin() as connection:
            now = self._clock(connection)
            counted = {"figures": dict(figures or {}), "started_at": now - timedelta(seconds=alive_seconds)}
            renewed = connection.execute(sa.update(row).where(row.c.process == process).values(beat_at=now, **counted)).rowcount
            if not renewed:
                insert_or_ignore(connection, row, {"process": process, "role": role, "beat_at": now, **counted})

    def living(self, role: str) -> list[str]:
        """The processes of a role that renewed their lease lately."""
        with self._engine.begin() as connection:
            return living_processes(connection, role, self._clock(connection))

    def leave(self, process: str) -> None:
        """This process ends by its own will."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(tables.lease).where(tables.lease.c.process == process))
