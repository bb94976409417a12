"""The spool: names, what survives, and which files nobody needs."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from store.files import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "files")


def incoming(files: Files, data: bytes) -> Path:
    path = files.incoming / "unfinished"
    path.write_bytes(data)
    return path


def test_an_adopted_file_is_moved_under_a_random_name(files: Files) -> None:
    path = incoming(files, b"one")
    name = files.adopt(path)
    assert re.fullmatch("[0-9a-f]{2}/[0-9a-f]{30}", name)
    assert not path.exists() and files.read(name) == b"one" and files.path(name).parent.parent == files.root
    assert files.adopt(incoming(files, b"one")) != name, "one name per reception, also for the same bytes"


def test_a_file_is_synced_before_it_is_named_and_its_folder_after(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is the promise: data, name, folder (and the folder of a new folder)."""
    done: list[str] = []
    rename, fsync = Path.rename, os.fsync

    def note_rename(self: Path, target: Path) -> Path:
        done.append("rename")
        return rename(self, target)

    def note_fsync(handle: int) -> None:
        where = Path(f"/proc/self/fd/{handle}").readlink()
        done.append("sync root" if where == files.root else "sync folder" if where.is_dir() else "sync file")
        fsync(handle)

    monkeypatch.setattr(Path, "rename", note_rename)
    monkeypatch.setattr(os, "fsync", note_fsync)
    files.adopt(incoming(files, b"one"))
    assert done == ["sync file", "sync root", "rename", "sync folder"]
    done.clear()
    files.write(b"two")
    assert [step for step in done if step != "sync root"] == ["sync file", "rename", "sync folder"]


def test_a_written_file_leaves_nothing_behind(files: Files) -> None:
    name = files.write(b"data")
    assert files.read(name) == b"data" and list(files.incoming.iterdir()) == []


def test_a_file_that_cannot_be_adopted_leaves_nothing_behind(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.write(b"data")
    assert [path for path in files.root.rglob("*") if path.is_file()] == []


def test_a_spool_is_found_again(files: Files) -> None:
    name = files.write(b"data")
    assert Files(files.root).read(name) == b"data"


def test_a_removed_file_is_gone_and_may_be_removed_again(files: Files) -> None:
    name = files.write(b"data")
    files.remove(name)
    files.remove(name)
    assert not files.path(name).exists()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "../" + "a" * 30,
        "/a/" + "a" * 30,
        "ab/" + "a" * 29,
        "ab/" + "a" * 31,
        "ab/../" + "a" * 27,
        "ab//" + "a" * 29,
        "AB/" + "a" * 30,
        "ab/" + "g" * 30,
        "ab/" + "a" * 29 + "\n",
        "1.2.840.10008.5.1.4.1.1.1.2.12345",
    ],
)
def test_a_path_comes_from_no_other_name(files: Files, name: str) -> None:
    for method in (files.path, files.read, files.remove):
        with pytest.raises(ValueError, match="not the name of a kept file"):
            method(name)


def test_abandoned_transfers_are_removed_when_old_and_nobody_writes_them(files: Files) -> None:
    for name in ("a.dcm", "0" * 32, "held.dcm"):
        (files.incoming / name).write_bytes(b"x")
    now = files.clock()
    with (files.incoming / "held.dcm").open("ab"):
        assert files.remove_abandoned(3600, now + 3500) == 0
        assert files.remove_abandoned(3600, now + 3700) == 2
        assert [path.name for path in files.incoming.iterdir()] == ["held.dcm"]
    assert files.remove_abandoned(3600, now + 3700) == 1


def test_a_file_is_as_old_as_its_last_rename(files: Files) -> None:
    path = incoming(files, b"one")
    os.utime(path, (1, 1))  # written in 1970: a process that stood still for long, or a restore from backup
    touched = files.last_touched(files.adopt(path))
    assert touched is not None and files.clock() - touched < 60
    assert files.last_touched("ab/" + "0" * 30) is None


def test_below_half_of_the_floor_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The floor counts for the volume of the files and for the database's; results may use half of it."""
    database = tmp_path / "database"
    files = Files(tmp_path / "files", min_free_bytes=100, database_folder=database)
    free = {files.root: 100, database: 100}
    monkeypatch.setattr(shutil, "disk_usage", lambda volume: SimpleNamespace(free=free[volume]))
    assert files.has_room()
    for volume in (files.root, database):
        free[volume] = 99
        assert not files.has_room() and files.write(b"result")
        free[volume] = 49
        with pytest.raises(OSError, match="half of") as raised:
            files.write(b"result")
        assert raised.value.errno == errno.ENOSPC
        free[volume] = 100
    del free[database]
    monkeypatch.setattr(shutil, "disk_usage", _away)
    assert not files.has_room(), "a volume that is away has no room"


def _away(volume: Path) -> None:
    raise OSError(errno.ESTALE, "stale file handle")


def test_free_space_is_that_of_the_volume(files: Files) -> None:
    free = os.statvfs(files.root)
    assert files.free_bytes() == pytest.approx(free.f_bavail * free.f_frsize, rel=0.01)
