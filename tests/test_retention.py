"""Pixels go when they were kept long enough or where room is needed, never those that somebody waits for; the janitor removes only what
no row links to, and nothing at all when the database seems to be another's."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from stepped_store import START, FixedRuling, SteppedStore, exam, image, uid

from listener import parts
from pipeline.upkeep import ORPHAN_AFTER_SECONDS, WrongDatabase, make_room, retire, tidy
from store import tables
from store.retention import Why
from store.study import View

DAY = 24 * 3600.0


def received(stepped: SteppedStore, *names: str) -> None:
    """Studies of these names, one image each, a minute apart; analysed, and their results wait to be sent."""
    for name in names:
        stepped.receive(image(View.L_CC, name, StudyInstanceUID=uid(name)))
        stepped.step(60)
    stepped.policy = stepped.policy.__class__(**{**vars(stepped.policy), "give_up_after_seconds": 600})
    stepped.settle()


def deliver(stepped: SteppedStore, how: Callable[[int], object]) -> None:
    while claims := stepped.ledger.claim():
        for claim in claims:
            for one in stepped.begin(claim.workflow_id):
                how(one.delivery_id)


def confirm(stepped: SteppedStore) -> None:
    def sent_and_confirmed(delivery_id: int) -> None:
        stepped.ledger.sent(delivery_id, 0, "", ask=False)
        stepped.ledger.confirmed(delivery_id)

    deliver(stepped, sent_and_confirmed)


def set_state(stepped: SteppedStore, **values: Any) -> None:
    with stepped.engine.begin() as connection:
        connection.execute(sa.update(tables.study).values(**values))


def set_deliveries(stepped: SteppedStore, **values: Any) -> None:
    with stepped.engine.begin() as connection:
        connection.execute(sa.update(tables.delivery).values(**values))


def kept(stepped: SteppedStore) -> int:
    """Images that have their pixels; none of their files is missing."""
    names = [row.file_name for row in stepped.rows(sa.select(tables.instance.c.file_name)) if row.file_name is not None]
    assert all(stepped.files.path(name).is_file() for name in names)
    return len(names)


# ----------------------------------------------------------------------------------------------------------------------- age


def test_delivered_images_go_by_age_and_results_stay(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    confirm(stepped)
    stepped.step(6.9 * DAY)
    assert retire(stepped.retention(7, 90), stepped.files) == {"images_removed": 0} and kept(stepped) == 4
    stepped.step(0.2 * DAY)
    assert retire(stepped.retention(7, 90), stepped.files) == {"images_removed": 4} and kept(stepped) == 0
    study = stepped.study()
    assert study["state"] == "analysed" and len(study["runs"]) == 1
    assert any("pixels of 4 images removed: kept as long as the configuration says" in line["text"] for line in study["timeline"])
    assert list(stepped.files.root.glob("??/*")) == []


#: State, state of the deliveries with whether something of them is still due, and after how many days the pixels go (None: never).
AGES: list[tuple[str, str, bool, float | None]] = [
    ("analysed", "confirmed", False, 7),
    ("analysed", "sent", False, 7),
    ("analysed", "sent", True, None),
    ("analysed", "waiting", True, None),
    ("analysed", "sending", False, None),
    ("analysed", "refused", False, 90),
    ("analysed", "expired", False, 90),
    ("analysed", "cancelled", False, 7),
    ("ignored", "confirmed", False, 7),
    ("held", "confirmed", False, 90),
    ("held", "waiting", True, None),
    ("incomplete", "confirmed", False, 90),
    ("failed", "confirmed", False, 90),
    ("withdrawn", "confirmed", False, 90),
    ("collecting", "confirmed", False, None),
    ("analysing", "confirmed", False, None),
]


def test_what_goes_after_how_many_days(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    last = stepped.rows(sa.select(tables.study.c.last_instance_at))[0].last_instance_at
    for state, delivery, due, days in AGES:
        set_state(stepped, state=state, due_at=None)
        set_deliveries(stepped, state=delivery, due_at=START if due else None)
        for after in (6.9, 7.1, 89.9, 90.1, 4000.0):
            stepped.now = last + timedelta(days=after)
            found = stepped.retention(7, 90).candidates(Why.AGE, 10)
            assert bool(found) == (days is not None and after > days), (state, delivery, due, after)


@pytest.mark.parametrize("why", list(Why))
@pytest.mark.parametrize(
    "busy",
    [
        lambda connection: connection.execute(sa.update(tables.score).where(tables.score.c.id == 1).values(state="waiting")),
        lambda connection: connection.execute(sa.update(tables.study).values(generation=tables.study.c.generation + 1)),
        lambda connection: connection.execute(sa.update(tables.study).values(due_at=START)),
        lambda connection: connection.execute(sa.update(tables.study).values(workflow_id="study:1")),
    ],
    ids=["an image is read", "something to look at", "due", "in hand"],
)
def test_pixels_that_somebody_waits_for_stay(stepped: SteppedStore, why: Why, busy: Callable[[sa.Connection], object]) -> None:
    stepped.receive(*exam())
    stepped.settle()
    confirm(stepped)
    stepped.step(1000 * DAY)
    with stepped.engine.begin() as connection:
        connection.execute(sa.update(tables.instance).values(pixels_expire=True) if why is Why.EXPIRED else sa.select(sa.literal(1)))
    retention, study = stepped.retention(7, 90), [uid("study")]
    assert retention.candidates(why, 10) == study, "the test can fail"
    with stepped.engine.begin() as connection:
        busy(connection)
    assert retention.candidates(why, 10) == [] and retention.let_go(why, study) == []


def test_a_reprocess_that_was_just_asked_for_finds_its_images(stepped: SteppedStore) -> None:
    """Between the search and the taking a person asks: the lock decides, and the images stay."""
    stepped.receive(*exam())
    stepped.settle()
    confirm(stepped)
    stepped.step(1000 * DAY)
    retention = stepped.retention(7, 90)
    found = retention.candidates(Why.AGE, 10)
    stepped.archive.request(uid("study"), _reprocess(), request_id="r", person="Kim")
    assert found == [uid("study")] and retention.let_go(Why.AGE, found) == [] and kept(stepped) == 4


def _reprocess() -> Any:
    from store.grouping import RequestKind

    return RequestKind.REPROCESS


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_study_that_is_locked_is_passed_over(stepped: SteppedStore) -> None:
    """Its row is locked by another transaction. SQLite has one writer, so the same cannot happen there."""
    stepped.receive(*exam())
    stepped.settle()
    confirm(stepped)
    stepped.step(1000 * DAY)
    with stepped.engine.begin() as other:
        other.execute(sa.select(tables.study).with_for_update())
        assert stepped.retention(7, 90).let_go(Why.AGE, [uid("study")]) == []
    assert len(stepped.retention(7, 90).let_go(Why.AGE, [uid("study")])) == 4


def test_a_crash_between_commit_and_unlink_leaves_an_orphan_that_the_janitor_finds(stepped: SteppedStore) -> None:
    stepped.receive(*exam(), image(View.L_CC, "kept", StudyInstanceUID=uid("other")))
    stepped.settle()
    confirm(stepped)
    stepped.step(8 * DAY)
    gone = stepped.retention(7, 90).let_go(Why.AGE, [uid("study")])
    assert len(gone) == 4 and all(stepped.files.path(one.file_name).exists() for one in gone), "killed here"
    folders = stepped.files.folders()
    assert tidy(stepped.retention(7, 90), stepped.files, folders=folders)["orphans_removed"] == 0, "not before a day"
    later(stepped, ORPHAN_AFTER_SECONDS + 60)
    assert tidy(stepped.retention(7, 90), stepped.files, folders=folders) == {"abandoned_removed": 0, "orphans_removed": 4}
    assert kept(stepped) == 1


# --------------------------------------------------------------------------------------------------------------------- space


def test_where_room_is_needed_the_oldest_delivered_images_go_until_there_is(stepped: SteppedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped.ruling = FixedRuling(when_incomplete=_analyse())
    received(stepped, "first", "second", "third", "waits")
    states = stepped.rows(sa.select(tables.study.c.study_instance_uid, tables.study.c.state))
    assert {row.state for row in states} == {"analysed"}
    set_deliveries(stepped, state="confirmed", due_at=None)
    with stepped.engine.begin() as connection:
        mine = tables.delivery.c.study_instance_uid == uid("waits")
        connection.execute(sa.update(tables.delivery).where(mine).values(state="waiting", due_at=START))
    [size] = {row.size_bytes for row in stepped.rows(sa.select(tables.instance.c.size_bytes))}
    stepped.files.min_free_bytes = 1000
    retention = stepped.retention(7, 90)
    free = SimpleNamespace(free=2000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _volume: free)
    assert make_room(retention, stepped.files) == {"images_removed": 0, "freed_bytes": 0, "missing_bytes": 0}
    free.free = 1999
    assert make_room(retention, stepped.files) == {"images_removed": 1, "freed_bytes": size, "missing_bytes": 1}
    assert without_pixels(stepped) == {uid("first")}
    stepped.files.min_free_bytes = 10**12
    assert make_room(retention, stepped.files)["images_removed"] == 2
    assert without_pixels(stepped) == {uid("first"), uid("second"), uid("third")}, "what waits for delivery stays, whatever is missing"


def _analyse() -> Any:
    from store.study import WhenIncomplete

    return WhenIncomplete.ANALYSE


def without_pixels(stepped: SteppedStore) -> set[str]:
    row = tables.instance
    return {one.study_instance_uid for one in stepped.rows(sa.select(row).where(row.c.pixels_removed_at.is_not(None)))}


def test_for_room_go_only_studies_whose_results_have_arrived(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    for state, delivery, due, days in AGES:
        set_state(stepped, state=state, due_at=None)
        set_deliveries(stepped, state=delivery, due_at=START if due else None)
        assert bool(stepped.retention(7, 90).candidates(Why.ROOM, 10)) == (days == 7), (state, delivery, due)


# ------------------------------------------------------------------------------------------------------------------- janitor


def later(stepped: SteppedStore, seconds: float) -> None:
    """The files' own clock goes on."""
    moment = stepped.files.clock() + seconds
    stepped.files.clock = lambda: moment  # type: ignore[method-assign]


