"""A stand-in for a PACS where no Orthanc is installed, for the demonstration only. It keeps what it is sent, and sends mammograms on.

A Storage SCP (PS3.4 B) without queries: its [[pacs]] says confirm = "none". As in Orthanc, the first object under a UID stays.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, DigitalMammographyXRayImageStorageForPresentation, SecondaryCaptureImageStorage
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.transport import ThreadedAssociationServer

from pipeline.send import Pacs, Sent, configure_pynetdicom, send

LOG = logging.getLogger(__name__)

SUCCESS = 0x0000
CANNOT_UNDERSTAND = 0xC000  # PS3.4 B.2.3


class StandIn:
    """Keeps Part 10 files in `folder`, named by the hash of their SOP Instance UID. Loopback only. A context manager."""

    def __init__(self, folder: Path, *, ae_title: str, port: int) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.port = port
        self._server: ThreadedAssociationServer | None = None

    def __enter__(self) -> StandIn:
        configure_pynetdicom()
        self.folder.mkdir(parents=True, exist_ok=True)
        ae = AE(ae_title=self.ae_title)
        for sop_class in (DigitalMammographyXRayImageStorageForPresentation, ComprehensiveSRStorage, SecondaryCaptureImageStorage):
            ae.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES)
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._handle_store)])
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def headers(self, study_instance_uid: str) -> Iterator[tuple[Path, Dataset]]:
        """The file and the data set without pixels of everything kept of a study."""
        for path in sorted(self.folder.glob("*.dcm")):
            ds = dcmread(path, stop_before_pixels=True)
            if ds.StudyInstanceUID == study_instance_uid:
                yield path, ds

    def send_on(self, destination: Pacs, study_instance_uid: str) -> list[Sent]:
        """Sends the study's mammograms on, as Orthanc's routing script does; results stay."""
        return send(destination, self.ae_title, [path for path, ds in self.headers(study_instance_uid) if ds.Modality == "MG"])

    def _handle_store(self, event: evt.Event) -> int:
        sop_instance_uid = cast(C_STORE, event.request).AffectedSOPInstanceUID
        if sop_instance_uid is None:
            return CANNOT_UNDERSTAND
        path = self.folder / f"{hashlib.sha256(str(sop_instance_uid).encode()).hexdigest()}.dcm"
        if not path.exists():
            unfinished = path.with_suffix(".part")
            shutil.copyfile(event.dataset_path, unfinished)
            unfinished.rename(path)
        LOG.info("event=stand_in_kept sop_instance_uid=%s", sop_instance_uid)
        return SUCCESS
