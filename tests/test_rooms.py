"""Imports go one way, each library has one room, the doors start without an engine, and the project needs nothing that is not in it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("listener", "pipeline", "store")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

#: Room -> the rooms that it may import from, itself included.
BELOW = {"listener": {"listener", "pipeline", "store"}, "pipeline": {"pipeline", "store"}, "store": {"store"}}

#: Library -> the only modules that may import it.
HOMES = {
    "torch": ["pipeline/model.py"],
    "torchvision": ["pipeline/model.py"],
    "safetensors": ["pipeline/model.py"],
    "openvino": ["pipeline/openvino_engine.py"],
    "pynetdicom": ["listener/scp.py", "listener/guard.py", "listener/reactors.py", "listener/standin.py", "pipeline/send.py"],
    "dbos": ["pipeline/work.py"],
    "sqlalchemy": ["store/*"],
    "alembic": ["store/upgrade.py", "store/migrations/*"],
    "fastapi": ["listener/*"],
    "jinja2": ["listener/pages.py"],
    "markupsafe": ["listener/pages.py"],
    "starlette": ["listener/*"],
    "uvicorn": ["listener/*"],
    "dicomweb_client": ["pipeline/orthanc.py"],
    "rule_engine": ["pipeline/rule_condition.py"],
    "typer": ["listener/*"],
    "prometheus_client": ["listener/metrics.py"],
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[str]:
    """The full name of everything that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)} imports relatively; write the room's name"
            yield str(node.module)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_go_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    others = {first for module in imported(path) if (first := module.split(".")[0]) in ROOMS}
    assert others <= BELOW[room]


@pytest.mark.parametrize("library", HOMES)
def test_a_library_has_one_room(library: str) -> None:
    users = {name(path) for path in MODULES if library in {module.split(".")[0] for module in imported(path)}}
    strangers = {user for user in users if not any(fnmatch(user, home) for home in HOMES[library])}
    assert not strangers, f"{library} belongs to {HOMES[library]}"
    assert users, f"nobody imports {library}: take it out of this table and of pyproject.toml"


@pytest.mark.parametrize("module", ["listener.scp", "listener.web", "listener.cli", "pipeline.work"])
def test_the_doors_start_without_an_engine(module: str) -> None:
    """A receiver is small and starts at once; the worker imports an engine only with a model that needs it."""
    program = f"import sys, {module}; print([name for name in ('torch', 'torchvision', 'openvino') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]"


def test_the_decoding_child_imports_neither_torch_nor_a_database() -> None:
    heavy = ("torch", "openvino", "sqlalchemy", "dbos", "pynetdicom", "fastapi")
    program = f"import sys, pipeline.decode; print(sorted(set({heavy}) & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------------- the project stands alone

_OURS = ("*.py", "*.md", "*.toml", "*.sh", "*.yaml", "*.yml", "*.json", "*.lua", "*.service", "Makefile", "Dockerfile", "run", "*.mako")
_FOLDERS = ("listener", "pipeline", "store", "tests", "docs", "deploy", "weights", "benchmarks", ".ci")


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the project: what lies at its top and in its folders, not what an environment or a run left there."""
    inside = [path for folder in _FOLDERS for path in (ROOT / folder).rglob("*")]
    for path in sorted([*ROOT.iterdir(), *inside]):
        if path.is_file() and "__pycache__" not in path.parts and any(fnmatch(path.name, pattern) for pattern in _OURS):
            yield path, path.read_text(encoding="utf-8")


def test_every_document_that_is_named_is_here() -> None:
    here = {path.name for path, _ in texts()}
    named = {(name(path), found) for path, text in texts() for found in re.findall(r"\b[A-Za-z_][\w-]*\.md\b", text)}
    assert {(where, found) for where, found in named if found not in here} == set()


def test_no_path_leads_out_of_the_project() -> None:
    outside = set()
    for path, text in texts():
        if path.parent == ROOT / "tests":
            continue  # tests write hostile paths on purpose
        for found in re.findall(r"(?<![\w./])(?:\.\./)+[\w-][\w./-]*", text):
            if not (path.parent / found).resolve().is_relative_to(ROOT):
                outside.add((name(path), found))
    assert outside == set()
