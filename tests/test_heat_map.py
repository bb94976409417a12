"""The heat map: Grad-CAM without a backward pass against autograd, and where it lies over the image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
import torchvision

from pipeline.heat_map import over_box
from pipeline.model import Classifier, ModelCard, Reading, load_classifier, model_input, read_card, write_demo_weights
from pipeline.model_card import Augmentation
from pipeline.pixels import ModelImage, prepare
from store.study import View
from tests.mammograms_made import breast_pixels, mammogram

SIZE = 128


def breast(view: View, seed: int = 0) -> ModelImage:
    return prepare(breast_pixels(view, seed=seed), mammogram(view), profile="presentation", size=SIZE)


def noise(seed: int) -> ModelImage:
    grey = np.random.default_rng(seed).random((SIZE, SIZE), np.float32)
    return ModelImage(grey, (0, 0, SIZE, SIZE), 0.0, ())


def network_of(card: ModelCard) -> torch.nn.Module:
    assert card.weights is not None
    network = torchvision.models.resnet50(num_classes=4)
    network.load_state_dict(safetensors.torch.load_file(card.weights))
    return network.eval()


def grad_cam(network: torch.nn.Module, values: npt.NDArray[np.float32], index: int) -> npt.NDArray[np.float32]:
    """The textbook's: gradients of the class's logit, averaged over the map, weight the feature maps; negative sums are dropped."""
    kept: list[torch.Tensor] = []
    hook = network.get_submodule("layer4").register_forward_hook(lambda module, given, maps: kept.append(maps))
    logits = network(torch.from_numpy(values))
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, index], kept[0])
    summed = torch.relu((gradient[0].mean(dim=(1, 2))[:, None, None] * kept[0][0]).sum(0)).detach().numpy()
    return summed / summed.max()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    """Random weights without the bias that keeps the demonstration's classes apart: the highest class is the one that most speaks for."""
    card = read_card(write_demo_weights(tmp_path_factory.mktemp("weights")))
    assert card.weights is not None
    state = safetensors.torch.load_file(card.weights)
    safetensors.torch.save_file({**state, "fc.bias": torch.zeros(4)}, card.path.parent / "w.safetensors")
    return replace(card, weights=card.path.parent / "w.safetensors", weights_sha256="", input_size=SIZE)


@pytest.fixture(scope="module")
def classifier(demo: ModelCard) -> Classifier:
    return load_classifier(demo, allow_untrained=True, device="cpu")


def heat(reading: Reading) -> npt.NDArray[np.float32]:
    assert reading.heat_map is not None
    return reading.heat_map


