"""The SCU: C-STORE (PS3.4 B), C-ECHO (PS3.4 A) and C-FIND (PS3.4 C) to one destination.

One association for a batch, one answer for each file. Files go out byte for byte as they lie on disk: nothing is decoded or
transcoded. A network that fails is a value, never an exception, and every answer says in words what happened and what to do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification  # type: ignore[attr-defined]

from pipeline.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pipeline.tls import ClientContext, ClientTls, TlsUnusable
from store.correction import CORRECTABLE, values_of
from store.header_text import UNREADABLE

LOG = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
ACSE_SECONDS = 15.0
#: PACS that write to tape or to a slow archive answer late.
DIMSE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Pacs:
    """A destination, and a place to fetch images from: one [[pacs]] table of the configuration."""

    name: str
    ae_title: str
    host: str
    port: int
    url: str = ""  # of its HTTP server: Orthanc's REST
    dicomweb: str = "/dicom-web"  # the path of its DICOMweb below `url`
    user: str = ""
    password: str = field(default="", repr=False)
    results: tuple[str, ...] = ("sr", "page")
    confirm: str = "find"  # "find" | "dicomweb" | "none"
    retry_days: float = 3.0
    accept_untrained: bool = False
    tls: ClientTls | None = None  # of its DICOM service; None: plain

    @property
    def dicomweb_url(self) -> str:
        """The base of its DICOMweb resources, without a slash at the end."""
        return self.url.rstrip("/") + self.dicomweb.rstrip("/")


class SendOutcome(StrEnum):
    """What the outbox does next."""

    SENT = "sent"
    RETRY = "retry"  # may go well later by itself
    REFUSED = "refused"  # will not go well until somebody changes something


@dataclass(frozen=True)
class Sent:
    """What became of one file. `status`: DIMSE, None without an answer. `sop_instance_uid`: "" when the file is unreadable."""

    sop_instance_uid: str
    outcome: SendOutcome
    status: int | None
    reason: str


@dataclass(frozen=True)
class Echo:
    """Whether the destination answered a C-ECHO, else why not."""

    ok: bool
    reason: str


class Found(StrEnum):
    """The destination's answer to "do you have this instance?"."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"  # no answer, or it does not answer such questions


def configure_pynetdicom() -> None:
    """The settings of pynetdicom, for its SCU and its SCP. They are process-wide, so this is the only place that sets them."""
    _config.STORE_SEND_CHUNKED_DATASET = True
    _config.STORE_RECV_CHUNKED_DATASET = True
    _config.UNRESTRICTED_STORAGE_SERVICE = False
    _config.ENFORCE_UID_CONFORMANCE = False  # it would abort the association and lose the views that follow; we check and answer ourselves
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False  # patient data
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.CODECS = ("ascii",)


@dataclass(frozen=True)
class _Verdict:
    first: int
    last: int
    outcome: SendOutcome
    words: str


_SENT, _RETRY, _REFUSED = SendOutcome.SENT, SendOutcome.RETRY, SendOutcome.REFUSED

