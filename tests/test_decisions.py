"""Doubts, what people decide about them, withdrawals, corrected demographics: on SQLite and PostgreSQL with a clock that stands still."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import sqlalchemy as sa
from mammograms_made import uid
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, JPEG2000Lossless
from stepped_store import CEILING, FixedRuling, SteppedStore, exam, image, implicit, rejection

from pipeline.upkeep import retire
from store import tables
from store.ledger import DeliveryState
from store.listing import Listing, Wanted
from store.study import HANGING_ORDER, View, WhenIncomplete

STUDY = uid("study")
L_CC, R_CC, L_MLO, R_MLO = View.L_CC, View.R_CC, View.L_MLO, View.R_MLO


def outcomes(stepped: SteppedStore) -> list[str]:
    return [version["outcome"] for version in stepped.versions()]


def doubts(stepped: SteppedStore) -> list[dict[str, object]]:
    return list(stepped.study()["doubts"])


def choices(stepped: SteppedStore) -> set[str]:
    return {choice for doubt in stepped.study()["doubts"] for choice in doubt["choices"]}


def timeline(stepped: SteppedStore) -> str:
    return "\n".join(line["text"] for line in stepped.study()["timeline"])


def send_all(stepped: SteppedStore) -> set[str]:
    """Send what is due, as if every destination answered Success; the SOP Instance UIDs."""
    sent = set()
    while claims := stepped.ledger.claim():
        for claim in claims:
            for one in stepped.begin(claim.workflow_id):
                stepped.ledger.sent(one.delivery_id, 0, "", ask=False)
                sent.add(one.sop_instance_uid)
    return sent


def contradictory(name: str = "wrong side") -> Dataset:
    """It says L, its orientation and its pixels say R."""
    return image(L_CC, name, PatientOrientation=["P", "L"])


# ------------------------------------------------------------------------------------------------------------- the stated side


def test_a_side_against_which_both_witnesses_speak_is_held(stepped: SteppedStore) -> None:
    wrong = contradictory()
    stepped.edges[wrong.SOPInstanceUID] = "right"
    stepped.receive(wrong, *exam()[2:], image(R_CC))
    stepped.settle()
    assert stepped.state() == "held" and stepped.versions() == []
    [doubt] = doubts(stepped)
    assert "PatientOrientation" in str(doubt["reason"]) and "right edge" in str(doubt["reason"])
    assert choices(stepped) == {f"--view {wrong.SOPInstanceUID}=VIEW", f"--exclude {wrong.SOPInstanceUID}"}


@pytest.mark.parametrize("witness", ["orientation", "pixels"])
def test_one_witness_alone_is_a_warning_and_counted(stepped: SteppedStore, witness: str) -> None:
    odd = contradictory() if witness == "orientation" else image(L_CC, "odd")
    stepped.edges[odd.SOPInstanceUID] = "left" if witness == "orientation" else "right"
    stepped.receive(odd, image(R_CC), *exam()[2:])
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"]
    assert any(warning.startswith("L-CC: ") and "does not fit side L" in warning for warning in stepped.versions()[0]["warnings"])
    stepped.rows(sa.select(tables.study))
    with stepped.engine.begin() as connection:  # the listing counts days by the database's clock, the stepped one stands in the past
        connection.execute(sa.update(tables.instance).values(resolved_at=sa.func.current_timestamp()))
    [device] = stepped.search.devices(1.0)
    assert (device["images"], device["views"]) == (4, 4)
    assert (device["orientation_contradicts"], device["pixels_contradict"]) == ((1, 0) if witness == "orientation" else (0, 1))


def test_a_doubt_that_only_the_pixels_complete_stops_what_was_not_sent(stepped: SteppedStore) -> None:
    """The header alone is only warned of; the doubt comes with the pixels, while the study is being analysed."""
    wrong = contradictory()
    stepped.edges[wrong.SOPInstanceUID] = "right"
    stepped.receive(wrong, image(R_CC), *exam()[2:])
    stepped.work(read=False)
    stepped.step(60)
    stepped.work(read=False)
    assert stepped.state() == "analysing"
    stepped.settle()
    assert stepped.state() == "held" and stepped.study()["deliveries"] == []


# -------------------------------------------------------------------------------------------------------------------- release


def test_a_release_that_does_not_remove_the_reason_is_refused_with_the_choices(stepped: SteppedStore) -> None:
    wrong = image(L_CC, Laterality="R", ImageLaterality=None, AnatomicRegionSequence=[_left_breast()])
    stepped.receive(wrong, *exam()[:1], *exam()[2:])
    stepped.settle()
    assert stepped.state() == "held"
    answer = str(stepped.ask("release"))
    assert answer.startswith("refused") and f"--exclude {wrong.SOPInstanceUID}" in answer and "--view" in answer
    assert stepped.state() == "held" and stepped.versions() == []
    assert "is excluded and given a view at once" in str(
        stepped.ask("release", "r2", exclude=(wrong.SOPInstanceUID,), view={wrong.SOPInstanceUID: L_CC})
    )
    assert "no image 1.2.3 in this study" in str(stepped.ask("release", "r3", exclude=("1.2.3",)))
    assert "no file 999999" in str(stepped.ask("release", "r4", use_file=(999999,)))


def _left_breast() -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "80248007", "SCT", "Left breast"
    return item


def test_a_side_assigned_by_a_person_is_read_and_said(stepped: SteppedStore) -> None:
    wrong = contradictory()
    stepped.edges[wrong.SOPInstanceUID] = "right"
    stepped.receive(wrong, image(R_CC), *exam()[2:])
    stepped.settle()
    assert stepped.ask("release", why="the label on the film says L", view={wrong.SOPInstanceUID: L_CC}) == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and outcomes(stepped) == ["COMPLETE"] and doubts(stepped) == []
    assert stepped.selected()[L_CC] == wrong.SOPInstanceUID and len(stepped.study()["deliveries"]) == 2
    said = timeline(stepped)
    assert f"Kim asked to release --view {wrong.SOPInstanceUID}=L-CC: the label on the film says L" in said
    stepped.receive(image(R_MLO, "retake", AcquisitionTime="110000"))
    stepped.settle()
    assert stepped.state() == "analysed" and len(outcomes(stepped)) == 2, "the decision stands for what comes later"


def test_a_person_may_say_the_other_side(stepped: SteppedStore) -> None:
    wrong = contradictory()
    stepped.edges[wrong.SOPInstanceUID] = "right"
    stepped.receive(wrong, image(L_CC, "the left one"), *exam()[2:])
    stepped.settle()
    assert stepped.ask("release", view={wrong.SOPInstanceUID: R_CC}) == "accepted"
    stepped.settle()
    assert stepped.selected()[R_CC] == wrong.SOPInstanceUID and outcomes(stepped) == ["COMPLETE"]


def test_an_image_without_a_named_view_can_be_given_one_but_a_slice_cannot(stepped: SteppedStore) -> None:
    nameless = image(L_CC, "nameless", ViewCodeSequence=None, ViewPosition=None)
    tomo = image(L_MLO, "tomo", ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"])
    stepped.receive(nameless, tomo, *(ds for ds in exam() if ds.ViewPosition == "MLO" or ds.ImageLaterality == "R"))
    stepped.settle()
    assert stepped.state() == "incomplete"
    assert "cannot fill a slot" in str(stepped.ask("release", "r1", view={tomo.SOPInstanceUID: L_MLO}))
    assert stepped.ask("release", "r2", view={nameless.SOPInstanceUID: L_CC}) == "accepted"
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"] and stepped.selected()[L_CC] == nameless.SOPInstanceUID


def test_an_excluded_image_stays_out(stepped: SteppedStore) -> None:
    stranger = image(L_CC, "another patient", PatientID="P2", AcquisitionTime="120000")
    stepped.receive(*exam(), stranger)
    stepped.settle()
    assert stepped.state() == "held"
    assert stepped.ask("release", exclude=(stranger.SOPInstanceUID,)) == "accepted"
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"] and stranger.SOPInstanceUID not in stepped.selected().values()
    assert stepped.dispositions()[stranger.SOPInstanceUID] == ["excluded"]
    assert "excluded by an operator: 1 image" in stepped.versions()[0]["warnings"]
    stepped.receive(implicit(stranger))
    stepped.settle()
    assert stepped.state() == "analysed" and len(stepped.versions()) == 1, "in other bytes it is the same image"


def test_people_are_shown_the_patient_whom_the_result_names(stepped: SteppedStore) -> None:
    """The first image to come named another patient, and a person excluded it."""
    stranger = image(R_MLO, "stranger", PatientID="A", PatientName="Wrong^Anna", PatientBirthDate="19500101")
    stepped.receive(stranger)
    stepped.work()
    right = {"PatientID": "B", "PatientName": "Right^Berta", "PatientBirthDate": "19600101"}
    stepped.receive(*exam(**right))
    stepped.settle()
    assert stepped.state() == "held"
    assert stepped.ask("release", exclude=(stranger.SOPInstanceUID,)) == "accepted"
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"]
    assert stepped.study()["patient"] == {"patient_id": "B", "patient_name": "Right^Berta", "patient_birth_date": "19600101"}
    listing = Listing(stepped.engine)
    assert [one["patient_name"] for one in listing.studies(Wanted(patient_id="B")).studies] == ["Right^Berta"]
    assert listing.studies(Wanted(patient_id="A")).studies == []


def test_what_is_not_read_says_nothing_of_the_patient(stepped: SteppedStore) -> None:
    stepped.receive(image(L_CC, "report", PatientID="A", Modality="OT", ImageType=["DERIVED", "SECONDARY"]))
    stepped.receive(*exam(PatientID="B"))
    stepped.settle()
    assert stepped.study()["patient"]["patient_id"] == "B"


def test_excluding_everything_is_refused(stepped: SteppedStore) -> None:
    stepped.receive(*exam()[:3], image(L_MLO, PatientID="P2"))
    stepped.settle()
    every = tuple(ds.SOPInstanceUID for ds in exam())
    assert "no image of this study fills" in str(stepped.ask("release", exclude=every))
    assert stepped.state() == "held" and "excluded" not in str(stepped.dispositions())


# -------------------------------------------------------------------------------------------------------------------- patient


def test_a_corrected_patient_is_accepted_as_the_newest_images_name_it(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    stepped.receive(*exam(PatientID="P1-corrected"))  # the PACS corrected the patient and sends everything again
    stepped.settle()
    assert stepped.state() == "held" and "--accept-patient" in choices(stepped)
    assert stepped.ask("release", accept_patient=True) == "accepted"
    stepped.settle()
    first, second = stepped.versions()
    assert second["run_id"] == first["run_id"] and len(stepped.scored) == 4, "not read again"
    assert _named(stepped) == "P1-corrected"
    stepped.receive(image(R_MLO, "third patient", PatientID="P3"))
    stepped.settle()
    assert stepped.state() == "held", "what was accepted were those two names, not any other"


def _named(stepped: SteppedStore) -> str:
    """The patient that the next version would name."""
    stepped.ask("reprocess", f"look {len(stepped.versions())}")
    [seen] = {str(read.header.PatientID) for read in stepped.readings[-1].views}
    assert stepped.study()["patient"]["patient_id"] == seen, "people are shown the same"
    return seen


def test_when_the_images_still_differ_a_person_says_which_is_right(stepped: SteppedStore) -> None:
    views = exam()
    stepped.receive(*views[:3], image(L_MLO, PatientID="P2", PatientName="Other^Name"))
    stepped.settle()
    answer = str(stepped.ask("release", "r1", accept_patient=True))
    assert answer.startswith("refused") and f"--patient-of {views[0].SOPInstanceUID}" in answer
    assert stepped.ask("release", "r2", accept_patient=True, patient_of=views[0].SOPInstanceUID) == "accepted"
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"] and _named(stepped) == "P1"
    assert any("patient accepted by an operator" in warning for warning in stepped.versions()[0]["warnings"])


def test_the_patient_of_an_excluded_image_is_never_named(stepped: SteppedStore) -> None:
    stranger = image(L_MLO, "stranger", PatientID="P2", PatientName="Roe^Mary")
    stepped.receive(*exam(), stranger)
    stepped.settle()
    both = {"exclude": (stranger.SOPInstanceUID,), "accept_patient": True, "patient_of": stranger.SOPInstanceUID}
    assert "cannot say whose the others are" in str(stepped.ask("release", "r1", **both))
    assert stepped.ask("release", "r2", accept_patient=True, patient_of=stranger.SOPInstanceUID) == "accepted"
    stepped.settle()
    assert stepped.ask("release", "r3", exclude=(stranger.SOPInstanceUID,)) == "accepted"
    stepped.settle()
    assert {str(read.header.PatientID) for read in stepped.readings[-1].views} == {"P1"}


# -------------------------------------------------------------------------------------------------------- files of one image


def test_a_person_chooses_between_two_files_of_one_image(stepped: SteppedStore) -> None:
    views = exam()
    other = image(R_CC)
    other.PixelData = image(R_CC, "other pixels").PixelData
    stepped.receive(*views, other)
    stepped.settle()
    assert stepped.state() == "held"
    [first, second] = [one["file"] for one in stepped.study()["images"] if one["sop_instance_uid"] == other.SOPInstanceUID]
    assert {f"--use-file {first}", f"--use-file {second}"} <= choices(stepped)
    assert "another file is named too" in str(stepped.ask("release", "r0", use_file=(first, second)))
    assert stepped.ask("release", use_file=(second,)) == "accepted"
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"] and stepped.dispositions()[other.SOPInstanceUID] == ["excluded", "candidate"]
    assert "excluded by an operator" not in str(stepped.versions()[0]["warnings"]), "no image is left out"


def test_a_lossless_copy_stands_for_a_lossy_one_in_every_order(stepped: SteppedStore) -> None:
    runs = set()
    for number, order in enumerate(permutations(("exam", "lossy", "late"), 3)):
        name = f"order {number}"
        views = exam(study=name)
        for place, ds in enumerate(views):
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid("shared", place)
        lossy = image(R_CC, "lossy pixels", study=name, LossyImageCompression="01")
        lossy.SOPInstanceUID = lossy.file_meta.MediaStorageSOPInstanceUID = uid("shared", 0)
        for what in order:
            if what == "late":
                stepped.settle()
            else:
                stepped.receive(*(views if what == "exam" else [lossy]))
        stepped.settle()
        assert stepped.state(name) == "analysed"
        last = stepped.versions(name)[-1]
        runs.add(tuple((view, slot["pixel_hash"]) for view, slot in last["selection"].items()))
    assert len(runs) == 1


@pytest.mark.parametrize("late", [False, True])
def test_two_lossy_versions_are_a_warning_and_their_order_does_not_matter(stepped: SteppedStore, late: bool) -> None:
    selected = set()
    for number, order in enumerate(((0, 1), (1, 0))):
        name = f"order {number}"
        lossy = [image(R_CC, f"lossy {which}", LossyImageCompression="01", study=name) for which in range(2)]
        for ds in lossy:
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid("lossy image")
            ds.StudyInstanceUID = uid("one study") + str(number)
        rest = exam(study=name)[1:]
        for ds in rest:
            ds.StudyInstanceUID = uid("one study") + str(number)
        stepped.receive(*rest, lossy[order[0]])
        if late:
            stepped.settle()
        stepped.receive(lossy[order[1]])
        stepped.settle()
        study = stepped.search.study(uid("one study") + str(number))
        assert study["state"] == "analysed"
        assert any("several lossy compressed versions" in warning for warning in study["runs"][-1]["warnings"])
        selected.add(study["runs"][-1]["selection"]["R-CC"]["pixel_hash"])
    assert len(selected) == 1
    assert JPEG2000Lossless != JPEG2000  # the flag is what counts here, not the transfer syntax


# ---------------------------------------------------------------------------------------------------------- other reasons to hold


def test_what_a_rule_holds_goes_where_the_rule_says_when_a_person_releases_it(stepped: SteppedStore) -> None:
    stepped.ruling = FixedRuling(action="hold", reason="the rule wants to see it", send_to=("pacs",))
    stepped.receive(*exam())
    stepped.settle()
    assert stepped.state() == "held" and stepped.scored == [], "nothing is read early of what a rule holds"
    assert stepped.ask("release") == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and outcomes(stepped) == ["COMPLETE"] and len(stepped.study()["deliveries"]) == 2
    assert "a person released it" in stepped.study()["rule"]["reason"]


def test_an_incomplete_study_is_released_as_partial(stepped: SteppedStore) -> None:
    stepped.receive(*exam()[:3])
    stepped.settle()
    assert stepped.state() == "incomplete"
    assert stepped.ask("release") == "accepted"
    stepped.settle()
    assert outcomes(stepped) == ["PARTIAL"] and len(stepped.study()["deliveries"]) == 2


def test_there_is_nothing_to_release_of_a_study_that_goes_its_way(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.work()
    assert "nothing to release" in str(stepped.ask("release", "r1"))
    stepped.settle()
    assert "nothing to release" in str(stepped.ask("release", "r2")) and len(stepped.versions()) == 1


# ------------------------------------------------------------------------------------------------------------------ withdrawal


def test_what_was_sent_is_taken_back(stepped: SteppedStore) -> None:
    stepped.ruling = FixedRuling(send_to=("pacs", "viewer"))
    stepped.receive(*exam())
    stepped.settle()
    [pacs, viewer] = stepped.ledger.claim()
    for one in stepped.begin(pacs.workflow_id):
        stepped.ledger.sent(one.delivery_id, 0, "", ask=False)
    stepped.claims.release([viewer.workflow_id], "not begun")
    assert stepped.ask("withdraw", why="wrong patient") == "accepted"
    stepped.settle()
    assert stepped.state() == "withdrawn" and outcomes(stepped) == ["COMPLETE", "WITHDRAWN"]
    states = {(one["destination"], one["state"]) for one in stepped.study()["deliveries"]}
    assert states == {("pacs", "sent"), ("viewer", "cancelled"), ("pacs", "waiting"), ("viewer", "waiting")}, "what was begun may be there"
    withdrawn = {one["sop_instance_uid"] for one in stepped.versions()[1]["objects"]}
    assert send_all(stepped) == withdrawn
    assert "Kim asked to withdraw: wrong patient" in timeline(stepped)
    assert "Kim" not in str(stepped.versions()[1]["warnings"]), "a person's name and words go into no result"
    assert stepped.versions()[1]["run_id"] == stepped.versions()[0]["run_id"], "it says what it withdraws"
    assert stepped.ask("withdraw", "again") == "it is withdrawn already"
    assert stepped.ask("reprocess", "r3") == "accepted"
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE", "WITHDRAWN", "COMPLETE"] and stepped.state() == "analysed"


def test_what_a_dead_worker_may_have_sent_is_taken_back(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    [claim] = stepped.ledger.claim()
    stepped.claims.release([claim.workflow_id], "its worker died")  # perhaps after the last byte
    stepped.ask("withdraw")
    stepped.settle()
    assert send_all(stepped) == {one["sop_instance_uid"] for one in stepped.versions()[1]["objects"]}


def test_what_was_on_its_way_when_it_was_withdrawn_is_taken_back_too(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    [claim] = stepped.ledger.claim()
    batch = stepped.begin(claim.workflow_id)  # the association is open now
    stepped.ask("withdraw")
    stepped.settle()
    stepped.ledger.sent(batch[0].delivery_id, 0, "", ask=False)
    stepped.ledger.not_sent(batch[1].delivery_id, None, "the association broke", retry_days=3)
    before = {one["sop_instance_uid"]: one["state"] for one in stepped.study()["deliveries"]}
    assert before[batch[0].sop_instance_uid] == DeliveryState.SENT and before[batch[1].sop_instance_uid] == DeliveryState.CANCELLED
    assert send_all(stepped) == {one["sop_instance_uid"] for one in stepped.versions()[1]["objects"]}


def test_a_withdrawal_during_analysing_is_said_and_nothing_is_sent(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.step(60)
    stepped.work(read=False)
    assert stepped.state() == "analysing"
    assert stepped.ask("withdraw") == "accepted"
    stepped.settle()
    assert stepped.state() == "withdrawn" and stepped.study()["deliveries"] == []
    assert outcomes(stepped) in (["COMPLETE", "WITHDRAWN"], [])


@pytest.mark.parametrize("title", ["113037", "113038"])
def test_a_wrong_worklist_entry_of_one_used_image_voids_the_result(stepped: SteppedStore, title: str) -> None:
    stepped.receive(*exam(), image(L_CC, "spare", AcquisitionTime="090000"))
    stepped.settle()
    assert send_all(stepped)
    stepped.receive(rejection(exam()[1], title=title))
    stepped.settle()
    assert stepped.state() == "withdrawn" and outcomes(stepped) == ["COMPLETE", "WITHDRAWN"]
    assert stepped.ask("reprocess") == "accepted", "a person may say that the rest is right"
    stepped.settle()
    assert outcomes(stepped)[-1] == "COMPLETE" and stepped.selected()[L_CC] == uid("study", "image", L_CC.value, "spare")
    assert stepped.state() == "analysed"


@pytest.mark.parametrize("title", ["113037", "113038"])
def test_before_the_result_it_only_takes_the_image_out(stepped: SteppedStore, title: str) -> None:
    stepped.receive(*exam(), image(L_CC, "spare", AcquisitionTime="090000"), rejection(exam()[1], title=title))
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"] and stepped.selected()[L_CC] == uid("study", "image", L_CC.value, "spare")


def test_an_expired_retention_takes_only_the_pixels(stepped: SteppedStore) -> None:
    stepped.receive(*exam(), rejection(exam()[0], exam()[1], title="113039"))
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"]
    assert retire(stepped.retention(30, 30), stepped.files)["images_removed"] == 0, "not while a delivery is owed"
    send_all(stepped)
    assert retire(stepped.retention(30, 30), stepped.files)["images_removed"] == 2
    assert stepped.state() == "analysed"


# ---------------------------------------------------------------------------------------------------------------- demographics


def test_a_corrected_name_makes_a_new_version_without_reading_again(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    stepped.receive(*exam(PatientName="Smith^Jane"))
    stepped.settle()
    first, second = stepped.versions()
    assert first["run_id"] == second["run_id"] and len(stepped.scored) == 4
    assert stepped.state() == "analysed"
    [named] = {str(read.header.PatientName) for read in stepped.readings[-1].views}
    assert named == stepped.study()["patient"]["patient_name"] == "Smith^Jane"
    stepped.receive(*exam())  # an old copy, known byte for byte
    stepped.settle()
    assert len(stepped.versions()) == 2


# ------------------------------------------------------------------------------------------------------------- expected slots


def test_a_rule_that_expects_one_side_does_not_wait_for_the_other(stepped: SteppedStore) -> None:
    stepped.ruling = FixedRuling(slots=(L_CC, L_MLO))
    stepped.receive(image(L_CC), image(L_MLO))
    stepped.work()
    assert (stepped.study()["due_at"] - stepped.now).total_seconds() == 60
    assert "the rule expects no others" in stepped.study()["state_reason"]
    stepped.settle()
    assert outcomes(stepped) == ["UNILATERAL"] and stepped.study()["rule"]["slots"] == ["L-CC", "L-MLO"]


def test_an_image_of_the_other_side_makes_its_slots_expected(stepped: SteppedStore) -> None:
    stepped.ruling = FixedRuling(slots=(L_CC, L_MLO), when_incomplete=WhenIncomplete.ANALYSE)
    stepped.receive(image(L_CC), image(L_MLO), image(R_CC))
    stepped.step(61)
    stepped.work()
    assert stepped.state() == "collecting" and "R-MLO" in stepped.study()["state_reason"]
    stepped.step(CEILING)
    stepped.settle()
    assert outcomes(stepped) == ["PARTIAL"], "the rule overrules what the site says of incomplete studies"


def test_the_other_side_alone_is_not_what_the_rule_expects(stepped: SteppedStore) -> None:
    stepped.ruling = FixedRuling(slots=(L_CC, L_MLO))
    stepped.receive(image(R_CC), image(R_MLO))
    stepped.settle()
    assert stepped.state() == "incomplete"


# ---------------------------------------------------------------------------------------------------------------------- losers


def test_a_loser_that_scores_another_class_is_named(stepped: SteppedStore) -> None:
    stepped.classes[uid("study", "image", L_CC.value, "earlier")] = "Mass"
    stepped.receive(*exam(), image(L_CC, "earlier", AcquisitionTime="090000"))
    stepped.settle()
    [loser] = stepped.versions()[0]["losers"]
    assert loser["predicted_class"] == "Mass" and loser["rule"] == 7
    assert stepped.readings[-1].views[1].scores is not None and stepped.readings[-1].views[1].scores.predicted_class == "Normal"


# ----------------------------------------------------------------------------------------------------------------------- hints


def test_other_studies_of_the_same_patient_and_day_are_hinted_at(stepped: SteppedStore) -> None:
    for name, changes in {"study": {}, "same": {}, "other day": {"StudyDate": "20261119"}, "other patient": {"PatientID": "P9"}}.items():
        stepped.receive(*exam(study=name, **changes))
    moved = image(L_CC, study="moved", PatientID="P7")
    moved.SOPInstanceUID = moved.file_meta.MediaStorageSOPInstanceUID = exam()[1].SOPInstanceUID
    stepped.receive(moved)
    stepped.settle()
    assert stepped.study()["same_patient"] == [uid("same")]
    assert stepped.study()["same_images"] == [{"sop_instance_uid": exam()[1].SOPInstanceUID, "study_instance_uid": uid("moved")}]
    assert stepped.study("other day")["same_patient"] == []


def test_copies_that_wait_to_be_read_are_read_before_a_result_is_sent(stepped: SteppedStore) -> None:
    """The doubt that two files of one image differ must be seen before the result goes out."""
    other = image(R_CC)
    other.PixelData = image(R_CC, "other pixels").PixelData
    stepped.policy = replace(stepped.policy, wait_for_retake_seconds=0)
    stepped.receive(*exam(), other)
    stepped.settle()
    assert stepped.state() == "held" and stepped.study()["deliveries"] == []
    assert [view for view in HANGING_ORDER if view in stepped.selected()] == [] if not stepped.versions() else True
