"""What a benchmark hands over: measurements of ours and of the rival, taken in turn; and the command line that each benchmark has.

A benchmark is a file with `rows(run)`, which yields a `Row` for each key that `goals.DECLARED` says is measured in it:

    def rows(run: Run) -> Iterator[Row]:
        ours, rival = in_turn(ours_once, rival_once, seconds=run.seconds, at_least=3)
        yield Row("classifier_fp32", ours, rival)

    if __name__ == "__main__":
        main(rows)
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
for _folder in (PROJECT, PROJECT / "tests"):  # what stands there, benchmarks may import
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))

from goals import BY_KEY, SOURCES, Better, Declared, Goal, GoalKind  # noqa: E402


class Verdict(StrEnum):
    """What became of a row's goals."""

    REACHED = "reached"
    BEHIND = "behind"
    REPORTED = "reported"  # it has no goal
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Run:
    """What a benchmark may use: `seconds` in all with its preparation, and a folder that goes afterwards, on the disk that is measured."""

    seconds: float
    folder: Path
    quick: bool = False
    database: str = "sqlite"  # or "postgresql", where that makes a difference
    began: float = field(default_factory=time.monotonic)

    def left(self, now: float) -> float:
        """Seconds; never below zero."""
        return max(0.0, self.began + self.seconds - now)


@dataclass(frozen=True)
class Row:
    """One row as measured: every single value in the declared unit, ours and the rival's in the order taken.

    `note` says what a reader must know (what a rival could not do, say); without `ours` it is why there is no measurement. `instead` is
    what was measured in place of what is declared: smaller data in a quick run.
    """

    key: str
    ours: Sequence[float] = ()
    rival: Sequence[float] = ()
    note: str = ""
    instead: str = ""

    @property
    def declared(self) -> Declared:
        return BY_KEY[self.key]

    @property
    def what(self) -> str:
        return self.instead or self.declared.what

    @property
    def measured(self) -> bool:
        """Whether there is what its goals compare."""
        return bool(self.ours) and bool(self.rival or not self.declared.rival)

    @property
    def ours_figure(self) -> float:
        return self.declared.figure.of(self.ours)

    @property
    def rival_figure(self) -> float:
        return self.declared.figure.of(self.rival)

    @property
    def times(self) -> float | None:
        """How many times better than the rival; None without one."""
        if not self.ours or not self.rival:
            return None
        return times_better(self.declared.better, self.ours_figure, self.rival_figure)

    @property
    def pair_times(self) -> tuple[float, float] | None:
        """The lowest and the highest of the pairs that were measured one right after the other; None unless they are pairs."""
        if len(self.ours) != len(self.rival) or not self.ours:
            return None
        each = [times_better(self.declared.better, ours, rival) for ours, rival in zip(self.ours, self.rival, strict=True)]
        return min(each), max(each)

    def met(self, goal: Goal) -> bool:
        """Whether a goal is reached; ValueError when what it compares was not measured."""
        if goal.kind is GoalKind.UNDER:
            return self.ours_figure < goal.value
        if goal.kind is GoalKind.TIMES:
            return times_better(self.declared.better, self.ours_figure, self.rival_figure) >= goal.value
        return self.ours_figure <= goal.value * self.rival_figure

    @property
    def verdict(self) -> Verdict:
        if not self.measured:
            return Verdict.NOT_MEASURED
        if not self.declared.goals:
            return Verdict.REPORTED
        return Verdict.REACHED if all(self.met(goal) for goal in self.declared.goals) else Verdict.BEHIND


def times_better(better: Better, ours: float, rival: float) -> float:
    """2.0: half the seconds, or twice the rate."""
    above, below = (rival, ours) if better is Better.LESS else (ours, rival)
    return above / below if below else float("inf")


# ------------------------------------------------------------------------------------------------------------------ measuring


