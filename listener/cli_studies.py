"""Commands about studies: what people ask of them and decide."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from listener import parts, reread
from listener.config import Config
from listener.desk import Desk, UnknownDestination
from listener.fetch import fetch_and_keep
from listener.serve import CannotServe
from listener.show import in_words, place_in_words, printable
from listener.terminal import AsJson, Reason, app, configuration, print_json
from pipeline.model import read_card
from pipeline.orthanc import FetchFailed
from store.grouping import Release, RequestKind
from store.listing import Wanted
from store.rows import Busy, UnknownStudy
from store.study import StudyState, View
from store.view import STANDARD

#: Studies that are listed at once.
_MOST = 1000


@app.command()
def studies(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="Only studies in this state.")] = None,
    sender: Annotated[str, typer.Option(help="Only studies of which an image came from this calling AE title.")] = "",
    as_json: AsJson = False,
) -> None:
    """List studies, the one that last received an image first. Of one that waits to be read it says where it stands in the queue."""
    config = configuration(context)
    if state is not None and state not in {known.value for known in StudyState}:
        raise typer.BadParameter(f"{state} is no state; there are {', '.join(StudyState)}", param_hint="--state")
    found = Desk(config).studies(Wanted(states=(state,) if state else (), calling_ae_title=sender), limit=_MOST).studies
    if as_json:
        print_json(found)
        return
    zone = ZoneInfo(config.site.timezone)
    for one in found:
        received = one["last_instance_at"].astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
        version = f"version {one['version']}" if one["version"] else ""
        said = "; ".join(text for text in (one["state_reason"], place_in_words(one["queue"]) if one["queue"] else "") if text)
        print(printable(f"{one['study_instance_uid']:<64} {one['state']:<11} {received}  {version:<11} {said}"))


@app.command()
def show(context: typer.Context, study: str, as_json: AsJson = False) -> None:
    """Everything about one study: slots, rule, results, deliveries, timeline."""
    config = configuration(context)
    found = Desk(config).study(study)
    if as_json:
        print_json(found)
    else:
        print(in_words(found, ZoneInfo(config.site.timezone)), end="")


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
    reason: Reason = "",
    wait_seconds: Annotated[float, typer.Option("--wait", help="How long to wait for the worker's answer, in seconds.")] = 300.0,
) -> None:
    """Read studies again, with the model and the options of now. A new version is made only if its causes changed.

    With --since or --model nothing is sent and no version made unless --send is given: the images are read at lowest priority, and a table
    of changed classes is printed. It can be stopped and started again: what was read is not read twice.
    """
    config = configuration(context)
    desk, search = Desk(config), parts.open_search(config)
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
        if not dry_run:
            asked = {"since": since, "card": card, "studies": len(studies)}
            parts.open_acts(config).record(person=getpass.getuser(), what="compare", why=reason, parameters=asked)
        _reread(config, studies, card, dry_run=dry_run, wait_seconds=wait_seconds)
        return
    if card:
        parts.policy(config, card)  # a card that cannot be read is said here, not by a worker
    failed = False
    for study_instance_uid in studies:
        try:
            if from_orthanc:
                fetched = fetch_and_keep(config, parts.open_archive(config), parts.open_files(config), study_instance_uid)
                print(f"{study_instance_uid}: {fetched}")
            request_id = desk.ask(study_instance_uid, RequestKind.REPROCESS, person=getpass.getuser(), why=reason, card=card)
            done, words = _came(desk, request_id, wait_seconds)
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
    patient_from_pacs: Annotated[
        bool, typer.Option("--patient-from-pacs", help="The destination that names another patient for this study is right.")
    ] = False,
    use_file: Annotated[list[int] | None, typer.Option("--use-file", metavar="ID", help="Of several files of one image take this.")] = None,
    reason: Reason = "",
    wait_seconds: Annotated[float, typer.Option("--wait", help="How long to wait for the worker's answer, in seconds.")] = 300.0,
) -> None:
    """Let a held or incomplete study go on. `fourview show` says why it is held and which choices settle it."""
    config = configuration(context)
    asked = Release(
        exclude=tuple(exclude or ()),
        view=dict(_assigned(one) for one in view or ()),
        accept_patient=accept_patient or bool(patient_of),
        patient_of=patient_of,
        patient_from_pacs=patient_from_pacs,
        use_file=tuple(use_file or ()),
    )
    _decide(config, study, RequestKind.RELEASE, wait_seconds, why=reason, release=asked)


@app.command()
def withdraw(
    context: typer.Context,
    study: str,
    reason: Reason = "",
    wait_seconds: Annotated[float, typer.Option("--wait", help="How long to wait for the worker's answer, in seconds.")] = 300.0,
) -> None:
    """Take back what was said of a study: what was sent is replaced by a version that says WITHDRAWN, and nothing is read any more."""
    _decide(configuration(context), study, RequestKind.WITHDRAW, wait_seconds, why=reason)


@app.command()
def send(
    context: typer.Context,
    study: str,
    to: Annotated[list[str] | None, typer.Option("--to", metavar="PACS", help="A [[pacs]] to send to, besides where rules say.")] = None,
    reason: Reason = "",
    wait_seconds: Annotated[float, typer.Option("--wait", help="How long to wait for the worker's answer, in seconds.")] = 300.0,
) -> None:
    """Send the results of a study whatever the rules say: one that was read on demand, or that the rules ignore."""
    desk = Desk(configuration(context))
    try:
        request_id = desk.send(study, person=getpass.getuser(), why=reason, send_to=to or ())
    except UnknownDestination as error:
        raise typer.BadParameter(str(error), param_hint="--to") from None
    _tell(desk, study, request_id, wait_seconds)


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
    desk = Desk(config)
    request_id = desk.ask(study_instance_uid, kind, person=getpass.getuser(), why=why, release=release)
    _tell(desk, study_instance_uid, request_id, wait_seconds)


def _tell(desk: Desk, study_instance_uid: str, request_id: str, wait_seconds: float) -> None:
    """Wait and print what came of it."""
    done, words = _came(desk, request_id, wait_seconds)
    print(printable(f"{study_instance_uid}: {words}"), file=sys.stdout if done else sys.stderr)
    if not done:
        raise typer.Exit(1)


def _came(desk: Desk, request_id: str, wait_seconds: float) -> tuple[bool, str]:
    """What came of a request: (done, in words)."""
    answer = desk.wait(request_id, wait_seconds)
    return answer["done"], answer["text"]


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
    from pipeline.engines import load

    config = configuration(context) if card is None else None
    card_path = config.model.card if config is not None else card
    assert card_path is not None
    model_card = read_card(card_path)
    allow_untrained = config.model.allow_untrained if config is not None else True
    engine, device, kept_in = "auto", "auto", None
    if config is not None:  # as this installation reads, and from where its models lie, if they do
        engine, device, folder = parts.likely(config, model_card), config.model.device, parts.engines_folder(config)
        kept_in = folder if folder.is_dir() else None
    classifier = load(model_card, engine=engine, allow_untrained=allow_untrained, device=device, kept_in=kept_in)
    results = analyse_files(path, model_card, classifier, config.dialect if config is not None else STANDARD, heat_maps=heat_maps)
    if as_json:
        print_json(results)
    else:
        for result in results:
            print(text_line(result))
    if not results or not all(result["success"] for result in results):
        raise typer.Exit(1)
