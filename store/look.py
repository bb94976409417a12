"""One look at one study, inside a transaction of the archive: its rows become a snapshot, and what follows from it becomes rows.

What follows is decided in `store.grouping`, which is pure; this module only reads and writes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from pydicom.dataset import Dataset

from store import queue, tables
from store.correction import Correction
from store.database import insert_or_ignore
from store.epoch import epoch
from store.grouping import Consequences, Release, Request, RequestKind, Snapshot, advance, missing_views
from store.header import overlay, unpack_header
from store.images import Decisions, Disposition, Image, Judged, Patient, Rejection, study_warnings, warnings_of
from store.ledger import DEAD, OWING, forward
from store.pace import Standing, place
from store.rows import change_study, say
from store.seen import Decide, seen_of
from store.study import (
    HANGING_ORDER,
    Candidate,
    Election,
    ImageKind,
    Loser,
    ModelIdentity,
    Outcome,
    Policy,
    Predecessor,
    Ruling,
    Scores,
    StudyState,
    View,
    ViewEvidence,
    elect,
    outcome,
    version_number,
)
from store.view import COPIED_OF_ITEMS, DEMOGRAPHICS, Ranking, Resolved, resolve_view

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReadView:
    """One slot of a frozen selection: scored, or failed with the reason in words; neither in a withdrawal."""

    view: View
    candidate: Candidate
    header: Dataset
    pixel_hash: str
    scores: Scores | None
    preview_file: str | None
    heat_map_file: str | None = None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class CurrentVersion:
    """The version of a study that stands now."""

    number: int
    run_id: str
    model: ModelIdentity
    cause: str
    outcome: Outcome
    created_at: datetime
    selection: Mapping[str, Mapping[str, Any]]  # view -> what was read: sop_instance_uid, instance_id, ...
    header: Mapping[str, Any]  # of one of its objects, as DICOM JSON: whose it says it is
    objects: Mapping[str, Predecessor]  # by kind


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Everything that a version is made of."""

    study_instance_uid: str
    model: ModelIdentity
    views: tuple[ReadView, ...]  # in hanging order
    missing: tuple[View, ...]
    outcome: Outcome
    election: Election
    losers: tuple[Loser, ...]
    warnings: tuple[str, ...]
    current: CurrentVersion | None
    send_to: tuple[str, ...]
    requested: bool  # by a person
    now: datetime
    epoch: int = 0  # how often the database was restored from a backup

    @property
    def number(self) -> int:
        """The number of the version that is made of it."""
        return version_number(self.current.number if self.current else 0, self.epoch)

    @property
    def predecessor_uids(self) -> tuple[str, ...]:
        """SOP Instance UIDs of what it replaces, in order."""
        return tuple(sorted(one.sop_instance_uid for one in self.current.objects.values())) if self.current else ()


def evidence_from(stored: Mapping[str, Any]) -> ViewEvidence:
    """The evidence that was stored as JSON."""
    several = ("modifiers", "orientation", "conflicts", "warnings")
    return ViewEvidence(
        **{
            **stored,
            "view": View(stored["view"]) if stored["view"] else None,
            "kind": ImageKind(stored["kind"]),
            **{name: tuple(stored.get(name, ())) for name in several},
        }
    )


def scores_from(stored: Mapping[str, Any]) -> Scores:
    """The scores that were stored as JSON."""
    x_min, y_min, x_max, y_max = stored["box"]
    return Scores(
        classes=tuple(stored["classes"]),
        probabilities=tuple(stored["probabilities"]),
        box=(x_min, y_min, x_max, y_max),
        rows=stored["rows"],
        columns=stored["columns"],
        warnings=tuple(stored["warnings"]),
    )


def model_from(stored: Mapping[str, Any]) -> ModelIdentity:
    """The model identity that was stored as JSON."""
    options = tuple((name, value) for name, value in stored["options"])
    return ModelIdentity(**{**stored, "classes": tuple(stored["classes"]), "options": options})


