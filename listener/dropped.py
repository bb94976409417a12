"""DICOM files that a person gives us to read: a form's upload (RFC 7578), kept and asked for as images that are read on demand.

Each file streams into the spool and is kept when its end has come; one that is no image is an error of that file, and the others go on.
Names of files may be those of patients: they are neither kept nor logged. Nobody waits here for scores; the study's page shows them.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from listener import media_types
from listener.dicomweb import negotiate
from listener.multipart import BadMultipart, MultipartReader, PartBegins, PartEnds
from listener.on_demand import MOST_BYTES, Waiting
from listener.reference_api import Failed
from listener.streamed import RETRY, Places, Streamed, pieces_of
from listener.who import Person, Role, at_least, speaks_of
from pipeline.figures import Figures
from store.files import Files

log = logging.getLogger(__name__)

PATH = "/api/v1/files"
#: The form's field that holds the files.
FIELD = "files"
MOST_FILES = 16
#: One request: its files, and what stands between them.
MOST_REQUEST_BYTES = MOST_FILES * (MOST_BYTES + 16384)
#: So many people drop files at once; one more is told to come back.
REQUESTS_AT_ONCE = 8
#: A form has other fields too, but no more in earnest.
_MOST_PARTS = 64
_HTML = "text/html"
_OFFERS = (media_types.Offer(media_types.JSON), media_types.Offer(_HTML, explicit=True))


class Takes(Protocol):
    """What keeps a file and asks for its score; `listener.on_demand.Reader` is one."""

    def take(self, streamed: Streamed) -> Waiting | Failed: ...


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What became of one file. `index`: its place in the request, from 0. `error` is "" when it is read; else the other texts may be ""."""

    index: int
    study_instance_uid: str = ""
    sop_instance_uid: str = ""
    view: str | None = None  # as hung, None when it shows none of the four
    error: str = ""


_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": f"At most {MOST_FILES}; each one more is not read, and its entry says so",
                        }
                    },
                }
            }
        },
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Every file is read; one entry per file, in their order", "model": list[Dropped]},
    202: {"description": "At least one file is not read, and its entry says why", "model": list[Dropped]},
    303: {"description": "To a client that prefers text/html: the page of the first file's study"},
    400: {"description": "No form, or no file in it"},
    403: {"description": "The person may not drop files"},
    406: {"description": "Neither JSON nor HTML is accepted"},
    408: {"description": "Nothing came for a minute"},
    413: {"description": "The form is larger than 16 files of 200 MiB"},
    415: {"description": "The body is no multipart/form-data"},
    503: {"description": "Nothing can be kept now; try again later"},
    507: {"description": "The disk is full"},
}


def create_router(reader: Takes, files: Files, figures: Figures) -> APIRouter:
    """`POST /api/v1/files`."""
    router = APIRouter(tags=["files"])
    places = Places()

    @router.post(PATH, responses=_ANSWERS, openapi_extra=_SCHEMA, response_model=None, max_body_size=MOST_REQUEST_BYTES)
    async def drop(request: Request, person: Annotated[Person, Depends(at_least(Role.OPERATOR))]) -> Response:
        """Have DICOM files read. They are never sent, nor anything made of them, unless a person sends their study."""
        offer = negotiate(request, _OFFERS)
        form = _reader(request)
        with places.one_of(REQUESTS_AT_ONCE):
            if not await run_in_threadpool(files.has_room):
                raise HTTPException(507, "the disk is nearly full")
            body = _Body(reader, files, form)
            try:
                await body.read(request)
            finally:
                # What came whole is kept and asked for also when the rest never comes, so it is told in any case.
                body.abandon()
                found = body.dropped
                for one in found:
                    figures.add("files_dropped", "refused" if one.error else "kept")
                speaks_of(request, (one.study_instance_uid for one in found))
                log.info("files dropped person=%s files=%d refused=%d", person.name, len(found), sum(bool(one.error) for one in found))
        return _page(body) if offer.media_type == _HTML else _json(body)

    return router


