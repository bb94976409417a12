"""Who may come in over HTTP, and what for: logins, roles, guesses, and the audit line. A real uvicorn answers; see also test_door.py."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import socket
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from fourview_process import SIMULATED_CARD
from mammograms_made import uid
from results_made import ResultsMade, page, report
from serving import serving
from starlette.routing import BaseRoute, Route
from typer.testing import CliRunner

from listener import cli, parts, users, web
from listener.answering import Answering
from listener.audit import MOST_NAMED, SAME_LOOK_SECONDS, Audit
from listener.door import GUESSES_PER_ADDRESS, GUESSES_PER_NAME, Access, Door
from listener.reload import Current
from listener.terminal import app as program
from listener.users import Password, Person, Role, Token, User, Users, credentials, hashed, new_token, token_hashes
from listener.web import create_app
from listener.who import at_least, speaks_of

PASSWORD = "비밀번호 for:kim"
_QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
USERS = [
    *(
        User(name=role.value, role=role, password_hash=_QUICK.hash(PASSWORD), token_hashes=(hashlib.sha256(role.encode()).digest(),))
        for role in Role
    ),
    User(name="program", role=Role.VIEWER, token_hashes=(hashlib.sha256(b"first").digest(), hashlib.sha256(b"second").digest())),
]


def basic(name: str, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Hasher:
    """Argon2 that counts, and waits until it may go on."""

    def __init__(self, hasher: Any) -> None:
        self.asked: list[str] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self._hasher = hasher

    def verify(self, password_hash: str, password: str) -> bool:
        self.asked.append(password_hash)
        assert self.may_go_on.wait(60)
        return bool(self._hasher.verify(password_hash, password))


class House:
    """A served application with users, whose Argon2 can be watched."""

    now = 0.0  # seconds; stands still unless a test moves it

    def __init__(self, known: Users, hasher: Hasher) -> None:
        self.client = httpx.Client(trust_env=False, timeout=60)
        self.known = known
        self.hasher = hasher

    def get(self, path: str = "/dicom-web/studies", headers: Any = None) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def post(self, path: str, headers: dict[str, str]) -> httpx.Response:
        return self.client.post(path, headers=headers)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ResultsMade:
    made = ResultsMade(tmp_path_factory.mktemp("results"))
    made.add(report(), page(), report("other"))
    return made


@pytest.fixture(scope="module")
def shared_house(made: ResultsMade) -> Iterator[House]:
    known = Users(USERS)
    hasher = Hasher(known._hasher)
    known._hasher = hasher  # type: ignore[assignment]
    router = APIRouter()

    @router.post("/acts/{study_instance_uid}")
    def act(request: Request, asks: Annotated[Person, Depends(at_least(Role.OPERATOR))]) -> str:
        speaks_of(request, ["1.2", "1.3", "1.3", ""])
        return asks.name

    @router.api_route("/broken/{study_instance_uid}", methods=["GET", "POST"], dependencies=[Depends(at_least(Role.OPERATOR))])
    def broken() -> None:
        raise ArithmeticError

    @router.post("/cut/{study_instance_uid}", dependencies=[Depends(at_least(Role.OPERATOR))])
    def cut() -> StreamingResponse:
        def some() -> Iterator[bytes]:
            yield b"some"
            raise ArithmeticError

        return StreamingResponse(some())

    house = House(known, hasher)
    access = Access(users=known, clock=lambda: house.now)
    app = create_app(results=made.search, file_path=made.files.path, ready=list, routers=[router], access=access)
    with serving(app) as base_url, house.client:
        house.client.base_url = base_url
        yield house


@pytest.fixture
def house(shared_house: House) -> House:
    """An hour later: nothing is counted and nothing remembered any more."""
    shared_house.now += 3600
    shared_house.hasher.asked.clear()
    return shared_house


# Logins


def test_nobody_comes_in_without_a_login(house: House) -> None:
    for path in ("/dicom-web/studies", "/nowhere", "/openapi.json", "//healthz", "/healthz/", "/healthz;x", "/HEALTHZ"):
        answer = house.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="Fourview", charset="UTF-8"'
        assert "detail" in answer.json()
    assert house.get("/healthz").status_code == house.get("/readyz").status_code == 200
    assert house.get("/healthz", basic("viewer", "wrong")).status_code == 200
    assert house.hasher.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        basic("viewer"),
        basic("viewer", unicodedata.normalize("NFD", PASSWORD)),
        {"Authorization": basic("viewer")["Authorization"].replace("Basic ", "bAsIc   ")},
        bearer("viewer"),
        bearer("first"),
        bearer("second"),
        {"Authorization": "bearer first"},
    ],
)
def test_a_password_and_a_token_open(house: House, headers: dict[str, str]) -> None:
    assert house.get(headers=headers).status_code == 200


#: Headers that open nothing, and whom the log names.
BAD = {
    "a wrong password": (basic("viewer", "wrong"), "viewer"),
    "an empty password": (basic("viewer", ""), "viewer"),
    "a password too many": (basic("viewer", PASSWORD + "x"), "viewer"),
    "another case of the name": (basic("Viewer"), "(unknown)"),
    "a name that nobody has": (basic("nobody"), "(unknown)"),
    "no name": (basic(""), "(unknown)"),
    "one who has tokens only": (basic("program"), "program"),
    "one who has tokens only, with a token": (basic("program", "first"), "program"),
    "one who has tokens only, with nothing": (basic("program", ""), "program"),
    "a wrong token": (bearer("third"), "(unknown)"),
    "an empty token": ({"Authorization": "Bearer"}, "(unknown)"),
    "a token's hash": (bearer(hashlib.sha256(b"first").hexdigest()), "(unknown)"),
    "a token's line": (bearer("sha256:" + hashlib.sha256(b"first").hexdigest()), "(unknown)"),
    "a password as a token": (bearer("viewer:x"), "(unknown)"),
    "a token as a password": (basic("viewer", "viewer"), "viewer"),
    "a password under Bearer": ({"Authorization": basic("viewer")["Authorization"].replace("Basic", "Bearer")}, "(unknown)"),
    "a token under Basic": ({"Authorization": "Basic first"}, "(unknown)"),
    "Basic alone": ({"Authorization": "Basic"}, "(unknown)"),
    "no scheme": ({"Authorization": base64.b64encode(b"viewer:x").decode()}, "(unknown)"),
    "another scheme": ({"Authorization": 'Digest username="viewer"'}, "(unknown)"),
    "no base64": ({"Authorization": "Basic ?!*"}, "(unknown)"),
    "base64 with blanks": ({"Authorization": "Basic dmll d2Vy"}, "(unknown)"),
    "base64 of half a byte": ({"Authorization": "Basic YWJ"}, "(unknown)"),
    "base64 of no UTF-8": ({"Authorization": "Basic " + base64.b64encode(b"viewer:\xff\xfe").decode()}, "(unknown)"),
    "no colon": ({"Authorization": "Basic " + base64.b64encode(b"viewer").decode()}, "(unknown)"),
    "a NUL": (basic("viewer\0"), "(unknown)"),
    "a long password": (basic("viewer", "x" * 3000), "viewer"),
    "a long header": ({"Authorization": "Basic " + "A" * 8000}, "(unknown)"),
    "a long token": (bearer("x" * 8000), "(unknown)"),
    "a line into the log": (basic("viewer\nevent=audit person=admin", "x"), "(unknown)"),
    "an admin into the log": (basic("x person=admin role=admin", "x"), "(unknown)"),
    "bytes beyond ASCII": ({"Authorization": "Basic \xe9\xe9"}, "(unknown)"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_opens_nothing_and_is_not_repeated(house: House, caplog: pytest.LogCaptureFixture, what: str) -> None:
    headers = {name.encode(): value.encode("latin-1") for name, value in BAD[what][0].items()}
    with caplog.at_level(logging.DEBUG, logger="listener"):
        answer = house.get(headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"][:5]) == (401, "Basic")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("listener")]
    failed = [line for line in said if line.startswith("event=login_failed")]
    assert failed == [f"event=login_failed address=127.0.0.1 user={BAD[what][1]}"]
    assert not any("audit" in line or "\n" in line for line in said)
    assert PASSWORD not in caplog.text and answer.text.count("viewer") == 0


def test_two_logins_in_one_request_are_none(house: House) -> None:
    both = [("Authorization", basic("viewer")["Authorization"]), ("Authorization", "Bearer first")]
    assert house.get(headers=both).status_code == 401


def test_a_header_of_a_megabyte_costs_nothing(house: House) -> None:
    with socket.create_connection((house.client.base_url.host, house.client.base_url.port), timeout=30) as connection:
        connection.sendall(b"GET /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic ")
        answer = b""
        try:
            connection.sendall(b"A" * 1024 * 1024 + b"\r\n\r\n")
            answer = connection.recv(4096)
        except ConnectionError:
            pass  # closed while we still sent
    assert not answer or answer.split(b" ", 2)[1] in (b"400", b"431")
    assert house.hasher.asked == []
    assert house.get(headers=basic("viewer")).status_code == 200


def test_who_is_unknown_costs_what_a_wrong_password_costs(house: House) -> None:
    """By what is done, not by the clock: one check, of a hash with the same parameters."""
    for name in ("viewer", "nobody", "program"):
        before = len(house.hasher.asked)
        assert house.get(headers=basic(name, "wrong")).status_code == 401
        assert len(house.hasher.asked) == before + 1
    parameters = {asked.rsplit("$", 2)[0] for asked in house.hasher.asked}
    assert parameters == {"$argon2id$v=19$m=64,t=1,p=1"}


def test_tokens_are_compared_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Users(USERS)
    compared = []
    monkeypatch.setattr(users.hmac, "compare_digest", lambda one, other: compared.append(one) or one == other)
    assert known.by_token(Token(token="viewer")) == USERS[0].person
    assert known.by_token(Token(token="nobody's")) is None
    assert len(compared) == 2 * sum(len(user.token_hashes) for user in USERS)


def test_a_password_that_was_right_is_not_checked_at_each_request(house: House) -> None:
    for _ in range(5):
        assert house.get(headers=basic("viewer")).status_code == 200
    assert len(house.hasher.asked) == 1
    assert house.get(headers=basic("operator")).status_code == 200
    assert len(house.hasher.asked) == 2
    # what was wrong is not remembered, and what is remembered is no password
    for _ in range(2):
        assert house.get(headers=basic("viewer", "wrong")).status_code == 401
    assert len(house.hasher.asked) == 4
    kept = repr(vars(house.known))
    assert PASSWORD not in kept and hashlib.sha256(PASSWORD.encode()).hexdigest() not in kept


def test_what_is_remembered_ends() -> None:
    known = Users(USERS)
    given = Password(name="viewer", password=PASSWORD)
    digest = known.digest(given)
    assert known.remembered(digest, 0.0) is None
    person = known.check(given)
    assert person is not None
    known.remember(digest, person, 100.0)
    assert known.remembered(digest, 100.0 + users.REMEMBERED_SECONDS - 1) == person
    assert known.remembered(digest, 100.0 + users.REMEMBERED_SECONDS) is None
    assert known.digest(Password(name="viewe", password="r" + PASSWORD)) != digest
    assert Users(USERS).digest(given) != digest
    for number in range(3000):
        known.remember(str(number).encode(), person, 200.0)
    assert len(known._remembered) == 1024


def test_a_slow_check_stops_nobody_else_and_is_done_once(house: House) -> None:
    """A viewer begins with many requests at once."""
    house.hasher.may_go_on.clear()
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(house.get, headers=basic("viewer")) for _ in range(20)]
        while not house.hasher.asked:
            assert not any(one.done() for one in waiting)
        assert house.get("/healthz").status_code == 200
        assert house.get(headers=bearer("first")).status_code == 200
        house.hasher.may_go_on.set()
        assert {one.result().status_code for one in waiting} == {200}
    assert len(house.hasher.asked) == 1


def test_no_more_than_some_wait_for_their_check(house: House) -> None:
    assert house.get(headers=basic("viewer")).status_code == 200
    house.hasher.may_go_on.clear()
    with ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(house.get, headers=basic(f"name {number}")) for number in range(55)]
        try:
            refused = next(one.result() for one in as_completed(waiting, 60))
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
            assert house.get(headers=basic("viewer")).status_code == 200
        finally:
            house.hasher.may_go_on.set()
        statuses = [one.result().status_code for one in waiting]
    assert statuses.count(503) == 5 and statuses.count(401) == 50


def test_guessing_ends_soon(house: House) -> None:
    assert house.get(headers=basic("viewer")).status_code == 200
    for number in range(GUESSES_PER_NAME):
        assert house.get(headers=basic("viewer", f"guess {number}")).status_code == 401
    checked = len(house.hasher.asked)
    for headers in (basic("viewer", "one more"), basic("viewer")):  # also the right one, or it could be found among guesses
        answer = house.get(headers=headers)
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "6"
    assert len(house.hasher.asked) == checked
    assert house.get(headers=basic("operator")).status_code == 200
    assert house.get(headers=bearer("viewer")).status_code == 200
    house.now += 6
    assert house.get(headers=basic("viewer")).status_code == 200


def test_names_are_not_tried_without_end(house: House) -> None:
    assert house.get(headers=basic("viewer")).status_code == 200
    statuses = [house.get(headers=basic(f"name {number}", "x")).status_code for number in range(GUESSES_PER_ADDRESS + 1)]
    assert statuses == [401] * GUESSES_PER_ADDRESS + [429]
    assert house.get(headers=bearer("wrong")).status_code == 429
    # who works here goes on, and whoever has a token; who has not come lately waits
    assert house.get(headers=bearer("first")).status_code == 200
    assert house.get(headers=basic("viewer")).status_code == 200
    assert house.get(headers=basic("operator")).status_code == 429
    house.now += 1
    assert house.get(headers=basic("operator")).status_code == 200


def test_a_token_is_not_kept_out_by_wrong_ones_and_opens_nothing_for_them(house: House) -> None:
    statuses = []
    for number in range(GUESSES_PER_ADDRESS + 3):
        statuses.append(house.get(headers=bearer(f"wrong {number}")).status_code)
        assert house.get(headers=bearer("first")).status_code == 200
    assert statuses == [401] * GUESSES_PER_ADDRESS + [429] * 3


def test_invented_names_do_not_make_the_guesses_at_a_name_forgotten() -> None:
    """Beyond what an address may try nothing more is counted of it."""
    known = Users([USERS[0]])
    door = Door(None, Access(users=known, clock=lambda: 0.0))  # type: ignore[arg-type] # nobody comes in

    async def tried(name: str) -> int:
        scope = {"type": "http", "path": "/", "method": "GET", "client": ("10.0.0.1", 1)}
        headers = [(key.lower().encode(), value.encode()) for key, value in basic(name, "wrong").items()]
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        await door({**scope, "headers": headers}, None, send)  # type: ignore[arg-type]
        return int(said[0]["status"])

    async def all_of_them() -> list[int]:
        return [await tried(f"name {number}") for number in range(GUESSES_PER_ADDRESS + 20)]

    assert asyncio.run(all_of_them()) == [401] * GUESSES_PER_ADDRESS + [429] * 20
    assert len(door._per_name._levels) == GUESSES_PER_ADDRESS


def test_credentials_hide_themselves() -> None:
    shown = repr([credentials(basic("viewer")["Authorization"]), credentials("Bearer first"), *USERS])
    assert PASSWORD not in shown and "first" not in shown and "argon2" not in shown and "token_hashes" not in shown


# Roles

#: What more than looking asks for, without the names of parameters. Everything else that is not in OPEN only looks, and needs a viewer.
NEEDED = {
    ("POST", "/dicom-web/studies"): Role.OPERATOR,
    ("POST", "/dicom-web/studies/{}"): Role.OPERATOR,
    ("POST", "/inference"): Role.OPERATOR,
    ("POST", "/api/mri/mammography/analyze/"): Role.OPERATOR,
    ("POST", "/api/v1/files"): Role.OPERATOR,
    ("POST", "/api/v1/studies/{}/reprocess"): Role.OPERATOR,
    ("POST", "/api/v1/studies/{}/release"): Role.OPERATOR,
    ("POST", "/api/v1/studies/{}/withdraw"): Role.OPERATOR,
    ("POST", "/api/v1/studies/{}/send"): Role.OPERATOR,
    ("POST", "/api/v1/deliveries/retry"): Role.OPERATOR,  # by state, of many at once: an admin
    ("DELETE", "/api/v1/studies/{}"): Role.ADMIN,
    ("POST", "/api/v1/studies/{}/allow-again"): Role.ADMIN,
    ("GET", "/api/v1/acts"): Role.ADMIN,
    ("POST", "/api/v1/pauses/{}"): Role.ADMIN,
    ("DELETE", "/api/v1/pauses/{}"): Role.ADMIN,
    ("POST", "/api/v1/reconciliation"): Role.ADMIN,
    ("POST", "/studies/{}/reprocess"): Role.OPERATOR,
    ("POST", "/studies/{}/release"): Role.OPERATOR,
    ("POST", "/studies/{}/withdraw"): Role.OPERATOR,
    ("POST", "/studies/{}/send"): Role.OPERATOR,
    ("POST", "/studies/{}/deliveries/{}/retry"): Role.OPERATOR,
    ("POST", "/deliveries/retry"): Role.ADMIN,
    ("POST", "/status/{}/{}"): Role.ADMIN,
}
#: Routes that ask for nobody in particular: the door lets everybody to the first two, and whoever may log in to the others.
OPEN = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/openapi.json")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """The application as `fourview web` puts it together."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "card.toml").write_text(SIMULATED_CARD)
    tables = "".join(f'[[user]]\nname = "{one.name}"\nrole = "{one.role}"\npassword_hash = "{one.password_hash}"\n' for one in USERS[:3])
    rule = "[[rule]]\nname = 'all'\nwhen = 'true'\naction = 'hold'\n"
    (folder / "config.toml").write_text(f"[model]\ncard = 'card.toml'\nallow_untrained = true\n{rule}{tables}")
    current = Current(folder / "config.toml", {})
    parts.upgrade_database(current.config)
    stopped = threading.Event()
    found: list[Answering] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_role", lambda *_: (current, stopped))
        patch.setattr(web, "run", lambda answering, *arguments, **named: found.append(answering))
        cli.web(None)  # type: ignore[arg-type]
    [answering] = found
    yield answering.application


