"""Bring the schema to this release: `fourview db upgrade`. The only module that needs Alembic, which other processes have no use for."""

from __future__ import annotations

import fcntl
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig

from store import tables
from store.database import insert_or_ignore, schema_revision

#: Any number that no other program on the same database uses for its advisory locks.
_UPGRADE_LOCK = 0x464F5552


def alembic_config(engine: sa.Engine) -> AlembicConfig:
    """Alembic's configuration for the migrations of this package, bound to `engine`."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    return config


def upgrade(engine: sa.Engine, *, then: Callable[[], None] | None = None) -> tuple[str | None, str]:
    """Bring the schema to this release, and do `then`; returns (revision before, revision now).

    Two that upgrade at once, also from two hosts, do it one after the other; the second finds nothing left to do.
    """
    with _alone(engine):
        before = schema_revision(engine)
        command.upgrade(alembic_config(engine), "head")
        after = schema_revision(engine)
        assert after is not None
        _make_identity(engine)
        if then is not None:
            then()
    return before, after


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[None]:
    """Held by one upgrade at a time: an advisory lock on PostgreSQL, a locked file beside the database on SQLite."""
    if engine.dialect.name == "sqlite":
        with Path(f"{engine.url.database}.upgrade").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Asked again and again: a statement that waits would itself be waited for by the engine's CREATE INDEX CONCURRENTLY, for ever.
        while not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_UPGRADE_LOCK})").scalar_one():
            time.sleep(0.2)
        try:
            yield
        finally:
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_UPGRADE_LOCK})")


def _make_identity(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        # Identity of this installation: made once, never changed, part of every result object.
        made = uuid.uuid4()
        insert_or_ignore(connection, tables.installation, {"name": "device_uid", "value": f"2.25.{made.int}"})
        insert_or_ignore(connection, tables.installation, {"name": "serial_number", "value": made.hex[:16].upper()})
        # The key of the digests that stand for studies where their UIDs must not.
        insert_or_ignore(connection, tables.installation, {"name": "secret", "value": secrets.token_hex(32)})
