"""A warm Fourview beside an Orthanc on loopback, exams of four 3328x2560 views for it, and the moments that count.

When a report was stored is Orthanc's own word (a line of its log, by Lua), so nobody asks it again and again while something is measured.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from fourview_process import FourviewProcess
from mammograms_made import breast_pixels, mammogram, uid
from orthanc_process import OrthancProcess
from ports import free_port
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from store.study import HANGING_ORDER, View

ROWS, COLUMNS = 3328, 2560
#: A result that takes so long is a failure of the benchmark.
PATIENCE_SECONDS = 120.0

_LUA = """
function OnStoredInstance(instanceId, tags, metadata)
  if tags['Modality'] == 'SR' then
    print('report stored ' .. tags['StudyInstanceUID'])
  end
end
"""
_STORED = re.compile(r"W(\d{4} \d\d:\d\d:\d\d\.\d+) .*report stored (\S+)")


class WholeWay:
    """Orthanc and `fourview serve` as processes; `with` gives them warm. `settings` as of `FourviewProcess`."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / "stored.lua"
        script.write_text(_LUA)
        self.orthanc = OrthancProcess(
            folder / "orthanc", extra={"LuaScripts": [str(script)], "DicomModalities": {"fourview": ["FOURVIEW", "127.0.0.1", 1]}}
        )
        self.fourview = FourviewProcess(
            folder / "fourview",
            dicom_port=free_port(),
            http_port=free_port(),
            pacs_port=self.orthanc.dicom_port,
            pacs_url=self.orthanc.url,
            **{"demo_weights": True, **settings},
        )
        self._stack = ExitStack()

    def __enter__(self) -> WholeWay:
        with ExitStack() as stack:
            stack.enter_context(self.orthanc)
            stack.callback(self.fourview.stop)
            self.fourview.start(seconds=300)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def weights(self) -> Path:
        """The file of weights that Fourview reads."""
        return next((self.fourview.folder / "weights").glob("*.safetensors"))

    @cached_property
    def _pixels(self) -> Mapping[View, Any]:
        return {view: breast_pixels(view, rows=ROWS, columns=COLUMNS) for view in HANGING_ORDER}

    def exam(self, name: str, **overrides: Any) -> list[Path]:
        """The four views as files, in hanging order, of the study `uid(name)`, which Orthanc has heard of: a result waits until it has."""
        folder = self.folder / "outgoing" / name
        folder.mkdir(parents=True, exist_ok=True)
        small = BytesIO()
        mammogram(HANGING_ORDER[0], study=name, image="announced", **overrides).save_as(small, enforce_file_format=True)
        self.orthanc.upload(small.getvalue())
        paths = []
        for view in HANGING_ORDER:
            paths.append(folder / f"{view}.dcm")
            mammogram(view, study=name, pixels=self._pixels[view], **overrides).save_as(paths[-1], enforce_file_format=True)
        return paths

    @contextmanager
    def association(self, calling: str = "MODALITY") -> Iterator[Association]:
        """As a modality opens one to Fourview."""
        ae = AE(ae_title=calling)
        ae.add_requested_context(DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian)
        assoc = ae.associate("127.0.0.1", self.fourview.dicom_port, ae_title="FOURVIEW", max_pdu=128 * 1024)
        if not assoc.is_established:
            raise RuntimeError(f"no association:\n{self.fourview.log.read_text()[-4000:]}")
        try:
            yield assoc
        finally:
            assoc.release()

    def send(self, path: Path, assoc: Association) -> float:
        """Send a file; when it was answered Success, seconds since the epoch."""
        status = assoc.send_c_store(path)
        answered = time.time()
        if status.get("Status") != 0x0000:
            raise RuntimeError(f"C-STORE was answered {status}")
        return answered

    def stored(self) -> dict[str, float]:
        """When Orthanc stored the report of each study, seconds since the epoch, by Study Instance UID."""
        found: dict[str, float] = {}
        for moment, study in _STORED.findall(self.orthanc.log.read_text(errors="replace")):
            at = datetime.strptime(f"{datetime.now().year}{moment}", "%Y%m%d %H:%M:%S.%f")
            found.setdefault(study, at.timestamp())
        return found

    def wait_for_reports(self, names: Sequence[str], seconds: float = PATIENCE_SECONDS) -> list[float]:
        """When the report of each of the exams was stored; RuntimeError when one is not there in time."""
        give_up_at = time.monotonic() + seconds
        studies = [uid(name) for name in names]
        while not set(studies) <= (stored := self.stored()).keys():
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"no report within {seconds:g} s:\n{self.fourview.log.read_text()[-4000:]}")
            time.sleep(0.02)
        return [stored[study] for study in studies]

    def wait_for_delivery(self, study_instance_uid: str) -> None:
        """Until Fourview has said in its log that a report was sent, which comes after the report is there."""

        def said() -> bool:
            mine = [line for line in self.log() if line.get("study_instance_uid") == study_instance_uid]
            return any(line["event"].split()[0] == "delivery" for line in mine)

        self.fourview.wait_for(said, f"nothing is said of the delivery of {study_instance_uid}")

    def log(self) -> Iterator[dict[str, Any]]:
        """Fourview's lines so far, `at` in seconds since the epoch."""
        for line in self.fourview.log.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                found = json.loads(line)
                yield {**found, "at": datetime.fromisoformat(found["timestamp"]).timestamp()}
