"""Commands that set an installation up: configuration, database, model, demonstration."""

from __future__ import annotations

import getpass
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from listener import init as first_configuration
from listener import parts, rules_examples
from listener.config import ConfigErrors, load
from listener.finding import Finding
from listener.init import Answers, Interview
from listener.show import printable
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


@app.command()
def init(
    context: typer.Context,
    path: Annotated[Path | None, typer.Argument(help="The file to write [as --config].")] = None,
    ae_title: Annotated[str | None, typer.Option(help="AE title of Fourview [FOURVIEW].")] = None,
    port: Annotated[str | None, typer.Option(help="DICOM port of Fourview [11112].")] = None,
    senders: Annotated[str | None, typer.Option(help="Who may send: here (this machine only) or others [here].")] = None,
    orthanc_url: Annotated[str | None, typer.Option(help="Orthanc's REST, or none [http://127.0.0.1:8042].")] = None,
    user: Annotated[str | None, typer.Option(help="User there, or none [none].")] = None,
    password_file: Annotated[str | None, typer.Option(help="File with the password [orthanc.password].")] = None,
    pacs_ae_title: Annotated[str | None, typer.Option(help="Where results go, or none [what Orthanc says, else ORTHANC].")] = None,
    pacs_host: Annotated[str | None, typer.Option(help="Its host [that of --orthanc-url].")] = None,
    pacs_port: Annotated[str | None, typer.Option(help="Its DICOM port [what Orthanc says, else 4242].")] = None,
    timezone: Annotated[str | None, typer.Option(help="As in Europe/London [this machine's].")] = None,
    language: Annotated[str | None, typer.Option(help="Of results: en or ko [en].")] = None,
    model_card: Annotated[str | None, typer.Option(help="The model card [weights/resnet50.toml if it is there].")] = None,
    demo_weights: Annotated[bool, typer.Option("--demo-weights", help="UNTRAINED weights in its place; they are written now.")] = False,
    accept_untrained: Annotated[bool, typer.Option("--accept-untrained", help="UNTRAINED results may be sent.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: what no option says is as in [brackets].")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that is there.")] = False,
) -> None:
    """Ask five questions and write a commented config.toml; with --yes it asks nothing."""
    options = {
        "ae_title": ae_title,
        "port": port,
        "senders": senders,
        "orthanc_url": orthanc_url,
        "user": user,
        "password_file": password_file,
        "pacs_ae_title": pacs_ae_title,
        "pacs_host": pacs_host,
        "pacs_port": pacs_port,
        "timezone": timezone,
        "language": language,
        "model_card": first_configuration.DEMO if demo_weights else model_card,
    }
    said: dict[str, Any] = {"accept_untrained": True} if accept_untrained else {}
    for name, option in options.items():
        if option is not None:
            try:
                said[name] = first_configuration.valid(name, option)
            except ValueError as error:
                raise typer.BadParameter(str(error), param_hint=f"--{name.replace('_', '-')}") from None
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter(
            "nobody can be asked here, standard input is no terminal: give it, and options for what is not as in the "
            "[brackets] of `fourview init --help`",
            param_hint="--yes",
        )
    path = path or context.obj or Path(os.environ.get("FOURVIEW_CONFIG", "config.toml"))
    path = path / "config.toml" if path.is_dir() else path
    if path.exists() and not replace:
        raise first_configuration.exists(path)
    folder = path.absolute().parent
    zone = first_configuration.machine_zone(os.environ)
    interview = Interview(said, folder, zone=zone, person=None if yes else _Terminal(), say=_say)
    answers = interview.answers()
    for file, password in interview.secrets.items():
        first_configuration.write(file, f"{password}\n", replace_old=False)
    first_configuration.write(path, first_configuration.text(answers), replace_old=replace)
    _next_steps(path, answers)


def _say(line: str) -> None:
    print(printable(line))  # Orthanc's own words may be in it


class _Terminal:
    """A person at the terminal."""

    def prompt(self, question: str, default: str) -> str:
        return str(typer.prompt(f"     {question}", default=default or None))

    def password(self, question: str) -> str:
        return str(typer.prompt(f"     {question}", hide_input=True))


def _next_steps(path: Path, answers: Answers) -> None:
    """What remains to be done; demonstration weights are written at once."""
    load(path, {})  # it is what `config check` accepts, or this says why not
    print(f"{path} is written, for its owner only: it must belong to the user that runs Fourview")
    card = path.absolute().parent / answers.model_card
    if answers.untrained and not card.is_file():
        print("untrained weights are written, which takes some seconds", flush=True)
        print(f"{write_demo_weights(card.parent)} (untrained: its numbers are meaningless)")
    elif not card.is_file():
        print(f"{card} is not there yet: weights/README.md says how to write a model card")
    named = Path(os.environ.get("FOURVIEW_CONFIG", "config.toml"))
    here = "" if path.absolute() == named.absolute() else f" --config {path}"
    steps = ["config check", "db upgrade", "serve", *(["orthanc connect"] if answers.orthanc_url else []), "check"]
    print("next: " + ", ".join(f"`fourview{here} {step}`" for step in steps) + "; as a service instead of `serve`: docs/operations.md")


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
    print_findings([Finding(one.ok, one.what, one.remedy) for one in findings], as_json)


@model_app.command("self-test")
def model_self_test(card: Path, image: Path) -> None:
    """Store what the network sees of a DICOM image beside the card, and what it says of it into the card, for `model check`."""
    from listener.analyse import model_image
    from pipeline.model_check import write_self_test

    try:
        print(write_self_test(card, model_image(image, read_card(card))))
    except OSError as error:
        raise ModelError(f"{card}: the self-test cannot be written ({error.strerror})") from error


class EngineName(StrEnum):
    """What `auto` may mean."""

    TORCH = "torch"
    OPENVINO = "openvino"


@model_app.command("engine")
def model_engine(context: typer.Context, auto: Annotated[EngineName | None, typer.Argument()] = None, reason: Reason = "") -> None:
    """Say what computes the models of this installation; with `torch` or `openvino`: what [model] engine = "auto" means from now on.

    It counts for processes that start afterwards. Another engine is another identity: what is read again is another run.
    """
    engines = parts.open_engines(configuration(context))
    if auto is not None:
        before = engines.switch(auto.value, person=getpass.getuser(), why=reason)
        print(f"auto: {before.auto or 'not settled'} -> {auto.value}; restart every process of every host")
        return
    record = engines.record()
    print(f"auto: {record.auto or 'not settled: the first worker that starts does it'}")
    for weights, verdict in sorted(record.verdicts.items()):
        said = "openvino agrees with torch" if verdict.agrees else f"torch reads, openvino is refused: {verdict.reason}"
        print(printable(f"weights {weights}: {said}"))


@model_app.command("demo-weights")
def model_demo_weights(context: typer.Context) -> None:
    """Write seeded, UNTRAINED weights and their card into weights/ beside the configuration file."""
    named = context.obj or Path(os.environ.get("FOURVIEW_CONFIG", "config.toml"))
    written = write_demo_weights(named.resolve().parent / "weights")
    print(f"{written} (untrained: its numbers are meaningless; needs allow_untrained = true)")
