"""The Comprehensive SR: PS3.16 TID 1500 "Measurement Report" with one TID 1410 group per analysed image.

Every group's region is the rectangle that the model saw, never a contour: no lesion location is claimed. The finding is a private code that
says what was computed ("AI highest-scoring class: Mass"); the SNOMED CT code of what the class is named after hangs below it as
(246090004, SCT, "Associated finding"), so that nobody who looks for the finding itself takes a classifier's output for one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage

from pipeline import wording
from pipeline.report import header, uids
from pipeline.report.content import (
    Code,
    Relationship,
    code_item,
    container_item,
    image_item,
    num_item,
    polyline_item,
    put_content,
    text_item,
    uid_item,
)
from pipeline.report.remarks import remarks
from pipeline.report.values import Report, ReportedView
from store.study import Outcome, Scores, digest

SERIES_NUMBER = 9100
PRIVATE_SCHEME = "99FOURVIEW"


@dataclass(frozen=True)
class ClassCode:
    """How one class of a classifier is coded: the stem of its private code values, and what it is named after in SNOMED CT."""

    stem: str  # at most 10 characters
    named_after: tuple[tuple[str, str], ...] = ()  # (code value, meaning), scheme SCT


#: PS3.16 CID 6016 and 6054. The third class merges two findings and names both; Normal is named after nothing, lest a verdict be read.
CLASS_CODES = {
    "Mass": ClassCode("MASS", (("129788004", "Mammographic breast mass"),)),
    "Calcification": ClassCode("CALC", (("309587003", "Calcification of breast"),)),
    "Architectural/Asymmetry": ClassCode(
        "ARCH-ASYM", (("129792006", "Architectural distortion of breast"), ("129790003", "Asymmetric breast tissue"))
    ),
    wording.NORMAL_CLASS: ClassCode("NORMAL"),
}

BREAST = Code("76752008", "SCT", "Breast")
LATERALITY = {"L": Code("7771000", "SCT", "Left"), "R": Code("24028007", "SCT", "Right")}
#: PS3.16 CID 4014.
VIEW_POSITION = {"CC": Code("399162004", "SCT", "cranio-caudal"), "MLO": Code("399368009", "SCT", "medio-lateral oblique")}
#: PS3.16 CID 4015, by the labels of `ViewEvidence.modifiers` that may stand in a slot.
VIEW_MODIFIERS = {
    "ID": Code("399209000", "SCT", "Implant Displaced"),
    "NP": Code("442581004", "SCT", "Nipple in profile"),
    "AC": Code("441752004", "SCT", "Anterior compression"),
    "IMF": Code("442593008", "SCT", "Infra-mammary fold"),
}

LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
FINDING = Code("121071", "DCM", "Finding")
ASSOCIATED_FINDING = Code("246090004", "SCT", "Associated finding")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
NAME_MEANS = Code("121050", "DCM", "Equivalent Meaning of Concept Name")
COMMENT = Code("121106", "DCM", "Comment")
PERCENT = Code("%", "UCUM", "Percent")
PIXELS = Code("{pixels}", "UCUM", "Pixels")
MILLIMETRE = Code("mm", "UCUM", "millimeter")


def class_code(class_name: str) -> ClassCode:
    """The code of a class; that of an unknown one is derived from its text."""
    return CLASS_CODES.get(class_name) or ClassCode(digest("class", class_name)[:10].upper())


def _private(prefix: str, class_name: str, meaning: str) -> Code:
    return Code(f"{prefix}-{class_code(class_name).stem}", PRIVATE_SCHEME, meaning.replace("\\", "/")[:64].strip())


def _named_after(class_name: str) -> list[bytes]:
    return [
        code_item(Relationship.HAS_CONCEPT_MOD, ASSOCIATED_FINDING, Code(value, "SCT", meaning))
        for value, meaning in class_code(class_name).named_after
    ]


def build_structured_report(report: Report) -> Dataset:
    """The SR of `report`, which has scores or is withdrawn, with file meta information."""
    ds = header.identification(report)
    header.complete(ds, report, kind="sr", sop_class_uid=ComprehensiveSRStorage)
    ds.Modality = "SR"
    ds.SeriesNumber = SERIES_NUMBER
    ds.InstanceNumber = report.version_number
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CurrentRequestedProcedureEvidenceSequence = [_evidence(report)]
    # Everything that was expected is said: never true of a report that says nothing any more.
    whole = report.outcome in (Outcome.COMPLETE, Outcome.UNILATERAL) and not report.failed
    ds.CompletionFlag = "COMPLETE" if whole else "PARTIAL"
    ds.CompletionFlagDescription = _completion(report)[:64]
    ds.VerificationFlag = "UNVERIFIED"
    ds.PreliminaryFlag = "PRELIMINARY"
    predecessor = report.predecessors.get("sr")
    if predecessor is not None:
        reference = _reference(predecessor.sop_class_uid, predecessor.sop_instance_uid)
        ds.PredecessorDocumentsSequence = [_in_study(report, [(predecessor.series_instance_uid, [reference])])]
    request = _referenced_request(report)
    if request is not None:
        ds.ReferencedRequestSequence = [request]
    _put_content(ds, report)
    return ds


def _referenced(report: Report) -> tuple[ReportedView, ...]:
    """The images that the SR is about: the analysed ones; when it is withdrawn, all that the earlier version was made from."""
    return report.views if report.withdrawn else report.analysed


def _evidence(report: Report) -> Dataset:
    """PS3.3 C.17.2.3, the item of Current Requested Procedure Evidence Sequence: every image that the content names."""
    series: dict[str, list[Dataset]] = {}
    for reported in _referenced(report):
        series.setdefault(header.uid_of(reported.header, "SeriesInstanceUID"), []).append(_reference(*_image(reported)))
    return _in_study(report, series.items())


def _in_study(report: Report, series: Iterable[tuple[str, list[Dataset]]]) -> Dataset:
    """Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1): instances of this study, by series."""
    item = Dataset()
    item.StudyInstanceUID = report.study_instance_uid
    item.ReferencedSeriesSequence = []
    for series_instance_uid, references in series:
        one = Dataset()
        one.SeriesInstanceUID = series_instance_uid
        one.ReferencedSOPSequence = references
        item.ReferencedSeriesSequence.append(one)
    return item


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def _image(reported: ReportedView) -> tuple[str, str]:
    """SOP Class UID and SOP Instance UID."""
    return header.uid_of(reported.header, "SOPClassUID"), header.uid_of(reported.header, "SOPInstanceUID")


def _completion(report: Report) -> str:
    if report.withdrawn:
        return report.words.withdrawal_in_short
    analysed = report.words.views_analysed(len(report.analysed), report.slots)
    return analysed if report.outcome is Outcome.COMPLETE else f"{report.outcome}: {analysed}"


def _referenced_request(report: Report) -> Dataset | None:
    """PS3.3 C.17.2, Referenced Request Sequence: which order the images answered; None when they name none."""
    copied = header.copied_header(report.headers)
    if not ({"AccessionNumber", "RequestedProcedureID"} & copied.keys()):
        return None
    item = Dataset()
    item.StudyInstanceUID = report.study_instance_uid
    item.ReferencedStudySequence = []
    item.AccessionNumber = copied.get("AccessionNumber", "")
    item.PlacerOrderNumberImagingServiceRequest = item.FillerOrderNumberImagingServiceRequest = ""
    item.RequestedProcedureID = copied.get("RequestedProcedureID", "")
    item.RequestedProcedureDescription = copied.get("RequestedProcedureDescription", "")
    item.RequestedProcedureCodeSequence = []
    return item


def _put_content(ds: Dataset, report: Report) -> None:
    """The root container, TID 1500."""
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "1500"
    ds.ValueType = "CONTAINER"
    ds.ConceptNameCodeSequence = [header.code_item("126000", "DCM", "Imaging Measurement Report")]
    ds.ContinuityOfContent = "CONTINUOUS"
    ds.ContentTemplateSequence = [template]
    tag, name = report.words.code
    items = (
        code_item(Relationship.HAS_CONCEPT_MOD, LANGUAGE, Code(tag, "RFC5646", name)),
        *_observer(report),
        code_item(Relationship.HAS_CONCEPT_MOD, PROCEDURE_REPORTED, _procedure_reported(report)),
        _image_library(report),
        _imaging_measurements(report),
        _remarks(report),
    )
    put_content(ds, items)


def _observer(report: Report) -> list[bytes]:
    """TID 1002 and 1004: this device."""
    context, installation = Relationship.HAS_OBS_CONTEXT, report.installation
    said = (
        (Code("121013", "DCM", "Device Observer Name"), installation.ae_title),
        (Code("121014", "DCM", "Device Observer Manufacturer"), header.PRODUCT),
        (Code("121015", "DCM", "Device Observer Model Name"), header.PRODUCT),
        (Code("121016", "DCM", "Device Observer Serial Number"), installation.serial_number),
    )
    return [
        code_item(context, Code("121005", "DCM", "Observer Type"), Code("121007", "DCM", "Device")),
        uid_item(context, Code("121012", "DCM", "Device Observer UID"), installation.device_uid),
        *(text_item(context, name, text) for name, text in said),
    ]


def _imaging_measurements(report: Report) -> bytes:
    """One group per analysed image.

    A withdrawn report has this container without a group. TID 1500 would do without the container, but viewers that look into it unasked
    (OHIF does) would stop there; a group without a region and a number would stop them too, and would list a finding where there is none.
    """
    groups = [_measurement_group(report, reported) for reported in report.analysed]
    return container_item(Relationship.CONTAINS, Code("126010", "DCM", "Imaging Measurements"), groups)


def _procedure_reported(report: Report) -> Code:
    code = header.copied_header(report.headers).get("ProcedureCodeSequence")
    return Code(*code.split("^")) if code else Code("43468-8", "LN", "XR unspecified body region")


def _image_library(report: Report) -> bytes:
    """TID 1600."""
    images = [_library_image(reported) for reported in _referenced(report)]
    group = container_item(Relationship.CONTAINS, Code("126200", "DCM", "Image Library Group"), images)
    return container_item(Relationship.CONTAINS, Code("111028", "DCM", "Image Library"), [group])


def _library_image(reported: ReportedView) -> bytes:
    """TID 1601 with the descriptors of TID 1602 and 1603 that the image has."""
    context, view = Relationship.HAS_ACQ_CONTEXT, reported.view
    modifiers = [VIEW_MODIFIERS[label] for label in reported.evidence.modifiers if label in VIEW_MODIFIERS]
    modifier = Code("111032", "DCM", "Image View Modifier")
    return image_item(
        Relationship.CONTAINS,
        Code("121324", "DCM", "Source image"),
        *_image(reported),
        code_item(context, Code("121139", "DCM", "Modality"), Code("MG", "DCM", "Mammography")),
        code_item(context, Code("123014", "DCM", "Target Region"), BREAST),
        code_item(context, Code("111027", "DCM", "Image Laterality"), LATERALITY[view.laterality]),
        *_size(reported.scores),
        code_item(
            context,
            Code("111031", "DCM", "Image View"),
            VIEW_POSITION[view.position],
            *(code_item(Relationship.HAS_CONCEPT_MOD, modifier, code) for code in modifiers),
        ),
        *_orientation(reported.header),
        *_spacing(reported.header),
    )


def _size(scores: Scores | None) -> list[bytes]:
    """Rows and columns of the pixels that were read; nothing where none were."""
    if scores is None:
        return []
    names = (Code("110910", "DCM", "Pixel Data Rows"), Code("110911", "DCM", "Pixel Data Columns"))
    return [
        num_item(Relationship.HAS_ACQ_CONTEXT, name, value, PIXELS)
        for name, value in zip(names, (scores.rows, scores.columns), strict=True)
    ]


def _orientation(ds: Dataset) -> list[bytes]:
    directions = header.text(ds, "PatientOrientation").split("\\")
    if len(directions) != 2 or not all(directions):
        return []
    names = (Code("111044", "DCM", "Patient Orientation Row"), Code("111043", "DCM", "Patient Orientation Column"))
    return [text_item(Relationship.HAS_ACQ_CONTEXT, name, value) for name, value in zip(names, directions, strict=True)]


def _spacing(ds: Dataset) -> list[bytes]:
    """Imager Pixel Spacing (0018,1164): first between rows (vertical), then between columns (horizontal), mm in the detector's plane."""
    try:
        vertical, horizontal = (float(value) for value in header.text(ds, "ImagerPixelSpacing").split("\\"))
    except ValueError:
        return []
    if not (0 < vertical < math.inf and 0 < horizontal < math.inf):
        return []
    names = (Code("111026", "DCM", "Horizontal Pixel Spacing"), Code("111066", "DCM", "Vertical Pixel Spacing"))
    return [
        num_item(Relationship.HAS_ACQ_CONTEXT, name, value, MILLIMETRE) for name, value in zip(names, (horizontal, vertical), strict=True)
    ]


