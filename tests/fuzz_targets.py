"""What is fuzzed, with what, and what must hold whatever comes: `TARGETS`. test_fuzz.py tries each a little, `make fuzz` does as long
as it is told.

What once broke a target stands in its `known` and is tried always.
"""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from headers_made import encoded, part10, raw
from hostile_made import TABLE, TEXTS, image
from hypothesis import strategies as st
from mammograms_made import breast_pixels, mammogram
from pydicom import uid as syntaxes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, get_frame
from pydicom.errors import InvalidDicomError

from listener import media_types
from listener.config import Config, ConfigErrors, load
from listener.keys import Refused, check_uids, is_uid, read_keys, read_meta
from listener.matching import BadValue, parse_query
from listener.multipart import BadMultipart, MultipartReader, PartBegins, PartEnds
from listener.show import STEERING, printable
from pipeline.codestream import SIZE, Size
from pipeline.decode import DecodeFailed, Decoder
from pipeline.pixels import prepare, preview
from pipeline.report import copied_header
from pipeline.rule_condition import RuleError, check
from store.header import Deflated, name_character_set, pack_header, read_header, unpack_header
from store.header_text import UNREADABLE, is_of_the_disk
from store.study import HANGING_ORDER, View
from store.view import resolve, resolve_view


@dataclass(frozen=True)
class Target:
    """Inputs, and what must hold of each: `holds` raises where it does not."""

    inputs: st.SearchStrategy[Any]
    holds: Callable[[Any], None]
    known: Sequence[Any] = ()
    examples: int = 40  # of the small budget


# ---- bytes that were whole before ----

_INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)

#: (what is done, where as a share of the length, a number, bytes).
Change = tuple[str, float, int, bytes]
_CHANGES: st.SearchStrategy[Change] = st.tuples(
    st.sampled_from(["flip", "cut", "insert", "remove", "number", "repeat", "swap"]),
    st.floats(0, 1, allow_nan=False),
    st.integers(0, 2**32 - 1) | st.sampled_from(_INTERESTING),
    st.binary(max_size=12),
)


def changed(data: bytes, changes: Sequence[Change]) -> bytes:
    """`data` after these changes, one after the other."""
    for what, share, number, piece in changes:
        place = int(share * len(data))
        before, behind = data[:place], data[place:]
        if what == "flip" and behind:
            data = before + bytes([behind[0] ^ (1 << number % 8)]) + behind[1:]
        elif what == "cut":
            data = before
        elif what == "insert":
            data = before + piece + behind
        elif what == "remove":
            data = before + behind[number % 64 :]
        elif what == "number":
            packed = struct.pack(("<I", ">I", "<H", ">H")[number % 4], number & (0xFFFFFFFF if number % 4 < 2 else 0xFFFF))
            data = before + packed + behind[len(packed) :]
        elif what == "repeat":
            data = before + behind[: number % 512] + behind
        elif what == "swap":
            length = number % 64
            data = before + behind[length : 2 * length] + behind[:length] + behind[2 * length :]
    return data[: 1 << 21]


def mutated(samples: Mapping[str, bytes]) -> st.SearchStrategy[tuple[str, Sequence[Change]]]:
    return st.tuples(st.sampled_from(sorted(samples)), st.lists(_CHANGES, max_size=6))


@cache
def files() -> Mapping[str, bytes]:
    """Part 10 files without many pixels: of the corpus, and as they should be."""
    made = {name: row.make(image(name)).file for name, row in TABLE.items() if "deep" not in name and "3,000" not in name}
    good = image("good")
    made["good"] = part10(encoded(good), sop_class_uid=good.SOPClassUID, sop_instance_uid=good.SOPInstanceUID)
    return {name: data for name, data in made.items() if len(data) < 100_000}


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fourview-fuzz-"))


def _written(data: bytes) -> Path:
    path = _folder() / "file"
    path.write_bytes(data)
    return path


# ---- headers ----


