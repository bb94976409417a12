"""By which engine this installation computes its models: settled once and recorded, since the engine is part of every score's identity.

A package that is installed later, another host or another release must not change what comes out without anybody's word. Two things are
recorded in the table `installation`: what `auto` means here, and of each model's weights whether OpenVINO may read them (`Verdict`).
Whoever is first settles it for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from store import acts, tables
from store.database import database_now, insert_or_ignore, one_at_a_time

_AUTO = "engine"
_VERDICT = "openvino "
#: So much of a SHA-256 tells the weights of one installation apart.
_DIGITS = 40
_AGREES = "agrees"


@dataclass(frozen=True)
class Verdict:
    """What came of the comparison of OpenVINO with torch over one model's weights."""

    agrees: bool
    reason: str = ""  # why it was refused


@dataclass(frozen=True)
class EngineRecord:
    """What is settled."""

    auto: str = ""  # "torch" | "openvino"; "": no worker has started yet
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)  # by the first digits of the weights' SHA-256

    def verdict(self, weights_sha256: str) -> Verdict | None:
        """Of these weights; None when they were not compared yet."""
        return self.verdicts.get(weights_sha256[:_DIGITS])


def read_record(connection: sa.Connection) -> EngineRecord:
    """What is settled at this moment."""
    row = tables.installation
    ours = sa.or_(row.c.name == _AUTO, row.c.name.startswith(_VERDICT, autoescape=True))
    found = {one.name: one.value for one in connection.execute(sa.select(row.c.name, row.c.value).where(ours)).all()}
    auto = found.pop(_AUTO, "")
    return EngineRecord(auto, {name.removeprefix(_VERDICT): _verdict(value) for name, value in found.items()})


def _verdict(value: str) -> Verdict:
    return Verdict(True) if value == _AGREES else Verdict(False, value)


class Engines:
    """The engines of one installation. Each public method is one transaction."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[sa.Connection], datetime] = database_now) -> None:
        self._engine = engine
        self._clock = clock

    def record(self) -> EngineRecord:
        """What is settled."""
        with self._engine.begin() as connection:
            return read_record(connection)

    def settle_auto(self, here: str, *, process: str) -> EngineRecord:
        """Record that `auto` means `here`, unless it is recorded; torch where images were read by torch already: an upgrade changes no
        score."""
        with self._engine.begin() as connection:
            one_at_a_time(connection, "engine")
            found = read_record(connection)
            if found.auto:
                return found
            why = "read by torch before engines were recorded" if here != "torch" and _read_by_torch(connection) else ""
            self._write(connection, _AUTO, "torch" if why else here, process, why)
            return read_record(connection)

    def settle_weights(self, weights_sha256: str, verdict: Verdict, *, process: str) -> Verdict:
        """Record the verdict over these weights unless there is one; returns the one that stands."""
        with self._engine.begin() as connection:
            one_at_a_time(connection, "engine")
            stands = read_record(connection).verdict(weights_sha256)
            if stands is not None:
                return stands
            value = _AGREES if verdict.agrees else verdict.reason
            self._write(connection, _VERDICT + weights_sha256[:_DIGITS], value, process, "")
            return verdict

    def switch(self, auto: str, *, person: str, why: str = "") -> EngineRecord:
        """A person says what `auto` means from now on; the weights are compared anew. Returns what was settled before."""
        with self._engine.begin() as connection:
            one_at_a_time(connection, "engine")
            before = read_record(connection)
            row = tables.installation
            connection.execute(sa.delete(row).where(sa.or_(row.c.name == _AUTO, row.c.name.startswith(_VERDICT, autoescape=True))))
            self._write(connection, _AUTO, auto, person, why)
            return before

    def _write(self, connection: sa.Connection, name: str, value: str, person: str, why: str) -> None:
        insert_or_ignore(connection, tables.installation, {"name": name, "value": value})
        acts.record(connection, self._clock(connection), person=person, what="engine", why=why, parameters={name: value})


def _read_by_torch(connection: sa.Connection) -> bool:
    row = tables.score
    query = sa.select(row.c.id).where(row.c.model["engine"].as_string() == "torch").limit(1)
    return connection.execute(query).first() is not None
