"""Studies as people look for them: line by line and page by page, the one that last received an instance first. Read-only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from store import queue, tables
from store.database import database_now
from store.found_by import LONGEST, What, hour_of
from store.keys import begins
from store.look import scores_from
from store.study import HANGING_ORDER, Outcome, StudyState

#: How far back `Listing.choices` looks.
LATELY = timedelta(days=90)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOST_CHOICES = 500
_NOW = 2**31 - 1  # an hour that never comes
#: How many rows one stretch of time is made of at most.
_WIDEST = 16_384
#: PostgreSQL takes month and hour for independent, expects many rows of what are few, and would read all studies for them.
_BY_INDEX = sa.select(*(sa.func.set_config(name, "off", True) for name in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit")))
#: More months than these are a condition that nearly every study meets.
_MONTHS = 240
#: A beginning of a Patient ID that so many studies share is nothing to look them up by.
_COMMON = 50_000


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which studies are looked for; "" and () are no condition."""

    states: tuple[str, ...] = ()
    study_date_from: str = ""  # YYYYMMDD, inclusive like the other end
    study_date_to: str = ""
    patient_id: str = ""  # as it came, or its beginning with "*" behind it
    predicted_class: str = ""  # of a view of the current version; a study that is withdrawn has none
    calling_ae_title: str = ""  # of a sender of the study
    device: str = ""  # Station Name or Manufacturer's Model Name of an image


@dataclass(frozen=True)
class Page:
    """A part of a listing; `next` is what `after` is for the part behind it, "" when there is none."""

    studies: list[dict[str, Any]]
    next: str


class Listing:
    """Each public method reads one state of the database."""

    def __init__(self, reader: sa.Engine) -> None:
        self._reader = reader

    def studies(self, wanted: Wanted, *, after: str = "", limit: int = 50) -> Page:
        """One line per study. Raises ValueError for an `after` that no page gave, and for a limit below 1.

        A study that receives an instance while somebody turns the pages moves to the front: it may come a second time, none is left out.
        Sender, device, class and date of a study are known once a worker has looked at it.
        """
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit}")
        place = _place(after) if after else None
        with self._reader.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(_BY_INDEX)
            rows = _found(connection, wanted, place, limit + 1)
            lines = _lines(connection, rows[:limit])
        return Page(lines, _cursor(lines[-1]) if len(rows) > limit else "")

    def choices(self) -> dict[str, list[str]]:
        """What there is to choose from lately: `calling_ae_titles`, `devices`, `classes`, each in the order of the alphabet."""
        names = {"calling_ae_titles": What.SENDER, "devices": What.DEVICE, "classes": What.CLASS}
        with self._reader.begin() as connection:
            since = hour_of(database_now(connection) - LATELY)
            found = {name: _values(connection, what, "", "", MOST_CHOICES) for name, what in names.items()}
        return {name: [value for value, newest in values if newest >= since] for name, values in found.items()}


# ------------------------------------------------------------------------------------------------------------------- looking for


#: (the hour from which to go back, how many rows) -> a question for the hours back to which there are so many, of each value one.
_Hours = Callable[[int, int], sa.Select[Any]]


@dataclass(frozen=True, kw_only=True)
class _Way:
    """Rows of the studies that meet one condition, which an index gives newest first for each value of that condition."""

    row: sa.Table  # `study` or `found_by`
    met: tuple[sa.ColumnElement[bool], ...]
    hours: _Hours

    def back_to(self, connection: sa.Connection, hour: int, width: int) -> int | None:
        """The hour back to which, from `hour` on, there are about `width` rows or more; None when there are fewer."""
        found = connection.execute(self.hours(hour, width)).all()
        return max((one for row in found for one in row if one is not None), default=None)

    def between(self, hour: int, back: int | None) -> list[sa.ColumnElement[bool]]:
        """The rows of these hours."""
        last = self.row.c.last_hour
        return [*self.met, last <= hour, *([] if back is None else [last >= back])]


def _of(row: sa.FromClause, *met: sa.ColumnElement[bool]) -> _Hours:
    """Of rows that need not be told apart."""

    def hours(hour: int, width: int) -> sa.Select[Any]:
        last = row.c.last_hour
        return sa.select(last).where(*met, last <= hour).order_by(last.desc()).offset(width).limit(1)

    return hours


def _of_states(states: Iterable[str]) -> _Hours:
    row = tables.study

    def hours(hour: int, width: int) -> sa.Select[Any]:
        return sa.select(*(_of(row, row.c.state == one)(hour, width).scalar_subquery() for one in states))

    return hours


