"""Other model cards than the site's: named by a rule, named by a person, and only compared in the background."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa
from mammograms_made import uid
from stepped_store import MODEL, POLICY, FixedRuling, SteppedStore, exam, image

from listener import reread
from store import tables
from store.grouping import RequestKind
from store.study import ImageKind, Policy, View

STUDY = uid("study")
OTHER = replace(POLICY, card="/cards/other.toml", model=replace(MODEL, name="other"))
SYNTHETIC = replace(
    POLICY,
    card="/cards/synthetic.toml",
    model=replace(MODEL, name="synthetic"),
    image_kinds=frozenset({ImageKind.SYNTHETIC_2D}),
)


@pytest.fixture(autouse=True)
def cards(stepped: SteppedStore) -> None:
    stepped.policy = replace(POLICY, cards={one.card: one for one in (OTHER, SYNTHETIC)})


def models(stepped: SteppedStore) -> list[str]:
    return [str(version["model"]["name"]) for version in stepped.versions()]


def c_views() -> list[object]:
    kind = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]
    return [image(view, "C-View", ImageType=kind) for view in View]


def test_a_rule_names_the_card_that_reads(stepped: SteppedStore) -> None:
    stepped.ruling = FixedRuling(card=OTHER.card)
    stepped.receive(*exam())
    stepped.settle()
    assert models(stepped) == ["other"] and len(stepped.scored) == 4
    assert {row.card for row in stepped.rows(sa.select(tables.score.c.card))} == {OTHER.card}


def test_the_card_says_which_images_are_read(stepped: SteppedStore) -> None:
    """The rule is asked with the images that its own card takes: those of the site's card fill no slot for it."""
    stepped.ruling = FixedRuling(card=SYNTHETIC.card)
    stepped.receive(*exam(), *c_views())  # type: ignore[arg-type]
    stepped.settle()
    assert models(stepped) == ["synthetic"]
    assert set(stepped.selected().values()) == {ds.SOPInstanceUID for ds in c_views()}  # type: ignore[attr-defined]


def test_a_rule_whose_card_depends_on_what_it_takes_ends(stepped: SteppedStore) -> None:
    """Asked with the site's images it names another card, asked with that card's images the site's."""

    stepped.rules = lambda seen: FixedRuling(card=SYNTHETIC.card if seen.kind is ImageKind.FFDM else "")
    stepped.receive(*exam(), *c_views())  # type: ignore[arg-type]
    stepped.settle()
    assert stepped.state() == "analysed" and len(stepped.versions()) == 1


