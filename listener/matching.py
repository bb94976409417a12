"""QIDO-RS keys against headers in the DICOM JSON model: PS3.18 8.3.4 (query parameters), PS3.4 C.2.2.2 (kinds of matching). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.tag import Tag

from listener.keys import is_uid

Header = Mapping[str, Any]

_TIME = r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"
_RANGES = {"DA": r"\d{8}", "TM": _TIME, "DT": rf"\d{{4}}(\d{{2}}(\d{{2}}({_TIME})?)?)?"}
_FLOORS = {"DA": "00000000", "TM": "000000.000000", "DT": "00000000000000.000000"}
_CEILINGS = {"DA": "99999999", "TM": "235959.999999", "DT": "99991231235959.999999"}
_FORMS = {"DA": "YYYYMMDD", "TM": "HHMMSS", "DT": "YYYYMMDDHHMMSS"}
_OFFSET = re.compile(r"[+-]\d{4}$")
_NUMBERS = {"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"}
_WILDCARDS = {"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}


class BadValue(ValueError):
    """The value of a key cannot be understood; the text says why, without the value (it may name a patient)."""


@dataclass(frozen=True)
class Key:
    """A matchable attribute: `path` holds tags of eight upper-case hex digits, sequences first; `name` is dotted keywords."""

    name: str
    path: tuple[str, ...]
    vr: str


@dataclass(frozen=True)
class Match:
    """A key with a value to be met. `value` is normalised:

    UI, CS: alternatives joined by a backslash (CS ones may hold wildcards). DA, TM, DT: "low-high", both present, inclusive; a DT is
    compared as it is written, without its offset from UTC.
    Numbers: as written. All else: one text in which "*" stands for any characters and "?" for one.
    """

    key: Key
    value: str

    def meets(self, header: Header) -> bool:
        """Whether one of the attribute's values in `header` is met; an absent or empty attribute never is."""
        return any(self._meets_one(value) for value in _values(header, self.key.path))

    def _meets_one(self, value: object) -> bool:
        vr = self.key.vr
        if isinstance(value, Mapping):  # PN: three groups, matched without regard to case (PS3.4 C.2.2.2.1)
            return any(_like(self.value.rstrip("^"), str(group).rstrip("^"), ignore_case=True) for group in value.values())
        text = str(value).strip()
        if vr == "UI":
            return text in self.value.split("\\")
        if vr in _RANGES:
            low, high = self.value.split("-")
            text = _OFFSET.sub("", text) if vr == "DT" else text
            return low <= text + _FLOORS[vr][len(text) :] <= high
        if vr in _NUMBERS:
            return float(text) == float(self.value)
        return any(_like(pattern, text) for pattern in (self.value.split("\\") if vr == "CS" else [self.value]))


