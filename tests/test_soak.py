"""More than a hundred associations and bare TCP connects on a real receiver: no thread, file descriptor or unfinished file is left over.

`make soak` does ten thousand of each and measures memory as well, which needs more than a minute of warming up.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fourview_process import FourviewProcess
from processes import descendants
from soaking import associations, connects, held, left_behind, settled

COUNT = 120


def test_nothing_is_left_over_by_many_associations_and_connects(tmp_path: Path, free_port: Callable[[], int]) -> None:
    ours = FourviewProcess(
        tmp_path / "fourview", dicom_port=free_port(), http_port=free_port(), pacs_port=free_port(), pacs_url="http://127.0.0.1:1"
    )
    ours.run("db", "upgrade")
    supervisor = ours.role("receive", host="soak")
    try:
        ours.wait_for(lambda: ours.living("receive"), "the receiver does not start")
        _, receiver = descendants(supervisor.pid)["receive"]
        associations(ours.dicom_port, 20)  # the pools of connections fill once
        before = settled(receiver, held(receiver))
        assert associations(ours.dicom_port, COUNT) == {"C-ECHO 0x0000": COUNT * 9 // 10, "C-STORE 0x0000": COUNT // 10}
        assert connects(ours.dicom_port, COUNT).total() == COUNT
        after = settled(receiver, before)
        assert after.threads <= before.threads and after.sockets <= before.sockets, (before, after)
        assert len(after.files) <= len(before.files) and left_behind(ours.files) == []
    finally:
        ours.stop()
