"""Patterns that could run away: regular expressions that try for minutes or for years on some text of the length that they may see. Pure.

Python's engine tries one way after the other. What it could try is counted from the pattern's own tree, on the side of too much: a pattern
that is not refused ends soon on any text, and one that is refused can be written in another way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from re import _constants as kind  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

#: Longest text that a pattern is matched against, in characters.
LONGEST_TEXT = 1024
#: So many ways may be tried: a few seconds, and that only on a text that was made for it.
MOST_WAYS = 400_000_000
#: A repeat up to more than this counts as one of open length.
_LONG = 16
#: A part that matches in several ways may be repeated so often.
_REPEATED = 4

_REPEATS = (kind.MAX_REPEAT, kind.MIN_REPEAT, kind.POSSESSIVE_REPEAT)
_ANCHORS = (kind.AT_BEGINNING, kind.AT_BEGINNING_STRING)

#: Letters that the engine takes for an i, and str.casefold does not: dotless i, and the dot above, left of a capital I with it.
_EQUAL = {0x131: "i", 0x307: None}


class _Nested(Exception):
    """A part that matches in several ways is repeated: the ways multiply with each character of the text."""


def runs_away(pattern: str, *, anywhere: bool) -> str:
    """Why `pattern`, which compiles, must not be used, and what to write; "" when it may be. `anywhere`: it is searched for in the text,
    not matched from its start."""
    parsed = _parser.parse(pattern)
    items = list(parsed)
    anchored = bool(items) and items[0][0] is kind.AT and items[0][1] in _ANCHORS and not parsed.state.flags & re.MULTILINE
    try:
        if items and items[-1][0] in _REPEATS and _ways(items[-1][1][2]) == (0, 1):
            items.pop()  # nothing comes behind it that could fail
        lengths, ways = _ways(items)
    except _Nested:
        return (
            "repeats a part that can match in several ways and could try for years on one text; repeat characters or sets, as in [a-z ]+, "
            "not a group with *, +, ?, {} or | in it"
        )
    starts = anywhere and not anchored
    if math.comb(LONGEST_TEXT + lengths + starts, lengths + starts) * ways > MOST_WAYS:
        return (
            f"could try for hours on a long text; write at most {2 if starts else 3} parts of open length (*, + or {{n,}}) one after "
            f"another{' (^ at its start saves one)' if starts else ''}, or give them a length, as in .{{0,16}}"
        )
    return ""


def _ways(items: Sequence[tuple[Any, Any]]) -> tuple[int, int]:
    """(how many parts of open length stand one after another, in how many ways the rest can match). Raises _Nested."""
    lengths, ways = 0, 1
    for name, value in items:
        found = _of_one(name, value)
        lengths, ways = lengths + found[0], min(ways * found[1], MOST_WAYS + 1)
    return lengths, ways


def _of_one(name: Any, value: Any) -> tuple[int, int]:
    if name in _REPEATS:
        low, high, body = value
        lengths, ways = _ways(body)
        if (lengths or ways > 1) and high > 1:
            if high > _REPEATED:
                raise _Nested
            return lengths * high, (ways + (low < high)) ** high
        if high > _LONG and low < high:
            return 1, 1
        return lengths, ways + high - low
    if name is kind.BRANCH:
        return _of_branch(value[1])
    if name is kind.SUBPATTERN:
        return _ways(value[3])
    if name in (kind.ASSERT, kind.ASSERT_NOT):
        return _ways(value[1])
    if name is kind.ATOMIC_GROUP:
        return _ways(value)
    if name is kind.GROUPREF:
        return 1, 1  # as long as what it repeats, and compared anew at every place
    if name is kind.GROUPREF_EXISTS:
        return _of_branch([branch for branch in value[1:] if branch is not None])
    return 0, 1


def _of_branch(branches: Sequence[Any]) -> tuple[int, int]:
    found = [_ways(branch) for branch in branches]
    lengths = max(one[0] for one in found)
    firsts = [_folded(chr(branch[0][1])) for branch in branches if len(branch) and branch[0][0] is kind.LITERAL]
    if len(firsts) == len(branches) == len(set(firsts)):
        return lengths, max(one[1] for one in found)  # the first character tells which it is
    return lengths, sum(one[1] for one in found)


def _folded(character: str) -> str:
    """Equal for characters that are equal to the engine when it takes no notice of upper and lower case."""
    return character.casefold().translate(_EQUAL)
