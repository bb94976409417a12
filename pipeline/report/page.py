"""The result page: one RGB Secondary Capture image (PS3.3 A.8.1, C.8.6) that every viewer can show.

Four views as hung, each with the class and its scores beside it and never on it: no lesion location is claimed. A withdrawn result is a
page that says so and shows nothing else. No name is burned in. Heat maps, where the site wants them, stand beside the clean views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pipeline.heat_colours import COLOURS, Bytes, in_view
from pipeline.report import header
from pipeline.report.remarks import further_notes, version_line, weighty_notes, withdrawal_notes
from pipeline.report.typeface import cut, drawable, font, width, wrapped
from pipeline.report.values import Report, ReportedView
from pipeline.wording import NORMAL_CLASS, Wording
from store.study import HANGING_ORDER, Scores, View

SERIES_NUMBER = 9102
#: Instance Number of version 0: the newest page has the lowest number, so that it opens first in a stack.
FIRST_INSTANCE_NUMBER = 10000

WIDTH, HEIGHT = 1800, 2000
PANEL_WIDTH = 330
MARGIN = 26
PANEL_MARGIN = 22
BANNER_HEIGHT = 84
HEADING_HEIGHT = 108
FOOTER_HEIGHT = 116
GAP = 6
MOST_NOTE_LINES = 6
MOST_LINES_OF_A_NOTE = 2
MOST_REASON_LINES = 12
MOST_BARS = 5
#: Between the panel and the view, when heat maps are shown.
HEAT_MAP_WIDTH = 190
COLOUR_BAR_HEIGHT = 16
MOST_WITHDRAWN_SIZE = 400
MOST_ACROSS_SIZE = 120

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)
GROUND: Colour = (13, 16, 20)
PANEL: Colour = (20, 25, 31)
TRACK: Colour = (44, 52, 62)
STRIP: Colour = (226, 231, 237)
INK: Colour = (13, 16, 20)
WHITE: Colour = (243, 246, 249)
GREY: Colour = (170, 180, 191)
ALARM: Colour = (255, 196, 84)

#: The colours that readers of the replaced system know. Each stands beside its class's name, never alone.
CLASS_COLOURS: dict[str, Colour] = {
    "Mass": (248, 92, 92),
    "Calcification": (252, 152, 64),
    "Architectural/Asymmetry": (250, 212, 48),
    NORMAL_CLASS: (88, 214, 128),
}
OTHER_CLASS_COLOUR: Colour = (122, 176, 240)


def build_page(report: Report) -> Dataset:
    """The page of `report` as a data set with file meta information."""
    picture = draw(report)
    ds = header.identification(report)
    header.complete(ds, report, kind="page", sop_class_uid=SecondaryCaptureImageStorage)
    ds.Modality = "OT"  # MG would be routed back to us and hung as a fifth view
    ds.ConversionType = "WSD"
    ds.SeriesNumber = SERIES_NUMBER
    ds.InstanceNumber = FIRST_INSTANCE_NUMBER - report.version_number
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.PatientOrientation = ""
    sides = {reported.view.laterality for reported in report.views}
    ds.BodyPartExamined = "BREAST"
    ds.ImageLaterality = "B" if len(sides) > 1 else sides.pop()  # General Image Module, C.7.6.1: both sides
    ds.BurnedInAnnotation = "YES"
    ds.RecognizableVisualFeatures = "NO"
    images = [(header.uid_of(image, "SOPClassUID"), header.uid_of(image, "SOPInstanceUID")) for image in report.headers]
    if report.withdrawn:
        comments = [report.words.withdrawal, report.words.banner]
        ds.DerivationDescription = report.words.notice_of_withdrawal
        # Related images, not sources: the picture shows none of them (PS3.3 C.12.4).
        ds.ReferencedImageSequence = [_reference(*image) for image in images]
    else:
        comments = [report.words.banner, report.words.meaningless(report.model), report.words.reduced_image]
        ds.DerivationDescription = report.words.derivation
        source = header.code_item("121322", "DCM", "Source image for image processing operation")
        ds.SourceImageSequence = [_reference(*image, source) for image in images]
    ds.ImageComments = ". ".join(comment.rstrip(".") for comment in comments if comment)
    predecessor = report.predecessors.get("page")
    if predecessor is not None:
        # Predecessor Documents Sequence exists in documents only; an image names what it replaces here (PS3.3 C.12.4).
        purpose = header.code_item("REPLACES", "99FOURVIEW", "Previous version, replaced by this image")
        ds.ReferencedInstanceSequence = [_reference(predecessor.sop_class_uid, predecessor.sop_instance_uid, purpose)]
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = picture.height, picture.width
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    ds.PixelData = picture.tobytes()
    ds["PixelData"].VR = "OB"
    return ds


def _reference(sop_class_uid: str, sop_instance_uid: str, *purpose: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    if purpose:
        item.PurposeOfReferenceCodeSequence = list(purpose)
    return item


# --- drawing ---------------------------------------------------------------------------------------------------------------------------


class _Canvas:
    """A picture to draw on, with text in one typeface, and the sentences that are written on it."""

    def __init__(self, width: int, height: int, ground: Colour, words: Wording) -> None:
        self.words = words
        self.image = Image.new("RGB", (width, height), ground)
        self._draw = ImageDraw.Draw(self.image)

    def box(self, x: float, y: float, width: float, height: float, fill: Colour) -> None:
        if width >= 1 and height >= 1:
            self._draw.rectangle((x, y, x + width - 1, y + height - 1), fill=fill)

    def frame(self, x: float, y: float, width: float, height: float, colour: Colour, thickness: int = 2) -> None:
        self._draw.rectangle((x, y, x + width - 1, y + height - 1), outline=colour, width=thickness)

    def text(self, x: float, y: float, text: str, size: int, colour: Colour, *, bold: bool = False, anchor: str = "ls") -> None:
        """`y` is the baseline; anchors as Pillow's: "ls" left, "ms" centred, "rs" right."""
        self._draw.text((x, y), drawable(text), font=font(size, bold=bold), fill=colour, anchor=anchor)


