"""The command line: one function per command; wires the parts, nothing else. Exit codes: 0 done, 1 failed, 2 wrong use or configuration."""

from __future__ import annotations

import getpass
import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from listener import check as acceptance
from listener import logs, parts, reread
from listener.config import Config, ConfigErrors, load
from listener.fetch import fetch_and_keep
from listener.serve import CannotServe, end_with_parent, exclusive, first_free, probe_port, supervise, until_told_to_stop
from listener.show import in_words, printable
from pipeline.model import ModelError, load_classifier, read_card, write_demo_weights
from pipeline.orthanc import FetchFailed
from store.archive import Archive, Busy
from store.claims import BEAT_SECONDS
from store.database import DatabaseAway, OldSchema
from store.grouping import Release, RequestKind
from store.rows import UnknownStudy
from store.search import Search
from store.study import StudyState, View
from store.view import STANDARD

log = logging.getLogger(__name__)

app = typer.Typer(
    name="fourview",
    help="A DICOM listener that reads every new mammogram. Research use only. NOT FOR DIAGNOSTIC USE.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
config_app = typer.Typer(help="The configuration.", no_args_is_help=True)
db_app = typer.Typer(help="The database.", no_args_is_help=True)
model_app = typer.Typer(help="The model.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(db_app, name="db")
app.add_typer(model_app, name="model")

#: What a command may fail with, in words that need no traceback.
EXPECTED = (CannotServe, ModelError, FetchFailed, Busy, UnknownStudy, DatabaseAway, OldSchema)

#: An unfinished file that old belongs to no association that still lives.
ABANDONED_AFTER_SECONDS = 3600.0

ConfigFile = Annotated[Path | None, typer.Option("--config", help="The configuration file; default: $FOURVIEW_CONFIG, else ./config.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
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


@app.callback()
def _configured(context: typer.Context, config: ConfigFile = None) -> None:
    context.obj = config


def _config(context: typer.Context) -> Config:
    return load(context.obj, os.environ)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=_json_value, ensure_ascii=False))


def _json_value(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


# ---------------------------------------------------------------------------------------------------------------- services


@app.command()
def serve(context: typer.Context) -> None:
    """Receive, work and answer: everything on this host, in one command."""
    config = _config(context)
    logs.configure(json=not sys.stderr.isatty())
    parts.check_model(config)
    with exclusive(parts.data_folder(config) / "serve.lock", "fourview serve"):
        probe_port(config.dicom.host, config.dicom.port, "[dicom] port")
        probe_port(config.http.host, config.http.port, "[http] port")
        parts.create_database_if_new(config)
        parts.open_archive(config)
        receive_arguments = ["receive", "--child"] + (["--shared-port"] if config.dicom.receivers > 1 else [])
        roles = [(f"receive-{number}", receive_arguments) for number in range(config.dicom.receivers)]
        roles += [("work", ["work", "--child"]), ("web", ["web", "--child"])]
        supervise([(name, ["--config", str(config.path), *role]) for name, role in roles], stopped=until_told_to_stop())


@app.command()
def receive(
    context: typer.Context,
    child: Child = False,
    shared_port: Annotated[bool, typer.Option("--shared-port", hidden=True, help="Share the port with other receivers.")] = False,
) -> None:
    """Receive by C-STORE, keep, and answer."""
    from listener.scp import CannotListen, StorageScp, remove_abandoned

    config, stopped = _role(context, child)
    archive, claims, files = parts.open_archive(config), parts.open_claims(config), parts.open_files(config)
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
        min_free_bytes=int(config.store.min_free_gib * parts.GIB),
        reuse_port=shared_port,
    )
    with first_free(parts.data_folder(config), "receive") as index:
        try:
            scp.start()
        except CannotListen as error:
            raise CannotServe(str(error)) from error
        process = parts.process_name("receive", index)
        _beat(claims.beat, process, "receive")
        while not stopped.wait(BEAT_SECONDS):
            _beat(claims.beat, process, "receive")
            # An aborted transfer leaves its unfinished file behind.
            remove_abandoned(files.incoming, ABANDONED_AFTER_SECONDS, time.time())
        scp.shutdown()
        _beat(claims.leave, process)


def _beat(tell: Callable[..., None], *arguments: str) -> None:
    try:
        tell(*arguments)
    except DatabaseAway:
        # C-STORE answers 0xA700 meanwhile; the next beat tries again.
        log.warning("database not reachable role=%s", arguments[-1])


@app.command()
def work(context: typer.Context, child: Child = False) -> None:
    """Read images, write results, send them."""
    config, stopped = _role(context, child)
    with first_free(parts.data_folder(config), "work") as index:
        worker = parts.make_worker(config, index=index)
        worker.start()
        worker.run(stopped)
        worker.close()


@app.command()
def web(context: typer.Context, child: Child = False) -> None:
    """Answer QIDO-RS, WADO-RS and health questions over HTTP."""
    from listener.web import CannotListen, create_app, run

    config = _config(context)
    logs.configure(json=not sys.stderr.isatty())
    if child:
        end_with_parent()
    search = parts.open_search(config)
    files = parts.open_files(config)

    def ready() -> list[str]:
        roles = {"receive": "no receiver is running", "work": "no worker with a loaded model is running"}
        try:
            return [complaint for role, complaint in roles.items() if not search.living(role)]
        except DatabaseAway as error:
            log.error("database not reachable reason=%r", str(error.orig))
            return ["the database does not answer"]

    application = create_app(results=search, file_path=files.path, ready=ready)
    try:
        run(application, config.http.host, config.http.port)
    except CannotListen as error:
        raise CannotServe(str(error)) from error


def _role(context: typer.Context, child: bool) -> tuple[Config, threading.Event]:
    config = _config(context)
    logs.configure(json=not sys.stderr.isatty())
    if child:
        end_with_parent()
    return config, until_told_to_stop()


# ---------------------------------------------------------------------------------------------------------------- questions


@app.command()
def studies(
    context: typer.Context, state: Annotated[str | None, typer.Option(help="Only studies in this state.")] = None, as_json: AsJson = False
) -> None:
    """List studies, the one that last received an image first."""
    config = _config(context)
    if state is not None and state not in {known.value for known in StudyState}:
        raise typer.BadParameter(f"{state} is no state; there are {', '.join(StudyState)}", param_hint="--state")
    found = parts.open_search(config).studies(state)
    if as_json:
        _print_json(found)
        return
    zone = ZoneInfo(config.site.timezone)
    for one in found:
        received = one["last_instance_at"].astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
        version = f"version {one['version']}" if one["version"] else ""
        print(printable(f"{one['study_instance_uid']:<64} {one['state']:<11} {received}  {version:<11} {one['state_reason']}"))


@app.command()
def show(context: typer.Context, study: str, as_json: AsJson = False) -> None:
    """Everything about one study: slots, rule, results, deliveries, timeline."""
    config = _config(context)
    found = parts.open_search(config).study(study)
    if as_json:
        _print_json(found)
    else:
        print(in_words(found, ZoneInfo(config.site.timezone)), end="")


@app.command()
def deliveries(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="Only deliveries in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries of result objects, newest first."""
    found = parts.open_search(_config(context)).deliveries(state)
    if as_json:
        _print_json(found)
        return
    for one in found:
        print(printable(f"{one['id']:>8} {one['destination']:<16} {one['state']:<10} {one['sop_instance_uid']:<64} {one['reason']}"))


@app.command()
def devices(
    context: typer.Context,
    days: Annotated[float, typer.Option(help="How far to look back.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Count, per device, images and what contradicts the side that they state; the most contradicted first."""
    found = parts.open_search(_config(context)).devices(days)
    if as_json:
        _print_json(found)
        return
    for one in found:
        device = " ".join(
            one[name] for name in ("manufacturer", "manufacturer_model_name", "station_name", "device_serial_number") if one[name]
        )
        print(printable(f"{device or '(no device named)'}: {one['images']} images, {one['views']} fill a slot"))
        counts = {
            "side_from_text": "side read from text",
            "orientation_contradicts": "side contradicted by PatientOrientation",
            "pixels_contradict": "side contradicted by the pixels",
            "doubts": "held as doubtful",
        }
        for name, words in counts.items():
            if one[name]:
                print(f"    {one[name]} {words}")


# ---------------------------------------------------------------------------------------------------------------- decisions


@app.command()
def reprocess(
    context: typer.Context,
    study: Annotated[list[str] | None, typer.Argument(help="Study Instance UIDs.")] = None,
    since: Annotated[str, typer.Option(help="Studies whose result was made in this time, as in 30d, 12h or 2w.")] = "",
    model: Annotated[Path | None, typer.Option("--model", help="The model card that reads them; default: that of rule or site.")] = None,
    send: Annotated[bool, typer.Option("--send", help="With --since or --model: make new versions and send them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be read.")] = False,
    from_orthanc: Annotated[
        bool, typer.Option("--from-orthanc", help="Fetch the images again by DICOMweb from [study] fetch_from.")
    ] = False,
    wait_seconds: Annotated[float, typer.Option("--wait", help="How long to wait for the worker's answer, in seconds.")] = 300.0,
) -> None:
    """Read studies again, with the model and the options of now. A new version is made only if its causes changed.

    With --since or --model nothing is sent and no version made unless --send is given: the images are read at lowest priority, and a table
    of changed classes is printed. It can be stopped and started again: what was read is not read twice.
    """
    config = _config(context)
    archive, search = parts.open_archive(config), parts.open_search(config)
    studies = list(study or ())
    if since:
        try:
            studies += [one for one in search.analysed_since(reread.days(since)) if one not in studies]
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--since") from None
    elif not studies:
        raise typer.BadParameter("name a study, or say --since 30d", param_hint="STUDY")
    card = str(model.absolute()) if model is not None else ""
    if dry_run or ((since or card) and not send):
        _reread(config, studies, card, dry_run=dry_run, wait_seconds=wait_seconds)
        return
    if card:
        parts.policy(config, card)  # a card that cannot be read is said here, not by a worker
    failed = False
    for study_instance_uid in studies:
        try:
            if from_orthanc:
                print(f"{study_instance_uid}: {fetch_and_keep(config, archive, parts.open_files(config), study_instance_uid)}")
            done, words = _asked(archive, search, study_instance_uid, RequestKind.REPROCESS, wait_seconds, card=card)
        except (FetchFailed, UnknownStudy, Busy) as error:
            done, words = False, str(error)
        print(printable(f"{study_instance_uid}: {words}"), file=sys.stdout if done else sys.stderr)
        failed = failed or not done
    if failed:
        raise typer.Exit(1)


def _reread(config: Config, studies: list[str], card: str, *, dry_run: bool, wait_seconds: float) -> None:
    policy, search, tally = parts.policy(config, card), parts.open_search(config), reread.Tally()
    lines: Iterator[str] = reread.planned(studies, search, policy)
    if not dry_run:
        lines = reread.reread(studies, parts.open_scoring(config), search, policy, tally, wait_seconds=wait_seconds)
    try:
        for line in lines:
            print(printable(line))
    except TimeoutError as error:
        raise CannotServe(str(error)) from error
    if not dry_run:
        print("\n".join(tally.table()))


@app.command()
def release(
    context: typer.Context,
    study: str,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="SOP", help="Drop this image.")] = None,
    view: Annotated[list[str] | None, typer.Option("--view", metavar="SOP=L-CC", help="This image shows that view.")] = None,
    accept_patient: Annotated[bool, typer.Option("--accept-patient", help="The images are of one patient, as the newest name it.")] = False,
    patient_of: Annotated[
        str, typer.Option("--patient-of", metavar="SOP", help="The images are of one patient, as this image names it.")
    ] = "",
    use_file: Annotated[list[int] | None, typer.Option("--use-file", metavar="ID", help="Of several files of one image take this.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; stands on the study's timeline.")] = "",
    wait_seconds: Annotated[float, typer.Option("--wait", help="How long to wait for the worker's answer, in seconds.")] = 300.0,
) -> None:
    """Let a held or incomplete study go on. `fourview show` says why it is held and which choices settle it."""
    config = _config(context)
    asked = Release(
        exclude=tuple(exclude or ()),
        view=dict(_assigned(one) for one in view or ()),
        accept_patient=accept_patient or bool(patient_of),
        patient_of=patient_of,
        use_file=tuple(use_file or ()),
    )
    _decide(config, study, RequestKind.RELEASE, wait_seconds, why=reason, release=asked)


@app.command()
def withdraw(
    context: typer.Context,
    study: str,
    reason: Annotated[str, typer.Option("--reason", help="Why; stands on the study's timeline.")] = "",
    wait_seconds: Annotated[float, typer.Option("--wait", help="How long to wait for the worker's answer, in seconds.")] = 300.0,
) -> None:
    """Take back what was said of a study: what was sent is replaced by a version that says WITHDRAWN, and nothing is read any more."""
    _decide(_config(context), study, RequestKind.WITHDRAW, wait_seconds, why=reason)


def _assigned(text: str) -> tuple[str, View]:
    sop_instance_uid, _, name = text.partition("=")
    known = {view.value: view for view in View}
    if not sop_instance_uid or name.upper() not in known:
        raise typer.BadParameter(f"{text}: write SOP=VIEW with one of {', '.join(known)}", param_hint="--view")
    return sop_instance_uid, known[name.upper()]


def _decide(
    config: Config, study_instance_uid: str, kind: RequestKind, wait_seconds: float, *, why: str, release: Release | None = None
) -> None:
    """Ask, wait, print what came of it."""
    archive, search = parts.open_archive(config), parts.open_search(config)
    done, words = _asked(archive, search, study_instance_uid, kind, wait_seconds, why=why, release=release)
    print(printable(f"{study_instance_uid}: {words}"), file=sys.stdout if done else sys.stderr)
    if not done:
        raise typer.Exit(1)


def _asked(
    archive: Archive,
    search: Search,
    study_instance_uid: str,
    kind: RequestKind,
    wait_seconds: float,
    *,
    why: str = "",
    release: Release | None = None,
    card: str = "",
) -> tuple[bool, str]:
    """Ask for one study and wait for the worker; (done, what came of it in words)."""
    request_id = uuid.uuid4().hex
    archive.request(study_instance_uid, kind, request_id=request_id, person=getpass.getuser(), why=why, release=release, card=card)
    if not search.living("work"):
        return False, "asked for, but no worker is running: start `fourview serve` (or `work`) and it will be done"
    answer = _await(lambda: search.request(request_id), wait_seconds)
    if answer is None:
        return False, f"no worker answered within {wait_seconds:g} s; it stays asked for (`fourview show`)"
    if answer != "accepted":
        return False, answer
    done = _await(lambda: _settled(search.study(study_instance_uid)), wait_seconds)
    if done is None:
        return False, "still being read (`fourview show`)"
    return done.startswith("withdrawn" if kind is RequestKind.WITHDRAW else "analysed"), done


def _settled(study: Mapping[str, Any]) -> str | None:
    return None if study["state"] == "analysing" else f"{study['state']}: {study['state_reason']}"


def _await(question: Callable[[], str | None], seconds: float) -> str | None:
    deadline = time.monotonic() + seconds
    while (answer := question()) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


# ------------------------------------------------------------------------------------------------------------ without server


@app.command()
def analyse(
    context: typer.Context,
    path: list[Path],
    card: Annotated[Path | None, typer.Option(help="The model card; default: that of the configuration.")] = None,
    heat_maps: Annotated[
        Path | None, typer.Option("--heat-maps", help="A folder for pictures with the heat map of each image's highest class.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json/--text", help="JSON (default) or a line per image.")] = True,
) -> None:
    """Read files or folders without a server: one result per image. Exit code 1 when an image could not be read."""
    from listener.analyse import analyse_files, text_line

    config = _config(context) if card is None else None
    card_path = config.model.card if config is not None else card
    assert card_path is not None
    model_card = read_card(card_path)
    allow_untrained = config.model.allow_untrained if config is not None else True
    classifier = load_classifier(model_card, allow_untrained=allow_untrained, device=config.model.device if config else "auto")
    results = analyse_files(path, model_card, classifier, config.dialect if config is not None else STANDARD, heat_maps=heat_maps)
    if as_json:
        _print_json(results)
    else:
        for result in results:
            print(text_line(result))
    if not results or not all(result["success"] for result in results):
        raise typer.Exit(1)


@app.command()
def demo(folder: Annotated[Path, typer.Option(help="Where the demonstration keeps its data.")] = Path(".demo")) -> None:
    """Two real mammography exams through Orthanc and back, with untrained weights."""
    from listener.demo import run_demo

    raise typer.Exit(run_demo(folder, out=sys.stdout))


@app.command()
def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Everything that a deployment can get wrong: configuration, database, weights, destinations, Orthanc's view of us."""
    _print_findings([(finding.ok, finding.what, finding.remedy) for finding in acceptance.check(_config(context))], as_json)


def _print_findings(findings: list[tuple[bool, str, str]], as_json: bool) -> None:
    if as_json:
        _print_json([{"ok": ok, "what": what, "remedy": remedy} for ok, what, remedy in findings])
    else:
        for ok, what, remedy in findings:
            print(printable(f"{'ok  ' if ok else 'FAIL'} {what}") + (printable(f"\n     {remedy}") if remedy else ""))
    if not all(ok for ok, _, _ in findings):
        raise typer.Exit(1)


@config_app.command("check")
def config_check(context: typer.Context) -> None:
    """Print every error of the configuration as file:line: key: what is wrong, what to write."""
    config = _config(context)
    print(f"{config.path}: ok ({len(config.rules)} rules, {len(config.pacs)} destinations)")


@db_app.command("upgrade")
def db_upgrade(context: typer.Context) -> None:
    """Make the database's tables, or bring them to this release; also the workflow engine's."""
    before, now = parts.upgrade_database(_config(context))
    print(f"schema {before or '(none)'} -> {now}")


@model_app.command("check")
def model_check(card: Path, as_json: AsJson = False) -> None:
    """Load a card's weights, verify hash, shapes, classes and self-test, and say plainly what is wrong. Exit code 1 when anything is."""
    from pipeline.model_check import check_model

    findings = check_model(card)
    _print_findings([(finding.ok, finding.what, finding.remedy) for finding in findings], as_json)


@model_app.command("self-test")
def model_self_test(card: Path, image: Path) -> None:
    """Store what the network sees of a DICOM image beside the card, and what it says of it into the card, for `model check`."""
    from listener.analyse import model_image
    from pipeline.model_check import write_self_test

    try:
        print(write_self_test(card, model_image(image, read_card(card))))
    except OSError as error:
        raise ModelError(f"{card}: the self-test cannot be written ({error.strerror})") from error


@model_app.command("demo-weights")
def model_demo_weights(context: typer.Context) -> None:
    """Write seeded, UNTRAINED weights and their card into weights/ beside the configuration file."""
    named = context.obj or Path(os.environ.get("FOURVIEW_CONFIG", "config.toml"))
    written = write_demo_weights(named.resolve().parent / "weights")
    print(f"{written} (untrained: its numbers are meaningless; needs allow_untrained = true)")


if __name__ == "__main__":
    main()