def required(routes: list[BaseRoute]) -> Iterator[tuple[str, str, Role | None]]:
    """Method, path and role of every route, None where it asks for none."""
    for route in routes:
        if hasattr(route, "effective_route_contexts"):  # what FastAPI makes of a router that is included
            for one in route.effective_route_contexts():
                yield from _of(one.methods or one.original_route.methods, one.path or one.original_route.path, one, one.original_route)
        elif isinstance(route, Route):
            yield from _of(route.methods or {"ANY"}, route.path, route, route)
        else:
            yield "ANY", str(getattr(route, "path", route)), None


def _of(methods: set[str], path: str, route: Any, original: Any) -> Iterator[tuple[str, str, Role | None]]:
    dependant = getattr(route, "dependant", None) or getattr(original, "dependant", None)
    roles = [role for one in dependant.dependencies if (role := getattr(one.call, "role", None))] if dependant else []
    roles += [role] if (role := getattr(original.endpoint, "role", None)) else []
    for method in sorted(methods - {"HEAD"}):
        yield method, re.sub(r"\{[^}]*\}", "{}", path), max(roles, key=list(Role).index) if roles else None


def test_every_route_asks_for_a_role(whole: FastAPI) -> None:
    found = list(required(whole.routes))
    assert len(found) > 20
    assert {(method, path) for method, path, role in found if role is None} == OPEN
    roles = {(method, path): role for method, path, role in found if role is not None}
    assert {where: role for where, role in roles.items() if role is not Role.VIEWER} == NEEDED, "the table above says otherwise"
    # whatever changes something needs more than a viewer
    assert not [where for where, role in roles.items() if where[0] != "GET" and role is Role.VIEWER]


