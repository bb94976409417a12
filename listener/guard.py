"""Deadlines and length caps for incoming PDUs (PS3.8 9.3), and the short way of a data set to its file: the only place that touches
pynetdicom's inside.

pynetdicom 3.0 reads a PDU without any timeout and believes whatever length its header claims, so two bytes hold a connection (and
one of the counted associations) for ever, and a length of 4 GiB is read into memory before anybody has introduced himself. `guard`
replaces the method that reads from one connection. It relies on four things, which tests/test_guard.py pins since no documentation
promises them: the connection is `assoc.dul.socket.socket`; a PDU is read as `recv(6)`, then `recv(length)`; an answer that is too
short means "connection closed". A message goes to `assoc.dimse.receive_primitive`.

`DataSetFile` is what a data set streams into. pynetdicom's own is written in the thread that serves the association, which a full disk
would end: no answer, and no abort either. It stands in the place of `NamedTemporaryFile` in `pynetdicom.dimse_messages`.

Through pynetdicom a fragment is copied six times and passes three queues. Once the command of a C-STORE has made such a file
(`assoc.dimse.message`), the reader takes the PDUs that hold nothing but fragments of this data set itself: they are hashed and written
from the one buffer into which they were received, and pynetdicom is given an empty fragment in their place, the last one for the last.
Every other PDU goes to pynetdicom as it came: commands, aborts, and whatever is malformed.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import secrets
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pynetdicom import dimse_messages, evt

from listener.reactors import let_go, let_wait

LOG = logging.getLogger(__name__)

HEADER_BYTES = 6
P_DATA_TF = 0x04
PDU_TYPES = frozenset(range(0x01, 0x08))
#: Bits of the message control header (PS3.8 E.2).
IS_COMMAND = 0x01
IS_LAST = 0x02
#: Command Field (0000,0100) of a C-STORE-RQ, as it is encoded (PS3.7 9.3.1.1, implicit little endian). Only its data set goes to disk.
C_STORE_RQ = b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x00"
#: A command set, or a data set that pynetdicom keeps in memory, is never larger in earnest.
IN_MEMORY_BYTES = 64 * 1024
#: How often the disk is looked at while a data set streams in.
SPACE_EVERY_BYTES = 16 * 1024**2
#: How often the disk is asked to begin with what has come.
WRITE_OUT_BYTES = 4 * 1024**2
#: So long pynetdicom waits at most for its turn, beyond the PDU under way, while a data set streams past it: it may have something to send.
TURN_SECONDS = 0.25
#: So long one call of the operating system waits for bytes; then the deadline is looked at, or pynetdicom gets its turn.
WAIT_SECONDS = 0.1
#: PS3.8 9.3.5: type and length of a P-DATA-TF with one item; then that item's length, its context id, the message control header.
_EMPTY_PDU = struct.Struct(">BxLLBB")


#: Who speaks something else, by its first bytes: RFC 8446 5.1 (a handshake), RFC 9112 3 (load balancers and scanners ask so).
_STRANGERS = {
    b"\x16\x03": "it speaks TLS, and we do not here: set [dicom] tls_certificate, or switch TLS off there",
    **dict.fromkeys((b"GET ", b"HEAD ", b"POST ", b"OPTION"), "it speaks HTTP, and this is a DICOM port"),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one connection may do."""

    pdu_seconds: float = 30.0  # from the first byte of a PDU to its last
    pdu_bytes: int = 256 * 1024  # we announce half of it (PS3.8 D.1)
    message_bytes: int = 2 * 1024**3 + 64 * 1024**2  # the data set of one message; more would fill the volume before anybody is asked
    room: Callable[[], bool] = lambda: True  # whether the volume can take more; asked while a data set streams in


_LIBC = ctypes.CDLL(None)
_SYNC_FILE_RANGE_WRITE = 2  # sync_file_range(2)


def write_out(descriptor: int, start: int, size_bytes: int) -> None:
    """Have the disk begin with these bytes of a file, so that the sync at its end waits for less. A wish: only the sync counts."""
    if hasattr(_LIBC, "sync_file_range"):
        _LIBC.sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(size_bytes), _SYNC_FILE_RANGE_WRITE)


class Hashed(NamedTuple):
    """What was hashed of a file while it was written: all from `start` (bytes) to its end; SHA-256 as hexadecimal digits."""

    start: int
    sha256: str


