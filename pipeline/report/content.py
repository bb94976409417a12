"""SR content items (PS3.3 C.17.3) as they lie in the file: Explicit VR Little Endian (PS3.5 7.1.2, 7.5), text in UTF-8.

A report has some 250 items with three codes each. As data sets, highdicom's or plain ones, they cost a sixth of a second to make and to
write, of the half second in which a result shall be there; as bytes a few milliseconds. What ends in `_item`
returns the content of one; its children are such items. Nothing here knows what is reported.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import DS

#: VRs whose length takes four bytes (PS3.5 Table 7.1-1), of those that are written here.
_LONG = frozenset({"OB", "SQ", "UT"})
#: What a value is filled up with to an even length (PS3.5 6.2); the other VRs here are numbers.
_PADDING = {"UI": b"\0", "SH": b" ", "LO": b" ", "CS": b" ", "DS": b" ", "UT": b" "}

CONTENT_SEQUENCE = 0x0040A730


class Code(NamedTuple):
    """A coded concept (PS3.3 Table 8.8-1a): at most 16, 16 and 64 characters."""

    value: str
    scheme: str
    meaning: str


class Relationship(StrEnum):
    """How an item is related to the one that it stands in (PS3.3 Table C.17.3-8)."""

    CONTAINS = "CONTAINS"
    HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
    HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
    HAS_ACQ_CONTEXT = "HAS ACQ CONTEXT"
    SELECTED_FROM = "SELECTED FROM"


def code_item(relationship: Relationship, name: Code, value: Code, *children: bytes) -> bytes:
    """CODE."""
    return _item(relationship, "CODE", name, {0x0040A168: _codes(0x0040A168, value)}, children)


def text_item(relationship: Relationship, name: Code, text: str) -> bytes:
    """TEXT."""
    return _item(relationship, "TEXT", name, {0x0040A160: _element(0x0040A160, "UT", text)})


def uid_item(relationship: Relationship, name: Code, uid: str) -> bytes:
    """UIDREF."""
    return _item(relationship, "UIDREF", name, {0x0040A124: _element(0x0040A124, "UI", uid)})


def num_item(relationship: Relationship, name: Code, value: float, unit: Code, *children: bytes) -> bytes:
    """NUM; a float is also written as such, beside its decimal string, which has 16 characters only."""
    measured = {0x004008EA: _codes(0x004008EA, unit), 0x0040A30A: _element(0x0040A30A, "DS", str(DS(value, auto_format=True)))}
    if isinstance(value, float):
        measured[0x0040A161] = _element(0x0040A161, "FD", struct.pack("<d", value))
    return _item(relationship, "NUM", name, {0x0040A300: _sequence(0x0040A300, [_joined(measured)])}, children)


def image_item(relationship: Relationship, name: Code, sop_class_uid: str, sop_instance_uid: str, *children: bytes) -> bytes:
    """IMAGE."""
    reference = {0x00081150: _element(0x00081150, "UI", sop_class_uid), 0x00081155: _element(0x00081155, "UI", sop_instance_uid)}
    return _item(relationship, "IMAGE", name, {0x00081199: _sequence(0x00081199, [_joined(reference)])}, children)


def polyline_item(relationship: Relationship, name: Code, points: Iterable[tuple[float, float]], *children: bytes) -> bytes:
    """SCOORD of graphic type POLYLINE; `points` are (column, row), counted from the top left corner of the first pixel."""
    data = [coordinate for point in points for coordinate in point]
    graphic = {
        0x00700022: _element(0x00700022, "FL", struct.pack(f"<{len(data)}f", *data)),
        0x00700023: _element(0x00700023, "CS", "POLYLINE"),
    }
    return _item(relationship, "SCOORD", name, graphic, children)


def container_item(relationship: Relationship, name: Code, children: Sequence[bytes], *, template: str = "") -> bytes:
    """CONTAINER, of a `template` of PS3.16 by its number."""
    return _item(relationship, "CONTAINER", name, {0x0040A050: _element(0x0040A050, "CS", "CONTINUOUS"), **_template(template)}, children)


def put_content(ds: Dataset, items: Sequence[bytes]) -> None:
    """Make `items` the Content Sequence (0040,A730) of `ds`, whose Specific Character Set is ISO_IR 192."""
    value = _items(items)
    ds[CONTENT_SEQUENCE] = RawDataElement(Tag(CONTENT_SEQUENCE), "SQ", len(value), value, 0, False, True)
    # Else pydicom would read all items and write them anew, lest the file have another character set than these bytes.
    ds.set_original_encoding(False, True, convert_encodings(["ISO_IR 192"]))


def _template(number: str) -> dict[int, bytes]:
    if not number:
        return {}
    item = {0x00080105: _element(0x00080105, "CS", "DCMR"), 0x0040DB00: _element(0x0040DB00, "CS", number)}
    return {0x0040A504: _sequence(0x0040A504, [_joined(item)])}


def _item(relationship: Relationship, value_type: str, name: Code, elements: Mapping[int, bytes], children: Sequence[bytes] = ()) -> bytes:
    whole = {
        0x0040A010: _element(0x0040A010, "CS", relationship),
        0x0040A040: _element(0x0040A040, "CS", value_type),
        0x0040A043: _codes(0x0040A043, name),
        **elements,
    }
    if children:
        whole[CONTENT_SEQUENCE] = _sequence(CONTENT_SEQUENCE, children)
    return _joined(whole)


def _joined(elements: Mapping[int, bytes]) -> bytes:
    """Elements in the order of their tags (PS3.5 7.1)."""
    return b"".join(elements[tag] for tag in sorted(elements))


@lru_cache(maxsize=512)
def _codes(tag: int, code: Code) -> bytes:
    """A sequence of one code."""
    item = (
        _element(0x00080100, "SH", code.value),
        _element(0x00080102, "SH", code.scheme),
        _element(0x00080104, "LO", code.meaning),
    )
    return _sequence(tag, [b"".join(item)])


def _sequence(tag: int, items: Sequence[bytes]) -> bytes:
    return _element(tag, "SQ", _items(items))


def _items(items: Sequence[bytes]) -> bytes:
    return b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item for item in items)


def _element(tag: int, vr: str, value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    if len(data) % 2:
        data += _PADDING[vr]
    return element_head(tag, vr, len(data)) + data


def element_head(tag: int, vr: str, length: int) -> bytes:
    """What stands before the value of an element (PS3.5 7.1.2)."""
    return struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode()) + struct.pack("<xxL" if vr in _LONG else "<H", length)
