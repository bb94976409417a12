"""/metrics in Prometheus' text format: read from the database at each scrape, with what processes counted since they started.

Labels are states, roles, destinations, kinds and process names; never a UID, a patient or a device. When the database is away the answer is
still 200, with `fourview_database_up 0` and what can be told without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from store.condition import OPEN, Facts, Process
from store.database import DatabaseAway
from store.pauses import Paused
from store.study import StudyState

log = logging.getLogger(__name__)

#: Gauges: name -> (what it is, labels).
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "fourview_build_info": ("The release, as a label; always 1", ("version",)),
    "fourview_database_up": ("1 when the database answered this scrape; without it most other metrics are absent", ()),
    "fourview_processes": ("Processes that renewed their lease lately", ("role",)),
    "fourview_studies": ("Studies by state", ("state",)),
    "fourview_studies_waiting": ("Studies that wait for a worker or are being read", ()),
    "fourview_images_waiting": ("Images that wait to be read or are being read", ()),
    "fourview_oldest_waiting_seconds": ("Age of what waits longest, 0 when nothing waits: a study for a worker, a delivery", ("what",)),
    "fourview_deliveries": ("Deliveries that are not at their end or need a person", ("destination", "state")),
    "fourview_originals_bytes": ("Images that are kept because they still have to be forwarded", ("destination",)),
    "fourview_disk_free_bytes": (
        "Free space of the files' volume or the database's, whichever is less; absent when one cannot be read",
        (),
    ),
    "fourview_disk_floor_bytes": ("[store] min_free_gib: below it nothing is received", ()),
    "fourview_paused": ("1 while a person has paused it", ("what",)),
    "fourview_alerts": ("Alerts that stand", ("kind",)),
    "fourview_alerts_untold": ("Alerts that the webhook did not take yet", ()),
    "fourview_config_info": ("The configuration by which a process works, as a label; always 1", ("process", "hash")),
    "fourview_config_loaded_timestamp_seconds": ("When it took that", ("process",)),
    "fourview_config_refused": ("1 while it refuses its configuration file as it is now", ("process",)),
    "fourview_reconciled_timestamp_seconds": ("When the comparison with the PACS was done last; absent before the first", ()),
}
#: What processes count: name -> (what it is, the label beside `process`). Counters end in _total, summaries have _sum and _count.
COUNTERS: dict[str, tuple[str, str]] = {
    "fourview_instances_received": ("Instances that were sent to a receiver, by what became of them", "outcome"),
    "fourview_instances_ignored": ("Instances of which only a row is kept, by the reason", "reason"),
    "fourview_images_on_demand": ("Images that a person asked for by the replaced system's interface, by what became of them", "outcome"),
    "fourview_files_dropped": ("Files that a person gave to be read, by what became of them", "outcome"),
    "fourview_config_reloads": ("Times that the configuration file was read anew: taken, unchanged, refused", "outcome"),
    "fourview_objects_sent": ("Results and forwarded images offered to a destination, by its answer", "outcome"),
}
SUMMARIES: dict[str, tuple[str, str]] = {
    "fourview_stage_seconds": ("Seconds per image (reception, decode, classify), version (report) or batch (send)", "stage"),
    "fourview_delivery_lag_seconds": (
        "Seconds from the version, or the routing of an image, to the destination's Success",
        "destination",
    ),
}
#: The name of every sample.
METRICS = frozenset(
    [*GAUGES, *(f"{name}_total" for name in COUNTERS), *(f"{name}_{part}" for name in SUMMARIES for part in ("sum", "count"))]
)
_ROLES = ("receive", "work", "web")


class _Installation(Collector):
    def __init__(self, facts: Callable[[], Facts], free_bytes: Callable[[], int | None], floor_bytes: int, version: str) -> None:
        self._facts = facts
        self._free_bytes = free_bytes
        self._floor_bytes = floor_bytes
        self._version = version

    def describe(self) -> Iterable[Metric]:
        return []  # or registering would read the database

    def collect(self) -> Iterator[Metric]:
        try:
            facts: Facts | None = self._facts()
        except DatabaseAway as error:
            log.error("database not reachable reason=%r", str(error.orig))
            facts = None
        yield _gauge("fourview_build_info", {(self._version,): 1})
        yield _gauge("fourview_database_up", {(): facts is not None})
        free = self._free_bytes()
        yield _gauge("fourview_disk_free_bytes", {} if free is None else {(): free})
        yield _gauge("fourview_disk_floor_bytes", {(): self._floor_bytes})
        if facts is not None:
            yield from _of_facts(facts)
            yield from _counted([one for one in facts.processes if one.alive])


def _gauge(name: str, values: dict[tuple[str, ...], float]) -> Metric:
    words, labels = GAUGES[name]
    family = GaugeMetricFamily(name, words, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, float(value))
    return family


def _of_facts(facts: Facts) -> Iterator[Metric]:
    def age(since: list[float]) -> float:
        return max(0.0, facts.now.timestamp() - min(since)) if since else 0.0

    yield _gauge("fourview_processes", {(role,): len(facts.living(role)) for role in _ROLES})
    yield _gauge("fourview_studies", {(state.value,): facts.studies.get(state, 0) for state in StudyState})
    yield _gauge("fourview_studies_waiting", {(): facts.open_studies})
    yield _gauge("fourview_images_waiting", {(): facts.images_waiting})
    study = [facts.study_waits_since.timestamp()] if facts.study_waits_since is not None else []
    delivery = [one.timestamp() for one in facts.delivery_waits_since.values()]
    yield _gauge("fourview_oldest_waiting_seconds", {("study",): age(study), ("delivery",): age(delivery)})
    destinations = sorted({destination for destination, _ in facts.deliveries})
    by_state: dict[tuple[str, ...], float] = {
        (name, state): facts.deliveries.get((name, state), 0) for name in destinations for state in OPEN
    }
    yield _gauge("fourview_deliveries", by_state)
    yield _gauge("fourview_originals_bytes", {(name,): size for name, size in facts.originals_bytes.items()})
    paused = {one["what"] for one in facts.pauses}
    yield _gauge("fourview_paused", {(what.value,): what in paused for what in Paused})
    kinds: dict[tuple[str, ...], float] = {}
    for one in facts.alerts:
        if one["cleared_at"] is None:
            kinds[(one["kind"],)] = kinds.get((one["kind"],), 0) + 1
    yield _gauge("fourview_alerts", kinds)
    yield _gauge("fourview_alerts_untold", {(): sum(one["due_at"] is not None and one["tries"] > 0 for one in facts.alerts)})
    configured = {(one.process,): one.configured for one in facts.processes if one.alive and one.configured is not None}
    yield _gauge("fourview_config_info", {(*name, one.hash): 1 for name, one in configured.items()})
    yield _gauge("fourview_config_loaded_timestamp_seconds", {name: one.since.timestamp() for name, one in configured.items()})
    yield _gauge("fourview_config_refused", {name: bool(one.complaints) for name, one in configured.items()})
    done = facts.reconciled_at
    yield _gauge("fourview_reconciled_timestamp_seconds", {(): done.timestamp()} if done is not None else {})


def _counted(processes: list[Process]) -> Iterator[Metric]:
    for name, (words, label) in COUNTERS.items():
        counter = CounterMetricFamily(name, words, labels=(label, "process"))
        for one in processes:
            for value, number in _labelled(one.figures, name):
                counter.add_metric((value, one.process), number)
        yield counter
    for name, (words, label) in SUMMARIES.items():
        summary = SummaryMetricFamily(name, words, labels=(label, "process"))
        for one in processes:
            counts = dict(_labelled(one.figures, f"{name}_count"))
            for value, number in _labelled(one.figures, f"{name}_sum"):
                summary.add_metric((value, one.process), count_value=int(counts.get(value, 0)), sum_value=number)
        yield summary


def _labelled(figures: dict[str, float], name: str) -> Iterator[tuple[str, float]]:
    for key, number in figures.items():
        found, _, label = key.partition("|")
        if f"fourview_{found}" == name:
            yield label, number


def exposition(
    facts: Callable[[], Facts], free_bytes: Callable[[], int | None], floor_bytes: int, version: str
) -> Callable[[], tuple[bytes, str]]:
    """A function that reads everything anew and returns (text, content type)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Installation(facts, free_bytes, floor_bytes, version))
    return lambda: (generate_latest(registry), CONTENT_TYPE_LATEST)
