"""Studies as people look for them, against the same conditions met by hand; turning pages while studies move; on SQLite and PostgreSQL."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from databases import migrated
from mammograms_made import uid
from stepped_store import START, SteppedStore, exam

from store import tables
from store.database import database_now, write_engine
from store.found_by import hour_of
from store.grouping import RequestKind
from store.listing import LATELY, Listing, Wanted
from store.study import View
from store.upgrade import alembic_config

pytestmark = pytest.mark.filterwarnings("ignore:The value length")  # of Patient IDs that are longer than they may be


@dataclass(frozen=True, kw_only=True)
class Come:
    """A study that comes to the store; `state` is what becomes of it."""

    name: str
    study_date: str = "20261120"
    patient_id: str = "P1"
    senders: tuple[str, ...] = ("GANTRY",)
    station: str = "ROOM1"
    model: str = "Mammo 1"
    found: str = "Normal"  # the class of its left CC; the others are Normal
    state: str = "analysed"


#: In the order in which they come, a minute or more apart; the last first is how they are listed.
COME = (
    Come(name="a"),
    Come(name="b", study_date="20261121", patient_id="P10", found="Mass"),
    Come(name="c", study_date="20261031", patient_id="P2", senders=("OTHER",), station="ROOM2"),
    Come(name="d", study_date="20250102", patient_id="p1", senders=("GANTRY", "OTHER"), found="Mass"),
    Come(name="e", study_date="", patient_id="", station="", model="Mammo 2"),
    Come(name="f", study_date="20261201", patient_id="P%", station="ROOM1", model="ROOM2", state="collecting"),
    Come(name="g", study_date="20261130", patient_id="P_1", senders=("GANTRY 2",), found="Mass"),
    Come(name="h", study_date="20261101", patient_id="홍1", model="", state="collecting"),
    Come(name="i", study_date="20240229", patient_id="P" * 64 + "1", found="Mass"),
    Come(name="j", study_date="20240301", patient_id="P" * 64 + "2", station="가슴 1"),
    Come(name="k", study_date="20261120", patient_id="P1", state="withdrawn", found="Mass"),
)

Condition = Callable[[Come], bool]
#: What is looked for, and the same by hand.
ASKED: list[tuple[Wanted, Condition]] = [
    (Wanted(), lambda one: True),
    (Wanted(states=("collecting",)), lambda one: one.state == "collecting"),
    (Wanted(states=("withdrawn", "collecting", "failed")), lambda one: one.state != "analysed"),
    (Wanted(states=("held",)), lambda one: False),
    (Wanted(study_date_from="20261120"), lambda one: one.study_date >= "20261120"),
    (Wanted(study_date_from="20261120", study_date_to="20261120"), lambda one: one.study_date == "20261120"),
    (Wanted(study_date_from="20261031", study_date_to="20261121"), lambda one: "20261031" <= one.study_date <= "20261121"),
    (Wanted(study_date_from="20240301", study_date_to="20261130"), lambda one: "20240301" <= one.study_date <= "20261130"),
    (Wanted(study_date_to="20250102"), lambda one: "" < one.study_date <= "20250102"),
    (Wanted(study_date_from="20270101"), lambda one: False),
    (Wanted(study_date_from="20261130", study_date_to="20261101"), lambda one: False),
    (Wanted(study_date_from="10000101", study_date_to="99991231"), lambda one: one.study_date != ""),
    (Wanted(patient_id="P1"), lambda one: one.patient_id == "P1"),
    (Wanted(patient_id="P1*"), lambda one: one.patient_id.startswith("P1")),
    (Wanted(patient_id="p*"), lambda one: one.patient_id == "p1"),
    (Wanted(patient_id="P%*"), lambda one: one.patient_id == "P%"),
    (Wanted(patient_id="P_*"), lambda one: one.patient_id == "P_1"),
    (Wanted(patient_id="홍*"), lambda one: one.patient_id == "홍1"),
    (Wanted(patient_id="*"), lambda one: True),
    (Wanted(patient_id="P" * 64 + "1"), lambda one: one.name == "i"),
    (Wanted(patient_id="P" * 64 + "2*"), lambda one: one.name == "j"),
    (Wanted(patient_id="P" * 64 + "*"), lambda one: one.name in "ij"),
    (Wanted(patient_id="P" * 65), lambda one: False),
    (Wanted(predicted_class="Mass"), lambda one: one.found == "Mass" and one.state == "analysed"),
    (Wanted(predicted_class="Normal"), lambda one: one.state == "analysed"),
    (Wanted(predicted_class="mass"), lambda one: False),
    (Wanted(calling_ae_title="OTHER"), lambda one: "OTHER" in one.senders),
    (Wanted(calling_ae_title="GANTRY"), lambda one: "GANTRY" in one.senders),
    (Wanted(calling_ae_title="GANT"), lambda one: False),
    (Wanted(device="ROOM2"), lambda one: "ROOM2" in (one.station, one.model)),
    (Wanted(device="Mammo 2"), lambda one: one.model == "Mammo 2"),
    (Wanted(device="가슴 1"), lambda one: one.station == "가슴 1"),
    (Wanted(states=("analysed",), predicted_class="Mass"), lambda one: one.state == "analysed" and one.found == "Mass"),
    (
        Wanted(states=("analysed", "collecting"), study_date_from="20261101", calling_ae_title="GANTRY"),
        lambda one: one.state != "withdrawn" and one.study_date >= "20261101" and "GANTRY" in one.senders,
    ),
    (Wanted(patient_id="P1*", device="ROOM1"), lambda one: one.patient_id.startswith("P1") and one.station == "ROOM1"),
    (Wanted(calling_ae_title="GANTRY", device="ROOM2"), lambda one: one.name == "f"),
    (
        Wanted(states=("analysed",), study_date_from="20200101", study_date_to="20261231", patient_id="P*", predicted_class="Mass",
               calling_ae_title="GANTRY", device="Mammo 1"),
        lambda one: one.name in "bi",
    ),
]  # fmt: skip


def come(stepped: SteppedStore, one: Come) -> None:
    """The study comes, and becomes what it becomes."""
    header = {"study": one.name, "StudyDate": one.study_date, "PatientID": one.patient_id}
    images = exam(**header, StationName=one.station, ManufacturerModelName=one.model, SpecificCharacterSet="ISO_IR 192")
    if one.state == "collecting":
        images = images[:2]
    for number, ds in enumerate(images):
        stepped.classes[str(ds.SOPInstanceUID)] = one.found if ds.ImageLaterality + ds.ViewPosition == "LCC" else "Normal"
        stepped.receive(ds, sender=one.senders[number % len(one.senders)])
    stepped.step(61)
    stepped.work()
    if one.state == "withdrawn":
        stepped.ask("withdraw", one.name, study=one.name)
    assert stepped.state(one.name) == one.state


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SteppedStore]:
    """A store to which everything of `COME` came."""
    folder: Path = tmp_path_factory.mktemp("listing")
    if request.param == "sqlite":
        url = f"sqlite:///{folder / 'fourview.db'}"
        shutil.copy(request.getfixturevalue("sqlite_template"), folder / "fourview.db")
    else:
        url = request.getfixturevalue("postgres_database")
        migrated(url)
    engine = write_engine(url)
    stepped = SteppedStore(engine, folder / "files")
    for one in COME:
        come(stepped, one)
    yield stepped
    engine.dispose()


def all_pages(listing: Listing, wanted: Wanted, limit: int) -> list[list[str]]:
    pages, after = [], ""
    while True:
        page = listing.studies(wanted, after=after, limit=limit)
        pages.append([line["study_instance_uid"] for line in page.studies])
        if not (after := page.next):
            return pages


@pytest.mark.parametrize("wanted, by_hand", ASKED, ids=lambda value: str(value)[:120] if isinstance(value, Wanted) else "")
@pytest.mark.parametrize("limit", [50, 2])
def test_each_condition_finds_what_is_found_by_hand(filled: SteppedStore, wanted: Wanted, by_hand: Condition, limit: int) -> None:
    expected = [uid(one.name) for one in reversed(COME) if by_hand(one)]
    pages = all_pages(filled.listing, wanted, limit)
    assert [one for page in pages for one in page] == expected
    assert all(len(page) == limit for page in pages[:-1]) and (len(pages) == 1 or pages[-1]), "only the last is short, and none is empty"


def test_no_page_looks_through_all_studies(filled: SteppedStore) -> None:
    """What PostgreSQL may look up by an index it does here, however few rows there are; SQLite plans without counting them."""
    asked: list[tuple[str, Any]] = []

    @sa.event.listens_for(filled.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    for wanted, _ in ASKED:
        all_pages(filled.listing, wanted, 2)
    filled.listing.choices()
    sa.event.remove(filled.engine, "before_cursor_execute", note)
    looked = {statement: parameters for statement, parameters in asked if "SELECT" in statement and "clock_timestamp" not in statement}
    assert len(looked) > 30
    on_sqlite = filled.engine.dialect.name == "sqlite"
    with filled.engine.begin() as connection:
        if not on_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, parameters in looked.items():
            rows = connection.exec_driver_sql(("EXPLAIN QUERY PLAN " if on_sqlite else "EXPLAIN ") + statement, parameters)
            plan = "\n".join(str(row[-1]) for row in rows)
            assert not re.search(r"Seq Scan on (study|found_by|version|run)|SCAN (study|found_by|version|run)", plan), statement + plan
            if on_sqlite and "JOIN found_by" in statement:
                assert re.search(r"SEARCH found_by USING .*\(what=\? AND value[^)]", plan), statement + plan


def test_a_line_says_what_there_is_of_a_study(filled: SteppedStore) -> None:
    lines = {line["study_instance_uid"]: line for line in filled.listing.studies(Wanted()).studies}
    found = lines[uid("d")]
    probability = found["classes"]["L-CC"][1]
    assert found == {
        "study_instance_uid": uid("d"),
        "state": "analysed",
        "state_reason": "version 1: COMPLETE",
        "revision": 1,
        "study_date": "20250102",
        "patient_id": "p1",
        "patient_name": "Doe^Jane",
        "first_instance_at": found["first_instance_at"],
        "last_instance_at": found["last_instance_at"],
        "due_at": None,
        "version": 1,
        "outcome": "COMPLETE",
        "trained": False,
        "classes": {"R-CC": ["Normal", found["classes"]["R-CC"][1]], "L-CC": ["Mass", probability],
                    "R-MLO": ["Normal", found["classes"]["R-MLO"][1]], "L-MLO": ["Normal", found["classes"]["L-MLO"][1]]},
        "calling_ae_titles": ["GANTRY", "OTHER"],
        "devices": ["Mammo 1", "ROOM1"],
        "queue": None,
    }  # fmt: skip
    assert 0.5 <= probability <= 1 and list(found["classes"]) == ["R-CC", "L-CC", "R-MLO", "L-MLO"]
    assert found["first_instance_at"] == found["last_instance_at"] > START
    collecting = lines[uid("f")]
    assert (collecting["version"], collecting["outcome"], collecting["trained"], collecting["classes"]) == (None, None, None, {})
    withdrawn = lines[uid("k")]
    assert (withdrawn["version"], withdrawn["outcome"], withdrawn["classes"]) == (2, "WITHDRAWN", {}), "nothing is said of it any more"


def test_the_migration_fills_in_what_the_transactions_write(filled: SteppedStore) -> None:
    script = ScriptDirectory.from_config(alembic_config(filled.engine)).get_revision("0004")
    assert script is not None
    with filled.engine.begin() as connection:
        written = {tuple(row) for row in connection.execute(sa.select(tables.found_by))}
        made = {tuple(row.values()) for rows in script.module._rows(connection) for row in rows}
        hours = connection.execute(sa.select(tables.study.c.last_instance_at, tables.study.c.last_hour)).all()
    assert made == written and len({what for _, what, _, _ in written}) == 5
    assert all(row.last_hour == hour_of(row.last_instance_at) for row in hours)


def test_what_there_is_to_choose_from(filled: SteppedStore) -> None:
    with filled.engine.begin() as connection:
        connection.execute(sa.update(tables.found_by).values(last_hour=hour_of(database_now(connection))))
        gone = tables.found_by.c.value.in_(("OTHER", "Mammo 2"))
        connection.execute(sa.update(tables.found_by).where(gone).values(last_hour=hour_of(database_now(connection) - LATELY) - 1))
    found = filled.listing.choices()
    with filled.engine.begin() as connection:
        hour = sa.select(tables.study.c.last_hour).where(tables.study.c.study_instance_uid == tables.found_by.c.study_instance_uid)
        connection.execute(sa.update(tables.found_by).values(last_hour=hour.scalar_subquery()))
    assert found == {
        "calling_ae_titles": ["GANTRY", "GANTRY 2"],
        "devices": ["Mammo 1", "ROOM1", "ROOM2", "가슴 1"],
        "classes": ["Mass", "Normal"],
    }


def test_a_study_into_whose_next_hour_an_image_comes_moves_to_the_front(stepped: SteppedStore) -> None:
    for one in "ab":
        come(stepped, Come(name=one))
    stepped.step(3600)
    stepped.receive(exam(study="a", SOPInstanceUID=uid("late"))[0])
    for wanted in (
        Wanted(),
        Wanted(patient_id="P1"),
        Wanted(device="ROOM1"),
        Wanted(calling_ae_title="GANTRY"),
        Wanted(study_date_from="20260101"),
    ):
        for limit in (1, 9):
            assert [one for page in all_pages(stepped.listing, wanted, limit) for one in page] == [uid("a"), uid("b")], wanted
    hours = {row.last_hour for row in stepped.rows(sa.select(tables.found_by)) if row.study_instance_uid == uid("a")}
    assert hours == {hour_of(stepped.now)}


def test_a_study_is_found_by_patient_and_sender_before_a_worker_has_looked(stepped: SteppedStore) -> None:
    stepped.receive(exam()[0], sender="GANTRY")
    for wanted in (Wanted(patient_id="P1"), Wanted(patient_id="P*"), Wanted(calling_ae_title="GANTRY")):
        assert all_pages(stepped.listing, wanted, 9) == [[uid("study")]]
    assert all_pages(stepped.listing, Wanted(device="ROOM1"), 9) == [[]]


def test_the_class_is_that_of_the_current_version(stepped: SteppedStore) -> None:
    come(stepped, Come(name="a", found="Mass"))
    assert all_pages(stepped.listing, Wanted(predicted_class="Mass"), 9) == [[uid("a")]]
    retake = exam(study="a", AcquisitionTime="120000", SOPInstanceUID=uid("retake"))[1]
    stepped.classes[uid("retake")] = "Normal"
    stepped.receive(retake)
    stepped.settle()
    [line] = stepped.listing.studies(Wanted()).studies
    assert (line["version"], line["classes"][View.L_CC][0]) == (2, "Normal")
    assert all_pages(stepped.listing, Wanted(predicted_class="Mass"), 9) == [[]]


def test_of_a_withdrawn_study_no_class_is_said_before_its_version_is_saved(stepped: SteppedStore) -> None:
    come(stepped, Come(name="a", found="Mass"))
    stepped.archive.request(uid("a"), RequestKind.WITHDRAW, request_id="r", person="Kim")
    stepped.work(report=False)
    for version, outcome in ((1, "COMPLETE"), (2, "WITHDRAWN")):
        [line] = stepped.listing.studies(Wanted()).studies
        assert (line["state"], line["version"], line["outcome"], line["classes"]) == ("withdrawn", version, outcome, {})
        for wanted in (Wanted(predicted_class="Mass"), Wanted(predicted_class="Mass", states=("withdrawn",))):
            assert all_pages(stepped.listing, wanted, 9) == [[]]
        stepped.report(uid("a"))


def test_pages_stand_while_studies_move(stepped: SteppedStore) -> None:
    """Whatever comes meanwhile moves to the front; of the rest none is left out and none comes twice."""
    for one in "abcdef":
        come(stepped, Come(name=one))
    first = stepped.listing.studies(Wanted(), limit=2)
    come(stepped, Come(name="new"))
    for one in "ca":
        stepped.receive(exam(study=one, SOPInstanceUID=uid("late", one))[0])
        stepped.step(1)
    second = stepped.listing.studies(Wanted(), after=first.next, limit=2)
    seen = [[line["study_instance_uid"] for line in page.studies] for page in (first, second)]
    assert seen == [[uid("f"), uid("e")], [uid("d"), uid("b")]] and second.next == ""
    again = all_pages(stepped.listing, Wanted(), 9)
    assert again == [[uid(one) for one in ("a", "c", "new", "f", "e", "d", "b")]]


def test_studies_of_one_moment_are_all_seen(stepped: SteppedStore) -> None:
    for number in range(7):
        stepped.receive(exam(study=str(number))[0])
    expected = sorted(uid(str(number)) for number in range(7))
    for limit in (1, 3, 7):
        assert [one for page in all_pages(stepped.listing, Wanted(), limit) for one in page] == expected


@pytest.mark.parametrize("after", ["x", "1", "-", "1-", "-1.2", "1.5-1.2", "99999999999999999-1.2", "1-1 2", "1-1.2\n", "1-" + "1" * 65,
                                   "\N{ARABIC-INDIC DIGIT ONE}-1.2", "' OR 1=1 --", "1" * 100_000])  # fmt: skip
def test_a_place_that_no_page_gave_is_refused(filled: SteppedStore, after: str) -> None:
    with pytest.raises(ValueError, match="place"):
        filled.listing.studies(Wanted(), after=after)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_of_nothing_is_refused(filled: SteppedStore, limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        filled.listing.studies(Wanted(), limit=limit)
