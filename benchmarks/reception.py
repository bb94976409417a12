"""C-STORE reception of 3328x2560 images by 1, 4 and 16 senders at once: ours (durable) beside dcmtk's `storescp --fork` and Orthanc.

    python benchmarks/reception.py [--quick] [--seconds N] [--json FILE]

The senders are dcmtk's `storescu`, one process each, reading uncompressed 16-bit images from memory; every image of every run has UIDs
of its own. All receivers run all the time and are measured in turn (A B C A B C ...), their files on one volume (TMPDIR names another).
Between two runs everything written is synced, so that nobody pays for his predecessor's pages. The clock runs from the start of the
senders to the end of the last one. Whatever was answered Success must be there afterwards: as a file of the right size, and with us as
a row with the right hash over bytes with the right hash; else there is no figure. `storescp` neither syncs nor keeps an index; Orthanc
keeps an index and does not sync the files by default. Ours runs with one process, with two, and with the default, which counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import sqlalchemy as sa
from measured import Row, main  # before what it finds
from measured import Run as Bench

# isort: split
from fourview_process import FourviewProcess
from mammograms_made import mammogram
from orthanc_process import OrthancProcess
from ports import free_port
from processes import PROC, descendants, resident_kib

from listener.config import Dicom
from store import tables
from store.database import read_engine

ROWS, COLUMNS = 3328, 2560
#: Senders at once: images that each of them sends.
PER_SENDER = {1: 12, 4: 6, 16: 3}
PER_SENDER_QUICK = {1: 8, 4: 3, 16: 1}
MAX_PDU = 131072
#: dcmtk sets the size of its sockets' buffers to 64 KiB unless told otherwise; larger ones make the sender faster.
SENDER_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "TCP_BUFFER_LENGTH": "1048576"}
TICKS = os.sysconf("SC_CLK_TCK")
_NUMBER_DIGITS = 30


class Images:
    """Part 10 files in memory whose UIDs are made new before each run; all UIDs have the same length, so that this is a few bytes."""

    def __init__(self, folder: Path, count: int) -> None:
        random = np.random.default_rng(1)
        pixels = random.integers(0, 4096, (ROWS, COLUMNS), np.uint16)
        ds = mammogram(pixels=pixels, SOPInstanceUID=self._uid(1), StudyInstanceUID=self._uid(2), SeriesInstanceUID=self._uid(3))
        template = folder / "template"
        ds.save_as(template, enforce_file_format=True)
        whole = template.read_bytes()
        template.unlink()
        self.paths = [folder / f"{number:03}.dcm" for number in range(count)]
        self._data_set_at = 132 + 12 + int.from_bytes(whole[140:144], "little")  # PS3.10 7.1: (0002,0000) says how long group 0002 is
        self._header, self._rest = whole[:4096], whole[4096:]
        self._numbers = itertools.count(10)
        for path in self.paths:
            path.write_bytes(whole)

    @staticmethod
    def _uid(number: int) -> str:
        return f"2.25.1{number:0{_NUMBER_DIGITS}}"

    def renamed(self, count: int, per_sender: int) -> dict[str, Sent]:
        """New UIDs for the first `count` files, a study for each sender; SOP Instance UID -> what is expected."""
        expected = {}
        for place, path in enumerate(self.paths[:count]):
            if place % per_sender == 0:
                study, series = self._uid(next(self._numbers)), self._uid(next(self._numbers))
            image = self._uid(next(self._numbers))
            header = self._header
            for old, new in ((1, image), (2, study), (3, series)):
                header = header.replace(self._uid(old).encode(), new.encode())
            with path.open("r+b") as file:
                file.write(header)
            data_set = header[self._data_set_at :]
            expected[image] = Sent(len(data_set) + len(self._rest), hashlib.sha256(data_set + self._rest).hexdigest())
        return expected


@dataclass(frozen=True)
class Sent:
    """What is expected of one image: size and SHA-256 of its data set."""

    size_bytes: int
    file_hash: str


class Receiver(Protocol):
    """Somebody who receives."""

    name: str
    port: int
    called: str

    def start(self) -> None:
        """Returns when he listens."""

    def stop(self) -> None:
        """End him."""

    def processes(self) -> list[int]:
        """Process ids, those of his children too."""

    def missing(self, expected: dict[str, Sent]) -> list[str]:
        """What is wrong with what he should have, in words."""

    def clear(self) -> None:
        """Throw the files away."""


class Storescp:
    """dcmtk's storescp, a process for each association; it announces the largest PDU that it can."""

    called = "STORESCP"
    name = "storescp --fork"

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it listens."""
        self._folder.mkdir(parents=True)
        command = ["/usr/bin/storescp", "--fork", "-pdu", str(MAX_PDU), "-od", str(self._folder), "-aet", self.called, str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - ours
        _wait_for_port(self.port)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def processes(self) -> list[int]:
        """The listening one and those of associations."""
        assert self._process is not None
        return _tree(self._process.pid)

    def missing(self, expected: dict[str, Sent]) -> list[str]:
        """A file for each image, named after its UID, not shorter than its data set."""
        sizes = {path.name.split(".", 1)[1]: path.stat().st_size for path in self._folder.iterdir()}
        return [f"{uid} is not there whole" for uid, sent in expected.items() if sizes.get(uid, 0) < sent.size_bytes]

    def clear(self) -> None:
        """Remove the files."""
        for path in self._folder.iterdir():
            path.unlink()


class Orthanc:
    """Debian's Orthanc without plug-ins, its index and its storage on the volume."""

    called = "ORTHANC"
    name = "Orthanc"

    def __init__(self, folder: Path) -> None:
        self._orthanc = OrthancProcess(folder, program="/usr/sbin/Orthanc", dicomweb=False)
        self.port = self._orthanc.dicom_port

    def start(self) -> None:
        """Returns when it answers."""
        self._orthanc.start()

    def stop(self) -> None:
        """End it."""
        self._orthanc.kill()

    def processes(self) -> list[int]:
        """The one process."""
        assert self._orthanc._process is not None
        return _tree(self._orthanc._process.pid)

    def missing(self, expected: dict[str, Sent]) -> list[str]:
        """An instance for each image, not shorter than its data set."""
        found = self._orthanc.get("/instances", expand="", limit=100_000, since=0)
        sizes = {one["MainDicomTags"]["SOPInstanceUID"]: one["FileSize"] for one in found}
        return [f"{uid} is not there whole" for uid, sent in expected.items() if sizes.get(uid, 0) < sent.size_bytes]

    def clear(self) -> None:
        """Delete all."""
        for study in self._orthanc.get("/studies"):
            self._orthanc.delete(f"/studies/{study}")


