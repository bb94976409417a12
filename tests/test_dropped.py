"""Files that a person drops: kept and asked for, each on its own; and all that can be wrong with a form or with a file."""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fourview_process import SIMULATED_CARD, FourviewProcess
from mammograms_made import mammogram, uid
from orthanc_process import OrthancProcess
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage
from results_made import ResultsMade, page
from serving import SlowDisk, half_sent, hang_up, serving, wait_until

from listener import dropped, parts, web
from listener.config import load
from listener.on_demand import Reader
from listener.who import Role
from pipeline.figures import Figures
from store import tables
from store.database import write_engine
from store.forget import Forgetting
from store.study import HANGING_ORDER, View

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
by_hand = true
[[rule]]
name = "all mammograms"
when = 'Modality == "MG"'
action = "analyse"
"""


def part10(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicomdir() -> bytes:
    """As on a patient's disc: no pixels, no SOP Instance UID in the data set."""
    ds = mammogram(PixelData=None, SOPClassUID=None, SOPInstanceUID=None, StudyInstanceUID=None)
    ds.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    ds.file_meta.MediaStorageSOPInstanceUID = uid("dicomdir")
    return part10(ds)


def deflated() -> bytes:
    """Its file meta names a transfer syntax that nobody here reads; what stands behind is not looked at."""
    ds = mammogram(image="deflated")
    data, known = part10(ds), ds.file_meta.TransferSyntaxUID.encode() + b"\0"
    other = DeflatedExplicitVRLittleEndian.encode()
    assert len(other) == len(known) + 2
    return data.replace(b"UI" + len(known).to_bytes(2, "little") + known, b"UI" + len(other).to_bytes(2, "little") + other, 1)


class Site:
    """A web process's parts on a database of their own; nobody works there."""

    def __init__(self, folder: Path, database: str) -> None:
        (folder / "config.toml").write_text(CONFIG.format(database=database))
        (folder / "card.toml").write_text(SIMULATED_CARD)
        (folder / "results").mkdir()
        config = load(folder / "config.toml", {})
        self.files = parts.open_files(config)
        self.figures = Figures()
        book, policy = parts.open_on_demand(config), parts.site_policy(config)
        self.reader = Reader(config, book, self.files, policy, self.figures, threading.Event())
        self.results = results = ResultsMade(folder / "results", database)
        self.router = router = dropped.create_router(self.reader, self.files, self.figures)
        self.app = web.create_app(results=results.search, file_path=results.files.path, ready=list, routers=[router])
        self.engine = write_engine(database)

    def left(self) -> int:
        """How many files are in the spool."""
        return sum(path.is_file() for path in self.files.root.rglob("*"))

    def rows(self, query: sa.Select[Any]) -> list[Any]:
        with self.engine.begin() as connection:
            return list(connection.execute(query).all())


Drop = Callable[..., httpx.Response]


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    made = Site(tmp_path, database_url)
    yield made
    made.engine.dispose()


@pytest.fixture
def small_site(tmp_path: Path, sqlite_template: Path) -> Iterator[Site]:
    """For what concerns no database: on SQLite only."""
    (tmp_path / "fourview.db").write_bytes(sqlite_template.read_bytes())
    made = Site(tmp_path, f"sqlite:///{tmp_path / 'fourview.db'}")
    yield made
    made.engine.dispose()


def drop(site: Site, contents: Sequence[bytes], **headers: str) -> httpx.Response:
    """As a browser sends them."""
    files = [("files", (f"Doe^Jane {number}.dcm", data, "application/octet-stream")) for number, data in enumerate(contents)]
    return sent(site, files=files, headers=headers)


def sent(site: Site, **request: Any) -> httpx.Response:
    with serving(site.app) as base_url:
        return httpx.post(f"{base_url}{dropped.PATH}", timeout=60, trust_env=False, **request)


