"""The certificate by which clients know us, and its renewal while we run (RFC 8446, RFC 5246)."""

from __future__ import annotations

import logging
import ssl
import threading
from pathlib import Path

log = logging.getLogger(__name__)

#: How often it is looked whether the files were replaced.
LOOK_EVERY_SECONDS = 60.0


class BadCertificate(Exception):
    """The certificate cannot be used; the text says why."""


class Certificate:
    """A certificate with its chain and its key, as PEM files. `context` serves new connections with what was loaded last.

    What was loaded once stays in a context: it keeps one certificate for each type of key, so that one with an elliptic curve would not
    take the place of one with RSA. Each renewal has a context of its own, and each connection is given the last one.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._paths = (certificate, key)
        self._seen = self._stamps()
        self.context = self._current = self._load()
        # OpenSSL calls it for each connection, also when the client names no server.
        self.context.sni_callback = lambda connection, name, context: setattr(connection, "context", self._current)

    def renew(self) -> bool:
        """Load the files again when they were replaced, and say whether they were. Raises BadCertificate; then the old ones serve on."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._current = self._load()  # while the new key has not come yet, the two fit nothing
        self._seen = stamps
        return True

    def watch(self, stopped: threading.Event, every_seconds: float = LOOK_EVERY_SECONDS) -> None:
        """Renew until `stopped`; what cannot be loaded is tried again, and said once for each state of the files."""
        told: object = None
        while not stopped.wait(every_seconds):
            try:
                if self.renew():
                    log.info("event=certificate_renewed file=%s", self._paths[0])
            except BadCertificate as problem:
                if told != (told := self._stamps()):
                    log.error("event=certificate_not_renewed reason=%r", str(problem))

    def _stamps(self) -> tuple[object, ...]:
        stamps: list[object] = []
        for path in self._paths:
            try:
                found = path.stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return tuple(stamps)

    def _load(self) -> ssl.SSLContext:
        certificate, key = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(certificate, key, password=_no_passphrase)
        except ssl.SSLError as error:
            why = error.reason or str(error)
            raise BadCertificate(f"{certificate} and {key} are not a certificate in PEM and its key without passphrase ({why})") from error
        except OSError as error:
            raise BadCertificate(f"{certificate} or {key} cannot be read: {error.strerror}") from error
        return context


def _no_passphrase() -> str:
    """OpenSSL would ask for one on the terminal."""
    return ""
