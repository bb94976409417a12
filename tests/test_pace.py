"""The pace of senders and the priorities of studies: who waits behind whom, who counts, and that nothing waits for ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from mammograms_made import uid
from stepped_store import POLICY, FixedRuling, SteppedStore, exam, image

from listener.show import in_words, place_in_words
from store import ledger, queue, rows, tables
from store.alerts import AlertKind, Limits, causes
from store.condition import Condition
from store.database import database_now
from store.grouping import Release, RequestKind
from store.listing import Wanted
from store.pace import UNLIMITED, Pace
from store.queue import HOUR
from store.study import View


def send(stepped: SteppedStore, sender: str, *studies: str, origin: str = "received") -> None:
    """One image of each study, one study after the other; a worker looks at them, nothing is read."""
    for study in studies:
        stepped.receive(image(View.L_CC, study=study), sender=sender, origin=origin)
        stepped.step(1)
    stepped.work(read=False)


def standings(stepped: SteppedStore, *studies: str) -> str:
    """How each stands to its sender's pace, by the first letter; "-": it does not count."""
    return "".join(stepped.study(study)["pace"]["standing"][:1] or "-" for study in studies)


def priorities(stepped: SteppedStore, study: str) -> set[int]:
    """Of the study, and of its images that wait."""
    mine = tables.score.c.study_instance_uid == uid(study)
    scores = stepped.rows(sa.select(tables.score.c.priority).where(mine, tables.score.c.state == "waiting"))
    [of_study] = stepped.rows(sa.select(tables.study.c.priority).where(tables.study.c.study_instance_uid == uid(study)))
    return {of_study.priority, *(one.priority for one in scores)}


def read_all(stepped: SteppedStore) -> list[str]:
    """Read what waits, one image at a time; the studies in the order in which their images were handed out."""
    order = []
    while claims := stepped.scoring.claim(1):
        [task] = [stepped.scoring.task(int(one.row)) for one in claims]
        assert task is not None
        order.append(task.study_instance_uid)
        stepped.read(task.score_id)
    return order


def paced(stepped: SteppedStore, otherwise: int = 0, **per_hour: int) -> None:
    stepped.policy = replace(stepped.policy, pace=Pace(per_hour=per_hour, otherwise=otherwise))


def named(sender: str, count: int) -> list[str]:
    return [f"{sender} {number}" for number in range(count)]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> int:
    """Every so many the oldest has its turn: more often than in earnest, so that few are enough."""
    monkeypatch.setattr(rows, "TURN_OF_THE_OLDEST", 3)
    return 3


# ------------------------------------------------------------------------------------------------------------------- who waits


def test_what_is_above_the_pace_waits_behind_everything_and_says_so(stepped: SteppedStore) -> None:
    paced(stepped, ARCHIVE=2)
    send(stepped, "ARCHIVE", *named("old", 4))
    stepped.ruling = FixedRuling(priority=9)
    send(stepped, "GANTRY", "today")
    assert standings(stepped, *named("old", 4), "today") == "wwaa-"
    assert [priorities(stepped, study) for study in named("old", 4)] == [{5}, {5}, {15}, {15}]
    assert read_all(stepped) == [uid(study) for study in ("old 0", "old 1", "today", "old 2", "old 3")]
    shown = stepped.study("old 2")
    lines = [one["text"] for one in shown["timeline"]]
    said = "above the pace of its sender: ARCHIVE sent more than 2 studies in an hour; its images are read after all others"
    assert lines.count(said) == 1 and not any("above the pace" in one["text"] for one in stepped.study("old 1")["timeline"])
    assert shown["pace"] == {"standing": "above", "calling_ae_title": "ARCHIVE"}


def test_of_two_that_burst_and_a_slow_one_the_slow_one_is_read_before_the_rest_and_the_bursts_end_all_the_same(
    stepped: SteppedStore,
) -> None:
    paced(stepped, otherwise=2)
    for number in range(6):  # by turns
        for study, sender in ((f"bus {number}", "BUS"), (f"old {number}", "ARCHIVE")):
            stepped.receive(image(View.L_CC, study=study), sender=sender)
            stepped.step(1)
    send(stepped, "GANTRY", "today")
    order = read_all(stepped)
    assert len(order) == len(set(order)) == 13, "all of it is read"
    assert set(order[: order.index(uid("today"))]) == {uid(study) for study in (*named("bus", 2), *named("old", 2))}


