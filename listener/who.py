"""Who asks over HTTP, and what that person may do: a viewer looks, an operator decides about studies, an admin about the site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from fastapi import HTTPException, Request


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


#: Who asks where no login is asked for: only this machine reaches us, or the configuration says that anybody may.
ANYBODY = Person(name="web", role=Role.ADMIN)


def person(request: Request) -> Person:
    """Who asks."""
    found: Person = getattr(request.state, "person", ANYBODY)
    return found


def at_least(role: Role) -> Callable[[Request], Person]:
    """A dependency of a route: the person who asks, who must have at least `role`."""

    def needed(request: Request) -> Person:
        found = person(request)
        if not found.role.covers(role):
            raise HTTPException(HTTPStatus.FORBIDDEN, f"{found.name} is {found.role}; this needs {role}: see [http] users")
        return found

    return needed
