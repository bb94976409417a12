"""What a PACS holds: the studies with mammograms that it received since some time, with their MG and KO instances.

Of an Orthanc "received" is what its log of changes says (REST, /changes), whatever the date of the study. Of another server, which does
not say when it received a study, it is Study Date (0008,0020), by QIDO-RS (PS3.18 10.6). Nothing is held in memory but one study, and
Orthanc's ids of those that were looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

import requests

from pipeline import orthanc
from pipeline.orthanc import MODALITIES, TIMEOUTS
from pipeline.send import Pacs

IMAGES = "MG"
#: Entries of Orthanc's log of changes that are asked for at once.
PAGE = 500
#: What Orthanc writes at an object that it made from another one.
_MADE_FROM = ("ModifiedFrom", "AnonymizedFrom")


class Unanswered(Exception):
    """The PACS did not say what it holds; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class HeldInstance:
    """An MG or KO object. `local_id` is Orthanc's own id, "" elsewhere."""

    series_instance_uid: str
    sop_instance_uid: str
    local_id: str = ""


@dataclass(frozen=True, kw_only=True)
class HeldStudy:
    """A study with mammograms; `arrived_at` (aware, by our clock) is when its last instance was received, or None."""

    study_instance_uid: str
    arrived_at: datetime | None
    instances: tuple[HeldInstance, ...]


class Holdings(Protocol):
    """What a PACS can be asked. Every method raises Unanswered."""

    def received_since(self, since: datetime) -> Iterator[HeldStudy]:
        """The studies with mammograms of which something was received since then."""

    def study(self, study_instance_uid: str) -> Iterator[HeldStudy]:
        """That study; none when the PACS does not have it, several when it has it under several patients."""

    def made_here(self, instances: Collection[HeldInstance]) -> frozenset[str]:
        """SOP Instance UIDs of those that the PACS itself made of others, by modifying or anonymising them."""


@contextmanager
def holdings_of(pacs: Pacs, now: datetime) -> Iterator[Holdings]:
    """What `pacs` holds: asked in Orthanc's way if it is one, else by QIDO-RS. `now` is our clock. Raises Unanswered."""
    with orthanc.session(pacs) as session:
        rest = _Rest(session, pacs)
        if rest.is_orthanc():
            yield OrthancHoldings(rest, now)
        else:
            yield DicomwebHoldings(session, pacs, now)


@contextmanager
def _plainly(pacs: Pacs) -> Iterator[None]:
    """Whatever a server answers that is no answer, as Unanswered."""
    try:
        yield
    except requests.HTTPError as problem:
        status = problem.response.status_code if problem.response is not None else 0
        raise Unanswered(f"{pacs.name} answered {status} when asked what it holds: {orthanc.in_words(pacs, status)}") from None
    except requests.Timeout:
        raise Unanswered(f"{pacs.name} at {pacs.url} did not answer in time when asked what it holds") from None
    except requests.RequestException as problem:
        reason = f"{pacs.name} is not reachable at {pacs.url} to be asked what it holds ({type(problem).__name__})"
        raise Unanswered(f"{reason}: see whether it runs and whether url is right") from None
    except (LookupError, TypeError, ValueError) as problem:
        # what a parser complains of may hold a patient's data: only the type is told
        raise Unanswered(f"{pacs.name} at {pacs.url} answered something else than was asked ({type(problem).__name__})") from None


class _Rest:
    """Orthanc's REST interface."""

    def __init__(self, session: requests.Session, pacs: Pacs) -> None:
        self._session = session
        self.pacs = pacs

    def is_orthanc(self) -> bool:
        """Whether it is one; a refused password is told at once."""
        with _plainly(self.pacs):
            answer = self._session.get(self.pacs.url.rstrip("/") + "/system", timeout=TIMEOUTS)
            if answer.status_code == 401:
                answer.raise_for_status()
            try:
                system = answer.json() if answer.ok else {}
            except ValueError:
                return False
            return isinstance(system, dict) and {"ApiVersion", "DicomAet"} <= set(system)

    def get(self, path: str, *, missing: Any = None, **parameters: str | int) -> Any:
        """The JSON at `path`; `missing` when there is none (404)."""
        with _plainly(self.pacs):
            answer = self._session.get(self.pacs.url.rstrip("/") + path, params=parameters, timeout=TIMEOUTS)
            if answer.status_code == 404:
                return missing
            answer.raise_for_status()
            return answer.json()

    def post(self, path: str, body: object) -> Any:
        """The JSON that is answered to `body`: text as it is, anything else as JSON."""
        with _plainly(self.pacs):
            sent: dict[str, Any] = {"data": body} if isinstance(body, str) else {"json": body}
            answer = self._session.post(self.pacs.url.rstrip("/") + path, timeout=TIMEOUTS, **sent)
            answer.raise_for_status()
            return answer.json()

    def text(self, path: str) -> str:
        """The text at `path`."""
        with _plainly(self.pacs):
            answer = self._session.get(self.pacs.url.rstrip("/") + path, timeout=TIMEOUTS)
            answer.raise_for_status()
            return answer.text