class DataSetFile:
    """A new file in `folder`. When the disk fails, the rest is dropped and `fault` remembers it: the message is still answered."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder / f"{secrets.token_hex(16)}.dcm")
        self.fault: OSError | None = None
        self._file: BinaryIO | None = None
        self._size = 0
        self._written_out = 0
        self._hash = hashlib.sha256()
        self._hashed_from: int | None = None
        try:
            self._file = Path(self.name).open("xb", buffering=0)  # noqa: SIM115 - pynetdicom closes it after the answer is known
        except OSError as error:
            self.fault = error

    @property
    def file(self) -> DataSetFile:
        """pynetdicom flushes the file behind its temporary file."""
        return self

    @property
    def hashed(self) -> Hashed | None:
        """None unless all from some place on came by `append`."""
        return None if self._hashed_from is None else Hashed(self._hashed_from, self._hash.hexdigest())

    def write(self, data: bytes) -> int:
        """pynetdicom's writing: the file meta information, and fragments that came in one PDU with other things. Never raises."""
        if data and self._hashed_from is not None:
            self._hashed_from, self._hash = None, hashlib.sha256()
        self._write(data)
        return len(data)

    def append(self, fragment: memoryview) -> None:
        """The next bytes of the data set, which are hashed as well; never raises."""
        if self._hashed_from is None:
            self._hashed_from = self._size
        self._hash.update(fragment)
        self._write(fragment)

    def _write(self, data: bytes | memoryview) -> None:
        self._size += len(data)
        if self._file is not None and self.fault is None:
            try:
                view = memoryview(data)
                while view:
                    view = view[self._file.write(view) :]
            except OSError as error:
                self.fault = error
            if self._size - self._written_out >= WRITE_OUT_BYTES:
                write_out(self._file.fileno(), self._written_out, self._size - self._written_out)
                self._written_out = self._size

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Once the message is answered or given up; never raises."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def stream_into(folder: Path) -> None:
    """Have every data set that this process receives stream into a file of `folder`."""
    tempfile.tempdir = str(folder)
    dimse_messages.NamedTemporaryFile = _new_data_set_file  # type: ignore[assignment, attr-defined]


def _new_data_set_file(**_: Any) -> DataSetFile:
    return DataSetFile(Path(tempfile.gettempdir()))


def guard(event: Any, limits: Limits) -> None:
    """Bind to `evt.EVT_CONN_OPEN`: from then on every PDU of this connection is read within `limits`, or the connection is closed.

    A connection between two PDUs is left alone: that is the business of `AE.network_timeout` and `AE.acse_timeout`.
    """
    let_wait(event.assoc)
    connection = event.assoc.dul.socket.socket
    reader = _PduReader(event.assoc, connection, limits, peer=str(event.address[0]))
    event.assoc.dul.socket.recv = reader.recv
    event.assoc.dimse.receive_primitive = partial(_receive, reader, event.assoc.dimse.receive_primitive)
    machine = event.assoc.dul.state_machine
    machine.do_action = partial(_act, reader, event.assoc, machine.do_action)
    event.assoc.bind(evt.EVT_CONN_CLOSE, _handle_close, [connection])


def _act(reader: _PduReader, assoc: Any, act: Callable[[str], None], event: str) -> None:
    """In place of `assoc.dul.state_machine.do_action`: a sender that aborts while it is answered makes an event that PS3.8 9.2 does not
    know in that state, and what is raised then would end the thread, and leave the connection open."""
    try:
        act(event)
    except Exception as error:  # noqa: BLE001 - whatever comes of what the peer has done
        reader.close(f"an event out of order ({type(error).__name__} {event} in {assoc.dul.state_machine.current_state})")
        evt.trigger(assoc, evt.EVT_CONN_CLOSE, {"address": assoc.requestor.address_info.as_tuple})
        assoc.dul.kill_dul()


def _handle_close(event: Any, connection: socket.socket) -> None:
    """evt.EVT_CONN_CLOSE: pynetdicom leaves a socket that the peer has reset to the garbage collector, and a thread waiting for a request
    that will not come until `AE.acse_timeout`."""
    with contextlib.suppress(OSError):
        connection.close()
    let_go(event.assoc)
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(None)  # what it gets when that time is over


def _receive(reader: _PduReader, receive: Callable[[Any], None], primitive: Any) -> None:
    """In place of `assoc.dimse.receive_primitive`: what it raises would end the thread, and leave the connection and its file open."""
    try:
        receive(primitive)
    except Exception as error:  # noqa: BLE001 - whatever comes of what the peer has sent; pynetdicom takes it as it comes
        reader.close(f"a message that cannot be read ({type(error).__name__})")


