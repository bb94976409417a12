"""STOW-RS, the second entrance for images: PS3.18 10.5 (Store transaction), I.2 (Store Instances Response). The keeping is that of C-STORE.

Each part of the body streams into a file and is kept when its end has come; the answer is written when the last commit has returned. So
what came whole is kept also when the client goes away in the middle, as it is with C-STORE.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import request_response

from listener import media_types
from listener.dicomweb import JSON_OFFERS, PREFIX, base_url_of, json_answer, negotiate
from listener.keeping import BY_UID, Keeps, check_size, disk_fault, ignored_because, keep_file
from listener.keys import Keys, Meta, Refused, Status, check_uids, is_uid, read_keys, read_meta, told
from listener.multipart import BadMultipart, MultipartReader, PartBegins, PartEnds
from listener.native_xml import native_xml
from listener.streamed import RETRY, Places, Streamed, pieces_of
from listener.who import AtLeast, Role, speaks_of
from pipeline.figures import Figures
from store.archive import Kept
from store.files import Files

log = logging.getLogger(__name__)

#: As for C-STORE: no instance is larger.
MAX_INSTANCE_BYTES = 2 * 1024**3 + 64 * 1024**2
#: One request; what it holds beyond must come in another one.
MAX_REQUEST_BYTES = 64 * 1024**3
MAX_PARTS = 10_000
_OFFERS = (*JSON_OFFERS, media_types.Offer(media_types.DICOM_XML))


@dataclass(frozen=True, kw_only=True)
class Entrance:
    """What is needed to keep. `kept`: the SOP Class UIDs of what the site keeps (`listener.keeping.kept_for`)."""

    archive: Keeps
    files: Files
    kept: frozenset[str]
    ae_title: str
    strict: bool = False
    requests_at_once: int = 32
    figures: Figures = field(default_factory=Figures)


@dataclass(frozen=True)
class Stored:
    """What became of one part: `status` is its Failure Reason, or Success. UIDs are "" when they could not be read."""

    status: Status
    comment: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    http_status: int = 409  # of the answer, should all parts have failed so

    @property
    def failed(self) -> bool:
        """Whether it was not accepted."""
        return self.status is not Status.SUCCESS


def create_router(entrance: Entrance) -> APIRouter:
    """`POST /studies` and `POST /studies/{study}` below the service's prefix."""
    router = APIRouter()
    endpoint = AtLeast(Role.OPERATOR, RequestBodyLimitMiddleware(request_response(StowRs(entrance).store), max_body_size=MAX_REQUEST_BYTES))
    for path in ("/studies", "/studies/{study_instance_uid}"):
        router.add_route(PREFIX + path, endpoint, methods=["POST"], include_in_schema=False)  # type: ignore[arg-type] # Starlette takes ASGI
    return router


