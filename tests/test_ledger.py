"""Deliveries: what is claimed when, how long it is tried again, and how each ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from mammograms_made import uid
from stepped_store import FixedRuling, SteppedStore, exam, image, rejection

from pipeline.deliver import GONE_DAYS, deliver
from store import ledger, tables
from store.condition import Condition
from store.correction import compare
from store.ledger import CONFIRM_TRIES, FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, TRANSITIONS, Delivery, DeliveryState
from store.study import View


def analysed(stepped: SteppedStore, study: str = "study", *destinations: str) -> None:
    stepped.ruling = FixedRuling(send_to=destinations or ("pacs",))
    stepped.receive(*exam(study=study))
    stepped.settle()


def claimed(stepped: SteppedStore) -> list[Delivery]:
    """Everything that is due, as the engine would get it; what is to be sent is on its way."""
    found = []
    for claim in stepped.ledger.claim():
        found += stepped.begin(claim.workflow_id)
    return found


def row(stepped: SteppedStore, delivery_id: int) -> Any:
    [found] = stepped.rows(sa.select(tables.delivery).where(tables.delivery.c.id == delivery_id))
    return found


def only(stepped: SteppedStore) -> Delivery:
    """One waiting delivery; the other object of the version is out of the way."""
    analysed(stepped)
    one, other = claimed(stepped)
    stepped.ledger.refused(other.delivery_id, 0x0122, "SOP class not supported")
    return one


def test_a_version_is_handed_out_once_per_destination(stepped: SteppedStore) -> None:
    analysed(stepped, "study", "a", "b")
    claims = stepped.ledger.claim()
    assert sorted(claim.row for claim in claims) == ["a", "b"] and stepped.ledger.claim() == []
    for claim in claims:
        batch = stepped.ledger.batch(claim.workflow_id)
        assert {one.destination for one in batch} == {claim.row} and {one.state for one in batch} == {"waiting"}
        objects = stepped.versions()[0]["objects"]
        assert {one.sop_instance_uid for one in batch} == {found["sop_instance_uid"] for found in objects}
        assert {one.file_name for one in batch} == {found["file_name"] for found in objects}
    assert stepped.ledger.batch("delivery:0:0") == []


def test_a_released_batch_is_handed_out_under_a_new_id(stepped: SteppedStore) -> None:
    analysed(stepped)
    [claim] = stepped.ledger.claim()
    assert stepped.claims.release([claim.workflow_id], "killed") == 2
    assert stepped.ledger.claim() == [], "not at once: whatever ended the workflow may end the next one too"
    stepped.step(40)  # with up to a quarter more
    [again] = stepped.ledger.claim()
    assert again.workflow_id != claim.workflow_id and len(stepped.ledger.batch(again.workflow_id)) == 2


def test_a_destination_works_on_one_batch_at_a_time_in_order(stepped: SteppedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a batch waits, of several studies and versions: the oldest goes first."""
    monkeypatch.setattr(ledger, "BATCH", 6)
    analysed(stepped)
    stepped.receive(image(View.L_CC, "retake", AcquisitionTime="103000"))
    stepped.settle()
    for number in range(3):
        analysed(stepped, f"study {number}")
    [claim] = stepped.ledger.claim()
    first = stepped.begin(claim.workflow_id)
    assert len(first) == 6 and stepped.ledger.claim() == []
    ids = [one.delivery_id for one in first]
    assert ids == sorted(ids)
    numbers = {one["sop_instance_uid"]: version["number"] for version in stepped.versions() for one in version["objects"]}
    assert [numbers.get(one.sop_instance_uid) for one in first] == [1, 1, None, None, None, None], "one version of a study at a time"
    for one in first:
        stepped.ledger.sent(one.delivery_id, 0x0000, "", ask=False)
    [claim] = stepped.ledger.claim()
    assert [numbers.get(one.sop_instance_uid) for one in stepped.ledger.batch(claim.workflow_id)] == [2, 2, None, None]


def test_nothing_of_a_held_or_withdrawn_study_is_handed_out(stepped: SteppedStore) -> None:
    analysed(stepped, "held")
    analysed(stepped, "withdrawn")
    analysed(stepped, "free")
    stepped.receive(image(View.L_CC, "foreign", study="held", PatientID="P2"), rejection(*exam(study="withdrawn")))
    stepped.work()
    assert {one.study_instance_uid for one in claimed(stepped)} == {uid("free")}


