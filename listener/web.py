"""The HTTP application put together: health, DICOMweb, and what every answer has in common (PS3.18 8; RFC 9110).

No answer and no log line carries a patient's data that was not asked for: queries are not logged, error texts are our own words.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from listener import dicomweb, openapi, stow
from listener.audit import path_told
from listener.connection import Connection
from listener.door import Access, Door
from listener.garbage import keep_what_is_here
from listener.tls import Certificate
from listener.users import Role
from listener.who import at_least
from store.database import DatabaseAway, NoConnection
from store.search import Search

logger = logging.getLogger(__name__)

#: STOW-RS and files that people drop have limits of their own.
MAX_BODY_BYTES = 1024 * 1024
MAX_QUERY_BYTES = 8192

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # results name patients: no proxy and no browser keeps a copy
    "Cache-Control": "no-store",
    # pages have scripts and styles in files of their own, and nothing comes from elsewhere
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: Over TLS alone: a browser that was here once never comes without it again (RFC 6797).
_HSTS = "max-age=31536000"
#: What a viewer of another origin sends and reads with DICOMweb beside what browsers always allow (PS3.18 8.4).
_CORS_REQUEST_HEADERS = ("Accept", "Authorization", "Content-Type")
_CORS_ANSWER_HEADERS = ("Content-Location", "Location", "Retry-After", "Warning", "WWW-Authenticate", "X-Fourview-Notice")


class CannotListen(Exception):
    """The address for HTTP cannot be had; the text says which and what to do."""


def create_app(
    *,
    results: Search,
    file_path: Callable[[str], Path],
    ready: Callable[[], list[str]],
    notices: Callable[[], list[str]] = list,
    metrics: Callable[[], tuple[bytes, str]] | None = None,
    entrance: stow.Entrance | None = None,
    routers: Sequence[APIRouter] = (),
    access: Access = Access(),  # noqa: B008 - a frozen value
) -> FastAPI:
    """The application. `file_path` finds the file that a stored object names; `ready` returns what keeps us from working, in words,
    `notices` what a person must see to all the same; `metrics` what Prometheus reads, and its content type. Without an
    `entrance` nothing is stored; `routers` are further routes, each of which says whom it answers (`listener.who`); `access` says who may
    come in."""
    # the pages of /docs and /redoc load scripts from elsewhere, which a hospital's network does not reach
    app = FastAPI(title="Fourview", version=_version(), docs_url=None, redoc_url=None)
    # The last one is the outermost.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES)
    app.add_middleware(Door, access=access)
    if access.origins:
        # Around the door: a browser asks beforehand, and without a password, what it may ask.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(access.origins),
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_ANSWER_HEADERS,
            allow_credentials=True,
        )
    app.add_middleware(Shield)
    app.add_exception_handler(RequestValidationError, _refuse_without_echo)
    for away in (DatabaseAway, NoConnection):
        app.add_exception_handler(away, _come_back_later)
    stores = [stow.create_router(entrance)] if entrance is not None else []
    everywhere = [dicomweb.create_router(results, file_path), *stores, *routers]
    for router in everywhere:
        app.include_router(router)
    app.add_exception_handler(405, _not_allowed([app.router, *everywhere]))

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok", "version": _version()}

    @app.get("/readyz", responses={503: {"description": "What is missing, in words"}})
    def readyz() -> JSONResponse:
        """Whether a study that comes now would be kept and read; `notices` are for a person and change nothing about that."""
        complaints = ready()
        content = {"ready": not complaints, "complaints": complaints, "notices": notices()}
        return JSONResponse(content, status_code=503 if complaints else 200)

    if metrics is not None:

        @app.get("/metrics", include_in_schema=False, dependencies=[Depends(at_least(Role.VIEWER))])
        def _metrics() -> Response:
            """What Prometheus reads; it names no patient and no study."""
            content, content_type = metrics()
            return Response(content, headers={"Content-Type": content_type})

    openapi.describe(app)
    return app


def run(
    app: ASGIApp,
    host: str,
    port: int,
    stopped: threading.Event,
    *,
    certificate: Certificate | None = None,
    trusted_proxies: Sequence[str] = (),
) -> None:
    """Serve `app` until SIGINT or SIGTERM, or until `stopped`. Raises CannotListen at once when the address cannot be had.

    uvicorn raises the signal again at its end: the caller's handler must be one that returns, as that of `until_told_to_stop`.
    """
    server = _Server(configured(app, certificate, trusted_proxies), stopped)
    keep_what_is_here()

    def stop() -> None:
        stopped.wait()  # told before uvicorn listened to signals
        server.should_exit = True

    with listening_socket(host, port) as sock:
        threading.Thread(target=stop, name="stop", daemon=True).start()
        logger.info("listening host=%s port=%d tls=%s", host, port, "yes" if certificate is not None else "no")
        if certificate is not None:
            threading.Thread(target=certificate.watch, args=[stopped], name="certificate", daemon=True).start()
        server.run(sockets=[sock])


class _Server(uvicorn.Server):
    """uvicorn takes the signals to itself; what waits in a request for others is told as well, or all would wait for it."""

    def __init__(self, config: uvicorn.Config, stopped: threading.Event) -> None:
        super().__init__(config)
        self._stopped = stopped

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to end."""
        self._stopped.set()
        super().handle_exit(sig, frame)


