"""What each header means, one line a case: from PS3.3 C.8.11.7 and C.8.31, PS3.16 CID 4014 and 4015, and what devices are known to write.

A case names only what differs from an ordinary L-CC (or the view in `of`). The header goes through a file first, as a received one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from headers_made import a_sequence, encoded, part10, raw
from mammograms_made import code, mammogram
from pydicom import dcmread, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless
from stepped_store import rejection

from store.study import ImageKind, View, ViewEvidence
from store.view import STANDARD, Device, Dialect, contradicted_by, resolve, resolve_view

# Values of a device that no library would write are raw here on purpose; pydicom says so each time.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PIXELS = np.zeros((6, 4), np.uint16)

MG_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
BREAST_TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
BREAST_PROJECTION = "1.2.840.10008.5.1.4.1.1.13.1.4"
COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
DIGITAL_X_RAY = "1.2.840.10008.5.1.4.1.1.1.1"
COMPUTED_TOMOGRAPHY = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"

SYNTHETIC, TOMOSYNTHESIS, GUIDANCE = ImageKind.SYNTHETIC_2D, ImageKind.TOMOSYNTHESIS, ImageKind.STEREOTACTIC
LOW_ENERGY, OTHER_CONTRAST, RAW_PIXELS = ImageKind.CONTRAST_LOW_ENERGY, ImageKind.CONTRAST_OTHER, ImageKind.FOR_PROCESSING
RAW_CLASS, RAW_INTENT = {"SOPClassUID": MG_FOR_PROCESSING}, {"PresentationIntentType": "FOR PROCESSING"}
RAW = {**RAW_CLASS, **RAW_INTENT}

# ------------------------------------------------------------------------------------------------------------ parts of a header


def item(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def view_code(value: str, scheme: str = "SCT", meaning: str = "meaning", *modifiers: Dataset) -> Dataset:
    one = code(value, scheme, meaning)
    one.ViewModifierCodeSequence = list(modifiers)
    return one


CC, MLO, ML = view_code("399162004"), view_code("399368009"), view_code("399260004")
LEFT_BREAST, RIGHT_BREAST = code("80248007", "SCT", "Left breast"), code("73056007", "SCT", "Right breast")


def only_code(*items: Dataset) -> dict[str, Any]:
    """The view stands in View Code Sequence alone."""
    return {"ViewPosition": None, "ViewCodeSequence": list(items)}


def only_position(value: Any) -> dict[str, Any]:
    return {"ViewPosition": value, "ViewCodeSequence": None}


def modified(*modifiers: Dataset) -> dict[str, Any]:
    return {"ViewCodeSequence": [view_code("399162004", "SCT", "cranio-caudal", *modifiers)]}


def side(**attributes: Any) -> dict[str, Any]:
    """The side stands in these attributes alone."""
    return {"ImageLaterality": None, "PatientOrientation": None, **attributes}


def text(**attributes: Any) -> dict[str, Any]:
    """Neither side nor view is told by anything but these texts."""
    return {**side(), **only_position(None), **attributes}


def region(value: str, scheme: str, *modifiers: Dataset) -> dict[str, Any]:
    one = code(value, scheme, "Breast")
    if modifiers:
        one.AnatomicRegionModifierSequence = list(modifiers)
    return {"AnatomicRegionSequence": [one]}


def frame(laterality: str) -> Dataset:
    return item(FrameAnatomySequence=[item(FrameLaterality=laterality)])


def tomo(shared: str = "", *frames: str, **attributes: Any) -> dict[str, Any]:
    """A Breast Tomosynthesis object: Frame Laterality shared by all frames, or of each."""
    groups: dict[str, Any] = {"SharedFunctionalGroupsSequence": [frame(shared) if shared else Dataset()]}
    if frames:
        groups["PerFrameFunctionalGroupsSequence"] = [frame(one) for one in frames]
    return {"SOPClassUID": BREAST_TOMOSYNTHESIS, "NumberOfFrames": 3, **side(), **groups, **attributes}


def image_type(values: str) -> dict[str, Any]:
    return {"ImageType": values.split("\\")}


def wrong(*elements: RawDataElement) -> dict[str, Any]:
    return {f"raw {number}": one for number, one in enumerate(elements)}


def header(of: View, attributes: Mapping[str, Any]) -> Dataset:
    """The ordinary mammogram of `of` with `attributes`, written to a file and read back."""
    given = {keyword: value for keyword, value in attributes.items() if not isinstance(value, RawDataElement)}
    raws = [value for value in attributes.values() if isinstance(value, RawDataElement)]
    return read_back(mammogram(of, pixels=PIXELS, **given), *raws)


def read_back(ds: Dataset, *raws: RawDataElement) -> Dataset:
    data = part10(encoded(ds, *raws), sop_class_uid=ds.SOPClassUID, sop_instance_uid=ds.SOPInstanceUID)
    return dcmread(BytesIO(data), stop_before_pixels=True)


def in_implicit_vr(ds: Dataset) -> Dataset:
    buffer = BytesIO()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dcmwrite(buffer, ds, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()))


# ---------------------------------------------------------------------------------------------------------------------- a case


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is written and what follows. An expectation that is None is not looked at."""

    why: str
    attributes: Mapping[str, Any]
    ends: str  # "fills" | "set aside" | "doubt" | "no slot" (set aside or doubt: the Standard leaves it open, only a guess is wrong)
    view: str | None = None
    of: View = View.L_CC
    kind: ImageKind | None = None
    laterality: str | None = None
    laterality_source: str | None = None
    position: str | None = None
    view_source: str | None = None
    modifiers: tuple[str, ...] | None = None
    conflicts: bool | None = None
    noted: bool | None = None  # something stands in conflicts or warnings
    dialect: Dialect = STANDARD
    assigned: View | None = None


def fills(view: str, why: str, attributes: Mapping[str, Any], **expected: Any) -> Case:
    wanted = {"kind": ImageKind.FFDM, "conflicts": False, **expected}
    return Case(why=why, attributes=attributes, ends="fills", view=view, **wanted)


def aside(why: str, attributes: Mapping[str, Any], **expected: Any) -> Case:
    return Case(why=why, attributes=attributes, ends="set aside", **expected)


def sideless(why: str, attributes: Mapping[str, Any], **expected: Any) -> Case:
    """A view to which nothing gives a side: what is missing contradicts nothing, so it is no doubt."""
    return aside(why, attributes, **{"laterality_source": "", "conflicts": False, **expected})


def doubt(why: str, attributes: Mapping[str, Any], **expected: Any) -> Case:
    return Case(why=why, attributes=attributes, ends="doubt", **{"conflicts": True, **expected})


def no_slot(why: str, attributes: Mapping[str, Any], **expected: Any) -> Case:
    return Case(why=why, attributes=attributes, ends="no slot", **expected)


# --------------------------------------------------------------------------------------------------------- CID 4014 and CID 4015

#: Label, SCT, and the codes of SRT, which SNM3 and 99SDM share (Y-X...: as first given out).
CID_4014 = (
    ("CC", "399162004", ("R-10242",)),
    ("MLO", "399368009", ("R-10226",)),
    ("ML", "399260004", ("R-10224",)),
    ("LM", "399352003", ("R-10228",)),
    ("LMO", "399099002", ("R-10230",)),
    ("FB", "399196006", ("R-10244",)),
    ("SIO", "399188001", ("R-102D0",)),
    ("ISO", "441555000", ("R-40AAA",)),
    ("XCCL", "399192008", ("R-1024A", "Y-X1770")),
    ("XCCM", "399101009", ("R-1024B", "Y-X1771")),
    ("XCC", "399265009", ("R-102CF",)),
)

#: Label, SCT, SRT, and whether an image with it may fill a slot.
CID_4015 = (
    ("ID", "399209000", "R-102D5", True),
    ("M", "399163009", "R-102D6", False),
    ("S", "399055006", "R-102D7", False),
    ("CV", "399161006", "R-102D2", False),
    ("AT", "399011000", "R-102D1", False),
    ("RL", "399197002", "R-102D3", False),
    ("RM", "399226006", "R-102D4", False),
    ("RI", "414493004", "R-102CA", False),
    ("RS", "415670009", "R-102C9", False),
    ("TAN", "399110001", "R-102C2", False),
    ("NP", "442581004", "R-40AB3", True),
    ("AC", "441752004", "P2-00161", True),
    ("IMF", "442593008", "R-40ABE", True),
    ("AX", "442580003", "R-40AB2", False),
)


