"""The disk and the database fail at every step of the way, one step after the other: what was answered 0x0000 is kept, what could not be
kept is answered 0xA700, nothing is left behind that stays, and everything goes on by itself.

Faults are put into our own calls of the operating system (`Faults`), into SQLite and PostgreSQL, and, for what only a kernel can
do, into a process with a limit on the size of its files.
"""

from __future__ import annotations

import errno
import itertools
import os
import pathlib
import resource
import secrets
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.presentation import build_context
from stepped_store import SteppedStore, exam, image

from listener import keys
from listener.keeping import keep_file
from listener.keys import Status, read_keys
from listener.scp import StorageScp
from pipeline.decode import DecodeFailed, Decoder, DiskFault
from pipeline.upkeep import retire, tidy
from store import tables
from store.archive import Archive, Kept
from store.database import write_engine
from store.files import Files
from store.rows import Busy
from store.study import View

FAULTS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES]


class Faults:
    """Makes the Nth call of the operating system on a path below `root` fail, once or from then on."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.calls: list[str] = []
        self.fail_at = 0  # 0: never
        self.number = 0
        self.lasting = False
        self.awake = True
        for name in ("open", "fsync", "rename", "mkdir", "unlink", "utime", "scandir"):
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))
        real_open = pathlib.Path.open

        def opened(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if root not in path.parents:
                return real_open(path, mode, *arguments, **options)
            self._call(f"open {mode}")
            return _File(real_open(path, mode, *arguments, **options), self)

        monkeypatch.setattr(pathlib.Path, "open", opened)
        real_read = keys._Raw.read_once

        def read(raw: Any, buffer: Any) -> int:
            self._call("read")
            return real_read(raw, buffer)

        monkeypatch.setattr(keys._Raw, "read_once", read)

    def arm(self, fail_at: int, number: int, *, lasting: bool = False) -> None:
        self.calls, self.fail_at, self.number, self.lasting = [], fail_at, number, lasting

    @property
    def struck(self) -> bool:
        return 0 < self.fail_at <= len(self.calls)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """For the test's own look at the files."""
        self.awake = False
        yield
        self.awake = True

    def _call(self, name: str) -> None:
        if not self.awake:
            return
        self.calls.append(name)
        if self.fail_at and (len(self.calls) == self.fail_at or (self.lasting and self.struck)):
            raise OSError(self.number, os.strerror(self.number))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            if self._ours(target):
                self._call(name)
            return real(target, *arguments, **options)

        return call

    def _ours(self, target: Any) -> bool:
        if isinstance(target, int):
            try:
                target = Path(f"/proc/self/fd/{target}").readlink()
            except OSError:
                return False
        path = Path(os.fsdecode(target))
        return path == self.root or self.root in path.parents


