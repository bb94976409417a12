"""The acceptance kit: everything that a deployment can get wrong, each finding with its remedy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from listener import parts
from listener.check_doors import doors
from listener.check_orthanc import MOST_APART_SECONDS, destinations
from listener.config import Config
from listener.finding import Finding
from pipeline.model import ModelError
from store.condition import Facts
from store.database import DatabaseAway, OldSchema
from store.files import Files


def check(config: Config) -> Iterator[Finding]:
    """Look at configuration, database, disk, weights, our ports, destinations, and Orthanc's view of us; a finding at a time."""
    yield Finding(True, f"configuration {config.path}")
    facts = None
    try:
        parts.open_archive(config)
        yield Finding(True, "database, schema of this release")
        facts = parts.open_condition(config).facts()
        yield from _hosts(facts)
    except OldSchema as error:
        yield Finding(False, "database", str(error))
    except DatabaseAway as error:
        yield Finding(False, "database", f"it does not answer: {error.orig}; see [store] database")
    except OSError as error:
        yield Finding(False, "database", f"its folder cannot be made ({error.strerror}); see [store] database")
    yield from _spool(config)
    yield from _model(config)
    yield from doors(config, facts)
    yield from destinations(config, listening=facts is None or bool(facts.living("receive")))


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


def _model(config: Config) -> Iterator[Finding]:
    """Whether the cards' weights can be used here, and what their hashes and self-tests say."""
    try:
        card = parts.check_model(config)
    except ModelError as error:
        yield Finding(False, "model", str(error))
        return
    yield Finding(True, f"model {card.name} {card.version}" + ("" if card.trained else " (UNTRAINED)"))
    if card.weights is not None and find_spec("torch") is None:
        yield Finding(True, "model: its self-test is not run, torch is not installed here", "only a host that works needs it")
        return
    from pipeline.model_check import check_model

    for path in dict.fromkeys((config.model.card, *(Path(rule.card) for rule in config.rules if rule.card))):
        for found in check_model(path, device=config.model.device):
            yield Finding(found.ok, f"model: {found.what}", found.remedy)
