"""Studies as they arrive, on SQLite and PostgreSQL with a clock that stands still: what is selected, reported, held, and what is not."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise, permutations
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from mammograms_made import uid
from pydicom.dataset import Dataset
from sqlalchemy.exc import OperationalError
from stepped_store import CEILING, MODEL, RETAKE, FixedRuling, SteppedStore, exam, image, implicit, made_scores, rejection

from pipeline import conclude
from pipeline.upkeep import retire
from store import rows, tables
from store.archive import Archive, Kept
from store.claims import Claims
from store.crashes import CRASHES
from store.grouping import STALLED_SECONDS, RequestKind
from store.rows import TURN_OF_THE_OLDEST, Busy, UnknownStudy, lock_study
from store.scoring import ATTEMPTS, EXPIRED_ATTEMPTS
from store.study import HANGING_ORDER, ImageKind, Outcome, View, WhenIncomplete

STUDY = uid("study")
NEW, DUPLICATE, IGNORED, OWN_RESULT = Kept.NEW, Kept.DUPLICATE, Kept.IGNORED, Kept.OWN_RESULT


def uids(*instances: Dataset) -> list[str]:
    return [str(ds.SOPInstanceUID) for ds in instances]


def outcomes(stepped: SteppedStore) -> list[str]:
    return [version["outcome"] for version in stepped.versions()]


def timeline(stepped: SteppedStore) -> str:
    return "\n".join(line["text"] for line in stepped.study()["timeline"])


def reason(stepped: SteppedStore) -> str:
    return str(stepped.study()["state_reason"])


def request(stepped: SteppedStore, name: str = "r1") -> str | None:
    """Ask for a reprocess and let it run; what the worker answered."""
    stepped.archive.request(STUDY, RequestKind.REPROCESS, request_id=name, person="Kim")
    stepped.work()
    return stepped.answer(name)


# ------------------------------------------------------------------------------------------------------------ complete studies


def test_a_complete_study_is_analysed_once(stepped: SteppedStore) -> None:
    assert stepped.receive(*exam()) == [NEW] * 4
    stepped.work()
    assert stepped.state() == "collecting" and sorted(stepped.scored) == sorted(uids(*exam())), "views are read as they arrive"
    assert (stepped.study()["due_at"] - stepped.now).total_seconds() == RETAKE
    stepped.step(RETAKE - 1)
    stepped.work()
    assert stepped.versions() == []
    stepped.step(1)
    stepped.work()
    assert stepped.state() == "analysed" and outcomes(stepped) == ["COMPLETE"]
    assert stepped.selected() == dict(zip(HANGING_ORDER, uids(*exam()), strict=True))
    assert len(stepped.study()["deliveries"]) == 2 and len(stepped.scored) == 4
    stepped.step(24 * 3600)
    stepped.work()
    assert len(stepped.versions()) == 1 and len(stepped.scored) == 4, "time alone changes nothing"


def test_the_run_is_the_same_in_every_order_of_arrival(stepped: SteppedStore) -> None:
    """Orders, pauses and resends by chance (from one seed) give the same selection."""
    chance = random.Random(1)
    found = set()
    for number, order in enumerate(chance.sample(list(permutations(range(4))), 8)):
        name = f"order {number}"
        views = exam(study=name)
        for place in order:
            # Run ids contain the UIDs; so every study has the same ones.
            views[place].StudyInstanceUID = uid(name)
            views[place].SOPInstanceUID = uid("shared", place)
            views[place].file_meta.MediaStorageSOPInstanceUID = uid("shared", place)
            stepped.receive(views[place])
            if chance.random() < 0.4:
                stepped.step(chance.choice((1, 20, 59)))
                stepped.work()
            if chance.random() < 0.3:
                assert stepped.receive(views[place]) == [DUPLICATE]
        stepped.settle()
        [version] = stepped.versions(name)
        hashes = tuple((view, slot["sop_instance_uid"], slot["pixel_hash"]) for view, slot in version["selection"].items())
        found.add((version["outcome"], hashes))
    assert len(found) == 1


def test_each_order_of_one_study_gives_the_same_run_id(stepped: SteppedStore, tmp_path_factory: pytest.TempPathFactory) -> None:
    from store.database import write_engine
    from store.upgrade import upgrade

    expected = None
    for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)):
        folder = tmp_path_factory.mktemp("order")
        engine = write_engine(f"sqlite:///{folder / 'order.db'}")
        upgrade(engine)
        other = SteppedStore(engine, folder / "files")
        other.receive(*(exam()[place] for place in order))
        other.settle()
        found = (other.versions()[0]["run_id"], other.versions()[0]["objects"])
        expected = expected or found
        assert found == expected
        engine.dispose()
    stepped.receive(*exam())
    stepped.settle()
    assert (stepped.versions()[0]["run_id"], stepped.versions()[0]["objects"]) == expected, "and so does the other database"


def test_two_studies_interleaved_stay_apart(stepped: SteppedStore) -> None:
    for one, other in zip(exam(study="a"), exam(study="b", PatientID="P2"), strict=True):
        stepped.receive(one)
        stepped.receive(other)
        stepped.work()
    stepped.settle()
    assert [stepped.state("a"), stepped.state("b")] == ["analysed", "analysed"]
    assert stepped.selected(study="a") != stepped.selected(study="b")


# ---------------------------------------------------------------------------------------------------------- the same image again


def test_the_same_bytes_again_are_no_news(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    assert stepped.receive(*exam()) == [DUPLICATE] * 4
    stepped.settle()
    assert stepped.state() == "analysed" and len(stepped.versions()) == 1
    assert stepped.study()["revision"] == 1 and len(stepped.study()["images"]) == 4


@pytest.mark.parametrize("late", [False, True])
def test_another_transfer_syntax_is_the_same_image(stepped: SteppedStore, late: bool) -> None:
    views = exam()
    stepped.receive(*views)
    if late:
        stepped.settle()
    else:
        stepped.work()
    assert stepped.receive(implicit(views[0])) == [NEW]
    stepped.settle()
    assert stepped.state() == "analysed" and len(stepped.versions()) == 1
    assert stepped.dispositions()[views[0].SOPInstanceUID] == ["candidate", "copy"]
    assert stepped.decoded.count(views[0].SOPInstanceUID) == 2, "only its pixels tell that it is the same"
    assert stepped.scored.count(views[0].SOPInstanceUID) == 1


@pytest.mark.parametrize("moment", ["collecting", "analysing", "analysed"])
def test_other_pixels_under_one_uid_are_held(stepped: SteppedStore, moment: str) -> None:
    stepped.receive(*exam())
    stepped.work(read=moment != "analysing")
    if moment != "collecting":
        stepped.step(RETAKE)
        stepped.work(read=moment != "analysing")
    assert stepped.state() == moment
    other = image(View.L_CC, "other pixels", SOPInstanceUID=exam()[1].SOPInstanceUID)
    assert stepped.receive(other) == [NEW]
    stepped.work()
    assert stepped.state() == "held" and "different pixels" in reason(stepped)
    assert "refused" in str(request(stepped))
    assert (moment == "analysed") == bool(stepped.study()["deliveries"])


def test_a_result_of_ours_that_comes_back_changes_nothing(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    before = stepped.study()
    result = image(View.L_CC, SOPInstanceUID=before["runs"][0]["objects"][0]["sop_instance_uid"], Modality="SR")
    assert stepped.receive(result) == [OWN_RESULT]
    stepped.step(1)
    stepped.work()
    after = stepped.study()
    assert {name: after[name] for name in ("state", "revision", "due_at", "runs")} == {
        name: before[name] for name in ("state", "revision", "due_at", "runs")
    }
    assert after["images"][-1]["disposition"] == "own result"


def test_removed_pixels_that_come_again_are_linked_again(stepped: SteppedStore) -> None:
    view = exam()[0]
    stepped.receive(view)
    stepped.work()
    with stepped.engine.begin() as connection:
        connection.execute(sa.update(tables.instance).values(file_name=None, pixels_removed_at=stepped.now))
    assert not stepped.study()["images"][0]["kept"]
    assert stepped.receive(view) == [NEW]
    assert [one["kept"] for one in stepped.study()["images"]] == [True]


# ------------------------------------------------------------------------------------------------------------- late and retaken


def test_a_late_view_makes_a_second_version(stepped: SteppedStore) -> None:
    stepped.policy = replace(stepped.policy, when_incomplete=WhenIncomplete.ANALYSE)
    *three, last = exam()
    stepped.receive(*three)
    stepped.settle()
    assert outcomes(stepped) == ["PARTIAL"]
    first = stepped.versions()[0]
    stepped.receive(last)
    stepped.work()
    assert stepped.state() == "collecting" and stepped.study()["revision"] == 2
    stepped.settle()
    assert outcomes(stepped) == ["PARTIAL", "COMPLETE"]
    second = stepped.versions()[1]
    assert second["number"] == 2 and second["run_id"] != first["run_id"]
    assert {one["series_instance_uid"] for one in first["objects"]} == {one["series_instance_uid"] for one in second["objects"]}
    assert len(stepped.scored) == 4, "what was read is not read again"


def test_a_retake_is_elected_and_a_rejected_one_gives_the_slot_back(stepped: SteppedStore) -> None:
    """Retaken, then the retake is rejected: a third version that says what the first said, as new objects."""
    stepped.receive(*exam())
    stepped.settle()
    retake = image(View.L_CC, "retake", AcquisitionTime="103000")
    stepped.receive(retake)
    stepped.settle()
    assert stepped.selected()[View.L_CC] == retake.SOPInstanceUID
    assert stepped.versions()[1]["losers"][0]["rule"] == 7
    stepped.receive(rejection(retake))
    stepped.settle()
    first, second, third = stepped.versions()
    assert stepped.selected()[View.L_CC] == exam()[1].SOPInstanceUID
    assert first["run_id"] == third["run_id"] != second["run_id"]
    objects = {one["sop_instance_uid"] for version in (first, second, third) for one in version["objects"]}
    assert len(objects) == 6, "a return to an earlier selection is a new version with UIDs of its own"
    causes = stepped.rows(sa.select(tables.version.c.cause, tables.version.c.object_cause).order_by(tables.version.c.number))
    assert causes[0].cause == causes[2].cause and causes[0].object_cause != causes[2].object_cause
    assert stepped.dispositions()[retake.SOPInstanceUID] == ["rejected"]
    assert len(stepped.scored) == 5


def test_a_new_image_restarts_the_wait_for_a_retake(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.step(RETAKE - 10)
    retake = image(View.R_MLO, "retake", AcquisitionTime="103000")
    stepped.receive(retake)
    stepped.step(20)
    stepped.work()
    assert stepped.state() == "collecting"
    stepped.settle()
    assert len(stepped.versions()) == 1 and stepped.selected()[View.R_MLO] == retake.SOPInstanceUID


def test_a_new_image_during_analysing_is_not_lost(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.work()
    stepped.step(RETAKE)
    stepped.work(report=False)
    assert stepped.state() == "analysing"
    retake = image(View.L_CC, "retake", AcquisitionTime="103000")
    stepped.receive(retake)
    stepped.advance(STUDY)
    stepped.report(STUDY)
    assert stepped.state() == "analysed" and stepped.selected()[View.L_CC] == exam()[1].SOPInstanceUID, (
        "the run that was on its way is saved"
    )
    stepped.settle()
    assert len(stepped.versions()) == 2 and stepped.selected()[View.L_CC] == retake.SOPInstanceUID
    assert stepped.study()["revision"] == 2


def test_an_image_that_came_just_before_the_freeze_is_not_lost(stepped: SteppedStore) -> None:
    """Kept, but its header is read only after the selection was frozen without it."""
    stepped.receive(*exam())
    stepped.work()
    stepped.step(RETAKE)
    retake = image(View.L_CC, "retake", AcquisitionTime="103000")
    stepped.receive(retake)
    assert stepped.archive.advance(STUDY, {}, stepped.policy, lambda *_: FixedRuling())
    assert stepped.state() == "analysing"
    assert stepped.advance(STUDY)
    stepped.report(STUDY)
    stepped.settle()
    assert len(stepped.versions()) == 2 and stepped.selected()[View.L_CC] == retake.SOPInstanceUID


# ------------------------------------------------------------------------------------------------------------------ rejections


def test_a_rejection_may_come_before_its_image(stepped: SteppedStore) -> None:
    bad = image(View.L_CC, "bad", AcquisitionTime="120000")
    stepped.receive(rejection(bad), bad)
    stepped.work()
    assert stepped.state() == "collecting", "nothing was selected that a rejection could empty"
    stepped.receive(*exam())
    stepped.settle()
    assert stepped.state() == "analysed" and stepped.selected()[View.L_CC] == exam()[1].SOPInstanceUID
    assert stepped.dispositions()[bad.SOPInstanceUID] == ["rejected"]


@pytest.mark.parametrize("order", list(permutations(("bad", "rejection", "exam"))))
def test_the_order_of_a_rejection_does_not_matter(stepped: SteppedStore, order: tuple[str, ...]) -> None:
    bad = image(View.R_CC, "bad", AcquisitionTime="120000")
    arriving = {"bad": [bad], "rejection": [rejection(bad)], "exam": exam()}
    for name in order:
        stepped.receive(*arriving[name])
        stepped.work()
        stepped.step(5)
    stepped.settle()
    assert stepped.state() == "analysed" and outcomes(stepped) == ["COMPLETE"]
    assert list(stepped.selected().values()) == uids(*exam())
    assert stepped.dispositions()[bad.SOPInstanceUID] == ["rejected"]


def test_a_rejection_of_everything_withdraws(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    stepped.receive(rejection(*exam(), title="113038"))
    stepped.settle()
    assert stepped.state() == "withdrawn" and outcomes(stepped) == ["COMPLETE", "WITHDRAWN"]
    assert "refused" in str(request(stepped))
    assert stepped.ledger.claim() == [], "nothing was sent, so nothing is to be taken back"
    stepped.receive(image(View.L_CC, "late"))
    stepped.settle()
    assert stepped.state() == "withdrawn" and len(stepped.versions()) == 2, "never again without a person"


def test_a_rejection_of_everything_during_analysing_withdraws_without_deliveries(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.step(RETAKE)
    stepped.work(read=False)
    assert stepped.state() == "analysing"
    stepped.receive(rejection(*exam()))
    stepped.settle()
    assert stepped.state() == "withdrawn" and outcomes(stepped) == ["COMPLETE", "WITHDRAWN"] and stepped.study()["deliveries"] == []


def test_a_key_object_that_rejects_nothing_is_no_news(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    marked = rejection(*exam(), title="113000")
    stepped.receive(marked)
    stepped.settle()
    assert stepped.state() == "analysed" and stepped.study()["revision"] == 1
    assert stepped.dispositions()[marked.SOPInstanceUID] == ["key object"]


# ----------------------------------------------------------------------------------------------------------------------- doubt

PATIENTS = {
    "another identifier": ({"PatientID": "P2"}, True),
    "another issuer": ({"IssuerOfPatientID": "ELSEWHERE"}, True),
    "another name and birth date": ({"PatientName": "Roe^Mary", "PatientBirthDate": "19800101"}, True),
    "another name alone": ({"PatientName": "Roe^Jane"}, False),
    "another birth date alone": ({"PatientBirthDate": "19800101"}, False),
    "the same name written otherwise, other birth date": ({"PatientName": "DOE, Jane ^^", "PatientBirthDate": "19710101"}, False),
}


@pytest.mark.parametrize("name", PATIENTS)
def test_another_patient_is_held(stepped: SteppedStore, name: str) -> None:
    changes, held = PATIENTS[name]
    *three, last = exam()
    stepped.receive(*three, image(View.L_MLO, **changes))
    stepped.settle()
    assert last.SOPInstanceUID in stepped.dispositions()
    assert stepped.state() == ("held" if held else "analysed")
    assert ("another patient" in reason(stepped)) == held and bool(stepped.study()["deliveries"]) == (not held)


def test_no_name_or_birth_date_stands_on_the_timeline(stepped: SteppedStore) -> None:
    stepped.receive(*exam()[:3], image(View.L_MLO, PatientName="Roe^Mary", PatientBirthDate="19800101"))
    stepped.settle()
    written = timeline(stepped) + reason(stepped)
    assert not [word for word in ("Roe", "Mary", "Doe", "Jane", "1980", "1970", "P1") if word in written]


def test_only_an_image_that_would_fill_a_slot_raises_a_doubt(stepped: SteppedStore) -> None:
    """Set aside with a contradictory side, or of another patient: recorded, changes nothing."""
    stepped.receive(*exam())
    stepped.receive(image(View.L_CC, "processing", PresentationIntentType="FOR PROCESSING", PatientID="P9"))
    stepped.receive(image(View.L_CC, "tomo", ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"], Laterality="R"))
    stepped.receive(image(View.L_CC, "synthetic", ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]))
    stepped.settle()
    assert stepped.state() == "analysed" and list(stepped.selected().values()) == uids(*exam())
    assert sorted(one for several in stepped.dispositions().values() for one in several) == ["candidate"] * 4 + ["set aside"] * 3


@pytest.mark.parametrize("moment", ["collecting", "analysed", "incomplete"])
def test_a_contradictory_side_is_held(stepped: SteppedStore, moment: str) -> None:
    stepped.receive(*exam()[: 3 if moment == "incomplete" else 4])
    stepped.work() if moment == "collecting" else stepped.settle()
    assert stepped.state() == moment
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "73056007", "SCT", "Right breast"
    stepped.receive(image(View.L_CC, "odd", AnatomicRegionSequence=[region]))
    stepped.settle()
    assert stepped.state() == "held" and "contradictory" in reason(stepped)
    assert len(stepped.versions()) == (moment == "analysed")


def test_a_doubt_during_analysing_saves_the_version_without_deliveries(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.step(RETAKE)
    stepped.work(read=False)
    assert stepped.state() == "analysing"
    stepped.receive(image(View.L_CC, "foreign", PatientID="P2"))
    stepped.work(read=False)
    assert stepped.state() == "held"
    stepped.settle()
    assert stepped.state() == "held" and len(stepped.versions()) == 1 and stepped.study()["deliveries"] == []
    assert "another patient" in reason(stepped), "why it is held stays to be read"


def test_a_version_that_was_saved_while_held_is_sent_when_a_person_asks_after_the_doubt_is_gone(stepped: SteppedStore) -> None:
    foreign = image(View.L_CC, "foreign", PatientID="P2")
    stepped.receive(*exam())
    stepped.step(RETAKE)
    stepped.work(read=False)
    stepped.receive(foreign)
    stepped.settle()
    assert stepped.state() == "held" and stepped.study()["deliveries"] == []
    stepped.receive(rejection(foreign))
    stepped.settle()
    assert request(stepped, "mended") == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and len(stepped.versions()) == 1, "nothing changed, so no new version"
    assert {one["state"] for one in stepped.study()["deliveries"]} == {"waiting"} and len(stepped.study()["deliveries"]) == 2
    assert len(stepped.ledger.claim()) == 1


def test_waiting_deliveries_of_a_study_stop_with_a_doubt(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    stepped.receive(image(View.L_CC, "foreign", PatientID="P2"))
    stepped.work()
    assert stepped.state() == "held" and stepped.ledger.claim() == []


def test_a_held_study_stays_held_and_can_be_asked_for_when_the_doubt_is_gone(stepped: SteppedStore) -> None:
    foreign = image(View.L_CC, "foreign", PatientID="P2")
    stepped.receive(*exam(), foreign)
    stepped.settle()
    assert stepped.state() == "held"
    assert "refused" in str(request(stepped, "too early"))
    stepped.receive(rejection(foreign))
    stepped.settle()
    assert stepped.state() == "held", "only a person releases"
    assert request(stepped, "now") == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and list(stepped.selected().values()) == uids(*exam())


def test_more_than_five_versions_in_a_day_are_held(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    for number in range(1, 6):
        stepped.receive(image(View.L_CC, f"retake {number}", AcquisitionTime=f"1100{number:02}"))
        stepped.settle()
    assert stepped.state() == "held" and len(stepped.versions()) == 5
    assert request(stepped) == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and len(stepped.versions()) == 6
    stepped.step(24 * 3600)
    stepped.receive(image(View.L_CC, "next day", AcquisitionTime="120000"))
    stepped.settle()
    assert stepped.state() == "analysed" and len(stepped.versions()) == 7


# ------------------------------------------------------------------------------------------------------ the ceiling, and the rules


@pytest.mark.parametrize(
    ("policy", "state", "found"),
    [(WhenIncomplete.HOLD, "incomplete", []), (WhenIncomplete.ANALYSE, "analysed", ["PARTIAL"]), (WhenIncomplete.IGNORE, "ignored", [])],
)
def test_three_of_four_wait_for_the_ceiling(stepped: SteppedStore, policy: WhenIncomplete, state: str, found: list[str]) -> None:
    stepped.policy = replace(stepped.policy, when_incomplete=policy)
    stepped.receive(*exam()[:3])
    stepped.step(CEILING - 1)
    stepped.work()
    assert stepped.state() == "collecting" and reason(stepped) == "waiting for L-MLO"
    stepped.step(1)
    stepped.settle()
    assert stepped.state() == state and outcomes(stepped) == found
    assert len(stepped.scored) == 3, "its scores are to be seen here"
    assert bool(stepped.study()["deliveries"]) == (state == "analysed")


def test_an_incomplete_study_goes_on_when_the_last_view_comes(stepped: SteppedStore) -> None:
    stepped.receive(*exam()[:3])
    stepped.settle()
    stepped.receive(exam()[3])
    stepped.settle()
    assert stepped.state() == "analysed" and outcomes(stepped) == ["COMPLETE"] and stepped.study()["revision"] == 2


def test_one_side_alone_is_unilateral(stepped: SteppedStore) -> None:
    stepped.receive(image(View.R_CC), image(View.R_MLO))
    stepped.settle()
    assert outcomes(stepped) == ["UNILATERAL"]


def test_one_side_alone_is_not_unilateral_when_the_other_was_seen(stepped: SteppedStore) -> None:
    stepped.receive(image(View.R_CC), image(View.R_MLO), image(View.L_CC, PresentationIntentType="FOR PROCESSING"))
    stepped.settle()
    assert stepped.state() == "incomplete"


@pytest.mark.parametrize(("action", "state"), [("hold", "held"), ("ignore", "ignored")])
def test_a_rule_may_hold_or_ignore(stepped: SteppedStore, action: str, state: str) -> None:
    stepped.ruling = FixedRuling(action=action, reason="the rule says so", send_to=())
    stepped.receive(*exam())
    stepped.settle()
    assert stepped.state() == state and reason(stepped) == "the rule says so"
    assert stepped.scored == [], "no early scoring without a rule that analyses"
    stepped.ruling = FixedRuling()
    assert request(stepped) == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and len(stepped.scored) == 4


def test_nothing_for_us_is_ignored_at_the_ceiling(stepped: SteppedStore) -> None:
    assert stepped.receive(image(View.L_CC, "us", Modality="US"), ignored="ultrasound is not analysed") == [IGNORED]
    assert stepped.receive(image(View.L_CC, "us", Modality="US"), ignored="ultrasound is not analysed") == [DUPLICATE]
    stepped.settle()
    assert stepped.state() == "ignored" and "no image" in reason(stepped)
    assert stepped.study()["images"][0]["disposition_reason"] == "ultrasound is not analysed"
    stepped.receive(*exam())
    stepped.settle()
    assert stepped.state() == "analysed"


def test_an_ignored_object_only_lengthens_the_wait(stepped: SteppedStore) -> None:
    stepped.receive(*exam()[:3])
    stepped.step(CEILING - 10)
    stepped.receive(image(View.L_CC, "us", Modality="US"), ignored="ultrasound")
    stepped.step(20)
    stepped.work()
    assert stepped.state() == "collecting"
    stepped.settle()
    assert stepped.state() == "incomplete" and stepped.study()["revision"] == 1


def test_a_kind_that_the_model_card_does_not_list_is_set_aside(stepped: SteppedStore) -> None:
    synthetic = [image(view, "s", ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]) for view in HANGING_ORDER]
    stepped.receive(*synthetic)
    stepped.settle()
    assert stepped.state() == "ignored"
    stepped.policy = replace(stepped.policy, image_kinds=frozenset({ImageKind.FFDM, ImageKind.SYNTHETIC_2D}))
    stepped.receive(image(View.L_CC))
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"] and stepped.selected()[View.L_CC] == image(View.L_CC).SOPInstanceUID, "FFDM ranks higher"


# -------------------------------------------------------------------------------------------------------------- unreadable images


def test_another_candidate_stands_in_for_an_unreadable_one(stepped: SteppedStore) -> None:
    better = image(View.L_CC, "later", AcquisitionTime="110000")
    stepped.broken[better.SOPInstanceUID] = True
    stepped.receive(*exam(), better)
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"] and stepped.selected()[View.L_CC] == exam()[1].SOPInstanceUID
    assert any(better.SOPInstanceUID in warning for warning in stepped.versions()[0]["warnings"])


@pytest.mark.parametrize("early", [True, False])
def test_a_view_that_cannot_be_read_makes_the_result_partial(stepped: SteppedStore, early: bool) -> None:
    """Whether the failure is known before the selection is frozen or after: the same result, at the same time."""
    broken = exam()[1].SOPInstanceUID
    stepped.broken[broken] = True
    stepped.receive(*exam())
    if early:
        stepped.work()
        assert stepped.dispositions()[broken] == ["failed"]
    stepped.step(RETAKE)
    stepped.work()
    assert stepped.state() == "analysed" and outcomes(stepped) == ["PARTIAL"]
    assert stepped.versions()[0]["selection"][View.L_CC]["failure"] == "its pixels are broken"


@pytest.mark.parametrize("early", [True, False])
def test_a_study_fails_only_when_no_view_can_be_read(stepped: SteppedStore, early: bool) -> None:
    stepped.broken = dict.fromkeys(uids(*exam()), True)
    stepped.receive(*exam())
    if early:
        stepped.work()
    stepped.step(RETAKE)
    stepped.work()
    assert stepped.state() == "failed" and stepped.versions() == []
    stepped.broken.clear()
    assert request(stepped) == "accepted", "a person's request tries again what failed"
    stepped.settle()
    assert stepped.state() == "analysed" and outcomes(stepped) == ["COMPLETE"]


def test_a_failure_that_passes_is_tried_again(stepped: SteppedStore) -> None:
    shaky = exam()[0].SOPInstanceUID
    stepped.broken[shaky] = False
    stepped.receive(*exam())
    stepped.work()
    assert len(stepped.scored) == 3 and stepped.dispositions()[shaky] == ["candidate"]
    stepped.broken.clear()
    stepped.step(RETAKE)
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"]


def test_a_failure_that_does_not_pass_ends(stepped: SteppedStore) -> None:
    stepped.broken[exam()[0].SOPInstanceUID] = False
    stepped.receive(*exam())
    stepped.settle()
    assert outcomes(stepped) == ["PARTIAL"]
    attempts = stepped.rows(sa.select(tables.score.c.attempt).where(tables.score.c.state == "failed"))
    assert [row.attempt for row in attempts] == [ATTEMPTS]


# --------------------------------------------------------------------------------------------------------------------- requests


def test_a_reprocess_without_a_change_writes_nothing(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    before = stepped.study()
    assert request(stepped) == "accepted"
    stepped.settle()
    after = stepped.study()
    assert after["state"] == "analysed" and after["runs"] == before["runs"] and after["deliveries"] == before["deliveries"]
    assert "nothing changed" in timeline(stepped) and len(stepped.scored) == 4


def test_a_request_is_applied_once(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    request(stepped)
    stepped.settle()
    lines = timeline(stepped)
    request(stepped)
    stepped.settle()
    assert timeline(stepped) == lines


def test_a_request_for_an_unknown_study_says_so(stepped: SteppedStore) -> None:
    with pytest.raises(UnknownStudy, match=STUDY):
        stepped.archive.request(STUDY, RequestKind.REPROCESS, request_id="r", person="Kim")


def test_a_request_during_analysing_is_for_the_next_run(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.work()
    stepped.step(RETAKE)
    stepped.work(report=False)
    stepped.archive.request(STUDY, RequestKind.REPROCESS, request_id="r1", person="Kim")
    stepped.work(report=False)
    assert stepped.answer("r1") is None
    stepped.report(STUDY)
    stepped.settle()
    assert stepped.answer("r1") == "accepted" and stepped.state() == "analysed" and len(stepped.versions()) == 1


def test_a_reprocess_retries_a_failed_view(stepped: SteppedStore) -> None:
    stepped.broken[exam()[0].SOPInstanceUID] = True
    stepped.receive(*exam())
    stepped.settle()
    assert outcomes(stepped) == ["PARTIAL"]
    stepped.broken.clear()
    assert request(stepped) == "accepted"
    stepped.settle()
    assert outcomes(stepped) == ["PARTIAL", "COMPLETE"] and stepped.versions()[0]["run_id"] != stepped.versions()[1]["run_id"]


def test_a_reprocess_with_another_model_reads_every_image_again(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    stepped.policy = replace(stepped.policy, model=replace(MODEL, version="2"))
    request(stepped)
    stepped.settle()
    assert len(stepped.versions()) == 2 and len(stepped.scored) == 8
    assert [version["model"]["version"] for version in stepped.versions()] == ["1", "2"]


def test_another_model_in_the_middle_of_a_run_is_taken_up(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.step(RETAKE)
    stepped.work(read=False)
    assert stepped.state() == "analysing"
    stepped.policy = replace(stepped.policy, model=replace(MODEL, version="2"))
    stepped.settle()
    assert stepped.state() == "analysed" and stepped.versions()[0]["model"]["version"] == "2"


# ----------------------------------------------------------------------------------------------------------------------- claims


def test_a_row_is_handed_out_once_and_every_time_under_a_new_id(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    [claim] = stepped.archive.claim_studies()
    assert claim.row == STUDY and stepped.archive.claim_studies() == []
    seen = {claim.workflow_id}
    for _ in range(3):
        assert stepped.claims.claimed(older_than_seconds=1) == []
        stepped.step(2)
        assert stepped.claims.claimed(older_than_seconds=1) == [claim.workflow_id]
        assert stepped.claims.release([claim.workflow_id], "its process ended") == 1
        stepped.step(STALLED_SECONDS)
        [claim] = stepped.archive.claim_studies()
        assert claim.workflow_id not in seen
        seen.add(claim.workflow_id)


def lose(stepped: SteppedStore, poisoned: Dataset, times: int, *, alone: bool) -> list[list[str]]:
    """The worker dies `times` times while it reads one image beside others; `alone`: its supervisor lives on. What was begun each time."""
    row = tables.score
    query = sa.select(row.c.id).join(tables.instance).where(tables.instance.c.sop_instance_uid == poisoned.SOPInstanceUID)
    [poisoned_id] = [one.id for one in stepped.rows(query)]
    begun = []
    for number in range(times):
        life = f"life{number}"
        claims = sorted(stepped.scoring.claim(), key=lambda claim: int(claim.row) != poisoned_id)
        tasks = {claim: stepped.scoring.task(int(claim.row)) for claim in claims}
        first = tasks[claims[0]]
        read = [claim for claim, task in tasks.items() if task is first or not (task is None or first is None or task.alone or first.alone)]
        assert all(stepped.scoring.begin(int(claim.row), claim.workflow_id, f"host:work:0/{life}") for claim in read)
        begun.append([claim.row for claim in read])
        if alone:
            assert stepped.claims.died(life) == len(read)
        stepped.claims.begin_life("host:work:0")
        stepped.claims.release([claim.workflow_id for claim in claims], "killed")
        stepped.step(30)
    return begun


def test_an_image_that_kills_its_workers_fails_alone_after_three_deaths(stepped: SteppedStore) -> None:
    """The three others were being read beside it when it killed the first time: they are suspects once, and read alone."""
    stepped.receive(*exam())
    stepped.work(read=False)
    begun = lose(stepped, exam()[2], CRASHES, alone=True)
    assert [len(one) for one in begun] == [4, 1, 1]
    assert sorted(one.crashes for one in stepped.rows(sa.select(tables.score.c.crashes))) == [1, 1, 1, CRASHES]
    stepped.settle()
    assert outcomes(stepped) == ["PARTIAL"] and "its worker died 3 times" in stepped.versions()[0]["selection"][View.R_MLO]["failure"]


def die(stepped: SteppedStore, life: str, *, reading: int = 0) -> int:
    """A worker dies alone with its studies, and `reading` images, in hand; how many of all it had begun."""
    for claim in stepped.archive.claim_studies():
        assert stepped.claims.begin_study(claim.row, claim.workflow_id, f"host:work:0/{life}")
    for claim in stepped.scoring.claim(reading):
        assert stepped.scoring.begin(int(claim.row), claim.workflow_id, f"host:work:0/{life}")
    found = stepped.claims.died(life)
    stepped.claims.begin_life("host:work:0")
    stepped.step(30)
    return found


def test_a_study_that_kills_whoever_looks_at_it_is_held_after_three_deaths(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    for number in range(CRASHES):
        assert stepped.claims.is_suspect(STUDY) is (number > 0)
        assert die(stepped, f"life{number}") == 1
    assert stepped.state() == "held" and "died 3 times" in reason(stepped) and "fourview reprocess" in reason(stepped)
    assert not stepped.claims.anything() and not stepped.claims.is_suspect(STUDY)
    assert request(stepped) == "accepted", "a person lets it try again"
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"]


def test_a_study_beside_a_deadly_image_and_one_that_ends_well_are_not_held(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.work(read=False)
    stepped.receive(*exam(study="beside"))
    assert die(stepped, "one", reading=1) == 2
    assert stepped.claims.is_suspect(uid("beside"))
    for number in range(CRASHES):
        assert die(stepped, f"again{number}", reading=1) >= 2, "never alone, so it counts no more"
    [crashes] = stepped.rows(sa.select(tables.study.c.crashes).where(tables.study.c.study_instance_uid == uid("beside")))
    assert crashes == (1,)
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"] and not stepped.claims.is_suspect(uid("beside"))


def test_a_study_that_waits_for_its_report_is_not_in_hand(stepped: SteppedStore) -> None:
    """Between its look and its report a suspect may go: were the study taken for being beside it, no death would ever count."""
    stepped.receive(*exam())
    stepped.work(report=False)
    stepped.step(RETAKE)
    [claim] = stepped.archive.claim_studies()
    assert stepped.claims.begin_study(STUDY, claim.workflow_id, "host:work:0/life")
    assert stepped.advance(STUDY)
    assert stepped.claims.died("life") == 0
    assert stepped.claims.begin_study(STUDY, claim.workflow_id, "host:work:0/life"), "it is still this workflow's"


def test_a_study_that_is_anothers_by_now_is_left_alone(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    [old] = stepped.archive.claim_studies()
    assert stepped.claims.begin_study(STUDY, old.workflow_id, "a:work:0/1")
    stepped.claims.release([old.workflow_id], "its lease ended")
    assert not stepped.claims.begin_study(STUDY, old.workflow_id, "a:work:0/1")
    assert stepped.claims.died("1") == 0
    [new] = stepped.archive.claim_studies()
    assert stepped.claims.begin_study(STUDY, new.workflow_id, "b:work:0/1")


def test_a_study_that_is_forgotten_while_rows_are_taken_back_stops_nobody(stepped: SteppedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """`forget` holds its lock while the sweep waits for it, and then the study is gone: the others are taken back, a death is counted."""
    stepped.receive(*exam())
    stepped.receive(*exam(study="other"))
    claims_ = stepped.archive.claim_studies()
    for claim in claims_:
        assert stepped.claims.begin_study(claim.row, claim.workflow_id, "host:work:0/life")

    def gone(connection: sa.Connection, study_instance_uid: str) -> object:
        if study_instance_uid == STUDY:
            raise UnknownStudy("forgotten")
        return lock_study(connection, study_instance_uid)

    monkeypatch.setattr(rows, "lock_study", gone)
    assert stepped.claims.died("life") == 2
    assert stepped.claims.release([claim.workflow_id for claim in claims_], "killed") == 0, "freed already"
    stepped.step(60)
    again = stepped.archive.claim_studies()
    assert uid("other") in {claim.row for claim in again}
    assert stepped.claims.release([claim.workflow_id for claim in again], "killed") == len(again)


def test_a_withdrawal_says_whom_it_cannot_tell() -> None:
    """The destination that got the result has another name in the configuration by now."""
    pacs: Any = SimpleNamespace(name="archive")
    shop: Any = SimpleNamespace(pacs=(pacs,))
    reading: Any = SimpleNamespace(outcome=Outcome.WITHDRAWN, send_to=("archive", "pacs1"))
    told, notes = conclude._destinations(shop, reading)
    assert told == [pacs]
    assert notes == ("not told to pacs1: the configuration no longer names it; delete the result there by hand",)


def test_a_host_that_dies_again_and_again_is_not_the_images_fault(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.work(read=False)
    begun = lose(stepped, exam()[2], EXPIRED_ATTEMPTS + 5, alone=False)
    assert {len(one) for one in begun[:EXPIRED_ATTEMPTS]} <= {4} and {len(one) for one in begun[EXPIRED_ATTEMPTS:]} == {1}
    assert {one.crashes for one in stepped.rows(sa.select(tables.score.c.crashes))} == {0}
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"]


def test_an_image_that_takes_its_host_with_it_fails_in_the_end(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.work(read=False)
    lose(stepped, exam()[2], 2 * EXPIRED_ATTEMPTS, alone=False)
    stepped.settle()
    assert outcomes(stepped) == ["PARTIAL"] and "never finished" in stepped.versions()[0]["selection"][View.R_MLO]["failure"]


def test_what_a_worker_hands_back_counts_nothing_and_is_free_at_once(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.work(read=False)
    first, second, *_ = stepped.scoring.claim()
    assert stepped.scoring.begin(int(first.row), first.workflow_id, "host:work:0/life")
    assert stepped.claims.end_life("host:work:0/life") == 1
    stepped.scoring.hand_back(int(second.row), second.workflow_id)
    again = stepped.scoring.claim()
    assert {claim.row for claim in again} == {first.row, second.row}
    found = stepped.rows(sa.select(tables.score.c.attempt, tables.score.c.crashes, tables.score.c.begun_by))
    assert {tuple(one) for one in found} == {(1, 0, None)}


def test_whoever_lost_an_image_to_another_says_nothing_of_it_any_more(stepped: SteppedStore) -> None:
    """A frozen worker wakes up: it may not begin, fail or postpone what another reads by now."""
    stepped.receive(*exam())
    stepped.work(read=False)
    old = stepped.scoring.claim()[0]
    score_id = int(old.row)
    assert stepped.scoring.begin(score_id, old.workflow_id, "a:work:0/1")
    stepped.claims.release([old.workflow_id], "its lease ended")
    stepped.step(30)
    [new] = stepped.scoring.claim()
    assert new.row == old.row and stepped.scoring.begin(score_id, new.workflow_id, "b:work:0/1")
    assert not stepped.scoring.begin(score_id, old.workflow_id, "a:work:0/1")
    stepped.scoring.fail(score_id, "late", permanent=True, workflow_id=old.workflow_id)
    stepped.scoring.postpone(score_id, "late", workflow_id=old.workflow_id)
    assert stepped.claims.died("a:work:0/1") == 0
    [row] = stepped.rows(sa.select(tables.score).where(tables.score.c.id == score_id))
    assert (row.state, row.begun_by, row.workflow_id, row.crashes) == ("waiting", "b:work:0/1", new.workflow_id, 0)


def test_a_request_that_came_while_its_workflow_was_lost_is_seen_at_once(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    [claim] = stepped.archive.claim_studies()
    stepped.receive(image(View.L_CC, "second"))
    stepped.claims.release([claim.workflow_id], "its process ended")
    assert [one.row for one in stepped.archive.claim_studies()] == [STUDY]


def test_urgent_images_overtake_a_queue_and_nothing_starves(stepped: SteppedStore) -> None:
    """Little more is handed out than is read at once; every tenth image is the one that waits longest."""
    stepped.ruling = replace(stepped.ruling, priority=9)
    studies = [f"routine {number}" for number in range(6)]
    for name in studies:
        stepped.receive(*exam(study=name))
    stepped.work(read=False)
    first = stepped.scoring.claim(3)
    assert len(first) == 3
    stepped.ruling = replace(stepped.ruling, priority=1)
    for number in range(8):
        stepped.receive(*exam(study=f"urgent {number}"))
    stepped.work(read=False)
    urgent = {str(one.id) for one in stepped.rows(sa.select(tables.score.c.id).where(tables.score.c.priority == 1))}
    assert len(urgent) == 32
    order: list[str] = []
    handed = first
    while handed:
        stepped.read(int(handed[0].row))
        handed = handed[1:]
        new = stepped.scoring.claim(3 - len(handed))
        order += [claim.row for claim in new]
        handed += new
    routine = [number for number, row in enumerate(order[:35]) if row not in urgent]
    assert len(set(order)) == len(order) == 56 - 3 and set(order[:36]) >= urgent
    assert len(routine) == 3 and all(later - earlier == TURN_OF_THE_OLDEST for earlier, later in pairwise(routine))


def test_a_worker_is_asked_for_no_more_than_it_has_room_for(stepped: SteppedStore) -> None:
    """What one took is not handed to the next; each kind of row is taken up to the room for it."""
    for name in ("one", "two", "three"):
        stepped.receive(*exam(study=name))
    assert [len(stepped.archive.claim_studies(2)) for _ in range(3)] == [2, 1, 0]
    stepped.claims.release(stepped.claims.claimed(-1), "for the next test")
    stepped.work(read=False)
    taken = [[claim.row for claim in stepped.scoring.claim(5)] for _ in range(4)]
    assert [len(one) for one in taken] == [5, 5, 2, 0] and len({row for one in taken for row in one}) == 12


def test_nothing_waits_in_the_hands_of_one_worker_that_another_could_begin(stepped: SteppedStore) -> None:
    for name in ("one", "two"):
        stepped.receive(*exam(study=name))
    stepped.work(read=False)
    for process in ("a:work:0", "b:work:0"):
        stepped.claims.beat(process, "work")
    assert len(stepped.scoring.claim(2, spare=1, at_once=2)) == 2, "the other one has its hands free"
    assert stepped.scoring.claim(0, spare=1, at_once=2) == []
    assert len(stepped.scoring.claim(2, spare=1, at_once=2)) == 3, "now all are busy"
    assert len(stepped.scoring.claim(0, spare=1, at_once=2)) == 1
    stepped.claims.leave("b:work:0")
    stepped.step(60)
    assert len(stepped.scoring.claim(0, spare=1, at_once=2)) == 1, "one that is dead is not waited for"


def test_one_question_says_whether_anything_is_to_be_handed_out(stepped: SteppedStore) -> None:
    def hand_out() -> list[int]:
        return [len(claim()) for claim in (stepped.archive.claim_studies, stepped.scoring.claim, stepped.ledger.claim)]

    assert not stepped.claims.anything()
    stepped.receive(*exam())
    assert stepped.claims.anything() and hand_out() == [1, 0, 0]
    assert not stepped.claims.anything(), "it is in hand"
    stepped.claims.release(stepped.claims.claimed(-1), "for the next test")
    stepped.work(read=False)
    assert stepped.claims.anything() and hand_out() == [0, 4, 0] and not stepped.claims.anything()
    for row in stepped.rows(sa.select(tables.score.c.id)):
        stepped.read(row.id)
    stepped.work()
    assert not stepped.claims.anything()
    stepped.step(RETAKE)
    assert stepped.claims.anything(), "the wait for a retake is over"
    stepped.work()
    assert stepped.claims.anything() and hand_out() == [0, 0, 1] and not stepped.claims.anything()


def test_a_disk_that_is_away_for_an_hour_fails_no_image(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.work(read=False)
    for _ in range(120):
        for claim in stepped.scoring.claim():
            stepped.scoring.postpone(int(claim.row), "the disk is away")
        stepped.step(30)
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"]


def test_a_workflow_id_is_new_also_after_a_person_asks_again(stepped: SteppedStore) -> None:
    stepped.broken[exam()[2].SOPInstanceUID] = True
    stepped.receive(*exam())
    stepped.work(read=False)
    seen = set()
    for claim in stepped.scoring.claim():
        seen.add(claim.workflow_id)
        stepped.read(int(claim.row))
    stepped.settle()
    assert outcomes(stepped) == ["PARTIAL"]
    stepped.archive.request(STUDY, RequestKind.REPROCESS, request_id="r1", person="Kim")
    stepped.work(read=False)
    [again] = stepped.scoring.claim()
    assert again.workflow_id not in seen, "an id that has ended is spent for ever"


def test_a_released_study_is_looked_at_again_and_then_rests(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    stepped.archive.request(STUDY, RequestKind.REPROCESS, request_id="r1", person="Kim")
    [claim] = stepped.archive.claim_studies()
    stepped.claims.release([claim.workflow_id], "killed")
    stepped.step(STALLED_SECONDS)
    stepped.work()
    assert stepped.answer("r1") == "accepted" and stepped.archive.claim_studies() == []


def test_a_report_whose_worker_died_is_made_again(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.work()
    stepped.step(RETAKE)
    [claim] = stepped.archive.claim_studies()
    assert stepped.advance(STUDY) and stepped.archive.claim_studies() == [], "it stays claimed for its report"
    stepped.claims.release([claim.workflow_id], "killed")
    stepped.settle()
    assert len(stepped.versions()) == 1 and stepped.state() == "analysed"


def test_a_study_whose_worker_met_a_surprise_is_held_and_rests(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.work()
    stepped.step(RETAKE)
    stepped.archive.claim_studies()
    assert stepped.advance(STUDY)
    stepped.archive.give_up(STUDY, "unexpected KeyError")
    stepped.settle()
    assert stepped.state() == "held" and reason(stepped) == "unexpected KeyError" and stepped.versions() == []
    assert request(stepped) == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed"


def test_a_surprise_about_a_withdrawn_study_lets_it_rest_too(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    stepped.receive(rejection(*exam()))
    stepped.settle()
    stepped.receive(image(View.L_CC, "late"))
    assert len(stepped.archive.claim_studies()) == 1
    stepped.archive.give_up(STUDY, "unexpected KeyError")
    stepped.step(3600)
    assert stepped.state() == "withdrawn" and stepped.claims.claimed(0) == [] and stepped.archive.claim_studies() == []


# ----------------------------------------------------------------------------------------------------------------- idempotence


def test_saving_a_version_again_changes_nothing(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.work()
    stepped.step(RETAKE)
    stepped.work(report=False)
    reading = stepped.archive.reading(STUDY, stepped.policy)
    assert reading is not None
    new = stepped.new_version(reading)
    assert stepped.archive.save_version(STUDY, reading, new) == 1
    before = stepped.study()
    assert stepped.archive.save_version(STUDY, reading, new) == 1
    stepped.archive.settle_unchanged(STUDY, "a repeat", {})
    stepped.archive.settle_failed(STUDY, "a repeat")
    assert stepped.study() == before and stepped.archive.reading(STUDY, stepped.policy) is None


def test_the_first_saved_score_stands(stepped: SteppedStore) -> None:
    stepped.receive(exam()[0])
    stepped.work(read=False)
    [claim] = stepped.scoring.claim()
    score_id = int(claim.row)
    first = made_scores(exam()[0].pixel_array)
    assert stepped.scoring.save(score_id, first, "aa/first", 1.0)
    assert not stepped.scoring.save(score_id, replace(first, probabilities=(0.0, 1.0)), "aa/second", 1.0)
    stepped.scoring.fail(score_id, "too late", permanent=True)
    [score] = stepped.study()["images"][0]["scores"]
    assert score["state"] == "scored" and score["all_probabilities"] == dict(zip(first.classes, first.probabilities, strict=True))
    assert stepped.scoring.task(score_id) is None


def test_an_advance_that_is_repeated_changes_nothing(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.advance(STUDY)
    before = stepped.study()
    stepped.advance(STUDY)
    assert stepped.study() == before


def test_headers_come_back_as_they_were_received(stepped: SteppedStore) -> None:
    korean = image(View.L_CC, SpecificCharacterSet=["", "ISO 2022 IR 149"])
    korean.PatientName = "Hong^Gildong=洪^吉洞=홍^길동"
    korean.add_new(0x00091010, "LO", "private")
    stepped.receive(korean)
    stepped.work(read=False)
    [row] = stepped.rows(sa.select(tables.instance.c.id))
    header = stepped.scoring.header(row.id)
    assert header.PatientName == korean.PatientName and header[0x00091010].value == "private"
    assert "PixelData" not in header


# -------------------------------------------------------------------------------------------------------------- when it is away


def test_a_database_that_does_not_answer_is_busy(stepped: SteppedStore) -> None:
    def away(_connection: sa.Connection) -> None:
        raise OperationalError("SELECT 1", {}, Exception("the server went away"))

    stepped.archive = Archive(stepped.engine, clock=away)  # type: ignore[arg-type]
    with pytest.raises(Busy, match=exam()[0].SOPInstanceUID):
        stepped.receive(exam()[0])


def test_processes_that_live_are_known(stepped: SteppedStore) -> None:
    real = Claims(stepped.engine)
    real.beat("host:1", "work")
    real.beat("host:1", "work")
    real.beat("host:2", "web")
    stepped.claims.beat("host:3", "work")  # its clock stands in the past or the future, not now
    assert "host:1" in stepped.search.living("work") and stepped.search.living("web") == ["host:2"]
    real.leave("host:1")
    assert "host:1" not in stepped.search.living("work")


def test_the_installation_keeps_its_identity(stepped: SteppedStore) -> None:
    values = stepped.archive.installation_values()
    assert values["device_uid"].startswith("2.25.") and len(values["device_uid"]) <= 64 and len(values["serial_number"]) == 16


# ------------------------------------------------------------------------------------------------------ found by a second reader


def test_copies_that_name_two_sides_are_held_in_either_order(stepped: SteppedStore) -> None:
    for number, turned in enumerate((False, True)):
        name = f"two sides {number}"
        right, *others = exam(study=name)
        left = image(View.R_CC, study=name, ImageLaterality="L", PatientOrientation=None)
        left.SOPInstanceUID = left.file_meta.MediaStorageSOPInstanceUID = right.SOPInstanceUID
        stepped.receive(*([left, right] if turned else [right, left]), *others)
        stepped.settle()
        assert stepped.state(name) == "held" and "received as L-CC and as R-CC" in stepped.study(name)["state_reason"]


def test_another_patient_is_noticed_in_every_order(stepped: SteppedStore) -> None:
    people = (("A^A", "19500101"), ("B^B", "19500101"), ("B^B", "19600101"))
    for number, order in enumerate(permutations(range(3))):
        name = f"patients {number}"
        views = [image(HANGING_ORDER[i], study=name, PatientName=who, PatientBirthDate=born) for i, (who, born) in enumerate(people)]
        stepped.receive(*(views[place] for place in order))
        stepped.work()
        assert stepped.state(name) == "held"


def test_a_refused_delivery_is_sent_after_all_when_a_person_asks_again(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    [claim] = stepped.ledger.claim()
    for one in stepped.begin(claim.workflow_id):
        stepped.ledger.refused(one.delivery_id, None, "it does not know our AE title")
    stepped.step(30 * 24 * 3600)
    assert stepped.ledger.claim() == []
    assert request(stepped) == "accepted"
    stepped.settle()
    assert len(stepped.versions()) == 1, "nothing changed, so no new version"
    [claim] = stepped.ledger.claim()
    for one in stepped.begin(claim.workflow_id):
        stepped.ledger.not_sent(one.delivery_id, None, "nobody answers", retry_days=3)
    assert {one["state"] for one in stepped.study()["deliveries"]} == {"waiting"}, "the days count from the request"


def test_what_was_rejected_before_it_was_sent_is_never_sent(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()  # version 1 waits: the PACS is down
    stepped.receive(rejection(*exam()))
    stepped.work()
    assert stepped.state() == "withdrawn"
    stepped.receive(*(image(view, "retake") for view in HANGING_ORDER))
    stepped.settle()
    assert stepped.state() == "withdrawn" and "reprocess" in reason(stepped), "a person is told"
    assert request(stepped) == "accepted"
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE", "WITHDRAWN", "COMPLETE"]
    newest = {one["sop_instance_uid"] for one in stepped.versions()[2]["objects"]}
    [claim] = stepped.ledger.claim()
    assert {one.sop_instance_uid for one in stepped.ledger.batch(claim.workflow_id)} == newest


def test_a_copy_fetched_after_retention_is_read_by_a_new_model(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    for claim in stepped.ledger.claim():
        for one in stepped.begin(claim.workflow_id):
            stepped.ledger.sent(one.delivery_id, 0, "", ask=False)
    stepped.step(10 * 24 * 3600)
    assert retire(stepped.retention(7, 90), stepped.files) == {"images_removed": 4}
    stepped.policy = replace(stepped.policy, model=replace(stepped.policy.model, version="2"))
    stepped.receive(*(implicit(ds) for ds in exam()))
    assert request(stepped) == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and outcomes(stepped) == ["COMPLETE"] * 2


def test_a_readable_copy_after_the_freeze_takes_the_broken_ones_place(stepped: SteppedStore) -> None:
    broken, *others = exam()
    stepped.broken[broken.SOPInstanceUID] = False
    stepped.receive(broken, *others)
    stepped.step(RETAKE)
    stepped.work(read=False)
    assert stepped.state() == "analysing"
    stepped.receive(implicit(broken))
    stepped.work(read=False)
    for _ in range(ATTEMPTS):
        for claim in stepped.scoring.claim():
            task = stepped.scoring.task(int(claim.row))
            assert task is not None
            if task.instance_id == 1:
                stepped.scoring.fail(task.score_id, "its pixels are broken", permanent=True)
            else:
                stepped.broken.clear()
                stepped.read(int(claim.row))
        stepped.step(20)
    stepped.settle()
    assert outcomes(stepped) == ["COMPLETE"]


def test_another_model_between_the_look_and_the_report_is_scored_first(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.step(RETAKE)
    stepped.work(report=False)
    stepped.policy = replace(stepped.policy, model=replace(stepped.policy.model, version="2"))
    assert stepped.archive.reading(STUDY, stepped.policy) is None
    stepped.settle()
    assert stepped.state() == "analysed" and [run["model"]["version"] for run in stepped.versions()] == ["2"]


def test_a_surprise_answers_the_person_who_asked(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    stepped.archive.request(STUDY, RequestKind.REPROCESS, request_id="r1", person="Kim")
    stepped.archive.give_up(STUDY, "unexpected KeyError")
    assert stepped.answer("r1") == "refused: unexpected KeyError" and stepped.state() == "held"


def test_a_card_that_excludes_implants_sets_them_aside(stepped: SteppedStore) -> None:
    stepped.policy = replace(stepped.policy, exclude_implants=True)
    stepped.receive(*(image(view, BreastImplantPresent="YES" if view is View.R_CC else "NO") for view in HANGING_ORDER))
    stepped.settle()
    assert stepped.state() == "incomplete"
    [aside] = [one for one in stepped.study()["images"] if one["disposition"] == "set aside"]
    assert aside["view"] == "R-CC" and "implant" in aside["disposition_reason"]
