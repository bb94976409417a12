"""The HTTP interface of the system that Fourview replaces: analysis on demand, by Orthanc's instance ids, for clients written for it.

Two entrances, as there: `/inference` (the worker's; one entry per id, a failed one does not stop the others) and
`/api/mri/mammography/analyze/` (the application's; four ids, all or nothing, with the view's name), and the application's health check.
Fields, their order and the meaning of each message are that system's; docs/reference_api.md says where a status is a better one. Images
come only from the Orthanc that the configuration names: a request that names another is refused, and credentials in it are not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from listener.who import Role, at_least, speaks_of

#: The standard views of an exam, which the application's entrance asks for.
VIEWS = 4
#: The worker's entrance takes so many ids in one request.
MOST_IDS = 16
#: So many requests are worked on at once; one more is told to come back.
REQUESTS_AT_ONCE = 8
#: An id of Orthanc has 44 characters.
_LONGEST_ID = 64
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class Read:
    """An image that was read. `view`: its name as hung, None when it shows none of the four."""

    view: str | None
    study_instance_uid: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Failed:
    """An image that was not read: the status that says whose fault it is, and the reason in words, without anything of a patient."""

    status: HTTPStatus
    reason: str


Outcome = Read | Failed


class Reads(Protocol):
    """What has images read; `listener.on_demand.Reader` is one."""

    def address(self) -> str: ...
    def notice(self) -> str: ...
    async def read(self, orthanc_ids: Sequence[str]) -> list[Outcome]: ...


class _Refusal(Exception):
    """A request that is not worked on, with the status and the reason that answer it."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _body_of(fewest: int, most: int) -> dict[str, Any]:
    """The request as OpenAPI describes it; whatever else is in it is not looked at."""
    ids = {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": _LONGEST_ID}, "minItems": fewest, "maxItems": most}
    schema = {"type": "object", "required": ["instance_ids"], "properties": {"instance_ids": ids, "orthanc_url": {"type": "string"}}}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_ERROR = {"content": {"application/json": {"example": {"success": False, "error": "why, in words"}}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is no JSON object, or instance_ids is not as it must be", **_ERROR},
    403: {"description": "The request names another Orthanc", **_ERROR},
    503: {"description": "Nothing can be fetched or read now", **_ERROR},
}
_ERRORS_OF_ALL: dict[int | str, dict[str, Any]] = {
    **_ERRORS,
    404: {"description": "Orthanc does not have an image", **_ERROR},
    500: {"description": "An image could not be read", **_ERROR},
    502: {"description": "Orthanc is not reachable or answers an error", **_ERROR},
    504: {"description": "Orthanc or the worker took too long", **_ERROR},
    507: {"description": "The disk is full", **_ERROR},
}


def create_router(reader: Reads, ready: Callable[[], list[str]]) -> APIRouter:
    """The three routes. `ready` returns what keeps us from working, in words."""
    router = APIRouter(tags=["reference API"])
    working = 0

    async def outcomes(ids: Sequence[str]) -> list[Outcome]:
        nonlocal working
        if working >= REQUESTS_AT_ONCE:
            raise _Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"{working} requests are worked on already; try again in some seconds")
        working += 1
        try:
            return await reader.read(ids)
        finally:
            working -= 1

    acts = [Depends(at_least(Role.OPERATOR))]

    @router.post("/inference", responses=_ERRORS, openapi_extra=_body_of(1, MOST_IDS), dependencies=acts)
    async def inference(request: Request) -> JSONResponse:
        """Read images by Orthanc's ids; one entry per id, in their order."""
        try:
            body = _body(await request.body(), reader.address())
            ids = _ids(body)
            if not 0 < len(ids) <= MOST_IDS:
                raise _Refusal(HTTPStatus.BAD_REQUEST, f"instance_ids: 1 to {MOST_IDS} ids are expected, not {len(ids)}")
            found = await outcomes(ids)
        except _Refusal as refusal:
            return _refused(refusal.status, str(refusal))
        speaks_of(request, _studies(found))
        return _answer(200, {"results": [_entry(one, outcome) for one, outcome in zip(ids, found, strict=True)]}, reader.notice())

    @router.post("/api/mri/mammography/analyze/", responses=_ERRORS_OF_ALL, openapi_extra=_body_of(VIEWS, VIEWS), dependencies=acts)
    async def analyze(request: Request) -> JSONResponse:
        """Read the four views of an exam by Orthanc's ids: all of them, or an error."""
        try:
            ids = _ids(_body(await request.body(), reader.address()))
            if len(ids) != VIEWS:
                raise _Refusal(HTTPStatus.BAD_REQUEST, f"exactly {VIEWS} instance_ids are required, not {len(ids)}")
            found = await outcomes(ids)
        except _Refusal as refusal:
            return _refused(refusal.status, str(refusal))
        speaks_of(request, _studies(found))
        failed = [(number, one) for number, one in enumerate(found, start=1) if isinstance(one, Failed)]
        if failed:
            # What is wrong around us says more than that one image could not be read.
            status = next((one.status for _, one in failed if one.status != HTTPStatus.INTERNAL_SERVER_ERROR), failed[0][1].status)
            return _refused(status, "; ".join(f"image {number}: {one.reason}" for number, one in failed))
        results = [
            {**_entry(one, outcome), "view": getattr(outcome, "view", None) or f"Image {number}"}
            for number, (one, outcome) in enumerate(zip(ids, found, strict=True), start=1)
        ]
        return _answer(200, {"success": True, "results": results}, reader.notice())

    @router.get(
        "/api/mri/mammography/health/",
        responses={503: {"description": "What is missing", **_ERROR}},
        dependencies=[Depends(at_least(Role.VIEWER))],
    )
    def health() -> JSONResponse:
        """Whether images would be read now."""
        complaints = ready()
        if not reader.address():
            complaints = [*complaints, "there is no Orthanc to fetch images from: name a [[pacs]] with a url in [study] fetch_from"]
        if complaints:
            return JSONResponse({"success": False, "status": "unhealthy", "error": "; ".join(complaints)}, status_code=503)
        return JSONResponse({"success": True, "status": "healthy"})

    return router


def _studies(found: Sequence[Outcome]) -> list[str]:
    return [one.study_instance_uid for one in found if isinstance(one, Read)]


def _entry(instance_id: str, outcome: Outcome) -> dict[str, Any]:
    """One image's entry; a dict keeps the order of the fields."""
    if isinstance(outcome, Failed):
        return {"success": False, "instance_id": instance_id, "error": outcome.reason}
    best = outcome.probabilities.index(max(outcome.probabilities))
    return {
        "success": True,
        "instance_id": instance_id,
        "predicted_class": outcome.classes[best],
        "probability": outcome.probabilities[best],
        "all_probabilities": dict(zip(outcome.classes, outcome.probabilities, strict=True)),
    }


def _body(content: bytes, address: str) -> dict[str, Any]:
    """The request's JSON object. Raises _Refusal, also when it names another Orthanc than `address`."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise _Refusal(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise _Refusal(HTTPStatus.BAD_REQUEST, 'the body must be a JSON object, as in {"instance_ids": [...]}')
    named = body.get("orthanc_url")
    if named is not None and not (isinstance(named, str) and _same_server(named, address)):
        raise _Refusal(
            HTTPStatus.FORBIDDEN,
            "orthanc_url is not the Orthanc that the configuration names ([study] fetch_from); leave it out of the request",
        )
    return body


def _ids(body: dict[str, Any]) -> list[str]:
    ids = body.get("instance_ids")
    if not isinstance(ids, list) or not all(
        isinstance(one, str) and 0 < len(one) <= _LONGEST_ID and one.isascii() and one.isprintable() for one in ids
    ):
        raise _Refusal(HTTPStatus.BAD_REQUEST, "instance_ids is required: a list of ids as Orthanc gives them to instances")
    return ids


def _same_server(one: str, other: str) -> bool:
    """Whether two addresses name the same server; the names of this host's loopback are one."""
    return bool(one) and bool(other) and _server(one) == _server(other) != ()


def _server(address: str) -> tuple[object, ...]:
    try:
        parts = urlsplit(address.strip())
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
            return ()
        host = "loopback" if parts.hostname in _LOOPBACK else parts.hostname.rstrip(".")
        return parts.scheme, host, parts.port or _PORTS[parts.scheme], parts.path.rstrip("/")
    except ValueError:
        return ()


def _answer(status: int, content: dict[str, Any], notice: str) -> JSONResponse:
    # The fields are the old system's; that nobody may diagnose by them is said beside them.
    headers = {"X-Fourview-Notice": f"Research use only, not for diagnostic use. {notice}".strip().encode("ascii", "replace").decode()}
    return JSONResponse(content, status_code=status, headers=headers)


def _refused(status: HTTPStatus, reason: str) -> JSONResponse:
    response = JSONResponse({"success": False, "error": reason}, status_code=status)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "5"
    return response
