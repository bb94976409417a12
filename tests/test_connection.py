"""HTTP/1.1 byte for byte: clients that only wait, and requests that two programs could read in two ways (RFC 9112 11.2)."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from serving import serving, wait_until
from starlette.types import Receive, Scope, Send

from listener import connection
from listener.web import create_app

HOST = "Host: localhost\r\n"
CHUNKED = "Transfer-Encoding: chunked"


class Heard:
    """Around an application: the paths that reached it."""

    def __init__(self, app: FastAPI) -> None:
        self.paths: list[str] = []
        self.answered = threading.Event()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.paths.append(f"{scope['method']} {scope['path']}")
        await self._app(scope, receive, send)
        self.answered.set()


class House:
    """The application on a real uvicorn with three routes: one reads its body, one does not, one answers at length."""

    def __init__(self) -> None:
        app = create_app(results=None, file_path=Path, ready=list)  # type: ignore[arg-type] # nobody searches
        self.may_read = threading.Event()
        self.waits = threading.Event()
        self.url = httpx.URL()

        @app.post("/read")
        async def read(request: Request) -> int:
            return len(await request.body())

        @app.post("/read-late")
        async def read_late(request: Request) -> int:
            self.waits.set()
            await asyncio.to_thread(self.may_read.wait, 60)
            return len(await request.body())

        @app.post("/refuse")
        async def refuse() -> str:
            return "refused"

        @app.get("/large")
        async def large() -> StreamingResponse:
            async def pieces() -> AsyncIterator[bytes]:
                for _ in range(4096):
                    yield bytes(1 << 16)

            return StreamingResponse(pieces())

        self.heard = Heard(app)

    def connected(self) -> socket.socket:
        return socket.create_connection((self.url.host, self.url.port or 0), timeout=60)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    house = House()
    with serving(house.heard) as base_url:  # type: ignore[arg-type] # an ASGI application
        house.url = httpx.URL(base_url)
        yield house


@pytest.fixture
def impatient(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    for name, value in (("HEAD_SECONDS", 0.3), ("BODY_SECONDS", 0.3), ("TAKING_SECONDS", 0.3), ("BODY_BYTES_PER_SECOND", 1000)):
        monkeypatch.setattr(connection, name, value)
    for event in (house.heard.answered, house.may_read, house.waits):
        event.clear()
    return house


def all_of(client: socket.socket) -> bytes:
    """What is answered until the other side ends it."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(65536):
            answer += piece
    return answer


def drip(client: socket.socket, drop: bytes) -> bytes:
    """Sends a drop now and then until the other side ends the connection; what was answered."""
    answer = b""
    client.settimeout(0.03)
    with contextlib.suppress(ConnectionError):
        while True:
            client.sendall(drop)
            try:
                piece = client.recv(65536)
            except TimeoutError:
                continue
            if not piece:
                break
            answer += piece
    return answer


@pytest.mark.parametrize(("framing", "drop"), [("Content-Length: 1000000", b"x"), (CHUNKED, b"1\r\nx\r\n"), (CHUNKED, b"0")])
def test_a_body_that_drips_is_given_up(impatient: House, framing: str, drop: bytes) -> None:
    with impatient.connected() as client:
        client.sendall(f"POST /read HTTP/1.1\r\n{HOST}{framing}\r\n\r\n".encode())
        answer = drip(client, drop)
    assert answer.startswith(b"HTTP/1.1 408 ") or (drop == b"0" and answer.startswith(b"HTTP/1.1 400 "))


def test_a_body_that_drips_after_its_answer_is_given_up(impatient: House) -> None:
    """As one does that sends no password: what is refused may not stay."""
    with impatient.connected() as client:
        client.sendall(f"POST /refuse HTTP/1.1\r\n{HOST}Content-Length: 1000000\r\n\r\n".encode())
        answer = drip(client, b"x")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b'"refused"')


