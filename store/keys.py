"""Keys of a search as SQL (PS3.4 C.2.2.2), against the columns of `result_object` that stand for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import sqlalchemy as sa

from store import tables
from store.header import folded

Like = Callable[[sa.ColumnElement[str], str], sa.ColumnElement[bool]]

_UID_COLUMNS = {
    "StudyInstanceUID": "study_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "SOPClassUID": "sop_class_uid",
}
_TEXT_COLUMNS = {"PatientID": "patient_id", "AccessionNumber": "accession_number"}
_NAME_COLUMNS = ("patient_name", "patient_name_ideographic", "patient_name_phonetic")


def conditions(
    study_instance_uid: str | None, series_instance_uid: str | None, matching: Mapping[str, str], compared: Like | None = None
) -> Callable[[sa.FromClause], list[sa.ColumnElement[bool]]]:
    """What one result object (the table or an alias of it) must meet; `compared` says how texts are."""

    def met_by(row: sa.FromClause) -> list[sa.ColumnElement[bool]]:
        met = [_condition(row, keyword, value, compared or like_beginning) for keyword, value in matching.items()]
        if study_instance_uid is not None:
            met.append(row.c.study_instance_uid == study_instance_uid)
        if series_instance_uid is not None:
            met.append(row.c.series_instance_uid == series_instance_uid)
        return met

    return met_by


def _condition(row: sa.FromClause, keyword: str, value: str, compared: Like) -> sa.ColumnElement[bool]:
    """A key as SQL (PS3.4 C.2.2.2): UID list, date range, wildcards, names without regard to case."""
    if "\0" in value:
        return sa.false()  # stored text has none, and PostgreSQL takes no text with it
    if keyword in _UID_COLUMNS:
        return row.c[_UID_COLUMNS[keyword]].in_(value.split("\\"))
    if keyword == "StudyDate":
        low, high = value.split("-")
        return row.c.study_date.between(low, high)
    if keyword in _TEXT_COLUMNS:
        return compared(row.c[_TEXT_COLUMNS[keyword]], value)
    if keyword == "PatientName":
        return sa.or_(*(compared(row.c[name], folded(value)) for name in _NAME_COLUMNS))
    if keyword == "Modality":
        return sa.or_(*(like(row.c.modality, one) for one in value.split("\\")))
    if keyword == "ModalitiesInStudy":
        other = tables.result_object.alias()
        same = other.c.study_instance_uid == row.c.study_instance_uid
        return sa.exists().where(same, sa.or_(*(like(other.c.modality, one) for one in value.split("\\"))))
    raise ValueError(f"{keyword} is not matched here")


def like(column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
    escaped = pattern.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return sa.and_(column != "", column.like(escaped.replace("*", "%").replace("?", "_"), escape="!"))


def like_beginning(column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
    """As `like`, of a column with an index of beginnings: what stands before a wildcard is looked up there."""
    certain = re.split(r"[*?]", pattern, maxsplit=1)[0]
    if certain == pattern and len(pattern) < tables.BEGINNING:
        return sa.and_(column != "", tables.beginning(column) == pattern)
    return sa.and_(*begins(tables.beginning(column), certain[: tables.BEGINNING]), like(column, pattern))


def begins(column: sa.ColumnElement[str], beginning: str) -> list[sa.ColumnElement[bool]]:
    """That a text, compared byte for byte, begins so: as a range, which any index can look up."""
    last = beginning.rstrip("\U0010ffff")
    after = chr({0xD7FF: 0xE000}.get(ord(last[-1]), ord(last[-1]) + 1)) if last else ""  # what follows; surrogates are no characters
    return [column >= beginning] * bool(beginning) + [column < last[:-1] + after] * bool(last)
