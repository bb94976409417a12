"""Studies without rows: files as senders have them, and a study that applies `store.grouping.advance` as the archive does.

`PureStudy` keeps the archive's rules of attention (what raises the generation, what waits for `due_at`), so that a study that nobody
would look at again is forgotten here too.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any

from stepped_store import POLICY, START, FixedRuling

from store.grouping import Answer, Consequences, Release, Request, RequestKind, Snapshot, advance, missing_views
from store.images import Decisions, Disposition, Image, Judged, Patient, Rejection, study_warnings, warnings_of
from store.study import (
    HANGING_ORDER,
    Event,
    ImageKind,
    Outcome,
    Policy,
    StudyState,
    View,
    ViewEvidence,
    digest,
    elect,
    next_state,
    outcome,
    run_id,
)
from store.view import Ranking, contradicted_by

PATIENT = Patient(patient_id="P1", patient_name="Doe^Jane", patient_birth_date="19700101")
OTHER_PATIENT = Patient(patient_id="P2", patient_name="Roe^Mary", patient_birth_date="19500505")

#: Patient Orientation (0020,0020) of correctly hung views, and of the other side.
_HUNG = {View.L_CC: ("A", "R"), View.R_CC: ("P", "L"), View.L_MLO: ("A", "FR"), View.R_MLO: ("P", "FL")}
_OTHER_SIDE = {view: _HUNG[View(f"{'R' if view.laterality == 'L' else 'L'}-{view.position}")] for view in View}


@dataclass(frozen=True, kw_only=True, repr=False)
class File:
    """One file as a sender has it: what its header says, what its pixels are, and whether they can be decoded."""

    name: str  # SOP Instance UID
    view: View | None = None
    syntax: str = ""  # another one is the same image in other bytes
    kind: ImageKind = ImageKind.FFDM
    set_aside: str = ""
    doubt: str = ""
    readable: bool = True  # its header
    wrong_side: bool = False  # orientation and pixels both speak against the stated side
    broken: bool = False  # its pixels
    lossy: bool = False
    pixels: str = ""  # what makes them different from the pixels that belong to `name`
    acquired_at: str = "20261120100000.000000"
    number: int = 1
    partial_view: str = "NO"
    implant: bool = False
    patient: Patient = PATIENT
    rejects: tuple[str, ...] = ()
    title: str = ""  # of a rejecting Key Object (CID 7010)

    def __repr__(self) -> str:
        told = (f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if getattr(self, one.name) != one.default)
        return f"File({', '.join(told)})"

    @property
    def file_hash(self) -> str:
        return digest(repr(self))

    @property
    def pixel_hash(self) -> str:
        return digest("pixels", self.name, self.pixels, self.syntax if self.lossy else "")

    @property
    def edge(self) -> str:
        """Where the breast lies in the pixels."""
        side = self.view.laterality if self.view else ""
        return {"L": "right", "R": "left"}.get(side, "") if self.wrong_side else {"L": "left", "R": "right"}.get(side, "")

    @property
    def evidence(self) -> ViewEvidence:
        """What the header says of side and projection."""
        told = self.view if not self.doubt and not self.set_aside else None
        return ViewEvidence(
            view=told,
            laterality=self.view.laterality if self.view else None,
            laterality_source="ImageLaterality" if self.view else "",
            view_position=self.view.position if self.view else None,
            view_source="ViewCodeSequence" if self.view else "",
            kind=self.kind,
            orientation=(_OTHER_SIDE if self.wrong_side else _HUNG)[self.view] if self.view else (),
            set_aside=self.set_aside or ("" if self.view or self.doubt else "it is no mammogram"),
            doubt=self.doubt,
        )

    def received(self, number: int, now: datetime) -> Image:
        """The row of its reception, before anybody read its header."""
        return Image(
            instance_id=number,
            sop_instance_uid=self.name,
            modality="KO" if self.title else "MG",
            file_hash=self.file_hash,
            patient=self.patient,
            received_at=now,
        )

    def resolved(self, image: Image) -> Image:
        """The row once its header was read."""
        return replace(
            image,
            evidence=self.evidence,
            readable=self.readable,
            demographics=digest(repr(self.patient)),
            ranking=Ranking(
                implant=self.implant,
                partial_view=self.partial_view,
                lossy=self.lossy,
                acquired_at=self.acquired_at,
                area=1000,
                number=self.number,
                acquisition_number=0,
            ),
            rejection=Rejection(title=self.title, sop_instance_uids=self.rejects, reason=f"rejected with {self.title}")
            if self.rejects
            else None,
        )


def exam(*views: View, prefix: str = "", **others: Any) -> list[File]:
    """These views, all four unless told."""
    return [File(name=f"{prefix}{view}", view=view, **others) for view in views or HANGING_ORDER]


def rejecting(*names: str, title: str = "113001") -> File:
    """A Key Object of IHE IOCM."""
    return File(name=f"KO {title} {' '.join(names)}", rejects=names, title=title)


@dataclass(frozen=True, kw_only=True)
class Version:
    """What a report of a study says, and whether it was sent."""

    outcome: Outcome
    run: str
    cause: str
    selection: tuple[tuple[View, str, str], ...]  # view, SOP Instance UID, pixel hash
    losers: tuple[tuple[View, str, int], ...]
    failed: tuple[str, ...]  # images that were to be read and could not be
    missing: tuple[View, ...]
    warnings: tuple[str, ...]
    sent: bool
    requested: bool
    created_at: datetime


@dataclass
class PureStudy:
    """A study's columns and receptions in memory, its workers one method call."""

    policy: Policy = POLICY
    ruling: FixedRuling = field(default_factory=FixedRuling)
    now: datetime = START
    twice: bool = False  # look twice at everything: equal arguments must give equal consequences

    def __post_init__(self) -> None:
        self.row: dict[str, Any] = {}
        self.images: list[Image] = []
        self.files: dict[int, File] = {}
        self.decisions = Decisions()
        self.requests: list[Request] = []
        self.answers: dict[int, Answer] = {}
        self.versions: list[Version] = []
        self.states: list[StudyState] = []
        self.claimed = False  # a report is ready: nobody looks until it is made
        self.looks = 0

    # ------------------------------------------------------------------------------------------------------------ receive

    def receive(self, *files: File) -> int:
        """Keep what is not here yet; how many files that were."""
        new = 0
        for file in files:
            if any(one.sop_instance_uid == file.name and one.file_hash == file.file_hash for one in self.images):
                continue
            if not self.row:
                self.row = {
                    "state": StudyState.COLLECTING,
                    "state_reason": "",
                    "revision": 1,
                    "generation": 0,
                    "settled_generation": 0,
                    "selection_hash": "",
                    "rule_action": "",
                    "rule_slots": None,
                    "collecting_since": self.now,
                    "due_at": None,
                    "doubts": [],
                    "frozen_instances": None,
                    "frozen_generation": 0,
                    "frozen_by_request": False,
                }
            number = len(self.images) + 1
            self.files[number] = file
            self.images.append(file.received(number, self.now))
            self.row["last_instance_at"] = self.now
            self.row["generation"] += 1
            new += 1
        return new

    def ask(self, kind: RequestKind | str, **release: Any) -> int:
        """A person's request; its number. `work` answers it."""
        number = len(self.answers) + len(self.requests) + 1
        self.requests.append(Request(request_id=number, kind=RequestKind(kind), person="Kim", release=Release(**release)))
        self.row["generation"] += 1
        return number

    def asked(self, kind: RequestKind | str, **release: Any) -> Answer:
        """A person's request, worked off."""
        number = self.ask(kind, **release)
        self.work()
        return self.answers[number]

    # --------------------------------------------------------------------------------------------------------------- work

    def step(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def needs_attention(self) -> bool:
        row = self.row
        return not self.claimed and (
            row["generation"] > row["settled_generation"] or (row["due_at"] is not None and row["due_at"] <= self.now)
        )

    @property
    def waiting(self) -> list[Image]:
        return [one for one in self.images if one.reading == "waiting"]

    def work(self, *, read: bool = True, report: bool = True, headers: bool = True) -> None:
        """Do what is to be done now. `headers=False`: a single look by a worker that read no header, as if they had come just after."""
        for _ in range(60):
            busy = False
            if self.needs_attention:
                busy = True
                self.look(headers=headers)
            if self.claimed and report:
                busy = True
                self.report()
            if read:
                for one in self.waiting:
                    busy = True
                    self.read(one.instance_id)
            if not busy or not headers:
                return
        raise AssertionError("the work never ends: the study is looked at again and again at one moment")

    def settle(self) -> None:
        """Work, and let the clock jump to whatever the study waits for, until it waits for nothing."""
        for _ in range(60):
            self.work()
            due = self.row["due_at"]
            if due is None:
                return
            self.now = max(self.now, due)
        raise AssertionError("something is awaited for ever")

    def snapshot(self) -> Snapshot:
        row = self.row
        current = self.versions[-1] if self.versions else None
        today = [one for one in self.versions if not one.requested and one.created_at > self.now - timedelta(hours=24)]
        withdrawn = current is not None and current.outcome is Outcome.WITHDRAWN
        said = frozenset() if current is None or withdrawn else frozenset(name for _, name, _ in current.selection)
        return Snapshot(
            state=row["state"],
            state_reason=row["state_reason"],
            revision=row["revision"],
            generation=row["generation"],
            selection_hash=row["selection_hash"],
            rule_action=row["rule_action"],
            collecting_since=row["collecting_since"],
            last_instance_at=row["last_instance_at"],
            images=tuple(self.images),
            decisions=self.decisions,
            requests=tuple(self.requests),
            doubted=bool(row["doubts"]),
            frozen=None if row["frozen_instances"] is None else tuple(row["frozen_instances"]),
            versions_today=len(today),
            current_uids=None if current is None else said,
            withdrawn=withdrawn,
        )

    def advanced(self, snapshot: Snapshot) -> Consequences:
        """What follows from `snapshot` now; nothing is written down."""
        return advance(snapshot, self.policy, lambda *_: self.ruling, self._assigned, self.now)

    def _assigned(self, instance_id: int, view: View) -> ViewEvidence:
        file = self.files[instance_id]
        if file.set_aside or not file.readable:
            return file.evidence
        return replace(
            file.evidence,
            view=view,
            laterality=view.laterality,
            laterality_source="operator",
            view_position=view.position,
            view_source="operator",
            doubt="",
        )

    def look(self, *, headers: bool = True) -> Consequences:
        """One look, written down as the archive does."""
        self.looks += 1
        if headers:
            self.images = [one if one.evidence else self.files[one.instance_id].resolved(one) for one in self.images]
        snapshot = self.snapshot()
        found = self.advanced(snapshot)
        if self.twice:
            assert told(self.advanced(snapshot)) == told(found), "equal arguments, other consequences"
        for before, after, event in found.moves:
            assert next_state(before, event) is after
            self.states.append(after)
        self.row |= found.changes
        for number in found.wanted:
            self._change(number, reading=self._image(number).reading or "waiting")
        for number in found.again:
            self._change(number, reading="waiting", failure="")
        for number, answer in found.answers.items():
            self.answers[number] = answer
            if answer.accepted:
                self.decisions = self.decisions.then(answer.decisions)
        self.requests = [one for one in self.requests if one.request_id not in found.answers]
        self.row["settled_generation"] = self.row["generation"] - any(one.evidence is None for one in self.images)
        self.claimed = found.ready
        return found

    def _image(self, number: int) -> Image:
        return self.images[number - 1]

    def _change(self, number: int, **values: Any) -> None:
        self.images[number - 1] = replace(self.images[number - 1], **values)

    def read(self, number: int) -> None:
        """What the policy's model does with an image that waits for it."""
        file = self.files[number]
        if file.broken:
            self._change(number, reading="failed", failure="its pixels are broken")
            self.row["generation"] += 1
            return
        evidence = self._image(number).evidence
        assert evidence is not None
        others = {one.pixel_hash for one in self.images if one.sop_instance_uid == file.name and one.pixel_hash is not None}
        self._change(number, reading="scored", pixel_hash=file.pixel_hash, breast_edge=file.edge)
        doubtful = len(contradicted_by(evidence, file.edge)) > 1 or bool(others - {file.pixel_hash})
        if doubtful or self.row["frozen_instances"] is not None:
            self.row["generation"] += 1

    # ------------------------------------------------------------------------------------------------------------- report

    def report(self) -> None:
        """What the workflow's last step does: a version, or nothing to say."""
        self.claimed = False
        row = self.row
        if row["frozen_instances"] is None:
            current = self.versions[-1]
            assert row["state"] is StudyState.WITHDRAWN and current.outcome is not Outcome.WITHDRAWN
            withdrawn = replace(current, outcome=Outcome.WITHDRAWN, cause="withdrawn", losers=(), warnings=(row["state_reason"],))
            self.versions.append(replace(withdrawn, sent=True, requested=False, created_at=self.now))
            row |= {"due_at": None, "generation": row["generation"] + 1}
            return
        version = self._version()
        if len(version.failed) == len(version.selection):
            self._finish(Event.NO_SCORES)
        elif self.versions and self.versions[-1].cause == version.cause:
            self._finish(Event.UNCHANGED)
        else:
            self.versions.append(version)
            self._finish(Event.VERSION_SAVED)

    def _version(self) -> Version:
        judged = self.judged
        chosen = [judged.by_id[number] for number in sorted(self.row["frozen_instances"])]
        assert all(one.settled for one in chosen), "reported before everything was read"
        election = elect([judged.candidate(one) for one in chosen if one.reading == "scored"], self.policy.image_kinds)
        fallen = elect([judged.candidate(one) for one in chosen if one.reading == "failed"], self.policy.image_kinds)
        read = [(view, winner) for view in HANGING_ORDER if (winner := election.winner(view) or fallen.winner(view)) is not None]
        slots = [(view, one.sop_instance_uid, self._image(one.instance_id).pixel_hash or "", view in election.filled) for view, one in read]
        run = run_id("study", slots, self.policy.model)
        expected = [View(view) for view in self.row["rule_slots"] or HANGING_ORDER]
        said = outcome(election, judged.sides_seen, expected)
        warnings = [*study_warnings(judged), *(f"{view}: {text}" for view, one in read for text in warnings_of(judged, one))]
        losers = tuple((one.view, one.sop_instance_uid, one.rule) for one in election.losers)
        patients = [repr(judged.newest[one.sop_instance_uid].patient) for _, one in read[:1] if one.sop_instance_uid in judged.newest]
        return Version(
            outcome=said,
            run=run,
            cause=digest("cause", run, said, repr(losers), *sorted(warnings), *patients),
            selection=tuple((view, name, pixel_hash) for view, name, pixel_hash, _ in slots),
            losers=losers,
            failed=tuple(one.sop_instance_uid for _, one in fallen.winners if one.evidence.view not in election.filled),
            missing=() if said is Outcome.UNILATERAL else missing_views(election, expected, [view for view, _ in read]),
            warnings=tuple(sorted(warnings)),
            sent=self.row["state"] is StudyState.ANALYSING,
            requested=self.row["frozen_by_request"],
            created_at=self.now,
        )

    def _finish(self, event: Event) -> None:
        row = self.row
        after = next_state(row["state"], event)
        if after is not row["state"]:
            row |= {"state": after, "state_reason": event.value, "doubts": []}
            self.states.append(after)
        settled = min(row["settled_generation"], row["frozen_generation"])
        row |= {"frozen_instances": None, "frozen_by_request": False, "due_at": None, "settled_generation": settled}

    # --------------------------------------------------------------------------------------------------------------- look

    @property
    def state(self) -> StudyState:
        return StudyState(self.row["state"])

    @property
    def judged(self) -> Judged:
        return Judged(self.images, self.decisions, self.policy, self._assigned)

    @property
    def current(self) -> Version | None:
        return self.versions[-1] if self.versions else None

    def unaccounted(self) -> list[str]:
        """Images that are neither in the election nor have a stated reason not to be; and why each matters."""
        judged = self.judged
        named = {one.sop_instance_uid for _, one in judged.election.winners} | {one.sop_instance_uid for one in judged.election.losers}
        standing = (Disposition.CANDIDATE, Disposition.FAILED, Disposition.DOUBT)
        found = []
        for one in judged.images:
            what, why = judged.dispositions[one.instance_id]
            copies = {
                judged.dispositions[other.instance_id][0] for other in judged.images if other.sop_instance_uid == one.sop_instance_uid
            }
            if what is Disposition.RECEIVED:
                if not self.needs_attention and not self.claimed:
                    found.append(f"{one.sop_instance_uid}: nobody will read its header")
            elif what is Disposition.CANDIDATE:
                if one.sop_instance_uid not in named:
                    found.append(f"{one.sop_instance_uid}: a candidate that neither wins nor loses")
            elif what is Disposition.COPY and not copies.intersection(standing):
                found.append(f"{one.sop_instance_uid}: a copy of an image that nothing stands for ({sorted(copies)})")
            elif not why:
                found.append(f"{one.sop_instance_uid}: {what} without a reason")
        if self.state is StudyState.ANALYSED and self.current is not None and not self.needs_attention:
            version = self.current
            unread = [one.sop_instance_uid for one in judged.chosen(Disposition.CANDIDATE) if not one.settled]
            found += [f"{name}: a candidate that was never read stands beside a finished result" for name in unread]
            said = {name for _, name, _ in version.selection} | {name for _, name, _ in version.losers}
            found += [f"{name}: in the election, but not in the result" for name in sorted(named - said - self._passed_over(judged))]
        return found

    def _passed_over(self, judged: Judged) -> set[str]:
        """Images that could not be read while another fills their slot: `show` and a warning of the result say so."""
        return {one.sop_instance_uid for one in judged.chosen(Disposition.FAILED)}

    def forgotten(self) -> str:
        """Why nobody will look at this study again although it is not done; "" when all is well."""
        if self.state not in (StudyState.COLLECTING, StudyState.ANALYSING):
            return ""
        if self.claimed or self.needs_attention or self.waiting or self.row["due_at"] is not None:
            return ""
        return f"{self.state} with nothing that would wake it"

    @property
    def selection(self) -> dict[View, str]:
        """View -> SOP Instance UID of the current version."""
        return {view: name for view, name, _ in self.current.selection} if self.current else {}


def told(found: Consequences) -> tuple[Any, ...]:
    """Everything that follows, but for the judgement that it was taken from."""
    return (
        found.changes,
        found.lines,
        found.moves,
        found.wanted,
        found.again,
        found.cancel,
        found.answers,
        found.ready,
        found.judged.dispositions,
        found.judged.doubts,
        found.judged.election,
        found.judged.selection_hash,
    )


# ------------------------------------------------------------------------------------------------------------------------ a day


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A study of the day: what arrives how many seconds after its first image, and how it is meant to end."""

    oddity: str
    arrivals: tuple[tuple[float, tuple[File, ...]], ...]
    state: StudyState
    outcome: Outcome | None = None  # of the last version
    selection: tuple[str, ...] | None = None  # SOP Instance UIDs of the last version, as hung
    versions: int = 1


def _one_by_one(files: Sequence[File], chance: random.Random) -> tuple[tuple[float, tuple[File, ...]], ...]:
    """Every few seconds the next view, in any order."""
    order = list(files)
    chance.shuffle(order)
    times = [0.0]
    for _ in order[1:]:
        times.append(times[-1] + chance.choice((0.2, 2.0, 15.0, 40.0)))
    return tuple((time, (file,)) for time, file in zip(times, order, strict=True))


def _odd(oddity: str, chance: random.Random) -> Planned:
    """A study with something odd about it, and what shall come of it."""
    views = exam()
    names = [one.name for one in views]
    usual = _one_by_one(views, chance)
    retake = replace(views[0], name="retake", acquired_at="20261120100200.000000")
    with_retake = ("retake", *names[1:])
    match oddity:
        case "retake":
            return Planned(
                oddity=oddity,
                arrivals=(*usual, (usual[-1][0] + 50, (retake,))),
                state=StudyState.ANALYSED,
                outcome=Outcome.COMPLETE,
                selection=with_retake,
            )
        case "late retake":
            return Planned(
                oddity=oddity,
                arrivals=(*usual, (3600, (retake,))),
                state=StudyState.ANALYSED,
                outcome=Outcome.COMPLETE,
                selection=with_retake,
                versions=2,
            )
        case "late view":
            arrivals = (*_one_by_one(views[:3], chance), (3000.0, (views[3],)))
            return Planned(oddity=oddity, arrivals=arrivals, state=StudyState.ANALYSED, outcome=Outcome.COMPLETE, selection=tuple(names))
        case "missing view":
            return Planned(oddity=oddity, arrivals=_one_by_one(views[:3], chance), state=StudyState.INCOMPLETE, versions=0)
        case "unilateral":
            left = exam(View.L_CC, View.L_MLO)
            return Planned(
                oddity=oddity,
                arrivals=_one_by_one(left, chance),
                state=StudyState.ANALYSED,
                outcome=Outcome.UNILATERAL,
                selection=tuple(one.name for one in left),
            )
        case "wrong side":
            wrong = [replace(views[0], wrong_side=True), *views[1:]]
            return Planned(oddity=oddity, arrivals=_one_by_one(wrong, chance), state=StudyState.HELD, versions=0)
        case "contradictory side":
            contradictory = [replace(views[2], doubt="two sources name two sides"), *views[:2], views[3]]
            return Planned(oddity=oddity, arrivals=_one_by_one(contradictory, chance), state=StudyState.HELD, versions=0)
        case "two patients":
            mixed = [*views[:3], replace(views[3], patient=OTHER_PATIENT)]
            return Planned(oddity=oddity, arrivals=_one_by_one(mixed, chance), state=StudyState.HELD, versions=0)
        case "one rejected before":
            arrivals = ((0.0, (rejecting(names[0]),)), *((time + 1, files) for time, files in _one_by_one([*views, retake], chance)))
            return Planned(oddity=oddity, arrivals=arrivals, state=StudyState.ANALYSED, outcome=Outcome.COMPLETE, selection=with_retake)
        case "one rejected after":
            late = (*usual, (2000.0, (rejecting(names[0]), retake)))
            return Planned(
                oddity=oddity, arrivals=late, state=StudyState.ANALYSED, outcome=Outcome.COMPLETE, selection=with_retake, versions=2
            )
        case "all rejected":
            return Planned(
                oddity=oddity,
                arrivals=(*usual, (2000.0, (rejecting(*names),))),
                state=StudyState.WITHDRAWN,
                outcome=Outcome.WITHDRAWN,
                versions=2,
            )
        case "wrong worklist entry":
            ko = rejecting(names[1], title="113038")
            return Planned(
                oddity=oddity, arrivals=(*usual, (2000.0, (ko,))), state=StudyState.WITHDRAWN, outcome=Outcome.WITHDRAWN, versions=2
            )
        case "rejected before anything was said":
            return Planned(oddity=oddity, arrivals=(*usual, (usual[-1][0] + 5, (rejecting(*names),))), state=StudyState.IGNORED, versions=0)
        case "duplicates":
            twice = tuple((time, files * 2) for time, files in usual)
            return Planned(oddity=oddity, arrivals=twice, state=StudyState.ANALYSED, outcome=Outcome.COMPLETE, selection=tuple(names))
        case "everything again":
            again = tuple((7200.0 * (turn + 1), tuple(views)) for turn in range(3))
            return Planned(
                oddity=oddity, arrivals=(*usual, *again), state=StudyState.ANALYSED, outcome=Outcome.COMPLETE, selection=tuple(names)
            )
        case "everything again in another transfer syntax":
            other = tuple(replace(one, syntax="other") for one in views)
            return Planned(
                oddity=oddity,
                arrivals=(*usual, (7200.0, other)),
                state=StudyState.ANALYSED,
                outcome=Outcome.COMPLETE,
                selection=tuple(names),
            )
        case "other pixels under one UID":
            other_pixels = replace(views[2], pixels="other")
            return Planned(oddity=oddity, arrivals=(*usual, (3600.0, (other_pixels,))), state=StudyState.HELD, outcome=Outcome.COMPLETE)
        case "tomosynthesis combination":
            beside = [
                File(name=f"{kind} {view}", view=view, kind=kind, acquired_at="20261120101000.000000")
                for view in HANGING_ORDER
                for kind in (ImageKind.SYNTHETIC_2D, ImageKind.FOR_PROCESSING)
            ] + [File(name=f"tomo {view}", view=view, set_aside="tomosynthesis") for view in HANGING_ORDER]
            return Planned(
                oddity=oddity,
                arrivals=_one_by_one([*views, *beside], chance),
                state=StudyState.ANALYSED,
                outcome=Outcome.COMPLETE,
                selection=tuple(names),
            )
        case "nothing for us":
            ultrasound = [File(name=f"US {number}", set_aside="it is no mammogram") for number in range(3)]
            return Planned(oddity=oddity, arrivals=_one_by_one(ultrasound, chance), state=StudyState.IGNORED, versions=0)
        case "unreadable view":
            broken = [*views[:3], replace(views[3], broken=True)]
            return Planned(
                oddity=oddity,
                arrivals=_one_by_one(broken, chance),
                state=StudyState.ANALYSED,
                outcome=Outcome.PARTIAL,
                selection=tuple(names),
            )
        case "no readable view":
            broken = [replace(one, broken=True) for one in views]
            return Planned(oddity=oddity, arrivals=_one_by_one(broken, chance), state=StudyState.FAILED, versions=0)
        case "storm":
            # Retakes without end: each makes a version, and the sixth within a day is held.
            late = tuple(
                (1000.0 * number, (replace(retake, name=f"retake {number}", acquired_at=f"2026112011{number:02}00.000000"),))
                for number in range(1, 9)
            )
            return Planned(oddity=oddity, arrivals=(*usual, *late), state=StudyState.HELD, outcome=Outcome.COMPLETE, versions=5)
    raise AssertionError(oddity)


ODDITIES = (
    "retake",
    "late retake",
    "late view",
    "missing view",
    "unilateral",
    "wrong side",
    "contradictory side",
    "two patients",
    "one rejected before",
    "one rejected after",
    "all rejected",
    "wrong worklist entry",
    "rejected before anything was said",
    "duplicates",
    "everything again",
    "everything again in another transfer syntax",
    "other pixels under one UID",
    "tomosynthesis combination",
    "nothing for us",
    "unreadable view",
    "no readable view",
    "storm",
)


def planned_day(studies: int = 1000, *, odd: float = 0.05, seed: int = 1) -> list[Planned]:
    """A day of a large site: `odd` of the studies have an oddity, every kind of it at least once if there are enough of them."""
    chance = random.Random(seed)
    plans = []
    for number in range(studies):
        if number < studies * odd:
            plans.append(_odd(ODDITIES[number % len(ODDITIES)], chance))
        else:
            views = exam()
            names = tuple(one.name for one in views)
            arrivals = _one_by_one(views, chance)
            plans.append(Planned(oddity="", arrivals=arrivals, state=StudyState.ANALYSED, outcome=Outcome.COMPLETE, selection=names))
    chance.shuffle(plans)
    return plans


@dataclass
class Day:
    """All studies of a day under one stepped clock."""

    plans: Sequence[Planned]
    seed: int = 1
    studies: list[PureStudy] = field(default_factory=list)
    instances: int = 0

    def live(self) -> Day:
        """Let the day happen: whatever is next, of whichever study, until nothing is awaited any more."""
        chance = random.Random(self.seed)
        self.studies = [PureStudy() for _ in self.plans]
        agenda: list[tuple[datetime, int, tuple[File, ...]]] = []
        for number, plan in enumerate(self.plans):
            begin = START + timedelta(seconds=chance.uniform(0, 8 * 3600))
            agenda += [(begin + timedelta(seconds=after), number, files) for after, files in plan.arrivals]
        heapq.heapify(agenda)
        while agenda:
            now, number, files = heapq.heappop(agenda)
            study = self.studies[number]
            study.now = now
            self.instances += len(files)
            study.receive(*files)
            study.work()
            due = study.row["due_at"]
            if due is not None:
                heapq.heappush(agenda, (max(due, now), number, ()))
        return self

    @property
    def looks(self) -> int:
        return sum(study.looks for study in self.studies)

    def states(self) -> Counter[str]:
        """How many studies ended in which state."""
        return Counter(str(study.state) for study in self.studies)

    def intended(self) -> Counter[str]:
        """How many studies were meant to end in which state."""
        return Counter(str(plan.state) for plan in self.plans)

    def faults(self) -> Iterator[str]:
        """What did not end as it was meant to, and what nobody accounts for."""
        for plan, study in zip(self.plans, self.studies, strict=True):
            about = f"{plan.oddity or 'ordinary'}: "
            if study.state is not plan.state:
                yield f"{about}{study.state} ({study.row['state_reason']}), meant to be {plan.state}"
            if len(study.versions) != plan.versions:
                yield f"{about}{len(study.versions)} versions, meant to be {plan.versions}"
            said = study.current.outcome if study.current else None
            if said is not plan.outcome:
                yield f"{about}{said}, meant to be {plan.outcome}"
            if plan.selection is not None and tuple(study.selection.values()) != plan.selection:
                yield f"{about}selected {study.selection}, meant to be {plan.selection}"
            for lost in (*study.unaccounted(), study.forgotten()):
                if lost:
                    yield about + lost