class _PduReader:
    """Reads header and body of PDUs alternately, as pynetdicom asks for them; all in the one thread of its upper layer."""

    def __init__(self, assoc: Any, connection: socket.socket, limits: Limits, *, peer: str) -> None:
        self._assoc = assoc
        self._connection = connection
        self._limits = limits
        self._peer = peer
        self._body_type: int | None = None  # None: the next bytes are a header
        self._body: bytearray | None = None  # that belongs to the header which was just given; None: it is still to be read
        self._is_closed = False  # by us
        self._buffer = bytearray()  # for bodies that pynetdicom does not see
        self._deadline = 0.0
        self._command = bytearray()
        self._command_done = False
        self._data_bytes = 0
        self._looked_at = 0  # data bytes of this message when the disk was last looked at
        self._flags = _set_timeouts(connection, limits.pdu_seconds)

    def recv(self, size: int) -> bytearray:
        """The next `size` bytes, or fewer when the connection is or has just been closed."""
        if self._is_closed:
            return bytearray()  # what had come before is still there to be read
        if self._flags:
            return self._recv(size)
        with contextlib.suppress(OSError):  # closed by another thread
            self._connection.settimeout(WAIT_SECONDS)
        received = self._recv(size)
        with contextlib.suppress(OSError):
            self._connection.settimeout(self._limits.pdu_seconds)
        return received

    def _recv(self, size: int) -> bytearray:
        if self._body_type is None:
            return self._header(size)
        pdu_type, self._body_type = self._body_type, None
        body, self._body = self._read(size) if self._body is None else self._body, None
        return self._check_message(body) if pdu_type == P_DATA_TF else body

    def _header(self, size: int) -> bytearray:
        self._deadline = time.monotonic() + self._limits.pdu_seconds
        header = self._read(size)
        streaming = self._streaming()
        return self._check_header(header) if streaming is None else self._stream(header, streaming)

    def _check_header(self, header: bytearray) -> bytearray:
        if len(header) < HEADER_BYTES:
            return header
        pdu_type, length = struct.unpack(">BxL", header)
        if pdu_type not in PDU_TYPES:
            stranger = next((words for first, words in _STRANGERS.items() if header.startswith(first)), "")
            # What is no PDU otherwise pynetdicom answers with A-ABORT, and reads no body.
            return self.close(stranger) if stranger else header
        if length > self._limits.pdu_bytes:
            return self.close(f"a PDU of {length} bytes, more than {self._limits.pdu_bytes}")
        self._body_type = pdu_type
        return header

    def _streaming(self) -> DataSetFile | None:
        """The file into which the data set under way goes; None when there is none, or when the association has ended for pynetdicom."""
        file = getattr(self._assoc.dimse.message, "_data_set_file", None)
        return file if isinstance(file, DataSetFile) and self._assoc.dul.state_machine.current_state == "Sta6" else None

    def _stream(self, header: bytearray, file: DataSetFile) -> bytearray:
        """Take PDUs, the first is that of `header`, until the data set ends, something else or nothing comes, or it is pynetdicom's turn.

        Returns the header of what pynetdicom is to see, whose body then lies ready or is still to be read.
        """
        turn_at = time.monotonic() + TURN_SECONDS
        while True:
            header = self._check_header(header)
            if self._body_type != P_DATA_TF:
                return header
            length = int.from_bytes(header[2:], "big")
            if len(self._buffer) < length:
                self._buffer = bytearray(length)
            body = memoryview(self._buffer)[:length]
            fragments = _fragments(body) if (done := self._read_into(body)) == length else []
            if not fragments:
                self._body = bytearray(body[:done])
                return header
            for fragment in fragments:
                if complaint := self._count(len(fragment.data)):
                    return self.close(complaint)
                file.append(fragment.data)
            now = time.monotonic()
            self._deadline = now + self._limits.pdu_seconds
            header = bytearray(HEADER_BYTES)
            # A header of which nothing is there yet, or never will be, is read when pynetdicom asks for it: its clock of silence runs.
            if fragment.is_last or now >= turn_at or not (done := self._read_into(memoryview(header), waits=False)):
                return self._give_empty(fragment)
            header = header[:done]

    def _give_empty(self, fragment: _Fragment) -> bytearray:
        pdu = _EMPTY_PDU.pack(P_DATA_TF, 6, 2, fragment.context_id, fragment.control)
        self._body_type, self._body = P_DATA_TF, bytearray(pdu[HEADER_BYTES:])
        return bytearray(pdu[:HEADER_BYTES])

    def _check_message(self, body: bytearray) -> bytearray:
        position = 0
        while position + HEADER_BYTES <= len(body):  # PS3.8 9.3.5.1: item length (4), context id (1), then the message control header
            length = int.from_bytes(body[position : position + 4], "big")
            control, fragment = body[position + 5], body[position + 6 : position + 4 + length]
            complaint = self._command_fragment(control, fragment) if control & IS_COMMAND else self._data_fragment(control, len(fragment))
            if complaint:
                return self.close(complaint)
            position += 4 + length
        return body

    def _command_fragment(self, control: int, fragment: bytearray) -> str:
        if self._data_bytes:
            return "a command in the middle of a data set"
        if self._command_done:  # of a message without a data set
            self._command, self._command_done = bytearray(), False
        self._command += fragment
        self._command_done = bool(control & IS_LAST)
        return f"a command of more than {IN_MEMORY_BYTES} bytes" if len(self._command) > IN_MEMORY_BYTES else ""

    def _data_fragment(self, control: int, length: int) -> str:
        complaint = self._count(length)
        if control & IS_LAST:
            self._command, self._command_done, self._data_bytes, self._looked_at = bytearray(), False, 0, 0
        return complaint

    def _count(self, length: int) -> str:
        self._data_bytes += length
        limit = self._limits.message_bytes if C_STORE_RQ in self._command else IN_MEMORY_BYTES
        if self._data_bytes > limit:
            return f"a data set of more than {limit} bytes"
        if self._data_bytes - self._looked_at >= SPACE_EVERY_BYTES:
            self._looked_at = self._data_bytes
            if not self._limits.room():
                return "the disk is nearly full"
        return ""

    def _read(self, size: int) -> bytearray:
        buffer = bytearray(size)
        del buffer[self._read_into(memoryview(buffer)) :]
        return buffer

    def _read_into(self, view: memoryview, *, waits: bool = True) -> int:
        """Fill `view`; how much of it was filled: less when the connection is or has just been closed.

        `waits=False`: 0 when not even a first byte comes within WAIT_SECONDS.
        """
        done = 0
        while done < len(view):
            try:
                count = self._connection.recv_into(view[done:], 0, self._flags)
            except (BlockingIOError, TimeoutError):
                if not waits and not done:
                    return 0
            except OSError:
                return done  # reset by the peer
            else:
                if count == 0:
                    return done
                done += count
            if done < len(view) and time.monotonic() >= self._deadline:
                self.close(f"a PDU not complete after {self._limits.pdu_seconds:g} s")
                return done
        return done

    def close(self, reason: str) -> bytearray:
        """Read nothing more, and say why."""
        LOG.warning("connection closed peer=%s reason=%r", self._peer, reason, extra={"peer": self._peer})
        self._is_closed = True
        self._body_type = self._body = None
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        return bytearray()


