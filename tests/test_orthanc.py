"""Fetching from a real Orthanc by DICOMweb, and every way in which that can go wrong."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from mammograms_made import mammogram, uid
from orthanc_process import OrthancProcess
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, KeyObjectSelectionDocumentStorage, RLELossless

from pipeline import orthanc
from pipeline.orthanc import FetchFailed, fetch_study, find_instance_by_dicomweb
from pipeline.send import Found, Pacs
from store.study import HANGING_ORDER, View

USER, PASSWORD = "fourview", "s3cret"


def pacs(url: str, user: str = USER, password: str = PASSWORD) -> Pacs:
    return Pacs(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=4242, url=url, user=user, password=password)


def part10(ds: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


class LockedOrthanc(OrthancProcess):
    """An Orthanc that asks for a password; `locked_url` is its address without one."""

    def __init__(self, folder: Path, *, program: str, dicomweb: bool) -> None:
        extra = {"AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD}}
        super().__init__(folder, program=program, extra=extra, dicomweb=dicomweb)
        self.locked_url = self.url
        self.url = self.url.replace("://", f"://{USER}:{PASSWORD}@")


@pytest.fixture(scope="module")
def source(needs_program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedOrthanc]:
    """Holds a study of four views, each in another transfer syntax, with a Key Object and an SR; and a study without mammograms."""
    with LockedOrthanc(tmp_path_factory.mktemp("orthanc"), program=needs_program("Orthanc"), dicomweb=True) as process:
        for data in originals().values():
            process.upload(data)
        process.upload(part10(other(Modality="SR", SeriesInstanceUID=uid("study", "sr"), SOPInstanceUID=uid("study", "sr", 1))))
        ultrasound = {"StudyInstanceUID": uid("ultrasound"), "SeriesInstanceUID": uid("ultrasound", "series")}
        process.upload(part10(other(Modality="US", SOPInstanceUID=uid("ultrasound", 1), **ultrasound)))
        yield process


def originals() -> dict[str, bytes]:
    """SOP Instance UID to the Part 10 file that Orthanc was given."""
    syntaxes = (None, RLELossless, JPEG2000Lossless, JPEGLSLossless)
    files = {}
    for view, syntax in zip(HANGING_ORDER, syntaxes, strict=True):
        ds = mammogram(view)
        if syntax is not None:
            ds.compress(syntax, generate_instance_uid=False)
        files[str(ds.SOPInstanceUID)] = part10(ds)
    key_object = other(Modality="KO", SOPClassUID=KeyObjectSelectionDocumentStorage, SeriesInstanceUID=uid("study", "ko"))
    files[str(key_object.SOPInstanceUID)] = part10(key_object)
    return files


def other(**overrides: object) -> Dataset:
    """Something that is no mammogram."""
    without_pixels = dict.fromkeys(("PixelData", "Rows", "Columns", "ViewPosition", "ImageLaterality"))
    ds = mammogram(View.L_CC, **{"SOPInstanceUID": uid("study", "key object"), **without_pixels, **overrides})
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    return ds


def test_mammograms_and_key_objects_come_as_they_are_stored(source: LockedOrthanc) -> None:
    kept = originals()
    fetched = {str(dcmread(BytesIO(data)).SOPInstanceUID): data for data in fetch_study(pacs(source.locked_url), uid("study"))}
    assert fetched == kept


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (uid("nowhere"), "orthanc does not have study"),
        (uid("ultrasound"), "has no series of modality MG or KO"),
        ("1.2/../3", "is no Study Instance UID"),
    ],
)
def test_a_study_that_is_not_there(source: LockedOrthanc, study: str, words: str) -> None:
    with pytest.raises(FetchFailed, match=words) as failed:
        list(fetch_study(pacs(source.locked_url), study))
    assert study in str(failed.value)
    assert not failed.value.worth_retrying


def test_refused_credentials(source: LockedOrthanc) -> None:
    for user, password in ((USER, "wrong"), ("", "")):
        with pytest.raises(FetchFailed, match=r"answered 401.*compare user and password_file") as failed:
            list(fetch_study(pacs(source.locked_url, user, password), uid("study")))
        assert not failed.value.worth_retrying
        assert "wrong" not in str(failed.value)


def test_an_orthanc_without_the_plug_in(needs_program: Callable[[str], str], tmp_path: Path) -> None:
    with (
        LockedOrthanc(tmp_path, program=needs_program("Orthanc"), dicomweb=False) as process,
        pytest.raises(FetchFailed, match=r"no DICOMweb at .*install the plug-in"),
    ):
        list(fetch_study(pacs(process.locked_url), uid("study")))


def test_nobody_listens(free_port: Callable[[], int]) -> None:
    with pytest.raises(FetchFailed, match="orthanc is not reachable at http") as failed:
        list(fetch_study(pacs(f"http://127.0.0.1:{free_port()}"), uid("study")))
    assert failed.value.worth_retrying


@pytest.mark.parametrize("url", ["", "127.0.0.1:8042", "ftp://127.0.0.1", "http://"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(FetchFailed) as failed:
        list(fetch_study(pacs(url), uid("study")))
    assert not failed.value.worth_retrying


class Odd(http.server.BaseHTTPRequestHandler):
    """Orthanc cannot be made to misbehave; this can: the path's first part says how."""

    def do_GET(self) -> None:
        answers = {
            "html": (200, "text/html", b"<h1>please log in</h1>"),
            "other": (200, "application/dicom+json", b'[{"0020000E": {"vr": "UI"}, "00080060": {"vr": "CS", "Value": ["MG"]}}]'),
            "busy": (503, "text/plain", b"patient Doe^Jane is busy"),
        }
        how = self.path.split("/")[1]
        if how == "silent":
            self.server.silence.wait(30)  # type: ignore[attr-defined]
            return
        status, kind, body = answers[how]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def odd_url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        server.silence = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.silence.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("how", "words", "worth_retrying"),
    [
        ("html", "answered no DICOMweb", False),
        ("other", "answered no DICOMweb", False),
        ("busy", "answered 503", True),
        ("silent", "in time", True),
    ],
)
def test_a_server_that_answers_oddly(odd_url: str, monkeypatch: pytest.MonkeyPatch, how: str, words: str, worth_retrying: bool) -> None:
    monkeypatch.setattr(orthanc, "TIMEOUTS", (5.0, 0.2))
    with pytest.raises(FetchFailed, match=words) as failed:
        list(fetch_study(pacs(f"{odd_url}/{how}"), uid("study")))
    assert failed.value.worth_retrying is worth_retrying
    assert "Doe" not in str(failed.value)


