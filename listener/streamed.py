"""A request's body on its way into the spool: in pieces as the network brings them, never whole in memory."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

from fastapi import HTTPException, Request

from listener.keys import Refused, Status
from store.files import RESERVE, Files

#: A client that sends nothing for so long is given up, as an association is.
SILENCE_SECONDS = 60.0
#: The volume is asked this often while a file streams in.
SPACE_EVERY_BYTES = 16 * 1024**2
_PREAMBLE_BYTES = 128
#: When to come back, for a client for which there is no place or no room.
RETRY = {"Retry-After": "30"}


def without_preamble(file: bytes) -> bytes:
    """A Part 10 file with zeros for its preamble, which another program might run (PS3.10 7.5); what has none stays as it is."""
    return bytes(_PREAMBLE_BYTES) + file[_PREAMBLE_BYTES:] if file[_PREAMBLE_BYTES:].startswith(b"DICM") else file


class Places:
    """So many requests stream in at once. Used by the event loop alone."""

    def __init__(self) -> None:
        self._taken = 0

    @contextlib.contextmanager
    def one_of(self, most: int) -> Iterator[None]:
        """A place for the time of the block; HTTPException 503 when all are taken. Nothing is awaited between look and taking."""
        if self._taken >= most:
            raise HTTPException(503, "too many are sending files at this moment; try again later", headers=RETRY)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


async def pieces_of(request: Request) -> AsyncIterator[bytes]:
    """The body as it arrives; HTTPException 408 when nothing comes for a while."""
    pieces = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HTTPException(408, f"nothing came for {SILENCE_SECONDS:g} seconds", headers={"Connection": "close"}) from None
        yield piece


class Streamed:
    """A file that streams into `incoming`, at most `most_bytes` of it. What cannot be kept is remembered and the rest dropped, so that what
    stands behind it in the body still comes in. Its preamble is not kept: no reader of DICOM looks at it, and another program might run it
    (PS3.10 7.5)."""

    def __init__(self, files: Files, most_bytes: int, fault: Refused | None = None) -> None:
        self.path = files.incoming / f"{secrets.token_hex(16)}.dcm"
        self.size_bytes = 0
        self._files = files
        self._most_bytes = most_bytes
        self._looked_at = 0
        self._file: BinaryIO | None = None
        self._fault: Refused | OSError | None = fault
        if fault is None:
            try:
                self._file = self.path.open("xb", buffering=0)
            except OSError as error:
                self._fault = error

    def write(self, data: bytes) -> None:
        """Append; never raises."""
        self.size_bytes += len(data)
        if self._file is None or self._fault is not None:
            return
        try:
            if self.size_bytes > self._most_bytes:
                raise Refused(Status.TOO_LARGE, f"larger than {self._most_bytes // 1024**2} MiB")
            if self.size_bytes - self._looked_at >= SPACE_EVERY_BYTES:
                self._looked_at = self.size_bytes
                if not self._files.has_room(RESERVE):
                    raise Refused(Status.OUT_OF_RESOURCES, "the disk is nearly full; try again later")
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except (Refused, OSError) as fault:
            self._fault = fault
            self.close()  # its room is wanted back now, not at the end of the request

    def finish(self) -> None:
        """The file has come whole. Raises what went wrong with it: Refused or OSError."""
        if self._fault is None and self._file is not None:
            with self._file as file:
                if self.size_bytes >= _PREAMBLE_BYTES:
                    file.seek(0)
                    file.write(bytes(_PREAMBLE_BYTES))
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Never raises; the file is gone, unless it was kept under another name."""
        with contextlib.suppress(OSError):  # the janitor finds it
            if self._file is not None:
                self._file.close()
            self.path.unlink(missing_ok=True)
