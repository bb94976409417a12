"""OpenVINO: the network's graph made of a checkpoint's tensors, kept in a file, compiled for this processor. The only room with openvino.

The graph is written down here, node by node, since openvino's own converter would need torch at every start and carries telemetry. That
it is the same network is not believed but shown: `pipeline.engines` compares it with torch before it may read an image. It computes in
32 bits; its numbers do not depend on the number of threads.

A kept graph is one file: a line of JSON that says what is in it, the graph as XML, and the weights. It is written beside its place, synced
and renamed, so several processes and hosts may make it at once; a file that is damaged is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.model_card import ModelError

if TYPE_CHECKING:
    from openvino import Model  # type: ignore[import-untyped]

log = logging.getLogger(__name__)

Array = npt.NDArray[np.float32]

#: Goes up with every change of the graph: what was kept by another one is not used.
CONVERTER = "1"
#: Blocks of each stage of a ResNet50 (He et al., 2015, table 1).
_BLOCKS = (3, 4, 6, 3)
_EPSILON = 1e-5  # of batch normalisation, as torchvision has it
#: What a killed process left half written is removed after this long.
_ABANDONED_SECONDS = 3600.0
#: The first line is filled up to this, so that the rest begins at a known place.
_HEADER_BYTES = 4096


def installed() -> bool:
    """Whether openvino can be imported here; it is not imported."""
    return find_spec("openvino") is not None


def version() -> str:
    """The version of openvino here, "" without it; it is not imported."""
    try:
        return installed_version("openvino")
    except PackageNotFoundError:
        return ""


def require() -> None:
    """Raises ModelError, with the remedy, where openvino cannot be imported."""
    _import_openvino()


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            f"this installation reads its images by OpenVINO, which cannot be imported here ({error}): pip install 'fourview[openvino]'. "
            'Or write engine = "torch" at [model], on every host: that is another identity of the model, and another run of each study.'
        ) from error
    return openvino


# ---- the graph ----


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as openvino has it. `probe`: what torch says of a made input (logits), to compare with on any processor."""

    model: Model
    probe: tuple[float, ...]


