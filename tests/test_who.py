"""Who may come in over HTTP, and what for: logins, roles, origins, limits, TLS, and the audit line. A real uvicorn answers."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from mammograms_made import uid
from results_made import ResultsMade, report
from serving import serving

from listener.door import Access
from listener.users import Role, User, Users
from listener.web import create_app

PASSWORD = "비밀번호 for:kim"
_QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
USERS = [
    User(name=role.value, role=role, password_hash=_QUICK.hash(PASSWORD), token_hashes=(hashlib.sha256(role.encode()).digest(),))
    for role in Role
]


def basic(name: str, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.fixture
def made(tmp_path: Path) -> ResultsMade:
    made = ResultsMade(tmp_path)
    made.add(report())
    return made


@pytest.fixture
def client(made: ResultsMade) -> Iterator[httpx.Client]:
    app = create_app(results=made.search, file_path=made.files.path, ready=list, access=Access(users=Users(USERS)))
    with serving(app) as base_url, httpx.Client(base_url=base_url, trust_env=False) as client:
        yield client


def test_nobody_comes_in_without_a_login(client: httpx.Client) -> None:
    for path in ("/dicom-web/studies", "/nowhere", "/openapi.json"):
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="Fourview", charset="UTF-8"'
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_a_password_and_a_token_open(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert client.get("/dicom-web/studies", headers=basic("viewer")).status_code == 200
        assert client.get("/dicom-web/studies", headers={"Authorization": "Bearer admin"}).status_code == 200
        assert client.get("/dicom-web/studies", headers=basic("viewer", "wrong")).status_code == 401
        assert client.get("/dicom-web/studies", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert f"person=viewer role=viewer address=127.0.0.1 method=GET status=200 studies=1 study_instance_uid={uid('study')}" in caplog.text
    assert "event=login_failed address=127.0.0.1 user=viewer" in caplog.text
    assert PASSWORD not in caplog.text and "wrong" not in caplog.text
