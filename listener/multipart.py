"""A multipart/related body taken apart while it arrives: RFC 2046 5.1, PS3.18 8.6. Pure.

It is fed with bytes in whatever pieces the network makes of them and never holds more than a delimiter, or the headers of one part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

#: RFC 2046 5.1.1; a blank must not be the last.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Blanks that may stand between a boundary and the end of its line.
_MAX_PADDING = 64
MAX_HEADER_BYTES = 8192


class BadMultipart(ValueError):
    """The body is not what its Content-Type says; the text says why, and quotes nothing of it."""


@dataclass(frozen=True)
class PartBegins:
    """A part with its headers, names in lower case; its content follows as `bytes`."""

    headers: Mapping[str, str]


@dataclass(frozen=True)
class PartEnds:
    """The delimiter behind a part has come: it is whole."""


class _At(Enum):
    PREAMBLE = "before the first delimiter"
    HEADERS = "in the headers of a part"
    CONTENT = "in the content of a part"
    EPILOGUE = "behind the closing delimiter"


class MultipartReader:
    """Reads one body. Raises BadMultipart at once for a boundary that cannot be one."""

    def __init__(self, boundary: str) -> None:
        if not _BOUNDARY.fullmatch(boundary):
            raise BadMultipart("the boundary must be 1 to 70 letters, digits or '()+_,-./:=? (RFC 2046 5.1.1)")
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._buffer = bytearray(b"\r\n")  # a body may begin with a delimiter, without the line end that is part of all others
        self._at = _At.PREAMBLE

    def feed(self, data: bytes) -> Iterator[PartBegins | bytes | PartEnds]:
        """What `data` tells; to be read to its end before the next is fed. Raises BadMultipart when a part's headers are none."""
        self._buffer += data
        while self._at is not _At.EPILOGUE:
            if self._at is _At.HEADERS:
                headers = self._headers()
                if headers is None:
                    return
                self._at = _At.CONTENT
                yield PartBegins(headers)
                continue
            content, delimiter = self._until_delimiter()
            if content and self._at is _At.CONTENT:
                yield content
            if delimiter is None:
                return
            if self._at is _At.CONTENT:
                yield PartEnds()
            self._at = delimiter
        self._buffer.clear()

    def close(self) -> None:
        """The body has ended. Raises BadMultipart when it ended too early: the last part, if one is open, is not whole."""
        if self._at is _At.PREAMBLE:
            raise BadMultipart("the boundary that the Content-Type names does not occur in the body")
        if self._at is not _At.EPILOGUE:
            raise BadMultipart("the body ends before its closing boundary")

    def _headers(self) -> dict[str, str] | None:
        """The headers at the front of the buffer, which go; None while they are not there whole."""
        # The front is the end of the delimiter's line: without any header the blank line follows at once.
        end = self._buffer.find(b"\r\n\r\n")
        if (len(self._buffer) if end < 0 else end) > MAX_HEADER_BYTES:
            raise BadMultipart(f"a part has headers of more than {MAX_HEADER_BYTES} bytes, or no blank line behind them")
        if end < 0:
            return None
        headers: dict[str, str] = {}
        for line in re.sub(r"\r\n[ \t]+", " ", self._buffer[:end].decode("latin-1")).split("\r\n")[1:]:
            name, colon, value = line.partition(":")
            if not colon or not _TOKEN.fullmatch(name) or "\n" in value or "\r" in value:
                raise BadMultipart("a line in the headers of a part is not of the form Name: value")
            headers[name.lower()] = value.strip(" \t")
        del self._buffer[: end + 4]
        return headers

    def _until_delimiter(self) -> tuple[bytes, _At | None]:
        """Content at the front of the buffer, which goes, and what follows behind the delimiter; None: there is none yet."""
        start = 0
        while (found := self._buffer.find(self._delimiter, start)) >= 0:
            behind = found + len(self._delimiter)
            rest = bytes(self._buffer[behind : behind + _MAX_PADDING + 2])
            if rest.startswith(b"--"):
                return self._taken(found, behind + 2), _At.EPILOGUE
            padding = len(rest) - len(rest.lstrip(b" \t"))
            line_end = rest[padding : padding + 2]
            if line_end == b"\r\n":
                return self._taken(found, behind + padding), _At.HEADERS
            if len(rest) < _MAX_PADDING + 2 and (rest == b"-" or line_end in (b"", b"\r")):
                return self._taken(found, found), None  # it may become one
            start = behind  # the content only looks like one
        keep = min(len(self._buffer) - start, len(self._delimiter) - 1)
        return self._taken(len(self._buffer) - keep, len(self._buffer) - keep), None

    def _taken(self, end: int, to: int) -> bytes:
        content = bytes(self._buffer[:end])
        del self._buffer[:to]
        return content
