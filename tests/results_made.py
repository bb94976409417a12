"""Result objects written by hand with pydicom, and a real store that holds them: what DICOMweb is tested against."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from mammograms_made import code, uid
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from store import tables
from store.database import insert_or_ignore, read_engine, write_engine
from store.files import Files
from store.header import header_json, indexed_values
from store.search import Search
from store.study import digest


def report(study: str = "study", version: int = 1, **overrides: Any) -> Dataset:
    """A small structured report: a container with a code, a number, a text and a UID."""
    ds = _common(study, ComprehensiveSRStorage, "sr", version)
    ds.Modality = "SR"
    ds.SeriesNumber = 9100
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    ds.ValueType = "CONTAINER"
    ds.ConceptNameCodeSequence = [code("126000", "DCM", "Imaging Measurement Report")]
    ds.ContentSequence = [
        _item("CODE", "121071", "Finding", ConceptCodeSequence=[code("129788004", "SCT", "Mammographic breast mass")]),
        _item("TEXT", "121106", "Comment", TextValue="<script>alert('research use only')</script>"),
        _item("UIDREF", "112040", "Tracking Unique Identifier", UID=uid(study, "tracking")),
    ]
    value = Dataset()
    value.NumericValue = "61.25"
    value.MeasurementUnitsCodeSequence = [code("%", "UCUM", "Percent")]
    ds.ContentSequence[0].ContentSequence = [_item("NUM", "111012", "Certainty of Finding", MeasuredValueSequence=[value])]
    return _overridden(ds, overrides)


def page(study: str = "study", version: int = 1, rows: int = 40, columns: int = 60, **overrides: Any) -> Dataset:
    """An RGB page in which every pixel differs from its neighbours."""
    ds = _common(study, SecondaryCaptureImageStorage, "page", version)
    ds.Modality = "OT"
    ds.SeriesNumber = 9102
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = (np.arange(rows * columns * 3) * 7 % 251).astype(np.uint8).tobytes()
    ds["PixelData"].VR = "OB"
    return _overridden(ds, overrides)


class ResultsMade:
    """A real store (files in `folder`; SQLite there unless told) that holds what `add` is given, one version after the other."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        url = url or f"sqlite:///{folder / 'results.db'}"
        self._engine = write_engine(url)
        tables.metadata.create_all(self._engine)
        self.files = Files(folder / "files")
        self.search = Search(read_engine(url))
        self.added: list[tuple[Dataset, str]] = []  # data set and file name

    def add(self, *datasets: Dataset) -> None:
        """Each data set as an object of the version that its Instance Number says."""
        with self._engine.begin() as connection:
            for ds in datasets:
                self._add(connection, ds)

    def path(self, sop_instance_uid: str) -> Path:
        return next(self.files.path(name) for ds, name in self.added if sop_instance_uid == ds.SOPInstanceUID)

    def _add(self, connection: sa.Connection, ds: Dataset) -> None:
        study, number = str(ds.StudyInstanceUID), int(ds.InstanceNumber)
        cause = digest(study, str(number))
        now = datetime(2026, 11, 20, tzinfo=UTC)
        times = dict.fromkeys(("first_instance_at", "last_instance_at", "collecting_since"), now)
        insert_or_ignore(connection, tables.study, {"study_instance_uid": study, "state": "analysed", **times})
        run = {"id": cause, "study_instance_uid": study, "model_key": cause, "model": {}, "selection": {}, "created_at": now}
        insert_or_ignore(connection, tables.run, run)
        version = {"study_instance_uid": study, "number": number, "run_id": cause, "cause": cause, "object_cause": cause, "created_at": now}
        facts = {"outcome": "COMPLETE", "losers": [], "warnings": [], "trained": False, "requested": False}
        insert_or_ignore(connection, tables.version, {**version, **facts})
        version_id = connection.execute(sa.select(tables.version.c.id).where(tables.version.c.object_cause == cause)).scalar_one()
        data = part10(ds)
        name = self.files.write(data)
        header = header_json(ds)
        connection.execute(
            sa.insert(tables.result_object).values(
                sop_instance_uid=str(ds.SOPInstanceUID),
                version_id=version_id,
                study_instance_uid=study,
                series_instance_uid=str(ds.SeriesInstanceUID),
                sop_class_uid=str(ds.SOPClassUID),
                transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
                kind="page" if "Rows" in ds else "sr",
                file_name=name,
                sha256=cause,
                size_bytes=len(data),
                header=header,
                **indexed_values(header),
            )
        )
        self.added.append((ds, name))


def part10(ds: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def _common(study: str, sop_class_uid: str, kind: str, version: int) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = uid(study, kind, version)
    ds.StudyInstanceUID = uid(study)
    ds.SeriesInstanceUID = uid(study, kind)
    ds.StudyDate, ds.StudyTime = "20261120", "101500"
    ds.ContentDate, ds.ContentTime = "20261120", "103000"
    ds.AccessionNumber, ds.StudyID = "ACC1", "1"
    ds.ReferringPhysicianName = ""
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "P1", "19700101", "F"
    ds.SeriesDescription = "AI result - NOT FOR DIAGNOSTIC USE"
    ds.InstanceNumber = version
    ds.Manufacturer = "Fourview"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _overridden(ds: Dataset, overrides: Mapping[str, Any]) -> Dataset:
    for keyword, value in overrides.items():
        setattr(ds, keyword, value)
    return ds


def _item(value_type: str, concept: str, meaning: str, **content: Any) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", value_type
    item.ConceptNameCodeSequence = [code(concept, "DCM", meaning)]
    return _overridden(item, content)
