"""Scores -> DICOM objects: a Comprehensive SR (PS3.16 TID 1500) and a Secondary Capture page (PS3.3 A.8.1).

Pure: no clock, no random state, no disk.
The same `Report` gives the same bytes, in every process and on every day; an archive that stores an object twice sees no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset

from pipeline.report.content import element_head
from pipeline.report.header import COPIED_KEYWORDS, copied_header
from pipeline.report.page import build_page
from pipeline.report.structured_report import build_structured_report
from pipeline.report.values import BuiltObject, Report, ReportedView

__all__ = ["COPIED_KEYWORDS", "KINDS", "WRITER_VERSION", "BuiltObject", "Report", "ReportedView", "build", "build_one", "copied_header"]

#: Enters the cause of every version: raise it whenever the same report would give other bytes (wording, codes, drawing, fonts).
WRITER_VERSION = "3"


#: Every version has one object of each kind.
KINDS: Mapping[str, Callable[[Report], Dataset]] = {"sr": build_structured_report, "page": build_page}


def build(report: Report) -> tuple[BuiltObject, ...]:
    """The result objects of one version: always ("sr", "page"). Raises ValueError as `build_one` does."""
    return tuple(build_one(report, kind) for kind in KINDS)


def build_one(report: Report, kind: str) -> BuiltObject:
    """The result object of one of `KINDS`.

    Raises ValueError when no view has scores, when a withdrawn report has some or names no view, when a time is naive, or when
    there are no sentences in the installation's language; no content of the images' headers raises.
    """
    for name, moment in (("created_at", report.created_at), ("replaces_at", report.replaces_at)):
        if moment is not None and moment.tzinfo is None:
            raise ValueError(f"study {report.study_instance_uid}: {name} needs a time zone")
    if report.withdrawn and (report.analysed or not report.views):
        raise ValueError(f"study {report.study_instance_uid}: a withdrawn report names the views of the earlier one, without their scores")
    if not report.withdrawn and not report.analysed:
        raise ValueError(f"study {report.study_instance_uid}: no view has scores, so there is nothing to report")
    ds = KINDS[kind](report)
    # Written without its pixels, which come last anyway: eleven megabytes are not copied from one buffer to the next.
    pixels: bytes | None = ds.get("PixelData")
    if pixels is not None:
        del ds.PixelData
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    # Read back, so that `ds` says what the bytes say and carries nothing of the library that made it.
    read, data = dcmread(BytesIO(buffer.getvalue())), buffer.getvalue()
    if pixels is not None:
        read.PixelData, data = pixels, b"".join((data, element_head(0x7FE00010, "OB", len(pixels)), pixels))
        read["PixelData"].VR = "OB"
    return BuiltObject(kind, read, data)
