"""Why the rules say what they say of a study: each rule in order with the values that it saw, what comes of it, and what was decided then.

One explanation for every door: `fourview rules explain`, the JSON API and a study's page show what `of_study` gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from listener.config import Config
from listener.rules_verdicts import rule_lines, verdicts
from listener.show import printable
from pipeline import rule_facts, rules
from pipeline.model_card import ModelError
from store.replay import KeptRuling, Replayed
from store.seen import Seen
from store.study import Policy

if TYPE_CHECKING:
    from listener.rules_files import StudyOfFiles

#: Which images a model takes is part of what rules see.
_NO_MODEL = "the card of a model cannot be read here; `fourview check` says why"


def of_study(config: Config, study: Replayed) -> dict[str, Any]:
    """The explanation of a study that is kept here. Days and hours are those of its coming: StudyAge is counted to the day of its last
    image, as it was when it was decided."""
    timezone = ZoneInfo(config.site.timezone)
    today = study.last_instance_at.astimezone(timezone).date()
    decided: list[tuple[dict[str, object], rules.Decision]] = []

    def decide(seen: Seen) -> rules.Decision:
        facts = rule_facts.of_study(seen, today=today, timezone=timezone)
        decided.append((facts, rules.decide(config.rules, facts)))
        return decided[-1][1]

    kept = _kept(config, study.kept)
    told = _empty(study.study_instance_uid, kept)
    try:
        if study.ruling(decide) is None:
            return told | {"problem": "no header of it is kept that could be looked at"}
    except ModelError:
        return told | {"problem": _NO_MODEL}
    facts, decision = decided[-1]
    told |= {
        "today": today.isoformat(),
        "rules": verdicts(config.rules, facts, decision),
        "outcome": outcome(config, decision),
    }
    return told | _compared(kept, told["outcome"], study.sent_to)


def of_files(config: Config, study: StudyOfFiles, policy: Policy, now: datetime) -> dict[str, Any]:
    """The explanation of files, as if they were received now."""
    told = of_study(config, study.replayed(policy, now)) | {"left_out": study.left_out, "compared": ""}
    return told if study.images else told | {"problem": "no file of it would be kept"}


def without_model(study_instance_uid: str) -> dict[str, Any]:
    """What is told where the site's model card cannot be read."""
    return _empty(study_instance_uid, None) | {"problem": _NO_MODEL}


def _empty(study_instance_uid: str, kept: dict[str, Any] | None) -> dict[str, Any]:
    nothing: dict[str, Any] = {"problem": "", "left_out": [], "today": None, "rules": [], "outcome": None, "same": None, "compared": ""}
    return {"study_instance_uid": study_instance_uid, "kept": kept, **nothing}


def outcome(config: Config, decision: rules.Decision) -> dict[str, Any]:
    """What becomes of a study under a decision, with what the rule leaves to the site filled in."""
    return _ruled(config, decision) | {"when_incomplete": str(decision.when_incomplete or config.study.when_incomplete)}


def _kept(config: Config, kept: KeptRuling) -> dict[str, Any] | None:
    if not kept.action:
        return None
    return _ruled(config, kept) | {"overruled": kept.overruled}


def _ruled(config: Config, ruling: rules.Decision | KeptRuling) -> dict[str, Any]:
    """What is told of a decision, of now or as it was kept."""
    return {
        "rule_name": ruling.rule_name,
        "rule_hash": ruling.rule_hash,
        "action": str(ruling.action),
        "reason": ruling.reason,
        "send_to": list(ruling.send_to),
        "forward_to": list(ruling.forward_to),
        "slots": [str(view) for view in ruling.slots],
        "model": ruling.card or str(config.model.card),
        "priority": ruling.priority,
    }


#: What is compared of an outcome, and what it is called.
_COMPARED: Mapping[str, str] = {
    "action": "action",
    "send_to": "destinations",
    "slots": "expected views",
    "when_incomplete": "when incomplete",
    "model": "model",
    "priority": "priority",
    "forward_to": "images forwarded to",
}


def _compared(kept: Mapping[str, Any] | None, now: Mapping[str, Any], sent_to: Sequence[str]) -> dict[str, Any]:
    """Whether the rules of now say what was decided, and in words where not; `sent_to`: where a person sent it, which no rule said."""
    if kept is None:
        return {"same": None, "compared": "nothing was decided of it yet"}
    same_text = kept["rule_hash"] == now["rule_hash"]
    if kept["overruled"]:
        words = "a person overruled the rule, " + ("which stands as it was" if same_text else f"and today it is {_by(now['rule_name'])}")
        return {"same": same_text, "compared": words}
    before, after = (one | {"send_to": [name for name in one["send_to"] if name not in sent_to]} for one in (dict(kept), dict(now)))
    changes = differences(before, after)
    if not changes:
        words = (
            "today's rules say the same" if same_text else f"today's rules say the same, by {_by(now['rule_name'])} as it is written now"
        )
        return {"same": True, "compared": words}
    return {"same": False, "compared": f"today's rules say otherwise: {'; '.join(changes)}, by {_by(now['rule_name'])}"}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """In what two outcomes differ, as far as it matters to the study: of what is ignored only that, and where its images go."""
    compared = [name for name in _COMPARED if name in before]
    if "ignore" in (before["action"], after["action"]):
        compared = ["action", "forward_to"]
    return [f"{_COMPARED[name]} {_shown(before[name])} -> {_shown(after[name])}" for name in compared if before[name] != after[name]]


def _by(rule_name: str) -> str:
    return f"rule {rule_name!r}" if rule_name else "no rule"


def _shown(value: object) -> str:
    return ", ".join(value) or "(none)" if isinstance(value, list) else str(value)


# ------------------------------------------------------------------------------------------------------------------- in words


def in_words(told: Mapping[str, Any]) -> str:
    """The text of `fourview rules explain`."""
    return "\n".join(printable(line).replace("\n", "\\n") for line in _lines(told)) + "\n"


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"Study {told['study_instance_uid'] or '(no UID)'}"
    yield from (f"  left out: {one}" for one in told["left_out"])
    if told["problem"]:
        yield f"The rules cannot be asked: {told['problem']}"
    yield from rule_lines(told["rules"])
    if (now := told["outcome"]) is not None:
        yield f"Outcome: {now['action']} by {_by(now['rule_name'])}: {now['reason']}"
        if now["forward_to"]:
            yield f"  images forwarded to {_shown(now['forward_to'])}"
        if now["action"] != "ignore":
            yield f"  results to {_shown(now['send_to'])}; priority {now['priority']}; model {now['model']}"
            yield f"  expected views {_shown(now['slots'])}; if some never come: {now['when_incomplete']}"
    if (kept := told["kept"]) is not None:
        yield f"Decided when it came: {kept['action']} by {_by(kept['rule_name'])}: {kept['reason']}"
    if told["compared"]:
        yield f"Now: {told['compared']}"
