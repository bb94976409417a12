"""Hostile, rude and normal senders at once against a running `fourview serve` with a real Orthanc; prints its counts.

    python benchmarks/mixed_torture.py [--minutes 10] [--seed N] [--rude 4] [--idle 60]

Normal: dcmtk's `storescu` sends exams until each image was answered Success. Hostile: the objects of tests/hostile_made.py, one after
the other. Rude: tests/rude_made.py, and idle connections beside them. At the end everything is let come to rest. Exit status 1 when an
image that was answered 0x0000 is missing or has other bytes, when a normal study was not analysed or its SR is not in Orthanc, when a
process was above its limit of memory, or when one of them has died.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from accounting import Account, Rows, data_set  # noqa: E402
from fourview_process import FourviewProcess  # noqa: E402
from hostile_made import TABLE, Sent, image  # noqa: E402
from orthanc_process import OrthancProcess  # noqa: E402
from ports import free_port  # noqa: E402
from processes import descendants, resident_kib  # noqa: E402
from raw_sender import Closed, RawSender  # noqa: E402
from rude_made import be_rude, connect  # noqa: E402
from storescu import Outgoing, Sender, write_exam  # noqa: E402

#: MiB of one process of each role: what is there at rest, and room for what is in hand.
LIMITS_MIB = {"serve": 300, "receive": 400, "work": 1200, "web": 500, "decode": 900}
#: For the last normal study to be in Orthanc.
REST_SECONDS = 300.0


@dataclass
class Told:
    """What hostile senders were answered."""

    kept: list[tuple[str, Sent]] = field(default_factory=list)  # 0x0000
    statuses: Counter[str] = field(default_factory=Counter)


def hostile(port: int, stopped: threading.Event, told: Told) -> None:
    """The whole table again and again, each time of new studies."""
    round_number = 0
    while not stopped.is_set():
        for what, case in TABLE.items():
            if stopped.is_set():
                return
            one = case.make(image(f"torture {round_number} {what}"))
            context = (one.context_class or one.sop_class, one.syntax)
            try:
                with RawSender(port, [context], calling="HOSTILE") as sender:
                    if not sender.accepts(*context):
                        told.statuses["not negotiated"] += 1
                        continue
                    status, _ = sender.store(one.data_set, sop_class=one.sop_class, sop_instance=one.sop_instance, context=context)
            except (Closed, OSError, AssertionError):
                told.statuses["closed"] += 1
                continue
            told.statuses[f"0x{status:04X}"] += 1
            if status == 0:
                told.kept.append((what, one))
        round_number += 1


def normal(sender: Sender, folder: Path, stopped: threading.Event, studies: list[list[Outgoing]], orthanc: OrthancProcess) -> None:
    """Exams one after the other; Orthanc has each before, as in a hospital."""
    while not stopped.is_set():
        exam = write_exam(folder, f"normal-{len(studies)}")
        for one in exam:
            orthanc.upload(one.path.read_bytes())
        sender.send(exam, seconds=REST_SECONDS)
        studies.append(exam)


def idle(port: int, count: int, stopped: threading.Event, counts: Counter[str]) -> None:
    """So many silent connections, made anew when they were thrown out."""
    while not stopped.is_set():
        with ExitStack() as held:
            for number in range(count):
                with suppress(OSError):
                    held.enter_context(connect(port, f"127.0.1.{1 + number % 20}"))
                    counts["idle"] += 1
            stopped.wait(10)


def watch(pid: int, stopped: threading.Event, peaks: dict[str, int], seen: dict[str, set[int]]) -> None:
    """The largest resident memory of each role, MiB, and which processes there were."""
    while not stopped.wait(0.5):
        for role, pids in descendants(pid).items():
            for one in pids:
                seen.setdefault(role, set()).add(one)
                with suppress(OSError, StopIteration):
                    peaks[role] = max(peaks.get(role, 0), resident_kib(one) // 1024)


def settle(made: Account, ours: FourviewProcess, orthanc: OrthancProcess, studies: list[list[Outgoing]], told: Told) -> None:
    """Compare what was promised with what there is."""
    rows, files = Rows(ours.database), ours.files
    uids = [exam[0].study_instance_uid for exam in studies]
    give_up_at = time.monotonic() + REST_SECONDS
    while True:
        states = dict(rows("SELECT study_instance_uid, state FROM study"))
        with_report = {one["MainDicomTags"].get("SeriesInstanceUID"): one for one in orthanc.find("Series", Modality="SR")}
        reported = {orthanc.get(f"/series/{one['ID']}/study")["MainDicomTags"]["StudyInstanceUID"] for one in with_report.values()}
        waiting = [uid for uid in uids if states.get(uid) != "analysed" or uid not in reported]
        if not waiting or time.monotonic() > give_up_at:
            break
        time.sleep(2)
    made.count("normal studies", len(uids))
    made.blame("normal studies that are not analysed, or without SR in Orthanc", waiting)
    kept: dict[str, list[tuple[str | None, str]]] = {}
    for sop, name, file_hash in rows("SELECT sop_instance_uid, file_name, file_hash FROM instance"):
        kept.setdefault(sop, []).append((name, file_hash))
    lost, wrong = [], []
    promised = [(one.sop_instance_uid, "", one.path.name) for exam in studies for one in exam]
    promised += [
        (one.sop_instance.decode("latin-1").strip("\0 "), hashlib.sha256(one.data_set).hexdigest(), what) for what, one in told.kept
    ]
    for sop, sent_hash, what in promised:
        found = kept.get(sop, [])
        if not found or (not sent_hash and all(name is None for name, _ in found)):
            lost.append(f"{what} {sop}")
        elif sent_hash and sent_hash not in {file_hash for _, file_hash in found}:
            wrong.append(f"{what} {sop}")
        for name, file_hash in found:
            if name is not None and (
                not (files / name).is_file() or hashlib.sha256(data_set((files / name).read_bytes())).hexdigest() != file_hash
            ):
                wrong.append(f"{what} {sop} (its file)")
    made.count("images answered 0x0000", len(promised))
    made.blame("answered, and lost (no row or no file)", lost)
    made.blame("answered, and other bytes", wrong)


def main() -> int:
    """Torture, count, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--rude", type=int, default=4, help="rude peers at once")
    parser.add_argument("--idle", type=int, default=60, help="idle connections beside them")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(f"{wanted.minutes:g} minutes, {wanted.rude} rude peers, {wanted.idle} idle connections, seed {wanted.seed}", flush=True)
    made, told, rude, statuses = Account(), Told(), Counter[str](), Counter[str]()
    studies: list[list[Outgoing]] = []
    peaks: dict[str, int] = {}
    seen: dict[str, set[int]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with OrthancProcess(folder / "orthanc", extra={"DicomModalities": {"fourview": ["FOURVIEW", "127.0.0.1", 1]}}) as orthanc:
            ours = FourviewProcess(
                folder / "fourview", dicom_port=free_port(), http_port=free_port(), pacs_port=orthanc.dicom_port, pacs_url=orthanc.url
            )
            sender = Sender(os.environ.get("STORESCU", "/usr/bin/storescu"), ours.dicom_port)
            with ours:
                assert ours.process is not None
                stopped, over = threading.Event(), threading.Event()
                watching = threading.Thread(target=watch, args=[ours.process.pid, over, peaks, seen])
                work = [
                    threading.Thread(target=normal, args=[sender, folder / "exams", stopped, studies, orthanc]),
                    threading.Thread(target=hostile, args=[ours.dicom_port, stopped, told]),
                    threading.Thread(target=idle, args=[ours.dicom_port, wanted.idle, stopped, rude]),
                    *(
                        threading.Thread(target=be_rude, args=[ours.dicom_port, wanted.seed + number, stopped, rude])
                        for number in range(wanted.rude)
                    ),
                ]
                for one in (watching, *work):
                    one.start()
                try:
                    time.sleep(wanted.minutes * 60)
                finally:
                    stopped.set()
                    for one in work:
                        one.join()
                settle(made, ours, orthanc, studies, told)
                over.set()
                watching.join()
                statuses.update(told.statuses)
                made.count("hostile objects sent", statuses.total())
                made.count("rude calls", rude.total())
                for role, limit in LIMITS_MIB.items():
                    made.count(f"{role}: largest resident memory, MiB", peaks.get(role, 0))
                    made.blame(f"{role}: above {limit} MiB", [peaks[role]] if peaks.get(role, 0) > limit else [])
                for role in ("serve", "receive", "work", "web"):
                    made.count(f"{role}: processes that there were", len(seen.get(role, ())), must_be=1)
    print(f"hostile objects were answered: {dict(statuses.most_common())}")
    print(f"rude peers: {dict(rude.most_common())}")
    print(made)
    return 1 if made.faults or not studies else 0


if __name__ == "__main__":
    sys.exit(main())