def views_of_cid_4014() -> Iterable[Case]:
    for label, sct, srt in CID_4014:
        for scheme, value in [("SCT", sct), *((scheme, one) for one in srt for scheme in ("SRT", "SNM3", "99SDM"))]:
            why, attributes = f"{label} is ({value}, {scheme})", only_code(view_code(value, scheme))
            if label in ("CC", "MLO"):
                yield fills(f"L-{label}", why, attributes, position=label, view_source="ViewCodeSequence")
            else:
                yield aside(why, attributes, position=label, view_source="ViewCodeSequence", laterality="L")


def modifiers_of_cid_4015() -> Iterable[Case]:
    for label, sct, srt, usable in CID_4015:
        for scheme, value in (("SCT", sct), ("SRT", srt)):
            modifier = code(value, scheme, "modifier")
            for place, attributes in (
                ("in the view's item", modified(modifier)),
                ("beside the view", {"ViewModifierCodeSequence": [modifier]}),
            ):
                why = f"{label} is ({value}, {scheme}) {place}"
                expected: dict[str, Any] = {"modifiers": (label,), "position": "CC"}
                yield fills("L-CC", why, attributes, **expected) if usable else aside(why, attributes, **expected)


# ------------------------------------------------------------------------------------------------------------------- the tables

ID, NP, SPOT, MAG = (code(value, "SCT", "modifier") for value in ("399209000", "442581004", "399055006", "399163009"))
SIDES_ALONE = (
    fills("L-CC", "an ordinary mammogram", {}, laterality_source="ImageLaterality", view_source="ViewCodeSequence", noted=False),
    fills("R-CC", "an ordinary mammogram", {}, of=View.R_CC, modifiers=(), noted=False),
    fills("L-MLO", "an ordinary mammogram", {}, of=View.L_MLO, noted=False),
    fills("R-MLO", "an ordinary mammogram", {}, of=View.R_MLO, noted=False),
    fills("L-CC", "Laterality speaks when Image Laterality is absent", side(Laterality="L"), laterality_source="Laterality"),
    fills("R-CC", "Image Laterality is empty", side(ImageLaterality="", Laterality="R"), laterality_source="Laterality"),
    fills("L-CC", "left breast, SCT", side(**region("80248007", "SCT")), laterality_source="AnatomicRegionSequence"),
    fills("L-CC", "left breast, SRT", side(**region("T-04030", "SRT")), laterality_source="AnatomicRegionSequence"),
    fills("R-CC", "right breast, SCT", side(**region("73056007", "SCT")), laterality_source="AnatomicRegionSequence"),
    fills("R-CC", "right breast, SRT", side(**region("T-04020", "SRT")), laterality_source="AnatomicRegionSequence"),
    fills("R-CC", "right breast, SNM3", side(**region("T-04020", "SNM3")), laterality_source="AnatomicRegionSequence"),
    fills("L-CC", "breast, modifier left, SCT", side(**region("76752008", "SCT", code("7771000", "SCT", "Left")))),
    fills("L-CC", "breast, modifier left, SRT", side(**region("T-04000", "SRT", code("G-A101", "SRT", "Left")))),
    fills("R-CC", "breast, modifier right, SCT", side(**region("76752008", "SCT", code("24028007", "SCT", "Right")))),
    fills("R-CC", "breast, modifier right, SRT", side(**region("T-04000", "SRT", code("G-A100", "SRT", "Right")))),
    sideless("a breast without a side", side(**region("76752008", "SCT"))),
    sideless("a region is matched by its code, never by its meaning", side(AnatomicRegionSequence=[code("1", "SCT", "Left breast")])),
    fills("L-CC", "a CC whose columns run to the right", side(PatientOrientation=["A", "R"]), laterality_source="PatientOrientation"),
    fills("R-CC", "a CC whose columns run to the left", side(PatientOrientation=["P", "L"]), laterality_source="PatientOrientation"),
    sideless("an MLO's columns tell no side", side(PatientOrientation=["A", "FR"]), of=View.L_MLO, position="MLO"),
    sideless("an MLO's columns tell no side", side(PatientOrientation=["P", "FL"]), of=View.R_MLO, position="MLO"),
    sideless("a CC whose columns tell nothing", side(PatientOrientation=["A", "F"])),
    sideless("nothing tells a side", side(), position="CC"),
    aside("both breasts", side(ImageLaterality="B")),
    aside("both breasts, as of old", side(ImageLaterality="BILATERAL")),
    aside("both breasts stay both, whatever the series says", side(ImageLaterality="B", Laterality="L")),
    sideless("both breasts of a series", side(Laterality="B")),
)
SIDES_TOGETHER = (
    fills("L-CC", "a bilateral series may hold any Laterality", {"Laterality": "R"}, laterality_source="ImageLaterality"),
    fills("R-MLO", "a bilateral series may hold any Laterality", {"Laterality": "L"}, of=View.R_MLO, laterality_source="ImageLaterality"),
    fills("L-CC", "all of them agree", {"Laterality": "L", **region("80248007", "SCT")}, laterality_source="ImageLaterality"),
    fills("L-CC", "region and modifier agree", side(**region("80248007", "SCT", code("7771000", "SCT", "Left")))),
    doubt("Image Laterality L, region right", region("73056007", "SCT")),
    doubt("Image Laterality L, region right, SRT", region("T-04020", "SRT")),
    doubt("Image Laterality R, region left", region("80248007", "SCT"), of=View.R_MLO),
    doubt("Image Laterality L, modifier right", region("76752008", "SCT", code("24028007", "SCT", "Right"))),
    doubt("Image Laterality R, modifier left", region("T-04000", "SRT", code("G-A101", "SRT", "Left")), of=View.R_CC),
    doubt("Laterality L, region right", side(Laterality="L", **region("73056007", "SCT"))),
    doubt("Laterality R, modifier left", side(Laterality="R", **region("76752008", "SCT", code("7771000", "SCT", "Left")))),
    doubt("region left, its modifier right", side(**region("80248007", "SCT", code("24028007", "SCT", "Right")))),
    aside("no slot is at stake: ML", {**region("73056007", "SCT"), **only_code(ML)}, position="ML"),
    aside("no slot is at stake: spot", {**region("73056007", "SCT"), **modified(SPOT)}, modifiers=("S",)),
    aside("no slot is at stake: phantom", {**region("73056007", "SCT"), "QualityControlImage": "YES"}),
    aside("no slot is at stake: scout", {**region("73056007", "SCT"), **image_type(r"ORIGINAL\PRIMARY\STEREO_SCOUT")}),
    fills("L-CC", "orientation of a right CC: not a doubt by itself", {"PatientOrientation": ["P", "L"]}, conflicts=None),
    fills("R-MLO", "orientation of a left MLO: not a doubt by itself", {"PatientOrientation": ["A", "FR"]}, of=View.R_MLO, conflicts=None),
    fills("L-CC", "without an orientation", {"PatientOrientation": None}),
    fills("L-CC", "with an empty orientation", {"PatientOrientation": ""}),
    fills("L-CC", "text never overrides", {"SeriesDescription": "R CC"}, laterality_source="ImageLaterality", conflicts=None),
    fills("L-CC", "text never overrides Laterality", side(Laterality="L", SeriesDescription="R CC"), conflicts=None),
    fills("L-CC", "text never overrides the region", side(**region("80248007", "SCT"), ProtocolName="R CC"), conflicts=None),
    fills("L-CC", "text never overrides a view", {"SeriesDescription": "L MLO"}, view_source="ViewCodeSequence", conflicts=None),
)
FRAMES = (
    aside("all frames share the left", tomo("L"), laterality="L", laterality_source="FrameLaterality", kind=TOMOSYNTHESIS),
    aside("all frames share the right", tomo("R"), laterality="R", laterality_source="FrameLaterality", kind=TOMOSYNTHESIS),
    aside("each frame is left", tomo("", "L", "L", "L"), laterality="L", laterality_source="FrameLaterality"),
    aside("frames disagree", tomo("", "L", "R", "L"), conflicts=True),
    aside("shared left, one frame right", tomo("L", "L", "R", "L"), conflicts=True),
    aside("frames of both breasts", tomo("B"), laterality_source=""),
    aside("frames that know no side", tomo("U"), laterality_source=""),
    aside("the frames come before the series", tomo("L", Laterality="L"), laterality="L", laterality_source="FrameLaterality"),
    aside("frames left, region right", tomo("L", **region("73056007", "SCT")), conflicts=True),
    aside("a projection", {**tomo("L"), "SOPClassUID": BREAST_PROJECTION, **image_type(r"ORIGINAL\PRIMARY\TOMO_PROJ")}, laterality="L"),
    aside("the view stands beside the functional groups", tomo("R"), of=View.R_MLO, position="MLO", view_source="ViewCodeSequence"),
    aside("a functional group without an item", tomo("L") | {"SharedFunctionalGroupsSequence": []}, laterality_source=""),
)
VIEWS = (
    fills("L-CC", "View Position without a code", only_position("CC"), view_source="ViewPosition"),
    fills("L-MLO", "View Position without a code", only_position("MLO"), view_source="ViewPosition"),
    *(aside(f"View Position {label}", only_position(label), position=label, view_source="ViewPosition") for label, *_ in CID_4014[2:]),
    aside("tissue specimen, SCT", only_code(view_code("127457009")), kind=ImageKind.SPECIMEN),
    aside("tissue specimen, SRT", only_code(view_code("G-8310", "SRT")), kind=ImageKind.SPECIMEN),
    aside("XCCL is not CC", {"ViewCodeSequence": [view_code("399192008")]}, position="XCCL", conflicts=True),
    aside("LMO is not MLO", {"ViewCodeSequence": [view_code("399099002")], "ViewPosition": "MLO"}, position="LMO", conflicts=True),
    fills("L-MLO", "the code wins over View Position", {"ViewCodeSequence": [MLO]}, view_source="ViewCodeSequence", conflicts=True),
    fills("L-CC", "the code wins over View Position", {"ViewPosition": "ML"}, view_source="ViewCodeSequence", conflicts=True),
    fills("L-CC", "a code's meaning is not read", only_code(view_code("399162004", "SCT", "medio-lateral oblique"))),
    fills("L-CC", "an unknown code leaves View Position", {"ViewCodeSequence": [view_code("12345", "99ACME")]}, view_source="ViewPosition"),
    aside("an unknown scheme tells nothing", only_code(view_code("399162004", "99ACME", "cranio-caudal"))),
    aside("a code of SRT is none of SCT", only_code(view_code("R-10242", "SCT", "cranio-caudal"))),
    aside("a code of SCT is none of SRT", only_code(view_code("399368009", "SRT", "medio-lateral oblique"))),
    aside("a code of another list", only_code(view_code("80248007", "SCT", "Left breast"))),
    fills("L-CC", "a meaning without a code", only_code(item(CodeMeaning="cranio-caudal")), view_source="ViewCodeSequence meaning"),
    fills("L-MLO", "a meaning without a scheme", only_code(item(CodeValue="MLO", CodeMeaning="Medio-Lateral  Oblique "))),
    fills("L-MLO", "a meaning without a value", only_code(item(CodingSchemeDesignator="SCT", CodeMeaning="medio-lateral oblique"))),
    fills(
        "L-MLO", "a meaning comes last", {"ViewPosition": "MLO", "ViewCodeSequence": [item(CodeMeaning="cranio-caudal")]}, conflicts=None
    ),
    aside("a meaning of another view", only_code(item(CodeMeaning="medio-lateral")), position="ML"),
    aside("a longer meaning is another one", only_code(item(CodeMeaning="cranio-caudal exaggerated laterally")), position="XCCL"),
    aside("a meaning is matched whole", only_code(item(CodeMeaning="cranio-caudal or something"))),
    aside("no view at all", only_position(None), laterality="L"),
    aside("View Position of a chest", only_position("PA"), laterality="L"),
    fills("L-CC", "displaced, nipple in profile", modified(ID, NP), modifiers=("ID", "NP")),
    aside("displaced and magnified", modified(ID, MAG)),
    aside("a modifier in the item and one beside", {**modified(ID), "ViewModifierCodeSequence": [SPOT]}),
    fills("L-CC", "the same modifier in both places", {**modified(ID), "ViewModifierCodeSequence": [ID]}, modifiers=("ID",)),
    fills("L-CC", "modifier in SNM3", modified(code("R-102D5", "SNM3", "displaced")), modifiers=("ID",)),
    aside("modifier in SNM3", modified(code("R-102D6", "SNM3", "magnified")), modifiers=("M",)),
    aside("modifier in 99SDM", modified(code("R-102D7", "99SDM", "spot")), modifiers=("S",)),
    aside("a modifier of nobody's list", modified(code("42", "99ACME", "upside down"))),
    aside("a magnified MLO", {"ViewCodeSequence": [view_code("399368009", "SCT", "MLO", MAG)]}, of=View.R_MLO, position="MLO"),
)
KINDS = (
    fills("L-CC", "an original", image_type(r"ORIGINAL\PRIMARY")),
    fills("L-CC", "value 3 is empty", image_type(r"DERIVED\PRIMARY\{}")),
    fills("L-CC", "values 3 to 5 are empty", image_type(r"DERIVED\PRIMARY\{}\{}\{}")),
    fills("L-CC", "Image Type is absent", {"ImageType": None}),
    fills("L-CC", "synthetic", image_type(r"DERIVED\PRIMARY\TOMOSYNTHESIS\GENERATED_2D"), kind=SYNTHETIC),
    aside("a slice", image_type(r"DERIVED\PRIMARY\TOMOSYNTHESIS"), kind=TOMOSYNTHESIS),
    aside("a slice", image_type(r"DERIVED\PRIMARY\TOMOSYNTHESIS\NONE"), kind=TOMOSYNTHESIS),
    aside("a projection", image_type(r"ORIGINAL\PRIMARY\TOMO_PROJ"), kind=TOMOSYNTHESIS),
    aside("a projection is none the less for a value 4", image_type(r"ORIGINAL\PRIMARY\TOMO_PROJ\LEFT"), kind=TOMOSYNTHESIS),
    *(
        fills("L-CC", f"{contrast}, low energy", image_type(rf"ORIGINAL\PRIMARY\{contrast}\\LOW_ENERGY"), kind=LOW_ENERGY)
        for contrast in ("PRE_CONTRAST", "POST_CONTRAST")
    ),
    *(
        aside(f"{contrast}, high energy", image_type(rf"ORIGINAL\PRIMARY\{contrast}\\HIGH_ENERGY"), kind=OTHER_CONTRAST)
        for contrast in ("PRE_CONTRAST", "POST_CONTRAST")
    ),
    aside("subtracted", image_type(r"DERIVED\PRIMARY\POST_CONTRAST\SUBTRACTION"), kind=OTHER_CONTRAST),
    aside("subtracted", image_type(r"DERIVED\PRIMARY\POST_CONTRAST\SUBTRACTION\LOW_ENERGY"), kind=OTHER_CONTRAST),
    aside("added, of an energy that is not told", image_type(r"DERIVED\PRIMARY\POST_CONTRAST\ADDITION"), kind=OTHER_CONTRAST),
    *(
        aside(f"guidance: {value}", image_type(rf"ORIGINAL\PRIMARY\{value}"), kind=GUIDANCE)
        for value in (
            *("STEREO_SCOUT", "STEREO_MINUS", "STEREO_PLUS", "PREFIRE_MINUS", "PREFIRE_PLUS", "POSTFIRE_MINUS", "POSTFIRE_PLUS"),
            *("POSTBIOPSY", "POSTBIOPSY_MINUS", "POSTMARKER", "POSTMARKER_PLUS", "TOMO_SCOUT"),
        )
    ),
    fills("L-CC", "lower case", image_type(r"derived\primary\tomosynthesis\generated_2d"), kind=SYNTHETIC),
    fills("L-CC", "For Processing keeps its view", RAW, kind=RAW_PIXELS),
    fills("L-CC", "raw in a class for presentation", RAW_INTENT, kind=RAW_PIXELS, conflicts=None, noted=True),
    fills("L-CC", "raw by its class", RAW_CLASS, kind=RAW_PIXELS, conflicts=None, noted=True),
    fills("L-CC", "no intent is told", {"PresentationIntentType": None}),
    aside("a raw slice is a slice", {**RAW, **image_type(r"ORIGINAL\PRIMARY\TOMO_PROJ")}),
    aside("a raw spot image stays one", {**RAW, **modified(SPOT)}),
)
C_VIEW = {"SeriesDescription": "L CC C-View", "Manufacturer": "HOLOGIC, Inc."}
GE, FDR_3000 = {"Manufacturer": "GE MEDICAL SYSTEMS"}, {"ManufacturerModelName": "FDR-3000AWS"}
CR = {"SOPClassUID": COMPUTED_RADIOGRAPHY, "PhotometricInterpretation": "MONOCHROME1"}
DEVICES = (
    fills("L-CC", "Hologic: C-View, MG class", {**C_VIEW, **image_type(r"DERIVED\PRIMARY\TOMOSYNTHESIS\GENERATED_2D")}, kind=SYNTHETIC),
    fills("L-CC", "Hologic: C-View without value 4", {**C_VIEW, **image_type(r"DERIVED\PRIMARY\TOMOSYNTHESIS")}, kind=SYNTHETIC),
    *(
        fills(view.value, f"synthetic by its description: {words}", {"SeriesDescription": words}, of=view, kind=SYNTHETIC)
        for view, words in (
            *((View.L_CC, "C-VIEW"), (View.R_CC, "R CC CView"), (View.L_MLO, "S-View"), (View.R_MLO, "Intelligent 2D")),
            *((View.L_CC, "INSIGHT 2D"), (View.R_CC, "V-Preview R"), (View.L_MLO, "SYNTH 2D"), (View.R_MLO, "Synthetic mammogram")),
        )
    ),
    fills("L-CC", "a component TOMO_2D", image_type(r"DERIVED\PRIMARY\TOMO_2D"), kind=SYNTHETIC),
    fills("L-CC", "a component TOMO_2D further on", image_type(r"DERIVED\PRIMARY\{}\{}\{}\TOMO_2D"), kind=SYNTHETIC),
    aside("Hologic: tomosynthesis in Secondary Capture", {"SOPClassUID": SECONDARY_CAPTURE}),
    aside("Siemens: tomosynthesis in the CT class", {"SOPClassUID": COMPUTED_TOMOGRAPHY, "NumberOfFrames": 50}),
    aside("Siemens: tomosynthesis in the CT class", {"SOPClassUID": COMPUTED_TOMOGRAPHY, "Modality": "CT"}),
    fills("R-MLO", "GE: the image for presentation, SNM3", only_code(view_code("R-10226", "SNM3")) | GE, of=View.R_MLO),
    fills("R-MLO", "GE: its raw twin", {**RAW, **GE}, of=View.R_MLO, kind=RAW_PIXELS),
    fills("L-CC", "GE: SIGMOID", {**GE, "VOILUTFunction": "SIGMOID"}),
    fills("L-CC", "Fuji: nine values", image_type(r"DERIVED\PRIMARY\TOMOSYNTHESIS\GENERATED_2D\{}\{}\{}\{}\100000"), kind=SYNTHETIC),
    fills("L-CC", "Fuji: FDR-3000AWS, derived", FDR_3000, kind=SYNTHETIC),
    fills("L-CC", "Fuji: FDR-3000AWS, original", {**FDR_3000, **image_type(r"ORIGINAL\PRIMARY")}),
    aside("Fuji: FDR-3000AWS, subtracted", {**FDR_3000, **image_type(r"DERIVED\PRIMARY\POST_CONTRAST\SUBTRACTION")}, kind=OTHER_CONTRAST),
    fills("L-CC", "Fuji: volume attributes of a single frame", {"VolumetricProperties": "VOLUME"}, kind=ImageKind.UNKNOWN),
    fills("L-CC", "Fuji: a concatenation of a single frame", {"ConcatenationUID": "1.2.3"}, kind=ImageKind.UNKNOWN),
    fills("L-CC", "Konica: MONOCHROME1", {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}),
    fills("L-CC", "Konica: the CR class", {**CR, "Modality": "CR"}, kind=ImageKind.CR),
    fills("L-CC", "Konica: the CR class, Modality MG", CR, kind=ImageKind.CR),
    fills("L-CC", "a company that nobody knows", {"Manufacturer": "", "ManufacturerModelName": None}),
)
ATTRIBUTES = (
    aside("an X-ray of something else", {"SOPClassUID": DIGITAL_X_RAY, "Modality": "DX"}),
    aside("an ultrasound image", {"SOPClassUID": ULTRASOUND, "Modality": "US"}),
    aside("another modality in the MG class", {"Modality": "DX"}),
    aside("no modality", {"Modality": None}),
    fills("L-CC", "one frame", {"NumberOfFrames": 1}),
    aside("several frames", {"NumberOfFrames": 2}),
    fills("L-CC", "an implant", {"BreastImplantPresent": "YES"}),
    fills("L-CC", "an implant, displaced", {"BreastImplantPresent": "YES", **modified(ID)}, modifiers=("ID",)),
    fills("L-CC", "part of a large breast", {"PartialView": "YES"}, conflicts=None),
    aside("a phantom", {"QualityControlImage": "YES"}, kind=ImageKind.PHANTOM),
    fills("L-CC", "no phantom", {"QualityControlImage": "NO"}),
    aside("a specimen cabinet", {"PositionerType": "NONE"}, kind=ImageKind.SPECIMEN),
    fills("L-CC", "a mammography positioner", {"PositionerType": "MAMMOGRAPHIC"}),
    fills("L-CC", "an empty positioner", {"PositionerType": ""}),
    fills("L-CC", "another organ is only a warning", {"OrganExposed": "CHEST"}, noted=True),
    fills("L-CC", "another body part is only a warning", {"BodyPartExamined": "CHEST"}, noted=True),
    fills("L-CC", "burned-in text is only a warning", {"BurnedInAnnotation": "YES"}, noted=True),
    *(
        aside(f"paddle {paddle}", {"PaddleDescription": paddle}, modifiers=(label,))
        for paddle, label in (("SPOT COMPRESSION", "S"), ("10CM SPT", "S"), ("Spot Contact", "S"), ("MAG STAND", "M"), ("10CM MAG", "M"))
    ),
    aside("paddle for magnified spots", {"PaddleDescription": "MAG SPOT 9CM"}),
    fills("L-CC", "an ordinary paddle", {"PaddleDescription": "24CM X 29CM"}, modifiers=()),
    fills("L-CC", "factor 1.0", {"EstimatedRadiographicMagnificationFactor": "1.0"}),
    fills("L-CC", "factor 1.2", {"EstimatedRadiographicMagnificationFactor": "1.2"}, modifiers=()),
    aside("factor 1.21", {"EstimatedRadiographicMagnificationFactor": "1.21"}),
    aside("factor 1.5", {"EstimatedRadiographicMagnificationFactor": "1.5"}, modifiers=("M",)),
    aside("factor and modifier tell the same", {"EstimatedRadiographicMagnificationFactor": "1.8", **modified(MAG)}, modifiers=("M",)),
    aside("a colour image", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}),
    aside("a palette", {"PhotometricInterpretation": "PALETTE COLOR"}),
)
SOURCES = ("laterality_source", "view_source")
IN_TEXT = dict.fromkeys(SOURCES, "text of SeriesDescription")
VIEW_IN_TEXT = {**IN_TEXT, "laterality_source": "ImageLaterality"}
TEXTS = (
    *(
        fills(view, f"{words!r}", text(SeriesDescription=words), **IN_TEXT)
        for words, view in (
            *(("L CC", "L-CC"), ("R MLO", "R-MLO"), ("LEFT CC", "L-CC"), ("Right MLO", "R-MLO"), ("LT MLO", "L-MLO"), ("rt cc", "R-CC")),
            *(("CC L", "L-CC"), ("R-CC", "R-CC"), ("MLO_LEFT", "L-MLO"), ("Mammo (R) / CC, standard", "R-CC"), ("LCC", "L-CC")),
            *(("RMLO", "R-MLO"), ("lmlo", "L-MLO"), ("2D RCC 100%", "R-CC"), ("L CC ACCESSION 12", "L-CC"), ("LCC LEFT", "L-CC")),
        )
    ),
    *(
        fills(view, f"{words!r}", text(SeriesDescription=words), modifiers=(label,), **IN_TEXT)
        for words, view, label in (("LMLOID", "L-MLO", "ID"), ("RCCNP", "R-CC", "NP"), ("LCCAC", "L-CC", "AC"), ("RMLOIMF", "R-MLO", "IMF"))
    ),
    *(
        aside(f"{words!r}", text(SeriesDescription=words), laterality=of, position=label, modifiers=modifiers)
        for words, of, label, modifiers in (
            *(("RMCC", "R", "CC", ("M",)), ("RSMLO", "R", "MLO", ("S",)), ("LSCC", "L", "CC", ("S",)), ("LMMLO", "L", "MLO", ("M",))),
            *(("LCCRL", "L", "CC", ("RL",)), ("RCCRM", "R", "CC", ("RM",)), ("LMLORI", "L", "MLO", ("RI",))),
            *(("RMLORS", "R", "MLO", ("RS",)), ("LMLOAX", "L", "MLO", ("AX",)), ("LMLM", "L", "LM", ("M",))),
            *(("LXCCL", "L", "XCCL", ()), ("R XCCL", "R", "XCCL", ()), ("RXCCM", "R", "XCCM", ())),
            *(("LML", "L", "ML", ()), ("RLM", "R", "LM", ()), ("RLMO", "R", "LMO", ()), ("LFB", "L", "FB", ())),
        )
    ),
    *(
        aside(f"{words!r} tells no view", text(SeriesDescription=words))
        for words in (
            *("ACCESSION L", "LEFT SUCCESS", "OCCLUSION RIGHT", "LEFT", "MAMMOGRAPHY", "", "LCCX", "XLCC", "L CC MLO", "LCC LMLO"),
            *("LCC RMLO", "L CC R MLO"),
        )
    ),
    *(
        sideless(f"{words!r} tells no side", text(SeriesDescription=words))
        for words in ("CC", "MLO", "L CC R CC", "LCC RCC", "RIGHT LEFT MLO", "BILATERAL CC", "R/L CC", "LCC R")
    ),
    aside("a study's description tells nothing of an image", text(StudyDescription="L CC")),
    sideless("a study's description tells no side", side(StudyDescription="LEFT CC")),
    *(
        fills("R-MLO", f"text of {source}", text(**{source: "R MLO"}), **dict.fromkeys(SOURCES, f"text of {source}"))
        for source in ("ProtocolName", "AcquisitionDeviceProcessingDescription", "PerformedProcedureStepDescription")
    ),
    fills("L-CC", "View Position as text", text(ViewPosition="LCC"), view_source="text of ViewPosition"),
    fills("R-MLO", "View Position as text", text(ViewPosition="R MLO"), view_source="text of ViewPosition"),
    fills("R-MLO", "View Position as text, displaced", text(ViewPosition="RMLOID"), modifiers=("ID",)),
    fills("L-CC", "the first text speaks", text(SeriesDescription="L CC", ProtocolName="R MLO"), **IN_TEXT),
    fills("L-CC", "View Position's text speaks first", text(ViewPosition="L CC", SeriesDescription="R MLO"), conflicts=None),
    fills("R-MLO", "the first text is mute", text(SeriesDescription="Mammo", ProtocolName="R MLO"), view_source="text of ProtocolName"),
    fills("L-CC", "the side alone is told by text", side(SeriesDescription="L CC"), **{**IN_TEXT, "view_source": "ViewCodeSequence"}),
    fills("L-MLO", "the view alone is told by text", {**only_position(None), "SeriesDescription": "L MLO"}, **VIEW_IN_TEXT),
)
PORTUGUESE = Dialect(side_words={"D": "R", "E": "L"})
FRENCH = Dialect(side_words={"droite": "R", "gauche": "L"})
KOREAN, JAPANESE = Dialect(side_words={"좌": "L", "우": "R"}), Dialect(side_words={"左": "L", "右": "R"})
ITALIAN: dict[str, Any] = {"side_words": {"DX": "R", "SX": "L"}, "view_words": {"CRANIOCAUDAL": "CC", "OBL": "MLO"}}
PLANMED = Dialect(devices=(Device(manufacturer="Planmed Oy", **ITALIAN),))
NAMER = Dialect(devices=(Device(model="Mammo 1", synthetic_words=("FLAT VIEW", "2DS")),))


