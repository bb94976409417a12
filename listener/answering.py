"""What the web process answers with: everything behind its address, made from the configuration, and made anew when it changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from zoneinfo import ZoneInfo

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from listener import api, dashboard, dropped, parts, reference_api, stow
from listener.config import Config
from listener.desk import Desk
from listener.garbage import keep_what_is_here
from listener.keeping import kept_for
from listener.metrics import exposition
from listener.on_demand import Reader
from listener.pages import Pages
from listener.pictures import Pictures
from listener.web import create_app
from pipeline.chores import Chore
from pipeline.figures import Figures
from store.study import Policy


class _Made:
    """All of it by one configuration; `policy` is the site's, as it was read when the process started."""

    def __init__(
        self,
        config: Config,
        figures: Figures,
        stopped: threading.Event,
        ready: Callable[[], list[str]],
        notices: Callable[[], list[str]],
        before: Callable[[], Policy] | None,
    ) -> None:
        desk, search, files = Desk(config), parts.open_search(config), parts.open_files(config)
        self.watch = watch = parts.open_watch(config)
        self.policy = parts.site_policy(config, before)
        release = version("fourview")
        entrance = stow.Entrance(
            archive=parts.open_archive(config),
            files=files,
            kept=kept_for(parts.image_kinds(config)),
            ae_title=config.dicom.ae_title,
            strict=config.dicom.strict,
            figures=figures,
        )
        self.reader = Reader(config, parts.open_on_demand(config), files, self.policy, figures, stopped)
        pages = Pages(zone=ZoneInfo(config.site.timezone), language=config.site.language, version=release)
        self.application = create_app(
            results=search,
            file_path=files.path,
            ready=ready,
            notices=notices,
            metrics=exposition(watch.condition.facts, watch.free_bytes, watch.limits.min_free_bytes, release),
            entrance=entrance if config.http.stow else None,
            routers=[
                reference_api.create_router(self.reader, ready),
                dropped.create_router(self.reader, files, figures),
                api.create_router(desk, stopped),
                dashboard.create_router(desk, Pictures(search, files), pages),
            ],
            access=parts.access(config),
        )


class Answering:
    """An ASGI application: each request is answered by the configuration that was in force when it came, to its end."""

    def __init__(
        self,
        config: Config,
        figures: Figures,
        stopped: threading.Event,
        *,
        ready: Callable[[], list[str]],
        notices: Callable[[], list[str]],
    ) -> None:
        self._make = partial(_Made, figures=figures, stopped=stopped, ready=ready, notices=notices)
        self._made = self._make(config, before=None)
        self._site = self._made.policy  # with the card that this process started with
        self._readers = [self._made.reader]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.application(scope, receive, send)

    @property
    def application(self) -> FastAPI:
        """What answers a request that comes now."""
        return self._made.application

    def prepare(self, config: Config) -> Callable[[], None]:
        """What puts another configuration into force for the requests that come from then on. Raises ModelError, DatabaseAway."""
        made = self._make(config, before=self._site)

        def put_into_force() -> None:
            self._made = made
            self._readers = [*(one for one in self._readers if one.fetching), made.reader]
            keep_what_is_here()

        return put_into_force

    def chores(self) -> tuple[Chore, ...]:
        """What is done now and then beside the answering."""
        return self._made.watch.chores()

    @property
    def fetching(self) -> bool:
        """Whether a thread still waits for Orthanc."""
        return any(one.fetching for one in self._readers)
