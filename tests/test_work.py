"""The workflows on the real engine, on SQLite and PostgreSQL: what happens when a worker dies, freezes, is stopped, or the disk is away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fourview_process import PROJECT, SIMULATED_CARD
from mammograms_made import mammogram, uid

from listener.keeping import keep_file
from listener.keys import check_uids, read_keys
from listener.serve import CannotServe, exclusive, first_free
from store import tables
from store.archive import Archive
from store.crashes import CRASHES
from store.database import engine_database, read_engine, write_engine
from store.files import Files
from store.search import Search
from store.study import HANGING_ORDER, View


class Site:
    """A data folder and a database, workers on them, and images put into them as the receiver does."""

    def __init__(self, folder: Path, database: str, sleep_seconds: float) -> None:
        self.folder = folder
        self.database = database
        (folder / "card.toml").write_text(SIMULATED_CARD + f"sleep_seconds = {sleep_seconds}\n")
        (folder / "config.toml").write_text(f"""
[store]
database = "{database}"
[study]
wait_for_retake_seconds = 0
[model]
card = "card.toml"
allow_untrained = true
[[rule]]
name = "all"
when = 'Modality == "MG"'
action = "analyse"
""")
        self.workers: list[subprocess.Popen[bytes]] = []
        self.store = write_engine(database)

    def fourview(self, host: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """`fourview ARGUMENTS` as if on `host`; what it says stands in HOST.log."""
        program = [sys.executable, str(PROJECT / "tests" / "worker_process.py"), host, "--config", str(self.folder / "config.toml")]
        path = f"{environment.pop('first', PROJECT)}{os.pathsep}{PROJECT}"
        with (self.folder / f"{host}.log").open("a") as log:
            process = subprocess.Popen(
                [*program, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": path, **environment},
            )
        self.workers.append(process)
        return process

    def worker(self, host: str) -> subprocess.Popen[bytes]:
        """One worker process without a supervisor, ready to work."""
        before = self.leases().get(f"{host}:work:0")
        process = self.fourview(host, "work", "--child")
        self.until(lambda: self.leases().get(f"{host}:work:0") not in (None, before) or process.poll(), f"{host} does not get ready")
        assert process.poll() is None, self.logs()
        return process

    def leases(self) -> dict[str, Any]:
        return {row.process: row.beat_at for row in self.rows(sa.select(tables.lease))}

    def rows(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        with self.store.begin() as connection:
            return list(connection.execute(query).all())

    def scores(self) -> list[sa.Row[Any]]:
        return self.rows(sa.select(tables.score).order_by(tables.score.c.id))

    def engine_says(self, statement: str, **values: Any) -> list[sa.Row[Any]]:
        """A statement on the workflow engine's own tables."""
        engine = sa.create_engine(engine_database(self.database), connect_args={"timeout": 30} if "sqlite" in self.database else {})
        prefix = "" if "sqlite" in self.database else "dbos."
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement.replace("{}", prefix)), values)
            found = list(result.all()) if result.returns_rows else []
        engine.dispose()
        return found

    @property
    def files(self) -> Files:
        return Files(self.folder / "data" / "files")

    def receive(self, study: str) -> None:
        archive = Archive(self.store)
        for view in HANGING_ORDER:
            received = self.files.incoming / "received"
            mammogram(view, study=study).save_as(received, enforce_file_format=True)
            keys = read_keys(received)
            check_uids(keys)
            keep_file(keys, received, "", archive=archive, files=self.files, calling_ae_title="ROOM1", called_ae_title="FOURVIEW")

    def study(self, study: str) -> dict[str, Any]:
        return Search(read_engine(self.database)).study(uid(study))

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))

    def until(self, condition: Callable[[], Any], complaint: str, seconds: float = 240) -> Any:
        give_up_at = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < give_up_at, f"{complaint}\n{self.logs()}"
            time.sleep(0.1)
        return found

    def wait_for(self, study: str, condition: Callable[[dict[str, Any]], bool], seconds: float = 240) -> dict[str, Any]:
        self.until(lambda: condition(self.study(study)), f"{study}: {self.study(study)['state']}", seconds)
        return self.study(study)

    def wait_for_result(self, study: str, outcome: str = "COMPLETE") -> None:
        """The study was analysed once, with this outcome, and each of its images was read once."""
        found = self.wait_for(study, lambda found: found["state"] == "analysed")
        assert [run["outcome"] for run in found["runs"]] == [outcome]
        versions = self.rows(sa.select(tables.version.c.number).where(tables.version.c.study_instance_uid == uid(study)))
        scores = self.rows(sa.select(tables.score.c.instance_id).where(tables.score.c.study_instance_uid == uid(study)))
        assert [row.number for row in versions] == [1] and len(scores) == 4

    def begun(self) -> bool:
        return any(row.begun_by for row in self.scores())


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Callable[[float], Site]]:
    made: list[Site] = []

    def make(sleep_seconds: float) -> Site:
        made.append(Site(tmp_path, database_url, sleep_seconds))
        return made[-1]

    yield make
    for one in made:
        for worker in one.workers:
            worker.kill()
            worker.wait()
            assert worker.stdin is not None
            worker.stdin.close()
        one.store.dispose()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def freeze(here: Site, process: subprocess.Popen[bytes]) -> None:
    """Between two transactions: in the middle of one it would keep everybody from SQLite, and be no other host's worker."""
    while True:
        process.send_signal(signal.SIGSTOP)
        try:
            with here.store.begin():
                return
        except sa.exc.OperationalError:
            process.send_signal(signal.SIGCONT)
            time.sleep(0.05)


