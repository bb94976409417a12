"""The Storage and Verification SCP (PS3.4 annexes B and A): what arrives is kept, then answered.

0x0000 means kept: the file is synced and renamed and its row is committed. The callback reads the identifying attributes and nothing
else: it decodes no pixels, applies no rule and resolves no view, since the sender waits for the answer (Orthanc for ten seconds).
What is not analysed is accepted as well and ignored, with a row and without a file: one failure status ends many senders' job, and
the views behind the refused object would never come.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import logging
import re
import socket
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from socketserver import BaseServer
from types import TracebackType
from typing import Any, Protocol, Self, cast

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from listener.guard import Limits, guard, stream_into
from listener.keys import Keys, Refused, Status, check_uids, read_keys
from pipeline.decode import DECODABLE
from pipeline.figures import Figures
from pipeline.send import configure_pynetdicom
from store.archive import Busy, Kept, Reception
from store.files import RESERVE, Files
from store.study import ImageKind

LOG = logging.getLogger(__name__)

VERIFICATION = "1.2.840.10008.1.1"
_MIB = 1024**2
#: How often the memory of associations that ended is given back.
MEMORY_SECONDS = 10.0


class OnArrival(Enum):
    """What becomes of an instance of a SOP class."""

    KEEP = "an image that may be analysed"
    KEEP_LISTED = "an image of a kind that is kept when the site's model card lists it, otherwise ignored"
    KEEP_KEY_OBJECT = "a note about images, for instance that one was rejected"
    IGNORE = "accepted, recorded without its file, never analysed"


@dataclass(frozen=True)
class SopClass:
    """One row of the conformance statement; `reason` says why it is ignored."""

    uid: str
    name: str
    on_arrival: OnArrival
    reason: str = ""
    is_image: bool = True
    limit_bytes: int = 2048 * _MIB
    kind: ImageKind | None = None  # of one that is kept only when it is listed

    @property
    def transfer_syntaxes(self) -> tuple[str, ...]:
        """In our order of preference, which decides (PS3.8 9.3.3.2 leaves the choice to the acceptor)."""
        return DECODABLE if self.is_image else (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


_KEEP, _LISTED, _KEY_OBJECT, _IGNORE = OnArrival.KEEP, OnArrival.KEEP_LISTED, OnArrival.KEEP_KEY_OBJECT, OnArrival.IGNORE
_RAW_PIXELS = "For Processing pixels: no model here was trained on them"
_TOMO = "tomosynthesis: it is not one of the four views"
_NOT_MAMMOGRAPHY = "not an image of the mammography classes"
_CAPTURE = "secondary capture: a copy, a print-out or another program's page, not the image"
_REPORT = "a report, not an image"
_STATE = "a presentation state: it changes how an image looks, not what it is"
_DERIVED = "derived or raw data, not an image to be read"

#: Every SOP class that is negotiated. Storage Commitment is left out: Fourview is no archive and promises none.
SOP_CLASSES: tuple[SopClass, ...] = (
    SopClass("1.2.840.10008.5.1.4.1.1.1.2", "Digital Mammography X-Ray - For Presentation", _KEEP, limit_bytes=200 * _MIB),
    SopClass("1.2.840.10008.5.1.4.1.1.88.59", "Key Object Selection Document", _KEY_OBJECT, is_image=False, limit_bytes=200 * _MIB),
    SopClass(
        "1.2.840.10008.5.1.4.1.1.1.2.1",
        "Digital Mammography X-Ray - For Processing",
        _LISTED,
        _RAW_PIXELS,
        limit_bytes=200 * _MIB,
        kind=ImageKind.FOR_PROCESSING,
    ),
    SopClass("1.2.840.10008.5.1.4.1.1.13.1.3", "Breast Tomosynthesis", _IGNORE, _TOMO),
    SopClass("1.2.840.10008.5.1.4.1.1.13.1.4", "Breast Projection X-Ray - For Presentation", _IGNORE, _TOMO),
    SopClass("1.2.840.10008.5.1.4.1.1.13.1.5", "Breast Projection X-Ray - For Processing", _IGNORE, _TOMO),
    SopClass("1.2.840.10008.5.1.4.1.1.1.1", "Digital X-Ray - For Presentation", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.1.1.1", "Digital X-Ray - For Processing", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.1", "Computed Radiography", _LISTED, _NOT_MAMMOGRAPHY, limit_bytes=200 * _MIB, kind=ImageKind.CR),
    SopClass("1.2.840.10008.5.1.4.1.1.7", "Secondary Capture", _IGNORE, _CAPTURE),
    SopClass("1.2.840.10008.5.1.4.1.1.7.1", "Multi-frame Single Bit Secondary Capture", _IGNORE, _CAPTURE),
    SopClass("1.2.840.10008.5.1.4.1.1.7.2", "Multi-frame Grayscale Byte Secondary Capture", _IGNORE, _CAPTURE),
    SopClass("1.2.840.10008.5.1.4.1.1.7.3", "Multi-frame Grayscale Word Secondary Capture", _IGNORE, _CAPTURE),
    SopClass("1.2.840.10008.5.1.4.1.1.7.4", "Multi-frame True Color Secondary Capture", _IGNORE, _CAPTURE),
    SopClass("1.2.840.10008.5.1.4.1.1.2", "CT", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.88.11", "Basic Text SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.88.22", "Enhanced SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.88.33", "Comprehensive SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.88.34", "Comprehensive 3D SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.88.50", "Mammography CAD SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.88.67", "X-Ray Radiation Dose SR", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.11.1", "Grayscale Softcopy Presentation State", _IGNORE, _STATE, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.11.2", "Color Softcopy Presentation State", _IGNORE, _STATE, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.11.3", "Pseudo-Color Softcopy Presentation State", _IGNORE, _STATE, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.11.4", "Blending Softcopy Presentation State", _IGNORE, _STATE, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.11.8", "Advanced Blending Presentation State", _IGNORE, _STATE, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated PDF", _IGNORE, _REPORT, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.66", "Raw Data", _IGNORE, _DERIVED, is_image=False),
    SopClass("1.2.840.10008.5.1.4.1.1.66.4", "Segmentation", _IGNORE, _DERIVED),
    SopClass("1.2.840.10008.5.1.4.1.1.30", "Parametric Map", _IGNORE, _DERIVED),
    SopClass("1.2.840.10008.5.1.4.1.1.6.1", "Ultrasound", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.3.1", "Ultrasound Multi-frame", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.4", "MR", _IGNORE, _NOT_MAMMOGRAPHY),
    SopClass("1.2.840.10008.5.1.4.1.1.4.1", "Enhanced MR", _IGNORE, _NOT_MAMMOGRAPHY),
)

_BY_UID: Mapping[str, SopClass] = {sop_class.uid: sop_class for sop_class in SOP_CLASSES}

#: SOP Class UIDs of what is kept for every model.
KEPT: frozenset[str] = frozenset(sop_class.uid for sop_class in SOP_CLASSES if sop_class.on_arrival in (_KEEP, _KEY_OBJECT))


def kept_for(image_kinds: Collection[ImageKind]) -> frozenset[str]:
    """SOP Class UIDs of what is kept for a model that reads these kinds of images."""
    return KEPT | {sop_class.uid for sop_class in SOP_CLASSES if sop_class.kind is not None and sop_class.kind in image_kinds}


class CannotListen(Exception):
    """The port could not be opened; the text says why and what to do."""


_LISTEN_ERRORS = {
    errno.EADDRINUSE: "another program uses this port: stop it (`ss -ltnp` shows which) or set another `port` under [dicom]",
    errno.EADDRNOTAVAIL: "this machine has no such address: set `host` under [dicom] to one of its own, or to 0.0.0.0 for all",
    errno.EACCES: "ports below 1024 need a privilege: set a `port` above 1023 under [dicom]",
}
#: The volume is full, or our share of it.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Keeps(Protocol):
    """The one method of `store.archive.Archive` that reception needs; called from many threads at once."""

    def keep(self, reception: Reception) -> Kept:
        """Durable when it returns; raises Busy when the database stayed locked or is away."""


class StorageScp:
    """Listens on one port. Several processes may share it with `reuse_port`: Linux gives each connection to one of them.
    `image_kinds`: what the site's model reads; an image of another kind is recorded and not kept.

    The settings of pynetdicom and `tempfile.tempdir` are process-wide: one process, one folder of incoming files.
    """

    def __init__(
        self,
        *,
        ae_title: str,
        host: str,
        port: int,
        archive: Keeps,
        files: Files,
        accept_from: Collection[str] = (),
        max_associations: int = 32,
        image_kinds: Collection[ImageKind] = (),
        strict: bool = False,
        reuse_port: bool = False,
        limits: Limits | None = None,
        figures: Figures | None = None,
        acse_seconds: float = 15.0,
        network_seconds: float = 60.0,
    ) -> None:
        self.host = host
        self.port = port  # after `start`, the real one where 0 was asked for
        self._archive = archive
        self._files = files
        self._kept = kept_for(image_kinds)
        self._strict = strict
        self._figures = figures or Figures()
        self._reuse_port = reuse_port
        # Half of the floor is left to transfers under way: those are answered 0xA700 at their end, the next ones are cut off.
        self._limits = replace(limits or Limits(), room=lambda: files.has_room(RESERVE))
        self._server: _Server | None = None
        self._stopped = threading.Event()
        self._ae = AE(ae_title=ae_title)
        self._ae.require_called_aet = True
        self._ae.require_calling_aet = list(accept_from)
        self._ae.maximum_associations = max_associations
        self._ae.maximum_pdu_size = self._limits.pdu_bytes // 2
        self._ae.acse_timeout = acse_seconds
        self._ae.dimse_timeout = network_seconds
        self._ae.network_timeout = network_seconds
        self._ae.add_supported_context(VERIFICATION, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        for sop_class in SOP_CLASSES:
            self._ae.add_supported_context(sop_class.uid, list(sop_class.transfer_syntaxes))

    def start(self) -> Self:
        """Listen. Raises CannotListen."""
        configure_pynetdicom()
        stream_into(self._files.incoming)
        callbacks: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, guard, [self._limits]),
            (evt.EVT_CONN_CLOSE, handle_close),
            (evt.EVT_REJECTED, handle_rejected),
            (evt.EVT_C_ECHO, handle_echo),
            (evt.EVT_C_STORE, self.handle_store),
        ]
        try:
            kind = _SharingServer if self._reuse_port else _Server
            server = cast(_Server, self._ae.make_server((self.host, self.port), evt_handlers=callbacks, server_class=kind))
        except OSError as error:
            advice = _LISTEN_ERRORS.get(error.errno or 0, f"{error.strerror or error}: check `host` and `port` under [dicom]")
            raise CannotListen(f"cannot listen on {self.host}:{self.port}: {advice}") from error
        self._server = server
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="scp", daemon=True).start()
        self._stopped.clear()
        threading.Thread(target=give_back_memory, args=[self._stopped], name="memory", daemon=True).start()
        LOG.info("listening ae_title=%s host=%s port=%d", self._ae.ae_title, self.host, self.port)
        return self

    def shutdown(self, *, grace_seconds: float = 10.0) -> None:
        """Stop listening. Running associations may finish within `grace_seconds`, then they are aborted; nothing answered is lost."""
        if self._server is None:
            return
        self._stopped.set()
        self._server.shutdown()
        self._server = None
        give_up_at = time.monotonic() + grace_seconds
        while self._ae.active_associations and time.monotonic() < give_up_at:
            time.sleep(0.02)
        for assoc in self._ae.active_associations:
            assoc.abort()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.shutdown()

    def handle_store(self, event: Any) -> Dataset:
        """evt.EVT_C_STORE: the status for one instance. Leaves no file in `incoming`, whatever happens."""
        started = time.monotonic()
        received: Path = event.dataset_path
        size_bytes = 0
        keys: Keys | None = None
        status, comment = Status.SUCCESS, ""
        try:
            if (fault := event.request._dataset_file.fault) is not None:
                raise fault
            size_bytes = received.stat().st_size
            self._check_space()
            _check_size(size_bytes, _stripped(event.request.AffectedSOPClassUID))  # before anything of it is parsed
            keys = read_keys(received)
            outcome = self._store(event, received, keys)
        except Refused as refusal:
            outcome, status, comment = "refused", refusal.status, refusal.comment
        except OSError as error:
            # Full, broken, read-only, away: nothing was kept that anybody was told of, and it may pass.
            outcome, status, comment = "refused", Status.OUT_OF_RESOURCES, _disk_fault(error)
        except Exception:
            # The only place between a surprise and the sender: without an answer he would wait and abort, and the cause would be nowhere.
            LOG.exception("reception failed sop_instance_uid=%s", _printable(event.request.AffectedSOPInstanceUID))
            outcome, status, comment = "failed", Status.UNEXPECTED, "internal error of the receiver; its log says more"
        finally:
            with contextlib.suppress(OSError):  # the janitor finds it
                received.unlink(missing_ok=True)
        seconds = time.monotonic() - started
        self._figures.add("instances_received", outcome)
        self._figures.took("stage_seconds", "reception", seconds)
        LOG.log(
            logging.INFO if status is Status.SUCCESS else logging.WARNING,
            "instance outcome=%r status=0x%04X study_instance_uid=%s sop_instance_uid=%s sop_class_uid=%s calling_ae_title=%s "
            "size_bytes=%d seconds=%.3f comment=%r",
            outcome,
            status,
            _printable(keys.study_instance_uid if keys else ""),
            _printable(event.request.AffectedSOPInstanceUID),
            _printable(event.request.AffectedSOPClassUID),
            _printable(event.assoc.requestor.ae_title),
            size_bytes,
            seconds,
            comment,
        )
        answer = Dataset()
        answer.Status = int(status)
        if comment:
            answer.ErrorComment = comment
        return answer

    def _check_space(self) -> None:
        if not self._files.has_room():
            raise Refused(Status.OUT_OF_RESOURCES, "the disk is nearly full; try again later")

    def _store(self, event: Any, received: Path, keys: Keys) -> str:
        """Keep one instance; returns a word for the log or raises Refused."""
        self._check(keys, event.request)
        ignored = ignored_because(keys, self._kept)
        if ignored and self._strict:
            raise Refused(Status.SOP_CLASS_NOT_SUPPORTED, f"not accepted: {ignored}")
        kept = keep_file(
            keys,
            received,
            ignored,
            archive=self._archive,
            files=self._files,
            calling_ae_title=event.assoc.requestor.ae_title,
            called_ae_title=event.assoc.requestor.primitive.called_ae_title,
        )
        if ignored and kept is Kept.IGNORED:
            self._figures.add("instances_ignored", ignored)
        return kept.value

    def _check(self, keys: Keys, request: Any) -> None:
        check_uids(keys)
        if _stripped(request.AffectedSOPClassUID) != keys.sop_class_uid:
            raise Refused(Status.DOES_NOT_MATCH, "SOPClassUID differs between command and data set")
        if _stripped(request.AffectedSOPInstanceUID) != keys.sop_instance_uid:
            raise Refused(Status.DOES_NOT_MATCH, "SOPInstanceUID differs between command and data set")
        if keys.sop_class_uid not in _BY_UID:  # sent under another class's presentation context
            raise Refused(Status.SOP_CLASS_NOT_SUPPORTED, "this SOP class was not negotiated")


def _check_size(size_bytes: int, sop_class_uid: str) -> None:
    sop_class = _BY_UID.get(sop_class_uid)
    if sop_class is not None and size_bytes > sop_class.limit_bytes:
        raise Refused(Status.TOO_LARGE, f"larger than {sop_class.limit_bytes // _MIB} MiB")


def ignored_because(keys: Keys, kept_sop_classes: Collection[str]) -> str:
    """Why only a row is kept of an instance, in words; "" when it is kept whole. Raises Refused when what would be kept is damaged."""
    sop_class = _BY_UID.get(keys.sop_class_uid)
    if keys.sop_class_uid not in kept_sop_classes:
        return (sop_class.reason if sop_class else "") or "no model here reads this class"
    if keys.damage:
        raise Refused(Status.CANNOT_PARSE, keys.damage)
    return ""


def keep_file(
    keys: Keys,
    received: Path,
    ignored: str,
    *,
    archive: Keeps,
    files: Files,
    calling_ae_title: str,
    called_ae_title: str,
    origin: str = "received",
) -> Kept:
    """Keep the finished file `received`, or only its row; durable when it returns. Raises Refused(OUT_OF_RESOURCES)."""
    try:
        file_name = None if ignored else files.adopt(received)
    except OSError as error:
        raise Refused(Status.OUT_OF_RESOURCES, _disk_fault(error)) from error
    reception = Reception(
        study_instance_uid=keys.study_instance_uid,
        series_instance_uid=keys.series_instance_uid,
        sop_instance_uid=keys.sop_instance_uid,
        sop_class_uid=keys.sop_class_uid,
        transfer_syntax_uid=keys.transfer_syntax_uid,
        modality=keys.modality,
        patient_id=keys.patient_id,
        issuer_of_patient_id=keys.issuer_of_patient_id,
        patient_name=keys.patient_name,
        patient_birth_date=keys.patient_birth_date,
        calling_ae_title=_stripped(calling_ae_title),
        called_ae_title=_stripped(called_ae_title),
        size_bytes=keys.size_bytes,
        file_hash=keys.file_hash,
        file_name=file_name,
        ignored=ignored,
        origin=origin,
    )
    try:
        kept = archive.keep(reception)
    except Busy as busy:
        # A commit whose answer was lost may stand, and then its row links to the file: it stays, and without a row it goes after a day.
        # Otherwise it goes at once: a sender that tries again and again would fill the disk.
        if file_name is not None and not busy.unsure:
            with contextlib.suppress(OSError):  # the janitor finds it
                files.remove(file_name)
        raise Refused(Status.OUT_OF_RESOURCES, "the database is busy or away; try again later") from busy
    if file_name is not None and kept is not Kept.NEW:
        with contextlib.suppress(OSError):  # what was sent is kept; the janitor finds the second file
            files.remove(file_name)
    return kept


def _disk_fault(error: OSError) -> str:
    """For the sender, without any path."""
    if error.errno in _NO_SPACE:
        return "the disk is full; try again later"
    return f"the disk fails ({error.strerror or type(error).__name__}); try again later"


def handle_close(event: Any) -> None:
    """evt.EVT_CONN_CLOSE: what was received in part goes. A complete data set is `handle_store`'s: by then the message is gone."""
    message = event.assoc.dimse.message
    unfinished = getattr(message, "_data_set_path", None)
    if isinstance(unfinished, Path):
        message._data_set_file.close()
        with contextlib.suppress(OSError):  # the janitor finds it
            unfinished.unlink(missing_ok=True)