@pytest.mark.parametrize("role", Role)
def test_each_role_may_do_what_the_table_says(whole: FastAPI, role: Role) -> None:
    """Asked of the running application, with values that no route accepts: what comes behind the role is another test's."""
    with serving(whole) as base_url, httpx.Client(base_url=base_url, auth=(role, PASSWORD), trust_env=False, timeout=60) as client:
        for method, path, needed in required(whole.routes):
            url = "/".join("0x" if part.startswith("{") else part for part in path.split("/"))
            status = client.request(method, url, headers={"Content-Type": "application/json"}, content=b"[]").status_code
            allowed = needed is None or role.covers(needed)
            assert (status != 403) is allowed, (method, path, status)
            assert status not in (401, 429)


def test_a_role_is_said_in_words(house: House) -> None:
    answer = house.post("/acts/1.2", basic("viewer"))
    assert (answer.status_code, answer.json()) == (403, {"detail": "viewer is viewer; this needs operator: see [[user]] role"})


# The audit line


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name == "listener.audit"]


def test_each_look_at_a_patient_is_told(house: House, told: Callable[[], list[str]], caplog: pytest.LogCaptureFixture) -> None:
    study = uid("study")
    who = "event=audit person=viewer role=viewer address=127.0.0.1 method=GET"
    base = f"/dicom-web/studies/{study}"
    paths = [base, f"{base}/metadata", f"{base}/series", f"{base}/series/{uid('study', 'page')}/thumbnail"]
    for path in paths:
        assert house.get(path, bearer("viewer")).status_code == 200
    assert told() == [f"{who} status=200 studies=1 study_instance_uid={study} path={path}" for path in paths]
    caplog.clear()
    assert house.get("/dicom-web/instances?PatientName=Doe*", bearer("viewer")).status_code == 200
    [line] = told()
    assert line.startswith(f"{who} status=200 studies=2 study_instance_uids=") and line.endswith(" path=/dicom-web/instances")
    assert study in line and uid("other") in line
    assert "Doe" not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("listener"))


