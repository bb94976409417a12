"""Whether there is a picture in stored values at all, and enough of its bits. Pure."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

UNIFORM = "The image is uniform: there is nothing in it to read."


def depth_warnings(pixels: npt.NDArray[Any]) -> tuple[str, ...]:
    """Sentences for the reader of a result about what stored values can hold at most."""
    warnings = []
    if pixels.dtype.itemsize == 1:
        warnings.append("The image has 8 bits per pixel or fewer; mammograms have 10 to 16.")
    if uniform(pixels):
        warnings.append(UNIFORM)
    return tuple(warnings)


def uniform(pixels: npt.NDArray[Any]) -> bool:
    """Whether stored values `pixels` (rows, columns) hold no picture: one value throughout, or a single line: nothing to score."""
    if min(pixels.shape) == 1:
        return True
    if (pixels[pixels.shape[0] // 2] != pixels[0, 0]).any():  # most images show it in one line
        return False
    return bool(pixels.min() == pixels.max())
