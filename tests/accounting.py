"""An independent account of an installation: what senders were promised, against the database (plain SQL), the spool and Orthanc (REST).

Nothing of Fourview's own code counts here. `Account.faults` is what must be empty; `figures` is what is printed.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg
from orthanc_process import OrthancProcess
from pydicom import dcmread
from storescu import Outgoing

SR, PAGE = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.7"


class Rows:
    """Plain SQL on either database, each question on a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, query: str) -> list[tuple[Any, ...]]:
        if self._url.startswith("sqlite"):
            path = self._url.removeprefix("sqlite:///")
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)
            try:
                return connection.execute(query).fetchall()
            finally:
                connection.close()
        with psycopg.connect(self._url.replace("+psycopg", ""), connect_timeout=10) as open_connection:
            return list(open_connection.execute(query).fetchall())


@dataclass
class Account:
    """What was found; nothing in `faults` means that every promise was kept."""

    figures: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def count(self, what: str, found: int, *, must_be: int | None = None) -> None:
        """A figure, and a fault when it is not what it must be."""
        self.figures[what] = found
        if must_be is not None and found != must_be:
            self.faults.append(f"{what}: {found}, must be {must_be}")

    def blame(self, what: str, items: Iterable[object]) -> None:
        """A figure that must be 0; the first of the items are named."""
        found = [str(item) for item in items]
        self.figures[what] = len(found)
        if found:
            self.faults.append(f"{what}: {len(found)}, the first {', '.join(found[:3])}")

    def __str__(self) -> str:
        return "\n".join(
            [f"  {what:<46} {count:>8}" for what, count in self.figures.items()] + [f"  FAULT {fault}" for fault in self.faults]
        )


def account(
    database: str,
    files: Path,
    answered: Sequence[Outgoing],
    orthanc: OrthancProcess | None,
    *,
    killed: bool,
    destination: str = "orthanc",
) -> Account:
    """Compare the four. Every study of `answered` is a whole exam and must have been read once and sent once.

    `killed`: processes were killed, so a file may lie in the spool whose row was never committed; the janitor has a day for it. Otherwise
    there must be none.
    """
    rows, made = Rows(database), Account()
    studies = {one.study_instance_uid for one in answered}
    made.count("instances answered 0x0000", len({one.sop_instance_uid for one in answered}))
    _instances(made, rows, files, answered)
    _studies(made, rows, studies)
    _links(made, rows, files, killed)
    if orthanc is not None:
        _orthanc(made, rows, files, orthanc, destination)
    return made


def data_set(part10: bytes) -> bytes:
    """The bytes behind the file meta information (PS3.10 7.1): (0002,0000) says how long that is."""
    assert part10[128:132] == b"DICM" and part10[132:140] == b"\x02\x00\x00\x00UL\x04\x00"
    return part10[144 + struct.unpack("<L", part10[140:144])[0] :]


def _instances(made: Account, rows: Rows, files: Path, answered: Sequence[Outgoing]) -> None:
    kept: dict[str, list[tuple[str | None, str]]] = {}
    for sop, file_name, file_hash in rows("SELECT sop_instance_uid, file_name, file_hash FROM instance WHERE file_name IS NOT NULL"):
        kept.setdefault(sop, []).append((file_name, file_hash))
    missing, wrong, twice = [], [], []
    for one in {one.sop_instance_uid: one for one in answered}.values():
        found = kept.get(one.sop_instance_uid, [])
        if not found:
            missing.append(one.sop_instance_uid)
            continue
        if len(found) > 1:
            twice.append(one.sop_instance_uid)
        file_name, file_hash = found[0]
        path = files / str(file_name)
        if not path.is_file():
            missing.append(f"{one.sop_instance_uid} (its file)")
            continue
        data = path.read_bytes()
        # The sender may encode sequences anew: the values must be the same, and the bytes those that were hashed at reception.
        if hashlib.sha256(data_set(data)).hexdigest() != file_hash or dcmread(BytesIO(data)) != dcmread(one.path):
            wrong.append(one.sop_instance_uid)
    made.blame("answered, and lost (no row or no file)", missing)
    made.blame("answered, and other bytes on disk", wrong)
    made.blame("kept twice", twice)


