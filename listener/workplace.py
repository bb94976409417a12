"""A worker and its workshop, made from the configuration, and the workshop made anew when the configuration changes."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from listener import parts, reconcile
from listener.config import Config
from pipeline.chores import Chore
from pipeline.decode import Decoder
from pipeline.engines import Models
from pipeline.figures import Figures
from pipeline.gate import Gate
from pipeline.model import read_card
from pipeline.upkeep import JANITOR_SECONDS, RETENTION_SECONDS, ROOM_SECONDS, make_room, retire, tidy
from pipeline.work import Worker
from pipeline.workshop import LoadedModel, Workshop
from store.archive import Archive
from store.claims import Claims
from store.database import engine_database, workflow_engine
from store.files import Files
from store.study import Policy

#: Renews a lease: (claims, process, role, figures).
Beat = Callable[[Claims, str, str, Figures], None]


class Workplace:
    """A worker with its model loaded and warm; raises ModelError. `index` tells the workers of this host apart, `life` the runs of one."""

    def __init__(self, config: Config, *, index: int, life: str = "", beat: Beat) -> None:
        self._config = config
        self._archive, self._files = parts.open_archive(config), parts.open_files(config)
        self._loaded: dict[str, tuple[float, LoadedModel]] = {}  # by the path of its card: when the card was changed, the model
        process, figures = parts.process_name("work", index), Figures()
        self._models = Models(  # what is in [model] counts from the start of the process
            parts.open_engines(config),
            configured=config.model.engine,
            device=config.model.device,
            allow_untrained=config.model.allow_untrained,
            kept_in=parts.engines_folder(config),
            process=process,
        )
        claims = parts.open_claims(config, apart=False)
        self._shop = Workshop(
            archive=self._archive,
            scoring=parts.open_scoring(config),
            claims=claims,
            ledger=parts.open_ledger(config),
            chore_book=parts.open_chores(config),
            files=self._files,
            decoder=Decoder(),
            figures=figures,
            process=process,
            life=f"{process}/{life or secrets.token_hex(6)}",
            gate=Gate(config.work.images_at_once),
            **self._decided(config, parts.policy(config, engine_of=self._models.engine_of)),
        )
        ask_for_reconciliation(config)
        url = engine_database(config.store.database)
        self.worker = Worker(self._shop, engine_url=url, engine=workflow_engine(url), beat=partial(beat, claims, process, "work", figures))

    def prepare(self, config: Config) -> Callable[[], None]:
        """What puts another configuration into force for whatever begins from then on. Raises ModelError, DatabaseAway."""
        site = parts.with_card_of(self._shop.policy, parts.policy(config, engine_of=self._models.engine_of))
        shop = replace(self._shop, **self._decided(config, site))

        def put_into_force() -> None:
            if parts.reconciles(config) is not parts.reconciles(self._config):
                ask_for_reconciliation(config)
            self._files.min_free_bytes = parts.min_free_bytes(config)
            self._config, self._shop = config, shop
            self.worker.work_in(shop)

        return put_into_force

    def _decided(self, config: Config, site: Policy) -> dict[str, Any]:
        """What the configuration decides of a workshop; the models that it names are loaded now, and not at the first patient's expense."""

        def load(path: str) -> LoadedModel:
            changed_at = parts.changed_at(path)
            if path not in self._loaded or self._loaded[path][0] != changed_at:
                identity, card = site.of(path).model, read_card(Path(path) if path else config.model.card)
                classifier = self._models.load(card, identity.engine)
                self._loaded[path] = (changed_at, LoadedModel(identity=identity, classifier=classifier, size=card.input_size))
            return self._loaded[path][1]

        for path in ("", *sorted({rule.card for rule in config.rules if rule.card})):
            load(path)
        self._models.forget_compared()
        room = parts.open_retention(config), self._files
        return {
            "policy": site,
            "rules": config.rules,
            "pacs": config.pacs,
            "installation": parts.installation(config, self._archive),
            "timezone": ZoneInfo(config.site.timezone),
            "load": load,
            "chores": (
                Chore(name="room", every_seconds=ROOM_SECONDS, abandoned_seconds=5 * ROOM_SECONDS, do=partial(make_room, *room)),
                Chore(name="retention", every_seconds=RETENTION_SECONDS, do=partial(retire, *room)),
                Chore(name="janitor", every_seconds=JANITOR_SECONDS, do=partial(tidy, *room)),
                *reconciling(config, self._archive, self._files),
                *parts.open_watch(config).chores(),
            ),
        }


def reconciling(config: Config, archive: Archive, files: Files) -> tuple[Chore, ...]:
    """The scheduled comparison with the PACS."""
    if not parts.reconciles(config):
        return ()
    scheduled = reconcile.Scheduled(config, parts.open_accounting(config), parts.open_chores(config), archive, files)
    return (
        Chore(
            long=True,
            name=reconcile.NAME,
            every_seconds=config.study.reconcile_hours * 3600,
            do=scheduled.do,
            abandoned_seconds=reconcile.ABANDONED_SECONDS,
        ),
        Chore(name="reconcile again", long=True, every_seconds=reconcile.AGAIN_SECONDS, do=scheduled.again),
    )


def ask_for_reconciliation(config: Config) -> None:
    """At once: a start may follow upon hours in which nobody listened. Where it is switched off, nobody would ever settle what it said."""
    book = parts.open_chores(config)
    if parts.reconciles(config):
        book.ask(reconcile.NAME)
    else:
        book.clear(reconcile.NAME)
