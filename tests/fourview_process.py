"""A real Fourview for one test: `fourview serve` as a process of its own, with its own folder, ports and configuration."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from pipeline.model import write_demo_weights
from pipeline.send import Pacs, SendOutcome, send
from store.database import read_engine
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


class FourviewProcess:
    """One installation. `options` are lines of the configuration by table: {"study": "give_up_after_seconds = 2"}."""

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
    ) -> None:
        self.folder = folder
        self.dicom_port = dicom_port
        self.url = f"http://127.0.0.1:{http_port}"
        self.config = folder / "config.toml"
        self.log = folder / "fourview.log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if demo_weights:
            card = write_demo_weights(folder / "weights")
        else:
            card = folder / "simulated.toml"
            card.write_text(SIMULATED_CARD)
        self.config.write_text(f"""
[site]
timezone = "Europe/London"
[dicom]
port = {dicom_port}
[http]
port = {http_port}
[store]
database = "sqlite:///data/fourview.db"
files = "data/files"
min_free_gib = 0.1
[study]
{study}
fetch_from = "orthanc"
[model]
card = "{card}"
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
""")

    @cached_property
    def _search(self) -> Search:
        return Search(read_engine(f"sqlite:///{self.folder / 'data' / 'fourview.db'}"))

    def __enter__(self) -> FourviewProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "listener.cli", "--config", str(self.config), *arguments]

    def start(self) -> FourviewProcess:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command("serve"), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=PROJECT
            )
        self.wait_for(self._ready, "Fourview does not get ready", seconds=90)
        return self

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"serve ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}"
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        self.process = None

    def run(self, *arguments: str, code: int = 0) -> str:
        """What a `fourview` command prints; its exit code is checked."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=120, cwd=PROJECT, env={**os.environ})
        assert done.returncode == code, f"{arguments} ended with {done.returncode}, not {code}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

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
            found = [one for one in self._search.studies() if one["study_instance_uid"] == study_instance_uid]
            return bool(found) and found[0]["state"] == state and (version is None or found[0]["version"] == version)

        self.wait_for(there, f"study {study_instance_uid} did not become {state} (version {version})", seconds)
        return self.show(study_instance_uid)
