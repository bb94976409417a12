"""Both result objects together: identifiers, copied patient data, reproducibility, and headers that are odd."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from mammograms_made import mammogram
from pydicom import dcmread
from pydicom.dataset import Dataset
from reports_made import (
    INSTALLATION,
    KOREAN,
    MODEL,
    PREDECESSORS,
    VARIANTS,
    as_received,
    built_variant,
    made_report,
    reported_view,
    withdrawn_report,
)

from pipeline import wording
from pipeline.report import COPIED_KEYWORDS, build, copied_header
from pipeline.report.uids import derived_uid
from store.study import HANGING_ORDER, Installation, ModelIdentity, Outcome, Predecessor, View
from store.view import COPIED_OF_ITEMS, DEMOGRAPHICS

SOURCE_SUFFIXES = {".py", ".html", ".js", ".css", ".toml"}
Verified = Callable[[bytes], list[str]]


def built(report: Any, verified: Verified) -> tuple[Dataset, Dataset]:
    """The SR and the page of `report`, checked by dciodvfy and read back from their bytes."""
    objects = build(report)
    assert [one.kind for one in objects] == ["sr", "page"]
    for one in objects:
        verified(one.data)
    structured_report, page = (dcmread(BytesIO(one.data)) for one in objects)
    return structured_report, page


def said(ds: Dataset) -> str:
    """Every value of `ds` and of its items, but the pixels."""
    return "\n".join(str(element.value) for element in ds.iterall() if element.VR not in {"OB", "OW", "SQ"})


def test_both_objects_belong_to_the_study_and_to_series_of_their_own(verified: Verified) -> None:
    report = made_report()
    structured_report, page = built(report, verified)
    sources = [one.header for one in report.views]
    for ds in (structured_report, page):
        assert ds.StudyInstanceUID == report.study_instance_uid
        assert ds.SeriesDescription == "AI result - NOT FOR DIAGNOSTIC USE"
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert re.fullmatch(r"2\.25\.[1-9][0-9]*", ds.SOPInstanceUID) and len(ds.SOPInstanceUID) <= 64
        assert (ds.Manufacturer, ds.SoftwareVersions, ds.DeviceSerialNumber) == ("Fourview", "0.1.0", "a1b2c3")
        assert ds.Modality != "MG"
    series = {structured_report.SeriesInstanceUID, page.SeriesInstanceUID, sources[0].SeriesInstanceUID}
    assert len(series) == 3


def test_times_are_local_to_the_installation(verified: Verified) -> None:
    for ds in built(made_report(), verified):
        assert (ds.ContentDate, ds.ContentTime) == ("20261121", "073015")
        assert (ds.InstanceCreationDate, ds.InstanceCreationTime) == ("20261121", "073015")
        assert ds.TimezoneOffsetFromUTC == "+0900"


def test_a_new_version_is_a_new_object_in_the_same_series(verified: Verified) -> None:
    first = built(made_report(), verified)
    second = built(made_report(cause="d" * 64, version_number=2, predecessors=PREDECESSORS), verified)
    for old, new in zip(first, second, strict=True):
        assert old.SOPInstanceUID != new.SOPInstanceUID
        assert old.SeriesInstanceUID == new.SeriesInstanceUID
    assert second[0].InstanceNumber > first[0].InstanceNumber, "the last SR of a series is the current one"
    assert second[1].InstanceNumber < first[1].InstanceNumber, "the first page of a stack is the current one"


def test_a_new_version_of_the_model_stays_in_the_series_but_meaningless_numbers_never_do() -> None:
    series = {
        name: build(made_report(model=model))[0].ds.SeriesInstanceUID
        for name, model in {
            "1.2.0": MODEL,
            "1.3.0": replace(MODEL, version="1.3.0", weights_sha256="cd" * 32),
            "untrained": replace(MODEL, trained=False),
            "simulated": replace(MODEL, engine="simulated", weights_sha256=""),
            "other": replace(MODEL, name="other"),
        }.items()
    }
    assert series["1.2.0"] == series["1.3.0"]
    assert len(set(series.values())) == 4


@pytest.mark.parametrize("model", [MODEL, replace(MODEL, trained=False)], ids=["trained", "untrained"])
def test_a_withdrawn_version_lies_beside_what_it_replaces(model: ModelIdentity, verified: Verified) -> None:
    first = built(made_report(model=model), verified)
    withdrawn = built(withdrawn_report(model=model), verified)
    for old, new in zip(first, withdrawn, strict=True):
        assert (old.SeriesInstanceUID, old.SeriesDescription) == (new.SeriesInstanceUID, new.SeriesDescription)
        assert (old.PatientID, old.StudyInstanceUID, old.AccessionNumber) == (new.PatientID, new.StudyInstanceUID, new.AccessionNumber)
        assert old.SOPInstanceUID != new.SOPInstanceUID
        assert "must not be used" not in said(old)
        assert "WITHDRAWN: the earlier result of this study must not be used" in said(new)
    assert withdrawn[0].InstanceNumber > first[0].InstanceNumber and withdrawn[1].InstanceNumber < first[1].InstanceNumber


@pytest.mark.parametrize(
    ("change", "word"),
    [({"trained": False}, "UNTRAINED"), ({"engine": "simulated"}, "SIMULATED"), ({"engine": "simulated", "trained": False}, "SIMULATED")],
)
def test_every_output_of_a_meaningless_model_says_so(change: dict[str, Any], word: str, verified: Verified) -> None:
    structured_report, page = built(made_report(model=replace(MODEL, **change)), verified)
    assert word in structured_report.SeriesDescription and word in page.SeriesDescription
    assert len(structured_report.SeriesDescription) <= 64
    assert f"MEANINGLESS NUMBERS - {word} MODEL" in said(structured_report)
    assert f"MEANINGLESS NUMBERS - {word} MODEL" in page.ImageComments


BUILD_ELSEWHERE = """
import hashlib, json
from reports_made import VARIANTS
from pipeline.report import build
print(json.dumps({
    f"{name} {one.kind}": hashlib.sha256(one.data).hexdigest()
    for name, make in VARIANTS.items() for one in build(make())
}))
"""


def test_building_again_in_a_fresh_process_gives_the_same_bytes() -> None:
    root = Path(__file__).parent.parent

    def elsewhere(hash_seed: str, timezone: str) -> Any:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "TZ": timezone, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
        ended = subprocess.run(
            [sys.executable, "-c", BUILD_ELSEWHERE], env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        return json.loads(ended.stdout)

    once, again = elsewhere("1", "UTC"), elsewhere("4242", "Pacific/Auckland")
    assert once == again
    assert set(once) == {f"{name} {kind}" for name in VARIANTS for kind in ("sr", "page")}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_report_is_valid(name: str, verified: Verified) -> None:
    """The only warnings are those about the private codes, whose scheme is identified in the object."""
    _, objects = built_variant(name)
    assert [warning for one in objects for warning in verified(one.data) if "99FOURVIEW" not in warning] == []


def test_the_bytes_are_a_part_10_file_of_the_data_set() -> None:
    for one in build(made_report()):
        assert one.data[128:132] == b"DICM"
        read = dcmread(BytesIO(one.data))
        assert read.to_json_dict() == one.ds.to_json_dict()
        assert read.file_meta.ImplementationVersionName == "FOURVIEW"


NAMES = {
    "Korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "Korean in UTF-8": ("ISO_IR 192", "Hong^Gildong=洪^吉洞=홍^길동"),
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "Chinese with a backslash inside a character": ("GB18030", "=乗^一"),
    "Greek": ("ISO_IR 126", "Διονυσιος"),
    "Latin 1": ("ISO_IR 100", "Müller^Ünal"),
    "one component": ("ISO_IR 100", "Bono"),
    "ASCII, no character set": (None, "Doe^Jane"),
}


@pytest.mark.parametrize(("character_set", "name"), NAMES.values(), ids=list(NAMES))
def test_names_of_every_character_set_survive(character_set: Any, name: str, verified: Verified, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        objects = built(made_report(every_header={"SpecificCharacterSet": character_set, "PatientName": name}), verified)
    for ds in objects:
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert str(ds.PatientName) == name
    assert not any(name in record.getMessage() for record in caplog.records), "no name in a log"


ODD_HEADERS: dict[str, dict[str, Any]] = {
    "nothing about the patient": dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge")),
    "nothing about the study": dict.fromkeys(("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName")),
    "no equipment": dict.fromkeys(("Manufacturer", "ManufacturerModelName", "InstitutionName", "DeviceSerialNumber", "SoftwareVersions")),
    "no geometry": dict.fromkeys(("PatientOrientation", "ImagerPixelSpacing", "ViewCodeSequence", "ViewPosition", "ImageLaterality")),
    "sex in words": {"PatientSex": "FEMALE"},
    "sex in lower case": {"PatientSex": "f"},
    "dates with dots": {"PatientBirthDate": "1970.01.01", "StudyDate": "2026.11.20", "StudyTime": "10:15:00"},
    "dates that are none": {"PatientBirthDate": "19700000", "StudyDate": "20261345", "StudyTime": "9999"},
    "age without zeros": {"PatientAge": "56Y"},
    "age in words": {"PatientAge": "old"},
    "weight with a comma": {"PatientWeight": None, "PatientSize": None, "PatientAge": "0056Y"},
    "a long description": {"StudyDescription": "Mammography " * 9},
    "a backslash in the description": {"StudyDescription": "MG\\Screening"},
    "two manufacturers": {"Manufacturer": "Alpha\\Beta"},
    "three orientations": {"PatientOrientation": ["A", "R", "F"]},
    "one spacing": {"ImagerPixelSpacing": ["0.1"]},
    "a spacing of zero": {"ImagerPixelSpacing": ["0", "0"]},
    "a private SOP class": {"SOPClassUID": "1.2.840.113619.4.26"},
}


@pytest.mark.parametrize("odd", ODD_HEADERS.values(), ids=list(ODD_HEADERS))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_header_stops_a_result(odd: dict[str, Any], verified: Verified) -> None:
    structured_report, page = built(made_report(every_header=odd), verified)
    assert len(structured_report.ContentSequence) > 8
    assert page.Rows > 0


@pytest.mark.parametrize(
    ("keyword", "raw", "copied"),
    [
        ("PatientSex", "f", "F"),
        ("PatientSex", "FEMALE", None),
        ("PatientBirthDate", "1970.01.02", "19700102"),
        ("PatientBirthDate", "19701301", None),
        ("StudyTime", "10:15:59.5", "101559.5"),
        ("StudyTime", "1015", "1015"),
        ("StudyTime", "2515", None),
        ("PatientAge", "56Y", "056Y"),
        ("StudyDescription", "MG\\Screening", "MG/Screening"),
        ("PatientID", " P1 ", "P1"),
        ("PatientID", "P" * 70, "P" * 70),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_values_are_cleaned_but_identifiers_never_changed(keyword: str, raw: str, copied: str | None) -> None:
    ds = Dataset()
    setattr(ds, keyword, raw)
    assert copied_header([ds]).get(keyword) == copied


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_values_that_cannot_be_read_at_all_are_left_out(verified: Verified) -> None:
    """Bytes as a broken device writes them: letters in a decimal, a sequence with the VR of a text, an unknown character set."""
    views = []
    for view in HANGING_ORDER:
        ds = mammogram(view, PatientWeight="61.5", SpecificCharacterSet="ISO_IR 100", PatientName="Doe^Jane")
        buffer = BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
        data = buffer.getvalue()
        assert b"61.5" in data and b"ISO_IR 100" in data
        data = data.replace(b"61.5", b"6l.S").replace(b"ISO_IR 100", b"ISO_IR 999")
        views.append(reported_view(view, header=dcmread(BytesIO(data), stop_before_pixels=True)))
    for ds in built(made_report(*views), verified):
        assert "PatientWeight" not in ds
        assert str(ds.PatientName) == "Doe^Jane"


def test_each_value_comes_from_the_first_view_in_hanging_order_that_has_it(verified: Verified) -> None:
    report = made_report(
        reported_view(View.R_CC, header=as_received(mammogram(View.R_CC, AccessionNumber="", StudyDescription="from R-CC"))),
        reported_view(View.L_CC, header=as_received(mammogram(View.L_CC, AccessionNumber="from L-CC", StudyDescription="from L-CC"))),
    )
    for ds in built(report, verified):
        assert (ds.AccessionNumber, ds.StudyDescription) == ("from L-CC", "from R-CC")


def test_copied_header_is_exactly_what_is_copied(verified: Verified) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "24623-7", "LN", "MG Breast screening"
    request = Dataset()
    request.RequestedProcedureID, request.RequestedProcedureDescription = "RP7", "Screening"
    report = made_report(
        every_header={
            "IssuerOfPatientID": "HOSPITAL",
            "PatientSize": "1.68",
            "PatientWeight": "61.5",
            "StudyDescription": "Mammography",
            "ReferringPhysicianName": "Roe^Richard",
            "ProcedureCodeSequence": [code],
            "RequestAttributesSequence": [request],
        }
    )
    copied = copied_header(report.headers)
    assert set(copied) == set(COPIED_KEYWORDS)
    structured_report, page = built(report, verified)
    in_request = {"RequestedProcedureID", "RequestedProcedureDescription"}
    for ds in (structured_report, page):
        plain = copied.keys() - in_request - {"ProcedureCodeSequence"}
        assert {keyword: str(ds.get(keyword)) for keyword in plain} == {keyword: copied[keyword] for keyword in plain}
        item = ds.ProcedureCodeSequence[0]
        assert f"{item.CodeValue}^{item.CodingSchemeDesignator}^{item.CodeMeaning}" == copied["ProcedureCodeSequence"]
        assert not any(keyword in ds for keyword in ("PatientComments", "OtherPatientIDs", "AdditionalPatientHistory"))
    request = structured_report.ReferencedRequestSequence[0]
    assert {keyword: request.get(keyword) for keyword in in_request} == {keyword: copied[keyword] for keyword in in_request}
    assert request.AccessionNumber == copied["AccessionNumber"]


def test_whatever_is_copied_makes_a_new_version_when_it_changes() -> None:
    """An image that comes again with a corrected header: what the store looks at must hold all that a result copies."""
    of_items = {keyword for keywords in COPIED_OF_ITEMS.values() for keyword in keywords}
    assert set(COPIED_KEYWORDS) <= {*DEMOGRAPHICS, *COPIED_OF_ITEMS, *of_items}


def test_a_changed_name_changes_the_copied_header_and_a_changed_exposure_does_not() -> None:
    before, renamed, exposed = (
        copied_header(made_report(every_header=change).headers) for change in ({}, {"PatientName": "Roe^Jane"}, {"KVP": "31"})
    )
    assert before != renamed
    assert before == exposed


@pytest.mark.parametrize("name", VARIANTS)
def test_the_objects_of_a_study_agree_with_its_images(name: str, tmp_path: Path, needs_program: Callable[[str], str]) -> None:
    beside_python = Path(sys.executable).parent / "dcentvfy"
    program = str(beside_python) if beside_python.exists() else needs_program("dcentvfy")
    report, objects = built_variant(name)
    results = {one.kind: one for one in objects}
    if report.predecessors:
        _, first = built_variant("normal")
        uids = {"sop_class_uid": "SOPClassUID", "sop_instance_uid": "SOPInstanceUID", "series_instance_uid": "SeriesInstanceUID"}
        replaced = {one.kind: Predecessor(**{field: str(one.ds[keyword].value) for field, keyword in uids.items()}) for one in first}
        results = {one.kind: one for one in build(replace(report, predecessors=replaced))}
        results |= {f"first {one.kind}": one for one in first}
    names = []
    for one in report.views:
        names.append(f"{one.view}.dcm")
        mammogram(one.view, BreastImplantPresent=one.header.BreastImplantPresent).save_as(tmp_path / names[-1], enforce_file_format=True)
    for kind, result in results.items():
        names.append(f"{kind}.dcm")
        (tmp_path / names[-1]).write_bytes(result.data)
    ended = subprocess.run([program, *names], cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    messages = [line for line in (ended.stdout + ended.stderr).splitlines() if line.startswith(("Error", "Warning"))]
    # An Accession Number stands in the study and in the SR's Referenced Request Sequence; dcentvfy takes them for one attribute.
    assert not [line for line in messages if "Element=<AccessionNumber> IE <Study> versus <Series>" not in line]


def test_nothing_is_built_without_scores_or_without_a_time_zone() -> None:
    failed = [reported_view(view, failure="truncated") for view in HANGING_ORDER]
    with pytest.raises(ValueError, match="no view has scores"):
        build(made_report(*failed))
    with pytest.raises(ValueError, match="without their scores"):
        build(made_report(outcome=Outcome.WITHDRAWN))
    with pytest.raises(ValueError, match="names the views"):
        build(withdrawn_report(absent=HANGING_ORDER))
    with pytest.raises(ValueError, match="time zone"):
        build(made_report(created_at=datetime(2026, 11, 20)))
    with pytest.raises(ValueError, match="replaces_at needs a time zone"):
        build(made_report(replaces_at=datetime(2026, 11, 20)))
    with pytest.raises(ValueError, match="no sentences in the language 'fr': choose one of en, ko"):
        build(made_report(installation=replace(INSTALLATION, language="fr")))


def test_derived_uids_keep_parts_apart() -> None:
    assert derived_uid("ab", "c") != derived_uid("a", "bc") != derived_uid("abc")
    assert derived_uid("1:a", "b") != derived_uid("1:a1:b")
    assert derived_uid("object", "x") == derived_uid("object", "x")
    assert len(derived_uid("x" * 1000)) <= 44


@pytest.mark.parametrize("name", VARIANTS)
def test_no_output_gives_a_verdict(name: str) -> None:
    """The words that must not be said. The one sentence that names the disease says that it is not excluded."""
    report, objects = built_variant(name)
    for one in objects:
        words = said(one.ds).replace(report.words.nothing_excluded, "").lower()
        forbidden = ("cancer", "암", "bi-rads", "birads", "malignan", "악성", "benign", "양성", "normal patient", "breast normal")
        assert not [word for word in forbidden if word in words]


def test_the_disease_is_named_in_one_sentence_of_each_language_and_nowhere_else() -> None:
    root = Path(__file__).parent.parent
    sources = [
        path for folder in ("listener", "pipeline", "store") for path in (root / folder).rglob("*") if path.suffix in SOURCE_SUFFIXES
    ]
    assert len(sources) > 20
    lines = [(path.name, line) for path in sources for line in path.read_text("utf-8").splitlines() if re.search("cancer|암", line.lower())]
    assert [name for name, _ in lines] == ["wording.py", "wording.py"]
    assert [wording.ENGLISH.nothing_excluded in lines[0][1], wording.KOREAN.nothing_excluded in lines[1][1]] == [True, True]


@pytest.mark.parametrize("installation", [INSTALLATION, KOREAN], ids=["English", "Korean"])
@pytest.mark.parametrize(("character_set", "name"), NAMES.values(), ids=list(NAMES))
def test_no_name_of_any_character_set_is_lost_in_either_language(character_set: Any, name: str, installation: Installation) -> None:
    """As a device sends it: encoded in its own character set."""
    report = made_report(every_header={"SpecificCharacterSet": character_set, "PatientName": name}, installation=installation)
    for one in build(report):
        assert name.encode("utf-8") in one.data