class _File:
    """An open file whose reads and writes may fail."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file = file
        self._faults = faults

    def write(self, data: Any) -> int:
        self._faults._call("write")
        return int(self._file.write(data))

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def each_step(faults: Faults, number: int, operation: Callable[[], None], *, lasting: bool = False) -> list[str]:
    """`operation` again and again, with the first call failing, the second, ... until nothing fails any more; the calls it makes."""
    for step in range(1, 200):
        faults.arm(step, number, lasting=lasting)
        operation()
        if not faults.struck:
            return faults.calls
    raise AssertionError("the operation never ends")


class Reception:
    """A receiver with its store, and a sender that keeps one association."""

    def __init__(self, root: Path, engine: sa.Engine) -> None:
        self.engine = engine
        self.archive = Archive(engine)
        self.files = Files(root / "files")
        self.scp = StorageScp(ae_title="FOURVIEW", host="127.0.0.1", port=0, archive=self.archive, files=self.files).start()
        self.sent = 0
        self.acknowledged: dict[str, Dataset] = {}
        self.assoc = self._associate()

    def _associate(self) -> Any:
        ae = AE(ae_title="GANTRY")
        ae.acse_timeout = ae.dimse_timeout = 30
        context = build_context("1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.1.2.1")
        assoc = ae.associate("127.0.0.1", self.scp.port, contexts=[context], ae_title="FOURVIEW")
        assert assoc.is_established
        return assoc

    def send(self) -> int:
        """The status for an image that was never sent before; the association must outlive whatever happens."""
        self.sent += 1
        ds = image(View.L_CC, str(self.sent))
        answer = self.assoc.send_c_store(ds)
        assert "Status" in answer, "no answer"
        if answer.Status == Status.SUCCESS:
            self.acknowledged[str(ds.SOPInstanceUID)] = ds
        return int(answer.Status)

    def check(self) -> None:
        """What was acknowledged is there with its bytes, and no row points to nothing."""
        row = tables.instance
        with self.engine.begin() as connection:
            found = dict(connection.execute(sa.select(row.c.sop_instance_uid, row.c.file_name)).all())
        assert set(self.acknowledged) <= set(found)
        for uid, name in found.items():
            data = self.files.path(name).read_bytes()
            if uid in self.acknowledged:
                assert self.acknowledged[uid].PixelData in data

    def left_over(self) -> tuple[int, int]:
        """Unfinished files, and files without a row."""
        with self.engine.begin() as connection:
            known = set(connection.execute(sa.select(tables.instance.c.file_name)).scalars())
        names = {f"{path.parent.name}/{path.name}" for path in self.files.root.glob("??/*")}
        return len(list(self.files.incoming.iterdir())), len(names - known)


@pytest.fixture
def sqlite(tmp_path: Path, sqlite_template: Path) -> Iterator[sa.Engine]:
    shutil.copy(sqlite_template, tmp_path / "fourview.db")
    engine = write_engine(f"sqlite:///{tmp_path / 'fourview.db'}")
    yield engine
    engine.dispose()


@contextmanager
def receiving(root: Path, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reception]:
    monkeypatch.setattr(tempfile, "tempdir", None)  # restored after the test
    reception = Reception(root, engine)
    yield reception
    reception.assoc.release()
    reception.scp.shutdown(grace_seconds=1)


# ----------------------------------------------------------------------------------------------------------------- reception


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("number", FAULTS, ids=errno.errorcode.get)
def test_every_step_of_reception_may_fail(
    tmp_path: Path, sqlite: sa.Engine, monkeypatch: pytest.MonkeyPatch, number: int, lasting: bool
) -> None:
    with receiving(tmp_path, sqlite, monkeypatch) as reception:
        numbers = itertools.count()
        fresh = lambda _bytes: f"{next(numbers) % 256:02x}{secrets.token_hex(15)}"  # noqa: E731 - each name in a folder that must be made
        monkeypatch.setattr("store.files.secrets", SimpleNamespace(token_hex=fresh))
        faults = Faults(reception.files.root, monkeypatch)
        statuses: list[int] = []

        def operation() -> None:
            statuses.append(reception.send())
            with faults.asleep():
                reception.check()

        calls = each_step(faults, number, operation, lasting=lasting)
        assert {"open xb", "write", "read", "open", "fsync", "mkdir", "rename", "unlink"} <= set(calls), calls
        assert set(statuses) <= {Status.SUCCESS, Status.OUT_OF_RESOURCES}
        # All but the removal of a temporary file that is gone already costs the answer.
        assert statuses.count(Status.OUT_OF_RESOURCES) >= len(calls) - 2 and statuses[-1] == Status.SUCCESS
        faults.arm(0, 0)
        assert reception.send() == Status.SUCCESS, "by itself, over the same association"
        unfinished, orphans = reception.left_over()
        later = reception.files.clock() + 25 * 3600
        monkeypatch.setattr(reception.files, "clock", lambda: later)
        done = tidy(SteppedStore(sqlite, reception.files.root).retention(7, 90), reception.files, folders=reception.files.folders())
        assert done == {"abandoned_removed": unfinished, "orphans_removed": orphans}
        assert reception.left_over() == (0, 0)
        reception.check()


# ------------------------------------------------------------------------------------------------------------------ database


def test_a_database_that_is_full_asks_for_a_later_try(tmp_path: Path, sqlite: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own word for a volume without space, at a different page each time."""
    with receiving(tmp_path, sqlite, monkeypatch) as reception:
        limit = [10**9]

        @sa.event.listens_for(sqlite, "begin")
        def limited(connection: sa.Connection) -> None:
            connection.exec_driver_sql(f"PRAGMA max_page_count={limit[0]}")

        with sqlite.begin() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        statuses = []
        for more in range(4):
            limit[0] = pages + more
            for _ in range(12):
                statuses.append(reception.send())
                reception.check()
        limit[0] = 10**9
        assert set(statuses) == {Status.SUCCESS, Status.OUT_OF_RESOURCES}
        assert reception.send() == Status.SUCCESS
        reception.check()


