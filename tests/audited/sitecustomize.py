"""First on a test's PYTHONPATH: every process logs all that it can, and writes beside its log another one without the filter (AUDIT_RAW);
what stands in the file AUDIT_SURPRISES is what some of our functions fail with."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBRARIES = (
    "pynetdicom",
    "pydicom",
    "dbos",
    "uvicorn",
    "sqlalchemy",
    "httpx",
    "httpcore",
    "urllib3",
    "dicomweb_client",
    "asyncio",
    "highdicom",
)


def hear_all(raw: str) -> None:
    import listener.logs as logs

    configure = logs.configure

    def configured(level: str = "INFO", **more: Any) -> None:
        configure("DEBUG", **more)
        unfiltered = logging.FileHandler(raw)
        unfiltered.setFormatter(logging.Formatter("%(name)s %(message)s"))
        logging.getLogger().addHandler(unfiltered)
        for name in LIBRARIES:
            library = logging.getLogger(name)
            library.setLevel(logging.DEBUG)
            library.setLevel = lambda level: None  # type: ignore[method-assign]
        filtered = warnings.showwarning

        def show(message: Any, *where: Any, **others: Any) -> None:
            unfiltered.stream.write(f"{message}\n")
            unfiltered.stream.flush()
            filtered(message, *where, **others)

        warnings.showwarning = show

    logs.configure = configured


def surprise(words: str) -> None:
    """The first call of what a worker does fails, and every page of the study 1.2.3.4."""
    import pipeline.alert
    from pipeline import conclude, deliver, read
    from store.search import Search

    pipeline.alert.ALERT_SECONDS = 3.0

    def once(function: Callable[..., Any]) -> Callable[..., Any]:
        calls = []

        def failing(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == 1:
                raise ValueError(words)
            return function(*arguments, **named)

        return failing

    read.read_image = once(read.read_image)
    conclude.conclude = once(conclude.conclude)
    deliver.deliver = once(deliver.deliver)
    study = Search.study

    def failing(self: Search, study_instance_uid: str, *arguments: Any, **named: Any) -> Any:
        if study_instance_uid == "1.2.3.4":
            raise ValueError(words)
        return study(self, study_instance_uid, *arguments, **named)

    Search.study = failing  # type: ignore[method-assign]


if path := os.environ.get("AUDIT_RAW"):
    hear_all(path)
    if "listener.cli" in sys.orig_argv and {"work", "web"} & set(sys.orig_argv):
        surprise(Path(os.environ["AUDIT_SURPRISES"]).read_text())
