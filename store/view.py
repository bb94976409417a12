"""Which view an image shows, and how we know: the evidence for side and projection, read from the header alone.

Implements PS3.3 C.8.11.7 (Mammography Image), C.7.6.16.2.8 (Frame Anatomy) and C.7.6.1.1.1 (Patient Orientation) with PS3.16 CID 4014 and
CID 4015. A code beats a view position beats text; a contradiction between two structural sources of the side is a doubt, never a guess.
What else grouping needs of a header is read here too, once: ranking, equipment, rejections, and a digest of what results copy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from store.dialect import STANDARD, Device, Dialect
from store.header_text import UNREADABLE, Attributes
from store.image_kind import RAW_CLASSES, image_kind, is_raw
from store.rejection import rejected_images
from store.study import OPERATOR, ImageKind, View, ViewEvidence, digest
from store.view_codes import (
    CID_4014,
    CID_4015,
    MODIFIER_BY_CODE,
    SLOT_MODIFIERS,
    SLOT_VIEWS,
    VIEW_BY_CODE,
    VIEW_BY_MEANING,
    VIEW_POSITIONS,
)
from store.view_side import contradicted_by, orientation_of, side_of
from store.view_text import (
    SIDE_WORDS,
    TEXT_SOURCES,
    TRUSTED,
    NamedView,
    Words,
    named_views,
    part_modifiers,
    tokens,
    words_of,
)

__all__ = [
    "CID_4014",
    "CID_4015",
    "COPIED_OF_ITEMS",
    "DEMOGRAPHICS",
    "EQUIPMENT",
    "SIDE_WORDS",
    "SLOT_MODIFIERS",
    "STANDARD",
    "TRUSTED",
    "UNREADABLE",
    "Device",
    "Dialect",
    "Ranking",
    "Resolved",
    "contradicted_by",
    "resolve",
    "resolve_view",
    "unreadable",
]

#: Above this a projection is magnified, whether or not a view modifier says so (PS3.3 C.8.7.4).
_MAGNIFIED = 1.2


# ------------------------------------------------------------------------------------------------------------------ projection


@dataclass(frozen=True, kw_only=True)
class _Projection:
    """The structural answer to "which view"."""

    label: str | None
    source: str
    conflicts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def _view_position(header: Attributes) -> str:
    """View Position when it is exactly a label of CID 4014, else ""."""
    found = set(header.values("ViewPosition"))
    return found.pop() if len(found) == 1 and found <= VIEW_POSITIONS else ""


def _projection(header: Attributes) -> _Projection:
    """By code, then by exact View Position, then by the exact meaning of an item that lacks its code."""
    sequence = header.items("ViewCodeSequence")
    item = sequence[0] if len(sequence) == 1 else None
    warnings = ("ViewCodeSequence has several items and was not used",) if len(sequence) > 1 else ()
    position = _view_position(header)
    if item is not None and (label := VIEW_BY_CODE.get(item.code())):
        differs = bool(position) and position != label
        conflicts = (f"ViewCodeSequence says {label}, ViewPosition says {position}: the code is used",) if differs else ()
        return _Projection(label=label, source="ViewCodeSequence", conflicts=conflicts)
    if position:
        return _Projection(label=position, source="ViewPosition", warnings=warnings)
    if item is not None and not all(item.code()):
        meaning = re.sub(r"[^A-Z]+", "", item.text("CodeMeaning"))
        if label := VIEW_BY_MEANING.get(meaning):
            return _Projection(label=label, source="ViewCodeSequence meaning")
    return _Projection(label=None, source="", warnings=warnings)


def _modifiers(header: Attributes) -> tuple[frozenset[str], tuple[str, ...]]:
    """(known labels, unknown ones in words) of the view modifiers, inside the view's items or, as some devices write them, at top level."""
    known = set(part_modifiers(tokens(header.text("PaddleDescription"))))
    unknown: set[str] = set()
    for place in (*header.items("ViewCodeSequence"), header):
        for modifier in place.items("ViewModifierCodeSequence"):
            scheme, value = modifier.code()
            if label := MODIFIER_BY_CODE.get((scheme, value)):
                known.add(label)
            elif name := value or modifier.text("CodeMeaning"):
                unknown.add(f"{name} ({scheme})")
        if "ViewModifierCodeSequence" in place.damaged:
            unknown.add("that could not be read")  # it may have said "spot compression"
    try:
        if float(header.text("EstimatedRadiographicMagnificationFactor") or 1) > _MAGNIFIED:
            known.add("M")
    except ValueError:
        header.damaged.add("EstimatedRadiographicMagnificationFactor")
    return frozenset(known), tuple(sorted(unknown))