def test_a_burst_is_read_though_urgent_images_never_end(stepped: SteppedStore, often: int) -> None:
    paced(stepped, ARCHIVE=1)
    send(stepped, "ARCHIVE", *named("old", 3))
    stepped.ruling = FixedRuling(priority=1)
    for study in ("today", "also today"):
        stepped.receive(*exam(study=study), sender="GANTRY")
    stepped.work(read=False)
    read: list[str] = []
    for _ in range(3 * often):
        [claim] = stepped.scoring.claim(1)
        task = stepped.scoring.task(int(claim.row))
        assert task is not None
        read.append(task.study_instance_uid)
        stepped.read(task.score_id)
    old = [number for number, study in enumerate(read) if study in {uid(study) for study in named("old", 3)}]
    assert old == [often - 1, 2 * often - 1, 3 * often - 1], "each in its turn, while urgent ones still wait"


def test_rules_still_order_what_is_above_the_pace(stepped: SteppedStore) -> None:
    paced(stepped, ORTHANC=1)
    send(stepped, "ORTHANC", *named("old", 3))
    stepped.ruling = FixedRuling(priority=1)
    send(stepped, "ORTHANC", "waiting patient")
    assert priorities(stepped, "waiting patient") == {11}
    assert read_all(stepped)[1] == uid("waiting patient")


# ------------------------------------------------------------------------------------------------------------------ what counts


def test_a_study_counts_once_whatever_comes_of_it_again(stepped: SteppedStore) -> None:
    """Repeated, in a second image, in a retake, in a look that changes nothing, read again on request: the third one is still within."""
    paced(stepped, GANTRY=3)
    send(stepped, "GANTRY", "one")
    for ds in (image(View.L_CC, study="one"), image(View.R_CC, study="one"), image(View.L_CC, "retake", study="one")):
        stepped.receive(ds, sender="GANTRY")
        stepped.work(read=False)
    stepped.settle()
    stepped.ask("release", study="one")
    stepped.ask("reprocess", "again", study="one")
    stepped.step(-600)
    send(stepped, "GANTRY", "two", "three", "four")
    assert standings(stepped, "one", "two", "three", "four") == "wwwa"


def test_an_hour_later_there_is_room_again_and_what_was_above_took_none(stepped: SteppedStore) -> None:
    paced(stepped, GANTRY=2)
    send(stepped, "GANTRY", *named("early", 6))
    stepped.step(3600 - 6)
    send(stepped, "GANTRY", *named("later", 4))
    assert standings(stepped, *named("early", 6)) == "wwaaaa"
    assert standings(stepped, *named("later", 4)) == "wwaa", "the first two left their hour one after the other"


def test_what_piled_up_while_no_worker_ran_counts_by_when_it_came(stepped: SteppedStore) -> None:
    paced(stepped, GANTRY=2)
    for hour in range(3):
        for number in range(3):
            stepped.receive(image(View.L_CC, study=f"{hour} {number}"), sender="GANTRY")
            stepped.step(1)
        stepped.step(3600)
    stepped.work(read=False)
    assert [standings(stepped, *(f"{hour} {number}" for number in range(3))) for hour in range(3)] == ["wwa"] * 3


def test_what_is_not_to_be_read_does_not_count(stepped: SteppedStore) -> None:
    paced(stepped, ORTHANC=1)
    for action in ("ignore", "hold"):
        stepped.ruling = FixedRuling(action=action)
        send(stepped, "ORTHANC", *named(action, 3))
    stepped.ruling = FixedRuling()
    send(stepped, "ORTHANC", "fetched", origin="fetched")
    send(stepped, "", "by http")
    send(stepped, "OTHER", "other")
    send(stepped, "ORTHANC", "first", "second")
    assert standings(stepped, *named("ignore", 3), *named("hold", 3), "fetched", "by http", "other") == "-" * 9
    assert standings(stepped, "first", "second") == "wa"


