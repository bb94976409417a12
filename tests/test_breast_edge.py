"""pipeline/breast.py, breast_edge: the side at which the breast lies, read from the pixels; the wrong one never."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom import dcmread

from listener.demo_exams import Source, repaired
from pipeline.pixels import breast_edge
from store.study import View
from tests.mammograms_made import breast_pixels, mammogram
from tests.test_pixels import (
    CASES,
    CC,
    DRAWINGS,
    MALFORMED,
    MLO,
    REAL,
    Drawing,
    drawings,
    header,
    inverse_header,
    lut,
    malformed,
    pixels_of,
)

LAWS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

OTHER = {"left": "right", "right": "left", "": ""}


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", DRAWINGS)
def test_the_edge_of_a_drawn_breast(name: str, side: str, inverse: bool, bits: int) -> None:
    stored = DRAWINGS[name].stored(bits=bits, side=side, inverse=inverse)
    assert breast_edge(stored, inverse_header() if inverse else header()) == side


@pytest.mark.parametrize(
    ("view", "rows", "columns"),
    [*((view, rows, columns) for view in View for rows, columns in ((256, 200), (480, 480), (64, 48))), (View.R_MLO, 3328, 2560)],
)
def test_the_edge_in_the_made_mammograms(view: View, rows: int, columns: int) -> None:
    assert breast_edge(breast_pixels(view, rows=rows, columns=columns), mammogram(view)) == ("left" if view.laterality == "L" else "right")


@pytest.mark.parametrize("name", REAL)
def test_the_edge_on_real_films(name: str) -> None:
    """All eight films, rims, letters and glow along their edges included, answer the side at which they hang; none is ambiguous."""
    folder = name.split("/")[0]
    ds = repaired(Source(dcmread(CASES / name), folder, 1))
    expected = {"L": "left", "R": "right"}[ds.ImageLaterality]
    stored = pixels_of(name)
    assert breast_edge(stored, ds) == expected
    assert breast_edge(np.ascontiguousarray(stored[:, ::-1]), ds) == OTHER[expected]
    assert breast_edge((65535 - stored).astype(np.uint16), inverse_header()) == expected


@pytest.mark.parametrize("name", REAL)
def test_a_film_under_the_wrong_polarity_answers_nothing(name: str) -> None:
    assert breast_edge(pixels_of(name), inverse_header()) == ""


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_drawing_under_the_wrong_polarity_never_answers_the_wrong_edge(name: str, side: str) -> None:
    assert breast_edge(DRAWINGS[name].stored(side=side), inverse_header()) != OTHER[side]
    assert breast_edge(DRAWINGS[name].stored(side=side, inverse=True), header()) != OTHER[side]


# ---- what the header says of the stored values ----


@pytest.mark.parametrize(
    "overrides",
    [
        {"WindowCenter": "2048", "WindowWidth": "4096"},
        {"WindowCenter": "60000", "WindowWidth": "2"},
        {"WindowCenter": "-5", "WindowWidth": "1"},
        {"WindowCenter": ["900", "5"], "WindowWidth": ["500", "1"], "VOILUTFunction": "SIGMOID"},
        {"RescaleSlope": "2", "RescaleIntercept": "-300"},
        {"RescaleSlope": "0"},
    ],
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_no_window_and_no_rescaling_changes_the_answer(overrides: dict[str, Any], side: str) -> None:
    assert breast_edge(MLO.stored(side=side), header(**overrides)) == side


@pytest.mark.parametrize(
    "overrides",
    [
        {"RescaleSlope": "-1", "RescaleIntercept": "4095"},
        {"ModalityLUTSequence": [lut([4096, 0, 12], list(range(4095, -1, -1)))]},
        {"VOILUTSequence": [lut([4096, 0, 12], list(range(4095, -1, -1)))]},
    ],
)
def test_a_table_in_the_header_that_turns_the_grey_round_is_followed(overrides: dict[str, Any]) -> None:
    assert breast_edge(CC.stored(inverse=True), header(**overrides)) == "left"


@pytest.mark.parametrize(("padding", "limit"), [(4095, None), (3000, 4095), (65535, None), (4095, 3000)])
def test_padding_is_background_whatever_its_value(padding: int, limit: int | None) -> None:
    stored = (MLO.stored() // 2).astype(np.uint16)
    stored[:, 220:] = padding
    ds = header(PixelPaddingValue=padding, PixelPaddingRangeLimit=limit)
    assert breast_edge(stored, ds) == "left"
    assert breast_edge(np.ascontiguousarray(stored[:, ::-1]), ds) == "right"


@pytest.mark.parametrize("name", ["CC", "MLO with the pectoral muscle", "implant", "MLO of a large breast"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("padding", [0, 4095])
def test_air_that_is_all_padding_changes_nothing(name: str, side: str, inverse: bool, padding: int) -> None:
    stored = DRAWINGS[name].stored(side=side, inverse=inverse)
    stored[abs(stored.astype(int) - (4095 if inverse else 0)) < 0.08 * 4095] = padding
    ds = inverse_header(PixelPaddingValue=padding) if inverse else header(PixelPaddingValue=padding)
    assert breast_edge(stored, ds) == side


def test_signed_values_are_signed() -> None:
    assert breast_edge((CC.stored().astype(np.int32) - 2048).astype(np.int16), header(PixelRepresentation=1)) == "left"


# ---- nothing, where nothing is plain ----


def block(top: int, bottom: int, left: int, right: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    pixels = np.zeros((416, 320), np.uint16)
    pixels[top:bottom, left:right] = 3000
    return pixels


def ambiguous() -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    y, x = np.mgrid[0:416, 0:320]
    both = np.maximum(replace(CC, depth=0.4).stored(), replace(CC, depth=0.4).stored(side="right"))
    return {
        "black": np.zeros((416, 320), np.uint16),
        "white": np.full((416, 320), 4095, np.uint16),
        "one pixel": np.zeros((1, 1), np.uint16),
        "one row": np.arange(900, dtype=np.uint16)[np.newaxis],
        "one column": np.arange(900, dtype=np.uint16)[:, np.newaxis],
        "two by two": np.array([[0, 9], [0, 9]], np.uint16),
        "noise": np.random.default_rng(1).integers(0, 4096, (416, 320)).astype(np.uint16),
        "a block in the middle": block(120, 300, 90, 230),
        "a block that nearly fills the image": block(10, 406, 10, 310),
        "a block at the left edge": block(120, 300, 0, 150),
        "a block over the whole height": block(0, 416, 0, 150),
        "a block with cut corners": np.where((x < 150) & (abs(y - 208) < 108) & (x + 4 * abs(y - 208) < 512), 3000, 0).astype(np.uint16),
        "a finger at the edge": np.where(((y - 208) / 38) ** 2 + (x / 100) ** 2 < 1, 3000, 0).astype(np.uint16),
        "a tongue to the other edge": np.where(abs(y - 208) * 1.5 + x * 0.4 < 150, 3000, 0).astype(np.uint16),
        "a wedge in a corner": np.where(x * 416 + y * 200 < 200 * 416, 3000, 0).astype(np.uint16),
        "a bright half": block(0, 416, 160, 320),
        "a bright strip": block(0, 416, 0, 20),
        "a disk in the middle": np.where((y - 208) ** 2 + (x - 160) ** 2 < 90**2, 2000, 0).astype(np.uint16),
        "a collimated disk that touches an edge": np.where((y - 208) ** 2 + (x - 85) ** 2 < 90**2, 2000, 0).astype(np.uint16),
        "a ramp to the right": (x * 12).astype(np.uint16),
        "a ramp downwards": (y * 9).astype(np.uint16),
        "a checkerboard": ((x // 20 + y // 20) % 2 * 3000).astype(np.uint16),
        "both breasts on one image": both,
        "breast over the whole width": Drawing(depth=1.6, height=1.6).stored(),
        "letters alone": replace(CC, skin=0, depth=0.001, height=0.001, letters=True).stored(),
        "rim alone": replace(CC, skin=0, depth=0.001, height=0.001, rim=0.02).stored(),
    }


AMBIGUOUS = ambiguous()


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_is_not_plain_is_not_answered(name: str) -> None:
    pixels = AMBIGUOUS[name]
    for ds in (header(), inverse_header()):
        assert breast_edge(pixels, ds) == ""
        assert breast_edge(np.ascontiguousarray(pixels[:, ::-1]), ds) == ""


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422", "PALETTE COLOR", "", None])
def test_without_polarity_there_is_no_answer(photometric: str | None) -> None:
    assert breast_edge(CC.stored(), header(PhotometricInterpretation=photometric)) == ""


def test_an_image_of_nothing_but_padding_has_no_answer() -> None:
    assert breast_edge(CC.stored(), header(PixelPaddingValue=0, PixelPaddingRangeLimit=4095)) == ""


@pytest.mark.parametrize("keyword", ["PixelPaddingValue", "RescaleSlope", "WindowCenter"])
def test_a_malformed_header_does_not_stop_it(keyword: str) -> None:
    assert breast_edge(CC.stored(), malformed({keyword: MALFORMED})) == "left"


# ---- laws ----


@settings(LAWS, max_examples=200)
@given(drawings, st.sampled_from([8, 10, 12, 14, 16]), st.booleans(), st.booleans())
def test_the_wrong_edge_is_never_answered_even_under_the_wrong_polarity(drawing: Drawing, bits: int, inverse: bool, said: bool) -> None:
    assert breast_edge(drawing.stored(bits=bits, inverse=inverse), inverse_header() if said else header()) != "right"


@LAWS
@given(drawings, st.booleans())
def test_the_mirrored_image_answers_the_mirrored_edge(drawing: Drawing, said: bool) -> None:
    ds = inverse_header() if said else header()
    assert breast_edge(drawing.stored(side="right"), ds) == OTHER[breast_edge(drawing.stored(), ds)]


@LAWS
@given(drawings, st.sampled_from([8, 10, 12, 16]))
def test_polarity_does_not_matter_when_the_header_goes_with_it(drawing: Drawing, bits: int) -> None:
    upright, inverse = drawing.stored(bits=bits), drawing.stored(bits=bits, inverse=True)
    assert breast_edge(inverse, inverse_header()) == breast_edge(upright, header())


@LAWS
@given(drawings, st.integers(1, 16), st.integers(0, 4000), st.booleans())
def test_scale_and_offset_do_not_matter(drawing: Drawing, factor: int, offset: int, said: bool) -> None:
    ds = inverse_header() if said else header()
    stored = drawing.stored(bits=10)
    scaled = (stored.astype(np.int64) * factor + offset).astype(np.uint16)
    assert scaled.max() == stored.max() * factor + offset
    assert breast_edge(scaled, ds) == breast_edge(stored, ds)


@LAWS
@given(hnp.arrays(st.sampled_from(["u1", "<u2", "<i2"]), hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=60)))
def test_any_pixels_have_an_answer_and_their_mirror_the_other(pixels: Any) -> None:
    answer = breast_edge(pixels, header())
    assert answer in ("left", "right", "")
    assert breast_edge(np.ascontiguousarray(pixels[:, ::-1]), header()) == OTHER[answer]
