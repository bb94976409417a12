"""The SR's content tree, read back by highdicom and by dcmtk."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from highdicom import sr
from mammograms_made import mammogram
from pydicom import dcmread
from pydicom.dataset import Dataset
from reports_made import (
    CLASSES,
    KOREAN,
    MODEL,
    PREDECESSORS,
    VARIANTS,
    as_received,
    built_variant,
    loser,
    made_report,
    reported_view,
    withdrawn_report,
)

from pipeline.report import Report, build
from pipeline.report.remarks import remarks
from pipeline.report.structured_report import CLASS_CODES, build_structured_report, class_code
from store.study import HANGING_ORDER, Outcome, View

Verified = Callable[[bytes], list[str]]


@pytest.fixture
def read_back(verified: Verified, tmp_path: Path) -> Callable[[Report], Any]:
    """Builds the SR of a report, checks it by dciodvfy and reads it by highdicom."""

    def run(report: Report) -> Any:
        buffer = BytesIO()
        build_structured_report(report).save_as(buffer, enforce_file_format=True)
        warnings = verified(buffer.getvalue())
        assert all("99FOURVIEW" in warning for warning in warnings), warnings
        buffer.seek(0)
        return sr.srread(buffer)

    return run


def concept(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def children(item: Dataset, name: str) -> list[Dataset]:
    return [child for child in item.get("ContentSequence", []) if concept(child) == name]


def child(item: Dataset, *path: str) -> Dataset:
    for name in path:
        (item,) = children(item, name)
    return item


def code(item: Dataset) -> tuple[str, str, str]:
    concept = item.ConceptCodeSequence[0]
    return concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning


def comments(ds: Dataset) -> list[str]:
    return [str(item.TextValue) for item in children(child(ds, "Qualitative Evaluations"), "Comment")]


def groups(ds: Dataset) -> list[Dataset]:
    return children(child(ds, "Imaging Measurements"), "Measurement Group")


def walk(item: Dataset) -> Iterator[Dataset]:
    for one in item.get("ContentSequence", []):
        yield one
        yield from walk(one)


def test_one_group_per_view_with_scores_finding_site_and_region(read_back: Callable[[Report], Any]) -> None:
    report = made_report()
    ds = read_back(report)
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert [str(child(group, "Tracking Identifier").TextValue) for group in groups(ds)] == ["R-CC", "L-CC", "R-MLO", "L-MLO"]
    left_cc = groups(ds)[1]
    assert left_cc.ContentTemplateSequence[0].TemplateIdentifier == "1410"
    assert code(child(left_cc, "Finding")) == ("AI-MASS", "99FOURVIEW", "AI highest-scoring class: Mass")
    assert code(child(left_cc, "Finding", "Associated finding")) == ("129788004", "SCT", "Mammographic breast mass")
    assert code(child(left_cc, "Finding Site")) == ("76752008", "SCT", "Breast")
    assert code(child(left_cc, "Finding Site", "Laterality"))[0] == "7771000"
    region = child(left_cc, "Image Region")
    assert region.GraphicType == "POLYLINE"
    assert list(region.GraphicData) == [10, 20, 150, 20, 150, 240, 10, 240, 10, 20]
    assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == report.views[1].header.SOPInstanceUID


def test_scores_are_all_there_highest_first_and_say_which_class_they_belong_to(read_back: Callable[[Report], Any]) -> None:
    scores = children(groups(read_back(made_report()))[1], "Certainty of Finding")
    assert [(code(child(item, "Finding"))[0], float(item.MeasuredValueSequence[0].NumericValue)) for item in scores] == [
        ("CLASS-MASS", 61.25),
        ("CLASS-ARCH-ASYM", 22.0),
        ("CLASS-CALC", 14.75),
        ("CLASS-NORMAL", 2.0),
    ]
    assert {item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue for item in scores} == {"%"}
    assert child(scores[0], "Equivalent Meaning of Concept Name").TextValue == "AI score, uncalibrated: Mass"
    assert [code(item)[0] for item in children(child(scores[1], "Finding"), "Associated finding")] == ["129792006", "129790003"]


def test_normal_is_named_after_nothing_and_excludes_nothing(read_back: Callable[[Report], Any]) -> None:
    ds = read_back(made_report())
    right_cc = groups(ds)[0]
    assert code(child(right_cc, "Finding")) == (
        "AI-NORMAL",
        "99FOURVIEW",
        "AI highest-scoring class: Normal (no other class scored higher)",
    )
    assert not children(child(right_cc, "Finding"), "Associated finding")
    assert "R-CC: No class scored above Normal in this image. This does not exclude cancer." in comments(ds)
    assert not [item for item in walk(ds) if item.ValueType == "CODE" and code(item)[0] in {"290084006", "111242", "111241"}]


def test_the_reader_of_tid_1500_finds_four_groups_with_their_scores(read_back: Callable[[Report], Any]) -> None:
    found = read_back(made_report()).content.get_planar_roi_measurement_groups()
    assert [group.finding_type.value for group in found] == ["AI-NORMAL", "AI-MASS", "AI-ARCH-ASYM", "AI-CALC"]
    assert [len(group.get_measurements()) for group in found] == [4, 4, 4, 4]


def test_who_observed_and_by_which_algorithm(read_back: Callable[[Report], Any]) -> None:
    ds = read_back(made_report(model=replace(MODEL, options=(("flip", "yes"),))))
    assert child(ds, "Device Observer UID").UID == "2.25.1234"
    assert child(ds, "Device Observer Name").TextValue == "FOURVIEW"
    assert child(ds, "Device Observer Serial Number").TextValue == "a1b2c3"
    group = groups(ds)[0]
    assert child(group, "Algorithm Name").TextValue == "resnet50"
    assert child(group, "Algorithm Version").TextValue == "1.2.0 (weights abababababab)"
    assert child(group, "Algorithm Manufacturer").TextValue == "Example"
    parameters = [item.TextValue for item in children(group, "Algorithm Parameters")]
    assert parameters == [
        "weights=sha256:" + "ab" * 32,
        "preprocessing=presentation",
        "engine=torch",
        "score=softmax, uncalibrated",
        "flip=yes",
    ]


def test_the_image_library_describes_each_image(read_back: Callable[[Report], Any]) -> None:
    report = made_report(reported_view(View.L_MLO, modifiers=("ID",)))
    images = children(child(read_back(report), "Image Library", "Image Library Group"), "Source image")
    assert [image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for image in images] == [v.header.SOPInstanceUID for v in report.views]
    left_mlo = images[3]
    assert code(child(left_mlo, "Image Laterality"))[0] == "7771000"
    assert code(child(left_mlo, "Image View"))[0] == "399368009"
    assert code(child(left_mlo, "Image View", "Image View Modifier"))[0] == "399209000"
    assert child(left_mlo, "Pixel Data Rows").value == 256
    assert child(left_mlo, "Horizontal Pixel Spacing").value == pytest.approx(0.1)
    assert (child(left_mlo, "Patient Orientation Row").TextValue, child(left_mlo, "Patient Orientation Column").TextValue) == ("A", "FR")


def test_a_complete_report_is_complete_and_never_verified(read_back: Callable[[Report], Any]) -> None:
    report = made_report()
    ds = read_back(report)
    assert (ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag) == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert ds.CompletionFlagDescription == "4 of 4 views analysed"
    evidence = {
        (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID)
        for series in ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }
    assert evidence == {(one.header.SOPClassUID, one.header.SOPInstanceUID) for one in report.views}
    assert comments(ds)[0] == "AI output for research use only. NOT FOR DIAGNOSTIC USE. Not reviewed by a physician."
    assert "4 of 4 views analysed" in comments(ds)
    assert "PredecessorDocumentsSequence" not in ds


def test_partial_names_what_is_missing_and_what_failed(read_back: Callable[[Report], Any]) -> None:
    ds = read_back(
        made_report(reported_view(View.R_MLO, failure="the compressed frame is truncated"), absent=(View.L_MLO,), outcome=Outcome.PARTIAL)
    )
    assert (ds.CompletionFlag, ds.CompletionFlagDescription) == ("PARTIAL", "PARTIAL: 2 of 4 views analysed")
    assert len(groups(ds)) == 2
    said = comments(ds)
    assert "PARTIAL: this result does not cover all four views." in said
    assert "R-MLO: not analysed: the compressed frame is truncated" in said
    assert "L-MLO: no usable image." in said


def test_unilateral_says_nothing_about_the_other_side(read_back: Callable[[Report], Any]) -> None:
    ds = read_back(made_report(absent=(View.R_CC, View.R_MLO), outcome=Outcome.UNILATERAL))
    assert ds.CompletionFlag == "COMPLETE", "everything that was imaged was analysed"
    assert ds.CompletionFlagDescription == "UNILATERAL: 2 of 2 views of the left breast analysed"
    assert "UNILATERAL: this result covers the left breast only; nothing is said about the right." in comments(ds)
    assert "2 of 2 views of the left breast analysed" in comments(ds)
    assert not any("R-CC" in line or "R-MLO" in line or "no image" in line or "missing" in line for line in comments(ds))


def test_an_unreadable_image_of_a_side_that_was_not_expected_is_said(read_back: Callable[[Report], Any]) -> None:
    """A rule that expects the left views only, and a right one that came all the same and could not be read."""
    report = made_report(reported_view(View.R_CC, failure="truncated"), absent=(View.R_MLO,), missing=(), outcome=Outcome.UNILATERAL)
    ds = read_back(report)
    assert ds.CompletionFlag == "PARTIAL"
    assert "UNILATERAL: this result covers the left breast only; nothing is said about the right." in comments(ds)
    assert "2 of 2 views of the left breast analysed" in comments(ds)
    assert "R-CC: not analysed: truncated" in comments(ds)


def test_a_partial_exam_of_one_side_names_only_what_is_missing_of_that_side(read_back: Callable[[Report], Any]) -> None:
    """A rule that expects the left views only: the right ones are not missing, so they are not in `missing`."""
    report = made_report(absent=(View.R_CC, View.R_MLO, View.L_MLO), missing=(View.L_MLO,), outcome=Outcome.PARTIAL)
    ds = read_back(report)
    assert ds.CompletionFlagDescription == "PARTIAL: 1 of 2 views of the left breast analysed"
    assert "PARTIAL: this result does not cover both views of the left breast." in comments(ds)
    assert "L-MLO: no usable image." in comments(ds)
    assert not any("R-" in line for line in comments(ds))


def test_a_failed_view_of_one_side_is_not_complete(read_back: Callable[[Report], Any]) -> None:
    ds = read_back(
        made_report(reported_view(View.L_CC, failure="no pixel data"), absent=(View.R_CC, View.R_MLO), outcome=Outcome.UNILATERAL)
    )
    assert ds.CompletionFlag == "PARTIAL"


def test_a_new_version_names_its_predecessor(read_back: Callable[[Report], Any]) -> None:
    ds = read_back(made_report(version_number=2, predecessors=PREDECESSORS, cause="d" * 64))
    study = ds.PredecessorDocumentsSequence[0]
    assert study.StudyInstanceUID == ds.StudyInstanceUID
    assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == "2.25.56"
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.55"
    assert ds.InstanceNumber == 2
    assert "Version 2, replaces version 1" in comments(ds)


def test_tracking_uids_stay_the_same_over_versions_and_differ_between_views(read_back: Callable[[Report], Any]) -> None:
    def tracked(report: Report) -> list[str]:
        return [str(child(group, "Tracking Unique Identifier").UID) for group in groups(read_back(report))]

    first, second = tracked(made_report()), tracked(made_report(cause="d" * 64, model=replace(MODEL, version="2")))
    assert first == second
    assert len(set(first)) == 4


def test_warnings_losers_and_implants_are_listed_once(read_back: Callable[[Report], Any]) -> None:
    implanted = as_received(mammogram(View.L_CC, BreastImplantPresent="YES"))
    passed_over = loser(View.R_CC, "2.25.8", rule=4)
    said = comments(
        read_back(
            made_report(
                reported_view(View.L_CC, header=implanted, warnings=("lossy compression", "lossy compression")),
                warnings=("the side was read from text", "L-CC: lossy compression", "L-CC: breast implant present"),
                losers=(passed_over,),
            )
        )
    )
    for line in (
        "the side was read from text",
        "L-CC: breast implant present",
        "L-CC: lossy compression",
        f"R-CC: image {passed_over.winner_sop_instance_uid} was used because its kind ranks higher (rule 4); not used: 2.25.8",
    ):
        assert said.count(line) == 1


def test_an_image_that_scored_otherwise_is_named_before_the_warnings(read_back: Callable[[Report], Any]) -> None:
    """L-MLO of `made_report` scores highest for Calcification, R-CC for Normal."""
    losers = (
        loser(View.L_MLO, "2.25.771234", predicted_class="Mass"),
        loser(View.L_MLO, "2.25.885678", predicted_class="Calcification"),
        loser(View.L_MLO, "2.25.999999"),
        loser(View.L_CC, "2.25.334444", predicted_class="Normal"),
    )
    said = comments(read_back(made_report(losers=losers, warnings=("a warning",))))
    otherwise = [line for line in said if line.startswith("Another")]
    assert otherwise == [
        "Another L-MLO of this study scored highest for Mass; see image ...1234.",
        "Another L-CC of this study scored highest for Normal (no other class scored higher); see image ...4444.",
    ]
    assert said.index(otherwise[1]) < said.index("a warning")
    for one in losers:
        assert sum(line.endswith(f"not used: {one.sop_instance_uid}") for line in said) == 1, "each stays in the list of all"


def test_an_image_beside_a_failed_one_is_named_too(read_back: Callable[[Report], Any]) -> None:
    report = made_report(
        reported_view(View.L_MLO, failure="the compressed frame is truncated"),
        losers=(loser(View.L_MLO, "2.25.771234", predicted_class="Mass"),),
        outcome=Outcome.PARTIAL,
    )
    assert "Another L-MLO of this study scored highest for Mass; see image ...1234." in comments(read_back(report))


@pytest.mark.parametrize(
    ("uids", "shown"),
    [
        (("2.25.771234", "2.25.881234"), ("...71234", "...81234")),
        (("2.25.7712345", "2.25.8812345", "2.25.8912345"), ("...712345", "...812345", "...912345")),
        (("2.25.100.5678", "2.25.200.5678"), ("...100.5678", "...200.5678")),
        (("2.25.8", "12.25.8"), ("2.25.8", "12.25.8")),
    ],
)
def test_the_end_of_a_uid_tells_its_image_from_every_other(
    uids: tuple[str, ...], shown: tuple[str, ...], read_back: Callable[[Report], Any]
) -> None:
    losers = [loser(View.L_MLO, uid, predicted_class="Mass") for uid in uids]
    said = [line for line in comments(read_back(made_report(losers=losers))) if line.startswith("Another")]
    ends = [line.removesuffix(".").rpartition("see image ")[2] for line in said]
    assert ends == list(shown)


def test_the_end_of_a_uid_is_not_that_of_the_image_that_was_used(read_back: Callable[[Report], Any]) -> None:
    used = made_report().views[3].header.SOPInstanceUID
    said = comments(read_back(made_report(losers=(loser(View.L_MLO, f"2.25.9{used[-6:]}", predicted_class="Mass"),))))
    assert any(line.endswith(f"see image ...9{used[-6:]}.") for line in said)


def test_several_exposures_of_a_view_are_said_with_what_decided(read_back: Callable[[Report], Any]) -> None:
    losers = (
        loser(View.L_MLO, "2.25.1"),
        loser(View.L_MLO, "2.25.2"),
        loser(View.L_MLO, "2.25.3", rule=8),
        loser(View.R_CC, "2.25.4", rule=6),
    )
    said = [line for line in comments(read_back(made_report(losers=losers))) if "several" in line]
    assert said == ["L-MLO: several exposures of this view; one was used because it was acquired later (rule 7) and it is larger (rule 8)"]


@pytest.mark.parametrize(
    ("sources", "line"),
    [
        ({"laterality_source": "operator", "view_source": "operator"}, "L-CC: side and view assigned by an operator"),
        ({"laterality_source": "operator"}, "L-CC: side assigned by an operator"),
        ({"view_source": "operator"}, "L-CC: view assigned by an operator"),
        ({}, None),
    ],
)
def test_what_a_person_assigned_is_said(sources: dict[str, Any], line: str | None, read_back: Callable[[Report], Any]) -> None:
    said = comments(read_back(made_report(reported_view(View.L_CC, **sources))))
    assert [one for one in said if "operator" in one] == ([line] if line else [])


def test_a_withdrawn_report_says_nothing_but_that(read_back: Callable[[Report], Any]) -> None:
    report = withdrawn_report(
        losers=(loser(View.L_MLO, "2.25.1234", predicted_class="Mass"),), warnings=("every image was rejected", "every image was rejected")
    )
    ds = read_back(report)
    assert comments(ds) == [
        "WITHDRAWN: the earlier result of this study must not be used. This version replaces it and says nothing about the images.",
        "every image was rejected",
        "AI output for research use only. NOT FOR DIAGNOSTIC USE. Not reviewed by a physician.",
        "Version 2, replaces version 1",
    ]
    assert (ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag) == ("PARTIAL", "UNVERIFIED", "PRELIMINARY")
    assert ds.CompletionFlagDescription == "WITHDRAWN: the earlier result must not be used"
    of_a_result = {"Measurement Group", "Finding", "Certainty of Finding", "Image Region", "Algorithm Name"}
    assert not [item for item in walk(ds) if concept(item) in of_a_result]


def test_a_withdrawn_report_names_the_images_and_the_version_that_it_replaces(read_back: Callable[[Report], Any]) -> None:
    report = withdrawn_report()
    ds = read_back(report)
    used = [one.header.SOPInstanceUID for one in report.views]
    images = children(child(ds, "Image Library", "Image Library Group"), "Source image")
    assert [image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for image in images] == used
    evidence = [
        reference.ReferencedSOPInstanceUID
        for series in ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    ]
    assert sorted(evidence) == sorted(used)
    replaced = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert replaced.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.55"


def test_viewers_find_the_containers_that_they_look_into_in_a_withdrawn_report(read_back: Callable[[Report], Any]) -> None:
    """OHIF opens both without asking whether they are there, and trips over a group without a region."""
    ds = read_back(withdrawn_report())
    assert child(ds, "Image Library").ContentSequence
    assert "ContentSequence" not in child(ds, "Imaging Measurements")
    assert (ds.ConceptNameCodeSequence[0].CodeValue, ds.ContentTemplateSequence[0].TemplateIdentifier) == ("126000", "1500")


def test_a_procedure_code_of_the_images_is_reported(read_back: Callable[[Report], Any]) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "24623-7", "LN", "MG Breast screening"
    ds = read_back(made_report(every_header={"ProcedureCodeSequence": [item]}))
    assert code(child(ds, "Procedure reported")) == ("24623-7", "LN", "MG Breast screening")
    assert code(child(read_back(made_report()), "Procedure reported"))[0] == "43468-8"


def test_classes_of_another_model_get_codes_of_their_own(read_back: Callable[[Report], Any]) -> None:
    classes = ("Benign-looking\\thing", "Something with a name that is far longer than a code meaning may ever be", "Ödem")
    views = [reported_view(view, classes=classes, probabilities=(0.2, 0.7, 0.1)) for view in HANGING_ORDER]
    ds = read_back(made_report(*views, model=replace(MODEL, classes=classes)))
    value, scheme, meaning = code(child(groups(ds)[0], "Finding"))
    assert value.startswith("AI-") and len(value) <= 16 and scheme == "99FOURVIEW"
    assert meaning.startswith("AI highest-scoring class: Something") and len(meaning) <= 64
    assert len({class_code(one).stem for one in classes}) == 3


def test_the_reference_systems_classes_all_have_codes() -> None:
    """A second, hand-written copy of the table."""
    assert set(CLASS_CODES) == set(CLASSES)
    assert {one: [value for value, _ in CLASS_CODES[one].named_after] for one in CLASSES} == {
        "Mass": ["129788004"],
        "Calcification": ["309587003"],
        "Architectural/Asymmetry": ["129792006", "129790003"],
        "Normal": [],
    }
    assert all(len(f"CLASS-{one.stem}") <= 16 for one in CLASS_CODES.values())


def test_our_coding_scheme_is_identified(read_back: Callable[[Report], Any]) -> None:
    (scheme,) = read_back(made_report()).CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99FOURVIEW"


def test_an_order_is_referenced_only_when_the_images_name_one(read_back: Callable[[Report], Any]) -> None:
    assert read_back(made_report()).ReferencedRequestSequence[0].AccessionNumber == "ACC1"
    assert "ReferencedRequestSequence" not in read_back(made_report(every_header={"AccessionNumber": ""}))


def test_private_image_classes_are_named_as_they_are(verified: Verified) -> None:
    report = made_report(every_header={"SOPClassUID": "1.2.840.113619.4.26"})
    ds = dcmread(BytesIO(build(report)[0].data))
    reference = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPClassUID == "1.2.840.113619.4.26"


@pytest.mark.parametrize("name", VARIANTS)
def test_dcmtk_reads_the_tree_of_every_kind(name: str, tmp_path: Path, needs_program: Callable[[str], str]) -> None:
    report, objects = built_variant(name)
    path = tmp_path / "sr.dcm"
    path.write_bytes(objects[0].data)
    ended = subprocess.run([needs_program("dsrdump"), "+Pl", str(path)], capture_output=True, timeout=60, check=True)
    printed = ended.stdout.decode("utf-8")
    assert printed.count('"Measurement Group"') == len(report.analysed)
    assert printed.count('"Imaging Measurements"') == 1
    assert "Verification Flag   : UNVERIFIED" in printed
    assert report.words.banner in printed


@pytest.mark.parametrize("name", VARIANTS)
def test_the_tree_of_every_kind_is_the_one_that_is_documented(name: str, read_back: Callable[[Report], Any]) -> None:
    report = VARIANTS[name]()
    ds = read_back(report)
    assert [(one.ValueType, concept(one)) for one in ds.ContentSequence] == [
        ("CODE", "Language of Content Item and Descendants"),
        ("CODE", "Observer Type"),
        ("UIDREF", "Device Observer UID"),
        ("TEXT", "Device Observer Name"),
        ("TEXT", "Device Observer Manufacturer"),
        ("TEXT", "Device Observer Model Name"),
        ("TEXT", "Device Observer Serial Number"),
        ("CODE", "Procedure reported"),
        ("CONTAINER", "Image Library"),
        ("CONTAINER", "Imaging Measurements"),
        ("CONTAINER", "Qualitative Evaluations"),
    ]
    assert [str(child(group, "Tracking Identifier").TextValue) for group in groups(ds)] == [str(one.view) for one in report.analysed]
    algorithm = ["Algorithm Name", "Algorithm Version", "Algorithm Manufacturer", "Algorithm Family"]
    for group in groups(ds):
        names = [concept(item) for item in group.ContentSequence if concept(item) != "Algorithm Parameters"]
        assert names[:4] == ["Tracking Identifier", "Tracking Unique Identifier", "Finding", "Finding Site"]
        assert sorted(names[4:]) == sorted([*algorithm, "Image Region", *4 * ["Certainty of Finding"]])
    assert comments(ds) == remarks(report)


def test_a_korean_report_speaks_korean_and_its_codes_english(read_back: Callable[[Report], Any]) -> None:
    passed_over = loser(View.R_CC, "2.25.771234", rule=7, predicted_class="Mass")
    ds = read_back(
        made_report(
            absent=(View.R_MLO,),
            outcome=Outcome.PARTIAL,
            installation=KOREAN,
            losers=(passed_over,),
            warnings=("lossy compressed image",),
            version_number=2,
            predecessors=PREDECESSORS,
            replaces_at=datetime(2026, 11, 20, 22, 2, tzinfo=UTC),
        )
    )
    assert code(child(ds, "Language of Content Item and Descendants")) == ("ko", "RFC5646", "Korean")
    assert ds.CompletionFlagDescription == "PARTIAL: 촬영상 4개 중 3개 분석됨"
    said = comments(ds)
    for line in (
        "연구용 AI 분석 결과입니다. 진단 목적으로 사용할 수 없습니다. 의사의 검토를 거치지 않은 결과입니다.",
        "부분 결과(PARTIAL): 이 결과는 네 촬영상을 모두 포함하지 않습니다.",
        "R-MLO: 사용할 수 있는 영상이 없습니다.",
        "R-CC: 이 영상에서 정상보다 높은 점수를 받은 분류가 없습니다. 그러나 이것으로 암을 배제할 수는 없습니다.",
        "버전 2, 07:02의 버전 1 대체",
        "이 검사의 다른 R-CC 영상에서는 최고 점수 분류가 다릅니다: 종괴. 확인할 영상: ...1234.",
        f"R-CC: 사용한 영상 {passed_over.winner_sop_instance_uid}; 사용하지 않은 영상 2.25.771234; 선택 근거: 더 나중에 촬영됨 (규칙 7)",
        "lossy compressed image",
    ):
        assert line in said
    left_cc = groups(ds)[1]
    assert code(child(left_cc, "Finding")) == ("AI-MASS", "99FOURVIEW", "AI highest-scoring class: Mass")
    scores = children(left_cc, "Certainty of Finding")
    assert child(scores[0], "Equivalent Meaning of Concept Name").TextValue == "AI 점수(보정되지 않음): 종괴"
    assert all(code(item)[2].isascii() for item in walk(ds) if item.ValueType == "CODE")


@pytest.mark.parametrize(
    ("replaces_at", "line"),
    [
        (datetime(2026, 11, 20, 22, 2, tzinfo=UTC), "Version 2, replaces version 1 of 07:02"),
        (datetime(2026, 11, 20, 5, 2, 59, tzinfo=UTC), "Version 2, replaces version 1 of 2026-11-20 14:02"),
        (None, "Version 2, replaces version 1"),
    ],
)
def test_a_new_version_says_when_the_one_was_made_that_it_replaces(
    replaces_at: datetime | None, line: str, read_back: Callable[[Report], Any]
) -> None:
    """This version was made at 07:30 on 2026-11-21 in the installation's time zone."""
    report = made_report(version_number=2, predecessors=PREDECESSORS, cause="d" * 64, replaces_at=replaces_at)
    assert line in comments(read_back(report))


def test_an_implant_is_said_once_in_each_language(read_back: Callable[[Report], Any]) -> None:
    implanted = reported_view(View.L_CC, header=as_received(mammogram(View.L_CC, BreastImplantPresent="YES")))
    warnings = ("L-CC: breast implant present",)
    assert [line for line in comments(read_back(made_report(implanted, warnings=warnings))) if "implant" in line] == list(warnings)
    korean = comments(read_back(made_report(implanted, warnings=warnings, installation=KOREAN)))
    assert [line for line in korean if "implant" in line or "보형물" in line] == ["L-CC: 유방 보형물이 있음"]


@pytest.mark.parametrize("name", ["revised", "failed view", "implant", "withdrawn, Korean"])
def test_the_content_is_encoded_as_pydicom_would_encode_it(name: str) -> None:
    """Every value is read and written anew: elements that were out of order or of a wrong length would show."""
    built = built_variant(name)[1][0]
    ds = dcmread(BytesIO(built.data))
    ds.walk(lambda item, element: element.value)
    ds.set_original_encoding(None, None, None)
    again = BytesIO()
    ds.save_as(again, enforce_file_format=True)
    assert again.getvalue() == built.data
