"""Images that cannot be read, or hold nothing to read: that view fails or is warned of in words, the others go on, the result says so.

A real worker's parts on a real store: the receiver's `keep_file`, the steps of the workflows, the decoder's child, the report. Only the
workflow engine is left out: its steps are called in the order in which it would call them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from fourview_process import SIMULATED_CARD
from mammograms_made import breast_pixels, mammogram, uid
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000Lossless
from worked import work_off

from listener import parts, workplace
from listener.config import load
from listener.keeping import keep_file
from listener.keys import check_uids, read_keys
from pipeline.model import ModelError, load_classifier, read_card
from store.files import Files
from store.study import HANGING_ORDER, View

BAD = View.L_CC
CLASSES = ["Mass", "Calcification", "Architectural/Asymmetry", "Normal"]
TORCH_CARD = f"""
name = "untrained"
version = "1"
architecture = "resnet50"
classes = {CLASSES}
input_size = 64
weights = "weights.pt"
trained = false
"""


class Site:
    """One installation in a folder, and a worker whose steps a test takes by hand."""

    def __init__(self, folder: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.shop: Any = None
        self._monkeypatch = monkeypatch
        (folder / "data").mkdir()
        shutil.copy(database, folder / "data" / "fourview.db")
        (folder / "config.toml").write_text("""
