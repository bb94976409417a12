"""Commands for the daily operation of a site: deliveries, devices, the acceptance kit."""

from __future__ import annotations

from typing import Annotated

import typer

from listener import check as acceptance
from listener import parts
from listener.show import printable
from listener.terminal import AsJson, app, configuration, print_findings, print_json


@app.command()
def deliveries(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="Only deliveries in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries of result objects, newest first."""
    found = parts.open_search(configuration(context)).deliveries(state)
    if as_json:
        print_json(found)
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
    found = parts.open_search(configuration(context)).devices(days)
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
def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Everything that a deployment can get wrong: configuration, database, weights, destinations, Orthanc's view of us."""
    print_findings([(finding.ok, finding.what, finding.remedy) for finding in acceptance.check(configuration(context))], as_json)
