"""Commands by which a site keeps its accounts: what came and what did not, and what is to be forgotten."""

from __future__ import annotations

import getpass
import sys
from datetime import timedelta
from typing import Annotated, Any

import typer

from listener import parts, reread
from listener.desk import Desk, forgotten_as_json
from listener.reconcile import MISSING, NAME, Account, Standing, missing_then
from listener.reconcile import reconcile as compare
from listener.show import printable
from listener.terminal import AsJson, Reason, app, configuration, print_json
from store.forget import Forgetting, Forgotten
from store.rows import UnknownStudy
from store.study import StudyState

#: What is said of each standing, in this order; states that are not here are counted and not listed.
_WORDS: dict[str, str] = {
    Standing.NEVER_SEEN: "never seen",
    Standing.PARTLY_SEEN: "received in part",
    Standing.ARRIVING: "still arriving",
    Standing.ON_DEMAND: "read on demand, never sent here",
    Standing.COPY: "copies that the PACS made by modifying or anonymising, not analysed",
    Standing.FORGOTTEN: "forgotten",
    StudyState.HELD: "held",
    StudyState.INCOMPLETE: "incomplete",
    StudyState.FAILED: "failed",
    StudyState.WITHDRAWN: "withdrawn",
    StudyState.IGNORED: "ignored",
}


@app.command()
def reconcile(
    context: typer.Context,
    since: Annotated[str, typer.Option(help="How far to look back, as in 24h, 7d or 2w.")] = "24h",
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch what never came; the rules decide what becomes of it.")] = False,
    grace: Annotated[float, typer.Option(min=0, max=525_600, help="Minutes that what the PACS received may still be on its way.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Compare the mammography studies of [study] fetch_from with ours, and what was missing last. Exit code 1: something is missing."""
    config = configuration(context)
    try:
        back = timedelta(days=reread.days(since))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    accounting = parts.open_accounting(config)
    now = accounting.now()
    doors: dict[str, Any] = {"archive": parts.open_archive(config), "files": parts.open_files(config)}
    if fetch:
        parts.open_acts(config).record(person=getpass.getuser(), what="reconcile --fetch", parameters={"since": since})
    # What an alert speaks of may have come to the PACS long before `since`: its own command must be able to settle it.
    book = parts.open_chores(config)
    again = missing_then(book.outcome(NAME))
    account = compare(config, accounting, now - back, now, **doors, fetch=fetch, again=again, grace=timedelta(minutes=grace))
    if parts.reconciles(config):
        book.ask(NAME)  # the alert goes when a worker has seen for itself
    if as_json:
        print_json(_as_json(account))
    else:
        for line in _in_words(account, config.study.fetch_from):
            print(printable(line))
    if account.missing:
        raise typer.Exit(1)


@app.command()
def forget(
    context: typer.Context,
    study: Annotated[list[str] | None, typer.Argument(help="Study Instance UIDs.")] = None,
    patient: Annotated[str, typer.Option(help="All studies of the patient with this Patient ID.")] = "",
    issuer: Annotated[str | None, typer.Option(help="With --patient: who issued that ID.")] = None,
    allow_again: Annotated[bool, typer.Option("--allow-again", help="Forget nothing: let forgotten studies come again.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Delete everything about studies here, for good, and let them not come back. Says what destinations still hold."""
    config = configuration(context)
    desk = Desk(config)
    if bool(study) == bool(patient):
        raise typer.BadParameter("name studies, or a patient with --patient", param_hint="STUDY")
    if issuer is not None and not patient:
        raise typer.BadParameter("goes with --patient", param_hint="--issuer")
    if allow_again and not study:
        raise typer.BadParameter("name the studies: of a forgotten one nothing says whose it was", param_hint="--allow-again")
    studies = list(study or ()) or desk.forgetting.studies_of(patient, issuer)
    person = getpass.getuser()
    if allow_again:
        _allow_again(desk.forgetting, studies, person, reason)
        return
    if not studies:
        raise UnknownStudy("no study here has an image of this patient")
    if not yes:
        typer.echo("\n".join(studies), err=True)
        typer.confirm(f"Delete these {len(studies)} studies here for good?", abort=True, err=True)
    failed, told = False, []
    try:
        for one in studies:
            left: list[str] = []
            try:
                for said in desk.forget(one, person=person, why=reason):
                    # Said at once: nobody else knows it any more.
                    if isinstance(said, Forgotten):
                        told.append((said, left))
                    else:
                        left.append(said)
                    if not as_json:
                        print(printable("\n".join(_forgotten_in_words(said))), flush=True)
            except UnknownStudy as error:
                print(printable(str(error)), file=sys.stderr)
                failed = True
    finally:
        if as_json:
            print_json([forgotten_as_json(gone, left) for gone, left in told])
    if failed:
        raise typer.Exit(1)


def _allow_again(book: Forgetting, studies: list[str], person: str, reason: str) -> None:
    failed = False
    for one in studies:
        allowed = book.allow_again(one, person=person, why=reason)
        failed = failed or not allowed
        print(printable(f"{one}: {'may come again' if allowed else 'was not forgotten'}"))
    if failed:
        raise typer.Exit(1)


def _forgotten_in_words(gone: Forgotten | str) -> list[str]:
    if isinstance(gone, str):
        return [f"  {gone}"]
    lines = [f"{gone.study_instance_uid}: forgotten ({gone.images} images, {gone.versions} versions, {len(gone.files)} files)"]
    lines += [f"  still at {one.destination}, or perhaps ({one.state}): {one.sop_instance_uid}" for one in gone.elsewhere]
    if gone.senders:
        lines.append(f"  the images came from {', '.join(gone.senders)}, and are deleted only there")
    return lines


def _as_json(account: Account) -> dict[str, Any]:
    return {**account.as_json(), "studies": account.studies}


def _in_words(account: Account, source: str) -> list[str]:
    total = sum(account.counts.values())
    counts = ", ".join(f"{count} {_WORDS.get(name, name).split(',')[0]}" for name, count in sorted(account.counts.items()))
    lines = [f"{source} received {total} mammography studies since {account.since:%Y-%m-%d %H:%M} UTC" + (f": {counts}" if counts else "")]
    if account.fetched:
        lines.append(f"{account.fetched} fetched")
    lines += [f"ignored by rule {rule!r}: {count}" for rule, count in sorted(account.ignored_by.items())]
    for standing, words in _WORDS.items():
        if listed := account.studies.get(standing, []):
            lines.append(f"{words}:")
            lines += [f"  {uid}" + (f" ({account.not_fetched[uid]})" if uid in account.not_fetched else "") for uid in listed]
    if any(account.counts[standing] for standing in MISSING) and not account.not_fetched:
        lines.append("fetch them with `fourview reconcile --fetch`")
    return lines
