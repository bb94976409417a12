"""Which images may lose their pixels, and which files no row links to. Rows, scores, results, previews and heat maps stay.

`let_go` commits before anybody unlinks: a file without a row is harmless, a row without a file is not. What is wanted is looked for by a
reader, so that the search never holds up reception; what is taken is looked at again under the lock of its study.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

import sqlalchemy as sa

from store import tables
from store.database import database_now
from store.ledger import DEAD, OWING, DeliveryState
from store.rows import say
from store.study import StudyState


class Why(Enum):
    """Why pixels may go."""

    AGE = "kept as long as the configuration says"
    EXPIRED = "a Key Object says not to keep them longer (Data Retention Policy Expired)"
    ROOM = "the volume needs room, and their results have arrived"


@dataclass(frozen=True)
class Gone:
    """A file that no row links to any more, to be removed by the caller."""

    file_name: str
    size_bytes: int


_DONE = (StudyState.ANALYSED, StudyState.IGNORED)
_UNFINISHED = (StudyState.HELD, StudyState.INCOMPLETE, StudyState.FAILED, StudyState.WITHDRAWN)


class Retention:
    """Each public method is one transaction. `reader` never takes a lock."""

    def __init__(
        self,
        engine: sa.Engine,
        reader: sa.Engine,
        *,
        keep_images_days: float,
        keep_unfinished_days: float,
        clock: Callable[[sa.Connection], datetime] = database_now,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._keep_images = timedelta(days=keep_images_days)
        self._keep_unfinished = timedelta(days=keep_unfinished_days)
        self._clock = clock

    def candidates(self, why: Why, limit: int) -> list[str]:
        """UIDs of studies of which something may go for this reason, those with the oldest images first; at most `limit`."""
        image, study = tables.instance, tables.study
        with self._reader.begin() as connection:
            now = self._clock(connection)
            # A correlated question for each image, oldest first, and not a join: the index of kept images gives the order.
            mine = study.c.study_instance_uid == image.c.study_instance_uid
            query = sa.select(image.c.study_instance_uid).where(
                image.c.file_name.is_not(None), self._image(why, now), sa.exists().where(mine, self._study(why, now))
            )
            found: dict[str, None] = {}
            # Studies have about four images, and one that is asked for once is enough.
            for uid in connection.execute(query.order_by(image.c.pixels_expire, image.c.received_at).limit(limit * 8)).scalars():
                found[uid] = None
            return list(found)[:limit]

    def let_go(self, why: Why, studies: Sequence[str]) -> list[Gone]:
        """Unlink the images of these studies from their rows, as far as they may still go; durable when it returns.

        A study that somebody else has locked at this moment stays as it is.
        """
        image, study = tables.instance, tables.study
        with self._engine.begin() as connection:
            now = self._clock(connection)
            key = study.c.study_instance_uid
            locked = connection.execute(sa.select(key).where(key.in_(studies)).with_for_update(skip_locked=True)).scalars().all()
            # Asked once they are locked: what waits to be read or sent is in rows of other tables, which came before the lock.
            free = connection.execute(sa.select(key).where(key.in_(locked), self._study(why, now))).scalars().all()
            gone: list[Gone] = []
            for uid in free:
                mine = [image.c.study_instance_uid == uid, image.c.file_name.is_not(None)]
                if why is Why.EXPIRED:
                    mine.append(image.c.pixels_expire.is_(sa.true()))
                found = connection.execute(sa.select(image.c.id, image.c.file_name, image.c.size_bytes).where(*mine)).all()
                if not found:
                    continue
                ids = [one.id for one in found]
                connection.execute(sa.update(image).where(image.c.id.in_(ids)).values(file_name=None, pixels_removed_at=now))
                say(connection, uid, now, f"pixels of {len(found)} images removed", why.value)
                self._end_forwarding(connection, ids)
                gone += [Gone(one.file_name, one.size_bytes) for one in found]
            return gone

    def _end_forwarding(self, connection: sa.Connection, instance_ids: Sequence[int]) -> None:
        """Nobody can send any more what was given up of these images: its alert would stand for ever."""
        row = tables.delivery
        dead = sa.and_(row.c.instance_id.in_(instance_ids), row.c.state.in_(DEAD))
        why = sa.literal("given up, and its image is no longer kept here; before: ") + row.c.reason
        connection.execute(sa.update(row).where(dead).values(state=DeliveryState.CANCELLED, reason=why))

    def unknown(self, names: Sequence[str]) -> set[str]:
        """Those of the `names` of kept files (at most a few hundred) that no row links to."""
        columns = (
            tables.instance.c.file_name,
            tables.score.c.preview_file,
            tables.score.c.heat_map_file,
            tables.result_object.c.file_name,
            tables.result_object.c.png_file,
        )
        with self._reader.begin() as connection:
            left = set(names)
            for column in columns:
                left.difference_update(connection.execute(sa.select(column).where(column.in_(sorted(left)))).scalars())
            return left

    def keeps_images(self) -> bool:
        """Whether any row links to the file of an image: then the spool cannot be a new, empty folder."""
        column = tables.instance.c.file_name
        with self._reader.begin() as connection:
            return connection.execute(sa.select(column).where(column.is_not(None)).limit(1)).first() is not None

    # ---------------------------------------------------------------------------------------------------------- conditions

    def _image(self, why: Why, now: datetime) -> sa.ColumnElement[bool]:
        """What an image of such a study must be, so that the index of kept images finds it."""
        image = tables.instance
        if why is Why.EXPIRED:
            return image.c.pixels_expire.is_(sa.true())
        # A study's last instance is never older than one of its images.
        youngest = now - min(self._keep_images, self._keep_unfinished) if why is Why.AGE else now
        return sa.and_(image.c.pixels_expire.is_(sa.false()), image.c.received_at <= youngest)

    def _study(self, why: Why, now: datetime) -> sa.ColumnElement[bool]:
        """What a study must be for its images to go: never one that is looked at, read, reported or owes a delivery."""
        study, score, delivery = tables.study, tables.score, tables.delivery
        state, last = study.c.state, study.c.last_instance_at
        read = sa.exists().where(score.c.study_instance_uid == study.c.study_instance_uid, score.c.state == "waiting")
        mine = delivery.c.study_instance_uid == study.c.study_instance_uid
        asked = sa.and_(delivery.c.state == DeliveryState.SENT, delivery.c.due_at.is_not(None))
        owed = sa.exists().where(mine, sa.or_(delivery.c.state.in_(OWING), asked))
        failed = sa.exists().where(mine, delivery.c.state.in_(DEAD))
        at_rest = sa.and_(
            study.c.workflow_id.is_(None),
            study.c.generation <= study.c.settled_generation,
            sa.or_(study.c.due_at.is_(None), study.c.due_at > now),
            sa.not_(read),
            sa.not_(owed),
        )
        done = sa.and_(state.in_(_DONE), sa.not_(failed))
        if why is Why.ROOM:
            return sa.and_(done, at_rest)
        if why is Why.EXPIRED:
            return sa.and_(state.in_((*_DONE, *_UNFINISHED)), at_rest)
        old_enough = sa.or_(
            sa.and_(done, last <= now - self._keep_images),
            sa.and_(state.in_((*_DONE, *_UNFINISHED)), last <= now - self._keep_unfinished),
        )
        return sa.and_(old_enough, at_rest)