def test_a_study_from_two_senders_counts_for_the_first_of_which_an_image_is_kept(stepped: SteppedStore) -> None:
    paced(stepped, GANTRY=1, ORTHANC=1)
    stepped.receive(image(View.R_CC, study="both"), sender="ORTHANC", ignored="not for us")
    stepped.receive(image(View.L_CC, study="both"), sender="GANTRY")
    stepped.receive(image(View.L_MLO, study="both"), sender="ORTHANC")
    stepped.work(read=False)
    assert stepped.study("both")["pace"] == {"standing": "within", "calling_ae_title": "GANTRY"}
    send(stepped, "ORTHANC", "its first")
    send(stepped, "GANTRY", "its second")
    assert standings(stepped, "its first", "its second") == "wa"


@pytest.mark.parametrize(
    ("pace", "standing"), [(UNLIMITED, "-"), (Pace(per_hour={"GANTRY": 0}, otherwise=1), "-"), (Pace(otherwise=1), "w")]
)
def test_no_pace_and_a_pace_for_all(stepped: SteppedStore, pace: Pace, standing: str) -> None:
    stepped.policy = replace(POLICY, pace=pace)
    send(stepped, "GANTRY", "one", "two")
    assert standings(stepped, "one", "two") == (standing + "a" if standing == "w" else "--")


def test_workers_that_count_at_once_count_right(stepped: SteppedStore) -> None:
    paced(stepped, GANTRY=2)
    studies = named("study", 8)
    for study in studies:
        stepped.receive(image(View.L_CC, study=study), sender="GANTRY")
    at_once = threading.Barrier(4)

    def look(mine: list[str]) -> None:
        at_once.wait(30)
        for study in mine:
            stepped.advance(uid(study))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, [studies[number::4] for number in range(4)]))
    assert sorted(standings(stepped, *studies)) == ["a"] * 6 + ["w"] * 2


# --------------------------------------------------------------------------------------------------------------------- people


@pytest.mark.parametrize("kind", ["reprocess", "release"])
def test_what_a_person_asks_for_is_not_behind(stepped: SteppedStore, kind: str) -> None:
    paced(stepped, ARCHIVE=1)
    send(stepped, "ARCHIVE", "one", "two", "three")
    if kind == "release":
        stepped.receive(image(View.R_CC, study="three", PatientID="P2"), sender="ARCHIVE")
        stepped.work(read=False)
        assert stepped.state("three") == "held"
    release = Release(accept_patient=True, patient_of=str(image(View.L_CC, study="three").SOPInstanceUID)) if kind == "release" else None
    stepped.archive.request(uid("three"), RequestKind(kind), request_id="r", person="Kim", release=release)
    stepped.work(read=False)
    assert stepped.answer("r") == "accepted"
    assert standings(stepped, "two", "three") == "aa" and stepped.study("three")["pace"]["standing"] == "asked"
    assert priorities(stepped, "three") == {5}
    assert read_all(stepped)[1] == uid("three")
    assert "no longer behind all others: a person asked for it" in [one["text"] for one in stepped.study("three")["timeline"]]


def test_a_person_need_not_wait_for_a_run_that_waits_behind_all_others(stepped: SteppedStore) -> None:
    """A request waits for the end of the run that reads what it froze; the run is hurried on at once."""
    paced(stepped, ARCHIVE=1)
    send(stepped, "ARCHIVE", "one")
    stepped.receive(*exam(study="two"), sender="ARCHIVE")
    stepped.step(61)
    stepped.work(read=False)
    send(stepped, "ARCHIVE", "three")
    assert (stepped.state("two"), standings(stepped, "two", "three"), priorities(stepped, "two")) == ("analysing", "aa", {15})
    stepped.archive.request(uid("two"), RequestKind.REPROCESS, request_id="r", person="Kim")
    stepped.work(read=False)
    assert stepped.answer("r") is None and priorities(stepped, "two") == {5}
    assert read_all(stepped) == [uid("one"), *[uid("two")] * 4, uid("three")]
    stepped.settle()
    assert stepped.answer("r") == "accepted" and len(stepped.versions("two")) == 1


