"""A model on the engine that was chosen for it, and the gate that OpenVINO passes before it may read: the same numbers as torch.

torch is the measure. When OpenVINO first meets weights, both read the same images: a made one, and that of the card's self-test. Where
their probabilities differ by more than `GATE_TOLERANCE`, OpenVINO is refused and torch reads. What torch said of the made image is kept
with the graph: later starts compare with it, on whatever processor, and load no torch.

What came of it is recorded (`store.engines`), since the engine is part of the model's identity: `Models` is the worker's way to it.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import openvino_engine
from pipeline.engine_choice import auto_here, settled_engine
from pipeline.model import (
    Augmentation,
    Classifier,
    ModelCard,
    ModelError,
    Reading,
    check_hash,
    check_weights,
    checked,
    classifier_of,
    load_classifier,
    model_input,
    read_card,
    read_checkpoint,
    verified_weights,
)
from pipeline.model_card import file_sha256, weights_sha256
from pipeline.pixels import ModelImage
from pipeline.self_test import read_image
from store.engines import Engines, Verdict

log = logging.getLogger(__name__)

#: How far OpenVINO's probabilities may be from torch's. Logits too are compared, `_LOGIT_TOLERANCE` of the largest: where one class has
#: all, probabilities say little.
GATE_TOLERANCE = 1e-4
_LOGIT_TOLERANCE = 1e-3
#: How long another process may take to convert: a hundred times what it does.
CONVERT_SECONDS = 600.0
#: Its exit code where the gate did not let pass.
_REFUSED = 3


class EngineRefused(ModelError):
    """OpenVINO does not give torch's numbers for these weights here."""


def load(card: ModelCard, *, engine: str, allow_untrained: bool, device: str = "auto", kept_in: Path | None = None) -> Classifier:
    """The card's model on `engine`, ready to read. `kept_in`: the folder where OpenVINO's graphs are kept; None: none is kept.

    Raises ModelError like `load_classifier` and where openvino or what it needs is missing, EngineRefused where the gate does not let it
    pass.
    """
    if engine != "openvino":
        return load_classifier(card, allow_untrained=allow_untrained, device=device)
    if device == "cuda":
        raise ModelError('[model] device = "cuda": OpenVINO computes on the processor here; write engine = "torch", or device = "cpu"')
    check_weights(card, allow_untrained=allow_untrained)
    sha256 = file_sha256(card)
    check_hash(card, sha256)
    path = openvino_engine.kept_at(kept_in, sha256, card.input_size) if kept_in is not None else None
    graph = openvino_engine.open_kept(path) if path is not None else None
    if graph is None and path is not None and _lies_there(card):
        _convert_apart(card, path)
        graph = openvino_engine.open_kept(path)
    if graph is None:
        return _converted(card, path)
    classifier = OpenVinoClassifier(card, openvino_engine.Network(graph.model))
    _compare("the made image", classifier.probe(), np.array(graph.probe))
    return classifier


def _lies_there(card: ModelCard) -> bool:
    """Whether another process that reads the card gets this one."""
    try:
        return read_card(card.path) == card
    except ModelError:
        return False


