"""Forgetting a study: every row that speaks of it, and a keyed tombstone in their place, so that it does not come back.

The caller removes the files and the workflow engine's rows afterwards. A worker or a receiver that has the study in hand at this moment
finds nothing any more when it saves: its transaction waits for this one, or this one for its.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from store import acts, tables
from store.acts import study_key
from store.database import database_now, insert_or_ignore
from store.images import Disposition
from store.rows import lock_study

log = logging.getLogger(__name__)

#: How often it is tried when a worker's transaction is in the way.
_TRIES = 3
#: Columns that name a file of the spool.
_FILES = (
    (tables.instance, ("file_name",)),
    (tables.score, ("preview_file", "heat_map_file")),
    (tables.result_object, ("file_name", "png_file")),
)


class Ambiguous(Exception):
    """A Patient ID that several issuers gave: perhaps several people's."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A result object, or an image that was forwarded, that a destination has, or may have: only there can it be deleted."""

    destination: str
    sop_instance_uid: str
    series_instance_uid: str
    state: str


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was forgotten of a study, and what others still hold."""

    study_instance_uid: str
    images: int
    versions: int
    files: tuple[str, ...]  # for the caller to remove
    scores: tuple[int, ...]  # numbers of rows, which workflow ids hold
    deliveries: tuple[int, ...]
    elsewhere: tuple[Elsewhere, ...]
    senders: tuple[str, ...]  # whom the images came from: AE titles, and in words what was fetched on demand

    def as_json(self) -> dict[str, Any]:
        """What people are told."""
        told = ("study_instance_uid", "images", "versions", "senders")
        return {
            **{name: getattr(self, name) for name in told},
            "files": len(self.files),
            "elsewhere": [asdict(one) for one in self.elsewhere],
        }


class Forgetting:
    """Takes studies out of the database for good. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock

    def studies_of(self, patient_id: str, issuer: str | None = None) -> list[str]:
        """The studies of which an image names this patient. Raises Ambiguous when several issuers gave the ID and none is named."""
        row = tables.instance
        mine = row.c.patient_id == patient_id
        if issuer is not None:
            mine = sa.and_(mine, row.c.issuer_of_patient_id == issuer)
        with self._engine.begin() as connection:
            issuers = sorted(connection.execute(sa.select(row.c.issuer_of_patient_id).where(mine).distinct()).scalars())
            if len(issuers) > 1:
                raise Ambiguous(f"{len(issuers)} issuers gave this Patient ID: say which with --issuer ({', '.join(map(repr, issuers))})")
            return sorted(connection.execute(sa.select(row.c.study_instance_uid).where(mine).distinct()).scalars())

    def forget(self, study_instance_uid: str, *, person: str, why: str = "") -> Forgotten:
        """Delete every row of a study and leave a tombstone. Raises UnknownStudy."""
        for _ in range(_TRIES - 1):
            try:
                return self._forget(study_instance_uid, person, why)
            except OperationalError:
                continue  # PostgreSQL ends one of two transactions that wait for each other, and has nothing done
        return self._forget(study_instance_uid, person, why)

    def _forget(self, study_instance_uid: str, person: str, why: str) -> Forgotten:
        with self._engine.begin() as connection:
            now = self._clock(connection)
            lock_study(connection, study_instance_uid)
            gone = _found(connection, study_instance_uid)
            key = study_key(connection, study_instance_uid)
            insert_or_ignore(connection, tables.tombstone, {"study_key": key, "at": now})
            for table in reversed(tables.metadata.sorted_tables):
                if "study_instance_uid" in table.c:
                    connection.execute(sa.delete(table).where(table.c.study_instance_uid == study_instance_uid))
            _out_of_alerts(connection, [study_instance_uid, *(one.sop_instance_uid for one in gone.elsewhere)])
            _out_of_chores(connection, study_instance_uid)
            counts = {"images": gone.images, "versions": gone.versions, "files": len(gone.files), "elsewhere": len(gone.elsewhere)}
            acts.record(connection, now, person=person, what="forget", why=why, study_instance_uid=study_instance_uid, parameters=counts)
        log.info("study forgotten study_key=%s images=%d versions=%d files=%d", key[:16], gone.images, gone.versions, len(gone.files))
        return gone

    def allow_again(self, study_instance_uid: str, *, person: str, why: str = "") -> bool:
        """Take the tombstone away: the study may come again. False when there was none."""
        with self._engine.begin() as connection:
            row = tables.tombstone
            key = study_key(connection, study_instance_uid)
            if connection.execute(sa.delete(row).where(row.c.study_key == key)).rowcount == 0:
                return False
            now = self._clock(connection)
            acts.record(connection, now, person=person, what="allow again", why=why, study_instance_uid=study_instance_uid)
            return True


