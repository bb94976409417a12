"""The HTTP application on a real uvicorn, on a free port of loopback, for as long as a with block lasts."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from listener.tls import Certificate
from listener.web import configured, listening_socket


@contextmanager
def serving(app: FastAPI, *, certificate: Certificate | None = None, trusted_proxies: Sequence[str] = ()) -> Iterator[str]:
    """Yields the base URL, without a slash at its end."""
    with listening_socket("127.0.0.1", 0) as sock:
        server = uvicorn.Server(configured(app, certificate, trusted_proxies))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "uvicorn ended before it had started"
                time.sleep(0.01)
            yield f"http{'s' if certificate else ''}://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def half_sent(base_url: str, path: str, content_type: str, content: bytes) -> socket.socket:
    """A connection that has sent the head of a request and the beginning of its body."""
    host, port = base_url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: 100000000\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def hang_up(connection: socket.socket) -> None:
    """As a client does that dies: with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Until it is so."""
    give_up_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


class SlowDisk:
    """Its first answer to `has_room` takes until it may go on."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.may_go_on = threading.Event()

    def has_room(self, share: float = 1.0) -> bool:
        if not self.asked.is_set():
            self.asked.set()
            assert self.may_go_on.wait(30)
        return True
