"""PDUs made by hand (PS3.8 9.3), for what no library would send."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Sequence

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

#: Message control headers (PS3.8 E.2).
DATA, COMMAND, LAST_DATA, LAST_COMMAND = 0x00, 0x01, 0x02, 0x03
A_ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"


def pdu_header(pdu_type: int, length: int) -> bytes:
    return struct.pack(">BxL", pdu_type, length)


def association_request(abstract_syntax: str = Verification, *, called: str = "GUARDED") -> bytes:
    """A-ASSOCIATE-RQ with one context, whose id is 1."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "SENDER", called
    context = build_context(abstract_syntax) if abstract_syntax == Verification else build_context(abstract_syntax, ExplicitVRLittleEndian)
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3.4"
    request.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    return bytes(pdu.encode())


def p_data(*items: tuple[int, bytes]) -> bytes:
    """A P-DATA-TF (PS3.8 9.3.5) with these items: message control header and fragment of each."""
    encoded = b"".join(struct.pack(">LBB", len(fragment) + 2, 1, control) + fragment for control, fragment in items)
    return pdu_header(0x04, len(encoded)) + encoded


def c_store_request(sop_class_uid: str, sop_instance_uid: str, message_id: int = 1) -> bytes:
    """The command set of a C-STORE-RQ (PS3.7 9.3.1.1), implicit little endian."""
    elements = _element(0x0002, _uid(sop_class_uid)) + _element(0x0100, b"\x01\x00") + _element(0x0110, struct.pack("<H", message_id))
    elements += _element(0x0700, b"\x00\x00") + _element(0x0800, b"\x00\x00") + _element(0x1000, _uid(sop_instance_uid))
    return _element(0x0000, struct.pack("<L", len(elements))) + elements


def c_echo() -> bytes:
    """A P-DATA-TF with a C-ECHO-RQ (PS3.7 9.3.5), implicit little endian."""
    elements = _element(0x0002, _uid(Verification)) + _element(0x0100, b"\x30\x00") + _element(0x0110, b"\x01\x00")
    elements += _element(0x0800, b"\x01\x01")
    return p_data((LAST_COMMAND, _element(0x0000, struct.pack("<L", len(elements))) + elements))


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def _uid(value: str) -> bytes:
    return value.encode() + b"\0" * (len(value) % 2)


def read_pdu(connection: socket.socket) -> bytes:
    """The next PDU; ConnectionError when the peer has closed."""
    header = _exactly(connection, 6)
    return header + _exactly(connection, int.from_bytes(header[2:], "big"))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("closed")
        data += more
    return data


def status_of(pdu: bytes) -> int:
    """Status (0000,0900) of a response in one P-DATA-TF."""
    name = b"\x00\x00\x00\x09\x02\x00\x00\x00"
    return int.from_bytes(pdu[pdu.index(name) + len(name) :][:2], "little")


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`data` cut at these places, of which each may come more than once: then pieces are empty."""
    places = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(places)]
