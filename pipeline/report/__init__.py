"""Scores -> DICOM objects: a Comprehensive SR (PS3.16 TID 1500) and a Secondary Capture page (PS3.3 A.8.1).

Pure: no clock, no random state, no disk.
The same `Report` gives the same bytes, in every process and on every day; an archive that stores an object twice sees no difference.
"""

from __future__ import annotations

from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset

from pipeline.report.header import COPIED_KEYWORDS, copied_header
from pipeline.report.page import build_page
from pipeline.report.structured_report import build_structured_report
from pipeline.report.values import BuiltObject, Report, ReportedView

__all__ = ["COPIED_KEYWORDS", "WRITER_VERSION", "BuiltObject", "Report", "ReportedView", "build", "copied_header"]

#: Enters the cause of every version: raise it whenever the same report would give other bytes (wording, codes, drawing, fonts).
WRITER_VERSION = "3"


def build(report: Report) -> tuple[BuiltObject, ...]:
    """The result objects of one version: always ("sr", "page").

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
    structured_report = build_structured_report(report)
    page, png = build_page(report)
    return _built("sr", structured_report, None), _built("page", page, png)


def _built(kind: str, ds: Dataset, png: bytes | None) -> BuiltObject:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    # Read back, so that `ds` says what the bytes say and carries nothing of the library that made it.
    return BuiltObject(kind, dcmread(BytesIO(buffer.getvalue())), buffer.getvalue(), png)
