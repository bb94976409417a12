"""The JSON API: what the command line asks and decides, over HTTP, under /api/v1. Its description is /openapi.json; docs/api.md tells it.

What comes out is what the command line prints with `--json`. A decision about a study is a request that a worker answers: 202 and the
place where it is told what came of it. Every refusal is {"detail": words}; 400 for whatever is wrong with a request.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, TypedDict

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from listener import api_asked as asked
from listener import api_told as told
from listener import reread
from listener.desk import Desk, NotScheduled, UnknownDestination, forgotten_as_json
from listener.parts import SpoolAway
from listener.show import json_value
from listener.who import Admin, Operator, Role, Viewer, speaks_of
from store.database import OldSchema
from store.forget import Forgotten
from store.grouping import Release, RequestKind
from store.ledger import DeliveryState
from store.listing import Wanted
from store.pauses import Paused
from store.requests import AnotherRequest
from store.rows import Busy, UnknownStudy
from store.search import UnknownRequest

PREFIX = "/api/v1"
#: So many clients wait at once; beyond them nobody is kept waiting.
MOST_WAITING = 32
#: How often it is looked for those who wait, and by how many threads.
LOOK_SECONDS = 0.25
_LOOKS_AT_ONCE = 4

#: What a part of the project raises -> the status that says so, and the words where its own name paths or addresses.
_STATUS: dict[type[Exception], tuple[HTTPStatus, str]] = {
    UnknownStudy: (HTTPStatus.NOT_FOUND, ""),
    UnknownRequest: (HTTPStatus.NOT_FOUND, ""),
    AnotherRequest: (HTTPStatus.CONFLICT, ""),
    NotScheduled: (HTTPStatus.CONFLICT, ""),
    Busy: (HTTPStatus.SERVICE_UNAVAILABLE, ""),
    OldSchema: (HTTPStatus.SERVICE_UNAVAILABLE, "the database is that of another release; `fourview check` says more"),
    SpoolAway: (HTTPStatus.SERVICE_UNAVAILABLE, "the folder of the files cannot be used; `fourview check` says more"),
}


class _Route(APIRoute):
    """A route whose function may raise what the desk raises."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await answer(request)
            except tuple(_STATUS) as error:
                status, words = next(said for kind, said in _STATUS.items() if isinstance(error, kind))
                again = {"Retry-After": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
                return JSONResponse({"detail": words or str(error)}, status, again)

        return handler


# ----------------------------------------------------------------------------------------------------------- what routes have in common


_StudyUid = Annotated[str, Path(pattern=asked.UID_PATTERN, max_length=64, description="Study Instance UID")]
_Why = Annotated[asked.Why, Query(description="Why; it is kept beside what was done")]
_Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        pattern=r"^([A-Za-z0-9._:-]{1,64})?$",
        description="The request's id, chosen by the client: the same request under the same key is asked once",
    ),
]

_Answers = dict[int | str, dict[str, Any]]
_BAD: _Answers = {400: {"model": told.Problem, "description": "Something is wrong with the request: it is said what"}}
_UNKNOWN: _Answers = {404: {"model": told.Problem, "description": "No such study or request; a forgotten study says so"}}
_OTHER: _Answers = {409: {"model": told.Problem, "description": "It cannot be done as things stand"}}


