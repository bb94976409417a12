"""The Comprehensive SR: PS3.16 TID 1500 "Measurement Report" with one TID 1410 group per analysed image.

Every group's region is the rectangle that the model saw, never a contour: no lesion location is claimed. The finding is a private code that
says what was computed ("AI highest-scoring class: Mass"); the SNOMED CT code of what the class is named after hangs below it as
(246090004, SCT, "Associated finding"), so that nobody who looks for the finding itself takes a classifier's output for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import sr
from highdicom.sr import CodedConcept, RelationshipTypeValues
from highdicom.sr.value_types import ContentItem
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, DigitalMammographyXRayImageStorageForPresentation

from pipeline import wording
from pipeline.report import header, uids
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

BREAST = CodedConcept("76752008", "SCT", "Breast")
LATERALITY = {"L": CodedConcept("7771000", "SCT", "Left"), "R": CodedConcept("24028007", "SCT", "Right")}
#: PS3.16 CID 4014.
VIEW_POSITION = {"CC": CodedConcept("399162004", "SCT", "cranio-caudal"), "MLO": CodedConcept("399368009", "SCT", "medio-lateral oblique")}
#: PS3.16 CID 4015, by the labels of `ViewEvidence.modifiers` that may stand in a slot.
VIEW_MODIFIERS = {
    "ID": CodedConcept("399209000", "SCT", "Implant Displaced"),
    "NP": CodedConcept("442581004", "SCT", "Nipple in profile"),
    "AC": CodedConcept("441752004", "SCT", "Anterior compression"),
    "IMF": CodedConcept("442593008", "SCT", "Infra-mammary fold"),
}

PROCEDURE_REPORTED = CodedConcept("121058", "DCM", "Procedure reported")
FINDING = CodedConcept("121071", "DCM", "Finding")
ASSOCIATED_FINDING = CodedConcept("246090004", "SCT", "Associated finding")
CERTAINTY = CodedConcept("111012", "DCM", "Certainty of Finding")
NAME_MEANS = CodedConcept("121050", "DCM", "Equivalent Meaning of Concept Name")
COMMENT = CodedConcept("121106", "DCM", "Comment")
PERCENT = CodedConcept("%", "UCUM", "Percent")
PIXELS = CodedConcept("{pixels}", "UCUM", "Pixels")
MILLIMETRE = CodedConcept("mm", "UCUM", "millimeter")

#: highdicom looks SOP Classes up and raises at those it does not know: it is told this one, and the images' own are put back.
STAND_IN = DigitalMammographyXRayImageStorageForPresentation


def class_code(class_name: str) -> ClassCode:
    """The code of a class; that of an unknown one is derived from its text."""
    return CLASS_CODES.get(class_name) or ClassCode(digest("class", class_name)[:10].upper())


def _private(prefix: str, class_name: str, meaning: str) -> CodedConcept:
    return CodedConcept(f"{prefix}-{class_code(class_name).stem}", PRIVATE_SCHEME, meaning.replace("\\", "/")[:64].strip())


def _named_after(class_name: str) -> list[sr.CodeContentItem]:
    return [
        sr.CodeContentItem(ASSOCIATED_FINDING, CodedConcept(value, "SCT", meaning), RelationshipTypeValues.HAS_CONCEPT_MOD)
        for value, meaning in class_code(class_name).named_after
    ]


def _children(item: Dataset, *children: ContentItem) -> None:
    """Appends `children` below the content item `item`."""
    item.ContentSequence = sr.ContentSequence([*item.get("ContentSequence", []), *children])


def build_structured_report(report: Report) -> Dataset:
    """The SR of `report`, which has scores or is withdrawn, with file meta information."""
    # highdicom logs names that it finds odd: it gets no patient data at all, `identification` is laid over its object afterwards.
    ds: Dataset = sr.ComprehensiveSR(
        evidence=[_evidence(report, reported) for reported in _referenced(report)],
        content=_content(report),
        series_instance_uid=uids.series_instance_uid("sr", report.study_instance_uid, report.model),
        series_number=SERIES_NUMBER,
        sop_instance_uid=uids.sop_instance_uid("sr", report.cause),
        instance_number=report.version_number,
        manufacturer=header.PRODUCT,
        # Everything that was expected is said: never true of a report that says nothing any more.
        is_complete=report.outcome in (Outcome.COMPLETE, Outcome.UNILATERAL) and not report.failed,
        is_final=False,
        is_verified=False,
        previous_versions=_previous_versions(report) or None,
        specific_character_set="ISO_IR 192",
    )
    ds.update(header.identification(report))
    header.complete(ds, report, kind="sr", sop_class_uid=ComprehensiveSRStorage)
    ds.CompletionFlagDescription = _completion(report)[:64]
    _put_back_sop_classes(ds, report)
    request = _referenced_request(report)
    if request is not None:
        ds.ReferencedRequestSequence = [request]
    return ds


def _referenced(report: Report) -> tuple[ReportedView, ...]:
    """The images that the SR is about: the analysed ones; when it is withdrawn, all that the earlier version was made from."""
    return report.views if report.withdrawn else report.analysed


def _put_back_sop_classes(ds: Dataset, report: Report) -> None:
    """Names the images' own SOP Classes wherever an image is referenced."""
    classes = {header.uid_of(image, "SOPInstanceUID"): header.uid_of(image, "SOPClassUID") for image in report.headers}

    def put_back(item: Dataset, element: DataElement) -> None:
        if element.keyword == "ReferencedSOPInstanceUID" and element.value in classes:
            item.ReferencedSOPClassUID = classes[element.value]

    ds.walk(put_back)