def test_a_page_that_stays_open_is_told_now_and_then(house: House, told: Callable[[], list[str]]) -> None:
    for seconds in (0, 5, SAME_LOOK_SECONDS - 6, 2):
        house.now += seconds
        assert house.get("/dicom-web/studies", bearer("viewer")).status_code == 200
    assert len(told()) == 2
    assert house.get("/dicom-web/studies", bearer("admin")).status_code == 200
    assert house.get("/dicom-web/series", bearer("admin")).status_code == 200
    assert house.get("/dicom-web/studies?limit=1", bearer("admin")).status_code == 200  # other studies
    assert len(told()) == 5
    for _ in range(2):  # acts are told each time
        assert house.post("/acts/1.2", basic("admin")).status_code == 200
    assert len(told()) == 7


def test_many_studies_are_counted_and_not_all_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scope = {"method": "GET", "raw_path": b"/", "path_params": {}, "state": {"studies": [f"1.{number}" for number in range(1000)]}}
    audit = Audit()
    for now in (0.0, 1.0):
        audit.tell(scope, Person(name="kim", role=Role.VIEWER), "10.0.0.1", 200, now)
    [line] = caplog.messages
    assert " studies=1000 study_instance_uids=1.0,1.1," in line and line.count(",") == MOST_NAMED - 1
    for number in range(2000):
        audit.tell(
            scope | {"endpoint": None, "path": f"/{number}", "state": {"studies": ["1.2"]}},
            Person(name="kim", role=Role.VIEWER),
            "10.0.0.1",
            200,
            1.0,
        )
    assert len(audit._told) == 1024