def test_a_held_study_that_a_person_releases_counts_for_nobody(stepped: SteppedStore) -> None:
    paced(stepped, GANTRY=1)
    stepped.ruling = FixedRuling(action="hold")
    stepped.receive(*exam(study="held"), sender="GANTRY")
    stepped.settle()
    assert stepped.ask("release", study="held") == "accepted"
    stepped.ruling = FixedRuling()
    send(stepped, "GANTRY", "one")
    assert [stepped.study(study)["pace"]["standing"] for study in ("held", "one")] == ["asked", "within"]


# --------------------------------------------------------------------------------------------------------------- looks, results


def test_a_waiting_patients_study_is_looked_at_before_the_batch(stepped: SteppedStore) -> None:
    send(stepped, "BUS", *named("batch", 3))
    stepped.ruling = FixedRuling(priority=1)
    send(stepped, "GANTRY", "patient")
    for study in (*named("batch", 3), "patient"):  # something new of each
        stepped.receive(image(View.R_CC, study=study), sender="BUS")
    assert [one.row for one in stepped.archive.claim_studies(2)] == [uid("patient"), uid("batch 0")]
    assert {one.row for one in stepped.archive.claim_studies()} == {uid("batch 1"), uid("batch 2")}


def test_what_is_due_at_a_low_priority_is_looked_at_though_what_is_new_never_ends(stepped: SteppedStore, often: int) -> None:
    stepped.ruling = FixedRuling(priority=9)
    send(stepped, "BUS", "batch", "due")
    stepped.step(601)  # now it has waited long enough for its other views
    stepped.receive(image(View.R_CC, study="batch"), sender="BUS")
    stepped.ruling = FixedRuling(priority=1)
    send(stepped, "GANTRY", "patient")
    with stepped.engine.begin() as connection:  # as both stood before that last look
        for study, new in (("batch", 1), ("due", 0)):
            mine = tables.study.c.study_instance_uid == uid(study)
            values = {"settled_generation": tables.study.c.generation - new, "due_at": stepped.now, "state": "collecting", "priority": 9}
            connection.execute(sa.update(tables.study).where(mine).values(**values))
    looked = []
    for number in range(4 * often):
        stepped.receive(image(View.R_CC, f"again {number}", study="patient"), sender="GANTRY")
        [claim] = stepped.archive.claim_studies(1)
        looked.append(claim.row)
        if claim.row == uid("patient"):
            stepped.claims.release([claim.workflow_id], "looked at, and something new came")
    assert looked.count(uid("patient")) == 4 * often - 2 and {uid("batch"), uid("due")} < set(looked)


def test_an_old_study_to_which_an_image_comes_is_looked_at_though_new_studies_never_end(stepped: SteppedStore, often: int) -> None:
    """It waits for no moment of its own (`due_at` is empty), and databases differ about where such a row stands."""
    stepped.ruling = FixedRuling(priority=9)
    send(stepped, "BUS", "new")  # due when it has waited for its other views
    stepped.receive(*exam(study="old"))
    stepped.settle()
    looked = []
    for number, study in enumerate(("old", *named("later", 2 * often))):
        stepped.receive(image(View.R_CC, f"late {number}", study=study), sender="GANTRY")
        stepped.step(1)
    while claims := stepped.archive.claim_studies(1):
        looked += [one.row for one in claims]
    assert looked.index(uid("old")) < often


def test_a_waiting_patients_result_overtakes_a_batchs_and_the_batchs_oldest_has_its_turn(
    stepped: SteppedStore, monkeypatch: pytest.MonkeyPatch, often: int
) -> None:
    monkeypatch.setattr(ledger, "BATCH", 2)

    def analysed(study: str, priority: int) -> None:
        stepped.ruling = FixedRuling(priority=priority, slots=(View.L_CC, View.L_MLO))
        stepped.receive(*(image(view, study=study) for view in (View.L_CC, View.L_MLO)))
        stepped.settle()

    def sent() -> str:
        """One batch: the two objects of one study."""
        [claim] = stepped.ledger.claim()
        batch = stepped.begin(claim.workflow_id)
        for one in batch:
            stepped.ledger.sent(one.delivery_id, 0, "", ask=False)
        [study] = {one.study_instance_uid for one in batch}
        return study

    for study in named("batch", 2):
        analysed(study, 9)
    for study in named("patient", 3):
        analysed(study, 1)
    expected = ("patient 0", "patient 1", "batch 0", "patient 2", "batch 1")
    assert [sent() for _ in range(5)] == [uid(study) for study in expected]


