"""The result page: one RGB Secondary Capture image (PS3.3 A.8.1, C.8.6) that every viewer can show.

Four views as hung, each with the class and its scores beside it and never on it: no lesion location is claimed. A withdrawn result is a
page that says so and shows nothing else. No name is burned in.
Drawn with Pillow and the typeface that Pillow carries (Aileron), so that no machine's fonts enter the bytes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pipeline.report import header, wording
from pipeline.report.remarks import further_notes, weighty_notes, withdrawal_notes
from pipeline.report.values import Report, ReportedView
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
    wording.NORMAL_CLASS: (88, 214, 128),
}
OTHER_CLASS_COLOUR: Colour = (122, 176, 240)


def build_page(report: Report) -> tuple[Dataset, bytes]:
    """The page of `report` as a data set with file meta information, and the same picture as PNG."""
    picture = draw(report)
    png = BytesIO()
    picture.save(png, format="PNG", compress_level=3)
    return _secondary_capture(report, picture), png.getvalue()


def _secondary_capture(report: Report, picture: Image.Image) -> Dataset:
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
        comments = [wording.WITHDRAWAL, wording.BANNER]
        ds.DerivationDescription = wording.NOTICE_OF_WITHDRAWAL
        # Related images, not sources: the picture shows none of them (PS3.3 C.12.4).
        ds.ReferencedImageSequence = [_reference(*image) for image in images]
    else:
        comments = [wording.BANNER, wording.meaningless(report.model), wording.REDUCED_IMAGE]
        ds.DerivationDescription = wording.DERIVATION
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


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def drawable(text: str) -> str:
    """`text` in the characters that the typeface has: accents are dropped, what remains unknown becomes "?"."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode("ascii")


