"""Images that are read: handed out, saved, failed, postponed. One image read by one model is one score; the first saved one stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from pydicom.dataset import Dataset

from store import tables
from store.database import alone_or_never, database_now
from store.grouping import STALLED_SECONDS
from store.header import unpack_header
from store.leases import living_processes
from store.look import ask_for_score, current_selection, evidence_from
from store.pauses import Paused, is_paused
from store.rows import Claim, UnknownStudy, change_study, claim_rows, lock_study, say, turns
from store.study import Policy, Scores
from store.view import contradicted_by

#: An image that failed this often is not tried again.
ATTEMPTS = 3
#: An image that was begun this often and never finished is read alone.
EXPIRED_ATTEMPTS = 20
#: Taken by a worker beyond what it reads at once, so that it need not wait for the next tick.
SPARE = 1
#: After a failure that may pass, the next attempt waits this long, doubled each time.
RETRY_SECONDS = 2.0
_IN_HAND = sa.and_(tables.score.c.state == "waiting", tables.score.c.workflow_id.is_not(None))


@dataclass(frozen=True, kw_only=True)
class ScoreTask:
    """One image to be read by one model."""

    score_id: int
    study_instance_uid: str
    sop_instance_uid: str
    instance_id: int
    file_name: str | None
    model_key: str
    card: str
    attempt: int
    alone: bool  # a suspect: no other image at the same time in its worker


class Scoring:
    """The images that wait to be read, and what was read. Each public method is one transaction under the study's lock."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock
        self._handed_out = 0

    def claim(self, room: int = 50, *, spare: int = 0, at_once: int = 0) -> list[Claim]:
        """Hand at most `room` images that wait to be read to a worker, by priority, then by age; see `store.rows.turns`.

        `room` is what it can begin at once, so that an urgent image overtakes all that wait. `spare` more, which wait in its hands, only
        when all living workers have `at_once` images in theirs: else another one would begin it now. One that is only re-read in the
        background is handed out when no other waits.
        """
        row = tables.score
        now = sa.bindparam("now", type_=row.c.due_at.type)
        due = sa.and_(tables.FREE_SCORE, sa.or_(row.c.due_at.is_(None), row.c.due_at <= now))
        urgent = sa.and_(due, row.c.background.is_(sa.false()))
        with self._engine.begin() as connection:
            # Another worker claims at this moment, or a person has paused it.
            if not alone_or_never(connection, "claim images") or is_paused(connection, Paused.ANALYSING):
                return []
            moment = self._clock(connection)
            if spare:
                busy = connection.execute(sa.select(sa.func.count()).select_from(row).where(_IN_HAND)).scalar_one()
                if busy + room >= at_once * len(living_processes(connection, "work", moment)):
                    room += spare
            oldest = turns(self._handed_out, room)
            claims: list[Claim] = []
            for order, limit in (((row.c.id,), oldest), ((row.c.priority, row.c.id), room - oldest)):
                if limit:
                    claims += claim_rows(connection, "view", row, row.c.id, urgent, order, limit, moment)
            self._handed_out += len(claims)
            if room and not claims and not connection.execute(sa.select(row.c.id).where(_IN_HAND).limit(1)).first():
                claims += claim_rows(connection, "view", row, row.c.id, due, (row.c.id,), 1, moment)
            return claims

    def ask(self, study_instance_uid: str, policy: Policy) -> int:
        """Have the images of a study's current version read by `policy`'s model too, in the background; how many are asked for now.

        The numbers are kept beside those of other models; no version is made of them, and nothing is sent. Raises UnknownStudy.
        """
        with self._engine.begin() as connection:
            lock_study(connection, study_instance_uid)
            selection = current_selection(connection, study_instance_uid)
            return sum(
                ask_for_score(connection, study_instance_uid, one["instance_id"], policy, background=True) for one in selection.values()
            )

    def task(self, score_id: int) -> ScoreTask | None:
        """The image behind a score that still waits to be read; None when it is settled already."""
        with self._engine.begin() as connection:
            score, instance = tables.score, tables.instance
            found = connection.execute(
                sa.select(
                    score.c.study_instance_uid,
                    instance.c.sop_instance_uid,
                    instance.c.id.label("instance_id"),
                    instance.c.file_name,
                    score.c.model_key,
                    score.c.card,
                    score.c.attempt,
                    sa.or_(score.c.crashes > 0, score.c.attempt > EXPIRED_ATTEMPTS).label("alone"),
                )
                .join(instance, instance.c.id == score.c.instance_id)
                .where(score.c.id == score_id, score.c.state == "waiting")
            ).first()
            return None if found is None else ScoreTask(score_id=score_id, **found._mapping)

    def begin(self, score_id: int, workflow_id: str, life: str) -> bool:
        """Note which life of a process begins an image now; False: it is settled, or another workflow's by now, so leave it alone."""
        row = tables.score
        mine = sa.and_(row.c.id == score_id, row.c.state == "waiting", row.c.workflow_id == workflow_id)
        with self._engine.begin() as connection:
            return connection.execute(sa.update(row).where(mine).values(begun_by=life)).rowcount == 1

    def hand_back(self, score_id: int, workflow_id: str) -> None:
        """It was handed out and will not be begun: it is free for others at once."""
        row = tables.score
        mine = sa.and_(row.c.id == score_id, row.c.state == "waiting", row.c.workflow_id == workflow_id)
        with self._engine.begin() as connection:
            connection.execute(sa.update(row).where(mine).values(workflow_id=None, begun_by=None, attempt=row.c.attempt - 1))

    def header(self, instance_id: int) -> Dataset:
        """The header of an instance as it was received, without pixel data."""
        with self._engine.begin() as connection:
            packed = connection.execute(sa.select(tables.instance.c.header).where(tables.instance.c.id == instance_id)).scalar()
            if packed is None:
                raise UnknownStudy(f"instance {instance_id} is no longer there: its study was forgotten")
            return unpack_header(packed)

    def save_pixel_hash(self, score_id: int, pixel_hash: str, breast_edge: str) -> bool:
        """Remember what the pixels of an image are, and at which edge ("left", "right", "" when it cannot be told) the breast lies.

        True: a copy of it was scored by the same model already; its scores were taken over.
        """
        with self._scored_study(score_id) as (connection, study, task, now):
            instance, score = tables.instance, tables.score
            values: dict[str, Any] = {"pixel_hash": pixel_hash, "breast_edge": breast_edge}
            connection.execute(sa.update(instance).where(instance.c.id == task.instance_id).values(**values))
            if len(contradicted_by(evidence_from(task.evidence), breast_edge)) > 1:
                _raise_generation(connection, study.study_instance_uid)  # the stated side is doubtful: look at it
            copies = connection.execute(
                sa.select(sa.func.count())
                .select_from(instance)
                .where(
                    instance.c.study_instance_uid == study.study_instance_uid,
                    instance.c.sop_instance_uid == task.sop_instance_uid,
                    instance.c.pixel_hash != pixel_hash,
                )
            ).scalar_one()
            if copies:
                _raise_generation(connection, study.study_instance_uid)  # other pixels under one UID: a doubt to look at
            twin = connection.execute(
                sa.select(score.c.scores, score.c.preview_file, score.c.heat_map_file)
                .join(instance, instance.c.id == score.c.instance_id)
                .where(
                    instance.c.study_instance_uid == study.study_instance_uid,
                    instance.c.sop_instance_uid == task.sop_instance_uid,
                    instance.c.pixel_hash == pixel_hash,
                    instance.c.id != task.instance_id,
                    score.c.model_key == task.model_key,
                    score.c.state == "scored",
                )
            ).first()
            if twin is None:
                return False
            files = {"preview_file": twin.preview_file, "heat_map_file": twin.heat_map_file}
            values = {"scores": twin.scores, "duration_seconds": 0.0, **files}
            _settle(connection, study, score_id, now, state="scored", scored_at=now, **values)
            return True

    def save(
        self, score_id: int, scores: Scores, preview_file: str | None, duration_seconds: float, *, heat_map_file: str | None = None
    ) -> bool:
        """Remember what the model said; False when another worker was first: its answer stands and the caller removes its files."""
        with self._scored_study(score_id) as (connection, study, task, now):
            if task.state != "waiting":
                return False
            files = {"preview_file": preview_file, "heat_map_file": heat_map_file}
            values = {"scores": asdict(scores), "duration_seconds": duration_seconds, **files}
            _settle(connection, study, score_id, now, state="scored", scored_at=now, error="", **values)
            return True

    def fail(self, score_id: int, reason: str, *, permanent: bool, workflow_id: str | None = None) -> None:
        """Remember that an image could not be read; what may pass is tried again, `ATTEMPTS` times in all.

        Not when it is another workflow's than `workflow_id` by now: whoever was frozen so long says nothing any more.
        """
        with self._scored_study(score_id) as (connection, study, task, now):
            if not _is_of(task, workflow_id):
                return
            failures = task.failures + 1
            if permanent or failures >= ATTEMPTS:
                fail_for_good(connection, score_id, reason, now)
            else:
                due = now + timedelta(seconds=RETRY_SECONDS * 2**failures)
                _settle(connection, study, score_id, now, state="waiting", error=reason, due_at=due, failures=failures)

    def postpone(self, score_id: int, reason: str, *, workflow_id: str | None = None) -> None:
        """The disk or the mount is away: the image is not to blame and waits, for as long as it takes. `workflow_id` as in `fail`."""
        with self._scored_study(score_id) as (connection, study, task, now):
            if _is_of(task, workflow_id):
                due = now + timedelta(seconds=STALLED_SECONDS)
                values = {"error": reason, "due_at": due, "attempt": task.attempt - 1}
                _settle(connection, study, score_id, now, state="waiting", **values)

    @contextmanager
    def _scored_study(self, score_id: int) -> Iterator[tuple[sa.Connection, Any, Any, datetime]]:
        with self._engine.begin() as connection:
            now = self._clock(connection)
            score, instance = tables.score, tables.instance
            uid = connection.execute(sa.select(score.c.study_instance_uid).where(score.c.id == score_id)).scalar()
            if uid is None:
                raise UnknownStudy(f"score {score_id} is no longer there: its study was forgotten")
            study = lock_study(connection, uid)
            image = (instance.c.id.label("instance_id"), instance.c.sop_instance_uid, instance.c.evidence)
            task = connection.execute(
                sa.select(score.c.state, score.c.workflow_id, score.c.attempt, score.c.failures, score.c.model_key, *image)
                .join(instance, instance.c.id == score.c.instance_id)
                .where(score.c.id == score_id)
            ).one()
            yield connection, study, task, now


