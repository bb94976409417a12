"""The parts of a process, made from the configuration: what `serve`, the roles and the command line have in common."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from listener.config import Config
from pipeline.engine_choice import NotSettled, likely_engine, settled_engine
from pipeline.model import ModelCard, check_weights, identity, read_card
from store.accounting import Accounting
from store.acts import Acts
from store.alerts import Alerts, Limits
from store.archive import Archive
from store.chores import Chores
from store.claims import Claims
from store.condition import Condition
from store.database import (
    DatabaseAway,
    Engine,
    NoTables,
    OldSchema,
    database_folder,
    empty_log,
    engine_database,
    read_engine,
    require_current_schema,
    schema_revision,
    when_ended,
    workflow_engine,
    write_engine,
)
from store.engines import EngineRecord, Engines
from store.epoch import restored
from store.files import Files
from store.forget import Forgetting, Forgotten
from store.ledger import Ledger
from store.listing import Listing
from store.on_demand import OnDemand
from store.pauses import Pauses
from store.replay import Replay
from store.retention import Retention
from store.scoring import Scoring
from store.search import Search
from store.study import ImageKind, Installation, Policy, WhenIncomplete

if TYPE_CHECKING:
    from listener.door import Access
    from listener.tls import Certificate
    from pipeline.alert import Watch

log = logging.getLogger(__name__)

GIB = 1 << 30
#: How often a process that starts asks whether the database is there.
WAIT_SECONDS = 1.0


class SpoolAway(Exception):
    """A folder is not there, or not the one that is needed; the message says what to do."""


def _no_folder(folder: Path, error: OSError) -> SpoolAway:
    return SpoolAway(
        f"the folder {folder} cannot be used ({error.strerror}): is it mounted, and does it belong to the user that runs Fourview?"
    )


@cache
def _writer_of(url: str) -> Engine:
    return write_engine(url)


@cache
def _reader_of(url: str) -> Engine:
    return read_engine(url)


def _writer(config: Config) -> Engine:
    """The engine that writes, one for a whole process, whatever parts it has; raises OldSchema."""
    return _current(_writer_of(config.store.database))


def after_each_write(config: Config, call: Callable[[], None]) -> None:
    """Have `call` called whenever a transaction of this process has ended, those of leases apart; raises OldSchema."""
    when_ended(_writer(config), call)


def _reader(config: Config) -> Engine:
    """The engine that only reads, one for a whole process; raises OldSchema."""
    return _current(_reader_of(config.store.database))


def _current(engine: Engine) -> Engine:
    require_current_schema(engine)
    return engine


def open_archive(config: Config) -> Archive:
    """The archive; raises OldSchema when the database has not the schema of this release."""
    return Archive(_writer(config))


def open_claims(config: Config, *, apart: bool = True) -> Claims:
    """The leases of processes; raises OldSchema like `open_archive`."""
    # With connections of its own: however many others wait for one, a process that lives must be able to say so.
    return Claims(_current(write_engine(config.store.database)) if apart else _writer(config))


def open_accounting(config: Config) -> Accounting:
    """What came and what did not; raises OldSchema like `open_archive`."""
    return Accounting(_writer(config))


def open_forgetting(config: Config) -> Forgetting:
    """Takes studies out for good; raises OldSchema like `open_archive`."""
    return Forgetting(_writer(config))


@contextmanager
def clearing_away(config: Config) -> Iterator[Callable[[Forgotten], Iterator[str]]]:
    """What takes away a forgotten study's files and what the workflow engine knows of it, and says in words what it had to leave behind.

    Opened before anything is forgotten: what cannot be opened is told while nothing is lost. Afterwards only the caller still knows what
    others hold of the study, so nothing that goes wrong then may end the command before it has said so.
    """
    from pipeline.work import forget_workflows

    files, url = open_files(config), engine_database(config.store.database)
    engine, ours = workflow_engine(url), _writer(config)
    living = partial(Claims(ours).living, "work")

    def clear_away(gone: Forgotten) -> Iterator[str]:
        for name in gone.files:
            try:
                files.remove(name)
            except OSError as error:
                yield f"file {name} could not be removed ({error.strerror}): no row links to it, so upkeep will"
        prefixes = [f"study:{gone.study_instance_uid}:"]
        prefixes += [f"view:{number}:" for number in gone.scores] + [f"delivery:{number}:" for number in gone.deliveries]
        steps: tuple[tuple[Callable[[], bool], str, str], ...] = (
            (
                partial(forget_workflows, url, engine, prefixes, living),
                "a worker still has it in hand; the workflow engine's row of it goes by itself within a day",
                "the workflow engine may still have rows of it; they go by themselves within a day",
            ),
            (
                lambda: all([empty_log(ours), empty_log(engine)]),
                "the write-ahead log could not be emptied at this moment; that happens when the database is next idle",
                "the write-ahead log could not be emptied; that happens when the database is next idle",
            ),
        )
        for step, not_yet, failed in steps:
            try:
                if not step():
                    yield not_yet
            except Exception as error:  # noqa: BLE001 - whatever it was: what is left must be said
                yield f"{failed} ({type(error).__name__})"

    try:
        yield clear_away
    finally:
        engine.dispose()


def open_scoring(config: Config) -> Scoring:
    """The images that are read; raises OldSchema like `open_archive`."""
    return Scoring(_writer(config))


def open_on_demand(config: Config) -> OnDemand:
    """What people have read; raises OldSchema like `open_archive`."""
    return OnDemand(_writer(config), _reader(config))


def open_ledger(config: Config) -> Ledger:
    """The deliveries; raises OldSchema like `open_archive`."""
    return Ledger(_writer(config))


def open_search(config: Config) -> Search:
    """Listings of the same database, read-only; raises OldSchema like `open_archive`."""
    return Search(_reader(config))


def open_listing(config: Config) -> Listing:
    """The studies line by line, read-only; raises OldSchema like `open_archive`."""
    return Listing(_reader(config))


def open_replay(config: Config, site: Policy) -> Replay:
    """The studies as the rules see them, read-only; raises OldSchema like `open_archive`."""
    return Replay(_reader(config), site)


def open_acts(config: Config) -> Acts:
    """The record of what people did; raises OldSchema like `open_archive`."""
    return Acts(_writer(config))


def open_pauses(config: Config) -> Pauses:
    """What is paused; raises OldSchema like `open_archive`."""
    return Pauses(_writer(config))


def open_condition(config: Config) -> Condition:
    """How the installation fares, read-only; raises OldSchema like `open_archive`."""
    return Condition(_reader(config))


def alert_limits(config: Config) -> Limits:
    """From when on people are told."""
    return Limits(
        waiting_minutes=config.alert.waiting_minutes,
        silent_hours=config.alert.silent_hours,
        min_free_bytes=min_free_bytes(config),
        pace=config.pace,
    )


def min_free_bytes(config: Config) -> int:
    """Below so much free space nothing is received."""
    return int(config.store.min_free_gib * GIB)


def open_watch(config: Config) -> Watch:
    """What finds out what people are to be told, and tells them."""
    from pipeline.alert import Watch

    alerts = Alerts(_writer(config))
    limits = alert_limits(config)
    return Watch(condition=open_condition(config), alerts=alerts, files=open_files(config), limits=limits, url=config.alert.url)


def open_chores(config: Config) -> Chores:
    """The book of chores; raises OldSchema like `open_archive`."""
    return Chores(_writer(config))


def open_files(config: Config) -> Files:
    """The spool. Raises SpoolAway when there is no folder and none can be made, and when it is empty although the database knows images in
    it."""
    url = config.store.database
    # `Files` makes the folder when there is none: on a mount point whose volume is away that would hide what is kept for good.
    if not (config.store.files / "incoming").is_dir() and schema_revision(read_engine(url)) is not None and _keeps_images(config):
        raise SpoolAway(
            f"the folder {config.store.files} is empty, but the database knows images in it: is its volume mounted? If they are lost for "
            "good, make the folder `incoming` in it; `fourview reprocess --from-orthanc` fetches images again"
        )
    try:
        return Files(config.store.files, min_free_bytes=min_free_bytes(config), database_folder=database_folder(url))
    except OSError as error:
        raise _no_folder(config.store.files, error) from error


def open_retention(config: Config) -> Retention:
    """What may lose its pixels; raises OldSchema like `open_archive`."""
    return Retention(
        _writer(config),
        _reader(config),
        keep_images_days=config.store.keep_images_days,
        keep_unfinished_days=config.store.keep_unfinished_days,
    )


def _keeps_images(config: Config) -> bool:
    return open_retention(config).keeps_images()


def upgrade_database(config: Config) -> tuple[str | None, str]:
    """Bring our tables and the workflow engine's to this release; returns (revision before, revision now)."""
    from pipeline.work import prepare_engine_tables  # the engine and Alembic are slow to import, and most commands do not need them
    from store.upgrade import upgrade

    url = engine_database(config.store.database)
    return upgrade(write_engine(config.store.database), then=lambda: prepare_engine_tables(url, workflow_engine(url)))


