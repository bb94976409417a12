"""How much memory one view takes beyond an idle worker: in the worker, in its decoding child, and with two views at once.

    python benchmarks/view_memory.py FILE

FILE is a Part 10 file. The worker is this process: a decoder, and what `pipeline.read` does to a view but for the network. It has read a
small image before, so that what stays is there already. Prints JSON, MB of 10**6 bytes: the peak of each process less what it held idle.
"""

from __future__ import annotations

import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from mammograms_made import mammogram  # noqa: E402
from pydicom import dcmread  # noqa: E402

from pipeline.decode import Decoder  # noqa: E402
from pipeline.grey_png import grey_png  # noqa: E402
from pipeline.pixels import breast_edge, prepare, preview, uniform  # noqa: E402


def peaks(path: Path) -> dict[str, float]:
    """ "worker", "child", "two": MB."""
    with Decoder() as decoder, tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small"
        mammogram().save_as(small, enforce_file_format=True)
        read(decoder, small)
        assert decoder._child is not None
        worker, child = Held("self"), Held(str(decoder._child.pid))
        found: dict[str, float] = {}
        for profile in ("presentation", "reference"):
            read(decoder, path, profile)
            found = {"worker": worker.grown(), "child": child.grown()}
        with ThreadPoolExecutor(2) as both:
            for one in [both.submit(read, decoder, path) for _ in range(2)]:
                one.result()
        return {**found, "two": worker.grown() + child.grown()}


def read(decoder: Decoder, path: Path, profile: str = "presentation") -> None:
    """Everything that a view is, but its network, the database and the disk; its picture beside the rest, as the worker has it."""
    ds = dcmread(path, stop_before_pixels=True)
    frame = decoder.decode(path)
    breast_edge(frame.pixels, ds)
    uniform(frame.pixels)
    prepare(frame.pixels, ds, profile=profile)
    grey_png(preview(frame.pixels, ds))


class Held:
    """What a process (by its name in /proc) holds, from now on."""

    def __init__(self, name: str) -> None:
        self._folder = Path("/proc") / name
        self._idle = self._value("VmRSS")
        (self._folder / "clear_refs").write_text("5")  # its peak begins anew (proc(5))

    def grown(self) -> float:
        """The peak since then less what it held then, MB."""
        return (self._value("VmHWM") - self._idle) / 1e6

    def _value(self, name: str) -> int:
        """Bytes."""
        lines = (self._folder / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(peaks(Path(sys.argv[1]))))