def handle_echo(event: Any) -> int:
    """evt.EVT_C_ECHO: we are here."""
    LOG.info("echo calling_ae_title=%s", _printable(event.assoc.requestor.ae_title))
    return Status.SUCCESS


#: PS3.8 9.3.4: (result, source, diagnostic) of the rejections that we give.
_REJECTIONS: dict[tuple[int, int, int], str] = {
    (1, 1, 3): "calling AE title not in accept_from",
    (1, 1, 7): "called AE title is not ours",
    (2, 3, 2): "more associations than max_associations",
}


def handle_rejected(event: Any) -> None:
    """evt.EVT_REJECTED: one line that says who was turned away and why."""
    rejection = event.assoc.acceptor.primitive
    given = (rejection.result, rejection.result_source, rejection.diagnostic)
    LOG.warning(
        "association rejected reason=%r calling_ae_title=%s called_ae_title=%s peer=%s",
        _REJECTIONS.get(given, f"result, source, diagnostic {given}"),
        _printable(event.assoc.requestor.ae_title),
        _printable(event.assoc.requestor.primitive.called_ae_title),
        event.assoc.requestor.address,
    )


def give_back_memory(stopped: threading.Event) -> None:
    """Every few seconds until `stopped`: collect associations that ended, and give what they held back to the system.

    They are cycles, of some hundred KiB each and spread over the heaps of many threads; without this a burst of connects stays resident.
    """
    libc = ctypes.CDLL(None)
    while not stopped.wait(MEMORY_SECONDS):
        gc.collect()
        if hasattr(libc, "malloc_trim"):  # glibc's
            libc.malloc_trim(0)


def _stripped(value: str | None) -> str:
    return str(value or "").replace("\0", "").strip()


def _printable(value: str | None) -> str:
    """For the log: what a peer wrote cannot begin a new line there."""
    return re.sub(r"[\s='\"]", lambda found: f"\\x{ord(found[0]):02x}", ascii(_stripped(value)[:64])[1:-1])


class _Server(ThreadedAssociationServer):
    """pynetdicom's server, which `AE.start_server` makes without letting anybody choose these."""

    daemon_threads = True
    request_queue_size = 128

    def shutdown(self) -> None:
        """Stop accepting; `AE` knows nothing of this server, so the parent's book-keeping does not apply."""
        BaseServer.shutdown(self)
        self.server_close()


class _SharingServer(_Server):
    """One of several processes on the same port: Linux gives each connection to one of them."""

    def server_bind(self) -> None:
        cast(socket.socket, self.socket).setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()
