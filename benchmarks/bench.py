"""`make bench`: every row of `goals.DECLARED` beside its rival, as one table and as JSON, and what machine it was.

    python benchmarks/bench.py [--quick] [--json FILE] [--only SOURCE ...]
    python benchmarks/bench.py --write-readme FILE        puts a run that --json wrote into README.md; measures nothing

Each file that measures rows runs as a process of its own, so that none inherits the memory or the threads of another. A file that fails
costs its rows only: they stand in the table as not measured, and the exit status is 1. A goal that is not reached is no failure: it says
"behind".
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
from goals import BY_KEY, DECLARED, SOURCES, Source
from measured import Row, Verdict, from_json, to_json
from table import markdown, summary, text

FOLDER = Path(__file__).resolve().parent
PROJECT = FOLDER.parent
README = PROJECT / "README.md"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
LEGEND = "A figure is the median (lowest-highest), a ratio how many times better ours is; in brackets, of the pairs measured in turn."
#: A file that takes so much longer than it may is stopped.
PATIENCE = 2.0


def main() -> int:
    """Measure and print, or write the README; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes instead of ten: fewer rounds, smaller data")
    parser.add_argument("--json", type=Path, help="write machine and rows to this file")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in SOURCES], help="only these files")
    parser.add_argument("--write-readme", type=Path, metavar="FILE", help="put a run of --json into README.md")
    told = parser.parse_args()
    if told.write_readme is not None:
        README.write_text(with_table(README.read_text(), json.loads(told.write_readme.read_text())))
        return 0
    sources = [one for one in SOURCES if told.only is None or one.name in told.only]
    began_at, began = datetime.now(UTC), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fourview-bench-") as folder:
        found = machine.described(Path(folder))
        print(machine.text(found), flush=True)
        rows = [row for source in sources for row in _measured(source, Path(folder), quick=told.quick)]
    rows = in_order(rows)
    seconds = time.monotonic() - began
    print(f"\n{text(rows)}\n\n{LEGEND}\n{summary(rows)}\n{len(rows)} rows in {seconds:.0f} s")
    if told.json is not None:
        run = as_json(rows, found, began_at, seconds, quick=told.quick)
        told.json.write_text(json.dumps(run, indent=1) + "\n")
    return 1 if any(row.verdict is Verdict.NOT_MEASURED for row in rows) else 0


def _measured(source: Source, folder: Path, *, quick: bool) -> list[Row]:
    """Every row of a source: as measured, or with the reason why not."""
    output = folder / f"{source.name}.json"
    may_take = source.quick_seconds if quick else source.seconds
    command = [sys.executable, str(FOLDER / f"{source.name}.py"), "--json", str(output), *(["--quick"] if quick else [])]
    print(f"{source.name} ({may_take:.0f} s) ...", file=sys.stderr, flush=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(PROJECT), str(PROJECT / "tests")))}
    limit = PATIENCE * may_take + 60
    process = subprocess.Popen(command, stdout=sys.stderr, env=environment, start_new_session=True)  # noqa: S603 - a file of this folder
    try:
        code = process.wait(limit)
        why = f"{source.name}.py ended with {code}" if code else f"{source.name}.py did not give it"
    except subprocess.TimeoutExpired:
        why = f"{source.name}.py took longer than {limit:.0f} s"
    finally:
        _end(process)
    given = [from_json(one) for one in json.loads(output.read_text())] if output.exists() else []
    return complete(source.name, given, why)


def _end(process: subprocess.Popen[bytes]) -> None:
    """So that it ends the servers that it has started; and whatever of it is left after that."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def complete(source: str, given: Sequence[Row], why: str) -> list[Row]:
    """The rows that a file gave, and a row with the reason for each that it did not."""
    keys = {row.key for row in given}
    return [*given, *(Row(one.key, note=why) for one in DECLARED if one.measured_in == source and one.key not in keys)]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """As the rows are declared."""
    place = {key: number for number, key in enumerate(BY_KEY)}
    return sorted(rows, key=lambda row: place[row.key])


def as_json(rows: Sequence[Row], found: Mapping[str, Any], began_at: datetime, seconds: float, *, quick: bool) -> dict[str, Any]:
    """The whole run."""
    return {
        "began_at": began_at.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "quick": quick,
        "machine": dict(found),
        "rows": [to_json(row) for row in rows],
    }


def with_table(readme: str, run: Mapping[str, Any]) -> str:
    """The README with the run between its two marks; ValueError when they are not there once each, or the run was a quick one."""
    if run["quick"]:
        raise ValueError("a quick run is too coarse for the README: run make bench without QUICK")
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md needs {BEGIN} and {END}, once each")
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    rows = [from_json(one) for one in run["rows"]]
    day = run["began_at"][:10]
    table = f"Measured on {day}. {LEGEND}\n\n{markdown(rows)}"
    return f"{before}{BEGIN}\n{table}\n\n{machine.text(run['machine'])}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
