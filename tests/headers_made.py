"""Headers that no library would write: chosen elements byte for byte, whatever the VR, the length or the character set (PS3.5 7.1)."""

from __future__ import annotations

import struct

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32


def raw(keyword: str, vr: str, value: bytes) -> RawDataElement:
    """An element byte for byte, with the VR that the device wrote."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)


def a_sequence(keyword: str) -> RawDataElement:
    """A sequence of one empty item where the Standard has a value."""
    return raw(keyword, "SQ", b"\xfe\xff\x00\xe0\x00\x00\x00\x00")


def encoded(ds: Dataset, *raws: RawDataElement) -> bytes:
    """The data set in Explicit VR Little Endian, its own text in UTF-8; each of `raws` replaces the element of its tag."""
    elements = {element.tag: element for element in ds} | {element.tag: element for element in raws}
    return b"".join(_encoded(elements[tag]) for tag in sorted(elements))


def _encoded(element: DataElement | RawDataElement) -> bytes:
    if isinstance(element, DataElement):
        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = False, True
        write_data_element(buffer, element, ["utf_8"])
        return buffer.getvalue()
    assert element.VR is not None
    assert element.value is not None
    length = b"\0\0" + struct.pack("<I", element.length) if element.VR in EXPLICIT_VR_LENGTH_32 else struct.pack("<H", element.length)
    return struct.pack("<HH", element.tag.group, element.tag.element) + element.VR.encode() + length + element.value


def part10(data_set: bytes, *, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """A file of `data_set`, which is in Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class_uid), UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta)
    return b"\0" * 128 + b"DICM" + buffer.getvalue() + data_set
