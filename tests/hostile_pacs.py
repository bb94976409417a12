"""A PACS that gives whatever it holds, by QIDO-RS and WADO-RS (PS3.18 10.6, 10.4): one series of one study, byte for byte."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERIES = "1.2.3.4"


class Holding:
    """What it holds: the files of its series."""

    def __init__(self) -> None:
        self.files: Sequence[bytes] = ()
        self.url = ""


@contextmanager
def pacs_holding() -> Iterator[Holding]:
    """It runs for as long as the block lasts."""
    held = Holding()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.endswith("/series"):
                series = {"0020000E": {"vr": "UI", "Value": [SERIES]}, "00080060": {"vr": "CS", "Value": ["MG"]}}
                self._answer("application/dicom+json", json.dumps([series]).encode())
            else:
                parts = (b"\r\n--b0b\r\nContent-Type: application/dicom\r\n\r\n" + one for one in held.files)
                self._answer('multipart/related; type="application/dicom"; boundary=b0b', b"".join(parts) + b"\r\n--b0b--")

        def _answer(self, kind: str, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    held.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
