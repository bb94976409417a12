"""Two transactions on one study at the same moment, on PostgreSQL: whatever the interleaving, the end is that of one after the other.

For every ordered pair of the store's writing methods the first is stopped after one of its statements, while its transaction is open;
the second then runs until it has ended or waits for a lock; then the first goes on. Both serial orders are lived as well, and rows and
answers must equal one of them. A deadlock, a lost update or a half-seen state fails. (SQLite has one writer: nothing to try.)

The first two statements, the middle one and the last are stopped after; each one in turn with FOURVIEW_EVERY_STATEMENT=1 (`make torture`).
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sqlalchemy as sa
from mammograms_made import uid
from stepped_store import CEILING, MODEL, POLICY, RETAKE, START, FixedRuling, SteppedStore, exam, image, made_scores
from test_on_demand import ask, book

from store import tables
from store.grouping import RequestKind
from store.header import pack_header, read_header, unpack_header
from store.retention import Why
from store.study import View
from store.tables import metadata
from store.view import resolve

STUDY = uid("study")
DAY = 24 * 3600.0
PATIENCE_SECONDS = 20.0
#: What belongs to a study, parents before children.
TABLES = [table.name for table in metadata.sorted_tables if "study_instance_uid" in table.columns]
#: Surrogate keys say only who came first; names of files are random; headers never change.
UNTOLD = ("id", "version_id", "file_name", "header")

Operation = Callable[[], Any]
Rows = list[str]


@dataclass(frozen=True)
class Outcome:
    """What the two methods answered, and what the tables hold afterwards."""

    first: Any
    second: Any
    rows: Rows


def normal(text: str) -> str:
    """Workflow ids without the row's number and their random end."""
    return re.sub(r"\b(view|study|delivery):[0-9.]+:(\d+):[0-9a-f]{8}\b", r"\1:\2", text)


class Laboratory:
    """One database whose rows can be put back, and two threads to be run against each other in it."""

    def __init__(self, stepped: SteppedStore) -> None:
        self.stepped = stepped
        self.engine = stepped.engine
        self._watcher = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._stop_after = 0
        self._statements = 0
        self._paused, self._go = threading.Event(), threading.Event()
        self._first: threading.Thread | None = None
        sa.event.listen(self.engine, "after_cursor_execute", self._count)

    def close(self) -> None:
        sa.event.remove(self.engine, "after_cursor_execute", self._count)
        self._watcher.exec_driver_sql("; ".join(f"DROP TABLE IF EXISTS start_{name}" for name in TABLES))
        self._watcher.close()

    def remember(self) -> None:
        """The rows of now are where every trial starts."""
        self._watcher.exec_driver_sql("; ".join(f"CREATE TABLE start_{name} AS TABLE {name}" for name in TABLES))
        filled = [name for name in TABLES if self._watcher.exec_driver_sql(f"SELECT 1 FROM start_{name} LIMIT 1").first()]
        back = [f"DELETE FROM {name}" for name in reversed(TABLES)] + [f"INSERT INTO {name} SELECT * FROM start_{name}" for name in filled]
        self._put_back = "; ".join(back)
        untold = ", ".join(f"'{name}'" for name in UNTOLD)
        self._look = " UNION ALL ".join(f"SELECT '{name}', (to_jsonb(t) - ARRAY[{untold}])::text FROM {name} t" for name in TABLES)

    def serial(self, first: Operation, second: Operation) -> tuple[Outcome, int]:
        """One after the other; also how many statements the first one makes."""
        self._watcher.exec_driver_sql(self._put_back)
        self._first, self._stop_after, self._statements = threading.current_thread(), 0, 0
        answer = answered(first)
        statements = self._statements
        return Outcome(answer, answered(second), self._rows()), statements

    def raced(self, first: Operation, second: Operation, stop_after: int) -> Outcome:
        """The second begins when the first has made `stop_after` statements, and the first waits until the second can go no further."""
        self._watcher.exec_driver_sql(self._put_back)
        answers: dict[str, Any] = {}
        one = threading.Thread(target=lambda: answers.update(first=answered(first)))
        two = threading.Thread(target=lambda: answers.update(second=answered(second)))
        self._paused.clear()
        self._go.clear()
        self._first, self._stop_after, self._statements = one, stop_after, 0
        one.start()
        assert self._paused.wait(PATIENCE_SECONDS), "the first method never came to the statement after which it stops"
        two.start()
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while two.is_alive() and not self._waiting():
            assert time.monotonic() < give_up_at, "the second method neither ends nor waits for a lock"
            two.join(0.001)
        self._go.set()
        one.join(PATIENCE_SECONDS)
        two.join(PATIENCE_SECONDS)
        assert not one.is_alive() and not two.is_alive()
        if answers["second"] == []:
            answers["second"] = answered(second)  # a claim passes over a row that is locked, and the next tick finds it
        return Outcome(answers["first"], answers["second"], self._rows())

    def _waiting(self) -> bool:
        query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' LIMIT 1"
        return self._watcher.exec_driver_sql(query).first() is not None

    def _count(self, *_: Any) -> None:
        if threading.current_thread() is self._first:
            self._statements += 1
            if self._statements == self._stop_after:
                self._paused.set()
                assert self._go.wait(PATIENCE_SECONDS)

    def _rows(self) -> Rows:
        return sorted(f"{name} {normal(row)}" for name, row in self._watcher.exec_driver_sql(self._look).all())


