"""The study as Fourview sees it: views, slots, candidates, scores, states. Pure: no clock, no disk, no database.

View resolution follows PS3.16 CID 4014/4015 and PS3.3 C.8.11.7 (Digital Mammography X-Ray); see `resolve_view`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, Self

from store.dialect import STANDARD, Dialect
from store.pace import UNLIMITED, Pace


class View(StrEnum):
    """A slot of the standard screening exam: side and projection."""

    R_CC = "R-CC"
    L_CC = "L-CC"
    R_MLO = "R-MLO"
    L_MLO = "L-MLO"

    @property
    def laterality(self) -> str:
        """Image Laterality (0020,0062): "R" or "L"."""
        return self.value[0]

    @property
    def position(self) -> str:
        """View Position (0018,5101): "CC" or "MLO"."""
        return self.value[2:]


#: The order in which views are hung, listed, and in which patient and study attributes are copied.
HANGING_ORDER = (View.R_CC, View.L_CC, View.R_MLO, View.L_MLO)


#: The source of side and view that a person assigned, where else an attribute's keyword stands.
OPERATOR = "operator"


class ImageKind(StrEnum):
    """What an object of the mammography classes really is (PS3.3 C.8.11.7.1.4)."""

    FFDM = "FFDM"
    SYNTHETIC_2D = "synthetic 2D"
    CONTRAST_LOW_ENERGY = "contrast low energy"
    CONTRAST_OTHER = "contrast subtraction or high energy"
    CR = "computed radiography"
    TOMOSYNTHESIS = "tomosynthesis"
    STEREOTACTIC = "stereotactic or biopsy guidance"
    SPECIMEN = "specimen"
    PHANTOM = "phantom"
    FOR_PROCESSING = "for processing"  # raw: read only by a model that was trained on it
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """How much of the exam a version covers."""

    COMPLETE = "COMPLETE"
    PARTIAL = "PARTIAL"  # slots are missing or a view failed
    UNILATERAL = "UNILATERAL"  # one side complete, of the other there is no image at all
    WITHDRAWN = "WITHDRAWN"  # nothing is said any more: the version replaces what was said before


@dataclass(frozen=True, kw_only=True)
class ViewEvidence:
    """What an image says about its own side and projection, and from which attribute each answer was read.

    `view` is None when the image fills no slot; then exactly one of `set_aside` (not for us, changes nothing) and `doubt`
    (it would fill a slot, but contradicts itself: the study is held) says why, in words.
    """

    view: View | None
    laterality: str | None  # "L", "R", or None
    laterality_source: str  # the attribute's keyword, `OPERATOR` when a person assigned it, "" when none
    view_position: str | None  # label of CID 4014: "CC", "MLO", "ML", ...
    view_source: str
    kind: ImageKind
    modifiers: tuple[str, ...] = ()  # labels of CID 4015: "ID", "S", "M", ...
    orientation: tuple[str, ...] = ()  # Patient Orientation (0020,0020): row and column, () when absent
    conflicts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    set_aside: str = ""
    doubt: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Everything that, when changed, may change a score. `key` names it in the database."""

    name: str
    version: str
    weights_sha256: str
    profile: str  # "presentation" | "reference"
    engine: str  # "torch" | "simulated", as resolved for the installation
    classes: tuple[str, ...]  # in the order of the network's outputs
    options: tuple[tuple[str, str], ...] = ()  # sorted (name, value): what else changes scores
    trained: bool = True
    manufacturer: str = ""

    @property
    def key(self) -> str:
        """SHA-256 over every field except `manufacturer` and `trained`, as 64 hex digits."""
        parts = (
            "model",
            self.name,
            self.version,
            self.weights_sha256,
            self.profile,
            self.engine,
            *self.classes,
            *(f"{k}={v}" for k, v in self.options),
        )
        return digest(*parts)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one model said of one image. Uncalibrated softmax; `probabilities` lie in the order of `classes` and sum to 1."""

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    box: tuple[int, int, int, int]  # x_min, y_min, x_max, y_max of the crop the model saw, in image pixels, upper bounds exclusive
    rows: int
    columns: int
    warnings: tuple[str, ...] = ()

    @property
    def predicted_class(self) -> str:
        """The class with the highest probability; the first one on a tie."""
        return self.classes[self.probabilities.index(max(self.probabilities))]

    @property
    def probability(self) -> float:
        """The highest probability, 0...1."""
        return max(self.probabilities)


@dataclass(frozen=True, kw_only=True)
class Loser:
    """An image that would have filled a slot but was passed over: by which image, and the number of the rule that decided (see `elect`)."""

    view: View
    sop_instance_uid: str
    winner_sop_instance_uid: str
    rule: int
    reason: str  # the rule in words
    predicted_class: str = ""  # what this image scored highest for; "" when it was not scored


@dataclass(frozen=True, kw_only=True)
class Predecessor:
    """The result object of the same kind that a new version replaces."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Who writes the results: goes into every result object and into the cause of a version."""

    ae_title: str
    device_uid: str  # Device Observer UID, made once for a database
    serial_number: str  # Device Serial Number (0018,1000)
    software_version: str
    timezone: str = "UTC"  # IANA name: dates and times in result objects are local to it
    language: str = "en"  # of the fixed sentences in results: "en" | "ko"
    heat_map_on_page: bool = False  # beside the views


