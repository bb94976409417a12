"""How a page is made: template, language, person, what went wrong in words. The templates escape everything that they are given.

A page works under the Content-Security-Policy `default-src 'self'`: no script, no style and no handler stands in it (CSP3 6.1).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import jinja2
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from markupsafe import Markup, escape

from listener.cards import tone
from listener.catalogue import LANGUAGES, SENTENCES, Catalogue, preferred
from listener.desk import UnknownDestination
from listener.show import harmless
from listener.who import ANYBODY, Person, Role
from listener.who import person as who_asks
from store.database import DatabaseAway, NoConnection
from store.rows import UnknownStudy

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
COOKIE = "fourview_language"
_YEAR_SECONDS = 365 * 24 * 3600

#: What a store raises -> status, and the sentence; None: its own message, which is English.
_PROBLEMS: tuple[tuple[type[Exception], HTTPStatus, str | None], ...] = (
    (UnknownStudy, HTTPStatus.NOT_FOUND, None),
    (UnknownDestination, HTTPStatus.BAD_REQUEST, None),
    (DatabaseAway, HTTPStatus.SERVICE_UNAVAILABLE, "database_away_page"),
    (NoConnection, HTTPStatus.SERVICE_UNAVAILABLE, "database_away_page"),
    (RequestValidationError, HTTPStatus.BAD_REQUEST, "error_400"),
)


class Pages:
    """Makes pages for one installation: times in `zone`, `language` for who prefers none of ours."""

    def __init__(self, *, zone: ZoneInfo, language: str, version: str = "") -> None:
        self._zone = zone
        self._language = language
        self._version = version
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            finalize=_harmless,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {"static": static_url, "tone": tone, "Role": Role}
        self._environment.filters |= {
            "iso": _iso,
            "per_cent": _per_cent,
            "dicom_date": _dicom_date,
            "moment": _moment,
            "person_name": _person_name,
            "uids": shortened,
        }

    def midnight(self, now: datetime) -> datetime:
        """When the day of `now` began here."""
        return now.astimezone(self._zone).replace(hour=0, minute=0, second=0, microsecond=0)

    @staticmethod
    def part_is_wanted(request: Request) -> bool:
        """Whether htmx asks for the part of the page that lives."""
        return request.headers.get("HX-Request") == "true"

    def language(self, request: Request) -> str:
        """The language of an answer: what the address says, else what was chosen before, else what the browser prefers, else the site's."""
        for chosen in (request.query_params.get("lang"), request.cookies.get(COOKIE)):
            if chosen in LANGUAGES:
                return str(chosen)
        return preferred(request.headers.get("Accept-Language", ""), self._language)

    def render(self, request: Request, person: Person, template: str, *, status: int = HTTPStatus.OK, **values: Any) -> Response:
        """The page that `template` makes of `values`."""
        language = self.language(request)
        now = datetime.now(self._zone)
        common = {
            "t": Catalogue(language),
            "lang": language,
            "languages": [(one, SENTENCES["language"][place], _with(request, lang=one)) for place, one in enumerate(LANGUAGES)],
            "words": Catalogue(language).words,
            "person": person,
            "signed_in": person != ANYBODY,
            "may_decide": person.role.covers(Role.OPERATOR),
            "may_rule": person.role.covers(Role.ADMIN),
            "path": request.url.path,
            "version": self._version,
            "when": lambda moment: _when(moment, self._zone, now),
            "clock": f"{now:%H:%M:%S}",
        }
        content = self._environment.get_template(template).render({**common, **values})
        response = HTMLResponse(content, status_code=status, headers={"Content-Language": language})
        if request.query_params.get("lang") in LANGUAGES:
            response.set_cookie(COOKIE, language, max_age=_YEAR_SECONDS, httponly=True, samesite="lax")
        return response

    def problem(self, request: Request, status: int, text: str, *, ours: bool) -> Response:
        """The page that says what went wrong. `ours`: `text` is the key of a sentence, else a message in English."""
        known = f"error_{status}" if f"error_{status}" in SENTENCES else "error"
        response = self.render(request, who_asks(request), "error.html", status=status, title=known, text=text, ours=ours)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            response.headers["Retry-After"] = "5"
        return response

    def route_class(self) -> type[APIRoute]:
        """Routes whose failures are pages in words."""
        pages = self

        class PageRoute(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handler = super().get_route_handler()

                async def answer(request: Request) -> Response:
                    try:
                        return await handler(request)
                    except HTTPException as refusal:
                        text = str(refusal.detail)
                        return pages.problem(request, refusal.status_code, text, ours=text in SENTENCES)
                    except tuple(kind for kind, _, _ in _PROBLEMS) as problem:
                        status, key = next((status, key) for kind, status, key in _PROBLEMS if isinstance(problem, kind))
                        log.info("page refused error=%s status=%d", type(problem).__name__, status)
                        return pages.problem(request, status, key or str(problem), ours=key is not None)

                return answer

        return PageRoute


def _harmless(value: Any) -> Any:
    """Every value that a template shows passes here, before it is escaped."""
    if isinstance(value, Markup):
        return Markup(harmless(value))  # nosec B704 # noqa: S704 - as safe as it was: an escape has no character of HTML
    return harmless(value) if isinstance(value, str) else value


@cache
def static_url(name: str) -> str:
    """The address of a file of ours, which changes with its content: browsers may keep it."""
    return f"/static/{name}?{urlencode({'v': hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]})}"


def _with(request: Request, **changed: str) -> str:
    """The address of this page with other parameters."""
    kept = {name: value for name, value in request.query_params.items() if name not in ("told", "count")}
    return f"{request.url.path}?{urlencode({**kept, **changed})}"


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _when(moment: datetime | None, zone: ZoneInfo, now: datetime) -> str:
    """A time as people read it here: of today without the date."""
    if moment is None:
        return "–"
    local = moment.astimezone(zone)
    return f"{local:%H:%M:%S}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M}"


def _per_cent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def _moment(text: str) -> datetime | None:
    """A time that was stored as text; None for other texts."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _dicom_date(text: str) -> str:
    """A date of DICOM (PS3.5 6.2, DA); what is none is shown as it came."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


#: PS3.5 9.1; what is shorter is told apart by itself, and may be an address.
_UID = re.compile(r"(?P<study>study )?\b(?P<uid>[0-2](?:\.[0-9]+){2,})\b")
_LONG = 20
_TO_STUDY = Markup('<a href="/studies/{0}" title="{0}">{1}…{2}</a>')
_ABBREVIATED = Markup('<abbr title="{0}">{1}…{2}</abbr>')


def shortened(text: str, names: Mapping[str, str] | None = None) -> Markup:
    """A sentence of the store with the UIDs in it cut to their ends, behind the name of the image when `names` has one; whole ones are in
    the element's title. One that a sentence calls a study's leads to its page."""
    parts, end = [], 0
    for found in _UID.finditer(text):
        uid = found["uid"]
        if len(uid) < _LONG:
            continue
        name = f"{names[uid]} " if names and names.get(uid) else ""
        if text[: found.start("uid")].endswith(name):
            name = ""  # the sentence says it
        parts.append(escape(text[end : found.start("uid")]))
        parts.append((_TO_STUDY if found["study"] else _ABBREVIATED).format(uid, name, uid[-6:]))
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def _person_name(text: str) -> str:
    """A person's name (PS3.5 6.2.1) as people write it: the first group that is not empty, family name first."""
    group = next((one for one in text.split("=") if one.strip("^ ")), "")
    family, _, given = group.partition("^")
    rest = " ".join(given.replace("^", " ").split())
    return f"{family.strip()}, {rest}" if family.strip() and rest else family.strip() or rest