class Ours:
    """`fourview receive` with its SQLite database on the volume; nobody reads the images meanwhile."""

    called = "FOURVIEW"

    def __init__(self, folder: Path, receivers: int) -> None:
        self.name = f"Fourview, {receivers} process{'es' if receivers > 1 else ''}"
        self.receivers = receivers
        self.port = free_port()
        self._fourview = FourviewProcess(
            folder,
            dicom_port=self.port,
            http_port=free_port(),
            pacs_port=free_port(),
            pacs_url="http://127.0.0.1:1",
            environment={"FOURVIEW_DICOM__RECEIVERS": str(receivers)},
        )

    def start(self) -> None:
        """Returns when all its processes listen."""
        self._fourview.run("db", "upgrade")
        self._fourview.role("receive", host="bench")
        self._fourview.wait_for(lambda: len(self._fourview.living("receive")) == self.receivers, "the receivers do not start")
        _wait_for_port(self.port)

    def stop(self) -> None:
        """End it."""
        self._fourview.stop()

    def processes(self) -> list[int]:
        """The receivers, without the supervisor that starts them: it has no part in this."""
        return descendants(self._fourview.roles[0].pid)["receive"][1:]

    def missing(self, expected: dict[str, Sent]) -> list[str]:
        """A row for each image, and under it a file whose bytes have the hash of what was sent."""
        row = tables.instance.c
        engine = read_engine(self._fourview.database)
        with engine.begin() as connection:
            found = {
                one.sop_instance_uid: one
                for one in connection.execute(sa.select(row.sop_instance_uid, row.file_name, row.file_hash, row.size_bytes))
            }
        engine.dispose()
        complaints = []
        for uid, sent in expected.items():
            one = found.get(uid)
            if one is None:
                complaints.append(f"{uid} has no row")
            elif (one.size_bytes, one.file_hash) != (sent.size_bytes, sent.file_hash):
                complaints.append(f"{uid} has a row with another size or hash")
            elif hashlib.sha256((self._fourview.files / one.file_name).read_bytes()[-sent.size_bytes :]).hexdigest() != sent.file_hash:
                complaints.append(f"the file of {uid} has other bytes")
        return complaints

    def clear(self) -> None:
        """Remove the files; their rows stay."""
        for path in self._fourview.files.glob("??/*"):
            path.unlink()


