"""Nothing acknowledged is lost and nothing is done twice: real processes are killed, stopped and flooded, then everything is counted.

The counting is `accounting.py`'s, which asks the sender, the database, the spool and Orthanc. `make torture` does more of the same.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from accounting import Rows, account
from databases import PostgresProcess, postgres_programs, run
from fourview_process import PROJECT, FourviewProcess
from killing import Sending, rehearse, sweep_orphans, wait_until_settled
from orthanc_process import OrthancProcess
from processes import descendants, kill_dead
from storescu import Sender, write_exam


@pytest.fixture
def orthanc(start_orthanc: Callable[..., OrthancProcess]) -> OrthancProcess:
    """An Orthanc that knows Fourview: it answers C-FIND to nobody else."""
    return start_orthanc(extra={"DicomModalities": {"fourview": ["FOURVIEW", "127.0.0.1", 1]}})


@pytest.fixture
def fourview(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., FourviewProcess]]:
    """Makes a Fourview that sends its results to the Orthanc it is given; not started."""
    made: list[FourviewProcess] = []

    def make(orthanc: OrthancProcess | None, **options: Any) -> FourviewProcess:
        where = (
            {"pacs_port": orthanc.dicom_port, "pacs_url": orthanc.url}
            if orthanc
            else {"pacs_port": free_port(), "pacs_url": "http://127.0.0.1:1"}
        )
        dicom_port = options.pop("dicom_port", None) or free_port()
        made.append(FourviewProcess(tmp_path / "fourview", dicom_port=dicom_port, http_port=free_port(), **where, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def storescu(needs_program: Callable[[str], str]) -> str:
    return needs_program("storescu")


def test_kill_9_of_any_process_while_studies_come_in(
    database_url: str, tmp_path: Path, orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess], storescu: str
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    ours = fourview(orthanc, database=database_url)
    found, kills, sender = rehearse(tmp_path, ours, orthanc, rounds=4, seed=seed, program=storescu, longest_wait_seconds=1.0)
    print(found, kills, sender.statuses)
    assert kills.total() == 4 and found.figures["studies"] > 0
    assert not found.faults, f"seed {seed}\n{found}"


def test_orthanc_away_for_thirty_studies_then_back_and_its_storms_cost_no_second_inference(
    tmp_path: Path, start_orthanc: Callable[..., OrthancProcess], fourview: Callable[..., FourviewProcess], storescu: str, free_port: Any
) -> None:
    """The images themselves come to Orthanc when it is back, and some of them once more: its routing script sends all of that to us, again
    and again, while results arrive there."""
    port = free_port()
    orthanc = start_orthanc(
        extra={
            "StableAge": 1,
            "OverwriteInstances": True,
            "LuaScripts": [str(PROJECT / "deploy" / "orthanc" / "stable.lua")],
            "DicomModalities": {"fourview": {"AET": "FOURVIEW", "Host": "127.0.0.1", "Port": port, "Timeout": 60}},
        }
    )
    orthanc.stop()
    ours = fourview(orthanc, dicom_port=port)
    ours.start()
    sender = Sender(storescu, port)
    exams = [write_exam(tmp_path / "outgoing", f"study {number}", rows=64, columns=64) for number in range(30)]
    for exam in exams:
        sender.send(exam)
    wait_until_settled(ours, 30, delivered=False)
    rows = Rows(ours.database)
    assert rows("SELECT state, count(*) FROM delivery GROUP BY state") == [("waiting", 60)]
    orthanc.start()
    into_orthanc = Sender(storescu, orthanc.dicom_port, called="ORTHANC")
    expected = 0
    for storm in (exams, exams[:6]):
        images = [one for exam in storm for one in exam]
        expected += len(images)
        into_orthanc.send(images)

        def stored(at_least: int = expected) -> bool:
            return ours.log.read_text().count('"outcome": "duplicate"') >= at_least

        ours.wait_for(stored, "Orthanc's script did not send everything to us again", 120)
    wait_until_settled(ours, 30)
    found = account(ours.database, ours.files, sender.answered, orthanc, killed=False)
    assert not found.faults, str(found)
    assert found.figures["scores"] == 120 and found.figures["runs"] == found.figures["versions"] == 30


def test_postgresql_stopped_and_started_in_the_middle(
    tmp_path: Path, orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess], storescu: str, free_port: Any, postgres_server: str
) -> None:
    programs = postgres_programs()
    assert programs is not None and postgres_server, "the fixture skips where there is none"
    server = PostgresProcess(programs, free_port(), synchronous_commit="on")
    try:
        server.start()
        run(server.url, "CREATE DATABASE fourview")
        ours = fourview(orthanc, database=f"{server.url}/fourview", card="sleep_seconds = 0.2")
        ours.start()
        sender = Sender(storescu, ours.dicom_port)
        with Sending(sender, tmp_path / "outgoing", pacs=orthanc, name="outage", pause_seconds=0.0) as sending:
            ours.wait_for(lambda: len(sending.sent) >= 3, "the sender does not get on")
            taken = len(sending.sent)
            server.stop()
            refused = "Refused: OutOfResources"
            ours.wait_for(lambda: sender.statuses[refused], f"C-STORE does not answer 0xA700 but {dict(sender.statuses)}")
            server.start()
            ours.wait_for(lambda: len(sending.sent) >= taken + 3, "nothing is taken after the database came back")
        wait_until_settled(ours, len(sending.sent))
        found = account(ours.database, ours.files, sender.answered, orthanc, killed=True)
        assert not found.faults, str(found)
        ours.stop()
    finally:
        server.remove()


def test_roles_start_in_any_order_also_before_their_database(
    tmp_path: Path, orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess], storescu: str, free_port: Any, postgres_server: str
) -> None:
    """Hosts come up after a power cut, the database last: each waits for it, and the page says what is missing."""
    programs = postgres_programs()
    assert programs is not None and postgres_server, "the fixture skips where there is none"
    server = PostgresProcess(programs, free_port(), synchronous_commit="on")

    def page(path: str) -> int:
        try:
            return httpx.get(f"{ours.url}{path}", timeout=15, trust_env=False).status_code
        except httpx.HTTPError:
            return 0

    try:
        server.start()
        run(server.url, "CREATE DATABASE fourview")
        ours = fourview(orthanc, database=f"{server.url}/fourview")
        ours.run("db", "upgrade")
        server.stop()
        roles = [ours.role(role, host=role) for role in ("web", "work", "receive")]
        ours.wait_for(lambda: ours.log.read_text().count("waiting for the database") >= 3, "they do not say what they wait for")
        server.start()
        ours.wait_for(lambda: page("/readyz") == 200, "they do not get ready when the database comes", 90)
        server.stop()
        assert page("/healthz") == 200 and page("/dicom-web/studies") == page("/readyz") == 503
        server.start()
        ours.wait_for(lambda: page("/readyz") == 200, "they do not get ready when the database comes back", 90)
        sender = Sender(storescu, ours.dicom_port)
        exam = write_exam(tmp_path / "outgoing", "any order")
        for one in exam:
            orthanc.upload(one.path.read_bytes())
        sender.send(exam)
        wait_until_settled(ours, 1)
        assert page("/dicom-web/studies") == 200 and all(one.poll() is None for one in roles)
        found = account(ours.database, ours.files, sender.answered, orthanc, killed=False)
        assert not found.faults, str(found)
        ours.stop()
        assert [one.returncode for one in roles] == [0, 0, 0]
    finally:
        server.remove()


def test_a_host_that_dies_for_good_is_taken_over_by_the_other(
    postgres_database: str, tmp_path: Path, fourview: Callable[..., FourviewProcess], storescu: str
) -> None:
    """Two hosts, one PostgreSQL and one folder: alpha receives and works until it is gone with half of the work in its hands."""
    ours = fourview(None, database=postgres_database, card="sleep_seconds = 0.5")
    ours.run("db", "upgrade")
    alpha = [ours.role("receive", host="alpha"), ours.role("work", host="alpha")]
    ours.role("work", host="beta")
    ours.wait_for(lambda: len(ours.living("work")) == 2 and ours.living("receive"), "the two hosts do not get ready")
    assert {name.split(":")[0] for name in ours.living("work")} == {"alpha", "beta"}
    sender = Sender(storescu, ours.dicom_port)
    for number in range(6):
        sender.send(write_exam(tmp_path / "outgoing", f"host {number}"))
    rows = Rows(ours.database)
    ours.wait_for(lambda: rows("SELECT count(*) FROM score WHERE state = 'scored'")[0][0] >= 4, "nothing is read")
    left = rows("SELECT count(*) FROM score WHERE state = 'waiting'")[0][0]
    for pid in [pid for found in descendants(*(one.pid for one in alpha)).values() for pid in found]:
        kill_dead(pid)
    began = time.monotonic()
    wait_until_settled(ours, 6, delivered=False)
    print(f"{left} of 24 images were not read when alpha died; all were {time.monotonic() - began:.0f} s later")
    assert left > 0 and ours.living("work") and {name.split(":")[0] for name in ours.living("work")} == {"beta"}
    found = account(ours.database, ours.files, sender.answered, None, killed=True)
    assert not found.faults, str(found)
    assert sweep_orphans(ours) <= 24
