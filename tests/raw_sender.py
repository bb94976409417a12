"""A C-STORE SCU that sends whatever it is told, byte for byte (PS3.8 9.3, PS3.7 9.3.1): libraries refuse to write such things."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

#: Of one PDU; what we announce is twice as much.
FRAGMENT_BYTES = 60_000
PATIENCE_SECONDS = 60


class Closed(Exception):
    """The peer has closed the connection, or aborted the association."""


class RawSender:
    """An association with one presentation context for each (SOP class, transfer syntax)."""

    def __init__(self, port: int, wanted: Iterable[tuple[str, str]], *, calling: str = "GANTRY", called: str = "FOURVIEW") -> None:
        self._numbers = {pair: number for number, pair in enumerate(dict.fromkeys(wanted))}
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._connection.sendall(self._request(calling, called))
        kind, body = self._pdu()
        if kind != 0x02:
            raise Closed(f"the association was answered with a PDU of type {kind}")
        accepted = A_ASSOCIATE_AC()
        accepted.decode(struct.pack(">BxL", kind, len(body)) + body)
        results = accepted.to_primitive().presentation_context_definition_results_list
        self._accepted = {one.context_id for one in results if one.result == 0}
        self._message = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._connection:
            if error is None:
                self._connection.sendall(struct.pack(">BxLL", 0x05, 4, 0))
                assert self._pdu()[0] == 0x06, "A-RELEASE-RP"

    def accepts(self, sop_class: str, syntax: str) -> bool:
        """Whether this presentation context was accepted."""
        return self._context(sop_class, syntax) in self._accepted

    def store(self, data_set: bytes, *, sop_class: str, sop_instance: bytes, context: tuple[str, str]) -> tuple[int, str]:
        """The status of the answer and its Error Comment. Raises Closed."""
        self._message += 1
        number = self._context(*context)
        elements = (
            (0x0002, _padded(sop_class.encode())),
            (0x0100, b"\x01\x00"),  # C-STORE-RQ
            (0x0110, struct.pack("<H", self._message)),
            (0x0700, b"\x00\x00"),
            (0x0800, b"\x01\x00"),  # a data set follows
            (0x1000, _padded(sop_instance)),
        )
        command = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in elements)
        command = struct.pack("<HHII", 0, 0, 4, len(command)) + command
        self._send(number, 0x01, command)
        self._send(number, 0x00, data_set)
        kind, body = self._pdu()
        if kind != 0x04:
            raise Closed(f"a C-STORE was answered with a PDU of type {kind}")
        answer = _elements(body[6:])
        return struct.unpack("<H", answer[0x0900])[0], answer.get(0x0902, b"").decode("ascii").strip()

    def _context(self, sop_class: str, syntax: str) -> int:
        return 2 * self._numbers[sop_class, syntax] + 1

    def _send(self, context: int, control: int, message: bytes) -> None:
        pieces = [message[place : place + FRAGMENT_BYTES] for place in range(0, len(message), FRAGMENT_BYTES)] or [b""]
        for number, piece in enumerate(pieces):
            item = struct.pack(">LBB", len(piece) + 2, context, control | (0x02 if number == len(pieces) - 1 else 0)) + piece
            self._connection.sendall(struct.pack(">BxL", 0x04, len(item)) + item)

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._read(6))
        return kind, self._read(length)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                piece = self._connection.recv(size - len(data))
            except ConnectionError:
                piece = b""
            if not piece:
                raise Closed("the connection was closed")
            data += piece
        return data

    def _request(self, calling: str, called: str) -> bytes:
        request = A_ASSOCIATE()
        request.application_context_name = "1.2.840.10008.3.1.1.1"
        request.calling_ae_title, request.called_ae_title = calling, called
        contexts = []
        for sop_class, syntax in self._numbers:
            context = build_context(sop_class, syntax)
            context.context_id = self._context(sop_class, syntax)
            contexts.append(context)
        request.presentation_context_definition_list = contexts
        length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
        length.maximum_length_received = 2 * FRAGMENT_BYTES
        implementation.implementation_class_uid = "1.2.3.4"
        request.user_information = [length, implementation]
        pdu = A_ASSOCIATE_RQ()
        pdu.from_primitive(request)
        return bytes(pdu.encode())


def _padded(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def _elements(command: bytes) -> dict[int, bytes]:
    """The values of a command set, by the element number of group 0000."""
    found, place = {}, 0
    while place < len(command):
        _, element, length = struct.unpack_from("<HHI", command, place)
        found[element] = command[place + 8 : place + 8 + length]
        place += 8 + length
    return found
