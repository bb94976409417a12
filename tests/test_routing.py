"""The routing scripts in a real Orthanc: what reaches Fourview, and what must not. The configuration is the one that we ship."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mammograms_made import breast_pixels, mammogram, uid
from orthanc_process import OrthancProcess
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.events import Event

from store.study import HANGING_ORDER, View

DEPLOY = Path(__file__).parent.parent / "deploy" / "orthanc"
SCRIPTS = ("stable.lua", "instant.lua")
FOURVIEW = "FOURVIEW"
MODALITY = "ROOM1"


class Arrivals:
    """A storage SCP in Fourview's place that only writes down which images came, and how often."""

    def __init__(self) -> None:
        self.sop_instance_uids: Counter[str] = Counter()
        self.changed = threading.Condition()
        ae = AE(ae_title=FOURVIEW)
        for sop_class in (
            DigitalMammographyXRayImageStorageForPresentation,
            KeyObjectSelectionDocumentStorage,
            ComprehensiveSRStorage,
            SecondaryCaptureImageStorage,
            UltrasoundImageStorage,
        ):
            ae.add_supported_context(sop_class)
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._handle_store)])
        self.port = int(self.server.socket.getsockname()[1])  # type: ignore[union-attr]

    def _handle_store(self, event: Event) -> int:
        with self.changed:
            self.sop_instance_uids[str(event.request.AffectedSOPInstanceUID)] += 1
            self.changed.notify_all()
        return 0x0000

    def wait_for(self, sop_instance_uids: set[str]) -> None:
        with self.changed:
            arrived = self.changed.wait_for(lambda: sop_instance_uids <= set(self.sop_instance_uids), timeout=60)
        assert arrived, f"missing: {sop_instance_uids - set(self.sop_instance_uids)}"


@pytest.fixture
def arrivals() -> Iterator[Arrivals]:
    arrivals = Arrivals()
    yield arrivals
    arrivals.server.shutdown()


@pytest.fixture(params=SCRIPTS)
def routing_orthanc(
    request: pytest.FixtureRequest, tmp_path: Path, arrivals: Arrivals, start_orthanc: Callable[..., Any], free_port: Any
) -> Any:
    dicom_port, http_port = free_port(), free_port()
    environment = {
        "ORTHANC_STORAGE": str(tmp_path / "storage"),
        "ORTHANC_DICOM_PORT": str(dicom_port),
        "ORTHANC_HTTP_PORT": str(http_port),
        "ORTHANC_FOURVIEW_PORT": str(arrivals.port),
        "ORTHANC_STABLE_AGE": "1",
        "ORTHANC_ROUTING_SCRIPT": request.param,
    }
    return start_orthanc(configuration=DEPLOY / "orthanc.json", environment=environment, dicom_port=dicom_port, http_port=http_port)


@pytest.fixture
def store(tmp_path: Path, needs_program: Callable[[str], str]) -> Callable[..., None]:
    """Sends data sets to Orthanc with dcmtk's storescu, in one association."""
    storescu = needs_program("storescu")

    def send(orthanc: OrthancProcess, *datasets: Dataset, calling_ae_title: str = MODALITY) -> None:
        files = []
        for ds in datasets:
            files.append(str(tmp_path / f"{ds.SOPInstanceUID}.dcm"))
            ds.save_as(files[-1], enforce_file_format=True)
        command = [storescu, "-R", "-aet", calling_ae_title, "-aec", orthanc.ae_title, orthanc.host, str(orthanc.dicom_port), *files]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    return send


def small(view: View, **overrides: Any) -> Dataset:
    return mammogram(view, pixels=breast_pixels(view, rows=32, columns=24), **overrides)


def other(modality: str, sop_class_uid: str, name: str) -> Dataset:
    """An object of the same study in another class. Orthanc looks at the keys only."""
    ds = small(View.L_CC, Modality=modality, SOPClassUID=sop_class_uid, SOPInstanceUID=uid(name), SeriesInstanceUID=uid(name, "series"))
    if sop_class_uid in (KeyObjectSelectionDocumentStorage, ComprehensiveSRStorage):
        del ds.PixelData
    return ds


def until_settled(orthanc: OrthancProcess) -> None:
    """Returns when every series is stable and no transfer is waiting: what has not gone out by then never will."""
    give_up_at = time.monotonic() + 60
    while True:
        stable = all(series["IsStable"] for series in orthanc.get("/series", expand="true"))
        jobs = [job["State"] for job in orthanc.get("/jobs", expand="true")]
        if stable and not {"Pending", "Running", "Retry"} & set(jobs):
            return
        assert time.monotonic() < give_up_at, f"stable={stable} jobs={jobs}"
        time.sleep(0.1)


def test_mammograms_and_key_objects_arrive_once(routing_orthanc: OrthancProcess, arrivals: Arrivals, store: Callable[..., None]) -> None:
    images = [small(view) for view in HANGING_ORDER]
    key_object = other("KO", KeyObjectSelectionDocumentStorage, "key object")
    store(routing_orthanc, *images, key_object)
    expected = {str(ds.SOPInstanceUID) for ds in (*images, key_object)}
    arrivals.wait_for(expected)
    until_settled(routing_orthanc)
    assert arrivals.sop_instance_uids == Counter(expected)


def test_results_and_other_modalities_trigger_nothing(
    routing_orthanc: OrthancProcess, arrivals: Arrivals, store: Callable[..., None]
) -> None:
    image = small(View.R_CC)
    store(routing_orthanc, image)
    arrivals.wait_for({str(image.SOPInstanceUID)})
    until_settled(routing_orthanc)

    results = [other("SR", ComprehensiveSRStorage, "sr"), other("OT", SecondaryCaptureImageStorage, "page")]
    # The name of the sender stops what the modality would let through.
    own_mammogram = small(View.L_MLO, SeriesInstanceUID=uid("own"))
    store(routing_orthanc, *results, own_mammogram, calling_ae_title=FOURVIEW)
    store(routing_orthanc, *results, calling_ae_title=FOURVIEW)
    store(routing_orthanc, other("US", UltrasoundImageStorage, "ultrasound"))
    until_settled(routing_orthanc)
    assert len(routing_orthanc.get("/instances")) == 5
    assert arrivals.sop_instance_uids == Counter([str(image.SOPInstanceUID)])


def test_copies_modified_in_orthanc_stay_there(routing_orthanc: OrthancProcess, arrivals: Arrivals, store: Callable[..., None]) -> None:
    image = small(View.R_CC)
    store(routing_orthanc, image)
    arrivals.wait_for({str(image.SOPInstanceUID)})
    study = routing_orthanc.find("Study", StudyInstanceUID=str(image.StudyInstanceUID))[0]["ID"]
    routing_orthanc.post(f"/studies/{study}/anonymize", {"Synchronous": True})
    until_settled(routing_orthanc)
    assert len(routing_orthanc.get("/studies")) == 2
    assert arrivals.sop_instance_uids == Counter([str(image.SOPInstanceUID)])


def test_duplicate_is_harmless(routing_orthanc: OrthancProcess, arrivals: Arrivals, store: Callable[..., None]) -> None:
    """stable.lua sends it once; instant.lua may send it again (Orthanc tells it of a discarded duplicate too), and nothing else."""
    image = small(View.R_CC)
    store(routing_orthanc, image)
    arrivals.wait_for({str(image.SOPInstanceUID)})
    store(routing_orthanc, image)
    until_settled(routing_orthanc)
    assert set(arrivals.sop_instance_uids) == {str(image.SOPInstanceUID)}
    assert arrivals.sop_instance_uids.total() <= 2
