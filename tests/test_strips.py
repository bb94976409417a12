"""The fast passes over an image give what plain ones give: every value and bit of it."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage
from skimage.measure import find_contours

from pipeline import breast, grey, reference_profile, strips
from pipeline.pixels import uniform
from pipeline.strips import all_values, patterns_of, shown, value_counts
from tests.test_pixels import header, lut

images = hnp.arrays(st.sampled_from(["u1", "<u2", "<i2"]), hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30))
masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
FAST = settings(deadline=None, max_examples=60)


@FAST
@given(images)
def test_values_are_counted_strip_by_strip_as_at_once(pixels: Any) -> None:
    with patch.object(strips, "_COUNTED", 50):
        counts = value_counts(pixels)
    values, expected = np.unique(pixels, return_counts=True)
    assert counts.sum() == pixels.size
    assert np.array_equal(counts[patterns_of(values)], expected)


@FAST
@given(st.integers(2, 70), st.integers(2, 70), st.data(), st.sampled_from([np.uint8, np.float32]), st.integers(0, 9))
def test_an_image_is_resized_strip_by_strip_as_at_once(high: int, wide: int, data: Any, dtype: Any, seed: int) -> None:
    """Pillow decides by the sizes which direction comes first: another rule there would show here."""
    rows, columns = data.draw(st.integers(1, high)), data.draw(st.integers(1, wide))
    random = np.random.default_rng(seed)
    table = (random.random(65536) * 255).astype(dtype)
    patterns = random.integers(0, 65536, (high, wide + 3)).astype(np.uint16)[:, 2:-1]
    with patch.object(strips, "_RESIZED", 60), patch.object(strips, "_UPRIGHT", 90):
        small = shown(table, patterns, rows, columns)
    plain = np.asarray(Image.fromarray(table[patterns]).resize((columns, rows), Image.Resampling.BILINEAR))
    assert small.dtype == plain.dtype
    assert np.array_equal(small, plain)


@FAST
@given(masks, st.floats(0, 13))
def test_what_is_near_a_mask_is_near_by_euclids_distance(mask: Any, radius: float) -> None:
    near = breast._near(mask, radius)
    if mask.any():
        assert np.array_equal(near, ndimage.distance_transform_edt(~mask) <= radius)
    else:
        assert not near.any()


@pytest.mark.parametrize("radius", [5.0, 5.0 - 1e-9, 12.0, 0.03 * 416, np.sqrt(2), np.sqrt(2) - 1e-9])
def test_a_place_exactly_at_the_radius_is_near(radius: float) -> None:
    mask = np.zeros((33, 41), np.bool_)
    mask[16, 20] = True
    assert np.array_equal(breast._near(mask, radius), ndimage.distance_transform_edt(~mask) <= radius)


@FAST
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=20)), st.integers(1, 6))
def test_the_outline_is_followed_over_the_strips_that_it_is_looked_for_in(mask: Any, rows: int) -> None:
    contours = find_contours(mask.astype(float), 0.5)
    expected = None
    if contours:
        longest = max(contours, key=len)
        expected = int(longest[:, 1].min()), int(longest[:, 0].min()), int(longest[:, 1].max()), int(longest[:, 0].max())
    with patch.object(reference_profile, "_STRIP", rows):
        assert reference_profile._longest_contour_box(mask) == expected


@FAST
@given(images | images.map(lambda pixels: np.full_like(pixels, pixels[0, 0])))
def test_an_image_is_uniform_when_one_value_or_one_line_is_all_of_it(pixels: Any) -> None:
    assert uniform(pixels) == (min(pixels.shape) == 1 or pixels.min() == pixels.max())


HEADERS: tuple[dict[str, Any], ...] = (
    {},
    {"RescaleSlope": "0.1", "RescaleIntercept": "-3.3"},
    {"RescaleSlope": "-1.7"},
    {"ModalityLUTSequence": [lut([5, 100, 16], [900, 100, 3000, 40, 500])]},
)


@FAST
@given(images, st.sampled_from(HEADERS), st.none() | st.tuples(st.integers(0, 65535), st.integers(0, 65535)))
def test_the_full_range_is_that_of_every_pixel_outside_padding(
    pixels: Any, overrides: dict[str, Any], ends: tuple[int, int] | None
) -> None:
    padded = {} if ends is None else {"PixelPaddingValue": ends[0], "PixelPaddingRangeLimit": ends[1]}
    ds = header(**overrides, **padded, PixelRepresentation=int(pixels.dtype.kind == "i"))
    stored = all_values(pixels.dtype)
    units, padding = grey.modality(stored, ds, []), grey.padding_of(stored, ds)
    held = grey._held(pixels, units, padding)
    plain = grey.modality(pixels, ds, [])[~grey.padding_of(pixels, ds)]
    assert (held.size == 0) == (plain.size == 0)
    if plain.size:
        assert (held.min(), held.max()) == (plain.min(), plain.max())
