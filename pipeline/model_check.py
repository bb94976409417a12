"""Whether a model is the one that its card describes: everything wrong with it in words, and the self-test that proves it by numbers."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline import model
from pipeline.model_card import CardMistakes, ModelCard, ModelError, SelfTest, parse_card, read_card, weights_bytes
from pipeline.self_test import card_with_self_test, grey_of, png, read_image, sixteen_bits, write_unless_identical

if TYPE_CHECKING:
    from pipeline.pixels import ModelImage


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. A `remedy` beside `ok` is advice."""

    ok: bool
    what: str
    remedy: str = ""


def check_model(card_path: Path, *, device: str = "auto") -> tuple[Finding, ...]:
    """Look at card, weights and self-test of a model, and at as much as possible although something is wrong; raises nothing.

    The model may be used when every finding is ok. `device` is that of `load_classifier`.
    """
    try:
        card = read_card(card_path)
    except CardMistakes as mistakes:
        return tuple(Finding(False, complaint, _CORRECT_THE_CARD) for complaint in mistakes.complaints)
    except ModelError as error:
        return (Finding(False, str(error)),)
    return tuple(_findings(card, device))


def _findings(card: ModelCard, device: str) -> Iterator[Finding]:
    yield Finding(True, f"{card.path}: {card.name} {card.version}, {card.architecture}, classes {', '.join(card.classes)}")
    if not card.trained:
        yield Finding(True, "the model is not trained, its numbers mean nothing", "It loads only with allow_untrained = true at [model].")
    try:
        classifier = yield from _loaded(card, device)
    except ModelError as error:
        yield Finding(False, str(error))
        return
    if classifier is None:
        return
    if card.self_test is None:
        yield Finding(True, "no self-test: the order of the classes is the card's word alone", _MAKE_ONE)
        return
    try:
        yield from _self_test(card, card.self_test, classifier.classify(_seen(read_image(card, card.self_test))))
    except ModelError as error:
        yield Finding(False, str(error), _MAKE_ONE)


def _loaded(card: ModelCard, device: str) -> Generator[Finding, None, model.Classifier | None]:
    """Findings of the weights; returns the model when they are sound. Raises ModelError when it goes no further."""
    if card.weights is None:
        yield Finding(True, "no weights: the numbers come from the image's hash and mean nothing")
        return model.load_classifier(card, allow_untrained=True)
    data = weights_bytes(card)
    yield _hash(card, data)
    state = model.read_checkpoint(card, data)
    faults = model.checkpoint_faults(card, state)
    if faults:
        yield from (Finding(False, f"{card.weights}: {fault}", _OTHER_WEIGHTS) for fault in faults)
        return None
    yield Finding(True, f"{len(state)} tensors of the names and shapes of a {card.architecture} with {len(card.classes)} outputs")
    return model.classifier_of(card, state, device=device)


_CORRECT_THE_CARD = "Correct the card; weights/resnet50.toml explains every key."
_OTHER_WEIGHTS = "Put the file there that the card describes, or correct architecture and classes in the card."
_MAKE_ONE = (
    "`fourview model self-test CARD IMAGE` writes one. It holds what the model says today; write what your training code says of the same "
    "image at [self_test.probabilities], by class name, and the self-test proves the order of the classes and the normalisation too."
)


def _hash(card: ModelCard, data: bytes) -> Finding:
    found = hashlib.sha256(data).hexdigest()
    if not card.weights_sha256:
        remedy = f'Write weights_sha256 = "{found}" into the card: then a file that was exchanged is refused.'
        return Finding(True, f"{card.weights}: no SHA-256 in the card, the file is taken as it is", remedy)
    if found != card.weights_sha256:
        remedy = "Put the right file there, or write the new hash into the card together with a new version."
        return Finding(False, f"{card.weights}: SHA-256 is {found}, the card says {card.weights_sha256}", remedy)
    return Finding(True, f"{card.weights}: SHA-256 as in the card")


def _self_test(card: ModelCard, test: SelfTest, found: tuple[float, ...]) -> Iterator[Finding]:
    """What the probabilities `found` of the self-test's image say."""
    if _agree(found, test.probabilities, test.tolerance):
        yield Finding(
            True, "self-test: each class has its expected number: weights, normalisation and class order are those it was written with"
        )
        alike = _alike(card, test)
        if alike:
            what = f"self-test: it could not tell {' from '.join(alike)}, whose numbers are alike"
            yield Finding(True, what, "Take an image whose numbers differ for every class.")
        return
    each = zip(card.classes, found, test.probabilities, strict=True)
    numbers = ", ".join(f"{name} {value:.6f} instead of {expected:.6f}" for name, value, expected in each)
    what = f"self-test: the numbers differ by more than {test.tolerance:g}: {numbers}"
    if not _agree(sorted(found), sorted(test.probabilities), test.tolerance):
        yield Finding(False, what, "Weights, mean, std or augmentation are not those it was written with: correct them, or write it anew.")
        return
    order = dict(zip(np.argsort(found), (card.classes[index] for index in np.argsort(test.probabilities)), strict=True))
    fitting = json.dumps([order[output] for output in range(len(found))], ensure_ascii=False)
    yield Finding(False, f"{what}. They fit in another order of the classes", f"Write classes = {fitting} if that is the network's order.")


def _agree(found: Sequence[float], expected: Sequence[float], tolerance: float) -> bool:
    return all(abs(one - other) <= tolerance for one, other in zip(found, expected, strict=True))


def _alike(card: ModelCard, test: SelfTest) -> tuple[str, ...]:
    """The first two classes that could be exchanged without the self-test's notice; empty when there are none."""
    for first, second in itertools.combinations(range(len(card.classes)), 2):
        if abs(test.probabilities[first] - test.probabilities[second]) <= 2 * test.tolerance:
            return card.classes[first], card.classes[second]
    return ()


def _seen(grey: npt.NDArray[np.float32]) -> ModelImage:
    from pipeline.pixels import ModelImage

    return ModelImage(grey, (0, 0, grey.shape[1], grey.shape[0]), 0.0, ())


def write_self_test(card_path: Path, image: ModelImage, *, device: str = "auto") -> Path:
    """Write `image` as PNG beside the card and what the model says of it into the card; returns the image's path.

    An earlier self-test is replaced; the rest of the card, its comments too, stays. `image` is what `pipeline.pixels.prepare` makes with
    the card's profile and size. Raises ModelError when the model cannot be loaded, OSError when the folder cannot be written.
    """
    card = read_card(card_path)
    stored = sixteen_bits(image.grey)
    classifier = model.load_classifier(card, allow_untrained=True, device=device)
    probabilities = classifier.classify(_seen(grey_of(stored)))
    name = f"{card.path.stem}-selftest.png"
    changed = card_with_self_test(card, card.path.read_text("utf-8"), name, probabilities)
    parse_card(changed, card.path)
    write_unless_identical(card.path.parent / name, png(stored))
    write_unless_identical(card.path, changed.encode())
    return card.path.parent / name
