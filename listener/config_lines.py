"""Where the tables and keys of a configuration file are written: tomllib keeps no line numbers."""

from __future__ import annotations

import re

from listener.config_values import Location

_PART = r"(?:\"[^\"]*\"|'[^']*'|[\w-]+)"
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(#.*)?")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")


def line_numbers(text: str) -> dict[Location, int]:
    """Line numbers, from 1, of tables and keys. Reads only text that tomllib has accepted."""
    lines: dict[Location, int] = {}
    table: Location = ()
    counts: dict[Location, int] = {}
    open_quotes = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if open_quotes:
            open_quotes = "" if open_quotes in line else open_quotes
            continue
        if header := _HEADER.fullmatch(line):
            table = ()
            for part in _parts(header[2]):
                # A table below a list of tables belongs to the last one of the list.
                table = (*table, counts[table] - 1, part) if table in counts else (*table, part)
            if header[1] == "[[":
                lines.setdefault(table, number)
                counts[table] = counts.get(table, 0) + 1
                table = (*table, counts[table] - 1)
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_parts(key[1])), number)
            open_quotes = next((quotes for quotes in ('"""', "'''") if line.count(quotes) == 1), "")
    return lines


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_PART, dotted)]
