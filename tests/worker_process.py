"""A worker of its own that believes itself on the host that it is told: `python worker_process.py HOST CONFIG`. Prints "ready"."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

from listener import parts
from listener.config import load


def main(host: str, config_file: str) -> None:
    socket.gethostname = lambda: host
    config = load(Path(config_file), {})
    parts.create_database_if_new(config)
    worker = parts.make_worker(config, index=0)
    worker.start()
    print("ready", flush=True)
    worker.run(threading.Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
