"""After a restore from backup no version number and no UID is used again for something else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from mammograms_made import uid
from stepped_store import SteppedStore, exam, image

from store import tables
from store.database import write_engine
from store.epoch import epoch, restored
from store.study import View, object_cause, version_number


@pytest.mark.parametrize(
    ("last", "epoch_", "number"),
    [(0, 0, 1), (1, 0, 2), (1000, 0, 1001), (0, 1, 1001), (1, 1, 1001), (1001, 1, 1002), (1500, 1, 1501), (1007, 2, 2001)],
)
def test_version_numbers_leave_room_for_what_the_backup_did_not_know(last: int, epoch_: int, number: int) -> None:
    assert version_number(last, epoch_) == number


def test_uids_of_a_database_that_was_never_restored_stay() -> None:
    assert object_cause("a" * 64, ["1.2"]) == object_cause("a" * 64, ["1.2"], 0)
    assert len({object_cause("a" * 64, ["1.2"], each) for each in range(4)}) == 4


def test_each_restore_is_counted_and_kept_as_an_act(engine: sa.Engine) -> None:
    assert [restored(engine, person="kim", why="disk lost"), restored(engine, person="kim")] == [1, 2]
    with engine.begin() as connection:
        assert epoch(connection) == 2
        acts = connection.execute(sa.select(tables.act).order_by(tables.act.c.id)).all()
    assert [(one.what, one.person, one.why, one.parameters) for one in acts] == [
        ("restored", "kim", "disk lost", {"epoch": 1}),
        ("restored", "kim", "", {"epoch": 2}),
    ]


def test_versions_after_a_restore_are_told_from_those_before(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    restored(stepped.engine, person="kim")
    stepped.receive(image(View.L_CC, "retake", AcquisitionTime="110000", ContentTime="110000"))
    stepped.settle()
    stepped.receive(image(View.R_CC, "retake", AcquisitionTime="110000", ContentTime="110000"))
    stepped.settle()
    assert [one["number"] for one in stepped.versions()] == [1, 1001, 1002]
    version = tables.version
    assert [one.epoch for one in stepped.rows(sa.select(version.c.epoch).order_by(version.c.number))] == [0, 1, 1]


def test_the_same_result_made_again_after_a_restore_has_other_uids(sqlite_template: Path, tmp_path: Path) -> None:
    """Version 2 was sent after the backup: what is made of the same images afterwards is another object, and takes nobody's UID."""
    objects: dict[str, dict[int, set[str]]] = {}
    for name in ("lost", "restored"):
        database, backup = tmp_path / f"{name}.db", tmp_path / "backup.db"
        shutil.copy(backup if name == "restored" else sqlite_template, database)
        engine = write_engine(f"sqlite:///{database}")
        stepped = SteppedStore(engine, tmp_path / "files")
        if name == "lost":
            stepped.receive(*exam())
            stepped.settle()
            engine.dispose()
            shutil.copy(database, backup)
        else:
            restored(engine, person="kim")
        stepped.receive(image(View.L_CC, "retake", AcquisitionTime="110000", ContentTime="110000"))
        stepped.settle()
        objects[name] = {one["number"]: {made["sop_instance_uid"] for made in one["objects"]} for one in stepped.versions()}
        assert stepped.study()["study_instance_uid"] == uid("study")
        engine.dispose()
    assert set(objects["lost"]) == {1, 2} and set(objects["restored"]) == {1, 1001}
    assert objects["lost"][1] == objects["restored"][1]
    assert not objects["lost"][2] & objects["restored"][1001]
