"""What is known here of a study that a PACS holds: whether its instances came, what became of it, whether it was forgotten."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from store import tables
from store.database import database_now
from store.forget import forgotten
from store.images import Disposition
from store.study import StudyState

#: So many values stand in one condition: SQLite takes 32,766, and a study seldom has a hundred instances.
_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a study. `state` is None when nothing of it ever came."""

    state: StudyState | None
    rule: str  # that spoke for it last; "" before any did
    forgotten: bool
    instances: frozenset[str]  # those SOP Instance UIDs that were asked for and are known
    on_demand: frozenset[str] = frozenset()  # those that were not sent here, but a person had them read


class Accounting:
    """Questions about what came and what did not. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock

    def now(self) -> datetime:
        """The database's clock, aware UTC."""
        with self._engine.begin() as connection:
            return self._clock(connection)

    def known(self, study_instance_uid: str, sop_instance_uids: Collection[str]) -> Known:
        """What is known of a study and of these instances of it, kept or ignored; our own results count as known."""
        study, instance, result = tables.study, tables.instance, tables.result_object
        wanted = sorted(set(sop_instance_uids))
        with self._engine.begin() as connection:
            row = connection.execute(
                sa.select(study.c.state, study.c.rule_name).where(study.c.study_instance_uid == study_instance_uid)
            ).first()
            found: set[str] = set()
            on_demand: set[str] = set()
            read = instance.c.disposition == Disposition.ON_DEMAND
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                for table, which, into in ((instance, sa.not_(read), found), (instance, read, on_demand), (result, sa.true(), found)):
                    mine = sa.and_(table.c.study_instance_uid == study_instance_uid, table.c.sop_instance_uid.in_(some), which)
                    into.update(connection.execute(sa.select(table.c.sop_instance_uid).where(mine)).scalars())
            return Known(
                state=StudyState(row.state) if row is not None else None,
                rule=row.rule_name if row is not None else "",
                forgotten=forgotten(connection, study_instance_uid),
                instances=frozenset(found),
                on_demand=frozenset(on_demand - found),
            )
