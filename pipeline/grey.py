"""Stored value -> the grey that a person is shown: padding (PS3.3 C.7.5.1.1.2), Modality LUT (C.11.1), VOI LUT (C.11.2), polarity. Pure.

There are at most 65,536 stored values, so the whole chain is computed once per value, not per pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pipeline.model_image import FloatImage
from pipeline.strips import all_values, patterns_of, value_counts
from store.header_text import items_of, value_of


def grey_table(pixels: npt.NDArray[Any], ds: Dataset) -> tuple[FloatImage, tuple[str, ...]]:
    """For each bit pattern of a stored value its grey, float32 0...1, bright = dense; and what was odd about the header."""
    warnings: list[str] = []
    stored = all_values(pixels.dtype)
    padding = padding_of(stored, ds)
    units = modality(stored, ds, warnings)
    grey = _voi(units, ds, warnings)
    if grey is None:
        grey = _full_range(units, _held(pixels, units, padding))
    photometric = value_of(ds, "PhotometricInterpretation")
    if photometric == "MONOCHROME1":
        grey = 1.0 - grey
    elif photometric != "MONOCHROME2":
        warnings.append("Photometric Interpretation is neither MONOCHROME1 nor MONOCHROME2: shown as MONOCHROME2.")
    elif value_of(ds, "PresentationLUTShape") == "INVERSE":
        warnings.append("Presentation LUT Shape INVERSE contradicts MONOCHROME2: shown as MONOCHROME2.")
    grey[padding] = 0.0  # black also where polarity would have made it a bright frame
    return grey.astype(np.float32), tuple(warnings)


def _present(ds: Dataset, keyword: str) -> bool:
    """Whether an attribute has a value, be it malformed: looked at without converting it."""
    value = ds.get_item(keyword).value if keyword in ds else None
    return value not in (None, "", b"") and not (isinstance(value, Sequence) and not value)


def _numbers(ds: Dataset, keyword: str) -> tuple[float, ...]:
    """The finite numbers of an attribute of one or several values; empty when it is absent, empty or not a number."""
    value = value_of(ds, keyword)
    try:
        values = () if value is None or value == "" else value if hasattr(value, "__iter__") and not isinstance(value, str) else (value,)
        numbers = tuple(float(item) for item in values)
    except (TypeError, ValueError, OverflowError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def padding_of(stored: npt.NDArray[Any], ds: Dataset) -> npt.NDArray[np.bool_]:
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


def modality(stored: npt.NDArray[Any], ds: Dataset, warnings: list[str]) -> npt.NDArray[np.float64]:
    """Modality LUT Sequence, or Rescale Slope and Intercept, or nothing (PS3.3 C.11.1)."""
    units: npt.NDArray[np.float64] = stored.astype(np.float64)
    if _present(ds, "ModalityLUTSequence"):
        looked_up = lookup(units, ds, "ModalityLUTSequence")
        if looked_up is not None:
            return looked_up[0]
        warnings.append("The Modality LUT is not readable and was left out.")
    slope, intercept = _numbers(ds, "RescaleSlope"), _numbers(ds, "RescaleIntercept")
    if slope and slope[0] == 0:
        warnings.append("Rescale Slope is zero and was left out.")
        return units
    return units * (slope[0] if slope else 1.0) + (intercept[0] if intercept else 0.0)


def lookup(values: npt.NDArray[np.float64], ds: Dataset, keyword: str) -> tuple[npt.NDArray[np.float64], int] | None:
    """`values` through the LUT in a sequence's first item, and the largest output it may have; None without one or for a malformed one."""
    items = items_of(ds, keyword)
    descriptor, data = (_numbers(items[0], "LUTDescriptor"), value_of(items[0], "LUTData")) if items else ((), None)
    if len(descriptor) != 3 or data is None:
        return None
    entries, first, bits = int(descriptor[0]) or 65536, int(descriptor[1]), int(descriptor[2])
    if isinstance(data, bytes):
        entry_bytes = 1 if len(data) < 2 * entries else 2
        data = np.frombuffer(data, np.dtype(f"<u{entry_bytes}"), len(data) // entry_bytes)
    try:
        outputs = np.atleast_1d(np.asarray(data, np.float64))[:entries]
    except (TypeError, ValueError):
        return None
    if outputs.ndim != 1 or not 1 <= entries <= outputs.size or not 1 <= bits <= 16 or not np.isfinite(outputs).all():
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
    if _present(ds, "VOILUTSequence"):
        looked_up = lookup(units, ds, "VOILUTSequence")
        if looked_up is not None and looked_up[1] > 0:
            return looked_up[0] / looked_up[1]
        warnings.append("The VOI LUT is not readable and was left out.")
    if not _present(ds, "WindowCenter") and not _present(ds, "WindowWidth"):
        return None
    center, width = _numbers(ds, "WindowCenter"), _numbers(ds, "WindowWidth")
    function = str(value_of(ds, "VOILUTFunction") or "LINEAR")
    if function not in _WINDOWS:
        warnings.append("VOI LUT Function is unknown: LINEAR was used.")
        function = "LINEAR"
    formula, smallest = _WINDOWS[function]
    if not center or not width or width[0] <= 0 or width[0] < smallest:
        warnings.append("The window in the header is not usable: the full range of the pixels was used.")
        return None
    return formula(units, center[0], width[0])


def _held(pixels: npt.NDArray[Any], units: npt.NDArray[np.float64], padding: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Of `units`, which has one for each bit pattern, those that occur in `pixels` outside padding, or at least the two ends of them."""
    ends = patterns_of(np.array([pixels.min(), pixels.max()], pixels.dtype))
    if not padding[ends].any() and _in_order(units, pixels.dtype):
        held: npt.NDArray[np.float64] = units[ends]  # what lies between has its units between theirs: nothing need be counted
    else:
        held = units[(value_counts(pixels) > 0) & ~padding]
    return held


def _in_order(units: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> bool:
    """Whether `units`, which has one for each bit pattern, only rises or only falls with the stored value."""
    steps = np.diff(np.roll(units, units.size // 2) if dtype.kind == "i" else units)
    return bool((steps >= 0).all() or (steps <= 0).all())


def _full_range(units: npt.NDArray[np.float64], held: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Smallest to largest of `held` becomes 0...1; zero throughout when there is only one."""
    if not held.size:
        return np.zeros_like(units)
    low, high = float(held.min()), float(held.max())
    if low == high:
        return np.zeros_like(units)
    return np.clip((units - low) / (high - low), 0.0, 1.0)
