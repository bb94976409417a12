"""Headers as they are kept: whole, but never larger than the database should hold."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path

import pytest
from mammograms_made import mammogram
from pydicom.dataelem import DataElement
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from store.header import LARGEST_HEADER_BYTES, LARGEST_VALUE_BYTES, pack_header, read_header, unpack_data_set, unpack_header
from store.study import View


def test_a_header_comes_back_as_it_was_without_pixels(tmp_path: Path) -> None:
    ds = mammogram(View.L_CC)
    ds.save_as(tmp_path / "image", enforce_file_format=True)
    found = unpack_header(pack_header(read_header(tmp_path / "image")))
    del ds.PixelData
    assert found == ds


@pytest.mark.parametrize(
    "transfer_syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, JPEG2000, "1.2.3"],
)
def test_the_data_set_alone_is_that_of_the_header(transfer_syntax: str) -> None:
    """Whatever was received; a syntax that nobody knows is read as pydicom reads it."""
    ds = mammogram(View.L_CC, PatientName="홍^길동", StudyDescription="Untersuchung für Brüste")
    del ds.PixelData
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    if transfer_syntax == "1.2.3":
        buffer = BytesIO()
        ds.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=True)
        packed = zlib.compress(buffer.getvalue())
    else:
        packed = pack_header(ds)
    whole, alone = unpack_header(packed), unpack_data_set(packed)
    assert alone == whole
    assert (alone.PatientName, alone.BreastImplantPresent, str(alone.StudyDescription)) == ("홍^길동", "NO", "Untersuchung für Brüste")


def test_many_large_private_values_stay_in_the_file_only(tmp_path: Path) -> None:
    ds = mammogram(View.L_CC)
    ds.add(DataElement(0x00110010, "LO", "A STRANGER"))
    for element in range(0x1000, 0x1000 + 40):
        ds.add(DataElement((0x0011, element), "OB", b"\x01" * (LARGEST_VALUE_BYTES - 2)))
    ds.save_as(tmp_path / "image", enforce_file_format=True)
    found = read_header(tmp_path / "image")
    sizes = [len(found.get_item(tag).value or b"") for tag in list(found.keys())]
    assert sum(sizes) <= LARGEST_HEADER_BYTES
    assert (found.PatientID, found.ViewPosition, found.StudyInstanceUID) == (ds.PatientID, ds.ViewPosition, ds.StudyInstanceUID)
