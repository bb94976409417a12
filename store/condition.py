"""How the installation fares, on the read-only engine: who lives, what waits and since when, what failed. No patient data is in it.

The cost is bounded: what is final and many (images, deliveries that arrived) is never counted here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from store import pauses, tables
from store.database import database_now
from store.engines import read_record
from store.images import Disposition
from store.leases import LEASE_SECONDS, Configured
from store.ledger import DEAD, OWING
from store.pace import BEHIND, Standing
from store.queue import HOUR
from store.study import Outcome, StudyState

#: A withdrawal of what was sent is told for so long.
TOLD_OF_WITHDRAWAL = timedelta(days=1)
#: So many single studies of one kind are looked at; beyond that only the count matters.
MOST = 1000
#: Deliveries that are not at their end: someone waits for them, or must act.
OPEN = (*OWING, *DEAD)


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that renewed its lease at `beat_at`; `figures` is what it counted since `started_at`, `configured` by which configuration
    it works (None: it is of an earlier release)."""

    process: str
    role: str
    beat_at: datetime
    started_at: datetime | None
    figures: dict[str, float]
    alive: bool
    configured: Configured | None = None


@dataclass(frozen=True, kw_only=True)
class Dead:
    """Deliveries to one destination that ended in one way for one reason."""

    destination: str
    state: str  # refused | expired
    reason: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Behind:
    """A calling AE title of which studies are above its pace: those of the last hour, or of which images still wait."""

    ae_title: str
    studies: int  # of the last hour
    images: int  # that wait to be read, behind all others


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that status, metrics and alerts are made of, read in one transaction at `now`."""

    now: datetime
    processes: tuple[Process, ...]
    studies: dict[str, int]  # by state
    open_studies: int  # that wait for a worker
    study_waits_since: datetime | None  # the one that waits longest, of those that are not above their sender's pace
    images_waiting: int
    deliveries: dict[tuple[str, str], int]  # (destination, state) of those in `OPEN`
    delivery_waits_since: dict[str, datetime]  # by destination
    delivery_error: dict[str, str]  # by destination: why the one that waits longest was not sent
    originals_bytes: dict[str, int]  # by destination: of the images that are kept because they still have to go there
    dead: tuple[Dead, ...]
    held: tuple[str, ...]
    failed: tuple[str, ...]
    withdrawn: tuple[str, ...]  # lately, after something was sent
    pauses: tuple[dict[str, Any], ...]
    reconciled_at: datetime | None
    reconciled: dict[str, Any]
    alerts: tuple[dict[str, Any], ...]  # that stand, or of which somebody is still to be told
    behind_waits_since: datetime | None = None  # the one that waits longest of those that are above it
    behind: tuple[Behind, ...] = ()
    openvino_refused: tuple[str, ...] = ()  # why, for each model that torch reads instead

    def living(self, role: str) -> list[Process]:
        """The processes of a role that live."""
        return [one for one in self.processes if one.role == role and one.alive]


def refusing(processes: Iterable[Process]) -> list[Process]:
    """Who lives and refuses its configuration file as it is now."""
    return [one for one in processes if one.alive and one.configured is not None and one.configured.complaints]


def by_configuration(processes: Iterable[Process]) -> dict[str, list[Process]]:
    """Who lives, by the hash of the configuration that it works by; more than one hash: they decide differently."""
    found: dict[str, list[Process]] = {}
    for one in processes:
        if one.alive and one.configured is not None:
            found.setdefault(one.configured.hash, []).append(one)
    return found


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What was done since a moment."""

    images: int  # received, own results apart
    versions: int  # made
    sent: int  # objects, each once per destination; one that was put back and sent again counts at its last time


@dataclass(frozen=True, kw_only=True)
class Sender:
    """What came from one calling AE title."""

    ae_title: str
    last_at: datetime
    days: int  # of the last 14 on which anything came
    received: int  # in the last 24 hours, own results apart
    ignored: int  # of those


