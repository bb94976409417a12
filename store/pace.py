"""How many studies of one sender are read in an hour like all others, and what those above it wait behind: everything else.

A migration or a prefetch must not starve today's patients. So nothing is refused and nothing is lost: of a sender that sends more studies
than its pace, what is above it is kept as ever and read after all that is not, the rules' priorities among themselves.

A study counts once, for the calling AE of the first image of it that is kept, when the first of its images is to be read: what the rules
ignore costs no reading and counts not, and neither does a repeated C-STORE or an image that comes later. Pure; `store.queue` counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

#: Added to the priority that a rule gives (1 first ... 9 last) of a study that is above its sender's pace.
BEHIND = 10


class Standing(StrEnum):
    """How a study stands to its sender's pace, for good once it is known."""

    UNCOUNTED = ""  # its sender has none, or nothing of the study was to be read so far
    WITHIN = "within"
    ABOVE = "above"
    ASKED = "asked"  # a person asked for it: it counts not, or is above no more


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Studies per hour of each calling AE title; 0: any number."""

    per_hour: Mapping[str, int] = field(default_factory=dict)
    otherwise: int = 0  # of a sender that is not named

    def of(self, ae_title: str) -> int:
        """What came without a calling AE title (HTTP, fetched) has no pace."""
        return self.per_hour.get(ae_title, self.otherwise) if ae_title else 0


#: A site that configured nothing.
UNLIMITED = Pace()


def place(standing: Standing, rule_priority: int) -> int:
    """At which priority a study waits, with its images and its deliveries: lower first."""
    return rule_priority + (BEHIND if standing is Standing.ABOVE else 0)
