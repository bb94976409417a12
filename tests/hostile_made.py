"""What nobody should send: data sets, files and codestreams that were made to break a reader, each with what must become of it at every
door. All of it is made here, byte by byte; the known attacks on pydicom, pynetdicom and their decoders are among them.

A row that is taken is still an image of somebody: it is kept as it came, and what is wrong with it is said where it is read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from headers_made import encoded, raw
from mammograms_made import breast_pixels, code, mammogram, uid
from pydicom import uid as syntaxes
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

from listener.keys import Status
from store.study import View

MG = "1.2.840.10008.5.1.4.1.1.1.2"
KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
DICOMDIR = "1.2.840.10008.1.3.10"
PRIVATE_CLASS = "1.2.826.0.1.3680043.2.1143.107.104.103.115.2.4"
EXPLICIT = str(syntaxes.ExplicitVRLittleEndian)
IMPLICIT = str(syntaxes.ImplicitVRLittleEndian)
DEFLATED = str(syntaxes.DeflatedExplicitVRLittleEndian)
BIG_ENDIAN = str(syntaxes.ExplicitVRBigEndian)
PRIVATE_SYNTAX = "1.2.826.0.1.3680043.2.1143.1"
UNDEFINED = 0xFFFFFFFF
#: Waveform Sequence, which nobody closes.
AN_OPEN_SEQUENCE = struct.pack("<HH2sHI", 0x5400, 0x0100, b"SQ", 0, UNDEFINED)
#: A C-STORE cannot even be asked for: the class or the transfer syntax is not negotiated.
NOT_NEGOTIATED = -1
#: pynetdicom aborts the association: the command is not one that it can read.
ABORTED = -2


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One object on its way. `sop_class` and `sop_instance` stand in the command and in the file meta information."""

    data_set: bytes
    sop_instance: bytes
    sop_class: str = MG
    syntax: str = EXPLICIT
    context_class: str = ""  # of the presentation context, where it is another
    preamble: bytes = bytes(128)
    meta: bytes | None = None  # instead of the true file meta information
    study: str = ""  # its Study Instance UID, where it has one that can be kept
    raw_file: bytes | None = None  # the whole file, where it is no Part 10 file at all

    @property
    def file(self) -> bytes:
        """As a Part 10 file."""
        if self.raw_file is not None:
            return self.raw_file
        meta = meta_of(self.sop_class.encode(), self.sop_instance, self.syntax.encode()) if self.meta is None else self.meta
        return self.preamble + b"DICM" + meta + self.data_set


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One attack and what must become of it. Texts are parts of what is said; "" means that it is taken, kept, or read."""

    make: Callable[[Dataset], Sent]  # of an image that is as it should be
    c_store: int = Status.SUCCESS
    stow: int | None = None  # the Failure Reason; None: the status of C-STORE
    dropped: str | None = None  # what POST /api/v1/files says; None: a reason if C-STORE gives one
    view_fails: str = ""  # what its study's result says of the view, where it is taken and cannot be read
    analysed: str | None = None  # what `fourview analyse` says; None: `view_fails`
    joins: bool = True  # where it is taken: it fills its slot, and is of the same patient as other images of its study


# ---- how they are made ----


def meta_of(sop_class: bytes, sop_instance: bytes, syntax: bytes, *, group_length: int | None = None) -> bytes:
    """File meta information (PS3.10 7.1)."""
    values = ((2, sop_class), (3, sop_instance), (0x10, syntax))
    body = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01"
    body += b"".join(short(2, element, b"UI", value + b"\0" * (len(value) % 2)) for element, value in values)
    return short(2, 0, b"UL", struct.pack("<I", len(body) if group_length is None else group_length)) + body


def short(group: int, element: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element with a length of two bytes."""
    return struct.pack("<HH2sH", group, element, vr, len(value) if length is None else length) + value


