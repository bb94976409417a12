"""Images that a rule forwards: each once to each destination, never back to its sender, whatever becomes of the study here."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from destination_made import Destination
from fourview_process import PROJECT
from mammograms_made import uid
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation as MG
from pydicom.uid import DigitalMammographyXRayImageStorageForProcessing as RAW
from pydicom.uid import KeyObjectSelectionDocumentStorage
from stepped_store import INSTALLATION, POLICY, FixedRuling, SteppedStore, exam, image, implicit, rejection
from test_alerts import GIB, LIMITS, NOTHING
from test_on_demand import ask

from listener.rules_explained import differences
from listener.show import in_words
from pipeline.deliver import deliver
from pipeline.figures import Figures
from pipeline.rules import GROWING, SYMBOLS, Action, Rule, decide
from pipeline.send import Pacs
from pipeline.upkeep import retire
from store import ledger, tables
from store.alerts import causes
from store.archive import Kept
from store.condition import Condition
from store.files import Room
from store.forget import Forgetting
from store.ledger import ORIGINALS, DeliveryState
from store.pauses import Paused, Pauses
from store.retention import Why
from store.study import Routing, View

DAY = 24 * 3600.0


@pytest.fixture
def routing(stepped: SteppedStore) -> SteppedStore:
    """A store whose one rule forwards to `archive`; results stay here."""
    stepped.policy = replace(POLICY, ae_titles={"archive": "ARCHIVE", "orthanc": "ORTHANC", "workstation": "WS"})
    stepped.ruling = FixedRuling(send_to=(), forward_to=("archive",))
    return stepped


def originals(stepped: SteppedStore, study: str = "study") -> Counter[tuple[str, str]]:
    """(destination, SOP Instance UID) of what is forwarded, and how often."""
    found = stepped.study(study)["deliveries"]
    return Counter((one["destination"], one["sop_instance_uid"]) for one in found if one["kind"] == "original")


def going(destination: str, *images: Dataset) -> Counter[tuple[str, str]]:
    return Counter((destination, str(ds.SOPInstanceUID)) for ds in images)


def said(stepped: SteppedStore, study: str = "study") -> str:
    return "\n".join(line["text"] for line in stepped.study(study)["timeline"])


def claimed(stepped: SteppedStore) -> list[ledger.Delivery]:
    return [one for claim in stepped.ledger.claim() for one in stepped.begin(claim.workflow_id)]


# -------------------------------------------------------------------------------------------------------- what is forwarded


@pytest.mark.parametrize("action", ["analyse", "hold", "ignore"])
def test_each_image_goes_once_to_each_destination_as_it_comes(routing: SteppedStore, action: str) -> None:
    """Before it was read, before the study is complete, and whatever the rule asks for besides."""
    routing.ruling = FixedRuling(action=action, send_to=(), forward_to=("archive", "workstation"))
    first, *others = exam()
    routing.receive(first)
    routing.work(read=False)
    assert routing.state() == "collecting" and originals(routing) == going("archive", first) + going("workstation", first)
    routing.receive(*others)
    routing.settle()
    assert originals(routing) == going("archive", first, *others) + going("workstation", first, *others)
    assert routing.study()["rule"]["forward_to"] == ["archive", "workstation"]
    assert "forwarded to archive: 3 of the images" in said(routing)
    words = in_words(routing.study(), ZoneInfo("UTC"))
    assert "Images are forwarded to archive, workstation" in words and f"workstation  original waiting    {first.SOPInstanceUID}" in words


def test_everything_that_is_kept_of_the_study_goes_and_nothing_else(routing: SteppedStore) -> None:
    images, raw = exam(), image(View.L_CC, "raw", SOPClassUID=RAW, PresentationIntentType="FOR PROCESSING")
    note = rejection(images[0], title="113039")
    routing.receive(*images, raw, note)
    routing.receive(image(View.L_CC, "tomosynthesis"), ignored="tomosynthesis")
    routing.ruling = replace(routing.ruling, send_to=("archive",))
    routing.settle()
    assert originals(routing) == going("archive", *images, raw, note)
    own = routing.versions()[0]["objects"][0]["sop_instance_uid"]
    assert routing.receive(image(View.L_CC, "own", SOPInstanceUID=own), sender="ARCHIVE") == [Kept.OWN_RESULT]
    routing.settle()
    assert originals(routing) == going("archive", *images, raw, note)


def test_what_a_person_had_read_on_demand_stays_until_it_is_sent(routing: SteppedStore) -> None:
    images = exam()
    ask(routing, *images)
    routing.settle()
    assert originals(routing) == Counter()
    routing.receive(*images)
    routing.settle()
    assert originals(routing) == going("archive", *images)


def test_a_late_image_goes_when_it_comes_in_whatever_state_its_study_is(routing: SteppedStore) -> None:
    sent = []
    for name, request in (("analysed", ""), ("reprocessed", "reprocess"), ("withdrawn", "withdraw")):
        sent += exam() if name == "analysed" else []
        if name == "analysed":
            routing.receive(*sent)
            routing.settle()
        if request:
            routing.ask(request, name)
            routing.settle()
        sent.append(image(View.L_CC, f"late {name}"))
        sent.append(rejection(sent[0], title="113039", name=name))
        routing.receive(*sent[-2:])
        routing.settle()
        assert originals(routing) == going("archive", *sent), name
    assert routing.state() == "withdrawn"


def test_a_key_object_that_comes_first_waits_for_what_tells_the_rule_what_the_study_is(routing: SteppedStore) -> None:
    [first, *_] = exam()
    note = rejection(first)
    routing.receive(note)
    routing.work()
    assert originals(routing) == Counter()
    routing.receive(first)
    routing.work()
    assert originals(routing) == going("archive", note, first)


# -------------------------------------------------------------------------------------------------------------- the sender


def test_nothing_goes_back_to_its_sender(routing: SteppedStore) -> None:
    routing.ruling = FixedRuling(send_to=(), forward_to=("archive", "orthanc"))
    one, other, again, new = exam()
    routing.receive(one, sender="ORTHANC")
    routing.receive(other, sender="orthanc")  # Orthanc itself takes no notice of upper and lower case
    routing.receive(implicit(again), sender="ORTHANC")
    routing.receive(again, new, sender="ROOM1")
    routing.work()
    assert originals(routing) == going("archive", one, other, again, new) + going("orthanc", new), "nor in another file of the same image"
    assert "not forwarded to orthanc: 4 of the images came from there (ORTHANC)" in said(routing)


# -------------------------------------------------------------------------------------------------------------------- once


def test_what_comes_again_is_not_forwarded_again(routing: SteppedStore) -> None:
    first = exam()
    routing.receive(*first)
    routing.settle()
    assert routing.receive(*first) == [Kept.DUPLICATE] * 4
    changed = [implicit(first[0]), image(View.L_CC, PatientName="Kim^New")]
    assert routing.receive(*changed) == [Kept.NEW] * 2
    routing.settle()
    assert originals(routing) == going("archive", *first)
    line = f"{changed[0].SOPInstanceUID} is not forwarded to archive again: another file of it was forwarded before"
    assert line in said(routing)


def test_the_same_image_in_another_study_is_not_forwarded_again(routing: SteppedStore) -> None:
    [first, *_] = exam()
    routing.receive(first)
    routing.work()
    routing.receive(image(View.R_CC, StudyInstanceUID=uid("copied"), SOPInstanceUID=first.SOPInstanceUID))
    routing.work()
    assert originals(routing) == going("archive", first) and originals(routing, "copied") == Counter()
    assert "is not forwarded to archive again" in said(routing, "copied")


def test_a_rule_that_is_changed_later_forwards_only_what_comes_then(routing: SteppedStore) -> None:
    first = exam()
    routing.ruling = FixedRuling(send_to=())
    routing.receive(*first)
    routing.settle()
    routing.ruling = FixedRuling(send_to=(), forward_to=("archive",))
    routing.ask("reprocess")
    routing.settle()
    assert originals(routing) == Counter()
    late = image(View.L_CC, "late")
    routing.receive(late)
    routing.settle()
    assert originals(routing) == going("archive", late)


def test_pixels_that_were_removed_and_come_again_are_not_forwarded_again(routing: SteppedStore) -> None:
    first = exam()
    routing.receive(*first)
    routing.settle()
    for one in claimed(routing):
        routing.ledger.sent(one.delivery_id, 0, "", ask=False)
    routing.step(8 * DAY)
    assert retire(routing.retention(7, 90), routing.files) == {"images_removed": 4}
    assert routing.receive(*first) == [Kept.NEW] * 4
    routing.settle()
    assert originals(routing) == going("archive", *first) and claimed(routing) == []


# -------------------------------------------------------------------------------------------------------------- which rule


def test_a_rule_that_asks_what_the_next_image_changes_forwards_when_the_study_is_decided(routing: SteppedStore) -> None:
    for action, state in (("analyse", "analysed"), ("hold", "held"), ("ignore", "ignored")):
        routing.ruling = FixedRuling(action=action, send_to=(), forward_to=("archive",), routing=Routing.COLLECTED)
        theirs = exam(study=action)
        routing.receive(*theirs)
        routing.work()
        assert routing.state(action) == "collecting" and originals(routing, action) == Counter()
        routing.settle()
        assert routing.state(action) == state and originals(routing, action) == going("archive", *theirs)


def test_of_a_study_of_unknown_age_nothing_goes_before_a_person_released_it(routing: SteppedStore) -> None:
    routing.ruling = FixedRuling(action="hold", send_to=(), forward_to=("archive",), routing=Routing.RELEASED)
    images = exam()
    routing.receive(*images)
    routing.settle()
    assert routing.state() == "held" and originals(routing) == Counter()
    assert routing.ask("release") == "accepted"
    routing.settle()
    assert routing.state() == "analysed" and originals(routing) == going("archive", *images)


NEW = Rule("new", "StudyAge <= 14", Action.ANALYSE, ("a",), forward_to=("a",))


@pytest.mark.parametrize(
    ("rules", "facts", "expected"),
    [
        ([NEW], {"StudyAge": 3}, (Action.ANALYSE, ("a",), Routing.AT_ONCE)),
        ([NEW], {"StudyAge": None}, (Action.HOLD, ("a",), Routing.RELEASED)),
        ([NEW], {"StudyAge": 99}, (Action.IGNORE, (), Routing.AT_ONCE)),
        ([NEW, Rule("rest", "true", Action.ANALYSE, ("a",))], {"StudyAge": None}, (Action.HOLD, ("a",), Routing.RELEASED)),
        ([NEW, Rule("rest", "true", Action.ANALYSE, ("a",), forward_to=("a",))], {}, (Action.ANALYSE, ("a",), Routing.AT_ONCE)),
        *(
            ([Rule("full", f"{name} == null", Action.IGNORE), NEW], {"StudyAge": 3, name: 4}, (Action.ANALYSE, ("a",), Routing.COLLECTED))
            for name in sorted(GROWING - {"Views"})
        ),
        ([Rule("full", '"L-CC" in Views', Action.HOLD, forward_to=("b",))], {"Views": []}, (Action.IGNORE, (), Routing.COLLECTED)),
        ([Rule("full", '"L-CC" in Views', Action.HOLD, forward_to=("b",))], {"Views": ["L-CC"]}, (Action.HOLD, ("b",), Routing.COLLECTED)),
        ([NEW, Rule("later", "NumViews == 4", Action.HOLD)], {"StudyAge": 3, "NumViews": 4}, (Action.ANALYSE, ("a",), Routing.AT_ONCE)),
    ],
)
def test_when_the_images_may_go_depends_on_the_rules_that_were_reached(
    rules: list[Rule], facts: dict[str, object], expected: tuple[Action, tuple[str, ...], Routing]
) -> None:
    decision = decide(rules, facts)
    assert (decision.action, decision.forward_to, decision.routing) == expected


def test_what_a_rule_forwards_is_in_its_hash_and_of_one_that_forwards_nothing_the_hash_stays() -> None:
    plain = Rule("a", "true", Action.ANALYSE, ("b",))
    assert plain.text_hash == "0b28082d6bd12b446936d9fed865d07738c7db36a4d0582361ade561bb469794"
    forwards = [replace(plain, forward_to=to) for to in (("b",), ("c",), ("b", "c"), ("c", "b"))]
    assert len({one.text_hash for one in (plain, *forwards)}) == 5
    assert frozenset(symbol.name for symbol in SYMBOLS) > GROWING


@pytest.mark.parametrize("action", ["analyse", "ignore"])
def test_other_rules_that_forward_elsewhere_are_another_outcome(action: str) -> None:
    """Also of a study that is ignored, of which nothing else counts."""
    before = {"action": action, "send_to": ["a"], "priority": 5, "forward_to": ["archive"]}
    assert differences(before, before | {"forward_to": []}) == ["images forwarded to archive -> (none)"]
    assert differences(before, before | {"priority": 1}) == ([] if action == "ignore" else ["priority 5 -> 1"])


# ----------------------------------------------------------------------------------------------------------------- delivery


def shop(stepped: SteppedStore, *pacs: Pacs) -> Any:
    """What `deliver` needs of a worker."""
    parts = {"ledger": stepped.ledger, "files": stepped.files, "pacs": pacs, "installation": INSTALLATION, "figures": Figures()}
    return SimpleNamespace(**parts, process="here:work:0", life="here:work:0/1")


def states(stepped: SteppedStore, study: str = "study") -> Counter[str]:
    return Counter(one["state"] for one in stepped.study(study)["deliveries"])


def work_off(stepped: SteppedStore, *pacs: Pacs) -> None:
    for claim in stepped.ledger.claim():
        deliver(shop(stepped, *pacs), claim.workflow_id)


@pytest.fixture
def destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Destination]]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started: list[Destination] = []

    def start(**settings: Any) -> Destination:
        started.append(Destination(**{"classes": (MG, KeyObjectSelectionDocumentStorage), **settings}))
        return started[-1]

    yield start
    for one in started:
        one.ae.shutdown()


def kept_bytes(stepped: SteppedStore) -> list[bytes]:
    """The data sets as they lie in the spool, in order of arrival."""
    names = stepped.rows(sa.select(tables.instance.c.file_name).order_by(tables.instance.c.id))
    return [data_set(stepped.files.read(one.file_name)) for one in names]


def data_set(part10: bytes) -> bytes:
    ds = dcmread(BytesIO(part10), stop_before_pixels=True)
    assert ds.file_meta.TransferSyntaxUID
    length = int.from_bytes(part10[140:144], "little")
    return part10[144 + length :]


def test_images_arrive_byte_for_byte_over_one_association_without_asking_whose_they_are(
    routing: SteppedStore, destination: Callable[..., Destination]
) -> None:
    """The destination does not know the study: these images are the first that it hears of it."""
    there = destination()
    routing.receive(*exam())
    routing.work(read=False)
    work_off(routing, replace(there.pacs, confirm="none"))
    assert states(routing) == {"sent": 4} and there.associations == 1
    assert [data_set(one) for one in there.received] == kept_bytes(routing)
    assert {one["patient_check"] for one in routing.study()["deliveries"]} == {"unchecked"}


def test_a_destination_that_was_down_gets_everything_once(routing: SteppedStore, destination: Callable[..., Destination]) -> None:
    there = destination()
    away = replace(there.pacs, confirm="none", port=1)
    routing.receive(*exam())
    routing.settle()
    for _ in range(3):
        work_off(routing, away)
        assert states(routing) == {"waiting": 4} and "nobody answers at archive" in routing.study()["deliveries"][0]["reason"]
        routing.step(60)
    late = image(View.L_CC, "late")
    routing.receive(late)
    routing.settle()
    for _ in range(4):
        work_off(routing, replace(away, port=there.pacs.port))
        routing.step(3600)
    assert states(routing) == {"sent": 5} and len(there.received) == 5
    assert sorted(data_set(one) for one in there.received) == sorted(kept_bytes(routing))


def test_each_image_has_the_status_that_it_got(routing: SteppedStore, destination: Callable[..., Destination]) -> None:
    there = destination()
    there.statuses = [0x0000, 0xA700, 0x0122, 0xB000]
    routing.receive(*exam())
    routing.work()
    work_off(routing, replace(there.pacs, confirm="none"))
    found = routing.study()["deliveries"]
    assert [(one["state"], one["status"]) for one in found] == [("sent", 0), ("waiting", 0xA700), ("refused", 0x0122), ("sent", 0xB000)]
    assert "or of `forward_to`" in found[2]["reason"]
    there.statuses = [0x0000]
    assert routing.ledger.retry(person="Kim", states=[DeliveryState.REFUSED]) == (1, [])
    routing.step(60)
    work_off(routing, replace(there.pacs, confirm="none"))
    assert states(routing) == {"sent": 4}


def test_a_transfer_syntax_that_is_not_accepted_is_refused_in_words(routing: SteppedStore, destination: Callable[..., Destination]) -> None:
    there = destination()
    images = [implicit(image(View.L_CC)), image(View.R_CC)]
    routing.receive(*images)
    routing.work()
    work_off(routing, replace(there.pacs, confirm="none"))
    found = {one["sop_instance_uid"]: one for one in routing.study()["deliveries"]}
    assert found[str(images[1].SOPInstanceUID)]["state"] == "sent" and len(there.received) == 1
    refused = found[str(images[0].SOPInstanceUID)]
    assert refused["state"] == "refused" and "does not accept SOP class" in refused["reason"] and "1.2.840.10008.1.2:" in refused["reason"]


def test_a_worker_that_is_killed_between_success_and_commit_sends_once_more_and_the_ledger_says_once(
    routing: SteppedStore, destination: Callable[..., Destination]
) -> None:
    there = destination()
    pacs = replace(there.pacs, confirm="none")
    routing.receive(image(View.L_CC))
    routing.work()
    [claim] = routing.ledger.claim()
    program = """
