"""Whose study a destination says it is, compared with whose our result says it is. Pure.

A PACS corrects patients (IHE PIR, Patient Information Reconciliation) after images were routed to us. A result under the old values would
make a second patient there, so the destination is asked before anything is sent, and this table decides:

| PatientID (and issuer) | PatientName, PatientBirthDate | what it is |
|---|---|---|
| the same | at most one of the two differs | the same person; other values are a correction |
| the same | both differ | another person |
| differs | both the same | the same person under a corrected identifier |
| differs | one of the two differs, or is not known on both sides | another person |

A value that the destination does not return, or cannot write in its character set, says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from pydicom.dataset import Dataset

from store.header_text import value_of
from store.study import digest

#: What results copy and a destination may correct; all of them can be asked for by C-FIND and QIDO-RS at STUDY level (PS3.4 C.6.2.1).
CORRECTABLE = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber")


class Verdict(StrEnum):
    """What a destination's answer means for a result that waits to be sent to it."""

    AGREES = "agrees"
    CORRECTED = "corrected"
    ANOTHER = "another patient"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A verdict, and the destination's values where they differ from ours."""

    verdict: Verdict
    differing: Mapping[str, str] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """A digest of the differing values: whether the same was said before."""
        return digest("said", *(f"{keyword}={value}" for keyword, value in sorted(self.differing.items())))


def carried(header: Mapping[str, Any]) -> dict[str, str]:
    """The correctable values of a result object, from its DICOM JSON model."""
    return values_of(Dataset.from_json({tag: value for tag, value in header.items() if tag[:4] in ("0008", "0010")}))


def values_of(ds: Dataset) -> dict[str, str]:
    """The correctable values that `ds` has; those that are absent or empty are left out."""
    found = {keyword: str(value_of(ds, keyword) or "").replace("\0", "").strip() for keyword in CORRECTABLE}
    return {keyword: value for keyword, value in found.items() if value}


def compare(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Comparison:
    """What it means that the destination has `theirs` where our result has `ours` (values by keyword, empty ones absent)."""
    differing = {keyword: value for keyword, value in theirs.items() if not _same(keyword, ours.get(keyword, ""), value)}
    if not differing:
        return Comparison(verdict=Verdict.AGREES)
    name, born = "PatientName" in differing, "PatientBirthDate" in differing
    if "PatientID" in differing or ("IssuerOfPatientID" in differing and ours.get("IssuerOfPatientID")):
        known = all(ours.get(keyword) and theirs.get(keyword) for keyword in ("PatientName", "PatientBirthDate"))
        another = name or born or not known
    else:
        another = name and born and bool(ours.get("PatientName")) and bool(ours.get("PatientBirthDate"))
    return Comparison(verdict=Verdict.ANOTHER if another else Verdict.CORRECTED, differing=differing)


def _same(keyword: str, ours: str, theirs: str) -> bool:
    if keyword != "PatientName":
        return ours == theirs
    groups = [_groups(ours), _groups(theirs)]
    both = [(one, other) for one, other in zip(*groups, strict=False) if one and other]
    if not both:
        return not theirs.strip("=^ ")
    return all(one == other or _mangled(one) == other.replace("?", "").replace("�", "") for one, other in both)


def _mangled(name: str) -> str:
    """The name as a destination writes it that has none of its foreign letters: it drops them, or puts marks in their place."""
    return "" if name.isascii() else "".join(letter for letter in name if letter.isascii())


def _groups(name: str) -> list[str]:
    """The component groups of a person name without regard to case, separators and empty components."""
    return [re.sub(r"[\s^,.]+", " ", group).strip().casefold() for group in name.split("=")]


# ------------------------------------------------------------------------------------------------------ what is remembered of it


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What destinations said of a study's patient, and what people decided about it."""

    values: Mapping[str, str] = field(default_factory=dict)  # to be written in results
    of: tuple[str, ...] = ()  # digests of the demographics that they stand for: images that come with others know better
    dispute: Mapping[str, Any] = field(default_factory=dict)  # {by, differing, said, of} of another patient, until a person decides
    accepted: tuple[str, ...] = ()  # digests of what a person has decided not to mind

    @classmethod
    def stored(cls, column: Mapping[str, Any] | None) -> Correction:
        """What the study's row holds."""
        found = dict(column or {})
        return cls(**{**found, **{name: tuple(found.get(name, ())) for name in ("of", "accepted")}})

    def corrected(self, differing: Mapping[str, str], of: Sequence[str]) -> Correction:
        """After a destination corrected what images with the demographics `of` say."""
        # What was corrected for images that are not here any more says nothing of these.
        values = {**self.values, **differing} if set(of) <= set(self.of) else dict(differing)
        return replace(self, values=values, of=tuple(sorted(of)))

    def disputed(self, by: str, comparison: Comparison, of: Sequence[str]) -> Correction:
        """After a destination named another patient."""
        dispute = {"by": by, "differing": dict(comparison.differing), "said": comparison.said, "of": sorted(of)}
        return replace(self, dispute=dispute)

    def settled(self, *, take: bool) -> Correction:
        """After a person decided the dispute: `take` the destination's values, or mind them no more."""
        if not self.dispute:
            return self
        without = replace(self, dispute={})
        if take:
            return without.corrected(self.dispute["differing"], self.dispute["of"])
        return replace(without, accepted=tuple(dict.fromkeys((*self.accepted, self.dispute["said"]))))

    @property
    def doubt(self) -> str:
        """Why a person must look; "" when nothing is disputed. No value of the patient is in it."""
        if not self.dispute:
            return ""
        return f"{self.dispute['by']} has this study under another patient ({', '.join(sorted(self.dispute['differing']))} differ)"

    def apply(self, header: Dataset, demographics: str) -> None:
        """Write the corrected values into a header whose patient and study values have the digest `demographics`."""
        if demographics in self.of:
            for keyword, value in self.values.items():
                setattr(header, keyword, value)
