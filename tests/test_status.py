"""`fourview status`: trouble first and what to do, exit code 1; it needs no process and, to say that it is away, no database."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from stepped_store import SteppedStore, exam
from test_alerts import GIB, LIMITS, hold
from typer.testing import CliRunner

from listener import fetch
from listener.cli import app
from listener.config import load
from listener.status import Status, alerts_in_words, in_words, status
from pipeline.alert import Watch
from pipeline.orthanc import FetchFailed
from pipeline.send import Pacs
from store.alerts import AlertKind, Alerts, Cause
from store.archive import Archive
from store.condition import Condition, Facts
from store.database import write_engine
from store.files import Files, Room

LONDON = ZoneInfo("Europe/London")


def looked(stepped: SteppedStore, free: int | None = 50 * GIB) -> Status:
    return status(Condition(stepped.engine).facts, None if free is None else Room(free, "files folder", Path("files")), LIMITS)


def living(stepped: SteppedStore) -> None:
    stepped.now = datetime.now(UTC)
    for role in ("receive", "work", "web"):
        stepped.claims.beat(f"here:{role}:0", role)


def test_when_all_is_well_it_says_so(stepped: SteppedStore) -> None:
    living(stepped)
    stepped.receive(*exam())
    stepped.settle()
    living(stepped)
    found = looked(stepped)
    text = in_words(found, LONDON)
    assert found.troubles == () and text.startswith("OK")
    assert "Process     work     here:work:0" in text and "Studies     analysed 1" in text and "Deliveries  pacs: waiting 2" in text
    assert "50.0 GiB free in the files folder, nothing is received below 10 GiB" in text
    shown = found.as_json()
    assert shown["ok"] is True and shown["deliveries"] == [{"destination": "pacs", "state": "waiting", "count": 2}]


def test_trouble_comes_first_each_with_what_to_do(stepped: SteppedStore) -> None:
    hold(stepped)
    found = looked(stepped, free=5 * GIB)
    lines = in_words(found, LONDON).splitlines()
    assert lines[0] == "TROUBLE: 4"
    assert [line.strip() for line in lines[1:9:2]] == [one.text for one in found.troubles]
    assert all(line.strip().startswith("-> ") for line in lines[2:9:2])
    assert "no receiver is running" in lines[1] and "no worker is running" in lines[3]
    assert "SECRET" not in "\n".join(lines)


def test_a_webhook_that_fails_is_a_trouble(stepped: SteppedStore) -> None:
    living(stepped)
    alerts = Alerts(stepped.engine)
    silent = Cause(cause="silent:ROOM1", kind=AlertKind.SILENT, text="ROOM1 is silent", command="fourview check")
    alerts.settle([silent], [AlertKind.SILENT], tell=True)
    [message] = alerts.due()
    alerts.not_told(message, "answered 503")
    texts = [one.text for one in looked(stepped).troubles]
    assert texts == ["ROOM1 is silent", "the webhook did not take 1 alerts: answered 503"]
    assert "not told: answered 503" in alerts_in_words(Condition(stepped.engine).facts().alerts, LONDON)


def test_a_database_that_is_away_is_said_in_words() -> None:
    def away() -> Facts:
        raise sa.exc.OperationalError("SELECT 1", {}, Exception("connection refused"))

    found = status(away, None, LIMITS)
    text = in_words(found, LONDON)
    assert text.startswith("TROUBLE: 1\n  the database does not answer (connection refused)") and "Database    away" in text
    assert found.as_json()["database"] == "away" and found.as_json()["ok"] is False


CONFIG = """
[store]
database = "{database}"
files = "files"
[model]
card = "card.toml"
[[rule]]
name = "all"
when = 'true'
action = "ignore"
"""


@pytest.fixture
def config(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(database="sqlite:///unused.db"))
    monkeypatch.setenv("FOURVIEW_STORE__DATABASE", database_url)
    return path


def run(config: Path, *arguments: str, code: int) -> str:
    done = CliRunner().invoke(app, ["--config", str(config), *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_the_commands_of_operation(config: Path) -> None:
    found = json.loads(run(config, "status", "--json", code=1))
    assert found["ok"] is False and [one["text"][:11] for one in found["troubles"]][:2] == ["no receiver", "no worker i"]
    assert "sending is paused until" in run(config, "pause", "sending", "--reason", "PACS is moved", code=0)
    assert "was paused already" in run(config, "pause", "sending", code=0)
    assert "Paused      sending is paused since" in run(config, "status", code=1)
    assert "sending goes on" in run(config, "resume", "sending", code=0)
    assert "was not paused" in run(config, "resume", "sending", code=0)
    acts = json.loads(run(config, "acts", "--since", "1h", "--json", code=0))
    assert [(one["what"], one["why"]) for one in acts] == [("resume sending", ""), ("pause sending", "PACS is moved")]
    assert "PACS is moved" in run(config, "acts", code=0)
    assert run(config, "alerts", code=0) == ""
    run(config, "acts", "--since", "soon", code=2)
    for arguments in (("acts", "--since", "999999999d"), ("reconcile", "--since", "999999999d")):
        assert "at most 36500d" in " ".join(run(config, *arguments, code=2).split())
    run(config, "devices", "--days", "1e12", code=2)
    run(config, "reconcile", "--grace", "1e12", code=2)
    run(config, "pause", "lunch", code=2)


def test_deliveries_that_cannot_be_sent_again_are_no_success(config: Path, database_url: str, tmp_path: Path) -> None:
    engine = write_engine(database_url)
    store = SteppedStore(engine, tmp_path / "files")
    store.receive(*exam())
    store.settle()
    [claim] = store.ledger.claim()
    first, second = store.begin(claim.workflow_id)
    store.ledger.refused(first.delivery_id, 0x0122, "SOP class not supported")
    told = run(config, "deliveries", "retry", str(first.delivery_id), str(second.delivery_id), code=1)
    assert "1 will be sent again" in told and f"{second.delivery_id}: it is sending" in told
    for state in ("sent", "confirmed", "waiting"):
        told = " ".join(run(config, "deliveries", "retry", "--state", state, code=2).split())
        assert f"{state}: only what is refused, expired" in told
    assert "0 will be sent again" in run(config, "deliveries", "retry", "--state", "refused", code=0)
    engine.dispose()


def test_status_without_a_database_server_ends_with_1(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURVIEW_STORE__DATABASE", "postgresql+psycopg://fourview@127.0.0.1:9/none")
    text = run(config, "status", code=1)
    assert "the database does not answer" in text and "Traceback" not in text


def test_a_database_volume_below_the_floor_is_told_wherever_people_look(
    tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is received then: the webhook, /metrics, `status` and `check` say so and name the volume, and nothing is fetched."""
    database = tmp_path / "database" / "fourview.db"
    database.parent.mkdir()
    shutil.copy(sqlite_template, database)
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(database=f"sqlite:///{database}"))
    free = {tmp_path / "files": 500 * GIB, database.parent: 3 * GIB}
    monkeypatch.setattr(shutil, "disk_usage", lambda volume: SimpleNamespace(free=free[volume]))
    url = f"sqlite:///{database}"
    files = Files(tmp_path / "files", min_free_bytes=10 * GIB, database_folder=database.parent)
    alerts = Alerts(write_engine(url))
    watch = Watch(condition=Condition(write_engine(url)), alerts=alerts, files=files, limits=LIMITS, url="")
    assert watch.look()["raised"] == 1
    assert alerts.standing() == {"disk:full"} and watch.free_bytes() == 3 * GIB
    [standing] = Condition(write_engine(url)).facts().alerts
    assert standing["text"] == "3.0 GiB are free in the database's folder, less than min_free_gib: C-STORE answers 0xA700"
    shown = run(path, "status", code=1)
    assert standing["text"] in shown and "Disk        3.0 GiB free in the database's folder" in shown
    [disk] = [one for one in json.loads(run(path, "check", "--json", code=1)) if one["what"].startswith("disk")]
    assert not disk["ok"] and disk["what"] == f"disk: 3.0 GiB free in the database's folder {database.parent}"
    assert files.free_bytes() == 500 * GIB, "removing images would not help"
    monkeypatch.setattr(fetch, "fetch_study", lambda *_: iter([b""]))
    monkeypatch.setattr(fetch, "source", lambda _: Pacs(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=9))
    monkeypatch.setattr(fetch, "image_kinds", lambda _: frozenset())
    with pytest.raises(FetchFailed, match="the disk is nearly full"):
        fetch.fetch_and_keep(load(path, {}), Archive(write_engine(url)), files, "1.2.3")
