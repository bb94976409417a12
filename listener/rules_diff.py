"""What other rules would have done: the studies of the last days replayed through the rules of now and through those of another file.

However many studies there are, it takes the memory of one batch of them: what changes goes to a file as it is found, counts alone are kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TextIO
from zoneinfo import ZoneInfo

from listener.config import Config
from listener.rules_explained import differences, outcome
from listener.show import printable
from pipeline import rule_facts, rules
from store.replay import Replayed
from store.seen import Seen


@dataclass
class Comparison:
    """What came of it; `changed` is a text file with a line for each study whose outcome changes: its UID and the number of its change."""

    changed: TextIO
    studies: int = 0
    gone: int = 0  # of which no header is kept
    changes: Counter[str] = field(default_factory=Counter)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, study_instance_uid: str, change: str) -> None:
        """A study whose outcome changes."""
        self.changes[change] += 1
        number = self.numbers.setdefault(change, len(self.numbers))
        self.changed.write(f"{study_instance_uid} {number}\n")

    def counted(self) -> list[tuple[str, int]]:
        """Each change with the number of its studies, the most frequent first."""
        return sorted(self.changes.items(), key=lambda one: (-one[1], one[0]))

    def listed(self) -> Iterator[tuple[str, str]]:
        """(Study Instance UID, change) in the order in which they were found."""
        names = {number: change for change, number in self.numbers.items()}
        self.changed.seek(0)
        for line in self.changed:
            uid, _, number = line.rstrip("\n").partition(" ")
            yield uid, names[int(number)]


def compare(config: Config, other: Config, studies: Iterable[Replayed], changed: TextIO) -> Comparison:
    """Ask the rules of both of every study. Raises ModelError for a model card that cannot be read."""
    found = Comparison(changed)
    zone = ZoneInfo(config.site.timezone)
    # What no rule asks for is not looked up.
    names = rules.symbols_of((*config.rules, *other.rules))
    for study in studies:
        found.studies += 1
        facts = _facts(study.last_instance_at.astimezone(zone).date(), zone, names)
        now, then = (study.ruling(_decide(one, facts)) for one in (config, other))
        if not isinstance(now, rules.Decision) or not isinstance(then, rules.Decision):
            found.gone += 1
        elif change := _change(_comparable(config, now), _comparable(other, then)):
            found.add(study.study_instance_uid, change)
    return found


def _facts(today: date, zone: ZoneInfo, names: frozenset[str]) -> Callable[[Seen], dict[str, object]]:
    """The facts of one study, looked up once for both."""
    known: list[tuple[Seen, dict[str, object]]] = []

    def facts(seen: Seen) -> dict[str, object]:
        for one, values in known:
            if one is seen:
                return values
        known.append((seen, rule_facts.of_study(seen, today=today, timezone=zone, names=names)))
        return known[-1][1]

    return facts


def _decide(config: Config, facts: Callable[[Seen], dict[str, object]]) -> Callable[[Seen], rules.Decision]:
    return lambda seen: rules.decide(config.rules, facts(seen))


def _comparable(config: Config, decision: rules.Decision) -> dict[str, Any]:
    # The site's own model is not named: the two files may lie in different folders.
    return outcome(config, decision) | {"model": decision.card or "the site's"}


def _change(before: dict[str, Any], after: dict[str, Any]) -> str:
    """In words; "" when the outcome is the same."""
    differing = differences(before, after)
    if not differing:
        return ""
    said = " -> ".join(f"{one['action']} by {_rule(one['rule_name'])}" for one in (before, after))
    return said if before["action"] != after["action"] else f"{said} ({'; '.join(differing)})"


def _rule(name: str) -> str:
    return repr(name) if name else "no rule"


# ------------------------------------------------------------------------------------------------------------------- in words


def in_words(found: Comparison, last: str) -> Iterator[str]:
    """The text of `fourview rules diff`, line by line."""
    gone = f"; {found.gone} cannot be replayed, since no header of theirs is kept" if found.gone else ""
    yield f"{found.studies} studies received an image in the last {last}, {found.changes.total()} would have another outcome{gone}"
    for change, count in found.counted():
        yield printable(f"  {count:>6}  {change}")
    for uid, change in found.listed():
        yield printable(f"{uid}  {change}")


def as_json(found: Comparison) -> Iterator[str]:
    """One JSON object, line by line: the list of studies is as long as it is."""
    counts = [{"change": change, "studies": count} for change, count in found.counted()]
    head = {"studies": found.studies, "changed": found.changes.total(), "cannot_be_replayed": found.gone, "changes": counts}
    yield json.dumps(head, ensure_ascii=False)[:-1] + ', "changed_studies": ['
    before = ""
    for uid, change in found.listed():
        yield before + json.dumps({"study_instance_uid": uid, "change": change}, ensure_ascii=False)
        before = ","
    yield "]}"
