"""What a real Orthanc holds compared with what came: nothing that is lost stays unseen, and nothing that is not lost is called so."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
import sqlalchemy as sa
from fourview_process import SIMULATED_CARD
from mammograms_made import mammogram, uid
from orthanc_process import OrthancProcess
from pydicom.dataset import Dataset
from stepped_store import FixedRuling, SteppedStore, image
from test_alerts import LIMITS
from test_on_demand import ask
from typer.testing import CliRunner

from listener import cli, reconcile, workplace
from listener.config import Config, load
from listener.terminal import app
from pipeline import holdings
from pipeline.holdings import HeldStudy, Unanswered, holdings_of
from store import tables
from store.accounting import Accounting
from store.acts import study_key
from store.alerts import AlertKind, causes
from store.chores import Chores
from store.condition import Condition
from store.database import write_engine
from store.study import HANGING_ORDER, View

assert cli.COMMANDS  # importing it makes the commands

CONFIG = """
[store]
database = "{database}"
files = "files"
min_free_gib = 0.1
[study]
reconcile = "{scheduled}"
[model]
card = "card.toml"
allow_untrained = true
[[pacs]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242
url = "{url}"
[[rule]]
name = "all mammograms"
when = 'Modality == "MG"'
action = "analyse"
"""


def part10(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def exam(study: str, **overrides: Any) -> list[Dataset]:
    today = datetime.now(UTC).strftime("%Y%m%d")
    return [image(view, study=study, **{"StudyDate": today, **overrides}) for view in HANGING_ORDER]


def other(study: str, modality: str, **overrides: Any) -> Dataset:
    """An object that is no mammogram."""
    own = {"StudyDate": datetime.now(UTC).strftime("%Y%m%d"), "SeriesInstanceUID": uid(study, modality)}
    return mammogram(View.L_CC, study=study, image=modality, Modality=modality, **{**own, **overrides})


def orthanc_clock(orthanc: OrthancProcess) -> datetime:
    return datetime.strptime(orthanc.get("/tools/now"), "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def let_pass(orthanc: OrthancProcess, seconds: float) -> None:
    """Orthanc's times are whole seconds: what comes later must differ."""
    begun = orthanc_clock(orthanc)
    while orthanc_clock(orthanc) < begun + timedelta(seconds=seconds):
        time.sleep(0.05)


@pytest.fixture(scope="module")
def source(needs_program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancProcess]:
    """Holds one study of each kind that a comparison tells apart; no test changes it."""
    process = OrthancProcess(tmp_path_factory.mktemp("orthanc"), program=needs_program("Orthanc"))
    process.start()
    try:
        for study in ("whole", "never", "part", "unwanted", "forgotten"):
            for ds in exam(study, PatientName=f"{study}^Jane"):
                process.upload(part10(ds))
        process.upload(part10(other("whole", "SR")))  # results, ours or another's
        process.upload(part10(other("ultrasound", "US")))
        whole = process.find("Study", StudyInstanceUID=uid("whole"))[0]["ID"]
        process.post(f"/studies/{whole}/anonymize", {})
        process.post(f"/studies/{whole}/modify", {"Replace": {"StudyDescription": "copy"}})
        let_pass(process, 2)
        yield process
    finally:
        process.kill()


class DicomwebOnly(http.server.BaseHTTPRequestHandler):
    """A server that offers DICOMweb and nothing of Orthanc's own, and lists two studies at once, however many it is asked for."""

    def do_GET(self) -> None:
        if not self.path.startswith("/dicom-web/"):
            self.send_error(404)
            return
        address = urlsplit(self.path)
        asked = dict(parse_qsl(address.query))
        offset = int(asked.pop("offset", 0))
        behind = f"{self.server.behind}{address.path}?{urlencode(asked)}"  # type: ignore[attr-defined]
        answer = httpx.get(behind, headers={"Accept": self.headers["Accept"]}, timeout=30, trust_env=False)
        content = answer.content
        if address.path == "/dicom-web/studies":
            content = json.dumps(answer.json()[offset : offset + 2]).encode()
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def dicomweb_only(source: OrthancProcess) -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), DicomwebOnly) as server:
        server.behind = source.url  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Site:
    """An installation without processes: its configuration, its store, its command line."""

    def __init__(self, folder: Path, database: str, url: str, scheduled: str = "fetch") -> None:
        self.path = folder / "config.toml"
        self.path.write_text(CONFIG.format(database=database, url=url, scheduled=scheduled))
        (folder / "card.toml").write_text(SIMULATED_CARD)
        self.config: Config = load(self.path, {})
        self.engine = write_engine(database)
        self.store = SteppedStore(self.engine, folder / "files")
        self.accounting = Accounting(self.engine)
        self.book = Chores(self.engine)
        self.scheduled = reconcile.Scheduled(self.config, self.accounting, self.book, self.store.archive, self.store.files)

    def receives_its_share(self) -> None:
        """What of `source` came here."""
        self.store.ruling = FixedRuling(action="ignore", rule_name="not these")
        self.store.receive(*exam("unwanted", PatientName="unwanted^Jane"))
        self.store.settle()
        self.store.ruling = FixedRuling()
        self.store.receive(*exam("whole", PatientName="whole^Jane"))
        self.store.settle()
        self.store.receive(*exam("part", PatientName="part^Jane")[:2])
        self.store.work()
        with self.engine.begin() as connection:
            stone = {"study_key": study_key(connection, uid("forgotten")), "at": datetime.now(UTC)}
            connection.execute(sa.insert(tables.tombstone).values(**stone))

    def run(self, *arguments: str, code: int) -> str:
        done = CliRunner().invoke(app, ["--config", str(self.path), *arguments])
        assert done.exit_code == code, done.output + repr(done.exception)
        return done.output

    def asks(self, *arguments: str, code: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("reconcile", "--grace", "0", "--json", *arguments, code=code))
        return found

    def received(self, study: str) -> list[tuple[str, str]]:
        row = tables.instance
        mine = sa.select(row.c.sop_instance_uid, row.c.origin).where(row.c.study_instance_uid == uid(study))
        return [(one.sop_instance_uid, one.origin) for one in self.store.rows(mine)]