def distrusting(*keywords: str) -> Dialect:
    return Dialect(devices=(Device(manufacturer="Example Devices", model="Mammo 1", distrust=keywords),))


def planmed(words: str, name: str = "Planmed Oy") -> dict[str, Any]:
    return text(SeriesDescription=words, Manufacturer=name)


NO_REGION = distrusting("AnatomicRegionSequence")
SITES = (
    sideless("D and E tell no side by default", text(SeriesDescription="D CC")),
    sideless("droite tells no side by default", text(SeriesDescription="droite MLO")),
    sideless("Korean tells no side by default", text(SeriesDescription="좌 CC")),
    fills("R-CC", "D is right where the site says so", text(SeriesDescription="D CC"), dialect=PORTUGUESE, **IN_TEXT),
    fills("L-MLO", "E is left where the site says so", text(SeriesDescription="e mlo"), dialect=PORTUGUESE, **IN_TEXT),
    fills("L-CC", "L and R stay what they are", text(SeriesDescription="LCC"), dialect=PORTUGUESE, **IN_TEXT),
    fills("R-MLO", "droite", text(SeriesDescription="DROITE MLO"), dialect=FRENCH),
    fills("L-CC", "gauche", text(SeriesDescription="CC gauche"), dialect=FRENCH),
    fills("L-CC", "좌", text(SeriesDescription="좌 CC"), dialect=KOREAN, **IN_TEXT),
    fills("R-MLO", "우", text(SeriesDescription="우 MLO"), dialect=KOREAN, **IN_TEXT),
    sideless("좌 and 우", text(SeriesDescription="좌 우 CC"), dialect=KOREAN),
    sideless("좌 and R", text(SeriesDescription="좌 R CC"), dialect=KOREAN),
    fills("R-CC", "a site's words never override", {"SeriesDescription": "E CC"}, of=View.R_CC, dialect=PORTUGUESE, conflicts=None),
    fills("R-CC", "a device's words", planmed("DX CC"), dialect=PLANMED),
    fills("L-MLO", "a device's words for views", planmed("SX OBL"), dialect=PLANMED),
    fills("L-CC", "a device's words for views", planmed("L craniocaudal"), dialect=PLANMED),
    fills("R-CC", "a device's name without regard to case and padding", planmed("DX CC", " PLANMED OY "), dialect=PLANMED),
    sideless("another device's words", planmed("DX CC", "Planmed"), dialect=PLANMED),
    fills("L-CC", "a device's word for synthetic", {"SeriesDescription": "L CC flat view"}, dialect=NAMER, kind=SYNTHETIC),
    fills("L-CC", "a device's word is a whole word", {"SeriesDescription": "L CC flat viewer"}, dialect=NAMER),
    fills("L-CC", "another model's word", {"SeriesDescription": "L CC flat view", "ManufacturerModelName": "Mammo 12"}, dialect=NAMER),
    fills("R-CC", "Image Laterality is distrusted", {"Laterality": "R", "PatientOrientation": ""}, dialect=distrusting("ImageLaterality")),
    sideless("Image Laterality is distrusted, nothing else speaks", {"PatientOrientation": None}, dialect=distrusting("ImageLaterality")),
    fills("L-CC", "the region is distrusted", region("73056007", "SCT"), dialect=NO_REGION),
    doubt("the region is distrusted of another device", {**region("73056007", "SCT"), "Manufacturer": "Other"}, dialect=NO_REGION),
    fills("L-MLO", "the code is distrusted", {"ViewPosition": "MLO"}, dialect=distrusting("ViewCodeSequence"), view_source="ViewPosition"),
    sideless("the orientation is distrusted", side(PatientOrientation=["A", "R"]), dialect=distrusting("PatientOrientation")),
)
PERSON = {"laterality_source": "operator", "view_source": "operator"}
ASSIGNED = (
    fills("R-CC", "a person said so where nothing did", text(), assigned=View.R_CC, **PERSON),
    fills("L-MLO", "a person said so against a contradiction", region("73056007", "SCT"), assigned=View.L_MLO, conflicts=None, **PERSON),
    fills("R-MLO", "a person said so against the header", {}, assigned=View.R_MLO, conflicts=None, **PERSON),
    fills("R-CC", "a person tells the view, not the kind", {**side(), **C_VIEW}, assigned=View.R_CC, kind=SYNTHETIC),
)
UTF8, IR_149, IR_87 = (raw("SpecificCharacterSet", "CS", value) for value in (b"ISO_IR 192", b"\\ISO 2022 IR 149 ", b"\\ISO 2022 IR 87"))
UNKNOWN_SET, GARBAGE_SET = (raw("SpecificCharacterSet", "CS", value) for value in (b"ISO_IR 999", b"\xff\xfe\\\\x"))
KOREAN_NAME = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
JAPANESE_NAME = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
KOREAN_LEFT, JAPANESE_LEFT, CHINESE = b"\x1b$)C" + "좌".encode("euc_kr"), "左".encode("iso2022_jp"), "乳腺摄影".encode("gb18030")
UMLAUTS = (raw("PatientName", "PN", b"Doe^J\xfc"), raw("SeriesDescription", "LO", b"\xfc"))

