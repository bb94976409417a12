"""How a study goes on: from everything known of it at one moment to what follows. Pure: no clock, no disk, no database.

Completion by content, doubts, rejections and the requests of people. `advance` is the whole of it: a `Snapshot` in, `Consequences` out;
`store.look` reads the one from the rows and writes the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from store.images import VOIDING, Assign, Decisions, Disposition, Doubt, Image, Judged, Patient
from store.routing import Routed, route, to_route
from store.study import (
    HANGING_ORDER,
    RELEASED,
    SENT,
    Collected,
    Election,
    Event,
    Overruled,
    Policy,
    Ruling,
    StudyState,
    View,
    digest,
    due_step,
    next_state,
    standing_slots,
)

#: A study whose report was due but whose workflow vanished is looked at again after this long.
STALLED_SECONDS = 30.0
#: A study whose images are being read is looked at again after this long, should nothing be heard of them.
UNREAD_SECONDS = 900.0

#: States that a new eligible image takes back to collecting.
_REOPENED = (StudyState.ANALYSED, StudyState.INCOMPLETE, StudyState.IGNORED, StudyState.FAILED)


@dataclass(frozen=True, kw_only=True)
class Release:
    """How a person lets a held study go on; without any choice: as it stands."""

    exclude: tuple[str, ...] = ()
    view: Mapping[str, View] = field(default_factory=dict)
    accept_patient: bool = False
    patient_of: str = ""  # SOP Instance UID of an image that names the right patient
    patient_from_pacs: bool = False  # the destination that names another patient is right
    use_file: tuple[int, ...] = ()

    def __str__(self) -> str:
        parts = [f"--exclude {uid}" for uid in self.exclude]
        parts += [f"--view {uid}={view}" for uid, view in self.view.items()]
        parts += ["--accept-patient"] * self.accept_patient
        parts += [f"--patient-of {self.patient_of}"] * bool(self.patient_of)
        parts += ["--patient-from-pacs"] * self.patient_from_pacs
        parts += [f"--use-file {number}" for number in self.use_file]
        return " ".join(parts)


class RequestKind(StrEnum):
    """What may be asked for of a study."""

    REPROCESS = "reprocess"
    RELEASE = "release"
    WITHDRAW = "withdraw"
    SEND = "send"  # whatever the rules say
    CORRECT = "correct"  # asked by a destination's answer, not by a person: the patient's values were corrected there


@dataclass(frozen=True, kw_only=True)
class Request:
    """A person's request that nobody has answered yet."""

    request_id: int
    kind: RequestKind
    person: str
    why: str = ""
    release: Release = Release()
    card: str = ""  # of a reprocess: path of the model card that shall read it this time; "" for the rule's
    send_to: tuple[str, ...] = ()  # of a send: where to besides where the rule says
    otherwise: tuple[str, ...] = ()  # of a send: where to when neither says anything


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a request, and what it decided for good."""

    accepted: bool
    text: str
    decisions: Decisions = field(default_factory=Decisions)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything that is known of one study at one moment."""

    state: StudyState = StudyState.COLLECTING
    state_reason: str = ""
    revision: int = 1
    generation: int = 1
    selection_hash: str = ""
    rule_action: str = ""
    card: str = ""  # path of the model card that reads it; the policy must be that card's
    collecting_since: datetime
    last_instance_at: datetime
    images: tuple[Image, ...] = ()  # in order of arrival, without results of ours and what is merely counted
    decisions: Decisions = field(default_factory=Decisions)
    requests: tuple[Request, ...] = ()
    doubted: bool = False  # it is held for doubts that were told
    disputed: str = ""  # why a destination's answer makes it doubtful whose the study is
    frozen: tuple[int, ...] | None = None  # the selection that a run in progress reads
    versions_today: int = 0
    current_uids: frozenset[str] | None = None  # the images that the current version reads; None: there is no version
    withdrawn: bool = False  # the current version says WITHDRAWN


Decide = Callable[[Judged], Ruling | None]
"""What the rules say of a study; None when no header of it is here."""


@dataclass(kw_only=True)
class Consequences:
    """What follows from a look at a study: to be written down in one transaction."""

    judged: Judged
    changes: dict[str, Any] = field(default_factory=dict)  # columns of the study's row
    lines: list[str] = field(default_factory=list)  # for the timeline
    moves: list[tuple[StudyState, StudyState, Event]] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)  # images to be read by the policy's model
    again: list[int] = field(default_factory=list)  # failed ones to be tried anew
    cancel: str = ""  # why what waits to be sent is not sent
    routed: Routed = field(default_factory=Routed)  # where images are forwarded, which was not decided before
    answers: dict[int, Answer] = field(default_factory=dict)
    settled: str = ""  # how a person decided what was disputed: "images" | "pacs"
    ready: bool = False  # a selection, or a withdrawal, is ready to be reported


