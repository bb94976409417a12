"""Which engine computes a card's model: what the configuration says, read with what this installation has settled. Imports no engine."""

from __future__ import annotations

from pathlib import Path

from pipeline import openvino_engine
from pipeline.model_card import ModelCard, ModelError, weights_sha256
from store.engines import EngineRecord

#: One of these is there where a GPU can be used: torch need not be imported to learn that there is none.
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


class NotSettled(ModelError):
    """No worker has settled yet which engine computes this model."""


def settled_engine(card: ModelCard, configured: str, record: EngineRecord) -> str | None:
    """What computes this card's model: "torch", "openvino" or "simulated"; None: that is not settled yet. `configured` is the key [model]
    engine. Raises ModelError for a name that does not run this card, or when its weights cannot be read to learn their hash."""
    if card.architecture == "simulated":
        if configured != "auto":
            raise ModelError(f'[model] engine = "{configured}" does not run architecture "simulated"; write "auto"')
        return "simulated"
    engine = record.auto if configured == "auto" else configured
    if engine != "openvino":
        return engine or None
    verdict = record.verdict(weights_sha256(card))
    if verdict is None:
        return None
    return "openvino" if verdict.agrees else "torch"


def likely_engine(card: ModelCard, configured: str, record: EngineRecord) -> str:
    """The same, and where it is not settled what would be tried first on this host."""
    settled = settled_engine(card, configured, record)
    if settled is not None:
        return settled
    return "openvino" if "openvino" in (configured, record.auto) or (not record.auto and openvino_engine.installed()) else "torch"


def auto_here(device: str) -> str:
    """What `auto` would mean on this host: OpenVINO where it is installed and no GPU is used."""
    return "torch" if not openvino_engine.installed() or _gpu(device) else "openvino"


def _gpu(device: str) -> bool:
    if device != "auto":
        return device == "cuda"
    if not any(Path(one).exists() for one in _GPU_DEVICES):
        return False
    from pipeline.model import cuda_is_available

    return cuda_is_available()
