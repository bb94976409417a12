"""Log lines that a stranger can cause: so many a minute of an address, then how many more there were. A flood must not fill the disk."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

#: Of one place in the code and one address.
LINES_A_MINUTE = 10
MINUTE_SECONDS = 60.0
#: Addresses beyond so many share one count.
MOST_KEYS = 1000

#: Whose lines are counted even though they do not say of which address they are.
_LIBRARY = "pynetdicom"


@dataclass
class _Count:
    since: float
    lines: int
    level: int
    logger: str


class HeldBack:
    """Decides line by line. A record is counted by the attribute `peer` that it was given (`extra`), or as pynetdicom's. Time is the
    record's own, in seconds."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, int, str], _Count] = OrderedDict()

    def passes(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        peer = str(getattr(record, "peer", ""))
        if not peer and record.name.partition(".")[0] != _LIBRARY:
            return True
        key = (record.name, record.lineno, peer)
        if key not in self._counts and len(self._counts) >= MOST_KEYS:
            key = (record.name, record.lineno, "others")
        count = self._counts.setdefault(key, _Count(record.created, 0, record.levelno, record.name))
        count.lines += 1
        return count.lines <= LINES_A_MINUTE

    def due(self, now: float) -> Iterator[logging.LogRecord]:
        """A line for each whose minute is over and of whose lines some were not written."""
        while self._counts:
            key, count = next(iter(self._counts.items()))
            if now - count.since < MINUTE_SECONDS:
                return
            del self._counts[key]
            if (held := count.lines - LINES_A_MINUTE) > 0:
                words = "lines like those before were not written peer=%s count=%d seconds=%.0f"
                arguments = (key[2] or "-", held, now - count.since)
                yield logging.LogRecord(count.logger, count.level, __file__, 0, words, arguments, None)
