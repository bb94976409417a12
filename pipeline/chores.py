"""Doing what is due now and then, beside the work: each chore by one process of all hosts, one after the other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
    abandoned_seconds: float = ABANDONED_SECONDS  # one that was begun so long ago and never ended is somebody else's


def do_chores(chores: Sequence[Chore], book: Chores, process: str, stopped: threading.Event) -> None:
    """Do what is due until `stopped` is set."""
    while not stopped.wait(CHORE_SECONDS):
        for chore in chores:
            try:
                if not stopped.is_set() and book.begin(chore.name, chore.every_seconds, process, chore.abandoned_seconds):
                    book.done(chore.name, chore.do())
            except DatabaseAway as error:
                log.warning("database not reachable, chore put off chore=%r reason=%s", chore.name, error.orig)
            except Exception as error:
                log.exception("chore failed chore=%r", chore.name)
                with suppress(DatabaseAway):
                    book.done(chore.name, {"failed": type(error).__name__})
