"""How the installation fares, on one screen: what is in trouble and what to do first, then the rest. It needs no running process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from listener.show import pause_in_words, printable
from store.alerts import OF_SENDERS, Limits, causes
from store.condition import Facts, Process, by_configuration, refusing
from store.database import DatabaseAway
from store.files import Room
from store.leases import Configured

GIB = 1 << 30
#: So many troubles are shown; the others are counted.
MOST_SHOWN = 12


@dataclass(frozen=True)
class Trouble:
    """Something that a person must see to, and the command that begins it."""

    text: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Status:
    """What `fourview status` says; `facts` is None when the database is away, `model` (name, version, trained ...) when its card cannot be
    used."""

    troubles: tuple[Trouble, ...]
    room: Room | None
    floor_bytes: int
    facts: Facts | None
    model: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The same for scripts."""
        facts = self.facts
        found: dict[str, Any] = {
            "ok": not self.troubles,
            "troubles": [asdict(one) for one in self.troubles],
            "disk": {
                "free_bytes": self.room.free_bytes if self.room else None,
                "volume": self.room.volume if self.room else None,
                "floor_bytes": self.floor_bytes,
            },
            "model": self.model,
        }
        if facts is None:
            return found | {"database": "away"}
        return found | {
            "database": "ok",
            "processes": [_process(one) for one in facts.processes if one.alive],
            "studies": facts.studies,
            "studies_waiting": facts.open_studies,
            "study_waits_since": facts.study_waits_since,
            "images_waiting": facts.images_waiting,
            "deliveries": [{"destination": name, "state": state, "count": count} for (name, state), count in facts.deliveries.items()],
            "delivery_waits_since": facts.delivery_waits_since,
            "delivery_errors": facts.delivery_error,
            "originals_bytes": facts.originals_bytes,
            "paused": list(facts.pauses),
            "reconciled_at": facts.reconciled_at,
            "reconciled": facts.reconciled,
            "alerts": list(facts.alerts),
        }


def _process(one: Process) -> dict[str, Any]:
    configured = one.configured
    found = {"process": one.process, "role": one.role, "started_at": one.started_at}
    names = ("hash", "since", "complaints", "waiting")
    return {**found, "configuration": None if configured is None else {name: getattr(configured, name) for name in names}}


def configuration_notices(processes: Sequence[Process]) -> list[str]:
    """What a person must see to about the configuration by which these processes work; what the file says is not in it."""
    found = []
    if refused := refusing(processes):
        found.append(f"{len(refused)} processes refuse the configuration file and work on with the one before it: `fourview status`")
    if len(by_configuration(processes)) > 1:
        found.append("processes work by different configurations: `fourview status`")
    return found


def status(read: Callable[[], Facts], room: Room | None, limits: Limits, model: Mapping[str, Any] | None = None) -> Status:
    """How it fares now. A database that is away is a trouble, not an error."""
    floor = limits.min_free_bytes
    try:
        facts = read()
    except DatabaseAway as error:
        text = f"the database does not answer ({_first_line(error.orig)}): nothing is received, read or sent"
        return Status(troubles=(Trouble(text, "start it, or see [store] database"),), room=room, floor_bytes=floor, facts=None, model=model)
    return Status(troubles=tuple(_troubles(facts, room, limits)), room=room, floor_bytes=floor, facts=facts, model=model)


def _first_line(error: object) -> str:
    return " ".join(str(error).split())[:200]


def _troubles(facts: Facts, room: Room | None, limits: Limits) -> Iterator[Trouble]:
    if not facts.living("receive"):
        yield Trouble("no receiver is running: C-STORE fails", "start `fourview serve` (or `receive`), then look into its log")
    if not facts.living("work"):
        yield Trouble("no worker is running: nothing is read or sent", "start `fourview serve` (or `work`), then look into its log")
    for one in causes(facts, limits, room):
        yield Trouble(one.text, one.command)
    for alert in facts.alerts:
        # Who is silent or ignored is found out rarely, by the processes.
        if alert["kind"] in OF_SENDERS and alert["cleared_at"] is None:
            yield Trouble(alert["text"], alert["command"])
    untold = [alert for alert in facts.alerts if alert["tries"] and alert["due_at"] is not None]
    if untold:
        why = next((alert["error"] for alert in untold if alert["error"]), "")
        yield Trouble(f"the webhook did not take {len(untold)} alerts: {why}", "mend it, or [alert] url; they are told later")


