"""Stored values and header -> the square grey image that a model sees, with the box it was cut from. Pure.

Two profiles. `presentation` shows the model what the Standard says a person is shown: padding, Modality LUT (PS3.3 C.11.1), VOI LUT
(C.11.2), polarity (C.7.6.3.1.2), then the breast alone, its aspect kept. `reference` repeats the system that Fourview replaces number
for number, faults included, for checkpoints that were trained behind it; nothing there may be repaired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from scipy import ndimage  # type: ignore[import-untyped]
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]
from skimage.filters import threshold_otsu

Box = tuple[int, int, int, int]
FloatImage = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ModelImage:
    """What the model sees, before mean and standard deviation.

    `grey`: float32 (size, size), 0...1, bright = dense (profile `reference`: whatever the reference made of it). `box`: x_min, y_min,
    x_max, y_max of the crop in image pixels, upper bounds exclusive. `threshold`: what parted breast from background, in stored values
    for `reference`, in grey 0...1 for `presentation`. `warnings`: sentences for the reader of the result.
    """

    grey: FloatImage
    box: Box
    threshold: float
    warnings: tuple[str, ...]


def prepare(pixels: npt.NDArray[Any], ds: Dataset, *, profile: str, size: int = 512) -> ModelImage:
    """The model's image of the stored values `pixels` (rows, columns; uint8, uint16 or int16) with header `ds`.

    `profile` is "presentation" or "reference", `size` the side of the result in pixels. Raises KeyError for another profile. Pixels
    without a picture in them (one value throughout, or one row) give the whole image as box and a warning.
    """
    return PROFILES[profile](pixels, ds, size)


# ---- profile "reference" ----


def _reference(pixels: npt.NDArray[Any], ds: Dataset, size: int) -> ModelImage:
    rows, columns = pixels.shape
    warnings = list(_depth_warnings(pixels, ds))
    threshold = _otsu_of_float_image(pixels)
    mask = pixels.astype(np.float32) > threshold
    box = None
    if (mask[:, 1:] != mask[:, :-1]).sum() > _MOST_EDGES:
        warnings.append("The image is too noisy to have an outline.")
    else:
        box = _longest_contour_box(mask)
    if box is None:
        warnings.append("No breast outline was found: the whole image was analysed.")
        box = (0, 0, columns, rows)
    elif box[0] == box[2] or box[1] == box[3]:
        warnings.append("The outline found encloses nothing: the whole image was analysed.")
        box = (0, 0, columns, rows)
    x_min, y_min, x_max, y_max = box
    # The reference casts to 8 bits without scaling: values wrap.
    wrapped = pixels[y_min:y_max, x_min:x_max].astype(np.uint8)
    small = np.asarray(Image.fromarray(wrapped).resize((size, size), Image.Resampling.BILINEAR))
    return ModelImage(small.astype(np.float32) / np.float32(255.0), box, float(threshold), tuple(warnings))


def _otsu_of_float_image(pixels: npt.NDArray[Any]) -> np.float32:
    """`skimage.filters.threshold_otsu` of the pixels as float32, from a count of the integers.

    The same number, because each value falls into the same of the 256 bins whether it is binned once or a million times.
    """
    counts, values = _value_counts(pixels)
    present = values[counts > 0].astype(np.float32)
    if present.size == 1:
        return np.float32(present[0])
    in_bin, edges = np.histogram(present, bins=256, weights=counts[counts > 0])
    return np.float32(_otsu(in_bin, (edges[:-1] + edges[1:]) / 2.0))


def _otsu(counts: npt.NDArray[Any], centers: npt.NDArray[Any]) -> float:
    return float(threshold_otsu(hist=(counts, centers)))  # type: ignore[no-untyped-call]


def _value_counts(pixels: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """How often each value of the dtype occurs, and the values; both in the order of the bit patterns."""
    patterns, values = _patterns(pixels), _all_values(pixels.dtype)
    return np.bincount(patterns.ravel(), minlength=values.size), values


def _patterns(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Stored values as unsigned bit patterns: the index into a table with one entry per value of the dtype."""
    return pixels.view(np.dtype(f"u{pixels.dtype.itemsize}"))


