"""Studies per hour for 1, 2, 4 and 8 workers on one PostgreSQL, with a simulated model of a stated sleep: how it grows, and where it stops.

    python benchmarks/scale_out.py [SECONDS_PER_IMAGE] [STUDIES_PER_WORKER] [--json FILE]

The model only sleeps, as one on an accelerator would, so that this machine's cores are not the limit of the reading itself; what else a
study costs (receiving, decoding, preparing, report, page, rows, the engine's polling) is real. Images are 256x256. Each worker is a
process of its own, on a host name of its own. The clock starts with the first C-STORE and stops when the last study is analysed.
Prints a table with what idle workers cost, and JSON.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from accounting import Rows  # noqa: E402
from databases import PostgresProcess, postgres_programs, run  # noqa: E402
from fourview_process import FourviewProcess  # noqa: E402
from killing import wait_until_settled  # noqa: E402
from ports import free_port  # noqa: E402
from processes import descendants  # noqa: E402
from storescu import Sender, write_exam  # noqa: E402

WORKERS = (1, 2, 4, 8)
IDLE_SECONDS = 10.0
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run each size on a fresh database and print the figures."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    output = words.pop() if "--json" in sys.argv else ""
    sleep_seconds = float(words[0]) if words else 2.0
    studies = int(words[1]) if len(words) > 1 else 4
    programs = postgres_programs()
    if programs is None:
        sys.exit("this needs PostgreSQL's server: apt install postgresql")
    server = PostgresProcess(programs, free_port(), synchronous_commit="on", fsync="on", full_page_writes="on", max_connections=300)
    try:
        server.start()
        rows = [measured(server, workers, sleep_seconds, studies * workers) for workers in WORKERS]
    finally:
        server.remove()
    first = rows[0]["studies_per_hour"]
    print(f"\n{sleep_seconds:g} s per image, {platform.machine()}, {os.cpu_count()} cores; PostgreSQL, workers and sender all on it")
    print("workers  studies/hour  efficiency  cores used  of them PostgreSQL  idle cores")
    for one in rows:
        one["efficiency"] = round(one["studies_per_hour"] / first / one["workers"], 3)
        print(
            f"{one['workers']:>7}  {one['studies_per_hour']:>12.0f}  {one['efficiency']:>10.0%}  {one['cores']:>10.2f}"
            f"  {one['cores_postgresql']:>18.2f}  {one['idle_cores']:>10.2f}"
        )
    text = json.dumps({"seconds_per_image": sleep_seconds, "cores": os.cpu_count(), "rows": rows})
    print(text)
    if output:
        Path(output).write_text(text + "\n")


def measured(server: PostgresProcess, workers: int, sleep_seconds: float, studies: int) -> dict[str, Any]:
    """One size: everything is received first, then the workers start at once."""
    name = f"workers_{workers}"
    run(server.url, f"CREATE DATABASE {name}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = FourviewProcess(
            folder,
            dicom_port=free_port(),
            http_port=free_port(),
            pacs_port=free_port(),
            pacs_url="http://127.0.0.1:1",
            database=f"{server.url}/{name}",
            card=f"sleep_seconds = {sleep_seconds}",
        )
        try:
            ours.run("db", "upgrade")
            receiver = ours.role("receive", host="door")
            ours.wait_for(lambda: ours.living("receive"), "the receiver does not start")
            processes = [ours.role("work", host=f"host{number}") for number in range(workers)]
            ours.wait_for(lambda: len(ours.living("work")) == workers, "the workers do not start", 180)
            idle = _cpu_seconds(processes, server)
            time.sleep(IDLE_SECONDS)
            idle_cores = (sum(_cpu_seconds(processes, server)) - sum(idle)) / IDLE_SECONDS
            sender = Sender(str(shutil.which("storescu", path="/usr/bin:/usr/local/bin")), ours.dicom_port)
            exams = [write_exam(folder / "outgoing", f"scale {number}") for number in range(studies)]
            before, began = _cpu_seconds(processes, server), time.monotonic()
            for exam in exams:
                sender.send(exam)
            wait_until_settled(ours, studies, delivered=False, seconds=1800)
            seconds, after = time.monotonic() - began, _cpu_seconds(processes, server)
            assert Rows(ours.database)("SELECT count(*) FROM version")[0][0] == studies
            assert receiver.poll() is None
        finally:
            ours.stop()
    found = {
        "workers": workers,
        "studies": studies,
        "seconds": round(seconds, 1),
        "studies_per_hour": round(studies / seconds * 3600, 1),
        "cores": round((sum(after) - sum(before)) / seconds, 2),
        "cores_postgresql": round((after[1] - before[1]) / seconds, 2),
        "idle_cores": round(idle_cores, 2),
    }
    print(found, flush=True)
    return found


def _cpu_seconds(processes: list[Any], server: PostgresProcess) -> tuple[float, float]:
    """What the workers with their children, and PostgreSQL, have used so far."""
    workers = [pid for found in descendants(*(one.pid for one in processes)).values() for pid in found]
    return sum(map(_used, workers)), sum(map(_used, server.pids()))


def _used(pid: int) -> float:
    """User and system time of a process and of its children that have ended, seconds."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(word) for word in words[11:15]) / TICKS


if __name__ == "__main__":
    main()
