"""From the last C-STORE answer to the SR being in Orthanc: one 3328x2560 exam through a warm `fourview serve`, torch on this machine.

    python benchmarks/time_to_result.py [ROUNDS]

Prints each round, then minimum, median and maximum, beside what silence alone would cost a peer that waits for Orthanc's stable study
(its default StableAge, 60 s), and the worker's largest resident memory.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "tests"))

import httpx  # noqa: E402
from fourview_process import FourviewProcess  # noqa: E402
from mammograms_made import breast_pixels, mammogram, uid  # noqa: E402
from orthanc_process import OrthancProcess  # noqa: E402
from ports import free_port  # noqa: E402

from store.study import HANGING_ORDER  # noqa: E402

ROWS, COLUMNS = 3328, 2560
ORTHANC_STABLE_AGE_SECONDS = 60.0


def main() -> None:
    """Run the rounds and print the figures."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        orthanc = OrthancProcess(folder / "orthanc", extra={"DicomModalities": {"fourview": ["FOURVIEW", "127.0.0.1", 1]}})
        with orthanc:
            fourview = FourviewProcess(
                folder / "fourview",
                dicom_port=free_port(),
                http_port=free_port(),
                pacs_port=orthanc.dicom_port,
                pacs_url=orthanc.url,
                demo_weights=True,
            )
            with fourview:
                seconds = [_round(fourview, orthanc, f"round {number}") for number in range(rounds)]
                memory = _largest_memory_mib(fourview)
    ordered = sorted(seconds)
    middle = statistics.median(ordered)
    print(f"last C-STORE answer to SR in Orthanc, {rounds} rounds, seconds:")
    print(f"  min {ordered[0]:.2f}  median {middle:.2f}  max {ordered[-1]:.2f}")
    print(f"silence alone (Orthanc's StableAge default, before any reading): {ORTHANC_STABLE_AGE_SECONDS:.0f} s")
    print(f"worker, peak resident memory: {memory} MiB")


def _round(fourview: FourviewProcess, orthanc: OrthancProcess, study: str) -> float:
    images = [
        mammogram(view, study=study, pixels=breast_pixels(view, rows=ROWS, columns=COLUMNS, seed=len(study))) for view in HANGING_ORDER
    ]
    for ds in images:  # a result waits until its study is there
        buffer = BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
        orthanc.upload(buffer.getvalue())
    fourview.send(images[:3])
    fourview.send(images[3:])
    answered = time.monotonic()
    # One connection, asked at a slow pace: the measuring must not take a core from what is measured.
    question = {"Level": "Series", "Query": {"StudyInstanceUID": uid(study), "Modality": "SR"}}
    with httpx.Client(base_url=orthanc.url, trust_env=False, verify=False) as client:  # noqa: S501 - plain HTTP on loopback
        while not client.post("/tools/find", json=question).json():
            time.sleep(0.05)
    seconds = time.monotonic() - answered
    print(f"{study}: {seconds:.2f} s")
    return seconds


def _largest_memory_mib(fourview: FourviewProcess) -> int:
    assert fourview.process is not None
    peaks = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            command = (status.parent / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(lines["PPid"]) == fourview.process.pid and b"work" in command:
            peaks[status.parent.name] = int(lines["VmHWM"].split()[0]) // 1024
    return max(peaks.values())


if __name__ == "__main__":
    main()