def test_a_body_that_keeps_its_pace_may_take_long(impatient: House) -> None:
    with impatient.connected() as client:
        client.sendall(f"POST /read HTTP/1.1\r\n{HOST}Connection: close\r\nContent-Length: 200000\r\n\r\n".encode())
        for _ in range(20):
            client.sendall(b"x" * 10_000)
            time.sleep(0.05)
        answer = all_of(client)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"200000")


def test_who_waits_for_us_with_a_body_is_waited_for(impatient: House) -> None:
    """More is here than is read: the client is not slow, we are."""
    with impatient.connected() as client:
        client.sendall(f"POST /read-late HTTP/1.1\r\n{HOST}Connection: close\r\nContent-Length: 500000\r\n\r\n".encode())
        client.sendall(b"x" * 400_000)
        assert impatient.waits.wait(30)
        for _ in range(4):
            with impatient.connected() as idle:
                assert all_of(idle) == b""  # another's time is over meanwhile
        impatient.may_read.set()
        client.sendall(b"x" * 100_000)
        answer = all_of(client)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"500000")


def test_who_takes_nothing_of_its_answer_is_given_up(impatient: House) -> None:
    with impatient.connected() as client:
        client.sendall(f"GET /large HTTP/1.1\r\n{HOST}\r\n".encode())
        assert impatient.heard.answered.wait(60)
        assert len(all_of(client)) < 4096 << 16


# ---------------------------------------------------------------------------------------------- two programs, two readings

SMUGGLED = "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"


def posted(headers: str, body: str = "", path: str = "/read") -> str:
    return f"POST {path} HTTP/1.1\r\n{HOST}{headers}\r\n\r\n{body}"


#: What is sent, and the statuses of the answers; what is refused ends the connection, so that nothing behind it is taken for a request.
AMBIGUOUS = {
    "both lengths": (posted(f"Content-Length: 6\r\n{CHUNKED}", f"0\r\n\r\n{SMUGGLED}"), [400]),
    "both lengths, the other way": (posted(f"{CHUNKED}\r\nContent-Length: 4", f"5c\r\n{SMUGGLED}\r\n0\r\n\r\n"), [400]),
    "two lengths": (posted("Content-Length: 5\r\nContent-Length: 0", f"x{SMUGGLED}"), [400]),
    "two lengths in one": (posted("Content-Length: 5, 0", f"x{SMUGGLED}"), [400]),
    "a length with a sign": (posted("Content-Length: +5", "abcde"), [400]),
    "a length below zero": (posted("Content-Length: -1", SMUGGLED), [400]),
    "a length in hexadecimal": (posted("Content-Length: 0x5", "abcde"), [400]),
    "a length with an underscore": (posted("Content-Length: 1_0", "abcdeabcde"), [400]),
    "a length of digits elsewhere": (posted("Content-Length: \xb2", "ab"), [400]),
    "another encoding": (posted("Transfer-Encoding: xchunked", f"0\r\n\r\n{SMUGGLED}"), [400]),
    "chunked and more": (posted("Transfer-Encoding: chunked, identity", f"0\r\n\r\n{SMUGGLED}"), [400]),
    "chunked twice": (posted(f"{CHUNKED}\r\n{CHUNKED}", f"0\r\n\r\n{SMUGGLED}"), [400]),
    "a blank before the colon": (posted("Transfer-Encoding : chunked", f"0\r\n\r\n{SMUGGLED}"), [400]),
    "a control character in a name": (posted("Transfer-Encoding\x0b: chunked", f"0\r\n\r\n{SMUGGLED}"), [400]),
    "a bare CR in a value": (posted(f"X: a\r{CHUNKED}", SMUGGLED), [400]),
    "a NUL in a value": (posted("X: a\0b"), [400]),
    "a name without a colon": (posted("Content-Length"), [400]),
    "a chunk with a sign": (posted(CHUNKED, f"+1\r\nx\r\n0\r\n\r\n{SMUGGLED}"), [400]),
    "a chunk in 0x": (posted(CHUNKED, f"0x1\r\nx\r\n0\r\n\r\n{SMUGGLED}"), [400]),
    "a chunk with an underscore": (posted(CHUNKED, f"1_0\r\nxxxxxxxxxxxxxxxx\r\n0\r\n\r\n{SMUGGLED}"), [400]),
    "a chunk longer than it says": (posted(CHUNKED, f"1\r\nxy\r\n0\r\n\r\n{SMUGGLED}"), [400]),
    "a chunk's size of 30 digits": (posted(CHUNKED, f"{'f' * 30}\r\nx"), [400]),
    "two hosts": (f"GET /healthz HTTP/1.1\r\n{HOST}Host: evil\r\n\r\n", [400]),
    "no host": ("GET /healthz HTTP/1.1\r\n\r\n", [400]),
    "no version": ("GET /healthz\r\n\r\n", [400]),
    "HTTP/2 at once": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [404, 400]),
    "TLS": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", [400]),
    # These mean one thing to everybody: h11 reads a folded line as one with blanks (RFC 9112 5.2), and a bare LF as a line's end (2.2).
    "the same length twice": (posted("Content-Length: 5\r\nContent-Length: 5\r\nConnection: close", "abcde"), [200]),
    "a folded line": (posted("X: a\r\n b\r\nConnection: close\r\nContent-Length: 1", "x"), [200]),
    "bare LF": (posted("Connection: close\r\nContent-Length: 1", "x").replace("\r\n", "\n"), [200]),
    "an address of another host": (f"GET http://evil.example/healthz HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", [404]),
    "a body that nobody reads": (
        posted(f"Content-Length: {len(SMUGGLED)}", SMUGGLED, "/refuse") + posted("Content-Length: 1\r\nConnection: close", "x"),
        [200, 200],
    ),
    "a body with a GET": (f"GET /healthz HTTP/1.1\r\n{HOST}Connection: close\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}", [200]),
}