def test_what_is_sent_today_counts_today_whenever_it_was_made(stepped: SteppedStore) -> None:
    one = only(stepped)
    stepped.step(3 * 86400)
    midnight = stepped.now
    counted = Condition(stepped.engine).throughput
    assert (counted(midnight).sent, counted(midnight).versions) == (0, 0)
    stepped.ledger.sent(one.delivery_id, 0x0000, "", ask=False)
    assert (counted(midnight).sent, counted(midnight).versions) == (1, 0)
    assert counted(midnight + timedelta(seconds=1)).sent == 0


def test_a_delivery_that_went_well_is_confirmed(stepped: SteppedStore) -> None:
    one = only(stepped)
    stepped.ledger.sent(one.delivery_id, 0x0000, "", ask=True)
    assert row(stepped, one.delivery_id).state == "sent" and row(stepped, one.delivery_id).sent_at == stepped.now
    [asked] = claimed(stepped)
    assert asked.delivery_id == one.delivery_id and asked.state == "sent"
    stepped.ledger.confirmed(one.delivery_id)
    found = row(stepped, one.delivery_id)
    assert (found.state, found.status, found.tries, found.due_at, found.confirmed_at) == ("confirmed", 0, 1, None, stepped.now)
    assert claimed(stepped) == []


def test_what_a_workflow_goes_on_holding_is_confirmed_by_it_or_taken_back(stepped: SteppedStore) -> None:
    analysed(stepped)
    [claim] = stepped.ledger.claim()
    asked, lost = stepped.begin(claim.workflow_id)
    for one in (asked, lost):
        stepped.ledger.sent(one.delivery_id, 0, "stored", ask=True, hold=True, workflow_id=claim.workflow_id)
    assert stepped.ledger.claim() == [], "its workflow asks for it at once"
    stepped.ledger.confirmed(asked.delivery_id, workflow_id=claim.workflow_id)
    assert (row(stepped, asked.delivery_id).state, row(stepped, asked.delivery_id).workflow_id) == ("confirmed", None)
    stepped.claims.release([claim.workflow_id], "its worker died")
    assert row(stepped, lost.delivery_id).state == "sent"
    stepped.step(60)
    [again] = stepped.ledger.claim()
    assert [one.delivery_id for one in stepped.ledger.batch(again.workflow_id)] == [lost.delivery_id]


def test_a_destination_that_is_not_asked_stays_sent(stepped: SteppedStore) -> None:
    one = only(stepped)
    stepped.ledger.sent(one.delivery_id, 0x0000, "", ask=False)
    stepped.step(10**6)
    assert claimed(stepped) == [] and row(stepped, one.delivery_id).state == "sent"


def test_a_destination_is_asked_a_few_times_only(stepped: SteppedStore) -> None:
    one = only(stepped)
    stepped.ledger.sent(one.delivery_id, 0x0000, "", ask=True)
    for _ in range(CONFIRM_TRIES):
        assert [found.delivery_id for found in claimed(stepped)] == [one.delivery_id]
        stepped.ledger.not_confirmed(one.delivery_id, "the destination does not know it")
        assert claimed(stepped) == []
        stepped.step(LONGEST_RETRY_SECONDS)
    found = row(stepped, one.delivery_id)
    assert (found.state, found.confirm_tries, found.tries, found.due_at) == ("sent", CONFIRM_TRIES, 1, None)
    assert claimed(stepped) == [] and found.reason == "the destination does not know it"


def test_pauses_grow_to_a_cap(stepped: SteppedStore) -> None:
    one = only(stepped)
    pauses = []
    for _ in range(12):
        stepped.ledger.not_sent(one.delivery_id, 0xA700, "out of resources", retry_days=3)
        due = row(stepped, one.delivery_id).due_at
        assert claimed(stepped) == []
        pauses.append((due - stepped.now).total_seconds())
        stepped.now = due
        assert [found.delivery_id for found in claimed(stepped)] == [one.delivery_id]
    expected = [min(FIRST_RETRY_SECONDS * 2**number, LONGEST_RETRY_SECONDS) for number in range(12)]
    assert all(low <= pause <= low * 1.25 for low, pause in zip(expected, pauses, strict=True)), pauses
    assert expected[-1] == LONGEST_RETRY_SECONDS
    found = row(stepped, one.delivery_id)
    assert (found.state, found.status, found.tries, found.reason) == ("sending", 0xA700, 12, "out of resources")


