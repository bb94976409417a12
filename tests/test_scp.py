"""Reception over real sockets: what is kept, what is ignored, what is refused and in which words."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from mammograms_made import mammogram
from pydicom import config, dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, dsutils
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from listener.guard import Limits
from listener.keeping import KEPT, SOP_CLASSES, kept_for
from listener.keys import Refused, Status, is_uid, read_keys
from listener.scp import CannotListen, StorageScp
from store.archive import Archive, Kept, Reception
from store.database import write_engine
from store.files import Files
from store.rows import Busy
from store.study import ImageKind, View
from store.upgrade import upgrade

MG = "1.2.840.10008.5.1.4.1.1.1.2"
MG_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
PET = "1.2.840.10008.5.1.4.1.1.128"  # a storage class that is not negotiated


class Remembering:
    """The real Archive, and a note of what it was given."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.receptions: list[Reception] = []
        self.kept: list[Kept] = []
        self.failure: Exception | None = None

    def keep(self, reception: Reception) -> Kept:
        if self.failure is not None:
            raise self.failure
        kept = self.archive.keep(reception)
        self.receptions.append(reception)
        self.kept.append(kept)
        return kept


class Door:
    """A listening StorageScp with its folders, and a sender."""

    def __init__(self, scp: StorageScp, archive: Remembering, files: Files) -> None:
        self.scp = scp
        self.archive = archive
        self.files = files

    @property
    def receptions(self) -> list[Reception]:
        return self.archive.receptions

    def kept_files(self) -> list[Path]:
        return [path for path in self.files.root.glob("??/*") if path.is_file()]

    def unfinished_files(self) -> list[Path]:
        return list(self.files.incoming.iterdir())

    def associate(self, *contexts: tuple[str, str], calling: str = "GANTRY", called: str = "FOURVIEW") -> Any:
        ae = AE(ae_title=calling)
        ae.acse_timeout = ae.dimse_timeout = 30
        return ae.associate("127.0.0.1", self.scp.port, contexts=[build_context(*context) for context in contexts], ae_title=called)

    def send(self, *instances: Dataset) -> list[Dataset]:
        """Statuses of C-STOREs over one association."""
        assoc = self.associate(*{(str(ds.SOPClassUID), str(ds.file_meta.TransferSyntaxUID)) for ds in instances})
        assert assoc.is_established
        statuses = [assoc.send_c_store(ds) for ds in instances]
        assoc.release()
        return statuses

    def send_bytes(
        self, data_set: bytes, *, sop_instance_uid: str, sop_class_uid: str = MG, syntax: str = ExplicitVRLittleEndian
    ) -> Dataset:
        """The status for a data set that no library would write, under the UIDs that the command names."""
        assoc = self.associate((sop_class_uid, syntax))
        assert assoc.is_established
        path = self.files.root / f"sent-{len(list(self.files.root.glob('sent-*')))}"
        path.write_bytes(part10(data_set, sop_instance_uid=sop_instance_uid, sop_class_uid=sop_class_uid, syntax=syntax))
        status = assoc.send_c_store(path)
        assoc.release()
        return status


def part10(data_set: bytes, *, sop_instance_uid: str, sop_class_uid: str = MG, syntax: str = ExplicitVRLittleEndian) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = sop_class_uid, sop_instance_uid, syntax
    buffer = BytesIO(b"\x00" * 128 + b"DICM")
    buffer.seek(0, 2)
    write_file_meta_info(buffer, meta)
    return buffer.getvalue() + data_set


def encode(ds: Dataset) -> bytes:
    """The data set without file meta information, as it goes over the wire."""
    encoded = dsutils.encode(ds, ds.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian, True)
    assert encoded is not None
    return encoded


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """One explicit VR little endian element with a short length, byte for byte as given."""
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + struct.pack("<H", len(value)) + value