def decisions_from(stored: Mapping[str, Any]) -> Decisions:
    """The decisions that were stored as JSON."""
    return Decisions(
        excluded=frozenset(stored["excluded"]),
        assigned={uid: View(view) for uid, view in stored["assigned"].items()},
        dropped_files=frozenset(stored["dropped_files"]),
        chosen_files=frozenset(stored["chosen_files"]),
        patients=tuple(Patient(**one) for one in stored["patients"]),
        patient_of=stored["patient_of"],
        send_to=tuple(stored.get("send_to", ())),  # earlier releases stored none
    )


def decided(effects: Iterable[Mapping[str, Any] | None]) -> Decisions:
    """What people decided in all, from what was stored of each request in their order; None of one that decided nothing."""
    found = Decisions()
    for effect in effects:
        if effect is not None:
            found = found.then(decisions_from(effect))
    return found


def current_selection(connection: sa.Connection, study_instance_uid: str) -> Mapping[str, Mapping[str, Any]]:
    """View -> what the current version of a study read: sop_instance_uid, instance_id, scores ...; nothing when there is no version."""
    version, run = tables.version, tables.run
    query = sa.select(run.c.selection).join(version, version.c.run_id == run.c.id)
    mine = version.c.study_instance_uid == study_instance_uid
    return connection.execute(query.where(mine).order_by(version.c.number.desc()).limit(1)).scalar() or {}


#: The priority of an image for which a person waits: before all that rules give (1...9), and no rule changes it.
FIRST = 0
#: The origin of what came by itself through the door of a calling AE: not what was fetched, or read on demand.
RECEIVED = "received"
#: What a look at a study does not see: rows of what was not kept, our own results, and what a person had read on demand.
UNSEEN = (Disposition.IGNORED, Disposition.OWN_RESULT, Disposition.ON_DEMAND)


def header_columns(found: Resolved, packed: bytes | None) -> dict[str, Any]:
    """What is remembered of an instance once its header was read."""
    return {
        "evidence": asdict(found.evidence),
        "ranking": asdict(found.ranking),
        "demographics": found.demographics,
        "rejects": {"title": found.rejection_title, "sop_instance_uids": list(found.rejects), "reason": found.rejection}
        if found.rejects
        else None,
        "header": packed,
        "image_kind": found.evidence.kind,
        **found.equipment,
    }


#: A score that failed and is tried again, as if it had never been tried.
AGAIN: Mapping[str, Any] = {"state": "waiting", "attempt": 0, "failures": 0, "crashes": 0, "error": "", "due_at": None}


def ask_for_score(
    connection: sa.Connection,
    study_instance_uid: str,
    instance_id: int,
    policy: Policy,
    *,
    background: bool = False,
    priority: int = 5,
) -> bool:
    """Have an image read by `policy`'s model; False when it was asked for before. Who asks for a result takes it out of the background."""
    row = tables.score
    values = {"instance_id": instance_id, "study_instance_uid": study_instance_uid, "state": "waiting"}
    values |= {"background": background, "priority": priority}
    model = {"model_key": policy.model.key, "model": asdict(policy.model), "card": policy.card}
    asked = insert_or_ignore(connection, row, values | model)
    if not asked and not background:
        mine = sa.and_(row.c.instance_id == instance_id, row.c.model_key == policy.model.key)
        connection.execute(sa.update(row).where(mine).values(background=False))
    return asked


def _stored(decisions: Decisions) -> dict[str, Any]:
    return {
        "excluded": sorted(decisions.excluded),
        "assigned": {uid: str(view) for uid, view in decisions.assigned.items()},
        "dropped_files": sorted(decisions.dropped_files),
        "chosen_files": sorted(decisions.chosen_files),
        "patients": [asdict(one) for one in decisions.patients],
        "patient_of": decisions.patient_of,
        "send_to": list(decisions.send_to),
    }


def _request(row: sa.Row[Any]) -> Request:
    asked = row.parameters or {}
    release = Release(
        exclude=tuple(asked.get("exclude", ())),
        view={uid: View(view) for uid, view in asked.get("view", {}).items()},
        accept_patient=asked.get("accept_patient", False),
        patient_of=asked.get("patient_of", ""),
        patient_from_pacs=asked.get("patient_from_pacs", False),
        use_file=tuple(asked.get("use_file", ())),
    )
    return Request(
        request_id=row.id,
        kind=RequestKind(row.kind),
        person=row.person,
        why=row.why,
        release=release,
        card=asked.get("card", ""),
        send_to=tuple(asked.get("send_to", ())),
        otherwise=tuple(asked.get("otherwise", ())),
    )