def declare_restored(config: Config, *, person: str, why: str) -> int:
    """The database was put back from a backup; how often so far. Raises OldSchema."""
    return restored(_writer(config), person=person, why=why)


def wait_for_database(config: Config, stopped: threading.Event, *, create: bool = False) -> None:
    """Return when the database answers and has its tables; `create`: make them when it has none. Processes may start in any order.

    Raises OldSchema for tables of another release and SpoolAway when SQLite's folder cannot be made: waiting does not help. Ends the
    process when it is told to stop meanwhile.
    """
    try:
        engine, said = write_engine(config.store.database), ""
    except OSError as error:
        raise _no_folder(database_folder(config.store.database) or Path(), error) from error
    while True:
        try:
            if create and schema_revision(engine) is None:
                upgrade_database(config)
            require_current_schema(engine)
            return
        except DatabaseAway as error:
            why = f"it does not answer: {error.orig}"
        except NoTables as error:
            why = str(error)
        if why != said:
            log.warning("waiting for the database reason=%r", why)
            said = why
        if stopped.wait(WAIT_SECONDS):
            raise SystemExit(0)


def image_kinds(config: Config) -> frozenset[ImageKind]:
    """What the models of this site read, the site's and those of rules; raises ModelError."""
    paths = {config.model.card, *(Path(rule.card) for rule in config.rules if rule.card)}
    return frozenset(kind for path in paths for kind in read_card(path).image_kinds)


