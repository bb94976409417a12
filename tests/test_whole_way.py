"""The whole way with real parts: Orthanc routes by its shipped script, Fourview reads, and the results are back in Orthanc."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from command_line import service
from dicomweb_client import DICOMwebClient
from fourview_process import PROJECT, SIMULATED_CARD, FourviewProcess
from mammograms_made import breast_pixels, code, mammogram, uid
from orthanc_process import OrthancProcess
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from store.study import HANGING_ORDER, View


@pytest.fixture
def orthanc(tmp_path: Path, needs_program: Callable[[str], str], free_port: Callable[[], int]) -> Iterator[OrthancProcess]:
    """Orthanc with the shipped configuration and instant.lua; `fourview_port` is where it sends mammograms."""
    program = needs_program("Orthanc")
    dicom_port, http_port, fourview_port = free_port(), free_port(), free_port()
    process = OrthancProcess(
        tmp_path / "orthanc",
        program=program,
        configuration=PROJECT / "deploy" / "orthanc" / "orthanc.json",
        environment={
            "ORTHANC_STORAGE": str(tmp_path / "orthanc" / "storage"),
            "ORTHANC_DICOM_PORT": str(dicom_port),
            "ORTHANC_HTTP_PORT": str(http_port),
            "ORTHANC_FOURVIEW_PORT": str(fourview_port),
            "ORTHANC_ROUTING_SCRIPT": "instant.lua",
            "ORTHANC_STABLE_AGE": "1",
        },
        dicom_port=dicom_port,
        http_port=http_port,
    )
    process.fourview_port = fourview_port  # type: ignore[attr-defined]
    yield process
    process.kill()


@pytest.fixture
def fourview(tmp_path: Path, orthanc: OrthancProcess, free_port: Callable[[], int]) -> Iterator[Callable[..., FourviewProcess]]:
    """Makes a Fourview that Orthanc sends to; stopped at the end."""
    made: list[FourviewProcess] = []

    def make(**options: Any) -> FourviewProcess:
        port: int = orthanc.fourview_port  # type: ignore[attr-defined]
        process = FourviewProcess(
            tmp_path / "fourview", dicom_port=port, http_port=free_port(), pacs_port=orthanc.dicom_port, pacs_url=orthanc.url, **options
        )
        made.append(process)
        return process.start()

    yield make
    for process in made:
        process.stop()


def part10(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def send(ours: FourviewProcess, orthanc: OrthancProcess, images: list[Dataset], **options: Any) -> None:
    """Send images to Fourview directly. Orthanc has their study, by an object that it does not route."""
    companion = mammogram(study="any", Modality="US", SOPInstanceUID=uid("companion", str(images[0].StudyInstanceUID)))
    companion.SeriesInstanceUID = uid("companions", str(images[0].StudyInstanceUID))
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        companion[keyword] = images[0][keyword]
    orthanc.upload(part10(companion))
    ours.send(images, **options)


def exam(study: str, **overrides: Any) -> list[Dataset]:
    return [mammogram(view, study=study, **overrides) for view in HANGING_ORDER]


def results(orthanc: OrthancProcess, study: str) -> dict[str, list[dict[str, Any]]]:
    """The result objects that Orthanc holds for a study, by modality, in the order of their instance numbers."""
    found: dict[str, list[dict[str, Any]]] = {"SR": [], "OT": []}
    for series in orthanc.find("Series", StudyInstanceUID=uid(study)):
        if series["MainDicomTags"]["Modality"] in found:
            for instance in series["Instances"]:
                tags = orthanc.get(f"/instances/{instance}/simplified-tags")
                found[series["MainDicomTags"]["Modality"]].append({**tags, "ID": instance})
    for objects in found.values():
        objects.sort(key=lambda tags: int(tags["InstanceNumber"]))
    return found


def wait_for_results(fourview: FourviewProcess, orthanc: OrthancProcess, study: str, count: int) -> dict[str, list[dict[str, Any]]]:
    def there() -> dict[str, list[dict[str, Any]]] | None:
        found = results(orthanc, study)
        return found if len(found["SR"]) == len(found["OT"]) == count else None

    found: dict[str, list[dict[str, Any]]] = fourview.wait_for(there, f"Orthanc does not hold {count} results of {study}")
    return found


def test_exam_goes_through_orthanc_and_comes_back(
    orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess], verified: Callable[[bytes], Any]
) -> None:
    orthanc.start()
    ours = fourview(demo_weights=True)
    shuffled = {name: random.Random(name).sample(exam(name), 4) for name in ("first", "second")}
    for datasets in zip(*shuffled.values(), strict=True):  # two studies interleaved, each in an order of its own
        for ds in datasets:
            orthanc.upload(part10(ds))

    for name in shuffled:
        found = wait_for_results(ours, orthanc, name, 1)
        study = ours.wait_for_state(uid(name), "analysed", version=1)
        assert {view: slot["sop_instance_uid"] for view, slot in study["slots"].items()} == {
            view.value: uid(name, "image", view.value, "") for view in HANGING_ORDER
        }
        assert [run["outcome"] for run in study["runs"]] == ["COMPLETE"]
        assert found["SR"][0]["PatientID"] == "P1"
        assert found["SR"][0]["VerificationFlag"] == "UNVERIFIED"
        assert "UNTRAINED" in " ".join(str(value) for value in found["SR"][0].values())
        for tags in (*found["SR"], *found["OT"]):
            data = orthanc.get(f"/instances/{tags['ID']}/file")
            verified(data)
            own = [one for one in study["runs"][0]["objects"] if one["sop_instance_uid"] == tags["SOPInstanceUID"]]
            assert len(own) == 1

        # Our answers are found by a stock DICOMweb client, byte for byte what Orthanc has.
        client = DICOMwebClient(f"{ours.url}/dicom-web")
        assert len(client.search_for_series(uid(name))) == 2
        in_orthanc = {tags["SOPInstanceUID"] for tags in (*found["SR"], *found["OT"])}
        assert {ds.SOPInstanceUID for ds in client.retrieve_study(uid(name))} == in_orthanc

    # No loop: what came back to Orthanc does not make Fourview read again.
    orthanc.post("/modalities/fourview/store", {"Resources": [found["SR"][0]["ID"], found["OT"][0]["ID"]], "Synchronous": True})
    again = ours.show(uid("second"))
    assert (again["state"], again["revision"], len(again["runs"])) == ("analysed", 1, 1)
    assert "own result" in {image["disposition"] for image in again["images"]}
    ours.wait_for(
        lambda: all(one["state"] == "confirmed" for one in ours.show(uid("second"))["deliveries"]),
        "Orthanc does not confirm the deliveries",
    )

    # Reprocessing without a cause makes nothing new, and says so; fetching the images again is no cause.
    assert "nothing changed" in ours.run("reprocess", uid("first"))
    assert "known already" in ours.run("reprocess", uid("second"), "--from-orthanc")
    assert len(results(orthanc, "first")["SR"]) == 1


def test_duplicates_are_one_image_and_nothing_waits_for_a_tick(orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess]) -> None:
    """Reception, image, report and delivery each wake what comes next: without a tick the result is in the PACS, and confirmed."""
    orthanc.start()
    ours = fourview(first="no_tick")
    first = exam("twice")
    send(ours, orthanc, [*first, first[0], first[2]])
    ours.wait_for_state(uid("twice"), "analysed", version=1)
    send(ours, orthanc, [mammogram(HANGING_ORDER[1], study="twice")], rle=True)
    study = ours.wait_for(
        lambda: (found := ours.show(uid("twice"))) and any(image["disposition"] == "copy" for image in found["images"]) and found,
        "the copy in another transfer syntax is not recognised",
    )
    assert study["state"] == "analysed"
    assert len(study["runs"]) == 1
    assert len(study["images"]) == 5  # four, and the one in other bytes
    assert len(wait_for_results(ours, orthanc, "twice", 1)["SR"]) == 1
    ours.wait_for(lambda: all(one["state"] == "confirmed" for one in ours.show(uid("twice"))["deliveries"]), "it is not confirmed")


def test_late_view_makes_version_two_with_predecessor(orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess]) -> None:
    orthanc.start()
    ours = fourview(study='wait_for_retake_seconds = 0\ngive_up_after_seconds = 1\nwhen_incomplete = "analyse"')
    images = exam("late")
    send(ours, orthanc, images[:3])
    study = ours.wait_for_state(uid("late"), "analysed", version=1)
    assert study["runs"][0]["outcome"] == "PARTIAL"
    send(ours, orthanc, images[3:])
    study = ours.wait_for_state(uid("late"), "analysed", version=2)
    assert study["revision"] == 2
    assert study["runs"][1]["outcome"] == "COMPLETE"
    first, second = wait_for_results(ours, orthanc, "late", 2)["SR"]
    assert first["CompletionFlag"] == "PARTIAL"
    assert second["CompletionFlag"] == "COMPLETE"
    assert first["SeriesInstanceUID"] == second["SeriesInstanceUID"]
    named = second["PredecessorDocumentsSequence"][0]["ReferencedSeriesSequence"][0]["ReferencedSOPSequence"][0]
    assert named["ReferencedSOPInstanceUID"] == first["SOPInstanceUID"]


def rejection(study: str, rejected: Dataset) -> Dataset:
    """An IHE IOCM Key Object: rejected for quality reasons."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = KeyObjectSelectionDocumentStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid(study, "rejection")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = rejected.StudyInstanceUID, uid(study, "key objects")
    ds.Modality = "KO"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate = rejected.PatientID, rejected.PatientName, rejected.PatientBirthDate
    ds.ValueType = "CONTAINER"
    ds.ConceptNameCodeSequence = [code("113001", "DCM", "Rejected for Quality Reasons")]
    reference, series, evidence = Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = rejected.SOPClassUID, rejected.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedSOPSequence = rejected.SeriesInstanceUID, [reference]
    evidence.StudyInstanceUID, evidence.ReferencedSeriesSequence = rejected.StudyInstanceUID, [series]
    ds.CurrentRequestedProcedureEvidenceSequence = [evidence]
    return ds