def timed(function: Callable[[], object], *, unit_seconds: float = 1.0) -> Callable[[], float]:
    """The function as a measurement of its wall-clock time, in units of `unit_seconds` (0.001: milliseconds)."""

    def once() -> float:
        begin = time.perf_counter()
        function()
        return (time.perf_counter() - begin) / unit_seconds

    return once


def in_turn(
    ours: Callable[[], float], rival: Callable[[], float], *, seconds: float, at_least: int = 3, at_most: int = 1000, warm: int = 1
) -> tuple[list[float], list[float]]:
    """Measure ours, the rival, ours, the rival ... for about `seconds`, at least so many pairs; each call gives one value.

    The first `warm` pairs are thrown away.
    """
    ours_values: list[float] = []
    rival_values: list[float] = []
    for _ in range(warm):
        ours()
        rival()
    begin = time.monotonic()
    while len(ours_values) < at_least or (len(ours_values) < at_most and time.monotonic() - begin < seconds):
        ours_values.append(ours())
        rival_values.append(rival())
    return ours_values, rival_values


# -------------------------------------------------------------------------------------------------------------------- as JSON


def to_json(row: Row) -> dict[str, Any]:
    """Everything of a row that a machine may want, the single values too."""
    declared = row.declared
    found: dict[str, Any] = {
        "key": row.key,
        "what": row.what,
        "unit": declared.unit,
        "figure": declared.figure.value,
        "better": declared.better.value,
        "ours": _series(declared, row.ours),
        "rival_name": declared.rival,
        "rival": _series(declared, row.rival),
        "times": row.times,
        "pair_times": row.pair_times,
        "goals": [
            {"text": goal.text(declared.unit), "value": goal.value, "met": row.met(goal) if row.measured else None}
            for goal in declared.goals
        ],
        "verdict": row.verdict.value,
        "note": row.note,
        "instead": row.instead,
    }
    return found


def _series(declared: Declared, values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    return {"value": declared.figure.of(values), "low": min(values), "high": max(values), "count": len(values), "values": list(values)}


def from_json(found: dict[str, Any]) -> Row:
    """The row that `to_json` wrote: only measurements are read, what follows from them is worked out again."""
    ours, rival = ((found[name] or {}).get("values", []) for name in ("ours", "rival"))
    return Row(found["key"], tuple(ours), tuple(rival), found["note"], found["instead"])


# --------------------------------------------------------------------------------------------------------------- one benchmark


def main(rows: Callable[[Run], Iterable[Row]]) -> None:
    """The command line of a benchmark: its part of the table, or JSON when a file is named.

    Rows are written to the file as they come, so that what was measured before a failure is not lost.
    """
    from table import text

    name = Path(sys.argv[0]).stem
    source = next(one for one in SOURCES if one.name == name)
    parser = argparse.ArgumentParser(description=f"Measures {', '.join(key for key, one in BY_KEY.items() if one.measured_in == name)}.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller data")
    parser.add_argument("--json", type=Path, help="write the rows to this file instead of printing them")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite", help="where that makes a difference")
    parser.add_argument("--seconds", type=float, help="how long it may take in all")
    told = parser.parse_args()
    seconds = told.seconds or (source.quick_seconds if told.quick else source.seconds)
    found: list[Row] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what it has started ends with it
    with tempfile.TemporaryDirectory(prefix=f"fourview-{name}-") as folder:
        for row in checked(name, rows(Run(seconds, Path(folder), told.quick, told.database))):
            found.append(row)
            if told.json is not None:
                told.json.write_text(json.dumps([to_json(one) for one in found]) + "\n")
    if told.json is None:
        print(text(found))


def checked(name: str, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows of a file; ValueError for one that `goals` does not declare there, or that came already."""
    seen: set[str] = set()
    for row in rows:
        if row.key in seen or BY_KEY[row.key].measured_in != name:
            raise ValueError(f"row {row.key} came from {name}.py: it is declared in {BY_KEY[row.key].measured_in}.py, once")
        seen.add(row.key)
        yield row
