"""What people did: an append-only record that outlives the studies it speaks of.

A study is named by a keyed digest of its UID, so that the record says nothing of it once it is forgotten, and still finds it by its UID.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from store import tables


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
