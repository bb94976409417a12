"""What comes out of the JSON API, field by field: what the command line prints with `--json`. Times are ISO 8601 with their offset, UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from store.ledger import DeliveryState
from store.pace import Standing
from store.pauses import Paused
from store.study import StudyState, View

Probability = Annotated[float, Field(ge=0, le=1)]


class Problem(BaseModel):
    """Why it was not done, in words; it repeats nothing of the request but UIDs."""

    detail: str


class Requested(BaseModel):
    """A request that a worker will answer."""

    request_id: str
    href: str = Field(description="Where it is told what came of it")


class Doubt(BaseModel):
    """Why a study is held, and what settles it."""

    reason: str
    choices: list[str] = Field(description="Options of `fourview release`: --exclude SOP, --view SOP=VIEW, --accept-patient ...")


class Answer(BaseModel):
    """What came of a request."""

    request_id: str
    study_instance_uid: str
    kind: Literal["reprocess", "release", "withdraw", "correct", "send"]
    person: str
    why: str
    created_at: datetime
    applied_at: datetime | None = Field(description="When a worker looked at it")
    state: Literal["waiting", "accepted", "refused"]
    text: str = Field(description="The same in words; for a refusal why, with the choices that would settle it")
    ended: bool = Field(description="Nothing more comes of it")
    done: bool = Field(description="What was asked for came about")
    worker_running: bool = Field(description="False: it waits, and nobody is there to look at it")
    study_state: StudyState
    study_state_reason: str
    version: int | None = Field(description="The study's current version")
    choices: list[Doubt] = Field(description="What the study is held for now, and what settles it")


class Queue(BaseModel):
    """Where a study stands among the images that wait to be read."""

    images: int = Field(description="Of this study that wait")
    before: int | None = Field(description="Images of others that come before the first of them; None: more than 10000")
    priority: int = Field(description="1 first ... 9 last, as its rule says; 0: a person waits for it")
    behind: bool = Field(description="It is above its sender's pace: whatever is not comes before it")
    begun: bool = Field(description="One of them is being read")


class Pace(BaseModel):
    """How a study stands to the pace of the calling AE title that it counts for."""

    standing: Standing = Field(description="Empty: it was not counted; asked: a person asked for it, so it does not wait behind others")
    calling_ae_title: str


class StudyLine(BaseModel):
    """A study in a listing."""

    study_instance_uid: str
    state: StudyState
    state_reason: str
    revision: int
    study_date: str = Field(description="YYYYMMDD, or as it came")
    patient_id: str
    patient_name: str
    first_instance_at: datetime
    last_instance_at: datetime
    due_at: datetime | None
    version: int | None
    outcome: Literal["COMPLETE", "PARTIAL", "UNILATERAL", "WITHDRAWN"] | None
    trained: bool | None = Field(description="False: the model is not trained, its numbers are meaningless")
    classes: dict[str, tuple[str, Probability]] = Field(description="View: highest class and its probability (uncalibrated softmax)")
    calling_ae_titles: list[str]
    devices: list[str]
    queue: Queue | None = Field(description="None: no image of it waits to be read")


class Studies(BaseModel):
    """A page of studies, the one that last received an image first."""

    studies: list[StudyLine]
    next: str = Field(description="`after` of the next page; empty when there is none")


class Rule(BaseModel):
    """What the rules said of a study."""

    name: str
    action: str
    reason: str
    values: dict[str, Any]
    send_to: list[str]
    slots: list[str]
    forward_to: list[str]


class Passed(BaseModel):
    """An image that another one was chosen before."""

    sop_instance_uid: str
    rule: int
    reason: str


class Loser(Passed):
    """An image that a version did not read, and what it was read as."""

    view: View
    winner_sop_instance_uid: str
    predicted_class: str


class Slot(BaseModel):
    """Who fills a view."""

    sop_instance_uid: str | None = Field(description="The image that the current version read")
    candidates: list[str]
    losers: list[Passed]


class Score(BaseModel):
    """What one model said of one image; the numbers are there when `state` is scored."""

    id: int
    model: str
    model_key: str
    engine: str
    trained: bool
    background: bool = Field(description="Only compared: no version is made of it")
    state: Literal["waiting", "scored", "failed"]
    error: str
    attempt: int
    duration_seconds: float | None
    predicted_class: str | None = None
    probability: Probability | None = None
    all_probabilities: dict[str, Probability] | None = None
    box: list[int] | None = None
    warnings: list[str] | None = None
    preview: bool | None = Field(default=None, description="There is a picture of the image as it was read")
    heat_map: bool | None = Field(default=None, description="And one of what influenced the score")


class Image(BaseModel):
    """An instance of a study."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    calling_ae_title: str
    size_bytes: int
    received_at: datetime
    disposition: str
    disposition_reason: str
    kept: bool
    file: int = Field(description="Its number, for `use_file`")
    patient_id: str
    breast_edge: str
    view: View | None
    view_source: str
    laterality_source: str
    kind: str
    modifiers: list[str]
    warnings: list[str]
    orientation: list[str]
    scores: list[Score]