[study]
wait_for_retake_seconds = 0
give_up_after_seconds = 0
when_incomplete = "analyse"
[model]
card = "card.toml"
allow_untrained = true
[[rule]]
name = "all"
when = 'Modality == "MG"'
action = "analyse"
""")
        self.config = load(folder / "config.toml", {})
        self._monkeypatch.setattr(workplace, "Worker", lambda shop, **_: shop)

    def use(self, card: str) -> None:
        """Make what a worker works with for this card; raises ModelError."""
        (self.folder / "card.toml").write_text(card)
        self.take(workplace.Workplace(self.config, index=0, beat=lambda *_: None).worker)

    def take(self, shop: Any) -> None:
        """Let the steps work with `shop`."""
        self.shop = shop

    @property
    def files(self) -> Files:
        return parts.open_files(self.config)

    def receive(self, *images: Dataset) -> None:
        for ds in images:
            received = self.files.incoming / "received"
            ds.save_as(received, enforce_file_format=True)
            keys = read_keys(received)
            check_uids(keys)
            keep_file(keys, received, "", archive=self.shop.archive, files=self.files, calling_ae_title="ROOM1", called_ae_title="FOURVIEW")

    def work(self) -> dict[str, Any]:
        """Do everything that is to be done; what `fourview show` says of the study then."""
        work_off(self.shop, rounds=60)
        found: dict[str, Any] = parts.open_search(self.config).study(uid("study"))
        return found

    def result(self, version: dict[str, Any], kind: str) -> Dataset:
        """The object of this kind, as it would be sent."""
        [name] = [one["file_name"] for one in version["objects"] if one["kind"] == kind]
        return dcmread(BytesIO(self.files.read(name)))


@pytest.fixture
def site(tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path, sqlite_template, monkeypatch)
    yield made
    if made.shop is not None:
        made.shop.decoder.close()


def exam(bad: Dataset) -> list[Dataset]:
    """The four views, one of them `bad`."""
    return [bad if view is BAD else mammogram(view) for view in HANGING_ORDER]


def texts(ds: Dataset) -> list[str]:
    """Every sentence of an SR."""
    items = ds.get("ContentSequence", [])
    return [text for item in items for text in (str(item.get("TextValue", "")), *texts(item)) if text]


def the_others_have_scores(selection: dict[str, Any]) -> bool:
    return all(selection[view]["scores"] and not selection[view]["failure"] for view in HANGING_ORDER if view is not BAD)


# ---- images that cannot be read ----


def of_pixels(pixels: np.ndarray[Any, Any], **overrides: Any) -> Dataset:
    """The view with exactly these pixels in their own dtype, all bits stored unless told, and no window."""
    bits = 8 * pixels.dtype.itemsize
    stored = overrides.pop("BitsStored", bits)
    data = pixels.tobytes()
    ds = mammogram(
        BAD,
        BitsAllocated=bits,
        BitsStored=stored,
        HighBit=stored - 1,
        PixelRepresentation=int(pixels.dtype.kind == "i"),
        PixelData=data + b"\0" * (len(data) % 2),
        WindowCenter=None,
        WindowWidth=None,
    )
    ds.Rows, ds.Columns = pixels.shape
    for keyword, value in overrides.items():
        setattr(ds, keyword, value)
    return ds


def compressed(change: Callable[[bytes], bytes]) -> Dataset:
    """A JPEG 2000 image whose codestream was changed."""
    ds = mammogram(BAD)
    ds.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    ds.PixelData = encapsulate([change(get_frame(ds.PixelData, 0, number_of_frames=1))])
    ds["PixelData"].is_undefined_length = True
    return ds


UNIFORM = "The image is uniform: there is nothing in it to read."

UNREADABLE: dict[str, tuple[Callable[[], Dataset], str]] = {
    "black": (lambda: of_pixels(np.zeros((256, 200), np.uint16), BitsStored=12), UNIFORM),
    "white": (lambda: of_pixels(np.full((256, 200), 4095, np.uint16), BitsStored=12), UNIFORM),
    "white, MONOCHROME1": (lambda: of_pixels(np.full((256, 200), 4095, "u2"), PhotometricInterpretation="MONOCHROME1"), UNIFORM),
    "1 x 1": (lambda: of_pixels(np.full((1, 1), 900, np.uint16)), UNIFORM),
    "one row": (lambda: of_pixels(np.arange(200, dtype=np.uint16)[None]), UNIFORM),
    "truncated": (lambda: mammogram(BAD, PixelData=b"\0" * 100), "Pixel Data has 100 bytes, 256 x 200 pixels need 102400"),
    "no pixels": (lambda: mammogram(BAD, PixelData=None), "the image has no Pixel Data"),
    "no rows": (lambda: mammogram(BAD, Rows=None), "Rows is missing"),
    "compressed, cut short": (lambda: compressed(lambda stream: stream[: len(stream) // 2]), "the compressed frame is cut short"),
    "compressed, rubbish": (lambda: compressed(lambda stream: b"no image" * 20), "the compressed frame has no readable header"),
    "32 bits": (lambda: mammogram(BAD, BitsAllocated=32, BitsStored=32, HighBit=31), "Bits Allocated is 32; it must be 8 or 16"),
    "too tall": (lambda: of_pixels(np.zeros((8193, 2), np.uint16)), "Rows x Columns is 8193 x 2; both must be 1 to 8192"),
}


def fails_alone(site: Site, words: str) -> None:
    """The study's result says PARTIAL, of one view why it failed, and of the three others their scores."""
    found = site.work()
    assert found["state"] == "analysed"
    [version] = found["runs"]
    assert version["outcome"] == "PARTIAL"
    failed = version["selection"][BAD]
    assert failed["scores"] is None
    assert words in failed["failure"]
    assert the_others_have_scores(version["selection"])
    [disposition] = [(one["disposition"], one["disposition_reason"]) for one in found["images"] if one["view"] == BAD]
    assert disposition == ("failed", failed["failure"])

    sentences = texts(site.result(version, "sr"))
    assert any("PARTIAL" in sentence for sentence in sentences)
    assert any("3 of 4 views" in sentence for sentence in sentences)
    assert any(BAD in sentence and words in sentence for sentence in sentences)
    page = site.result(version, "page")
    assert len(page.SourceImageSequence) >= 3


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_image_fails_its_view_only(name: str, site: Site) -> None:
    make, words = UNREADABLE[name]
    site.use(SIMULATED_CARD)
    site.receive(*exam(make()))
    fails_alone(site, words)


