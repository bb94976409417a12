"""Headers as they are kept: whole, but never larger than the database should hold."""

from __future__ import annotations

from pathlib import Path

from mammograms_made import mammogram
from pydicom.dataelem import DataElement

from store.header import LARGEST_HEADER_BYTES, LARGEST_VALUE_BYTES, pack_header, read_header, unpack_header
from store.study import View


def test_a_header_comes_back_as_it_was_without_pixels(tmp_path: Path) -> None:
    ds = mammogram(View.L_CC)
    ds.save_as(tmp_path / "image", enforce_file_format=True)
    found = unpack_header(pack_header(read_header(tmp_path / "image")))
    del ds.PixelData
    assert found == ds


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
