"""pipeline/model_check.py and pipeline/self_test.py: everything wrong with a model in words, and the self-test that proves it right."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from pipeline.model import ModelError, load_classifier, read_card, write_demo_weights
from pipeline.model_check import Finding, check_model, write_self_test
from pipeline.pixels import ModelImage, prepare
from pipeline.self_test import grey_of, png, sixteen_bits
from store.study import View
from tests.mammograms_made import breast_pixels, mammogram

SIZE = 64
CARD = """\
# A comment that must stay.
name = "Example"
version = "3"
architecture = "resnet50"
classes = ["Mass", "Calcification", "Architectural/Asymmetry", "Normal"]
input_size = 64
weights = "w.safetensors"
trained = true
[augmentation]
horizontal_flip = true  # this one too
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def state(demo: Path) -> dict[str, torch.Tensor]:
    """Random weights whose four numbers are apart."""
    found = safetensors.torch.load_file(demo.parent / "resnet50-demo.safetensors")
    return {**found, "fc.weight": found["fc.weight"] / 50, "fc.bias": torch.tensor([0.0, 0.5, 1.0, 1.5])}


@pytest.fixture
def card_path(state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "card.toml").write_text(CARD)
    return tmp_path / "card.toml"


def image() -> ModelImage:
    return prepare(breast_pixels(View.L_CC), mammogram(), profile="presentation", size=SIZE)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def faults(path: Path) -> list[Finding]:
    return [finding for finding in check_model(path, device="cpu") if not finding.ok]


def only_fault(path: Path) -> Finding:
    (fault,) = faults(path)
    return fault


# ---- sound models ----


def test_the_demonstration_model_is_sound_and_said_to_be_untrained(demo: Path) -> None:
    findings = check_model(demo, device="cpu")
    assert [finding for finding in findings if not finding.ok] == []
    words = "\n".join(finding.what for finding in findings)
    assert "not trained, its numbers mean nothing" in words
    assert "SHA-256 as in the card" in words
    assert "320 tensors of the names and shapes of a resnet50 with 4 outputs" in words
    assert "self-test: each class has its expected number" in words


def test_a_model_without_self_test_and_hash_gets_advice(card_path: Path) -> None:
    findings = check_model(card_path, device="cpu")
    assert all(finding.ok for finding in findings)
    advice = {finding.what.split(": ")[-1]: finding.remedy for finding in findings if finding.remedy}
    assert re.search(r'weights_sha256 = "[0-9a-f]{64}"', advice["no SHA-256 in the card, the file is taken as it is"])
    remedy = advice["the order of the classes is the card's word alone"]
    assert "fourview model self-test CARD IMAGE" in remedy
    assert "training code" in remedy


