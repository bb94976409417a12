"""Which view an image shows, and how we know: the evidence for side and projection, read from the header alone.

Implements PS3.16 CID 4014 (View for Mammography), CID 4015 (View Modifier for Mammography), PS3.3 C.8.11.7 (Mammography
Image Module; Image Type values in C.8.11.7.1.4) and C.7.6.16.2.8 (Frame Anatomy). A code beats a view position beats text;
a contradiction between two structural sources of the side is a doubt, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    KeyObjectSelectionDocumentStorage,
)

from store.study import ImageKind, View, ViewEvidence

#: PS3.3 C.8.11.7.1.2: receivers treat the designators SNM3 and 99SDM as SRT in mammography.
_SRT_ALIASES = {"SRT", "SNM3", "99SDM"}

#: CID 4014: label -> codes in SCT, codes in SRT. Only CC and MLO fill a slot.
CID_4014: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "CC": (("399162004",), ("R-10242",)),
    "MLO": (("399368009",), ("R-10226",)),
    "ML": (("399260004",), ("R-10224",)),
    "LM": (("399352003",), ("R-10228",)),
    "LMO": (("399099002",), ("R-10230",)),
    "FB": (("399196006",), ("R-10244",)),
    "SIO": (("399188001",), ("R-102D0",)),
    "ISO": (("441555000",), ("R-40AAA",)),
    "XCCL": (("399192008",), ("R-1024A", "Y-X1770")),
    "XCCM": (("399101009",), ("R-1024B", "Y-X1771")),
    "XCC": (("399265009",), ("R-102CF",)),
    "SPECIMEN": (("127457009",), ("G-8310",)),
}

#: CID 4015: label -> codes in SCT, codes in SRT, and the word for it.
CID_4015: dict[str, tuple[str, str, str]] = {
    "ID": ("399209000", "R-102D5", "implant displaced"),
    "M": ("399163009", "R-102D6", "magnification"),
    "S": ("399055006", "R-102D7", "spot compression"),
    "CV": ("399161006", "R-102D2", "cleavage"),
    "AT": ("399011000", "R-102D1", "axillary tail"),
    "RL": ("399197002", "R-102D3", "rolled lateral"),
    "RM": ("399226006", "R-102D4", "rolled medial"),
    "RI": ("414493004", "R-102CA", "rolled inferior"),
    "RS": ("415670009", "R-102C9", "rolled superior"),
    "TAN": ("399110001", "R-102C2", "tangential"),
    "NP": ("442581004", "R-40AB3", "nipple in profile"),
    "AC": ("441752004", "P2-00161", "anterior compression"),
    "IMF": ("442593008", "R-40ABE", "infra-mammary fold"),
    "AX": ("442580003", "R-40AB2", "axillary tissue"),
}

#: Modifiers with which an image may still fill a slot; all others show a part or another projection.
SLOT_MODIFIERS = frozenset({"ID", "NP", "AC", "IMF"})

_VIEW_BY_CODE = {("SCT", code): label for label, (sct, _) in CID_4014.items() for code in sct} | {
    ("SRT", code): label for label, (_, srt) in CID_4014.items() for code in srt
}
_MODIFIER_BY_CODE = {("SCT", sct): label for label, (sct, _, _) in CID_4015.items()} | {
    ("SRT", srt): label for label, (_, srt, _) in CID_4015.items()
}

#: Exact meanings of CID 4014, for items whose value or designator is missing.
_VIEW_BY_MEANING = {
    "CRANIO CAUDAL": "CC",
    "MEDIO LATERAL OBLIQUE": "MLO",
    "MEDIO LATERAL": "ML",
    "LATERO MEDIAL": "LM",
    "LATERO MEDIAL OBLIQUE": "LMO",
    "CRANIO CAUDAL EXAGGERATED LATERALLY": "XCCL",
    "CRANIO CAUDAL EXAGGERATED MEDIALLY": "XCCM",
}
_VIEW_POSITIONS = frozenset(CID_4014) - {"SPECIMEN"}

#: Anatomic Region (0008,2218) items and modifiers (0008,2220) that name a side: (designator, value) -> side.
_SIDE_BY_CODE = {
    ("SCT", "80248007"): "L",
    ("SRT", "T-04030"): "L",
    ("SCT", "73056007"): "R",
    ("SRT", "T-04020"): "R",
    ("SCT", "7771000"): "L",
    ("SRT", "G-A101"): "L",
    ("SCT", "24028007"): "R",
    ("SRT", "G-A100"): "R",
}

#: Image Type value 3 (PS3.3 C.8.11.7.1.4) -> kind; prefixes for the families that have numbered members.
_KIND_BY_PREFIX = (
    ("TOMO_PROJ", ImageKind.TOMOSYNTHESIS),
    ("TOMO_SCOUT", ImageKind.STEREOTACTIC),
    ("STEREO_", ImageKind.STEREOTACTIC),
    ("PREFIRE", ImageKind.STEREOTACTIC),
    ("POSTFIRE", ImageKind.STEREOTACTIC),
    ("POSTBIOPSY", ImageKind.STEREOTACTIC),
    ("POSTMARKER", ImageKind.STEREOTACTIC),
)
_SYNTHETIC_NAMES = re.compile(r"\b(C-?VIEW|S-VIEW|INTELLIGENT 2D|INSIGHT 2D|V-PREVIEW|SYNTH\w*)")

_TEXT_SOURCES = (
    "ViewPosition",
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "PerformedProcedureStepDescription",
)
_SIDE_WORDS = {"L": "L", "LT": "L", "LEFT": "L", "R": "R", "RT": "R", "RIGHT": "R"}
_VIEW_WORDS = _VIEW_POSITIONS
_GLUED = re.compile(r"^([LR])([MS]?)(CC|MLO|ML|LM|LMO|XCCL|XCCM|FB)(ID|RL|RM|RI|RS|NP|AC|IMF|AX)?$")


#: What pydicom raises for values that a device wrote wrongly.
UNREADABLE = (ValueError, TypeError, LookupError, NotImplementedError, OverflowError, OSError, BytesLengthException)


def text(ds: Dataset, keyword: str) -> str:
    """The element's first value as text, upper case, without NULs and padding; "" when absent, empty or unreadable."""
    return _first(values(ds, keyword))


