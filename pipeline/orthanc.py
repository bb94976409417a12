"""HTTP to Orthanc and other DICOMweb servers: fetch the mammograms of a study (PS3.18 10.6 finds the series, 10.4 gets them), ask
whether a result arrived (10.6), and fetch one instance by the id that Orthanc gave it (Orthanc Book, "REST API of Orthanc")."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from pipeline import bounded
from pipeline.bounded import Bounds
from pipeline.send import Found, Known, Pacs
from store.correction import CORRECTABLE, values_of

logger = logging.getLogger(__name__)

#: Mammograms, and the Key Objects that reject some of them (IHE IOCM).
MODALITIES = ("MG", "KO")

#: Seconds until connected, and between two pieces of an answer.
TIMEOUTS = (5.0, 60.0)

#: The answer to a question.
ANSWER = Bounds(most_bytes=64 << 20, seconds=120.0)
#: A series; what comes by C-STORE may be as large as one of its parts.
SERIES = Bounds(most_bytes=16 << 30, seconds=3600.0, part_bytes=(2 << 30) + (64 << 20))

#: "*" is as stored: without it Orthanc would decompress, and the same image would have other bytes.
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class FetchFailed(Exception):
    """A study could not be fetched; the text says why and what to do. `worth_retrying` when another try may do better."""

    def __init__(self, reason: str, *, worth_retrying: bool) -> None:
        super().__init__(reason)
        self.worth_retrying = worth_retrying


class _AsTheyCame(DICOMwebClient):
    """Gives objects as the bytes that came. Its parent parses each in this process, where one that is malformed ends the study, and one
    that is deflated is inflated, however large it becomes."""

    def _http_get_multipart_application_dicom(  # type: ignore[override]
        self, url: str, media_types: object = None, params: dict[str, Any] | None = None, stream: bool = False
    ) -> Iterator[bytes]:
        response = self._http_get(url, params=params, headers={"Accept": AS_STORED}, stream=stream)
        if response.headers.get("Content-Type", "").startswith("application/dicom"):  # PS3.18 wants a multipart, and some send none
            return iter([response.content])
        return self._decode_multipart_message(response, stream=stream)


def fetch_study(pacs: Pacs, study_instance_uid: str, only: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """The files of the MG and KO objects of a study, one in memory at a time, as they are stored there: nobody has looked into them.

    `only` these: SOP Instance UID -> Series Instance UID.

    Raises FetchFailed, at the first object or at any later one.
    """
    if not pacs.url:
        raise FetchFailed(f"[[pacs]] {pacs.name} has no url: write the address of its HTTP server there", worth_retrying=False)
    if not UID(study_instance_uid, validation_mode=IGNORE).is_valid:
        raise FetchFailed(f"{study_instance_uid!r} is no Study Instance UID", worth_retrying=False)
    with session(pacs, SERIES) as http:
        try:
            dicomweb = client(pacs, http, _AsTheyCame)
            if only is None:
                yield from _objects(dicomweb, pacs, study_instance_uid)
            else:
                yield from _some_objects(dicomweb, pacs, study_instance_uid, only)
        except requests.HTTPError as problem:
            raise _refused(pacs, study_instance_uid, problem.response.status_code if problem.response is not None else 0) from None
        except bounded.Elsewhere:
            reason = f"{pacs.name} sends us elsewhere for study {study_instance_uid}, which we do not follow"
            raise FetchFailed(f"{reason}: write its own address as url of this [[pacs]]", worth_retrying=False) from None
        except bounded.TooMuch as problem:
            raise FetchFailed(f"study {study_instance_uid} was not fetched from {pacs.name}: {problem}", worth_retrying=False) from None
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as problem:
            raise _interrupted(pacs, study_instance_uid, problem) from None
        except (requests.RequestException, InvalidDicomError, EOFError, LookupError, TypeError, ValueError) as problem:
            # the parsers of URL, JSON, multipart and DICOM may quote a patient's data in their messages: only the type is told
            reason = f"{pacs.name} answered no DICOMweb while study {study_instance_uid} was fetched ({type(problem).__name__})"
            raise FetchFailed(f"{reason}: see whether {pacs.dicomweb_url} is the right address", worth_retrying=False) from None


class Trouble(Enum):
    """Why an instance could not be fetched by its id."""

    UNKNOWN = "unknown"  # Orthanc has no such instance
    SLOW = "slow"
    AWAY = "away"  # not reachable, or it answers an error
    TOO_LARGE = "too large"


class InstanceNotFetched(Exception):
    """One instance could not be fetched by its id; the text says why, without addresses and without anything of the answer."""

    def __init__(self, trouble: Trouble, reason: str) -> None:
        super().__init__(reason)
        self.trouble = trouble


#: What Orthanc calls an instance: SHA-1 of patient, study, series and instance, in five groups.
_ORTHANC_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
_PIECE_BYTES = 1 << 20
#: Seconds until connected, and between two pieces of one instance: shorter than a person's patience.
_INSTANCE_TIMEOUTS = (5.0, 30.0)


def fetch_instance(pacs: Pacs, orthanc_id: str, into: Path, *, seconds: float, most_bytes: int) -> None:
    """Write the file of the instance that Orthanc calls `orthanc_id` to `into`, within so many `seconds`.

    Raises InstanceNotFetched, and OSError when `into` cannot be written.
    """
    if not _ORTHANC_ID.fullmatch(orthanc_id):
        raise InstanceNotFetched(Trouble.UNKNOWN, f"{pacs.name} has no such instance: that is no id as Orthanc gives them")
    connect, read = (min(one, seconds) for one in _INSTANCE_TIMEOUTS)
    timeouts, address = (connect, read), f"{pacs.url}/instances/{orthanc_id}/file"
    try:
        with (
            session(pacs, Bounds(most_bytes=most_bytes, seconds=seconds)) as http,
            http.get(address, stream=True, timeout=timeouts) as answer,
            into.open("wb") as file,
        ):
            if answer.status_code != 200:
                raise _instance_refused(pacs, answer.status_code)
            for piece in answer.iter_content(_PIECE_BYTES):
                file.write(piece)
    except requests.Timeout:
        raise InstanceNotFetched(Trouble.SLOW, f"{pacs.name} did not send it within {seconds:g} seconds") from None
    except bounded.Elsewhere as problem:
        raise _instance_refused(pacs, problem.status) from None
    except bounded.TooMuch:
        raise InstanceNotFetched(Trouble.TOO_LARGE, f"it is larger than {most_bytes >> 20} MiB, or compressed") from None
    except requests.RequestException as problem:
        logger.warning("event=instance_not_fetched pacs=%s reason=%s", pacs.name, type(problem).__name__)
        raise InstanceNotFetched(Trouble.AWAY, f"{pacs.name} is not reachable, or broke off: see whether it runs") from None


def _instance_refused(pacs: Pacs, status: int) -> InstanceNotFetched:
    if status == 404:
        return InstanceNotFetched(Trouble.UNKNOWN, f"{pacs.name} has no such instance")
    words = {
        401: "it refuses our user or password; see user and password_file of this [[pacs]]",
        403: "our user may not read there, or RemoteAccessAllowed is false in orthanc.json",
    }
    return InstanceNotFetched(Trouble.AWAY, f"{pacs.name} answered {status}: {words.get(status, 'see its log')}")


def find_instance_by_dicomweb(pacs: Pacs, *, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> Found:
    """The destination's answer by QIDO-RS (PS3.18 10.6) to "do you have this instance?"; a server that does not answer is UNKNOWN."""
    with session(pacs) as http:
        try:
            filters = {"SOPInstanceUID": sop_instance_uid}
            found = client(pacs, http).search_for_instances(study_instance_uid, series_instance_uid, search_filters=filters)
        except (requests.RequestException, LookupError, TypeError, ValueError) as problem:
            logger.warning("event=not_confirmed pacs=%s sop_instance_uid=%s reason=%s", pacs.name, sop_instance_uid, type(problem).__name__)
            return Found.UNKNOWN
    return Found.PRESENT if found else Found.ABSENT