class ResultObject(BaseModel):
    """A DICOM object that was written; DICOMweb has it."""

    kind: str
    sop_instance_uid: str
    series_instance_uid: str
    file_name: str
    sha256: str
    size_bytes: int


class Run(BaseModel):
    """A version of a study's result."""

    number: int
    run_id: str
    outcome: str
    losers: list[Loser]
    warnings: list[str]
    trained: bool
    created_at: datetime
    model: dict[str, Any]
    model_key: str
    selection: dict[str, dict[str, Any]] = Field(description="View: the image that was read, and its scores or why there are none")
    objects: list[ResultObject]


class StudyDelivery(BaseModel):
    """An object on its way to a destination."""

    id: int
    destination: str
    kind: Literal["sr", "page", "original"] = Field(description="original: an image as it was received")
    sop_instance_uid: str
    state: DeliveryState
    tries: int
    status: int | None
    reason: str
    due_at: datetime | None
    sent_at: datetime | None
    confirmed_at: datetime | None
    checked_at: datetime | None
    patient_check: str


class Delivery(StudyDelivery):
    """The same in a listing."""

    study_instance_uid: str


class Decision(BaseModel):
    """What a person asked of a study."""

    kind: str
    person: str
    why: str
    parameters: dict[str, Any] | None
    created_at: datetime
    applied_at: datetime | None
    answer: str


class Line(BaseModel):
    """A line of a study's timeline."""

    at: datetime
    text: str


class Pause(BaseModel):
    """What a person has paused."""

    what: Paused
    at: datetime
    person: str
    why: str


class SameImage(BaseModel):
    """An image that came in another study too."""

    sop_instance_uid: str
    study_instance_uid: str


class Patient(BaseModel):
    """Whose study it is, as its first image says."""

    patient_id: str
    patient_name: str
    patient_birth_date: str


class Study(BaseModel):
    """Everything about one study."""

    study_instance_uid: str
    state: StudyState
    state_reason: str
    revision: int
    study_date: str
    due_at: datetime | None
    doubts: list[Doubt]
    first_instance_at: datetime
    last_instance_at: datetime
    patient: Patient
    rule: Rule
    pace: Pace
    queue: Queue | None = Field(description="None: no image of it waits to be read")
    same_patient: list[str] = Field(description="Other studies of the patient on that day")
    same_images: list[SameImage]
    slots: dict[str, Slot | None]
    images: list[Image]
    runs: list[Run] = Field(description="The versions, oldest first")
    deliveries: list[StudyDelivery]
    decisions: list[Decision]
    timeline: list[Line]
    paused: list[Pause]


class GivenUp(BaseModel):
    """Deliveries that a person must see to, once for each destination, state and reason."""

    destination: str
    state: Literal["refused", "expired"]
    reason: str
    count: int
    since: datetime
    newest_id: int


class Deliveries(BaseModel):
    """Deliveries, newest first, and what was given up."""

    deliveries: list[Delivery]
    given_up: list[GivenUp]


class Retried(BaseModel):
    """How many deliveries will be sent again, and why others will not."""

    retried: int
    refused: list[str]


class Trouble(BaseModel):
    """What a person must see to, and the command that begins it."""

    text: str
    command: str


class Disk(BaseModel):
    """The volume with the least room."""

    free_bytes: int | None
    volume: str | None
    floor_bytes: int


class Model(BaseModel):
    """The site's model as its card names it."""

    name: str
    version: str
    manufacturer: str
    trained: bool = Field(description="False: its numbers are meaningless")
    profile: str
    weights_sha256: str
    classes: list[str]
    engine: str
    card: str


class ConfigurationInForce(BaseModel):
    """By which configuration a process works."""

    hash: str = Field(description="equal for processes that decide alike")
    since: datetime
    complaints: list[str] = Field(description="why the file as it is now is refused")
    waiting: list[str] = Field(description="keys of the file that count when the process is started again")


class LivingProcess(BaseModel):
    """A process that lives."""

    process: str
    role: str
    started_at: datetime | None
    configuration: ConfigurationInForce | None = Field(description="null: the process is of an earlier release")


class Count(BaseModel):
    """How many deliveries of a destination are in a state."""

    destination: str
    state: DeliveryState
    count: int


class Alert(BaseModel):
    """What people are told."""

    cause: str
    kind: str
    text: str
    count: int
    command: str
    raised_at: datetime
    cleared_at: datetime | None
    told_at: datetime | None
    tries: int
    error: str
    due_at: datetime | None


