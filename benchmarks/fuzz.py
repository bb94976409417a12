"""Everything that reads what strangers write, fuzzed for as long as it is told; counts of executions for each target.

    python benchmarks/fuzz.py [--seconds 600] [--target NAME]...

What breaks a target is shrunk and printed with what it raised; to be kept for good it goes into `known` of its target in
tests/fuzz_targets.py. Exit status 1 when anything broke.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from fuzz_targets import TARGETS, Target, close  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402

#: Between two looks at the clock.
BATCH = 500


def main() -> int:
    """Fuzz, print a line for each target."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=600, help="of each target")
    arguments.add_argument("--target", action="append", choices=sorted(TARGETS))
    asked = arguments.parse_args()
    warnings.simplefilter("ignore")
    broken = 0
    try:
        for name in asked.target or TARGETS:
            broken += fuzzed(name, TARGETS[name], asked.seconds)
    finally:
        close()
    return 1 if broken else 0


def fuzzed(name: str, target: Target, seconds: float) -> int:
    """How often a target broke: 0 or 1, since its first fault would be found again and again."""
    executions = 0
    begun, used = time.monotonic(), time.process_time()

    def run(value: Any) -> None:
        nonlocal executions
        executions += 1
        target.holds(value)

    fault = ""
    while not fault and time.monotonic() - begun < seconds:
        budget = settings(
            max_examples=BATCH,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.reuse, Phase.generate, Phase.target, Phase.shrink],
            print_blob=True,
        )
        try:
            seed(random.getrandbits(64))(budget(given(target.inputs)(run)))()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            fault = "".join(traceback.format_exception(error))
    took = f"{time.monotonic() - begun:>7.0f} s  {time.process_time() - used:>7.0f} s of processor time"
    print(f"{name:<24} {executions:>9} executions  {took}  {'BROKEN' if fault else 'holds'}", flush=True)
    if fault:
        print(fault, flush=True)
    return int(bool(fault))


if __name__ == "__main__":
    sys.exit(main())