def minimal(**values: bytes) -> bytes:
    """A data set of nothing but identifying attributes; keyword: raw value."""
    tags = {
        "SpecificCharacterSet": (0x00080005, b"CS"),
        "SOPClassUID": (0x00080016, b"UI"),
        "SOPInstanceUID": (0x00080018, b"UI"),
        "Modality": (0x00080060, b"CS"),
        "PatientName": (0x00100010, b"PN"),
        "PatientID": (0x00100020, b"LO"),
        "IssuerOfPatientID": (0x00100021, b"LO"),
        "StudyInstanceUID": (0x0020000D, b"UI"),
        "SeriesInstanceUID": (0x0020000E, b"UI"),
    }
    defaults = {
        "SOPClassUID": MG.encode() + b"\0",
        "SOPInstanceUID": b"1.2.30",
        "Modality": b"MG",
        "StudyInstanceUID": b"1.2.10",
        "SeriesInstanceUID": b"1.2.20",
    }
    return b"".join(element(*tags[keyword], value) for keyword in tags if (value := (defaults | values).get(keyword)) is not None)


def dcmtk(needs_program: Callable[[str], str], program: str) -> str:
    """dcmtk's program, not pynetdicom's of the same name that a virtual environment puts before it."""
    return str(Path(needs_program("dcmdump")).with_name(program))


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the current schema, to be copied: making one takes a while."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    engine = write_engine(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture
def door(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Door]]:
    monkeypatch.setattr(tempfile, "tempdir", None)  # restored after the test: StorageScp sets it for the process
    running: list[StorageScp] = []
    engines = []

    def start(**arguments: Any) -> Door:
        database = tmp_path / f"door-{len(running)}.db"
        shutil.copy(empty_database, database)
        engine = write_engine(f"sqlite:///{database}")
        engines.append(engine)
        archive = Remembering(Archive(engine))
        files = Files(tmp_path / f"files-{len(running)}")
        defaults: dict[str, Any] = {"ae_title": "FOURVIEW", "host": "127.0.0.1", "port": 0, "archive": archive, "files": files}
        scp = StorageScp(**(defaults | arguments))
        running.append(scp)
        return Door(scp.start(), archive, files)

    yield start
    for scp in running:
        scp.shutdown(grace_seconds=1)
    for engine in engines:
        engine.dispose()


# ---------------------------------------------------------------------------------------------------------------- kept


def test_a_mammogram_is_kept_byte_for_byte(door: Callable[..., Door]) -> None:
    fourview, ds = door(), mammogram(View.R_MLO, IssuerOfPatientID="HOSPITAL")
    assert [status.Status for status in fourview.send(ds)] == [Status.SUCCESS]
    [reception] = fourview.receptions
    assert fourview.archive.kept == [Kept.NEW]
    assert reception.file_name is not None
    stored = fourview.files.path(reception.file_name)
    assert dcmread(stored) == ds
    assert stored.read_bytes().endswith(encode(ds))
    assert reception == Reception(
        study_instance_uid=ds.StudyInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        sop_instance_uid=ds.SOPInstanceUID,
        sop_class_uid=MG,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        modality="MG",
        patient_id="P1",
        issuer_of_patient_id="HOSPITAL",
        patient_name="Doe^Jane",
        patient_birth_date="19700101",
        calling_ae_title="GANTRY",
        called_ae_title="FOURVIEW",
        size_bytes=len(encode(ds)),
        file_hash=hashlib.sha256(encode(ds)).hexdigest(),
        file_name=reception.file_name,
    )
    assert fourview.unfinished_files() == []


def test_four_views_over_one_association_are_four_files(door: Callable[..., Door]) -> None:
    fourview = door()
    assert [status.Status for status in fourview.send(*(mammogram(view) for view in View))] == [Status.SUCCESS] * 4
    assert len(fourview.kept_files()) == 4


def test_the_same_bytes_twice_are_one_file(door: Callable[..., Door]) -> None:
    fourview, ds = door(), mammogram()
    assert [status.Status for status in fourview.send(ds, ds)] == [Status.SUCCESS] * 2
    assert fourview.archive.kept == [Kept.NEW, Kept.DUPLICATE]
    [kept] = fourview.kept_files()
    assert fourview.receptions[0].file_name == f"{kept.parent.name}/{kept.name}"