def answered(operation: Operation) -> Any:
    """What it returns, comparable; what it raises is an answer too, which no serial order gives when it is a deadlock."""
    try:
        found = operation()
    except sa.exc.DBAPIError as error:
        return str(error.orig)
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    if isinstance(found, list):
        # A claim's row is a UID, a destination, or the number of a score, which says only who came first.
        return [(normal(one.workflow_id), "" if one.row.isdigit() else one.row) if hasattr(one, "row") else repr(one) for one in found]
    return repr(found)


@pytest.fixture
def laboratory(postgres_engine: sa.Engine, tmp_path: Any) -> Iterator[Laboratory]:
    names = ", ".join(table.name for table in metadata.sorted_tables if table.name != "installation")
    with postgres_engine.begin() as connection:
        connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
    made = Laboratory(SteppedStore(postgres_engine, tmp_path / "files"))
    yield made
    made.close()


def collecting(stepped: SteppedStore) -> dict[str, Operation]:
    """Three images of a new study are known and wait to be read, the fourth has just come; a worker holds the study and one image."""
    stepped.receive(*exam()[:3])
    stepped.work(read=False)
    stepped.receive(exam()[3])
    [study] = stepped.archive.claim_studies()
    claims = stepped.scoring.claim(1)
    [reads] = [int(claim.row) for claim in claims]
    return {
        **receptions(stepped),
        **decisions(stepped),
        "advance": advance(stepped),
        "score saved": lambda: stepped.scoring.save(reads, made_scores(exam()[0].pixel_array), "aa/" + "0" * 30, 0.25),
        "score failed": lambda: stepped.scoring.fail(reads, "broken", permanent=True),
        "pixel hash": lambda: stepped.scoring.save_pixel_hash(reads, "ab" * 32, "left"),
        "images claimed": lambda: stepped.scoring.claim(),
        "claims released": lambda: stepped.claims.release([study.workflow_id, *(claim.workflow_id for claim in claims)], "died"),
    }


def analysing(stepped: SteppedStore) -> dict[str, Operation]:
    """The selection with a retake is frozen and read; of version 1 one object is on its way and one waits; another model reads too."""
    stepped.receive(*exam())
    stepped.settle()
    [claim] = stepped.ledger.claim()
    [first, second] = stepped.begin(claim.workflow_id)
    stepped.ledger.not_sent(second.delivery_id, None, "nobody listens", retry_days=3)
    stepped.receive(image(View.L_CC, "retake", AcquisitionTime="103000"))
    stepped.work()
    stepped.step(RETAKE)
    stepped.work(report=False)
    reading = stepped.archive.reading(STUDY, stepped.policy)
    assert reading is not None and reading.current is not None and stepped.state() == "analysing"
    new = stepped.new_version(reading)
    assert stepped.scoring.ask(STUDY, replace(POLICY, model=replace(MODEL, version="2"))) == 4
    [background] = stepped.scoring.claim()
    [(workflow_id,)] = stepped.rows(sa.select(tables.study.c.workflow_id))
    stepped.step(CEILING)
    return {
        **receptions(stepped),
        **decisions(stepped),
        "advance": advance(stepped),
        "version saved": lambda: stepped.archive.save_version(STUDY, reading, new),
        "unchanged": lambda: stepped.archive.settle_unchanged(STUDY, "nothing changed", {first.sop_instance_uid: ["pacs", "other"]}),
        "failed": lambda: stepped.archive.settle_failed(STUDY, "no view could be read"),
        "score saved": lambda: stepped.scoring.save(int(background.row), made_scores(exam()[0].pixel_array), "aa/" + "0" * 30, 0.25),
        "sent": lambda: stepped.ledger.sent(first.delivery_id, 0, "", ask=True),
        "deliveries claimed": lambda: stepped.ledger.claim(),
        "claims released": lambda: stepped.claims.release([workflow_id, claim.workflow_id], "died"),
    }


def withdrawing(stepped: SteppedStore) -> dict[str, Operation]:
    """A person has asked to withdraw an analysed study of which one object is on its way and one waits."""
    stepped.receive(*exam())
    stepped.settle()
    [claim] = stepped.ledger.claim()
    [first, second] = stepped.begin(claim.workflow_id)
    stepped.ledger.not_sent(second.delivery_id, None, "nobody listens", retry_days=3)
    stepped.archive.request(STUDY, RequestKind.WITHDRAW, request_id="asked before", person="Kim")
    stepped.step(CEILING)
    return {
        **receptions(stepped),
        **decisions(stepped),
        "advance": advance(stepped),
        "studies claimed": lambda: stepped.archive.claim_studies(),
        "sent": lambda: stepped.ledger.sent(first.delivery_id, 0, "", ask=True),
        "not sent": lambda: stepped.ledger.not_sent(first.delivery_id, 0xA700, "out of resources", retry_days=3),
        "begun": lambda: len(stepped.ledger.begin([first], claim.workflow_id, checked=True)),
        "deliveries claimed": lambda: stepped.ledger.claim(),
        "claims released": lambda: stepped.claims.release([claim.workflow_id], "died"),
        "sent by another": lambda: stepped.ledger.sent(first.delivery_id, 0x0000, "", ask=False, workflow_id="another"),
    }


