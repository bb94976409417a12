"""Who may connect, and what a connection may cost others: limits by address, silent ones, resets, messages that nobody can read."""

from __future__ import annotations

import gc
import io
import json
import logging
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pdus_made import COMMAND, DATA, LAST_COMMAND, association_request, p_data, read_pdu

from listener import connections, logs
from listener.connections import ConnectionLimits, Connections
from listener.held_back import LINES_A_MINUTE
from listener.keeping import StudyLimits, StudySizes
from listener.keys import Refused, Status
from listener.scp import StorageScp
from pipeline.send import Pacs, echo
from store.files import Files

PATIENCE_SECONDS = 60
MG = "1.2.840.10008.5.1.4.1.1.1.2"


def wait_for(condition: Callable[[], Any]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


@pytest.fixture
def listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., StorageScp]]:
    """A receiver whose archive is never asked."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    running: list[StorageScp] = []

    def start(**settings: Any) -> StorageScp:
        settings = {"acse_seconds": 600, **settings}
        scp = StorageScp(ae_title="FOURVIEW", host="127.0.0.1", port=0, archive=None, files=Files(tmp_path / "files"), **settings)  # type: ignore[arg-type]
        running.append(scp)
        return scp.start()

    yield start
    for scp in running:
        scp.shutdown(grace_seconds=0)


def connect(scp: StorageScp, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", scp.port), timeout=PATIENCE_SECONDS, source_address=(source, 0))


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def echoes(scp: StorageScp) -> bool:
    return echo(Pacs(name="us", ae_title="FOURVIEW", host="127.0.0.1", port=scp.port), "SENDER").ok


# ---------------------------------------------------------------------------------------------------------------- limits


@pytest.fixture
def pair() -> Iterator[Callable[[], socket.socket]]:
    ends: list[socket.socket] = []

    def make() -> socket.socket:
        ends.extend(socket.socketpair())
        return ends[-1]

    yield make
    for one in ends:
        one.close()


def test_open_connections_are_counted_by_address_while_they_are_open(pair: Callable[[], socket.socket]) -> None:
    known = Connections()
    known.limit(ConnectionLimits(per_address=2, per_minute=0))
    first, second = pair(), pair()
    for one in (first, second):
        assert known.refused_because("10.0.0.1", 0.0) == ""
        known.add("10.0.0.1", one)
    assert known.refused_because("10.0.0.1", 0.0).startswith("2 connections of this address are open ([dicom] connections_per_address)")
    assert known.refused_because("10.0.0.2", 0.0) == ""
    first.close()
    assert known.refused_because("10.0.0.1", 0.0) == ""
    known.limit(ConnectionLimits(per_address=1, per_minute=0))
    assert known.refused_because("10.0.0.1", 0.0)
    known.limit(ConnectionLimits(per_address=0, per_minute=0))
    assert known.refused_because("10.0.0.1", 0.0) == ""


def test_new_connections_are_counted_by_address_and_minute() -> None:
    known = Connections()
    known.limit(ConnectionLimits(per_minute=60))
    assert [known.refused_because("10.0.0.1", 0.0) == "" for _ in range(61)] == [True] * 60 + [False]
    assert "connections_per_minute" in known.refused_because("10.0.0.1", 0.0)
    assert known.refused_because("10.0.0.2", 0.0) == ""
    assert known.refused_because("10.0.0.1", 1.0) == "" and known.refused_because("10.0.0.1", 1.0) != ""


def test_all_addresses_together_have_a_limit(pair: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_OPEN", 3)
    known, open_ones = Connections(), [pair() for _ in range(3)]
    for number, one in enumerate(open_ones):
        assert known.refused_because(f"10.0.0.{number}", 0.0) == ""
        known.add(f"10.0.0.{number}", one)
    assert known.refused_because("10.0.0.9", 0.0).startswith("3 connections are open")
    open_ones[1].close()
    assert known.refused_because("10.0.0.9", 0.0) == ""
    monkeypatch.setattr(connections, "CROWDED", 2)
    monkeypatch.setattr(connections, "WHEN_CROWDED", 1)
    assert known.refused_because("10.0.0.0", 0.0) and known.refused_because("10.0.0.9", 0.0) == ""


def test_one_address_has_its_limit_and_others_notice_nothing(listens: Callable[..., StorageScp], caplog: pytest.LogCaptureFixture) -> None:
    scp = listens(connection_limits=ConnectionLimits(per_address=5))
    rude = [connect(scp, "127.0.0.2") for _ in range(5)]
    wait_for(lambda: _acceptors() == 5)
    for _ in range(20):
        with connect(scp, "127.0.0.2") as refused:
            assert is_closed(refused)
    assert _acceptors() == 5  # no thread was made for them
    assert caplog.text.count("connection refused peer=127.0.0.2") == 20
    assert echoes(scp)
    for one in rude:
        one.close()
    wait_for(lambda: _acceptors() == 0)
    scp.accept(accept_from=(), max_associations=1, image_kinds=(), strict=False, connection_limits=ConnectionLimits(per_address=1))
    with connect(scp, "127.0.0.2") as again, connect(scp, "127.0.0.2") as refused:
        assert is_closed(refused)
        again.sendall(association_request(called="FOURVIEW"))
        assert read_pdu(again)[0] == 0x02


def _acceptors() -> int:
    return sum(thread.name.startswith("AcceptorThread") for thread in threading.enumerate())


def test_silent_connections_take_no_association_from_others(listens: Callable[..., StorageScp]) -> None:
    """pynetdicom counts a connection before it has said who it is, and with two of them this one would be full for 15 seconds."""
    scp = listens(max_associations=1)
    silent = [connect(scp) for _ in range(10)]
    wait_for(lambda: _acceptors() == 10)
    assert echoes(scp)
    for one in silent:
        one.close()


def test_connections_that_were_reset_are_gone_at_once(listens: Callable[..., StorageScp]) -> None:
    """And not when the garbage collector comes by: until then they would count, and hold descriptors."""
    scp = listens(connection_limits=ConnectionLimits(per_address=0, per_minute=0))
    assert echoes(scp)
    wait_for(lambda: _acceptors() == 0)
    before = _descriptors()
    gc.disable()
    try:
        for number in range(60):
            with connect(scp) as connection:
                connection.sendall(association_request(called="FOURVIEW")[: number * 4])
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_for(lambda: _descriptors() <= before)
    finally:
        gc.enable()
    assert echoes(scp)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# ---------------------------------------------------------------------------------------------------------------- messages


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


FIELD, HAS_DATA = element(0x0100, b"\x01\x00"), element(0x0800, b"\x00\x00")
CLASS, INSTANCE = element(0x0002, MG.encode() + b"\0"), element(0x1000, b"1.2.3\0")
UNREADABLE: dict[str, bytes] = {
    "no command": p_data((LAST_COMMAND, b"")),
    "noise": p_data((LAST_COMMAND, b"\xff" * 50)),
    "no command field": p_data((LAST_COMMAND, HAS_DATA)),
    "an unknown command": p_data((LAST_COMMAND, element(0x0100, b"\x77\x77") + HAS_DATA)),
    "a command field of one byte": p_data((LAST_COMMAND, element(0x0100, b"\x01") + HAS_DATA)),
    "no word of a data set": p_data((LAST_COMMAND, CLASS + FIELD + INSTANCE)),
    "C-STORE of no class": p_data((LAST_COMMAND, FIELD + HAS_DATA + INSTANCE)),
    "C-STORE of no instance": p_data((LAST_COMMAND, CLASS + FIELD + HAS_DATA)),
    "an element of 4 GiB": p_data((LAST_COMMAND, FIELD + struct.pack("<HHL", 0, 0x0800, 0xFFFFFFFE))),
    "another context": p_data((LAST_COMMAND, CLASS + FIELD + HAS_DATA + INSTANCE)).replace(b"\x01\x03", b"\x63\x03", 1),
    "an item without its header": struct.pack(">BxLLB", 0x04, 5, 1, 1),
    "an item of no length": struct.pack(">BxLL", 0x04, 4, 0),
    "an item longer than its PDU": struct.pack(">BxLLBB", 0x04, 6, 1000, 1, COMMAND),
}


@pytest.fixture(scope="module")
def module_scp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageScp]:
    patch = pytest.MonkeyPatch()
    patch.setattr(tempfile, "tempdir", None)
    files = Files(tmp_path_factory.mktemp("files"))
    with StorageScp(ae_title="FOURVIEW", host="127.0.0.1", port=0, archive=None, files=files, network_seconds=600) as scp:  # type: ignore[arg-type]
        yield scp
    patch.undo()


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_message_that_nobody_can_read_closes_its_connection_and_leaves_nothing(
    module_scp: StorageScp, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """In pynetdicom each of them ends the thread that reads, or the one that answers, with a traceback."""
    died: list[Any] = []
    hook, threading.excepthook = threading.excepthook, died.append
    try:
        with connect(module_scp) as connection:
            connection.sendall(association_request(MG, called="FOURVIEW"))
            assert read_pdu(connection)[0] == 0x02
            connection.sendall(UNREADABLE[what] + p_data((DATA, b"\x00" * 100)))
            try:
                while connection.recv(4096):
                    pass
            except ConnectionError:
                pass
        wait_for(lambda: _acceptors() == 0)
    finally:
        threading.excepthook = hook
    assert died == []
    assert list(module_scp._files.incoming.iterdir()) == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING]


# ---------------------------------------------------------------------------------------------------------------- studies


def test_a_study_has_its_limits_and_others_have_theirs() -> None:
    sizes, limits = StudySizes(), StudyLimits(instances=2, size_bytes=100)
    for study, size in (("1.1", 10), ("1.1", 10), ("1.2", 100)):
        sizes.check(study, limits)
        sizes.add(study, size)
    sizes.check("1.3", limits)
    for study, words in (("1.1", "its study has 2 instances"), ("1.2", "its study has 0 MiB")):
        with pytest.raises(Refused, match=words) as refused:
            sizes.check(study, limits)
        assert refused.value.status is Status.TOO_LARGE
        sizes.check(study, StudyLimits(instances=0, size_bytes=0))


# ---------------------------------------------------------------------------------------------------------------- lines


def test_a_flood_of_lines_is_counted_and_not_written(request: pytest.FixtureRequest) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    request.addfinalizer(lambda: (setattr(root, "handlers", before[0]), root.setLevel(before[1])))
    out = io.StringIO()
    logs.configure(json=True, stream=out)
    clock = [0.0]

    def tell(name: str, words: str, **extra: str) -> None:
        record = logging.LogRecord(name, logging.WARNING, "x.py", 1, words, None, None)
        record.created = clock[0]
        record.__dict__.update(extra)
        logging.getLogger(name).handle(record)

    for number in range(1000):
        clock[0] = number / 100
        tell("listener.guard", "connection closed peer=10.0.0.1", peer="10.0.0.1")
        tell("pynetdicom.dul", "Unknown PDU type received")
    tell("listener.guard", "connection closed peer=10.0.0.2", peer="10.0.0.2")
    for _ in range(100):
        tell("listener.scp", "instance outcome='new'")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["logger"] for line in lines].count("listener.scp") == 100  # of an instance each has its line
    told = [line for line in lines if line["logger"] != "listener.scp"]
    assert [line.get("peer") for line in told].count("10.0.0.1") == LINES_A_MINUTE and told[-1]["peer"] == "10.0.0.2"
    assert len(told) == 2 * LINES_A_MINUTE + 1
    out.truncate(0)
    clock[0] = 100.0
    tell("listener.guard", "connection closed peer=10.0.0.1", peer="10.0.0.1")
    lines = [json.loads(line.strip("\0")) for line in out.getvalue().splitlines()]
    assert [(line["logger"], line.get("count"), line.get("peer")) for line in lines] == [
        ("listener.guard", "990", "10.0.0.1"),
        ("pynetdicom.dul", "990", "-"),
        ("listener.guard", None, "10.0.0.1"),
    ]
