"""Patient and study attributes of the result objects: copied from the reported images, cleaned so that no header can stop a result.

PS3.3 C.7.1.1 (Patient), C.7.2.1 (General Study), C.7.2.2 (Patient Study). Text is always written in UTF-8 (ISO_IR 192), in which names of
every character set survive. Values that identify are never shortened or repaired: a changed identifier is another patient's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian

from pipeline import wording
from pipeline.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pipeline.report import uids
from pipeline.report.values import Report
from store.header_text import UNREADABLE, items_of, value_of

PRODUCT = "Fourview"

CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


def text(ds: Dataset, keyword: str) -> str:
    """The attribute's value as one line of text without padding; "" when absent, empty, binary or unreadable."""
    value = value_of(ds, keyword)
    try:
        values = value if isinstance(value, MultiValue) else [value]
        joined = "\\".join("" if part is None or isinstance(part, bytes) else str(part) for part in values)
    except UNREADABLE:
        return ""
    return CONTROL_CHARACTERS.sub("", joined).strip()


def _date(value: str) -> str:
    """DA, also when written with separators (ACR-NEMA's dots, ISO's hyphens); "" unless it is a day of the calendar's range."""
    match = re.fullmatch(r"([12]\d{3})([.\-/]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])", value)
    return "".join(match.group(1, 3, 4)) if match else ""


def _time(value: str) -> str:
    """TM, also when written with colons; "" unless every part is in range."""
    match = re.fullmatch(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(\.\d{1,6})?)?)?", value)
    return "".join(part or "" for part in match.groups()) if match else ""


def _sex(value: str) -> str:
    return value.upper() if value.upper() in {"M", "F", "O"} else ""


def _age(value: str) -> str:
    match = re.fullmatch(r"(\d{1,3})([DWMY])", value.upper())
    return f"{int(match.group(1)):03d}{match.group(2)}" if match else ""


def _decimal(value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return ""
    return value if math.isfinite(number) and len(value) <= 16 else ""


def _as_is(value: str) -> str:
    return value


def _long_string(value: str) -> str:
    """LO that describes and does not identify: 64 characters, and no backslash, which would make two values of it."""
    return value.replace("\\", "/")[:64].strip()


#: Every copied attribute and how it is cleaned. Type 2 attributes are written also when empty, the others only with a value.
COPIED: dict[str, Callable[[str], str]] = {
    "PatientName": _as_is,
    "PatientID": _as_is,
    "IssuerOfPatientID": _as_is,
    "PatientBirthDate": _date,
    "PatientSex": _sex,
    "PatientAge": _age,
    "PatientSize": _decimal,
    "PatientWeight": _decimal,
    "StudyDate": _date,
    "StudyTime": _time,
    "AccessionNumber": _as_is,
    "StudyID": _as_is,
    "StudyDescription": _long_string,
    "ReferringPhysicianName": _as_is,
}
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)

#: Copied from the first item of Request Attributes Sequence (0040,0275) into Referenced Request Sequence (0040,A370) of the SR.
COPIED_REQUEST: dict[str, Callable[[str], str]] = {"RequestedProcedureID": _as_is, "RequestedProcedureDescription": _long_string}

#: Every keyword that `copied_header` may answer: what must change the cause of a version when it changes in an image.
COPIED_KEYWORDS = (*COPIED, *COPIED_REQUEST, "ProcedureCodeSequence")