class _Canvas:
    """A picture to draw on, with text in one typeface. Bold is the regular weight with a stroke: the typeface has one weight."""

    def __init__(self, width: int, height: int, ground: Colour) -> None:
        self.image = Image.new("RGB", (width, height), ground)
        self._draw = ImageDraw.Draw(self.image)

    def box(self, x: float, y: float, width: float, height: float, fill: Colour) -> None:
        if width >= 1 and height >= 1:
            self._draw.rectangle((x, y, x + width - 1, y + height - 1), fill=fill)

    def frame(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        self._draw.rectangle((x, y, x + width - 1, y + height - 1), outline=colour, width=2)

    def text(self, x: float, y: float, text: str, size: int, colour: Colour, *, bold: bool = False, anchor: str = "ls") -> None:
        """`y` is the baseline; anchors as Pillow's: "ls" left, "ms" centred, "rs" right."""
        self._draw.text((x, y), drawable(text), font=_font(size), fill=colour, anchor=anchor, stroke_width=size / 50 if bold else 0)


def wrapped(text: str, size: int, width: float) -> list[str]:
    """`text` in lines of at most `width` pixels, broken at spaces and after slashes, and anywhere inside a word that is wider still."""
    font = _font(size)
    lines = [""]
    for piece in _pieces(drawable(text)):
        if font.getlength((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
            continue
        if lines[-1]:
            lines.append("")
        for letter in piece:
            if font.getlength((lines[-1] + letter).rstrip()) > width:
                lines.append("")
            lines[-1] += letter
    return [line.strip() for line in lines if line.strip()]


def _pieces(text: str) -> list[str]:
    return text.replace(" ", " \0").replace("/", "/\0").split("\0")


def draw(report: Report) -> Image.Image:
    """The whole page, RGB, 1800 x 2000."""
    canvas = _Canvas(WIDTH, HEIGHT, GROUND)
    _banner(canvas)
    if report.withdrawn:
        _heading(canvas, report, wording.WITHDRAWN)
        _withdrawal(canvas, report)
        return canvas.image
    _heading(canvas, report, wording.views_analysed(len(report.analysed), report.slots))
    top = _notes(canvas, report, BANNER_HEIGHT + HEADING_HEIGHT)
    bottom = HEIGHT - FOOTER_HEIGHT
    cell_height = (bottom - top - GAP) // 2
    reported = {one.view: one for one in report.views}
    for number, view in enumerate(HANGING_ORDER):
        # The places of a side that the result is not about stay empty: a frame or a word there would be read as a statement.
        if view in report.slots:
            _cell(canvas, view, reported.get(view), top + (number // 2) * (cell_height + GAP), cell_height)
    _footer(canvas)
    meaningless = wording.meaningless(report.model)
    if meaningless:
        _across(canvas.image, meaningless, top, bottom)
    return canvas.image


def _banner(canvas: _Canvas) -> None:
    canvas.box(0, 0, WIDTH, BANNER_HEIGHT, STRIP)
    canvas.text(WIDTH / 2, 57, wording.BANNER, 42, INK, bold=True, anchor="ms")


def _heading(canvas: _Canvas, report: Report, what: str) -> None:
    upper, lower = BANNER_HEIGHT + 46, BANNER_HEIGHT + 86
    when = wording.dates(header.copied_header(report.headers).get("StudyDate", ""), report.local_time, report.installation.timezone)
    canvas.text(MARGIN, upper, f"{header.PRODUCT}: {what}", 34, WHITE, bold=True)
    canvas.text(
        WIDTH - MARGIN,
        upper,
        wording.version(report.version_number, replaces="page" in report.predecessors),
        34,
        WHITE,
        bold=True,
        anchor="rs",
    )
    canvas.text(WIDTH - MARGIN, lower, when, 26, GREY, anchor="rs")
    room = WIDTH - 3 * MARGIN - _font(26).getlength(drawable(when))
    canvas.text(MARGIN, lower, _cut(wording.model(report.model), 26, room), 26, GREY)


def _cut(text: str, size: int, width: float) -> str:
    lines = wrapped(text, size, width)
    return lines[0] if len(lines) == 1 else f"{wrapped(text, size, width - 3 * size)[0]} ..."


def _notes(canvas: _Canvas, report: Report, top: int) -> int:
    """Draws what limits this result, the weightiest first; returns where the views begin."""
    meaningless = wording.meaningless(report.model)
    notes = [(meaningless, ALARM)] if meaningless else []
    notes += [(note, WHITE) for note in weighty_notes(report)]
    notes += [(note, GREY) for note in further_notes(report)]
    lines = fitting(notes, 28, WIDTH - 2 * MARGIN - 60, MOST_NOTE_LINES)
    if not lines:
        return top
    height = 36 * len(lines) + 22
    canvas.box(MARGIN, top, WIDTH - 2 * MARGIN, height, PANEL)
    canvas.box(MARGIN, top, 8, height, STRIP)
    for number, (line, colour) in enumerate(lines):
        canvas.text(MARGIN + 30, top + 38 + 36 * number, line, 28, colour)
    return top + height + 16


def fitting(notes: Sequence[tuple[str, Colour]], size: int, width: float, most: int) -> list[tuple[str, Colour]]:
    """The first of `notes` in at most `most` lines (1 or more) of `width` pixels; the last line counts those that are not wholly shown."""
    in_lines = [wrapped(note, size, width) for note, _ in notes]
    too_long = [len(lines) > MOST_LINES_OF_A_NOTE for lines in in_lines]

    def of_the_first(count: int) -> list[tuple[str, Colour]]:
        shown: list[tuple[str, Colour]] = []
        for (_, colour), lines in zip(notes[:count], in_lines, strict=False):
            first, rest = lines[: MOST_LINES_OF_A_NOTE - 1], lines[MOST_LINES_OF_A_NOTE - 1 :]
            shown += [(line, colour) for line in (*first, *([_cut(" ".join(rest), size, width)] if rest else []))]
        more = len(notes) - count + sum(too_long[:count])
        return [*shown, (wording.more_notes(more), GREY)] if more else shown

    return next(lines for lines in map(of_the_first, range(len(notes), -1, -1)) if len(lines) <= most)


def _withdrawal(canvas: _Canvas, report: Report) -> None:
    """The notice and its reasons: no picture, no class and no number that could still be taken for a result."""
    top, bottom = BANNER_HEIGHT + HEADING_HEIGHT + 60, HEIGHT - FOOTER_HEIGHT
    canvas.box(MARGIN, top, WIDTH - 2 * MARGIN, bottom - top, PANEL)
    canvas.frame(MARGIN, top, WIDTH - 2 * MARGIN, bottom - top, ALARM)
    canvas.text(WIDTH / 2, top + 480, wording.WITHDRAWN, 250, ALARM, bold=True, anchor="ms")
    width = WIDTH - 8 * MARGIN
    y = top + 600
    for line in wrapped(wording.WITHDRAWAL, 54, width):
        y += 76
        canvas.text(WIDTH / 2, y, line, 54, WHITE, bold=True, anchor="ms")
    y += 60
    for line, colour in fitting([(note, WHITE) for note in withdrawal_notes(report)], 38, width, MOST_REASON_LINES):
        y += 56
        canvas.text(WIDTH / 2, y, line, 38, colour, anchor="ms")
    canvas.text(WIDTH / 2, HEIGHT - 44, wording.NOT_REVIEWED, 36, WHITE, bold=True, anchor="ms")


def _footer(canvas: _Canvas) -> None:
    canvas.text(WIDTH / 2, HEIGHT - 64, wording.REDUCED_IMAGE, 36, WHITE, bold=True, anchor="ms")
    canvas.text(WIDTH / 2, HEIGHT - 24, f"{wording.NOT_REVIEWED} {wording.UNCALIBRATED}", 26, GREY, anchor="ms")


def _cell(canvas: _Canvas, view: View, reported: ReportedView | None, top: int, height: int) -> None:
    """One quarter: the view at the page's middle line with the chest wall towards it, its panel at the page's edge."""
    right = view.laterality == "R"
    panel_x = 0 if right else WIDTH - PANEL_WIDTH
    image_width = WIDTH // 2 - PANEL_WIDTH - GAP // 2
    image_x = PANEL_WIDTH if right else WIDTH // 2 + GAP // 2
    canvas.box(image_x, top, image_width, height, BLACK)
    canvas.box(panel_x, top, PANEL_WIDTH, height, PANEL)
    picture = None if reported is None or reported.picture is None else as_hung(reported.picture, view, reported.header)
    if picture is None:
        canvas.frame(image_x + 24, top + 24, image_width - 48, height - 48, TRACK)
        canvas.text(
            image_x + image_width / 2, top + height / 2, wording.NO_PICTURE if reported else wording.NO_IMAGE, 34, GREY, anchor="ms"
        )
    else:
        rows, columns = picture.shape
        scale = min(image_width / columns, height / rows)
        size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        reduced = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
        x = image_x + image_width - size[0] if right else image_x
        canvas.image.paste(reduced.convert("RGB"), (x, top + (height - size[1]) // 2))
    _panel(canvas, view, reported, panel_x + PANEL_MARGIN, top, height)


#: Patient Orientation (0020,0020) as hung: which way the rows and the columns run first. PS3.3 C.7.6.1.1.1.
HUNG: Mapping[View, tuple[str, str]] = {View.R_CC: ("P", "L"), View.L_CC: ("A", "R"), View.R_MLO: ("P", "F"), View.L_MLO: ("A", "F")}
OPPOSITE = {"A": "P", "P": "A", "L": "R", "R": "L", "F": "H", "H": "F"}


def as_hung(picture: np.ndarray[Any, np.dtype[np.uint8]], view: View, ds: Dataset) -> np.ndarray[Any, np.dtype[np.uint8]]:
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


def _panel(canvas: _Canvas, view: View, reported: ReportedView | None, x: int, top: int, height: int) -> None:
    width = PANEL_WIDTH - 2 * PANEL_MARGIN
    canvas.text(x, top + 72, str(view), 60, WHITE, bold=True)
    if reported is None:
        canvas.text(x, top + 124, wording.NO_IMAGE, 34, GREY, bold=True)
        return
    if reported.scores is None:
        canvas.text(x, top + 124, wording.NOT_ANALYSED, 34, WHITE, bold=True)
        for number, line in enumerate(wrapped(reported.failure, 26, width)[:12]):
            canvas.text(x, top + 168 + 34 * number, line, 26, GREY)
    else:
        _scores(canvas, reported.scores, x, top + 114, width)
    tail = header.uid_of(reported.header, "SOPInstanceUID")[-12:]
    canvas.text(x, top + height - 54, wording.UID_ENDS_IN, 24, GREY)
    canvas.text(x, top + height - 24, tail, 24, GREY)


def _scores(canvas: _Canvas, scores: Scores, x: int, y: int, width: int) -> None:
    canvas.text(x, y, wording.HIGHEST_CLASS_LABEL, 24, GREY)
    colour = CLASS_COLOURS.get(scores.predicted_class, OTHER_CLASS_COLOUR)
    y += 6
    for line in wrapped(scores.predicted_class, 38, width)[:2]:
        y += 42
        canvas.text(x, y, line, 38, colour, bold=True)
    y += 42
    canvas.text(x, y, wording.score(scores.probability), 32, WHITE)
    y += 24
    pairs = list(zip(scores.classes, scores.probabilities, strict=True))
    if len(pairs) > MOST_BARS:
        pairs = sorted(pairs, key=lambda pair: -pair[1])[:MOST_BARS]
    for class_name, probability in pairs:
        _bar(canvas, class_name, probability, x, y, width)
        y += 72 if len(pairs) < MOST_BARS else 58
    if scores.predicted_class == wording.NORMAL_CLASS:
        y += 10
        for line in wrapped(wording.NOTHING_EXCLUDED, 24, width):
            y += 30
            canvas.text(x, y, line, 24, WHITE)


def _bar(canvas: _Canvas, class_name: str, probability: float, x: int, y: int, width: int) -> None:
    numbers = 74
    size = next((size for size in (25, 24, 23, 22) if _font(size).getlength(drawable(class_name)) <= width), 22)
    canvas.text(x, y + 30, _cut(class_name, size, width), size, WHITE)
    canvas.box(x, y + 41, width - numbers, 18, TRACK)
    canvas.box(x, y + 41, round((width - numbers) * probability), 18, CLASS_COLOURS.get(class_name, OTHER_CLASS_COLOUR))
    canvas.text(x + width, y + 59, f"{100 * probability:.1f}", 26, WHITE, anchor="rs")


def _across(image: Image.Image, text: str, top: int, bottom: int) -> None:
    """`text` from the lower left to the upper right over all four views, light enough to see through and impossible to overlook."""
    height = bottom - top
    size = 96
    font = _font(size)
    length = int(np.hypot(WIDTH, height) * 0.92)
    strip = Image.new("L", (length, size * 2), 0)
    fitted = font.font_variant(size=int(size * length * 0.98 / font.getlength(text)))
    ImageDraw.Draw(strip).text((length / 2, size), text, font=fitted, fill=255, anchor="mm", stroke_width=2)
    angle = float(np.degrees(np.arctan2(height, WIDTH)))
    turned = strip.rotate(angle, resample=Image.Resampling.BICUBIC, expand=True)
    place = ((WIDTH - turned.width) // 2, top + (height - turned.height) // 2)
    image.paste(Image.new("RGB", turned.size, (255, 255, 255)), place, turned.point([value * 105 // 255 for value in range(256)]))