def _measurement_group(report: Report, reported: ReportedView) -> bytes:
    """TID 1410: what the model said of one image."""
    scores = reported.scores
    assert scores is not None, "groups are made of analysed views only"
    view = reported.view
    sop_class_uid, sop_instance_uid = _image(reported)
    tracking_uid = uids.tracking_uid(report.study_instance_uid, sop_instance_uid, report.model)
    finding = _private("AI", scores.predicted_class, wording.highest_class(scores.predicted_class))
    laterality = code_item(Relationship.HAS_CONCEPT_MOD, Code("272741003", "SCT", "Laterality"), LATERALITY[view.laterality])
    source = image_item(Relationship.SELECTED_FROM, Code("260753009", "SCT", "Source"), sop_class_uid, sop_instance_uid)
    ranked = sorted(zip(scores.classes, scores.probabilities, strict=True), key=lambda pair: -pair[1])
    items = [
        text_item(Relationship.HAS_OBS_CONTEXT, Code("112039", "DCM", "Tracking Identifier"), str(view)),
        uid_item(Relationship.HAS_OBS_CONTEXT, Code("112040", "DCM", "Tracking Unique Identifier"), tracking_uid),
        code_item(Relationship.CONTAINS, FINDING, finding, *_named_after(scores.predicted_class)),
        code_item(Relationship.HAS_CONCEPT_MOD, Code("363698007", "SCT", "Finding Site"), BREAST, laterality),
        *_algorithm(report),
        *(_score(class_name, probability, report.words) for class_name, probability in ranked),
        polyline_item(Relationship.CONTAINS, Code("111030", "DCM", "Image Region"), _rectangle(scores.box), source),
    ]
    return container_item(Relationship.CONTAINS, Code("125007", "DCM", "Measurement Group"), items, template="1410")


