"""10,000 associations (C-ECHO and C-STORE) and 10,000 bare TCP connects on one real receiver process: what is left over.

    python benchmarks/soak.py [COUNT]

Warms up with a tenth, measures, soaks, waits until the last thread has ended, measures again. Exit status 1 when resident memory has grown
by 10 % or more, or when a thread, a file descriptor or an unfinished file is left.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from fourview_process import FourviewProcess  # noqa: E402
from ports import free_port  # noqa: E402
from processes import descendants  # noqa: E402
from soaking import Held, associations, connects, held, left_behind, settled  # noqa: E402

GROWTH = 0.10


def main() -> int:
    """Soak and print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as temporary:
        ours = FourviewProcess(
            Path(temporary), dicom_port=free_port(), http_port=free_port(), pacs_port=free_port(), pacs_url="http://127.0.0.1:1"
        )
        ours.run("db", "upgrade")
        supervisor = ours.role("receive", host="soak")
        try:
            ours.wait_for(lambda: ours.living("receive"), "the receiver does not start")
            _, receiver = descendants(supervisor.pid)["receive"]
            return _soak(ours, receiver, count)
        finally:
            ours.stop()


def _soak(ours: FourviewProcess, pid: int, count: int) -> int:
    idle = held(pid)
    associations(ours.dicom_port, count // 10)
    connects(ours.dicom_port, count // 10)
    before = settled(pid, idle)
    _say("warm", before)
    began = time.monotonic()
    print(f"{count} associations: {dict(associations(ours.dicom_port, count))} in {time.monotonic() - began:.0f} s", flush=True)
    between = settled(pid, before)
    _say("after them", between)
    began = time.monotonic()
    print(f"{count} bare connects: {dict(connects(ours.dicom_port, count))} in {time.monotonic() - began:.0f} s", flush=True)
    after = settled(pid, before)
    _say("after these", after)
    growth = after.resident_kib / before.resident_kib - 1
    print(f"resident memory grew by {growth:.1%}")
    left = left_behind(ours.files)
    faults = []
    if growth >= GROWTH:
        faults.append(f"resident memory grew by {growth:.1%}")
    if after.threads > before.threads:
        faults.append(f"{after.threads - before.threads} threads are left over")
    if len(after.files) > len(before.files):
        faults.append(f"{len(after.files) - len(before.files)} file descriptors are left over")
    if left:
        faults.append(f"{len(left)} unfinished files are left over")
    print("\n".join(f"FAULT {fault}" for fault in faults) or "nothing is left over")
    return int(bool(faults))


def _say(when: str, found: Held) -> None:
    print(f"{when:<12} {found.resident_kib:>8} KiB  {found.threads} threads  {len(found.files)} files, {found.sockets} sockets", flush=True)


if __name__ == "__main__":
    sys.exit(main())
