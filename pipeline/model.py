"""Checkpoint, Classifier: a ModelImage -> one probability per class and a heat map. The only room with torch.

torch is imported inside the functions that need it, so the receiver, the web process and the command line load without it. Checkpoints
are read without unpickling code: a stranger's file runs nothing. The heat map is Grad-CAM (Selvaraju et al., ICCV 2017) on the last
convolutional stage. For a network that ends in global average pooling and one linear layer the gradients are that layer's weights, so it
needs no backward pass: ReLU of the last feature maps, weighted by the row of the class.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle  # nosec B403 # for the error that it raises
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.model_card import (
    CLASSES,
    PROFILE_REVISIONS,
    SUM_TOLERANCE,
    Augmentation,
    ModelCard,
    ModelError,
    check_weights,
    identity,
    parse_card,
    read_card,
    weights_bytes,
)
from pipeline.self_test import card_with_self_test, grey_of, png, write_unless_identical

if TYPE_CHECKING:
    from pipeline.pixels import ModelImage

#: With what is made here, the names of the card that go with them.
__all__ = [
    "CLASSES",
    "PROFILE_REVISIONS",
    "Augmentation",
    "Classifier",
    "ModelCard",
    "ModelError",
    "Reading",
    "TorchClassifier",
    "check_hash",
    "check_weights",
    "checked",
    "checkpoint_faults",
    "classifier_of",
    "cuda_is_available",
    "identity",
    "load_classifier",
    "model_input",
    "read_card",
    "read_checkpoint",
    "verified_weights",
    "write_demo_weights",
]


@dataclass(frozen=True, eq=False)
class Reading:
    """What a model says of one image.

    `probabilities`: one per class, in the card's order; they sum to 1. `heat_map`: where in the plain image the highest class (the first
    one on a tie) got its score from, float32 (rows, columns) of the last feature map (16 x 16 for a ResNet50 at 512), 0...1 with 1 at
    its own maximum, zero throughout where nothing spoke for the class; None for a model without feature maps. It explains a score and
    marks nothing: no place of a finding may be read from it. `pipeline.heat_map.over_box` lays it over the image.
    """

    probabilities: tuple[float, ...]
    heat_map: npt.NDArray[np.float32] | None


class Classifier(Protocol):
    """A loaded model."""

    def read(self, image: ModelImage) -> Reading:
        """Probabilities and heat map. Raises ModelError for an image of another size, and when the model gives no finite numbers."""
        ...

    def classify(self, image: ModelImage) -> tuple[float, ...]:
        """The probabilities of `read`."""
        ...


# ---- input ----


def model_input(image: ModelImage, card: ModelCard) -> npt.NDArray[np.float32]:
    """What the network is given: float32 (variants, 3, size, size), the grey in three channels, less `mean`, over `std`.

    The plain image comes first, the card's augmentation after it; without one there is one variant.
    """
    if image.grey.shape != (card.input_size, card.input_size):
        raise ModelError(f"the image is {image.grey.shape}, {card.path.name} wants {card.input_size} x {card.input_size}")
    variants = np.stack([image.grey, *_augmented(image.grey, card.augmentation)])
    given = np.empty((len(variants), 3, *image.grey.shape), np.float32)
    for channel, (mean, std) in enumerate(zip(card.mean, card.std, strict=True)):
        given[:, channel] = (variants.astype(np.float64) - mean) / std  # in float64, as the reference computed it, and rounded once
    return given


def _augmented(grey: npt.NDArray[np.float32], augmentation: Augmentation) -> list[npt.NDArray[np.float32]]:
    """Each variant alone, never one upon another. Rotations are about the middle, bilinear; what comes in from outside is black."""
    variants = [grey[:, ::-1]] if augmentation.horizontal_flip else []
    if augmentation.vertical_flip:
        variants.append(grey[::-1])
    if augmentation.rotations_degrees:
        from PIL import Image

        drawn = Image.fromarray(np.ascontiguousarray(grey))
        bilinear = Image.Resampling.BILINEAR
        variants += [np.asarray(drawn.rotate(angle, bilinear, fillcolor=0.0)) for angle in augmentation.rotations_degrees]
    return variants


# ---- loading ----


def load_classifier(card: ModelCard, *, allow_untrained: bool, device: str = "auto") -> Classifier:
    """The card's model by torch, ready to classify. `device`: "auto" (CUDA when there is one), "cpu", "cuda".

    Raises ModelError when the weights are missing, changed, of another architecture or class count, hold code, or are untrained and
    `allow_untrained` is false. The number of threads is the caller's affair.
    """
    check_weights(card, allow_untrained=allow_untrained)
    if card.architecture == "simulated":
        return _SimulatedClassifier(card)
    return classifier_of(card, read_checkpoint(card, verified_weights(card)), device=device)


def verified_weights(card: ModelCard) -> bytes:
    """The weights file; raises ModelError when it cannot be read, or is not the one that the card describes."""
    data = weights_bytes(card)
    check_hash(card, hashlib.sha256(data).hexdigest())
    return data


def check_hash(card: ModelCard, found: str) -> None:
    """Raises ModelError unless `found`, the weights' SHA-256, is the one that the card states."""
    if card.weights_sha256 and found != card.weights_sha256:
        raise ModelError(
            f"{card.weights}: SHA-256 is {found}, the card {card.path.name} says {card.weights_sha256}: not the file that the card "
            "describes. Put the right file there, or write the new hash into the card together with a new version."
        )


