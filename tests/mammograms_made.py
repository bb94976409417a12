"""Synthetic mammograms: small, valid objects of the Digital Mammography class in which the odd thing is what the test writes down."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from store.study import View, digest

VIEW_CODES = {"CC": ("399162004", "SCT", "cranio-caudal"), "MLO": ("399368009", "SCT", "medio-lateral oblique")}
ORIENTATION = {View.L_CC: ["A", "R"], View.R_CC: ["P", "L"], View.L_MLO: ["A", "FR"], View.R_MLO: ["P", "FL"]}


def uid(*parts: object) -> str:
    """A UID that depends on `parts` only, so that a failing test can be run again."""
    return "2.25." + str(int(digest(*(str(part) for part in parts))[:30], 16))


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def breast_pixels(
    view: View, *, rows: int = 256, columns: int = 200, bits: int = 12, seed: int = 0
) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """uint16 (rows, columns): a bright half ellipse at the chest wall on a dark ground, as hung (left breast at the image's left edge)."""
    random = np.random.default_rng([seed, *view.value.encode()])
    y, x = np.mgrid[0:rows, 0:columns]
    distance = ((y - rows / 2) / (rows * 0.42)) ** 2 + (x / (columns * 0.7)) ** 2
    tissue = np.clip(1.2 - distance, 0, 1) * (distance < 1)
    noise = random.normal(0, 0.02, (rows, columns)) * (distance < 1)
    image = np.clip(tissue * 0.8 + noise, 0, 1) * ((1 << bits) - 1)
    if view.laterality == "R":
        image = image[:, ::-1]
    return np.ascontiguousarray(image.astype(np.uint16))


def mammogram(view: View = View.L_CC, *, study: str = "study", image: str = "", pixels: Any = None, **overrides: Any) -> Dataset:
    """A For Presentation mammogram of `view`, ready to be sent or saved; keyword overrides replace attributes, None deletes one."""
    if pixels is None:
        pixels = breast_pixels(view, seed=len(image))
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    ds.SOPInstanceUID = uid(study, "image", view.value, image)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20261120"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101500"
    ds.AccessionNumber = "ACC1"
    ds.Modality = "MG"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.Manufacturer = "Example Devices"
    ds.ManufacturerModelName = "Mammo 1"
    ds.StationName = "ROOM1"
    ds.InstitutionName = "Example Hospital"
    ds.DeviceSerialNumber = "SN-1"
    ds.SoftwareVersions = "1.0"
    ds.ReferringPhysicianName = ""
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "P1"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "F"
    ds.PatientAge = "056Y"
    ds.BodyPartExamined = "BREAST"
    ds.KVP = "28"
    ds.BodyPartThickness = "55"
    ds.DetectorID = "D1"
    ds.StudyInstanceUID = uid(study)
    ds.SeriesInstanceUID = uid(study, "series")
    ds.StudyID = "1"
    ds.SeriesNumber = "1"
    ds.InstanceNumber = "1"
    ds.ImageLaterality = view.laterality
    ds.ViewPosition = view.position
    item = code(*VIEW_CODES[view.position])
    item.ViewModifierCodeSequence = Sequence([])
    ds.ViewCodeSequence = Sequence([item])
    ds.PatientOrientation = ORIENTATION[view]
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.BreastImplantPresent = "NO"
    ds.PartialView = "NO"
    ds.ImagerPixelSpacing = ["0.1", "0.1"]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PresentationLUTShape = "IDENTITY"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.WindowCenter, ds.WindowWidth = "2048", "4096"
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    for keyword, value in overrides.items():
        if value is None:
            if keyword in ds:
                del ds[keyword]
        else:
            setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "")
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds
