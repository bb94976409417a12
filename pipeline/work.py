"""The durable workflows: view, study, delivery. The only module that imports the workflow engine.

Our tables are the truth; the engine (DBOS) executes. A tick looks for rows that need attention and enqueues a workflow for each; a workflow
whose process died is run again by the engine; one that vanished is noticed by the tick, which hands its row out anew. Every step is an
idempotent transaction of the archive, so running twice is harmless.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos._serialization import DBOSPortableJSONSerializer
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation

from pipeline import report, rules
from pipeline.decode import DecodeFailed, Decoder
from pipeline.heat_map import over_box
from pipeline.model import Classifier, ModelError
from pipeline.orthanc import find_instance_by_dicomweb
from pipeline.pixels import UNIFORM, ModelImage, breast_edge, prepare, preview, uniform
from pipeline.send import Found, Pacs, SendOutcome, find_instance, send
from pipeline.upkeep import UPKEEP_SECONDS
from store.archive import Archive, NewObject, NewVersion
from store.claims import BEAT_SECONDS, Claims
from store.database import DatabaseAway, Engine
from store.files import FileGone, Files
from store.header import header_json, pack_header, read_header, unpack_header
from store.header_text import UNREADABLE
from store.ledger import Delivery, DeliveryState, Ledger
from store.look import Reading, ReadView
from store.scoring import Scoring
from store.study import ImageKind, Installation, ModelIdentity, Outcome, Policy, Scores, View, object_cause, run_id, version_cause
from store.view import Resolved, resolve, resolve_view, unreadable

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often the tables are looked at when nobody wakes the worker.
TICK_SECONDS = 0.1
#: How often the engine is asked what became of workflows that hold a row.
SWEEP_SECONDS = 2.0
#: Raised only when the order of steps in a workflow changes.
WORKFLOW_VERSION = "fourview-1"

_QUEUES = {"view": 2, "study": 4, "delivery": 4}


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that is ready to read."""

    identity: ModelIdentity
    classifier: Classifier
    size: int  # side of its square input in pixels


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Everything that a worker works with."""

    archive: Archive
    scoring: Scoring
    claims: Claims
    ledger: Ledger
    files: Files
    policy: Policy  # of the site's card; `policy.of(card)` for others
    rules: tuple[rules.Rule, ...]
    pacs: tuple[Pacs, ...]
    installation: Installation
    timezone: ZoneInfo
    load: Callable[[str], LoadedModel]  # by the path of its card, "" for the site's; raises ModelError
    decoder: Decoder
    upkeep: Callable[[], object]


_workshop: Workshop | None = None


def _here() -> Workshop:
    assert _workshop is not None, "a workflow ran before `Worker` was made"
    return _workshop


# ------------------------------------------------------------------------------------------------------------------- view


@DBOS.step(name="read_image")
def _read_image(score_id: int) -> None:
    shop = _here()
    task = shop.scoring.task(score_id)
    if task is None:
        return
    started = time.monotonic()
    try:
        model = shop.load(task.card)
        if model.identity.key != task.model_key:
            raise ModelError("the model card was changed before this image was read: `fourview reprocess` reads it with the card of now")
        if task.file_name is None:
            raise DecodeFailed("its pixels are no longer kept; reprocess the study with --from-orthanc", permanent=True)
        shop.files.check(task.file_name)
        frame = shop.decoder.decode(shop.files.path(task.file_name))
        header = shop.scoring.header(task.instance_id)
        if shop.scoring.save_pixel_hash(score_id, frame.pixel_hash, breast_edge(frame.pixels, header)):
            return
        if uniform(frame.pixels):
            raise DecodeFailed(UNIFORM, permanent=True)
        scores, picture, heat_map = score_image(frame.pixels, header, model)
        preview_file = shop.files.write(picture)
        heat_map_file = shop.files.write(heat_map) if heat_map is not None else None
    except FileGone as error:
        shop.scoring.fail(score_id, str(error), permanent=True)
        return
    except OSError as error:
        log.warning("image not read, the disk or the mount is away sop_instance_uid=%s reason=%s", task.sop_instance_uid, error.strerror)
        shop.scoring.postpone(score_id, f"the disk is away or full ({error.strerror}); it will be tried again")
        return
    except DatabaseAway:
        raise
    except (DecodeFailed, ModelError) as error:
        permanent = error.permanent if isinstance(error, DecodeFailed) else True
        log.warning("image not read sop_instance_uid=%s permanent=%s reason=%s", task.sop_instance_uid, permanent, error)
        shop.scoring.fail(score_id, str(error), permanent=permanent)
        return
    except Exception as error:  # the one catch-all of a worker: a surprise becomes a failed view, not a stuck study
        log.exception("image not read, unexpected sop_instance_uid=%s", task.sop_instance_uid)
        shop.scoring.fail(score_id, f"unexpected {type(error).__name__} while it was read; see the worker's log", permanent=False)
        return
    seconds = time.monotonic() - started
    if not shop.scoring.save(score_id, scores, preview_file, seconds, heat_map_file=heat_map_file):
        for name in (preview_file, heat_map_file):
            if name is not None:
                shop.files.remove(name)
    log.info("image read sop_instance_uid=%s seconds=%.3f", task.sop_instance_uid, seconds)


def score_image(pixels: np.ndarray[Any, Any], header: Dataset, model: LoadedModel) -> tuple[Scores, bytes, bytes | None]:
    """What the model says of stored values `pixels` (rows, columns), the view's picture, and its heat map over the crop if the model has
    one; both as PNG bytes with 8 bits of grey."""
    image = prepare(pixels, header, profile=model.identity.profile, size=model.size)
    read = model.classifier.read(image)
    scores = Scores(
        classes=model.identity.classes,
        probabilities=read.probabilities,
        box=image.box,
        rows=int(pixels.shape[0]),
        columns=int(pixels.shape[1]),
        warnings=image.warnings,
    )
    heat_map = None
    if read.heat_map is not None:
        heat_map = _png(np.rint(over_box(read.heat_map, image) * 255).astype(np.uint8))
    return scores, _png(preview(pixels, header)), heat_map


def _png(grey: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(grey).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@DBOS.workflow(name="view", max_recovery_attempts=3)
def _view(score_id: int) -> None:
    _read_image(score_id)
    wake()


# ------------------------------------------------------------------------------------------------------------------ study


@DBOS.step(name="advance")
def _advance(study_instance_uid: str) -> bool:
    return _or_hold(_advance_study, study_instance_uid) or False


def _or_hold(step: Callable[[Workshop, str], T], study_instance_uid: str) -> T | None:
    """Do a step of a study. What may pass (database, disk) is raised and tried again; any other surprise holds the study."""
    shop = _here()
    try:
        return step(shop, study_instance_uid)
    except (DatabaseAway, OSError) as error:
        if not isinstance(error, FileGone):
            log.warning("study waits for disk or database study_instance_uid=%s reason=%s", study_instance_uid, type(error).__name__)
            raise
        shop.archive.give_up(study_instance_uid, f"{error}; reprocess it with --from-orthanc")
        return None
    except ModelError as error:  # a rule or a person names a card that cannot be used
        shop.archive.give_up(study_instance_uid, f"{error}; mend the card, then `fourview reprocess`")
        return None
    except Exception as error:  # the catch-all of the study's way: a person must see it, and it must not go round in circles
        log.exception("study held after an unexpected error study_instance_uid=%s", study_instance_uid)
        shop.archive.give_up(
            study_instance_uid, f"unexpected {type(error).__name__}; the worker's log says where; reprocess it when mended"
        )
        return None


def _advance_study(shop: Workshop, study_instance_uid: str) -> bool:
    resolved: dict[int, tuple[Resolved, bytes | None]] = {}
    for one in shop.archive.unresolved(study_instance_uid):
        try:
            shop.files.check(one.file_name)
            # Packed first: reading values changes them in place, and what is remembered shall be the bytes as they were received.
            packed = pack_header(read_header(shop.files.path(one.file_name)))
            resolved[one.instance_id] = (resolve(unpack_header(packed), shop.policy.dialect), packed)
        except (InvalidDicomError, *UNREADABLE) as error:
            if isinstance(error, OSError) and not isinstance(error, FileGone):
                raise  # the disk is away, the header is not to blame
            why = str(error) if isinstance(error, FileGone) else type(error).__name__
            resolved[one.instance_id] = (unreadable(f"its header could not be read: {why}"), None)
    return shop.archive.advance(study_instance_uid, resolved, shop.policy, decider(shop.rules, shop.timezone))


def decider(
    rules_: Sequence[rules.Rule], timezone: ZoneInfo
) -> Callable[[Sequence[Dataset], Sequence[View], ImageKind, str, str], rules.Decision]:
    """`rules.decide` with today's date at the site: what the archive asks for each study."""

    def decide(headers: Sequence[Dataset], views: Sequence[View], kind: ImageKind, calling: str, called: str) -> rules.Decision:
        today = datetime.now(timezone).date()
        facts = rules.facts(headers, views=views, kind=kind.value, calling_ae_title=calling, called_ae_title=called, today=today)
        return rules.decide(rules_, facts)

    return decide


