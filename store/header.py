"""Headers as they were received, without pixel data: kept as compressed DICOM so that no value is reinterpreted on its way to the database.

pydicom writes elements that nobody asked for back byte for byte, so an odd character set or a malformed value survives (PS3.10 7).
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_file_meta_info, read_preamble
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from store.header_text import UNREADABLE

#: Values above this size (private blocks, look-up tables) stay in the file only: no rule and no result looks at them.
LARGEST_VALUE_BYTES = 65536
#: Current Requested Procedure Evidence Sequence: what a Key Object rejects, 500 images in 64 KiB.
_REFERENCES = 0x0040A375
#: Of a header with more than this the largest values stay in the file only.
LARGEST_HEADER_BYTES = 1 << 20


class WithoutCharacterSet:
    """A Part 10 file in which Specific Character Set (0008,0005) goes by another tag, so that an odd one hinders nobody to read the rest.

    pydicom reads that element first of all, and raises when it has a wrong VR or nothing but NULs.
    """

    _TAG, _OTHER = b"\x08\x00\x05\x00", b"\x08\x00\x07\x00"  # no attribute of the Standard has the other one
    OTHER_TAG = 0x00080007

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)
        read_preamble(file, force=False)
        meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag.group != 2)
        implicit = UID(meta.TransferSyntaxUID).is_implicit_VR
        read_dataset(file, implicit, is_little_endian=True, stop_when=lambda tag, vr, length: tag >= 0x00080005)
        self._place = file.tell()
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        start = self._file.tell()
        data = self._file.read(size)
        offset = self._place - start
        if offset >= 0 and data[offset : offset + 4] == self._TAG:
            return data[:offset] + self._OTHER + data[offset + 4 :]
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._file.tell()

    def close(self) -> None:
        """As of any file."""
        self._file.close()


class Deflated(ValueError):
    """The file's transfer syntax is a deflated one."""

    def __init__(self) -> None:
        super().__init__("a deflated data set is not read: nothing limits what it inflates to")


def read_part10(path: Path, *, stop_before_pixels: bool = False) -> Dataset:
    """The Part 10 file at `path`, also when its Specific Character Set is beyond reading. Raises Deflated and pydicom's errors."""
    # pydicom inflates all of it at once, also to read a header.
    if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise Deflated
    try:
        return dcmread(path, stop_before_pixels=stop_before_pixels)
    except (InvalidDicomError, FileNotFoundError):
        raise
    except UNREADABLE:  # it may be the character set alone: the rest may be whole
        with path.open("rb") as file:
            ds = dcmread(WithoutCharacterSet(file), stop_before_pixels=stop_before_pixels)
        ds.pop(WithoutCharacterSet.OTHER_TAG, None)
        return ds


def read_header(path: Path) -> Dataset:
    """The data set at `path` without pixel data, overlays and very large values. Raises pydicom's errors when it is no DICOM at all."""
    ds = read_part10(path, stop_before_pixels=True)
    for tag in list(ds.keys()):
        element = ds.get_item(tag)
        large = tag != _REFERENCES and isinstance(element, RawDataElement) and len(element.value or b"") > LARGEST_VALUE_BYTES
        if large or 0x6000 <= tag.group <= 0x60FF:
            del ds[tag]
    raw = {tag: ds.get_item(tag) for tag in list(ds.keys())}
    sizes = {tag: len(element.value or b"") for tag, element in raw.items() if isinstance(element, RawDataElement)}
    total = sum(sizes.values())
    for tag in sorted(sizes, key=lambda tag: sizes[tag], reverse=True):
        if total <= LARGEST_HEADER_BYTES:
            break
        total -= sizes[tag]
        del ds[tag]
    return ds


#: VRs whose text is in the data set's character set (PS3.5 6.1.2.2).
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


