"""What a compressed frame says of its own size, read without decoding it: that, not Rows and Columns, drives what a decoder allocates.

JPEG (ISO 10918-1 B.2.2), JPEG-LS (ISO 14495-1 C.2.2), JPEG 2000 and its High-Throughput form (ISO 15444-1 A.5.1). RLE says nothing. Pure,
and nothing that a stranger writes raises: what has no readable header has no size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydicom import uid


@dataclass(frozen=True)
class Size:
    """What a codestream says of itself; `precision` in bits."""

    rows: int
    columns: int
    components: int
    precision: int


_SOF_MARKERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})  # 0xF7: SOF55 of JPEG-LS


def jpeg_size(stream: bytes) -> Size | None:
    """From the frame header of JPEG or JPEG-LS; None when it cannot be found."""
    position = 2
    while stream[:2] == b"\xff\xd8" and position + 10 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:
            position += 1  # fill byte
        elif marker in _SOF_MARKERS:
            precision, rows, columns, components = struct.unpack_from(">BHHB", stream, position + 4)
            return Size(rows, columns, components, precision)
        else:
            position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    return None


def jpeg2000_size(stream: bytes) -> Size | None:
    """From SIZ, which comes first in a codestream; None when it does not."""
    start = _jpeg2000_start(stream)
    if not stream.startswith(b"\xff\x4f\xff\x51", start) or start + 43 > len(stream):
        return None
    right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
    (components,) = struct.unpack_from(">H", stream, start + 40)
    return Size(bottom - top, right - left, components, (stream[start + 42] & 0x7F) + 1)


def _jpeg2000_start(stream: bytes) -> int:
    """Where the codestream begins, which may wrongly lie in a JP2 file: found box by box (ISO 15444-1 I.4) as decoders do, since any other
    box may hold what looks like one."""
    position = 0
    while position + 16 <= len(stream) and not stream.startswith(b"\xff\x4f", position):
        length, kind, long_length = struct.unpack_from(">I4sQ", stream, position)
        header = 16 if length == 1 else 8
        if kind == b"jp2c":
            return position + header
        if (size := long_length if length == 1 else length) < header:
            return len(stream)
        position += size
    return position


#: Transfer syntax UID -> what reads the size of its codestreams.
SIZE: Mapping[str, Callable[[bytes], Size | None]] = {
    **dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1), jpeg_size),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), jpeg_size),
    **dict.fromkeys((uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K), jpeg2000_size),
}
