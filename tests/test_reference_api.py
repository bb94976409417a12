"""The replaced system's HTTP interface: as its own clients call it, against a real Orthanc and a real worker; and everything that can go
wrong with a request, with Orthanc, and with the worker."""

from __future__ import annotations

import http.server
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import sqlalchemy as sa
from fourview_process import SIMULATED_CARD, FourviewProcess
from mammograms_made import breast_pixels, mammogram, uid
from orthanc_process import OrthancProcess
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from results_made import ResultsMade
from serving import serving

from listener import parts, web
from listener.config import load
from listener.on_demand import Patience, Reader
from listener.reference_api import MOST_IDS, create_router
from pipeline import orthanc as orthanc_http
from pipeline.figures import Figures
from store import tables
from store.database import write_engine
from store.study import HANGING_ORDER, View

CLASSES = ["Mass", "Calcification", "Architectural/Asymmetry", "Normal"]
ANALYZE = "/api/mri/mammography/analyze/"
HEALTH = "/api/mri/mammography/health/"
NO_SUCH = "00000000-00000000-00000000-00000000-00000000"


def part10(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def exam(study: str) -> list[Dataset]:
    """Exams of any name show the same four pictures."""
    return [mammogram(view, study=study) for view in HANGING_ORDER]


# ---------------------------------------------------------------------------------------------------------- the old clients


def ask_the_worker(url: str, orthanc_url: str, instance_ids: list[str]) -> list[dict[str, Any]]:
    """As the replaced application called its worker."""
    body = {"instance_ids": instance_ids, "orthanc_url": orthanc_url, "orthanc_auth": ["admin", "admin123"]}
    answer = requests.post(f"{url}/inference", json=body, timeout=300)
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def ask_the_application(url: str, instance_ids: list[str]) -> tuple[int, dict[str, Any]]:
    """As the replaced viewer called the application."""
    answer = requests.post(f"{url}{ANALYZE}", json={"instance_ids": instance_ids}, timeout=300)
    return answer.status_code, answer.json()


@pytest.fixture
def fourview(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., FourviewProcess]]:
    made: list[FourviewProcess] = []

    def make(orthanc: OrthancProcess, **options: Any) -> FourviewProcess:
        ports = {"dicom_port": free_port(), "http_port": free_port(), "pacs_port": orthanc.dicom_port, "pacs_url": orthanc.url}
        made.append(FourviewProcess(tmp_path / "fourview", **ports, **options))
        return made[-1].start()

    yield make
    for process in made:
        process.stop()