def _is_of(task: sa.Row[Any], workflow_id: str | None) -> bool:
    return task.state == "waiting" and workflow_id in (None, task.workflow_id)


def fail_for_good(connection: sa.Connection, score_id: int, reason: str, now: datetime) -> None:
    """This image is not tried again; its study is looked at."""
    score, instance = tables.score, tables.instance
    found = connection.execute(
        sa.select(score.c.study_instance_uid, instance.c.sop_instance_uid)
        .join(instance, instance.c.id == score.c.instance_id)
        .where(score.c.id == score_id)
    ).one()
    study = lock_study(connection, found.study_instance_uid)
    _settle(connection, study, score_id, now, state="failed", error=reason)
    say(connection, study.study_instance_uid, now, f"image {found.sop_instance_uid} could not be read", reason)


def _settle(connection: sa.Connection, study: sa.Row[Any], score_id: int, now: datetime, **values: Any) -> None:
    connection.execute(sa.update(tables.score).where(tables.score.c.id == score_id).values(workflow_id=None, begun_by=None, **values))
    if study.frozen_instances is not None or values["state"] == "failed":
        # A run in progress may have waited for just this image; a failed one leaves its slot to another.
        _raise_generation(connection, study.study_instance_uid)


def _raise_generation(connection: sa.Connection, study_instance_uid: str) -> None:
    change_study(connection, study_instance_uid, generation=tables.study.c.generation + 1)
