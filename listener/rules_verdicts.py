"""What each rule says of a study or of an example, in their order: as values, and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline import rules

#: What a rule's truth is called.
TRUTHS: Mapping[bool | None, str] = {True: "true", False: "false", None: "unknown"}


def verdicts(asked: Sequence[rules.Rule], facts: Mapping[str, object], decision: rules.Decision) -> list[dict[str, Any]]:
    """What each rule says of these facts, in their order. `reached`: no rule before it was true."""
    told, reached = [], True
    for rule in asked:
        verdict = rules.ask(rule, facts)
        told.append(
            {
                "name": rule.name,
                "when": rule.when,
                "action": str(rule.action),
                "truth": TRUTHS[verdict.truth],
                "reached": reached,
                "decides": rule.name == decision.rule_name,
                "failing": verdict.failing,
                "saw": verdict.words,
                "values": verdict.values,
            }
        )
        reached = reached and not verdict.truth
    return told


def rule_lines(asked: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each rule, in order."""
    for number, rule in enumerate(asked, start=1):
        needs = f"needs {rule['failing']}" if rule["failing"] else ""
        saw = f"{'but ' if needs else ''}{rule['saw']}" if rule["saw"] else ""
        late = "(not reached)" if not rule["reached"] else ""
        yield "  ".join(part for part in (f"{number:>3} {rule['truth']:<8}{rule['name']!r}", needs, saw, late) if part)