#: What computes a card's model: "torch", "openvino", "simulated"; raises ModelError where that cannot be said.
EngineOf = Callable[[ModelCard], str]


def open_engines(config: Config) -> Engines:
    """What is settled of engines; raises OldSchema like `open_archive`."""
    return Engines(_writer(config))


def engines_folder(config: Config) -> Path:
    """Where converted models are kept; whatever is in it can be made again."""
    return config.store.files / "engines"


def settled(config: Config, card: ModelCard) -> str:
    """The engine of this card as a worker settled it; raises NotSettled where none has yet."""
    engine = settled_engine(card, config.model.engine, Engines(_reader(config)).record())
    if engine is None:
        raise NotSettled(f"which engine computes {card.name} {card.version} is not settled yet: the first worker that starts does it")
    return engine


def likely(config: Config, card: ModelCard) -> str:
    """The same, and where nothing is settled, or there is no database, what would be tried here."""
    folder, record = database_folder(config.store.database), EngineRecord()
    if folder is None or folder.is_dir():  # asking would make the folder
        with suppress(DatabaseAway, OldSchema):
            record = Engines(_reader(config)).record()
    return likely_engine(card, config.model.engine, record)


def policy(config: Config, path: str = "", *, engine_of: EngineOf | None = None) -> Policy:
    """How this site wants its studies treated that the model card at `path` reads; "": the site's card. Raises ModelError.

    `engine_of`: who says what computes a model; without it `likely` does.
    """
    card = read_card(Path(path) if path else config.model.card)
    return Policy(
        wait_for_retake_seconds=config.study.wait_for_retake_seconds,
        give_up_after_seconds=config.study.give_up_after_seconds,
        when_incomplete=WhenIncomplete(config.study.when_incomplete),
        model=identity(card, engine=engine_of(card) if engine_of is not None else likely(config, card)),
        image_kinds=frozenset(card.image_kinds),
        exclude_implants=card.implants == "exclude",
        card=path,
        cards={} if path else _Policies(config, engine_of),
        dialect=config.dialect,
        ae_titles={pacs.name: pacs.ae_title for pacs in config.pacs},
        pace=config.pace,
    )