# ---------------------------------------------------------------------------------------------------------------- the evidence

#: Kinds that never fill a slot, whatever the model was trained on.
_NEVER = {
    ImageKind.TOMOSYNTHESIS: "a tomosynthesis image, not a single exposure",
    ImageKind.STEREOTACTIC: "an image of biopsy guidance",
    ImageKind.CONTRAST_OTHER: "a contrast image other than low energy",
    ImageKind.SPECIMEN: "a specimen, not a breast in place",
    ImageKind.PHANTOM: "a quality control image",
}
_CLASSES = {
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    ComputedRadiographyImageStorage,
}


def _not_for_us(header: Attributes, kind: ImageKind) -> str:
    """Why the object is no single mammogram, "" when it is one. No person's word changes it."""
    modality, sop_class_uid = header.text("Modality"), header.text("SOPClassUID")
    if modality != "MG" and (modality, sop_class_uid) != ("CR", ComputedRadiographyImageStorage):
        return f"Modality (0008,0060) is {modality or 'absent'}, not MG"
    if sop_class_uid not in _CLASSES:
        return "its SOP class is not Digital Mammography X-Ray Image Storage"
    frames = header.text("NumberOfFrames")
    if frames and header.number("NumberOfFrames") != 1:
        return f"it has {frames} frames"
    if header.text("SamplesPerPixel") not in ("", "1") or header.text("PhotometricInterpretation") not in (
        "",
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        return f"it is not a greyscale image ({header.text('PhotometricInterpretation')})"
    return _NEVER.get(kind, "")


def _no_standard_view(label: str | None, modifiers: Sequence[str], unknown_modifiers: Sequence[str], both: str) -> str:
    """Why a mammogram shows none of the four standard views, "" when it may. A person may say otherwise."""
    excluded = [CID_4015[modifier][2] for modifier in modifiers if modifier not in SLOT_MODIFIERS]
    if excluded:
        return f"view modifier {', '.join(excluded)}"
    if unknown_modifiers:
        return f"unknown view modifier {', '.join(unknown_modifiers)}"
    if label is None:
        return "no attribute names its view"
    if label not in SLOT_VIEWS:
        return f"view {label} is none of the four standard views"
    return f"{both}: not one breast" if both else ""


def _oddities(header: Attributes) -> list[str]:
    """What is unusual for a mammogram but keeps none out."""
    other_parts = [keyword for keyword in ("OrganExposed", "BodyPartExamined") if header.text(keyword) not in ("", "BREAST")]
    return [
        *(f"{keyword} is not BREAST" for keyword in other_parts),
        *(["BurnedInAnnotation is YES: the pixels hold text"] if "YES" in header.values("BurnedInAnnotation") else []),
    ]


def _readiness(header: Attributes) -> tuple[str, ...]:
    """A conflict when SOP class and Presentation Intent Type (0008,0068) disagree on whether the values are raw."""
    intent = header.text("PresentationIntentType")
    by_class = header.text("SOPClassUID") in RAW_CLASSES
    if not intent or by_class == ("FOR PROCESSING" in header.values("PresentationIntentType")):
        return ()
    said = "For Processing" if by_class else "For Presentation"
    return (f"the SOP class says {said}, PresentationIntentType says {intent}: it is taken as For Processing",) if is_raw(header) else ()


def _evidence(header: Attributes, words: Words, assigned: View | None) -> ViewEvidence:
    projection = _projection(header)
    label, view_source = projection.label, projection.source
    coded_modifiers, unknown_modifiers = _modifiers(header)
    orientation = orientation_of(header)
    side = side_of(header, label, orientation, ())
    warnings = [*projection.warnings]
    used_texts: list[NamedView] = []
    if assigned is None and (label is None or (side.side is None and not (side.both or side.doubt or side.unknown))):
        exact = "ViewPosition" if _view_position(header) else ""  # a value of its own, not a text: it never names a side
        texts = tuple(named_views(header, words, skip=exact))
        if label is None and texts:
            label, view_source = texts[0].label, f"text of {texts[0].keyword}"
            warnings.append(f"view {label} was read from the {view_source}")
            used_texts.append(texts[0])
        side = side_of(header, label, orientation, texts)
        used_texts += [text for text in texts if side.source == f"text of {text.keyword}"]
    modifiers = tuple(sorted(coded_modifiers.union(*(text.modifiers for text in used_texts))))
    kind = image_kind(header, label, words)
    conflicts = (*projection.conflicts, *side.conflicts, *_readiness(header))
    set_aside = _not_for_us(header, kind)
    warnings += _oddities(header)
    # A text that cannot be read decides nothing: no text has to be there.
    warnings += [f"{keyword} could not be read" for keyword in sorted(header.damaged.difference(TEXT_SOURCES, ["PaddleDescription"]))]

    if assigned is not None:
        stated = ((side.side or side.both, assigned.laterality), (label, assigned.position))
        said = [told for told, by_person in stated if told and told != by_person]
        return ViewEvidence(
            view=None if set_aside else assigned,
            laterality=assigned.laterality,
            laterality_source=OPERATOR,
            view_position=assigned.position,
            view_source=OPERATOR,
            kind=kind,
            modifiers=modifiers,
            orientation=orientation,
            conflicts=(*conflicts, *((f"a person assigned {assigned}, the header says {', '.join(said)}",) if said else ())),
            warnings=tuple(warnings),
            set_aside=set_aside,
        )

    set_aside = set_aside or _no_standard_view(label, modifiers, unknown_modifiers, side.both)
    doubt = "" if set_aside else side.doubt
    if not set_aside and not doubt and side.side is None:
        # It contradicts nothing, so it is no doubt: it fills no slot, unless a person says which.
        set_aside = f"view {label} without a side: {side.unknown or 'no attribute says left or right'}"
    return ViewEvidence(
        view=None if set_aside or doubt else View(f"{side.side}-{label}"),
        laterality=side.side,
        laterality_source=side.source,
        view_position=label,
        view_source=view_source,
        kind=kind,
        modifiers=modifiers,
        orientation=orientation,
        conflicts=conflicts,
        warnings=tuple(dict.fromkeys((*warnings, *side.warnings))),
        set_aside=set_aside,
        doubt=doubt,
    )


def _opened(ds: Dataset, dialect: Dialect) -> tuple[Attributes, Words]:
    plain = Attributes(ds)
    # Of a site without devices nobody needs to know which one it is.
    named = ("Manufacturer", "ManufacturerModelName") if dialect.devices else ()
    manufacturer, model = ("\\".join(plain.written(keyword)) for keyword in named) if named else ("", "")
    words, distrusted = words_of(dialect, manufacturer, model)
    return Attributes(ds, distrusted) if distrusted else plain, words


def resolve_view(ds: Dataset, dialect: Dialect = STANDARD, *, assigned: View | None = None) -> ViewEvidence:
    """Side, projection and kind of `ds` (a header; pixels are not needed), and from which attribute each was read. Never raises.

    With `assigned` a person has decided side and projection: doubts, modifiers and other views no longer stand against it, while what is no
    single mammogram stays set aside. What the header says against it is in `conflicts`.
    """
    header, words = _opened(ds, dialect)
    return _evidence(header, words, assigned)


# --------------------------------------------------------------------------------------- what is remembered of one header


#: Transfer syntaxes that lose information, whatever Lossy Image Compression (0028,2110) says (PS3.5 A.4).
_LOSSY_TRANSFER_SYNTAXES = frozenset(
    {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K},
)

#: Attributes that drift and gantry reports need of every image, by column.
EQUIPMENT = {
    "manufacturer": "Manufacturer",
    "manufacturer_model_name": "ManufacturerModelName",
    "software_versions": "SoftwareVersions",
    "station_name": "StationName",
    "device_serial_number": "DeviceSerialNumber",
    "detector_id": "DetectorID",
    "institution_name": "InstitutionName",
    "body_part_thickness": "BodyPartThickness",
    "kvp": "KVP",
}

#: Patient and study attributes that results copy from an image (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2).
DEMOGRAPHICS = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "StudyDescription",
    "ReferringPhysicianName",
)
#: What results copy of the first item of a sequence.
COPIED_OF_ITEMS = {
    "RequestAttributesSequence": ("RequestedProcedureID", "RequestedProcedureDescription"),
    "ProcedureCodeSequence": ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"),
}


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What the election looks at beside the evidence; see `Candidate`."""

    implant: bool
    partial_view: str
    lossy: bool
    acquired_at: str
    area: int
    acquisition_number: int
    number: int


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What the database remembers of one image's header."""

    evidence: ViewEvidence
    ranking: Ranking
    equipment: Mapping[str, str]
    study_date: str
    rejects: tuple[str, ...] = ()  # SOP Instance UIDs that this Key Object takes out of the study
    rejection_title: str = ""  # its code of CID 7010: "113001" quality, "113037" safety, "113038" worklist entry, "113039" retention
    rejection: str = ""  # why, in words
    demographics: str = ""  # digest of what results copy of patient and study, 64 hex digits; "" of a header that cannot be parsed
    assumed_character_set: str = ""  # by which its text is read, though it says none; see `store.header.name_character_set`


