"""QIDO-RS and WADO-RS over the results that Fourview keeps: PS3.18 10.6 (search), 10.4 (retrieve). Input images are not served;
what was kept to show of those that were read is rendered.

An answer is never held in memory whole where it is a file: objects and frames are streamed from the store.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import cast

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, StreamingResponse
from PIL import Image
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from starlette.routing import request_response

from listener import media_types, readable
from listener.keys import is_uid
from listener.listing import UTF_8, Header, Level, answers_to, entry, path_of
from listener.matching import BadValue, Query, parse_query
from listener.media_types import MULTIPART, OCTET_STREAM, Offer, Part
from listener.native_xml import native_xml
from listener.who import AtLeast, Role, speaks_of
from store.search import Search, StoredObject

logger = logging.getLogger(__name__)

PREFIX = "/dicom-web"

#: A search answers at most this many at once; a Warning header says how many are left.
MAX_RESULTS = 1000

#: Keys that the store matches, from values as `matching.Match` has them. The others are compared here, with MAX_CANDIDATES headers at most.
INDEXED = frozenset(
    {
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "SOPClassUID",
        "StudyDate",
        "PatientID",
        "PatientName",
        "AccessionNumber",
        "Modality",
        "ModalitiesInStudy",
    }
)
MAX_CANDIDATES = 5000
#: What is behind a page is counted no further: nobody turns so many pages, and counting a million takes a second.
MAX_COUNTED = 10_000

_THUMBNAIL = (256, 256)
_AT_ONCE = 100
_CHUNK_BYTES = 256 * 1024
_PIXEL_DATA = "7FE00010"

_SEARCHES = {
    "/studies": Level.STUDY,
    "/series": Level.SERIES,
    "/instances": Level.INSTANCE,
    "/studies/{study_instance_uid}/series": Level.SERIES,
    "/studies/{study_instance_uid}/instances": Level.INSTANCE,
    "/studies/{study_instance_uid}/series/{series_instance_uid}/instances": Level.INSTANCE,
}
_STUDY = "/studies/{study_instance_uid}"
_SERIES = _STUDY + "/series/{series_instance_uid}"
_INSTANCE = _SERIES + "/instances/{sop_instance_uid}"

JSON_OFFERS = (Offer(media_types.DICOM_JSON), Offer(media_types.JSON))
_HEADER_OFFERS = (*JSON_OFFERS, Offer(MULTIPART, media_types.DICOM_XML, explicit=True))
_IMAGE_OFFERS = (Offer("image/jpeg"), Offer("image/png"))
_TEXT_OFFERS = (Offer("text/html"), Offer("text/plain"))
#: Parameters of rendered resources that change nothing: our pages are RGB, and the pictures of views were windowed when they were read.
_NOT_RENDERED = ("window", "annotation", "iccprofile")
_PILLOW_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG"}

#: A page made from an object's words runs nothing and loads nothing.
_NOTHING_ACTIVE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}


def create_router(results: Search, file_path: Callable[[str], Path]) -> APIRouter:
    """The resources below `PREFIX`. `file_path` tells where the file lies that a stored object names."""
    service = DicomWeb(results, file_path)
    router = APIRouter()
    resources: dict[str, Callable[[Request], Response]] = {path: partial(service.search, level) for path, level in _SEARCHES.items()}
    for path in (_STUDY, _SERIES, _INSTANCE):
        resources[path] = service.retrieve
        resources[path + "/metadata"] = service.metadata
        resources[path + "/thumbnail"] = service.thumbnail
        resources[path + "/rendered"] = service.rendered_together if path != _INSTANCE else service.rendered
    resources[_INSTANCE + "/frames/{frames}"] = service.frames
    resources[_INSTANCE + "/frames/{frames}/rendered"] = service.rendered
    resources[_INSTANCE + "/bulkdata/{tag}"] = service.bulkdata
    for path, endpoint in resources.items():
        answer = AtLeast(Role.VIEWER, request_response(endpoint))
        # PS3.18 describes them better than OpenAPI can
        router.add_route(PREFIX + path, answer, methods=["GET"], include_in_schema=False)  # type: ignore[arg-type] # Starlette takes ASGI
    return router


class DicomWeb:
    """The transactions. Each method answers one request in a thread of its own, or raises HTTPException with words that name no patient."""

    def __init__(self, results: Search, file_path: Callable[[str], Path]) -> None:
        self._results = results
        self._file_path = file_path

    def search(self, level: Level, request: Request) -> Response:
        """PS3.18 10.6: 200 with a list, or 204 when there is nothing (more)."""
        study_instance_uid, series_instance_uid, _ = _uids(request)
        offer = negotiate(request, _HEADER_OFFERS)
        try:
            query = parse_query(request.query_params.multi_items())
        except BadValue as problem:
            raise HTTPException(400, str(problem)) from None
        base_url = base_url_of(request)
        fixed = {Level.STUDY: study_instance_uid, Level.SERIES: series_instance_uid}
        levels = list(Level)[: list(Level).index(level) + 1]
        told = partial(
            entry,
            level,
            base_url=base_url,
            with_levels=[each for each in levels if fixed.get(each) is None],
            included=query.included,
            include_all=query.include_all,
        )
        limit = MAX_RESULTS if query.limit is None else min(query.limit, MAX_RESULTS)
        found = _Found(self._results, level, study_instance_uid, series_instance_uid, query, limit)
        entries, total = found.page(told)
        speaks_of(request, (str(uid) for one in entries for uid in one.get("0020000D", {}).get("Value", ())))
        response = _headers(entries, offer) if entries else Response(status_code=204)
        left = total - query.offset - len(entries)
        many = "at least " if found.is_more else ""
        warnings = [f"There are {many}{left} additional results that can be requested"] if left > 0 else []
        for warning in (*query.warnings, *warnings):
            response.headers.append("Warning", f"299 {base_url}: {warning}")
        return response

    def retrieve(self, request: Request) -> Response:
        """PS3.18 10.4.1.1.1 to 10.4.1.1.3: the Part 10 files of a study, a series or an instance."""
        objects = self._objects(request)
        syntaxes = {stored.transfer_syntax_uid for stored in objects}
        syntax = syntaxes.pop() if len(syntaxes) == 1 else "*"  # several: only for who takes them as they are
        offers = [Offer(MULTIPART, media_types.DICOM, syntax)]
        if "sop_instance_uid" in request.path_params:
            offers.append(Offer(media_types.DICOM, transfer_syntax_uid=syntax, explicit=True))
        offer = negotiate(request, offers)
        paths = [self._path(stored) for stored in objects]
        if offer.media_type == media_types.DICOM:
            return FileResponse(paths[0], media_type=f"{media_types.DICOM}; transfer-syntax={syntax}")
        return _multipart(
            media_types.DICOM,
            [
                Part(f"{media_types.DICOM}; transfer-syntax={stored.transfer_syntax_uid}", _chunks(path, 0, path.stat().st_size))
                for stored, path in zip(objects, paths, strict=True)
            ],
        )

    def metadata(self, request: Request) -> Response:
        """PS3.18 10.4.1.1.5: the headers, from the database; pixel data is a link."""
        offer = negotiate(request, _HEADER_OFFERS)
        base_url = base_url_of(request)
        return _headers([_with_links(stored, base_url) for stored in self._objects(request)], offer)

    def frames(self, request: Request) -> Response:
        """PS3.18 10.4.1.1.6: frames of an image, uncompressed."""
        stored = self._image(request)
        numbers = _frame_numbers(request.path_params["frames"])
        pixels = _Pixels(self._path(stored))
        if max(numbers) > pixels.frame_count:
            raise HTTPException(404, f"instance {stored.sop_instance_uid} has {pixels.frame_count} frame(s)")
        if len(numbers) > pixels.frame_count:
            raise HTTPException(400, "each frame can be asked for once in a request")
        return _octets(request, [pixels.frame(number) for number in numbers])

    def bulkdata(self, request: Request) -> Response:
        """PS3.18 10.4.1.1.4: what the metadata links to."""
        stored = self._image(request)
        if request.path_params["tag"].upper() != _PIXEL_DATA:
            raise HTTPException(404, f"instance {stored.sop_instance_uid} has no bulk data but its Pixel Data, {_PIXEL_DATA}")
        return _octets(request, [_Pixels(self._path(stored)).all_frames()])

    def rendered(self, request: Request) -> Response:
        """PS3.18 10.4.1.2: an image as JPEG or PNG, a structured report as HTML or plain text; also a view that was read."""
        if "frames" in request.path_params and _frame_numbers(request.path_params["frames"]) != [1]:
            raise HTTPException(404, "one frame can be rendered, number 1")
        if (view := self._view(request)) is not None:
            return _picture(request, view, largest=None)
        [stored] = self._objects(request)
        if _is_image(stored):
            return _picture(request, _Pixels(self._path(stored)).picture(), largest=None)
        offer = negotiate(request, _TEXT_OFFERS)
        ds = Dataset.from_json(dict(stored.header))
        if offer.media_type == "text/plain":
            return PlainTextResponse(readable.as_text(ds))
        return HTMLResponse(readable.as_html(ds), headers=_NOTHING_ACTIVE)

    def rendered_together(self, request: Request) -> Response:
        """PS3.18 10.4.1.2: the result pages of a study or series, each a part; one alone also as a picture by itself."""
        pages = [_Pixels(self._path(stored)) for stored in self._objects(request) if _is_image(stored)]
        if not pages:
            raise HTTPException(404, "there is no image to be rendered; ask for /rendered of an instance")
        offers = [Offer(MULTIPART, one.media_type) for one in _IMAGE_OFFERS]
        offer = negotiate(request, [*_IMAGE_OFFERS, *offers] if len(pages) == 1 else offers)
        if offer.media_type != MULTIPART:
            return _picture(request, pages[0].picture(), largest=None)
        encoded = _encoder(request, offer.part_type, largest=None)
        # One page at a time is in memory.
        parts = [Part(offer.part_type, map(encoded, map(_Pixels.picture, [one]))) for one in pages]
        return _warned(request, _multipart(offer.part_type, parts))

    def thumbnail(self, request: Request) -> Response:
        """PS3.18 10.4.1.3: the newest result page of a study or series, small; of an instance also a view that was read."""
        if (view := self._view(request)) is not None:
            return _picture(request, view, largest=_THUMBNAIL)
        images = [stored for stored in self._objects(request) if _is_image(stored)]
        if not images:
            raise HTTPException(404, "there is no image to make a thumbnail of")
        return _picture(request, _Pixels(self._path(images[-1])).picture(), largest=_THUMBNAIL)

    def _objects(self, request: Request) -> list[StoredObject]:
        """The objects that the path names, at least one; else 404."""
        uids = tuple(uid for uid in _uids(request) if uid is not None)
        found = [
            stored
            for stored in self._results.objects(uids[:1])
            if uids == (stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid)[: len(uids)]
        ]
        if not found:
            raise HTTPException(404, f"no result is kept here under {'/'.join(uids)}; images that came are served by their PACS")
        return found

    def _image(self, request: Request) -> StoredObject:
        [stored] = self._objects(request)
        if not _is_image(stored):
            raise HTTPException(404, f"instance {stored.sop_instance_uid} is no image; ask for /rendered or /metadata")
        return stored

    def _path(self, stored: StoredObject) -> Path:
        path = self._file_path(stored.file_name)
        if not path.is_file():
            logger.error("event=file_missing sop_instance_uid=%s file_name=%s", stored.sop_instance_uid, stored.file_name)
            raise HTTPException(410, f"the file of instance {stored.sop_instance_uid} is not kept any more")
        return path

    def _view(self, request: Request) -> Image.Image | None:
        """The picture that was kept of an image when it was read; None when the path names none."""
        study_instance_uid, series_instance_uid, sop_instance_uid = _uids(request)
        if study_instance_uid is None or series_instance_uid is None or sop_instance_uid is None:
            return None
        name = self._results.preview(study_instance_uid, series_instance_uid, sop_instance_uid)
        if name is None:
            return None
        try:
            return Image.open(self._file_path(name))
        except FileNotFoundError:
            logger.error("event=file_missing sop_instance_uid=%s file_name=%s", sop_instance_uid, name)
            raise HTTPException(410, f"the picture of instance {sop_instance_uid} is not kept any more") from None


def _picture(request: Request, picture: Image.Image, *, largest: tuple[int, int] | None) -> Response:
    offer = negotiate(request, _IMAGE_OFFERS)
    content = _encoder(request, offer.media_type, largest=largest)(picture)
    return _warned(request, Response(content, media_type=offer.media_type))


def _encoder(request: Request, media_type: str, *, largest: tuple[int, int] | None) -> Callable[[Image.Image], bytes]:
    """What makes a picture of this type, as large as the request wants it, else at most `largest`; 400 for parameters that are none."""
    size = _viewport(request.query_params.get("viewport")) or largest
    quality = _number(request, "quality", default=90, ceiling=100)

    def encoded(picture: Image.Image) -> bytes:
        if size:
            picture.thumbnail(size)
        body = BytesIO()
        picture.save(body, _PILLOW_FORMATS[media_type], quality=quality)
        return body.getvalue()

    return encoded


def _warned(request: Request, response: Response) -> Response:
    """PS3.18 8.3.5: a picture that is not as the request wanted it says so."""
    for name in _NOT_RENDERED:
        if name in request.query_params:
            response.headers.append("Warning", f"299 {base_url_of(request)}: {name} is not supported here and was ignored")
    return response


class _Found:
    """What one search finds, read a hundred headers at a time."""

    def __init__(
        self,
        results: Search,
        level: Level,
        study_instance_uid: str | None,
        series_instance_uid: str | None,
        query: Query,
        limit: int,
    ) -> None:
        self._results = results
        self._level = level
        self._query = query
        self._limit = limit
        matching = {match.key.name: match.value for match in query.matches if match.key.name in INDEXED}
        self._needs_headers = any(match.key.name not in INDEXED for match in query.matches)
        at_most = MAX_CANDIDATES + 1 if self._needs_headers else query.offset + limit + MAX_COUNTED
        self._count = results.count(
            level, study_instance_uid=study_instance_uid, series_instance_uid=series_instance_uid, matching=matching, at_most=at_most
        )
        self.is_more = self._count == at_most
        self._find = partial(
            results.search,
            level,
            study_instance_uid=study_instance_uid,
            series_instance_uid=series_instance_uid,
            matching=matching,
            common=self.is_more,
        )

    def page(self, told: Callable[[StoredObject, list[StoredObject]], Header]) -> tuple[list[Header], int]:
        """The entries of the query's page, made by `told`, and how many entries all pages hold together; at least, if `is_more`."""
        offset, limit = self._query.offset, self._limit
        if not self._needs_headers:
            return [told(hit, family) for hit, family in self._hits(offset, limit)], self._count
        if self.is_more:
            narrowing = ", ".join(sorted(INDEXED))
            raise HTTPException(
                413, f"more than {MAX_CANDIDATES} objects would have to be compared; narrow the search by one of {narrowing}"
            )
        entries, total = [], 0
        for hit, family in self._hits(0, self._count):
            if answers_to(self._query.matches, self._level, hit, family):
                if offset <= total < offset + limit:
                    entries.append(told(hit, family))
                total += 1
        return entries, total

    def _hits(self, offset: int, limit: int) -> Iterator[tuple[StoredObject, list[StoredObject]]]:
        """What the store finds, each with every object of its study."""
        for start in range(offset, min(offset + limit, self._count), _AT_ONCE):
            hits = self._find(limit=min(_AT_ONCE, offset + limit - start), offset=start)
            families: dict[str, list[StoredObject]] = {}
            for stored in self._results.objects(sorted({hit.study_instance_uid for hit in hits})):
                families.setdefault(stored.study_instance_uid, []).append(stored)
            for hit in hits:
                family = families.get(hit.study_instance_uid, [])
                # None: forgotten since the search.
                yield from ((stored, family) for stored in family if stored.sop_instance_uid == hit.sop_instance_uid)


