"""A storage SCP in a destination's place that answers as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation as MG
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt

from pipeline.send import Pacs


class Destination:
    """An SCP that answers each C-STORE with the next of `statuses` (the last one for ever), and remembers the data sets."""

    def __init__(self, *, syntaxes: tuple[str, ...] = (ExplicitVRLittleEndian,), classes: tuple[str, ...] = (MG,), **settings: Any) -> None:
        self.statuses: list[int | str] = [0x0000]
        self.received: list[bytes] = []
        self.associations = 0
        self.ae = AE(ae_title="PACS")
        for name, value in settings.items():
            setattr(self.ae, name, value)
        for sop_class_uid in classes:
            self.ae.add_supported_context(sop_class_uid, list(syntaxes))
        handlers = [(evt.EVT_C_STORE, self.handle_store), (evt.EVT_ACCEPTED, self.handle_accepted), (evt.EVT_C_FIND, self.handle_find)]
        self.server = self.ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.pacs = Pacs(name="archive", ae_title="PACS", host="127.0.0.1", port=self.server.server_address[1])
        self.answers: list[tuple[int, Dataset | None]] = [(0x0000, None)]

    def handle_store(self, event: Any) -> int:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        self.received.append(event.dataset_path.read_bytes())
        event.dataset_path.unlink()
        if status == "abort":
            event.assoc.abort()
            return 0x0000
        return int(status)

    def handle_accepted(self, event: Any) -> None:
        self.associations += 1

    def handle_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        yield from self.answers
