"""One installation in this process, with every door that takes files: C-STORE, STOW-RS, files that a person drops, a PACS to fetch from;
and a worker whose steps a test takes by hand.

The receiver, the web application and the workshop are those of the services; only the workflow engine is left out.
"""

from __future__ import annotations

import io
import logging
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fourview_process import SIMULATED_CARD
from hostile_made import ABORTED, NOT_NEGOTIATED, Sent
from raw_sender import Closed, RawSender
from serving import serving
from worked import work_off

from listener import logs, parts, workplace
from listener.answering import Answering
from listener.config import Config, load
from listener.dropped import MOST_FILES
from listener.keys import Status
from listener.scp import StorageScp
from pipeline.figures import Figures

CONFIG = """
[store]
database = "{database}"
files = "files"
min_free_gib = 0.001
[study]
wait_for_retake_seconds = 0
give_up_after_seconds = 0
when_incomplete = "analyse"
[model]
card = "card.toml"
allow_untrained = true
[http]
requests_per_minute = 0
[[pacs]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242
url = "{pacs}"
accept_untrained = true
[[rule]]
name = "all mammograms"
when = 'Modality == "MG"'
action = "analyse"
send_to = ["orthanc"]
"""


class HostileSite:
    """What is sent to it, and what became of that. `log` is what its processes would have written, as JSON."""

    def __init__(self, folder: Path, database: str, pacs: str, opened: ExitStack) -> None:
        self.folder = folder
        (folder / "card.toml").write_text(SIMULATED_CARD)
        (folder / "config.toml").write_text(CONFIG.format(database=database, pacs=pacs))
        self.config: Config = load(folder / "config.toml", {})
        self.files = parts.open_files(self.config)
        self.log = io.StringIO()
        opened.enter_context(_logging_to(self.log))
        patched = opened.enter_context(pytest.MonkeyPatch.context())
        patched.setattr(tempfile, "tempdir", None)  # restored afterwards: StorageScp sets it for the process
        patched.setattr(workplace, "Worker", lambda shop, **_: shop)
        self.archive = parts.open_archive(self.config)
        self.search = parts.open_search(self.config)
        scp = StorageScp(ae_title="FOURVIEW", host="127.0.0.1", port=0, archive=self.archive, files=self.files)
        self.port = opened.enter_context(scp).port
        answering = Answering(self.config, Figures(), threading.Event(), ready=list, notices=list)
        url = opened.enter_context(serving(answering.application))
        self.http = opened.enter_context(httpx.Client(base_url=url, timeout=120, trust_env=False))
        self.shop: Any = workplace.Workplace(self.config, index=0, beat=lambda *_: None).worker
        opened.callback(self.shop.decoder.close)

    # ---- the doors ----

    def c_store(self, *objects: Sent) -> list[int]:
        """The status for each, over one association; over another one after it was aborted."""
        wanted = [(one.context_class or one.sop_class, one.syntax) for one in objects]
        statuses: list[int] = []
        while len(statuses) < len(objects):
            with suppress(Closed), RawSender(self.port, wanted) as sender:
                for one, context in list(zip(objects, wanted, strict=True))[len(statuses) :]:
                    statuses.append(ABORTED)  # unless it is answered
                    statuses[-1] = self._stored(sender, one, context)
        return statuses

    @staticmethod
    def _stored(sender: RawSender, one: Sent, context: tuple[str, str]) -> int:
        if not sender.accepts(*context):
            return NOT_NEGOTIATED
        status, comment = sender.store(one.data_set, sop_class=one.sop_class, sop_instance=one.sop_instance, context=context)
        assert bool(comment) is (status != Status.SUCCESS), "who is refused is told why"
        return status

    def stow(self, one: Sent) -> int:
        """The Failure Reason, 0 for none."""
        body = b"--b0b\r\nContent-Type: application/dicom\r\n\r\n" + one.file + b"\r\n--b0b--"
        headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b0b', "Accept": "application/dicom+json"}
        told = self.http.post("/dicom-web/studies", content=body, headers=headers).json()
        [item] = [item for tag in ("00081198", "00081199", "0008119A") for item in told.get(tag, {}).get("Value", [])]
        return int(item["00081197"]["Value"][0]) if "00081197" in item else 0

    def drop(self, *objects: Sent) -> list[str]:
        """The error that is told of each, "" for none."""
        errors: list[str] = []
        for place in range(0, len(objects), MOST_FILES):
            files = [("files", ("image.dcm", one.file)) for one in objects[place : place + MOST_FILES]]
            errors += [one["error"] for one in self.http.post("/api/v1/files", files=files).raise_for_status().json()]
        return errors

    # ---- the worker ----

    def work(self) -> None:
        """Do everything that is to be done."""
        work_off(self.shop, rounds=200)

    def study(self, study_instance_uid: str) -> dict[str, Any]:
        """What `fourview show` says of it."""
        found: dict[str, Any] = self.search.study(study_instance_uid)
        return found

    def all_files(self) -> list[Path]:
        """Everything that lies in the folder of this installation."""
        return [path for path in self.folder.rglob("*") if path.is_file() or path.is_symlink()]


@contextmanager
def _logging_to(stream: io.StringIO) -> Iterator[None]:
    """As a service logs, until the end of the block."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, warnings.showwarning, sys.excepthook, threading.excepthook
    with warnings.catch_warnings():
        logs.configure(json=True, stream=stream)
        try:
            yield
        finally:
            root.handlers[:], level = before[0], before[1]
            root.setLevel(level)
            _, _, warnings.showwarning, sys.excepthook, threading.excepthook = before


def database_for(request: pytest.FixtureRequest, kind: str, folder: Path) -> str:
    """The address of an empty database with the schema of this release; the fixtures that make one belong to single tests."""
    if kind == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), folder / "fourview.db")
        return f"sqlite:///{folder / 'fourview.db'}"
    from databases import run

    server = request.getfixturevalue("postgres_server")
    run(server, "CREATE DATABASE hostile TEMPLATE template_fourview")
    request.addfinalizer(lambda: run(server, "DROP DATABASE hostile WITH (FORCE)"))
    return f"{server}/hostile"