def _json(value: Any, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    """`value` as the command line prints it with `--json`."""
    text = json.dumps(value, default=json_value, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8"), status, headers, "application/json")


def create_router(desk: Desk, stopped: threading.Event | None = None) -> APIRouter:
    """The routes of the API; once `stopped` is set nobody is kept waiting."""
    router = APIRouter(prefix=PREFIX, route_class=_Route, generate_unique_id_function=lambda route: route.name)
    _studies(router, desk)
    _decisions(router, desk)
    _requests(router, desk, stopped or threading.Event())
    _deliveries(router, desk)
    _site(router, desk)
    return router


# ----------------------------------------------------------------------------------------------------------------------- studies


def _studies(router: APIRouter, desk: Desk) -> None:
    @router.get("/studies", tags=["studies"], summary="Studies, page by page", response_model=told.Studies, responses=_BAD)
    def studies(request: Request, options: Annotated[asked.StudiesWanted, Query()], _: Viewer) -> Response:
        """The study that last received an image comes first. `next` of a page is `after` of the one behind it."""
        conditions = options.model_dump(exclude={"state", "after", "limit"})
        wanted = Wanted(states=tuple(str(one) for one in options.state), **conditions)
        try:
            page = desk.studies(wanted, after=options.after, limit=options.limit)
        except ValueError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"after: {error}") from None
        speaks_of(request, (one["study_instance_uid"] for one in page.studies))
        return _json({"studies": page.studies, "next": page.next})

    @router.get(
        "/studies/{study_instance_uid}",
        tags=["studies"],
        summary="Everything about one study",
        response_model=told.Study,
        responses=_BAD | _UNKNOWN,
    )
    def study(study_instance_uid: _StudyUid, _: Viewer) -> Response:
        """Slots, rule, results, deliveries, timeline; why it is held and what settles it."""
        return _json(desk.study(study_instance_uid))

    @router.get(
        "/studies/{study_instance_uid}/rules",
        tags=["studies"],
        summary="Why the rules say what they say of a study",
        response_model=told.Explanation,
        responses=_BAD | _UNKNOWN,
    )
    def explanation(study_instance_uid: _StudyUid, _: Viewer) -> Response:
        """Every rule in order with what it saw, the outcome, and whether that is what was decided at its time."""
        return _json(desk.explain(study_instance_uid))

    @router.delete(
        "/studies/{study_instance_uid}",
        tags=["studies"],
        summary="Forget a study",
        response_model=told.Forgotten,
        responses=_BAD | _UNKNOWN,
    )
    def forget(study_instance_uid: _StudyUid, person: Admin, reason: _Why = "") -> Response:
        """Delete everything about it here, for good, files too, and let it not come back. The answer says what destinations still hold:
        only there can it be deleted, and nobody here knows it any more."""
        gone, *left = desk.forget(study_instance_uid, person=person.name, why=reason)
        assert isinstance(gone, Forgotten)
        return _json(forgotten_as_json(gone, [str(one) for one in left]))

    @router.post(
        "/studies/{study_instance_uid}/allow-again",
        tags=["studies"],
        summary="Let a forgotten study come again",
        response_model=told.AllowedAgain,
        responses=_BAD,
    )
    def allow_again(study_instance_uid: _StudyUid, body: asked.Reason, person: Admin) -> Response:
        """It is received like a new one when it is sent again."""
        allowed = desk.forgetting.allow_again(study_instance_uid, person=person.name, why=body.reason)
        return _json({"study_instance_uid": study_instance_uid, "allowed": allowed})


# --------------------------------------------------------------------------------------------------------------------- decisions


class _Who(TypedDict):
    """Who asks, why, and under which id."""

    person: str
    why: str
    request_id: str


def _decisions(router: APIRouter, desk: Desk) -> None:
    def route(kind: RequestKind, summary: str) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
        return router.post(
            f"/studies/{{study_instance_uid}}/{kind}",
            tags=["decisions"],
            summary=summary,
            status_code=HTTPStatus.ACCEPTED,
            response_model=told.Requested,
            responses=_BAD | _UNKNOWN | _OTHER,
        )

    def accepted(request_id: str) -> Response:
        href = f"{PREFIX}/requests/{request_id}"
        return _json({"request_id": request_id, "href": href}, HTTPStatus.ACCEPTED, {"Location": href})

    @route(RequestKind.REPROCESS, "Read a study again")
    def reprocess(study_instance_uid: _StudyUid, body: asked.Reprocess, person: Operator, key: _Key = "") -> Response:
        """With the model and the options of now. A new version is made only if its causes changed."""
        if body.model and body.model not in desk.cards():
            raise HTTPException(
                HTTPStatus.BAD_REQUEST, "model: only a card that the configuration names; another one by `fourview reprocess --model`"
            )
        who: _Who = {"person": person.name, "why": body.reason, "request_id": key}
        return accepted(desk.ask(study_instance_uid, RequestKind.REPROCESS, **who, card=body.model))

    @route(RequestKind.RELEASE, "Let a held or incomplete study go on")
    def release(study_instance_uid: _StudyUid, body: asked.Release, person: Operator, key: _Key = "") -> Response:
        """The study's `doubts` say why it is held and which choices settle it; a release that does not is refused with them."""
        choices = Release(
            exclude=tuple(body.exclude),
            view=body.view,
            accept_patient=body.accept_patient or bool(body.patient_of),
            patient_of=body.patient_of,
            patient_from_pacs=body.patient_from_pacs,
            use_file=tuple(body.use_file),
        )
        who: _Who = {"person": person.name, "why": body.reason, "request_id": key}
        return accepted(desk.ask(study_instance_uid, RequestKind.RELEASE, **who, release=choices))

    @route(RequestKind.WITHDRAW, "Take back what was said of a study")
    def withdraw(study_instance_uid: _StudyUid, body: asked.Reason, person: Operator, key: _Key = "") -> Response:
        """What was sent is replaced by a version that says WITHDRAWN, and nothing is read any more."""
        who: _Who = {"person": person.name, "why": body.reason, "request_id": key}
        return accepted(desk.ask(study_instance_uid, RequestKind.WITHDRAW, **who))

    @route(RequestKind.SEND, "Send a study's results whatever the rules say")
    def send(study_instance_uid: _StudyUid, body: asked.Send, person: Operator, key: _Key = "") -> Response:
        """One that was read on demand, or that the rules ignore; what was read of it on demand counts as received from now on."""
        who: _Who = {"person": person.name, "why": body.reason, "request_id": key}
        try:
            return accepted(desk.send(study_instance_uid, **who, send_to=body.send_to))
        except UnknownDestination:
            raise HTTPException(
                HTTPStatus.BAD_REQUEST, "send_to: a name that is of no [[pacs]]; GET /rules has those that are used"
            ) from None


def _requests(router: APIRouter, desk: Desk, stopped: threading.Event) -> None:
    looks: list[CapacityLimiter] = []
    waiting = 0

    async def look(request_id: str) -> dict[str, Any]:
        if not looks:
            looks.append(CapacityLimiter(_LOOKS_AT_ONCE))  # it wants a running loop
        return await to_thread.run_sync(desk.answer, request_id, limiter=looks[0])

    @router.get(
        "/requests/{request_id}",
        tags=["decisions"],
        summary="What came of a request",
        response_model=told.Answer,
        responses=_BAD | _UNKNOWN,
    )
    async def answer(
        request: Request,
        request_id: Annotated[str, Path(pattern=asked.REQUEST_ID_PATTERN)],
        options: Annotated[asked.AnswerWanted, Query()],
        _: Viewer,
    ) -> Response:
        """`ended` says that nothing more comes of it, `done` that what was asked for came about."""
        nonlocal waiting
        found = await look(request_id)
        speaks_of(request, [found["study_instance_uid"]])
        if waiting >= MOST_WAITING:
            return _json(found)
        waiting += 1
        try:
            deadline, pause = time.monotonic() + options.wait, LOOK_SECONDS
            while not found["ended"] and not stopped.is_set() and (left := deadline - time.monotonic()) > 0:
                await asyncio.sleep(min(pause, left))
                pause = min(2 * pause, 1.0)
                found = await look(request_id)
        finally:
            waiting -= 1
        return _json(found)


# -------------------------------------------------------------------------------------------------------------------- deliveries


def _deliveries(router: APIRouter, desk: Desk) -> None:
    @router.get("/deliveries", tags=["deliveries"], summary="Deliveries", response_model=told.Deliveries, responses=_BAD)
    def deliveries(request: Request, options: Annotated[asked.DeliveriesWanted, Query()], _: Viewer) -> Response:
        """Newest first; what was refused or has expired also once for each destination and reason."""
        found = desk.deliveries(options.state, options.limit)
        speaks_of(request, (one["study_instance_uid"] for one in found))
        return _json({"deliveries": found, "given_up": desk.given_up()})

    @router.post("/deliveries/retry", tags=["deliveries"], summary="Send again", response_model=told.Retried, responses=_BAD)
    def retry(body: asked.Retry, person: Operator) -> Response:
        """Put deliveries that were given up back into the outbox. The same bytes are sent, and nothing is read again."""
        if bool(body.delivery_ids) == bool(body.states):
            raise HTTPException(HTTPStatus.BAD_REQUEST, "name delivery_ids, or states, not both")
        if body.states and not person.role.covers(Role.ADMIN):
            raise HTTPException(HTTPStatus.FORBIDDEN, f"{person.name} is {person.role}; by states needs {Role.ADMIN}: name delivery_ids")
        done, refused = desk.retry(
            person=person.name,
            why=body.reason,
            delivery_ids=body.delivery_ids,
            states=[DeliveryState(one) for one in body.states],
            destination=body.destination,
        )
        return _json({"retried": done, "refused": refused})


# -------------------------------------------------------------------------------------------------------------------------- site


def _site(router: APIRouter, desk: Desk) -> None:
    @router.get("/status", tags=["site"], summary="How the installation fares", response_model=told.Status)
    def status(_: Viewer) -> Response:
        """What is in trouble and what to do first, then the rest. A database that is away is a trouble, and the answer 200."""
        return _json(desk.status())

    @router.get("/alerts", tags=["site"], summary="What people are told", response_model=told.Alerts)
    def alerts(_: Viewer) -> Response:
        """What is not settled yet, oldest first."""
        return _json({"alerts": desk.alerts()})

    @router.get("/devices", tags=["site"], summary="Devices and their contradictions", response_model=told.Devices, responses=_BAD)
    def devices(options: Annotated[asked.DevicesWanted, Query()], _: Viewer) -> Response:
        """Per device, images and what contradicts the side that they state; the most contradicted first."""
        return _json({"devices": desk.devices(options.days)})

    @router.get("/rules", tags=["site"], summary="The rules", response_model=told.Rules)
    def rules(_: Viewer) -> Response:
        """In the order in which they are asked: the first that matches decides."""
        return _json({"rules": desk.rules()})

    @router.get("/acts", tags=["site"], summary="What people did", response_model=told.Acts, responses=_BAD)
    def acts(options: Annotated[asked.ActsWanted, Query()], _: Admin) -> Response:
        """Newest first: who, when, why. Nothing is ever taken from this record."""
        try:
            days = reread.days(options.since)
        except ValueError:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"since: as in 30d, 12h or 2w, at most {reread.MOST_DAYS}d") from None
        return _json({"acts": desk.acts(days=days, study_instance_uid=options.study, limit=options.limit)})

    @router.post("/pauses/{what}", tags=["site"], summary="Pause", response_model=told.PauseState, responses=_BAD)
    def pause(what: Paused, body: asked.Reason, person: Admin) -> Response:
        """Hand out nothing more: results wait, or images; reception goes on. What is in hand ends."""
        changed = desk.pause(what, person=person.name, why=body.reason)
        return _json({"what": what, "paused": True, "changed": changed})

    @router.delete("/pauses/{what}", tags=["site"], summary="Resume", response_model=told.PauseState, responses=_BAD)
    def resume(what: Paused, person: Admin, reason: _Why = "") -> Response:
        """Go on with what was paused."""
        changed = desk.resume(what, person=person.name, why=reason)
        return _json({"what": what, "paused": False, "changed": changed})

    @router.get("/reconciliation", tags=["site"], summary="The last comparison with the PACS", response_model=told.Reconciliation)
    def reconciliation(_: Viewer) -> Response:
        """What the comparison that workers make by themselves found last, and when."""
        return _json(desk.reconciled())

    @router.post(
        "/reconciliation",
        tags=["site"],
        summary="Compare with the PACS soon",
        status_code=HTTPStatus.ACCEPTED,
        response_model=told.Reconciliation,
        responses=_BAD | _OTHER,
    )
    def reconcile(body: asked.Reason, person: Admin) -> Response:
        """A worker does it as soon as it looks, as the configuration says: it lists what is missing, or fetches it."""
        desk.reconcile(person=person.name, why=body.reason)
        return _json(desk.reconciled(), HTTPStatus.ACCEPTED)
