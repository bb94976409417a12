"""What is wrong between rules and destinations of which each is right by itself: names, rules that can never match, what nobody uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from listener import rules_examples
from listener.config_values import Location, suggestion
from pipeline.rule_condition import RuleError, check
from pipeline.rule_reach import is_covered, never_matches
from pipeline.rules import Action

#: Keys of a rule that name destinations.
_DESTINATIONS = ("send_to", "forward_to")


def contradictions(
    pacs: Sequence[Mapping[str, Any]], rules: Sequence[Mapping[str, Any]], accept_from: object
) -> Iterator[tuple[Location, str]]:
    """What is wrong between keys that are right by themselves. Works on tables as they are written, whether or not they are valid;
    `accept_from` is that of [dicom]."""
    names: list[str] = []
    for index, table in enumerate(pacs):
        name = str(table.get("name", "")).strip()
        if name and name in names:
            yield ("pacs", index, "name"), f"there is already a [[pacs]] named {name!r}; names must differ"
        names.append(name)
        if table.get("confirm") == "dicomweb" and not table.get("url"):
            yield ("pacs", index, "confirm"), "needs url, the address of the PACS's DICOMweb"
    titles = [str(table.get("ae_title", "")).strip().upper() for table in pacs]
    only_sender = _only_sender(accept_from)
    rule_names: list[str] = []
    for index, table in enumerate(rules):
        name = str(table.get("name", "")).strip()
        if name and name in rule_names:
            yield ("rule", index, "name"), f"there is already a [[rule]] named {name!r}; names must differ"
        rule_names.append(name)
        for key in _DESTINATIONS:
            for destination in _list(table, key):
                if destination not in names:
                    yield ("rule", index, key), f"no [[pacs]] is named {destination!r}{suggestion(str(destination), names)}"
                elif key == "forward_to" and titles[names.index(destination)] == only_sender:
                    words = f"circular: {only_sender} alone may send here ([dicom] accept_from), and no image goes back to its sender"
                    yield ("rule", index, key), f"{words}; leave {destination!r} out"
        if table.get("action") == Action.IGNORE:
            if table.get("send_to"):
                yield ("rule", index, "send_to"), "an ignored study has no results to send; leave send_to out"
            for key, default in (("slots", "standard"), ("when_incomplete", ""), ("model", ""), ("priority", 5)):
                if table.get(key, default) != default:
                    yield ("rule", index, key), f"nothing is awaited of an ignored study; leave {key} out"
    yield from rules_examples.contradictions(rules, rule_names)


def _list(table: Mapping[str, Any], key: str) -> list[Any]:
    """A list of a table, empty when it is none."""
    found = table.get(key)
    return found if isinstance(found, list) else []


def _only_sender(accept_from: object) -> str | None:
    """The one AE title that may send to us, in capitals; None when there are several, or any may."""
    titles = accept_from.split(",") if isinstance(accept_from, str) else accept_from
    found = {str(title).strip().upper() for title in titles} if isinstance(titles, list | tuple) else set()
    return found.pop() if len(found) == 1 else None


def unreachable(tables: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Location, str]]:
    """Rules that can never match, where that is certain. `tables` are those of the rules, in their order."""
    before: list[tuple[str, str]] = []
    for index, table in enumerate(tables):
        when, name = table.get("when"), str(table.get("name", ""))
        try:
            check(str(when))
        except RuleError:
            continue
        if never_matches(str(when)):
            yield ("rule", index, "when"), "can never match: no study has values that make it true; correct it, or remove the rule"
        elif by := next((other for other, earlier in before if is_covered(str(when), earlier)), None):
            words = f"can never match: whatever it matches, rule {by!r} before it matches too; put it before that rule, or remove it"
            yield ("rule", index, "when"), words
        before.append((name, str(when)))


def unused(pacs: Sequence[Mapping[str, Any]], rules: Sequence[Mapping[str, Any]], fetch_from: object) -> Iterator[tuple[Location, str]]:
    """Destinations that no rule names and from which nothing is fetched."""
    named = {str(name) for rule in rules for key in _DESTINATIONS for name in rule.get(key, ())}
    for index, table in enumerate(pacs):
        name = str(table.get("name", "")).strip()
        is_source = name == fetch_from and table.get("url")
        if name not in named and not is_source and not table.get("by_hand"):
            yield (
                ("pacs", index, "name"),
                "no rule names it and nothing is fetched from it; write it into send_to of a rule, or by_hand = true where only people "
                "send to it (`fourview send --to`), or remove the table",
            )


def missing_cards(rules: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[tuple[Location, str]]:
    """Model cards that rules name and that are not there; `folder` is that of the configuration file."""
    for index, table in enumerate(rules):
        name = table.get("model")
        if not isinstance(name, str) or not name or (folder / name).is_file():
            continue
        beside = (folder / name).parent
        known = [path.name for path in sorted(beside.glob("*.toml"))] if beside.is_dir() else []
        near = suggestion(Path(name).name, known) or "; write the path of a model card, relative to the folder of this file"
        yield ("rule", index, "model"), f"no such file{near} (got {name!r})"
