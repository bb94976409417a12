"""Every sentence that a result object says, in one place, so that they can be read and agreed on together.

A result states what an algorithm computed and never what a patient has: the class is "highest-scoring", an uncalibrated number is a
"score", there is no verdict on a breast or a study.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from store.study import Loser, ModelIdentity, Outcome, View

BANNER = "AI output for research use only. NOT FOR DIAGNOSTIC USE."
NOT_REVIEWED = "Not reviewed by a physician."
REDUCED_IMAGE = "Reduced image - do not read from this page"
HIGHEST_CLASS_LABEL = "AI highest-scoring class"
UNCALIBRATED = "Scores are uncalibrated softmax outputs, not probabilities of disease."
NOTHING_EXCLUDED = "No class scored above Normal in this image. This does not exclude cancer."
NO_IMAGE = "No image"
NO_PICTURE = "No picture"
NOT_ANALYSED = "Not analysed"
UID_ENDS_IN = "Image UID ends in"
DERIVATION = "Reduced views with the scores of an AI classifier beside them"
WITHDRAWN = "WITHDRAWN"
WITHDRAWAL = "WITHDRAWN: the earlier result of this study must not be used. This version replaces it and says nothing about the images."
WITHDRAWAL_IN_SHORT = "WITHDRAWN: the earlier result must not be used"
NOTICE_OF_WITHDRAWAL = "Notice that the earlier result of this study is withdrawn; drawn from no image"

NORMAL_CLASS = "Normal"
SIDES = {"L": "left", "R": "right"}


def series_description(model: ModelIdentity) -> str:
    """Series Description (0008,103E), the only text that a PACS list shows; at most 64 characters."""
    if model.engine == "simulated":
        return "SIMULATED AI result - NOT FOR DIAGNOSTIC USE"
    return "AI result - NOT FOR DIAGNOSTIC USE" if model.trained else "UNTRAINED AI result - NOT FOR DIAGNOSTIC USE"


def meaningless(model: ModelIdentity) -> str:
    """The warning over numbers that mean nothing; "" when the model is a trained one."""
    if model.engine == "simulated":
        return "MEANINGLESS NUMBERS - SIMULATED MODEL"
    return "" if model.trained else "MEANINGLESS NUMBERS - UNTRAINED MODEL"


def _qualified(class_name: str) -> str:
    """A class that scored highest; Normal never without saying what is meant by it."""
    return "Normal (no other class scored higher)" if class_name == NORMAL_CLASS else class_name


def highest_class(class_name: str) -> str:
    """The Finding of a view in words."""
    return f"AI highest-scoring class: {_qualified(class_name)}"


def score_of(class_name: str) -> str:
    """What the number of one class is called."""
    return f"AI score, uncalibrated: {class_name}"


def score(probability: float) -> str:
    """The highest score of a view, as the page shows it."""
    return f"score {100 * probability:.1f} %"


def class_of(class_name: str) -> str:
    """What an output of the classifier is called."""
    return f"AI classifier output: {class_name}"


def _one_side(slots: Sequence[View]) -> str:
    """The side that `slots` are all of, in words; "" when they are of both."""
    sides = {view.laterality for view in slots}
    return SIDES[sides.pop()] if len(sides) == 1 else ""


def views_analysed(count: int, slots: Sequence[View]) -> str:
    """How many of the views that the result is about have scores."""
    side = _one_side(slots)
    return f"{count} of {len(slots)} views{f' of the {side} breast' if side else ''} analysed"


def coverage(outcome: Outcome, slots: Sequence[View]) -> str:
    """What PARTIAL or UNILATERAL means for this study, whose result is about `slots`; "" when complete."""
    side = _one_side(slots)
    if outcome is Outcome.PARTIAL:
        return f"PARTIAL: this result does not cover {f'both views of the {side} breast' if side else 'all four views'}."
    if outcome is Outcome.UNILATERAL:
        other = next(word for word in SIDES.values() if word != side)
        return f"UNILATERAL: this result covers the {side} breast only; nothing is said about the {other}."
    return ""


def missing_view(view: View) -> str:
    return f"{view}: no image."


def failed_view(view: View, failure: str) -> str:
    return f"{view}: not analysed: {failure}"


def implant(view: View) -> str:
    return f"{view}: breast implant present"


def assigned_by_operator(view: View, *, side: bool, position: bool) -> str:
    """That a person and not the image's header told the side (`side`), the projection (`position`), or both."""
    what = " and ".join(word for word, assigned in (("side", side), ("view", position)) if assigned)
    return f"{view}: {what} assigned by an operator"


def by_rule(loser: Loser) -> str:
    """What decided against `loser`: the rule in words, true of the image that was used, and its number."""
    return f"{loser.reason} (rule {loser.rule})"


def passed_over(loser: Loser) -> str:
    """Which image stands for a view, by which rule, and which one does not."""
    return f"{loser.view}: image {loser.winner_sop_instance_uid} was used because {by_rule(loser)}; not used: {loser.sop_instance_uid}"


def scored_otherwise(view: View, class_name: str, uid: str) -> str:
    """A passed-over image that contradicts the one that was used: it may show what the other does not. `uid` may be its end only."""
    return f"Another {view} of this study scored highest for {_qualified(class_name)}; see image {uid}."


def several_exposures(view: View, losers: Iterable[Loser]) -> str:
    """Which rules chose among exposures of one view that are equal by everything that says how good they are."""
    reasons = dict.fromkeys(by_rule(loser) for loser in losers)
    return f"{view}: several exposures of this view; one was used because {' and '.join(reasons)}"


def more_notes(count: int) -> str:
    """How many notes the page has no room for."""
    return f"{count} more in the structured report of this version"


def nothing_excluded(views: Iterable[View]) -> str:
    """Which images `NOTHING_EXCLUDED` is said of."""
    return f"{', '.join(views)}: {NOTHING_EXCLUDED}"


def version(number: int, *, replaces: bool) -> str:
    """Which version this is, and which one it makes obsolete."""
    return f"Version {number}, replaces version {number - 1}" if replaces else f"Version {number}"


def dates(study_date: str, made: datetime, timezone: str) -> str:
    """When the study was made (`study_date` as DA, "" when unknown) and when this result was."""
    study = f"Study {study_date[:4]}-{study_date[4:6]}-{study_date[6:]}, result" if study_date else "Result"
    return f"{study} {made:%Y-%m-%d %H:%M} {timezone}"


def model(identity: ModelIdentity) -> str:
    """The model in one line: name, version, weights, profile."""
    weights = f", weights {identity.weights_sha256[:12]}" if identity.weights_sha256 else ""
    return f"{identity.name} {identity.version}{weights}, profile {identity.profile}, engine {identity.engine}"
