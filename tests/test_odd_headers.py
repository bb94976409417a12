"""Odd headers over a real association: answered with success, kept byte for byte, and the study is decided or held with the reason.

What a device declares about its text (PS3.3 C.12.1.1.2), and whether its values suit their VR (PS3.5 6.2), never decides whether an
object is stored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from headers_made import a_sequence, encoded, part10, raw
from mammograms_made import code
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.presentation import build_context
from stepped_store import SteppedStore, image

from listener.scp import StorageScp
from store import tables
from store.header import pack_header, read_header, unpack_header
from store.study import HANGING_ORDER
from store.view import UNREADABLE as UNREADABLE_HEADER
from store.view import Resolved, resolve, unreadable

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

UTF8, IR_149, IR_87 = (raw("SpecificCharacterSet", "CS", value) for value in (b"ISO_IR 192", b"\\ISO 2022 IR 149 ", b"\\ISO 2022 IR 87"))
KOREAN = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B "
CHINESE = "王^小东".encode("gb18030")
DESCRIPTION = "乳腺摄影 左".encode("gb18030")


def name(value: bytes) -> RawDataElement:
    return raw("PatientName", "PN", value + b" " * (len(value) % 2))


def description(value: bytes) -> RawDataElement:
    return raw("SeriesDescription", "LO", value + b" " * (len(value) % 2))


@dataclass(frozen=True)
class Odd:
    """What all four images of an exam have in common that they should not have."""

    why: str
    raws: tuple[RawDataElement, ...]
    attributes: dict[str, Any] = field(default_factory=dict)  # None deletes one


SIDELESS = {"ImageLaterality": None, "PatientOrientation": None}
VIEWLESS = {"ViewPosition": None, "ViewCodeSequence": None}

#: The sides and views are plain: the exam is analysed, whatever else is odd.
DECIDED = (
    Odd("Korean, ISO 2022", (IR_149, name(KOREAN))),
    Odd("Japanese, ISO 2022", (IR_87, name(JAPANESE))),
    Odd("Korean where Japanese is declared", (IR_87, name(KOREAN))),
    Odd("an escape that never ends", (IR_149, name(b"Hong^Gildong=\x1b$)"))),
    Odd("GB18030 declared as UTF-8", (UTF8, name(CHINESE), description(DESCRIPTION))),
    Odd("GB18030 without a declaration", (name(CHINESE), description(DESCRIPTION)), {"SpecificCharacterSet": None}),
    Odd("GB18030 in the Patient ID", (UTF8, raw("PatientID", "LO", CHINESE + b" " * (len(CHINESE) % 2)))),
    Odd("UTF-8 that is cut", (UTF8, name("홍^길동".encode()[:-1]))),
    Odd("an unknown character set", (raw("SpecificCharacterSet", "CS", b"ISO_IR 999"), name(b"Doe^J\xfc"))),
    Odd("a character set that is none", (raw("SpecificCharacterSet", "CS", b"\xff\xfe\\\\x"), name(b"Doe^J\xfc"))),
    Odd("many character sets", (raw("SpecificCharacterSet", "CS", b"ISO_IR 192\\ISO_IR 100\\ISO 2022 IR 58 "), name(CHINESE))),
    Odd("an empty character set", (raw("SpecificCharacterSet", "CS", b""), name(b"Doe^J\xfc"))),
    Odd("a character set padded with NULs", (raw("SpecificCharacterSet", "CS", b"ISO_IR 192\0\0"), name("홍^길동".encode()))),
    Odd("NULs in text", (name(b"Doe^Jane\0\0"), raw("PatientID", "LO", b"P1\0\0"), description(b"\0\0\0\0"))),
    Odd("NULs amid text", (name(b"Doe\0^Jane\0\0\0"), raw("PatientID", "LO", b"P\0001\0"), description(b"a\0b\0"))),
    Odd("NULs in codes", (raw("Modality", "CS", b"MG\0\0"), raw("PartialView", "CS", b"NO\0\0"), raw("PositionerType", "CS", b"\0\0"))),
    Odd("a date that is none", (raw("StudyDate", "DA", b"yesterday "), raw("AcquisitionTime", "TM", b"noon"))),
    Odd("a date of old", (raw("StudyDate", "DA", b"2026.11.20"), raw("AcquisitionDate", "DA", b"2026.11.20"))),
    Odd("numbers that are none", (raw("InstanceNumber", "IS", b"1st "), raw("WindowCenter", "DS", b"half"), raw("KVP", "DS", b"a bit "))),
    Odd("a name in LO", (raw("PatientName", "LO", b"Doe^Jane"),)),
    Odd("a name in UN", (raw("PatientName", "UN", b"Doe^Jane"),)),
    Odd("a name in a sequence", (a_sequence("PatientName"), a_sequence("PatientBirthDate"))),
    Odd("a sequence for a description", (a_sequence("SeriesDescription"), a_sequence("ProtocolName"), a_sequence("StudyDescription"))),
    Odd("a text for a region", (raw("AnatomicRegionSequence", "SH", b"T-04030 "),)),
    Odd("a code for a view's sequence", (raw("ViewCodeSequence", "CS", b"CC"),)),
    Odd("a sequence for a view's position", (a_sequence("ViewPosition"),)),
    Odd("a sequence for the orientation", (a_sequence("PatientOrientation"),)),
    Odd("a factor of two bytes", (raw("EstimatedRadiographicMagnificationFactor", "FD", b"\x00\x01"),)),
    Odd("a tag of nobody", (raw("PatientComments", "OB", b"\xff\x00\xff\x00"),)),
)

#: No slot can be filled without a guess.
UNDECIDED = (
    Odd("a sequence for the side", (a_sequence("ImageLaterality"),), {"PatientOrientation": None}),
    Odd("two sides", (raw("ImageLaterality", "CS", b"L\\R "),), {"PatientOrientation": None}),
    Odd("a side in GB18030", (UTF8, description(DESCRIPTION)), SIDELESS),
    Odd("a view in Korean", (IR_149, description(b"\x1b$)C" + "좌".encode("euc_kr"))), {**SIDELESS, **VIEWLESS}),
    Odd("a text for a view's sequence", (raw("ViewCodeSequence", "LO", b"cranio-caudal "),), {"ViewPosition": None}),
    Odd("two views", (raw("ViewPosition", "CS", b"CC\\MLO"),), {"ViewCodeSequence": None}),
    Odd("the region contradicts half of the sides", (), {"AnatomicRegionSequence": [code("80248007", "SCT", "Left breast")]}),
    Odd("a sequence for the modality", (a_sequence("Modality"),)),
)

#: Character sets at which a library may give up reading. What is said of the images is open; that they are kept is not.
BEYOND_READING = (
    Odd("a number for the character set", (raw("SpecificCharacterSet", "US", b"\xc0\x00"), name(b"Doe^Jane"))),
    Odd("half a number for the character set", (raw("SpecificCharacterSet", "FD", b"\xc0\x00"), name(b"Doe^Jane"))),
    Odd("a tag for the character set", (raw("SpecificCharacterSet", "AT", b"\x08\x00\x05\x00"), name(b"Doe^Jane"))),
    Odd("a sequence for the character set", (a_sequence("SpecificCharacterSet"), name(b"Doe^Jane"))),
    Odd("NULs amid the character set", (raw("SpecificCharacterSet", "CS", b"ISO\0IR 192 "), name(b"Doe^Jane"))),
    Odd("NULs for the character set", (raw("SpecificCharacterSet", "CS", b"\0\0\\\0"), name(b"Doe^Jane"))),
)


class Door:
    """A listening receiver before the stepped store's archive and files, and a sender of bytes."""

    def __init__(self, scp: StorageScp, stepped: SteppedStore, folder: Path) -> None:
        self._scp, self._stepped, self._folder = scp, stepped, folder

    def send(self, *sent: tuple[Dataset, bytes]) -> list[int]:
        """The statuses of C-STOREs over one association; each data set goes as the bytes beside it."""
        classes = {str(ds.SOPClassUID) for ds, _ in sent}
        contexts = [build_context(one, ExplicitVRLittleEndian) for one in classes]
        assoc = AE(ae_title="GANTRY").associate("127.0.0.1", self._scp.port, contexts=contexts, ae_title="FOURVIEW")
        assert assoc.is_established
        statuses = []
        for number, (ds, data_set) in enumerate(sent):
            path = self._folder / f"{number}.dcm"
            path.write_bytes(part10(data_set, sop_class_uid=ds.SOPClassUID, sop_instance_uid=ds.SOPInstanceUID))
            statuses.append(int(assoc.send_c_store(path).Status))
        assoc.release()
        return statuses

    def kept(self) -> dict[str, bytes]:
        """SOP Instance UID -> the file that was kept of it."""
        rows = self._stepped.rows(sa.select(tables.instance.c.sop_instance_uid, tables.instance.c.file_name))
        return {row.sop_instance_uid: self._stepped.files.path(row.file_name).read_bytes() for row in rows}


