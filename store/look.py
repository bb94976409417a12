"""One look at one study, inside a transaction of the archive: what each instance is, who fills which slot, what follows from it.

The rules are pure and lie in `store.study`; this module reads the rows they need and writes down what they say.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from pydicom.dataset import Dataset

from store import tables
from store.database import insert_or_ignore
from store.header import unpack_header
from store.study import (
    HANGING_ORDER,
    STOPPED,
    Candidate,
    Collected,
    Election,
    Event,
    ImageKind,
    Outcome,
    Policy,
    Predecessor,
    Ruling,
    Scores,
    StudyState,
    View,
    ViewEvidence,
    digest,
    due_step,
    elect,
    next_state,
    outcome,
)

log = logging.getLogger(__name__)

#: A study whose report was due but whose workflow vanished is looked at again after this long.
STALLED_SECONDS = 30.0


class Disposition(StrEnum):
    """What an instance is to its study."""

    RECEIVED = "received"  # kept, its header not read yet
    CANDIDATE = "candidate"
    COPY = "copy"  # the same SOP Instance as a candidate, in other bytes
    DOUBT = "doubt"
    SET_ASIDE = "set aside"
    IGNORED = "ignored"
    OWN_RESULT = "own result"
    KEY_OBJECT = "key object"
    REJECTED = "rejected"
    FAILED = "failed"


#: States that a new eligible image takes back to collecting.
_REOPENED = (StudyState.ANALYSED, StudyState.INCOMPLETE, StudyState.IGNORED, StudyState.FAILED)

Decide = Callable[[Sequence[Dataset], Sequence[View], ImageKind, str, str], Ruling]
"""(headers, filled views, kind, calling AE title, called AE title) -> ruling. The first header stands for the study."""


@dataclass(frozen=True, kw_only=True)
class ReadView:
    """One slot of a frozen selection: scored, or failed with the reason in words."""

    view: View
    candidate: Candidate
    header: Dataset
    pixel_hash: str
    scores: Scores | None
    preview_file: str | None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class CurrentVersion:
    """The version of a study that stands now."""

    number: int
    cause: str
    objects: Mapping[str, Predecessor]  # by kind


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Everything that a version is made of."""

    study_instance_uid: str
    views: tuple[ReadView, ...]  # in hanging order
    missing: tuple[View, ...]
    outcome: Outcome
    election: Election
    warnings: tuple[str, ...]
    current: CurrentVersion | None
    send_to: tuple[str, ...]
    requested: bool  # by a person
    now: datetime


def change_study(connection: sa.Connection, study_instance_uid: str, **values: Any) -> None:
    """Set columns of a study's row."""
    connection.execute(sa.update(tables.study).where(tables.study.c.study_instance_uid == study_instance_uid).values(**values))


def say(connection: sa.Connection, study_instance_uid: str, now: datetime, text: str, reason: str = "") -> None:
    """Append a line to a study's timeline."""
    line = f"{text}: {reason}" if reason else text
    connection.execute(sa.insert(tables.timeline).values(study_instance_uid=study_instance_uid, at=now, text=line))


def move(connection: sa.Connection, study: sa.Row[Any], event: Event, reason: str, now: datetime, **values: Any) -> StudyState:
    """Take a study through the state table; the new state. A study that stays where it is keeps its reason."""
    before = StudyState(study.state)
    state = next_state(before, event)
    if state is before and event is not Event.ELIGIBLE_IMAGE:
        change_study(connection, study.study_instance_uid, **values)
        say(connection, study.study_instance_uid, now, event.value, reason)
    else:
        change_study(connection, study.study_instance_uid, state=state, state_reason=reason, **{"due_at": None, **values})
        say(connection, study.study_instance_uid, now, state.value, reason)
    log.info("study state study_instance_uid=%s from=%s to=%s event=%s", study.study_instance_uid, before, state, event.name)
    return state


