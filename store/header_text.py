"""Reading a header's attributes as text: each converted once, without NULs and padding, and never raising for what a device wrote.

PS3.5 6.2 (value representations) and 6.4 (several values). What cannot be read is as if absent, and is named in `Attributes.damaged`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag, Tag

#: What pydicom raises for values that a device wrote wrongly.
UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    OSError,
    EOFError,
    RecursionError,
    MemoryError,  # a length of 4 GiB
    struct.error,
    BytesLengthException,
)


def is_of_the_disk(error: BaseException) -> bool:
    """Whether an error says that a file could not be read. pydicom raises OSError also for what a device wrote, and then without a number:
    who waited for the disk to come back would wait for ever."""
    return isinstance(error, OSError) and error.errno is not None


#: PS3.3 C.8.11.7.1.2: receivers treat the designators SNM3 and 99SDM as SRT in mammography.
_SRT_ALIASES = frozenset({"SRT", "SNM3", "99SDM"})


#: VRs of texts that mean the same in every character set as long as they are ASCII without escapes (PS3.5 6.1.2.5.3).
_PLAIN = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UI"})


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def _plain_text(element: RawDataElement) -> list[str] | None:
    """The values of an element that needs no conversion, which costs ten times as much; None when it needs one."""
    value = element.value
    if not value or (element.VR or dictionary_VR(element.tag)) not in _PLAIN or not value.isascii() or b"\x1b" in value:
        return None
    return value.decode("ascii").split("\\")


def value_of(ds: Dataset, keyword: str) -> Any:
    """The attribute's value as pydicom gives it; None when it is absent or cannot be read."""
    try:
        return ds.get(keyword)
    except UNREADABLE:
        return None


def items_of(ds: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none when it is absent, cannot be read, or is not a sequence at all."""
    value = value_of(ds, keyword)
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        return []
    return [item for item in value if isinstance(item, Dataset)]


class Attributes:
    """The attributes of one data set, by keyword. Those in `distrusted` are as if absent, in it and in the items of its sequences."""

    def __init__(self, ds: Dataset, distrusted: frozenset[str] = frozenset()) -> None:
        self._ds = ds
        self._distrusted = distrusted
        self._written: dict[str, tuple[str, ...]] = {}
        self._values: dict[str, tuple[str, ...]] = {}
        self._items: dict[str, tuple[Attributes, ...]] = {}
        self.damaged: set[str] = set()
        """Keywords of what was asked for, is there, and could not be read."""

    def written(self, keyword: str) -> tuple[str, ...]:
        """The values in their places, as the device wrote them; empty ones at the end are left out, so an empty attribute has none."""
        if keyword not in self._written:
            self._written[keyword] = self._read(keyword)
        return self._written[keyword]

    def values(self, keyword: str) -> tuple[str, ...]:
        """As `written`, in upper case."""
        if keyword not in self._values:
            self._values[keyword] = tuple(value.upper() for value in self.written(keyword))
        return self._values[keyword]

    def text(self, keyword: str) -> str:
        """All values in upper case with backslashes between them: several never pass for one. "" when absent, empty or unreadable."""
        return "\\".join(self.values(keyword))

    def items(self, keyword: str) -> tuple[Attributes, ...]:
        """The items of a sequence; none when it is absent or is not a sequence at all."""
        if keyword not in self._items:
            self._items[keyword] = self._read_items(keyword)
        return self._items[keyword]

    def code(self) -> tuple[str, str]:
        """(designator, value) of a coded item (PS3.3 Table 8.8-1a); the designators that mean SRT in mammography are given as SRT."""
        scheme = self.text("CodingSchemeDesignator")
        return ("SRT" if scheme in _SRT_ALIASES else scheme, self.text("CodeValue"))

    def number(self, keyword: str) -> int:
        """A whole number, 0...2^31-1; 0 when there is none."""
        try:
            found = int(self.text(keyword) or 0)
        except ValueError:
            return 0
        return min(max(found, 0), 2**31 - 1)

    def _value(self, keyword: str) -> object:
        if keyword in self._distrusted:
            return None
        tag = _tag(keyword)
        try:
            element = self._ds.get_item(tag)
            if element is None:
                return None
            if isinstance(element, RawDataElement) and (plain := _plain_text(element)) is not None:
                return plain
            return self._ds[tag].value
        except UNREADABLE:
            self.damaged.add(keyword)
            return None

    def _read(self, keyword: str) -> tuple[str, ...]:
        value = self._value(keyword)
        if value is None:
            return ()
        several = tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Dataset)) else (value,)
        if any(isinstance(one, (bytes, Dataset)) for one in several):
            if value != b"":
                self.damaged.add(keyword)
            return ()
        texts = ["" if one is None else str(one).replace("\0", "").strip() for one in several]
        while texts and not texts[-1]:
            texts.pop()
        return tuple(texts)

    def _read_items(self, keyword: str) -> tuple[Attributes, ...]:
        value = self._value(keyword)
        if not value:
            return ()
        found = tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Dataset)) else (value,)
        if not all(isinstance(item, Dataset) for item in found):
            self.damaged.add(keyword)
            return ()
        return tuple(Attributes(item, self._distrusted) for item in found)
