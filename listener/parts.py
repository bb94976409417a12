"""The parts of a process, made from the configuration: what `serve`, the roles and the command line have in common."""

from __future__ import annotations

import socket
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from listener.config import Config
from pipeline.model import ModelCard, check_weights, identity, read_card, resolve_engine
from store.archive import Archive
from store.claims import Claims
from store.database import engine_database, read_engine, require_current_schema, schema_revision, upgrade, workflow_engine, write_engine
from store.files import Files
from store.search import Search
from store.study import Installation, ModelIdentity, Policy, WhenIncomplete

if TYPE_CHECKING:
    from pipeline.work import Worker

GIB = 1 << 30


def open_archive(config: Config) -> Archive:
    """The archive; raises OldSchema when the database has not the schema of this release."""
    engine = write_engine(config.store.database)
    require_current_schema(engine)
    return Archive(engine)


def open_claims(config: Config) -> Claims:
    """The leases of processes; raises OldSchema like `open_archive`."""
    engine = write_engine(config.store.database)
    require_current_schema(engine)
    return Claims(engine)


def open_search(config: Config) -> Search:
    """Listings of the same database, read-only; raises OldSchema like `open_archive`."""
    engine = read_engine(config.store.database)
    require_current_schema(engine)
    return Search(engine)


def open_files(config: Config) -> Files:
    """The spool."""
    return Files(config.store.files)


def upgrade_database(config: Config) -> tuple[str | None, str]:
    """Bring our tables and the workflow engine's to this release; returns (revision before, revision now)."""
    from pipeline.work import prepare_engine_tables  # the engine is slow to import, and most commands do not need it

    revisions = upgrade(write_engine(config.store.database))
    url = engine_database(config.store.database)
    prepare_engine_tables(url, workflow_engine(url))
    return revisions


def create_database_if_new(config: Config) -> None:
    """Make the tables of a database that has none; an older schema is left to `fourview db upgrade`."""
    if schema_revision(write_engine(config.store.database)) is None:
        upgrade_database(config)


def card_and_identity(config: Config) -> tuple[ModelCard, ModelIdentity]:
    """The model card and what it amounts to on this installation; raises ModelError. Needs no torch."""
    card = read_card(config.model.card)
    return card, identity(card, engine=resolve_engine(card, config.model.engine))


def policy(config: Config) -> Policy:
    """How this site wants its studies treated; raises ModelError."""
    card, model = card_and_identity(config)
    return Policy(
        wait_for_retake_seconds=config.study.wait_for_retake_seconds,
        give_up_after_seconds=config.study.give_up_after_seconds,
        when_incomplete=WhenIncomplete(config.study.when_incomplete),
        model=model,
        image_kinds=frozenset(card.image_kinds),
        exclude_implants=card.implants == "exclude",
        dialect=config.dialect,
    )


def installation(config: Config, archive: Archive) -> Installation:
    """Who writes the results."""
    constants = archive.installation_values()
    return Installation(
        ae_title=config.dicom.ae_title,
        device_uid=constants["device_uid"],
        serial_number=constants["serial_number"],
        software_version=version("fourview"),
        timezone=config.site.timezone,
    )


def make_worker(config: Config, *, index: int) -> Worker:
    """A worker with its model loaded and warm; raises ModelError. `index` tells the workers of this host apart."""
    from pipeline.decode import Decoder
    from pipeline.model import load_classifier
    from pipeline.upkeep import upkeep
    from pipeline.work import Worker, Workshop
    from store.ledger import Ledger
    from store.scoring import Scoring

    engine = write_engine(config.store.database)
    require_current_schema(engine)
    archive = Archive(engine)
    files = open_files(config)
    card = read_card(config.model.card)
    shop = Workshop(
        archive=archive,
        scoring=Scoring(engine),
        claims=Claims(engine),
        ledger=Ledger(engine),
        files=files,
        policy=policy(config),
        rules=config.rules,
        pacs=config.pacs,
        installation=installation(config, archive),
        timezone=ZoneInfo(config.site.timezone),
        classifier=load_classifier(card, allow_untrained=config.model.allow_untrained, device=config.model.device),
        input_size=card.input_size,
        decoder=Decoder(),
        upkeep=partial(
            upkeep,
            archive,
            open_search(config),
            files,
            keep_images_days=config.store.keep_images_days,
            keep_unfinished_days=config.store.keep_unfinished_days,
        ),
    )
    url = engine_database(config.store.database)
    return Worker(shop, engine_url=url, engine=workflow_engine(url), executor_id=process_name("work", index))


def check_model(config: Config) -> ModelCard:
    """The model card, when its weights could be loaded here as far as can be told without torch; raises ModelError."""
    card = read_card(config.model.card)
    check_weights(card, allow_untrained=config.model.allow_untrained)
    return card


def process_name(role: str, index: int) -> str:
    """The name of a process in the database: unique among all hosts, the same after a restart."""
    return f"{socket.gethostname()}:{role}:{index}"


def data_folder(config: Config) -> Path:
    """Where the locks of this host's processes lie."""
    config.store.files.mkdir(parents=True, exist_ok=True)
    return config.store.files
