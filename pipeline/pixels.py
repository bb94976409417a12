"""Stored values and header -> the square grey image that a model sees, with the box it was cut from. Pure.

Two profiles. `presentation` shows the model what the Standard says a person is shown: padding, Modality LUT (PS3.3 C.11.1), VOI LUT
(C.11.2), polarity (C.7.6.3.1.2), then the breast alone, its aspect kept. `reference` repeats the system that Fourview replaces number
for number, faults included, for checkpoints that were trained behind it; nothing there may be repaired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
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
class Geometry:
    """Where the pixels of a ModelImage lie in the image it was made from, and the way back.

    Boxes are x_min, y_min, x_max, y_max in pixels, upper bounds exclusive: `source` in the image, `target` in the model's square; the
    rest of the square is empty. Positions are x to the right and y down, 0, 0 the upper left corner of the upper left pixel, as in
    spatial coordinates of a report (PS3.3 C.18.6.1.2): the middle of pixel 3 is 3.5. Positions outside the boxes are mapped all the same.
    """

    source: Box
    target: Box

    def to_image(self, x: float, y: float) -> tuple[float, float]:
        """The position in the image of a position in the model's square."""
        return _moved((x, y), self.target, self.source)

    def to_model(self, x: float, y: float) -> tuple[float, float]:
        """The position in the model's square of a position in the image."""
        return _moved((x, y), self.source, self.target)


def _moved(at: tuple[float, float], here: Box, there: Box) -> tuple[float, float]:
    x, y = (there[i] + (at[i] - here[i]) * (there[i + 2] - there[i]) / (here[i + 2] - here[i]) for i in (0, 1))
    return x, y


def _letterbox(box: Box, size: int) -> Geometry:
    """`box` in the middle of a square, as large as fits, aspect kept.

    The target's sides have the parity of `size`, so that both margins are equal and mirroring commutes with it; the aspect is off by one
    pixel of the square at most (two where a side would vanish).
    """
    sides = box[2] - box[0], box[3] - box[1]
    scale = size / max(sides)
    width, height = (max(2 - size % 2, size - 2 * round((size - side * scale) / 2)) for side in sides)
    left, top = (size - width) // 2, (size - height) // 2
    return Geometry(box, (left, top, left + width, top + height))


@dataclass(frozen=True)
class ModelImage:
    """What the model sees, before mean and standard deviation.

    `grey`: float32 (size, size), 0...1, bright = dense (profile `reference`: whatever the reference made of it). `box`: x_min, y_min,
    x_max, y_max of the crop in image pixels, upper bounds exclusive. `threshold`: what parted breast from background, in stored values
    for `reference`, in grey 0...1 for `presentation`. `warnings`: sentences for the reader of the result. `stretched`: whether the crop
    fills the square whatever its aspect, as in `reference`.
    """

    grey: FloatImage
    box: Box
    threshold: float
    warnings: tuple[str, ...]
    stretched: bool = False

    @property
    def geometry(self) -> Geometry:
        """The way from pixels of `grey` to pixels of the image and back."""
        size = self.grey.shape[0]
        return Geometry(self.box, (0, 0, size, size)) if self.stretched else _letterbox(self.box, size)


def prepare(pixels: npt.NDArray[Any], ds: Dataset, *, profile: str, size: int = 512) -> ModelImage:
    """The model's image of the stored values `pixels` (rows, columns; uint8, uint16 or int16) with header `ds`.

    `profile` is "presentation" or "reference", `size` the side of the result in pixels. Raises KeyError for another profile. Pixels
    without a picture in them (one value throughout, or one row) give the whole image as box and a warning.
    """
    return PROFILES[profile](pixels, ds, size)


# ---- profile "reference" ----


#: A crop of a smaller share of the image than this holds no breast; the replaced system read it all the same.
_SMALLEST_CROP = 0.02


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
    if (x_max - x_min) * (y_max - y_min) < _SMALLEST_CROP * rows * columns:
        warnings.append("The outline found encloses next to nothing of the image.")
    # The reference casts to 8 bits without scaling: values wrap.
    wrapped = pixels[y_min:y_max, x_min:x_max].astype(np.uint8)
    small = np.asarray(Image.fromarray(wrapped).resize((size, size), Image.Resampling.BILINEAR))
    return ModelImage(small.astype(np.float32) / np.float32(255.0), box, float(threshold), tuple(warnings), stretched=True)


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
    found = _breast_box(patterns, table, _padding(_all_values(pixels.dtype), ds))
    warnings = [*_depth_warnings(pixels, ds), *table_warnings]
    if found is None:
        warnings.append("No breast outline was found: the whole image was analysed.")
        box, threshold = (0, 0, pixels.shape[1], pixels.shape[0]), 0.0
    else:
        box, threshold = found
    x_min, y_min, x_max, y_max = box
    grey = _in_square(table[patterns[y_min:y_max, x_min:x_max]], _letterbox(box, size), size)
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


