"""What the rules look at of a study, whoever asks them: a worker's look, or who replays what was kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, overload

from pydicom.dataset import Dataset

from store.header import unpack_data_set
from store.images import Judged
from store.study import ImageKind, Ruling, View


class Unpacked(Sequence[Dataset]):
    """Headers that are unpacked when they are looked at: most rules ask only for the first one."""

    def __init__(self, packed: Sequence[bytes]) -> None:
        self._packed = packed
        self._headers: dict[int, Dataset] = {}

    @overload
    def __getitem__(self, place: int) -> Dataset: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Dataset]: ...
    def __getitem__(self, place: int | slice) -> Dataset | Sequence[Dataset]:
        if isinstance(place, slice):
            return Unpacked(self._packed[place])
        packed = self._packed[place]  # IndexError ends an iteration
        if place not in self._headers:
            self._headers[place] = unpack_data_set(packed)
        return self._headers[place]

    def __len__(self) -> int:
        return len(self._packed)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the rules look at. The first header stands for the study, and its kind and AE titles are those of that image."""

    headers: Sequence[Dataset]
    views: tuple[View, ...]  # that are filled
    kind: ImageKind
    calling_ae_title: str
    called_ae_title: str
    first_instance_at: datetime


Decide = Callable[[Seen], Ruling]
"""What the rules say of a study."""


def seen_of(judged: Judged, rows: Mapping[int, Any], first_instance_at: datetime) -> Seen | None:
    """What the rules look at of a study; None when not all headers of it are here. `rows` are its receptions' rows, or what has their
    `id`, `header` and AE titles."""
    looked_at = [rows[instance_id] for instance_id in judged.looked_at]
    if not looked_at or any(one.header is None for one in looked_at):
        return None
    return Seen(
        headers=Unpacked([one.header for one in looked_at]),
        views=judged.election.filled,
        kind=judged.evidence[looked_at[0].id].kind,
        calling_ae_title=looked_at[0].calling_ae_title,
        called_ae_title=looked_at[0].called_ae_title,
        first_instance_at=first_instance_at,
    )
