"""TLS of DICOM in config.toml: `tls_...` of [dicom], where we are called, and of each [[pacs]], where we call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from listener.config_values import Location
from pipeline.tls import ClientTls

#: Keys that hold the name of a file.
_OF_DICOM = ("tls_certificate", "tls_key", "tls_client_authority")
_OF_PACS = ("tls_authority", "tls_certificate", "tls_key")


def contradictions(dicom: Mapping[str, Any], pacs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Location, str]]:
    """What is wrong between keys that are right by themselves: (location, message). Works on what was written, whether or not it is
    valid."""
    yield from _halves(("dicom",), dicom)
    if dicom.get("tls_client_authority") and not dicom.get("tls_certificate"):
        yield ("dicom", "tls_client_authority"), "needs tls_certificate and tls_key as well: without them no TLS is spoken"
    for index, table in enumerate(pacs):
        yield from _halves(("pacs", index), table)
        written = next((key for key in _OF_PACS if table.get(key)), None)
        if written and table.get("tls") is not True:
            yield ("pacs", index, written), "is of no use without tls = true"


def _halves(table: Location, keys: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
    for one, other in (("tls_certificate", "tls_key"), ("tls_key", "tls_certificate")):
        if keys.get(one) and not keys.get(other):
            yield (*table, one), f"needs {other} as well: the other PEM file of the two"


def unreadable(dicom: Mapping[str, Any], pacs: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[tuple[Location, str]]:
    """What is wrong with the files, as far as it can be seen without loading them."""
    tables: list[tuple[Location, Mapping[str, Any], tuple[str, ...]]] = [(("dicom",), dicom, _OF_DICOM)]
    for place, table, keys in (*tables, *((("pacs", index), table, _OF_PACS) for index, table in enumerate(pacs))):
        for key in keys:
            name = table.get(key)
            if isinstance(name, str) and name:
                try:
                    (folder / name).open("rb").close()
                except OSError as error:
                    yield (*place, key), f"{name} cannot be read ({error.strerror}); make the file, readable by this user"


def placed(dicom: Any, folder: Path) -> Any:
    """[dicom] with absolute paths."""
    return replace(dicom, **{key: _absolute(folder, getattr(dicom, key)) for key in _OF_DICOM})


def of_pacs(pacs: Any, folder: Path) -> ClientTls | None:
    """How a [[pacs]] is called; None: without TLS."""
    if not pacs.tls:
        return None
    authority, certificate, key = (_absolute(folder, getattr(pacs, key)) for key in _OF_PACS)
    return ClientTls(authority=authority, certificate=certificate, key=key)


def _absolute(folder: Path, name: str) -> str:
    return str(folder / name) if name else ""
