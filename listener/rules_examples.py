"""Examples beside the rules: `[[rule.example]]` says values of a study and what the rules must make of it; `fourview rules test` tries it.

An example is decided by all rules in their order, as a study is. What it does not say is absent; from its views follow number and side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field

from listener.config_values import Location, Table, suggestion
from listener.rules_verdicts import rule_lines, verdicts
from pipeline import rule_facts, rules
from pipeline.rules import Action
from store.study import ImageKind, View

_Text = Annotated[str, Field(strict=True, min_length=1)]
_Days = Annotated[int, Field(strict=True, ge=0)]
_Years = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_ViewName = Literal["R-CC", "L-CC", "R-MLO", "L-MLO"]


@dataclass(frozen=True, kw_only=True)
class Example(Table):
    """One `[[rule.example]]` as it is written: `then` what the rules must say, `by` which of them (left out: the one that it stands beside;
    "": none), and symbols with their values."""

    then: Action
    by: str | None = None
    Modality: _Text | None = None
    SOPClass: _Text | None = None
    CallingAET: _Text | None = None
    CalledAET: _Text | None = None
    StationName: _Text | None = None
    Manufacturer: _Text | None = None
    ManufacturerModelName: _Text | None = None
    DeviceSerialNumber: _Text | None = None
    InstitutionName: _Text | None = None
    StudyDescription: _Text | None = None
    SeriesDescription: _Text | None = None
    ProtocolName: _Text | None = None
    PatientAge: _Years | None = None
    PatientSex: _Text | None = None
    StudyAge: _Days | None = None
    Views: tuple[_ViewName, ...] | None = None
    NumViews: Annotated[int, Field(strict=True, ge=0, le=4)] | None = None
    Implant: Literal["YES", "NO"] | None = None
    Kind: ImageKind | None = None
    Laterality: Literal["L", "R", "B"] | None = None
    BodyPart: _Text | None = None
    Weekday: Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"] | None = None
    Hour: Annotated[int, Field(strict=True, ge=0, le=23)] | None = None


#: What an example says beside symbols.
EXPECTATIONS = ("then", "by")
EXAMPLE_KEYS = tuple(one.name for one in fields(Example))


@dataclass(frozen=True, kw_only=True)
class PlacedExample:
    """An example, where it is written ("file:line"), and the name of the rule beside which it stands."""

    place: str
    rule: str
    example: Example

    @property
    def by(self) -> str:
        """The name of the rule that must decide; "": none."""
        return self.rule if self.example.by is None else self.example.by

    def facts(self) -> dict[str, object]:
        """The value of every symbol, as an image would give it."""
        views = [View(view) for view in self.example.Views or ()]
        facts = _of_views(views)
        said = {name: getattr(self.example, name) for name in EXAMPLE_KEYS if name not in (*EXPECTATIONS, "Views")}
        return facts | {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An example that the rules make something else of."""

    place: str
    expected: str
    came: str
    reason: str
    verdicts: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {name.name: getattr(self, name.name) for name in fields(self)}

    def complaint(self) -> str:
        """As `fourview config check` says it."""
        return (
            f"{self.place}: rule.example: expected {self.expected}, but the rules say {self.came}: {self.reason}; mend the one or the other"
        )

    def in_words(self) -> Iterator[str]:
        """As `fourview rules test` says it, with what each rule says."""
        yield f"{self.place}: expected {self.expected}, but the rules say {self.came}"
        yield from (f"  {line}" for line in rule_lines(self.verdicts))


def failures(asked: Sequence[rules.Rule], examples: Iterable[PlacedExample]) -> list[Failure]:
    """The examples that do not hold."""
    found = []
    for one in examples:
        facts = one.facts()
        decision = rules.decide(asked, facts)
        if (decision.action, decision.rule_name) != (one.example.then, one.by):
            found.append(
                Failure(
                    place=one.place,
                    expected=_words(one.example.then, one.by),
                    came=_words(decision.action, decision.rule_name),
                    reason=decision.reason,
                    verdicts=tuple(verdicts(asked, facts, decision)),
                )
            )
    return found


def _of_views(views: Sequence[View]) -> dict[str, object]:
    """The facts of a study of which nothing but the filled views is known."""
    return rule_facts.facts([], views=views, calling_ae_title="", called_ae_title="", today=date.min)


def _words(action: Action, rule_name: str) -> str:
    return f"{action} by rule {rule_name!r}" if rule_name else f"{action} by no rule"


def contradictions(tables: Sequence[Mapping[str, Any]], rule_names: Sequence[str]) -> Iterator[tuple[Location, str]]:
    """What is wrong between the keys of examples that are right by themselves; `tables` are those of the rules, as they are written."""
    for index, table in enumerate(tables):
        listed = table.get("example")
        for number, example in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(example, dict):
                place: Location = ("rule", index, "example", number)
                yield from (((*place, key), words) for key, words in _contradiction(example, rule_names))


def _contradiction(example: Mapping[str, Any], rule_names: Sequence[str]) -> Iterator[tuple[str, str]]:
    by = example.get("by")
    if isinstance(by, str) and by and by not in rule_names:
        yield "by", f"no [[rule]] is named {by!r}{suggestion(by, rule_names)}"
    if by == "" and example.get("then") in (Action.ANALYSE, Action.HOLD):
        yield "by", 'what no rule takes is ignored; write then = "ignore", or leave by out'
    views = example.get("Views")
    if isinstance(views, list) and all(view in View.__members__.values() for view in views):
        follows = _of_views([View(view) for view in views])
        for name in ("NumViews", "Laterality"):
            if name in example and example[name] != follows[name]:
                yield name, f"contradicts Views, from which {follows[name]} follows; leave {name} out"