def test_clients_of_the_old_system_work_unchanged(
    start_orthanc: Callable[..., OrthancProcess], fourview: Callable[..., FourviewProcess], database_url: str
) -> None:
    orthanc = start_orthanc(extra={"DicomAlwaysAllowFind": True})
    ours = fourview(orthanc, database=database_url)
    assert requests.get(f"{ours.url}{HEALTH}", timeout=10).json() == {"success": True, "status": "healthy"}
    magnified = mammogram(View.L_CC, study="asked", image="magnified")
    magnified.ViewCodeSequence[0].ViewModifierCodeSequence = Items([_modifier()])
    lateral = mammogram(View.L_MLO, study="another", image="lateral", ViewPosition="ML", ViewCodeSequence=None)
    ids = [orthanc.upload(part10(ds)) for ds in exam("asked")]
    odd = [orthanc.upload(part10(ds)) for ds in (magnified, lateral)]

    found = ask_the_worker(ours.url, orthanc.url, ids)
    assert [one["instance_id"] for one in found] == ids
    for one in found:
        assert list(one) == ["success", "instance_id", "predicted_class", "probability", "all_probabilities"]
        assert one["success"] is True and list(one["all_probabilities"]) == CLASSES
        assert one["probability"] == max(one["all_probabilities"].values()) == one["all_probabilities"][one["predicted_class"]]
        assert sum(one["all_probabilities"].values()) == pytest.approx(1)

    status, body = ask_the_application(ours.url, [ids[3], odd[0], odd[1], ids[0]])
    assert status == 200 and list(body) == ["success", "results"] and body["success"] is True
    assert list(body["results"][0]) == ["success", "instance_id", "predicted_class", "probability", "all_probabilities", "view"]
    views = [str(view) for view in HANGING_ORDER]
    assert [one["view"] for one in body["results"]] == [views[3], "L-CC", "Image 3", views[0]], "of several studies, and in no slot"
    assert body["results"][0]["all_probabilities"] == found[3]["all_probabilities"], "asked again, the same numbers"

    # The normal way gives the same numbers for the same pictures, and nothing came of what was asked for.
    ours.send(exam("sent"))
    sent = ours.wait_for_state(uid("sent"), "analysed", version=1)
    normal = {image["view"]: image["scores"][0]["all_probabilities"] for image in sent["images"]}
    assert normal == {view: one["all_probabilities"] for view, one in zip(views, found, strict=True)}
    asked = ours.show(uid("asked"))
    assert asked["state"] == "ignored" and asked["runs"] == asked["deliveries"] == []
    assert {image["disposition"] for image in asked["images"]} == {"on demand"} and asked["rule"]["name"] == ""

    # Sent afterwards they are an exam like any other, and no image is read twice.
    attempts = [image["scores"][0]["attempt"] for image in asked["images"]]
    ours.send(exam("asked"))
    study = ours.wait_for_state(uid("asked"), "analysed", version=1)
    assert study["runs"][0]["outcome"] == "COMPLETE" and len(study["deliveries"]) == 2
    assert [image["scores"][0]["attempt"] for image in study["images"]] == attempts and len(study["images"]) == 5
    for view, one in study["runs"][0]["selection"].items():
        assert one["scores"]["probabilities"] == list(normal[view].values())
    ours.wait_for(lambda: orthanc.find("Series", StudyInstanceUID=uid("asked"), Modality="SR"), "no report was sent")

    metrics = ours.wait_for(
        lambda: (text := httpx.get(f"{ours.url}/metrics", trust_env=False).text) and "on_demand_total{outcome" in text and text,
        "the process does not tell what it counted",
    )
    assert any(line.startswith('fourview_images_on_demand_total{outcome="read"') for line in metrics.splitlines())
    assert "Doe" not in ours.log.read_text() and "admin123" not in ours.log.read_text()


def _modifier() -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "399163009", "SCT", "magnification"
    return item


def test_one_image_that_fails_does_not_stop_the_others(orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess]) -> None:
    ours = fourview(orthanc)
    ids = [orthanc.upload(part10(ds)) for ds in exam("asked")]
    blank = mammogram(View.L_CC, study="asked", image="blank", pixels=breast_pixels(View.L_CC) * 0)
    report = mammogram(View.L_CC, study="asked", image="report", Modality="SR", PixelData=None)
    wrong = [orthanc.upload(part10(ds)) for ds in (blank, report)]

    found = ask_the_worker(ours.url, orthanc.url, [ids[0], wrong[0], NO_SUCH, wrong[1], "../../system", ids[0]])
    assert [one["success"] for one in found] == [True, False, False, False, False, True] and found[0] == found[5]
    assert all(list(one) == ["success", "instance_id", "error"] for one in found[1:5])
    assert "no such instance" in found[2]["error"] and "no such instance" in found[4]["error"]
    assert all("Traceback" not in one["error"] and "Doe" not in one["error"] for one in found[1:5])

    status, body = ask_the_application(ours.url, [*ids[:3], wrong[0]])
    assert status == 500 and list(body) == ["success", "error"] and body["success"] is False and body["error"].startswith("image 4: ")
    status, body = ask_the_application(ours.url, [*ids[:3], NO_SUCH])
    assert status == 404 and "orthanc has no such instance" in body["error"]
    ours.run("forget", uid("asked"), "--yes")
    status, body = ask_the_application(ours.url, ids)
    assert status == 403 and "was forgotten here" in body["error"]

    orthanc.kill()
    status, body = ask_the_application(ours.url, ids)
    assert status == 502 and "orthanc is not reachable" in body["error"] and orthanc.url not in body["error"]
    assert [one["success"] for one in ask_the_worker(ours.url, orthanc.url, ids)] == [False] * 4


