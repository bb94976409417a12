"""Logs without patient data: one line per event on standard error, as JSON for machines or as text on a terminal.

Our own modules write `log.info("instance kept sop_instance_uid=%s seconds=%.3f", ...)`; the `key=value` words become fields. They never
write names, birth dates or accession numbers. Libraries do not promise that: pydicom's warnings quote element values, exceptions quote
what they choked on, access logs hold queries. So the texts of others are shown only where they cannot hold a data set's values:

- library loggers speak from WARNING on, and those of `_QUOTING` without their text;
- Python warnings are lines of level DEBUG that say category and place, without their text;
- tracebacks show frames and exception types; the exception's own text only for our exceptions and for those of the operating system.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from typing import TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from listener.held_back import HeldBack

_OUR_PACKAGES = ("listener", "pipeline", "store")

#: Libraries whose messages quote element values or exceptions.
_QUOTING = ("pydicom", "asyncio", "dicomweb_client")

_FIELD = re.compile(r"""(?<!\S)([a-z][a-z0-9_]*)=("[^"]*"|'[^']*'|\S+)""")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_WITHHELD = "text withheld, it may quote patient data"

_warnings_log = logging.getLogger("warnings")


def configure(level: str = "INFO", *, json: bool, stream: TextIO | None = None) -> None:
    """Make every log record, warning and uncaught exception of this process one line on `stream` (default: standard error).

    `level` is DEBUG, INFO, WARNING or ERROR and is that of our own modules. `json` gives one JSON object per line with `timestamp`
    (UTC, ISO 8601), `level`, `logger`, `event` and the event's fields.
    """
    renderer: structlog.typing.Processor
    renderer = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=False)
    handler = _Handler(stream)
    handler.addFilter(_is_ours_or_serious)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                _withhold,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _exception_without_values,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _fields,
                renderer,
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # DBOS prints by itself unless its logger has a handler when it starts.
    logging.getLogger("dbos").addHandler(logging.NullHandler())
    if not sys.warnoptions:
        # "default" would remember every warning's text, and so patient data, for as long as the process lives.
        warnings.simplefilter("always")
    warnings.showwarning = _log_warning
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda failure: _log_uncaught(failure.exc_type, failure.exc_value, failure.exc_traceback)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes no more of what strangers cause than anybody reads."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._held_back = HeldBack()

    def emit(self, record: logging.LogRecord) -> None:
        for late in self._held_back.due(record.created):
            super().emit(late)
        if self._held_back.passes(record):
            super().emit(record)


def _is_ours_or_serious(record: logging.LogRecord) -> bool:
    package = record.name.partition(".")[0]
    if package in _OUR_PACKAGES or record.name == _warnings_log.name:
        return True
    return record.levelno >= (logging.ERROR if package in _QUOTING else logging.WARNING)


def _withhold(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    if record.name.partition(".")[0] in _QUOTING or isinstance(record.msg, BaseException):
        event["event"] = f"{_WITHHELD} at={record.module}:{record.lineno}"
    return event


def _fields(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Take the `key=value` words out of the event's text, which stays one line whatever a peer put into it."""

    def take(found: re.Match[str]) -> str:
        if found[1] in event:
            return found[0]
        event[found[1]] = found[2].strip("'\"")
        return ""

    text = _CONTROLS.sub(" ", str(event["event"]))
    event["event"] = " ".join(_FIELD.sub(take, text).split())
    if uid := event.get("study_instance_uid"):
        event["study"] = study_digest(str(uid))
    return event


def study_digest(study_instance_uid: str) -> str:
    """The first 16 hex digits of the SHA-256 of a Study Instance UID: lines still belong together where the UIDs were taken out."""
    return hashlib.sha256(study_instance_uid.encode()).hexdigest()[:16]


def _exception_without_values(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    exc_info = event.pop("exc_info", None)
    if exc_info:
        error = exc_info if isinstance(exc_info, BaseException) else exc_info[1] if isinstance(exc_info, tuple) else sys.exception()
        if error is not None:
            event["exception"] = "\n".join(_described(error))
    return event


def _described(error: BaseException) -> Iterator[str]:
    """The lines of a traceback, causes first."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _described(cause)
        yield "then:"
    yield from (line.rstrip() for line in traceback.format_tb(error.__traceback__))
    kind = type(error)
    ours = kind.__module__.partition(".")[0] in _OUR_PACKAGES
    yield f"{kind.__module__}.{kind.__qualname__}: {error if ours or isinstance(error, OSError) else _WITHHELD}"
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield "one of its parts:"
            yield from _described(inner)


def _log_warning(message: object, category: type[Warning], filename: str, lineno: int, file: object = None, line: object = None) -> None:
    _warnings_log.debug("a library warned category=%s at=%s:%d", category.__name__, filename, lineno)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: object) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger("listener").critical("uncaught exception ended a thread or the process", exc_info=error)