@pytest.fixture
def site(tmp_path: Path, database_url: str, source: OrthancProcess) -> Iterator[Site]:
    made = Site(tmp_path, database_url, source.url)
    yield made
    made.engine.dispose()


def test_every_study_is_accounted_for_and_what_is_missing_is_fetched(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "PAGE", 3)  # many pages of Orthanc's log
    site.receives_its_share()
    found = site.asks(code=1)
    assert found["never_seen"] == [uid("never")]
    assert found["partly_seen"] == [uid("part")]
    assert found["studies"]["forgotten"] == [uid("forgotten")]
    assert found["ignored_by"] == {"not these": 1}
    assert found["counts"] == {"analysed": 1, "never_seen": 1, "partly_seen": 1, "ignored": 1, "forgotten": 1, "copy": 2}
    assert set(found["studies"]["copy"]).isdisjoint({uid(name) for name in ("whole", "never", "part", "unwanted", "forgotten")})
    words = site.run("reconcile", "--grace", "0", code=1)
    assert "received 7 mammography studies" in words and f"never seen:\n  {uid('never')}\n" in words
    assert "Jane" not in words and uid("whole") not in words.split("ignored by")[1].split("received in part")[0]

    found = site.asks("--fetch", code=0)
    assert found["fetched"] == 2 and found["not_fetched"] == {} and found["never_seen"] == []
    assert found["counts"] == {"analysed": 1, "collecting": 2, "ignored": 1, "forgotten": 1, "copy": 2}
    assert sorted(site.received("never")) == sorted((str(ds.SOPInstanceUID), "fetched") for ds in exam("never"))
    assert sorted(origin for _, origin in site.received("part")) == ["fetched", "fetched", "received", "received"], "only what was missing"
    assert site.received("forgotten") == []
    assert len(site.store.rows(sa.select(tables.study))) == 4, "no copy came"
    site.store.settle()
    assert site.asks("--fetch", code=0)["counts"] == {"analysed": 3, "ignored": 1, "forgotten": 1, "copy": 2}


