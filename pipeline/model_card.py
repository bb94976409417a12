"""The model card: everything that must be known about weights to use them, read from a TOML file beside them.

weights/resnet50.toml explains every key. Nothing here imports torch: receivers and the command line read cards too.
"""

from __future__ import annotations

import hashlib
import math
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.study import ImageKind, ModelIdentity

#: What the replaced system's checkpoints were trained on, in the order of their outputs.
CLASSES = ("Mass", "Calcification", "Architectural/Asymmetry", "Normal")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ARCHITECTURES = ("resnet50", "simulated")
#: The names in pipeline.pixels.PROFILES; reading a card must not cost the import of scikit-image and scipy.
PROFILES = ("presentation", "reference")
#: How far a self-test's probabilities may be from the expected ones: processors differ in the sixth digit.
SELF_TEST_TOLERANCE = 1e-4
#: Each costs as much as the plain image, and all are in memory at once.
MOST_ROTATIONS = 8
#: How far the sum of probabilities may be from 1.
SUM_TOLERANCE = 1e-3


class ModelError(Exception):
    """The model cannot be used, or gave no usable answer; says what to do about it."""


class CardMistakes(ModelError):
    """A card that cannot be used. `complaints`: a sentence for each mistake, with file and key."""

    def __init__(self, path: Path, complaints: Sequence[str]) -> None:
        self.complaints = tuple(f"{path}: {complaint}" for complaint in complaints)
        super().__init__("\n".join(self.complaints))


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Variants of the image that are read beside it; the probabilities are the mean over the plain image and each variant alone."""

    horizontal_flip: bool = False  # left and right exchanged
    vertical_flip: bool = False
    rotations_degrees: tuple[float, ...] = ()  # ascending; above zero: counter-clockwise

    def __bool__(self) -> bool:
        return self.horizontal_flip or self.vertical_flip or bool(self.rotations_degrees)


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """An image whose probabilities are known."""

    image: Path  # PNG, one channel of 8 or 16 bits: the square that the network sees, before mean and std; see pipeline/self_test.py
    probabilities: tuple[float, ...]  # in the order of the card's classes; the card gives them by name
    tolerance: float


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
    augmentation: Augmentation = Augmentation()
    self_test: SelfTest | None = None


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


def _rotations(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) > MOST_ROTATIONS:
        raise ValueError(f"must be a list of at most {MOST_ROTATIONS} angles in degrees")
    angles = tuple(sorted(_number(item) for item in value))
    if len(set(angles)) < len(angles) or not all(0 < abs(angle) < 180 for angle in angles):
        raise ValueError("must be different angles between -180 and 180 degrees, without 0: the plain image is always read")
    return angles


def _probabilities(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not all(0 <= _number(number) <= 1 for number in value.values()):
        raise ValueError("must be a table of class names with a number from 0 to 1 for each")
    if value and abs(sum(value.values()) - 1) > SUM_TOLERANCE:
        raise ValueError(f"must sum to 1, not to {sum(value.values()):g}")
    return {str(name): float(number) for name, number in value.items()}


def _tolerance(value: Any) -> float:
    if not 0 < _number(value) <= 0.1:
        raise ValueError("must be above 0 and at most 0.1")
    return float(value)


_REQUIRED = object()
#: Key -> how to read it, and its default. A key with a dot stands in the table before the dot.
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
    "augmentation.horizontal_flip": (_flag, False),
    "augmentation.vertical_flip": (_flag, False),
    "augmentation.rotations_degrees": (_rotations, []),
    "self_test.image": (_text, ""),
    "self_test.probabilities": (_probabilities, {}),
    "self_test.tolerance": (_tolerance, SELF_TEST_TOLERANCE),
}


def read_card(path: Path) -> ModelCard:
    """The model card at `path`; the weights file is not opened. Raises ModelError, for mistakes in the card its kind CardMistakes."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ModelError(
            f"{path}: the model card cannot be read ({error.strerror}). Write its path at [model] card in the configuration; "
            "`fourview model demo-weights` makes a card with untrained demonstration weights."
        ) from error
    except UnicodeDecodeError as error:
        raise CardMistakes(path, [f"not UTF-8: {error}"]) from error
    return parse_card(text, path)


