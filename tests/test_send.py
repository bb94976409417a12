"""Sending to real SCPs: to pynetdicom's that answer as they are told, and to Orthanc."""

from __future__ import annotations

import itertools
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from destination_made import Destination
from mammograms_made import mammogram
from orthanc_process import OrthancProcess
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, JPEG2000Lossless, SecondaryCaptureImageStorage
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation as MG
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from pipeline import send as send_module
from pipeline.orthanc import find_studies_by_dicomweb
from pipeline.send import VERDICTS, Echo, Found, Pacs, SendOutcome, Sent, conversation, echo, find_instance, find_studies, send
from store.correction import Verdict, compare, values_of
from store.study import View

OURS = "FOURVIEW"
SENT, RETRY, REFUSED = SendOutcome.SENT, SendOutcome.RETRY, SendOutcome.REFUSED


@pytest.fixture
def destination(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Destination]]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    started: list[Destination] = []

    def start(**settings: Any) -> Destination:
        started.append(Destination(**settings))
        return started[-1]

    yield start
    for one in started:
        one.ae.shutdown()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def save(ds: Dataset) -> Path:
        path = tmp_path / f"{ds.SOPInstanceUID}.file"
        ds.save_as(path, enforce_file_format=True)
        return path

    return save


@contextmanager
def peer(behave: Callable[[socket.socket], None]) -> Iterator[Pacs]:
    """A TCP server that is no DICOM node: `behave` gets its first connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                behave(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Pacs(name="archive", ae_title="PACS", host="127.0.0.1", port=listening.getsockname()[1])
        thread.join(timeout=30)


# --------------------------------------------------------------------------------------------------------------- store


def test_files_go_out_byte_for_byte_over_one_association(destination: Callable[..., Destination], write: Callable[..., Path]) -> None:
    pacs = destination(syntaxes=(ExplicitVRLittleEndian, JPEG2000Lossless))
    images = [mammogram(view) for view in View]
    images[3].compress(JPEG2000Lossless, generate_instance_uid=False)
    files = [write(ds) for ds in images]
    answers = send(pacs.pacs, OURS, files)
    assert [(answer.sop_instance_uid, answer.outcome, answer.status) for answer in answers] == [
        (ds.SOPInstanceUID, SENT, 0) for ds in images
    ]
    assert pacs.associations == 1
    for path, received in zip(files, pacs.received, strict=True):
        assert data_set(received) == data_set(path.read_bytes())


def data_set(part10: bytes) -> bytes:
    """What follows the file meta information, whose length stands in its first element."""
    return part10[144 + int.from_bytes(part10[140:144], "little") :]


@pytest.mark.parametrize(
    ("status", "outcome", "words"),
    [
        (0x0000, SENT, "stored"),
        (0x0111, SENT, "already"),
        (0xB000, SENT, "warning"),
        (0xB006, SENT, "warning"),
        (0xB007, SENT, "warning"),
        (0x0110, RETRY, "could not process"),
        (0xA700, RETRY, "out of resources"),
        (0xA7FF, RETRY, "out of resources"),
        (0x0122, REFUSED, "does not store this SOP class"),
        (0x0124, REFUSED, "does not permit our AE title"),
        (0xA900, REFUSED, "does not match its SOP class"),
        (0xC000, REFUSED, "cannot understand"),
        (0xC001, REFUSED, "cannot understand"),
        (0xFF00, RETRY, "does not give to C-STORE"),
    ],
)
def test_a_status_decides_what_happens_next(
    destination: Callable[..., Destination], write: Callable[..., Path], status: int, outcome: SendOutcome, words: str
) -> None:
    pacs = destination()
    pacs.statuses = [status]
    [answer] = send(pacs.pacs, OURS, [write(mammogram())])
    assert (answer.outcome, answer.status) == (outcome, status)
    assert f"0x{status:04X}" in answer.reason
    assert words in answer.reason


def test_no_status_stands_in_two_rows_of_the_table() -> None:
    rows = sorted((verdict.first, verdict.last) for verdict in VERDICTS)
    assert all(first <= last for first, last in rows)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(rows))


def test_each_file_keeps_its_own_status(destination: Callable[..., Destination], write: Callable[..., Path]) -> None:
    pacs = destination()
    pacs.statuses = [0x0000, 0xA700, 0xC000, 0x0000]
    answers = send(pacs.pacs, OURS, [write(mammogram(view)) for view in View])
    assert [answer.outcome for answer in answers] == [SENT, RETRY, REFUSED, SENT]


def test_after_an_abort_the_rest_is_tried_again(destination: Callable[..., Destination], write: Callable[..., Path]) -> None:
    pacs = destination()
    pacs.statuses = [0x0000, "abort", 0x0000]
    answers = send(pacs.pacs, OURS, [write(mammogram(view)) for view in View])
    assert [(answer.outcome, answer.status) for answer in answers] == [(SENT, 0), (RETRY, None), (RETRY, None), (RETRY, None)]
    assert "aborted" in answers[1].reason
    assert len(pacs.received) == 2


def test_a_class_or_syntax_that_is_not_accepted_is_refused_and_the_others_go(
    destination: Callable[..., Destination], write: Callable[..., Path]
) -> None:
    pacs = destination()
    compressed = mammogram(View.R_CC)
    compressed.compress(JPEG2000Lossless, generate_instance_uid=False)
    report = mammogram(View.L_MLO, SOPClassUID=ComprehensiveSRStorage)
    answers = send(pacs.pacs, OURS, [write(compressed), write(mammogram(View.L_CC)), write(report)])
    assert [answer.outcome for answer in answers] == [REFUSED, SENT, REFUSED]
    assert JPEG2000Lossless in answers[0].reason
    assert ComprehensiveSRStorage in answers[2].reason


def test_nothing_accepted_at_all_is_refused(destination: Callable[..., Destination], write: Callable[..., Path]) -> None:
    pacs = destination(classes=(SecondaryCaptureImageStorage,))
    [answer] = send(pacs.pacs, OURS, [write(mammogram())])
    assert (answer.outcome, answer.status) == (REFUSED, None)
    assert "accepts none of the offered SOP classes" in answer.reason


@pytest.mark.parametrize(
    ("settings", "outcome", "words"),
    [
        ({"require_calling_aet": ["OTHER"]}, REFUSED, "does not know our AE title FOURVIEW: add it there (in Orthanc: to DicomModalities"),
        ({"require_called_aet": True, "ae_title": "OTHER"}, REFUSED, "does not go by the AE title PACS: set `ae_title` of this [[pacs]]"),
    ],
)
def test_a_rejected_association_says_what_to_change(
    destination: Callable[..., Destination], write: Callable[..., Path], settings: dict[str, Any], outcome: SendOutcome, words: str
) -> None:
    pacs = destination(**settings)
    answers = send(pacs.pacs, OURS, [write(mammogram(View.L_CC)), write(mammogram(View.R_CC))])
    assert [(answer.outcome, answer.status) for answer in answers] == [(outcome, None)] * 2
    assert words in answers[0].reason
    assert echo(pacs.pacs, OURS) == Echo(ok=False, reason=answers[0].reason)


def test_a_destination_with_too_many_associations_is_tried_again(
    destination: Callable[..., Destination], write: Callable[..., Path]
) -> None:
    pacs = destination(maximum_associations=1)
    blocker = AE(ae_title="OTHER")
    blocker.add_requested_context(MG, ExplicitVRLittleEndian)
    held = blocker.associate("127.0.0.1", pacs.pacs.port)
    [answer] = send(pacs.pacs, OURS, [write(mammogram())])
    assert (answer.outcome, answer.status) == (RETRY, None)
    assert "as many associations as it allows" in answer.reason
    held.release()


@pytest.mark.parametrize(
    ("rejection", "outcome", "words"),
    [
        ((2, 3, 1), RETRY, "congested"),
        ((1, 1, 1), REFUSED, "without a reason"),
        ((2, 1, 1), RETRY, "without a reason"),
        ((1, 2, 2), REFUSED, "version"),
    ],
)
def test_other_rejections(write: Callable[..., Path], rejection: tuple[int, int, int], outcome: SendOutcome, words: str) -> None:
    def reject(connection: socket.socket) -> None:
        hold(connection, first=struct.pack(">BxLxBBB", 0x03, 4, *rejection))

    with peer(reject) as pacs:
        [answer] = send(pacs, OURS, [write(mammogram())])
    assert answer.outcome == outcome
    assert words in answer.reason


def test_nobody_there_is_tried_again(free_port: Callable[[], int], write: Callable[..., Path]) -> None:
    pacs = Pacs(name="archive", ae_title="PACS", host="127.0.0.1", port=free_port())
    answers = send(pacs, OURS, [write(mammogram(View.L_CC)), write(mammogram(View.R_CC))])
    assert [answer.outcome for answer in answers] == [RETRY] * 2
    assert f"nobody answers at archive (PACS at 127.0.0.1:{pacs.port})" in answers[0].reason
    assert find_instance(pacs, OURS, study_instance_uid="1.2", series_instance_uid="1.3", sop_instance_uid="1.4") == Found.UNKNOWN


def test_a_name_that_does_not_resolve_is_tried_again(write: Callable[..., Path]) -> None:
    pacs = Pacs(name="archive", ae_title="PACS", host="no-such-host.invalid", port=104)
    [answer] = send(pacs, OURS, [write(mammogram())])
    assert answer.outcome == RETRY
    assert "'no-such-host.invalid' cannot be resolved" in answer.reason


def test_a_peer_that_accepts_and_says_nothing_is_given_up(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_module, "ACSE_SECONDS", 0.5)
    with peer(lambda connection: hold(connection)) as pacs:
        [answer] = send(pacs, OURS, [write(mammogram())])
    assert answer.outcome == RETRY
    assert "no association: is this its DICOM port?" in answer.reason


def test_a_peer_that_stops_within_a_pdu_is_given_up(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_module, "ACSE_SECONDS", 0.5)
    monkeypatch.setattr(send_module, "DIMSE_SECONDS", 0.5)
    with peer(lambda connection: hold(connection, first=b"\x02\x00\x00")) as pacs:
        [answer] = send(pacs, OURS, [write(mammogram())])
    assert answer.outcome == RETRY


def hold(connection: socket.socket, *, first: bytes = b"") -> None:
    """Says `first` and nothing more, until the other side closes."""
    connection.settimeout(30)
    connection.recv(65536)
    connection.sendall(first)
    while connection.recv(65536):
        pass


def test_a_destination_that_never_answers_a_store_is_given_up(
    destination: Callable[..., Destination], write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_module, "DIMSE_SECONDS", 0.5)
    pacs = destination()
    released = threading.Event()

    def wait(event: Any) -> int:
        released.wait(30)
        return 0x0000

    pacs.server.bind(evt.EVT_C_STORE, wait)
    answers = send(pacs.pacs, OURS, [write(mammogram(View.L_CC)), write(mammogram(View.R_CC))])
    released.set()
    assert [(answer.outcome, answer.status) for answer in answers] == [(RETRY, None)] * 2
    assert "did not answer within" in answers[0].reason


def test_files_that_cannot_be_sent_are_refused_and_the_others_go(
    destination: Callable[..., Destination], write: Callable[..., Path], tmp_path: Path
) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("This is a letter, not a mammogram." * 10)
    answers = send(destination().pacs, OURS, [tmp_path / "gone", letter, write(mammogram())])
    assert [answer.outcome for answer in answers] == [REFUSED, REFUSED, SENT]
    assert "the file gone is gone" in answers[0].reason
    assert "letter.txt is no DICOM file" in answers[1].reason


def test_nothing_to_send_opens_no_association(destination: Callable[..., Destination], tmp_path: Path) -> None:
    pacs = destination()
    assert send(pacs.pacs, OURS, []) == []
    assert [answer.outcome for answer in send(pacs.pacs, OURS, [tmp_path / "gone"])] == [REFUSED]
    assert pacs.associations == 0


def test_a_file_that_goes_away_meanwhile_ends_the_association_and_is_tried_again(
    destination: Callable[..., Destination], write: Callable[..., Path]
) -> None:
    pacs, first, second, third = destination(), *(write(mammogram(view)) for view in (View.L_CC, View.R_CC, View.L_MLO))

    def store_and_unlink(event: Any) -> int:
        event.dataset_path.unlink()
        second.unlink(missing_ok=True)
        return 0x0000

    pacs.server.bind(evt.EVT_C_STORE, store_and_unlink)
    answers = send(pacs.pacs, OURS, [first, second, third])
    assert [answer.outcome for answer in answers] == [SENT, RETRY, RETRY]
    assert "cannot be read" in answers[1].reason


# --------------------------------------------------------------------------------------------------------- echo, find


def test_echo(destination: Callable[..., Destination]) -> None:
    pacs = destination(classes=(Verification,))
    assert echo(pacs.pacs, OURS) == Echo(ok=True, reason=f"archive (PACS at 127.0.0.1:{pacs.pacs.port}) answers")


def identifier(sop_instance_uid: str) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = "IMAGE"
    ds.SOPInstanceUID = sop_instance_uid
    return ds


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([(0xFF00, identifier("1.4"))], Found.PRESENT),
        ([(0xFF01, identifier("1.5")), (0xFF00, identifier("1.4"))], Found.PRESENT),
        ([(0xFF00, identifier("1.5"))], Found.ABSENT),  # it answered with the whole series
        ([(0x0000, None)], Found.ABSENT),
        ([(0xA700, None)], Found.UNKNOWN),
        ([(0xC000, None)], Found.UNKNOWN),
    ],
)
def test_find(destination: Callable[..., Destination], answers: list[tuple[int, Dataset | None]], found: Found) -> None:
    pacs = destination(classes=(StudyRootQueryRetrieveInformationModelFind,))
    pacs.answers = answers
    assert find_instance(pacs.pacs, OURS, study_instance_uid="1.2", series_instance_uid="1.3", sop_instance_uid="1.4") == found


def test_a_destination_that_answers_no_queries_is_unknown(destination: Callable[..., Destination]) -> None:
    pacs = destination()
    assert find_instance(pacs.pacs, OURS, study_instance_uid="1.2", series_instance_uid="1.3", sop_instance_uid="1.4") == Found.UNKNOWN


def whose(**values: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.QueryRetrieveLevel = "STUDY"
    for keyword, value in {"StudyInstanceUID": "1.2", "PatientID": "P1", **values}.items():
        setattr(ds, keyword, value)
    return ds


def test_the_patient_of_a_study_is_asked_for_over_one_association(destination: Callable[..., Destination]) -> None:
    pacs = destination(classes=(MG, StudyRootQueryRetrieveInformationModelFind))
    pacs.answers = [(0xFF00, whose(PatientName="Hong^Gildong=洪^吉洞=홍^길동")), (0xFF00, whose(StudyInstanceUID="9.9")), (0x0000, None)]
    found = find_studies(pacs.pacs, OURS, ["1.2", "9.9", "3.4"])
    assert [dict(one) for one in found["1.2"].patients] == [{"PatientID": "P1", "PatientName": "Hong^Gildong=洪^吉洞=홍^길동"}]
    assert found["9.9"].patients == ({"PatientID": "P1"},), "an answer about another study is no answer"
    assert found["3.4"].found is Found.ABSENT and "does not have this study yet" in found["3.4"].reason
    assert pacs.associations == 1


def test_what_is_asked_and_sent_goes_over_one_association(destination: Callable[..., Destination], write: Callable[..., Path]) -> None:
    pacs = destination(classes=(MG, StudyRootQueryRetrieveInformationModelFind))
    pacs.answers = [(0xFF00, whose()), (0x0000, None)]
    files = [write(mammogram(view)) for view in View]
    with conversation(pacs.pacs, OURS, files, ask=True) as talk:
        assert talk.find_studies(["1.2"])["1.2"].found is Found.PRESENT
        assert [one.outcome for one in talk.send(files[1:])] == [SENT] * 3
        pacs.answers = [(0x0000, None)]
        assert talk.find_instance("1.2", "1.3", "1.4") is Found.ABSENT
    assert (pacs.associations, len(pacs.received)) == (1, 3)


def test_a_destination_that_stores_and_answers_no_queries_is_not_waited_for(
    destination: Callable[..., Destination], write: Callable[..., Path]
) -> None:
    pacs = destination()
    path = write(mammogram())
    with conversation(pacs.pacs, OURS, [path], ask=True) as talk:
        known = talk.find_studies(["1.2"])["1.2"]
        assert known.found is Found.UNKNOWN and "`confirm` of this [[pacs]] says how" in known.reason
        assert talk.find_instance("1.2", "1.3", "1.4") is Found.UNKNOWN
        assert [one.outcome for one in talk.send([path])] == [SENT]


@pytest.mark.parametrize("answers", [[(0xA900, None)], [(0xC000, None)], [(0xFF00, None), (0xA700, None)]])
def test_a_destination_that_does_not_say_whose_study_it_is(answers: list[Any], destination: Callable[..., Destination]) -> None:
    pacs = destination(classes=(MG, StudyRootQueryRetrieveInformationModelFind))
    pacs.answers = answers
    found = find_studies(pacs.pacs, OURS, ["1.2"])["1.2"]
    assert found.found is Found.UNKNOWN and "set `confirm` to dicomweb or none" in found.reason


def test_a_destination_without_queries_says_how_it_may_be_asked(destination: Callable[..., Destination]) -> None:
    found = find_studies(destination().pacs, OURS, ["1.2"])["1.2"]
    assert found.found is Found.UNKNOWN and "`confirm` of this [[pacs]] says how" in found.reason


def test_what_orthanc_loses_of_a_name_is_no_correction(start_orthanc: Callable[..., OrthancProcess]) -> None:
    orthanc = start_orthanc(extra={"DicomModalities": {"fourview": [OURS, "127.0.0.1", 11112]}})
    pacs = replace(orthanc_pacs(orthanc), url=orthanc.url)
    name = "Hong^Gildong=洪^吉洞=홍^길동"
    ds = mammogram(SpecificCharacterSet="ISO_IR 192", PatientName=name, PatientID="K1", AccessionNumber="A1")
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    orthanc.upload(buffer.getvalue())
    study = str(ds.StudyInstanceUID)
    by_find, by_web = find_studies(pacs, OURS, [study])[study], find_studies_by_dicomweb(pacs, [study])[study]
    for known in (by_find, by_web):
        [patient] = known.patients
        assert (patient["PatientID"], patient["AccessionNumber"]) == ("K1", "A1") and patient["PatientName"].startswith("Hong^Gildong")
        assert compare(values_of(ds), patient).verdict is Verdict.AGREES, "Debian's Orthanc drops the letters that Latin-1 has not"
    for absent in (find_studies(pacs, OURS, ["1.2.3"]), find_studies_by_dicomweb(pacs, ["1.2.3"])):
        assert absent["1.2.3"].found is Found.ABSENT


def test_a_password_is_never_shown() -> None:
    assert "hunter2" not in repr(Pacs(name="a", ae_title="A", host="h", port=1, password="hunter2"))


# -------------------------------------------------------------------------------------------------------- real Orthanc


def orthanc_pacs(orthanc: OrthancProcess) -> Pacs:
    return Pacs(name="orthanc", ae_title=orthanc.ae_title, host=orthanc.host, port=orthanc.dicom_port)


def test_orthanc_gets_finds_and_keeps_the_same_bytes(start_orthanc: Callable[..., OrthancProcess], write: Callable[..., Path]) -> None:
    # Orthanc answers C-FIND only to modalities that it knows; storing is open to everybody.
    orthanc = start_orthanc(extra={"DicomModalities": {"fourview": [OURS, "127.0.0.1", 11112]}})
    pacs, images = orthanc_pacs(orthanc), [mammogram(view) for view in View]
    uids = [
        {
            "study_instance_uid": str(ds.StudyInstanceUID),
            "series_instance_uid": str(ds.SeriesInstanceUID),
            "sop_instance_uid": str(ds.SOPInstanceUID),
        }
        for ds in images
    ]
    assert echo(pacs, OURS).ok
    assert find_instance(pacs, OURS, **uids[0]) == Found.ABSENT
    files = [write(ds) for ds in images]
    assert [answer.outcome for answer in send(pacs, OURS, files)] == [SENT] * 4
    assert [find_instance(pacs, OURS, **one) for one in uids] == [Found.PRESENT] * 4
    assert [answer.outcome for answer in send(pacs, OURS, files[:1])] == [SENT], "a re-send is no failure"
    [found] = orthanc.find("Instance", SOPInstanceUID=images[0].SOPInstanceUID)
    stored = orthanc.get(f"/instances/{found['ID']}/file")
    assert dcmread(BytesIO(stored)) == images[0]
    assert data_set(stored) == data_set(files[0].read_bytes())


def test_orthanc_that_does_not_know_us_says_so(start_orthanc: Callable[..., OrthancProcess], write: Callable[..., Path]) -> None:
    orthanc = start_orthanc(extra={"DicomAlwaysAllowStore": False, "DicomAlwaysAllowEcho": False})
    [answer] = send(orthanc_pacs(orthanc), OURS, [write(mammogram())])
    assert answer.outcome == REFUSED
    assert f"does not know our AE title {OURS}" in answer.reason
    assert orthanc.get("/instances") == []


def test_orthanc_by_another_name_says_so(start_orthanc: Callable[..., OrthancProcess], write: Callable[..., Path]) -> None:
    orthanc = start_orthanc(ae_title="OTHER", extra={"DicomCheckCalledAet": True})
    pacs = Pacs(name="orthanc", ae_title="ORTHANC", host=orthanc.host, port=orthanc.dicom_port)
    [answer] = send(pacs, OURS, [write(mammogram())])
    assert answer.outcome == REFUSED
    assert "does not go by the AE title ORTHANC" in answer.reason


def test_orthanc_down_then_up(orthanc: OrthancProcess, write: Callable[..., Path]) -> None:
    pacs, path = orthanc_pacs(orthanc), write(mammogram())
    orthanc.stop()
    assert [answer.outcome for answer in send(pacs, OURS, [path])] == [RETRY]
    orthanc.start()
    assert send(pacs, OURS, [path]) == [
        Sent(mammogram().SOPInstanceUID, SENT, 0, f"orthanc (ORTHANC at 127.0.0.1:{orthanc.dicom_port}) answered 0x0000: stored")
    ]