#: An item: a Specific Character Set of NULs, then Code Value "1".
CODE_IN_NULS = b"\xfe\xff\x00\xe0\x14\x00\x00\x00" + b"\x08\x00\x05\x00CS\x02\x00\x00x" + b"\x08\x00\x00\x01SH\x02\x001 "


def described(character_set: RawDataElement, description: bytes) -> dict[str, Any]:
    return text() | wrong(character_set, raw("SeriesDescription", "LO", description))


BAD_INPUT = (
    fills("L-CC", "padded", wrong(raw("ImageLaterality", "CS", b" L  "))),
    fills("L-CC", "lower case", {"ImageLaterality": "l", **only_position("cc")}),
    fills("L-CC", "NULs", wrong(raw("ImageLaterality", "CS", b"L\0"), raw("ViewPosition", "CS", b"CC\0\0"))),
    fills("L-MLO", "NULs and blanks", {"ViewCodeSequence": None} | wrong(raw("ViewPosition", "CS", b" mlo \0"))),
    fills("L-CC", "padded code", only_code(view_code(" 399162004 ", " SCT "))),
    fills("R-MLO", "lower case code and scheme leave View Position", {"ViewCodeSequence": [view_code("r-10226", "srt")]}, of=View.R_MLO),
    fills("L-CC", "Modality in lower case, padded", wrong(raw("Modality", "CS", b"mg\0 "))),
    fills("L-CC", "a scheme of nobody leaves View Position", {"ViewCodeSequence": [view_code("CC", "99HOME")]}, view_source="ViewPosition"),
    fills("L-CC", "values that are only blanks", wrong(raw("Laterality", "CS", b"  "), raw("QualityControlImage", "CS", b"  "))),
    fills("R-CC", "a blank Image Laterality is none", side(Laterality="R") | wrong(raw("ImageLaterality", "CS", b"  "))),
    sideless("a side of nobody's list", side(ImageLaterality="X")),
    sideless("an unpaired organ", side(ImageLaterality="U")),
    no_slot("two sides in one value", side() | wrong(raw("ImageLaterality", "CS", b"L\\R "))),
    no_slot("two sides in one value of a series", side() | wrong(raw("Laterality", "CS", b"R\\L "))),
    no_slot("two views in one value", only_position(None) | wrong(raw("ViewPosition", "CS", b"CC\\MLO"))),
    no_slot("two regions", side(AnatomicRegionSequence=[LEFT_BREAST, RIGHT_BREAST])),
    no_slot("two views in a sequence", only_code(CC, MLO)),
    fills("L-CC", "two views leave View Position", {"ViewCodeSequence": [CC, MLO]}, view_source="ViewPosition", conflicts=None),
    fills("L-CC", "a view's sequence without an item", {"ViewCodeSequence": []}, view_source="ViewPosition"),
    fills("L-CC", "a view's item without an attribute", {"ViewCodeSequence": [Dataset()]}, view_source="ViewPosition"),
    aside("a view's sequence without an item, alone", only_code()),
    aside("a view's item without an attribute, alone", only_code(Dataset())),
    fills("L-CC", "a region's sequence without an item", {"AnatomicRegionSequence": []}),
    fills("L-CC", "a region's item without an attribute", {"AnatomicRegionSequence": [Dataset()]}),
    fills("L-CC", "a modifier's sequence without an item", {"ViewModifierCodeSequence": []}, modifiers=()),
    aside("frames' groups without an item", tomo() | {"SharedFunctionalGroupsSequence": [], "PerFrameFunctionalGroupsSequence": []}),
    fills("L-CC", "a frame's anatomy without an item", {"SharedFunctionalGroupsSequence": [item(FrameAnatomySequence=[])]}),
    sideless("a sequence for Image Laterality", side() | wrong(a_sequence("ImageLaterality"))),
    fills("L-CC", "a sequence for View Position", wrong(a_sequence("ViewPosition")), view_source="ViewCodeSequence"),
    fills("L-CC", "a sequence for Image Type", wrong(a_sequence("ImageType")), kind=None),
    fills("L-CC", "a sequence for Patient Orientation", wrong(a_sequence("PatientOrientation"))),
    fills("L-CC", "a sequence for Series Description", wrong(a_sequence("SeriesDescription"))),
    aside("a sequence for Modality", wrong(a_sequence("Modality"))),
    fills("L-CC", "a text for View Code Sequence", wrong(raw("ViewCodeSequence", "LO", b"CC")), view_source="ViewPosition"),
    fills("L-CC", "a text for the region", wrong(raw("AnatomicRegionSequence", "SH", b"T-04030 "))),
    no_slot("a text for the modifiers: a magnification cannot be ruled out", wrong(raw("ViewModifierCodeSequence", "LO", b"ID"))),
    fills("L-CC", "a broken sequence for the view", wrong(raw("ViewCodeSequence", "SQ", b"\xfe\xff\x00\xe0\xff\0\0\0\x08\0"))),
    fills("L-CC", "a code in a character set of NULs leaves View Position", wrong(raw("ViewCodeSequence", "SQ", CODE_IN_NULS))),
    fills("L-CC", "bytes for View Position", {"ViewCodeSequence": None} | wrong(raw("ViewPosition", "LO", b"CC"))),
    fills("L-CC", "a number for View Position", wrong(raw("ViewPosition", "US", b"\x01\x00")), view_source="ViewCodeSequence"),
    fills("L-CC", "a factor of two bytes", wrong(raw("EstimatedRadiographicMagnificationFactor", "FD", b"\x00\x01"))),
    fills("L-CC", "a factor that is no number", wrong(raw("EstimatedRadiographicMagnificationFactor", "DS", b"large "))),
    fills("L-CC", "a factor without an end", wrong(raw("EstimatedRadiographicMagnificationFactor", "DS", b"nan "))),
    no_slot("frames that are no number", wrong(raw("NumberOfFrames", "IS", b"many")), laterality="L"),
    fills("L-CC", "one orientation", {"PatientOrientation": "A"}),
    fills("L-CC", "three orientations", {"PatientOrientation": ["A", "R", "F"]}),
    fills("L-CC", "letters of no orientation", {"PatientOrientation": ["X", "Q"]}),
    fills("L-CC", "Korean, ISO 2022", wrong(IR_149, raw("PatientName", "PN", KOREAN_NAME))),
    fills("L-CC", "Japanese, ISO 2022", wrong(IR_87, raw("PatientName", "PN", JAPANESE_NAME))),
    fills("L-CC", "GB18030 declared as UTF-8, in the name", wrong(UTF8, raw("PatientName", "PN", CHINESE))),
    fills("L-CC", "GB18030 declared as UTF-8, in the description", wrong(UTF8, raw("SeriesDescription", "LO", CHINESE))),
    fills("L-CC", "an unknown character set", wrong(UNKNOWN_SET, *UMLAUTS)),
    fills("L-CC", "a character set that is none", wrong(GARBAGE_SET, *UMLAUTS)),
    fills("L-CC", "L CC beside Korean", described(IR_149, b"L CC " + KOREAN_LEFT), **IN_TEXT),
    fills("R-MLO", "R MLO beside Japanese", described(IR_87, b"R MLO " + JAPANESE_LEFT), **IN_TEXT),
    fills("L-CC", "L CC beside GB18030 declared as UTF-8", described(UTF8, b"L CC " + CHINESE), **IN_TEXT),
    fills("L-CC", "L CC in an unknown character set", described(UNKNOWN_SET, b"L CC \xfc"), **IN_TEXT),
    sideless("Korean tells no side by default", described(IR_149, KOREAN_LEFT + b" CC")),
    fills("L-CC", "Korean tells the side where the site says so", described(IR_149, KOREAN_LEFT + b" CC"), dialect=KOREAN, **IN_TEXT),
    fills("L-CC", "Japanese tells the side where the site says so", described(IR_87, JAPANESE_LEFT + b" CC"), dialect=JAPANESE, **IN_TEXT),
    sideless("GB18030 declared as UTF-8 tells no side", described(UTF8, "左 CC".encode("gb18030")), dialect=JAPANESE),
)
CASES = (
    *(*views_of_cid_4014(), *modifiers_of_cid_4015(), *SIDES_ALONE, *SIDES_TOGETHER, *FRAMES, *VIEWS, *KINDS, *DEVICES, *ATTRIBUTES),
    *(*TEXTS, *SITES, *ASSIGNED, *BAD_INPUT),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.ends}: {case.why}")