def header_holds(data: bytes) -> None:
    """What every door and every worker does with a file, in their order: whatever they raise, they raise as they said."""
    path = _written(data)
    try:
        meta = read_meta(path)
        keys = read_keys(path)
        check_uids(keys)
    except Refused as refused:
        assert 0 < len(refused.comment) <= 64
        assert refused.comment.isprintable() and refused.comment.isascii()
        return
    for value in (keys.sop_class_uid, keys.sop_instance_uid, keys.study_instance_uid, keys.series_instance_uid):
        assert is_uid(value)
    texts = (keys.modality, keys.patient_id, keys.issuer_of_patient_id, keys.patient_name, keys.patient_birth_date)
    for text in texts:
        assert "\0" not in text, "PostgreSQL takes none"
        text.encode()  # nor a lone surrogate
    try:
        header = read_header(path)
        name_character_set(header, "ISO_IR 192")
        packed = pack_header(header)
        resolved = resolve(unpack_header(packed))
    except Deflated:
        assert keys.transfer_syntax_uid == syntaxes.DeflatedExplicitVRLittleEndian
        return
    except (InvalidDicomError, *UNREADABLE) as error:
        assert not is_of_the_disk(error), "the disk would be to blame, and the image be tried for ever"
        return
    assert (
        meta.transfer_syntax_uid == keys.transfer_syntax_uid
        or keys.transfer_syntax_uid == unpack_header(packed).file_meta.TransferSyntaxUID
    )
    evidence = resolved.evidence
    assert evidence.view is None or evidence.view in HANGING_ORDER
    assert evidence.view is None or not evidence.set_aside
    for text in (evidence.set_aside or "", evidence.doubt or "", *evidence.warnings, *evidence.conflicts):
        assert not STEERING.search(printable(text))
    for value in copied_header([unpack_header(packed)]).values():
        assert not re.search("[\x00-\x1f\x7f]", str(value))


# ---- views ----

_NASTY = [
    b"",
    b" ",
    b"\0\0",
    b"L",
    b"R",
    b"B",
    b"l\\r",
    b"CC",
    b"MLO",
    b"\\\\\\",
    b"A\\R",
    b"P\\FL",
    b"nan",
    b"1e999",
    b"-0",
    b"9" * 40,
    b"\xff\xfe",
]
_NASTY += [text.encode("utf-8", "surrogatepass")[:300] for text in TEXTS.values()]
_ASKED = [
    "AcquisitionDate",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "BodyPartExamined",
    "BreastImplantPresent",
    "BurnedInAnnotation",
    "ContentDate",
    "EstimatedRadiographicMagnificationFactor",
    "FrameLaterality",
    "ImageLaterality",
    "ImageType",
    "Laterality",
    "LossyImageCompression",
    "Manufacturer",
    "ManufacturerModelName",
    "Modality",
    "NumberOfFrames",
    "PartialView",
    "PatientOrientation",
    "PhotometricInterpretation",
    "PresentationIntentType",
    "ProtocolName",
    "Rows",
    "SOPClassUID",
    "SamplesPerPixel",
    "SeriesDescription",
    "SpecificCharacterSet",
    "StudyDescription",
    "ViewCodeSequence",
    "ViewPosition",
    "AnatomicRegionSequence",
    "ViewModifierCodeSequence",
    "AcquisitionDeviceProcessingDescription",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "StudyDate",
    "TimezoneOffsetFromUTC",
]
_VRS = (
    "",
    "",
    "",
    "AE",
    "AS",
    "AT",
    "CS",
    "DA",
    "DS",
    "DT",
    "FD",
    "FL",
    "IS",
    "LO",
    "LT",
    "OB",
    "OW",
    "PN",
    "SH",
    "SQ",
    "SS",
    "ST",
    "TM",
    "UI",
)
_VRS += ("UL", "UN", "US", "UT", "ZZ")
_ITEMS = st.lists(
    st.tuples(st.sampled_from(["CodeValue", "CodingSchemeDesignator", "CodeMeaning", "ViewModifierCodeSequence"]), st.sampled_from(_NASTY)),
    max_size=4,
).map(
    lambda pairs: (
        (body := b"".join(struct.pack("<HH2sH", 8, 0x100, b"SH", len(value)) + value for _, value in pairs))
        and b"\xfe\xff\x00\xe0" + struct.pack("<I", len(body)) + body
    )
)
_VALUES = st.sampled_from(_NASTY) | st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "ignore")) | _ITEMS
#: (keyword, VR or "" for the right one, value); a keyword that begins with "-" is deleted.
Elements = Sequence[tuple[str, str, bytes]]
_ELEMENTS: st.SearchStrategy[Elements] = st.lists(
    st.tuples(st.sampled_from([*_ASKED, *(f"-{one}" for one in _ASKED)]), st.sampled_from(_VRS), _VALUES), max_size=6
)


