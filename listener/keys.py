"""What is read of a data set on arrival: its UIDs, whose it is, its hash, and whether its end is missing. No pixels are decoded.

Reads the Part 10 file that reception wrote (PS3.10 7.1) attribute by attribute; UIDs are checked as PS3.5 9.1 says. What cannot be kept is
`Refused` with one of the statuses that answer a C-STORE (PS3.7 C, PS3.4 B.2.3).
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, TEXT_VR_DELIMS, PersonName

from store.header import WithoutCharacterSet
from store.header_text import UNREADABLE, is_of_the_disk


class Status(IntEnum):
    """What we answer to a C-STORE (PS3.7 C, PS3.4 B.2.3), and as a Failure Reason to STOW-RS."""

    SUCCESS = 0x0000  # kept, or ignored on purpose
    SOP_CLASS_NOT_SUPPORTED = 0x0122  # only under `strict`
    OUT_OF_RESOURCES = 0xA700  # the only one that asks to try again
    DOES_NOT_MATCH = 0xA900
    INVALID_UID = 0xC001
    CANNOT_PARSE = 0xC002
    TOO_LARGE = 0xC003
    TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122  # of STOW-RS (PS3.18 I.2.2); C-STORE negotiates
    UNEXPECTED = 0xC211  # a fault of ours; the log has it


class Refused(Exception):
    """An instance that is not kept. `comment` becomes the Error Comment (0000,0902): at most 64 characters, nothing of the patient."""

    def __init__(self, status: Status, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment[:64]


_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*", re.ASCII)
_UID_KEYWORDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_TEXT_KEYWORDS = ("Modality", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")
_TAGS: tuple[BaseTag | int, ...] = tuple(
    BaseTag(tag_for_keyword(keyword) or 0) for keyword in ("SpecificCharacterSet", *_UID_KEYWORDS, *_TEXT_KEYWORDS)
)
_PIXEL_DATA = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_UNDEFINED_LENGTH = 0xFFFFFFFF
#: No patient's name or identifier is longer in earnest (PS3.5 6.2: PN has 3 groups of 64 characters); the file keeps all of it.
LONGEST_TEXT_BYTES = 1024
_PREAMBLE_BYTES = 128
#: File meta information (PS3.10 7.1) is never longer in earnest.
_META_BYTES = 65536
#: VRs whose length has four bytes: as pydicom counts them, since two readers must find the same transfer syntax in a file.
_LONG_LENGTHS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What is read from a data set on arrival. UIDs may still be missing ("") or malformed; text is without padding and NUL."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    patient_id: str = field(repr=False)
    issuer_of_patient_id: str = field(repr=False)
    patient_name: str = field(repr=False)
    patient_birth_date: str = field(repr=False)
    file_hash: str  # SHA-256 of the data set as received, without group 0002, as 64 hex digits
    size_bytes: int  # of the data set
    has_pixels: bool
    damage: str  # "" or, in words, what is missing of it


@dataclass(frozen=True)
class Meta:
    """What the file meta information of a Part 10 file says (PS3.10 7.1); "" for what it does not."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


def read_meta(path: Path) -> Meta:
    """The file meta information of a file that comes from anybody: read by hand, with its length limited. Raises Refused."""
    with path.open("rb") as file:
        head = file.read(_PREAMBLE_BYTES + 4 + _META_BYTES)
    position = _PREAMBLE_BYTES + 4
    if head[_PREAMBLE_BYTES:position] != b"DICM":
        raise Refused(Status.CANNOT_PARSE, "no DICOM file: DICM is not at byte 128")
    values: dict[bytes, str] = {}
    while head[position : position + 2] == b"\x02\x00":
        tag, vr = head[position : position + 4], head[position + 4 : position + 6]
        start = position + (12 if vr in _LONG_LENGTHS else 8)
        end = start + int.from_bytes(head[position + (8 if vr in _LONG_LENGTHS else 6) : start], "little")
        if end > len(head):
            raise Refused(Status.CANNOT_PARSE, f"the file meta is cut short or over {_META_BYTES // 1024} KiB")
        values[tag] = _ascii(head[start:end])
        position = end
    return Meta(*(values.get(b"\x02\x00" + element, "") for element in (b"\x02\x00", b"\x03\x00", b"\x10\x00")))


