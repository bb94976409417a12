"""A self-test as it is stored: the image beside the model card, and the table in the card with the probabilities by class name.

The image is what the network sees before mean and standard deviation: a square PNG of one channel, 0 black, the largest value white. So
it needs no DICOM reader, carries no header, and stays the same when preprocessing changes. By name, since a list in the order of `classes`
would follow a wrong order of `classes` without complaint.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.model_card import SELF_TEST_TOLERANCE, CardMistakes, ModelCard, ModelError, SelfTest

#: Modes of a greyscale PNG in Pillow -> its largest value.
_WHITE = {"L": 255, "I;16": 65535}
#: Digits of a stored probability: finer than any tolerance that holds between two processors.
_DIGITS = 6


def read_image(card: ModelCard, self_test: SelfTest) -> npt.NDArray[np.float32]:
    """The self-test's image, float32 (size, size), 0...1; raises ModelError where there is none that fits the card."""
    from PIL import Image

    wanted = card.input_size
    try:
        with Image.open(self_test.image, formats=["PNG"]) as opened:
            if opened.size != (wanted, wanted) or opened.mode not in _WHITE:
                columns, rows = opened.size
                raise ModelError(
                    f"{self_test.image}: {columns} x {rows} pixels of kind {opened.mode}; "
                    f"a self-test of {card.path.name} is a greyscale PNG of {wanted} x {wanted}, 8 or 16 bits"
                )
            return grey_of(np.asarray(opened), white=_WHITE[opened.mode])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{self_test.image}: the self-test's image cannot be read ({reason})") from error


def sixteen_bits(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """`grey` (0...1) as it is stored in 16 bits."""
    return np.rint(np.clip(grey, 0.0, 1.0).astype(np.float64) * 65535).astype(np.uint16)


def grey_of(stored: npt.NDArray[Any], *, white: int = 65535) -> npt.NDArray[np.float32]:
    """What was stored as float32, 0...1."""
    grey: npt.NDArray[np.float32] = stored.astype(np.float32) / np.float32(white)
    return grey


def png(stored: npt.NDArray[np.uint16]) -> bytes:
    """A greyscale PNG of 16 bits."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def card_with_self_test(card: ModelCard, text: str, image_name: str, probabilities: tuple[float, ...]) -> str:
    """The card's text with this self-test in place of the one that it has; comments and everything else stay as they are.

    Raises ModelError for a card whose self-test is written in a way that is not found by its headings.
    """
    kept, inside = [], False
    for line in text.splitlines():
        if re.match(r"\s*\[", line):
            inside = re.match(r"\s*\[\s*self_test\s*[.\]]", line) is not None
        if not inside:
            kept.append(line)
    tolerance = card.self_test.tolerance if card.self_test else SELF_TEST_TOLERANCE
    section = [
        "[self_test]",
        f"image = {_quoted(image_name)}",
        f"tolerance = {tolerance!r}",
        "",
        "[self_test.probabilities]",
        *(f"{_quoted(name)} = {value:.{_DIGITS}f}" for name, value in zip(card.classes, probabilities, strict=True)),
    ]
    changed = "\n".join(["\n".join(kept).rstrip(), "", *section, ""])
    try:
        before, after = tomllib.loads(text), tomllib.loads(changed)
        untouched = {**before, "self_test": None} == {**after, "self_test": None}
    except tomllib.TOMLDecodeError:
        untouched = False
    if not untouched:
        complaint = "self_test: not written under the headings [self_test] and [self_test.probabilities]; remove it by hand"
        raise CardMistakes(card.path, [complaint])
    return changed


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    return json.dumps(text, ensure_ascii=False)


def write_unless_identical(path: Path, data: bytes) -> None:
    """Make `data` the content of `path` at once or not at all; an identical file stays untouched. Raises OSError."""
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