def test_a_dead_and_a_frozen_hosts_work_is_taken_over_by_another(site: Callable[[float], Site]) -> None:
    """A recreated container has another host name: the engine itself would wait for the old one for ever. A frozen one wakes up later."""
    here = site(3.0)
    dead, frozen = here.worker("dead"), here.worker("frozen")
    here.receive("taken over")
    here.until(lambda: len({row.begun_by for row in here.scores() if row.begun_by}) == 2, "both should read")
    kill(dead)
    freeze(here, frozen)
    assert here.study("taken over")["state"] in ("collecting", "analysing")
    here.worker("living")
    here.wait_for_result("taken over")
    scored = [(row.id, row.scored_at) for row in here.scores()]
    frozen.send_signal(signal.SIGCONT)
    asleep = here.leases()["frozen:work:0"]
    here.until(lambda: here.leases()["frozen:work:0"] > asleep, "it should live again")
    here.receive("afterwards")
    here.wait_for_result("afterwards")
    here.wait_for_result("taken over")
    assert [(row.id, row.scored_at) for row in here.scores()[:4]] == scored, "what the frozen one read came too late"
    assert {row.crashes for row in here.scores()} == {0}
    assert "Traceback" not in (here.folder / "frozen.log").read_text().replace("DBOSWorkflowCancelledError", "")


def test_the_same_worker_goes_on_after_kill_9_and_after_an_upgrade(site: Callable[[float], Site]) -> None:
    here = site(1.0)
    first = here.worker("host")
    here.receive("killed")
    here.until(lambda: any(row.state == "scored" for row in here.scores()), "nothing is read")
    kill(first)
    second = here.worker("host")
    here.wait_for_result("killed")
    # Work that an older release began: the engine alone would neither recover nor take it from the queue.
    here.receive("upgraded")
    here.until(here.begun, "nothing is read")
    kill(second)
    here.engine_says("UPDATE {}workflow_status SET application_version = 'fourview-0' WHERE status IN ('PENDING', 'ENQUEUED')")
    assert here.engine_says("SELECT 1 FROM {}workflow_status WHERE application_version = 'fourview-0'")
    here.worker("host")
    here.wait_for_result("upgraded")