#: PS3.7 annex C and PS3.4 B.2.3. What stands in no row is tried again, for as long as `retry_days` says.
VERDICTS: tuple[_Verdict, ...] = (
    _Verdict(0x0000, 0x0000, _SENT, "stored"),
    _Verdict(0x0111, 0x0111, _SENT, "it has this instance already"),
    _Verdict(0xB000, 0xBFFF, _SENT, "stored with a warning: it changed or dropped some attributes"),
    _Verdict(0x0110, 0x0110, _RETRY, "it could not process the instance"),
    _Verdict(0x0210, 0x0210, _RETRY, "it took the message for a repeated one"),
    _Verdict(0xA700, 0xA7FF, _RETRY, "it is out of resources (a full disk or queue): make room there"),
    _Verdict(0x0117, 0x0117, _REFUSED, "it calls the SOP Instance UID invalid: see its log"),
    _Verdict(
        0x0122,
        0x0122,
        _REFUSED,
        "it does not store this SOP class: enable the class there, or leave it out of `results` of this [[pacs]] or of `forward_to`",
    ),
    _Verdict(0x0124, 0x0124, _REFUSED, "it does not permit our AE title to store: allow that there"),
    _Verdict(0x0211, 0x0212, _REFUSED, "it does not understand C-STORE: is this the right port and AE title?"),
    _Verdict(
        0xA800,
        0xA8FF,
        _REFUSED,
        "it does not store this SOP class: enable the class there, or leave it out of `results` of this [[pacs]] or of `forward_to`",
    ),
    _Verdict(0xA900, 0xA9FF, _REFUSED, "it says that the data set does not match its SOP class: see its log"),
    _Verdict(0xC000, 0xCFFF, _REFUSED, "it cannot understand the data set: see its log"),
)

#: PS3.8 9.3.4: (result, source, diagnostic) of A-ASSOCIATE-RJ.
_REJECTIONS: dict[tuple[int | None, int | None, int | None], str] = {
    (1, 1, 2): "does not speak DICOM's application context: is this the right port?",
    (1, 1, 3): "does not know our AE title {ours}: add it there (in Orthanc: to DicomModalities, or set DicomAlwaysAllowStore)",
    (1, 1, 7): "does not go by the AE title {pacs.ae_title}: set `ae_title` of this [[pacs]] to the one it has",
    (1, 2, 2): "does not speak our version of the protocol: is this the right port?",
    (2, 3, 1): "is congested for the moment",
    (2, 3, 2): "has as many associations as it allows at the moment",
}


def send(pacs: Pacs, our_ae_title: str, files: Sequence[Path]) -> list[Sent]:
    """C-STORE of Part 10 files over one association; a `Sent` for each of `files`, in order. Never raises for network reasons."""
    with conversation(pacs, our_ae_title, files) as talk:
        return talk.send(files)


