"""What the rules see of a study: the value of every symbol, from its headers and from how it came. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset

from pipeline.rule_condition import BY_NAME, WEEKDAYS
from pipeline.rule_pattern import LONGEST_TEXT
from store.header_text import value_of
from store.seen import Seen
from store.study import HANGING_ORDER, View

#: Symbols that are one attribute of the representative image, as text.
_ATTRIBUTES = {
    "Modality": "Modality",
    "SOPClass": "SOPClassUID",
    "StationName": "StationName",
    "Manufacturer": "Manufacturer",
    "ManufacturerModelName": "ManufacturerModelName",
    "DeviceSerialNumber": "DeviceSerialNumber",
    "InstitutionName": "InstitutionName",
    "StudyDescription": "StudyDescription",
    "SeriesDescription": "SeriesDescription",
    "ProtocolName": "ProtocolName",
    "PatientSex": "PatientSex",
    "BodyPart": "BodyPartExamined",
}

#: PS3.5 6.2, VR AS.
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}

#: PS3.5 6.2, VR DA, with the dots of ACR-NEMA that old archives still hold.
_DATE = re.compile(r"(\d{4})(\.?)(\d{2})\2(\d{2})")


def of_study(seen: Seen, *, today: date, timezone: ZoneInfo, names: Collection[str] = BY_NAME.keys()) -> dict[str, object]:
    """`facts` of a study at a site; `today` is the date there on which its StudyAge is counted."""
    return facts(
        seen.headers,
        views=seen.views,
        kind=seen.kind.value,
        calling_ae_title=seen.calling_ae_title,
        called_ae_title=seen.called_ae_title,
        today=today,
        came_at=seen.first_instance_at.astimezone(timezone),
        names=names,
    )


def facts(
    headers: Sequence[Dataset],
    *,
    views: Sequence[View],
    calling_ae_title: str,
    called_ae_title: str,
    today: date,
    kind: str = "",
    came_at: datetime | None = None,
    names: Collection[str] = BY_NAME.keys(),
) -> dict[str, object]:
    """The value of every symbol of `names`: str, int, float or list of str; None when it is absent.

    `headers[0]` is the study's representative image; the others are read only for what one image does not tell. `views` are the filled
    slots; `kind` is an ImageKind's value, "" when unknown; `today` is the date and `came_at` the moment of the first image, both in the
    site's time zone.
    """
    ds = headers[0] if headers else Dataset()
    study_date = _date(_attribute(ds, "StudyDate"))
    sides = {view.laterality for view in views}
    implants = {_attribute(header, "BreastImplantPresent") for header in headers} if "Implant" in names else set()
    values: dict[str, object] = {name: _attribute(ds, keyword) for name, keyword in _ATTRIBUTES.items() if name in names}
    values["CallingAET"] = _text(calling_ae_title)
    values["CalledAET"] = _text(called_ae_title)
    values["PatientAge"] = _age(_attribute(ds, "PatientAge"), _date(_attribute(ds, "PatientBirthDate")), study_date)
    values["StudyAge"] = (today - study_date).days if study_date is not None and study_date <= today else None
    values["Views"] = [view.value for view in HANGING_ORDER if view in views]
    values["NumViews"] = len(set(views))
    values["Implant"] = "YES" if "YES" in implants else "NO" if implants == {"NO"} else None
    values["Kind"] = kind or None
    values["Laterality"] = "B" if len(sides) == 2 else next(iter(sides), None)
    values["Weekday"] = WEEKDAYS[came_at.weekday()] if came_at is not None else None
    values["Hour"] = came_at.hour if came_at is not None else None
    return {name: value for name, value in values.items() if name in names}


def _attribute(ds: Dataset, keyword: str) -> str | None:
    return _text(value_of(ds, keyword))


def _text(value: object) -> str | None:
    """Values without NULs and padding, joined with backslash when there are several; None when nothing is left."""
    parts = list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    if any(part is None or isinstance(part, Dataset) for part in parts):
        return None
    texts = [part.decode("latin-1") if isinstance(part, bytes) else str(part) for part in parts]
    cleaned = [text.replace("\0", "").strip() for text in texts]
    return "\\".join(cleaned)[:LONGEST_TEXT] if any(cleaned) else None


def _date(text: str | None) -> date | None:
    found = _DATE.fullmatch(text or "")
    if found is None:
        return None
    try:
        return date(int(found[1]), int(found[3]), int(found[4]))
    except ValueError:
        return None


def _age(age: str | None, birth_date: date | None, study_date: date | None) -> int | float | None:
    """Years, whole where they are."""
    found = _AGE.fullmatch(age or "")
    if found is not None:
        years = round(int(found[1]) * _YEARS[found[2]], 2)
        return int(years) if years == int(years) else years
    if birth_date is None or study_date is None or birth_date > study_date:
        return None
    return study_date.year - birth_date.year - ((study_date.month, study_date.day) < (birth_date.month, birth_date.day))
