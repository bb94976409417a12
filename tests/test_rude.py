"""Peers without manners beside a normal sender: all of its images are kept, and nothing of theirs is left."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from mammograms_made import mammogram
from rude_made import KINDS, be_rude, connect

from listener.connections import CROWDED
from listener.scp import StorageScp
from pipeline.send import Pacs, SendOutcome, send
from store.archive import Archive
from store.database import write_engine
from store.files import Files
from store.upgrade import upgrade

PATIENCE_SECONDS = 12


@dataclass
class Site:
    scp: StorageScp
    files: Files
    folder: Path

    def send(self, name: str) -> None:
        """An image by a normal sender, which must be kept."""
        ds, path = mammogram(study=name), self.folder / f"{name}.dcm"
        ds.save_as(path, enforce_file_format=True)
        [sent] = send(Pacs(name="us", ae_title="FOURVIEW", host="127.0.0.1", port=self.scp.port), "GANTRY", [path])
        assert sent.outcome is SendOutcome.SENT, sent.reason

    def kept(self) -> int:
        return sum(1 for path in self.files.root.glob("??/*") if path.is_file())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    patch = pytest.MonkeyPatch()
    patch.setattr(tempfile, "tempdir", None)
    folder = tmp_path_factory.mktemp("rude")
    engine = write_engine(f"sqlite:///{folder}/site.db")
    upgrade(engine)
    files = Files(folder / "files")
    with StorageScp(ae_title="FOURVIEW", host="127.0.0.1", port=0, archive=Archive(engine), files=files, acse_seconds=2) as scp:
        made = Site(scp, files, folder)
        made.send("first")
        yield made
    engine.dispose()
    patch.undo()


def wait_for(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def held() -> tuple[int, int]:
    """Threads and descriptors of this process."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def test_every_kind_of_rudeness_beside_a_normal_sender(site: Site) -> None:
    wait_for(lambda: not any(thread.name.startswith("AcceptorThread") for thread in threading.enumerate()))
    before, kept = held(), site.kept()
    stopped, counts = threading.Event(), Counter[str]()
    rude = [threading.Thread(target=be_rude, args=[site.scp.port, seed, stopped, counts], kwargs={"pause_seconds": 0}) for seed in range(6)]
    for one in rude:
        one.start()
    number = 0
    while number < 10 or set(counts) < set(KINDS):  # each kind at least once
        site.send(f"beside-{number}")
        number += 1
    stopped.set()
    for one in rude:
        one.join()
    assert site.kept() == kept + number
    wait_for(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))
    assert list(site.files.incoming.iterdir()) == []


def test_idle_sockets_of_many_addresses_beside_a_normal_sender(site: Site) -> None:
    """Each may have a hundred, and all together what a receiver has, but not what is left for others."""
    kept = site.kept()
    with ExitStack() as stack:
        for number in range(CROWDED + 40):  # each takes three descriptors of this process, which has 1,024 as well
            stack.enter_context(connect(site.scp.port, f"127.0.3.{1 + number % 20}"))
            if number % 60 == 59:
                site.send(f"among-idle-{number}")
    assert site.kept() == kept + 4
