"""Where the breast is in an image, and at which of its edges the chest wall lies. Pure.

Looked for on a coarse grid. Every step treats both directions of an axis alike, so that the box of a mirrored image is the mirrored box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from scipy import ndimage  # type: ignore[import-untyped]

from pipeline.grey import lookup, modality, padding_of
from pipeline.model_image import Box, FloatImage
from pipeline.otsu import otsu
from store.header_text import value_of

#: Cells along the longer side.
_CELLS = 400
#: Film rims: how deep they may reach, how much brighter than the picture further in, on how much of the border. As shares.
_RIM_DEPTH, _RIM_STEP, _RIM_SHARE = 0.03, 0.2, 0.15
#: A white mask or collimator: whole lines of the border that are nearly white, up to this depth.
_WHITE_DEPTH, _WHITE, _WHITE_SHARE = 0.25, 0.9, 0.9
#: Radius, as a share of the longer side, below which rims, letters and the paddle's edge are too thin to be breast.
_THIN = 0.03
#: How far beyond the opened shape thin parts that hang on it still belong to it: the nipple and the skin line.
_REACH = 0.03
#: What is added to the breast's box on each side, as a share of the longer side: nipple and skin fade into the air.
_MARGIN = 0.02
#: Where between background and Otsu's threshold the breast's edge lies, in the square root of grey: skin and fat are dark.
_EDGE = 0.4
_SMALLEST_SHARE = 0.02


def breast_box(patterns: npt.NDArray[Any], table: FloatImage, padding: npt.NDArray[np.bool_]) -> tuple[Box, float] | None:
    """Box of the breast in image pixels and the grey that parted it from the background; None when there is no breast to be found.

    `table` and `padding` say of each bit pattern its grey and whether it is padding.
    """
    cells = _Cells.of(patterns, table, padding)
    frame = _picture_frame(cells.grey, cells.padding)
    found = _breast_mask(cells.grey, frame)
    if found is None:
        return None
    breast, threshold = found
    margin = round(_MARGIN * max(breast.shape))
    ends = []
    for axis in (0, 1):
        held = np.flatnonzero(breast.any(axis=1 - axis))
        first, last = max(frame[axis].start, int(held[0]) - margin), min(frame[axis].stop - 1, int(held[-1]) + margin)
        ends.append(cells.bounds(axis, first, last))
    (y_min, y_max), (x_min, x_max) = ends
    crop = patterns[y_min:y_max, x_min:x_max]
    top, bottom, left, right = (_hair(lines, table, cells.half) for lines in (crop, crop[::-1], crop.T, crop.T[::-1]))
    return (x_min + left, y_min + top, x_max - right, y_max - bottom), threshold


def _breast_mask(grey: npt.NDArray[np.float64], frame: tuple[slice, slice]) -> tuple[npt.NDArray[np.bool_], float] | None:
    """Which cells of `grey` (0...1, bright = dense) within `frame` are breast, and the grey that parted them; None when there is none."""
    level = np.sqrt(grey)
    inner = level[frame]
    if inner.size == 0 or inner.min() == inner.max():
        return None
    edge = _edge_level(inner)
    above = np.zeros(level.shape, np.bool_)
    above[frame] = inner > edge
    longer = max(level.shape)
    breast = _largest(_opened(above, _THIN * longer))
    if breast is None:
        return None
    breast = _hanging_on(breast, above & (_near(breast, _REACH * longer)))
    if breast.sum() < _SMALLEST_SHARE * breast.size:
        return None
    return breast, float(edge**2)


@dataclass(frozen=True)
class _Cells:
    """The image in coarse cells. `grey`: float64 (rows, columns), 0...1. `padding`: which cells hold nothing else.

    `centers`: pixel at the middle of each row and column of cells.
    """

    grey: npt.NDArray[np.float64]
    padding: npt.NDArray[np.bool_]
    centers: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
    half: int
    shape: tuple[int, int]

    @classmethod
    def of(cls, patterns: npt.NDArray[Any], table: FloatImage, padding: npt.NDArray[np.bool_]) -> _Cells:
        step = max(1, round(max(patterns.shape) / _CELLS))
        centers = _mirrored_positions(patterns.shape[0], step), _mirrored_positions(patterns.shape[1], step)
        sample = _sampled(patterns, *centers, step)
        # Summed as integers: a sum of floats would depend on the direction.
        whole = np.round(table * 65535).astype(np.int32)
        total = np.take(whole, sample, mode="clip").sum(axis=(0, 2))
        empty = padding[sample].all(axis=(0, 2)) if padding.any() else np.zeros(total.shape, np.bool_)
        return cls(total / (9 * 65535), empty, centers, step // 2, (patterns.shape[0], patterns.shape[1]))

    def bounds(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """First pixel and first pixel beyond of the cells `first` to `last` along `axis`."""
        low, high = int(self.centers[axis][first]) - self.half, int(self.centers[axis][last]) + self.half + 1
        return max(0, low), min(self.shape[axis], high)


def _sampled(pixels: npt.NDArray[Any], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], step: int) -> npt.NDArray[Any]:
    """Nine pixels of each cell: (3, rows, 3, columns)."""
    beside = np.array([[-(step // 3)], [0], [step // 3]])
    y, x = (np.clip(at + beside, 0, side - 1) for at, side in zip((rows, columns), pixels.shape, strict=True))
    lines = pixels[y.ravel()]  # whole rows first, as they lie in memory
    sample: npt.NDArray[Any] = np.take(lines, x.ravel(), axis=1).reshape(3, rows.size, 3, columns.size)
    return sample


def _mirrored_positions(length: int, step: int) -> npt.NDArray[np.intp]:
    """About `length / step` positions in 0...length-1 that a mirror maps onto themselves."""
    half = np.arange(step // 2, (length + 1) // 2, step)
    if half.size == 0:
        half = np.array([(length - 1) // 2])
    return np.unique(np.concatenate([half, length - 1 - half])).astype(np.intp)


def _picture_frame(grey: npt.NDArray[np.float64], padding: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """The part of the picture without lines of padding, film rims and white masks at its borders.

    Padding is not the air beside the breast: counted with it, it would make a veil of grey on that air look like breast.
    """
    if padding.all():
        return slice(0, 0), slice(0, 0)
    rows, columns = np.flatnonzero(~padding.all(axis=1)), np.flatnonzero(~padding.all(axis=0))
    held = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return (
        slice(int(rows[0]) + _rim(held), int(rows[-1]) + 1 - _rim(held[::-1])),
        slice(int(columns[0]) + _rim(held.T), int(columns[-1]) + 1 - _rim(held.T[::-1])),
    )


def _rim(lines: npt.NDArray[np.float64]) -> int:
    """How many of the first rows are rim.

    A rim is a thin line along the border that ends abruptly: much brighter than the picture a little further in, on a good part of its
    length. Breast and pectoral muscle also touch borders, but change slowly there.
    """
    count = lines.shape[0]
    thin = math.ceil(_RIM_DEPTH * count)
    further_in = lines[min(count - 1, thin + 1)]
    depth = 0
    while depth < count * _WHITE_DEPTH:
        white = (lines[depth] > _WHITE).mean() >= _WHITE_SHARE
        abrupt = depth < thin and (lines[depth] > further_in + _RIM_STEP).mean() >= _RIM_SHARE
        if not white and not abrupt:
            break
        depth += 1
    return depth


def _hair(lines: npt.NDArray[Any], table: FloatImage, half: int) -> int:
    """How many of the first rows of bit patterns are a rim so thin that it is lost in a cell of `half` on each side."""
    if lines.shape[0] <= 4 * half:
        return 0
    outer = table[lines[: 2 * half]]
    bright = (outer > table[lines[2 * half]] + _RIM_STEP).mean(axis=1) >= _RIM_SHARE
    return int(np.argmin(np.append(bright, False)))


def _edge_level(level: npt.NDArray[np.float64]) -> float:
    """The level that parts breast from background: a share of the way from the background's own level to Otsu's threshold."""
    counts = np.bincount((level.ravel() * 255).astype(np.intp), minlength=256)
    middle = (otsu(counts, np.arange(256)) + 1) / 256
    below = level[level <= middle]
    background = float(np.median(below)) if below.size else 0.0
    return background + _EDGE * (middle - background)


def _opened(mask: npt.NDArray[np.bool_], radius: float) -> npt.NDArray[np.bool_]:
    """Morphological opening by a disk; outside the image counts as background, so that strips along a border are thin too."""
    inside: npt.NDArray[np.bool_] = ~_near(~np.pad(mask, 1), radius)[1:-1, 1:-1]
    if not inside.any():
        return inside
    return _near(inside, radius) & mask


def _near(mask: npt.NDArray[np.bool_], radius: float) -> npt.NDArray[np.bool_]:
    """Which cells have a cell of `mask` within `radius` cells of their own (Euclid's distance from middle to middle).

    The mask is widened along the rows, and laid over itself that many rows further up and down: for each distance from a row, as much wider
    as the disk is there. On a mask of 400 x 300 cells a tenth of the work of a distance for each cell.
    """
    rows, columns = mask.shape
    reach = int(radius)
    stride = columns + 2 * reach  # room on both sides, so that nothing widens into the next row
    wide = np.pad(mask, reach).ravel()
    room = np.pad(mask, reach).ravel()
    near = np.zeros_like(wide)
    width = 0
    for away in range(reach, -1, -1):
        while math.sqrt((width + 1) ** 2 + away**2) <= radius:
            width += 1
            wide[width:] |= room[:-width]
            wide[:-width] |= room[width:]
        if away:
            near[away * stride :] |= wide[: -away * stride]
            near[: -away * stride] |= wide[away * stride :]
        else:
            near |= wide
    return near.reshape(rows + 2 * reach, stride)[reach : reach + rows, reach : reach + columns]


def _hanging_on(core: npt.NDArray[np.bool_], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The connected parts of `mask` that hold a cell of `core`."""
    labels, count = ndimage.label(mask)
    held = np.zeros(count + 1, np.bool_)
    held[labels[core]] = True
    held[0] = False
    parts: npt.NDArray[np.bool_] = held[labels]
    return parts


def _largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    """The largest connected part, all of them on a tie (a choice would depend on the direction); None when empty."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: npt.NDArray[np.bool_] = (sizes == sizes.max())[labels]
    return largest


# ---- at which edge the breast lies ----

_COARSE = 128
#: Share of the cells that may be brighter than anything of the breast: letters, clips, a stuck pixel.
_GLARE = 0.02
#: The chest wall: how far it may be from the image's edge, and how much of the picture's height the breast takes there at least. It is
#: cut off straight: within how much of the width the breast rises from one share of its greatest height to another.
_WALL_DEPTH, _WALL_HEIGHT = 0.1, 0.2
_CUT_DEPTH, _CUT_FROM, _CUT_TO = 0.03, 0.2, 0.75
#: The breast's height at its tip, at most, as a share of its greatest height.
_TIP_HEIGHT = 0.75
#: How much of the width the breast may take.
_WIDEST = 0.92
#: How much the breast's outline bulges away from the chest wall, as a share of its greatest width. What is left beside a breast is hollow.
_BULGE = 0.15
#: How uneven the air beside the breast may be, as a share of the breast's grey above it.
_UNEVEN = 0.2


def breast_edge(pixels: npt.NDArray[Any], ds: Dataset) -> str:
    """At which edge of the image the breast's chest wall lies: "left", "right", or "" where that cannot be told.

    `pixels` are stored values (rows, columns; uint8, uint16 or int16), `ds` their header, of which padding, Modality and VOI LUT and
    polarity are read; windows are not, so that a wrong one does no harm. Meant as a check of Image Laterality that does not depend on the
    header's other words: it answers only what is plain, and nothing for an image that is empty, filled, or holds a block.
    """
    coarse = _coarse_grey(pixels, ds)
    if coarse is None:
        return ""
    grey, padding = coarse
    frame = _picture_frame(grey, padding)
    found = _breast_mask(grey, frame)
    if found is None or not _beside_air(found[0][frame], grey[frame]):
        return ""
    breast = found[0][frame[0]]  # across the whole width: an edge is the image's, not the picture's
    answers = [side for side, seen in (("left", breast), ("right", breast[:, ::-1])) if _lies_left(seen)]
    return answers[0] if len(answers) == 1 else ""


def _coarse_grey(pixels: npt.NDArray[Any], ds: Dataset) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]] | None:
    """The image in cells, 0...1, bright = dense, whatever the window, and which are padding; None without polarity or content."""
    photometric = value_of(ds, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return None
    step = max(1, round(max(pixels.shape) / _COARSE))
    rows, columns = (_mirrored_positions(side, step) for side in pixels.shape)
    stored = np.moveaxis(_sampled(pixels, rows, columns, step), 2, 1).reshape(9, rows.size, columns.size)
    padding = padding_of(stored, ds)
    if padding.all():
        return None
    units = modality(stored, ds, [])
    looked_up = lookup(units, ds, "VOILUTSequence")
    if looked_up is not None:
        units = looked_up[0]
    if photometric == "MONOCHROME1":
        units = -units
    units[padding] = units[~padding].min()
    # The median of a cell is one of its values: no letter's stroke, and no rounding that depends on the direction or the scale.
    cells: npt.NDArray[np.float64] = np.sort(units, axis=0)[units.shape[0] // 2]
    low, high = cells.min(), np.sort(cells, axis=None)[round((1 - _GLARE) * (cells.size - 1))]
    if high == low:
        return None
    empty: npt.NDArray[np.bool_] = np.logical_and.reduce(padding, axis=0)
    return np.minimum((cells - low) / (high - low), 1.0), empty


def _beside_air(breast: npt.NDArray[np.bool_], grey: npt.NDArray[np.float64]) -> bool:
    """Whether what a mask leaves of the picture is air: even and dark, but for its outline. Tissue over the whole image is neither."""
    beside = grey[~_near(breast, _REACH * max(breast.shape))]
    if beside.size == 0:
        return False
    dark, bright = np.percentile(beside, (10, 90))
    return bool(bright - dark <= _UNEVEN * (np.median(grey[breast]) - dark))


def _lies_left(breast: npt.NDArray[np.bool_]) -> bool:
    """Whether a mask (rows, columns) is plainly a breast at the left edge."""
    rows, columns = breast.shape
    heights = breast.sum(axis=0)
    reached = np.flatnonzero(heights)
    highest = heights.max()
    near = math.ceil(_WALL_DEPTH * columns)
    rise = np.argmax(heights >= _CUT_TO * highest) - np.argmax(heights >= _CUT_FROM * highest)
    tip = heights[: reached[-1] + 1][-math.ceil((reached[-1] + 1) / 10) :].mean()
    widths = np.where(breast.any(axis=1), columns - np.argmax(breast[:, ::-1], axis=1), 0)
    widths = np.trim_zeros(np.where(widths > widths.max() / 10, widths, 0))
    end = math.ceil(widths.size / 30)
    return bool(
        heights[:near].max() >= _WALL_HEIGHT * rows
        and rise <= _CUT_DEPTH * columns
        and tip <= _TIP_HEIGHT * highest
        and reached[-1] + 1 <= _WIDEST * columns
        and widths.mean() - (widths[:end].max() + widths[-end:].max()) / 2 >= _BULGE * widths.max()
    )