def test_retake_that_is_rejected_again_gives_back_the_first_selection(
    orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess]
) -> None:
    orthanc.start()
    ours = fourview()
    images = exam("retake")
    retake = mammogram(
        View.R_CC,
        study="retake",
        image="retake",
        pixels=breast_pixels(View.R_CC, seed=99),
        AcquisitionTime="103000",
        ContentTime="103000",
        InstanceNumber="9",
    )
    send(ours, orthanc, images)
    first = ours.wait_for_state(uid("retake"), "analysed", version=1)
    send(ours, orthanc, [retake])
    second = ours.wait_for_state(uid("retake"), "analysed", version=2)
    assert second["slots"]["R-CC"]["sop_instance_uid"] == retake.SOPInstanceUID
    assert [loser["rule"] for loser in second["runs"][1]["losers"]] == [7]  # acquired later
    wait_for_results(ours, orthanc, "retake", 2)  # rejected earlier, the second version would not be sent
    ours.send([rejection("retake", retake)])
    third = ours.wait_for_state(uid("retake"), "analysed", version=3)
    assert third["slots"] == {**first["slots"], "R-CC": third["slots"]["R-CC"]}
    assert third["slots"]["R-CC"]["sop_instance_uid"] == images[0].SOPInstanceUID
    assert third["runs"][2]["run_id"] == first["runs"][0]["run_id"]
    reports = wait_for_results(ours, orthanc, "retake", 3)["SR"]
    assert len({tags["SOPInstanceUID"] for tags in reports}) == 3