def causes(reading: Reading, installation: Installation) -> tuple[str, str]:
    """(run id, cause without predecessor) of what would be written now: equal to the current version's means nothing to do."""
    if reading.outcome is Outcome.WITHDRAWN:
        assert reading.current is not None, "only what was said can be withdrawn"
        run = reading.current.run_id
    else:
        slots = [(read.view, read.candidate.sop_instance_uid, read.pixel_hash, read.scores is not None) for read in reading.views]
        run = run_id(reading.study_instance_uid, slots, reading.model)
    cause = version_cause(
        run=run,
        outcome=reading.outcome,
        evidence=[read.candidate.evidence for read in reading.views],
        losers=reading.losers,
        warnings=reading.warnings,
        copied_header=report.copied_header([read.header for read in reading.views]),
        writer_version=report.WRITER_VERSION,
        installation=installation,
    )
    return run, cause


@DBOS.step(name="report")
def _report(study_instance_uid: str) -> None:
    _or_hold(_report_study, study_instance_uid)


def _report_study(shop: Workshop, study_instance_uid: str) -> None:
    reading = shop.archive.reading(study_instance_uid, shop.policy)
    if reading is None:
        return
    if reading.outcome is not Outcome.WITHDRAWN and not any(read.scores for read in reading.views):
        reasons = "; ".join(f"{read.view}: {read.failure}" for read in reading.views)
        shop.archive.settle_failed(study_instance_uid, reasons or "no view could be read")
        return
    run, cause = causes(reading, shop.installation)
    if reading.current is not None and reading.current.cause == cause:
        reason = f"nothing changed: version {reading.current.number} says the same (model, options and images)"
        wanted, _ = _destinations(shop, reading)
        destinations = {
            one.sop_instance_uid: [pacs.name for pacs in wanted if kind in pacs.results] for kind, one in reading.current.objects.items()
        }
        shop.archive.settle_unchanged(study_instance_uid, reason, destinations)
        return
    objects, notes = _write_objects(shop, reading, cause)
    predecessors = tuple(sorted(one.sop_instance_uid for one in reading.current.objects.values())) if reading.current else ()
    number = shop.archive.save_version(
        study_instance_uid,
        reading,
        NewVersion(
            run_id=run,
            cause=cause,
            object_cause=object_cause(cause, predecessors),
            model=reading.model,
            objects=objects,
            notes=notes,
        ),
    )
    log.info("version saved study_instance_uid=%s version=%d outcome=%s", study_instance_uid, number, reading.outcome)


