"""What a process counts since it started, for /metrics: it is written beside the process's lease at each beat. No UIDs and no names."""

from __future__ import annotations

import threading
import time


class Figures:
    """Numbers that only grow, by name and label; added to from any thread."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._numbers: dict[str, float] = {}

    def add(self, name: str, label: str, amount: float = 1.0) -> None:
        """Add to `name` of `label`."""
        with self._lock:
            key = f"{name}|{label}"
            self._numbers[key] = self._numbers.get(key, 0.0) + amount

    def took(self, name: str, label: str, seconds: float) -> None:
        """One more of what takes time: `name`_sum and `name`_count."""
        self.add(f"{name}_sum", label, seconds)
        self.add(f"{name}_count", label)

    def snapshot(self) -> dict[str, float]:
        """All numbers: {"name|label": number}."""
        with self._lock:
            return dict(self._numbers)

    def alive_seconds(self) -> float:
        """How long this process has counted."""
        return time.monotonic() - self._started
