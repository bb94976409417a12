"""A study's result cards, as values: one for each view in hanging order, and one for each image that was read on demand.

A card says what stands in the rows and nothing beside it: a view without a usable image, an image that waits, one that failed. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.wording import NORMAL_CLASS
from store.images import STANDING
from store.study import HANGING_ORDER

#: Class -> the tone of its colour in the pages' CSS; a class of another model has none.
TONES: Mapping[str, str] = {"Mass": "red", "Calcification": "orange", "Architectural/Asymmetry": "yellow", NORMAL_CLASS: "green"}


class CardState(StrEnum):
    """What there is to say of a view."""

    SCORED = "scored"
    FAILED = "failed"
    WAITING = "waiting"  # an image is here and not read yet
    EMPTY = "empty"  # no image fills the view


@dataclass(frozen=True, kw_only=True)
class Card:
    """One view, or one image. `score_id` names its pictures; None when there are none."""

    title: str  # "R-CC"; "" for an image that is shown by its `number`
    number: int = 0
    state: CardState
    sop_instance_uid: str = ""
    patient_id: str | None = None  # Patient ID as the image, or its newest reception, names it; None without an image
    predicted_class: str = ""
    probability: float = 0.0  # 0...1, the highest
    scores: tuple[tuple[str, float], ...] = ()  # class and score, in the model's order
    failure: str = ""
    engine: str = ""
    trained: bool = True
    score_id: int | None = None
    heat_map: bool = False
    newer: bool = False  # an image that the current version did not read would fill this view now
    warnings: tuple[str, ...] = ()
    losers: tuple[Mapping[str, Any], ...] = ()

    @property
    def tone(self) -> str:
        """The tone of its class."""
        return tone(self.predicted_class)

    @property
    def made_by(self) -> tuple[str, bool]:
        """The engine that gave its numbers, and whether the model was trained: what their meaning depends on."""
        return self.engine, self.trained

    @property
    def normal(self) -> bool:
        """Whether no class scored above Normal: that is said with the sentence that it excludes nothing."""
        return self.predicted_class == NORMAL_CLASS


def tone(predicted_class: str) -> str:
    """The tone of a class."""
    return TONES.get(predicted_class, "grey")


def cards_of_views(study: Mapping[str, Any]) -> list[Card]:
    """The cards of a study (as `Search.study` tells it) in hanging order; none when withdrawn, or when nothing of it was sent here."""
    run = study["runs"][-1] if study["runs"] else None
    if study["state"] == "withdrawn" or (run is not None and run["outcome"] == "WITHDRAWN") or only_on_demand(study):
        return []
    read = run["selection"] if run is not None else {}
    shown = [view for view in HANGING_ORDER if view in study["rule"]["slots"] or view in read or study["slots"][view] is not None]
    return [_card(view, study, run, read.get(view)) for view in shown]


def only_on_demand(study: Mapping[str, Any]) -> bool:
    """Whether nothing of a study was ever sent here."""
    images = study["images"]
    return bool(images) and all(image["disposition"] == "on demand" for image in images)


def cards_of_images(study: Mapping[str, Any]) -> list[Card]:
    """The cards of what was read on demand, in hanging order, then in order of arrival; what is no view is Image 1, Image 2 ..."""
    images = [image for image in study["images"] if image["disposition"] == "on demand"]
    order = {str(view): place for place, view in enumerate(HANGING_ORDER)}
    images.sort(key=lambda image: (order.get(image["view"] or "", len(order)), image["file"]))
    numbers = iter(range(1, len(images) + 1))
    found = []
    for image in images:
        title = image["view"] or ""
        found.append(_of_image(title, 0 if title else next(numbers), image, _newest(image)))
    return found


def others(study: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The images that neither fill a slot nor were read on demand."""
    return [image for image in study["images"] if image["disposition"] not in ("candidate", "failed", "on demand")]


