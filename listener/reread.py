"""Studies read again by a model, at lowest priority, to see what it would say: a table of changed classes. Nothing is sent.

The numbers are kept beside those of other models, so that what was read once is not read twice: stopping and starting again goes on.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from store.study import Policy

#: So many studies are asked for ahead of the one that is awaited: enough to keep workers busy, few enough to stop soon.
AHEAD = 8
#: No length of time is longer: a date before it would be none.
MOST_DAYS = 36_500
_UNITS = {"d": 1.0, "h": 1 / 24, "w": 7.0}


class Asks(Protocol):
    """What of `store.scoring.Scoring` is needed."""

    def ask(self, study_instance_uid: str, policy: Policy) -> int: ...


class Compares(Protocol):
    """What of `store.search.Search` is needed."""

    def compared(self, study_instance_uid: str, model_key: str) -> list[dict[str, Any]]: ...


@dataclass
class Tally:
    """What came of it."""

    views: int = 0
    unread: int = 0
    changed: Counter[tuple[str, str]] = field(default_factory=Counter)

    def table(self) -> Iterator[str]:
        """The table of changed classes, most frequent first."""
        total = sum(self.changed.values())
        yield f"{self.views} views compared, {total} with another class, {self.unread} could not be read"
        for (before, after), count in sorted(self.changed.items(), key=lambda one: (-one[1], one[0])):
            yield f"  {count:>6}  {before} -> {after}"


def days(text: str) -> float:
    """A length of time as in 30d, 12h or 2w, in days. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([dhw])", text.strip().lower())
    if found is None:
        raise ValueError(f"{text}: write a length of time as in 30d, 12h or 2w")
    length = float(found[1]) * _UNITS[found[2]]
    if length > MOST_DAYS:
        raise ValueError(f"{text}: at most {MOST_DAYS}d")
    return length


def planned(studies: Iterable[str], search: Compares, policy: Policy) -> Iterator[str]:
    """What would be read, a line per study; nothing is asked for."""
    for study in studies:
        views = search.compared(study, policy.model.key)
        known = sum(one["state"] in ("scored", "failed") for one in views)
        yield f"{study}: {len(views) - known} of {len(views)} views to be read" + (f", {known} known already" if known else "")


def reread(studies: Sequence[str], scoring: Asks, search: Compares, policy: Policy, tally: Tally, *, wait_seconds: float) -> Iterator[str]:
    """Have `studies` read by `policy`'s model and yield a line for each view whose class differs or that could not be read.

    Raises TimeoutError when no image was read for `wait_seconds`.
    """
    for number, study in enumerate(studies):
        for ahead in studies[number : number + AHEAD] if number % AHEAD == 0 else ():
            scoring.ask(ahead, policy)
        deadline, waiting = time.monotonic() + wait_seconds, -1
        while (left := sum(one["state"] == "waiting" for one in search.compared(study, policy.model.key))) > 0:
            if left != waiting:
                deadline, waiting = time.monotonic() + wait_seconds, left
            if time.monotonic() > deadline:
                raise TimeoutError(f"study {study}: no image was read for {wait_seconds:g} s; is a worker running (`fourview check`)?")
            time.sleep(0.1)
        for one in search.compared(study, policy.model.key):
            tally.views += 1
            if one["after"] is None:
                tally.unread += 1
                yield f"{study}  {one['view']:<6} could not be read: {one['error'] or 'it was not asked for'}"
            elif one["after"] != one["before"]:
                tally.changed[str(one["before"]), one["after"]] += 1
                before = f"{one['before']} {one['before_probability']:.1%}" if one["before"] else "not read"
                yield f"{study}  {one['view']:<6} {before} -> {one['after']} {one['after_probability']:.1%}"