class StowRs:
    """The Store transaction."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._places = Places()

    async def store(self, request: Request) -> Response:
        """PS3.18 10.5: 200 when all instances are kept, 202 some, 409 none; 503 when none for want of room or of the database."""
        study_instance_uid = request.path_params.get("study_instance_uid", "")
        if study_instance_uid and not is_uid(study_instance_uid):
            raise HTTPException(400, "the study in the path is no UID: numbers with dots between them, at most 64 characters")
        offer = negotiate(request, _OFFERS)
        reader = _reader(request)
        with self._places.one_of(self._entrance.requests_at_once):
            if not await run_in_threadpool(self._entrance.files.has_room):
                raise HTTPException(503, "the disk is nearly full; try again later", headers=RETRY)
            body = _Body(self._entrance, reader, study_instance_uid)
            try:
                async for piece in pieces_of(request):
                    await run_in_threadpool(body.take, piece)
                body.close()
            except BadMultipart as problem:
                body.stored.append(Stored(Status.CANNOT_PARSE, str(problem), http_status=400))
            except ClientDisconnect:
                log.warning("a client went away while it stored kept=%d", sum(not one.failed for one in body.stored))
                raise HTTPException(400, "the body was not sent to its end") from None
            finally:
                body.abandon()
                speaks_of(request, body.studies)  # what came whole is kept also when the rest never comes
        return _answer(request, offer, body.stored)


class _Body:
    """One request's body on its way to the store. Used by one thread at a time."""

    def __init__(self, entrance: Entrance, reader: MultipartReader, study_instance_uid: str) -> None:
        self.stored: list[Stored] = []
        self.studies: list[str] = []  # that anything was of
        self._entrance = entrance
        self._reader = reader
        self._study_instance_uid = study_instance_uid
        self._part: _Part | None = None

    def take(self, piece: bytes) -> None:
        """A further piece of the body. Raises BadMultipart."""
        for event in self._reader.feed(piece):
            if isinstance(event, PartBegins):
                if len(self.stored) == MAX_PARTS:
                    raise BadMultipart(f"more than {MAX_PARTS} parts in one request; send the rest in another one")
                self._part = _Part(event.headers, self._entrance.files)
            elif self._part is not None and isinstance(event, PartEnds):
                self._keep(self._part)
                self._part = None
            elif self._part is not None and isinstance(event, bytes):
                self._part.write(event)

    def close(self) -> None:
        """The body has ended. Raises BadMultipart when it is not whole, or has nothing in it."""
        self._reader.close()
        if not self.stored:
            raise BadMultipart("the body has no part")

    def abandon(self) -> None:
        """Whatever happens: what was not kept goes."""
        if self._part is not None:
            self._part.close()

    def _keep(self, part: _Part) -> None:
        """As `StorageScp.handle_store` does it for a message."""
        started = time.monotonic()
        keys: Keys | None = None
        named = Stored(Status.SUCCESS)
        try:
            part.finish()
            if not self._entrance.files.has_room():
                raise Refused(Status.OUT_OF_RESOURCES, "the disk is nearly full; try again later")
            meta = read_meta(part.path)
            named = Stored(Status.SUCCESS, "", meta.sop_class_uid, meta.sop_instance_uid)
            check_size(part.size_bytes, meta.sop_class_uid)  # before anything of the data set is parsed
            _check_transfer_syntax(meta)
            keys = read_keys(part.path)
            if keys.sop_instance_uid:
                named = Stored(Status.SUCCESS, "", keys.sop_class_uid, keys.sop_instance_uid)
            outcome = self._store(part, keys, meta)
            self.studies.append(keys.study_instance_uid)
        except Refused as refusal:
            outcome = "refused"
            named = Stored(refusal.status, refusal.comment, named.sop_class_uid, named.sop_instance_uid, part.http_status)
        except OSError as error:
            outcome = "refused"
            named = Stored(Status.OUT_OF_RESOURCES, disk_fault(error), named.sop_class_uid, named.sop_instance_uid)
        except Exception:
            # As at the other entrance: the parts behind this one shall come in, and the client shall know which one did not.
            log.exception("reception failed sop_instance_uid=%s", told(named.sop_instance_uid))
            comment = "internal error of the receiver; its log says more"
            outcome, named = "failed", Stored(Status.UNEXPECTED, comment, named.sop_class_uid, named.sop_instance_uid, 500)
        finally:
            part.close()
        seconds = time.monotonic() - started
        self._entrance.figures.add("instances_received", outcome)
        self._entrance.figures.took("stage_seconds", "reception", seconds)
        log.log(
            logging.WARNING if named.failed else logging.INFO,
            "instance outcome=%r status=0x%04X study_instance_uid=%s sop_instance_uid=%s sop_class_uid=%s entrance=stow "
            "size_bytes=%d seconds=%.3f comment=%r",
            outcome,
            named.status,
            told(keys.study_instance_uid if keys else ""),
            told(named.sop_instance_uid),
            told(named.sop_class_uid),
            part.size_bytes,
            seconds,
            named.comment,
        )
        self.stored.append(named)

    def _store(self, part: _Part, keys: Keys, meta: Meta) -> str:
        """Keep one instance; returns a word for the log or raises Refused."""
        check_uids(keys)
        if meta.sop_class_uid not in ("", keys.sop_class_uid):
            raise Refused(Status.DOES_NOT_MATCH, "SOPClassUID differs between file meta and data set")
        if meta.sop_instance_uid not in ("", keys.sop_instance_uid):
            raise Refused(Status.DOES_NOT_MATCH, "SOPInstanceUID differs between file meta and data set")
        if self._study_instance_uid not in ("", keys.study_instance_uid):
            raise Refused(Status.DOES_NOT_MATCH, "the instance is of another study than the URL")
        sop_class = BY_UID.get(keys.sop_class_uid)
        if sop_class is None:
            raise Refused(Status.SOP_CLASS_NOT_SUPPORTED, "this SOP class is not supported")
        if keys.transfer_syntax_uid not in sop_class.transfer_syntaxes:
            raise Refused(Status.TRANSFER_SYNTAX_NOT_SUPPORTED, "this class is not taken in this transfer syntax")
        check_size(part.size_bytes, keys.sop_class_uid)
        ignored = ignored_because(keys, self._entrance.kept)
        if ignored and self._entrance.strict:
            raise Refused(Status.SOP_CLASS_NOT_SUPPORTED, f"not accepted: {ignored}")
        kept = keep_file(
            keys,
            part.path,
            ignored,
            archive=self._entrance.archive,
            files=self._entrance.files,
            calling_ae_title="",  # HTTP has none
            called_ae_title=self._entrance.ae_title,
            origin="stow",
        )
        if ignored and kept is Kept.IGNORED:
            self._entrance.figures.add("instances_ignored", ignored)
        return kept.value


