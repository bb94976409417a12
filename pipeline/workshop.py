"""Everything that a worker works with: the store's doors, the model, the destinations, and the chores that are due now and then.

The steps (`read`, `conclude`, `deliver`) take it as their first argument; `work` hands it to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from pipeline import rules
from pipeline.chores import Chore
from pipeline.decode import Decoder
from pipeline.figures import Figures
from pipeline.gate import Gate
from pipeline.model import Classifier
from pipeline.pictures import Pictures
from pipeline.send import Pacs
from store.archive import Archive
from store.chores import Chores
from store.claims import Claims
from store.files import Files
from store.ledger import Ledger
from store.scoring import Scoring
from store.study import Installation, ModelIdentity, Policy


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that is ready to read."""

    identity: ModelIdentity
    classifier: Classifier
    size: int  # side of its square input in pixels


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Everything that a worker works with."""

    archive: Archive
    scoring: Scoring
    claims: Claims
    ledger: Ledger
    chore_book: Chores
    files: Files
    policy: Policy  # of the site's card; `policy.of(card)` for others
    rules: tuple[rules.Rule, ...]
    pacs: tuple[Pacs, ...]
    installation: Installation
    timezone: ZoneInfo
    load: Callable[[str], LoadedModel]  # by the path of its card, "" for the site's; raises ModelError
    decoder: Decoder
    chores: tuple[Chore, ...] = ()
    figures: Figures = field(default_factory=Figures)
    pictures: Pictures = field(default_factory=Pictures)
    process: str  # host:role:number, the same after a restart
    life: str  # {process}/{random}: this run of it
    gate: Gate = field(default_factory=lambda: Gate(2))
