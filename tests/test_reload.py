"""The configuration while the processes run: taken or refused as a whole, and nothing that is in hand is dropped or decided anew.

Most of it with one real `fourview serve`: each test leaves it as it found it. What needs no process is below.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import sqlalchemy as sa
from fourview_process import SIMULATED_CARD, FourviewProcess
from mammograms_made import uid
from ports import free_port
from processes import descendants, kill_dead
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from stepped_store import exam
from test_alerts import LIMITS

from listener import answering, parts, reload
from listener.config import Config, ConfigErrors, load
from listener.handed import Handed, Offer
from listener.reload import RESTART, Current, as_started, checked_by, digest_of
from listener.status import configuration_notices, in_words, status
from listener.users import new_token
from pipeline import work
from pipeline.figures import Figures
from pipeline.model import ModelError
from store.acts import Acts
from store.alerts import AlertKind, causes
from store.claims import Claims
from store.condition import Condition, Facts, Process
from store.database import DatabaseAway, write_engine
from store.pauses import Paused, Pauses
from store.study import Policy

ROLES = ("receive", "work", "web")
HOLDING = {'name = "all mammograms"': 'name = "look at all"', 'action = "analyse"': 'action = "hold"'}


class Site:
    """A running `fourview serve` whose configuration the tests change."""

    def __init__(self, ours: FourviewProcess) -> None:
        self.ours = ours
        self.original = ours.config.read_text()
        self.engine = write_engine(ours.database)
        self.condition = Condition(self.engine)

    def processes(self) -> dict[str, Process]:
        return {one.role: one for one in self.condition.processes() if one.alive}

    def pids(self) -> dict[str, list[int]]:
        assert self.ours.process is not None
        return {role: sorted(pids) for role, pids in descendants(self.ours.process.pid).items() if role in ROLES}

    def write(self, changes: Mapping[str, str], more: str = "") -> None:
        """The configuration as it was at the start, with these words in place of those."""
        text = self.original
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        beside = self.ours.config.with_suffix(".new")
        beside.write_text(text + more)
        beside.replace(self.ours.config)

    def hang_up(self) -> None:
        assert self.ours.process is not None
        self.ours.process.send_signal(signal.SIGHUP)

    def everybody(self, complaint: str, condition: Callable[[Any], bool]) -> None:
        """Wait until it is so of the configuration of each role."""

        def so() -> bool:
            found = self.processes()
            return set(found) == set(ROLES) and all(one.configured is not None and condition(one.configured) for one in found.values())

        self.ours.wait_for(so, f"{complaint}: {self.processes()}", 180)

    def take(self, changes: Mapping[str, str], more: str = "") -> str:
        """Write it, SIGHUP, and wait until every process works by it; its hash."""
        self.write(changes, more)
        self.hang_up()
        wanted = digest_of(load(self.ours.config, {}))
        self.everybody("it is not taken", lambda one: one.hash == wanted and not one.complaints)
        return wanted

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.ours.url}{path}", timeout=30, trust_env=False, **options)

    def metric(self, name: str) -> set[float]:
        """The values of the samples of this name, of all processes."""
        lines = self.get("/metrics").text.splitlines()
        return {float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    ours = FourviewProcess(
        tmp_path_factory.mktemp("fourview"),
        dicom_port=free_port(),
        http_port=free_port(),
        pacs_port=free_port(),
        pacs_url="http://127.0.0.1:1",
        study='wait_for_retake_seconds = 0\nreconcile = "off"',
    )
    try:
        yield Site(ours.start(300))
    finally:
        ours.stop()


@pytest.fixture
def site(served: Site) -> Site:
    """As it was at the start."""
    served.take({})
    return served


class Sender:
    """One association, kept open."""

    def __init__(self, port: int, ae_title: str = "ORTHANC") -> None:
        ae = AE(ae_title=ae_title)
        ae.add_requested_context(exam()[0].SOPClassUID, ExplicitVRLittleEndian)
        self.assoc = ae.associate("127.0.0.1", port, ae_title="FOURVIEW")

    def store(self, *images: Dataset) -> None:
        assert [self.assoc.send_c_store(ds).Status for ds in images] == [0x0000] * len(images)


def test_an_open_association_goes_on_and_only_what_comes_after_follows_the_new_rule(site: Site) -> None:
    """A study whose selection was frozen ends as the rule of then says; the same association brings one that the new rule holds."""
    before = site.pids()
    sender = Sender(site.ours.dicom_port)
    pauses = Pauses(site.engine)
    pauses.pause(Paused.ANALYSING, person="anna")
    sender.store(*exam(study="in hand"))
    site.ours.wait_for_state(uid("in hand"), "analysing")
    stranger = Sender(site.ours.dicom_port, "STRANGER")
    assert sender.assoc.is_established and stranger.assoc.is_established
    site.write({**HOLDING, "[dicom]\n": '[dicom]\naccept_from = ["ORTHANC"]\n'})
    answers = json.loads(site.ours.run("config", "reload", "--reason", "a new rule", "--json"))
    assert [(one["process"].split(":")[1], one["outcome"]) for one in answers] == [(role, "taken") for role in ("receive", "web", "work")]
    assert {one["hash"] for one in answers} == {digest_of(load(site.ours.config, {}))}
    pauses.resume(Paused.ANALYSING, person="anna")
    old = site.ours.wait_for_state(uid("in hand"), "analysed")
    sender.store(*exam(study="after"))
    new = site.ours.wait_for_state(uid("after"), "held")
    stranger.store(exam(study="after")[0])
    assert Sender(site.ours.dicom_port, "STRANGER").assoc.is_rejected, "who came before goes on, and comes no more"
    sender.assoc.release()
    stranger.assoc.release()
    assert (old["rule"]["name"], old["rule"]["action"]) == ("all mammograms", "analyse")
    assert (new["rule"]["name"], new["rule"]["action"]) == ("look at all", "hold")
    assert {one["destination"] for one in old["deliveries"]} == {"orthanc"}
    assert site.get("/api/v1/rules").json()["rules"][0]["name"] == "look at all"
    assert site.pids() == before, "no process was started anew"
    [act] = [one for one in Acts(site.engine).listing(days=1) if one["what"] == "config reload"]
    assert act["why"] == "a new rule"


def test_a_broken_file_is_refused_and_the_one_before_stays_also_for_a_worker_that_starts_anew(site: Site) -> None:
    in_force = site.processes()["work"].configured
    assert in_force is not None
    site.write({'action = "analyse"': 'action = "analyze"', 'ae_title = "ORTHANC"': 'ae_title = "FAR TOO LONG FOR A TITLE"'})
    site.hang_up()
    site.everybody("it is not refused", lambda one: len(one.complaints) == 2 and one.hash == in_force.hash)
    line = next(number for number, text in enumerate(site.ours.config.read_text().splitlines(), 1) if text.startswith("action"))
    ready = site.get("/readyz")
    assert ready.status_code == 200 and ready.json()["ready"] is True
    assert ready.json()["notices"] == ["3 processes refuse the configuration file and work on with the one before it: `fourview status`"]
    assert site.metric("fourview_config_refused{") == {1} and min(site.metric('fourview_config_reloads_total{outcome="refused"')) >= 1
    told = site.get("/api/v1/status").json()
    assert "is refused by" in str(told["troubles"]) and all(
        f"config.toml:{line}: rule.action" in str(one["configuration"]["complaints"]) for one in told["processes"]
    )
    log = site.ours.log.read_text()
    assert "configuration refused" in log and f"config.toml:{line}: rule.action" in log
    assert f"config.toml:{line}: rule.action" in site.ours.run("config", "reload", code=2), "a command reads the file, which is broken"

    [worker] = site.pids()["work"]
    killed_at = datetime.now(UTC)
    kill_dead(worker)

    def another() -> bool:
        found = site.processes().get("work")
        return found is not None and found.started_at is not None and found.started_at > killed_at

    site.ours.wait_for(another, "the worker does not come back", 120)
    site.everybody("it starts with what the others have", lambda one: len(one.complaints) == 2 and one.hash == in_force.hash)
    site.ours.send(exam(study="meanwhile"))
    assert site.ours.wait_for_state(uid("meanwhile"), "analysed")["rule"]["name"] == "all mammograms"

    site.take(HOLDING)
    assert site.get("/readyz").json()["notices"] == [] and site.metric("fourview_config_refused{") == {0}
    assert not [one for one in site.get("/api/v1/status").json()["troubles"] if "configuration" in one["text"]]


def test_a_hundred_signals_do_no_harm(site: Site) -> None:
    before = site.pids()
    sender = Sender(site.ours.dicom_port)
    for number in range(100):
        if number % 10 == 0:
            site.write(HOLDING if number % 20 else {})
        site.hang_up()
        if number % 25 == 0:
            sender.store(*exam(study=f"storm {number}"))
    wanted = digest_of(load(site.ours.config, {}))
    site.everybody("the last one is not taken", lambda one: one.hash == wanted and not one.complaints)
    sender.assoc.release()
    studies = [uid(f"storm {number}") for number in range(0, 100, 25)]
    site.ours.wait_for(lambda: {site.ours.show(one)["state"] for one in studies} <= {"analysed", "held"}, "a study is lost")
    assert site.pids() == before


def test_what_needs_a_restart_waits_for_it_and_the_rest_is_taken(site: Site) -> None:
    """A receiver that dies meanwhile listens again where the others of its service do."""
    other = free_port()
    site.write({**HOLDING, f"[dicom]\nport = {site.ours.dicom_port}": f"[dicom]\nport = {other}"})
    site.hang_up()
    waits = f"dicom.port: needs a restart; until then it stays {site.ours.dicom_port}"
    site.everybody("it is not said", lambda one: len(one.waiting) == 1 and waits in one.waiting[0] and one.outcome == "taken")
    assert str(site.get("/api/v1/status").json()["processes"]).count(waits) == 3 and waits in site.ours.log.read_text()
    [receiver] = site.pids()["receive"]
    kill_dead(receiver)
    site.ours.wait_for(lambda: site.pids().get("receive", [receiver]) != [receiver], "the receiver does not come back")

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", site.ours.dicom_port)) == 0

    site.ours.wait_for(listens, "nobody listens where they did")
    site.ours.send(exam(study="same port"))
    assert site.ours.wait_for_state(uid("same port"), "held")["rule"]["name"] == "look at all"


def test_users_and_their_tokens_count_at_once_and_the_web_process_stays(site: Site) -> None:
    before = site.pids()["web"]
    token, line = new_token()
    second, second_line = new_token()
    tokens = site.ours.folder / "kim.tokens"
    tokens.write_text(f"{line}\n")
    user = '[[user]]\nname = "kim"\nrole = "viewer"\ntoken_file = "kim.tokens"\n'
    assert site.get("/api/v1/status").status_code == 200
    site.take({}, user)
    with httpx.Client(base_url=site.ours.url, trust_env=False) as client:
        assert client.get("/api/v1/status").status_code == 401
        assert client.get("/api/v1/status", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        tokens.write_text(f"{second_line}\n")
        site.hang_up()
        given = {"Authorization": f"Bearer {second}"}
        site.ours.wait_for(lambda: client.get("/api/v1/status", headers=given).status_code == 200, "the new token is not known")
        assert client.get("/api/v1/status", headers={"Authorization": f"Bearer {token}"}).status_code == 401
        site.take({"[http]": "[http]\nallow_unauthenticated = true"})
        assert client.get("/api/v1/status").status_code == 200
    assert site.pids()["web"] == before


def test_a_file_that_is_replaced_is_seen_when_that_is_switched_on(site: Site) -> None:
    watching = {'timezone = "Europe/London"': 'timezone = "Europe/London"\nreload_on_change = true'}
    site.take(watching)
    site.write({**watching, **HOLDING})  # by rename, and nobody is told
    wanted = digest_of(load(site.ours.config, {}))
    site.everybody("the change is not seen", lambda one: one.hash == wanted)
    site.write({**watching, "[model]": "[modl]"})
    site.everybody("the mistake is not seen", lambda one: bool(one.complaints) and one.hash == wanted)


# ------------------------------------------------------------------------------------------------------- without a process

TEXT = """
[store]
database = "sqlite:///fourview.db"
[http]
host = "{host}"
[study]
wait_for_retake_seconds = {wait}
[model]
card = "card.toml"
[[rule]]
name = "all"
when = 'true'
action = "hold"
"""
USER = """[[user]]
name = "kim"
role = "viewer"
token_file = "tokens"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(TEXT.format(host="127.0.0.1", wait=60))
    (tmp_path / "tokens").write_text(f"{new_token()[1]}\n")
    (tmp_path / "card.toml").write_text(SIMULATED_CARD)
    return path


