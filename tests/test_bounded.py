"""A PACS that answers without end, byte by byte, compressed, or with an address elsewhere: real sockets, written to byte for byte."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import requests

from listener.orthanc_rest import OrthancRest, RestFailed
from pipeline import bounded, holdings, orthanc
from pipeline.bounded import Bounds, TooMuch, TooSlow
from pipeline.orthanc import FetchFailed, fetch_study, find_instance_by_dicomweb
from pipeline.send import Found, Pacs

PASSWORD = "s3cret-of-ours"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Says = Callable[[], Iterator[bytes]]


@contextlib.contextmanager
def saying(says: Says) -> Iterator[tuple[str, list[bytes]]]:
    """Its address, and the heads of the requests that came. To each it sends what `says` gives, until the client goes."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (piece := connection.recv(65536)):
                        return
                    head += piece
                heads.append(head)
                for piece in says():
                    connection.sendall(piece)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=[server.accept()[0]], daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", heads
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def dripping(before: bytes, drop: bytes) -> Says:
    def says() -> Iterator[bytes]:
        yield before
        while True:
            yield drop
            time.sleep(0.02)

    return says


def endless() -> Iterator[bytes]:
    yield HEAD + b"Connection: close\r\n\r\n"
    while True:
        yield b" " * 65536


def parts_without_end() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
    yield b'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n--b\r\n\r\n'
    while True:
        yield b" " * 65536


def once(*pieces: bytes) -> Says:
    return lambda: iter(pieces)


def length(size: int) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % size


BOMB = gzip.compress(bytes(1 << 24))
ODD = {
    "a head that drips": (dripping(HEAD, b"X"), TooSlow),
    "a status line that drips": (dripping(b"HTTP/1.1 ", b"2"), TooSlow),
    "a body that drips": (dripping(length(1000), b"x"), TooSlow),
    "chunks that drip": (dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), TooSlow),
    "the length of a chunk that drips": (dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"), TooSlow),
    "more than is read": (once(length(1 << 40), b"x"), TooMuch),
    "without end": (endless, TooMuch),
    "a part without end": (parts_without_end, TooMuch),
    "compressed": (once(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB), BOMB), TooMuch),
    "less than was promised": (once(length(1000), b"x"), requests.RequestException),
}


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("stream", [False, True])
def test_every_answer_comes_to_an_end(how: str, stream: bool) -> None:
    says, problem = ODD[how]
    limits = Bounds(most_bytes=1 << 20 if "part" not in how else 1 << 40, seconds=0.2 if problem is TooSlow else 60.0, part_bytes=1 << 18)
    with (
        saying(says) as (url, heads),
        bounded.session("fourview", PASSWORD, limits) as http,
        pytest.raises(problem) as raised,
        http.get(url, stream=stream, timeout=(5.0, 30.0)) as answer,
    ):
        for _ in answer.iter_content(1 << 16):
            pass
    assert PASSWORD not in str(raised.value)
    assert len(heads) == 1 and b"accept-encoding: identity" in heads[0].lower()


def test_what_is_within_bounds_is_read_whole_in_either_framing() -> None:
    content = b"0123456789" * 9000
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n" % (len(content), content) + b"0\r\n\r\n"
    limits = Bounds(most_bytes=len(content), seconds=60.0, part_bytes=len(content))
    for says in (once(length(len(content)), content), once(chunked)):
        with saying(says) as (url, _), bounded.session("", "", limits) as http:
            assert http.get(url, timeout=30).content == content
            with http.get(url, timeout=30, stream=True) as answer:
                assert b"".join(answer.iter_content(1000)) == content


def test_each_part_is_counted_by_itself() -> None:
    part = b"\r\n--b\r\n\r\n" + b"x" * 1000
    kind = 'multipart/related; type="application/dicom"; boundary="b"'
    for piece_bytes in (1, 7, 1013, 4096):
        counted = bounded._Part(kind, 1100)
        whole = part * 5
        assert not any(counted.is_too_large(whole[at : at + piece_bytes]) for at in range(0, len(whole), piece_bytes))
        assert any(counted.is_too_large(b"y" * piece_bytes) for _ in range(1200))
    assert not bounded._Part(kind, None).is_too_large(bytes(10_000))


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[bytes]]]:
    """A server that nobody may be sent to, and what it was asked."""
    with saying(once(length(2), b"[]")) as (url, heads):
        yield url, heads


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nobody_is_sent_elsewhere(elsewhere: tuple[str, list[bytes]], status: int) -> None:
    """Neither the question nor the password goes to an address that the configuration does not name."""
    url, asked = elsewhere
    redirect = b"HTTP/1.1 %d Found\r\nLocation: %s/dicom-web/studies\r\nContent-Length: 0\r\n\r\n" % (status, url.encode())
    with saying(once(redirect)) as (first, heads):
        pacs = Pacs(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=4242, url=first, user="fourview", password=PASSWORD)
        with OrthancRest(first, "fourview", PASSWORD) as rest:
            for ask in (rest.system, rest.modalities, lambda: rest.post("/x", {}), lambda: rest.put("/x", {}), lambda: rest.file("x")):
                with pytest.raises(RestFailed, match="sends us elsewhere"):
                    ask()
            assert not rest.is_dicomweb()
        with pytest.raises(FetchFailed, match="sends us elsewhere") as failed:
            list(fetch_study(pacs, "1.2.3"))
        assert not failed.value.worth_retrying
        uids = {"study_instance_uid": "1.2", "series_instance_uid": "1.3", "sop_instance_uid": "1.4"}
        assert find_instance_by_dicomweb(pacs, **uids) is Found.UNKNOWN
        with pytest.raises(holdings.Unanswered), holdings.holdings_of(pacs, datetime.now(UTC)):
            pass
        assert len(heads) >= 9
    assert asked == []


def test_commands_say_what_an_orthanc_without_end_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listener.orthanc_rest.MOST_BYTES", 1 << 20)
    monkeypatch.setattr("listener.orthanc_rest.ANSWER_SECONDS", 0.4)
    for says, words in ((endless, "answers too much to GET /system"), (dripping(HEAD, b"X"), r"does not answer \(TooSlow\)")):
        with saying(says) as (url, _), OrthancRest(url, seconds=0.3) as rest, pytest.raises(RestFailed, match=words):
            rest.system()


def test_a_fetch_from_a_server_without_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Bounds(most_bytes=1 << 20, seconds=0.4)
    monkeypatch.setattr(orthanc, "SERIES", limits)
    for says, words, again in ((endless, "was not fetched from orthanc", False), (dripping(length(1000), b" "), "in time", True)):
        with saying(says) as (url, _):
            pacs = Pacs(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=4242, url=url)
            with pytest.raises(FetchFailed, match=words) as failed:
                list(fetch_study(pacs, "1.2.3"))
            assert failed.value.worth_retrying is again
