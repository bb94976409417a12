"""What a study leaves in the database and in the spool: bytes and files per study, on SQLite and on PostgreSQL.

    python benchmarks/study_size.py [STUDIES] [ROWS COLUMNS]

A real installation with the simulated model receives STUDIES exams of four synthetic views and reports them; nothing is delivered. Images
go after `keep_images_days`; results, previews and rows stay. The workflow engine's rows go after a day and are weighed apart.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from accounting import Rows  # noqa: E402
from databases import PostgresProcess, postgres_programs, run  # noqa: E402
from fourview_process import FourviewProcess  # noqa: E402
from killing import wait_until_settled  # noqa: E402
from ports import free_port  # noqa: E402
from storescu import Sender, write_exam  # noqa: E402

from store.database import write_engine  # noqa: E402

KIB = 1024


def main() -> None:
    """Fill both databases and print the figures."""
    words = [int(word) for word in sys.argv[1:]]
    studies = words[0] if words else 100
    rows, columns = words[1:] or (256, 256)
    with tempfile.TemporaryDirectory() as temporary:
        ours = _filled(Path(temporary), "", studies, rows, columns)
        data = Path(temporary) / "data"
        print(f"{studies} studies of four {rows}x{columns} images, KiB per study:")
        print(f"  SQLite               {_sqlite_bytes(data / 'fourview.db') / studies / KIB:8.1f}")
        print(f"    engine, for a day  {_sqlite_bytes(data / 'fourview-engine.db') / studies / KIB:8.1f}", flush=True)
        _files(ours, studies)
    programs = postgres_programs()
    if programs is None:
        sys.exit("PostgreSQL's server is not installed: apt install postgresql")
    server = PostgresProcess(programs, free_port())
    try:
        server.start()
        run(server.url, "CREATE DATABASE size")
        with tempfile.TemporaryDirectory() as temporary:
            ours = _filled(Path(temporary), f"{server.url}/size", studies, rows, columns)
            query = "SELECT table_schema, sum(pg_total_relation_size(format('%I.%I', table_schema, table_name)::regclass)) FROM"
            query += " information_schema.tables WHERE table_schema IN ('public', 'dbos') GROUP BY 1"
            found = dict(Rows(ours.database)(query))
            print(f"  PostgreSQL           {int(found['public']) / studies / KIB:8.1f}  indexes included")
            print(f"    engine, for a day  {int(found['dbos']) / studies / KIB:8.1f}")
    finally:
        server.remove()


def _filled(folder: Path, database: str, studies: int, rows: int, columns: int) -> FourviewProcess:
    """A Fourview that has read so many studies, stopped."""
    ours = FourviewProcess(
        folder, dicom_port=free_port(), http_port=free_port(), pacs_port=free_port(), pacs_url="http://127.0.0.1:1", database=database
    )
    ours.start()
    try:
        sender = Sender(str(shutil.which("storescu", path="/usr/bin:/usr/local/bin")), ours.dicom_port)
        for number in range(studies):
            exam = write_exam(folder / "outgoing", f"size {number}", rows=rows, columns=columns)
            sender.send(exam)
            for one in exam:
                one.path.unlink()
        wait_until_settled(ours, studies, delivered=False, seconds=600)
    finally:
        ours.stop()
    return ours


def _files(ours: FourviewProcess, studies: int) -> None:
    rows = Rows(ours.database)
    columns = {
        "images, until they retire": ("instance", "file_name", ""),
        "previews": ("score", "preview_file", ""),
        "heat maps": ("score", "heat_map_file", ""),
        "SR": ("result_object", "file_name", " AND kind = 'sr'"),
        "page": ("result_object", "file_name", " AND kind = 'page'"),
        "page as PNG": ("result_object", "png_file", ""),
    }
    for what, (table, column, more) in columns.items():
        names = [name for (name,) in rows(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL{more}")]  # noqa: S608 - our own names
        size = sum((ours.files / name).stat().st_size for name in names)
        print(f"  {what:<28} {len(names) / studies:4.1f} files {size / studies / KIB:10.1f}")


def _sqlite_bytes(path: Path) -> int:
    engine = write_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return path.stat().st_size


if __name__ == "__main__":
    main()
