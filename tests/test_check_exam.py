"""`fourview check` beside a running Fourview, and its synthetic exam through a real Orthanc and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from fourview_process import PROJECT, FourviewProcess
from odd_orthanc import odd_orthanc
from orthanc_process import OrthancProcess
from pydicom import dcmread
from pydicom.dataset import Dataset
from reports_made import made_report
from typer.testing import CliRunner

from listener import synthetic
from listener.check_exam import Trial, end_to_end, report_faults
from listener.cli import app
from listener.config import load
from listener.connect import shipped
from pipeline.report import build
from store.study import HANGING_ORDER, ImageKind, View
from store.view import resolve_view

NOON = datetime(2026, 11, 29, 12, 0, 0)
SHEET = PROJECT / "docs" / "site-acceptance.md"


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    from ports import free_port

    return {name: free_port() for name in ("dicom", "http", "fourview")}


@pytest.fixture(scope="module")
def orthanc(
    tmp_path_factory: pytest.TempPathFactory, needs_program: Callable[[str], str], ports: dict[str, int]
) -> Iterator[OrthancProcess]:
    """Orthanc with the shipped configuration and script, which sends to our port."""
    folder = tmp_path_factory.mktemp("orthanc")
    process = OrthancProcess(
        folder,
        program=needs_program("Orthanc"),
        configuration=PROJECT / "deploy" / "orthanc" / "orthanc.json",
        environment={
            "ORTHANC_STORAGE": str(folder / "storage"),
            "ORTHANC_DICOM_PORT": str(ports["dicom"]),
            "ORTHANC_HTTP_PORT": str(ports["http"]),
            "ORTHANC_FOURVIEW_PORT": str(ports["fourview"]),
            "ORTHANC_ROUTING_SCRIPT": "stable.lua",
            "ORTHANC_STABLE_AGE": "1",
        },
        dicom_port=ports["dicom"],
        http_port=ports["http"],
    )
    yield process.start()
    process.kill()


@pytest.fixture(scope="module")
def fourview(
    tmp_path_factory: pytest.TempPathFactory, orthanc: OrthancProcess, ports: dict[str, int], free_port: Callable[[], int]
) -> Iterator[FourviewProcess]:
    """A running Fourview; a device named QUIET is ignored by a rule, one named HELD is held."""
    process = FourviewProcess(
        tmp_path_factory.mktemp("fourview"),
        dicom_port=ports["fourview"],
        http_port=free_port(),
        pacs_port=orthanc.dicom_port,
        pacs_url=orthanc.url,
        rule='Modality == "MG" and StationName != "QUIET"',
    )
    yield process.start()
    process.stop()


def checked(fourview: FourviewProcess, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code and findings of `fourview check --json`."""
    done = CliRunner().invoke(app, ["--config", str(fourview.config), "check", "--json", *arguments])
    assert done.exit_code in (0, 1) and done.output.startswith("["), f"{done.output}\n{done.exception!r}"
    return done.exit_code, {one["what"]: one for one in json.loads(done.output)}


def told(fourview: FourviewProcess, *arguments: str) -> str:
    """What a command prints that goes well; without a process of its own."""
    done = CliRunner().invoke(app, ["--config", str(fourview.config), *arguments])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.output


def of_exam(findings: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for what, one in findings.items() if what.startswith("end to end")]


def holds_test_patient(orthanc: OrthancProcess) -> list[dict[str, Any]]:
    return orthanc.find("Study", PatientID=synthetic.PATIENT_ID)