class Condition:
    """Questions about the whole installation. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def facts(self) -> Facts:
        """How it fares at this moment."""
        study, score, chore = tables.study, tables.score, tables.chore
        with self._engine.begin() as connection:
            now = database_now(connection)
            states = connection.execute(sa.select(study.c.state, sa.func.count()).group_by(study.c.state)).all()
            waiting = sa.and_(score.c.state == "waiting", score.c.background.is_(sa.false()))
            reconciled = connection.execute(sa.select(chore).where(chore.c.name == "reconcile")).first()
            open_studies, since = _open_studies(connection, now, study.c.pace != Standing.ABOVE)
            # In the words of its index: what is above a pace is few, the studies are many.
            above = sa.and_(tables.PACED_STUDY, study.c.pace == Standing.ABOVE)
            behind_studies, behind_since = _open_studies(connection, now, above)
            deliveries, oldest, errors = _open_deliveries(connection)
            return Facts(
                now=now,
                processes=_processes(connection, now),
                studies={one[0]: one[1] for one in states},
                open_studies=open_studies + behind_studies,
                study_waits_since=since,
                images_waiting=connection.execute(sa.select(sa.func.count()).select_from(score).where(waiting)).scalar_one(),
                deliveries=deliveries,
                delivery_waits_since=oldest,
                delivery_error=errors,
                originals_bytes=_open_originals(connection),
                dead=_dead(connection),
                held=_of_state(connection, StudyState.HELD),
                failed=_of_state(connection, StudyState.FAILED),
                withdrawn=_withdrawn(connection, now),
                pauses=tuple(pauses.listed(connection)),
                reconciled_at=reconciled.done_at if reconciled is not None else None,
                reconciled=dict(reconciled.outcome or {}) if reconciled is not None else {},
                alerts=_alerts(connection),
                behind_waits_since=behind_since,
                behind=_behind(connection, now),
                openvino_refused=tuple(one.reason for one in read_record(connection).verdicts.values() if not one.agrees),
            )

    def processes(self) -> tuple[Process, ...]:
        """Who has a lease, alone."""
        with self._engine.begin() as connection:
            return _processes(connection, database_now(connection))

    def throughput(self, since: datetime) -> Throughput:
        """What was done since then. Numbers of rows grow with time: only what came since is counted."""
        image, version, delivery = tables.instance, tables.version, tables.delivery
        with self._engine.begin() as connection:

            def count(row: sa.Table, at: sa.Column[Any], *conditions: sa.ColumnElement[bool]) -> int:
                last = connection.execute(sa.select(row.c.id).where(at < since).order_by(row.c.id.desc()).limit(1)).scalar() or 0
                return connection.execute(sa.select(sa.func.count()).select_from(row).where(row.c.id > last, *conditions)).scalar_one()

            return Throughput(
                images=count(image, image.c.received_at, image.c.disposition != Disposition.OWN_RESULT),
                versions=count(version, version.c.created_at),
                # By its own index: what is sent now may have been waiting since long ago.
                sent=connection.execute(sa.select(sa.func.count()).select_from(delivery).where(delivery.c.sent_at >= since)).scalar_one(),
            )

    def senders(self) -> list[Sender]:
        """Who sent what lately; dear compared with `facts`, so asked rarely. Each question goes by the index of senders."""
        row = tables.instance
        found: list[Sender] = []
        with self._engine.begin() as connection:
            now = database_now(connection)
            name: str | None = ""
            while True:
                query = sa.select(sa.func.min(row.c.calling_ae_title)).where(row.c.calling_ae_title > name)
                name = connection.execute(query).scalar()
                if name is None:
                    return found
                found.append(_sender(connection, name, now))


def _processes(connection: sa.Connection, now: datetime) -> tuple[Process, ...]:
    limit = now - timedelta(seconds=LEASE_SECONDS)
    rows = connection.execute(sa.select(tables.lease).order_by(tables.lease.c.role, tables.lease.c.process)).all()
    return tuple(
        Process(
            process=one.process,
            role=one.role,
            beat_at=one.beat_at,
            started_at=one.started_at,
            figures=dict(one.figures or {}),
            alive=one.beat_at > limit,
            configured=Configured.of(one.configuration),
        )
        for one in rows
    )


def _open_studies(connection: sa.Connection, now: datetime, which: sa.ColumnElement[bool]) -> tuple[int, datetime | None]:
    """How many studies wait for a worker, and since when the first: since the last that is written on its timeline."""
    study, timeline = tables.study, tables.timeline
    open_ = sa.or_(study.c.generation > study.c.settled_generation, study.c.due_at <= now, study.c.state == StudyState.ANALYSING)
    waits = sa.and_(open_, which)
    count = connection.execute(sa.select(sa.func.count()).select_from(study).where(waits)).scalar_one()
    if count == 0:
        return 0, None
    oldest = sa.select(study.c.study_instance_uid).where(waits).order_by(study.c.last_instance_at).limit(MOST).subquery()
    last = (
        sa.select(sa.func.max(timeline.c.at).label("at"))
        .where(timeline.c.study_instance_uid.in_(sa.select(oldest.c.study_instance_uid)))
        .group_by(timeline.c.study_instance_uid)
        .subquery()
    )
    return count, connection.execute(sa.select(sa.func.min(last.c.at, type_=timeline.c.at.type))).scalar()


def _behind(connection: sa.Connection, now: datetime) -> tuple[Behind, ...]:
    study, score = tables.study, tables.score
    lately = sa.and_(tables.PACED_STUDY, study.c.pace == Standing.ABOVE, study.c.first_instance_at > now - HOUR)
    came = sa.select(study.c.paced_by, sa.func.count()).where(lately).group_by(study.c.paced_by)
    studies: dict[str, int] = {one[0]: one[1] for one in connection.execute(came).all()}
    waits = (
        sa.select(study.c.paced_by, sa.func.count())
        .select_from(score)
        .join(study, study.c.study_instance_uid == score.c.study_instance_uid)
        .where(score.c.state == "waiting", score.c.background.is_(sa.false()), score.c.priority > BEHIND)
        .group_by(study.c.paced_by)
    )
    images: dict[str, int] = {one[0]: one[1] for one in connection.execute(waits).all()}
    titles = sorted({*studies, *images})
    return tuple(Behind(ae_title=one, studies=studies.get(one, 0), images=images.get(one, 0)) for one in titles)


def _open_deliveries(
    connection: sa.Connection,
) -> tuple[dict[tuple[str, str], int], dict[str, datetime], dict[str, str]]:
    row, study = tables.delivery, tables.study
    counted = sa.select(row.c.destination, row.c.state, sa.func.count()).where(row.c.state.in_(OPEN))
    counts = {(one[0], one[1]): one[2] for one in connection.execute(counted.group_by(row.c.destination, row.c.state)).all()}
    # A result that is held waits for a person, not for its destination.
    place = sa.func.row_number().over(partition_by=row.c.destination, order_by=(row.c.created_at, row.c.id)).label("place")
    waiting = (
        sa.select(row.c.destination, row.c.created_at, row.c.reason, place)
        .join(study, study.c.study_instance_uid == row.c.study_instance_uid)
        .where(row.c.state.in_(OWING), sa.or_(study.c.state != StudyState.HELD, row.c.instance_id.is_not(None)))
        .subquery()
    )
    oldest = connection.execute(sa.select(waiting).where(waiting.c.place == 1)).all()
    return counts, {one.destination: one.created_at for one in oldest}, {one.destination: one.reason for one in oldest if one.reason}


def _open_originals(connection: sa.Connection) -> dict[str, int]:
    row = tables.delivery
    query = sa.select(row.c.destination, sa.func.sum(row.c.size_bytes)).where(row.c.state.in_(OWING)).group_by(row.c.destination)
    return {one[0]: int(one[1]) for one in connection.execute(query).all() if one[1]}


def _dead(connection: sa.Connection) -> tuple[Dead, ...]:
    row = tables.delivery
    group = (row.c.destination, row.c.state, row.c.reason)
    query = sa.select(*group, sa.func.count().label("count")).where(row.c.state.in_(DEAD)).group_by(*group).order_by(*group)
    return tuple(Dead(**one._mapping) for one in connection.execute(query.limit(MOST)).all())


def _of_state(connection: sa.Connection, state: StudyState) -> tuple[str, ...]:
    study = tables.study
    query = sa.select(study.c.study_instance_uid).where(study.c.state == state).order_by(study.c.last_instance_at).limit(MOST)
    return tuple(connection.execute(query).scalars())


def _withdrawn(connection: sa.Connection, now: datetime) -> tuple[str, ...]:
    study, version, delivery = tables.study, tables.version, tables.delivery
    mine = sa.and_(delivery.c.study_instance_uid == study.c.study_instance_uid, delivery.c.instance_id.is_(None))
    sent = sa.exists().where(mine, delivery.c.sent_at.is_not(None))
    query = (
        sa.select(study.c.study_instance_uid)
        .join(version, version.c.study_instance_uid == study.c.study_instance_uid)
        .where(
            study.c.state == StudyState.WITHDRAWN,
            version.c.outcome == Outcome.WITHDRAWN,
            version.c.created_at > now - TOLD_OF_WITHDRAWAL,
            sent,
        )
    )
    return tuple(dict.fromkeys(connection.execute(query.order_by(version.c.id).limit(MOST)).scalars()))


def _alerts(connection: sa.Connection) -> tuple[dict[str, Any], ...]:
    row = tables.alert
    stands = sa.or_(row.c.cleared_at.is_(None), row.c.due_at.is_not(None))
    return tuple(dict(one._mapping) for one in connection.execute(sa.select(row).where(stands).order_by(row.c.raised_at, row.c.cause)))


def _sender(connection: sa.Connection, ae_title: str, now: datetime) -> Sender:
    row, study = tables.instance, tables.study
    mine = row.c.calling_ae_title == ae_title
    last: datetime = connection.execute(sa.select(sa.func.max(row.c.received_at, type_=row.c.received_at.type)).where(mine)).scalar_one()
    days = 0
    for day in range(14):
        until = last - timedelta(days=day)  # not from now: the longer it is silent, the less it would be missed
        came = sa.select(row.c.id).where(mine, row.c.received_at <= until, row.c.received_at > until - timedelta(days=1)).limit(1)
        days += connection.execute(came).first() is not None
    out = sa.or_(row.c.disposition.in_((Disposition.IGNORED, Disposition.SET_ASIDE)), study.c.state == StudyState.IGNORED)
    query = (
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.case((out, 1), else_=0)), 0))
        .select_from(row)
        .join(study, study.c.study_instance_uid == row.c.study_instance_uid)
        .where(mine, row.c.received_at > now - timedelta(days=1), row.c.disposition != Disposition.OWN_RESULT)
    )
    received, ignored = connection.execute(query).one()
    return Sender(ae_title=ae_title, last_at=last, days=days, received=int(received), ignored=int(ignored))