def _procedure_code(ds: Dataset) -> str:
    """The first usable item of Procedure Code Sequence (0008,1032) as "value^scheme^meaning"; "" when there is none."""
    for item in items_of(ds, "ProcedureCodeSequence"):
        parts = [text(item, keyword) for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")]
        if (
            all(parts)
            and all(len(part) <= limit for part, limit in zip(parts, (16, 16, 64), strict=True))
            and not any("^" in part for part in parts)
        ):
            return "^".join(parts)
    return ""


def _first(values: Iterable[str]) -> str:
    return next((value for value in values if value), "")


def copied_header(headers: Sequence[Dataset]) -> dict[str, str]:
    """Keyword -> text of exactly the patient and study values that the result objects copy from `headers`.

    Each value is the first usable one in the order given (hanging order). ProcedureCodeSequence is written "value^scheme^meaning".
    Keywords without a value are left out. Two lists of headers with an equal answer make equal results.
    """
    values = {keyword: _first(clean(text(ds, keyword)) for ds in headers) for keyword, clean in COPIED.items()}
    requests = [item for ds in headers for item in items_of(ds, "RequestAttributesSequence")]
    values |= {keyword: _first(clean(text(item, keyword)) for item in requests) for keyword, clean in COPIED_REQUEST.items()}
    values["ProcedureCodeSequence"] = _first(_procedure_code(ds) for ds in headers)
    return {keyword: value for keyword, value in values.items() if value}


def uid_of(ds: Dataset, keyword: str) -> str:
    """A UID without the padding that some devices send."""
    return text(ds, keyword)


def code_item(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence (PS3.3 Table 8.8-1a)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def identification(report: Report) -> Dataset:
    """The Patient, General Study and Patient Study modules of every result object of `report`."""
    copied = copied_header(report.headers)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StudyInstanceUID = UID(report.study_instance_uid)
    for keyword in COPIED:
        if keyword in copied or keyword in TYPE_2:
            setattr(ds, keyword, copied.get(keyword, ""))
    if "ProcedureCodeSequence" in copied:
        ds.ProcedureCodeSequence = [code_item(*copied["ProcedureCodeSequence"].split("^"))]
    return ds


def acquisition_equipment(report: Report) -> Dataset:
    """The item of Contributing Equipment Sequence (0018,A001) for the device that made the images: the first one in hanging order."""
    source = report.views[0].header
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item("109101", "DCM", "Acquisition Equipment")]
    item.Manufacturer = _long_string(text(source, "Manufacturer")) or "Unknown"
    for keyword in ("ManufacturerModelName", "DeviceSerialNumber", "InstitutionName"):
        value = _long_string(text(source, keyword))
        if value:
            setattr(item, keyword, value)
    return item


def coding_scheme() -> Dataset:
    """The item of Coding Scheme Identification Sequence (0008,0110) that says whose codes 99FOURVIEW are."""
    item = Dataset()
    item.CodingSchemeDesignator = "99FOURVIEW"
    item.CodingSchemeName = "Fourview classifier outputs"
    item.CodingSchemeResponsibleOrganization = PRODUCT
    return item


def complete(ds: Dataset, report: Report, *, kind: str, sop_class_uid: str) -> None:
    """Sets in `ds` what every result object has alike: General Series, General Equipment, SOP Common, and the file meta information.

    Times are local to the installation and come from `report.created_at`, so that a rebuild gives the same bytes.
    """
    installation, now = report.installation, report.local_time
    ds.SOPClassUID = UID(sop_class_uid)
    ds.SOPInstanceUID = uids.sop_instance_uid(kind, report.cause)
    ds.SeriesInstanceUID = uids.series_instance_uid(kind, report.study_instance_uid, report.model)
    ds.SeriesDescription = wording.series_description(report.model)
    ds.Manufacturer = ds.ManufacturerModelName = PRODUCT
    ds.SoftwareVersions = installation.software_version
    ds.DeviceSerialNumber = installation.serial_number
    ds.InstanceCreationDate = ds.ContentDate = now.strftime("%Y%m%d")
    ds.InstanceCreationTime = ds.ContentTime = now.strftime("%H%M%S")
    ds.TimezoneOffsetFromUTC = now.strftime("%z")
    ds.ContributingEquipmentSequence = [acquisition_equipment(report)]
    ds.CodingSchemeIdentificationSequence = [coding_scheme()]

    ds.file_meta = FileMetaDataset()
    ds.file_meta.FileMetaInformationVersion = b"\x00\x01"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    ds.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