def test_two_deliveries_do_not_knock_at_the_same_moment(stepped: SteppedStore) -> None:
    analysed(stepped)
    for one in claimed(stepped):
        stepped.ledger.not_sent(one.delivery_id, None, "nobody listens", retry_days=3)
    assert len({found.due_at for found in stepped.rows(sa.select(tables.delivery.c.due_at))}) == 2


def test_a_delivery_is_given_up_after_the_days_of_its_site(stepped: SteppedStore) -> None:
    one = only(stepped)
    stepped.step(timedelta(days=1).total_seconds())
    stepped.ledger.not_sent(one.delivery_id, None, "nobody listens", retry_days=1)
    assert row(stepped, one.delivery_id).state == "waiting"
    stepped.step(3600)
    claimed(stepped)
    stepped.ledger.not_sent(one.delivery_id, None, "nobody listens", retry_days=1)
    found = row(stepped, one.delivery_id)
    assert (found.state, found.due_at, found.reason) == ("expired", None, "gave up after 1 days; last: nobody listens")
    stepped.step(10**6)
    assert claimed(stepped) == []


def test_a_refusal_ends_at_once_and_stands_on_the_timeline(stepped: SteppedStore) -> None:
    one = only(stepped)
    stepped.ledger.refused(one.delivery_id, 0x0122, "SOP class not supported: allow it there")
    found = row(stepped, one.delivery_id)
    assert (found.state, found.status, found.due_at) == ("refused", 0x0122, None)
    assert f"pacs: {one.sop_instance_uid} refused: SOP class not supported: allow it there" in [
        line["text"] for line in stepped.study()["timeline"]
    ]
    stepped.step(10**6)
    assert claimed(stepped) == []


def test_the_same_failure_again_is_one_line(stepped: SteppedStore) -> None:
    one = only(stepped)
    for _ in range(3):
        stepped.ledger.not_sent(one.delivery_id, None, "nobody listens", retry_days=3)
    lines = [line["text"] for line in stepped.study()["timeline"] if one.sop_instance_uid in line["text"] and "waiting" in line["text"]]
    assert lines == [f"pacs: {one.sop_instance_uid} waiting: nobody listens"]


def test_what_waits_for_a_destination_that_this_host_does_not_know_is_left_for_others(stepped: SteppedStore) -> None:
    """Hosts get a new configuration one after the other: the one that still has yesterday's cancels nothing for all."""
    analysed(stepped, "study", "new")
    yesterday: Any = SimpleNamespace(ledger=stepped.ledger, pacs=(), process="old:work:0", life="old:work:0/1")
    [claim] = stepped.ledger.claim()
    deliver(yesterday, claim.workflow_id)
    found = stepped.rows(sa.select(tables.delivery))
    assert {(one.state, one.workflow_id, one.reason) for one in found} == {
        ("waiting", None, "the configuration of old names no destination new")
    }
    stepped.step(10)
    one, other = claimed(stepped)
    stepped.ledger.sent(one.delivery_id, 0, "", ask=True)
    stepped.ledger.not_sent(other.delivery_id, 0xA700, "full", retry_days=3)
    stepped.step(GONE_DAYS * 86400 + 10)
    [claim] = stepped.ledger.claim()
    deliver(yesterday, claim.workflow_id)
    assert (row(stepped, one.delivery_id).state, row(stepped, other.delivery_id).state) == ("sent", "expired")


def test_a_study_that_is_held_after_the_claim_is_not_sent(stepped: SteppedStore) -> None:
    analysed(stepped)
    [claim] = stepped.ledger.claim()
    stepped.receive(image(View.L_CC, "foreign", PatientID="P2"))
    stepped.work()
    assert stepped.state() == "held" and stepped.ledger.batch(claim.workflow_id) == []


def test_a_newer_version_waits_for_an_older_one_that_is_tried_again(stepped: SteppedStore) -> None:
    analysed(stepped)
    [claim] = stepped.ledger.claim()
    first = stepped.begin(claim.workflow_id)
    for one in first:
        stepped.ledger.not_sent(one.delivery_id, None, "down", retry_days=3)
    stepped.receive(image(View.L_CC, "retake", InstanceNumber="9"))
    stepped.policy = replace(stepped.policy, wait_for_retake_seconds=0)
    stepped.work()
    assert len(stepped.versions()) == 2 and stepped.ledger.claim() == []
    stepped.step(10)
    both_due = claimed(stepped)
    assert [one.delivery_id for one in both_due] == [one.delivery_id for one in first], "also when both are due"
    stepped.ledger.sent(both_due[0].delivery_id, 0, "", ask=False)
    stepped.ledger.refused(both_due[1].delivery_id, 0x0122, "SOP class not supported")
    newer = claimed(stepped)
    assert len(newer) == 2 and not {one.delivery_id for one in newer} & {one.delivery_id for one in first}


