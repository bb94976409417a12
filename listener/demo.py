"""The demonstration: two real exams go through a real Orthanc into Fourview and come back as results. `fourview demo` runs it.

Everything lies in one folder and is kept, so that a second run finds the first one's results. Fourview runs as its own process, as it
would in a hospital; what is printed about a result is read from the objects that came back, not from Fourview's own memory.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TextIO, TypeVar

import httpx
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage

from listener.demo_exams import SOURCE, DemoDataMissing, exams, repairs_in_words
from listener.reported import scores_of
from listener.standin import StandIn
from pipeline.model import ModelError, write_demo_weights
from pipeline.send import Pacs, SendOutcome, send

PROJECT = Path(__file__).parent.parent
ORTHANC_CONFIGURATION = PROJECT / "deploy" / "orthanc" / "orthanc.json"
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

FOURVIEW_AE_TITLE = "FOURVIEW"
PACS_AE_TITLE = "ORTHANC"
MODALITY_AE_TITLE = "DEMOROOM"
LOOPBACK = "127.0.0.1"

ORTHANC_SECONDS = 60
READY_SECONDS = 180
RESULT_SECONDS = 300
STOP_SECONDS = 20
POLL_SECONDS = 0.2


Say = Callable[[str], None]
T = TypeVar("T")


class DemoFailed(Exception):
    """The demonstration cannot go on. The message says what happened and where to look."""


@dataclass(frozen=True)
class Ports:
    """TCP ports on loopback that were free when the run began: another Orthanc or Fourview on this machine is not disturbed."""

    fourview_dicom: int
    fourview_http: int
    pacs_dicom: int
    pacs_http: int

    @classmethod
    def free(cls) -> Ports:
        with ExitStack() as stack:
            probes = [stack.enter_context(socket.socket()) for _ in range(4)]
            for probe in probes:
                probe.bind((LOOPBACK, 0))
            return cls(*(probe.getsockname()[1] for probe in probes))


@dataclass(frozen=True)
class Result:
    """The two objects of one version."""

    report: Dataset  # Comprehensive SR
    page: Dataset  # Secondary Capture


class DemoPacs(Protocol):
    """Where the images start and the results come back to."""

    confirm: str
    url: str

    def hand_over(self, study_instance_uids: Sequence[str]) -> None:
        """Returns when the mammograms of these studies have been sent on to Fourview; raises DemoFailed."""

    def results(self, study_instance_uid: str) -> list[Dataset]:
        """Every object of the study that is not a mammogram."""


class RoutingOrthanc:
    """A real Orthanc as deploy/orthanc describes it. Its instant.lua sends on; storage stays in the demo's folder."""

    confirm = "find"

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def wait_until_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        _wait_for(lambda: _answers(self._http, "/system"), ORTHANC_SECONDS, {"Orthanc": process}, f"Orthanc does not answer; see {log}")

    def hand_over(self, study_instance_uids: Sequence[str]) -> None:
        # Orthanc's script has already made the jobs when its C-STORE answer came.
        def done() -> bool:
            return not {job["State"] for job in self._get("/jobs?expand")} & {"Pending", "Running", "Retry"}

        _wait_for(done, RESULT_SECONDS, {}, "Orthanc is still sending images to Fourview")

    def results(self, study_instance_uid: str) -> list[Dataset]:
        query = {"Level": "Series", "Expand": True, "Query": {"StudyInstanceUID": study_instance_uid}}
        answer = self._http.post("/tools/find", content=json.dumps(query))
        answer.raise_for_status()
        instances = [name for series in answer.json() if series["MainDicomTags"].get("Modality") != "MG" for name in series["Instances"]]
        return [dcmread(io.BytesIO(self._http.get(f"/instances/{name}/file").raise_for_status().content)) for name in instances]

    def _get(self, path: str) -> Any:
        return self._http.get(path).raise_for_status().json()


class StandInPacs:
    """The built-in stand-in, where no Orthanc is installed."""

    confirm = "none"
    url = ""

    def __init__(self, stand_in: StandIn, fourview: Pacs) -> None:
        self._stand_in = stand_in
        self._fourview = fourview

    def hand_over(self, study_instance_uids: Sequence[str]) -> None:
        for study_instance_uid in study_instance_uids:
            for sent in self._stand_in.send_on(self._fourview, study_instance_uid):
                if sent.outcome is not SendOutcome.SENT:
                    raise DemoFailed(f"Fourview did not take image {sent.sop_instance_uid}: {sent.reason}")

    def results(self, study_instance_uid: str) -> list[Dataset]:
        return [dcmread(path) for path, ds in self._stand_in.headers(study_instance_uid) if ds.Modality != "MG"]


