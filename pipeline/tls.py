"""TLS towards a destination (RFC 8446, RFC 5246): whom we believe, who we are, and in words what went wrong.

Its certificate must lead to `authority` (without one, to what the operating system trusts) and bear the destination's host. Files are
read for each association, so that renewed ones need no restart.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any


class TlsUnusable(Exception):
    """The files of the configuration are of no use; the text says which, and why."""


@dataclass(frozen=True, kw_only=True)
class ClientTls:
    """How we speak TLS to one destination: PEM files, "" for none."""

    authority: str = ""
    certificate: str = ""  # with its chain; shown when the destination asks who we are
    key: str = ""

    def context(self) -> ClientContext:
        """For one connection. Raises TlsUnusable."""
        context = ClientContext()
        if self.authority:
            load_authority(context, self.authority)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if self.certificate:
            load_certificate(context, self.certificate, self.key)
        return context


class ClientContext(ssl.SSLContext):
    """The context of one connection, which remembers in `fault` why it failed: pynetdicom does not hand it on."""

    fault: str

    def __new__(cls) -> ClientContext:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)  # which checks certificate and host
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.sslsocket_class = _ClientSocket
        context.fault = ""
        return context


class _ClientSocket(ssl.SSLSocket):
    """Tells its context what goes wrong, and pynetdicom less: it would log a traceback for each."""

    def connect(self, address: Any) -> None:
        try:
            super().connect(address)
        except ssl.SSLError as error:
            raise self._remembered(error) from None
        except OSError as error:
            if self._sslobj is not None:  # type: ignore[attr-defined] # connected, and closed within the handshake
                raise self._remembered(error) from None
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """b"" also when the other side ended it with an alert: in TLS 1.3 it says only now that it does not like our certificate."""
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            self._remembered(error)
        except ConnectionError:
            self._client_context().fault = "it closed the connection after the handshake: does it take our certificate?"
        return b""

    def _remembered(self, error: OSError) -> ConnectionError:
        self._client_context().fault = in_words(error)
        return ConnectionError(self._client_context().fault)

    def _client_context(self) -> ClientContext:
        assert isinstance(self.context, ClientContext)
        return self.context


#: OpenSSL's reasons as a peer causes them; those that are not here are said as OpenSSL has them.
_REASONS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it speaks HTTP without TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS of version 1.2 or later",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS of version 1.2 or later",
    "NO_SHARED_CIPHER": "it knows none of our cipher suites",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take our certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses the handshake; perhaps it asks for a certificate that we do not have",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for our certificate, and we have none",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection within the handshake: does it speak TLS?",
}


def in_words(error: OSError) -> str:
    """Why a TLS connection failed, of the other side as "it"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message or error.reason})"
    if isinstance(error, ssl.SSLEOFError):
        return _REASONS["UNEXPECTED_EOF_WHILE_READING"]
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        return f"{_REASONS[reason]} ({reason})" if reason in _REASONS else reason
    if isinstance(error, TimeoutError):
        return "it does not go on with the handshake"
    return f"it closed the connection within the handshake ({error.strerror or error}): does it speak TLS?"


def load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Our certificate with its chain, and its key. Raises TlsUnusable."""
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except ssl.SSLError as error:
        why = error.reason or str(error)
        raise TlsUnusable(f"{certificate} and {key} are not a certificate in PEM and its key without passphrase ({why})") from error
    except OSError as error:
        raise TlsUnusable(f"{certificate} or {key} cannot be read: {error.strerror}") from error


def load_authority(context: ssl.SSLContext, authority: str) -> None:
    """Whose certificates are believed. Raises TlsUnusable."""
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise TlsUnusable(f"{authority} holds no certificate in PEM ({error.reason or error})") from error
    except OSError as error:
        raise TlsUnusable(f"{authority} cannot be read: {error.strerror}") from error


def _no_passphrase() -> str:
    """OpenSSL would ask for one on the terminal."""
    return ""