@dataclass
class Run:
    """One measurement."""

    seconds: float
    images: int
    answered: int  # Success
    complaints: list[str]
    cpu_seconds: float  # of the receiver
    peak_mib: float  # resident, all its processes together
    end_mib: float

    @property
    def mb_per_second(self) -> float:
        """Of pixel data and headers."""
        return self.images * ROWS * COLUMNS * 2 / 1e6 / self.seconds


@dataclass
class Watched:
    """Resident memory of a receiver while it is measured."""

    receiver: Receiver
    peak_kib: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watched:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        pids = self.receiver.processes()
        for number in itertools.count():
            if number % 5 == 0 and not isinstance(self.receiver, Ours):
                pids = self.receiver.processes()  # one for each association may come and go
            self.peak_kib = max(self.peak_kib, _resident_kib(pids))
            if self._ended.wait(0.1):
                return


def rows(bench: Bench) -> Iterator[Row]:
    """The rows of the table; beside them, a table of its own is printed."""
    per_sender = PER_SENDER_QUICK if bench.quick else PER_SENDER
    with contextlib.ExitStack() as stack:
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=_memory_folder(), prefix="fourview-reception-")))
        images = Images(memory, max(senders * count for senders, count in per_sender.items()))
        default = Dicom().receivers
        receivers: list[Receiver] = [Storescp(bench.folder / "storescp"), Orthanc(bench.folder / "orthanc")]
        receivers += [Ours(bench.folder / f"ours-{count}", count) for count in sorted({1, 2, default})]
        for receiver in receivers:
            stack.callback(receiver.stop)
            receiver.start()
            measured(receiver, images, 1, 2)  # the first images pay for what is made once
        found: dict[tuple[str, int], list[Run]] = {}
        longest = 0.0
        rounds = 0
        while rounds < 2 or bench.left(time.monotonic()) > longest * 1.1:
            began = time.monotonic()
            for senders in per_sender:
                for receiver in receivers:
                    found.setdefault((receiver.name, senders), []).append(measured(receiver, images, senders, per_sender[senders]))
            longest = max(longest, time.monotonic() - began)
            rounds += 1
    show(found)
    yield from _rows(found, next(receiver for receiver in receivers if isinstance(receiver, Ours) and receiver.receivers == default))


def _rows(found: dict[tuple[str, int], list[Run]], ours: Ours) -> Iterator[Row]:
    def speeds(name: str, senders: int) -> list[float]:
        return [run.mb_per_second for run in found[name, senders]]

    for senders in PER_SENDER:
        for key, name in (("storescp", Storescp.name), ("orthanc", Orthanc.name)):
            runs = [*found[ours.name, senders], *found[name, senders]]
            complaint = next((complaint for run in runs for complaint in run.complaints), "")
            if complaint:
                yield Row(f"reception_{senders}_{key}", note=complaint)
            else:
                yield Row(f"reception_{senders}_{key}", speeds(ours.name, senders), speeds(name, senders), note=ours.name)
    yield Row("reception_no_collapse", speeds(ours.name, 16), speeds(ours.name, 1))
    most = found[ours.name, 16]
    yield Row("receiver_memory", [run.peak_mib for run in most])
    yield Row("receiver_memory_flat", [run.end_mib for run in most[1:]], [most[0].end_mib])