@pytest.mark.parametrize("image", [breast(View.L_CC), breast(View.R_MLO, 3), noise(5)], ids=["L-CC", "R-MLO", "noise"])
def test_the_heat_map_is_grad_cam(image: ModelImage, demo: ModelCard, classifier: Classifier) -> None:
    reading = classifier.read(image)
    best = reading.probabilities.index(max(reading.probabilities))
    expected = grad_cam(network_of(demo), model_input(image, demo), best)
    found = heat(reading)
    assert (found.shape, found.dtype) == ((SIZE // 32, SIZE // 32), np.float32)
    assert expected.std() > 0.05, "a flat map would prove nothing"
    assert np.allclose(found, expected, atol=1e-4)
    assert found.min() >= 0
    assert found.max() == 1


def test_another_class_gives_another_map(demo: ModelCard, classifier: Classifier) -> None:
    image = breast(View.L_CC)
    reading = classifier.read(image)
    second = reading.probabilities.index(sorted(reading.probabilities)[-2])
    other = grad_cam(network_of(demo), model_input(image, demo), second)
    assert other.max() == 1
    assert np.abs(heat(reading) - other).max() > 0.05


def test_reading_twice_gives_the_same_map_and_classify_the_same_numbers(classifier: Classifier) -> None:
    image = breast(View.L_MLO)
    first, second = classifier.read(image), classifier.read(image)
    assert first.probabilities == second.probabilities == classifier.classify(image)
    assert heat(first).tobytes() == heat(second).tobytes()


def test_with_augmentation_the_map_is_that_of_the_plain_image(demo: ModelCard, classifier: Classifier) -> None:
    augmented = load_classifier(
        replace(demo, augmentation=Augmentation(vertical_flip=True, rotations_degrees=(10.0,))), allow_untrained=True, device="cpu"
    )
    image = breast(View.L_CC)
    plain, mean = classifier.read(image), augmented.read(image)
    assert mean.probabilities != plain.probabilities
    best = mean.probabilities.index(max(mean.probabilities))
    assert np.allclose(heat(mean), grad_cam(network_of(demo), model_input(image, demo), best), atol=1e-4)


def test_where_nothing_speaks_for_the_class_the_map_is_zero(demo: ModelCard, tmp_path: Path) -> None:
    assert demo.weights is not None
    state = safetensors.torch.load_file(demo.weights)
    safetensors.torch.save_file({**state, "fc.weight": -torch.ones(4, 2048)}, tmp_path / "w.safetensors")
    against = replace(demo, weights=tmp_path / "w.safetensors", weights_sha256="")
    reading = load_classifier(against, allow_untrained=True, device="cpu").read(breast(View.L_CC))
    assert heat(reading).max() == 0


# ---- over the image ----


def test_a_spot_in_the_image_lies_under_its_heat(demo: ModelCard) -> None:
    """Cells are centred on the pixels that the network's own steps pick: seen by how the last feature maps answer to a spot."""
    network = network_of(demo)
    stages = torch.nn.Sequential(*list(network.children())[:-2])
    size = 512
    black = torch.zeros(1, 3, size, size)
    for row, column in ((150, 300), (272, 223)):
        spot = black.clone()
        spot[:, :, row : row + 2, column : column + 2] = 3
        with torch.inference_mode():
            answer = (stages(spot) - stages(black)).square().sum(1)[0].numpy()
        image = ModelImage(np.zeros((size, size), np.float32), (0, 0, size, size), 0.0, ())
        laid = over_box((answer / answer.max()).astype(np.float32), image).astype(np.float64)
        y, x = (float((laid * grid).sum() / laid.sum()) for grid in np.mgrid[0:size, 0:size])
        assert abs(y - row) < 10, "less than a third of a cell; half a cell would be the error of stretching the map over the square"
        assert abs(x - column) < 10


def test_the_map_covers_the_box_and_nothing_of_the_empty_border() -> None:
    image = replace(breast(View.L_CC), box=(0, 0, 100, 400))
    left, top, right, bottom = image.geometry.target
    assert (left, right) == (48, 80)
    spread = np.tile(np.linspace(0, 1, 4, dtype=np.float32), (4, 1))
    laid = over_box(spread, image)
    assert (laid.shape, laid.dtype) == ((bottom - top, right - left), np.float32)
    # Cell i lies on pixel 32 * i of the square, so columns 48...79 run from one and a half cells to two and a half.
    assert laid[0, 0] == pytest.approx(0.5)
    assert laid[0, 16] == pytest.approx(2 / 3)
    assert np.all(np.diff(laid, axis=1) > 0)
    assert np.all(laid == laid[0])


def test_beyond_the_last_cell_its_value_holds() -> None:
    laid = over_box(np.eye(4, dtype=np.float32), noise(0))
    assert laid.shape == (SIZE, SIZE)
    assert np.all(laid[96:, 96:] == 1)
    assert laid[0, 0] == laid[32, 32] == 1
    assert laid[0, 32] == 0
    assert 0 <= laid.min() <= laid.max() <= 1


def test_a_stretched_crop_is_covered_whole() -> None:
    image = prepare(breast_pixels(View.L_CC), mammogram(), profile="reference", size=SIZE)
    assert over_box(np.ones((4, 4), np.float32), image).shape == (SIZE, SIZE)
