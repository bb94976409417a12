"""The whole way: from the last C-STORE answer to the report being in Orthanc, 3328x2560 exams through a warm `fourview serve`.

    python benchmarks/time_to_result.py [--quick] [--json FILE] [--seconds N]

Paced, as a modality acquires them; four views back to back; exams per hour with several exams on their way; and a priority study beside a
thousand that wait. The rival is the reference path (`reference_path.py`). Prints besides where the time of one paced exam goes, step by
step from Fourview's log, and what each process costs.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from measured import Row, Run, in_turn, main  # before what it finds

# isort: split
import sqlalchemy as sa
from fourview_process import SIMULATED_CARD
from mammograms_made import mammogram, uid
from reference_path import ReferenceWorker
from steps import processor_seconds, steps, steps_text
from storescu import Outgoing, Sender
from whole_way import WholeWay

from listener.keeping import keep_file
from listener.keys import read_keys
from store import tables
from store.archive import Archive
from store.database import read_engine, write_engine
from store.files import Files
from store.study import HANGING_ORDER

#: Between the views of a paced exam.
PACE_SECONDS = 3.0
#: Exams that are on their way at once when exams per hour are counted.
ON_THEIR_WAY = 3
QUEUED = 1000
#: How long the stand-in model of the queue's studies takes for an image.
QUEUED_IMAGE_SECONDS = 0.1


def rows(run: Run) -> Iterator[Row]:
    """The four rows."""
    with ExitStack() as stack:
        way = stack.enter_context(WholeWay(run.folder / "way"))
        rival = _Rival(stack.enter_context(ReferenceWorker(run.folder / "reference", weights=way.weights)), way)
        measured = _Measured(way)
        measured.burst()  # warm
        pairs = 1 if run.quick else 3
        pace = PACE_SECONDS / 3 if run.quick else PACE_SECONDS
        ours, theirs = in_turn(lambda: measured.paced(pace), rival.once, seconds=0, at_least=pairs, warm=0)
        yield Row("paced", ours, theirs, f"a view every {pace:g} s" if run.quick else "")
        way.wait_for_delivery(measured.last[0])
        print(steps_text(steps(way.log(), *measured.last)), file=sys.stderr)
        yield Row("burst", *in_turn(measured.burst, rival.once, seconds=0, at_least=pairs, warm=0))
        seconds = run.seconds * 0.1
        yield Row("sustained", [measured.sustained(seconds)], [rival.in_a_loop(seconds)], f"{ON_THEIR_WAY} exams on their way at once")
    yield queued(run)


class _Rival:
    """The reference path, asked for four files that lie in Orthanc."""

    def __init__(self, worker: ReferenceWorker, way: WholeWay) -> None:
        self._worker = worker
        self._url = way.orthanc.url
        self._instances = [way.orthanc.upload(path.read_bytes()) for path in way.exam("rival")]

    def once(self) -> float:
        """Seconds."""
        begin = time.monotonic()
        self._worker.analyse(self._url, ("", ""), self._instances)
        return time.monotonic() - begin

    def in_a_loop(self, seconds: float) -> float:
        """Exams per hour."""
        begin, count = time.monotonic(), 0
        while time.monotonic() < begin + seconds:
            self.once()
            count += 1
        return 3600 * count / (time.monotonic() - begin)


class _Measured:
    """One measurement after the other, each with an exam of its own."""

    def __init__(self, way: WholeWay) -> None:
        self._way = way
        self._made = 0
        self.last = ("", 0.0, 0.0)  # Study Instance UID, when its last image was answered, when its report was stored

    def paced(self, pace: float, calling: str = "MODALITY") -> float:
        """A view every `pace` seconds, each by an association of its own; seconds from the last answer to the report in Orthanc."""
        name = self._name()
        paths = self._way.exam(name)
        begin = time.monotonic()
        for number, path in enumerate(paths):
            time.sleep(max(0.0, begin + number * pace - time.monotonic()))
            with self._way.association(calling) as assoc:
                answered = self._way.send(path, assoc)
        return self._seconds(name, answered)

    def burst(self) -> float:
        """Four views over one association; seconds as in `paced`."""
        name = self._name()
        paths = self._way.exam(name)
        with self._way.association() as assoc:
            for path in paths:
                answered = self._way.send(path, assoc)
        return self._seconds(name, answered)

    def sustained(self, seconds: float) -> float:
        """Exams per hour: `ON_THEIR_WAY` senders, each with the next exam as soon as the report of its last one is stored."""
        begin = time.monotonic()
        before = processor_seconds()
        stored: list[float] = []
        sender = Sender("storescu", self._way.fourview.dicom_port)

        def keep_sending() -> None:
            while time.monotonic() < begin + seconds:
                name = self._name()
                sender.send([Outgoing(path, uid(name), "") for path in self._way.exam(name)])
                stored.extend(self._way.wait_for_reports([name]))

        threads = [threading.Thread(target=keep_sending) for _ in range(ON_THEIR_WAY)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        took = time.monotonic() - begin
        for what, spent in processor_seconds(since=before).items():
            print(f"  {spent / len(stored):6.2f} s of a core for each exam: {what}", file=sys.stderr)
        return 3600 * len(stored) / took

    def _name(self) -> str:
        self._made += 1
        return f"exam {self._made}"

    def _seconds(self, name: str, answered: float) -> float:
        [stored] = self._way.wait_for_reports([name])
        self.last = (uid(name), answered, stored)
        return stored - answered


def queued(run: Run) -> Row:
    """A priority study while nothing waits, then while a thousand studies wait."""
    studies = QUEUED // 10 if run.quick else QUEUED
    with WholeWay(run.folder / "queued", rule='CallingAET == "URGENT"', tables=_rule_of_the_queue(run.folder)) as way:
        measured = _Measured(way)
        measured.paced(0.5, "URGENT")  # warm
        times, pace = (2, 0.3) if run.quick else (3, 1.0)
        none = [measured.paced(pace, "URGENT") for _ in range(times)]
        _fill_queue(way, studies)
        waiting = [measured.paced(pace, "URGENT") for _ in range(times)]
        left = _waiting_images(way)
    note = f"{4 * studies} images of a lower priority, read by a stand-in model in {QUEUED_IMAGE_SECONDS:g} s; {left} left at the end"
    return Row("queued", waiting, none, note)


def _rule_of_the_queue(folder: Path) -> str:
    card = folder / "stand-in.toml"
    card.write_text(f"{SIMULATED_CARD}sleep_seconds = {QUEUED_IMAGE_SECONDS}\n")
    return f"""