def _all_values(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.arange(1 << (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(np.dtype(f"{dtype.kind}{dtype.itemsize}"))


#: Changes between background and foreground along the rows, beyond which the outline is not followed: it would take gigabytes. A film of
#: 12 million pixels has some forty thousand. The one departure from the reference, which takes minutes there.
_MOST_EDGES = 1_000_000

#: Marching squares at 0.5 on a mask, as `skimage.measure.find_contours` does it (low values fully connected): for each square's four
#: corners (upper left 1, upper right 2, lower left 4, lower right 8) the pairs of edges that a segment joins.
_TOP, _BOTTOM, _LEFT, _RIGHT = range(4)
_SEGMENTS: Mapping[int, tuple[tuple[int, int], ...]] = {
    1: ((_TOP, _LEFT),),
    2: ((_TOP, _RIGHT),),
    3: ((_LEFT, _RIGHT),),
    4: ((_LEFT, _BOTTOM),),
    5: ((_TOP, _BOTTOM),),
    6: ((_TOP, _RIGHT), (_LEFT, _BOTTOM)),
    7: ((_RIGHT, _BOTTOM),),
    8: ((_RIGHT, _BOTTOM),),
    9: ((_TOP, _LEFT), (_RIGHT, _BOTTOM)),
    10: ((_TOP, _BOTTOM),),
    11: ((_LEFT, _BOTTOM),),
    12: ((_LEFT, _RIGHT),),
    13: ((_TOP, _RIGHT),),
    14: ((_TOP, _LEFT),),
}


def _longest_contour_box(mask: npt.NDArray[np.bool_]) -> Box | None:
    """Box of the iso-contour of `mask` with the most points, the first one on a tie; None without contours.

    Equals the bounds, truncated to int, of `max(find_contours(mask, 0.5), key=len)`, without putting the contours' points in order:
    a contour of n segments has n + 1 points, closed or open, and contours are numbered by their first segment in raster order.
    """
    rows, columns = mask.shape
    if rows < 2 or columns < 2:
        return None
    bits = mask.view(np.uint8)
    squares = bits[:-1, :-1] + 2 * bits[:-1, 1:] + 4 * bits[1:, :-1] + 8 * bits[1:, 1:]
    at = np.flatnonzero((squares != 0) & (squares != 15))
    if at.size == 0:
        return None
    case = squares.ravel()[at]
    row, column = np.divmod(at, columns - 1)
    # An edge is named by its upper or left pixel; edges between pixels of one column come after those between pixels of one row.
    pixel = row * columns + column
    edges = np.stack([pixel, pixel + columns, pixel + rows * columns, pixel + rows * columns + 1])
    joins = np.full((16, 2, 2), -1)
    for number, segments in _SEGMENTS.items():
        joins[number, : len(segments)] = segments
    joined = joins[case].reshape(-1, 2)  # at most two segments per square, in raster order
    real = joined[:, 0] >= 0
    square = np.repeat(np.arange(at.size), 2)[real]
    ends = edges[joined[real].T, square]
    names, inverse = np.unique(ends, return_inverse=True)
    first, second = inverse.reshape(ends.shape)
    graph = coo_array((np.ones(first.size, np.int8), (first, second)), shape=(names.size, names.size))
    contour_of_edge = connected_components(graph, directed=False)[1]
    contour = contour_of_edge[first]
    length = np.bincount(contour)
    longest = contour[np.argmax(length[contour] == length.max())]
    edge_row, edge_column = np.divmod(names[contour_of_edge == longest] % (rows * columns), columns)
    return int(edge_column.min()), int(edge_row.min()), int(edge_column.max()), int(edge_row.max())


# ---- profile "presentation" ----


def _presentation(pixels: npt.NDArray[Any], ds: Dataset, size: int) -> ModelImage:
    table, table_warnings = _grey_table(pixels, ds)
    patterns = _patterns(pixels)
    found = _breast_box(patterns, table)
    warnings = [*_depth_warnings(pixels, ds), *table_warnings]
    if found is None:
        warnings.append("No breast outline was found: the whole image was analysed.")
        box, threshold = (0, 0, pixels.shape[1], pixels.shape[0]), 0.0
    else:
        box, threshold = found
    x_min, y_min, x_max, y_max = box
    grey = _letterbox(table[patterns[y_min:y_max, x_min:x_max]], size)
    return ModelImage(grey, box, threshold, tuple(warnings))


def preview(pixels: npt.NDArray[Any], ds: Dataset, *, max_rows: int = 1024) -> npt.NDArray[np.uint8]:
    """The whole image as a person is shown it: uint8 (rows, columns), bright = dense, at most `max_rows` rows, aspect kept."""
    table, _ = _grey_table(pixels, ds)
    shown: npt.NDArray[np.uint8] = np.round(table * 255).astype(np.uint8)[_patterns(pixels)]
    rows, columns = shown.shape
    if rows <= max_rows:
        return shown
    small = Image.fromarray(shown).resize((max(1, round(columns * max_rows / rows)), max_rows), Image.Resampling.BILINEAR)
    return np.asarray(small)


def _letterbox(grey: FloatImage, size: int) -> FloatImage:
    """`grey` in the middle of a black square, as large as fits, aspect kept.

    The inner picture's sides have the parity of `size`, so that both margins are equal and mirroring commutes with it; the aspect is off
    by half a pixel at most.
    """
    rows, columns = grey.shape
    scale = size / max(rows, columns)
    height, width = (side + (size - side) % 2 for side in (max(1, round(rows * scale)), max(1, round(columns * scale))))
    inner = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR))
    square = np.zeros((size, size), np.float32)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = np.clip(inner, 0.0, 1.0)
    return square


# Stored value -> grey. There are at most 65,536 stored values, so the whole chain is computed once per value, not per pixel.


def _depth_warnings(pixels: npt.NDArray[Any], ds: Dataset) -> tuple[str, ...]:
    warnings = []
    if pixels.dtype.itemsize == 1:
        warnings.append("The image has 8 bits per pixel or fewer; mammograms have 10 to 16.")
    if min(pixels.shape) == 1 or pixels.min() == pixels.max():
        warnings.append("The image is uniform: there is nothing in it to read.")
    return tuple(warnings)


def _grey_table(pixels: npt.NDArray[Any], ds: Dataset) -> tuple[FloatImage, tuple[str, ...]]:
    """For each bit pattern of a stored value its grey, float32 0...1, bright = dense; and what was odd about the header."""
    warnings: list[str] = []
    stored = _all_values(pixels.dtype)
    padding = _padding(stored, ds)
    units = _modality(stored, ds, warnings)
    grey = _voi(units, ds, warnings)
    if grey is None:
        counts, _ = _value_counts(pixels)
        grey = _full_range(units, (counts > 0) & ~padding)
    photometric = ds.get("PhotometricInterpretation")
    if photometric == "MONOCHROME1":
        grey = 1.0 - grey
    elif photometric != "MONOCHROME2":
        warnings.append("Photometric Interpretation is neither MONOCHROME1 nor MONOCHROME2: shown as MONOCHROME2.")
    elif ds.get("PresentationLUTShape") == "INVERSE":
        warnings.append("Presentation LUT Shape INVERSE contradicts MONOCHROME2: shown as MONOCHROME2.")
    grey[padding] = 0.0  # black also where polarity would have made it a bright frame
    return grey.astype(np.float32), tuple(warnings)


def _present(ds: Dataset, keyword: str) -> bool:
    """Whether an attribute has a value, be it malformed: looked at without converting it."""
    return keyword in ds and ds.get_item(keyword).value not in (None, "", b"")


def _numbers(ds: Dataset, keyword: str) -> tuple[float, ...]:
    """The finite numbers of an attribute of one or several values; empty when it is absent, empty or not a number."""
    try:
        value = ds.get(keyword)
        values = () if value is None or value == "" else value if hasattr(value, "__iter__") and not isinstance(value, str) else (value,)
        numbers = tuple(float(item) for item in values)
    except (TypeError, ValueError, OverflowError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def _padding(stored: npt.NDArray[Any], ds: Dataset) -> npt.NDArray[np.bool_]:
    """Which stored values are Pixel Padding (0028,0120), up to the Range Limit (0028,0121) if there is one (PS3.3 C.7.5.1.1.2)."""
    value = _numbers(ds, "PixelPaddingValue")
    if not value:
        return np.zeros(stored.shape, np.bool_)
    ends = (value[0], *(_numbers(ds, "PixelPaddingRangeLimit") or value)[:1])
    # US or SS is a matter of Pixel Representation, which some writers get wrong: compare the bit patterns' meaning in our dtype.
    low, high = sorted(int(np.array(int(end) & 0xFFFF, np.uint16).astype(stored.dtype)) for end in ends)
    wide = stored.astype(np.int32)
    return (wide >= low) & (wide <= high)


def _modality(stored: npt.NDArray[Any], ds: Dataset, warnings: list[str]) -> npt.NDArray[np.float64]:
    """Modality LUT Sequence, or Rescale Slope and Intercept, or nothing (PS3.3 C.11.1)."""
    units: npt.NDArray[np.float64] = stored.astype(np.float64)
    if ds.get("ModalityLUTSequence"):
        looked_up = _lookup(units, ds.ModalityLUTSequence[0])
        if looked_up is not None:
            return looked_up[0]
        warnings.append("The Modality LUT is not readable and was left out.")
    slope, intercept = _numbers(ds, "RescaleSlope"), _numbers(ds, "RescaleIntercept")
    if slope and slope[0] == 0:
        warnings.append("Rescale Slope is zero and was left out.")
        return units
    return units * (slope[0] if slope else 1.0) + (intercept[0] if intercept else 0.0)


def _lookup(values: npt.NDArray[np.float64], item: Dataset) -> tuple[npt.NDArray[np.float64], int] | None:
    """`values` through the LUT in a sequence item, and the largest output it may have; None when it is malformed."""
    descriptor = _numbers(item, "LUTDescriptor")
    data = item.get("LUTData")
    if len(descriptor) != 3 or data is None:
        return None
    entries, first, bits = int(descriptor[0]) or 65536, int(descriptor[1]), int(descriptor[2])
    if isinstance(data, bytes):
        entry_bytes = 1 if len(data) < 2 * entries else 2
        data = np.frombuffer(data, np.dtype(f"<u{entry_bytes}"), len(data) // entry_bytes)
    outputs = np.atleast_1d(np.asarray(data, np.float64))[:entries]
    if outputs.size < entries or not 1 <= bits <= 16:
        return None
    if first > 0x7FFF and values.min() < 0:  # a negative first value in a descriptor that was written as US
        first -= 0x10000
    index = np.clip(np.round(values) - first, 0, entries - 1).astype(np.int64)
    return outputs[index], max((1 << bits) - 1, int(outputs.max()))


def _linear(values: npt.NDArray[np.float64], center: float, width: float) -> npt.NDArray[np.float64]:
    if width == 1:  # the formula's slope is infinite there
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def _linear_exact(values: npt.NDArray[np.float64], center: float, width: float) -> npt.NDArray[np.float64]:
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def _sigmoid(values: npt.NDArray[np.float64], center: float, width: float) -> npt.NDArray[np.float64]:
    grey: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -500.0, 500.0)))
    return grey


