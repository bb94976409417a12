"""The typeface of the page: Noto Sans KR, regular and bold, which travels with the project so that no machine's fonts enter the bytes.

The files in `fonts/` are a subset of Noto Sans CJK (SIL Open Font License 1.1, beside them) with the glyphs of `characters.txt`: ASCII, the
letters of Latin-1, and what the Korean sentences of `pipeline.wording` need. After a change of those sentences, `characters.txt` is
completed and the subset is made anew by fontTools from Debian's package fonts-noto-cjk 20220127, for Regular and for Bold:

    pyftsubset /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc --font-number=1 --text-file=characters.txt --layout-features= \\
        --no-hinting --desubroutinize --name-IDs=0,1,2,3,4,5,6,13,14 --output-file=NotoSansKR-Regular.otf
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

from PIL import ImageFont

_FONTS = Path(__file__).parent / "fonts"
CHARACTERS = frozenset((_FONTS / "characters.txt").read_text("utf-8")) - {"\n"}


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The typeface in `size` pixels."""
    # Basic layout: the other engine is not there in every build of Pillow and sets letters elsewhere.
    file = _FONTS / f"NotoSansKR-{'Bold' if bold else 'Regular'}.otf"
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)


def drawable(text: str) -> str:
    """`text` in the characters that the typeface has: accents are dropped where it must be, what remains unknown becomes "?"."""
    return "".join(letter if letter in CHARACTERS else _plain(letter) for letter in unicodedata.normalize("NFC", text))


def _plain(letter: str) -> str:
    bare = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    return bare if bare and CHARACTERS.issuperset(bare) else "?"


def width(text: str, size: int, *, bold: bool = False) -> float:
    """How many pixels `text` is wide when drawn."""
    return font(size, bold=bold).getlength(drawable(text))


def wrapped(text: str, size: int, room: float, *, bold: bool = False) -> list[str]:
    """`text` in lines of at most `room` pixels, broken at spaces and after slashes, and anywhere inside a word that is wider still."""
    lines = [""]
    for piece in drawable(text).replace(" ", " \0").replace("/", "/\0").split("\0"):
        if width((lines[-1] + piece).rstrip(), size, bold=bold) <= room:
            lines[-1] += piece
            continue
        if lines[-1]:
            lines.append("")
        for letter in piece:
            if width((lines[-1] + letter).rstrip(), size, bold=bold) > room:
                lines.append("")
            lines[-1] += letter
    return [line.strip() for line in lines if line.strip()]


def cut(text: str, size: int, room: float, *, bold: bool = False) -> str:
    """`text` in one line of at most `room` pixels, with dots where something is left out."""
    lines = wrapped(text, size, room, bold=bold)
    return lines[0] if len(lines) == 1 else f"{wrapped(text, size, room - 3 * size, bold=bold)[0]} ..."