def with_elements(elements: Elements, view: View = View.L_CC) -> bytes:
    """The data set of a mammogram in which these elements stand byte for byte."""
    ds = mammogram(view, PixelData=None)
    for keyword, _, _ in elements:
        if keyword.startswith("-"):
            ds.pop(keyword[1:], None)
    raws: list[RawDataElement] = []
    for keyword, vr, value in elements:
        if not keyword.startswith("-"):
            raws.append(raw(keyword, vr or dictionary_VR(keyword).split(" ")[0], value[:60_000]))
    return encoded(ds, *raws)


def view_holds(elements: Elements) -> None:
    """`resolve_view` itself never raises, and never says a view and a reason against it."""
    data = part10(with_elements(elements), sop_class_uid="1.2.840.10008.5.1.4.1.1.1.2", sop_instance_uid="1.2.3")
    try:
        header = unpack_header(pack_header(read_header(_written(data))))
    except (InvalidDicomError, *UNREADABLE) as error:
        assert not is_of_the_disk(error)
        return
    evidence = resolve_view(header)
    assert evidence.view is None or not (evidence.set_aside or evidence.doubt)
    assert evidence.view is None or evidence.view.laterality == evidence.laterality
    resolve(header)


def element_holds(elements: Elements) -> None:
    """The same through the whole way of a header."""
    header_holds(part10(with_elements(elements), sop_class_uid="1.2.840.10008.5.1.4.1.1.1.2", sop_instance_uid="1.2.3"))


# ---- bodies and queries ----

_PIECES = [
    b"\r",
    b"\n",
    b"-",
    b"--",
    b"b0",
    b"\r\n--b0",
    b"\r\n--b0--",
    b"--b0\r\n",
    b"\r\n\r\n",
    b"Content-Type: application/dicom\r\n",
    b": ",
    b" \t",
]
_BODIES = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=8), max_size=40).map(b"".join)


def _events(body: bytes, sizes: Sequence[int]) -> tuple[list[Any], str]:
    """Parts as (headers, content, whole), and why it ended."""
    reader = MultipartReader("b0")
    parts: list[Any] = []
    position = number = 0
    try:
        while position < len(body):
            size = sizes[number % len(sizes)]
            for event in reader.feed(body[position : position + size]):
                if isinstance(event, PartBegins):
                    parts.append([dict(event.headers), b"", False])
                elif isinstance(event, PartEnds):
                    parts[-1][2] = True
                else:
                    parts[-1][1] += event
            assert len(reader._buffer) < 8192 + 200 + size
            position, number = position + size, number + 1
        reader.close()
    except BadMultipart as problem:
        return parts, str(problem)
    return parts, ""


def multipart_holds(given: tuple[bytes, Sequence[int]]) -> None:
    """In whatever pieces a body comes, it is the same body: what is whole of it is the same."""
    body, sizes = given
    parts, ended = _events(body, sizes)
    at_once, ended_at_once = _events(body, [max(1, len(body))])
    assert [part for part in parts if part[2]] == [part for part in at_once if part[2]]
    assert ended == ended_at_once