def test_what_was_given_up_of_an_older_version_troubles_nobody(stepped: SteppedStore) -> None:
    """The PACS was mended, and a newer version arrived: nobody could do anything about the old refusal any more."""
    analysed(stepped)
    for one in claimed(stepped):
        stepped.ledger.refused(one.delivery_id, 0x0122, "SOP class not supported")
    stepped.receive(image(View.L_CC, "retake", AcquisitionTime="103000"))
    stepped.settle()
    assert [found.state for found in stepped.rows(sa.select(tables.delivery).order_by(tables.delivery.c.id))] == [
        *("cancelled", "cancelled"),
        *("waiting", "waiting"),
    ]
    for one in claimed(stepped):
        stepped.ledger.refused(one.delivery_id, 0x0122, "SOP class not supported")
    assert stepped.ask("withdraw") == "accepted"
    states = [found.state for found in stepped.rows(sa.select(tables.delivery).order_by(tables.delivery.c.id))]
    assert states[:4] == ["cancelled"] * 4


def test_a_try_after_weeks_comes_no_later_than_the_others(stepped: SteppedStore) -> None:
    one = only(stepped)
    connection_values = sa.update(tables.delivery).where(tables.delivery.c.id == one.delivery_id).values(tries=5000)
    with stepped.engine.begin() as connection:
        connection.execute(connection_values)
    stepped.ledger.not_sent(one.delivery_id, None, "nobody listens", retry_days=300)
    pause = (row(stepped, one.delivery_id).due_at - stepped.now).total_seconds()
    assert 0 < pause <= LONGEST_RETRY_SECONDS * 1.25


def test_whoever_lost_a_delivery_to_another_says_only_what_arrived(stepped: SteppedStore) -> None:
    """A worker freezes while it sends; its row is taken back, and another one sends. Then it wakes up."""
    analysed(stepped)
    [old] = stepped.ledger.claim()
    one, other = stepped.begin(old.workflow_id)
    stepped.claims.release([old.workflow_id], "its lease ended")
    stepped.step(40)
    [new] = stepped.ledger.claim()
    assert len(stepped.begin(new.workflow_id)) == 2
    stepped.ledger.not_sent(one.delivery_id, None, "timed out", retry_days=3, workflow_id=old.workflow_id)
    stepped.ledger.refused(one.delivery_id, 0x0122, "late", workflow_id=old.workflow_id)
    assert (row(stepped, one.delivery_id).state, row(stepped, one.delivery_id).workflow_id) == ("sending", new.workflow_id)
    stepped.ledger.sent(other.delivery_id, 0, "", ask=True, workflow_id=old.workflow_id)
    assert (row(stepped, other.delivery_id).state, row(stepped, other.delivery_id).workflow_id) == ("sent", new.workflow_id)
    assert stepped.ledger.claim() == [], "still one batch at a time"
    for found in (one, other):
        stepped.ledger.sent(found.delivery_id, 0, "", ask=False, workflow_id=new.workflow_id)
        assert (row(stepped, found.delivery_id).state, row(stepped, found.delivery_id).workflow_id) == ("sent", None)


# ---------------------------------------------------------------------------------------------------------------- transitions

#: By hand, from the words of the glossary: state -> what may follow by itself.
FOLLOWS = {
    "waiting": "waiting sending sent refused expired cancelled",
    "sending": "sending waiting sent refused expired cancelled",
    "sent": "sent confirmed",
    "confirmed": "",
    "refused": "cancelled",
    "expired": "cancelled",
    "cancelled": "sent",
}


def test_the_states_follow_each_other_as_the_glossary_says() -> None:
    assert {str(state): set(map(str, after)) for state, after in TRANSITIONS.items()} == {
        state: set(after.split()) for state, after in FOLLOWS.items()
    }
    assert set(TRANSITIONS) == set(DeliveryState)


# ------------------------------------------------------------------------------------------------------ begun, held, given back