def old(stepped: SteppedStore) -> dict[str, Operation]:
    """An analysed study whose pixels have been kept long enough; one object is being sent once more."""
    stepped.receive(*exam())
    stepped.settle()
    [claim] = stepped.ledger.claim()
    [first, second] = stepped.begin(claim.workflow_id)
    stepped.ledger.sent(second.delivery_id, 0, "", ask=False)
    stepped.ledger.sent(first.delivery_id, 0, "", ask=True)
    stepped.step(30 * DAY)
    return {
        **receptions(stepped),
        **decisions(stepped),
        "advance": advance(stepped),
        "retired": lambda: stepped.retention(7, 90).let_go(Why.AGE, [STUDY]),
        "deliveries claimed": lambda: stepped.ledger.claim(),
        "confirmed": lambda: stepped.ledger.confirmed(first.delivery_id),
    }


def on_demand(stepped: SteppedStore) -> dict[str, Operation]:
    """A study of which people had three images read, long ago, and that a person sends now."""
    for ds in exam()[:3]:
        ask(stepped, ds)
    stepped.settle()
    stepped.step(30 * DAY)
    stepped.ruling = FixedRuling(action="ignore", rule_name="", reason="no rule matches", send_to=())
    sent = {"request_id": "s1", "person": "Kim", "otherwise": ["pacs"]}
    return {
        "sent by a person": lambda: book(stepped).send(STUDY, **sent),
        "kept after all": lambda: stepped.receive(exam()[0])[0].value,
        "another kept": lambda: stepped.receive(exam()[3])[0].value,
        "read once more": lambda: ask(stepped, exam()[0])[0].linked,
        "given up": lambda: stepped.archive.give_up(STUDY, "a surprise"),
        "advance": advance(stepped),
    }


def receptions(stepped: SteppedStore) -> dict[str, Operation]:
    foreign = image(View.L_CC, "foreign", PatientID="P2", PatientName="Roe^Ann")
    return {
        "new image kept": lambda: stepped.receive(foreign)[0].value,
        "duplicate kept": lambda: stepped.receive(exam()[0])[0].value,
    }


def decisions(stepped: SteppedStore) -> dict[str, Operation]:
    return {
        "given up": lambda: stepped.archive.give_up(STUDY, "a surprise"),
        "asked": lambda: stepped.archive.request(STUDY, RequestKind.REPROCESS, request_id="r1", person="Kim"),
    }


def advance(stepped: SteppedStore) -> Operation:
    """One look with what was unresolved when the trial starts."""
    resolved: dict[int, Any] = {}
    for one in stepped.archive.unresolved(STUDY):
        packed = pack_header(read_header(stepped.files.path(one.file_name)))
        resolved[one.instance_id] = (resolve(unpack_header(packed)), packed)
    return lambda: stepped.archive.advance(STUDY, resolved, stepped.policy, stepped._decide)


@pytest.mark.parametrize("start", [collecting, analysing, withdrawing, old, on_demand])
def test_every_interleaving_ends_like_a_serial_order(laboratory: Laboratory, start: Callable[[SteppedStore], dict[str, Operation]]) -> None:
    operations = start(laboratory.stepped)
    assert laboratory.stepped.now >= START
    laboratory.remember()
    complaints = []
    trials = 0
    serial = {(a, b): laboratory.serial(operations[a], operations[b]) for a in operations for b in operations}
    for (a, b), (straight, statements) in serial.items():
        reverse = serial[b, a][0]
        expected = (straight, Outcome(reverse.second, reverse.first, reverse.rows))
        for stop_after in stops(statements):
            trials += 1
            try:
                found = laboratory.raced(operations[a], operations[b], stop_after)
            except Exception as error:  # noqa: BLE001
                complaints.append(f"{a!r} stopped after {stop_after} of {statements}, then {b!r}: {type(error).__name__}: {error}")
                continue
            if found not in expected:
                complaints.append(f"{a!r} stopped after statement {stop_after} of {statements}, then {b!r}: {difference(found, straight)}")
    print(f"{len(operations)} methods, {trials} interleavings")
    assert trials >= len(operations) ** 2
    assert not complaints, "\n".join(complaints)


def stops(statements: int) -> list[int]:
    if os.environ.get("FOURVIEW_EVERY_STATEMENT"):
        return list(range(1, statements + 1))
    return sorted({1, min(2, statements), (statements + 1) // 2, statements})


def difference(found: Outcome, serial: Outcome) -> str:
    lines = [f"answers {found.first!r}, {found.second!r}; one after the other {serial.first!r}, {serial.second!r}"]
    lines += [f"  found    {row}" for row in found.rows if row not in serial.rows]
    lines += [f"  expected {row}" for row in serial.rows if row not in found.rows]
    return "\n".join(lines)