def digest(*parts: str) -> str:
    """SHA-256 over length-prefixed UTF-8 parts, as 64 hex digits: no two different lists of parts give the same input."""
    sha = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        sha.update(f"{len(encoded)}:".encode())
        sha.update(encoded)
    return sha.hexdigest()


# ------------------------------------------------------------------------------------------------------------------ election


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One image (one SOP Instance) that may fill a slot, with what the ranking rules look at."""

    instance_id: int  # the row that stands for it when the same image was received several times
    sop_instance_uid: str
    evidence: ViewEvidence
    implant: bool = False  # Breast Implant Present (0028,1300) is YES
    partial_view: str = ""  # Partial View (0028,1350): "NO", "", "YES"
    lossy: bool = False
    acquired_at: str = ""  # "YYYYMMDDHHMMSS.FFFFFF", "" when the header gives no time
    area: int = 0  # Rows x Columns
    acquisition_number: int = 0  # Acquisition Number (0020,0012)
    number: int = 0  # Instance Number (0020,0013)


@dataclass(frozen=True, kw_only=True)
class Election:
    """Who fills each slot, who lost and by which rule."""

    winners: tuple[tuple[View, Candidate], ...]  # in hanging order
    losers: tuple[Loser, ...]

    def winner(self, view: View) -> Candidate | None:
        """The image that fills `view`."""
        return dict(self.winners).get(view)

    @property
    def filled(self) -> tuple[View, ...]:
        """The filled slots in hanging order."""
        return tuple(view for view, _ in self.winners)

    @property
    def missing(self) -> tuple[View, ...]:
        """The empty slots of the standard exam in hanging order."""
        return tuple(view for view in HANGING_ORDER if view not in self.filled)


#: How the kinds rank against each other in one slot, best first.
_KIND_RANK = (
    ImageKind.FFDM,
    ImageKind.CR,
    ImageKind.CONTRAST_LOW_ENERGY,
    ImageKind.SYNTHETIC_2D,
    ImageKind.FOR_PROCESSING,
    ImageKind.UNKNOWN,
)
_FALLBACK_MODIFIERS = frozenset({"NP", "AC", "IMF"})


def _source_rank(source: str) -> int:
    return {OPERATOR: 3, "ViewCodeSequence": 2, "ViewPosition": 1}.get(source, 0)


def _rank(candidate: Candidate, implant_side: bool) -> tuple[tuple[int | str, ...], ...]:
    """One entry per rule 1...9 of `RANKING`; the greater entry wins."""
    displaced = "ID" in candidate.evidence.modifiers
    return (
        (int(not _FALLBACK_MODIFIERS.intersection(candidate.evidence.modifiers)),),
        (int(displaced == implant_side),),
        ({"NO": 2, "": 1}.get(candidate.partial_view, 0),),
        (-_KIND_RANK.index(candidate.evidence.kind),),
        (int(not candidate.lossy),),
        (_source_rank(candidate.evidence.view_source),),
        (candidate.acquired_at,),
        (candidate.area,),
        (candidate.acquisition_number, candidate.number),
    )


#: The ranking rules of one slot in order; the first difference decides. The number stands in every version and result.
RANKING = (
    "it has no fallback view modifier",
    "it suits the implant (displaced view with an implant, plain view without)",
    "it is not a partial view",
    "its kind ranks higher",
    "it is not lossy compressed",
    "its view is told by a stronger source",
    "it was acquired later",
    "it is larger",
    "its acquisition or instance number is higher",
    "its SOP Instance UID is lower",
)


def elect(candidates: Sequence[Candidate], image_kinds: Collection[ImageKind]) -> Election:
    """Fill each slot with the best image of an accepted kind. Pure and independent of the order of `candidates`."""
    usable = [one for one in candidates if one.evidence.view is not None and one.evidence.kind in image_kinds]
    implant_sides = {one.evidence.laterality for one in usable if one.implant}
    winners: list[tuple[View, Candidate]] = []
    losers: list[Loser] = []
    for view in HANGING_ORDER:
        implant = view.laterality in implant_sides
        slot = sorted((one for one in usable if one.evidence.view is view), key=lambda one: one.sop_instance_uid)
        slot.sort(key=lambda one: _rank(one, implant), reverse=True)  # stable: the lowest UID stays first on a tie
        if not slot:
            continue
        winner, *others = slot
        winners.append((view, winner))
        for other in others:
            differing = (
                number for number, (a, b) in enumerate(zip(_rank(winner, implant), _rank(other, implant), strict=True), start=1) if a != b
            )
            rule = next(differing, len(RANKING))
            losers.append(
                Loser(
                    view=view,
                    sop_instance_uid=other.sop_instance_uid,
                    winner_sop_instance_uid=winner.sop_instance_uid,
                    rule=rule,
                    reason=RANKING[rule - 1],
                )
            )
    return Election(winners=tuple(winners), losers=tuple(losers))


# -------------------------------------------------------------------------------------------------------------------- states


class StudyState(StrEnum):
    """Where a study stands."""

    COLLECTING = "collecting"  # waits for its slots, for a retake, or for the ceiling
    ANALYSING = "analysing"  # a selection is frozen and on its way to a version
    ANALYSED = "analysed"  # its current version stands
    INCOMPLETE = "incomplete"  # the ceiling passed without the four views; scores are shown, nothing is sent
    HELD = "held"  # a person must decide
    IGNORED = "ignored"  # no rule wants it, or nothing in it fills a slot
    FAILED = "failed"  # no view could be read
    WITHDRAWN = "withdrawn"  # its images were rejected; nothing is said any more


class Event(StrEnum):
    """What moves a study from one state to the next."""

    ELIGIBLE_IMAGE = "eligible image"  # or a rejection that changes the selection
    DUE_ANALYSE = "due: analyse"
    DUE_HOLD = "due: hold"
    DUE_IGNORE = "due: ignore"
    DUE_INCOMPLETE = "due: incomplete"
    UNCHANGED = "cause unchanged"
    VERSION_SAVED = "version saved"
    NO_SCORES = "no view has scores"
    DOUBT = "doubt"
    REJECTED = "selection emptied by rejection"
    REQUEST = "a person's request"


_S, _E = StudyState, Event
#: (state, event) -> next state. A pair that is absent cannot happen; `next_state` raises.
TRANSITIONS: dict[tuple[StudyState, Event], StudyState] = {
    (_S.COLLECTING, _E.ELIGIBLE_IMAGE): _S.COLLECTING,
    (_S.COLLECTING, _E.DUE_ANALYSE): _S.ANALYSING,
    (_S.COLLECTING, _E.DUE_HOLD): _S.HELD,
    (_S.COLLECTING, _E.DUE_IGNORE): _S.IGNORED,
    (_S.COLLECTING, _E.DUE_INCOMPLETE): _S.INCOMPLETE,
    (_S.ANALYSING, _E.UNCHANGED): _S.ANALYSED,
    (_S.ANALYSING, _E.VERSION_SAVED): _S.ANALYSED,
    (_S.ANALYSING, _E.NO_SCORES): _S.FAILED,
    (_S.ANALYSED, _E.ELIGIBLE_IMAGE): _S.COLLECTING,
    (_S.INCOMPLETE, _E.ELIGIBLE_IMAGE): _S.COLLECTING,
    (_S.IGNORED, _E.ELIGIBLE_IMAGE): _S.COLLECTING,
    (_S.FAILED, _E.ELIGIBLE_IMAGE): _S.COLLECTING,
    (_S.HELD, _E.ELIGIBLE_IMAGE): _S.HELD,
    # A run in progress when the study was held or withdrawn is saved, but creates no deliveries.
    (_S.HELD, _E.VERSION_SAVED): _S.HELD,
    (_S.HELD, _E.UNCHANGED): _S.HELD,
    (_S.HELD, _E.NO_SCORES): _S.HELD,
    (_S.WITHDRAWN, _E.ELIGIBLE_IMAGE): _S.WITHDRAWN,
    (_S.WITHDRAWN, _E.VERSION_SAVED): _S.WITHDRAWN,
    (_S.WITHDRAWN, _E.UNCHANGED): _S.WITHDRAWN,
    (_S.WITHDRAWN, _E.NO_SCORES): _S.WITHDRAWN,
    **{(state, _E.DOUBT): _S.HELD for state in _S if state is not _S.WITHDRAWN},
    **{(state, _E.REJECTED): _S.WITHDRAWN for state in _S},
    **{(state, _E.REQUEST): _S.ANALYSING for state in _S if state is not _S.ANALYSING},
}


def next_state(state: StudyState, event: Event) -> StudyState:
    """The state after `event`. Raises ValueError for a pair that cannot happen: a fault of ours, never of the input."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"a study that is {state} cannot meet the event {event!r}") from None