def test_a_person_names_a_card_for_one_run(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    stepped.archive.request(STUDY, RequestKind.REPROCESS, request_id="r", person="Kim", card=OTHER.card)
    stepped.settle()
    assert stepped.answer("r") == "accepted" and models(stepped) == ["m", "other"]
    assert len(stepped.study()["deliveries"]) == 4, "it is sent as any new version"
    stepped.receive(image(View.L_CC, "retake", AcquisitionTime="110000"))
    stepped.settle()
    assert models(stepped) == ["m", "other", "m"], "what comes later is the rule's again"


def test_an_image_that_a_result_waits_for_is_no_longer_read_in_the_background(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    assert stepped.scoring.ask(STUDY, OTHER) == 4
    stepped.archive.request(STUDY, RequestKind.REPROCESS, request_id="r", person="Kim", card=OTHER.card)
    stepped.work(read=False)
    waiting = stepped.rows(sa.select(tables.score.c.background).where(tables.score.c.state == "waiting"))
    assert [one.background for one in waiting] == [False] * 4
    stepped.settle()
    assert models(stepped) == ["m", "other"]


def test_a_comparison_is_read_in_the_background_and_changes_nothing(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    before = stepped.study()
    assert stepped.scoring.ask(STUDY, OTHER) == 4 and stepped.scoring.ask(STUDY, OTHER) == 0
    stepped.receive(*exam(study="urgent"))
    stepped.work(read=False)
    first = {int(claim.row) for claim in stepped.scoring.claim()}
    background = {row.id: row.background for row in stepped.rows(sa.select(tables.score.c.id, tables.score.c.background))}
    assert len(first) == 4 and not any(background[one] for one in first), "today's images come first"
    for one in first:
        stepped.read(one)
    [next_one] = stepped.scoring.claim()
    assert background[int(next_one.row)] and stepped.scoring.claim() == [], "one at a time"
    stepped.read(int(next_one.row))
    stepped.settle()
    after = stepped.study()
    assert (after["state"], after["runs"], after["deliveries"]) == (before["state"], before["runs"], before["deliveries"])
    assert [one["state"] for one in stepped.search.compared(STUDY, OTHER.model.key)] == ["scored"] * 4


def test_a_card_that_cannot_be_used_does_not_keep_a_study_for_ever(stepped: SteppedStore) -> None:
    stepped.ruling = FixedRuling(card="/cards/gone.toml")
    stepped.receive(*exam())
    with pytest.raises(KeyError):
        stepped.settle()
    stepped.archive.give_up(STUDY, "/cards/gone.toml: no such card")  # what a worker does then
    assert stepped.state() == "held"
    stepped.ruling = FixedRuling()  # the rule was mended
    assert stepped.ask("release") == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and models(stepped) == ["m"]


class _Worker:
    """Reads what is asked for at once, as a worker elsewhere does in its time."""

    def __init__(self, stepped: SteppedStore) -> None:
        self.stepped = stepped
        self.asked: list[str] = []

    def ask(self, study_instance_uid: str, policy: Policy) -> int:
        self.asked.append(study_instance_uid)
        count = self.stepped.scoring.ask(study_instance_uid, policy)
        self.stepped.work()
        return count


def test_the_table_tells_changed_classes_and_goes_on_where_it_stopped(stepped: SteppedStore) -> None:
    names = [f"study {number}" for number in range(10)]
    for name in names:
        stepped.receive(*exam(study=name))
    stepped.settle()
    changed = exam(study="study 3")[1].SOPInstanceUID
    stepped.classes[changed] = "Mass"
    broken = exam(study="study 4")[0].SOPInstanceUID
    stepped.broken[broken] = True
    studies = [uid(name) for name in names]
    plan = list(reread.planned(studies, stepped.search, OTHER))
    assert plan[0] == f"{studies[0]}: 4 of 4 views to be read" and len(stepped.scored) == 40

    worker, tally = _Worker(stepped), reread.Tally()
    lines = reread.reread(studies, worker, stepped.search, OTHER, tally, wait_seconds=5)
    assert next(lines) == f"{studies[3]}  L-CC   Normal {_score(stepped, changed)} -> Mass {_score(stepped, changed, OTHER)}"
    assert worker.asked == studies[: reread.AHEAD], "stopped here, only a few are asked for ahead"
    rest = list(reread.reread(studies, worker, stepped.search, OTHER, tally := reread.Tally(), wait_seconds=5))
    assert len(stepped.scored) == 40 + 39, "nothing is read twice"
    assert any(f"{studies[4]}  R-CC   could not be read: its pixels are broken" in line for line in rest)
    assert list(tally.table()) == ["40 views compared, 1 with another class, 1 could not be read", "       1  Normal -> Mass"]
    assert all(len(stepped.versions(name)) == 1 for name in names)
    assert "4 known already" in next(reread.planned(studies, stepped.search, OTHER))


def _score(stepped: SteppedStore, sop_instance_uid: str, policy: Policy = POLICY) -> str:
    found = stepped.search.compared(uid("study 3"), policy.model.key)
    [one] = [one for one in found if one["sop_instance_uid"] == sop_instance_uid]
    return f"{one['after_probability']:.1%}"


def test_a_comparison_that_nobody_works_on_ends_in_words(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    with pytest.raises(TimeoutError, match="is a worker running"):
        list(reread.reread([STUDY], stepped.scoring, stepped.search, OTHER, reread.Tally(), wait_seconds=0))


@pytest.mark.parametrize(("text", "found"), [("30d", 30.0), ("12h", 0.5), ("2w", 14.0), (" 1.5D ", 1.5)])
def test_lengths_of_time(text: str, found: float) -> None:
    assert reread.days(text) == found


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "30 days", "1e9d"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ValueError, match="write a length of time"):
        reread.days(text)
