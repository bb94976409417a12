"""What one look at a study costs with its transaction, while the database fills with other studies: it should not grow.

Real archive on SQLite (WAL, synchronous FULL) in a temporary folder. The other studies are rows without files, four images each.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests")]

from stepped_store import SteppedStore, exam  # noqa: E402

from store import tables  # noqa: E402
from store.database import write_engine  # noqa: E402
from store.upgrade import upgrade  # noqa: E402

OTHERS = (0, 1_000, 10_000, 50_000)
REPEATS = 100


def fill(stepped: SteppedStore, have: int, want: int) -> None:
    """Rows of other studies, as copies of one that was received."""
    with stepped.engine.begin() as connection:
        study = dict(connection.execute(sa.select(tables.study).limit(1)).one()._mapping)
        images = [dict(row._mapping) for row in connection.execute(sa.select(tables.instance).limit(4)).all()]
        for start in range(have, want, 1000):
            numbers = range(start, min(start + 1000, want))
            connection.execute(
                sa.insert(tables.study),
                [
                    {**study, "study_instance_uid": f"1.2.{number}", "generation": 1, "settled_generation": 1, "due_at": None}
                    for number in numbers
                ],
            )
            copies = [{name: value for name, value in one.items() if name != "id"} for one in images]
            connection.execute(
                sa.insert(tables.instance),
                [
                    {**one, "study_instance_uid": f"1.2.{number}", "sop_instance_uid": f"1.2.{number}.{place}"}
                    for number in numbers
                    for place, one in enumerate(copies)
                ],
            )


def main() -> None:
    """Print one line per size of the database."""
    with tempfile.TemporaryDirectory() as folder:
        engine = write_engine(f"sqlite:///{folder}/look.db")
        upgrade(engine)
        stepped = SteppedStore(engine, Path(folder) / "files")
        views = exam()
        stepped.receive(*views)
        stepped.work()
        study = str(views[0].StudyInstanceUID)
        print(f"one look at a study of four images, with its transaction; {REPEATS} repeats; milliseconds")
        have = 0
        for want in OTHERS:
            fill(stepped, have, want)
            have = want
            taken = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                stepped.archive.advance(study, {}, stepped.policy, stepped._decide)
                taken.append((time.perf_counter() - started) * 1000)
            print(f"  {want:>6} other studies   median {statistics.median(taken):.2f}  max {max(taken):.2f}")
        engine.dispose()


if __name__ == "__main__":
    main()
