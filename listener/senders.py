"""Settings of single senders, by calling AE title: the tables `[[sender]]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from listener.config_values import AETitle, Location, Table, suggestion
from listener.dialect import Distrusted, Phrases, SideWords, ViewWords
from store.dialect import Sender
from store.pace import Pace

#: 0: any number.
StudiesPerHour = Annotated[int, Field(ge=0, le=1_000_000)]

#: PS3.3 Tables C.12-2 and C.12-5: character sets that stand alone, as far as pydicom reads them.
_ALONE = (
    *(f"ISO_IR {number}" for number in (100, 101, 109, 110, 144, 127, 126, 138, 148, 13, 166, 192)),
    "GB18030",
    "GBK",
)
#: Tables C.12-3 and C.12-4: those that others may stand beside.
_WITH_OTHERS = tuple(f"ISO 2022 IR {number}" for number in (6, 100, 101, 109, 110, 144, 127, 126, 138, 148, 13, 166, 87, 159, 149, 58))


def _character_set(text: str) -> str:
    """PS3.3 C.12.1.1.2: one defined term, or several with backslashes between them, of which the first may be empty."""
    values = [value.strip(" ") for value in text.split("\\")]
    for number, value in enumerate(values):
        if value not in (*_ALONE, *_WITH_OTHERS) and (value or len(values) == 1 or number):
            near = suggestion(value.upper(), (*_ALONE, *_WITH_OTHERS)) or "; write one as in ISO_IR 192, GB18030 or ISO 2022 IR 149"
            raise ValueError(f"{value!r} is no defined term (PS3.3 C.12.1.1.2){near}")
        if len(values) > 1 and value in _ALONE:
            raise ValueError(f"{value} stands alone; beside others write terms as in ISO 2022 IR 149")
    return "\\".join(values)


CharacterSet = Annotated[str, AfterValidator(lambda text: _character_set(text) if text else "")]


@dataclass(frozen=True, kw_only=True)
class SenderTable(Table):
    ae_title: AETitle
    studies_per_hour: StudiesPerHour | None = None
    default_character_set: CharacterSet = ""
    side_words: SideWords = field(default_factory=dict)
    view_words: ViewWords = field(default_factory=dict)
    synthetic_words: Phrases = ()
    distrust: Distrusted = ()


def pace(senders: Sequence[SenderTable], otherwise: int) -> Pace:
    """How many studies of each sender are read in an hour like all others; `otherwise` of one that does not say."""
    per_hour = {one.ae_title: one.studies_per_hour for one in senders if one.studies_per_hour is not None}
    return Pace(per_hour=per_hour, otherwise=otherwise)


def habits(senders: Sequence[SenderTable]) -> dict[str, Sender]:
    """What is peculiar to what each of them sends, by calling AE title."""
    return {
        one.ae_title: Sender(
            character_set=one.default_character_set,
            side_words=one.side_words,
            view_words=one.view_words,
            synthetic_words=one.synthetic_words,
            distrust=one.distrust,
        )
        for one in senders
    }


def contradictions(senders: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Location, str]]:
    """What is wrong between senders that are right by themselves: (location, message). Works on what was written, valid or not."""
    titles: list[str] = []
    for index, table in enumerate(senders):
        title = str(table.get("ae_title", "")).strip(" ")
        if title and title in titles:
            yield ("sender", index, "ae_title"), f"there is already a [[sender]] {title}; join the two"
        elif near := next((one for one in titles if one.casefold() == title.casefold()), ""):
            yield ("sender", index, "ae_title"), f"there is already a [[sender]] {near}, and AE titles differ by upper and lower case too"
        titles.append(title)
