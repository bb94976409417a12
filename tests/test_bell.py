"""What wakes a worker (`listener.bell`): rung from any process that has the descriptor, heard once for all the times since."""

from __future__ import annotations

import queue
import subprocess
import sys
import time
from collections.abc import Callable

import sqlalchemy as sa

from listener.bell import new_bells, ring, when_rung
from store import tables
from store.database import when_ended


def eventually(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_each_worker_hears_what_another_process_rings() -> None:
    bells = new_bells(2)
    heard: list[queue.Queue[None]] = [queue.Queue() for _ in bells]
    for bell, one in zip(bells, heard, strict=True):
        when_rung(bell, lambda one=one: one.put(None))  # type: ignore[misc]
    program = f"from listener.bell import ring\nring({bells})"
    subprocess.run([sys.executable, "-c", program], pass_fds=bells, check=True, timeout=60)
    for one in heard:
        one.get(timeout=60)


def test_however_often_it_is_rung_while_nobody_listens_it_is_heard_once() -> None:
    bells = new_bells(1)
    for _ in range(1000):
        ring(bells)
    heard: list[float] = []
    when_rung(bells[0], lambda: heard.append(time.monotonic()))
    eventually(lambda: len(heard) == 1)
    ring(bells)
    eventually(lambda: len(heard) == 2)


def test_it_is_rung_when_others_see_what_was_written(engine: sa.Engine) -> None:
    seen: list[int] = []
    others = sa.create_engine(engine.url)

    def look() -> None:
        with others.connect() as connection:
            mine = tables.installation.c.name == "bell"
            seen.append(connection.execute(sa.select(sa.func.count()).select_from(tables.installation).where(mine)).scalar_one())

    when_ended(engine, look)
    with engine.begin() as connection:
        connection.execute(sa.insert(tables.installation).values(name="bell", value="rung"))
        assert seen == []
    assert seen == [1]
    others.dispose()
