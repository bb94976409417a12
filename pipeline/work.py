"""The durable workflows: view, study, delivery. The only module that imports the workflow engine.

Our tables are the truth; the engine (DBOS) executes. Each worker's tick looks for rows that need attention, takes as many as it has room
for, and starts a workflow for each at once; a workflow whose process died is run again by the engine; one that vanished is noticed by the
sweep, which frees its row. Every step is an idempotent transaction of the archive, so running twice is harmless. The engine's queues are
not used: polling them cost more than all else that an idle worker does, and our claims say already who works on what. Nor does it keep a
record of steps: a workflow that is run again begins at its beginning, finds in our tables what is done, and that record was half its cost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from dbos import DBOS, DBOSClient, DBOSConfig, SetWorkflowID
from dbos._serialization import DBOSPortableJSONSerializer

from pipeline import conclude, deliver, read
from pipeline.chores import Chore, do_chores
from pipeline.warm import warm_up
from pipeline.workshop import Workshop
from store.database import DatabaseAway, Engine
from store.leases import BEAT_SECONDS
from store.scoring import SPARE

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often the tables are looked at when nobody wakes the worker.
TICK_SECONDS = 0.1
#: How often the engine is asked what became of workflows that hold a row.
SWEEP_SECONDS = 2.0
#: How long a running workflow of a forgotten study is waited for.
FORGET_SECONDS = 30.0
#: Raised only when the order of steps in a workflow changes.
WORKFLOW_VERSION = "fourview-3"

#: Studies, and batches of deliveries, that one worker has in hand at once; how many images is the site's to say.
STUDIES_AT_ONCE = 4
DELIVERIES_AT_ONCE = 4
#: How long a worker that was told to stop goes on with what it has in hand before it gives it back.
FINISH_SECONDS = 8.0
#: For the engine this many deaths over one workflow are no reason to stop: what counts stands in `store.crashes`.
_NEVER = 1_000_000

#: The workflows that this process has in hand at this moment, `{kind}:{row}:{attempt}:{random}`, each with the workshop that it began
#: with: what the configuration becomes meanwhile concerns those that come after it.
_running: dict[str, Workshop] = {}

_workshop: Workshop | None = None


def _newest() -> Workshop:
    assert _workshop is not None, "a workflow ran before `Worker` was made"
    return _workshop


def _here(workflow_id: str) -> Workshop:
    return _running.get(workflow_id) or _newest()


class Surprised(Exception):
    """What ended a workflow, as the engine keeps it in its tables for a day: the kind alone. The log says where, and what it may tell."""


@contextmanager
def _noted() -> Iterator[str]:
    """Its id, among the running ones for as long as it runs; the tick looks again when it ends. A surprise's own words may quote a
    patient's data, and the engine would write them into its tables and its log: they end here (Surprised)."""
    workflow_id = str(DBOS.workflow_id)
    _running.setdefault(workflow_id, _newest())
    try:
        yield workflow_id
    except Exception as error:
        log.exception("workflow failed workflow_id=%s", workflow_id)
        raise Surprised(type(error).__name__) from None
    finally:
        _running.pop(workflow_id, None)
        wake()


@DBOS.workflow(name="view", max_recovery_attempts=_NEVER)
def _view(score_id: int) -> None:
    with _noted() as workflow_id:
        read.read_image(_here(workflow_id), score_id, workflow_id)


@DBOS.workflow(name="study", max_recovery_attempts=_NEVER)
def _study(study_instance_uid: str) -> None:
    with _noted() as workflow_id:
        if conclude.advance(_here(workflow_id), study_instance_uid, workflow_id):
            conclude.conclude(_here(workflow_id), study_instance_uid, workflow_id)


@DBOS.workflow(name="delivery", max_recovery_attempts=_NEVER)
def _delivery(workflow_id: str) -> None:
    with _noted():
        deliver.deliver(_here(workflow_id), workflow_id)


_woken = threading.Event()


def wake() -> None:
    """Look at the tables now rather than at the next tick."""
    _woken.set()


def _wake_when(stopped: threading.Event) -> None:
    stopped.wait()
    wake()


def _room(kind: str, at_once: int) -> int:
    """How many more workflows of this kind this process takes."""
    return max(0, at_once - sum(workflow_id.startswith(f"{kind}:") for workflow_id in tuple(_running)))


