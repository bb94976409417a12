"""Header cases, one line each: what the attributes say, and what follows. Written from PS3.16 CID 4014/4015 and PS3.3 C.8.11.7."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mammograms_made import code, mammogram, uid
from pydicom import dcmread, dcmwrite
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import (
    JPEG2000,
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)
from stepped_store import image, rejection

from store.study import ImageKind, View, ViewEvidence
from store.view import (
    CID_4014,
    CID_4015,
    DEMOGRAPHICS,
    SLOT_MODIFIERS,
    STANDARD,
    TRUSTED,
    Device,
    Dialect,
    contradicted_by,
    resolve,
    resolve_view,
    unreadable,
)

#: pydicom says what it thinks of the bad values that are written here on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

L_CC, R_CC, L_MLO, R_MLO = View.L_CC, View.R_CC, View.L_MLO, View.R_MLO
SIDE = {"ImageLaterality": None}
#: Nothing structural tells the view or the side any more.
BARE: dict[str, Any] = {"ImageLaterality": None, "ViewCodeSequence": None, "ViewPosition": None, "PatientOrientation": None}
TOMO = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS"]
PIXELS = np.zeros((4, 4), np.uint16)
RAW = {"SOPClassUID": DigitalMammographyXRayImageStorageForProcessing, "PresentationIntentType": "FOR PROCESSING"}
FUJI = {"ManufacturerModelName": "FDR-3000AWS", "ImageType": ["DERIVED", "PRIMARY"]}


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


def frame_region(value: str) -> list[Dataset]:
    made = frames("")
    made[0].FrameAnatomySequence[0].AnatomicRegionSequence = region(value)
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
    "parts of words are no spot": ({"PaddleDescription": "SPOTLESS IMAGE MAGENTA"}, L_CC, {"modifiers": ()}),
    "a factor that is no number": ({"PaddleDescription": "MAGNIFICATION 1.5"}, "view modifier magnification", {}),
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
    "frames that disagree": ({"PerFrameFunctionalGroupsSequence": frames("L", "R")}, "doubt: contradictory", {"conflicts": 1}),
    "frames that disagree, and nothing above them": (
        {**SIDE, "PerFrameFunctionalGroupsSequence": frames("R", "L")},
        "doubt: contradictory",
        {"laterality": None, "laterality_source": ""},
    ),
    "shared frames and single frames disagree": (
        {**SIDE, "SharedFunctionalGroupsSequence": frames("L"), "PerFrameFunctionalGroupsSequence": frames("R")},
        "doubt: contradictory",
        {},
    ),
    "frames outrank the series, which contradicts them": (
        {**SIDE, "PerFrameFunctionalGroupsSequence": frames("L", "L"), "Laterality": "R"},
        "doubt: contradictory",
        {"laterality": "L", "laterality_source": "FrameLaterality"},
    ),
    "a region in the frames": (
        {**SIDE, "PatientOrientation": None, "SharedFunctionalGroupsSequence": frame_region("73056007")},
        R_CC,
        {"laterality_source": "AnatomicRegionSequence"},
    ),
    "both breasts in every frame": ({**SIDE, "SharedFunctionalGroupsSequence": frames("B")}, "FrameLaterality is B", {}),
    "both breasts in some frames": ({**SIDE, "PerFrameFunctionalGroupsSequence": frames("B", "L")}, "doubt: contradictory", {}),
    "frames with both breasts against an image of one": ({"SharedFunctionalGroupsSequence": frames("B")}, "doubt: contradictory", {}),
    "unpaired frames say no side": (
        {**SIDE, "PatientOrientation": None, "SharedFunctionalGroupsSequence": frames("U"), "SeriesDescription": "L CC"},
        "view CC without a side: its side is unknown: FrameLaterality is U, which is no side",
        {"laterality": None},
    ),
    "unpaired frames beside a region": (
        {**SIDE, "SharedFunctionalGroupsSequence": frames("U"), "AnatomicRegionSequence": region("80248007")},
        L_CC,
        {"warnings": 1},
    ),
    "a side of nobody's list": (
        {"ImageLaterality": "X", "Laterality": "L"},
        "view CC without a side: its side is unknown: ImageLaterality is X, which is no side",
        {},
    ),
    "Laterality of both breasts says nothing of one image": (
        {**SIDE, "PatientOrientation": None, "Laterality": "B", "SeriesDescription": "R CC"},
        R_CC,
        {"laterality_source": "text of SeriesDescription"},
    ),
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
        {"AnatomicRegionSequence": region("73056007"), "NumberOfFrames": 3},
        "it has 3 frames",
        {},
    ),
    "no side at all": ({**SIDE, "PatientOrientation": None}, "view CC without a side", {}),
    # ---- orientation
    "CC, column R: left": (SIDE, L_CC, {"laterality_source": "PatientOrientation", "warnings": 1}),
    "CC, column L: right": ({**SIDE, "PatientOrientation": ["P", "L"]}, R_CC, {"laterality_source": "PatientOrientation"}),
    "MLO is not inferred": (
        view_code("399368009", ImageLaterality=None, PatientOrientation=["A", "FR"]),
        "view MLO without a side",
        {},
    ),
    "an orientation that does not fit is a warning": ({"PatientOrientation": ["P", "L"]}, L_CC, {"warnings": 1}),
    "one value of orientation": ({"PatientOrientation": "A"}, L_CC, {"warnings": 0}),
    "an orientation that is none": ({**SIDE, "PatientOrientation": ["A", "XR"]}, "view CC without a side", {"orientation": ()}),
    "an orientation is remembered": ({}, L_CC, {"orientation": ("A", "R")}),
    "columns towards the head tell no side": (
        {"ViewPosition": "MLO", "ViewCodeSequence": None, "PatientOrientation": ["P", "HL"]},
        L_MLO,
        {"warnings": 0},
    ),
    # ---- text, the last resort
    "text that the orientation contradicts": (
        text_only(SeriesDescription="L CC", PatientOrientation=["P", "L"]),
        "doubt: text of SeriesDescription says L, PatientOrientation says R",
        {"conflicts": 1},
    ),
    "text of an MLO that the orientation contradicts": (
        text_only(SeriesDescription="RMLO", PatientOrientation=["A", "FR"]),
        "doubt: contradictory",
        {},
    ),
    "text that the orientation confirms": (
        text_only(SeriesDescription="R CC", PatientOrientation=["P", "L"]),
        R_CC,
        {"laterality_source": "text of SeriesDescription"},
    ),
    "two texts, two sides": (
        text_only(SeriesDescription="L CC", ProtocolName="R CC"),
        "doubt: text of SeriesDescription says L, text of ProtocolName says R",
        {},
    ),
    "a text of another view says nothing of this one": (text_only(SeriesDescription="L CC", ProtocolName="R MLO"), L_CC, {}),
    "the side from the second text": (
        text_only(SeriesDescription="MLO", ProtocolName="R MLO"),
        R_MLO,
        {"view_source": "text of SeriesDescription", "laterality_source": "text of ProtocolName"},
    ),
    "a spot in the text of the view": (text_only(SeriesDescription="L CC SPOT"), "view modifier spot", {}),
    "a magnification in the text of the view": (text_only(ViewPosition="L CC MAG"), "view modifier magnification", {}),
    "a spot in a text that is not needed": ({"SeriesDescription": "L CC SPOT"}, L_CC, {"modifiers": ()}),
    "a suffix of its own": (text_only(SeriesDescription="L MLO ID"), L_MLO, {"modifiers": ("ID",)}),
    "a prefix without a side": (text_only(SeriesDescription="L MCC"), "view modifier magnification", {}),
    "a side against a glued one": (text_only(SeriesDescription="R LCC"), "no attribute names its view", {}),
    "a letter with an accent is another letter": (text_only(SeriesDescription="\u0139 CC"), "view CC without a side", {}),
    "full-width letters": (text_only(SeriesDescription="\uff2c\uff23\uff23"), L_CC, {}),
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
    "a view without a side": (text_only(SeriesDescription="CC"), "view CC without a side", {}),
    "left and right: no side": (text_only(SeriesDescription="LEFT AND RIGHT CC"), "view CC without a side", {}),
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
        "view CC without a side",
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
    "CC-View is no C-View": ({"SeriesDescription": "L CC-View"}, L_CC, {"kind": ImageKind.FFDM}),
    "C-View after an underscore": ({"SeriesDescription": "L_CC_C-View"}, L_CC, {"kind": ImageKind.SYNTHETIC_2D}),
    "a C-View before there was a value 4": ({"ImageType": TOMO, "SeriesDescription": "C-View"}, L_CC, {"kind": ImageKind.SYNTHETIC_2D}),
    "a slice in a series of a C-View": ({"ImageType": [*TOMO, "NONE"], "SeriesDescription": "C-View"}, "a tomosynthesis image", {}),
    "a slice without value 4": ({"ImageType": TOMO}, "a tomosynthesis image", {"kind": ImageKind.TOMOSYNTHESIS}),
    "Fuji's model": (FUJI, L_CC, {"kind": ImageKind.SYNTHETIC_2D}),
    "Fuji's model, acquired": ({**FUJI, "ImageType": ["ORIGINAL", "PRIMARY"]}, L_CC, {"kind": ImageKind.FFDM}),
    "Fuji's model with contrast": (
        {**FUJI, "ImageType": ["DERIVED", "PRIMARY", "POST_CONTRAST", "", "LOW_ENERGY"]},
        L_CC,
        {"kind": ImageKind.CONTRAST_LOW_ENERGY},
    ),
    "Fuji's copied volume": ({**FUJI, "VolumetricProperties": "VOLUME"}, L_CC, {"kind": ImageKind.UNKNOWN}),
    "Fuji's copied concatenation": ({**FUJI, "ImageType": TOMO, "ConcatenationUID": "1.2.3"}, L_CC, {"kind": ImageKind.UNKNOWN}),
    "Fuji's copied volume on what says that it is generated": (
        {**FUJI, "ImageType": [*TOMO, "GENERATED_2D", "", "", "", "", "100000"], "VolumetricProperties": "VOLUME"},
        L_CC,
        {"kind": ImageKind.SYNTHETIC_2D},
    ),
    "a concatenated image": ({"ConcatenationUID": "1.2.3"}, L_CC, {"kind": ImageKind.UNKNOWN}),
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
    "CR of modality CR": ({"SOPClassUID": ComputedRadiographyImageStorage, "Modality": "CR"}, L_CC, {"kind": ImageKind.CR}),
    "a mammogram of modality CR": ({"Modality": "CR"}, "Modality (0008,0060) is CR", {}),
    # ---- not for us
    "For Processing": (RAW, L_CC, {"kind": ImageKind.FOR_PROCESSING, "conflicts": 0}),
    "For Processing by its class alone": (
        {"SOPClassUID": DigitalMammographyXRayImageStorageForProcessing},
        L_CC,
        {"kind": ImageKind.FOR_PROCESSING, "conflicts": 1},
    ),
    "For Processing by its class, no intent": ({**RAW, "PresentationIntentType": None}, L_CC, {"conflicts": 0}),
    "For Processing by its intent alone": (
        {"PresentationIntentType": "for processing "},
        L_CC,
        {"kind": ImageKind.FOR_PROCESSING, "conflicts": 1},
    ),
    "a raw phantom is a phantom": ({**RAW, "QualityControlImage": "YES"}, "a quality control image", {"kind": ImageKind.PHANTOM}),
    "a raw specimen is a specimen": ({**RAW, "PositionerType": "NONE"}, "a specimen", {"kind": ImageKind.SPECIMEN}),
    "a raw slice is a slice": ({**RAW, "ImageType": TOMO}, "a tomosynthesis image", {"kind": ImageKind.TOMOSYNTHESIS}),
    "a raw low energy image is raw": (
        {**RAW, "ImageType": ["ORIGINAL", "PRIMARY", "POST_CONTRAST", "", "LOW_ENERGY"]},
        L_CC,
        {"kind": ImageKind.FOR_PROCESSING},
    ),
    "a raw spot view is a spot view": ({**RAW, "PaddleDescription": "SPOT"}, "view modifier spot", {"kind": ImageKind.FOR_PROCESSING}),
    "no intent": ({"PresentationIntentType": None}, L_CC, {}),
    "another class": ({"SOPClassUID": BreastTomosynthesisImageStorage}, "its SOP class", {}),
    "another modality": ({"Modality": "US"}, "Modality (0008,0060) is US", {}),
    "no modality": ({"Modality": None}, "Modality (0008,0060) is absent", {}),
    "several frames": ({"NumberOfFrames": 40}, "it has 40 frames", {}),
    "two numbers of frames": ({"NumberOfFrames": ["1", "1"]}, "it has 1", {}),
    "two modalities": ({"Modality": ["MG", "US"]}, "Modality (0008,0060) is MG", {}),
    "a foot": ({"BodyPartExamined": "FOOT"}, L_CC, {"warnings": 1}),
    "burnt-in text": ({"BurnedInAnnotation": "YES"}, L_CC, {"warnings": 1}),
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


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("name", CASES)
def test_a_header_means_the_same_in_a_file(name: str, syntax: str) -> None:
    """Values that are read as they stand in the file, and values that were set, are the same."""
    ds = mammogram(View.L_CC, pixels=PIXELS, **CASES[name][0])
    in_memory = resolve(ds)
    assert resolve(through_a_file(ds, syntax)) == in_memory


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
        AcquisitionNumber="3",
    )
    ranking = resolve(ds).ranking
    assert (ranking.implant, ranking.partial_view, ranking.lossy, ranking.acquisition_number, ranking.number) == (True, "YES", True, 3, 7)
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
        ({"AcquisitionDateTime": "202611211415"}, "20261121141500.000000"),
        ({"AcquisitionDateTime": "20261121141516.1234567-0500"}, "20261121141516.123456"),
        ({"AcquisitionDateTime": "99999999999999"}, "20261120101500.000000"),  # no day of any calendar comes last
        ({"AcquisitionDate": "2026.11.20", "AcquisitionTime": "10:15:01"}, "20261120101501.000000"),
        ({"AcquisitionTime": None, "ContentTime": "1016"}, "20261120101600.000000"),
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
        ("113039", "DCM", "data retention policy expired"),
        ("113000", "DCM", ""),  # of interest
        ("113001", "99X", ""),
    ],
)
def test_rejections(title: str, scheme: str, words: str) -> None:
    images = [image(View.L_CC), image(View.R_CC)]
    found = resolve(rejection(*images, title=title, scheme=scheme))
    assert (found.rejection, found.rejection_title) == (words, title if words else "")
    assert found.rejects == (tuple(sorted(str(one.SOPInstanceUID) for one in images)) if words else ())
    assert found.evidence.view is None and found.evidence.set_aside


def title_modifier(concept: str, *reasons: tuple[str, str]) -> Dataset:
    made = Dataset()
    made.RelationshipType, made.ValueType = "HAS CONCEPT MOD", "CODE"
    made.ConceptNameCodeSequence = [code(concept, "DCM", "Document Title Modifier")]
    made.ConceptCodeSequence = [code(value, scheme, "whatever a stranger wrote") for value, scheme in reasons]
    return made


@pytest.mark.parametrize(
    ("title", "content", "words"),
    [
        ("113001", [title_modifier("113011", ("111209", "DCM"))], "rejected for quality reasons: Positioning"),
        (
            "113001",
            [title_modifier("113011", ("111210", "DCM")), title_modifier("113011", ("113026", "DCM"))],
            "rejected for quality reasons: Motion blur, Double exposure",
        ),
        ("113001", [title_modifier("113011", ("111209", "99X"))], "rejected for quality reasons"),
        ("113001", [title_modifier("113011", ("1", "DCM"))], "rejected for quality reasons"),
        ("113001", [title_modifier("113012", ("111209", "DCM"))], "rejected for quality reasons"),
        ("113001", [title_modifier("113011")], "rejected for quality reasons"),
        ("113037", [title_modifier("113011", ("111209", "DCM"))], "rejected for patient safety reasons"),
    ],
)
def test_a_rejection_says_why_in_the_standards_words(title: str, content: list[Dataset], words: str) -> None:
    ds = rejection(image(View.L_CC), title=title)
    ds.ContentSequence = content
    assert resolve(ds).rejection == words


def test_a_key_object_without_references_rejects_nothing() -> None:
    ds = rejection(image(View.L_CC))
    ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = ""
    assert resolve(ds).rejects == ()


def test_only_a_key_object_rejects() -> None:
    ds = rejection(image(View.L_CC))
    ds.SOPClassUID = ComputedRadiographyImageStorage
    assert resolve(ds).rejects == ()


def test_an_unreadable_file_is_set_aside() -> None:
    found = unreadable("its header could not be read")
    assert found.evidence.view is None and found.evidence.set_aside == "its header could not be read" and found.evidence.doubt == ""


# ------------------------------------------------------------------------------------------------------------------ demographics


def requested(identifier: str = "REQ1", description: str = "Screening") -> Dataset:
    made = Dataset()
    made.RequestedProcedureID, made.RequestedProcedureDescription = identifier, description
    return made


WHOLE: dict[str, Any] = {
    "PatientName": "\uae40\ud76c\uc911^Jane",
    "IssuerOfPatientID": "HOSPITAL",
    "PatientSize": "1.65",
    "PatientWeight": "60",
    "StudyDescription": "Mammography",
    "ReferringPhysicianName": "Who^Doctor",
    "RequestAttributesSequence": [requested()],
    "ProcedureCodeSequence": [code("24606-6", "LN", "MG Breast Screening")],
}


def through_a_file(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    buffer = BytesIO()
    ds.file_meta.TransferSyntaxUID = syntax
    dcmwrite(buffer, ds, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()), stop_before_pixels=True)


def test_demographics_are_the_same_in_another_encoding() -> None:
    made = resolve(mammogram(View.L_CC, **WHOLE)).demographics
    assert len(made) == 64
    assert made == resolve(through_a_file(mammogram(View.R_MLO, **WHOLE))).demographics
    assert made == resolve(through_a_file(mammogram(View.L_CC, **WHOLE), ImplicitVRLittleEndian)).demographics
    korean = mammogram(View.L_CC, **{**WHOLE, "SpecificCharacterSet": ["", "ISO 2022 IR 149"]})
    assert made == resolve(through_a_file(korean)).demographics
    assert made == resolve(mammogram(View.L_CC, **{**WHOLE, "PatientID": " P1 \0", "StudyDescription": "Mammography "})).demographics
    assert made == resolve(mammogram(View.L_CC, **{**WHOLE, "SeriesDescription": "another", "KVP": "31"})).demographics


@pytest.mark.parametrize(
    "change",
    [
        *({keyword: "7" if keyword.endswith(("Size", "Weight")) else "19991231"} for keyword in DEMOGRAPHICS),
        *({keyword: None} for keyword in (*DEMOGRAPHICS, "RequestAttributesSequence", "ProcedureCodeSequence")),
        {"PatientName": "\uae40\ud76c\uc911^jane"},
        {"RequestAttributesSequence": [requested("REQ2")]},
        {"RequestAttributesSequence": [requested(description="Assessment")]},
        {"ProcedureCodeSequence": [code("24606-6", "LN", "Mammogram screening")]},
        {"ProcedureCodeSequence": [code("24606-6", "99X", "MG Breast Screening")]},
    ],
    ids=str,
)
def test_demographics_change_with_what_results_copy(change: dict[str, Any]) -> None:
    assert resolve(mammogram(View.L_CC, **WHOLE)).demographics != resolve(mammogram(View.L_CC, **{**WHOLE, **change})).demographics


def test_a_value_under_another_name_is_another_digest() -> None:
    one = mammogram(View.L_CC, PatientID="A", IssuerOfPatientID="")
    other = mammogram(View.L_CC, PatientID="", IssuerOfPatientID="A")
    assert resolve(one).demographics != resolve(other).demographics


# ------------------------------------------------------------------------------------------------------------- words of a site

KOREAN = Dialect(side_words={"\uc88c": "L", "\uc6b0": "R", "gauche": "L", "D": "R"})
EXAMPLE = Device(
    manufacturer=" EXAMPLE devices ",
    side_words={"E": "L"},
    view_words={"obl": "MLO", "kk": "CC", "perfil": "ML"},
    synthetic_words=("SYN 2D", "Kombi"),
    distrust=("ImageLaterality",),
)
DEVICE = Dialect(side_words={"D": "R"}, devices=(Device(model="another", view_words={"KK": "MLO"}), EXAMPLE))


@pytest.mark.parametrize(
    ("dialect", "description", "expected"),
    [
        (KOREAN, "\uc88c CC", L_CC),
        (KOREAN, "\uc6b0MLO", R_MLO),
        (KOREAN, "\uc6b0_MLO", R_MLO),
        (KOREAN, "Gauche/MLO", L_MLO),
        (KOREAN, "DCC", R_CC),
        (KOREAN, "D CC", R_CC),
        (KOREAN, "DMCC", None),  # magnified
        (KOREAN, "\uc88c\uce21 CC", None),  # another word
        (KOREAN, "GAUCHEMENT CC", None),
        (KOREAN, "\uc88c RCC", None),
        (KOREAN, "LCC", L_CC),
        (STANDARD, "\uc88c CC", None),
        (STANDARD, "DCC", None),
        (DEVICE, "E OBL", L_MLO),
        (DEVICE, "EOBL", L_MLO),
        (DEVICE, "d kk", R_CC),
        (DEVICE, "R MLO", R_MLO),
        (DEVICE, "E PERFIL", None),
        (DEVICE, "E OBLIQUE", None),
        (DEVICE, "E CC OBL", None),
    ],
)
def test_words_of_a_site(dialect: Dialect, description: str, expected: View | None) -> None:
    ds = mammogram(View.L_CC, **text_only(SeriesDescription=description))
    assert resolve_view(ds, dialect).view is expected
    assert resolve(ds, dialect).evidence == resolve_view(ds, dialect)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (Device(manufacturer="Example Devices", view_words={"KK": "CC"}), L_CC),
        (Device(manufacturer="example devices ", model="MAMMO 1", view_words={"KK": "CC"}), L_CC),
        (Device(model="Mammo 1", view_words={"KK": "CC"}), L_CC),
        (Device(model="Mammo", view_words={"KK": "CC"}), None),
        (Device(manufacturer="Example Devices", model="Mammo 2", view_words={"KK": "CC"}), None),
        (Device(view_words={"KK": "CC"}), None),
    ],
)
def test_a_device_is_known_by_manufacturer_and_model(device: Device, expected: View | None) -> None:
    ds = mammogram(View.L_CC, **text_only(SeriesDescription="L KK"))
    assert resolve_view(ds, Dialect(devices=(device,))).view is expected


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ("L CC syn-2d", ImageKind.SYNTHETIC_2D),
        ("KOMBI", ImageKind.SYNTHETIC_2D),
        ("KOMBINATION", ImageKind.FFDM),
        ("SYN", ImageKind.FFDM),
        ("2D SYN", ImageKind.FFDM),
    ],
)
def test_a_devices_words_for_synthetic_images(description: str, kind: ImageKind) -> None:
    assert resolve_view(mammogram(View.L_CC, Laterality="L", SeriesDescription=description), DEVICE).kind is kind


def test_what_is_distrusted_is_not_read() -> None:
    ds = mammogram(View.L_CC, ImageLaterality="R", Laterality="L")
    assert resolve_view(ds, DEVICE).laterality_source == "Laterality"
    assert resolve_view(ds, DEVICE).view is L_CC
    assert resolve_view(ds).view is R_CC


@pytest.mark.parametrize("keyword", TRUSTED)
def test_every_attribute_that_may_be_distrusted_is_as_if_absent(keyword: str) -> None:
    dialect = Dialect(devices=(Device(model="Mammo 1", distrust=(keyword,)),))
    attributes = {
        "SeriesDescription": "L CC C-View", "ProtocolName": "L CC", "Laterality": "L", "AnatomicRegionSequence": region("80248007"),
        "SharedFunctionalGroupsSequence": frames("L"), "VolumetricProperties": "VOLUME", "ConcatenationUID": "1.2.3",
        "PaddleDescription": "SPOT", "EstimatedRadiographicMagnificationFactor": "1.8", "BreastImplantPresent": "YES",
        "AcquisitionDeviceProcessingDescription": "L CC", "PerformedProcedureStepDescription": "L CC", "PartialView": "YES",
        "ViewModifierCodeSequence": [code("399209000", "SCT", "implant displaced")],
    }  # fmt: skip
    with_it = resolve(mammogram(View.L_CC, **attributes), dialect)
    without = mammogram(View.L_CC, **attributes)
    for nested in (without, *(anatomy for group in without.SharedFunctionalGroupsSequence for anatomy in group.FrameAnatomySequence)):
        if keyword in nested:
            del nested[keyword]
    assert with_it == resolve(without)


# ------------------------------------------------------------------------------------------------------------ what a person said


@pytest.mark.parametrize(
    ("overrides", "conflicts"),
    [
        (BARE, 0),
        ({"ImageLaterality": ["L", "R"]}, 2),
        ({"ImageLaterality": "B"}, 1),
        ({"AnatomicRegionSequence": region("73056007")}, 2),
        (view_code("399260004"), 1),
        (view_code("399162004", "SCT", ("399055006", "SCT")), 1),
        (view_code("399162004", "SCT", ("1", "99X")), 1),
        ({"PaddleDescription": "SPOT"}, 1),
        ({}, 1),
    ],
)
def test_a_person_decides_side_and_view(overrides: dict[str, Any], conflicts: int) -> None:
    evidence = resolve_view(mammogram(View.L_CC, **overrides), assigned=R_MLO)
    assert (evidence.view, evidence.set_aside, evidence.doubt) == (R_MLO, "", "")
    assert (evidence.laterality, evidence.laterality_source) == ("R", "operator")
    assert (evidence.view_position, evidence.view_source) == ("MLO", "operator")
    assert len(evidence.conflicts) == conflicts
    assert contradicted_by(evidence, "left") == ()


def test_what_the_header_says_against_a_person_is_on_record() -> None:
    ds = mammogram(View.L_CC)
    assert resolve_view(ds, assigned=L_CC).conflicts == ()
    assert resolve_view(mammogram(View.L_CC, ImageLaterality="B"), assigned=R_CC).conflicts == (
        "a person assigned R-CC, the header says ImageLaterality is B",
    )
    assert resolve_view(ds, assigned=R_CC).conflicts == ("a person assigned R-CC, the header says L",)
    assert resolve_view(ds, assigned=R_MLO).conflicts == ("a person assigned R-MLO, the header says L, CC",)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"Modality": "US"}, "Modality"),
        ({"SOPClassUID": BreastTomosynthesisImageStorage}, "its SOP class"),
        ({"NumberOfFrames": 3}, "it has 3 frames"),
        ({"ImageType": TOMO}, "a tomosynthesis image"),
        ({"QualityControlImage": "YES"}, "a quality control image"),
        (view_code("127457009"), "a specimen"),
        ({"PositionerType": "NONE"}, "a specimen"),
        ({"ImageType": ["DERIVED", "PRIMARY", "STEREO_SCOUT"]}, "an image of biopsy"),
        ({"ImageType": ["DERIVED", "PRIMARY", "POST_CONTRAST", "SUBTRACTION"]}, "a contrast image"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "it is not a greyscale"),
    ],
)
def test_a_person_makes_no_mammogram_of_what_is_none(overrides: dict[str, Any], reason: str) -> None:
    evidence = resolve_view(mammogram(View.L_CC, **overrides), assigned=R_MLO)
    assert evidence.view is None and evidence.set_aside.startswith(reason) and evidence.laterality_source == "operator"


# ------------------------------------------------------------------------------------------------ what speaks against the side


def evidence(side: str | None, position: str, *orientation: str, source: str = "ImageLaterality") -> ViewEvidence:
    return ViewEvidence(
        view=View(f"{side}-{position}") if side else None,
        laterality=side,
        laterality_source=source if side else "",
        view_position=position,
        view_source="ViewPosition",
        kind=ImageKind.FFDM,
        orientation=orientation,
    )


@pytest.mark.parametrize(
    ("seen", "edge", "expected"),
    [
        (evidence("L", "CC", "A", "R"), "left", ()),
        (evidence("L", "CC", "A", "R"), "right", ("pixels",)),
        (evidence("R", "MLO", "P", "FL"), "right", ()),
        (evidence("R", "MLO", "P", "LF"), "left", ("pixels",)),
        (evidence("L", "CC", "P", "L"), "left", ("PatientOrientation",)),
        (evidence("L", "CC", "P", "L"), "right", ("PatientOrientation", "pixels")),
        (evidence("L", "MLO", "P", "FL"), "", ("PatientOrientation",)),
        (evidence("L", "CC", "P", "R"), "right", ()),  # flipped on purpose, and it says so
        (evidence("L", "CC", "P", "R"), "left", ("pixels",)),
        (evidence("R", "CC", "A", "L"), "left", ()),
        (evidence("R", "CC"), "right", ()),
        (evidence("R", "CC"), "left", ("pixels",)),
        (evidence("R", "CC"), "", ()),
        (evidence("L", "MLO", "P", "HL"), "left", ()),  # upside down: only the pixels are asked
        (evidence(None, "CC", "A", "R"), "right", ()),
        (evidence("L", "CC", "P", "L", source="operator"), "right", ()),
        (evidence("L", "CC", "P", "L", source="text of SeriesDescription"), "right", ("PatientOrientation", "pixels")),
    ],
)
def test_what_contradicts_the_side(seen: ViewEvidence, edge: str, expected: tuple[str, ...]) -> None:
    assert contradicted_by(seen, edge) == expected


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
