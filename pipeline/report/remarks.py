"""Which of the fixed sentences stand on a report, and in which order. The SR and the page say the same."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.report import header
from pipeline.report.values import Report
from pipeline.wording import ENGLISH, NORMAL_CLASS
from store.study import OPERATOR

#: The first rule of `store.study.elect` that chooses among exposures which are equal by everything that says how good they are.
FIRST_RULE_AMONG_EQUALS = 7


def remarks(report: Report) -> list[str]:
    """Everything that a reader of the SR must know beside the numbers, most important first."""
    words = report.words
    not_for_diagnosis = f"{words.banner} {words.not_reviewed}"
    version = version_line(report, "sr")
    if report.withdrawn:
        return [words.withdrawal, *withdrawal_notes(report), not_for_diagnosis, version]
    normal = [reported.view for reported in report.analysed if reported.scores and reported.scores.predicted_class == NORMAL_CLASS]
    lines = [
        not_for_diagnosis,
        words.meaningless(report.model),
        words.views_analysed(len(report.analysed), report.slots),
        version,
        *weighty_notes(report),
        words.nothing_excluded_in(normal) if normal else "",
        words.uncalibrated,
        *further_notes(report),
        *(words.passed_over(loser) for loser in report.losers),
    ]
    return [line for line in lines if line]


def version_line(report: Report, kind: str) -> str:
    """Which version this is, and which object of the same kind ("sr", "page") it makes obsolete."""
    return report.words.version(
        report.version_number,
        replaces=kind in report.predecessors,
        made=report.local_time,
        replaces_at=None if report.replaces_at is None else report.local(report.replaces_at),
    )


def withdrawal_notes(report: Report) -> list[str]:
    """Why a result was withdrawn, each reason once. Nothing else that was known of its images is said any more."""
    return list(dict.fromkeys(report.warnings))


def weighty_notes(report: Report) -> list[str]:
    """What limits or contradicts this result: PARTIAL or UNILATERAL, images that scored otherwise, views without scores."""
    reported = {one.view for one in report.views}
    notes = [
        report.words.coverage(report.outcome, report.slots),
        *_scored_otherwise(report),
        *(report.words.failed_view(one.view, one.failure) for one in report.failed),
        *(report.words.missing_view(view) for view in report.slots if view not in reported),
        *_assigned_by_operator(report),
    ]
    return [note for note in notes if note]


def further_notes(report: Report) -> list[str]:
    """The study's and the views' warnings, each once, and where several exposures of a view were to choose from."""
    implants = [one.view for one in report.views if header.text(one.header, "BreastImplantPresent") == "YES"]
    of_views = [f"{reported.view}: {warning}" for reported in report.views for warning in reported.warnings]
    # The store warns of an implant in the same English sentence: one of the two is enough.
    said_elsewhere = {ENGLISH.implant(view) for view in implants}
    warnings = [warning for warning in (*report.warnings, *of_views) if warning not in said_elsewhere]
    return list(dict.fromkeys((*map(report.words.implant, implants), *warnings, *_several_exposures(report))))


def _scored_otherwise(report: Report) -> list[str]:
    """A discarded retake, or one half of a breast too large for one exposure, may show what the image that was used does not."""
    used_for = {one.view: one.scores.predicted_class for one in report.views if one.scores}
    uids = {loser.sop_instance_uid for loser in report.losers} | {header.uid_of(image, "SOPInstanceUID") for image in report.headers}
    return [
        report.words.scored_otherwise(loser.view, loser.predicted_class, _end_of(loser.sop_instance_uid, uids))
        for loser in report.losers
        if loser.predicted_class and loser.predicted_class != used_for.get(loser.view)
    ]


def _end_of(uid: str, uids: Collection[str]) -> str:
    """The last characters of `uid`, at least four, that tell it from every other one of `uids`; all of it when no end does."""
    others = [other for other in uids if other != uid]
    for length in range(4, len(uid)):
        end = uid[-length:]
        if not end.startswith(".") and not any(other.endswith(end) for other in others):
            return f"...{end}"
    return uid


def _assigned_by_operator(report: Report) -> list[str]:
    sources = [(one.view, one.evidence.laterality_source == OPERATOR, one.evidence.view_source == OPERATOR) for one in report.views]
    return [report.words.assigned_by_operator(view, side=side, position=position) for view, side, position in sources if side or position]


def _several_exposures(report: Report) -> list[str]:
    among_equals = [loser for loser in report.losers if loser.rule >= FIRST_RULE_AMONG_EQUALS]
    return [
        report.words.several_exposures(view, [loser for loser in among_equals if loser.view is view])
        for view in report.slots
        if any(loser.view is view for loser in among_equals)
    ]
