"""Deliveries: what is claimed when, how long it is tried again, and how each ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from mammograms_made import uid
from stepped_store import FixedRuling, SteppedStore, exam, image, rejection

from store import ledger, tables
from store.ledger import CONFIRM_TRIES, FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, Delivery
from store.study import View


def analysed(stepped: SteppedStore, study: str = "study", *destinations: str) -> None:
    stepped.ruling = FixedRuling(send_to=destinations or ("pacs",))
    stepped.receive(*exam(study=study))
    stepped.settle()


def claimed(stepped: SteppedStore) -> list[Delivery]:
    """Everything that is due, as the engine would get it."""
    return [one for claim in stepped.ledger.claim() for one in stepped.ledger.batch(claim.workflow_id)]


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
    stepped.step(30)
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
    first = stepped.ledger.batch(claim.workflow_id)
    assert len(first) == 6 and stepped.ledger.claim() == []
    ids = [one.delivery_id for one in first]
    assert ids == sorted(ids)
    numbers = {one["sop_instance_uid"]: version["number"] for version in stepped.versions() for one in version["objects"]}
    assert [numbers[one.sop_instance_uid] for one in first[:4]] == [1, 1, 2, 2]
    for one in first:
        stepped.ledger.confirmed(one.delivery_id)
    [claim] = stepped.ledger.claim()
    assert min(one.delivery_id for one in stepped.ledger.batch(claim.workflow_id)) > max(ids)


def test_nothing_of_a_held_or_withdrawn_study_is_handed_out(stepped: SteppedStore) -> None:
    analysed(stepped, "held")
    analysed(stepped, "withdrawn")
    analysed(stepped, "free")
    stepped.receive(image(View.L_CC, "foreign", study="held", PatientID="P2"), rejection(*exam(study="withdrawn")))
    stepped.work()
    assert {one.study_instance_uid for one in claimed(stepped)} == {uid("free")}


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
    assert (found.state, found.status, found.tries, found.reason) == ("waiting", 0xA700, 12, "out of resources")


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


@pytest.mark.parametrize("named", [["b"], []])
def test_a_destination_that_is_gone_is_cancelled(stepped: SteppedStore, named: list[str]) -> None:
    analysed(stepped, "study", "a", "b")
    assert stepped.ledger.cancel(named) == 4 - 2 * len(named)
    assert {one.destination for one in claimed(stepped)} == set(named)
    states = {(found.destination, found.state) for found in stepped.rows(sa.select(tables.delivery))}
    assert ("a", "cancelled") in states and stepped.ledger.cancel(["b"]) == 0


def test_what_ended_is_not_cancelled(stepped: SteppedStore) -> None:
    one = only(stepped)
    stepped.ledger.confirmed(one.delivery_id)
    assert stepped.ledger.cancel([]) == 0 and row(stepped, one.delivery_id).state == "confirmed"


def test_a_study_that_is_held_after_the_claim_is_not_sent(stepped: SteppedStore) -> None:
    analysed(stepped)
    [claim] = stepped.ledger.claim()
    stepped.receive(image(View.L_CC, "foreign", PatientID="P2"))
    stepped.work()
    assert stepped.state() == "held" and stepped.ledger.batch(claim.workflow_id) == []


def test_a_newer_version_waits_for_an_older_one_that_is_tried_again(stepped: SteppedStore) -> None:
    analysed(stepped)
    [claim] = stepped.ledger.claim()
    first = stepped.ledger.batch(claim.workflow_id)
    for one in first:
        stepped.ledger.not_sent(one.delivery_id, None, "down", retry_days=3)
    stepped.receive(image(View.L_CC, "retake", InstanceNumber="9"))
    stepped.policy = replace(stepped.policy, wait_for_retake_seconds=0)
    stepped.work()
    assert len(stepped.versions()) == 2 and stepped.ledger.claim() == []
    stepped.step(10)
    [claim] = stepped.ledger.claim()
    assert [one.delivery_id for one in stepped.ledger.batch(claim.workflow_id)][:2] == [one.delivery_id for one in first]