#: What no model here could read fills no slot and is never decoded.
SET_ASIDE: dict[str, tuple[Callable[[], Dataset], str]] = {
    "several frames": (lambda: mammogram(BAD, NumberOfFrames="2"), "it has 2 frames"),
    "colour": (lambda: mammogram(BAD, SamplesPerPixel=3, PhotometricInterpretation="RGB"), "it is not a greyscale image (RGB)"),
}


@pytest.mark.parametrize("name", SET_ASIDE)
def test_an_image_that_is_none_for_us_is_set_aside_and_its_view_is_missing(name: str, site: Site) -> None:
    make, words = SET_ASIDE[name]
    site.use(SIMULATED_CARD)
    bad = make()
    site.receive(*exam(bad))
    found = site.work()
    assert found["state"] == "analysed"
    [version] = found["runs"]
    assert version["outcome"] == "PARTIAL"
    assert set(version["selection"]) == {*HANGING_ORDER} - {BAD}
    assert the_others_have_scores(version["selection"])
    [image] = [one for one in found["images"] if one["sop_instance_uid"] == bad.SOPInstanceUID]
    assert (image["disposition"], image["scores"]) == ("set aside", [])
    assert words in image["disposition_reason"]
    sentences = texts(site.result(version, "sr"))
    assert any("PARTIAL" in sentence for sentence in sentences)
    assert f"{BAD}: no usable image." in sentences
    assert any(f"{BAD}: an image came and was set aside: {words}" in sentence for sentence in sentences)


def test_a_study_of_unreadable_images_fails_and_says_why_of_each(site: Site) -> None:
    site.use(SIMULATED_CARD)
    site.receive(*(mammogram(view, PixelData=b"\0" * 100) for view in HANGING_ORDER))
    found = site.work()
    assert (found["state"], found["runs"]) == ("failed", [])
    for view in HANGING_ORDER:
        assert f"{view}: Pixel Data has 100 bytes" in found["state_reason"]


# ---- images that can be read, odd as they are ----


def bits(stored: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return breast_pixels(BAD, bits=stored)


def of_bits(stored: int) -> Dataset:
    return of_pixels(bits(12) >> (12 - stored) if stored < 12 else bits(stored), BitsStored=stored)


def with_marker(dtype: str = "u2") -> np.ndarray[Any, Any]:
    """Air, and a lead letter in it."""
    pixels = np.zeros((256, 200), dtype)
    pixels[20:30, 150:156] = 4000
    return pixels


NO_OUTLINE = ("No breast outline was found: the whole image was analysed.",)
EIGHT_BITS = "The image has 8 bits per pixel or fewer; mammograms have 10 to 16."

#: What is warned of, in words and in order; () for what is merely unusual.
READABLE: dict[str, tuple[Callable[[], Dataset], tuple[str, ...]]] = {
    "a marker in the air": (lambda: of_pixels(with_marker()), NO_OUTLINE),
    "a breast that the window shows black": (lambda: mammogram(BAD, WindowCenter="60000", WindowWidth="10"), NO_OUTLINE),
    "8 bits": (lambda: of_pixels((bits(12) >> 4).astype(np.uint8)), (EIGHT_BITS,)),
    "8 of 16 bits": (lambda: of_pixels(bits(12) >> 4, BitsStored=8), (EIGHT_BITS,)),
    **{f"{stored} bits": (partial(of_bits, stored), ()) for stored in range(9, 17)},
    "signed": (lambda: of_pixels((bits(12).astype(np.int32) - 2048).astype(np.int16), BitsStored=12), ()),
    "no window": (lambda: mammogram(BAD, WindowCenter=None, WindowWidth=None), ()),
    "window width zero": (
        lambda: mammogram(BAD, WindowWidth="0"),
        ("The window in the header is not usable: the full range of the pixels was used.",),
    ),
    "window center without width": (
        lambda: mammogram(BAD, WindowWidth=None),
        ("The window in the header is not usable: the full range of the pixels was used.",),
    ),
    "8192 x 8192": (lambda: of_pixels(np.kron(breast_pixels(BAD, rows=256, columns=256), np.ones((32, 32), np.uint16))), ()),
}


@pytest.mark.parametrize("name", READABLE)
def test_an_odd_image_is_read_and_what_is_wrong_with_it_is_said(name: str, site: Site) -> None:
    make, warnings = READABLE[name]
    site.use(SIMULATED_CARD)
    ds = make()
    site.receive(*exam(ds))
    found = site.work()
    assert found["state"] == "analysed"
    [version] = found["runs"]
    assert version["outcome"] == "COMPLETE"
    assert the_others_have_scores(version["selection"])
    scores = version["selection"][BAD]["scores"]
    assert sum(scores["probabilities"]) == pytest.approx(1)
    assert (scores["rows"], scores["columns"]) == (ds.Rows, ds.Columns)
    assert tuple(scores["warnings"]) == warnings
    sentences = texts(site.result(version, "sr"))
    for warning in warnings:
        assert f"{BAD}: {warning}" in sentences
    if NO_OUTLINE[0] in warnings:
        assert scores["box"] == [0, 0, ds.Columns, ds.Rows]


# ---- models that cannot be used ----


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, torch.Tensor]:
    """Weights of a ResNet50, untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        state: dict[str, torch.Tensor] = torchvision.models.resnet50(num_classes=len(CLASSES)).state_dict()
    return state


def overflowing(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights after a training that is about to diverge: each is a number, and what they give is none."""
    return {**state, "fc.weight": (state["fc.weight"].double() * 1e40).float()}


