"""The durable workflows: view, study, delivery. The only module that imports the workflow engine.

Our tables are the truth; the engine (DBOS) executes. A tick looks for rows that need attention and enqueues a workflow for each; a workflow
whose process died is run again by the engine; one that vanished is noticed by the tick, which hands its row out anew. Every step is an
idempotent transaction of the archive, so running twice is harmless.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta

from dbos import DBOS, DBOSClient, DBOSConfig, SetWorkflowID
from dbos._serialization import DBOSPortableJSONSerializer

from pipeline import conclude, deliver, read
from pipeline.chores import Chore, do_chores
from pipeline.warm import warm_up
from pipeline.workshop import Workshop
from store.claims import BEAT_SECONDS
from store.database import DatabaseAway, Engine

log = logging.getLogger(__name__)

#: How often the tables are looked at when nobody wakes the worker.
TICK_SECONDS = 0.1
#: How often the engine is asked what became of workflows that hold a row.
SWEEP_SECONDS = 2.0
#: How long a running workflow of a forgotten study is waited for.
FORGET_SECONDS = 30.0
#: Raised only when the order of steps in a workflow changes.
WORKFLOW_VERSION = "fourview-1"

_QUEUES = {"view": 2, "study": 4, "delivery": 4}


_workshop: Workshop | None = None


def _here() -> Workshop:
    assert _workshop is not None, "a workflow ran before `Worker` was made"
    return _workshop


@DBOS.step(name="read_image")
def _read_image(score_id: int) -> None:
    read.read_image(_here(), score_id)


@DBOS.workflow(name="view", max_recovery_attempts=3)
def _view(score_id: int) -> None:
    _read_image(score_id)
    wake()


@DBOS.step(name="advance")
def _advance(study_instance_uid: str) -> bool:
    return conclude.advance(_here(), study_instance_uid)


@DBOS.step(name="report")
def _report(study_instance_uid: str) -> None:
    conclude.conclude(_here(), study_instance_uid)


@DBOS.workflow(name="study", max_recovery_attempts=20)
def _study(study_instance_uid: str) -> None:
    if _advance(study_instance_uid):
        _report(study_instance_uid)
    wake()


@DBOS.step(name="deliver")
def _deliver(workflow_id: str) -> None:
    deliver.deliver(_here(), workflow_id)


@DBOS.workflow(name="delivery", max_recovery_attempts=20)
def _delivery(workflow_id: str) -> None:
    _deliver(workflow_id)
    wake()


_woken = threading.Event()


def wake() -> None:
    """Look at the tables now rather than at the next tick."""
    _woken.set()


class Worker:
    """One process that works: the engine's threads execute, the tick hands out."""

    def __init__(self, shop: Workshop, *, engine_url: str, engine: Engine, executor_id: str) -> None:
        global _workshop
        _workshop = shop
        self._shop = shop
        self._executor_id = executor_id
        DBOS(config=_engine_config(engine_url, engine, executor_id))

    def start(self) -> None:
        """Warm up, then launch the engine: unfinished workflows of this executor go on."""
        warm_up(self._shop)
        self._shop.chore_book.give_back(self._executor_id)
        self._beat()  # before the first claim, or another worker takes it for a dead one's
        DBOS.listen_queues(list(_QUEUES))
        DBOS.launch()
        for name, concurrency in _QUEUES.items():
            DBOS.register_queue(name, worker_concurrency=concurrency, polling_interval_sec=0.05, on_conflict="always_update")

    def run(self, stopped: threading.Event) -> None:
        """Tick until `stopped` is set."""
        swept = beaten = 0.0
        chores = (*self._shop.chores, Chore(name="forget workflows", every_seconds=600, do=self._forget_workflows))
        book = (self._shop.chore_book, self._executor_id, stopped)
        threading.Thread(target=do_chores, args=[chores, *book], name="chores", daemon=True).start()
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
                log.warning("database not reachable, trying again reason=%s", error.orig)
                stopped.wait(1.0)
            _woken.wait(TICK_SECONDS)

    def _beat(self) -> None:
        figures = self._shop.figures
        self._shop.claims.beat(self._executor_id, "work", figures.snapshot(), figures.alive_seconds())

    def close(self) -> None:
        """Stop the engine, after giving running workflows a few seconds."""
        DBOS.destroy(workflow_completion_timeout_sec=5)
        self._shop.chore_book.give_back(self._executor_id)
        self._shop.claims.leave(self._executor_id)  # last: whoever sees no lease takes our work over
        self._shop.decoder.close()

    def tick(self) -> None:
        """Hand every row that needs attention to the engine, once."""
        for claim in self._shop.archive.claim_studies():
            with SetWorkflowID(claim.workflow_id):
                DBOS.enqueue_workflow("study", _study, claim.row)
        for claim in self._shop.scoring.claim():
            with SetWorkflowID(claim.workflow_id):
                DBOS.enqueue_workflow("view", _view, int(claim.row))
        for claim in self._shop.ledger.claim():
            with SetWorkflowID(claim.workflow_id):
                DBOS.enqueue_workflow("delivery", _delivery, claim.workflow_id)

    def _forget_workflows(self) -> dict[str, int]:
        """The engine keeps what it did for ever; our timeline says it better. A day is left for looking into a failure."""
        before = datetime.now(UTC) - timedelta(days=1)
        ended = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
        old = DBOS.list_workflows(status=ended, completed_before=before.isoformat(), limit=5000, load_input=False, load_output=False)
        DBOS.delete_workflows([workflow.workflow_id for workflow in old])
        return {"forgotten": len(old)}

    def sweep(self) -> None:
        """Take rows back whose workflow is absent, has ended without settling them, or belongs to a process that is dead."""
        claimed = self._shop.claims.claimed(SWEEP_SECONDS)
        if not claimed:
            return
        living = {self._executor_id, *self._shop.claims.living("work")}
        alive, deadly = set(), set()
        for status in DBOS.list_workflows(workflow_ids=claimed, load_input=False, load_output=False):
            if status.status in ("ENQUEUED", "DELAYED") or (status.status == "PENDING" and status.executor_id in living):
                alive.add(status.workflow_id)
            elif status.status == "PENDING":
                # The engine recovers only its own executor's work. Cancelled first, so that a frozen process that wakes is fenced off.
                DBOS.cancel_workflow(status.workflow_id)
            elif status.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
                deadly.add(status.workflow_id)
        lost = [workflow_id for workflow_id in claimed if workflow_id not in alive]
        if lost and self._shop.claims.release(lost, "its worker died or lost its database", deadly=deadly):
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


def prepare_engine_tables(engine_url: str, engine: Engine) -> None:
    """Create or upgrade the workflow engine's own tables; part of `fourview db upgrade`."""
    DBOS(config=_engine_config(engine_url, engine, "db-upgrade"))
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
