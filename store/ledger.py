"""The delivery ledger: which object is on its way to which destination, how often it was tried, and what the destination said.

An object is a result of ours, or an image as it was received, which a rule forwards: an *original*. A result's delivery is committed with
the version it belongs to, so neither a restart nor a PACS that is down costs a second inference; an original's with the look that routes
it. `sending` is committed before the bytes leave: what was begun may have arrived. Every transaction locks a study's row before rows of its
deliveries. What holds, corrects or withdraws a study stops its results, never its originals.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from store import acts, tables
from store.correction import Comparison, Correction, Verdict, carried, compare
from store.database import database_now, insert_or_ignore, one_at_a_time
from store.grouping import RequestKind
from store.images import Disposition
from store.pauses import Paused, is_paused
from store.rows import Claim, UnknownStudy, change_study, lock_study, move, new_workflow_id, say, turns
from store.study import Event, Outcome, StudyState, digest

log = logging.getLogger(__name__)

#: At most so many objects go out in one association.
BATCH = 50
#: At most so many of them are originals: those of two exams are half a gigabyte, and a result that is made meanwhile shall not wait long.
ORIGINALS = 8
#: Added to the priority of an original: results are small, and somebody waits for them.
AFTER_RESULTS = 100
FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 900.0
#: What a workflow that vanished held is looked at again after this long.
STALLED_SECONDS = 30.0
#: How often a destination is asked whether it has an object that it answered Success for.
CONFIRM_TRIES = 5


class DeliveryState(StrEnum):
    """How far an object is on its way."""

    WAITING = "waiting"
    SENDING = "sending"  # begun: it may have arrived
    SENT = "sent"  # the destination answered Success
    CONFIRMED = "confirmed"  # and found it when asked
    REFUSED = "refused"  # for good: a person must act
    EXPIRED = "expired"  # tried for as long as the site allows
    CANCELLED = "cancelled"


_S = DeliveryState
#: From each state the states that may follow by themselves. What was cancelled, or taken over by another worker, while it was on its way
#: may turn out to have been sent. What was given up is cancelled when a newer version follows or the study is withdrawn, and is put back
#: into the outbox by a person's `retry`, or by a run that finds it still stands.
TRANSITIONS: Mapping[DeliveryState, frozenset[DeliveryState]] = {
    _S.WAITING: frozenset({_S.WAITING, _S.SENDING, _S.SENT, _S.REFUSED, _S.EXPIRED, _S.CANCELLED}),
    _S.SENDING: frozenset({_S.SENDING, _S.WAITING, _S.SENT, _S.REFUSED, _S.EXPIRED, _S.CANCELLED}),
    _S.SENT: frozenset({_S.SENT, _S.CONFIRMED}),
    _S.CONFIRMED: frozenset(),
    _S.REFUSED: frozenset({_S.CANCELLED}),
    _S.EXPIRED: frozenset({_S.CANCELLED}),
    _S.CANCELLED: frozenset({_S.SENT}),
}
#: What still has to reach its destination.
OWING = (_S.WAITING, _S.SENDING)
#: What a person must see to.
DEAD = (_S.REFUSED, _S.EXPIRED)
#: What may be put back into the outbox.
GIVEN_UP = (_S.REFUSED, _S.EXPIRED, _S.CANCELLED)


@dataclass(frozen=True)
class Delivery:
    """One object to be sent to, or confirmed by, one destination."""

    delivery_id: int
    destination: str
    state: DeliveryState
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    file_name: str
    withdrawal: bool = False  # its version says WITHDRAWN: it is of the patient that was said, whatever became of him
    original: bool = False  # an image as it was received; `file_name` is "" when it is no longer kept


class Ledger:
    """The deliveries of one installation. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock
        self._handed_out: Counter[str] = Counter()  # batches, by destination: each has its own turns of the oldest

    # ----------------------------------------------------------------------------------------------------------- handing out

    def claim(self, room: int = 50) -> list[Claim]:
        """Hand the due deliveries of at most `room` destinations to a worker, a batch at a time; of results none of a held study.

        By priority, which lets results go before originals, then by age, and the versions of a study in their order. See
        `store.rows.turns`: of the batches of each destination.
        """
        row, study = tables.delivery, tables.study
        with self._engine.begin() as connection:
            if is_paused(connection, Paused.SENDING):
                return []
            # Two hosts must not give one destination two batches.
            one_at_a_time(connection, "claim deliveries")
            now = self._clock(connection)
            due = sa.and_(row.c.due_at <= now, row.c.workflow_id.is_(None))
            busy = sa.select(row.c.destination).where(row.c.workflow_id.is_not(None))
            destinations = connection.execute(sa.select(row.c.destination).where(due, row.c.destination.not_in(busy)).distinct()).scalars()
            older, result = row.alias(), tables.result_object
            older_result = result.alias()
            # A destination gets the versions of a study in their order: a newer one waits until an older one is through, also when both are
            # due, since the older one may fail where the newer one would not.
            earlier = sa.exists().where(
                older.c.study_instance_uid == row.c.study_instance_uid,
                older.c.destination == row.c.destination,
                older.c.state.in_(OWING),
                older_result.c.sop_instance_uid == older.c.sop_instance_uid,
                older_result.c.version_id < result.c.version_id,
            )
            result_may_go = sa.and_(
                study.c.state != StudyState.HELD,
                study.c.generation <= study.c.settled_generation,  # what just came may be a doubt: look first
                sa.not_(earlier),
            )
            is_original = row.c.instance_id.is_not(None)
            claims = []
            for destination in sorted(destinations):
                found = connection.execute(
                    sa.select(row.c.id, row.c.attempt, sa.and_(is_original, row.c.state.in_(OWING)).label("large"))
                    .join(study, study.c.study_instance_uid == row.c.study_instance_uid)
                    .outerjoin(result, result.c.sop_instance_uid == row.c.sop_instance_uid)
                    .where(due, row.c.destination == destination, sa.or_(is_original, result_may_go))
                    .order_by(*((row.c.id,) if turns(self._handed_out[destination], 1) else (row.c.priority, row.c.id)))
                    .limit(BATCH)
                ).all()
                too_many = {one.id for one in [one for one in found if one.large][ORIGINALS:]}
                found = [one for one in found if one.id not in too_many]
                if found:
                    claim = Claim(new_workflow_id("delivery", found[0].id, found[0].attempt + 1), destination)
                    mine = row.c.id.in_([one.id for one in found])
                    values = {"workflow_id": claim.workflow_id, "claimed_at": now, "attempt": row.c.attempt + 1}
                    # Asked again under the row's lock: one that was settled meanwhile is nobody's work.
                    if connection.execute(sa.update(row).where(mine, due).values(**values)).rowcount:
                        claims.append(claim)
                        self._handed_out[destination] += 1
                if len(claims) >= room:
                    break
            return claims

    def batch(self, workflow_id: str, life: str = "") -> list[Delivery]:
        """The deliveries that a workflow holds, in version order; results of a study that was held meanwhile go back, and so does what was
        cancelled.

        `life` of a process has them in hand from now on: should it die, it may have been over them.
        """
        row, result, study, version, image = tables.delivery, tables.result_object, tables.study, tables.version, tables.instance
        mine = row.c.workflow_id == workflow_id
        with self._engine.begin() as connection:
            of_held = row.c.study_instance_uid.in_(sa.select(study.c.study_instance_uid).where(study.c.state == StudyState.HELD))
            held = sa.and_(row.c.instance_id.is_(None), of_held)
            # What was cancelled is not on its way, or no longer: whoever had begun it is this workflow.
            connection.execute(sa.update(row).where(mine, sa.or_(held, row.c.state == _S.CANCELLED)).values(workflow_id=None))
            connection.execute(sa.update(row).where(mine).values(begun_by=life))
            found = connection.execute(
                sa.select(
                    row.c.id,
                    row.c.destination,
                    row.c.state,
                    row.c.study_instance_uid,
                    sa.func.coalesce(result.c.series_instance_uid, image.c.series_instance_uid),
                    row.c.sop_instance_uid,
                    sa.func.coalesce(result.c.file_name, image.c.file_name, ""),
                    version.c.outcome,
                    row.c.instance_id,
                )
                .outerjoin(result, result.c.sop_instance_uid == row.c.sop_instance_uid)
                .outerjoin(version, version.c.id == result.c.version_id)
                .outerjoin(image, image.c.id == row.c.instance_id)
                .where(mine)
                .order_by(row.c.id)
            ).all()
            return [
                Delivery(one[0], one[1], DeliveryState(one[2]), *one[3:7], one[7] == Outcome.WITHDRAWN, one[8] is not None) for one in found
            ]

    def begin(self, deliveries: Sequence[Delivery], workflow_id: str, *, checked: bool) -> list[Delivery]:
        """Those of one study's deliveries that may leave now, as `sending`; no results of a held study, and nothing cancelled meanwhile.

        `checked`: the destination was asked whose study it is, and agrees.
        """
        if not deliveries:
            return []
        row = tables.delivery
        with self._engine.begin() as connection:
            now = self._clock(connection)
            [uid] = {one.study_instance_uid for one in deliveries}
            try:
                study = lock_study(connection, uid)
            except UnknownStudy:
                return []  # forgotten at this very moment; what else is in the batch goes
            mine = sa.and_(row.c.id.in_([one.delivery_id for one in deliveries]), row.c.workflow_id == workflow_id)
            if StudyState(study.state) is StudyState.HELD:
                connection.execute(sa.update(row).where(mine, row.c.instance_id.is_(None)).values(workflow_id=None))
            values: dict[str, Any] = {"state": _S.SENDING, "patient_check": "agrees" if checked else "unchecked"}
            if checked:
                values["checked_at"] = now
            connection.execute(sa.update(row).where(mine, row.c.state.in_(OWING)).values(**values))
            going = set(connection.execute(sa.select(row.c.id).where(mine, row.c.state == _S.SENDING)).scalars())
            return [one for one in deliveries if one.delivery_id in going]

    # ------------------------------------------------------------------------------------------------------- whose study it is

    def compare(self, delivery: Delivery, theirs: Sequence[Mapping[str, str]]) -> Verdict:
        """Act on what a destination says of the study's patient before `delivery` leaves: an entry for each patient it has the study under.

        Corrected values are remembered, what waits under the old ones is cancelled, and a new version is asked for, which costs no
        inference. Another patient holds the study. In both cases nothing of the study leaves now.
        """
        with self._engine.begin() as connection:
            now = self._clock(connection)
            study = lock_study(connection, delivery.study_instance_uid)
            row = tables.result_object
            header = connection.execute(sa.select(row.c.header).where(row.c.sop_instance_uid == delivery.sop_instance_uid)).scalar_one()
            correction = Correction.stored(study.correction)
            ours = carried(header)
            found = min((compare(ours, one) for one in theirs), key=lambda one: list(Verdict).index(one.verdict))
            if found.verdict is Verdict.AGREES or found.said in correction.accepted:
                return Verdict.AGREES
            if StudyState(study.state) is StudyState.HELD:
                return Verdict.ANOTHER
            if study.state == StudyState.WITHDRAWN:
                return Verdict.AGREES  # what was to leave is cancelled; a correction would cancel what takes back the rest
            if found.verdict is Verdict.CORRECTED and not self._in_vain(connection, delivery, correction, found):
                self._correct(connection, study, delivery.destination, correction, found, now)
                return Verdict.CORRECTED
            of = _demographics(connection, delivery.study_instance_uid)
            disputed = correction.disputed(delivery.destination, found, of)
            stored = [{"reason": disputed.doubt, "choices": ["--accept-patient", "--patient-from-pacs"]}]
            move(connection, study, Event.DOUBT, disputed.doubt, now, doubts=stored, correction=asdict(disputed))
            return Verdict.ANOTHER

    def _in_vain(self, connection: sa.Connection, delivery: Delivery, correction: Correction, found: Comparison) -> bool:
        """Whether these values were taken over already, and the result that was made then still does not carry them: it cannot."""
        known = all(correction.values.get(keyword) == value for keyword, value in found.differing.items())
        version, result = tables.version, tables.result_object
        newest = (
            sa.select(version.c.id)
            .where(version.c.study_instance_uid == delivery.study_instance_uid)
            .order_by(version.c.number.desc())
            .limit(1)
            .scalar_subquery()
        )
        row = tables.decision
        answered = sa.select(row.c.id).where(
            row.c.study_instance_uid == delivery.study_instance_uid, row.c.kind == RequestKind.CORRECT, row.c.applied_at.is_(None)
        )
        current = sa.select(result.c.version_id).where(
            result.c.sop_instance_uid == delivery.sop_instance_uid, result.c.version_id == newest
        )
        settled = connection.execute(answered).first() is None
        return known and settled and connection.execute(current).first() is not None

    def _correct(
        self,
        connection: sa.Connection,
        study: sa.Row[Any],
        destination: str,
        correction: Correction,
        found: Comparison,
        now: datetime,
    ) -> None:
        uid = study.study_instance_uid
        values = correction.corrected(found.differing, _demographics(connection, uid))
        row, asked = tables.delivery, tables.decision
        connection.execute(
            sa.update(row)
            .where(row.c.study_instance_uid == uid, row.c.instance_id.is_(None), row.c.state.in_(OWING))
            .values(state=_S.CANCELLED, due_at=None, reason=f"{destination} has corrected the patient: a new version follows")
        )
        request = {"request_id": uuid.uuid4().hex, "study_instance_uid": uid, "kind": RequestKind.CORRECT, "person": destination}
        connection.execute(sa.insert(asked).values(**request, created_at=now))
        change_study(connection, uid, correction=asdict(values), corrected_by=destination, generation=study.generation + 1)
        say(connection, uid, now, f"{destination} has corrected {', '.join(sorted(found.differing))}", "the result is written anew")

    def give_back(self, workflow_id: str, study_instance_uid: str) -> None:
        """What a workflow holds of one study is nobody's: it was cancelled, or waits until the study is no longer held."""
        row = tables.delivery
        with self._engine.begin() as connection:
            lock_study(connection, study_instance_uid)
            mine = sa.and_(row.c.workflow_id == workflow_id, row.c.study_instance_uid == study_instance_uid)
            connection.execute(sa.update(row).where(mine, row.c.state.in_((_S.WAITING, _S.CANCELLED))).values(workflow_id=None))

    # What is settled by another workflow than the row's (`workflow_id`, when it is given) was taken over: only arrival counts then.

    def sent(
        self, delivery_id: int, status: int | None, reason: str, *, ask: bool, hold: bool = False, workflow_id: str | None = None
    ) -> float:
        """The destination answered Success; seconds since the delivery was made.

        `ask`: it shall be asked whether it has the object; `hold`: by this workflow, which goes on holding it.
        """
        seconds = 0.0 if ask else None
        return self._settle(delivery_id, _S.SENT, status, reason, workflow_id=workflow_id, retry_seconds=seconds, hold=hold)

    def refused(self, delivery_id: int, status: int | None, reason: str, *, workflow_id: str | None = None) -> None:
        """It will not go well until somebody changes something: stop at once and say what."""
        self._settle(delivery_id, _S.REFUSED, status, reason, workflow_id=workflow_id, retry_seconds=None)

    def not_sent(self, delivery_id: int, status: int | None, reason: str, *, retry_days: float, workflow_id: str | None = None) -> None:
        """It may go well later: try again with growing pauses, until `retry_days` after the delivery was made."""
        seconds = FIRST_RETRY_SECONDS
        self._settle(delivery_id, _S.WAITING, status, reason, workflow_id=workflow_id, retry_seconds=seconds, retry_days=retry_days)

    def confirmed(self, delivery_id: int, *, workflow_id: str | None = None) -> None:
        """The destination found the object when asked. That proves the UID, not the bytes."""
        self._settle(delivery_id, _S.CONFIRMED, None, "", workflow_id=workflow_id, retry_seconds=None)

    def not_confirmed(self, delivery_id: int, reason: str, *, workflow_id: str | None = None) -> None:
        """The destination did not find it: ask again a few times, then leave it as sent."""
        seconds = FIRST_RETRY_SECONDS
        self._settle(delivery_id, _S.SENT, None, reason, workflow_id=workflow_id, retry_seconds=seconds, confirming=True)

    def retry(
        self,
        *,
        person: str,
        why: str = "",
        delivery_ids: Sequence[int] = (),
        states: Sequence[DeliveryState] = (),
        destination: str = "",
        study_instance_uid: str = "",
    ) -> tuple[int, list[str]]:
        """Put deliveries that were given up back into the outbox: those named, or all in `states`; only of a destination or study if given.

        How many, and why others were not. Only the newest version of a study is sent again, and none that was withdrawn; of the originals
        those that are still kept.
        """
        row, result, version, study, image = tables.delivery, tables.result_object, tables.version, tables.study, tables.instance
        wanted: sa.ColumnElement[bool] = row.c.id.in_(delivery_ids) if delivery_ids else row.c.state.in_(states)
        if destination:
            wanted = sa.and_(wanted, row.c.destination == destination)
        if study_instance_uid:
            wanted = sa.and_(wanted, row.c.study_instance_uid == study_instance_uid)
        with self._engine.begin() as connection:
            now = self._clock(connection)
            uids = connection.execute(sa.select(row.c.study_instance_uid).where(wanted).distinct()).scalars().all()
            # Locked in one order: two people at once must not wait for each other.
            connection.execute(
                sa.select(study.c.study_instance_uid)
                .where(study.c.study_instance_uid.in_(uids))
                .order_by(study.c.study_instance_uid)
                .with_for_update()
            )
            newer = version.alias()
            newest = sa.select(sa.func.max(newer.c.number)).where(newer.c.study_instance_uid == row.c.study_instance_uid).scalar_subquery()
            found = connection.execute(
                sa.select(
                    row,
                    version.c.number,
                    version.c.outcome,
                    study.c.state.label("study_state"),
                    newest.label("newest"),
                    image.c.file_name.label("image_file"),
                )
                .outerjoin(result, result.c.sop_instance_uid == row.c.sop_instance_uid)
                .outerjoin(version, version.c.id == result.c.version_id)
                .outerjoin(image, image.c.id == row.c.instance_id)
                .join(study, study.c.study_instance_uid == row.c.study_instance_uid)
                .where(wanted)
                .order_by(row.c.id)
            ).all()
            refused = [f"{number}: no such delivery" for number in delivery_ids if number not in {one.id for one in found}]
            done = 0
            for one in found:
                if complaint := _cannot_retry(one):
                    refused.append(f"{one.id}: {complaint}")
                    continue
                values = {"state": _S.WAITING, "due_at": now, "created_at": now, "tries": 0, "confirm_tries": 0, "reason": ""}
                connection.execute(sa.update(row).where(row.c.id == one.id).values(**values))
                say(
                    connection, one.study_instance_uid, now, f"{one.destination}: {one.sop_instance_uid} will be sent again ({person})", why
                )
                done += 1
            if done:
                said = {"deliveries": done, "destination": destination, "states": [str(state) for state in states]}
                acts.record(connection, now, person=person, what="retry deliveries", why=why, parameters=said)
            return done, refused

    def _settle(
        self,
        delivery_id: int,
        state: DeliveryState,
        status: int | None,
        reason: str,
        *,
        workflow_id: str | None,
        retry_seconds: float | None,
        retry_days: float | None = None,
        confirming: bool = False,
        hold: bool = False,
    ) -> float:
        row = tables.delivery
        with self._engine.begin() as connection:
            now = self._clock(connection)
            uid = connection.execute(sa.select(row.c.study_instance_uid).where(row.c.id == delivery_id)).scalar_one_or_none()
            if uid is None:
                return 0.0  # its study was forgotten
            try:
                lock_study(connection, uid)
            except UnknownStudy:
                return 0.0  # at this very moment
            before = connection.execute(sa.select(row).where(row.c.id == delivery_id).with_for_update()).one()
            mine = workflow_id in (None, before.workflow_id)
            arrived = state is _S.CONFIRMED or (state is _S.SENT and not confirming)
            if not mine and not arrived:
                return 0.0
            freed = {"workflow_id": None if mine else before.workflow_id}
            if state not in TRANSITIONS[DeliveryState(before.state)]:
                # Cancelled while it was on its way, and it did not arrive, or settled by another: it stays so.
                connection.execute(sa.update(row).where(row.c.id == delivery_id).values(**freed))
                return 0.0
            values: dict[str, object] = {**({} if hold else freed), "state": state, "due_at": None, "reason": reason}
            if status is not None:
                values["status"] = status
            if confirming:
                tries = before.confirm_tries + 1
                values["confirm_tries"] = tries
                if tries >= CONFIRM_TRIES:
                    retry_seconds = None
            elif state in (_S.WAITING, _S.SENT, _S.REFUSED):
                tries = before.tries + 1
                values["tries"] = tries
            else:
                tries = 0
            if retry_days is not None and now > before.created_at + timedelta(days=retry_days):
                state = _S.EXPIRED
                values |= {"state": state, "reason": f"gave up after {retry_days:g} days; last: {reason}"}
            elif retry_seconds is not None:
                values["due_at"] = now + timedelta(seconds=_pause(retry_seconds, tries, delivery_id))
            if state is _S.SENT and not confirming:
                values["sent_at"] = now
            if state is _S.CONFIRMED:
                values["confirmed_at"] = now
            connection.execute(sa.update(row).where(row.c.id == delivery_id).values(**values))
            if (str(state), reason) != (before.state, before.reason):
                line = f"{before.destination}: {before.sop_instance_uid} {state}"
                say(connection, before.study_instance_uid, now, line, reason if state is not _S.SENT else "")
            return float((now - before.created_at).total_seconds())


