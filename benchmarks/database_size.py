"""keep() and the claims on a database of a million instances beside one of a thousand, in turn: what a full installation costs.

    python benchmarks/database_size.py [--quick] [--json FILE] [--database postgresql]

Both are real databases of this release's schema on the disk: studies of four images that were read, reported and delivered long ago, with
small headers, made by SQL in the database itself. What is measured happens to both in the same way: the four images of a new study that
falls anywhere among the old ones are kept, its look is claimed, four images and four deliveries of an old study wait once more and are
claimed. Every commit is synced, on PostgreSQL too.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from goals import BY_KEY
from measured import Row, Run, main  # before what it finds
from million import Filled, filled

from store import tables
from store.archive import Archive, Kept, Reception
from store.database import Engine, write_engine
from store.ledger import Ledger
from store.scoring import Scoring

FEW, MANY, MANY_QUICK = 1_000, 1_000_000, 100_000
IMAGES = 4  # of a study
ROOT = "1.2.410.200010.1099.20160101."
BEGIN = 1_480_000_000  # seconds since 1970, of the first study
APART = 1_200  # seconds from study to study: a quarter of a million fill ten years
LINES = 8  # of a study's timeline
NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {studies})"

_UID = f"'{ROOT}' || (100000000 + n)"
_PATIENT = "'P' || (1000000 + n / 2)"
_SENDER = "'GANTRY' || (n % 3)"
#: Something like a hash, 64 characters, another one for each row; `{0}` tells the columns apart.
_HASH = "substr('{0}' || ((n * 4 + k) * 2654435761 % 4294967296) || '-' || (n * 4 + k) || '{zeros}', 1, 64)".replace("{zeros}", "0" * 64)
_FILE = "'{0}' || ((n * 4 + k) * 2654435761 % 256) || '/' || (100000000 + n) || '-' || k"
_HOUR = f"({BEGIN} + n * {APART}) / 3600"


@dataclass(frozen=True)
class _Words:
    """What SQLite and PostgreSQL say differently."""

    at: str  # a moment
    json: str  # an empty object
    bytes: str  # a packed header


WORDS: Mapping[str, _Words] = {
    "sqlite": _Words(f"strftime('%Y-%m-%d %H:%M:%S.000000', {BEGIN} + n * {APART}, 'unixepoch')", "'{}'", "zeroblob(400)"),
    "postgresql": _Words(f"to_timestamp({BEGIN} + n * {APART})", "'{}'::json", "decode(repeat('00', 400), 'hex')"),
}


def rows(instances: int, database: str) -> Iterator[tuple[str, list[str], str]]:
    """Table, columns and query of each table that grows with the studies."""
    words = WORDS[database]
    numbers = NUMBERS.format(studies=instances // IMAGES)

    def made(table: str, columns: Mapping[str, str], positions: int = 1) -> tuple[str, list[str], str]:
        places = ", ".join(f"({number})" for number in range(positions))
        chosen = ", ".join(columns.values())
        query = f"{numbers}, places(k) AS (VALUES {places}) SELECT {chosen} FROM numbers CROSS JOIN places"  # noqa: S608 - words of ours
        return table, list(columns), query

    study = {"study_instance_uid": _UID}
    settled = {"generation": "6", "settled_generation": "6", "rule_name": "'all'", "rule_action": "'analyse'"}
    times = dict.fromkeys(("first_instance_at", "last_instance_at", "collecting_since"), words.at)
    patient = {"patient_id": _PATIENT, "patient_name": "'Doe^Jane'", "patient_birth_date": "'19700101'"}
    yield made("study", {**study, "state": "'analysed'", **settled, **times, "last_hour": _HOUR, **patient, "study_date": "'20161124'"})

    found = {"patient": _PATIENT, "sender": _SENDER, "month": "'201611'", "class": "'Normal'", "device": "'ROOM1'"}
    whens = [(f"WHEN {place} THEN '{what}'", f"WHEN {place} THEN {value}") for place, (what, value) in enumerate(found.items())]
    what, value = map(" ".join, zip(*whens, strict=True))
    yield made("found_by", {**study, "what": f"CASE k {what} END", "value": f"CASE k {value} END", "last_hour": _HOUR}, len(found))

    one = {"id": "n * 4 + k + 1"}
    image = {
        "series_instance_uid": f"{_UID} || '.1'",
        "sop_instance_uid": f"{_UID} || '.1.' || k",
        "sop_class_uid": "'1.2.840.10008.5.1.4.1.1.1.2'",
        "transfer_syntax_uid": "'1.2.840.10008.1.2.1'",
        "modality": "'MG'",
        "issuer_of_patient_id": "''",
        "file_hash": _HASH.format("f"),
        "pixel_hash": _HASH.format("p"),
        "size_bytes": "17000000",
        "origin": "'received'",
        "calling_ae_title": _SENDER,
        "called_ae_title": "'FOURVIEW'",
        "received_at": words.at,
        "resolved_at": words.at,
        "pixels_removed_at": words.at,
        "disposition": "'candidate'",
        "evidence": words.json,
        "header": words.bytes,
        "station_name": "'ROOM1'",
    }
    yield made("instance", {**one, **study, **patient, **image}, IMAGES)
    score = {"instance_id": one["id"], "model_key": _HASH.format("m"), "model": words.json, "state": "'scored'", "scores": words.json}
    yield made("score", {**one, **study, **score, "attempt": "1", "preview_file": _FILE.format("v"), "scored_at": words.at}, IMAGES)
    run = {"model_key": _HASH.format("m"), "model": words.json, "selection": words.json, "created_at": words.at}
    yield made("run", {"id": _HASH.format("r"), **study, **run})
    causes = {"run_id": _HASH.format("r"), "cause": _HASH.format("c"), "object_cause": _HASH.format("o")}
    told = {"outcome": "'COMPLETE'", "losers": words.json, "warnings": words.json, "trained": "true", "requested": "false"}
    yield made("version", {"id": "n + 1", **study, "number": "1", **causes, **told, "created_at": words.at})
    result = {
        "sop_instance_uid": f"{_UID} || '.9.' || k",
        "version_id": "n + 1",
        "series_instance_uid": f"{_UID} || '.9'",
        "sop_class_uid": "'1.2.840.10008.5.1.4.1.1.88.33'",
        "transfer_syntax_uid": "'1.2.840.10008.1.2.1'",
        "kind": "CASE k WHEN 0 THEN 'sr' ELSE 'page' END",
        "file_name": _FILE.format("r"),
        "sha256": _HASH.format("s"),
        "size_bytes": "100000",
        "header": words.json,
        "study_date": "'20161124'",
        "patient_id": _PATIENT,
        "patient_name": "'doe^jane'",
        "patient_name_ideographic": "''",
        "patient_name_phonetic": "''",
        "accession_number": "'A' || n",
        "modality": "'SR'",
    }
    yield made("result_object", {**study, **result}, 2)
    sent = {"destination": "'orthanc'", "state": "'confirmed'", "created_at": words.at, "sent_at": words.at, "confirmed_at": words.at}
    yield made("delivery", {"id": "n * 2 + k + 1", "sop_instance_uid": result["sop_instance_uid"], **study, **sent, "attempt": "1"}, 2)
    yield made("timeline", {**study, "at": words.at, "text": "'received MG ' || k || ' from GANTRY'"}, LINES)


@dataclass
class Installation:
    """One database with the doors that are measured; every value in milliseconds."""

    database: Filled
    engine: Engine
    took: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)  # the same of this process alone: a busy machine does not stretch it

    def __post_init__(self) -> None:
        self.archive, self.scoring, self.ledger = Archive(self.engine), Scoring(self.engine), Ledger(self.engine)
        self.chance = random.Random(1)  # noqa: S311 - the same studies each time

    def round(self, number: int) -> None:
        """A new study comes and is looked at; an old one is read and sent once more."""
        old = self.chance.randrange(self.database.rows // IMAGES)
        uid = f"{ROOT}{100_000_000 + old}.5.{number}"
        for position in range(IMAGES):
            with self._measured("keep"):
                kept = self.archive.keep(reception(uid, position))
            if kept is not Kept.NEW:
                raise RuntimeError(f"keep() answered {kept}")
        with self._measured("claim_studies"):
            studies = self.archive.claim_studies()
        wait(self.engine, f"{ROOT}{100_000_000 + old}")
        with self._measured("claim_images"):
            images = self.scoring.claim()
        with self._measured("claim_deliveries"):
            deliveries = self.ledger.claim()
        if (len(studies), len(images), len(deliveries)) != (1, IMAGES, 1):  # deliveries: one batch
            raise RuntimeError(f"claimed {studies}, {images}, {deliveries}")
        settle(self.engine, uid, f"{ROOT}{100_000_000 + old}")

    def _measured(self, what: str) -> _Stopwatch:
        return _Stopwatch(self.took.setdefault(what, []), self.processor.setdefault(what, []))


@dataclass
class _Stopwatch:
    took: list[float]
    processor: list[float]
    began: tuple[float, float] = (0.0, 0.0)

    def __enter__(self) -> None:
        self.began = (time.perf_counter(), time.process_time())

    def __exit__(self, *_: object) -> None:
        took, processor = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
        self.took.append(took * 1000)
        self.processor.append(processor * 1000)


def reception(study_instance_uid: str, position: int) -> Reception:
    """An image of a new study."""
    sop_instance_uid = f"{study_instance_uid}.{position}"
    return Reception(
        study_instance_uid=study_instance_uid,
        series_instance_uid=f"{study_instance_uid}.9",
        sop_instance_uid=sop_instance_uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="MG",
        patient_id=f"P{sop_instance_uid[-12:]}",
        issuer_of_patient_id="",
        patient_name="Doe^Jane",
        patient_birth_date="19700101",
        calling_ae_title="GANTRY1",
        called_ae_title="FOURVIEW",
        size_bytes=17_000_000,
        file_hash=f"{hash_of(sop_instance_uid):064x}",
        file_name=f"{position:02x}/{study_instance_uid[-20:]}-{position}",
    )


def hash_of(text: str) -> int:
    return random.Random(text).getrandbits(256)  # noqa: S311 - no secret


def wait(engine: Engine, study_instance_uid: str) -> None:
    """The images and results of an old study are to be read and sent once more."""
    score, delivery = tables.score, tables.delivery
    with engine.begin() as connection:
        connection.execute(score.update().where(score.c.study_instance_uid == study_instance_uid).values(state="waiting"))
        mine = delivery.c.study_instance_uid == study_instance_uid
        connection.execute(delivery.update().where(mine).values(state="waiting", due_at=delivery.c.created_at))


def settle(engine: Engine, new: str, old: str) -> None:
    """As before, the new study aside, which is at rest now."""
    study, score, delivery = tables.study, tables.score, tables.delivery
    free = {"workflow_id": None, "claimed_at": None}
    with engine.begin() as connection:
        rest = {"settled_generation": study.c.generation, "due_at": None}
        connection.execute(study.update().where(study.c.study_instance_uid == new).values(**free, **rest))
        connection.execute(score.update().where(score.c.study_instance_uid == old).values(**free, state="scored"))
        mine = delivery.c.study_instance_uid == old
        connection.execute(delivery.update().where(mine).values(**free, state="confirmed", due_at=None))


def measure(run: Run) -> Iterator[Row]:
    """Both sizes of the run's kind of database."""
    database = run.database
    many = MANY_QUICK if run.quick else MANY
    with ExitStack() as stack:
        both = []
        for count in (many, FEW):
            generated = filled([database], count, "instances", rows, fsync="on", synchronous_commit="on", full_page_writes="on")
            found = next(stack.enter_context(closing(generated)), None)
            if found is None:
                raise SystemExit("PostgreSQL's server is not installed: apt install postgresql")
            engine = write_engine(found.url)
            stack.callback(engine.dispose)
            both.append(Installation(found, engine))
        os.sync()  # what was written just now must not be written while the clock runs
        for installation in both:
            installation.round(0)
            installation.took.clear()
            installation.processor.clear()
        number = 0
        while number < 10 or run.left(time.monotonic()) > 3:
            number += 1
            for installation in both:
                installation.round(number)
    large, small = both
    for what, values in large.processor.items():
        print(f"{what}: {statistics.median(values):.2f} ms of this process's processor; {statistics.median(small.processor[what]):.2f} ms")
    note = "PostgreSQL" if database == "postgresql" else ""
    for key, what in (
        ("database_keep", "keep"),
        ("database_keep_p95", "keep"),
        ("database_claim_studies", "claim_studies"),
        ("database_claim_images", "claim_images"),
        ("database_claim_deliveries", "claim_deliveries"),
    ):
        instead = BY_KEY[key].what.replace(f"{MANY:,}", f"{MANY_QUICK:,}") if run.quick else ""
        yield Row(key, large.took[what], small.took[what], note, instead)


if __name__ == "__main__":
    main(measure)
