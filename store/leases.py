"""The leases of processes: each renews its own every few seconds, by the database's clock; one that did not is taken for dead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import sqlalchemy as sa

from store import tables

#: Processes renew their lease every `BEAT_SECONDS`; one that did not for `LEASE_SECONDS` is taken for dead.
BEAT_SECONDS = 3.0
LEASE_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Configured:
    """By which configuration a process works, since when, and what became of the file when it was read last. No secret is in it."""

    hash: str  # equal for processes that decide alike
    since: datetime
    outcome: str = ""  # of the last reload: taken | unchanged | refused; "": there was none
    complaints: tuple[str, ...] = ()  # why the file as it is now is refused: the configuration before it is in force
    waiting: tuple[str, ...] = ()  # keys that the file changes and that count when the process is started again
    answered: str = ""  # the last request to read the file that it has answered

    def as_json(self) -> dict[str, Any]:
        """What is stored."""
        return {**vars(self), "since": self.since.isoformat()}

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Self | None:
        """What was stored; None of a process of an earlier release."""
        if not stored:
            return None
        known: dict[str, Any] = {name: str(stored.get(name, "")) for name in ("hash", "outcome", "answered")}
        known |= {name: tuple(stored.get(name, ())) for name in ("complaints", "waiting")}
        return cls(**known, since=datetime.fromisoformat(stored["since"]))


def living_processes(connection: sa.Connection, role: str, now: datetime) -> list[str]:
    """The processes of a role that renewed their lease lately."""
    row = tables.lease
    limit = now - timedelta(seconds=LEASE_SECONDS)
    return list(connection.execute(sa.select(row.c.process).where(row.c.role == role, row.c.beat_at > limit)).scalars())
