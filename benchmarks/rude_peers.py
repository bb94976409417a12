"""A normal sender's speed alone and beside rude peers, in pairs; prints each pair and the median of the ratios.

    python benchmarks/rude_peers.py [--pairs 5] [--images 40] [--rude 4] [--idle 1000]

One receiver process of a real installation; `storescu` sends mammograms of 3328x2560 over one association, with idle connections from
twenty addresses and rude peers (tests/rude_made.py) beside it, and without. Exit status 1 when the median is more than 20 % slower.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from fourview_process import FourviewProcess  # noqa: E402
from ports import free_port  # noqa: E402
from rude_made import be_rude, connect  # noqa: E402
from storescu import write_exam  # noqa: E402

ROWS, COLUMNS = 3328, 2560
MOST_SLOWER = 1.20


def seconds_for(port: int, paths: list[str]) -> float:
    """Wall clock of one `storescu` with all of them."""
    began = time.monotonic()
    command = ["/usr/bin/storescu", "-aec", "FOURVIEW", "-aet", "GANTRY", "127.0.0.1", str(port), *paths]
    subprocess.run(command, check=True, capture_output=True, timeout=600)  # noqa: S603 - dcmtk's, with files of our own
    return time.monotonic() - began


def beside(port: int, paths: list[str], rude: int, idle: int, counts: Counter[str]) -> float:
    """The same among idle connections and rude peers."""
    stopped = threading.Event()
    peers = [threading.Thread(target=be_rude, args=[port, seed, stopped, counts]) for seed in range(rude)]
    with ExitStack() as held:
        for number in range(idle):
            with suppress(OSError):
                held.enter_context(connect(port, f"127.0.3.{1 + number % 20}"))
        for one in peers:
            one.start()
        try:
            return seconds_for(port, paths)
        finally:
            stopped.set()
            for one in peers:
                one.join()


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rude", type=int, default=4)
    parser.add_argument("--idle", type=int, default=1000)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = FourviewProcess(folder / "ours", dicom_port=free_port(), http_port=free_port(), pacs_port=1, pacs_url="http://127.0.0.1:1")
        ours.run("db", "upgrade")
        ours.role("receive", host="rude")
        ratios, counts = [], Counter[str]()
        try:
            ours.wait_for(lambda: ours.living("receive"), "the receiver does not start")
            exams = -(-wanted.images // 4)
            for pair in range(-1, wanted.pairs):  # the first is for warming up
                taken = []
                for kind in ("alone", "beside"):
                    written = [
                        one for n in range(exams) for one in write_exam(folder / "sent", f"{kind}{pair}-{n}", rows=ROWS, columns=COLUMNS)
                    ]
                    paths = [str(one.path) for one in written[: wanted.images]]
                    arguments = (ours.dicom_port, paths)
                    taken.append(seconds_for(*arguments) if kind == "alone" else beside(*arguments, wanted.rude, wanted.idle, counts))
                    for one in written:
                        one.path.unlink()
                if pair >= 0:
                    ratios.append(taken[1] / taken[0])
                    rates = [wanted.images / seconds for seconds in taken]
                    print(f"alone {rates[0]:.1f} images/s, beside {rates[1]:.1f} images/s, {ratios[-1]:.2f} times as long", flush=True)
        finally:
            ours.stop()
    print(f"rude calls: {dict(counts.most_common())}")
    beside_whom = f"{wanted.idle} idle and {wanted.rude} rude peers"
    print(f"median of {wanted.pairs} pairs: {statistics.median(ratios):.2f} times as long beside {beside_whom}")
    return 1 if statistics.median(ratios) > MOST_SLOWER else 0


if __name__ == "__main__":
    sys.exit(main())
