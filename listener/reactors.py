"""pynetdicom's two threads of an association wait until there is something for them, instead of looking a thousand times a second.

One reads and writes PDUs (the upper layer, PS3.8), the other serves messages. Each sleeps for a millisecond, looks at its queues and its
connection, and sleeps again: sixteen associations that do nothing keep a fifth of a core busy, and slow down those that do something, since
all threads take turns. `let_wait` gives the queues between them a bell. It relies on what tests/test_reactors.py pins: `run_reactor`
of `assoc.dul` looks at `to_provider_queue` and then asks `socket.ready`; the one of `assoc` waits for `_reactor_checkpoint` and then
looks at `dimse.msg_queue` and `dul.to_user_queue`.
"""

from __future__ import annotations

import os
import queue
import select
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom.transport import AssociationSocket

#: What nothing rings for (a timer that ran out, a thread that is to end) is noticed so late at most.
LOOK_SECONDS = 0.25
#: pynetdicom's own pause, for a connection that is closed already.
_PAUSE_SECONDS = 0.001


def let_wait(assoc: Any) -> None:
    """Before the threads of an association start: have them wait."""
    bell = _Bell()
    assoc.dul.to_provider_queue = _Heard(bell.ring)
    assoc.dul.socket.bell = bell
    assoc.dul.socket.__class__ = _WaitingSocket
    checkpoint = _Checkpoint(assoc)
    assoc.dimse.msg_queue = _Heard(checkpoint.ring)
    assoc.dul.to_user_queue = _Heard(checkpoint.ring)
    assoc._reactor_checkpoint = checkpoint


def let_go(assoc: Any) -> None:
    """Once its connection is closed: give back the bell's descriptor now, and not when the garbage collector comes by."""
    assoc.dul.socket.bell.close()


class _Heard(queue.Queue[Any]):
    """A queue that rings when something was put into it."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As of any queue."""
        super().put(item, block, timeout)
        self._ring()


class _Bell:
    """Can be waited for together with a connection (eventfd(2))."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()  # or a descriptor that is another's by then would be written to

    def fileno(self) -> int:
        """For select."""
        return self._descriptor

    def ring(self) -> None:
        """Wake who waits."""
        with self._lock:
            if self._descriptor >= 0:
                os.eventfd_write(self._descriptor, 1)

    def silence(self) -> None:
        """Once it was heard."""
        os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Nobody waits any more, and nobody will."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class _WaitingSocket(AssociationSocket):
    """Its owner's reactor asks it for data all the time; the answer waits until there are some, or something is to be sent."""

    bell: _Bell

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        if self.socket is None or not self._is_connected:
            time.sleep(_PAUSE_SECONDS)
            return False
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        dul = self.assoc.dul
        # An event is to be handled first; and in Sta13 (PS3.8 9.2) pynetdicom closes the connection once nothing comes any more.
        waits = dul.event_queue.empty() and dul.state_machine.current_state != "Sta13"
        sources: list[Any] = [self.socket, self.bell]
        try:
            found, _, _ = select.select(sources, [], [], LOOK_SECONDS if waits else 0)
        except (OSError, ValueError):
            dul.event_queue.put("Evt17")  # PS3.8 9.2: transport connection closed
            return False
        if self.bell in found:
            self.bell.silence()
            dul._process_recv_primitive()
            return False  # what came goes after what is to be sent, as ever
        return bool(found)


class _Checkpoint(threading.Event):
    """Where the reactor that serves messages stops while another thread uses the association; here it waits for news as well."""

    def __init__(self, assoc: Any) -> None:
        super().__init__()
        self._assoc = assoc
        self._news = threading.Event()
        self.set()

    def ring(self) -> None:
        """Wake who waits."""
        self._news.set()

    def set(self) -> None:
        """Let the reactor go on; it may be told to end."""
        super().set()
        self._news.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Until there is something in a queue, or LOOK_SECONDS; and in any case until nobody else uses the association."""
        assoc = self._assoc
        if assoc.dimse.msg_queue.empty() and assoc.dul.to_user_queue.empty() and not assoc._kill:
            self._news.wait(LOOK_SECONDS)
        self._news.clear()
        return super().wait(timeout)