_DATE = r"(\d{4})[.]?(0[1-9]|1[0-2])[.]?(0[1-9]|[12]\d|3[01])"
_TIME = r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(?:\.(\d{1,6})\d*)?)?)?"
_DATE_TIME = re.compile(rf"{_DATE}{_TIME}", re.ASCII)
_OFFSET = re.compile(r"[+-]\d{4}$")


def _moment(date_time: str) -> str:
    """ "YYYYMMDDHHMMSS.FFFFFF" of a date with at least the hour behind it; "" when it is no moment of the calendar's range."""
    match = _DATE_TIME.fullmatch(_OFFSET.sub("", date_time))
    if match is None:
        return ""
    year, month, day, hour, minute, second, fraction = (part or "" for part in match.groups())
    return f"{year}{month}{day}{hour}{minute or '00'}{second or '00'}.{fraction:0<6}"


def _acquired_at(header: Attributes) -> str:
    """When the image was acquired, as "YYYYMMDDHHMMSS.FFFFFF" in the device's own time; "" when the header gives none."""
    written = (
        header.text("AcquisitionDateTime"),
        *(
            header.text(date) + header.text(clock) if header.text(date) and header.text(clock) else ""
            for date, clock in (("AcquisitionDate", "AcquisitionTime"), ("ContentDate", "ContentTime"))
        ),
    )
    return next((moment for one in written if (moment := _moment(one))), "")


