"""A private PostgreSQL per test session, from Debian's package: no password, no disk sync, gone with the session."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from store.database import write_engine
from store.upgrade import upgrade


def postgres_programs() -> Path | None:
    """The folder of `initdb` and `postgres`: on the path, or where Debian puts the newest version."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


class PostgresProcess:
    """A cluster of its own on loopback, which can be stopped and started again. What is committed survives a stop, not a power cut.

    PostgreSQL refuses to run as root, so root lends it the user of Debian's package.
    """

    def __init__(self, programs: Path, port: int, **settings: object) -> None:
        self.url = f"postgresql+psycopg://fourview@127.0.0.1:{port}"
        self._programs = programs
        self._as_user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        # Not where a receiver of an earlier test left `tempfile.tempdir`: that folder is its own, and goes.
        self._folder = Path(tempfile.mkdtemp(prefix="fourview-postgres-", dir=os.environ.get("TMPDIR", "/tmp")))
        self._server: subprocess.Popen[bytes] | None = None
        made_up = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": self._folder,
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": 200,
            "shared_buffers": "32MB",
            **settings,
        }
        self._options = [word for name, value in made_up.items() for word in ("-c", f"{name}={value}")]
        if self._as_user:
            shutil.chown(self._folder, "postgres", "postgres")
        made = subprocess.run(
            [programs / "initdb", "-D", self._folder / "data", "-U", "fourview", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            capture_output=True,
            text=True,
            cwd=self._folder,
            check=False,
            **self._as_user,
        )
        assert made.returncode == 0, made.stdout + made.stderr

    def start(self) -> None:
        """Returns when it answers."""
        log = self._folder / "log"
        with log.open("ab") as output:
            self._server = subprocess.Popen(
                [self._programs / "postgres", "-D", self._folder / "data", *self._options],
                stdout=output,
                stderr=output,
                cwd=self._folder,
                **self._as_user,
            )
        _wait_for(self.url, self._server, log)

    def stop(self) -> None:
        """At once, as after a crash: the next start recovers from the log."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(30)
            self._server = None

    def pids(self) -> list[int]:
        """Its processes."""
        if self._server is None:
            return []
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split()
        return [self._server.pid, *map(int, children)]

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def running_postgres(programs: Path, port: int) -> Iterator[str]:
    """A fresh cluster on loopback; the address of its server without a database name."""
    server = PostgresProcess(programs, port)
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            run(url, "SELECT 1")
            return
        except sa.exc.OperationalError:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.05)


def run(url: str, statement: str) -> None:
    """A statement outside any transaction, on the server's own database: CREATE DATABASE wants it so."""
    engine = sa.create_engine(f"{url}/postgres", isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)


def migrated(url: str) -> None:
    """Give the empty database at `url` the schema of this release, and leave no connection to it."""
    engine = write_engine(url)
    upgrade(engine)
    engine.dispose()
