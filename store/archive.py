"""The studies' door: keep, advance, save, decide. Each public method is one transaction; each locks its study first, so no two interleave.

What `keep` has returned is durable (PS3.4 B.2.3: Success means that the SCP has taken responsibility). `now` is the database's clock,
read once per transaction; tests pass their own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from store import found_by, requests, tables
from store.database import BUSY_TIMEOUT_SECONDS, database_now, insert_or_ignore
from store.forget import forgotten
from store.grouping import Release, RequestKind
from store.header import indexed_values
from store.images import Disposition
from store.ledger import DEAD, GIVEN_UP, DeliveryState
from store.look import UNSEEN, Look, Reading, ReadView, header_columns
from store.on_demand import beginning, came_after_all, only_on_demand
from store.rows import (
    AT_REST,
    CANNOT_KEEP,
    TURN_OF_THE_OLDEST,
    Busy,
    Claim,
    UnknownStudy,
    change_study,
    claim_rows,
    lock_study,
    move,
    say,
    turns,
)
from store.seen import Decide
from store.study import Event, ModelIdentity, Outcome, Policy, StudyState
from store.view import Resolved

log = logging.getLogger(__name__)

#: A withdrawal that could not be written is tried again after this long.
WITHDRAWAL_RETRY_SECONDS = 900.0


class _IsForgotten(Exception):
    """Takes back what a transaction has inserted of a study that must not come back."""


class Kept(StrEnum):
    """What became of a reception."""

    NEW = "new"
    DUPLICATE = "duplicate"  # the same bytes are kept already; the caller removes the file it adopted
    IGNORED = "ignored"
    OWN_RESULT = "own result"
    FORGOTTEN = "forgotten"  # its study was, and shall not come back: nothing of it is kept


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
    origin: str = "received"  # received | fetched | on-demand


@dataclass(frozen=True)
class Unresolved:
    """A kept file whose header nobody has read yet."""

    instance_id: int
    file_name: str
    calling_ae_title: str


@dataclass(frozen=True, kw_only=True)
class NewObject:
    """A result object that was written to the spool and is about to be remembered."""

    kind: str
    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    file_name: str
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


class Archive:
    """The studies of one installation."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock
        self._handed_out = 0
        self._turn = threading.Lock()

    # ------------------------------------------------------------------------------------------------------------- receive

    def keep(self, reception: Reception) -> Kept:
        """Remember a received instance; durable when it returns. Raises Busy when the database cannot answer in time."""
        # SQLite has one writer and lets the others ask now and then, whoever came first: one of many may wait in vain. They queue here.
        if self._engine.dialect.name != "sqlite":
            return self._kept(reception)
        if not self._turn.acquire(timeout=BUSY_TIMEOUT_SECONDS):
            raise Busy.keeping(reception.sop_instance_uid, TimeoutError(), unsure=False)
        try:
            return self._kept(reception)
        finally:
            self._turn.release()

    def _kept(self, reception: Reception) -> Kept:
        written: list[Kept] = []
        try:
            for _ in range(2):
                try:
                    return self._keep(reception, written)
                except UnknownStudy:
                    continue  # forgotten at this very moment: look again
            return self._keep(reception, written)
        except _IsForgotten:
            return Kept.FORGOTTEN
        except CANNOT_KEEP as error:
            raise Busy.keeping(reception.sop_instance_uid, error, unsure=bool(written)) from error

    def is_forgotten(self, study_instance_uid: str) -> bool:
        """Whether the study must not come back."""
        with self._engine.begin() as connection:
            return forgotten(connection, study_instance_uid)

    def _keep(self, reception: Reception, written: list[Kept]) -> Kept:
        """`written` gets what is about to be committed with a link to the file: until then no row has one."""
        with self._engine.begin() as connection:
            now = self._clock(connection)
            own = connection.execute(
                sa.select(tables.result_object.c.sop_instance_uid).where(
                    tables.result_object.c.sop_instance_uid == reception.sop_instance_uid
                )
            ).first()
            first = {
                **beginning(now),
                "generation": 1,
                "patient_id": reception.patient_id,
                "issuer_of_patient_id": reception.issuer_of_patient_id,
                "patient_name": reception.patient_name,
                "patient_birth_date": reception.patient_birth_date,
            }
            new_study = insert_or_ignore(connection, tables.study, {"study_instance_uid": reception.study_instance_uid, **first})
            study = lock_study(connection, reception.study_instance_uid)
            if new_study and forgotten(connection, reception.study_instance_uid):
                raise _IsForgotten  # under the lock: whoever forgets a study has it
            # What a person had read of it on demand changes nothing: the study begins now.
            begins = not new_study and only_on_demand(connection, study)
            kept = Kept.OWN_RESULT if own else Kept.IGNORED if reception.ignored else Kept.NEW
            disposition = {Kept.OWN_RESULT: Disposition.OWN_RESULT, Kept.IGNORED: Disposition.IGNORED, Kept.NEW: Disposition.RECEIVED}[kept]
            values = asdict(reception)
            values.pop("ignored")
            if own:
                values["file_name"] = None  # the caller removes it: the object is kept as a result
            values |= {
                "received_at": now,
                "resolved_at": None if kept is Kept.NEW else now,
                "disposition": disposition,
                "disposition_reason": "a result of ours came back" if own else reception.ignored,
                "to_route": kept is Kept.NEW,
            }
            inserted = insert_or_ignore(connection, tables.instance, values)
            if not inserted and not came_after_all(connection, values) and not (kept is Kept.NEW and self._revive(connection, reception)):
                return Kept.DUPLICATE
            if kept is Kept.OWN_RESULT:
                return kept
            changes: dict[str, Any] = {"last_instance_at": now}
            if begins:
                changes |= {**first, "generation": study.generation + 1}
            elif kept is Kept.NEW and not new_study:
                # An ignored object changes nothing but the waiting time; an image must be looked at.
                changes |= {"generation": study.generation + 1}
            change_study(connection, study.study_instance_uid, **changes)
            if new_study:
                found_by.begin(connection, study.study_instance_uid, now, reception.patient_id, reception.calling_ae_title)
            else:
                found_by.move(connection, study, now)
            sender = reception.calling_ae_title or reception.origin
            what = f"{reception.modality} {reception.sop_instance_uid} from {sender}"
            say(connection, study.study_instance_uid, now, f"{'received' if kept is Kept.NEW else 'ignored'} {what}", reception.ignored)
            written.append(kept)  # the last statement: what comes is the commit
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
                row.c.disposition.not_in(UNSEEN),
            )
            .values(file_name=reception.file_name, pixels_removed_at=None)
        )
        return result.rowcount == 1

    # ----------------------------------------------------------------------------------------------------- what needs work

    def claim_studies(self, room: int = 50) -> list[Claim]:
        """Hand at most `room` studies that need attention to a worker, and that nobody works on: something new, then something due; each
        by priority, then by age. See `store.rows.turns`.
        """
        row = tables.study
        now = sa.bindparam("now", type_=row.c.due_at.type)
        due = sa.and_(row.c.workflow_id.is_(None), row.c.due_at <= now)
        new = (tables.OPEN_STUDY, (row.c.last_instance_at,))  # `due_at` of one that was at rest is empty
        overdue = (due, (row.c.due_at,))
        by_priority = (row.c.priority, row.c.due_at)
        with self._engine.begin() as connection:
            moment = self._clock(connection)
            oldest = turns(self._handed_out, room)
            # Neither of the two kinds waits for ever behind the other.
            by_age = (new, overdue) if self._handed_out // TURN_OF_THE_OLDEST % 2 == 0 else (overdue, new)
            claims: list[Claim] = []
            # One question after the other: with OR, none would find its index.
            for wanted, order, limit in (
                *((*kind, oldest) for kind in by_age),
                (tables.OPEN_STUDY, by_priority, room),
                (due, by_priority, room),
            ):
                if (left := min(limit, room - len(claims))) > 0:
                    claims += claim_rows(connection, "study", row, row.c.study_instance_uid, wanted, order, left, moment)
            self._handed_out += len(claims)
            return claims

    # ------------------------------------------------------------------------------------------------------------- advance

    def unresolved(self, study_instance_uid: str) -> list[Unresolved]:
        """The kept files of a study whose headers nobody has read yet, in order of arrival."""
        with self._engine.begin() as connection:
            row = tables.instance
            query = (
                sa.select(row.c.id, row.c.file_name, row.c.calling_ae_title)
                .where(row.c.study_instance_uid == study_instance_uid, row.c.resolved_at.is_(None), row.c.file_name.is_not(None))
                .order_by(row.c.id)
            )
            return [Unresolved(*found) for found in connection.execute(query).all()]

    def advance(
        self,
        study_instance_uid: str,
        resolved: Mapping[int, tuple[Resolved, bytes | None]],
        policy: Policy,
        decide: Decide,
    ) -> bool:
        """Look at a study once: take in resolved headers, elect, rule, set state and due time.

        True: its frozen selection is ready to be reported, and the study stays claimed for that.
        `resolved` maps instance ids to what their headers say and the header itself, packed. A repeat changes nothing.
        """
        with self._engine.begin() as connection:
            now = self._clock(connection)
            study = lock_study(connection, study_instance_uid)
            self._take_in(connection, resolved, now)
            ready = Look(connection, study, policy, now).advance(decide)
            found_by.refresh(connection, study_instance_uid)
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
            change_study(connection, study_instance_uid, settled_generation=settled, **({"begun_by": None} if ready else AT_REST))
            return ready

    def _take_in(self, connection: sa.Connection, resolved: Mapping[int, tuple[Resolved, bytes | None]], now: datetime) -> None:
        for instance_id, (found, packed) in resolved.items():
            values = {"resolved_at": now, **header_columns(found, packed)}
            row = tables.instance
            new = sa.and_(row.c.id == instance_id, row.c.resolved_at.is_(None))
            taken = connection.execute(sa.update(row).where(new).values(**values)).rowcount
            if taken and found.assumed_character_set:
                image = connection.execute(sa.select(row.c.study_instance_uid, row.c.sop_instance_uid).where(row.c.id == instance_id)).one()
                words = f"text of {image.sop_instance_uid} is read as {found.assumed_character_set}"
                say(connection, image.study_instance_uid, now, words, "it names no character set, and that is its sender's")
            if found.study_date:
                study_uid = sa.select(row.c.study_instance_uid).where(row.c.id == instance_id).scalar_subquery()
                connection.execute(
                    sa.update(tables.study).where(tables.study.c.study_instance_uid == study_uid).values(study_date=found.study_date)
                )

    # -------------------------------------------------------------------------------------------------------------- report

    def reading(self, study_instance_uid: str, policy: Policy) -> Reading | None:
        """What the next version of a study is made of: its frozen selection with its scores, or its withdrawal; None: neither is due."""
        with self._engine.begin() as connection:
            now = self._clock(connection)
            study = lock_study(connection, study_instance_uid)
            look = Look(connection, study, policy, now)
            if study.frozen_instances is None:
                return look.withdrawal()
            if not look.reportable:
                # Another model since it was found ready: its scores come first.
                change_study(connection, study_instance_uid, **AT_REST, generation=study.generation + 1)
                return None
            return look.reading()

    def save_version(self, study_instance_uid: str, reading: Reading, new: NewVersion) -> int:
        """Remember a version with its objects and deliveries; its number. A repeat changes nothing.

        Of a study that is held or withdrawn nothing is sent, but the version that says WITHDRAWN.
        """
        with self._engine.begin() as connection:
            study = lock_study(connection, study_instance_uid)
            version = tables.version
            existing = connection.execute(sa.select(version.c.number).where(version.c.object_cause == new.object_cause)).scalar()
            if existing is not None:
                return int(existing)
            number = self._insert_version(connection, study_instance_uid, reading, new)
            found_by.classify(connection, study_instance_uid, {read.scores.predicted_class for read in reading.views if read.scores})
            withdrawn = reading.outcome is Outcome.WITHDRAWN
            self._supersede(connection, study_instance_uid, f"version {number} follows")
            if StudyState(study.state) is (StudyState.WITHDRAWN if withdrawn else StudyState.ANALYSING):
                for one in new.objects:
                    for destination in one.destinations:
                        self._deliver(connection, study, one.sop_instance_uid, destination, reading.now)
            words = f"version {number}: {reading.outcome}"
            if withdrawn:
                say(connection, study_instance_uid, reading.now, words)
                change_study(connection, study_instance_uid, **AT_REST, due_at=None, generation=study.generation + 1)
            else:
                event = Event.VERSION_SAVED if any(read.scores for read in reading.views) else Event.NO_SCORES
                self._finish(connection, study, event, words, reading.now)
            for note in new.notes:
                say(connection, study.study_instance_uid, reading.now, note)
            return number

    def _supersede(self, connection: sa.Connection, study_instance_uid: str, reason: str) -> None:
        """What was given up of an earlier version concerns nobody any more."""
        row = tables.delivery
        mine = sa.and_(row.c.study_instance_uid == study_instance_uid, row.c.instance_id.is_(None), row.c.state.in_(DEAD))
        connection.execute(sa.update(row).where(mine).values(state=DeliveryState.CANCELLED, reason=reason))

    def _insert_version(self, connection: sa.Connection, study_instance_uid: str, reading: Reading, new: NewVersion) -> int:
        """The rows of a version: its run, itself, its objects; its number."""
        insert_or_ignore(
            connection,
            tables.run,
            {
                "id": new.run_id,
                "study_instance_uid": study_instance_uid,
                "model_key": new.model.key,
                "model": asdict(new.model),
                "selection": {str(read.view): _selected(read) for read in reading.views},
                "created_at": reading.now,
            },
        )
        number = reading.number
        version_id = connection.execute(
            sa.insert(tables.version).values(
                study_instance_uid=study_instance_uid,
                number=number,
                run_id=new.run_id,
                cause=new.cause,
                object_cause=new.object_cause,
                outcome=reading.outcome,
                losers=[asdict(loser) for loser in reading.losers],
                warnings=list(reading.warnings),
                trained=new.model.trained,
                requested=reading.requested,
                epoch=reading.epoch,
                created_at=reading.now,
            )
        ).inserted_primary_key
        assert version_id is not None
        for one in new.objects:
            # Not by asdict, which copies every value of the header: a tenth of what a report costs.
            values = {name: value for name, value in vars(one).items() if name != "destinations"}
            connection.execute(
                sa.insert(tables.result_object).values(
                    version_id=version_id[0], study_instance_uid=study_instance_uid, **values, **indexed_values(one.header)
                )
            )
        return number

    def settle_unchanged(self, study_instance_uid: str, reason: str, destinations: Mapping[str, Sequence[str]]) -> None:
        """The frozen selection says what the current version says already: nothing is written.

        `destinations` of the current version's objects, by SOP Instance UID: one that was never asked to take an object (the version was
        saved while the study was held, or the destination is new), or of which that was given up, is asked now.
        """
        with self._engine.begin() as connection:
            study = lock_study(connection, study_instance_uid)
            now = self._clock(connection)
            if StudyState(study.state) is StudyState.ANALYSING:
                for sop_instance_uid, names in destinations.items():
                    for destination in names:
                        if self._deliver(connection, study, sop_instance_uid, destination, now):
                            say(connection, study_instance_uid, now, f"{destination}: {sop_instance_uid} will be sent")
            self._finish(connection, study, Event.UNCHANGED, reason, now)

    def _deliver(self, connection: sa.Connection, study: sa.Row[Any], sop_instance_uid: str, destination: str, now: datetime) -> bool:
        """Put an object in the outbox, or back into it when the earlier try was given up; whether it will be sent now."""
        row = tables.delivery
        fresh = {"state": "waiting", "due_at": now, "created_at": now, "priority": study.priority}
        key = {"sop_instance_uid": sop_instance_uid, "destination": destination}
        if insert_or_ignore(connection, row, {**key, "study_instance_uid": study.study_instance_uid, **fresh}):
            return True
        given_up = sa.and_(
            row.c.sop_instance_uid == sop_instance_uid,
            row.c.destination == destination,
            row.c.state.in_(GIVEN_UP),
        )
        return connection.execute(sa.update(row).where(given_up).values(**fresh, tries=0, confirm_tries=0, reason="")).rowcount == 1

    def settle_failed(self, study_instance_uid: str, reason: str) -> None:
        """No view of the frozen selection has scores: there is nothing to report."""
        with self._engine.begin() as connection:
            study = lock_study(connection, study_instance_uid)
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
            **AT_REST,
        )

    def give_up(self, study_instance_uid: str, reason: str) -> None:
        """A surprise while a study was advanced or reported: hold it, so that a person sees it and nothing goes round in circles."""
        with self._engine.begin() as connection:
            give_up(connection, lock_study(connection, study_instance_uid), reason, self._clock(connection))

    # ----------------------------------------------------------------------------------------------------------- decisions

    def request(
        self,
        study_instance_uid: str,
        kind: RequestKind,
        *,
        request_id: str,
        person: str,
        why: str = "",
        release: Release | None = None,
        card: str = "",
    ) -> None:
        """Ask for a study to be read again (by the model of `card`), released or withdrawn; a worker applies and answers it.

        The same once more under the same `request_id` is asked once. Raises UnknownStudy, and AnotherRequest when that id stands for
        something else.
        """
        with self._engine.begin() as connection:
            now = self._clock(connection)
            study = lock_study(connection, study_instance_uid)
            # asdict would keep the views as members of an Enum, which JSON writes as their texts anyway.
            asked = asdict(release) if release is not None else {"card": card} if card else None
            # Only the kinds of choices: UIDs would say something of a study that is forgotten later.
            chosen = {"card": card} if card else {"choices": [word for word in str(release or "").split() if word.startswith("--")]}
            who: dict[str, Any] = {"request_id": request_id, "kind": kind, "person": person, "why": why}
            requests.ask(connection, study, now, **who, parameters=asked, said=str(release or ""), recorded=chosen)

    # ------------------------------------------------------------------------------------------------------------ internals

    def installation_values(self) -> dict[str, str]:
        """Identity constants of this database (Device Observer UID, serial number); made by `fourview db upgrade`."""
        with self._engine.begin() as connection:
            return {row.name: row.value for row in connection.execute(sa.select(tables.installation)).all()}