def test_what_was_begun_by_a_worker_that_died_is_sent_again(stepped: SteppedStore) -> None:
    analysed(stepped)
    [claim] = stepped.ledger.claim()
    batch = stepped.begin(claim.workflow_id)
    assert {row(stepped, one.delivery_id).state for one in batch} == {"sending"}
    stepped.claims.release([claim.workflow_id], "killed")
    assert {row(stepped, one.delivery_id).state for one in batch} == {"sending"}, "it may have arrived"
    stepped.step(40)
    [again] = stepped.ledger.claim()
    assert [one.sop_instance_uid for one in stepped.begin(again.workflow_id)] == [one.sop_instance_uid for one in batch]
    stepped.ledger.sent(batch[0].delivery_id, 0, "", ask=False)
    assert row(stepped, batch[0].delivery_id).state == "sent"


def test_nothing_leaves_of_a_study_that_was_held_after_the_claim(stepped: SteppedStore) -> None:
    analysed(stepped)
    [claim] = stepped.ledger.claim()
    batch = stepped.ledger.batch(claim.workflow_id)
    stepped.receive(image(View.L_CC, "foreign", PatientID="P2"))
    stepped.work()
    assert stepped.ledger.begin(batch, claim.workflow_id, checked=True) == []
    assert {row(stepped, one.delivery_id).state for one in batch} == {"waiting"}
    assert {row(stepped, one.delivery_id).workflow_id for one in batch} == {None}


def test_a_cancelled_delivery_in_flight_keeps_its_destination_busy(stepped: SteppedStore) -> None:
    """WITHDRAWN must not overtake what it withdraws."""
    analysed(stepped)
    [claim] = stepped.ledger.claim()
    batch = stepped.begin(claim.workflow_id)
    stepped.ask("withdraw")
    stepped.settle()
    assert {row(stepped, one.delivery_id).state for one in batch} == {"cancelled"}
    assert stepped.ledger.claim() == []
    stepped.ledger.sent(batch[0].delivery_id, 0, "", ask=False)
    stepped.ledger.not_sent(batch[1].delivery_id, None, "the association broke", retry_days=3)
    assert [row(stepped, one.delivery_id).state for one in batch] == ["sent", "cancelled"]
    assert all(one.withdrawal for one in claimed(stepped)) and len(stepped.versions()) == 2


def test_many_old_deliveries_do_not_slow_a_claim_down(stepped: SteppedStore) -> None:
    """The plan uses an index for what is due; it does not look at what is done."""
    analysed(stepped)
    plan = "EXPLAIN QUERY PLAN " if stepped.engine.dialect.name == "sqlite" else "EXPLAIN "
    with stepped.engine.begin() as connection:
        if stepped.engine.dialect.name != "sqlite":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        said = connection.exec_driver_sql(plan + "SELECT id FROM delivery WHERE due_at <= '2030-01-01' AND workflow_id IS NULL").all()
    assert "ix_delivery" in str(said)


# -------------------------------------------------------------------------------------------------------------------- retry


def test_a_person_puts_back_what_was_given_up(stepped: SteppedStore) -> None:
    analysed(stepped, "study", "a", "b")
    for one in claimed(stepped):
        stepped.ledger.refused(one.delivery_id, 0x0122, "SOP class not supported")
    done, why_not = stepped.ledger.retry(person="Kim", why="enabled there", states=[DeliveryState.REFUSED], destination="a")
    assert (done, why_not) == (2, [])
    assert {one.destination for one in claimed(stepped)} == {"a"}
    [act] = stepped.rows(sa.select(tables.act))
    assert (act.person, act.what, act.why, act.parameters["deliveries"]) == ("Kim", "retry deliveries", "enabled there", 2)


def test_what_is_under_way_or_replaced_is_not_put_back(stepped: SteppedStore) -> None:
    analysed(stepped)
    first = claimed(stepped)
    for one in first:
        stepped.ledger.refused(one.delivery_id, 0x0122, "SOP class not supported")
    stepped.receive(image(View.L_CC, "retake", AcquisitionTime="103000"))
    stepped.settle()
    second = claimed(stepped)
    ids = [first[0].delivery_id, second[0].delivery_id, 999]
    done, why_not = stepped.ledger.retry(person="Kim", delivery_ids=ids)
    assert done == 0
    assert why_not == [
        "999: no such delivery",
        f"{ids[0]}: it is of version 1, and version 2 stands",
        f"{ids[1]}: it is sending, so there is nothing to try again",
    ]