[[rule]]
name = "queue"
when = 'Modality == "MG"'
action = "analyse"
model = "{card}"
priority = 9
"""


def _fill_queue(way: WholeWay, studies: int) -> None:
    """Keep small images as a receiver does, and wait until the worker has seen all of them."""
    engine = write_engine(way.fourview.database)
    archive, files = Archive(engine), Files(way.fourview.files)
    for number in range(studies):
        for view in HANGING_ORDER:
            received = files.incoming / "queued"
            mammogram(view, study=f"queued {number}").save_as(received, enforce_file_format=True)
            keep_file(read_keys(received), received, "", archive=archive, files=files, calling_ae_title="ROOM1", called_ae_title="FOURVIEW")
    row = tables.study
    unseen = sa.select(sa.func.count()).select_from(row).where(row.c.generation > row.c.settled_generation)
    engine.dispose()
    # By the engine that only reads: the other would hold the lock of all writers while it asks.
    reader = read_engine(way.fourview.database)
    while _counted(reader, unseen) > ON_THEIR_WAY:
        time.sleep(0.5)
    reader.dispose()


def _waiting_images(way: WholeWay) -> int:
    engine = read_engine(way.fourview.database)
    try:
        return _counted(engine, sa.select(sa.func.count()).select_from(tables.score).where(tables.score.c.state == "waiting"))
    finally:
        engine.dispose()


def _counted(engine: sa.Engine, query: sa.Select[tuple[int]]) -> int:
    with engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


if __name__ == "__main__":
    main(rows)
