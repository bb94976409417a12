"""A synthetic mammography exam of a test patient: what an installation is tried with when no patient's images may be used.

Every object says so: the patient, the accession number, the descriptions and a comment. The pixels show a bright half ellipse and no
anatomy; header and pixels agree about the side, so that a sound installation finds nothing to doubt.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from store.study import HANGING_ORDER, View

PATIENT_ID = "FOURVIEW-TEST"
PATIENT_NAME = "Fourview^Test"
#: What a caller may give the exam of its own, so that the rule which is to be tried matches it.
CHANGEABLE = (
    "SpecificCharacterSet",
    "PatientName",
    "StationName",
    "InstitutionName",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "PatientSex",
)

_ROWS, _COLUMNS, _BITS = 1024, 800, 12
_VIEW_CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}  # CID 4014
_ORIENTATION = {View.L_CC: ["A", "R"], View.R_CC: ["P", "L"], View.L_MLO: ["A", "FR"], View.R_MLO: ["P", "FL"]}


def exam(now: datetime, changed: Mapping[str, str] | None = None) -> list[Dataset]:
    """The four standard views of a new study of `now` (local time), in hanging order; `changed`: values by keyword, of `CHANGEABLE`."""
    study, series = _new_uid(), _new_uid()
    return [_image(view, number, study, series, now, changed or {}) for number, view in enumerate(HANGING_ORDER, start=1)]


def retake(ds: Dataset, now: datetime) -> Dataset:
    """A second image of the view of `ds`, in the same series, acquired at `now`: other pixels, so another image."""
    again = deepcopy(ds)
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = _new_uid()
    again.AcquisitionDate = again.ContentDate = now.strftime("%Y%m%d")
    again.AcquisitionTime = again.ContentTime = now.strftime("%H%M%S")
    again.InstanceNumber = len(HANGING_ORDER) + 1
    again.PixelData = _pixels(View(f"{ds.ImageLaterality}-{ds.ViewPosition}"), seed=1).tobytes()
    return again


def part10(ds: Dataset) -> bytes:
    """The data set as a file (PS3.10)."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write(folder: Path, now: datetime, changed: Mapping[str, str] | None = None) -> list[Path]:
    """The four views of a new exam, named by their view, and a retake of one of them 90 seconds later. Raises OSError, also when there are
    such files."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {f"{ds.ImageLaterality}-{ds.ViewPosition}": ds for ds in exam(now, changed)}
    images["L-CC-retake"] = retake(images["L-CC"], now + timedelta(seconds=90))
    for name, ds in images.items():
        with (folder / f"{name}.dcm").open("xb") as file:
            file.write(part10(ds))
    return [folder / f"{name}.dcm" for name in images]


def _new_uid() -> UID:
    return UID(f"2.25.{uuid.uuid4().int}")  # PS3.5 B.2


def _image(view: View, number: int, study: UID, series: UID, now: datetime, changed: Mapping[str, str]) -> Dataset:
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    ds = Dataset()
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["DERIVED", "PRIMARY"],
        "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
        "SOPInstanceUID": _new_uid(),
        **{f"{level}Date": date for level in ("Study", "Series", "Acquisition", "Content")},
        **{f"{level}Time": time for level in ("Study", "Series", "Acquisition", "Content")},
        "AccessionNumber": "FOURVIEW-TEST",
        "Modality": "MG",
        "PresentationIntentType": "FOR PRESENTATION",
        "Manufacturer": "Fourview",
        "ManufacturerModelName": "acceptance test",  # the word synthetic in it would make it a synthetic 2D image of tomosynthesis
        "InstitutionName": "Fourview test",
        "StationName": "FOURVIEW-TEST",
        "DeviceSerialNumber": "0",
        "SoftwareVersions": "1",
        "ReferringPhysicianName": "",
        "StudyDescription": "FOURVIEW TEST, no patient",
        "SeriesDescription": "FOURVIEW TEST",
        "PatientName": PATIENT_NAME,
        "PatientID": PATIENT_ID,
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "BodyPartExamined": "BREAST",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "StudyID": "TEST",
        "SeriesNumber": 1,
        "InstanceNumber": number,
        "ImageComments": "Made by a program for the acceptance test of Fourview. No patient.",
        "ImageLaterality": view.laterality,
        "ViewPosition": view.position,
        "ViewCodeSequence": Sequence([_view_code(view)]),
        "PatientOrientation": _ORIENTATION[view],
        "AnatomicRegionSequence": Sequence([_code("76752008", "Breast")]),
        "OrganExposed": "BREAST",
        "PositionerType": "MAMMOGRAPHIC",
        "DetectorType": "",
        "AcquisitionContextSequence": Sequence([]),
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1,  # bright is where few X-rays passed
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "BreastImplantPresent": "NO",
        "PartialView": "NO",
        "ImagerPixelSpacing": ["0.2", "0.2"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PresentationLUTShape": "IDENTITY",
        "Rows": _ROWS,
        "Columns": _COLUMNS,
        "BitsAllocated": 16,
        "BitsStored": _BITS,
        "HighBit": _BITS - 1,
        "PixelRepresentation": 0,
        "WindowCenter": "2048",
        "WindowWidth": "4096",
    }
    for keyword, value in {**values, **changed}.items():
        setattr(ds, keyword, value)
    ds.add_new("PixelData", "OW", _pixels(view).tobytes())
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _view_code(view: View) -> Dataset:
    item = _code(*_VIEW_CODES[view.position])
    item.ViewModifierCodeSequence = Sequence([])
    return item


def _pixels(view: View, seed: int = 0) -> npt.NDArray[np.uint16]:
    """uint16 (rows, columns), little endian: a half ellipse at the chest wall, which is at the left edge for a left breast."""
    random = np.random.default_rng([seed, *view.value.encode()])  # every view differs, and each is the same in every exam
    y, x = np.mgrid[0:_ROWS, 0:_COLUMNS]
    distance = ((y - _ROWS / 2) / (_ROWS * 0.42)) ** 2 + (x / (_COLUMNS * 0.7)) ** 2
    inside = distance < 1
    grey = np.clip((1.2 - distance) * 0.8 + random.normal(0, 0.02, (_ROWS, _COLUMNS)), 0, 1) * inside
    image = (grey * ((1 << _BITS) - 1)).astype("<u2")
    return np.ascontiguousarray(image[:, ::-1] if view.laterality == "R" else image)