def test_who_saw_nobody_is_not_told(house: House, told: Callable[[], list[str]]) -> None:
    assert house.get("/dicom-web/studies?PatientID=nobody", bearer("viewer")).status_code == 204
    assert house.get(f"/dicom-web/studies/{uid('none')}", bearer("viewer")).status_code == 404
    assert house.get("/dicom-web/studies/0x", bearer("viewer")).status_code == 400
    assert house.get(f"/dicom-web/studies/{uid('study')}").status_code == 401
    assert house.get("/healthz").status_code == 200
    assert told() == []


def test_each_act_is_told_with_who_did_it(house: House, told: Callable[[], list[str]]) -> None:
    for name, status in (("viewer", 403), ("operator", 200), ("admin", 200)):
        answer = house.post("/acts/1.2", basic(name))
        assert answer.status_code == status
    assert answer.json() == "admin"
    assert house.post("/acts/1%20role=x%0A", basic("admin")).status_code == 200
    end = "address=127.0.0.1 method=POST status="
    assert told() == [
        f"event=audit person=viewer role=viewer {end}403 studies=1 study_instance_uid=1.2 path=/acts/1.2",
        f"event=audit person=operator role=operator {end}200 studies=2 study_instance_uids=1.2,1.3 path=/acts/1.2",
        f"event=audit person=admin role=admin {end}200 studies=2 study_instance_uids=1.2,1.3 path=/acts/1.2",
        f"event=audit person=admin role=admin {end}200 studies=3 study_instance_uids=(no-UID,9-characters),1.2,1.3 "
        "path=/acts/{study_instance_uid}",
    ]


