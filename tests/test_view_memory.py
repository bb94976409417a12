"""One view takes less than 400 MB beyond the idle worker and its decoding child, and so do two at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.test_pixels import CASES, REAL

PROGRAM = Path(__file__).resolve().parent.parent / "benchmarks" / "view_memory.py"


def test_a_film_of_12_million_pixels_takes_less_than_400_mb() -> None:
    """Compressed, so that the child holds file, segments and pixels at once. A second image of 64 bits a pixel alone would take 100 MB."""
    told = subprocess.run([sys.executable, str(PROGRAM), str(CASES / REAL[0])], capture_output=True, text=True, timeout=300, check=False)
    assert told.returncode == 0, told.stderr
    peaks = json.loads(told.stdout)
    assert peaks["worker"] > 20, "the image itself is 25 MB: something is not measured"
    assert peaks["child"] > 20
    assert peaks["worker"] < 130
    assert peaks["worker"] + peaks["child"] < 400
    assert peaks["two"] < 400
