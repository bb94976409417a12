"""Commands for the daily operation of a site: devices, the acceptance kit."""

from __future__ import annotations

import getpass
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from listener import check as acceptance
from listener import reread
from listener import status as in_trouble
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
def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Everything that a deployment can get wrong: configuration, database, weights, destinations, Orthanc's view of us."""
    print_findings([(finding.ok, finding.what, finding.remedy) for finding in acceptance.check(configuration(context))], as_json)
