"""What the death of a process counts against what it had in hand: images that it read, studies that it looked at or reported.
The rule stands here and nowhere else.

Just before an image is decoded or a study is looked at or reported, its row notes which life of which process begins it (`begun_by`);
settling the row clears the note. A life is `{process}/{random}`: a process has the same name after a restart, a life ends with it.

* **A worker died alone**: its supervisor (`serve` or `work`) saw it die, lives on, and says so at once (`died`). Whatever the dead life had
  begun is a suspect from then on, and is done alone: no image and no study beside it in its worker. The first death makes a suspect of
  each, and counts one for each; later ones count only while it was alone. After `CRASHES` of them an image fails, and a study is held. So
  an innocent neighbour of a deadly image never fails: it is read alone next, and that goes well.
* **Everything died** (the host, the whole service, `kill -9` of the supervisor, a power cut): nobody saw it. The image is found begun by
  a life that has ended; only `attempt` counts. From `EXPIRED_ATTEMPTS` on it is read alone, and fails after as many more: an image that
  takes the whole host with it must end some time.
* **A worker was told to stop** (SIGTERM): it finishes or hands back what it has, and ends by itself: nothing counts.
* **A worker froze**, its lease ended, another took over: like "everything died".

What was handed out and not begun costs nothing at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from store import tables
from store.archive import give_up
from store.rows import change_study, lock_studies
from store.scoring import EXPIRED_ATTEMPTS, RETRY_SECONDS, fail_for_good

#: An image over which a worker died alone this often fails.
CRASHES = 3

_ROW = tables.score
_STUDY = tables.study
_WAITS = _ROW.c.state == "waiting"


def died(connection: sa.Connection, life: str, now: datetime) -> int:
    """The worker whose life ends in `/{life}` died alone; how many images and studies it had begun."""

    def by_it(row: sa.Table) -> sa.ColumnElement[bool]:
        return sa.and_(row.c.begun_by.is_not(None), row.c.begun_by.endswith(f"/{life}", autoescape=True))

    looked_at = connection.execute(sa.select(_STUDY.c.study_instance_uid).where(by_it(_STUDY))).scalars().all()
    images = _locked(connection, by_it(_ROW), looked_at)
    studies = connection.execute(sa.select(_STUDY).where(by_it(_STUDY)).order_by(_STUDY.c.study_instance_uid)).all()
    # What was being sent counts nothing itself (it waits longer each time), but whatever was in hand beside it was not alone.
    sending = sa.select(tables.delivery.c.id).where(tables.delivery.c.workflow_id.is_not(None), by_it(tables.delivery)).limit(1)
    alone = len(images) + len(studies) == 1 and connection.execute(sending).first() is None

    def counted(one: sa.Row[Any]) -> tuple[int, datetime]:
        crashes = one.crashes + 1 if alone else max(one.crashes, 1)
        return crashes, now + timedelta(seconds=RETRY_SECONDS * 2**crashes)

    for one in images:
        crashes, due_at = counted(one)
        connection.execute(sa.update(_ROW).where(_ROW.c.id == one.id).values(crashes=crashes))
        if crashes >= CRASHES:
            fail_for_good(connection, one.id, f"its worker died {crashes} times while it read this image", now)
        else:
            _free(connection, one.id, due_at=due_at)
    for one in studies:
        crashes, due_at = counted(one)
        if crashes >= CRASHES:
            reason = f"its worker died {crashes} times over it; the log says how; `fourview reprocess` tries it again"
            give_up(connection, one, reason, now)
        else:
            # Its workflow is absent from now on, so what was open is open again; not at once, as with images.
            values = {"crashes": crashes, "workflow_id": None, "begun_by": None, "due_at": due_at, "settled_generation": one.generation}
            change_study(connection, one.study_instance_uid, **values)
    return len(images) + len(studies)


def take_back(connection: sa.Connection, workflow_ids: Sequence[str], reason: str, now: datetime) -> int:
    """Images of workflows that ended without settling them wait again; how many."""
    return _expire(connection, _locked(connection, _ROW.c.workflow_id.in_(workflow_ids)), reason, now)


def end_lives(connection: sa.Connection, process: str, now: datetime) -> int:
    """`process` starts anew: what an earlier life of it had begun waits again; how many images."""
    earlier = sa.and_(_ROW.c.begun_by.is_not(None), _ROW.c.begun_by.startswith(f"{process}/", autoescape=True))
    return _expire(connection, _locked(connection, earlier), "its worker ended", now)


def hand_back(connection: sa.Connection, life: str) -> int:
    """A worker that was told to stop gives back what it does not finish: as if it had never been begun; how many images."""
    begun = _locked(connection, _ROW.c.begun_by == life)
    for one in begun:
        _free(connection, one.id, attempt=max(one.attempt - 1, 0), due_at=None)
    return len(begun)


def _expire(connection: sa.Connection, rows: Sequence[sa.Row[Any]], reason: str, now: datetime) -> int:
    for one in rows:
        if one.begun_by is None:
            _free(connection, one.id, attempt=max(one.attempt - 1, 0))
        elif one.attempt >= 2 * EXPIRED_ATTEMPTS:
            fail_for_good(connection, one.id, f"it was begun {one.attempt} times and never finished ({reason})", now)
        else:
            _free(connection, one.id, due_at=now + timedelta(seconds=RETRY_SECONDS))
    return len(rows)


def _free(connection: sa.Connection, score_id: int, **values: Any) -> None:
    connection.execute(sa.update(_ROW).where(_ROW.c.id == score_id).values(workflow_id=None, begun_by=None, **values))


def _locked(connection: sa.Connection, which: sa.ColumnElement[bool], studies: Sequence[str] = ()) -> Sequence[sa.Row[Any]]:
    """The waiting images of a kind, after their studies (and other `studies`) were locked, in the order in which all do so."""
    wanted = sa.and_(which, _WAITS)
    of_images = connection.execute(sa.select(_ROW.c.study_instance_uid).where(wanted).distinct()).scalars()
    lock_studies(connection, {*of_images, *studies})
    return connection.execute(sa.select(_ROW).where(wanted).order_by(_ROW.c.id).with_for_update()).all()