def classifier_of(card: ModelCard, state: Mapping[str, Any], *, device: str = "auto") -> TorchClassifier:
    """The card's network with the tensors of `read_checkpoint`; raises ModelError with every one of `checkpoint_faults`."""
    faults = checkpoint_faults(card, state)
    if faults:
        raise ModelError(f"{card.weights}: " + "; ".join(faults))
    return TorchClassifier(card, state, _torch_device(device))


def _import_torch() -> Any:
    try:
        import torch
        import torchvision  # type: ignore[import-untyped]  # noqa: F401 - missing it has the same remedy
    except ImportError as error:
        raise ModelError(f"torch and torchvision are needed to read images ({error}): pip install 'fourview[inference]'") from error
    except RuntimeError as error:  # torchvision adds its operators to torch when it is imported
        raise ModelError(f"this torch and this torchvision do not fit each other ({error}): install both anew from one index") from error
    return torch


def cuda_is_available() -> bool:
    """Whether torch finds a CUDA device here; raises ModelError without torch."""
    return bool(_import_torch().cuda.is_available())


def _torch_device(device: str) -> Any:
    torch = _import_torch()
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ModelError('[model] device = "cuda": torch finds no CUDA device here; write "auto" or "cpu"')
    return torch.device("cuda" if device != "cpu" and available else "cpu")


