"""Results in a real Orthanc: it stores SR and page, draws the page, serves what the SR says, and a second copy changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from mammograms_made import uid
from orthanc_process import OrthancProcess
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from reports_made import made_report

from pipeline.report import BuiltObject, Report, build
from pipeline.send import Pacs, SendOutcome, send
from store.study import Predecessor

NAME = "Hong^Gildong=洪^吉洞=홍^길동"


@pytest.fixture
def store(orthanc: OrthancProcess, tmp_path: Path) -> Callable[..., list[str]]:
    """Sends objects by C-STORE; Orthanc's ids of them, in order."""
    pacs = Pacs(name="orthanc", ae_title=orthanc.ae_title, host=orthanc.host, port=orthanc.dicom_port)

    def store(*objects: BuiltObject) -> list[str]:
        paths = []
        for one in objects:
            paths.append(tmp_path / f"{one.ds.SOPInstanceUID}.dcm")
            paths[-1].write_bytes(one.data)
        answers = send(pacs, "FOURVIEW", paths)
        assert [(answer.outcome, answer.status) for answer in answers] == [(SendOutcome.SENT, 0)] * len(objects)
        return [orthanc.find("Instance", SOPInstanceUID=str(one.ds.SOPInstanceUID))[0]["ID"] for one in objects]

    return store


def fetched(orthanc: OrthancProcess, path: str, accept: str) -> httpx.Response:
    answer = httpx.get(orthanc.url + path, headers={"Accept": accept}, timeout=30, trust_env=False)
    assert answer.status_code == 200, f"{path} as {accept}: {answer.status_code} {answer.text[:300]}"
    return answer


def dicomweb(ds: Dataset) -> str:
    return f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"


def whole(data: bytes) -> Dataset:
    """A Part 10 file read to the end."""
    ds = dcmread(BytesIO(data))
    ds.decode()
    return ds


def following(report: Report, objects: tuple[BuiltObject, ...], cause: str) -> tuple[BuiltObject, ...]:
    """The objects of the version after `report`, whose objects are `objects`."""
    predecessors = {
        one.kind: Predecessor(
            sop_class_uid=str(one.ds.SOPClassUID),
            sop_instance_uid=str(one.ds.SOPInstanceUID),
            series_instance_uid=str(one.ds.SeriesInstanceUID),
        )
        for one in objects
    }
    return build(made_report(cause=cause, version_number=report.version_number + 1, predecessors=predecessors))


def test_orthanc_stores_sr_and_page_as_they_were_sent(orthanc: OrthancProcess, store: Callable[..., list[str]]) -> None:
    objects = build(made_report(every_header={"PatientName": NAME}))
    for one, found in zip(objects, store(*objects), strict=True):
        kept = whole(orthanc.get(f"/instances/{found}/file"))
        assert kept == whole(one.data)
        assert kept.file_meta.TransferSyntaxUID == one.ds.file_meta.TransferSyntaxUID
    [study] = orthanc.find("Study", StudyInstanceUID=uid("study"))
    assert len(study["Series"]) == 2
    assert orthanc.get("/statistics")["CountPatients"] == 1


@pytest.mark.parametrize("accept", ["image/png", "image/jpeg"])
def test_the_page_is_drawn(accept: str, orthanc: OrthancProcess, store: Callable[..., list[str]]) -> None:
    """By Orthanc's own pages (`/preview`, `/rendered`) and by DICOMweb's viewers, in its size and its colours."""
    _, page = build(made_report())
    [found] = store(page)
    expected = page.ds.pixel_array.astype(int)
    assert expected.shape == (page.ds.Rows, page.ds.Columns, 3)
    assert len(np.unique(expected.reshape(-1, 3), axis=0)) > 100
    for path in (f"/instances/{found}/preview", f"/instances/{found}/rendered", f"{dicomweb(page.ds)}/rendered"):
        answer = fetched(orthanc, path, accept)
        assert answer.headers["Content-Type"] == accept, path
        drawn = np.asarray(Image.open(BytesIO(answer.content)).convert("RGB")).astype(int)
        assert drawn.shape == expected.shape, path
        if accept == "image/png":
            assert np.array_equal(drawn, expected), path
        else:
            assert abs(drawn - expected).mean() < 3, path


def test_the_page_is_drawn_small(orthanc: OrthancProcess, store: Callable[..., list[str]]) -> None:
    _, page = build(made_report())
    [found] = store(page)
    small = Image.open(BytesIO(fetched(orthanc, f"/instances/{found}/rendered?width=450", "image/png").content))
    assert small.width == 450
    assert small.height == pytest.approx(450 * page.ds.Rows / page.ds.Columns, abs=1)


