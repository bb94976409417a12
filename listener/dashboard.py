"""The pages for people: studies, one study with its cards, deliveries, status. Server-rendered; without JavaScript everything can be read
and every form posts.

Routes only; what people ask and decide is `listener.desk`, what a study's page says of its views `listener.cards`, the sentences
`listener.catalogue`, and how a page is made `listener.pages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from listener import cards
from listener.api_asked import LARGEST_ID, ONE_LINE, one_line
from listener.choices import BadChoice, Fields, fields, release_of, settling
from listener.desk import Desk
from listener.keys import is_uid
from listener.pages import STATIC, Pages
from listener.pictures import NoPicture, Pictures
from listener.who import Admin, Operator, Person, Viewer, speaks_of
from store.grouping import Release, RequestKind
from store.ledger import GIVEN_UP, DeliveryState
from store.listing import Page, Wanted
from store.pauses import Paused
from store.search import UnknownRequest
from store.study import StudyState

#: So many studies stand on one page of the list, and so many deliveries are shown.
STUDIES_ON_PAGE = 50
DELIVERIES_SHOWN = 200
#: How often a page asks again, in seconds: while something is under way, and else.
SOON, LATER = 2, 15
#: A reason is cut after so many characters.
LONGEST_REASON = 500

_STATIC = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_ON_THE_WAY = (DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.SENT)

DeliveryId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
Form = Annotated[Fields, Depends(fields)]
#: Without control characters: no database finds them, and PostgreSQL refuses to look for some.
Text = Annotated[str, Query(max_length=128, pattern=ONE_LINE)]


def create_router(desk: Desk, pictures: Pictures, pages: Pages) -> APIRouter:
    """The routes of the pages."""
    router = APIRouter(include_in_schema=False, route_class=pages.route_class())

    @router.get("/static/{name}")
    def static(_: Viewer, name: str) -> Response:
        if name not in _STATIC:
            raise HTTPException(HTTPStatus.NOT_FOUND, "error_404")
        # Its address changes with its content.
        return FileResponse(STATIC / name, media_type=_STATIC[name], headers={"Cache-Control": "public, max-age=31536000, immutable"})

    # ------------------------------------------------------------------------------------------------------------- looking

    @router.get("/")
    def studies(
        request: Request,
        person: Viewer,
        date_from: Text = "",
        date_to: Text = "",
        patient_id: Text = "",
        state: Text = "",
        predicted_class: Text = "",
        calling_ae_title: Text = "",
        device: Text = "",
        after: Text = "",
    ) -> Response:
        asked = {
            "date_from": date_from,
            "date_to": date_to,
            "patient_id": patient_id.strip(),
            "state": state,
            "predicted_class": predicted_class,
            "calling_ae_title": calling_ae_title,
            "device": device,
        }
        conditions = {name: value for name, value in asked.items() if value}
        problem, found = "", Page([], "")
        try:
            wanted = _wanted(conditions)
        except ValueError:
            problem = "bad_date"
        else:
            try:
                found = desk.studies(wanted, after=after, limit=STUDIES_ON_PAGE)
            except ValueError:
                problem, after = "bad_place", ""
                found = desk.studies(wanted, limit=STUDIES_ON_PAGE)
        speaks_of(request, [line["study_instance_uid"] for line in found.studies])
        values: dict[str, Any] = {
            "asked": asked,
            "conditions": len(conditions),
            "after": after,
            "problem": problem,
            "lines": found.studies,
            "first_url": "/?" + urlencode(conditions) if conditions else "/",
            "next_url": "/?" + urlencode({**conditions, "after": found.next}) if found.next else "",
            "live_url": "/?" + urlencode({**conditions, **({"after": after} if after else {})}),
            "seconds": 5,
        }
        if pages.part_is_wanted(request):
            return pages.render(request, person, "_studies.html", **values)
        values |= {"choices": desk.choices(), "states": [str(one) for one in StudyState]}
        status = HTTPStatus.BAD_REQUEST if problem == "bad_date" else HTTPStatus.OK
        return pages.render(request, person, "studies.html", status=status, **values)

    @router.get("/studies/{study_instance_uid}")
    def study(request: Request, person: Viewer, study_instance_uid: str, asked: Text = "", told: Text = "", count: int = 0) -> Response:
        found = desk.study(_uid(study_instance_uid))
        views, images = cards.cards_of_views(found), cards.cards_of_images(found)
        answer = _answer(desk, asked, study_instance_uid)
        under_way = (
            found["state"] in ("collecting", "analysing")
            or (answer is not None and not answer["ended"])
            or any(card.state == cards.CardState.WAITING for card in (*views, *images))
            or any(one["state"] in _ON_THE_WAY for one in found["deliveries"])
        )
        values: dict[str, Any] = {
            "study": found,
            "views": views,
            "images": images,
            "others": cards.others(found),
            "names": {image["sop_instance_uid"]: image["view"] or "" for image in found["images"]},
            "patients": {image["sop_instance_uid"]: image["patient_id"] for image in found["images"]},
            "on_demand_only": cards.only_on_demand(found),
            "run": found["runs"][-1] if found["runs"] else None,
            "settling": settling(found["doubts"]),
            "destinations": desk.destinations(),
            "answer": answer,
            "explained": desk.explain(study_instance_uid),
            "told": told,
            "count": count,
            "live_url": f"/studies/{study_instance_uid}" + (f"?asked={asked}" if answer is not None else ""),
            "seconds": SOON if under_way else LATER,
        }
        template = "_study.html" if pages.part_is_wanted(request) else "study.html"
        return pages.render(request, person, template, **values)

    @router.get("/studies/{study_instance_uid}/scores/{score_id}/{picture}.png")
    def picture(person: Viewer, study_instance_uid: str, score_id: int, picture: str) -> Response:
        try:
            data = pictures.png(_uid(study_instance_uid), score_id, picture)
        except NoPicture as problem:
            raise HTTPException(HTTPStatus.NOT_FOUND, str(problem)) from None
        return Response(data, media_type="image/png")

    @router.get("/deliveries")
    def deliveries(request: Request, person: Viewer, told: Text = "", count: int = 0) -> Response:
        open_ones = [one for state in _ON_THE_WAY for one in desk.deliveries(state, DELIVERIES_SHOWN)]
        open_ones.sort(key=lambda one: -one["id"])
        del open_ones[DELIVERIES_SHOWN:]
        speaks_of(request, (one["study_instance_uid"] for one in open_ones))
        values: dict[str, Any] = {
            "given_up": desk.given_up(),
            "open_ones": open_ones,
            "limit": DELIVERIES_SHOWN,
            "told": told,
            "count": count,
            "live_url": "/deliveries",
            "seconds": 5,
        }
        template = "_deliveries.html" if pages.part_is_wanted(request) else "deliveries.html"
        return pages.render(request, person, template, **values)

    @router.get("/status")
    def status(request: Request, person: Viewer, told: Text = "") -> Response:
        found = desk.status()
        away = found["database"] == "away"
        values: dict[str, Any] = {
            "fares": found,
            "away": away,
            "today": None if away else desk.throughput(pages.midnight(datetime.now(UTC))),
            "reconciled": None if away else desk.reconciled(),
            "destinations": [] if away else _destinations(found),
            "told": told,
            "live_url": "/status",
            "seconds": 5,
        }
        template = "_status.html" if pages.part_is_wanted(request) else "status.html"
        return pages.render(request, person, template, **values)

    # ------------------------------------------------------------------------------------------------------------ deciding

    def ask(request: Request, uid: str, kind: RequestKind, person: Person, form: Fields, release: Release | None = None) -> Response:
        request_id = desk.ask(_uid(uid), kind, person=person.name, why=_why(form), release=release)
        return _see(request, f"/studies/{uid}", asked=request_id)

    @router.post("/studies/{study_instance_uid}/reprocess")
    def reprocess(request: Request, person: Operator, form: Form, study_instance_uid: str) -> Response:
        return ask(request, study_instance_uid, RequestKind.REPROCESS, person, form)

    @router.post("/studies/{study_instance_uid}/release")
    def release(request: Request, person: Operator, form: Form, study_instance_uid: str) -> Response:
        try:
            chosen = release_of(form)
        except BadChoice:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "bad_choice") from None
        return ask(request, study_instance_uid, RequestKind.RELEASE, person, form, chosen)

    @router.post("/studies/{study_instance_uid}/withdraw")
    def withdraw(request: Request, person: Operator, form: Form, study_instance_uid: str) -> Response:
        return ask(request, study_instance_uid, RequestKind.WITHDRAW, person, form)

    @router.post("/studies/{study_instance_uid}/send")
    def send(request: Request, person: Operator, form: Form, study_instance_uid: str) -> Response:
        request_id = desk.send(_uid(study_instance_uid), person=person.name, why=_why(form), send_to=form.every("to"))
        return _see(request, f"/studies/{study_instance_uid}", asked=request_id)

    @router.post("/studies/{study_instance_uid}/deliveries/{delivery_id}/retry")
    def retry(request: Request, person: Operator, form: Form, study_instance_uid: str, delivery_id: DeliveryId) -> Response:
        uid = _uid(study_instance_uid)
        done, refused = desk.retry(person=person.name, why=_why(form), delivery_ids=[delivery_id], study_instance_uid=uid)
        if not done:
            raise HTTPException(HTTPStatus.CONFLICT, "; ".join(refused))
        return _see(request, f"/studies/{study_instance_uid}", told="retried", count=done)

    @router.post("/deliveries/retry")
    def retry_all(request: Request, person: Admin, form: Form) -> Response:
        states = [state for state in GIVEN_UP if state == form.get("state")]
        destination = form.get("destination", "")
        if not states or destination != one_line(destination):
            raise HTTPException(HTTPStatus.BAD_REQUEST, "bad_choice")
        done, refused = desk.retry(person=person.name, why=_why(form), states=states, destination=destination)
        if not done and refused:
            raise HTTPException(HTTPStatus.CONFLICT, "; ".join(refused))
        return _see(request, "/deliveries", told="retried", count=done)

    @router.post("/status/{act}/{what}")
    def pause(request: Request, person: Admin, form: Form, act: str, what: str) -> Response:
        acts = {"pause": (desk.pause, "paused"), "resume": (desk.resume, "resumed")}
        if act not in acts or what not in list(Paused):
            raise HTTPException(HTTPStatus.NOT_FOUND, "error_404")
        do, told = acts[act]
        do(Paused(what), person=person.name, why=_why(form))
        return _see(request, "/status", told=told)

    return router


def _uid(text: str) -> str:
    if not is_uid(text):
        raise HTTPException(HTTPStatus.NOT_FOUND, "bad_uid")
    return text


def _wanted(asked: Mapping[str, str]) -> Wanted:
    """The conditions of the list. Raises ValueError for a date that is none."""
    return Wanted(
        states=(asked["state"],) if "state" in asked else (),
        study_date_from=_date(asked.get("date_from", "")),
        study_date_to=_date(asked.get("date_to", "")),
        **{name: asked[name] for name in ("patient_id", "predicted_class", "calling_ae_title", "device") if name in asked},
    )


def _date(text: str) -> str:
    """A date as browsers send it, or as DICOM writes it, in DICOM's form (PS3.5 6.2, DA)."""
    if not text:
        return ""
    return datetime.strptime(text, "%Y-%m-%d" if "-" in text else "%Y%m%d").strftime("%Y%m%d")


