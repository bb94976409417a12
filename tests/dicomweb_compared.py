"""The same questions to two DICOMweb servers that hold the same results, and where their answers differ.

    python tests/dicomweb_compared.py

starts Fourview's application and an Orthanc with its DICOMweb plug-in (Debian: orthanc, orthanc-dicomweb), gives both the same results,
and prints every question that they answer differently, with the reason where it is known (`KNOWN`).
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import requests
from dicomweb_client import DICOMwebClient
from PIL import Image
from pydicom.dataset import Dataset

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent.parent)]

from mammograms_made import uid
from orthanc_process import OrthancProcess
from results_made import ResultsMade, page, part10, report
from serving import serving

from listener.web import create_app

KOREAN = {"StudyDate": "20250102", "PatientName": "Hong^Gildong=洪^吉洞=홍^길동", "PatientID": "P2", "AccessionNumber": "ACC2"}
LONELY = {"PatientName": "Roe^Richard", "PatientID": "P30", "StudyDate": "20240229", "AccessionNumber": "X_1"}
#: What both hold: three studies, one with two versions of report and page.
RESULTS = [
    *(report("study"), page("study")),
    *(report("older", 1, **KOREAN), page("older", 1, **KOREAN), report("older", 2, **KOREAN), page("older", 2, **KOREAN)),
    report("lonely", **LONELY),
]
STUDY, OLDER = uid("study"), uid("older")
PAGE = (STUDY, uid("study", "page"), uid("study", "page", 1))
SR = (STUDY, uid("study", "sr"), uid("study", "sr", 1))

#: Searches: name -> (path, query).
SEARCHES: dict[str, tuple[str, str]] = {
    "all studies": ("/studies", ""),
    "all series": ("/series", ""),
    "all instances": ("/instances", ""),
    "series of a study": (f"/studies/{OLDER}/series", ""),
    "instances of a study": (f"/studies/{OLDER}/instances", ""),
    "instances of a series": (f"/studies/{OLDER}/series/{uid('older', 'sr')}/instances", ""),
    "series of a study that is not here": ("/studies/1.2.3/series", ""),
    "UID": ("/studies", f"StudyInstanceUID={STUDY}"),
    "UID by tag": ("/studies", f"0020000D={STUDY}"),
    "two UIDs, comma": ("/studies", f"StudyInstanceUID={STUDY},{OLDER}"),
    "two UIDs, backslash": ("/studies", f"StudyInstanceUID={STUDY}%5C{OLDER}"),
    "SOP Instance UID": ("/instances", f"SOPInstanceUID={SR[2]}"),
    "SOP Class UID": ("/instances", "SOPClassUID=1.2.840.10008.5.1.4.1.1.88.33"),
    "patient": ("/studies", "PatientID=P2"),
    "patient, other case": ("/studies", "PatientID=p2"),
    "patient, wildcards": ("/studies", "PatientID=P?"),
    "patient, universal": ("/studies", "PatientID=*"),
    "patient, empty": ("/studies", "PatientID="),
    "name, other case": ("/studies", "PatientName=DOE^JANE"),
    "name, beginning": ("/studies", "PatientName=doe*"),
    "name, family name only": ("/studies", "PatientName=Doe"),
    "name, trailing carets": ("/studies", "PatientName=Doe^Jane^^^"),
    "name, phonetic group": ("/studies", "PatientName=홍*"),
    "date": ("/studies", "StudyDate=20261120"),
    "dates": ("/studies", "StudyDate=20240101-20251231"),
    "dates, from": ("/studies", "StudyDate=20250102-"),
    "dates, to": ("/studies", "StudyDate=-20250102"),
    "time": ("/studies", "StudyTime=101500"),
    "times": ("/studies", "StudyTime=10-11"),
    "accession number": ("/studies", "AccessionNumber=ACC1"),
    "accession number with a character of SQL": ("/studies", "AccessionNumber=X_1"),
    "accession number, not a wildcard": ("/studies", "AccessionNumber=X%25"),
    "modality": ("/series", "Modality=SR"),
    "modalities": ("/series", "Modality=SR,OT"),
    "modalities in study": ("/studies", "ModalitiesInStudy=OT"),
    "modalities in study, list": ("/studies", "ModalitiesInStudy=SR,OT"),
    "series number": ("/series", "SeriesNumber=9102"),
    "rows": ("/instances", "Rows=40"),
    "manufacturer": ("/series", "Manufacturer=Four*"),
    "several keys": ("/series", "Modality=OT&PatientID=P2"),
    "nothing": ("/studies", "PatientID=nobody"),
    "a page": ("/instances", "limit=3&offset=2"),
    "behind the last page": ("/studies", "offset=100"),
    "fuzzy": ("/studies", "PatientName=Doe^Jane&fuzzymatching=true"),
    "unknown key": ("/studies", "NoSuchKey=1"),
    "bad limit": ("/studies", "limit=-1"),
    "bad limit, a word": ("/studies", "limit=abc"),
    "bad date": ("/studies", "StudyDate=yesterday"),
    "bad UID": ("/studies", "StudyInstanceUID=1.2.x"),
}
#: Attributes that are compared of what a search found: name -> (path, query).
ATTRIBUTES: dict[str, tuple[str, str]] = {
    "attributes of a study": ("/studies", f"StudyInstanceUID={OLDER}"),
    "attributes of a study, includefield": ("/studies", f"StudyInstanceUID={OLDER}&includefield=Manufacturer&includefield=00081030"),
    "attributes of a series": (f"/studies/{OLDER}/series", f"SeriesInstanceUID={uid('older', 'sr')}"),
    "attributes of an instance": (f"/studies/{STUDY}/instances", f"SOPInstanceUID={PAGE[2]}"),
    "attributes of an instance without its study": ("/instances", f"SOPInstanceUID={PAGE[2]}"),
}
_IDENTITY = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}


class Asked:
    """One server at `url`, and the questions to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        session = requests.Session()
        session.trust_env = False
        self._client = DICOMwebClient(url, session=session)

    def answers(self) -> Iterator[tuple[str, Any]]:
        """(question, what it was answered), in words and numbers that can be compared."""
        for name, (path, query) in SEARCHES.items():
            yield name, self._found(path, query)
        for name, (path, query) in ATTRIBUTES.items():
            yield name, sorted(self._get(path, query).json()[0])
        for name, ask in self._retrieves().items():
            try:
                yield name, ask()
            except requests.HTTPError as error:
                yield name, error.response.status_code
            except Exception as error:  # noqa: BLE001 - whatever a server's answer makes of its client is what is compared
                yield name, type(error).__name__

    def _get(self, path: str, query: str = "", accept: str = "application/dicom+json") -> httpx.Response:
        return httpx.get(f"{self.url}{path}?{query}", headers={"Accept": accept}, timeout=30, trust_env=False)

    def _found(self, path: str, query: str) -> Any:
        response = self._get(path, query)
        if response.status_code not in (200, 204):
            return response.status_code
        found = response.json() if response.content else []
        if "limit" in query:
            return len(found)  # the order is each server's own
        return sorted(one[_IDENTITY[path.rsplit("/", 1)[-1]]]["Value"][0] for one in found)

    def _linked(self, url: str) -> int | str:
        """Not by dicomweb-client, which tries for half a minute where nobody listens."""
        accept = 'multipart/related; type="application/octet-stream"'
        try:
            return httpx.get(url, headers={"Accept": accept}, timeout=30, trust_env=False).status_code
        except httpx.TransportError as error:
            return type(error).__name__

    def _retrieves(self) -> Mapping[str, Callable[[], Any]]:
        client = self._client
        return {
            "study": lambda: sorted(_content(ds) for ds in client.retrieve_study(OLDER)),
            "series": lambda: sorted(_content(ds) for ds in client.retrieve_series(*SR[:2])),
            "instance": lambda: _content(client.retrieve_instance(*SR)),
            "instance, as it is stored": lambda: _content(client.retrieve_instance(*PAGE, media_types=(("application/dicom", "*"),))),
            "study that is not here": lambda: len(client.retrieve_study("1.2.3")),
            "metadata of a report": lambda: _values(client.retrieve_instance_metadata(*SR)),
            "metadata of a page": lambda: _values(client.retrieve_instance_metadata(*PAGE)),
            "metadata of a study": lambda: len(client.retrieve_study_metadata(OLDER)),
            "frames": lambda: _digest(*client.retrieve_instance_frames(*PAGE, [1])),
            "frames, by their type": lambda: _digest(
                *client.retrieve_instance_frames(*PAGE, [1], media_types=("application/octet-stream",))
            ),
            "a frame that is not there": lambda: len(
                client.retrieve_instance_frames(*PAGE, [2], media_types=("application/octet-stream",))
            ),
            "frames of a report": lambda: len(client.retrieve_instance_frames(*SR, [1], media_types=("application/octet-stream",))),
            "bulk data": lambda: self._linked(client.retrieve_instance_metadata(*PAGE)["7FE00010"]["BulkDataURI"]),
            "rendered page": lambda: _picture(client.retrieve_instance_rendered(*PAGE, media_types=("image/png",))),
            "rendered report": lambda: self._get("/studies/{}/series/{}/instances/{}/rendered".format(*SR), accept="text/html").status_code,
            "metadata as HTML": lambda: self._get(f"/studies/{STUDY}/metadata", accept="text/html").status_code,
        }