_NAMES = [
    "PatientName",
    "PatientID",
    "StudyDate",
    "StudyTime",
    "StudyInstanceUID",
    "00100010",
    "0020000D",
    "ModalitiesInStudy",
    "Rows",
    "limit",
]
_NAMES += [
    "offset",
    "includefield",
    "fuzzymatching",
    "accept",
    "7FE00010",
    "RequestAttributesSequence.ScheduledProcedureStepID",
    "00400275.00400009",
]
_NAMES += ["AcquisitionDateTime", "PatientAge", "KVP", "00080005", "FFFFFFFF", "x" * 200, ""]
_WORDS = [
    "*",
    "?",
    "20260101",
    "20260101-",
    "-2026",
    "10-11",
    "1.2.3",
    "1.2.3,1.2.4",
    "all",
    "00100010,PatientID",
    "-1",
    "1e5",
    "1" * 30,
    "NaN",
    "\\",
]
_WORDS += [*TEXTS.values()]
_PAIRS = st.lists(st.tuples(st.sampled_from(_NAMES) | st.text(max_size=12), st.sampled_from(_WORDS) | st.text(max_size=30)), max_size=6)
_HEADERS = st.dictionaries(
    st.sampled_from(["00100010", "00100020", "00080020", "00080030", "0020000D", "00280010", "00180060", "00101010", "0008002A"]),
    st.fixed_dictionaries(
        {},
        optional={
            "Value": st.lists(st.none() | st.text(max_size=20) | st.integers() | st.floats() | st.just({"Alphabetic": "Doe^J"}), max_size=3)
        },
    ),
    max_size=4,
)


def query_holds(given: tuple[Sequence[tuple[str, str]], Mapping[str, Any]]) -> None:
    """A query is understood or refused in words that name no value."""
    pairs, header = given
    try:
        query = parse_query(pairs)
    except BadValue as problem:
        assert str(problem).isprintable()
        return
    assert query.offset >= 0 and (query.limit is None or query.limit >= 0)
    for warning in query.warnings:
        assert warning.isascii() and warning.isprintable()
    for match in query.matches:
        if _is_of_its_vr(match.key.vr, header.get(match.key.path[0], {}).get("Value", [])):
            assert match.meets(header) in (True, False)


def _is_of_its_vr(vr: str, values: Sequence[object]) -> bool:
    """Headers in the database are our own results': their values are of their VR."""
    numeric = vr in ("DS", "FD", "FL", "IS", "SL", "SS", "UL", "US")
    return all(value is None or isinstance(value, (int, float)) is numeric for value in values)


def accept_holds(text: str) -> None:
    """Content negotiation takes any header."""
    offers = (media_types.Offer(media_types.JSON), media_types.Offer(media_types.DICOM_XML))
    media_types.choose(media_types.parse_accept(text), offers)


# ---- rules ----

_CONDITIONS = st.recursive(
    st.sampled_from(
        [
            'Modality == "MG"',
            "PatientAge > 40",
            "NumViews == 4",
            'StudyDescription =~ "(?i)screen"',
            "true",
            "null",
            "Weekday",
            '"MG" in ModalitiesInStudy',
            "PatientAge >",
            "1 / 0",
            "9" * 400 + " > 1",
            "[1, 2] == 3",
            'Modality =~ "(a+)+"',
            "Modality.x",
            "f(1)",
            "$x",
            "'\\ud800'",
            "x" * 3000,
            "-1e999",
        ]
    ),
    lambda inner: (
        st.tuples(inner, st.sampled_from([" and ", " or ", " == ", " in ", " + ", " =~ ", " ? ", " : "]), inner).map("".join)
        | inner.map(lambda text: f"not ({text})")
        | inner.map(lambda text: f"({text}")
    ),
    max_leaves=6,
)
_CONFIG = b"""
[site]
timezone = "Europe/London"
[study]
side_words = { "links" = "L" }
[model]
card = "card.toml"
[[pacs]]
name = "archive"
ae_title = "ARCHIVE"
host = "10.0.0.1"
port = 104
[[rule]]
name = "a"
when = 'Modality == "MG" and PatientAge >= 40'
action = "analyse"
send_to = ["archive"]
priority = 3
[[rule.example]]
Modality = "MG"
PatientAge = 50
then = "analyse"
[[sender]]
ae_title = "ROOM1"
"""