def _write_objects(shop: Workshop, reading: Reading, cause: str) -> tuple[tuple[NewObject, ...], tuple[str, ...]]:
    """Build SR and page, write them to the spool, and say where each goes; the notes say what is not sent, and why."""
    current = reading.current
    predecessors = dict(current.objects) if current else {}
    built = report.build(
        report.Report(
            study_instance_uid=reading.study_instance_uid,
            views=tuple(_reported(shop, read) for read in reading.views),
            missing=reading.missing,
            outcome=reading.outcome,
            losers=reading.losers,
            warnings=reading.warnings,
            model=reading.model,
            version_number=current.number + 1 if current else 1,
            created_at=reading.now,
            cause=object_cause(cause, tuple(sorted(one.sop_instance_uid for one in predecessors.values()))),
            predecessors=predecessors,
            installation=shop.installation,
            replaces_at=current.created_at if current else None,
        )
    )
    destinations, notes = _destinations(shop, reading)
    objects = []
    for one in built:
        objects.append(
            NewObject(
                kind=one.kind,
                sop_instance_uid=str(one.ds.SOPInstanceUID),
                series_instance_uid=str(one.ds.SeriesInstanceUID),
                sop_class_uid=str(one.ds.SOPClassUID),
                transfer_syntax_uid=str(one.ds.file_meta.TransferSyntaxUID),
                file_name=shop.files.write(one.data),
                png_file=shop.files.write(one.png) if one.png is not None else None,
                sha256=hashlib.sha256(one.data).hexdigest(),
                size_bytes=len(one.data),
                header=header_json(one.ds),
                destinations=tuple(pacs.name for pacs in destinations if one.kind in pacs.results),
            )
        )
    return tuple(objects), notes


