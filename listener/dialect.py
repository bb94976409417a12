"""The words of a site's language and the habits of its senders and devices, as `[study] side_words`, `[[sender]]` and `[[device]]` write
them: checked, in capitals.

A wrong word puts an image on the wrong side, so every word that a header may already use for something else is refused: sides, the views
of PS3.16 CID 4014, and the modifiers of CID 4015.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydicom.dataset import Dataset

from store.view import CID_4014, CID_4015, SIDE_WORDS, TRUSTED, resolve_view
from store.view_codes import VIEW_POSITIONS
from store.view_text import tokens

_Location = tuple[str | int, ...]

#: The views that texts name.
_NAMED_VIEWS = tuple(label for label in CID_4014 if label in VIEW_POSITIONS)
_SIDE_NAMES = {"L": "left", "R": "right"}


def _paired(value: object) -> object:
    """Words from the environment, where they are written as WORD=L,WORD=R."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("write words with their sides, with commas between them, as in D=R,E=L")
    return {word.strip(): side.strip() for word, _, side in pairs}


def _in_capitals(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().upper()


def _word(text: str) -> str:
    """One word, as texts are compared: in capitals."""
    word = _in_capitals(text)
    if tokens(word) != (word,) or not any(map(str.isalpha, word)):
        raise ValueError("write one word of letters and digits with at least one letter; texts are compared word by word")
    if word in CID_4015:
        raise ValueError(f"{word} stands for {CID_4015[word][2]} (CID 4015) in names of views; write a longer word")
    return word


def _side_word(text: str) -> str:
    word = _word(text)
    if word in CID_4014:
        raise ValueError(f"{word} is a view of CID 4014 and is never a side; leave it out")
    for label in _NAMED_VIEWS if word not in SIDE_WORDS else ():
        _must_say(f"{word}{label}", None)
        _must_say(f"{word} {label}", label)
    return word


def _view_word(text: str) -> str:
    word = _word(text)
    if word in SIDE_WORDS:
        raise ValueError(f"{word} says {_SIDE_NAMES[SIDE_WORDS[word]]} and is never a view; leave it out")
    for before in ("", *_SIDE_NAMES) if word not in CID_4014 else ():
        _must_say(f"{before}{word}", None)
    return word


def _must_say(name: str, label: str | None) -> None:
    """Refuse the word in `name` when headers already say more with such a name than a view: a side, or a part of the breast."""
    evidence = resolve_view(_described(name))
    if name in SIDE_WORDS or (evidence.laterality, evidence.view_position, evidence.modifiers) != (None, label, ()):
        raise ValueError(f"{name} means something else already; write a longer word")


def _described(name: str) -> Dataset:
    ds = Dataset()
    ds.SeriesDescription = name
    return ds


def _label(text: str) -> str:
    label = _in_capitals(text)
    if label not in CID_4014:
        near = difflib.get_close_matches(label, CID_4014, n=1)
        raise ValueError(
            f"no view of CID 4014; did you mean {near[0]}?" if near else f"no view of CID 4014; write one of {', '.join(CID_4014)}"
        )
    return label


def _phrase(text: str) -> str:
    phrase = " ".join(text.upper().split())
    if not phrase.isprintable() or not any(map(str.isalpha, phrase)):
        raise ValueError("write a word or several, with at least one letter, as they stand in Series Description")
    if all(word in CID_4014 or word in SIDE_WORDS for word in tokens(phrase)):
        raise ValueError(f"{phrase} names a side or a view, as acquired images do; write what only synthetic images are called")
    return phrase


def _trusted(keyword: str) -> str:
    if keyword not in TRUSTED:
        near = difflib.get_close_matches(keyword, TRUSTED, n=1)
        raise ValueError(f"did you mean {near[0]}?" if near else f"write one of {', '.join(TRUSTED)}")
    return keyword


def _device_name(text: str) -> str:
    """PS3.5 6.2, VR LO."""
    if not text.isprintable() or (text and not text.strip()):
        raise ValueError("write what the header says, without control characters")
    return text.strip()


SideWords = Annotated[dict[Annotated[str, AfterValidator(_side_word)], Literal["L", "R"]], BeforeValidator(_paired)]
ViewWords = dict[Annotated[str, AfterValidator(_view_word)], Annotated[str, AfterValidator(_label)]]
Phrases = tuple[Annotated[str, AfterValidator(_phrase)], ...]
Distrusted = tuple[Annotated[str, AfterValidator(_trusted)], ...]
DeviceName = Annotated[str, Field(max_length=64), AfterValidator(_device_name)]


def contradictions(
    study: Mapping[str, Any], senders: Sequence[Mapping[str, Any]], devices: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[_Location, str]]:
    """What is wrong between words, and between devices, that are right by themselves: (location, message). Works on what was written,
    whether or not it is valid."""
    site = _words(study.get("side_words"))
    yield from _wrong_sides(("study", "side_words"), site)
    for index, sender in enumerate(senders):
        # Any device may stand behind a sender.
        yield from _wrong_words(("sender", index), sender, [site, *(_words(device.get("side_words")) for device in devices)])
    for index, device in enumerate(devices):
        yield from _wrong_words(("device", index), device, [site, *(_words(sender.get("side_words")) for sender in senders)])
        number = next((number for number, other in enumerate(devices[:index], start=1) if _match_one(device, other)), None)
        if number is not None:
            location = ("device", index, "model" if device.get("model") else "manufacturer")
            yield location, f"[[device]] number {number} matches the same devices; write manufacturer and model in both, or join them"


def _wrong_words(
    table: _Location, written: Mapping[str, Any], others: Sequence[Sequence[tuple[str, str, str]]]
) -> Iterator[tuple[_Location, str]]:
    """What is wrong with the words of one table; `others`: side words that may count in the same header."""
    own, views = _words(written.get("side_words")), _words(written.get("view_words"))
    yield from _wrong_sides((*table, "side_words"), own)
    yield from _twice((*table, "view_words"), views)
    sides = {word for words in (own, *others) for _, word, _ in words}
    for name, word, label in views:
        entry = (*table, "view_words", name)
        if word in CID_4014 and _in_capitals(label) in CID_4014 and _in_capitals(label) != word:
            yield entry, f"{word} is a view of CID 4014 itself and never another one; leave it out"
        if word in sides:
            yield entry, f"{word} is a side word as well; a word says one thing only: leave one of them out"


def _wrong_sides(table: _Location, words: Sequence[tuple[str, str, str]]) -> Iterator[tuple[_Location, str]]:
    yield from _twice(table, words)
    for written, word, side in words:
        if side in _SIDE_NAMES and SIDE_WORDS.get(word, side) != side:
            yield (*table, written), f"{word} always says {_SIDE_NAMES[SIDE_WORDS[word]]}; leave it out"


def _twice(table: _Location, words: Sequence[tuple[str, str, str]]) -> Iterator[tuple[_Location, str]]:
    for index, (written, word, _) in enumerate(words):
        if any(word == earlier for _, earlier, _ in words[:index]):
            yield (*table, written), f"{word} is here twice; upper and lower case do not differ: leave one out"


def _words(table: object) -> list[tuple[str, str, str]]:
    """(word as written, word in capitals, meaning) of each entry; what is no table of texts is left for the validation to complain of."""
    try:
        paired = _paired(table)
    except ValueError:
        return []
    entries = paired.items() if isinstance(paired, dict) else ()
    return [(word, _in_capitals(word), said) for word, said in entries if isinstance(said, str)]


def _match_one(device: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether there can be a device that both tables match. A table that names none is complained of elsewhere."""
    ones, twos = ([str(table.get(key, "")).strip().casefold() for key in ("manufacturer", "model")] for table in (device, other))
    return any(ones) and any(twos) and all(not one or not two or one == two for one, two in zip(ones, twos, strict=True))
