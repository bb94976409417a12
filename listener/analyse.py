"""Images without a server: file in, scores out, with the numbers that a data scientist compares with those of training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from listener.show import printable
from pipeline.decode import DecodeFailed, Decoder, Frame
from pipeline.heat_colours import heat_map_picture
from pipeline.heat_map import over_box
from pipeline.model import Classifier, ModelCard, ModelError
from pipeline.pixels import UNIFORM, ModelImage, prepare, preview, uniform
from store.header import Deflated, read_header
from store.header_text import UNREADABLE
from store.view import Dialect, resolve_view


def analyse_files(
    paths: Iterable[Path], card: ModelCard, classifier: Classifier, dialect: Dialect, *, heat_maps: Path | None = None
) -> list[dict[str, Any]]:
    """One result per image, in the order of the files' names; a folder stands for all files in it.

    `heat_maps`: a folder for each image's picture with the heat map of its highest class over it, as PNG; made if need be.
    """
    if heat_maps is not None:
        heat_maps.mkdir(parents=True, exist_ok=True)
    with Decoder() as decoder:
        return [
            _analyse(path, card, classifier, decoder, dialect, heat_maps / f"{number:04d}-{path.stem}.png" if heat_maps else None)
            for number, path in enumerate(files_of(paths), start=1)
        ]


def model_image(path: Path, card: ModelCard) -> ModelImage:
    """What `card`'s network sees of the DICOM image at `path`. Raises ModelError when it cannot be read."""
    try:
        with Decoder() as decoder:
            return _seen(path, read_header(path), card, decoder)[1]
    except (InvalidDicomError, DecodeFailed, *UNREADABLE) as error:
        raise ModelError(f"{path}: cannot be read as an image: {error}") from error


def _seen(path: Path, ds: Dataset, card: ModelCard, decoder: Decoder) -> tuple[Frame, ModelImage]:
    """(stored values, what `card`'s network sees of them). Raises DecodeFailed."""
    frame = decoder.decode(path)
    if uniform(frame.pixels):
        raise DecodeFailed(UNIFORM, permanent=True)
    return frame, prepare(frame.pixels, ds, profile=card.profile, size=card.input_size)


def files_of(paths: Iterable[Path]) -> Iterator[Path]:
    """The files of these paths; a folder stands for all files in it, in the order of their names."""
    for path in paths:
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*") if found.is_file())
        else:
            yield path


def _analyse(
    path: Path, card: ModelCard, classifier: Classifier, decoder: Decoder, dialect: Dialect, heat_map: Path | None
) -> dict[str, Any]:
    result: dict[str, Any] = {"file": str(path), "view": None, "success": False}
    try:
        ds = read_header(path)
    except InvalidDicomError:
        return {**result, "error": "not a DICOM file"}
    except Deflated as error:
        return {**result, "error": str(error)}
    except UNREADABLE as error:
        return {**result, "error": f"cannot be read: {getattr(error, 'strerror', None) or type(error).__name__}"}
    evidence = resolve_view(ds, dialect)
    result["view"] = evidence.view
    if evidence.view is None:
        result["view_reason"] = evidence.set_aside or evidence.doubt
    try:
        frame, image = _seen(path, ds, card, decoder)
        read = classifier.read(image)
    except (DecodeFailed, ModelError) as error:
        return {**result, "error": str(error)}
    probabilities = read.probabilities
    best = probabilities.index(max(probabilities))
    if heat_map is not None and read.heat_map is not None:
        result["heat_map"] = str(heat_map)
        rows, columns = frame.pixels.shape
        over = heat_map_picture(preview(frame.pixels, ds), over_box(read.heat_map, image), image.box, rows, columns)
        Image.fromarray(over).save(heat_map)
    return {
        **result,
        "success": True,
        "predicted_class": card.classes[best],
        "probability": probabilities[best],
        "all_probabilities": dict(zip(card.classes, probabilities, strict=True)),
        "warnings": [*evidence.warnings, *evidence.conflicts, *image.warnings],
        "model": {"name": card.name, "version": card.version, "trained": card.trained},
        "preprocessing": {
            "profile": card.profile,
            "box": list(image.box),
            "threshold": image.threshold,
            "image_sha256": hashlib.sha256(np.rint(image.grey * 255).astype(np.uint8).tobytes()).hexdigest(),
        },
    }


def text_line(result: Mapping[str, Any]) -> str:
    """One line for a person."""
    if not result["success"]:
        return printable(f"{result['file']}: {result['error']}")
    numbers = "  ".join(f"{name} {value:.1%}" for name, value in result["all_probabilities"].items())
    untrained = "" if result["model"]["trained"] else "  UNTRAINED"
    return printable(f"{result['file']}: {result['view'] or 'no view'}  {result['predicted_class']}  ({numbers}){untrained}")
