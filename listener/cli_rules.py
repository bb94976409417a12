"""Commands about the rules: why a study went where it went, what other rules would do, and whether the examples beside the rules hold."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from listener import parts, reread, rules_diff, rules_examples, rules_explained
from listener.config import load
from listener.desk import Desk
from listener.keeping import kept_for
from listener.keys import is_uid
from listener.show import printable
from listener.terminal import AsJson, app, configuration, print_json

rules_app = typer.Typer(help="The rules.", no_args_is_help=True)
app.add_typer(rules_app, name="rules")


@rules_app.command("explain")
def explain(
    context: typer.Context,
    what: Annotated[list[str], typer.Argument(metavar="FILE|STUDY", help="DICOM files or folders, or one Study Instance UID.")],
    calling: Annotated[str, typer.Option("--from", metavar="AE_TITLE", help="With files: the AE title of the sender.")] = "",
    as_json: AsJson = False,
) -> None:
    """Ask every rule about a study that is here, or about files: true, false or unknown, what it saw, and the outcome.

    A study's days and hours are those of its coming; files are taken as if they came now. Exit code 1 when a study cannot be explained.
    """
    config = configuration(context)
    paths = [Path(one) for one in what]
    if all(path.exists() for path in paths):
        from listener.rules_files import studies_of_files  # what reads images is slow to import

        # No score is looked up, so it is all the same what would compute one.
        now, policy = datetime.now(UTC), parts.policy(config, engine_of=lambda _: "none")
        studies = studies_of_files(
            paths,
            policy,
            kept_for(parts.image_kinds(config)),
            calling_ae_title=calling,
            called_ae_title=config.dicom.ae_title,
            now=now,
        )
        told = [rules_explained.of_files(config, one, policy, now) for one in studies]
    elif len(what) == 1 and is_uid(what[0]):
        told = [Desk(config).explain(what[0])]
    else:
        wrong = next(one for one, path in zip(what, paths, strict=True) if not path.exists())
        raise typer.BadParameter(f"{wrong}: no such file, and no Study Instance UID", param_hint="FILE|STUDY")
    if as_json:
        print_json(told)
    else:
        print("\n".join(rules_explained.in_words(one) for one in told), end="")
    if not told or any(one["problem"] for one in told):
        raise typer.Exit(1)


@rules_app.command("test")
def test(context: typer.Context, as_json: AsJson = False) -> None:
    """Try the [[rule.example]] tables: each is decided by all rules in order. Exit code 1 when one does not hold."""
    config = configuration(context)
    failures = rules_examples.failures(config.rules, config.examples)
    if as_json:
        print_json({"examples": len(config.examples), "failures": [one.as_json() for one in failures]})
    else:
        for one in failures:
            print(printable("\n".join(one.in_words())))
        print(f"{len(config.examples)} examples, {len(failures)} do not hold")
    if failures:
        raise typer.Exit(1)


@rules_app.command("diff")
def diff(
    context: typer.Context,
    new: Annotated[Path, typer.Argument(metavar="NEW.toml", help="A configuration with other rules, beside the one that is in force.")],
    last: Annotated[str, typer.Option("--last", help="How far to look back, as in 7d, 12h or 2w.")] = "7d",
    as_json: AsJson = False,
) -> None:
    """List the studies of the last days whose outcome would be another one under the rules of NEW.toml, counts first."""
    config, other = configuration(context), load(new, os.environ)
    try:
        days = reread.days(last)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--last") from None
    replay = parts.open_replay(config, parts.policy(config))
    with tempfile.TemporaryFile("w+", encoding="ascii") as changed:
        found = rules_diff.compare(config, other, replay.of_last(days), changed)
        for line in rules_diff.as_json(found) if as_json else rules_diff.in_words(found, last):
            print(line)