def _evidence(report: Report, reported: ReportedView) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = STAND_IN
    ds.SOPInstanceUID = header.uid_of(reported.header, "SOPInstanceUID")
    ds.StudyInstanceUID = report.study_instance_uid
    ds.SeriesInstanceUID = header.uid_of(reported.header, "SeriesInstanceUID")
    for keyword in header.TYPE_2:
        setattr(ds, keyword, None)
    ds.PatientBirthDate = ""
    return ds


def _previous_versions(report: Report) -> list[Dataset]:
    predecessor = report.predecessors.get("sr")
    if predecessor is None:
        return []
    ds = Dataset()
    ds.StudyInstanceUID = report.study_instance_uid
    ds.SeriesInstanceUID = predecessor.series_instance_uid
    ds.SOPClassUID = predecessor.sop_class_uid
    ds.SOPInstanceUID = predecessor.sop_instance_uid
    return [ds]


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


def _content(report: Report) -> Dataset:
    """The root container, TID 1500."""
    installation = report.installation
    tag, name = report.words.code
    observer = sr.ObserverContext(
        observer_type=CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=installation.device_uid,
            name=installation.ae_title,
            manufacturer_name=header.PRODUCT,
            model_name=header.PRODUCT,
            serial_number=installation.serial_number,
        ),
    )
    # By hand: highdicom's root refuses to be without groups, as a withdrawn report is.
    root = sr.ContainerContentItem(CodedConcept("126000", "DCM", "Imaging Measurement Report"), template_id="1500")
    _children(
        root,
        *sr.LanguageOfContentItemAndDescendants(CodedConcept(tag, "RFC5646", name)),
        *sr.ObservationContext(observer_device_context=observer),
        sr.CodeContentItem(PROCEDURE_REPORTED, _procedure_reported(report), RelationshipTypeValues.HAS_CONCEPT_MOD),
        _image_library(report),
        _imaging_measurements(report),
        _remarks(report),
    )
    return root


def _imaging_measurements(report: Report) -> sr.ContainerContentItem:
    """One group per analysed image.

    A withdrawn report has this container without a group. TID 1500 would do without the container, but viewers that look into it unasked
    (OHIF does) would stop there; a group without a region and a number would stop them too, and would list a finding where there is none.
    """
    name = CodedConcept("126010", "DCM", "Imaging Measurements")
    container = sr.ContainerContentItem(name, relationship_type=RelationshipTypeValues.CONTAINS)
    groups = [item for reported in report.analysed for item in _measurement_group(report, reported)]
    if groups:
        _children(container, *groups)
    return container