def test_whether_a_result_arrived_is_asked_by_qido(source: LockedOrthanc, free_port: Callable[[], int]) -> None:
    ds = mammogram(HANGING_ORDER[0])
    uids = {"study_instance_uid": str(ds.StudyInstanceUID), "series_instance_uid": str(ds.SeriesInstanceUID)}
    assert find_instance_by_dicomweb(pacs(source.locked_url), **uids, sop_instance_uid=str(ds.SOPInstanceUID)) is Found.PRESENT
    assert find_instance_by_dicomweb(pacs(source.locked_url), **uids, sop_instance_uid="1.2.3") is Found.ABSENT
    # Another PACS has its DICOMweb under another path.
    elsewhere = replace(pacs(source.locked_url + "/dicom-web"), dicomweb="/")
    assert find_instance_by_dicomweb(elsewhere, **uids, sop_instance_uid=str(ds.SOPInstanceUID)) is Found.PRESENT
    assert sum(1 for _ in fetch_study(elsewhere, uids["study_instance_uid"])) == 5
    for unanswering in (pacs(source.locked_url, password="wrong"), pacs(f"http://127.0.0.1:{free_port()}"), pacs("nonsense")):
        assert find_instance_by_dicomweb(unanswering, **uids, sop_instance_uid="1.2.3") is Found.UNKNOWN
