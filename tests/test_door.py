"""The door and its frame: origins, names in Host, limits, headers, proxies, TLS. A real uvicorn answers where one can."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from fourview_process import SIMULATED_CARD
from mammograms_made import uid
from results_made import ResultsMade, report
from serving import serving
from starlette.datastructures import Headers
from starlette.types import Message

from listener import cli, connection, parts
from listener.check import check
from listener.config import load
from listener.door import Access, Door, address_of, is_from_elsewhere, names_us
from listener.limits import MOST_KEYS, Buckets
from listener.reload import Current
from listener.tls import BadCertificate, Certificate
from listener.users import Role, Users, new_token
from listener.web import create_app
from listener.who import at_least

RULE = "[[rule]]\nname = 'all'\nwhen = 'true'\naction = 'hold'\n"
USER = """[[user]]
name = "kim"
role = "viewer"
password_hash = "$argon2id$v=19$m=65536,t=3,p=4$RTNcuJZtRvLILpPyRkT2ng$2q0R0wLYVnhgDBa5bzMcmdZQYSWlrMh1FaFFRODhb3k"
"""
OHIF = "https://ohif.example.org"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ResultsMade:
    made = ResultsMade(tmp_path_factory.mktemp("results"))
    made.add(report())
    return made


def application(made: ResultsMade, access: Access) -> FastAPI:
    router = APIRouter(dependencies=[Depends(at_least(Role.OPERATOR))])

    @router.post("/acts")
    def act() -> str:
        return "done"

    return create_app(results=made.search, file_path=made.files.path, ready=list, routers=[router], access=access)


@pytest.fixture(scope="module")
def client(made: ResultsMade) -> Iterator[httpx.Client]:
    """Without a login, as on loopback."""
    access = Access(host_names=frozenset({"fourview.example.org"}), origins=frozenset({OHIF}))
    with serving(application(made, access)) as base_url, httpx.Client(base_url=base_url, trust_env=False, timeout=60) as client:
        yield client


# Origins

#: Method, Sec-Fetch-Site, Origin, Host, and whether a page of another origin makes a browser ask.
ASKED = [
    ("POST", None, None, "fourview:8080", False),  # curl, dicomweb-client, a modality
    ("POST", "same-origin", "https://other.example", "fourview:8080", False),
    ("POST", "none", None, "fourview:8080", False),  # typed by a person
    ("POST", "cross-site", None, "fourview:8080", True),
    ("POST", "same-site", None, "fourview:8080", True),
    ("POST", "same-site", "http://fourview:8080", "fourview:8080", True),
    ("POST", "", "http://fourview:8080", "fourview:8080", True),
    ("POST", "cross-site", OHIF, "fourview:8080", False),
    ("POST", "cross-site", "HTTPS://OHIF.example.org", "fourview:8080", False),
    ("POST", "cross-site", OHIF + ".evil.example", "fourview:8080", True),
    ("POST", None, "http://fourview:8080", "fourview:8080", False),
    ("POST", None, "https://fourview:8080", "fourview:8080", False),  # a proxy with TLS in front
    ("POST", None, "http://FOURVIEW:8080", "fourview:8080", False),
    ("POST", None, "http://fourview:8081", "fourview:8080", True),
    ("POST", None, "http://fourview", "fourview:8080", True),
    ("POST", None, "http://evil.example", "fourview:8080", True),
    ("POST", None, "http://fourview:8080.evil.example", "fourview:8080", True),
    ("POST", None, "http://user@fourview:8080", "fourview:8080", True),
    ("POST", None, OHIF, "fourview:8080", False),
    ("POST", None, "null", "fourview:8080", True),  # a sandboxed frame, a file
    ("POST", None, "", "fourview:8080", True),
    ("POST", None, "null", "", True),
    ("POST", None, "http://[::1", "fourview:8080", True),
    ("DELETE", None, "http://evil.example", "fourview:8080", True),
    ("PUT", "cross-site", None, "fourview:8080", True),
    ("GET", "cross-site", "http://evil.example", "fourview:8080", False),
    ("HEAD", "cross-site", None, "fourview:8080", False),
    ("OPTIONS", "cross-site", "http://evil.example", "fourview:8080", False),
]


@pytest.mark.parametrize(("method", "site", "origin", "host", "elsewhere"), ASKED)
def test_a_page_of_another_origin_changes_nothing(method: str, site: str | None, origin: str | None, host: str, elsewhere: bool) -> None:
    said = {"sec-fetch-site": site, "origin": origin, "host": host}
    headers = Headers({name: value for name, value in said.items() if value is not None})
    assert is_from_elsewhere(method, headers, frozenset({OHIF})) is elsewhere


def test_every_route_is_behind_it(client: httpx.Client) -> None:
    for path in ("/acts", "/dicom-web/studies", "/inference", "/nowhere"):
        answer = client.post(path, headers={"Origin": "http://evil.example"})
        assert (answer.status_code, answer.json()["detail"]) == (
            403,
            "a page of another origin may not ask for this; see [http] cors_origins",
        )
    assert client.post("/acts").json() == "done"
    assert client.post("/acts", headers={"Origin": str(client.base_url).rstrip("/")}).json() == "done"
    assert client.post("/acts", headers={"Origin": OHIF, "Sec-Fetch-Site": "cross-site"}).json() == "done"


def test_a_viewer_of_a_named_origin_may_ask_beforehand_and_read(made: ResultsMade) -> None:
    """Preflights carry no password (Fetch 4.8)."""
    closed = Access(users=Users([]), origins=frozenset({OHIF}))
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "accept,authorization,content-type"}
    with serving(application(made, closed)) as base_url, httpx.Client(base_url=base_url, trust_env=False) as client:
        answer = client.options("/dicom-web/studies", headers={"Origin": OHIF, **preflight})
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == OHIF
        assert {"GET", "POST"} <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))
        assert {"Accept", "Authorization", "Content-Type"} <= set(answer.headers["Access-Control-Allow-Headers"].split(", "))
        answer = client.get("/dicom-web/studies", headers={"Origin": OHIF})
        assert answer.headers["Access-Control-Allow-Origin"] == OHIF
        assert {"Warning", "Content-Location"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))
        for origin in ("http://ohif.example.org", "https://evil.example", "null"):
            answer = client.options("/dicom-web/studies", headers={"Origin": origin, **preflight})
            assert answer.status_code == 400 and "Access-Control-Allow-Origin" not in answer.headers
            answer = client.get("/dicom-web/studies", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in answer.headers


# Names in Host

HOSTS = [
    (["127.0.0.1:8080"], True),
    (["127.8.8.8"], True),
    (["localhost"], True),
    (["LocalHost:8080"], True),
    (["[::1]:8080"], True),
    (["[::1]"], True),
    (["fourview.example.org"], True),
    (["Fourview.Example.org:443"], True),
    ([], False),
    ([""], False),
    (["localhost", "localhost"], False),
    (["evil.example"], False),
    (["evil.example:8080"], False),
    (["127.0.0.1.evil.example"], False),
    (["localhost.evil.example"], False),
    (["evil-fourview.example.org"], False),
    (["localhost@evil.example"], False),
    (["evil.example@localhost"], False),
    (["localhost/evil.example"], False),
    (["localhost#evil.example"], False),
    (["localhost evil.example"], False),
    (["[::1"], False),
    (["::1"], False),
    (["2001:db8::1"], False),
    (["10.0.0.5.evil.example"], False),
    (["10.0.0.5"], True),  # nobody can make an address point here
    (["10.0.0.5:8080"], True),
    (["[2001:db8::1]"], True),
    (["10.0.5"], False),
    (["0x0a.0.0.5"], False),
]


@pytest.mark.parametrize(("hosts", "ours"), HOSTS)
def test_a_host_is_ours_by_name(hosts: Sequence[str], ours: bool) -> None:
    assert names_us(hosts, frozenset({"fourview.example.org"})) is ours


def test_a_name_that_was_made_to_point_here_reads_nothing(client: httpx.Client) -> None:
    """DNS rebinding: the browser takes evil.example for the page's own origin, and only Host tells."""
    for headers in ({"Host": "evil.example"}, {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}):
        for method, path in (("GET", "/dicom-web/studies"), ("POST", "/acts"), ("GET", "/nowhere")):
            answer = client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["detail"]) == (421, "the Host header names another machine; see [http] host_names")
        assert client.get("/healthz", headers=headers).status_code == client.get("/readyz", headers=headers).status_code == 200
    assert client.get("/dicom-web/studies", headers={"Host": "fourview.example.org"}).status_code == 200


