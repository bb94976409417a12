"""A batch's way to its destination (PS3.4 B, C): whose study is it there, one association, a status for each object, did it arrive."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from pipeline.orthanc import find_instance_by_dicomweb, find_studies_by_dicomweb
from pipeline.send import Conversation, Found, Known, Pacs, SendOutcome, conversation
from pipeline.workshop import Workshop
from store.correction import Verdict
from store.ledger import OWING, Delivery, DeliveryState

log = logging.getLogger(__name__)

#: How long what waits for a destination that no configuration names is kept for it.
GONE_DAYS = 3.0


def deliver(shop: Workshop, workflow_id: str) -> None:
    """Send, or ask the destination for, everything that the workflow holds."""
    batch = shop.ledger.batch(workflow_id, shop.life)
    if not batch:
        return
    by_name = {pacs.name: pacs for pacs in shop.pacs}
    pacs = by_name.get(batch[0].destination)
    owing = [one for one in batch if one.state in OWING]
    sent = [one for one in batch if one.state is DeliveryState.SENT]
    if pacs is None:
        # Another host may know it already, or still: nothing is cancelled for all because of what this one was started with.
        reason = f"the configuration of {shop.process.partition(':')[0]} names no destination {batch[0].destination}"
        for one in owing:
            shop.ledger.not_sent(one.delivery_id, None, reason, retry_days=GONE_DAYS, workflow_id=workflow_id)
        for one in sent:
            shop.ledger.not_confirmed(one.delivery_id, reason, workflow_id=workflow_id)
        return
    asked = _to_be_asked(pacs, owing)
    files = [shop.files.path(one.file_name) for one in owing if one.file_name]
    with conversation(pacs, shop.installation.ae_title, files, ask=pacs.confirm == "find" and bool(asked or sent)) as talk:
        known: Mapping[str, Known] = {}
        if asked:
            known = find_studies_by_dicomweb(pacs, asked) if pacs.confirm == "dicomweb" else talk.find_studies(asked)
        leaving = _leaving(shop, pacs, owing, known, workflow_id)
        for one in leaving:
            if not one.file_name:
                why = "its image is no longer kept here: send it from its source"
                shop.ledger.refused(one.delivery_id, None, why, workflow_id=workflow_id)
        sent += _send(shop, pacs, talk, [one for one in leaving if one.file_name], workflow_id)
        _confirm(shop, pacs, talk, sent, workflow_id)


def _to_be_asked(pacs: Pacs, owing: Sequence[Delivery]) -> list[str]:
    """The studies of which the destination is asked whose they are before their results leave."""
    by_study: dict[str, list[Delivery]] = {}
    for one in owing:
        # An image as it was received says itself whose it is.
        if not one.original:
            by_study.setdefault(one.study_instance_uid, []).append(one)
    # What withdraws a result is of the patient that the result named, and must not wait.
    return [uid for uid, deliveries in by_study.items() if pacs.confirm != "none" and not all(one.withdrawal for one in deliveries)]


def _leaving(shop: Workshop, pacs: Pacs, owing: Sequence[Delivery], known: Mapping[str, Known], workflow_id: str) -> list[Delivery]:
    """The deliveries that may leave now, in version order, by what the destination says of whose studies they are."""
    by_study: dict[str, list[Delivery]] = {}
    for one in owing:
        by_study.setdefault(one.study_instance_uid, []).append(one)
    # An image as it was received says itself whose it is, and may be the first that the destination hears of the study.
    originals = {uid: [one for one in deliveries if one.original] for uid, deliveries in by_study.items()}
    leaving = [one for several in originals.values() for one in shop.ledger.begin(several, workflow_id, checked=False)]
    by_study = {uid: left for uid, deliveries in by_study.items() if (left := [one for one in deliveries if not one.original])}
    for uid, deliveries in by_study.items():
        answer = known.get(uid)
        if answer is None:
            leaving += shop.ledger.begin(deliveries, workflow_id, checked=False)
        elif answer.found is not Found.PRESENT:
            for one in deliveries:
                shop.ledger.not_sent(one.delivery_id, None, answer.reason, retry_days=pacs.retry_days, workflow_id=workflow_id)
        else:
            # Each on its own: the versions of a study may carry different values.
            agreed = [one for one in deliveries if one.withdrawal or shop.ledger.compare(one, answer.patients) is Verdict.AGREES]
            leaving += shop.ledger.begin(agreed, workflow_id, checked=True)
            if len(agreed) < len(deliveries):
                log.warning("delivery stopped, the patient differs destination=%s study_instance_uid=%s", pacs.name, uid)
                shop.ledger.give_back(workflow_id, uid)
    return sorted(leaving, key=lambda one: one.delivery_id)


def _send(shop: Workshop, pacs: Pacs, talk: Conversation, leaving: Sequence[Delivery], workflow_id: str) -> list[Delivery]:
    """Send them; those that the destination shall be asked for now."""
    if not leaving:
        return []
    to_confirm: list[Delivery] = []
    started = time.monotonic()
    answers = talk.send([shop.files.path(one.file_name) for one in leaving])
    seconds = time.monotonic() - started
    shop.figures.took("stage_seconds", "send", seconds)
    for one, answer in zip(leaving, answers, strict=True):
        log.info(
            "delivery destination=%s study_instance_uid=%s sop_instance_uid=%s outcome=%s status=%s batch=%d batch_seconds=%.3f",
            pacs.name,
            one.study_instance_uid,
            one.sop_instance_uid,
            answer.outcome,
            answer.status,
            len(leaving),
            seconds,
        )
        shop.figures.add("objects_sent", str(answer.outcome))
        match answer.outcome:
            case SendOutcome.SENT:
                ask = pacs.confirm != "none"
                lag = shop.ledger.sent(one.delivery_id, answer.status, answer.reason, ask=ask, hold=ask, workflow_id=workflow_id)
                shop.figures.took("delivery_lag_seconds", pacs.name, lag)
                to_confirm += [one] if ask else []
            case SendOutcome.REFUSED:
                shop.ledger.refused(one.delivery_id, answer.status, answer.reason, workflow_id=workflow_id)
            case SendOutcome.RETRY:
                days = pacs.retry_days
                shop.ledger.not_sent(one.delivery_id, answer.status, answer.reason, retry_days=days, workflow_id=workflow_id)
    return to_confirm


def _confirm(shop: Workshop, pacs: Pacs, talk: Conversation, sent: Sequence[Delivery], workflow_id: str) -> None:
    for one in sent:
        started = time.monotonic()
        uids = {
            "study_instance_uid": one.study_instance_uid,
            "series_instance_uid": one.series_instance_uid,
            "sop_instance_uid": one.sop_instance_uid,
        }
        found = find_instance_by_dicomweb(pacs, **uids) if pacs.confirm == "dicomweb" else talk.find_instance(**uids)
        log.info(
            "confirmation destination=%s study_instance_uid=%s sop_instance_uid=%s answer=%s seconds=%.3f",
            pacs.name,
            one.study_instance_uid,
            one.sop_instance_uid,
            found,
            time.monotonic() - started,
        )
        if found is Found.PRESENT:
            shop.ledger.confirmed(one.delivery_id, workflow_id=workflow_id)
        else:
            reason = f"sent, but when asked {pacs.name} answers {found}"
            shop.ledger.not_confirmed(one.delivery_id, reason, workflow_id=workflow_id)
