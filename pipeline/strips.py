"""Passes over a full image, strip by strip: what they make on the way stays in the processor's cache, and no second image is held. Pure.

The results are those of one pass over the whole image, to the last bit: a sum of integers has no order, and a resize goes along one
direction first, each line by itself.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

Grey = TypeVar("Grey", np.uint8, np.float32)

#: Pixels of a strip that is looked up and resized: with 8 bytes of index each it fits into the second cache.
_RESIZED = 1 << 17
#: The same of a strip of columns: more, as each of its lines is a place of its own in memory.
_UPRIGHT = 1 << 19
#: Pixels of a strip that is counted: more, as a table of counts is added for each.
_COUNTED = 1 << 19


def patterns_of(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Stored values as unsigned bit patterns: the index into a table with one entry per value of the dtype."""
    return pixels.view(np.dtype(f"u{pixels.dtype.itemsize}"))


def all_values(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Every value of the dtype (8 or 16 bits), in the order of the bit patterns."""
    return np.arange(1 << (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(np.dtype(f"{dtype.kind}{dtype.itemsize}"))


def value_counts(pixels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """How often each value of the dtype occurs, in the order of `all_values`."""
    counts = np.zeros(1 << (8 * pixels.dtype.itemsize), np.int64)
    patterns, step = patterns_of(pixels), max(1, _COUNTED // pixels.shape[1])
    for first in range(0, pixels.shape[0], step):
        counts += np.bincount(patterns[first : first + step].ravel(), minlength=counts.size)
    return counts


def shown(table: npt.NDArray[Grey], patterns: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[Grey]:
    """`table[patterns]`, resized to (rows, columns) by Pillow's BILINEAR. `patterns` are not negative and less than the table's size."""
    high, wide = patterns.shape
    if patterns.size <= _RESIZED or rows >= high or columns >= wide:
        return _resized(_looked_up(table, patterns), rows, columns)
    # Pillow resizes one direction after the other, and the last bit depends on which comes first: this is its rule.
    if high - rows > 2 * (wide - columns):
        low = np.empty((rows, wide), table.dtype)
        step = max(1, _UPRIGHT // high)
        for first in range(0, wide, step):
            strip = patterns[:, first : first + step]
            low[:, first : first + step] = _resized(_looked_up(table, strip), rows, strip.shape[1])
        return _resized(low, rows, columns)
    narrow = np.empty((high, columns), table.dtype)
    step = max(1, _RESIZED // wide)
    for first in range(0, high, step):
        strip = patterns[first : first + step]
        narrow[first : first + step] = _resized(_looked_up(table, strip), strip.shape[0], columns)
    return _resized(narrow, rows, columns)


def _looked_up(table: npt.NDArray[Grey], patterns: npt.NDArray[Any]) -> npt.NDArray[Grey]:
    grey = np.empty(patterns.shape, table.dtype)
    np.take(table, patterns, out=grey, mode="clip")  # "raise" would make a copy first
    return grey


def _resized(grey: npt.NDArray[Grey], rows: int, columns: int) -> npt.NDArray[Grey]:
    return np.asarray(Image.fromarray(grey).resize((columns, rows), Image.Resampling.BILINEAR))
