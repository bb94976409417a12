"""Which breast an image shows: the side by structure, by text, by orientation, and what speaks against it.

PS3.3 C.8.11.7.1.1 (Image Laterality), C.7.6.16.2.8 (Frame Anatomy), C.10.5 (anatomic region and its modifier) and C.7.6.1.1.1 (Patient
Orientation). Two structural sources that disagree are a doubt, never a guess: a wrong side is the worst error of all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from store.header_text import Attributes
from store.study import OPERATOR, ViewEvidence
from store.view_codes import SIDE_BY_CODE, SLOT_VIEWS
from store.view_text import NamedView


@dataclass(frozen=True, kw_only=True)
class Side:
    """The answer to "which breast". At most one of `both` and `doubt` is set; then the image fills no slot."""

    side: str | None = None
    source: str = ""
    conflicts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    both: str = ""  # what says that the image shows both breasts
    doubt: str = ""
    unknown: str = ""  # why no weaker source may tell it either


_BOTH = {"B": "B", "BILATERAL": "B"}


def _statements(header: Attributes) -> tuple[list[tuple[str, str]], list[str]]:
    """((side, attribute) from each structural source, strongest first; what was stated but is no side). "B" is both breasts."""
    found: list[tuple[str, str]] = []
    strange: list[str] = []

    def take(values: Sequence[str], keyword: str) -> None:
        for value in values:
            if value in ("L", "R") or value in _BOTH:
                found.append((_BOTH.get(value, value), keyword))
            elif value:
                strange.append(f"{keyword} is {value}, which is no side")

    take(header.values("ImageLaterality"), "ImageLaterality")
    if "ImageLaterality" in header.damaged:
        strange.append("ImageLaterality could not be read")
    anatomies = [
        anatomy
        for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        for group in header.items(keyword)
        for anatomy in group.items("FrameAnatomySequence")
    ]
    take(sorted({value for anatomy in anatomies for value in anatomy.values("FrameLaterality")}), "FrameLaterality")
    if not header.values("ImageLaterality") and "ImageLaterality" not in header.damaged:
        # Of the whole series, and defined for one side only: anything else in it says nothing of this image.
        take([value for value in header.values("Laterality") if value in ("L", "R")], "Laterality")
    for place in (header, *anatomies):
        for region in place.items("AnatomicRegionSequence"):
            for item in (region, *region.items("AnatomicRegionModifierSequence")):
                if side := SIDE_BY_CODE.get(item.code()):
                    found.append((side, "AnatomicRegionSequence"))
    return list(dict.fromkeys(found)), list(dict.fromkeys(strange))


def _joined(values: Sequence[str]) -> str:
    return "\\".join(values)


def _contradiction(told: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{source} says {side}" for side, source in told)


def _doubtful(told: Sequence[tuple[str, str]], warnings: Sequence[str] = ()) -> Side:
    side, source = told[0]
    agrees_with_itself = {other for other, other_source in told if other_source == source} == {side}
    words = _contradiction(told)
    return Side(
        side=side if agrees_with_itself else None,
        source=source if agrees_with_itself else "",
        conflicts=(f"laterality: {words}",),
        warnings=tuple(warnings),
        doubt=f"its side is contradictory: {words}",
    )


def side_of(header: Attributes, label: str | None, orientation: Sequence[str], texts: Sequence[NamedView]) -> Side:
    """The side by structure, else by text, else for a CC by Patient Orientation (0020,0020). `texts` may be empty when not needed."""
    found, strange = _statements(header)
    by_orientation = _side_by_orientation(orientation, label)
    if found:
        side, source = found[0]
        strongest = {other for other, other_source in found if other_source == source}
        if strongest == {"B"}:
            return Side(both=f"{source} is {_joined(header.values(source)) or 'B'}")
        warnings = [*strange]
        series = header.text("Laterality")
        if source == "ImageLaterality" and series in ("L", "R") and series != side:
            warnings.append(f"Laterality of the series says {series}, ImageLaterality says {side}")
        if len({other for other, _ in found}) > 1:
            return _doubtful(found, warnings)
        if by_orientation and by_orientation != side:
            warnings.append(f"PatientOrientation {_joined(orientation)} does not fit side {side}")
        return Side(side=side, source=source, warnings=tuple(warnings))
    if strange:  # what an attribute states without being understood is not to be overridden by weaker ones
        return Side(unknown=f"its side is unknown: {', '.join(strange)}", warnings=tuple(strange))
    told = [(text.side, f"text of {text.keyword}") for text in texts if text.side and text.label == label]
    if told:
        side, source = told[0]
        # Stronger than text, so it may not be left aside; and not strong enough to correct it.
        against = [*told, *([(by_orientation, "PatientOrientation")] if by_orientation else [])]
        warning = f"side {side} was read from the {source}"
        if len({other for other, _ in against}) > 1:
            return _doubtful(against, [warning])
        return Side(side=side, source=source, warnings=(warning,))
    if label == "CC" and by_orientation:
        return Side(
            side=by_orientation, source="PatientOrientation", warnings=(f"side {by_orientation} was inferred from PatientOrientation",)
        )
    return Side()


_DIRECTIONS = re.compile(r"[AP]?[LR]?[HF]?|[AP]?[HF]?[LR]?|[LR][AP]?[HF]?|[LR][HF]?[AP]?|[HF][AP]?[LR]?|[HF][LR]?[AP]?")


def orientation_of(header: Attributes) -> tuple[str, ...]:
    """Row and column of Patient Orientation; () unless both are directions of a person (PS3.3 C.7.6.1.1.1)."""
    found = header.values("PatientOrientation")
    return found if len(found) == 2 and all(value and _DIRECTIONS.fullmatch(value) for value in found) else ()


def _side_by_orientation(orientation: Sequence[str], label: str | None) -> str:
    """The side that Patient Orientation implies for a CC or MLO, "" when none.

    The columns of a mammogram as it is hung run away from the breast's own side: L CC is A\\R, R MLO is P\\FL. Columns that run towards
    the head are of an image hung upside down; those tell nothing here.
    """
    if len(orientation) != 2 or label not in SLOT_VIEWS or "H" in orientation[1]:
        return ""
    towards = {"L", "R"}.intersection(orientation[1])
    return {"L": "R", "R": "L"}[towards.pop()] if towards else ""


_EDGE_BY_ROW = {"A": "left", "P": "right"}
_EDGE_BY_SIDE = {"L": "left", "R": "right"}


def contradicted_by(evidence: ViewEvidence, breast_edge: str) -> tuple[str, ...]:
    """What speaks against the stated side: "PatientOrientation", "pixels", both or nothing, in this order.

    `breast_edge` is the image edge at which the breast lies in the pixels: "left", "right", or "" when that cannot be told; then the pixels
    say nothing. Nothing speaks against a side that is not stated, and nothing against a person.
    """
    side = evidence.laterality
    if side is None or evidence.laterality_source == OPERATOR:
        return ()
    implied = _side_by_orientation(evidence.orientation, evidence.view_position)
    expected = _EDGE_BY_SIDE[side]
    if implied == side:  # then the rows tell where the chest wall is, also when the image was flipped on purpose
        expected = next((edge for letter, edge in _EDGE_BY_ROW.items() if letter in evidence.orientation[0]), expected)
    return (
        *(("PatientOrientation",) if implied and implied != side else ()),
        *(("pixels",) if breast_edge and breast_edge != expected else ()),
    )