def long(group: int, element: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element with a length of four bytes."""
    return struct.pack("<HH2sHI", group, element, vr, 0, len(value) if length is None else length) + value


def image(study: str, view: View = View.L_CC) -> Dataset:
    """A small mammogram as it should be."""
    return mammogram(view, study=study, pixels=breast_pixels(view, rows=64, columns=48))


def changed(ds: Dataset, **overrides: Any) -> Dataset:
    """`ds` with these values; None deletes one."""
    for keyword, value in overrides.items():
        if value is None:
            ds.pop(keyword, None)
        else:
            setattr(ds, keyword, value)
    return ds


def sent(ds: Dataset, data_set: bytes | None = None, **others: Any) -> Sent:
    """`ds` as it is, or with these bytes in its place."""
    values: dict[str, Any] = {
        "data_set": encoded(ds) if data_set is None else data_set,
        "sop_instance": str(ds.get("SOPInstanceUID", "")).encode(),
        "sop_class": str(ds.get("SOPClassUID", MG)),
        "study": str(ds.get("StudyInstanceUID", "")),
    }
    return Sent(**(values | others))


def odd(*raws: RawDataElement, **overrides: Any) -> Callable[[Dataset], Sent]:
    """A mammogram in which these elements stand byte for byte, or these attributes are changed."""
    return lambda ds: sent(changed(ds, **overrides), encoded(ds, *raws))


def with_uids(**uids: bytes) -> Callable[[Dataset], Sent]:
    """A mammogram with these UIDs; that of the instance also in the command, as a sender would write it."""

    def make(ds: Dataset) -> Sent:
        raws = (raw(keyword, "UI", value + b"\0" * (len(value) % 2)) for keyword, value in uids.items())
        instance = uids.get("SOPInstanceUID", str(ds.SOPInstanceUID).encode())
        return sent(ds, encoded(ds, *raws), sop_instance=instance)

    return make


def split(ds: Dataset, group: int, element: int = 0) -> tuple[bytes, bytes]:
    """The encoded data set before and from the first element that is not below this tag."""
    below = Dataset({one.tag: one for one in ds if one.tag < Tag(group, element)})
    above = Dataset({one.tag: one for one in ds if one.tag >= Tag(group, element)})
    return encoded(below), encoded(above)


def inserted(make: Callable[[], bytes], group: int, element: int = 0) -> Callable[[Dataset], Sent]:
    """A mammogram with these bytes before the first element that is not below this tag."""

    def build(ds: Dataset) -> Sent:
        before, after = split(ds, group, element)
        return sent(ds, before + make() + after)

    return build


def ends_with(data: bytes) -> Callable[[Dataset], Sent]:
    """A mammogram with this for its pixels."""
    return lambda ds: sent(ds, split(ds, 0x7FE0)[0] + data)


def cut(share: float) -> Callable[[Dataset], Sent]:
    """A mammogram whose end is missing."""
    return lambda ds: sent(ds, (data := encoded(ds))[: int(len(data) * share)])


def pixels(data: bytes, syntax: str = EXPLICIT, *, undefined: bool | None = None, length: int | None = None, **overrides: Any) -> Any:
    """A mammogram with exactly these bytes for pixel data."""

    def make(ds: Dataset) -> Sent:
        changed(ds, PixelData=None, **overrides)
        is_open = syntax != EXPLICIT if undefined is None else undefined
        head = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB" if is_open else b"OW", 0, UNDEFINED if is_open else length or len(data))
        return sent(ds, encoded(ds) + head + data, syntax=syntax)

    return make


def framed(stream: Callable[[], bytes], syntax: str, **overrides: Any) -> Any:
    """A mammogram of 16 x 16 pixels whose frame is this codestream."""

    def make(ds: Dataset) -> Sent:
        layout = {"Rows": 16, "Columns": 16, **overrides}
        made: Sent = pixels(encapsulate([stream()]) + b"\xfe\xff\xdd\xe0\0\0\0\0", syntax, **layout)(ds)
        return made

    return make


def codestream(syntax: str, rows: int, columns: int) -> bytes:
    """Zeros, compressed."""
    from pydicom.encaps import get_frame

    plugin = {syntaxes.JPEGLSLossless: "pyjpegls"}.get(syntaxes.UID(syntax), "pylibjpeg")
    ds = mammogram(pixels=np.zeros((rows, columns), np.uint16))
    ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    return get_frame(ds.PixelData, 0, number_of_frames=1)


def jpeg(rows: int, columns: int) -> bytes:
    """A baseline JPEG that ends behind its frame header."""
    frame = struct.pack(">BHHBBBB", 8, rows, columns, 1, 1, 0x11, 0)
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xd9"


def rle(*segments: bytes, offsets: tuple[int, ...] | None = None) -> bytes:
    """An RLE frame (PS3.5 Annex G)."""
    places = [64 + sum(len(one) for one in segments[:number]) for number in range(len(segments))]
    header = [len(segments), *(places if offsets is None else offsets)]
    return struct.pack("<16I", *header, *[0] * (16 - len(header))) + b"".join(segments)


def nested(depth: int, *, closed: bool = True) -> bytes:
    """Sequences in sequences, of undefined length."""
    opening = struct.pack("<HH2sHI", 0x0040, 0x0555, b"SQ", 0, UNDEFINED) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    return opening * depth + closing * depth * closed


def many_elements(count: int) -> bytes:
    """So many private elements."""
    creator = short(0x0013, 0x0010, b"LO", b"HOSTILE ")
    return creator + b"".join(short(0x0013, 0x1000 + number, b"LO", b"x ") for number in range(min(count, 0xEFFF)))


def deflated(ds: Dataset) -> Sent:
    """A few hundred kilobytes that inflate to a gigabyte: a piece that ends with a full flush can be repeated."""
    before, after = split(ds, 0x7FE0)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(before) + packer.compress(long(0x0013, 0x1010, b"OB", b"", 1 << 30)) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return sent(ds, piece + zeros * 1024 + packer.compress(after) + packer.flush(), syntax=DEFLATED)


def two_readers(ds: Dataset) -> Sent:
    """A file meta information that says Explicit VR to a reader that does not know the VR SV, and deflated to one that does. To the first
    its length is 0, and an element with another transfer syntax begins where the second finds the length of a megabyte."""
    made = deflated(ds)
    inner = b"UI" + struct.pack("<H", len(EXPLICIT) + 1) + EXPLICIT.encode() + b"\0"
    hidden = 0x0010_0002  # as bytes the tag (0002,0010)
    trap = struct.pack("<HH2sHI", 2, 0x0102, b"SV", 0, hidden) + inner + bytes(hidden - len(inner))
    return replace(made, meta=meta_of(made.sop_class.encode(), made.sop_instance, DEFLATED.encode()) + trap)


def implicit(ds: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = True, True
    write_dataset(buffer, ds)
    return buffer.getvalue()


def emptied(ds: Dataset) -> Sent:
    """A mammogram with its UIDs and class, and nothing in any other value."""
    kept = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PixelData")
    return sent(ds, encoded(ds, *(raw(one.keyword, one.VR, b"") for one in ds if one.keyword not in kept)))


def reversed_order(ds: Dataset) -> Sent:
    before, after = split(ds, 0x7FE0)
    low, high = split(Dataset({one.tag: one for one in ds if one.tag.group < 0x7FE0}), 0x0020)
    assert before == low + high
    return sent(ds, high + low + after)


def dicomdir(ds: Dataset) -> Sent:
    """As on a patient's disc, with a path that climbs."""
    instance = uid(ds.SOPInstanceUID, "dicomdir").encode()
    changed(ds, PixelData=None, SOPClassUID=None, SOPInstanceUID=None, StudyInstanceUID=None)
    ds.FileSetID = "HOSTILE"
    record = Dataset()
    record.DirectoryRecordType = "IMAGE"
    record.ReferencedFileID = ["..", "..", "etc", "passwd"]
    ds.DirectoryRecordSequence = [record]
    return sent(ds, sop_class=DICOMDIR, sop_instance=instance)


def key_object(image: Dataset, references: int) -> Sent:
    """A rejection of images that have not come."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = KEY_OBJECT, uid(image.SOPInstanceUID, "key object")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = image.StudyInstanceUID, uid(image.SOPInstanceUID, "key objects")
    ds.Modality = "KO"
    for keyword in ("PatientID", "PatientName", "PatientBirthDate"):
        ds[keyword] = image[keyword]
    ds.ConceptNameCodeSequence = [code("113001", "DCM", "Rejected for Quality Reasons")]
    study, series = Dataset(), Dataset()
    study.StudyInstanceUID, series.SeriesInstanceUID = image.StudyInstanceUID, image.SeriesInstanceUID
    series.ReferencedSOPSequence = []
    for number in range(references):
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = MG, uid(image.SOPInstanceUID, number)
        series.ReferencedSOPSequence.append(one)
    study.ReferencedSeriesSequence = [series]
    ds.CurrentRequestedProcedureEvidenceSequence = [study]
    return sent(ds, sop_class=KEY_OBJECT)


def of_class(sop_class: str, context_class: str = "") -> Callable[[Dataset], Sent]:
    return lambda ds: sent(changed(ds, SOPClassUID=sop_class), context_class=context_class)


def nothing_but(data_set: bytes) -> Callable[[Dataset], Sent]:
    """These bytes for a data set, under the UIDs of an image."""
    return lambda ds: Sent(data_set=data_set, sop_instance=str(ds.SOPInstanceUID).encode())


def commanded(**others: Any) -> Callable[[Dataset], Sent]:
    """A good data set under a command that says something else."""
    return lambda ds: sent(ds, **others)


# ---- texts in every field ----

#: What must come out of no page, no terminal, no log and no query as it went in.
TEXTS: Mapping[str, str] = {
    "HTML": "\"'><script>alert(1)</script><img src=x onerror=alert(1)>",
    "SQL": "'; DROP TABLE study; --\" OR 1=1 \\' UNION SELECT 1",
    "escapes of a terminal": "\x1b]0;taken\x07\x1b[2J\x9b31m\x1b[?25l",
    "right to left": "\u202eenaJ^eoD\u2066\u200f\u2028line",
    "controls": "a\x00b\x01\x08\r\nINFO instance kept\n\x7f\x85\x0c",
    "templates": "{{7*7}}${jndi:ldap://127.0.0.1/x}%s%n%(name)s{0.__class__}",
    "more than a text may hold": "A" * 9000,
    "beyond Unicode": "\ud800\udfff\ufffe\U0010ffff",
}
_TEXT_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UT"})
_FURTHER = (
    "AcquisitionDeviceProcessingDescription",
    "AdmittingDiagnosesDescription",
    "CommentsOnThePerformedProcedureStep",
    "ContentDate",
    "FilterMaterial",
    "ImageComments",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "IssuerOfPatientID",
    "LossyImageCompressionMethod",
    "OperatorsName",
    "OtherPatientIDs",
    "PatientComments",
    "PerformedProcedureStepDescription",
    "PerformingPhysicianName",
    "ProtocolName",
    "RequestedProcedureDescription",
    "SeriesDescription",
    "StudyDescription",
    "TimezoneOffsetFromUTC",
)
#: What decides which view an image is, and what its pixels are: the text stands in all others.
_LEFT_ALONE = frozenset(
    {
        "BreastImplantPresent",
        "BurnedInAnnotation",
        "ImageLaterality",
        "ImageType",
        "LossyImageCompression",
        "Modality",
        "PartialView",
        "PatientOrientation",
        "PhotometricInterpretation",
        "PresentationIntentType",
        "PresentationLUTShape",
        "SpecificCharacterSet",
        "ViewPosition",
    }
)


def text_everywhere(text: str) -> Callable[[Dataset], Sent]:
    """A mammogram with `text` in every text field but those that decide what it is, in UTF-8."""

    def make(ds: Dataset) -> Sent:
        changed(ds, **dict.fromkeys(_FURTHER, "1"))
        value = text.encode("utf-8", "surrogatepass")
        value += b" " * (len(value) % 2)
        fields = [one for one in ds if one.VR in _TEXT_VRS and one.keyword not in _LEFT_ALONE]
        assert len(fields) > 40
        return sent(ds, encoded(ds, *(raw(one.keyword, one.VR, value) for one in fields)))

    return make


def rejection(references: int) -> Hostile:
    """A Key Object: kept, and no image."""
    return Hostile(make=partial(key_object, references=references), dropped="no pixels", analysed="Rows is missing", joins=False)


# ---- the table ----

CUT = "the data set ends within a value"
NO_UID = "is not a UID (PS3.5 9.1)"
UNPARSABLE = Status.CANNOT_PARSE
SYNTAX = Status.TRANSFER_SYNTAX_NOT_SUPPORTED
CLASS = Status.SOP_CLASS_NOT_SUPPORTED

UIDS: Mapping[str, Hostile] = {
    "an instance UID that climbs": Hostile(make=with_uids(SOPInstanceUID=b"../../../../tmp/hostile"), c_store=Status.INVALID_UID),
    "a study UID that climbs": Hostile(make=with_uids(StudyInstanceUID=b"../../../../tmp/hostile"), c_store=Status.INVALID_UID),
    "a series UID that is a path": Hostile(make=with_uids(SeriesInstanceUID=b"/tmp/hostile"), c_store=Status.INVALID_UID),
    "a UID of 97 characters": Hostile(make=with_uids(SOPInstanceUID=b"1." + b"2" * 95), c_store=ABORTED, stow=Status.INVALID_UID),
    "a UID with a NUL in it": Hostile(make=with_uids(StudyInstanceUID=b"1.2\0/../3"), c_store=Status.INVALID_UID),
    "a UID with a new line": Hostile(make=with_uids(StudyInstanceUID=b"1.2.3\nINFO kept"), c_store=Status.INVALID_UID),
    "a UID of SQL": Hostile(make=with_uids(StudyInstanceUID=b"1.2' OR '1'='1"), c_store=Status.INVALID_UID),
    "an empty study UID": Hostile(make=with_uids(StudyInstanceUID=b""), c_store=Status.INVALID_UID),
    "no study UID": Hostile(make=odd(StudyInstanceUID=None), c_store=Status.INVALID_UID),
    "another instance in the command": Hostile(make=commanded(sop_instance=b"1.2.3"), c_store=Status.DOES_NOT_MATCH, dropped=""),
    "another class in the command": Hostile(make=commanded(sop_class=SECONDARY_CAPTURE), c_store=Status.DOES_NOT_MATCH, dropped=""),
}

STRUCTURE: Mapping[str, Hostile] = {
    "nothing": Hostile(make=nothing_but(b""), c_store=Status.INVALID_UID, analysed="Rows is missing"),
    "a letter": Hostile(make=nothing_but(b"Dear Sir or Madam, " * 40), c_store=UNPARSABLE, analysed="Rows is missing"),
    "zeros": Hostile(make=nothing_but(bytes(4096)), c_store=Status.INVALID_UID, analysed="Rows is missing"),
    "all bits set": Hostile(make=nothing_but(b"\xff" * 4096), c_store=UNPARSABLE, analysed="Rows is missing"),
    "cut in its pixels": Hostile(make=cut(0.7), c_store=UNPARSABLE, analysed="64 x 48 pixels need 6144"),
    "cut in its header": Hostile(make=cut(0.05), c_store=Status.INVALID_UID, analysed="Rows is missing"),
    "4 GiB of a private value": Hostile(
        make=inserted(lambda: long(0x13, 0x1010, b"OB", b"x" * 100, 0xFFFFFFFE), 0x18),
        c_store=UNPARSABLE,
        analysed="more than 2 GiB of memory",
    ),
    "4 GiB of pixels": Hostile(make=pixels(b"\0" * 100, length=0xFFFFFFFE), c_store=UNPARSABLE, analysed="more than 2 GiB of memory"),
    "a value without end": Hostile(
        make=inserted(lambda: long(0x13, 0x1010, b"OB", b"x" * 100, UNDEFINED), 0x18), c_store=UNPARSABLE, analysed="Rows is missing"
    ),
    "sequences 3,000 deep": Hostile(make=inserted(lambda: nested(3000), 0x40), c_store=UNPARSABLE, analysed="RecursionError"),
    "sequences 100,000 deep that never end": Hostile(
        make=inserted(lambda: nested(100_000, closed=False), 0x40), c_store=UNPARSABLE, analysed="RecursionError"
    ),
    "a sequence that ends before its first item": Hostile(make=ends_with(AN_OPEN_SEQUENCE), c_store=UNPARSABLE, analysed="cannot be read"),
    "a sequence that ends within its first item": Hostile(
        make=ends_with(AN_OPEN_SEQUENCE + b"\xfe\xff"),
        c_store=UNPARSABLE,
        analysed="cannot be read",
    ),
    "10,000 private elements": Hostile(make=inserted(lambda: many_elements(10_000), 0x18)),
    "an element of no length, 10,000 times": Hostile(make=inserted(lambda: short(0x13, 0x1010, b"LO", b"") * 10_000, 0x18)),
    "every value of no length": Hostile(make=emptied, analysed="Rows is missing", joins=False),
    "a tag twice": Hostile(make=inserted(lambda: short(0x10, 0x20, b"LO", b"ANOTHER ") * 2, 0x10, 0x21), joins=False),
    "odd lengths": Hostile(make=odd(raw("Manufacturer", "LO", b"Example"), raw("StudyID", "SH", b"1"), raw("StationName", "SH", b"ROOM1"))),
    "wrong group lengths": Hostile(make=inserted(lambda: short(0x18, 0, b"UL", b"\xff\xff\xff\x7f"), 0x18)),
    "tags in another order": Hostile(make=reversed_order),
    "a VR that is none": Hostile(make=inserted(lambda: short(0x13, 0x1010, b"ZZ", b"x "), 0x18)),
    "a VR of NULs": Hostile(
        make=inserted(lambda: short(0x13, 0x1010, b"\0\0", b"x "), 0x18), c_store=UNPARSABLE, analysed="Rows is missing"
    ),
    "implicit VR under the name of explicit": Hostile(
        make=lambda ds: sent(ds, implicit(ds)), dropped="its header could not be read", joins=False
    ),
    "explicit VR under the name of implicit": Hostile(make=commanded(syntax=IMPLICIT)),
    "no numbers": Hostile(
        make=odd(
            raw("WindowCenter", "DS", b"NaN "),
            raw("WindowWidth", "DS", b"inf "),
            raw("RescaleSlope", "DS", b"-inf"),
            raw("RescaleIntercept", "DS", b"1e999 "),
            raw("ImagerPixelSpacing", "DS", b"nan\\inf "),
            raw("EstimatedRadiographicMagnificationFactor", "DS", b"NaN "),
            raw("KVP", "DS", b"Infinity"),
            raw("InstanceNumber", "IS", b"9" * 400),
            raw("SeriesNumber", "IS", b"-1e5"),
            raw("BodyPartThickness", "DS", b"1_0 "),
        ),
    ),
    "numbers of IEEE 754 that are none": Hostile(
        make=inserted(
            lambda: short(0x18, 0x9073, b"FD", struct.pack("<d", float("nan"))) + short(0x18, 0x9461, b"FL", b"\0\0\x80\x7f"), 0x20
        ),
    ),
    "a name of a megabyte": Hostile(make=inserted(lambda: long(0x10, 0x4000, b"UT", b"<b>" * 350_000), 0x18)),
}

FILES: Mapping[str, Hostile] = {
    "a program for Windows": Hostile(make=commanded(preamble=b"MZ" + b"\x90" * 126)),
    "a program for Linux": Hostile(make=commanded(preamble=b"\x7fELF" + b"\x02" * 124)),
    "a script": Hostile(make=commanded(preamble=b"#!/bin/sh\nid > /tmp/hostile\n".ljust(128, b"#"))),
    "a wrong length of its file meta": Hostile(
        make=lambda ds: replace(made := sent(ds), meta=meta_of(MG.encode(), made.sop_instance, EXPLICIT.encode(), group_length=0xFFFFFFF0)),
    ),
    "no file meta": Hostile(make=commanded(meta=b""), stow=UNPARSABLE, dropped="transfer syntax", analysed="transfer syntax"),
    "two readings of its file meta": Hostile(
        make=two_readers, c_store=NOT_NEGOTIATED, stow=UNPARSABLE, dropped="file meta", analysed="a deflated data set is not read"
    ),
    "no Part 10 file": Hostile(
        make=commanded(raw_file=b"PK\x03\x04" + bytes(400)), stow=UNPARSABLE, dropped="no DICOM file", analysed="not a DICOM file"
    ),
}

SYNTAXES: Mapping[str, Hostile] = {
    "a gigabyte, deflated": Hostile(
        make=deflated, c_store=NOT_NEGOTIATED, stow=SYNTAX, dropped="transfer syntax", analysed="a deflated data set is not read"
    ),
    "big endian": Hostile(
        make=commanded(syntax=BIG_ENDIAN), c_store=NOT_NEGOTIATED, stow=SYNTAX, dropped="transfer syntax", analysed="cannot be decoded here"
    ),
    "a private transfer syntax": Hostile(
        make=commanded(syntax=PRIVATE_SYNTAX),
        c_store=NOT_NEGOTIATED,
        stow=SYNTAX,
        dropped="transfer syntax",
        analysed="cannot be decoded here",
    ),
}

PIXELS: Mapping[str, Hostile] = {
    "too few pixels": Hostile(make=pixels(b"\1" * 100), view_fails="Pixel Data has 100 bytes"),
    "too many pixels": Hostile(make=pixels(bytes(range(256)) * 1000)),
    "no pixels": Hostile(make=odd(PixelData=None), dropped="it has no pixels", view_fails="no Pixel Data"),
    "65,535 rows and columns": Hostile(make=odd(Rows=65535, Columns=65535), view_fails="both must be 1 to 8192"),
    "a billion frames": Hostile(make=odd(NumberOfFrames="1000000000"), analysed="Number Of Frames is 1000000000", joins=False),
    "Rows that are a text": Hostile(make=odd(raw("Rows", "LO", b"<b>many ")), view_fails="Rows"),
    "a codestream that is none": Hostile(make=framed(lambda: b"no image" * 20, syntaxes.JPEG2000Lossless), view_fails="no readable header"),
    "a JPEG 2000 of 4,000 x 4,000 in 16 x 16": Hostile(
        make=framed(lambda: codestream(syntaxes.JPEG2000Lossless, 4000, 4000), syntaxes.JPEG2000Lossless), view_fails="4000 x 4000"
    ),
    "a JPEG-LS of 600 x 600 in 16 x 16": Hostile(
        make=framed(lambda: codestream(syntaxes.JPEGLSLossless, 600, 600), syntaxes.JPEGLSLossless), view_fails="600 x 600"
    ),
    "a JPEG of 65,500 x 65,500 in 16 x 16": Hostile(
        make=framed(lambda: jpeg(65500, 65500), syntaxes.JPEGBaseline8Bit), view_fails="65500 x 65500"
    ),
    "a JPEG that ends behind its header": Hostile(
        make=framed(lambda: jpeg(16, 16), syntaxes.JPEGBaseline8Bit, BitsAllocated=8, BitsStored=8, HighBit=7), view_fails="malformed"
    ),
    "a run too many in RLE": Hostile(make=framed(lambda: rle(b"\x81\0" * 4, b"\x81\0" * 4), syntaxes.RLELossless), view_fails="uniform"),
    "an RLE that begins behind its end": Hostile(
        make=framed(lambda: rle(b"\x81\0", b"\x81\0", offsets=(0xFFFFFFF0, 0xFFFFFFFF)), syntaxes.RLELossless), view_fails="malformed"
    ),
    "an RLE that inflates": Hostile(
        make=framed(lambda: rle(b"\x81\0" * 50_000, b"\x81\0" * 50_000), syntaxes.RLELossless), view_fails="uniform"
    ),
    "an item of 4 GiB": Hostile(
        make=pixels(b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\xfe\xff\xff\xff" + b"x" * 50, syntaxes.JPEG2000Lossless),
        c_store=UNPARSABLE,
        analysed="Rows is missing",
    ),
    "no items": Hostile(make=pixels(b"no item at all, nowhere", syntaxes.JPEG2000Lossless), c_store=UNPARSABLE, analysed="Rows is missing"),
    "an offset table of nonsense": Hostile(
        make=pixels(
            b"\xfe\xff\x00\xe0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\x00\xe0\x04\0\0\0abcd\xfe\xff\xdd\xe0\0\0\0\0",
            syntaxes.JPEG2000Lossless,
        ),
        view_fails="no readable header",
    ),
    "plain pixels under the name of JPEG 2000": Hostile(
        make=pixels(bytes(6144), syntaxes.JPEG2000Lossless, undefined=False), view_fails="malformed"
    ),
}

CLASSES: Mapping[str, Hostile] = {
    "a DICOMDIR": Hostile(make=dicomdir, c_store=NOT_NEGOTIATED, stow=Status.INVALID_UID, dropped="DICOMDIR", analysed="no Pixel Data"),
    "a private class": Hostile(make=of_class(PRIVATE_CLASS), c_store=NOT_NEGOTIATED, stow=CLASS, dropped=""),
    "a private class in another's context": Hostile(
        make=of_class(PRIVATE_CLASS, context_class=MG), c_store=ABORTED, stow=CLASS, dropped=""
    ),
    "a rejection before what it rejects": Hostile(
        make=partial(key_object, references=1), dropped="no pixels", analysed="Rows is missing", joins=False
    ),
    "a rejection of 3,000 images": Hostile(
        make=partial(key_object, references=3_000), dropped="no pixels", analysed="Rows is missing", joins=False
    ),
}

TEXT: Mapping[str, Hostile] = {f"{kind} in every text": Hostile(make=text_everywhere(text), joins=False) for kind, text in TEXTS.items()}

TABLE: Mapping[str, Hostile] = {**UIDS, **STRUCTURE, **FILES, **SYNTAXES, **PIXELS, **CLASSES, **TEXT}
