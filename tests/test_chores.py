"""What is due now and then is done by one process, once, also when that process dies over it. Acts outlive what they speak of."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from pipeline.chores import Chore, do_chores
from store import acts, tables
from store.chores import ABANDONED_SECONDS, Chores
from store.database import DatabaseAway


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self, _: sa.Connection) -> datetime:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def test_a_chore_is_begun_by_one_process_when_it_is_due(engine: sa.Engine) -> None:
    clock = Clock()
    book = Chores(engine, clock=clock)
    assert not book.begin("upkeep", 600, "a"), "a start has more urgent work"
    clock.later(601)
    assert book.begin("upkeep", 600, "a")
    assert not book.begin("upkeep", 600, "b")
    book.done("upkeep", {"images_removed": 3})
    assert not book.begin("upkeep", 600, "b")
    clock.later(601)
    assert book.begin("upkeep", 600, "b")


def test_a_chore_whose_process_died_is_free_again(engine: sa.Engine) -> None:
    clock = Clock()
    book = Chores(engine, clock=clock)
    book.ask("reconcile")
    assert book.begin("reconcile", 600, "a")
    assert not book.begin("reconcile", 600, "b")
    book.give_back("a")
    assert book.begin("reconcile", 600, "b")
    clock.later(ABANDONED_SECONDS + 1)
    assert book.begin("reconcile", 600, "c")


def test_what_came_of_a_chore_is_laid_aside_when_it_is_not_done_any_more(engine: sa.Engine) -> None:
    book = Chores(engine)
    book.clear("reconcile")
    assert book.outcome("reconcile") is None
    book.ask("reconcile")
    book.clear("reconcile")
    assert book.outcome("reconcile") is None, "it never was done"
    book.done("reconcile", {"never_seen": ["1.2.3"]})
    book.done("upkeep", {})
    book.clear("reconcile")
    assert book.outcome("reconcile") == {}


def test_what_is_asked_for_while_it_is_being_done_is_done_again(engine: sa.Engine) -> None:
    clock = Clock()
    book = Chores(engine, clock=clock)
    book.ask("reconcile")
    assert book.begin("reconcile", 600, "a")
    book.ask("reconcile")
    assert not book.begin("reconcile", 600, "b"), "not at the same time"
    book.done("reconcile", {})
    assert book.begin("reconcile", 600, "b")
    book.done("reconcile", {})
    assert not book.begin("reconcile", 600, "b")


def test_a_database_that_is_away_in_the_middle_of_a_chore_puts_it_off_and_no_longer(engine: sa.Engine) -> None:
    """What makes room on the disk must not stand still for an hour because the database was busy once; nor may what failed."""
    book = Chores(engine)
    stopped = threading.Event()
    asked: list[str] = []

    def once_away() -> dict[str, int]:
        asked.append("room")
        if len(asked) == 1:
            raise DatabaseAway("UPDATE", None, Exception("locked"))
        if len(asked) == 2:
            raise KeyError("x")
        stopped.set()
        return {"removed": 3}

    book.ask("room")
    assert book.begin("room", 0, "here"), "an earlier life of this very process began it and never ended it"
    do_chores(lambda: [Chore(name="room", every_seconds=0, do=once_away)], book, "here", stopped)
    assert asked == ["room"] * 3 and book.outcome("room") == {"removed": 3}


def test_acts_name_a_study_by_a_key_that_says_nothing(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        acts.record(connection, datetime(2026, 1, 1, tzinfo=UTC), person="anna", what="forget", why="asked", study_instance_uid="1.2.3")
        acts.record(connection, datetime(2026, 1, 1, tzinfo=UTC), person="anna", what="pause")
        first, second = connection.execute(sa.select(tables.act).order_by(tables.act.c.id)).all()
        assert first.study_key == acts.study_key(connection, "1.2.3") != acts.study_key(connection, "1.2.4")
        assert len(first.study_key) == 64 and "1.2.3" not in str(first)
        assert second.study_key == ""
