"""The condition of a rule: one expression over the symbols of `SYMBOLS`, in the syntax of rule-engine. Pure.

Tests (`==`, `!=`, `<`, `<=`, `>`, `>=`; the regular expressions `=~` and `!~` from the value's start, `=~~` and `!~~` anywhere in it; `in`
and `not in`) put together with `and`, `or`, `not` and parentheses. Nothing else: no functions, no arithmetic, no clock, so that the same
facts always give the same truth. A condition is true, false or *unknown*: `pipeline.rules` says when.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import rule_engine  # type: ignore[import-untyped]
from rule_engine import ast, errors

from pipeline.rule_pattern import runs_away
from store.study import HANGING_ORDER, ImageKind


@dataclass(frozen=True)
class Symbol:
    """A name that conditions may use. `values` lists every value it can have, empty when there is no such list."""

    name: str
    type: str  # "string" | "number" | "list of strings"
    meaning: str
    values: tuple[str, ...] = ()


#: As `datetime.weekday` counts them.
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

#: Everything that a condition can ask. Attributes are those of the study's representative image unless said otherwise.
SYMBOLS: tuple[Symbol, ...] = (
    Symbol("Modality", "string", "Modality (0008,0060)"),
    Symbol("SOPClass", "string", "SOP Class UID (0008,0016), as a UID"),
    Symbol("CallingAET", "string", "AE title of the sender; behind Orthanc always Orthanc's: select by StationName or DeviceSerialNumber"),
    Symbol("CalledAET", "string", "AE title that the sender called"),
    Symbol("StationName", "string", "Station Name (0008,1010)"),
    Symbol("Manufacturer", "string", "Manufacturer (0008,0070)"),
    Symbol("ManufacturerModelName", "string", "Manufacturer's Model Name (0008,1090)"),
    Symbol("DeviceSerialNumber", "string", "Device Serial Number (0018,1000)"),
    Symbol("InstitutionName", "string", "Institution Name (0008,0080)"),
    Symbol("StudyDescription", "string", "Study Description (0008,1030)"),
    Symbol("SeriesDescription", "string", "Series Description (0008,103E)"),
    Symbol("ProtocolName", "string", "Protocol Name (0018,1030)"),
    Symbol("PatientAge", "number", "years: Patient's Age (0010,1010), else from Patient's Birth Date (0010,0030) at the Study Date"),
    Symbol("PatientSex", "string", "Patient's Sex (0010,0040): M, F or O"),
    Symbol("StudyAge", "number", "whole days from the Study Date (0008,0020) to today in the site's time zone; 0 is today"),
    Symbol("Views", "list of strings", "the standard views that are filled; may be empty, never absent", tuple(HANGING_ORDER)),
    Symbol("NumViews", "number", "how many standard views are filled, 0 to 4; never absent"),
    Symbol("Implant", "string", "Breast Implant Present (0028,1300): YES if any image says so, NO if every image says so", ("YES", "NO")),
    Symbol("Kind", "string", "what the images are", tuple(ImageKind)),
    Symbol("Laterality", "string", "side of the filled views: L, R, or B for both; absent while no view is filled", ("L", "R", "B")),
    Symbol("BodyPart", "string", "Body Part Examined (0018,0015)"),
    Symbol("Weekday", "string", "day on which the study's first image came, in the site's time zone", WEEKDAYS),
    Symbol("Hour", "number", "hour in which the study's first image came, in the site's time zone, 0 to 23"),
)

BY_NAME = {symbol.name: symbol for symbol in SYMBOLS}

_ENGINE_TYPES = {
    "string": rule_engine.DataType.STRING,
    "number": rule_engine.DataType.FLOAT,
    "list of strings": rule_engine.DataType.ARRAY(rule_engine.DataType.STRING),
}


class RuleError(ValueError):
    """A condition that cannot be used: what is wrong and what to write, in words."""


@dataclass(frozen=True)
class Test:
    """One test. `asks_presence`: it compares with null, and so is never unknown."""

    text: str
    symbols: tuple[str, ...]
    numbers: tuple[Decimal, ...]
    texts: tuple[str, ...]
    asks_presence: bool
    expression: Any = field(compare=False)  # rule-engine's node

    @property
    def looks_inside(self) -> bool:
        """Whether it looks for something in a text, so that what it says of a text cannot be told from the texts that it names."""
        node = self.expression
        if isinstance(node, ast.ContainsExpression):
            return isinstance(node.container, ast.SymbolExpression)
        return isinstance(node, ast.FuzzyComparisonExpression)


@dataclass(frozen=True)
class Not:
    """The contrary of a part; unknown where that is unknown."""

    part: Condition

    @property
    def text(self) -> str:
        return f"not {_bracketed(self.part)}"

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.part.symbols


@dataclass(frozen=True)
class Joined:
    """Parts joined by the same word."""

    word: str  # "and" | "or"
    parts: tuple[Condition, ...]

    @property
    def text(self) -> str:
        return f" {self.word} ".join(_bracketed(part) for part in self.parts)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.symbols))


Condition = Test | Not | Joined


def check(when: str) -> None:
    """Find out at load what would go wrong later: raises RuleError for bad syntax, unknown names, types that do not go together, patterns
    that do not compile, and values that a symbol never has."""
    compiled(when)


def truth(condition: Condition, facts: Mapping[str, object]) -> bool | None:
    """True, False, or None for unknown."""
    return truth_by(condition, lambda test: truth_of_test(test, facts))


def truth_of_test(test: Test, facts: Mapping[str, object]) -> bool | None:
    """The truth of one test: what is absent makes it unknown, unless it asks for just that."""
    absent = any(facts.get(name) is None for name in test.symbols)
    if test.asks_presence:
        return absent is (test.expression.type == "eq")
    return None if absent else bool(test.expression.evaluate(facts))


def truth_by(condition: Condition, tested: Callable[[Test], bool | None]) -> bool | None:
    """The truth of a condition by what `tested` says of its tests."""
    if isinstance(condition, Test):
        return tested(condition)
    if isinstance(condition, Not):
        part = truth_by(condition.part, tested)
        return None if part is None else not part
    truths = [truth_by(part, tested) for part in condition.parts]
    decisive: bool = condition.word == "or"
    if decisive in truths:
        return decisive
    return None if None in truths else not decisive


def failing(condition: Condition, facts: Mapping[str, object]) -> Condition:
    """The smallest part that keeps `condition` from being true: a false part of an `and` before an unknown one."""
    while isinstance(condition, Joined) and condition.word == "and":
        truths = [truth(part, facts) for part in condition.parts]
        condition = condition.parts[truths.index(False if False in truths else None)]
    return condition


def matches_at_some_age(condition: Condition, facts: Mapping[str, object]) -> bool:
    """Whether an absent StudyAge is what keeps `condition` from being true. StudyAge is a whole number that is only ever compared, so it is
    enough to try the numbers that it is compared with and their neighbours."""
    if facts.get("StudyAge") is not None or "StudyAge" not in condition.symbols:
        return False
    compared = [*_numbers(condition), *(value for value in facts.values() if isinstance(value, int | float))]
    ages = {0} | {max(0, math.floor(number) + step) for number in compared for step in (-1, 0, 1)}
    return any(truth(condition, {**facts, "StudyAge": age}) for age in ages)


def _numbers(condition: Condition) -> list[Decimal]:
    if isinstance(condition, Test):
        return list(condition.numbers)
    parts = (condition.part,) if isinstance(condition, Not) else condition.parts
    return [number for part in parts for number in _numbers(part)]


def seen(symbols: Sequence[str], facts: Mapping[str, object]) -> str:
    """ "Modality is "MG", StudyAge is absent"."""
    values = ((name, facts.get(name)) for name in symbols)
    return ", ".join(f"{name} is {'absent' if value is None else json.dumps(value, ensure_ascii=False)}" for name, value in values)


# From text to a condition. rule-engine parses and finds unknown names; what it lets pass, and what would make a decision depend on
# anything but the facts, is refused here.

_OPERATORS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="} | {
    "eq_fzm": "=~",
    "eq_fzs": "=~~",
    "ne_fzm": "!~",
    "ne_fzs": "!~~",
}
_LITERALS = {ast.StringExpression: "string", ast.FloatExpression: "number", ast.NullExpression: "null"}
_WORDS = ("and", "or", "not", "in", "true", "false", "null")
_HABITS = {"=": "==", "&": "and", "|": "or", "!": "not"}

#: Numbers in a condition are days, years or views; a larger one is a slip.
_LARGEST_NUMBER = 1_000_000


@functools.lru_cache(maxsize=1024)
def compiled(when: str) -> Condition:
    """The condition that a text says. Raises RuleError like `check`."""
    if not when.strip():
        raise RuleError("the condition is empty; write true to match every study")
    context = rule_engine.Context(resolver=rule_engine.resolve_item, type_resolver=_engine_type)
    try:
        expression = rule_engine.Rule(when, context).statement.expression
    except errors.SymbolResolutionError as error:
        raise RuleError(_unknown_name(error.symbol_name)) from None
    except errors.RegexSyntaxError as error:
        raise RuleError(f"{quoted(error.value)} is not a regular expression: {error.error}") from None
    except errors.RuleSyntaxError as error:
        raise RuleError(_syntax_error(when, error)) from None
    except errors.EngineError as error:
        raise RuleError(_engine_error(error.message, context.symbols)) from None
    except RecursionError:
        raise RuleError("the condition is nested too deeply; write it as several rules") from None
    return _condition(expression)


def _engine_type(name: str) -> Any:
    symbol = BY_NAME.get(name)
    if symbol is None:
        raise errors.SymbolResolutionError(name)
    return _ENGINE_TYPES[symbol.type]


def _condition(node: Any) -> Condition:
    if isinstance(node, ast.LogicExpression):
        parts = [_condition(side) for side in (node.left, node.right)]
        flat = [inner for part in parts for inner in (part.parts if isinstance(part, Joined) and part.word == node.type else (part,))]
        return Joined(node.type, tuple(flat))
    if isinstance(node, ast.UnaryExpression) and node.type == "not":
        return Not(_condition(node.right))
    if isinstance(node, ast.BooleanExpression):
        return Test("true" if node.value else "false", (), (), (), False, node)
    if isinstance(node, ast.ContainsExpression):
        return _membership(node)
    if isinstance(node, ast.ComparisonExpression):
        return _comparison(node)
    if type(node) in _LITERALS or isinstance(node, ast.SymbolExpression):
        text = _operand(node)
        raise RuleError(f'{text} is a {_type(node)}, not a test; write each test in full, as in Modality == "MG" or Modality == "CR"')
    raise RuleError("only tests (==, !=, <, <=, >, >=, =~, !~, =~~, !~~, in) with and, or, not can be used; no functions and no arithmetic")


def _comparison(node: Any) -> Test:
    sides = (node.left, node.right)
    text = f"{_operand(node.left)} {_OPERATORS[node.type]} {_operand(node.right)}"
    types = tuple(_type(side) for side in sides)
    if "list of strings" in types:
        raise RuleError(f'{text}: a list is asked with in, as in "L-CC" in Views')
    if isinstance(node, ast.FuzzyComparisonExpression):
        if types != ("string", "string") or not isinstance(node.left, ast.SymbolExpression) or isinstance(node.right, ast.SymbolExpression):
            raise RuleError(f"{text}: write a name of type string on the left and a pattern in quotes on the right")
        if why := runs_away(node.right.value, anywhere=node.type.endswith("fzs")):
            raise RuleError(f"{text}: the pattern {why}")
    elif isinstance(node, ast.ArithmeticComparisonExpression):
        if types != ("number", "number"):
            raise RuleError(f"{text}: {_OPERATORS[node.type]} compares numbers, not {types[0]} with {types[1]}")
    elif "null" not in types and types[0] != types[1]:
        raise RuleError(f"{text}: compares a {types[0]} with a {types[1]}; it would never be true")
    else:
        for symbol, literal in (sides, sides[::-1]):
            _possible(symbol, literal)
    return _test(text, node, sides, asks_presence="null" in types)


def _membership(node: Any) -> Test:
    container, member = node.container, node.member
    if isinstance(container, ast.ArrayExpression):
        items = tuple(container.value)
        text = f"{_operand(member)} in [{', '.join(_operand(item) for item in items)}]"
        if not isinstance(member, ast.SymbolExpression) or not items or {_type(item) for item in items} != {_type(member)}:
            raise RuleError(f"{text}: write a name on the left and a list of values of its type on the right")
        for item in items:
            _possible(member, item)
        return _test(text, node, (member, *items))
    text = f"{_operand(member)} in {_operand(container)}"
    if not isinstance(container, ast.SymbolExpression) or _type(container) == "number" or _type(member) != "string":
        raise RuleError(f'{text}: write Modality in ["MG", "CR"], or "L-CC" in Views, or "screening" in StudyDescription')
    if _type(container) == "list of strings":
        _possible(container, member)
    return _test(text, node, (member, container))


def _test(text: str, node: Any, operands: Sequence[Any], *, asks_presence: bool = False) -> Test:
    symbols = tuple(dict.fromkeys(operand.name for operand in operands if isinstance(operand, ast.SymbolExpression)))
    numbers = tuple(operand.value for operand in operands if isinstance(operand, ast.FloatExpression))
    texts = tuple(operand.value for operand in operands if isinstance(operand, ast.StringExpression))
    return Test(text, symbols, numbers, texts, asks_presence, node)


def _possible(symbol: Any, literal: Any) -> None:
    """Refuse a value that the symbol never has."""
    if not isinstance(symbol, ast.SymbolExpression) or not isinstance(literal, ast.StringExpression):
        return
    values = BY_NAME[symbol.name].values
    if values and literal.value not in values:
        raise RuleError(f"{quoted(literal.value)} is never a value of {symbol.name}; write one of {', '.join(map(quoted, values))}")


def _type(node: Any) -> str:
    if isinstance(node, ast.SymbolExpression):
        return BY_NAME[node.name].type
    return _LITERALS.get(type(node), "value")


def _operand(node: Any) -> str:
    """The text of a name or value, as it may be written in a condition."""
    if isinstance(node, ast.SymbolExpression):
        if node.scope is not None:
            raise RuleError(f"${node.name} cannot be used: a condition sees only the study")
        return str(node.name)
    if isinstance(node, ast.StringExpression):
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            raise RuleError("half of a surrogate pair is no character; write the character itself")
        return quoted(node.value)
    if isinstance(node, ast.FloatExpression):
        if not (node.value.is_finite() and abs(node.value) <= _LARGEST_NUMBER):
            raise RuleError(f"{node.value} is out of range; numbers are at most {_LARGEST_NUMBER}")
        return format(node.value, "f")
    if isinstance(node, ast.NullExpression):
        return "null"
    raise RuleError('compare a name with a value, as in StudyAge <= 14, or test it with in, as in Modality in ["MG", "CR"]')


def _syntax_error(when: str, error: Any) -> str:
    if error.token is None:
        return f"{error.message.removesuffix(' at: EOF')}; is a value, a quote or a bracket missing at the end?"
    column, found = error.token.lexpos + 1, str(error.token.value)
    habit = found.lower() if found.lower() in _WORDS else None if found.startswith("==") else _HABITS.get(found[0])
    advice = f"; did you mean {habit}?" if habit else "; quotes, brackets and operators must go together"
    return f"syntax error at column {column}, at {quoted(when[column - 1 :][:20])}{advice}"


def _engine_error(message: str, names: set[str]) -> str:
    if not message.startswith("data type mismatch"):
        return message
    types = " and ".join(f"{name} is a {BY_NAME[name].type}" for name in sorted(names & BY_NAME.keys()))
    return f"values of different types are compared ({types or 'none of them is a name'})"


def _unknown_name(name: str) -> str:
    candidates = {candidate.lower(): candidate for candidate in (*BY_NAME, *_WORDS)}
    near = difflib.get_close_matches(name.lower(), candidates, n=1)
    return f"unknown name {name}; " + (f"did you mean {candidates[near[0]]}?" if near else f"the names are {', '.join(BY_NAME)}")


def _bracketed(condition: Condition) -> str:
    return f"({condition.text})" if isinstance(condition, Joined) else condition.text


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
