"""What a QIDO-RS answer says of a study, a series or an instance: PS3.18 10.6.3.3 (Tables 10.6.3-3 to 10.6.3-5). Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from listener.matching import Match
from store.search import StoredObject

Header = dict[str, Any]


class Level(StrEnum):
    """What a search lists."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


_DEPTHS = {level: depth for depth, level in enumerate(Level, 1)}


def _tags(*keywords: str) -> tuple[str, ...]:
    return tuple(f"{tag_for_keyword(keyword) or 0:08X}" for keyword in keywords)


#: Always there, without a value when it is unknown.
REQUIRED = {
    Level.STUDY: _tags(
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ModalitiesInStudy",
        "ReferringPhysicianName",
        "RetrieveURL",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyID",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    Level.SERIES: _tags("Modality", "RetrieveURL", "SeriesInstanceUID", "SeriesNumber", "NumberOfSeriesRelatedInstances"),
    Level.INSTANCE: _tags("SOPClassUID", "SOPInstanceUID", "RetrieveURL", "InstanceNumber"),
}

#: There when it is known.
CONDITIONAL = {
    Level.STUDY: _tags("InstanceAvailability", "TimezoneOffsetFromUTC"),
    Level.SERIES: _tags(
        "TimezoneOffsetFromUTC",
        "SeriesDescription",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "RequestAttributesSequence",
    ),
    Level.INSTANCE: _tags("InstanceAvailability", "TimezoneOffsetFromUTC", "Rows", "Columns", "BitsAllocated", "NumberOfFrames"),
}

#: What `includefield=all` adds to a study or a series. For an instance it adds the whole header.
ADDITIONAL = {
    Level.STUDY: _tags(
        "StudyDescription",
        "ProcedureCodeSequence",
        "IssuerOfAccessionNumberSequence",
        "IssuerOfPatientID",
        "OtherPatientIDsSequence",
        "PatientAge",
        "PatientSize",
        "PatientWeight",
        "EthnicGroup",
        "PatientComments",
        "AdditionalPatientHistory",
        "NameOfPhysiciansReadingStudy",
        "PatientIdentityRemoved",
    ),
    Level.SERIES: _tags(
        "SeriesDate",
        "SeriesTime",
        "Manufacturer",
        "ManufacturerModelName",
        "InstitutionName",
        "StationName",
        "SoftwareVersions",
        "DeviceSerialNumber",
        "BodyPartExamined",
        "ProtocolName",
        "Laterality",
        "ReferencedPerformedProcedureStepSequence",
    ),
}

_CONTENT_SEQUENCE, _CHARACTER_SET = _tags("ContentSequence", "SpecificCharacterSet")
UTF_8 = {"vr": "CS", "Value": ["ISO_IR 192"]}


def belonging(level: Level, stored: StoredObject, family: Sequence[StoredObject]) -> list[StoredObject]:
    """Those of `family` (every object of the study) that are of the same study, series or instance as `stored`."""
    return [other for other in family if _uids(level, other) == _uids(level, stored)]


def path_of(level: Level, stored: StoredObject) -> str:
    """The path of the retrieve resource below the service's base URL."""
    names = ("studies", "series", "instances")
    return "".join(f"/{name}/{uid}" for name, uid in zip(names, _uids(level, stored), strict=False))


def answers_to(matches: Sequence[Match], level: Level, stored: StoredObject, family: Sequence[StoredObject]) -> bool:
    """Whether one object of the study, series or instance meets every key."""
    return any(all(match.meets(_complete(level, member, family, "")) for match in matches) for member in belonging(level, stored, family))


def entry(
    level: Level,
    stored: StoredObject,
    family: Sequence[StoredObject],
    *,
    base_url: str,
    with_levels: Collection[Level],
    included: Collection[str],
    include_all: bool,
) -> Header:
    """One element of the answer, in the DICOM JSON model.

    `stored` is any object of the study, series or instance, `family` every object of its study, oldest first: the newest one speaks.
    `with_levels` are those whose attributes are listed: the level itself, and the levels above that the URL does not fix.
    Attributes asked for at study or series level have a value only if all objects agree on it.
    """
    members = belonging(level, stored, family)
    known = _complete(level, members[-1], family, base_url)
    listed = {"00080005": UTF_8}
    for tags in (REQUIRED, CONDITIONAL):
        for tag in (tag for each in with_levels for tag in tags[each]):
            if tag in known or tags is REQUIRED:
                listed[tag] = known.get(tag) or _empty(tag)
    if include_all and level is Level.INSTANCE:
        included = {*included, *known} - {_CONTENT_SEQUENCE}
    elif include_all:
        included = {*included, *(tag for each in with_levels for tag in ADDITIONAL[each] if tag in known)}
    further = set(included) - set(listed)
    complete = [_complete(level, member, family, base_url) for member in members] if further else []
    for tag in further:
        agreed = all(other.get(tag) == known.get(tag) for other in complete)
        listed[tag] = known[tag] if agreed and tag in known else _empty(tag)
    return dict(sorted(listed.items()))


def _uids(level: Level, stored: StoredObject) -> tuple[str, ...]:
    return (stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid)[: _DEPTHS[level]]


def _complete(level: Level, stored: StoredObject, family: Sequence[StoredObject], base_url: str) -> Header:
    """The header with what only the whole study can tell: counts of what this server has, modalities, where to fetch."""
    series = belonging(Level.SERIES, stored, family)
    modalities = {member.modality for member in family} - {""}
    return {
        **stored.header,
        _CHARACTER_SET: UTF_8,
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00080061": {"vr": "CS", "Value": sorted(modalities)},
        "00081190": {"vr": "UR", "Value": [base_url + path_of(level, stored)]},
        "00201206": {"vr": "IS", "Value": [len({member.series_instance_uid for member in family})]},
        "00201208": {"vr": "IS", "Value": [len(family)]},
        "00201209": {"vr": "IS", "Value": [len(series)]},
    }


def _empty(tag: str) -> Header:
    # the dictionary says "US or SS" where the pixels decide; without a value either is right
    return {"vr": dictionary_VR(int(tag, 16)).split(" ")[0]}