def test_a_header_means(case: Case) -> None:
    evidence = resolve_view(header(case.of, case.attributes), case.dialect, assigned=case.assigned)
    ends = {(True, False, False): "fills", (False, True, False): "set aside", (False, False, True): "doubt"}
    ended = ends[evidence.view is not None, bool(evidence.set_aside), bool(evidence.doubt)]
    assert ended in {"no slot": ("set aside", "doubt")}.get(case.ends, (case.ends,)), evidence
    assert evidence.view == (View(case.view) if case.view else None)
    if evidence.view is not None:
        assert (evidence.laterality, evidence.view_position) == (evidence.view.laterality, evidence.view.position)
    looked_at = {
        "kind": evidence.kind,
        "laterality": evidence.laterality,
        "laterality_source": evidence.laterality_source,
        "position": evidence.view_position,
        "view_source": evidence.view_source,
        "modifiers": evidence.modifiers,
        "conflicts": bool(evidence.conflicts),
        "noted": bool(evidence.conflicts or evidence.warnings),
    }
    expected = {name: value for name in looked_at if (value := getattr(case, name)) is not None}
    assert {name: looked_at[name] for name in expected} == expected, evidence


def test_the_table_is_whole() -> None:
    assert len(CASES) >= 140
    assert {case.ends for case in CASES} == {"fills", "set aside", "doubt", "no slot"}
    assert {case.kind for case in CASES} >= set(ImageKind)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.ends}: {case.why}")