def _of_months(low: str, high: str) -> _Hours:
    """The rows of all months together would have to be sorted: so a step for each month, in one question."""

    def hours(hour: int, width: int) -> sa.Select[Any]:
        row = tables.found_by
        month, within = _each_value(What.MONTH, low, high)
        each = _of(row, row.c.what == What.MONTH, row.c.value == month)(hour, width // 2)  # most came one after the other
        return sa.select(each.scalar_subquery()).where(*within)

    return hours


def _found(connection: sa.Connection, wanted: Wanted, place: tuple[datetime, str] | None, limit: int) -> list[sa.Row[Any]]:
    """Rows of `study`, newest first.

    It goes back in time, a stretch at a time. In each it looks through the rows of that condition which is the rarest there, and asks of
    these what else is wanted; so neither what is rare nor what is long past costs a walk through all the others.
    """
    study = tables.study
    also = _also(wanted)
    if place is not None:
        at, uid = place
        same = sa.and_(study.c.last_instance_at == at, study.c.study_instance_uid > uid)
        also.append(sa.or_(study.c.last_instance_at < at, same))
    ways = _ways(connection, wanted) or [_Way(row=study, met=(), hours=_of(study))]
    columns = [study.c[name] for name in (*_COLUMNS, *_TIMES)]
    hour = hour_of(place[0]) if place else _NOW
    width = limit if len(ways) == 1 else 4 * limit
    rows: list[sa.Row[Any]] = []
    while True:
        reached = [(way.back_to(connection, hour, width), way) for way in ways]
        back, way = min(reached, key=lambda one: -1 if one[0] is None else one[0])
        query = sa.select(*columns).where(*way.between(hour, back), *also)
        if way.row is not study:
            query = query.join(way.row, way.row.c.study_instance_uid == study.c.study_instance_uid)
        query = query.order_by(study.c.last_instance_at.desc(), study.c.study_instance_uid).limit(limit - len(rows))
        rows += connection.execute(query).all()
        if back is None or len(rows) == limit:
            return rows
        hour, width = back - 1, min(4 * width, _WIDEST)


def _ways(connection: sa.Connection, wanted: Wanted) -> list[_Way]:
    """By which a study that is wanted can be found."""
    row = tables.found_by
    met = [(row.c.what == what, row.c.value == value[:LONGEST]) for what, value in _values_wanted(wanted).items() if value]
    ways = [_Way(row=row, met=one, hours=_of(row, *one)) for one in met]
    if wanted.states:
        ways.append(_Way(row=tables.study, met=(tables.study.c.state.in_(wanted.states),), hours=_of_states(wanted.states)))
    if wanted.study_date_from or wanted.study_date_to:
        low, high = wanted.study_date_from[:6], wanted.study_date_to[:6]
        months = [month for month, _ in _values(connection, What.MONTH, low, high, _MONTHS + 1)]
        if len(months) <= _MONTHS:
            mine = (row.c.what == What.MONTH, row.c.value.in_(months))
            ways.append(_Way(row=row, met=mine, hours=_of_months(low, high)))
    if wanted.patient_id.endswith("*") and (beginning := wanted.patient_id[:-1][:LONGEST]):
        alike = (row.c.what == What.PATIENT, *begins(row.c.value, beginning))
        first = sa.select(sa.literal(1)).select_from(row).where(*alike).limit(_COMMON).subquery()
        # These are in the order of their values, and must be sorted each time.
        if connection.execute(sa.select(sa.func.count()).select_from(first)).scalar_one() < _COMMON:
            ways.append(_Way(row=row, met=alike, hours=_of(row, *alike)))
    return ways


def _values_wanted(wanted: Wanted) -> dict[What, str]:
    return {
        What.CLASS: wanted.predicted_class,
        What.DEVICE: wanted.device,
        What.SENDER: wanted.calling_ae_title,
        What.PATIENT: "" if wanted.patient_id.endswith("*") else wanted.patient_id,
    }


def _also(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    """What is asked of each row, in words that leave it at that. SQLite, which counts nothing, would take the wrong index for the better;
    PostgreSQL would begin with all that meet the other condition.
    """
    study = tables.study
    met: list[sa.ColumnElement[bool]] = []
    if wanted.states:
        met.append(_plain(study.c.state).in_(wanted.states))
    if wanted.study_date_from:
        met.append(study.c.study_date >= wanted.study_date_from)
    if wanted.study_date_to:
        met += [study.c.study_date <= wanted.study_date_to, study.c.study_date != ""]
    if wanted.patient_id.endswith("*"):
        beginning = wanted.patient_id[:-1]
        met.append(sa.func.substr(study.c.patient_id, 1, len(beginning)) == beginning)
    elif wanted.patient_id:
        met.append(_plain(study.c.patient_id) == wanted.patient_id)
    if wanted.predicted_class:
        met.append(_plain(study.c.state) != StudyState.WITHDRAWN)  # its class is found until the version is saved that says so
    for what, value in _values_wanted(wanted).items():
        if value and what is not What.PATIENT:
            row = tables.found_by.alias()
            mine = row.c.study_instance_uid == study.c.study_instance_uid
            found = sa.select(sa.literal(1)).where(mine, row.c.what == what, row.c.value == value[:LONGEST]).limit(1)
            met.append(found.scalar_subquery().is_not(None))
    return met


def _plain(column: sa.Column[str]) -> sa.ColumnElement[str]:
    return column.concat("")


def _values(connection: sa.Connection, what: What, low: str, high: str, limit: int) -> list[tuple[str, int]]:
    """The values from `low` to `high` ("": no bound) with the newest hour of each."""
    row = tables.found_by
    value, within = _each_value(what, low, high)
    newest = sa.select(sa.func.max(row.c.last_hour)).where(row.c.what == what, row.c.value == value).scalar_subquery()
    return [(one[0], one[1]) for one in connection.execute(sa.select(value, newest).where(*within).limit(limit)).all()]


def _each_value(what: What, low: str, high: str) -> tuple[sa.ColumnElement[str], list[sa.ColumnElement[bool]]]:
    """A column of the values, by one step through the index per value, and what it must meet."""
    row = tables.found_by.alias()
    least = sa.select(sa.func.min(row.c.value)).where(row.c.what == what, row.c.value >= low)
    values = sa.select(least.scalar_subquery().label("value")).cte(recursive=True)
    following = sa.select(sa.func.min(row.c.value)).where(row.c.what == what, row.c.value > values.c.value)
    if high:
        following = following.where(row.c.value <= high)
    values = values.union_all(sa.select(following.scalar_subquery()).where(values.c.value.is_not(None)))
    return values.c.value, [values.c.value.is_not(None), *([values.c.value <= high] if high else [])]


# ------------------------------------------------------------------------------------------------------------------------- lines


_COLUMNS = ("study_instance_uid", "state", "state_reason", "revision", "study_date", "patient_id", "patient_name")
_TIMES = ("first_instance_at", "last_instance_at", "due_at")


def _cursor(line: Mapping[str, Any]) -> str:
    return f"{(line['last_instance_at'] - _EPOCH) // timedelta(microseconds=1)}-{line['study_instance_uid']}"


def _place(cursor: str) -> tuple[datetime, str]:
    if not (found := re.fullmatch(r"([0-9]{1,16})-([!-~]{1,64})", cursor)):
        raise ValueError("this is not the place of any page; begin again without it")
    return _EPOCH + timedelta(microseconds=int(found[1])), found[2]


def _lines(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[dict[str, Any]]:
    uids = [row.study_instance_uid for row in rows]
    row_of, version, run = tables.found_by, tables.version, tables.run
    newest: dict[str, Any] = {}
    versions = (
        sa.select(version.c.study_instance_uid, version.c.number, version.c.outcome, version.c.trained, run.c.selection)
        .join(run, run.c.id == version.c.run_id)
        .where(version.c.study_instance_uid.in_(uids))
        .order_by(version.c.number)
    )
    for one in connection.execute(versions):
        newest[one.study_instance_uid] = one
    found: dict[tuple[str, str], list[str]] = {}
    for one in connection.execute(sa.select(row_of).where(row_of.c.study_instance_uid.in_(uids)).order_by(row_of.c.value)):
        found.setdefault((one.study_instance_uid, one.what), []).append(one.value)
    places = queue.places(connection, uids)
    return [
        {
            **{name: row._mapping[name] for name in (*_COLUMNS, *_TIMES)},
            **_said(row.state, newest.get(row.study_instance_uid)),
            "calling_ae_titles": found.get((row.study_instance_uid, What.SENDER), []),
            "devices": found.get((row.study_instance_uid, What.DEVICE), []),
            "queue": places.get(row.study_instance_uid),
        }
        for row in rows
    ]


def _said(state: str, version: sa.Row[Any] | None) -> dict[str, Any]:
    """What the current version says; of a withdrawn study no class, from the moment that it is withdrawn."""
    if version is None:
        return {"version": None, "outcome": None, "trained": None, "classes": {}}
    withdrawn = state == StudyState.WITHDRAWN or version.outcome == Outcome.WITHDRAWN  # whose run is that of what it withdraws
    classes = {} if withdrawn else dict(_read(version.selection))
    return {"version": version.number, "outcome": version.outcome, "trained": version.trained, "classes": classes}


def _read(selection: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    for view in HANGING_ORDER:
        if (one := selection.get(view)) is not None and one["scores"]:
            scores = scores_from(one["scores"])
            yield str(view), [scores.predicted_class, scores.probability]