def test_the_same_uid_with_other_bytes_is_kept_beside_the_first(door: Callable[..., Door]) -> None:
    fourview = door()
    fourview.send(mammogram(), mammogram(KVP="31"))
    assert fourview.archive.kept == [Kept.NEW, Kept.NEW]
    assert fourview.receptions[0].file_hash != fourview.receptions[1].file_hash
    assert len(fourview.kept_files()) == 2


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless], ids=lambda syntax: syntax.name)
def test_compressed_images_are_kept_as_they_come(door: Callable[..., Door], syntax: Any) -> None:
    fourview, ds = door(), mammogram()
    ds.compress(syntax, generate_instance_uid=False)
    assert fourview.send(ds)[0].Status == Status.SUCCESS
    assert fourview.receptions[0].transfer_syntax_uid == syntax
    assert fourview.kept_files()[0].read_bytes().endswith(encode(ds))


def test_implicit_vr_is_kept(door: Callable[..., Door]) -> None:
    fourview, ds = door(), mammogram()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    data_set = encode(ds)
    assert fourview.send_bytes(data_set, sop_instance_uid=ds.SOPInstanceUID, syntax=ImplicitVRLittleEndian).Status == Status.SUCCESS
    assert fourview.receptions[0].file_hash == hashlib.sha256(data_set).hexdigest()
    assert fourview.receptions[0].study_instance_uid == ds.StudyInstanceUID


