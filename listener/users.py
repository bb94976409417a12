"""The people whom the configuration names, and by what they are known: a password (RFC 7617) or a token (RFC 6750).

Nothing here can be turned back into a password or a token: passwords are kept as Argon2id (RFC 9106), tokens, which nobody can guess, as
SHA-256. A password that was right is remembered for some minutes by a digest whose key lives as long as the process, since DICOMweb clients
send it with every request and Argon2 is slow on purpose.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

#: How long a password that was right is not checked again, and how many are remembered.
REMEMBERED_SECONDS = 300.0
_MOST_REMEMBERED = 1024
#: No header is longer in earnest.
LONGEST_AUTHORIZATION = 4096
#: Fewer characters are guessed.
SHORTEST_PASSWORD = 8
_TOKEN_BYTES = 32
_TOKEN_LINE = re.compile(r"sha256:([0-9a-f]{64})")


class Role(StrEnum):
    """What a person may do; each may also do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what asks for `needed`."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who asks. `name` is what stands in the record of what people did."""

    name: str
    role: Role


@dataclass(frozen=True, kw_only=True)
class User:
    """A person of the configuration. `password_hash`: Argon2id in its usual form, or ""; `token_hashes`: SHA-256 of each token."""

    name: str
    role: Role
    password_hash: str = field(default="", repr=False)
    token_hashes: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def person(self) -> Person:
        """Who asks when this user does."""
        return Person(name=self.name, role=self.role)


@dataclass(frozen=True, kw_only=True)
class Password:
    """What Basic authentication brings."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Token:
    """What Bearer authentication brings."""

    token: str = field(repr=False)


def credentials(authorization: str) -> Password | Token | None:
    """What an Authorization header says; None when it says nothing that could be right."""
    scheme, _, rest = authorization.strip().partition(" ")
    rest = rest.strip()
    if len(authorization) > LONGEST_AUTHORIZATION or not rest.isascii():
        return None
    if scheme.lower() == "bearer":
        return Token(token=rest)
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(rest, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Password(name=_normal(name), password=_normal(password)) if colon else None


def _normal(text: str) -> str:
    """RFC 7617 2.1 asks for one form of what can be written in two, as Korean can."""
    return unicodedata.normalize("NFC", text)


class Users:
    """Who is who. `known` and `check` may run in any thread; the memory belongs to one."""

    def __init__(self, users: Sequence[User]) -> None:
        from argon2 import PasswordHasher, extract_parameters

        self._by_name = {user.name: user for user in users}
        self._tokens = [(digest, user.person) for user in users for digest in user.token_hashes]
        hashes = [user.password_hash for user in users if user.password_hash]
        self._hasher = PasswordHasher.from_parameters(extract_parameters(hashes[0])) if hashes else PasswordHasher()
        # Somebody who is not known is checked against this, so that it takes as long as for somebody who is.
        self._nobody = self._hasher.hash(secrets.token_hex(_TOKEN_BYTES))
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, tuple[float, Person]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def by_token(self, token: Token) -> Person | None:
        """Whose token it is. Looks at all of them, so that the time says nothing."""
        given = hashlib.sha256(token.token.encode()).digest()
        found = [person for digest, person in self._tokens if hmac.compare_digest(digest, given)]
        return found[0] if found else None

    def digest(self, given: Password) -> bytes:
        """By what a name and a password are remembered; without our key it says nothing of them."""
        name = given.name.encode()
        return hmac.digest(self._key, len(name).to_bytes(4, "big") + name + given.password.encode(), "sha256")

    def remembered(self, digest: bytes, now: float) -> Person | None:
        """Whose name and password they are, when they were right lately; `now` in seconds of any steady clock."""
        until, person = self._remembered.get(digest, (0.0, None))
        if person is not None and now >= until:
            del self._remembered[digest]
            return None
        return person

    def remember(self, digest: bytes, person: Person, now: float) -> None:
        """What `check` found right at `now`."""
        self._remembered[digest] = (now + REMEMBERED_SECONDS, person)
        self._remembered.move_to_end(digest)
        while len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    def check(self, given: Password) -> Person | None:
        """Whose name and password they are. Slow on purpose, and as slow for a name that nobody has."""
        from argon2.exceptions import InvalidHashError, VerificationError

        user = self._by_name.get(given.name)
        password_hash = user.password_hash if user is not None else ""
        try:
            self._hasher.verify(password_hash or self._nobody, given.password)
        except (VerificationError, InvalidHashError):
            return None
        return user.person if user is not None and password_hash else None


def hashed(password: str) -> str:
    """The `password_hash` of a password. Raises ValueError when it is too short."""
    from argon2 import PasswordHasher

    if len(password) < SHORTEST_PASSWORD:
        raise ValueError(f"a password has at least {SHORTEST_PASSWORD} characters")
    return PasswordHasher().hash(_normal(password))


def new_token() -> tuple[str, str]:
    """A token that nobody guesses, and the line by which a token file knows it."""
    token = f"fourview_{secrets.token_urlsafe(_TOKEN_BYTES)}"
    return token, f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def token_hashes(text: str) -> Iterator[bytes]:
    """The hashes that a token file holds, one a line; blank lines and what stands behind # do not count. Raises ValueError."""
    for number, line in enumerate(text.splitlines(), start=1):
        if written := line.partition("#")[0].strip():
            found = _TOKEN_LINE.fullmatch(written)
            if found is None:
                raise ValueError(f"line {number} is not as `fourview user token` writes it")
            yield bytes.fromhex(found[1])
