"""STOW-RS as clients use it: what is kept, what is refused and with which status, and that the answer comes after the commit."""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.web import _load_xml_dataset
from fourview_process import FourviewProcess
from mammograms_made import mammogram, uid
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from serving import SlowDisk, half_sent, hang_up, serving, wait_until

from listener import stow
from listener.demo_exams import exams
from listener.keeping import kept_for
from listener.keys import Meta, Refused, Status, read_meta
from listener.stow import Entrance
from listener.web import create_app
from pipeline.pixels import preview
from store.archive import Archive, Kept, Reception
from store.database import read_engine, write_engine
from store.files import Files
from store.rows import Busy
from store.search import Search
from store.study import HANGING_ORDER, View

MULTIPART = 'multipart/related; type="application/dicom"; boundary=b'
STUDY = uid("study")


class Remembering:
    """The real Archive, and a note of what it was given."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.receptions: list[Reception] = []
        self.kept: list[Kept] = []
        self.failure: Exception | None = None
        self.asked = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def keep(self, reception: Reception) -> Kept:
        self.asked.set()
        assert self.may_go_on.wait(30)
        if self.failure is not None:
            raise self.failure
        kept = self.archive.keep(reception)
        self.receptions.append(reception)
        self.kept.append(kept)
        return kept


class Web:
    """A running app with its folders, and ways to send to it."""

    def __init__(self, url: str, archive: Remembering, files: Files, entrance: Entrance) -> None:
        self.url = url
        self.archive = archive
        self.files = files
        self.entrance = entrance

    @property
    def client(self) -> DICOMwebClient:
        session = requests.Session()
        session.trust_env = False
        return DICOMwebClient(self.url, session=session)

    def post(self, body: Any, content_type: str = MULTIPART, path: str = "/studies", **headers: str) -> httpx.Response:
        headers = {"Content-Type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return httpx.post(self.url + path, content=body, headers=headers, timeout=60, trust_env=False)

    def store(self, *instances: Dataset | bytes, path: str = "/studies") -> httpx.Response:
        return self.post(body(*(part10(one) if isinstance(one, Dataset) else one for one in instances)), path=path)

    def kept_files(self) -> list[Path]:
        return [path for path in self.files.root.glob("??/*") if path.is_file()]

    def is_empty(self) -> bool:
        return not self.kept_files() and not list(self.files.incoming.iterdir()) and not self.archive.receptions


def part10(ds: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def part(content: bytes, header: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    return b"--b\r\n" + header + b"\r\n" + content + b"\r\n"


def body(*contents: bytes) -> bytes:
    return b"".join(part(content) for content in contents) + b"--b--"


def reasons(response: httpx.Response) -> dict[str, int]:
    """SOP Instance UID -> Failure Reason; "" for an instance without a UID."""
    failed = [one for tag in ("00081198", "0008119A") for one in response.json().get(tag, {}).get("Value", [])]
    return {one.get("00081155", {}).get("Value", [""])[0]: one["00081197"]["Value"][0] for one in failed}


def stored(response: httpx.Response) -> list[str]:
    return [one["00081155"]["Value"][0] for one in response.json().get("00081199", {}).get("Value", [])]


@pytest.fixture
def web(tmp_path: Path, sqlite_template: Path) -> Iterator[Callable[..., Web]]:
    running: list[Any] = []

    def start(**options: Any) -> Web:
        shutil.copy(sqlite_template, tmp_path / "web.db")
        engine = write_engine(f"sqlite:///{tmp_path / 'web.db'}")
        archive, files = Remembering(Archive(engine)), Files(tmp_path / "files")
        defaults: dict[str, Any] = {"archive": archive, "files": files, "kept": kept_for(()), "ae_title": "FOURVIEW"}
        entrance = Entrance(**(defaults | options))
        search = Search(read_engine(f"sqlite:///{tmp_path / 'web.db'}"))
        context = serving(create_app(results=search, file_path=files.path, ready=list, entrance=entrance))
        running.append((context, archive, engine))
        return Web(context.__enter__() + "/dicom-web", archive, files, entrance)

    yield start
    for context, archive, engine in running:
        archive.may_go_on.set()
        context.__exit__(None, None, None)
        engine.dispose()


# ---------------------------------------------------------------------------------------------------------------- kept


def test_dicomweb_client_stores_an_exam(web: Callable[..., Web]) -> None:
    # read from files: dicomweb-client writes a preamble only for those
    fourview, exam = web(), [dcmread(BytesIO(part10(mammogram(view)))) for view in HANGING_ORDER]
    answer = fourview.client.store_instances(exam, STUDY)
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [ds.SOPInstanceUID for ds in exam]
    assert "FailedSOPSequence" not in answer and "RetrieveURL" in answer
    assert fourview.archive.kept == [Kept.NEW] * 4
    for reception, ds in zip(fourview.archive.receptions, exam, strict=True):
        assert reception.file_name is not None
        kept = fourview.files.path(reception.file_name)
        assert dcmread(kept) == ds
        assert (reception.origin, reception.calling_ae_title, reception.called_ae_title) == ("stow", "", "FOURVIEW")
        assert (reception.patient_id, reception.patient_name, reception.modality) == ("P1", "Doe^Jane", "MG")
    assert list(fourview.files.incoming.iterdir()) == []
    assert fourview.entrance.figures.snapshot()["instances_received|new"] == 4


def test_the_bytes_of_the_data_set_are_those_that_came(web: Callable[..., Web]) -> None:
    """Whichever entrance an image takes, it has the same hash: the second copy is a duplicate."""
    fourview, ds = web(), mammogram()
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    sent = bytearray(part10(ds))
    sent[:128] = b"MZ" + bytes(126)  # a preamble that a system would run
    assert fourview.store(bytes(sent)).status_code == 200
    [kept] = fourview.kept_files()
    assert kept.read_bytes() == bytes(128) + sent[128:]
    [reception] = fourview.archive.receptions
    data_set = bytes(sent[-reception.size_bytes :])
    assert reception.file_hash == hashlib.sha256(data_set).hexdigest()
    assert reception.transfer_syntax_uid == JPEG2000Lossless
    assert fourview.store(ds).status_code == 200
    assert fourview.archive.kept == [Kept.NEW, Kept.DUPLICATE]
    assert len(fourview.kept_files()) == 1


def test_what_is_not_analysed_is_accepted_and_has_a_row_only(web: Callable[..., Web]) -> None:
    fourview = web()
    ds = mammogram(SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1", Modality="US")
    response = fourview.store(ds)
    assert (response.status_code, stored(response)) == (200, [ds.SOPInstanceUID])
    assert fourview.archive.kept == [Kept.IGNORED]
    assert fourview.kept_files() == []


def test_the_answer_comes_after_the_commit(web: Callable[..., Web]) -> None:
    fourview, ds = web(), mammogram()
    fourview.archive.may_go_on.clear()
    answers: list[httpx.Response] = []
    sender = threading.Thread(target=lambda: answers.append(fourview.store(ds)))
    sender.start()
    sender.join(1.0)
    assert sender.is_alive() and not answers
    fourview.archive.may_go_on.set()
    sender.join(30)
    assert answers[0].status_code == 200
    assert fourview.archive.kept == [Kept.NEW]


def test_the_answer_can_be_had_in_xml(web: Callable[..., Web]) -> None:
    fourview, good, bad = web(), mammogram(View.L_CC), mammogram(View.R_CC)
    content = body(part10(good), part10(bad)[:-1000])
    response = fourview.post(content, Accept="application/dicom+xml")
    assert (response.status_code, response.headers["Content-Type"]) == (202, "application/dicom+xml")
    answer = _load_xml_dataset(ElementTree.fromstring(response.content))
    assert answer.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == good.SOPInstanceUID
    assert (answer.FailedSOPSequence[0].ReferencedSOPInstanceUID, answer.FailedSOPSequence[0].FailureReason) == (bad.SOPInstanceUID, 0xC002)


# ------------------------------------------------------------------------------------------------------------- refused


def test_some_are_kept_and_some_are_not(web: Callable[..., Web]) -> None:
    fourview, good, other = web(), mammogram(View.L_CC), mammogram(View.R_CC, study="another")
    short = mammogram(View.L_MLO)
    response = fourview.store(other, part10(short)[:-1000], good, b"no DICOM of Doe^Jane at all" * 20, path=f"/studies/{STUDY}")
    assert response.status_code == 202
    assert stored(response) == [good.SOPInstanceUID]
    assert reasons(response) == {
        other.SOPInstanceUID: Status.DOES_NOT_MATCH,
        short.SOPInstanceUID: Status.CANNOT_PARSE,
        "": Status.CANNOT_PARSE,
    }
    warnings = " ".join(response.headers.get_list("Warning"))
    assert "1 of 4 not stored: the instance is of another study than the URL" in warnings
    assert "ends after" in warnings and "DICM is not at byte 128" in warnings
    assert "Doe" not in warnings + response.text
    assert len(fourview.kept_files()) == 1 and list(fourview.files.incoming.iterdir()) == []


def _without_meta_uid(ds: Dataset) -> bytes:
    data = part10(ds)
    return data.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI", 1)


def _other_meta(ds: Dataset) -> bytes:
    data = part10(ds)
    at = data.index(str(ds.SOPInstanceUID).encode())
    return data[: at + 5] + (b"1" if data[at + 5 : at + 6] != b"1" else b"2") + data[at + 6 :]


def _in_syntax(syntax: str) -> Callable[[Dataset], bytes]:
    def change(ds: Dataset) -> bytes:
        return part10(ds).replace(b"1.2.840.10008.1.2.1\0", syntax.encode().ljust(20, b"\0"), 1)

    return change


@pytest.mark.parametrize(
    ("ds", "change", "reason", "words"),
    [
        (mammogram(SOPClassUID="1.2.840.10008.5.1.4.1.1.128"), part10, Status.SOP_CLASS_NOT_SUPPORTED, "not supported"),
        (mammogram(), _other_meta, Status.DOES_NOT_MATCH, "between file meta and data set"),
        (mammogram(), _without_meta_uid, Status.CANNOT_PARSE, "no TransferSyntaxUID"),
        (mammogram(), _in_syntax(ExplicitVRBigEndian), Status.TRANSFER_SYNTAX_NOT_SUPPORTED, "transfer syntax"),
        (mammogram(), lambda ds: part10(ds)[:140], Status.CANNOT_PARSE, "cut short"),
        (mammogram(StudyInstanceUID=""), part10, Status.INVALID_UID, "StudyInstanceUID is missing"),
    ],
)
def test_an_instance_that_cannot_be_kept_is_refused_with_its_status(
    web: Callable[..., Web], ds: Dataset, change: Callable[[Dataset], bytes], reason: Status, words: str
) -> None:
    fourview = web()
    response = fourview.store(change(ds))
    assert response.status_code == 409
    assert list(reasons(response).values()) == [reason]
    assert words in response.headers["Warning"]
    assert fourview.is_empty()


def test_a_deflated_instance_is_refused_before_it_is_read(web: Callable[..., Web]) -> None:
    fourview, ds = web(), mammogram()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert reasons(fourview.store(ds)) == {ds.SOPInstanceUID: Status.TRANSFER_SYNTAX_NOT_SUPPORTED}
    sr = mammogram(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    del sr.PixelData
    sr.file_meta.TransferSyntaxUID = JPEG2000Lossless
    assert reasons(fourview.store(sr)) == {sr.SOPInstanceUID: Status.TRANSFER_SYNTAX_NOT_SUPPORTED}
    assert fourview.is_empty()
    implicit = mammogram()
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert fourview.store(implicit).status_code == 200


def test_strict_refuses_what_is_not_analysed(web: Callable[..., Web]) -> None:
    fourview, ds = web(strict=True), mammogram(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    response = fourview.store(ds)
    assert (response.status_code, reasons(response)) == (409, {ds.SOPInstanceUID: Status.SOP_CLASS_NOT_SUPPORTED})
    assert fourview.is_empty()


def test_the_limit_of_its_class_holds_for_an_instance(web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch) -> None:
    fourview, ds = web(), mammogram()
    monkeypatch.setattr(stow, "MAX_INSTANCE_BYTES", 4096)
    response = fourview.store(ds)
    assert (response.status_code, reasons(response)) == (409, {"": Status.TOO_LARGE})
    monkeypatch.undo()
    small = {name: type(one)(**{**one.__dict__, "limit_bytes": 1024}) for name, one in stow.BY_UID.items()}
    monkeypatch.setattr("listener.keeping.BY_UID", small)
    assert reasons(fourview.store(ds)) == {ds.SOPInstanceUID: Status.TOO_LARGE}
    assert fourview.is_empty()


def test_a_database_that_is_away_is_to_be_tried_again(web: Callable[..., Web]) -> None:
    fourview, ds = web(), mammogram()
    fourview.archive.failure = Busy("the database did not keep it", unsure=False)
    response = fourview.store(ds)
    assert (response.status_code, reasons(response)) == (503, {ds.SOPInstanceUID: Status.OUT_OF_RESOURCES})
    assert response.headers["Retry-After"]
    assert fourview.is_empty()


def test_a_disk_that_is_nearly_full_is_said_before_the_body_is_read(web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch) -> None:
    fourview, ds = web(), mammogram()
    monkeypatch.setattr(fourview.files, "has_room", lambda share=1.0: False)
    response = fourview.store(ds)
    assert (response.status_code, response.json()) == (503, {"detail": "the disk is nearly full; try again later"})
    assert fourview.is_empty()


def test_a_disk_that_fills_up_in_the_middle_keeps_nothing_half(web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch) -> None:
    fourview, ds = web(), mammogram()
    monkeypatch.setattr("listener.streamed.SPACE_EVERY_BYTES", 20_000)
    monkeypatch.setattr(fourview.files, "has_room", lambda share=1.0: share == 1.0)
    response = fourview.store(ds)
    assert (response.status_code, list(reasons(response).values())) == (503, [Status.OUT_OF_RESOURCES])
    monkeypatch.undo()

    def full(path: Path) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(fourview.files, "adopt", full)
    response = fourview.store(ds)
    assert (response.status_code, reasons(response)) == (503, {ds.SOPInstanceUID: Status.OUT_OF_RESOURCES})
    assert str(fourview.files.root) not in response.text + str(response.headers)
    assert fourview.is_empty()


def test_a_fault_of_ours_is_told_and_the_others_are_kept(web: Callable[..., Web]) -> None:
    fourview, first, second = web(), mammogram(View.L_CC), mammogram(View.R_CC)
    keep = fourview.archive.keep

    def fail_once(reception: Reception) -> Kept:
        fourview.archive.keep = keep  # type: ignore[method-assign]
        raise RuntimeError("Doe^Jane")

    fourview.archive.keep = fail_once  # type: ignore[method-assign]
    response = fourview.store(first, second)
    assert (response.status_code, stored(response)) == (202, [second.SOPInstanceUID])
    assert reasons(response) == {first.SOPInstanceUID: Status.UNEXPECTED}
    assert "Doe" not in response.text + str(response.headers)
    assert list(fourview.files.incoming.iterdir()) == []


# ----------------------------------------------------------------------------------------------------------- bad bodies


@pytest.mark.parametrize(
    ("content", "content_type", "status", "words"),
    [
        (body(b"x"), 'multipart/related; type="application/dicom"', 400, "names no boundary"),
        (body(b"x"), 'multipart/related; type="application/dicom"; boundary=other', 400, "does not occur in the body"),
        (body(b"x"), f'multipart/related; type="application/dicom"; boundary={"a" * 71}', 400, "1 to 70"),
        (b"", MULTIPART, 400, "does not occur"),
        (b"--b--", MULTIPART, 400, "has no part"),
        (part(b"x"), MULTIPART, 400, "before its closing boundary"),
        (part(b"x", b"") + b"--b--", MULTIPART, 400, "no Content-Type"),
        (part(b"x", b"nonsense\r\n") + b"--b--", MULTIPART, 400, "Name: value"),
        (part(b"x", b"Content-Type: image/jpeg\r\n") + b"--b--", MULTIPART, 415, "not of the type application/dicom"),
        (part(b"x", b"Content-Type: application/dicom\r\nContent-Transfer-Encoding: base64\r\n") + b"--b--", MULTIPART, 415, "encoded"),
        (body(b"x"), 'multipart/related; type="application/dicom+json"; boundary=b', 415, "multipart/related"),
        (body(b"x"), "application/dicom", 415, "multipart/related"),
        (body(b"x"), "", 415, "multipart/related"),
        (b"{", "application/json", 415, "multipart/related"),
    ],
)
def test_a_body_that_is_none_is_refused_in_words(
    web: Callable[..., Web], content: bytes, content_type: str, status: int, words: str
) -> None:
    fourview = web()
    response = fourview.post(content, content_type)
    assert response.status_code == status
    assert words in response.json()["detail"]
    assert fourview.is_empty()


def test_what_came_whole_before_the_body_broke_off_is_kept(web: Callable[..., Web]) -> None:
    fourview, whole, half = web(), mammogram(View.L_CC), mammogram(View.R_CC)
    response = fourview.post(part(part10(whole)) + b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part10(half)[:-500])
    assert (response.status_code, stored(response)) == (202, [whole.SOPInstanceUID])
    assert "before its closing boundary" in response.headers["Warning"]
    assert len(fourview.kept_files()) == 1 and list(fourview.files.incoming.iterdir()) == []


def test_other_requests_are_refused_before_anything_is_read(web: Callable[..., Web]) -> None:
    fourview, content = web(), body(part10(mammogram()))
    assert fourview.post(content, path="/studies/1.2.x").status_code == 400
    assert fourview.post(content, Accept="text/html").status_code == 406
    assert fourview.post(content, Content_Encoding="gzip").status_code == 415
    assert fourview.post(content, path="/series").status_code == 405
    assert fourview.is_empty()


def test_there_is_no_entrance_without_a_store(web: Callable[..., Web], tmp_path: Path, sqlite_template: Path) -> None:
    search = Search(read_engine(f"sqlite:///{sqlite_template}"))
    with serving(create_app(results=search, file_path=Path, ready=list)) as url:
        assert httpx.post(url + "/dicom-web/studies", content=b"x", trust_env=False).status_code == 405


def test_what_a_path_allows_is_told_with_both_entrances(web: Callable[..., Web]) -> None:
    fourview = web()
    for path in ("/studies", f"/studies/{uid('study')}"):
        response = httpx.put(f"{fourview.url}{path}", content=b"x", trust_env=False)
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD, POST")


def test_only_so_many_may_store_at_once(web: Callable[..., Web]) -> None:
    fourview, ds = web(requests_at_once=1), mammogram()
    fourview.archive.may_go_on.clear()
    first = threading.Thread(target=fourview.store, args=[ds])
    first.start()
    assert fourview.archive.asked.wait(30)
    response = fourview.store(ds)
    assert response.status_code == 503 and response.headers["Retry-After"]
    fourview.archive.may_go_on.set()
    first.join(30)
    assert fourview.store(ds).status_code == 200


def test_a_place_is_taken_before_anything_is_waited_for(web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch) -> None:
    fourview, ds, disk = web(requests_at_once=1), mammogram(), SlowDisk()
    monkeypatch.setattr(fourview.files, "has_room", disk.has_room)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(fourview.store, ds)
        assert disk.asked.wait(30)
        second = fourview.store(ds)
        disk.may_go_on.set()
        assert (second.status_code, first.result().status_code) == (503, 200)


def test_more_parts_than_allowed_are_left_out(web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch) -> None:
    fourview, exam = web(), [mammogram(view) for view in HANGING_ORDER]
    monkeypatch.setattr(stow, "MAX_PARTS", 2)
    response = fourview.store(*exam)
    assert (response.status_code, stored(response)) == (202, [ds.SOPInstanceUID for ds in exam[:2]])
    assert "send the rest in another one" in response.headers["Warning"]


def _begin(fourview: Web, content: bytes) -> socket.socket:
    return half_sent(fourview.url.removesuffix("/dicom-web"), "/dicom-web/studies", MULTIPART, content)


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_client_that_goes_away_or_falls_silent_leaves_nothing_half_and_its_study_is_told(
    hangs_up: bool, web: Callable[..., Web], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fourview, whole = web(), mammogram()
    with caplog.at_level(logging.INFO), _begin(fourview, part(part10(whole)) + part(part10(mammogram(View.R_CC)))[:50_000]) as connection:
        wait_until(lambda: len(fourview.archive.kept) == 1 and len(list(fourview.files.incoming.iterdir())) == 1)
        if hangs_up:
            hang_up(connection)
            wait_until(lambda: "a client went away while it stored kept=1" in caplog.text)
        else:
            monkeypatch.setattr("listener.streamed.SILENCE_SECONDS", 0.2)
            connection.sendall(b"\0")  # that the next wait be a short one
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        wait_until(lambda: not list(fourview.files.incoming.iterdir()) and "event=audit" in caplog.text)
    assert len(fourview.kept_files()) == 1
    assert f"method=POST status={400 if hangs_up else 408} studies=1 study_instance_uid={STUDY} " in caplog.text


# ----------------------------------------------------------------------------------------------------------- the pieces


def test_file_meta_information_is_never_read_beyond_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "hostile"
    head = bytes(128) + b"DICM"
    for hostile in (
        b"\x02\x00\x01\x00OB\0\0\xff\xff\xff\x7f",
        b"\x02\x00\x02\x00UI\xff\xff",
        b"\x02\x00\x02\x00UI",
        b"\x02\x00\x02\x00UI\0\0" * 20_000,
    ):
        path.write_bytes(head + hostile)
        try:
            assert read_meta(path) == Meta("", "", "")
        except Refused as refusal:
            assert refusal.status is Status.CANNOT_PARSE


# --------------------------------------------------------------------------------------------------------- the whole way


def _memory_kib(process: int, what: str) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{what}:")))


def _large(pixel_bytes: int) -> Iterator[bytes]:
    """The body for a tomosynthesis object of this size: accepted, not kept."""
    ds = mammogram(SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.3")
    head = part10(ds)[: -len(ds.PixelData) - 12]
    yield b"--b\r\nContent-Type: application/dicom\r\n\r\n" + head + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", pixel_bytes)
    for _ in range(pixel_bytes // 1024**2):
        yield bytes(1024**2)
    yield b"\r\n--b--\r\n"


def test_a_real_exam_that_comes_by_stow_is_read_like_any_other(tmp_path: Path, free_port: Callable[[], int]) -> None:
    _, exam = exams()[0]
    study = str(exam[0].StudyInstanceUID)
    with FourviewProcess(
        tmp_path / "fourview", dicom_port=free_port(), http_port=free_port(), pacs_port=free_port(), pacs_url="http://127.0.0.1:9"
    ) as fourview:
        session = requests.Session()
        session.trust_env = False
        client = DICOMwebClient(fourview.url + "/dicom-web", session=session)
        answer = client.store_instances([dcmread(BytesIO(part10(ds))) for ds in exam], study)
        assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [ds.SOPInstanceUID for ds in exam]
        found = fourview.wait_for_state(study, "analysed")
        assert {one["sop_instance_uid"] for one in found["slots"].values()} == {ds.SOPInstanceUID for ds in exam}
        assert any("from stow" in one["text"] for one in found["timeline"])
        fourview.wait_for(lambda: client.search_for_instances(study), "no result is listed")
        for ds in exam:
            uids = (study, str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID))
            shown = Image.open(BytesIO(client.retrieve_instance_rendered(*uids, media_types=("image/png",))))
            assert np.array_equal(np.asarray(shown), preview(ds.pixel_array, ds))
            small = httpx.get(client.base_url + "/studies/{}/series/{}/instances/{}/thumbnail".format(*uids), trust_env=False)
            assert max(Image.open(BytesIO(small.content)).size) == 256
            with pytest.raises(requests.HTTPError, match="404"):  # the image itself is the PACS's to serve
                client.retrieve_instance(*uids)
        fourview.send(exam)  # the other entrance knows them already
        assert len(fourview.show(study)["images"]) == 4

        [web] = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if _is_web(path, fourview.config)]
        before = _memory_kib(web, "VmHWM")
        response = httpx.post(
            f"{fourview.url}/dicom-web/studies",
            content=_large(400 * 1024**2),
            headers={"Content-Type": MULTIPART},
            timeout=120,
            trust_env=False,
        )
        assert (response.status_code, len(stored(response))) == (200, 1)
        assert _memory_kib(web, "VmHWM") - before < 40 * 1024, "an object of 400 MiB was held in memory"


def _is_web(cmdline: Path, config: Path) -> bool:
    try:
        words = cmdline.read_bytes().split(b"\0")
    except OSError:
        return False  # ended meanwhile
    return b"web" in words and str(config).encode() in words