import json, os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from pipeline.deliver import deliver
from pipeline.figures import Figures
from pipeline.send import Pacs
from store.database import write_engine
from store.files import Files
from store.ledger import Ledger
url, files, pacs, workflow_id = json.loads(sys.argv[1])
Ledger.sent = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
shop = SimpleNamespace(ledger=Ledger(write_engine(url)), files=Files(Path(files)), pacs=(Pacs(**pacs),), figures=Figures())
shop.installation, shop.process, shop.life = SimpleNamespace(ae_title="FOURVIEW"), "here:work:0", "here:work:0/1"
deliver(shop, workflow_id)
"""
    url = routing.engine.url.render_as_string(hide_password=False)
    where = {name: getattr(pacs, name) for name in ("name", "ae_title", "host", "port", "confirm")}
    told = json.dumps([url, str(routing.files.root), where, claim.workflow_id])
    ended = subprocess.run([sys.executable, "-c", program, told], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(there.received) == 1 and states(routing) == {"sending": 1}
    assert routing.claims.release([claim.workflow_id], "killed") == 1
    for _ in range(3):
        routing.step(120)
        work_off(routing, pacs)
    assert there.received == [there.received[0]] * 2 and states(routing) == {"sent": 1}
    assert said(routing).count(" sent") == 1 and len(routing.study()["deliveries"]) == 1


def test_results_go_before_images_and_few_images_at_once(routing: SteppedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that is forwarded does not hold up the result of a patient who waits."""
    monkeypatch.setattr(ledger, "BATCH", 15)
    for number in range(4):
        routing.receive(*exam(study=f"old {number}"))
    routing.settle()
    routing.ruling = replace(routing.ruling, priority=2)
    urgent = exam(study="urgent")
    routing.receive(*urgent)
    routing.settle()
    routing.ruling = FixedRuling(send_to=("archive",))
    routing.receive(*exam(study="result"))
    routing.settle()
    [claim] = routing.ledger.claim()
    batch = routing.ledger.batch(claim.workflow_id)
    assert Counter(one.original for one in batch) == {False: 2, True: ORIGINALS}
    by_study = Counter(one.study_instance_uid for one in batch if one.original)
    assert by_study == {uid("urgent"): 4, uid("old 0"): 4} and routing.ledger.claim() == []


