"""Deadlines and length caps for incoming PDUs (PS3.8 9.3): the only place that touches pynetdicom's inside.

pynetdicom 3.0 reads a PDU without any timeout and believes whatever length its header claims, so two bytes hold a connection (and
one of the counted associations) for ever, and a length of 4 GiB is read into memory before anybody has introduced himself. `guard`
replaces the method that reads from one connection. It relies on three things, which tests/test_guard.py pins since no documentation
promises them: the connection is `assoc.dul.socket.socket`; a PDU is read as `recv(6)`, then `recv(length)`; an answer that is too
short means "connection closed".
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

LOG = logging.getLogger(__name__)

HEADER_BYTES = 6
P_DATA_TF = 0x04
PDU_TYPES = frozenset(range(0x01, 0x08))
#: A message control header (PS3.8 E.2) with this bit belongs to a command, so a new message begins.
IS_COMMAND = 0x01


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one connection may do."""

    pdu_seconds: float = 30.0  # from the first byte of a PDU to its last
    pdu_bytes: int = 256 * 1024  # we announce half of it (PS3.8 D.1)
    message_bytes: int = 2 * 1024**3 + 64 * 1024**2  # the data set of one message; more would fill the volume before anybody is asked


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
        self._message_bytes = 0

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
            self._message_bytes = 0 if body[position + 5] & IS_COMMAND else self._message_bytes + length
            position += 4 + length
        if self._message_bytes > self._limits.message_bytes:
            return self._close(f"a data set of more than {self._limits.message_bytes} bytes")
        return body

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