def test_an_act_that_breaks_is_told_too_and_once(house: House, told: Callable[[], list[str]]) -> None:
    assert house.post("/broken/1.2", basic("admin")).status_code == 500
    assert house.get("/broken/1.2", basic("admin")).status_code == 500  # a look that saw nothing
    with pytest.raises(httpx.HTTPError):
        house.post("/cut/1.2", basic("admin"))
    line = "event=audit person=admin role=admin address=127.0.0.1 method=POST status={} studies=1 study_instance_uid=1.2 path={}"
    assert told() == [line.format(500, "/broken/1.2"), line.format(200, "/cut/1.2")]


def test_without_users_everybody_is_the_admin_web(made: ResultsMade, told: Callable[[], list[str]]) -> None:
    with serving(create_app(results=made.search, file_path=made.files.path, ready=list)) as base_url:
        assert httpx.get(f"{base_url}/dicom-web/studies/{uid('study')}", trust_env=False).status_code == 200
    [line] = told()
    assert line.startswith("event=audit person=web role=admin address=127.0.0.1 method=GET status=200 ")


# What makes hashes and tokens


def run(*arguments: str, given: str = "", code: int = 0) -> str:
    done = CliRunner().invoke(program, list(arguments), input=given)
    assert done.exit_code == code, done.output
    return done.output


