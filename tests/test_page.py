"""The result page: what it says, what it shows, and its header."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from mammograms_made import mammogram
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from reports_made import MODEL, PREDECESSORS, as_received, loser, made_report, reported_view, withdrawn_report

from pipeline.report import Report, build, page
from pipeline.report.remarks import further_notes, remarks, weighty_notes
from store.study import HANGING_ORDER, Outcome, View

Verified = Callable[[bytes], list[str]]
Picture = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture
def page_of(verified: Verified) -> Callable[[Report], tuple[Dataset, Picture]]:
    """Builds the page of a report, checks it by dciodvfy and reads it back: the data set and its pixels (rows, columns, 3)."""

    def run(report: Report) -> tuple[Dataset, Picture]:
        one = build(report)[1]
        verified(one.data)
        ds = dcmread(BytesIO(one.data))
        assert one.png is not None
        assert np.array_equal(np.asarray(Image.open(BytesIO(one.png))), ds.pixel_array), "the PNG is the same picture"
        return ds, ds.pixel_array

    return run


@pytest.fixture
def words_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Report], str]:
    """Every text that is drawn on the page of a report, in order."""

    def run(report: Report) -> str:
        said: list[str] = []
        draw_text = page._Canvas.text

        def text(self: Any, x: float, y: float, text: str, *arguments: Any, **options: Any) -> None:
            said.append(text)
            draw_text(self, x, y, text, *arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(page._Canvas, "text", text)
            page.draw(report)
        return "\n".join(said)

    return run


def test_the_header_says_what_the_page_is(page_of: Callable[[Report], tuple[Dataset, Picture]]) -> None:
    report = made_report()
    ds, pixels = page_of(report)
    assert (ds.Modality, ds.SeriesNumber, ds.InstanceNumber) == ("OT", 9102, 9999)
    assert list(ds.ImageType) == ["DERIVED", "SECONDARY"]
    assert (ds.BurnedInAnnotation, ds.RecognizableVisualFeatures, ds.PhotometricInterpretation) == ("YES", "NO", "RGB")
    assert (ds.BodyPartExamined, ds.ImageLaterality) == ("BREAST", "B")
    assert "Laterality" not in ds
    assert pixels.shape == (2000, 1800, 3)
    assert [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence] == [one.header.SOPInstanceUID for one in report.views]
    assert "NOT FOR DIAGNOSTIC USE" in ds.ImageComments


def test_the_newest_page_opens_first_and_names_what_it_replaces(page_of: Callable[[Report], tuple[Dataset, Picture]]) -> None:
    ds, _ = page_of(made_report(version_number=3, predecessors=PREDECESSORS))
    assert ds.InstanceNumber == 9997
    (replaced,) = ds.ReferencedInstanceSequence
    assert (replaced.ReferencedSOPClassUID, replaced.ReferencedSOPInstanceUID) == ("1.2.840.10008.5.1.4.1.1.7", "2.25.57")
    assert replaced.PurposeOfReferenceCodeSequence[0].CodingSchemeDesignator == "99FOURVIEW"


def test_the_page_says_what_must_be_said(words_of: Callable[[Report], str]) -> None:
    report = made_report(version_number=2, predecessors=PREDECESSORS)
    said = words_of(report)
    for words in (
        "AI output for research use only. NOT FOR DIAGNOSTIC USE.",
        "Reduced image - do not read from this page",
        "Not reviewed by a physician.",
        "Version 2, replaces version 1",
        "resnet50 1.2.0, weights abababababab, profile presentation, engine torch",
        "Study 2026-11-20, result 2026-11-21 07:30 Asia/Seoul",
        "4 of 4 views analysed",
        "score 61.3 %",
    ):
        assert words in said
    for one in report.views:
        assert str(one.view) in said
        assert one.header.SOPInstanceUID[-12:] in said
    for class_name in ("Mass", "Calcification", "Architectural/Asymmetry", "Normal"):
        assert said.splitlines().count(class_name) >= 4, "a name beside every bar"
    assert "This" in said and "does not exclude cancer." in said


def test_no_patient_data_is_burned_in(words_of: Callable[[Report], str]) -> None:
    report = made_report()
    said = words_of(report)
    for secret in ("Doe", "Jane", "P1", "1970", "ACC1"):
        assert secret not in said
    renamed = made_report(every_header={"PatientName": "Roe^Richard", "PatientID": "P2", "AccessionNumber": "ACC2"})
    assert page.draw(report).tobytes() == page.draw(renamed).tobytes()


def test_bars_are_as_long_as_their_scores_and_in_their_colours(page_of: Callable[[Report], tuple[Dataset, Picture]]) -> None:
    def longest(pixels: Picture, colour: tuple[int, int, int]) -> int:
        return int((pixels == np.array(colour, dtype=np.uint8)).all(axis=2).sum(axis=1).max())

    one = reported_view(View.L_CC, probabilities=(0.5, 0.25, 0.125, 0.125))
    _, pixels = page_of(made_report(one, absent=(View.R_CC, View.R_MLO, View.L_MLO), outcome=Outcome.PARTIAL))
    full = page.PANEL_WIDTH - 2 * page.PANEL_MARGIN - 74
    for class_name, probability in (("Mass", 0.5), ("Calcification", 0.25), ("Architectural/Asymmetry", 0.125), ("Normal", 0.125)):
        assert longest(pixels, page.CLASS_COLOURS[class_name]) == pytest.approx(full * probability, abs=1)


def test_views_stand_where_they_are_hung(page_of: Callable[[Report], tuple[Dataset, Picture]]) -> None:
    """Each view is a flat grey of its own; the chest walls meet at the middle line."""
    levels = dict(zip(HANGING_ORDER, (60, 110, 160, 210), strict=True))
    views = [reported_view(view, picture=np.full((256, 100), level, np.uint8)) for view, level in levels.items()]
    _, pixels = page_of(made_report(*views))
    middle = page.WIDTH // 2
    beside_the_middle = {
        View.R_CC: (600, middle - 20),
        View.L_CC: (600, middle + 20),
        View.R_MLO: (1500, middle - 20),
        View.L_MLO: (1500, middle + 20),
    }
    for view, (row, column) in beside_the_middle.items():
        assert list(pixels[row, column]) == [levels[view]] * 3


@pytest.mark.parametrize("view", HANGING_ORDER)
def test_pictures_stored_the_other_way_round_are_turned_as_hung(view: View) -> None:
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    row, column = {View.R_CC: ("P", "L"), View.L_CC: ("A", "R"), View.R_MLO: ("P", "F"), View.L_MLO: ("A", "F")}[view]
    other_row, other_column = {"A": "P", "P": "A"}[row], {"L": "R", "R": "L", "F": "H"}[column]

    def shown(*orientation: str) -> Picture:
        return page.as_hung(stored, view, mammogram(view, PatientOrientation=list(orientation) or None))

    assert np.array_equal(shown(row, column), stored)
    assert np.array_equal(shown(other_row, column), stored[:, ::-1])
    assert np.array_equal(shown(row, other_column), stored[::-1])
    assert np.array_equal(shown(), stored)


def test_partial_and_failed_views_are_named(
    words_of: Callable[[Report], str], page_of: Callable[[Report], tuple[Dataset, Picture]]
) -> None:
    report = made_report(
        reported_view(View.R_MLO, failure="the compressed frame is truncated", picture=None), absent=(View.L_MLO,), outcome=Outcome.PARTIAL
    )
    page_of(report)
    said = words_of(report)
    for words in (
        "PARTIAL: this result does not cover all four views.",
        "R-MLO: not analysed: the compressed frame is truncated",
        "L-MLO: no image.",
        "2 of 4 views analysed",
        "Not analysed",
        "No picture",
        "No image",
    ):
        assert words in said


def test_unilateral_is_said_and_has_one_side(
    words_of: Callable[[Report], str], page_of: Callable[[Report], tuple[Dataset, Picture]]
) -> None:
    report = made_report(absent=(View.L_CC, View.L_MLO), outcome=Outcome.UNILATERAL)
    assert page_of(report)[0].ImageLaterality == "R"
    said = words_of(report)
    assert "UNILATERAL: this result covers the right breast only; nothing is said about the left." in said
    assert "2 of 2 views of the right breast analysed" in said


@pytest.mark.parametrize("side", ["R", "L"])
def test_nothing_stands_where_the_absent_side_would_be(
    side: str, words_of: Callable[[Report], str], page_of: Callable[[Report], tuple[Dataset, Picture]]
) -> None:
    absent = tuple(view for view in HANGING_ORDER if view.laterality != side)
    report = made_report(absent=absent, outcome=Outcome.UNILATERAL)
    said = words_of(report)
    assert not [word for word in (*absent, "No image", "no image", "Not analysed", "missing") if word in said]
    _, pixels = page_of(report)
    views = pixels[400 : page.HEIGHT - page.FOOTER_HEIGHT - 8]
    half = page.WIDTH // 2
    there, not_there = (views[:, :half], views[:, half:]) if side == "R" else (views[:, half:], views[:, :half])
    assert (not_there == np.array(page.GROUND, np.uint8)).all()
    assert (there != np.array(page.GROUND, np.uint8)).any()


def test_of_a_side_that_is_not_expected_nothing_is_said_either(words_of: Callable[[Report], str]) -> None:
    """A rule that expects the left views only, of which one is missing."""
    said = words_of(made_report(absent=(View.R_CC, View.R_MLO, View.L_MLO), missing=(View.L_MLO,), outcome=Outcome.PARTIAL))
    assert "1 of 2 views of the left breast analysed" in said and "L-MLO: no image." in said and "No image" in said
    assert "R-" not in said


def test_an_untrained_model_is_written_across_all_views(words_of: Callable[[Report], str]) -> None:
    trained, untrained = made_report(), made_report(model=replace(MODEL, trained=False), warnings=("x",))
    assert "MEANINGLESS NUMBERS - UNTRAINED MODEL" in words_of(untrained)
    plain = np.asarray(page.draw(made_report(warnings=("x", "y"))), dtype=int)
    crossed = np.asarray(page.draw(untrained), dtype=int)
    changed = (np.abs(plain - crossed).sum(axis=2) > 60)[400 : page.HEIGHT - page.FOOTER_HEIGHT]
    rows, columns = changed.shape
    quarters = [changed[: rows // 2, columns // 2 :], changed[rows // 2 :, : columns // 2]]
    assert all(quarter.mean() > 0.01 for quarter in quarters), "from the lower left to the upper right"
    assert "MEANINGLESS" not in words_of(trained)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (1024, 1), (1024, 768), (30, 2000)])
def test_pictures_of_every_shape_are_shown_whole(shape: tuple[int, int], page_of: Callable[[Report], tuple[Dataset, Picture]]) -> None:
    _, pixels = page_of(made_report(reported_view(View.R_CC, picture=np.full(shape, 77, np.uint8))))
    assert ((pixels == 77).all(axis=2)).any()


def test_many_notes_and_long_names_do_not_overflow(
    page_of: Callable[[Report], tuple[Dataset, Picture]], words_of: Callable[[Report], str]
) -> None:
    classes = ("A class name that goes on and on and on", "W" * 60, "Ödem", "도수", "fifth", "sixth", "Normal")
    probabilities = (0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1)
    views = [
        reported_view(view, classes=classes, probabilities=probabilities, header=as_received(mammogram(view, BreastImplantPresent="YES")))
        for view in HANGING_ORDER
    ]
    report = made_report(
        *views,
        warnings=tuple(f"warning number {number} " + "with many words " * 20 for number in range(9)),
        losers=(loser(View.R_CC, "2.25.8", rule=4),),
        model=replace(MODEL, name="n" * 200, classes=classes),
    )
    page_of(report)
    assert "13 more in the structured report of this version" in words_of(report)


def test_images_that_scored_otherwise_stand_above_the_warnings(words_of: Callable[[Report], str]) -> None:
    losers = (
        loser(View.L_MLO, "2.25.771234", predicted_class="Mass"),
        loser(View.L_MLO, "2.25.885678", predicted_class="Calcification"),
        loser(View.R_MLO, "2.25.995678", rule=3, predicted_class="Architectural/Asymmetry"),
    )
    report = made_report(reported_view(View.R_CC, laterality_source="operator"), losers=losers, warnings=("a warning",))
    said = words_of(report).splitlines()
    notes = [
        "Another L-MLO of this study scored highest for Mass; see image ...1234.",
        "R-CC: side assigned by an operator",
        "a warning",
        "L-MLO: several exposures of this view; one was used because it was acquired later (rule 7)",
    ]
    assert [line for line in said if line in notes] == notes
    assert not any("5678" in line for line in said), "a loser that scored the same class is in the SR only"


def test_images_that_scored_otherwise_are_never_crowded_out(words_of: Callable[[Report], str]) -> None:
    report = made_report(
        *(reported_view(view, laterality_source="operator", warnings=("w" * 300,)) for view in (View.L_CC, View.L_MLO)),
        absent=(View.R_CC, View.R_MLO),
        outcome=Outcome.PARTIAL,
        losers=(loser(View.L_CC, "2.25.1111", predicted_class="Normal"), loser(View.L_MLO, "2.25.2222", predicted_class="Mass")),
        model=replace(MODEL, trained=False),
    )
    said = words_of(report)
    assert "...1111." in said and "...2222." in said
    assert "7 more in the structured report of this version" in said.splitlines()


NOTE = "a short note"
LONG_NOTE = "a long note " * 40


@pytest.mark.parametrize(
    ("notes", "most", "shown"),
    [
        ([NOTE] * 3, 3, [NOTE] * 3),
        ([NOTE] * 4, 3, [NOTE, NOTE, "2 more in the structured report of this version"]),
        ([NOTE] * 4, 1, ["4 more in the structured report of this version"]),
        ([NOTE, LONG_NOTE], 4, [NOTE, "a long note", "...", "1 more in the structured report of this version"]),
        ([LONG_NOTE, NOTE], 3, ["a long note", "...", "2 more in the structured report of this version"]),
        ([LONG_NOTE], 2, ["1 more in the structured report of this version"]),
        ([], 3, []),
    ],
)
def test_notes_that_do_not_fit_are_counted(notes: list[str], most: int, shown: list[str]) -> None:
    """`shown`: what each line holds."""
    lines = [line for line, _ in page.fitting([(note, page.WHITE) for note in notes], 28, 1000, most)]
    assert len(lines) == len(shown)
    assert all(part in line for line, part in zip(lines, shown, strict=True))
    assert all(page._font(28).getlength(line) <= 1000 for line in lines)


def test_every_note_of_the_page_stands_in_the_structured_report() -> None:
    report = made_report(
        reported_view(View.R_CC, view_source="operator", warnings=("lossy compression",)),
        reported_view(View.R_MLO, failure="truncated"),
        losers=(loser(View.L_MLO, "2.25.771234", predicted_class="Mass"), loser(View.L_CC, "2.25.8")),
        outcome=Outcome.PARTIAL,
        warnings=("a warning",),
    )
    notes = [*weighty_notes(report), *further_notes(report)]
    assert len(notes) == 8
    assert set(notes) <= set(remarks(report))


def test_a_withdrawn_page_says_so_and_shows_nothing_else(
    words_of: Callable[[Report], str], page_of: Callable[[Report], tuple[Dataset, Picture]]
) -> None:
    report = withdrawn_report(losers=(loser(View.L_MLO, "2.25.1234", predicted_class="Mass"),), model=replace(MODEL, trained=False))
    ds, pixels = page_of(report)
    assert (ds.Modality, ds.SeriesNumber, ds.InstanceNumber) == ("OT", 9102, 9998)
    assert ds.ImageComments.startswith("WITHDRAWN: the earlier result of this study must not be used")
    assert "SourceImageSequence" not in ds, "it was made from no image"
    assert [item.ReferencedSOPInstanceUID for item in ds.ReferencedImageSequence] == [one.header.SOPInstanceUID for one in report.views]
    assert ds.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == "2.25.57"
    said = words_of(report)
    assert said.splitlines().count("WITHDRAWN") == 1
    unbroken = said.replace("\n", " ")
    for words in (
        "WITHDRAWN: the earlier result of this study must not be used. This version replaces it and says nothing about the images.",
        "every image was rejected",
        "Version 2, replaces version 1",
        "AI output for research use only. NOT FOR DIAGNOSTIC USE.",
        "Not reviewed by a physician.",
    ):
        assert words in unbroken
    for absent in (*HANGING_ORDER, *MODEL.classes, "score", "analysed", "MEANINGLESS", "No image", "No picture", "Doe", "P1", "ACC1"):
        assert absent not in said
    colours = [(pixels == np.array(colour, np.uint8)).all(axis=2) for colour in page.CLASS_COLOURS.values()]
    assert not np.any(colours)
    columns = np.flatnonzero((pixels == np.array(page.ALARM, np.uint8)).all(axis=2)[500:740].any(axis=0))
    inside = columns[(columns > 2 * page.MARGIN) & (columns < page.WIDTH - 2 * page.MARGIN)]
    assert inside.max() - inside.min() > page.WIDTH * 0.7, "legible on a thumbnail"


def test_many_reasons_of_a_withdrawal_do_not_overflow(words_of: Callable[[Report], str]) -> None:
    said = words_of(withdrawn_report(warnings=tuple(f"reason {number} " + "with many words " * 20 for number in range(9))))
    assert "reason 0" in said
    assert any(line.endswith("more in the structured report of this version") for line in said.splitlines())


def test_lines_are_never_wider_than_asked() -> None:
    for text in ("Architectural/Asymmetry", "a few short words", "W" * 100, "", "   ", "word " * 50):
        lines = page.wrapped(text, 26, 200)
        assert all(page._font(26).getlength(line) <= 200 for line in lines)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_letters_that_the_typeface_lacks_are_replaced() -> None:
    assert page.drawable("Ödem, naïve") == "Odem, naive"
    assert page.drawable("도수") == page.drawable("도수").replace("\0", "")
    assert page.drawable("洪") == "?"