class OneOverflows:
    """Two classifiers: the broken one reads the images whose crop reaches below row 256."""

    def __init__(self, good: Any, broken: Any) -> None:
        self._good, self._broken = good, broken

    def __getattr__(self, method: str) -> Any:
        return lambda image: getattr(self._broken if image.box[3] > 256 else self._good, method)(image)


NO_NUMBERS = "gave no finite numbers for this image"


def test_a_model_that_gives_no_number_for_one_image_fails_that_view_only(
    site: Site, checkpoint: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(checkpoint, tmp_path / "weights.pt")
    site.use(TORCH_CARD)
    model = site.shop.load("")
    torch.save(overflowing(checkpoint), tmp_path / "weights.pt")
    broken = load_classifier(read_card(tmp_path / "card.toml"), allow_untrained=True, device="cpu")
    one_overflows = replace(model, classifier=OneOverflows(model.classifier, broken))
    site.take(replace(site.shop, load=lambda _: one_overflows))
    site.receive(*exam(mammogram(BAD, pixels=breast_pixels(BAD, rows=400, columns=300))))
    fails_alone(site, NO_NUMBERS)


def test_a_model_that_gives_no_number_at_all_fails_the_study(site: Site, checkpoint: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(overflowing(checkpoint), tmp_path / "weights.pt")
    site.use(TORCH_CARD)
    site.receive(*exam(mammogram(BAD)))
    found = site.work()
    assert (found["state"], found["runs"]) == ("failed", [])
    assert NO_NUMBERS in found["state_reason"]


def test_weights_that_are_no_numbers_are_refused_before_any_image_is_read(
    site: Site, checkpoint: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({**checkpoint, "fc.bias": torch.full((len(CLASSES),), float("nan"))}, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"weights\.pt: fc\.bias holds numbers that are not finite"):
        site.use(TORCH_CARD)


def test_a_checkpoint_of_another_architecture_is_refused_before_any_image_is_read(site: Site, tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(num_classes=len(CLASSES)).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"weights\.pt: .*not the weights of a resnet50: \d+ tensors are missing"):
        site.use(TORCH_CARD)