@pytest.mark.parametrize(
    ("http", "names"),
    [
        ("", frozenset()),
        ('host = "localhost"', frozenset()),
        ('host_names = ["a.example"]', frozenset({"a.example"})),
        ('host = "0.0.0.0"\nallow_unauthenticated = true', frozenset()),
        ('host = "0.0.0.0"\nallow_unauthenticated = true\nhost_names = ["a.example"]', frozenset({"a.example"})),
        (USER, None),  # a password is of an origin; a page that points its name here has none
        (f'host_names = ["a.example"]\n{USER}', frozenset({"a.example"})),
    ],
)
def test_which_names_count_follows_from_the_configuration(tmp_path: Path, http: str, names: frozenset[str] | None) -> None:
    (tmp_path / "config.toml").write_text(f"[http]\n{http}\n{RULE}")
    access = parts.access(load(tmp_path / "config.toml", {}))
    assert access.host_names == names
    assert (access.users is not None) is (USER in http)


# Headers

COMMON = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def test_every_answer_has_secure_headers(client: httpx.Client) -> None:
    asked = [
        client.get("/healthz"),
        client.get("/dicom-web/studies"),
        client.get("/nowhere"),
        client.post("/acts", headers={"Origin": "null"}),
        client.get("/dicom-web/studies", headers={"Host": "evil.example"}),
        client.options("/acts", headers={"Origin": OHIF, "Access-Control-Request-Method": "POST"}),
    ]
    assert [answer.status_code for answer in asked] == [200, 200, 404, 403, 421, 200]
    for answer in asked:
        assert {name: answer.headers.get(name) for name in COMMON} == COMMON
        assert "Strict-Transport-Security" not in answer.headers


