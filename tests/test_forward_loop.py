"""Two real Orthancs that send all they get to Fourview, which forwards what it gets to both: nothing goes round in circles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from fourview_process import FourviewProcess
from mammograms_made import breast_pixels, mammogram, uid
from orthanc_process import OrthancProcess
from pydicom import dcmread

from store.study import HANGING_ORDER

#: What users of Orthanc write first: everything that comes goes on.
NAIVE = "function OnStoredInstance(instanceId, tags, metadata, origin)\n  SendToModality(instanceId, 'fourview')\nend\n"


def stored(orthanc: OrthancProcess) -> int:
    """How often something was stored; with OverwriteInstances what comes again is stored again."""
    changes = orthanc.get("/changes", limit="1000")["Changes"]
    return Counter(one["ChangeType"] for one in changes)["NewInstance"]


def test_orthancs_that_send_everything_back_get_each_image_once_and_the_sender_never(
    tmp_path: Path, start_orthanc: Callable[..., OrthancProcess], free_port: Callable[[], int]
) -> None:
    """The second one is down at first."""
    port = free_port()
    script = tmp_path / "naive.lua"
    script.write_text(NAIVE)
    extra: dict[str, Any] = {
        "OverwriteInstances": True,
        "LuaScripts": [str(script)],
        "DicomModalities": {"fourview": {"AET": "FOURVIEW", "Host": "127.0.0.1", "Port": port, "Timeout": 60}},
    }
    sender = start_orthanc(extra=extra)
    second = start_orthanc(extra=extra, ae_title="SECOND", dicomweb=False)
    second.stop()
    tables = f"""forward_to = ["orthanc", "second"]
[[pacs]]
name = "second"
ae_title = "SECOND"
host = "127.0.0.1"
port = {second.dicom_port}
"""
    images = [mammogram(view, pixels=breast_pixels(view, rows=64, columns=48)) for view in HANGING_ORDER]
    study = uid("study")
    fourview = FourviewProcess(
        tmp_path / "fourview", dicom_port=port, http_port=free_port(), pacs_port=sender.dicom_port, pacs_url=sender.url, tables=tables
    )
    with fourview:

        def states(*kinds: str) -> Counter[tuple[str, str]]:
            found = fourview.show(study)["deliveries"]
            return Counter((one["destination"], one["state"]) for one in found if one["kind"] in kinds)

        for ds in images:
            buffer = BytesIO()
            ds.save_as(buffer, enforce_file_format=True)
            sender.upload(buffer.getvalue())
        fourview.wait_for_state(study, "analysed")
        waits = "nobody answers at second (SECOND"
        fourview.wait_for(lambda: any(waits in one["reason"] for one in fourview.show(study)["deliveries"]), "nothing waits for the second")
        second.start()
        fourview.wait_for(lambda: states("original") == {("second", "confirmed"): 4}, "not everything was forwarded", 120)
        fourview.wait_for(lambda: states("sr", "page") == {("orthanc", "confirmed"): 2}, "the results did not arrive", 120)
        fourview.wait_for(lambda: fourview.log.read_text().count('"outcome": "duplicate"') >= 4, "the second sent nothing back")
        fourview.wait_for(lambda: fourview.log.read_text().count('"outcome": "own result"') >= 2, "the first sent no result back")
        assert states("original") == {("second", "confirmed"): 4}
        told = [line["text"] for line in fourview.show(study)["timeline"]]
        assert any("not forwarded to orthanc" in line and "came from there (ORTHANC)" in line for line in told)
        assert fourview.show(study)["runs"][-1]["number"] == 1
        listed = fourview.run("deliveries")
        assert listed.count(" original ") == 4 and " orthanc " in listed
    assert stored(sender) == 4 + 2 and stored(second) == 4, "what was sent there, and nothing twice"
    for ds in images:
        [found] = second.find("Instance", SOPInstanceUID=str(ds.SOPInstanceUID))
        assert dcmread(BytesIO(second.get(f"/instances/{found['ID']}/file"))) == ds