def test_what_the_sr_says_is_served(orthanc: OrthancProcess, store: Callable[..., list[str]]) -> None:
    report = made_report(every_header={"PatientName": NAME})
    structured_report, _ = build(report)
    [found] = store(structured_report)
    ds = structured_report.ds

    tags = orthanc.get(f"/instances/{found}/simplified-tags")
    assert (tags["Modality"], tags["CompletionFlag"], tags["VerificationFlag"]) == ("SR", ds.CompletionFlag, "UNVERIFIED")
    assert tags["PatientName"] == NAME
    assert tags["SeriesDescription"] == ds.SeriesDescription
    assert len(tags["ContentSequence"]) == len(ds.ContentSequence)

    full = orthanc.get(f"/instances/{found}/tags")
    assert full["0040,a730"]["Name"] == "ContentSequence"
    assert full["0008,0018"]["Value"] == ds.SOPInstanceUID

    [metadata] = fetched(orthanc, f"{dicomweb(ds)}/metadata", "application/dicom+json").json()
    served = Dataset.from_json(metadata)
    assert said(served) == said(ds)
    assert len(said(served)) > 100


def said(ds: Dataset) -> list[tuple[str, str, str]]:
    """The name, the type and the value of every content item, in order of reading; numbers as numbers."""
    lines = []
    for item in ds.get("ContentSequence", []):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if item.get("ConceptNameCodeSequence") else ""
        value: Any = ""
        match item.ValueType:
            case "TEXT":
                value = item.TextValue
            case "NUM":
                value = float(item.MeasuredValueSequence[0].NumericValue) if item.MeasuredValueSequence else "none"
            case "CODE":
                value = (item.ConceptCodeSequence[0].CodeValue, item.ConceptCodeSequence[0].CodeMeaning)
            case "UIDREF":
                value = item.UID
            case "PNAME":
                value = item.PersonName
            case "IMAGE":
                value = item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        lines.append((name, item.ValueType, str(value)))
        lines.extend(said(item))
    return lines


def test_storing_twice_changes_nothing(orthanc: OrthancProcess, store: Callable[..., list[str]]) -> None:
    objects = build(made_report())
    found = store(*objects)
    before = [orthanc.get(f"/instances/{one}/file") for one in found]
    last = orthanc.get("/changes?last")["Last"]
    again = build(made_report())
    assert [one.data for one in again] == [one.data for one in objects]
    assert store(*again) == found, "over C-STORE Orthanc says success to a copy"
    for one, instance in zip(again, found, strict=True):
        answer = orthanc.post("/instances", one.data)
        assert (answer["Status"], answer["ID"]) == ("AlreadyStored", instance)
    assert [orthanc.get(f"/instances/{one}/file") for one in found] == before
    assert orthanc.get("/statistics")["CountInstances"] == 2
    new = [change["ChangeType"] for change in orthanc.get(f"/changes?since={last}")["Changes"]]
    assert not {kind for kind in new if kind.startswith("New")}, "nothing for a router to send on"


def test_a_changed_cause_is_stored_beside_the_old_version(orthanc: OrthancProcess, store: Callable[..., list[str]]) -> None:
    report = made_report()
    first = build(report)
    second = following(report, first, "d" * 64)
    old, new = store(*first), store(*second)
    assert len({*old, *new}) == 4
    for kind, (before, after) in enumerate(zip(first, second, strict=True)):
        assert after.ds.SeriesInstanceUID == before.ds.SeriesInstanceUID
        [series] = orthanc.find("Series", SeriesInstanceUID=str(before.ds.SeriesInstanceUID))
        assert set(series["Instances"]) == {old[kind], new[kind]}
        assert series["MainDicomTags"]["SeriesDescription"] == "AI result - NOT FOR DIAGNOSTIC USE"
        assert whole(orthanc.get(f"/instances/{old[kind]}/file")) == whole(before.data), "the old one stays as it was"
    predecessors = orthanc.get(f"/instances/{new[0]}/simplified-tags")["PredecessorDocumentsSequence"]
    referenced = [one["ReferencedSOPSequence"][0]["ReferencedSOPInstanceUID"] for one in predecessors[0]["ReferencedSeriesSequence"]]
    assert referenced == [str(first[0].ds.SOPInstanceUID)]


def test_the_newest_page_is_the_first_of_its_stack_and_the_newest_sr_the_last(
    orthanc: OrthancProcess, store: Callable[..., list[str]]
) -> None:
    """Whatever the order of arrival: a PACS sorts by Instance Number."""
    report = made_report()
    versions = [build(report)]
    for cause in ("d", "e"):
        report = made_report(version_number=len(versions))
        versions.append(following(report, versions[-1], cause * 64))
    ids = {number: store(*versions[number]) for number in (1, 2, 0)}
    reports, pages = ([ids[number][kind] for number in (0, 1, 2)] for kind in (0, 1))
    assert by_instance_number(orthanc, reports) == reports
    assert by_instance_number(orthanc, pages) == pages[::-1]
    numbers = [int(versions[number][1].ds.InstanceNumber) for number in (0, 1, 2)]
    assert numbers == [9999, 9998, 9997]
    [series] = orthanc.find("Series", SeriesInstanceUID=str(versions[0][1].ds.SeriesInstanceUID))
    shown = orthanc.get(f"/series/{series['ID']}/ordered-slices")["Slices"]
    assert [path.split("/")[2] for path in shown] == pages[::-1], "Orthanc's own viewers go by this order"


def by_instance_number(orthanc: OrthancProcess, found: list[str]) -> list[str]:
    return sorted(found, key=lambda one: int(orthanc.get(f"/instances/{one}/simplified-tags")["InstanceNumber"]))
