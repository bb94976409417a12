"""kill -9 of every process at random moments while `storescu` sends, with a real Orthanc; prints its counts.

    python benchmarks/torture.py [--rounds 200] [--database sqlite|postgresql] [--seed N]

Each round one process of a running `fourview serve` is killed: serve itself, the receiver, the worker, the web process or the decoding
child. Afterwards everything is let come to rest, and what the sender was promised is compared with database, spool and Orthanc
(tests/accounting.py). Exit status 1 when an instance that was answered 0x0000 is missing or has other bytes, when a study was not
analysed or was analysed twice, when Orthanc does not hold exactly one SR and one page for each version, or when a row has lost its file.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from databases import PostgresProcess, postgres_programs, run  # noqa: E402
from fourview_process import FourviewProcess  # noqa: E402
from killing import rehearse, sweep_orphans, total  # noqa: E402
from orthanc_process import OrthancProcess  # noqa: E402
from ports import free_port  # noqa: E402


def main() -> int:
    """Kill, count, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    wanted = parser.parse_args()
    # so that what was started is stopped then, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(f"{wanted.rounds} rounds on {wanted.database}, seed {wanted.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, _database(wanted.database) as database:
        folder = Path(temporary)
        with OrthancProcess(folder / "orthanc", extra={"DicomModalities": {"fourview": ["FOURVIEW", "127.0.0.1", 1]}}) as orthanc:
            ours = FourviewProcess(
                folder / "fourview",
                dicom_port=free_port(),
                http_port=free_port(),
                pacs_port=orthanc.dicom_port,
                pacs_url=orthanc.url,
                database=database,
            )
            try:
                found, kills, sender = rehearse(folder, ours, orthanc, rounds=wanted.rounds, seed=wanted.seed, say=True)
                left = sweep_orphans(ours)
            finally:
                ours.stop()
    print(f"{wanted.rounds} rounds on {wanted.database} in {(time.monotonic() - began) / 60:.1f} minutes, seed {wanted.seed}")
    print("kills: " + ", ".join(f"{role} {count}" for role, count in total(kills)))
    print(f"associations: {sender.attempts}; answers: {dict(sender.statuses)}; files left for the janitor: {left}")
    print(found)
    print("nothing was lost, nothing was done twice" if not found.faults else f"{len(found.faults)} FAULTS")
    return int(bool(found.faults))


@contextmanager
def _database(kind: str) -> Iterator[str]:
    """An address for the configuration; "" is the default, SQLite in the data folder."""
    if kind == "sqlite":
        yield ""
        return
    programs = postgres_programs()
    if programs is None:
        sys.exit("this needs PostgreSQL's server: apt install postgresql")
    server = PostgresProcess(programs, free_port(), synchronous_commit="on")
    try:
        server.start()
        run(server.url, "CREATE DATABASE fourview")
        yield f"{server.url}/fourview"
    finally:
        server.remove()


if __name__ == "__main__":
    sys.exit(main())
