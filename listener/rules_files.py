"""DICOM files as the rules would see them, had they been received now: for `fourview rules explain FILE`. Nothing is kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydicom.errors import InvalidDicomError

from listener.analyse import files_of
from listener.keeping import ignored_because
from listener.keys import Keys, Refused, read_keys
from store.header import name_character_set, pack_header, read_header, unpack_header
from store.header_text import UNREADABLE
from store.images import Decisions, Image, Judged, Patient, Rejection
from store.replay import NOTHING_KEPT, Replayed
from store.seen import Seen, seen_of
from store.study import Policy, View, ViewEvidence
from store.view import Resolved, resolve, resolve_view


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file in the place of a reception's row."""

    id: int
    header: bytes
    calling_ae_title: str
    called_ae_title: str


@dataclass
class StudyOfFiles:
    """The files of one study; `left_out` says of each file that would not be analysed why."""

    study_instance_uid: str
    files: dict[int, _File] = field(default_factory=dict)
    images: list[Image] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def seen(self, policy: Policy) -> Seen | None:
        """What the rules look at; None when no file of it would be kept."""

        def assigned(number: int, view: View) -> ViewEvidence:
            one = self.files[number]
            return resolve_view(unpack_header(one.header), policy.dialect.of(one.calling_ae_title), assigned=view)

        judged = Judged(self.images, Decisions(), policy, assigned)
        return seen_of(judged, self.files, min((one.received_at for one in self.images), default=datetime.min))

    def replayed(self, site: Policy, now: datetime) -> Replayed:
        """The study as if it had come at `now`, and nothing had been decided of it."""
        return Replayed(
            study_instance_uid=self.study_instance_uid,
            first_instance_at=now,
            last_instance_at=now,
            kept=NOTHING_KEPT,
            sent_to=(),
            see=lambda card: self.seen(site.of(card)),
        )


def studies_of_files(
    paths: Iterable[Path], policy: Policy, kept_sop_classes: Collection[str], *, calling_ae_title: str, called_ae_title: str, now: datetime
) -> list[StudyOfFiles]:
    """The studies of these files, a folder standing for all files in it; what is no DICOM file belongs to the study ""."""
    studies: dict[str, StudyOfFiles] = {}
    dialect = policy.dialect.of(calling_ae_title)
    for number, path in enumerate(files_of(paths), start=1):
        uid, why, packed, keys = "", "", b"", None
        try:
            keys = read_keys(path, dialect.sender.character_set)
            uid = keys.study_instance_uid
            why = ignored_because(keys, kept_sop_classes)
            if not why:
                header = read_header(path)
                name_character_set(header, dialect.sender.character_set)
                packed = pack_header(header)
        except (Refused, InvalidDicomError, *UNREADABLE) as error:
            why = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
        study = studies.setdefault(uid, StudyOfFiles(uid))
        if why or keys is None:
            study.left_out.append(f"{path}: {why}")
            continue
        study.files[number] = _File(id=number, header=packed, calling_ae_title=calling_ae_title, called_ae_title=called_ae_title)
        study.images.append(_image(number, keys, resolve(unpack_header(packed), dialect), now))
    return list(studies.values())


def _image(number: int, keys: Keys, found: Resolved, now: datetime) -> Image:
    rejection = Rejection(title=found.rejection_title, sop_instance_uids=found.rejects, reason=found.rejection) if found.rejects else None
    return Image(
        instance_id=number,
        sop_instance_uid=keys.sop_instance_uid,
        modality=keys.modality,
        file_hash=keys.file_hash,
        patient=Patient(
            patient_id=keys.patient_id,
            issuer_of_patient_id=keys.issuer_of_patient_id,
            patient_name=keys.patient_name,
            patient_birth_date=keys.patient_birth_date,
        ),
        received_at=now,
        evidence=found.evidence,
        ranking=found.ranking,
        demographics=found.demographics,
        rejection=rejection,
    )
