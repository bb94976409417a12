"""Views named in free text, the last resort, and the words of a site's language and devices.

Texts are compared word by word, never by parts of words: "CC" is inside "XCCL" and "ACCESSION". The labels are those of PS3.16 CID 4014
and CID 4015, which also say how they are put together: side, then M or S, then the view, then the modifier, as in RMCC and LMLOID.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from store.dialect import STANDARD, Device, Dialect
from store.header_text import Attributes
from store.view_codes import VIEW_POSITIONS

#: Words that say a side everywhere; a site's words come on top.
SIDE_WORDS: Mapping[str, str] = {"L": "L", "LT": "L", "LEFT": "L", "R": "R", "RT": "R", "RIGHT": "R"}

#: Attributes whose text may name the view, best first. Study Description is of the whole exam and names none.
TEXT_SOURCES = (
    "ViewPosition",
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "PerformedProcedureStepDescription",
)

#: What `Habits.distrust` may name: what tells side, view, kind and rank, but nothing that keeps an image out for safety.
TRUSTED = (
    "ImageLaterality",
    "FrameLaterality",
    "Laterality",
    "AnatomicRegionSequence",
    "PatientOrientation",
    "ViewCodeSequence",
    "ViewModifierCodeSequence",
    *TEXT_SOURCES,
    "PaddleDescription",
    "EstimatedRadiographicMagnificationFactor",
    "VolumetricProperties",
    "ConcatenationUID",
    "BreastImplantPresent",
    "PartialView",
)


@dataclass(frozen=True, kw_only=True)
class Words:
    """What the words of one header mean."""

    sides: Mapping[str, str]
    views: Mapping[str, str]
    synthetic: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, dialect: Dialect, device: Device | None) -> Words:
        """The words of a header that this device wrote and that `dialect.sender` sent; what outranks what: see `Dialect`."""
        sender, device = dialect.sender, device or _NO_DEVICE
        sides = (dialect.side_words, sender.side_words, device.side_words)
        return cls(
            sides={**{word: side for words in sides for word, side in _in_capitals(words).items()}, **SIDE_WORDS},
            views={**_in_capitals(sender.view_words), **_in_capitals(device.view_words), **_LABELS},
            synthetic=tuple(phrase for written in (*sender.synthetic_words, *device.synthetic_words) if (phrase := tokens(written))),
        )


_NO_DEVICE = Device()
_LABELS = {label: label for label in VIEW_POSITIONS}


@dataclass(frozen=True, kw_only=True)
class NamedView:
    """A view that the text of one attribute names."""

    keyword: str
    side: str | None
    label: str
    modifiers: tuple[str, ...]


def tokens(text: str) -> tuple[str, ...]:
    """The words of a text in upper case: letters and digits of any script; everything else parts them. Full-width letters are letters."""
    plain = unicodedata.normalize("NFKC", text).upper() if not text.isascii() else text.upper()
    return tuple("".join(one if one.isalnum() else " " for one in plain).split())


def _in_capitals(words: Mapping[str, str]) -> dict[str, str]:
    return {"".join(tokens(word)): meaning for word, meaning in words.items()}


def words_of(dialect: Dialect, manufacturer: str, model: str) -> tuple[Words, frozenset[str]]:
    """(words, distrusted keywords) for a header of this device."""
    if dialect == STANDARD:
        return _STANDARD_WORDS, frozenset()
    device = next((one for one in dialect.devices if one.matches(manufacturer, model)), None)
    return Words.of(dialect, device), frozenset((*dialect.sender.distrust, *(device.distrust if device else ())))


_STANDARD_WORDS = Words.of(STANDARD, None)


def contains(several: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether the words of `phrase` follow one another somewhere in `several`."""
    return any(tuple(several[start : start + len(phrase)]) == tuple(phrase) for start in range(len(several) - len(phrase) + 1))


# ------------------------------------------------------------------------------------------------------------ words for a part

#: A paddle or a text that says spot compression or magnification: "SPOT 8 cm", "10CM SPT", "MAG1.8".
_PART_WORDS = (
    (re.compile(r"(SPOT|SPT)(\d.*)?"), "S"),
    (re.compile(r"MAG(\d.*|N|NIFICATION|NIFIED|NIFY)?"), "M"),
)


def part_modifiers(several: Sequence[str]) -> frozenset[str]:
    """The modifiers S and M of CID 4015 as far as whole words name them."""
    return frozenset(label for word in several for pattern, label in _PART_WORDS if pattern.fullmatch(word))


# ------------------------------------------------------------------------------------------------------------------ named views

_PREFIXES = ("M", "S")
_SUFFIXES = ("ID", "RL", "RM", "RI", "RS", "NP", "AC", "IMF", "AX")
#: A view with its modifiers in one word: "MLOID" -> (MLO, (ID,)).
_MODIFIED = {
    f"{prefix}{label}{suffix}": (label, tuple(part for part in (prefix, suffix) if part))
    for label in VIEW_POSITIONS
    for prefix in ("", *_PREFIXES)
    for suffix in ("", *_SUFFIXES)
    if f"{prefix}{label}{suffix}" == label or f"{prefix}{label}{suffix}" not in VIEW_POSITIONS
}
#: Without a side in the same word only the views of the standard exam are read with modifiers: "MISO" and "LMAX" are words of their own.
_SIDELESS = {word: reading for word, reading in _MODIFIED.items() if reading[0] in ("CC", "MLO") and reading[1]}


@dataclass(frozen=True)
class _Reading:
    side: str | None
    label: str
    modifiers: tuple[str, ...]


def _glued(word: str, words: Words) -> _Reading | None:
    """Side and view in one word, as LCC; None when it is no such word, or may be read in several ways."""
    found = set()
    for length in range(1, len(word)):
        side = words.sides.get(word[:length])
        if side is None:
            continue
        rest = word[length:]
        if reading := _MODIFIED.get(rest):
            found.add(_Reading(side, *reading))
        elif label := words.views.get(rest):
            found.add(_Reading(side, label, ()))
    return found.pop() if len(found) == 1 else None


def _named(text: str, keyword: str, words: Words) -> NamedView | None:
    """The one view that `text` names; None when it names none, several, or contradicts itself."""
    several = tokens(text)
    sides: set[str] = set()
    views: set[_Reading] = set()
    for place, word in enumerate(several):
        suffix = tuple(following for following in several[place + 1 : place + 2] if following in _SUFFIXES)
        if word in words.sides:
            sides.add(words.sides[word])
        elif label := words.views.get(word):
            views.add(_Reading(None, label, suffix))
        elif modified := _SIDELESS.get(word):
            views.add(_Reading(None, modified[0], modified[1] + suffix))
        elif glued := _glued(word, words):
            views.add(_Reading(glued.side, glued.label, glued.modifiers + suffix))
    if len({view for view in views if view.side}) > 1 or len({view.label for view in views}) != 1:
        return None
    told = {view.side for view in views if view.side}
    if told and sides - told:
        return None
    sides |= told
    modifiers = part_modifiers(several).union(*(view.modifiers for view in views))
    return NamedView(
        keyword=keyword,
        side=sides.pop() if len(sides) == 1 else None,
        label=views.pop().label,
        modifiers=tuple(sorted(modifiers)),
    )


def named_views(header: Attributes, words: Words, *, skip: str = "") -> Iterator[NamedView]:
    """The views that the text sources name, best source first, at most one each; the source `skip` is not a text in this header."""
    for keyword in TEXT_SOURCES:
        if keyword != skip and (text := header.text(keyword)) and (found := _named(text, keyword, words)):
            yield found