def _start(workflow: Callable[[T], None], workflow_id: str, argument: T) -> None:
    _running[workflow_id] = _newest()
    try:
        with SetWorkflowID(workflow_id):
            DBOS.start_workflow(workflow, argument)
    except BaseException:
        _running.pop(workflow_id, None)
        raise


class Worker:
    """One process that works: the engine's threads execute, the tick hands out. `beat` renews its lease."""

    def __init__(self, shop: Workshop, *, engine_url: str, engine: Engine, beat: Callable[[], None]) -> None:
        self.work_in(shop)
        self._beat = beat
        self._executor_id = shop.process
        self._not_running: set[str] = set()
        DBOS(config=_engine_config(engine_url, engine, shop.process))
        quiet_engine()

    def work_in(self, shop: Workshop) -> None:
        """What begins from now on begins in this workshop, which differs from the one before it in what the configuration decides."""
        global _workshop
        _workshop = self._shop = shop

    def start(self) -> None:
        """Warm up, then launch the engine: unfinished workflows of this executor go on."""
        warm_up(self._shop)
        self._shop.claims.begin_life(self._executor_id)
        self._beat()  # before the first claim, or another worker takes it for a dead one's
        DBOS.listen_queues([])
        DBOS.launch()

    def run(self, stopped: threading.Event) -> None:
        """Tick until `stopped` is set."""
        swept = beaten = 0.0
        threading.Thread(target=_wake_when, args=[stopped], name="stop", daemon=True).start()
        for who, mine in self._chore_threads().items():
            threading.Thread(target=do_chores, args=[mine, self._shop.chore_book, who, stopped], name=who, daemon=True).start()
        while not stopped.is_set():
            _woken.clear()
            try:
                self.tick()
                if time.monotonic() - swept >= SWEEP_SECONDS:
                    swept = time.monotonic()
                    self.sweep()
                if time.monotonic() - beaten >= BEAT_SECONDS:
                    beaten = time.monotonic()
                    self._beat()
            except DatabaseAway as error:
                # A database that is away or busy comes back; nothing is lost meanwhile, since nothing was answered.
                log.warning("database not reachable, trying again reason=%r", str(error.orig))
                stopped.wait(1.0)
            _woken.wait(TICK_SECONDS)

    def close(self) -> bool:
        """Stop: begin nothing more, finish what is in hand within `FINISH_SECONDS`, hand the rest back; whether all was finished."""
        self._shop.gate.close()
        DBOS.destroy(workflow_completion_timeout_sec=int(FINISH_SECONDS))
        finished = not _running
        handed_back = self._shop.claims.end_life(self._shop.life)
        if handed_back:
            log.warning("images handed back unfinished count=%d", handed_back)
        for who in self._chore_threads():
            self._shop.chore_book.give_back(who)
        self._shop.claims.leave(self._executor_id)  # last: whoever sees no lease takes our work over
        if finished:
            self._shop.decoder.close()
        return finished

    def _chore_threads(self) -> dict[str, Callable[[], list[Chore]]]:
        """Who does which chores: what may take hours has a thread of its own, as the disk is not to fill up behind it."""
        return {
            f"{self._executor_id}:chores": lambda: [one for one in self._chores() if not one.long],
            f"{self._executor_id}:long chores": lambda: [one for one in self._chores() if one.long],
        }

    def _chores(self) -> tuple[Chore, ...]:
        return (*self._shop.chores, Chore(name="forget workflows", every_seconds=600, do=self._forget_workflows))

    def tick(self) -> None:
        """Take the rows that need attention, as many as there is room for, and start a workflow for each."""
        if not self._shop.claims.anything():
            return
        if room := _room("study", STUDIES_AT_ONCE):
            for claim in self._shop.archive.claim_studies(room):
                _start(_study, claim.workflow_id, claim.row)
        at_once = self._shop.gate.images_at_once
        room = _room("view", at_once)
        if spare := _room("view", at_once + SPARE) - room:
            for claim in self._shop.scoring.claim(room, spare=spare, at_once=at_once):
                _start(_view, claim.workflow_id, int(claim.row))
        if room := _room("delivery", DELIVERIES_AT_ONCE):
            for claim in self._shop.ledger.claim(room):
                _start(_delivery, claim.workflow_id, claim.workflow_id)

    def _forget_workflows(self) -> dict[str, int]:
        """The engine keeps what it did for ever; our timeline says it better. A day is left for looking into a failure."""
        before = (datetime.now(UTC) - timedelta(days=1)).isoformat()
        ended = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
        forgotten = 0
        while old := DBOS.list_workflows(status=ended, completed_before=before, limit=1000, load_input=False, load_output=False):
            DBOS.delete_workflows([workflow.workflow_id for workflow in old])
            forgotten += len(old)
        return {"forgotten": forgotten}

    def sweep(self) -> None:
        """Take rows back whose workflow is absent, has ended without settling them, or will not be run by anybody."""
        claimed = self._shop.claims.claimed(SWEEP_SECONDS)
        if not claimed:
            return
        living = set(self._shop.claims.living("work"))
        alive, not_running = set(), set()
        this_release = (None, "", WORKFLOW_VERSION)
        for status in DBOS.list_workflows(workflow_ids=claimed, load_input=False, load_output=False):
            mine = status.executor_id == self._executor_id
            if status.status not in ("ENQUEUED", "DELAYED", "PENDING"):
                continue
            if status.status == "PENDING" and mine and status.workflow_id not in _running:
                not_running.add(status.workflow_id)
                # Taken from the queue a moment ago, or by an earlier life, or its start was lost with the database: seen twice is lost.
                if status.workflow_id not in self._not_running:
                    alive.add(status.workflow_id)
                    continue
            elif (status.status == "PENDING" and (mine or status.executor_id in living)) or (
                status.status != "PENDING" and status.app_version in this_release
            ):
                alive.add(status.workflow_id)
                continue
            # Its executor is dead, or it waits for a release that no longer runs. Cancelled first, so that whoever wakes up is fenced off.
            DBOS.cancel_workflow(status.workflow_id)
        self._not_running = not_running & alive
        lost = [workflow_id for workflow_id in claimed if workflow_id not in alive]
        if lost and self._shop.claims.release(lost, "its worker died or lost its database"):
            log.warning("rows taken back from ended workflows count=%d first=%s", len(lost), lost[0])


