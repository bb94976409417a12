"""One image's way from its file to its scores: decode, check, prepare, classify, save. A repeat of a step that was done changes nothing."""

from __future__ import annotations

import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from pipeline.decode import DecodeFailed
from pipeline.grey_png import grey_png
from pipeline.heat_map import over_box
from pipeline.model import ModelError
from pipeline.pixels import UNIFORM, ModelImage, breast_edge, prepare, preview, uniform
from pipeline.workshop import LoadedModel, Workshop
from store.database import DatabaseAway
from store.files import FileGone
from store.header_text import is_of_the_disk
from store.rows import UnknownStudy
from store.scoring import ScoreTask
from store.study import Scores

log = logging.getLogger(__name__)


def read_image(shop: Workshop, score_id: int, workflow_id: str) -> None:
    """Read the image of a score that waits and that this workflow holds, and remember what came of it: scores, a failure, or a delay."""
    try:
        _read_image(shop, score_id, workflow_id)
    except UnknownStudy:
        log.info("image let go, its study was forgotten score=%d", score_id)


def _read_image(shop: Workshop, score_id: int, workflow_id: str) -> None:
    task = shop.scoring.task(score_id)
    if task is None:
        return
    with shop.gate.enter(alone=task.alone) as entered:
        if not entered:
            shop.scoring.hand_back(score_id, workflow_id)
        elif shop.scoring.begin(score_id, workflow_id, shop.life):
            _read(shop, task, workflow_id)


def _read(shop: Workshop, task: ScoreTask, workflow_id: str) -> None:
    score_id = task.score_id
    started = time.monotonic()
    try:
        model = shop.load(task.card)
        if model.identity.key != task.model_key:
            raise ModelError("the model card was changed before this image was read: `fourview reprocess` reads it with the card of now")
        if task.file_name is None:
            raise DecodeFailed("its pixels are no longer kept; reprocess the study with --from-orthanc", permanent=True)
        shop.files.check(task.file_name)
        frame = shop.decoder.decode(shop.files.path(task.file_name))
        decoded = time.monotonic()
        header = shop.scoring.header(task.instance_id)
        nothing = uniform(frame.pixels)
        # What the network is given is made beside what the database is told, and the picture beside what the network does.
        with ThreadPoolExecutor(1, thread_name_prefix="beside") as beside:
            seen = None if nothing else beside.submit(prepare, frame.pixels, header, profile=model.identity.profile, size=model.size)
            if shop.scoring.save_pixel_hash(score_id, frame.pixel_hash, breast_edge(frame.pixels, header)):
                return
            if seen is None:
                raise DecodeFailed(UNIFORM, permanent=True)
            begun = time.monotonic()
            image = seen.result()
            kept = beside.submit(_keep_preview, shop, frame.pixels, header)
            try:
                scores, heat_map = score_image(image, frame.pixels.shape, model)
                classified = time.monotonic()
                preview_file = kept.result()
                heat_map_file = None if heat_map is None else shop.files.write(heat_map)
            except BaseException:
                if kept.exception() is None:
                    with contextlib.suppress(OSError):  # the janitor finds it
                        _remove(shop, kept.result())
                raise
    except FileGone as error:
        shop.scoring.fail(score_id, str(error), permanent=True, workflow_id=workflow_id)
        return
    except OSError as error:
        if not is_of_the_disk(error):
            shop.scoring.fail(score_id, "its header could not be read: OSError", permanent=True, workflow_id=workflow_id)
            return
        reason = error.strerror or type(error).__name__
        log.warning("image not read, the disk or the mount is away sop_instance_uid=%s reason=%r", task.sop_instance_uid, reason)
        shop.scoring.postpone(score_id, f"the disk is away or full ({reason}); it will be tried again", workflow_id=workflow_id)
        return
    except (DatabaseAway, UnknownStudy):
        raise
    except (DecodeFailed, ModelError) as error:
        permanent = error.permanent if isinstance(error, DecodeFailed) else True
        log.warning("image not read sop_instance_uid=%s permanent=%s reason=%r", task.sop_instance_uid, permanent, str(error))
        shop.scoring.fail(score_id, str(error), permanent=permanent, workflow_id=workflow_id)
        return
    except Exception as error:  # the one catch-all of a worker: a surprise becomes a failed view, not a stuck study
        log.exception("image not read, unexpected sop_instance_uid=%s", task.sop_instance_uid)
        reason = f"unexpected {type(error).__name__} while it was read; see the worker's log"
        shop.scoring.fail(score_id, reason, permanent=False, workflow_id=workflow_id)
        return
    seconds = time.monotonic() - started
    try:
        saved = shop.scoring.save(score_id, scores, preview_file, seconds, heat_map_file=heat_map_file)
    except UnknownStudy:
        _remove(shop, preview_file, heat_map_file)
        raise
    if not saved:
        _remove(shop, preview_file, heat_map_file)
    shop.figures.took("stage_seconds", "decode", decoded - started)
    shop.figures.took("stage_seconds", "classify", classified - begun)
    log.info(
        "image read study_instance_uid=%s sop_instance_uid=%s seconds=%.3f decode_seconds=%.3f classify_seconds=%.3f",
        task.study_instance_uid,
        task.sop_instance_uid,
        seconds,
        decoded - started,
        classified - begun,
    )


def _remove(shop: Workshop, *names: str | None) -> None:
    for name in names:
        if name is not None:
            shop.files.remove(name)


def _keep_preview(shop: Workshop, pixels: npt.NDArray[Any], header: Dataset) -> str:
    picture = preview(pixels, header)
    name = shop.files.write(grey_png(picture))
    shop.pictures.remember(name, picture)
    return name


def score_image(image: ModelImage, shape: tuple[int, int], model: LoadedModel) -> tuple[Scores, bytes | None]:
    """What the model says of an image of `shape` (rows, columns), and its heat map over the crop, if the model has one, as PNG of grey."""
    read = model.classifier.read(image)
    scores = Scores(
        classes=model.identity.classes,
        probabilities=read.probabilities,
        box=image.box,
        rows=shape[0],
        columns=shape[1],
        warnings=image.warnings,
    )
    if read.heat_map is None:
        return scores, None
    return scores, grey_png(np.rint(over_box(read.heat_map, image) * 255).astype(np.uint8))
