"""What a key of config.toml may hold: kinds of values, each with the words that say what is wrong with one."""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from pipeline import rule_condition


def _ae_title(text: str) -> str:
    """PS3.5 6.2, VR AE: spaces around it do not count."""
    title = text.strip(" ")
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", title):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return title


def _listed(value: object) -> object:
    """A list from the environment, where it is written with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _one_line(text: object) -> str:
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        raise ValueError("write a text that is not empty and has no control characters")
    return text.strip()


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.:_%-]+", text):
        raise ValueError('write a host name or an IP address, as in "127.0.0.1"')
    return text


def _time_zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        if not known:
            raise ValueError("this machine has no time zone data; install the package tzdata") from None
        raise ValueError(f"no such time zone{suggestion(name, known) or '; write an IANA name, as in Europe/London'}") from None
    return name


def _database(url: str) -> str:
    if url.startswith("postgresql+psycopg://") or re.fullmatch(r"sqlite:///[^?:][^?]*", url):
        return url
    raise ValueError("write sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME")


def _web_address(url: str) -> str:
    if not url:
        return url
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known:
        raise ValueError("write an address as in http://127.0.0.1:8042")
    if "@" in parts.netloc:
        raise ValueError("write the user and the password as user and password_file, not in the address")
    return url.rstrip("/")


def _web_path(path: str) -> str:
    if not re.fullmatch(r"/[^\s?#]*", path):
        raise ValueError("write a path as in /dicom-web, which begins with a slash")
    return path


def _condition(when: str) -> str:
    rule_condition.check(when)
    return when


AETitle = Annotated[str, AfterValidator(_ae_title)]
Name = Annotated[str, Field(max_length=64), AfterValidator(_one_line)]
Host = Annotated[str, AfterValidator(_host)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Database = Annotated[str, AfterValidator(_database)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
WebPath = Annotated[str, AfterValidator(_web_path)]
Condition = Annotated[str, AfterValidator(_condition)]
Port = Annotated[int, Field(ge=1, le=65535)]
AtLeastZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FilePath = Annotated[Path, BeforeValidator(_one_line)]
#: In front of a tuple's type: it may also be written with commas, as in the environment.
COMMAS = BeforeValidator(_listed)

#: Unknown keys are mistakes, and no complaint shows a value that may be secret.
CLOSED = ConfigDict(extra="forbid", hide_input_in_errors=True)
#: Where a key was written: table, number of it if there are several, key.
Location = tuple[str | int, ...]


class Table:
    """What the tables' classes have in common."""

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` was meant to be, or ""."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a complaint about an unknown word, or ""."""
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else ""
