"""Databases of a size that a benchmark asks for, filled with generated rows in a minute or two; gone with the benchmark.

Rows go in without foreign keys and before the indexes. PostgreSQL has the memory that it has by default, and its statistics as autovacuum
keeps them; SQLite has none, since Fourview never asks it for any.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

import psycopg  # noqa: E402
from databases import PostgresProcess, migrated, postgres_programs, run  # noqa: E402
from ports import free_port  # noqa: E402

#: A table, its columns, and its rows, or an SQL query that makes them in the database itself.
Table = tuple[str, Sequence[str], Iterator[tuple[object, ...]] | str]
#: (how many, name of the database) -> its tables.
Rows = Callable[[int, str], Iterable[Table]]


@dataclass(frozen=True)
class Filled:
    """A database full of rows."""

    name: str  # sqlite | postgresql
    url: str
    rows: int


def filled(databases: Sequence[str], count: int, what: str, rows: Rows, **settings: object) -> Generator[Filled]:
    """Each of the databases with `count` of `what`, one after the other, for as long as it is looked at; `settings` are PostgreSQL's."""
    with tempfile.TemporaryDirectory(prefix="fourview-million-") as folder:
        if "sqlite" in databases:
            path = Path(folder) / "fourview.db"
            migrated(f"sqlite:///{path}")
            begin = time.monotonic()
            _fill_sqlite(path, rows(count, "sqlite"))
            _say("sqlite", count, what, begin, path.stat().st_size)
            yield Filled("sqlite", f"sqlite:///{path}", count)
            path.unlink()
        if "postgresql" in databases and (programs := postgres_programs()) is not None:
            server = PostgresProcess(programs, free_port(), **{"shared_buffers": "128MB", **settings})
            try:
                server.start()
                run(server.url, "CREATE DATABASE fourview")
                url = f"{server.url}/fourview"
                migrated(url)
                begin = time.monotonic()
                size = _fill_postgresql(url, rows(count, "postgresql"))
                _say("postgresql", count, what, begin, size)
                yield Filled("postgresql", url, count)
            finally:
                server.remove()


def _say(database: str, count: int, what: str, begin: float, size: int) -> None:
    print(f"{database}: {count} {what} written in {time.monotonic() - begin:.0f} s, {size / 2**30:.2f} GiB", flush=True)


def _fill_sqlite(path: Path, tables: Iterable[Table]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous=OFF", "journal_mode=MEMORY", "foreign_keys=OFF", "cache_size=-200000", "temp_store=FILE"):
        connection.execute(f"PRAGMA {pragma}")
    for table, columns, rows in tables:
        begin = _size(connection)
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (table,)
        )
        made = indexes.fetchall()
        connection.execute("BEGIN")
        for name, _ in made:
            connection.execute(f"DROP INDEX {name}")
        into = f"INSERT INTO {table} ({', '.join(columns)})"
        if isinstance(rows, str):
            connection.execute(f"{into} {rows}")
        else:
            connection.executemany(f"{into} VALUES ({', '.join('?' * len(columns))})", rows)
        for _, sql in made:
            connection.execute(sql)
        connection.execute("COMMIT")
        print(f"sqlite: {table} with its indexes {(_size(connection) - begin) / 2**20:.0f} MiB", flush=True)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def _size(connection: sqlite3.Connection) -> int:
    (pages,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return int(pages * size)


def _fill_postgresql(url: str, tables: Iterable[Table]) -> int:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # no foreign keys
        for table, columns, rows in tables:
            left = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexdef NOT LIKE 'CREATE UNIQUE%%'"
            made = cursor.execute(left, (table,)).fetchall()
            for name, _ in made:
                cursor.execute(f"DROP INDEX {name}")  # type: ignore[call-overload]
            if isinstance(rows, str):
                cursor.execute(f"INSERT INTO {table} ({', '.join(columns)}) {rows}")  # type: ignore[call-overload]
            else:
                with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:  # type: ignore[call-overload]
                    for row in rows:
                        copy.write_row(row)
            for _, sql in made:
                cursor.execute(sql)
            if "id" in columns and table != "run":  # a run's is a hash
                numbers = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"  # noqa: S608 - names of ours
                cursor.execute(numbers)  # type: ignore[call-overload]
            cursor.execute(f"VACUUM ANALYZE {table}")  # type: ignore[call-overload]
            [(size,)] = cursor.execute("SELECT pg_total_relation_size(%s)", (table,)).fetchall()
            print(f"postgresql: {table} with its indexes {size / 2**20:.0f} MiB", flush=True)
        [(size,)] = cursor.execute("SELECT pg_database_size(current_database())").fetchall()
        return int(size)