class _Body:
    """One form on its way into the spool."""

    def __init__(self, reader: Takes, files: Files, form: MultipartReader) -> None:
        self.dropped: list[Dropped] = []
        self.failed: list[Failed] = []
        self._reader = reader
        self._files = files
        self._form = form
        self._parts = 0
        self._streamed: Streamed | None = None

    async def read(self, request: Request) -> None:
        """To its end. Raises HTTPException when it is no form, or has no file."""
        try:
            async for piece in pieces_of(request):
                await run_in_threadpool(self._take, piece)
            self._form.close()
        except BadMultipart as problem:
            if not self.dropped:
                raise HTTPException(400, str(problem)) from None
            self._failed(Failed(HTTPStatus.BAD_REQUEST, str(problem)))  # what came whole before is kept
        except ClientDisconnect:
            raise HTTPException(400, "the form was not sent to its end") from None
        if not self.dropped:
            raise HTTPException(400, f"the form has no file in its field {FIELD}")

    def abandon(self) -> None:
        """Whatever happens: what was not kept goes."""
        if self._streamed is not None:
            self._streamed.close()

    def _take(self, piece: bytes) -> None:
        for event in self._form.feed(piece):
            if isinstance(event, PartBegins):
                self._parts += 1
                if self._parts > _MOST_PARTS:
                    raise BadMultipart(f"the form has more than {_MOST_PARTS} fields")
                self._streamed = Streamed(self._files, MOST_BYTES) if _is_file(event.headers) else None
            elif self._streamed is not None and isinstance(event, PartEnds):
                self._keep(self._streamed)
                self._streamed = None
            elif self._streamed is not None and isinstance(event, bytes):
                self._streamed.write(event)

    def _keep(self, streamed: Streamed) -> None:
        try:
            if not streamed.size_bytes and not self.dropped and self._parts == 1:
                return  # a browser sends an empty one when none was chosen
            if len(self.dropped) >= MOST_FILES:
                self._failed(Failed(HTTPStatus.BAD_REQUEST, f"only {MOST_FILES} files are taken at once: give it again"))
                return
            found = self._reader.take(streamed)
            if isinstance(found, Failed):
                self._failed(found)
                return
            uids = {"study_instance_uid": found.study_instance_uid, "sop_instance_uid": found.sop_instance_uid}
            self.dropped.append(Dropped(index=len(self.dropped), view=found.view, **uids))
        finally:
            streamed.close()

    def _failed(self, failed: Failed) -> None:
        self.failed.append(failed)
        self.dropped.append(Dropped(index=len(self.dropped), error=failed.reason))

    @property
    def fault(self) -> Failed | None:
        """What is wrong around us, when no file was kept because of that alone."""
        ours = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE)
        if len(self.failed) == len(self.dropped) and all(one.status in ours for one in self.failed):
            return self.failed[0]
        return None


def _is_file(headers: Mapping[str, str]) -> bool:
    """RFC 7578 4.2: a part of our field that has a file name."""
    kind, options = parse_options_header(headers.get("content-disposition", ""))
    return kind == b"form-data" and options.get(b"name") == FIELD.encode() and b"filename" in options


def _reader(request: Request) -> MultipartReader:
    """What takes the form apart; HTTPException when the body is none."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise HTTPException(415, f"send multipart/form-data with the files in the field {FIELD}")
    try:
        return MultipartReader(options.get(b"boundary", b"").decode("latin-1"))
    except BadMultipart as problem:
        raise HTTPException(400, str(problem)) from None


def _json(body: _Body) -> Response:
    if body.fault is not None:
        raise HTTPException(body.fault.status, body.fault.reason, headers=RETRY)
    return JSONResponse([asdict(one) for one in body.dropped], status_code=202 if body.failed else 200)


def _page(body: _Body) -> Response:
    """For a form without JavaScript: the study's page shows what comes; when there is none, why."""
    kept = next((one.study_instance_uid for one in body.dropped if not one.error), "")
    if kept:
        return RedirectResponse(f"/studies/{kept}", status_code=303)
    why = "".join(f"<li>file {one.index + 1}: {html.escape(one.error)}</li>" for one in body.dropped)
    text = (
        f'<!doctype html><html lang="en"><title>Fourview</title><h1>No file was read</h1><ul>{why}</ul><p><a href="/">Back</a></p></html>'
    )
    return HTMLResponse(text, status_code=400 if body.fault is None else body.fault.status)