def write(path: Path, *, wait: int = 60, host: str = "127.0.0.1", more: str = "") -> str:
    text = TEXT.format(host=host, wait=wait) + more
    path.write_text(text)
    return text


def test_every_key_that_waits_exists_and_stays_as_it_was(file: Path) -> None:
    started = load(file, {})
    text = write(file, wait=5, more="[dicom]\nae_title = 'OTHER'\nport = 104\nreceivers = 3\nstrict = true\n[work]\nworkers = 4\n")
    config, waiting = as_started(started, load(file, {}), text)
    assert (config.dicom.port, config.dicom.ae_title, config.dicom.receivers, config.work.workers) == (11112, "FOURVIEW", 1, 1)
    assert config.dicom.strict and config.study.wait_for_retake_seconds == 5
    lines = text.splitlines()
    expected = (
        ("ae_title = 'OTHER'", "dicom.ae_title", "'FOURVIEW'"),
        ("port = 104", "dicom.port", "11112"),
        ("receivers = 3", "dicom.receivers", "1"),
        ("workers = 4", "work.workers", "1"),
    )
    assert list(waiting) == [
        f"{file}:{lines.index(written) + 1}: {key}: needs a restart; until then it stays {stays}" for written, key, stays in expected
    ]
    for table, keys in RESTART.items():
        assert all(hasattr(getattr(started, table), key) for key in keys)


