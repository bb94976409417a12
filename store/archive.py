"""The studies' door: keep, advance, save, decide. Each public method is one transaction; each locks its study first, so no two interleave.

What `keep` has returned is durable (PS3.4 B.2.3: Success means that the SCP has taken responsibility). `now` is the database's clock,
read once per transaction; tests pass their own.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from pydicom.dataset import Dataset
from sqlalchemy.exc import OperationalError

from store import tables
from store.database import database_now, insert_or_ignore
from store.header import indexed_values, pack_header, unpack_header
from store.look import STALLED_SECONDS, Decide, Disposition, Look, Reading, ReadView, change_study, move, say
from store.study import Event, ModelIdentity, Policy, Scores, StudyState
from store.view import Resolved

log = logging.getLogger(__name__)

#: An image that failed this often, or over which a worker died so often that the engine gave up, is not tried again.
ATTEMPTS = 3
#: Claims that expired for other reasons (a host that died, a disk that was away) count apart.
EXPIRED_ATTEMPTS = 20
#: Processes renew their lease every `BEAT_SECONDS`; one that did not for `LEASE_SECONDS` is taken for dead.
BEAT_SECONDS = 3.0
LEASE_SECONDS = 15.0
#: After a failure that may pass, the next attempt waits this long, doubled each time.
RETRY_SECONDS = 2.0


class Busy(Exception):
    """The database stayed locked or is away: nothing was kept. The sender may try again (answer 0xA700)."""


class UnknownStudy(Exception):
    """No study with this UID was ever received; the message says so."""


class Kept(StrEnum):
    """What became of a reception."""

    NEW = "new"
    DUPLICATE = "duplicate"  # the same bytes are kept already; the caller removes the file it adopted
    IGNORED = "ignored"
    OWN_RESULT = "own result"


@dataclass(frozen=True, kw_only=True)
class Reception:
    """One instance as it came through a door; text is stripped of NULs and padding."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    patient_birth_date: str
    calling_ae_title: str
    called_ae_title: str
    size_bytes: int
    file_hash: str  # SHA-256 of the data set without group 0002
    file_name: str | None  # None when nothing but the row is kept
    ignored: str = ""  # why nothing but the row is kept
    origin: str = "received"  # received | fetched


@dataclass(frozen=True)
class Claim:
    """A row handed to the workflow engine under an id that is used once."""

    workflow_id: str
    row: str  # study_instance_uid, or the number of a score


@dataclass(frozen=True)
class Unresolved:
    """A kept file whose header nobody has read yet."""

    instance_id: int
    file_name: str


@dataclass(frozen=True, kw_only=True)
class ScoreTask:
    """One image to be read by one model."""

    score_id: int
    study_instance_uid: str
    sop_instance_uid: str
    instance_id: int
    file_name: str | None
    model_key: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class NewObject:
    """A result object that was written to the spool and is about to be remembered."""

    kind: str
    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    file_name: str
    png_file: str | None
    sha256: str
    size_bytes: int
    header: Mapping[str, Any]
    destinations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NewVersion:
    """A version about to be remembered, with the run that it reports."""

    run_id: str
    cause: str
    object_cause: str
    model: ModelIdentity
    objects: tuple[NewObject, ...]
    notes: tuple[str, ...] = ()  # for the timeline: what is not sent, and why


def new_workflow_id(name: str, row: object, attempt: int) -> str:
    """An id that was never used before, also not before a backup was restored: a workflow id that has ended is spent for ever."""
    return f"{name}:{row}:{attempt}:{secrets.token_hex(4)}"


def living_processes(connection: sa.Connection, role: str, now: datetime) -> list[str]:
    """The processes of a role that renewed their lease lately."""
    row = tables.lease
    limit = now - timedelta(seconds=LEASE_SECONDS)
    return list(connection.execute(sa.select(row.c.process).where(row.c.role == role, row.c.beat_at > limit)).scalars())