def parse_key(text: str) -> Key | None:
    """`PatientID`, `00100020`, `RequestAttributesSequence.ScheduledProcedureStepID` or a mix of them; None when not in the dictionary."""
    tags, vr = [], "SQ"
    for part in text.split("."):
        number = int(part, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", part) else tag_for_keyword(part) if part else None
        if number is None or not dictionary_has_tag(number) or vr != "SQ":
            return None
        tags.append(Tag(number))
        vr = dictionary_VR(number)
    return Key(".".join(keyword_for_tag(tag) or f"{tag:08X}" for tag in tags), tuple(f"{tag:08X}" for tag in tags), vr)


@dataclass(frozen=True)
class Query:
    """A search as it was asked for, understood. `warnings` say in words what was not; they hold no values."""

    matches: tuple[Match, ...] = ()
    included: tuple[str, ...] = ()  # tags to return beyond the required ones: of every key and of includefield
    include_all: bool = False
    limit: int | None = None
    offset: int = 0
    warnings: tuple[str, ...] = ()


def parse_query(pairs: Iterable[tuple[str, str]]) -> Query:
    """The query parameters of a search transaction (PS3.18 8.3.4). Raises BadValue; unknown keys are warnings."""
    matches: list[Match] = []
    included: list[str] = []
    warnings: list[str] = []
    numbers: dict[str, int] = {}
    seen: set[str] = set()
    include_all = False
    for name, value in pairs:
        if name == "includefield":
            for text in value.split(","):
                if text == "all":
                    include_all = True
                elif key := parse_key(text.strip()):
                    included.append(key.path[0])
                else:
                    warnings.append(f"{_shown(text)} is not a known attribute and was not included.")
        elif name in ("limit", "offset"):
            if name in numbers or not re.fullmatch(r"[0-9]{1,18}", value):
                raise BadValue(f"{name} must be one whole number, 0 or greater")
            numbers[name] = int(value)
        elif name == "fuzzymatching":
            if value.lower() == "true":
                warnings.append("The fuzzymatching parameter is not supported. Only literal matching has been performed.")
        elif name == "accept":
            continue  # PS3.18 8.3.3.1: belongs to content negotiation
        elif (key := parse_key(name)) is None:
            warnings.append(f"{_shown(name)} is not a known attribute and was ignored.")
        elif key.name in seen:
            raise BadValue(f"{key.name} is given twice; several UIDs go into one value, with commas between them")
        else:
            seen.add(key.name)
            included.append(key.path[0])
            if match := parse_match(key, value):
                matches.append(match)
    return Query(tuple(matches), tuple(included), include_all, numbers.get("limit"), numbers.get("offset", 0), tuple(warnings))


def parse_match(key: Key, value: str) -> Match | None:
    """What the attribute must meet; None means universal matching (empty, or nothing but "*"). Raises BadValue."""
    value = value.strip()
    if not value or (set(value) == {"*"} and key.vr in _WILDCARDS):
        return None
    if key.vr == "UI":
        return Match(key, _uid_list(key, value))
    if key.vr == "CS":
        if value.count(",") + value.count("\\") >= 100:
            raise BadValue(f"{key.name} has more than 100 alternatives")
        return Match(key, value.replace(",", "\\"))
    if key.vr in _RANGES:
        return Match(key, _range(key, value))
    if key.vr in _NUMBERS:
        return Match(key, _number(key, value))
    if key.vr not in _WILDCARDS:
        raise BadValue(
            f"{key.name} has the value representation {key.vr}, which cannot be matched; leave its value empty to have it returned"
        )
    return Match(key, value)


def _shown(text: str) -> str:
    """A name that the client sent, fit to stand in a response header: anything odd is not repeated."""
    return text if re.fullmatch(r"[0-9A-Za-z.]{1,64}", text) else "A parameter"


def _uid_list(key: Key, value: str) -> str:
    uids = [uid.strip() for uid in re.split(r"[,\\]", value)]
    if not all(is_uid(uid) for uid in uids):
        raise BadValue(f"{key.name} must be a UID, or UIDs with commas between them")
    return "\\".join(uids)


def _range(key: Key, value: str) -> str:
    low, dash, high = value.partition("-")
    if not dash:
        high = low
    if any(end and not re.fullmatch(_RANGES[key.vr], end) for end in (low, high)) or not (low or high):
        form = _FORMS[key.vr]
        raise BadValue(f"{key.name} must be {form}, {form}-, -{form} or {form}-{form}")
    return f"{low + _FLOORS[key.vr][len(low) :]}-{high + _CEILINGS[key.vr][len(high) :]}"


def _number(key: Key, value: str) -> str:
    if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?", value):
        raise BadValue(f"{key.name} must be a number")
    return value


def _like(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """Wildcard matching without backtracking: time is at most len(pattern) * len(text), whatever the client sends."""
    if ignore_case:
        pattern, text = pattern.casefold(), text.casefold()
    at_pattern = at_text = 0
    star, resume = -1, 0
    while at_text < len(text):
        wanted = pattern[at_pattern] if at_pattern < len(pattern) else ""
        if wanted == "*":
            star, resume = at_pattern, at_text
            at_pattern += 1
        elif wanted and wanted in ("?", text[at_text]):
            at_pattern += 1
            at_text += 1
        elif star >= 0:
            resume += 1
            at_pattern, at_text = star + 1, resume
        else:
            return False
    return not pattern[at_pattern:].strip("*")


def _values(header: Header, path: tuple[str, ...]) -> Iterator[object]:
    values = [value for value in header.get(path[0], {}).get("Value", []) if value is not None]
    if len(path) == 1:
        yield from values
        return
    for item in values:
        yield from _values(item, path[1:])
