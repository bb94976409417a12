"""`fourview rules diff` over 1,000 and 10,000 stored studies: seconds, and the most memory that the process took.

    python benchmarks/rules_diff.py

The studies are four images each with the headers of synthetic mammograms, which differ in date, station, age and implants; the rules ask
for the values of one image and for those of all four. Real command in a process of its own, SQLite in a temporary folder. 10,000
studies should take less than 30 seconds, and their number should not show in the memory. Exit status 1 when not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from databases import migrated  # noqa: E402
from fourview_process import SIMULATED_CARD  # noqa: E402
from mammograms_made import mammogram  # noqa: E402

from store import tables  # noqa: E402
from store.database import write_engine  # noqa: E402
from store.found_by import hour_of  # noqa: E402
from store.header import pack_header, unpack_header  # noqa: E402
from store.look import header_columns  # noqa: E402
from store.study import HANGING_ORDER  # noqa: E402
from store.view import resolve  # noqa: E402

SIZES = (1_000, 10_000)
GOAL_SECONDS = 30.0
#: More than this between the sizes, in MiB, is a memory that grows with the number of studies.
GROWTH_MIB = 16.0
KINDS = 20

CONFIG = """
[store]
database = "sqlite:///fourview.db"
files = "files"
[model]
card = "simulated.toml"
allow_untrained = true
[[pacs]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[[rule]]
name = "implants"
when = 'Implant == "YES"'
action = "hold"
[[rule]]
name = "rooms"
when = 'Modality == "MG" and StudyAge <= {days} and StationName =~ "ROOM" and PatientAge >= 40'
action = "analyse"
send_to = ["pacs"]
[[rule]]
name = "screening"
when = 'StudyDescription =~~ "(?i)screen" and NumViews == 4'
action = "hold"
"""


def kinds(now: datetime) -> list[list[dict[str, Any]]]:
    """The rows of four images each of studies that differ; a study of the archive is a copy of one of them."""
    made = []
    for number in range(KINDS):
        values = {
            "StudyDate": f"{now - timedelta(days=number):%Y%m%d}",
            "StationName": "ROOM1" if number % 4 else "VAN",
            "PatientAge": f"{35 + number:03d}Y",
            "BreastImplantPresent": "YES" if number % 10 == 0 else "NO",
            "StudyDescription": "Screening mammography" if number % 3 == 0 else "Diagnostic",
        }
        images = []
        for view in HANGING_ORDER:
            ds = mammogram(view, image=str(number), pixels=None, **values)
            del ds.PixelData
            packed = pack_header(ds)
            images.append(header_columns(resolve(unpack_header(packed)), packed))
        made.append(images)
    return made


def rows(first: int, last: int, now: datetime) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Studies with their images; the last six days have them."""
    of_kind = kinds(now)
    for number in range(first, last):
        uid, at = f"1.2.410.{number}", now - timedelta(seconds=number * 7919 % 518_400)
        study = {"study_instance_uid": uid, "state": "analysed", "last_hour": hour_of(at)}
        study |= dict.fromkeys(("first_instance_at", "last_instance_at", "collecting_since"), at)
        common = {
            "study_instance_uid": uid,
            "series_instance_uid": f"{uid}.1",
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.2",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "modality": "MG",
            "patient_id": f"P{number}",
            "issuer_of_patient_id": "",
            "patient_name": "Doe^Jane",
            "patient_birth_date": "19700101",
            "file_hash": f"{number:064d}",
            "size_bytes": 1,
            "origin": "received",
            "calling_ae_title": "ORTHANC",
            "called_ae_title": "FOURVIEW",
            "received_at": at,
            "resolved_at": at,
            "disposition": "candidate",
        }
        images = enumerate(of_kind[number % KINDS])
        yield study, [{**common, **one, "sop_instance_uid": f"{uid}.1.{place}"} for place, one in images]


def fill(url: str, first: int, last: int, now: datetime) -> None:
    """Put studies `first` to `last` into the database."""
    engine = write_engine(url)
    batch: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for one in rows(first, last, now):
        batch.append(one)
        if len(batch) == 500:
            _insert(engine, batch)
            batch.clear()
    if batch:
        _insert(engine, batch)
    engine.dispose()


def _insert(engine: sa.Engine, batch: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(tables.study), [study for study, _ in batch])
        connection.execute(sa.insert(tables.instance), [image for _, images in batch for image in images])


def measured(folder: Path) -> tuple[float, float, float, str]:
    """(seconds, of them of a processor, MiB at most, first line) of the command."""
    program = "import sys; from listener.cli import main; main()"
    arguments = ["--config", str(folder / "config.toml"), "rules", "diff", str(folder / "new.toml")]
    started = time.monotonic()
    with (folder / "told").open("w+") as told:
        child = subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=PROJECT, stdout=told)  # noqa: S603 - our own command
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        told.seek(0)
        line = told.readline().strip()
    if child.returncode:
        raise SystemExit(f"the command ended with {child.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, line


def main() -> int:
    """Print a line per size; 1 when a goal is missed."""
    now = datetime.now(UTC)
    most: list[float] = []
    with tempfile.TemporaryDirectory(prefix="fourview-rules-") as name:
        folder, have = Path(name), 0
        url = f"sqlite:///{folder / 'fourview.db'}"
        migrated(url)
        (folder / "simulated.toml").write_text(SIMULATED_CARD)
        (folder / "config.toml").write_text(CONFIG.format(days=14))
        (folder / "new.toml").write_text(CONFIG.format(days=3))
        for size in SIZES:
            fill(url, have, size, now)
            have = size
            seconds, processor, mebibytes, line = measured(folder)
            most.append(mebibytes)
            took = f"{seconds:6.1f} s, {processor:.1f} s of a processor"
            print(f"{size:>6} studies   {took}   at most {mebibytes:6.1f} MiB   {line}", flush=True)
    return 0 if seconds < GOAL_SECONDS and most[-1] - most[0] < GROWTH_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
