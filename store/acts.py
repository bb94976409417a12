"""What people did: an append-only record that outlives the studies it speaks of. The database
refuses to change or delete a line (triggers of migration 0003).

A study is named by a keyed digest of its UID, so that the record says nothing of it once it is forgotten, and still finds it by its UID.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from store import tables
from store.database import database_now


def study_key(connection: sa.Connection, study_instance_uid: str) -> str:
    """HMAC-SHA-256 (hex) of a Study Instance UID under the secret of this installation; "" for no study."""
    if not study_instance_uid:
        return ""
    row = tables.installation
    secret = connection.execute(sa.select(row.c.value).where(row.c.name == "secret")).scalar_one()
    return hmac.new(secret.encode(), study_instance_uid.encode(), hashlib.sha256).hexdigest()


def record(
    connection: sa.Connection,
    now: datetime,
    *,
    person: str,
    what: str,
    why: str = "",
    study_instance_uid: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Append a line: who did what, and why. `parameters` name no patient and no study."""
    key = study_key(connection, study_instance_uid)
    values = {"at": now, "person": person, "what": what, "why": why, "study_key": key, "parameters": dict(parameters or {})}
    connection.execute(sa.insert(tables.act).values(**values))


class Acts:
    """The record of one installation. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock

    def record(self, *, person: str, what: str, why: str = "", parameters: Mapping[str, Any] | None = None) -> None:
        """Append a line about what concerns no single study."""
        with self._engine.begin() as connection:
            record(connection, self._clock(connection), person=person, what=what, why=why, parameters=parameters)

    def listing(self, *, days: float, study_instance_uid: str = "", limit: int | None = None) -> list[dict[str, Any]]:
        """The acts of the last `days`, newest first, at most `limit` of them; with a UID only those on that study, which may be forgotten
        since."""
        row = tables.act
        names = ("at", "person", "what", "why", "parameters")
        with self._engine.begin() as connection:
            query = sa.select(*(row.c[name] for name in names)).where(row.c.at > self._clock(connection) - timedelta(days=days))
            if study_instance_uid:
                query = query.where(row.c.study_key == study_key(connection, study_instance_uid))
            return [dict(one._mapping) for one in connection.execute(query.order_by(row.c.at.desc(), row.c.id.desc()).limit(limit))]
