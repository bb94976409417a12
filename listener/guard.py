"""Deadlines and length caps for incoming PDUs (PS3.8 9.3): the only place that touches pynetdicom's inside.

pynetdicom 3.0 reads a PDU without any timeout and believes whatever length its header claims, so two bytes hold a connection (and
one of the counted associations) for ever, and a length of 4 GiB is read into memory before anybody has introduced himself. `guard`
replaces the method that reads from one connection. It relies on three things, which tests/test_guard.py pins since no documentation
promises them: the connection is `assoc.dul.socket.socket`; a PDU is read as `recv(6)`, then `recv(length)`; an answer that is too
short means "connection closed".

`DataSetFile` is what a data set streams into. pynetdicom's own is written in the thread that serves the association, which a full disk
would end: no answer, and no abort either. It stands in the place of `NamedTemporaryFile` in `pynetdicom.dimse_messages`.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pynetdicom import dimse_messages

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


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one connection may do."""

    pdu_seconds: float = 30.0  # from the first byte of a PDU to its last
    pdu_bytes: int = 256 * 1024  # we announce half of it (PS3.8 D.1)
    message_bytes: int = 2 * 1024**3 + 64 * 1024**2  # the data set of one message; more would fill the volume before anybody is asked
    room: Callable[[], bool] = lambda: True  # whether the volume can take more; asked while a data set streams in


class DataSetFile:
    """A new file in `folder`. When the disk fails, the rest is dropped and `fault` remembers it: the message is still answered."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder / f"{secrets.token_hex(16)}.dcm")
        self.fault: OSError | None = None
        self._file: BinaryIO | None = None
        try:
            self._file = Path(self.name).open("xb", buffering=0)  # noqa: SIM115 - pynetdicom closes it after the answer is known
        except OSError as error:
            self.fault = error

    @property
    def file(self) -> DataSetFile:
        """pynetdicom flushes the file behind its temporary file."""
        return self

    def write(self, data: bytes) -> int:
        """Append; never raises."""
        if self._file is not None and self.fault is None:
            try:
                view = memoryview(data)
                while view:
                    view = view[self._file.write(view) :]
            except OSError as error:
                self.fault = error
        return len(data)

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
    reader = _PduReader(event.assoc.dul.socket.socket, limits, peer=str(event.address[0]))
    event.assoc.dul.socket.recv = reader.recv


class _PduReader:
    """Reads header and body of PDUs alternately, as pynetdicom asks for them.

    Whole bodies are read with `recv_into`, not in pieces of 4,096 bytes: that costs several senders on one process a quarter less.
    """

    def __init__(self, connection: socket.socket, limits: Limits, *, peer: str) -> None:
        self._connection = connection
        self._limits = limits
        self._peer = peer
        self._body_type: int | None = None  # None: the next bytes are a header
        self._deadline = 0.0
        self._command = bytearray()
        self._command_done = False
        self._data_bytes = 0
        self._looked_at = 0  # data bytes of this message when the disk was last looked at

    def recv(self, size: int) -> bytearray:
        """The next `size` bytes, or fewer when the connection is or has just been closed."""
        if self._body_type is None:
            self._deadline = time.monotonic() + self._limits.pdu_seconds
            header = self._read(size)
            return self._check_header(header)
        pdu_type, self._body_type = self._body_type, None
        body = self._read(size)
        # The time for sending an answer: without one a peer that never reads would hold the thread.
        with contextlib.suppress(OSError):
            self._connection.settimeout(self._limits.pdu_seconds)
        return self._check_message(body) if pdu_type == P_DATA_TF else body

    def _check_header(self, header: bytearray) -> bytearray:
        if len(header) < HEADER_BYTES:
            return header
        pdu_type, length = struct.unpack(">BxL", header)
        if pdu_type not in PDU_TYPES:
            return header  # pynetdicom answers with A-ABORT and reads no body
        if length > self._limits.pdu_bytes:
            return self._close(f"a PDU of {length} bytes, more than {self._limits.pdu_bytes}")
        self._body_type = pdu_type
        return header

    def _check_message(self, body: bytearray) -> bytearray:
        position = 0
        while position + HEADER_BYTES <= len(body):  # PS3.8 9.3.5.1: item length (4), context id (1), then the message control header
            length = int.from_bytes(body[position : position + 4], "big")
            control, fragment = body[position + 5], body[position + 6 : position + 4 + length]
            complaint = self._command_fragment(control, fragment) if control & IS_COMMAND else self._data_fragment(control, len(fragment))
            if complaint:
                return self._close(complaint)
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
        self._data_bytes += length
        limit = self._limits.message_bytes if C_STORE_RQ in self._command else IN_MEMORY_BYTES
        if self._data_bytes > limit:
            return f"a data set of more than {limit} bytes"
        if self._data_bytes - self._looked_at >= SPACE_EVERY_BYTES:
            self._looked_at = self._data_bytes
            if not self._limits.room():
                return "the disk is nearly full"
        if control & IS_LAST:
            self._command, self._command_done, self._data_bytes, self._looked_at = bytearray(), False, 0, 0
        return ""

    def _read(self, size: int) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        done = 0
        while done < size:
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                return self._close(f"a PDU not complete after {self._limits.pdu_seconds:g} s")
            try:
                self._connection.settimeout(remaining)
                count = self._connection.recv_into(view[done:])
            except TimeoutError:
                continue
            except OSError:
                count = 0  # reset by the peer
            if count == 0:
                return bytearray(view[:done])
            done += count
        return buffer

    def _close(self, reason: str) -> bytearray:
        LOG.warning("connection closed peer=%s reason=%r", self._peer, reason)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        return bytearray()