def forget_workflows(engine_url: str, engine: Engine, prefixes: Sequence[str], living: Callable[[], Collection[str]]) -> bool:
    """Delete the engine's rows of workflows whose ids begin so. Those that a living process has in hand are waited for: they find nothing
    any more and end soon. False: after `FORGET_SECONDS` one still runs; its row goes a day after its end like any other."""
    client = DBOSClient(system_database_url=engine_url, system_database_engine=engine, serializer=DBOSPortableJSONSerializer())
    give_up_at = time.monotonic() + FORGET_SECONDS
    try:
        while True:
            found = client.list_workflows(workflow_id_prefix=list(prefixes), load_input=False, load_output=False) if prefixes else []
            if not found:
                return True
            alive = set(living())
            # What waits in a queue can go at once: nothing is left for it to do.
            ended = [one.workflow_id for one in found if not (one.status == "PENDING" and one.executor_id in alive)]
            client.delete_workflows(ended)
            if len(ended) < len(found):
                if time.monotonic() > give_up_at:
                    return False
                time.sleep(0.1)
    finally:
        client.destroy()


def quiet_engine() -> None:
    """The engine writes through our log, warnings only: its own handler has another form, and advertises at INFO."""
    engine_log = logging.getLogger("dbos")
    engine_log.handlers.clear()
    engine_log.propagate = True
    engine_log.setLevel(logging.WARNING)


def prepare_engine_tables(engine_url: str, engine: Engine) -> None:
    """Create or upgrade the workflow engine's own tables; part of `fourview db upgrade`."""
    DBOS(config=_engine_config(engine_url, engine, "db-upgrade"))
    quiet_engine()
    DBOS.listen_queues([])
    DBOS.launch()
    DBOS.destroy()


def _engine_config(engine_url: str, engine: Engine, executor_id: str) -> DBOSConfig:
    """The engine's settings. Executor id and version are always ours: its defaults make processes steal each other's work."""
    return {
        "name": "fourview",
        "system_database_url": engine_url,
        "system_database_engine": engine,
        "executor_id": executor_id,
        "application_version": WORKFLOW_VERSION,
        "serializer": DBOSPortableJSONSerializer(),  # the default unpickles what it finds in the database
        "use_listen_notify": False,
        "log_level": "WARNING",
    }
