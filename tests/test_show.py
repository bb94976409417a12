"""`fourview show`: slots, who fills them and why, who lost, what is awaited until when, what is held and how to release it."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

from stepped_store import MODEL, POLICY, FixedRuling, SteppedStore, exam, image

from listener.show import in_words
from store.study import View

LONDON = ZoneInfo("Europe/London")


def shown(stepped: SteppedStore, study: str = "study") -> list[str]:
    return in_words(stepped.study(study), LONDON).splitlines()


def line(lines: list[str], start: str) -> str:
    [found] = [one for one in lines if one.strip().startswith(start)]
    return found


def test_a_waiting_study_says_for_what_and_until_when(stepped: SteppedStore) -> None:
    stepped.receive(*exam()[:3])
    stepped.work()
    assert line(shown(stepped), "State") == "State collecting: waiting for L-MLO, until 2026-11-20 10:10:00"
    stepped.receive(exam()[3])
    stepped.work()
    assert "waiting for a possible retake, until 2026-11-20 10:01:00" in line(shown(stepped), "State")


def test_a_slot_says_who_fills_it_why_and_before_whom(stepped: SteppedStore) -> None:
    first, retake = exam()[1], image(View.L_CC, "retake", AcquisitionTime="110000")
    stepped.receive(first, retake)
    stepped.work()
    lines = shown(stepped)
    assert f"{retake.SOPInstanceUID} (side from ImageLaterality, view from ViewCodeSequence)" in line(lines, "L-CC")
    assert line(lines, "chosen before").strip() == f"chosen before {first.SOPInstanceUID}: it was acquired later (rule 7 of ten)"
    assert line(lines, "R-CC").split() == ["R-CC", "empty"]


def test_a_version_says_who_lost(stepped: SteppedStore) -> None:
    stepped.receive(*exam(), image(View.L_CC, "retake", AcquisitionTime="110000"))
    stepped.settle()
    assert f"not {exam()[1].SOPInstanceUID}: the chosen image ranks higher, it was acquired later (rule 7)" in "\n".join(shown(stepped))


def test_a_held_study_prints_the_commands_that_settle_it(stepped: SteppedStore) -> None:
    odd = image(View.L_CC, PatientID="P2")
    stepped.receive(*(ds for ds in exam() if ds.SOPInstanceUID != odd.SOPInstanceUID), odd)
    stepped.settle()
    study, lines = stepped.study()["study_instance_uid"], shown(stepped)
    commands = [one.strip() for one in lines if one.strip().startswith("fourview release")]
    assert f"fourview release {study} --accept-patient --patient-of {odd.SOPInstanceUID}" in commands
    assert f"fourview release {study} --exclude {odd.SOPInstanceUID}" in commands
    assert f"image {odd.SOPInstanceUID} names patient P2" in "\n".join(lines)


def test_what_a_rule_holds_can_be_released_as_it_stands(stepped: SteppedStore) -> None:
    stepped.ruling = FixedRuling(action="hold", reason="the rule wants to see it")
    stepped.receive(*exam())
    stepped.settle()
    lines = shown(stepped)
    assert "the rule wants to see it" in line(lines, "State")
    assert f"fourview release {stepped.study()['study_instance_uid']}" in line(lines, "Look at it")


def test_incomplete_and_withdrawn_studies_say_what_can_be_done(stepped: SteppedStore) -> None:
    stepped.receive(*exam()[:2])
    stepped.settle()
    assert "as PARTIAL: fourview release" in line(shown(stepped), "The missing views may still come")
    stepped.ask("withdraw")
    assert "fourview reprocess" in line(shown(stepped), "It is read again only")


def test_what_is_not_in_a_slot_says_why(stepped: SteppedStore) -> None:
    tomo = image(View.L_CC, "tomo", ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"])
    stepped.receive(tomo, exam()[0])
    stepped.work()
    assert "set aside: a tomosynthesis image" in "\n".join(one for one in shown(stepped) if tomo.SOPInstanceUID in one)


def test_a_view_that_a_person_assigned_is_shown_as_theirs(stepped: SteppedStore) -> None:
    nameless = image(View.L_CC, "nameless", ViewCodeSequence=None, ViewPosition=None)
    stepped.receive(nameless, *exam()[2:], exam()[0])
    stepped.settle()
    stepped.ask("release", view={nameless.SOPInstanceUID: View.L_CC}, why="as the radiographer says")
    stepped.settle()
    lines = shown(stepped)
    assert "(side from operator, view from operator)" in line(lines, "L-CC   " + nameless.SOPInstanceUID)
    assert any("Kim asked to release" in one and "as the radiographer says" in one for one in lines)


def test_what_another_model_says_in_a_comparison_does_not_stand_for_the_result(stepped: SteppedStore) -> None:
    other = replace(POLICY, card="/cards/other.toml", model=replace(MODEL, name="other"))
    stepped.receive(*exam())
    stepped.settle()
    before = shown(stepped)
    stepped.classes |= {ds.SOPInstanceUID: "Mass" for ds in exam()}
    stepped.scoring.ask(stepped.study()["study_instance_uid"], other)
    stepped.settle()
    assert [one["predicted_class"] for one in stepped.study()["images"][0]["scores"]] == ["Normal", "Mass"]
    assert shown(stepped) == before


def test_hints_name_other_studies_of_the_patient(stepped: SteppedStore) -> None:
    stepped.receive(*exam(), *exam(study="other"))
    stepped.settle()
    other = stepped.study("other")["study_instance_uid"]
    assert f"Same patient has another study that day: {other} (studies are not merged)" in shown(stepped)
