"""Otsu's threshold of a histogram. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_otsu


def otsu(counts: npt.NDArray[Any], centers: npt.NDArray[Any]) -> float:
    """The center that parts `counts` best in two; counts with one entry that is not zero give that one's."""
    held = np.flatnonzero(counts)
    if held.size == 1:  # scikit-image looks for a place between two
        return float(centers[held[0]])
    return float(threshold_otsu(hist=(counts, centers)))  # type: ignore[no-untyped-call]
