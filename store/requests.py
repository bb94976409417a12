"""What people ask of one study, as it is written down: once per request id, on the timeline, and in the record of what people did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from store import acts, tables
from store.database import insert_or_ignore
from store.rows import change_study, say


class AnotherRequest(Exception):
    """A request id under which something else was asked for already; the message says so."""


def ask(
    connection: sa.Connection,
    study: sa.Row[Any],
    now: datetime,
    *,
    request_id: str,
    kind: str,
    person: str,
    why: str,
    parameters: Mapping[str, Any] | None,
    by_default: Mapping[str, Any] | None = None,
    said: str = "",
    recorded: Mapping[str, Any] | None = None,
) -> bool:
    """Write down a request of a study whose lock is held, so that a worker looks at it; False when the same was asked before.

    `by_default`: stored with the parameters, but said by the configuration and not by the person, so that it may be another when the same
    is asked again. `said` stands behind the kind on the timeline; `recorded` outlives the study and so names no UID of it.
    Raises AnotherRequest.
    """
    uid = study.study_instance_uid
    values = {"request_id": request_id, "study_instance_uid": uid, "kind": kind, "person": person, "why": why}
    asked = {} if parameters is None else {"parameters": {**parameters, **(by_default or {})}}
    if not insert_or_ignore(connection, tables.decision, {**values, **asked, "created_at": now}):
        if not _is_same(connection, {"parameters": None, **values, **asked}, but=tuple(by_default or ())):
            raise AnotherRequest(f"the request id {request_id} stands for another request already: take a new one")
        return False
    change_study(connection, uid, generation=study.generation + 1)
    say(connection, uid, now, f"{person} asked to {kind}" + (f" {said}" if said else ""), why)
    acts.record(connection, now, person=person, what=kind, why=why, study_instance_uid=uid, parameters=recorded)
    return True


def refuse(connection: sa.Connection, study_instance_uid: str, now: datetime, request_id: str, kind: str, reason: str) -> None:
    """Answer a request at once."""
    row, answer = tables.decision, f"refused: {reason}"
    connection.execute(sa.update(row).where(row.c.request_id == request_id).values(applied_at=now, answer=answer))
    say(connection, study_instance_uid, now, kind, answer)


def _is_same(connection: sa.Connection, values: Mapping[str, Any], *, but: Sequence[str]) -> bool:
    """Whether what stands under a request id are these values of its row, `but` for these parameters."""
    row = tables.decision
    found = connection.execute(sa.select(*(row.c[name] for name in values)).where(row.c.request_id == values["request_id"])).one()
    stored, asked = dict(found._mapping), json.loads(json.dumps(values))  # as the database gives JSON back
    for one in (stored, asked):
        if one["parameters"] is not None:
            one["parameters"] = {name: value for name, value in one["parameters"].items() if name not in but}
    return bool(stored == asked)