def test_a_simulated_model_has_nothing_to_check(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(
        'name="S"\nversion="1"\narchitecture="simulated"\nclasses=["A","B"]\ntrained=false\ninput_size=64\n'
    )
    assert all(finding.ok for finding in check_model(tmp_path / "card.toml"))
    write_self_test(tmp_path / "card.toml", image())
    assert "each class has its expected number" in check_model(tmp_path / "card.toml")[-1].what


# ---- the self-test ----


def test_a_self_test_is_written_and_passes(card_path: Path) -> None:
    before = card_path.read_text()
    written = write_self_test(card_path, image(), device="cpu")
    assert written == card_path.parent / "card-selftest.png"
    assert card_path.read_text().startswith(before.rstrip())
    card = read_card(card_path)
    assert card.self_test is not None
    assert card.self_test.image == written
    assert card.augmentation.horizontal_flip
    seen = replace(image(), grey=grey_of(sixteen_bits(image().grey)))
    assert card.self_test.probabilities == pytest.approx(load_classifier(card, allow_untrained=True, device="cpu").classify(seen), abs=1e-6)
    assert faults(card_path) == []


def test_writing_a_self_test_again_replaces_it_and_keeps_what_follows_and_the_tolerance(card_path: Path) -> None:
    write_self_test(card_path, image(), device="cpu")
    once = card_path.read_text()
    write_self_test(card_path, image(), device="cpu")
    assert card_path.read_text() == once
    change(card_path, "tolerance = 0.0001", "tolerance = 0.001")
    change(card_path, "[augmentation]\nhorizontal_flip = true  # this one too\n", "")
    card_path.write_text(card_path.read_text() + "[augmentation]  # behind\nvertical_flip = true\n")
    write_self_test(card_path, image(), device="cpu")
    text, card = card_path.read_text(), read_card(card_path)
    assert text.count("[self_test]") == text.count("[self_test.probabilities]") == 1
    assert "[augmentation]  # behind\nvertical_flip = true\n" in text
    assert card.self_test is not None
    assert (card.self_test.tolerance, card.augmentation.vertical_flip) == (0.001, True)
    assert faults(card_path) == []


def test_a_self_test_that_is_written_in_one_line_is_left_to_the_person(card_path: Path) -> None:
    inline = (
        'self_test = {image = "a.png", probabilities = {Mass=0.1, Calcification=0.2, "Architectural/Asymmetry"=0.3, Normal=0.4}}\n[augm'
    )
    change(card_path, "[augm", inline)
    before = card_path.read_text()
    with pytest.raises(ModelError, match="remove it by hand"):
        write_self_test(card_path, image(), device="cpu")
    assert card_path.read_text() == before
    assert not (card_path.parent / "card-selftest.png").exists()


def test_classes_in_another_order_are_found_and_the_right_order_named(card_path: Path) -> None:
    write_self_test(card_path, image(), device="cpu")
    right = '["Mass", "Calcification", "Architectural/Asymmetry", "Normal"]'
    change(card_path, right, '["Calcification", "Architectural/Asymmetry", "Mass", "Normal"]')
    fault = only_fault(card_path)
    assert "They fit in another order of the classes" in fault.what
    assert f"classes = {right}" in fault.remedy


@pytest.mark.parametrize(
    ("old", "new"),
    [("input_size = 64", "input_size = 64\nmean = [0, 0, 0]"), ("horizontal_flip = true", "vertical_flip = true")],
    ids=["mean", "augmentation"],
)
def test_another_normalisation_or_augmentation_is_found(old: str, new: str, card_path: Path) -> None:
    write_self_test(card_path, image(), device="cpu")
    change(card_path, old, new)
    fault = only_fault(card_path)
    assert "Mass 0." in fault.what
    assert "instead of 0." in fault.what
    assert "mean, std or augmentation" in fault.remedy


def test_other_weights_are_found_without_a_hash_in_the_card(card_path: Path, state: dict[str, torch.Tensor]) -> None:
    write_self_test(card_path, image(), device="cpu")
    safetensors.torch.save_file({**state, "fc.bias": state["fc.bias"] * 1.01}, card_path.parent / "w.safetensors")
    assert "the numbers differ by more than 0.0001" in only_fault(card_path).what


def test_classes_that_the_self_test_cannot_tell_apart_are_named(card_path: Path, state: dict[str, torch.Tensor]) -> None:
    alike = state["fc.weight"].clone()
    alike[2] = alike[0]
    bias = torch.tensor([1.0, 0.5, 1.0, 1.5])
    safetensors.torch.save_file({**state, "fc.weight": alike, "fc.bias": bias}, card_path.parent / "w.safetensors")
    write_self_test(card_path, image(), device="cpu")
    last = check_model(card_path, device="cpu")[-1]
    assert last.ok
    assert "could not tell Mass from Architectural/Asymmetry" in last.what
    assert "an image whose numbers differ" in last.remedy


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"rubbish", "cannot be read"),
        (png(np.zeros((32, 64), np.uint16)), "64 x 32 pixels of kind I;16; a self-test of card.toml is a greyscale PNG of 64 x 64"),
        ("RGB", "of kind RGB"),
    ],
    ids=["none", "rubbish", "size", "colour"],
)
def test_an_image_that_does_not_serve_is_named(content: bytes | str | None, words: str, card_path: Path) -> None:
    path = write_self_test(card_path, image(), device="cpu")
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        Image.new(content, (SIZE, SIZE)).save(path)
    fault = only_fault(card_path)
    assert str(path) in fault.what
    assert words in fault.what
    assert "fourview model self-test" in fault.remedy