def find_orthanc() -> str | None:
    """Orthanc's program, when it and our configuration for it are there. Debian puts it where users' PATH does not reach."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    return program if ORTHANC_CONFIGURATION.is_file() else None


def configuration(ports: Ports, *, card: Path, pacs: DemoPacs) -> str:
    """The demo's config.toml."""
    return f"""\
# Written by `fourview demo`, anew at each run: the ports change.

[site]
timezone = "UTC"

[dicom]
ae_title = "{FOURVIEW_AE_TITLE}"
host = "{LOOPBACK}"
port = {ports.fourview_dicom}

[http]
host = "{LOOPBACK}"
port = {ports.fourview_http}

[store]
database = "sqlite:///fourview.db"
files = "files"
min_free_gib = 1

[study]
wait_for_retake_seconds = 0      # nobody retakes an image here
fetch_from = "{"orthanc" if pacs.url else ""}"

[model]
card = {json.dumps(str(card))}
allow_untrained = true           # the weights are random numbers

[[pacs]]
name = "orthanc"
ae_title = "{PACS_AE_TITLE}"
host = "{LOOPBACK}"
port = {ports.pacs_dicom}
url = "{pacs.url}"
confirm = "{pacs.confirm}"
accept_untrained = true

[[rule]]
name = "the demo's exams"
# Without the usual StudyAge <= 14: these studies are dated 2016, and that line would keep them out.
when = 'Modality == "MG"'
action = "analyse"
send_to = ["orthanc"]
"""


def orthanc_environment(folder: Path, ports: Ports) -> dict[str, str]:
    """What deploy/orthanc/orthanc.json leaves open."""
    no_plugins = folder / "no-plugins"
    no_plugins.mkdir(parents=True, exist_ok=True)
    return {
        "ORTHANC_NAME": "Fourview demo",
        "ORTHANC_STORAGE": str(folder / "orthanc"),
        "ORTHANC_AE_TITLE": PACS_AE_TITLE,
        "ORTHANC_DICOM_PORT": str(ports.pacs_dicom),
        "ORTHANC_HTTP_PORT": str(ports.pacs_http),
        "ORTHANC_FOURVIEW_AE_TITLE": FOURVIEW_AE_TITLE,
        "ORTHANC_FOURVIEW_HOST": LOOPBACK,
        "ORTHANC_FOURVIEW_PORT": str(ports.fourview_dicom),
        # This one also fires for an image that Orthanc has already: a run that was broken off is taken up by the next.
        "ORTHANC_ROUTING_SCRIPT": "instant.lua",
        "ORTHANC_PLUGINS": str(DICOMWEB_PLUGIN if DICOMWEB_PLUGIN.exists() else no_plugins),
    }


def newest(results: Sequence[Dataset]) -> Result | None:
    """The latest report and the latest page; None until both are there."""
    chosen = {}
    for sop_class in (ComprehensiveSRStorage, SecondaryCaptureImageStorage):
        of_class = [ds for ds in results if sop_class == ds.SOPClassUID]
        if not of_class:
            return None
        chosen[sop_class] = max(of_class, key=lambda ds: (str(ds.ContentDate), str(ds.ContentTime)))
    return Result(chosen[ComprehensiveSRStorage], chosen[SecondaryCaptureImageStorage])


def run_demo(folder: Path, *, out: TextIO) -> int:
    """Runs the whole demonstration in `folder` (made when absent), prints to `out`, stops all it started. 0 done, 1 failed."""

    def say(line: str) -> None:
        print(line, file=out, flush=True)

    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _sigterm_as_exit(), ExitStack() as started:
            _run(folder, say, started)
    except (DemoFailed, DemoDataMissing, ModelError, httpx.HTTPError) as error:
        say(f"The demo failed: {error}")
        return 1
    return 0


def _run(folder: Path, say: Say, started: ExitStack) -> None:
    say(f"Two exams of {SOURCE}, digitised films as the Python package 'mammograms' carries them. What was repaired in their headers:")
    for line in repairs_in_words():
        say(f"  {line}")
    files, studies = _write_exams(folder / "exams")

    ports = Ports.free()
    card = _demo_card(folder / "weights", say)
    fourview = Pacs(name="fourview", ae_title=FOURVIEW_AE_TITLE, host=LOOPBACK, port=ports.fourview_dicom)
    archive = Pacs(name="orthanc", ae_title=PACS_AE_TITLE, host=LOOPBACK, port=ports.pacs_dicom)

    pacs = _start_pacs(folder, ports, fourview, say, started)
    config = folder / "config.toml"
    config.write_text(configuration(ports, card=card, pacs=pacs))
    serve = _start_fourview(config, folder / "fourview.log", ports, say, started)

    say(f"\nSending {len(files)} images of {len(studies)} studies to {PACS_AE_TITLE} by C-STORE, which sends them on to Fourview ...")
    for sent in send(archive, MODALITY_AE_TITLE, files):
        if sent.outcome is not SendOutcome.SENT:
            raise DemoFailed(f"{PACS_AE_TITLE} did not take image {sent.sop_instance_uid}: {sent.reason}")
    pacs.hand_over([study_instance_uid for _, study_instance_uid in studies])
    for exam, study_instance_uid in studies:
        complaint = (
            f"the results of exam {exam} are not back after {RESULT_SECONDS} s. Look at {folder / 'fourview.log'}, and ask why:\n"
            f"  FOURVIEW_CONFIG={config} {sys.executable} -m listener.cli show {study_instance_uid}"
        )
        result = _wait_for(partial(_result, pacs, study_instance_uid), RESULT_SECONDS, {"Fourview": serve}, complaint)
        _tell(exam, study_instance_uid, result, folder / "results", say)
    say("\nUNTRAINED: the weights behind these scores are random numbers. The scores mean nothing about any breast.")
    say(f"Everything is kept in {folder}; a second run finds these results again.")


