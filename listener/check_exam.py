"""The acceptance kit, the whole way: a synthetic exam goes into Orthanc, comes here, and its report is back in Orthanc and opened.

Each step is a finding with its seconds; what the exam left is taken away again, in Orthanc and here, unless it shall be kept.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ComprehensiveSRStorage

from listener import parts
from listener.config import Config
from listener.connect import MODALITY, ConnectFailed
from listener.desk import Desk
from listener.finding import Finding
from listener.orthanc_rest import OrthancRest, RestFailed
from listener.reported import scores_of
from listener.synthetic import CHANGEABLE, PATIENT_ID, exam, part10
from pipeline.send import Pacs
from store.condition import Facts
from store.images import Disposition
from store.rows import UnknownStudy
from store.study import HANGING_ORDER

LOOK_SECONDS = 0.5
#: When Orthanc calls the exam stable and has no job for it, a script that routes has had its chance after so long.
UNROUTED_SECONDS = 10.0
#: `/modalities/{name}/store` answers when all images are sent.
STORE_SECONDS = 120.0

_OPEN_JOBS = frozenset({"Pending", "Running", "Retry", "Paused"})
_UNREAD = (Disposition.SET_ASIDE, Disposition.IGNORED)
#: States in which nothing more comes of a study by itself, and what to do.
_NO_RESULT = {
    "ignored": "no rule has it read; give it what your rule asks for (--set StationName=ROOM1), or look at the rule",
    "held": "`fourview show` names the doubt; a sound exam has none: look at [[device]] and side_words",
    "incomplete": "not all four images came within [study] give_up_after_seconds: see Orthanc's log and jobs",
    "failed": "no view could be read: `fourview show` and the worker's log say why",
    "withdrawn": "somebody withdrew it meanwhile",
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How the exam is tried. `seconds`: within which its report must be back. `send`: Orthanc does not route, so it is asked to send."""

    seconds: float = 300.0
    send: bool = False
    keep: bool = False
    changed: Mapping[str, str]
    person: str


class _Stopped(Exception):
    """It goes no further; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


def end_to_end(config: Config, pacs: Pacs, trial: Trial) -> Iterator[Finding]:
    """The exam's way, a finding at a time, and its removal. Whoever breaks off has it removed all the same."""
    desk = Desk(config)
    if complaint := _nobody_works(parts.open_condition(config).facts()):
        yield Finding(False, "end to end: receiver and worker", complaint)
        return
    images = exam(datetime.now(ZoneInfo(config.site.timezone)), trial.changed)
    with OrthancRest(pacs.url, pacs.user, pacs.password, seconds=STORE_SECONDS) as orthanc:
        way = _Way(config, pacs, trial, desk, orthanc, images)
        complete, removed = False, list[Finding]()
        try:
            try:
                yield from way.travelled()
                complete = True
            except _Stopped as stopped:
                yield stopped.finding
            except RestFailed as failed:
                yield Finding(False, "end to end: Orthanc's REST", str(failed))
        finally:
            if not trial.keep:
                removed = list(way.removed(complete=complete))
        if trial.keep:
            what = f"end to end: study {way.uid} of patient {PATIENT_ID} is kept"
            removed = [Finding(True, what, f"delete it in Orthanc, and here: `fourview forget {way.uid}`")]
        yield from removed


def _nobody_works(facts: Facts) -> str:
    """Why nothing would come of an exam now, or ""."""
    for role in ("receive", "work"):
        if not facts.living(role):
            return f"no process `{role}` runs on this database: start `fourview serve` (or `fourview {role}`), and try again"
    paused = [str(one["what"]) for one in facts.pauses]
    return f"{' and '.join(paused)} is paused: `fourview resume {paused[0]}`, and try again" if paused else ""