def _destinations(shop: Workshop, reading: Reading) -> tuple[list[Pacs], tuple[str, ...]]:
    """Where the rule sends results, as far as each destination takes this model's; the notes say where not, and why. A withdrawal goes to
    whoever was sent what it withdraws."""
    if reading.outcome is Outcome.WITHDRAWN:
        return [pacs for pacs in shop.pacs if pacs.name in reading.send_to], ()
    if not reading.send_to:
        return [], ("not sent: no rule that says analyse names a destination for this study",)
    named = [pacs for pacs in shop.pacs if pacs.name in reading.send_to]
    taken = [pacs for pacs in named if reading.model.trained or pacs.accept_untrained]
    refusing = [pacs for pacs in named if pacs not in taken]
    notes = [f"not sent to {pacs.name}: the model is untrained and {pacs.name} has accept_untrained = false" for pacs in refusing]
    return taken, tuple(notes)


def _reported(shop: Workshop, read: ReadView) -> report.ReportedView:
    heat_map = _kept_picture(shop, read.heat_map_file) if shop.installation.heat_map_on_page else None
    return report.ReportedView(
        view=read.view,
        header=read.header,
        evidence=read.candidate.evidence,
        scores=read.scores,
        failure=read.failure,
        picture=_kept_picture(shop, read.preview_file),
        heat_map=None if heat_map is None else heat_map.astype(np.float32) / np.float32(255),
    )


def _kept_picture(shop: Workshop, name: str | None) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    if name is None:
        return None
    shop.files.check(name)
    return np.asarray(Image.open(BytesIO(shop.files.read(name))))


@DBOS.workflow(name="study", max_recovery_attempts=20)
def _study(study_instance_uid: str) -> None:
    if _advance(study_instance_uid):
        _report(study_instance_uid)
    wake()


# --------------------------------------------------------------------------------------------------------------- delivery


@DBOS.step(name="deliver")
def _deliver(workflow_id: str) -> None:
    shop = _here()
    batch = shop.ledger.batch(workflow_id)
    if not batch:
        return
    by_name = {pacs.name: pacs for pacs in shop.pacs}
    pacs = by_name.get(batch[0].destination)
    if pacs is None:
        shop.claims.release([workflow_id], "its destination is gone from the configuration")
        shop.ledger.cancel(list(by_name))
        return
    _send(shop, pacs, [one for one in batch if one.state is DeliveryState.WAITING])
    _confirm(shop, pacs, [one for one in batch if one.state is DeliveryState.SENT])


