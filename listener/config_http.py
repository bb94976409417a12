"""[http] and [[user]] of config.toml: where we listen over HTTP, and who may come in."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from listener import config_files
from listener.config_files import halves
from listener.config_values import COMMAS, Host, Location, Port, Table
from listener.users import Role, token_hashes

_ARGON2ID = re.compile(r"\$argon2id\$v=19\$m=[1-9]\d{0,7},t=[1-9]\d{0,3},p=[1-9]\d{0,2}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _origin(text: str) -> str:
    """RFC 6454 6.2, as browsers write it."""
    found = re.fullmatch(r"(https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([1-9][0-9]{0,4}))?/?", text)
    if found is None:
        raise ValueError("write origins, scheme and host and nothing behind, as in https://ohif.example.org")
    scheme, host, port = found.groups()
    return f"{scheme}://{host.lower()}" + (f":{port}" if port and int(port) != _DEFAULT_PORTS[scheme] else "")


def _own_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text) and not _is_address(text):
        raise ValueError("write host names as clients use them, without port, as in fourview.example.org")
    return text.lower()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError("write addresses or networks, as in 10.0.0.5 or 10.0.0.0/24") from None


def _user_name(text: str) -> str:
    if not re.fullmatch(r"[\w.@-]{1,64}", text):
        raise ValueError("a name has 1 to 64 letters, digits and . _ @ -")
    return text


def _password_hash(text: str) -> str:
    if text and not _ARGON2ID.fullmatch(text):
        raise ValueError("is not as `fourview user hash` prints it")
    return text


@dataclass(frozen=True, kw_only=True)
class Http(Table):
    host: Host = "127.0.0.1"
    port: Port = 8080
    allow_unauthenticated: bool = False
    certificate: str = ""
    key: str = ""
    host_names: Annotated[tuple[Annotated[str, AfterValidator(_own_name)], ...], COMMAS] = ()
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], COMMAS] = ()
    requests_per_minute: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 6000
    trusted_proxies: Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], COMMAS] = ()
    stow: bool = True


@dataclass(frozen=True, kw_only=True)
class UserTable(Table):
    """A [[user]] as written; `listener.users.User` is what becomes of it."""

    name: Annotated[str, AfterValidator(_user_name)]
    role: Role
    password_hash: Annotated[str, AfterValidator(_password_hash)] = field(default="", repr=False)
    token_file: str = ""


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches us at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def contradictions(http: Mapping[str, Any], users: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Location, str]]:
    """What is wrong between keys that are right by themselves: (location, message). Works on what was written, whether or not it is
    valid."""
    names: list[str] = []
    for index, user in enumerate(users):
        name = str(user.get("name", ""))
        if name and name in names:
            yield ("user", index, "name"), "there is already a [[user]] of this name; names must differ"
        names.append(name)
        if not user.get("password_hash") and not user.get("token_file"):
            yield ("user", index), "nobody can log in so; write password_hash (`fourview user hash`) or token_file (`fourview user token`)"
    host = http.get("host")
    open_to_all = _is_true(http.get("allow_unauthenticated"))
    if open_to_all and users:
        yield ("http", "allow_unauthenticated"), "there are [[user]] tables, so everybody logs in; leave one or the other out"
    if isinstance(host, str) and not is_loopback(host) and not users and not open_to_all:
        yield (
            ("http", "host"),
            f"{host!r} lets other machines read patient data without a password; write [[user]] tables, or 127.0.0.1 and put a proxy that "
            "authenticates in front, or set allow_unauthenticated = true",
        )
    yield from halves(("http",), http, "certificate", "key")


def unreadable(http: Mapping[str, Any], folder: Path) -> Iterator[tuple[Location, str]]:
    """What is wrong with the files of the certificate, as far as it can be seen without loading them."""
    yield from config_files.unreadable(("http",), http, ("certificate", "key"), folder)


def read_tokens(folder: Path, name: object) -> tuple[bytes, ...]:
    """What a token file holds; raises ValueError, which repeats nothing of it."""
    if not isinstance(name, str) or not name:
        return ()
    try:
        found = tuple(token_hashes((folder / name).read_text(encoding="utf-8")))
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8 text; `fourview user token {name}` makes it") from None
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror}); `fourview user token {name}` makes it") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not found:
        raise ValueError(f"{name} holds no token; `fourview user token {name}` adds one")
    return found


def _is_true(value: object) -> bool:
    """Also of a variable's text, before validation."""
    return str(value).lower() in ("true", "1", "yes", "on", "y", "t")
