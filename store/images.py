"""What each received image is to its study: candidate, copy, doubt, rejected, set aside. Pure.

Doubts (a wrong side is the worst error that this product can make), rejections by Key Objects of IHE IOCM (PS3.3 A.35.4, titles of
PS3.16 CID 7010), and what people decided about images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from store.study import Candidate, Election, ImageKind, Policy, View, ViewEvidence, digest, elect
from store.view import Ranking, contradicted_by


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
    EXCLUDED = "excluded"  # by a person
    FAILED = "failed"
    ON_DEMAND = "on demand"  # read because a person asked, never sent here; no look at its study sees it


#: What may fill a slot, in whatever shape it is: only these raise doubts and say whose the study is.
STANDING = (Disposition.CANDIDATE, Disposition.COPY, Disposition.DOUBT, Disposition.FAILED)

#: Titles of CID 7010 by which a result that was said already is void, whatever images are left.
VOIDING = frozenset({"113037", "113038"})
#: Kinds that show no breast in place: they tell nothing of a side.
_NO_BREAST = frozenset({ImageKind.PHANTOM, ImageKind.SPECIMEN})
#: The images stay in the study; only their pixels shall not be kept longer.
RETENTION_EXPIRED = "113039"


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Who an image says it shows."""

    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""

    def differs(self, other: Patient) -> bool:
        """Another patient: the identifier differs, or name and birth date both do. A new name alone is a demographic update."""
        if (self.patient_id, self.issuer_of_patient_id) != (other.patient_id, other.issuer_of_patient_id):
            return True
        names = {re.sub(r"[\s^,.]+", " ", one.patient_name).strip().casefold() for one in (self, other)}
        return len(names) > 1 and self.patient_birth_date != other.patient_birth_date


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """What a Key Object says of other instances."""

    title: str  # code value of CID 7010, scheme DCM
    sop_instance_uids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Image:
    """One reception of one instance; the same SOP Instance may have been received several times, in other bytes."""

    instance_id: int
    sop_instance_uid: str
    modality: str = "MG"
    file_hash: str = ""
    patient: Patient = Patient()
    received_at: datetime
    evidence: ViewEvidence | None = None  # None: its header was not read yet
    ranking: Ranking | None = None
    demographics: str = ""  # digest of the patient and study values that results copy
    rejection: Rejection | None = None
    readable: bool = True  # its header could be parsed
    kept: bool = True  # its pixels are still here
    sender: str = ""  # AE title
    to_route: bool = False  # no rule has said yet where it is forwarded
    pixel_hash: str | None = None
    breast_edge: str = ""  # "left" | "right", the image edge at which the breast lies; "" when it cannot be told
    reading: str = ""  # by the policy's model: "" not asked for | "waiting" | "scored" | "failed"
    failure: str = ""

    @property
    def settled(self) -> bool:
        """Whether the policy's model has read it, or failed to."""
        return self.reading in ("scored", "failed")


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What people decided about a study and its images."""

    excluded: frozenset[str] = frozenset()  # SOP Instance UIDs
    assigned: Mapping[str, View] = field(default_factory=dict)  # SOP Instance UID -> view
    chosen_files: frozenset[int] = frozenset()  # receptions that stand for their image
    dropped_files: frozenset[int] = frozenset()  # the other receptions of those images
    patients: tuple[Patient, ...] = ()  # accepted as one
    patient_of: int | None = None  # the reception whose patient the results name
    send_to: tuple[str, ...] = ()  # where the results go, whatever the rules say

    def then(self, later: Decisions) -> Decisions:
        """Both; the later one wins."""
        assigned = {uid: view for uid, view in self.assigned.items() if uid not in later.excluded} | dict(later.assigned)
        return Decisions(
            excluded=(self.excluded - later.assigned.keys()) | later.excluded,
            assigned=assigned,
            chosen_files=(self.chosen_files - later.dropped_files) | later.chosen_files,
            dropped_files=(self.dropped_files - later.chosen_files) | later.dropped_files,
            patients=tuple(dict.fromkeys((*self.patients, *later.patients))),
            patient_of=later.patient_of if later.patient_of is not None else self.patient_of,
            send_to=tuple(dict.fromkeys((*self.send_to, *later.send_to))),
        )


@dataclass(frozen=True)
class Doubt:
    """Why a person must look at a study before anything is said of it, and the options of `fourview release` that settle it."""

    reason: str
    choices: tuple[str, ...]


Assign = Callable[[int, View], ViewEvidence]
"""(instance id, view) -> the evidence of that image once a person has said which view it is."""


class Judged:
    """What each image of a study is, who may fill a slot, and what is doubtful."""

    def __init__(self, images: Sequence[Image], decisions: Decisions, policy: Policy, assign: Assign) -> None:
        self.images = tuple(images)
        self.decisions = decisions
        self._policy = policy
        self.by_id = {one.instance_id: one for one in images}
        self.evidence: dict[int, ViewEvidence] = {}
        for one in images:
            if one.evidence is not None:
                view = decisions.assigned.get(one.sop_instance_uid)
                self.evidence[one.instance_id] = one.evidence if view is None else assign(one.instance_id, view)

    @cached_property
    def rejections(self) -> dict[str, Rejection]:
        """SOP Instance UID -> the Key Object's word that takes it out of the study, whenever either came; a voiding one counts most."""
        found: dict[str, Rejection] = {}
        told = (one.rejection for one in self.images if one.rejection is not None and one.rejection.title != RETENTION_EXPIRED)
        for rejection in sorted(told, key=lambda one: (one.title not in VOIDING, one.title, one.reason)):
            for uid in rejection.sop_instance_uids:
                found.setdefault(uid, rejection)
        return found

    @cached_property
    def expired(self) -> tuple[int, ...]:
        """The images that shall not be kept longer (113039, Data Retention Policy Expired)."""
        told = {
            uid
            for one in self.images
            if one.rejection is not None and one.rejection.title == RETENTION_EXPIRED
            for uid in one.rejection.sop_instance_uids
        }
        return tuple(one.instance_id for one in self.images if one.sop_instance_uid in told)

    @cached_property
    def primaries(self) -> dict[str, int]:
        """SOP Instance UID -> the reception that stands for it, of those that could fill a slot: one that can be read, lossless, then in
        an order that arrival cannot change where it matters: headers may rank differently, pixels that lost information may differ. Among
        equals the one that was read already stays."""

        def key(one: Image) -> tuple[bool, bool, bool, str, str, bool, int]:
            lost = not one.kept and not one.settled  # its pixels are gone and this model never saw them
            lossy = self._lossy(one)
            file_hash = one.file_hash if lossy else ""
            return (lost, bool(one.failure), lossy, str(one.ranking), file_hash, not one.settled, one.instance_id)

        chosen: dict[str, int] = {}
        for one in sorted((one for one in self.images if one.instance_id in self._able), key=key):
            chosen.setdefault(one.sop_instance_uid, one.instance_id)
        return chosen

    @cached_property
    def _able(self) -> frozenset[int]:
        """The receptions that are of a kind to fill a slot and that no person put aside."""
        return frozenset(one.instance_id for one in self.images if one.instance_id in self.evidence and not self._not_for_us(one))

    @staticmethod
    def _lossy(one: Image) -> bool:
        return one.ranking is not None and one.ranking.lossy

    def _not_for_us(self, one: Image) -> tuple[Disposition, str] | None:
        evidence = self.evidence[one.instance_id]
        if one.modality == "KO":
            return Disposition.KEY_OBJECT, one.rejection.reason if one.rejection else "does not reject images"
        if evidence.set_aside:
            return Disposition.SET_ASIDE, evidence.set_aside
        if evidence.kind not in self._policy.image_kinds:
            return Disposition.SET_ASIDE, f"the model card does not list images of the kind {evidence.kind.value}"
        if self._policy.exclude_implants and one.ranking is not None and one.ranking.implant:
            return Disposition.SET_ASIDE, "a breast implant is present, and the model card excludes implants"
        if one.sop_instance_uid in self.decisions.excluded:
            return Disposition.EXCLUDED, "a person excluded it"
        if one.instance_id in self.decisions.dropped_files:
            return Disposition.EXCLUDED, "a person chose another file of the same image"
        return None

    @cached_property
    def dispositions(self) -> dict[int, tuple[Disposition, str]]:
        """What each image is, and why, by instance id."""
        return {one.instance_id: self._judge(one) for one in self.images}

    def _judge(self, one: Image) -> tuple[Disposition, str]:
        evidence = self.evidence.get(one.instance_id)
        if evidence is None:
            return Disposition.RECEIVED, ""
        if one.instance_id not in self._able:
            return self._not_for_us(one) or (Disposition.SET_ASIDE, "")
        if one.sop_instance_uid in self.rejections:
            return Disposition.REJECTED, self.rejections[one.sop_instance_uid].reason
        if doubt := evidence.doubt or self._side_doubt(one, evidence):
            return Disposition.DOUBT, doubt
        if self.primaries.get(one.sop_instance_uid) != one.instance_id:
            return Disposition.COPY, "another copy of the same image stands for it"
        if one.failure:
            return Disposition.FAILED, one.failure
        return Disposition.CANDIDATE, ""

    @staticmethod
    def _side_doubt(one: Image, evidence: ViewEvidence) -> str:
        """Two independent witnesses against the stated side: a doubt. One alone is a warning, and neither ever corrects it."""
        against = contradicted_by(evidence, one.breast_edge)
        if len(against) < 2:
            return ""
        row_and_column = "\\".join(evidence.orientation)
        return (
            f"{evidence.laterality_source} says {evidence.laterality}, but PatientOrientation ({row_and_column}) "
            f"and the pixels (the breast lies at the {one.breast_edge} edge) say the other side"
        )

    def chosen(self, *dispositions: Disposition) -> list[Image]:
        """The images that are one of these, in order of arrival."""
        return [one for one in self.images if self.dispositions[one.instance_id][0] in dispositions]

    @cached_property
    def eligible(self) -> list[Image]:
        """What fills slots. An image that could not be read fills its slot too: waiting longer does not mend it, the result says so."""
        return self.chosen(Disposition.CANDIDATE, Disposition.FAILED)

    def candidate(self, one: Image) -> Candidate:
        """What the election looks at."""
        ranking = one.ranking
        assert ranking is not None, "an image with evidence has a ranking"
        return Candidate(
            instance_id=one.instance_id,
            sop_instance_uid=one.sop_instance_uid,
            evidence=self.evidence[one.instance_id],
            implant=ranking.implant,
            partial_view=ranking.partial_view,
            lossy=ranking.lossy,
            acquired_at=ranking.acquired_at,
            area=ranking.area,
            acquisition_number=ranking.acquisition_number,
            number=ranking.number,
        )

    @cached_property
    def standing(self) -> list[Image]:
        """The images of `STANDING`, in order of arrival."""
        return self.chosen(*STANDING)

    @cached_property
    def election(self) -> Election:
        """Who fills which slot."""
        return elect([self.candidate(one) for one in self.eligible], self._policy.image_kinds)

    @cached_property
    def looked_at(self) -> tuple[int, ...]:
        """The images that rules look at, the one that stands for the study first; that does not depend on the order of arrival."""
        chosen = tuple(candidate.instance_id for _, candidate in self.election.winners)
        readable = sorted((one for one in self.images if one.evidence and one.readable), key=lambda one: one.sop_instance_uid)
        return chosen or tuple(one.instance_id for one in readable[:1])

    @cached_property
    def newest(self) -> dict[str, Image]:
        """SOP Instance UID -> the reception of it that came last: its patient and study values are the ones that hold."""
        return {one.sop_instance_uid: one for one in self.standing}

    @cached_property
    def selection_hash(self) -> str:
        """What a change of is news: which images fill slots, as which view, ranked how, for which patient and study values; of images that
        came only with loss, in which files. Whether one could be read is not in it: that alone is no news."""
        return digest(
            "selection",
            *sorted(
                "|".join(
                    (
                        one.sop_instance_uid,
                        str(self.evidence[one.instance_id].view),
                        self.newest[one.sop_instance_uid].demographics,
                        *self._headers(one.sop_instance_uid),
                    )
                )
                for one in self.eligible
            ),
            *(f"several lossy versions|{uid}" for uid in self.differing_lossy),
        )

    def _headers(self, sop_instance_uid: str) -> list[str]:
        """What the receptions of one image say where they may differ: how it ranks; the file, when all of them lost information."""
        copies = [one for one in self.images if one.sop_instance_uid == sop_instance_uid and one.instance_id in self._able]
        lossy = all(self._lossy(one) for one in copies)
        return sorted({f"{one.ranking}|{one.file_hash if lossy else ''}" for one in copies})

    @cached_property
    def sides_seen(self) -> frozenset[str]:
        """Every side of which any image arrived, whatever became of it; one of an unknown side may be of either."""
        sides: set[str] = set()
        for one in self.images:
            evidence = self.evidence.get(one.instance_id)
            if evidence is not None and one.modality != "KO" and evidence.kind not in _NO_BREAST:
                sides |= {evidence.laterality} if evidence.laterality else {"L", "R"}
        return frozenset(sides)

    @cached_property
    def doubts(self) -> tuple[Doubt, ...]:
        """Only images that would fill a slot can raise a doubt."""
        found: list[Doubt] = []
        for one in self.chosen(Disposition.DOUBT):
            uid = one.sop_instance_uid
            choices: tuple[str, ...] = (f"--view {uid}=VIEW", f"--exclude {uid}")
            found.append(Doubt(f"image {uid}: {self.dispositions[one.instance_id][1]}", choices))
        for number, one in enumerate(self.standing):
            other = next((other for other in self.standing[:number] if self._another_patient(other, one)), None)
            if other is not None:
                uids = tuple(dict.fromkeys((one.sop_instance_uid, other.sop_instance_uid)))
                agreed = not any(last.patient.differs(one.patient) for last in self.newest.values())
                accept = ["--accept-patient"] if agreed else [f"--accept-patient --patient-of {uid}" for uid in uids]
                choices = (*accept, *(f"--exclude {uid}" for uid in uids))
                found.append(Doubt(f"image {one.sop_instance_uid} names another patient than image {other.sop_instance_uid}", choices))
        found += self._copies(
            self.standing, "received as {}", lambda one: str(self.evidence[one.instance_id].view or "") or None, views=True
        )
        lossless = [one for one in self.standing if not self._lossy(one)]
        found += self._copies(lossless, "received with different pixels under one UID", lambda one: one.pixel_hash)
        return tuple(dict.fromkeys(found))

    def _another_patient(self, one: Image, other: Image) -> bool:
        if not one.patient.differs(other.patient):
            return False
        accepted = self.decisions.patients
        return not all(any(not image.patient.differs(known) for known in accepted) for image in (one, other))

    @staticmethod
    def _copies(images: Sequence[Image], text: str, of: Callable[[Image], str | None], *, views: bool = False) -> list[Doubt]:
        """A doubt for each image of which two receptions say something different."""
        told: dict[str, dict[str, list[int]]] = {}
        for one in images:
            if (value := of(one)) is not None:
                told.setdefault(one.sop_instance_uid, {}).setdefault(value, []).append(one.instance_id)
        found = []
        for uid, values in told.items():
            if len(values) < 2:
                continue
            files = tuple(f"--use-file {numbers[0]}" for _, numbers in sorted(values.items()))
            assign = (f"--view {uid}=VIEW",) if views else ()
            found.append(Doubt(f"image {uid} was {text.format(' and as '.join(sorted(values)))}", (*assign, *files, f"--exclude {uid}")))
        return found

    def left_out(self, view: View) -> list[str]:
        """Why the images of an empty slot do not fill it, for the reader of the result."""
        found = []
        for one in self.chosen(Disposition.SET_ASIDE, Disposition.REJECTED, Disposition.EXCLUDED):
            evidence = self.evidence[one.instance_id]
            if (evidence.laterality, evidence.view_position) == (view.laterality, view.position):
                disposition, reason = self.dispositions[one.instance_id]
                found.append(f"{view}: an image came and was {disposition}: {reason}")
        return list(dict.fromkeys(found))

    @cached_property
    def differing_lossy(self) -> tuple[str, ...]:
        """Images of which two lossy compressed versions with different pixels came: neither is the exposure itself."""
        hashes: dict[str, set[str]] = {}
        for one in self.chosen(Disposition.CANDIDATE, Disposition.COPY, Disposition.FAILED):
            if self._lossy(one) and one.pixel_hash is not None:
                hashes.setdefault(one.sop_instance_uid, set()).add(one.pixel_hash)
        return tuple(sorted(uid for uid, found in hashes.items() if len(found) > 1))