def image_of(one: sa.Row[Any], score: sa.Row[Any] | None) -> Image:
    """A reception as the study's course sees it; `score` is the row of the model that reads the study."""
    rejects = one.rejects
    return Image(
        instance_id=one.id,
        sop_instance_uid=one.sop_instance_uid,
        modality=one.modality,
        file_hash=one.file_hash,
        patient=Patient(
            patient_id=one.patient_id,
            issuer_of_patient_id=one.issuer_of_patient_id,
            patient_name=one.patient_name,
            patient_birth_date=one.patient_birth_date,
        ),
        received_at=one.received_at,
        evidence=evidence_from(one.evidence) if one.evidence else None,
        ranking=Ranking(**{"acquisition_number": 0, **one.ranking}) if one.ranking else None,
        demographics=one.demographics,
        rejection=Rejection(title=rejects.get("title", ""), sop_instance_uids=tuple(rejects["sop_instance_uids"]), reason=rejects["reason"])
        if rejects
        else None,
        readable=one.header is not None,
        kept=one.file_name is not None,
        sender=one.calling_ae_title,
        to_route=one.to_route,
        pixel_hash=one.pixel_hash,
        breast_edge=one.breast_edge,
        # One that is read in the background, when nothing else waits, is not asked for as one that a result waits for.
        reading="" if score is None or (score.background and score.state == "waiting") else score.state,
        failure=score.error if score is not None and score.state == "failed" else "",
    )


def evidence_as_assigned(one: sa.Row[Any], view: View, policy: Policy) -> ViewEvidence:
    """The evidence of a reception once a person has said which view it is."""
    if one.header is None:
        return evidence_from(one.evidence)
    # The kind was told with the site's words for its devices; a person decides the view only.
    dialect = policy.dialect.of(one.calling_ae_title)
    return replace(resolve_view(unpack_header(one.header), dialect, assigned=view), kind=ImageKind(one.evidence["kind"]))