def _convert_apart(card: ModelCard, path: Path) -> None:
    """Convert, compare and keep in a process of its own: what torch takes of memory goes with it. Raises like `load`."""
    openvino_engine.require()
    command = [sys.executable, "-m", "pipeline.engines", str(card.path), str(path)]
    try:
        ended = subprocess.run(  # nosec B603 # noqa: S603 - our own command line
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CONVERT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{card.path}: openvino's graph was not made within {CONVERT_SECONDS:g} s") from error
    said = ended.stdout.strip()
    if ended.returncode == _REFUSED:
        raise EngineRefused(said)
    if ended.returncode != 0:
        last = (ended.stderr.strip().splitlines() or [""])[-1]
        raise ModelError(said or f"{card.path}: the process that makes openvino's graph ended with {ended.returncode}: {last}")
    log.info("openvino converted card=%s", card.path)


def main(card_path: str, path: str) -> int:
    """What the process of `_convert_apart` does; the exit code, after what is wrong was printed."""
    try:
        _converted(read_card(Path(card_path)), Path(path))
    except ModelError as error:
        print(error)
        return _REFUSED if isinstance(error, EngineRefused) else 1
    return 0


def _converted(card: ModelCard, path: Path | None) -> Classifier:
    openvino_engine.require()
    state = read_checkpoint(card, verified_weights(card))
    by_torch = classifier_of(card, state, device="cpu")
    tensors = {name: tensor.float().numpy() for name, tensor in state.items()}
    model = openvino_engine.convert(tensors, card.input_size)
    classifier = OpenVinoClassifier(card, openvino_engine.Network(model))
    graph = openvino_engine.Graph(model, tuple(by_torch.logits(probe_input(card.input_size)).tolist()))
    _compare("the made image", classifier.probe(), np.array(graph.probe))
    given = _self_test_input(card)
    if given is not None:
        _compare("the self-test's image", classifier.logits(given), by_torch.logits(given))
    if path is not None:
        try:
            openvino_engine.keep(graph, path)
        except OSError as error:
            log.warning("openvino's graph could not be kept, it is made again at the next start file=%s reason=%r", path, error.strerror)
    return classifier


def _self_test_input(card: ModelCard) -> npt.NDArray[np.float32] | None:
    """The image of the card's self-test as the network is given it; None where there is none that can be used."""
    if card.self_test is None:
        return None
    try:
        grey = read_image(card, card.self_test)
    except ModelError as error:
        log.warning("openvino is compared with torch by the made image alone reason=%r", str(error))
        return None
    return model_input(ModelImage(grey, (0, 0, *grey.shape), 0.0, ()), replace(card, augmentation=Augmentation()))


def _compare(what: str, found: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> None:
    """Raises EngineRefused unless these logits (images, classes) are those of torch."""
    with np.errstate(invalid="ignore", over="ignore"):
        shares, wanted = openvino_engine.softmax(found.reshape(1, -1)), openvino_engine.softmax(expected.reshape(1, -1))
        apart = float(np.abs(shares - wanted).max())
        logits_apart = float(np.abs(found.ravel() - expected.ravel()).max() / max(1.0, float(np.abs(expected).max())))
    # Written so that what is no number does not pass.
    if not (apart <= GATE_TOLERANCE and logits_apart <= _LOGIT_TOLERANCE):
        raise EngineRefused(
            f"openvino {openvino_engine.version()} does not give torch's numbers for {what}: probabilities differ by {apart:.2g}, allowed "
            f"are {GATE_TOLERANCE:g}; logits by {logits_apart:.2g} of the largest, allowed are {_LOGIT_TOLERANCE:g}"
        )
    log.info("openvino gives torch's numbers image=%r probabilities_differ_by=%.2g logits_by=%.2g", what, apart, logits_apart)


def probe_input(size: int) -> npt.NDArray[np.float32]:
    """The made image as the network is given it, float32 (1, 3, size, size): waves of integers, the same everywhere."""
    y, x = np.mgrid[0:size, 0:size].astype(np.int64)
    grey = ((x * x + 3 * x * y) // size % 64 + (2 * y * size > x * x) * 64).astype(np.float32) / np.float32(32) - np.float32(2)
    return np.ascontiguousarray(np.broadcast_to(grey, (1, 3, size, size)))


class Models:
    """The models of one worker, and their engines: settled here where no other worker of the installation has done so.

    Whoever is first speaks for all: a host on which it is otherwise refuses to read, as its numbers would bear a wrong identity.
    """

    def __init__(
        self, engines: Engines, *, configured: str, device: str, allow_untrained: bool, kept_in: Path | None, process: str
    ) -> None:
        self._engines = engines
        self._configured = configured
        self._device = device
        self._allow_untrained = allow_untrained
        self._kept_in = kept_in
        self._process = process
        self._compared: dict[ModelCard, Classifier] = {}  # what was loaded to compare it

    def engine_of(self, card: ModelCard) -> str:
        """What computes this card's model for every process of this installation. Raises ModelError."""
        record = self._engines.record()
        if self._configured == "auto" and not record.auto and card.weights is not None:
            record = self._engines.settle_auto(auto_here(self._device), process=self._process)
            log.info("engine settled auto=%s", record.auto)
        engine = settled_engine(card, self._configured, record)
        return engine if engine is not None else self._settled(card)

    def _settled(self, card: ModelCard) -> str:
        try:
            self._compared[card] = self._load(card, "openvino")
            found = Verdict(True)
        except EngineRefused as refused:
            found = Verdict(False, str(refused))
        stands = self._engines.settle_weights(weights_sha256(card), found, process=self._process)
        if stands.agrees:
            return "openvino"
        log.warning("openvino is refused, torch reads card=%s reason=%r", card.path, stands.reason)
        self._compared.pop(card, None)
        return "torch"

    def load(self, card: ModelCard, engine: str) -> Classifier:
        """The card's model on the engine that `engine_of` said. Raises ModelError."""
        compared = self._compared.pop(card, None)
        if compared is not None and engine == "openvino":
            return compared
        try:
            return self._load(card, engine)
        except EngineRefused as refused:
            raise ModelError(
                f"this installation reads by OpenVINO with {card.path}, and this host may not: {refused}. Install the version of openvino "
                'that its other hosts have, or write engine = "torch" at [model] on every host'
            ) from refused

    def forget_compared(self) -> None:
        """Let go of what was compared and is not read with."""
        self._compared.clear()

    def _load(self, card: ModelCard, engine: str) -> Classifier:
        return load(card, engine=engine, allow_untrained=self._allow_untrained, device=self._device, kept_in=self._kept_in)


class OpenVinoClassifier:
    """A loaded model that OpenVINO computes."""

    def __init__(self, card: ModelCard, network: openvino_engine.Network) -> None:
        self._card = card
        self._network = network

    def read(self, image: ModelImage) -> Reading:
        gains, logits = self._network.forward(model_input(image, self._card))
        probabilities = checked(self._card, openvino_engine.softmax(logits).mean(axis=0).tolist())
        best = probabilities.index(max(probabilities))
        heat_map: npt.NDArray[np.float32] = np.maximum(gains[0, best], np.float32(0))
        highest = float(heat_map.max())
        return Reading(probabilities, heat_map / np.float32(highest) if highest > 0 else heat_map)

    def classify(self, image: ModelImage) -> tuple[float, ...]:
        return self.read(image).probabilities

    def logits(self, given: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Of one input (1, 3, size, size)."""
        logits: npt.NDArray[np.float32] = self._network.forward(given)[1][0]
        return logits

    def probe(self) -> npt.NDArray[np.float32]:
        """Logits of the made image. The first of a process takes longer than the next: not at the first patient's expense."""
        return self.logits(probe_input(self._card.input_size))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
