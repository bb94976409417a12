"""What a model sees, and the way from its pixels to those of the image that it was made from. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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


def letterbox(box: Box, size: int) -> Geometry:
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
        return Geometry(self.box, (0, 0, size, size)) if self.stretched else letterbox(self.box, size)
