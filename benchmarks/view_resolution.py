"""What it costs to tell which view an image shows and which image fills a slot: `resolve` and `elect`, per instance.

    python benchmarks/view_resolution.py [REPEATS]

Headers are of the size that mammography devices write (about 300 attributes, a third of them private), read from a Part 10 stream just
before, so that every value is converted within the measured time, as in a worker. Prints median and maximum in milliseconds per instance
beside the target, and needs neither network nor disk.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

import numpy as np  # noqa: E402
from mammograms_made import code, mammogram  # noqa: E402
from pydicom import dcmread, dcmwrite  # noqa: E402
from pydicom.datadict import dictionary_VR, keyword_dict  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402

from store.study import HANGING_ORDER, Candidate, ImageKind, View, elect  # noqa: E402
from store.view import resolve  # noqa: E402

TARGET_MILLISECONDS = 2.0
STUDIES = (4, 8, 40)
PUBLIC_ATTRIBUTES, PRIVATE_ATTRIBUTES = 150, 100
PIXELS = np.zeros((4, 4), np.uint16)


def main() -> None:
    """Measure and print."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    streams = {
        "by its codes": [encoded(view) for view in HANGING_ORDER],
        "by text only": [encoded(view, text_only=True) for view in HANGING_ORDER],
    }
    first = dcmread(BytesIO(streams["by its codes"][0]), stop_before_pixels=True)
    print(
        f"headers of {len(first)} attributes, {len(streams['by its codes'][0]) // 1024} KiB; {repeats} repeats; milliseconds per instance"
    )
    slowest = []
    for name, several in streams.items():
        headers = (read(several[number % len(several)]) for number in range(repeats))
        runs = [milliseconds(partial(resolve, ds)) for ds in headers]
        slowest.append(statistics.median(runs))
        report(f"resolve, a view told {name}", runs)
    of_elect = []
    for count in STUDIES:
        candidates = study(count, streams["by its codes"])
        runs = [milliseconds(partial(elect, candidates, {ImageKind.FFDM})) / count for _ in range(repeats)]
        of_elect.append(statistics.median(runs))
        report(f"elect, a study of {count} images", runs)
    print(f"both together, worst medians: {max(slowest) + max(of_elect):.3f}  (target: under {TARGET_MILLISECONDS})")


def report(what: str, runs: Sequence[float]) -> None:
    print(f"  {what:<36} median {statistics.median(runs):.3f}  max {max(runs):.3f}")


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def read(stream: bytes) -> Dataset:
    return dcmread(BytesIO(stream), stop_before_pixels=True)


def study(count: int, streams: Sequence[bytes]) -> list[Candidate]:
    """`count` exposures, the four views in turn: from the fifth on, retakes."""
    candidates = []
    for number in range(count):
        found = resolve(read(streams[number % 4]))
        candidates.append(
            Candidate(
                instance_id=number,
                sop_instance_uid=f"2.25.{1000 + number}",
                evidence=found.evidence,
                acquired_at=f"20261120{100000 + number}.000000",
                area=found.ranking.area,
                number=number,
            )
        )
    return candidates


def encoded(view: View, *, text_only: bool = False) -> bytes:
    """A header as devices write it, as Part 10 bytes."""
    ds = mammogram(view, pixels=PIXELS, SeriesDescription=f"{view.laterality} {view.position}", PatientName="Doe^Jane^Mary^Mrs")
    if text_only:
        for keyword in ("ImageLaterality", "ViewPosition", "ViewCodeSequence", "PatientOrientation"):
            del ds[keyword]
    else:
        ds.AnatomicRegionSequence = [code("76752008", "SCT", "Breast")]
    ds.RequestAttributesSequence = [Dataset()]
    ds.RequestAttributesSequence[0].RequestedProcedureID = "REQ1"
    ds.ProcedureCodeSequence = [code("24606-6", "LN", "MG Breast Screening")]
    text_keywords = (
        keyword for keyword, tag in keyword_dict.items() if dictionary_VR(tag) in ("LO", "SH", "DS") and tag >> 16 in (0x18, 0x28)
    )
    for keyword in text_keywords:
        if len(ds) >= PUBLIC_ATTRIBUTES:
            break
        if keyword not in ds and keyword not in ("EstimatedRadiographicMagnificationFactor", "PaddleDescription"):
            setattr(ds, keyword, "1")
    block = ds.private_block(0x0019, "EXAMPLE DEVICES 1.0", create=True)
    for offset in range(PRIVATE_ATTRIBUTES):
        block.add_new(offset, "LO", f"private value {offset}")
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