def test_a_restored_database_writes_over_nothing_that_the_pacs_holds(
    orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess]
) -> None:
    """The backup is of last night: today's version 2 is at the PACS and not in it. What is made next is neither of the two again."""
    orthanc.start()
    ours = fourview()
    images = exam("restored")
    send(ours, orthanc, images)
    ours.wait_for_state(uid("restored"), "analysed", version=1)
    wait_for_results(ours, orthanc, "restored", 1)
    ours.stop()
    data, backup = ours.folder / "data", ours.folder / "backup"
    backup.mkdir()
    for path in data.glob("*.db*"):
        shutil.copy(path, backup)
    ours.start()
    retake = mammogram(View.R_CC, study="restored", image="retake", pixels=breast_pixels(View.R_CC, seed=99), AcquisitionTime="103000")
    ours.send([retake])
    ours.wait_for_state(uid("restored"), "analysed", version=2)
    before = wait_for_results(ours, orthanc, "restored", 2)
    ours.stop()
    for path in data.glob("*.db*"):
        path.unlink()
    for path in backup.iterdir():
        shutil.copy(path, data)
    assert "number 1001 or higher" in ours.run("db", "restored", "--reason", "disk lost")
    ours.start()
    assert ours.show(uid("restored"))["runs"][-1]["number"] == 1
    ours.send([retake])  # the PACS, or `reconcile --fetch`, sends what the backup does not know
    ours.wait_for_state(uid("restored"), "analysed", version=1001)
    after = wait_for_results(ours, orthanc, "restored", 3)
    for kind, numbers in (("SR", {"1", "2", "1001"}), ("OT", {"9999", "9998", "8999"})):
        earlier, later = (
            {(tags["InstanceNumber"], tags["SOPInstanceUID"], tags["ID"]) for tags in found[kind]} for found in (before, after)
        )
        assert earlier < later and {number for number, *_ in later} == numbers