def test_a_synthetic_exam_goes_the_whole_way_and_nothing_of_it_stays(fourview: FourviewProcess, orthanc: OrthancProcess) -> None:
    name = "Hong^Gildong=洪^吉洞=홍^길동"
    code, found = checked(
        fourview, "--end-to-end", "--set", f"PatientName={name}", "--set", r"SpecificCharacterSet=\ISO 2022 IR 149", "--seconds", "250"
    )
    assert code == 0, [one for one in found.values() if not one["ok"]]
    steps = [one["what"].removeprefix("end to end: ") for one in of_exam(found)]
    begins = (
        "a synthetic exam",
        "Orthanc has routed it",
        "read as version 1, COMPLETE",
        "its report is in",
        "the report is opened",
        "everything",
    )
    assert len(steps) == len(begins) and all(step.startswith(begin) for step, begin in zip(steps, begins, strict=True)), steps
    assert "R-CC, L-CC, R-MLO, L-MLO" in steps[2]
    assert [("seconds" in one) for one in of_exam(found)] == [True, True, True, True, False, True]
    assert holds_test_patient(orthanc) == []
    assert json.loads(told(fourview, "studies", "--json")) == []
    assert [act["what"] for act in json.loads(told(fourview, "acts", "--json"))] == ["forget"]
    # The rest of the check sees what runs.
    for what in (
        "([dicom] port) is answered by us",
        "([http] port) is answered by us",
        "C-ECHO to its modality",
    ):
        assert [one for one in found if what in one], what


def test_a_study_that_no_rule_reads_is_told_at_once_and_taken_away(fourview: FourviewProcess, orthanc: OrthancProcess) -> None:
    code, found = checked(fourview, "--end-to-end", "--set", "StationName=QUIET", "--seconds", "250")
    assert code == 1
    failed = [one for one in of_exam(found) if not one["ok"]]
    assert [one["what"] for one in failed] == ["end to end: the study is ignored"]
    assert "--set StationName" in failed[0]["remedy"]
    assert holds_test_patient(orthanc) == [] and json.loads(told(fourview, "studies", "--json")) == []


def test_images_that_the_model_does_not_read_are_told_at_once(fourview: FourviewProcess, orthanc: OrthancProcess) -> None:
    code, found = checked(fourview, "--end-to-end", "--set", "SeriesDescription=synthetic 2D", "--seconds", "250")
    assert code == 1
    [failed] = [one for one in of_exam(found) if not one["ok"]]
    assert failed["what"] == "end to end: its images fill no slot" and "synthetic 2D" in failed["remedy"]
    assert holds_test_patient(orthanc) == []


def test_an_orthanc_that_routes_nothing_is_told_and_asked_to_send(fourview: FourviewProcess, orthanc: OrthancProcess) -> None:
    """Key in the shipped script: what was modified in Orthanc is not sent; here the script finds no entry of its name."""
    entry = orthanc.get("/modalities/fourview/configuration")
    orthanc.delete("/modalities/fourview")
    put(orthanc, "/modalities/reader", entry)
    try:
        code, found = checked(fourview, "--end-to-end", "--keep", "--seconds", "250")
        assert code == 1
        failed = [one for one in of_exam(found) if not one["ok"]]
        assert [one["what"] for one in failed] == ["end to end: Orthanc routes it to us"] and "orthanc connect" in failed[0]["remedy"]
        assert [one for one in found if "as it was asked to (not routed)" in one]
        assert [one for one in found if "the report is opened" in one and found[one]["ok"]]
        [kept] = holds_test_patient(orthanc)
        uid = kept["MainDicomTags"]["StudyInstanceUID"]
        assert fourview.show(uid)["state"] == "analysed" and f"fourview forget {uid}" in json.dumps(found)
        orthanc.delete(f"/studies/{kept['ID']}")
        told(fourview, "forget", "--yes", uid)
    finally:
        orthanc.delete("/modalities/reader")
        put(orthanc, "/modalities/fourview", entry)


def test_a_pause_is_told_before_anything_is_sent(fourview: FourviewProcess, orthanc: OrthancProcess) -> None:
    told(fourview, "pause", "sending")
    try:
        code, found = checked(fourview, "--end-to-end")
        assert code == 1 and "fourview resume sending" in found["end to end: receiver and worker"]["remedy"]
        assert holds_test_patient(orthanc) == []
    finally:
        told(fourview, "resume", "sending")


def put(orthanc: OrthancProcess, path: str, body: Any) -> None:
    import httpx

    httpx.put(orthanc.url + path, json=body, timeout=30, trust_env=False).raise_for_status()


# ---------------------------------------------------------------------------------------------------------- the exam itself


