"""Orthanc's REST as its administrator uses it (Orthanc Book, "REST API of Orthanc"): who it is, whom it knows, what it does with a study.

Images and confirmations go by DIMSE and DICOMweb (`pipeline.send`, `pipeline.orthanc`); this is for the commands that set up and check.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import requests
from pydantic import TypeAdapter, ValidationError

from listener.config_values import AETitle, Port
from pipeline import bounded

SECONDS = 10.0
#: Of one answer, from the first byte to the last; and how much it may be: no report has more.
ANSWER_SECONDS = 60.0
MOST_BYTES = 64 << 20
_AE_TITLE: TypeAdapter[str] = TypeAdapter(AETitle)
_PORT: TypeAdapter[int] = TypeAdapter(Port)

#: HTTP status -> what it means when Orthanc answers it.
_WORDS = {
    401: "it refuses our user or password; compare user and password_file of its [[pacs]] with RegisteredUsers of its configuration (while "
    "RemoteAccessAllowed is false there, all but its own machine are refused in the same way)",
    403: "it does not let our user do this (an authorization plug-in, a Lua filter or a proxy before it)",
    404: "it does not know that",
    405: "it, or a proxy before it, allows only to read",
}


#: What Orthanc calls a study (a SHA-1 in five groups) and a job (a UUID).
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
_JOB = re.compile(r"[0-9a-fA-F-]{36}")

_NO_ORTHANC = "answers, but not as Orthanc does: write the address of Orthanc's REST, whose port is 8042 unless it was changed"


class RestFailed(Exception):
    """Orthanc did not do what was asked; the message says why and what to look at. `status`: of HTTP, 0 when there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class System:
    """What Orthanc says of itself (`/system`)."""

    name: str
    version: str
    ae_title: str
    port: int  # of DICOM


