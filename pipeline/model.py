"""Model card, checkpoint, Classifier: a ModelImage -> one probability per class. The only room with torch.

torch is imported inside the functions that need it, so the receiver, the web process and the command line load without it. Checkpoints
are read without unpickling code: a stranger's file runs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import pickle
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from store.study import ImageKind, ModelIdentity

if TYPE_CHECKING:
    from pipeline.pixels import ModelImage

#: What the replaced system's checkpoints were trained on, in the order of their outputs.
CLASSES = ("Mass", "Calcification", "Architectural/Asymmetry", "Normal")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ARCHITECTURES = ("resnet50", "simulated")
#: The names in pipeline.pixels.PROFILES; reading a card must not cost the import of scikit-image and scipy.
PROFILES = ("presentation", "reference")
_ENGINES = {"resnet50": "torch", "simulated": "simulated"}
_SUM_TOLERANCE = 1e-3


class ModelError(Exception):
    """The model cannot be used, or gave no usable answer; says what to do about it."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What must be known about weights to use them, read from a TOML file beside them; weights/resnet50.toml explains every key."""

    path: Path
    name: str
    version: str
    manufacturer: str
    architecture: str  # "resnet50" | "simulated"
    classes: tuple[str, ...]  # in the order of the network's outputs
    input_size: int  # side of the square input in pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    profile: str  # "presentation" | "reference": see pipeline/pixels.py
    weights: Path | None  # None for "simulated"
    weights_sha256: str  # 64 hex digits, or "": the file is taken as it is
    trained: bool
    training_data: str
    limits: str
    image_kinds: tuple[ImageKind, ...]
    implants: str  # "warn" | "exclude"
    sleep_seconds: float = 0.0  # "simulated" only: how long a reading takes


class Classifier(Protocol):
    """A loaded model."""

    def classify(self, image: ModelImage) -> tuple[float, ...]:
        """One probability per class, in the card's order; they sum to 1. Raises ModelError when the model gives no finite numbers."""
        ...


# ---- the card ----


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text in quotes")
    return value


def _name(value: Any) -> str:
    if not _text(value).strip():
        raise ValueError("must not be empty")
    return str(value)


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be {' or '.join(repr(choice) for choice in choices)}, not {value!r}")
        return str(value)

    return parse


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a number")
    return float(value)