# ------------------------------------------------------------------------------------------------ requests that are not as they must be


class Recorded:
    """Reads every image, and remembers which were asked for."""

    def __init__(self, url: str = "http://127.0.0.1:8042") -> None:
        self.asked: list[list[str]] = []
        self.url = url

    def address(self) -> str:
        return self.url

    def notice(self) -> str:
        return "model m 1, UNTRAINED: the numbers are meaningless"

    async def read(self, orthanc_ids: Sequence[str]) -> list[Any]:
        from listener.reference_api import Read

        self.asked.append(list(orthanc_ids))
        return [Read(view=None, study_instance_uid="1.2", classes=("Mass", "Normal"), probabilities=(0.25, 0.75)) for _ in orthanc_ids]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def client(tmp_path: Path, recorded: Recorded) -> Iterator[httpx.Client]:
    source = ResultsMade(tmp_path)
    router = create_router(recorded, list)
    app = web.create_app(results=source.search, file_path=source.files.path, ready=list, routers=[router])
    with serving(app) as base_url, httpx.Client(base_url=base_url, trust_env=False) as made:
        yield made


IDS = [f"{number:08x}-00000000-00000000-00000000-00000000" for number in range(4)]


@pytest.mark.parametrize("path", ["/inference", ANALYZE])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"instance_ids": null}',
        b'{"instance_ids": "abcd"}',
        b'{"instance_ids": [1, 2, 3, 4]}',
        b'{"instance_ids": ["a", "b", "c", null]}',
        b'{"instance_ids": ["a", "b", "c", "\\ud800"]}',
        b'{"instance_ids": ["a", "b", "c", "Doe\\u0000Jane"]}',
        b'{"instance_ids": ["a", "b", "c", ""]}',
        b'{"instance_ids": []}',
        json.dumps({"instance_ids": ["a" * 65] * 4}).encode(),
        json.dumps({"instance_ids": ["a"] * (MOST_IDS + 1)}).encode(),
    ],
)
def test_what_is_no_request_is_refused(client: httpx.Client, recorded: Recorded, path: str, content: bytes) -> None:
    answer = client.post(path, content=content)
    assert answer.status_code == 400 and list(answer.json()) == ["success", "error"] and answer.json()["success"] is False
    assert recorded.asked == [] and "Doe" not in answer.text and "Traceback" not in answer.text


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_the_application_wants_four(client: httpx.Client, recorded: Recorded, count: int) -> None:
    answer = client.post(ANALYZE, json={"instance_ids": [*IDS, IDS[0]][:count]})
    error = f"exactly 4 instance_ids are required, not {count}"
    assert (answer.status_code, answer.json()) == (400, {"success": False, "error": error})
    assert recorded.asked == []


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_the_worker_takes_any_number(client: httpx.Client, count: int) -> None:
    ids = [*IDS, IDS[0]][:count]
    answer = client.post("/inference", json={"instance_ids": ids})
    assert [one["instance_id"] for one in answer.json()["results"]] == ids


@pytest.mark.parametrize(
    "named",
    ["http://127.0.0.1:8042", "http://127.0.0.1:8042/", "http://localhost:8042", "HTTP://LOCALHOST:8042", "http://[::1]:8042", None],
)
@pytest.mark.parametrize("path", ["/inference", ANALYZE])
def test_the_orthanc_of_the_configuration_may_be_named(client: httpx.Client, path: str, named: str | None) -> None:
    assert client.post(path, json={"instance_ids": IDS, "orthanc_url": named, "orthanc_auth": ["other", "person"]}).status_code == 200


@pytest.mark.parametrize(
    "named",
    [
        "http://127.0.0.1:8043",
        "http://127.0.0.2:8042",
        "https://127.0.0.1:8042",
        "http://127.0.0.1:8042/other",
        "http://127.0.0.1:8042?x",
        "http://127.0.0.1:8042@evil.example",
        "http://evil.example/",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "http://[",
        "",
        "127.0.0.1:8042",
        5,
        ["http://127.0.0.1:8042"],
    ],
)
@pytest.mark.parametrize("path", ["/inference", ANALYZE])
def test_no_other_address_may_be_named(client: httpx.Client, recorded: Recorded, path: str, named: object) -> None:
    answer = client.post(path, json={"instance_ids": IDS, "orthanc_url": named})
    assert answer.status_code == 403 and answer.json()["success"] is False and "evil" not in answer.text
    assert recorded.asked == []