def _send(shop: Workshop, pacs: Pacs, waiting: Sequence[Delivery]) -> None:
    if not waiting:
        return
    answers = send(pacs, shop.installation.ae_title, [shop.files.path(one.file_name) for one in waiting])
    for one, answer in zip(waiting, answers, strict=True):
        log.info(
            "delivery destination=%s sop_instance_uid=%s outcome=%s status=%s",
            pacs.name,
            one.sop_instance_uid,
            answer.outcome,
            answer.status,
        )
        match answer.outcome:
            case SendOutcome.SENT:
                shop.ledger.sent(one.delivery_id, answer.status, answer.reason, ask=pacs.confirm != "none")
            case SendOutcome.REFUSED:
                shop.ledger.refused(one.delivery_id, answer.status, answer.reason)
            case SendOutcome.RETRY:
                shop.ledger.not_sent(one.delivery_id, answer.status, answer.reason, retry_days=pacs.retry_days)


def _confirm(shop: Workshop, pacs: Pacs, sent: Sequence[Delivery]) -> None:
    for one in sent:
        uids = {
            "study_instance_uid": one.study_instance_uid,
            "series_instance_uid": one.series_instance_uid,
            "sop_instance_uid": one.sop_instance_uid,
        }
        if pacs.confirm == "dicomweb":
            found = find_instance_by_dicomweb(pacs, **uids)
        else:
            found = find_instance(pacs, shop.installation.ae_title, **uids)
        if found is Found.PRESENT:
            shop.ledger.confirmed(one.delivery_id)
        else:
            shop.ledger.not_confirmed(one.delivery_id, f"sent, but when asked {pacs.name} answers {found}")


@DBOS.workflow(name="delivery", max_recovery_attempts=20)
def _delivery(workflow_id: str) -> None:
    _deliver(workflow_id)
    wake()


# ------------------------------------------------------------------------------------------------------------------- tick


def warm_up(shop: Workshop) -> None:
    """Read and report an image that does not exist, so that the first real one waits for no library to load."""
    model = shop.load("")
    size = model.size
    grey = np.zeros((size, size), dtype=np.float32)
    probabilities = model.classifier.classify(ModelImage(grey=grey, box=(0, 0, size, size), threshold=0.0, warnings=()))
    header = Dataset()
    header.StudyInstanceUID = header.SeriesInstanceUID = header.SOPInstanceUID = "2.25.1"
    header.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    header.Rows = header.Columns = size
    scores = Scores(classes=model.identity.classes, probabilities=probabilities, box=(0, 0, size, size), rows=size, columns=size)
    view = report.ReportedView(
        view=View.L_CC, header=header, evidence=resolve_view(header), scores=scores, failure="", picture=np.zeros((8, 8), dtype=np.uint8)
    )
    report.build(
        report.Report(
            study_instance_uid=header.StudyInstanceUID,
            views=(view,),
            missing=(View.R_CC, View.R_MLO, View.L_MLO),
            outcome=Outcome.PARTIAL,
            losers=(),
            warnings=(),
            model=model.identity,
            version_number=1,
            created_at=datetime.now(UTC),
            cause="",
            predecessors={},
            installation=shop.installation,
        )
    )


_woken = threading.Event()


def wake() -> None:
    """Look at the tables now rather than at the next tick."""
    _woken.set()