def test_pacs_down_then_up_costs_no_second_inference(orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess]) -> None:
    ours = fourview()  # Orthanc is not running
    ours.send(exam("down"))
    study = ours.wait_for_state(uid("down"), "analysed", version=1)
    study = ours.wait_for(
        lambda: (found := ours.show(uid("down"))) and all(one["tries"] for one in found["deliveries"]) and found, "nothing was tried"
    )
    assert {one["state"] for one in study["deliveries"]} == {"waiting"}
    assert all(f":{orthanc.dicom_port}" in one["reason"] for one in study["deliveries"])
    ours.stop()  # nor does a restart lose anything or read again
    ours.start()
    orthanc.start()
    for ds in exam("down"):  # a result waits until its study is there
        orthanc.upload(part10(ds))
    wait_for_results(ours, orthanc, "down", 1)
    after = ours.show(uid("down"))
    assert [len(image["scores"]) for image in after["images"]] == [1, 1, 1, 1]
    assert [image["scores"][0]["attempt"] for image in after["images"]] == [1, 1, 1, 1]
    assert len(after["runs"]) == 1


def test_another_model_is_compared_without_sending_and_then_with(
    orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess], tmp_path: Path
) -> None:
    orthanc.start()
    ours = fourview()
    send(ours, orthanc, exam("other model"))
    wait_for_results(ours, orthanc, "other model", 1)
    card = tmp_path / "other.toml"
    card.write_text(SIMULATED_CARD.replace('name = "simulated"', 'name = "another"'))
    asked = ("reprocess", "--since", "1d", "--model", str(card))
    assert f"{uid('other model')}: 4 of 4 views to be read" in ours.run(*asked, "--dry-run")
    assert "4 views compared, 0 with another class, 0 could not be read" in ours.run(*asked), "the same numbers under another name"
    assert "4 known already" in ours.run(*asked, "--dry-run")
    study = ours.show(uid("other model"))
    assert len(study["runs"]) == 1 and len(results(orthanc, "other model")["SR"]) == 1, "nothing was sent"
    assert "analysed" in ours.run(*asked, "--send")
    found = wait_for_results(ours, orthanc, "other model", 2)
    assert {run["model"]["name"] for run in ours.show(uid("other model"))["runs"]} == {"simulated", "another"}
    assert len({tags["SeriesInstanceUID"] for tags in found["SR"]}) == 2, "each model has a series of its own"
    assert "name a study" in ours.run("reprocess", code=2)
    assert "length of time" in ours.run("reprocess", "--since", "soon", code=2)