def name_character_set(ds: Dataset, character_set: str) -> bool:
    """Write `character_set` as the Specific Character Set (0008,0005) of a header that `read_header` has just read, when it names none and
    has text that needs one (PS3.3 C.12.1.1.2); whether it was written. Values, which nobody has looked at yet, stay as they are."""
    if not character_set or not _names_none(ds) or not _needs_one(unpack_header(pack_header(ds))):
        return False
    ds.pop("SpecificCharacterSet", None)  # it may have another VR
    ds.SpecificCharacterSet = character_set.split("\\")
    # Else pydicom, which holds the bytes for text of another character set, would write them anew.
    is_implicit_vr, is_little_endian = ds.original_encoding
    ds.set_original_encoding(is_implicit_vr, is_little_endian, convert_encodings(character_set.split("\\")))
    return True


def _names_none(ds: Dataset) -> bool:
    element = ds.get_item("SpecificCharacterSet") if "SpecificCharacterSet" in ds else None
    value = element.value if element is not None else None
    return not (value.strip(b" \0") if isinstance(value, bytes) else value)


def _needs_one(ds: Dataset) -> bool:
    """Whether a text in `ds`, also in an item, is beyond ASCII, or has an escape sequence (PS3.5 6.1.2.5). Changes `ds`."""
    for tag in list(ds.keys()):
        element = ds.get_item(tag)
        if isinstance(element, RawDataElement) and needs_character_set(element.value) and _vr(element) in _TEXT_VRS:
            return True
        if _vr(element) == "SQ":
            with contextlib.suppress(*UNREADABLE):
                if any(_needs_one(item) for item in ds[tag].value or ()):
                    return True
    return False


def needs_character_set(value: bytes | None) -> bool:
    """Whether the bytes of a text mean something only in a character set."""
    return isinstance(value, bytes) and (not value.isascii() or b"\x1b" in value)


def _vr(element: DataElement | RawDataElement | None) -> str:
    if element is None:
        return ""
    try:
        return str(element.VR or dictionary_VR(element.tag))
    except KeyError:
        return ""  # of a private attribute in Implicit VR


def pack_header(ds: Dataset) -> bytes:
    """`ds` as compressed Part 10 bytes, for the database."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return zlib.compress(buffer.getvalue(), 6)


def unpack_header(packed: bytes) -> Dataset:
    """The header that `pack_header` packed."""
    return dcmread(BytesIO(zlib.decompress(packed)))


def unpack_data_set(packed: bytes) -> Dataset:
    """The same without its file meta information, in half the time: for who looks at many."""
    file = BytesIO(zlib.decompress(packed))
    read_preamble(file, force=False)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = UID(meta.get("TransferSyntaxUID", ""))
    if not syntax.is_transfer_syntax or syntax.is_deflated:
        return unpack_header(packed)
    return read_dataset(file, syntax.is_implicit_VR, syntax.is_little_endian)


def header_json(ds: Dataset) -> dict[str, Any]:
    """A result object of ours in the DICOM JSON model (PS3.18 F), without group 0002 and pixel data."""
    return {f"{element.tag:08X}": element.to_json_dict(None, 1 << 30) for element in ds if element.keyword != "PixelData"}


def indexed_values(header: Mapping[str, Any]) -> dict[str, str]:
    """The values that searches match, from the DICOM JSON model; absent ones are ""."""

    def first(tag: str) -> Any:
        return (header.get(tag, {}).get("Value") or [""])[0]

    name = first("00100010") or {}
    return {
        "study_date": str(first("00080020")),
        "patient_id": str(first("00100020")),
        "patient_name": folded(name.get("Alphabetic", "")),
        "patient_name_ideographic": folded(name.get("Ideographic", "")),
        "patient_name_phonetic": folded(name.get("Phonetic", "")),
        "accession_number": str(first("00080050")),
        "modality": str(first("00080060")),
    }


def folded(name: str) -> str:
    """A name as it is matched: without regard to case and to empty components at its end (PS3.4 C.2.2.2.1)."""
    return name.rstrip("^").casefold()


def overlay(ds: Dataset, newer: Dataset, keywords: Sequence[str]) -> None:
    """Put `newer`'s values of `keywords` in the place of those of `ds`; one that it lacks, or that cannot be read, is lacking then."""
    for keyword in keywords:
        try:
            if keyword in newer:
                ds[keyword] = newer[keyword]
            elif keyword in ds:
                del ds[keyword]
        except UNREADABLE:
            ds.pop(keyword, None)
