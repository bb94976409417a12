"""Upkeep of the spool: pixels that were kept long enough go, pixels go where the volume needs room, and the janitor removes what no row
links to. Results stay.

The database is told first, then the file goes: a file without a row is harmless, a row without a file is not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from store.files import Files
from store.retention import Gone, Retention, Why

log = logging.getLogger(__name__)

#: How often one of the workers looks whether there is room, whether images were kept long enough, and after a part of the spool.
ROOM_SECONDS = 60.0
RETENTION_SECONDS = 600.0
JANITOR_SECONDS = 600.0
#: Studies in one transaction.
BATCH = 50
#: Pixels go until this many times the floor is free.
ROOM = 2.0
#: An unfinished file that old belongs to no transfer that still lives.
ABANDONED_AFTER_SECONDS = 3600.0
#: A file without a row may belong to a reception whose commit is still to come; after this long it does not.
ORPHAN_AFTER_SECONDS = 24 * 3600.0
#: Folders (of 256) that the janitor looks through in one go: all of them in under three hours.
FOLDERS = 16
#: Names asked for in one query.
NAMES = 500
#: So few files without a row are never taken for a wrong database.
FEW = 50


class WrongDatabase(Exception):
    """Most files of the spool have no row in this database: they are somebody's, and nothing is removed."""


def retire(retention: Retention, files: Files) -> dict[str, Any]:
    """Let pixels go that were kept long enough; how many images."""
    removed = 0
    for why in (Why.EXPIRED, Why.AGE):
        while studies := retention.candidates(why, BATCH):
            gone = retention.let_go(why, studies)
            _remove(files, gone)
            removed += len(gone)
            if not gone:
                break  # all of them were taken in hand meanwhile
    if removed:
        log.info("pixels removed, kept long enough images=%d", removed)
    return {"images_removed": removed}


def make_room(retention: Retention, files: Files) -> dict[str, Any]:
    """Below twice the floor, let pixels go whose results have arrived, oldest first, until there is room; how many images.

    How much must go is computed once: some volumes tell late what was freed.
    """
    missing = int(ROOM * files.min_free_bytes) - files.free_bytes()
    removed = freed = 0
    while freed < missing and (studies := retention.candidates(Why.ROOM, BATCH)):
        taken = 0
        for study in studies:
            if freed >= missing:
                break
            gone = retention.let_go(Why.ROOM, [study])
            _remove(files, gone)
            taken += len(gone)
            freed += sum(one.size_bytes for one in gone)
        removed += taken
        if not taken:
            break
    if missing > 0:
        log.warning("the volume needs room missing_bytes=%d images_removed=%d freed_bytes=%d", missing, removed, freed)
    return {"images_removed": removed, "freed_bytes": freed, "missing_bytes": max(missing, 0)}


def _remove(files: Files, gone: Sequence[Gone]) -> None:
    for one in gone:
        try:
            files.remove(one.file_name)
        except OSError as error:  # it has no row any more: the janitor finds it
            log.warning("file not removed, the janitor will try again file=%s reason=%r", one.file_name, error.strerror)


def tidy(retention: Retention, files: Files, *, folders: Sequence[str] | None = None) -> dict[str, Any]:
    """Remove unfinished files that were abandoned, and files that no row links to, in those folders whose turn it is; how many.

    Raises WrongDatabase, and OSError when the spool is away.
    """
    now = files.clock()
    abandoned = files.remove_abandoned(ABANDONED_AFTER_SECONDS, now)
    unknown = _unknown(retention, files, _turn(now) if folders is None else folders)
    orphans = [name for name in unknown if (touched := files.last_touched(name)) is not None and touched < now - ORPHAN_AFTER_SECONDS]
    for name in orphans:
        files.remove(name)
    if abandoned or orphans:
        log.info("janitor abandoned_removed=%d orphans_removed=%d", abandoned, len(orphans))
    return {"abandoned_removed": abandoned, "orphans_removed": len(orphans)}


def _turn(now: float) -> list[str]:
    """The folders whose turn it is: by the clock, so that nobody need remember where the last one stopped."""
    first = int(now // JANITOR_SECONDS) * FOLDERS
    return [f"{(first + number) % 256:02x}" for number in range(FOLDERS)]


def _unknown(retention: Retention, files: Files, wanted: Sequence[str]) -> list[str]:
    """Names in the `wanted` folders that no row links to. Raises WrongDatabase when that is most of what lies there.

    So few files that they say nothing are judged with those of further folders.
    """
    there = files.folders()
    found: dict[str, list[str]] = {}
    seen = without_row = 0
    for folder in sorted(there, key=lambda one: one not in wanted):
        if folder not in wanted and seen > 2 * FEW:
            break
        names = files.names(folder)
        missing = [name for start in range(0, len(names), NAMES) for name in retention.unknown(names[start : start + NAMES])]
        seen += len(names)
        without_row += len(missing)
        found[folder] = missing
    if without_row > seen / 2 and (without_row > FEW or without_row == seen):
        raise WrongDatabase(
            f"{without_row} of {seen} files in {files.root} have no row in the database: is it the right one? Nothing was removed. "
            "After a restore from an old backup look at them and remove them by hand"
        )
    return [name for folder, names in found.items() if folder in wanted for name in names]
