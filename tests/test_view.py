"""Header cases, one line each: what the attributes say, and what follows. Written from PS3.16 CID 4014/4015 and PS3.3 C.8.11.7."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mammograms_made import code, mammogram, uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import (
    JPEG2000,
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForProcessing,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)
from stepped_store import image, rejection

from store.study import ImageKind, View
from store.view import CID_4014, CID_4015, SLOT_MODIFIERS, resolve, resolve_view, unreadable

#: pydicom says what it thinks of the bad values that are written here on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

L_CC, R_CC, L_MLO, R_MLO = View.L_CC, View.R_CC, View.L_MLO, View.R_MLO
SIDE = {"ImageLaterality": None}
#: Nothing structural tells the view or the side any more.
BARE: dict[str, Any] = {"ImageLaterality": None, "ViewCodeSequence": None, "ViewPosition": None, "PatientOrientation": None}
TOMO = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS"]


def item(value: str = "", scheme: str = "SCT", meaning: str = "", modifiers: list[Dataset] | None = None) -> Dataset:
    made = Dataset()
    for keyword, one in (("CodeValue", value), ("CodingSchemeDesignator", scheme), ("CodeMeaning", meaning)):
        if one:
            setattr(made, keyword, one)
    made.ViewModifierCodeSequence = modifiers or []
    return made


def view_code(value: str, scheme: str = "SCT", *modifiers: tuple[str, str], **more: Any) -> dict[str, Any]:
    """ViewCodeSequence of one item with modifiers, and no ViewPosition unless told."""
    inside = [code(modifier, designator, "m") for modifier, designator in modifiers]
    return {"ViewPosition": None, **more, "ViewCodeSequence": [item(value, scheme, "x", inside)]}


def region(value: str, scheme: str = "SCT", modifier: tuple[str, str] | None = None) -> list[Dataset]:
    made = code(value, scheme, "x")
    if modifier:
        made.AnatomicRegionModifierSequence = [code(*modifier, "x")]
    return [made]


def frames(*sides: str) -> list[Dataset]:
    made = []
    for side in sides:
        anatomy, group = Dataset(), Dataset()
        anatomy.FrameLaterality = side
        group.FrameAnatomySequence = [anatomy]
        made.append(group)
    return made


def text_only(**texts: str) -> dict[str, Any]:
    return {**BARE, **texts}


# An expectation is a view, or the start of the words of `set_aside`, or "doubt" and words of it; then further fields of the evidence.
CASES: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    # ---- the view by code, in every coding scheme
    "CC in SCT": (view_code("399162004"), L_CC, {"view_source": "ViewCodeSequence"}),
    "MLO in SCT": (view_code("399368009"), L_MLO, {}),
    "CC in SRT": (view_code("R-10242", "SRT"), L_CC, {"view_source": "ViewCodeSequence"}),
    "MLO in SRT": (view_code("R-10226", "SRT"), L_MLO, {}),
    "CC in SNM3": (view_code("R-10242", "SNM3"), L_CC, {}),
    "MLO in SNM3": (view_code("R-10226", "SNM3"), L_MLO, {}),
    "CC in 99SDM": (view_code("R-10242", "99SDM"), L_CC, {}),
    "MLO in 99SDM": (view_code("R-10226", "99SDM"), L_MLO, {}),
    "a designator in lower case": (view_code("r-10242", "srt"), L_CC, {}),
    "padded code and designator": (view_code(" 399368009 ", "SCT "), L_MLO, {}),
    "a code of another scheme is none": (view_code("399162004", "99VENDOR"), "no attribute names its view", {}),
    "an SRT code under SCT is none": (view_code("R-10242", "SCT"), "no attribute names its view", {}),
    "never by meaning when there is a code": (
        {"ViewPosition": None, "ViewCodeSequence": [item("1", "99X", "cranio-caudal")]},
        "no attribute names its view",
        {},
    ),
    "by exact meaning without a code": (
        {"ViewPosition": None, "ViewCodeSequence": [item("", "", "Medio-Lateral Oblique")]},
        L_MLO,
        {"view_source": "ViewCodeSequence meaning"},
    ),
    "by exact meaning without a designator": ({"ViewPosition": None, "ViewCodeSequence": [item("1", "", "cranio-caudal")]}, L_CC, {}),
    # ---- what outranks what
    "the code beats ViewPosition": (view_code("399162004", ViewPosition="MLO"), L_CC, {"conflicts": 1}),
    "ViewPosition beats text": (
        {"ViewCodeSequence": None, "ViewPosition": "MLO", "SeriesDescription": "L CC"},
        L_MLO,
        {"view_source": "ViewPosition"},
    ),
    "ViewPosition beats a meaning": ({"ViewPosition": "MLO", "ViewCodeSequence": [item("", "", "cranio-caudal")]}, L_MLO, {}),
    "ViewPosition where the code is unknown": (view_code("1", "99X", ViewPosition="CC"), L_CC, {"view_source": "ViewPosition"}),
    "two items are not used": (
        {"ViewPosition": None, "ViewCodeSequence": [item("399162004"), item("399368009")]},
        "no attribute names its view",
        {"warnings": 1},
    ),
    "two items, and a ViewPosition": (
        {"ViewPosition": "MLO", "ViewCodeSequence": [item("399162004"), item("399368009")]},
        L_MLO,
        {"warnings": 1},
    ),
    "no item": ({"ViewCodeSequence": [], "ViewPosition": "CC"}, L_CC, {"view_source": "ViewPosition"}),
    "ViewPosition in lower case, padded": ({"ViewCodeSequence": None, "ViewPosition": " mlo "}, L_MLO, {}),
    "ViewPosition with a NUL": ({"ViewCodeSequence": None, "ViewPosition": "CC\0"}, L_CC, {}),
    "two values of ViewPosition are none": (
        {"ViewCodeSequence": None, "ViewPosition": ["CC", "MLO"]},
        "no attribute names its view",
        {"view_position": None},
    ),
    # ---- views that fill no slot
    **{
        f"{label} by code is no slot": (view_code(codes[0][0]), f"view {label} is none", {"view_position": label})
        for label, codes in CID_4014.items()
        if label not in ("CC", "MLO", "SPECIMEN")
    },
    "XCCL by its old code is no CC": (view_code("Y-X1770", "SRT"), "view XCCL", {}),
    "XCCM by its old code is no CC": (view_code("Y-X1771", "SRT"), "view XCCM", {}),
    "XCCL by ViewPosition is no CC": ({"ViewCodeSequence": None, "ViewPosition": "XCCL"}, "view XCCL", {}),
    "LMO is no MLO": ({"ViewCodeSequence": None, "ViewPosition": "LMO"}, "view LMO", {}),
    # ---- modifiers
    **{
        f"modifier {label} ({scheme}) {'may fill' if label in SLOT_MODIFIERS else 'never fills'} a slot": (
            view_code("399162004", "SCT", (value, scheme)),
            L_CC if label in SLOT_MODIFIERS else f"view modifier {words}",
            {"modifiers": (label,)},
        )
        for label, (sct, srt, words) in CID_4015.items()
        for value, scheme in ((sct, "SCT"), (srt, "SNM3"))
    },
    "a modifier at top level counts": ({"ViewModifierCodeSequence": [code("399055006", "SCT", "spot")]}, "view modifier spot", {}),
    "implant displaced and spot": (
        view_code("399162004", "SCT", ("399209000", "SCT"), ("399055006", "SCT")),
        "view modifier spot",
        {"modifiers": ("ID", "S")},
    ),
    "an unknown modifier": (view_code("399162004", "SCT", ("1", "99X")), "unknown view modifier 1 (99X)", {}),
    "a modifier without a code": (
        {"ViewCodeSequence": [item("399162004", "SCT", "x", [item("", "", "Spot Compression")])]},
        "unknown view modifier SPOT COMPRESSION",
        {},
    ),
    "a modifier in one of two items": (
        {
            "ViewPosition": "CC",
            "ViewCodeSequence": [item("399162004", "SCT", "x", [code("399163009", "SCT", "magnification")]), item("399162004")],
        },
        "view modifier magnification",
        {},
    ),
    "an empty modifier item is none": ({"ViewCodeSequence": [item("399162004", "SCT", "x", [Dataset()])]}, L_CC, {"modifiers": ()}),
    "a spot paddle": ({"PaddleDescription": "SPOT 8 cm"}, "view modifier spot", {}),
    "a Hologic spot paddle": ({"PaddleDescription": "10CM SPT CONTACT"}, "view modifier spot", {}),
    "a magnification paddle": ({"PaddleDescription": "MAG 1.8"}, "view modifier magnification", {}),
    "an ordinary paddle": ({"PaddleDescription": "24CM SCREENING"}, L_CC, {}),
    "magnified by its factor": ({"EstimatedRadiographicMagnificationFactor": "1.8"}, "view modifier magnification", {}),
    "an ordinary factor": ({"EstimatedRadiographicMagnificationFactor": "1.07"}, L_CC, {}),
    "1.2 is not yet magnified": ({"EstimatedRadiographicMagnificationFactor": "1.2"}, L_CC, {}),
    # ---- the side
    "ImageLaterality": ({}, L_CC, {"laterality_source": "ImageLaterality"}),
    "ImageLaterality in lower case, padded": ({"ImageLaterality": "l "}, L_CC, {}),
    "ImageLaterality with a NUL": ({"ImageLaterality": "L\0"}, L_CC, {}),
    "both breasts": ({"ImageLaterality": "B"}, "ImageLaterality is B", {}),
    "both breasts, whatever the text says": ({"ImageLaterality": "B", "SeriesDescription": "L CC"}, "ImageLaterality is B", {}),
    "BILATERAL": ({"ImageLaterality": "BILATERAL"}, "ImageLaterality is BILATERAL", {}),
    "two values of ImageLaterality": ({"ImageLaterality": ["L", "R"]}, "doubt: contradictory", {}),
    "Laterality when ImageLaterality is absent": (
        {"ImageLaterality": None, "Laterality": "R", "PatientOrientation": None},
        R_CC,
        {"laterality_source": "Laterality"},
    ),
    "Laterality when ImageLaterality is empty": ({"ImageLaterality": "", "Laterality": "R", "PatientOrientation": None}, R_CC, {}),
    "Laterality of the series does not override": ({"Laterality": "R"}, L_CC, {"warnings": 1}),
    "the frames' side before the series'": (
        {**SIDE, "SharedFunctionalGroupsSequence": frames("L"), "PatientOrientation": None},
        L_CC,
        {"laterality_source": "FrameLaterality"},
    ),
    "the frames contradict the image": ({"SharedFunctionalGroupsSequence": frames("R")}, "doubt: contradictory", {}),
    "frames that disagree say nothing": ({"PerFrameFunctionalGroupsSequence": frames("L", "R")}, L_CC, {}),
    "left breast by its region": (
        {**SIDE, "AnatomicRegionSequence": region("80248007")},
        L_CC,
        {"laterality_source": "AnatomicRegionSequence"},
    ),
    "right breast by its region in SRT": (
        {**SIDE, "PatientOrientation": None, "AnatomicRegionSequence": region("T-04020", "SRT")},
        R_CC,
        {},
    ),
    "left by the region's modifier": ({**SIDE, "AnatomicRegionSequence": region("76752008", "SCT", ("7771000", "SCT"))}, L_CC, {}),
    "right by the region's modifier in SNM3": (
        {**SIDE, "PatientOrientation": None, "AnatomicRegionSequence": region("T-04000", "SNM3", ("G-A100", "SNM3"))},
        R_CC,
        {},
    ),
    "a region that agrees": ({"AnatomicRegionSequence": region("80248007")}, L_CC, {"conflicts": 0}),
    "a region without a side": ({"AnatomicRegionSequence": region("76752008")}, L_CC, {"conflicts": 0}),
    "a region that contradicts": ({"AnatomicRegionSequence": region("73056007")}, "doubt: contradictory", {"conflicts": 1}),
    "a region's modifier that contradicts": (
        {"AnatomicRegionSequence": region("76752008", "SCT", ("24028007", "SCT"))},
        "doubt: contradictory",
        {},
    ),
    "a region that contradicts Laterality": (
        {**SIDE, "Laterality": "L", "AnatomicRegionSequence": region("73056007")},
        "doubt: contradictory",
        {},
    ),
    "a contradiction on what is not for us is no doubt": (
        {"AnatomicRegionSequence": region("73056007"), "PresentationIntentType": "FOR PROCESSING"},
        "For Processing",
        {},
    ),
    "no side at all": ({**SIDE, "PatientOrientation": None}, "doubt: without a side", {}),
    # ---- orientation
    "CC, column R: left": (SIDE, L_CC, {"laterality_source": "PatientOrientation", "warnings": 1}),
    "CC, column L: right": ({**SIDE, "PatientOrientation": ["P", "L"]}, R_CC, {"laterality_source": "PatientOrientation"}),
    "MLO is not inferred": (
        view_code("399368009", ImageLaterality=None, PatientOrientation=["A", "FR"]),
        "doubt: without a side",
        {},
    ),
    "an orientation that does not fit is a warning": ({"PatientOrientation": ["P", "L"]}, L_CC, {"warnings": 1}),
    "one value of orientation": ({"PatientOrientation": "A"}, L_CC, {"warnings": 0}),
    # ---- text, the last resort
    "two words": (text_only(SeriesDescription="L CC"), L_CC, {"view_source": "text of SeriesDescription"}),
    "words and signs": (text_only(SeriesDescription="Right - MLO (screening)"), R_MLO, {}),
    "LT and RT": (text_only(SeriesDescription="RT CC"), R_CC, {}),
    "one glued word": (text_only(SeriesDescription="LCC"), L_CC, {"laterality_source": "text of SeriesDescription"}),
    "glued RMLO": (text_only(ProtocolName="rmlo"), R_MLO, {"view_source": "text of ProtocolName"}),
    "glued LMLOID": (text_only(SeriesDescription="LMLOID"), L_MLO, {"modifiers": ("ID",)}),
    "glued RMCC is magnified": (text_only(SeriesDescription="RMCC"), "view modifier magnification", {}),
    "glued RSMLO is a spot": (text_only(SeriesDescription="RSMLO"), "view modifier spot", {}),
    "glued LCCRL is rolled": (text_only(SeriesDescription="LCCRL"), "view modifier rolled lateral", {}),
    "L XCCL is no CC": (text_only(SeriesDescription="L XCCL"), "view XCCL", {}),
    "ACCESSION is no CC": (text_only(SeriesDescription="L ACCESSION 12"), "no attribute names its view", {}),
    "LCC and RCC tell nothing": (text_only(SeriesDescription="LCC RCC"), "no attribute names its view", {}),
    "CC and MLO tell nothing": (text_only(SeriesDescription="L CC MLO"), "no attribute names its view", {}),
    "a view without a side": (text_only(SeriesDescription="CC"), "doubt: without a side", {}),
    "left and right: no side": (text_only(SeriesDescription="LEFT AND RIGHT CC"), "doubt: without a side", {}),
    "ViewPosition as text": ({**BARE, "ViewPosition": "L-MLO"}, L_MLO, {"view_source": "text of ViewPosition"}),
    "a step's description": (text_only(PerformedProcedureStepDescription="Left CC"), L_CC, {}),
    "the study's description is no source": (text_only(StudyDescription="L CC"), "no attribute names its view", {}),
    "the side from text beside a code": (
        {**SIDE, "PatientOrientation": None, "SeriesDescription": "R CC"},
        R_CC,
        {"view_source": "ViewCodeSequence", "laterality_source": "text of SeriesDescription"},
    ),
    "the side from text beside ViewPosition": (
        {**SIDE, "PatientOrientation": None, "ViewCodeSequence": None, "SeriesDescription": "R CC"},
        R_CC,
        {"view_source": "ViewPosition"},
    ),
    "a text of another view does not tell the side": (
        {**SIDE, "PatientOrientation": None, "SeriesDescription": "R MLO"},
        "doubt: without a side",
        {},
    ),
    "text never overrides": ({"SeriesDescription": "R MLO"}, L_CC, {"warnings": 0}),
    # ---- kinds
    "an ordinary image": ({}, L_CC, {"kind": ImageKind.FFDM}),
    "an empty third value": ({"ImageType": ["DERIVED", "PRIMARY", ""]}, L_CC, {"kind": ImageKind.FFDM}),
    "no ImageType": ({"ImageType": None}, L_CC, {"kind": ImageKind.FFDM}),
    "synthetic": ({"ImageType": [*TOMO, "GENERATED_2D"]}, L_CC, {"kind": ImageKind.SYNTHETIC_2D}),
    "synthetic with nine values": (
        {"ImageType": [*TOMO, "GENERATED_2D", "", "", "", "", "100000"]},
        L_CC,
        {"kind": ImageKind.SYNTHETIC_2D},
    ),
    "synthetic in lower case": (
        {"ImageType": ["derived", "primary", "tomosynthesis", "generated_2d"]},
        L_CC,
        {"kind": ImageKind.SYNTHETIC_2D},
    ),
    "TOMO_2D": ({"ImageType": ["DERIVED", "PRIMARY", "TOMO_2D"]}, L_CC, {"kind": ImageKind.SYNTHETIC_2D}),
    **{
        f"synthetic by its name: {name}": ({"SeriesDescription": f"L CC {name}"}, L_CC, {"kind": ImageKind.SYNTHETIC_2D})
        for name in ("C-View", "CVIEW", "S-View", "Intelligent 2D", "Insight 2D", "V-Preview", "Synthesized")
    },
    "a tomosynthesis slice": ({"ImageType": [*TOMO, "NONE"]}, "a tomosynthesis image", {"kind": ImageKind.TOMOSYNTHESIS}),
    "a tomosynthesis projection": ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO_PROJ"]}, "a tomosynthesis image", {}),
    "contrast, low energy": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "POST_CONTRAST", "", "LOW_ENERGY"]},
        L_CC,
        {"kind": ImageKind.CONTRAST_LOW_ENERGY},
    ),
    "contrast, high energy": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "POST_CONTRAST", "", "HIGH_ENERGY"]},
        "a contrast image",
        {"kind": ImageKind.CONTRAST_OTHER},
    ),
    "contrast, subtracted": ({"ImageType": ["DERIVED", "PRIMARY", "POST_CONTRAST", "SUBTRACTION"]}, "a contrast image", {}),
    "contrast, subtracted low energies": (
        {"ImageType": ["DERIVED", "PRIMARY", "POST_CONTRAST", "SUBTRACTION", "LOW_ENERGY"]},
        "a contrast image",
        {},
    ),
    "before contrast, nothing more": ({"ImageType": ["ORIGINAL", "PRIMARY", "PRE_CONTRAST"]}, "a contrast image", {}),
    **{
        f"biopsy guidance: {value}": ({"ImageType": ["ORIGINAL", "PRIMARY", value]}, "an image of biopsy", {"kind": ImageKind.STEREOTACTIC})
        for value in ("STEREO_SCOUT", "STEREO_MINUS", "PREFIRE_PLUS", "POSTFIRE_MINUS", "POSTBIOPSY", "POSTMARKER", "TOMO_SCOUT")
    },
    "a phantom": ({"QualityControlImage": "YES"}, "a quality control image", {"kind": ImageKind.PHANTOM}),
    "no phantom": ({"QualityControlImage": "NO"}, L_CC, {}),
    "a specimen by its view": (view_code("127457009"), "a specimen", {"kind": ImageKind.SPECIMEN}),
    "a specimen by its view in SRT": (view_code("G-8310", "SRT"), "a specimen", {}),
    "a specimen cabinet": ({"PositionerType": "NONE"}, "a specimen", {"kind": ImageKind.SPECIMEN}),
    "an ordinary positioner": ({"PositionerType": "MAMMOGRAPHIC"}, L_CC, {}),
    "one slice of a volume": ({"VolumetricProperties": "VOLUME"}, L_CC, {"kind": ImageKind.UNKNOWN}),
    "CR": ({"SOPClassUID": ComputedRadiographyImageStorage}, L_CC, {"kind": ImageKind.CR}),
    # ---- not for us
    "For Processing by its class": ({"SOPClassUID": DigitalMammographyXRayImageStorageForProcessing}, "For Processing", {}),
    "For Processing by its intent": ({"PresentationIntentType": "FOR PROCESSING"}, "For Processing", {}),
    "no intent": ({"PresentationIntentType": None}, L_CC, {}),
    "another class": ({"SOPClassUID": BreastTomosynthesisImageStorage}, "its SOP class", {}),
    "another modality": ({"Modality": "US"}, "Modality (0008,0060) is US", {}),
    "no modality": ({"Modality": None}, "Modality (0008,0060) is absent", {}),
    "several frames": ({"NumberOfFrames": 40}, "it has 40 frames", {}),
    "one frame": ({"NumberOfFrames": 1}, L_CC, {}),
    "colour": ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "it is not a greyscale image", {}),
    "a palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "it is not a greyscale image", {}),
    "MONOCHROME1": ({"PhotometricInterpretation": "MONOCHROME1"}, L_CC, {}),
    "nothing names the view": (BARE, "no attribute names its view", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_header_case(name: str) -> None:
    overrides, expected, more = CASES[name]
    evidence = resolve_view(mammogram(View.L_CC, **overrides))
    if isinstance(expected, View):
        assert (evidence.view, evidence.set_aside, evidence.doubt) == (expected, "", "")
        assert f"{evidence.laterality}-{evidence.view_position}" == expected
    elif expected.startswith("doubt: "):
        assert evidence.view is None and evidence.set_aside == "" and expected.removeprefix("doubt: ") in evidence.doubt
    else:
        assert evidence.view is None and evidence.doubt == "" and evidence.set_aside.startswith(expected)
    for field, value in more.items():
        found = getattr(evidence, field)
        assert (len(found) if field in ("conflicts", "warnings") else found) == value, field


def test_the_tables_name_every_code_once() -> None:
    for table in (CID_4014.values(), CID_4015.values()):
        codes = [one for entry in table for group in entry[:2] for one in ((group,) if isinstance(group, str) else group)]
        assert len(codes) == len(set(codes))


# ---------------------------------------------------------------------------------------------------------- what else is remembered


def test_ranking_is_read() -> None:
    ds = mammogram(
        View.L_CC,
        BreastImplantPresent="YES",
        PartialView="YES",
        LossyImageCompression="01",
        AcquisitionDateTime="20261120101500.5+0100",
        InstanceNumber="7",
    )
    ranking = resolve(ds).ranking
    assert (ranking.implant, ranking.partial_view, ranking.lossy, ranking.number) == (True, "YES", True, 7)
    assert ranking.area == 256 * 200 and ranking.acquired_at == "20261120101500.500000"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, "20261120101500.000000"),
        ({"AcquisitionTime": "101500.25"}, "20261120101500.250000"),
        ({"AcquisitionTime": "1015"}, "20261120101500.000000"),
        ({"AcquisitionDate": None}, "20261120101500.000000"),  # by content date and time
        ({"AcquisitionDate": "", "ContentTime": "090000"}, "20261120090000.000000"),
        ({"AcquisitionDate": None, "ContentDate": None}, ""),
        ({"AcquisitionDateTime": "20261121"}, "20261120101500.000000"),  # too short to rank by
    ],
)
def test_acquisition_time(overrides: dict[str, Any], expected: str) -> None:
    assert resolve(mammogram(View.L_CC, **overrides)).ranking.acquired_at == expected


@pytest.mark.parametrize(("syntax", "lossy"), [(JPEGBaseline8Bit, True), (JPEG2000, True), (JPEG2000Lossless, False)])
def test_a_lossy_transfer_syntax_counts(syntax: str, lossy: bool) -> None:
    ds = mammogram(View.L_CC)
    ds.file_meta.TransferSyntaxUID = syntax
    assert resolve(ds).ranking.lossy == lossy


def test_equipment_is_read_as_written() -> None:
    found = resolve(mammogram(View.L_CC, SoftwareVersions=["1.0", "b"], Manufacturer=" Example ")).equipment
    assert found["software_versions"] == "1.0\\b" and found["manufacturer"] == "Example" and found["kvp"] == "28"


def test_the_study_date_is_read() -> None:
    assert resolve(mammogram(View.L_CC)).study_date == "20261120"


@pytest.mark.parametrize(
    ("title", "scheme", "words"),
    [
        ("113001", "DCM", "rejected for quality reasons"),
        ("113037", "DCM", "rejected for patient safety reasons"),
        ("113038", "DCM", "incorrect modality worklist entry"),
        ("113039", "DCM", ""),  # data retention: no reason to doubt the image
        ("113000", "DCM", ""),  # of interest
        ("113001", "99X", ""),
    ],
)
def test_rejections(title: str, scheme: str, words: str) -> None:
    images = [image(View.L_CC), image(View.R_CC)]
    found = resolve(rejection(*images, title=title, scheme=scheme))
    assert found.rejection == words
    assert found.rejects == (tuple(sorted(str(one.SOPInstanceUID) for one in images)) if words else ())
    assert found.evidence.view is None and found.evidence.set_aside


def test_only_a_key_object_rejects() -> None:
    ds = rejection(image(View.L_CC))
    ds.SOPClassUID = ComputedRadiographyImageStorage
    assert resolve(ds).rejects == ()


def test_an_unreadable_file_is_set_aside() -> None:
    found = unreadable("its header could not be read")
    assert found.evidence.view is None and found.evidence.set_aside == "its header could not be read" and found.evidence.doubt == ""


# ---------------------------------------------------------------------------------------------------------------------- bad input

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_KEYWORDS = st.sampled_from(
    [
        "ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence", "AnatomicRegionSequence", "PatientOrientation", "ImageType",
        "Modality", "NumberOfFrames", "Rows", "InstanceNumber", "PaddleDescription", "EstimatedRadiographicMagnificationFactor",
        "AcquisitionDateTime", "AcquisitionTime", "SeriesDescription", "SharedFunctionalGroupsSequence", "KVP", "SOPClassUID",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_KEYWORDS, st.tuples(st.sampled_from(["LO", "CS", "UN", "DS", "IS", "US", "SQ", "PN"]), st.binary(max_size=24))))
def test_no_bytes_and_no_wrong_vr_raise(found: dict[str, tuple[str, bytes]]) -> None:
    """Elements as a device wrote them: any VR, any bytes."""
    ds = Dataset()
    ds.update(mammogram(View.L_CC))
    ds.file_meta = FileMetaDataset()
    for keyword, (vr, value) in found.items():
        tag = Tag(keyword)
        ds[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    evidence = resolve(ds).evidence
    assert (evidence.view is None) == bool(evidence.set_aside or evidence.doubt) and not (evidence.set_aside and evidence.doubt)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["Rows", "InstanceNumber", "AcquisitionDateTime", "EstimatedRadiographicMagnificationFactor"]), _TEXTS)
def test_no_text_where_a_number_belongs_raises(keyword: str, value: str) -> None:
    ds = mammogram(View.L_CC)
    ds[keyword] = DataElement(Tag(keyword), "LO", value)
    assert resolve(ds).ranking.number >= 0


@pytest.mark.parametrize("charset", ["ISO 2022 IR 149", "ISO 2022 IR 87", "GB18030", "NO SUCH SET"])
def test_an_odd_character_set_decides_nothing(charset: str) -> None:
    ds = mammogram(View.R_MLO)
    ds.SpecificCharacterSet = charset
    ds[Tag("SeriesDescription")] = RawDataElement(Tag("SeriesDescription"), "LO", 4, b"\xb1\xe8\x1b$", 0, False, True)
    assert resolve(ds).evidence.view is View.R_MLO


def test_resolving_reads_no_pixels() -> None:
    ds = mammogram(View.L_CC, SOPInstanceUID=uid("header alone"))
    del ds.PixelData
    assert resolve(ds).evidence.view is View.L_CC
