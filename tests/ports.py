"""TCP ports on loopback for programs that must be told theirs before they start."""

from __future__ import annotations

import random
import socket

_RANDOM = random.SystemRandom()


def free_port() -> int:
    """A port that nobody listens on at this moment.

    It is below those that Linux gives to outgoing connections (from 32768 on): none of these takes it before the program does.
    """
    while True:
        port = _RANDOM.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
