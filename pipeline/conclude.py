"""One study's way from what arrived to its version: look at it, and write its result objects once its images were read.

A repeat of a step that was done changes nothing: objects have derived UIDs and the archive knows the version's cause.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

import numpy as np
from pydicom.errors import InvalidDicomError

from pipeline import report, rule_facts, rules
from pipeline.model import ModelError
from pipeline.pictures import Picture
from pipeline.send import Pacs
from pipeline.workshop import Workshop
from store.archive import NewObject, NewVersion
from store.database import DatabaseAway
from store.files import FileGone
from store.header import header_json, name_character_set, pack_header, read_header, unpack_header
from store.header_text import UNREADABLE, is_of_the_disk
from store.look import Reading, ReadView
from store.rows import UnknownStudy
from store.seen import Seen
from store.study import Installation, Outcome, object_cause, run_id, version_cause
from store.view import Resolved, resolve, unreadable

log = logging.getLogger(__name__)

T = TypeVar("T")


def advance(shop: Workshop, study_instance_uid: str, workflow_id: str) -> bool:
    """Look once at a study that this workflow holds. True: its frozen selection, or its withdrawal, is ready to be reported."""
    return _through_the_gate(_advance, shop, study_instance_uid, workflow_id) or False


def conclude(shop: Workshop, study_instance_uid: str, workflow_id: str) -> None:
    """Write the result objects of a study whose selection was read, or find that nothing changed."""
    _through_the_gate(_conclude, shop, study_instance_uid, workflow_id)


def _through_the_gate(step: Callable[[Workshop, str], T], shop: Workshop, study_instance_uid: str, workflow_id: str) -> T | None:
    """Do a step of a study that this workflow holds, noted as begun; alone when a worker died over the study."""
    with shop.gate.enter(alone=shop.claims.is_suspect(study_instance_uid), image=False) as entered:
        if not entered:
            shop.claims.release([workflow_id], "its worker was told to stop")
        elif shop.claims.begin_study(study_instance_uid, workflow_id, shop.life):
            return _or_hold(step, shop, study_instance_uid)
    return None


def _or_hold(step: Callable[[Workshop, str], T], shop: Workshop, study_instance_uid: str) -> T | None:
    """Do a step of a study. What may pass (database, disk) is raised and tried again; any other surprise holds the study."""
    try:
        return _or_give_up(step, shop, study_instance_uid)
    except UnknownStudy:
        log.info("study let go, it was forgotten")
        return None


def _or_give_up(step: Callable[[Workshop, str], T], shop: Workshop, study_instance_uid: str) -> T | None:
    try:
        return step(shop, study_instance_uid)
    except UnknownStudy:
        raise
    except (DatabaseAway, OSError) as error:
        if not isinstance(error, FileGone):
            log.warning(
                "study waits for disk or database study_instance_uid=%s reason=%r",
                study_instance_uid,
                getattr(error, "strerror", None) or type(error).__name__,
            )
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


def _advance(shop: Workshop, study_instance_uid: str) -> bool:
    resolved: dict[int, tuple[Resolved, bytes | None]] = {}
    for one in shop.archive.unresolved(study_instance_uid):
        try:
            shop.files.check(one.file_name)
            # Packed first: reading values changes them in place, and what is remembered shall be the bytes as they were received.
            dialect, header = shop.policy.dialect.of(one.calling_ae_title), read_header(shop.files.path(one.file_name))
            assumed = dialect.sender.character_set if name_character_set(header, dialect.sender.character_set) else ""
            packed = pack_header(header)
            resolved[one.instance_id] = (replace(resolve(unpack_header(packed), dialect), assumed_character_set=assumed), packed)
        except (InvalidDicomError, *UNREADABLE) as error:
            if is_of_the_disk(error) and not isinstance(error, FileGone):
                raise  # the disk is away, the header is not to blame
            why = str(error) if isinstance(error, FileGone) else type(error).__name__
            resolved[one.instance_id] = (unreadable(f"its header could not be read: {why}"), None)
    return shop.archive.advance(study_instance_uid, resolved, shop.policy, decider(shop.rules, shop.timezone))


def decider(rules_: Sequence[rules.Rule], timezone: ZoneInfo) -> Callable[[Seen], rules.Decision]:
    """`rules.decide` with today's date at the site: what the archive asks for each study."""

    def decide(seen: Seen) -> rules.Decision:
        return rules.decide(rules_, rule_facts.of_study(seen, today=datetime.now(timezone).date(), timezone=timezone))

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


