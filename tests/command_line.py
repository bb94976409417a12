"""`fourview ...` in the test's own process: a process of its own takes longer to import what it needs than most commands take."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from listener import parts
from listener.cli import main
from store.database import Engine

PROJECT = Path(__file__).resolve().parent.parent


def fourview(*arguments: str | Path, code: int = 0, environment: Mapping[str, str] | None = None) -> str:
    """What the command prints on both streams; its exit code is checked. Not for the services, which change their process.

    `environment`: variables beside those of the test, of which none that configures Fourview is handed on.
    """
    out, err = io.StringIO(), io.StringIO()
    ended: object = None
    with (
        mock.patch.dict(os.environ, {**_without_ours(), **(environment or {})}, clear=True),
        mock.patch.object(sys, "argv", ["fourview", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
        _own_engines("_writer_of"),
        _own_engines("_reader_of"),
    ):
        try:
            main()
        except SystemExit as end:
            ended = end.code
    told = out.getvalue() + err.getvalue()
    assert (ended or 0) == code, f"{arguments} ended with {ended}, not {code}:\n{told}"
    return told


def service(*arguments: str | Path, code: int, environment: Mapping[str, str] | None = None) -> str:
    """What one of the services prints in a process of its own before it gives up; its exit code is checked."""
    done = subprocess.run(
        [sys.executable, "-m", "listener.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=PROJECT,
        env={**_without_ours(), **(environment or {})},
    )
    assert done.returncode == code, f"{arguments} ended with {done.returncode}, not {code}:\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def _without_ours() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FOURVIEW_")}


@contextmanager
def _own_engines(name: str) -> Iterator[None]:
    """A process keeps its engines for its life; the next command may find another database under the same name."""
    made: dict[str, Engine] = {}
    make: Callable[[str], Engine] = getattr(parts, name).__wrapped__
    with mock.patch.object(parts, name, lambda url: made.get(url) or made.setdefault(url, make(url))):
        yield
    for one in made.values():
        one.dispose()