def values(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """The element's values as text, upper case, without NULs and padding. An unreadable one has none: the image is decided without it."""
    return tuple(value.upper() for value in _written(ds, keyword))


def _written(ds: Dataset, keyword: str) -> tuple[str, ...]:
    try:
        value = ds.get(keyword)
    except UNREADABLE:
        return ()
    if value is None or isinstance(value, (bytes, Dataset, Sequence)):
        return ()
    several = value if isinstance(value, (MultiValue, list, tuple)) else (value,)
    return tuple(str(one).replace("\0", "").strip() for one in several)


def _first(several: tuple[str, ...]) -> str:
    return several[0] if several else ""


def items(ds: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence; none when it is absent or is not a sequence at all."""
    try:
        value = ds.get(keyword)
    except UNREADABLE:
        return ()
    if value is None or isinstance(value, (str, bytes)):
        return ()
    return tuple(item for item in value if isinstance(item, Dataset)) if hasattr(value, "__iter__") else ()


def _code(item: Dataset) -> tuple[str, str]:
    scheme = text(item, "CodingSchemeDesignator")
    return ("SRT" if scheme in _SRT_ALIASES else scheme, text(item, "CodeValue"))


def _functional_groups(ds: Dataset) -> Iterator[Dataset]:
    yield from items(ds, "SharedFunctionalGroupsSequence")
    yield from items(ds, "PerFrameFunctionalGroupsSequence")


def _side(value: str) -> str | None:
    return value if value in ("L", "R") else None


def _lateralities(ds: Dataset) -> list[tuple[str, str]]:
    """(side, attribute) from each structural source that names one, strongest first."""
    found: list[tuple[str, str]] = []
    found += [(side, "ImageLaterality") for value in values(ds, "ImageLaterality") if (side := _side(value))]
    frames = {text(anatomy, "FrameLaterality") for group in _functional_groups(ds) for anatomy in items(group, "FrameAnatomySequence")}
    if len(frames) == 1 and (side := _side(frames.pop())):
        found.append((side, "FrameLaterality"))
    if not text(ds, "ImageLaterality"):
        found += [(side, "Laterality") for value in values(ds, "Laterality") if (side := _side(value))]
    for region in items(ds, "AnatomicRegionSequence"):
        for item in (region, *items(region, "AnatomicRegionModifierSequence")):
            if side := _SIDE_BY_CODE.get(_code(item)):
                found.append((side, "AnatomicRegionSequence"))
    return found


def _tokens(ds: Dataset, keyword: str) -> list[str]:
    return re.sub(r"[^A-Z0-9]+", " ", " ".join(values(ds, keyword))).split()


def _from_text(ds: Dataset) -> tuple[str | None, str | None, tuple[str, ...], str]:
    """(side, view label, modifiers, attribute) from the first free text that names a view. Whole words only: "CC" is inside "XCCL"."""
    for keyword in _TEXT_SOURCES:
        if keyword == "ViewPosition" and _view_position(ds):
            continue  # a value of its own, not a text: it never names a side
        words = _tokens(ds, keyword)
        glued = {match.groups() for word in words if (match := _GLUED.match(word))}
        if len(glued) == 1:
            side, prefix, label, suffix = glued.pop()
            return side, label, tuple(part for part in (prefix, suffix) if part), keyword
        sides = {_SIDE_WORDS[word] for word in words if word in _SIDE_WORDS}
        labels = {word for word in words if word in _VIEW_WORDS}
        if len(labels) == 1:
            return (sides.pop() if len(sides) == 1 else None), labels.pop(), (), keyword
    return None, None, (), ""


def _view_position(ds: Dataset) -> str:
    """View Position when it is exactly a label of CID 4014, else ""."""
    found = set(values(ds, "ViewPosition"))
    return found.pop() if len(found) == 1 and found <= _VIEW_POSITIONS else ""


def _view_label(ds: Dataset) -> tuple[str | None, str]:
    """(label of CID 4014, attribute) by code, then by exact View Position, then by exact meaning."""
    sequence = items(ds, "ViewCodeSequence")
    item = sequence[0] if len(sequence) == 1 else None
    if item is not None and (label := _VIEW_BY_CODE.get(_code(item))):
        return label, "ViewCodeSequence"
    if position := _view_position(ds):
        return position, "ViewPosition"
    if item is not None and not all(_code(item)):
        meaning = re.sub(r"[^A-Z]+", " ", text(item, "CodeMeaning")).strip()
        if label := _VIEW_BY_MEANING.get(meaning):
            return label, "ViewCodeSequence meaning"
    return None, ""


def _modifiers(ds: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(known labels, unknown codes) of the view modifiers, inside the view's items or, as some devices write them, at top level."""
    sequences = [modifier for item in (*items(ds, "ViewCodeSequence"), ds) for modifier in items(item, "ViewModifierCodeSequence")]
    known: list[str] = []
    unknown: list[str] = []
    for modifier in sequences:
        scheme, value = _code(modifier)
        label = _MODIFIER_BY_CODE.get((scheme, value))
        if label is not None:
            known.append(label)
        elif name := value or text(modifier, "CodeMeaning"):
            unknown.append(f"{name} ({scheme})")
    return tuple(sorted(set(known))), tuple(sorted(set(unknown)))


def image_kind(ds: Dataset) -> ImageKind:
    """What the object is: FFDM, synthetic, contrast, tomosynthesis, biopsy guidance, specimen, phantom (PS3.3 C.8.11.7.1.4)."""
    parts = (*values(ds, "ImageType"), "", "", "", "", "")
    value_3, value_4, value_5 = parts[2], parts[3], parts[4]
    if text(ds, "QualityControlImage") == "YES":
        return ImageKind.PHANTOM
    if _view_label(ds)[0] == "SPECIMEN" or text(ds, "PositionerType") == "NONE":
        return ImageKind.SPECIMEN
    if "TOMO_2D" in parts or value_4 == "GENERATED_2D" or _SYNTHETIC_NAMES.search(text(ds, "SeriesDescription")):
        return ImageKind.SYNTHETIC_2D
    if value_3 == "TOMOSYNTHESIS":
        return ImageKind.TOMOSYNTHESIS
    if value_3 in ("PRE_CONTRAST", "POST_CONTRAST"):
        low_energy = value_5 == "LOW_ENERGY" and value_4 not in ("SUBTRACTION", "ADDITION")
        return ImageKind.CONTRAST_LOW_ENERGY if low_energy else ImageKind.CONTRAST_OTHER
    for prefix, kind in _KIND_BY_PREFIX:
        if value_3.startswith(prefix):
            return kind
    if text(ds, "VolumetricProperties") == "VOLUME":
        return ImageKind.UNKNOWN
    if text(ds, "SOPClassUID") == ComputedRadiographyImageStorage:
        return ImageKind.CR
    return ImageKind.FFDM


#: Kinds that never fill a slot, whatever the model was trained on.
_NEVER = {
    ImageKind.TOMOSYNTHESIS: "a tomosynthesis image, not a single exposure",
    ImageKind.STEREOTACTIC: "an image of biopsy guidance",
    ImageKind.CONTRAST_OTHER: "a contrast image other than low energy",
    ImageKind.SPECIMEN: "a specimen, not a breast in place",
    ImageKind.PHANTOM: "a quality control image",
}


def _set_aside(ds: Dataset, kind: ImageKind, label: str | None, modifiers: tuple[str, ...], unknown_modifiers: tuple[str, ...]) -> str:
    """Why the image is not for us, "" when nothing speaks against it. It changes nothing in the study."""
    if text(ds, "Modality") != "MG":
        return f"Modality (0008,0060) is {text(ds, 'Modality') or 'absent'}, not MG"
    if text(ds, "SOPClassUID") == DigitalMammographyXRayImageStorageForProcessing or text(ds, "PresentationIntentType") == "FOR PROCESSING":
        return "For Processing: the model reads For Presentation images"
    if text(ds, "SOPClassUID") not in (DigitalMammographyXRayImageStorageForPresentation, ComputedRadiographyImageStorage):
        return "its SOP class is not Digital Mammography X-Ray Image Storage - For Presentation"
    if text(ds, "NumberOfFrames") not in ("", "0", "1"):
        return f"it has {text(ds, 'NumberOfFrames')} frames"
    if text(ds, "SamplesPerPixel") not in ("", "1") or text(ds, "PhotometricInterpretation") not in ("", "MONOCHROME1", "MONOCHROME2"):
        return f"it is not a greyscale image ({text(ds, 'PhotometricInterpretation')})"
    if kind in _NEVER:
        return _NEVER[kind]
    excluded = [CID_4015[modifier][2] for modifier in modifiers if modifier not in SLOT_MODIFIERS]
    if excluded:
        return f"view modifier {', '.join(excluded)}"
    if unknown_modifiers:
        return f"unknown view modifier {', '.join(unknown_modifiers)}"
    if label is not None and label not in ("CC", "MLO"):
        return f"view {label} is none of the four standard views"
    return ""


def _projection_modifiers(ds: Dataset) -> tuple[str, ...]:
    """Spot and magnification where the modifier is missing: the paddle, or the magnification factor (PS3.3 C.8.7.4)."""
    paddle = _tokens(ds, "PaddleDescription")
    found = []
    if any(word.startswith(("SPOT", "SPT")) for word in paddle):
        found.append("S")
    try:
        magnified = float(text(ds, "EstimatedRadiographicMagnificationFactor") or 1) > 1.2
    except ValueError:
        magnified = False
    if magnified or any(word.startswith("MAG") for word in paddle):
        found.append("M")
    return tuple(found)


def resolve_view(ds: Dataset) -> ViewEvidence:
    """Side, projection and kind of `ds` (a header; pixels are not needed), and from which attribute each was read. Never raises."""
    kind = image_kind(ds)
    label, view_source = _view_label(ds)
    modifiers, unknown_modifiers = _modifiers(ds)
    modifiers = tuple(sorted({*modifiers, *_projection_modifiers(ds)}))
    lateralities = _lateralities(ds)
    conflicts: list[str] = []
    warnings: list[str] = []

    position = _view_position(ds)
    if view_source == "ViewCodeSequence" and position and position != label:
        conflicts.append(f"ViewCodeSequence says {label}, ViewPosition says {position}: the code is used")
    if len(items(ds, "ViewCodeSequence")) > 1:
        warnings.append("ViewCodeSequence has several items and was not used")

    side, laterality_source = lateralities[0] if lateralities else (None, "")
    sides = {found for found, _ in lateralities}
    doubt = ""
    if len(sides) > 1:
        told = ", ".join(f"{source} says {found}" for found, source in lateralities)
        conflicts.append(f"laterality: {told}")
        doubt = f"its side is contradictory: {told}"
    series_side = _side(text(ds, "Laterality"))
    if laterality_source == "ImageLaterality" and series_side and series_side != side:
        warnings.append(f"Laterality of the series says {series_side}, ImageLaterality says {side}")

    # Both breasts in one image, or a stated side we do not know: text must not override it.
    bilateral = text(ds, "ImageLaterality") not in ("", "L", "R")
    if (label is None or side is None) and not bilateral:
        text_side, text_label, text_modifiers, source = _from_text(ds)
        if label is None and text_label is not None:
            label, view_source = text_label, f"text of {source}"
            modifiers = tuple(sorted({*modifiers, *text_modifiers}))
            warnings.append(f"view {text_label} was read from the text of {source}")
        if side is None and text_side is not None and text_label == label:
            side, laterality_source = text_side, f"text of {source}"
            warnings.append(f"side {text_side} was read from the text of {source}")

    column = (*values(ds, "PatientOrientation"), "", "")[1]
    towards = {"L": "R", "R": "L"}.get(column[-1:])  # the columns of a mammogram run away from the breast's own side (PS3.3 C.7.6.1.1.1)
    if side is None and not bilateral and label == "CC" and towards:
        side, laterality_source = towards, "PatientOrientation"
        warnings.append(f"side {side} was inferred from PatientOrientation")
    elif side is not None and label in ("CC", "MLO") and towards and towards != side:
        warnings.append(f"PatientOrientation column {column} does not fit side {side}")

    set_aside = _set_aside(ds, kind, label, modifiers, unknown_modifiers)
    if not set_aside and label is None:
        set_aside = "no attribute names its view"
    if not set_aside and bilateral:
        set_aside = f"ImageLaterality is {text(ds, 'ImageLaterality')}: not one breast"
    if not set_aside and not doubt and side is None:
        doubt = f"view {label} without a side: no attribute says left or right"
    if set_aside:
        doubt = ""
    view = None if set_aside or doubt or side is None or label is None else View(f"{side}-{label}")
    return ViewEvidence(
        view=view,
        laterality=side,
        laterality_source=laterality_source,
        view_position=label,
        view_source=view_source,
        kind=kind,
        modifiers=modifiers,
        conflicts=tuple(conflicts),
        warnings=tuple(warnings),
        set_aside=set_aside,
        doubt=doubt,
    )


# --------------------------------------------------------------------------------------- what is remembered of one header


#: IHE IOCM Key Object titles (PS3.16 CID 7010) that take images out of a study; the word for each.
REJECTION_TITLES = {
    "113001": "rejected for quality reasons",
    "113037": "rejected for patient safety reasons",
    "113038": "incorrect modality worklist entry",
}

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


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What the election looks at beside the evidence; see `Candidate`."""

    implant: bool
    partial_view: str
    lossy: bool
    acquired_at: str
    area: int
    number: int


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What the database remembers of one image's header."""

    evidence: ViewEvidence
    ranking: Ranking
    equipment: Mapping[str, str]
    study_date: str
    rejects: tuple[str, ...] = ()  # SOP Instance UIDs that this Key Object takes out of the study
    rejection: str = ""  # why, in words


def _number(ds: Dataset, keyword: str) -> int:
    found = text(ds, keyword)
    return int(found) if found.isdecimal() else 0


def _acquired_at(ds: Dataset) -> str:
    """When the image was acquired, as "YYYYMMDDHHMMSS.FFFFFF" in the device's own time; "" when the header gives none."""
    if (moment := text(ds, "AcquisitionDateTime"))[:14].isdigit() and len(moment) >= 14:
        return re.sub(r"[+-]\d{4}$", "", moment).ljust(21, "0") if "." in moment else f"{moment[:14]}.000000"
    for date_keyword, time_keyword in (("AcquisitionDate", "AcquisitionTime"), ("ContentDate", "ContentTime")):
        date, clock = text(ds, date_keyword), text(ds, time_keyword)
        if len(date) == 8 and date.isdigit() and clock[:2].isdigit():
            whole, _, fraction = clock.partition(".")
            return f"{date}{whole.ljust(6, '0')}.{fraction.ljust(6, '0')}"
    return ""


def _rejection(ds: Dataset) -> tuple[tuple[str, ...], str]:
    """(SOP Instance UIDs, why) of a rejecting Key Object of IHE IOCM; nothing for any other object."""
    if text(ds, "SOPClassUID") != KeyObjectSelectionDocumentStorage:
        return (), ""
    titles = [value for scheme, value in map(_code, items(ds, "ConceptNameCodeSequence")) if scheme == "DCM"]
    why = next((REJECTION_TITLES[title] for title in titles if title in REJECTION_TITLES), "")
    if not why:
        return (), ""
    return tuple(
        sorted(
            {
                text(reference, "ReferencedSOPInstanceUID")
                for study in items(ds, "CurrentRequestedProcedureEvidenceSequence")
                for series in items(study, "ReferencedSeriesSequence")
                for reference in items(series, "ReferencedSOPSequence")
            }
        )
    ), why


def resolve(ds: Dataset) -> Resolved:
    """Everything that grouping needs of the header `ds` (with `file_meta`). Never raises for what a device wrote into it."""
    rejects, rejection = _rejection(ds)
    transfer_syntax = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID", "")
    return Resolved(
        evidence=resolve_view(ds),
        ranking=Ranking(
            implant=text(ds, "BreastImplantPresent") == "YES",
            partial_view=text(ds, "PartialView"),
            lossy=text(ds, "LossyImageCompression") == "01" or transfer_syntax in _LOSSY_TRANSFER_SYNTAXES,
            acquired_at=_acquired_at(ds),
            area=_number(ds, "Rows") * _number(ds, "Columns"),
            number=_number(ds, "InstanceNumber"),
        ),
        equipment={column: "\\".join(_written(ds, keyword)) for column, keyword in EQUIPMENT.items()},
        study_date=text(ds, "StudyDate"),
        rejects=rejects,
        rejection=rejection,
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
        ranking=Ranking(implant=False, partial_view="", lossy=False, acquired_at="", area=0, number=0),
        equipment=dict.fromkeys(EQUIPMENT, ""),
        study_date="",
    )