def forward(connection: sa.Connection, study_instance_uid: str, destination: str, images: Sequence[sa.Row[Any]], now: datetime) -> None:
    """Put images (rows of instances) in the outbox as they were received.

    What the destination was to get before under the same SOP Instance UID is not sent there again, from whatever file or study.
    """
    going, study = 0, tables.study
    of_study = connection.execute(sa.select(study.c.priority).where(study.c.study_instance_uid == study_instance_uid)).scalar_one()
    due = {"state": _S.WAITING, "due_at": now, "created_at": now, "priority": of_study + AFTER_RESULTS}
    for one in images:
        key = {"sop_instance_uid": one.sop_instance_uid, "destination": destination}
        values = {"instance_id": one.id, "size_bytes": one.size_bytes, "study_instance_uid": study_instance_uid}
        if insert_or_ignore(connection, tables.delivery, {**key, **values, **due}):
            going += 1
        else:
            why = "another file of it was forwarded before; if this one shall stand there, send it from its source"
            say(connection, study_instance_uid, now, f"{one.sop_instance_uid} is not forwarded to {destination} again", why)
    if going:
        say(connection, study_instance_uid, now, f"forwarded to {destination}: {going} of the images")


def take_back(connection: sa.Connection, workflow_ids: Sequence[str], now: datetime) -> int:
    """Deliveries that a workflow held and did not settle are due again in a while; how many. What was begun may have arrived."""
    row = tables.delivery
    held = row.c.workflow_id.in_(workflow_ids)
    taken = connection.execute(sa.select(row.c.id, row.c.state, row.c.tries).where(held)).all()
    for one in taken:
        # Not at once, and later each time: whatever ended the workflow may end the next one too.
        tries = one.tries + (one.state == _S.SENDING)
        due_at = now + timedelta(seconds=_pause(STALLED_SECONDS, tries, one.id)) if one.state in (*OWING, _S.SENT) else None
        connection.execute(sa.update(row).where(row.c.id == one.id).values(workflow_id=None, due_at=due_at, tries=tries))
    return len(taken)


