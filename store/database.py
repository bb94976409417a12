"""Engines and column types: the same behaviour on SQLite (embedded default) and PostgreSQL.

SQLite: write-ahead log, `synchronous=FULL` (a commit survives a power cut), BEGIN IMMEDIATE for every writing transaction, so that two
writers wait for each other instead of failing, and an engine of its own for readers, which never takes the write lock.
`secure_delete`: what is deleted or replaced is overwritten with zeros, so that nothing of a patient stays in a free corner of the file.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import URL, make_url

#: For modules outside this room: what they hold, and what they may catch.
Engine = sa.Engine
DatabaseAway = sa.exc.OperationalError
#: All connections of this process were in use for too long.
NoConnection = sa.exc.TimeoutError

#: The schema of this release: the newest revision in store/migrations/versions. Written here, since every process asks for it at its start.
SCHEMA = "0007"

#: How long a statement waits for another writer. Orthanc gives up on a C-STORE answer after 10 s; we answer 0xA700 before.
BUSY_TIMEOUT_SECONDS = 5
#: How long PostgreSQL is waited for before it is said to be away.
CONNECT_TIMEOUT_SECONDS = 3


class OldSchema(Exception):
    """The database has another schema than this release; the message says which command to run."""


class NoTables(OldSchema):
    """The database has no table yet."""


def _url(url: str) -> URL:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    return parsed


#: A server that vanished without a word (its host, the cable) must not be waited for: neither when it owes the acknowledgement of what was
#: sent, nor when it took a question and never answers.
_VANISHED = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "tcp_user_timeout": CONNECT_TIMEOUT_SECONDS * 1000,
    "keepalives_idle": CONNECT_TIMEOUT_SECONDS,
    "keepalives_interval": 1,
    "keepalives_count": 3,
}


def _away_when_it_cannot_write(engine: sa.Engine) -> None:
    """A standby that has not taken over yet, or a connection that broke, is a database that is away, and the next try asks anew."""

    @sa.event.listens_for(engine, "handle_error")
    def is_away(context: sa.engine.ExceptionContext) -> None:
        error = context.original_exception
        cannot_write = getattr(error, "sqlstate", None) == "25006"  # read_only_sql_transaction
        if cannot_write or isinstance(context.sqlalchemy_exception, sa.exc.InterfaceError):
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = True
            raise DatabaseAway(context.statement, None, error, hide_parameters=True) from error


def write_engine(url: str) -> sa.Engine:
    """The engine of every transaction that may write."""
    parsed = _url(url)
    if parsed.get_backend_name() != "sqlite":
        limits = _VANISHED | {"options": f"-c lock_timeout={BUSY_TIMEOUT_SECONDS * 1000}"}
        engine = sa.create_engine(
            parsed, pool_pre_ping=True, hide_parameters=True, connect_args=limits, max_overflow=32, pool_timeout=BUSY_TIMEOUT_SECONDS
        )
        _away_when_it_cannot_write(engine)
        return engine
    engine = sa.create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, hide_parameters=True)
    _sqlite_pragmas(engine, "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON", "PRAGMA secure_delete=ON")

    @sa.event.listens_for(engine, "begin")
    def begin_immediate(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def read_engine(url: str) -> sa.Engine:
    """The engine of listings and pages; on SQLite it cannot write and never blocks a writer."""
    parsed = _url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = sa.create_engine(
            parsed,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=_VANISHED,
            max_overflow=32,
            pool_timeout=BUSY_TIMEOUT_SECONDS,
        )
        # One view of the rows for a whole page, as SQLite gives it: a version that is saved meanwhile must not be there without its run.
        return engine.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
    engine = sa.create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, hide_parameters=True)
    _sqlite_pragmas(engine, "PRAGMA query_only=ON", "PRAGMA case_sensitive_like=ON")

    @sa.event.listens_for(engine, "begin")
    def begin_deferred(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _sqlite_pragmas(engine: sa.Engine, *pragmas: str) -> None:
    @sa.event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}")
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()


def when_ended(engine: sa.Engine, call: Callable[[], None]) -> None:
    """Have `call` called whenever a transaction of `engine` has ended: what it wrote is there for others."""

    @sa.event.listens_for(engine, "checkin")
    def ended(_connection: Any, _record: Any) -> None:
        call()


def database_now(connection: sa.Connection) -> datetime:
    """The database's clock: one clock for every host, for due times and leases. Aware UTC."""
    if connection.dialect.name == "sqlite":
        text = connection.exec_driver_sql("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')").scalar_one()
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    now: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    return now.astimezone(UTC)


