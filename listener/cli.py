"""The command line: the services, and what a command may fail with. Exit codes: 0 done, 1 failed, 2 wrong use or configuration.

One function per command; each wires the parts, nothing else. The other commands lie beside: `cli_studies` (what people ask and decide
of studies), `cli_deliveries`, `cli_rules` (why rules decide as they do), `cli_operation` (what a site runs every day), `cli_upkeep` (what
came and what goes), `cli_setup` (configuration, database, model), `cli_orthanc` (the Orthanc beside us), `cli_users` (who may log in).
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version as package_version
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from listener import cli_deliveries, cli_operation, cli_orthanc, cli_rules, cli_setup, cli_studies, cli_upkeep, cli_users, logs, parts
from listener.config import Config, ConfigErrors
from listener.connect import ConnectFailed
from listener.desk import Desk
from listener.init import InitFailed
from listener.orthanc_rest import RestFailed
from listener.serve import CannotServe, Role, end_with_parent, exclusive, first_free, probe_port, supervise, until_told_to_stop
from listener.terminal import app, configuration
from listener.tls import BadCertificate
from pipeline.chores import do_chores
from pipeline.figures import Figures
from pipeline.holdings import Unanswered
from pipeline.model import ModelError
from pipeline.orthanc import FetchFailed
from store.claims import Claims
from store.database import DatabaseAway, OldSchema
from store.forget import Ambiguous
from store.leases import BEAT_SECONDS
from store.rows import Busy, UnknownStudy

log = logging.getLogger(__name__)

#: The modules whose commands belong to the program.
COMMANDS = (cli_studies, cli_deliveries, cli_rules, cli_operation, cli_upkeep, cli_setup, cli_orthanc, cli_users)

#: What a command may fail with, in words that need no traceback.
EXPECTED = (
    CannotServe,
    ModelError,
    FetchFailed,
    Unanswered,
    Busy,
    UnknownStudy,
    Ambiguous,
    DatabaseAway,
    OldSchema,
    BadCertificate,
    parts.SpoolAway,
    InitFailed,
    ConnectFailed,
    RestFailed,
)

Child = Annotated[bool, typer.Option("--child", hidden=True, help="End when standard input closes.")]


def main() -> None:
    """The program `fourview`."""
    try:
        app()
    except ConfigErrors as errors:
        for complaint in errors.complaints:
            print(complaint, file=sys.stderr)
        sys.exit(2)
    except EXPECTED as error:
        print(f"fourview: {_first_line(error)}", file=sys.stderr)
        sys.exit(1)


def _first_line(error: Exception) -> str:
    if isinstance(error, DatabaseAway):
        return f"the database does not answer: {error.orig}; see [store] database"
    return str(error)


@app.command()
def serve(context: typer.Context) -> None:
    """Receive, work and answer: everything on this host, in one command."""
    config = configuration(context)
    logs.configure(json=not sys.stderr.isatty())
    parts.check_model(config)
    parts.certificate(config)
    stopped = until_told_to_stop()
    with exclusive(parts.data_folder(config) / f"{socket.gethostname()}-serve.lock", "fourview serve"):
        probe_port(config.dicom.host, config.dicom.port, "[dicom] port")
        probe_port(config.http.host, config.http.port, "[http] port")
        parts.wait_for_database(config, stopped, create=True)
        parts.open_files(config)
        roles = [*_receivers(config), *_workers(config), Role("web", ["--config", str(config.path), "web", "--child"])]
        supervise(roles, stopped=stopped, on_death=_tell_death(config))


def _receivers(config: Config) -> list[Role]:
    arguments = ["--config", str(config.path), "receive", "--child"] + (["--shared-port"] if config.dicom.receivers > 1 else [])
    return [Role(f"receive-{number}", arguments) for number in range(config.dicom.receivers)]


def _workers(config: Config) -> list[Role]:
    return [
        Role(f"work-{number}", ["--config", str(config.path), "work", "--child"], watched=True) for number in range(config.work.workers)
    ]


def _tell_death(config: Config) -> Callable[[str, threading.Event], None]:
    """What a supervisor does when a worker died and it did not: count it against what the worker was reading (`store.crashes`)."""

    def tell(life: str, stopped: threading.Event) -> None:
        while True:
            try:
                count = parts.open_claims(config).died(life)
            except DatabaseAway as error:
                log.warning("database not reachable, a worker's death is told later reason=%r", str(error.orig))
                if stopped.wait(1.0):
                    return
            else:
                log.log(logging.ERROR if count else logging.INFO, "a worker died alone images_in_hand=%d", count)
                return

    return tell


@app.command()
def receive(
    context: typer.Context,
    child: Child = False,
    shared_port: Annotated[bool, typer.Option("--shared-port", hidden=True, help="Share the port with other receivers.")] = False,
) -> None:
    """Receive by C-STORE, keep, and answer: as many processes on one port as [dicom] receivers says."""
    from listener.scp import CannotListen, StorageScp

    config, stopped = _role(context, child)
    if not child:
        parts.image_kinds(config)
        parts.open_files(config)
        probe_port(config.dicom.host, config.dicom.port, "[dicom] port")
        supervise(_receivers(config), stopped=stopped)
        return
    archive, claims, files = parts.open_archive(config), parts.open_claims(config), parts.open_files(config)
    figures = Figures()
    scp = StorageScp(
        ae_title=config.dicom.ae_title,
        host=config.dicom.host,
        port=config.dicom.port,
        archive=archive,
        files=files,
        accept_from=config.dicom.accept_from,
        max_associations=config.dicom.max_associations,
        image_kinds=parts.image_kinds(config),
        strict=config.dicom.strict,
        reuse_port=shared_port,
        figures=figures,
    )
    with first_free(parts.data_folder(config), "receive") as index:
        try:
            scp.start()
        except CannotListen as error:
            raise CannotServe(str(error)) from error
        process = parts.process_name("receive", index)
        _live(claims, process, "receive", figures, stopped)
        scp.shutdown()
        _leave(claims, process)


def _live(claims: Claims, process: str, role: str, figures: Figures, stopped: threading.Event) -> None:
    """Renew the lease of this process until `stopped`."""
    while True:
        try:
            claims.beat(process, role, figures.snapshot(), figures.alive_seconds())
        except DatabaseAway:
            # C-STORE answers 0xA700 meanwhile; the next beat tries again.
            log.warning("database not reachable role=%s", role)
        if stopped.wait(BEAT_SECONDS):
            return


def _leave(claims: Claims, process: str) -> None:
    with suppress(DatabaseAway):  # the lease ends by itself
        claims.leave(process)


@app.command()
def work(
    context: typer.Context,
    child: Child = False,
    life: Annotated[str, typer.Option("--life", hidden=True, help="The name of this run, by which its death is told.")] = "",
) -> None:
    """Read images, write results, send them: as many worker processes as [work] workers says."""
    config, stopped = _role(context, child)
    if not child:
        parts.check_model(config)
        parts.open_files(config)
        supervise(_workers(config), stopped=stopped, on_death=_tell_death(config))
        return
    with first_free(parts.data_folder(config), "work") as index:
        worker = parts.make_worker(config, index=index, life=life)
        finished = False
        try:
            worker.start()
            worker.run(stopped)
        finally:
            # Whatever ends it, what it has in hand goes back first: only a death that gives no time for that is a crash.
            finished = worker.close()
        if not finished:
            logging.shutdown()
            os._exit(0)  # threads that still read would be waited for


@app.command()
def web(context: typer.Context, child: Child = False) -> None:
    """Answer pages, JSON API, DICOMweb, health questions and /metrics over HTTP; tell people when no worker is there to do it."""
    from listener import api, dashboard, dropped, stow
    from listener.keeping import kept_for
    from listener.metrics import exposition
    from listener.on_demand import Reader
    from listener.pages import Pages
    from listener.pictures import Pictures
    from listener.reference_api import create_router
    from listener.web import CannotListen, create_app, run

    config, stopped = _role(context, child)
    desk, search = Desk(config), parts.open_search(config)
    files = parts.open_files(config)

    def ready() -> list[str]:
        roles = {"receive": "no receiver is running", "work": "no worker with a loaded model is running"}
        try:
            return [complaint for role, complaint in roles.items() if not search.living(role)]
        except DatabaseAway as error:
            log.error("database not reachable reason=%r", str(error.orig))
            return ["the database does not answer"]

    watch, claims = parts.open_watch(config), parts.open_claims(config)
    metrics = exposition(watch.condition.facts, watch.free_bytes, watch.limits.min_free_bytes, package_version("fourview"))
    entrance = stow.Entrance(
        archive=parts.open_archive(config),
        files=files,
        kept=kept_for(parts.image_kinds(config)),
        ae_title=config.dicom.ae_title,
        strict=config.dicom.strict,
    )
    reader = Reader(config, parts.open_on_demand(config), files, parts.site_policy(config), entrance.figures, stopped)
    people = dashboard.create_router(
        desk,
        Pictures(search, files),
        Pages(zone=ZoneInfo(config.site.timezone), language=config.site.language, version=package_version("fourview")),
    )
    application = create_app(
        results=search,
        file_path=files.path,
        ready=ready,
        metrics=metrics,
        entrance=entrance if config.http.stow else None,
        routers=[
            create_router(reader, ready),
            dropped.create_router(reader, files, entrance.figures),
            api.create_router(desk, stopped),
            people,
        ],
        access=parts.access(config),
    )
    with first_free(parts.data_folder(config), "web") as index:
        process = parts.process_name("web", index)
        beside = [
            threading.Thread(target=_live, args=[claims, process, "web", entrance.figures, stopped], daemon=True),
            # People must be told that no worker runs: no worker does it.
            threading.Thread(target=do_chores, args=[watch.chores(), parts.open_chores(config), process, stopped], daemon=True),
        ]
        for one in beside:
            one.start()
        try:
            run(
                application,
                config.http.host,
                config.http.port,
                stopped,
                certificate=parts.certificate(config),
                trusted_proxies=config.http.trusted_proxies,
            )
        except CannotListen as error:
            raise CannotServe(str(error)) from error
        finally:
            stopped.set()
            beside[0].join()
            _leave(claims, process)
        if reader.fetching:
            logging.shutdown()
            os._exit(0)  # threads that Orthanc keeps waiting would be waited for


def _role(context: typer.Context, child: bool) -> tuple[Config, threading.Event]:
    config = configuration(context)
    logs.configure(json=not sys.stderr.isatty())
    if child:
        end_with_parent()
    stopped = until_told_to_stop()
    parts.wait_for_database(config, stopped)
    return config, stopped


if __name__ == "__main__":
    main()