def give_up(connection: sa.Connection, study: sa.Row[Any], reason: str, now: datetime) -> None:
    """Hold a study that cannot be looked at or reported. One that is withdrawn stays so, and its withdrawal is tried again."""
    uid = study.study_instance_uid
    values: dict[str, Any] = {"frozen_instances": None, "frozen_by_request": False, "due_at": None, **AT_REST}
    values["settled_generation"] = study.generation
    values["card"] = ""  # should it be the card that cannot be used, the next look must not stumble over it again
    row = tables.decision
    open_requests = sa.and_(row.c.study_instance_uid == uid, row.c.applied_at.is_(None))
    connection.execute(sa.update(row).where(open_requests).values(applied_at=now, answer=f"refused: {reason}"))
    if study.state == StudyState.WITHDRAWN:
        # What was said must still be taken back: that is tried again until it goes well.
        version = tables.version
        mine = version.c.study_instance_uid == uid
        said = connection.execute(sa.select(version.c.outcome).where(mine).order_by(version.c.number.desc()).limit(1)).scalar()
        if said not in (None, Outcome.WITHDRAWN):
            values["due_at"] = now + timedelta(seconds=WITHDRAWAL_RETRY_SECONDS)
        change_study(connection, uid, **values)
        say(connection, uid, now, "withdrawn", reason + ("; it is tried again" if values["due_at"] else ""))
    else:
        move(connection, study, Event.DOUBT, reason, now, **values)


def _selected(read: ReadView) -> dict[str, Any]:
    return {
        "instance_id": read.candidate.instance_id,
        "sop_instance_uid": read.candidate.sop_instance_uid,
        "pixel_hash": read.pixel_hash,
        "scores": asdict(read.scores) if read.scores else None,
        "failure": read.failure,
    }