class Conversation:
    """What is said over one association: whose studies are these, here are the files, have they arrived."""

    def __init__(self, link: _Link, pacs: Pacs, instances: Mapping[Path, _Instance | Sent]) -> None:
        self._link = link
        self._pacs = pacs
        self._instances = instances

    def find_studies(self, study_instance_uids: Sequence[str]) -> dict[str, Known]:
        """As the function of this name."""
        return {uid: _find_study(self._link, self._pacs, uid) for uid in study_instance_uids}

    def find_instance(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> Found:
        """As the function of this name."""
        return _find_instance(self._link, study_instance_uid, series_instance_uid, sop_instance_uid)

    def send(self, files: Sequence[Path]) -> list[Sent]:
        """As the function of this name; `files` were named when the association was opened."""
        instances = [self._instances[path] for path in files]
        return [one if isinstance(one, Sent) else _store(self._link, self._pacs, one) for one in instances]


@contextmanager
def conversation(pacs: Pacs, our_ae_title: str, files: Sequence[Path], *, ask: bool = False) -> Iterator[Conversation]:
    """An association over which `files` can be sent and, when `ask`, be asked whose studies they are; none when there is nothing to say."""
    instances = {path: _read_instance(path) for path in files}
    contexts = sorted({(one.sop_class_uid, one.transfer_syntax_uid) for one in instances.values() if isinstance(one, _Instance)})
    if ask:
        contexts.insert(0, (StudyRootQueryRetrieveInformationModelFind, ""))
    if not contexts:
        yield Conversation(_Link(None, _RETRY, ""), pacs, instances)
        return
    with _associate(pacs, our_ae_title, contexts) as link:
        yield Conversation(link, pacs, instances)


def echo(pacs: Pacs, our_ae_title: str) -> Echo:
    """C-ECHO: is the destination there and does it talk to us?"""
    with _associate(pacs, our_ae_title, [(Verification, "")]) as link:
        if link.assoc is None:
            return Echo(ok=False, reason=link.reason)
        status = link.assoc.send_c_echo().get("Status")
        if status is None:
            _await_end(link.assoc)
    if status == 0x0000:
        return Echo(ok=True, reason=f"{_name(pacs)} answers")
    return Echo(ok=False, reason=f"{_name(pacs)} accepted the association, but C-ECHO got {_hex(status)}")


@dataclass(frozen=True)
class Negotiated:
    """The (SOP class, transfer syntax) pairs that a destination accepts; without an association none, and the reason."""

    accepted: frozenset[tuple[str, str]]
    reason: str = ""


def negotiate(pacs: Pacs, our_ae_title: str, contexts: Sequence[tuple[str, str]]) -> Negotiated:
    """What the destination would take, by negotiation alone (PS3.8 7.1.1.13). `contexts` as in `_associate`."""
    with _associate(pacs, our_ae_title, contexts) as link:
        if link.assoc is None:
            return Negotiated(frozenset(), link.reason)
        return Negotiated(frozenset((str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in link.assoc.accepted_contexts))


def find_instance(pacs: Pacs, our_ae_title: str, *, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> Found:
    """C-FIND, Study Root, IMAGE level (PS3.4 C.4.1). A proof that the UID is known there, not that the bytes are."""
    with conversation(pacs, our_ae_title, [], ask=True) as talk:
        return talk.find_instance(study_instance_uid, series_instance_uid, sop_instance_uid)


def _find_instance(link: _Link, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> Found:
    if link.assoc is None or not _accepts_queries(link.assoc):
        return Found.UNKNOWN
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID = study_instance_uid
    query.SeriesInstanceUID = series_instance_uid
    query.SOPInstanceUID = sop_instance_uid
    status, found = None, False
    try:
        for answer, identifier in link.assoc.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
            status = answer.get("Status")
            # Some destinations ignore keys they do not index and answer with every instance of the series.
            found = found or (identifier is not None and str(identifier.get("SOPInstanceUID", "")).strip() == sop_instance_uid)
    except RuntimeError:  # the association has ended
        status = None
    if status is None:
        _await_end(link.assoc)
    if found:
        return Found.PRESENT
    return Found.ABSENT if status == 0x0000 else Found.UNKNOWN


def _accepts_queries(assoc: Association) -> bool:
    return StudyRootQueryRetrieveInformationModelFind in {context.abstract_syntax for context in assoc.accepted_contexts}


@dataclass(frozen=True)
class Known:
    """The destination's answer to "whose study is this?": an entry (values by keyword) for each patient that it has the study under."""

    found: Found
    patients: tuple[Mapping[str, str], ...] = ()
    reason: str = ""


def find_studies(pacs: Pacs, our_ae_title: str, study_instance_uids: Sequence[str]) -> dict[str, Known]:
    """C-FIND, Study Root, STUDY level (PS3.4 C.6.2.1), of each study over one association: whose it is there, by Study Instance UID."""
    with conversation(pacs, our_ae_title, [], ask=True) as talk:
        return talk.find_studies(study_instance_uids)


def _find_study(link: _Link, pacs: Pacs, study_instance_uid: str) -> Known:
    silent = f"{_name(pacs)} does not say whose study this is (C-FIND, Study Root): allow our AE title to query, or set `confirm` to"
    hint = " (asked by C-FIND; `confirm` of this [[pacs]] says how)"
    if link.assoc is None:
        # Refused for good or not: what it would say of the object itself is not known yet, so the object waits.
        return Known(Found.UNKNOWN, reason=link.reason + (hint if link.outcome is _REFUSED else ""))
    if not _accepts_queries(link.assoc):
        return Known(Found.UNKNOWN, reason=f"{_name(pacs)} accepts no query: enable C-FIND (Study Root) there{hint}")
    query = Dataset()
    query.SpecificCharacterSet = "ISO_IR 192"  # names shall come back whole, whatever the destination writes by default
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = study_instance_uid
    for keyword in CORRECTABLE:
        setattr(query, keyword, "")
    status, patients = None, []
    try:
        for answer, identifier in link.assoc.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
            status = answer.get("Status")
            # Some destinations ignore keys: what is of another study is no answer.
            if identifier is not None and str(identifier.get("StudyInstanceUID", "")).strip("\0 ") == study_instance_uid:
                patients.append(values_of(identifier))
    except (RuntimeError, ValueError):  # the association has ended, or the query could not be written for it
        status = None
    except UNREADABLE:  # an answer in a character set beyond reading
        return Known(
            Found.UNKNOWN, reason=f"{_name(pacs)} answers in a character set that cannot be read: set `confirm` to dicomweb or none"
        )
    if status is None:
        _await_end(link.assoc)
    if patients:
        return Known(Found.PRESENT, tuple(patients))
    if status == 0x0000:
        return Known(Found.ABSENT, reason=f"{pacs.name} does not have this study yet: it is sent once the study is there")
    return Known(Found.UNKNOWN, reason=f"{silent} dicomweb or none ({_hex(status)})")


@dataclass(frozen=True)
class _Instance:
    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class _Link:
    """An association, or the reason why there is none."""

    assoc: Association | None
    outcome: SendOutcome
    reason: str


def _read_instance(path: Path) -> _Instance | Sent:
    try:
        meta = read_file_meta_info(path)
        return _Instance(path, str(meta.MediaStorageSOPInstanceUID), str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
    except FileNotFoundError:
        return Sent("", _REFUSED, None, f"the file {path.name} is gone: reprocess the study, an image with --from-orthanc")
    except OSError as error:
        return Sent("", _RETRY, None, f"the file {path.name} cannot be read: {error.strerror}")
    except (InvalidDicomError, AttributeError, ValueError, EOFError) as error:
        return Sent("", _REFUSED, None, f"the file {path.name} is no DICOM file with file meta information (PS3.10 7.1): {error}")


@contextmanager
def _associate(pacs: Pacs, our_ae_title: str, contexts: Sequence[tuple[str, str]]) -> Iterator[_Link]:
    """An association with one presentation context for each (SOP class, transfer syntax; "" for the uncompressed defaults)."""
    configure_pynetdicom()
    ae = AE(ae_title=our_ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = CONNECT_SECONDS
    ae.acse_timeout = ACSE_SECONDS
    ae.dimse_timeout = DIMSE_SECONDS
    ae.network_timeout = DIMSE_SECONDS
    connected: list[bool] = []
    try:
        tls = pacs.tls.context() if pacs.tls else None
    except TlsUnusable as unusable:
        yield _Link(None, _RETRY, f"{_name(pacs)} cannot be called with TLS: {unusable}")
        return

    def handle_open(event: Any) -> None:
        # pynetdicom reads and writes without a timeout, so a peer that stops within a PDU would hold us for ever.
        event.assoc.dul.socket.socket.settimeout(DIMSE_SECONDS)
        connected.append(True)

    try:
        assoc = ae.associate(
            pacs.host,
            pacs.port,
            contexts=[build_context(sop_class, transfer_syntax or None) for sop_class, transfer_syntax in contexts],
            ae_title=pacs.ae_title,
            max_pdu=128 * 1024,
            evt_handlers=[(evt.EVT_CONN_OPEN, handle_open)],
            tls_args=(tls, pacs.host) if tls else None,
        )
    except OSError as error:
        yield _Link(None, _RETRY, f"{pacs.name}: the name {pacs.host!r} cannot be resolved ({error}): check `host` of this [[pacs]]")
        return
    if not assoc.is_established:
        yield _failed(assoc, pacs, our_ae_title, connected=bool(connected), tls=tls)
        return
    try:
        yield _Link(assoc, _SENT, "")
    finally:
        if assoc.is_established:
            assoc.release()


def _failed(assoc: Association, pacs: Pacs, our_ae_title: str, *, connected: bool, tls: ClientContext | None) -> _Link:
    if tls is not None and tls.fault:
        return _Link(None, _RETRY, f"{_name(pacs)}: TLS fails: {tls.fault}: see `tls` and its files of this [[pacs]], and its own settings")
    if not connected:
        return _Link(None, _RETRY, f"nobody answers at {_name(pacs)}: is it running, and are `host` and `port` of this [[pacs]] right?")
    answer = assoc.acceptor.primitive
    if answer is None and isinstance(early := assoc.dul.peek_next_pdu(), A_ASSOCIATE):
        # Rejected before pynetdicom's other thread looked: it takes the connection, closed by then, for one that never was.
        answer = early
    if answer is not None and answer.result:
        given = (answer.result, answer.result_source, answer.diagnostic)
        words = _REJECTIONS.get(given, "rejects the association without a reason: see its log").format(ours=our_ae_title, pacs=pacs)
        return _Link(None, _RETRY if answer.result == 2 else _REFUSED, f"{_name(pacs)} {words}")
    if answer is not None and answer.result == 0:
        return _Link(None, _REFUSED, f"{_name(pacs)} accepts none of the offered SOP classes and transfer syntaxes: enable them there")
    hint = "" if tls else " Or does it ask for TLS (`tls` of this [[pacs]])?"
    return _Link(None, _RETRY, f"{_name(pacs)} accepted the connection but no association: is this its DICOM port?{hint}")


def _store(link: _Link, pacs: Pacs, instance: _Instance) -> Sent:
    uid, assoc = instance.sop_instance_uid, link.assoc
    if assoc is None:
        return Sent(uid, link.outcome, None, link.reason)
    accepted = {(context.abstract_syntax, context.transfer_syntax[0]) for context in assoc.accepted_contexts}
    if (instance.sop_class_uid, instance.transfer_syntax_uid) not in accepted:
        offered = f"SOP class {instance.sop_class_uid} in transfer syntax {instance.transfer_syntax_uid}"
        return Sent(uid, _REFUSED, None, f"{_name(pacs)} does not accept {offered}: enable it there")
    try:
        status = assoc.send_c_store(instance.path).get("Status")
    except OSError as error:
        # The file, not the network: the message is half sent, so the association is of no use any more.
        assoc.abort()
        return Sent(uid, _RETRY, None, f"the file {instance.path.name} cannot be read: {error.strerror}")
    except RuntimeError:  # pynetdicom's word for an association that has ended
        return Sent(uid, _RETRY, None, f"{_name(pacs)} ended the association before this instance")
    if status is None:
        _await_end(assoc)
        LOG.warning("c-store without answer pacs=%s sop_instance_uid=%s", pacs.name, uid)
        return Sent(uid, _RETRY, None, f"{_name(pacs)} aborted or did not answer within {DIMSE_SECONDS:g} s")
    outcome, words = _verdict(status)
    LOG.info("c-store pacs=%s sop_instance_uid=%s status=%s", pacs.name, uid, _hex(status))
    return Sent(uid, outcome, status, f"{_name(pacs)} answered {_hex(status)}: {words}")


def _await_end(assoc: Association) -> None:
    """After an abort or a timeout: until pynetdicom's own thread has noticed, a message or a release would wait for its answer in vain."""
    assoc.join(timeout=ACSE_SECONDS)


def _verdict(status: int) -> tuple[SendOutcome, str]:
    for verdict in VERDICTS:
        if verdict.first <= status <= verdict.last:
            return verdict.outcome, verdict.words
    return _RETRY, "a status that the Standard does not give to C-STORE"


def _name(pacs: Pacs) -> str:
    return f"{pacs.name} ({pacs.ae_title} at {pacs.host}:{pacs.port})"


def _hex(status: int | None) -> str:
    return "no answer" if status is None else f"0x{status:04X}"