def test_what_holds_or_withdraws_a_study_stops_its_results_and_not_its_images(routing: SteppedStore) -> None:
    routing.ruling = FixedRuling(send_to=("archive",), forward_to=("archive",))
    images = exam()
    routing.receive(*images)
    routing.settle()
    [claim] = routing.ledger.claim()
    foreign = image(View.L_CC, "foreign", PatientID="P2")
    routing.receive(foreign)
    routing.work()
    assert routing.state() == "held"
    batch = routing.begin(claim.workflow_id)
    assert [one.original for one in batch] == [True] * 4, "claimed before, and the results go back"
    for one in batch:
        routing.ledger.sent(one.delivery_id, 0, "", ask=False)
    left = claimed(routing)
    assert [one.sop_instance_uid for one in left] == [foreign.SOPInstanceUID]
    routing.ask("withdraw")
    routing.settle()
    found = Counter((one["kind"] == "original", one["state"]) for one in routing.study()["deliveries"])
    withdrawal = {(False, "waiting"): 2}  # the results had been claimed, so it is said that they no longer hold
    assert found == {(True, "sent"): 4, (True, "sending"): 1, (False, "cancelled"): 2, **withdrawal}


def test_a_pause_stops_forwarding_too(routing: SteppedStore) -> None:
    routing.receive(*exam())
    routing.work()
    pauses = Pauses(routing.engine)
    pauses.pause(Paused.SENDING, person="Kim")
    assert routing.ledger.claim() == []
    pauses.resume(Paused.SENDING, person="Kim")
    assert len(claimed(routing)) == 4