def test_every_header_is_remembered(case: Case) -> None:
    """Whatever a device writes, the database gets evidence, ranking and demographics of the right form, and the evidence is the same."""
    ds = header(case.of, case.attributes)
    found = resolve(ds, case.dialect)
    assert found.evidence == resolve_view(ds, case.dialect)
    assert (found.ranking.area, found.rejects, found.rejection_title) == (24, (), "")
    assert len(found.demographics) == 64
    assert set(found.demographics) <= set("0123456789abcdef")


def test_an_empty_header_is_set_aside() -> None:
    assert resolve_view(Dataset()).set_aside
    assert resolve(Dataset()).rejects == ()


# ------------------------------------------------------------------------------------------- orientation and pixels against the side


def says(view: View, orientation: str, source: str = "ImageLaterality") -> ViewEvidence:
    values = tuple(orientation.split("\\")) if orientation else ()
    return ViewEvidence(
        view=view,
        laterality=view.laterality,
        laterality_source=source,
        view_position=view.position,
        view_source="ViewCodeSequence",
        kind=ImageKind.FFDM,
        orientation=values,
    )


ORIENTATION, EDGE, BOTH = ("PatientOrientation",), ("pixels",), ("PatientOrientation", "pixels")


@pytest.mark.parametrize(
    ("view", "orientation", "breast_edge", "expected"),
    [
        (View.L_CC, "A\\R", "left", ()),
        (View.R_CC, "P\\L", "right", ()),
        (View.L_MLO, "A\\FR", "left", ()),
        (View.R_MLO, "P\\FL", "right", ()),
        (View.L_CC, "A\\R", "right", EDGE),
        (View.R_CC, "P\\L", "left", EDGE),
        (View.L_MLO, "A\\FR", "right", EDGE),
        (View.R_MLO, "P\\FL", "left", EDGE),
        (View.L_CC, "P\\L", "left", ORIENTATION),
        (View.R_CC, "A\\R", "right", ORIENTATION),
        (View.L_MLO, "P\\FL", "left", ORIENTATION),
        (View.R_MLO, "A\\FR", "right", ORIENTATION),
        (View.L_CC, "P\\L", "right", BOTH),
        (View.R_CC, "A\\R", "left", BOTH),
        (View.L_MLO, "P\\FL", "right", BOTH),
        (View.R_MLO, "A\\FR", "left", BOTH),
        (View.L_CC, "A\\R", "", ()),
        (View.R_MLO, "A\\FR", "", ORIENTATION),
        (View.L_CC, "P\\L", "", ORIENTATION),
        (View.L_CC, "", "left", ()),
        (View.L_CC, "", "right", EDGE),
        (View.R_MLO, "", "", ()),
        (View.R_CC, "X\\Q", "right", ()),
        (View.R_CC, "X\\Q", "left", EDGE),
    ],
)
def test_what_contradicts_the_side(view: View, orientation: str, breast_edge: str, expected: tuple[str, ...]) -> None:
    assert contradicted_by(says(view, orientation), breast_edge) == expected


