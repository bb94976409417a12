"""`fourview` on the host that it is told: `python host_process.py HOST receive ...`; everything else is the real command."""

from __future__ import annotations

import socket
import sys

from listener.cli import main


def run(host: str, *arguments: str) -> None:
    socket.gethostname = lambda: host
    sys.argv = ["fourview", *arguments]
    main()


if __name__ == "__main__":
    run(*sys.argv[1:])
