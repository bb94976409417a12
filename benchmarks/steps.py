"""Where the time of one exam goes, from Fourview's log; and what processes cost, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
#: Words of a command line, and what the process is called in the table.
_KINDS = {" receive ": "receiver", " work ": "worker", " web ": "web", "pipeline.decode": "decoding", "Orthanc": "Orthanc"}


@dataclass(frozen=True)
class Step:
    """Seconds after the last image was answered at which it ended, and how long it took."""

    what: str
    ended: float
    took: float


def steps(log: Iterable[Mapping[str, Any]], study_instance_uid: str, answered: float, stored: float) -> list[Step]:
    """What happened to a study after its last image was `answered` until its report was `stored` (both in seconds since the epoch)."""
    lines = [line for line in log if line.get("study_instance_uid") == study_instance_uid]

    def ended(event: str, field: str = "") -> tuple[float, float]:
        """When the last one of these ended, and the seconds that the line says it took."""
        line = next(line for line in reversed(lines) if line["event"].startswith(event))
        return float(line["at"]) - answered, float(line.get(field, 0))

    looked, _ = next((float(line["at"]) - answered, 0) for line in lines if line.get("to") == "analysing")
    read, reading = ended("image read", "seconds")
    _, decoding = ended("image read", "decode_seconds")
    _, classifying = ended("image read", "classify_seconds")
    saved, reporting = ended("version saved", "seconds")
    sent, sending = next(
        (float(line["at"]) - answered, float(line["batch_seconds"])) for line in lines if line["event"].split()[0] == "delivery"
    )
    kept, keeping = ended("instance", "seconds")
    began = read - reading
    in_orthanc = stored - answered
    return [
        Step("received and kept (before the answer)", kept, keeping),
        Step("noticed, header read, elected, ruled", looked, looked - kept),
        Step("image handed out and begun", began, began - looked),
        Step("decoded", began + decoding, decoding),
        Step("prepared and classified, preview made", began + decoding + classifying, classifying),
        Step("preview and scores saved", read, reading - decoding - classifying),
        Step("looked at again", saved - reporting, saved - reporting - read),
        Step("report and page written, version saved", saved, reporting),
        Step("handed to delivery, asked whose study it is", sent - sending, sent - sending - saved),
        Step("report stored in the PACS", in_orthanc, in_orthanc - (sent - sending)),
    ]


def steps_text(found: Sequence[Step]) -> str:
    """As a table, in milliseconds."""
    lines = [
        f"  {'ms after the answer':>20} {'took':>7}",
        *(f"  {1000 * one.ended:20.0f} {1000 * one.took:7.0f}  {one.what}" for one in found),
    ]
    return "\n".join(lines)


def processor_seconds(since: Mapping[str, float] | None = None) -> dict[str, float]:
    """Seconds of a core that the processes which this one has started have spent, by kind (`since` an earlier answer)."""
    parents: dict[int, int] = {}
    spent: dict[int, tuple[str, float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        number = int(folder.name)
        parents[number] = int(fields[1])
        kind = next((kind for words, kind in _KINDS.items() if words in command), "")
        spent[number] = (kind, sum(int(field) for field in fields[11:13]) / _TICKS)

    def ours(number: int) -> bool:
        while number > 1:
            number = parents.get(number, 0)
            if number == os.getpid():
                return True
        return False

    found = dict.fromkeys(_KINDS.values(), 0.0)
    for number, (kind, seconds) in spent.items():
        if kind and ours(number):
            found[kind] += seconds
    own = os.times()
    found["sender and this program"] = own.user + own.system + own.children_user + own.children_system
    return {kind: seconds - (since or {}).get(kind, 0.0) for kind, seconds in found.items()}
