"""QIDO-RS over a million stored results: milliseconds per search, as a client sees them, on SQLite and on PostgreSQL.

    python benchmarks/dicomweb_search.py [RESULTS] [sqlite] [postgresql]

The results are generated: two objects per study, two studies per patient, spread over ten years; headers are small. Searches by date,
patient and UID are asked for by real HTTP, each with other values; the 95th percentile should be below 50 ms. Exit status 1 when not.
"""

from __future__ import annotations

import json
import random
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import httpx

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from databases import migrated, postgres_programs, run, running_postgres  # noqa: E402
from results_made import page, report  # noqa: E402
from serving import serving  # noqa: E402

from listener.web import create_app  # noqa: E402
from store.database import read_engine  # noqa: E402
from store.header import header_json, indexed_values  # noqa: E402
from store.search import Search  # noqa: E402

REQUESTS = 200
GOAL_MILLISECONDS = 50.0
DAYS = 3650
INDEXED = ("study_date", "patient_id", "patient_name", "patient_name_ideographic", "patient_name_phonetic", "accession_number", "modality")
COLUMNS = (
    *("sop_instance_uid", "version_id", "study_instance_uid", "series_instance_uid", "sop_class_uid", "transfer_syntax_uid"),
    *("kind", "file_name", "sha256", "size_bytes", "header"),
    *INDEXED,
)


def day(study: int) -> str:
    """The date of a study: the numbers wander over all days."""
    return f"{date(2016, 1, 1) + timedelta(days=study * 7 % DAYS):%Y%m%d}"


def rows(results: int) -> Iterator[tuple[object, ...]]:
    """The rows of `result_object`."""
    templates = [(ds, json.dumps(header_json(ds))) for ds in (report(), page())]
    for study in range(results // 2):
        for ds, text in templates:
            kind = "page" if "Rows" in ds else "sr"
            uids = {str(ds.SOPInstanceUID): f"1.2.3.{study}.{kind == 'sr':d}", str(ds.StudyInstanceUID): f"1.2.{study}"}
            uids[str(ds.SeriesInstanceUID)] = f"1.2.{study}.{kind == 'sr':d}"
            patient = study // 2
            changes = {**uids, "20261120": day(study), '"P1"': f'"P{patient}"', "Doe^Jane": f"Doe{patient}^Jane", '"ACC1"': f'"A{study}"'}
            header = text
            for before, after in changes.items():
                header = header.replace(before, after)
            indexed = indexed_values(json.loads(header))
            sop, study_uid, series = (uids[str(ds[name].value)] for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"))
            name = f"{study % 256:02x}/{study:029x}{kind == 'sr':d}"
            facts = (sop, study + 1, study_uid, series, str(ds.SOPClassUID), "1.2.840.10008.1.2.1", kind, name, "0" * 64, 1000, header)
            yield (*facts, *(indexed[column] for column in INDEXED))


def fill_sqlite(path: Path, results: int) -> None:
    """Without the tables that a search does not look at."""
    with sqlite3.connect(path) as connection:
        connection.executemany(f"INSERT INTO result_object ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})", rows(results))  # noqa: S608
        connection.execute("ANALYZE")


def fill_postgresql(url: str, results: int) -> None:
    """As `fill_sqlite`."""
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # no foreign keys
        with cursor.copy(f"COPY result_object ({', '.join(COLUMNS)}) FROM STDIN") as copy:  # type: ignore[arg-type]
            for row in rows(results):
                copy.write_row(row)
        cursor.execute("ANALYZE result_object")


def searches(results: int) -> dict[str, Callable[[random.Random], tuple[str, dict[str, str]]]]:
    """What is asked for: name -> (path, keys) of one request."""
    studies = results // 2
    return {
        "date": lambda chance: ("/studies", {"StudyDate": day(chance.randrange(studies)), "limit": "100"}),
        "patient": lambda chance: ("/studies", {"PatientID": f"P{chance.randrange(studies // 2)}"}),
        "UID": lambda chance: ("/studies", {"StudyInstanceUID": f"1.2.{chance.randrange(studies)}"}),
        "SOP Instance UID": lambda chance: ("/instances", {"SOPInstanceUID": f"1.2.3.{chance.randrange(studies)}.1"}),
        "series of a study": lambda chance: (f"/studies/1.2.{chance.randrange(studies)}/series", {}),
        "date and modality": lambda chance: (
            "/studies",
            {"StudyDate": day(chance.randrange(studies)), "ModalitiesInStudy": "SR", "limit": "25"},
        ),
        "month": lambda chance: ("/studies", {"StudyDate": "{0}01-{0}31".format(day(chance.randrange(studies))[:6]), "limit": "25"}),
        "accession number": lambda chance: ("/studies", {"AccessionNumber": f"A{chance.randrange(studies)}"}),
        "patient, beginning": lambda chance: ("/studies", {"PatientID": f"P{chance.randrange(1000, 9999)}*", "limit": "25"}),
        "name, beginning": lambda chance: ("/studies", {"PatientName": f"Doe{chance.randrange(1000, 9999)}*", "limit": "25"}),
        "nothing, first page": lambda chance: ("/studies", {"limit": "25"}),
    }


#: What the goal is for; the others are printed.
WITH_GOAL = ("date", "patient", "UID")


def measured(url: str, database: str, results: int) -> bool:
    """Print a line per search; whether the goal is met."""
    met = True
    search = Search(read_engine(url))
    with serving(create_app(results=search, file_path=Path, ready=list)) as base_url, httpx.Client(trust_env=False, timeout=600) as client:
        for name, make in searches(results).items():
            chance = random.Random(name)  # noqa: S311 - the same values each time
            took: list[float] = []
            begin = time.monotonic()
            while len(took) < REQUESTS and (len(took) < 3 or time.monotonic() - begin < 20):
                path, keys = make(chance)
                started = time.perf_counter()
                response = client.get(f"{base_url}/dicom-web{path}", params=keys)
                took.append(1000 * (time.perf_counter() - started))
                assert response.status_code in (200, 204), response.text
            p95 = statistics.quantiles(took, n=20)[-1]
            met = met and (name not in WITH_GOAL or p95 < GOAL_MILLISECONDS)
            goal = f"  (goal {GOAL_MILLISECONDS:.0f})" if name in WITH_GOAL else ""
            middle = statistics.median(took)
            print(f"{database:<11} {name:<20} median {middle:8.1f} ms   95 % {p95:8.1f} ms   {len(took):>4} requests{goal}", flush=True)
    return met


def main() -> int:
    """Both databases, or those that are named; 1 when the goal is missed."""
    results = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    databases = sys.argv[2:] or ["sqlite", "postgresql"]
    met = True
    with tempfile.TemporaryDirectory(prefix="fourview-search-") as folder:
        if "sqlite" in databases:
            path = Path(folder) / "fourview.db"
            migrated(f"sqlite:///{path}")
            begin = time.monotonic()
            fill_sqlite(path, results)
            print(
                f"sqlite: {results} results written in {time.monotonic() - begin:.0f} s, {path.stat().st_size / 2**30:.1f} GiB", flush=True
            )
            met = measured(f"sqlite:///{path}", "sqlite", results) and met
        if "postgresql" in databases and (programs := postgres_programs()) is not None:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            with running_postgres(programs, port) as server:
                run(server, "CREATE DATABASE fourview")
                url = f"{server}/fourview"
                migrated(url)
                begin = time.monotonic()
                fill_postgresql(url, results)
                print(f"postgresql: {results} results written in {time.monotonic() - begin:.0f} s", flush=True)
                met = measured(url, "postgresql", results) and met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
