"""What a report of ours says, read from the object as any other program would (PS3.16 TID 1500)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset

from store.study import HANGING_ORDER

MEASUREMENT_GROUP = "125007"  # DCM, PS3.16 TID 1410
TRACKING_IDENTIFIER = "112039"
CERTAINTY_OF_FINDING = "111012"
EQUIVALENT_MEANING = "121050"


@dataclass(frozen=True)
class ViewScores:
    """What one Measurement Group of the report says: the view ("L-CC"), and class to score in percent, highest first."""

    view: str
    percent: Mapping[str, float]


def scores_of(report: Dataset) -> list[ViewScores]:
    """The scores of a Comprehensive SR, in hanging order."""
    views = []
    for group in _items(report, MEASUREMENT_GROUP):
        view = next(str(item.TextValue) for item in group.ContentSequence if _concept(item) == TRACKING_IDENTIFIER)
        percent = {}
        for item in group.ContentSequence:
            if _concept(item) == CERTAINTY_OF_FINDING:
                name = next(str(part.TextValue) for part in item.ContentSequence if _concept(part) == EQUIVALENT_MEANING)
                percent[name.rpartition(": ")[2]] = float(item.MeasuredValueSequence[0].NumericValue)
        views.append(ViewScores(view, dict(sorted(percent.items(), key=lambda pair: -pair[1]))))
    order = {view.value: number for number, view in enumerate(HANGING_ORDER)}
    return sorted(views, key=lambda scores: order.get(scores.view, len(order)))


def _items(item: Dataset, concept: str) -> Iterator[Dataset]:
    """The content items below `item` whose concept name is `concept`, depth first."""
    for child in item.get("ContentSequence", ()):
        if _concept(child) == concept:
            yield child
        else:
            yield from _items(child, concept)


def _concept(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""