def listed(doubts: Sequence[Doubt]) -> str:
    """Doubts and the ways to settle them, for an answer to a person."""
    return "; ".join(f"{doubt.reason} (settle it with {' or '.join(doubt.choices)})" for doubt in doubts)


def advance(snapshot: Snapshot, policy: Policy, decide: Decide, assign: Assign, now: datetime) -> Consequences:
    """What follows for a study from what is known of it now. Equal arguments give equal consequences."""
    return _Course(snapshot, policy, decide, assign, now).run()


class _Course:
    """The way of one look; `self.at` is the snapshot as it stands after what was found so far."""

    def __init__(self, snapshot: Snapshot, policy: Policy, decide: Decide, assign: Assign, now: datetime) -> None:
        self.at = snapshot
        self.policy = policy
        self.decide = decide
        self.assign = assign
        self.now = now
        self.judged = Judged(snapshot.images, snapshot.decisions, policy, assign)
        self.found = Consequences(judged=self.judged)

    def run(self) -> Consequences:
        # What is asked for while a run reads what it froze waits for its end, which is looked at again.
        answers = self.at.frozen is None
        self._withdraw_on_request()
        self._react()
        if answers and not self._withdrawal_due():
            self._apply_requests()
        self._route()
        self.found.ready = self._ready()
        self.found.judged = self.judged
        return self.found

    # ---------------------------------------------------------------------------------------------------- what the images say

    def _react(self) -> None:
        judged, state = self.judged, self.at.state
        changed = judged.selection_hash != (self.at.selection_hash or digest("selection"))
        news = bool(judged.eligible) and (changed or self._mended())
        emptied = not judged.eligible and bool(judged.chosen(Disposition.REJECTED)) and (changed or bool(self.at.current_uids))
        said_something = self.at.current_uids is not None or state is not StudyState.COLLECTING
        if changed and self.at.frozen is None and not self._withdrawal_due():
            # A run in progress reports what it froze: the difference stays news until that run is saved.
            self._change(selection_hash=judged.selection_hash)

        if state is StudyState.WITHDRAWN:
            if news and self.at.frozen is None and not self._withdrawal_due():
                # Never analysed again without a person (what was withdrawn may have been another patient), but never silently either.
                self._change(state_reason="new images came after it was withdrawn: look at them, then `fourview reprocess`")
                self._say("withdrawn", "new images came; they are not read unless a person asks to reprocess")
        elif void := self._voided():
            self._withdraw(void)
        elif (doubts := self._doubts(judged)) and not self._ruled_out():
            self._hold(doubts)
        elif emptied and said_something:
            # Before the first selection a rejected image is merely no candidate: its retake may still come.
            self._withdraw("every image that filled a slot was rejected")
        elif news and state in _REOPENED:
            self._move(Event.ELIGIBLE_IMAGE, "the images changed", revision=self.at.revision + 1, collecting_since=self.now)
            self._collect()
        elif state is StudyState.COLLECTING:
            self._collect()
        elif self.at.rule_action == "analyse":
            # A copy that came after the selection was frozen: only its pixels tell whether it is one.
            self._want(judged.chosen(Disposition.COPY, Disposition.CANDIDATE))
        if self.at.state is StudyState.HELD and self.at.doubted and not self._doubts(judged):
            self._change(doubts=[], state_reason="what was doubtful is gone: look at it, then `fourview release`")
            self._say("held", "what was doubtful is gone")
        if any(uid in judged.rejections for uid in self.at.current_uids or ()):
            # What was sent stands until a new version follows it; what was not is not sent any more.
            self.found.cancel = self.found.cancel or "an image that it was made from was rejected before it was sent"

    def _mended(self) -> bool:
        """Whether a file came, after the result, of an image that could not be read before."""
        failed = {one.sop_instance_uid for one in self.at.images if one.failure}
        unread = (one for one in self.judged.chosen(Disposition.CANDIDATE) if not one.reading)
        return self.at.frozen is None and self.at.rule_action == "analyse" and any(one.sop_instance_uid in failed for one in unread)

    def _ruled_out(self) -> bool:
        """Whether the rules want nothing of this study: then nobody needs to settle its doubts."""
        if self.at.state not in (StudyState.COLLECTING, StudyState.IGNORED):
            return False
        ruling = self._rule()
        return ruling is not None and ruling.action == "ignore"

    def _voided(self) -> str:
        """Why what was said, or is about to be said, is void: an image that it was made from is of the wrong order, or unsafe."""
        about = {self.judged.by_id[one].sop_instance_uid for one in self.at.frozen or ()}
        for uid in sorted(about.union(self.at.current_uids or ())):
            rejection = self.judged.rejections.get(uid)
            if rejection is not None and rejection.title in VOIDING:
                return f"image {uid}, which the result was made from, was rejected: {rejection.reason}"
        return ""

    def _doubts(self, judged: Judged) -> tuple[Doubt, ...]:
        """What the images leave doubtful, and what a destination said."""
        disputed = [Doubt(self.at.disputed, ("--accept-patient", "--patient-from-pacs"))] if self.at.disputed else []
        return (*judged.doubts, *disputed)

    def _hold(self, doubts: Sequence[Doubt]) -> None:
        reason = "; ".join(doubt.reason for doubt in doubts)
        stored = [{"reason": doubt.reason, "choices": list(doubt.choices)} for doubt in doubts]
        if self.at.state is not StudyState.HELD:
            self._move(Event.DOUBT, reason, doubts=stored)
        elif reason != self.at.state_reason:
            self._change(state_reason=reason, doubts=stored)
            self._say("held", reason)

    def _withdraw(self, reason: str) -> None:
        self._move(Event.REJECTED, reason)
        self.found.cancel = f"the study was withdrawn before it was sent ({reason})"

    def _withdrawal_due(self) -> bool:
        """Whether what was said of a withdrawn study is still to be replaced by a version that says WITHDRAWN."""
        return self.at.state is StudyState.WITHDRAWN and self.at.current_uids is not None and not self.at.withdrawn

    # --------------------------------------------------------------------------------------------------------------- routing

    def _route(self) -> None:
        new = to_route(self.at.images, self.at.state)
        routed = route(new, self.at.images, self._ruling(), self.at.state, self.policy.ae_titles) if new else None
        if routed is not None:
            self.found.routed = routed
            self.found.lines += routed.lines

    # ------------------------------------------------------------------------------------------------------------- collecting

    def _collect(self) -> None:
        judged = self.judged
        ruling = self._rule()
        step = due_step(
            Collected(
                election=judged.election,
                last_eligible_at=max((one.received_at for one in judged.eligible), default=None),
                last_instance_at=self.at.last_instance_at,
                collecting_since=self.at.collecting_since,
                ruling=ruling,
                sides_seen=judged.sides_seen,
                versions_today=self.at.versions_today,
            ),
            self.policy,
            self.now,
        )
        if ruling is not None and ruling.action == "analyse":
            self._want(judged.chosen(Disposition.CANDIDATE, Disposition.COPY))
        if step.event is None:
            self._change(due_at=step.due_at, state_reason=step.reason)
        elif step.event is Event.DUE_ANALYSE:
            self._freeze(step.event, step.reason, by_request=False)
        else:
            self._move(step.event, step.reason)

    def _rule(self, *, released: bool = False, card: str = "") -> Ruling | None:
        """What the rules say, written down; None when no header could be read. `released`: a person overrules a rule that holds. `card`: a
        person names another model card."""
        ruling = self._ruling(released=released)
        if ruling is not None:
            self._change(
                rule_name=ruling.rule_name,
                rule_hash=ruling.rule_hash,
                rule_action=str(ruling.action),
                rule_reason=ruling.reason,
                rule_values=dict(ruling.values),
                rule_send_to=list(ruling.send_to),
                rule_forward_to=list(ruling.forward_to),
                rule_slots=[str(view) for view in ruling.slots],
                card=card or ruling.card,
                rule_priority=ruling.priority,
            )
        return ruling

    def _ruling(self, *, released: bool = False) -> Ruling | None:
        """What the rules say, and people who overrule them.

        A study that a person has sent is no longer ignored, or what comes later would leave a result in the PACS that no longer holds.
        A rule that holds it still does: then a person is asked again. Where the rule sends it, it goes too: what a person names is added,
        or the place that a rule promises a result would never get one.
        """
        ruling = self.decide(self.judged) if self.judged.looked_at else None
        if ruling is None:
            return None
        sent_to = self.at.decisions.send_to
        overruled = {"hold": RELEASED if released else "", "ignore": SENT if sent_to else ""}
        why = overruled.get(str(ruling.action), "")
        if not (why or sent_to):
            return ruling
        return Overruled.of(ruling, send_to=tuple(dict.fromkeys((*ruling.send_to, *sent_to))), why=why)

    def _freeze(self, event: Event, reason: str, *, by_request: bool) -> None:
        eligible = self.judged.eligible
        self._want([*eligible, *self.judged.chosen(Disposition.COPY)])
        frozen = tuple(one.instance_id for one in eligible)
        self._move(
            event,
            reason,
            frozen_instances=list(frozen),
            # A header that nobody has read yet raised the generation already.
            frozen_generation=self.at.generation - bool(self.judged.chosen(Disposition.RECEIVED)),
            frozen_by_request=by_request,
        )
        self.at = replace(self.at, frozen=frozen)

    def _want(self, images: Sequence[Image]) -> None:
        for one in images:
            if not one.kept and self.judged.dispositions[one.instance_id][0] is Disposition.COPY:
                continue  # its pixels are gone, and another copy stands for the image
            if not one.reading and one.instance_id not in self.found.wanted:
                self.found.wanted.append(one.instance_id)

    # --------------------------------------------------------------------------------------------------------------- requests

    def _withdraw_on_request(self) -> None:
        """A withdrawal waits for nothing, not for a run in progress either: what that saves is not sent. What was asked before is void."""
        for number, request in enumerate(self.at.requests):
            if request.kind is not RequestKind.WITHDRAW:
                continue
            for earlier in self.at.requests[:number]:
                if earlier.request_id not in self.found.answers:
                    self._answer(earlier, Answer(accepted=False, text="refused: the study was withdrawn after this was asked"))
            if self.at.state is StudyState.WITHDRAWN:
                self._answer(request, Answer(accepted=True, text="it is withdrawn already"))
            else:
                self._withdraw("withdrawn by an operator")  # who and why stands on the timeline, and goes into no result
                self._answer(request, Answer(accepted=True, text="accepted"))

    def _apply_requests(self) -> None:
        for request in self.at.requests:
            if request.request_id in self.found.answers:
                continue
            if request.kind is RequestKind.SEND:
                self._answer(request, self._send(request))
            elif request.kind is RequestKind.CORRECT:
                self._answer(request, self._correct())
            elif self.at.frozen is not None:
                # This look froze a selection before it came to this: it waits for the end of that run, like what is asked for meanwhile.
                self._change(frozen_generation=self.at.generation - 1)
            elif request.kind is RequestKind.REPROCESS:
                self._answer(request, self._reprocess(request))
            else:
                self._answer(request, self._release(request))

    def _answer(self, request: Request, answer: Answer) -> None:
        self.found.answers[request.request_id] = answer
        self._say(request.kind, answer.text)

    def _reprocess(self, request: Request) -> Answer:
        if doubts := self._doubts(self.judged):
            return Answer(accepted=False, text=f"refused: {listed(doubts)}")
        # What a person has sent is said anew where it was sent, though a rule holds it: the person who asks has seen it.
        return self._go_on("a person asked to reprocess", released=bool(self.at.decisions.send_to), card=request.card)

    def _send(self, request: Request) -> Answer:
        if doubts := self._doubts(self.judged):
            return Answer(accepted=False, text=f"refused: {listed(doubts)}")
        ruling = self._ruling()
        to = request.send_to or (ruling.send_to if ruling is not None else ()) or request.otherwise
        if not to:
            return Answer(accepted=False, text="refused: nothing says where to send it; name a [[pacs]]")
        before, decisions = self.at, Decisions(send_to=to)
        self.at = replace(self.at, decisions=self.at.decisions.then(decisions))
        if self.at.frozen is not None:
            # It was asked for at the same time as to be read: what is read goes there.
            self._rule(released=True, card=self.found.changes.get("card", ""))
            return Answer(accepted=True, text="accepted", decisions=decisions)
        answer = self._go_on(f"a person sends it to {', '.join(to)}", released=True)
        if not answer.accepted:
            self.at = before
            return answer
        return replace(answer, decisions=decisions)

    def _correct(self) -> Answer:
        """A destination has corrected the patient: what was said is said again under the corrected values, by the scores that there are."""
        if self.at.state is StudyState.ANALYSED and self.at.versions_today >= self.policy.versions_per_day:
            self._move(Event.DOUBT, f"{self.at.versions_today} versions within 24 hours, the last for a corrected patient: a loop")
        elif self.at.state is StudyState.ANALYSED and self.judged.eligible and not self.at.disputed:
            self._freeze(Event.REQUEST, "the patient was corrected at a destination", by_request=False)
        # In any other state the next version, if there is one, takes the corrected values by itself.
        return Answer(accepted=True, text="accepted")

    def _release(self, request: Request) -> Answer:
        asked, state = request.release, self.at.state
        if not str(asked) and state not in (StudyState.HELD, StudyState.INCOMPLETE):
            return Answer(
                accepted=False, text=f"refused: it is {state}, so there is nothing to release; `fourview reprocess` reads it again"
            )
        decisions, complaint = self._decided(asked)
        if complaint:
            return Answer(accepted=False, text=f"refused: {complaint}")
        trial = Judged(self.at.images, self.at.decisions.then(decisions), self.policy, self.assign)
        for uid in asked.view:
            fates = [trial.dispositions[one.instance_id] for one in trial.images if one.sop_instance_uid == uid]
            if all(what in (Disposition.SET_ASIDE, Disposition.REJECTED) for what, _ in fates):
                out = fates[0][1]
                return Answer(accepted=False, text=f"refused: image {uid} cannot fill a slot: {out}")
        disputed, how = self.at.disputed, "pacs" if asked.patient_from_pacs else "images" if asked.accept_patient else ""
        if asked.patient_from_pacs and not disputed:
            return Answer(accepted=False, text="refused: no destination names another patient")
        if how:
            self.at = replace(self.at, disputed="")
        if doubts := self._doubts(trial):
            self.at = replace(self.at, disputed=disputed)
            return Answer(accepted=False, text=f"refused, this is still doubtful: {listed(doubts)}")
        before, self.judged = self.judged, trial
        answer = self._go_on("a person released it" + (f": {asked}" if str(asked) else ""), released=True)
        if not answer.accepted:
            self.judged = before
            self.at = replace(self.at, disputed=disputed)
            return answer
        self.found.settled = how if disputed else ""
        self.at = replace(self.at, decisions=trial.decisions)
        return replace(answer, decisions=decisions)

    def _decided(self, asked: Release) -> tuple[Decisions, str]:
        """What a release decides for good, or why it cannot be taken."""
        no_images = (Disposition.RECEIVED, Disposition.KEY_OBJECT)
        images = [one for one in self.at.images if self.judged.dispositions[one.instance_id][0] not in no_images]
        known = {one.sop_instance_uid for one in images}
        named = (*asked.exclude, *asked.view, *([asked.patient_of] if asked.patient_of else []))
        if unknown := [uid for uid in named if uid not in known]:
            return Decisions(), f"no image {unknown[0]} in this study; `fourview show` lists its images"
        if both := sorted(set(asked.exclude) & asked.view.keys()):
            return Decisions(), f"image {both[0]} is excluded and given a view at once; say one of the two"
        if asked.patient_of and asked.patient_of in asked.exclude:
            return Decisions(), f"image {asked.patient_of} is excluded, so it cannot say whose the others are; name another"
        dropped: set[int] = set()
        for number in asked.use_file:
            chosen = next((one for one in images if one.instance_id == number), None)
            if chosen is None:
                return Decisions(), f"no file {number} in this study; `fourview show` numbers them"
            if not chosen.kept and not chosen.settled:
                return Decisions(), f"the pixels of file {number} are no longer kept; `fourview reprocess --from-orthanc` fetches them"
            same = {one.instance_id for one in images if one.sop_instance_uid == chosen.sop_instance_uid}
            dropped |= same - {number}
        if crossed := sorted(set(asked.use_file) & dropped):
            return Decisions(), f"file {crossed[0]} is of an image for which another file is named too; name one"
        patients: tuple[Patient, ...] = ()
        patient_of: int | None = None
        if asked.accept_patient or asked.patient_of:
            left = [one for one in self.judged.newest.values() if one.sop_instance_uid not in asked.exclude]
            source = (
                self.judged.newest.get(asked.patient_of) if asked.patient_of else max(left, key=lambda one: one.instance_id, default=None)
            )
            if source is None:
                return Decisions(), "no image that fills a slot is left whose patient could be accepted"
            if not asked.patient_of and any(one.patient.differs(source.patient) for one in left):
                uids = " or ".join(f"--patient-of {one.sop_instance_uid}" for one in left)
                return Decisions(), f"the images still name different patients: say which of them is right with {uids}"
            patients = tuple(dict.fromkeys(one.patient for one in self.judged.standing if one.sop_instance_uid not in asked.exclude))
            patient_of = source.instance_id
        decisions = Decisions(
            excluded=frozenset(asked.exclude),
            assigned=dict(asked.view),
            chosen_files=frozenset(asked.use_file),
            dropped_files=frozenset(dropped),
            patients=patients,
            patient_of=patient_of,
        )
        return decisions, ""

    def _go_on(self, reason: str, *, released: bool = False, card: str = "") -> Answer:
        eligible = self.judged.eligible
        if not eligible:
            return Answer(accepted=False, text="refused: no image of this study fills one of the four views")
        # A person's request tries again what failed: the cause may be gone (another decoder, a mended disk).
        self.found.again = [one.instance_id for one in self.judged.chosen(Disposition.FAILED)]
        self._rule(released=released, card=card)
        if self.at.state is StudyState.HELD:
            # What was not sent before the doubt is not sent after it; if it still stands, the run puts it back into the outbox.
            self.found.cancel = "it was held before it was sent"
        self._change(selection_hash=self.judged.selection_hash)
        self._freeze(Event.REQUEST, reason, by_request=True)
        return Answer(accepted=True, text="accepted")

    # --------------------------------------------------------------------------------------------------------------- the run

    def _ready(self) -> bool:
        if self.at.frozen is None:
            if self._withdrawal_due():
                self._change(due_at=self._stalled_at())
                return True
            if self.at.state is not StudyState.COLLECTING:
                self._change(due_at=None)  # only a collecting study waits for a time
            return False
        self._change(due_at=self._stalled_at())
        frozen = self.at.frozen
        uids = {self.judged.by_id[one].sop_instance_uid for one in frozen}
        copies = [one for one in self.judged.chosen(Disposition.COPY) if one.sop_instance_uid in uids and one.kept]
        waiting = [one for one in (*(self.judged.by_id[number] for number in frozen), *copies) if self._waits(one)]
        if not waiting and (better := tuple(self._instead_of(one) for one in frozen)) != frozen:
            # A copy that came after the freeze can be read where the frozen one could not.
            self._change(frozen_instances=list(better))
            self.at = replace(self.at, frozen=better)
            waiting = [one for one in (self.judged.by_id[number] for number in better) if self._waits(one)]
        # The model may have been changed since the freeze: then its scores are not even asked for yet.
        self._want(waiting)
        if waiting:
            # A score that is saved raises the generation by itself; so this is for what should never be, and may be rare.
            self._change(due_at=self.now + timedelta(seconds=UNREAD_SECONDS))
        return not waiting

    def _stalled_at(self) -> datetime:
        """Should the report's workflow vanish, the study is looked at again; a score that is saved raises the generation by itself."""
        return self.now + timedelta(seconds=STALLED_SECONDS)

    def _waits(self, one: Image) -> bool:
        return one.instance_id in self.found.again or not one.settled

    def _instead_of(self, frozen: int) -> int:
        """The image that now stands for a frozen one that failed; itself when there is none, or it did not fail."""
        one = self.judged.by_id[frozen]
        if not one.failure:
            return frozen
        other = self.judged.primaries.get(one.sop_instance_uid, frozen)
        return frozen if self.judged.by_id[other].failure else other

    # --------------------------------------------------------------------------------------------------------------- writing

    def _change(self, **values: Any) -> None:
        self.found.changes |= values

    def _say(self, text: str, reason: str = "") -> None:
        self.found.lines.append(f"{text}: {reason}" if reason else text)

    def _move(self, event: Event, reason: str, **values: Any) -> None:
        """Take the study through the state table. One that stays where it is keeps its reason."""
        before = self.at.state
        after = next_state(before, event)
        if after is before and event is not Event.ELIGIBLE_IMAGE:
            self._change(**values)
            self._say(event.value, reason)
        else:
            self._change(**{"state": after, "state_reason": reason, "due_at": None, "doubts": [], **values})
            self._say(after.value, reason)
        self.found.moves.append((before, after, event))
        self.at = replace(
            self.at,
            state=after,
            state_reason=reason,
            revision=values.get("revision", self.at.revision),
            collecting_since=values.get("collecting_since", self.at.collecting_since),
        )


def missing_views(election: Election, expected: Sequence[View], named: Sequence[View]) -> tuple[View, ...]:
    """The slots that stay empty, of those that the study was expected to fill, in hanging order."""
    wanted = standing_slots(election, expected)
    return tuple(view for view in HANGING_ORDER if view in wanted and view not in named)
