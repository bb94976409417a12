"""Which SOP classes are kept, and the keeping itself: what every entrance for images has in common (PS3.4 B.2.3; PS3.18 10.5).

An entrance (C-STORE, STOW-RS, a study that is fetched) brings a finished Part 10 file and its keys; what `keep_file` has returned is
durable. Nothing here knows of a network.
"""

from __future__ import annotations

import contextlib
import errno
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol, TypeVar

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from listener.keys import Keys, Refused, Status
from pipeline.decode import DECODABLE
from store.archive import Kept, Reception
from store.files import Files
from store.rows import Busy
from store.study import ImageKind

_MIB = 1024**2
#: Whose sizes are remembered.
MOST_STUDIES = 10_000
_Outcome = TypeVar("_Outcome")


class OnArrival(Enum):
    """What becomes of an instance of a SOP class."""

    KEEP = "an image that may be analysed"
    KEEP_LISTED = "an image of a kind that is kept when the site's model card lists it, otherwise ignored"
    KEEP_KEY_OBJECT = "a note about images, for instance that one was rejected"
    IGNORE = "accepted, recorded without its file, never analysed"


@dataclass(frozen=True)
class SopClass:
    """One row of the conformance statement; `reason` says why it is ignored."""

    uid: str
    name: str
    on_arrival: OnArrival
    reason: str = ""
    is_image: bool = True
    limit_bytes: int = 2048 * _MIB
    kind: ImageKind | None = None  # of one that is kept only when it is listed

    @property
    def transfer_syntaxes(self) -> tuple[str, ...]:
        """In our order of preference, which decides (PS3.8 9.3.3.2 leaves the choice to the acceptor)."""
        return DECODABLE if self.is_image else (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


_KEEP, _LISTED, _KEY_OBJECT, _IGNORE = OnArrival.KEEP, OnArrival.KEEP_LISTED, OnArrival.KEEP_KEY_OBJECT, OnArrival.IGNORE
_RAW_PIXELS = "For Processing pixels: no model here was trained on them"
_TOMO = "tomosynthesis: it is not one of the four views"
_NOT_MAMMOGRAPHY = "not an image of the mammography classes"
_CAPTURE = "secondary capture: a copy, a print-out or another program's page, not the image"
_REPORT = "a report, not an image"
_STATE = "a presentation state: it changes how an image looks, not what it is"
_DERIVED = "derived or raw data, not an image to be read"

#: Every SOP class that is negotiated. Storage Commitment is left out: Fourview is no archive and promises none.
SOP_CLASSES: tuple[SopClass, ...] = (
    SopClass("1.2.840.10008.5.1.4.1.1.1.2", "Digital Mammography X-Ray - For Presentation", _KEEP, limit_bytes=200 * _MIB),
    SopClass("1.2.840.10008.5.1.4.1.1.88.59", "Key Object Selection Document", _KEY_OBJECT, is_image=False, limit_bytes=200 * _MIB),
    SopClass(
        "1.2.840.10008.5.1.4.1.1.1.2.1",
        "Digital Mammography X-Ray - For Processing",
        _LISTED,
        _RAW_PIXELS,
        limit_bytes=200 * _MIB,
        kind=ImageKind.FOR_PROCESSING,
    ),
    SopClass("1.2.840.10008.5.1.4.1.1.13.1.3", "Breast Tomosynthesis", _IGNORE, _TOMO),
    SopClass("1.2.840.10008.5.1.4.1.1.13.1.4", "Breast Projection X-Ray - For Presentation", _IGNORE, _TOMO),
    SopClass("1.2.840.10008.5.1.4.1.1.13.1.5", "Breast Projection X-Ray - For Processing", _IGNORE, _TOMO),
    SopClass("1.2.840.10008.5.1.4.1.1.1.1", "Digital X-Ray - For Presentation", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.1.1.1", "Digital X-Ray - For Processing", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.1", "Computed Radiography", _LISTED, _NOT_MAMMOGRAPHY, limit_bytes=200 * _MIB, kind=ImageKind.CR),
    SopClass("1.2.840.10008.5.1.4.1.1.7", "Secondary Capture", _IGNORE, _CAPTURE),
    SopClass("1.2.840.10008.5.1.4.1.1.7.1", "Multi-frame Single Bit Secondary Capture", _IGNORE, _CAPTURE),
    SopClass("1.2.840.10008.5.1.4.1.1.7.2", "Multi-frame Grayscale Byte Secondary Capture", _IGNORE, _CAPTURE),
    SopClass("1.2.840.10008.5.1.4.1.1.7.3", "Multi-frame Grayscale Word Secondary Capture", _IGNORE, _CAPTURE),
    SopClass("1.2.840.10008.5.1.4.1.1.7.4", "Multi-frame True Color Secondary Capture", _IGNORE, _CAPTURE),
    SopClass("1.2.840.10008.5.1.4.1.1.2", "CT", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.88.11", "Basic Text SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.88.22", "Enhanced SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.88.33", "Comprehensive SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.88.34", "Comprehensive 3D SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.88.50", "Mammography CAD SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.88.67", "X-Ray Radiation Dose SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.11.1", "Grayscale Softcopy Presentation State", _IGNORE, _STATE, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.11.2", "Color Softcopy Presentation State", _IGNORE, _STATE, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.11.3", "Pseudo-Color Softcopy Presentation State", _IGNORE, _STATE, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.11.4", "Blending Softcopy Presentation State", _IGNORE, _STATE, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.11.8", "Advanced Blending Presentation State", _IGNORE, _STATE, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated PDF", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.66", "Raw Data", _IGNORE, _DERIVED, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.66.4", "Segmentation", _IGNORE, _DERIVED),
    SopClass("1.2.840.10008.5.1.4.1.1.30", "Parametric Map", _IGNORE, _DERIVED),
    SopClass("1.2.840.10008.5.1.4.1.1.6.1", "Ultrasound", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.3.1", "Ultrasound Multi-frame", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.4", "MR", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.4.1", "Enhanced MR", _IGNORE, _NOT_MAMMOGRAPHY),
)

#: SOP Class UID -> its row.
BY_UID: Mapping[str, SopClass] = {sop_class.uid: sop_class for sop_class in SOP_CLASSES}

#: SOP Class UIDs of what is kept for every model.
KEPT: frozenset[str] = frozenset(sop_class.uid for sop_class in SOP_CLASSES if sop_class.on_arrival in (_KEEP, _KEY_OBJECT))


def kept_for(image_kinds: Collection[ImageKind]) -> frozenset[str]:
    """SOP Class UIDs of what is kept for a model that reads these kinds of images."""
    return KEPT | {sop_class.uid for sop_class in SOP_CLASSES if sop_class.kind is not None and sop_class.kind in image_kinds}


#: The volume is full, or our share of it.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Keeps(Protocol):
    """The one method of `store.archive.Archive` that reception needs; called from many threads at once."""

    def keep(self, reception: Reception) -> Kept:
        """Durable when it returns; raises Busy when the database stayed locked or is away."""


def check_size(size_bytes: int, sop_class_uid: str) -> None:
    """Raise Refused when an instance of this class is larger than allowed."""
    sop_class = BY_UID.get(sop_class_uid)
    if sop_class is not None and size_bytes > sop_class.limit_bytes:
        raise Refused(Status.TOO_LARGE, f"larger than {sop_class.limit_bytes // _MIB} MiB")


@dataclass(frozen=True, kw_only=True)
class StudyLimits:
    """What one study may have here. 0: any number."""

    instances: int = 2000
    size_bytes: int = 4 * 1024**3


class StudySizes:
    """What was kept of each study, as far as this process knows: since its start, of the studies that it saw last."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[str, tuple[int, int]] = OrderedDict()  # instances, bytes
        self._lock = threading.Lock()

    def check(self, study_instance_uid: str, limits: StudyLimits) -> None:
        """Raise Refused when the study has all that it may have."""
        with self._lock:
            instances, size_bytes = self._sizes.get(study_instance_uid, (0, 0))
        if limits.instances and instances >= limits.instances:
            raise Refused(Status.TOO_LARGE, f"its study has {instances} instances ([dicom] study_instances)")
        if limits.size_bytes and size_bytes >= limits.size_bytes:
            raise Refused(Status.TOO_LARGE, f"its study has {size_bytes // _MIB} MiB ([dicom] study_gib)")

    def add(self, study_instance_uid: str, size_bytes: int) -> None:
        """One more instance of it was kept."""
        with self._lock:
            instances, before = self._sizes.pop(study_instance_uid, (0, 0))
            self._sizes[study_instance_uid] = (instances + 1, before + size_bytes)
            if len(self._sizes) > MOST_STUDIES:
                self._sizes.popitem(last=False)


def ignored_because(keys: Keys, kept_sop_classes: Collection[str]) -> str:
    """Why only a row is kept of an instance, in words; "" when it is kept whole. Raises Refused when what would be kept is damaged."""
    sop_class = BY_UID.get(keys.sop_class_uid)
    if keys.sop_class_uid not in kept_sop_classes:
        return (sop_class.reason if sop_class else "") or "no model here reads this class"
    if keys.damage:
        raise Refused(Status.CANNOT_PARSE, keys.damage)
    return ""


def keep_file(
    keys: Keys,
    received: Path,
    ignored: str,
    *,
    archive: Keeps,
    files: Files,
    calling_ae_title: str,
    called_ae_title: str,
    origin: str = "received",
) -> Kept:
    """Keep the finished file `received`, or only its row; durable when it returns. Raises Refused(OUT_OF_RESOURCES)."""
    titles = {"calling_ae_title": stripped(calling_ae_title), "called_ae_title": stripped(called_ae_title)}

    def keep(file_name: str | None) -> Kept:
        return archive.keep(reception_of(keys, file_name, origin=origin, ignored=ignored, **titles))

    try:
        return keep(None) if ignored else adopted(received, files, keep, is_linked=lambda kept: kept is Kept.NEW)
    except Busy as busy:
        raise Refused(Status.OUT_OF_RESOURCES, "the database is busy or away; try again later") from busy


def adopted(received: Path, files: Files, keep: Callable[[str], _Outcome], *, is_linked: Callable[[_Outcome], bool]) -> _Outcome:
    """Give the finished file `received` a place in the spool and have it remembered under that name; what `keep` says of it.

    Unless a row links to it then, the file goes. Raises Refused(OUT_OF_RESOURCES) when the disk does not take it, and what `keep` raises.
    """
    try:
        file_name = files.adopt(received)
    except OSError as error:
        raise Refused(Status.OUT_OF_RESOURCES, disk_fault(error)) from error
    try:
        outcome = keep(file_name)
    except Busy as busy:
        # A commit whose answer was lost may stand, and then its row links to the file: it stays, and without a row it goes after a day.
        # Otherwise it goes at once: a sender that tries again and again would fill the disk.
        if not busy.unsure:
            _remove(files, file_name)
        raise
    if not is_linked(outcome):
        _remove(files, file_name)
    return outcome


def _remove(files: Files, file_name: str) -> None:
    with contextlib.suppress(OSError):  # what was sent is kept; the janitor finds the second file
        files.remove(file_name)


def reception_of(
    keys: Keys, file_name: str | None, *, calling_ae_title: str, called_ae_title: str, origin: str, ignored: str = ""
) -> Reception:
    """What the archive is told of an instance that came through a door."""
    return Reception(
        study_instance_uid=keys.study_instance_uid,
        series_instance_uid=keys.series_instance_uid,
        sop_instance_uid=keys.sop_instance_uid,
        sop_class_uid=keys.sop_class_uid,
        transfer_syntax_uid=keys.transfer_syntax_uid,
        modality=keys.modality,
        patient_id=keys.patient_id,
        issuer_of_patient_id=keys.issuer_of_patient_id,
        patient_name=keys.patient_name,
        patient_birth_date=keys.patient_birth_date,
        calling_ae_title=calling_ae_title,
        called_ae_title=called_ae_title,
        size_bytes=keys.size_bytes,
        file_hash=keys.file_hash,
        file_name=file_name,
        ignored=ignored,
        origin=origin,
    )


def disk_fault(error: OSError) -> str:
    """For the sender, without any path."""
    if error.errno in _NO_SPACE:
        return "the disk is full; try again later"
    return f"the disk fails ({error.strerror or type(error).__name__}); try again later"


def stripped(value: str | None) -> str:
    """Without the padding of any VR."""
    return str(value or "").replace("\0", "").strip()


def printable(value: str | None) -> str:
    """For the log: what a peer wrote cannot begin a new line there."""
    return re.sub(r"[\s='\"]", lambda found: f"\\x{ord(found[0]):02x}", ascii(stripped(value)[:64])[1:-1])
