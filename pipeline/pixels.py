"""Stored values and header -> the square grey image that a model sees, with the box it was cut from. Pure.

Two profiles. `presentation` shows the model what the Standard says a person is shown: padding, Modality LUT (PS3.3 C.11.1), VOI LUT
(C.11.2), polarity (C.7.6.3.1.2), then the breast alone, its aspect kept. `reference` repeats the system that Fourview replaces number
for number, faults included, for checkpoints that were trained behind it; nothing there may be repaired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from pipeline.breast import breast_box, breast_edge
from pipeline.grey import grey_table, padding_of
from pipeline.model_image import Box, Geometry, ModelImage, letterbox
from pipeline.reference_profile import reference
from pipeline.strips import all_values, patterns_of, shown
from pipeline.uniform import UNIFORM, depth_warnings, uniform

__all__ = ["PROFILES", "UNIFORM", "Box", "Geometry", "ModelImage", "breast_edge", "prepare", "preview", "uniform"]


def prepare(pixels: npt.NDArray[Any], ds: Dataset, *, profile: str, size: int = 512) -> ModelImage:
    """The model's image of the stored values `pixels` (rows, columns; uint8, uint16 or int16) with header `ds`.

    `profile` is "presentation" or "reference", `size` the side of the result in pixels. Raises KeyError for another profile. Pixels
    without a picture in them (one value throughout, or one row) give the whole image as box and a warning.
    """
    return PROFILES[profile](pixels, ds, size)


def _presentation(pixels: npt.NDArray[Any], ds: Dataset, size: int) -> ModelImage:
    table, table_warnings = grey_table(pixels, ds)
    patterns = patterns_of(pixels)
    found = breast_box(patterns, table, padding_of(all_values(pixels.dtype), ds))
    warnings = [*depth_warnings(pixels), *table_warnings]
    if found is None:
        warnings.append("No breast outline was found: the whole image was analysed.")
        box, threshold = (0, 0, pixels.shape[1], pixels.shape[0]), 0.0
    else:
        box, threshold = found
    x_min, y_min, x_max, y_max = box
    left, top, right, bottom = letterbox(box, size).target
    grey = np.zeros((size, size), np.float32)
    inner = shown(table, patterns[y_min:y_max, x_min:x_max], bottom - top, right - left)
    grey[top:bottom, left:right] = np.clip(inner, 0.0, 1.0)
    return ModelImage(grey, box, threshold, tuple(warnings))


def preview(pixels: npt.NDArray[Any], ds: Dataset, *, max_rows: int = 1024) -> npt.NDArray[np.uint8]:
    """The whole image as a person is shown it: uint8 (rows, columns), bright = dense, at most `max_rows` rows, aspect kept."""
    table, _ = grey_table(pixels, ds)
    rows, columns = pixels.shape
    if rows > max_rows:
        rows, columns = max_rows, max(1, round(columns * max_rows / rows))
    return shown(np.round(table * 255).astype(np.uint8), patterns_of(pixels), rows, columns)


#: Name in a model card -> what it does.
PROFILES: Mapping[str, Callable[[npt.NDArray[Any], Dataset, int], ModelImage]] = {"presentation": _presentation, "reference": reference}
