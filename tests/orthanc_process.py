"""A real Orthanc on loopback for one test: its own configuration, storage and ports; stopped and forgotten at the end."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from ports import free_port

#: Debian: the plug-ins that orthanc-dicomweb installs lie here.
PLUGINS = Path("/usr/share/orthanc/plugins")


class OrthancProcess:
    """One Orthanc. `extra` is merged over the configuration, so a test can add `DicomModalities`, `LuaScripts`, `StableAge` ...

    `configuration` may name a whole configuration file instead (the one under deploy/, say); `environment` fills its ${VARIABLES}.
    Ports and storage stay the same over stop() and start(), so that a test can take the PACS down and bring it back.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: str = "Orthanc",
        ae_title: str = "ORTHANC",
        extra: Mapping[str, Any] | None = None,
        dicomweb: bool = True,
        configuration: Path | None = None,
        environment: Mapping[str, str] | None = None,
        dicom_port: int | None = None,
        http_port: int | None = None,
    ) -> None:
        self.program = program
        self.folder = folder
        self.ae_title = ae_title
        self.host = "127.0.0.1"
        self.dicom_port = dicom_port or free_port()
        self.http_port = http_port or free_port()
        self.url = f"http://{self.host}:{self.http_port}"
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "orthanc.log"
        if configuration is not None:
            self._configuration = configuration
            return
        settings: dict[str, Any] = {
            "Name": "test",
            "DicomAet": ae_title,
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "StableAge": 1,
            "SaveJobs": False,
            "ExecuteLuaEnabled": True,
            "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")] if dicomweb else [],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        settings.update(extra or {})
        self._configuration = folder / "orthanc.json"
        self._configuration.write_text(json.dumps(settings, indent=2))

    def start(self) -> OrthancProcess:
        """Returns when REST and DICOM answer; AssertionError with the end of the log when Orthanc ends or takes over 30 s."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.program, str(self._configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **self._environment},
            )
        give_up_at = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, f"Orthanc ended with {self._process.returncode}:\n{self._log_end()}"
            assert time.monotonic() < give_up_at, f"Orthanc does not answer:\n{self._log_end()}"
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """Ends it at once; a clean end takes Orthanc some seconds, which a test that throws its storage away need not wait for."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> OrthancProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON (or text, or bytes) that REST answers for `path`, like "/studies"; an HTTP error raises httpx.HTTPStatusError."""
        return _body(httpx.get(self.url + path, params=parameters or None, timeout=30, trust_env=False))

    def post(self, path: str, body: Any = b"") -> Any:
        """POST of bytes or str as they are, of anything else as JSON."""
        if isinstance(body, bytes | str):
            return _body(httpx.post(self.url + path, content=body, timeout=60, trust_env=False))
        return _body(httpx.post(self.url + path, json=body, timeout=60, trust_env=False))

    def delete(self, path: str) -> None:
        httpx.delete(self.url + path, timeout=30, trust_env=False).raise_for_status()

    def find(self, level: str, **query: str) -> list[dict[str, Any]]:
        """/tools/find with expanded answers: level "Study", "Series" or "Instance"; keys are DICOM keywords."""
        answer = self.post("/tools/find", {"Level": level, "Query": query, "Expand": True})
        assert isinstance(answer, list)
        return answer

    def upload(self, part10: bytes) -> str:
        """Stores a Part 10 file over REST; Orthanc's own id of the instance."""
        return str(self.post("/instances", part10)["ID"])

    def _answers(self) -> bool:
        try:
            httpx.get(self.url + "/system", timeout=1, trust_env=False).raise_for_status()
            socket.create_connection((self.host, self.dicom_port), timeout=1).close()
        except (httpx.HTTPError, OSError):
            return False
        return True

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def _body(response: httpx.Response) -> Any:
    response.raise_for_status()
    kind = response.headers.get("content-type", "")
    if "json" in kind:
        return response.json()
    return response.text if kind.startswith("text/") else response.content
