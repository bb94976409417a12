"""The acceptance kit, our doors: who reaches us over DICOM and HTTP, and whether we answer there, or can."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx

from listener import parts
from listener.config import Config
from listener.config_http import is_loopback
from listener.finding import Finding
from listener.serve import CannotServe, probe_port
from listener.tls import BadCertificate, expiry, first_certificate
from pipeline.send import Pacs, echo
from pipeline.tls import in_words
from store.condition import Facts

#: Where we reach ourselves when we listen on every interface.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, nothing is bound
HTTP_SECONDS = 10.0
TLS_SECONDS = 10.0


def doors(config: Config, facts: Facts | None) -> Iterator[Finding]:
    """Ports and addresses; `facts` says which of our processes live, None when the database does not tell."""
    if is_loopback(config.dicom.host):
        note = "note: no other machine can send to us; set [dicom] host to change that"
        yield Finding(True, f"[dicom] host is {config.dicom.host}", note)
    yield from _dicom_tls(config)
    yield _port(config.dicom.host, config.dicom.port, "dicom", _lives(facts, "receive"), lambda: _dicom_answers(config))
    yield from _http(config)
    yield _port(config.http.host, config.http.port, "http", _lives(facts, "web"), lambda: _http_answers(config))


def _lives(facts: Facts | None, role: str) -> bool | None:
    """Whether such a process of ours lives on this host; None: nobody knows."""
    return None if facts is None else any(one.process.startswith(f"{socket.gethostname()}:") for one in facts.living(role))


def _port(host: str, port: int, table: str, lives: bool | None, answers: Callable[[], str]) -> Finding:
    """Free while nothing of ours runs here, answered by us while it does. `answers`: why it is not us, or ""."""
    what = f"port {port} ([{table}] port)"
    try:
        probe_port(host, port, f"[{table}] port")
    except CannotServe as taken:
        why = answers()
        if why:
            return Finding(False, what, f"{taken}. Who listens there is not this installation: {why}")
        if lives is False:
            remedy = (
                "Fourview answers there, but nothing of this database runs on this host: was it started just now, try again in a minute; "
                f"else stop the other one, or set [{table}] port"
            )
            return Finding(False, what, remedy)
        return Finding(True, f"{what} is answered by us")
    if lives:
        return Finding(False, what, "a process of ours lives on this host, but nobody listens there: see its log, and start it again")
    return Finding(True, f"{what} is free, nothing of ours listens here now")


def _dicom_answers(config: Config) -> str:
    dicom = config.dicom
    if dicom.tls_certificate:
        return _shows_our_certificate(config)
    ourselves = Pacs(name="fourview", ae_title=dicom.ae_title, host=_EVERYWHERE.get(dicom.host, dicom.host), port=dicom.port)
    answer = echo(ourselves, dicom.accept_from[0] if dicom.accept_from else dicom.ae_title)
    return "" if answer.ok else answer.reason


def _shows_our_certificate(config: Config) -> str:
    """Why who listens for DICOM is not us, or ""; more than its certificate it may tell nobody who has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # in which it is shown before ours is asked for
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whose it is, is what is asked
    host = _EVERYWHERE.get(config.dicom.host, config.dicom.host)
    try:
        with (
            socket.create_connection((host, config.dicom.port), timeout=TLS_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as encrypted,
        ):
            shown = encrypted.getpeercert(binary_form=True)
        ours = first_certificate(Path(config.dicom.tls_certificate))
    except OSError as error:
        return f"TLS: {in_words(error)}"
    except BadCertificate as problem:
        return str(problem)
    return "" if shown == ours else "its certificate is another than that of [dicom] tls_certificate"


def _dicom_tls(config: Config) -> Iterator[Finding]:
    dicom = config.dicom
    if not dicom.tls_certificate:
        if not is_loopback(dicom.host):
            note = "note: images can be read on the way, and anybody can send; [dicom] tls_certificate, or a network of its own"
            yield Finding(True, "DICOM without TLS", note)
        return
    try:
        parts.dicom_certificate(config)
    except BadCertificate as problem:
        yield Finding(False, "TLS of DICOM", str(problem))
        return
    note = "" if dicom.tls_client_authority else "note: whoever reaches the port can send; [dicom] tls_client_authority names who may"
    yield Finding(True, f"TLS of DICOM with {dicom.tls_certificate}", note)
    yield from expiry("TLS of DICOM", Path(dicom.tls_certificate), datetime.now(UTC))


def _http_answers(config: Config) -> str:
    host = _EVERYWHERE.get(config.http.host, config.http.host)
    address = f"[{host}]" if ":" in host else host
    scheme = "https" if config.http.certificate else "http"
    try:
        # Whose certificate it is, is not asked of our own process.
        url = f"{scheme}://{address}:{config.http.port}/healthz"
        answer = httpx.get(url, timeout=HTTP_SECONDS, trust_env=False, verify=False)  # nosec B501 # noqa: S501 - ourselves, no secret goes there
        said = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        return f"/healthz is not answered as we do ({type(error).__name__})"
    return "" if isinstance(said, dict) and {"status", "version"} <= set(said) else "/healthz is not answered as we do"


def _http(config: Config) -> Iterator[Finding]:
    """Who can reach what over HTTP. What a site may want so, behind a proxy or in a closed network, is a warning."""
    http, users = config.http, len(config.users)
    what = f"[http] host is {http.host}, {users} may log in" if users else f"[http] host is {http.host}, nobody has to log in"
    if http.certificate:
        try:
            parts.certificate(config)
        except BadCertificate as problem:
            yield Finding(False, "TLS", str(problem))
        else:
            yield Finding(True, f"TLS with {http.certificate}")
            yield from expiry("TLS", Path(http.certificate), datetime.now(UTC))
    if is_loopback(http.host):
        yield Finding(True, what, "" if users else "note: whoever has an account on this machine can do what an admin may")
        return
    warnings = []
    if not users:
        warnings.append("allow_unauthenticated: whoever reaches this address reads patient data and can do what an admin may")
    if not http.certificate:
        carried = "patient data and passwords" if users else "patient data"
        warnings.append(f"no TLS: {carried} can be read on the way; set certificate and key, or keep the way to a proxy with TLS closed")
    yield Finding(True, what, "\n     ".join(f"WARNING: {warning}" for warning in warnings))
