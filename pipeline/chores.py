"""Doing what is due now and then, beside the work: each chore by one process of all hosts, one after the other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.chores import ABANDONED_SECONDS, Chores
from store.database import DatabaseAway

log = logging.getLogger(__name__)

#: How often it is asked whether a chore is due.
CHORE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Chore:
    """Something to be done every now and then by one process of all hosts; `do` returns what is worth remembering of it, as JSON."""

    name: str
    every_seconds: float
    do: Callable[[], Mapping[str, Any]]
    long: bool = False  # it may take hours: no other chore waits for it
    abandoned_seconds: float = ABANDONED_SECONDS  # one that was begun so long ago and never ended is somebody else's


def do_chores(chores: Callable[[], Sequence[Chore]], book: Chores, who: str, stopped: threading.Event) -> None:
    """Do what is due until `stopped` is set, one after the other; `chores` says each time which there are. `who` does so in this thread
    only: whatever it has begun and not ended, in an earlier life or before the database went away, nobody is doing."""
    begun = True
    while not stopped.wait(CHORE_SECONDS):
        try:
            if begun:
                book.give_back(who)
                begun = False
            for chore in chores():
                if not stopped.is_set() and book.begin(chore.name, chore.every_seconds, who, chore.abandoned_seconds):
                    begun = True
                    book.done(chore.name, _outcome(chore))
                    begun = False
        except DatabaseAway as error:
            begun = True
            log.warning("database not reachable, chores put off reason=%r", str(error.orig))


def _outcome(chore: Chore) -> Mapping[str, Any]:
    try:
        return chore.do()
    except DatabaseAway:
        raise
    except Exception as error:
        log.exception("chore failed chore=%r", chore.name)
        return {"failed": type(error).__name__}
