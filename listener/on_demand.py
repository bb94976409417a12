"""Images that a person wants read now: fetched from Orthanc by its ids or given as files, kept, and read before all others by a worker.

This process has no model: it asks for a score and waits for the row. Images are fetched from `[study] fetch_from` and from nowhere else,
whatever a request names. What follows of them, and what does not, stands in `store.on_demand`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from anyio import CapacityLimiter, to_thread
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage

from listener.config import Config
from listener.fetch import source
from listener.keeping import adopted, disk_fault, reception_of
from listener.keys import Refused, Status, check_uids, read_keys, read_meta
from listener.reference_api import Failed, Outcome, Read
from listener.streamed import Streamed
from pipeline.decode import DECODABLE
from pipeline.engine_choice import NotSettled
from pipeline.figures import Figures
from pipeline.model_card import ModelError
from pipeline.orthanc import FetchFailed, InstanceNotFetched, Trouble, fetch_instance
from store.database import DatabaseAway
from store.files import Files
from store.header import pack_header, read_header, unpack_header
from store.header_text import UNREADABLE, is_of_the_disk
from store.on_demand import ORIGIN, Answer, Asked, NotForReading, OnDemand
from store.rows import Busy
from store.study import HANGING_ORDER, Policy, ViewEvidence
from store.view import resolve

log = logging.getLogger(__name__)

#: A mammogram may be so large (as by C-STORE).
MOST_BYTES = 200 << 20
#: How often it is asked whether the images were read.
LOOK_SECONDS = 0.1
#: Images fetched at the same time, of all requests together.
FETCHES_AT_ONCE = 8

_STATUS = {
    Trouble.UNKNOWN: HTTPStatus.NOT_FOUND,
    Trouble.SLOW: HTTPStatus.GATEWAY_TIMEOUT,
    Trouble.AWAY: HTTPStatus.BAD_GATEWAY,
    Trouble.TOO_LARGE: HTTPStatus.INTERNAL_SERVER_ERROR,
}


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a request waits, in seconds."""

    fetch_seconds: float = 60.0  # for each image to come from Orthanc
    read_seconds: float = 120.0  # for all of them to be read, once they are here


@dataclass(frozen=True)
class Waiting:
    """An image that is kept and waits to be read, unless it was read already. `view` as in `Read`."""

    study_instance_uid: str
    sop_instance_uid: str
    view: str | None
    asked: Asked


