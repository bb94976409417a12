"""What a study is found by in listings: rows that follow the study's own, written in the transactions that change those.

`last_hour` stands in the study's row and in each of these: the hour of its last instance. An index that begins with a value and that hour
gives the studies of the value newest first, and costs reception nothing while images come: only a study into whose next hour an image
comes is written anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from store import tables
from store.images import Disposition

#: Values are compared by so many characters: PostgreSQL's index takes no text of any length.
LONGEST = 64


class What(StrEnum):
    """What a value is of."""

    PATIENT = "patient"  # Patient ID
    MONTH = "month"  # Study Date without its day
    SENDER = "sender"  # calling AE title of an instance
    DEVICE = "device"  # Station Name or Manufacturer's Model Name of an image
    CLASS = "class"  # predicted class of a view of the current version


Found = tuple[What, str]


def hour_of(moment: datetime) -> int:
    """Hours since 1970 in UTC."""
    return int(moment.timestamp() // 3600)


def begin(connection: sa.Connection, study_instance_uid: str, moment: datetime, patient_id: str, sender: str) -> None:
    """A study's first instance came: what there is to find it by before a worker has looked at it."""
    _insert(connection, study_instance_uid, _trimmed([(What.PATIENT, patient_id), (What.SENDER, sender)]), hour_of(moment))


def move(connection: sa.Connection, study: sa.Row[Any], moment: datetime) -> None:
    """An instance of the study came at `moment`; `study` is its row as it was before."""
    if (hour := hour_of(moment)) == study.last_hour:
        return
    for row in (tables.study, tables.found_by):
        mine = row.c.study_instance_uid == study.study_instance_uid
        connection.execute(sa.update(row).where(mine).values(last_hour=hour))


def refresh(connection: sa.Connection, study_instance_uid: str) -> None:
    """Find a study, which the caller has locked, by what stands in its rows now; its classes stay."""
    study, image = tables.study, tables.instance
    row = connection.execute(
        sa.select(study.c.patient_id, study.c.study_date).where(study.c.study_instance_uid == study_instance_uid)
    ).one()
    names = (image.c.calling_ae_title, image.c.station_name, image.c.manufacturer_model_name)
    mine = sa.and_(image.c.study_instance_uid == study_instance_uid, image.c.disposition != Disposition.OWN_RESULT)
    images = connection.execute(sa.select(*names).where(mine).distinct()).all()
    _replace(connection, study_instance_uid, of_rows(row.patient_id, row.study_date, map(tuple, images)), sa.not_(_of_classes()))


def classify(connection: sa.Connection, study_instance_uid: str, classes: Iterable[str]) -> None:
    """A study, which the caller has locked, has a new version; these are the classes of its views."""
    _replace(connection, study_instance_uid, _trimmed((What.CLASS, one) for one in classes), _of_classes())


def of_rows(patient_id: str, study_date: str, images: Iterable[tuple[str, str, str]]) -> set[Found]:
    """What a study is found by, its classes aside; `images`: calling AE title, Station Name, model of each."""
    found = {(What.PATIENT, patient_id), (What.MONTH, study_date[:6])}
    for sender, station, model in images:
        found |= {(What.SENDER, sender), (What.DEVICE, station), (What.DEVICE, model)}
    return _trimmed(found)


def _of_classes() -> sa.ColumnElement[bool]:
    return tables.found_by.c.what == What.CLASS


def _trimmed(found: Iterable[Found]) -> set[Found]:
    return {(what, value[:LONGEST]) for what, value in found if value}


def _replace(connection: sa.Connection, study_instance_uid: str, wanted: set[Found], which: sa.ColumnElement[bool]) -> None:
    row = tables.found_by
    mine = row.c.study_instance_uid == study_instance_uid
    here = {(What(one.what), one.value) for one in connection.execute(sa.select(row.c.what, row.c.value).where(mine, which)).all()}
    for what, value in here - wanted:
        connection.execute(sa.delete(row).where(mine, row.c.what == what, row.c.value == value))
    if new := wanted - here:
        study = tables.study
        hour = connection.execute(sa.select(study.c.last_hour).where(study.c.study_instance_uid == study_instance_uid)).scalar_one()
        _insert(connection, study_instance_uid, new, hour)


def _insert(connection: sa.Connection, study_instance_uid: str, found: set[Found], hour: int) -> None:
    common = {"study_instance_uid": study_instance_uid, "last_hour": hour}
    if found:
        connection.execute(sa.insert(tables.found_by), [{**common, "what": what, "value": value} for what, value in sorted(found)])
