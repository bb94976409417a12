"""What people ask of an installation and what they decide about it, whichever door they come by: command line, JSON API, pages.

Everything is told in plain values, as `--json` prints them. A door says who asks and how what comes of it is shown.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cached_property
from typing import Any

from listener import parts, rules_explained
from listener import reconcile as accounts
from listener import status as in_trouble
from listener.config import Config
from pipeline.engine_choice import NotSettled
from pipeline.model_card import ModelError, read_card
from store.acts import Acts
from store.archive import Archive
from store.chores import Chores
from store.condition import Condition, Facts
from store.database import database_folder
from store.files import Room, least_room
from store.forget import Forgetting, Forgotten
from store.grouping import Release, RequestKind
from store.ledger import DeliveryState, Ledger
from store.listing import Listing, Page, Wanted
from store.on_demand import OnDemand
from store.pauses import Paused, Pauses
from store.search import Search
from store.study import Policy

#: How often it is asked whether a worker has answered.
LOOK_SECONDS = 0.1


class NotScheduled(Exception):
    """Nobody compares with the PACS by himself here; the message says what to do."""


class UnknownDestination(Exception):
    """No [[pacs]] has that name; the message says which there are."""


class Desk:
    """One installation as people see it. Its parts are opened when they are first needed, and raise OldSchema and DatabaseAway then."""

    def __init__(self, config: Config) -> None:
        self._config = config

    # ------------------------------------------------------------------------------------------------------------- looking

    def studies(self, wanted: Wanted, *, after: str = "", limit: int = 50) -> Page:
        """One line per study, the one that last received an image first. Raises ValueError for an `after` that no page gave."""
        return self._listing.studies(wanted, after=after, limit=limit)

    def choices(self) -> dict[str, list[str]]:
        """AE titles, devices and classes that occur lately, by which studies can be looked for."""
        return self._listing.choices()

    def study(self, study_instance_uid: str) -> dict[str, Any]:
        """Everything about one study: slots, rule, results, deliveries, timeline. Raises UnknownStudy."""
        return self._search.study(study_instance_uid)

    def deliveries(self, state: DeliveryState | None = None, limit: int = 1000) -> list[dict[str, Any]]:
        """One line per delivery, newest first."""
        return self._search.deliveries(state, limit)

    def given_up(self) -> list[dict[str, Any]]:
        """What was refused or has expired, once for each destination and reason."""
        return self._search.given_up()

    def fares(self) -> in_trouble.Status:
        """How the installation fares; a database that is away is a trouble, not an error."""
        return in_trouble.status(self._facts, self._room(), parts.alert_limits(self._config), self._model())

    def status(self) -> dict[str, Any]:
        """The same as plain values."""
        return self.fares().as_json()

    def throughput(self, since: datetime) -> dict[str, int]:
        """What was done since then: `images` received, `versions` made, `sent` objects of them."""
        return asdict(self._condition.throughput(since))

    def alerts(self) -> list[dict[str, Any]]:
        """What people are told and what is not settled yet, oldest first."""
        return [one for one in self._facts().alerts if one["cleared_at"] is None]

    def devices(self, days: float) -> list[dict[str, Any]]:
        """One line per device: its images of the last `days` and what contradicts their side; the most contradicted first."""
        return self._search.devices(days)

    def acts(self, *, days: float, study_instance_uid: str = "", limit: int | None = None) -> list[dict[str, Any]]:
        """What people did in the last `days`, newest first."""
        return self._acts.listing(days=days, study_instance_uid=study_instance_uid, limit=limit)

    def rules(self) -> list[dict[str, Any]]:
        """The rules in the order in which they are asked."""
        return [
            {
                "name": rule.name,
                "when": rule.when,
                "action": str(rule.action),
                "send_to": list(rule.send_to),
                "slots": rule.slots,
                "when_incomplete": str(rule.when_incomplete or self._config.study.when_incomplete),
                "model": rule.card or str(self._config.model.card),
                "priority": rule.priority,
                "forward_to": list(rule.forward_to),
            }
            for rule in self._config.rules
        ]

    def explain(self, study_instance_uid: str) -> dict[str, Any]:
        """Why the rules say what they say of a study, and what was decided of it. Raises UnknownStudy."""
        try:
            replay = parts.open_replay(self._config, self._policy_or_likely())
        except ModelError:
            return rules_explained.without_model(study_instance_uid)
        return rules_explained.of_study(self._config, replay.study(study_instance_uid))

    def cards(self) -> tuple[str, ...]:
        """The paths of the model cards that the configuration names, the site's first."""
        return tuple(dict.fromkeys([str(self._config.model.card), *(rule.card for rule in self._config.rules if rule.card)]))

    # ------------------------------------------------------------------------------------------------- deciding about a study

    def ask(
        self,
        study_instance_uid: str,
        kind: RequestKind,
        *,
        person: str,
        why: str = "",
        release: Release | None = None,
        card: str = "",
        request_id: str = "",
    ) -> str:
        """Ask for a study to be read again (by the model of `card`), released or withdrawn; the id of the request, which `answer` takes.

        The same once more under the same `request_id` is asked once. Raises UnknownStudy, AnotherRequest.
        """
        request_id = request_id or uuid.uuid4().hex
        self._archive.request(study_instance_uid, kind, request_id=request_id, person=person, why=why, release=release, card=card)
        return request_id

    def destinations(self) -> list[str]:
        """The names of each [[pacs]] that takes results."""
        return [pacs.name for pacs in self._config.pacs if pacs.results]

    def send(self, study_instance_uid: str, *, person: str, why: str = "", send_to: Sequence[str] = (), request_id: str = "") -> str:
        """Ask for a study's results to be sent whatever the rules say, with what was read of it on demand; the id of the request.

        To the [[pacs]] of these names and where its rule sends it; when neither names any, where the first rule that analyses sends, else
        to every [[pacs]] that takes results. Raises UnknownStudy, UnknownDestination, AnotherRequest.
        """
        names = [pacs.name for pacs in self._config.pacs]
        if unknown := [name for name in send_to if name not in names]:
            raise UnknownDestination(f"no [[pacs]] is named {unknown[0]}; there are {', '.join(names) or 'none'}")
        by_rules = next((rule.send_to for rule in self._config.rules if rule.action == "analyse" and rule.send_to), ())
        otherwise = by_rules or tuple(self.destinations())
        request_id = request_id or uuid.uuid4().hex
        where = {"send_to": tuple(dict.fromkeys(send_to)), "otherwise": otherwise}
        self._on_demand.send(study_instance_uid, request_id=request_id, person=person, why=why, **where)
        return request_id

    def answer(self, request_id: str) -> dict[str, Any]:
        """What came of a request so far. Raises UnknownRequest.

        `state` is waiting | refused | accepted; `ended`: nothing more comes of it; `done`: what was asked for came about; `text` says it
        in words, `choices` what settles the doubts for which the study is held.
        """
        asked = self._search.asked(request_id)
        waits = asked["applied_at"] is None
        worker = not waits or bool(self._search.living("work"))
        state = "waiting" if waits else "accepted" if asked["answer"] == "accepted" else "refused"
        reading = asked["study_state"] == "analysing"
        fulfilled = asked["study_state"] == ("withdrawn" if asked["kind"] == RequestKind.WITHDRAW else "analysed")
        if asked["kind"] == RequestKind.SEND:
            fulfilled = fulfilled and bool(asked["sent_to"])
        names = ("request_id", "study_instance_uid", "kind", "person", "why", "created_at", "applied_at")
        return {
            **{name: asked[name] for name in names},
            "state": state,
            "text": _words(asked, state, worker=worker),
            "ended": state == "refused" or (state == "accepted" and not reading),
            "done": state == "accepted" and fulfilled,
            "worker_running": worker,
            "study_state": asked["study_state"],
            "study_state_reason": asked["study_state_reason"],
            "version": asked["version"],
            "choices": asked["doubts"],
        }

    def wait(self, request_id: str, seconds: float) -> dict[str, Any]:
        """`answer` when nothing more comes of the request, when no worker is there to look at it, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.answer(request_id)
            if found["ended"] or not found["worker_running"] or time.monotonic() >= deadline:
                return found
            time.sleep(LOOK_SECONDS)

    def forget(self, study_instance_uid: str, *, person: str, why: str = "") -> Iterator[Forgotten | str]:
        """Delete everything about a study here, for good. First comes what was forgotten, at once, since nobody else knows it any more;
        then in words what had to be left behind. Raises UnknownStudy before the first."""
        with parts.clearing_away(self._config) as clear_away:
            gone = self.forgetting.forget(study_instance_uid, person=person, why=why)
            yield gone
            yield from clear_away(gone)

    # --------------------------------------------------------------------------------------------- deciding about the site

    def retry(
        self,
        *,
        person: str,
        why: str = "",
        delivery_ids: Sequence[int] = (),
        states: Sequence[DeliveryState] = (),
        destination: str = "",
        study_instance_uid: str = "",
    ) -> tuple[int, list[str]]:
        """Put deliveries that were given up back into the outbox; how many, and why others were not."""
        return self._ledger.retry(
            person=person,
            why=why,
            delivery_ids=delivery_ids,
            states=states,
            destination=destination,
            study_instance_uid=study_instance_uid,
        )

    def pause(self, what: Paused, *, person: str, why: str = "") -> bool:
        """Hand out nothing more of it; False when it was paused already."""
        return self._pauses.pause(what, person=person, why=why)

    def resume(self, what: Paused, *, person: str, why: str = "") -> bool:
        """Go on with it; False when it was not paused."""
        return self._pauses.resume(what, person=person, why=why)

    def reconciled(self) -> dict[str, Any]:
        """How the comparison with the PACS stands that workers make by themselves, and what came of the last one."""
        standing = self._chores.standing(accounts.NAME)
        return {"scheduled": parts.reconciles(self._config), "every_hours": self._config.study.reconcile_hours, **standing}

    def reconcile(self, *, person: str, why: str = "") -> None:
        """Have it made as soon as a worker looks. Raises NotScheduled."""
        if not parts.reconciles(self._config):
            raise NotScheduled("no worker compares with the PACS here: set [study] reconcile and fetch_from, or use `fourview reconcile`")
        self._acts.record(person=person, what="reconcile", why=why)
        self._chores.ask(accounts.NAME)

    # --------------------------------------------------------------------------------------------------------------- parts

    @cached_property
    def forgetting(self) -> Forgetting:
        """Takes studies out for good, and lets them come again."""
        return parts.open_forgetting(self._config)

    @cached_property
    def _policy(self) -> Callable[[], Policy]:
        return parts.site_policy(self._config)

    def _policy_or_likely(self) -> Policy:
        try:
            return self._policy()
        except NotSettled:
            return parts.policy(self._config)

    @cached_property
    def _archive(self) -> Archive:
        return parts.open_archive(self._config)

    @cached_property
    def _on_demand(self) -> OnDemand:
        return parts.open_on_demand(self._config)

    @cached_property
    def _search(self) -> Search:
        return parts.open_search(self._config)

    @cached_property
    def _listing(self) -> Listing:
        return parts.open_listing(self._config)

    @cached_property
    def _ledger(self) -> Ledger:
        return parts.open_ledger(self._config)

    @cached_property
    def _acts(self) -> Acts:
        return parts.open_acts(self._config)

    @cached_property
    def _pauses(self) -> Pauses:
        return parts.open_pauses(self._config)

    @cached_property
    def _chores(self) -> Chores:
        return parts.open_chores(self._config)

    @cached_property
    def _condition(self) -> Condition:
        return parts.open_condition(self._config)

    def _facts(self) -> Facts:
        return self._condition.facts()

    def _room(self) -> Room | None:
        store = self._config.store
        try:
            return least_room(store.files, database_folder(store.database))  # `Files` would make the folder
        except OSError:
            return None

    def _model(self) -> dict[str, Any] | None:
        """The site's model as its card names it; None when the card cannot be used. The weights are not opened."""
        try:
            card = read_card(self._config.model.card)
            engine = parts.likely(self._config, card)
        except ModelError:
            return None
        names = ("name", "version", "manufacturer", "trained", "profile", "weights_sha256")
        return {**{name: getattr(card, name) for name in names}, "classes": list(card.classes), "engine": engine, "card": str(card.path)}


