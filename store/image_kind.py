"""What an object of the mammography classes really is: acquired, synthetic, contrast, tomosynthesis, biopsy guidance, specimen, phantom.

PS3.3 C.8.11.7.1.4 (Image Type) and C.8.11.7 (Mammography Image). Old objects do not say it there; names and models then do.
"""

from __future__ import annotations

import re

from pydicom.uid import (
    BreastProjectionXRayImageStorageForPresentation,
    BreastProjectionXRayImageStorageForProcessing,
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from store.header_text import Attributes
from store.study import ImageKind
from store.view_text import Words, contains, tokens

#: Image Type value 3 -> kind, by how it begins: the families of biopsy guidance have numbered members.
_KIND_BY_BEGINNING = (
    ("TOMO_PROJ", ImageKind.TOMOSYNTHESIS),
    ("TOMO_SCOUT", ImageKind.STEREOTACTIC),
    ("STEREO_", ImageKind.STEREOTACTIC),
    ("PREFIRE", ImageKind.STEREOTACTIC),
    ("POSTFIRE", ImageKind.STEREOTACTIC),
    ("POSTBIOPSY", ImageKind.STEREOTACTIC),
    ("POSTMARKER", ImageKind.STEREOTACTIC),
)
_CONTRAST = {"PRE_CONTRAST", "POST_CONTRAST"}
_NOT_LOW_ENERGY = {"SUBTRACTION", "ADDITION", "HIGH_ENERGY"}

#: What vendors called synthetic 2D in Series Description before Image Type had a value for it. "CC-View" is not C-View.
_SYNTHETIC_NAMES = re.compile(r"(?<![^\W_])(C[-_ ]?VIEW|S[-_ ]?VIEW|V[-_ ]?PREVIEW|INTELLIGENT[-_ ]?2D|INSIGHT[-_ ]?2D|SYNTH)")
#: Fuji's model whose derived images are synthetic although Image Type does not say so.
_SYNTHETIC_MODEL = "FDR-3000AWS"

#: Classes whose objects hold raw values (PS3.3 C.8.11.7.1.1: For Processing).
RAW_CLASSES: frozenset[str] = frozenset(
    {
        DigitalMammographyXRayImageStorageForProcessing,
        DigitalXRayImageStorageForProcessing,
        BreastProjectionXRayImageStorageForProcessing,
    }
)
_KIND_BY_CLASS: dict[str, ImageKind] = {
    DigitalMammographyXRayImageStorageForPresentation: ImageKind.FFDM,
    DigitalXRayImageStorageForPresentation: ImageKind.FFDM,
    BreastProjectionXRayImageStorageForPresentation: ImageKind.FFDM,
    ComputedRadiographyImageStorage: ImageKind.CR,
    BreastTomosynthesisImageStorage: ImageKind.TOMOSYNTHESIS,
    **dict.fromkeys(RAW_CLASSES, ImageKind.FFDM),
}

#: What raw values are read of only by a model that was trained on raw values. The other kinds say more than "raw".
_RAW_MAY_BE = {ImageKind.FFDM, ImageKind.CR, ImageKind.CONTRAST_LOW_ENERGY, ImageKind.SYNTHETIC_2D, ImageKind.UNKNOWN}


def image_kind(header: Attributes, label: str | None, words: Words) -> ImageKind:
    """What the object is; `label` is the view that its header names."""
    kind = _kind(header, label, words)
    return ImageKind.FOR_PROCESSING if is_raw(header) and kind in _RAW_MAY_BE else kind


def is_raw(header: Attributes) -> bool:
    """Whether SOP class or Presentation Intent Type (0008,0068) says For Processing; one of them is enough."""
    return header.text("SOPClassUID") in RAW_CLASSES or "FOR PROCESSING" in header.values("PresentationIntentType")


def _kind(header: Attributes, label: str | None, words: Words) -> ImageKind:
    parts = header.values("ImageType")
    value_1, value_2, value_3, value_4 = (*parts, "", "", "", "")[:4]
    if "YES" in header.values("QualityControlImage"):
        return ImageKind.PHANTOM
    if label == "SPECIMEN" or "NONE" in header.values("PositionerType"):
        return ImageKind.SPECIMEN
    for beginning, kind in _KIND_BY_BEGINNING:
        if value_3.startswith(beginning):
            return kind
    if value_3 in _CONTRAST or _NOT_LOW_ENERGY.intersection(parts):
        low_energy = "LOW_ENERGY" in parts and not _NOT_LOW_ENERGY.intersection(parts)
        return ImageKind.CONTRAST_LOW_ENERGY if low_energy else ImageKind.CONTRAST_OTHER
    if value_4 == "GENERATED_2D" or "TOMO_2D" in parts:
        return ImageKind.SYNTHETIC_2D
    by_class = _KIND_BY_CLASS.get(header.text("SOPClassUID"), ImageKind.UNKNOWN)
    slice_by_type = value_3 == "TOMOSYNTHESIS"
    if by_class is ImageKind.TOMOSYNTHESIS or (slice_by_type and value_4):
        return ImageKind.TOMOSYNTHESIS
    description = header.text("SeriesDescription")
    if words.synthetic and any(contains(tokens(description), phrase) for phrase in words.synthetic):
        return ImageKind.SYNTHETIC_2D
    synthetic_model = header.text("ManufacturerModelName") == _SYNTHETIC_MODEL and (value_1, value_2) == ("DERIVED", "PRIMARY")
    synthetic = synthetic_model or _SYNTHETIC_NAMES.search(description) is not None
    # Copied onto single slices and onto synthetic images alike, so they tell neither.
    of_a_volume = "VOLUME" in header.values("VolumetricProperties") or bool(header.values("ConcatenationUID"))
    if of_a_volume and (synthetic or not slice_by_type):
        return ImageKind.UNKNOWN
    if synthetic:
        return ImageKind.SYNTHETIC_2D
    return ImageKind.TOMOSYNTHESIS if slice_by_type else by_class
