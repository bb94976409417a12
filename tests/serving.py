"""The HTTP application on a real uvicorn, on a free port of loopback, for as long as a with block lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
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
