"""What a person has paused: sending or analysing. Nothing is handed out while it is; what is in hand ends, and images go on to be received.

Time goes on: a delivery is given up only when a try fails after `retry_days`, and there is no try during a pause; the first one after it
is made however long the pause was.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from store import acts, tables
from store.database import database_now, insert_or_ignore


class Paused(StrEnum):
    """What can be paused."""

    SENDING = "sending"  # results wait for their destination; so does the question whether they arrived
    ANALYSING = "analysing"  # images wait to be read; studies are collected and looked at


def is_paused(connection: sa.Connection, what: Paused) -> bool:
    """Whether a person has paused it."""
    return connection.execute(sa.select(tables.pause.c.what).where(tables.pause.c.what == what)).first() is not None


def listed(connection: sa.Connection) -> list[dict[str, Any]]:
    """What is paused: what, at, person, why."""
    return [dict(one._mapping) for one in connection.execute(sa.select(tables.pause).order_by(tables.pause.c.what))]


class Pauses:
    """Pauses of one installation. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock

    def pause(self, what: Paused, *, person: str, why: str = "") -> bool:
        """Hand out nothing more of it; False when it was paused already: who did that and when stays."""
        with self._engine.begin() as connection:
            now = self._clock(connection)
            fresh = insert_or_ignore(connection, tables.pause, {"what": what, "at": now, "person": person, "why": why})
            if fresh:
                acts.record(connection, now, person=person, what=f"pause {what}", why=why)
            return fresh

    def resume(self, what: Paused, *, person: str, why: str = "") -> bool:
        """Hand it out again; False when it was not paused."""
        with self._engine.begin() as connection:
            gone = connection.execute(sa.delete(tables.pause).where(tables.pause.c.what == what)).rowcount == 1
            if gone:
                acts.record(connection, self._clock(connection), person=person, what=f"resume {what}", why=why)
            return gone