def test_many_receptions_at_once_take_turns(tmp_path: Path, sqlite: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite would have fifteen of them ask now and then whether they may write: here no second one asks before the first has ended."""
    monkeypatch.setattr("store.archive.BUSY_TIMEOUT_SECONDS", 120)  # whatever else this machine does
    files, archive = Files(tmp_path / "files"), Archive(sqlite)
    asking: list[int] = []
    most = [0]

    @sa.event.listens_for(sqlite, "before_cursor_execute")
    def asks(_connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement == "BEGIN IMMEDIATE":
            asking.append(1)
            most[0] = max(most[0], len(asking))

    @sa.event.listens_for(sqlite, "commit")
    def ends(_connection: sa.Connection) -> None:
        asking.pop()

    def keep(number: int) -> Kept:
        path = tmp_path / f"{number}.dcm"
        image(View.L_CC, str(number)).save_as(path, enforce_file_format=True)
        keys = read_keys(path)
        return keep_file(keys, path, "", archive=archive, files=files, calling_ae_title="GANTRY", called_ae_title="FOURVIEW")

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(keep, range(32))) == [Kept.NEW] * 32
    assert most == [1]


@pytest.mark.parametrize("stands", [True, False], ids=["the commit stands", "the commit is lost"])
def test_a_commit_without_an_answer_loses_nothing(tmp_path: Path, sqlite: sa.Engine, monkeypatch: pytest.MonkeyPatch, stands: bool) -> None:
    """The file stays, since its row may be there; when the sender repeats, it is a duplicate or new."""
    with receiving(tmp_path, sqlite, monkeypatch) as reception:
        dialect = sqlite.dialect
        real = dialect.do_commit

        def commit(connection: Any) -> None:
            (real if stands else dialect.do_rollback)(connection)
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(dialect, "do_commit", commit)
        ds = image(View.L_CC, "lost")
        assert reception.assoc.send_c_store(ds).Status == Status.OUT_OF_RESOURCES
        monkeypatch.setattr(dialect, "do_commit", real)
        assert len(list(reception.files.root.glob("??/*"))) == 1, "its row may link to it"
        reception.check()
        assert reception.left_over() == (0, 0 if stands else 1)
        assert reception.assoc.send_c_store(ds).Status == Status.SUCCESS
        reception.acknowledged[str(ds.SOPInstanceUID)] = ds
        reception.check()
        assert reception.left_over() == (0, 0 if stands else 1)


def test_before_the_commit_no_try_leaves_its_file(tmp_path: Path, sqlite: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that repeats all night while the database is away must not fill the disk: the Nth statement fails, N = 1, 2, ..."""
    with receiving(tmp_path, sqlite, monkeypatch) as reception:
        assert reception.send() == Status.SUCCESS
        failed = 0
        for at in range(1, 30):
            counted = itertools.count(1)

            def fail(*_: Any, at: int = at, counted: Any = counted) -> None:
                if next(counted) == at:
                    raise sa.exc.OperationalError("a statement", {}, Exception("connection lost"))

            ds = image(View.L_CC, f"away {at}")
            sa.event.listen(sqlite, "before_cursor_execute", fail)
            status = reception.assoc.send_c_store(ds).Status
            sa.event.remove(sqlite, "before_cursor_execute", fail)
            reception.check()
            assert reception.left_over() == (0, 0)
            if status == Status.SUCCESS:
                break
            assert status == Status.OUT_OF_RESOURCES
            failed += 1
            assert reception.assoc.send_c_store(ds).Status == Status.SUCCESS
            if at % 3 == 0:  # its duplicate has a file of its own, which goes without the first
                assert reception.assoc.send_c_store(ds).Status == Status.SUCCESS
        assert failed >= 5


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_postgresql_that_goes_away_between_statements(engine: sa.Engine, stepped: SteppedStore) -> None:
    """The server ends the session after the Nth statement of `keep`, N = 1, 2, ...: Busy, and the next try keeps it."""
    number = itertools.count()
    done = 0
    for at in range(1, 30):
        counted = itertools.count(1)

        def cut(connection: Any, cursor: Any, statement: str, *_: Any, at: int = at, counted: Any = counted) -> None:
            if next(counted) == at:
                with sa.create_engine(engine.url, poolclass=sa.NullPool).connect() as other:
                    other.exec_driver_sql(f"SELECT pg_terminate_backend({cursor.connection.info.backend_pid}, 5000)")

        ds = image(View.L_CC, f"away {next(number)}")
        sa.event.listen(engine, "before_cursor_execute", cut)
        try:
            stepped.receive(ds)
            break
        except Busy:
            done += 1
        finally:
            sa.event.remove(engine, "before_cursor_execute", cut)
        assert stepped.receive(ds) == ["new"]
    assert done >= 5


# -------------------------------------------------------------------------------------------------------------------- worker


def test_a_file_that_cannot_be_read_is_not_the_images_fault(tmp_path: Path) -> None:
    """The decoder's own process tells a disk fault from a broken image."""
    with Decoder() as decoder:
        with pytest.raises(DiskFault) as raised:
            decoder.decode(tmp_path)  # a folder: EISDIR when read
        assert raised.value.errno == errno.EISDIR
        with pytest.raises(DiskFault, match="No such file"):
            decoder.decode(tmp_path / "gone")
        (tmp_path / "broken").write_bytes(b"x" * 200)
        with pytest.raises(DecodeFailed):
            decoder.decode(tmp_path / "broken")


@pytest.mark.parametrize("number", FAULTS, ids=errno.errorcode.get)
def test_every_step_of_writing_results_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """All of a version's files are there, or none; the retries leave nothing that fills the disk."""
    files = Files(tmp_path / "files")
    faults = Faults(files.root, monkeypatch)
    kept: list[str | None] = []

    def operation() -> None:
        try:
            names = files.write_all(b"sr", None, b"page")
        except OSError as error:
            assert error.errno == number
            names = []
        with faults.asleep():
            kept.extend(filter(None, names))
            assert {f"{one.parent.name}/{one.name}" for one in files.root.glob("??/*")} == set(kept)

    calls = each_step(faults, number, operation)
    assert calls.count("rename") == 2 and calls.count("fsync") >= 4


def test_every_step_of_retention_and_of_the_janitor_may_fail(stepped: SteppedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be unlinked has no row any more, and goes later."""
    stepped.receive(*exam())
    stepped.settle()
    while claims := stepped.ledger.claim():
        for one in stepped.begin(claims[0].workflow_id):
            stepped.ledger.sent(one.delivery_id, 0, "", ask=False)
            stepped.ledger.confirmed(one.delivery_id)
    stepped.step(8 * 24 * 3600)
    stepped.receive(image(View.R_CC, "another"))  # known files, so that the orphans are not the most
    faults = Faults(stepped.files.root, monkeypatch)
    faults.arm(1, errno.EROFS, lasting=True)
    retention = stepped.retention(7, 90)
    stepped.work(read=False)
    with stepped.engine.begin() as connection:
        connection.execute(sa.update(tables.study).values(state="analysed", generation=0, settled_generation=0, due_at=None))
        connection.execute(sa.update(tables.study).values(last_instance_at=stepped.now - timedelta(days=8), workflow_id=None))
        connection.execute(sa.update(tables.score).values(state="scored"))
    assert retire(retention, stepped.files)["images_removed"] == 5
    with faults.asleep():
        assert len(list(stepped.files.root.glob("??/*"))) == 5
        stepped.receive(*(image(view, f"later {number}", StudyInstanceUID="1.2.3") for number in range(6) for view in [View.L_CC]))
        later = stepped.files.clock() + 25 * 3600
    real_clock = stepped.files.clock
    monkeypatch.setattr(stepped.files, "clock", lambda: (real_clock(), later)[1])

    def operation() -> None:
        try:
            tidy(retention, stepped.files, folders=[f"{number:02x}" for number in range(256)])
        except OSError as error:
            assert error.errno == errno.EIO

    each_step(faults, errno.EIO, operation)
    with faults.asleep():
        assert len(list(stepped.files.root.glob("??/*"))) == 6


# -------------------------------------------------------------------------------------------------------------------- kernel


def test_a_disk_that_the_kernel_fills(tmp_path: Path, sqlite: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files cuts writes off in the middle of a data set, as a full volume does: a part, then EFBIG."""
    with receiving(tmp_path, sqlite, monkeypatch) as reception:
        assert reception.send() == Status.SUCCESS
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            assert reception.send() == Status.OUT_OF_RESOURCES
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        reception.check()
        assert reception.send() == Status.SUCCESS
        assert reception.left_over() == (0, 0)
