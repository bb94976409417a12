"""Who may connect to the DICOM port, and how often: looked at where connections are accepted, before a thread is made for one.

pynetdicom makes two threads for each connection, and counts it among the associations before it has said who it is; and it waits for
bytes with `select`, which knows no descriptor above 1023. So there are limits by address, and one for all, that hold before anything
is read. An open connection is one whose socket is open: nobody has to tell when it ends.
"""

from __future__ import annotations

import socket
import threading
import weakref
from dataclasses import dataclass

from listener.limits import Buckets

#: Of all addresses. Each has two descriptors and perhaps a file, and 1,024 is what `select` knows and most services have.
MOST_OPEN = 300
#: From so many on an address that has this many already gets no more: what is left is for the others.
CROWDED, WHEN_CROWDED = 200, 8


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """0: any number."""

    per_address: int = 100  # open at the same time
    per_minute: float = 6000.0  # new ones of an address; so many at once as well


class Connections:
    """The open connections of one receiver."""

    def __init__(self) -> None:
        self._limits = ConnectionLimits()
        self._buckets: Buckets | None = None
        self._open: dict[str, list[weakref.ref[socket.socket]]] = {}
        self._lock = threading.Lock()
        self.limit(self._limits)

    def limit(self, limits: ConnectionLimits) -> None:
        """From now on; who is connected stays."""
        with self._lock:
            if self._buckets is None or limits.per_minute != self._limits.per_minute:
                self._buckets = Buckets(limits.per_minute, limits.per_minute) if limits.per_minute else None
            self._limits = limits

    def refused_because(self, address: str, now: float) -> str:
        """Why a new connection from there is closed at once, or "". `now`: seconds of a steady clock."""
        with self._lock:
            count = len(self._living(address))
            if self._limits.per_address and count >= self._limits.per_address:
                return f"{count} connections of this address are open ([dicom] connections_per_address)"
            total = sum(len(self._living(other)) for other in list(self._open))
            if total >= MOST_OPEN or (total >= CROWDED and count >= WHEN_CROWDED):
                return f"{total} connections are open, {count} of this address; a receiver has {MOST_OPEN}"
            if self._buckets is not None and self._buckets.take(address, now):
                return f"more than {self._limits.per_minute:g} connections in a minute ([dicom] connections_per_minute)"
            return ""

    def add(self, address: str, connection: socket.socket) -> None:
        """It was accepted."""
        with self._lock:
            self._open.setdefault(address, []).append(weakref.ref(connection))

    def _living(self, address: str) -> list[weakref.ref[socket.socket]]:
        living = [one for one in self._open.get(address, ()) if (connection := one()) is not None and connection.fileno() >= 0]
        if living:
            self._open[address] = living
        else:
            self._open.pop(address, None)
        return living