class Worker:
    """One process that works: the engine's threads execute, the tick hands out."""

    def __init__(self, shop: Workshop, *, engine_url: str, engine: Engine, executor_id: str) -> None:
        global _workshop
        _workshop = shop
        self._shop = shop
        self._executor_id = executor_id
        DBOS(config=_engine_config(engine_url, engine, executor_id))

    def start(self) -> None:
        """Warm up, then launch the engine: unfinished workflows of this executor go on."""
        warm_up(self._shop)
        self._shop.claims.beat(self._executor_id, "work")  # before the first claim, or another worker takes it for a dead one's
        DBOS.listen_queues(list(_QUEUES))
        DBOS.launch()
        for name, concurrency in _QUEUES.items():
            DBOS.register_queue(name, worker_concurrency=concurrency, polling_interval_sec=0.05, on_conflict="always_update")

    def run(self, stopped: threading.Event) -> None:
        """Tick until `stopped` is set."""
        swept = beaten = 0.0
        kept_up = time.monotonic()  # not at once: a restart has more urgent work
        while not stopped.is_set():
            _woken.clear()
            try:
                self.tick()
                if time.monotonic() - swept >= SWEEP_SECONDS:
                    swept = time.monotonic()
                    self.sweep()
                if time.monotonic() - beaten >= BEAT_SECONDS:
                    beaten = time.monotonic()
                    self._shop.claims.beat(self._executor_id, "work")
                if time.monotonic() - kept_up >= UPKEEP_SECONDS:
                    kept_up = time.monotonic()
                    self._shop.upkeep()
                    self._forget_workflows()
            except DatabaseAway as error:
                # A database that is away or busy comes back; nothing is lost meanwhile, since nothing was answered.
                log.warning("database not reachable, trying again reason=%s", error.orig)
                stopped.wait(1.0)
            _woken.wait(TICK_SECONDS)

    def close(self) -> None:
        """Stop the engine, after giving running workflows a few seconds."""
        DBOS.destroy(workflow_completion_timeout_sec=5)
        self._shop.claims.leave(self._executor_id)  # last: whoever sees no lease takes our work over
        self._shop.decoder.close()

    def tick(self) -> None:
        """Hand every row that needs attention to the engine, once."""
        for claim in self._shop.archive.claim_studies():
            with SetWorkflowID(claim.workflow_id):
                DBOS.enqueue_workflow("study", _study, claim.row)
        for claim in self._shop.scoring.claim():
            with SetWorkflowID(claim.workflow_id):
                DBOS.enqueue_workflow("view", _view, int(claim.row))
        for claim in self._shop.ledger.claim():
            with SetWorkflowID(claim.workflow_id):
                DBOS.enqueue_workflow("delivery", _delivery, claim.workflow_id)

    def _forget_workflows(self) -> None:
        """The engine keeps what it did for ever; our timeline says it better. A day is left for looking into a failure."""
        before = datetime.now(UTC) - timedelta(days=1)
        ended = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
        old = DBOS.list_workflows(status=ended, completed_before=before.isoformat(), limit=5000, load_input=False, load_output=False)
        DBOS.delete_workflows([workflow.workflow_id for workflow in old])

    def sweep(self) -> None:
        """Take rows back whose workflow is absent, has ended without settling them, or belongs to a process that is dead."""
        claimed = self._shop.claims.claimed(SWEEP_SECONDS)
        if not claimed:
            return
        living = {self._executor_id, *self._shop.claims.living("work")}
        alive, deadly = set(), set()
        for status in DBOS.list_workflows(workflow_ids=claimed, load_input=False, load_output=False):
            if status.status in ("ENQUEUED", "DELAYED") or (status.status == "PENDING" and status.executor_id in living):
                alive.add(status.workflow_id)
            elif status.status == "PENDING":
                # The engine recovers only its own executor's work. Cancelled first, so that a frozen process that wakes is fenced off.
                DBOS.cancel_workflow(status.workflow_id)
            elif status.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
                deadly.add(status.workflow_id)
        lost = [workflow_id for workflow_id in claimed if workflow_id not in alive]
        if lost and self._shop.claims.release(lost, "its worker died or lost its database", deadly=deadly):
            log.warning("rows taken back from ended workflows count=%d first=%s", len(lost), lost[0])


def prepare_engine_tables(engine_url: str, engine: Engine) -> None:
    """Create or upgrade the workflow engine's own tables; part of `fourview db upgrade`."""
    DBOS(config=_engine_config(engine_url, engine, "db-upgrade"))
    DBOS.listen_queues([])
    DBOS.launch()
    DBOS.destroy()


def _engine_config(engine_url: str, engine: Engine, executor_id: str) -> DBOSConfig:
    """The engine's settings. Executor id and version are always ours: its defaults make processes steal each other's work."""
    return {
        "name": "fourview",
        "system_database_url": engine_url,
        "system_database_engine": engine,
        "executor_id": executor_id,
        "application_version": WORKFLOW_VERSION,
        "serializer": DBOSPortableJSONSerializer(),  # the default unpickles what it finds in the database
        "use_listen_notify": False,
        "log_level": "WARNING",
    }
