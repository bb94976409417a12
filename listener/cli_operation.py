"""Commands for the daily operation of a site: devices, the acceptance kit."""

from __future__ import annotations

import getpass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from listener import check as kit
from listener import reread
from listener import status as in_trouble
from listener.connect import ConnectFailed, chosen, shipped
from listener.desk import Desk
from listener.show import printable
from listener.terminal import AsJson, Reason, app, configuration, print_findings, print_json
from store.pauses import Paused


@app.command()
def devices(
    context: typer.Context,
    days: Annotated[float, typer.Option(min=0, max=reread.MOST_DAYS, help="How far to look back.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Count, per device, images and what contradicts the side that they state; the most contradicted first."""
    found = Desk(configuration(context)).devices(days)
    if as_json:
        print_json(found)
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


@app.command()
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """How the installation fares, what is in trouble first; exit code 1 on trouble, for Nagios and cron."""
    config = configuration(context)
    found = Desk(config).fares()
    if as_json:
        print_json(found.as_json())
    else:
        print(in_trouble.in_words(found, ZoneInfo(config.site.timezone)), end="")
    if found.troubles:
        raise typer.Exit(1)


@app.command()
def alerts(context: typer.Context, as_json: AsJson = False) -> None:
    """List what people are told and what is not settled yet, oldest first."""
    config = configuration(context)
    found = Desk(config).alerts()
    if as_json:
        print_json(found)
    else:
        print(in_trouble.alerts_in_words(found, ZoneInfo(config.site.timezone)), end="")


@app.command()
def pause(context: typer.Context, what: Paused, reason: Reason = "") -> None:
    """Hand out nothing more: `sending` (results wait) or `analysing` (images wait; reception goes on). What is in hand ends."""
    fresh = Desk(configuration(context)).pause(what, person=getpass.getuser(), why=reason)
    print(f"{what} is paused until `fourview resume {what}`" if fresh else f"{what} was paused already: `fourview status` says by whom")


@app.command()
def resume(context: typer.Context, what: Paused, reason: Reason = "") -> None:
    """Go on with what was paused."""
    gone = Desk(configuration(context)).resume(what, person=getpass.getuser(), why=reason)
    print(f"{what} goes on" if gone else f"{what} was not paused")


@app.command()
def acts(
    context: typer.Context,
    study: Annotated[str, typer.Option("--study", metavar="UID", help="Only what was done to this study, forgotten or not.")] = "",
    since: Annotated[str, typer.Option(help="How far to look back, as in 30d, 12h or 2w.")] = "30d",
    as_json: AsJson = False,
) -> None:
    """List what people did, newest first: who, when, why. Nothing is ever taken from this record."""
    config = configuration(context)
    try:
        days = reread.days(since)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    found = Desk(config).acts(days=days, study_instance_uid=study)
    if as_json:
        print_json(found)
        return
    zone = ZoneInfo(config.site.timezone)
    for one in found:
        more = " ".join(f"{name}={value}" for name, value in (one["parameters"] or {}).items() if value)
        when = one["at"].astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
        print(printable(f"{when}  {one['person']:<16} {one['what']:<20} {more + '  ' if more else ''}{one['why']}").replace("\n", "\\n"))


@app.command()
def check(
    context: typer.Context,
    end_to_end: Annotated[bool, typer.Option("--end-to-end", help="Also send a synthetic exam through Orthanc; await its report.")] = False,
    pacs: Annotated[str, typer.Option("--pacs", help="With --end-to-end: the [[pacs]], when several have a url.")] = "",
    seconds: Annotated[float, typer.Option(min=1, help="With --end-to-end: within which the report must be back.")] = 300.0,
    send: Annotated[bool, typer.Option("--send", help="With --end-to-end: Orthanc does not route here; ask it to send.")] = False,
    set_values: Annotated[list[str] | None, typer.Option("--set", metavar="KEYWORD=VALUE", help="Of the exam, for rules that ask.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="With --end-to-end: leave the exam in Orthanc and here.")] = False,
    write_exam: Annotated[Path | None, typer.Option(help="Only write such an exam, and a retake, into this folder.")] = None,
    acceptance: Annotated[bool, typer.Option("--acceptance", help="Print the sheet by which people accept an installation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Everything that a deployment can get wrong: configuration, database, weights, destinations, Orthanc's view of us."""
    if acceptance:
        print(shipped("site-acceptance.md"), end="")
        return
    config = configuration(context)
    if write_exam is not None:
        _write_exam(write_exam, datetime.now(ZoneInfo(config.site.timezone)), set_values or [])
        return
    if not end_to_end:
        print_findings(kit.check(config), as_json)
        return
    from listener.check_exam import Trial, changed_values
    from listener.check_exam import end_to_end as travel

    trial = Trial(seconds=seconds, send=send, keep=keep, changed=changed_values(set_values or []), person=getpass.getuser())
    print_findings(chain(kit.check(config), travel(config, chosen(config, pacs), trial)), as_json)


def _write_exam(folder: Path, now: datetime, set_values: list[str]) -> None:
    from pydicom import dcmread

    from listener import synthetic
    from listener.check_exam import changed_values

    try:
        written = synthetic.write(folder, now, changed_values(set_values))
    except OSError as error:
        where = "name a new folder where the user that runs Fourview may write, as /tmp/exam"
        raise ConnectFailed(f"{folder}: the exam cannot be written ({error.strerror}); {where}") from error
    print(f"{folder}: {', '.join(path.name for path in written)}")
    print(f"study {dcmread(written[0], stop_before_pixels=True).StudyInstanceUID} of patient {synthetic.PATIENT_ID}, no real one")