class _Way:
    """One exam on its way."""

    def __init__(self, config: Config, pacs: Pacs, trial: Trial, desk: Desk, orthanc: OrthancRest, images: list[Dataset]) -> None:
        self.uid = str(images[0].StudyInstanceUID)
        self._images = images
        self._config = config
        self._pacs = pacs
        self._trial = trial
        self._desk = desk
        self._orthanc = orthanc
        self._give_up_at = time.monotonic() + trial.seconds

    def travelled(self) -> Iterator[Finding]:
        """Step by step. Raises _Stopped and RestFailed."""
        name = self._our_name()
        earlier = self._orthanc.jobs()
        begun = time.monotonic()
        for ds in self._images:
            its_id = self._orthanc.upload(part10(ds))
        yield _done(f"end to end: a synthetic exam of patient {PATIENT_ID} is in Orthanc, study {self.uid}", begun)

        begun = time.monotonic()
        routed = False if self._trial.send else self._comes(its_id, earlier)
        if not routed:
            if not self._trial.send:
                remedy = (
                    f'nothing made Orthanc send it to "{name}": `fourview orthanc connect {self._pacs.name}` has the script; if something '
                    "else than Orthanc sends mammograms to us, say --send. Orthanc is asked to send it now"
                )
                yield Finding(False, "end to end: Orthanc routes it to us", remedy, time.monotonic() - begun)
            self._orthanc.post(f"/modalities/{name}/store", {"Resources": [its_id], "Synchronous": True})
            self._wait(lambda: self._arrived() == len(self._images), "all images are here")
        how = "Orthanc has routed it to us" if routed else "Orthanc has sent it to us, as it was asked to (not routed)"
        yield _done(f"end to end: {how}, {len(self._images)} images", begun)

        begun = time.monotonic()
        study = self._wait(self._read, "the study is read")
        yield _done(f"end to end: read as version {study['runs'][-1]['number']}, {_views(study)}", begun)

        begun = time.monotonic()
        report = self._wait(lambda: self._report(study), f"the report is in {self._pacs.name}")
        yield _done(f"end to end: its report is in {self._pacs.name}", begun)
        faults = list(report_faults(report, self._images[0], trained=bool(study["runs"][-1]["trained"])))
        yield Finding(not faults, "end to end: the report is opened: of this study, UNVERIFIED, four views", "; ".join(faults))

    def _our_name(self) -> str:
        """By which Orthanc knows us."""
        ours = [name for name, one in self._orthanc.modalities().items() if one.get("AET") == self._config.dicom.ae_title]
        if not ours:
            remedy = f"its DicomModalities has no entry with our AE title: `fourview orthanc connect {self._pacs.name}`"
            raise _Stopped(Finding(False, f"end to end: {self._pacs.name} knows us", remedy))
        return MODALITY if MODALITY in ours else ours[0]

    def _wait(self, find: Callable[[], Any], what: str) -> Any:
        """The first true value of `find`; _Stopped when the time is over."""
        begun = time.monotonic()
        while not (found := find()):
            if time.monotonic() > self._give_up_at:
                remedy = f"not within {self._trial.seconds:g} s (--seconds); {self._stands()}"
                raise _Stopped(Finding(False, f"end to end: {what}", remedy, time.monotonic() - begun))
            time.sleep(LOOK_SECONDS)
        return found

    def _stands(self) -> str:
        study = self._study()
        return f"here it is {study['state']}: {study['state_reason']}" if study else "nothing of it is here"

    def _study(self) -> dict[str, Any] | None:
        try:
            return self._desk.study(self.uid)
        except UnknownStudy:
            return None

    def _arrived(self) -> int:
        """How many of the images are here."""
        study = self._study() or {"images": ()}
        return len({one["sop_instance_uid"] for one in study["images"]} & {str(ds.SOPInstanceUID) for ds in self._images})

    def _comes(self, its_id: str, earlier: set[str]) -> bool:
        """Whether Orthanc sends the exam by itself: waited for until it called it stable and had nothing more to send."""
        quiet_since = None
        while (count := self._arrived()) < len(self._images):
            jobs = [self._orthanc.job(job) for job in self._orthanc.jobs() - earlier]
            for job in jobs:
                content = job.get("Content")
                aimed_at = content.get("RemoteAet") if isinstance(content, dict) else None
                if job.get("State") == "Failure" and aimed_at == self._config.dicom.ae_title:
                    why = f"its job ended with {job.get('ErrorDescription')} {job.get('ErrorDetails') or ''}".strip()
                    remedy = f"{why}: does its C-ECHO to us go well (above), and what does our log say?"
                    raise _Stopped(Finding(False, "end to end: Orthanc sends it to us", remedy))
            series = self._orthanc.series_of(its_id)
            busy = count or any(job.get("State") in _OPEN_JOBS for job in jobs) or not all(one.get("IsStable") for one in series)
            now = time.monotonic()
            quiet_since = None if busy else quiet_since or now
            if quiet_since is not None and now - quiet_since > UNROUTED_SECONDS:
                return False
            if now > self._give_up_at:
                remedy = f"not within {self._trial.seconds:g} s (--seconds); {self._stands()}. StableAge in Orthanc's configuration?"
                raise _Stopped(Finding(False, "end to end: Orthanc sends it to us", remedy, self._trial.seconds))
            time.sleep(LOOK_SECONDS)
        return True

    def _read(self) -> dict[str, Any] | None:
        study = self._study()
        if study is None or study["state"] in ("collecting", "analysing"):
            unread = [one["disposition_reason"] for one in (study or {"images": ()})["images"] if one["disposition"] in _UNREAD]
            if len(unread) >= len(self._images):
                remedy = f"{'; '.join(dict.fromkeys(unread))}: see image_kinds in the model card, [[device]], and what --set says"
                raise _Stopped(Finding(False, "end to end: its images fill no slot", remedy))
            return None
        if study["state"] != "analysed":
            remedy = f"{study['state_reason']}; {_NO_RESULT.get(study['state'], 'see `fourview show`')}"
            raise _Stopped(Finding(False, f"end to end: the study is {study['state']}", remedy))
        return study

    def _report(self, study: dict[str, Any]) -> Dataset | None:
        """Our report as Orthanc has it; everything that is sent there must have arrived, so that nothing comes after the removal."""
        sent = {one["sop_instance_uid"]: one for one in study["deliveries"] if one["destination"] == self._pacs.name}
        reports = [one["sop_instance_uid"] for one in study["runs"][-1]["objects"] if one["kind"] == "sr"]
        if not set(reports) & set(sent):
            raise _Stopped(Finding(False, f"end to end: its report is in {self._pacs.name}", self._why_not_sent(study)))
        now = self._study() or study
        for one in now["deliveries"]:
            if one["destination"] == self._pacs.name and one["state"] in ("refused", "expired", "cancelled"):
                raise _Stopped(Finding(False, f"end to end: {self._pacs.name} takes its results", f"{one['state']}: {one['reason']}"))
        found = {uid: self._orthanc.find("Instance", StudyInstanceUID=self.uid, SOPInstanceUID=uid) for uid in sent}
        if not all(found.values()):
            return None
        try:
            return dcmread(io.BytesIO(self._orthanc.file(found[reports[0]][0]["ID"])))
        except (InvalidDicomError, EOFError, ValueError) as error:
            remedy = f"what it gives for {reports[0]} is no DICOM file ({type(error).__name__}): look at it there"
            raise _Stopped(Finding(False, f"end to end: the report in {self._pacs.name} is opened", remedy)) from None

    def _why_not_sent(self, study: dict[str, Any]) -> str:
        if self._pacs.name not in study["rule"]["send_to"]:
            return f"the rule that read it, {study['rule']['name']!r}, does not name it in send_to: its result stays here"
        if "sr" not in self._pacs.results:
            return "`results` of this [[pacs]] leaves the report out"
        if not study["runs"][-1]["trained"] and not self._pacs.accept_untrained:
            return (
                f"the model is untrained: for as long as it is tried write accept_untrained = true below this [[pacs]] ({self._pacs.name}) "
                "in config.toml, then `fourview config reload`"
            )
        return "nothing of it is sent there: `fourview show` says why"

    def removed(self, *, complete: bool) -> Iterator[Finding]:
        """Takes it out here, so that nothing more is sent, and then in Orthanc."""
        begun = time.monotonic()
        elsewhere: list[str] = []
        if self._study() is not None:
            gone, *left = self._desk.forget(self.uid, person=self._trial.person, why="check --end-to-end")
            assert not isinstance(gone, str)
            elsewhere = sorted({one.destination for one in gone.elsewhere if one.destination != self._pacs.name})
            for words in left:
                yield Finding(True, "end to end: it is forgotten here", f"note: {words}")
        try:
            for study in self._orthanc.find("Study", StudyInstanceUID=self.uid):
                self._orthanc.delete(f"/studies/{study['ID']}")
            others = self._orthanc.find("Study", PatientID=PATIENT_ID)
        except RestFailed as failed:
            yield Finding(
                False, "end to end: it is removed from Orthanc", f"{failed}. Delete study {self.uid} of patient {PATIENT_ID} there"
            )
            return
        yield _done("end to end: everything of it is removed from Orthanc and here", begun)
        if elsewhere:
            remedy = f"delete study {self.uid} of patient {PATIENT_ID} there: from here it cannot be deleted"
            yield Finding(True, f"end to end: WARNING: its result was also sent to {', '.join(elsewhere)}", remedy)
        if others:
            remedy = "of an earlier trial that was kept or broken off: delete them there" if complete else "delete them there"
            yield Finding(True, f"end to end: Orthanc has {len(others)} other studies of patient {PATIENT_ID}", remedy)