class _Pixels:
    """Where the uncompressed Pixel Data of a file lies. Only objects that we wrote ourselves come here."""

    def __init__(self, path: Path) -> None:
        ds = dcmread(path, defer_size=1024)
        if UID(ds.file_meta.TransferSyntaxUID).is_compressed:
            raise HTTPException(406, f"the pixels of instance {ds.SOPInstanceUID} are kept compressed only; retrieve the instance instead")
        element = cast(RawDataElement, ds.get_item(_PIXEL_DATA, keep_deferred=True))  # raw: nobody has read the value
        self._path = path
        self._offset: int = element.value_tell
        self._ds = ds
        self.frame_count = int(ds.get("NumberOfFrames") or 1)
        self._frame_bytes: int = ds.Rows * ds.Columns * ds.SamplesPerPixel * ds.BitsAllocated // 8

    def frame(self, number: int) -> Iterator[bytes]:
        """The bytes of frame `number`, counted from 1."""
        return _chunks(self._path, self._offset + (number - 1) * self._frame_bytes, self._frame_bytes)

    def all_frames(self) -> Iterator[bytes]:
        return _chunks(self._path, self._offset, self.frame_count * self._frame_bytes)

    def picture(self) -> Image.Image:
        """The first frame; HTTPException 406 when it is neither RGB nor 8-bit grey."""
        kind = (
            self._ds.SamplesPerPixel,
            self._ds.BitsAllocated,
            self._ds.PhotometricInterpretation,
            self._ds.get("PlanarConfiguration", 0),
        )
        modes = {(3, 8, "RGB", 0): "RGB", (1, 8, "MONOCHROME2", 0): "L"}
        if kind not in modes:
            raise HTTPException(406, f"instance {self._ds.SOPInstanceUID} cannot be rendered; retrieve its frames instead")
        return Image.frombytes(modes[kind], (self._ds.Columns, self._ds.Rows), b"".join(self.frame(1)))


