"""The door in front of every route: who asks, from where, how often, and one audit line for each look at a patient and each act.

Basic (RFC 7617) and Bearer (RFC 6750) authentication against the users of the configuration. Without users everybody is `who.ANYBODY`, and
the Host header must then name this machine, or a page on another site could read through a name that it makes point here.
Requests that change something are refused when a page of another origin makes a browser send them (Fetch Metadata, else Origin).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import re
import time
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit

from anyio import CapacityLimiter, to_thread
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from listener.audit import SAFE_METHODS, Audit
from listener.limits import Buckets
from listener.users import Password, Person, Token, Users, credentials
from listener.who import ANYBODY

log = logging.getLogger(__name__)

#: What asks these has no password, and they tell nothing of a patient.
OPEN = frozenset({"/healthz", "/readyz"})
CHALLENGE = {"WWW-Authenticate": 'Basic realm="Fourview", charset="UTF-8"'}
#: Wrong passwords for one name from one address, and for all names from one: so many at once, and so many a minute.
GUESSES_PER_NAME = 10
GUESSES_PER_ADDRESS = 60
#: Each costs 64 MiB and a core for some 0.1 s.
_PASSWORDS_AT_ONCE = 2
#: So many may wait for that, or guesses from everywhere would keep those out who know theirs for ever longer.
_PASSWORDS_WAITING = 50
#: RFC 3986 3.2.2: an IPv6 address in brackets, or a name or IPv4 address; a port.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::\d*)?")


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may come in. The defaults let everybody in, for an application that only this machine reaches."""

    users: Users | None = None  # None: nobody logs in
    host_names: frozenset[str] | None = None  # what Host may say beside localhost and addresses, in lower case; None: anything
    origins: frozenset[str] = frozenset()  # other origins whose pages may read and act
    requests_per_minute: float = 0.0  # of a person from an address; 0: any number
    clock: Callable[[], float] = time.monotonic  # seconds


class _Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