def read_checkpoint(card: ModelCard, data: bytes) -> dict[str, Any]:
    """Parameter name -> tensor, from safetensors or a torch file: bare, under "model_state_dict", or with DataParallel's "module.".

    Raises ModelError for anything else; whether the tensors are those of the card's network, `checkpoint_faults` says.
    """
    torch = _import_torch()
    assert card.weights is not None
    if card.weights.suffix == ".safetensors":
        import safetensors.torch

        try:
            return safetensors.torch.load(data)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise ModelError(f"{card.weights}: not a safetensors file: {error}") from error
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{card.weights}: holds more than tensors and plain values, or is damaged; not loaded, since loading it could run its code "
            f"({_first_sentence(error)}). Where you trust the file: torch.save(model.state_dict(), 'clean.pt')."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{card.weights}: not a checkpoint that torch can read: {_first_sentence(error)}") from error
    state = loaded.get("model_state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f'{card.weights}: neither a state_dict nor {{"model_state_dict": state_dict}}')
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _first_sentence(error: BaseException) -> str:
    """torch explains over many lines how to load the file unsafely: not what should be done here."""
    lines = [line.strip() for line in str(error).splitlines() if "nsupported" in line or "GLOBAL" in line] or str(error).splitlines()[:1]
    return lines[0][:200] if lines else type(error).__name__


def _resnet50(classes: int) -> Any:
    """torchvision's ResNet50 with an output per class."""
    torch = _import_torch()
    import torchvision

    network = torchvision.models.resnet50(weights=None)
    network.fc = torch.nn.Linear(network.fc.in_features, classes)
    return network


def checkpoint_faults(card: ModelCard, state: Mapping[str, Any]) -> tuple[str, ...]:
    """Why these tensors are not weights of the card's network, a sentence for each reason; empty when they are.

    Tensors in 16 bits are weights too: they are widened to 32 without loss.
    """
    torch = _import_torch()
    with torch.device("meta"):  # shapes alone
        wanted = _resnet50(len(card.classes)).state_dict()
    faults = []
    missing = sorted(name for name in wanted if name not in state and not _is_counter(name))
    surplus = sorted(name for name in state if name not in wanted)
    if missing or surplus:
        named = ", ".join([f"no {name}" for name in missing[:3]] + [f"unknown {name}" for name in surplus[:3]])
        faults.append(f"not the weights of a {card.architecture}: {len(missing)} tensors are missing, {len(surplus)} unknown ({named})")
    output = state.get("fc.weight")
    outputs = len(card.classes) if output is None else output.shape[0] if output.ndim else 0
    if outputs != len(card.classes):
        faults.append(
            f"the checkpoint has {outputs} classes, the card {card.path.name} names {len(card.classes)}: {', '.join(card.classes)}"
        )
    for name in sorted(set(wanted) & set(state)):
        found, shape = state[name], tuple(wanted[name].shape)
        counted_already = outputs != len(card.classes) and name.startswith("fc.")
        if tuple(found.shape) != shape and not counted_already:
            faults.append(f"{name} has shape {tuple(found.shape)}, a {card.architecture} wants {shape}")
        elif _is_counter(name):
            continue
        elif found.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            faults.append(f"{name} holds {str(found.dtype).removeprefix('torch.')}, not floating point numbers of 16, 32 or 64 bits")
        elif not torch.isfinite(found).all():
            faults.append(f"{name} holds numbers that are not finite: the training diverged or the file is damaged")
    return tuple(faults)


def _is_counter(name: str) -> bool:
    """Whether a tensor only counts training steps: no score depends on it, and old checkpoints are without it."""
    return name.endswith("num_batches_tracked")


class TorchClassifier:
    """A loaded model that torch computes."""

    def __init__(self, card: ModelCard, state: Mapping[str, Any], device: Any) -> None:
        torch = _import_torch()
        with torch.device("meta"):  # the tensors are given: none is made, and no random number drawn
            network = _resnet50(len(card.classes))
        counters = {name: torch.zeros((), dtype=torch.int64) for name in network.state_dict() if _is_counter(name)}
        network.load_state_dict({**counters, **state}, assign=True)
        network.eval().requires_grad_(False).to(device=device, dtype=torch.float32, memory_format=torch.channels_last)
        self._card = card
        self._torch = torch
        self._device = device
        *stages, self._pooling, self._output = network.children()
        self._stages = torch.nn.Sequential(*stages)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = False  # it picks kernels by the clock, so scores could differ between runs
            torch.backends.cudnn.deterministic = True
        # The first pass takes twice as long as the next, while kernels are made: not at the first patient's expense.
        variants = 1 + len(_augmented(np.zeros((1, 1), np.float32), card.augmentation))
        with torch.inference_mode():
            self._forward(np.zeros((variants, 3, card.input_size, card.input_size), np.float32))

    def _forward(self, values: npt.NDArray[np.float32]) -> tuple[Any, Any]:
        """Last feature maps (variants, channels, rows, columns) and logits (variants, classes)."""
        batch = self._torch.from_numpy(values).to(self._device, memory_format=self._torch.channels_last)
        maps = self._stages(batch)
        return maps, self._output(self._pooling(maps).flatten(1))

    def read(self, image: ModelImage) -> Reading:
        torch = self._torch
        with torch.inference_mode():
            maps, logits = self._forward(model_input(image, self._card))
            probabilities = checked(self._card, torch.softmax(logits, dim=1).double().mean(dim=0).tolist())
            best = probabilities.index(max(probabilities))
            # Grad-CAM: all that the class's logit gains at one place, and only gains.
            heat = torch.einsum("k,khw->hw", self._output.weight[best], maps[0]).clamp_min(0)
            heat_map: npt.NDArray[np.float32] = heat.cpu().numpy()
        highest = float(heat_map.max())
        return Reading(probabilities, heat_map / np.float32(highest) if highest > 0 else heat_map)

    def classify(self, image: ModelImage) -> tuple[float, ...]:
        return self.read(image).probabilities

    def logits(self, given: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Of one input (1, 3, size, size), which another engine must give too."""
        with self._torch.inference_mode():
            logits: npt.NDArray[np.float64] = self._forward(given)[1][0].double().cpu().numpy()
        return logits


class _SimulatedClassifier:
    """A stand-in for tests and load: numbers from the image's hash."""

    def __init__(self, card: ModelCard) -> None:
        self._card = card

    def read(self, image: ModelImage) -> Reading:
        time.sleep(self._card.sleep_seconds)
        sha = hashlib.sha256(np.ascontiguousarray(image.grey).data).digest()
        shares = [1 + int.from_bytes(hashlib.sha256(sha + bytes([index])).digest()[:4], "big") for index in range(len(self._card.classes))]
        return Reading(checked(self._card, [share / sum(shares) for share in shares]), None)

    def classify(self, image: ModelImage) -> tuple[float, ...]:
        return self.read(image).probabilities


def checked(card: ModelCard, probabilities: list[float]) -> tuple[float, ...]:
    """They, where they are numbers that sum to 1; raises ModelError where they are not."""
    if not all(map(math.isfinite, probabilities)) or abs(sum(probabilities) - 1) > SUM_TOLERANCE:
        raise ModelError(
            f"{card.name} {card.version} gave no finite numbers for this image: the weights may be damaged or diverged in training"
        )
    return tuple(probabilities)


# ---- demonstration weights ----

_DEMO_SEED = 20150000
#: The residual branches' last scale, and the output layer's range: kaiming's alone let a ResNet50 without running statistics saturate the
#: softmax at one class.
_DEMO_BRANCH_SCALE = 0.2
_DEMO_OUTPUT_RANGE = 5.0
#: Takes away what all mammograms have in common (seen on eight of them), so that not every image gets the same class.
_DEMO_BIAS = (-14.0, 17.2, 7.5, -4.8)
_DEMO_CARD = """\
# Untrained demonstration weights: every number they give is MEANINGLESS. Made by `fourview model demo-weights`.
name = "ResNet50 demonstration"
version = {version}
manufacturer = "Fourview"
architecture = "resnet50"
classes = {classes}
input_size = 512
profile = "presentation"
weights = "resnet50-demo.safetensors"
weights_sha256 = "{weights_sha256}"
trained = false
training_data = "none: random numbers from a fixed seed"
limits = "MEANINGLESS NUMBERS - UNTRAINED MODEL"
"""


def write_demo_weights(folder: Path) -> Path:
    """Write resnet50-demo.safetensors, its card resnet50-demo.toml and its self-test into `folder`; returns the card's path.

    The same bytes on every run with the same torch version, but for the last digits of the self-test, which depend on the processor.
    Files that are there and identical stay untouched. Raises ModelError without torch, OSError when the folder cannot be written.
    """
    from pipeline.pixels import ModelImage

    torch = _import_torch()
    import safetensors.torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_DEMO_SEED)
        state = _demo_network(torch).state_dict()
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()})
    text = _DEMO_CARD.format(
        version=json.dumps(f"1 (torch {torch.__version__})"),
        classes=json.dumps(list(CLASSES)),
        weights_sha256=hashlib.sha256(data).hexdigest(),
    )
    path = folder / "resnet50-demo.toml"
    card = parse_card(text, path)
    stored = _demo_image(card.input_size)
    image = ModelImage(grey_of(stored), (0, 0, *stored.shape), 0.0, ())
    text = card_with_self_test(card, text, "resnet50-demo.png", classifier_of(card, state, device="cpu").classify(image))
    folder.mkdir(parents=True, exist_ok=True)
    # The card last: it names the hash of weights that are there.
    write_unless_identical(folder / "resnet50-demo.safetensors", data)
    write_unless_identical(folder / "resnet50-demo.png", png(stored))
    write_unless_identical(path, text.encode())
    return path


def _demo_image(size: int) -> npt.NDArray[np.uint16]:
    """A half disk with waves, made of integers alone: the same everywhere."""
    y, x = np.mgrid[0:size, 0:size].astype(np.int64)
    inside = (2 * y - size) ** 2 + (2 * x) ** 2 < (size * 9 // 10) ** 2
    waves = (x * x + 3 * x * y) // size % 64 * 512 + 16384
    return np.where(inside, waves, 0).astype(np.uint16)


def _demo_network(torch: Any) -> Any:
    network = _resnet50(len(CLASSES))
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            # Uniform numbers are made of integers alone, so every CPU makes the same ones; normal ones go through its cosine.
            torch.nn.init.kaiming_uniform_(module.weight, mode="fan_out", nonlinearity="relu")
        elif name.endswith("bn3"):
            torch.nn.init.constant_(module.weight, _DEMO_BRANCH_SCALE)
    torch.nn.init.uniform_(network.fc.weight, -_DEMO_OUTPUT_RANGE, _DEMO_OUTPUT_RANGE)
    with torch.no_grad():
        network.fc.bias.copy_(torch.tensor(_DEMO_BIAS))
    return network