def condition_holds(text: str) -> None:
    """A condition is one, or is refused in words."""
    try:
        check(text)
    except RuleError as problem:
        assert str(problem)


def config_holds(text: str) -> None:
    """A configuration is one, or every complaint says where in the file."""
    path = _folder() / "config.toml"
    try:
        found = load(path, {}, text=text)
    except ConfigErrors as errors:
        assert errors.complaints
        for complaint in errors.complaints:
            assert re.match(rf"{re.escape(str(path))}:[0-9]+: ", complaint), complaint
        return
    assert isinstance(found, Config)


def _as_config(given: tuple[str, Sequence[Change]]) -> None:
    name, changes = given
    config_holds(changed(_configs()[name], changes).decode("utf-8", "replace"))


@cache
def _configs() -> Mapping[str, bytes]:
    return {"small": _CONFIG, "shipped": (Path(__file__).parents[1] / "config.toml").read_bytes()}


def rule_holds(given: tuple[str, str]) -> None:
    condition, action = given
    text = _CONFIG.decode() + f"[[rule]]\nname = {toml(condition[:20])}\nwhen = {toml(condition)}\naction = {toml(action)}\n"
    config_holds(text)
    condition_holds(condition)


def toml(text: str) -> str:
    """A basic string of TOML."""
    escaped = "".join(
        f"\\u{ord(one):04x}" if ord(one) < 32 or one in '"\\\x7f' else one for one in text if not 0xD800 <= ord(one) <= 0xDFFF
    )
    return f'"{escaped}"'


# ---- pixels ----


@cache
def codestreams() -> Mapping[str, bytes]:
    """A frame of 64 x 48 pixels in each compressed transfer syntax that can be written here."""
    made = {}
    for syntax, plugin in (
        (syntaxes.RLELossless, "pydicom"),
        (syntaxes.JPEGLSLossless, "pyjpegls"),
        (syntaxes.JPEG2000Lossless, "pylibjpeg"),
    ):
        ds = image("fuzzed")
        ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
        made[str(syntax)] = get_frame(ds.PixelData, 0, number_of_frames=1)
    return made


def _sampled_codestreams() -> Mapping[str, bytes]:
    """Beside them, under every syntax whose header is read alike, what those of another begin with."""
    made = dict(codestreams())
    made[str(syntaxes.JPEGLosslessSV1)] = made[str(syntaxes.JPEGLSLossless)].replace(b"\xff\xf7", b"\xff\xc3", 1)
    made[str(syntaxes.JPEGBaseline8Bit)] = made[str(syntaxes.JPEGLSLossless)].replace(b"\xff\xf7", b"\xff\xc0", 1)
    made[str(syntaxes.HTJ2KLossless)] = made[str(syntaxes.JPEG2000Lossless)]
    return made


def size_holds(given: tuple[str, Sequence[Change]]) -> None:
    """A codestream has a size or none."""
    syntax, changes = given
    read = SIZE.get(syntax)
    if read is None:
        return
    size = read(changed(_sampled_codestreams()[syntax], changes))
    assert size is None or (isinstance(size, Size) and size.components >= 0 and size.precision >= 0)


@cache
def _decoder() -> Decoder:
    return Decoder()


def frame_holds(given: tuple[str, Sequence[Change]]) -> None:
    """The child gives a frame of the size that the header says, or words; it never blames the disk, and it never ends."""
    syntax, changes = given
    ds = image("fuzzed")
    ds.PixelData = encapsulate([changed(_sampled_codestreams()[syntax], changes).ljust(2, b"\0")])
    ds["PixelData"].is_undefined_length, ds["PixelData"].VR = True, "OB"
    ds.file_meta.TransferSyntaxUID = syntaxes.UID(syntax)
    path = _folder() / "frame"
    ds.save_as(path, enforce_file_format=True)
    try:
        frame = _decoder().decode(path, timeout_seconds=30)
    except DecodeFailed as failure:
        assert failure.reason
        assert failure.permanent, failure.reason  # a child that ended is a finding, though the service survives it
        return
    assert frame.pixels.shape == (64, 48)