def test_credentials_in_a_request_are_not_looked_at(client: httpx.Client, recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for auth in (["admin", "secret123"], "secret123", {"user": "secret123"}, None, [["secret123"] * 9]):
            assert client.post("/inference", json={"instance_ids": IDS, "orthanc_auth": auth}).status_code == 200
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("http", "uvicorn.access"))]
    assert len(recorded.asked) == 5 and "secret123" not in "".join(ours)


def test_every_answer_says_that_it_is_for_research_only(client: httpx.Client) -> None:
    answer = client.post("/inference", json={"instance_ids": IDS})
    notice = "Research use only, not for diagnostic use. model m 1, UNTRAINED: the numbers are meaningless"
    assert answer.headers["X-Fourview-Notice"] == notice
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_health_check_says_what_is_missing(tmp_path: Path) -> None:
    source = ResultsMade(tmp_path)
    router = create_router(Recorded(url=""), lambda: ["no worker with a loaded model is running"])
    app = web.create_app(results=source.search, file_path=source.files.path, ready=list, routers=[router])
    with serving(app) as base_url:
        answer = httpx.get(f"{base_url}{HEALTH}", trust_env=False)
        assert answer.status_code == 503 and list(answer.json()) == ["success", "status", "error"]
        assert answer.json()["error"].startswith("no worker") and "there is no Orthanc" in answer.json()["error"]
        assert httpx.get(f"{base_url}{ANALYZE}", trust_env=False).status_code == 405
        assert httpx.get(f"{base_url}{HEALTH.rstrip('/')}", trust_env=False, follow_redirects=True).status_code == 503


# ------------------------------------------------------------------------------------------- Orthanc, the worker and the disk fail

CONFIG = """
[store]
database = "{database}"
files = "files"
min_free_gib = 0.001
[model]
card = "card.toml"
allow_untrained = true
[[pacs]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242
url = "{url}"
user = "fourview"
password_file = "password"
[[rule]]
name = "all mammograms"
when = 'Modality == "MG"'
action = "analyse"
"""


class Answers(http.server.BaseHTTPRequestHandler):
    """An Orthanc that answers as the test says; it remembers paths and credentials."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append((self.path, self.headers.get("Authorization")))
        server.answer(self)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def an_orthanc(answer: Callable[[Any], None]) -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        made: Any = server
        made.seen, made.answer, made.daemon_threads, made.block_on_close = [], answer, True, False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def sends(data: bytes, status: int = 200, length: int | None = None, **headers: str) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def silent(handler: Any) -> None:
    time.sleep(5)


def drips(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(50):
        try:
            handler.wfile.write(b"x")
        except OSError:
            return
        time.sleep(0.1)


class Site:
    """A web process's parts on a database of their own; nobody works there."""

    def __init__(self, folder: Path, database: str, url: str, patience: Patience | None = None) -> None:
        self.folder = folder
        (folder / "config.toml").write_text(CONFIG.format(database=database, url=url))
        (folder / "card.toml").write_text(SIMULATED_CARD)
        (folder / "password").write_text("secret of ours")
        config = load(folder / "config.toml", {})
        self.figures = Figures()
        self.files = parts.open_files(config)
        patience = patience or Patience(fetch_seconds=20.0, read_seconds=0.5)
        policy = parts.site_policy(config)
        self.stopped = threading.Event()
        self.reader = Reader(config, parts.open_on_demand(config), self.files, policy, self.figures, self.stopped, patience)
        source = ResultsMade(folder / "results")
        router = create_router(self.reader, list)
        self.app = web.create_app(results=source.search, file_path=source.files.path, ready=list, routers=[router])
        self.engine = write_engine(database)

    def left(self) -> list[str]:
        """Files in the spool."""
        return [path.name for path in self.files.root.rglob("*") if path.is_file()]

    def ask(self) -> tuple[int, dict[str, Any]]:
        with serving(self.app) as base_url:
            entries = httpx.post(f"{base_url}/inference", json={"instance_ids": IDS}, timeout=60, trust_env=False)
            assert entries.status_code == 200 and [one["success"] for one in entries.json()["results"]] == [False] * 4
            answer = httpx.post(f"{base_url}{ANALYZE}", json={"instance_ids": IDS}, timeout=60, trust_env=False)
        body: dict[str, Any] = answer.json()
        assert list(body) == ["success", "error"] and body["success"] is False
        assert entries.json()["results"][0]["error"] in body["error"]
        for word in ("Traceback", "Doe", "secret", "SELECT", str(self.folder), "127.0.0.1"):
            assert word not in answer.text + entries.text
        return answer.status_code, body


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Callable[[str], Site]]:
    made: list[Site] = []

    def make(url: str) -> Site:
        (tmp_path / "results").mkdir(exist_ok=True)
        made.append(Site(tmp_path, database_url, url))
        return made[-1]

    yield make
    for one in made:
        one.engine.dispose()


