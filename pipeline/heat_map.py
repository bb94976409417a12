"""A heat map laid over the part of an image that the model saw. Pure. For a picture beside a view; it marks nothing and claims no place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.pixels import ModelImage


def over_box(heat_map: npt.NDArray[np.float32], image: ModelImage) -> npt.NDArray[np.float32]:
    """The heat map as large as the crop is in the model's square, float32 (rows, columns), 0...1: it covers `image.box`, nothing else.

    `heat_map` is what `Classifier.read` gave for `image`. Stretch the result over the box to lay it on the image. Bilinear; beyond the
    middle of the outermost cells their value holds. Each halving of the network keeps every second position from the first on, so cell i
    looks at the square around pixel i * step, not around the middle of the i-th step.
    """
    size = image.grey.shape[0]
    left, top, right, bottom = image.geometry.target
    down = _weights(heat_map.shape[0], size, top, bottom)
    across = _weights(heat_map.shape[1], size, left, right)
    return np.clip(down @ heat_map.astype(np.float64) @ across.T, 0.0, 1.0).astype(np.float32)


def _weights(cells: int, size: int, first: int, beyond: int) -> npt.NDArray[np.float64]:
    """How much each cell counts for each pixel from `first` up to `beyond`: (pixels, cells), rows sum to 1."""
    position = np.minimum(np.arange(first, beyond) * cells / size, cells - 1)
    distance: npt.NDArray[np.float64] = np.abs(position[:, None] - np.arange(cells))
    return np.maximum(0.0, 1.0 - distance)
