"""QIDO-RS over a million stored results: milliseconds per search in the store, and as a client sees them, on SQLite and on PostgreSQL.

    python benchmarks/dicomweb_search.py [RESULTS] [sqlite] [postgresql]

The results are generated: a million objects are 500,000 studies with a report and a page each, two studies per patient, spread over ten
years; headers are small. Searches by date, patient and UID are asked for by real HTTP, each with other values; the 95th percentile should
be below 50 ms. Exit status 1 when not.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import httpx
from million import Filled, filled  # first: it finds the others
from results_made import page, report
from serving import serving

from listener.dicomweb import MAX_COUNTED, MAX_RESULTS
from listener.garbage import keep_what_is_here
from listener.matching import parse_query
from listener.web import create_app
from store.database import read_engine
from store.header import header_json
from store.search import Search

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


def rows(results: int, _database: str) -> Iterable[tuple[str, Sequence[str], Iterator[tuple[object, ...]]]]:
    """`result_object` alone: a search looks at no other table."""
    yield "result_object", COLUMNS, objects(results // 2)


def objects(studies: int) -> Iterator[tuple[object, ...]]:
    """A report and a page of each study: copies of two, with the study's own values in their places."""
    templates = [(ds, json.dumps(header_json(ds))) for ds in (report(), page())]
    for study in range(studies):
        patient, date_of = study // 2, day(study)
        for ds, text in templates:
            number = int("Rows" not in ds)
            uids = {"StudyInstanceUID": f"1.2.{study}", "SeriesInstanceUID": f"1.2.{study}.{number}"}
            uids["SOPInstanceUID"] = f"1.2.3.{study}.{number}"
            changes = {str(ds[keyword].value): uid for keyword, uid in uids.items()}
            changes |= {"20261120": date_of, "Doe^Jane": f"Doe{patient}^Jane", '"P1"': f'"P{patient}"', '"ACC1"': f'"A{study}"'}
            header = text
            for before, after in changes.items():
                header = header.replace(before, after)
            kind, name = ("sr" if number else "page"), f"{study % 256:02x}/{study:029x}{number}"
            facts = (uids["SOPInstanceUID"], study + 1, uids["StudyInstanceUID"], uids["SeriesInstanceUID"], str(ds.SOPClassUID))
            indexed = (date_of, f"P{patient}", f"doe{patient}^jane", "", "", f"A{study}", str(ds.Modality))
            yield (*facts, "1.2.840.10008.1.2.1", kind, name, "0" * 64, 1000, header, *indexed)


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
        "patient, any": lambda chance: ("/studies", {"PatientID": "P*", "limit": "25"}),
        "nothing, first page": lambda chance: ("/studies", {"limit": "25"}),
    }


#: What the goal is for; the others are printed.
WITH_GOAL = ("date", "patient", "UID")


def measured(database: Filled) -> bool:
    """Print a line per search; whether the goal is met."""
    met = True
    search = Search(read_engine(database.url))
    app = create_app(results=search, file_path=Path, ready=list)
    keep_what_is_here()  # as the web process does
    with serving(app) as base_url, httpx.Client(trust_env=False, timeout=600) as client:
        for name, make in searches(database.rows).items():
            chance = random.Random(name)  # noqa: S311 - the same values each time
            requests = [make(chance) for _ in range(REQUESTS)]
            in_store = timed([lambda asked=asked: found(search, *asked) for asked in requests])
            by_http = timed([lambda asked=asked: answered(client, base_url, *asked) for asked in requests])
            p95 = statistics.quantiles(by_http, n=20)[-1]
            met = met and (name not in WITH_GOAL or p95 < GOAL_MILLISECONDS)
            goal = f"  (goal {GOAL_MILLISECONDS:.0f})" if name in WITH_GOAL else ""
            print(
                f"{database.name:<11} {name:<20} store {said(in_store)}   HTTP {said(by_http)}   {len(by_http):>4} requests{goal}",
                flush=True,
            )
    return met


def timed(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds of each call, as many as twenty seconds allow."""
    took: list[float] = []
    begin = time.monotonic()
    for call in calls:
        started = time.perf_counter()
        call()
        took.append(1000 * (time.perf_counter() - started))
        if len(took) >= 3 and time.monotonic() - begin > 20:
            break
    return took


def said(took: Sequence[float]) -> str:
    return f"median {statistics.median(took):7.1f} ms, 95 % {statistics.quantiles(took, n=20)[-1]:7.1f} ms"


def answered(client: httpx.Client, base_url: str, path: str, keys: dict[str, str]) -> None:
    """One request as a client makes it."""
    response = client.get(f"{base_url}/dicom-web{path}", params=keys)
    assert response.status_code in (200, 204), response.text


def found(search: Search, path: str, keys: dict[str, str]) -> None:
    """What the store is asked for one request: how many there are, which, and their headers."""
    query = parse_query(keys.items())
    matching = {match.key.name: match.value for match in query.matches}
    level = {"studies": "study", "series": "series", "instances": "instance"}[path.rsplit("/", 1)[-1]]
    limit, study = query.limit or MAX_RESULTS, path.split("/")[2] if path.count("/") > 1 else None
    within = {"study_instance_uid": study, "series_instance_uid": None, "matching": matching}
    at_most = limit + MAX_COUNTED
    count = search.count(level, **within, at_most=at_most)
    hits = search.search(level, **within, limit=min(limit, 100), offset=0, common=count == at_most)
    search.objects(sorted({hit.study_instance_uid for hit in hits}))


def main() -> int:
    """Both databases, or those that are named; 1 when the goal is missed."""
    results = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    met = True
    for database in filled(sys.argv[2:] or ["sqlite", "postgresql"], results, "results", rows):
        met = measured(database) and met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