def test_each_file_is_kept_and_asked_for_and_one_that_is_none_stops_no_other(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    exam = [mammogram(view, study="dropped") for view in HANGING_ORDER]
    forgotten = mammogram(study="forgotten")
    assert drop(site, [part10(forgotten)]).status_code == 200
    for name in Forgetting(site.engine).forget(uid("forgotten"), person="somebody").files:
        site.files.remove(name)
    result = page("dropped")
    site.results.add(result)
    wrong = {
        b"%PDF-1.7 Doe^Jane": "no DICOM file",
        b"": "no DICOM file",
        dicomdir(): "DICOMDIR",
        part10(mammogram(SOPClassUID=ComprehensiveSRStorage, Modality="SR", PixelData=None)): "no pixels",
        part10(mammogram(PixelData=b"")): "no pixels",
        part10(exam[0])[:-5000]: "the pixel data ends after",
        deflated(): "its transfer syntax is not supported",
        part10(mammogram(StudyInstanceUID="1.2.x")): "StudyInstanceUID is not a UID",
        part10(mammogram(StudyInstanceUID=None)): "StudyInstanceUID is missing",
        part10(forgotten): "its study was forgotten here",
        part10(result): "it is a result of Fourview",
    }
    with caplog.at_level(logging.DEBUG):
        answer = drop(site, [part10(exam[0]), *wrong, *(part10(ds) for ds in exam[1:])])
    found = answer.json()
    assert answer.status_code == 202 and [one["index"] for one in found] == list(range(15))
    for one, words in zip(found[1:12], wrong.values(), strict=True):
        assert words in one["error"] and (one["study_instance_uid"], one["sop_instance_uid"], one["view"]) == ("", "", None)
    kept = [found[0], *found[12:]]
    assert [one["view"] for one in kept] == [str(view) for view in HANGING_ORDER] and {one["error"] for one in kept} == {""}
    assert [one["sop_instance_uid"] for one in kept] == [str(ds.SOPInstanceUID) for ds in exam]
    assert {one["study_instance_uid"] for one in kept} == {uid("dropped")}
    images = site.rows(sa.select(tables.instance))
    assert {(one.disposition, one.origin, one.calling_ae_title) for one in images} == {("on demand", "on-demand", "")}
    assert site.rows(sa.select(tables.score.c.state, tables.score.c.priority)) == [("waiting", 0)] * 4
    assert site.left() == 4 and site.figures.snapshot() == {"files_dropped|kept": 5.0, "files_dropped|refused": 11.0}
    ours = "".join(record.getMessage() for record in caplog.records if not record.name.startswith(("http", "uvicorn")))
    assert "Doe" not in ours + answer.text and "files dropped person=web files=15 refused=11" in ours
    again = drop(site, [part10(ds) for ds in exam])
    assert again.status_code == 200 and again.json() == [{**one, "index": number} for number, one in enumerate(kept)]
    assert site.left() == 4, "known already: kept once"


def test_a_form_without_javascript_is_led_to_the_study(small_site: Site) -> None:
    html = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"
    answer = drop(small_site, [b"no image", part10(mammogram())], Accept=html)
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/studies/{uid('study')}")
    answer = drop(small_site, [b"<script>", b"Doe^Jane"], Accept=html)
    assert answer.status_code == 400 and answer.headers["Content-Type"].startswith("text/html")
    assert "file 1: no DICOM file" in answer.text and "file 2: " in answer.text and "Doe" not in answer.text
    assert drop(small_site, [part10(mammogram())], Accept="image/png").status_code == 406


@pytest.mark.parametrize(
    ("headers", "body", "status", "reason"),
    [
        ({}, b"", 415, "multipart/form-data"),
        ({"Content-Type": "application/dicom"}, b"x", 415, "multipart/form-data"),
        ({"Content-Type": "multipart/form-data"}, b"x", 400, "boundary"),
        ({"Content-Type": 'multipart/form-data; boundary="Doe\x7fJane"'}, b"x", 400, "boundary"),
        ({"Content-Type": "multipart/form-data; boundary=b", "Content-Encoding": "gzip"}, b"x", 415, "Content-Encoding"),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"", 400, "does not occur in the body"),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"--other\r\n\r\nx\r\n--other--", 400, "does not occur in the body"),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"--b\r\nDoe^Jane\r\n\r\nx\r\n--b--", 400, "not of the form Name: value"),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"--b\r\n\r\nx\r\n--b--", 400, "no file in its field files"),
        (
            {"Content-Type": "multipart/form-data; boundary=b"},
            b'--b\r\nContent-Disposition: form-data; name="files"; filename=""\r\n\r\n\r\n--b--',
            400,
            "no file in its field files",
        ),
        (
            {"Content-Type": "multipart/form-data; boundary=b"},
            b'--b\r\nContent-Disposition: form-data; name="other"; filename="x"\r\n\r\nx\r\n--b--',
            400,
            "no file in its field files",
        ),
        (
            {"Content-Type": "multipart/form-data; boundary=b"},
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\nx',
            400,
            "before its closing boundary",
        ),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"--b\r\n\r\nx\r\n" * 70 + b"--b--", 400, "more than 64 fields"),
    ],
)
def test_what_is_no_form_with_files_is_refused(small_site: Site, headers: dict[str, str], body: bytes, status: int, reason: str) -> None:
    answer = sent(small_site, content=body, headers=headers)
    assert answer.status_code == status and reason in answer.json()["detail"] and "Doe" not in answer.text
    assert small_site.left() == 0


