"""The tables of precedence and absence can fail: each wrong evaluator, put in the place of the right one, is found by them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import test_rules

from pipeline import rule_condition, rules
from pipeline.rule_condition import BY_NAME, Condition, Joined, Not, compiled, truth_by, truth_of_test
from pipeline.rule_condition import Test as OneTest  # pytest would take one of its own name for tests
from pipeline.rules import Action, Decision, Rule, decide

TABLES: tuple[Callable[..., None], ...] = (
    test_rules.test_tests_on_text,
    test_rules.test_comparisons_of_numbers,
    test_rules.test_lists_are_never_absent,
    test_rules.test_and_or_not_of_unknown,
    test_rules.test_not_binds_before_and_and_that_before_or,
    test_rules.test_the_first_match_decides,
    test_rules.test_a_study_of_unknown_age,
)


def cases(table: Any) -> Iterator[dict[str, Any]]:
    """The arguments of each of its rows, as pytest gives them."""
    marks = [mark for mark in getattr(table, "pytestmark", []) if mark.name == "parametrize"]
    several: list[list[dict[str, Any]]] = []
    for mark in marks:
        names, values = mark.args
        names = [one.strip() for one in names.split(",")] if isinstance(names, str) else list(names)
        several.append([dict(zip(names, one if len(names) > 1 else [one], strict=True)) for one in values])
    for chosen in itertools.product(*several):
        yield {name: value for one in chosen for name, value in one.items()}


def failing() -> list[str]:
    """The names of the tables in which a row fails now."""

    def fails(table: Callable[..., None], arguments: Mapping[str, Any]) -> bool:
        try:
            table(**arguments)
        except Exception:  # noqa: BLE001 - a wrong evaluator may fail in any way
            return True
        return False

    return [table.__name__ for table in TABLES if any(fails(table, one) for one in cases(table))]


# Wrong absence


def absent_is(*, text: object = None, number: object = None) -> Callable[[OneTest, Mapping[str, object]], bool | None]:
    """A test that takes what is absent for a value."""
    of_type = {"string": text, "number": number, "list of strings": None}

    def wrong(test: OneTest, facts: Mapping[str, object]) -> bool | None:
        filled = {name: facts.get(name) if facts.get(name) is not None else of_type[BY_NAME[name].type] for name in test.symbols}
        return truth_of_test(test, filled)

    return wrong


def absent_is_false(test: OneTest, facts: Mapping[str, object]) -> bool | None:
    return truth_of_test(test, facts) or False


def absent_differs(test: OneTest, facts: Mapping[str, object]) -> bool | None:
    """As in most languages: nothing is not equal to anything."""
    said = truth_of_test(test, facts)
    return "!" in test.text or "not in" in test.text if said is None else said


def null_is_unknown(test: OneTest, facts: Mapping[str, object]) -> bool | None:
    return None if any(facts.get(name) is None for name in test.symbols) else truth_of_test(test, facts)


# Wrong logic


def logic(
    *,
    negated: Callable[[bool | None], bool | None] = lambda one: None if one is None else not one,
    both: Callable[[list[bool | None]], bool | None] = lambda parts: False if False in parts else None if None in parts else True,
    either: Callable[[list[bool | None]], bool | None] = lambda parts: True if True in parts else None if None in parts else False,
) -> Callable[[Condition, Callable[[OneTest], bool | None]], bool | None]:
    """An evaluator that is right but for what it is given."""

    def wrong(condition: Condition, tested: Callable[[OneTest], bool | None]) -> bool | None:
        if isinstance(condition, OneTest):
            return tested(condition)
        if isinstance(condition, Not):
            return negated(wrong(condition.part, tested))
        return (both if condition.word == "and" else either)([wrong(part, tested) for part in condition.parts])

    return wrong


def or_before_and(when: str) -> Condition:
    return compiled(when if "(" in when or " and " not in when else "(" + when.replace(" and ", ") and (") + ")")


def not_after_all(when: str) -> Condition:
    """`not a and b` read as `not (a and b)`."""
    condition = compiled(when)
    if isinstance(condition, Joined) and isinstance(condition.parts[0], Not):
        return Not(Joined(condition.word, (condition.parts[0].part, *condition.parts[1:])))
    return condition


# Wrong decisions


def last_wins(asked: Sequence[Rule], facts: Mapping[str, object]) -> Decision:
    return decide(asked[::-1], facts)


def unknown_matches(asked: Sequence[Rule], facts: Mapping[str, object]) -> Decision:
    first = next((rule for rule in asked if rules.ask(rule, facts).truth is not False), None)
    return decide([replace(first, when="true")] if first else [], facts)


def held_without_match(asked: Sequence[Rule], facts: Mapping[str, object]) -> Decision:
    decision = decide(asked, facts)
    return decision if decision.rule_name else replace(decision, action=Action.HOLD)


MUTANTS: Mapping[str, tuple[object, str, object]] = {
    "absent counts as false": (rule_condition, "truth_of_test", absent_is_false),
    "absent is different from everything": (rule_condition, "truth_of_test", absent_differs),
    "absent text is empty": (rule_condition, "truth_of_test", absent_is(text="")),
    "absent number is 0": (rule_condition, "truth_of_test", absent_is(number=0)),
    "null is unknown like any other": (rule_condition, "truth_of_test", null_is_unknown),
    "not unknown is true": (rule_condition, "truth_by", logic(negated=lambda one: not one)),
    "not unknown is false": (rule_condition, "truth_by", logic(negated=lambda one: one is False)),
    "unknown and false is unknown": (
        rule_condition,
        "truth_by",
        logic(both=lambda parts: None if None in parts else False not in parts),
    ),
    "unknown and true is true": (rule_condition, "truth_by", logic(both=lambda parts: False not in parts)),
    "unknown and true is false": (rule_condition, "truth_by", logic(both=lambda parts: all(parts))),
    "unknown or true is unknown": (rule_condition, "truth_by", logic(either=lambda parts: None if None in parts else True in parts)),
    "unknown or false is false": (rule_condition, "truth_by", logic(either=lambda parts: True in parts)),
    "the first part decides": (rule_condition, "truth_by", logic(both=lambda parts: parts[0])),
    "and is or": (rule_condition, "truth_by", logic(both=lambda parts: True in parts)),
    "or before and": (rule_condition, "compiled", or_before_and),
    "not after and": (rule_condition, "compiled", not_after_all),
    "last match wins": (test_rules, "decide", last_wins),
    "unknown matches": (test_rules, "decide", unknown_matches),
    "no match holds": (test_rules, "decide", held_without_match),
    "an absent age is let pass": (rule_condition, "matches_at_some_age", lambda condition, facts: False),
    "any unknown is taken for one of age": (rule_condition, "matches_at_some_age", lambda condition, facts: True),
}


def test_the_tables_hold() -> None:
    assert failing() == []
    assert sum(len(list(cases(table))) for table in TABLES) > 110, "the rows were really tried"


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_evaluator_is_found(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, wrong = MUTANTS[mutant]
    monkeypatch.setattr(where, name, wrong)
    assert failing(), f"no table finds that {mutant}"


def test_the_evaluator_of_the_mutants_is_right_where_nothing_is_wrong_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what is found is the fault, not the frame around it."""
    assert truth_by is rule_condition.truth_by
    monkeypatch.setattr(rule_condition, "truth_by", logic())
    monkeypatch.setattr(rule_condition, "truth_of_test", absent_is())
    assert failing() == []
