"""Rules that can never match: told only where it is certain, by trying every kind of value that a condition can tell apart. Pure.

A condition looks at each symbol through a few tests. All values on which these tests agree are one case; so for each symbol the cases are
few, and all combinations of them are tried. Where a value cannot be made from the condition alone (a text that a pattern matches), every
answer of the test is taken for possible: what is then called impossible is.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from pipeline.rule_condition import BY_NAME, Condition, Not, Test, compiled, truth, truth_by
from pipeline.rule_pattern import LONGEST_TEXT
from store.study import HANGING_ORDER

#: More combinations than these are not tried, and nothing is claimed.
MOST_COMBINATIONS = 4096
#: So many tests on one text without a value that could be made for them.
_MOST_FREE = 6
#: What follows from which views are filled.
_OF_VIEWS = ("Views", "NumViews", "Laterality")

_Truths = Mapping[str, bool | None]  # by the text of a test


@functools.lru_cache(maxsize=4096)
def never_matches(when: str) -> bool:
    """Whether no study can make the condition true."""
    condition = compiled(when)
    found = _combinations((condition,))
    return found is not None and not any(_true(condition, truths) for truths in found)


@functools.lru_cache(maxsize=4096)
def is_covered(when: str, by: str) -> bool:
    """Whether every study that makes `when` true makes `by` true as well."""
    condition, other = compiled(when), compiled(by)
    if condition == other:
        return True
    found = _combinations((condition, other))
    return found is not None and all(_true(other, truths) for truths in found if _true(condition, truths))


def _true(condition: Condition, truths: _Truths) -> bool:
    return truth_by(condition, lambda test: truths[test.text]) is True


def _tests(condition: Condition) -> Iterator[Test]:
    if isinstance(condition, Test):
        yield condition
    else:
        for part in (condition.part,) if isinstance(condition, Not) else condition.parts:
            yield from _tests(part)


def _combinations(conditions: Sequence[Condition]) -> Iterator[_Truths] | None:
    """What the tests of these conditions can say together; None when there are too many ways."""
    tests = {test.text: test for condition in conditions for test in _tests(condition)}
    groups: dict[str, list[Test]] = {}
    for test in tests.values():
        names = {"Views" if name in _OF_VIEWS else name for name in test.symbols}
        groups.setdefault(names.pop() if len(names) == 1 else test.text, []).append(test)
    cases: list[list[_Truths]] = []
    for name, group in groups.items():
        found = _cases(name, group)
        if found is None:
            return None
        cases.append(found)
    if math.prod(len(found) for found in cases) > MOST_COMBINATIONS:
        return None
    return (dict(itertools.chain.from_iterable(one.items() for one in chosen)) for chosen in itertools.product(*cases))


def _cases(name: str, tests: Sequence[Test]) -> list[_Truths] | None:
    """What these tests on one symbol can say together, each way once."""
    if name not in BY_NAME:  # a constant, or a test that compares two symbols
        test = tests[0]
        return [{test.text: truth(test, {})}] if not test.symbols else [{test.text: said} for said in (True, False, None)]
    found = [{test.text: truth(test, values) for test in tests} for values in _values(name, tests)]
    if BY_NAME[name].type == "string" and not BY_NAME[name].values:
        # Any other text: what compares it whole says what it says of a text that nobody names, and a pattern may say either.
        free = [test for test in tests if test.looks_inside]
        if len(free) > _MOST_FREE:
            return None
        other = {name: "\0"}
        told = {test.text: truth(test, other) for test in tests}
        for said in itertools.product((True, False), repeat=len(free)):
            found.append(told | {test.text: answer for test, answer in zip(free, said, strict=True)})
    return [dict(one) for one in {tuple(one.items()) for one in found}]


def _values(name: str, tests: Sequence[Test]) -> Iterator[Mapping[str, object]]:
    """Values of a symbol among which each case occurs that can be made."""
    if name == "Views":
        for filled in itertools.product((True, False), repeat=len(HANGING_ORDER)):
            views = [view for view, here in zip(HANGING_ORDER, filled, strict=True) if here]
            sides = "".join(sorted({view.laterality for view in views}))
            yield {
                "Views": [str(view) for view in views],
                "NumViews": len(views),
                "Laterality": "B" if len(sides) == 2 else sides or None,
            }
        return
    yield {name: None}
    symbol = BY_NAME[name]
    if symbol.values:
        yield from ({name: value} for value in symbol.values)
    elif symbol.type == "string":
        texts = {text for test in tests for text in test.texts}
        # A value has no padding, is not empty, and is cut.
        yield from ({name: text} for text in sorted(texts) if text == text.replace("\0", "").strip() and 0 < len(text) <= LONGEST_TEXT)
    elif name == "Hour":
        yield from ({name: hour} for hour in range(24))
    else:
        numbers = sorted({0.0, *(float(number) for test in tests for number in test.numbers)})
        if name == "StudyAge":  # whole days
            points = {float(math.floor(number) + step) for number in numbers for step in (-1, 0, 1)}
        else:
            between = {(low + high) / 2 for low, high in itertools.pairwise(numbers)}
            points = {*numbers, *between, numbers[-1] + 1}
        yield from ({name: point} for point in sorted(points) if point >= 0)