def test_doubtful_side_is_held_until_a_person_says_so_and_then_withdrawn(
    orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess], verified: Callable[[bytes], Any]
) -> None:
    orthanc.start()
    ours = fourview(demo_weights=True)
    # The breast lies at the right edge, and so says Patient Orientation; Image Laterality says left.
    wrong = mammogram(View.L_CC, study="doubt", pixels=breast_pixels(View.R_CC, seed=5), PatientOrientation=["P", "L"])
    images = exam("doubt")
    send(ours, orthanc, [wrong, images[0], *images[2:]])
    study = ours.wait_for_state(uid("doubt"), "held")
    [doubt] = study["doubts"]
    assert "PatientOrientation" in doubt["reason"] and "pixels" in doubt["reason"]
    assert results(orthanc, "doubt") == {"SR": [], "OT": []}

    said = ours.run("show", uid("doubt"))
    assert f"fourview release {uid('doubt')} --exclude {wrong.SOPInstanceUID}" in said
    assert "refused" in ours.run("release", uid("doubt"), code=1)
    assert "analysed" in ours.run(
        "release", uid("doubt"), "--view", f"{wrong.SOPInstanceUID}=L-CC", "--reason", "seen with the radiographer"
    )
    found = wait_for_results(ours, orthanc, "doubt", 1)
    data = orthanc.get(f"/instances/{found['SR'][0]['ID']}/file")
    verified(data)
    assert b"assigned by an operator" in data and b"seen with the radiographer" not in data
    assert "seen with the radiographer" in ours.run("show", uid("doubt"))

    assert "withdrawn" in ours.run("withdraw", uid("doubt"), "--reason", "it was the right breast after all")
    found = wait_for_results(ours, orthanc, "doubt", 2)
    for objects in found.values():
        data = orthanc.get(f"/instances/{objects[-1 if objects is found['SR'] else 0]['ID']}/file")
        verified(data)
    latest = dcmread(BytesIO(orthanc.get(f"/instances/{found['SR'][-1]['ID']}/file")))
    assert "WITHDRAWN" in str(latest) and "right breast after all" not in str(latest)
    assert "highest-scoring" not in str(latest), "a withdrawal says nothing of any class"
    [predecessor] = latest.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert predecessor.ReferencedSOPInstanceUID == found["SR"][0]["SOPInstanceUID"]
    assert latest.SeriesInstanceUID == found["SR"][0]["SeriesInstanceUID"]
    assert "side contradicted by the pixels" in ours.run("devices")


def test_three_of_four_under_the_default_policy_sends_nothing(orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess]) -> None:
    orthanc.start()
    ours = fourview(study="wait_for_retake_seconds = 0\ngive_up_after_seconds = 2")
    ours.send(exam("three")[:3])
    study = ours.wait_for_state(uid("three"), "incomplete")
    assert study["state_reason"] == "gave up waiting for L-MLO"
    assert study["runs"] == study["deliveries"] == []
    scored = ours.wait_for(
        lambda: [
            image["scores"][0]["predicted_class"] for image in ours.show(uid("three"))["images"] if "predicted_class" in image["scores"][0]
        ],
        "no scores",
    )
    assert scored  # shown here, sent nowhere
    assert orthanc.find("Study", StudyInstanceUID=uid("three")) == []