_CLAUSE = "PS3.18 10.6.3.3"
#: Where Orthanc 1.10.1 with plug-in 1.7 answers otherwise, and why we do as we do.
KNOWN: dict[str, str] = {
    "two UIDs, backslash": "a list of UIDs may be written with commas and with backslashes (PS3.18 8.3.4.1)",
    "patient, other case": "Patient ID is matched with regard to case (PS3.4 C.2.2.2.1); Orthanc folds it",
    "name, trailing carets": "empty components at the end of a name mean nothing (PS3.5 6.2.1)",
    "name, phonetic group": "each component group may be matched (PS3.4 C.2.2.2.1)",
    "bad limit": "a request that is not understood is 400, not a fault of the server",
    "bad date": "a key's value that is none is said to be none; Orthanc finds nothing",
    "bad UID": "a key's value that is none is said to be none; Orthanc finds nothing",
    "attributes of a study": f"Instance Availability is returned when it is known ({_CLAUSE})",
    "attributes of a study, includefield": "what was asked for is returned without a value when there is none; Instance Availability",
    "attributes of a series": f"attributes of the study are those of its URL, and returned only where the URL names none ({_CLAUSE})",
    "attributes of an instance": f"the same; Number of Series Related Instances belongs to the series ({_CLAUSE})",
    "attributes of an instance without its study": f"the counts and modalities of the levels above belong to them ({_CLAUSE})",
    "frames": "dicomweb-client asks for any type of part first, which Orthanc refuses",
    "a frame that is not there": "there is no such resource: 404",
    "frames of a report": "there is no such resource: 404",
    "bulk data": "Orthanc's links lead to its default address, not to the port that was asked; ours to where the client came",
    "rendered report": "an SR is rendered as HTML (PS3.18 8.7.4); Orthanc draws images only",
    "metadata as HTML": "nothing acceptable is 406 (PS3.18 8.7.5)",
}


