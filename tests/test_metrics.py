"""/metrics: what Prometheus' own parser reads, from a real store; no UID and no patient is in it, and it answers without a database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import sqlalchemy as sa
from mammograms_made import uid
from prometheus_client.parser import text_string_to_metric_families
from results_made import ResultsMade, report
from serving import serving
from stepped_store import SteppedStore, exam, image

from listener import web
from listener.metrics import METRICS, exposition
from pipeline.figures import Figures
from store.condition import Condition, Facts
from store.database import read_engine
from store.leases import Configured
from store.pauses import Paused, Pauses
from store.study import View

GIB = 1 << 30


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) -> value, as Prometheus' own parser reads the text."""
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def scraped(stepped: SteppedStore) -> tuple[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]:
    content, content_type = exposition(Condition(stepped.engine).facts, lambda: 50 * GIB, 10 * GIB, "1.2.3")()
    assert content_type.startswith("text/plain; version=")
    return content.decode(), samples(content.decode())


def test_every_number_comes_from_the_store_and_no_uid_with_it(stepped: SteppedStore) -> None:
    stepped.now = datetime.now(UTC) - timedelta(hours=1)
    stepped.receive(*exam(study="delivered", PatientID="SECRETID", PatientName="SECRET^NAME"))
    stepped.settle()
    one, _other = [found for claim in stepped.ledger.claim() for found in stepped.ledger.batch(claim.workflow_id)]
    stepped.ledger.refused(one.delivery_id, 0x0122, "SOP class not supported")
    stepped.receive(image(View.L_CC, study="waiting"))
    Pauses(stepped.engine).pause(Paused.SENDING, person="anna")
    stepped.now = datetime.now(UTC)
    figures = Figures()
    figures.add("instances_received", "new")
    figures.add("instances_received", "new")
    figures.add("instances_ignored", "a report, not an image")
    figures.add("objects_sent", "sent")
    figures.add("images_on_demand", "read")
    figures.add("files_dropped", "kept")
    figures.took("stage_seconds", "decode", 0.25)
    figures.took("stage_seconds", "decode", 0.5)
    figures.took("delivery_lag_seconds", "pacs", 12.0)
    figures.add("config_reloads", "refused")
    refused = partial(Configured, hash="abc", complaints=("config.toml:1: broken",))
    stepped.claims.beat("a:receive:0", "receive", figures.snapshot(), 5.0, lambda now: refused(since=now - timedelta(seconds=5)))
    stepped.claims.beat("a:work:0", "work")
    stepped.now -= timedelta(hours=2)
    stepped.claims.beat("dead:work:0", "work", {"objects_sent|sent": 7})
    text, found = scraped(stepped)
    assert found["fourview_build_info", (("version", "1.2.3"),)] == 1
    assert found["fourview_database_up", ()] == 1
    assert [found["fourview_processes", (("role", role),)] for role in ("receive", "work", "web")] == [1, 1, 0]
    assert found["fourview_studies", (("state", "analysed"),)] == found["fourview_studies", (("state", "collecting"),)] == 1
    assert found["fourview_studies", (("state", "held"),)] == 0
    assert found["fourview_deliveries", (("destination", "pacs"), ("state", "refused"))] == 1
    assert found["fourview_deliveries", (("destination", "pacs"), ("state", "waiting"))] == 1
    assert 3500 < found["fourview_oldest_waiting_seconds", (("what", "delivery"),)] < 4500
    assert found["fourview_paused", (("what", "sending"),)] == 1 and found["fourview_paused", (("what", "analysing"),)] == 0
    assert found["fourview_disk_free_bytes", ()] == 50 * GIB and found["fourview_disk_floor_bytes", ()] == 10 * GIB
    of = ("process", "a:receive:0")
    assert found["fourview_instances_received_total", (("outcome", "new"), of)] == 2
    assert found["fourview_instances_ignored_total", (of, ("reason", "a report, not an image"))] == 1
    assert found["fourview_stage_seconds_sum", (of, ("stage", "decode"))] == 0.75
    assert found["fourview_stage_seconds_count", (of, ("stage", "decode"))] == 2
    assert found["fourview_delivery_lag_seconds_sum", (("destination", "pacs"), of)] == 12
    assert "dead:work:0" not in text
    assert {name for name, _ in found} <= METRICS
    empty = {"fourview_alerts", "fourview_originals_bytes", "fourview_reconciled_timestamp_seconds"}
    assert METRICS - {name for name, _ in found} == empty, "there is none of these yet"
    assert found["fourview_config_info", (("hash", "abc"), of)] == 1 and found["fourview_config_refused", (of,)] == 1
    assert found["fourview_config_loaded_timestamp_seconds", (of,)] == stepped.now.timestamp() + 7195
    assert found["fourview_config_reloads_total", (("outcome", "refused"), of)] == 1
    assert "SECRET" not in text and uid("delivered") not in text and uid("waiting") not in text


def test_figures_that_start_anew_say_when_they_started(stepped: SteppedStore) -> None:
    stepped.now = datetime.now(UTC)
    for alive_seconds in (600.0, 3.0):  # the second is another life of the same process
        stepped.claims.beat("a:work:0", "work", {}, alive_seconds)
        [process] = Condition(stepped.engine).facts().processes
        assert process.started_at == stepped.now - timedelta(seconds=alive_seconds)


def test_without_a_database_the_answer_says_so(tmp_path: Path) -> None:
    def facts() -> Facts:
        return Condition(read_engine(f"sqlite:///{tmp_path / 'folder' / 'none.db'}")).facts()

    (tmp_path / "folder").mkdir()
    source = ResultsMade(tmp_path)
    source.add(report())

    def away() -> Facts:
        raise sa.exc.OperationalError("SELECT 1", {}, Exception("connection refused"))

    for read in (facts, away):
        metrics = exposition(read, lambda: None, 10 * GIB, "1.2.3")
        application = web.create_app(results=source.search, file_path=source.files.path, ready=list, metrics=metrics)
        with serving(application) as base_url:
            answer = httpx.get(base_url + "/metrics", trust_env=False)
        found = samples(answer.text)
        assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain; version=")
        assert found["fourview_database_up", ()] == 0 and found["fourview_disk_floor_bytes", ()] == 10 * GIB
        assert {name for name, _ in found} == {"fourview_build_info", "fourview_database_up", "fourview_disk_floor_bytes"}


def test_one_scrape_counts_nothing_that_is_final_and_many(stepped: SteppedStore) -> None:
    """No statement of a scrape reads the table of instances, nor deliveries but by the index of their state."""
    asked: list[str] = []

    def hear(*arguments: object) -> None:
        asked.append(str(arguments[2]))

    sa.event.listen(stepped.engine, "before_cursor_execute", hear)
    Condition(stepped.engine).facts()
    sa.event.remove(stepped.engine, "before_cursor_execute", hear)
    assert asked and not [statement for statement in asked if re.search(r"\binstance\b", statement)]
    deliveries = [statement for statement in asked if "FROM delivery" in statement]
    assert deliveries and all(re.search(r"state (IN|=)", statement) for statement in deliveries)