def find_studies_by_dicomweb(pacs: Pacs, study_instance_uids: Sequence[str]) -> dict[str, Known]:
    """Whose each study is at the destination, by QIDO-RS (PS3.18 10.6)."""
    with session(pacs) as made:
        return {uid: _find_study(client(pacs, made), pacs, uid) for uid in study_instance_uids}


def _find_study(client: DICOMwebClient, pacs: Pacs, study_instance_uid: str) -> Known:
    try:
        found = client.search_for_studies(fields=list(CORRECTABLE), search_filters={"StudyInstanceUID": study_instance_uid})
        answers = [Dataset.from_json(one) for one in found]
    except (requests.RequestException, LookupError, TypeError, ValueError) as problem:
        why = f"{pacs.name} does not say whose study this is (QIDO-RS at {pacs.url}, {type(problem).__name__}): is it running?"
        return Known(Found.UNKNOWN, reason=why)
    patients = tuple(values_of(one) for one in answers if str(one.get("StudyInstanceUID", "")).strip() == study_instance_uid)
    if patients:
        return Known(Found.PRESENT, patients)
    return Known(Found.ABSENT, reason=f"{pacs.name} does not have this study yet: it is sent once the study is there")


def session(pacs: Pacs, bounds: Bounds = ANSWER) -> requests.Session:
    """HTTP with our user and password at `pacs`."""
    return bounded.session(pacs.user, pacs.password, bounds)


