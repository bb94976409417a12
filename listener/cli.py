"""The command line: the services, and what a command may fail with. Exit codes: 0 done, 1 failed, 2 wrong use or configuration.

One function per command; each wires the parts, nothing else. The other commands lie beside: `cli_studies` (what people ask and decide
of studies), `cli_deliveries`, `cli_rules` (why rules decide as they do), `cli_operation` (what a site runs every day), `cli_upkeep` (what
came and what goes), `cli_setup` (configuration, database, model), `cli_reload` (the configuration while it runs), `cli_orthanc` (the
Orthanc beside us), `cli_users` (who may log in).
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import typer

from listener import (
    cli_deliveries,
    cli_operation,
    cli_orthanc,
    cli_reload,
    cli_rules,
    cli_setup,
    cli_studies,
    cli_upkeep,
    cli_users,
    logs,
    parts,
)
from listener.bell import new_bells, ring, when_rung
from listener.config import Config, ConfigErrors
from listener.connect import ConnectFailed
from listener.garbage import keep_what_is_here
from listener.handed import Handed
from listener.init import InitFailed
from listener.orthanc_rest import RestFailed
from listener.reload import Current, checked_by
from listener.serve import (
    CannotServe,
    Role,
    end_with_parent,
    exclusive,
    first_free,
    probe_port,
    reload_on_hangup,
    supervise,
    until_told_to_stop,
)
from listener.show import printable
from listener.status import configuration_notices
from listener.terminal import app
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
COMMANDS = (cli_studies, cli_deliveries, cli_rules, cli_operation, cli_upkeep, cli_setup, cli_reload, cli_orthanc, cli_users)

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
Bells = Annotated[list[int] | None, typer.Option("--bell", hidden=True, help="The descriptor of a bell from the parent.")]
HandedDown = Annotated[int | None, typer.Option("--handed", hidden=True, help="The descriptor of the configuration from the parent.")]


def main() -> None:
    """The program `fourview`."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # of no process of ours: a core holds passwords, names and pixels
    try:
        app()
    except ConfigErrors as errors:
        for complaint in errors.complaints:
            print(printable(complaint), file=sys.stderr)
        sys.exit(2)
    except EXPECTED as error:
        print(printable(f"fourview: {_first_line(error)}"), file=sys.stderr)  # a stranger's words may be in it
        sys.exit(1)


def _first_line(error: Exception) -> str:
    if isinstance(error, DatabaseAway):
        return f"the database does not answer: {error.orig}; see [store] database"
    return str(error)


@app.command()
def serve(context: typer.Context) -> None:
    """Receive, work and answer: everything on this host, in one command."""
    current, stopped = _begin(context)
    config = current.config
    parts.check_model(config)
    parts.certificate(config)
    parts.dicom_certificate(config)
    with exclusive(parts.data_folder(config) / f"{socket.gethostname()}-serve.lock", "fourview serve"):
        probe_port(config.dicom.host, config.dicom.port, "[dicom] port")
        probe_port(config.http.host, config.http.port, "[http] port")
        parts.wait_for_database(config, stopped, create=True)
        parts.open_files(config)
        bells = new_bells(config.work.workers)
        web = Role("web", ["--config", str(config.path), "web", "--child"], bells=bells)
        roles = [*_receivers(config, bells), *_workers(config, bells), web]
        current.watch(stopped, checked_by(parts.check_model))
        supervise(roles, handed=current.hand_on(), stopped=stopped, on_death=_tell_death(config))


def _begin(context: typer.Context, handed: int | None = None) -> tuple[Current, threading.Event]:
    """The configuration of a service and its end. `handed`: the descriptor of what its supervisor hands to it."""
    current = Current(context.obj, os.environ, Handed(handed) if handed is not None else None)
    logs.configure(json=not sys.stderr.isatty())
    stopped = until_told_to_stop()
    if handed is None:
        reload_on_hangup(current.ask)
    else:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor reads the file, and is told by the same means
    return current, stopped


def _receivers(config: Config, bells: Sequence[int] = ()) -> list[Role]:
    arguments = ["--config", str(config.path), "receive", "--child"] + (["--shared-port"] if config.dicom.receivers > 1 else [])
    return [Role(f"receive-{number}", arguments, bells=bells) for number in range(config.dicom.receivers)]


