"""Engines and the schema, on SQLite and PostgreSQL."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from stepped_store import SteppedStore, exam

from store import database, tables
from store.chores import Chores
from store.database import (
    DatabaseAway,
    OldSchema,
    database_now,
    engine_database,
    insert_or_ignore,
    read_engine,
    require_current_schema,
    schema_revision,
    workflow_engine,
    write_engine,
)
from store.rows import Busy
from store.upgrade import alembic_config, upgrade

Opened = Callable[..., sa.Engine]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Engines by URL, closed with the test."""
    made: list[sa.Engine] = []

    def open_(url: str, kind: Callable[[str], sa.Engine] = write_engine) -> sa.Engine:
        made.append(kind(url))
        return made[-1]

    yield open_
    for engine in made:
        engine.dispose()


# --------------------------------------------------------------------------------------------------------------------- schema


def test_an_empty_database_is_refused_and_then_upgraded(empty_database_url: str, opened: Opened) -> None:
    engine = opened(empty_database_url)
    with pytest.raises(OldSchema, match="has no tables yet: run `fourview db upgrade`"):
        require_current_schema(engine)
    before, after = upgrade(engine)
    assert before is None and after == schema_revision(engine)
    require_current_schema(engine)


def test_an_upgrade_may_be_repeated_and_keeps_the_identity(empty_database_url: str, opened: Opened) -> None:
    engine = opened(empty_database_url)
    _, revision = upgrade(engine)

    def identity() -> list[tuple[str, str]]:
        with engine.begin() as connection:
            return [tuple(row) for row in connection.execute(sa.select(tables.installation).order_by("name"))]

    before = identity()
    assert upgrade(engine) == (revision, revision) and identity() == before
    assert [name for name, _ in before] == ["device_uid", "secret", "serial_number"]


def test_another_schema_is_refused_by_name_and_without_the_password(empty_database_url: str, opened: Opened) -> None:
    engine = opened(empty_database_url.replace("fourview@", "fourview:secret@"))
    upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(OldSchema, match="has schema 9999, this release needs") as raised:
        require_current_schema(engine)
    assert "secret" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection", "ignore:autogenerate skipping")
def test_the_migrations_make_what_the_tables_say(database_url: str, opened: Opened) -> None:
    with opened(database_url).connect() as connection:
        # Alembic cannot read SQLite's defaults back; PostgreSQL's tell that they are the same.
        defaults = connection.dialect.name == "postgresql"
        options = {"compare_type": True, "compare_server_default": defaults, "include_object": no_index}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables.metadata) == []


def no_index(_object: object, _name: str, kind: str, _reflected: bool, _compared_to: object) -> bool:
    """Alembic cannot compare those of expressions: the databases themselves can."""
    return kind != "index"


def test_the_migrations_make_the_indexes_that_the_tables_say(empty_database_url: str, opened: Opened) -> None:
    engine = opened(empty_database_url)
    asked = {
        "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
        "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    }

    def indexes() -> dict[str, str]:
        with engine.begin() as connection:
            rows = connection.exec_driver_sql(asked[engine.dialect.name]).all()
        return {name: " ".join(text.replace('"', "").split()) for name, text in rows if "alembic" not in name}

    tables.metadata.create_all(engine)
    said = indexes()
    tables.metadata.drop_all(engine)
    upgrade(engine)
    assert indexes() == said and len(said) > 30


def test_a_database_of_the_first_release_keeps_its_studies(empty_database_url: str, opened: Opened, tmp_path: Path) -> None:
    """A study that was kept under schema 0001 is analysed under this one."""
    engine = opened(empty_database_url)
    command.upgrade(alembic_config(engine), "0001")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO installation (name, value) VALUES ('device_uid', '2.25.7'), ('serial_number', 'S')"))
    with pytest.raises(OldSchema, match="fourview db upgrade"):
        require_current_schema(engine)
    old = sa.MetaData()
    old.reflect(engine)
    with engine.begin() as connection:
        moment = datetime(2026, 11, 20, 10, tzinfo=UTC)
        times = dict.fromkeys(("first_instance_at", "last_instance_at", "collecting_since"), moment)
        uid = str(exam()[0].StudyInstanceUID)
        connection.execute(
            sa.insert(old.tables["study"]).values(study_instance_uid=uid, state="held", state_reason="as it was", generation=1, **times)
        )
        connection.execute(
            sa.insert(old.tables["decision"]).values(
                request_id="r",
                study_instance_uid=uid,
                kind="reprocess",
                person="Kim",
                created_at=moment,
                applied_at=moment,
                answer="refused",
            )
        )
    assert upgrade(engine) == ("0001", schema_revision(engine))
    stepped = SteppedStore(engine, tmp_path / "files")
    assert (stepped.state(), stepped.study()["state_reason"]) == ("held", "as it was")
    stepped.receive(*exam())
    stepped.work()
    assert stepped.ask("release") == "accepted"
    stepped.settle()
    assert stepped.state() == "analysed" and len(stepped.study()["decisions"]) == 2


# -------------------------------------------------------------------------------------------------------------------- engines


def test_the_clock_is_aware_utc_and_moves(database_url: str, opened: Opened) -> None:
    with opened(database_url).begin() as connection:
        first = database_now(connection)
        time.sleep(0.01)
        second = database_now(connection)
    assert first.tzinfo is UTC and first < second, "it moves inside a transaction too"
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)


