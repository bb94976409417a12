"""`fourview orthanc connect`, `init` at an Orthanc, and what `check` sees of a destination: with real Orthancs."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from fourview_process import SIMULATED_CARD
from mammograms_made import breast_pixels, mammogram
from odd_orthanc import STEERING, odd_orthanc
from orthanc_process import OrthancProcess
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from typer.testing import CliRunner

from listener.check_doors import doors
from listener.check_orthanc import destinations, observed_stable_age
from listener.cli import app
from listener.config import Config, load
from listener.connect import ConnectFailed, Script, connect, install, shipped, wanted
from listener.finding import Finding
from listener.orthanc_rest import OrthancRest, RestFailed
from pipeline.send import Pacs, negotiate
from store.study import View

DEPLOY = Path(__file__).parent.parent / "deploy" / "orthanc"

#: Bob may only read.
FILTER = """
function IncomingHttpRequestFilter(method, uri, ip, username, httpHeaders)
   return username ~= 'bob' or method == 'GET'
end
function OnStableSeries(seriesId, tags, metadata) end
"""


class GuardedOrthanc(OrthancProcess):
    """Asks for a password: alice may do everything."""

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url + "/system", timeout=1, trust_env=False, auth=("alice", "sesame")).is_success
        except httpx.HTTPError:
            return False


class Heard:
    """Who answers C-ECHO in our place, and who called."""

    def __init__(self) -> None:
        self.callers: list[str] = []
        ae = AE(ae_title="FOURVIEW")
        ae.require_called_aet = True
        ae.add_supported_context(Verification)
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, self._handle_echo)])
        self.port = int(self.server.socket.getsockname()[1])  # type: ignore[union-attr]

    def _handle_echo(self, event: evt.Event) -> int:
        self.callers.append(event.assoc.requestor.ae_title)
        return 0x0000


@pytest.fixture(scope="module")
def heard() -> Iterator[Heard]:
    heard = Heard()
    yield heard
    heard.server.shutdown()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, needs_program: Callable[[str], str]) -> Iterator[OrthancProcess]:
    """An Orthanc as Debian's: it runs no scripts for others, and forgets what REST writes."""
    process = OrthancProcess(
        tmp_path_factory.mktemp("plain"), program=needs_program("Orthanc"), dicomweb=False, extra={"ExecuteLuaEnabled": False}
    )
    yield process.start()
    process.kill()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, needs_program: Callable[[str], str]) -> Iterator[OrthancProcess]:
    """An Orthanc with a password, modalities in its database, Lua for everybody, and a user who may only read."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "filter.lua").write_text(FILTER)
    process = GuardedOrthanc(
        folder,
        program=needs_program("Orthanc"),
        ae_title="GUARDED",
        dicomweb=False,
        extra={
            "AuthenticationEnabled": True,
            "RegisteredUsers": {"alice": "sesame", "bob": "look"},
            "DicomModalitiesInDatabase": True,
            "LuaScripts": [str(folder / "filter.lua")],
            "StableAge": 700,
        },
    )
    yield process.start()
    process.kill()


@pytest.fixture
def config(tmp_path: Path, heard: Heard, plain: OrthancProcess) -> Config:
    """Ours: `heard` listens at our port."""
    (tmp_path / "card.toml").write_text(SIMULATED_CARD)
    path = tmp_path / "config.toml"
    path.write_text(f"""