class Look:
    """A study's rows as they stand in this transaction; the caller holds the study's lock."""

    def __init__(self, connection: sa.Connection, study: sa.Row[Any], policy: Policy, now: datetime) -> None:
        self.connection = connection
        self.study = study
        self.policy = policy.of(study.card)
        self._site = policy
        self.now = now
        row = tables.instance
        found = connection.execute(sa.select(row).where(row.c.study_instance_uid == study.study_instance_uid).order_by(row.c.id)).all()
        self.rows = {one.id: one for one in found if one.disposition not in UNSEEN}

    # ------------------------------------------------------------------------------------------------------------- snapshot

    @cached_property
    def scores(self) -> dict[int, sa.Row[Any]]:
        """The score rows of this study's images for the policy's model, by instance id."""
        row = tables.score
        query = sa.select(row).where(row.c.study_instance_uid == self.study.study_instance_uid, row.c.model_key == self.policy.model.key)
        return {found.instance_id: found for found in self.connection.execute(query).all()}

    @cached_property
    def images(self) -> tuple[Image, ...]:
        """What was received, in order of arrival."""
        return tuple(image_of(one, self.scores.get(one.id)) for one in self.rows.values())

    @cached_property
    def decisions(self) -> Decisions:
        """What people decided, in the order in which they did."""
        row = tables.decision
        mine = sa.and_(row.c.study_instance_uid == self.study.study_instance_uid, row.c.effect.is_not(None))
        return decided(self.connection.execute(sa.select(row.c.effect).where(mine).order_by(row.c.id)).scalars())

    def _snapshot(self) -> Snapshot:
        study, row = self.study, tables.decision
        open_requests = sa.select(row).where(row.c.study_instance_uid == study.study_instance_uid, row.c.applied_at.is_(None))
        current = self.current
        return Snapshot(
            state=StudyState(study.state),
            state_reason=study.state_reason,
            revision=study.revision,
            generation=study.generation,
            selection_hash=study.selection_hash,
            rule_action=study.rule_action,
            card=study.card,
            collecting_since=study.collecting_since,
            last_instance_at=study.last_instance_at,
            images=self.images,
            decisions=self.decisions,
            requests=tuple(_request(one) for one in self.connection.execute(open_requests.order_by(row.c.id)).all()),
            doubted=bool(study.doubts),
            disputed=Correction.stored(study.correction).doubt,
            frozen=None if study.frozen_instances is None else tuple(study.frozen_instances),
            versions_today=self._versions_today(),
            current_uids=None if current is None else _uids(current),
            withdrawn=current is not None and current.outcome is Outcome.WITHDRAWN,
        )

    def _versions_today(self) -> int:
        row = tables.version
        return self.connection.execute(
            sa.select(sa.func.count())
            .select_from(row)
            .where(
                row.c.study_instance_uid == self.study.study_instance_uid,
                row.c.created_at > self.now - timedelta(hours=24),
                row.c.requested.is_(sa.false()),
            )
        ).scalar_one()

    @cached_property
    def current(self) -> CurrentVersion | None:
        """The version that stands now."""
        version, row, run = tables.version, tables.result_object, tables.run
        mine = version.c.study_instance_uid == self.study.study_instance_uid
        query = sa.select(version, run.c.selection, run.c.model).join(run, run.c.id == version.c.run_id)
        newest = self.connection.execute(query.where(mine).order_by(version.c.number.desc()).limit(1)).first()
        if newest is None:
            return None
        objects = self.connection.execute(sa.select(row).where(row.c.version_id == newest.id)).all()
        return CurrentVersion(
            number=newest.number,
            run_id=newest.run_id,
            model=model_from(newest.model),
            cause=newest.cause,
            outcome=Outcome(newest.outcome),
            created_at=newest.created_at,
            selection=newest.selection,
            header=objects[0].header if objects else {},
            objects={
                one.kind: Predecessor(
                    sop_class_uid=one.sop_class_uid,
                    sop_instance_uid=one.sop_instance_uid,
                    series_instance_uid=one.series_instance_uid,
                )
                for one in objects
            },
        )

    def _assigned(self, instance_id: int, view: View) -> ViewEvidence:
        return evidence_as_assigned(self.rows[instance_id], view, self.policy)

    # --------------------------------------------------------------------------------------------------------- consequences

    def advance(self, decide: Decide) -> bool:
        """Write down what follows from what is here. True: a frozen selection, or a withdrawal, is ready to be reported."""

        def ruling(judged: Judged) -> Ruling | None:
            seen = seen_of(judged, self.rows, self.study.first_instance_at)
            return None if seen is None else decide(seen)

        found = advance(self._snapshot(), self.policy, ruling, self._assigned, self.now)
        tried = {self.study.card}
        while (card := found.changes.get("card", self.study.card)) != self.study.card:
            # Another model reads it: what that one takes, and has read, decides; so look again with its eyes. Rules that name a card by
            # what another card takes may go round in circles: then the first card by name stands.
            circle = card in tried
            tried.add(card)
            self._use(min(tried) if circle else card)
            found = advance(self._snapshot(), self.policy, ruling, self._assigned, self.now)
            if circle:
                found.changes["card"] = self.study.card
        self._write(found)
        return found.ready

    def _use(self, card: str) -> None:
        row = tables.study
        change_study(self.connection, self.study.study_instance_uid, card=card)
        self.study = self.connection.execute(sa.select(row).where(row.c.study_instance_uid == self.study.study_instance_uid)).one()
        self.policy = self._site.of(card)
        for cached in ("scores", "images"):
            self.__dict__.pop(cached, None)

    def _write(self, found: Consequences) -> None:
        uid = self.study.study_instance_uid
        self._write_dispositions(found.judged)
        for line in found.lines:
            say(self.connection, uid, self.now, line)
        if found.changes:
            change_study(self.connection, uid, **found.changes)
        for before, after, event in found.moves:
            log.info("study state study_instance_uid=%s from=%s to=%s event=%s", uid, before, after, event.name)
        if found.settled:
            decided = Correction.stored(self.study.correction).settled(take=found.settled == "pacs")
            change_study(self.connection, uid, correction=asdict(decided))
        self._write_scores(found)
        if found.cancel:
            self._cancel_deliveries(found.cancel)
        if found.routed.images:
            row = tables.instance
            self.connection.execute(sa.update(row).where(row.c.id.in_(found.routed.images)).values(to_route=False))
            for destination, images in found.routed.forward.items():
                forward(self.connection, uid, destination, [self.rows[one] for one in images], self.now)
        row = tables.decision
        for request_id, answer in found.answers.items():
            effect = _stored(answer.decisions) if answer.accepted and answer.decisions != Decisions() else sa.null()
            values = {"applied_at": self.now, "answer": answer.text, "effect": effect}
            self.connection.execute(sa.update(row).where(row.c.id == request_id).values(**values))
        self._write_patient(found)

    def _write_patient(self, found: Consequences) -> None:
        """Whose study it is, for people who look for it: as a result would say now.

        Until an image fills a slot, and while it is in doubt whose they are, the word before stands.
        """
        if found.judged.doubts or not found.judged.election.winners:
            return
        decisions = self.decisions
        for answer in found.answers.values():
            decisions = decisions.then(answer.decisions) if answer.accepted else decisions
        correction = Correction.stored(self.study.correction)
        if found.settled:
            correction = correction.settled(take=found.settled == "pacs")
        says = self._says(found.judged.election.winners[0][1].instance_id, found.judged, decisions)
        corrected = correction.values if says.demographics in correction.of else {}
        values = {column: corrected.get(keyword, says._mapping[column]) for keyword, column in _PATIENT.items()}
        if values != {column: self.study._mapping[column] for column in values}:
            change_study(self.connection, self.study.study_instance_uid, **values)

    def _write_dispositions(self, judged: Judged) -> None:
        """What each image is, where it changed; said on the timeline."""
        row = tables.instance
        for one in judged.images:
            disposition, reason = judged.dispositions[one.instance_id]
            before = self.rows[one.instance_id]
            if (disposition, reason) != (before.disposition, before.disposition_reason):
                values = {"disposition": disposition, "disposition_reason": reason}
                self.connection.execute(sa.update(row).where(row.c.id == one.instance_id).values(**values))
                evidence = judged.evidence.get(one.instance_id)
                what = evidence.view if evidence is not None and evidence.view is not None else one.modality
                say(self.connection, self.study.study_instance_uid, self.now, f"{what} {one.sop_instance_uid} is {disposition}", reason)
        expired = [one for one in judged.expired if not self.rows[one].pixels_expire]
        if expired:
            self.connection.execute(sa.update(row).where(row.c.id.in_(expired)).values(pixels_expire=True))

    def _write_scores(self, found: Consequences) -> None:
        row = tables.score
        for instance_id in found.again:
            self.connection.execute(sa.update(row).where(row.c.id == self.scores[instance_id].id).values(**AGAIN))
        priority = self._place(found)
        for instance_id in found.wanted:
            ask_for_score(self.connection, self.study.study_instance_uid, instance_id, self.policy, priority=priority)
        mine = sa.and_(
            row.c.study_instance_uid == self.study.study_instance_uid, row.c.state == "waiting", row.c.priority.not_in((priority, FIRST))
        )
        self.connection.execute(sa.update(row).where(mine).values(priority=priority))

    def _place(self, found: Consequences) -> int:
        """At which priority the study waits from now on; it counts for its sender's pace when the first of its images is to be read."""
        uid, standing = self.study.study_instance_uid, Standing(self.study.pace)
        first = next(iter(self.rows.values()), None)
        sender = first.calling_ae_title if first is not None and first.origin == RECEIVED else ""
        per_hour = self._site.pace.of(sender)
        if standing is Standing.UNCOUNTED and found.wanted and per_hour:
            standing = Standing.ASKED if self._asked() else queue.count(self.connection, self.study, sender, per_hour)
            change_study(self.connection, uid, pace=standing, paced_by=sender)
            if standing is Standing.ABOVE:
                words = f"{sender} sent more than {per_hour} studies in an hour; its images are read after all others"
                say(self.connection, uid, self.now, "above the pace of its sender", words)
        elif standing is Standing.ABOVE and self._asked():
            standing = Standing.ASKED
            change_study(self.connection, uid, pace=standing)
            say(self.connection, uid, self.now, "no longer behind all others", "a person asked for it")
        priority = place(standing, found.changes.get("rule_priority", self.study.rule_priority))
        if priority != self.study.priority:
            change_study(self.connection, uid, priority=priority)
        return priority

    def _asked(self) -> bool:
        """Whether a person waits for it: also for a request that waits itself, for the end of the run that reads what it froze."""
        row = tables.decision
        mine = sa.and_(row.c.study_instance_uid == self.study.study_instance_uid, row.c.applied_at.is_(None))
        kinds = (RequestKind.REPROCESS, RequestKind.RELEASE, RequestKind.SEND)
        return self.connection.execute(sa.select(row.c.id).where(mine, row.c.kind.in_(kinds)).limit(1)).first() is not None

    def _cancel_deliveries(self, reason: str) -> None:
        row = tables.delivery
        mine = sa.and_(row.c.study_instance_uid == self.study.study_instance_uid, row.c.instance_id.is_(None))
        owing = sa.and_(mine, row.c.state.in_((*OWING, *DEAD)))
        # Whoever holds it keeps it: its destination gets nothing else until what may be on its way is through.
        values = {"state": "cancelled", "due_at": None, "reason": reason}
        self.connection.execute(sa.update(row).where(owing).values(**values))

    # -------------------------------------------------------------------------------------------------------------- reports

    @property
    def reportable(self) -> bool:
        """Whether every image of the frozen selection was read, or failed, by the policy's model."""
        return all(one in self.scores and self.scores[one].state in ("scored", "failed") for one in self.study.frozen_instances)

    @cached_property
    def _judged(self) -> Judged:
        return Judged(self.images, self.decisions, self.policy, self._assigned)

    @property
    def _expected(self) -> tuple[View, ...]:
        return tuple(View(view) for view in self.study.rule_slots or HANGING_ORDER)

    def reading(self) -> Reading:
        """The frozen selection with its scores: what a version is made of."""
        judged, frozen = self._judged, set(self.study.frozen_instances)
        chosen = [judged.by_id[one] for one in sorted(frozen)]
        scored = [judged.candidate(one) for one in chosen if self.scores[one.instance_id].state == "scored"]
        failed = [judged.candidate(one) for one in chosen if self.scores[one.instance_id].state != "scored"]
        election = elect(scored, self.policy.image_kinds)
        fallen = elect(failed, self.policy.image_kinds)
        views: list[ReadView] = []
        warnings: list[str] = study_warnings(judged)
        for view in HANGING_ORDER:
            winner = election.winner(view) or fallen.winner(view)
            if winner is None:
                continue
            row, score = self.rows[winner.instance_id], self.scores[winner.instance_id]
            failure = score.error if election.winner(view) is None else ""
            views.append(
                ReadView(
                    view=view,
                    candidate=winner,
                    header=self._header(winner.instance_id),
                    pixel_hash=row.pixel_hash or "",
                    scores=None if failure else scores_from(score.scores),
                    preview_file=None if failure else score.preview_file,
                    heat_map_file=None if failure else score.heat_map_file,
                    failure=failure,
                )
            )
            warnings += [f"{view}: {warning}" for warning in warnings_of(judged, winner)]
        for candidate in failed:
            if candidate.evidence.view in election.filled:
                warnings.append(f"{candidate.evidence.view}: image {candidate.sop_instance_uid} could not be read and was passed over")
        read = [one.view for one in views]
        for view in HANGING_ORDER:
            if view not in read:
                warnings += judged.left_out(view)
        said = outcome(election, judged.sides_seen, self._expected)
        if said is Outcome.UNILATERAL and any(one.failure for one in views):
            said = Outcome.PARTIAL  # of the other side came an image that could not be read
        classes = {one.sop_instance_uid: scores_from(self.scores[one.instance_id].scores).predicted_class for one in scored}
        return Reading(
            study_instance_uid=self.study.study_instance_uid,
            model=self.policy.model,
            views=tuple(views),
            missing=() if said is Outcome.UNILATERAL else missing_views(election, self._expected, read),
            outcome=said,
            election=election,
            losers=tuple(replace(loser, predicted_class=classes[loser.sop_instance_uid]) for loser in election.losers),
            warnings=tuple(sorted(warnings)),
            current=self.current,
            send_to=tuple(self.study.rule_send_to or ()) if self.study.rule_action == "analyse" else (),
            requested=bool(self.study.frozen_by_request),
            now=self.now,
            epoch=epoch(self.connection),
        )

    def withdrawal(self) -> Reading | None:
        """What a version is made of that says WITHDRAWN; None when the study is not withdrawn, or says so already."""
        current = self.current
        if self.study.state != StudyState.WITHDRAWN or current is None or current.outcome is Outcome.WITHDRAWN:
            return None
        judged = self._judged
        read = {View(view): judged.by_id[one["instance_id"]] for view, one in current.selection.items()}
        delivery = tables.delivery
        told = (
            sa.select(delivery.c.destination)
            .distinct()
            .where(
                delivery.c.study_instance_uid == self.study.study_instance_uid,
                delivery.c.instance_id.is_(None),
                sa.or_(delivery.c.state.in_(("sent", "confirmed")), delivery.c.attempt > 0),  # what was begun may have arrived
            )
        )
        return Reading(
            study_instance_uid=self.study.study_instance_uid,
            model=current.model,  # the series of the results is that model's
            views=tuple(
                ReadView(
                    view=view,
                    candidate=judged.candidate(read[view]),
                    header=self._said_header(read[view].instance_id, current),
                    pixel_hash=read[view].pixel_hash or "",
                    scores=None,
                    preview_file=None,
                )
                for view in HANGING_ORDER
                if view in read
            ),
            missing=(),
            outcome=Outcome.WITHDRAWN,
            election=Election(winners=(), losers=()),
            losers=(),
            warnings=(self.study.state_reason,),
            current=current,
            send_to=tuple(sorted(self.connection.execute(told).scalars())),
            requested=False,
            now=self.now,
            epoch=epoch(self.connection),
        )

    def _said_header(self, instance_id: int, current: CurrentVersion) -> Dataset:
        """An image's header with the patient and study values that the version `current` carries: what withdraws it is of that patient."""
        header = unpack_header(self.rows[instance_id].header)
        overlay(header, Dataset.from_json(dict(current.header)), DEMOGRAPHICS)
        return header

    def _header(self, instance_id: int) -> Dataset:
        """An image's header with the patient and study values that hold: those of its newest reception, or as a person decided, or as a
        destination corrected them."""
        row = self.rows[instance_id]
        header, says = unpack_header(row.header), self._says(instance_id, self._judged, self.decisions)
        if says is not row:
            overlay(header, unpack_header(says.header), (*DEMOGRAPHICS, *COPIED_OF_ITEMS))
        Correction.stored(self.study.correction).apply(header, says.demographics)
        return header

    def _says(self, instance_id: int, judged: Judged, decisions: Decisions) -> sa.Row[Any]:
        """The row whose patient and study values hold for an image: of its newest reception, or of the image that a person named."""
        row = self.rows[instance_id]
        if any(one.instance_id == decisions.patient_of for one in judged.standing):
            return self.rows[decisions.patient_of]
        newest = judged.newest.get(row.sop_instance_uid)
        return self.rows[newest.instance_id] if newest is not None and newest.demographics != row.demographics else row


#: DICOM keyword -> the study's column, of what tells whose it is.
_PATIENT = {
    "PatientID": "patient_id",
    "IssuerOfPatientID": "issuer_of_patient_id",
    "PatientName": "patient_name",
    "PatientBirthDate": "patient_birth_date",
}


def _uids(current: CurrentVersion) -> frozenset[str]:
    """The images that a version says something of."""
    if current.outcome is Outcome.WITHDRAWN:
        return frozenset()
    return frozenset(one["sop_instance_uid"] for one in current.selection.values())
