"""The result page: what it says, what it shows, and its header."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from mammograms_made import mammogram
from pydicom import dcmread
from pydicom.dataset import Dataset
from reports_made import (
    INSTALLATION,
    MODEL,
    PREDECESSORS,
    VARIANTS,
    as_received,
    heat_map,
    loser,
    made_report,
    report_with_heat_maps,
    reported_view,
    withdrawn_report,
)

from pipeline import heat_colours
from pipeline.heat_colours import heat_map_picture
from pipeline.report import Report, ReportedView, build, page, typeface
from pipeline.report.remarks import further_notes, remarks, weighty_notes
from pipeline.wording import ENGLISH
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
    assert "No class scored above Normal in this image. This does not exclude cancer." in said.replace("\n", " ")


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
        "L-MLO: no usable image.",
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
    assert "1 of 2 views of the left breast analysed" in said and "L-MLO: no usable image." in said and "No image" in said
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
    assert "9 more in the structured report of this version" in words_of(report)


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
    lines = [line for line, _ in page.fitting([(note, page.WHITE) for note in notes], 28, 1000, most, ENGLISH)]
    assert len(lines) == len(shown)
    assert all(part in line for line, part in zip(lines, shown, strict=True))
    assert all(typeface.font(28).getlength(line) <= 1000 for line in lines)


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
        lines = typeface.wrapped(text, 26, 200)
        assert all(typeface.font(26).getlength(line) <= 200 for line in lines)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_letters_that_the_typeface_lacks_are_replaced() -> None:
    assert typeface.drawable("Ödem, naïve, 석회화") == "Ödem, naïve, 석회화"
    assert typeface.drawable("Dvořák ½") == "Dvorák ?"
    assert typeface.drawable("뷁洪") == "??"
    assert typeface.drawable(unicodedata.normalize("NFD", "석회화 é")) == "석회화 é"


def shown_beside(report: Report) -> Picture:
    """The columns of the page between the panels and the views: (rows, columns, 3), right side's then left side's."""
    pixels = np.asarray(page.draw(report))[page.BANNER_HEIGHT + page.HEADING_HEIGHT : page.HEIGHT - page.FOOTER_HEIGHT]
    right = pixels[:, page.PANEL_WIDTH : page.PANEL_WIDTH + page.HEAT_MAP_WIDTH]
    left = pixels[:, page.WIDTH - page.PANEL_WIDTH - page.HEAT_MAP_WIDTH : page.WIDTH - page.PANEL_WIDTH]
    return np.stack([right, left])


def warm(pixels: Picture) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which pixels have the colour of a strong response; no grey and no other colour of the page has."""
    strong = heat_colours.COLOURS[150:]
    return (pixels[..., np.newaxis, :] == strong).all(axis=-1).any(axis=-1)


