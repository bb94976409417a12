"""Synthetic reports: four views of one study with scores, in which the odd thing is what the test writes down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from io import BytesIO
from typing import Any

import numpy as np
from mammograms_made import mammogram, uid
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipeline.report import BuiltObject, Report, ReportedView, build
from store.study import (
    HANGING_ORDER,
    RANKING,
    ImageKind,
    Installation,
    Loser,
    ModelIdentity,
    Outcome,
    Predecessor,
    Scores,
    View,
    ViewEvidence,
)

CLASSES = ("Mass", "Calcification", "Architectural/Asymmetry", "Normal")
PROBABILITIES = {
    View.R_CC: (0.03125, 0.0225, 0.05625, 0.89),
    View.L_CC: (0.6125, 0.1475, 0.22, 0.02),
    View.R_MLO: (0.1, 0.15, 0.55, 0.2),
    View.L_MLO: (0.2, 0.6, 0.1, 0.1),
}
INSTALLATION = Installation(
    ae_title="FOURVIEW", device_uid="2.25.1234", serial_number="a1b2c3", software_version="0.1.0", timezone="Asia/Seoul"
)
MODEL = ModelIdentity(
    name="resnet50",
    version="1.2.0",
    weights_sha256="ab" * 32,
    profile="presentation",
    engine="torch",
    classes=CLASSES,
    manufacturer="Example",
)
KOREAN = replace(INSTALLATION, language="ko")
PREDECESSORS = {
    "sr": Predecessor(sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33", sop_instance_uid="2.25.55", series_instance_uid="2.25.56"),
    "page": Predecessor(sop_class_uid="1.2.840.10008.5.1.4.1.1.7", sop_instance_uid="2.25.57", series_instance_uid="2.25.58"),
}


def as_received(ds: Dataset) -> Dataset:
    """`ds` as another machine would read it: encoded in its own character set, and decoded again."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer, stop_before_pixels=True)


def reported_view(
    view: View,
    *,
    header: Dataset | None = None,
    classes: Sequence[str] = CLASSES,
    probabilities: Sequence[float] | None = None,
    failure: str = "",
    modifiers: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
    laterality_source: str = "ImageLaterality",
    view_source: str = "ViewCodeSequence",
    picture: Any = "gradient",
    heat_map: Any = None,
) -> ReportedView:
    """`view` analysed with the scores of `PROBABILITIES`, or failed for the reason `failure`."""
    header = header or as_received(mammogram(view))
    if isinstance(picture, str):
        picture = np.tile(np.linspace(0, 255, 200, dtype=np.uint8), (256, 1))
    scores = Scores(
        classes=tuple(classes),
        probabilities=tuple(probabilities or PROBABILITIES[view]),
        box=(10, 20, 150, 240),
        rows=256,
        columns=200,
        warnings=warnings,
    )
    return ReportedView(
        view=view,
        header=header,
        evidence=ViewEvidence(
            view=view,
            laterality=view.laterality,
            laterality_source=laterality_source,
            view_position=view.position,
            view_source=view_source,
            kind=ImageKind.FFDM,
            modifiers=modifiers,
        ),
        scores=None if failure else scores,
        failure=failure,
        picture=picture,
        heat_map=heat_map,
    )


def made_report(
    *changed: ReportedView, absent: tuple[View, ...] = (), every_header: Mapping[str, Any] | None = None, **overrides: Any
) -> Report:
    """A complete report of four views; `changed` views replace theirs, `every_header` changes attributes of all images."""
    replaced = {one.view: one for one in changed}
    views = tuple(
        replaced.get(view) or reported_view(view, header=as_received(mammogram(view, **(every_header or {}))))
        for view in HANGING_ORDER
        if view not in absent
    )
    values: dict[str, Any] = {
        "study_instance_uid": uid("study"),
        "views": views,
        "missing": absent,
        "outcome": Outcome.COMPLETE,
        "losers": (),
        "warnings": (),
        "model": MODEL,
        "version_number": 1,
        "created_at": datetime(2026, 11, 20, 22, 30, 15, 123456, tzinfo=UTC),
        "cause": "c" * 64,
        "predecessors": {},
        "installation": INSTALLATION,
    }
    return Report(**(values | overrides))


