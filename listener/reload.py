"""The configuration while the processes run: read anew when that is asked for, taken or refused as a whole, and nothing ends by it.

What decides is one frozen `Config` that is swapped; what has begun goes on with the one that it began with. Keys that are bound to a
port, a file or a loaded model wait for a restart (`RESTART`), the rest of the file is taken. What cannot be taken is refused with every
complaint, and the configuration before it stays in force.

Who supervises children (`fourview serve`, `receive`, `work`) reads the file for all of them, and hands them what it took or why it refused
(`listener.handed`): they agree, and a child that dies and starts again while the file is being edited starts with what the others have.
A process of its own reads the file itself. Each says by its lease which configuration it works by, and is asked by it (`store.leases`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from listener.config import Config, ConfigErrors, line_of, load, located, read
from listener.config_http import is_loopback
from listener.handed import Handed, Offer
from listener.parts import SpoolAway
from pipeline.figures import Figures
from pipeline.model import ModelError
from store.claims import Claims
from store.database import DatabaseAway, OldSchema
from store.leases import Configured

log = logging.getLogger(__name__)

#: How often it is looked whether the file was changed ([site] reload_on_change), and whether what was put off can be done.
POLL_SECONDS = 2.0
#: So many complaints are told with the lease; the log has all.
MOST_COMPLAINTS = 20

#: Keys that count when the process is started again: a port, a folder, processes, a loaded model do not change beneath what uses them.
RESTART: Mapping[str, tuple[str, ...]] = {
    "dicom": ("ae_title", "host", "port", "receivers", "tls_certificate", "tls_key", "tls_client_authority"),
    "http": ("host", "port", "certificate", "key", "trusted_proxies"),
    "store": ("database", "files"),
    "model": ("card", "allow_untrained", "engine", "device"),
    "work": ("workers", "images_at_once"),
}
#: What hosts that decide alike may have of their own.
OF_EACH_HOST: Mapping[str, tuple[str, ...]] = {
    "dicom": (
        "host",
        "port",
        "receivers",
        "max_associations",
        "connections_per_address",
        "connections_per_minute",
        "tls_certificate",
        "tls_key",
        "tls_client_authority",
    ),
    "http": ("host", "port", "certificate", "key", "trusted_proxies", "host_names"),
    "store": ("database", "files"),
    "model": ("device",),
    "work": ("workers", "images_at_once"),
}
#: No digest is made of what somebody could guess.
_SECRET = frozenset({"password"})
_NOBODY_LOGS_IN = (
    "nobody would have to log in any more, and whoever reaches the pages could do everything: write the [[user]] tables back, or restart "
    "if that is meant"
)
#: Their message says all that there is to say.
_IN_WORDS = (ModelError, SpoolAway, OldSchema)

#: Makes what a process needs for a configuration; raises what is wrong with it, or returns what puts it into force, which must not fail.
Prepare = Callable[[Config], Callable[[], None]]


def checked_by(check: Callable[[Config], object]) -> Prepare:
    """For a process that nothing is made anew of: whether `check` finds nothing wrong."""

    def prepare(config: Config) -> Callable[[], None]:
        check(config)
        return lambda: None

    return prepare


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The configuration in force, and what became of the file when it was read last."""

    config: Config
    text: str  # of the file that it was read from
    hash: str
    since: float  # monotonic
    outcome: str = ""
    complaints: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    def refused(self, complaints: Sequence[str]) -> Standing:
        """The file as it is now is not taken."""
        return replace(self, outcome="refused", complaints=tuple(complaints))


def as_started(started: Config, new: Config, text: str) -> tuple[Config, tuple[str, ...]]:
    """`new` with what waits for a restart as it was when the process was `started`, and a sentence for each key that does; `text` is that
    of the file. Raises ConfigErrors when the two together would let in whom neither would."""
    tables: dict[str, Any] = {}
    waiting: list[str] = []
    for table, keys in RESTART.items():
        old = {key: getattr(getattr(started, table), key) for key in keys}
        tables[table] = replace(getattr(new, table), **old)
        for key in keys:
            if getattr(getattr(new, table), key) != old[key]:
                stays = "" if key == "database" else f"; until then it stays {str(old[key]) if isinstance(old[key], Path) else old[key]!r}"
                waiting.append(f"{new.path}:{line_of(text, table, key)}: {table}.{key}: needs a restart{stays}")
    mixed = replace(new, **tables)
    if not (mixed.users or mixed.http.allow_unauthenticated or is_loopback(mixed.http.host)):
        raise ConfigErrors(
            [
                f"{new.path}:{line_of(text, 'http', 'host')}: http.host: needs a restart, and until then other machines could read patient "
                "data without a password: restart, or leave the [[user]] tables until then"
            ]
        )
    return mixed, tuple(waiting)