def test_times_come_back_in_utc(database_url: str, opened: Opened) -> None:
    engine = opened(database_url)
    local = datetime(2026, 11, 20, 10, 15, 0, 123000, tzinfo=timezone(timedelta(hours=9)))
    with engine.begin() as connection:
        insert_or_ignore(connection, tables.lease, {"process": "p", "role": "work", "beat_at": local})
        found = connection.execute(sa.select(tables.lease.c.beat_at)).scalar_one()
    assert found == local and found.utcoffset() == timedelta(0)


def test_a_naive_time_is_not_stored(database_url: str, opened: Opened) -> None:
    naive = {"process": "p", "role": "work", "beat_at": datetime(2026, 11, 20)}
    with pytest.raises(sa.exc.StatementError, match="naive"), opened(database_url).begin() as connection:
        insert_or_ignore(connection, tables.lease, naive)


def test_insert_or_ignore_says_whether_it_inserted(database_url: str, opened: Opened) -> None:
    """With a key of its own and with one that is counted by the database."""
    engine = opened(database_url)
    now = datetime.now(UTC)
    times = dict.fromkeys(("first_instance_at", "last_instance_at", "collecting_since"), now)
    study = {"study_instance_uid": "1.2", "state": "collecting", **times}
    decision = {"request_id": "r", "study_instance_uid": "1.2", "kind": "reprocess", "person": "Kim", "created_at": now}
    for table, values in ((tables.study, study), (tables.decision, decision)):
        with engine.begin() as connection:
            assert insert_or_ignore(connection, table, values)
        with engine.begin() as connection:
            assert not insert_or_ignore(connection, table, values)
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 1


def test_a_reader_cannot_write(database_url: str, opened: Opened) -> None:
    reader = opened(database_url, read_engine)
    with pytest.raises(sa.exc.DBAPIError), reader.begin() as connection:
        connection.execute(sa.delete(tables.lease))


def test_a_reader_is_not_stopped_by_a_writer(database_url: str, opened: Opened) -> None:
    writer, reader = opened(database_url), opened(database_url, read_engine)
    values = {"process": "p", "role": "work", "beat_at": datetime.now(UTC)}
    with writer.begin() as writing:
        insert_or_ignore(writing, tables.lease, values)
        with reader.begin() as reading:
            assert reading.execute(sa.select(sa.func.count()).select_from(tables.lease)).scalar_one() == 0
    with reader.begin() as reading:
        assert reading.execute(sa.select(sa.func.count()).select_from(tables.lease)).scalar_one() == 1


def test_a_foreign_key_is_kept(database_url: str, opened: Opened) -> None:
    line = {"study_instance_uid": "1.2.3", "at": datetime.now(UTC), "text": "of no study"}
    with pytest.raises(sa.exc.IntegrityError), opened(database_url).begin() as connection:
        connection.execute(sa.insert(tables.timeline).values(**line))


def test_a_commit_of_sqlite_survives_a_power_cut(tmp_path: object, opened: Opened) -> None:
    engine = opened(f"sqlite:///{tmp_path}/deeper/fourview.db")
    with engine.begin() as connection:
        settings = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("journal_mode", "synchronous")}
    assert settings == {"journal_mode": "wal", "synchronous": 2}