def test_the_address_of_a_database_is_not_told(file: Path) -> None:
    started = load(file, {"FOURVIEW_STORE__DATABASE": "postgresql+psycopg://me:SECRET@db/one"})
    _, [waiting] = as_started(started, load(file, {}), file.read_text())
    assert "store.database: needs a restart" in waiting and "SECRET" not in waiting and "db/one" not in waiting


def test_an_address_that_stays_open_is_not_left_without_a_login(file: Path) -> None:
    """From 0.0.0.0 with users to loopback without: each is right, and what would come of it until the restart is not."""
    write(file, host="0.0.0.0", more=USER)
    current = Current(file, {})
    write(file)
    current.reload()
    [complaint] = current.standing.complaints
    assert "http.host: needs a restart" in complaint and "without a password" in complaint
    assert current.config.users and current.standing.outcome == "refused"
    write(file, more=USER)
    current.reload()
    assert current.standing.complaints == () and "http.host: needs a restart" in current.standing.waiting[0]


def test_the_last_user_is_not_lost_by_a_reload(file: Path) -> None:
    """A file that was cut off before its last tables is valid; so the door is opened by a restart, or in so many words."""
    write(file, more=USER)
    current = Current(file, {})
    write(file)
    current.reload()
    [complaint] = current.standing.complaints
    assert current.config.users and "user: nobody would have to log in" in complaint and "restart" in complaint
    write(file, host='127.0.0.1"\nallow_unauthenticated = true #')
    current.reload()
    assert current.standing.outcome == "taken" and not current.config.users


