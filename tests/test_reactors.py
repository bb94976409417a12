"""pynetdicom's threads wait for what there is to do: they look no more, and are woken by everything that happens."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mammograms_made import mammogram
from pdus_made import A_ABORT, association_request, c_echo, read_pdu
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation as MG
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from listener import reactors
from listener.scp import StorageScp
from store.archive import Kept, Reception
from store.files import Files

PATIENCE_SECONDS = 60
#: Far longer than a test waits: only what rings is noticed.
NEVER_SECONDS = 600.0


class Keeping:
    def keep(self, reception: Reception) -> Kept:
        return Kept.NEW


@pytest.fixture
def scp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageScp]:
    monkeypatch.setattr(tempfile, "tempdir", None)  # restored after the test: StorageScp sets it for the process
    one = StorageScp(ae_title="FOURVIEW", host="127.0.0.1", port=0, archive=Keeping(), files=Files(tmp_path / "files")).start()
    yield one
    one.shutdown(grace_seconds=0.1)


def associated(scp: StorageScp) -> Any:
    ae = AE(ae_title="SENDER")
    ae.acse_timeout = ae.dimse_timeout = PATIENCE_SECONDS
    contexts = [build_context(MG, ExplicitVRLittleEndian), build_context(Verification)]
    assoc = ae.associate("127.0.0.1", scp.port, contexts=contexts, ae_title="FOURVIEW")
    assert assoc.is_established
    return assoc


def raw(scp: StorageScp) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", scp.port), timeout=PATIENCE_SECONDS)
    connection.sendall(association_request(called="FOURVIEW"))
    assert read_pdu(connection)[0] == 0x02, "A-ASSOCIATE-AC"
    return connection


def until(condition: Callable[[], Any]) -> Any:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    return found


def switches(thread: threading.Thread) -> int:
    """How often it went to sleep so far."""
    lines = Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_an_idle_association_sleeps(scp: StorageScp) -> None:
    with raw(scp):
        (assoc,) = until(lambda: [one for one in scp._ae.active_associations if one.is_established])
        threads = [assoc, assoc.dul]
        before = [switches(thread) for thread in threads]
        time.sleep(1)
        after = [switches(thread) for thread in threads]
        # Four looks a second and what hangs together with them, not 900 even on a busy machine some hundred.
        assert all(late - early < 50 for early, late in zip(before, after, strict=True)), (before, after)


def test_whatever_happens_rings(scp: StorageScp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactors, "LOOK_SECONDS", NEVER_SECONDS)
    assoc = associated(scp)
    assert assoc.send_c_echo().Status == 0x0000
    assert [assoc.send_c_store(mammogram(image=str(number))).Status for number in range(3)] == [0x0000] * 3
    assoc.release()
    assert assoc.is_released
    until(lambda: not scp._ae.active_associations)


@pytest.mark.parametrize("how", ["closed", "aborted", "half a PDU"])
def test_the_end_of_a_peer_rings(scp: StorageScp, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(reactors, "LOOK_SECONDS", NEVER_SECONDS)
    with raw(scp) as connection:
        connection.sendall({"closed": b"", "aborted": A_ABORT, "half a PDU": b"\x04\x00\x00"}[how])
    until(lambda: not scp._ae.active_associations)


def test_a_shutdown_rings(scp: StorageScp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactors, "LOOK_SECONDS", NEVER_SECONDS)
    with raw(scp) as connection:
        scp.shutdown(grace_seconds=0.1)
        with pytest.raises(ConnectionError):
            while read_pdu(connection)[0] == 0x07:
                pass
    until(lambda: not scp._ae.active_associations)


def test_two_messages_at_once_are_both_served(scp: StorageScp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second was there before the first was answered: nothing rings for it afterwards."""
    monkeypatch.setattr(reactors, "LOOK_SECONDS", NEVER_SECONDS)
    with raw(scp) as connection:
        connection.sendall(c_echo() * 5)
        assert [read_pdu(connection)[0] for _ in range(5)] == [0x04] * 5