def _side(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 32 <= value <= 4096:
        raise ValueError("must be a whole number of pixels from 32 to 4096")
    return value


def _seconds(value: Any) -> float:
    if _number(value) < 0:
        raise ValueError("must not be negative")
    return float(value)


def _three(value: Any) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError("must be a list of three numbers: red, green, blue")
    red, green, blue = (_number(item) for item in value)
    return red, green, blue


def _positive_three(value: Any) -> tuple[float, float, float]:
    if min(_three(value)) <= 0:
        raise ValueError("must be three numbers above zero")
    return _three(value)


def _classes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise ValueError("must be a list of at least two class names, in the order of the network's outputs")
    names = tuple(_name(item) for item in value)
    if len(set(names)) < len(names):
        raise ValueError("names a class twice")
    return names


def _image_kinds(value: Any) -> tuple[ImageKind, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of image kinds")
    parse = _one_of(*(kind.value for kind in ImageKind))
    return tuple(ImageKind(parse(item)) for item in value)


def _sha256(value: Any) -> str:
    digits = _text(value).lower()
    if digits and (len(digits) != 64 or set(digits) - set("0123456789abcdef")):
        raise ValueError('must be 64 hex digits (`sha256sum FILE` prints them), or "" to take the file as it is')
    return digits


_REQUIRED = object()
#: Key -> how to read it, and its default.
_KEYS: Mapping[str, tuple[Callable[[Any], Any], Any]] = {
    "name": (_name, _REQUIRED),
    "version": (_name, _REQUIRED),
    "manufacturer": (_text, ""),
    "architecture": (_one_of(*ARCHITECTURES), _REQUIRED),
    "classes": (_classes, _REQUIRED),
    "input_size": (_side, 512),
    "mean": (_three, list(IMAGENET_MEAN)),
    "std": (_positive_three, list(IMAGENET_STD)),
    "profile": (_one_of(*PROFILES), "presentation"),
    "weights": (_text, ""),
    "weights_sha256": (_sha256, ""),
    "trained": (_flag, _REQUIRED),
    "training_data": (_text, ""),
    "limits": (_text, ""),
    "image_kinds": (_image_kinds, [ImageKind.FFDM]),
    "implants": (_one_of("warn", "exclude"), "warn"),
    "sleep_seconds": (_seconds, 0.0),
}


def read_card(path: Path) -> ModelCard:
    """The model card at `path`; the weights file is not opened. Raises ModelError that names the file and the key."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(
            f"{path}: the model card cannot be read ({error.strerror}). Write its path at [model] card in the configuration; "
            "`fourview model demo-weights` makes a card with untrained demonstration weights."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not valid TOML: {error}") from error
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        raise ModelError(f"{path}: {unknown[0]}: unknown key; known are {', '.join(_KEYS)}")
    values: dict[str, Any] = {}
    for key, (parse, default) in _KEYS.items():
        if key not in table and default is _REQUIRED:
            raise ModelError(f"{path}: {key}: missing")
        try:
            values[key] = parse(table.get(key, default))
        except ValueError as error:
            raise ModelError(f"{path}: {key}: {error}") from None
    simulated = values["architecture"] == "simulated"
    if simulated and (values["weights"] or values["weights_sha256"] or values["trained"]):
        raise ModelError(f'{path}: architecture: "simulated" has no weights and is never trained: no key weights, trained = false')
    if not simulated and not values["weights"]:
        raise ModelError(f"{path}: weights: missing; write the name of the weights file beside this card")
    if not simulated and values["sleep_seconds"]:
        raise ModelError(f'{path}: sleep_seconds: only for architecture = "simulated"')
    values["weights"] = None if simulated else path.absolute().parent / values["weights"]
    return ModelCard(path=path.absolute(), **values)


def resolve_engine(card: ModelCard, configured: str) -> str:
    """What computes: "torch" or "simulated". `configured` is the key [model] engine: "auto", or a name that must fit the card."""
    engine = _ENGINES[card.architecture]
    if configured not in ("auto", engine):
        raise ModelError(f'[model] engine = "{configured}" does not run architecture "{card.architecture}"; write "auto" or "{engine}"')
    return engine


#: Profile -> what its numbers are at: goes up with every change of what `pipeline.pixels` computes; it is part of the model's identity.
PROFILE_REVISIONS: Mapping[str, str] = {"presentation": "2", "reference": "1"}


def identity(card: ModelCard, *, engine: str) -> ModelIdentity:
    """Everything of the card that may change a score. Reads the weights file only when the card does not state its hash."""
    weights_sha256 = card.weights_sha256
    if card.weights is not None and not weights_sha256:
        weights_sha256 = hashlib.sha256(_weights_bytes(card)).hexdigest()
    options = {
        "architecture": card.architecture,
        "input_size": str(card.input_size),
        "mean": ",".join(map(repr, card.mean)),
        "std": ",".join(map(repr, card.std)),
        "profile_revision": PROFILE_REVISIONS[card.profile],
    }
    return ModelIdentity(
        name=card.name,
        version=card.version,
        weights_sha256=weights_sha256,
        profile=card.profile,
        engine=engine,
        classes=card.classes,
        options=tuple(sorted(options.items())),
        trained=card.trained,
        manufacturer=card.manufacturer,
    )


def model_input(image: ModelImage, card: ModelCard) -> npt.NDArray[np.float32]:
    """What the network is given: float32 (1, 3, size, size), the grey in three channels, less `mean`, over `std`."""
    if image.grey.shape != (card.input_size, card.input_size):
        raise ModelError(f"the image is {image.grey.shape}, {card.path.name} wants {card.input_size} x {card.input_size}")
    # In float64, as the reference computed it, and rounded once.
    rgb = (np.stack([image.grey] * 3, axis=-1) - np.array(card.mean)) / np.array(card.std)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], dtype=np.float32)


# ---- loading ----


def load_classifier(card: ModelCard, *, allow_untrained: bool, device: str = "auto") -> Classifier:
    """The card's model, ready to classify. `device`: "auto" (CUDA when there is one), "cpu", "cuda".

    Raises ModelError when the weights are missing, changed, of another architecture or class count, hold code, or are untrained and
    `allow_untrained` is false. The number of threads is the caller's affair.
    """
    check_weights(card, allow_untrained=allow_untrained)
    if card.architecture == "simulated":
        return _SimulatedClassifier(card)
    data = _weights_bytes(card)
    found = hashlib.sha256(data).hexdigest()
    if card.weights_sha256 and found != card.weights_sha256:
        raise ModelError(
            f"{card.weights}: SHA-256 is {found}, the card {card.path.name} says {card.weights_sha256}: not the file that the card "
            "describes. Put the right file there, or write the new hash into the card together with a new version."
        )
    return _TorchClassifier(card, _state_dict(card, data), _torch_device(device))


def check_weights(card: ModelCard, *, allow_untrained: bool) -> None:
    """What can be told without torch: raises ModelError when the weights are untrained and must not be, or cannot be read."""
    if not card.trained and not allow_untrained:
        raise ModelError(
            f"{card.path}: the model is not trained, its numbers mean nothing; "
            "only for a demonstration write allow_untrained = true at [model]"
        )
    if card.weights is not None and not os.access(card.weights, os.R_OK):
        _weights_bytes(card)


def _weights_bytes(card: ModelCard) -> bytes:
    assert card.weights is not None
    try:
        return card.weights.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{card.weights}: the weights file cannot be read ({error.strerror}). Put the checkpoint there or write its name at weights in "
            f'{card.path}; `fourview model demo-weights` makes untrained ones: then write card = "weights/resnet50-demo.toml" and '
            "allow_untrained = true at [model]."
        ) from error


def _import_torch() -> Any:
    try:
        import torch
        import torchvision  # type: ignore[import-untyped]  # noqa: F401 - missing it has the same remedy
    except ImportError as error:
        raise ModelError(f"torch and torchvision are needed to read images ({error}): pip install 'fourview[inference]'") from error
    return torch


def _torch_device(device: str) -> Any:
    torch = _import_torch()
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ModelError('[model] device = "cuda": torch finds no CUDA device here; write "auto" or "cpu"')
    return torch.device("cuda" if device != "cpu" and available else "cpu")


def _state_dict(card: ModelCard, data: bytes) -> dict[str, Any]:
    """Parameter name -> tensor, from safetensors or a torch file: bare, under "model_state_dict", or with DataParallel's "module."."""
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


class _TorchClassifier:
    def __init__(self, card: ModelCard, state: dict[str, Any], device: Any) -> None:
        torch = _import_torch()
        network = _resnet50(len(card.classes))
        wanted = network.state_dict()
        missing = sorted(name for name in wanted if name not in state and not name.endswith("num_batches_tracked"))
        surplus = sorted(name for name in state if name not in wanted)
        if missing or surplus:
            named = ", ".join([f"no {name}" for name in missing[:3]] + [f"unknown {name}" for name in surplus[:3]])
            raise ModelError(
                f"{card.weights}: not the weights of a {card.architecture}: "
                f"{len(missing)} tensors are missing, {len(surplus)} unknown ({named})"
            )
        outputs = state["fc.weight"].shape[0] if state["fc.weight"].ndim else 0
        if outputs != len(card.classes):
            raise ModelError(
                f"{card.weights}: the checkpoint has {outputs} classes, the card {card.path.name} names {len(card.classes)}: "
                + ", ".join(card.classes)
            )
        for name, tensor in wanted.items():
            if name in state and state[name].shape != tensor.shape:
                shapes = f"shape {tuple(state[name].shape)}, a {card.architecture} wants {tuple(tensor.shape)}"
                raise ModelError(f"{card.weights}: {name} has {shapes}")
        network.load_state_dict(state, strict=False)
        self._card = card
        self._torch = torch
        self._device = device
        self._network = network.eval().requires_grad_(False).to(device=device, dtype=torch.float32, memory_format=torch.channels_last)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = False  # it picks kernels by the clock, so scores could differ between runs
            torch.backends.cudnn.deterministic = True
        # The first pass takes twice as long as the next, while kernels are made: not at the first patient's expense.
        with torch.inference_mode():
            self._network(self._batch(np.zeros((1, 3, card.input_size, card.input_size), np.float32)))

    def _batch(self, values: npt.NDArray[np.float32]) -> Any:
        return self._torch.from_numpy(values).to(self._device, memory_format=self._torch.channels_last)

    def classify(self, image: ModelImage) -> tuple[float, ...]:
        batch = self._batch(model_input(image, self._card))
        with self._torch.inference_mode():
            probabilities = self._torch.softmax(self._network(batch)[0], dim=0)
        return _checked(self._card, probabilities.tolist())


class _SimulatedClassifier:
    """A stand-in for tests and load: numbers from the image's hash."""

    def __init__(self, card: ModelCard) -> None:
        self._card = card

    def classify(self, image: ModelImage) -> tuple[float, ...]:
        time.sleep(self._card.sleep_seconds)
        sha = hashlib.sha256(np.ascontiguousarray(image.grey).data).digest()
        shares = [1 + int.from_bytes(hashlib.sha256(sha + bytes([index])).digest()[:4], "big") for index in range(len(self._card.classes))]
        return _checked(self._card, [share / sum(shares) for share in shares])


def _checked(card: ModelCard, probabilities: list[float]) -> tuple[float, ...]:
    if not all(map(math.isfinite, probabilities)) or abs(sum(probabilities) - 1) > _SUM_TOLERANCE:
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
    """Write resnet50-demo.safetensors and its card resnet50-demo.toml into `folder`; returns the card's path.

    The same bytes on every run with the same torch version. Files that are there and identical stay untouched. Raises ModelError
    without torch, OSError when the folder cannot be written.
    """
    torch = _import_torch()
    import safetensors.torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_DEMO_SEED)
        state = _demo_network(torch).state_dict()
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()})
    card = _DEMO_CARD.format(
        version=json.dumps(f"1 (torch {torch.__version__})"),
        classes=json.dumps(list(CLASSES)),
        weights_sha256=hashlib.sha256(data).hexdigest(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    # The card last: it names the hash of weights that are there.
    _write_unless_identical(folder / "resnet50-demo.safetensors", data)
    _write_unless_identical(folder / "resnet50-demo.toml", card.encode())
    return folder / "resnet50-demo.toml"


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


def _write_unless_identical(path: Path, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as temporary:
        try:
            temporary.write(data)
            temporary.flush()
            os.fsync(temporary.fileno())
            Path(temporary.name).chmod(0o644)
            Path(temporary.name).replace(path)
        except BaseException:
            Path(temporary.name).unlink(missing_ok=True)
            raise