def test_ignored_study_names_the_rule_and_the_value(orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess]) -> None:
    ours = fourview(rule='Modality == "MG" and StudyAge <= 14')
    ours.send(exam("old", StudyDate="20160101"))
    ours.wait_for_state(uid("old"), "ignored")
    told = ours.run("show", uid("old"))
    assert "all mammograms" in told
    assert "StudyAge" in told


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
    direct = [child for child, parent in parents if parent == pid]
    return direct + [grandchild for child in direct for grandchild in children_of(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_killed_parent_leaves_no_child_and_a_second_serve_is_refused(
    orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess]
) -> None:
    ours = fourview()
    ours.send(exam("killed"))
    ours.wait_for_state(uid("killed"), "analysed")  # so that the decoder's child runs as well
    assert ours.process is not None
    told = service("--config", ours.config, "serve", code=1)
    assert str(ours.process.pid) in told
    children = children_of(ours.process.pid)
    assert len(children) >= 4  # receiver, worker, its decoder, web
    os.kill(ours.process.pid, signal.SIGKILL)
    ours.process.wait()
    time.sleep(2)
    assert [pid for pid in children if alive(pid)] == []
    ours.start()  # and the folder is free again
    assert ours.show(uid("killed"))["state"] == "analysed"


def test_results_are_served_as_files_that_dcmread_reads(orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess]) -> None:
    ours = fourview()
    ours.send(exam("files"))
    study = ours.wait_for_state(uid("files"), "analysed")
    for one in study["runs"][0]["objects"]:
        ds = dcmread(ours.folder / "data" / "files" / one["file_name"])
        assert ds.SOPInstanceUID == one["sop_instance_uid"]
        assert ds.StudyInstanceUID == uid("files")


# ------------------------------------------------------------------------------------------------- whose study it is, at the PACS


def corrected(orthanc: OrthancProcess, study: str, **values: str) -> None:
    """What a PACS administrator does: other values for the patient of a study, under the same UIDs."""
    [found] = orthanc.find("Study", StudyInstanceUID=uid(study))
    keep = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    orthanc.post(f"/patients/{found['ParentPatient']}/modify", {"Replace": values, "Keep": keep, "Force": True, "KeepSource": False})


def test_a_patient_corrected_before_the_result_was_sent(orthanc: OrthancProcess, fourview: Callable[..., FourviewProcess]) -> None:
    """One patient, one study, the SR under the corrected identifier, and nothing was read twice; another patient holds the study."""
    orthanc.start()
    ours = fourview()
    ours.run("pause", "sending")
    for study in ("corrected", "another"):
        for ds in exam(study, PatientID=study):
            orthanc.upload(part10(ds))
    for study in ("corrected", "another"):
        ours.wait_for_state(uid(study), "analysed", version=1)
    corrected(orthanc, "corrected", PatientID="P1-CORRECTED")
    corrected(orthanc, "another", PatientID="P2", PatientName="SOMEBODY^ELSE")
    ours.run("resume", "sending")

    found = wait_for_results(ours, orthanc, "corrected", 1)
    assert {one["PatientID"] for one in (*found["SR"], *found["OT"])} == {"P1-CORRECTED"}
    assert sorted(one["MainDicomTags"]["PatientID"] for one in orthanc.get("/patients", expand="")) == ["P1-CORRECTED", "P2"]
    assert len(orthanc.get("/studies")) == 2
    study = ours.wait_for_state(uid("corrected"), "analysed", version=2)
    assert study["runs"][0]["run_id"] == study["runs"][1]["run_id"], "a second run would be a second reading"
    assert [score["attempt"] for image in study["images"] for score in image["scores"]] == [1, 1, 1, 1]
    sent = [one for one in study["deliveries"] if one["state"] in ("sent", "confirmed")]
    assert [one["patient_check"] for one in sent] == ["agrees", "agrees"]

    held = ours.wait_for_state(uid("another"), "held", version=1)
    assert "orthanc has this study under another patient" in held["state_reason"] and results(orthanc, "another") == {"SR": [], "OT": []}
    assert "--patient-from-pacs" in ours.run("show", uid("another"))
    ours.run("release", uid("another"), "--patient-from-pacs", "--reason", "the emergency patient has a name now")
    found = wait_for_results(ours, orthanc, "another", 1)
    assert {(one["PatientID"], one["PatientName"]) for one in found["SR"]} == {("P2", "SOMEBODY^ELSE")}
