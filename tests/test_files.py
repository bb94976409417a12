"""The spool: names, what survives, and which files nobody needs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from store.files import ORPHAN_AFTER_SECONDS, Files


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


def test_orphans_are_old_files_that_no_row_links_to(files: Files) -> None:
    known, orphan, young = files.write(b"known"), files.write(b"orphan"), files.write(b"young")
    (files.incoming / "unfinished").write_bytes(b"")
    now = files.path(young).stat().st_mtime
    for name in (known, orphan):
        os.utime(files.path(name), (now - ORPHAN_AFTER_SECONDS - 1,) * 2)
    assert list(files.orphans({known}, now=now)) == [orphan]
    assert sorted(files.orphans(set(), now=now + ORPHAN_AFTER_SECONDS + 2)) == sorted([known, orphan, young])


def test_free_space_is_that_of_the_volume(files: Files) -> None:
    free = os.statvfs(files.root)
    assert files.free_bytes() == pytest.approx(free.f_bavail * free.f_frsize, rel=0.01)
