"""Commands that set an installation up: configuration, database, model, demonstration."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from listener import parts, rules_examples
from listener.config import ConfigErrors
from listener.terminal import AsJson, Reason, app, configuration, print_findings
from pipeline.model import ModelError, read_card, write_demo_weights
from store.study import version_number

config_app = typer.Typer(help="The configuration.", no_args_is_help=True)
db_app = typer.Typer(help="The database.", no_args_is_help=True)
model_app = typer.Typer(help="The model.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(db_app, name="db")
app.add_typer(model_app, name="model")


@app.command()
def demo(folder: Annotated[Path, typer.Option(help="Where the demonstration keeps its data.")] = Path(".demo")) -> None:
    """Two real mammography exams through Orthanc and back, with untrained weights."""
    from listener.demo import run_demo

    raise typer.Exit(run_demo(folder, out=sys.stdout))


@config_app.command("check")
def config_check(context: typer.Context) -> None:
    """Print every error of the configuration as file:line: key: what is wrong, what to write; also each example that does not hold."""
    config = configuration(context)
    if failures := rules_examples.failures(config.rules, config.examples):
        raise ConfigErrors([one.complaint() for one in failures])
    print(f"{config.path}: ok ({len(config.rules)} rules, {len(config.pacs)} destinations)")


@db_app.command("upgrade")
def db_upgrade(context: typer.Context) -> None:
    """Make the database's tables, or bring them to this release; also the workflow engine's."""
    before, now = parts.upgrade_database(configuration(context))
    print(f"schema {before or '(none)'} -> {now}")


@db_app.command("restored")
def db_restored(context: typer.Context, reason: Reason = "") -> None:
    """Say that the database was put back from a backup: no version number and no UID is used again for something else.

    Run it before anything is started.
    """
    epoch = parts.declare_restored(configuration(context), person=getpass.getuser(), why=reason)
    print(f"restored for the {epoch}. time: the next version of a study is number {version_number(0, epoch)} or higher")
    print("next: start, then `fourview reconcile --since ... --fetch` for what came since the backup")


@model_app.command("check")
def model_check(card: Path, as_json: AsJson = False) -> None:
    """Load a card's weights, verify hash, shapes, classes and self-test, and say plainly what is wrong. Exit code 1 when anything is."""
    from pipeline.model_check import check_model

    findings = check_model(card)
    print_findings([(finding.ok, finding.what, finding.remedy) for finding in findings], as_json)


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