class WhenIncomplete(StrEnum):
    """What happens at the ceiling when slots are still empty."""

    HOLD = "hold"
    ANALYSE = "analyse"
    IGNORE = "ignore"


class Routing(StrEnum):
    """When images may go where a ruling forwards them."""

    AT_ONCE = "at once"
    COLLECTED = "collected"  # its rules ask what a later image may change: when the study is no longer collecting
    RELEASED = "released"  # which rule holds is not known: when a person has let the study go on


class Ruling(Protocol):
    """What the routing rules say of a study; `pipeline.rules.Decision` is one."""

    @property
    def action(self) -> str: ...  # "analyse" | "hold" | "ignore"
    @property
    def rule_name(self) -> str: ...  # "" when no rule matched
    @property
    def rule_hash(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def send_to(self) -> tuple[str, ...]: ...
    @property
    def values(self) -> Mapping[str, object]: ...
    @property
    def slots(self) -> tuple[View, ...]: ...  # the expected views, in hanging order
    @property
    def when_incomplete(self) -> WhenIncomplete | None: ...  # None: what the site says
    @property
    def card(self) -> str: ...  # path of the model card that reads the study; "" for the site's
    @property
    def priority(self) -> int: ...  # of its images: 1 first ... 9 last
    @property
    def forward_to(self) -> tuple[str, ...]: ...  # where the images themselves go
    @property
    def routing(self) -> Routing: ...  # and when


#: Why a ruling is not what the rules said, at the end of its reason.
RELEASED, SENT = "a person released it", "a person sends it"


@dataclass(frozen=True, kw_only=True)
class Overruled:
    """A ruling as a person has overruled it; the fields are those of `Ruling`."""

    action: str
    rule_name: str
    rule_hash: str
    reason: str
    send_to: tuple[str, ...]
    values: Mapping[str, object]
    slots: tuple[View, ...]
    when_incomplete: WhenIncomplete | None
    card: str
    priority: int
    forward_to: tuple[str, ...]
    routing: Routing

    @classmethod
    def of(cls, ruling: Ruling, *, send_to: tuple[str, ...], why: str) -> Self:
        """Analysed all the same and sent there; `why` "" leaves action and reason as they are."""
        kept = {name.name: getattr(ruling, name.name) for name in fields(cls)}
        kept |= {"action": "analyse", "reason": f"{ruling.reason}; {why}"} if why else {"action": str(ruling.action)}
        return cls(**{**kept, "send_to": send_to})


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a site wants its studies treated; from the configuration and the model card."""

    wait_for_retake_seconds: float
    give_up_after_seconds: float
    when_incomplete: WhenIncomplete
    model: ModelIdentity
    image_kinds: frozenset[ImageKind] = frozenset({ImageKind.FFDM})
    exclude_implants: bool = False
    card: str = ""  # path of the card that `model` and the two lines above are from; "" for the site's
    cards: Mapping[str, Policy] = field(default_factory=dict)  # by path: how studies are treated that another card reads
    dialect: Dialect = STANDARD
    pace: Pace = UNLIMITED
    versions_per_day: int = 5  # more within 24 h are held: a loop or a storm
    ae_titles: Mapping[str, str] = field(default_factory=dict)  # of the destinations, by name: no image goes back to its sender

    def of(self, card: str) -> Policy:
        """The policy for a study that `card` reads; whatever `cards` raises when there is no such card."""
        return self.cards[card] if card else self


#: However late images still trickle in, a collecting study is decided after this long.
LONGEST_COLLECTING = timedelta(hours=4)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A collecting study at one moment: everything that `due_step` looks at."""

    election: Election
    last_eligible_at: datetime | None
    last_instance_at: datetime
    collecting_since: datetime
    ruling: Ruling | None  # None: no header could be read, so there is nothing to rule on
    sides_seen: frozenset[str]  # every side of which any image arrived, whatever became of it
    versions_today: int = 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do with a collecting study: an event now, or nothing before `due_at`."""

    event: Event | None
    due_at: datetime | None
    reason: str  # in words: why now, or what is awaited


def standing_slots(election: Election, expected: Collection[View]) -> tuple[View, ...]:
    """The slots that a study must fill, in hanging order: the expected ones, and both of any side of which an image came after all."""
    sides = {view.laterality for view in election.filled}
    return tuple(view for view in HANGING_ORDER if view in expected or view.laterality in sides)


def outcome(election: Election, sides_seen: Collection[str], expected: Collection[View] = HANGING_ORDER) -> Outcome:
    """COMPLETE, UNILATERAL, or PARTIAL, by the slots that could be read.

    UNILATERAL: one side is whole, and the other was not expected (then nothing of it fills a slot) or not a single image of it came.
    """
    if not election.missing:
        return Outcome.COMPLETE
    sides = {view.laterality for view in election.filled}
    one_side = len(sides) == 1 and len(election.filled) == 2
    wanted = {view.laterality for view in expected}
    if one_side and (wanted == sides or (len(wanted) == 2 and set(sides_seen) <= sides)):
        return Outcome.UNILATERAL
    return Outcome.PARTIAL


def due_step(collected: Collected, policy: Policy, now: datetime) -> Step:
    """Decide a collecting study by its content; silence is only the ceiling. Pure: `now` is an argument."""
    election = collected.election
    ceiling = min(
        collected.last_instance_at + timedelta(seconds=policy.give_up_after_seconds),
        max(collected.collecting_since + LONGEST_COLLECTING, collected.last_instance_at),
    )
    ruling = collected.ruling
    expected = ruling.slots if ruling is not None else HANGING_ORDER
    slots = standing_slots(election, expected)
    missing = ", ".join(view for view in slots if view not in election.filled)
    here = "all four views are here" if slots == HANGING_ORDER else f"{' and '.join(slots)} are here, and the rule expects no others"
    if not missing and collected.last_eligible_at is not None:
        due_at = min(collected.last_eligible_at + timedelta(seconds=policy.wait_for_retake_seconds), ceiling)
        awaited = f"{here}; waiting for a possible retake"
    else:
        due_at = ceiling
        awaited = f"waiting for {missing}"
    if now < due_at:
        return Step(event=None, due_at=due_at, reason=awaited)
    if ruling is None or not election.filled:
        return Step(event=Event.DUE_IGNORE, due_at=None, reason="no image of this study fills one of the four views")
    if ruling.action != "analyse":
        event = Event.DUE_HOLD if ruling.action == "hold" else Event.DUE_IGNORE
        return Step(event=event, due_at=None, reason=ruling.reason)
    if collected.versions_today >= policy.versions_per_day:
        reason = f"{collected.versions_today} versions within 24 hours: a loop or a storm; reprocess the study when its cause is found"
        return Step(event=Event.DOUBT, due_at=None, reason=reason)
    if not missing:
        return Step(event=Event.DUE_ANALYSE, due_at=None, reason=here)
    if outcome(election, collected.sides_seen, expected) is Outcome.UNILATERAL:
        return Step(event=Event.DUE_ANALYSE, due_at=None, reason=f"one side is complete and nothing came of the other (no {missing})")
    event = {
        WhenIncomplete.HOLD: Event.DUE_INCOMPLETE,
        WhenIncomplete.ANALYSE: Event.DUE_ANALYSE,
        WhenIncomplete.IGNORE: Event.DUE_IGNORE,
    }[ruling.when_incomplete or policy.when_incomplete]
    return Step(event=event, due_at=None, reason=f"gave up waiting for {missing}")


# ---------------------------------------------------------------------------------------------------------------- identities


def run_id(study_instance_uid: str, slots: Sequence[tuple[View, str, str, bool]], model: ModelIdentity) -> str:
    """Identity of one reading, whatever the order of arrival. Slots: (view, SOP Instance UID, pixel hash, scored), as hung."""
    parts = [
        f"{view}|{sop_instance_uid}|{pixel_hash}|{'scored' if scored else 'failed'}" for view, sop_instance_uid, pixel_hash, scored in slots
    ]
    return digest("run", study_instance_uid, model.key, *parts)


def version_cause(
    *,
    run: str,
    outcome: Outcome,
    evidence: Sequence[ViewEvidence],
    losers: Sequence[Loser],
    warnings: Sequence[str],
    copied_header: Mapping[str, str],
    writer_version: str,
    installation: Installation,
) -> str:
    """Everything a version's content depends on, without its predecessor. Equal causes: nothing to do."""
    return digest(
        "cause",
        run,
        outcome,
        writer_version,
        installation.ae_title,
        installation.device_uid,
        installation.serial_number,
        installation.software_version,
        installation.timezone,
        installation.language,
        str(installation.heat_map_on_page),
        "evidence",
        *(f"{one.view}|{one.laterality_source}|{one.view_source}|{'.'.join(one.modifiers)}" for one in evidence),
        "losers",
        *(f"{loser.view}|{loser.sop_instance_uid}|{loser.rule}|{loser.predicted_class}" for loser in losers),
        "warnings",
        *warnings,
        "header",
        *(f"{keyword}={copied_header[keyword]}" for keyword in sorted(copied_header)),
    )


def object_cause(cause: str, predecessor_uids: Sequence[str], epoch: int = 0) -> str:
    """What the UIDs of a version's objects derive from: its cause and what it replaces, so a return to an earlier selection is new.

    `epoch`: how often the database was restored from a backup, so that nothing gets the UID of a version that the backup did not know.
    """
    return digest("version", cause, *predecessor_uids, *(("epoch", str(epoch)) if epoch else ()))


#: Numbers that the versions of one epoch have at least; the last known version of the epoch before may not have been the last.
_NUMBERS_PER_EPOCH = 1000


def version_number(last: int, epoch: int) -> int:
    """The number of the version after `last` (0: none): 1, 2, 3 ..., after the first restore of the database from 1001 on."""
    return max(last + 1, epoch * _NUMBERS_PER_EPOCH + 1 if epoch else 1)
