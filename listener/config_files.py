"""Keys of config.toml that hold the name of a file: where it lies, whether it can be read, and the two files of a certificate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from listener.config_values import Location


def absolute(folder: Path, name: str) -> str:
    """`name` as seen from the configuration's folder; "" for none."""
    return str(folder / name) if name else ""


def unreadable(place: Location, table: Mapping[str, Any], keys: Sequence[str], folder: Path) -> Iterator[tuple[Location, str]]:
    """What is wrong with the files that `keys` of the table at `place` name, as far as it can be seen without loading them."""
    for key in keys:
        name = table.get(key)
        if isinstance(name, str) and name:
            try:
                (folder / name).open("rb").close()
            except OSError as error:
                yield (*place, key), f"{name} cannot be read ({error.strerror}); make the file, readable by this user"


def halves(place: Location, table: Mapping[str, Any], certificate: str, key: str) -> Iterator[tuple[Location, str]]:
    """What is wrong when one of these two keys is written without the other."""
    for one, other in ((certificate, key), (key, certificate)):
        if table.get(one) and not table.get(other):
            yield (*place, one), f"needs {other} as well: the other PEM file of the two"
