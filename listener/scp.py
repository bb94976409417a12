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
import socket
import ssl
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from socketserver import BaseServer
from types import TracebackType
from typing import Any, Self, cast

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from listener.connections import ConnectionLimits, Connections
from listener.guard import DataSetFile, Limits, guard, stream_into
from listener.keeping import (
    BY_UID,
    SOP_CLASSES,
    Keeps,
    StudyLimits,
    StudySizes,
    check_size,
    disk_fault,
    ignored_because,
    keep_file,
    kept_for,
    printable,
    stripped,
)
from listener.keys import Keys, Refused, Status, check_uids, read_keys, told
from listener.tls import Certificate, handshake, wrapped
from pipeline.figures import Figures
from pipeline.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pipeline.send import configure_pynetdicom
from store.archive import Kept
from store.files import RESERVE, Files
from store.study import ImageKind

LOG = logging.getLogger(__name__)

VERIFICATION = "1.2.840.10008.1.1"
#: How often the memory of associations that ended is given back.
MEMORY_SECONDS = 10.0


#: For a TLS handshake, from its first byte to its last.
HANDSHAKE_SECONDS = 15.0


class CannotListen(Exception):
    """The port could not be opened; the text says why and what to do."""


_LIBC = ctypes.CDLL(None)
_M_ARENA_MAX = -8  # malloc.h
#: So many heaps for all threads of a receiver: they take turns anyway.
HEAPS = 2

_LISTEN_ERRORS = {
    errno.EADDRINUSE: "another program uses this port: stop it (`ss -ltnp` shows which) or set another `port` under [dicom]",
    errno.EADDRNOTAVAIL: "this machine has no such address: set `host` under [dicom] to one of its own, or to 0.0.0.0 for all",
    errno.EACCES: "ports below 1024 need a privilege: set a `port` above 1023 under [dicom]",
}


@dataclass(frozen=True, kw_only=True)
class _Accepted:
    """What is done with an instance; it is looked at once for each."""

    kept: frozenset[str]  # SOP Class UIDs
    strict: bool
    character_sets: Mapping[str, str]  # of calling AE titles whose images name none
    study_limits: StudyLimits