@pytest.mark.parametrize(
    ("view", "orientation", "breast_edge"),
    [(View.L_CC, "P\\R", "right"), (View.R_CC, "A\\L", "left"), (View.L_MLO, "P\\FR", "right"), (View.R_MLO, "A\\FL", "left")],
)
def test_a_mirrored_image_that_says_so_is_no_doubt(view: View, orientation: str, breast_edge: str) -> None:
    """Its columns tell the side that it claims, and its breast lies where its rows say: nothing but the hanging is unusual."""
    assert contradicted_by(says(view, orientation), breast_edge) != BOTH


def test_an_image_without_a_side_contradicts_nothing() -> None:
    assert contradicted_by(resolve_view(header(View.L_CC, side())), "left") == ()
    assert contradicted_by(resolve_view(header(View.L_CC, side())), "right") == ()


def test_a_side_that_was_read_from_the_orientation_is_not_contradicted_by_it() -> None:
    evidence = resolve_view(header(View.R_CC, side(PatientOrientation=["P", "L"])))
    assert contradicted_by(evidence, "right") == ()
    assert contradicted_by(evidence, "left") == EDGE


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["A", "R"], ("A", "R")),
        (["P", "FL"], ("P", "FL")),
        (None, ()),
        ("", ()),
        ("A", ()),
        (["A", "R", "F"], ()),
    ],
)
def test_orientation_is_read(written: Any, expected: tuple[str, ...]) -> None:
    assert resolve_view(header(View.L_CC, {"PatientOrientation": written})).orientation == expected


# ---------------------------------------------------------------------------------------------------------- what the ranking looks at

