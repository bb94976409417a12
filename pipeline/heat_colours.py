"""Colours for a heat map: an explanation of a score, never a mark (PS3.16 CID 7180, class activation). No location of a finding is claimed.

The colours are those of "inferno" (matplotlib, CC0): lightness rises evenly with the value, also for readers who are colour-blind and on a
grey print. Where the network did not respond, nothing is drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

#: Red, green and blue at ten evenly spaced values from 0 to 1; linear between them.
_STEPS = (
    (0, 0, 4),
    (27, 12, 65),
    (74, 12, 107),
    (120, 28, 109),
    (165, 44, 96),
    (207, 68, 70),
    (237, 105, 37),
    (251, 155, 6),
    (247, 209, 61),
    (252, 255, 164),
)
#: uint8 (256, 3): the colour of each value.
COLOURS: Bytes = np.stack(
    [np.interp(np.linspace(0, len(_STEPS) - 1, 256), range(len(_STEPS)), channel) for channel in zip(*_STEPS, strict=True)], axis=1
).round()
COLOURS = COLOURS.astype(np.uint8)

#: How much of the picture the strongest response hides.
STRONGEST_COVER = 0.7


def in_view(heat_map: Floats, box: tuple[int, int, int, int], *, rows: int, columns: int, shape: tuple[int, int]) -> Bytes:
    """The responses as uint8 (`shape`), over a picture of that shape of the whole image of `rows` x `columns`; 0 outside `box`.

    `heat_map`: (h, w) of any size, 0...1, over `box` (x_min, y_min, x_max, y_max in image pixels, upper bounds exclusive).
    Raises ValueError when it is not that, or when the box does not lie in the image.
    """
    if heat_map.ndim != 2 or not heat_map.size or not bool(((heat_map >= 0) & (heat_map <= 1)).all()):
        raise ValueError("a heat map has two dimensions and values of 0 to 1")
    x_min, y_min, x_max, y_max = box
    if not (0 <= x_min < x_max <= columns and 0 <= y_min < y_max <= rows):
        raise ValueError(f"the box {box} does not lie in an image of {rows} rows and {columns} columns")
    across, down = shape[1] / columns, shape[0] / rows
    left, top = min(round(x_min * across), shape[1] - 1), min(round(y_min * down), shape[0] - 1)
    right, bottom = max(round(x_max * across), left + 1), max(round(y_max * down), top + 1)
    levels = Image.fromarray(np.rint(heat_map * 255).astype(np.uint8))
    whole = np.zeros(shape, dtype=np.uint8)
    whole[top:bottom, left:right] = np.asarray(levels.resize((right - left, bottom - top), Image.Resampling.BICUBIC))
    return whole


def heat_map_picture(picture: Bytes, heat_map: Floats, box: tuple[int, int, int, int], rows: int, columns: int) -> Bytes:
    """The heat map coloured over a view's `picture` (any size, the whole image), uint8 (picture's rows, picture's columns, 3).

    `heat_map`: (h, w), 0...1, over `box` of an image of `rows` x `columns`, as for `in_view`, with its errors. The stronger the response,
    the less of the picture is seen; where there is none the picture is unchanged.
    """
    height, width = picture.shape
    responses = in_view(heat_map, box, rows=rows, columns=columns, shape=(height, width))
    cover = (responses / 255 * STRONGEST_COVER)[..., np.newaxis]
    mixed = picture[..., np.newaxis] * (1 - cover) + COLOURS[responses] * cover
    return np.rint(mixed).astype(np.uint8)