def loser(view: View, sop_instance_uid: str, *, rule: int = 7, predicted_class: str = "") -> Loser:
    """An image of `view` that was passed over for the one of `made_report` by a rule of the election."""
    return Loser(
        view=view,
        sop_instance_uid=sop_instance_uid,
        winner_sop_instance_uid=mammogram(view).SOPInstanceUID,
        rule=rule,
        reason=RANKING[rule - 1],
        predicted_class=predicted_class,
    )


def withdrawn_report(**overrides: Any) -> Report:
    """The second version of `made_report`, which says that the first must not be used."""
    values: dict[str, Any] = {
        "outcome": Outcome.WITHDRAWN,
        "warnings": ("every image was rejected",),
        "version_number": 2,
        "predecessors": PREDECESSORS,
        "cause": "d" * 64,
    }
    report = made_report(**(values | overrides))
    return replace(report, views=tuple(replace(one, scores=None, picture=None) for one in report.views))


def heat_map() -> Any:
    """float32 (7, 7): the strongest response in the upper left corner of the crop, none in the lower right one."""
    down, across = np.mgrid[0:7, 0:7]
    return np.clip(1 - (down + across) / 6, 0, 1).astype(np.float32)


def report_with_heat_maps(**overrides: Any) -> Report:
    """`made_report` of an installation that shows heat maps, with one for each view."""
    installation = replace(overrides.pop("installation", INSTALLATION), heat_map_on_page=True)
    views = (reported_view(view, heat_map=heat_map()) for view in HANGING_ORDER)
    return made_report(*views, installation=installation, **overrides)


def _revised(**overrides: Any) -> Report:
    losers = tuple(loser(View.L_CC, one, predicted_class="Normal") for one in ("2.25.71234", "2.25.81234", "2.25.91234"))
    return made_report(
        version_number=2,
        predecessors=PREDECESSORS,
        cause="d" * 64,
        replaces_at=datetime(2026, 11, 20, 5, 2, tzinfo=UTC),
        losers=losers,
        warnings=("a warning",),
        **overrides,
    )


def _implant(**overrides: Any) -> Report:
    headers = {view: as_received(mammogram(view, BreastImplantPresent="YES")) for view in HANGING_ORDER}
    return made_report(*(reported_view(view, header=header, modifiers=("ID",)) for view, header in headers.items()), **overrides)


def _failed(**overrides: Any) -> Report:
    view = reported_view(View.L_MLO, failure="the compressed frame is truncated", picture=None)
    return made_report(view, outcome=Outcome.PARTIAL, **overrides)


_EVERY_KIND: dict[str, Callable[..., Report]] = {
    "normal": made_report,
    "partial": lambda **overrides: made_report(absent=(View.R_MLO,), outcome=Outcome.PARTIAL, **overrides),
    "unilateral": lambda **overrides: made_report(absent=(View.L_CC, View.L_MLO), outcome=Outcome.UNILATERAL, **overrides),
    "withdrawn": withdrawn_report,
    "implant": _implant,
    "revised": _revised,
    "failed view": _failed,
    "untrained": lambda **overrides: made_report(model=replace(MODEL, trained=False, options=(("flip", "yes"),)), **overrides),
    "heat maps": report_with_heat_maps,
}
#: Every kind of report there is, in both languages.
VARIANTS: dict[str, Callable[..., Report]] = {
    **_EVERY_KIND,
    **{f"{kind}, Korean": partial(make, installation=KOREAN) for kind, make in _EVERY_KIND.items()},
}


@cache
def built_variant(name: str) -> tuple[Report, tuple[BuiltObject, ...]]:
    """A report of `VARIANTS` and its objects, which nobody may change."""
    report = VARIANTS[name]()
    return report, build(report)