def test_two_writers_of_sqlite_wait_for_each_other(tmp_path: object, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins only when the first is done, and says that it is busy when that takes too long."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0)
    url = f"sqlite:///{tmp_path}/fourview.db"
    first, second = opened(url), opened(url)
    with first.begin(), pytest.raises(sa.exc.OperationalError, match="locked"), second.begin():
        raise AssertionError("it must not begin")
    with second.begin() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


# ----------------------------------------------------------------------------------------------------------- the workflow engine


def test_the_workflow_engine_has_a_place_of_its_own() -> None:
    assert engine_database("sqlite:////data/fourview.db") == "sqlite:////data/fourview-engine.db"
    assert engine_database("postgresql+psycopg://u@h/name") == "postgresql+psycopg://u@h/name"


@pytest.mark.parametrize("version", [(3, 40, 1), sqlite3.sqlite_version_info])
def test_unixepoch_tells_parts_of_a_second(
    tmp_path: object, opened: Opened, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]
) -> None:
    """The workflow engine's schema asks for them; a SQLite that is too old answers NULL, so it gets a function of ours."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    engine = opened(f"sqlite:///{tmp_path}/engine.db", workflow_engine)
    with engine.connect() as connection:
        whole, parts = connection.exec_driver_sql("SELECT unixepoch('now'), unixepoch('subsec')").one()
    assert isinstance(whole, int) and isinstance(parts, float) and abs(whole - parts) < 2
    assert abs(parts - time.time()) < 60


def test_the_workflow_engine_commits_by_itself(tmp_path: object, opened: Opened) -> None:
    engine = opened(f"sqlite:///{tmp_path}/engine.db", workflow_engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT x FROM t").scalar_one() == 1


def test_a_page_sees_one_view_of_the_rows(database_url: str) -> None:
    """A version that is saved while its study is read must not be there without its run."""
    writing, reading = write_engine(database_url), read_engine(database_url)
    count = sa.select(sa.func.count()).select_from(tables.lease)
    with reading.begin() as page:
        before = page.execute(count).scalar_one()
        with writing.begin() as connection:
            connection.execute(sa.insert(tables.lease).values(process="p", role="work", beat_at=datetime.now(UTC)))
        assert page.execute(count).scalar_one() == before
    with reading.begin() as page:
        assert page.execute(count).scalar_one() == before + 1
    writing.dispose()
    reading.dispose()


# ----------------------------------------------------------------------------------------------------------------------- plans


def test_what_is_asked_many_times_a_second_reads_no_whole_table(stepped: SteppedStore) -> None:
    """An idle worker asks ten times a second; the tables hold every study that was ever received. Each question goes by a small index."""
    rows = 3000
    values = [
        {"study_instance_uid": f"1.2.{number}", "state": "analysed", "generation": 1, "settled_generation": 1} for number in range(rows)
    ]
    times = {"first_instance_at": stepped.now, "last_instance_at": stepped.now, "collecting_since": stepped.now}
    with stepped.engine.begin() as connection:
        connection.execute(sa.insert(tables.study), [one | times for one in values])
        connection.execute(
            sa.insert(tables.instance),
            [
                dict.fromkeys(("series_instance_uid", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "file_hash"), str(number))
                | dict.fromkeys(("modality", "patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date"), "")
                | {"study_instance_uid": f"1.2.{number}", "size_bytes": 1, "origin": "received", "received_at": stepped.now}
                | {"calling_ae_title": "A", "called_ae_title": "B", "disposition": "candidate", "id": number + 1}
                for number in range(rows)
            ],
        )
        connection.execute(
            sa.insert(tables.score),
            [
                {"instance_id": number + 1, "study_instance_uid": f"1.2.{number}", "model_key": "m", "model": {}, "state": "scored"}
                for number in range(rows)
            ],
        )
    with stepped.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
    asked: list[tuple[str, object]] = []

    @sa.event.listens_for(stepped.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((" ".join(statement.split()), parameters))

    assert not stepped.claims.anything()
    assert stepped.archive.claim_studies() == stepped.scoring.claim() == stepped.ledger.claim() == stepped.claims.claimed(2) == []
    sa.event.remove(stepped.engine, "before_cursor_execute", note)
    looked = [one for one in asked if any(f" FROM {table}" in one[0] for table in ("study", "score", "delivery"))]
    assert len(looked) >= 8
    explain = "EXPLAIN QUERY PLAN " if stepped.engine.dialect.name == "sqlite" else "EXPLAIN "
    with stepped.engine.begin() as connection:
        for statement, parameters in looked:
            plan = "\n".join(str(tuple(row)) for row in connection.exec_driver_sql(explain + statement, parameters))  # type: ignore[arg-type]
            for table in ("study", "score"):
                assert f"Seq Scan on {table}" not in plan, f"{statement}\n{plan}"
                assert not re.search(rf"SCAN {table}(?! USING)", plan), f"{statement}\n{plan}"
                assert not re.search(rf"ix_{table}_(study_instance_uid|instance_id)\b", plan), f"{statement}\n{plan}"


# ---------------------------------------------------------------------------------------------------------------------- failover


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_standby_that_has_not_taken_over_yet_is_a_database_that_is_away(stepped: SteppedStore) -> None:
    """After a failover the address answers for some seconds with a server that only reads: it is waited for, as for one that is away."""
    name = stepped.engine.url.database
    with stepped.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    stepped.engine.dispose()
    try:
        for asked in (
            lambda: stepped.claims.beat("a:work:0", "work"),
            lambda: Chores(stepped.engine).ask("room"),
            lambda: insert_study(stepped.engine),
        ):
            with pytest.raises(DatabaseAway):
                asked()
        with pytest.raises(Busy):
            stepped.receive(*exam())
    finally:
        with stepped.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("SET default_transaction_read_only = off"))
            connection.execute(sa.text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
        stepped.engine.dispose()
    stepped.claims.beat("a:work:0", "work")
    assert stepped.claims.living("work") == ["a:work:0"]


def insert_study(engine: sa.Engine) -> None:
    now = datetime.now(UTC)
    times = {"first_instance_at": now, "last_instance_at": now, "collecting_since": now}
    with engine.begin() as connection:
        connection.execute(sa.insert(tables.study).values(study_instance_uid="1.2.3", state="collecting", **times))
