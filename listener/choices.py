"""A held study's doubts as a form, and the form as a `Release`: the choices are those that the doubts list, as for `fourview release`.

And the form as it is posted: in the one way in which browsers and htmx send ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request

from listener.keys import is_uid
from listener.media_types import parse_accept
from store.grouping import Release
from store.study import View

_FORM = "application/x-www-form-urlencoded"
#: No form of ours has more.
_MOST_FIELDS = 100
#: What a doubt lists -> the sentence of the page and what of it is filled in.
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("choice_exclude", re.compile(r"--exclude (?P<uid>[0-9.]{1,64})")),
    ("choice_view", re.compile(r"--view (?P<uid>[0-9.]{1,64})=VIEW")),
    ("choice_patient_of", re.compile(r"--accept-patient --patient-of (?P<uid>[0-9.]{1,64})")),
    ("choice_accept", re.compile(r"--accept-patient")),
    ("choice_pacs", re.compile(r"--patient-from-pacs")),
    ("choice_file", re.compile(r"--use-file (?P<number>[0-9]{1,18})")),
)


class Fields(Mapping[str, str]):
    """The fields of a form that was posted: of each name the last value, and `every` value of the names that begin alike."""

    def __init__(self, items: Sequence[tuple[str, str]]) -> None:
        self._items = tuple(items)
        self._last = dict(items)

    def __getitem__(self, name: str) -> str:
        return self._last[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._last)

    def __len__(self) -> int:
        return len(self._last)

    def every(self, beginning: str) -> list[str]:
        """The values that are not empty of the fields whose names begin so."""
        return [value for name, value in self._items if name.startswith(beginning) and value]


async def fields(request: Request) -> Fields:
    """The fields of the form in a request's body (URL Standard 5.1). HTTPException 415 when its type is another, 400 when it is none.

    No other charset is taken: of those that Python knows, some take quadratic time, and some make text that cannot be stored.
    """
    kinds = parse_accept(request.headers.get("content-type", ""))
    if [kind.media_type for kind in kinds] != [_FORM] or kinds[0].parameters.get("charset", "utf-8").lower() != "utf-8":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "bad_form")
    body = await request.body()
    try:
        return Fields(parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS))
    except ValueError:  # of UnicodeDecodeError too
        raise HTTPException(HTTPStatus.BAD_REQUEST, "bad_form") from None


class BadChoice(ValueError):
    """A choice that no doubt can have listed."""


@dataclass(frozen=True)
class Choice:
    """One way to settle a doubt: the key of its sentence, what is filled in, and the value that the form sends."""

    key: str
    values: Mapping[str, str]
    value: str

    @property
    def asks_for_view(self) -> bool:
        """Whether the person must say which view it is."""
        return self.key == "choice_view"


@dataclass(frozen=True)
class Settling:
    """One doubt and the ways to settle it."""

    reason: str
    choices: tuple[Choice, ...]


def settling(doubts: Sequence[Mapping[str, Any]]) -> list[Settling]:
    """The doubts of a held study, as `Search.study` tells them."""
    return [Settling(doubt["reason"], tuple(_choice(text) for text in doubt["choices"])) for doubt in doubts]


def _choice(text: str) -> Choice:
    for key, pattern in _KINDS:
        if found := pattern.fullmatch(text):
            return Choice(key, {"uid": "", "number": "", **found.groupdict()}, text)
    raise BadChoice(text)


def release_of(form: Fields) -> Release:
    """What a person chose: in `choice...` as the doubts list it, and the view of each image in `view:UID`. Raises BadChoice."""
    exclude: list[str] = []
    views: dict[str, View] = {}
    files: list[int] = []
    accept, patient_of, from_pacs = False, "", False
    for text in form.every("choice"):
        one = _choice(text)
        uid = one.values["uid"]
        if uid and not is_uid(uid):
            raise BadChoice(text)
        if one.key == "choice_exclude":
            exclude.append(uid)
        elif one.key == "choice_view":
            views[uid] = _view(form.get(f"view:{uid}", ""))
        elif one.key == "choice_file":
            files.append(int(one.values["number"]))
        elif one.key == "choice_pacs":
            from_pacs = True
        else:
            accept, patient_of = True, uid
    return Release(
        exclude=tuple(exclude),
        view=views,
        accept_patient=accept,
        patient_of=patient_of,
        patient_from_pacs=from_pacs,
        use_file=tuple(files),
    )


def _view(text: str) -> View:
    try:
        return View(text)
    except ValueError:
        raise BadChoice(text) from None