# ------------------------------------------------------------------------------------------------------------- whose study it is

OURS = {"PatientID": "P1", "PatientName": "TEST^ONE", "PatientBirthDate": "19600101", "PatientSex": "F"}


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [
        ({}, "agrees"),
        (OURS, "agrees"),
        ({**OURS, "PatientName": "test^one^^"}, "agrees"),
        ({"PatientID": "P1"}, "agrees"),  # what is not returned says nothing
        ({**OURS, "PatientName": "NEW^ONE"}, "corrected"),
        ({**OURS, "PatientBirthDate": "19610101"}, "corrected"),
        ({**OURS, "AccessionNumber": "A1"}, "corrected"),
        ({**OURS, "PatientID": "P9"}, "corrected"),
        ({**OURS, "PatientSex": "O"}, "corrected"),
        ({**OURS, "IssuerOfPatientID": "HOSP"}, "corrected"),
        ({**OURS, "PatientName": "NEW^ONE", "PatientBirthDate": "19610101"}, "another patient"),
        ({**OURS, "PatientID": "P9", "PatientName": "NEW^ONE"}, "another patient"),
        ({**OURS, "PatientID": "P9", "PatientBirthDate": "19610101"}, "another patient"),
        ({"PatientID": "P9"}, "another patient"),
        ({"PatientID": "P9", "PatientName": "TEST^ONE"}, "another patient"),  # without the date of birth nobody knows
    ],
)
def test_whose_study_a_destination_says_it_is(theirs: dict[str, str], verdict: str) -> None:
    assert compare(OURS, theirs).verdict == verdict


def test_a_name_that_the_destination_cannot_write_is_no_correction() -> None:
    ours = {**OURS, "PatientName": "Hong^Gildong=洪^吉洞=홍^길동"}
    assert compare(ours, {**OURS, "PatientName": "Hong^Gildong=?^??=?^??"}).verdict == "agrees"
    assert compare(ours, {**OURS, "PatientName": "Hong^Gildong"}).verdict == "agrees"
    assert compare(ours, {**OURS, "PatientName": "Hong^Gildong=^=^"}).verdict == "agrees"
    assert compare(ours, {**OURS, "PatientName": "Kim^Gildong=洪^吉洞=홍^길동"}).verdict == "corrected"
    assert compare({**OURS, "PatientName": "Łuczak^Zoë"}, {**OURS, "PatientName": "uczak^Zo"}).verdict == "agrees"
    assert compare({**OURS, "PatientName": "Łuczak^Zoë"}, {**OURS, "PatientName": "?uczak^Zo?"}).verdict == "agrees"
    assert compare({**OURS, "PatientName": "Łuczak^Zoë"}, {**OURS, "PatientName": "Nowak^Zo"}).verdict == "corrected"
    assert compare({**OURS, "PatientName": "Łuczak^Zoë"}, {**OURS, "PatientName": "Łuczak^Zoe"}).verdict == "corrected"


def whose(stepped: SteppedStore, **theirs: str) -> set[str]:
    """What the ledger makes of it that the destination has the study under these values."""
    found = set()
    for claim in stepped.ledger.claim():
        batch = stepped.ledger.batch(claim.workflow_id)
        found |= {str(stepped.ledger.compare(one, [{**SAID, **theirs}])) for one in batch}
        for one in batch:
            stepped.ledger.give_back(claim.workflow_id, one.study_instance_uid)
    return found


#: What the made images say, and so the results.
SAID = {keyword: str(image(View.L_CC).get(keyword)) for keyword in ("PatientID", "PatientName", "PatientBirthDate")}


def named(stepped: SteppedStore) -> dict[str, str]:
    """Whom the last report was made for."""
    return {keyword: str(stepped.readings[-1].views[0].header.get(keyword)) for keyword in SAID}


def test_a_corrected_patient_gets_a_new_version_without_a_second_reading(stepped: SteppedStore) -> None:
    analysed(stepped, "study", "a", "b")
    read = list(stepped.scored)
    assert whose(stepped, PatientID="CORRECTED") == {"corrected"}
    stepped.settle()
    assert stepped.state() == "analysed" and stepped.scored == read
    first, second = stepped.versions()
    assert first["run_id"] == second["run_id"] and named(stepped) == {**SAID, "PatientID": "CORRECTED"}
    objects = [{one["sop_instance_uid"] for one in version["objects"]} for version in (first, second)]
    states = {(one["sop_instance_uid"] in objects[1], one["state"]) for one in stepped.study()["deliveries"]}
    assert states == {(False, "cancelled"), (True, "waiting")}, "nothing goes out under the old identifier"
    assert {one.destination for one in claimed(stepped)} == {"a", "b"}


