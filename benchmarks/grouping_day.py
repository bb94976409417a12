"""The grouping core alone: a day of 1,000 studies under a stepped clock, 5 % of them odd; no database, no pixels, no sleeping.

    python benchmarks/grouping_day.py [STUDIES]

Prints how long the day takes and one look at a study, the final states beside the intended ones, and every study
that did not end as it was meant to (exit status 1).
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from grouping_made import Day, PureStudy, exam, planned_day  # noqa: E402

ROUNDS = 200


def main() -> int:
    """Live the day and print the figures; 1 when a study did not end as intended."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    begin = time.perf_counter()
    day = Day(planned_day(studies)).live()
    seconds = time.perf_counter() - begin
    odd = sum(bool(plan.oddity) for plan in day.plans)
    print(f"{studies} studies ({odd} odd), {day.instances} receptions, {day.looks} looks in {seconds:.2f} s")
    print(f"one look: {1000 * seconds / day.looks:.3f} ms on average, with everything around it")
    print(f"one look at a complete study: {_milliseconds():.3f} ms (median); it sees one study, however many there are")
    intended = day.intended()
    for state, count in sorted(day.states().items()):
        print(f"  {state:<12} {count:>6}   intended {intended[state]}")
    faults = list(day.faults())
    print("\n".join(faults) or "every study ended as it was meant to, and every image is accounted for")
    return int(bool(faults))


def _milliseconds() -> float:
    """The median of looking at a study of four views: judge every image, elect, rule, decide what is due."""
    study = PureStudy()
    study.receive(*exam())
    study.work()
    looking = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        study.look()
        looking.append(time.perf_counter() - begin)
    return 1000 * statistics.median(looking)


if __name__ == "__main__":
    sys.exit(main())
