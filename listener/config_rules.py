"""What is wrong with rules and destinations although each is right by itself: rules that can never match, destinations that nobody uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from listener.config_values import Location, suggestion
from pipeline.rule_condition import RuleError, check
from pipeline.rule_reach import is_covered, never_matches

#: Keys of a rule that name destinations.
_DESTINATIONS = ("send_to", "forward_to")


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