class _Part(Streamed):
    """A part on its way into the spool; `http_status` is the answer's, should all parts have failed as this one."""

    def __init__(self, headers: Mapping[str, str], files: Files) -> None:
        self.http_status, comment = _unfit(headers)
        super().__init__(files, MAX_INSTANCE_BYTES, Refused(Status.CANNOT_PARSE, comment) if comment else None)


def _unfit(headers: Mapping[str, str]) -> tuple[int, str]:
    """The status of the answer, and why a part with such headers is not taken; "" when it is."""
    if "content-type" not in headers:
        return 400, "a part has no Content-Type; write application/dicom"
    if [one.media_type for one in media_types.parse_accept(headers["content-type"])] != [media_types.DICOM]:
        return 415, "a part is not of the type application/dicom"
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        return 415, "a part is encoded; send its bytes as they are"
    return 409, ""


def _check_transfer_syntax(meta: Meta) -> None:
    """Before the data set is read, which would be garbage in another byte order, or deflated."""
    if not meta.transfer_syntax_uid:
        raise Refused(Status.CANNOT_PARSE, "the file meta information has no TransferSyntaxUID")
    if not any(meta.transfer_syntax_uid in sop_class.transfer_syntaxes for sop_class in BY_UID.values()):
        raise Refused(Status.TRANSFER_SYNTAX_NOT_SUPPORTED, "this transfer syntax is not supported")


def _reader(request: Request) -> MultipartReader:
    """What takes the body apart; HTTPException when its type is none that we take."""
    text = request.headers.get("content-type", "")
    kinds = media_types.parse_accept(text)
    kind = kinds[0] if len(kinds) == 1 else media_types.MediaRange("")
    if kind.media_type != media_types.MULTIPART or kind.parameters.get("type", media_types.DICOM).lower() != media_types.DICOM:
        raise HTTPException(415, f'send {media_types.MULTIPART}; type="{media_types.DICOM}"; boundary=...')
    if "boundary" not in kind.parameters:
        raise HTTPException(400, "the Content-Type names no boundary")
    try:
        return MultipartReader(kind.parameters["boundary"])
    except BadMultipart as problem:
        raise HTTPException(400, str(problem)) from None


def _answer(request: Request, offer: media_types.Offer, stored: list[Stored]) -> Response:
    """The report; what went wrong stands in Warning headers in words, since the report has only numbers for it."""
    status, base_url = _http_status(stored), base_url_of(request)
    words = list(dict.fromkeys(one.comment for one in stored if one.failed))
    if status in (400, 415):
        raise HTTPException(status, "; ".join(words))
    if offer.media_type == media_types.DICOM_XML:
        answer = Response(native_xml(report(stored)), status, media_type=media_types.DICOM_XML)
    else:
        answer = json_answer(report(stored), offer, status)
    for comment in words[:10]:
        count = sum(one.comment == comment for one in stored)
        answer.headers.append("Warning", f"299 {base_url}: {count} of {len(stored)} not stored: {_header(comment)}")
    if status == 503:
        answer.headers.update(RETRY)
    return answer


def report(stored: list[Stored]) -> dict[str, Any]:
    """The Store Instances Response in the DICOM JSON model (PS3.18 Table I.2-1). We serve no input images, so no Retrieve URL has a
    value."""
    sequences: dict[str, list[dict[str, Any]]] = {"00081198": [], "00081199": [], "0008119A": []}
    for one in stored:
        reference = {"00081150": _uid(one.sop_class_uid), "00081155": _uid(one.sop_instance_uid)}
        reason = {"00081197": {"vr": "US", "Value": [int(one.status)]}}
        if not one.failed:
            sequences["00081199"].append({**reference, "00081190": {"vr": "UR"}})
        elif is_uid(one.sop_instance_uid) and is_uid(one.sop_class_uid):
            sequences["00081198"].append({**reference, **reason})
        else:
            sequences["0008119A"].append(reason)
    return {"00081190": {"vr": "UR"}} | {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}


def _uid(value: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [value]} if value else {"vr": "UI"}


def _http_status(stored: list[Stored]) -> int:
    """PS3.18 Table 10.5.3-1. When nothing was kept for one reason, and that has a status of its own, it is that one."""
    failed = [one for one in stored if one.failed]
    if len(failed) < len(stored):
        return 202 if failed else 200
    if all(one.status is Status.OUT_OF_RESOURCES for one in failed):
        return 503
    reasons = {one.http_status for one in failed}
    return reasons.pop() if len(reasons) == 1 else 409


def _header(words: str) -> str:
    """Fit to stand in a header: a comment was cut to its length, perhaps behind a blank, and a disk's words may have anything."""
    return " ".join(words.encode("ascii", "replace").decode().split())