def in_words(found: Status, zone: ZoneInfo) -> str:
    """The screen of `fourview status`; times in `zone`."""
    return "\n".join(printable(line).replace("\n", "\\n") for line in _lines(found, zone)) + "\n"


def _when(moment: datetime | None, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S") if moment is not None else "-"


def _lines(found: Status, zone: ZoneInfo) -> Iterator[str]:
    yield "OK: nothing needs a person" if not found.troubles else f"TROUBLE: {len(found.troubles)}"
    for one in found.troubles[:MOST_SHOWN]:
        yield f"  {one.text}"
        yield f"      -> {one.command}"
    if len(found.troubles) > MOST_SHOWN:
        yield f"  and {len(found.troubles) - MOST_SHOWN} more -> fourview alerts"
    free = "cannot be read" if found.room is None else f"{found.room.free_bytes / GIB:.1f} GiB free in the {found.room.volume}"
    if found.model is not None:
        untrained = "" if found.model["trained"] else ", UNTRAINED: the numbers are meaningless"
        yield f"Model       {found.model['name']} {found.model['version']}{untrained}"
    yield f"Disk        {free}, nothing is received below {found.floor_bytes / GIB:g} GiB"
    if found.facts is None:
        yield "Database    away"
        return
    yield "Database    answers"
    yield from _rest(found.facts, zone)


def _rest(facts: Facts, zone: ZoneInfo) -> Iterator[str]:
    living = [one for one in facts.processes if one.alive]
    for one in living:
        yield f"Process     {one.role:<8} {one.process}  since {_when(one.started_at, zone)}"
    if not living:
        yield "Processes   none"
    yield from _configurations(living, zone)
    yield "Studies     " + (_counted(facts.studies) or "none")
    since = f", the one that waits longest since {_when(facts.study_waits_since, zone)}" if facts.study_waits_since is not None else ""
    yield f"Work        {facts.open_studies} studies wait for a worker, {facts.images_waiting} images{since}"
    for destination in sorted({name for name, _ in facts.deliveries}):
        counts = _counted({state: count for (name, state), count in facts.deliveries.items() if name == destination})
        waits = facts.delivery_waits_since.get(destination)
        why = facts.delivery_error.get(destination, "")
        if size := facts.originals_bytes.get(destination):
            counts += f" ({size / GIB:.1f} GiB of images kept for it)"
        yield (
            f"Deliveries  {destination}: {counts}" + (f"; waits since {_when(waits, zone)}" if waits else "") + (f": {why}" if why else "")
        )
    if not facts.deliveries:
        yield "Deliveries  none is open"
    for pause in facts.pauses:
        yield f"Paused      {pause_in_words(pause, zone)}"
    if facts.reconciled_at is not None and facts.reconciled:
        yield f"Reconciled  {_when(facts.reconciled_at, zone)}"
    else:
        yield "Reconciled  never"
    standing = [alert for alert in facts.alerts if alert["cleared_at"] is None]
    yield f"Alerts      {len(standing)} stand (`fourview alerts`)" if standing else "Alerts      none stands"


def _configurations(living: Sequence[Process], zone: ZoneInfo) -> Iterator[str]:
    for hash_, processes in by_configuration(living).items():
        since = min(one.configured.since for one in processes if one.configured)
        yield f"Config      {hash_} since {_when(since, zone)}: {', '.join(one.process for one in processes)}"
    said = [(word, text) for one in living if one.configured for word, text in _of_file(one.configured)]
    for word, text in dict.fromkeys(said):
        yield f"  {word:<9} {text}"


def _of_file(configured: Configured) -> Iterator[tuple[str, str]]:
    yield from (("refused", complaint) for complaint in configured.complaints)
    yield from (("waiting", sentence) for sentence in configured.waiting)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{state} {count}" for state, count in sorted(counts.items()))


def alerts_in_words(alerts: Sequence[Mapping[str, Any]], zone: ZoneInfo) -> str:
    """The listing of `fourview alerts`."""
    lines = []
    for alert in alerts:
        told = (
            f"told {_when(alert['told_at'], zone)}" if alert["told_at"] else f"not told: {alert['error']}" if alert["error"] else "not told"
        )
        lines.append(f"{_when(alert['raised_at'], zone)}  {alert['kind']:<11} {alert['text']}  ({told})")
        lines.append(f"      -> {alert['command']}")
    return "".join(printable(line).replace("\n", "\\n") + "\n" for line in lines)