def warnings_of(judged: Judged, candidate: Candidate) -> list[str]:
    """What a reader of the result must know about an image that fills a slot."""
    one = judged.by_id[candidate.instance_id]
    found = [*candidate.evidence.warnings, *candidate.evidence.conflicts]
    if contradicted_by(candidate.evidence, one.breast_edge) == ("pixels",):
        found.append(f"the breast lies at the {one.breast_edge} edge of the image, which does not fit side {candidate.evidence.laterality}")
    if candidate.implant:
        found.append("breast implant present")
    if candidate.lossy:
        found.append("lossy compressed image")
    if candidate.sop_instance_uid in judged.differing_lossy:
        found.append("it was received in several lossy compressed versions with different pixels")
    if candidate.partial_view == "YES":
        found.append("partial view of the breast")
    if candidate.evidence.kind is not ImageKind.FFDM:
        found.append(f"image kind: {candidate.evidence.kind.value}")
    return found


def study_warnings(judged: Judged) -> list[str]:
    """What a reader of the result must know about the study as a whole: what a person decided."""
    excluded = {one.sop_instance_uid for one in judged.chosen(Disposition.EXCLUDED)} - judged.newest.keys()
    found = []
    if excluded:
        found.append(f"excluded by an operator: {len(excluded)} image" + ("s" if len(excluded) > 1 else ""))
    if judged.decisions.patients:
        found.append("patient accepted by an operator: the images named different patients")
    return found