[dicom]
port = {heard.port}
[store]
min_free_gib = 0.1
[model]
card = "card.toml"
allow_untrained = true
[[pacs]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {plain.dicom_port}
url = "{plain.url}"
[[rule]]
name = "all"
when = 'Modality == "MG"'
action = "analyse"
send_to = ["orthanc"]
""")
    yielded = load(path, {})
    for name in plain.get("/modalities"):
        plain.delete(f"/modalities/{name}")
    return yielded


def made(config: Config, **options: Any) -> list[Finding]:
    [pacs] = config.pacs
    return list(connect(config, pacs, wanted(config, pacs), **{"replace": False, "dry_run": False, **options}))


def seen(config: Config, *, listening: bool = True) -> dict[str, Finding]:
    return {finding.what: finding for finding in destinations(config, listening=listening)}


def part10(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def words(findings: list[Finding]) -> str:
    return "\n".join(f"{one.ok} {one.what} {one.remedy}" for one in findings)


def test_the_two_know_each_other_afterwards(config: Config, plain: OrthancProcess, heard: Heard) -> None:
    heard.callers.clear()
    findings = made(config)
    assert all(finding.ok for finding in findings), words(findings)
    entry = plain.get("/modalities", expand="true")["fourview"]
    assert (entry["AET"], entry["Host"], entry["Port"], entry["Timeout"]) == ("FOURVIEW", "127.0.0.1", heard.port, 60)
    assert heard.callers == ["ORTHANC"], "Orthanc has called us"
    assert "our C-ECHO to ORTHANC" in words(findings)
    assert "DicomModalitiesInDatabase" in words(findings) and f'"Port": {heard.port}' in words(findings), (
        "it does not say whether it keeps it"
    )
    again = made(config)
    assert "as it should be" in words(again) and "is written" not in words(again)


def test_a_dry_run_changes_nothing(config: Config, plain: OrthancProcess) -> None:
    assert "would be written" in words(made(config, dry_run=True))
    assert plain.get("/modalities") == []


def test_an_entry_that_differs_is_shown_and_replaced_only_when_told(config: Config, plain: OrthancProcess, heard: Heard) -> None:
    with OrthancRest(plain.url) as orthanc:
        orthanc.put("/modalities/fourview", {"AET": "FOURVIEW", "Host": "10.9.9.9", "Port": 104, "AllowFind": False})
        orthanc.put("/modalities/other", {"AET": "FOURVIEW", "Host": "10.9.9.9", "Port": 105})
    with pytest.raises(ConnectFailed) as refused:
        made(config)
    for difference in (
        'Host: "10.9.9.9" there, "127.0.0.1" wanted',
        f"Port: 104 there, {heard.port} wanted",
        "AllowFind: false",
        "--replace",
    ):
        assert difference in str(refused.value)
    assert plain.get("/modalities/fourview/configuration")["Port"] == 104
    findings = made(config, replace=True)
    assert all(finding.ok for finding in findings), words(findings)
    assert plain.get("/modalities/fourview/configuration")["Port"] == heard.port
    assert 'also an entry "other" with our AE title' in words(findings)


def test_a_caller_that_is_not_let_in_is_named(config: Config) -> None:
    closed = dataclasses.replace(config, dicom=dataclasses.replace(config.dicom, accept_from=("ROOM1",)))
    [pacs] = config.pacs
    findings = list(connect(closed, pacs, wanted(closed, pacs), replace=False, dry_run=False))
    assert "accept_from does not name ORTHANC" in words([finding for finding in findings if not finding.ok])


def test_nobody_listening_here_is_a_finding(config: Config, free_port: Callable[[], int]) -> None:
    deaf = dataclasses.replace(config, dicom=dataclasses.replace(config.dicom, port=free_port()))
    failed = [finding for finding in made(deaf) if not finding.ok]
    assert "C-ECHO to its modality" in words(failed) and "fourview serve" in words(failed)


def test_an_orthanc_elsewhere_cannot_reach_a_loopback_address(config: Config) -> None:
    away = dataclasses.replace(config.pacs[0], url="http://192.0.2.7:8042")
    with pytest.raises(ConnectFailed, match=r"0\.0\.0\.0"):
        wanted(config, away)
    assert wanted(config, away, "reader.example.org").host == "reader.example.org"
    open_to_all = dataclasses.replace(config, dicom=dataclasses.replace(config.dicom, host="0.0.0.0"))
    assert wanted(open_to_all, config.pacs[0]).host == "127.0.0.1"
    one_address = dataclasses.replace(config, dicom=dataclasses.replace(config.dicom, host="192.0.2.8"))
    assert wanted(one_address, away).host == "192.0.2.8"


def in_guarded(config: Config, guarded: OrthancProcess, **values: Any) -> Config:
    alice = {"user": "alice", "password": "sesame"}
    changed = {"ae_title": "GUARDED", "port": guarded.dicom_port, "url": guarded.url, **alice, **values}
    return dataclasses.replace(config, pacs=(dataclasses.replace(config.pacs[0], **changed),))


def test_who_may_only_read_gets_the_lines_to_write(config: Config, guarded: OrthancProcess, heard: Heard) -> None:
    with pytest.raises(RestFailed, match="user and password_file") as refused:
        made(in_guarded(config, guarded, password="wrong"))
    assert "wrong" not in str(refused.value).partition("it refuses")[0]
    with pytest.raises(ConnectFailed) as read_only:
        made(in_guarded(config, guarded, user="bob", password="look"))
    assert "403" in str(read_only.value) and '"DicomModalities": { "fourview": {"AET": "FOURVIEW"' in str(read_only.value)
    assert f'"Port": {heard.port}' in str(read_only.value)


def test_what_is_no_orthanc_is_said(config: Config, plain: OrthancProcess, free_port: Callable[[], int]) -> None:
    for url, said in (
        (f"http://127.0.0.1:{free_port()}", "does not answer"),
        (f"http://127.0.0.1:{plain.dicom_port}", "does not answer"),
        (f"{plain.url}/instances", "not as Orthanc does"),
    ):
        with pytest.raises(RestFailed, match=said):
            made(dataclasses.replace(config, pacs=(dataclasses.replace(config.pacs[0], url=url),)))


def test_an_address_that_is_none_is_said() -> None:
    for url in ("http://127.0.0.1:99x", "http://orthanc\t:8042"):
        with OrthancRest(url) as orthanc:
            with pytest.raises(RestFailed, match="is the address right"):
                orthanc.system()
            assert not orthanc.is_dicomweb()


def test_a_strangers_words_steer_no_terminal_when_a_command_fails(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[model]\ncard = "card.toml"\n[[rule]]\nname = "a"\nwhen = "true"\naction = "hold"\n')
    with odd_orthanc({"/system": (500, {"Details": STEERING})}) as url:
        command = [sys.executable, "-m", "listener.cli", "--config", tmp_path / "config.toml", "orthanc", "connect", "--url", url]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and r"\x1b]0;taken" in done.stderr and "\x1b" not in done.stderr and "\x9b" not in done.stderr


def test_an_orthanc_that_answers_oddly_does_not_end_the_check(config: Config, plain: OrthancProcess) -> None:
    system = {"Name": "x", "Version": "1.12", "DicomAet": "ORTHANC", "DicomPort": plain.dicom_port}
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    odd = {"/system": (200, system), "/modalities": (200, {}), "/tools/now": (200, now)}
    for more in ({"/tools/execute-script": (200, "what?")}, {"/changes": (200, [])}, {"/changes": (200, {"Last": "x"})}):
        with odd_orthanc(odd | more) as url:
            found = seen(dataclasses.replace(config, pacs=(dataclasses.replace(config.pacs[0], url=url), plain_pacs(config))))
        assert not found["routing of orthanc"].ok and "not answer as Orthanc does" in found["routing of orthanc"].remedy
        assert "REST of second: Orthanc 1" in words(list(found.values())), "what comes behind it is looked at all the same"


def plain_pacs(config: Config) -> Pacs:
    return dataclasses.replace(config.pacs[0], name="second")


def test_an_orthanc_that_keeps_modalities_needs_no_lines(config: Config, guarded: OrthancProcess) -> None:
    findings = made(in_guarded(config, guarded))
    assert "keeps the entry in its database" in words(findings) and "orthanc.json" not in words(findings)


def test_commands_say_all_that(config: Config, plain: OrthancProcess, heard: Heard, tmp_path: Path) -> None:
    def ran(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["--config", str(config.path), "orthanc", "connect", *arguments])

    done = ran("--into", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "fourview-stable.lua").read_text() == (DEPLOY / "stable.lua").read_text()
    assert '\n"fourview": {"AET": "FOURVIEW"' in done.output, "a line to be put into the section that is there"
    done = ran("--script", "instant")
    assert (DEPLOY / "instant.lua").read_text() in done.output and "is as it should be" not in done.stderr
    assert json.loads(ran("--json", "--script", "none").output)[0]["ok"]
    assert "no [[pacs]] is named archive" in str(ran("archive").exception)
    by_url = ran("--url", plain.url + "/", "--script", "none")
    assert by_url.exit_code == 0 and "something else must send" in by_url.output


def test_the_line_for_the_script_names_a_place_that_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> str:
        return "\n".join(install(Script.STABLE, tmp_path, replace=False, dry_run=True))

    monkeypatch.setattr("listener.connect._PASSING", (tmp_path.parent,))
    assert f"sudo install -m 644 {tmp_path}/fourview-stable.lua /etc/orthanc/" in said()
    assert '"LuaScripts": [ "/etc/orthanc/fourview-stable.lua" ]' in said()
    monkeypatch.setattr("listener.connect._PASSING", ())
    assert "sudo" not in said() and f'"LuaScripts": [ "{tmp_path}/fourview-stable.lua" ]' in said()


def test_a_script_of_the_site_is_not_written_over_unasked(tmp_path: Path) -> None:
    def done(**options: bool) -> str:
        return "\n".join(install(Script.INSTANT, tmp_path, **{"replace": False, "dry_run": False, **options}))

    assert "would be written" in done(dry_run=True) and list(tmp_path.iterdir()) == []
    assert "is written" in done() and "is there" in done()
    (tmp_path / "fourview-instant.lua").write_text("-- the site's own")
    with pytest.raises(ConnectFailed, match="--replace"):
        done()
    assert "is written" in done(replace=True)
    assert (tmp_path / "fourview-instant.lua").read_text() == shipped("instant.lua")
    with pytest.raises(ConnectFailed, match="cannot be written"):
        list(install(Script.STABLE, tmp_path / "none", replace=False, dry_run=False))


def test_init_takes_ae_title_and_port_from_orthanc(plain: OrthancProcess, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["init", str(tmp_path), "--yes", "--orthanc-url", plain.url, "--model-card", "card.toml"])
    assert done.exit_code == 0, done.output
    [pacs] = load(tmp_path / "config.toml", {}).pacs
    assert (pacs.ae_title, pacs.host, pacs.port, pacs.url) == ("ORTHANC", "127.0.0.1", plain.dicom_port, plain.url)


# ------------------------------------------------------------------------------------------------------------------- check


def test_check_sees_a_destination_that_takes_everything(config: Config, heard: Heard) -> None:
    assert all(finding.ok for finding in made(config))
    heard.callers.clear()
    found = seen(config)
    assert all(finding.ok for finding in found.values()), words(list(found.values()))
    assert heard.callers == ["ORTHANC"]
    for what in (
        "orthanc takes Comprehensive SR, Secondary Capture",
        "orthanc answers queries",
        'orthanc knows us as a modality, "fourview"',
    ):
        assert what in found
    assert [what for what in found if what.startswith("clock: 0 s")]
    found = seen(config, listening=False)
    assert found["Orthanc's C-ECHO to us is not tried: no receiver runs"].ok and heard.callers == ["ORTHANC"]


def test_check_names_what_is_wrong_with_our_entry(config: Config, plain: OrthancProcess) -> None:
    assert "fourview orthanc connect orthanc" in seen(config)["orthanc knows us as a modality"].remedy
    with OrthancRest(plain.url) as orthanc:
        orthanc.put("/modalities/mammo", {**wanted(config, config.pacs[0]).entry(), "AllowStore": False, "AllowFind": False})
        found = seen(config)
        faulty = found['orthanc knows us as a modality, "mammo"']
        assert not faulty.ok and "AllowStore is false" in faulty.remedy and "AllowFind is false" in faulty.remedy
        assert 'send to "fourview"' in found['our entry is named "mammo"'].remedy
        orthanc.put("/modalities/mammo", {**wanted(config, config.pacs[0]).entry(), "Port": 1})
        assert "another port" in seen(config)["orthanc knows us as a modality"].remedy


def test_check_tells_stable_age_as_it_is_configured_or_as_it_was_seen(
    config: Config, plain: OrthancProcess, guarded: OrthancProcess
) -> None:
    with OrthancRest(plain.url) as orthanc:
        assert observed_stable_age(orthanc) is None
        [unknown] = [one for what, one in seen(config).items() if what.startswith("StableAge")]
        assert unknown.ok and "grep StableAge" in unknown.remedy
        image = mammogram(View.L_CC, pixels=breast_pixels(View.L_CC, rows=16, columns=16))
        plain.upload(part10(image))
        wait_until(lambda: all(series["IsStable"] for series in plain.get("/series", expand="true")))
        assert observed_stable_age(orthanc) in (1, 2, 3)
        assert [what for what in seen(config) if what.endswith("(as its last series became stable)")]
    found = seen(in_guarded(config, guarded))
    assert not found["StableAge is 700 s (configured)"].ok
    assert "routing: Orthanc has OnStableSeries in Lua" in found


def test_negotiation_alone_tells_what_a_destination_refuses(heard: Heard) -> None:
    ours = Pacs(name="ours", ae_title="FOURVIEW", host="127.0.0.1", port=heard.port)
    answer = negotiate(ours, "ROOM1", [(Verification, ""), (ComprehensiveSRStorage, "1.2.840.10008.1.2.1")])
    assert {sop_class for sop_class, _ in answer.accepted} == {Verification} and not answer.reason
    answer = negotiate(ours, "ROOM1", [(ComprehensiveSRStorage, "1.2.840.10008.1.2.1")])
    assert answer.accepted == frozenset() and "accepts none" in answer.reason


def test_check_names_the_class_that_a_destination_does_not_take(config: Config, heard: Heard) -> None:
    """`heard` answers C-ECHO and takes nothing."""
    deaf = Pacs(name="archive", ae_title="FOURVIEW", host="127.0.0.1", port=heard.port)
    found = seen(dataclasses.replace(config, pacs=(deaf,)))
    assert found[f"C-ECHO to archive (FOURVIEW at 127.0.0.1:{heard.port})"].ok
    assert not found["archive takes Comprehensive SR, Secondary Capture"].ok and not found["archive answers queries"].ok


def test_check_tries_the_images_only_where_a_rule_forwards_them(config: Config, heard: Heard) -> None:
    [rule] = config.rules
    forwarding = dataclasses.replace(config, rules=(dataclasses.replace(rule, forward_to=("orthanc",)),))
    taken = "orthanc takes mammograms (forward_to)"
    assert taken not in seen(config) and seen(forwarding)[taken].ok
    heard_only = Pacs(name="orthanc", ae_title="FOURVIEW", host="127.0.0.1", port=heard.port)
    refused = seen(dataclasses.replace(forwarding, pacs=(heard_only,)))[taken]
    assert not refused.ok and "accepts none" in refused.remedy


def test_check_misses_dicomweb_only_where_it_is_needed(config: Config) -> None:
    """`plain` runs without the plug-in."""
    [missing] = [what for what in seen(config) if "no DICOMweb" in what]
    assert seen(config)[missing].ok and "orthanc-dicomweb" in seen(config)[missing].remedy
    by_dicomweb = dataclasses.replace(config, pacs=(dataclasses.replace(config.pacs[0], confirm="dicomweb"),))
    assert not seen(by_dicomweb)[missing].ok


def test_check_tells_whose_our_ports_are(config: Config, heard: Heard, free_port: Callable[[], int]) -> None:
    """`heard` answers at our DICOM port as we would; a stranger sits on the HTTP port."""

    def ports(config: Config) -> dict[str, Finding]:
        return {one.what.split("(")[1].partition(")")[0]: one for one in doors(config, None) if one.what.startswith("port ")}

    free = ports(dataclasses.replace(config, http=dataclasses.replace(config.http, port=free_port())))
    assert free["[dicom] port"].ok and "answered by us" in free["[dicom] port"].what
    assert free["[http] port"].ok and "is free" in free["[http] port"].what
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.listen()
        taken = dataclasses.replace(config.dicom, ae_title="ANOTHER"), dataclasses.replace(config.http, port=stranger.getsockname()[1])
        threading.Thread(target=lambda: stranger.accept()[0].close(), daemon=True).start()
        found = ports(dataclasses.replace(config, dicom=taken[0], http=taken[1]))
    assert not found["[dicom] port"].ok and "does not go by the AE title ANOTHER" in found["[dicom] port"].remedy
    assert not found["[http] port"].ok and "not this installation" in found["[http] port"].remedy