class Archive:
    """The studies of one installation."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock

    # ------------------------------------------------------------------------------------------------------------- receive

    def keep(self, reception: Reception) -> Kept:
        """Remember a received instance; durable when it returns. Raises Busy when the database cannot answer in time."""
        try:
            return self._keep(reception)
        except (OperationalError, sa.exc.TimeoutError) as error:
            raise Busy(f"the database did not keep {reception.sop_instance_uid}: {type(error).__name__}") from error

    def _keep(self, reception: Reception) -> Kept:
        with self._engine.begin() as connection:
            now = self._clock(connection)
            own = connection.execute(
                sa.select(tables.result_object.c.sop_instance_uid).where(
                    tables.result_object.c.sop_instance_uid == reception.sop_instance_uid
                )
            ).first()
            new_study = insert_or_ignore(
                connection,
                tables.study,
                {
                    "study_instance_uid": reception.study_instance_uid,
                    "state": StudyState.COLLECTING,
                    "generation": 1,
                    "due_at": now,
                    "first_instance_at": now,
                    "last_instance_at": now,
                    "collecting_since": now,
                    "patient_id": reception.patient_id,
                    "issuer_of_patient_id": reception.issuer_of_patient_id,
                    "patient_name": reception.patient_name,
                    "patient_birth_date": reception.patient_birth_date,
                },
            )
            study = self._lock(connection, reception.study_instance_uid)
            kept = Kept.OWN_RESULT if own else Kept.IGNORED if reception.ignored else Kept.NEW
            disposition = {Kept.OWN_RESULT: Disposition.OWN_RESULT, Kept.IGNORED: Disposition.IGNORED, Kept.NEW: Disposition.RECEIVED}[kept]
            values = asdict(reception)
            values.pop("ignored")
            inserted = insert_or_ignore(
                connection,
                tables.instance,
                {
                    **values,
                    "received_at": now,
                    "resolved_at": None if kept is Kept.NEW else now,
                    "disposition": disposition,
                    "disposition_reason": "a result of ours came back" if own else reception.ignored,
                },
            )
            if not inserted and not (kept is Kept.NEW and self._revive(connection, reception)):
                return Kept.DUPLICATE
            if kept is Kept.OWN_RESULT:
                return kept
            changes: dict[str, Any] = {"last_instance_at": now}
            if kept is Kept.NEW and not new_study:
                # An ignored object changes nothing but the waiting time; an image must be looked at.
                changes |= {"generation": study.generation + 1}
            change_study(connection, study.study_instance_uid, **changes)
            sender = reception.calling_ae_title or reception.origin
            what = f"{reception.modality} {reception.sop_instance_uid} from {sender}"
            say(connection, study.study_instance_uid, now, f"{'received' if kept is Kept.NEW else 'ignored'} {what}", reception.ignored)
            return kept

    def _revive(self, connection: sa.Connection, reception: Reception) -> bool:
        """A known instance whose pixels were removed has come again: link the new file to its row."""
        row = tables.instance
        result = connection.execute(
            sa.update(row)
            .where(
                row.c.study_instance_uid == reception.study_instance_uid,
                row.c.sop_instance_uid == reception.sop_instance_uid,
                row.c.file_hash == reception.file_hash,
                row.c.file_name.is_(None),
                row.c.disposition.not_in((Disposition.OWN_RESULT, Disposition.IGNORED)),
            )
            .values(file_name=reception.file_name, pixels_removed_at=None)
        )
        return result.rowcount == 1

    # ----------------------------------------------------------------------------------------------------- what needs work

    def claim_studies(self, limit: int = 50) -> list[Claim]:
        """Hand studies that need attention to the engine: something new (generation), something due, and nobody at work on them."""
        row = tables.study
        wanted = sa.and_(
            row.c.workflow_id.is_(None),
            sa.or_(row.c.generation > row.c.settled_generation, row.c.due_at <= sa.bindparam("now", type_=row.c.due_at.type)),
        )
        return self._claim("study", row, row.c.study_instance_uid, wanted, row.c.due_at, limit)

    def claim_scores(self, limit: int = 50) -> list[Claim]:
        """Hand images that wait to be read to the engine, oldest first."""
        row = tables.score
        now = sa.bindparam("now", type_=row.c.due_at.type)
        wanted = sa.and_(row.c.workflow_id.is_(None), row.c.state == "waiting", sa.or_(row.c.due_at.is_(None), row.c.due_at <= now))
        return self._claim("view", row, row.c.id, wanted, row.c.id, limit)

    def _claim(
        self, name: str, row: sa.Table, key: sa.Column[Any], wanted: sa.ColumnElement[bool], order: sa.Column[Any], limit: int
    ) -> list[Claim]:
        with self._engine.begin() as connection:
            now = self._clock(connection)
            query = sa.select(key, row.c.attempt).where(wanted).order_by(order).limit(limit).with_for_update(skip_locked=True)
            claims = []
            for value, attempt in connection.execute(query, {"now": now}).all():
                claim = Claim(new_workflow_id(name, value, attempt + 1), str(value))
                connection.execute(
                    sa.update(row).where(key == value).values(attempt=attempt + 1, workflow_id=claim.workflow_id, claimed_at=now)
                )
                claims.append(claim)
            return claims

    def claimed(self, older_than_seconds: float) -> list[str]:
        """Workflow ids of rows that were handed out longer ago than this: the engine is asked what became of them."""
        with self._engine.begin() as connection:
            limit = self._clock(connection) - timedelta(seconds=older_than_seconds)
            found: set[str] = set()
            for row in (tables.study, tables.score, tables.delivery):
                query = sa.select(row.c.workflow_id).where(row.c.workflow_id.is_not(None), row.c.claimed_at <= limit)
                found.update(connection.execute(query).scalars())
            return sorted(found)

    def release(self, workflow_ids: Sequence[str], reason: str, *, deadly: Collection[str] = ()) -> int:
        """Take rows back from workflows that are absent or ended without settling them; how many.

        Over the `deadly` ones a worker died again and again: that counts against the image. An image that did so too often fails.
        """
        with self._engine.begin() as connection:
            now = self._clock(connection)
            released = 0
            for row in (tables.study, tables.delivery):
                # Not at once: whatever ended the workflow may end the next one too.
                values: dict[str, Any] = {"workflow_id": None, "due_at": now + timedelta(seconds=STALLED_SECONDS)}
                if row is tables.study:
                    values["settled_generation"] = row.c.generation  # due_at makes it look at everything anyway
                released += connection.execute(sa.update(row).where(row.c.workflow_id.in_(workflow_ids)).values(**values)).rowcount
            score = tables.score
            spent = connection.execute(sa.select(score).where(score.c.workflow_id.in_(workflow_ids), score.c.state == "waiting")).all()
            for one in spent:
                failures = one.failures + (one.workflow_id in deadly)
                if failures >= ATTEMPTS or one.attempt >= EXPIRED_ATTEMPTS:
                    self._fail_score(connection, one.id, f"it was begun {one.attempt} times and never finished ({reason})", now)
                else:
                    due = now + timedelta(seconds=RETRY_SECONDS * 2**failures)
                    values = {"workflow_id": None, "due_at": due, "failures": failures}
                    connection.execute(sa.update(score).where(score.c.id == one.id).values(**values))
            return released + len(spent)

    # ------------------------------------------------------------------------------------------------------------- advance

    def unresolved(self, study_instance_uid: str) -> list[Unresolved]:
        """The kept files of a study whose headers nobody has read yet, in order of arrival."""
        with self._engine.begin() as connection:
            row = tables.instance
            query = (
                sa.select(row.c.id, row.c.file_name)
                .where(row.c.study_instance_uid == study_instance_uid, row.c.resolved_at.is_(None), row.c.file_name.is_not(None))
                .order_by(row.c.id)
            )
            return [Unresolved(*found) for found in connection.execute(query).all()]

    def advance(
        self,
        study_instance_uid: str,
        resolved: Mapping[int, tuple[Resolved, Dataset | None]],
        policy: Policy,
        decide: Decide,
    ) -> bool:
        """Look at a study once: take in resolved headers, elect, rule, set state and due time.

        True: its frozen selection is ready to be reported, and the study stays claimed for that.
        `resolved` maps instance ids to what their headers say and the header itself. A repeat changes nothing.
        """
        with self._engine.begin() as connection:
            now = self._clock(connection)
            study = self._lock(connection, study_instance_uid)
            self._take_in(connection, resolved, now)
            ready = Look(connection, study, policy, now).advance(decide)
            # What arrived after these headers were read is unresolved and raises the generation again by itself.
            left = connection.execute(
                sa.select(sa.func.count())
                .select_from(tables.instance)
                .where(
                    tables.instance.c.study_instance_uid == study_instance_uid,
                    tables.instance.c.resolved_at.is_(None),
                    tables.instance.c.file_name.is_not(None),
                )
            ).scalar_one()
            settled = study.generation - 1 if left else study.generation
            change_study(connection, study_instance_uid, settled_generation=settled, **({} if ready else {"workflow_id": None}))
            return ready

    def _take_in(self, connection: sa.Connection, resolved: Mapping[int, tuple[Resolved, Dataset | None]], now: datetime) -> None:
        for instance_id, (found, header) in resolved.items():
            values: dict[str, Any] = {
                "resolved_at": now,
                "evidence": asdict(found.evidence),
                "ranking": asdict(found.ranking),
                "rejects": {"sop_instance_uids": list(found.rejects), "reason": found.rejection} if found.rejects else None,
                "header": pack_header(header) if header is not None else None,
                "image_kind": found.evidence.kind,
                **found.equipment,
            }
            row = tables.instance
            connection.execute(sa.update(row).where(row.c.id == instance_id, row.c.resolved_at.is_(None)).values(**values))
            if found.study_date:
                study_uid = sa.select(row.c.study_instance_uid).where(row.c.id == instance_id).scalar_subquery()
                connection.execute(
                    sa.update(tables.study).where(tables.study.c.study_instance_uid == study_uid).values(study_date=found.study_date)
                )

    # --------------------------------------------------------------------------------------------------------------- score

    def score_task(self, score_id: int) -> ScoreTask | None:
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
                    score.c.attempt,
                )
                .join(instance, instance.c.id == score.c.instance_id)
                .where(score.c.id == score_id, score.c.state == "waiting")
            ).first()
            return None if found is None else ScoreTask(score_id=score_id, **found._mapping)

    def instance_header(self, instance_id: int) -> Dataset:
        """The header of an instance as it was received, without pixel data."""
        with self._engine.begin() as connection:
            packed = connection.execute(sa.select(tables.instance.c.header).where(tables.instance.c.id == instance_id)).scalar_one()
            return unpack_header(packed)

    def save_pixel_hash(self, score_id: int, pixel_hash: str) -> bool:
        """Remember what the pixels of an image are. True: a copy of it was scored by the same model already; its scores were taken over."""
        with self._scored_study(score_id) as (connection, study, task, now):
            instance, score = tables.instance, tables.score
            connection.execute(sa.update(instance).where(instance.c.id == task.instance_id).values(pixel_hash=pixel_hash))
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
                self._raise_generation(connection, study.study_instance_uid)  # other pixels under one UID: a doubt to look at
            twin = connection.execute(
                sa.select(score.c.scores, score.c.preview_file)
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
            values = {"scores": twin.scores, "preview_file": twin.preview_file, "duration_seconds": 0.0}
            self._settle_score(connection, study, score_id, now, state="scored", scored_at=now, **values)
            return True

    def save_score(self, score_id: int, scores: Scores, preview_file: str, duration_seconds: float) -> bool:
        """Remember what the model said; False when another worker was first: its answer stands and the caller removes its preview."""
        with self._scored_study(score_id) as (connection, study, task, now):
            if task.state != "waiting":
                return False
            values = {"scores": asdict(scores), "preview_file": preview_file, "duration_seconds": duration_seconds}
            self._settle_score(connection, study, score_id, now, state="scored", scored_at=now, error="", **values)
            return True

    def fail_score(self, score_id: int, reason: str, *, permanent: bool) -> None:
        """Remember that an image could not be read; what may pass is tried again, `ATTEMPTS` times in all."""
        with self._scored_study(score_id) as (connection, study, task, now):
            if task.state != "waiting":
                return
            failures = task.failures + 1
            if permanent or failures >= ATTEMPTS:
                self._fail_score(connection, score_id, reason, now)
            else:
                due = now + timedelta(seconds=RETRY_SECONDS * 2**failures)
                self._settle_score(connection, study, score_id, now, state="waiting", error=reason, due_at=due, failures=failures)

    def postpone_score(self, score_id: int, reason: str) -> None:
        """The disk or the mount is away: the image is not to blame and waits, for as long as it takes."""
        with self._scored_study(score_id) as (connection, study, task, now):
            if task.state == "waiting":
                due = now + timedelta(seconds=STALLED_SECONDS)
                values = {"error": reason, "due_at": due, "attempt": task.attempt - 1}
                self._settle_score(connection, study, score_id, now, state="waiting", **values)

    @contextmanager
    def _scored_study(self, score_id: int) -> Iterator[tuple[sa.Connection, Any, Any, datetime]]:
        with self._engine.begin() as connection:
            now = self._clock(connection)
            score, instance = tables.score, tables.instance
            uid = connection.execute(sa.select(score.c.study_instance_uid).where(score.c.id == score_id)).scalar_one()
            study = self._lock(connection, uid)
            image = (instance.c.id.label("instance_id"), instance.c.sop_instance_uid)
            task = connection.execute(
                sa.select(score.c.state, score.c.attempt, score.c.failures, score.c.model_key, *image)
                .join(instance, instance.c.id == score.c.instance_id)
                .where(score.c.id == score_id)
            ).one()
            yield connection, study, task, now

    def _fail_score(self, connection: sa.Connection, score_id: int, reason: str, now: datetime) -> None:
        score, instance = tables.score, tables.instance
        found = connection.execute(
            sa.select(score.c.study_instance_uid, instance.c.sop_instance_uid)
            .join(instance, instance.c.id == score.c.instance_id)
            .where(score.c.id == score_id)
        ).one()
        study = self._lock(connection, found.study_instance_uid)
        self._settle_score(connection, study, score_id, now, state="failed", error=reason)
        say(connection, study.study_instance_uid, now, f"image {found.sop_instance_uid} could not be read", reason)

    def _settle_score(self, connection: sa.Connection, study: sa.Row[Any], score_id: int, now: datetime, **values: Any) -> None:
        connection.execute(sa.update(tables.score).where(tables.score.c.id == score_id).values(workflow_id=None, **values))
        if study.frozen_instances is not None or values["state"] == "failed":
            # A run in progress may have waited for just this image; a failed one leaves its slot to another.
            self._raise_generation(connection, study.study_instance_uid)

    def _raise_generation(self, connection: sa.Connection, study_instance_uid: str) -> None:
        change_study(connection, study_instance_uid, generation=tables.study.c.generation + 1)

    # -------------------------------------------------------------------------------------------------------------- report

    def reading(self, study_instance_uid: str, policy: Policy) -> Reading | None:
        """The frozen selection of a study with its scores; None when there is none (any more)."""
        with self._engine.begin() as connection:
            now = self._clock(connection)
            study = self._lock(connection, study_instance_uid)
            if study.frozen_instances is None:
                return None
            look = Look(connection, study, policy, now)
            if not look.complete():
                # Another model since it was found ready: its scores come first.
                change_study(connection, study_instance_uid, workflow_id=None, generation=study.generation + 1)
                return None
            return look.reading()

    def save_version(self, study_instance_uid: str, reading: Reading, new: NewVersion) -> int:
        """Remember a version with its objects and deliveries; its number. A repeat changes nothing. A held study gets no deliveries."""
        with self._engine.begin() as connection:
            now = reading.now
            study = self._lock(connection, study_instance_uid)
            version, run = tables.version, tables.run
            existing = connection.execute(sa.select(version.c.number).where(version.c.object_cause == new.object_cause)).scalar()
            if existing is not None:
                return int(existing)
            insert_or_ignore(
                connection,
                run,
                {
                    "id": new.run_id,
                    "study_instance_uid": study_instance_uid,
                    "model_key": new.model.key,
                    "model": asdict(new.model),
                    "selection": {str(read.view): _selected(read) for read in reading.views},
                    "created_at": now,
                },
            )
            number = reading.current.number + 1 if reading.current else 1
            version_id = connection.execute(
                sa.insert(version).values(
                    study_instance_uid=study_instance_uid,
                    number=number,
                    run_id=new.run_id,
                    cause=new.cause,
                    object_cause=new.object_cause,
                    outcome=reading.outcome,
                    losers=[asdict(loser) for loser in reading.election.losers],
                    warnings=list(reading.warnings),
                    trained=new.model.trained,
                    requested=reading.requested,
                    created_at=now,
                )
            ).inserted_primary_key
            assert version_id is not None
            deliver = StudyState(study.state) is StudyState.ANALYSING
            for one in new.objects:
                values = {name: value for name, value in asdict(one).items() if name != "destinations"}
                connection.execute(
                    sa.insert(tables.result_object).values(
                        version_id=version_id[0], study_instance_uid=study_instance_uid, **values, **indexed_values(one.header)
                    )
                )
                for destination in one.destinations if deliver else ():
                    self._deliver(connection, study_instance_uid, one.sop_instance_uid, destination, now)
            event = Event.VERSION_SAVED if any(read.scores for read in reading.views) else Event.NO_SCORES
            self._finish(connection, study, event, f"version {number}: {reading.outcome}", now)
            for note in new.notes:
                say(connection, study.study_instance_uid, now, note)
            return number

    def settle_unchanged(self, study_instance_uid: str, reason: str, destinations: Mapping[str, Sequence[str]]) -> None:
        """The frozen selection says what the current version says already: nothing is written.

        `destinations` of the current version's objects, by SOP Instance UID: one that was never asked to take an object (the version was
        saved while the study was held, or the destination is new), or of which that was given up, is asked now.
        """
        with self._engine.begin() as connection:
            study = self._lock(connection, study_instance_uid)
            now = self._clock(connection)
            if StudyState(study.state) is StudyState.ANALYSING:
                for sop_instance_uid, names in destinations.items():
                    for destination in names:
                        if self._deliver(connection, study_instance_uid, sop_instance_uid, destination, now):
                            say(connection, study_instance_uid, now, f"{destination}: {sop_instance_uid} will be sent")
            self._finish(connection, study, Event.UNCHANGED, reason, now)

    def _deliver(self, connection: sa.Connection, study_instance_uid: str, sop_instance_uid: str, destination: str, now: datetime) -> bool:
        """Put an object in the outbox, or back into it when the earlier try was given up; whether it will be sent now."""
        row = tables.delivery
        fresh = {"state": "waiting", "due_at": now, "created_at": now}
        key = {"sop_instance_uid": sop_instance_uid, "destination": destination}
        if insert_or_ignore(connection, row, {**key, "study_instance_uid": study_instance_uid, **fresh}):
            return True
        given_up = sa.and_(
            row.c.sop_instance_uid == sop_instance_uid,
            row.c.destination == destination,
            row.c.state.in_(("refused", "expired", "cancelled")),
        )
        return connection.execute(sa.update(row).where(given_up).values(**fresh, tries=0, confirm_tries=0, reason="")).rowcount == 1

    def settle_failed(self, study_instance_uid: str, reason: str) -> None:
        """No view of the frozen selection has scores: there is nothing to report."""
        with self._engine.begin() as connection:
            study = self._lock(connection, study_instance_uid)
            self._finish(connection, study, Event.NO_SCORES, reason, self._clock(connection))

    def _finish(self, connection: sa.Connection, study: sa.Row[Any], event: Event, reason: str, now: datetime) -> None:
        if study.frozen_instances is None:
            return  # a repeat of a step that was done
        move(
            connection,
            study,
            event,
            reason,
            now,
            frozen_instances=None,
            frozen_by_request=False,
            due_at=None,
            # What came after the freeze is looked at next.
            settled_generation=min(study.settled_generation, study.frozen_generation),
            workflow_id=None,
        )

    def give_up(self, study_instance_uid: str, reason: str) -> None:
        """A surprise while a study was advanced or reported: hold it, so that a person sees it and nothing goes round in circles."""
        with self._engine.begin() as connection:
            study = self._lock(connection, study_instance_uid)
            values: dict[str, Any] = {"frozen_instances": None, "frozen_by_request": False, "workflow_id": None, "due_at": None}
            values["settled_generation"] = study.generation
            now = self._clock(connection)
            row = tables.decision
            open_requests = sa.and_(row.c.study_instance_uid == study_instance_uid, row.c.applied_at.is_(None))
            connection.execute(sa.update(row).where(open_requests).values(applied_at=now, answer=f"refused: {reason}"))
            if study.state == StudyState.WITHDRAWN:
                change_study(connection, study_instance_uid, **values)
            else:
                move(connection, study, Event.DOUBT, reason, now, **values)

    # ----------------------------------------------------------------------------------------------------------- decisions

    def request_reprocess(self, study_instance_uid: str, *, request_id: str, person: str) -> None:
        """Ask for a study to be read again from its kept images; a worker applies it. Raises UnknownStudy."""
        with self._engine.begin() as connection:
            now = self._clock(connection)
            study = self._lock(connection, study_instance_uid)
            values = {"request_id": request_id, "study_instance_uid": study_instance_uid, "kind": "reprocess", "person": person}
            if insert_or_ignore(connection, tables.decision, {**values, "created_at": now}):
                change_study(connection, study_instance_uid, generation=study.generation + 1)
                say(connection, study.study_instance_uid, now, f"{person} asked to reprocess")

    # -------------------------------------------------------------------------------------------------------------- upkeep

    def retire_pixels(self, *, keep_images_days: float, keep_unfinished_days: float, limit: int = 1000) -> list[str]:
        """Let go of images that were kept long enough; the caller removes the returned files. None of a study that owes a delivery."""
        study, instance, delivery = tables.study, tables.instance, tables.delivery
        with self._engine.begin() as connection:
            now = self._clock(connection)
            owing = sa.exists().where(delivery.c.study_instance_uid == study.c.study_instance_uid, delivery.c.state == "waiting")
            done = sa.and_(
                study.c.state.in_((StudyState.ANALYSED, StudyState.IGNORED)),
                study.c.last_instance_at < now - timedelta(days=keep_images_days),
            )
            unfinished = sa.and_(
                study.c.state.in_((StudyState.HELD, StudyState.INCOMPLETE, StudyState.FAILED, StudyState.WITHDRAWN)),
                study.c.last_instance_at < now - timedelta(days=keep_unfinished_days),
            )
            found = connection.execute(
                sa.select(instance.c.id, instance.c.file_name)
                .join(study, study.c.study_instance_uid == instance.c.study_instance_uid)
                .where(instance.c.file_name.is_not(None), sa.or_(done, unfinished), sa.not_(owing))
                .order_by(instance.c.id)
                .limit(limit)
            ).all()
            gone = [row.id for row in found]
            connection.execute(sa.update(instance).where(instance.c.id.in_(gone)).values(file_name=None, pixels_removed_at=now))
            return [row.file_name for row in found]

    # ----------------------------------------------------------------------------------------------------------- processes

    def beat(self, process: str, role: str) -> None:
        """This process lives and is ready to work."""
        row = tables.lease
        with self._engine.begin() as connection:
            now = self._clock(connection)
            renewed = connection.execute(sa.update(row).where(row.c.process == process).values(beat_at=now)).rowcount
            if not renewed:
                insert_or_ignore(connection, row, {"process": process, "role": role, "beat_at": now})

    def living(self, role: str) -> list[str]:
        """The processes of a role that renewed their lease lately."""
        with self._engine.begin() as connection:
            return living_processes(connection, role, self._clock(connection))

    def leave(self, process: str) -> None:
        """This process ends by its own will."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(tables.lease).where(tables.lease.c.process == process))

    # ------------------------------------------------------------------------------------------------------------ internals

    def installation_values(self) -> dict[str, str]:
        """Identity constants of this database (Device Observer UID, serial number); made by `fourview db upgrade`."""
        with self._engine.begin() as connection:
            return {row.name: row.value for row in connection.execute(sa.select(tables.installation)).all()}

    def _lock(self, connection: sa.Connection, study_instance_uid: str) -> sa.Row[Any]:
        row = tables.study
        found = connection.execute(sa.select(row).where(row.c.study_instance_uid == study_instance_uid).with_for_update()).first()
        if found is None:
            raise UnknownStudy(f"no study {study_instance_uid} is known here; `fourview studies` lists those that are")
        return found


def _selected(read: ReadView) -> dict[str, Any]:
    return {
        "instance_id": read.candidate.instance_id,
        "sop_instance_uid": read.candidate.sop_instance_uid,
        "pixel_hash": read.pixel_hash,
        "scores": asdict(read.scores) if read.scores else None,
        "failure": read.failure,
    }
