"""The workflows on the real engine: what happens when a worker dies, and when the disk is away."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fourview_process import PROJECT, SIMULATED_CARD
from mammograms_made import mammogram, uid

from listener.scp import check_uids, keep_file, read_keys
from store.archive import Archive
from store.database import read_engine, write_engine
from store.files import Files
from store.search import Search
from store.study import HANGING_ORDER

pytestmark = pytest.mark.xdist_group("whole_way")


class Site:
    """A data folder, workers on it, and images put into it as the receiver does."""

    def __init__(self, folder: Path, sleep_seconds: float) -> None:
        self.folder = folder
        (folder / "card.toml").write_text(SIMULATED_CARD + f"sleep_seconds = {sleep_seconds}\n")
        (folder / "config.toml").write_text("""
[study]
wait_for_retake_seconds = 0
[model]
card = "card.toml"
allow_untrained = true
[[rule]]
name = "all"
when = 'Modality == "MG"'
action = "analyse"
""")
        self.workers: list[subprocess.Popen[str]] = []

    def worker(self, host: str) -> subprocess.Popen[str]:
        with (self.folder / f"{host}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, str(PROJECT / "tests" / "worker_process.py"), host, str(self.folder / "config.toml")],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
            )
        self.workers.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", (self.folder / f"{host}.log").read_text()[-3000:]
        return process

    @property
    def files(self) -> Files:
        return Files(self.folder / "data" / "files")

    def receive(self, study: str) -> None:
        archive = Archive(write_engine(f"sqlite:///{self.folder / 'data' / 'fourview.db'}"))
        for view in HANGING_ORDER:
            received = self.files.incoming / "received"
            mammogram(view, study=study).save_as(received, enforce_file_format=True)
            keys = read_keys(received)
            check_uids(keys)
            keep_file(keys, received, "", archive=archive, files=self.files, calling_ae_title="ROOM1", called_ae_title="FOURVIEW")

    def study(self, study: str) -> dict[str, Any]:
        return Search(read_engine(f"sqlite:///{self.folder / 'data' / 'fourview.db'}")).study(uid(study))

    def wait_for(self, study: str, condition: Callable[[dict[str, Any]], bool], seconds: float = 90) -> dict[str, Any]:
        give_up_at = time.monotonic() + seconds
        while not condition(found := self.study(study)):
            logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))
            assert time.monotonic() < give_up_at, f"{found['state']}: {found['state_reason']}\n{logs}"
            time.sleep(0.1)
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[[float], Site]]:
    made: list[Site] = []

    def make(sleep_seconds: float) -> Site:
        made.append(Site(tmp_path, sleep_seconds))
        return made[-1]

    yield make
    for one in made:
        for worker in one.workers:
            worker.kill()
            worker.wait()


def begun(found: dict[str, Any]) -> bool:
    return any(score["attempt"] for image in found["images"] for score in image["scores"])


def scored(found: dict[str, Any]) -> bool:
    return any(score["state"] == "scored" for image in found["images"] for score in image["scores"])


def test_a_dead_hosts_work_is_taken_over_by_another(site: Callable[[float], Site]) -> None:
    """A recreated container has another host name: the engine itself would wait for the old one for ever."""
    here = site(3.0)
    first = here.worker("container-a")
    here.receive("taken over")
    here.wait_for("taken over", begun)
    first.kill()
    first.wait()
    assert here.study("taken over")["state"] == "analysing"
    here.worker("container-b")
    found = here.wait_for("taken over", lambda found: found["state"] == "analysed")
    assert [run["outcome"] for run in found["runs"]] == ["COMPLETE"]


def test_the_same_worker_goes_on_after_kill_9(site: Callable[[float], Site]) -> None:
    here = site(1.0)
    first = here.worker("host")
    here.receive("killed")
    here.wait_for("killed", scored)
    first.kill()
    first.wait()
    here.worker("host")
    found = here.wait_for("killed", lambda found: found["state"] == "analysed")
    assert [run["outcome"] for run in found["runs"]] == ["COMPLETE"]


def test_images_wait_for_a_disk_that_is_away(site: Callable[[float], Site]) -> None:
    here = site(0.0)
    here.worker("host")
    files = here.files.root
    # The headers are read, then the mount goes before the pixels are.
    here.receive("away")
    files.rename(files.with_name("unmounted"))
    time.sleep(3)
    before = here.study("away")
    assert before["runs"] == []
    assert before["state"] in ("collecting", "analysing")
    files.with_name("unmounted").rename(files)
    found = here.wait_for("away", lambda found: found["state"] == "analysed")
    assert [run["outcome"] for run in found["runs"]] == ["COMPLETE"]


def test_a_file_that_is_gone_fails_its_view_only(site: Callable[[float], Site]) -> None:
    here = site(0.0)
    here.worker("host").kill()  # it made the database
    here.workers[0].wait()
    here.receive("gone")
    kept = sorted(path for path in here.files.root.glob("??/*") if path.is_file())
    kept[0].unlink()
    here.worker("host")
    found = here.wait_for("gone", lambda found: found["state"] in ("analysed", "collecting") and bool(found["images"][3]["disposition"]))
    gone = here.wait_for("gone", lambda found: any("is gone" in image["disposition_reason"] for image in found["images"]))
    assert [image["disposition"] for image in gone["images"]].count("candidate") == 3
    assert found["state"] == "collecting"  # three of four: the fourth may come again
