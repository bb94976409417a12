"""The pure core: who fills a slot, the state table, when a study is due, and what its identities depend on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stepped_store import INSTALLATION, MODEL, FixedRuling

from store.grouping import missing_views
from store.study import (
    HANGING_ORDER,
    LONGEST_COLLECTING,
    RANKING,
    TRANSITIONS,
    Candidate,
    Collected,
    Election,
    Event,
    ImageKind,
    Loser,
    Outcome,
    Policy,
    Scores,
    Step,
    StudyState,
    View,
    ViewEvidence,
    WhenIncomplete,
    digest,
    due_step,
    elect,
    next_state,
    object_cause,
    outcome,
    run_id,
    standing_slots,
    version_cause,
)

FFDM = frozenset({ImageKind.FFDM})
EVERY_KIND = frozenset(ImageKind)


def candidate(uid: str = "1.2.3", view: View | None = View.L_CC, **fields: Any) -> Candidate:
    """The best candidate there can be, but for `fields` of it or of its evidence."""
    of_evidence = {name: fields.pop(name) for name in ("kind", "modifiers", "view_source", "laterality") if name in fields}
    evidence = ViewEvidence(
        **{
            "view": view,
            "laterality": view.laterality if view else None,
            "laterality_source": "ImageLaterality",
            "view_position": view.position if view else None,
            "view_source": "ViewCodeSequence",
            "kind": ImageKind.FFDM,
            **of_evidence,
        }
    )
    best: dict[str, Any] = {"partial_view": "NO", "acquired_at": "20261120100000.000000", "area": 1000, "number": 5}
    return Candidate(instance_id=1, sop_instance_uid=uid, evidence=evidence, **{**best, **fields})


# -------------------------------------------------------------------------------------------------------------------- election

#: rule -> (what the winner has, what the loser has): the loser is better by every rule after it.
LATER = {"acquired_at": "20261120110000.000000", "area": 2000, "number": 9}
RULES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "a fallback modifier": (1, {"partial_view": "YES", "lossy": True}, {"modifiers": ("NP",), **LATER}),
    "anterior compression": (1, {}, {"modifiers": ("AC",), **LATER}),
    "infra-mammary fold": (1, {}, {"modifiers": ("ID", "IMF"), **LATER}),
    "displaced, with an implant": (2, {"modifiers": ("ID",), "implant": True, "lossy": True}, {"implant": True, **LATER}),
    "displaced, the implant told by the other image": (2, {"modifiers": ("ID",)}, {"implant": True, **LATER}),
    "displaced, and the rest of the breast has the implant": (2, {"modifiers": ("ID",), "implant": True}, {"partial_view": "NO", **LATER}),
    "displaced, without an implant": (2, {"lossy": True}, {"modifiers": ("ID",), **LATER}),
    "whole before unknown": (3, {"partial_view": "NO", "lossy": True}, {"partial_view": "", **LATER}),
    "unknown before partial": (3, {"partial_view": ""}, {"partial_view": "YES", **LATER}),
    "FFDM before CR": (4, {"lossy": True}, {"kind": ImageKind.CR, **LATER}),
    "CR before low energy": (4, {"kind": ImageKind.CR}, {"kind": ImageKind.CONTRAST_LOW_ENERGY, **LATER}),
    "FFDM before low energy": (4, {"lossy": True}, {"kind": ImageKind.CONTRAST_LOW_ENERGY, **LATER}),
    "low energy before synthetic": (4, {"kind": ImageKind.CONTRAST_LOW_ENERGY}, {"kind": ImageKind.SYNTHETIC_2D, **LATER}),
    "synthetic before raw": (4, {"kind": ImageKind.SYNTHETIC_2D}, {"kind": ImageKind.FOR_PROCESSING, **LATER}),
    "raw before unknown": (4, {"kind": ImageKind.FOR_PROCESSING}, {"kind": ImageKind.UNKNOWN, **LATER}),
    "lossless before lossy": (5, {"view_source": "text of SeriesDescription"}, {"lossy": True, **LATER}),
    "a person before a code": (6, {"view_source": "operator"}, LATER),
    "code before ViewPosition": (6, {}, {"view_source": "ViewPosition", **LATER}),
    "ViewPosition before text": (6, {"view_source": "ViewPosition"}, {"view_source": "text of SeriesDescription", **LATER}),
    "the later one": (7, {"acquired_at": "20261120100001.000000"}, {"area": 2000, "number": 9}),
    "a time before none": (7, {}, {"acquired_at": "", "area": 2000, "number": 9}),
    "a fraction of a second": (7, {"acquired_at": "20261120100000.500000"}, {"area": 2000}),
    "the larger one": (8, {"area": 1001}, {"number": 9}),
    "the higher acquisition": (9, {"acquisition_number": 2, "number": 1}, {"acquisition_number": 1, "number": 9}),
    "the higher number": (9, {"number": 6}, {}),
}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_each_rule_decides(name: str, swapped: bool) -> None:
    rule, better, worse = RULES[name]
    # The UIDs speak for the loser: rule 10 would choose it.
    images = [candidate("1.2.9", **better), candidate("1.2.1", **worse)]
    election = elect(images[::-1] if swapped else images, EVERY_KIND)
    assert election.winner(View.L_CC) == images[0]
    [loser] = election.losers
    assert (loser.view, loser.sop_instance_uid, loser.winner_sop_instance_uid) == (View.L_CC, "1.2.1", "1.2.9")
    assert loser.rule == rule and loser.reason == RANKING[rule - 1]


#: rule -> what makes an image better by this rule only, and what makes it worse by this rule only.
ONLY: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {
    1: ({}, {"modifiers": ("NP",)}),
    2: ({}, {"modifiers": ("ID",)}),
    3: ({"partial_view": "NO"}, {"partial_view": "YES"}),
    4: ({}, {"kind": ImageKind.SYNTHETIC_2D}),
    5: ({}, {"lossy": True}),
    6: ({}, {"view_source": "ViewPosition"}),
    7: ({"acquired_at": "20261120110000.000000"}, {"acquired_at": "20261120090000.000000"}),
    8: ({"area": 2000}, {"area": 500}),
    9: ({"number": 9}, {"number": 1}),
    10: ({"uid": "1.2.1"}, {"uid": "1.2.9"}),
}


def better(*rules: int) -> dict[str, Any]:
    return {"uid": "1.2.5", **{name: value for rule in rules for name, value in ONLY[rule][0].items()}}


def worse(*rules: int) -> dict[str, Any]:
    return {"uid": "1.2.7", **{name: value for rule in rules for name, value in ONLY[rule][1].items()}}


@pytest.mark.parametrize("rule", ONLY)
def test_only_this_rule_decides(rule: int) -> None:
    """Equal by every other rule (two images cannot have one UID: the tenth speaks for the loser of the first nine)."""
    good, bad = candidate(**(better(rule) | ({"uid": "1.2.8"} if rule < 10 else {}))), candidate(**worse(rule))
    for images in ([good, bad], [bad, good]):
        [loser] = elect(images, EVERY_KIND).losers
        assert (loser.rule, loser.sop_instance_uid, loser.reason) == (rule, bad.sop_instance_uid, RANKING[rule - 1])


@pytest.mark.parametrize("rule", range(2, 11))
def test_the_rule_before_outranks_this_one_and_all_after_it(rule: int) -> None:
    later = range(rule, 11)
    good = candidate(**(better(rule - 1) | worse(*later)))
    bad = candidate(**(worse(rule - 1) | better(*later)))
    for images in ([good, bad], [bad, good]):
        [loser] = elect(images, EVERY_KIND).losers
        assert (loser.rule, loser.sop_instance_uid) == (rule - 1, bad.sop_instance_uid)


def test_the_tenth_rule_is_the_lowest_uid() -> None:
    election = elect([candidate("1.2.3"), candidate("1.2.1"), candidate("1.2.2")], FFDM)
    assert election.winners[0][1].sop_instance_uid == "1.2.1" and {loser.rule for loser in election.losers} == {10}


def test_there_are_ten_rules() -> None:
    assert len(RANKING) == 10 == len(ONLY) and {rule for rule, _, _ in RULES.values()} == set(range(1, 10))


def test_an_implant_counts_for_its_own_side_only() -> None:
    """An implant on the right does not make the displaced view of the left the better one."""
    right = candidate("1.2.5", View.R_CC, implant=True)
    plain, displaced = candidate("1.2.9"), candidate("1.2.1", modifiers=("ID",))
    assert elect([right, plain, displaced], FFDM).winner(View.L_CC) == plain


def test_an_implant_in_one_projection_counts_for_the_other() -> None:
    oblique = candidate("1.2.5", View.L_MLO, implant=True)
    plain, displaced = candidate("1.2.1"), candidate("1.2.9", modifiers=("ID",))
    assert elect([oblique, plain, displaced], FFDM).winner(View.L_CC) == displaced


def test_a_kind_that_is_not_accepted_is_neither_winner_nor_loser() -> None:
    election = elect([candidate("1.2.1", kind=ImageKind.SYNTHETIC_2D), candidate("1.2.2", view=None)], FFDM)
    assert election == Election(winners=(), losers=()) and election.missing == HANGING_ORDER


def test_slots_are_listed_as_hung() -> None:
    election = elect([candidate(f"1.2.{number}", view) for number, view in enumerate(reversed(HANGING_ORDER))], FFDM)
    assert election.filled == HANGING_ORDER == (View.R_CC, View.L_CC, View.R_MLO, View.L_MLO)
    assert election.missing == () and election.winner(View.L_MLO) is not None


_CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.integers(1, 10**6).map(lambda number: f"1.2.{number}"),
        st.sampled_from(HANGING_ORDER),
        kind=st.sampled_from([ImageKind.FFDM, ImageKind.CR, ImageKind.SYNTHETIC_2D]),
        modifiers=st.sampled_from([(), ("ID",), ("NP",), ("AC", "ID")]),
        view_source=st.sampled_from(["ViewCodeSequence", "ViewPosition", "text of ProtocolName"]),
        implant=st.booleans(),
        partial_view=st.sampled_from(["", "NO", "YES", "odd"]),
        lossy=st.booleans(),
        acquired_at=st.sampled_from(["", "20261120100000.000000", "20261120100100.000000"]),
        area=st.integers(0, 2),
        acquisition_number=st.integers(0, 1),
        number=st.integers(0, 2),
    ),
    max_size=8,
    unique_by=lambda one: one.sop_instance_uid,
)


@given(_CANDIDATES, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(images: list[Candidate], chance: Any) -> None:
    shuffled = list(images)
    chance.shuffle(shuffled)
    kinds = frozenset({ImageKind.FFDM, ImageKind.SYNTHETIC_2D})
    first, second = elect(images, kinds), elect(shuffled, kinds)
    assert first == second
    accounted = [winner.sop_instance_uid for _, winner in first.winners] + [loser.sop_instance_uid for loser in first.losers]
    assert sorted(accounted) == sorted(one.sop_instance_uid for one in images if one.evidence.kind in kinds), (
        "every image wins or loses once"
    )


# ---------------------------------------------------------------------------------------------------------------------- states

S, E = StudyState, Event
#: The table of the design, written a second time. What is due is decided in a frozen selection, so "unchanged" follows analysing.
TABLE: dict[StudyState, dict[Event, StudyState]] = {
    S.COLLECTING: {
        E.ELIGIBLE_IMAGE: S.COLLECTING,
        E.DUE_ANALYSE: S.ANALYSING,
        E.DUE_HOLD: S.HELD,
        E.DUE_IGNORE: S.IGNORED,
        E.DUE_INCOMPLETE: S.INCOMPLETE,
        E.DOUBT: S.HELD,
        E.REJECTED: S.WITHDRAWN,
        E.REQUEST: S.ANALYSING,
    },
    S.ANALYSING: {
        E.UNCHANGED: S.ANALYSED,
        E.VERSION_SAVED: S.ANALYSED,
        E.NO_SCORES: S.FAILED,
        E.DOUBT: S.HELD,
        E.REJECTED: S.WITHDRAWN,
    },
    S.ANALYSED: {E.ELIGIBLE_IMAGE: S.COLLECTING, E.DOUBT: S.HELD, E.REJECTED: S.WITHDRAWN, E.REQUEST: S.ANALYSING},
    S.INCOMPLETE: {E.ELIGIBLE_IMAGE: S.COLLECTING, E.DOUBT: S.HELD, E.REJECTED: S.WITHDRAWN, E.REQUEST: S.ANALYSING},
    S.IGNORED: {E.ELIGIBLE_IMAGE: S.COLLECTING, E.DOUBT: S.HELD, E.REJECTED: S.WITHDRAWN, E.REQUEST: S.ANALYSING},
    S.FAILED: {E.ELIGIBLE_IMAGE: S.COLLECTING, E.DOUBT: S.HELD, E.REJECTED: S.WITHDRAWN, E.REQUEST: S.ANALYSING},
    S.HELD: {
        E.ELIGIBLE_IMAGE: S.HELD,
        E.UNCHANGED: S.HELD,
        E.VERSION_SAVED: S.HELD,
        E.NO_SCORES: S.HELD,
        E.DOUBT: S.HELD,
        E.REJECTED: S.WITHDRAWN,
        E.REQUEST: S.ANALYSING,
    },
    S.WITHDRAWN: {
        E.ELIGIBLE_IMAGE: S.WITHDRAWN,
        E.UNCHANGED: S.WITHDRAWN,
        E.VERSION_SAVED: S.WITHDRAWN,
        E.NO_SCORES: S.WITHDRAWN,
        E.REJECTED: S.WITHDRAWN,
        E.REQUEST: S.ANALYSING,
    },
}


@pytest.mark.parametrize("state", StudyState)
@pytest.mark.parametrize("event", Event)
def test_every_pair_of_state_and_event(state: StudyState, event: Event) -> None:
    expected = TABLE[state].get(event)
    if expected is None:
        with pytest.raises(ValueError, match=state.value):
            next_state(state, event)
    else:
        assert next_state(state, event) is expected


@pytest.mark.parametrize("state", StudyState)
def test_a_person_gets_a_study_out_of_every_state(state: StudyState) -> None:
    """What waits for nobody (an analysis in progress) ends by itself; from everywhere else a request leads to an analysis."""
    if state is S.ANALYSING:
        assert {next_state(state, event) for event in (E.UNCHANGED, E.VERSION_SAVED, E.NO_SCORES)} == {S.ANALYSED, S.FAILED}
    else:
        assert next_state(state, E.REQUEST) is S.ANALYSING


@pytest.mark.parametrize("event", [event for event in Event if event is not E.REQUEST])
def test_nothing_but_a_person_ends_held_and_withdrawn(event: Event) -> None:
    """A doubt stays until a person looked, and what was withdrawn is never analysed again by itself."""
    for state, others in ((S.HELD, {S.HELD, S.WITHDRAWN}), (S.WITHDRAWN, {S.WITHDRAWN})):
        assert {TRANSITIONS.get((state, event), state)} <= others


# ------------------------------------------------------------------------------------------------------------------------- due

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
POLICY = Policy(wait_for_retake_seconds=60, give_up_after_seconds=600, when_incomplete=WhenIncomplete.HOLD, model=MODEL)
FULL = elect([candidate(f"1.2.{number}", view) for number, view in enumerate(HANGING_ORDER)], FFDM)


def of(*views: View) -> Election:
    return elect([candidate(f"1.2.{number}", view) for number, view in enumerate(views)], FFDM)


def at(seconds: float, election: Election = FULL, policy: Policy = POLICY, **fields: Any) -> Step:
    """The step of a study whose last image came at noon, `seconds` after it."""
    collected = Collected(
        **{
            "election": election,
            "last_eligible_at": NOON if election.filled else None,
            "last_instance_at": NOON,
            "collecting_since": NOON - timedelta(seconds=30),
            "ruling": FixedRuling(),
            "sides_seen": frozenset("LR"),
            **fields,
        }
    )
    return due_step(collected, policy, NOON + timedelta(seconds=seconds))


def test_a_full_study_waits_for_a_retake() -> None:
    assert at(0) == Step(event=None, due_at=NOON + timedelta(seconds=60), reason="all four views are here; waiting for a possible retake")
    assert at(59.9).event is None and at(60).event is Event.DUE_ANALYSE


def test_the_wait_for_a_retake_starts_with_the_last_eligible_image() -> None:
    """An ignored object that trickles in later changes nothing."""
    assert at(60, last_instance_at=NOON + timedelta(seconds=50)).event is Event.DUE_ANALYSE


def test_a_wait_beyond_the_ceiling_ends_at_the_ceiling() -> None:
    assert at(600, policy=replace(POLICY, wait_for_retake_seconds=9999)).event is Event.DUE_ANALYSE


def test_an_open_study_waits_for_the_ceiling_and_says_for_what() -> None:
    step = at(599, of(View.R_CC, View.L_MLO))
    assert step == Step(event=None, due_at=NOON + timedelta(seconds=600), reason="waiting for L-CC, R-MLO")


@pytest.mark.parametrize(
    ("policy", "event"),
    [
        (WhenIncomplete.HOLD, Event.DUE_INCOMPLETE),
        (WhenIncomplete.ANALYSE, Event.DUE_ANALYSE),
        (WhenIncomplete.IGNORE, Event.DUE_IGNORE),
    ],
)
def test_the_ceiling_asks_the_policy(policy: WhenIncomplete, event: Event) -> None:
    step = at(600, of(View.R_CC, View.L_CC, View.R_MLO), replace(POLICY, when_incomplete=policy))
    assert step == Step(event=event, due_at=None, reason="gave up waiting for L-MLO")


def test_nothing_is_collected_for_longer_than_the_longest_time() -> None:
    """Images that never fill the exam trickle in every few minutes."""
    since = NOON - LONGEST_COLLECTING + timedelta(seconds=100)
    assert at(99, of(View.R_CC), collecting_since=since).event is None
    assert at(100, of(View.R_CC), collecting_since=since).event is Event.DUE_INCOMPLETE


def test_a_full_study_is_never_due_before_its_last_image() -> None:
    step = at(0, collecting_since=NOON - LONGEST_COLLECTING - timedelta(hours=1))
    assert step.event is Event.DUE_ANALYSE


@pytest.mark.parametrize(
    ("views", "sides", "expected"),
    [
        (HANGING_ORDER, "LR", Outcome.COMPLETE),
        ((View.R_CC, View.R_MLO), "R", Outcome.UNILATERAL),
        ((View.L_CC, View.L_MLO), "L", Outcome.UNILATERAL),
        ((View.R_CC, View.R_MLO), "LR", Outcome.PARTIAL),  # something came of the other side
        ((View.R_CC,), "R", Outcome.PARTIAL),
        ((View.R_CC, View.L_CC), "LR", Outcome.PARTIAL),
        ((View.R_CC, View.L_CC, View.L_MLO), "LR", Outcome.PARTIAL),
        ((), "", Outcome.PARTIAL),
    ],
)
def test_outcome(views: tuple[View, ...], sides: str, expected: Outcome) -> None:
    assert outcome(of(*views), frozenset(sides)) is expected


LEFT, RIGHT = (View.L_CC, View.L_MLO), (View.R_CC, View.R_MLO)


@pytest.mark.parametrize(
    ("views", "sides", "expected", "found"),
    [
        (LEFT, "L", LEFT, Outcome.UNILATERAL),
        (LEFT, "LR", LEFT, Outcome.UNILATERAL),  # the rule expects nothing of the other side, and nothing of it fills a slot
        (RIGHT, "R", RIGHT, Outcome.UNILATERAL),
        ((View.L_CC,), "L", LEFT, Outcome.PARTIAL),
        ((*LEFT, View.R_CC), "LR", LEFT, Outcome.PARTIAL),  # something of the other side came after all
        (HANGING_ORDER, "LR", LEFT, Outcome.COMPLETE),
        (RIGHT, "R", LEFT, Outcome.PARTIAL),  # the side that was expected is the one that is not here
        ((), "", LEFT, Outcome.PARTIAL),
    ],
)
def test_outcome_of_a_rule_that_expects_one_side(views: tuple[View, ...], sides: str, expected: tuple[View, ...], found: Outcome) -> None:
    assert outcome(of(*views), frozenset(sides), expected) is found


@pytest.mark.parametrize(
    ("views", "expected", "standing"),
    [
        ((), HANGING_ORDER, HANGING_ORDER),
        ((), LEFT, LEFT),
        ((View.L_CC,), LEFT, LEFT),
        ((View.R_CC,), LEFT, HANGING_ORDER),
        (LEFT, RIGHT, HANGING_ORDER),
        (RIGHT, RIGHT[::-1], RIGHT),
    ],
)
def test_standing_slots(views: tuple[View, ...], expected: tuple[View, ...], standing: tuple[View, ...]) -> None:
    """The expected slots, and both of any side of which an image came after all, as they are hung."""
    assert standing_slots(of(*views), expected) == standing


@pytest.mark.parametrize(("slots", "others"), [(LEFT, RIGHT), (RIGHT, LEFT)])
def test_a_rule_that_expects_one_side_waits_for_it_only(slots: tuple[View, ...], others: tuple[View, ...]) -> None:
    ruling = FixedRuling(slots=slots)
    step = at(0, of(*slots), ruling=ruling)
    here = f"{slots[0]} and {slots[1]} are here, and the rule expects no others"
    assert step == Step(event=None, due_at=NOON + timedelta(seconds=60), reason=f"{here}; waiting for a possible retake")
    assert at(60, of(*slots), ruling=ruling) == Step(event=Event.DUE_ANALYSE, due_at=None, reason=here)
    assert at(0, of(slots[0]), ruling=ruling).reason == f"waiting for {slots[1]}"
    assert at(599, of(*slots, others[0]), ruling=ruling).reason == f"waiting for {others[1]}", "an image of the other side came after all"
    assert at(599, of(*others), ruling=ruling).reason == f"waiting for {slots[0]}, {slots[1]}"
    assert at(60, ruling=ruling).reason == "all four views are here"


@pytest.mark.parametrize("site", WhenIncomplete)
@pytest.mark.parametrize(
    ("ruled", "event"),
    [
        (WhenIncomplete.HOLD, Event.DUE_INCOMPLETE),
        (WhenIncomplete.ANALYSE, Event.DUE_ANALYSE),
        (WhenIncomplete.IGNORE, Event.DUE_IGNORE),
    ],
)
def test_the_ceiling_asks_the_rule_before_the_site(site: WhenIncomplete, ruled: WhenIncomplete, event: Event) -> None:
    policy = replace(POLICY, when_incomplete=site)
    assert at(600, of(View.R_CC), policy, ruling=FixedRuling(when_incomplete=ruled)).event is event
    assert at(600, of(View.R_CC), policy, ruling=FixedRuling(slots=RIGHT, when_incomplete=ruled)).event is event


@pytest.mark.parametrize(
    ("views", "expected", "named", "missing"),
    [
        ((View.R_CC, View.L_CC, View.R_MLO), HANGING_ORDER, (), (View.L_MLO,)),
        ((View.L_CC,), LEFT, (), (View.L_MLO,)),
        ((*LEFT, View.R_CC), LEFT, (), (View.R_MLO,)),
        ((View.L_CC,), LEFT, (View.L_MLO,), ()),  # its image is named: it could not be read
    ],
)
def test_missing_views(views: tuple[View, ...], expected: tuple[View, ...], named: tuple[View, ...], missing: tuple[View, ...]) -> None:
    assert missing_views(of(*views), expected, (*views, *named)) == missing


@pytest.mark.parametrize("policy", WhenIncomplete)
def test_one_side_alone_is_analysed_at_the_ceiling_whatever_the_policy(policy: WhenIncomplete) -> None:
    one_side, policies = of(View.R_CC, View.R_MLO), replace(POLICY, when_incomplete=policy)
    assert at(599, one_side, policies, sides_seen=frozenset("R")).event is None
    assert at(600, one_side, policies, sides_seen=frozenset("R")).event is Event.DUE_ANALYSE


@pytest.mark.parametrize(("action", "event"), [("hold", Event.DUE_HOLD), ("ignore", Event.DUE_IGNORE)])
def test_a_rule_that_does_not_analyse(action: str, event: Event) -> None:
    assert at(60, ruling=FixedRuling(action=action)) == Step(event=event, due_at=None, reason="made up")
    assert at(59, ruling=FixedRuling(action=action)).event is None


def test_nothing_eligible_is_ignored_at_the_ceiling() -> None:
    assert at(599, of()).event is None
    assert at(600, of()).event is Event.DUE_IGNORE and at(600, of(), ruling=None).event is Event.DUE_IGNORE


def test_the_breaker() -> None:
    assert at(60, versions_today=4).event is Event.DUE_ANALYSE
    step = at(60, versions_today=5)
    assert step.event is Event.DOUBT and "5 versions within 24 hours" in step.reason
    assert at(60, versions_today=5, ruling=FixedRuling(action="ignore")).event is Event.DUE_IGNORE


# ------------------------------------------------------------------------------------------------------------------ identities

SLOTS = [(view, f"1.2.{number}", f"{number}" * 64, True) for number, view in enumerate(HANGING_ORDER)]
RUN = run_id("1.2", SLOTS, MODEL)


@pytest.mark.parametrize(
    "changed",
    [
        run_id("1.3", SLOTS, MODEL),
        run_id("1.2", SLOTS[:3], MODEL),
        run_id("1.2", [*SLOTS[:3], (View.L_MLO, "1.2.9", "3" * 64, True)], MODEL),
        run_id("1.2", [*SLOTS[:3], (View.L_MLO, "1.2.3", "9" * 64, True)], MODEL),
        run_id("1.2", [*SLOTS[:3], (View.L_MLO, "1.2.3", "3" * 64, False)], MODEL),
        *(
            run_id("1.2", SLOTS, replace(MODEL, **{name: value}))
            for name, value in (
                ("name", "other"),
                ("version", "2"),
                ("weights_sha256", "1" * 64),
                ("profile", "reference"),
                ("engine", "torch"),
                ("classes", ("Mass", "Normal")),
                ("options", (("flip", "1"),)),
            )
        ),
    ],
)
def test_the_run_id_changes_with_what_is_read_and_by_what(changed: str) -> None:
    assert changed != RUN and len(changed) == 64


def test_the_run_id_does_not_change_with_words_about_the_model() -> None:
    assert run_id("1.2", SLOTS, replace(MODEL, manufacturer="Other", trained=True)) == RUN


LOSER = Loser(view=View.L_CC, sop_instance_uid="1.2.8", winner_sop_instance_uid="1.2.1", rule=7, reason="in words")
EVIDENCE = candidate().evidence
CAUSE: dict[str, Any] = {
    "run": RUN,
    "outcome": Outcome.COMPLETE,
    "evidence": [EVIDENCE],
    "losers": [LOSER],
    "warnings": ["L-CC: a warning"],
    "copied_header": {"PatientName": "Doe^Jane", "PatientID": "P1"},
    "writer_version": "1",
    "installation": INSTALLATION,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run", "f" * 64),
        ("outcome", Outcome.PARTIAL),
        ("evidence", []),
        ("evidence", [replace(EVIDENCE, view=View.R_CC)]),
        ("evidence", [replace(EVIDENCE, laterality_source="operator")]),
        ("evidence", [replace(EVIDENCE, view_source="ViewPosition")]),
        ("evidence", [replace(EVIDENCE, modifiers=("ID",))]),
        ("losers", []),
        ("losers", [replace(LOSER, rule=8)]),
        ("losers", [replace(LOSER, sop_instance_uid="1.2.7")]),
        ("losers", [replace(LOSER, predicted_class="Mass")]),
        ("warnings", []),
        ("warnings", ["L-CC: a warning", "L-CC: another"]),
        ("copied_header", {"PatientName": "Roe^Jane", "PatientID": "P1"}),
        ("copied_header", {"PatientName": "Doe^Jane"}),
        ("writer_version", "2"),
        ("installation", replace(INSTALLATION, ae_title="OTHER")),
        ("installation", replace(INSTALLATION, device_uid="2.25.2")),
        ("installation", replace(INSTALLATION, serial_number="T")),
        ("installation", replace(INSTALLATION, software_version="2")),
        ("installation", replace(INSTALLATION, timezone="Asia/Seoul")),
    ],
)
def test_the_cause_changes_with_everything_that_the_result_says(name: str, value: Any) -> None:
    assert version_cause(**{**CAUSE, name: value}) != version_cause(**CAUSE)


def test_the_cause_does_not_depend_on_the_order_of_the_header_or_on_wording() -> None:
    turned = dict(reversed(CAUSE["copied_header"].items()))
    assert version_cause(**{**CAUSE, "copied_header": turned}) == version_cause(**CAUSE)
    assert version_cause(**{**CAUSE, "losers": [replace(LOSER, reason="in other words")]}) == version_cause(**CAUSE)


def test_the_objects_depend_on_what_they_replace() -> None:
    cause = version_cause(**CAUSE)
    assert len({object_cause(cause, []), object_cause(cause, ["1.2"]), object_cause(cause, ["1.2", "1.3"]), cause}) == 4
    assert object_cause(cause, ["1.2"]) == object_cause(cause, ("1.2",))


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_two_lists_of_parts_never_give_one_digest(a: list[str], b: list[str]) -> None:
    assert (digest(*a) == digest(*b)) == (a == b)


def test_scores_name_the_first_class_on_a_tie() -> None:
    scores = Scores(classes=("a", "b", "c"), probabilities=(0.2, 0.4, 0.4), box=(0, 0, 1, 1), rows=1, columns=1)
    assert scores.predicted_class == "b" and scores.probability == 0.4