def one_at_a_time(connection: sa.Connection, what: str) -> None:
    """Until this transaction ends no other process is in one of the same name. SQLite has one writer anyway."""
    if connection.dialect.name != "sqlite":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext(:what))"), {"what": f"fourview: {what}"})


def alone_or_never(connection: sa.Connection, what: str) -> bool:
    """Whether no other process is in a transaction of the same name; none enters one until this ends. SQLite has one writer anyway."""
    if connection.dialect.name == "sqlite":
        return True
    found: bool = connection.execute(
        sa.text("SELECT pg_try_advisory_xact_lock(hashtext(:what))"), {"what": f"fourview: {what}"}
    ).scalar_one()
    return found


def insert_or_ignore(connection: sa.Connection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert a row unless a unique constraint says that it is there already; whether it was inserted."""
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    # The row count does not tell: with PostgreSQL's driver it is -1 where a key is generated.
    # Values beside the statement cost less than in it: it is compiled once.
    statement = insert(table).on_conflict_do_nothing().returning(*table.primary_key)
    return connection.execute(statement, values).first() is not None


def workflow_engine(url: str) -> sa.Engine:
    """The engine that the workflow engine's own code runs on: it begins its transactions itself.

    Its commits need not survive a power cut: our tables say what was handed out, and a workflow that is unknown, or seems not to have
    ended, is taken back and does nothing twice.
    """
    parsed = _url(url)
    if parsed.get_backend_name() != "sqlite":
        limits = _VANISHED | {"tcp_user_timeout": 10 * CONNECT_TIMEOUT_SECONDS * 1000, "options": "-c synchronous_commit=off"}
        return sa.create_engine(parsed, pool_pre_ping=True, hide_parameters=True, connect_args=limits)
    engine = sa.create_engine(parsed)

    @sa.event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")
        if sqlite3.sqlite_version_info < (3, 42):
            # Its schema asks for unixepoch('subsec'), which older SQLite answers with NULL.
            connection.create_function("unixepoch", -1, _unixepoch)

    return engine


def empty_log(engine: sa.Engine) -> bool:
    """SQLite: empty the write-ahead log, which holds pages as they were. False when a reader was in the way."""
    if engine.dialect.name != "sqlite":
        return True
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        answer = cursor.fetchone()
        cursor.close()
        return answer is not None and answer[0] == 0
    finally:
        connection.close()


def _unixepoch(*arguments: object) -> float:
    """SQLite's unixepoch() of now, for the forms that the workflow engine's schema uses."""
    return time.time() if "subsec" in arguments or "subsecond" in arguments else int(time.time())


def engine_database(database_url: str) -> str:
    """Where the workflow engine keeps its tables: its own file beside ours on SQLite, its own schema in our database on PostgreSQL."""
    parsed = make_url(database_url)
    if parsed.get_backend_name() != "sqlite":
        return database_url
    path = Path(str(parsed.database))
    return f"sqlite:///{path.with_name(path.stem + '-engine' + path.suffix)}"


def database_folder(database_url: str) -> Path | None:
    """The folder on whose volume the database grows; None when a server of its own keeps it, which answers for its disk itself."""
    parsed = make_url(database_url)
    return Path(str(parsed.database)).parent if parsed.get_backend_name() == "sqlite" else None


def require_current_schema(engine: sa.Engine) -> None:
    """Raise OldSchema unless the schema is exactly that of this release."""
    found = schema_revision(engine)
    if found != SCHEMA:
        what = "has no tables yet" if found is None else f"has schema {found}, this release needs {SCHEMA}"
        raise (NoTables if found is None else OldSchema)(
            f"the database {engine.url.render_as_string(hide_password=True)} {what}: run `fourview db upgrade`"
        )


def schema_revision(engine: sa.Engine) -> str | None:
    """The schema that the database has; None when it has no tables."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return found