def parse_card(text: str, path: Path) -> ModelCard:
    """The model card with this TOML text, as if it stood at `path`; raises CardMistakes that names every wrong key."""
    try:
        table = _with_dotted_keys(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise CardMistakes(path, [f"not valid TOML: {error}"]) from error
    complaints = [f"{key}: unknown key; known are {', '.join(_KEYS)}" for key in sorted(set(table) - set(_KEYS))]
    values: dict[str, Any] = {}
    for key, (parse, default) in _KEYS.items():
        if key not in table and default is _REQUIRED:
            complaints.append(f"{key}: missing")
            continue
        try:
            values[key] = parse(table.get(key, default))
        except ValueError as error:
            complaints.append(f"{key}: {error}")
    complaints = complaints or _contradictions(values)
    if complaints:
        raise CardMistakes(path, complaints)
    folder = path.absolute().parent
    augmentation, self_test = _popped(values, "augmentation."), _popped(values, "self_test.")
    values["weights"] = folder / values["weights"] if values["weights"] else None
    values["augmentation"] = Augmentation(**augmentation)
    if self_test["image"]:
        values["self_test"] = SelfTest(
            image=folder / self_test["image"],
            probabilities=tuple(self_test["probabilities"][name] for name in values["classes"]),
            tolerance=self_test["tolerance"],
        )
    return ModelCard(path=path.absolute(), **values)


def _with_dotted_keys(table: Mapping[str, Any]) -> dict[str, Any]:
    inner = {key.split(".")[0] for key in _KEYS if "." in key}
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if key in inner and isinstance(value, dict):
            flat |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            flat[key] = value
    return flat


def _popped(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): values.pop(key) for key in list(values) if key.startswith(prefix)}


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """What is wrong between keys that are each right."""
    complaints = []
    simulated = values["architecture"] == "simulated"
    if simulated and (values["weights"] or values["weights_sha256"] or values["trained"]):
        complaints.append('architecture: "simulated" has no weights and is never trained: no key weights, trained = false')
    if simulated and any(values[key] for key in _KEYS if key.startswith("augmentation.")):
        complaints.append('augmentation: not for architecture = "simulated", which sees no picture')
    if not simulated and not values["weights"]:
        complaints.append("weights: missing; write the name of the weights file beside this card")
    if not simulated and values["sleep_seconds"]:
        complaints.append('sleep_seconds: only for architecture = "simulated"')
    image, expected = values["self_test.image"], values["self_test.probabilities"]
    if bool(image) != bool(expected):
        complaints.append(f"self_test.{'probabilities' if image else 'image'}: missing; a self-test has an image and its probabilities")
    elif expected and set(expected) != set(values["classes"]):
        complaints.append(f"self_test.probabilities: for {', '.join(expected)}; the classes are {', '.join(values['classes'])}")
    return complaints


#: Profile -> what its numbers are at: goes up with every change of what `pipeline.pixels` computes; it is part of the model's identity.
PROFILE_REVISIONS: Mapping[str, str] = {"presentation": "2", "reference": "1"}


def identity(card: ModelCard, *, engine: str) -> ModelIdentity:
    """Everything of the card that may change a score. Reads the weights file only when the card does not state its hash."""
    options = {
        "architecture": card.architecture,
        "input_size": str(card.input_size),
        "mean": ",".join(map(repr, card.mean)),
        "std": ",".join(map(repr, card.std)),
        "profile_revision": PROFILE_REVISIONS[card.profile],
    }
    if card.augmentation:
        options["augmentation"] = repr(card.augmentation)
    return ModelIdentity(
        name=card.name,
        version=card.version,
        weights_sha256=weights_sha256(card),
        profile=card.profile,
        engine=engine,
        classes=card.classes,
        options=tuple(sorted(options.items())),
        trained=card.trained,
        manufacturer=card.manufacturer,
    )


def weights_sha256(card: ModelCard) -> str:
    """As the card states it, else of the file; "" for a card without weights. Raises ModelError when the file cannot be read."""
    return card.weights_sha256 if card.weights is None or card.weights_sha256 else file_sha256(card)


def file_sha256(card: ModelCard) -> str:
    """Of the weights file of a card that has one; raises ModelError where it cannot be read."""
    assert card.weights is not None
    try:
        with card.weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(card, error) from error


def check_weights(card: ModelCard, *, allow_untrained: bool) -> None:
    """What can be told without torch: raises ModelError when the weights are untrained and must not be, or cannot be read."""
    if not card.trained and not allow_untrained:
        raise ModelError(
            f"{card.path}: the model is not trained, its numbers mean nothing; "
            "only for a demonstration write allow_untrained = true at [model]"
        )
    if card.weights is not None and not os.access(card.weights, os.R_OK):
        weights_bytes(card)


def weights_bytes(card: ModelCard) -> bytes:
    """The weights file of a card that has one; raises ModelError where it cannot be read."""
    assert card.weights is not None
    try:
        return card.weights.read_bytes()
    except OSError as error:
        raise _unreadable(card, error) from error


def _unreadable(card: ModelCard, error: OSError) -> ModelError:
    return ModelError(
        f"{card.weights}: the weights file cannot be read ({error.strerror}). Put the checkpoint there or write its name at weights in "
        f'{card.path}; `fourview model demo-weights` makes untrained ones: then write card = "weights/resnet50-demo.toml" and '
        "allow_untrained = true at [model]."
    )
