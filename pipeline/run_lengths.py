"""RLE Lossless, the usual case in a third of the time (PS3.5 Annex G). Runs in the decoding child.

pylibjpeg-rle decodes a segment fast, but panics on some malformed ones, and its way of decoding a whole frame accepts frames that lack
pixels. So it is given one segment after the other, and what comes of it counts only when it is as long as the image: of everything else
pydicom's own decoder, which is slow and strict, says what it is.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

try:
    from rle.rle import decode_segment  # type: ignore[import-not-found]
except ImportError:
    decode_segment = None

_HEADER = struct.Struct("<16L")


def decoded(frame: bytes, rows: int, columns: int, bytes_per_cell: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | None:
    """Cells of a frame, (rows, columns), uint8 or little-endian uint16 by `bytes_per_cell`; None when it is not plainly such a frame."""
    if decode_segment is None or len(frame) < _HEADER.size:
        return None
    count, *offsets = _HEADER.unpack_from(frame)
    if count != bytes_per_cell:
        return None
    ends = [*offsets[1:count], len(frame)]
    planes = np.empty((rows * columns, bytes_per_cell), np.uint8)
    for number, (first, beyond) in enumerate(zip(offsets, ends, strict=False)):
        if not _HEADER.size <= first < beyond <= len(frame):
            return None
        try:
            segment = decode_segment(frame[first:beyond])
        except MemoryError:
            raise
        except BaseException:  # noqa: BLE001 - PanicException of a Rust extension is no Exception
            return None
        if len(segment) != rows * columns:
            return None
        planes[:, bytes_per_cell - 1 - number] = np.frombuffer(segment, np.uint8)  # the first segment has the highest bits
    return planes.view("u1" if bytes_per_cell == 1 else "<u2").reshape(rows, columns)