@pytest.fixture
def door(stepped: SteppedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setattr(tempfile, "tempdir", None)  # restored after the test: StorageScp sets it for the process
    folder = tmp_path / "sent"
    folder.mkdir()
    with StorageScp(ae_title="FOURVIEW", host="127.0.0.1", port=0, archive=stepped.archive, files=stepped.files) as scp:
        yield Door(scp, stepped, folder)


def exam(odd: Odd) -> list[tuple[Dataset, bytes]]:
    """The four images of a study of their own, and the bytes that are sent of them."""
    images = [image(view, study=odd.why, **odd.attributes) for view in HANGING_ORDER]
    return [(ds, encoded(ds, *odd.raws)) for ds in images]


def assert_kept(door: Door, exams: Mapping[str, list[tuple[Dataset, bytes]]]) -> None:
    """Every object is answered with success, and its bytes stand in its file as they were sent."""
    answered = [(why, ds, data_set) for why, sent in exams.items() for ds, data_set in sent]
    statuses = door.send(*((ds, data_set) for _, ds, data_set in answered))
    assert {why: status for (why, *_), status in zip(answered, statuses, strict=True) if status != 0x0000} == {}
    kept = door.kept()
    for why, ds, data_set in answered:
        assert kept[str(ds.SOPInstanceUID)].endswith(data_set), why


def assert_said(study: dict[str, Any]) -> None:
    """The study's state has a reason in words, and so has every image that fills no slot."""
    assert " " in study["state_reason"], study
    assert [one["sop_instance_uid"] for one in study["images"] if one["view"] is None and " " not in one["disposition_reason"]] == []


def advance(stepped: SteppedStore, study: str) -> bool:
    """As SteppedStore does, but a header that cannot be read is taken in as such, as a worker does."""
    resolved: dict[int, tuple[Resolved, bytes | None]] = {}
    for one in stepped.archive.unresolved(study):
        try:
            packed = pack_header(read_header(stepped.files.path(one.file_name)))
            resolved[one.instance_id] = (resolve(unpack_header(packed)), packed)
        except UNREADABLE_HEADER as error:
            resolved[one.instance_id] = (unreadable(f"its header could not be read: {type(error).__name__}"), None)
    return stepped.archive.advance(study, resolved, stepped.policy, lambda *_: stepped.ruling)


def test_odd_headers_with_plain_views_are_analysed(door: Door, stepped: SteppedStore) -> None:
    exams = {odd.why: exam(odd) for odd in DECIDED}
    assert_kept(door, exams)
    stepped.settle()
    assert {why: stepped.state(why) for why in exams} == dict.fromkeys(exams, "analysed")
    for why, sent in exams.items():
        shown = {view.value: str(ds.SOPInstanceUID) for view, (ds, _) in zip(HANGING_ORDER, sent, strict=True)}
        assert stepped.selected(study=why) == shown, why


def test_odd_headers_without_plain_views_are_ignored_or_held_in_words(door: Door, stepped: SteppedStore) -> None:
    exams = {odd.why: exam(odd) for odd in UNDECIDED}
    assert_kept(door, exams)
    stepped.settle()
    for why in exams:
        assert stepped.state(why) in ("ignored", "held"), why
        assert stepped.versions(why) == [], why
        assert_said(stepped.study(why))


def test_a_character_set_that_cannot_be_read_decides_nothing_but_itself(
    door: Door, stepped: SteppedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    exams = {odd.why: exam(odd) for odd in BEYOND_READING}
    assert_kept(door, exams)
    monkeypatch.setattr(stepped, "advance", lambda study: advance(stepped, study))
    stepped.settle()
    for why in exams:
        assert stepped.state(why) in ("analysed", "ignored", "held"), why
        if stepped.state(why) != "analysed":
            assert_said(stepped.study(why))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((raw("SpecificCharacterSet", "CS", b"ISO_IR 100"), name(b"M\xfcller^Anna")), (UTF8, name("Müller^Anna".encode()))),
        ((IR_149, name(KOREAN)), (UTF8, name("Hong^Gildong=洪^吉洞=홍^길동".encode()))),
        ((UTF8, name(CHINESE)), (raw("SpecificCharacterSet", "CS", b"GB18030 "), name(CHINESE))),
        ((name(b"Doe^Jane\0"),), (name(b"Doe^Jane "),)),
    ],
    ids=["Latin 1 and UTF-8", "ISO 2022 and UTF-8", "GB18030 and a false UTF-8", "padding"],
)
def test_one_patient_in_two_character_sets_is_one_patient(
    door: Door, stepped: SteppedStore, first: tuple[RawDataElement, ...], second: tuple[RawDataElement, ...]
) -> None:
    """The same Patient ID and birth date: whatever became of the name on its way, the study is not held for it."""
    images = [image(view) for view in HANGING_ORDER]
    assert_kept(door, {"exam": [(ds, encoded(ds, *(first if number < 2 else second))) for number, ds in enumerate(images)]})
    stepped.settle()
    assert stepped.state() == "analysed", stepped.study()["state_reason"]
