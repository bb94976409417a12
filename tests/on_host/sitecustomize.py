"""First on a test's PYTHONPATH: this process, and every one that it starts, believes itself on the host HOST_NAME_OF_TEST."""

import os
import socket

if name := os.environ.get("HOST_NAME_OF_TEST"):
    socket.gethostname = lambda: name