def site_policy(config: Config, before: Callable[[], Policy] | None = None) -> Callable[[], Policy]:
    """A function that returns the site's policy, read once, when it is first asked for: what needs no model starts without its card, and
    asks again until a worker has settled the engine. `before`: the one of the configuration before, whose card is kept."""
    found: list[Policy] = []

    def read() -> Policy:
        if not found:
            mine = policy(config, engine_of=partial(settled, config))
            found.append(mine if before is None else with_card_of(before(), mine))
        return found[0]

    return read


def with_card_of(before: Policy, after: Policy) -> Policy:
    """`after`, with what the site's card says as it was `before`: its model is loaded, whatever the card has become meanwhile."""
    return replace(after, model=before.model, image_kinds=before.image_kinds, exclude_implants=before.exclude_implants)


def changed_at(path: str) -> float:
    """When the file of a card that a rule or a person names was changed; the site's own is read once."""
    try:
        return Path(path).stat().st_mtime if path else 0.0
    except OSError:
        return -1.0  # reading it says what is wrong


class _Policies(Mapping[str, Policy]):
    """The policies for other cards than the site's, each read when it is first asked for, and again when its file was changed."""

    def __init__(self, config: Config, engine_of: EngineOf | None) -> None:
        self._config = config
        self._engine_of = engine_of
        self._read: dict[str, tuple[float, Policy]] = {}

    def __getitem__(self, path: str) -> Policy:
        stamp = changed_at(path)
        if self._read.get(path, (None,))[0] != stamp:
            self._read[path] = (stamp, policy(self._config, path, engine_of=self._engine_of))
        return self._read[path][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


def installation(config: Config, archive: Archive) -> Installation:
    """Who writes the results."""
    constants = archive.installation_values()
    return Installation(
        ae_title=config.dicom.ae_title,
        device_uid=constants["device_uid"],
        serial_number=constants["serial_number"],
        software_version=version("fourview"),
        timezone=config.site.timezone,
        language=config.site.language,
        heat_map_on_page=config.site.heat_map_on_page,
    )


def reconciles(config: Config) -> bool:
    """Whether workers compare with the PACS by themselves."""
    return config.study.reconcile != "off" and bool(config.study.fetch_from)


def check_model(config: Config) -> ModelCard:
    """The site's model card, when its weights and those of the rules' cards could be loaded here as far as can be told without torch;
    raises ModelError."""
    card = read_card(config.model.card)
    for one in (card, *(read_card(Path(rule.card)) for rule in config.rules if rule.card)):
        check_weights(one, allow_untrained=config.model.allow_untrained)
    return card


def process_name(role: str, index: int) -> str:
    """The name of a process in the database: unique among all hosts, the same after a restart."""
    return f"{socket.gethostname()}:{role}:{index}"


def access(config: Config) -> Access:
    """Who may come in over HTTP."""
    from listener.door import Access
    from listener.users import Users

    # Without a password a page on any site could read through a name of its own that it makes point to this machine.
    checked = bool(config.http.host_names) or not config.users
    return Access(
        users=Users(config.users) if config.users else None,
        host_names=frozenset(config.http.host_names) if checked else None,
        origins=frozenset(config.http.cors_origins),
        requests_per_minute=config.http.requests_per_minute,
    )


def dicom_certificate(config: Config) -> Certificate | None:
    """By which those who call us over DICOM know us, and whom we believe; None without TLS. Raises BadCertificate."""
    from listener.tls import Certificate

    dicom = config.dicom
    if not dicom.tls_certificate:
        return None
    authority = Path(dicom.tls_client_authority) if dicom.tls_client_authority else None
    return Certificate(Path(dicom.tls_certificate), Path(dicom.tls_key), authority)


def certificate(config: Config) -> Certificate | None:
    """By which clients of HTTP know us; None without TLS. Raises BadCertificate."""
    from listener.tls import Certificate

    return Certificate(Path(config.http.certificate), Path(config.http.key)) if config.http.certificate else None


def data_folder(config: Config) -> Path:
    """Where the locks of this host's processes lie. Raises SpoolAway when it cannot be made."""
    try:
        config.store.files.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_folder(config.store.files, error) from error
    return config.store.files