def _algorithm(report: Report) -> list[bytes]:
    """TID 4019: which model said it."""
    modifier, model = Relationship.HAS_CONCEPT_MOD, report.model
    weights = f" (weights {model.weights_sha256[:12]})" if model.weights_sha256 else ""
    said = [
        (Code("111001", "DCM", "Algorithm Name"), model.name),
        (Code("111003", "DCM", "Algorithm Version"), f"{model.version}{weights}"),
        *([(Code("122405", "DCM", "Algorithm Manufacturer"), model.manufacturer)] if model.manufacturer else []),
        *((Code("111002", "DCM", "Algorithm Parameters"), parameter) for parameter in _parameters(report)),
    ]
    family = code_item(modifier, Code("111000", "DCM", "Algorithm Family"), Code("123110", "DCM", "Artificial Intelligence"))
    return [*(text_item(modifier, name, text) for name, text in said), family]


def _parameters(report: Report) -> list[str]:
    model = report.model
    facts = [f"weights=sha256:{model.weights_sha256}"] if model.weights_sha256 else []
    facts += [f"preprocessing={model.profile}", f"engine={model.engine}", "score=softmax, uncalibrated"]
    facts += [f"{name}={value}" for name, value in model.options]
    meaningless = report.words.meaningless(model)
    return [*facts, meaningless] if meaningless else facts


def _rectangle(box: tuple[int, int, int, int]) -> list[tuple[float, float]]:
    """A closed polyline of (column, row) around `box`: SCOORD counts from the top left corner of the first pixel (PS3.3 C.18.6.1.2)."""
    x_min, y_min, x_max, y_max = box
    return [(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max), (x_min, y_min)]


def _score(class_name: str, probability: float, words: wording.Wording) -> bytes:
    """TID 300: one class's score in per cent, with two decimals."""
    modifier = Relationship.HAS_CONCEPT_MOD
    of_class = _private("CLASS", class_name, wording.class_of(class_name))
    return num_item(
        Relationship.CONTAINS,
        CERTAINTY,
        round(100 * probability, 2),
        PERCENT,
        code_item(modifier, FINDING, of_class, *_named_after(class_name)),
        text_item(modifier, NAME_MEANS, words.score_of(class_name)),
    )


def _remarks(report: Report) -> bytes:
    lines = [text_item(Relationship.CONTAINS, COMMENT, line) for line in remarks(report)]
    return container_item(Relationship.CONTAINS, Code("C0034375", "UMLS", "Qualitative Evaluations"), lines)
