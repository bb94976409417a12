"""The leases of processes: each renews its own every few seconds, by the database's clock; one that did not is taken for dead."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from store import tables

#: Processes renew their lease every `BEAT_SECONDS`; one that did not for `LEASE_SECONDS` is taken for dead.
BEAT_SECONDS = 3.0
LEASE_SECONDS = 15.0


def living_processes(connection: sa.Connection, role: str, now: datetime) -> list[str]:
    """The processes of a role that renewed their lease lately."""
    row = tables.lease
    limit = now - timedelta(seconds=LEASE_SECONDS)
    return list(connection.execute(sa.select(row.c.process).where(row.c.role == role, row.c.beat_at > limit)).scalars())
