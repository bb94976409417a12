"""Images that people have read on demand: they are scored and kept, nothing follows from them, and sent later they count like any other."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from io import BytesIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from stepped_store import FixedRuling, SteppedStore, exam, image, implicit, rejection, uid

from listener.desk import _words
from listener.show import in_words
from pipeline.upkeep import retire, tidy
from store import tables
from store.accounting import Accounting
from store.archive import Kept, Reception
from store.condition import Condition
from store.forget import Forgetting
from store.grouping import Release, RequestKind
from store.header import pack_header, read_header, unpack_header
from store.images import Disposition
from store.ledger import _demographics
from store.on_demand import ORIGIN, Asked, NotForReading, OnDemand
from store.requests import AnotherRequest
from store.rows import UnknownStudy
from store.study import HANGING_ORDER, View
from store.view import resolve

DAY = 24 * 3600.0


def ask(stepped: SteppedStore, *instances: Dataset) -> list[Asked]:
    return [_ask(stepped, ds) for ds in instances]


def _ask(stepped: SteppedStore, ds: Dataset) -> Asked:
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    name = stepped.files.write(buffer.getvalue())
    packed = pack_header(read_header(stepped.files.path(name)))
    reception = Reception(
        study_instance_uid=str(ds.StudyInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        sop_class_uid=str(ds.SOPClassUID),
        transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
        modality=str(ds.Modality),
        patient_id=str(ds.get("PatientID", "")),
        issuer_of_patient_id="",
        patient_name=str(ds.get("PatientName", "")),
        patient_birth_date=str(ds.get("PatientBirthDate", "")),
        calling_ae_title="",
        called_ae_title="FOURVIEW",
        size_bytes=len(buffer.getvalue()),
        file_hash=hashlib.sha256(buffer.getvalue()).hexdigest(),
        file_name=name,
        origin=ORIGIN,
    )
    try:
        asked = book(stepped).ask(reception, resolve(unpack_header(packed)), packed, stepped.policy)
    except NotForReading:
        stepped.files.remove(name)
        raise
    if not asked.linked:
        stepped.files.remove(name)
    return asked


def book(stepped: SteppedStore) -> OnDemand:
    return OnDemand(stepped.engine, stepped.engine, clock=lambda _connection: stepped.now)


def answers(stepped: SteppedStore, asked: list[Asked]) -> list[Any]:
    found = book(stepped).answers([one.score_id for one in asked])
    return [found[one.score_id].scores for one in asked]


def study_row(stepped: SteppedStore) -> Any:
    return stepped.rows(sa.select(tables.study))[0]


def test_what_is_read_on_demand_is_scored_and_nothing_follows_from_it(stepped: SteppedStore) -> None:
    asked = ask(stepped, *exam())
    stepped.settle()
    assert all(one.linked for one in asked) and all(answers(stepped, asked))
    found = stepped.study()
    assert found["state"] == "ignored" and "on demand" in found["state_reason"]
    assert found["runs"] == found["deliveries"] == [] and found["rule"]["name"] == "" and set(found["slots"].values()) == {None}
    assert {one["disposition"] for one in found["images"]} == {"on demand"}
    assert stepped.readings == [] and study_row(stepped).due_at is None
    stepped.step(30 * DAY)
    stepped.settle()
    assert stepped.state() == "ignored" and stepped.versions() == []
    assert Condition(stepped.engine).senders() == [], "who is silent does not look as if he had sent something"


def test_an_image_that_is_sent_afterwards_counts_as_received_like_any_other(stepped: SteppedStore) -> None:
    asked = ask(stepped, *exam()[:3])
    stepped.settle()
    before = answers(stepped, asked)
    stepped.step(3 * DAY)
    began = stepped.now
    assert stepped.receive(*exam(), sender="ROOM1") == [Kept.NEW] * 4
    row = study_row(stepped)
    assert (row.state, row.revision, row.state_reason) == ("collecting", 1, "")
    assert {row.first_instance_at, row.collecting_since, row.last_instance_at} == {began}
    stepped.settle()
    assert stepped.state() == "analysed" and [one["outcome"] for one in stepped.versions()] == ["COMPLETE"]
    assert len(stepped.study()["deliveries"]) == 2, "sent as any result"
    assert len(stepped.scored) == 4 and len(stepped.decoded) == 4, "what was read on demand is not read again"
    selection = stepped.versions()[0]["selection"]
    by_uid = {one["sop_instance_uid"]: one["scores"]["probabilities"] for one in selection.values()}
    assert [by_uid[str(ds.SOPInstanceUID)] for ds in exam()[:3]] == [list(one.probabilities) for one in before]
    kept = stepped.rows(sa.select(tables.instance))
    assert {(one.origin, one.calling_ae_title, one.disposition, one.received_at) for one in kept} == {
        ("received", "ROOM1", "candidate", began)
    }
    assert stepped.receive(*exam()) == [Kept.DUPLICATE] * 4


def test_an_image_that_waits_when_it_is_sent_is_read_once_from_the_file_that_was_sent(stepped: SteppedStore) -> None:
    ask(stepped, *exam())
    old = {one.file_name for one in stepped.rows(sa.select(tables.instance.c.file_name))}
    stepped.receive(*exam())
    new = {one.file_name for one in stepped.rows(sa.select(tables.instance.c.file_name))}
    assert not old & new and all(stepped.files.path(name).is_file() for name in old | new)
    stepped.settle()
    assert len(stepped.scored) == 4 and len(stepped.versions()) == 1
    for name in old:
        assert stepped.retention(7, 90).unknown([name]) == {name}, "the janitor takes it"


def test_one_that_is_only_counted_when_it_is_sent_is_ignored_like_any_other(stepped: SteppedStore) -> None:
    ask(stepped, image(View.L_CC))
    stepped.settle()
    assert stepped.receive(image(View.L_CC), ignored="tomosynthesis") == [Kept.IGNORED]
    assert stepped.dispositions() == {str(image(View.L_CC).SOPInstanceUID): ["ignored"]}
    stepped.settle()
    assert stepped.state() == "ignored" and "no image of this study fills" in stepped.study()["state_reason"]


def test_it_changes_nothing_of_a_study_that_is_being_collected(stepped: SteppedStore) -> None:
    """Neither its silence nor its slots, and no doubt comes of other pixels, another patient or a rejection."""
    stepped.receive(*exam()[:3])
    stepped.work()
    before = study_row(stepped)
    stepped.step(30)
    other = [
        image(HANGING_ORDER[3]),
        image(View.L_CC, "other pixels", SOPInstanceUID=exam()[1].SOPInstanceUID),
        image(View.R_CC, "other patient", PatientID="P2", PatientName="Roe^Anna"),
        rejection(exam()[0]),
    ]
    asked = ask(stepped, *other[:3])
    ask(stepped, other[3])
    stepped.broken[str(other[3].SOPInstanceUID)] = True
    stepped.work()
    assert all(answers(stepped, asked))
    after = study_row(stepped)
    same = ("state", "revision", "due_at", "last_instance_at", "collecting_since", "selection_hash", "patient_id", "doubts")
    assert [after._mapping[name] for name in same] == [before._mapping[name] for name in same]
    assert stepped.receive(other[0]) == [Kept.NEW]
    stepped.settle()
    assert stepped.state() == "analysed" and [one["outcome"] for one in stepped.versions()] == ["COMPLETE"]


def test_what_was_read_is_not_read_again(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    read = len(stepped.decoded)
    asked = ask(stepped, *exam())
    assert not any(one.linked for one in asked) and all(answers(stepped, asked))
    ask(stepped, implicit(exam()[0]))
    stepped.settle()
    assert len(stepped.scored) == read, "the same pixels in another transfer syntax have the same scores"
    assert stepped.state() == "analysed" and len(stepped.versions()) == 1


def test_it_overtakes_all_that_waits_and_no_look_takes_that_away(stepped: SteppedStore) -> None:
    stepped.ruling = stepped.ruling.__class__(priority=1)
    stepped.receive(*exam())
    stepped.work(read=False)
    stepped.receive(*exam(StudyInstanceUID=uid("other")), image(View.L_CC, "more", StudyInstanceUID=uid("other")))
    stepped.work(read=False)
    (asked,) = ask(stepped, image(View.L_MLO, "urgent", StudyInstanceUID=uid("other")))
    (known,) = ask(stepped, image(View.R_CC))
    stepped.receive(image(View.R_CC, "another", StudyInstanceUID=uid("other")))
    stepped.work(read=False)
    claimed = [int(one.row) for one in stepped.scoring.claim(2)]
    assert sorted(claimed) == sorted([asked.score_id, known.score_id])


def test_an_image_that_no_look_has_seen_yet_can_be_read_at_once(stepped: SteppedStore) -> None:
    stepped.receive(image(View.L_CC))
    asked = ask(stepped, image(View.L_CC))
    for claim in stepped.scoring.claim():
        stepped.read(int(claim.row))
    assert all(answers(stepped, asked)) and not asked[0].linked
    stepped.receive(*exam())
    stepped.settle()
    assert stepped.state() == "analysed" and len(stepped.scored) == 4


def test_what_was_only_counted_is_read_when_a_person_asks(stepped: SteppedStore) -> None:
    stepped.receive(image(View.L_CC), ignored="tomosynthesis")
    stepped.settle()
    asked = ask(stepped, image(View.L_CC))
    stepped.settle()
    assert asked[0].linked and all(answers(stepped, asked))
    assert stepped.dispositions() == {str(image(View.L_CC).SOPInstanceUID): ["ignored"]} and stepped.state() == "ignored"


def test_one_that_failed_is_tried_again_when_a_person_asks_again(stepped: SteppedStore) -> None:
    broken = str(image(View.L_CC).SOPInstanceUID)
    stepped.broken[broken] = True
    asked = ask(stepped, image(View.L_CC))
    stepped.settle()
    assert book(stepped).answers([asked[0].score_id])[asked[0].score_id].failure == "its pixels are broken"
    assert stepped.state() == "ignored", "a study that failed is one whose result is missing; here none was due"
    del stepped.broken[broken]
    again = ask(stepped, image(View.L_CC))
    stepped.settle()
    assert again[0].score_id == asked[0].score_id and all(answers(stepped, again))


def test_our_own_results_are_not_read(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    ours = stepped.rows(sa.select(tables.result_object.c.sop_instance_uid))[0].sop_instance_uid
    with pytest.raises(NotForReading, match="a result of Fourview"):
        ask(stepped, image(View.L_CC, SOPInstanceUID=ours))
    assert ours not in stepped.dispositions()


def test_a_forgotten_study_does_not_come_back_on_demand(stepped: SteppedStore) -> None:
    ask(stepped, *exam())
    stepped.work()
    files = {one.file_name for one in stepped.rows(sa.select(tables.instance.c.file_name))}
    gone = Forgetting(stepped.engine).forget(uid("study"), person="Kim")
    assert gone.images == 4 and "fetch_from" in gone.senders[0] and files <= set(gone.files) and len(gone.scores) == 4
    with pytest.raises(NotForReading, match="was forgotten here"):
        ask(stepped, image(View.L_CC))
    assert stepped.rows(sa.select(tables.study)) == stepped.rows(sa.select(tables.instance)) == []
    assert Forgetting(stepped.engine).allow_again(uid("study"), person="Kim")
    assert ask(stepped, image(View.L_CC))[0].linked


def test_pixels_go_when_they_were_kept_long_enough_and_come_again(stepped: SteppedStore) -> None:
    ask(stepped, *exam())
    retention = stepped.retention(7, 90)
    stepped.step(8 * DAY)
    assert retire(retention, stepped.files)["images_removed"] == 0, "never of an image that waits to be read"
    stepped.settle()
    ask(stepped, image(View.L_CC, "one more"))  # as of any study, its last image counts
    stepped.settle()
    stepped.step(6 * DAY)
    assert retire(retention, stepped.files)["images_removed"] == 0
    stepped.step(DAY)
    assert retire(retention, stepped.files)["images_removed"] == 5
    known = ask(stepped, *exam())
    assert all(answers(stepped, known)) and not any(one.linked for one in known), "its numbers are kept"
    stepped.policy = stepped.policy.__class__(
        **{**vars(stepped.policy), "model": stepped.policy.model.__class__(**{**vars(stepped.policy.model), "version": "2"})}
    )
    other = ask(stepped, *exam())
    assert all(one.linked for one in other), "another model needs the pixels"
    stepped.settle()
    assert all(answers(stepped, other))


def test_the_janitor_leaves_what_a_row_links_to(stepped: SteppedStore) -> None:
    ask(stepped, *exam())
    folders = [f"{number:02x}" for number in range(256)]
    assert tidy(stepped.retention(7, 90), stepped.files, folders=folders)["orphans_removed"] == 0
    for one in stepped.rows(sa.select(tables.instance.c.file_name)):
        assert stepped.files.path(one.file_name).is_file()


def test_the_accounting_tells_it_from_what_was_sent(stepped: SteppedStore) -> None:
    ask(stepped, *exam()[:2])
    uids = [str(ds.SOPInstanceUID) for ds in exam()]
    known = Accounting(stepped.engine).known(uid("study"), uids)
    assert (known.instances, known.on_demand) == (frozenset(), frozenset(uids[:2]))
    stepped.receive(*exam())
    known = Accounting(stepped.engine).known(uid("study"), uids)
    assert (known.instances, known.on_demand) == (frozenset(uids), frozenset())


def test_it_counts_for_no_device_and_for_no_correction(stepped: SteppedStore) -> None:
    ask(stepped, *exam(PatientID="P9"))
    stepped.settle()
    assert stepped.search.devices(36500) == []
    stepped.receive(*exam())
    stepped.settle()
    with stepped.engine.begin() as connection:
        assert len(_demographics(connection, uid("study"))) == 1


def test_a_look_does_not_see_it(stepped: SteppedStore) -> None:
    """Disposition and reason stay what they are, whatever else happens to the study."""
    ask(stepped, *exam())
    stepped.receive(image(View.L_CC, "retake", AcquisitionTime="113000"))
    stepped.settle()
    stepped.step(timedelta(hours=5).total_seconds())
    stepped.settle()
    assert stepped.state() == "incomplete"
    dispositions = [one["disposition"] for one in stepped.study()["images"]]
    assert dispositions.count(Disposition.ON_DEMAND) == 4 and dispositions.count(Disposition.CANDIDATE) == 1


def test_show_says_what_was_read_and_how_it_becomes_an_exam(stepped: SteppedStore) -> None:
    ask(stepped, image(View.L_CC))
    stepped.settle()
    text = in_words(stepped.study(), ZoneInfo("Europe/London"))
    assert f"fourview reprocess --from-orthanc {uid('study')}" in text
    assert f"{image(View.L_CC).SOPInstanceUID}  Normal " in text and "on demand: read because a person asked" in text
    stepped.receive(image(View.R_CC))
    assert "becomes an exam" not in in_words(stepped.study(), ZoneInfo("Europe/London"))


def test_asked_for_and_sent_at_the_same_moment(stepped: SteppedStore) -> None:
    """Whoever is first: each image is there once, counts as received, and its row links to a file that is there."""
    for number in range(6):
        images = exam(study=f"race {number}")
        together = threading.Barrier(2 * len(images), timeout=20)

        def at_once(do: Callable[..., Any], ds: Dataset, together: threading.Barrier = together) -> Any:
            together.wait()
            return do(ds)

        with ThreadPoolExecutor(2 * len(images)) as pool:
            asked = [pool.submit(at_once, partial(ask, stepped), ds) for ds in images]
            sent = [pool.submit(at_once, stepped.receive, ds) for ds in images]
            assert [one.result() for one in sent] == [[Kept.NEW]] * 4
            scores = [one.result()[0].score_id for one in asked]
        stepped.settle()
        assert all(one.scores for one in book(stepped).answers(scores).values())
        assert stepped.state(f"race {number}") == "analysed"
        assert [one["outcome"] for one in stepped.versions(f"race {number}")] == ["COMPLETE"]
        assert list(stepped.dispositions(f"race {number}").values()) == [["candidate"]] * 4
    kept = stepped.rows(sa.select(tables.instance.c.file_name, tables.instance.c.origin))
    assert len(kept) == 24 and {one.origin for one in kept} == {"received"}
    assert all(stepped.files.path(one.file_name).is_file() for one in kept)
    assert len(stepped.scored) == 24


# -------------------------------------------------------------------------------------------------------------- a person sends it

IGNORES = FixedRuling(action="ignore", rule_name="", reason="no rule matches", send_to=())


def press_send(stepped: SteppedStore, name: str = "s1", *, work: bool = True, **where: Any) -> str | None:
    book(stepped).send(uid("study"), request_id=name, person="Kim", why="she asked", **where)
    if work:
        stepped.work()
    return stepped.answer(name)


def sent_to(stepped: SteppedStore) -> set[tuple[str, str]]:
    return {(one["destination"], one["state"]) for one in stepped.study()["deliveries"]}


def timeline(stepped: SteppedStore) -> list[str]:
    return [one["text"] for one in stepped.study()["timeline"]]


@pytest.mark.parametrize("wait", [0.0, 60.0])
@pytest.mark.parametrize("read", [True, False], ids=["read", "waiting"])
def test_a_study_that_a_person_sends_is_analysed_and_sent_whatever_the_rules_say(stepped: SteppedStore, read: bool, wait: float) -> None:
    stepped.ruling, stepped.policy = IGNORES, replace(stepped.policy, wait_for_retake_seconds=wait)
    asked = ask(stepped, *exam())
    if read:
        stepped.settle()
    stepped.step(3600)
    assert press_send(stepped, otherwise=["pacs"]) == "accepted"
    assert stepped.state() == "analysed" and [one["outcome"] for one in stepped.versions()] == ["COMPLETE"]
    assert sent_to(stepped) == {("pacs", "waiting")} and len(stepped.study()["deliveries"]) == 2
    assert stepped.search.asked("s1")["sent_to"] == ["pacs"]
    assert len(stepped.scored) == 4 and all(answers(stepped, asked)), "what was read on demand is not read again"
    kept = stepped.rows(sa.select(tables.instance))
    assert {(one.origin, one.disposition, one.received_at) for one in kept} == {(ORIGIN, "candidate", stepped.now)}
    row = study_row(stepped)
    assert row.first_instance_at == row.collecting_since == row.last_instance_at == stepped.now and row.revision == 1
    assert stepped.study()["rule"]["reason"] == "no rule matches; a person sends it"
    said = timeline(stepped)
    assert "Kim asked to send: she asked" in said and "4 images that were read on demand count as received now" in said
    assert "send: accepted" in said and "analysing: a person sends it to pacs" in said
    stepped.settle()
    assert len(stepped.versions()) == 1 and stepped.receive(*exam()) == [Kept.DUPLICATE] * 4
    assert Condition(stepped.engine).senders() == [], "it is no sign of life of a sender"


def test_the_look_that_begins_to_read_answers_what_was_asked_with_it(stepped: SteppedStore) -> None:
    stepped.policy = replace(stepped.policy, wait_for_retake_seconds=0.0)
    ask(stepped, *exam())
    assert press_send(stepped) == "accepted"
    assert sent_to(stepped) == {("pacs", "waiting")} and len(stepped.versions()) == 1


@pytest.mark.parametrize("kind", ["reprocess", "release"])
def test_what_is_asked_before_the_look_that_begins_to_read_is_answered_after_it(stepped: SteppedStore, kind: str) -> None:
    stepped.policy = replace(stepped.policy, wait_for_retake_seconds=0.0)
    stepped.receive(*exam())
    answer = stepped.ask(kind, "r2")
    assert answer == "accepted" if kind == "reprocess" else "refused: it is analysed" in answer
    assert stepped.state() == "analysed" and len(stepped.versions()) == 1


def test_it_goes_where_the_person_says_else_where_the_rule_does(stepped: SteppedStore) -> None:
    ask(stepped, *exam())
    assert press_send(stepped, send_to=["archive"], otherwise=["elsewhere"]) == "accepted"
    assert {one for one, _ in sent_to(stepped)} == {"pacs", "archive"}, "a rule that sends it does so too"
    assert "Kim asked to send to archive: she asked" in timeline(stepped)
    assert press_send(stepped, "s2", send_to=["third"]) == "accepted"
    assert {one for one, _ in sent_to(stepped)} == {"pacs", "archive", "third"} and len(stepped.versions()) == 1
    acts = stepped.rows(sa.select(tables.act.c.what, tables.act.c.person, tables.act.c.parameters).order_by(tables.act.c.id))
    assert acts == [("send", "Kim", {"send_to": ["archive"]}), ("send", "Kim", {"send_to": ["third"]})]


@pytest.mark.parametrize("action", ["analyse", "hold"])
def test_what_a_person_names_is_added_to_where_the_rule_sends_it(stepped: SteppedStore, action: str) -> None:
    stepped.ruling = FixedRuling(action=action, reason="the rule", send_to=("pacs",))
    stepped.receive(*exam()[:3])
    stepped.settle()
    assert stepped.state() == ("held" if action == "hold" else "incomplete") and sent_to(stepped) == set()
    assert press_send(stepped, send_to=["archive"], otherwise=["elsewhere"]) == "accepted"
    assert stepped.search.asked("s1")["sent_to"] == ["archive", "pacs"]


def test_the_answer_does_not_say_that_it_goes_where_it_was_given_up(stepped: SteppedStore) -> None:
    stepped.ruling = IGNORES
    ask(stepped, *exam())
    assert press_send(stepped, send_to=["archive", "pacs"]) == "accepted"

    def refuse(*destinations: str) -> dict[str, Any]:
        for claim in stepped.ledger.claim():
            for one in stepped.begin(claim.workflow_id):
                if one.destination in destinations:
                    stepped.ledger.refused(one.delivery_id, 0x0122, "SOP class not supported")
                else:
                    stepped.ledger.sent(one.delivery_id, 0x0000, "", ask=False)
        return stepped.search.asked("s1")

    found = refuse("pacs")
    assert (found["sent_to"], found["given_up"]) == (["archive"], ["pacs"])
    assert _words(found, "accepted", worker=True).endswith("; it goes to archive; given up at pacs (`fourview show` says why)")
    with stepped.engine.begin() as connection:
        connection.execute(sa.update(tables.delivery).values(state="expired", due_at=None))
    found = stepped.search.asked("s1")
    assert (found["sent_to"], found["given_up"]) == ([], ["archive", "pacs"])
    said = _words(found, "accepted", worker=True)
    assert "it goes to" not in said and said.endswith("; given up at archive, pacs (`fourview show` says why)")


def test_when_nothing_says_where_to_it_is_refused(stepped: SteppedStore) -> None:
    stepped.ruling = IGNORES
    ask(stepped, *exam())
    answer = press_send(stepped)
    assert answer is not None and answer.startswith("refused: nothing says where to send it")
    stepped.settle()
    assert stepped.state() == "ignored" and stepped.versions() == []


def test_the_same_request_is_done_once(stepped: SteppedStore) -> None:
    ask(stepped, *exam())
    for _ in range(3):
        press_send(stepped, send_to=["pacs"])
    assert timeline(stepped).count("Kim asked to send to pacs: she asked") == 1 and len(stepped.versions()) == 1
    with pytest.raises(AnotherRequest):
        press_send(stepped, send_to=["archive"])
    press_send(stepped, send_to=["pacs"], otherwise=["added to the configuration since"])
    assert timeline(stepped).count("Kim asked to send to pacs: she asked") == 1
    with pytest.raises(UnknownStudy):
        book(stepped).send("1.2.3", request_id="other", person="Kim")


def test_fewer_than_four_views_make_a_result_that_says_so(stepped: SteppedStore) -> None:
    stepped.ruling = IGNORES
    ask(stepped, *exam()[:3])
    assert press_send(stepped, otherwise=["pacs"]) == "accepted"
    assert [one["outcome"] for one in stepped.versions()] == ["PARTIAL"] and sent_to(stepped) == {("pacs", "waiting")}


def test_what_fills_no_slot_cannot_be_sent(stepped: SteppedStore) -> None:
    ask(stepped, image(View.L_CC, SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.3"))
    answer = press_send(stepped, otherwise=["pacs"])
    assert answer is not None and "no image of this study fills one of the four views" in answer
    assert stepped.versions() == [] and [*stepped.dispositions().values()] == [["set aside"]]


def test_a_doubt_is_told_and_nothing_is_sent_until_it_is_settled(stepped: SteppedStore) -> None:
    for rule in (FixedRuling(), IGNORES):
        stepped.ruling = rule
        study = {"StudyInstanceUID": uid("doubtful", rule.action)}
        of_study = [image(view, **study) for view in HANGING_ORDER[1:]] + [
            image(HANGING_ORDER[0], PatientID="P2", PatientName="Roe", **study)
        ]
        ask(stepped, *of_study)
        name = f"s-{rule.action}"
        book(stepped).send(study["StudyInstanceUID"], request_id=name, person="Kim", otherwise=["pacs"])
        stepped.work()
        answer = stepped.answer(name)
        assert answer is not None and answer.startswith("refused: ") and "--accept-patient" in answer
        found = stepped.search.study(study["StudyInstanceUID"])
        assert found["runs"] == found["deliveries"] == []
        release = Release(patient_of=str(of_study[0].SOPInstanceUID), accept_patient=True)
        stepped.archive.request(study["StudyInstanceUID"], RequestKind.RELEASE, request_id=f"r-{name}", person="Kim", release=release)
        stepped.work()
        book(stepped).send(study["StudyInstanceUID"], request_id=f"{name}-again", person="Kim", otherwise=["pacs"])
        stepped.work()
        assert stepped.answer(f"{name}-again") == "accepted"
        found = stepped.search.study(study["StudyInstanceUID"])
        assert found["state"] == "analysed" and len(found["deliveries"]) == 2 * len(found["runs"])


def test_images_whose_pixels_are_gone_are_refused_until_they_come_again(stepped: SteppedStore) -> None:
    stepped.ruling = IGNORES
    ask(stepped, *exam())
    stepped.settle()
    stepped.step(10 * DAY)
    assert retire(stepped.retention(7, 90), stepped.files)
    before = study_row(stepped)
    answer = press_send(stepped, otherwise=["pacs"])
    assert answer is not None and answer.startswith("refused: the pixels of 4 of the images") and "--from-orthanc" in answer
    after = study_row(stepped)
    assert after.state == before.state == "ignored" and after.first_instance_at == before.first_instance_at
    assert set(stepped.study()["slots"].values()) == {None} and f"send: {answer}" in timeline(stepped)
    assert stepped.receive(*exam(), sender="ORTHANC") == [Kept.NEW] * 4
    stepped.settle()
    assert press_send(stepped, "s2", otherwise=["pacs"]) == "accepted"
    assert sent_to(stepped) == {("pacs", "waiting")}


def test_a_study_that_the_rules_ignored_can_be_sent_too(stepped: SteppedStore) -> None:
    """Nothing of it was read on demand; it was reprocessed to be looked at, and now the person wants it in the PACS."""
    stepped.ruling = IGNORES
    stepped.receive(*exam())
    stepped.settle()
    assert stepped.ask("reprocess") == "accepted" and len(stepped.versions()) == 1 and sent_to(stepped) == set()
    assert press_send(stepped, otherwise=["pacs"]) == "accepted"
    assert len(stepped.versions()) == 1 and sent_to(stepped) == {("pacs", "waiting")}, "the same result, sent now"


def test_what_comes_after_it_was_sent_makes_the_next_version_for_the_same_place(stepped: SteppedStore) -> None:
    """Or what a PACS shows would no longer hold, and nobody would learn it there."""
    stepped.ruling = IGNORES
    ask(stepped, *exam())
    press_send(stepped, otherwise=["pacs"])
    stepped.receive(image(View.L_CC, "retake"))
    stepped.settle()
    assert [one["outcome"] for one in stepped.versions()] == ["COMPLETE", "COMPLETE"] and len(stepped.study()["deliveries"]) == 4
    stepped.receive(rejection(*exam(), image(View.L_CC, "retake")))
    stepped.settle()
    assert stepped.state() == "withdrawn" and stepped.versions()[-1]["outcome"] == "WITHDRAWN"


def test_a_rule_that_holds_holds_again_what_comes_later(stepped: SteppedStore) -> None:
    stepped.ruling = FixedRuling(action="hold", reason="somebody shall look")
    ask(stepped, *exam())
    assert press_send(stepped) == "accepted" and sent_to(stepped) == {("pacs", "waiting")}
    stepped.receive(image(View.L_CC, "retake"))
    stepped.settle()
    assert stepped.state() == "held" and len(stepped.versions()) == 1


def test_what_a_person_sent_and_has_read_anew_goes_there_again_though_a_rule_holds_it(stepped: SteppedStore) -> None:
    """Or the PACS would keep version 1 while version 2 stands here."""
    stepped.ruling = FixedRuling(action="hold", reason="somebody shall look", send_to=())
    stepped.receive(*exam())
    stepped.settle()
    assert press_send(stepped, send_to=["pacs"]) == "accepted" and len(stepped.study()["deliveries"]) == 2
    stepped.policy = replace(stepped.policy, model=replace(stepped.policy.model, weights_sha256="b" * 64))
    assert stepped.ask("reprocess") == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and len(stepped.versions()) == 2
    assert [one["destination"] for one in stepped.study()["deliveries"]] == ["pacs"] * 4
    assert stepped.search.asked("r1")["sent_to"] == ["pacs"]


def test_to_be_read_again_and_sent_can_be_asked_at_the_same_time(stepped: SteppedStore) -> None:
    stepped.ruling = IGNORES
    stepped.receive(*exam())
    stepped.settle()
    stepped.archive.request(uid("study"), RequestKind.REPROCESS, request_id="r1", person="Kim")
    assert press_send(stepped, otherwise=["pacs"]) == "accepted" and stepped.answer("r1") == "accepted"
    assert len(stepped.versions()) == 1 and sent_to(stepped) == {("pacs", "waiting")}


def test_images_that_were_sent_and_others_that_were_dropped_make_one_result(stepped: SteppedStore) -> None:
    stepped.receive(*exam()[:3])
    stepped.settle()
    assert stepped.state() == "incomplete"
    ask(stepped, exam()[3])
    assert press_send(stepped) == "accepted"
    assert [one["outcome"] for one in stepped.versions()] == ["COMPLETE"] and sent_to(stepped) == {("pacs", "waiting")}
