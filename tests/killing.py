"""kill -9 at random moments while `storescu` sends: what `make torture` does two hundred times and tests/test_crash.py a few times."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from accounting import Account, Rows, account, linked_files
from fourview_process import FourviewProcess
from orthanc_process import OrthancProcess
from processes import descendants, is_alive, kill_dead
from storescu import Outgoing, Sender, write_exam

#: Which process dies, by weight: `serve` takes all others with it.
ROLES = {"serve": 2, "receive": 3, "work": 4, "web": 1, "decode": 2}
#: A role comes back after its supervisor's pause, which grows while it dies again and again.
BACK_SECONDS = 120.0
SETTLE_SECONDS = 300.0


class Sending:
    """A sender of its own thread: study after study, to the PACS and to us, until it is told to stop; then what is begun is finished."""

    def __init__(self, sender: Sender, folder: Path, *, pacs: OrthancProcess, name: str, pause_seconds: float = 0.3) -> None:
        self.sender = sender
        self._pacs = pacs  # which is asked whose study it is before a result leaves
        self.sent: list[list[Outgoing]] = []
        self._folder, self._name, self._pause = folder, name, pause_seconds
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"sender-{name}", daemon=True)

    def __enter__(self) -> Sending:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self, seconds: float = 180) -> None:
        """Returns when the last study was taken whole; raises what stopped the sender."""
        self._stopped.set()
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the sender hangs: {dict(self.sender.statuses)}"
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                exam = write_exam(self._folder, f"{self._name}-{len(self.sent)}")
                for one in exam:
                    self._pacs.upload(one.path.read_bytes())
                self.sender.send(exam, seconds=170)
                self.sent.append(exam)
                self._stopped.wait(self._pause)
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            self._failure = error


class Killer:
    """Kills one process of a running installation at a time and sees that it comes back."""

    def __init__(self, fourview: FourviewProcess, seed: int) -> None:
        self.fourview = fourview
        self.kills: Counter[str] = Counter()
        self._answered = 0
        self._random = random.Random(seed)

    def round(self, sender: Sender, longest_wait_seconds: float = 2.0) -> str:
        """Kill one process that lives, a random while after something was taken again; the role, which lives again."""
        self.fourview.wait_for(lambda: len(sender.answered) > self._answered, "nothing is taken any more", BACK_SECONDS)
        self._answered = len(sender.answered)
        time.sleep(self._random.uniform(0.0, longest_wait_seconds))
        assert self.fourview.process is not None
        living = descendants(self.fourview.process.pid)
        roles = [role for role in ROLES if living.get(role)]
        [role] = self._random.choices(roles, [ROLES[one] for one in roles])
        pid = self._random.choice(living[role])
        if kill_dead(pid):
            self.kills[role] += 1
        if role == "serve":
            self._again(living)
        elif role != "decode":  # a worker starts another one when it next decodes
            self.fourview.wait_for(lambda: self._lives(role, pid), f"{role} did not come back", BACK_SECONDS)
        return role

    def _again(self, before: dict[str, list[int]]) -> None:
        assert self.fourview.process is not None
        self.fourview.process.wait(10)
        pids = [pid for found in before.values() for pid in found]
        # Children end by themselves when their parent's pipe closes; only then are the ports free.
        self.fourview.wait_for(lambda: not any(is_alive(pid) for pid in pids), "a child outlived its parent", 30)
        self.fourview.launch()
        self.fourview.wait_for(lambda: self._lives("work", 0), "serve did not start again", BACK_SECONDS)

    def _lives(self, role: str, other_than: int) -> bool:
        assert self.fourview.process is not None
        assert self.fourview.process.poll() is None, f"serve ended with {self.fourview.process.returncode}"
        return any(pid != other_than for pid in descendants(self.fourview.process.pid).get(role, []))


def wait_until_settled(fourview: FourviewProcess, studies: int, *, delivered: bool = True, seconds: float = SETTLE_SECONDS) -> None:
    """Every study has ended, nobody holds a row, and (`delivered`) every delivery is confirmed or given up.

    Kills leave a backlog, which a busy machine takes its time to read: given up is when the smallest number of what is not through has
    stood for `seconds`.
    """
    rows = Rows(fourview.database)
    queries = [
        "SELECT count(*) FROM study"
        " WHERE state IN ('collecting', 'analysing') OR workflow_id IS NOT NULL OR generation > settled_generation",
        "SELECT count(*) FROM score WHERE state = 'waiting' OR workflow_id IS NOT NULL",
    ]
    if delivered:
        queries.append("SELECT count(*) FROM delivery WHERE workflow_id IS NOT NULL OR due_at IS NOT NULL")

    least, give_up_at = None, 0.0
    while True:
        left = [rows(query)[0][0] for query in queries]
        here = rows("SELECT count(*) FROM study")[0][0]
        if not any(left) and here >= studies:
            return
        if least is None or sum(left) < least:
            least, give_up_at = sum(left), time.monotonic() + seconds
        where = f"{left} of studies, scores, deliveries are not through, {here} of {studies} studies are here"
        assert time.monotonic() < give_up_at, f"{where}; Fourview's log:\n{fourview.log.read_text()[-6000:]}"
        time.sleep(0.5)


def sweep_orphans(fourview: FourviewProcess) -> int:
    """What kills left in the spool is a day old at once, and the janitor is asked; how many files were there. None may be left."""
    rows = Rows(fourview.database)
    long_ago = time.time() - 25 * 3600
    linked = linked_files(rows)
    left = [path for path in fourview.files.glob("[0-9a-f][0-9a-f]/*") if f"{path.parent.name}/{path.name}" not in linked]
    left += list((fourview.files / "incoming").iterdir())
    for path in left:
        os.utime(path, (long_ago, long_ago))
    return len(left)


def rehearse(
    folder: Path,
    fourview: FourviewProcess,
    orthanc: OrthancProcess,
    *,
    rounds: int,
    seed: int,
    program: str | None = None,
    say: bool = False,
    longest_wait_seconds: float = 2.0,
) -> tuple[Account, Counter[str], Sender]:
    """`rounds` kills while studies come in; then everything is let come to rest and counted."""
    sender = Sender(program or str(shutil.which("storescu", path="/usr/bin:/usr/local/bin")), fourview.dicom_port)
    killer = Killer(fourview, seed)
    fourview.start()
    with Sending(sender, folder / "outgoing", pacs=orthanc, name=f"s{seed}", pause_seconds=1.0) as sending:
        for number in range(1, rounds + 1):
            role = killer.round(sender, longest_wait_seconds)
            if say and number % 10 == 0:
                print(f"round {number}: killed {role}; {len(sending.sent)} studies taken", flush=True)
    studies = {one.study_instance_uid for one in sender.answered}
    fourview.wait_for(fourview._ready, "Fourview does not get ready after the last round", BACK_SECONDS)
    wait_until_settled(fourview, len(studies))
    return account(fourview.database, fourview.files, sender.answered, orthanc, killed=True), killer.kills, sender


def total(kills: Counter[str]) -> Sequence[tuple[str, int]]:
    """By role, in the order of `ROLES`."""
    return [(role, kills[role]) for role in ROLES]
