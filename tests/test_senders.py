"""[[sender]]: settings of one calling AE title; what is read, and what is complained of and where."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fourview_process import SIMULATED_CARD
from mammograms_made import mammogram, uid
from pydicom import dcmread
from pydicom.charset import default_encoding
from pydicom.dataset import Dataset

from listener import parts, workplace
from listener.config import Config, ConfigErrors, load
from listener.keys import read_keys
from listener.scp import StorageScp
from pipeline import conclude
from pipeline import read as read_pixels
from pipeline.send import Pacs, SendOutcome
from pipeline.send import send as transmit
from store.header import name_character_set, pack_header, read_header, unpack_header
from store.pace import Pace
from store.study import ImageKind, View
from store.view import resolve_view

RULE = '\n[[rule]]\nname = "a"\nwhen = "true"\naction = "analyse"\n'


def read(folder: Path, text: str) -> Config:
    path = folder / "config.toml"
    path.write_text(text + RULE, encoding="utf-8")
    return load(path, {})


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigErrors) as errors:
        read(folder, text)
    [found] = errors.value.complaints
    return found.removeprefix(f"{folder}/")


def test_a_sender_without_a_pace_of_its_own_has_that_of_all(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        "[dicom]\nstudies_per_hour = 40\n"
        '[[sender]]\nae_title = " ARCHIVE "\nstudies_per_hour = 10\n'
        '[[sender]]\nae_title = "GANTRY"\nstudies_per_hour = 0\n'
        '[[sender]]\nae_title = "OTHER"\n',
    )
    assert [config.pace.of(title) for title in ("ARCHIVE", "GANTRY", "OTHER", "unknown", "archive", "")] == [10, 0, 40, 40, 40, 0]
    assert parts.alert_limits(config).pace == config.pace
    assert read(tmp_path, "").pace == Pace()


ONE = '[[sender]]\nae_title = "A"\n'
SET = "3: sender.default_character_set: "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[sender]]\nstudies_per_hour = 5", "1: sender.ae_title: missing; write ae_title = ..."),
        ('[[sender]]\nae_title = "A"\nstudies_per_hour = -1', "3: sender.studies_per_hour: should be greater than"),
        (f'[[sender]]\nae_title = "A"\nstudies_per_hour = {10**30}', "3: sender.studies_per_hour: should be less than or equal"),
        ('[[sender]]\nae_title = "A"\nstudies_per_hour = "many"', "3: sender.studies_per_hour: should be a valid integer"),
        ('[[sender]]\nae_title = "A"\nstudies_per_hours = 1', "3: sender.studies_per_hours: unknown key; did you mean"),
        ('[[sender]]\nae_title = "A TITLE OF 17 CHARS"', "2: sender.ae_title: an AE title has 1 to 16 printable"),
        ('[[sender]]\nae_title = "A"\n[[sender]]\nae_title = "A "', "4: sender.ae_title: there is already a [[sender]] A; join"),
        ('[[sender]]\nae_title = "A"\n[[sender]]\nae_title = "a"', "4: sender.ae_title: there is already a [[sender]] A, and"),
        ('[sender]\nae_title = "A"', "1: sender: must be a list of tables; write [[sender]]"),
        ("[dicom]\nstudies_per_hour = 1.5", "2: dicom.studies_per_hour: should be a valid integer"),
        (ONE + 'default_character_set = "ISO_IR_192"', SET + "'ISO_IR_192' is no defined term (PS3.3 C.12.1.1.2); did you mean"),
        (ONE + 'default_character_set = "gb18030"', SET + "'gb18030' is no defined term (PS3.3 C.12.1.1.2); did you mean GB18030?"),
        (ONE + 'default_character_set = "UTF-8"', SET + "'UTF-8' is no defined term (PS3.3 C.12.1.1.2); write one as"),
        (ONE + "default_character_set = '\\'", SET + "'' is no defined term"),
        (ONE + "default_character_set = '\\ISO_IR 192'", SET + "ISO_IR 192 stands alone; beside others"),
        (ONE + "default_character_set = 'ISO 2022 IR 6\\\\ISO 2022 IR 87'", SET + "'' is no"),
        (ONE + 'side_words = { CC = "L" }', "3: sender.side_words.CC: CC is a view of CID 4014 and is never a side"),
        (ONE + 'side_words = { LEFT = "R" }', "3: sender.side_words.LEFT: LEFT always says left; leave it out"),
        (ONE + 'side_words = { SIN = "L", sin = "L" }', "3: sender.side_words.sin: SIN is here twice"),
        (ONE + 'view_words = { OBL = "MLOO" }', "3: sender.view_words.OBL: no view of CID 4014; did you mean MLO?"),
        (ONE + 'view_words = { ML = "MLO" }', "3: sender.view_words.ML: ML is a view of CID 4014 itself"),
        (ONE + 'view_words = { SX = "MLO" }\n[study]\nside_words = { SX = "L" }', "3: sender.view_words.SX: SX is a side word as well"),
        (ONE + 'view_words = { SX = "MLO" }\n[[device]]\nmodel = "M"\nside_words = { SX = "L" }', "3: sender.view_words.SX: SX is"),
        (ONE + 'side_words = { SX = "L" }\n[[device]]\nmodel = "M"\nview_words = { SX = "MLO" }', "6: device.view_words.SX: SX is"),
        (ONE + 'synthetic_words = ["CC"]', "3: sender.synthetic_words: CC names a side or a view"),
        (ONE + 'distrust = ["ViewPositon"]', "3: sender.distrust: did you mean ViewPosition?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert complaint(tmp_path, text).startswith(f"config.toml:{said}")


# --------------------------------------------------------------------------------------------------------------------- words

SITE = '[study]\nside_words = { D = "R", E = "L" }\n'
SENDER = """[[sender]]
ae_title = "BUS"
side_words = { E = "R", SIN = "L" }
view_words = { OBL = "MLO", FRONT = "CC" }
synthetic_words = ["sum image"]
distrust = ["ImageLaterality"]
"""
DEVICE = """[[device]]
model = "Mammo 1"
side_words = { SIN = "R" }
view_words = { OBL = "ML" }
synthetic_words = ["S2D"]
distrust = ["ViewCodeSequence", "ViewPosition"]
"""
NOTHING: dict[str, Any] = dict.fromkeys(
    ("ImageLaterality", "Laterality", "PatientOrientation", "AnatomicRegionSequence", "ViewCodeSequence", "ViewPosition")
)


@pytest.mark.parametrize(
    ("text", "sender", "header", "expected"),
    [
        (SITE + SENDER, "BUS", NOTHING | {"SeriesDescription": "E CC"}, ("R", "CC")),  # before the site
        (SITE + SENDER, "bus", NOTHING | {"SeriesDescription": "E CC"}, ("L", "CC")),
        (SITE + SENDER, "BUS", NOTHING | {"SeriesDescription": "D OBL"}, ("R", "MLO")),  # beside the site
        (SITE + SENDER, "OTHER", NOTHING | {"SeriesDescription": "D OBL"}, (None, None)),
        (SITE + SENDER + DEVICE, "BUS", NOTHING | {"SeriesDescription": "SIN OBL"}, ("R", "ML")),  # the device before it
        (SITE + SENDER + DEVICE, "BUS", NOTHING | {"SeriesDescription": "E FRONT"}, ("R", "CC")),  # beside the device
        (SITE + SENDER + DEVICE, "BUS", NOTHING | {"SeriesDescription": "LEFT MLO"}, ("L", "MLO")),  # the Standard before all
        (SENDER, "BUS", {"SeriesDescription": "L CC"}, ("L", "CC")),
        (SENDER, "BUS", {"ImageLaterality": "R", "SeriesDescription": "E", "PatientOrientation": None}, (None, "CC")),
        (SENDER, "OTHER", {"ImageLaterality": "R", "SeriesDescription": "E", "PatientOrientation": None}, ("R", "CC")),
        (SENDER + DEVICE, "BUS", {"ImageLaterality": "R", "SeriesDescription": "L MLO"}, ("L", "MLO")),  # both distrust
    ],
)
def test_the_standard_outranks_the_device_that_the_sender_and_that_the_site(
    tmp_path: Path, text: str, sender: str, header: dict[str, Any], expected: tuple[str | None, str | None]
) -> None:
    dialect = read(tmp_path, text).dialect.of(sender)
    evidence = resolve_view(mammogram(View.L_CC, **header), dialect)
    assert (evidence.laterality, evidence.view_position) == expected


@pytest.mark.parametrize(("sender", "description", "kind"), [
    ("BUS", "Sum-Image", ImageKind.SYNTHETIC_2D), ("BUS", "S2D", ImageKind.SYNTHETIC_2D), ("OTHER", "S2D", ImageKind.SYNTHETIC_2D),
    ("OTHER", "Sum-Image", ImageKind.FFDM),
])  # fmt: skip
def test_synthetic_words_of_sender_and_device_add_up(tmp_path: Path, sender: str, description: str, kind: ImageKind) -> None:
    dialect = read(tmp_path, SENDER + DEVICE).dialect.of(sender)
    assert resolve_view(mammogram(View.L_CC, SeriesDescription=description), dialect).kind is kind


# -------------------------------------------------------------------------------------------------------------- character set


def unnamed(path: Path, character_set: str, **texts: Any) -> Path:
    """A mammogram whose texts are in this character set, which it does not name."""
    whole = mammogram(View.L_CC, **texts)
    whole.SpecificCharacterSet = character_set.split("\\")
    buffer = BytesIO()
    whole.save_as(buffer, enforce_file_format=True)
    ds = dcmread(BytesIO(buffer.getvalue()))
    del ds.SpecificCharacterSet
    ds.set_original_encoding(*ds.original_encoding, default_encoding)  # the bytes stay
    ds.save_as(path, enforce_file_format=True)
    return path


TEXTS = {
    "GB18030": "王^小明",
    "GBK": "王^小明",
    "ISO_IR 192": "홍^길동",
    "ISO 2022 IR 149": "홍^길동",
    "ISO_IR 144": "Люкceмбypг",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎",
    "ISO_IR 100": "Müller^Jörg",
    "ISO_IR 166": "นามสกุล",
}


@pytest.mark.filterwarnings("ignore:Found unknown escape sequence")  # of what is read without a character set
@pytest.mark.parametrize("character_set", TEXTS)
def test_text_without_a_character_set_is_read_in_that_of_its_sender(tmp_path: Path, character_set: str) -> None:
    name = TEXTS[character_set]
    path = unnamed(tmp_path / "one.dcm", character_set, PatientName=name, SeriesDescription=name.split("=")[-1])
    config = read(tmp_path, f"{ONE}default_character_set = '{character_set}'")
    assumed = config.dialect.of("A").sender.character_set
    assert read_keys(path, assumed).patient_name == name
    assert (read_keys(path).patient_name == name) is (character_set == "ISO_IR 100"), "as which pydicom reads what says nothing"
    before, header = read_header(path), read_header(path)
    assert name_character_set(header, assumed)
    for keyword in ("PatientName", "SeriesDescription", "PatientID"):
        assert header.get_item(keyword).value == before.get_item(keyword).value, "the bytes stay"
    read_back = unpack_header(pack_header(header))
    assert (str(read_back.PatientName), read_back.SeriesDescription) == (name, name.split("=")[-1])


def test_a_named_character_set_is_believed_and_one_that_nobody_needs_is_not_assumed(tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    mammogram(View.L_CC, PatientName="홍^길동").save_as(path, enforce_file_format=True)  # in ISO_IR 192, and says so
    header = read_header(path)
    assert not name_character_set(header, "GB18030") and header.SpecificCharacterSet == "ISO_IR 192"
    assert read_keys(path, "GB18030").patient_name == "홍^길동"
    plain = read_header(unnamed(path, "ISO_IR 192"))
    assert not name_character_set(plain, "GB18030") and "SpecificCharacterSet" not in plain
    assert not name_character_set(read_header(unnamed(path, "GB18030", PatientName="王")), "")


def test_a_text_in_an_item_alone_needs_one_too(tmp_path: Path) -> None:
    item = Dataset()
    item.RequestedProcedureDescription = "유방촬영"
    path = unnamed(tmp_path / "one.dcm", "ISO 2022 IR 149", RequestAttributesSequence=[item])
    header = read_header(path)
    assert name_character_set(header, "ISO 2022 IR 149")
    assert unpack_header(pack_header(header)).RequestAttributesSequence[0].RequestedProcedureDescription == "유방촬영"


def test_the_whole_way_of_a_name_that_says_no_character_set(
    tmp_path: Path, sqlite_template: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a real C-STORE from two senders; into the listing and the result of that one which has a default."""
    (tmp_path / "card.toml").write_text(SIMULATED_CARD)
    shutil.copy(sqlite_template, tmp_path / "fourview.db")
    config = read(
        tmp_path,
        f"""[dicom]
port = {free_port()}
[store]
database = "sqlite:///fourview.db"
files = "files"
min_free_gib = 0
[study]
wait_for_retake_seconds = 0
give_up_after_seconds = 0
when_incomplete = "analyse"
[model]
card = "card.toml"
allow_untrained = true
[[sender]]
ae_title = "SEOUL"
default_character_set = "ISO 2022 IR 149"
side_words = {{ "좌" = "L" }}
""",
    )
    monkeypatch.setattr(workplace, "Worker", lambda shop, **_: shop)
    shop: Any = workplace.Workplace(config, index=0, beat=lambda *_: None).worker
    header = NOTHING | {"PatientName": "홍^길동", "SeriesDescription": "좌 CC"}
    scp = StorageScp(
        ae_title="FOURVIEW",
        host="127.0.0.1",
        port=config.dicom.port,
        archive=shop.archive,
        files=shop.files,
        character_sets={title: one.character_set for title, one in config.dialect.senders.items()},
    )
    us = Pacs(name="us", ae_title="FOURVIEW", host="127.0.0.1", port=config.dicom.port)
    with scp:
        for sender in ("SEOUL", "OTHER"):
            path = unnamed(tmp_path / f"{sender}.dcm", "ISO 2022 IR 149", study=sender, **header)
            [answer] = transmit(us, sender, [path])
            assert answer.outcome is SendOutcome.SENT
    for _ in range(6):
        for claim in shop.archive.claim_studies():
            if conclude.advance(shop, claim.row, claim.workflow_id):
                conclude.conclude(shop, claim.row, claim.workflow_id)
        for claim in shop.scoring.claim():
            read_pixels.read_image(shop, int(claim.row), claim.workflow_id)
    shop.decoder.close()
    search = parts.open_search(config)
    ours, other = (search.study(uid(sender)) for sender in ("SEOUL", "OTHER"))
    assert ours["patient"]["patient_name"] == "홍^길동" and other["patient"]["patient_name"] != "홍^길동"
    [image] = ours["images"]
    assert (image["view"], image["laterality_source"]) == ("L-CC", "text of SeriesDescription")
    lines = [one["text"] for one in ours["timeline"]]
    said = "is read as ISO 2022 IR 149: it names no character set, and that is its sender's"
    assert sum(said in line for line in lines) == 1 and not any("character set" in one["text"] for one in other["timeline"])
    [version] = ours["runs"]
    assert other["runs"] == []
    for one in version["objects"]:
        ds = dcmread(BytesIO(shop.files.read(one["file_name"])))
        assert (str(ds.PatientName), ds.SpecificCharacterSet) == ("홍^길동", "ISO_IR 192")