def measured(receiver: Receiver, images: Images, senders: int, per_sender: int) -> Run:
    """Let `senders` send `per_sender` images each, at once, and check what became of them."""
    count = senders * per_sender
    expected = images.renamed(count, per_sender)
    os.sync()
    before = _cpu_seconds(receiver.processes())
    outputs = [tempfile.TemporaryFile("w+") for _ in range(senders)]  # noqa: SIM115 - closed below
    with Watched(receiver) as watched:
        began = time.perf_counter()
        processes = []
        for number, output in enumerate(outputs):
            own = images.paths[number * per_sender : (number + 1) * per_sender]
            command = ["/usr/bin/storescu", "-v", "-nh", "-R", "--max-send-pdu", str(MAX_PDU), "-aec", receiver.called]
            command += ["127.0.0.1", str(receiver.port), *map(str, own)]
            processes.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=SENDER_ENVIRONMENT))  # noqa: S603 - ours
        for process in processes:
            process.wait()
        seconds = time.perf_counter() - began
    cpu_seconds = _cpu_seconds(receiver.processes()) - before
    end_mib = _resident_kib(receiver.processes()) / 1024
    answered = 0
    faults: list[str] = []
    for output in outputs:
        output.seek(0)
        said = output.read()
        answered += len(re.findall(r"Received Store Response \(Success\)", said))
        faults += re.findall(r"(?m)^[EF]: .*|Received Store Response \((?!Success).*", said)
        output.close()
    complaints = receiver.missing(expected) if answered == count else [f"{count - answered} of {count} not answered Success", *faults]
    receiver.clear()
    return Run(seconds, count, answered, complaints, cpu_seconds, max(watched.peak_kib / 1024, end_mib), end_mib)


def show(found: dict[tuple[str, int], list[Run]]) -> None:
    """All that was measured, as a table: medians."""
    print("senders  receiver                 MB/s     (min-max)  images/s  CPU ms/image  peak MiB  errors")
    for (name, senders), runs in sorted(found.items(), key=lambda one: one[0][1]):
        speeds = [run.mb_per_second for run in runs]
        spread = f"({min(speeds):.0f}-{max(speeds):.0f})"
        images_per_second = statistics.median(run.images / run.seconds for run in runs)
        cpu_ms = statistics.median(1000 * run.cpu_seconds / run.images for run in runs)
        errors = [complaint for run in runs for complaint in run.complaints]
        print(
            f"{senders:>7}  {name:<22} {statistics.median(speeds):>6.0f} {spread:>13} {images_per_second:>9.1f} {cpu_ms:>13.1f} "
            f"{max(run.peak_mib for run in runs):>9.0f}  {len(errors)}{': ' + errors[0] if errors else ''}",
            flush=True,
        )


def _wait_for_port(port: int) -> None:
    give_up_at = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)


def _tree(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, words in _stats():
        children.setdefault(int(words[1]), []).append(pid)
    found, left = [], [root]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Process id and the fields of /proc/PID/stat from the state on."""
    for stat in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield int(stat.parent.name), stat.read_text().rpartition(")")[2].split()


def _cpu_seconds(pids: Sequence[int]) -> float:
    """Of these processes and of their children that have ended."""
    return sum(sum(map(int, words[11:15])) for pid, words in _stats() if pid in pids) / TICKS


def _resident_kib(pids: Sequence[int]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, StopIteration):
            total += resident_kib(pid)
    return total


def _memory_folder() -> Path | None:
    shared = Path("/dev/shm")  # noqa: S108 - the folder in it is made by tempfile
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > 4 * 1024**3 else None


if __name__ == "__main__":
    main(rows)
