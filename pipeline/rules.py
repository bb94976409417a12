"""Which studies are analysed, held or ignored, and where their results go: the `[[rule]]` tables of config.toml. Pure.

A rule's `when` is one condition over the symbols of `SYMBOLS`, in the syntax of rule-engine: tests (`==`, `!=`, `<`, `<=`, `>`, `>=`; the
regular expressions `=~` and `!~` from the value's start, `=~~` and `!~~` anywhere in it; `in` and `not in`) put together with `and`, `or`,
`not` and parentheses. Nothing else: no functions, no arithmetic, no clock, so that the same facts always give the same decision.

Absent values. A header may lack any attribute, so a condition is true, false or *unknown*, and a rule matches only when it is true:

1. A test on an absent value is unknown, whatever its operator: `X == "a"`, `X != "a"`, `X < 5`, `X !~ "a"`, `X not in ["a"]`.
2. `not` of unknown is unknown. `and` is false if a part is false, otherwise unknown if a part is unknown. `or` is true if a part is true,
   otherwise unknown if a part is unknown. (Kleene's three-valued logic, as in SQL's WHERE.)
3. `X == null` and `X != null` are the only tests that see absence; they are always true or false.

So an absent value alone never makes a rule match, not even under `not`; evaluation never raises; the order of parts does not matter.

First match wins; without a match the study is ignored. One value is special. A study whose StudyAge is absent (StudyDate is missing, no
date, or in the future) is neither analysed nor silently dropped: if a rule that is reached is unknown, would match at some StudyAge, and
asks for something else (another action, other destinations, slots or ending) than the rules give without it, the study is held and the
reason says so. A rule before it that is true wins as always, so `StudyAge == null` lets a site decide otherwise.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any

import rule_engine  # type: ignore[import-untyped]
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from rule_engine import ast, errors

from store.study import HANGING_ORDER, ImageKind, View, WhenIncomplete, digest


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
    views it is expected to have (a word of `SLOTS`), what happens when some never come (None: what `[study]` says), and which model card
    reads it."""

    name: str
    when: str
    action: Action
    send_to: tuple[str, ...] = ()
    slots: str = "standard"
    when_incomplete: WhenIncomplete | None = None
    card: str = ""  # path of the model card that reads its studies; "" for the site's
    priority: int = 5  # of its images: 1 first ... 9 last

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
        return digest(self.name, self.when, self.action.value, *self.send_to, *said)


@dataclass(frozen=True)
class Symbol:
    """A name that conditions may use. `values` lists every value it can have, empty when there is no such list."""

    name: str
    type: str  # "string" | "number" | "list of strings"
    meaning: str
    values: tuple[str, ...] = ()


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
)

_BY_NAME = {symbol.name: symbol for symbol in SYMBOLS}

#: Symbols that are one attribute of the representative image, as text.
_ATTRIBUTES = {
    "Modality": "Modality",
    "SOPClass": "SOPClassUID",
    "StationName": "StationName",
    "Manufacturer": "Manufacturer",
    "ManufacturerModelName": "ManufacturerModelName",
    "DeviceSerialNumber": "DeviceSerialNumber",
    "InstitutionName": "InstitutionName",
    "StudyDescription": "StudyDescription",
    "SeriesDescription": "SeriesDescription",
    "ProtocolName": "ProtocolName",
    "PatientSex": "PatientSex",
    "BodyPart": "BodyPartExamined",
}

_ENGINE_TYPES = {
    "string": rule_engine.DataType.STRING,
    "number": rule_engine.DataType.FLOAT,
    "list of strings": rule_engine.DataType.ARRAY(rule_engine.DataType.STRING),
}

#: Longest text that a pattern is matched against, in characters.
_LONGEST_TEXT = 1024

#: PS3.5 6.2, VR AS.
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}

#: PS3.5 6.2, VR DA, with the dots of ACR-NEMA that old archives still hold.
_DATE = re.compile(r"(\d{4})(\.?)(\d{2})\2(\d{2})")


class RuleError(ValueError):
    """A condition that cannot be used: what is wrong and what to write, in words."""


