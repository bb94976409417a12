"""The gate before what may kill its process: images go side by side, a suspect goes alone, and after closing time nobody begins."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Counts who is at work in this process. A suspect that waits stops those who come after it, so that it gets its turn."""

    def __init__(self, images_at_once: int) -> None:
        self._changed = threading.Condition()
        self.images_at_once = images_at_once
        self._inside = 0
        self._images = 0
        self._alone = False
        self._suspects_waiting = 0
        self._closed = False

    @contextmanager
    def enter(self, *, alone: bool, image: bool = True) -> Iterator[bool]:
        """Wait until one may begin, and hold the place for as long as the context lasts; False: the gate is closed, do not begin.

        An `image` needs one of the places; a study does not, but nothing goes beside a suspect of either kind.
        """
        with self._changed:
            self._suspects_waiting += alone
            try:
                self._changed.wait_for(lambda: self._closed or self._free_for(alone, image))
            finally:
                self._suspects_waiting -= alone
                self._changed.notify_all()
            entered = not self._closed
            if entered:
                self._inside += 1
                self._images += image
                self._alone = alone
        try:
            yield entered
        finally:
            if entered:
                with self._changed:
                    self._inside -= 1
                    self._images -= image
                    self._alone = False
                    self._changed.notify_all()

    def close(self) -> None:
        """Who is inside goes on; nobody enters any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _free_for(self, alone: bool, image: bool) -> bool:
        if alone:
            return self._inside == 0
        return not self._alone and self._suspects_waiting == 0 and not (image and self._images >= self.images_at_once)
