"""The gate before an image is read: images go side by side, a suspect goes alone, and after closing time nobody begins."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Counts who reads in this process. A suspect that waits stops those who come after it, so that it gets its turn."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False
        self._suspects_waiting = 0
        self._closed = False

    @contextmanager
    def enter(self, *, alone: bool) -> Iterator[bool]:
        """Wait until one may read, and hold the place for as long as the context lasts; False: the gate is closed, do not read."""
        with self._changed:
            self._suspects_waiting += alone
            try:
                self._changed.wait_for(lambda: self._closed or self._free_for(alone))
            finally:
                self._suspects_waiting -= alone
                self._changed.notify_all()
            entered = not self._closed
            if entered:
                self._inside += 1
                self._alone = alone
        try:
            yield entered
        finally:
            if entered:
                with self._changed:
                    self._inside -= 1
                    self._alone = False
                    self._changed.notify_all()

    def close(self) -> None:
        """Who is inside goes on; nobody enters any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _free_for(self, alone: bool) -> bool:
        if alone:
            return self._inside == 0
        return not self._alone and self._suspects_waiting == 0
