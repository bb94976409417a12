"""The program `fourview` as if on the host that it is told: `python worker_process.py HOST ARGUMENT...`."""

from __future__ import annotations

import socket
import sys

from listener import cli


def main(host: str, *arguments: str) -> None:
    socket.gethostname = lambda: host
    sys.argv = ["fourview", *arguments]
    cli.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
