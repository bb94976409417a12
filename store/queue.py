"""What waits to be read, in which order: how a study comes to its place in the queue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from store import tables
from store.database import one_at_a_time
from store.pace import BEHIND, Standing

#: What a pace is counted in.
HOUR = timedelta(hours=1)
#: So many images of the queue are looked through; of what is behind them only that is said.
MOST = 10_000


def count(connection: sa.Connection, study: sa.Row[Any], ae_title: str, per_hour: int) -> Standing:
    """Count a study, which the caller has locked, for its sender: whether fewer than `per_hour` that are within the pace began in the hour
    before it. The caller writes the answer down before its transaction ends; until then no other study of that sender is counted."""
    one_at_a_time(connection, f"pace of {ae_title}")
    row = tables.study
    before = study.first_instance_at
    mine = sa.and_(tables.PACED_STUDY, row.c.pace == Standing.WITHIN, row.c.paced_by == ae_title)
    met = (mine, row.c.first_instance_at > before - HOUR, row.c.first_instance_at <= before)
    begun = sa.select(sa.literal(1)).select_from(row).where(*met).limit(per_hour).subquery()
    found = connection.execute(sa.select(sa.func.count()).select_from(begun)).scalar_one()
    return Standing.WITHIN if found < per_hour else Standing.ABOVE


def places(connection: sa.Connection, study_instance_uids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Where studies stand in the queue of images that wait to be read, of those that stand in it: how many of their `images` wait, how many
    of others come `before` the first of them (None: more than `MOST`), at which `priority` (0: a person waits for it) and whether that is
    `behind` all that is within its sender's pace; `begun`: a worker has one in hand.

    Every tenth image is the oldest one whatever its priority, so a place says how it stands now and not when its turn comes.
    """
    row = tables.score
    # In words that leave it at the study's index: that of states would give all that wait.
    mine = sa.and_(row.c.study_instance_uid.in_(study_instance_uids), row.c.state.concat("") == "waiting", row.c.background.is_(sa.false()))
    waiting = connection.execute(sa.select(row.c.study_instance_uid, row.c.priority, row.c.id, row.c.workflow_id).where(mine)).all()
    if not waiting:
        return {}
    found: dict[str, dict[str, Any]] = {}
    firsts: dict[int, str] = {}
    for uid in dict.fromkeys(one.study_instance_uid for one in waiting):
        images = [one for one in waiting if one.study_instance_uid == uid]
        free = sorted((one.priority, one.id) for one in images if one.workflow_id is None)
        begun = len(free) < len(images)
        priority = min(one.priority for one in images)
        behind = priority > BEHIND
        at = {"priority": priority - BEHIND if behind else priority, "behind": behind}
        found[uid] = {"images": len(images), "before": 0 if begun else None, "begun": begun, **at}
        if not begun:
            firsts[free[0][1]] = uid
    for score_id, before in _before(connection, list(firsts)).items():
        found[firsts[score_id]]["before"] = before
    return found


def _before(connection: sa.Connection, score_ids: Sequence[int]) -> dict[int, int]:
    """How many images come before each of these, as far as `MOST` go."""
    if not score_ids:
        return {}
    row = tables.score
    order = (row.c.priority, row.c.id)
    queue = sa.select(row.c.id, row.c.priority).where(tables.FREE_SCORE, row.c.background.is_(sa.false())).order_by(*order).limit(MOST)
    one = queue.subquery()
    place = sa.func.row_number().over(order_by=(one.c.priority, one.c.id)).label("place")
    placed = sa.select(one.c.id, place).subquery()
    query = sa.select(placed.c.id, placed.c.place).where(placed.c.id.in_(score_ids))
    return {found.id: found.place - 1 for found in connection.execute(query).all()}
