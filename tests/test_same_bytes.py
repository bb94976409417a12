"""What is made of an image stays the same, byte for byte: a change in how fast it is made is no reason for other scores.

golden_presentation.json holds SHA-256 sums of what profile `presentation`, `preview` and `breast_edge` made of the images of `images`
before they were made faster; profile `reference` has golden numbers of its own (tests/test_pixels.py, tests/test_oracle.py). Made on
x86-64 by

    PYTHONPATH=.:tests python tests/test_same_bytes.py > tests/golden_presentation.json

which is to be run again only together with a new revision in `PROFILE_REVISIONS`, since other pixels give other scores.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pipeline.pixels import breast_edge, prepare, preview
from store.header import read_header
from tests.test_pixels import CASES, REAL, SYNTHETIC, exam_like, header, lut, pixels_of

GOLDEN_FILE = Path(__file__).parent / "golden_presentation.json"

#: What a header says of how stored values are shown. No sigmoid: its exponential is not the same to the last digit on every processor.
HEADERS: dict[str, dict[str, Any]] = {
    "no window": {},
    "a window": {"WindowCenter": "1900", "WindowWidth": "2500"},
    "an exact window": {"WindowCenter": "1900", "WindowWidth": "2500", "VOILUTFunction": "LINEAR_EXACT"},
    "polarity turned": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    "zero is padding": {"PixelPaddingValue": 0},
    "a range is padding": {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 65535},
    "padding in the middle": {"PixelPaddingValue": 900, "PixelPaddingRangeLimit": 1500},
    "rescaled": {"RescaleSlope": "0.37", "RescaleIntercept": "-1024.5"},
    "rescaled backwards, zero is padding": {"RescaleSlope": "-2", "RescaleIntercept": "4095", "PixelPaddingValue": 0},
    "a Modality LUT": {"ModalityLUTSequence": [lut([4, 700, 16], [900, 100, 3000, 40])]},
    "a VOI LUT": {"VOILUTSequence": [lut([4096, 0, 12], [(value * value) >> 12 for value in range(4096)])]},
}


def headers_of(name: str, pixels: Any) -> dict[str, Dataset]:
    """The headers with which an image is looked at: its own for a real one, every one for a few, two for the others."""
    if name in REAL:
        own = read_header(CASES / name)
        shown = read_header(CASES / name)
        shown.WindowCenter, shown.WindowWidth = "24000", "40000"
        return {"its own": own, "a window": shown}
    whole = name in ("12 bits, 300 x 240", "16 bits, 411 x 333", "signed", "8 bits", "white rim")
    chosen = HEADERS if whole else {one: HEADERS[one] for one in ("no window", "a window")}
    sign = int(pixels.dtype.kind == "i")
    return {words: header(PixelRepresentation=sign, **overrides) for words, overrides in chosen.items()}


def images() -> list[str]:
    return [*REAL, *SYNTHETIC, "as large as a real one"]


def image_of(name: str) -> Any:
    return exam_like(12, 3328, 2560, 9, right=True) if name == "as large as a real one" else pixels_of(name)


def made_of(name: str) -> dict[str, Any]:
    """Header's name -> what is made of the image with it."""
    pixels = image_of(name)
    before = pixels.copy()
    made = {}
    for words, ds in headers_of(name, pixels).items():
        image = prepare(pixels, ds, profile="presentation")
        made[words] = {
            "grey": _sum(image.grey),
            "box": list(image.box),
            "threshold": image.threshold,
            "warnings": list(image.warnings),
            "preview": _sum(preview(pixels, ds)),
            "edge": breast_edge(pixels, ds),
        }
        small = prepare(pixels, ds, profile="presentation", size=129)
        made[words]["grey of 129"] = _sum(small.grey)
    assert np.array_equal(pixels, before)
    return made


def _sum(array: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]


@pytest.mark.parametrize("name", images())
def test_the_same_bytes_are_made_of_an_image_as_ever(name: str) -> None:
    golden = json.loads(GOLDEN_FILE.read_text())
    assert made_of(name) == golden[name]


def test_the_golden_sums_tell_images_and_headers_apart() -> None:
    """So that equality means something: an image gives other bytes with every header that shows it otherwise."""
    golden = json.loads(GOLDEN_FILE.read_text())
    assert list(golden) == images()
    shown = golden["12 bits, 300 x 240"].values()
    assert len(shown) == len(HEADERS)
    assert len({one["preview"] for one in shown}) == len({one["grey"] for one in shown}) == len(HEADERS) - 2, "but for two that say nothing"


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: made_of(name) for name in images()}, indent=1) + "\n")
