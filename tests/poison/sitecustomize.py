"""First on PYTHONPATH, it makes one image deadly: whoever reads the SOP Instance UID in POISONED_UID dies of it as of a fault in C."""

from __future__ import annotations

import os
import signal
from typing import Any

import pipeline.read

_prepare = pipeline.read.prepare


def prepare(pixels: Any, header: Any, **options: Any) -> Any:
    if header.SOPInstanceUID == os.environ["POISONED_UID"]:
        os.kill(os.getpid(), signal.SIGSEGV)
    return _prepare(pixels, header, **options)


pipeline.read.prepare = prepare