# ------------------------------------------------------------------------------------------------------- keeping and forgetting


def set_originals(stepped: SteppedStore, **values: Any) -> None:
    with stepped.engine.begin() as connection:
        connection.execute(sa.update(tables.delivery).values(**values))


#: State of what is forwarded with whether something of it is still due, and after how many days the pixels go (None: never).
AGES: list[tuple[str, bool, float | None]] = [
    ("waiting", True, None),
    ("sending", False, None),
    ("sent", True, None),
    ("sent", False, 7),
    ("confirmed", False, 7),
    ("cancelled", False, 7),
    ("refused", False, 90),
    ("expired", False, 90),
]


def test_an_image_is_kept_until_its_forwarding_has_ended(routing: SteppedStore) -> None:
    routing.receive(*exam())
    routing.settle()
    last = routing.rows(sa.select(tables.study.c.last_instance_at))[0].last_instance_at
    for state, due, days in AGES:
        set_originals(routing, state=state, due_at=last if due else None)
        for after in (6.9, 7.1, 89.9, 90.1, 4000.0):
            routing.now = last + timedelta(days=after)
            found = routing.retention(7, 90).candidates(Why.AGE, 10)
            assert bool(found) == (days is not None and after > days), (state, due, after)
        assert bool(routing.retention(7, 90).candidates(Why.ROOM, 10)) == (days == 7), "nor does want of room take it"