#: VOI LUT Function (0028,1056) -> formula of PS3.3 C.11.2.1.2 and C.11.2.1.3, and the smallest width; zero itself is never a width.
_WINDOWS: Mapping[str, tuple[Callable[[npt.NDArray[np.float64], float, float], npt.NDArray[np.float64]], float]] = {
    "LINEAR": (_linear, 1.0),
    "LINEAR_EXACT": (_linear_exact, 0.0),
    "SIGMOID": (_sigmoid, 0.0),
}


def _voi(units: npt.NDArray[np.float64], ds: Dataset, warnings: list[str]) -> npt.NDArray[np.float64] | None:
    """Grey 0...1 by the first VOI LUT, else by the first window; None when the header has neither in a usable form (PS3.3 C.11.2)."""
    if ds.get("VOILUTSequence"):
        looked_up = _lookup(units, ds.VOILUTSequence[0])
        if looked_up is not None and looked_up[1] > 0:
            return looked_up[0] / looked_up[1]
        warnings.append("The VOI LUT is not readable and was left out.")
    if not _present(ds, "WindowCenter") and not _present(ds, "WindowWidth"):
        return None
    center, width = _numbers(ds, "WindowCenter"), _numbers(ds, "WindowWidth")
    function = str(ds.get("VOILUTFunction") or "LINEAR")
    if function not in _WINDOWS:
        warnings.append("VOI LUT Function is unknown: LINEAR was used.")
        function = "LINEAR"
    formula, smallest = _WINDOWS[function]
    if not center or not width or width[0] <= 0 or width[0] < smallest:
        warnings.append("The window in the header is not usable: the full range of the pixels was used.")
        return None
    return formula(units, center[0], width[0])


