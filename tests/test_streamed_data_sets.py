"""The short way of a data set from the socket to its file: the same bytes however they are cut, and no file when they do not all come."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mammograms_made import mammogram
from pdus_made import (
    A_ABORT,
    COMMAND,
    DATA,
    LAST_COMMAND,
    LAST_DATA,
    association_request,
    c_store_request,
    p_data,
    pdu_header,
    read_pdu,
    split,
    status_of,
)
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation as MG
from pynetdicom import dsutils

from listener import guard
from listener import scp as scp_module
from listener.guard import SPACE_EVERY_BYTES, Limits, write_out
from listener.keys import Keys, Status, read_keys
from listener.scp import StorageScp
from store.archive import Kept, Reception
from store.files import Files
from store.study import View

PATIENCE_SECONDS = 60


def encoded(number: int, rows: int = 16) -> tuple[str, bytes]:
    """SOP Instance UID and data set of an image of some kilobytes."""
    pixels = np.random.default_rng(number).integers(0, 4096, (rows, 64), np.uint16)
    ds = mammogram(View.L_CC, image=str(number), pixels=pixels)
    data_set = dsutils.encode(ds, is_implicit_vr=False, is_little_endian=True)
    assert data_set is not None
    return str(ds.SOPInstanceUID), data_set


class Noting:
    """Keeps everything, and notes it."""

    def __init__(self) -> None:
        self.receptions: list[Reception] = []

    def keep(self, reception: Reception) -> Kept:
        self.receptions.append(reception)
        return Kept.NEW


class Door:
    """A receiver and a raw connection to it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.archive = Noting()
        self.files = Files(folder)
        self.scp = StorageScp(ae_title="FOURVIEW", host="127.0.0.1", port=0, archive=self.archive, files=self.files, **options).start()

    def associated(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.scp.port), timeout=PATIENCE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(association_request(MG, called="FOURVIEW"))
        assert read_pdu(connection)[0] == 0x02, "A-ASSOCIATE-AC"
        return connection

    def wait_until_nothing_is_left(self) -> None:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while self.scp._ae.active_associations or list(self.files.incoming.iterdir()):
            assert time.monotonic() < give_up_at, (self.scp._ae.active_associations, list(self.files.incoming.iterdir()))
            time.sleep(0.01)


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Door]]:
    monkeypatch.setattr(tempfile, "tempdir", None)  # restored after the test: StorageScp sets it for the process
    running: list[Door] = []

    def start(**options: Any) -> Door:
        running.append(Door(tmp_path / f"files-{len(running)}", **options))
        return running[-1]

    yield start
    for one in running:
        one.scp.shutdown(grace_seconds=0.1)


@st.composite
def transfers(draw: st.DrawFn) -> tuple[list[int], list[int], bool, int]:
    """Where a data set is cut into fragments, how many fragments go into each PDU, whether the first PDU holds the command as well, and how
    many bytes at a time the sender gives to its socket."""
    cuts = draw(st.lists(st.integers(0, 3000), max_size=12))
    groups = draw(st.lists(st.integers(1, 4), min_size=len(cuts) + 1, max_size=len(cuts) + 1))
    return cuts, groups, draw(st.booleans()), draw(st.sampled_from([1 << 20, 1000, 37]))