def test_a_report_as_a_page_keeps_its_style_and_runs_nothing(client: httpx.Client) -> None:
    path = f"/dicom-web/studies/{uid('study')}/series/{uid('study', 'sr')}/instances/{uid('study', 'sr', 1)}/rendered"
    answer = client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 200 and "<style>" in answer.text
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'") and "script" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"


# Limits


def test_buckets_fill_with_time() -> None:
    buckets = Buckets(3, 60)  # one a second
    assert [buckets.take("a", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
    assert buckets.wait("a", 0.25) == 0.75
    assert buckets.take("b", 0.25) == 0.0
    assert buckets.take("a", 1.0) == 0.0
    assert buckets.take("a", 1.0) == 1.0
    buckets.give_back("a", 1.0)
    assert [buckets.take("a", 1.0) for _ in range(2)] == [0.0, 1.0]
    assert [buckets.take("a", 1000.0) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
    buckets.give_back("full", 0.0)
    assert [buckets.take("full", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]


def test_buckets_take_no_more_memory_than_they_may() -> None:
    buckets = Buckets(1, 60)
    buckets.take("first", 0.0)
    for number in range(MOST_KEYS):
        buckets.take("last", 0.0)
        buckets.take(number, 0.0)
    assert len(buckets._levels) == MOST_KEYS
    assert buckets.take("last", 0.0) > 0  # used lately
    assert buckets.take("first", 0.0) == 0.0  # forgotten


class Asking:
    """A door with nothing behind it but 200, asked without a socket, at a time that stands still."""

    def __init__(self, access: Access) -> None:
        self._door = Door(self._answer, access)

    def status(self, client: tuple[str, int] | None = ("10.0.0.1", 1), path: str = "/x") -> int:
        said: list[Message] = []

        async def send(message: Message) -> None:
            said.append(message)

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": [], "client": client}
        asyncio.run(self._door(scope, receive, send))
        self.headers = dict(said[0]["headers"])
        return int(said[0]["status"])

    async def _answer(self, scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    now = 0.0
    asking = Asking(Access(requests_per_minute=30, clock=lambda: now))
    assert [asking.status() for _ in range(31)] == [200] * 30 + [429]
    assert asking.headers[b"retry-after"] == b"2"
    assert asking.status(("10.0.0.2", 1)) == 200
    assert asking.status(path="/readyz") == 200  # nobody in particular asks
    assert asking.status(path="/healthz") == 200
    now = 2.0
    assert [asking.status() for _ in range(2)] == [200, 429]
    assert {asking.status(path="/healthz") for _ in range(100)} == {200}
    assert [asking.status(path="/readyz") for _ in range(31)].count(429) == 1


def test_without_a_login_a_password_is_asked_for_no_more_often() -> None:
    asking = Asking(Access(users=Users([]), requests_per_minute=30, clock=lambda: 0.0))
    assert [asking.status() for _ in range(31)] == [401] * 30 + [429]


def test_no_limit_is_no_limit() -> None:
    asking = Asking(Access(clock=lambda: 0.0))
    assert {asking.status() for _ in range(500)} == {200}


def test_a_network_of_ipv6_is_one_client() -> None:
    asking = Asking(Access(requests_per_minute=2, clock=lambda: 0.0))
    assert [asking.status((f"2001:db8::{number}", 1)) for number in (1, 2, 3)] == [200, 200, 429]
    assert asking.status(("2001:db8:0:1::1", 1)) == 200
    assert [asking.status(client) for client in (None, ("unix:", 0), ("not an address", 0))] == [200, 200, 429]


def test_a_websocket_is_closed() -> None:
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    async def nothing(*_: object) -> Message:
        raise AssertionError("nobody is asked")

    asyncio.run(Door(nothing, Access())({"type": "websocket", "path": "/"}, nothing, send))  # type: ignore[arg-type]
    assert said == [{"type": "websocket.close", "code": 1008}]


# Connections that only wait


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.URL]:
    """Where half a second is given for the head of a request, and /slow answers once somebody else has waited that long."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.5)
    app = create_app(results=None, file_path=Path, ready=list)  # type: ignore[arg-type] # nobody searches

    @app.get("/slow")
    def slow() -> str:
        with _connected(app.state.url) as idle:
            assert _ended(idle)
        return "done"

    with serving(app) as base_url:
        app.state.url = httpx.URL(base_url)
        yield app.state.url


def _connected(url: httpx.URL) -> socket.socket:
    return socket.create_connection((url.host, url.port or 0), timeout=60)


def _ended(connection: socket.socket) -> bool:
    """Whether the other side ends it, within 60 seconds."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_who_sends_no_head_or_a_byte_at_a_time_is_not_waited_for(waited: httpx.URL) -> None:
    with _connected(waited) as idle:
        assert _ended(idle)
    with _connected(waited) as dripping:
        dripping.settimeout(0.05)
        dripping.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")

        def ended() -> bool:
            try:
                dripping.sendall(b"x")
                return _ended(dripping)
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        _until(ended)


def test_who_waits_for_an_answer_is_waited_for_and_for_the_next_head_no_longer(waited: httpx.URL) -> None:
    """uvicorn's own deadline between requests ends with the first byte."""
    with _connected(waited) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b'"done"'):
            more = connection.recv(4096)
            assert more, answer
            answer += more
        assert answer.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert _ended(connection)


# Proxies


@pytest.mark.parametrize(("trusted", "address", "scheme"), [((), "127.0.0.1", "http"), (("127.0.0.0/8",), "192.0.2.7", "https")])
def test_who_the_client_is_is_believed_only_of_a_trusted_proxy(
    made: ResultsMade, caplog: pytest.LogCaptureFixture, trusted: Sequence[str], address: str, scheme: str
) -> None:
    caplog.set_level(logging.INFO)
    forwarded = {"X-Forwarded-For": "203.0.113.9, 192.0.2.7", "X-Forwarded-Proto": "https"}
    with serving(application(made, Access()), trusted_proxies=trusted) as base_url:
        answer = httpx.get(f"{base_url}/dicom-web/studies", headers=forwarded, trust_env=False)
    assert f"event=audit person=web role=admin address={address} " in caplog.text  # the last one that no trusted proxy is
    assert answer.json()[0]["00081190"]["Value"][0].startswith(f"{scheme}://")
    assert ("Strict-Transport-Security" in answer.headers) is (scheme == "https")


@pytest.mark.parametrize(
    ("client", "address"),
    [(("192.0.2.1", 5), "192.0.2.1"), (("fe80::1%eth0", 5), "fe80::1"), (("a b=c", 0), "?"), (("", 0), "?"), (None, "?")],
)
def test_an_address_in_the_log_is_an_address(client: object, address: str) -> None:
    assert address_of({"client": client}) == address


# TLS


EC = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def make_certificate(folder: Path, name: str, *, passphrase: str = "", of: Sequence[str] = EC) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    locked = ["-passout", f"pass:{passphrase}"] if passphrase else ["-nodes"]
    command = ["openssl", "req", "-x509", "-newkey", *of, "-days", "60", *locked]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return certificate, key


def subject(base_url: str, server: str | None = None, most: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> str:
    """The common name of the certificate that a new connection gets, which names `server` or none (SNI)."""
    url = httpx.URL(base_url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = most
    with (
        socket.create_connection((url.host, url.port or 0), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=server) as connection,
    ):
        pem = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")
    command = ["openssl", "x509", "-noout", "-subject", "-nameopt", "multiline"]
    shown = subprocess.run(command, input=pem, text=True, check=True, capture_output=True, timeout=60).stdout
    return shown.rpartition("= ")[2].strip()


def replace_with(paths: Sequence[Path], others: Sequence[Path]) -> None:
    for path, other in zip(paths, others, strict=True):
        shutil.copy(other, f"{path}.new")
        Path(f"{path}.new").replace(path)


@pytest.fixture
def stopped() -> Iterator[threading.Event]:
    """Set at the end, whatever becomes of the test."""
    stopped = threading.Event()
    yield stopped
    stopped.set()


def test_tls_by_a_certificate_that_is_renewed_while_we_run(
    made: ResultsMade, tmp_path: Path, caplog: pytest.LogCaptureFixture, stopped: threading.Event
) -> None:
    caplog.set_level(logging.INFO)
    paths = make_certificate(tmp_path, "old")
    certificate = Certificate(*paths)
    with serving(application(made, Access()), certificate=certificate) as base_url:
        trusting = ssl.create_default_context(cafile=str(paths[0]))
        with httpx.Client(base_url=base_url, verify=trusting, trust_env=False, timeout=60) as client:
            answer = client.get("/dicom-web/studies")
            assert answer.status_code == 200
            assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
            assert answer.json()[0]["00081190"]["Value"][0].startswith("https://127.0.0.1:")
            with pytest.raises(httpx.HTTPError):
                httpx.get(base_url.replace("https", "http") + "/healthz", trust_env=False)
        assert subject(base_url) == "old"
        watch = threading.Thread(target=certificate.watch, args=[stopped, 0.02])
        watch.start()
        renewed = make_certificate(tmp_path, "new")
        replace_with(paths[:1], renewed[:1])  # its key is not there yet
        _until(lambda: "event=certificate_not_renewed" in caplog.text)
        assert subject(base_url) == "old"
        replace_with(paths[1:], renewed[1:])
        _until(lambda: "event=certificate_renewed" in caplog.text)
        assert subject(base_url) == "new"
    stopped.set()
    watch.join()
    assert caplog.text.count("event=certificate_not_renewed") == 1  # however often it was tried


def test_a_renewal_may_change_the_type_of_the_key(made: ResultsMade, tmp_path: Path) -> None:
    """A context keeps a certificate for each type, and would go on with the old one for the clients that like it better."""
    paths = make_certificate(tmp_path, "served", of=EC)
    certificate = Certificate(*paths)
    with serving(application(made, Access()), certificate=certificate) as base_url:
        for name, of in (("rsa", ("rsa:2048",)), ("ec", EC), ("rsa again", ("rsa:2048",))):
            replace_with(paths, make_certificate(tmp_path, name, of=of))
            assert certificate.renew() and not certificate.renew()
            assert subject(base_url) == subject(base_url, server="fourview.example.org") == name
            assert subject(base_url, most=ssl.TLSVersion.TLSv1_2) == name


def _until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_certificate_that_cannot_be_used_is_said_in_words(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    _, stranger = make_certificate(tmp_path, "two")
    _, locked = make_certificate(tmp_path, "three", passphrase="sesame")
    for wrong in (stranger, locked, certificate):
        with pytest.raises(BadCertificate, match=r"one\.pem and .* are not a certificate in PEM and its key without passphrase"):
            Certificate(certificate, wrong)
    with pytest.raises(BadCertificate, match=r"cannot be read: No such file or directory"):
        Certificate(certificate, tmp_path / "none")
    good = Certificate(certificate, key)
    assert not good.renew()
    assert good.context.minimum_version is ssl.TLSVersion.TLSv1_2


# What `fourview check` says


def findings(folder: Path, http: str) -> list[str]:
    (folder / "card.toml").write_text(SIMULATED_CARD)
    (folder / "config.toml").write_text(f"[http]\n{http}\n[model]\ncard = 'card.toml'\nallow_untrained = true\n{RULE}")
    found = check(load(folder / "config.toml", {}))
    return [f"{'ok' if one.ok else 'FAIL'} {one.what}: {one.remedy}" for one in found if one.what.startswith(("[http]", "TLS"))]


def test_the_check_warns_of_open_doors(tmp_path: Path) -> None:
    make_certificate(tmp_path, "one")
    tls = "certificate = 'one.pem'\nkey = 'one.key'"
    outside, user = 'host = "0.0.0.0"', USER
    [line] = findings(tmp_path, "")
    assert line.startswith("ok [http] host is 127.0.0.1, nobody has to log in: note:")
    [line] = findings(tmp_path, f"{outside}\nallow_unauthenticated = true")
    assert line.startswith("ok [http] host is 0.0.0.0, nobody has to log in: WARNING: allow_unauthenticated")
    assert "WARNING: no TLS: patient data can be read" in line
    encrypted, line = findings(tmp_path, f"{outside}\nallow_unauthenticated = true\n{tls}")
    assert encrypted.startswith("ok TLS with ") and "WARNING: allow_unauthenticated" in line and "no TLS" not in line
    [line] = findings(tmp_path, f"{outside}\n{user}".replace(RULE, ""))
    assert line.startswith("ok [http] host is 0.0.0.0, 1 may log in: WARNING: no TLS: patient data and passwords")
    encrypted, line = findings(tmp_path, f"{outside}\n{tls}\n{user}")
    assert line == "ok [http] host is 0.0.0.0, 1 may log in: "
    shutil.copy(tmp_path / "one.pem", tmp_path / "one.key")
    bad, line = findings(tmp_path, tls)
    assert bad.startswith("FAIL TLS: ")


def test_a_real_web_process_with_users_and_tls(tmp_path: Path, free_port: Callable[[], int]) -> None:
    certificate, _ = make_certificate(tmp_path, "one")
    (tmp_path / "card.toml").write_text(SIMULATED_CARD)
    token, line = new_token()
    (tmp_path / "tokens").write_text(line)
    port = free_port()
    user = '[[user]]\nname = "kim"\nrole = "viewer"\ntoken_file = "tokens"\n'
    http = f"[http]\nport = {port}\ncertificate = 'one.pem'\nkey = 'one.key'\n"
    (tmp_path / "config.toml").write_text(f"{http}[model]\ncard = 'card.toml'\nallow_untrained = true\n{RULE}{user}")
    parts.upgrade_database(load(tmp_path / "config.toml", {}))
    command = [sys.executable, "-m", "listener.cli", "--config", str(tmp_path / "config.toml"), "web"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stderr=out, stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=ssl.create_default_context(cafile=certificate)) as client:
            _until(lambda: b"listening" in log.read_bytes() or process.poll() is not None)
            _until(lambda: _answers(client, "/healthz"))
            assert client.get("/dicom-web/studies").status_code == 401
            client.headers["Authorization"] = f"Bearer {token}"
            assert client.get("/metrics").status_code == 200
            assert client.get("/dicom-web/studies").status_code == 204
            assert client.post("/dicom-web/studies/1.2.3").status_code == 403
    finally:
        process.terminate()
        assert process.wait(60) == 0
    said = [json.loads(line) for line in log.read_text().splitlines()]
    [audit] = [one for one in said if one["logger"] == "listener.audit"]
    wanted = {"person": "kim", "role": "viewer", "address": "127.0.0.1", "method": "POST", "status": "403", "study_instance_uid": "1.2.3"}
    assert wanted.items() <= audit.items()
    assert token not in log.read_text() and line.removeprefix("sha256:") not in log.read_text()


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.ConnectError:
        return False


def test_serve_ends_at_once_with_a_certificate_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not again and again, a web process at a time."""
    (tmp_path / "card.toml").write_text(SIMULATED_CARD)
    (tmp_path / "bad.pem").write_text("no certificate")
    http = "[http]\ncertificate = 'bad.pem'\nkey = 'bad.pem'\n"
    (tmp_path / "config.toml").write_text(f"{http}[model]\ncard = 'card.toml'\nallow_untrained = true\n{RULE}")
    current = Current(tmp_path / "config.toml", {})
    monkeypatch.setattr(cli, "_begin", lambda context: (current, threading.Event()))
    with pytest.raises(cli.EXPECTED, match="are not a certificate in PEM and its key"):
        cli.serve(None)  # type: ignore[arg-type]
    assert not current.config.store.files.exists()


@pytest.mark.parametrize("tls", [False, True])
def test_the_containers_health_check_asks_with_or_without_tls(made: ResultsMade, tmp_path: Path, tls: bool) -> None:
    dockerfile = (Path(__file__).parents[1] / "Dockerfile").read_text()
    program, *arguments = json.loads(dockerfile.partition("HEALTHCHECK")[2].partition("CMD ")[2].partition("\n")[0])
    certificate = Certificate(*make_certificate(tmp_path, "one")) if tls else None

    def code() -> int:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env={"FOURVIEW_HTTP__PORT": port}, capture_output=True, timeout=60, check=False).returncode

    assert program == "python3"
    with serving(application(made, Access(users=Users([]))), certificate=certificate) as base_url:
        port = str(httpx.URL(base_url).port)
        assert code() == 0
    assert code() == 1