def differences(ours: Asked, theirs: Asked) -> dict[str, tuple[Any, Any]]:
    """Question -> (our answer, theirs), where they differ."""
    pairs = zip(ours.answers(), theirs.answers(), strict=True)
    return {name: (mine, other) for (name, mine), (_, other) in pairs if mine != other}


@contextmanager
def both(folder: Path, program: str) -> Iterator[tuple[Asked, Asked]]:
    """Fourview's application and an Orthanc, with the same results in them."""
    source = ResultsMade(folder)
    source.add(*RESULTS)
    with (
        serving(create_app(results=source.search, file_path=source.files.path, ready=list)) as url,
        OrthancProcess(folder / "orthanc", program=program) as orthanc,
    ):
        for ds in RESULTS:
            orthanc.upload(part10(ds))
        yield Asked(url + "/dicom-web"), Asked(orthanc.url + "/dicom-web")


def _content(ds: Dataset) -> str:
    return _digest(ds.to_json().encode())


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()


def _values(header: Mapping[str, Any]) -> dict[str, Any]:
    """The values of metadata; where pixels lie is each server's own."""
    return {tag: element.get("Value") for tag, element in header.items() if not tag.startswith("0002") and tag != "7FE00010"}


def _picture(data: bytes) -> tuple[str | None, tuple[int, int], str]:
    picture = Image.open(BytesIO(data))
    return picture.format, picture.size, _digest(picture.convert("RGB").tobytes())


def main() -> int:
    """Print the differences; 1 when there is one that is not known."""
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        print("Orthanc is not installed (see .ci/run for Debian's package names)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="fourview-compared-") as folder, both(Path(folder), program) as (ours, theirs):
        found = differences(ours, theirs)
    for name, (mine, other) in found.items():
        print(f"{name}\n    Fourview: {_short(mine)}\n    Orthanc:  {_short(other)}\n    {KNOWN.get(name, 'NOT KNOWN')}")
    asked = len(SEARCHES) + len(ATTRIBUTES) + len(ours._retrieves())
    print(f"{asked} questions, {len(found)} answered differently, {len(set(found) - set(KNOWN))} of them for no known reason")
    return int(bool(set(found) - set(KNOWN)))


def _short(answer: Any) -> str:
    text = repr(answer)
    return text if len(text) < 600 else text[:600] + " ..."


if __name__ == "__main__":
    sys.exit(main())
