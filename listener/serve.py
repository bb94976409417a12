"""Starts and watches the processes of one host: receivers, worker, web. One exclusive lock per data folder; children end with their parent.

A child is a `fourview` command of its own. It holds the reading end of a pipe whose writing end only its parent has: when the parent dies,
however suddenly, the pipe closes and the child ends at once. Nothing acknowledged is lost by that, so there is nothing to wait for.
A byte on the pipe says that the parent has read the configuration again (`listener.handed`).

Who sees a child die while living on itself knows that it died alone, and says so (`Role.watched`, `on_death`): that is what counts
against the images which the child was reading (`store.crashes`). A death that a stop follows at once was part of it, and is not told.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from listener.handed import Handed

log = logging.getLogger(__name__)

#: A child that dies is started again after this long, doubled with each death, back to the first after a minute of life.
FIRST_RESTART_SECONDS = 0.5
LONGEST_RESTART_SECONDS = 30.0
#: How long children may finish what they do after SIGTERM.
GRACE_SECONDS = 15.0
#: A parent that lives on for so long after a child's death was not meant by what killed it.
ALONE_AFTER_SECONDS = 0.5
#: Ends of a child that are no crash: by its own will, or because somebody told it to stop.
_TOLD_TO_STOP = (0, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)


class CannotServe(Exception):
    """The processes cannot be started; the message says why and what to do."""


class Taken(CannotServe):
    """Another process holds the lock."""


@contextmanager
def exclusive(lock: Path, what: str) -> Iterator[None]:
    """Hold the lock file for as long as this process lives; raises Taken naming the process that holds it, CannotServe when none can be."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CannotServe(f"cannot write {lock} ({error.strerror}): does it belong to the user that runs Fourview?") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 100).decode("ascii", "replace").strip()
            raise Taken(f"{what} runs already on this data folder ({lock.parent}): process {owner}; stop it first") from None
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(handle)


@contextmanager
def first_free(folder: Path, what: str) -> Iterator[int]:
    """The lowest index 0, 1, ... whose lock no other process of this host holds; held for as long as the context lasts.

    The folder may be shared by several hosts, each with locks of its own: a lock over NFS is not to be relied upon, and a host's name is
    part of the process's anyway.
    """
    for index in range(1000):
        lock = exclusive(folder / f"{socket.gethostname()}-{what}-{index}.lock", what)
        try:
            lock.__enter__()
        except Taken:
            continue
        try:
            yield index
        finally:
            lock.__exit__(None, None, None)
        return
    raise CannotServe(f"1000 processes {what} run already on {folder}")


def probe_port(host: str, port: int, key: str) -> None:
    """Raise CannotServe when somebody listens on the port already: receivers that share a port would not notice."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotServe(f"cannot listen on {host}:{port} ({error.strerror}): stop what uses it, or set {key}") from None


def end_with_parent(poked: Callable[[], None]) -> None:
    """In a child: end at once when standard input, the parent's pipe, closes; `poked` is called when something comes by it."""

    def watch() -> None:
        while os.read(0, 4096):
            poked()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@dataclass(frozen=True)
class Role:
    """A process to be run. `watched`: each run gets a name of its own (`--life NAME`), and its death is told under it. `bells`: what it
    hears by (a worker) or rings (others), see `listener.bell`."""

    name: str
    arguments: Sequence[str]
    watched: bool = False
    bells: Sequence[int] = ()


@dataclass
class _Child:
    role: Role
    process: subprocess.Popen[bytes] | None = None
    life: str = ""
    started_at: float = 0.0
    restart_at: float = 0.0
    pause: float = field(default=FIRST_RESTART_SECONDS)
    telling: threading.Thread | None = None
    pokes: int = 0

    def start(self, handed: Handed, now: float) -> None:
        """Run it."""
        self.life = secrets.token_hex(6)
        self.pokes = handed.pokes  # what is handed from now on it finds by itself
        life = ["--life", self.life] if self.role.watched else []
        bells = [word for bell in self.role.bells for word in ("--bell", str(bell))]
        command = [sys.executable, "-m", "listener.cli", *self.role.arguments, "--handed", str(handed.descriptor), *life, *bells]
        passed = [handed.descriptor, *self.role.bells]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=passed)  # nosec B603 # noqa: S603 - our own command line
        assert self.process.stdin is not None
        os.set_blocking(self.process.stdin.fileno(), False)
        self.started_at = now
        log.info("process started name=%s pid=%d", self.role.name, self.process.pid)

    def poke(self, handed: Handed) -> None:
        """Tell it to look at what is handed to it."""
        if self.process is not None and self.process.stdin is not None and self.pokes != handed.pokes:
            self.pokes = handed.pokes
            with suppress(BlockingIOError, BrokenPipeError):  # it was told often enough, or has ended
                os.write(self.process.stdin.fileno(), b"\n")


def supervise(
    roles: Sequence[Role],
    *,
    handed: Handed,
    stopped: threading.Event,
    on_death: Callable[[str, threading.Event], None] | None = None,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Run the roles and restart what dies, until `stopped`; then stop them and wait. They work by what is `handed` to them.

    `on_death(life, stopped)` is called in a thread of its own after a watched child died alone; the child starts anew when it has returned.
    """
    children = [_Child(role) for role in roles]
    try:
        while not stopped.is_set():
            for child in children:
                _tend(child, handed, now(), stopped, on_death)
                child.poke(handed)
            stopped.wait(0.1)
    finally:
        _stop(children)


def _tend(
    child: _Child, handed: Handed, now: float, stopped: threading.Event, on_death: Callable[[str, threading.Event], None] | None
) -> None:
    if child.process is None:
        if now >= child.restart_at and (child.telling is None or not child.telling.is_alive()):
            child.start(handed, now)
        return
    code = child.process.poll()
    if code is None:
        return
    if now - child.started_at > 60:
        child.pause = FIRST_RESTART_SECONDS
    log.error("process ended name=%s pid=%d code=%d restart_in_seconds=%.1f", child.role.name, child.process.pid, code, child.pause)
    if child.process.stdin is not None:
        child.process.stdin.close()
    child.process = None
    child.restart_at = now + child.pause
    child.pause = min(child.pause * 2, LONGEST_RESTART_SECONDS)
    if on_death is not None and child.role.watched and code not in _TOLD_TO_STOP:
        child.telling = threading.Thread(target=_tell, args=[on_death, child.life, stopped], name="death", daemon=True)
        child.telling.start()


def _tell(on_death: Callable[[str, threading.Event], None], life: str, stopped: threading.Event) -> None:
    if not stopped.wait(ALONE_AFTER_SECONDS):
        on_death(life, stopped)


def _stop(children: Sequence[_Child]) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("process did not stop in time pid=%d", process.pid)
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def until_told_to_stop() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stopped = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return stopped


def reload_on_hangup(ask: Callable[[], None]) -> None:
    """SIGHUP asks for the configuration to be read again. `ask` must be safe in a signal's handler. When it comes because the terminal
    was closed from which the process was started, it ends the process as ever."""
    at_terminal = os.isatty(2)

    def hang_up(_signal: int, _frame: FrameType | None) -> None:
        if at_terminal and not os.isatty(2):
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            ask()

    signal.signal(signal.SIGHUP, hang_up)