def _conclude(shop: Workshop, study_instance_uid: str) -> None:
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
    started = time.monotonic()
    objects, notes = _write_objects(shop, reading, cause)
    new = NewVersion(
        run_id=run,
        cause=cause,
        object_cause=object_cause(cause, reading.predecessor_uids, reading.epoch),
        model=reading.model,
        objects=objects,
        notes=notes,
    )
    try:
        number = shop.archive.save_version(study_instance_uid, reading, new)
    except UnknownStudy:
        for one in objects:
            shop.files.remove(one.file_name)
        raise
    seconds = time.monotonic() - started
    shop.figures.took("stage_seconds", "report", seconds)
    words = "version saved study_instance_uid=%s version=%d outcome=%s seconds=%.3f"
    log.info(words, study_instance_uid, number, reading.outcome, seconds)


def _write_objects(shop: Workshop, reading: Reading, cause: str) -> tuple[tuple[NewObject, ...], tuple[str, ...]]:
    """Build SR and page, write them to the spool, and say where each goes; the notes say what is not sent, and why."""
    current = reading.current
    predecessors = dict(current.objects) if current else {}
    made = report.Report(
        study_instance_uid=reading.study_instance_uid,
        views=tuple(_reported(shop, read) for read in reading.views),
        missing=reading.missing,
        outcome=reading.outcome,
        losers=reading.losers,
        warnings=reading.warnings,
        model=reading.model,
        version_number=reading.number,
        created_at=reading.now,
        cause=object_cause(cause, reading.predecessor_uids, reading.epoch),
        predecessors=predecessors,
        installation=shop.installation,
        replaces_at=current.created_at if current else None,
    )
    destinations, notes = _destinations(shop, reading)
    # Side by side: while the page is drawn, hashed and synced, which needs no interpreter, the report is written.
    with ThreadPoolExecutor(2 * len(report.KINDS)) as threads:
        writing = [threads.submit(_write_object, shop, made, kind, destinations, threads) for kind in report.KINDS]
        wait(writing)
    if any(one.exception() for one in writing):
        for one in writing:
            if one.exception() is None:
                shop.files.remove(one.result().file_name)
    return tuple(one.result() for one in writing), notes


def _write_object(shop: Workshop, made: report.Report, kind: str, destinations: Sequence[Pacs], threads: Executor) -> NewObject:
    built = report.build_one(made, kind)
    sha256 = threads.submit(lambda: hashlib.sha256(built.data).hexdigest())
    header = header_json(built.ds)
    file_name = shop.files.write(built.data)  # last of what may fail: nothing is left behind
    return NewObject(
        kind=kind,
        sop_instance_uid=str(built.ds.SOPInstanceUID),
        series_instance_uid=str(built.ds.SeriesInstanceUID),
        sop_class_uid=str(built.ds.SOPClassUID),
        transfer_syntax_uid=str(built.ds.file_meta.TransferSyntaxUID),
        file_name=file_name,
        sha256=sha256.result(),
        size_bytes=len(built.data),
        header=header,
        destinations=tuple(pacs.name for pacs in destinations if kind in pacs.results),
    )


def _destinations(shop: Workshop, reading: Reading) -> tuple[list[Pacs], tuple[str, ...]]:
    """Where the rule sends results, as far as each destination takes this model's; the notes say where not, and why. A withdrawal goes to
    whoever was sent what it withdraws."""
    named = [pacs for pacs in shop.pacs if pacs.name in reading.send_to]
    if reading.outcome is Outcome.WITHDRAWN:
        untold = [name for name in reading.send_to if name not in {pacs.name for pacs in named}]
        words = "not told to {}: the configuration no longer names it; delete the result there by hand"
        return named, tuple(words.format(name) for name in untold)
    if not reading.send_to:
        return [], ("not sent: no rule that says analyse names a destination for this study",)
    taken = [pacs for pacs in named if reading.model.trained or pacs.accept_untrained]
    refusing = [pacs for pacs in named if pacs not in taken]
    notes = [f"not sent to {pacs.name}: the model is untrained and {pacs.name} has accept_untrained = false" for pacs in refusing]
    return taken, tuple(notes)


def _reported(shop: Workshop, read: ReadView) -> report.ReportedView:
    heat_map = _picture(shop, read.heat_map_file) if shop.installation.heat_map_on_page else None
    return report.ReportedView(
        view=read.view,
        header=read.header,
        evidence=read.candidate.evidence,
        scores=read.scores,
        failure=read.failure,
        picture=_picture(shop, read.preview_file),
        heat_map=None if heat_map is None else heat_map.astype(np.float32) / np.float32(255),
    )


def _picture(shop: Workshop, name: str | None) -> Picture | None:
    return None if name is None else shop.pictures.read(shop.files, name)