def _write_exams(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """The eight files on disk, and (exam, Study Instance UID) of the two studies."""
    folder.mkdir(parents=True, exist_ok=True)
    files, studies = [], []
    for exam, images in exams():
        studies.append((exam, str(images[0].StudyInstanceUID)))
        for ds in images:
            files.append(folder / f"{exam}-{ds.ImageLaterality}-{ds.ViewPosition}.dcm")
            ds.save_as(files[-1], enforce_file_format=True)
    return files, studies


def _demo_card(folder: Path, say: Say) -> Path:
    cards = sorted(folder.glob("*.toml"))
    if cards:
        return cards[0]
    say("\nWriting UNTRAINED demonstration weights ...")
    folder.mkdir(parents=True, exist_ok=True)
    return write_demo_weights(folder)


def _start_pacs(folder: Path, ports: Ports, fourview: Pacs, say: Say, started: ExitStack) -> DemoPacs:
    program = find_orthanc()
    if program is None:
        say("\nNo Orthanc is installed here (Debian: apt install orthanc orthanc-dicomweb). A small built-in STAND-IN takes its place:")
        say("it keeps what it is sent and sends mammograms on, and is no PACS.")
        stand_in = started.enter_context(StandIn(folder / "stand-in", ae_title=PACS_AE_TITLE, port=ports.pacs_dicom))
        return StandInPacs(stand_in, fourview)
    url = f"http://{LOOPBACK}:{ports.pacs_http}"
    say(f"\nStarting Orthanc ({program}) at {url}, DICOM port {ports.pacs_dicom} ...")
    log = folder / "orthanc.log"
    environment = {**os.environ, **orthanc_environment(folder, ports)}
    process = _start([program, str(ORTHANC_CONFIGURATION)], environment, log, started)
    orthanc = RoutingOrthanc(url)
    orthanc.wait_until_ready(process, log)
    return orthanc


def _start_fourview(config: Path, log: Path, ports: Ports, say: Say, started: ExitStack) -> subprocess.Popen[bytes]:
    url = f"http://{LOOPBACK}:{ports.fourview_http}"
    say(f"Starting Fourview at {url}, DICOM port {ports.fourview_dicom} ...")
    # The user's own settings are for the user's own installation.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOURVIEW_")}
    environment["FOURVIEW_CONFIG"] = str(config)
    process = _start([sys.executable, "-m", "listener.cli", "serve"], environment, log, started)
    with httpx.Client(base_url=url, timeout=5, trust_env=False) as http:
        _wait_for(lambda: _answers(http, "/readyz"), READY_SECONDS, {"Fourview": process}, f"Fourview is not ready; see {log}")
    return process


def _result(pacs: DemoPacs, study_instance_uid: str) -> Result | None:
    return newest(pacs.results(study_instance_uid))


def _tell(exam: str, study_instance_uid: str, result: Result, folder: Path, say: Say) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    png = folder / f"{exam}.png"
    Image.fromarray(result.page.pixel_array).save(png)
    say(f"\nExam {exam}, study {study_instance_uid}")
    say("  view   AI highest-scoring class    (uncalibrated scores of UNTRAINED weights)")
    for scores in scores_of(result.report):
        in_words = ", ".join(f"{name} {percent:.2f} %" for name, percent in scores.percent.items())
        say(f"  {scores.view:5}  {next(iter(scores.percent), '-'):26}  ({in_words})")
    say(f"  result page: {png}")


def _start(command: Sequence[str], environment: Mapping[str, str], log: Path, started: ExitStack) -> subprocess.Popen[bytes]:
    """A child process that ends with the demo, its output in `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # nosec B603 # noqa: S603 - command lines of ours
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=PROJECT, env=environment
        )
    started.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(http: httpx.Client, path: str) -> bool:
    try:
        return http.get(path).is_success
    except httpx.TransportError:
        return False


def _wait_for(find: Callable[[], T | None], seconds: float, needed: Mapping[str, subprocess.Popen[bytes]], complaint: str) -> T:
    """The first true value of `find`. DemoFailed with `complaint` after `seconds`, and at once when a needed process has ended."""
    give_up_at = time.monotonic() + seconds
    while not (found := find()):
        for name, process in needed.items():
            if process.poll() is not None:
                raise DemoFailed(f"{name} ended with exit code {process.returncode}: {complaint}")
        if time.monotonic() > give_up_at:
            raise DemoFailed(complaint)
        time.sleep(POLL_SECONDS)
    return found


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Within, SIGTERM unwinds as Ctrl-C does, so that nothing is left running. Only a main thread can be told so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