def test_an_image_of_8_bits_serves_too(card_path: Path) -> None:
    eight = np.rint(image().grey * 255).astype(np.uint8)
    path = write_self_test(card_path, replace(image(), grey=grey_of(eight, white=255)), device="cpu")
    Image.fromarray(eight).save(path)
    assert faults(card_path) == []


def test_sixteen_bits_keep_eight_exactly() -> None:
    eight = np.arange(256, dtype=np.float32) / np.float32(255)
    assert np.array_equal(grey_of(sixteen_bits(eight)), eight)


# ---- broken models ----


def test_every_mistake_in_a_card_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text('architecture = "resnet50"\nname = ""\nversion = "1"\nclasses = ["A", "A"]\ntrained = true\n')
    found = faults(tmp_path / "card.toml")
    assert [fault.what.split(": ")[1] for fault in found] == ["name", "classes"]
    assert all("resnet50.toml explains every key" in fault.remedy for fault in found)
    assert "cannot be read" in only_fault(tmp_path / "none.toml").what


def test_everything_wrong_with_the_weights_is_a_finding(card_path: Path, state: dict[str, torch.Tensor]) -> None:
    change(card_path, "trained", f'weights_sha256 = "{"0" * 64}"\ntrained')
    odd = {
        **state,
        "extra.weight": torch.zeros(1),
        "fc.weight": torch.zeros(7, 2048),
        "conv1.weight": torch.full((64, 3, 7, 7), torch.nan),
        "bn1.bias": torch.zeros(64, dtype=torch.int32),
    }
    safetensors.torch.save_file(odd, card_path.parent / "w.safetensors")
    found = faults(card_path)
    assert all(fault.remedy for fault in found)
    words = [fault.what.split("w.safetensors: ")[1] for fault in found]
    assert words[0].startswith("SHA-256 is ")
    assert words[1:] == [
        "not the weights of a resnet50: 0 tensors are missing, 1 unknown (unknown extra.weight)",
        "the checkpoint has 7 classes, the card card.toml names 4: Mass, Calcification, Architectural/Asymmetry, Normal",
        "bn1.bias holds int32, not floating point numbers of 16, 32 or 64 bits",
        "conv1.weight holds numbers that are not finite: the training diverged or the file is damaged",
    ]


@pytest.mark.parametrize(("content", "words"), [(None, "weights file cannot be read"), (b"rubbish", "not a safetensors file")])
def test_weights_that_cannot_be_read_are_a_finding(content: bytes | None, words: str, card_path: Path) -> None:
    weights = card_path.parent / "w.safetensors"
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)
    assert words in only_fault(card_path).what


def test_a_model_whose_numbers_overflow_is_a_finding(card_path: Path, state: dict[str, torch.Tensor]) -> None:
    write_self_test(card_path, image(), device="cpu")
    safetensors.torch.save_file({**state, "fc.weight": torch.full((4, 2048), 3e38)}, card_path.parent / "w.safetensors")
    assert "no finite numbers" in only_fault(card_path).what


def test_without_torch_the_hash_is_still_looked_at(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    findings = check_model(demo)
    assert any("SHA-256 as in the card" in finding.what for finding in findings)
    assert "pip install 'fourview[inference]'" in findings[-1].what
    assert not findings[-1].ok


def test_a_card_is_left_alone_when_its_model_does_not_load(card_path: Path) -> None:
    (card_path.parent / "w.safetensors").write_bytes(b"rubbish")
    before = card_path.read_text()
    with pytest.raises(ModelError, match="not a safetensors file"):
        write_self_test(card_path, image(), device="cpu")
    assert card_path.read_text() == before
    assert sorted(path.name for path in card_path.parent.iterdir()) == ["card.toml", "w.safetensors"]