class StorageScp:
    """Listens on one port. Several processes may share it with `reuse_port`: Linux gives each connection to one of them.
    With a `certificate` it speaks TLS, and nothing else. `image_kinds`: what the site's model reads; an image of another kind is recorded
    and not kept. `character_sets`: of calling AE titles whose images name none.

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
        character_sets: Mapping[str, str] | None = None,
        connection_limits: ConnectionLimits | None = None,
        study_limits: StudyLimits | None = None,
        reuse_port: bool = False,
        limits: Limits | None = None,
        figures: Figures | None = None,
        certificate: Certificate | None = None,
        acse_seconds: float = 15.0,
        network_seconds: float = 60.0,
    ) -> None:
        self.host = host
        self.port = port  # after `start`, the real one where 0 was asked for
        self._archive = archive
        self._files = files
        self._figures = figures or Figures()
        self._reuse_port = reuse_port
        # Half of the floor is left to transfers under way: those are answered 0xA700 at their end, the next ones are cut off.
        self._limits = replace(limits or Limits(), room=lambda: files.has_room(RESERVE))
        self._certificate = certificate
        self._server: _Server | None = None
        self._stopped = threading.Event()
        self._connections = Connections()
        self._studies = StudySizes()
        self._ae = _AE(ae_title=ae_title)
        self._ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self._ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._ae.require_called_aet = True
        self._ae.maximum_pdu_size = self._limits.pdu_bytes // 2
        self._ae.acse_timeout = acse_seconds
        self._ae.dimse_timeout = network_seconds
        self._ae.network_timeout = network_seconds
        self._ae.add_supported_context(VERIFICATION, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        for sop_class in SOP_CLASSES:
            self._ae.add_supported_context(sop_class.uid, list(sop_class.transfer_syntaxes))
        self.accept(
            accept_from=accept_from,
            max_associations=max_associations,
            image_kinds=image_kinds,
            strict=strict,
            character_sets=character_sets,
            connection_limits=connection_limits,
            study_limits=study_limits,
        )

    def accept(
        self,
        *,
        accept_from: Collection[str],
        max_associations: int,
        image_kinds: Collection[ImageKind],
        strict: bool,
        character_sets: Mapping[str, str] | None = None,
        connection_limits: ConnectionLimits | None = None,
        study_limits: StudyLimits | None = None,
    ) -> None:
        """From now on: whose next association and which next instances. Associations that are open go on, whoever called."""
        self._accepted = _Accepted(
            kept=kept_for(image_kinds),
            strict=strict,
            character_sets=dict(character_sets or {}),
            study_limits=study_limits or StudyLimits(),
        )
        self._connections.limit(connection_limits or ConnectionLimits())
        self._ae.require_calling_aet = list(accept_from)
        self._ae.maximum_associations = max_associations

    def start(self) -> Self:
        """Listen. Raises CannotListen."""
        configure_pynetdicom()
        keep_to_few_heaps()
        stream_into(self._files.incoming)
        callbacks: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, guard, [self._limits]),
            (evt.EVT_CONN_CLOSE, handle_close),
            (evt.EVT_DIMSE_RECV, handle_whole),
            (evt.EVT_ABORTED, handle_aborted),
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
        server.connections = self._connections
        server.certificate, server.handshake_seconds = self._certificate, self._ae.acse_timeout or HANDSHAKE_SECONDS
        self._server = server
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="scp", daemon=True).start()
        self._stopped.clear()
        threading.Thread(target=give_back_memory, args=[self._stopped], name="memory", daemon=True).start()
        if self._certificate is not None:
            threading.Thread(target=self._certificate.watch, args=[self._stopped], name="certificate", daemon=True).start()
        tls = "yes" if self._certificate is not None else "no"
        LOG.info("listening ae_title=%s host=%s port=%d tls=%s", self._ae.ae_title, self.host, self.port, tls)
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
        _whole(event.assoc).pop(str(received), None)
        size_bytes = 0
        keys: Keys | None = None
        status, comment = Status.SUCCESS, ""
        try:
            file = event.request._dataset_file
            if file.fault is not None:
                raise file.fault
            size_bytes = received.stat().st_size
            self._check_space()
            check_size(size_bytes, stripped(event.request.AffectedSOPClassUID))  # before anything of it is parsed
            accepted = self._accepted
            character_set = accepted.character_sets.get(stripped(event.assoc.requestor.ae_title), "")
            keys = read_keys(received, character_set, hashed=file.hashed)
            outcome = self._store(event, received, keys, accepted)
        except Refused as refusal:
            outcome, status, comment = "refused", refusal.status, refusal.comment
        except OSError as error:
            # Full, broken, read-only, away: nothing was kept that anybody was told of, and it may pass.
            outcome, status, comment = "refused", Status.OUT_OF_RESOURCES, disk_fault(error)
        except Exception:
            # The only place between a surprise and the sender: without an answer he would wait and abort, and the cause would be nowhere.
            LOG.exception("reception failed sop_instance_uid=%s", told(event.request.AffectedSOPInstanceUID))
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
            told(keys.study_instance_uid if keys else ""),
            told(event.request.AffectedSOPInstanceUID),
            told(event.request.AffectedSOPClassUID),
            printable(event.assoc.requestor.ae_title),
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

    def _store(self, event: Any, received: Path, keys: Keys, accepted: _Accepted) -> str:
        """Keep one instance; returns a word for the log or raises Refused."""
        self._check(keys, event.request)
        ignored = ignored_because(keys, accepted.kept)
        if ignored and accepted.strict:
            raise Refused(Status.SOP_CLASS_NOT_SUPPORTED, f"not accepted: {ignored}")
        self._studies.check(keys.study_instance_uid, accepted.study_limits)
        kept = keep_file(
            keys,
            received,
            ignored,
            archive=self._archive,
            files=self._files,
            calling_ae_title=event.assoc.requestor.ae_title,
            called_ae_title=event.assoc.requestor.primitive.called_ae_title,
        )
        if kept is Kept.NEW:
            self._studies.add(keys.study_instance_uid, keys.size_bytes)
        if ignored and kept is Kept.IGNORED:
            self._figures.add("instances_ignored", ignored)
        return kept.value

    def _check(self, keys: Keys, request: Any) -> None:
        check_uids(keys)
        if stripped(request.AffectedSOPClassUID) != keys.sop_class_uid:
            raise Refused(Status.DOES_NOT_MATCH, "SOPClassUID differs between command and data set")
        if stripped(request.AffectedSOPInstanceUID) != keys.sop_instance_uid:
            raise Refused(Status.DOES_NOT_MATCH, "SOPInstanceUID differs between command and data set")
        if keys.sop_class_uid not in BY_UID:  # sent under another class's presentation context
            raise Refused(Status.SOP_CLASS_NOT_SUPPORTED, "this SOP class was not negotiated")


def handle_close(event: Any) -> None:
    """evt.EVT_CONN_CLOSE: what was received in part goes. A complete data set is `handle_store`'s: by then the message is gone."""
    message = event.assoc.dimse.message
    unfinished = getattr(message, "_data_set_path", None)
    if isinstance(unfinished, Path):
        message._data_set_file.close()
        with contextlib.suppress(OSError):  # the janitor finds it
            unfinished.unlink(missing_ok=True)


