"""How often the database was put back from a backup: what is made afterwards must not be taken for what was made, and sent, before.

The backup does not know the versions that were made after it, but a PACS may hold their objects, and keeps the first one of each UID.
"""

from __future__ import annotations

import sqlalchemy as sa

from store import acts, tables
from store.database import database_now

_NAME = "epoch"


def epoch(connection: sa.Connection) -> int:
    """How often the database was restored; 0 for one that never was."""
    row = tables.installation
    found = connection.execute(sa.select(row.c.value).where(row.c.name == _NAME)).scalar()
    return int(found or 0)


def restored(engine: sa.Engine, *, person: str, why: str = "") -> int:
    """The database was put back from a backup: from now on version numbers and UIDs differ from all earlier ones; the new epoch."""
    row = tables.installation
    with engine.begin() as connection:
        raised = epoch(connection) + 1
        if raised == 1:
            connection.execute(sa.insert(row).values(name=_NAME, value="1"))
        else:
            connection.execute(sa.update(row).where(row.c.name == _NAME).values(value=str(raised)))
        acts.record(connection, database_now(connection), person=person, what="restored", why=why, parameters={"epoch": raised})
        return raised
