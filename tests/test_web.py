"""The HTTP application as a whole: health, limits, errors that tell nothing of a patient, and what it does not import."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from results_made import ResultsMade, report
from serving import serving

from listener import web


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    source = ResultsMade(tmp_path)
    source.add(report())
    return web.create_app(results=source.search, file_path=source.files.path, ready=list)


@pytest.fixture
def client(app: FastAPI) -> Iterator[httpx.Client]:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("patient Doe^Jane has no such thing")

    @app.get("/number")
    def number(value: int) -> int:
        return value

    @app.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    with serving(app) as base_url, httpx.Client(base_url=base_url, trust_env=False) as client:
        yield client


def test_the_process_says_that_it_lives(client: httpx.Client) -> None:
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert response.json()["version"]


def test_readiness_names_what_is_missing(tmp_path: Path) -> None:
    complaints = ["the database cannot be reached: start it"]
    source = ResultsMade(tmp_path)
    notices = ["a file is refused"]  # for a person, who need not be called out of bed
    app = web.create_app(results=source.search, file_path=source.files.path, ready=lambda: complaints, notices=lambda: notices)
    with serving(app) as base_url, httpx.Client(base_url=base_url, trust_env=False) as client:
        response = client.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"ready": False, "complaints": complaints, "notices": notices})
        complaints = []
        response = client.get("/readyz")
        assert (response.status_code, response.json()) == (200, {"ready": True, "complaints": [], "notices": notices})


@pytest.mark.parametrize("path", ["/healthz", "/dicom-web/studies", "/dicom-web/studies/x/metadata", "/broken", "/nowhere"])
def test_every_answer_has_the_common_headers(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Server" not in response.headers


def test_no_page_loads_scripts_from_elsewhere(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    assert client.get("/openapi.json").json()["info"]["title"] == "Fourview"


def test_what_breaks_is_told_and_logged_without_its_words(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        response = client.get("/broken")
    assert response.status_code == 500
    assert "Doe" not in response.text
    assert "Doe" not in caplog.text
    assert "error=RuntimeError at=test_web.py:" in caplog.text


def test_a_database_that_is_away_is_no_fault_of_the_client(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = ResultsMade(tmp_path)
    (tmp_path / "results.db").unlink()
    with serving(web.create_app(results=source.search, file_path=source.files.path, ready=list)) as base_url:
        response = httpx.get(base_url + "/dicom-web/studies", params={"PatientID": "P1"}, trust_env=False)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert "event=database_away" in caplog.text
    assert "SELECT" not in response.text


def test_the_log_has_paths_but_no_queries(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        client.get("/dicom-web/studies", params={"PatientName": "Doe^Jane"})
        client.get("/dicom-web/studies%0Aforged")
    assert "event=http method=GET path=/dicom-web/studies status=200" in caplog.text
    assert "forged" not in caplog.text.replace("studies%0Aforged HTTP", "").replace('studies%0Aforged "', "")
    # httpx is the client here; uvicorn's access log goes nowhere, but pytest listens even there
    assert not logging.getLogger("uvicorn.access").propagate
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("http", "uvicorn.access"))]
    assert len(ours) >= 2
    assert "Doe" not in "".join(ours)


def test_a_bad_parameter_is_named_but_not_repeated(client: httpx.Client) -> None:
    response = client.get("/number", params={"value": "Doe^Jane"})
    assert response.status_code == 400
    assert response.json() == {"detail": "query.value: int_parsing"}


def test_long_queries_and_bodies_are_refused(client: httpx.Client) -> None:
    assert client.get("/dicom-web/studies?PatientName=" + "a" * 10_000).status_code == 414
    assert client.post("/body", content=b"x" * (web.MAX_BODY_BYTES + 1)).status_code == 413
    assert client.post("/body", content=(b"x" * 65536 for _ in range(17))).status_code == 413


def test_an_answer_does_not_wait_for_an_acknowledgement(client: httpx.Client) -> None:
    """Nagle and delayed acknowledgement together cost 40 ms for each request of a kept connection."""
    took = []
    for _ in range(25):
        started = time.perf_counter()
        client.get("/healthz")
        took.append(time.perf_counter() - started)
    assert sorted(took)[5] < 0.03


def test_a_taken_port_is_said_in_words(app: FastAPI) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(web.CannotListen, match=rf"127\.0\.0\.1 port {port}: Address already in use; .*change \[http\]"):
            web.run(app, "127.0.0.1", port, threading.Event())
    with pytest.raises(web.CannotListen, match=r"no\.such\.host\.invalid"):
        web.run(app, "no.such.host.invalid", 0, threading.Event())


def test_the_web_process_has_no_torch() -> None:
    code = "import listener.web, sys; assert not {'torch', 'pynetdicom', 'dbos', 'highdicom'} & set(sys.modules)"
    pages = "import listener.dashboard; assert not {'torch', 'dbos', 'highdicom'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{code}; {pages}"], check=True, cwd=Path(__file__).parent.parent)