def evidence_from(stored: Mapping[str, Any]) -> ViewEvidence:
    """The evidence that was stored as JSON."""
    return ViewEvidence(
        **{
            **stored,
            "view": View(stored["view"]) if stored["view"] else None,
            "kind": ImageKind(stored["kind"]),
            **{name: tuple(stored[name]) for name in ("modifiers", "conflicts", "warnings")},
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


def _patient_differs(a: sa.Row[Any], b: sa.Row[Any]) -> bool:
    """Another patient: the identifier differs, or name and birth date both do. A new name alone is a demographic update."""
    if a.patient_id != b.patient_id or a.issuer_of_patient_id != b.issuer_of_patient_id:
        return True
    names = {re.sub(r"[\s^,.]+", " ", row.patient_name).strip().casefold() for row in (a, b)}
    return len(names) > 1 and a.patient_birth_date != b.patient_birth_date


class Look:
    """A study's rows as they stand in this transaction; the caller holds the study's lock."""

    def __init__(self, connection: sa.Connection, study: sa.Row[Any], policy: Policy, now: datetime) -> None:
        self.connection = connection
        self.study = study
        self.policy = policy
        self.now = now
        row = tables.instance
        found = connection.execute(sa.select(row).where(row.c.study_instance_uid == study.study_instance_uid).order_by(row.c.id)).all()
        self.instances = [one for one in found if one.disposition not in (Disposition.IGNORED, Disposition.OWN_RESULT)]
        self.evidence = {one.id: evidence_from(one.evidence) for one in self.instances if one.evidence}

    # ------------------------------------------------------------------------------------------------------- what they are

    @cached_property
    def scores(self) -> dict[int, sa.Row[Any]]:
        """The score rows of this study's images for the policy's model, by instance id."""
        row = tables.score
        query = sa.select(row).where(row.c.study_instance_uid == self.study.study_instance_uid, row.c.model_key == self.policy.model.key)
        return {found.instance_id: found for found in self.connection.execute(query).all()}

    def _failed(self, instance_id: int) -> str:
        score = self.scores.get(instance_id)
        return score.error if score is not None and score.state == "failed" else ""

    def _settled(self, instance_id: int) -> bool:
        return instance_id in self.scores and self.scores[instance_id].state in ("scored", "failed")

    def complete(self) -> bool:
        """Whether every image of the frozen selection was read, or failed, by the policy's model."""
        return all(self._settled(one) for one in self.study.frozen_instances)

    @cached_property
    def rejections(self) -> dict[str, str]:
        """SOP Instance UID -> why, from the rejecting Key Objects of this study, whenever they came."""
        return {uid: one.rejects["reason"] for one in self.instances if one.rejects is not None for uid in one.rejects["sop_instance_uids"]}

    @cached_property
    def primaries(self) -> dict[str, int]:
        """SOP Instance UID -> the row that stands for it: one that can be read, whose pixels are known, lossless, then the first."""

        def key(one: sa.Row[Any]) -> tuple[bool, bool, bool, bool, int]:
            lost = one.file_name is None and not self._settled(one.id)  # its pixels are gone and this model never saw them
            return (lost, bool(self._failed(one.id)), one.pixel_hash is None, one.ranking["lossy"], one.id)

        chosen: dict[str, int] = {}
        for one in sorted((one for one in self.instances if one.ranking is not None), key=key):
            chosen.setdefault(one.sop_instance_uid, one.id)
        return chosen

    def _judge(self, one: sa.Row[Any]) -> tuple[Disposition, str]:
        evidence = self.evidence.get(one.id)
        if evidence is None:
            return Disposition.RECEIVED, ""
        if one.modality == "KO":
            return Disposition.KEY_OBJECT, one.rejects["reason"] if one.rejects else "does not reject images"
        if evidence.set_aside:
            return Disposition.SET_ASIDE, evidence.set_aside
        if evidence.kind not in self.policy.image_kinds:
            return Disposition.SET_ASIDE, f"the model card does not list images of the kind {evidence.kind.value}"
        if self.policy.exclude_implants and one.ranking["implant"]:
            return Disposition.SET_ASIDE, "a breast implant is present, and the model card excludes implants"
        if one.sop_instance_uid in self.rejections:
            return Disposition.REJECTED, self.rejections[one.sop_instance_uid]
        if evidence.doubt:
            return Disposition.DOUBT, evidence.doubt
        if self.primaries[one.sop_instance_uid] != one.id:
            return Disposition.COPY, "another copy of the same image stands for it"
        if failure := self._failed(one.id):
            return Disposition.FAILED, failure
        return Disposition.CANDIDATE, ""

    @cached_property
    def judged(self) -> dict[int, tuple[Disposition, str]]:
        """What each instance is, and why, by instance id."""
        return {one.id: self._judge(one) for one in self.instances}

    def save_dispositions(self) -> None:
        """Write down what each instance is, where it changed, and say so on the timeline."""
        for one in self.instances:
            disposition, reason = self.judged[one.id]
            if (disposition, reason) == (one.disposition, one.disposition_reason):
                continue
            row = tables.instance
            self.connection.execute(sa.update(row).where(row.c.id == one.id).values(disposition=disposition, disposition_reason=reason))
            evidence = self.evidence.get(one.id)
            what = evidence.view if evidence is not None and evidence.view is not None else one.modality
            self._say(f"{what} {one.sop_instance_uid} is {disposition}", reason)

    def _rows(self, *dispositions: Disposition) -> list[sa.Row[Any]]:
        return [one for one in self.instances if self.judged[one.id][0] in dispositions]

    def _candidate(self, one: sa.Row[Any]) -> Candidate:
        return Candidate(instance_id=one.id, sop_instance_uid=one.sop_instance_uid, evidence=self.evidence[one.id], **one.ranking)

    @cached_property
    def doubts(self) -> list[str]:
        """Why a person must look at this study before anything is said of it; only images that would fill a slot can raise a doubt."""
        found = [f"image {one.sop_instance_uid}: {self.judged[one.id][1]}" for one in self._rows(Disposition.DOUBT)]
        eligible = self._rows(Disposition.CANDIDATE, Disposition.COPY, Disposition.DOUBT, Disposition.FAILED)
        for number, one in enumerate(eligible):
            other = next((other for other in eligible[:number] if _patient_differs(other, one)), None)
            if other is not None:
                found.append(f"image {one.sop_instance_uid} names another patient than image {other.sop_instance_uid}")
        views: dict[str, set[str]] = {}
        for one in eligible:
            if view := self.evidence[one.id].view:
                views.setdefault(one.sop_instance_uid, set()).add(view)
        found += [f"image {uid} was received as {' and as '.join(sorted(told))}" for uid, told in views.items() if len(told) > 1]
        pixels: dict[str, set[str]] = {}
        for one in eligible:
            if one.pixel_hash is not None and not one.ranking["lossy"]:
                pixels.setdefault(one.sop_instance_uid, set()).add(one.pixel_hash)
        found += [f"image {uid} was received with different pixels under one UID" for uid, hashes in pixels.items() if len(hashes) > 1]
        return found

    # ----------------------------------------------------------------------------------------------------- what follows

    def advance(self, decide: Decide) -> bool:
        """Set state and due time from what is here. True: a frozen selection is ready to be reported."""
        self.save_dispositions()
        state = StudyState(self.study.state)
        eligible = self._rows(Disposition.CANDIDATE, Disposition.FAILED)
        selection_hash = digest("selection", *sorted(f"{one.sop_instance_uid}|{self.evidence[one.id].view}" for one in eligible))
        changed = selection_hash != (self.study.selection_hash or digest("selection"))
        news = bool(eligible) and changed
        emptied = not eligible and bool(self._rows(Disposition.REJECTED)) and changed
        if changed and self.study.frozen_instances is None:
            # A run in progress reports what it froze: the difference stays news until that run is saved.
            self._change(selection_hash=selection_hash)

        if self.doubts and state is not StudyState.WITHDRAWN:
            reason = "; ".join(self.doubts)
            if state is not StudyState.HELD:
                self._move(Event.DOUBT, reason)
            elif reason != self.study.state_reason:
                self._change(state_reason=reason)
                self._say("held", reason)
        elif emptied and (self._current() is not None or state is not StudyState.COLLECTING) and state is not StudyState.WITHDRAWN:
            # Before the first selection a rejected image is merely no candidate: its retake may still come.
            self._move(Event.REJECTED, "every image that filled a slot was rejected")
            self._cancel_deliveries("every image was rejected before it was sent")
        elif news and state in _REOPENED:
            self._move(Event.ELIGIBLE_IMAGE, "the images changed", revision=self.study.revision + 1, collecting_since=self.now)
            self._collect(decide, since=self.now)
        elif state is StudyState.COLLECTING:
            self._collect(decide, since=self.study.collecting_since)
        elif news and state is StudyState.WITHDRAWN and self.study.frozen_instances is None:
            # Never analysed again without a person (what was withdrawn may have been another patient), but never silently either.
            self._change(state_reason="new images came after it was withdrawn: look at them, then `fourview reprocess`")
            self._say("withdrawn", "new images came; they are not read unless a person asks to reprocess")
        elif self.study.rule_action == "analyse":
            # A copy that came after the selection was frozen: only its pixels tell whether it is one.
            self._want_scores(self._rows(Disposition.COPY))

        if self.study.frozen_instances is None:
            self._apply_requests(decide)
        return self._ready()

    def _collect(self, decide: Decide, *, since: datetime) -> None:
        # An image that could not be read fills its slot too: waiting longer does not mend it, and the result says that it failed.
        eligible = self._rows(Disposition.CANDIDATE, Disposition.FAILED)
        election = elect([self._candidate(one) for one in eligible], self.policy.image_kinds)
        ruling = self._rule(election, decide)
        step = due_step(
            Collected(
                election=election,
                last_eligible_at=max((one.received_at for one in eligible), default=None),
                last_instance_at=self.study.last_instance_at,
                collecting_since=since,
                ruling=ruling,
                sides_seen=self._sides_seen,
                versions_today=self._versions_today(),
            ),
            self.policy,
            self.now,
        )
        if ruling is not None:
            self._save_ruling(ruling)
            if ruling.action == "analyse":
                self._want_scores(self._rows(Disposition.CANDIDATE, Disposition.COPY))
        if step.event is None:
            self._change(due_at=step.due_at, state_reason=step.reason)
        elif step.event is Event.DUE_ANALYSE:
            self._freeze(step.event, step.reason, by_request=False)
        else:
            self._move(step.event, step.reason)

    def _rule(self, election: Election, decide: Decide) -> Ruling | None:
        """What the rules say; None when no header could be read. The representative image does not depend on the order of arrival."""
        chosen = [candidate.instance_id for _, candidate in election.winners]
        if not chosen:
            readable = sorted((one for one in self.instances if one.header is not None), key=lambda one: str(one.sop_instance_uid))
            chosen = [one.id for one in readable[:1]]
        if not chosen:
            return None
        rows = {one.id: one for one in self.instances}
        first = rows[chosen[0]]
        headers = [unpack_header(rows[instance_id].header) for instance_id in chosen]
        kind = self.evidence[first.id].kind
        return decide(headers, election.filled, kind, first.calling_ae_title, first.called_ae_title)

    def _save_ruling(self, ruling: Ruling) -> None:
        self._change(
            rule_name=ruling.rule_name,
            rule_hash=ruling.rule_hash,
            rule_action=str(ruling.action),
            rule_reason=ruling.reason,
            rule_values=dict(ruling.values),
            rule_send_to=list(ruling.send_to),
        )

    def _freeze(self, event: Event, reason: str, *, by_request: bool) -> None:
        rows = self._rows(Disposition.CANDIDATE, Disposition.FAILED)
        self._want_scores(rows)
        self._move(
            event,
            reason,
            frozen_instances=[one.id for one in rows],
            # A header that nobody has read yet raised the generation already.
            frozen_generation=self.study.generation - bool(self._rows(Disposition.RECEIVED)),
            frozen_by_request=by_request,
        )

    def _want_scores(self, rows: Sequence[sa.Row[Any]]) -> None:
        for one in rows:
            if one.file_name is None and self.judged[one.id][0] is Disposition.COPY:
                continue  # its pixels are gone, and another copy stands for the image
            if one.id not in self.scores:
                insert_or_ignore(
                    self.connection,
                    tables.score,
                    {
                        "instance_id": one.id,
                        "study_instance_uid": self.study.study_instance_uid,
                        "model_key": self.policy.model.key,
                        "model": asdict(self.policy.model),
                        "state": "waiting",
                    },
                )
        self._forget_scores()

    def _forget_scores(self) -> None:
        self.__dict__.pop("scores", None)  # the cached rows are old now

    def _apply_requests(self, decide: Decide) -> None:
        row = tables.decision
        mine = sa.and_(row.c.study_instance_uid == self.study.study_instance_uid, row.c.applied_at.is_(None))
        query = sa.select(row).where(mine).order_by(row.c.id)
        for request in self.connection.execute(query).all():
            answer = self._apply_reprocess(decide)
            self.connection.execute(sa.update(row).where(row.c.id == request.id).values(applied_at=self.now, answer=answer))
            self._say("reprocess", answer)

    def _apply_reprocess(self, decide: Decide) -> str:
        study = self._reread()
        if study.frozen_instances is not None:
            return "it is being analysed already"
        if self.doubts:
            return "refused: " + "; ".join(self.doubts)
        rows = self._rows(Disposition.CANDIDATE, Disposition.FAILED)
        if not rows:
            return "refused: no image of this study fills one of the four views"
        # A person's request tries again what failed: the cause may be gone (another decoder, a mended disk).
        for one in self._rows(Disposition.FAILED):
            score = tables.score
            again = {"state": "waiting", "attempt": 0, "failures": 0, "error": "", "due_at": None}
            self.connection.execute(sa.update(score).where(score.c.id == self.scores[one.id].id).values(**again))
        self._forget_scores()
        ruling = self._rule(elect([self._candidate(one) for one in rows], self.policy.image_kinds), decide)
        if ruling is not None:
            self._save_ruling(ruling)
        self.study = study
        if study.state in STOPPED:
            # What was not sent before the doubt is not sent after it; if it still stands, the run puts it back into the outbox.
            self._cancel_deliveries(f"it was {study.state} before it was sent")
        self._freeze(Event.REQUEST, "a person asked to reprocess", by_request=True)
        return "accepted"

    def _ready(self) -> bool:
        study = self._reread()
        frozen = study.frozen_instances
        if frozen is None:
            if StudyState(study.state) is not StudyState.COLLECTING:
                self._change(due_at=None)  # only a collecting study waits for a time
            return False
        self.study = study
        ready = self.complete()
        if ready and (better := [self._instead_of(one) for one in frozen]) != frozen:
            # A copy that came after the freeze can be read where the frozen one could not.
            self._change(frozen_instances=better)
            frozen, self.study = better, self._reread()
            ready = self.complete()
        if not ready:
            # The model may have been changed since the freeze: then its scores are not even asked for yet.
            self._want_scores([one for one in self.instances if one.id in frozen])
        # Should the report's workflow vanish, the study is looked at again; a score that is saved raises the generation by itself.
        self._change(due_at=self.now + timedelta(seconds=STALLED_SECONDS))
        return ready

    def _instead_of(self, frozen: int) -> int:
        """The image that now stands for a frozen one that failed; itself when there is none, or it did not fail."""
        if not self._failed(frozen):
            return frozen
        uid = next(one.sop_instance_uid for one in self.instances if one.id == frozen)
        self.__dict__.pop("primaries", None)  # the failure may be news
        return frozen if self._failed(self.primaries[uid]) else self.primaries[uid]

    def _cancel_deliveries(self, reason: str) -> None:
        row = tables.delivery
        waiting = sa.and_(row.c.study_instance_uid == self.study.study_instance_uid, row.c.state == "waiting")
        self.connection.execute(sa.update(row).where(waiting).values(state="cancelled", due_at=None, workflow_id=None, reason=reason))

    @property
    def _sides_seen(self) -> frozenset[str]:
        return frozenset(evidence.laterality for evidence in self.evidence.values() if evidence.laterality)

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

    # -------------------------------------------------------------------------------------------------------- the report

    def reading(self) -> Reading:
        """The frozen selection with its scores: what a version is made of."""
        frozen = set(self.study.frozen_instances)
        rows = {one.id: one for one in self.instances if one.id in frozen}
        scored = [self._candidate(one) for one in rows.values() if self.scores[one.id].state == "scored"]
        failed = [self._candidate(one) for one in rows.values() if self.scores[one.id].state != "scored"]
        election = elect(scored, self.policy.image_kinds)
        fallen = elect(failed, self.policy.image_kinds)
        views: list[ReadView] = []
        warnings: list[str] = []
        for view in HANGING_ORDER:
            winner = election.winner(view) or fallen.winner(view)
            if winner is None:
                continue
            row, score = rows[winner.instance_id], self.scores[winner.instance_id]
            failure = score.error if election.winner(view) is None else ""
            views.append(
                ReadView(
                    view=view,
                    candidate=winner,
                    header=unpack_header(row.header),
                    pixel_hash=row.pixel_hash or "",
                    scores=None if failure else scores_from(score.scores),
                    preview_file=None if failure else score.preview_file,
                    failure=failure,
                )
            )
            warnings += [f"{view}: {warning}" for warning in _warnings(winner)]
        for candidate in failed:
            if candidate.evidence.view in election.filled:
                warnings.append(f"{candidate.evidence.view}: image {candidate.sop_instance_uid} could not be read and was passed over")
        named = {read.view for read in views}
        return Reading(
            study_instance_uid=self.study.study_instance_uid,
            views=tuple(views),
            missing=tuple(view for view in HANGING_ORDER if view not in named),
            outcome=outcome(election, self._sides_seen),
            election=election,
            warnings=tuple(sorted(warnings)),
            current=self._current(),
            send_to=tuple(self.study.rule_send_to or ()) if self.study.rule_action == "analyse" else (),
            requested=bool(self.study.frozen_by_request),
            now=self.now,
        )

    def _current(self) -> CurrentVersion | None:
        version, row = tables.version, tables.result_object
        mine = version.c.study_instance_uid == self.study.study_instance_uid
        newest = self.connection.execute(sa.select(version).where(mine).order_by(version.c.number.desc()).limit(1)).first()
        if newest is None:
            return None
        objects = self.connection.execute(sa.select(row).where(row.c.version_id == newest.id)).all()
        return CurrentVersion(
            number=newest.number,
            cause=newest.cause,
            objects={
                one.kind: Predecessor(
                    sop_class_uid=one.sop_class_uid,
                    sop_instance_uid=one.sop_instance_uid,
                    series_instance_uid=one.series_instance_uid,
                )
                for one in objects
            },
        )

    # ------------------------------------------------------------------------------------------------------------ writing

    def _change(self, **values: Any) -> None:
        change_study(self.connection, self.study.study_instance_uid, **values)

    def _say(self, text: str, reason: str = "") -> None:
        say(self.connection, self.study.study_instance_uid, self.now, text, reason)

    def _move(self, event: Event, reason: str, **values: Any) -> None:
        move(self.connection, self._reread(), event, reason, self.now, **values)

    def _reread(self) -> sa.Row[Any]:
        row = tables.study
        return self.connection.execute(sa.select(row).where(row.c.study_instance_uid == self.study.study_instance_uid)).one()


def _warnings(candidate: Candidate) -> list[str]:
    found = [*candidate.evidence.warnings, *candidate.evidence.conflicts]
    if candidate.implant:
        found.append("breast implant present")
    if candidate.lossy:
        found.append("lossy compressed image")
    if candidate.partial_view == "YES":
        found.append("partial view of the breast")
    if candidate.evidence.kind is not ImageKind.FFDM:
        found.append(f"image kind: {candidate.evidence.kind.value}")
    return found