def _studies(made: Account, rows: Rows, studies: Collection[str]) -> None:
    states = dict(rows("SELECT study_instance_uid, state FROM study"))
    made.count("studies", len(studies))
    made.blame("studies not analysed", (f"{one} ({states.get(one, 'no row')})" for one in studies if states.get(one) != "analysed"))
    runs = Counter(one for (one,) in rows("SELECT study_instance_uid FROM run"))
    versions = Counter(one for (one,) in rows("SELECT study_instance_uid FROM version"))
    made.count("runs", sum(runs[one] for one in studies), must_be=len(studies))
    made.count("versions", sum(versions[one] for one in studies), must_be=len(studies))
    made.blame("studies with more than one run", (one for one in studies if runs[one] > 1))
    made.blame("studies with more than one version", (one for one in studies if versions[one] > 1))
    made.blame(
        "versions that are not COMPLETE", (one for (one,) in rows("SELECT study_instance_uid FROM version WHERE outcome <> 'COMPLETE'"))
    )
    scored = Counter(one for (one,) in rows("SELECT study_instance_uid FROM score WHERE state = 'scored'"))
    made.count("scores", sum(scored[one] for one in studies), must_be=4 * len(studies))


def _links(made: Account, rows: Rows, files: Path, killed: bool) -> None:
    claimed = [
        row for table in ("study", "score", "delivery") for row in rows(f"SELECT workflow_id FROM {table} WHERE workflow_id IS NOT NULL")
    ]
    made.blame("rows that a workflow still holds", (one for (one,) in claimed))
    orphans = [
        ("score", "SELECT count(*) FROM score WHERE instance_id NOT IN (SELECT id FROM instance)"),
        ("instance", "SELECT count(*) FROM instance WHERE study_instance_uid NOT IN (SELECT study_instance_uid FROM study)"),
        ("version", "SELECT count(*) FROM version WHERE run_id NOT IN (SELECT id FROM run)"),
        ("run", "SELECT count(*) FROM run WHERE id NOT IN (SELECT run_id FROM version)"),
        ("object", "SELECT count(*) FROM result_object WHERE version_id NOT IN (SELECT id FROM version)"),
        (
            "delivery",
            "SELECT count(*) FROM delivery WHERE instance_id IS NULL"
            " AND sop_instance_uid NOT IN (SELECT sop_instance_uid FROM result_object)",
        ),
        ("twice", "SELECT count(*) FROM (SELECT version_id, kind FROM result_object GROUP BY version_id, kind HAVING count(*) > 1) AS t"),
    ]
    made.count("orphaned or doubled rows", sum(rows(query)[0][0] for _, query in orphans), must_be=0)
    linked = linked_files(rows)
    there = {
        f"{folder.name}/{path.name}" for folder in files.iterdir() if folder.is_dir() and len(folder.name) == 2 for path in folder.iterdir()
    }
    made.blame("rows whose file is gone", sorted(linked - there))
    unfinished = [path.name for path in (files / "incoming").iterdir()] if (files / "incoming").is_dir() else []
    if killed:
        made.count("files without a row (left by kills)", len(there - linked))
        made.count("unfinished files (left by kills)", len(unfinished))
    else:
        made.blame("files without a row", sorted(there - linked))
        made.blame("unfinished files", unfinished)


def linked_files(rows: Rows) -> set[str]:
    """The names of all files that a row names."""
    columns = [("instance", "file_name"), ("score", "preview_file"), ("score", "heat_map_file"), ("result_object", "file_name")]
    columns.append(("result_object", "png_file"))
    return {name for table, column in columns for (name,) in rows(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")}


def _orthanc(made: Account, rows: Rows, files: Path, orthanc: OrthancProcess, destination: str) -> None:
    ours = {sop: (kind, name) for sop, kind, name in rows("SELECT sop_instance_uid, kind, file_name FROM result_object")}
    states = Counter(state for (state,) in rows(f"SELECT state FROM delivery WHERE destination = '{destination}'"))
    made.count("deliveries confirmed", states["confirmed"], must_be=len(ours))
    made.blame("deliveries in another state", (f"{state}: {count}" for state, count in states.items() if state != "confirmed"))
    theirs: Counter[str] = Counter()
    ids: dict[str, str] = {}
    for modality in ("SR", "OT"):
        for found in orthanc.find("Instance", Modality=modality):
            sop = found["MainDicomTags"]["SOPInstanceUID"]
            theirs[sop] += 1
            ids[sop] = found["ID"]
    versions = rows("SELECT count(*) FROM version")[0][0]
    for kind, what in (("sr", "SR"), ("page", "pages")):
        made.count(f"{what} in Orthanc", sum(count for sop, count in theirs.items() if ours.get(sop, ("",))[0] == kind), must_be=versions)
    made.blame("results twice in Orthanc", (sop for sop, count in theirs.items() if count > 1))
    made.blame("results that Orthanc lacks", sorted(set(ours) - set(theirs)))
    made.blame("results in Orthanc that we do not know", sorted(set(theirs) - set(ours)))
    sample = sorted(set(ours) & set(theirs))[:20]
    different = [sop for sop in sample if dcmread(BytesIO(orthanc.get(f"/instances/{ids[sop]}/file"))) != dcmread(files / ours[sop][1])]
    made.blame("results that are other bytes in Orthanc (of 20)", different)