def _uids(request: Request) -> tuple[str | None, str | None, str | None]:
    """Study, series and SOP Instance UID of the path, None where it has none; 400 when one is no UID."""
    names = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")
    for name in names:
        if not is_uid(request.path_params.get(name, "0")):
            raise HTTPException(400, f"the {name} in the path is no UID: numbers with dots between them, at most 64 characters")
    study_instance_uid, series_instance_uid, sop_instance_uid = (request.path_params.get(name) for name in names)
    return study_instance_uid, series_instance_uid, sop_instance_uid


def base_url_of(request: Request) -> str:
    """Where the client reached us. Some clients leave the port out of Host; without a proxy between, ours is the right one."""
    url = request.base_url
    server = request.scope.get("server")
    forwarded = any(name in request.headers for name in ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"))
    if url.port is None and server and server[1] not in (None, 80, 443) and not forwarded:
        url = url.replace(port=server[1])
    return str(url).rstrip("/") + PREFIX


def negotiate(request: Request, offers: Sequence[Offer]) -> Offer:
    """PS3.18 8.7.4, 8.7.5: the accept parameter comes before the header; 406 when nothing fits."""
    asked = request.query_params.getlist("accept")
    # "+" in a query string is a blank, and no media type has one
    text = ",".join(asked).replace("dicom json", "dicom+json") if asked else ",".join(request.headers.getlist("accept"))
    ranges = media_types.parse_accept(text)
    offer = media_types.choose(ranges, offers) if ranges or not text.strip() else None
    if offer is None:
        raise HTTPException(406, "this resource can be had as " + ", ".join(_described(offer) for offer in offers))
    return offer


def _described(offer: Offer) -> str:
    kind = f'{offer.media_type}; type="{offer.part_type}"' if offer.part_type else offer.media_type
    return f"{kind}; transfer-syntax={offer.transfer_syntax_uid}" if offer.transfer_syntax_uid else kind


def json_answer(content: list[Header] | Header, offer: Offer, status_code: int = 200) -> Response:
    """The DICOM JSON model (PS3.18 F)."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, media_type=offer.media_type, status_code=status_code)


def _headers(found: list[Header], offer: Offer) -> Response:
    if offer.part_type == media_types.DICOM_XML:
        return _multipart(media_types.DICOM_XML, [Part(media_types.DICOM_XML, [native_xml(each).encode()]) for each in found])
    return json_answer(found, offer)


def _multipart(part_type: str, parts: Sequence[Part]) -> Response:
    boundary = media_types.new_boundary()
    return StreamingResponse(media_types.multipart(parts, boundary), media_type=f'{MULTIPART}; type="{part_type}"; boundary={boundary}')


def _octets(request: Request, parts: Sequence[Iterator[bytes]]) -> Response:
    """Uncompressed pixels, each part streamed; a single part alone when the client names its type."""
    offers = [Offer(MULTIPART, OCTET_STREAM, ExplicitVRLittleEndian)]
    if len(parts) == 1:
        offers.append(Offer(OCTET_STREAM, transfer_syntax_uid=ExplicitVRLittleEndian, explicit=True))
    if negotiate(request, offers).media_type == OCTET_STREAM:
        return StreamingResponse(parts[0], media_type=OCTET_STREAM)
    return _multipart(OCTET_STREAM, [Part(f"{OCTET_STREAM}; transfer-syntax={ExplicitVRLittleEndian}", part) for part in parts])


def _chunks(path: Path, offset: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while length > 0 and (chunk := file.read(min(length, _CHUNK_BYTES))):
            length -= len(chunk)
            yield chunk


def _is_image(stored: StoredObject) -> bool:
    return "00280010" in stored.header


def _with_links(stored: StoredObject, base_url: str) -> Header:
    header = {**stored.header, "00080005": UTF_8}
    if _is_image(stored):
        wide = stored.header.get("00280100", {}).get("Value", [8])[0] > 8
        url = f"{base_url}{path_of(Level.INSTANCE, stored)}/bulkdata/{_PIXEL_DATA}"
        header[_PIXEL_DATA] = {"vr": "OW" if wide else "OB", "BulkDataURI": url}
    return dict(sorted(header.items()))


def _frame_numbers(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isascii() and number.isdigit() and len(number) <= 9 and int(number) > 0 for number in numbers):
        raise HTTPException(400, "frames are numbers from 1 on, with commas between them")
    return [int(number) for number in numbers]


def _viewport(text: str | None) -> tuple[int, int] | None:
    """PS3.18 8.3.5.1.4: width and height that the picture must fit into. The source region is not supported."""
    if text is None:
        return None
    numbers = text.split(",")
    if len(numbers) != 2 or not all(number.isascii() and number.isdigit() and 1 <= int(number[:6]) <= 8192 for number in numbers):
        raise HTTPException(400, "viewport must be width,height in pixels, each 1 to 8192")
    return int(numbers[0]), int(numbers[1])


def _number(request: Request, name: str, *, default: int, ceiling: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= ceiling):
        raise HTTPException(400, f"{name} must be a whole number from 1 to {ceiling}")
    return int(text)