def file_of_frame_holds(given: tuple[str, Sequence[Change]]) -> None:
    """The same of a whole file."""
    name, changes = given
    path = _folder() / "frame"
    path.write_bytes(changed(files()[name], changes))
    try:
        frame = _decoder().decode(path, timeout_seconds=30)
    except DecodeFailed as failure:
        assert failure.permanent, failure.reason
        return
    assert frame.pixels.ndim == 2


_WINDOWED = [
    "WindowCenter",
    "WindowWidth",
    "RescaleSlope",
    "RescaleIntercept",
    "PhotometricInterpretation",
    "PresentationLUTShape",
    "VOILUTFunction",
    "BitsStored",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelIntensityRelationshipSign",
    "ImagerPixelSpacing",
    "VOILUTSequence",
    "ImageLaterality",
]
_WINDOWS = st.lists(
    st.tuples(
        st.sampled_from(_WINDOWED),
        st.sampled_from(_VRS),
        st.sampled_from(
            [b"0", b"-1", b"1e308", b"-1e308", b"1e-320", b"nan", b"inf\\1", b"1\\2\\3", b"4095", b"\xff\xff", b"\0\0", b"SIGMOID"]
        )
        | _VALUES,
    ),
    max_size=5,
)


def picture_holds(elements: Elements) -> None:
    """Whatever the header says of windows and values, the model's image is made of numbers, or the worker says why there is none."""
    data = part10(with_elements(elements), sop_class_uid="1.2.840.10008.5.1.4.1.1.1.2", sop_instance_uid="1.2.3")
    try:
        header = unpack_header(pack_header(read_header(_written(data))))
    except (InvalidDicomError, *UNREADABLE):
        return
    pixels = breast_pixels(View.L_CC, rows=64, columns=48)
    for profile in ("presentation", "reference"):
        made = prepare(pixels, header, profile=profile, size=64)
        assert np.isfinite(made.grey).all()
        assert made.grey.min() >= 0 and made.grey.max() <= 1
    assert preview(pixels, header).dtype == np.uint8


TARGETS: Mapping[str, Target] = {
    "resolve_view": Target(_ELEMENTS, view_holds),
    "header of elements": Target(
        _ELEMENTS,
        element_holds,
        known=[
            [("PatientName", "SQ", b" ")],
            [("PatientName", "ZZ", b"")],
            [("AcquisitionDate", "LO", b"\x80"), ("SpecificCharacterSet", "UL", b"")],
        ],
    ),
    "header of bytes": Target(mutated(files()), lambda given: header_holds(changed(files()[given[0]], given[1]))),
    "multipart": Target(st.tuples(_BODIES, st.lists(st.integers(1, 30), min_size=1, max_size=8)), multipart_holds),
    "query": Target(st.tuples(_PAIRS, _HEADERS), query_holds),
    "accept": Target(st.text(alphabet='abc/*+;=q0.1," \t', max_size=60) | st.text(max_size=40), accept_holds),
    "rule": Target(st.tuples(_CONDITIONS | st.text(max_size=60), st.sampled_from(["analyse", "hold", "ignore", "x", ""])), rule_holds),
    "configuration": Target(mutated(_configs()), _as_config),
    "size of a codestream": Target(mutated(_sampled_codestreams()), size_holds),
    "frame in the child": Target(mutated(_sampled_codestreams()), frame_holds),
    "file in the child": Target(mutated(files()), file_of_frame_holds),
    "picture": Target(
        _WINDOWS,
        picture_holds,
        known=[
            [("WindowCenter", "ZZ", b"0")],
            [("WindowCenter", "FD", b"0")],
            [("VOILUTSequence", "AE", b"0")],
            [("VOILUTSequence", "", b"0")],
            [("WindowWidth", "AT", b"1e308")],
        ],
    ),
}


def close() -> None:
    """End the child that decodes, if there is one."""
    if _decoder.cache_info().currsize:
        _decoder().close()
        _decoder.cache_clear()
