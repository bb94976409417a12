"""Key Objects that take images out of a study: IHE IOCM, PS3.3 C.17.6 (Key Object Document), PS3.16 CID 7010 and CID 7011."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import KeyObjectSelectionDocumentStorage

from store.header_text import Attributes

#: Document titles of CID 7010 that reject, and the words for each.
REJECTION_TITLES = {
    "113001": "rejected for quality reasons",
    "113037": "rejected for patient safety reasons",
    "113038": "incorrect modality worklist entry",
    "113039": "data retention policy expired",
}

#: CID 7011, Rejected for Quality Reasons.
QUALITY_REASONS = {
    "111207": "Image artifact(s)",
    "111208": "Grid artifact(s)",
    "111209": "Positioning",
    "111210": "Motion blur",
    "111211": "Under exposed",
    "111212": "Over exposed",
    "111213": "No image",
    "111214": "Detector artifact(s)",
    "111215": "Artifact(s) other than grid or detector artifact",
    "111216": "Mechanical failure",
    "111217": "Electrical failure",
    "111218": "Software failure",
    "111219": "Inappropriate image processing",
    "111220": "Other failure",
    "111221": "Unknown failure",
    "113026": "Double exposure",
}

_QUALITY = "113001"
_TITLE_MODIFIER = "113011"


@dataclass(frozen=True, kw_only=True)
class RejectedImages:
    """What a Key Object rejects; the defaults stand for an object that rejects nothing."""

    title: str = ""  # code of CID 7010
    sop_instance_uids: tuple[str, ...] = ()  # sorted
    reason: str = ""  # in words of ours


def rejected_images(header: Attributes) -> RejectedImages:
    """What the object rejects. Words are from the Standard's tables: a Key Object's own text may say anything of anybody."""
    if header.text("SOPClassUID") != KeyObjectSelectionDocumentStorage:
        return RejectedImages()
    titles = _coded(header.items("ConceptNameCodeSequence"))
    title = next((title for title in titles if title in REJECTION_TITLES), "")
    if not title:
        return RejectedImages()
    reasons = _quality_reasons(header) if title == _QUALITY else []
    rejected = {
        reference.text("ReferencedSOPInstanceUID")
        for study in header.items("CurrentRequestedProcedureEvidenceSequence")
        for series in study.items("ReferencedSeriesSequence")
        for reference in series.items("ReferencedSOPSequence")
    }
    return RejectedImages(
        title=title,
        sop_instance_uids=tuple(sorted(rejected - {""})),
        reason=": ".join(part for part in (REJECTION_TITLES[title], ", ".join(reasons)) if part),
    )


def _quality_reasons(header: Attributes) -> list[str]:
    found = [
        QUALITY_REASONS[value]
        for item in header.items("ContentSequence")
        if _TITLE_MODIFIER in _coded(item.items("ConceptNameCodeSequence"))
        for value in _coded(item.items("ConceptCodeSequence"))
        if value in QUALITY_REASONS
    ]
    return list(dict.fromkeys(found))


def _coded(items: tuple[Attributes, ...]) -> list[str]:
    return [value for scheme, value in (item.code() for item in items) if scheme == "DCM"]