def test_hosts_that_decide_alike_have_one_hash(file: Path, tmp_path: Path) -> None:
    there = tmp_path / "elsewhere" / "config.toml"
    there.parent.mkdir()
    there.write_text(file.read_text() + "[dicom]\nport = 104\n[work]\nworkers = 8\n")
    here, other = digest_of(load(file, {})), digest_of(load(there, {}))
    assert here == other and len(here) == 12
    there.write_text(file.read_text().replace("'true'", "'Modality == \"MG\"'"))
    assert digest_of(load(there, {})) != here
    pacs = '[[pacs]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 104\npassword_file = "password"\nby_hand = true\n'
    (file.parent / "password").write_text("guess me")
    write(file, more=pacs)
    with_password = load(file, {})
    (file.parent / "password").write_text("another")
    assert load(file, {}) != with_password and digest_of(load(file, {})) == digest_of(with_password)


def test_what_cannot_be_made_is_refused_and_nothing_changes(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    current = Current(file, {})
    before = current.standing
    problems: list[Exception] = [ModelError("card.toml: no such model"), RuntimeError("patient SECRET")]
    put_into_force: list[float] = []

    def prepare(config: Any) -> Callable[[], None]:
        if problems:
            raise problems.pop(0)
        return lambda: put_into_force.append(config.study.wait_for_retake_seconds)

    stopped = threading.Event()
    stopped.set()
    current.watch(stopped, prepare)
    write(file, wait=5)
    current.reload()
    assert current.standing.complaints == (f"{file}: card.toml: no such model",) and current.config is before.config
    current.reload()
    assert current.standing.complaints == (f"{file}: unexpected RuntimeError; the log of the process says where",)
    assert put_into_force == []
    current.reload()
    assert current.standing.outcome == "taken" and put_into_force == [5] and current.config.study.wait_for_retake_seconds == 5
    current.reload()
    assert current.standing.outcome == "unchanged" and put_into_force == [5]


def test_a_database_that_is_away_puts_it_off_and_blames_nobody(file: Path) -> None:
    current = Current(file, {})
    away = [True]
    taken = threading.Event()

    def prepare(_: Any) -> Callable[[], None]:
        if away.pop():
            away.append(False)
            raise DatabaseAway("SELECT", None, Exception("away"))
        return taken.set

    stopped = threading.Event()
    current.watch(stopped, prepare)
    write(file, wait=5)
    current.ask()
    assert taken.wait(30), "it is tried again by itself"
    stopped.set()
    assert current.standing.complaints == () and current.config.study.wait_for_retake_seconds == 5


def test_half_a_file_is_not_looked_at(file: Path) -> None:
    """A change counts once it has stood for a whole poll; without the key nothing is looked at."""
    current = Current(file, {})
    write(file, wait=5)
    assert [current._was_changed() for _ in range(3)] == [False] * 3
    file.write_text(file.read_text() + "[site]\nreload_on_change = true\n")
    current.reload()
    assert not current._was_changed()
    whole = file.read_text().replace("= 5", "= 7")
    for half in (whole[:20], whole[:50], ""):
        file.write_text(half)
        assert not current._was_changed()
    file.write_text(whole)
    assert not current._was_changed() and current._was_changed()
    current.reload()
    assert current.config.study.wait_for_retake_seconds == 7
    assert not any(current._was_changed() for _ in range(3))
    file.unlink()
    assert not current._was_changed() and current._was_changed()
    current.reload()
    assert "no such file" in current.standing.complaints[0]
    assert not any(current._was_changed() for _ in range(3)), "it was said"


def test_children_work_by_what_is_handed_to_them(file: Path) -> None:
    """Not by the file: what their supervisor refuses they refuse, and one that starts later starts with what the others have."""
    parent = Current(file, {})
    handed = parent.hand_on()
    child = Current(file, {}, Handed(handed.descriptor))
    write(file, wait=5, more="[dicom]\nport = 104\n")
    child.reload()
    assert child.standing.outcome == "unchanged" and child.config.study.wait_for_retake_seconds == 60
    parent.reload()
    assert handed.pokes == 1
    child.reload()
    assert child.standing.outcome == "taken" and child.config.study.wait_for_retake_seconds == 5 and child.config.dicom.port == 11112
    file.write_text("[dicom")
    parent.reload()
    child.reload()
    assert child.standing.outcome == "refused" and child.standing.complaints == parent.standing.complaints
    late = Current(file, {}, Handed(handed.descriptor))
    assert late.standing.complaints == parent.standing.complaints and late.standing.hash == child.standing.hash
    assert late.config == child.config and late.standing.waiting == child.standing.waiting
    parent.reload()
    assert handed.pokes == 3
    child.reload()
    assert child.standing.outcome == "refused", "who asks again is told again"
    for wait in (6, 7, 8):
        write(file, wait=wait)
        parent.reload()
        for one in (child, late):
            one.reload()
            assert one.standing.complaints == () and one.config.study.wait_for_retake_seconds == wait and one.standing.waiting == ()
    os.close(handed.descriptor)


def test_a_child_that_could_not_take_it_tries_again_when_it_is_poked(file: Path) -> None:
    parent = Current(file, {})
    handed = parent.hand_on()
    child = Current(file, {}, Handed(handed.descriptor))
    usable = [False]

    def check(_: Any) -> None:
        if not usable[0]:
            raise ModelError("no weights")

    stopped = threading.Event()
    stopped.set()
    child.watch(stopped, checked_by(check))
    write(file, wait=5)
    parent.reload()
    child.reload()
    assert child.standing.outcome == "refused" and parent.standing.outcome == "taken"
    usable[0] = True
    parent.reload()
    child.reload()
    assert child.standing.outcome == "taken" and child.standing.complaints == ()
    os.close(handed.descriptor)


def test_what_is_being_written_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    handed = Handed.new()
    handed.write(Offer(number=1, started="a", text="x" * 5000))
    whole = os.pread(handed.descriptor, 10_000, 0)
    handed.write(Offer(number=2, started="a", text="short", complaints=("one",)))
    second = os.pread(handed.descriptor, 10_000, 0)
    os.pwrite(handed.descriptor, whole[:40] + second[40:60], 0)  # the head of one, and parts of another
    monkeypatch.setattr(
        "listener.handed.time.sleep", lambda _: handed.write(Offer(number=3, started="a", text="in the end", complaints=("one",)))
    )
    assert handed.read() == Offer(number=3, started="a", text="in the end", complaints=("one",))
    os.close(handed.descriptor)


def test_who_works_goes_on_with_what_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = SimpleNamespace(process="old"), SimpleNamespace(process="new")
    worker = object.__new__(work.Worker)
    monkeypatch.setattr(work, "_workshop", None)
    worker.work_in(old)  # type: ignore[arg-type]
    started: list[str] = []
    monkeypatch.setattr(work.DBOS, "start_workflow", lambda _, argument: started.append(argument))
    work._start(print, "study:1.2.3:1:abc", "1.2.3")
    worker.work_in(new)  # type: ignore[arg-type]
    work._start(print, "study:1.2.4:1:abc", "1.2.4")
    try:
        assert work._here("study:1.2.3:1:abc") is old and work._here("study:1.2.4:1:abc") is new
        monkeypatch.setattr(work.DBOS, "workflow_id", "study:1.2.3:1:abc")
        with work._noted() as mine:
            assert work._here(mine) is old, "from its look at the study to its report"
        assert work._here(mine) is new
    finally:
        work._running.clear()


# ---------------------------------------------------------------------------------------------------------- of several hosts


def test_each_process_answers_by_its_lease_and_hosts_that_differ_are_told(file: Path, tmp_path: Path, engine: sa.Engine) -> None:
    there = tmp_path / "there" / "config.toml"
    there.parent.mkdir()
    there.write_text(file.read_text())
    now = datetime.now(UTC)
    clock = [now]
    claims, condition = Claims(engine, clock=lambda _: clock[0]), Condition(engine)
    hosts = {"a": Current(file, {}), "b": Current(there, {})}
    figures = {name: Figures() for name in hosts}
    parts: dict[str, tuple[Any, ...]] = {name: (claims, f"{name}:work:0", "work", figures[name]) for name in hosts}

    def beat() -> dict[str, Any]:
        for name, current in hosts.items():
            current.beat(*parts[name])
        return {one.process[0]: one.configured for one in condition.processes()}

    def facts() -> Facts:
        return condition.facts()

    assert {one.hash for one in beat().values()} == {hosts["a"].standing.hash}
    assert configuration_notices(condition.processes()) == []
    claims.beat("old:work:0", "work")  # of a release that says nothing
    write(file, wait=5)
    assert claims.ask_to_reload("r1") == ["a:work:0", "b:work:0", "old:work:0"]
    beat()
    for current in hosts.values():
        assert not current._asked.empty(), "the beat has seen the request"
        current.reload()
    found = {one.process[0]: one.configured for one in condition.processes()}
    assert [(found[name].outcome, found[name].answered) for name in "ab"] == [("taken", "r1"), ("unchanged", "r1")]
    assert found["o"] is None and found["a"].hash != found["b"].hash
    assert figures["a"].snapshot() == {"config_reloads|taken": 1}
    assert [one for one in causes(facts(), LIMITS, None) if one.kind is AlertKind.CONFIGURATION] == [], "b may follow at once"
    for current in hosts.values():
        current._standing = reload.replace(current._standing, since=current._standing.since - 120)
    beat()
    [told] = [one for one in causes(facts(), LIMITS, None) if one.kind is AlertKind.CONFIGURATION]
    assert told.cause == "configuration:differs" and "a:work:0" in told.text and "b:work:0" in told.text
    assert told.command == "fourview config reload"
    assert configuration_notices(condition.processes()) == ["processes work by different configurations: `fourview status`"]

    there.write_text("[dicom]\nport = 0\n")
    hosts["b"].reload()
    [told] = [one for one in causes(facts(), LIMITS, None) if one.kind is AlertKind.CONFIGURATION]
    assert told.cause == "configuration:refused" and "b:work:0" in told.text and f"{there}:" in told.text
    screen = in_words(status(facts, None, LIMITS), ZoneInfo("Europe/London"))
    assert f"  refused   {there}:2: dicom.port" in screen and screen.count("Config      ") == 2
    there.write_text(file.read_text())
    hosts["b"].reload()
    assert [one for one in causes(facts(), LIMITS, None) if one.kind is AlertKind.CONFIGURATION] == []


def test_a_process_that_ended_is_not_asked(engine: sa.Engine) -> None:
    clock = [datetime.now(UTC) - timedelta(minutes=1)]
    claims = Claims(engine, clock=lambda _: clock[0])
    claims.beat("dead:work:0", "work")
    clock[0] += timedelta(minutes=1)
    assert claims.beat("here:work:0", "work") == ""
    assert claims.ask_to_reload("r1") == ["here:work:0"]
    assert claims.beat("here:work:0", "work") == "r1"
    assert claims.beat("dead:work:0", "work") == ""


def test_the_start_of_a_service_says_what_is_wrong(file: Path) -> None:
    file.write_text("[dicom")
    with pytest.raises(ConfigErrors):
        Current(file, {})


def test_what_the_web_process_was_before_does_not_pile_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site's card is that of the start, which the first configuration reads; those between are asked for nothing."""
    monkeypatch.setattr(answering, "keep_what_is_here", lambda: None)
    parts.upgrade_database(load(file, {}))
    web = answering.Answering(load(file, {}), Figures(), threading.Event(), ready=list, notices=list)
    for wait in (1, 2, 3):
        write(file, wait=wait)
        web.prepare(load(file, {}))()
    asked, of = [], parts.policy

    def policy(config: Config, **how: Any) -> Policy:
        asked.append(config.study.wait_for_retake_seconds)
        return of(config, **how)

    monkeypatch.setattr(parts, "policy", policy)
    assert web._made.policy().wait_for_retake_seconds == 3 and sorted(asked) == [3, 60]
