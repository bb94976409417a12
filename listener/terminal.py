"""What all commands have in common: the program itself, its options, and how it prints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from listener.config import Config, load
from listener.finding import Finding
from listener.show import STEERING, json_value, printable

app = typer.Typer(
    name="fourview",
    help="A DICOM listener that reads every new mammogram. Research use only. NOT FOR DIAGNOSTIC USE.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # it would take the [[pacs]] of a help text for markup
)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="The configuration file; default: $FOURVIEW_CONFIG, else ./config.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept beside what was done.")]


@app.callback()
def _configured(context: typer.Context, config: ConfigFile = None) -> None:
    context.obj = config


def configuration(context: typer.Context) -> Config:
    """The configuration that the command line or the environment names; raises ConfigErrors."""
    return load(context.obj, os.environ)


def print_json(value: Any) -> None:
    """`value` as JSON; times in ISO 8601. What could steer a terminal is written as an escape of JSON."""
    text = json.dumps(value, indent=2, default=json_value, ensure_ascii=False)
    print(STEERING.sub(lambda found: json.dumps(found[0])[1:-1], text))


def print_findings(findings: Iterable[Finding], as_json: bool) -> None:
    """Each as it comes, a line each and one for its remedy; JSON at the end. Exit code 1 when one is not ok."""
    told = []
    for one in findings:
        told.append(one)
        if not as_json:
            seconds = "" if one.seconds is None else f" ({one.seconds:.1f} s)"
            print(printable(f"{'ok  ' if one.ok else 'FAIL'} {one.what}{seconds}"), flush=True)
            if one.remedy:
                print(printable(f"     {one.remedy}"), flush=True)
    if as_json:
        print_json([one.as_json() for one in told])
    if not all(one.ok for one in told):
        raise typer.Exit(1)
