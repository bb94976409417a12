"""What machine it was, and whether it was quiet."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

#: A machine whose cores others keep busier than this tells little.
QUIET_SHARE = 0.1
LOOK_SECONDS = 3.0

PACKAGES = ("torch", "torchvision", "openvino", "numpy", "scikit-image", "pydicom", "pynetdicom", "dbos", "sqlalchemy")
#: Program -> how it says its version.
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "Orthanc": ("Orthanc", "--version"),
    "dcmtk": ("storescp", "--version"),
}


def described(folder: Path) -> dict[str, Any]:
    """The machine, what is installed, the disk under `folder`, and how busy others kept it for the last seconds."""
    busy = busy_share()
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "file_system": file_system(folder, Path("/proc/mounts").read_text()),
        "python": platform.python_version(),
        "packages": {name: _package(name) for name in PACKAGES},
        "programs": {name: _program(command) for name, command in PROGRAMS.items()},
        "load_average": os.getloadavg(),
        "busy_share": round(busy, 3),
        "quiet": busy < QUIET_SHARE,
    }


def text(machine: Mapping[str, Any]) -> str:
    """Three lines, and a fourth that warns."""
    packages = ", ".join(f"{name} {version or 'not installed'}" for name, version in machine["packages"].items())
    programs = ", ".join(f"{name} {version or 'not installed'}" for name, version in machine["programs"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB; {machine['system']}, Linux {machine['kernel']}, "
        f"{machine['file_system']}",
        f"Python {machine['python']}, {packages}, {programs}",
        f"load average {machine['load_average'][0]:.2f}; others kept the cores {machine['busy_share']:.0%} busy before the start",
    ]
    if not machine["quiet"]:
        lines.append("THE MACHINE WAS NOT QUIET: only ratios of pairs are worth something, and these little.")
    if machine["file_system"].startswith("tmpfs"):
        lines.append("THE FOLDER IS IN MEMORY: fsync costs nothing there; name one on a disk with TMPDIR.")
    return "\n".join(lines)


def busy_share(
    read: Callable[[], str] = lambda: Path("/proc/stat").read_text(), wait: Callable[[], None] = lambda: time.sleep(LOOK_SECONDS)
) -> float:
    """Share of all cores' time that was not idle while `wait` lasted; time that a hypervisor took counts as busy."""
    before = _ticks(read())
    wait()
    after = _ticks(read())
    passed = sum(after) - sum(before)
    idle = sum(after[3:5]) - sum(before[3:5])  # idle, iowait
    return 1 - idle / passed if passed else 0.0


def _ticks(stat: str) -> list[int]:
    return [int(word) for word in stat.splitlines()[0].split()[1:9]]


def cpu_model(cpuinfo: str) -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def file_system(folder: Path, mounts: str) -> str:
    """Type and device of the file system that holds the folder: the longest mount point above it."""
    path = folder.resolve()
    fields = [line.split() for line in mounts.splitlines()]
    above = [(point, kind, device) for device, point, kind, *_ in fields if path.is_relative_to(point)]
    _, kind, device = max(above, key=lambda one: len(one[0]))
    return f"{kind} on {device}"


def _package(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _program(command: tuple[str, ...]) -> str:
    """The first number with a point that the program prints; "" when it is not there."""
    found = shutil.which(command[0], path=f"/usr/bin:/usr/sbin:{os.environ.get('PATH', '')}")
    if found is None:
        return ""
    done = subprocess.run([found, *command[1:]], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603 - a program of the list
    number = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return number.group(0) if number else "of unknown version"