def test_of_several_destinations_each_has_its_turn_of_the_oldest(stepped: SteppedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are handed out together, time after time: the turns must not all fall to the same one."""
    monkeypatch.setattr(ledger, "BATCH", 2)
    monkeypatch.setattr(rows, "TURN_OF_THE_OLDEST", 2)  # as many as destinations, or a multiple as in earnest

    def analysed(study: str, priority: int) -> None:
        stepped.ruling = FixedRuling(priority=priority, send_to=("a", "b"), slots=(View.L_CC, View.L_MLO))
        stepped.receive(*(image(view, study=study) for view in (View.L_CC, View.L_MLO)))
        stepped.settle()

    analysed("batch", 9)
    sent: set[tuple[str, str]] = set()
    for study in named("patient", 3):
        analysed(study, 1)
        for claim in stepped.ledger.claim():
            for one in stepped.begin(claim.workflow_id):
                stepped.ledger.sent(one.delivery_id, 0, "", ask=False)
                sent.add((one.destination, one.study_instance_uid))
    assert {("a", uid("batch")), ("b", uid("batch"))} < sent


def test_a_destination_gets_the_versions_of_a_study_in_their_order_whatever_their_priorities(stepped: SteppedStore) -> None:
    stepped.ruling = FixedRuling(priority=9)
    stepped.receive(*exam())
    stepped.settle()
    stepped.ruling = FixedRuling(priority=1)
    stepped.receive(image(View.L_CC, "retake", AcquisitionTime="103000"))
    stepped.settle()
    assert len(stepped.versions()) == 2
    [claim] = stepped.ledger.claim()
    first = {one["sop_instance_uid"] for one in stepped.versions()[0]["objects"]}
    assert {one.sop_instance_uid for one in stepped.ledger.batch(claim.workflow_id)} == first


# -------------------------------------------------------------------------------------------------------------- what is said of it


def test_one_alert_tells_of_a_sender_for_as_long_as_it_lasts(stepped: SteppedStore) -> None:
    with stepped.engine.begin() as connection:
        stepped.now = database_now(connection)  # the condition goes by the database's clock
    limits = Limits(waiting_minutes=60, silent_hours=0, min_free_bytes=0, pace=Pace(per_hour={"AN ARCHIVE": 1}))
    stepped.policy = replace(stepped.policy, pace=limits.pace)

    def told() -> list[str]:
        found = causes(Condition(stepped.engine).facts(), limits, stepped.files.least_room())
        return [f"{one.cause} {one.count} {one.command}" for one in found if one.kind is AlertKind.PACE]

    send(stepped, "AN ARCHIVE", "one")
    assert told() == []
    send(stepped, "AN ARCHIVE", "two", "three")
    assert told() == ["pace:AN ARCHIVE 2 fourview studies --sender 'AN ARCHIVE'"]
    [cause] = [one for one in causes(Condition(stepped.engine).facts(), limits, None) if one.kind is AlertKind.PACE]
    assert "more than 1 in an hour: 2 studies of the last hour are above it, and 2 images" in cause.text
    with stepped.engine.begin() as connection:
        connection.execute(sa.update(tables.study).values(first_instance_at=stepped.now - 2 * HOUR))
    assert told() == ["pace:AN ARCHIVE 1 fourview studies --sender 'AN ARCHIVE'"], "images of it still wait"
    read_all(stepped)
    assert told() == []


def test_a_long_queue_behind_all_others_is_no_worker_that_hangs(stepped: SteppedStore) -> None:
    with stepped.engine.begin() as connection:
        stepped.now = database_now(connection) - 3 * HOUR
    paced(stepped, ARCHIVE=1)
    limits = Limits(waiting_minutes=60, silent_hours=0, min_free_bytes=0)
    for study in ("one", "two"):
        stepped.receive(*exam(study=study), sender="ARCHIVE")
        stepped.work(read=False)
    stepped.step(61)
    stepped.work(read=False)
    told = {one.cause for one in causes(Condition(stepped.engine).facts(), limits, None)}
    assert {"waiting:study", "no worker"} <= told, "the first is within its pace and waits"
    for claim in stepped.scoring.claim(4):
        stepped.read(int(claim.row))
    stepped.work(read=False)
    assert stepped.state("one") == "analysed" and stepped.state("two") == "analysing"
    facts = Condition(stepped.engine).facts()
    told = {one.cause for one in causes(facts, limits, None)}
    assert "waiting:study" not in told and "no worker" in told and facts.open_studies == 1


def test_a_study_says_where_it_stands_in_the_queue(stepped: SteppedStore) -> None:
    paced(stepped, ARCHIVE=1)
    send(stepped, "ARCHIVE", "one", "two")
    stepped.ruling = FixedRuling(priority=7)
    stepped.receive(*exam(study="three")[:3])
    stepped.work(read=False)
    expected = {
        "one": "waits to be read: 0 images before it, priority 5",
        "two": "waits to be read: 4 images before it, priority 5, above the pace of its sender",
        "three": "waits to be read: 1 images before it, priority 7",
    }
    lines = {one["study_instance_uid"]: one["queue"] for one in stepped.listing.studies(Wanted()).studies}
    for study, words in expected.items():
        assert place_in_words(lines[uid(study)]) == words
        assert stepped.study(study)["queue"] == lines[uid(study)]
        assert f"Queue {words}" in in_words(stepped.study(study), ZoneInfo("UTC")).splitlines()
    assert "Pace above that of ARCHIVE: its images are read, and its results sent, after all others" in in_words(
        stepped.study("two"), ZoneInfo("UTC")
    )
    [claim] = stepped.scoring.claim(1)
    assert place_in_words(stepped.study("one")["queue"]) == "is being read: priority 5"
    stepped.read(int(claim.row))
    assert stepped.study("one")["queue"] is None
    assert place_in_words(stepped.study("three")["queue"]).startswith("waits to be read: 0 images before it")


def test_a_place_far_behind_is_told_as_that_and_costs_no_walk_through_what_was_read(
    stepped: SteppedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MOST", 3)
    send(stepped, "BUS", *named("batch", 5))
    assert place_in_words(stepped.study("batch 2")["queue"]) == "waits to be read: 2 images before it, priority 5"
    assert stepped.study("batch 3")["queue"]["before"] is None
    asked: list[tuple[str, Any]] = []

    @sa.event.listens_for(stepped.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    with stepped.engine.begin() as connection:
        queue.places(connection, [uid(study) for study in named("batch", 5)])
        study = connection.execute(sa.select(tables.study).limit(1)).one()
        queue.count(connection, study, "BUS", 60)
    Condition(stepped.engine).facts()
    sa.event.remove(stepped.engine, "before_cursor_execute", note)
    on_sqlite = stepped.engine.dialect.name == "sqlite"
    goes_by = {
        "score.study_instance_uid IN (": "ix_score_study_instance_uid",
        "row_number() OVER (ORDER BY": "ix_score_free",
        "AND study.paced_by =": "ix_study_paced",  # is counted
        "GROUP BY study.paced_by": "ix_study_paced",  # is told
    }
    with stepped.engine.begin() as connection:
        if not on_sqlite:
            for way in ("seqscan", "sort"):
                connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
        for marker, index in goes_by.items():
            statement, parameters = next((said, values) for said, values in asked if marker in said)
            found = connection.exec_driver_sql(("EXPLAIN QUERY PLAN " if on_sqlite else "EXPLAIN ") + statement, parameters)
            plan = "\n".join(str(row[-1]) for row in found)
            assert index in plan, f"{statement}\n{plan}"
