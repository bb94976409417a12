"""Commands for the Orthanc beside us."""

from __future__ import annotations

from dataclasses import replace as with_values
from pathlib import Path
from typing import Annotated

import typer

from listener import connect as connecting
from listener.connect import Script
from listener.terminal import AsJson, app, configuration, print_findings

orthanc_app = typer.Typer(help="The Orthanc beside us.", no_args_is_help=True)
app.add_typer(orthanc_app, name="orthanc")


@orthanc_app.command("connect")
def orthanc_connect(
    context: typer.Context,
    pacs: Annotated[str, typer.Argument(metavar="[PACS]", help="The name of its [[pacs]]; needless when one has a url.")] = "",
    url: Annotated[str, typer.Option(help="Another address of its REST, or an Orthanc without a [[pacs]].")] = "",
    host: Annotated[str, typer.Option(help="By which Orthanc reaches this machine; else it is found out.")] = "",
    script: Annotated[Script, typer.Option(help="Routing by stable series, by each image, or by the site itself.")] = Script.STABLE,
    into: Annotated[Path | None, typer.Option(help="Write the script into this folder; else its text is printed.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over an entry or a script that differs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write our entry into Orthanc's modalities, try C-ECHO both ways, and install or print the routing script."""
    config = configuration(context)
    one = connecting.chosen(config, pacs, url=url)
    one = with_values(one, url=url.rstrip("/")) if url else one
    ours = connecting.wanted(config, one, host)
    findings = connecting.connect(config, one, ours, replace=replace, dry_run=dry_run)
    told = list(connecting.install(script, into, replace=replace, dry_run=dry_run))
    try:
        print_findings(findings, as_json)
    finally:
        if not as_json:
            print("\n".join(told) if told else "No script is installed: something else must send mammograms to us.")
