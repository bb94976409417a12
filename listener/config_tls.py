"""TLS of DICOM in config.toml: `tls_...` of [dicom], where we are called, and of each [[pacs]], where we call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from listener import config_files
from listener.config_files import absolute, halves
from listener.config_values import Location
from pipeline.tls import ClientTls

#: Keys that hold the name of a file.
_OF_DICOM = ("tls_certificate", "tls_key", "tls_client_authority")
_OF_PACS = ("tls_authority", "tls_certificate", "tls_key")


def contradictions(dicom: Mapping[str, Any], pacs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Location, str]]:
    """What is wrong between keys that are right by themselves: (location, message). Works on what was written, whether or not it is
    valid."""
    yield from halves(("dicom",), dicom, "tls_certificate", "tls_key")
    if dicom.get("tls_client_authority") and not dicom.get("tls_certificate"):
        yield ("dicom", "tls_client_authority"), "needs tls_certificate and tls_key as well: without them no TLS is spoken"
    for index, table in enumerate(pacs):
        yield from halves(("pacs", index), table, "tls_certificate", "tls_key")
        written = next((key for key in _OF_PACS if table.get(key)), None)
        if written and table.get("tls") is not True:
            yield ("pacs", index, written), "is of no use without tls = true"


def unreadable(dicom: Mapping[str, Any], pacs: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[tuple[Location, str]]:
    """What is wrong with the files, as far as it can be seen without loading them."""
    yield from config_files.unreadable(("dicom",), dicom, _OF_DICOM, folder)
    for index, table in enumerate(pacs):
        yield from config_files.unreadable(("pacs", index), table, _OF_PACS, folder)


def placed(dicom: Any, folder: Path) -> Any:
    """[dicom] with absolute paths."""
    return replace(dicom, **{key: absolute(folder, getattr(dicom, key)) for key in _OF_DICOM})


def of_pacs(pacs: Any, folder: Path) -> ClientTls | None:
    """How a [[pacs]] is called; None: without TLS."""
    if not pacs.tls:
        return None
    authority, certificate, key = (absolute(folder, getattr(pacs, key)) for key in _OF_PACS)
    return ClientTls(authority=authority, certificate=certificate, key=key)