def test_the_exam_is_valid_and_says_that_it_is_nobodys(verified: Callable[[bytes], list[str]]) -> None:
    images = synthetic.exam(NOON)
    assert [(resolve_view(ds).view, resolve_view(ds).kind) for ds in images] == [(view, ImageKind.FFDM) for view in HANGING_ORDER]
    assert len({str(ds.SOPInstanceUID) for ds in images}) == 4 and len({str(ds.StudyInstanceUID) for ds in images}) == 1
    for ds in images:
        verified(synthetic.part10(ds))
        assert ds.PatientID == "FOURVIEW-TEST" and ds.StudyInstanceUID.startswith("2.25.")
        assert "TEST" in ds.StudyDescription and "No patient" in ds.ImageComments
        assert ds.pixel_array.shape == (1024, 800) and ds.StudyDate == "20261129"
    other = synthetic.exam(NOON)
    assert {str(ds.StudyInstanceUID) for ds in images}.isdisjoint(str(ds.StudyInstanceUID) for ds in other)


def test_the_exam_is_written_for_the_sheet_and_over_nothing(tmp_path: Path, fourview: FourviewProcess) -> None:
    def ran() -> Any:
        arguments = ["check", "--write-exam", str(tmp_path / "exam"), "--set", "StationName=ROOM1"]
        return CliRunner().invoke(app, ["--config", str(fourview.config), *arguments])

    done = ran()
    assert done.exit_code == 0, done.output
    files = {path.stem: dcmread(path) for path in (tmp_path / "exam").iterdir()}
    assert set(files) == {*(view.value for view in HANGING_ORDER), "L-CC-retake"}
    assert {str(ds.StudyInstanceUID) for ds in files.values()} == {done.output.split("study ")[1].split()[0]}
    assert {ds.StationName for ds in files.values()} == {"ROOM1"}
    first, again = files["L-CC"], files["L-CC-retake"]
    assert first.SOPInstanceUID != again.SOPInstanceUID and first.PixelData != again.PixelData
    assert (first.AcquisitionDate + first.AcquisitionTime) < (again.AcquisitionDate + again.AcquisitionTime)
    assert "name a new folder" in str(ran().exception)
    wrong = CliRunner().invoke(app, ["--config", str(fourview.config), "check", "--end-to-end", "--set", "PatientID=1"])
    assert "StationName" in str(wrong.exception)


@lru_cache(1)
def _built() -> Dataset:
    return build(made_report())[0].ds


def reported(**changed: Any) -> Dataset:
    """A report of the synthetic exam."""
    ds = deepcopy(_built())
    ds.PatientID, ds.PatientName = synthetic.PATIENT_ID, synthetic.PATIENT_NAME
    for keyword, value in changed.items():
        setattr(ds, keyword, value)
    return ds


def group(**content: Any) -> Dataset:
    """A Measurement Group that says too little."""

    def named(code: str) -> Dataset:
        item, name = Dataset(), Dataset()
        name.CodeValue = code
        item.ConceptNameCodeSequence = [name]
        return item

    made, item = named("125007"), named("112039" if not content else "121050")
    made.ContentSequence = [item]
    for keyword, value in content.items():
        setattr(item, keyword, value)
    return made


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, ""),
        ({"VerificationFlag": "VERIFIED"}, "Verification Flag is VERIFIED"),
        ({"PatientID": "P1"}, "another patient"),
        ({"PatientName": "Doe^Jane"}, "the name in it is another"),
        ({"StudyInstanceUID": "1.2.3"}, "of study 1.2.3"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "SOP class"),
        ({"ContentSequence": []}, "its views are none"),
        ({"ContentSequence": [group()]}, "not built as a report of ours"),
        ({"ContentSequence": [group(TextValue="L-CC")]}, "not built as a report of ours"),
        ({"SOPClassUID": None}, "SOP class"),
    ],
)
def test_a_report_that_is_not_of_the_exam_is_refused(changed: dict[str, Any], words: str) -> None:
    image = Dataset()
    image.StudyInstanceUID, image.PatientName = reported().StudyInstanceUID, synthetic.PATIENT_NAME
    faults = list(report_faults(reported(**changed), image, trained=True))
    assert (words in "; ".join(faults) and len(faults) == 1) if words else faults == []
    assert ("does not say so" in "; ".join(report_faults(reported(), image, trained=False))) == ("UNTRAINED" not in reported().to_json())


