"""Marks that nobody writes by chance, and where they are found again, in whatever way they were written."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote


def written(mark: str) -> Iterator[bytes]:
    """The ways in which a text may hide in bytes; those without letters of both cases are to be sought in lower case."""
    codecs = ["utf-8"] if mark.isascii() else ["utf-8", "euc_kr", "iso2022_kr"]
    for codec in codecs:
        raw = mark.encode(codec)
        yield raw
        yield raw.hex().encode()
        yield quote(raw, safe="").encode()
        yield repr(raw)[2:-1].encode()
        for skipped in range(3):  # base64 of a text in the middle of another: what does not depend on its neighbours
            text = base64.b64encode(bytes(skipped) + raw)
            yield text[4 if skipped else 0 : len(text) // 4 * 4 - 4]
    for codec in ("utf-16-le", "utf-16-be", "utf-32-le"):
        yield mark.encode(codec)
    yield json.dumps(mark)[1:-1].encode()
    yield mark.encode("ascii", "xmlcharrefreplace")
    yield "".join(f"&#x{ord(one):x};" for one in mark).encode()
    yield mark.encode("unicode_escape")


def found(content: bytes, marks: Iterable[str]) -> set[str]:
    """Which marks a content has, in any of these ways, whatever the case. Eight digits stand in many a UID by chance: between digits they
    are none."""
    lower = content.lower()

    def has(form: bytes) -> bool:
        if form.isdigit() and len(form) < 12:
            return re.search(rb"(?<!\d)" + form + rb"(?!\d)", lower) is not None
        return len(form) >= 8 and form.lower() in lower

    return {mark for mark in marks if any(has(form) for form in written(mark))}


def found_below(folder: Path, marks: Iterable[str], *, names_only: bool = False) -> dict[str, set[str]]:
    """The same of all files below a folder: of their names, and of what is in them."""
    leaks: dict[str, set[str]] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        content = name.encode()
        if path.is_file() and not names_only:
            content += b"\n" + path.read_bytes()
        if leaked := found(content, marks):
            leaks[name] = leaked
    return leaks