def test_newer_images_know_better_than_a_correction(stepped: SteppedStore) -> None:
    analysed(stepped)
    whose(stepped, PatientName="CORRECTED^NAME")
    stepped.settle()
    stepped.receive(*exam(PatientName="MARRIED^NAME"))
    stepped.settle()
    assert named(stepped)["PatientName"] == "MARRIED^NAME"


def test_a_correction_that_no_result_can_carry_holds_the_study(stepped: SteppedStore) -> None:
    """It must not go round in circles."""
    stepped.carries = ("PatientName", "PatientBirthDate")
    analysed(stepped)
    assert whose(stepped, PatientID="CORRECTED") == {"corrected"}
    stepped.settle()
    assert whose(stepped, PatientID="CORRECTED") == {"another patient"}
    assert stepped.state() == "held" and len(stepped.versions()) == 2


def test_another_patient_holds_the_study_until_a_person_decides(stepped: SteppedStore) -> None:
    analysed(stepped)
    other = {"PatientID": "X", "PatientName": "OTHER^ONE"}
    assert whose(stepped, **other) == {"another patient"}
    stepped.settle()
    found = stepped.study()
    assert found["state"] == "held" and stepped.ledger.claim() == []
    assert "pacs has this study under another patient (PatientID, PatientName differ)" in found["state_reason"]
    assert "OTHER" not in found["state_reason"]
    assert stepped.ask("reprocess", "r0").startswith("refused: pacs has this study under another patient")  # type: ignore[union-attr]
    assert stepped.ask("release", "r1").startswith("refused, this is still doubtful")  # type: ignore[union-attr]
    assert stepped.ask("release", "r2", accept_patient=True) == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and named(stepped) == SAID
    assert whose(stepped, **other) == {"agrees"}, "that was decided"
    assert whose(stepped, PatientID="Y", PatientName="THIRD^ONE") == {"another patient"}


def test_a_person_may_take_the_patient_that_the_destination_names(stepped: SteppedStore) -> None:
    analysed(stepped)
    read = list(stepped.scored)
    other = {"PatientID": "X", "PatientName": "OTHER^ONE"}
    whose(stepped, **other)
    stepped.settle()
    assert stepped.ask("release", patient_from_pacs=True) == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and stepped.scored == read and named(stepped) == {**SAID, **other}
    assert stepped.study()["patient"]["patient_id"] == "X" and stepped.study()["patient"]["patient_name"] == "OTHER^ONE"


def test_a_correction_that_comes_after_the_withdrawal_stops_nothing(stepped: SteppedStore) -> None:
    """A wrong patient is when people withdraw and correct at the same minute: what takes the result back must leave."""
    analysed(stepped)
    for one in claimed(stepped):
        stepped.ledger.sent(one.delivery_id, 0, "", ask=False)
    stepped.receive(image(View.L_CC, "retake", AcquisitionTime="103000"))
    stepped.settle()
    [claim] = stepped.ledger.claim()
    asked = stepped.ledger.batch(claim.workflow_id)[0]
    assert stepped.ask("withdraw") == "accepted"
    stepped.settle()
    assert stepped.ledger.compare(asked, [{**SAID, "PatientID": "CORRECTED"}]) == "agrees"
    assert stepped.ledger.begin([asked], claim.workflow_id, checked=True) == [], "it was cancelled"
    stepped.ledger.give_back(claim.workflow_id, asked.study_instance_uid)
    stepped.settle()
    leaving = claimed(stepped)
    assert len(leaving) == 2 and all(one.withdrawal for one in leaving)


def test_there_is_nothing_to_take_when_no_destination_objects(stepped: SteppedStore) -> None:
    analysed(stepped)
    assert stepped.ask("release", patient_from_pacs=True) == "refused: no destination names another patient"


def test_of_several_patients_there_one_that_agrees_is_enough(stepped: SteppedStore) -> None:
    analysed(stepped)
    [claim] = stepped.ledger.claim()
    one = stepped.ledger.batch(claim.workflow_id)[0]
    assert stepped.ledger.compare(one, [{**SAID, "PatientID": "X", "PatientName": "O"}, SAID]) == "agrees"
