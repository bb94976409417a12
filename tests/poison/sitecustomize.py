"""First on PYTHONPATH, it makes one image deadly: whoever reads the SOP Instance UID in POISONED_UID dies of it as of a fault in C."""

from __future__ import annotations

import os
import signal
from typing import Any

import pipeline.read

_score_image = pipeline.read.score_image


def score_image(pixels: Any, header: Any, model: Any) -> Any:
    if header.SOPInstanceUID == os.environ["POISONED_UID"]:
        os.kill(os.getpid(), signal.SIGSEGV)
    return _score_image(pixels, header, model)


pipeline.read.score_image = score_image