def _cannot_retry(one: sa.Row[Any]) -> str:
    """Why a delivery cannot be put back into the outbox; "" when it can."""
    if one.state not in GIVEN_UP:
        return f"it is {one.state}, so there is nothing to try again"
    if one.instance_id is not None:
        return "" if one.image_file else "its image is no longer kept here: send it from its source"
    if one.number != one.newest:
        return f"it is of version {one.number}, and version {one.newest} stands"
    if one.study_state == StudyState.WITHDRAWN and one.outcome != Outcome.WITHDRAWN:
        return "its study is withdrawn"
    return ""


def _demographics(connection: sa.Connection, study_instance_uid: str) -> list[str]:
    """Digests of the patient and study values that the images of a study name, those that people had read on demand apart."""
    row = tables.instance
    sent = sa.and_(row.c.study_instance_uid == study_instance_uid, row.c.disposition != Disposition.ON_DEMAND)
    query = sa.select(row.c.demographics).where(sent, row.c.demographics != "").distinct()
    return list(connection.execute(query).scalars())


def _pause(first: float, tries: int, delivery_id: int) -> float:
    """Seconds before the next try: doubled each time, with up to a quarter more so that many deliveries do not knock at once."""
    pause = min(first * 2.0 ** min(max(tries - 1, 0), 20), LONGEST_RETRY_SECONDS)
    return pause * (1 + int(digest("pause", str(delivery_id), str(tries))[:4], 16) / 0xFFFF / 4)
