"""pipeline/run_lengths.py: what it decodes is what pydicom's own decoder gives, and what is malformed is left to that one."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom.pixels.decoders.rle import _rle_decode_frame
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import RLELossless

from pipeline.run_lengths import decoded

FAST = settings(deadline=None, max_examples=60)
images = hnp.arrays(
    st.sampled_from(["u1", "<u2"]), hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24), elements=st.integers(0, 5)
) | hnp.arrays(st.sampled_from(["u1", "<u2"]), hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


def encoded(pixels: np.ndarray[Any, Any]) -> bytes:
    """The frame as pydicom encodes it."""
    encoder = get_encoder(RLELossless)
    bits = 8 * pixels.dtype.itemsize
    return encoder.encode(
        pixels,
        encoding_plugin="pydicom",
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        samples_per_pixel=1,
        bits_allocated=bits,
        bits_stored=bits,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        number_of_frames=1,
    )


@FAST
@given(images)
def test_a_sound_frame_is_decoded(pixels: Any) -> None:
    found = decoded(encoded(pixels), *pixels.shape, pixels.dtype.itemsize)
    assert found is not None
    assert found.dtype == pixels.dtype
    assert np.array_equal(found, pixels)


changes = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "delete", "cut"]), st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4
)


def changed(frame: bytes, how: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(frame)
    for what, at, value in how:
        place = at % (len(data) + 1)
        if what == "set" and place < len(data):
            data[place] = value
        elif what == "insert":
            data[place:place] = bytes([value]) * (1 + at % 3)
        elif what == "delete":
            del data[place : place + 1 + at % 5]
        elif what == "cut" and place >= 64:
            del data[place:]
    return bytes(data)


@settings(deadline=None, max_examples=200)
@given(images, changes)
def test_of_a_damaged_frame_it_gives_what_pydicom_gives_or_nothing(pixels: Any, how: Any) -> None:
    frame = changed(encoded(pixels), how)
    found = decoded(frame, *pixels.shape, pixels.dtype.itemsize)
    if found is not None:
        plain = _rle_decode_frame(frame, *pixels.shape, 1, 8 * pixels.dtype.itemsize)
        assert found.tobytes() == bytes(plain)


@pytest.mark.parametrize(
    "segment",
    [
        pytest.param(bytes([0x81, 0]), id="too short"),
        pytest.param(bytes([0x81, 0]) * 3, id="too long"),
        pytest.param(bytes([0x81, 0, 0x81]), id="a run without its byte"),
        pytest.param(bytes([0x7F, 1, 2]), id="bytes that are missing"),
        pytest.param(b"", id="empty"),
    ],
)
def test_what_is_not_as_long_as_the_image_is_left_to_the_strict_decoder(segment: bytes) -> None:
    header = struct.pack("<16L", 1, 64, *[0] * 14)
    assert decoded(header + segment, 16, 16, 1) is None
    assert decoded(header + bytes([0x81, 0]) * 2, 16, 16, 1) is not None
    assert decoded(header + bytes([0x81, 0]) * 2, 16, 16, 2) is None  # of another depth
    assert decoded(header[:40], 16, 16, 1) is None