def test_a_poisoned_view_fails_after_three_deaths_and_blocks_nobody(site: Callable[[float], Site]) -> None:
    here = site(0.0)
    poisoned = mammogram(View.R_MLO, study="poisoned").SOPInstanceUID
    here.receive("poisoned")
    here.receive("innocent")
    here.fourview("host", "work", first=str(PROJECT / "tests" / "poison"), POISONED_UID=poisoned)
    here.wait_for_result("innocent")
    here.wait_for_result("poisoned", "PARTIAL")
    crashes = {
        row.sop_instance_uid: (row.state, row.crashes)
        for row in here.rows(sa.select(tables.instance.c.sop_instance_uid, tables.score.c.state, tables.score.c.crashes).join(tables.score))
    }
    assert crashes.pop(poisoned) == ("failed", CRASHES)
    assert {state for state, _ in crashes.values()} == {"scored"} and max(count for _, count in crashes.values()) <= 1
    ended = [json.loads(line) for line in (here.folder / "host.log").read_text().splitlines() if "process ended" in line]
    assert [one["code"] for one in ended] == [str(-signal.SIGSEGV)] * CRASHES


def test_killing_the_whole_service_again_and_again_fails_nothing(site: Callable[[float], Site]) -> None:
    here = site(1.0)
    here.receive("innocent")
    for _ in range(5 if "sqlite" in here.database else 2):
        supervisor = here.fourview("host", "work")
        here.until(lambda: {row.state for row in here.scores()} == {"scored"} or here.begun(), "nothing is read")
        kill(supervisor)
    assert {row.crashes for row in here.scores()} == {0}
    here.fourview("host", "work")
    here.wait_for_result("innocent")
    assert {row.crashes for row in here.scores()} == {0}


def test_a_worker_that_is_told_to_stop_hands_back_what_it_does_not_finish(site: Callable[[float], Site]) -> None:
    here = site(15.0)
    here.receive("stopped")
    supervisor = here.fourview("host", "work")
    here.until(lambda: sum(bool(row.begun_by) for row in here.scores()) == 2, "two should be read at once")
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(30) == 0
    left = here.scores()
    assert {(row.state, row.begun_by, row.crashes) for row in left} == {("waiting", None, 0)}
    assert {(row.workflow_id, row.attempt) for row in left} == {(None, 0)}, "all of it is free at once, begun or not"
    assert here.leases() == {}
    assert "did not stop in time" not in here.logs()


def test_a_study_that_is_forgotten_while_it_is_read_leaves_nothing_and_stops_nobody(site: Callable[[float], Site]) -> None:
    here = site(4.0)
    here.fourview("host", "work")
    here.receive("forgotten")
    here.until(here.begun, "nothing is read")
    forgets = here.fourview("desk", "forget", uid("forgotten"), "--yes", "--json", "--reason", "asked")
    here.receive("kept")
    assert forgets.wait(60) == 0, here.logs()
    told = json.loads((here.folder / "desk.log").read_text())
    assert told[0]["images"] == 4 and told[0]["left"] == []
    here.wait_for_result("kept")
    for table in (tables.study, tables.instance, tables.score, tables.timeline):
        assert {row.study_instance_uid for row in here.rows(sa.select(table.c.study_instance_uid))} == {uid("kept")}
    linked = {name for row in here.rows(sa.select(tables.instance.c.file_name)) for name in row}
    linked |= {name for row in here.rows(sa.select(tables.score.c.preview_file, tables.score.c.heat_map_file)) for name in row}
    linked |= {name for row in here.rows(sa.select(tables.result_object.c.file_name, tables.result_object.c.png_file)) for name in row}
    assert {f"{path.parent.name}/{path.name}" for path in here.files.root.glob("??/*")} == linked - {None}
    assert not here.engine_says("SELECT 1 FROM {}workflow_status WHERE workflow_uuid LIKE :uid", uid=f"%{uid('forgotten')}%")
    assert "Traceback" not in (here.folder / "host.log").read_text(), here.logs()
    assert len(here.leases()) == 1