def handle_whole(event: Any) -> None:
    """evt.EVT_DIMSE_RECV: a message has come whole. Whether `handle_store` is asked about it is pynetdicom's decision: it aborts over a
    class that it does not know, and over a context that was not accepted."""
    if isinstance(file := event.message._data_set_file, DataSetFile):
        _whole(event.assoc)[file.name] = file


def handle_aborted(event: Any) -> None:
    """evt.EVT_ABORTED, in the thread that asks `handle_store`: what it was not asked about goes."""
    for name, file in list(_whole(event.assoc).items()):
        file.close()
        with contextlib.suppress(OSError):  # the janitor finds it
            Path(name).unlink(missing_ok=True)


def _whole(assoc: Any) -> dict[str, DataSetFile]:
    """The data sets that an association brought and that `handle_store` was not asked about yet, by the names of their files."""
    found: dict[str, DataSetFile] = assoc.__dict__.setdefault("fourview_whole", {})
    return found


def handle_echo(event: Any) -> int:
    """evt.EVT_C_ECHO: we are here."""
    LOG.info("echo calling_ae_title=%s", printable(event.assoc.requestor.ae_title))
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
        printable(event.assoc.requestor.ae_title),
        printable(event.assoc.requestor.primitive.called_ae_title),
        event.assoc.requestor.address,
        extra={"peer": event.assoc.requestor.address},
    )


def give_back_memory(stopped: threading.Event) -> None:
    """Every few seconds until `stopped`: collect associations that ended, and give what they held back to the system.

    They are cycles, of some hundred KiB each and spread over the heaps of many threads; without this a burst of connects stays resident.
    """
    while not stopped.wait(MEMORY_SECONDS):
        gc.collect()
        if hasattr(_LIBC, "malloc_trim"):  # glibc's
            _LIBC.malloc_trim(0)


def keep_to_few_heaps() -> None:
    """Before the first thread of a connection: glibc gives each of many threads a heap, and what lives long in one of them keeps all of it.

    With its eight heaps per core, ten thousand bare connects left 30 MB behind, although no object was left.
    """
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_ARENA_MAX, HEAPS)


class _AE(AE):
    """Whose associations are counted once they have said who they are: else silent connections would take all that there are."""

    @property
    def active_associations(self) -> list[Association]:
        """Of those that run, and have sent an A-ASSOCIATE-RQ."""
        return [assoc for assoc in super().active_associations if assoc.requestor.primitive is not None]


class _Server(ThreadedAssociationServer):
    """pynetdicom's server, which `AE.start_server` makes without letting anybody choose these."""

    daemon_threads = True
    request_queue_size = 128
    certificate: Certificate | None = None
    handshake_seconds = HANDSHAKE_SECONDS
    connections: Connections

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection that may stay. OSError is how the server is told that there is none."""
        connection, address = super().get_request()
        peer = str(address[0])
        if why := self.connections.refused_because(peer, time.monotonic()):
            LOG.warning("connection refused peer=%s reason=%r", peer, why, extra={"peer": peer})
            connection.close()
            raise ConnectionRefusedError(why)
        if self.certificate is not None:
            connection = wrapped(connection, self.certificate)
        self.connections.add(peer, connection)
        return connection, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In a thread of the connection's own, where a handshake holds up nobody else; pynetdicom would do it where all are accepted."""
        if isinstance(request, ssl.SSLSocket) and not handshake(request, self.handshake_seconds, peer=str(client_address[0])):
            return
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that could not be begun; the standard library would print the traceback past the log."""
        LOG.error("connection failed peer=%s", client_address[0], exc_info=True, extra={"peer": str(client_address[0])})

    def service_actions(self) -> None:
        """pynetdicom collects garbage here every few seconds; `give_back_memory` does."""

    def shutdown(self) -> None:
        """Stop accepting; `AE` knows nothing of this server, so the parent's book-keeping does not apply."""
        BaseServer.shutdown(self)
        self.server_close()


class _SharingServer(_Server):
    """One of several processes on the same port: Linux gives each connection to one of them."""

    def server_bind(self) -> None:
        cast(socket.socket, self.socket).setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()