def _partial_view(header: Attributes) -> str:
    """Partial View (0028,1350); a code that says which part is shown (0028,1352) says YES where the attribute is missing."""
    return header.text("PartialView") or ("YES" if header.items("PartialViewCodeSequence") else "")


def _demographics(header: Attributes) -> str:
    first_items = [(next(iter(header.items(sequence)), None), keywords) for sequence, keywords in COPIED_OF_ITEMS.items()]
    return digest(
        "demographics",
        *("\\".join(header.written(keyword)) for keyword in DEMOGRAPHICS),
        *("\\".join(item.written(keyword)) if item else "" for item, keywords in first_items for keyword in keywords),
    )


def resolve(ds: Dataset, dialect: Dialect = STANDARD) -> Resolved:
    """Everything that grouping needs of the header `ds` (with `file_meta`). Never raises for what a device wrote into it."""
    header, words = _opened(ds, dialect)
    evidence = _evidence(header, words, None)
    rejected = rejected_images(header)
    transfer_syntax = Attributes(getattr(ds, "file_meta", Dataset())).text("TransferSyntaxUID")
    return Resolved(
        evidence=evidence,
        ranking=Ranking(
            implant="YES" in header.values("BreastImplantPresent"),
            partial_view=_partial_view(header),
            lossy="01" in header.values("LossyImageCompression") or transfer_syntax in _LOSSY_TRANSFER_SYNTAXES,
            acquired_at=_acquired_at(header),
            area=header.number("Rows") * header.number("Columns"),
            acquisition_number=header.number("AcquisitionNumber"),
            number=header.number("InstanceNumber"),
        ),
        equipment={column: "\\".join(header.written(keyword)) for column, keyword in EQUIPMENT.items()},
        study_date=next(iter(header.values("StudyDate")), ""),
        rejects=rejected.sop_instance_uids,
        rejection_title=rejected.title,
        rejection=rejected.reason,
        demographics=_demographics(header),
    )


def unreadable(reason: str) -> Resolved:
    """What is remembered of a file whose header cannot be parsed: set aside, with the reason."""
    return Resolved(
        evidence=ViewEvidence(
            view=None,
            laterality=None,
            laterality_source="",
            view_position=None,
            view_source="",
            kind=ImageKind.UNKNOWN,
            set_aside=reason,
        ),
        ranking=Ranking(implant=False, partial_view="", lossy=False, acquired_at="", area=0, acquisition_number=0, number=0),
        equipment=dict.fromkeys(EQUIPMENT, ""),
        study_date="",
    )