def configured(app: ASGIApp, certificate: Certificate | None = None, trusted_proxies: Sequence[str] = ()) -> uvicorn.Config:
    """uvicorn as we want it: the logs are the process's own, and URLs, which may hold names, are in none of them. Who the client is
    (X-Forwarded-For, X-Forwarded-Proto) is believed only of `trusted_proxies`."""
    return uvicorn.Config(
        app,
        http=Connection,  # h11 bounds headers, whatever else is installed
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        ssl_context_factory=(lambda config, default: certificate.context) if certificate is not None else None,
    )


def listening_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens on `host` and `port`; port 0 takes a free one. Raises CannotListen."""
    try:
        sock = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    except OSError as problem:
        why = str(problem.strerror or problem).partition(" (while")[0]  # Python repeats the address there
        raise CannotListen(
            f"cannot listen for HTTP on {host} port {port}: {why}; stop what uses it or change [http] host and port"
        ) from problem
    # asyncio sets this only where the protocol is named, which sockets made so are not. Accepted connections inherit it; without it each
    # answer of a kept connection waits 40 ms for the acknowledgement of its own headers.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Shield:
    """Around everything: common headers, a limit for the URL, one log line per request, and the last word when something breaks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", _HSTS)
            await send(message)

        try:
            refused = _refused_as_sent(scope)
            await (self._app if refused is None else refused)(scope, receive, send_with_headers)
        except Exception as problem:  # noqa: BLE001 - the message of an exception may quote a patient's data: here is the last place to drop it
            logger.error("event=http_failed error=%s at=%s", type(problem).__name__, _place(problem))
            if not status:
                await _problem(500, "something went wrong here; the log of the service says where")(scope, receive, send_with_headers)
        finally:
            path = path_told(scope)
            seconds = time.monotonic() - started
            # A load balancer or Prometheus asks these all the time; their answers are for it, not for the log.
            level = logging.DEBUG if path in ("/healthz", "/readyz", "/metrics") else logging.INFO
            logger.log(level, "event=http method=%s path=%s status=%d duration_seconds=%.3f", scope["method"], path, status, seconds)


def _refused_as_sent(scope: Scope) -> Response | None:
    """The answer to a request that is refused before anybody asks who sends it."""
    if len(scope["query_string"]) > MAX_QUERY_BYTES:
        return _problem(414, f"the query is longer than {MAX_QUERY_BYTES} bytes")
    headers = Headers(scope=scope)
    if "content-length" in headers and "transfer-encoding" in headers:
        # RFC 9112 6.1: a proxy before us that believes the other one would take a part of this body for a request of somebody else.
        refused = _problem(400, "a body has a Content-Length or a Transfer-Encoding, not both")
        refused.headers["Connection"] = "close"
        return refused
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        # RFC 9110 12.5.3. A kilobyte that was packed may be a gigabyte.
        refused = _problem(415, "send the body without Content-Encoding")
        refused.headers["Accept-Encoding"] = "identity"
        return refused
    return None


def _refuse_without_echo(request: Request, problem: Exception) -> JSONResponse:
    """400 that names the parameters, not their values, which FastAPI's own answer repeats."""
    errors = problem.errors() if isinstance(problem, RequestValidationError) else []
    return _problem(400, "; ".join(f"{_named(error)}: {error['type']}" for error in errors))


def _named(error: Mapping[str, Any]) -> str:
    """Which part of a request is wrong. A name that we do not know is the client's own word, as are the keys of what it sends."""
    where = [str(part) for number, part in enumerate(error["loc"]) if number < 2 or isinstance(part, int)]
    return ".".join([*where[:-1], "(an unknown name)"] if error["type"] == "extra_forbidden" else where)


def _not_allowed(routers: Sequence[APIRouter]) -> Callable[[Request, Exception], JSONResponse]:
    """405 with the methods of all routes of the path: Starlette knows only those of the first one that fits."""

    def answer(request: Request, problem: Exception) -> JSONResponse:
        routes = [one for router in routers for one in router.routes if isinstance(one, Route)]
        fitting = [one.methods or () for one in routes if one.path_regex.match(request.scope["path"])]
        response = _problem(405, "this path has no such method")
        response.headers["Allow"] = ", ".join(sorted({method for methods in fitting for method in methods}))
        return response

    return answer


def _come_back_later(request: Request, problem: Exception) -> JSONResponse:
    logger.error("event=database_away error=%s at=%s", type(problem).__name__, _place(problem))
    response = _problem(503, "the database does not answer; try again in a few seconds")
    response.headers["Retry-After"] = "5"
    return response


def _problem(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status)


def _place(problem: BaseException) -> str:
    frames = traceback.extract_tb(problem.__traceback__)[-3:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))


def _version() -> str:
    try:
        return version("fourview")
    except PackageNotFoundError:
        return "unknown"  # run from a checkout that was never installed
