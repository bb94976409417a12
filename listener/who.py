"""Who asks over HTTP, and what that person may do: a viewer looks, an operator decides about studies, an admin about the site.

The door (`listener.door`) finds out who asks; the routes say whom they answer (`at_least`, `AtLeast`) and of which studies they speak
(`speaks_of`), so that the audit line names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from listener.users import Person, Role

__all__ = ["ANYBODY", "Admin", "AtLeast", "Operator", "Person", "Role", "Viewer", "at_least", "person", "speaks_of"]

#: Who asks where no login is asked for: only this machine reaches us, or the configuration says that anybody may.
ANYBODY = Person(name="web", role=Role.ADMIN)


def person(request: Request) -> Person:
    """Who asks."""
    found: Person = request.state.person
    return found


def at_least(role: Role) -> Callable[[Request], Person]:
    """A dependency of a route: the person who asks, who must have at least `role`."""

    def needed(request: Request) -> Person:
        found = person(request)
        if not found.role.covers(role):
            raise HTTPException(HTTPStatus.FORBIDDEN, f"{found.name} is {found.role}; this needs {role}: see [[user]] role")
        return found

    needed.role = role  # type: ignore[attr-defined] # so that it can be read off a route
    return needed


#: Parameters of routes: the person who asks, who is at least that.
Viewer = Annotated[Person, Depends(at_least(Role.VIEWER))]
Operator = Annotated[Person, Depends(at_least(Role.OPERATOR))]
Admin = Annotated[Person, Depends(at_least(Role.ADMIN))]


class AtLeast:
    """The same around an ASGI application, for routes that are none of FastAPI's."""

    def __init__(self, role: Role, app: ASGIApp) -> None:
        self.role = role
        self._needed = at_least(role)
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._needed(Request(scope))
        await self._app(scope, receive, send)


def speaks_of(request: Request, study_instance_uids: Iterable[str]) -> None:
    """Tell the audit line which studies the answer speaks of; those of the path it knows by itself."""
    known: list[str] = request.scope.setdefault("state", {}).setdefault("studies", [])
    known.extend(uid for uid in study_instance_uids if uid and uid not in known)
