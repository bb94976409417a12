"""Who works on what: rows taken back from workflows that ended without settling them, and the leases of processes that live."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from store import crashes, ledger, tables
from store.database import database_now, insert_or_ignore
from store.leases import LEASE_SECONDS, Configured, living_processes
from store.rows import lock_studies


class Claims:
    """What is handed out, and who lives. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock

    def anything(self) -> bool:
        """Whether a study, an image or a delivery may be there to be handed out: one question, to be asked many times a second."""
        study, score, delivery = tables.study, tables.score, tables.delivery
        with self._engine.begin() as connection:
            now = self._clock(connection)

            def due(row: sa.Table) -> sa.ColumnElement[bool]:
                return sa.and_(row.c.workflow_id.is_(None), row.c.due_at <= now)

            open_, free = tables.OPEN_STUDY, sa.and_(tables.FREE_SCORE, sa.or_(score.c.due_at.is_(None), score.c.due_at <= now))
            wanted = ((study, open_), (study, due(study)), (score, free), (delivery, due(delivery)))
            # A row each: in one expression with OR neither database would use all indexes.
            return connection.execute(sa.union_all(*(_one(row, which) for row, which in wanted))).first() is not None

    def claimed(self, older_than_seconds: float) -> list[str]:
        """Workflow ids of rows that were handed out longer ago than this: the engine is asked what became of them."""
        with self._engine.begin() as connection:
            limit = self._clock(connection) - timedelta(seconds=older_than_seconds)
            found: set[str] = set()
            for row in (tables.study, tables.score, tables.delivery):
                query = sa.select(row.c.workflow_id).where(row.c.workflow_id.is_not(None), row.c.claimed_at <= limit)
                found.update(connection.execute(query).scalars())
            return sorted(found)

    def release(self, workflow_ids: Sequence[str], reason: str) -> int:
        """Take rows back from workflows that are absent or ended without settling them; how many.

        A study is looked at anew at once: what was open while its workflow was lost must not wait any longer.
        """
        with self._engine.begin() as connection:
            now = self._clock(connection)
            held = {row.name: row.c.workflow_id.in_(workflow_ids) for row in (tables.study, tables.score, tables.delivery)}
            studies: set[str] = set()
            for row in (tables.study, tables.score, tables.delivery):
                studies.update(connection.execute(sa.select(row.c.study_instance_uid).where(held[row.name])).scalars())
            # Studies first and in one order, then what belongs to them: as every transaction does.
            lock_studies(connection, studies)
            values = {"workflow_id": None, "begun_by": None, "due_at": now}
            released = connection.execute(sa.update(tables.study).where(held["study"]).values(**values)).rowcount
            released += ledger.take_back(connection, workflow_ids, now)
            return released + crashes.take_back(connection, workflow_ids, reason, now)

    def is_suspect(self, study_instance_uid: str) -> bool:
        """Whether a worker died over this study: nothing else shall be in hand beside it."""
        row = tables.study
        with self._engine.begin() as connection:
            return bool(connection.execute(sa.select(row.c.crashes).where(row.c.study_instance_uid == study_instance_uid)).scalar())

    def begin_study(self, study_instance_uid: str, workflow_id: str, life: str) -> bool:
        """Note which life of a process looks at or reports a study now; False: it is another workflow's by now, or nobody's: leave it."""
        row = tables.study
        mine = sa.and_(row.c.study_instance_uid == study_instance_uid, row.c.workflow_id == workflow_id)
        with self._engine.begin() as connection:
            return connection.execute(sa.update(row).where(mine).values(begun_by=life)).rowcount == 1

    def died(self, life: str) -> int:
        """A worker died alone, as its supervisor saw: what that counts against the images and studies it had begun; how many they are."""
        with self._engine.begin() as connection:
            return crashes.died(connection, life, self._clock(connection))

    def begin_life(self, process: str) -> int:
        """`process` starts: what it was reading when it ended the last time waits again; how many images."""
        with self._engine.begin() as connection:
            return crashes.end_lives(connection, process, self._clock(connection))

    def end_life(self, life: str) -> int:
        """A worker was told to stop: what it does not finish is free for others at once; how many images."""
        with self._engine.begin() as connection:
            return crashes.hand_back(connection, life)

    def beat(
        self,
        process: str,
        role: str,
        figures: Mapping[str, float] | None = None,
        alive_seconds: float = 0.0,
        configured: Callable[[datetime], Configured] | None = None,
    ) -> str:
        """This process lives and is ready to work; `figures` is what it counted in the `alive_seconds` since it started, `configured` says
        by which configuration it works when it is told the time here. Returns the last request to read the file anew, "" when there is
        none."""
        row = tables.lease
        with self._engine.begin() as connection:
            now = self._clock(connection)
            values: dict[str, Any] = {"figures": dict(figures or {}), "started_at": now - timedelta(seconds=alive_seconds)}
            if configured is not None:
                values["configuration"] = configured(now).as_json()
            renewed = connection.execute(sa.update(row).where(row.c.process == process).values(beat_at=now, **values)).rowcount
            if not renewed:
                insert_or_ignore(connection, row, {"process": process, "role": role, "beat_at": now, **values})
            return str(connection.execute(sa.select(row.c.reload_asked).where(row.c.process == process)).scalar() or "")

    def ask_to_reload(self, request_id: str) -> list[str]:
        """Have every process that lives read its configuration file anew, at its next beat at the latest; which these are."""
        row = tables.lease
        with self._engine.begin() as connection:
            living = row.c.beat_at > self._clock(connection) - timedelta(seconds=LEASE_SECONDS)
            connection.execute(sa.update(row).where(living).values(reload_asked=request_id))
            asked = sa.select(row.c.process).where(row.c.reload_asked == request_id).order_by(row.c.role, row.c.process)
            return list(connection.execute(asked).scalars())

    def living(self, role: str) -> list[str]:
        """The processes of a role that renewed their lease lately."""
        with self._engine.begin() as connection:
            return living_processes(connection, role, self._clock(connection))

    def leave(self, process: str) -> None:
        """This process ends by its own will."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(tables.lease).where(tables.lease.c.process == process))


def _one(row: sa.Table, which: sa.ColumnElement[bool] | sa.TextClause) -> sa.Select[tuple[int]]:
    # In order, or PostgreSQL, which takes a third of all studies for open ones, reads through the table until it finds the first.
    return sa.select(sa.select(sa.literal(1)).select_from(row).where(which).order_by(row.c.due_at).limit(1).subquery())
