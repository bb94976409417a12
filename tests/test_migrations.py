"""From the previous release to this one, with rows: on SQLite and PostgreSQL, by two hosts at once, and not by accident."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from fourview_process import SIMULATED_CARD
from mammograms_made import uid
from stepped_store import MODEL, FixedRuling, SteppedStore, exam, image

from listener import parts
from store import found_by, tables
from store.database import engine_database, schema_revision, workflow_engine, write_engine
from store.listing import Wanted
from store.study import View
from store.upgrade import alembic_config, upgrade
from store.view import resolve

AT = datetime(2026, 11, 1, 9, tzinfo=UTC)
STUDY = "1.2.3"
PROJECT = Path(__file__).resolve().parent.parent
HEAD = ScriptDirectory(str(PROJECT / "store" / "migrations")).get_current_head()


@pytest.fixture
def previous(empty_database_url: str) -> Iterator[sa.Engine]:
    """A database as the previous release left it: one analysed study with a version that was sent and one that waits."""
    engine = write_engine(empty_database_url)
    command.upgrade(alembic_config(engine), "0002")
    old = sa.MetaData()
    old.reflect(engine)
    scores = {"classes": ["Normal", "Mass"], "probabilities": [0.9, 0.1], "box": [0, 0, 1, 1], "rows": 1, "columns": 1, "warnings": []}
    selection = {"L-CC": {"instance_id": 1, "sop_instance_uid": "1.2.3.1", "pixel_hash": "p", "scores": scores, "failure": ""}}
    model = {"model_key": MODEL.key, "model": asdict(MODEL)}
    mine = {"study_instance_uid": STUDY}
    header = resolve(image(View.L_CC))
    result = {
        "version_id": 1,
        "series_instance_uid": "1.2.3.9",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.33",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "sha256": "s",
        "size_bytes": 1,
        "header": {},
        "study_date": "20261101",
        "accession_number": "A1",
        "modality": "SR",
        **dict.fromkeys(("patient_id", "patient_name", "patient_name_ideographic", "patient_name_phonetic"), "P1"),
    }
    rows: dict[str, list[dict[str, Any]]] = {
        "installation": [{"name": "device_uid", "value": "2.25.7"}, {"name": "serial_number", "value": "S"}],
        "study": [
            {
                **mine,
                "state": "analysed",
                "patient_id": "P1",
                "generation": 3,
                "settled_generation": 3,
                **dict.fromkeys(("first_instance_at", "last_instance_at", "collecting_since"), AT),
            }
        ],
        "instance": [
            {
                **mine,
                "sop_instance_uid": "1.2.3.1",
                "series_instance_uid": "1.2.3.8",
                "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.2",
                "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                "file_hash": "f",
                "file_name": "ab/" + "0" * 30,
                "size_bytes": 5,
                "origin": "received",
                "received_at": AT,
                "resolved_at": AT,
                "disposition": "candidate",
                "evidence": asdict(header.evidence),
                "ranking": asdict(header.ranking),
                "calling_ae_title": "GANTRY",
                "called_ae_title": "FOURVIEW",
                **dict.fromkeys(("modality", "patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date"), "x"),
            }
        ],
        "score": [{**mine, **model, "instance_id": 1, "state": "scored", "scores": scores, "scored_at": AT}],
        "run": [{**mine, **model, "id": "r", "selection": selection, "created_at": AT}],
        "version": [
            {
                **mine,
                "number": 1,
                "run_id": "r",
                "cause": "c",
                "object_cause": "o",
                "outcome": "PARTIAL",
                "losers": [],
                "warnings": [],
                "trained": False,
                "requested": False,
                "created_at": AT,
            }
        ],
        "result_object": [
            {**mine, **result, "sop_instance_uid": f"1.2.3.9.{kind}", "kind": kind, "file_name": f"cd/{kind * 15}"} for kind in ("sr", "pg")
        ],
        "delivery": [
            {**mine, "sop_instance_uid": "1.2.3.9.sr", "destination": "pacs", "state": "confirmed", "due_at": None, "created_at": AT},
            {**mine, "sop_instance_uid": "1.2.3.9.pg", "destination": "pacs", "state": "waiting", "due_at": AT, "created_at": AT},
        ],
        "lease": [{"process": "host:work:0", "role": "work", "beat_at": AT}],
        "timeline": [{**mine, "at": AT, "text": "received"}],
    }
    with engine.begin() as connection:
        for name, several in rows.items():
            connection.execute(sa.insert(old.tables[name]), several)
    yield engine
    engine.dispose()


def test_rows_of_the_previous_release_are_read_and_worked_on(previous: sa.Engine, tmp_path: Path) -> None:
    assert upgrade(previous) == ("0002", schema_revision(previous))
    stepped = SteppedStore(previous, tmp_path / "files")
    study = stepped.search.study(STUDY)
    assert (study["state"], [run["number"] for run in study["runs"]]) == ("analysed", [1])
    assert sorted(one["state"] for one in study["deliveries"]) == ["confirmed", "waiting"]
    found = [
        Wanted(),
        Wanted(patient_id="P1"),
        Wanted(calling_ae_title="GANTRY"),
        Wanted(predicted_class="Normal"),
        Wanted(states=("analysed",)),
    ]
    for wanted in found:
        assert [one["study_instance_uid"] for one in stepped.listing.studies(wanted).studies] == [STUDY], wanted
    assert stepped.listing.studies(Wanted(predicted_class="Mass")).studies == []
    assert [one["tries"] for one in stepped.search.deliveries()] == [0, 0]
    with previous.begin() as connection:
        names = {row.name: row.value for row in connection.execute(sa.select(tables.installation))}
        score = connection.execute(sa.select(tables.score)).one()
        priority = connection.execute(sa.select(tables.study.c.rule_priority, tables.study.c.priority)).one()
        epoch = connection.execute(sa.select(tables.version.c.epoch)).scalar_one()
    assert names["device_uid"] == "2.25.7" and names["serial_number"] == "S" and len(names["secret"]) == 64
    assert (score.crashes, score.priority, score.begun_by, tuple(priority), epoch) == (0, 5, None, (5, 5), 0)
    assert stepped.retention(7, 90).unknown(["ab/" + "0" * 30, "ab/" + "1" * 30]) == {"ab/" + "1" * 30}
    [claim] = stepped.ledger.claim()
    assert [one.sop_instance_uid for one in stepped.ledger.batch(claim.workflow_id)] == ["1.2.3.9.pg"], "what waited is sent"
    assert [row.to_route for row in stepped.rows(sa.select(tables.instance.c.to_route))] == [False], "of what is here nothing is forwarded"
    stepped.ruling = FixedRuling(forward_to=("archive",))
    stepped.receive(*exam())
    stepped.settle()
    assert stepped.state() == "analysed", "and new studies are read beside it"
    assert Counter(one["kind"] for one in stepped.study()["deliveries"]) == {"sr": 1, "page": 1, "original": 4}
    with pytest.raises(sa.exc.IntegrityError), previous.begin() as connection:
        connection.execute(sa.update(tables.delivery).values(instance_id=99999))


def test_every_study_of_many_is_found_by_what_it_was_found_by_before(previous: sa.Engine, tmp_path: Path) -> None:
    """More of them than are read at once, two and a bit times; each up to the last moment of its hour."""
    many = [f"1.2.4.{number}" for number in range(1100)]
    old = sa.MetaData()
    old.reflect(previous)
    at = datetime(2026, 11, 1, 10, 59, 59, 999_999, tzinfo=UTC)
    mine = {"state": "ignored", **dict.fromkeys(("first_instance_at", "last_instance_at", "collecting_since"), at)}
    with previous.begin() as connection:
        rows = [{"study_instance_uid": one, "patient_id": f"of {one}", **mine} for one in many]
        connection.execute(sa.insert(old.tables["study"]), rows)
    upgrade(previous)
    stepped = SteppedStore(previous, tmp_path / "files")
    row = tables.found_by
    patients = stepped.rows(sa.select(row.c.study_instance_uid, row.c.value, row.c.last_hour).where(row.c.what == "patient"))
    expected = {(one, f"of {one}", found_by.hour_of(at)) for one in many} | {(STUDY, "P1", found_by.hour_of(AT))}
    assert {tuple(one) for one in patients} == expected and len(patients) == len(expected)
    hours = stepped.rows(sa.select(tables.study.c.study_instance_uid, tables.study.c.last_hour))
    assert {tuple(one) for one in hours} == {(uid_, hour) for uid_, _, hour in expected}


def test_two_that_upgrade_at_once_wait_for_each_other(previous: sa.Engine) -> None:
    """With the workflow engine's tables; the second finds nothing left to do."""
    url = previous.url.render_as_string(hide_password=False)
    config: Any = SimpleNamespace(store=SimpleNamespace(database=url))
    program = "import sys; from types import SimpleNamespace as N; from listener import parts; "
    program += "print(parts.upgrade_database(N(store=N(database=sys.argv[1]))))"
    with ThreadPoolExecutor(2) as pool:
        ended = list(
            pool.map(
                lambda _: subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, timeout=120, cwd=PROJECT),
                range(2),
            )
        )
    assert [one.returncode for one in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    assert sorted(one.stdout.strip() for one in ended) == [f"('0002', '{HEAD}')", f"('{HEAD}', '{HEAD}')"]
    assert parts.upgrade_database(config) == (HEAD, HEAD)
    engine = workflow_engine(engine_database(url))
    schema = None if engine.dialect.name == "sqlite" else "dbos"
    assert "workflow_status" in sa.inspect(engine).get_table_names(schema=schema)
    engine.dispose()


def test_no_role_starts_on_an_older_schema_and_none_changes_it(previous: sa.Engine, tmp_path: Path, free_port: Callable[[], int]) -> None:
    url = previous.url.render_as_string(hide_password=False)
    (tmp_path / "card.toml").write_text(SIMULATED_CARD)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[dicom]\nport = {free_port()}\n[http]\nport = {free_port()}\n[store]\ndatabase = "{url}"\nmin_free_gib = 0\n'
        '[study]\nfetch_from = ""\n[model]\ncard = "card.toml"\nallow_untrained = true\n'
        '[[rule]]\nname = "all"\nwhen = \'Modality == "MG"\'\naction = "analyse"\nsend_to = []\n'
    )
    for role in ("serve", "receive", "work", "web"):
        command_line = [sys.executable, "-m", "listener.cli", "--config", str(config), role]
        done = subprocess.run(command_line, capture_output=True, text=True, timeout=120, cwd=PROJECT)
        assert done.returncode == 1, (role, done.stdout, done.stderr)
        assert f"has schema 0002, this release needs {HEAD}: run `fourview db upgrade`" in done.stderr and "Traceback" not in done.stderr
    assert schema_revision(previous) == "0002"
    with previous.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM lease").scalar_one() == 1, "no lease was taken"


def test_a_patient_id_of_10_kb_is_kept_and_found(stepped: SteppedStore) -> None:
    """PostgreSQL's ordinary index refuses more than 2.7 KB that do not compress."""
    long = "".join(uid("part", number) for number in range(500))[:10_000]
    stepped.receive(image(View.L_CC, PatientID=long))
    stepped.settle()
    row = tables.study
    assert [one.study_instance_uid for one in stepped.rows(sa.select(row).where(row.c.patient_id == long))] == [uid("study")]
