"""The fixed sentences of both languages, and the typeface that draws them."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path

import pytest
from PIL import ImageFont
from reports_made import MODEL, VARIANTS

from pipeline import wording
from pipeline.report import typeface
from pipeline.report.remarks import remarks
from pipeline.wording import ENGLISH, KOREAN, Wording
from store.study import HANGING_ORDER, RANKING, Outcome, View

FONTS = Path(typeface.__file__).parent / "fonts"


def sentences(words: Wording) -> Iterator[tuple[str, str]]:
    """(where, text) of every text of a language."""
    for field in fields(words):
        value = getattr(words, field.name)
        for text in [value] if isinstance(value, str) else value.values() if isinstance(value, Mapping) else value:
            yield field.name, text


def has_glyph(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    """Whether `letter` is drawn otherwise than a letter that no typeface has."""
    return bytes(font.getmask(letter)) != bytes(font.getmask("\U0010ffff"))


@pytest.mark.parametrize("bold", [False, True], ids=["regular", "bold"])
def test_every_letter_of_the_sentences_has_a_glyph(bold: bool) -> None:
    font = typeface.font(40, bold=bold)
    assert not has_glyph(font, "뷁"), "a letter that is not in the subset"
    needed = {letter for words in (ENGLISH, KOREAN) for _, text in sentences(words) for letter in text} | set(string.printable[:95])
    assert sorted(needed - typeface.CHARACTERS) == []
    assert [letter for letter in sorted(typeface.CHARACTERS - {" "}) if not has_glyph(font, letter)] == []


def test_the_typeface_travels_with_its_licence() -> None:
    assert "SIL OPEN FONT LICENSE Version 1.1" in (FONTS / "OFL.txt").read_text("utf-8")
    assert {path.name for path in FONTS.iterdir()} == {"NotoSansKR-Regular.otf", "NotoSansKR-Bold.otf", "characters.txt", "OFL.txt"}
    assert typeface.font(20).getname() == ("Noto Sans CJK KR", "Regular")
    assert typeface.font(20, bold=True).getname() == ("Noto Sans CJK KR", "Bold")


def test_both_languages_fill_in_the_same_names() -> None:
    """A name in braces that one language forgets is a fact that its reader is not told."""

    def names(text: str) -> list[str]:
        return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)

    english, korean = ({where: names(text) for where, text in sentences(words) if names(text)} for words in (ENGLISH, KOREAN))
    assert english == korean
    assert len(english) > 15


def test_korean_leaves_no_sentence_in_english() -> None:
    same = {where for (where, text), (_, other) in zip(sentences(ENGLISH), sentences(KOREAN), strict=False) if text == other}
    assert same <= {"nothing_excluded_of"}
    for where, text in sentences(KOREAN):
        if where not in {"code", "nothing_excluded_of", "and_rule"}:
            assert any("가" <= letter <= "힣" for letter in text), text


def test_every_rule_of_the_election_has_its_words() -> None:
    assert ENGLISH.ranking is RANKING
    assert len(KOREAN.ranking) == len(set(KOREAN.ranking)) == len(RANKING)


def test_a_class_that_is_not_known_keeps_its_name() -> None:
    assert KOREAN.class_name("Something") == ENGLISH.class_name("Something") == "Something"
    assert set(KOREAN.class_names) == set(MODEL.classes)


@pytest.mark.parametrize("words", [ENGLISH, KOREAN], ids=["English", "Korean"])
def test_words_that_a_reader_must_recognise_stand_in_every_language(words: Wording) -> None:
    left = (View.L_CC, View.L_MLO)
    assert "PARTIAL" in words.coverage(Outcome.PARTIAL, HANGING_ORDER) and "PARTIAL" in words.coverage(Outcome.PARTIAL, left)
    assert "UNILATERAL" in words.coverage(Outcome.UNILATERAL, left)
    assert "WITHDRAWN" in words.withdrawal and "WITHDRAWN" in words.withdrawal_in_short
    assert "UNTRAINED" in words.meaningless(replace(MODEL, trained=False))
    assert "SIMULATED" in words.meaningless(replace(MODEL, engine="simulated"))
    assert words.meaningless(MODEL) == words.coverage(Outcome.COMPLETE, HANGING_ORDER) == ""


@pytest.mark.parametrize("words", [ENGLISH, KOREAN], ids=["English", "Korean"])
@pytest.mark.parametrize("slots", [HANGING_ORDER, (View.L_CC, View.L_MLO), (View.R_CC, View.R_MLO)], ids=["both", "left", "right"])
def test_short_texts_fit_their_attribute_also_in_bytes(words: Wording, slots: tuple[View, ...]) -> None:
    """Completion Flag Description (0040,A492) is LO; some readers count bytes."""
    outcomes = (Outcome.PARTIAL, Outcome.UNILATERAL) if len(slots) == 2 else (Outcome.PARTIAL,)
    for text in (words.withdrawal_in_short, *(f"{outcome}: {words.views_analysed(2, slots)}" for outcome in outcomes)):
        assert len(text.encode("utf-8")) <= 64


def test_sides_are_not_mixed_up() -> None:
    assert KOREAN.coverage(Outcome.UNILATERAL, (View.L_CC, View.L_MLO)) == (
        "편측 결과(UNILATERAL): 이 결과는 왼쪽 유방만을 대상으로 하며, 오른쪽 유방에 대해서는 어떠한 내용도 제시하지 않습니다."
    )
    assert KOREAN.views_analysed(1, (View.R_CC, View.R_MLO)) == "오른쪽 유방 촬영상 2개 중 1개 분석됨"


@pytest.mark.parametrize("name", VARIANTS)
def test_no_name_in_braces_is_left_over(name: str) -> None:
    assert not [line for line in remarks(VARIANTS[name]()) if "{" in line or "}" in line]


def test_only_known_languages_are_spoken() -> None:
    assert wording.in_language("en") is ENGLISH and wording.in_language("ko") is KOREAN
    with pytest.raises(ValueError, match="choose one of en, ko"):
        wording.in_language("")
