"""How often: token buckets, one for each key. Time comes in, in seconds of any steady clock; nothing outlives the process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

#: The buckets that were used longest ago are given up beyond so many: a key that is seen again starts with a full one.
MOST_KEYS = 10_000


class Buckets:
    """`size` at once, and `per_minute` more every minute."""

    def __init__(self, size: float, per_minute: float) -> None:
        self._size = size
        self._per_second = per_minute / 60.0
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # level, when it was so

    def wait(self, key: Hashable, now: float) -> float:
        """Seconds until there is one to take; 0 when there is one now."""
        return max(0.0, (1.0 - self._level(key, now)) / self._per_second)

    def take(self, key: Hashable, now: float) -> float:
        """Take one, and return 0; or take none, and return the seconds until there is one."""
        level = self._level(key, now)
        if level < 1.0:
            return (1.0 - level) / self._per_second
        self._set(key, level - 1.0, now)
        return 0.0

    def give_back(self, key: Hashable, now: float) -> None:
        """What was taken did not count."""
        self._set(key, min(self._size, self._level(key, now) + 1.0), now)

    def _level(self, key: Hashable, now: float) -> float:
        level, since = self._levels.get(key, (self._size, now))
        if key in self._levels:
            self._levels.move_to_end(key)  # who goes on trying is not forgotten
        return min(self._size, level + (now - since) * self._per_second)

    def _set(self, key: Hashable, level: float, now: float) -> None:
        self._levels[key] = (level, now)
        while len(self._levels) > MOST_KEYS:
            self._levels.popitem(last=False)
