"""A study in the words of a PACS administrator: slots, who fills them and why, what is awaited until when, why it is held or ignored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from store.pace import Standing
from store.queue import MOST


def printable(text: str) -> str:
    """`text` with everything but its newlines that could steer a terminal written as an escape: DICOM text comes from strangers."""
    return "".join(one if one == "\n" or one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


#: The controls of C0 and C1 but for tab and newline (U+009B begins a sequence as ESC [ does), and what turns the direction of text.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """`text` for a page: what could steer a terminal or turn what stands beside it is written as an escape, all else stays."""
    return STEERING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def json_value(value: object) -> str:
    """What JSON has no form for: times in ISO 8601, everything else as its text."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def in_words(study: Mapping[str, Any], zone: ZoneInfo) -> str:
    """The text of `fourview show`; `study` is what `Search.study` returns. Times are in `zone`."""
    return "\n".join(printable(line).replace("\n", "\\n") for line in _lines(study, zone)) + "\n"


def _when(moment: datetime | None, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S") if moment is not None else "-"


def _lines(study: Mapping[str, Any], zone: ZoneInfo) -> Iterator[str]:
    yield f"Study {study['study_instance_uid']}"
    until = f", until {_when(study['due_at'], zone)}" if study["state"] == "collecting" and study["due_at"] else ""
    yield f"State {study['state']}: {study['state_reason']}{until}"
    yield f"Received {_when(study['first_instance_at'], zone)} to {_when(study['last_instance_at'], zone)}, revision {study['revision']}"
    yield f"Rule {study['rule']['reason'] or '- (not decided yet)'}"
    yield f"Expected views {', '.join(study['rule']['slots'])}"
    if study["rule"]["forward_to"]:
        yield f"Images are forwarded to {', '.join(study['rule']['forward_to'])}"
    if said := pace_in_words(study["pace"]):
        yield f"Pace {said}"
    if study["queue"]:
        yield f"Queue {place_in_words(study['queue'])}"
    yield from _paused(study, zone)
    yield from _held(study)
    yield from _hints(study)
    yield ""
    yield from _slots(study)
    yield from _others(study["images"])
    for run in study["runs"]:
        yield from _version(run, zone)
    if study["deliveries"]:
        yield "Deliveries"
        for one in study["deliveries"]:
            said = f": {one['reason']}" if one["reason"] else ""
            again = f" (again {_when(one['due_at'], zone)})" if one["state"] == "waiting" and one["tries"] else ""
            yield f"  {one['destination']:<12} {one['kind']:<8} {one['state']:<10} {one['sop_instance_uid']}{said}{again}"
        yield ""
    yield "Timeline"
    for line in study["timeline"]:
        yield f"  {_when(line['at'], zone)}  {line['text']}"


def pace_in_words(pace: Mapping[str, Any]) -> str:
    """How a study stands to its sender's pace; "" when there is nothing to say."""
    title = pace["calling_ae_title"]
    return {
        Standing.ABOVE: f"above that of {title}: its images are read, and its results sent, after all others",
        Standing.WITHIN: f"within that of {title}",
        Standing.ASKED: f"not that of {title}: a person asked for it",
    }.get(pace["standing"], "")


def place_in_words(queue: Mapping[str, Any]) -> str:
    """Where a study stands among the images that wait to be read."""
    at = "a person waits for it" if queue["priority"] == 0 else f"priority {queue['priority']}"
    behind = ", above the pace of its sender" if queue["behind"] else ""
    if queue["begun"]:
        return f"is being read: {at}{behind}"
    before = f"{queue['before']} images" if queue["before"] is not None else f"more than {MOST} images"
    return f"waits to be read: {before} before it, {at}{behind}"


#: State -> what keeps a study in it that a person has paused.
_STOPPED = {"analysing": "analysing", "collecting": "analysing", "analysed": "sending", "withdrawn": "sending"}


def _paused(study: Mapping[str, Any], zone: ZoneInfo) -> Iterator[str]:
    waits = {"analysing": True, "sending": any(one["state"] == "waiting" for one in study["deliveries"])}
    for one in study["paused"]:
        if _STOPPED.get(study["state"]) == one["what"] and waits[one["what"]]:
            yield f"  {pause_in_words(one, zone)}: fourview resume {one['what']}"


def pause_in_words(pause: Mapping[str, Any], zone: ZoneInfo) -> str:
    """What is paused, since when, by whom and why."""
    why = f" ({pause['why']})" if pause["why"] else ""
    return f"{pause['what']} is paused since {_when(pause['at'], zone)} by {pause['person']}{why}"


def _held(study: Mapping[str, Any]) -> Iterator[str]:
    """Why it waits for a person, and what that person can do."""
    uid = study["study_instance_uid"]
    for doubt in study["doubts"]:
        yield f"  Held because {doubt['reason']}; settle it with one of"
        for choice in doubt["choices"]:
            yield f"    fourview release {uid} {choice}"
    if study["state"] == "held" and not study["doubts"]:
        yield f"  Look at it, then let it go on as it stands: fourview release {uid}"
    if study["state"] == "incomplete":
        yield f"  The missing views may still come; to send what is here as PARTIAL: fourview release {uid}"
    if study["state"] == "withdrawn":
        yield f"  It is read again only when a person asks: fourview reprocess {uid}"
    if study["images"] and all(image["disposition"] == "on demand" for image in study["images"]):
        yield f"  It becomes an exam like any other when it is sent, or by fourview reprocess --from-orthanc {uid}"
    patients = {image["patient_id"] for image in study["images"] if image["disposition"] in ("candidate", "copy", "doubt", "failed")}
    if study["state"] == "held" and len(patients) > 1:
        for image in study["images"]:
            yield f"    image {image['sop_instance_uid']} names patient {image['patient_id'] or '(none)'}"


def _hints(study: Mapping[str, Any]) -> Iterator[str]:
    for other in study["same_patient"]:
        yield f"Same patient has another study that day: {other} (studies are not merged)"
    for other in study["same_images"]:
        yield f"Image {other['sop_instance_uid']} came in another study too: {other['study_instance_uid']}"


def _slots(study: Mapping[str, Any]) -> Iterator[str]:
    yield "Slots"
    images = {image["sop_instance_uid"]: image for image in study["images"] if image["disposition"] in ("candidate", "failed")}
    for view, slot in study["slots"].items():
        if slot is None:
            yield f"  {view:<6} empty"
            continue
        uid = slot["sop_instance_uid"] or slot["candidates"][0]
        image = images.get(uid)
        source = f" (side from {image['laterality_source']}, view from {image['view_source']})" if image else ""
        yield f"  {view:<6} {uid}{source}{_scored(image)}"
        for warning in image["warnings"] if image else ():
            yield f"         warning: {warning}"
        for loser in slot["losers"]:
            yield f"         chosen before {loser['sop_instance_uid']}: {loser['reason']} (rule {loser['rule']} of ten)"
    yield ""


def _scored(image: Mapping[str, Any] | None) -> str:
    read = [score for score in image["scores"] if not score["background"]] if image is not None else []
    if not read:
        return ""
    score = read[-1]
    if score["state"] == "scored":
        return f"  {score['predicted_class']} {score['probability']:.1%}"
    return f"  {score['state']}" + (f": {score['error']}" if score["error"] else "")


def _others(images: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    others = [image for image in images if image["disposition"] not in ("candidate", "failed")]
    if not others:
        return
    yield "Not in a slot"
    for image in others:
        what = image["view"] or image["modality"] or "?"
        file = f" (file {image['file']})" if image["disposition"] in ("copy", "doubt", "excluded") else ""
        scored = _scored(image) if image["disposition"] == "on demand" else ""
        yield f"  {what:<6} {image['sop_instance_uid']}{file}{scored}  {image['disposition']}: {image['disposition_reason']}"
    yield ""


def _version(run: Mapping[str, Any], zone: ZoneInfo) -> Iterator[str]:
    model = run["model"]
    untrained = "" if run["trained"] else ", UNTRAINED: the numbers are meaningless"
    by = f"model {model['name']} {model['version']}{untrained}"
    yield f"Version {run['number']} of {_when(run['created_at'], zone)}: {run['outcome']}, {by}"
    for view, read in run["selection"].items() if run["outcome"] != "WITHDRAWN" else ():
        if read["scores"] is None:
            yield f"  {view:<6} could not be read: {read['failure']}"
            continue
        numbers = zip(read["scores"]["classes"], read["scores"]["probabilities"], strict=True)
        yield f"  {view:<6} " + "  ".join(f"{name} {probability:.1%}" for name, probability in numbers)
    for loser in run["losers"]:
        why = f"the chosen image ranks higher, {loser['reason']} (rule {loser['rule']})"
        yield f"  {loser['view']:<6} not {loser['sop_instance_uid']}: {why}"
    for warning in run["warnings"]:
        yield f"  warning: {warning}"
    for one in run["objects"]:
        yield f"  {one['kind']:<4} {one['sop_instance_uid']}"
    yield ""
