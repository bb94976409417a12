"""A structured report as a person reads it: PS3.18 10.4.1.1.3 (rendered instance), PS3.3 C.17.3 (content tree). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape

from pydicom.dataset import Dataset

from listener.show import harmless

_HEADINGS = (
    ("Patient", "PatientName"),
    ("Patient ID", "PatientID"),
    ("Birth date", "PatientBirthDate"),
    ("Study date", "StudyDate"),
    ("Accession number", "AccessionNumber"),
    ("Series", "SeriesDescription"),
    ("Written", "ContentDate"),
    ("Completion", "CompletionFlag"),
    ("Verification", "VerificationFlag"),
)

_STYLE = "body{font:1rem/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}dt{font-weight:bold}ul{list-style:none}"


@dataclass(frozen=True)
class Line:
    """One content item: `depth` 0 for the root; `value` is "" for a container."""

    depth: int
    name: str
    value: str


def lines(ds: Dataset) -> Iterator[Line]:
    """The content items of a structured report in the order of the document, root first."""
    yield from _walk(ds, 0)


def as_html(ds: Dataset) -> str:
    """A complete HTML page; every word that comes from the object is escaped, nothing is loaded from elsewhere."""
    title = escape(_concept(ds) or "Structured report")
    headings = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _headings(ds))
    items = "".join(
        f'<li style="margin-left:{line.depth * 1.5}rem">'
        + (_named(line) if line.value else f"<strong>{escape(line.name)}</strong>")
        + "</li>"
        for line in lines(ds)
    )
    return harmless(
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1><dl>{headings}</dl><ul>{items}</ul></body></html>"
    )


def as_text(ds: Dataset) -> str:
    """The same as plain text, two blanks of indentation for a level."""
    rows = [f"{name}: {value}" for name, value in _headings(ds)]
    rows += ["  " * line.depth + (f"{line.name}: {line.value}" if line.value else line.name) for line in lines(ds)]
    return harmless("\n".join(rows)) + "\n"


def _named(line: Line) -> str:
    return f"{escape(line.name)}: {escape(line.value)}"


def _headings(ds: Dataset) -> Iterator[tuple[str, str]]:
    for name, keyword in _HEADINGS:
        if value := str(ds.get(keyword, "")):
            yield name, value


def _walk(item: Dataset, depth: int) -> Iterator[Line]:
    value = _VALUES[item.ValueType](item) if item.get("ValueType") in _VALUES else ""
    yield Line(depth, _concept(item) or str(item.get("ValueType", "")).capitalize(), value)
    for child in item.get("ContentSequence", []):
        yield from _walk(child, depth + 1)


def _concept(item: Dataset, keyword: str = "ConceptNameCodeSequence") -> str:
    return ", ".join(str(code.get("CodeMeaning", "")) for code in item.get(keyword, []))


def _measurement(item: Dataset) -> str:
    measured = [f"{_number(value)} {_unit(value)}" for value in item.get("MeasuredValueSequence", [])]
    return ", ".join(measured) or _concept(item, "NumericValueQualifierCodeSequence")


def _number(value: Dataset) -> str:
    return str(value.get("NumericValue", "")).removesuffix(".0")


def _unit(value: Dataset) -> str:
    return ", ".join(str(unit.get("CodeValue", "")) for unit in value.get("MeasurementUnitsCodeSequence", []))


def _reference(item: Dataset) -> str:
    return ", ".join(str(reference.get("ReferencedSOPInstanceUID", "")) for reference in item.get("ReferencedSOPSequence", []))


def _coordinates(item: Dataset) -> str:
    return f"{item.get('GraphicType', '')} {', '.join(f'{number:g}' for number in item.get('GraphicData', []))}"


def _plain(keyword: str) -> Callable[[Dataset], str]:
    return lambda item: str(item.get(keyword, ""))


_VALUES: dict[str, Callable[[Dataset], str]] = {
    "TEXT": _plain("TextValue"),
    "CODE": lambda item: _concept(item, "ConceptCodeSequence"),
    "NUM": _measurement,
    "UIDREF": _plain("UID"),
    "PNAME": _plain("PersonName"),
    "DATE": _plain("Date"),
    "TIME": _plain("Time"),
    "DATETIME": _plain("DateTime"),
    "IMAGE": _reference,
    "COMPOSITE": _reference,
    "WAVEFORM": _reference,
    "SCOORD": _coordinates,
    "SCOORD3D": _coordinates,
}