class _Raw(io.FileIO):
    """Remembers that the disk failed: pydicom takes that for the end of the data set, and what stands behind would be missing."""

    fault: OSError | None = None

    def readinto(self, buffer: Any) -> int:
        try:
            return self.read_once(buffer)
        except OSError as error:
            self.fault = error
            raise

    def read_once(self, buffer: Any) -> int:
        return super().readinto(buffer) or 0


def read_keys(path: Path, character_set: str = "", *, hashed: tuple[int, str] | None = None) -> Keys:
    """The keys of the Part 10 file at `path`, without decoding pixels. Text of one that names no character set is in `character_set`.

    `hashed`: from which byte on the file was hashed while it was written, and the hash: it is used when the data set begins there.
    A character set decides nothing: a name that cannot be decoded is kept with its bytes as backslash escapes.
    Raises Refused(CANNOT_PARSE) when it is no data set, OSError when the file cannot be read.
    """
    size = path.stat().st_size
    with _Raw(path) as raw, io.BufferedReader(raw) as file:
        try:
            read_preamble(file, force=False)
            meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag.group != 2)
            start = file.tell()
            transfer_syntax_uid = UID(meta.TransferSyntaxUID)
            ds = _data_set(file, start, is_implicit_vr=transfer_syntax_uid.is_implicit_VR)
        except Exception as error:
            if is_of_the_disk(error):
                raise
            # A hostile data set makes pydicom raise nearly anything (RecursionError, KeyError, struct.error ...), and we answer it here.
            raise Refused(Status.CANNOT_PARSE, f"the data set cannot be parsed: {type(error).__name__}") from error
        has_pixels = _has_pixels(file)
        damage = _damage(ds, file, size)
        if hashed is not None and hashed[0] == start:
            file_hash = hashed[1]
        else:
            file.seek(start)
            file_hash = hashlib.file_digest(file, "sha256").hexdigest()
        if raw.fault is not None:
            raise raw.fault
    values = {keyword: _raw(ds, keyword) for keyword in (*_UID_KEYWORDS, *_TEXT_KEYWORDS)}
    encodings = _encodings(_raw(ds, "SpecificCharacterSet").strip(b" \0") or character_set.encode("ascii"))
    return Keys(
        sop_class_uid=_ascii(values["SOPClassUID"]),
        sop_instance_uid=_ascii(values["SOPInstanceUID"]),
        study_instance_uid=_ascii(values["StudyInstanceUID"]),
        series_instance_uid=_ascii(values["SeriesInstanceUID"]),
        transfer_syntax_uid=str(transfer_syntax_uid),
        modality=_ascii(values["Modality"]),
        patient_id=_text(values["PatientID"], encodings),
        issuer_of_patient_id=_text(values["IssuerOfPatientID"], encodings),
        patient_name=_text(values["PatientName"], encodings, is_name=True),
        patient_birth_date=_ascii(values["PatientBirthDate"]),
        file_hash=file_hash,
        size_bytes=size - start,
        has_pixels=has_pixels,
        damage=damage,
    )


def _data_set(file: BinaryIO, start: int, *, is_implicit_vr: bool) -> Dataset:
    def parsed(source: Any) -> Dataset:
        source.seek(start)
        return read_dataset(
            source,
            is_implicit_VR=is_implicit_vr,
            is_little_endian=True,
            stop_when=lambda tag, vr, length: tag in _PIXEL_DATA,
            specific_tags=list(_TAGS),
        )

    try:
        return parsed(file)
    except UNREADABLE:  # it may be the character set alone; whatever else is wrong raises again
        return parsed(WithoutCharacterSet(file))


