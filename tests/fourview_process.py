"""A real Fourview for one test: `fourview serve`, or its roles on several hosts, with a folder, ports and a configuration of their own."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from command_line import fourview
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from pipeline.engine_choice import auto_here
from pipeline.engines import load
from pipeline.model import read_card, write_demo_weights
from pipeline.send import Pacs, SendOutcome, send
from store.database import read_engine
from store.rows import UnknownStudy
from store.search import Search

PROJECT = Path(__file__).resolve().parent.parent

SIMULATED_CARD = """
name = "simulated"
version = "1"
architecture = "simulated"
classes = ["Mass", "Calcification", "Architectural/Asymmetry", "Normal"]
profile = "presentation"
trained = false
"""


@cache
def _made_once() -> Path:
    """A folder with the demonstration's weights and, where openvino is, what it makes of them; it goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="fourview-weights-", dir=os.environ.get("TMPDIR", "/tmp")))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "engines").mkdir()
    card = read_card(write_demo_weights(folder / "weights"))
    load(card, engine=auto_here("cpu"), allow_untrained=True, device="cpu", kept_in=folder / "engines")
    return folder


def _demonstration(weights: Path, engines: Path) -> Path:
    """The demonstration's weights for one installation, and what a worker would make of them at its first start; the card's path."""
    for source, target in ((_made_once() / "weights", weights), (_made_once() / "engines", engines)):
        shutil.copytree(source, target, copy_function=_linked)
    return weights / "resnet50-demo.toml"


def _linked(source: str, target: str) -> None:
    """Large files are the same ones: who writes one anew renames it."""
    if Path(source).stat().st_size > 1 << 20:
        try:
            os.link(source, target)
            return
        except OSError:  # another volume
            pass
    shutil.copy(source, target)


class FourviewProcess:
    """One installation: `start` runs it as `serve`, `role` as single processes that believe themselves on the hosts that they are told.

    `study`, `card` and `tables` are lines of the configuration's [study], of the simulated model's card, and whole further tables.
    `first`: a folder of tests/ whose `sitecustomize` changes what the processes do.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dicom_port: int,
        http_port: int,
        pacs_port: int,
        pacs_url: str = "",
        rule: str = 'Modality == "MG"',
        study: str = "wait_for_retake_seconds = 0",
        demo_weights: bool = False,
        database: str = "",
        card: str = "",
        tables: str = "",
        environment: Mapping[str, str] | None = None,
        first: str = "",
    ) -> None:
        self.folder = folder
        self.dicom_port = dicom_port
        self.url = f"http://127.0.0.1:{http_port}"
        self.config = folder / "config.toml"
        self.log = folder / "fourview.log"
        self.files = folder / "data" / "files"
        self.database = database or f"sqlite:///{folder / 'data' / 'fourview.db'}"
        self.process: subprocess.Popen[bytes] | None = None
        self.roles: list[subprocess.Popen[bytes]] = []
        self._environment = {**os.environ, **(environment or {})}
        self._path = f"{PROJECT / 'tests' / first}{os.pathsep}{PROJECT}" if first else str(PROJECT)
        folder.mkdir(parents=True, exist_ok=True)
        if demo_weights:
            card_file = _demonstration(folder / "weights", self.files / "engines")
        else:
            card_file = folder / "simulated.toml"
            card_file.write_text(f"{SIMULATED_CARD}{card}\n")
        self.config.write_text(f"""
[site]
timezone = "Europe/London"
[dicom]
port = {dicom_port}
[http]
port = {http_port}
[store]
database = "{self.database}"
files = "data/files"
min_free_gib = 0.1
[study]
{study}
fetch_from = "orthanc"
[model]
card = "{card_file}"
allow_untrained = true
[[pacs]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {pacs_port}
url = "{pacs_url}"
accept_untrained = true
[[rule]]
name = "all mammograms"
when = '{rule}'
action = "analyse"
send_to = ["orthanc"]
{tables}
""")

    @cached_property
    def _search(self) -> Search:
        return Search(read_engine(self.database))

    def __enter__(self) -> FourviewProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "listener.cli", "--config", str(self.config), *arguments]

    def start(self, seconds: float = 240) -> FourviewProcess:
        self.launch()
        self.wait_for(self._ready, "Fourview does not get ready", seconds)
        return self

    def launch(self) -> None:
        """Start `serve` without waiting for it."""
        self.process = self._popen(self.command("serve"))

    def role(self, *arguments: str, host: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start `fourview receive`, `work` or `web` as a process on `host`; the caller waits for what it needs of it."""
        named = {"HOST_NAME_OF_TEST": host, "PYTHONPATH": f"{PROJECT / 'tests' / 'on_host'}{os.pathsep}{PROJECT}"}
        self.roles.append(self._popen(self.command(*arguments), {**named, **(environment or {})}))
        return self.roles[-1]

    def _popen(self, command: list[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=PROJECT,
                env={**self._environment, "PYTHONPATH": self._path, **(environment or {})},
            )

    def living(self, role: str) -> list[str]:
        """The processes of a role that renewed their lease lately; none before there is a database."""
        try:
            return list(self._search.living(role))
        except sa.exc.DBAPIError:
            return []

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"serve ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}"
        return self.answers("/readyz")

    def answers(self, path: str = "/healthz") -> bool:
        """A process that renewed its lease may not listen yet; nobody listening is no answer."""
        try:
            return httpx.get(f"{self.url}{path}", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """SIGTERM to all, and wait for their end."""
        running = [one for one in (self.process, *self.roles) if one is not None and one.poll() is None]
        for one in running:
            one.send_signal(signal.SIGTERM)
        for one in running:
            one.wait(30)
        self.process = None
        self.roles = []
        self.__dict__.pop("_search", None)  # the database may be another one at the next start

    def run(self, *arguments: str, code: int = 0) -> str:
        """What a `fourview` command prints; its exit code is checked."""
        return fourview("--config", self.config, *arguments, code=code)

    def show(self, study_instance_uid: str) -> dict[str, Any]:
        """What `fourview show --json` prints, without the second that a new process takes."""
        found: dict[str, Any] = self._search.study(study_instance_uid)
        return found

    def send(self, datasets: Sequence[Dataset], *, rle: bool = False) -> None:
        """Sent by C-STORE in this order, one association."""
        folder = self.folder / "outgoing"
        folder.mkdir(exist_ok=True)
        paths = []
        for number, ds in enumerate(datasets):
            path = folder / f"{number}.dcm"
            if rle:
                ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
            ds.save_as(path, enforce_file_format=True)
            paths.append(path)
        answers = send(Pacs(name="fourview", ae_title="FOURVIEW", host="127.0.0.1", port=self.dicom_port), "ORTHANC", paths)
        assert all(answer.outcome is SendOutcome.SENT for answer in answers), answers

    def wait_for(self, condition: Callable[[], Any], complaint: str, seconds: float = 60) -> Any:
        give_up_at = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < give_up_at, f"{complaint}; Fourview's log:\n{self.log.read_text()[-6000:]}"
            time.sleep(0.1)
        return found

    def wait_for_state(self, study_instance_uid: str, state: str, *, version: int | None = None, seconds: float = 60) -> dict[str, Any]:
        """`show` of the study once it is in `state` (and has that many versions)."""

        def there() -> bool:
            try:
                found = self._search.study(study_instance_uid)
            except UnknownStudy:
                return False
            return bool(found["state"] == state and (version is None or (found["runs"] and found["runs"][-1]["number"] == version)))

        self.wait_for(there, f"study {study_instance_uid} did not become {state} (version {version})", seconds)
        return self.show(study_instance_uid)