def test_every_file_that_a_row_links_to_is_known(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    with stepped.engine.begin() as connection:
        connection.execute(sa.update(tables.score).where(tables.score.c.id == 1).values(heat_map_file="cc/" + "1" * 30))
        connection.execute(sa.update(tables.result_object).values(png_file="dd/" + "1" * 30))
    columns = [
        tables.instance.c.file_name,
        tables.score.c.preview_file,
        tables.score.c.heat_map_file,
        tables.result_object.c.file_name,
        tables.result_object.c.png_file,
    ]
    linked = {row[0] for column in columns for row in stepped.rows(sa.select(column)) if row[0] is not None}
    assert len(linked) == 12
    assert stepped.retention(7, 90).unknown(["ab/" + "0" * 30, *linked]) == {"ab/" + "0" * 30}


def test_the_janitor_removes_nothing_when_the_database_is_another_s(stepped: SteppedStore, engine: sa.Engine, tmp_path: Path) -> None:
    for number in range(60):
        stepped.files.write(b"%d" % number)
    later(stepped, 100 * DAY)
    with pytest.raises(WrongDatabase, match=r"60 of 60 files .* have no row in the database: is it the right one"):
        tidy(stepped.retention(7, 90), stepped.files, folders=stepped.files.folders())
    stepped.receive(*exam())
    with pytest.raises(WrongDatabase, match="60 of 64"):
        tidy(stepped.retention(7, 90), stepped.files, folders=stepped.files.folders()[:1])
    assert len(list(stepped.files.root.glob("??/*"))) == 64


def test_a_few_orphans_among_known_files_go(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    orphans = [stepped.files.write(b"x") for _ in range(5)]
    later(stepped, 25 * 3600)
    assert tidy(stepped.retention(7, 90), stepped.files, folders=stepped.files.folders())["orphans_removed"] == 5
    assert kept(stepped) == 4 and not any(stepped.files.path(name).exists() for name in orphans)


def test_only_the_folders_whose_turn_it_is_are_tidied_and_every_one_has_its_turn() -> None:
    from pipeline.upkeep import JANITOR_SECONDS, _turn

    turns = [_turn(1_800_000_000 + number * JANITOR_SECONDS) for number in range(16)]
    assert sorted(name for turn in turns for name in turn) == [f"{number:02x}" for number in range(256)]


def test_a_spool_that_is_away_is_not_an_empty_one(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    away = stepped.files.root.with_name("elsewhere")
    stepped.files.root.rename(away)
    with pytest.raises(OSError, match="No such file"):
        tidy(stepped.retention(7, 90), stepped.files)
    away.rename(stepped.files.root)
    assert kept(stepped) == 4


def test_two_janitors_at_once_do_no_harm(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    orphans = [stepped.files.write(b"x") for _ in range(4)]
    later(stepped, 25 * 3600)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            tidy(stepped.retention(7, 90), stepped.files, folders=stepped.files.folders())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and kept(stepped) == 4 and not any(stepped.files.path(name).exists() for name in orphans)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_the_search_reads_indexes_only(stepped: SteppedStore) -> None:
    """With a million images nobody waits for a scan every ten minutes. PostgreSQL plans by statistics and scans an empty table."""
    asked: list[str] = []

    @sa.event.listens_for(stepped.engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: Any) -> None:
        if statement.startswith("SELECT instance") or "IN (" in statement:
            plan = cursor.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            asked.extend(line[3] for line in plan)

    retention = stepped.retention(7, 90)
    for why in Why:
        retention.candidates(why, 10)
    retention.unknown(["ab/" + "0" * 30])
    sa.event.remove(stepped.engine, "before_cursor_execute", note)
    assert len(asked) > 8
    assert [line for line in asked if line.startswith("SCAN") or "TEMP B-TREE" in line] == []
    assert sum("ix_instance_kept" in line for line in asked) == 3


def test_a_folder_that_is_empty_although_the_database_knows_images_stops_the_start(stepped: SteppedStore, tmp_path: Path) -> None:
    """The volume is not mounted: a new folder on its mount point would hide what comes in from then on."""
    url = stepped.engine.url.render_as_string(hide_password=False)
    store = SimpleNamespace(database=url, files=tmp_path / "mount point", min_free_gib=0, keep_images_days=7, keep_unfinished_days=90)
    config: Any = SimpleNamespace(store=store)
    store.files.mkdir()
    parts.open_files(config)  # nothing was received yet: it is new
    shutil.rmtree(store.files / "incoming")
    stepped.receive(*exam())
    with pytest.raises(parts.SpoolAway, match="is its volume mounted"):
        parts.open_files(config)
    assert list(store.files.iterdir()) == []
    (store.files / "incoming").mkdir()
    parts.open_files(config)