def test_what_was_given_up_is_sent_again_as_long_as_it_is_kept(routing: SteppedStore) -> None:
    routing.receive(*exam())
    routing.settle()
    first, *others = claimed(routing)
    for one in (first, *others):
        routing.ledger.refused(one.delivery_id, 0x0122, "no class")
    assert routing.ledger.retry(person="Kim", delivery_ids=[first.delivery_id]) == (1, [])
    [again] = claimed(routing)
    routing.ledger.refused(again.delivery_id, 0x0122, "no class")
    routing.step(91 * DAY)
    assert retire(routing.retention(7, 90), routing.files) == {"images_removed": 4}
    done, why_not = routing.ledger.retry(person="Kim", states=[DeliveryState.REFUSED, DeliveryState.CANCELLED])
    assert done == 0 and len(why_not) == 4 and "its image is no longer kept here: send it from its source" in why_not[0]


def test_an_alert_of_images_that_were_given_up_ends_when_they_are_no_longer_kept(routing: SteppedStore) -> None:
    routing.receive(*exam())
    routing.settle()
    for one in claimed(routing):
        routing.ledger.refused(one.delivery_id, 0x0122, "no class")
    condition = Condition(routing.engine)
    assert [(one.state, one.count) for one in condition.facts().dead] == [("refused", 4)]
    routing.step(91 * DAY)
    retire(routing.retention(7, 90), routing.files)
    assert condition.facts().dead == ()
    reasons = {one["state"]: one["reason"] for one in routing.study()["deliveries"]}
    assert reasons == {"cancelled": "given up, and its image is no longer kept here; before: no class"}