def _full_range(units: npt.NDArray[np.float64], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Smallest to largest value that occurs outside padding becomes 0...1; zero throughout when there is only one."""
    if not present.any():
        return np.zeros_like(units)
    low, high = float(units[present].min()), float(units[present].max())
    if low == high:
        return np.zeros_like(units)
    return np.clip((units - low) / (high - low), 0.0, 1.0)


# The breast. Found on a grid of about 400 cells along the longer side; every step treats both directions of an axis alike, so that the box
# of a mirrored image is the mirrored box.

_CELLS = 400
#: Film rims: how deep they may reach, how much brighter than the picture further in, on how much of the border. As shares.
_RIM_DEPTH, _RIM_STEP, _RIM_SHARE = 0.03, 0.2, 0.15
#: A white mask or collimator: whole lines of the border that are nearly white, up to this depth.
_WHITE_DEPTH, _WHITE, _WHITE_SHARE = 0.25, 0.9, 0.9
#: Radius, as a share of the longer side, below which rims, letters and the paddle's edge are too thin to be breast.
_THIN = 0.03
#: How far beyond the opened shape thin parts still belong to it: the nipple and the skin line.
_REACH = 0.03
#: Where between background and Otsu's threshold the breast's edge lies, in the square root of grey: skin and fat are dark.
_EDGE = 0.4
_SMALLEST_SHARE = 0.02


def _breast_box(patterns: npt.NDArray[Any], table: FloatImage) -> tuple[Box, float] | None:
    """Box of the breast in image pixels and the grey that parted it from the background; None when there is no breast to be found."""
    cells = _Cells.of(patterns, table)
    level = np.sqrt(cells.grey)
    frame = _inside_rims(cells.grey)
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
    near: npt.NDArray[np.bool_] = ndimage.distance_transform_edt(~breast) <= _REACH * longer
    breast = above & near
    if breast.sum() < _SMALLEST_SHARE * breast.size:
        return None
    rows, columns = np.flatnonzero(breast.any(axis=1)), np.flatnonzero(breast.any(axis=0))
    y_min, y_max = cells.bounds(0, rows[0], rows[-1])
    x_min, x_max = cells.bounds(1, columns[0], columns[-1])
    return (x_min, y_min, x_max, y_max), float(edge**2)


@dataclass(frozen=True)
class _Cells:
    """The image in coarse cells. `grey`: float64 (rows, columns), 0...1. `centers`: pixel at the middle of each row and column of cells."""

    grey: npt.NDArray[np.float64]
    centers: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
    half: int
    shape: tuple[int, int]

    @classmethod
    def of(cls, patterns: npt.NDArray[Any], table: FloatImage) -> _Cells:
        step = max(1, round(max(patterns.shape) / _CELLS))
        centers = _mirrored_positions(patterns.shape[0], step), _mirrored_positions(patterns.shape[1], step)
        # Nine pixels per cell, summed as integers: a sum of floats would depend on the direction.
        whole = np.round(table * 65535).astype(np.int64)
        total = np.zeros((centers[0].size, centers[1].size), np.int64)
        for down in (-(step // 3), 0, step // 3):
            for right in (-(step // 3), 0, step // 3):
                y = np.clip(centers[0] + down, 0, patterns.shape[0] - 1)
                x = np.clip(centers[1] + right, 0, patterns.shape[1] - 1)
                total += whole[patterns[np.ix_(y, x)]]
        return cls(total / (9 * 65535), centers, step // 2, (patterns.shape[0], patterns.shape[1]))

    def bounds(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """First pixel and first pixel beyond of the cells `first` to `last` along `axis`."""
        low, high = int(self.centers[axis][first]) - self.half, int(self.centers[axis][last]) + self.half + 1
        return max(0, low), min(self.shape[axis], high)


def _mirrored_positions(length: int, step: int) -> npt.NDArray[np.intp]:
    """About `length / step` positions in 0...length-1 that a mirror maps onto themselves."""
    half = np.arange(step // 2, (length + 1) // 2, step)
    if half.size == 0:
        half = np.array([(length - 1) // 2])
    return np.unique(np.concatenate([half, length - 1 - half])).astype(np.intp)


def _inside_rims(grey: npt.NDArray[np.float64]) -> tuple[slice, slice]:
    """The part of the picture without film rims and white masks at its borders."""
    top, bottom = _rim(grey), _rim(grey[::-1])
    left, right = _rim(grey.T), _rim(grey.T[::-1])
    return slice(top, grey.shape[0] - bottom), slice(left, grey.shape[1] - right)


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


def _edge_level(level: npt.NDArray[np.float64]) -> float:
    """The level that parts breast from background: a share of the way from the background's own level to Otsu's threshold."""
    counts = np.bincount((level.ravel() * 255).astype(np.intp), minlength=256)
    otsu = (_otsu(counts, np.arange(256)) + 1) / 256
    below = level[level <= otsu]
    background = float(np.median(below)) if below.size else 0.0
    return background + _EDGE * (otsu - background)


def _opened(mask: npt.NDArray[np.bool_], radius: float) -> npt.NDArray[np.bool_]:
    """Morphological opening by a disk; outside the image counts as background, so that strips along a border are thin too."""
    inside: npt.NDArray[np.bool_] = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > radius
    if not inside.any():
        return inside
    near: npt.NDArray[np.bool_] = ndimage.distance_transform_edt(~inside) <= radius
    opened: npt.NDArray[np.bool_] = near & mask
    return opened


def _largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    """The largest connected part, all of them on a tie (a choice would depend on the direction); None when empty."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: npt.NDArray[np.bool_] = (sizes == sizes.max())[labels]
    return largest


#: Name in a model card -> what it does.
PROFILES: Mapping[str, Callable[[npt.NDArray[Any], Dataset, int], ModelImage]] = {"presentation": _presentation, "reference": _reference}