def test_a_data_set_arrives_the_same_however_it_is_cut(door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fragments of any size, none as well, any number of them in a PDU, the command among them or not, in any pieces of the network's."""
    hashed: list[object] = []

    def noted(*arguments: Any, **options: Any) -> Keys:
        hashed.append(options["hashed"])
        return read_keys(*arguments, **options)

    monkeypatch.setattr(scp_module, "read_keys", noted)
    receiver = door()
    connection = receiver.associated()
    numbers = itertools.count()

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(transfers())
    def arrives(transfer: tuple[list[int], list[int], bool, int]) -> None:
        cuts, groups, together, piece_bytes = transfer
        number = next(numbers)
        sop_instance_uid, data_set = encoded(number)
        fragments = split(data_set, [min(cut, len(data_set)) for cut in cuts])
        items = [(LAST_DATA if place == len(fragments) - 1 else DATA, fragment) for place, fragment in enumerate(fragments)]
        command = (LAST_COMMAND, c_store_request(MG, sop_instance_uid, number % 65536))
        pdus: list[list[tuple[int, bytes]]] = [[command]]
        for group in groups:
            taken, items = items[:group], items[group:]
            if taken and together and len(pdus) == 1:
                pdus[0] += taken
                together = False
            elif taken:
                pdus.append(taken)
        stream = b"".join(p_data(*pdu) for pdu in pdus)
        for position in range(0, len(stream), piece_bytes):
            connection.sendall(stream[position : position + piece_bytes])
        assert status_of(read_pdu(connection)) == Status.SUCCESS
        reception = receiver.archive.receptions[-1]
        assert reception.sop_instance_uid == sop_instance_uid and reception.size_bytes == len(data_set)
        assert reception.file_hash == hashlib.sha256(data_set).hexdigest()
        assert reception.file_name is not None
        content = receiver.files.read(reception.file_name)
        start = len(content) - len(data_set)
        assert content[128:132] == b"DICM" and content[start:] == data_set and start == 144 + int.from_bytes(content[140:144], "little")
        whole = len(pdus[0]) == 1
        assert hashed[-1] == ((start, reception.file_hash) if whole else hashed[-1])
        if whole:
            assert hashed[-1] is not None, "it went through pynetdicom"

    arrives()
    connection.close()
    receiver.wait_until_nothing_is_left()


def test_a_data_set_that_begins_with_group_2_is_hashed_as_ever(door: Callable[..., Door]) -> None:
    """Reading takes such elements for file meta information; what is hashed begins behind them, whichever way the bytes came."""
    receiver = door()
    sop_instance_uid, data_set = encoded(1)
    odd = struct.pack("<HH", 0x0002, 0x0016) + b"AE" + struct.pack("<H", 4) + b"ODD "
    with receiver.associated() as connection:
        connection.sendall(p_data((LAST_COMMAND, c_store_request(MG, sop_instance_uid))) + p_data((LAST_DATA, odd + data_set)))
        assert status_of(read_pdu(connection)) == Status.SUCCESS
    assert receiver.archive.receptions[0].file_hash == hashlib.sha256(data_set).hexdigest()
    assert receiver.archive.receptions[0].size_bytes == len(data_set)


def close(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def abort(connection: socket.socket) -> None:
    """In the middle of a PDU it is taken for its content; then the connection closes."""
    connection.sendall(A_ABORT)
    connection.close()


@pytest.mark.parametrize("end", [close, reset, abort])
def test_a_transfer_that_ends_at_any_place_leaves_nothing(door: Callable[..., Door], end: Callable[[socket.socket], None]) -> None:
    receiver = door()
    sop_instance_uid, data_set = encoded(1)
    begin, middle, last = split(data_set, [1000, 2000])
    command = p_data((LAST_COMMAND, c_store_request(MG, sop_instance_uid)))
    stream = command + p_data((DATA, begin)) + p_data((DATA, middle[:500]), (DATA, middle[500:])) + p_data((LAST_DATA, last))
    first = len(command)
    second = first + 12 + len(begin)
    third = second + 18 + len(middle)
    places = [first, first + 1, first + 6, first + 8, first + 12, first + 500, second - 1, second, second + 3, second + 6]
    places += [second + 12, second + 512, second + 515, third - 1, third, third + 6, third + 12, len(stream) - 20]
    for place in places:
        connection = receiver.associated()
        connection.sendall(stream[:place])
        end(connection)
    receiver.wait_until_nothing_is_left()
    assert receiver.archive.receptions == []
    with receiver.associated() as connection:
        connection.sendall(stream)
        assert status_of(read_pdu(connection)) == Status.SUCCESS


def closed(connection: socket.socket) -> bool:
    """Whether the peer closes it, with an A-ABORT or none; a test that waits for more than PATIENCE_SECONDS fails."""
    try:
        while pdu := read_pdu(connection):
            assert pdu[0] == 0x07, f"expected A-ABORT or nothing, got a PDU of type {pdu[0]}"
    except ConnectionError:
        return True
    return False


WRONG = {
    "a command in the middle": p_data((COMMAND, b"")),
    "a whole command in the middle": p_data((LAST_COMMAND, c_store_request(MG, "1.2.3"))),
    "a command behind a fragment": p_data((DATA, b"\0" * 10), (LAST_COMMAND, c_store_request(MG, "1.2.3"))),
    "an item that claims more than its PDU has": pdu_header(0x04, 12) + struct.pack(">LBB", 100, 1, DATA) + b"\0" * 6,
    "an item of no length": pdu_header(0x04, 6) + struct.pack(">LBB", 0, 1, DATA),
    "half an item header": pdu_header(0x04, 3) + b"\0\0\0",
    "a PDU above the limit": pdu_header(0x04, Limits().pdu_bytes + 1),
    "a PDU of an unknown type": pdu_header(0x22, 10) + b"\0" * 10,
    "a second A-ASSOCIATE-RQ": association_request(MG, called="FOURVIEW"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_does_not_belong_into_a_data_set_ends_it(door: Callable[..., Door], wrong: bytes) -> None:
    receiver = door(limits=Limits(pdu_seconds=1))
    sop_instance_uid, data_set = encoded(1)
    with receiver.associated() as connection:
        connection.sendall(p_data((LAST_COMMAND, c_store_request(MG, sop_instance_uid))) + p_data((DATA, data_set[:2000])))
        connection.sendall(wrong)
        assert closed(connection)
    receiver.wait_until_nothing_is_left()
    assert receiver.archive.receptions == []


def sent(connection: socket.socket, stop: threading.Event, pieces: Iterator[bytes], pause_seconds: float) -> threading.Thread:
    """A thread that sends `pieces` until the peer has closed, or `stop`."""

    def run() -> None:
        with contextlib.suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
                if stop.wait(pause_seconds):
                    return

    thread = threading.Thread(target=run)
    thread.start()
    return thread


ENDLESS = p_data((DATA, b"\0" * 60_000))


@pytest.mark.parametrize(
    ("options", "pieces", "pause_seconds"),
    [
        ({"limits": Limits(pdu_seconds=0.5)}, itertools.chain([ENDLESS, pdu_header(0x04, 60_006)], itertools.repeat(b"\0")), 0.05),
        ({"limits": Limits(message_bytes=1_000_000)}, itertools.repeat(ENDLESS), 0),
        ({"network_seconds": 0.5}, iter([ENDLESS, ENDLESS]), 0),
    ],
    ids=["a byte now and then", "more than a message may have", "silence"],
)
def test_limits_act_in_the_middle_of_a_data_set(
    door: Callable[..., Door], options: dict[str, Any], pieces: Iterator[bytes], pause_seconds: float
) -> None:
    receiver = door(**options)
    stop = threading.Event()
    with receiver.associated() as connection:
        connection.sendall(p_data((LAST_COMMAND, c_store_request(MG, "1.2.3"))))
        thread = sent(connection, stop, pieces, pause_seconds)
        try:
            assert closed(connection)
        finally:
            stop.set()
            thread.join()
    receiver.wait_until_nothing_is_left()


def test_a_disk_that_gets_nearly_full_ends_a_streaming_data_set(door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = door()
    monkeypatch.setattr(receiver.files, "has_room", lambda *_: False)
    stop = threading.Event()
    with receiver.associated() as connection:
        connection.sendall(p_data((LAST_COMMAND, c_store_request(MG, "1.2.3"))))
        thread = sent(connection, stop, itertools.repeat(ENDLESS, 2 * SPACE_EVERY_BYTES // 60_000), 0)
        assert closed(connection)
        stop.set()
        thread.join()
    receiver.wait_until_nothing_is_left()


def test_a_shutdown_is_heard_while_a_data_set_streams(door: Callable[..., Door]) -> None:
    """pynetdicom gets its turn, although fragments never cease to come."""
    receiver = door()
    stop = threading.Event()
    with receiver.associated() as connection:
        connection.sendall(p_data((LAST_COMMAND, c_store_request(MG, "1.2.3"))))
        thread = sent(connection, stop, itertools.repeat(p_data((DATA, b"\0" * 1000))), 0.001)
        try:
            receiver.scp.shutdown(grace_seconds=0.1)
            assert closed(connection)
        finally:
            stop.set()
            thread.join()
    receiver.wait_until_nothing_is_left()


def test_a_slow_sender_is_not_taken_for_a_silent_one(door: Callable[..., Door]) -> None:
    """Fragments keep the association alive, however long it takes."""
    receiver = door(network_seconds=1)
    sop_instance_uid, data_set = encoded(1)
    size = -(-len(data_set) // 8)
    pieces = [data_set[place : place + size] for place in range(0, len(data_set), size)]
    with receiver.associated() as connection:
        connection.sendall(p_data((LAST_COMMAND, c_store_request(MG, sop_instance_uid))))
        for piece in pieces[:-1]:
            connection.sendall(p_data((DATA, piece)))
            time.sleep(0.25)
        connection.sendall(p_data((LAST_DATA, pieces[-1])))
        assert status_of(read_pdu(connection)) == Status.SUCCESS
    content = receiver.files.read(receiver.archive.receptions[0].file_name or "")
    assert BytesIO(content).getvalue().endswith(data_set)


def test_the_disk_begins_with_a_large_data_set_while_it_streams_in(door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte once, but for what comes after the last full piece."""
    asked: list[tuple[int, int]] = []

    def noted(descriptor: int, start: int, size_bytes: int) -> None:
        asked.append((start, size_bytes))
        write_out(descriptor, start, size_bytes)

    monkeypatch.setattr(guard, "write_out", noted)
    monkeypatch.setattr(guard, "WRITE_OUT_BYTES", 1024**2)
    receiver = door()
    sop_instance_uid, data_set = encoded(1, rows=40_000)
    with receiver.associated() as connection:
        connection.sendall(p_data((LAST_COMMAND, c_store_request(MG, sop_instance_uid))))
        for position in range(0, len(data_set), 100_000):
            connection.sendall(p_data((DATA, data_set[position : position + 100_000])))
        connection.sendall(p_data((LAST_DATA, b"")))
        assert status_of(read_pdu(connection)) == Status.SUCCESS
    content = receiver.files.read(receiver.archive.receptions[0].file_name or "")
    assert content.endswith(data_set)
    assert asked[0][0] == 0 and all(begin + size == after for (begin, size), (after, _) in itertools.pairwise(asked))
    assert len(content) - guard.WRITE_OUT_BYTES < asked[-1][0] + asked[-1][1] <= len(content)