class Status(BaseModel):
    """How the installation fares. When `database` is away only what does not need it is there."""

    ok: bool
    troubles: list[Trouble]
    disk: Disk
    model: Model | None = Field(description="null: its card cannot be used")
    database: Literal["ok", "away"]
    processes: list[LivingProcess] = []
    studies: dict[str, int] = {}
    studies_waiting: int = 0
    study_waits_since: datetime | None = None
    images_waiting: int = 0
    deliveries: list[Count] = []
    delivery_waits_since: dict[str, datetime] = {}
    delivery_errors: dict[str, str] = {}
    originals_bytes: dict[str, int] = Field({}, description="By destination: of the images that still have to go there")
    paused: list[Pause] = []
    reconciled_at: datetime | None = None
    reconciled: dict[str, Any] = {}
    alerts: list[Alert] = []


class Alerts(BaseModel):
    """What is not settled yet, oldest first."""

    alerts: list[Alert]


class Device(BaseModel):
    """A device, and how often what it says of the side is contradicted."""

    manufacturer: str
    manufacturer_model_name: str
    station_name: str
    device_serial_number: str
    images: int
    views: int
    side_from_text: int
    orientation_contradicts: int
    pixels_contradict: int
    doubts: int


class Devices(BaseModel):
    """The devices, the most contradicted first."""

    devices: list[Device]


class Act(BaseModel):
    """What a person did."""

    at: datetime
    person: str
    what: str
    why: str
    parameters: dict[str, Any] | None


class Acts(BaseModel):
    """The record of what people did, newest first."""

    acts: list[Act]


class SiteRule(BaseModel):
    """A rule of the configuration, as it is in force: what it does not say is filled in."""

    name: str
    when: str
    action: str
    send_to: list[str]
    slots: str
    when_incomplete: str
    model: str
    priority: int
    forward_to: list[str]


class Verdict(BaseModel):
    """What one rule says of a study."""

    name: str
    when: str
    action: str
    truth: Literal["true", "false", "unknown"]
    reached: bool = Field(description="No rule before it is true")
    decides: bool
    failing: str = Field(description="The smallest part of its condition that keeps it from being true")
    saw: str = Field(description="The values that this part, or the whole of a true rule, looks at, in words")
    values: dict[str, Any] = Field(description="The values that the rule looks at; null: absent")


class RulesOutcome(BaseModel):
    """What becomes of a study under its rules."""

    rule_name: str = Field(description="Empty: no rule matches")
    rule_hash: str
    action: str
    reason: str
    send_to: list[str]
    forward_to: list[str]
    slots: list[str]
    when_incomplete: str
    model: str
    priority: int


class KeptRuling(BaseModel):
    """What was decided of a study when it was last looked at."""

    rule_name: str
    rule_hash: str
    action: str
    reason: str
    send_to: list[str]
    forward_to: list[str]
    slots: list[str]
    model: str
    priority: int
    overruled: bool = Field(description="A person let it go on although a rule held or ignored it")


class Explanation(BaseModel):
    """Why the rules say what they say of a study."""

    study_instance_uid: str
    kept: KeptRuling | None = Field(description="null: nothing was decided yet")
    problem: str = Field(description="Why the rules cannot be asked; empty when they were")
    left_out: list[str]
    today: str | None = Field(description="The day on which StudyAge is counted: that of the last image")
    rules: list[Verdict] = Field(description="The rules in force, in their order")
    outcome: RulesOutcome | None = Field(description="What they say now")
    same: bool | None = Field(description="Whether that is what was decided")
    compared: str = Field(description="The same in words")


class Rules(BaseModel):
    """The rules in the order in which they are asked."""

    rules: list[SiteRule]


class PauseState(BaseModel):
    """How it stands now, and whether this request changed it."""

    what: Paused
    paused: bool
    changed: bool


class Reconciliation(BaseModel):
    """The comparison with the PACS that workers make by themselves."""

    scheduled: bool = Field(description="Whether any worker makes it")
    every_hours: float
    asked: bool = Field(description="Somebody waits for it")
    begun_at: datetime | None = Field(description="Since when one is under way")
    begun_by: str
    done_at: datetime | None
    outcome: dict[str, Any] | None = Field(description="What came of the last one")


class Elsewhere(BaseModel):
    """A result that a destination has, or may have: only there can it be deleted."""

    destination: str
    sop_instance_uid: str
    series_instance_uid: str
    state: str


class Forgotten(BaseModel):
    """What was forgotten, and what others still hold."""

    study_instance_uid: str
    images: int
    versions: int
    files: int
    senders: list[str]
    elsewhere: list[Elsewhere]
    left: list[str] = Field(description="What had to be left behind here, in words")


class AllowedAgain(BaseModel):
    """Whether a forgotten study may come again; false: it was not forgotten."""

    study_instance_uid: str
    allowed: bool
