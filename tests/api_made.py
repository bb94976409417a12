"""An installation of which people ask: a filled store, its configuration, the command line and the JSON API on it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fourview_process import SIMULATED_CARD
from mammograms_made import uid
from serving import serving
from stepped_store import SteppedStore, exam, image
from typer.testing import CliRunner

from listener import api, cli
from listener.config import load
from listener.desk import Desk
from listener.door import Access
from listener.users import Role, User, Users
from listener.web import create_app
from store.study import HANGING_ORDER, View

USERS = Users([User(name=f"the {role}", role=role, token_hashes=(hashlib.sha256(role.encode()).digest(),)) for role in Role])
ANALYSED, HELD = uid("study"), uid("held")


class Asked:
    """`stepped` as people see it: `fourview` runs a command, `client` asks the API as a person of a role."""

    def __init__(self, stepped: SteppedStore, folder: Path, tables: str = "") -> None:
        self.stepped = stepped
        card = folder / "simulated.toml"
        card.write_text(SIMULATED_CARD)
        self.path = folder / "config.toml"
        self.path.write_text(f"""
[store]
database = "{stepped.engine.url.render_as_string(hide_password=False)}"
files = "{stepped.files.root}"
min_free_gib = 0.1
[model]
card = "{card}"
allow_untrained = true
[[pacs]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
url = "http://127.0.0.1:9"
[[rule]]
name = "screening"
when = 'Modality == "MG"'
action = "analyse"
send_to = ["pacs"]
{tables}
""")
        self.desk = Desk(load(self.path, {}))
        self.stopped = threading.Event()

    def fourview(self, *arguments: str, code: int = 0) -> Any:
        """What a command prints with --json."""
        done = CliRunner().invoke(cli.app, ["--config", str(self.path), *arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    @contextmanager
    def serve(self) -> Iterator[str]:
        """The address of the API."""
        app = create_app(
            results=self.stepped.search,
            file_path=self.stepped.files.path,
            ready=list,
            routers=[api.create_router(self.desk, self.stopped)],
            access=Access(users=USERS),
        )
        with serving(app) as url:
            yield url

    @contextmanager
    def client(self, role: Role = Role.ADMIN) -> Iterator[httpx.Client]:
        """Asks as a person of this role."""
        with self.serve() as url, person(url, role) as client:
            yield client


def person(url: str, role: Role) -> httpx.Client:
    return httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {role}"}, trust_env=False, timeout=120)


def fill(stepped: SteppedStore) -> None:
    """A study whose results one destination refused and that another waits for, one that is held, and what people and processes did."""
    stepped.receive(*exam())
    stepped.settle()
    [claim] = stepped.ledger.claim()
    first, *_ = stepped.begin(claim.workflow_id)
    stepped.ledger.refused(first.delivery_id, 0xA700, "the disk is full there")
    stepped.receive(
        *(image(view, "held", study="held") for view in HANGING_ORDER[1:]),
        image(View.R_CC, "held", study="held", PatientID="ANOTHER"),
    )
    stepped.settle()
    assert (stepped.study()["state"], stepped.search.study(HELD)["state"]) == ("analysed", "held")
