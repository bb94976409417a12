"""The spool: files beside the database. A row is the only link to a file; names are random, never from a UID.

What `adopt` and `write` return has survived a power cut: file synced, renamed, folder synced. Below a floor of free space nothing more
is received; half of it is a reserve for what is made of what is here already.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile("[0-9a-f]{2}/[0-9a-f]{30}")

#: Of the floor of free space: what results, previews and transfers under way may still use.
RESERVE = 0.5


class FileGone(OSError):
    """The spool is there, but this file of it is not: waiting would not bring it back."""


class Room(NamedTuple):
    """What is free, in bytes, for a process without root's reserve, on the volume that has least, and which one that is."""

    free_bytes: int
    volume: str
    folder: Path


def least_room(root: Path, database_folder: Path | None) -> Room:
    """The room for what is received: that of the files' volume or of the database's, whichever is less. Raises OSError when one is away."""
    folders = {"files folder": root} | ({} if database_folder is None else {"database's folder": database_folder})
    return min((Room(shutil.disk_usage(folder).free, volume, folder) for volume, folder in folders.items()), key=lambda one: one.free_bytes)


class Files:
    """A folder of kept files and, on the same volume, a folder `incoming` for unfinished ones.

    `min_free_bytes`: the floor of free space of its volume, and of the one on which `database_folder` lies.
    """

    def __init__(self, root: Path, *, min_free_bytes: int = 0, database_folder: Path | None = None) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.min_free_bytes = min_free_bytes
        self._database_folder = database_folder
        self.incoming.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where the file `name` lies. Raises ValueError for a name that `adopt` or `write` cannot have returned."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a kept file")
        return self.root / name

    def adopt(self, path: Path) -> str:
        """Make the finished file at `path` (on this volume) durable under a new random name, which is returned."""
        handle = os.open(path, os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        name = self._new_name()
        target = self.root / name
        path.rename(target)
        try:
            _sync_folder(target.parent)
        except OSError:
            with contextlib.suppress(OSError):
                target.unlink()  # nobody learns this name
            raise
        return name

    def write(self, data: bytes) -> str:
        """Keep `data` as a new file and return its name; the same promise as `adopt`.

        Raises OSError, also with ENOSPC when not even half of the floor is free: what is left is the database's.
        """
        if not self.has_room(RESERVE):
            raise OSError(errno.ENOSPC, "less than half of [store] min_free_gib is free")
        temporary = self.incoming / secrets.token_hex(16)
        try:
            temporary.write_bytes(data)
            return self.adopt(temporary)
        finally:
            with contextlib.suppress(OSError):  # the janitor finds it
                temporary.unlink(missing_ok=True)

    def write_all(self, *contents: bytes | None) -> list[str | None]:
        """`write` for each, None for None; when one cannot be written, none is left behind."""
        names: list[str | None] = []
        try:
            for data in contents:
                names.append(None if data is None else self.write(data))
        except OSError:
            for name in filter(None, names):
                with contextlib.suppress(OSError):  # the janitor finds it
                    self.remove(name)
            raise
        return names

    def check(self, name: str) -> None:
        """Raise FileGone when the file `name` is missing for good, another OSError when the disk or the mount is away."""
        try:
            self.path(name).stat()
        except FileNotFoundError as error:
            self.incoming.stat()  # not there either: the whole folder is away, and that may pass
            raise FileGone(f"file {name} of the spool is gone") from error

    def read(self, name: str) -> bytes:
        """The whole content of the file `name`."""
        return self.path(name).read_bytes()

    def remove(self, name: str) -> None:
        """Forget the file `name`; one that is gone already is no error."""
        self.path(name).unlink(missing_ok=True)

    # --------------------------------------------------------------------------------------------------------------- space

    def free_bytes(self) -> int:
        """Free space of the spool's volume alone, in bytes, for a process without root's reserve: what removing files can add to."""
        return shutil.disk_usage(self.root).free

    def least_room(self) -> Room:
        """The room that decides whether something is received. Raises OSError when a volume is away."""
        return least_room(self.root, self._database_folder)

    def has_room(self, share: float = 1.0) -> bool:
        """Whether `share` of the floor is free, on the spool's volume and on the database's; False also when neither can be asked."""
        try:
            return self.least_room().free_bytes >= self.min_free_bytes * share
        except OSError:
            return False  # a volume that is away has no room

    # ------------------------------------------------------------------------------------------------------------- janitor

    def clock(self) -> float:
        """The time by the clock that stamps the files, in seconds since the epoch: on a shared volume that of its server.

        Raises OSError when the spool is away or read-only.
        """
        os.utime(self.incoming)
        return self.incoming.stat().st_mtime

    def folders(self) -> list[str]:
        """The folders of kept files that exist, each of two hexadecimal digits. Raises OSError when the spool is away."""
        self.incoming.stat()
        return sorted(one.name for one in os.scandir(self.root) if re.fullmatch("[0-9a-f]{2}", one.name) and one.is_dir())

    def names(self, folder: str) -> list[str]:
        """The names of the files in one of the `folders`."""
        return [name for one in os.scandir(self.root / folder) if _NAME.fullmatch(name := f"{folder}/{one.name}")]

    def last_touched(self, name: str) -> float | None:
        """When a file was written or renamed, whichever is later, in seconds since the epoch; None when it is gone."""
        try:
            found = self.path(name).stat()
        except FileNotFoundError:
            return None
        return max(found.st_mtime, found.st_ctime)  # a rename, and a restore from backup, leave the first as it was

    def remove_abandoned(self, older_than_seconds: float, now: float) -> int:
        """Remove what aborted transfers and killed processes left in `incoming` and what no process of this host holds open; how many.

        A transfer writes again and again, and ends when its sender is silent for a minute: on no host one that lives is that old.
        """
        old = [path for path in self.incoming.iterdir() if _older(path, now - older_than_seconds)]
        held = _open_files(self.incoming) if old else set()
        removed = 0
        for path in old:
            if path.name not in held:
                with contextlib.suppress(FileNotFoundError):  # another worker was quicker
                    path.unlink()
                    removed += 1
        return removed

    def _new_name(self) -> str:
        # 256 folders keep each one small: a year of a busy site is two million files.
        name = secrets.token_hex(16)
        folder = self.root / name[:2]
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            _sync_folder(self.root)
        return f"{name[:2]}/{name[2:]}"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _older(path: Path, limit: float) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return path.is_file() and max(found.st_mtime, found.st_ctime) < limit


def _open_files(folder: Path) -> set[str]:
    """Names of the files in `folder` that a process of this host holds open, as far as we may see (Linux: /proc)."""
    return {target.name for target in _open_paths() if target.parent == folder.resolve()}


def _open_paths() -> Iterator[Path]:
    for handles in Path("/proc").glob("[0-9]*/fd"):
        try:
            for handle in handles.iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    yield handle.readlink()
        except OSError:
            continue  # a process of another user, or one that just ended
