"""The guard over real sockets: each of these held a connection of an unguarded pynetdicom for ever, or filled its memory."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from mammograms_made import mammogram
from pdus_made import COMMAND, DATA, LAST_COMMAND, association_request, p_data, pdu_header
from pydicom import dcmwrite
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation as MG
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from listener.guard import C_STORE_RQ, SPACE_EVERY_BYTES, Limits, guard

SHORT = Limits(pdu_seconds=0.5)
#: A client waits this long for being closed; a guard that does not work makes the test fail here.
PATIENCE_SECONDS = 20


@dataclass
class Guarded:
    port: int
    ae: AE
    received: list[bytes] = field(default_factory=list)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)

    def associate(self, max_pdu: int = 65536) -> Any:
        ae = AE(ae_title="SENDER")
        contexts = [build_context(MG, ExplicitVRLittleEndian), build_context(Verification)]
        return ae.associate("127.0.0.1", self.port, contexts=contexts, max_pdu=max_pdu)


@pytest.fixture
def serve() -> Iterator[Callable[..., Guarded]]:
    running: list[AE] = []

    def start(limits: Limits = SHORT, *, maximum_associations: int = 3) -> Guarded:
        ae = AE(ae_title="GUARDED")
        ae.maximum_associations = maximum_associations
        ae.acse_timeout = 1
        ae.network_timeout = 30
        ae.maximum_pdu_size = limits.pdu_bytes // 2
        ae.add_supported_context(MG, ExplicitVRLittleEndian)
        ae.add_supported_context(Verification)
        guarded = Guarded(0, ae)

        def handle_store(event: Any) -> int:
            guarded.received.append(event.dataset.PixelData)
            return 0x0000

        handlers = [(evt.EVT_CONN_OPEN, guard, [limits]), (evt.EVT_C_STORE, handle_store)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        guarded.port = server.server_address[1]
        running.append(ae)
        return guarded

    yield start
    for ae in running:
        ae.shutdown()


def is_closed_by_peer(connection: socket.socket) -> bool:
    try:
        while data := connection.recv(4096):
            assert data[0] == 0x07, f"expected A-ABORT or nothing, got a PDU of type {data[0]}"
    except ConnectionError:
        return True
    return True


def drip(connection: socket.socket, data: bytes, stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        for byte in data:
            connection.send(bytes([byte]))
            if stop.wait(0.1):
                return


@pytest.mark.parametrize(
    "first_bytes",
    [b"", b"\x01\x00", pdu_header(0x01, 200), pdu_header(0x01, 200) + b"\x00" * 100, pdu_header(0x04, 0), b"GET / HTTP/1.1\r\n\r\n"],
    ids=["silent", "two bytes", "header only", "half a body", "data before association", "HTTP"],
)
def test_a_connection_that_does_not_complete_a_pdu_is_closed(serve: Callable[..., Guarded], first_bytes: bytes) -> None:
    with serve().connect() as connection:
        connection.sendall(first_bytes)
        assert is_closed_by_peer(connection)


def test_a_byte_now_and_then_does_not_extend_the_deadline(serve: Callable[..., Guarded]) -> None:
    stop = threading.Event()
    with serve().connect() as connection:
        sender = threading.Thread(target=drip, args=(connection, pdu_header(0x01, 2000) + b"\x00" * 2000, stop))
        sender.start()
        try:
            assert is_closed_by_peer(connection)
        finally:
            stop.set()
            sender.join()


@pytest.mark.parametrize("length", [0xFFFFFFFF, SHORT.pdu_bytes + 1])
def test_a_pdu_that_claims_too_much_is_not_read(serve: Callable[..., Guarded], length: int) -> None:
    # The limit of time is far away here: it is the length that closes.
    guarded = serve(Limits(pdu_seconds=600))
    with guarded.connect() as connection:
        connection.sendall(pdu_header(0x01, length))
        assert is_closed_by_peer(connection)


def test_a_pdu_stopped_within_an_established_association_is_closed(serve: Callable[..., Guarded]) -> None:
    with serve().connect() as connection:
        connection.sendall(association_request())
        assert connection.recv(4096)[0] == 0x02, "A-ASSOCIATE-AC"
        connection.sendall(pdu_header(0x04, 5000) + b"\x00" * 10)
        assert is_closed_by_peer(connection)


def test_a_request_in_pieces_is_whole_when_it_comes_in_time(serve: Callable[..., Guarded]) -> None:
    request = association_request()
    with serve(Limits(pdu_seconds=10)).connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (request[:3], request[3:6], request[6:40], request[40:]):
            connection.sendall(piece)
            time.sleep(0.05)
        assert connection.recv(4096)[0] == 0x02, "A-ASSOCIATE-AC"


def test_slots_are_free_again_after_an_attack(serve: Callable[..., Guarded]) -> None:
    guarded = serve(maximum_associations=2)
    with contextlib.ExitStack() as stack:
        attackers = [stack.enter_context(guarded.connect()) for _ in range(6)]
        for attacker in attackers:
            attacker.sendall(pdu_header(0x01, 200))
        assert all(is_closed_by_peer(attacker) for attacker in attackers)
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not (assoc := guarded.associate()).is_established:
        assert time.monotonic() < give_up_at, "the attackers' associations still count"
        time.sleep(0.05)
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()


def test_an_association_may_be_idle_longer_than_a_pdu_may_take(serve: Callable[..., Guarded]) -> None:
    assoc = serve(Limits(pdu_seconds=0.2)).associate()
    assert assoc.send_c_echo().Status == 0x0000
    time.sleep(0.8)
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()


@pytest.mark.parametrize("max_pdu", [4096, 65536, 0])
def test_a_transfer_arrives_unchanged(serve: Callable[..., Guarded], max_pdu: int) -> None:
    guarded = serve(Limits())
    ds = mammogram()
    assoc = guarded.associate(max_pdu)
    assert [assoc.send_c_store(ds).Status for _ in range(3)] == [0x0000] * 3
    assoc.release()
    assert len(guarded.received) == 3
    assert all(received == ds.PixelData for received in guarded.received)


def test_a_message_without_end_is_closed_and_short_ones_never_add_up(serve: Callable[..., Guarded]) -> None:
    ds = mammogram()
    encoded = io.BytesIO()
    dcmwrite(encoded, ds)
    guarded = serve(Limits(message_bytes=encoded.tell() + 1000))
    assoc = guarded.associate()
    assert [assoc.send_c_store(ds).Status for _ in range(4)] == [0x0000] * 4
    ds.PixelData = ds.PixelData * 3
    assert "Status" not in assoc.send_c_store(ds)
    assert len(guarded.received) == 4


def associated(guarded: Guarded) -> socket.socket:
    connection = guarded.connect()
    connection.sendall(association_request())
    assert connection.recv(4096)[0] == 0x02  # A-ASSOCIATE-AC
    return connection


def flood(connection: socket.socket, *parts: bytes, rounds: int) -> bool:
    """Whether the peer closes the connection while `parts` are sent again and again."""
    with contextlib.suppress(OSError):
        for _ in range(rounds):
            for part in parts:
                connection.sendall(part)
    return is_closed_by_peer(connection)


ECHO_WITH_DATA = b"\x00\x00\x00\x01\x02\x00\x00\x00\x30\x00" + b"\x00\x00\x00\x08\x02\x00\x00\x00\x01\x00"


def test_a_command_without_end_is_closed(serve: Callable[..., Guarded]) -> None:
    with associated(serve(Limits())) as connection:
        assert flood(connection, p_data((COMMAND, b"\x00" * 10_000)), rounds=20)


def test_an_empty_command_inside_a_data_set_does_not_start_the_count_anew(serve: Callable[..., Guarded]) -> None:
    with associated(serve(Limits(message_bytes=100_000))) as connection:
        connection.sendall(p_data((LAST_COMMAND, C_STORE_RQ)))
        assert flood(connection, p_data((DATA, b"\x00" * 50_000)), p_data((COMMAND, b"")), rounds=20)


def test_a_data_set_that_would_stay_in_memory_is_closed(serve: Callable[..., Guarded]) -> None:
    with associated(serve(Limits())) as connection:
        connection.sendall(p_data((LAST_COMMAND, ECHO_WITH_DATA)))
        assert flood(connection, p_data((DATA, b"\x00" * 30_000)), rounds=20)


def test_a_full_disk_ends_a_transfer(serve: Callable[..., Guarded]) -> None:
    with associated(serve(Limits(room=lambda: False))) as connection:
        connection.sendall(p_data((LAST_COMMAND, C_STORE_RQ)))
        assert flood(connection, p_data((DATA, b"\x00" * 60_000)), rounds=2 * SPACE_EVERY_BYTES // 60_000)
