"""What is to be reached, each row with its rival: the one list that the runner, the table and the README follow.

A row is declared here and measured in the file that `measured_in` names. Goals are for two cores, loopback and 3328x2560 images.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum


class Better(StrEnum):
    """Which direction is good."""

    LESS = "less"  # seconds, bytes
    MORE = "more"  # a rate


class GoalKind(Enum):
    """How a goal is compared."""

    TIMES = "at least {value:g} times"  # how many times better than the rival
    UNDER = "under {value:g} {unit}"  # ours alone
    WITHIN = "within {value:g} times"  # how many times the rival's figure ours may be


@dataclass(frozen=True)
class Goal:
    """One limit of a row; a row may have several, and all must be met."""

    kind: GoalKind
    value: float

    def text(self, unit: str) -> str:
        return self.kind.value.format(value=self.value, unit=unit).strip()


class Figure(Enum):
    """Which number of many measurements is compared."""

    MEDIAN = "median"
    P95 = "95th percentile"
    LARGEST = "largest"

    def of(self, values: Sequence[float]) -> float:
        """ValueError when there are no values."""
        if not values:
            raise ValueError("no measurement")
        return _FIGURES[self](values)


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


_FIGURES: Mapping[Figure, Callable[[Sequence[float]], float]] = {Figure.MEDIAN: statistics.median, Figure.P95: _p95, Figure.LARGEST: max}


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A row of the table before anything is measured."""

    key: str
    what: str
    rival: str  # "" when ours stands alone
    unit: str
    measured_in: str  # a file of this folder, without ".py"
    goals: tuple[Goal, ...] = ()  # none: reported only
    better: Better = Better.LESS
    figure: Figure = Figure.MEDIAN


@dataclass(frozen=True)
class Source:
    """A file that measures rows, and how long it may take: seconds in all, its preparation included."""

    name: str
    seconds: float
    quick_seconds: float


#: In this order; together ten minutes, or two.
SOURCES = (
    Source("classifier", 50, 16),
    Source("preprocessing", 45, 14),
    Source("reception", 165, 30),
    Source("time_to_result", 250, 46),
    Source("database_size", 85, 14),
)

REFERENCE = "reference path"
STORESCP = "storescp --fork"
ORTHANC = "Orthanc"
FEW = "the same with 1,000"


def _times(value: float) -> Goal:
    return Goal(GoalKind.TIMES, value)


def _under(value: float) -> Goal:
    return Goal(GoalKind.UNDER, value)


def _within(value: float) -> Goal:
    return Goal(GoalKind.WITHIN, value)


def _reception(key: str, what: str, rival: str, *goals: Goal) -> Declared:
    return Declared(key=key, what=what, rival=rival, unit="MB/s", measured_in="reception", goals=goals, better=Better.MORE)


def _database(key: str, what: str, figure: Figure = Figure.MEDIAN) -> Declared:
    goals = (_within(1.3),)
    return Declared(key=key, what=what, rival=FEW, unit="ms", measured_in="database_size", goals=goals, figure=figure)


#: In the order of the printed table.
DECLARED = (
    Declared(
        key="paced",
        what="a view every 3 s: last C-STORE answer to SR in Orthanc",
        rival=REFERENCE,
        unit="s",
        measured_in="time_to_result",
        goals=(_times(10), _under(0.6)),
    ),
    Declared(
        key="burst",
        what="four views back to back: last C-STORE answer to SR in Orthanc",
        rival=REFERENCE,
        unit="s",
        measured_in="time_to_result",
        goals=(_times(5), _under(1.3)),
    ),
    Declared(
        key="sustained",
        what="exams per hour, the whole way",
        rival=f"{REFERENCE} in a loop",
        unit="exams/h",
        measured_in="time_to_result",
        goals=(_times(4),),
        better=Better.MORE,
    ),
    Declared(
        key="preprocessing_presentation",
        what="preprocessing of one view, profile presentation",
        rival="reference preprocessing",
        unit="ms",
        measured_in="preprocessing",
        goals=(_times(15),),
    ),
    Declared(
        key="preprocessing_reference",
        what="preprocessing of one view, profile reference, bit-equal",
        rival="reference preprocessing",
        unit="ms",
        measured_in="preprocessing",
        goals=(_times(4),),
    ),
    Declared(
        key="view_memory",
        what="memory of one view, beyond the idle worker and its decoding child",
        rival="",
        unit="MB",
        measured_in="preprocessing",
        goals=(_under(400),),
        figure=Figure.LARGEST,
    ),
    Declared(
        key="classifier_fp32",
        what="classifier, four views, fp32",
        rival="torch eager",
        unit="s",
        measured_in="classifier",
        goals=(_times(2),),
    ),
    Declared(
        key="classifier_difference",
        what="its largest difference of a probability from torch eager",
        rival="",
        unit="",
        measured_in="classifier",
        goals=(_under(1e-4),),
        figure=Figure.LARGEST,
    ),
    _reception("reception_1_storescp", "reception, fsync and row, 1 sender", f"{STORESCP}, not durable", _times(1.5)),
    _reception("reception_4_storescp", "reception, fsync and row, 4 senders", f"{STORESCP}, not durable", _times(1.0)),
    _reception("reception_16_storescp", "reception, fsync and row, 16 senders", f"{STORESCP}, not durable"),
    _reception("reception_1_orthanc", "reception, fsync and row, 1 sender", ORTHANC, _times(1.5)),
    _reception("reception_4_orthanc", "reception, fsync and row, 4 senders", ORTHANC, _times(1.5)),
    _reception("reception_16_orthanc", "reception, fsync and row, 16 senders", ORTHANC, _times(1.5)),
    _reception("reception_no_collapse", "reception, 16 senders together", "ours with 1 sender", _times(1.0)),
    Declared(
        key="receiver_memory",
        what="memory of the receiver (all its processes), 16 senders of 17 MB images",
        rival="",
        unit="MiB",
        measured_in="reception",
        goals=(_under(300),),
        figure=Figure.LARGEST,
    ),
    Declared(
        key="receiver_memory_flat",
        what="the same after many images",
        rival="after the first round",
        unit="MiB",
        measured_in="reception",
        goals=(_within(1.1),),
        figure=Figure.LARGEST,
    ),
    Declared(
        key="queued",
        what="a priority study while 1,000 studies are queued",
        rival="none queued",
        unit="s",
        measured_in="time_to_result",
        goals=(_within(1.2),),
    ),
    _database("database_keep", "keep() with 1,000,000 instances"),
    _database("database_keep_p95", "keep() with 1,000,000 instances, 95th percentile", Figure.P95),
    _database("database_claim_studies", "claim of studies with 1,000,000 instances"),
    _database("database_claim_images", "claim of images with 1,000,000 instances"),
    _database("database_claim_deliveries", "claim of deliveries with 1,000,000 instances"),
)

BY_KEY: Mapping[str, Declared] = {one.key: one for one in DECLARED}