def test_the_command_hashes_what_it_reads() -> None:
    written = run("user", "hash", given=f"{unicodedata.normalize('NFD', PASSWORD)}\r\nsecond line\n").strip()
    assert written.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    known = Users([User(name="kim", role=Role.VIEWER, password_hash=written)])
    assert known.check(Password(name="kim", password=PASSWORD)) == Person(name="kim", role=Role.VIEWER)
    assert "at least 8 characters" in run("user", "hash", given="sesame\n", code=1)
    assert "at least 8 characters" in run("user", "hash", given="", code=1)
    assert run("user", "hash", PASSWORD, code=2)  # never as an argument, which every process of the machine could read


def test_the_command_makes_tokens_and_keeps_only_their_hashes(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    first, second = (run("user", "token", str(file)).strip() for _ in range(2))
    assert first != second and min(len(first), len(second)) > 50
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert first not in text and second not in text
    known = Users([User(name="robot", role=Role.VIEWER, token_hashes=tuple(token_hashes(text + "\n# the second one is the old one\n")))])
    assert known.by_token(Token(token=first)) == known.by_token(Token(token=second)) == Person(name="robot", role=Role.VIEWER)
    assert "cannot be written" in run("user", "token", str(tmp_path), code=1)


def test_a_token_itself_is_no_line_of_a_token_file() -> None:
    token, line = new_token()
    assert list(token_hashes(f"\n  {line}  # of the old server\n")) == [hashlib.sha256(token.encode()).digest()]
    with pytest.raises(ValueError, match=r"^line 2 is not as `fourview user token` writes it$"):
        list(token_hashes(f"# mine\n{token}"))


def test_a_hash_is_checked_with_its_own_parameters() -> None:
    """Users may have been made by different releases."""
    strong = PasswordHasher(time_cost=2, memory_cost=128, parallelism=1).hash("s3cret word")
    known = Users([USERS[0], User(name="kim", role=Role.ADMIN, password_hash=strong)])
    assert known.check(Password(name="kim", password="s3cret word")) == Person(name="kim", role=Role.ADMIN)
    assert known.check(Password(name="viewer", password="s3cret word")) is None
    with pytest.raises(ValueError, match="8 characters"):
        hashed("1234567")
