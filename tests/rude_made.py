"""Peers without manners, each from an address of its own on loopback. None of them sends a whole image."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from threading import Event

from pdus_made import A_ABORT, DATA, LAST_COMMAND, association_request, c_store_request, p_data

MG = "1.2.840.10008.5.1.4.1.1.1.2"
RELEASE = struct.pack(">BxLL", 0x05, 4, 0)
RELEASE_ANSWER = struct.pack(">BxLL", 0x06, 4, 0)
TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
#: A receiver that holds a silent connection for longer is not waited for.
PATIENCE_SECONDS = 20.0

#: What a sender says from the first byte on, PDU by PDU.
_STORY = (
    association_request(MG, called="FOURVIEW"),
    p_data((LAST_COMMAND, c_store_request(MG, "1.2.826.0.1.3680043.2.1143.9.1"))),
    p_data((DATA, bytes(8000))),
    p_data((DATA, bytes(8000))),
)
_BORDERS = [sum(map(len, _STORY[:count])) for count in range(len(_STORY) + 1)]
_WHOLE = b"".join(_STORY)


def connect(port: int, address: str) -> socket.socket:
    """A connection from that address."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS, source_address=(address, 0))


def _reset(connection: socket.socket) -> None:
    """Close it with a RST, as a host that crashed answers."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _hear_out(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(4096):
            pass


def _leave(connection: socket.socket, chance: random.Random, stopped: Event) -> None:
    end = chance.choice(("abort", "abort and wait", "reset", "close", "silent"))
    if end.startswith("abort"):
        connection.sendall(A_ABORT)
    if end == "reset":
        _reset(connection)
    if end == "abort and wait":
        _hear_out(connection)
    if end == "silent":
        stopped.wait(chance.random() * 3)


def ends_at_a_border(connection: socket.socket, chance: random.Random, stopped: Event) -> None:
    """After some whole PDUs: abort, reset, close, or silence."""
    connection.sendall(_WHOLE[: chance.choice(_BORDERS)])
    _leave(connection, chance, stopped)


def ends_within_a_pdu(connection: socket.socket, chance: random.Random, stopped: Event) -> None:
    """In the middle of one."""
    connection.sendall(_WHOLE[: chance.randrange(1, len(_WHOLE))])
    _leave(connection, chance, stopped)


def drips(connection: socket.socket, chance: random.Random, stopped: Event) -> None:
    """A byte now and then."""
    for byte in _WHOLE[: chance.randrange(5, 40)]:
        connection.sendall(bytes([byte]))
        if stopped.wait(0.1):
            return


def collides(connection: socket.socket, chance: random.Random, stopped: Event) -> None:
    """Releases in an order that nobody expects (PS3.8 9.2: release collision)."""
    connection.sendall(_STORY[0])
    connection.recv(4096)
    connection.sendall(b"".join(chance.sample((RELEASE, RELEASE, RELEASE_ANSWER, _STORY[0], A_ABORT, _STORY[2]), 3)))
    _hear_out(connection)


def is_silent(connection: socket.socket, chance: random.Random, stopped: Event) -> None:
    """Connects and says nothing."""
    stopped.wait(1 + chance.random() * 10)


def probes(connection: socket.socket, chance: random.Random, stopped: Event) -> None:
    """A port scanner or a load balancer."""
    said = chance.choice((b"", b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", TLS_HELLO, b"\xff" * 64, b"\r\n"))
    connection.sendall(said)
    if not said and chance.random() < 0.5:
        _reset(connection)
    if said:
        _hear_out(connection)


KINDS: Mapping[str, Callable[[socket.socket, random.Random, Event], None]] = {
    "ends at a border": ends_at_a_border,
    "ends within a PDU": ends_within_a_pdu,
    "drips": drips,
    "release collision": collides,
    "silent": is_silent,
    "probe": probes,
}


def be_rude(port: int, seed: int, stopped: Event, counts: Counter[str], *, pause_seconds: float = 0.05) -> None:
    """One rude peer after the other until `stopped`, from one address; what they did is added to `counts`."""
    chance = random.Random(seed)
    address = f"127.0.0.{2 + seed % 200}"
    kind = list(KINDS)[seed % len(KINDS)]
    while not stopped.is_set():
        counts[kind] += 1
        try:
            with connect(port, address) as connection:
                KINDS[kind](connection, chance, stopped)
        except OSError:
            counts["thrown out"] += 1
        time.sleep(pause_seconds)
        kind = chance.choice(list(KINDS))