def test_a_spent_workflow_strands_no_row_and_tells_nothing_of_patients(site: Callable[[float], Site]) -> None:
    here = site(3.0)
    here.fourview("host", "work")
    here.receive("spent")
    here.until(lambda: sum(bool(row.workflow_id) for row in here.scores()) >= 3, "nothing is handed out")
    ids = [row.workflow_id for row in here.scores() if row.workflow_id]
    spent = "UPDATE {}workflow_status SET status = :status WHERE workflow_uuid = :id"
    here.engine_says(spent, status="CANCELLED", id=ids[0])
    here.engine_says(spent, status="MAX_RECOVERY_ATTEMPTS_EXCEEDED", id=ids[1])
    here.engine_says("DELETE FROM {}workflow_status WHERE workflow_uuid = :id", id=ids[2])
    here.wait_for_result("spent")
    assert {row.crashes for row in here.scores()} == {0}
    # An image whose claim names a workflow that never was.
    here.receive("vanished")
    here.until(lambda: len(here.scores()) == 8, "its images are not asked for")
    [living] = here.leases().values()
    row = tables.score
    never = {"workflow_id": "view:0:0:never", "claimed_at": living}
    with here.store.begin() as connection:
        connection.execute(sa.update(row).where(row.c.state == "waiting", row.c.workflow_id.is_(None)).values(**never))
    here.wait_for_result("vanished")

    patient = mammogram(View.L_CC, study="spent")
    kept = [row for name in ("status", "input", "output") for row in here.engine_says(f"SELECT * FROM {{}}workflow_{name}")]
    kept += here.engine_says("SELECT * FROM {}operation_outputs")
    assert len(kept) > 8 and patient.PatientName and patient.PatientID
    assert not [row for row in kept if str(patient.PatientName) in str(row) or patient.PatientID in str(row)]
    assert {row.serialization for row in here.engine_says("SELECT serialization FROM {}workflow_status")} == {"portable_json"}
    inputs = [json.loads(row.inputs)["positionalArgs"] for row in here.engine_says("SELECT inputs FROM {}workflow_input")]
    assert len(inputs) >= 8 and all(isinstance(argument, int) or uid("").split(".")[0] == argument.split(".")[0] for [argument] in inputs)

    lines = (here.folder / "host.log").read_text().splitlines()
    assert all(json.loads(line)["level"] for line in lines), "every line is ours"
    assert not [line for line in lines if "conductor" in line.lower() or "console" in line.lower()]


def test_two_processes_never_share_a_name(tmp_path: Path) -> None:
    """Two with one name would take each other's work for that of an earlier life."""
    with first_free(tmp_path, "work") as first, first_free(tmp_path, "work") as second:
        assert (first, second) == (0, 1)
        [lock, _] = sorted(tmp_path.glob("*work*.lock"))
        with pytest.raises(CannotServe, match=str(os.getpid())), exclusive(lock, "work"):
            pass
    with first_free(tmp_path, "work") as again:
        assert again == 0


def test_images_wait_for_a_disk_that_is_away(site: Callable[[float], Site]) -> None:
    here = site(0.0)
    here.worker("host")
    files = here.files.root
    # The headers are read, then the mount goes before the pixels are.
    here.receive("away")
    files.rename(files.with_name("unmounted"))
    time.sleep(3)
    before = here.study("away")
    assert before["runs"] == []
    assert before["state"] in ("collecting", "analysing")
    files.with_name("unmounted").rename(files)
    found = here.wait_for("away", lambda found: found["state"] == "analysed")
    assert [run["outcome"] for run in found["runs"]] == ["COMPLETE"]


def test_a_file_that_is_gone_fails_its_view_only(site: Callable[[float], Site]) -> None:
    here = site(0.0)
    here.receive("gone")
    kept = sorted(path for path in here.files.root.glob("??/*") if path.is_file())
    kept[0].unlink()
    here.worker("host")
    found = here.wait_for("gone", lambda found: found["state"] in ("analysed", "collecting") and bool(found["images"][3]["disposition"]))
    gone = here.wait_for("gone", lambda found: any("is gone" in image["disposition_reason"] for image in found["images"]))
    assert [image["disposition"] for image in gone["images"]].count("candidate") == 3
    assert found["state"] == "collecting"  # three of four: the fourth may come again
