"""The certificate by which clients know us, who of them must show one, and the renewal of both while we run (RFC 8446, RFC 5246)."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from listener.finding import Finding
from pipeline.tls import TlsUnusable, in_words, load_authority, load_certificate

log = logging.getLogger(__name__)

#: How often it is looked whether the files were replaced.
LOOK_EVERY_SECONDS = 60.0
#: A certificate that ends within so long is told by `fourview check`.
SOON = timedelta(days=30)


class BadCertificate(Exception):
    """The certificate cannot be used; the text says why."""


class Certificate:
    """A certificate with its chain and its key, as PEM files. `context` serves new connections with what was loaded last.

    With an `authority` clients must show a certificate that leads to it (RFC 8446 4.3.2).

    What was loaded once stays in a context: it keeps one certificate for each type of key, so that one with an elliptic curve would not
    take the place of one with RSA. Each renewal has a context of its own, and each connection is given the last one.
    """

    def __init__(self, certificate: Path, key: Path, authority: Path | None = None) -> None:
        self._paths = (certificate, key, *([authority] if authority else []))
        self._seen = self._stamps()
        self.context = self._current = self._load()
        # OpenSSL calls it for each connection, also when the client names no server.
        self.context.sni_callback = lambda connection, name, context: setattr(connection, "context", self._current)

    @property
    def current(self) -> ssl.SSLContext:
        """For the next connection, whoever makes one itself: what was loaded last, the authority as well."""
        return self._current

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
        certificate, key, *authority = map(str, self._paths)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            load_certificate(context, certificate, key)
            for file in authority:
                load_authority(context, file)
                context.verify_mode = ssl.CERT_REQUIRED
        except TlsUnusable as unusable:
            raise BadCertificate(str(unusable)) from unusable
        return context


def wrapped(connection: socket.socket, certificate: Certificate) -> ssl.SSLSocket:
    """A new connection of which nothing was read yet; it waits for nothing. Raises OSError when it has gone already."""
    try:
        return certificate.current.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    except ValueError as error:
        raise ConnectionAbortedError(str(error)) from error


def handshake(connection: ssl.SSLSocket, seconds: float, *, peer: str) -> bool:
    """The server's side of it, within `seconds` altogether; False: it failed, which the log says, and the connection is closed."""
    try:
        connection.settimeout(seconds)
        connection.do_handshake()
    except OSError as error:
        log.warning("connection closed peer=%s reason=%r", peer, f"TLS handshake: {in_words(error)}", extra={"peer": peer})
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        return False
    return True


def first_certificate(path: Path) -> bytes:
    """The first certificate of a PEM file, as DER. Raises BadCertificate."""
    try:
        pem = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise BadCertificate(f"{path} cannot be read: {error.strerror}") from error
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    try:
        return ssl.PEM_cert_to_DER_cert(begin + pem.split(begin, 1)[1].split(end, 1)[0] + end)
    except (IndexError, ValueError) as error:
        raise BadCertificate(f"{path} holds no certificate in PEM") from error


def expires(certificate: bytes) -> datetime:
    """notAfter of a certificate in DER (RFC 5280 4.1.2.5). Raises BadCertificate."""
    try:
        fields = _parts(
            _parts(_parts(certificate)[0][1])[0][1]
        )  # of TBSCertificate: [0] version, serialNumber, signature, issuer, validity
        validity = fields[4 if fields[0][0] == 0xA0 else 3][1]
        tag, text = _parts(validity)[1]
        form = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}[tag]
        return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)
    except (LookupError, ValueError) as error:
        raise BadCertificate("its certificate cannot be read") from error


def expiry(what: str, path: Path, now: datetime) -> Iterator[Finding]:
    """What is to be said of a certificate that ends soon, has ended, or cannot be read."""
    try:
        end = expires(first_certificate(path))
    except BadCertificate as problem:
        yield Finding(False, what, str(problem))
        return
    left = end - now
    if left < timedelta(0):
        yield Finding(False, what, f"{path} has expired ({end:%Y-%m-%d %H:%M} UTC): renew it")
    elif left < SOON:
        yield Finding(True, what, f"WARNING: {path} expires in {left.days} days ({end:%Y-%m-%d}): renew it")


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """Tags and values that stand one behind the other (X.690 8.1)."""
    found = []
    while der:
        tag, length, start = der[0], der[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(der[2:start], "big")
        found.append((tag, der[start : start + length]))
        der = der[start + length :]
    return found