def forgotten(connection: sa.Connection, study_instance_uid: str) -> bool:
    """Whether a tombstone keeps the study from coming back."""
    row = tables.tombstone
    stone = row.c.study_key == study_key(connection, study_instance_uid)
    return connection.execute(sa.select(row.c.at).where(stone)).first() is not None


def _found(connection: sa.Connection, study_instance_uid: str) -> Forgotten:
    """What there is of a study."""

    def mine(table: sa.Table, *columns: sa.ColumnElement[Any]) -> Iterable[Any]:
        return connection.execute(sa.select(*columns).where(table.c.study_instance_uid == study_instance_uid)).all()

    files = {
        name
        for table, columns in _FILES
        for row in mine(table, *(table.c[column] for column in columns))
        for name in row
        if name is not None
    }
    delivery, result, instance = tables.delivery, tables.result_object, tables.instance
    series = sa.func.coalesce(result.c.series_instance_uid, instance.c.series_instance_uid)
    # What was begun may have arrived.
    sent = sa.or_(delivery.c.state.in_(("sending", "sent", "confirmed")), delivery.c.tries > 0, delivery.c.attempt > 0)
    elsewhere = connection.execute(
        sa.select(delivery.c.destination, delivery.c.sop_instance_uid, series.label("series_instance_uid"), delivery.c.state)
        .outerjoin(result, result.c.sop_instance_uid == delivery.c.sop_instance_uid)
        .outerjoin(instance, instance.c.id == delivery.c.instance_id)
        .where(delivery.c.study_instance_uid == study_instance_uid, sent)
        .order_by(delivery.c.id)
    ).all()
    asked = "the PACS that [study] fetch_from names"  # of what a person had read on demand
    came = mine(instance, instance.c.calling_ae_title, instance.c.disposition)
    senders = {asked if row.disposition == Disposition.ON_DEMAND else row.calling_ae_title for row in came}
    return Forgotten(
        study_instance_uid=study_instance_uid,
        images=len(list(mine(instance, instance.c.id))),
        versions=len(list(mine(tables.version, tables.version.c.id))),
        files=tuple(sorted(files)),
        scores=tuple(row.id for row in mine(tables.score, tables.score.c.id)),
        deliveries=tuple(row.id for row in mine(delivery, delivery.c.id)),
        elsewhere=tuple(Elsewhere(**row._mapping) for row in elsewhere),
        senders=tuple(sorted(senders - {""})),
    )


def _names(text: str, uid: str) -> bool:
    """Whether a text names this very UID: 1.2.3 is not named by one that says 1.2.34, 1.2.3.4 or 5.1.2.3."""
    return re.search(rf"(?<!\d)(?<!\d\.){re.escape(uid)}(?!\d|\.\d)", text) is not None


def _out_of_alerts(connection: sa.Connection, uids: Sequence[str]) -> None:
    row = tables.alert
    for uid in uids:
        perhaps = sa.select(row.c.cause, row.c.text).where(row.c.cause.contains(uid) | row.c.text.contains(uid))
        for cause, text in connection.execute(perhaps).all():
            if _names(cause, uid) or _names(text, uid):
                connection.execute(sa.delete(row).where(row.c.cause == cause))


def _out_of_chores(connection: sa.Connection, study_instance_uid: str) -> None:
    """What chores remember names studies, too."""
    row = tables.chore
    for name, outcome in connection.execute(sa.select(row.c.name, row.c.outcome).where(row.c.outcome.is_not(None))).all():
        cleaned = _without(outcome, study_instance_uid)
        if cleaned != outcome:
            connection.execute(sa.update(row).where(row.c.name == name).values(outcome=cleaned))


def _without(value: Any, uid: str) -> Any:
    if isinstance(value, dict):
        return {name: _without(one, uid) for name, one in value.items() if not _names(name, uid)}
    if isinstance(value, list):
        return [_without(one, uid) for one in value if one != uid]
    return "" if isinstance(value, str) and _names(value, uid) else value
