"""The documents: each `fourview` command in them is one that the program has, and what they point at is there."""

from __future__ import annotations

import dataclasses
import re
import shlex
import tomllib
from enum import EnumType
from pathlib import Path
from typing import Any

import pytest
import typer.main

from listener.cli import app
from listener.config import LISTED_TABLES, SINGLE_TABLES

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("examples/*.toml")])
PROGRAM = typer.main.get_command(app)


def commands_in(text: str) -> list[str]:
    """The command lines of a text that begin with `fourview` and a word: in code spans, and on lines of blocks of code."""
    blocks = re.findall(r"(?ms)^```(?:sh)?\n(.*?)^```", text)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"(?m)^    (fourview .*)$", text)
    spans = re.findall(r"`((?:docker compose exec fourview )?fourview [^`]+)`", text)
    found = []
    for line in [*lines, *spans]:
        line = re.sub(r"\s+#.*|  .*", "", line.strip())
        line = line.removeprefix("docker compose exec fourview ").removeprefix("/opt/fourview/bin/")
        found += [part.strip() for part in re.split(r"&&?|;", line) if part.strip().startswith("fourview ")]
    return list(dict.fromkeys(found))


def wrong_with(line: str) -> str:
    """Why the program would not understand a command line; "" when it would. Capitals and dots stand for anything."""
    words = shlex.split(line)[1:]
    command: Any = PROGRAM
    given = 0
    while words:
        word = words.pop(0)
        if word == "--help":
            return ""
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            option = next((one for one in command.params if name in (*one.opts, *one.secondary_opts)), None)
            if option is None:
                return f"{command.name} has no {name}"
            if not option.is_flag and not equals:
                value = words.pop(0) if words else ""  # a text that only speaks of the option
            kind = option.type_descriptor.annotation
            if value and isinstance(kind, EnumType) and value not in {str(one.value) for one in kind} and not value.isupper():
                return f"{name} is one of {', '.join(str(one.value) for one in kind)}"
        elif getattr(command, "commands", None) is not None:
            if word == "...":
                return ""
            if word not in command.commands:
                return f"there is no command {word}"
            command = command.commands[word]
        elif word not in ("...", "…"):
            given += 1
    arguments = [one.nargs for one in command.params if one.param_type_name == "argument"]
    if -1 not in arguments and given > sum(arguments):
        return f"{command.name} takes {sum(arguments)} argument(s)"
    return ""


def test_documents_are_looked_at() -> None:
    assert {"README.md", "docs/operations.md", "docs/configuration.md", "examples/screening_bus.toml"} <= set(DOCUMENTS)
    found = commands_in((ROOT / "docs" / "operations.md").read_text("utf-8"))
    assert len(found) > 30
    assert {"fourview db upgrade", 'fourview db restored --reason "..."', "fourview reconcile --since 24h --fetch"} <= set(found)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("fourview chekc", "there is no command chekc"),
        ("fourview db upgrad", "there is no command upgrad"),
        ("fourview status --jsn", "status has no --jsn"),
        ("fourview status extra", "status takes 0 argument(s)"),
        ("fourview --config=/tmp/x.toml deliveries retry ID... --state refused --destination NAME", ""),
        ("fourview release STUDY --view SOP=L-CC", ""),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str, wrong: str) -> None:
    assert wrong_with(line) == wrong


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_in_the_documents_is_one_of_the_program(document: str) -> None:
    lines = commands_in((ROOT / document).read_text("utf-8"))
    assert {line: why for line in lines if (why := wrong_with(line))} == {}


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name.endswith(".md")])
def test_files_that_the_documents_name_are_there(document: str) -> None:
    """In code spans and links, relative to the project or to the document."""
    text = (ROOT / document).read_text("utf-8")
    named = re.findall(r"`((?:docs|examples|deploy|tests|benchmarks|weights|listener|pipeline|store)/[\w./-]+\.\w+)`", text)
    named += re.findall(r"\]\(([\w./-]+\.md)(?:#[\w-]+)?\)", text)
    made = re.compile(r"weights/(resnet50\.pt|resnet50-\w+\.\w+|new\.toml)")
    folders = (ROOT, (ROOT / document).parent)
    assert [name for name in named if not made.fullmatch(name) and not any((folder / name).is_file() for folder in folders)] == []


def test_links_within_a_document_lead_somewhere() -> None:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text("utf-8")
        headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^#+ (.*)$", text)}
        assert [target for target in re.findall(r"\]\(#([\w-]+)\)", text) if target not in headings] == [], document


def test_symptoms_have_commands() -> None:
    """The table of troubles: each row has something to type, or another program's command."""
    table = (ROOT / "docs" / "operations.md").read_text("utf-8").partition("## When something is wrong")[2]
    rows = re.findall(r"(?m)^\| (?!what you see|---)(.*?) \| (.*) \|$", table)
    assert len(rows) >= 12
    assert [symptom for symptom, remedy in rows if "`" not in remedy] == []


def test_every_key_of_the_configuration_has_an_example_and_its_unit() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    example = re.findall(r"(?ms)^```toml\n(.*?)^```", text.partition("## An example with every key")[2])[0]
    written = tomllib.loads(re.sub(r"(?m)^# (\w+ = )", r"\1", example))
    for name, table in {**SINGLE_TABLES, **LISTED_TABLES}.items():
        given = written[name] if name in SINGLE_TABLES else {key: value for one in written[name] for key, value in one.items()}
        assert set(given) == {field.name for field in dataclasses.fields(table)}, name
    known = r"second|minute|hour|day|GiB|port|process|association|image|request|first|studies|exam|connection|instance"
    units = re.compile(known, re.IGNORECASE)
    for line in example.splitlines():
        if re.match(r"(# )?\w+ = \d", line):
            assert units.search(line.partition(" = ")[2]), f"what is it a number of: {line}"
