"""Images that are read because a person asked for it, not because they were sent: kept as instances of their study that no look at it sees.

They are scored, stored and shown, and nothing follows from them: no rule is asked, no slot filled, no version made, nothing sent. Such an
image that is sent afterwards, or whose study a person has sent, counts as received like any other; the score that it has is its score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from store import found_by, requests, tables
from store.database import database_now, insert_or_ignore
from store.forget import forgotten
from store.grouping import RequestKind
from store.images import Disposition
from store.look import AGAIN, FIRST, ask_for_score, header_columns, scores_from
from store.rows import CANNOT_KEEP, Busy, UnknownStudy, change_study, lock_study, say
from store.study import Policy, Scores, StudyState
from store.view import Resolved

if TYPE_CHECKING:
    from store.archive import Reception

ORIGIN = "on-demand"
_REASON = "read because a person asked; never sent here, and nothing is sent of it"
#: What stands in a study of which nothing else is here; it is no rule's word.
_STUDY_REASON = "nothing of it was sent here; images of it were read on demand"


class NotForReading(Exception):
    """An image that is not read, whoever asks; the text says why, in words without UIDs and names."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An image that was asked for. `linked`: its row links to the file that was kept; otherwise the caller removes that file."""

    score_id: int
    linked: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a score. `scores` is None and `failure` is empty while it waits."""

    scores: Scores | None
    failure: str  # why it could not be read


class OnDemand:
    """What people have read. Each public method is one transaction; `reader` never takes a lock."""

    def __init__(self, engine: sa.Engine, reader: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._reader = reader
        self._clock = clock

    def ask(self, reception: Reception, resolved: Resolved, packed: bytes | None, policy: Policy) -> Asked:
        """Keep an image that a person asked for and have it read before all others, by the model that reads its study.

        What was read already is not read again, unless it failed. Raises NotForReading, and Busy when the database cannot answer in time.
        """
        written: list[Asked] = []
        try:
            return self._ask(reception, resolved, packed, policy, written)
        except UnknownStudy as error:
            raise NotForReading("its study was forgotten at this moment") from error
        except CANNOT_KEEP as error:
            raise Busy.keeping(reception.sop_instance_uid, error, unsure=bool(written)) from error

    def _ask(self, reception: Reception, resolved: Resolved, packed: bytes | None, policy: Policy, written: list[Asked]) -> Asked:
        """`written` gets what is about to be committed with a link to the file: until then no row has one."""
        uid = reception.study_instance_uid
        with self._engine.begin() as connection:
            now = self._clock(connection)
            result = tables.result_object.c.sop_instance_uid
            if connection.execute(sa.select(result).where(result == reception.sop_instance_uid)).first():
                raise NotForReading("it is a result of Fourview, not an image to be read")
            begun = {"state": StudyState.IGNORED, "state_reason": _STUDY_REASON, "study_date": resolved.study_date}
            times = dict.fromkeys(("first_instance_at", "last_instance_at", "collecting_since"), now)
            names = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date")
            patient = {name: getattr(reception, name) for name in names} | {"last_hour": found_by.hour_of(now)}
            new_study = insert_or_ignore(connection, tables.study, {"study_instance_uid": uid, **begun, **times, **patient})
            study = lock_study(connection, uid)
            if new_study and forgotten(connection, uid):
                raise NotForReading("its study was forgotten here; `fourview forget --allow-again` lets it come again")
            if only_on_demand(connection, study):
                change_study(connection, uid, last_instance_at=now)  # retention counts from it; of other studies it is nobody's silence
                found_by.move(connection, study, now)
            instance_id, linked = _kept(connection, reception, resolved, packed, now)
            found_by.refresh(connection, uid)
            mine = policy.of(study.card)
            score_id, waits = _wanted(connection, uid, instance_id, mine)
            row = tables.instance
            if waits and not linked:
                values = {"file_name": reception.file_name, "pixels_removed_at": None}
                gone = sa.and_(row.c.id == instance_id, row.c.file_name.is_(None))
                linked = connection.execute(sa.update(row).where(gone).values(**values)).rowcount == 1
            asked = Asked(score_id=score_id, linked=linked)
            if linked:
                written.append(asked)  # the last statement: what comes is the commit
            return asked

    def send(
        self,
        study_instance_uid: str,
        *,
        request_id: str,
        person: str,
        why: str = "",
        send_to: Sequence[str] = (),
        otherwise: Sequence[str] = (),
    ) -> None:
        """Ask for a study's results to be sent, whatever the rules say of it; a worker applies and answers it.

        What was read of it on demand counts as received from now on; when pixels of that are gone, the request is refused at once. It is
        sent to `send_to` and where the study's rule sends it; to `otherwise`, which the configuration says, when neither names any. The
        same once more under that `request_id` is asked once, whatever `otherwise` is by then. Raises UnknownStudy, AnotherRequest.
        """
        row, kind = tables.instance, RequestKind.SEND
        with self._engine.begin() as connection:
            now = self._clock(connection)
            study = lock_study(connection, study_instance_uid)
            where, by_default = {"send_to": list(send_to)}, {"otherwise": list(otherwise)}
            said = f"to {', '.join(send_to)}" if send_to else ""
            who = {"request_id": request_id, "kind": kind, "person": person, "why": why}
            if not requests.ask(connection, study, now, **who, parameters=where, by_default=by_default, said=said, recorded=where):
                return
            if gone := _without_pixels(connection, study_instance_uid):
                reason = (
                    f"the pixels of {gone} of the images that were read on demand are no longer here: drop these images again, or fetch "
                    "them with `fourview reprocess --from-orthanc`"
                )
                requests.refuse(connection, study_instance_uid, now, request_id, kind, reason)
                return
            begins = only_on_demand(connection, study)
            read = sa.and_(row.c.study_instance_uid == study_instance_uid, row.c.disposition == Disposition.ON_DEMAND)
            values = {"disposition": Disposition.RECEIVED, "disposition_reason": "", "received_at": now}
            count = connection.execute(sa.update(row).where(read).values(**values)).rowcount
            if count:
                say(connection, study_instance_uid, now, f"{count} images that were read on demand count as received now")
                change_study(connection, study_instance_uid, **(beginning(now) if begins else {"last_instance_at": now}))
                found_by.move(connection, study, now)

    def answers(self, score_ids: Sequence[int]) -> dict[int, Answer]:
        """What came of these scores so far; one that is absent was forgotten with its study."""
        row = tables.score
        with self._reader.begin() as connection:
            found = connection.execute(sa.select(row.c.id, row.c.state, row.c.scores, row.c.error).where(row.c.id.in_(score_ids))).all()
        return {
            one.id: Answer(
                scores=scores_from(one.scores) if one.state == "scored" else None,
                failure=(one.error or "it could not be read") if one.state == "failed" else "",
            )
            for one in found
        }


def _kept(connection: sa.Connection, reception: Reception, resolved: Resolved, packed: bytes | None, now: datetime) -> tuple[int, bool]:
    """The instance's number, and whether its row is new and so links to the file."""
    row = tables.instance
    columns = {name: getattr(reception, name) for name in (column.name for column in row.c) if hasattr(reception, name)}
    read = header_columns(resolved, packed)
    what = {"disposition": Disposition.ON_DEMAND, "disposition_reason": _REASON, "origin": ORIGIN}
    inserted = insert_or_ignore(connection, row, {**columns, **read, **what, "received_at": now, "resolved_at": now})
    same = sa.and_(*(row.c[name] == columns[name] for name in ("study_instance_uid", "sop_instance_uid", "file_hash")))
    found = connection.execute(sa.select(row.c.id, row.c.header).where(same)).one()
    if inserted:
        text = f"{reception.modality} {reception.sop_instance_uid} is read on demand"
        say(connection, reception.study_instance_uid, now, text)
    elif found.header is None:
        # One that was only counted, or that no look has read yet: who reads it needs its header. Its look will take it in all the same.
        connection.execute(sa.update(row).where(row.c.id == found.id).values(**read))
    return found.id, inserted