def digest_of(config: Config) -> str:
    """12 hex digits that processes have in common when they decide alike. Passwords are not in it, nor what is each host's own, nor
    the examples beside the rules, which decide nothing."""
    tables = {name: replace(getattr(config, name), **_defaults(type(getattr(config, name)), keys)) for name, keys in OF_EACH_HOST.items()}
    said = _plain(replace(config, path=Path(), examples=(), **tables), f"{config.path.parent}{os.sep}")
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def _defaults(table: Any, keys: Sequence[str]) -> dict[str, Any]:
    return {one.name: one.default for one in fields(table) if one.name in keys}


def _plain(value: Any, folder: str) -> Any:
    """As JSON; paths as the file has them."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name), folder) for one in fields(value) if one.name not in _SECRET}
    if isinstance(value, Mapping):
        return {str(key): _plain(one, folder) for key, one in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(str(_plain(one, folder)) for one in value)
    if isinstance(value, tuple | list):
        return [_plain(one, folder) for one in value]
    if isinstance(value, bool | int | float) or value is None:
        return value
    return str(value).removeprefix(folder) if isinstance(value, str | Path) else repr(value)


class Current:
    """The configuration of this process. `config` is the one in force: whoever begins something takes it once and keeps it to the end.

    `handed`: what the supervisor of this process hands to it; without it the process reads the file itself. Raises ConfigErrors.
    """

    def __init__(self, path: Path | None, environ: Mapping[str, str], handed: Handed | None = None) -> None:
        self._path = located(path, environ)
        self._environ = environ
        self._handed = handed
        self._parent = os.getppid()
        self._hands: Handed | None = None
        self._offers = 0  # that were handed on after the first
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()  # its `put` may be called from a signal's handler
        self._prepare: Prepare = checked_by(lambda _: None)
        self._put_off = False
        self._looked_at = self._polled = self._file()
        self._lease: tuple[Claims, str, str, Figures] | None = None
        self._request = self._answered = ""
        offer = handed.read() if handed is not None else Offer.first(read(self._path))
        self._number = offer.number
        self._started_text = offer.started
        self._started = load(self._path, environ, text=offer.started)
        config, waiting = as_started(self._started, load(self._path, environ, text=offer.text), offer.text)
        self._standing = Standing(
            config=config,
            text=offer.text,
            hash=digest_of(config),
            since=time.monotonic(),
            outcome="refused" if offer.complaints else "",
            complaints=offer.complaints,
            waiting=waiting,
        )

    @property
    def config(self) -> Config:
        """The one in force at this moment."""
        return self._standing.config

    @property
    def standing(self) -> Standing:
        """The same with what became of the file."""
        return self._standing

    # ------------------------------------------------------------------------------------------------------------- asked for

    def ask(self) -> None:
        """Read the file soon; safe in a signal's handler. However many ask at once: it is read once."""
        self._asked.put(None)

    def watch(self, stopped: threading.Event, prepare: Prepare) -> None:
        """Reload when asked, in a thread of its own, until `stopped`; `prepare` makes what this process needs."""
        self._prepare = prepare
        threading.Thread(target=self._run, args=[stopped], name="reload", daemon=True).start()

    def _run(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                self._asked.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if not self._put_off and not self._was_changed():
                    continue
            with suppress(queue.Empty):
                while True:
                    self._asked.get_nowait()
            if not stopped.is_set():
                try:
                    self.reload()
                except Exception:  # whoever asks the next time must still be heard
                    log.exception("the configuration could not be read anew")

    def _was_changed(self) -> bool:
        """Whether the file differs from what was read of it last, and has done so for a whole poll: half a file is not looked at."""
        if self._handed is not None or not self.config.site.reload_on_change:
            return False
        found = self._file()
        stands, self._polled = found == self._polled, found
        return stands and found != self._looked_at

    def _file(self) -> bytes:
        """A digest of what the file holds, under whatever inode; b"" when there is none."""
        try:
            return hashlib.sha256(self._path.read_bytes()).digest()
        except OSError:
            return b""

    # -------------------------------------------------------------------------------------------------------- taken, refused

    def reload(self) -> None:
        """Read the file and take it, or refuse it; the answer goes with the lease at once."""
        before, request = self._standing, self._request
        self._put_off = False
        try:
            self._standing = self._settled(before)
        except DatabaseAway as error:
            self._put_off = True
            log.warning("database not reachable, the configuration is read again reason=%r", str(error.orig))
            return
        self._answered = request
        self._log(before)
        self._hand_on(before)
        if self._lease is not None:
            self._lease[3].add("config_reloads", self._standing.outcome)
            with suppress(DatabaseAway):  # the next beat says it
                self.beat(*self._lease)

    def _settled(self, before: Standing) -> Standing:
        """What stands after the file was read. Raises DatabaseAway: nothing is said of the file then."""
        try:
            offer = self._offer()
            if offer is None:
                return replace(before, outcome="refused" if before.complaints else "unchanged")
            if offer.complaints:
                self._number = offer.number
                return before.refused(offer.complaints)
            new = load(self._path, self._environ, text=offer.text)
            config, waiting = as_started(self._started, new, offer.text)
            if before.config.users and not (config.users or config.http.allow_unauthenticated):
                # A file that is cut off before its last tables is valid, and behind a proxy whoever comes is on loopback.
                raise ConfigErrors([f"{new.path}:1: user: {_NOBODY_LOGS_IN}"])
            same = replace(before, text=offer.text, complaints=(), waiting=waiting, outcome="unchanged")
            if config == before.config:
                self._number = offer.number
                return same
            self._prepare(config)()
        except DatabaseAway:
            raise
        except ConfigErrors as errors:
            return before.refused(errors.complaints)
        except _IN_WORDS as error:
            return before.refused([f"{self._path}: {error}"])
        except Exception as error:  # whatever it is, what runs goes on with what it has
            log.exception("configuration not taken, unexpected")
            return before.refused([f"{self._path}: unexpected {type(error).__name__}; the log of the process says where"])
        self._number = offer.number
        return replace(same, config=config, hash=digest_of(config), since=time.monotonic(), outcome="taken")

    def _offer(self) -> Offer | None:
        """What there is to be read; None when the supervisor has nothing new."""
        if self._handed is not None:
            offer = self._handed.read()
            return None if offer.number == self._number else offer
        self._looked_at = self._file()
        return Offer.first(read(self._path))

    def _log(self, before: Standing) -> None:
        stands = self._standing
        if stands.outcome == "refused":
            log.error("configuration refused complaints=%d in_force=%s", len(stands.complaints), stands.hash)
            for complaint in stands.complaints if stands.complaints != before.complaints else ():
                log.error("configuration complaint=%r", complaint)
        else:
            log.info("configuration %s in_force=%s", stands.outcome, stands.hash)
            for sentence in stands.waiting if stands.waiting != before.waiting else ():
                log.warning("configuration waiting=%r", sentence)

    # ------------------------------------------------------------------------------------------------------------ supervising

    def hand_on(self) -> Handed:
        """What the children of this process shall be given; it is kept up to date."""
        self._hands = Handed.new()
        self._hands.write(self._as_offer())
        return self._hands

    def _hand_on(self, before: Standing) -> None:
        stands = self._standing
        if self._hands is None:
            return
        if (stands.config, stands.text, stands.complaints) != (before.config, before.text, before.complaints):
            self._offers += 1
            self._hands.write(self._as_offer())
        self._hands.poke()  # also when nothing is new: who was asked must answer

    def _as_offer(self) -> Offer:
        stands = self._standing
        return Offer(number=self._offers, started=self._started_text, text=stands.text, complaints=stands.complaints)

    # ------------------------------------------------------------------------------------------------------------------ lease

    def beat(self, claims: Claims, process: str, role: str, figures: Figures) -> None:
        """Renew the lease of this process and say by which configuration it works; read the file when somebody asks for that there.
        Raises DatabaseAway."""
        self._lease = (claims, process, role, figures)
        request = claims.beat(process, role, figures.snapshot(), figures.alive_seconds(), self._configured)
        if request and request != self._request:
            self._request = request
            if self._handed is None:
                self.ask()
            elif os.getppid() == self._parent:
                os.kill(self._parent, signal.SIGHUP)  # it reads the file for all its children, and pokes them

    def _configured(self, now: datetime) -> Configured:
        stands = self._standing
        return Configured(
            hash=stands.hash,
            since=now - timedelta(seconds=time.monotonic() - stands.since),
            outcome=stands.outcome,
            complaints=tuple(_shortened(stands.complaints)),
            waiting=stands.waiting,
            answered=self._answered,
        )


def _shortened(complaints: Sequence[str]) -> Iterator[str]:
    yield from complaints[:MOST_COMPLAINTS]
    if len(complaints) > MOST_COMPLAINTS:
        yield f"and {len(complaints) - MOST_COMPLAINTS} more: `fourview config check` prints all"