def _card(view: str, study: Mapping[str, Any], run: Mapping[str, Any] | None, read: Mapping[str, Any] | None) -> Card:
    slot = study["slots"][view]
    candidates: Sequence[str] = slot["candidates"] if slot is not None else ()
    losers = tuple(slot["losers"]) if slot is not None else ()
    here = next((image for uid in candidates[:1] for image in _receptions(study, uid)), None)
    if run is None or read is None:
        if here is None:
            return Card(title=view, state=CardState.EMPTY)
        card = _of_image(view, 0, here, _newest(here), losers, _patient_id(study, here["sop_instance_uid"]))
        # Of a version that stands without this view, what its image scored afterwards is no part.
        return card if run is None else Card(title=view, state=CardState.EMPTY, newer=True)
    image = next((one for one in study["images"] if one["file"] == read["instance_id"]), None)
    score = next((one for one in image["scores"] if one["model_key"] == run["model_key"]), None) if image is not None else None
    newer = bool(candidates) and candidates[0] != read["sop_instance_uid"]
    common = {
        "title": view,
        "sop_instance_uid": read["sop_instance_uid"],
        "patient_id": _patient_id(study, read["sop_instance_uid"]),
        "newer": newer,
        "losers": () if newer else losers,
    }
    if read["scores"] is None:
        return Card(**common, state=CardState.FAILED, failure=read["failure"])
    numbers = tuple(zip(read["scores"]["classes"], read["scores"]["probabilities"], strict=True))
    best = max(numbers, key=lambda one: one[1])
    return Card(
        **common,
        state=CardState.SCORED,
        predicted_class=best[0],
        probability=best[1],
        scores=numbers,
        engine=run["model"]["engine"],
        trained=run["trained"],
        score_id=score["id"] if score is not None and score.get("preview") else None,
        heat_map=bool(score is not None and score.get("heat_map")),
        warnings=tuple(dict.fromkeys([*(image["warnings"] if image is not None else ()), *read["scores"]["warnings"]])),
    )


def _receptions(study: Mapping[str, Any], sop_instance_uid: str) -> Iterator[Mapping[str, Any]]:
    for image in study["images"]:
        if image["sop_instance_uid"] == sop_instance_uid and image["disposition"] in ("candidate", "failed"):
            yield image


def _patient_id(study: Mapping[str, Any], sop_instance_uid: str) -> str | None:
    """Whose an image is by its newest reception, which is what results carry unless a person said otherwise."""
    here = [one for one in study["images"] if one["sop_instance_uid"] == sop_instance_uid and one["disposition"] in STANDING]
    return here[-1]["patient_id"] if here else None


def _newest(image: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was last asked of an image; what is only compared in the background does not count."""
    asked = [score for score in image["scores"] if not score["background"]]
    return asked[-1] if asked else None


def _of_image(
    title: str,
    number: int,
    image: Mapping[str, Any],
    score: Mapping[str, Any] | None,
    losers: tuple[Mapping[str, Any], ...] = (),
    patient_id: str | None = None,
) -> Card:
    common = {
        "title": title,
        "number": number,
        "sop_instance_uid": image["sop_instance_uid"],
        "patient_id": image["patient_id"] if patient_id is None else patient_id,
        "losers": losers,
    }
    if score is None or score["state"] == "waiting":
        return Card(**common, state=CardState.WAITING, warnings=tuple(image["warnings"]))
    if score["state"] == "failed":
        return Card(**common, state=CardState.FAILED, failure=score["error"])
    return Card(
        **common,
        state=CardState.SCORED,
        predicted_class=score["predicted_class"],
        probability=score["probability"],
        scores=tuple(score["all_probabilities"].items()),
        engine=score["engine"],
        trained=score["trained"],
        score_id=score["id"] if score["preview"] else None,
        heat_map=score["heat_map"],
        warnings=tuple(dict.fromkeys([*image["warnings"], *score["warnings"]])),
    )
