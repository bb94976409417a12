"""Which studies are analysed, held or ignored, and where their results and images go: the `[[rule]]` tables of config.toml. Pure.

A rule's `when` is one condition (`pipeline.rule_condition`) over what is known of a study (`pipeline.rule_facts`); the same facts always
give the same decision.

Absent values. A header may lack any attribute, so a condition is true, false or *unknown*, and a rule matches only when it is true:

1. A test on an absent value is unknown, whatever its operator: `X == "a"`, `X != "a"`, `X < 5`, `X !~ "a"`, `X not in ["a"]`.
2. `not` of unknown is unknown. `and` is false if a part is false, otherwise unknown if a part is unknown. `or` is true if a part is true,
   otherwise unknown if a part is unknown. (Kleene's three-valued logic, as in SQL's WHERE.)
3. `X == null` and `X != null` are the only tests that see absence; they are always true or false.

So an absent value alone never makes a rule match, not even under `not`; evaluation never raises; the order of parts does not matter.

First match wins; without a match the study is ignored. One value is special. A study whose StudyAge is absent (StudyDate is missing, no
date, or in the future) is neither analysed nor silently dropped: if a rule that is reached is unknown, would match at some StudyAge, and
asks for something else (another action, other destinations of results or images, slots or ending) than the rules give without it, the
study is held and the reason says so. A rule before it that is true wins as always, so `StudyAge == null` lets a site decide otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pipeline import rule_condition
from pipeline.rule_condition import SYMBOLS
from store.study import HANGING_ORDER, Routing, View, WhenIncomplete, digest

#: Symbols whose values another image of the same exam changes as a matter of course.
GROWING = frozenset({"Views", "NumViews", "Implant", "Kind", "Laterality"})


class Action(StrEnum):
    """What a rule asks for."""

    ANALYSE = "analyse"  # read the study and send the results
    HOLD = "hold"  # read nothing, wait for a person
    IGNORE = "ignore"  # keep the record that it came, do nothing


#: What a rule's `slots` may say, and the views that a study under it is expected to have, in hanging order.
SLOTS: Mapping[str, tuple[View, ...]] = {"standard": HANGING_ORDER} | {
    word: tuple(view for view in HANGING_ORDER if view.laterality == side) for word, side in (("left", "L"), ("right", "R"))
}


@dataclass(frozen=True)
class Rule:
    """One `[[rule]]` table: what is done with a study for which `when` is true, the names of the `[[pacs]]` that get its results, which
    views it is expected to have (a word of `SLOTS`), what happens when some never come (None: what `[study]` says), which model card
    reads it, and the names of the `[[pacs]]` that get its images themselves."""

    name: str
    when: str
    action: Action
    send_to: tuple[str, ...] = ()
    slots: str = "standard"
    when_incomplete: WhenIncomplete | None = None
    card: str = ""  # path of the model card that reads its studies; "" for the site's
    priority: int = 5  # of its images: 1 first ... 9 last
    forward_to: tuple[str, ...] = ()

    @property
    def text_hash(self) -> str:
        """64 hex digits that change with any word of the rule; kept with each decision. What a rule does not say is not in it, so that
        a rule keeps its hash when a later version of Fourview gives rules something more to say."""
        said: list[str] = []
        # A line feed is in no name of a [[pacs]]: these are never taken for destinations.
        if self.slots != "standard":
            said.append(f"slots\n{self.slots}")
        if self.when_incomplete is not None:
            said.append(f"when_incomplete\n{self.when_incomplete}")
        if self.card:
            said.append(f"card\n{self.card}")
        if self.priority != 5:
            said.append(f"priority\n{self.priority}")
        if self.forward_to:
            said.append("\n".join(("forward_to", *self.forward_to)))
        return digest(self.name, self.when, self.action.value, *self.send_to, *said)


@dataclass(frozen=True)
class Decision:
    """What the rules say of a study.

    `reason` names rules and the values they saw; like `values` it may hold age, sex and free-text descriptions and belongs to the
    database and the pages, never to a log.

    `send_to`, `slots` and `when_incomplete` are those of the rule that decides, also when it holds: nothing of a held study is read or sent
    until a person releases it, and then its results go where `send_to` says, with these views expected. Without a match nothing is sent,
    and the four standard views are expected. The images go to `forward_to` whatever the action is, as soon as `routing` says.
    """

    action: Action
    rule_name: str  # "": no rule matched
    rule_hash: str
    reason: str
    send_to: tuple[str, ...]
    values: dict[str, object]  # the symbols that the rules mention; None: absent
    slots: tuple[View, ...] = HANGING_ORDER  # the expected views, in hanging order
    when_incomplete: WhenIncomplete | None = None  # None: what [study] says
    card: str = ""  # path of the model card that reads the study; "" for the site's
    priority: int = 5  # of its images: 1 first ... 9 last
    forward_to: tuple[str, ...] = ()
    routing: Routing = Routing.AT_ONCE


@dataclass(frozen=True)
class Verdict:
    """What one rule says of a study: `truth` is true, false, or None for unknown; `failing` is the smallest part that keeps it from being
    true, "" when it is; `values` are those that the rule looks at, None for absent ones."""

    rule: Rule
    truth: bool | None
    failing: str
    values: dict[str, object]
    words: str  # what it saw, in words


def ask(rule: Rule, facts: Mapping[str, object]) -> Verdict:
    """What `rule` says of these facts, whatever other rules say."""
    condition = rule_condition.compiled(rule.when)
    truth = rule_condition.truth(condition, facts)
    values = {name: facts.get(name) for name in condition.symbols}
    if truth:
        return Verdict(rule, truth, "", values, rule_condition.seen(condition.symbols, facts))
    failing = rule_condition.failing(condition, facts)
    return Verdict(rule, truth, failing.text, values, rule_condition.seen(failing.symbols, facts))


def decide(rules: Sequence[Rule], facts: Mapping[str, object]) -> Decision:
    """The first rule that matches decides; without one the study is ignored. A name that `facts` lacks counts as absent.

    See the module's text for absent values, and for the one case in which an absent StudyAge holds the study.
    """
    mentioned = symbols_of(rules)
    values = {symbol.name: facts.get(symbol.name) for symbol in SYMBOLS if symbol.name in mentioned}
    misses: list[str] = []
    undecided: list[Rule] = []
    reached: set[str] = set()
    decision = None
    for rule in rules:
        verdict = ask(rule, facts)
        reached.update(verdict.values)
        if verdict.truth:
            reason = f"rule {rule.name!r} matched" + (f": {verdict.words}" if verdict.words else "")
            decision = _decision(rule, reason, values)
            break
        if verdict.truth is None and rule_condition.matches_at_some_age(rule_condition.compiled(rule.when), facts):
            undecided.append(rule)
        misses.append(f"{rule.name!r} needs {verdict.failing}" + (f" but {verdict.words}" if verdict.words else ""))
    if decision is None:
        reason = "no rule matched: " + "; ".join(misses) if misses else "no rule is configured"
        decision = Decision(Action.IGNORE, "", "", reason, (), values)
    for rule in undecided:
        reason = (
            f"rule {rule.name!r} depends on StudyAge, which is absent: Study Date (0008,0020) is missing, is no date, or lies in the "
            "future. Correct it at its source, or release the study by hand"
        )
        asked = _decision(rule, reason, values)
        if asks_for(asked) != asks_for(decision):
            return replace(asked, action=Action.HOLD, routing=Routing.RELEASED)
    return replace(decision, routing=Routing.COLLECTED) if reached & GROWING else decision


def symbols_of(rules: Sequence[Rule]) -> frozenset[str]:
    """The symbols that rules mention."""
    return frozenset(name for rule in rules for name in rule_condition.compiled(rule.when).symbols)


def _decision(rule: Rule, reason: str, values: dict[str, object]) -> Decision:
    said = (rule.send_to, values, SLOTS[rule.slots], rule.when_incomplete, rule.card, rule.priority, rule.forward_to)
    return Decision(rule.action, rule.name, rule.text_hash, reason, *said)


def asks_for(decision: Decision) -> tuple[object, ...]:
    """Everything that makes a difference to the study."""
    where = decision.send_to, decision.forward_to
    return decision.action, where, decision.slots, decision.when_incomplete, decision.card, decision.priority
