"""What a report is made from and what comes out: frozen values, no clock, no disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from pydicom.dataset import Dataset

from pipeline import wording
from store.study import HANGING_ORDER, Installation, Loser, ModelIdentity, Outcome, Predecessor, Scores, View, ViewEvidence


@dataclass(frozen=True, kw_only=True)
class ReportedView:
    """One slot of the reading: the elected image and what the model said of it, or why it said nothing."""

    view: View
    header: Dataset  # the elected image without pixel data
    evidence: ViewEvidence
    scores: Scores | None
    failure: str  # in words, "" when there are scores or the report is withdrawn
    picture: np.ndarray[Any, np.dtype[np.uint8]] | None  # (rows, columns), windowed, bright = dense, the whole image
    heat_map: np.ndarray[Any, np.dtype[np.float32]] | None = None  # (h, w) of any size, 0...1, over the rectangle `scores.box` of the image

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the header and the reading of this image warn about, each once."""
        return tuple(dict.fromkeys((*self.evidence.warnings, *(self.scores.warnings if self.scores else ()))))


@dataclass(frozen=True, kw_only=True)
class Report:
    """One version of a study's result. Everything that may change the bytes of its objects is in here.

    A WITHDRAWN one has no scores: its `views` are those of the version that it replaces, with neither scores nor failures.
    """

    study_instance_uid: str
    views: tuple[ReportedView, ...]  # in hanging order
    missing: tuple[View, ...]  # expected views without an image
    outcome: Outcome
    losers: tuple[Loser, ...]
    warnings: tuple[str, ...]
    model: ModelIdentity
    version_number: int  # from 1 on
    created_at: datetime  # aware, UTC
    cause: str  # 64 hex digits: the cause of this version; the UIDs of its objects derive from it
    predecessors: Mapping[str, Predecessor]  # kind ("sr", "page") -> the object that is replaced; empty for version 1
    installation: Installation
    replaces_at: datetime | None = None  # aware: when the version was made that this one replaces, if that is known

    @property
    def words(self) -> wording.Wording:
        """The sentences of the installation's language; ValueError when there are none."""
        return wording.in_language(self.installation.language)

    @property
    def analysed(self) -> tuple[ReportedView, ...]:
        """The views that have scores."""
        return tuple(reported for reported in self.views if reported.scores is not None)

    @property
    def failed(self) -> tuple[ReportedView, ...]:
        """The views whose image could not be read or scored."""
        return tuple(reported for reported in self.views if reported.scores is None)

    @property
    def withdrawn(self) -> bool:
        """Whether this version only says that the earlier ones must not be used."""
        return self.outcome is Outcome.WITHDRAWN

    @property
    def slots(self) -> tuple[View, ...]:
        """The views that this result is about, in hanging order: of a unilateral exam those of the side that has scores."""
        about = {*(reported.view for reported in self.views), *self.missing}
        if self.outcome is Outcome.UNILATERAL:
            sides = {reported.view.laterality for reported in self.analysed}
            about = {view for view in about if view.laterality in sides}
        return tuple(view for view in HANGING_ORDER if view in about)

    @property
    def headers(self) -> tuple[Dataset, ...]:
        """The reported images' headers, in hanging order."""
        return tuple(reported.header for reported in self.views)

    @property
    def local_time(self) -> datetime:
        """`created_at` in the installation's time zone, to the second."""
        return self.local(self.created_at)

    def local(self, moment: datetime) -> datetime:
        """An aware `moment` in the installation's time zone, to the second."""
        return moment.astimezone(ZoneInfo(self.installation.timezone)).replace(microsecond=0)


@dataclass(frozen=True)
class BuiltObject:
    """A finished DICOM object. `data` is the complete Part 10 file, byte-identical on every rebuild."""

    kind: str  # "sr" | "page"
    ds: Dataset
    data: bytes
