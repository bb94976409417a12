"""Which of the fixed sentences stand on a report, and in which order. The SR and the page say the same."""

from __future__ import annotations

from pipeline.report import header, wording
from pipeline.report.values import Report
from store.study import Outcome


def remarks(report: Report) -> list[str]:
    """Everything that a reader of the SR must know beside the numbers, most important first."""
    normal = [reported.view for reported in report.analysed if reported.scores and reported.scores.predicted_class == wording.NORMAL_CLASS]
    lines = [
        f"{wording.BANNER} {wording.NOT_REVIEWED}",
        wording.meaningless(report.model),
        wording.views_analysed(len(report.analysed)),
        wording.version(report.version_number, replaces="sr" in report.predecessors),
        *coverage_notes(report),
        wording.nothing_excluded(normal) if normal else "",
        wording.UNCALIBRATED,
        *warning_notes(report),
        *(wording.passed_over(loser) for loser in report.losers),
    ]
    return [line for line in lines if line]


def coverage_notes(report: Report) -> list[str]:
    """PARTIAL or UNILATERAL, and every expected view without scores by name and reason."""
    missing = () if report.outcome is Outcome.UNILATERAL else report.missing
    notes = [
        wording.coverage(report.outcome, [reported.view for reported in report.views]),
        *(wording.failed_view(reported.view, reported.failure) for reported in report.failed),
        *(wording.missing_view(view) for view in missing),
    ]
    return [note for note in notes if note]


def warning_notes(report: Report) -> list[str]:
    """The study's and the views' warnings, each once."""
    implants = [
        wording.implant(reported.view) for reported in report.views if header.text(reported.header, "BreastImplantPresent") == "YES"
    ]
    of_views = [f"{reported.view}: {warning}" for reported in report.views for warning in reported.warnings]
    return list(dict.fromkeys((*report.warnings, *implants, *of_views)))