def _wanted(connection: sa.Connection, study_instance_uid: str, instance_id: int, policy: Policy) -> tuple[int, bool]:
    """The number of the image's score by `policy`'s model, and whether it waits to be read; then it comes before all others."""
    row, image = tables.score, tables.instance
    mine = sa.and_(row.c.instance_id == instance_id, row.c.model_key == policy.model.key)
    ask_for_score(connection, study_instance_uid, instance_id, policy, priority=FIRST)
    found = connection.execute(
        sa.select(row.c.id, row.c.state, image.c.disposition).join(image, image.c.id == row.c.instance_id).where(mine)
    ).one()
    if found.state == "failed" and found.disposition == Disposition.ON_DEMAND:
        # The cause may be gone. What failed on the normal way is its study's: a person asks to reprocess that.
        connection.execute(sa.update(row).where(row.c.id == found.id).values(priority=FIRST, **AGAIN))
        return found.id, True
    waits = found.state == "waiting"
    if waits:
        connection.execute(sa.update(row).where(row.c.id == found.id).values(priority=FIRST))
    return found.id, waits


def _without_pixels(connection: sa.Connection, study_instance_uid: str) -> int:
    """How many of the images that were read on demand have no file any more, in no shape in which they came."""
    row = tables.instance
    query = sa.select(row.c.sop_instance_uid, row.c.file_name, row.c.disposition).where(row.c.study_instance_uid == study_instance_uid)
    found = connection.execute(query).all()
    here = {one.sop_instance_uid for one in found if one.file_name is not None}
    return len({one.sop_instance_uid for one in found if one.disposition == Disposition.ON_DEMAND} - here)


def beginning(now: datetime) -> dict[str, Any]:
    """Columns of a study that begins: its first image has come."""
    times = dict.fromkeys(("due_at", "first_instance_at", "last_instance_at", "collecting_since"), now)
    return {"state": StudyState.COLLECTING, "state_reason": "", "last_hour": found_by.hour_of(now), **times}


def only_on_demand(connection: sa.Connection, study: sa.Row[Any]) -> bool:
    """Whether nothing of a study was ever sent here: what is here of it, people had read."""
    if study.state != StudyState.IGNORED:
        return False
    row = tables.instance
    other = sa.select(row.c.id).where(row.c.study_instance_uid == study.study_instance_uid, row.c.disposition != Disposition.ON_DEMAND)
    return connection.execute(other.limit(1)).first() is None


def came_after_all(connection: sa.Connection, received: Mapping[str, Any]) -> bool:
    """An image that was read on demand is sent now: its row becomes that of a reception, with these values; whether there was such a row.

    A file that it had stays behind without a row, since a worker may be reading it; the janitor removes it.
    """
    row = tables.instance
    names = ("study_instance_uid", "sop_instance_uid", "file_hash")
    same = sa.and_(*(row.c[name] == received[name] for name in names), row.c.disposition == Disposition.ON_DEMAND)
    values = {**received, "pixels_removed_at": None}
    if received["file_name"] is None:
        del values["file_name"], values["pixels_removed_at"]  # only its row is kept of it: what it has goes when its time has come
    return connection.execute(sa.update(row).where(same).values(**values)).rowcount == 1
