"""A batch's way to its destination: one association, a status for each object, and the question whether it arrived (PS3.4 B, C)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from pipeline.orthanc import find_instance_by_dicomweb
from pipeline.send import Found, Pacs, SendOutcome, find_instance, send
from pipeline.workshop import Workshop
from store.ledger import Delivery, DeliveryState

log = logging.getLogger(__name__)


def deliver(shop: Workshop, workflow_id: str) -> None:
    """Send, or ask the destination for, everything that the workflow holds."""
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
    started = time.monotonic()
    answers = send(pacs, shop.installation.ae_title, [shop.files.path(one.file_name) for one in waiting])
    seconds = time.monotonic() - started
    shop.figures.took("stage_seconds", "send", seconds)
    for one, answer in zip(waiting, answers, strict=True):
        log.info(
            "delivery destination=%s study_instance_uid=%s sop_instance_uid=%s outcome=%s status=%s batch=%d batch_seconds=%.3f",
            pacs.name,
            one.study_instance_uid,
            one.sop_instance_uid,
            answer.outcome,
            answer.status,
            len(waiting),
            seconds,
        )
        shop.figures.add("objects_sent", str(answer.outcome))
        match answer.outcome:
            case SendOutcome.SENT:
                lag = shop.ledger.sent(one.delivery_id, answer.status, answer.reason, ask=pacs.confirm != "none")
                shop.figures.took("delivery_lag_seconds", pacs.name, lag)
            case SendOutcome.REFUSED:
                shop.ledger.refused(one.delivery_id, answer.status, answer.reason)
            case SendOutcome.RETRY:
                shop.ledger.not_sent(one.delivery_id, answer.status, answer.reason, retry_days=pacs.retry_days)


def _confirm(shop: Workshop, pacs: Pacs, sent: Sequence[Delivery]) -> None:
    for one in sent:
        started = time.monotonic()
        uids = {
            "study_instance_uid": one.study_instance_uid,
            "series_instance_uid": one.series_instance_uid,
            "sop_instance_uid": one.sop_instance_uid,
        }
        if pacs.confirm == "dicomweb":
            found = find_instance_by_dicomweb(pacs, **uids)
        else:
            found = find_instance(pacs, shop.installation.ae_title, **uids)
        log.info(
            "confirmation destination=%s study_instance_uid=%s sop_instance_uid=%s answer=%s seconds=%.3f",
            pacs.name,
            one.study_instance_uid,
            one.sop_instance_uid,
            found,
            time.monotonic() - started,
        )
        if found is Found.PRESENT:
            shop.ledger.confirmed(one.delivery_id)
        else:
            shop.ledger.not_confirmed(one.delivery_id, f"sent, but when asked {pacs.name} answers {found}")