ORTHANCS_ID = "-".join(["0123abcd"] * 5)
JOB = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.mark.parametrize(
    "odd",
    [
        {"/modalities": []},
        {"/modalities": {"fourview": "FOURVIEW"}},
        {"/jobs": {}},
        {"/jobs": ["../../patients"]},
        {"/jobs": [1]},
        {"/jobs": "<html>"},
        {"/instances": {}},
        {"/instances": []},
        {"/instances": None},
        {"/instances": {"ParentStudy": 5}},
        {"/instances": {"ParentStudy": "../../patients/x"}},
        {f"/studies/{ORTHANCS_ID}/series": {"IsStable": True}},
        {f"/studies/{ORTHANCS_ID}/series": ["x"]},
        {"/tools/find": {}},
        {"/tools/find": [{"ID": "../../patients/x"}]},
        {"/tools/find": ["x"]},
    ],
    ids=str,
)
def test_an_orthanc_that_answers_oddly_is_told_and_ends_nothing(fourview: FourviewProcess, odd: dict[str, Any]) -> None:
    config = load(fourview.config, {})
    answers = {
        "/modalities": {"fourview": {"AET": config.dicom.ae_title}},
        "/jobs": [],
        "/instances": {"ParentStudy": ORTHANCS_ID},
        f"/studies/{ORTHANCS_ID}/series": {},
        "/tools/find": [],
    }
    with odd_orthanc({path: (200, said) for path, said in (answers | odd).items()}) as url:
        pacs = dataclasses.replace(config.pacs[0], url=url)
        found = list(end_to_end(config, pacs, Trial(seconds=60, changed={}, person="test")))
    bad = [one for one in found if not one.ok]
    assert bad and all("not answer as Orthanc does" in one.remedy or "answers, but not as Orthanc" in one.remedy for one in bad)


# ---------------------------------------------------------------------------------------------------------------- the sheet


def test_the_sheet_is_the_document() -> None:
    printed = CliRunner().invoke(app, ["check", "--acceptance"])
    assert printed.exit_code == 0 and printed.output == SHEET.read_text(encoding="utf-8")
    copies = [
        found for found in PROJECT.rglob("site-acceptance.md") if not any(part[0] == "." for part in found.relative_to(PROJECT).parts)
    ]
    assert copies == [SHEET], "one text, and no copy of it but in what is installed"


def test_every_case_says_what_to_do_what_to_see_and_who_saw_it() -> None:
    cases = SHEET.read_text(encoding="utf-8").split("\n## ")[1:-1]
    assert [int(case.split(".")[0]) for case in cases] == list(range(1, len(cases) + 1))
    titles = " ".join(case.splitlines()[0] for case in cases).lower()
    for wanted in (
        "sides",
        "retake",
        "fourth",
        "mastectomy",
        "combined",
        "correction",
        "viewer",
        "korean and japanese",
        "downtime",
        "backlog",
        "erasure",
    ):
        assert wanted in titles, wanted
    for case in cases:
        assert "Do: " in case and "Must be seen: " in case and "Date, initials" in case, case.splitlines()[0]


def test_what_is_shipped_is_in_the_wheel_and_in_the_image() -> None:
    import tomllib

    included = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    dockerfile = (PROJECT / "Dockerfile").read_text()
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    for source, inside in included.items():
        assert (PROJECT / source).is_file()
        assert inside == f"listener/shipped/{Path(source).name}"
        assert shipped(Path(source).name) == (PROJECT / source).read_text()
        copied = source if f"COPY {source} " in dockerfile else str(Path(source).parent)
        assert f"COPY {copied} {copied}" in dockerfile and f"!{copied}" in ignored
    assert {Path(inside).name for inside in included.values()} == {"site-acceptance.md", "stable.lua", "instant.lua"}


def test_the_views_of_the_exam_are_not_mirrored() -> None:
    """The chest wall, the bright edge, is at the left for a left breast."""
    for ds in synthetic.exam(NOON):
        pixels = ds.pixel_array
        left, right = pixels[:, :50].mean(), pixels[:, -50:].mean()
        assert (left > right) == (View(f"{ds.ImageLaterality}-{ds.ViewPosition}").laterality == "L")
