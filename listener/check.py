"""The acceptance kit: everything that a deployment can get wrong, each finding with its remedy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from listener import parts
from listener.config import Config
from listener.config_http import is_loopback
from listener.tls import BadCertificate
from pipeline.model import ModelError
from pipeline.send import Pacs, echo
from store.condition import Facts
from store.database import DatabaseAway, OldSchema
from store.files import Files

#: A clock that is further from the database's than this is told.
MOST_APART_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    ok: bool
    what: str
    remedy: str = ""


def check(config: Config) -> list[Finding]:
    """Look at configuration, database, disk, weights, destinations, and Orthanc's view of us."""
    return [Finding(True, f"configuration {config.path}"), *_storage(config), _model(config), *_doors(config), *_destinations(config)]


def _storage(config: Config) -> Iterator[Finding]:
    try:
        parts.open_archive(config)
        yield Finding(True, "database, schema of this release")
        yield from _hosts(parts.open_condition(config).facts())
    except OldSchema as error:
        yield Finding(False, "database", str(error))
    except DatabaseAway as error:
        yield Finding(False, "database", f"it does not answer: {error.orig}; see [store] database")
    except OSError as error:
        yield Finding(False, "database", f"its folder cannot be made ({error.strerror}); see [store] database")
    yield from _spool(config)


def _spool(config: Config) -> Iterator[Finding]:
    what = f"files folder {config.store.files}"
    try:
        files = parts.open_files(config)
    except parts.SpoolAway as error:
        yield Finding(False, what, str(error))
        return
    except (OSError, DatabaseAway):
        yield Finding(False, what, "it is empty, and the database, which knows whether it should be, cannot be asked: see above")
        return
    yield _writable(what, files)
    try:
        room = files.least_room()
    except OSError as error:
        yield Finding(False, "disk", f"its free space cannot be read ({error.strerror}): is it mounted?")
        return
    free, floor = room.free_bytes / parts.GIB, config.store.min_free_gib
    remedy = "" if free >= floor else f"C-STORE answers 0xA700 below {floor:g} GiB: free space, or lower [store] min_free_gib"
    yield Finding(free >= floor, f"disk: {free:.1f} GiB free in the {room.volume} {room.folder}", remedy)


def _hosts(facts: Facts) -> Iterator[Finding]:
    """Who lives, and whether this host's clock agrees with the database's: by it times are shown, by the database's leases go."""
    living = ", ".join(one.process for one in facts.processes if one.alive)
    yield Finding(True, f"processes: {living or 'none is running'}")
    apart = abs((datetime.now(UTC) - facts.now).total_seconds())
    remedy = "" if apart < MOST_APART_SECONDS else "due times and leases go by the database's clock; let both hosts follow one time server"
    yield Finding(apart < MOST_APART_SECONDS, f"clock: {apart:.0f} s from the database's", remedy)


def _writable(what: str, files: Files) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=files.incoming) as file:
            file.write(b"fourview")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        remedy = f"it cannot be written ({error.strerror}): is it mounted, and does it belong to the user that runs Fourview?"
        return Finding(False, what, remedy)
    return Finding(True, f"{what} can be written")


def _model(config: Config) -> Finding:
    try:
        card = parts.check_model(config)
    except ModelError as error:
        return Finding(False, "model", str(error))
    return Finding(True, f"model {card.name} {card.version}" + ("" if card.trained else " (UNTRAINED)"))


def _doors(config: Config) -> Iterator[Finding]:
    if config.dicom.host in ("127.0.0.1", "::1", "localhost"):
        yield Finding(
            True, f"[dicom] host is {config.dicom.host}", "note: no other machine can send to us; set [dicom] host to change that"
        )
    yield from _http(config)


def _http(config: Config) -> Iterator[Finding]:
    """Who can reach what over HTTP. What a site may want so, behind a proxy or in a closed network, is a warning."""
    http, users = config.http, len(config.users)
    what = f"[http] host is {http.host}, {users} may log in" if users else f"[http] host is {http.host}, nobody has to log in"
    if http.certificate:
        try:
            parts.certificate(config)
        except BadCertificate as problem:
            yield Finding(False, "TLS", str(problem))
        else:
            yield Finding(True, f"TLS with {http.certificate}")
    if is_loopback(http.host):
        yield Finding(True, what, "" if users else "note: whoever has an account on this machine can do what an admin may")
        return
    warnings = []
    if not users:
        warnings.append("allow_unauthenticated: whoever reaches this address reads patient data and can do what an admin may")
    if not http.certificate:
        carried = "patient data and passwords" if users else "patient data"
        warnings.append(f"no TLS: {carried} can be read on the way; set certificate and key, or keep the way to a proxy with TLS closed")
    yield Finding(True, what, "\n     ".join(f"WARNING: {warning}" for warning in warnings))


def _destinations(config: Config) -> Iterator[Finding]:
    for pacs in config.pacs:
        answer = echo(pacs, config.dicom.ae_title)
        yield Finding(answer.ok, f"C-ECHO to {pacs.name} ({pacs.ae_title} at {pacs.host}:{pacs.port})", "" if answer.ok else answer.reason)
        if pacs.url:
            yield _orthanc_knows_us(pacs, config)


def _orthanc_knows_us(pacs: Pacs, config: Config) -> Finding:
    """Whether Orthanc's list of modalities has an entry with our AE title and port: without it nothing is routed to us."""
    what = f"{pacs.name} knows us as a modality"
    try:
        auth = (pacs.user, pacs.password) if pacs.user else None
        answer = httpx.get(f"{pacs.url.rstrip('/')}/modalities?expand", auth=auth, timeout=10, trust_env=False)
        answer.raise_for_status()
        known = answer.json().values()
    except httpx.HTTPStatusError as error:
        return Finding(False, what, f"{pacs.url} answers {error.response.status_code}: check user and password_file of this [[pacs]]")
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        return Finding(False, what, f"{pacs.url} does not answer as Orthanc does ({type(error).__name__}): is it running, is url right?")
    ours = [entry for entry in known if isinstance(entry, dict) and entry.get("AET") == config.dicom.ae_title]
    if any(entry.get("Port") == config.dicom.port for entry in ours):
        return Finding(True, what)
    entry = f'"fourview": {{"AET": "{config.dicom.ae_title}", "Host": "...", "Port": {config.dicom.port}, "Timeout": 60}}'
    wrong = "has our AE title with another port" if ours else "has no entry with our AE title"
    return Finding(False, what, f"its DicomModalities {wrong}: write {entry}")
