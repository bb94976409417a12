"""The rows as a table: for the terminal, and as Markdown for the README."""

from __future__ import annotations

from collections.abc import Sequence

from goals import GoalKind
from measured import Row, Verdict

HEADINGS = ("what", "ours", "rival", "ratio", "goal", "verdict")


def text(rows: Sequence[Row]) -> str:
    """Aligned columns; a note stands below its row, or below the last of those that follow each other and share it."""
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    printed = [_aligned(HEADINGS, widths), "  ".join("-" * width for width in widths)]
    for place, (row, cells) in enumerate(zip(rows, lines[1:], strict=True), start=1):
        printed.append(_aligned(cells, widths))
        if row.note and [row.note] != [one.note for one in rows[place : place + 1]]:
            printed.append(f"    {row.note}")
    return "\n".join(printed)


def markdown(rows: Sequence[Row]) -> str:
    """The same as a table of Markdown, notes as a list below it."""
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *(_cells(row) for row in rows)]
    printed = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    noted: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            noted.setdefault(row.note, []).append(_named(row))
    notes = [f"* {'; '.join(named)}: {note}" for note, named in noted.items()]
    return "\n".join([*printed, *([""] if notes else []), *notes])


def summary(rows: Sequence[Row]) -> str:
    """How many rows have which verdict; those that are behind or not measured by name."""
    lines = []
    for verdict in Verdict:
        found = [_named(row) for row in rows if row.verdict is verdict]
        named = verdict in (Verdict.BEHIND, Verdict.NOT_MEASURED) and found
        lines.append(f"{verdict.value}: {len(found)}" + (f" ({'; '.join(found)})" if named else ""))
    return "\n".join(lines)


def _named(row: Row) -> str:
    return f"{row.what}, beside {row.declared.rival}" if row.declared.rival else row.what


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    declared = row.declared
    unit = f" {declared.unit}" if declared.unit else ""
    goals = ", ".join(goal.text(declared.unit) for goal in declared.goals)
    rival = f"{declared.rival}: {_spread(row, row.rival, unit)}" if row.rival else declared.rival
    return (row.what, _spread(row, row.ours, unit), rival, _ratio(row), goals, _verdict(row))


def _spread(row: Row, values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    figure = f"{number(row.declared.figure.of(values))}{unit}"
    return f"{figure} ({number(min(values))}-{number(max(values))})" if len(values) > 1 else figure


def _ratio(row: Row) -> str:
    if row.times is None:
        return ""
    if any(goal.kind is GoalKind.WITHIN for goal in row.declared.goals):
        return f"{row.ours_figure / row.rival_figure:.2f} of it" if row.rival_figure else ""
    pairs = row.pair_times
    return f"{row.times:.2f} times" + (f" ({pairs[0]:.2f}-{pairs[1]:.2f})" if pairs and len(row.ours) > 1 else "")


def _verdict(row: Row) -> str:
    if row.verdict is not Verdict.BEHIND or len(row.declared.goals) == 1:
        return row.verdict.value
    missed = [goal.text(row.declared.unit) for goal in row.declared.goals if not row.met(goal)]
    return f"{Verdict.BEHIND.value}: not {' and not '.join(missed)}"


def number(value: float) -> str:
    """Three digits that mean something."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2e}" if abs(value) < 0.001 else f"{value:.3g}"
