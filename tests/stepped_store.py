"""A store whose clock stands still until it is told, and whose workers are one method call: the real archive, ledger, files and headers.

Pixels are really decoded; the model and the report are made up, so that every outcome can be asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from mammograms_made import breast_pixels, code, mammogram, uid
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from store import tables
from store.archive import Archive, Kept, NewObject, NewVersion, Reception
from store.claims import Claims
from store.files import Files
from store.grouping import Release, RequestKind
from store.header import header_json, pack_header, read_header, read_part10, unpack_header
from store.ledger import OWING, Delivery, Ledger
from store.listing import Listing
from store.look import Reading
from store.retention import Retention
from store.scoring import Scoring
from store.search import Search
from store.seen import Decide, Seen
from store.study import (
    HANGING_ORDER,
    Installation,
    ModelIdentity,
    Outcome,
    Policy,
    Routing,
    Ruling,
    Scores,
    View,
    WhenIncomplete,
    digest,
    object_cause,
    run_id,
    version_cause,
)
from store.view import resolve

START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
RETAKE, CEILING = 60, 600
MODEL = ModelIdentity(
    name="m", version="1", weights_sha256="0" * 64, profile="presentation", engine="simulated", classes=("Normal", "Mass"), trained=False
)
POLICY = Policy(wait_for_retake_seconds=RETAKE, give_up_after_seconds=CEILING, when_incomplete=WhenIncomplete.HOLD, model=MODEL)
INSTALLATION = Installation(ae_title="FOURVIEW", device_uid="2.25.1", serial_number="S", software_version="1")


@dataclass(frozen=True, kw_only=True)
class FixedRuling:
    """A rule that says the same of every study."""

    action: str = "analyse"
    rule_name: str = "every study"
    rule_hash: str = "f" * 64
    reason: str = "made up"
    send_to: tuple[str, ...] = ("pacs",)
    values: dict[str, object] = field(default_factory=dict)
    slots: tuple[View, ...] = HANGING_ORDER
    when_incomplete: WhenIncomplete | None = None
    card: str = ""
    priority: int = 5
    forward_to: tuple[str, ...] = ()
    routing: Routing = Routing.AT_ONCE


def image(view: View, name: str = "", **overrides: Any) -> Dataset:
    """A mammogram of 16 x 12 pixels; another `name` is another image with other pixels."""
    seed = int(digest(name)[:6], 16)
    return mammogram(view, image=name, pixels=breast_pixels(view, rows=16, columns=12, seed=seed), **overrides)


def exam(**overrides: Any) -> list[Dataset]:
    """The four standard views."""
    return [image(view, **overrides) for view in HANGING_ORDER]


def rejection(*rejected: Dataset, title: str = "113001", name: str = "", scheme: str = "DCM") -> Dataset:
    """A Key Object of IHE IOCM that rejects these images."""
    first = rejected[0]
    ds = Dataset()
    ds.SOPClassUID = KeyObjectSelectionDocumentStorage
    ds.SOPInstanceUID = uid("key object", name, *(one.SOPInstanceUID for one in rejected))
    ds.StudyInstanceUID, ds.SeriesInstanceUID = first.StudyInstanceUID, uid("key objects")
    ds.Modality = "KO"
    for keyword in ("PatientID", "PatientName", "PatientBirthDate"):
        ds[keyword] = first[keyword]
    ds.ConceptNameCodeSequence = [code(title, scheme, "Rejected for Quality Reasons")]
    study, series = Dataset(), Dataset()
    study.StudyInstanceUID, series.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
    series.ReferencedSOPSequence = []
    for one in rejected:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
        series.ReferencedSOPSequence.append(reference)
    study.ReferencedSeriesSequence = [series]
    ds.CurrentRequestedProcedureEvidenceSequence = [study]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def implicit(ds: Dataset) -> Dataset:
    """The same image in another transfer syntax."""
    other = dcmread(BytesIO(_part10(ds)))
    other.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return other


def _part10(ds: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


class SteppedStore:
    """Receives, works and steps through time as a running installation does, in the caller's order."""

    def __init__(self, engine: sa.Engine, files: Path) -> None:
        self.engine = engine
        self.now = START
        self.archive = Archive(engine, clock=lambda _connection: self.now)
        self.scoring = Scoring(engine, clock=lambda _connection: self.now)
        self.claims = Claims(engine, clock=lambda _connection: self.now)
        self.ledger = Ledger(engine, clock=lambda _connection: self.now)
        self.search = Search(engine)
        self.listing = Listing(engine)
        self.files = Files(files)
        self.policy = POLICY
        self.ruling = FixedRuling()
        self.rules: Decide | None = None  # what decides instead of `ruling`
        self.broken: dict[str, bool] = {}  # SOP Instance UID -> whether it stays broken
        self.classes: dict[str, str] = {}  # SOP Instance UID -> the class that it scores highest for
        self.readings: list[Reading] = []  # what reports were made of
        self.edges: dict[str, str] = {}  # SOP Instance UID -> the edge at which its pixels show the breast
        self.carries: Sequence[str] = ("PatientID", "PatientName", "PatientBirthDate")  # what results copy from the images
        self.decoded: list[str] = []
        self.scored: list[str] = []

    # ------------------------------------------------------------------------------------------------------------ receive

    def receive(self, *instances: Dataset, ignored: str = "", sender: str = "MODALITY", origin: str = "received") -> list[Kept]:
        return [self._receive(ds, ignored, sender, origin) for ds in instances]

    def _receive(self, ds: Dataset, ignored: str, sender: str, origin: str) -> Kept:
        data = _part10(ds)
        name = None if ignored else self.files.write(data)
        kept = self.archive.keep(
            Reception(
                study_instance_uid=str(ds.StudyInstanceUID),
                series_instance_uid=str(ds.SeriesInstanceUID),
                sop_instance_uid=str(ds.SOPInstanceUID),
                sop_class_uid=str(ds.SOPClassUID),
                transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
                modality=str(ds.Modality),
                patient_id=str(ds.get("PatientID", "")),
                issuer_of_patient_id=str(ds.get("IssuerOfPatientID", "")),
                patient_name=str(ds.get("PatientName", "")),
                patient_birth_date=str(ds.get("PatientBirthDate", "")),
                calling_ae_title=sender,
                called_ae_title="FOURVIEW",
                size_bytes=len(data),
                file_hash=hashlib.sha256(data).hexdigest(),
                file_name=name,
                ignored=ignored,
                origin=origin,
            )
        )
        if kept in (Kept.DUPLICATE, Kept.OWN_RESULT) and name is not None:
            self.files.remove(name)
        return kept

    # --------------------------------------------------------------------------------------------------------------- work

    def step(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def work(self, *, read: bool = True, report: bool = True) -> None:
        """Do what is to be done now. `read=False`: no image is read; `report=False`: a run that is ready is left to `report`."""
        for _ in range(60):
            studies = self.archive.claim_studies()
            for claim in studies:
                if self.advance(claim.row) and report:
                    self.report(claim.row)
            scores = self.scoring.claim() if read else []
            for claim in scores:
                self.read(int(claim.row))
            if not studies and not scores:
                return
        raise AssertionError("the work never ends: a row is claimed again and again at one moment")

    def settle(self) -> None:
        """Work, and let the clock jump to the next moment that anything waits for, until nothing waits any more."""
        for _ in range(60):
            self.work()
            due = [*self.rows(sa.select(tables.study.c.due_at)), *self.rows(sa.select(tables.score.c.due_at))]
            later = [row.due_at for row in due if row.due_at is not None and row.due_at > self.now]
            if not later:
                return
            self.now = min(later)
        raise AssertionError("something is awaited for ever")

    def advance(self, study: str) -> bool:
        resolved: dict[int, Any] = {}
        for one in self.archive.unresolved(study):
            packed = pack_header(read_header(self.files.path(one.file_name)))
            resolved[one.instance_id] = (resolve(unpack_header(packed)), packed)
        return self.archive.advance(study, resolved, self.policy, self._decide)

    def _decide(self, seen: Seen) -> Ruling:
        assert seen.headers, "a ruling needs a header to look at"
        return self.ruling if self.rules is None else self.rules(seen)

    def read(self, score_id: int) -> None:
        task = self.scoring.task(score_id)
        if task is None:
            return
        assert task.file_name is not None
        if task.sop_instance_uid in self.broken:
            self.scoring.fail(score_id, "its pixels are broken", permanent=self.broken[task.sop_instance_uid])
            return
        pixels = read_part10(self.files.path(task.file_name)).pixel_array
        self.decoded.append(task.sop_instance_uid)
        pixel_hash = digest(str(pixels.shape), pixels.astype("<u2").tobytes().hex())
        edge = self.edges.get(task.sop_instance_uid, breast_edge_of(pixels))
        if self.scoring.save_pixel_hash(score_id, pixel_hash, edge):
            return
        self.scored.append(task.sop_instance_uid)
        scores = made_scores(pixels, self.classes.get(task.sop_instance_uid, "Normal"))
        self.scoring.save(score_id, scores, f"aa/{pixel_hash[:30]}", 0.25)

    def report(self, study: str) -> int | None:
        """What the workflow's last step does; the version's number, None when there is nothing to say."""
        reading = self.archive.reading(study, self.policy)
        if reading is None:
            return None
        self.readings.append(reading)
        if reading.outcome is not Outcome.WITHDRAWN and not any(read.scores for read in reading.views):
            self.archive.settle_failed(study, "no view could be read")
            return None
        new = self.new_version(reading)
        if reading.current is not None and reading.current.cause == new.cause:
            objects = reading.current.objects.values()
            self.archive.settle_unchanged(study, "nothing changed", {one.sop_instance_uid: reading.send_to for one in objects})
            return None
        return self.archive.save_version(study, reading, new)

    def new_version(self, reading: Reading) -> NewVersion:
        slots = [(read.view, read.candidate.sop_instance_uid, read.pixel_hash, read.scores is not None) for read in reading.views]
        withdrawn = reading.outcome is Outcome.WITHDRAWN and reading.current
        run = reading.current.run_id if withdrawn and reading.current else run_id(reading.study_instance_uid, slots, reading.model)
        cause = version_cause(
            run=run,
            outcome=reading.outcome,
            evidence=[read.candidate.evidence for read in reading.views],
            losers=reading.losers,
            warnings=reading.warnings,
            copied_header={keyword: str(reading.views[0].header.get(keyword, "")) for keyword in ("PatientName", "PatientID")},
            writer_version="1",
            installation=INSTALLATION,
        )
        of_objects = object_cause(cause, reading.predecessor_uids, reading.epoch)
        return NewVersion(
            run_id=run,
            cause=cause,
            object_cause=of_objects,
            model=reading.model,
            objects=tuple(_object(kind, reading, of_objects, self.carries) for kind in ("sr", "page")),
        )

    def ask(self, kind: str, name: str = "r1", *, study: str = "study", why: str = "", **release: Any) -> str | None:
        """A person's request, worked off; what the worker answered."""
        asked = Release(**release) if kind == "release" else None
        self.archive.request(uid(study), RequestKind(kind), request_id=name, person="Kim", why=why, release=asked)
        self.work()
        return self.answer(name)

    def answer(self, name: str) -> str | None:
        """What a worker answered to a request; None while none has looked at it."""
        asked = self.search.asked(name)
        return None if asked["applied_at"] is None else str(asked["answer"])

    def retention(self, keep_images_days: float, keep_unfinished_days: float) -> Retention:
        """What may lose its pixels at this store's time."""
        days = {"keep_images_days": keep_images_days, "keep_unfinished_days": keep_unfinished_days}
        return Retention(self.engine, self.engine, clock=lambda _connection: self.now, **days)

    def begin(self, workflow_id: str) -> list[Delivery]:
        """A workflow's batch; what is to be sent of it is on its way."""
        batch = self.ledger.batch(workflow_id)
        for study in dict.fromkeys(one.study_instance_uid for one in batch):
            owing = [one for one in batch if one.study_instance_uid == study and one.state in OWING]
            self.ledger.begin(owing, workflow_id, checked=True)
        return batch

    # --------------------------------------------------------------------------------------------------------------- look

    def study(self, study: str = "study") -> dict[str, Any]:
        return self.search.study(uid(study))

    def state(self, study: str = "study") -> str:
        return str(self.study(study)["state"])

    def versions(self, study: str = "study") -> list[dict[str, Any]]:
        return list(self.study(study)["runs"])

    def selected(self, number: int = -1, study: str = "study") -> dict[str, str]:
        """View -> SOP Instance UID of a version, the last one unless told."""
        return {view: slot["sop_instance_uid"] for view, slot in self.versions(study)[number]["selection"].items()}

    def dispositions(self, study: str = "study") -> dict[str, list[str]]:
        """SOP Instance UID -> what each of its rows is, in order of arrival."""
        found: dict[str, list[str]] = {}
        for one in self.study(study)["images"]:
            found.setdefault(one["sop_instance_uid"], []).append(one["disposition"])
        return found

    def rows(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        with self.engine.begin() as connection:
            return connection.execute(query).all()


def breast_edge_of(pixels: np.ndarray[Any, Any]) -> str:
    """The brighter half's edge: enough for pixels that `breast_pixels` made."""
    half = pixels.shape[1] // 2
    return "left" if pixels[:, :half].mean() > pixels[:, half:].mean() else "right"


def made_scores(pixels: np.ndarray[Any, Any], highest: str = "Normal") -> Scores:
    mass = float(pixels.mean()) / 4096 / 2
    probabilities = (1 - mass, mass) if highest == "Normal" else (mass, 1 - mass)
    return Scores(classes=MODEL.classes, probabilities=probabilities, box=(0, 0, 12, 16), rows=16, columns=12)


def _object(kind: str, reading: Reading, cause: str, carries: Sequence[str]) -> NewObject:
    ds = Dataset()
    for keyword in carries:
        setattr(ds, keyword, str(reading.views[0].header.get(keyword, "")).replace("\0", "").strip())
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    ds.SOPInstanceUID = uid(cause, kind)
    ds.StudyInstanceUID = reading.study_instance_uid
    ds.Modality = "SR"
    return NewObject(
        kind=kind,
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=uid(reading.study_instance_uid, kind),
        sop_class_uid=str(ds.SOPClassUID),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        file_name=f"bb/{digest(cause, kind)[:30]}",
        sha256=digest(cause, kind),
        size_bytes=1,
        header=header_json(ds),
        destinations=reading.send_to,
    )