@dataclass(frozen=True)
class Decision:
    """What the rules say of a study.

    `reason` names rules and the values they saw; like `values` it may hold age, sex and free-text descriptions and belongs to the
    database and the pages, never to a log.

    `send_to`, `slots` and `when_incomplete` are those of the rule that decides, also when it holds: nothing of a held study is read or sent
    until a person releases it, and then its results go where `send_to` says, with these views expected. Without a match nothing is sent,
    and the four standard views are expected.
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


@dataclass(frozen=True)
class _Test:
    """One comparison. `asks_presence`: it compares with null, and so is never unknown."""

    text: str
    symbols: tuple[str, ...]
    numbers: tuple[Decimal, ...]
    asks_presence: bool
    expression: Any  # rule-engine's node


@dataclass(frozen=True)
class _Not:
    part: _Condition

    @property
    def text(self) -> str:
        return f"not {_bracketed(self.part)}"

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.part.symbols


@dataclass(frozen=True)
class _Joined:
    word: str  # "and" | "or"
    parts: tuple[_Condition, ...]

    @property
    def text(self) -> str:
        return f" {self.word} ".join(_bracketed(part) for part in self.parts)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.symbols))


_Condition = _Test | _Not | _Joined


def check(when: str) -> None:
    """Find out at load what would go wrong later: raises RuleError for bad syntax, unknown names, types that do not go together, patterns
    that do not compile, and values that a symbol never has."""
    _compiled(when)


def facts(
    headers: Sequence[Dataset], *, views: Sequence[View], calling_ae_title: str, called_ae_title: str, today: date, kind: str = ""
) -> dict[str, object]:
    """The value of every symbol: str, int, float or list of str; None when it is absent.

    `headers[0]` is the study's representative image; `views` are the filled slots; `kind` is an ImageKind's value, "" when unknown;
    `today` is the date in the site's time zone.
    """
    ds = headers[0] if headers else Dataset()
    study_date = _date(_attribute(ds, "StudyDate"))
    sides = {view.laterality for view in views}
    implants = {_attribute(header, "BreastImplantPresent") for header in headers}
    values: dict[str, object] = {name: _attribute(ds, keyword) for name, keyword in _ATTRIBUTES.items()}
    values["CallingAET"] = _text(calling_ae_title)
    values["CalledAET"] = _text(called_ae_title)
    values["PatientAge"] = _age(_attribute(ds, "PatientAge"), _date(_attribute(ds, "PatientBirthDate")), study_date)
    values["StudyAge"] = (today - study_date).days if study_date is not None and study_date <= today else None
    values["Views"] = [view.value for view in HANGING_ORDER if view in views]
    values["NumViews"] = len(set(views))
    values["Implant"] = "YES" if "YES" in implants else "NO" if implants == {"NO"} else None
    values["Kind"] = kind or None
    values["Laterality"] = "B" if len(sides) == 2 else next(iter(sides), None)
    return values


def decide(rules: Sequence[Rule], facts: Mapping[str, object]) -> Decision:
    """The first rule that matches decides; without one the study is ignored. A name that `facts` lacks counts as absent.

    See the module's text for absent values, and for the one case in which an absent StudyAge holds the study.
    """
    conditions = [(rule, _compiled(rule.when)) for rule in rules]
    mentioned = {name for _, condition in conditions for name in condition.symbols}
    values = {symbol.name: facts.get(symbol.name) for symbol in SYMBOLS if symbol.name in mentioned}
    misses: list[str] = []
    undecided: list[Rule] = []
    decision = None
    for rule, condition in conditions:
        truth = _truth(condition, facts)
        if truth:
            reason = f"rule {rule.name!r} matched"
            if condition.symbols:
                reason += f": {_seen(condition.symbols, facts)}"
            decision = _decision(rule, reason, values)
            break
        if truth is None and _matches_at_some_age(condition, facts):
            undecided.append(rule)
        failing = _failing(condition, facts)
        misses.append(f"{rule.name!r} needs {failing.text}" + (f" but {_seen(failing.symbols, facts)}" if failing.symbols else ""))
    if decision is None:
        reason = "no rule matched: " + "; ".join(misses) if misses else "no rule is configured"
        decision = Decision(Action.IGNORE, "", "", reason, (), values)
    for rule in undecided:
        reason = (
            f"rule {rule.name!r} depends on StudyAge, which is absent: Study Date (0008,0020) is missing, is no date, or lies in the "
            "future. Correct it at its source, or release the study by hand"
        )
        asked = _decision(rule, reason, values)
        if _asks_for(asked) != _asks_for(decision):
            return replace(asked, action=Action.HOLD)
    return decision


def _decision(rule: Rule, reason: str, values: dict[str, object]) -> Decision:
    said = (rule.send_to, values, SLOTS[rule.slots], rule.when_incomplete, rule.card, rule.priority)
    return Decision(rule.action, rule.name, rule.text_hash, reason, *said)


def _asks_for(decision: Decision) -> tuple[object, ...]:
    """Everything that makes a difference to the study."""
    return decision.action, decision.send_to, decision.slots, decision.when_incomplete, decision.card, decision.priority


def _truth(condition: _Condition, facts: Mapping[str, object]) -> bool | None:
    """True, False, or None for unknown."""
    if isinstance(condition, _Test):
        absent = any(facts.get(name) is None for name in condition.symbols)
        if condition.asks_presence:
            return absent is (condition.expression.type == "eq")
        return None if absent else bool(condition.expression.evaluate(facts))
    if isinstance(condition, _Not):
        truth = _truth(condition.part, facts)
        return None if truth is None else not truth
    truths = [_truth(part, facts) for part in condition.parts]
    decisive: bool = condition.word == "or"
    if decisive in truths:
        return decisive
    return None if None in truths else not decisive


def _failing(condition: _Condition, facts: Mapping[str, object]) -> _Condition:
    """The smallest part that keeps `condition` from being true: a false part of an `and` before an unknown one."""
    while isinstance(condition, _Joined) and condition.word == "and":
        truths = [_truth(part, facts) for part in condition.parts]
        condition = condition.parts[truths.index(False if False in truths else None)]
    return condition


def _matches_at_some_age(condition: _Condition, facts: Mapping[str, object]) -> bool:
    """Whether an absent StudyAge is what keeps `condition` from being true. StudyAge is a whole number that is only ever compared, so it is
    enough to try the numbers that it is compared with and their neighbours."""
    if facts.get("StudyAge") is not None or "StudyAge" not in condition.symbols:
        return False
    compared = [*_numbers(condition), *(value for value in facts.values() if isinstance(value, int | float))]
    ages = {0} | {max(0, math.floor(number) + step) for number in compared for step in (-1, 0, 1)}
    return any(_truth(condition, {**facts, "StudyAge": age}) for age in ages)


def _numbers(condition: _Condition) -> list[Decimal]:
    if isinstance(condition, _Test):
        return list(condition.numbers)
    parts = (condition.part,) if isinstance(condition, _Not) else condition.parts
    return [number for part in parts for number in _numbers(part)]


def _seen(symbols: Sequence[str], facts: Mapping[str, object]) -> str:
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
def _compiled(when: str) -> _Condition:
    if not when.strip():
        raise RuleError("the condition is empty; write true to match every study")
    context = rule_engine.Context(resolver=rule_engine.resolve_item, type_resolver=_engine_type)
    try:
        expression = rule_engine.Rule(when, context).statement.expression
    except errors.SymbolResolutionError as error:
        raise RuleError(_unknown_name(error.symbol_name)) from None
    except errors.RegexSyntaxError as error:
        raise RuleError(f"{_quoted(error.value)} is not a regular expression: {error.error}") from None
    except errors.RuleSyntaxError as error:
        raise RuleError(_syntax_error(when, error)) from None
    except errors.EngineError as error:
        raise RuleError(_engine_error(error.message, context.symbols)) from None
    except RecursionError:
        raise RuleError("the condition is nested too deeply; write it as several rules") from None
    return _condition(expression)


def _engine_type(name: str) -> Any:
    symbol = _BY_NAME.get(name)
    if symbol is None:
        raise errors.SymbolResolutionError(name)
    return _ENGINE_TYPES[symbol.type]


def _condition(node: Any) -> _Condition:
    if isinstance(node, ast.LogicExpression):
        parts = [_condition(side) for side in (node.left, node.right)]
        flat = [inner for part in parts for inner in (part.parts if isinstance(part, _Joined) and part.word == node.type else (part,))]
        return _Joined(node.type, tuple(flat))
    if isinstance(node, ast.UnaryExpression) and node.type == "not":
        return _Not(_condition(node.right))
    if isinstance(node, ast.BooleanExpression):
        return _Test("true" if node.value else "false", (), (), False, node)
    if isinstance(node, ast.ContainsExpression):
        return _membership(node)
    if isinstance(node, ast.ComparisonExpression):
        return _comparison(node)
    if type(node) in _LITERALS or isinstance(node, ast.SymbolExpression):
        text = _operand(node)
        raise RuleError(f'{text} is a {_type(node)}, not a test; write each test in full, as in Modality == "MG" or Modality == "CR"')
    raise RuleError("only tests (==, !=, <, <=, >, >=, =~, !~, =~~, !~~, in) with and, or, not can be used; no functions and no arithmetic")


def _comparison(node: Any) -> _Test:
    sides = (node.left, node.right)
    text = f"{_operand(node.left)} {_OPERATORS[node.type]} {_operand(node.right)}"
    types = tuple(_type(side) for side in sides)
    if "list of strings" in types:
        raise RuleError(f'{text}: a list is asked with in, as in "L-CC" in Views')
    if isinstance(node, ast.FuzzyComparisonExpression):
        if types != ("string", "string") or not isinstance(node.left, ast.SymbolExpression) or isinstance(node.right, ast.SymbolExpression):
            raise RuleError(f"{text}: write a name of type string on the left and a pattern in quotes on the right")
    elif isinstance(node, ast.ArithmeticComparisonExpression):
        if types != ("number", "number"):
            raise RuleError(f"{text}: {_OPERATORS[node.type]} compares numbers, not {types[0]} with {types[1]}")
    elif "null" not in types and types[0] != types[1]:
        raise RuleError(f"{text}: compares a {types[0]} with a {types[1]}; it would never be true")
    else:
        for symbol, literal in (sides, sides[::-1]):
            _possible(symbol, literal)
    return _test(text, node, sides, asks_presence="null" in types)


def _membership(node: Any) -> _Test:
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


def _test(text: str, node: Any, operands: Sequence[Any], *, asks_presence: bool = False) -> _Test:
    symbols = tuple(dict.fromkeys(operand.name for operand in operands if isinstance(operand, ast.SymbolExpression)))
    numbers = tuple(operand.value for operand in operands if isinstance(operand, ast.FloatExpression))
    return _Test(text, symbols, numbers, asks_presence, node)


def _possible(symbol: Any, literal: Any) -> None:
    """Refuse a value that the symbol never has."""
    if not isinstance(symbol, ast.SymbolExpression) or not isinstance(literal, ast.StringExpression):
        return
    values = _BY_NAME[symbol.name].values
    if values and literal.value not in values:
        raise RuleError(f"{_quoted(literal.value)} is never a value of {symbol.name}; write one of {', '.join(map(_quoted, values))}")


def _type(node: Any) -> str:
    if isinstance(node, ast.SymbolExpression):
        return _BY_NAME[node.name].type
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
        return _quoted(node.value)
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
    return f"syntax error at column {column}, at {_quoted(when[column - 1 :][:20])}{advice}"


def _engine_error(message: str, names: set[str]) -> str:
    if not message.startswith("data type mismatch"):
        return message
    types = " and ".join(f"{name} is a {_BY_NAME[name].type}" for name in sorted(names & _BY_NAME.keys()))
    return f"values of different types are compared ({types or 'none of them is a name'})"


def _unknown_name(name: str) -> str:
    candidates = {candidate.lower(): candidate for candidate in (*_BY_NAME, *_WORDS)}
    near = difflib.get_close_matches(name.lower(), candidates, n=1)
    return f"unknown name {name}; " + (f"did you mean {candidates[near[0]]}?" if near else f"the names are {', '.join(_BY_NAME)}")


def _bracketed(condition: _Condition) -> str:
    return f"({condition.text})" if isinstance(condition, _Joined) else condition.text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# From header to facts.


def _attribute(ds: Dataset, keyword: str) -> str | None:
    try:
        return _text(ds.get(keyword))
    except (BytesLengthException, NotImplementedError, OSError, ValueError, TypeError, LookupError):
        # A sender can write any VR and any bytes. What pydicom cannot read counts as absent.
        return None


def _text(value: object) -> str | None:
    """Values without NULs and padding, joined with backslash when there are several; None when nothing is left."""
    parts = list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    if any(part is None or isinstance(part, Dataset) for part in parts):
        return None
    texts = [part.decode("latin-1") if isinstance(part, bytes) else str(part) for part in parts]
    cleaned = [text.replace("\0", "").strip() for text in texts]
    return "\\".join(cleaned)[:_LONGEST_TEXT] if any(cleaned) else None


def _date(text: str | None) -> date | None:
    found = _DATE.fullmatch(text or "")
    if found is None:
        return None
    try:
        return date(int(found[1]), int(found[3]), int(found[4]))
    except ValueError:
        return None


def _age(age: str | None, birth_date: date | None, study_date: date | None) -> int | float | None:
    """Years, whole where they are."""
    found = _AGE.fullmatch(age or "")
    if found is not None:
        years = round(int(found[1]) * _YEARS[found[2]], 2)
        return int(years) if years == int(years) else years
    if birth_date is None or study_date is None or birth_date > study_date:
        return None
    return study_date.year - birth_date.year - ((study_date.month, study_date.day) < (birth_date.month, birth_date.day))