def test_what_is_forgotten_is_not_forwarded_and_what_was_is_told(routing: SteppedStore) -> None:
    images = exam()
    routing.receive(*images)
    routing.work()
    [claim] = routing.ledger.claim()
    first, *others = routing.begin(claim.workflow_id)
    routing.ledger.sent(first.delivery_id, 0, "", ask=False)
    for one in others:
        routing.ledger.refused(one.delivery_id, 0x0122, "no class")
    late = image(View.L_CC, "late")
    routing.receive(late)
    routing.work()
    gone = Forgetting(routing.engine, clock=lambda _connection: routing.now).forget(uid("study"), person="Kim")
    assert {(one.destination, one.sop_instance_uid, one.series_instance_uid) for one in gone.elsewhere} == {
        ("archive", str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID)) for ds in images
    }
    assert len(gone.deliveries) == 5 and routing.rows(sa.select(tables.delivery)) == [] and routing.ledger.claim() == []
    routing.ledger.sent(first.delivery_id, 0, "", ask=True)  # a worker that had it in hand finds nothing


def test_a_study_that_is_forgotten_while_a_batch_is_in_hand_does_not_stop_the_others(routing: SteppedStore) -> None:
    routing.receive(*(image(View.L_CC, study, study=study) for study in ("one", "another")))
    routing.work()
    [claim] = routing.ledger.claim()
    batch = routing.ledger.batch(claim.workflow_id)
    Forgetting(routing.engine, clock=lambda _connection: routing.now).forget(uid("one"), person="Kim")
    going = {one.study_instance_uid: routing.ledger.begin([one], claim.workflow_id, checked=False) for one in batch}
    assert {study: len(several) for study, several in going.items()} == {uid("one"): 0, uid("another"): 1}