def _answer(desk: Desk, request_id: str, study_instance_uid: str) -> dict[str, Any] | None:
    """What came of the request that the page's address names; None when that is no request of this study."""
    if not request_id:
        return None
    try:
        found = desk.answer(request_id)
    except UnknownRequest:
        return None
    return found if found["study_instance_uid"] == study_instance_uid else None


def _destinations(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each destination that has open or given up deliveries: counts by state, since when it waits, its last error."""
    names = sorted({one["destination"] for one in status["deliveries"]} | set(status["delivery_errors"]))
    return [
        {
            "name": name,
            "counts": {one["state"]: one["count"] for one in status["deliveries"] if one["destination"] == name},
            "since": status["delivery_waits_since"].get(name),
            "error": status["delivery_errors"].get(name, ""),
        }
        for name in names
    ]


def _why(form: Fields) -> str:
    return one_line(form.get("why", ""))[:LONGEST_REASON]


def _see(request: Request, path: str, **query: object) -> Response:
    """Where to look at what came of it (RFC 9110 15.4.4); htmx goes there by itself."""
    url = f"{path}?{urlencode(query)}" if query else path
    if request.headers.get("HX-Request") == "true":
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"HX-Redirect": url})
    return RedirectResponse(url, status_code=HTTPStatus.SEE_OTHER)