MAMMOGRAM = part10(mammogram())


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (silent, 504, "did not send it within 1 seconds"),
        (drips, 504, "did not send it within 1 seconds"),
        (sends(b"", 404), 404, "has no such instance"),
        (sends(b"Doe^Jane", 500), 502, "answered 500: see its log"),
        (sends(b"", 401), 502, "refuses our user or password"),
        (sends(b"", 302, Location="http://127.0.0.1:1/secret"), 502, "answered 302"),
        (sends(MAMMOGRAM[:-5000], length=len(MAMMOGRAM)), 502, "broke off"),
        (sends(MAMMOGRAM[:-5000]), 500, "pixel data"),
        (sends(b"<html>Doe^Jane</html>"), 500, "no DICOM file"),
        (sends(part10(mammogram(StudyInstanceUID="1.2.x"))), 500, "StudyInstanceUID is not a UID"),
        (sends(b""), 500, "no DICOM file"),
    ],
)
def test_what_orthanc_does_wrong_has_a_status_and_a_short_reason(
    tmp_path: Path, sqlite_template: Path, answer: Callable[[Any], None], status: int, reason: str
) -> None:
    (tmp_path / "fourview.db").write_bytes(sqlite_template.read_bytes())
    (tmp_path / "results").mkdir()
    patience = Patience(fetch_seconds=1.0) if status == 504 else None
    with an_orthanc(answer) as orthanc:
        here = Site(tmp_path, f"sqlite:///{tmp_path / 'fourview.db'}", f"http://127.0.0.1:{orthanc.server_port}", patience)
        found, body = here.ask()
        assert found == status and reason in body["error"]
        assert {path for path, _ in orthanc.seen} == {f"/instances/{one}/file" for one in IDS}
        assert {auth for _, auth in orthanc.seen} == {requests.auth._basic_auth_str("fourview", "secret of ours")}
    assert here.left() == [] and here.figures.snapshot() == {"images_on_demand|failed": 8.0}
    with here.engine.begin() as connection:
        assert connection.execute(sa.select(tables.study)).all() == []
    here.engine.dispose()


def test_images_that_nobody_reads_are_given_up_for_now_and_kept(site: Callable[[str], Site]) -> None:
    with an_orthanc(sends(MAMMOGRAM)) as orthanc:
        here = site(f"http://127.0.0.1:{orthanc.server_port}")
        started = time.monotonic()
        status, body = here.ask()
    assert status == 504 and "see whether a worker runs" in body["error"] and time.monotonic() - started < 60
    with here.engine.begin() as connection:
        waiting = connection.execute(sa.select(tables.score.c.state, tables.score.c.priority)).all()
    assert waiting == [("waiting", 0)] and len(here.left()) == 1, "the same image, fetched eight times, is kept once"