def test_a_form_that_breaks_off_keeps_what_came_whole(small_site: Site) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
    data = head + part10(mammogram()) + b"\r\n" + head + part10(mammogram(View.R_CC))[:20_000]
    answer = sent(small_site, content=data, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 202 and [bool(one["error"]) for one in answer.json()] == [False, True] and small_site.left() == 1


@pytest.mark.parametrize("hangs_up", [True, False])
def test_what_came_whole_from_a_client_that_goes_away_or_falls_silent_is_told(
    hangs_up: bool, small_site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
    data = head + part10(mammogram()) + b"\r\n" + head + part10(mammogram(View.R_CC))[:20_000]
    incoming = small_site.files.incoming
    with (
        caplog.at_level(logging.INFO),
        serving(small_site.app) as base_url,
        half_sent(base_url, dropped.PATH, "multipart/form-data; boundary=b", data) as connection,
    ):
        wait_until(lambda: small_site.left() == 2 and len(list(incoming.iterdir())) == 1)
        if hangs_up:
            hang_up(connection)
        else:
            monkeypatch.setattr("listener.streamed.SILENCE_SECONDS", 0.2)
            connection.sendall(b"\0")  # that the next wait be a short one
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        wait_until(lambda: "event=audit" in caplog.text)
    assert small_site.left() == 1 and small_site.figures.snapshot() == {"files_dropped|kept": 1.0}
    assert "files dropped person=web files=1 refused=0" in caplog.text
    assert f"method=POST status={400 if hangs_up else 408} studies=1 study_instance_uid={uid('study')} " in caplog.text


def test_a_place_is_taken_before_anything_is_waited_for(small_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropped, "REQUESTS_AT_ONCE", 1)
    disk, files = SlowDisk(), [("files", ("x.dcm", part10(mammogram())))]
    monkeypatch.setattr(small_site.files, "has_room", disk.has_room)
    with serving(small_site.app) as base_url, ThreadPoolExecutor() as pool:

        def post() -> httpx.Response:
            return httpx.post(f"{base_url}{dropped.PATH}", timeout=60, trust_env=False, files=files)

        first = pool.submit(post)
        assert disk.asked.wait(30)
        second = post()
        disk.may_go_on.set()
        assert (second.status_code, first.result().status_code) == (503, 200)
    monkeypatch.undo()
    assert drop(small_site, [part10(mammogram())]).status_code == 200, "places are given back"


def test_the_limits_of_number_and_size_are_told_of_the_files_that_they_concern(small_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    image = part10(mammogram())
    monkeypatch.setattr(dropped, "MOST_FILES", 2)
    monkeypatch.setattr(dropped, "MOST_BYTES", 1 << 20)
    answer = drop(small_site, [image + bytes(3 << 20), image, image])
    assert answer.status_code == 202, "larger than other requests may be"
    assert [one["error"] for one in answer.json()] == ["larger than 1 MiB", "", "only 2 files are taken at once: give it again"]
    assert small_site.left() == 1
    with serving(small_site.app) as base_url:
        connection = http.client.HTTPConnection(base_url.removeprefix("http://"), timeout=60)
        connection.putrequest("POST", dropped.PATH)
        connection.putheader("Content-Type", "multipart/form-data; boundary=b")
        connection.putheader("Content-Length", str(1 << 40))
        connection.endheaders(b"--b")
        assert connection.getresponse().status == 413
        connection.close()


def test_what_fails_around_us_is_told_and_keeps_nothing(small_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    image = part10(mammogram())
    monkeypatch.setattr(small_site.files, "has_room", lambda share=1.0: False)
    answer = drop(small_site, [image])
    assert (answer.status_code, answer.json()["detail"]) == (507, "the disk is nearly full")
    monkeypatch.undo()

    def full(received: Path) -> str:
        raise OSError(28, "No space left on device", str(received))

    monkeypatch.setattr(small_site.files, "adopt", full)
    answer = drop(small_site, [image, image])
    assert (answer.status_code, answer.json()["detail"]) == (507, "the disk is full; try again later")
    monkeypatch.undo()
    monkeypatch.setattr(dropped, "REQUESTS_AT_ONCE", 0)
    answer = drop(small_site, [image])
    assert answer.status_code == 503 and answer.headers["Retry-After"]
    monkeypatch.undo()
    with small_site.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE instance RENAME TO away")
    answer = drop(small_site, [image])
    assert (answer.status_code, answer.json()["detail"]) == (503, "the database is busy or away; try again in a few seconds")
    assert small_site.left() == 0


@pytest.mark.parametrize("written", [True, False], ids=["of-the-image", "before-it"])
def test_a_commit_whose_answer_was_lost_may_stand_and_keeps_its_file(small_site: Site, written: bool) -> None:
    """The other faults leave nothing, or who tries again and again fills the disk."""
    gone = []

    @sa.event.listens_for(sa.Engine, "commit")
    def lost(connection: sa.Connection) -> None:
        ours = connection.engine.url.database == small_site.engine.url.database
        if not gone and ours and bool(connection.scalar(sa.select(sa.func.count()).select_from(tables.instance))) is written:
            gone.append(True)
            raise sa.exc.OperationalError("COMMIT", None, Exception("gone"))

    try:
        answer = drop(small_site, [part10(mammogram())])
    finally:
        sa.event.remove(sa.Engine, "commit", lost)
    assert answer.status_code == 503 and "busy or away" in answer.text
    assert gone and small_site.left() == int(written)


def test_who_may_only_look_drops_nothing(small_site: Site) -> None:
    [route] = [one for one in small_site.router.routes if getattr(one, "path", "") == dropped.PATH]
    assert [one.call.role for one in route.dependant.dependencies] == [Role.OPERATOR]  # type: ignore[attr-defined]


# --------------------------------------------------------------------------------------------------------- the whole way


def _memory_kib(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def _large(content_bytes: int) -> Iterator[bytes]:
    """A form with a file of this size, which is no image."""
    yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
    for _ in range(content_bytes >> 20):
        yield bytes(1 << 20)
    yield b"\r\n--b--\r\n"


def test_dropped_files_are_read_and_a_person_sends_the_result(
    start_orthanc: Callable[..., OrthancProcess], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    orthanc = start_orthanc(extra={"DicomAlwaysAllowFind": True})
    exam = [part10(mammogram(view, study="dropped")) for view in HANGING_ORDER]
    for data in exam:  # results wait until the PACS has their study
        orthanc.upload(data)
    ports = {"dicom_port": free_port(), "http_port": free_port(), "pacs_port": orthanc.dicom_port, "pacs_url": orthanc.url}
    study = uid("dropped")
    without_stow = {"FOURVIEW_HTTP__STOW": "false"}
    with FourviewProcess(tmp_path / "fourview", **ports, rule='Modality == "CR"', environment=without_stow) as ours:
        assert httpx.post(f"{ours.url}/dicom-web/studies", content=b"x", trust_env=False).status_code == 405
        url = f"{ours.url}{dropped.PATH}"
        answer = httpx.post(url, files=[("files", ("Doe^Jane.dcm", data)) for data in exam], timeout=60, trust_env=False)
        assert answer.status_code == 200 and [one["study_instance_uid"] for one in answer.json()] == [study] * 4

        def read() -> bool:
            return all(score["state"] == "scored" for image in ours.show(study)["images"] for score in image["scores"])

        ours.wait_for(read, "no worker read the dropped files")
        found = ours.show(study)
        assert found["state"] == "ignored" and found["runs"] == found["deliveries"] == [] and len(found["images"]) == 4
        assert [one["MainDicomTags"]["Modality"] for one in orthanc.find("Series", StudyInstanceUID=study)] == ["MG"]

        assert f"{study}: analysed: version 1: COMPLETE; it goes to orthanc" in ours.run("send", study, "--reason", "she asked")
        ours.wait_for(lambda: len(orthanc.find("Series", StudyInstanceUID=study)) == 3, "no SR and page came")
        assert sorted(one["MainDicomTags"]["Modality"] for one in orthanc.find("Series", StudyInstanceUID=study)) == ["MG", "OT", "SR"]
        sent = ours.wait_for_state(study, "analysed", version=1)
        assert sent["runs"][0]["outcome"] == "COMPLETE" and len(sent["deliveries"]) == 2
        assert "no rule matches" in sent["rule"]["reason"] or "a person sends it" in sent["rule"]["reason"]
        assert "no [[pacs]] is named elsewhere" in ours.run("send", study, "--to", "elsewhere", code=2)
        assert "Doe" not in ours.log.read_text()

        [web] = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if _is_web(path, ours.config)]
        before = _memory_kib(web)
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = httpx.post(url, content=_large(190 << 20), headers=kind, timeout=120, trust_env=False)
        assert answer.json()[0]["error"] == "no DICOM file: DICM is not at byte 128"
        assert _memory_kib(web) - before < 40 * 1024, "a file of 190 MiB was held in memory"


def _is_web(cmdline: Path, config: Path) -> bool:
    try:
        words = cmdline.read_bytes().split(b"\0")
    except OSError:
        return False  # ended meanwhile
    return str(config).encode() in words and b"web" in words