def client(pacs: Pacs, http: requests.Session, kind: type[DICOMwebClient] = DICOMwebClient) -> DICOMwebClient:
    """DICOMweb at `pacs`, over a session."""
    made = kind(pacs.dicomweb_url, session=http, timeout=TIMEOUTS)
    made.set_http_retry_params(retry=False)  # whoever called us retries, and not in seconds
    return made


def _objects(dicomweb: DICOMwebClient, pacs: Pacs, study_instance_uid: str) -> Iterator[bytes]:
    series = dicomweb.search_for_series(study_instance_uid)
    if not series:
        raise FetchFailed(f"{pacs.name} does not have study {study_instance_uid}", worth_retrying=False)
    wanted = [each["0020000E"]["Value"][0] for each in series if each.get("00080060", {}).get("Value", [""])[0] in MODALITIES]
    if not wanted:
        raise FetchFailed(
            f"study {study_instance_uid} on {pacs.name} has no series of modality {' or '.join(MODALITIES)}", worth_retrying=False
        )
    count = 0
    for series_instance_uid in wanted:
        for part in dicomweb.iter_series(study_instance_uid, series_instance_uid):
            count += 1
            yield bytes(part)
    logger.info("event=fetched study_instance_uid=%s source=%s series=%d instances=%d", study_instance_uid, pacs.name, len(wanted), count)


def _some_objects(dicomweb: DICOMwebClient, pacs: Pacs, study_instance_uid: str, only: Mapping[str, str]) -> Iterator[bytes]:
    for sop_instance_uid, series_instance_uid in only.items():
        yield bytes(dicomweb.retrieve_instance(study_instance_uid, series_instance_uid, sop_instance_uid))
    logger.info("event=fetched study_instance_uid=%s source=%s instances=%d", study_instance_uid, pacs.name, len(only))


def in_words(pacs: Pacs, status: int) -> str:
    """What an HTTP status that is no success means, and what to do."""
    words = {
        401: "it refuses our user or password; compare user and password_file of this [[pacs]] with RegisteredUsers in orthanc.json",
        403: "our user may not read there, or RemoteAccessAllowed is false in orthanc.json",
        404: f"there is no DICOMweb at {pacs.dicomweb_url} (install the plug-in, Debian: orthanc-dicomweb; another PACS: see "
        "`dicomweb` of this [[pacs]]), or the study was just deleted",
    }
    return words.get(status, "see its log")


def _refused(pacs: Pacs, study_instance_uid: str, status: int) -> FetchFailed:
    reason = f"{pacs.name} answered {status} for study {study_instance_uid}: {in_words(pacs, status)}"
    return FetchFailed(reason, worth_retrying=status >= 500 or status == 429)


def _interrupted(pacs: Pacs, study_instance_uid: str, problem: requests.RequestException) -> FetchFailed:
    if isinstance(problem, requests.Timeout):
        reason = f"{pacs.name} at {pacs.url} did not answer in time while study {study_instance_uid} was fetched"
    else:
        reason = (
            f"{pacs.name} is not reachable at {pacs.url} to fetch study {study_instance_uid}: see whether it runs and whether url is right"
        )
    return FetchFailed(reason, worth_retrying=True)