def _in_square(grey: FloatImage, geometry: Geometry, size: int) -> FloatImage:
    """The crop `grey` at its place in an otherwise black square."""
    left, top, right, bottom = geometry.target
    inner = np.asarray(Image.fromarray(grey).resize((right - left, bottom - top), Image.Resampling.BILINEAR))
    square = np.zeros((size, size), np.float32)
    square[top:bottom, left:right] = np.clip(inner, 0.0, 1.0)
    return square


# Stored value -> grey. There are at most 65,536 stored values, so the whole chain is computed once per value, not per pixel.


def _depth_warnings(pixels: npt.NDArray[Any], ds: Dataset) -> tuple[str, ...]:
    warnings = []
    if pixels.dtype.itemsize == 1:
        warnings.append("The image has 8 bits per pixel or fewer; mammograms have 10 to 16.")
    if uniform(pixels):
        warnings.append(UNIFORM)
    return tuple(warnings)


UNIFORM = "The image is uniform: there is nothing in it to read."


def uniform(pixels: npt.NDArray[Any]) -> bool:
    """Whether stored values `pixels` (rows, columns) hold no picture: one value throughout, or a single line: nothing to score."""
    return min(pixels.shape) == 1 or bool(pixels.min() == pixels.max())


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
    # US or SS is a matter of Pixel Representation, which some writers get wrong: compare what the 16 bits mean in our dtype.
    meant = np.int16 if stored.dtype.kind == "i" else np.uint16
    low, high = sorted(int(np.array(int(end) & 0xFFFF, np.uint16).view(meant)) for end in ends)
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
#: How far beyond the opened shape thin parts that hang on it still belong to it: the nipple and the skin line.
_REACH = 0.03
#: What is added to the breast's box on each side, as a share of the longer side: nipple and skin fade into the air.
_MARGIN = 0.02
#: Where between background and Otsu's threshold the breast's edge lies, in the square root of grey: skin and fat are dark.
_EDGE = 0.4
_SMALLEST_SHARE = 0.02


def _breast_box(patterns: npt.NDArray[Any], table: FloatImage, padding: npt.NDArray[np.bool_]) -> tuple[Box, float] | None:
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
    breast = _hanging_on(breast, above & (ndimage.distance_transform_edt(~breast) <= _REACH * longer))
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
        # Summed as integers: a sum of floats would depend on the direction.
        whole = np.round(table * 65535).astype(np.int64)
        total = np.zeros((centers[0].size, centers[1].size), np.int64)
        empty = np.ones(total.shape, np.bool_)
        for sample in _sampled(patterns, *centers, step):
            total += whole[sample]
            empty &= padding[sample]
        return cls(total / (9 * 65535), empty, centers, step // 2, (patterns.shape[0], patterns.shape[1]))

    def bounds(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """First pixel and first pixel beyond of the cells `first` to `last` along `axis`."""
        low, high = int(self.centers[axis][first]) - self.half, int(self.centers[axis][last]) + self.half + 1
        return max(0, low), min(self.shape[axis], high)


def _sampled(pixels: npt.NDArray[Any], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], step: int) -> Iterator[npt.NDArray[Any]]:
    """Nine pixels of each cell: nine arrays with a value per cell."""
    for down in (-(step // 3), 0, step // 3):
        for right in (-(step // 3), 0, step // 3):
            y, x = np.clip(rows + down, 0, pixels.shape[0] - 1), np.clip(columns + right, 0, pixels.shape[1] - 1)
            yield pixels[np.ix_(y, x)]


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
    if ds.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        return None
    step = max(1, round(max(pixels.shape) / _COARSE))
    rows, columns = (_mirrored_positions(side, step) for side in pixels.shape)
    stored = np.stack(list(_sampled(pixels, rows, columns, step)))
    padding = _padding(stored, ds)
    if padding.all():
        return None
    units = _modality(stored, ds, [])
    looked_up = _lookup(units, ds.VOILUTSequence[0]) if ds.get("VOILUTSequence") else None
    if looked_up is not None:
        units = looked_up[0]
    if ds.PhotometricInterpretation == "MONOCHROME1":
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
    beside = grey[ndimage.distance_transform_edt(~breast) > _REACH * max(breast.shape)]
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


#: Name in a model card -> what it does.
PROFILES: Mapping[str, Callable[[npt.NDArray[Any], Dataset, int], ModelImage]] = {"presentation": _presentation, "reference": _reference}
