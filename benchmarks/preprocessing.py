"""From stored values to what the network is given, for one view: our two profiles beside the reference preprocessing; and its memory.

    python benchmarks/preprocessing.py [--quick] [--seconds N] [--json FILE]
    python benchmarks/preprocessing.py --steps           where the time of a view goes, beside the network's; no row

Both begin with the decoded image of 3328x2560 pixels, 12 bits in 16, and end with float32 (1, 3, 512, 512). A figure counts only when our
picture in profile `reference` equals the rival's byte for byte. Memory is measured by view_memory.py in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from measured import Row, Run, in_turn, main, timed  # before what it finds

# isort: split
import reference_path
from mammograms_made import breast_pixels, mammogram
from pydicom.dataset import Dataset

from pipeline.decode import Decoder
from pipeline.grey_png import grey_png
from pipeline.model import model_input
from pipeline.model_card import ModelCard, parse_card
from pipeline.pixels import breast_edge, prepare, preview, uniform
from store.study import View

ROWS, COLUMNS = 3328, 2560
MILLISECONDS = 0.001
MEMORY_SECONDS = 10.0
CARD = """
name = "preprocessing alone"
version = "1"
architecture = "resnet50"
classes = ["Mass", "Calcification", "Architectural/Asymmetry", "Normal"]
weights = "none.safetensors"
trained = false
profile = "{profile}"
"""


def rows(run: Run) -> Iterator[Row]:
    """The rows of `make bench`."""
    ds = mammogram(View.L_CC, pixels=breast_pixels(View.L_CC, rows=ROWS, columns=COLUMNS))
    path = run.folder / "view.dcm"
    ds.save_as(path, enforce_file_format=True)
    with Decoder() as decoder:
        pixels = decoder.decode(path).pixels
    _check(pixels, ds)
    seconds = max(0.0, run.left(time.monotonic()) - MEMORY_SECONDS) / 2
    for profile in ("presentation", "reference"):
        card = parse_card(CARD.format(profile=profile), run.folder / "card.toml")
        ours, rival = in_turn(
            timed(lambda card=card: _given(pixels, ds, card), unit_seconds=MILLISECONDS),  # type: ignore[misc]
            timed(lambda: reference_path.preprocess(pixels), unit_seconds=MILLISECONDS),
            seconds=seconds,
        )
        yield Row(f"preprocessing_{profile}", ours, rival)
    program = Path(__file__).with_name("view_memory.py")
    told = subprocess.run([sys.executable, str(program), str(path)], capture_output=True, text=True, check=False)  # noqa: S603 - this folder's
    if told.returncode:
        yield Row("view_memory", note=f"view_memory.py: {told.stderr.strip().splitlines()[-1:]}")
        return
    found = json.loads(told.stdout)
    note = (
        f"largest of each process: worker {found['worker']:.0f} MB, decoding child {found['child']:.0f} MB; two views at once "
        f"{found['two']:.0f} MB; without the network's buffers, which are the engine's and stay"
    )
    yield Row("view_memory", [found["worker"] + found["child"]], note=note)


def _given(pixels: np.ndarray[Any, Any], ds: Dataset, card: ModelCard) -> np.ndarray[Any, np.dtype[np.float32]]:
    return model_input(prepare(pixels, ds, profile=card.profile, size=card.input_size), card)


def _check(pixels: np.ndarray[Any, Any], ds: Dataset) -> None:
    """RuntimeError when profile `reference` is not the rival's picture."""
    ours = np.round(prepare(pixels, ds, profile="reference").grey * 255).astype(np.uint8)
    if not np.array_equal(ours, reference_path.picture(pixels)):
        raise RuntimeError("profile reference differs from the reference path's picture")


# ------------------------------------------------------------------------------------------------------------------- by step


def steps(path: Path, rounds: int = 9) -> Mapping[str, tuple[float, float]]:
    """Step of a view but its network -> least wall-clock and processor milliseconds of this process, for the file at `path`."""
    from pydicom import dcmread

    ds = dcmread(path, stop_before_pixels=True)
    with Decoder() as decoder:
        frame = decoder.decode(path)
        card = parse_card(CARD.format(profile="presentation"), Path("card.toml"))
        image = prepare(frame.pixels, ds, profile="presentation")
        picture = preview(frame.pixels, ds)
        work: dict[str, Callable[[], object]] = {
            "decode in the child, and its way here": lambda: decoder.decode(path),
            "breast edge, uniform": lambda: (breast_edge(frame.pixels, ds), uniform(frame.pixels)),
            "model's image, presentation": lambda: prepare(frame.pixels, ds, profile="presentation"),
            "model's image, reference": lambda: prepare(frame.pixels, ds, profile="reference"),
            "network's input": lambda: model_input(image, card),
            "picture": lambda: preview(frame.pixels, ds),
            "picture as PNG": lambda: grey_png(picture),
        }
        return {name: _least(one, rounds) for name, one in work.items()}


def _least(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    wall, processor = [], []
    for _ in range(rounds):
        begun, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - begun)
        processor.append(time.process_time() - used)
    return min(wall) * 1e3, min(processor) * 1e3


def print_steps(files: list[str]) -> None:
    """A table for each file, or for a made view."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        if not files:
            mammogram(View.L_CC, pixels=breast_pixels(View.L_CC, rows=ROWS, columns=COLUMNS)).save_as(made, enforce_file_format=True)
        for path in map(Path, files or [str(made)]):
            print(f"{path}: least wall-clock and processor time, ms")
            for name, (wall, processor) in steps(path).items():
                print(f"  {name:40}{wall:8.1f}{processor:8.1f}")


if __name__ == "__main__":
    if "--steps" in sys.argv:
        print_steps([one for one in sys.argv[1:] if one != "--steps"])
    else:
        main(rows)
