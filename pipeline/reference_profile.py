"""Profile `reference`: what the system that Fourview replaces makes of an image, number for number, faults included. Pure.

Nothing here may be repaired: checkpoints were trained behind it. It is only faster: what scikit-image does to 8 million floats is done to
65,536 counts, and what it does to a list of contours is done to arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

from pipeline.model_image import Box, ModelImage
from pipeline.otsu import otsu
from pipeline.strips import all_values, value_counts
from pipeline.uniform import depth_warnings

#: A crop of a smaller share of the image than this holds no breast; the replaced system read it all the same.
_SMALLEST_CROP = 0.02


def reference(pixels: npt.NDArray[Any], ds: Dataset, size: int) -> ModelImage:
    """The model's image of stored values `pixels` as the replaced system makes it, which looks at no header; `size` in pixels."""
    rows, columns = pixels.shape
    warnings = list(depth_warnings(pixels))
    threshold = _otsu_of_float_image(pixels)
    # Every stored value is a float32 exactly, so those above the threshold are those above its integer part.
    mask = pixels > pixels.dtype.type(math.floor(threshold))
    box = None
    if np.count_nonzero(mask[:, 1:] != mask[:, :-1]) > _MOST_EDGES:
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
    counts, values = value_counts(pixels), all_values(pixels.dtype)
    present = values[counts > 0].astype(np.float32)
    if present.size == 1:
        return np.float32(present[0])
    in_bin, edges = np.histogram(present, bins=256, weights=counts[counts > 0])
    return np.float32(otsu(in_bin, (edges[:-1] + edges[1:]) / 2.0))


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
#: For each square and each of its edges, which of its segments ends there: 0, 1, or -1.
_ENDS = np.full((16, 4), -1)
for _case, _joined in _SEGMENTS.items():
    for _number, _edges in enumerate(_joined):
        _ENDS[_case, _edges] = _number


def _longest_contour_box(mask: npt.NDArray[np.bool_]) -> Box | None:
    """Box of the iso-contour of `mask` with the most points, the first one on a tie; None without contours.

    Equals the bounds, truncated to int, of `max(find_contours(mask, 0.5), key=len)`, without putting the contours' points in order:
    a contour of n segments has n + 1 points, closed or open, and contours are numbered by their first segment in raster order.
    """
    rows, columns = mask.shape
    if rows < 2 or columns < 2:
        return None
    at, case = _crossed_squares(mask)
    if at.size == 0:
        return None
    row, column = np.divmod(at, columns - 1)
    ends = _ENDS[case]
    two = (case == 6) | (case == 9)
    number = np.arange(at.size) + np.cumsum(two) - two  # of a square's first segment, in raster order
    segment = np.where(ends < 0, -1, number[:, None] + ends)
    # A segment that ends at an edge goes on in the square beyond it: to the right the next one, below the one that is found there.
    right = np.flatnonzero((ends[:, _RIGHT] >= 0) & (column < columns - 2))
    down = np.flatnonzero((ends[:, _BOTTOM] >= 0) & (row < rows - 2))
    below = np.searchsorted(at, at[down] + columns - 1)
    one = np.concatenate([segment[right, _RIGHT], segment[down, _BOTTOM]])
    other = np.concatenate([segment[right + 1, _LEFT], segment[below, _TOP]])
    count = int(number[-1] + 1 + two[-1])
    graph = coo_array((np.ones(one.size, np.int8), (one, other)), shape=(count, count))
    contour = connected_components(graph, directed=False)[1]
    length = np.bincount(contour)
    longest = contour[np.argmax(length[contour] == length.max())]
    # An edge lies where its upper or left pixel lies, halfway to the next: truncated, there.
    square, edge = np.nonzero((ends >= 0) & (contour[segment] == longest))
    y, x = row[square] + (edge == _BOTTOM), column[square] + (edge == _RIGHT)
    return int(x.min()), int(y.min()), int(x.max()), int(y.max())


#: Rows of squares that are looked at in one go.
_STRIP = 128


def _crossed_squares(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]:
    """The squares of four pixels that the outline of `mask` goes through, in raster order: their numbers, and the sum of their corners."""
    bits = mask.view(np.uint8)
    numbers, cases = [], []
    for first in range(0, mask.shape[0] - 1, _STRIP):
        lines = bits[first : first + _STRIP + 1]
        pairs = lines[:, 1:] << 1
        pairs |= lines[:, :-1]
        squares = pairs[1:] << 2
        squares |= pairs[:-1]
        crossed = np.flatnonzero(squares - np.uint8(1) < 14)  # neither 0, which becomes 255, nor 15
        cases.append(squares.ravel()[crossed])
        numbers.append(crossed + first * (mask.shape[1] - 1))
    return np.concatenate(numbers), np.concatenate(cases)