class Reader:
    """Has images read on demand; `policy` says by which model, and raises ModelError when there is none. Once `stopped` is set, nobody is
    kept waiting."""

    def __init__(
        self,
        config: Config,
        book: OnDemand,
        files: Files,
        policy: Callable[[], Policy],
        figures: Figures,
        stopped: threading.Event,
        patience: Patience | None = None,
    ) -> None:
        self._config = config
        self._book = book
        self._files = files
        self._policy = policy
        self._figures = figures
        self._stopped = stopped
        self._patience = patience or Patience()
        self._under_way: set[object] = set()
        self._fetches = CapacityLimiter(FETCHES_AT_ONCE)
        self._looks = CapacityLimiter(FETCHES_AT_ONCE)

    def address(self) -> str:
        """Where images are fetched from; "" when the configuration names no such place."""
        try:
            return source(self._config).url
        except FetchFailed:
            return ""

    def notice(self) -> str:
        """The model that answers, in words for a header of the answer."""
        try:
            model = self._policy().model
        except ModelError:
            return ""
        return f"model {model.name} {model.version}" + ("" if model.trained else ", UNTRAINED: the numbers are meaningless")

    async def read(self, orthanc_ids: Sequence[str]) -> list[Outcome]:
        """What came of each of these instances, in this order; one that fails stops no other."""
        wanted = list(dict.fromkeys(orthanc_ids))
        begun = time.monotonic()
        asked = await self._all_asked(wanted)
        fetched = time.monotonic()
        found = dict(zip(wanted, await self._settled(asked), strict=True))
        for one in found.values():
            self._figures.add("images_on_demand", "failed" if isinstance(one, Failed) else "read")
        failed = sum(isinstance(one, Failed) for one in found.values())
        log.info(
            "read on demand images=%d failed=%d fetch_seconds=%.3f read_seconds=%.3f",
            len(wanted),
            failed,
            fetched - begun,
            time.monotonic() - fetched,
        )
        return [found[one] for one in orthanc_ids]

    @property
    def fetching(self) -> bool:
        """Whether a thread is still at it."""
        return bool(self._under_way)

    async def _all_asked(self, orthanc_ids: Sequence[str]) -> list[Waiting | Failed]:
        """Each fetched, kept and asked for, at the same time; what is not done when the process is stopped is let go."""

        async def ask(orthanc_id: str) -> Waiting | Failed:
            return await to_thread.run_sync(self._ask, orthanc_id, abandon_on_cancel=True, limiter=self._fetches)

        tasks = [asyncio.ensure_future(ask(one)) for one in orthanc_ids]
        pending = set(tasks)
        try:
            while pending and not self._stopped.is_set():
                _, pending = await asyncio.wait(pending, timeout=LOOK_SECONDS)
        finally:
            for one in pending:
                one.cancel()
        return [_stopping() if one in pending else one.result() for one in tasks]

    async def _settled(self, asked: Sequence[Waiting | Failed]) -> list[Outcome]:
        """Wait until all are read, or nobody can wait any longer."""
        give_up_at = time.monotonic() + self._patience.read_seconds
        numbers = [one.asked.score_id for one in asked if isinstance(one, Waiting)]
        answers: dict[int, Answer] = {}
        away = False
        while numbers:
            try:
                answers = await to_thread.run_sync(self._book.answers, numbers, limiter=self._looks)
                away = False
            except DatabaseAway as error:  # it may come back, and the images are kept
                away = True
                log.warning("database not reachable, trying again reason=%r", str(error.orig))
            waits = any(one.scores is None and not one.failure for one in answers.values())
            if not (waits or away) or self._stopped.is_set() or time.monotonic() > give_up_at:
                break
            await asyncio.sleep(LOOK_SECONDS)
        return [self._outcome(one, answers, away) for one in asked]

    def _outcome(self, one: Waiting | Failed, answers: dict[int, Answer], away: bool) -> Outcome:
        if isinstance(one, Failed):
            return one
        answer = answers.get(one.asked.score_id)
        if answer is not None and answer.scores is not None:
            scores = answer.scores
            return Read(
                view=one.view, study_instance_uid=one.study_instance_uid, classes=scores.classes, probabilities=scores.probabilities
            )
        if answer is not None and answer.failure:
            return Failed(HTTPStatus.INTERNAL_SERVER_ERROR, answer.failure)
        if self._stopped.is_set():
            return _stopping()
        if away:
            return _busy()
        if answer is None:
            return Failed(HTTPStatus.NOT_FOUND, "its study was forgotten while it waited to be read")
        seconds = f"{self._patience.read_seconds:g}"
        return Failed(
            HTTPStatus.GATEWAY_TIMEOUT,
            f"it was not read within {seconds} seconds: see whether a worker runs and analysing is not paused; it is read all the same, so "
            "ask again later",
        )

    def _ask(self, orthanc_id: str) -> Waiting | Failed:
        """Fetch an image, keep it, ask for its score."""
        mark = object()
        self._under_way.add(mark)
        received = self._files.incoming / f"{secrets.token_hex(16)}.dcm"
        try:
            return self._tried(lambda: self._fetched(orthanc_id, received))
        finally:
            with contextlib.suppress(OSError):  # the janitor finds it
                received.unlink(missing_ok=True)
            self._under_way.discard(mark)

    def _fetched(self, orthanc_id: str, received: Path) -> Waiting:
        policy, pacs = self._policy(), source(self._config)
        if not self._files.has_room():
            raise Refused(Status.OUT_OF_RESOURCES, "the disk is nearly full")
        fetch_instance(pacs, orthanc_id, received, seconds=self._patience.fetch_seconds, most_bytes=MOST_BYTES)
        return self._kept(received, policy, "orthanc")

    def take(self, streamed: Streamed) -> Waiting | Failed:
        """Keep a file that a person has given, when it has come whole, and ask for its score; it does not wait for that."""

        def take() -> Waiting:
            policy = self._policy()
            streamed.finish()
            return self._kept(streamed.path, policy, "person")

        return self._tried(take)

    def _tried(self, step: Callable[[], Waiting]) -> Waiting | Failed:
        """What became of one image; whatever goes wrong with it has a status and a reason, and stops no other."""
        try:
            return step()
        except InstanceNotFetched as error:
            return Failed(_STATUS[error.trouble], str(error))
        except FetchFailed as error:
            return Failed(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except Refused as refused:
            status = HTTPStatus.INSUFFICIENT_STORAGE if refused.status is Status.OUT_OF_RESOURCES else HTTPStatus.INTERNAL_SERVER_ERROR
            return Failed(status, refused.comment)
        except NotForReading as error:
            return Failed(HTTPStatus.FORBIDDEN, str(error))
        except NotSettled:
            return Failed(HTTPStatus.SERVICE_UNAVAILABLE, "no worker has started yet: nothing can be read")
        except ModelError as error:  # of the site's card, or of that which a rule names for its study
            log.error("nothing is read on demand, no model card reason=%r", str(error))  # which names paths
            return Failed(HTTPStatus.SERVICE_UNAVAILABLE, "the model card cannot be used by the web process: `fourview check` says why")
        except OSError as error:
            return Failed(HTTPStatus.INSUFFICIENT_STORAGE, disk_fault(error))
        except Busy as error:
            log.warning("not kept, database not reachable reason=%r", str(error))
            return _busy()
        except DatabaseAway as error:  # it was asked by which engine the model reads
            log.warning("not kept, database not reachable reason=%r", str(error.orig))
            return _busy()
        except Exception as error:  # noqa: BLE001 - a surprise with one image stops no other; its message may quote a patient's data
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("not read on demand, unexpected error=%s at=%s:%s", type(error).__name__, Path(place.filename).name, place.lineno)
            return Failed(HTTPStatus.INTERNAL_SERVER_ERROR, f"unexpected {type(error).__name__}; the log of the service says where")

    def _kept(self, received: Path, policy: Policy, came_from: str) -> Waiting:
        """Keep a finished file and ask for its score. Raises Refused, NotForReading, Busy, ModelError, OSError."""
        meta = read_meta(received)
        if meta.sop_class_uid == MediaStorageDirectoryStorage:
            raise Refused(Status.CANNOT_PARSE, "it is a DICOMDIR, a list of files and no image")
        if meta.transfer_syntax_uid not in DECODABLE:
            raise Refused(Status.TRANSFER_SYNTAX_NOT_SUPPORTED, "its transfer syntax is not supported")
        keys = read_keys(received)
        if keys.transfer_syntax_uid != meta.transfer_syntax_uid:  # what is read next would inflate a deflated one
            raise Refused(Status.CANNOT_PARSE, "its file meta names two transfer syntaxes")
        check_uids(keys)
        if keys.damage:
            raise Refused(Status.CANNOT_PARSE, keys.damage)
        if not keys.has_pixels:
            raise Refused(Status.CANNOT_PARSE, "it has no pixels: it is no image")
        try:
            packed = pack_header(read_header(received))
            resolved = resolve(unpack_header(packed), policy.dialect)
        except (InvalidDicomError, *UNREADABLE) as error:
            if is_of_the_disk(error):
                raise
            raise Refused(Status.CANNOT_PARSE, f"its header could not be read: {type(error).__name__}") from error

        def ask(file_name: str) -> Asked | NotForReading:
            # Without a calling AE title: nobody sent it, and who is silent must not look as if he had.
            reception = reception_of(keys, file_name, calling_ae_title="", called_ae_title=self._config.dicom.ae_title, origin=ORIGIN)
            try:
                return self._book.ask(reception, resolved, packed, policy)
            except NotForReading as error:
                return error

        asked = adopted(received, self._files, ask, is_linked=lambda found: isinstance(found, Asked) and found.linked)
        if isinstance(asked, NotForReading):
            raise asked
        log.info("asked for on demand sop_instance_uid=%s from=%s score=%d", keys.sop_instance_uid, came_from, asked.score_id)
        return Waiting(keys.study_instance_uid, keys.sop_instance_uid, _view(resolved.evidence), asked)


def _view(evidence: ViewEvidence) -> str | None:
    """The view's name as hung; also of an image that fills no slot, as a magnification, but of none whose side is doubtful."""
    named = f"{evidence.laterality}-{evidence.view_position}"
    return named if not evidence.doubt and named in HANGING_ORDER else None


def _stopping() -> Failed:
    return Failed(HTTPStatus.SERVICE_UNAVAILABLE, "the service is being stopped; ask again when it runs")


def _busy() -> Failed:
    return Failed(HTTPStatus.SERVICE_UNAVAILABLE, "the database is busy or away; try again in a few seconds")