def _time(text: str) -> datetime:
    """Orthanc's times are UTC, to the second."""
    return datetime.strptime(text[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def _days(since: datetime, now: datetime) -> Iterator[date]:
    """Every Study Date from `since` to `now`, with a day on both sides for time zones."""
    day = since.date() - timedelta(days=1)
    while day <= now.date() + timedelta(days=1):
        yield day
        day += timedelta(days=1)


class OrthancHoldings:
    """An Orthanc, asked over REST."""

    def __init__(self, rest: _Rest, now: datetime) -> None:
        self._rest = rest
        self._now = now
        with _plainly(rest.pacs):
            self._ahead = _time(rest.text("/tools/now")) - now  # of its clock before ours

    def received_since(self, since: datetime) -> Iterator[HeldStudy]:
        """In the order of its log of changes. Where that was cut off (DELETE /changes), the studies of these Study Dates come too."""
        looked_at: set[str] = set()
        with _plainly(self._rest.pacs):
            last = int(self._rest.get("/changes", last="")["Last"])
            first = self._first_after(0)
            begin = since + self._ahead - timedelta(seconds=1)  # Orthanc's times are whole seconds
            for held in self._changed(self._place_of(begin, last), last, looked_at):
                # What became stable lately may have come before.
                if held.arrived_at is None or held.arrived_at + self._ahead >= begin:
                    yield held
            whole = first is not None and (int(first["Seq"]) == 1 or _time(first["Date"]) < begin)
            for day in () if whole else _days(since, self._now):
                query = {"ModalitiesInStudy": IMAGES, "StudyDate": day.strftime("%Y%m%d")}
                for local_id in self._rest.post("/tools/find", {"Level": "Study", "Query": query, "Expand": False}):
                    if local_id not in looked_at:
                        looked_at.add(local_id)
                        yield from self._held(local_id, self._series(local_id))

    def study(self, study_instance_uid: str) -> Iterator[HeldStudy]:
        """See Holdings."""
        with _plainly(self._rest.pacs):
            for found in self._rest.post("/tools/lookup", study_instance_uid):
                if found["Type"] == "Study":
                    yield from self._held(found["ID"], self._series(found["ID"]))

    def made_here(self, instances: Collection[HeldInstance]) -> frozenset[str]:
        """See Holdings."""
        found = set()
        for one in instances:
            written = self._rest.get(f"/instances/{one.local_id}/metadata", missing={}, expand="")
            if any(name in written for name in _MADE_FROM):
                found.add(one.sop_instance_uid)
        return frozenset(found)

    def _first_after(self, place: int) -> dict[str, Any] | None:
        found: list[dict[str, Any]] = self._rest.get("/changes", since=place, limit=1)["Changes"]
        return found[0] if found else None

    def _place_of(self, begin: datetime, last: int) -> int:
        """The place in the log behind which the entries of `begin` and later stand: found by halves, since the log may be years long."""
        before, behind = 0, last
        while before < behind:
            middle = (before + behind) // 2
            found = self._first_after(middle)
            if found is None or _time(found["Date"]) >= begin:
                behind = middle
            else:
                before = int(found["Seq"])
        return before

    def _changed(self, place: int, last: int, looked_at: set[str]) -> Iterator[HeldStudy]:
        """The studies that the log names behind `place`, up to `last`, each once."""
        while place < last:
            page = self._rest.get("/changes", since=place, limit=PAGE)
            entries = [one for one in page["Changes"] if int(one["Seq"]) <= last]
            if not entries:
                return
            place = int(entries[-1]["Seq"])
            belonging: set[str] = set()  # instances of studies that were looked at: their entries need no question
            for entry in entries:
                if entry["ChangeType"] in ("NewStudy", "StableStudy") and entry["ID"] not in looked_at:
                    yield from self._look_at(entry["ID"], looked_at, belonging)
            for entry in entries:
                # An image may have come to a study that had been there before.
                if entry["ChangeType"] == "NewInstance" and entry["ID"] not in belonging:
                    parent = self._rest.get(f"/instances/{entry['ID']}/study")
                    if parent is not None:
                        yield from self._look_at(parent["ID"], looked_at, belonging)

    def _look_at(self, local_id: str, looked_at: set[str], belonging: set[str]) -> Iterator[HeldStudy]:
        series = self._series(local_id)
        belonging.update(instance for one in series for instance in one["Instances"])
        if local_id not in looked_at:
            looked_at.add(local_id)
            yield from self._held(local_id, series)

    def _series(self, local_id: str) -> list[dict[str, Any]]:
        return self._rest.get(f"/studies/{local_id}/series", missing=[]) or []

    def _held(self, local_id: str, series: list[dict[str, Any]]) -> Iterator[HeldStudy]:
        """The study if it has mammograms; what was deleted meanwhile is none."""
        modality = {one["ID"]: one["MainDicomTags"].get("Modality", "") for one in series}
        study = self._rest.get(f"/studies/{local_id}") if IMAGES in modality.values() else None
        if study is None:
            return
        series_uid = {one["ID"]: one["MainDicomTags"]["SeriesInstanceUID"] for one in series}
        instances = self._rest.get(f"/studies/{local_id}/instances", missing=[])
        yield HeldStudy(
            study_instance_uid=study["MainDicomTags"]["StudyInstanceUID"],
            arrived_at=_time(study["LastUpdate"]) - self._ahead,
            instances=tuple(
                HeldInstance(
                    series_instance_uid=series_uid[one["ParentSeries"]],
                    sop_instance_uid=one["MainDicomTags"]["SOPInstanceUID"],
                    local_id=one["ID"],
                )
                for one in instances
                if modality.get(one["ParentSeries"]) in MODALITIES
            ),
        )


class DicomwebHoldings:
    """Any server with QIDO-RS. It says neither when it received a study nor which objects it made itself."""

    def __init__(self, session: requests.Session, pacs: Pacs, now: datetime) -> None:
        self._client = orthanc.client(pacs, session)
        self._pacs = pacs
        self._now = now

    def received_since(self, since: datetime) -> Iterator[HeldStudy]:
        """By Study Date, day by day."""
        with _plainly(self._pacs):
            for day in _days(since, self._now):
                yield from self._of_day(day)

    def study(self, study_instance_uid: str) -> Iterator[HeldStudy]:
        """See Holdings."""
        with _plainly(self._pacs):
            yield from self._held(study_instance_uid)

    def made_here(self, instances: Collection[HeldInstance]) -> frozenset[str]:
        """QIDO-RS does not tell."""
        return frozenset()

    def _of_day(self, day: date) -> Iterator[HeldStudy]:
        seen: set[str] = set()
        filters = {"ModalitiesInStudy": IMAGES, "StudyDate": day.strftime("%Y%m%d")}
        while True:
            # Without a limit, and on until nothing new comes: some servers cut their answers, and Orthanc 1.10 counts what it skips.
            page = self._client.search_for_studies(search_filters=filters, offset=len(seen))
            new = [uid for uid in (one["0020000D"]["Value"][0] for one in page) if uid not in seen]
            if not new:
                return
            for study_instance_uid in new:
                seen.add(study_instance_uid)
                yield from self._held(study_instance_uid)

    def _held(self, study_instance_uid: str) -> Iterator[HeldStudy]:
        modality = {
            one["0020000E"]["Value"][0]: (one.get("00080060", {}).get("Value") or [""])[0]
            for one in self._client.search_for_series(study_instance_uid)
        }
        if IMAGES not in modality.values():
            return
        instances: list[HeldInstance] = []
        for series_instance_uid in (uid for uid, kind in modality.items() if kind in MODALITIES):
            for one in self._client.search_for_instances(study_instance_uid, series_instance_uid):
                found = one["00080018"]["Value"][0]
                instances.append(HeldInstance(series_instance_uid=series_instance_uid, sop_instance_uid=found))
        yield HeldStudy(study_instance_uid=study_instance_uid, arrived_at=None, instances=tuple(instances))