def _done(what: str, begun: float) -> Finding:
    return Finding(True, what, seconds=time.monotonic() - begun)


def _views(study: Mapping[str, Any]) -> str:
    filled = [view for view, slot in study["slots"].items() if slot and slot.get("sop_instance_uid")]
    return f"{study['runs'][-1]['outcome']}, views {', '.join(filled)}"


def report_faults(report: Dataset, image: Dataset, *, trained: bool) -> Iterator[str]:
    """What is wrong with a report of the synthetic exam to which `image` belongs, in words."""
    try:
        yield from _faults(report, image, trained=trained)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # What pydicom says may quote the report; that of a synthetic exam is nobody's, but another may stand in its place.
        yield f"it is not built as a report of ours is ({type(error).__name__})"


def _faults(report: Dataset, image: Dataset, *, trained: bool) -> Iterator[str]:
    if report.SOPClassUID != ComprehensiveSRStorage:
        yield f"its SOP class is {report.SOPClassUID}"
    if report.StudyInstanceUID != image.StudyInstanceUID:
        yield f"it is of study {report.StudyInstanceUID}"
    if report.get("PatientID") != PATIENT_ID:
        yield "it is of another patient"
    if str(report.get("PatientName")) != str(image.PatientName):
        yield "the name in it is another than that of the exam"
    if report.get("VerificationFlag") != "UNVERIFIED":
        yield f"its Verification Flag is {report.get('VerificationFlag')}"
    views = [one.view for one in scores_of(report)]
    if views != [view.value for view in HANGING_ORDER]:
        yield f"its views are {', '.join(views) or 'none'}"
    said = report.to_json()
    if not trained and "UNTRAINED" not in said and "SIMULATED" not in said:
        yield "the model is untrained or simulated, and it does not say so"


def changed_values(given: list[str]) -> dict[str, str]:
    """KEYWORD=value pairs of the command line; raises ConnectFailed."""
    found = {}
    for one in given:
        keyword, equals, value = one.partition("=")
        if not equals or keyword not in CHANGEABLE:
            raise ConnectFailed(f"--set {one}: write KEYWORD=value; keywords are {', '.join(CHANGEABLE)}")
        found[keyword] = value
    return found