def forgotten_as_json(gone: Forgotten, left: Sequence[str]) -> dict[str, Any]:
    """What is told of a study that was forgotten, and what had to be `left`."""
    return {**gone.as_json(), "left": list(left)}


def _words(asked: Mapping[str, Any], state: str, *, worker: bool) -> str:
    """What came of a request, in words."""
    if not worker:
        return "asked for, but no worker is running: start `fourview serve` (or `work`) and it will be done"
    if state == "waiting":
        return "asked for, but no worker has answered yet; it stays asked for (`fourview show`)"
    if state == "refused":
        return str(asked["answer"])
    if asked["study_state"] == "analysing":
        return "still being read (`fourview show`)"
    came = f"{asked['study_state']}: {asked['study_state_reason']}"
    if asked["kind"] != RequestKind.SEND or asked["study_state"] != "analysed":
        return came
    if asked["sent_to"] or asked["given_up"]:
        goes = f"; it goes to {', '.join(asked['sent_to'])}" if asked["sent_to"] else ""
        given_up = f"; given up at {', '.join(asked['given_up'])} (`fourview show` says why)" if asked["given_up"] else ""
        return f"{came}{goes}{given_up}"
    return (
        f"{came}; nothing of it is sent, since no [[pacs]] takes it: see `results` and, for an untrained model, `accept_untrained` of each"
    )
