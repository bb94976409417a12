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
MORE_NOTES = "More notes stand in the structured report of this version."
DERIVATION = "Reduced views with the scores of an AI classifier beside them"

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


def highest_class(class_name: str) -> str:
    """The Finding of a view in words."""
    if class_name == NORMAL_CLASS:
        return "AI highest-scoring class: Normal (no other class scored higher)"
    return f"AI highest-scoring class: {class_name}"


def score_of(class_name: str) -> str:
    """What the number of one class is called."""
    return f"AI score, uncalibrated: {class_name}"


def score(probability: float) -> str:
    """The highest score of a view, as the page shows it."""
    return f"score {100 * probability:.1f} %"


def class_of(class_name: str) -> str:
    """What an output of the classifier is called."""
    return f"AI classifier output: {class_name}"


def views_analysed(count: int) -> str:
    """How many of the standard exam's four views have scores."""
    return f"{count} of 4 views analysed"


def coverage(outcome: Outcome, views: Sequence[View]) -> str:
    """What PARTIAL or UNILATERAL means for this study; "" when complete."""
    if outcome is Outcome.PARTIAL:
        return "PARTIAL: this result does not cover all four views."
    if outcome is Outcome.UNILATERAL:
        present = "".join(sorted({view.laterality for view in views}))
        absent = {"L": "R", "R": "L"}.get(present)
        if absent is not None:
            return f"UNILATERAL: only the {SIDES[present]} breast was imaged; nothing is said about the {SIDES[absent]}."
        return "UNILATERAL: only one breast was imaged; nothing is said about the other."
    return ""


def missing_view(view: View) -> str:
    return f"{view}: no image."


def failed_view(view: View, failure: str) -> str:
    return f"{view}: not analysed: {failure}"


def implant(view: View) -> str:
    return f"{view}: breast implant present."


def passed_over(loser: Loser) -> str:
    uids = f"{loser.sop_instance_uid}, used instead: {loser.winner_sop_instance_uid}"
    return f"{loser.view}: another image was not used ({loser.reason}): {uids}"


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
