"""Upkeep of the spool: pixels that were kept long enough go, and files that no row links to. Results stay.

The database is told first, then the file goes: a file without a row is harmless, a row without a file is not.
"""

from __future__ import annotations

import logging

from store.archive import Archive
from store.files import Files
from store.search import Search

log = logging.getLogger(__name__)

#: How often one of the workers looks.
UPKEEP_SECONDS = 600.0


def upkeep(archive: Archive, search: Search, files: Files, *, keep_images_days: float, keep_unfinished_days: float) -> dict[str, int]:
    """Remove what may go; how many images lost their pixels, and how many orphaned files went."""
    retired = archive.retire_pixels(keep_images_days=keep_images_days, keep_unfinished_days=keep_unfinished_days)
    for name in retired:
        files.remove(name)
    orphans = list(files.orphans(search.known_files()))
    for name in orphans:
        files.remove(name)
    if retired or orphans:
        log.info("upkeep images_removed=%d orphans_removed=%d", len(retired), len(orphans))
    return {"images_removed": len(retired), "orphans_removed": len(orphans)}
