"""benchmarks/: what `make bench` makes of measurements, and that its rival is the replaced system. Nothing is measured here."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fourview_process import SIMULATED_CARD
from mammograms_made import breast_pixels, mammogram

from pipeline.model import model_input
from pipeline.model_card import parse_card
from pipeline.pixels import prepare
from store.database import Engine
from store.study import View

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import bench  # noqa: E402
import database_size  # noqa: E402
import machine  # noqa: E402
import measured  # noqa: E402
import million  # noqa: E402
import reference_path  # noqa: E402
import table  # noqa: E402
from goals import BY_KEY, DECLARED, SOURCES, Better, Figure, Source  # noqa: E402
from measured import Row, Verdict, from_json, in_turn, times_better, to_json  # noqa: E402

MACHINE: dict[str, Any] = {
    "cpu": "Example 9000",
    "cores": 2,
    "memory_gib": 8.0,
    "kernel": "6.1",
    "system": "Debian",
    "file_system": "ext4 on /dev/vda",
    "python": "3.11",
    "packages": {"torch": "2.13", "openvino": ""},
    "programs": {"Orthanc": "1.10.1"},
    "load_average": (0.1, 0.1, 0.1),
    "busy_share": 0.02,
    "quiet": True,
}


def test_the_rows_of_the_issue_are_declared_each_once_in_a_file_that_runs() -> None:
    keys = [one.key for one in DECLARED]
    assert len(keys) == len(set(keys)) == len(BY_KEY)
    assert {one.measured_in for one in DECLARED} == {source.name for source in SOURCES}
    goals = {one.key: [goal.text(one.unit) for goal in one.goals] for one in DECLARED}
    # A second, hand-written table.
    assert goals == {
        "paced": ["at least 10 times", "under 0.6 s"],
        "burst": ["at least 5 times", "under 1.3 s"],
        "sustained": ["at least 4 times"],
        "preprocessing_presentation": ["at least 15 times"],
        "preprocessing_reference": ["at least 4 times"],
        "view_memory": ["under 400 MB"],
        "classifier_fp32": ["at least 2 times"],
        "classifier_difference": ["under 0.0001"],
        "reception_1_storescp": ["at least 1.5 times"],
        "reception_4_storescp": ["at least 1 times"],
        "reception_16_storescp": [],
        "reception_1_orthanc": ["at least 1.5 times"],
        "reception_4_orthanc": ["at least 1.5 times"],
        "reception_16_orthanc": ["at least 1.5 times"],
        "reception_no_collapse": ["at least 1 times"],
        "receiver_memory": ["under 300 MiB"],
        "receiver_memory_flat": ["within 1.1 times"],
        "queued": ["within 1.2 times"],
        "database_keep": ["within 1.3 times"],
        "database_keep_p95": ["within 1.3 times"],
        "database_claim_studies": ["within 1.3 times"],
        "database_claim_images": ["within 1.3 times"],
        "database_claim_deliveries": ["within 1.3 times"],
    }


def test_ten_minutes_and_two() -> None:
    assert sum(one.seconds for one in SOURCES) <= 600
    assert sum(one.quick_seconds for one in SOURCES) <= 120


def test_a_run_names_every_declared_row_in_order_whatever_was_measured() -> None:
    given = {"classifier": [Row("classifier_fp32", [1.0], [2.5])]}
    rows = [row for source in SOURCES for row in bench.complete(source.name, given.get(source.name, []), "it failed")]
    rows = bench.in_order(rows)
    assert [row.key for row in rows] == [one.key for one in DECLARED]
    assert {row.key for row in rows if row.verdict is not Verdict.NOT_MEASURED} == {"classifier_fp32"}
    printed = table.text(rows)
    assert all(one.what in printed for one in DECLARED)
    assert printed.count("it failed") == 2  # the rows before and those after the one that was measured
    assert printed.count("not measured") == len(DECLARED) - 1


@pytest.mark.parametrize(
    ("key", "ours", "rival", "verdict"),
    [
        ("paced", [0.5, 0.55], [6.0, 6.1], Verdict.REACHED),
        ("paced", [0.5], [4.0], Verdict.BEHIND),  # fast, but only 8 times
        ("paced", [0.6], [9.0], Verdict.BEHIND),  # 15 times, but not under 0.6
        ("sustained", [4000.0], [1000.0], Verdict.REACHED),  # a rate: more is better
        ("sustained", [1000.0], [4000.0], Verdict.BEHIND),
        ("database_keep", [1.3], [1.0], Verdict.REACHED),
        ("database_keep", [1.31], [1.0], Verdict.BEHIND),
        ("receiver_memory", [100.0, 299.0], [], Verdict.REACHED),
        ("receiver_memory", [100.0, 100.0, 301.0], [], Verdict.BEHIND),  # the largest counts
        ("reception_16_storescp", [10.0], [500.0], Verdict.REPORTED),
        ("classifier_fp32", [1.0], [], Verdict.NOT_MEASURED),
        ("classifier_fp32", [], [1.0], Verdict.NOT_MEASURED),
    ],
)
def test_verdicts(key: str, ours: list[float], rival: list[float], verdict: Verdict) -> None:
    assert Row(key, ours, rival).verdict is verdict


def test_ratios_are_how_many_times_better_ours_is() -> None:
    assert times_better(Better.LESS, 0.5, 5.0) == 10
    assert times_better(Better.MORE, 300.0, 150.0) == 2
    row = Row("classifier_fp32", [1.0, 2.0, 1.0], [2.0, 8.0, 2.0])
    assert row.times == 2  # of the medians
    assert row.pair_times == (2, 4)
    assert Row("classifier_fp32", [1.0, 2.0], [2.0]).pair_times is None


def test_figures() -> None:
    values = [float(number) for number in range(101)]
    assert [Figure.MEDIAN.of(values), Figure.P95.of(values), Figure.LARGEST.of(values)] == [50, 95, 100]
    assert Figure.P95.of([3.0]) == 3
    with pytest.raises(ValueError, match="no measurement"):
        Figure.MEDIAN.of([])


def test_pairs_are_taken_in_turn_and_the_first_is_thrown_away() -> None:
    calls: list[str] = []

    def once(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    ours, rival = in_turn(lambda: once("ours"), lambda: once("rival"), seconds=0, at_least=3)
    assert calls == ["ours", "rival"] * 4
    assert (ours, rival) == ([3, 5, 7], [4, 6, 8])
    assert len(in_turn(lambda: 1.0, lambda: 1.0, seconds=3600, at_most=5, warm=0)[0]) == 5


def test_json_carries_every_value_and_comes_back() -> None:
    row = Row("paced", (0.5, 0.7), (6.0, 8.0), "a note", "something smaller")
    found = json.loads(json.dumps(to_json(row)))
    assert found["ours"] == {"value": 0.6, "low": 0.5, "high": 0.7, "count": 2, "values": [0.5, 0.7]}
    assert [goal["met"] for goal in found["goals"]] == [True, False]
    assert found["verdict"] == "behind"
    assert from_json(found) == row
    missing = Row("paced", note="Orthanc is not installed")
    assert from_json(json.loads(json.dumps(to_json(missing)))) == missing


def test_the_table_says_plainly_what_is_behind() -> None:
    rows = [Row("paced", [0.5, 0.7], [4.0, 4.2]), Row("database_keep", [1.2], [1.0], "a note", "keep() with 10")]
    lines = table.text(rows).splitlines()
    assert "behind: not at least 10 times and not under 0.6 s" in lines[2]
    assert "0.6 s (0.5-0.7)" in lines[2]
    assert "6.83 times (6.00-8.00)" in lines[2]
    assert lines[3].startswith("keep() with 10 ") and lines[3].endswith("reached") and "1.20 of it" in lines[3]
    assert lines[4].strip() == "a note"
    written = table.markdown(rows).splitlines()
    assert len({line.count("|") for line in written[:4]}) == 1
    assert written[-1] == "* keep() with 10, beside the same with 1,000: a note"
    behind = f"behind: 1 ({BY_KEY['paced'].what}, beside reference path)"
    assert table.summary(rows).splitlines() == ["reached: 1", behind, "reported: 0", "not measured: 0"]


def test_numbers_have_three_digits() -> None:
    assert [table.number(value) for value in (0, 0.000012, 0.0123, 1.234, 45.67, 1234.5)] == [
        "0",
        "1.20e-05",
        "0.0123",
        "1.23",
        "45.7",
        "1234",
    ]


def test_a_row_of_another_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"declared in time_to_result\.py"):
        list(measured.checked("classifier", [Row("paced", [1.0], [1.0])]))


def test_a_run_goes_into_the_readme_between_its_marks() -> None:
    rows = [Row("paced", [0.5], [6.0]), Row("burst", [2.0], [6.0])]
    run = json.loads(json.dumps(bench.as_json(rows, MACHINE, datetime(2026, 11, 29, tzinfo=UTC), 500.0, quick=False)))
    readme = f"before\n{bench.BEGIN}\nold\n{bench.END}\nafter\n"
    written = bench.with_table(readme, run)
    assert written.startswith("before\n") and written.endswith("\nafter\n") and "old" not in written
    assert "Example 9000, 2 cores" in written and "openvino not installed" in written and "2026-11-29" in written
    assert "reached" in written and "behind" in written
    assert bench.with_table(written, run) == written
    with pytest.raises(ValueError, match="quick"):
        bench.with_table(readme, {**run, "quick": True})
    with pytest.raises(ValueError, match="once each"):
        bench.with_table("nothing", run)
    assert bench.README.read_text().count(bench.BEGIN) == bench.README.read_text().count(bench.END) == 1


def test_a_file_that_fails_costs_only_its_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "stderr", (tmp_path / "printed").open("w"))
    row = json.dumps([to_json(Row("classifier_fp32", [1.0], [3.0]))])
    (tmp_path / "classifier.py").write_text(f"import sys\nopen(sys.argv[2], 'w').write({row!r})\nsys.exit(3)\n")
    found = bench._measured(Source("classifier", 1, 1), tmp_path, quick=True)
    assert [(one.key, one.verdict, one.note) for one in found] == [
        ("classifier_fp32", Verdict.REACHED, ""),
        ("classifier_difference", Verdict.NOT_MEASURED, "classifier.py ended with 3"),
    ]


def test_the_machine_is_described_and_a_busy_one_is_said() -> None:
    stats = iter(["cpu 100 0 100 800 0 0 0 0 0 0\n", "cpu 150 0 100 850 0 0 0 0 0 0\n"])
    assert machine.busy_share(lambda: next(stats), lambda: None) == 0.5
    assert machine.cpu_model("processor : 0\nmodel name\t: Example 9000\nmodel name\t: Other\n") == "Example 9000"
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/disk xfs rw 0 0\n"
    assert machine.file_system(Path("/tmp/else"), mounts) == "tmpfs on tmpfs"
    assert machine.file_system(Path("/tmp/disk/x"), mounts) == "xfs on /dev/b"
    assert machine.file_system(Path("/tmpfile"), mounts) == "ext4 on /dev/a"
    assert "NOT QUIET" not in machine.text(MACHINE) and "IN MEMORY" not in machine.text(MACHINE)
    assert "NOT QUIET" in machine.text({**MACHINE, "quiet": False})
    assert "IN MEMORY" in machine.text({**MACHINE, "file_system": "tmpfs on tmpfs"})


def test_a_database_is_filled_and_measured_as_an_installation_that_lives(engine: Engine) -> None:
    instances, url = 40, engine.url.render_as_string(hide_password=False)
    tables = database_size.rows(instances, engine.dialect.name)
    if engine.dialect.name == "sqlite":
        million._fill_sqlite(Path(str(engine.url.database)), tables)
    else:
        million._fill_postgresql(url, tables)
    ours = database_size.Installation(million.Filled(engine.dialect.name, url, instances), engine)
    for number in range(2):
        ours.round(number)
    took = {"keep": 8, "claim_studies": 2, "claim_images": 2, "claim_deliveries": 2}
    assert {what: len(values) for what, values in ours.took.items()} == took
    counted = {"instance": instances + 8, "study": 12, "score": 40, "delivery": 20}
    with engine.connect() as connection:
        for name, count in counted.items():
            assert connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar() == count
    assert ours.archive.claim_studies() == ours.scoring.claim() == ours.ledger.claim() == []


@pytest.mark.parametrize("view", [View.L_CC, View.R_MLO])
def test_the_rival_computes_what_profile_reference_computes(view: View) -> None:
    pixels = breast_pixels(view, rows=640, columns=512)
    ours = prepare(pixels, mammogram(view), profile="reference")
    theirs = reference_path.picture(pixels)
    assert np.array_equal(theirs.astype(np.float32) / np.float32(255), ours.grey)
    assert len(np.unique(theirs)) > 100
    given = reference_path.preprocess(pixels)
    assert given.shape == (1, 3, 512, 512) and given.dtype == np.float32
    assert np.array_equal(given, model_input(ours, parse_card(SIMULATED_CARD, Path("card.toml"))))