def _workers(config: Config, bells: Sequence[int] = ()) -> list[Role]:
    arguments = ["--config", str(config.path), "work", "--child"]
    return [Role(f"work-{number}", arguments, watched=True, bells=bells[number : number + 1]) for number in range(config.work.workers)]


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
    handed: HandedDown = None,
    shared_port: Annotated[bool, typer.Option("--shared-port", hidden=True, help="Share the port with other receivers.")] = False,
    bell: Bells = None,
) -> None:
    """Receive by C-STORE, keep, and answer: as many processes on one port as [dicom] receivers says."""
    from listener.scp import CannotListen, StorageScp

    current, stopped = _role(context, child, handed)
    config = current.config
    if not child:
        parts.image_kinds(config)
        parts.dicom_certificate(config)
        parts.open_files(config)
        probe_port(config.dicom.host, config.dicom.port, "[dicom] port")
        current.watch(stopped, checked_by(parts.image_kinds))
        supervise(_receivers(config), handed=current.hand_on(), stopped=stopped)
        return
    archive, claims, files = parts.open_archive(config), parts.open_claims(config), parts.open_files(config)
    parts.after_each_write(config, partial(ring, bell or ()))
    figures = Figures()
    scp = StorageScp(
        ae_title=config.dicom.ae_title,
        host=config.dicom.host,
        port=config.dicom.port,
        archive=archive,
        files=files,
        reuse_port=shared_port,
        figures=figures,
        certificate=parts.dicom_certificate(config),
        **_accepted(config),
    )

    def prepare(config: Config) -> Callable[[], None]:
        accepted = _accepted(config)

        def put_into_force() -> None:
            files.min_free_bytes = parts.min_free_bytes(config)
            scp.accept(**accepted)

        return put_into_force

    with first_free(parts.data_folder(config), "receive") as index:
        try:
            scp.start()
        except CannotListen as error:
            raise CannotServe(str(error)) from error
        keep_what_is_here()
        current.watch(stopped, prepare)
        process = parts.process_name("receive", index)
        _live(current, claims, process, "receive", figures, stopped)
        scp.shutdown()
        _leave(claims, process)


def _accepted(config: Config) -> dict[str, Any]:
    """What a receiver takes from whom. Raises ModelError."""
    from listener.connections import ConnectionLimits
    from listener.keeping import StudyLimits

    return {
        "accept_from": config.dicom.accept_from,
        "max_associations": config.dicom.max_associations,
        "image_kinds": parts.image_kinds(config),
        "strict": config.dicom.strict,
        "connection_limits": ConnectionLimits(
            per_address=config.dicom.connections_per_address, per_minute=config.dicom.connections_per_minute
        ),
        "study_limits": StudyLimits(instances=config.dicom.study_instances, size_bytes=int(config.dicom.study_gib * parts.GIB)),
        "character_sets": {title: one.character_set for title, one in config.dialect.senders.items()},
    }


def _live(current: Current, claims: Claims, process: str, role: str, figures: Figures, stopped: threading.Event) -> None:
    """Renew the lease of this process until `stopped`."""
    while True:
        try:
            current.beat(claims, process, role, figures)
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
    handed: HandedDown = None,
    life: Annotated[str, typer.Option("--life", hidden=True, help="The name of this run, by which its death is told.")] = "",
    bell: Bells = None,
) -> None:
    """Read images, write results, send them: as many worker processes as [work] workers says."""
    current, stopped = _role(context, child, handed)
    config = current.config
    if not child:
        parts.check_model(config)
        parts.open_files(config)
        current.watch(stopped, checked_by(parts.check_model))
        supervise(_workers(config), handed=current.hand_on(), stopped=stopped, on_death=_tell_death(config))
        return
    from listener.workplace import Workplace  # the workflow engine is slow to import, and a supervisor does not need it
    from pipeline.work import wake

    with first_free(parts.data_folder(config), "work") as index:
        place = Workplace(config, index=index, life=life, beat=current.beat)
        worker = place.worker
        finished = False
        try:
            worker.start()
            for one in bell or ():
                when_rung(one, wake)
            current.watch(stopped, place.prepare)
            worker.run(stopped)
        finally:
            # Whatever ends it, what it has in hand goes back first: only a death that gives no time for that is a crash.
            finished = worker.close()
        if not finished:
            logging.shutdown()
            os._exit(0)  # threads that still read would be waited for


@app.command()
def web(context: typer.Context, child: Child = False, handed: HandedDown = None, bell: Bells = None) -> None:
    """Answer pages, JSON API, DICOMweb, health questions and /metrics over HTTP; tell people when no worker is there to do it."""
    from listener.answering import Answering
    from listener.web import CannotListen, run

    current, stopped = _role(context, child, handed)
    config = current.config
    search, claims, figures = parts.open_search(config), parts.open_claims(config), Figures()
    parts.after_each_write(config, partial(ring, bell or ()))

    def ready() -> list[str]:
        roles = {"receive": "no receiver is running", "work": "no worker with a loaded model is running"}
        try:
            return [complaint for role, complaint in roles.items() if not search.living(role)]
        except DatabaseAway as error:
            log.error("database not reachable reason=%r", str(error.orig))
            return ["the database does not answer"]

    condition = parts.open_condition(config)

    def notices() -> list[str]:
        with suppress(DatabaseAway):
            return configuration_notices(condition.processes())
        return []

    answering = Answering(config, figures, stopped, ready=ready, notices=notices)
    with first_free(parts.data_folder(config), "web") as index:
        process = parts.process_name("web", index)
        beside = [
            threading.Thread(target=_live, args=[current, claims, process, "web", figures, stopped], daemon=True),
            # People must be told that no worker runs: no worker does it.
            threading.Thread(target=do_chores, args=[answering.chores, parts.open_chores(config), process, stopped], daemon=True),
        ]
        for one in beside:
            one.start()
        current.watch(stopped, answering.prepare)
        try:
            run(
                answering,
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
        if answering.fetching:
            logging.shutdown()
            os._exit(0)  # threads that Orthanc keeps waiting would be waited for


def _role(context: typer.Context, child: bool, handed: int | None) -> tuple[Current, threading.Event]:
    current, stopped = _begin(context, handed)
    if child:
        end_with_parent(current.ask)
    parts.wait_for_database(current.config, stopped)
    return current, stopped


if __name__ == "__main__":
    main()