def _procedure_reported(report: Report) -> CodedConcept:
    code = header.copied_header(report.headers).get("ProcedureCodeSequence")
    return CodedConcept(*code.split("^")) if code else CodedConcept("43468-8", "LN", "XR unspecified body region")


def _image_library(report: Report) -> sr.ContainerContentItem:
    """TID 1600, by hand: highdicom's leaves laterality and view out and cannot do without attributes that old images lack."""
    library = sr.ContainerContentItem(CodedConcept("111028", "DCM", "Image Library"), relationship_type=RelationshipTypeValues.CONTAINS)
    group = sr.ContainerContentItem(CodedConcept("126200", "DCM", "Image Library Group"), relationship_type=RelationshipTypeValues.CONTAINS)
    _children(group, *(_library_image(reported) for reported in _referenced(report)))
    _children(library, group)
    return library


def _library_image(reported: ReportedView) -> sr.ImageContentItem:
    """TID 1601 with the descriptors of TID 1602 and 1603 that the image has."""
    context = RelationshipTypeValues.HAS_ACQ_CONTEXT
    view = reported.view
    image = sr.ImageContentItem(
        CodedConcept("121324", "DCM", "Source image"),
        STAND_IN,
        header.uid_of(reported.header, "SOPInstanceUID"),
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    position = sr.CodeContentItem(CodedConcept("111031", "DCM", "Image View"), VIEW_POSITION[view.position], context)
    modifiers = [VIEW_MODIFIERS[label] for label in reported.evidence.modifiers if label in VIEW_MODIFIERS]
    if modifiers:
        name = CodedConcept("111032", "DCM", "Image View Modifier")
        _children(position, *(sr.CodeContentItem(name, code, RelationshipTypeValues.HAS_CONCEPT_MOD) for code in modifiers))
    _children(
        image,
        sr.CodeContentItem(CodedConcept("121139", "DCM", "Modality"), CodedConcept("MG", "DCM", "Mammography"), context),
        sr.CodeContentItem(CodedConcept("123014", "DCM", "Target Region"), BREAST, context),
        sr.CodeContentItem(CodedConcept("111027", "DCM", "Image Laterality"), LATERALITY[view.laterality], context),
        *_size(reported.scores),
        position,
        *_orientation(reported.header),
        *_spacing(reported.header),
    )
    return image


def _size(scores: Scores | None) -> list[sr.NumContentItem]:
    """Rows and columns of the pixels that were read; nothing where none were."""
    if scores is None:
        return []
    names = (CodedConcept("110910", "DCM", "Pixel Data Rows"), CodedConcept("110911", "DCM", "Pixel Data Columns"))
    return [
        sr.NumContentItem(name, value, PIXELS, relationship_type=RelationshipTypeValues.HAS_ACQ_CONTEXT)
        for name, value in zip(names, (scores.rows, scores.columns), strict=True)
    ]


def _orientation(ds: Dataset) -> list[sr.TextContentItem]:
    directions = header.text(ds, "PatientOrientation").split("\\")
    if len(directions) != 2 or not all(directions):
        return []
    names = (CodedConcept("111044", "DCM", "Patient Orientation Row"), CodedConcept("111043", "DCM", "Patient Orientation Column"))
    return [sr.TextContentItem(name, value, RelationshipTypeValues.HAS_ACQ_CONTEXT) for name, value in zip(names, directions, strict=True)]


def _spacing(ds: Dataset) -> list[sr.NumContentItem]:
    """Imager Pixel Spacing (0018,1164): first between rows (vertical), then between columns (horizontal), mm in the detector's plane."""
    try:
        vertical, horizontal = (float(value) for value in header.text(ds, "ImagerPixelSpacing").split("\\"))
    except ValueError:
        return []
    if not (0 < vertical < np.inf and 0 < horizontal < np.inf):
        return []
    names = (CodedConcept("111026", "DCM", "Horizontal Pixel Spacing"), CodedConcept("111066", "DCM", "Vertical Pixel Spacing"))
    return [
        sr.NumContentItem(name, value, MILLIMETRE, relationship_type=RelationshipTypeValues.HAS_ACQ_CONTEXT)
        for name, value in zip(names, (horizontal, vertical), strict=True)
    ]


def _measurement_group(report: Report, reported: ReportedView) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410: what the model said of one image."""
    scores = reported.scores
    assert scores is not None, "groups are made of analysed views only"
    model, view = report.model, reported.view
    sop_instance_uid = header.uid_of(reported.header, "SOPInstanceUID")
    weights = f" (weights {model.weights_sha256[:12]})" if model.weights_sha256 else ""
    ranked = sorted(zip(scores.classes, scores.probabilities, strict=True), key=lambda pair: -pair[1])
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=uids.tracking_uid(report.study_instance_uid, sop_instance_uid, model),
            identifier=str(view),
        ),
        referenced_region=sr.ImageRegion(
            graphic_type=sr.GraphicTypeValues.POLYLINE,
            graphic_data=_rectangle(scores.box),
            source_image=sr.SourceImageForRegion(STAND_IN, sop_instance_uid),
        ),
        finding_type=_private("AI", scores.predicted_class, wording.highest_class(scores.predicted_class)),
        finding_sites=[sr.FindingSite(anatomic_location=BREAST, laterality=LATERALITY[view.laterality])],
        algorithm_id=sr.AlgorithmIdentification(
            name=model.name,
            version=f"{model.version}{weights}",
            parameters=_parameters(report),
            family=CodedConcept("123110", "DCM", "Artificial Intelligence"),
            manufacturer=model.manufacturer or None,
        ),
        measurements=[_score(class_name, probability, report.words) for class_name, probability in ranked],
    )
    if _named_after(scores.predicted_class):
        finding = next(item for item in group[0].ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == FINDING.value)
        _children(finding, *_named_after(scores.predicted_class))
    return group


def _parameters(report: Report) -> list[str]:
    model = report.model
    facts = [f"weights=sha256:{model.weights_sha256}"] if model.weights_sha256 else []
    facts += [f"preprocessing={model.profile}", f"engine={model.engine}", "score=softmax, uncalibrated"]
    facts += [f"{name}={value}" for name, value in model.options]
    meaningless = report.words.meaningless(model)
    return [*facts, meaningless] if meaningless else facts


def _rectangle(box: tuple[int, int, int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A closed polyline of (column, row) around `box`: SCOORD counts from the top left corner of the first pixel (PS3.3 C.18.6.1.2)."""
    x_min, y_min, x_max, y_max = box
    return np.array([(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max), (x_min, y_min)], dtype=np.float32)


def _score(class_name: str, probability: float, words: wording.Wording) -> sr.Measurement:
    """TID 300: one class's score in per cent, with two decimals."""
    measurement = sr.Measurement(name=CERTAINTY, value=round(100 * probability, 2), unit=PERCENT)
    of_class = sr.CodeContentItem(
        FINDING, _private("CLASS", class_name, wording.class_of(class_name)), RelationshipTypeValues.HAS_CONCEPT_MOD
    )
    means = sr.TextContentItem(NAME_MEANS, words.score_of(class_name), RelationshipTypeValues.HAS_CONCEPT_MOD)
    if _named_after(class_name):
        _children(of_class, *_named_after(class_name))
    _children(measurement[0], of_class, means)
    return measurement


def _remarks(report: Report) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(
        CodedConcept("C0034375", "UMLS", "Qualitative Evaluations"), relationship_type=RelationshipTypeValues.CONTAINS
    )
    _children(container, *(sr.TextContentItem(COMMENT, line, RelationshipTypeValues.CONTAINS) for line in remarks(report)))
    return container
