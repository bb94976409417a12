"""Thousands of associations and of bare TCP connects on one receiver process: what stays behind in memory, threads and file descriptors."""

from __future__ import annotations

import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mammograms_made import mammogram
from pdus_made import association_request, c_echo, read_pdu, status_of
from processes import open_files, resident_kib, threads
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.presentation import build_context

from listener.scp import MEMORY_SECONDS

MG = "1.2.840.10008.5.1.4.1.1.1.2"
RELEASE = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
#: Every so many associations one is a C-STORE, and every so many connects one stays silent until it is thrown out.
STORE_EVERY, SILENT_EVERY = 10, 20
AT_ONCE = 20


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    resident_kib: int
    threads: int
    files: tuple[str, ...]

    @property
    def sockets(self) -> int:
        return sum(name.startswith("socket:") for name in self.files)


def held(pid: int) -> Held:
    return Held(resident_kib(pid), threads(pid), tuple(open_files(pid)))


def settled(pid: int, before: Held, *, seconds: float = 120) -> Held:
    """What the process holds once it is as it was before, or after `seconds`; memory that is given back now and then has been by then."""
    time.sleep(2 * MEMORY_SECONDS)
    give_up_at = time.monotonic() + seconds
    while True:
        now = held(pid)
        if (now.threads <= before.threads and len(now.files) <= len(before.files)) or time.monotonic() > give_up_at:
            return now
        time.sleep(0.2)


def associations(port: int, count: int, *, said: Callable[[int], None] = lambda _: None) -> Counter[str]:
    """`count` associations one after the other: C-ECHO, and now and then C-STORE of an image; what was answered."""
    request, echo = association_request(called="FOURVIEW"), c_echo()
    image = mammogram()
    answers: Counter[str] = Counter()
    for number in range(count):
        if number % STORE_EVERY == STORE_EVERY - 1:
            answers[f"C-STORE 0x{_store(port, image):04X}"] += 1
        else:
            answers[f"C-ECHO 0x{_exchange(port, request, echo):04X}"] += 1
        said(number + 1)
    return answers


def connects(port: int, count: int) -> Counter[str]:
    """`count` bare TCP connects: closed at once, reset, or silent until the receiver has had enough."""
    found: Counter[str] = Counter()
    silent: list[socket.socket] = []
    for number in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        if number % SILENT_EVERY == SILENT_EVERY - 1:
            silent.append(connection)
            if len(silent) == AT_ONCE:
                found["thrown out"] += _thrown_out(silent)
            continue
        if number % 2:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST rather than FIN
        connection.close()
        found["reset" if number % 2 else "closed"] += 1
    found["thrown out"] += _thrown_out(silent)
    return found


def _thrown_out(silent: list[socket.socket]) -> int:
    count = 0
    for connection in silent:
        connection.settimeout(60)
        try:
            while connection.recv(4096):
                pass
        except ConnectionError:
            pass
        count += 1
        connection.close()
    silent.clear()
    return count


def _exchange(port: int, request: bytes, echo: bytes) -> int:
    """One association with one C-ECHO on a socket of our own; its status, 0xFFFF for a rejection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        if read_pdu(connection)[0] != 0x02:
            return 0xFFFF
        connection.sendall(echo)
        answer = read_pdu(connection)
        status = status_of(answer)
        connection.sendall(RELEASE)
        read_pdu(connection)
        return status


def _store(port: int, ds: object) -> int:
    ae = AE(ae_title="SENDER")
    assoc = ae.associate("127.0.0.1", port, contexts=[build_context(MG, ExplicitVRLittleEndian)], ae_title="FOURVIEW")
    if not assoc.is_established:
        return 0xFFFF
    status = assoc.send_c_store(ds).get("Status", 0xFFFE)
    assoc.release()
    return int(status)


def left_behind(files: Path) -> list[str]:
    """Unfinished files of the spool."""
    return [path.name for path in (files / "incoming").iterdir()]
