"""A connection of HTTP/1.1 that comes to an end, whatever its client does (RFC 9112; uvicorn and h11 below).

uvicorn waits without end for the head of a request, for its body, and for a client that does not read its answer. Here each has its time: a
head, a body, which must keep a pace, and the taking of what is written.
"""

from __future__ import annotations

import asyncio
import logging

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)

#: So long a client may take for the head of a request, from the connection or the end of the answer before.
HEAD_SECONDS = 30.0
#: And for its body: so long, and a second more for every so many bytes that came. The slowest line of a branch sends faster.
BODY_SECONDS = 30.0
BODY_BYTES_PER_SECOND = 16 * 1024
#: So long a client may take nothing of its answer while more of it waits than the operating system holds.
TAKING_SECONDS = 60.0


class Connection(H11Protocol):
    """One client's."""

    _head_due: asyncio.TimerHandle | None = None
    _body_due: asyncio.TimerHandle | None = None
    _taking_due: asyncio.TimerHandle | None = None
    _body_began = 0.0
    _body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn narrows it
        """A client is there, its TLS spoken."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._body_bytes += len(data)
        super().data_received(data)

    def handle_events(self) -> None:
        """Bytes have come, or an answer is complete."""
        super().handle_events()
        self._watch()

    def pause_writing(self) -> None:
        """The client does not take what is written as fast as it is written."""
        super().pause_writing()
        if self._taking_due is None:
            self._taking_due = self.loop.call_later(TAKING_SECONDS, self._give_up, "takes nothing of its answer")

    def resume_writing(self) -> None:
        """It took it."""
        super().resume_writing()
        _unset(self._taking_due)
        self._taking_due = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        super().connection_lost(exc)
        for due in (self._head_due, self._body_due, self._taking_due):
            _unset(due)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            _unset(self._head_due)
            self._head_due = None
        elif self._head_due is None:
            self._head_due = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)
        # Also of a request that was answered before its body came.
        if self.conn.their_state is not h11.SEND_BODY:
            _unset(self._body_due)
            self._body_due = None
        elif self._body_due is None:
            self._begin_body()

    def _begin_body(self) -> None:
        self._body_began, self._body_bytes = self.loop.time(), 0
        self._body_due = self.loop.call_later(BODY_SECONDS, self._look_at_body)

    def _look_at_body(self) -> None:
        if self.flow.read_paused or self.conn.they_are_waiting_for_100_continue:
            self._begin_body()  # it is we who are slow
            return
        left = self._body_began + BODY_SECONDS + self._body_bytes / BODY_BYTES_PER_SECOND - self.loop.time()
        if left > 0:
            self._body_due = self.loop.call_later(left, self._look_at_body)
            return
        if not self.cycle.response_started:
            self._answer(408, b"Request Timeout")
        self._give_up("sends its body too slowly")

    def _answer(self, status: int, reason: bytes) -> None:
        headers = [("Content-Length", "0"), ("Connection", "close")]
        for event in (h11.Response(status_code=status, headers=headers, reason=reason), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")

    def _give_up(self, why: str) -> None:
        log.info('event=http_given_up address=%s why="%s"', self.client[0] if self.client else "?", why)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        # Not at once: what little was answered is on its way. Who takes nothing would keep it open, though.
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()


def _unset(due: asyncio.TimerHandle | None) -> None:
    if due is not None:
        due.cancel()
