"""Studies in any order: what arrives, how often, after which pauses and in which state never changes what is selected, only when.

The core is driven without rows (`grouping_made.PureStudy`); a handful of the same properties run against the real archive on SQLite.
Where the order does matter, a test says so by name: see the section "where the order matters".
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grouping_made import OTHER_PATIENT, PATIENT, Day, File, PureStudy, exam, planned_day, rejecting, told
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stepped_store import CEILING, POLICY, RETAKE, START, FixedRuling, SteppedStore, image, implicit, rejection
from stepped_store import exam as received_exam

from store.database import write_engine
from store.grouping import STALLED_SECONDS, Release, Request, RequestKind
from store.images import Decisions, Patient
from store.study import HANGING_ORDER, ImageKind, Outcome, StudyState, View, WhenIncomplete
from store.upgrade import upgrade

S = StudyState
STABLE = settings(derandomize=True, deadline=None, max_examples=250)
#: How long is waited after a reception: not at all, within and beyond the wait for a retake, beyond the ceiling, beyond the longest time.
PAUSES = (0, 0, 1, 30, RETAKE + 1, CEILING + 1, 5 * 3600)
#: What may be odd about an image, or come beside it.
ODD_COPIES = ("syntax", "syntax", "lossy", "two lossy", "mended", "renamed", "pixels", "side", "doubt")
#: What the workers do after a reception: everything; nothing; look, but read no pixels; leave a report that is ready; read no header.
MANNERS = ("all", "all", "nothing", "no pixels", "no report", "no headers")

# -------------------------------------------------------------------------------------------------- sets of files, and their orders


@st.composite
def collections(draw: st.DrawFn) -> list[File]:
    """What may come of one exam: repeats, copies, odd kinds, doubts, other patients, broken pixels, rejections."""
    files: list[File] = []
    for view in HANGING_ORDER:
        for number in range(draw(st.sampled_from((1, 1, 1, 1, 0, 2)))):
            acquired_at = draw(st.sampled_from(("20261120100000.000000", "20261120100500.000000", "")))
            files.append(File(name=f"{view} {number}", view=view, acquired_at=acquired_at, broken=draw(st.integers(0, 11)) == 0))
    for file in list(files):
        match draw(st.sampled_from(("",) * 12 + ODD_COPIES)):
            case "syntax":
                files.append(replace(file, syntax="b"))
            case "lossy":
                files.append(replace(file, syntax="j", lossy=True))
            case "two lossy":
                files[files.index(file)] = replace(file, syntax="j", lossy=True)
                files.append(replace(file, syntax="k", lossy=True))
            case "mended":
                files.append(replace(file, syntax="c", broken=not file.broken))
            case "renamed":
                files.append(replace(file, patient=replace(PATIENT, patient_name="Smith^Jane")))
            case "pixels":
                files.append(replace(file, pixels="other"))
            case "side":
                files[files.index(file)] = replace(file, wrong_side=True)
            case "doubt":
                files[files.index(file)] = replace(file, doubt="two sources name two sides")
    if draw(st.integers(0, 7)) == 0:
        files.append(File(name="mixed up", view=draw(st.sampled_from(HANGING_ORDER)), patient=OTHER_PATIENT))
    if draw(st.booleans()):
        files.append(File(name="synthetic", view=View.L_CC, kind=ImageKind.SYNTHETIC_2D))
        files.append(File(name="magnified", view=View.L_CC, set_aside="it is magnified"))
    names = sorted({one.name for one in files})
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 1, 2)))):
        rejected = draw(st.one_of(st.just(names), st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))) if names else []
        if rejected:
            files.append(rejecting(*rejected, title=draw(st.sampled_from(("113001", "113001", "113037", "113038", "113039")))))
    return files


Journey = list[tuple[int, int, str]]
"""(place in the collection, seconds of pause after it, manner of work), as it arrives; a place may come again."""


@st.composite
def journeys(draw: st.DrawFn) -> tuple[list[File], Journey]:
    """A collection and an order in which all of it arrives, parts of it several times."""
    files = draw(collections())
    order = draw(st.permutations(range(len(files))))
    again = draw(st.lists(st.sampled_from(order), max_size=4)) if order else []
    places = [*order]
    for place in again:
        places.insert(draw(st.integers(0, len(places))), place)
    return files, [(place, draw(st.sampled_from(PAUSES)), draw(st.sampled_from(MANNERS))) for place in places]


def check(study: PureStudy) -> None:
    """What holds at every moment."""
    assert study.unaccounted() == []
    assert study.forgotten() == ""
    if study.row and not study.needs_attention and not study.claimed:
        judged = study.judged
        if judged.doubts:
            assert study.state in (S.HELD, S.WITHDRAWN), "a doubt that nobody sees"
        if study.state not in (S.COLLECTING, S.ANALYSING):
            assert study.row["state_reason"], f"{study.state}, and no word why"
        if study.state is S.COLLECTING:
            assert study.row["state_reason"] and study.row["due_at"] > study.now


def wait(study: PureStudy, seconds: float) -> None:
    """Time passes, and the workers do at every moment what is due."""
    until = study.now.timestamp() + seconds
    while (due := study.row["due_at"]) is not None and due.timestamp() <= until:
        study.now = max(study.now, due)
        study.work()
        check(study)
    study.step(until - study.now.timestamp())


def travel(files: Sequence[File], journey: Journey) -> PureStudy:
    """The study as it stands once everything has arrived and nothing is awaited any more."""
    study = PureStudy(twice=True)
    for place, pause, manner in journey:
        study.receive(files[place])
        if manner != "nothing":
            study.work(read=manner != "no pixels", report=manner != "no report", headers=manner != "no headers")
            check(study)
        if manner == "all":
            wait(study, pause)
        else:
            study.step(pause)
    study.settle()
    check(study)
    return study


def plainly(files: Sequence[File]) -> PureStudy:
    """The same collection in the plainest way: everything at once, Key Objects first."""
    study = PureStudy()
    study.receive(*sorted(files, key=lambda one: (not one.title, repr(one))))
    study.settle()
    return study


def doubtful(files: Sequence[File]) -> bool:
    """Whether a person must look at these files, from the rules in words: only what would fill a slot can raise a doubt."""
    rejected = {name for one in files if one.title != "113039" for name in one.rejects}
    left = [one for one in files if one.name not in rejected and not one.title and not one.set_aside and one.kind is ImageKind.FFDM]
    pixels: dict[str, set[str]] = {}
    for one in left:
        if not one.lossy and not one.broken:
            pixels.setdefault(one.name, set()).add(one.pixels)
    return (
        any(one.doubt or (one.wrong_side and not one.broken) for one in left)
        or len({one.patient.patient_id for one in left}) > 1
        or any(len(found) > 1 for found in pixels.values())
    )


def said(study: PureStudy) -> Any:
    """What the current version says."""
    current = study.current
    return None if current is None else (current.run, current.outcome, current.selection, current.losers)


def elected(study: PureStudy) -> Any:
    """Who fills which slot and who lost by which rule."""
    election = study.judged.election
    winners = [(view, one.sop_instance_uid) for view, one in election.winners]
    return winners, [(one.view, one.sop_instance_uid, one.rule) for one in election.losers]


@STABLE
@given(journeys())
def test_every_order_ends_the_same(journey: tuple[list[File], Journey]) -> None:
    """In any order, with copies, resends and pauses: the same images elected, the same state, and the same run."""
    files, way = journey
    if not files:
        return
    study, plain = travel(files, way), plainly(files)
    assert (plain.state is S.HELD) == doubtful(files)
    rejections = any(one.title not in ("", "113039") for one in files)

    if doubtful(files):
        # A study that was withdrawn first is not looked into for doubts until a person asks; a held one is read no further meanwhile.
        assert study.state is S.HELD or (study.state is S.WITHDRAWN and rejections)
        return
    assert elected(study) == elected(plain)
    if not study.judged.eligible and study.versions:
        assert study.state is S.WITHDRAWN, "everything is rejected, and what was said stands"
    if S.HELD not in study.states and S.WITHDRAWN not in study.states:
        assert study.state is plain.state
        if study.state is S.ANALYSED:
            assert said(study) == said(plain)
        return
    # Held or withdrawn on the way: only a person ends that. Asked for, both read and say the same.
    assert study.state in (S.HELD, S.WITHDRAWN)
    for one in (study, plain):
        answer = one.asked("reprocess")
        assert answer.accepted == bool(plain.judged.eligible), answer.text
        one.settle()
        check(one)
    if plain.judged.eligible:
        assert study.state is plain.state
        if study.state is S.ANALYSED:
            assert said(study) == said(plain)


@STABLE
@given(journeys())
def test_a_study_comes_to_rest(journey: tuple[list[File], Journey]) -> None:
    """However it came, it does not stay in collecting or analysing, and time alone changes nothing afterwards."""
    files, way = journey
    if not files:
        return
    study = travel(files, way)
    assert study.state not in (S.COLLECTING, S.ANALYSING) and study.row["due_at"] is None and not study.waiting
    before, looks = dict(study.row), study.looks
    study.step(48 * 3600)
    study.work()
    assert (study.row, study.looks) == (before, looks)


# ------------------------------------------------------------------------------------------------------------------ people

PICKED = ("R-CC 0", "L-CC 0", "R-MLO 0", "L-MLO 0", "mixed up", "synthetic", "magnified", "unknown")


@st.composite
def releases(draw: st.DrawFn) -> dict[str, Any]:
    """Whatever a person may type."""
    return {
        "exclude": tuple(draw(st.lists(st.sampled_from(PICKED), max_size=2, unique=True))),
        "view": draw(st.dictionaries(st.sampled_from(PICKED), st.sampled_from(HANGING_ORDER), max_size=2)),
        "accept_patient": draw(st.booleans()),
        "patient_of": draw(st.sampled_from(("", "", "", *PICKED))),
        "use_file": tuple(draw(st.lists(st.integers(1, 7), max_size=2, unique=True))),
    }


@STABLE
@given(journeys(), releases())
def test_a_refused_release_changes_nothing(journey: tuple[list[File], Journey], asked: dict[str, Any]) -> None:
    files, way = journey
    if not files:
        return
    study = travel(files, way)
    snapshot = study.snapshot()
    request = Request(request_id=99, kind=RequestKind.RELEASE, person="Kim", release=Release(**asked))
    without, found = study.advanced(snapshot), study.advanced(replace(snapshot, requests=(request,)))
    answer = found.answers[99]
    if not answer.accepted:
        assert answer.text.startswith("refused") and answer.decisions == Decisions()
        assert found.lines == [*without.lines, f"release: {answer.text}"]
        assert told(replace_lines(found)) == told(replace_lines(without))
        return
    assert not found.judged.doubts, "accepted, and still doubtful"
    assert found.changes["state"] is S.ANALYSING and found.changes["frozen_instances"]
    study.asked("release", **asked)
    study.settle()
    check(study)
    assert study.state not in (S.COLLECTING, S.ANALYSING)


def replace_lines(found: Any) -> Any:
    """The consequences without what is said to the person."""
    return replace(found, lines=[], answers={})


@STABLE
@given(journeys())
def test_every_doubt_can_be_settled_by_its_own_choices(journey: tuple[list[File], Journey]) -> None:
    """A held study offers, for each doubt, choices that are taken; the doubtful image excluded is always one."""
    files, way = journey
    if not files:
        return
    study = travel(files, way)
    doubts = study.judged.doubts
    if study.state is not S.HELD or not doubts:
        return
    for doubt in doubts:
        assert doubt.reason and any(choice.startswith("--exclude ") for choice in doubt.choices)
    excluded = {choice.removeprefix("--exclude ") for doubt in doubts for choice in doubt.choices if choice.startswith("--exclude ")}
    left = [one for one in study.judged.eligible if one.sop_instance_uid not in excluded]
    answer = study.asked("release", exclude=tuple(sorted(excluded)))
    assert answer.accepted == bool(left), answer.text
    study.settle()
    check(study)


DECISIONS = st.builds(
    Decisions,
    excluded=st.frozensets(st.sampled_from("abc")),
    assigned=st.dictionaries(st.sampled_from("abc"), st.sampled_from(HANGING_ORDER)),
    dropped_files=st.frozensets(st.integers(1, 3)),
    patients=st.lists(st.sampled_from([PATIENT, OTHER_PATIENT]), max_size=2, unique=True).map(tuple),
    patient_of=st.one_of(st.none(), st.integers(1, 3)),
)


@STABLE
@given(DECISIONS, DECISIONS, DECISIONS)
def test_decisions_add_up_in_any_grouping(one: Decisions, two: Decisions, three: Decisions) -> None:
    assert one.then(two).then(three) == one.then(two.then(three))
    assert Decisions().then(one).then(Decisions()) == Decisions().then(one)


# ------------------------------------------------------------------------------------------------------ where the order matters


def analysed(*more: File) -> PureStudy:
    """A study of four views with its first version."""
    study = PureStudy()
    study.receive(*exam(), *more)
    study.settle()
    assert study.state is S.ANALYSED
    return study


NAMES = [one.name for one in exam()]


def test_all_rejected_after_a_version_withdraws_and_before_it_does_not() -> None:
    study = analysed()
    study.receive(rejecting(*NAMES))
    study.settle()
    assert study.state is S.WITHDRAWN and [one.outcome for one in study.versions] == [Outcome.COMPLETE, Outcome.WITHDRAWN]
    before = PureStudy()
    before.receive(*exam(), rejecting(*NAMES))
    before.work()
    assert before.state is S.COLLECTING, "the retake may still come"
    before.settle()
    assert before.state is S.IGNORED and before.versions == []


def test_a_doubt_whose_cause_is_gone_stays_held_until_a_person_looked() -> None:
    study = PureStudy()
    study.receive(*exam(), File(name="odd", view=View.L_CC, doubt="two sources name two sides"))
    study.work()
    assert study.state is S.HELD
    study.receive(rejecting("odd"))
    study.settle()
    assert study.state is S.HELD and not study.judged.doubts
    assert study.asked("release").accepted
    study.settle()
    assert study.state is S.ANALYSED and said(study) == said(plainly([*exam(), rejecting("odd")]))


def test_a_storm_is_held_and_a_person_goes_on() -> None:
    study = analysed()
    for number in range(1, 7):
        study.step(1000)
        study.receive(File(name=f"retake {number}", view=View.L_CC, acquired_at=f"2026112011{number:02}00.000000"))
        study.settle()
    assert study.state is S.HELD and len(study.versions) == 5 and "5 versions within 24 hours" in study.row["state_reason"]
    assert study.asked("release").accepted
    study.settle()
    assert study.state is S.ANALYSED and study.selection[View.L_CC] == "retake 6"


def test_the_newest_patient_values_hold() -> None:
    """The same image again with another name: the name that came last is reported, without another reading."""
    renamed = [replace(one, patient=replace(PATIENT, patient_name="Smith^Jane")) for one in exam()]
    for first, last in ((exam(), renamed), (renamed, exam())):
        study = PureStudy()
        study.receive(*first)
        study.settle()
        study.receive(*last)
        study.settle()
        assert study.state is S.ANALYSED and len(study.versions) == 2 and len({one.run for one in study.versions}) == 1
        assert study.judged.newest[NAMES[0]].patient == last[0].patient


# -------------------------------------------------------------------------------------------------------- copies of one image

UNREADABLE = {"view": None, "set_aside": "its header cannot be read", "readable": False}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "useless",
    [UNREADABLE, {"set_aside": "it is magnified"}, {"kind": ImageKind.FOR_PROCESSING}],
    ids=["unreadable", "set aside", "of another kind"],
)
def test_a_copy_that_fills_no_slot_never_stands_for_one_that_does(useless: dict[str, Any], first: bool) -> None:
    """A file that was damaged on its way, then the whole one: the whole one is read."""
    whole = exam()
    damaged = replace(whole[0], syntax="damaged", **useless)
    study = PureStudy()
    study.receive(*((damaged, *whole) if first else (*whole, damaged)))
    study.settle()
    assert study.unaccounted() == []
    assert study.state is S.ANALYSED and study.selection == dict(zip(HANGING_ORDER, NAMES, strict=True))


@pytest.mark.parametrize(
    "other",
    [{"acquired_at": "20261120100900.000000"}, {"number": 9}, {"partial_view": "YES"}],
    ids=["time", "number", "partial"],
)
def test_copies_whose_headers_rank_differently_rank_the_same_in_every_order(other: dict[str, Any]) -> None:
    """The same image twice, the second time with a mended header, beside a rival: who arrived first decides nothing."""
    views = exam()
    rival = replace(
        views[1], name="rival", acquired_at="20261120100500.000000" if "acquired_at" in other else views[1].acquired_at, number=5
    )
    mended = replace(views[1], syntax="mended", **other)
    found = set()
    for order in ((views[1], mended), (mended, views[1])):
        study = PureStudy()
        study.receive(*order, rival, views[0], *views[2:])
        study.settle()
        found.add((study.state, repr(elected(study)), repr(said(study))))
    assert len(found) == 1


@pytest.mark.parametrize("everything", [False, True])
def test_a_readable_copy_after_the_result_takes_the_broken_ones_place(everything: bool) -> None:
    """The site mends its encoder and sends again: before the result or after it, the end is the same."""
    broken = [replace(one, broken=everything or number == 0) for number, one in enumerate(exam())]
    mended = [replace(one, syntax="mended", broken=False) for one in broken if one.broken]
    late = PureStudy()
    late.receive(*broken)
    late.settle()
    assert late.state is (S.FAILED if everything else S.ANALYSED)
    late.receive(*mended)
    late.settle()
    check(late)
    assert late.state is S.ANALYSED and said(late) == said(plainly([*broken, *mended]))


def test_a_file_that_was_dropped_can_be_chosen_after_all() -> None:
    """A person chose the wrong one of two files, and corrects it."""
    views = exam()
    study = PureStudy()
    study.receive(*views, replace(views[0], pixels="other"))
    study.settle()
    assert study.state is S.HELD
    for number in (1, 5, 1):
        assert study.asked("release", use_file=(number,)).accepted
        study.settle()
        assert study.state is S.ANALYSED
        standing = [one.instance_id for one in study.judged.eligible if one.sop_instance_uid == NAMES[0]]
        assert standing == [number], "the chosen file stands for its image"
        assert study.selection[View.R_CC] == NAMES[0] and study.current is not None and study.current.outcome is Outcome.COMPLETE


# ----------------------------------------------------------------------------------------------------------------- withdrawals


def test_a_withdrawal_is_the_last_word_over_what_was_asked_before_it() -> None:
    """Reprocess, then withdraw, before any worker looked: it is not analysed again."""
    study = PureStudy()
    study.receive(*exam()[:3])
    study.settle()
    assert study.state is S.INCOMPLETE
    earlier = study.ask("reprocess")
    study.ask("withdraw")
    study.settle()
    assert study.state is S.WITHDRAWN and study.versions == []
    assert not study.answers[earlier].accepted


def test_a_withdrawal_is_the_last_word_over_what_was_asked_during_the_run() -> None:
    study = analysed()
    study.ask("reprocess")
    study.receive(File(name="retake", view=View.L_CC, acquired_at="20261120110000.000000"))
    study.work(read=False, report=False)
    assert study.state is S.ANALYSING
    earlier = study.ask("reprocess")
    study.work(read=False, report=False)
    study.ask("withdraw")
    study.settle()
    assert study.state is S.WITHDRAWN and study.versions[-1].outcome is Outcome.WITHDRAWN
    assert not study.answers[earlier].accepted


def test_a_request_after_a_withdrawal_is_a_persons_word_too() -> None:
    study = analysed()
    assert study.asked("withdraw").accepted
    study.settle()
    assert study.state is S.WITHDRAWN
    assert study.asked("reprocess").accepted
    study.settle()
    assert study.state is S.ANALYSED and [one.outcome for one in study.versions][-2:] == [Outcome.WITHDRAWN, Outcome.COMPLETE]


def test_a_doubtful_image_in_between_does_not_save_a_result_whose_images_are_all_rejected() -> None:
    """All four rejected while a fifth is doubtful; then the fifth as well."""
    study = analysed()
    study.receive(File(name="odd", view=View.L_CC, doubt="two sources name two sides"))
    study.settle()
    study.receive(rejecting(*NAMES))
    study.settle()
    study.receive(rejecting("odd"))
    study.settle()
    assert study.state is S.WITHDRAWN and study.versions[-1].outcome is Outcome.WITHDRAWN


@pytest.mark.parametrize("title", ["113037", "113038"])
def test_what_was_rejected_as_unsafe_during_its_first_run_is_not_sent(title: str) -> None:
    study = PureStudy()
    study.receive(*exam())
    study.work(read=False)
    study.step(RETAKE)
    study.work(read=False)
    assert study.state is S.ANALYSING and not study.claimed
    study.receive(rejecting(NAMES[0], title=title))
    study.settle()
    assert study.state is S.WITHDRAWN
    assert not [one for one in study.versions if one.sent and one.outcome is not Outcome.WITHDRAWN]


def test_a_withdrawn_study_goes_on_saying_why() -> None:
    """Withdrawn by a rejection in the middle of a second run: no word of new images, for none came after it."""
    study = analysed()
    study.receive(File(name="retake", view=View.L_CC, acquired_at="20261120110000.000000"))
    study.work()
    study.step(RETAKE)
    study.work(report=False)
    assert study.state is S.ANALYSING and study.claimed
    study.receive(rejecting(NAMES[0], title="113038"))
    study.settle()
    assert study.state is S.WITHDRAWN and study.versions[-1].outcome is Outcome.WITHDRAWN
    assert "113038" in study.row["state_reason"]


def test_new_images_never_wake_a_withdrawn_study_and_are_never_silent() -> None:
    study = analysed()
    study.receive(rejecting(*NAMES))
    study.settle()
    study.receive(*exam(prefix="new "))
    study.settle()
    assert study.state is S.WITHDRAWN and "new images came" in study.row["state_reason"] and not study.waiting
    assert len(study.versions) == 2
    assert study.asked("reprocess").accepted
    study.settle()
    assert study.state is S.ANALYSED and set(study.selection.values()) == {f"new {name}" for name in NAMES}


# ---------------------------------------------------------------------------------------------------------------------- doubts


def test_what_a_held_study_shows_is_what_is_doubtful_now() -> None:
    """One of two doubts is rejected, then the other: the stored doubts and the reason follow."""
    odd = [File(name=f"odd {number}", view=View.L_CC, doubt=f"doubt number {number}") for number in (1, 2)]
    study = PureStudy()
    study.receive(*exam(), *odd)
    study.work()
    assert len(study.row["doubts"]) == 2
    study.receive(rejecting("odd 1"))
    study.work()
    assert [one["reason"] for one in study.row["doubts"]] == ["image odd 2: doubt number 2"] and "odd 1" not in study.row["state_reason"]
    study.receive(rejecting("odd 2"))
    study.work()
    assert study.state is S.HELD and study.row["doubts"] == []
    assert "odd 2: doubt" not in study.row["state_reason"], "it says that nothing is doubtful any more"


def test_a_patient_whose_image_was_excluded_is_not_accepted_with_the_others() -> None:
    """Exclude the stranger and accept the rest: another image of the stranger is a doubt again."""
    renamed = Patient(patient_id="P1-NEW", patient_name="Doe^Jane", patient_birth_date="19700101")
    views = exam()
    study = PureStudy()
    study.receive(*views[:2], *(replace(one, patient=renamed) for one in views[2:]))
    study.receive(File(name="stranger", view=View.L_CC, patient=OTHER_PATIENT))
    study.settle()
    assert study.state is S.HELD
    assert study.asked("release", exclude=("stranger",), accept_patient=True, patient_of=NAMES[2]).accepted
    study.settle()
    assert study.state is S.ANALYSED
    study.receive(File(name="stranger again", view=View.L_CC, patient=OTHER_PATIENT, acquired_at="20261120110000.000000"))
    study.settle()
    assert study.state is S.HELD


DOUBTFUL = {
    "wrong side": [replace(exam()[0], wrong_side=True), *exam()[1:]],
    "contradictory side": [replace(exam()[0], doubt="two sources name two sides"), *exam()[1:]],
    "another patient": [replace(exam()[0], patient=OTHER_PATIENT), *exam()[1:]],
    "another patient in a copy": [replace(exam()[0], patient=OTHER_PATIENT), *exam()],
    "other pixels": [*exam(), replace(exam()[0], pixels="other")],
    "another view": [*exam(), replace(exam()[0], view=View.L_CC)],
}


def typed(choice: str) -> dict[str, Any]:
    """What a person types who takes over an offered choice; VIEW is what the image shows."""
    option, _, value = choice.partition(" ")
    match option:
        case "--exclude":
            return {"exclude": (value,)}
        case "--use-file":
            return {"use_file": (int(value),)}
        case "--view":
            return {"view": {value.removesuffix("=VIEW"): View.R_CC}}
        case "--accept-patient":
            return {"accept_patient": True, "patient_of": value.removeprefix("--patient-of ")}
    raise AssertionError(f"nobody can type {choice}")


@pytest.mark.parametrize("name", DOUBTFUL)
def test_each_offered_choice_settles_the_doubt(name: str) -> None:
    held = PureStudy()
    held.receive(*DOUBTFUL[name])
    held.work()
    choices = dict.fromkeys(choice for doubt in held.judged.doubts for choice in doubt.choices)
    assert held.state is S.HELD and len(choices) >= 2
    taken = []
    for choice in choices:
        study = PureStudy()
        study.receive(*DOUBTFUL[name])
        study.work()
        answer = study.asked("release", **typed(choice))
        study.settle()
        check(study)
        assert study.state is (S.ANALYSED if answer.accepted else S.HELD)
        # Of two images that name two patients either may be the wrong one: to exclude the right one does not settle it.
        assert answer.accepted or choice.startswith("--exclude"), f"{choice}: {answer.text}"
        taken += [choice] * answer.accepted
    assert any(choice.startswith("--exclude") for choice in taken)


def test_a_study_that_was_held_is_read_on_once_it_is_released_and_held_again_for_what_that_shows() -> None:
    """What arrives while a study is held is not read: its pixels may tell of another doubt, and they do before anything is sent."""
    study = PureStudy()
    study.receive(File(name="odd", view=View.L_CC, doubt="two sources name two sides"), *exam(), replace(exam()[0], pixels="other"))
    study.work()
    assert study.state is S.HELD and len(study.judged.doubts) == 1 and not study.waiting
    assert study.asked("release", exclude=("odd",)).accepted
    study.settle()
    assert study.state is S.HELD and len(study.judged.doubts) == 1 and not any(one.sent for one in study.versions)
    assert study.asked("release", use_file=(6,)).accepted
    study.settle()
    assert study.state is S.ANALYSED and study.current is not None and study.current.sent


def test_a_doubt_stops_the_run_from_being_sent_whenever_it_comes() -> None:
    for moment in ("before", "reading", "ready"):
        study = PureStudy()
        study.receive(*exam())
        study.work(read=moment != "reading")
        study.step(RETAKE)
        study.work(read=False, report=False)
        study.receive(replace(exam()[0], pixels="other"))
        study.settle()
        assert study.state is S.HELD or not any(one.sent for one in study.versions), moment
        assert study.judged.doubts


def test_a_doubt_among_what_is_set_aside_or_rejected_blocks_nothing() -> None:
    beside = [
        File(name="tomo", view=View.L_CC, set_aside="tomosynthesis", wrong_side=True, patient=OTHER_PATIENT),
        File(name="raw", view=View.L_CC, kind=ImageKind.FOR_PROCESSING, doubt="two sources name two sides"),
        File(name="gone", view=View.L_CC, doubt="two sources name two sides", patient=OTHER_PATIENT),
        rejecting("gone"),
    ]
    study = PureStudy()
    study.receive(*beside, *exam())
    study.settle()
    assert study.state is S.ANALYSED and S.HELD not in study.states


# ----------------------------------------------------------------------------------------------------------------------- time


def test_images_that_trickle_in_for_ever_do_not_keep_a_study_open() -> None:
    """An image every nine minutes, always of one slot: decided after the longest time, and every four hours again."""
    study = PureStudy()
    for number in range(60):
        study.receive(File(name=f"R-CC {number}", view=View.R_CC))
        study.work()
        wait(study, CEILING - 60)
    assert S.INCOMPLETE in study.states
    study.settle()
    assert study.state is S.INCOMPLETE and study.unaccounted() == []


@pytest.mark.parametrize("policy", WhenIncomplete)
def test_the_ceiling_of_a_rule_stands_above_that_of_the_site(policy: WhenIncomplete) -> None:
    state = {WhenIncomplete.HOLD: S.INCOMPLETE, WhenIncomplete.ANALYSE: S.ANALYSED, WhenIncomplete.IGNORE: S.IGNORED}[policy]
    for site in WhenIncomplete:
        study = PureStudy(policy=replace(POLICY, when_incomplete=site), ruling=FixedRuling(when_incomplete=policy))
        study.receive(*exam()[:3])
        study.settle()
        assert study.state is state


@pytest.mark.parametrize("slots", [(View.L_CC, View.L_MLO), (View.R_CC, View.R_MLO)])
def test_a_unilateral_rule_waits_for_its_side_only(slots: tuple[View, ...]) -> None:
    study = PureStudy(ruling=FixedRuling(slots=slots))
    study.receive(*exam(*slots))
    study.work()
    study.step(RETAKE)
    study.work()
    assert study.state is S.ANALYSED and study.current is not None
    assert study.current.outcome is Outcome.UNILATERAL and study.current.missing == ()


def test_a_run_whose_workflow_vanished_is_looked_at_again() -> None:
    study = PureStudy()
    study.receive(*exam())
    study.work()
    study.step(RETAKE)
    study.work(report=False)
    assert study.claimed
    study.claimed = False  # the engine took the study back
    study.step(STALLED_SECONDS)
    study.work()
    assert study.state is S.ANALYSED


def test_time_of_looking_changes_nothing_but_times() -> None:
    """A worker that looks every second and one that looks only when something is due end with the same."""
    eager, lazy = PureStudy(), PureStudy()
    for file in exam():
        for study in (eager, lazy):
            study.receive(file)
        for _ in range(20):
            eager.look()
            eager.step(1)
        lazy.step(20)
    eager.settle()
    lazy.settle()
    assert said(eager) == said(lazy) and eager.state is lazy.state


# ----------------------------------------------------------------------------------------------------------------- a whole day


def test_a_day_of_a_thousand_studies_ends_as_it_was_meant_to() -> None:
    """5 % with an oddity, all under one stepped clock: every image is accounted for, every state is the intended one."""
    day = Day(planned_day(1000)).live()
    assert list(day.faults()) == []
    assert day.states() == day.intended()
    assert len([plan for plan in day.plans if plan.oddity]) == 50 and len(day.states()) == 6


def test_a_day_of_oddities_only() -> None:
    assert list(Day(planned_day(220, odd=1.0, seed=2)).live().faults()) == []


# ---------------------------------------------------------------------------------------------------------------- the archive


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with all tables and no study, to be copied."""
    path = tmp_path_factory.mktemp("grouping") / "empty.db"
    engine = write_engine(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> Iterator[Any]:
    """Makes stores of their own, each on a fresh SQLite database."""
    engines = []

    def make() -> SteppedStore:
        folder = tmp_path / f"store {len(engines)}"
        folder.mkdir()
        shutil.copy(migrated, folder / "f.db")
        engines.append(write_engine(f"sqlite:///{folder / 'f.db'}"))
        return SteppedStore(engines[-1], folder / "files")

    yield make
    for engine in engines:
        engine.dispose()


def written(stepped: SteppedStore) -> Any:
    """Everything that results are made of: runs, causes by way of the objects' UIDs, selections, losers, warnings."""
    keys = ("run_id", "outcome", "objects", "losers", "warnings")
    found = stepped.study()
    return found["state"], [[version[key] for key in keys] for version in found["runs"]]


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rejected_before=st.booleans(), data=st.data())
def test_the_archive_writes_the_same_objects_in_every_order(store: Any, rejected_before: bool, data: st.DataObject) -> None:
    """Equal clock, equal history of versions: two orders, with resends, copies, rejections and another study in between, equal bytes."""
    views = received_exam()
    retake = image(View.L_CC, "retake", AcquisitionTime="101900")
    pool = [*views, implicit(views[0]), retake, implicit(retake), rejection(views[1])]
    if rejected_before:
        poor = image(View.R_CC, "poor", AcquisitionTime="101000")
        pool += [poor, rejection(poor, name="poor")]
    others = received_exam(study="other", PatientID="P2")
    endings = []
    for _ in range(2):
        stepped = store()
        order = data.draw(st.permutations([*pool, *pool[:3]]))
        manners = data.draw(st.lists(st.sampled_from(("all", "no pixels", "nothing", "other study")), min_size=13, max_size=13))
        for place, ds in enumerate(order):
            stepped.receive(ds)
            manner = manners[place]
            if manner == "other study":
                stepped.receive(others[place % 4])
            elif manner != "nothing":
                stepped.work(read=manner == "all")
            stepped.step(3)
        assert stepped.versions() == []
        stepped.settle()
        stepped.now = START.replace(hour=12)
        stepped.receive(image(View.R_MLO, "late", AcquisitionTime="103000"))
        stepped.settle()
        endings.append(written(stepped))
    assert endings[0] == endings[1] and endings[0][0] == "analysed" and len(endings[0][1]) == 2
