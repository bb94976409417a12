"""Where a study's images are forwarded as they were received: by the rule that holds when one is looked at, once for each. Pure.

Never back to the sender of any file of the image. What becomes of the study here (held, ignored, withdrawn) makes no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from store.images import Image
from store.study import Routing, Ruling, StudyState


@dataclass(frozen=True, kw_only=True)
class Routed:
    """What was decided: `images` are not asked about again; `forward` says which of them go to which destination (instance ids)."""

    images: tuple[int, ...] = ()
    forward: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lines: tuple[str, ...] = ()  # for the timeline


def to_route(images: Sequence[Image], state: StudyState) -> list[Image]:
    """The images about which a rule can be asked now."""
    if state is StudyState.COLLECTING and all(one.modality == "KO" for one in images):
        return []  # a Key Object alone tells no rule what the study is
    return [one for one in images if one.to_route and one.kept and one.evidence is not None]


def route(
    new: Sequence[Image], images: Sequence[Image], ruling: Ruling | None, state: StudyState, ae_titles: Mapping[str, str]
) -> Routed | None:
    """Where `new` of a study's `images` go; None: that is not to be decided yet. `ae_titles` of the destinations, by name."""
    waits = {Routing.AT_ONCE: (), Routing.COLLECTED: (StudyState.COLLECTING,), Routing.RELEASED: (StudyState.COLLECTING, StudyState.HELD)}
    if ruling is None or state in waits[ruling.routing]:
        return None
    forward: dict[str, tuple[int, ...]] = {}
    lines = []
    for name in ruling.forward_to:
        title = ae_titles.get(name, "").casefold()  # Orthanc itself takes no notice of upper and lower case
        theirs = {one.sop_instance_uid for one in images if title and one.sender.casefold() == title}
        forward[name] = tuple(one.instance_id for one in new if one.sop_instance_uid not in theirs)
        if back := len(new) - len(forward[name]):
            lines.append(f"not forwarded to {name}: {back} of the images came from there ({ae_titles[name]})")
    return Routed(images=tuple(one.instance_id for one in new), forward=forward, lines=tuple(lines))