def test_a_disk_that_gets_full_by_what_waits_to_be_forwarded_is_told() -> None:
    facts = replace(NOTHING, originals_bytes={"archive": 3 * GIB}, delivery_error={"archive": "nobody answers"})

    def told(free_bytes: int) -> list[str]:
        room = Room(free_bytes, "files folder", Path("/spool"))
        return [one.text for one in causes(facts, LIMITS, room) if one.cause.startswith("disk:for:")]

    assert told(2 * LIMITS.min_free_bytes) == []
    assert told(2 * LIMITS.min_free_bytes - 1) == ["3.0 GiB of images are kept until they are forwarded to archive: nobody answers"]


def test_the_condition_says_what_waits_and_how_much_is_kept_for_it(routing: SteppedStore) -> None:
    images = exam()
    routing.receive(*images)
    routing.receive(image(View.L_CC, "foreign", PatientID="P2"))
    routing.work()
    assert routing.state() == "held"
    facts = Condition(routing.engine).facts()
    sizes = [row.size_bytes for row in routing.rows(sa.select(tables.instance.c.size_bytes))]
    assert facts.deliveries == {("archive", "waiting"): 5} and facts.originals_bytes == {"archive": sum(sizes)}
    assert facts.delivery_waits_since == {"archive": routing.now}
    for one in claimed(routing):
        routing.ledger.sent(one.delivery_id, 0, "", ask=False)
    facts = Condition(routing.engine).facts()
    assert facts.originals_bytes == {} and facts.deliveries == {}
