"""What is wrong with a request before it means anything, sent byte for byte to every door of HTTP: paths, UIDs, numbers, and lengths.

What is wrong with a body stands with its door: test_stow.py, test_reference_api.py, test_dropped.py, test_api.py.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from mammograms_made import mammogram, uid
from results_made import ResultsMade, page, part10, report
from serving import serving

from listener import reference_api, stow, web
from listener.keeping import kept_for
from store.archive import Archive
from store.database import write_engine
from store.files import Files

STUDY = uid("study")
STOW = 'multipart/related; type="application/dicom"; boundary=b'


class NobodyReads:
    """The old interface without anything behind it: what is refused is refused before."""

    def address(self) -> str:
        return "http://127.0.0.1:8042"

    def notice(self) -> str:
        return ""

    async def read(self, orthanc_ids: Sequence[str]) -> list[Any]:
        raise AssertionError("a bad request was worked on")


Ask = Callable[..., tuple[int, bytes]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, kept: Files) -> Iterator[tuple[str, int]]:
    folder = tmp_path_factory.mktemp("results")
    database = folder / "kept.db"
    database.write_bytes(sqlite_template.read_bytes())
    engine = write_engine(f"sqlite:///{database}")
    results = ResultsMade(folder)
    results.add(report(), page())
    entrance = stow.Entrance(archive=Archive(engine), files=kept, kept=kept_for(()), ae_title="FOURVIEW")
    app = web.create_app(
        results=results.search,
        file_path=results.files.path,
        ready=list,
        entrance=entrance,
        routers=[reference_api.create_router(NobodyReads(), list)],
    )
    with serving(app) as base_url:
        host, port = base_url.removeprefix("http://").split(":")
        yield host, int(port)
    engine.dispose()


@pytest.fixture
def ask(address: tuple[str, int], caplog: pytest.LogCaptureFixture) -> Iterator[Ask]:
    """(method, target, headers, body) as they are, without a client that mends them -> (status, all of the answer)."""

    def send(method: str, target: str, headers: str = "", body: bytes = b"") -> tuple[int, bytes]:
        head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        with socket.create_connection(address, timeout=60) as connection:
            answer = b""
            try:
                connection.sendall(head.encode("latin-1") + body)
                while piece := connection.recv(65536):
                    answer += piece
            except OSError:  # refused before all of it was sent; what was answered until then counts
                pass
        return int(answer.split(b" ", 2)[1]), answer

    with caplog.at_level(logging.DEBUG):
        yield send
    records = caplog.get_records("call")  # those of the test, not those of this end of it
    ours = [logged.getMessage() for logged in records if not logged.name.startswith(("uvicorn", "http", "asyncio"))]
    assert any("event=http " in line for line in ours)
    assert not any("Doe" in line or logged.exc_info for line in ours for logged in records)
    assert httpx.get(f"http://{address[0]}:{address[1]}/healthz", trust_env=False).status_code == 200


UIDS = {
    "letters": "1.2.abc",
    "65 characters": "1." + "2" * 63,
    "dots": "..",
    "a folder above": "../../etc/passwd",
    "the same, encoded": "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "encoded twice": "%252e%252e%252f",
    "backslashes": "..\\..\\windows",
    "a NUL": "1.2%00",
    "a line end": "1.2%0d%0aX-Doe:%20Jane",
    "no UTF-8": "1.2%ff%fe",
    "a leading zero": "01.2",
    "a wildcard": "1.2.*",
    "a name": "Doe%5EJane",
}
PLACES = (
    "/dicom-web/studies/{}",
    "/dicom-web/studies/{}/metadata",
    "/dicom-web/studies/{}/rendered",
    "/dicom-web/studies/{}/series",
    f"/dicom-web/studies/{STUDY}/series/{{}}/instances",
    f"/dicom-web/studies/{STUDY}/series/1.2/instances/{{}}/frames/1",
    f"/dicom-web/studies/{STUDY}/series/1.2/instances/{{}}/bulkdata/7FE00010",
)


@pytest.mark.parametrize("wrong", UIDS)
def test_what_is_no_uid_in_a_path_finds_nothing(ask: Ask, kept: Files, wrong: str) -> None:
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part10(mammogram()) + b"\r\n--b--"
    for place in PLACES:
        status, answer = ask("GET", place.format(UIDS[wrong]))
        assert status in (400, 404), f"{place}: {status}"
        assert b"root:" not in answer and b"Traceback" not in answer and b"\r\nX-Doe" not in answer
    status, _ = ask("POST", f"/dicom-web/studies/{UIDS[wrong]}", f"Content-Type: {STOW}\r\n", body)
    assert status in (400, 404, 405)
    assert not [path for path in kept.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=-1", 400),
        ("limit=abc", 400),
        ("limit=1000000000", 200),
        ("limit=1e9", 400),
        ("limit=", 400),
        ("limit=%00", 400),
        ("offset=-1", 400),
        ("offset=1000000000", 204),
        ("offset=99999999999999999999", 400),
        ("PatientName=*", 200),
        ("PatientName=?", 204),
        ("PatientName=***********************************************************?*", 200),
        ("PatientID=*&AccessionNumber=*&StudyDescription=*", 200),
        ("StudyInstanceUID=*", 400),
        ("StudyDate=*", 400),
        ("PatientName=%ff%fe", 204),
        ("PatientName=%00", 204),
        ("%00=1", 200),
        ("includefield=%00", 200),
        ("accept=%00", 406),
        ("&&&=&=&", 200),
    ],
)
def test_numbers_and_wildcards_of_a_search(ask: Ask, query: str, status: int) -> None:
    found, answer = ask("GET", f"/dicom-web/studies?{query}")
    assert found == status, answer[:500]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/dicom-web/studies", ""),
        ("GET", f"/dicom-web/studies/{STUDY}/metadata", ""),
        ("POST", "/dicom-web/studies", f"Content-Type: {STOW}\r\n"),
        ("POST", "/inference", "Content-Type: application/json\r\n"),
        ("POST", "/api/mri/mammography/analyze/", "Content-Type: application/json\r\n"),
        ("GET", "/api/mri/mammography/health/", ""),
    ],
)
def test_a_query_or_a_header_of_a_megabyte_is_refused(ask: Ask, method: str, path: str, headers: str) -> None:
    for size in (9_000, 1_000_000):
        status, answer = ask(method, f"{path}?PatientName=Doe{'x' * size}", headers)
        assert status in (400, 414, 431), f"{size}: {status}"
        assert b"Doe" not in answer
    status, _ = ask(method, path, f"{headers}X-Long: {'x' * 1_000_000}\r\n")
    assert status in (400, 431)
