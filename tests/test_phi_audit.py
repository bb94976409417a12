"""Where a patient may not be found: one `fourview serve` meets marked patients by every entrance, with faults on the way, and is searched.

The same processes write a second log without the filter: marks are found there, so the audit can fail.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
import pytest
from command_line import fourview as command
from destination_made import Destination
from fourview_process import PROJECT, FourviewProcess
from mammograms_made import mammogram, uid
from marks import found, found_below, written
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, JPEG2000Lossless, SecondaryCaptureImageStorage
from results_made import part10
from webhook import Webhook, webhook

from pipeline.send import Pacs, send
from store.study import HANGING_ORDER, View

NAMES = ("Quirkmark", "Zephyrmark", "吉洞標識印", "길동표식인")
ID, OTHER_ID, ACCESSION, BIRTH = "PIDMARK4242", "PIDMARK9797", "ACCMARK7731", "19370219"
MARKS = (*NAMES, ID, OTHER_ID, ACCESSION, BIRTH, "1937-02-19", "Referrermark", "Otherpatientmark")
NAME = f"{NAMES[0]}^{NAMES[1]}={NAMES[2]}^洞={NAMES[3]}^동"
ALL = " ".join(MARKS)
#: Of the PACS, and of the address of the webhook.
SECRETS = ("pacsSecretMark88", "hookSecretMark99")
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
BROKEN_PAGE = "1.2.3.4"

PATIENT: dict[str, Any] = {
    "PatientName": NAME,
    "PatientID": ID,
    "PatientBirthDate": BIRTH,
    "AccessionNumber": ACCESSION,
    "ReferringPhysicianName": "Referrermark^Doc",
}


class Refusing(Destination):
    """Has the study, under the patient's name, and takes nothing, with the patient's name."""

    def handle_store(self, event: Any) -> Any:
        super().handle_store(event)
        answer = Dataset()
        answer.Status, answer.ErrorComment = 0xC123, f"refused {ID} {NAMES[0]}"
        return answer

    def handle_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        found = Dataset()
        found.QueryRetrieveLevel = event.identifier.QueryRetrieveLevel
        found.StudyInstanceUID = event.identifier.StudyInstanceUID
        for keyword, value in PATIENT.items():
            setattr(found, keyword, value if keyword != "PatientName" else f"{NAMES[0]}^{NAMES[1]}")
        yield 0xFF00, found


class OddOrthanc(BaseHTTPRequestHandler):
    """Answers with marks, whatever it is asked."""

    logins: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        self.logins.add(self.headers.get("Authorization", ""))
        odd = json.dumps([{"0020000E": {"vr": "UI", "Value": [ALL]}, "00080060": {"vr": "CS", "Value": ["MG"]}, "ID": ALL}]).encode()
        status, content = (200, odd) if "dicom-web" in self.path else (200, ALL.encode()) if "/file" in self.path else (500, ALL.encode())
        self.send_response(status)
        self.send_header("Warning", f'299 "{ID}"')
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Audited:
    """What is searched."""

    folder: Path
    process: FourviewProcess
    hook: Webhook
    answers: list[tuple[bytes, bytes]] = field(default_factory=list)  # errors over HTTP: the path, and head and body
    told: list[str] = field(default_factory=list)  # by commands
    sent: list[str] = field(default_factory=list)  # what became of each instance by C-STORE
    metrics: bytes = b""
    processes: list[bytes] = field(default_factory=list)  # command lines, environments, names
    workflows: bytes = b""


def exam(name: str, **overrides: Any) -> list[Dataset]:
    return [mammogram(view, study=name, **{**PATIENT, **overrides}) for view in HANGING_ORDER]


def poisoned() -> list[Dataset]:
    images = exam("poisoned", SpecificCharacterSet=["", "ISO 2022 IR 149"])
    images[0].compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    images[0].PixelData = images[0].PixelData[:-200] + bytes(200)
    return images


def two_patients() -> list[Dataset]:
    images = exam("two patients")
    images[1].PatientName, images[1].PatientID, images[1].PatientBirthDate = "Otherpatientmark^X", OTHER_ID, "19370220"
    return images


def refused() -> list[Dataset]:
    """Each is answered with a failure."""
    return [
        mammogram(view, **PATIENT, **wrong)
        for view, wrong in zip(View, ({"StudyInstanceUID": ID}, {"SeriesInstanceUID": None}), strict=False)
    ]


def descendants(pid: int) -> list[int]:
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                children.append(int(stat.parent.name))
        except OSError:
            continue
    return [pid, *(one for child in children for one in descendants(child))]


def ask_everything(audited: Audited) -> None:
    """Every entrance of HTTP, with marks where a client can write anything; what is answered with an error is kept."""
    study = str(exam("sound")[0].StudyInstanceUID)
    form = {"files": (f"{ID}_{NAMES[0]}.dcm", ALL.encode(), "application/dicom")}
    stow = 'multipart/related; type="application/dicom"; boundary=b'
    parts = b"".join(
        b"--b\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n" for content in [*map(part10, refused()), ALL.encode()]
    )
    ids = ["-".join(["0123abcd"] * 5)] * 4
    named = quote(NAME)
    marked = {"Referer": f"http://x/{ID}", "User-Agent": ID, "Cookie": f"patient={ID}", "X-Request-Id": ACCESSION}
    with httpx.Client(base_url=audited.process.url, trust_env=False, timeout=120, headers=marked) as client:

        def ask(method: str, path: str, **more: Any) -> None:
            answer = client.request(method, path, **more)
            if answer.status_code >= 400 or answer.status_code == 202:
                head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
                audited.answers.append((path.partition("?")[0].encode(), head.encode() + answer.content))

        for path in (
            f"/studies/{BROKEN_PAGE}",
            f"/api/v1/studies/{BROKEN_PAGE}",
            f"/studies/{ID}",
            f"/api/v1/studies/{ID}",
            f"/nowhere/{named}",
        ):
            ask("GET", path)
        for place in ("{}", "{}/metadata", "{}/rendered", f"{study}/series/{{}}/instances", f"{study}/series/1.2/instances/{{}}/frames/1"):
            for mark in (ID, named, ACCESSION, BIRTH):
                ask("GET", "/dicom-web/studies/" + place.format(mark))
        for query in (f"PatientName={named}&limit=x", f"PatientID={ID}&{ACCESSION}=1", f"StudyInstanceUID={ID}", f"StudyDate={BIRTH}-{ID}"):
            ask("GET", f"/dicom-web/studies?{query}")
            ask("GET", f"/studies?{query}")
            ask("GET", f"/api/v1/studies?{query}")
        for body in (
            {"instance_ids": ids},
            {"instance_ids": [ID]},
            {"instance_ids": ids, "orthanc_url": f"http://{ID}.example/"},
            {ID: ALL},
            [ALL],
        ):
            ask("POST", "/inference", json=body)
            ask("POST", "/api/mri/mammography/analyze/", json=body)
            for act in ("release", "send", "withdraw", "reprocess"):
                ask("POST", f"/api/v1/studies/{study}/{act}", json=body)
                ask("POST", f"/api/v1/studies/{ID}/{act}", json=body)
        ask("POST", "/api/v1/files", files=form)
        ask("POST", f"/api/v1/pauses/{ID}", json={"reason": ALL})
        ask("POST", "/dicom-web/studies", content=parts + b"--b--", headers={"Content-Type": stow})
        ask("POST", f"/dicom-web/studies/{ID}", content=parts + b"--b--", headers={"Content-Type": stow})
        ask("POST", "/dicom-web/studies", content=ALL.encode(), headers={"Content-Type": f"multipart/related; boundary={ID}; type={ID}"})
        ask("POST", "/dicom-web/studies", content=ALL.encode(), headers={"Content-Type": stow})
        good = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part10(ds) + b"\r\n" for ds in exam("stored"))
        ask("POST", "/dicom-web/studies", content=good + b"--b--", headers={"Content-Type": stow})
        audited.metrics = client.get("/metrics").content


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    for name in ("tmp", "here", "raw"):
        (folder / name).mkdir()
    (folder / "raw" / "surprises").write_text(ALL)
    destination = Refusing(classes=(ComprehensiveSRStorage, SecondaryCaptureImageStorage, FIND))
    with ThreadingHTTPServer(("127.0.0.1", 0), OddOrthanc) as orthanc, webhook() as hook:
        threading.Thread(target=orthanc.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        process = FourviewProcess(
            folder / "here",
            dicom_port=free_port(),
            http_port=free_port(),
            pacs_port=destination.pacs.port,
            pacs_url=f"http://127.0.0.1:{orthanc.server_port}",
            tables=f'[alert]\nurl = "{hook.url}?key={SECRETS[1]}"\n',
            environment={
                "AUDIT_RAW": str(folder / "raw" / "raw.log"),
                "AUDIT_SURPRISES": str(folder / "raw" / "surprises"),
                "TMPDIR": str(folder / "tmp"),
            },
        )
        (folder / "raw" / "password").write_text(SECRETS[0])
        login = f'accept_untrained = true\nuser = "fourview"\npassword_file = "{folder / "raw" / "password"}"\n[[rule]]'
        process.config.write_text(process.config.read_text().replace("accept_untrained = true\n[[rule]]", login))
        found_here = Audited(folder, process, hook)
        process.process = process._popen(process.command("serve"), {"PYTHONPATH": f"{PROJECT / 'tests' / 'audited'}{os.pathsep}{PROJECT}"})
        try:
            process.wait_for(process._ready, "Fourview does not get ready", 120)
            pacs = Pacs(name="fourview", ae_title="FOURVIEW", host="127.0.0.1", port=process.dicom_port)
            outgoing = folder / "outgoing"
            outgoing.mkdir()
            for number, ds in enumerate(
                [*exam("sound", SpecificCharacterSet=["", "ISO 2022 IR 149"]), *two_patients(), *poisoned(), *refused()]
            ):
                path = outgoing / f"{number}.dcm"
                ds.save_as(path, enforce_file_format=True)
                found_here.sent.append(next(one.outcome.name for one in send(pacs, "MODALITY", [path])))
            ask_everything(found_here)
            for name in ("sound", "two patients", "poisoned", "stored"):
                process.wait_for(lambda name=name: settled(process, uid(name)), f"{name} is not settled", 120)  # type: ignore[misc]
            process.wait_for(lambda: {"held", "refused"} <= {one["kind"] for one in hook.posted}, "nothing was told", 60)
            for code, *arguments in (
                (1, "reprocess", "--from-orthanc", uid("sound")),
                (1, "status"),
                (0, "deliveries"),
                (1, "reconcile"),
                (0, "config", "check"),
                (1, "check"),
            ):
                found_here.told.append(command("--config", process.config, *arguments, code=code))
            for pid in descendants(process.process.pid):
                for kind in ("cmdline", "environ", "comm", "status"):
                    found_here.processes.append(Path(f"/proc/{pid}/{kind}").read_bytes())
        finally:
            process.process.terminate()
            process.process.wait(150)
            orthanc.shutdown()
            destination.ae.shutdown()
        found_here.workflows = b"".join(path.read_bytes() for path in (folder / "here" / "data").glob("fourview-engine.db*"))
        yield found_here


def settled(process: FourviewProcess, study: str) -> bool:
    """Nothing more comes of it by itself, but that what is refused is tried again."""
    shown = process.show(study)
    waiting = [one for one in shown["deliveries"] if one["state"] in ("waiting", "sending") and not one["reason"]]
    return shown["state"] not in ("collecting", "analysing") and not waiting


def test_no_patient_is_in_the_logs_and_without_the_filter_there_is_one(audited: Audited) -> None:
    log = audited.process.log.read_bytes()
    assert b"event=http_failed" in log or b'"event": "event=http_failed' in log, "a page failed"
    assert audited.sent.count("SENT") == 12 and len(audited.sent) == 14, "the last two are refused"
    assert found(log, MARKS) == set()
    raw = (audited.folder / "raw" / "raw.log").read_bytes()
    assert {ID, NAMES[0], NAMES[3], ACCESSION} <= found(raw, MARKS), "without this the line above would prove nothing"


def test_no_patient_is_in_metrics_errors_alerts_and_commands(audited: Audited) -> None:
    assert audited.metrics and found(audited.metrics, MARKS) == set()
    assert len(audited.answers) > 80
    # A page is offered in Korean under the path that was asked for, and what is not here is named: the client wrote that.
    assert [answer for path, answer in audited.answers if found(answer, MARKS) - found(path, MARKS)] == []
    assert len(audited.hook.raw) >= 2 and found("".join(audited.hook.raw).encode(), MARKS) == set()
    assert all(audited.told) and found("".join(audited.told).encode(), MARKS) == set()


def test_no_patient_is_in_the_workflow_engines_tables(audited: Audited) -> None:
    assert b"workflow_status" in audited.workflows and b"Surprised" in audited.workflows, "a step failed"
    assert found(audited.workflows, MARKS) == set()


def test_no_patient_is_in_temporary_files_and_names_of_files(audited: Audited) -> None:
    assert found_below(audited.folder / "tmp", MARKS) == {}
    assert [path for path in (audited.folder / "here" / "data" / "files").rglob("*") if path.is_file()]
    assert found_below(audited.folder / "here", MARKS, names_only=True) == {}


def test_no_patient_is_in_what_the_system_tells_of_processes(audited: Audited) -> None:
    assert len(audited.processes) >= 16
    assert found(b"\n".join(audited.processes), MARKS) == set()


def test_no_secret_is_anywhere_but_where_it_is_used(audited: Audited) -> None:
    assert any(found(login.encode(), SECRETS) for login in OddOrthanc.logins)
    assert found(audited.process.config.read_bytes(), SECRETS) == {SECRETS[1]}
    told = [
        audited.process.log.read_bytes(),
        audited.metrics,
        audited.workflows,
        *audited.processes,
        *(answer for _, answer in audited.answers),
    ]
    told += [text.encode() for text in (*audited.told, *audited.hook.raw)]
    assert [text[:200] for text in told if found(text, SECRETS)] == []
    assert set(found_below(audited.folder / "here", SECRETS)) == {"config.toml"} and found_below(audited.folder / "tmp", SECRETS) == {}


def test_marks_are_where_they_belong(audited: Audited) -> None:
    """In the database and in kept files; and a search that found nothing anywhere would prove nothing."""
    database = audited.folder / "here" / "data" / "fourview.db"
    kept = b"".join(path.read_bytes() for path in database.parent.glob("fourview.db*"))
    assert {ID, OTHER_ID, ACCESSION, NAMES[0]} <= found(kept, MARKS)
    assert found_below(audited.folder / "here" / "data" / "files", [ID])


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_is_found_in_whatever_way_it_is_written(mark: str) -> None:
    forms = [form for form in written(mark) if len(form) >= 8]
    assert len(forms) >= 12
    for form in forms:
        assert found(b"before " + form + b" behind", MARKS) >= {mark} or mark in ("1937-02-19", BIRTH), form
    assert found(b"nothing of it: 2.25.1219370219001 " + bytes(range(256)), MARKS) == set()