class Door:
    """Around all routes."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._clock = access.clock
        self._requests = Buckets(access.requests_per_minute, access.requests_per_minute) if access.requests_per_minute else None
        self._per_name = Buckets(GUESSES_PER_NAME, GUESSES_PER_NAME)
        self._per_address = Buckets(GUESSES_PER_ADDRESS, GUESSES_PER_ADDRESS)
        self._audit = Audit()
        self._checks: dict[tuple[str, bytes], asyncio.Task[Person | None]] = {}
        self._limiter: CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        address = address_of(scope)
        try:
            person = await self._admit(scope, address)
        except _Refused as refused:
            await JSONResponse({"detail": refused.detail}, refused.status, refused.headers)(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["person"] = person
        told = person is None

        async def send_audited(message: Message) -> None:
            nonlocal told
            if message["type"] == "http.response.start" and person is not None:
                self._audit.tell(scope, person, address, message["status"], self._clock())
                told = True
            await send(message)

        try:
            await self._app(scope, receive, send_audited)
        except Exception:
            # What an act has done until then is not undone.
            if not told and person is not None:
                self._audit.tell(scope, person, address, HTTPStatus.INTERNAL_SERVER_ERROR, self._clock())
            raise

    async def _admit(self, scope: Scope, address: str) -> Person | None:
        """Who asks; None where it does not matter. Raises _Refused."""
        headers = Headers(scope=scope)
        if scope["path"] in OPEN:
            self._count(address, "")
            return None
        if self._access.host_names is not None and not names_us(headers.getlist("host"), self._access.host_names):
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, "the Host header names another machine; see [http] host_names")
        if is_from_elsewhere(scope["method"], headers, self._access.origins):
            raise _Refused(HTTPStatus.FORBIDDEN, "a page of another origin may not ask for this; see [http] cors_origins")
        person = ANYBODY if self._access.users is None else await self._login(self._access.users, headers, address)
        self._count(address, person.name)
        return person

    def _count(self, address: str, name: str) -> None:
        if self._requests is not None and (wait := self._requests.take((_network(address), name), self._clock())):
            raise _too_many(wait, "requests; see [http] requests_per_minute")

    async def _login(self, users: Users, headers: Headers, address: str) -> Person:
        given = headers.getlist("authorization")
        if not given:
            self._count(address, "")
            raise _Refused(HTTPStatus.UNAUTHORIZED, "log in: see [[user]] in the configuration", CHALLENGE)
        found = credentials(given[0]) if len(given) == 1 else None
        if isinstance(found, Password):
            person, name = await self._by_password(users, found, address), found.name
        else:
            person, name = (users.by_token(found) if isinstance(found, Token) else None), ""
            # Nobody guesses a token: who has one is not kept out by what others try from the same address.
            if person is None:
                self._take([(self._per_address, _network(address))])
        if person is None:
            # Into the wrong field people write passwords: what names nobody is not repeated.
            log.warning("event=login_failed address=%s user=%s", address, name if name in users else "(unknown)")
            raise _Refused(HTTPStatus.UNAUTHORIZED, "the name, the password or the token is wrong", CHALLENGE)
        return person

    async def _by_password(self, users: Users, given: Password, address: str) -> Person | None:
        now = self._clock()
        network = _network(address)
        name_key = (network, given.name[:64])
        # Also in front of what is remembered: it must not tell the right one among many guesses.
        if wait := self._per_name.wait(name_key, now):
            raise _too_many(wait, "wrong passwords")
        digest = users.digest(given)
        if person := users.remembered(digest, now):
            return person
        # What comes many times at once, as a viewer's requests do, is one guess.
        check = self._checks.get((network, digest))
        if check is None:
            if len(self._checks) >= _PASSWORDS_WAITING:
                raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many are logging in at this moment", {"Retry-After": "5"})
            # The address first: else invented names without end would make the name that is guessed at be forgotten.
            self._take([(self._per_address, network), (self._per_name, name_key)])
            check = asyncio.ensure_future(self._check(users, given))
            self._checks[(network, digest)] = check
            check.add_done_callback(lambda _: self._checks.pop((network, digest), None))
            if person := await asyncio.shield(check):
                self._per_name.give_back(name_key, self._clock())
                self._per_address.give_back(network, self._clock())
                users.remember(digest, person, self._clock())
            return person
        return await asyncio.shield(check)

    async def _check(self, users: Users, given: Password) -> Person | None:
        if self._limiter is None:
            self._limiter = CapacityLimiter(_PASSWORDS_AT_ONCE)
        return await to_thread.run_sync(users.check, given, limiter=self._limiter)

    def _take(self, wanted: Collection[tuple[Buckets, Hashable]]) -> None:
        for buckets, key in wanted:
            if wait := buckets.take(key, self._clock()):
                raise _too_many(wait, "wrong passwords")


def _too_many(wait: float, what: str) -> _Refused:
    return _Refused(HTTPStatus.TOO_MANY_REQUESTS, f"too many {what}", {"Retry-After": str(math.ceil(wait))})


@lru_cache(maxsize=4096)
def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def address_of(scope: Scope) -> str:
    """The client's address; "?" when there is none, or a proxy wrote something else."""
    client = scope.get("client")
    found = _ip(client[0]) if client else None
    return str(found) if found is not None else "?"


def _network(address: str) -> str:
    """One customer has a whole IPv6 network to choose addresses from (RFC 6177)."""
    found = _ip(address)
    return str(ipaddress.ip_network((found, 64), strict=False)) if isinstance(found, ipaddress.IPv6Address) else address


def names_us(hosts: Sequence[str], names: Collection[str]) -> bool:
    """Whether the one Host header is localhost, one of `names` or an address, with any port (RFC 9110 7.2).

    Any address: a browser writes there where it goes, and only a name can be made to point elsewhere.
    """
    written = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if written is None:
        return False
    name = (written[1] or written[2]).lower()
    return name in names or name == "localhost" or _ip(name) is not None


def is_from_elsewhere(method: str, headers: Headers, origins: Collection[str]) -> bool:
    """Whether a page of another origin makes a browser ask for a change. Programs send neither header, and pass.

    Fetch Metadata's Sec-Fetch-Site decides; browsers leave it out over plain HTTP, and then Origin must be where the request goes.
    """
    if method in SAFE_METHODS:
        return False
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site in ("same-origin", "none") or (site is None and origin is None):
        return False
    if origin is not None and origin.lower() in origins:
        return False
    if site is not None:
        return True
    try:
        return urlsplit(origin or "").netloc.lower() != headers.get("host", "").lower() or not headers.get("host")
    except ValueError:
        return True