def test_heat_maps_stand_beside_the_views_and_never_on_them(
    page_of: Callable[[Report], tuple[Dataset, Picture]], words_of: Callable[[Report], str]
) -> None:
    report = report_with_heat_maps()
    _, pixels = page_of(report)
    views = pixels[page.BANNER_HEIGHT + page.HEADING_HEIGHT : page.HEIGHT - page.FOOTER_HEIGHT]
    edge = page.PANEL_WIDTH + page.HEAT_MAP_WIDTH
    assert (np.ptp(views[:, edge : page.WIDTH // 2 - page.GAP], axis=2) == 0).mean() > 0.99, "the views are grey"
    assert not warm(views[:, edge : page.WIDTH - edge]).any()
    right, left = shown_beside(report)
    halves = [half for side in (right, left) for half in (side[: len(side) // 2], side[len(side) // 2 :])]
    maps = [warm(half[24:400]).sum() > 500 for half in halves]
    assert maps == [False, True, True, True], "R-CC scored highest for Normal"
    said = words_of(report).replace("\n", " ")
    assert said.count("Where the network responded for the class; no location of a finding") == 3
    assert said.count("No heat map: the highest-scoring class is Normal") == 1
    assert (said.count("weak"), said.count("strong")) == (3, 3)


@pytest.mark.parametrize(
    "report",
    [
        made_report(),
        made_report(installation=replace(INSTALLATION, heat_map_on_page=True)),
        replace(report_with_heat_maps(), installation=INSTALLATION),
    ],
    ids=["neither", "without heat maps", "not asked for"],
)
def test_without_heat_maps_the_page_is_as_it_was(report: Report, words_of: Callable[[Report], str]) -> None:
    assert "heat map" not in words_of(report) and "responded" not in words_of(report)
    assert page.draw(report).tobytes() == page.draw(made_report()).tobytes()


def test_a_heat_map_is_turned_like_its_view() -> None:
    """Strong in the crop's upper left corner as stored; the image of L-MLO is stored mirrored."""
    view = View.L_MLO
    stored = reported_view(view, heat_map=heat_map())
    mirrored = replace(stored, header=as_received(mammogram(view, PatientOrientation=["P", "FR"])))

    def middle(one: ReportedView) -> float:
        report = made_report(one, installation=replace(INSTALLATION, heat_map_on_page=True))
        columns = np.flatnonzero(warm(shown_beside(report)[1][880:1080]).any(axis=0))
        return float(columns.mean())

    assert middle(stored) < page.HEAT_MAP_WIDTH / 2 < middle(mirrored)


def test_a_failed_view_among_heat_maps_has_none(page_of: Callable[[Report], tuple[Dataset, Picture]]) -> None:
    report = report_with_heat_maps(absent=(View.L_CC,), outcome=Outcome.PARTIAL)
    failed = reported_view(View.L_MLO, failure="truncated")
    page_of(replace(report, views=(*report.views[:2], failed)))
    assert not warm(shown_beside(replace(report, views=(*report.views[:2], failed)))[1]).any()


def test_colours_rise_in_lightness_and_can_be_told_apart_without_hue() -> None:
    """Relative luminance (ITU-R BT.709) never falls and spans nearly all of the range."""
    lightness = heat_colours.COLOURS @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) >= -0.5).all()
    assert lightness[0] < 2 and lightness[-1] > 240
    assert np.abs(np.diff(heat_colours.COLOURS.astype(int), axis=0)).max() <= 4, "no step that looks like an edge"


def test_a_heat_map_is_laid_over_its_box_and_nothing_else() -> None:
    picture = np.full((100, 50), 80, np.uint8)
    over = heat_map_picture(picture, np.ones((7, 7), np.float32), (40, 100, 160, 300), 400, 200)
    assert over.shape == (100, 50, 3) and over.dtype == np.uint8
    inside = np.zeros((100, 50), bool)
    inside[25:75, 10:40] = True
    assert (over[~inside] == 80).all()
    cover = heat_colours.STRONGEST_COVER
    assert np.array_equal(np.unique(over[inside], axis=0), [np.rint(80 * (1 - cover) + heat_colours.COLOURS[255] * cover)])
    assert np.array_equal(
        heat_map_picture(picture, np.zeros((3, 3), np.float32), (40, 100, 160, 300), 400, 200), np.stack([picture] * 3, axis=2)
    )
    assert over.tobytes() == heat_map_picture(picture, np.ones((7, 7), np.float32), (40, 100, 160, 300), 400, 200).tobytes()


def test_a_heat_map_over_a_single_pixel_is_seen() -> None:
    over = heat_map_picture(np.zeros((4, 4), np.uint8), np.ones((1, 1), np.float32), (4095, 4095, 4096, 4096), 4096, 4096)
    assert [tuple(place) for place in np.argwhere(over.any(axis=2))] == [(3, 3)]


@pytest.mark.parametrize(
    ("values", "box", "reason"),
    [
        (np.full((2, 2), np.nan), (0, 0, 10, 10), "values of 0 to 1"),
        (np.full((2, 2), 1.1), (0, 0, 10, 10), "values of 0 to 1"),
        (np.full((2, 2), -0.1), (0, 0, 10, 10), "values of 0 to 1"),
        (np.ones(4), (0, 0, 10, 10), "two dimensions"),
        (np.ones((0, 2)), (0, 0, 10, 10), "two dimensions"),
        (np.ones((2, 2)), (0, 0, 11, 10), "does not lie in an image of 10 rows and 10 columns"),
        (np.ones((2, 2)), (5, 0, 5, 10), "does not lie in"),
        (np.ones((2, 2)), (-1, 0, 5, 10), "does not lie in"),
    ],
)
def test_what_is_no_heat_map_is_refused(values: Any, box: tuple[int, int, int, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        heat_map_picture(np.zeros((10, 10), np.uint8), values.astype(np.float32), box, 10, 10)


def test_a_korean_page_speaks_korean(words_of: Callable[[Report], str]) -> None:
    revised = VARIANTS["revised, Korean"]()
    said = words_of(revised)
    for line in (
        "연구용 AI 분석 결과입니다. 진단 목적으로 사용할 수 없습니다.",
        "축소된 영상입니다 - 이 페이지로 판독하지 마십시오",
        "Fourview: 촬영상 4개 중 4개 분석됨",
        "버전 2, 2026-11-20 14:02의 버전 1 대체",
        "검사 2026-11-20, 결과 2026-11-21 07:30 Asia/Seoul",
        "AI 최고 점수 분류",
        "종괴",
        "구조 왜곡/비대칭",
        "점수 61.3 %",
        "a warning",
    ):
        assert line in said.splitlines()
    assert not [word for word in ("Mass", "Calcification", "Version", "score") if word in said]


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.endswith("Korean")])
def test_every_letter_of_a_korean_page_is_drawn(name: str, words_of: Callable[[Report], str]) -> None:
    said = words_of(VARIANTS[name]())
    assert typeface.drawable(said.replace("\n", " ")) == said.replace("\n", " ")


def test_a_page_says_when_the_version_was_made_that_it_replaces(words_of: Callable[[Report], str]) -> None:
    report = made_report(version_number=2, predecessors=PREDECESSORS, replaces_at=datetime(2026, 11, 20, 22, 2, tzinfo=UTC))
    assert "Version 2, replaces version 1 of 07:02" in words_of(report).splitlines()
