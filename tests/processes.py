"""What /proc says of running processes: whose children they are, which role they have, what they hold."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")


def role_of(pid: int) -> str:
    """serve, receive, work, web or decode; "" for another program or one that has ended."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    if "pipeline.decode" in words:
        return "decode"
    ours = any(word in ("listener.cli", "fourview") or word.endswith(("worker_process.py", "/fourview")) for word in words)
    return next((word for word in words if ours and word in ("serve", "receive", "work", "web")), "")


def descendants(*roots: int) -> dict[str, list[int]]:
    """The processes under `roots` and these themselves, by role."""
    children: dict[int, list[int]] = defaultdict(list)
    for status in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            # pid (name) state ppid: the name may hold anything
            children[int(status.read_text().rpartition(")")[2].split()[1])].append(int(status.parent.name))
    found: dict[str, list[int]] = defaultdict(list)
    left = list(roots)
    while left:
        pid = left.pop()
        left += children[pid]
        if role := role_of(pid):
            found[role].append(pid)
    return dict(found)


def resident_kib(pid: int) -> int:
    """Resident memory, KiB (VmRSS)."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def threads(pid: int) -> int:
    return len(list((PROC / str(pid) / "task").iterdir()))


def open_files(pid: int) -> list[str]:
    """What each file descriptor is: a path, socket:[inode], pipe:[inode] ..."""
    found = []
    for handle in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(handle.readlink()))
    return sorted(found)


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill_dead(pid: int) -> bool:
    """SIGKILL; whether there was something to kill."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)
        return True
    return False
