"""Headers as they were received, without pixel data: kept as compressed DICOM so that no value is reinterpreted on its way to the database.

pydicom writes elements that nobody asked for back byte for byte, so an odd character set or a malformed value survives (PS3.10 7).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

#: Values above this size (private blocks, look-up tables) stay in the file only: no rule and no result looks at them.
LARGEST_VALUE_BYTES = 65536
#: Of a header with more than this the largest values stay in the file only.
LARGEST_HEADER_BYTES = 1 << 20


def read_header(path: Path) -> Dataset:
    """The data set at `path` without pixel data, overlays and very large values. Raises pydicom's errors when it is no DICOM at all."""
    ds = dcmread(path, stop_before_pixels=True)
    for tag in list(ds.keys()):
        element = ds.get_item(tag)
        large = isinstance(element, RawDataElement) and len(element.value or b"") > LARGEST_VALUE_BYTES
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


def pack_header(ds: Dataset) -> bytes:
    """`ds` as compressed Part 10 bytes, for the database."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return zlib.compress(buffer.getvalue(), 6)


def unpack_header(packed: bytes) -> Dataset:
    """The header that `pack_header` packed."""
    return dcmread(BytesIO(zlib.decompress(packed)))


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
