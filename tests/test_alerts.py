"""What people are told: once per cause, without patient data, again when it comes back, later when nobody takes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from mammograms_made import uid
from stepped_store import FixedRuling, SteppedStore, exam, image
from webhook import Webhook, webhook

from pipeline.alert import Watch
from store import tables
from store.alerts import (
    FEWEST_IGNORED,
    FIRST_RETRY_SECONDS,
    MOST_SINGLE,
    AlertKind,
    Alerts,
    Cause,
    Limits,
    causes,
    sender_causes,
)
from store.condition import Condition, Dead, Facts, Process, Sender
from store.files import Files, Room
from store.pauses import Paused, Pauses
from store.study import View

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
GIB = 1 << 30
LIMITS = Limits(waiting_minutes=60, silent_hours=24, min_free_bytes=10 * GIB)
WORKER = Process(process="a:work:0", role="work", beat_at=NOW, started_at=NOW, figures={}, alive=True)
NOTHING = Facts(
    now=NOW,
    processes=(WORKER,),
    studies={},
    open_studies=0,
    study_waits_since=None,
    images_waiting=0,
    deliveries={},
    delivery_waits_since={},
    delivery_error={},
    originals_bytes={},
    dead=(),
    held=(),
    failed=(),
    withdrawn=(),
    pauses=(),
    reconciled_at=None,
    reconciled={},
    alerts=(),
)


def found(free: int | None = 100 * GIB, standing: tuple[str, ...] = (), **facts: Any) -> list[Cause]:
    room = None if free is None else Room(free, "files folder", Path("files"))
    return causes(replace(NOTHING, **facts), LIMITS, room, standing)


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


# ------------------------------------------------------------------------------------------------------------------ causes


def test_when_all_is_well_nobody_is_told() -> None:
    assert found(study_waits_since=ago(minutes=59), open_studies=1, delivery_waits_since={"pacs": ago(minutes=59)}) == []


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"held": ("1.2",), "studies": {"held": 1}}, "held:1.2"),
        ({"failed": ("1.2",), "studies": {"failed": 1}}, "failed:1.2"),
        ({"withdrawn": ("1.2",)}, "withdrawn:1.2"),
        ({"study_waits_since": ago(minutes=61), "open_studies": 2}, "waiting:study"),
        ({"study_waits_since": ago(minutes=3), "open_studies": 2, "processes": ()}, "no worker"),
        ({"study_waits_since": ago(minutes=3), "open_studies": 2, "processes": (replace(WORKER, alive=False),)}, "no worker"),
        ({"delivery_waits_since": {"pacs": ago(minutes=61)}}, "waiting:for:pacs"),
        ({"reconciled": {"never_seen": 2, "partly_seen": 0}}, "never seen"),
        ({"reconciled": {"never_seen": ["1.2"], "partly_seen": []}}, "never seen"),
        ({"reconciled": {"never_seen": 0, "partly_seen": 1}}, "never seen"),
        ({"reconciled": {"error": "orthanc does not answer"}}, "reconcile"),
        ({"reconciled": {"failed": "KeyError"}}, "reconcile"),
        ({"pauses": ({"what": "sending", "at": ago(hours=5), "person": "anna", "why": ""},)}, "paused:sending"),
        ({"free": 9 * GIB}, "disk:full"),
        ({"free": 19 * GIB}, "disk:low"),
        ({"free": None}, "disk:away"),
    ],
)
def test_each_trouble_has_a_cause_and_a_command(facts: dict[str, Any], cause: str) -> None:
    [one] = found(**facts)
    assert one.cause == cause and one.text and one.command.startswith("fourview ")


@pytest.mark.parametrize(
    "facts",
    [
        {"study_waits_since": ago(minutes=1), "open_studies": 2, "processes": ()},  # a restart
        {"pauses": ({"what": "sending", "at": ago(hours=3), "person": "anna", "why": ""},)},
        {"reconciled": {"never_seen": 0, "partly_seen": [], "error": ""}},
        # What a person stopped waits with reason, until the pause itself is told.
        {
            "delivery_waits_since": {"pacs": ago(minutes=90)},
            "study_waits_since": ago(minutes=90),
            "open_studies": 1,
            "pauses": tuple({"what": what, "at": ago(hours=2), "person": "anna", "why": ""} for what in ("sending", "analysing")),
        },
    ],
)
def test_what_is_no_trouble_is_not_told(facts: dict[str, Any]) -> None:
    assert found(**facts) == []


def test_a_thousand_refusals_of_one_destination_are_one_alert() -> None:
    refused = [Dead(destination="pacs", state="refused", reason=f"no class for 1.2.3.4.5.{number}", count=10) for number in range(100)]
    other = Dead(destination="pacs", state="refused", reason="does not know our AE title", count=3)
    late = Dead(destination="pacs", state="expired", reason="gave up", count=2)
    told = found(dead=(*refused, other, late))
    assert [(one.kind, one.count) for one in told] == [("refused", 1000), ("refused", 3), ("expired", 2)]
    assert told[0].text == "1000 objects were refused by pacs: no class for ..."


def test_a_flood_of_held_studies_is_told_one_by_one_only_at_first() -> None:
    many = tuple(f"1.2.{number}" for number in range(50))
    told = found(held=many, studies={"held": 70})
    assert [one.cause for one in told] == [*(f"held:{uid}" for uid in many[:MOST_SINGLE]), "held:more"]
    assert told[-1].count == 70 - MOST_SINGLE
    again = found(held=("0.1", *many), studies={"held": 71}, standing=tuple(one.cause for one in told))
    assert {one.cause for one in again} == {one.cause for one in told}, "an older one that comes does not push a known one out"


def test_a_sender_is_missed_when_it_came_on_most_days() -> None:
    sender = Sender(ae_title="ROOM1", last_at=ago(hours=25), days=8, received=0, ignored=0)
    [one] = sender_causes([sender], LIMITS, NOW)
    assert (one.kind, one.cause) == ("silent", "silent:ROOM1")
    for other in (replace(sender, days=7), replace(sender, last_at=ago(hours=23))):
        assert sender_causes([other], LIMITS, NOW) == []
    assert sender_causes([sender], replace(LIMITS, silent_hours=0), NOW) == []


def test_a_sender_of_which_nothing_is_used_is_told() -> None:
    sender = Sender(ae_title="ROOM1", last_at=NOW, days=14, received=FEWEST_IGNORED, ignored=FEWEST_IGNORED)
    assert [one.cause for one in sender_causes([sender], LIMITS, NOW)] == ["ignored:ROOM1"]
    for other in (replace(sender, ignored=FEWEST_IGNORED - 1), replace(sender, received=9, ignored=9)):
        assert sender_causes([other], LIMITS, NOW) == []


# --------------------------------------------------------------------------------------------------------- the whole, for real


class Watched:
    """A stepped store that is watched; its alerts go by its clock."""

    def __init__(self, stepped: SteppedStore, url: str) -> None:
        self.stepped = stepped
        self.alerts = Alerts(stepped.engine, clock=lambda _: stepped.now)
        # Here the condition is asked by the writing engine: SQLite's read engine sees the same.
        self.watch = Watch(
            condition=Condition(stepped.engine),
            alerts=self.alerts,
            files=stepped.files,
            limits=replace(LIMITS, min_free_bytes=0, waiting_minutes=10**9),
            url=url,
        )

    def look(self, seconds: float = 0) -> dict[str, int]:
        self.stepped.step(seconds)
        return self.watch.look()


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as made:
        yield made


def hold(stepped: SteppedStore, study: str = "study") -> None:
    stepped.ruling = FixedRuling(action="hold")
    stepped.receive(
        *exam(study=study, PatientID="SECRETID", PatientName="SECRET^NAME", PatientBirthDate="19610101", AccessionNumber="SECRETACC")
    )
    stepped.settle()


def test_a_held_study_is_told_once_then_that_it_is_settled_then_anew(stepped: SteppedStore, hook: Webhook) -> None:
    watched = Watched(stepped, hook.url)
    assert watched.look() == {"raised": 0, "cleared": 0, "told": 0}
    hold(stepped)
    assert watched.look() == {"raised": 1, "cleared": 0, "told": 1}
    for _ in range(3):
        assert watched.look(60) == {"raised": 0, "cleared": 0, "told": 0}
    [message] = hook.posted
    assert message == {
        "source": "fourview",
        "state": "raised",
        "kind": "held",
        "cause": f"held:{uid('study')}",
        "text": f"Fourview: study {uid('study')} waits for a person's decision",
        "count": 1,
        "since": message["since"],
        "until": None,
        "command": f"fourview show {uid('study')}",
    }
    assert datetime.fromisoformat(message["since"]).tzinfo is not None
    stepped.ruling = FixedRuling()
    stepped.ask("release", "r1")
    watched.look(60)
    stepped.receive(image(View.L_MLO, name="another", PatientID="OTHER", PatientName="Other^One", PatientBirthDate="19500101"))
    stepped.settle()
    assert stepped.state() == "held"
    watched.look(60)
    assert [state for state, _ in hook.told()] == ["raised", "resolved", "raised"]
    assert len({cause for _, cause in hook.told()}) == 1
    assert "SECRET" not in "".join(hook.raw) and "1961" not in "".join(hook.raw) and "OTHER" not in "".join(hook.raw).upper()


@pytest.mark.parametrize("status", [500, 302, 404])
def test_nothing_is_lost_while_the_webhook_is_down(stepped: SteppedStore, hook: Webhook, status: int) -> None:
    watched = Watched(stepped, hook.url)
    hook.status = status
    hook.location = hook.url + "/elsewhere" if status == 302 else ""
    hold(stepped, "a")
    hold(stepped, "b")
    assert watched.look() == {"raised": 2, "cleared": 0, "told": 0}
    assert len(hook.raw) == 1, "whoever does not answer is not asked again for the next alert, and redirects are not followed"
    [facts] = [Condition(stepped.engine).facts()]
    assert {(one["tries"], one["error"]) for one in facts.alerts} == {(1, f"answered {status}"), (0, "")}
    watched.look(FIRST_RETRY_SECONDS - 1)
    assert len(hook.raw) == 1
    watched.look(2)
    assert len(hook.raw) == 2
    hook.status, hook.location = 200, ""
    assert watched.look(FIRST_RETRY_SECONDS * 4) == {"raised": 0, "cleared": 0, "told": 2}
    assert hook.told() == [("raised", f"held:{uid('a')}"), ("raised", f"held:{uid('b')}")]


def test_what_passed_before_it_could_be_told_is_told_as_settled(stepped: SteppedStore, hook: Webhook) -> None:
    watched = Watched(stepped, hook.url)
    hook.status = 503
    hold(stepped)
    watched.look()
    stepped.ask("withdraw", "r1")
    hook.status = 204
    watched.look(3600)
    assert hook.told() == [("resolved", f"held:{uid('study')}")]
    assert watched.look(3600)["told"] == 0


def test_without_a_webhook_alerts_stand_and_are_told_when_there_is_one(stepped: SteppedStore, hook: Webhook) -> None:
    hold(stepped)
    assert Watched(stepped, "").look() == {"raised": 1, "cleared": 0, "told": 0}
    [alert] = Condition(stepped.engine).facts().alerts
    assert alert["due_at"] is None and alert["told_at"] is None
    assert Watched(stepped, hook.url).look(60) == {"raised": 0, "cleared": 0, "told": 1}
    [alert] = Condition(stepped.engine).facts().alerts
    assert alert["told_at"] == stepped.now


def test_an_address_where_nobody_listens_says_so_without_repeating_it(stepped: SteppedStore) -> None:
    watched = Watched(stepped, "http://127.0.0.1:9/hook?key=SECRETKEY")
    hold(stepped)
    watched.look()
    [alert] = Condition(stepped.engine).facts().alerts
    assert alert["error"] == "no answer (ConnectionError)"


def test_what_changed_while_it_was_told_is_told_too(stepped: SteppedStore) -> None:
    alerts = Alerts(stepped.engine, clock=lambda _: stepped.now)
    one = Cause(cause="disk:full", kind=AlertKind.DISK, text="full", command="fourview status")
    alerts.settle([one], list(AlertKind), tell=True)
    [message] = alerts.due()
    stepped.step(1)
    alerts.settle([], list(AlertKind), tell=True)  # another process finds it gone before the answer is here
    alerts.told(message)
    [message] = alerts.due()
    assert message.cleared_at == stepped.now
    alerts.told(message)
    assert alerts.due() == []


# --------------------------------------------------------------------------------------------------------------- condition


def test_the_condition_counts_what_is_open(stepped: SteppedStore) -> None:
    stepped.now = datetime.now(UTC) - timedelta(hours=2)  # the condition goes by the database's clock
    stepped.receive(*exam(study="delivered"))
    stepped.settle()
    one, other = [found for claim in stepped.ledger.claim() for found in stepped.begin(claim.workflow_id)]
    stepped.ledger.refused(one.delivery_id, 0x0122, "SOP class not supported")
    stepped.ledger.not_sent(other.delivery_id, 0xA700, "out of resources", retry_days=3)
    stepped.receive(*exam(study="waiting"))
    Pauses(stepped.engine).pause(Paused.ANALYSING, person="anna")
    stepped.step(120)
    stepped.work()
    stepped.claims.beat("here:work:0", "work")
    facts = Condition(stepped.engine).facts()
    assert facts.studies == {"analysed": 1, "analysing": 1}
    assert (facts.open_studies, facts.images_waiting) == (1, 4)
    assert facts.study_waits_since == stepped.now, "since it was last heard of, not since its images came"
    assert facts.deliveries == {("pacs", "refused"): 1, ("pacs", "waiting"): 1}
    [since] = facts.delivery_waits_since.values()
    assert since < stepped.now and facts.delivery_error == {"pacs": "out of resources"}
    assert facts.dead == (Dead(destination="pacs", state="refused", reason="SOP class not supported", count=1),)
    assert [pause["what"] for pause in facts.pauses] == ["analysing"]
    assert [(one.role, one.alive) for one in facts.processes] == [("work", False)]


def test_what_waits_longest_is_what_is_told_not_what_was_made_first(stepped: SteppedStore) -> None:
    """A person puts an old delivery back into the outbox: it waits from now on, another one has waited for days."""
    stepped.now = datetime.now(UTC) - timedelta(days=2)
    stepped.receive(*exam())
    stepped.settle()
    first, second = [found for claim in stepped.ledger.claim() for found in stepped.begin(claim.workflow_id)]
    stepped.ledger.refused(first.delivery_id, 0x0122, "SOP class not supported")
    stepped.ledger.not_sent(second.delivery_id, None, "nobody answers", retry_days=30)
    since = stepped.now
    stepped.step(86400)
    assert stepped.ledger.retry(person="Kim", delivery_ids=[first.delivery_id]) == (1, [])
    facts = Condition(stepped.engine).facts()
    assert facts.delivery_waits_since["pacs"] < since + timedelta(hours=1) and facts.delivery_error == {"pacs": "nobody answers"}


def test_a_silent_sender_is_missed_for_as_long_as_it_is_silent(stepped: SteppedStore) -> None:
    """A device that works on weekdays, heard last on a Friday: a week later it has not become one that is seldom heard."""
    friday = datetime.now(UTC) - timedelta(days=9)
    for day in range(12):
        if day % 7 not in (1, 2):
            stepped.now = friday - timedelta(days=day)
            stepped.receive(image(View.L_CC, f"day {day}", study=f"day {day}"))
    [sender] = Condition(stepped.engine).senders()
    assert sender.days == 8
    for days, told in ((0.5, False), (3, True), (30, True), (61, False)):
        found = sender_causes([sender], replace(LIMITS, silent_hours=24), sender.last_at + timedelta(days=days))
        assert [one.cause for one in found] == ["silent:MODALITY"] * told


def test_a_withdrawal_is_told_when_something_had_been_sent(stepped: SteppedStore) -> None:
    stepped.now = datetime.now(UTC)
    stepped.receive(*exam(study="sent"), *exam(study="unsent"))
    stepped.settle()
    for claim in stepped.ledger.claim():
        for one in stepped.begin(claim.workflow_id):
            if one.study_instance_uid == uid("sent"):
                stepped.ledger.sent(one.delivery_id, 0, "", ask=False)
            else:
                stepped.ledger.not_sent(one.delivery_id, None, "nobody answers", retry_days=3)
    for study in ("sent", "unsent"):
        stepped.ask("withdraw", study, study=study)
        stepped.work()
    assert Condition(stepped.engine).facts().withdrawn == (uid("sent"),)


def test_senders_are_counted_by_what_became_of_their_images(stepped: SteppedStore) -> None:
    now = datetime.now(UTC)
    for day in range(10, 0, -1):
        stepped.now = now - timedelta(days=day, hours=-1)
        stepped.receive(image(View.L_CC, name=str(day), study=str(day)), sender="ROOM1")
    stepped.receive(image(View.R_CC, name="us", study="us"), sender="ROOM2", ignored="not an image of the mammography classes")
    found = {one.ae_title: one for one in Condition(stepped.engine).senders()}
    assert set(found) == {"ROOM1", "ROOM2"}
    assert (found["ROOM1"].days, found["ROOM1"].received, found["ROOM1"].ignored) == (10, 1, 0)
    assert (found["ROOM2"].days, found["ROOM2"].received, found["ROOM2"].ignored) == (1, 1, 1)
    assert found["ROOM1"].last_at == stepped.now


def test_the_alert_table_holds_one_row_per_cause(stepped: SteppedStore, tmp_path: Any) -> None:
    alerts = Alerts(stepped.engine, clock=lambda _: stepped.now)
    one = Cause(cause="disk:full", kind=AlertKind.DISK, text="full", command="fourview status")
    for _ in range(3):
        assert alerts.settle([one], list(AlertKind), tell=False) == (1, 0)
        stepped.step(1)
        assert alerts.settle([], list(AlertKind), tell=False) == (0, 1)
    [row] = stepped.rows(sa.select(tables.alert))
    assert row.cleared_at == stepped.now
    assert Files(tmp_path / "files").free_bytes() > 0