def test_a_source_that_offers_dicomweb_only(site: Site, dicomweb_only: http.server.ThreadingHTTPServer) -> None:
    site.receives_its_share()
    site.path.write_text(site.path.read_text().replace(site.config.pacs[0].url, f"http://127.0.0.1:{dicomweb_only.server_address[1]}"))
    found = site.asks("--since", "1d", code=1)
    assert found["studies"]["forgotten"] == [uid("forgotten")] and found["ignored_by"] == {"not these": 1}
    assert found["partly_seen"] == [uid("part")]
    # It does not tell which studies it made itself. The anonymised one has no Study Date.
    assert found["counts"] == {"analysed": 1, "never_seen": 2, "partly_seen": 1, "ignored": 1, "forgotten": 1}
    assert uid("never") in found["never_seen"]
    assert site.asks("--fetch", code=0)["fetched"] == 3
    assert len(site.received("part")) == 4


def test_what_was_read_on_demand_is_told_from_what_was_sent_and_from_what_never_came(site: Site) -> None:
    """People know of it, so it is not lost; but it was not sent either, so it is not counted as received."""
    site.receives_its_share()
    ask(site.store, *exam("never", PatientName="never^Jane")[:2])
    ask(site.store, exam("part", PatientName="part^Jane")[2])
    found = site.asks(code=1)
    assert found["counts"] == {"analysed": 1, "on_demand": 1, "partly_seen": 1, "ignored": 1, "forgotten": 1, "copy": 2}
    assert found["never_seen"] == [] and found["studies"]["on_demand"] == [uid("never")]
    assert "read on demand, never sent here:\n  " + uid("never") in site.run("reconcile", "--grace", "0", code=1)
    assert site.asks("--fetch", code=0)["fetched"] == 1
    came = sorted(origin for _, origin in site.received("part") if origin != "on-demand")
    assert came == ["fetched", "fetched", "received", "received"]
    assert {origin for _, origin in site.received("never")} == {"on-demand"}, "what a person asked for is not routed by that"


def test_what_just_arrived_at_the_pacs_may_still_be_on_its_way(site: Site) -> None:
    found = json.loads(site.run("reconcile", "--grace", "60", "--fetch", "--json", code=0))
    assert found["counts"] == {"arriving": 5, "copy": 2} and found["never_seen"] == []
    assert site.store.rows(sa.select(tables.study)) == []


