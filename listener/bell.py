"""Wakes the workers of a host as soon as another of its processes has committed something, so that nothing waits for their next tick.

`serve` makes an eventfd(2) for each worker, and hands it to that worker and to everybody who rings. A bell says "look" and nothing more:
who hears it too often looks in vain, and who misses it looks a tenth of a second later by himself, as workers on other hosts do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence


def new_bells(count: int) -> list[int]:
    """The descriptors of so many bells, which last as long as a process has them."""
    return [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(count)]


def ring(bells: Sequence[int]) -> None:
    """Never waits, and costs a few microseconds."""
    for bell in bells:
        os.eventfd_write(bell, 1)


def when_rung(bell: int, look: Callable[[], None]) -> None:
    """Call `look` in a thread of its own whenever the bell has been rung, once for all the times since it was called last."""

    def listen() -> None:
        while True:
            os.eventfd_read(bell)
            look()

    threading.Thread(target=listen, name="bell", daemon=True).start()
