"""Studies as people look for them: line by line and page by page, the one that last received an instance first. Read-only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from store import tables
from store.database import database_now
from store.images import Disposition
from store.look import scores_from
from store.study import HANGING_ORDER, Outcome

#: How far back `Listing.choices` looks.
LATELY = timedelta(days=90)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which studies are looked for; "" and () are no condition."""

    states: tuple[str, ...] = ()
    study_date_from: str = ""  # YYYYMMDD, inclusive like the other end
    study_date_to: str = ""
    patient_id: str = ""  # as it came, or its beginning with "*" behind it
    predicted_class: str = ""  # of a view of the current version
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
        """
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit}")
        place = _place(after) if after else None
        with self._reader.begin() as connection:
            found: list[dict[str, Any]] = []
            while len(found) <= limit:
                rows = connection.execute(_query(wanted, place)).all()
                lines = _lines(connection, rows)
                found += [one for one in lines if not wanted.predicted_class or wanted.predicted_class in _classes(one)]
                if len(rows) < _AT_ONCE:
                    break
                place = (rows[-1].last_instance_at, rows[-1].study_instance_uid)
        page = found[:limit]
        return Page(page, _cursor(page[-1]) if len(found) > limit else "")

    def choices(self) -> dict[str, list[str]]:
        """What there is to choose from lately: `calling_ae_titles`, `devices`, `classes`, each in the order of the alphabet."""
        study = tables.study
        with self._reader.begin() as connection:
            since = database_now(connection) - LATELY
            query = sa.select(study).where(study.c.last_instance_at > since)
            lines = _lines(connection, connection.execute(query).all())
        return {
            "calling_ae_titles": sorted({one for line in lines for one in line["calling_ae_titles"]}),
            "devices": sorted({one for line in lines for one in line["devices"]}),
            "classes": sorted({one for line in lines for one in _classes(line)}),
        }


_COLUMNS = ("study_instance_uid", "state", "state_reason", "revision", "study_date", "patient_id", "patient_name")
_TIMES = ("first_instance_at", "last_instance_at", "due_at")


def _cursor(line: Mapping[str, Any]) -> str:
    return f"{(line['last_instance_at'] - _EPOCH) // timedelta(microseconds=1)}-{line['study_instance_uid']}"


def _place(cursor: str) -> tuple[datetime, str]:
    if not (found := re.fullmatch(r"([0-9]{1,16})-([!-~]{1,64})", cursor)):
        raise ValueError("this is not the place of any page; begin again without it")
    return _EPOCH + timedelta(microseconds=int(found[1])), found[2]


def _query(wanted: Wanted, place: tuple[datetime, str] | None) -> sa.Select[Any]:
    study = tables.study
    query = sa.select(study).order_by(study.c.last_instance_at.desc(), study.c.study_instance_uid).limit(_AT_ONCE)
    if wanted.states:
        query = query.where(study.c.state.in_(wanted.states))
    if wanted.study_date_from:
        query = query.where(study.c.study_date >= wanted.study_date_from)
    if wanted.study_date_to:
        query = query.where(study.c.study_date <= wanted.study_date_to, study.c.study_date != "")
    if wanted.patient_id.endswith("*"):
        beginning = wanted.patient_id[:-1]
        query = query.where(sa.func.substr(study.c.patient_id, 1, len(beginning)) == beginning)
    elif wanted.patient_id:
        query = query.where(study.c.patient_id == wanted.patient_id)
    image = tables.instance
    mine = sa.and_(image.c.study_instance_uid == study.c.study_instance_uid, image.c.disposition != Disposition.OWN_RESULT)
    if wanted.calling_ae_title:
        query = query.where(sa.exists().where(mine, image.c.calling_ae_title == wanted.calling_ae_title))
    if wanted.device:
        named = sa.or_(image.c.station_name == wanted.device, image.c.manufacturer_model_name == wanted.device)
        query = query.where(sa.exists().where(mine, named))
    if place is not None:
        at, uid = place
        behind = sa.and_(study.c.last_instance_at == at, study.c.study_instance_uid > uid)
        query = query.where(sa.or_(study.c.last_instance_at < at, behind))
    return query


def _lines(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[dict[str, Any]]:
    uids = [row.study_instance_uid for row in rows]
    image, version, run = tables.instance, tables.version, tables.run
    newest: dict[str, Any] = {}
    versions = (
        sa.select(version.c.study_instance_uid, version.c.number, version.c.outcome, version.c.trained, run.c.selection)
        .join(run, run.c.id == version.c.run_id)
        .where(version.c.study_instance_uid.in_(uids))
        .order_by(version.c.number)
    )
    for one in connection.execute(versions):
        newest[one.study_instance_uid] = one
    titles: dict[str, set[str]] = {}
    devices: dict[str, set[str]] = {}
    names = ("study_instance_uid", "calling_ae_title", "station_name", "manufacturer_model_name")
    images = sa.select(*(image.c[name] for name in names)).distinct()
    for one in connection.execute(images.where(image.c.study_instance_uid.in_(uids), image.c.disposition != Disposition.OWN_RESULT)):
        titles.setdefault(one.study_instance_uid, set()).add(one.calling_ae_title)
        devices.setdefault(one.study_instance_uid, set()).update((one.station_name, one.manufacturer_model_name))
    return [
        {
            **{name: row._mapping[name] for name in (*_COLUMNS, *_TIMES)},
            **_said(newest.get(row.study_instance_uid)),
            "calling_ae_titles": sorted(titles.get(row.study_instance_uid, set()) - {""}),
            "devices": sorted(devices.get(row.study_instance_uid, set()) - {""}),
        }
        for row in rows
    ]


def _said(version: sa.Row[Any] | None) -> dict[str, Any]:
    """What the current version says."""
    if version is None:
        return {"version": None, "outcome": None, "trained": None, "classes": {}}
    withdrawn = version.outcome == Outcome.WITHDRAWN  # its run is that of what it withdraws
    classes = {} if withdrawn else dict(_read(version.selection))
    return {"version": version.number, "outcome": version.outcome, "trained": version.trained, "classes": classes}


def _read(selection: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    for view in HANGING_ORDER:
        if (one := selection.get(view)) is not None and one["scores"]:
            scores = scores_from(one["scores"])
            yield str(view), [scores.predicted_class, scores.probability]


def _classes(line: Mapping[str, Any]) -> Iterable[str]:
    return {predicted_class for predicted_class, _ in line["classes"].values()}
