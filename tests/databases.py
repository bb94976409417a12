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

import sqlalchemy as sa

from store.database import upgrade, write_engine


def postgres_programs() -> Path | None:
    """The folder of `initdb` and `postgres`: on the path, or where Debian puts the newest version."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


@contextmanager
def running_postgres(programs: Path, port: int) -> Iterator[str]:
    """A fresh cluster on loopback; the address of its server without a database name.

    PostgreSQL refuses to run as root, so root lends it the user of Debian's package.
    """
    as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="fourview-postgres-"))
    try:
        if as_user:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        made = subprocess.run(
            [programs / "initdb", "-D", data, "-U", "fourview", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
            **as_user,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": 60,
            "shared_buffers": "32MB",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([programs / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=folder, **as_user)
        url = f"postgresql+psycopg://fourview@127.0.0.1:{port}"
        try:
            _wait_for(url, server, folder / "log")
            yield url
        finally:
            server.send_signal(signal.SIGQUIT)  # "immediate": nothing of it is needed any more
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
