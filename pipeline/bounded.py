"""HTTP to a PACS that comes to an end whatever is answered (RFC 9110): so many bytes, so many seconds, nothing compressed, no redirect.

`requests` bounds the wait for the next bytes and nothing else: a server that sends one byte a minute holds its client for ever, and what it
sends in one piece is held in memory. A password goes to the address that the configuration names, and to no other.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ReadTimeoutError

_PIECE_BYTES = 1 << 20
_BOUNDARY_BYTES = 70  # RFC 2046 5.1.1


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one answer may cost. `seconds`: from the connection to the last byte; `part_bytes`: what lies between two boundaries of a
    multipart answer, which is held in memory (RFC 2046 5.1)."""

    most_bytes: int
    seconds: float
    part_bytes: int | None = None


class TooMuch(requests.RequestException):
    """An answer was larger than its bounds, or compressed, though nothing compressed was asked for."""


class TooSlow(requests.Timeout):
    """An answer was not complete within its bounds, however steadily it came."""


class Elsewhere(requests.RequestException):
    """An answer names another address, which is not followed."""

    def __init__(self, status: int) -> None:
        super().__init__(f"it answers {status} and names another address, which is not followed")
        self.status = status


def session(user: str, password: str, bounds: Bounds) -> requests.Session:
    """For one thread. Every answer is within `bounds`, and a redirect ends in Elsewhere."""
    made = requests.Session()
    made.trust_env = False  # a PACS is in the house: images never go through a proxy that the environment names
    made.headers["Accept-Encoding"] = "identity"
    adapter = _Adapter(bounds)
    for scheme in ("http://", "https://"):
        made.mount(scheme, adapter)
    if user:
        made.auth = (user, password)
    return made


class _Watch:
    """Cuts the connection that is in use when the time is over, also in the middle of a header or of a handshake."""

    def __init__(self) -> None:
        self.over = False
        self.connection: object = None
        self._timer: threading.Timer | None = None
        self._due = 0.0

    def begin(self, seconds: float) -> None:
        self.end()
        self.over = False
        self._due = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def check(self) -> None:
        """Raises TooSlow."""
        if self.over or time.monotonic() > self._due:
            raise TooSlow("the answer did not come to its end in time")

    def _cut(self) -> None:
        self.over = True
        sock = getattr(self.connection, "sock", None)
        if sock is not None:
            # Only the one who reads may close it.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """One answer at a time."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._watch = _Watch()
        super().__init__(pool_maxsize=1)

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        """Connections that tell the watch of their socket."""
        super().init_poolmanager(*arguments, **more)
        watch = self._watch

        class Told:
            def connect(self) -> None:
                watch.connection = self
                super().connect()  # type: ignore[misc]

            def request(self, *arguments: Any, **more: Any) -> None:
                watch.connection = self
                super().request(*arguments, **more)  # type: ignore[misc]

        self.poolmanager.pool_classes_by_scheme = {
            scheme: type("Pool", (pool,), {"ConnectionCls": type("Connection", (Told, connection), {})})
            for scheme, pool, connection in (
                ("http", HTTPConnectionPool, HTTPConnection),
                ("https", HTTPSConnectionPool, HTTPSConnection),
            )
        }

    def send(self, request: requests.PreparedRequest, *arguments: Any, **more: Any) -> requests.Response:
        """As requests does it; raises Elsewhere, TooSlow and TooMuch, the last two also when the answer is read."""
        self._watch.begin(self._bounds.seconds)
        try:
            answer = super().send(request, *arguments, **more)
        except requests.RequestException:
            self._watch.end()
            self._watch.check()
            raise
        if answer.is_redirect:
            answer.close()
            raise Elsewhere(answer.status_code)
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            answer.close()
            raise TooMuch("the answer is compressed, which was not asked for")
        length = answer.raw.length_remaining
        if length is not None and length > self._bounds.most_bytes:
            answer.close()
            raise TooMuch(f"the answer has {length} bytes, and at most {self._bounds.most_bytes} are read")
        answer.raw.stream = self._stream(answer)
        return answer

    def close(self) -> None:
        """The session is closed."""
        self._watch.end()
        super().close()

    def _stream(self, answer: requests.Response) -> Any:
        """What stands in for urllib3's `stream`, which waits until as much is here as was asked for."""

        def stream(amount: int = _PIECE_BYTES, decode_content: bool | None = None) -> Iterator[bytes]:
            size, part = 0, _Part(answer.headers.get("Content-Type", ""), self._bounds.part_bytes)
            while True:
                try:
                    piece = answer.raw.read1(min(amount, _PIECE_BYTES), decode_content=False)
                except Exception as error:
                    self._watch.check()
                    if isinstance(error, ReadTimeoutError):
                        raise TooSlow("nothing came for a while") from None
                    raise
                self._watch.check()
                if not piece:
                    break  # urllib3 raises when more was promised
                size += len(piece)
                if size > self._bounds.most_bytes or part.is_too_large(piece):
                    answer.close()
                    raise TooMuch(f"the answer has more than {size - 1} bytes, or one of its parts more than is kept in memory")
                yield piece
            self._watch.end()

        return stream


class _Part:
    """How long the part of a multipart answer is that comes at the moment."""

    def __init__(self, content_type: str, most_bytes: int | None) -> None:
        _, _, rest = content_type.partition("boundary=")
        self._delimiter = b"--" + rest.partition(";")[0].strip(' "')[:_BOUNDARY_BYTES].encode("latin-1", "replace")
        self._most_bytes = most_bytes
        self._size = 0
        self._end = b""

    def is_too_large(self, piece: bytes) -> bool:
        if self._most_bytes is None:
            return False
        whole = self._end + piece
        place = whole.rfind(self._delimiter) if len(self._delimiter) > 2 else -1
        self._size = len(whole) - place if place >= 0 else self._size + len(piece)
        self._end = whole[1 - len(self._delimiter) :]
        return self._size > self._most_bytes
