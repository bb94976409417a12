"""The spool: files beside the database. A row is the only link to a file; names are random, never from a UID.

What `adopt` and `write` return has survived a power cut: file synced, renamed, folder synced.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path

#: A file without a row may belong to a reception whose commit is still to come; after this long it does not.
ORPHAN_AFTER_SECONDS = 24 * 3600

_NAME = re.compile("[0-9a-f]{2}/[0-9a-f]{30}")


class FileGone(OSError):
    """The spool is there, but this file of it is not: waiting would not bring it back."""


class Files:
    """A folder of kept files and, on the same volume, a folder `incoming` for unfinished ones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
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
        _sync_folder(target.parent)
        return name

    def write(self, data: bytes) -> str:
        """Keep `data` as a new file and return its name; the same promise as `adopt`."""
        temporary = self.incoming / secrets.token_hex(16)
        try:
            temporary.write_bytes(data)
            return self.adopt(temporary)
        finally:
            temporary.unlink(missing_ok=True)

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

    def free_bytes(self) -> int:
        """Free space of the volume, in bytes, for a process without root's reserve."""
        return shutil.disk_usage(self.root).free

    def orphans(self, known: Collection[str], now: float | None = None) -> Iterator[str]:
        """Names of files that no row in `known` links to and that are older than `ORPHAN_AFTER_SECONDS`."""
        limit = (time.time() if now is None else now) - ORPHAN_AFTER_SECONDS
        for folder in self.root.iterdir():
            if folder.is_dir() and len(folder.name) == 2:
                for path in folder.iterdir():
                    name = f"{folder.name}/{path.name}"
                    if name not in known and path.stat().st_mtime < limit:
                        yield name

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