class _Fragment(NamedTuple):
    """An item of a P-DATA-TF that holds bytes of a data set."""

    context_id: int
    control: int
    data: memoryview

    @property
    def is_last(self) -> bool:
        """Whether the data set ends with it."""
        return bool(self.control & IS_LAST)


def _fragments(body: memoryview) -> list[_Fragment]:
    """The items of a P-DATA-TF (PS3.8 9.3.5.1) that is nothing but fragments of one data set; otherwise, and when malformed, none."""
    found: list[_Fragment] = []
    position = 0
    while position < len(body):
        end = position + 4 + int.from_bytes(body[position : position + 4], "big")
        if not position + HEADER_BYTES <= end <= len(body) or (found and found[-1].is_last):
            return []
        fragment = _Fragment(body[position + 4], body[position + 5], body[position + HEADER_BYTES : end])
        if fragment.control & IS_COMMAND:
            return []
        found.append(fragment)
        position = end
    return found


def _set_timeouts(connection: socket.socket, send_seconds: float) -> int:
    """How long reading waits for bytes, and sending for a peer that does not read (it would hold the thread); flags for reading.

    A socket of the operating system keeps both by itself, and then one call reads as much as it was asked for. With TLS there are no flags,
    and one time for both, which reading changes for as long as it lasts.
    """
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(send_seconds)
        return 0
    connection.setblocking(True)
    for option, seconds in ((socket.SO_RCVTIMEO, WAIT_SECONDS), (socket.SO_SNDTIMEO, send_seconds)):
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000)))
    return socket.MSG_WAITALL