def draw(report: Report) -> Image.Image:
    """The whole page, RGB, 1800 x 2000."""
    words = report.words
    canvas = _Canvas(WIDTH, HEIGHT, GROUND, words)
    _banner(canvas)
    if report.withdrawn:
        _heading(canvas, report, words.withdrawn)
        _withdrawal(canvas, report)
        return canvas.image
    _heading(canvas, report, words.views_analysed(len(report.analysed), report.slots))
    top = _notes(canvas, report, BANNER_HEIGHT + HEADING_HEIGHT)
    bottom = HEIGHT - FOOTER_HEIGHT
    cell_height = (bottom - top - GAP) // 2
    reported = {one.view: one for one in report.views}
    beside = report.installation.heat_map_on_page and any(one.heat_map is not None for one in report.analysed)
    room = (_image_width(beside), cell_height)
    with ThreadPoolExecutor(len(HANGING_ORDER)) as threads:  # Pillow reduces them side by side
        reduced = dict(zip(reported, threads.map(lambda one: _reduced(one, *room), reported.values()), strict=True))
    for number, view in enumerate(HANGING_ORDER):
        # The places of a side that the result is not about stay empty: a frame or a word there would be read as a statement.
        if view in report.slots:
            place = top + (number // 2) * (cell_height + GAP), cell_height
            _cell(canvas, view, reported.get(view), reduced.get(view), *place, heat_maps=beside)
    _footer(canvas)
    meaningless = words.meaningless(report.model)
    if meaningless:
        _across(canvas.image, meaningless, top, bottom)
    return canvas.image


def _banner(canvas: _Canvas) -> None:
    canvas.box(0, 0, WIDTH, BANNER_HEIGHT, STRIP)
    canvas.text(WIDTH / 2, 57, canvas.words.banner, 42, INK, bold=True, anchor="ms")


def _heading(canvas: _Canvas, report: Report, what: str) -> None:
    upper, lower = BANNER_HEIGHT + 48, BANNER_HEIGHT + 90
    copied = header.copied_header(report.headers)
    when = canvas.words.dates(copied.get("StudyDate", ""), report.local_time, report.installation.timezone)
    version = version_line(report, "page")
    canvas.text(WIDTH - MARGIN, upper, version, 34, WHITE, bold=True, anchor="rs")
    room = WIDTH - 3 * MARGIN - width(version, 34, bold=True)
    canvas.text(MARGIN, upper, cut(f"{header.PRODUCT}: {what}", 34, room, bold=True), 34, WHITE, bold=True)
    canvas.text(WIDTH - MARGIN, lower, when, 26, GREY, anchor="rs")
    room = WIDTH - 3 * MARGIN - width(when, 26)
    canvas.text(MARGIN, lower, cut(canvas.words.model(report.model), 26, room), 26, GREY)


def _notes(canvas: _Canvas, report: Report, top: int) -> int:
    """Draws what limits this result, the weightiest first; returns where the views begin."""
    meaningless = canvas.words.meaningless(report.model)
    notes = [(meaningless, ALARM)] if meaningless else []
    notes += [(note, WHITE) for note in weighty_notes(report)]
    notes += [(note, GREY) for note in further_notes(report)]
    lines = fitting(notes, 28, WIDTH - 2 * MARGIN - 60, MOST_NOTE_LINES, canvas.words)
    if not lines:
        return top
    height = 38 * len(lines) + 20
    canvas.box(MARGIN, top, WIDTH - 2 * MARGIN, height, PANEL)
    canvas.box(MARGIN, top, 8, height, STRIP)
    for number, (line, colour) in enumerate(lines):
        canvas.text(MARGIN + 30, top + 38 + 38 * number, line, 28, colour)
    return top + height + 16


def fitting(notes: Sequence[tuple[str, Colour]], size: int, room: float, most: int, words: Wording) -> list[tuple[str, Colour]]:
    """The first of `notes` in at most `most` lines (1 or more) of `room` pixels; the last line counts those that are not wholly shown."""
    in_lines = [wrapped(note, size, room) for note, _ in notes]
    too_long = [len(lines) > MOST_LINES_OF_A_NOTE for lines in in_lines]

    def of_the_first(count: int) -> list[tuple[str, Colour]]:
        shown: list[tuple[str, Colour]] = []
        for (_, colour), lines in zip(notes[:count], in_lines, strict=False):
            first, rest = lines[: MOST_LINES_OF_A_NOTE - 1], lines[MOST_LINES_OF_A_NOTE - 1 :]
            shown += [(line, colour) for line in (*first, *([cut(" ".join(rest), size, room)] if rest else []))]
        more = len(notes) - count + sum(too_long[:count])
        return [*shown, (words.more_notes(more), GREY)] if more else shown

    return next(lines for lines in map(of_the_first, range(len(notes), -1, -1)) if len(lines) <= most)


def _withdrawal(canvas: _Canvas, report: Report) -> None:
    """The notice and its reasons: no picture, no class and no number that could still be taken for a result."""
    words = canvas.words
    top, bottom = BANNER_HEIGHT + HEADING_HEIGHT + 60, HEIGHT - FOOTER_HEIGHT
    canvas.box(MARGIN, top, WIDTH - 2 * MARGIN, bottom - top, PANEL)
    canvas.frame(MARGIN, top, WIDTH - 2 * MARGIN, bottom - top, ALARM)
    room = WIDTH - 8 * MARGIN
    size = min(MOST_WITHDRAWN_SIZE, int(100 * room / width(words.withdrawn, 100, bold=True)))
    canvas.text(WIDTH / 2, top + 480, words.withdrawn, size, ALARM, bold=True, anchor="ms")
    y = top + 600
    for line in wrapped(words.withdrawal, 54, room, bold=True):
        y += 76
        canvas.text(WIDTH / 2, y, line, 54, WHITE, bold=True, anchor="ms")
    y += 60
    for line, colour in fitting([(note, WHITE) for note in withdrawal_notes(report)], 38, room, MOST_REASON_LINES, words):
        y += 56
        canvas.text(WIDTH / 2, y, line, 38, colour, anchor="ms")
    canvas.text(WIDTH / 2, HEIGHT - 44, words.not_reviewed, 36, WHITE, bold=True, anchor="ms")


def _footer(canvas: _Canvas) -> None:
    words = canvas.words
    canvas.text(WIDTH / 2, HEIGHT - 66, words.reduced_image, 36, WHITE, bold=True, anchor="ms")
    canvas.text(WIDTH / 2, HEIGHT - 24, f"{words.not_reviewed} {words.uncalibrated}", 26, GREY, anchor="ms")


def _image_width(heat_maps: bool) -> int:
    return WIDTH // 2 - PANEL_WIDTH - GAP // 2 - (HEAT_MAP_WIDTH if heat_maps else 0)


def _reduced(reported: ReportedView, columns: int, rows: int) -> Image.Image | None:
    """The view as it is hung, as large as fits; None when it has no picture."""
    if reported.picture is None:
        return None
    picture = as_hung(reported.picture, reported.view, reported.header)
    return Image.fromarray(picture).resize(_within(picture, columns, rows), Image.Resampling.LANCZOS)


def _cell(
    canvas: _Canvas, view: View, reported: ReportedView | None, reduced: Image.Image | None, top: int, height: int, *, heat_maps: bool
) -> None:
    """One quarter: the view at the page's middle line with the chest wall towards it, its panel at the page's edge."""
    right = view.laterality == "R"
    panel_x = 0 if right else WIDTH - PANEL_WIDTH
    beside = HEAT_MAP_WIDTH if heat_maps else 0
    image_width = _image_width(heat_maps)
    image_x = PANEL_WIDTH + beside if right else WIDTH // 2 + GAP // 2
    canvas.box(image_x, top, image_width, height, BLACK)
    canvas.box(panel_x, top, PANEL_WIDTH, height, PANEL)
    if reported is None or reduced is None:
        words = canvas.words.no_picture if reported else canvas.words.no_image
        canvas.frame(image_x + 24, top + 24, image_width - 48, height - 48, TRACK)
        canvas.text(image_x + image_width / 2, top + height / 2, words, 34, GREY, anchor="ms")
    else:
        x = image_x + image_width - reduced.width if right else image_x
        canvas.image.paste(reduced.convert("RGB"), (x, top + (height - reduced.height) // 2))
        if beside:
            _heat_map(canvas, view, reported, PANEL_WIDTH if right else WIDTH - PANEL_WIDTH - beside, top)
    _panel(canvas, view, reported, panel_x + PANEL_MARGIN, top, height)


def _within(picture: Bytes, columns: int, rows: int) -> tuple[int, int]:
    """Columns and rows of `picture` when it is made as large as fits."""
    scale = min(columns / picture.shape[1], rows / picture.shape[0])
    return max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))


#: Patient Orientation (0020,0020) as hung: which way the rows and the columns run first. PS3.3 C.7.6.1.1.1.
HUNG: Mapping[View, tuple[str, str]] = {View.R_CC: ("P", "L"), View.L_CC: ("A", "R"), View.R_MLO: ("P", "F"), View.L_MLO: ("A", "F")}
OPPOSITE = {"A": "P", "P": "A", "L": "R", "R": "L", "F": "H", "H": "F"}


def as_hung(picture: Bytes, view: View, ds: Dataset) -> Bytes:
    """`picture` (rows, columns) mirrored where Patient Orientation says that it is not stored as it is hung: breasts back to back."""
    directions = header.text(ds, "PatientOrientation").split("\\")
    if len(directions) != 2:
        return picture
    row, column = HUNG[view]
    if directions[0][:1] == OPPOSITE[row]:
        picture = picture[:, ::-1]
    if directions[1][:1] == OPPOSITE[column]:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _heat_map(canvas: _Canvas, view: View, reported: ReportedView, x: int, top: int) -> None:
    """The column of one view's heat map: the map as the view is hung, in a frame as large as the image, its colour bar, what it means."""
    words, scores = canvas.words, reported.scores
    x, y, room = x + 10, top + 24, HEAT_MAP_WIDTH - 20
    if scores is None or reported.picture is None:
        return
    if scores.predicted_class == NORMAL_CLASS:
        _lines(canvas, words.no_heat_map, x, y, room)
        return
    if reported.heat_map is None:
        return
    columns, rows = _within(reported.picture, room, 3 * room)
    responses = in_view(reported.heat_map, scores.box, rows=scores.rows, columns=scores.columns, shape=(rows, columns))
    canvas.image.paste(Image.fromarray(COLOURS[as_hung(responses, view, reported.header)]), (x, y))
    canvas.frame(x - 1, y - 1, columns + 2, rows + 2, TRACK, 1)
    y += rows + 20
    bar = np.broadcast_to(COLOURS[np.linspace(0, 255, room).astype(int)], (COLOUR_BAR_HEIGHT, room, 3))
    canvas.image.paste(Image.fromarray(np.ascontiguousarray(bar)), (x, y))
    canvas.frame(x - 1, y - 1, room + 2, COLOUR_BAR_HEIGHT + 2, TRACK, 1)
    y += COLOUR_BAR_HEIGHT + 26
    canvas.text(x, y, words.weak_response, 22, GREY)
    canvas.text(x + room, y, words.strong_response, 22, GREY, anchor="rs")
    _lines(canvas, words.heat_map, x, y + 16, room)


def _lines(canvas: _Canvas, text: str, x: int, y: int, room: float) -> None:
    for line in wrapped(text, 22, room):
        y += 28
        canvas.text(x, y, line, 22, GREY)


def _panel(canvas: _Canvas, view: View, reported: ReportedView | None, x: int, top: int, height: int) -> None:
    words = canvas.words
    room = PANEL_WIDTH - 2 * PANEL_MARGIN
    canvas.text(x, top + 72, str(view), 60, WHITE, bold=True)
    if reported is None:
        canvas.text(x, top + 124, words.no_image, 34, GREY, bold=True)
        return
    if reported.scores is None:
        canvas.text(x, top + 124, words.not_analysed, 34, WHITE, bold=True)
        for number, line in enumerate(wrapped(reported.failure, 26, room)[:12]):
            canvas.text(x, top + 168 + 34 * number, line, 26, GREY)
    else:
        _scores(canvas, reported.scores, x, top + 114, room)
    tail = header.uid_of(reported.header, "SOPInstanceUID")[-12:]
    canvas.text(x, top + height - 54, words.uid_ends_in, 24, GREY)
    canvas.text(x, top + height - 24, tail, 24, GREY)


def _scores(canvas: _Canvas, scores: Scores, x: int, y: int, room: int) -> None:
    words = canvas.words
    canvas.text(x, y, words.highest_class_label, 24, GREY)
    colour = CLASS_COLOURS.get(scores.predicted_class, OTHER_CLASS_COLOUR)
    y += 6
    for line in wrapped(words.class_name(scores.predicted_class), 38, room, bold=True)[:2]:
        y += 44
        canvas.text(x, y, line, 38, colour, bold=True)
    y += 44
    canvas.text(x, y, words.score(scores.probability), 32, WHITE)
    y += 22
    pairs = list(zip(scores.classes, scores.probabilities, strict=True))
    if len(pairs) > MOST_BARS:
        pairs = sorted(pairs, key=lambda pair: -pair[1])[:MOST_BARS]
    for class_name, probability in pairs:
        _bar(canvas, class_name, probability, x, y, room)
        y += 72 if len(pairs) < MOST_BARS else 58
    if scores.predicted_class == NORMAL_CLASS:
        y += 8
        for line in wrapped(words.nothing_excluded, 24, room):
            y += 30
            canvas.text(x, y, line, 24, WHITE)


def _bar(canvas: _Canvas, class_name: str, probability: float, x: int, y: int, room: int) -> None:
    numbers = 74
    name = canvas.words.class_name(class_name)
    size = next((size for size in (25, 24, 23, 22) if width(name, size) <= room), 22)
    canvas.text(x, y + 29, cut(name, size, room), size, WHITE)
    canvas.box(x, y + 42, room - numbers, 18, TRACK)
    canvas.box(x, y + 42, round((room - numbers) * probability), 18, CLASS_COLOURS.get(class_name, OTHER_CLASS_COLOUR))
    canvas.text(x + room, y + 60, f"{100 * probability:.1f}", 26, WHITE, anchor="rs")


def _across(image: Image.Image, text: str, top: int, bottom: int) -> None:
    """`text` from the lower left to the upper right over all four views, light enough to see through and impossible to overlook."""
    turned = _slanted(text, bottom - top)
    image.paste((255, 255, 255), ((WIDTH - turned.width) // 2, top + (bottom - top - turned.height) // 2), turned)


@lru_cache(maxsize=8)  # the pages of a day say the same under notes of a few lengths
def _slanted(text: str, height: int) -> Image.Image:
    length = int(np.hypot(WIDTH, height) * 0.92)
    size = min(MOST_ACROSS_SIZE, int(100 * length * 0.98 / width(text, 100, bold=True)))
    strip = Image.new("L", (length, size * 2), 0)
    ImageDraw.Draw(strip).text((length / 2, size), drawable(text), font=font(size, bold=True), fill=255, anchor="mm")
    turned = strip.rotate(float(np.degrees(np.arctan2(height, WIDTH))), resample=Image.Resampling.BICUBIC, expand=True)
    return turned.point([value * 105 // 255 for value in range(256)])