@pytest.mark.parametrize("answer", [silent, sends(MAMMOGRAM)], ids=["fetching", "waiting"])
def test_a_service_that_is_stopped_keeps_nobody_waiting(tmp_path: Path, sqlite_template: Path, answer: Callable[[Any], None]) -> None:
    (tmp_path / "fourview.db").write_bytes(sqlite_template.read_bytes())
    (tmp_path / "results").mkdir()
    with an_orthanc(answer) as orthanc:
        here = Site(tmp_path, f"sqlite:///{tmp_path / 'fourview.db'}", f"http://127.0.0.1:{orthanc.server_port}", Patience())
        threading.Timer(1.0, here.stopped.set).start()
        started = time.monotonic()
        status, body = here.ask()
        assert status == 503 and "is being stopped" in body["error"] and time.monotonic() - started < 30
    here.engine.dispose()


def test_images_are_fetched_at_the_same_time(site: Callable[[str], Site]) -> None:
    together = threading.Barrier(4, timeout=10)  # one after the other they would break it

    def answer(handler: Any) -> None:
        together.wait()
        sends(MAMMOGRAM)(handler)

    with an_orthanc(answer) as orthanc:
        status, body = site(f"http://127.0.0.1:{orthanc.server_port}").ask()
    assert status == 504 and "not read within" in body["error"]


def test_a_larger_image_than_allowed_is_not_fetched_whole(site: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listener.on_demand.MOST_BYTES", 1 << 20)
    monkeypatch.setattr(orthanc_http, "_PIECE_BYTES", 1 << 16)
    with an_orthanc(sends(b"x" * (2 << 20))) as orthanc:
        status, body = site(f"http://127.0.0.1:{orthanc.server_port}").ask()
    assert status == 500 and "larger than 1 MiB" in body["error"]


def test_a_full_disk_is_said(site: Callable[[str], Site]) -> None:
    with an_orthanc(sends(MAMMOGRAM)) as orthanc:
        here = site(f"http://127.0.0.1:{orthanc.server_port}")
        here.files.min_free_bytes = 1 << 60
        status, body = here.ask()
        assert status == 507 and "the disk is nearly full" in body["error"] and orthanc.seen == []


def test_a_web_process_without_a_model_card_starts_and_says_so(site: Callable[[str], Site]) -> None:
    with an_orthanc(sends(MAMMOGRAM)) as orthanc:
        here = site(f"http://127.0.0.1:{orthanc.server_port}")
        (here.folder / "card.toml").unlink()
        status, body = here.ask()
    assert status == 503 and "the model card cannot be used" in body["error"] and here.left() == orthanc.seen == []


def test_a_database_that_is_away_is_told_and_keeps_nothing(tmp_path: Path, sqlite_template: Path) -> None:
    (tmp_path / "fourview.db").write_bytes(sqlite_template.read_bytes())
    (tmp_path / "results").mkdir()
    with an_orthanc(sends(MAMMOGRAM)) as orthanc:
        here = Site(tmp_path, f"sqlite:///{tmp_path / 'fourview.db'}", f"http://127.0.0.1:{orthanc.server_port}")
        with here.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE instance RENAME TO away")
        status, body = here.ask()
    assert status == 503 and "the database is busy or away" in body["error"]
    here.engine.dispose()


def test_a_surprise_is_told_and_logged_without_its_words(
    site: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def surprise(*_: object) -> None:
        raise RuntimeError("patient Doe^Jane has no such thing")

    monkeypatch.setattr("listener.on_demand.resolve", surprise)
    with an_orthanc(sends(MAMMOGRAM)) as orthanc:
        here = site(f"http://127.0.0.1:{orthanc.server_port}")
        status, body = here.ask()
    assert status == 500 and "unexpected RuntimeError" in body["error"] and here.left() == []
    assert "error=RuntimeError at=test_reference_api.py:" in caplog.text and "Doe" not in caplog.text


def test_more_requests_than_are_worked_on_are_told_to_come_back(site: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listener.reference_api.REQUESTS_AT_ONCE", 0)
    with serving(site("http://127.0.0.1:1").app) as base_url:
        for path in ("/inference", ANALYZE):
            answer = httpx.post(f"{base_url}{path}", json={"instance_ids": IDS}, trust_env=False)
            assert answer.status_code == 503 and answer.headers["Retry-After"] and answer.json()["success"] is False