def convert(state: Mapping[str, Array], size: int) -> Model:
    """torchvision's ResNet50 with these tensors (names as in its state_dict) for one float32 image (1, 3, size, size).

    Its outputs: what each class's logit gains at each place of the last feature maps (1, classes, rows, columns), and the logits
    (1, classes). The first is Grad-CAM before ReLU: see `pipeline.model`.
    """
    ov = _import_openvino()
    from openvino import opset13 as op

    def tensor(name: str) -> Any:
        return op.constant(np.ascontiguousarray(state[name], dtype=np.float32))

    def convolved(value: Any, name: str, stride: int = 1, pad: int = 0) -> Any:
        return op.convolution(value, tensor(f"{name}.weight"), [stride] * 2, [pad] * 2, [pad] * 2, [1, 1])

    def normed(value: Any, name: str) -> Any:
        scale_and_shift = (tensor(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var"))
        return op.batch_norm_inference(value, *scale_and_shift, _EPSILON)

    image = op.parameter([1, 3, size, size], np.float32, name="image")
    value = op.relu(normed(convolved(image, "conv1", stride=2, pad=3), "bn1"))
    value = op.max_pool(value, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3], "floor", "explicit").output(0)
    for stage, blocks in enumerate(_BLOCKS, start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            inner = op.relu(normed(convolved(value, f"{name}.conv1"), f"{name}.bn1"))
            inner = op.relu(normed(convolved(inner, f"{name}.conv2", stride=stride, pad=1), f"{name}.bn2"))
            inner = normed(convolved(inner, f"{name}.conv3"), f"{name}.bn3")
            beside = value if block else normed(convolved(value, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
            value = op.relu(op.add(inner, beside))
    pooled = op.reduce_mean(value, op.constant(np.array([2, 3], dtype=np.int64)), keep_dims=False)
    logits = op.add(op.matmul(pooled, tensor("fc.weight"), False, True), tensor("fc.bias"))
    each = op.constant(np.ascontiguousarray(state["fc.weight"], dtype=np.float32)[:, :, None, None])
    gains = op.convolution(value, each, [1, 1], [0, 0], [0, 0], [1, 1])
    return ov.Model([op.result(gains), op.result(logits)], [image], "resnet50")


# ---- kept in a file ----


def kept_at(folder: Path, weights_sha256: str, size: int) -> Path:
    """Where the graph of these weights is kept, of this converter and for the openvino that is installed here."""
    key = hashlib.sha256("|".join((weights_sha256, version(), CONVERTER, str(size))).encode()).hexdigest()
    return folder / f"openvino-{key[:32]}"


def keep(graph: Graph, path: Path) -> None:
    """Make the graph the content of `path`, at once or not at all. Raises OSError."""
    ov = _import_openvino()
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as folder:
        made = Path(folder)
        # Without the last argument it halves the weights to 16 bits.
        ov.save_model(graph.model, made / "graph.xml", compress_to_fp16=False)
        xml = (made / "graph.xml").read_bytes()
        weights = np.fromfile(made / "graph.bin", dtype=np.uint8)
        digest = hashlib.sha256(xml)
        digest.update(weights.data)
        header = json.dumps({"sha256": digest.hexdigest(), "xml_bytes": len(xml), "probe": graph.probe}).encode() + b"\n"
        with (made / "kept").open("wb") as file:
            file.write(header.rjust(_HEADER_BYTES))
            file.write(xml)
            file.write(weights.data)
            file.flush()
            os.fsync(file.fileno())
        (made / "kept").replace(path)


def open_kept(path: Path) -> Graph | None:
    """The graph that is kept at `path`; None where none is or what is there is damaged, which is said in the log. Raises ModelError without
    openvino."""
    try:
        # Read, not mapped: a mount that goes away would take with it a process that has parts of itself there.
        stored = np.fromfile(path, dtype=np.uint8)
        header, content = json.loads(stored[:_HEADER_BYTES].tobytes()), stored[_HEADER_BYTES:]
        whole = hashlib.sha256(content.data).hexdigest() == header["sha256"]
        split, probe = int(header["xml_bytes"]), tuple(float(one) for one in header["probe"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the kept graph cannot be read, it is made anew file=%s reason=%r", path, str(error))
        return None
    if not whole:
        log.warning("the kept graph is damaged, it is made anew file=%s", path)
        return None
    ov = _import_openvino()
    return Graph(ov.Core().read_model(content[:split].tobytes(), ov.Tensor(content[split:])), probe)


def _remove_abandoned(folder: Path) -> None:
    for left in folder.glob(".making-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                for file in left.iterdir():
                    file.unlink()
                left.rmdir()


# ---- compiled ----


class Network:
    """A graph compiled for this processor. `forward` may be called by several threads at once: each uses a request of its own.

    `streams`: so many images are computed at the same time. `threads`: for all of them together; 0: one for each core.
    """

    def __init__(self, model: Model, *, streams: int = 1, threads: int = 0) -> None:
        ov = _import_openvino()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            # One stream: an image uses all cores, and two at once go one after the other.
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            # Named, since where a processor has 16-bit arithmetic it would be used.
            "INFERENCE_PRECISION_HINT": "f32",
            # Every process would bind itself to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = ov.Core().compile_model(model, "CPU", settings)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def forward(self, values: Array) -> tuple[Array, Array]:
        """What each class gains at each place (images, classes, rows, columns) and logits (images, classes) of `values`
        (images, 3, size, size), one image after the other: a batch takes longer."""
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            gains, logits = [], []
            for index in range(len(values)):
                request.infer([values[index : index + 1]], share_inputs=True)
                gains.append(np.array(request.get_output_tensor(0).data))
                logits.append(np.array(request.get_output_tensor(1).data))
        finally:
            self._idle.put(request)
        return np.concatenate(gains), np.concatenate(logits)


def softmax(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Probabilities (images, classes) of logits, in 64 bits."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