class OrthancRest:
    """One Orthanc. Every method raises RestFailed, whose text names the address and never the password. A context manager."""

    def __init__(self, url: str, user: str = "", password: str = "", *, seconds: float = SECONDS) -> None:  # nosec B107 # "" is no password
        self.url = url.rstrip("/")
        self._seconds = seconds
        self._http = bounded.session(user, password, bounded.Bounds(most_bytes=MOST_BYTES, seconds=max(seconds, ANSWER_SECONDS)))

    def __enter__(self) -> OrthancRest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def system(self) -> System:
        """Who answers; fails when that is no Orthanc."""
        try:
            said = self.get("/system")
        except RestFailed as failed:
            raise RestFailed(f"{self.url} {_NO_ORTHANC}", 404) if failed.status == 404 else failed from None
        try:
            system = System(str(said["Name"]), str(said["Version"]), str(said["DicomAet"]), int(said["DicomPort"]))
        except (KeyError, TypeError, ValueError):
            raise RestFailed(f"{self.url} {_NO_ORTHANC}") from None
        try:
            _AE_TITLE.validate_python(system.ae_title)  # it is offered as an answer, and written down
            _PORT.validate_python(system.port)
        except ValidationError:
            words = f"says that its AE title is {system.ae_title!r} and its DICOM port {system.port}, which cannot be"
            raise RestFailed(f"{self.url} {words}: correct DicomAet and DicomPort in its configuration") from None
        return system

    def is_dicomweb(self) -> bool:
        """Whether QIDO-RS (PS3.18 10.6) answers here, of Orthanc or of another."""
        try:
            self._ask("GET", "/dicom-web/studies?limit=1", headers={"Accept": "application/dicom+json"})
        except RestFailed:
            return False
        return True

    def now(self) -> datetime:
        """Orthanc's clock, to the second."""
        said = self._ask("GET", "/tools/now").text.strip()
        try:
            return datetime.strptime(said, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            raise RestFailed(f"{self.url}/tools/now does not answer with a time") from None

    def modalities(self) -> dict[str, dict[str, Any]]:
        """Orthanc's DicomModalities, by their names."""
        known = self.get("/modalities?expand")
        if not isinstance(known, dict) or not all(isinstance(one, dict) for one in known.values()):
            raise RestFailed(f"{self.url}/modalities does not answer as Orthanc does: is it older than 1.10?")
        return known

    def echo(self, modality: str, seconds: int) -> None:
        """Has Orthanc send a C-ECHO to one of its modalities."""
        self.post(f"/modalities/{modality}/echo", {"Timeout": seconds})

    def lua(self, script: str) -> str:
        """What a script prints inside Orthanc; it allows that only with ExecuteLuaEnabled (status 403)."""
        return self._ask("POST", "/tools/execute-script", data=script.encode()).text.strip()

    def get(self, path: str) -> Any:
        """The JSON at `path`."""
        return self._json(self._ask("GET", path))

    def post(self, path: str, body: Any) -> Any:
        """POST of JSON, or of bytes as they are; the JSON of the answer."""
        return self._json(self._ask("POST", path, **({"data": body} if isinstance(body, bytes) else {"json": body})))

    def put(self, path: str, body: Any) -> None:
        """PUT of JSON."""
        self._ask("PUT", path, json=body)

    def delete(self, path: str) -> None:
        """DELETE; what is not there is gone already."""
        try:
            self._ask("DELETE", path)
        except RestFailed as failed:
            if failed.status != 404:
                raise

    def file(self, instance: str) -> bytes:
        """The Part 10 file of an instance, by Orthanc's own id."""
        return self._ask("GET", f"/instances/{instance}/file").content

    def find(self, level: str, **query: str) -> list[dict[str, Any]]:
        """Expanded answers of /tools/find, each with its ID; `query` by DICOM keywords."""
        found = self._each("/tools/find", self.post("/tools/find", {"Level": level, "Query": query, "Expand": True}))
        if not all(isinstance(one.get("ID"), str) and _ID.fullmatch(one["ID"]) for one in found):
            raise self._odd("/tools/find")
        return found

    def upload(self, part10: bytes) -> str:
        """Has Orthanc keep a file; the id of its study."""
        study = self._one("/instances", self.post("/instances", part10)).get("ParentStudy")
        if not isinstance(study, str) or not _ID.fullmatch(study):
            raise self._odd("/instances")
        return study

    def jobs(self) -> set[str]:
        """The ids of its jobs, the finished ones that it still knows among them."""
        jobs = self.get("/jobs")
        if not isinstance(jobs, list) or not all(isinstance(one, str) and _JOB.fullmatch(one) for one in jobs):
            raise self._odd("/jobs")
        return set(jobs)

    def job(self, job: str) -> dict[str, Any]:
        """What one of them is doing."""
        return self._one("/jobs", self.get(f"/jobs/{job}"))

    def series_of(self, study: str) -> list[dict[str, Any]]:
        """The series of a study, by Orthanc's own id."""
        return self._each(f"/studies/{study}/series", self.get(f"/studies/{study}/series"))

    def _one(self, path: str, said: Any) -> dict[str, Any]:
        if not isinstance(said, dict):
            raise self._odd(path)
        return said

    def _each(self, path: str, said: Any) -> list[dict[str, Any]]:
        if not isinstance(said, list) or not all(isinstance(one, dict) for one in said):
            raise self._odd(path)
        return said

    def _odd(self, path: str) -> RestFailed:
        return RestFailed(f"{self.url}{path} does not answer as Orthanc does: does a proxy or a plug-in change its answers?")

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        try:
            answer = self._http.request(method, self.url + path, timeout=self._seconds, **more)
        except bounded.Elsewhere as error:
            raise RestFailed(f"{self.url} sends us elsewhere, which we do not follow: write its own address", error.status) from None
        except bounded.TooMuch as error:
            raise RestFailed(f"{self.url} answers too much to {method} {path.partition('?')[0]}: {error}") from None
        except (requests.RequestException, ValueError) as error:
            raise RestFailed(f"{self.url} does not answer ({type(error).__name__}): is Orthanc running, is the address right?") from None
        finally:
            # No connection is kept: Orthanc 1.10 closes one that was idle for a second, and what is asked at that moment has no answer.
            self._http.close()
        answer.encoding = "utf-8"
        status = answer.status_code
        if 200 <= status < 300:
            return answer
        raise RestFailed(
            f"{self.url} answers {status} to {method} {path.partition('?')[0]}: {_WORDS.get(status, _details(answer))}", status
        )

    def _json(self, answer: requests.Response) -> Any:
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise RestFailed(f"{self.url} {_NO_ORTHANC}") from None


def _details(answer: requests.Response) -> str:
    """Orthanc's own words (HttpDescribeErrors); its log says more."""
    try:
        said = answer.json()
        words = said.get("Details") or said.get("Message")
    except (ValueError, AttributeError):
        words = None
    return f"{words}; its log says more" if words else "see its log"
