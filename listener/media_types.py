"""Which representation a client gets, and how several are sent as one: PS3.18 8.6 (multipart), 8.7 (media types, Accept). Pure."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pydicom.uid import ExplicitVRLittleEndian

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
JSON = "application/json"
OCTET_STREAM = "application/octet-stream"
MULTIPART = "multipart/related"

_PARAMETER = re.compile(r';\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*')
_MEDIA_RANGE = re.compile(r"\s*([!#$&^_.+0-9A-Za-z*-]+/[!#$&^_.+0-9A-Za-z*-]+)\s*")


@dataclass(frozen=True)
class MediaRange:
    """One entry of an Accept header: `media_type` and parameter names in lower case, `quality` 0...1."""

    media_type: str
    parameters: dict[str, str] = field(default_factory=dict)
    quality: float = 1.0


@dataclass(frozen=True)
class Offer:
    """A representation that the server has.

    `part_type` is the media type inside a multipart/related answer, "" when the body is single. `transfer_syntax_uid` is "" for
    representations that have none. An `explicit` offer is given only to a client that names it, never for a wildcard.
    """

    media_type: str
    part_type: str = ""
    transfer_syntax_uid: str = ""
    explicit: bool = False


def parse_accept(text: str) -> list[MediaRange]:
    """The media ranges of an Accept header, in the client's order; what cannot be understood is passed over."""
    ranges = []
    position = 0
    while position < len(text):
        start = _MEDIA_RANGE.match(text, position)
        if start is None:
            position = _after_comma(text, position)
            continue
        position = start.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, position):
            name, value = parameter.groups()
            parameters[name.lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
            position = parameter.end()
        ranges.append(MediaRange(start.group(1).lower(), parameters, _quality(parameters.pop("q", "1"))))
        position = _after_comma(text, position)
    return ranges


def choose(ranges: Sequence[MediaRange], offers: Sequence[Offer]) -> Offer | None:
    """The offer that the client likes best; None means 406 Not Acceptable.

    The quality of an offer is that of the most specific range that fits it (RFC 9110 12.5.1). Of equals, the one that the client wrote
    first wins, then the server's order. No range at all means anything: PS3.18 asks for 406, real clients expect an answer.
    """
    ranges = ranges or [MediaRange("*/*")]
    best: tuple[float, int] | None = None
    chosen = None
    for offer in offers:
        fitting = [(_specificity(media_range, offer), -index) for index, media_range in enumerate(ranges) if _fits(media_range, offer)]
        if not fitting:
            continue
        index = -max(fitting)[1]
        rank = (ranges[index].quality, -index)
        if ranges[index].quality > 0 and (best is None or rank > best):
            best, chosen = rank, offer
    return chosen


@dataclass(frozen=True)
class Part:
    """One part of a multipart answer: its Content-Type and its bytes in chunks."""

    content_type: str
    chunks: Iterable[bytes]


def new_boundary() -> str:
    """256 random bits: drawn after the content was written, so that no content can hold it."""
    return secrets.token_hex(32)


def multipart(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    """The body of a multipart/related answer, chunk by chunk: never more than one chunk in memory."""
    for part in parts:
        yield f"--{boundary}\r\nContent-Type: {part.content_type}\r\n\r\n".encode()
        yield from part.chunks
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _after_comma(text: str, position: int) -> int:
    comma = text.find(",", position)
    return len(text) if comma < 0 else comma + 1


def _quality(text: str) -> float:
    return float(text) if re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", text) else 0.0


def _fits(media_range: MediaRange, offer: Offer) -> bool:
    if not _type_fits(media_range.media_type, offer.media_type) or (offer.explicit and media_range.media_type != offer.media_type):
        return False
    part_type = media_range.parameters.get("type", "*/*")
    if offer.part_type and not _type_fits(part_type.lower(), offer.part_type):
        return False
    # PS3.18 8.7.3.5.2: without the parameter the client gets Explicit VR Little Endian, with "*" the object as it is stored
    wanted = media_range.parameters.get("transfer-syntax", ExplicitVRLittleEndian)
    return not offer.transfer_syntax_uid or wanted in ("*", offer.transfer_syntax_uid)


def _type_fits(pattern: str, media_type: str) -> bool:
    return pattern in ("*/*", "*", media_type) or (pattern.endswith("/*") and media_type.startswith(pattern[:-1]))


def _specificity(media_range: MediaRange, offer: Offer) -> int:
    exact = 2 * (media_range.media_type == offer.media_type) + (media_range.media_type != "*/*")
    return 3 * exact + sum(name in media_range.parameters for name in ("type", "transfer-syntax"))
