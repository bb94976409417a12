"""docs/conformance.md says what the code says: its tables, its paths, and who we are in an association."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import conformance_tables
from conformance_tables import DOCUMENT, TABLES, resources, tables_in
from pydicom.uid import UID
from pynetdicom import AE, evt
from reports_made import made_report
from starlette.routing import Route

from listener import dicomweb, stow
from listener.scp import VERIFICATION, StorageScp
from pipeline.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pipeline.report import build
from pipeline.report.uids import derived_uid
from pipeline.send import Pacs, echo
from store.files import Files

TEXT = DOCUMENT.read_text("utf-8")


def test_every_table_stands_in_the_document_once() -> None:
    assert re.findall("<!-- table: (.*?) -->", TEXT) == list(dict.fromkeys(re.findall("<!-- table: (.*?) -->", TEXT)))
    assert set(tables_in(TEXT)) == set(TABLES)


def test_tables_say_what_the_code_says_and_a_change_by_hand_is_noticed() -> None:
    """One test, so that one process builds the reports that the tables are read from."""
    made = {name: make() for name, make in TABLES.items()}
    differing = [name for name, text in tables_in(TEXT).items() if text != made[name]]
    assert differing == [], "the code changed: python tests/conformance_tables.py --write, and read what changed"
    spoilt = TEXT.replace("0xA900", "0xA901", 1)
    assert [name for name, text in tables_in(spoilt).items() if text != made[name]] == ["store SCP statuses"]
    assert conformance_tables.written(spoilt) == TEXT


def test_the_outline_is_that_of_the_template() -> None:
    chapters = re.findall(r"(?m)^## (\d+) (.*)$", TEXT)
    assert [number for number, _ in chapters] == [str(number) for number in range(1, 10)]
    for heading in (
        "Implementation model",
        "AE specifications",
        "Network interfaces",
        "Configuration",
        "IOD contents of created SOP instances",
    ):
        assert re.search(rf"(?m)^### [\d.]+ {heading}", TEXT), heading


def test_every_web_resource_is_named_with_its_methods(tmp_path: Path) -> None:
    """The routers' own paths; HEAD goes with GET."""
    given = {"{study_instance_uid}": "{study}", "{series_instance_uid}": "{series}", "{sop_instance_uid}": "{instance}"}
    methods: dict[str, set[str]] = {}
    entrance = stow.Entrance(archive=None, files=Files(tmp_path), kept=frozenset(), ae_title="X")  # type: ignore[arg-type] # never asked
    for router in (dicomweb.create_router(None, tmp_path.joinpath), stow.create_router(entrance)):  # type: ignore[arg-type] # never asked
        for route in router.routes:
            assert isinstance(route, Route)
            path = route.path.removeprefix(dicomweb.PREFIX)
            for ours, theirs in given.items():
                path = path.replace(ours, theirs)
            methods.setdefault(path, set()).update((route.methods or set()) - {"HEAD"})
    assert {path: ", ".join(sorted(found)) for path, found in methods.items()} == resources()


def test_one_implementation_class_in_files_and_in_associations(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """PS3.7 D.3.3.2: who we are is told by either side of an association, and in the file meta information."""
    assert derived_uid("fourview", "implementation") == IMPLEMENTATION_CLASS_UID
    assert build(made_report())[0].ds.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    told: list[tuple[UID | None, str | None]] = []
    peer = AE(ae_title="PEER")
    peer.add_supported_context(VERIFICATION)
    port = free_port()

    def requested(event: evt.Event) -> None:
        told.append((event.assoc.requestor.implementation_class_uid, event.assoc.requestor.implementation_version_name))

    server = peer.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_REQUESTED, requested)])
    assert server is not None
    assert echo(Pacs(name="peer", ae_title="PEER", host="127.0.0.1", port=port), "FOURVIEW").ok
    server.shutdown()
    files = Files(tmp_path)
    with StorageScp(ae_title="FOURVIEW", host="127.0.0.1", port=0, archive=None, files=files) as scp:  # type: ignore[arg-type] # never asked
        caller = AE(ae_title="CALLER")
        caller.add_requested_context(VERIFICATION)
        assoc = caller.associate("127.0.0.1", scp.port, ae_title="FOURVIEW")
        assert assoc.is_established
        told.append((assoc.acceptor.implementation_class_uid, assoc.acceptor.implementation_version_name))
        assoc.release()
    assert told == [(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)] * 2