def _raw(ds: Dataset, keyword: str) -> bytes:
    if keyword not in ds:
        return b""
    try:
        value = ds.get_item(keyword).value
    except UNREADABLE:  # an empty one of a VR that is none
        return b""
    if not isinstance(value, bytes):
        value = str(value or "").encode("ascii", "backslashreplace")  # pydicom has converted it already
    return value[:LONGEST_TEXT_BYTES]


def _encodings(specific_character_set: bytes) -> list[str]:
    try:
        return convert_encodings(_ascii(specific_character_set).split("\\"))
    except (LookupError, ValueError):
        return ["ascii"]


def _ascii(value: bytes) -> str:
    return ascii(value.decode("ascii", "backslashreplace").replace("\0", "").strip())[1:-1].replace("\\\\", "\\")


def _text(value: bytes, encodings: list[str], *, is_name: bool = False) -> str:
    try:
        text = str(PersonName(value, encodings)) if is_name else decode_bytes(value, encodings, set(TEXT_VR_DELIMS))
    except (LookupError, ValueError):
        return _ascii(value)
    # pydicom replaces what it cannot decode, and the name would be lost.
    return _ascii(value) if "\ufffd" in text else text.replace("\0", "").strip()


def _has_pixels(file: BinaryIO) -> bool:
    """Whether pixel data begins where `file` stands, which stays there."""
    position = file.tell()
    head = file.read(12)
    file.seek(position)
    length = head[8:12] if head[4:6].isalpha() else head[4:8]
    return len(head) >= 8 and any(length)


def _damage(ds: Dataset, file: BinaryIO, size: int) -> str:
    """What is missing at the end, in words: pydicom takes a short value for whole. `file` stands at the pixel data or at the end."""
    position = file.tell()
    short = any(
        isinstance(element, RawDataElement) and element.length not in (_UNDEFINED_LENGTH, len(element.value or b""))
        for element in ds.values()
    )
    if short or position > size:
        return "the data set ends within a value"
    head = file.read(12)
    if not head:
        return ""
    is_explicit = head[4:6].isalpha()
    if len(head) < (12 if is_explicit else 8):
        return "the data set ends within a value"
    length = int.from_bytes(head[8:12] if is_explicit else head[4:8], "little")
    position += 12 if is_explicit else 8
    if length == _UNDEFINED_LENGTH:
        return _damaged_fragments(file, position, size)
    return "" if position + length <= size else f"the pixel data ends after {size - position} of {length} bytes"


def _damaged_fragments(file: BinaryIO, position: int, size: int) -> str:
    """PS3.5 A.4: items until the sequence delimiter. A delimiter that is left out harms nobody."""
    while position < size:
        file.seek(position)
        head = file.read(8)
        if head.startswith(_SEQUENCE_END):
            return ""
        if len(head) < 8 or not head.startswith(_ITEM):
            return "the compressed pixel data is not a sequence of items"
        position += 8 + int.from_bytes(head[4:8], "little")
    return "" if position == size else "the compressed pixel data ends within an item"


def is_uid(value: str) -> bool:
    """PS3.5 9.1: numbers without leading zeros, joined by dots, at most 64 characters."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def told(uid: str | None) -> str:
    """For the log: a UID as it is. What is none may be anything, a patient's number or name too: of that the length."""
    value = (uid or "").strip(" \0")
    return value if not value or (is_uid(value) and "." in value) else f"(no-UID,{len(value)}-characters)"


def check_uids(keys: Keys) -> None:
    """Raise Refused when a UID that we need is missing or none."""
    values = (keys.sop_class_uid, keys.sop_instance_uid, keys.study_instance_uid, keys.series_instance_uid)
    for keyword, value in zip(_UID_KEYWORDS, values, strict=True):
        if not value and keys.damage:
            raise Refused(Status.CANNOT_PARSE, keys.damage)
        if not value:
            raise Refused(Status.INVALID_UID, f"{keyword} is missing")
        if not is_uid(value):
            raise Refused(Status.INVALID_UID, f"{keyword} is not a UID (PS3.5 9.1)")