@pytest.mark.parametrize("options", [["-xe"], ["-xi"], ["-xr"], ["-xs"], ["-xv"]], ids=lambda options: options[0])
def test_dcmtk_sends_what_it_likes(
    door: Callable[..., Door], needs_program: Callable[[str], str], tmp_path: Path, options: list[str]
) -> None:
    fourview, ds = door(), mammogram()
    syntax = {"-xr": RLELossless, "-xv": JPEG2000Lossless}.get(options[0])
    if syntax is not None:
        ds.compress(syntax, generate_instance_uid=False)
    path = tmp_path / "image.dcm"
    ds.save_as(path, enforce_file_format=True)
    command = [
        dcmtk(needs_program, "storescu"),
        *options,
        "-aet",
        "DCMTK",
        "-aec",
        "FOURVIEW",
        "127.0.0.1",
        str(fourview.scp.port),
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert fourview.archive.kept == [Kept.NEW]
    assert dcmread(fourview.kept_files()[0]).PixelData == ds.PixelData


def test_nul_and_space_padding_is_stripped(door: Callable[..., Door]) -> None:
    fourview = door()
    data_set = minimal(
        SOPInstanceUID=b"1.2.30.4\0\0",
        StudyInstanceUID=b"1.2.10 ",
        PatientID=b"P7 \0\0\0",
        PatientName=b"Doe^Jane\0\0",
        IssuerOfPatientID=b" A\0 ",
    )
    assert fourview.send_bytes(data_set, sop_instance_uid="1.2.30.4").Status == Status.SUCCESS
    [reception] = fourview.receptions
    assert (reception.sop_instance_uid, reception.study_instance_uid) == ("1.2.30.4", "1.2.10")
    assert (reception.patient_id, reception.patient_name, reception.issuer_of_patient_id) == ("P7", "Doe^Jane", "A")


@pytest.mark.parametrize(
    ("character_set", "name", "expected"),
    [
        (
            b"\\ISO 2022 IR 149 ",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        (b"ISO_IR 192", "홍^길동".encode(), "홍^길동"),
        (b"ISO_IR 192", b"\xb0\xa1^\xb3\xaa", "\\xb0\\xa1^\\xb3\\xaa"),  # says UTF-8, writes something else
        (b"ISO_IR 999", b"Doe^J\xfc", "Doe^Jü"),
        (b"\xff\xfe\\\\x", b"Doe^J\xfc", "Doe^Jü"),
        (None, b"Doe^J\xfc", "Doe^Jü"),
        (b"ISO_IR 100", b"M\xfcller^Anna", "Müller^Anna"),
    ],
    ids=["Korean", "UTF-8", "not UTF-8", "unknown", "garbage", "none", "Latin 1"],
)
def test_a_character_set_never_decides_whether_an_object_is_kept(
    door: Callable[..., Door], character_set: bytes | None, name: bytes, expected: str
) -> None:
    fourview = door()
    data_set = minimal(SpecificCharacterSet=character_set, PatientName=name)
    assert fourview.send_bytes(data_set, sop_instance_uid="1.2.30").Status == Status.SUCCESS
    assert fourview.receptions[0].patient_name == expected
    assert fourview.kept_files()[0].read_bytes().endswith(data_set)


# ------------------------------------------------------------------------------------------------------------- ignored


@pytest.mark.parametrize(
    ("sop_class_uid", "modality", "words"),
    [
        (ULTRASOUND, "US", "not an image of the mammography classes"),
        (COMPREHENSIVE_SR, "SR", "a report"),
        (SECONDARY_CAPTURE, "OT", "secondary capture"),
        (MG_FOR_PROCESSING, "MG", "For Processing"),
    ],
)
def test_other_classes_are_answered_with_success_and_leave_a_row_but_no_file(
    door: Callable[..., Door], sop_class_uid: str, modality: str, words: str
) -> None:
    fourview = door()
    ds = mammogram(SOPClassUID=sop_class_uid, Modality=modality)
    assert fourview.send(ds)[0].Status == Status.SUCCESS
    assert fourview.archive.kept == [Kept.IGNORED]
    [reception] = fourview.receptions
    assert words in reception.ignored
    assert reception.file_name is None
    assert reception.size_bytes == len(encode(ds))
    assert fourview.kept_files() == fourview.unfinished_files() == []


def test_key_objects_are_kept(door: Callable[..., Door]) -> None:
    fourview = door()
    assert fourview.send(mammogram(SOPClassUID=KEY_OBJECT, Modality="KO", PixelData=None))[0].Status == Status.SUCCESS
    assert fourview.archive.kept == [Kept.NEW]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("image_kinds", "ignored"),
    [((ImageKind.FOR_PROCESSING,), ""), ((ImageKind.FFDM,), "For Processing pixels: no model here was trained on them")],
)
def test_for_processing_images_are_kept_only_for_a_model_that_was_trained_on_them(
    door: Callable[..., Door], image_kinds: tuple[ImageKind, ...], ignored: str, strict: bool
) -> None:
    fourview, ds = door(image_kinds=image_kinds, strict=strict), mammogram(SOPClassUID=MG_FOR_PROCESSING)
    [status] = fourview.send(ds)
    if ignored and strict:
        assert (status.Status, status.ErrorComment) == (Status.SOP_CLASS_NOT_SUPPORTED, f"not accepted: {ignored}"[:64])
        assert fourview.receptions == []
    else:
        assert status.Status == Status.SUCCESS
        [reception] = fourview.receptions
        assert (reception.ignored, reception.sop_class_uid) == (ignored, MG_FOR_PROCESSING)
        assert fourview.archive.kept == [Kept.IGNORED if ignored else Kept.NEW]
    assert [path.read_bytes().endswith(encode(ds)) for path in fourview.kept_files()] == ([] if ignored else [True])
    assert fourview.unfinished_files() == []


def test_a_for_processing_image_that_would_be_kept_must_be_whole(door: Callable[..., Door]) -> None:
    ds = mammogram(SOPClassUID=MG_FOR_PROCESSING)
    for image_kinds, status in (((ImageKind.FOR_PROCESSING,), Status.CANNOT_PARSE), ((), Status.SUCCESS)):
        fourview = door(image_kinds=image_kinds)
        answer = fourview.send_bytes(encode(ds)[:-400], sop_instance_uid=ds.SOPInstanceUID, sop_class_uid=MG_FOR_PROCESSING)
        assert answer.Status == status


def test_strict_refuses_what_is_not_analysed(door: Callable[..., Door]) -> None:
    fourview = door(strict=True)
    image, report = fourview.send(mammogram(), mammogram(SOPClassUID=COMPREHENSIVE_SR, Modality="SR", SOPInstanceUID="1.2.3"))
    assert image.Status == Status.SUCCESS
    assert (report.Status, report.ErrorComment) == (Status.SOP_CLASS_NOT_SUPPORTED, "not accepted: a report, not an image")
    assert fourview.unfinished_files() == []


# ------------------------------------------------------------------------------------------------------------- refused

LONG_UID = "1." + "2" * 70


@pytest.mark.parametrize(
    ("data_set", "status", "comment"),
    [
        (b"This is a letter, not a mammogram.\r\n", Status.CANNOT_PARSE, ""),
        (b"\x00" * 64, Status.INVALID_UID, "SOPClassUID is missing"),
        (minimal(StudyInstanceUID=None), Status.INVALID_UID, "StudyInstanceUID is missing"),
        (minimal(StudyInstanceUID=b""), Status.INVALID_UID, "StudyInstanceUID is missing"),
        (minimal(SeriesInstanceUID=None), Status.INVALID_UID, "SeriesInstanceUID is missing"),
        (minimal(SOPInstanceUID=None), Status.INVALID_UID, "SOPInstanceUID is missing"),
        (minimal(StudyInstanceUID=b"../../etc/passwd"), Status.INVALID_UID, "StudyInstanceUID is not a UID (PS3.5 9.1)"),
        (minimal(StudyInstanceUID=b"1.2/3.4 "), Status.INVALID_UID, "StudyInstanceUID is not a UID (PS3.5 9.1)"),
        (minimal(StudyInstanceUID=b"1.02.3"), Status.INVALID_UID, "StudyInstanceUID is not a UID (PS3.5 9.1)"),
        (minimal(StudyInstanceUID=b"1.2\\1.3"), Status.INVALID_UID, "StudyInstanceUID is not a UID (PS3.5 9.1)"),
        (minimal(StudyInstanceUID="1.２".encode()), Status.INVALID_UID, "StudyInstanceUID is not a UID (PS3.5 9.1)"),
        (minimal(StudyInstanceUID=LONG_UID.encode()), Status.INVALID_UID, "StudyInstanceUID is not a UID (PS3.5 9.1)"),
        (minimal(SOPInstanceUID=LONG_UID.encode()), Status.INVALID_UID, "SOPInstanceUID is not a UID (PS3.5 9.1)"),
        (minimal(SOPInstanceUID=b"1.2.31"), Status.DOES_NOT_MATCH, "SOPInstanceUID differs between command and data set"),
        (minimal(SOPClassUID=ULTRASOUND.encode()), Status.DOES_NOT_MATCH, "SOPClassUID differs between command and data set"),
        (minimal()[:-3], Status.CANNOT_PARSE, "the data set ends within a value"),
        (minimal()[:40], Status.INVALID_UID, "SOPInstanceUID is missing"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_words(door: Callable[..., Door], data_set: bytes, status: Status, comment: str) -> None:
    fourview = door()
    answer = fourview.send_bytes(data_set, sop_instance_uid="1.2.30")
    assert answer.Status == status
    assert comment in answer.ErrorComment
    assert 0 < len(answer.ErrorComment) <= 64
    assert fourview.receptions == []
    assert fourview.kept_files() == fourview.unfinished_files() == []


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("keep_bytes", [0.99, 0.5])
def test_an_image_with_its_end_missing_is_refused(door: Callable[..., Door], syntax: Any, keep_bytes: float) -> None:
    fourview, ds = door(), mammogram()
    if syntax == JPEG2000Lossless:
        ds.compress(syntax, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax
    whole = encode(ds)
    answer = fourview.send_bytes(whole[: int(len(whole) * keep_bytes)], sop_instance_uid=ds.SOPInstanceUID, syntax=syntax)
    assert answer.Status == Status.CANNOT_PARSE
    assert "pixel data ends" in answer.ErrorComment
    assert fourview.send_bytes(whole, sop_instance_uid=ds.SOPInstanceUID, syntax=syntax).Status == Status.SUCCESS


def test_a_refused_image_does_not_end_the_association(door: Callable[..., Door]) -> None:
    fourview = door()
    statuses = fourview.send(mammogram(View.L_CC), mammogram(View.R_CC, StudyInstanceUID=None), mammogram(View.L_MLO))
    assert [status.Status for status in statuses] == [Status.SUCCESS, Status.INVALID_UID, Status.SUCCESS]


def test_a_uid_with_a_slash_in_the_command_reaches_no_path(door: Callable[..., Door]) -> None:
    fourview = door()
    answer = fourview.send_bytes(minimal(SOPInstanceUID=b"../../x"), sop_instance_uid="../../x")
    assert (answer.Status, answer.ErrorComment) == (Status.INVALID_UID, "SOPInstanceUID is not a UID (PS3.5 9.1)")
    assert fourview.unfinished_files() == []


def test_a_class_sent_under_another_classes_context_is_refused(door: Callable[..., Door]) -> None:
    fourview = door()
    assoc = fourview.associate((MG, ExplicitVRLittleEndian))
    ds = mammogram(SOPClassUID=PET)
    for context in assoc.accepted_contexts:
        context.abstract_syntax = PET  # only the sender's own note of what was agreed
    answer = assoc.send_c_store(ds)
    assoc.release()
    assert (answer.Status, answer.ErrorComment) == (Status.SOP_CLASS_NOT_SUPPORTED, "this SOP class was not negotiated")


def test_an_object_above_its_limit_is_refused(door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch) -> None:
    fourview = door()
    monkeypatch.setattr("listener.keeping.BY_UID", {sop_class.uid: _with_limit(sop_class, 1024) for sop_class in SOP_CLASSES})
    [answer] = fourview.send(mammogram())
    assert answer.Status == Status.TOO_LARGE
    assert fourview.unfinished_files() == []


def _with_limit(sop_class: Any, limit_bytes: int) -> Any:
    return type(sop_class)(sop_class.uid, sop_class.name, sop_class.on_arrival, sop_class.reason, sop_class.is_image, limit_bytes)


def test_a_disk_that_is_nearly_full_asks_for_a_later_try(door: Callable[..., Door]) -> None:
    fourview = door()
    fourview.files.min_free_bytes = 1 << 60
    [answer] = fourview.send(mammogram())
    assert (answer.Status, answer.ErrorComment) == (Status.OUT_OF_RESOURCES, "the disk is nearly full; try again later")
    assert fourview.kept_files() == fourview.unfinished_files() == []
    fourview.files.min_free_bytes = 0
    assert fourview.send(mammogram())[0].Status == Status.SUCCESS, "by itself, once there is room"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_asks_for_a_later_try(door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fourview = door()

    def adopt(path: Path) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fourview.files, "adopt", adopt)
    [answer] = fourview.send(mammogram())
    assert answer.Status == Status.OUT_OF_RESOURCES
    assert fourview.unfinished_files() == []


def test_a_busy_database_asks_for_a_later_try_which_goes_well(door: Callable[..., Door]) -> None:
    fourview = door()
    fourview.archive.failure = Busy("locked", unsure=False)
    [answer] = fourview.send(mammogram())
    assert answer.Status == Status.OUT_OF_RESOURCES
    assert fourview.unfinished_files() == []
    assert list(fourview.files.root.glob("??/*")) == []
    fourview.archive.failure = None
    assert fourview.send(mammogram())[0].Status == Status.SUCCESS
    assert fourview.archive.kept == [Kept.NEW]


def test_a_surprise_is_logged_and_answered(door: Callable[..., Door], caplog: pytest.LogCaptureFixture) -> None:
    fourview = door()
    fourview.archive.failure = RuntimeError("a fault of ours")
    [answer] = fourview.send(mammogram())
    assert answer.Status == Status.UNEXPECTED
    assert "a fault of ours" in caplog.text
    assert fourview.unfinished_files() == []


# -------------------------------------------------------------------------------------------------------- associations


def test_echo(door: Callable[..., Door], needs_program: Callable[[str], str]) -> None:
    command = [dcmtk(needs_program, "echoscu"), "-aec", "FOURVIEW", "127.0.0.1", str(door().scp.port)]
    assert subprocess.run(command, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("calling", "called", "diagnostic", "words"),
    [
        ("GANTRY", "ORTHANC", 7, "called AE title is not ours"),
        ("STRANGER", "FOURVIEW", 3, "calling AE title not in accept_from"),
    ],
)
def test_wrong_ae_titles_are_rejected_and_logged(
    door: Callable[..., Door], caplog: pytest.LogCaptureFixture, calling: str, called: str, diagnostic: int, words: str
) -> None:
    fourview = door(accept_from=("GANTRY", "OTHER"))
    assoc = fourview.associate((Verification, ExplicitVRLittleEndian), calling=calling, called=called)
    assert assoc.is_rejected
    assert assoc.acceptor.primitive.diagnostic == diagnostic
    assert f"reason='{words}' calling_ae_title={calling} called_ae_title={called}" in caplog.text


def test_listed_senders_are_accepted(door: Callable[..., Door]) -> None:
    fourview = door(accept_from=("OTHER", "GANTRY"))
    assert fourview.send(mammogram())[0].Status == Status.SUCCESS


def test_too_many_associations_are_told_to_come_again(door: Callable[..., Door], caplog: pytest.LogCaptureFixture) -> None:
    fourview = door(max_associations=1)
    first = fourview.associate((Verification, ExplicitVRLittleEndian))
    second = fourview.associate((Verification, ExplicitVRLittleEndian))
    assert (second.acceptor.primitive.result, second.acceptor.primitive.diagnostic) == (2, 2)
    assert "max_associations" in caplog.text
    first.release()


def test_every_class_is_negotiated_and_what_cannot_be_decoded_is_not(door: Callable[..., Door]) -> None:
    fourview = door()
    classes = [sop_class.uid for sop_class in SOP_CLASSES]
    assoc = fourview.associate(*((sop_class_uid, ExplicitVRLittleEndian) for sop_class_uid in classes))
    assert {str(context.abstract_syntax) for context in assoc.accepted_contexts} == set(classes)
    assoc.release()
    refused = fourview.associate((MG, DeflatedExplicitVRLittleEndian), (MG, ExplicitVRBigEndian), (PET, ExplicitVRLittleEndian))
    assert not refused.is_established
    assert refused.accepted_contexts == []


def test_uncompressed_is_preferred_when_a_sender_leaves_us_the_choice(door: Callable[..., Door]) -> None:
    fourview = door()
    ae = AE(ae_title="GANTRY")
    context = build_context(MG, [JPEG2000Lossless, ImplicitVRLittleEndian, ExplicitVRLittleEndian])
    assoc = ae.associate("127.0.0.1", fourview.scp.port, contexts=[context], ae_title="FOURVIEW")
    assert assoc.accepted_contexts[0].transfer_syntax == [ExplicitVRLittleEndian]
    assoc.release()


def test_a_taken_port_is_said_in_words(door: Callable[..., Door]) -> None:
    port = door().scp.port
    with pytest.raises(CannotListen, match=rf"cannot listen on 127\.0\.0\.1:{port}: another program uses this port"):
        door(port=port)


def test_a_host_that_is_not_ours_is_said_in_words(door: Callable[..., Door]) -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1:0: this machine has no such address"):
        door(host="192.0.2.1")


def test_receivers_share_a_port_when_told_to(door: Callable[..., Door]) -> None:
    first = door(reuse_port=True)
    second = door(reuse_port=True, port=first.scp.port)
    # Linux chooses by the sender's port, so that many associations reach both.
    for number in range(64):
        assert first.send(mammogram(image=str(number)))[0].Status == Status.SUCCESS
        if first.receptions and second.receptions:
            return
    pytest.fail("64 associations went to one receiver")


def test_shutdown_lets_a_running_association_finish(door: Callable[..., Door]) -> None:
    fourview = door()
    assoc = fourview.associate((MG, ExplicitVRLittleEndian))
    assert assoc.send_c_store(mammogram(View.L_CC)).Status == Status.SUCCESS
    stopping = threading.Thread(target=fourview.scp.shutdown, kwargs={"grace_seconds": 60})
    stopping.start()
    while not fourview.associate((MG, ExplicitVRLittleEndian)).is_aborted:
        time.sleep(0.05)
    assert assoc.send_c_store(mammogram(View.R_CC)).Status == Status.SUCCESS
    assoc.release()
    stopping.join(timeout=30)
    assert not stopping.is_alive()
    assert fourview.archive.kept == [Kept.NEW, Kept.NEW]


def test_shutdown_does_not_wait_for_ever(door: Callable[..., Door]) -> None:
    fourview = door()
    assoc = fourview.associate((MG, ExplicitVRLittleEndian))
    fourview.scp.shutdown(grace_seconds=0.1)
    assoc.join(timeout=30)
    assert assoc.is_aborted


def test_a_connection_is_guarded(door: Callable[..., Door]) -> None:
    fourview = door(limits=Limits(message_bytes=50_000))
    assert "Status" not in fourview.send(mammogram())[0]
    assert fourview.receptions == []


def test_logs_hold_uids_and_no_patient(door: Callable[..., Door], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fourview = door()
    fourview.send(mammogram(PatientID="SECRET7"), mammogram(View.R_CC, PatientID="SECRET7", StudyInstanceUID=None))
    fourview.send_bytes(minimal(SOPInstanceUID=b"1\nforged line"), sop_instance_uid="1\nforged line")
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name == "listener.scp")
    assert mammogram().SOPInstanceUID in ours
    assert f"study_instance_uid={mammogram().StudyInstanceUID}" in ours
    assert "status=0xC001" in ours
    assert "\nforged" not in ours
    for secret in ("Doe", "SECRET7", "19700101", "ACC1"):
        assert secret not in caplog.text


# ------------------------------------------------------------------------------------------------------------- pieces


def test_an_aborted_transfer_leaves_nothing(door: Callable[..., Door]) -> None:
    fourview = door(limits=Limits(message_bytes=50_000))
    fourview.send(mammogram())
    give_up_at = time.monotonic() + 20
    while fourview.unfinished_files():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    assert fourview.kept_files() == []


def test_a_value_that_fills_the_database_is_cut_and_controls_are_escaped(door: Callable[..., Door]) -> None:
    fourview = door()
    ds = mammogram(PatientID="9" * 5000)
    ds["Modality"]._value = "MG\x1b[2J"
    assert fourview.send(ds)[0].Status == Status.SUCCESS
    assert fourview.receptions[0].patient_id == "9" * 1024
    assert fourview.receptions[0].modality == "MG\\x1b[2J"


def test_uids() -> None:
    for good in ("0", "1.2.840.10008.1.1", "2.25.0", "1" * 64):
        assert is_uid(good)
    for bad in ("", ".", "1.", ".1", "1..2", "01.2", "1.02", "1" * 65, "1.2\n", " 1.2", "1.2a", "1.٣"):
        assert not is_uid(bad)


def test_deep_nesting_is_refused_not_fatal(tmp_path: Path) -> None:
    item = b""
    for _ in range(3000):
        item = struct.pack("<HH", 0x0040, 0xA730) + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + item
    path = tmp_path / "deep.dcm"
    path.write_bytes(part10(minimal() + item, sop_instance_uid="1.2.30"))
    with pytest.raises(Refused) as caught:
        read_keys(path)
    assert caught.value.status == Status.CANNOT_PARSE


def test_pydicoms_own_validation_does_not_decide(tmp_path: Path) -> None:
    assert config.settings.reading_validation_mode == config.WARN
    path = tmp_path / "odd.dcm"
    path.write_bytes(part10(minimal(Modality=b"mg?lower case and far too long", PatientName=b"x" * 200), sop_instance_uid="1.2.30"))
    keys = read_keys(path)
    assert keys.modality == "mg?lower case and far too long"
    assert keys.patient_name == "x" * 200
    assert keys.damage == ""


def test_every_sop_class_stands_in_the_table_once() -> None:
    assert len({sop_class.uid for sop_class in SOP_CLASSES}) == len(SOP_CLASSES) == 34
    assert all(bool(sop_class.reason) != (sop_class.uid in KEPT) for sop_class in SOP_CLASSES)
    assert {MG, KEY_OBJECT} == KEPT
    assert {MG, KEY_OBJECT, MG_FOR_PROCESSING} == kept_for({ImageKind.FOR_PROCESSING, ImageKind.FFDM})
    assert {MG, KEY_OBJECT, "1.2.840.10008.5.1.4.1.1.1"} == kept_for({ImageKind.CR})