def test_what_cannot_be_fetched_does_not_stop_the_others(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refuses = (
        reconcile.fetch_and_keep,
        {"whole": reconcile.FetchFailed("busy", worth_retrying=True), "never": OSError(5, "I/O error")},
    )

    def fetch(config: Config, archive: Any, files: Any, study: str, only: Any) -> str:
        for name, error in refuses.items():
            if study == uid(name):
                raise error
        return real(config, archive, files, study, only)

    monkeypatch.setattr(reconcile, "fetch_and_keep", fetch)
    found = site.asks("--fetch", code=1)
    assert found["fetched"] == 3
    assert found["not_fetched"] == {uid("whole"): "busy", uid("never"): "the disk refused it (I/O error)"}
    assert sorted(found["never_seen"]) == sorted([uid("whole"), uid("never")])


def test_the_scheduled_comparison_goes_on_where_the_last_one_ended(
    site: Site, source: OrthancProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "GRACE", timedelta(0))
    site.receives_its_share()
    lists = Site(site.path.parent, str(site.engine.url.render_as_string(hide_password=False)), source.url, "list")
    first = lists.scheduled.do()
    lists.book.ask("reconcile")
    lists.book.done("reconcile", first)
    assert first["never_seen"] == [uid("never")] and first["partly_seen"] == [uid("part")] and first["fetched"] == 0
    assert datetime.fromisoformat(first["until"]) - datetime.fromisoformat(first["since"]) > timedelta(hours=23)

    let_pass(source, 3)
    second = lists.scheduled.do()
    assert second["since"] == first["until"]
    assert second["never_seen"] == [uid("never")], "what was missing then is looked for again, though nothing new came"
    assert second["counts"] == {"never_seen": 1, "partly_seen": 1}, "and nothing else"
    lists.book.done("reconcile", second)

    found = site.scheduled.do()
    assert found["fetched"] == 2 and found["never_seen"] == found["partly_seen"] == []
    lists.engine.dispose()


def told(site: Site) -> list[str]:
    """What people are told of the comparison."""
    found = causes(Condition(site.engine).facts(), LIMITS, None)
    return [one.cause for one in found if one.kind in (AlertKind.NEVER_SEEN, AlertKind.RECONCILE)]


def test_the_alerts_own_command_settles_it(site: Site, source: OrthancProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing came to the PACS before `--since`; after the command no worker waits for hours to see that it is here."""
    monkeypatch.setattr(reconcile, "GRACE", timedelta(0))
    site.receives_its_share()
    lists = Site(site.path.parent, str(site.engine.url.render_as_string(hide_password=False)), source.url, "list")
    lists.book.ask("reconcile")
    assert lists.book.begin("reconcile", 6 * 3600, "worker")
    lists.book.done("reconcile", lists.scheduled.do())
    assert told(site) == ["never seen"]
    let_pass(source, 3)
    found = site.asks("--since", "0h", "--fetch", code=0)
    assert found["fetched"] == 2
    assert lists.book.begin("reconcile", 6 * 3600, "worker"), "asked for"
    lists.book.done("reconcile", lists.scheduled.do())
    assert told(site) == []
    lists.engine.dispose()


def test_what_a_comparison_said_goes_when_it_is_switched_off(site: Site, source: OrthancProcess) -> None:
    site.book.ask("reconcile")
    assert site.book.begin("reconcile", 0, "worker")
    site.book.done("reconcile", {"never_seen": [uid("never")], "error": "the PACS does not answer"})
    assert told(site) == ["reconcile", "never seen"]
    off = Site(site.path.parent, str(site.engine.url.render_as_string(hide_password=False)), source.url, "off")
    assert workplace.reconciling(off.config, off.store.archive, off.store.files) == ()
    workplace.ask_for_reconciliation(off.config)
    assert told(site) == []
    off.asks("--since", "0h", code=0)
    assert not off.book.begin("reconcile", 1e9, "worker"), "nobody is asked who does not do it"
    off.engine.dispose()


def test_a_pacs_that_is_away_is_an_error_and_its_time_is_made_up_for(
    site: Site, source: OrthancProcess, free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    told = site.path.read_text()
    site.path.write_text(told.replace(source.url, f"http://127.0.0.1:{free_port()}"))
    done = CliRunner().invoke(app, ["--config", str(site.path), "reconcile"])
    assert isinstance(done.exception, Unanswered) and "orthanc is not reachable" in str(done.exception)
    assert Unanswered in cli.EXPECTED
    away = reconcile.Scheduled(load(site.path, {}), site.accounting, site.book, site.store.archive, site.store.files)
    before = {"until": (datetime.now(UTC) - timedelta(hours=5)).isoformat(), "never_seen": [uid("never")], "counts": {"never_seen": 1}}
    site.book.ask("reconcile")
    site.book.done("reconcile", before)
    failed = away.do()
    assert "orthanc is not reachable" in failed["error"]
    assert f"reason={failed['error']!r}" in caplog.text, "quoted: a field of the log holds all of it"
    assert failed["until"] == before["until"] and failed["never_seen"] == before["never_seen"]
    assert away.again() == {"asked": False}
    site.book.done("reconcile", failed)
    assert away.again() == {"asked": True}
    assert site.book.begin("reconcile", 1e9, "me"), "asked for"
    assert datetime.fromisoformat(site.scheduled.do()["since"]) == datetime.fromisoformat(before["until"])


NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before", "hours"),
    [
        (None, 24),
        ({"until": (NOW - timedelta(hours=7)).isoformat()}, 7),
        ({"until": (NOW - timedelta(days=90)).isoformat()}, 30 * 24),
        ({"until": (NOW + timedelta(hours=1)).isoformat()}, 1 / 6),
        ({"failed": "TypeError"}, 30 * 24),
        ({}, 30 * 24),  # it was off for a while
    ],
)
def test_where_a_scheduled_comparison_begins(before: dict[str, Any] | None, hours: float) -> None:
    assert NOW - reconcile.begin(before, NOW) == timedelta(hours=hours)


def test_more_missing_than_can_be_listed_are_not_lost_sight_of(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "LISTED", 2)
    monkeypatch.setattr(reconcile, "GRACE", timedelta(0))
    listing = reconcile.Scheduled(
        load(site.path, {"FOURVIEW_STUDY__RECONCILE": "list"}), site.accounting, site.book, site.store.archive, site.store.files
    )
    found = listing.do()
    assert found["counts"]["never_seen"] == 5 and len(found["never_seen"]) == 2
    assert found["until"] == found["since"], "the next one covers the same time"


# ------------------------------------------------------------------------------------------------------------ what Orthanc tells


def uids(found: Iterator[HeldStudy]) -> list[str]:
    return [held.study_instance_uid for held in found]


def test_orthanc_tells_what_it_received_since(start_orthanc: Callable[..., OrthancProcess], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "PAGE", 4)
    orthanc = start_orthanc()
    pacs = holdings.Pacs(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=1, url=orthanc.url)
    for study in ("old", "older"):
        for ds in exam(study, StudyDate="20200101"):
            orthanc.upload(part10(ds))
    let_pass(orthanc, 4)
    since = datetime.now(UTC) - timedelta(seconds=1)
    for ds in exam("late", StudyDate="20200101")[:3]:
        orthanc.upload(part10(ds))
    late_image = image(View.L_CC, "retake", study="old", StudyDate="20200101")
    orthanc.upload(part10(late_image))
    orthanc.upload(part10(other("ultrasound", "US")))

    with holdings_of(pacs, datetime.now(UTC)) as told:
        assert sorted(uids(told.received_since(since))) == sorted([uid("late"), uid("old")]), "whatever the date of the study"
        assert sorted(uids(told.received_since(since - timedelta(days=1)))) == sorted([uid("late"), uid("old"), uid("older")])
        assert uids(told.received_since(since + timedelta(days=1))) == []
        (old,) = told.study(uid("old"))
        assert len(old.instances) == 5 and old.arrived_at is not None
        assert abs(old.arrived_at - datetime.now(UTC)) < timedelta(minutes=1)
        assert list(told.study(uid("nowhere"))) == list(told.study(uid("ultrasound"))) == []
    # Our clock goes wrong by an hour: what counts is how long ago it was.
    with holdings_of(pacs, datetime.now(UTC) + timedelta(hours=1)) as told:
        assert sorted(uids(told.received_since(since + timedelta(hours=1)))) == sorted([uid("late"), uid("old")])

    orthanc.delete("/changes")  # some sites do; then the Study Date must do
    for ds in exam("today"):
        orthanc.upload(part10(ds))
    orthanc.delete("/changes")
    with holdings_of(pacs, datetime.now(UTC)) as told:
        assert uids(told.received_since(since)) == [uid("today")]