NO_TIME: dict[str, Any] = dict.fromkeys(("AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime"))
ACQUIRED, CONTENT = (
    {"AcquisitionDate": "20261120", "AcquisitionTime": "101500"},
    {"ContentDate": "20261121", "ContentTime": "111500.25"},
)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({**NO_TIME, "AcquisitionDateTime": "20261120101500.123456"}, "20261120101500.123456"),
        ({**NO_TIME, "AcquisitionDateTime": "20261120101500"}, "20261120101500.000000"),
        ({**NO_TIME, **ACQUIRED, **CONTENT, "AcquisitionDateTime": "20261119090000.5"}, "20261119090000.500000"),
        ({**NO_TIME, **ACQUIRED, **CONTENT}, "20261120101500.000000"),
        ({**NO_TIME, **ACQUIRED, **CONTENT, "AcquisitionDateTime": ""}, "20261120101500.000000"),
        ({**NO_TIME, **CONTENT}, "20261121111500.250000"),
        ({**NO_TIME, **CONTENT, "AcquisitionDate": "", "AcquisitionTime": ""}, "20261121111500.250000"),
        (NO_TIME, ""),
        ({**NO_TIME, "AcquisitionTime": "101500"}, ""),
        ({**NO_TIME, **wrong(raw("AcquisitionDateTime", "DT", b"yesterday "))}, ""),
        ({**NO_TIME, **wrong(a_sequence("AcquisitionDate"), a_sequence("AcquisitionDateTime"))}, ""),
    ],
)
def test_when_an_image_was_acquired(attributes: Mapping[str, Any], expected: str) -> None:
    assert resolve(header(View.L_CC, attributes)).ranking.acquired_at == expected


@pytest.mark.parametrize(
    ("written", "syntax", "expected"),
    [
        ("00", ExplicitVRLittleEndian, False),
        ("01", ExplicitVRLittleEndian, True),
        ("01", RLELossless, True),
        ("00", JPEG2000Lossless, False),
        (None, ExplicitVRLittleEndian, False),
        (None, JPEG2000Lossless, False),
        (None, JPEGBaseline8Bit, True),
        ("", JPEGBaseline8Bit, True),
    ],
)
def test_whether_pixels_were_lossy(written: str | None, syntax: UID, expected: bool) -> None:
    ds = header(View.L_CC, {"LossyImageCompression": written})
    ds.file_meta.TransferSyntaxUID = syntax
    assert resolve(ds).ranking.lossy is expected


@pytest.mark.parametrize(
    ("attributes", "name", "expected"),
    [
        ({"BreastImplantPresent": "YES"}, "implant", True),
        ({"BreastImplantPresent": "yes "}, "implant", True),
        ({"BreastImplantPresent": "NO"}, "implant", False),
        ({"BreastImplantPresent": None}, "implant", False),
        ({"PartialView": "YES"}, "partial_view", "YES"),
        ({"PartialView": "NO"}, "partial_view", "NO"),
        ({"PartialView": None}, "partial_view", ""),
        ({}, "area", 24),
        ({"Rows": None}, "area", 0),
        (wrong(raw("Rows", "LO", b"many")), "area", 0),
        ({"InstanceNumber": "7"}, "number", 7),
        ({"InstanceNumber": ""}, "number", 0),
        ({"InstanceNumber": None}, "number", 0),
        (wrong(raw("InstanceNumber", "IS", b"7th ")), "number", 0),
        ({"AcquisitionNumber": "3"}, "acquisition_number", 3),
        ({}, "acquisition_number", 0),
    ],
)
def test_what_else_the_ranking_looks_at(attributes: Mapping[str, Any], name: str, expected: Any) -> None:
    ranking = resolve(header(View.L_CC, attributes)).ranking
    assert getattr(ranking, name) == expected


# -------------------------------------------------------------------------------------------------------------------- rejections

IMAGES = tuple(mammogram(view, pixels=PIXELS) for view in (View.L_CC, View.R_MLO))
REJECTED = {str(ds.SOPInstanceUID) for ds in IMAGES}


@pytest.mark.parametrize(
    ("title", "scheme", "rejects"),
    [
        ("113001", "DCM", True),  # Rejected for Quality Reasons
        ("113037", "DCM", True),  # Rejected for Patient Safety Reasons
        ("113038", "DCM", True),  # Incorrect Modality Worklist Entry
        ("113039", "DCM", True),  # Data Retention Policy Expired
        ("113001 ", "DCM ", True),
        ("113000", "DCM", False),  # Of Interest
        ("113001", "99ACME", False),
        ("", "DCM", False),
    ],
)
def test_a_key_object_rejects_by_its_title(title: str, scheme: str, rejects: bool) -> None:
    found = resolve(read_back(rejection(*IMAGES, title=title, scheme=scheme)))
    assert set(found.rejects) == (REJECTED if rejects else set())
    assert found.rejection_title == (title.strip() if rejects else "")
    assert bool(found.rejection) is rejects
    assert found.evidence.view is None
    assert found.evidence.set_aside
    assert not found.evidence.doubt


@dataclass(frozen=True)
class Emptied:
    """A rejection from which something is missing, or written where it does not belong."""

    why: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    "emptied",
    [
        Emptied("no evidence", {"CurrentRequestedProcedureEvidenceSequence": None}),
        Emptied("no study", {"CurrentRequestedProcedureEvidenceSequence": []}),
        Emptied("a study without a series", {"CurrentRequestedProcedureEvidenceSequence": [Dataset()]}),
        Emptied("a series without an image", {"CurrentRequestedProcedureEvidenceSequence": [item(ReferencedSeriesSequence=[Dataset()])]}),
        Emptied("a text for the evidence", wrong(raw("CurrentRequestedProcedureEvidenceSequence", "LO", b"all of them "))),
        Emptied("no title", {"ConceptNameCodeSequence": None}),
        Emptied("a title without an item", {"ConceptNameCodeSequence": []}),
        Emptied("a text for the title", wrong(raw("ConceptNameCodeSequence", "LO", b"113001"))),
    ],
    ids=lambda emptied: emptied.why,
)
def test_a_key_object_that_names_nothing_rejects_nothing(emptied: Emptied) -> None:
    ds = rejection(*IMAGES)
    raws = [value for value in emptied.attributes.values() if isinstance(value, RawDataElement)]
    for keyword, value in emptied.attributes.items():
        if value is None:
            del ds[keyword]
        elif value not in raws:
            setattr(ds, keyword, value)
    assert resolve(read_back(ds, *raws)).rejects == ()


def test_an_image_rejects_nothing_whatever_it_refers_to() -> None:
    ds = mammogram(pixels=PIXELS, ConceptNameCodeSequence=[code("113001", "DCM", "Rejected for Quality Reasons")])
    ds.CurrentRequestedProcedureEvidenceSequence = rejection(*IMAGES).CurrentRequestedProcedureEvidenceSequence
    found = resolve(read_back(ds))
    assert (found.rejects, found.rejection_title) == ((), "")
    assert found.evidence.view is View.L_CC


# ------------------------------------------------------------------------------------------------------------------- demographics


def demographics(**attributes: Any) -> str:
    return resolve(header(View.L_CC, attributes)).demographics


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        wrong(raw("PatientName", "PN", b"Doe^Jane  ")),
        wrong(raw("PatientName", "PN", b"Doe^Jane\0\0"), raw("PatientID", "LO", b"P1\0\0")),
        wrong(raw("PatientID", "LO", b" P1 ")),
        {"KVP": "31", "WindowCenter": "1000", "ViewPosition": "MLO"},
    ],
    ids=["nothing", "a padded name", "NULs", "a padded number", "what is not of the patient"],
)
def test_demographics_stay_the_same(attributes: Mapping[str, Any]) -> None:
    assert demographics(**attributes) == demographics()


def test_demographics_stay_the_same_in_another_transfer_syntax_and_character_set() -> None:
    ds = header(View.L_CC, {"PatientName": "Müller^Anna"})
    latin = wrong(raw("SpecificCharacterSet", "CS", b"ISO_IR 100"), raw("PatientName", "PN", b"M\xfcller^Anna "))
    assert resolve(in_implicit_vr(ds)).demographics == resolve(ds).demographics
    assert demographics(**latin) == resolve(ds).demographics


@pytest.mark.parametrize(
    "attributes",
    [{"PatientName": "Roe^Jane"}, {"PatientName": ""}, {"PatientID": "P2"}, {"PatientBirthDate": "19700102"}],
    ids=lambda attributes: next(iter(attributes)),
)
def test_demographics_differ(attributes: Mapping[str, Any]) -> None:
    assert demographics(**attributes) != demographics()