@pytest.mark.parametrize("how", AMBIGUOUS)
def test_no_request_hides_in_another(house: House, how: str) -> None:
    sent, expected = AMBIGUOUS[how]
    house.heard.paths.clear()
    with house.connected() as client:
        client.sendall(sent.encode("latin-1"))
        answer = all_of(client)
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
    assert statuses == expected, answer
    assert "GET /large" not in house.heard.paths
    # the answer of a later request on a connection of its own is its own
    assert httpx.get(f"{house.url}/healthz", trust_env=False).json()["status"] == "ok"


def test_compressed_bodies_are_refused_before_anybody_asks_who_sends_them(house: House) -> None:
    with httpx.Client(base_url=house.url, trust_env=False, timeout=60) as client:
        for coding in ("gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip", "x-gzip"):
            for path in ("/read", "/dicom-web/studies", "/inference", "/nowhere"):
                answer = client.post(path, content=b"x", headers={"Content-Encoding": coding})
                assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "identity"), (coding, path)
        assert client.post("/read", content=b"x", headers={"Content-Encoding": "identity"}).json() == 1


@pytest.mark.parametrize("count", [1, 2000])
def test_heads_have_a_limit_in_every_direction(house: House, count: int) -> None:
    """One long line, and many short ones."""
    with house.connected() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(f"GET /healthz HTTP/1.1\r\n{HOST}".encode())
            for number in range(count):
                client.sendall(f"X-{number}: {'x' * (200_000 // count)}\r\n".encode())
            client.sendall(b"\r\n")
        answer = all_of(client)
    assert not answer or answer.split(b" ", 2)[1] == b"400"


def test_a_body_may_not_be_larger_than_it_may_be_in_either_framing(house: House) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    contents: list[Callable[[], bytes | Iterator[bytes]]] = [pieces, lambda: b"".join(pieces())]
    for content in contents:
        try:
            answer = httpx.post(f"{house.url}/read", content=content(), trust_env=False, timeout=60)
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            continue  # it was refused while we still sent
        assert answer.status_code == 413
    wait_until(lambda: httpx.get(f"{house.url}/healthz", trust_env=False).is_success)
