"""DICOM over TLS: dcmtk and Orthanc with us, and we with them; who is turned away, in which words; nobody waits for a silent one."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mammograms_made import mammogram
from orthanc_process import OrthancProcess

from listener.check_doors import doors
from listener.check_orthanc import _faults
from listener.config import Config, load
from listener.connect import wanted
from listener.scp import StorageScp
from listener.tls import BadCertificate, Certificate, expires, expiry, first_certificate
from pipeline.send import Found, Pacs, SendOutcome, echo, find_instance, send
from pipeline.tls import ClientTls
from store.archive import Archive
from store.database import write_engine
from store.files import Files
from store.upgrade import upgrade

SCRIPT = Path(__file__).parents[1] / "deploy" / "tls_test_authority.sh"
PATIENCE_SECONDS = 60


def make(folder: Path, *names: str, days: int = 60) -> None:
    environ = {"PATH": os.environ["PATH"], "DAYS": str(days)}
    subprocess.run([SCRIPT, folder, *names], check=True, capture_output=True, env=environ, timeout=60)


@dataclass(frozen=True)
class Papers:
    """Certificates of one authority, made by the script that comes with Fourview."""

    folder: Path

    def pem(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def certificate(self, name: str, *, mutual: bool = True) -> Certificate:
        return Certificate(self.pem(name), self.key(name), self.pem("authority") if mutual else None)

    def client(self, name: str = "modality", authority: Papers | None = None) -> ClientTls:
        files = (str(self.pem(name)), str(self.key(name))) if name else ("", "")
        return ClientTls(authority=str((authority or self).pem("authority")), certificate=files[0], key=files[1])

    def dcmtk(self, name: str, authority: Papers | None = None) -> list[str]:
        return ["+tls", str(self.key(name)), str(self.pem(name)), "+cf", str((authority or self).pem("authority"))]


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("authority")
    make(folder, "fourview,127.0.0.1", "modality", "orthanc,127.0.0.1", "elsewhere,pacs.example.org")
    make(folder, "expired,127.0.0.1", days=-1)
    return Papers(folder)


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("strangers")
    make(folder, "modality", "fourview,127.0.0.1")
    return Papers(folder)


@dataclass
class Site:
    scp: StorageScp
    archive: Archive
    files: Files

    @property
    def port(self) -> int:
        return self.scp.port

    def pacs(self, tls: ClientTls | None, host: str = "127.0.0.1") -> Pacs:
        return Pacs(name="fourview", ae_title="FOURVIEW", host=host, port=self.port, tls=tls)

    def kept(self) -> int:
        return sum(1 for path in self.files.root.glob("??/*") if path.is_file())


@pytest.fixture(scope="module")
def listens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """Starts a receiver; ends all of them at the end."""
    patch = pytest.MonkeyPatch()
    patch.setattr(tempfile, "tempdir", None)
    folder = tmp_path_factory.mktemp("site")
    engine = write_engine(f"sqlite:///{folder}/site.db")
    upgrade(engine)
    running: list[StorageScp] = []

    def start(certificate: Certificate | None, **settings: Any) -> Site:
        archive, files = Archive(engine), Files(folder / f"files-{len(running)}")
        scp = StorageScp(
            ae_title="FOURVIEW", host="127.0.0.1", port=0, archive=archive, files=files, certificate=certificate, **settings
        ).start()
        running.append(scp)
        return Site(scp, archive, files)

    yield start
    for scp in running:
        scp.shutdown(grace_seconds=1)
    engine.dispose()
    patch.undo()


@pytest.fixture(scope="module")
def destinations(listens: Callable[..., Site], papers: Papers) -> Callable[[str], Site]:
    """A receiver that shows the certificate of that name, or speaks plain for ""; made once."""
    return functools.cache(lambda name: listens(papers.certificate(name) if name else None, acse_seconds=600))


@pytest.fixture(scope="module")
def site(listens: Callable[..., Site], papers: Papers) -> Site:
    """Shows the certificate `fourview`, and asks for one of the same authority."""
    return listens(papers.certificate("fourview"))


def dcmtk(needs_program: Callable[[str], str], program: str, site: Site, *options: str) -> subprocess.CompletedProcess[str]:
    path = Path(needs_program("dcmdump")).with_name(program)  # not pynetdicom's of the same name
    command = [path, *options, "-ta", "10", "-aec", "FOURVIEW", "127.0.0.1", str(site.port)]
    if program == "storescu":
        command.append(options[-1])
        command.remove(options[-1])
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


# ---------------------------------------------------------------------------------------------------------------- those who call us


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dcmtk_calls_with_each_profile_that_it_has_today(
    site: Site, papers: Papers, needs_program: Callable[[str], str], profile: str
) -> None:
    """Non-downgrading BCP 195, BCP 195, Extended BCP 195."""
    done = dcmtk(needs_program, "echoscu", site, *papers.dcmtk("modality"), profile)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dcmtk_stores_over_tls(site: Site, papers: Papers, needs_program: Callable[[str], str], tmp_path: Path) -> None:
    ds = mammogram(study="dcmtk")
    path = tmp_path / "image.dcm"
    ds.save_as(path, enforce_file_format=True)
    before = site.kept()
    done = dcmtk(needs_program, "storescu", site, *papers.dcmtk("modality"), str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.kept() == before + 1


A_ASSOCIATE_RQ = struct.pack(">BxLHxx16s16s32x", 0x01, 68, 1, b"FOURVIEW".ljust(16), b"PLAIN".ljust(16))


def old_protocol(site: Site) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert "Cipher is (NONE)" in done.stdout, done.stdout


def closed_after(data: bytes) -> Callable[[Site], None]:
    def call(site: Site) -> None:
        with socket.create_connection(("127.0.0.1", site.port), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(data)
            try:
                while connection.recv(4096):
                    pass
            except ConnectionError:
                pass

    return call


TURNED_AWAY: dict[str, tuple[Callable[[Site], None], str]] = {
    "TLS 1.1": (old_protocol, "it speaks no TLS of version 1.2 or later"),
    "DICOM without TLS": (closed_after(A_ASSOCIATE_RQ), "it does not speak TLS"),
    "HTTP": (closed_after(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "it speaks HTTP without TLS"),
    "noise": (closed_after(b"\xff" * 100), "it does not speak TLS"),
}


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [record for record in caplog.records if record.name.partition(".")[0] in ("listener", "pynetdicom")]
    assert not [record for record in ours if record.exc_info or (record.name != "listener.tls" and record.levelno > logging.INFO)]
    return [record.getMessage() for record in ours if record.name == "listener.tls" and record.levelno == logging.WARNING]


def wait_for(condition: Callable[[], Any]) -> Any:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("who", TURNED_AWAY)
def test_who_does_not_speak_it_is_turned_away_in_one_line(site: Site, papers: Papers, caplog: pytest.LogCaptureFixture, who: str) -> None:
    call, words = TURNED_AWAY[who]
    call(site)
    [line] = wait_for(lambda: refusals(caplog))
    assert "peer=127.0.0.1" in line and f"TLS handshake: {words}" in line
    assert echo(site.pacs(papers.client()), "MODALITY").ok


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (lambda papers, strangers: ["+tla", "+cf", str(papers.pem("authority"))], "it shows no certificate"),
        (lambda papers, strangers: strangers.dcmtk("modality", papers), "its certificate is not accepted"),
        (lambda papers, strangers: papers.dcmtk("expired"), "its certificate is not accepted (certificate has expired)"),
        (lambda papers, strangers: papers.dcmtk("modality", strangers), "it does not trust our certificate"),
    ],
    ids=["without certificate", "of another authority", "expired", "that trusts another authority"],
)
def test_who_must_not_send_is_turned_away_in_one_line(
    site: Site,
    papers: Papers,
    strangers: Papers,
    needs_program: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
    options: Callable[[Papers, Papers], list[str]],
    words: str,
) -> None:
    assert dcmtk(needs_program, "echoscu", site, *options(papers, strangers)).returncode != 0
    [line] = wait_for(lambda: refusals(caplog))
    assert "peer=127.0.0.1" in line and f"TLS handshake: {words}" in line


def test_nobody_waits_for_those_that_do_not_go_on(site: Site, papers: Papers, caplog: pytest.LogCaptureFixture) -> None:
    """Each is given its time (15 s here, and it is not over): pynetdicom's own server would take nobody else until then."""
    with socket.create_connection(("127.0.0.1", site.port)) as silent, socket.create_connection(("127.0.0.1", site.port)) as slow:
        slow.sendall(b"\x16\x03\x01")
        assert echo(site.pacs(papers.client()), "MODALITY").ok
        for connection in (silent, slow):
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)
    wait_for(lambda: len(refusals(caplog)) == 2)  # or they would be told in the next test


def test_a_handshake_has_a_deadline_as_a_whole(listens: Callable[..., Site], papers: Papers, caplog: pytest.LogCaptureFixture) -> None:
    short = listens(papers.certificate("fourview"), acse_seconds=0.5)
    stop = threading.Event()
    with socket.create_connection(("127.0.0.1", short.port), timeout=PATIENCE_SECONDS) as connection:

        def drip() -> None:
            try:
                for byte in b"\x16\x03\x01\x02\x00" + b"\x01" * 512:
                    connection.send(bytes([byte]))
                    if stop.wait(0.1):
                        return
            except OSError:
                return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            [line] = wait_for(lambda: refusals(caplog))
        finally:
            stop.set()
            dripping.join()
    assert "TLS handshake: it does not go on" in line


def test_without_an_authority_nobody_needs_a_certificate(listens: Callable[..., Site], papers: Papers) -> None:
    open_site = listens(papers.certificate("fourview", mutual=False))
    assert echo(open_site.pacs(papers.client("")), "MODALITY").ok


def test_whom_we_believe_is_renewed_with_the_certificate(
    listens: Callable[..., Site], papers: Papers, strangers: Papers, tmp_path: Path
) -> None:
    for suffix, name in (("pem", "fourview"), ("key", "fourview"), ("pem", "authority")):
        shutil.copy(papers.folder / f"{name}.{suffix}", tmp_path)
    certificate = Papers(tmp_path).certificate("fourview")
    renewing = listens(certificate)
    stranger = strangers.client(authority=papers)
    assert echo(renewing.pacs(papers.client()), "MODALITY").ok and not echo(renewing.pacs(stranger), "MODALITY").ok
    shutil.copy(strangers.pem("authority"), tmp_path)
    assert certificate.renew()
    assert echo(renewing.pacs(stranger), "MODALITY").ok and not echo(renewing.pacs(papers.client()), "MODALITY").ok


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_cannot_be_used_is_said_in_words(papers: Papers, tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "authority").write_text(content)
    with pytest.raises(BadCertificate, match=r"authority holds no certificate in PEM|authority cannot be read: No such file"):
        Certificate(papers.pem("fourview"), papers.key("fourview"), tmp_path / "authority")


# ---------------------------------------------------------------------------------------------------------------- whom we call


@pytest.mark.parametrize(
    ("server", "client", "words"),
    [
        ("fourview", lambda papers, strangers: papers.client(authority=strangers), "its certificate is not accepted (self-signed"),
        ("elsewhere", lambda papers, strangers: papers.client(), "its certificate is not accepted (IP address mismatch"),
        ("expired", lambda papers, strangers: papers.client(), "its certificate is not accepted (certificate has expired"),
        ("fourview", lambda papers, strangers: papers.client(""), "it asks for our certificate, and we have none"),
        ("fourview", lambda papers, strangers: strangers.client(authority=papers), "it does not trust our certificate"),
        ("fourview", lambda papers, strangers: papers.client("expired"), "it says that our certificate has expired"),
        ("", lambda papers, strangers: papers.client(), "does it speak TLS?"),
        ("fourview", lambda papers, strangers: None, "no association: is this its DICOM port? Or does it ask for TLS"),
    ],
    ids=["another authority", "another host", "expired", "no certificate", "stranger", "ours expired", "plain port", "TLS port"],
)  # fmt: skip
def test_why_a_destination_is_not_reached_is_said_in_words(
    destinations: Callable[[str], Site],
    papers: Papers,
    strangers: Papers,
    caplog: pytest.LogCaptureFixture,
    server: str,
    client: Callable[[Papers, Papers], ClientTls | None],
    words: str,
) -> None:
    answer = echo(destinations(server).pacs(client(papers, strangers)), "FOURVIEW")
    assert not answer.ok and words in answer.reason
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("first_bytes", "words"),
    [(b"\x16\x03\x01\x02\x00\x01", "it speaks TLS, and we do not here"), (b"GET / HTTP/1.1\r\n\r\n", "it speaks HTTP")],
    ids=["TLS", "HTTP"],
)
def test_a_plain_port_says_who_speaks_something_else(
    destinations: Callable[[str], Site], caplog: pytest.LogCaptureFixture, first_bytes: bytes, words: str
) -> None:
    """And closes at once: an A-ABORT would be left to wait for the other side to close."""
    plain = destinations("")
    closed_after(first_bytes)(plain)
    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "connection closed peer=127.0.0.1" in line and words in line
    assert echo(plain.pacs(None), "MODALITY").ok


def test_files_of_ours_that_cannot_be_used_are_said_in_words(site: Site, papers: Papers, tmp_path: Path) -> None:
    tls = replace(papers.client(), key=str(papers.key("orthanc")))
    path = tmp_path / "image.dcm"
    mammogram().save_as(path, enforce_file_format=True)
    [sent] = send(site.pacs(tls), "FOURVIEW", [path])
    assert (
        sent.outcome is SendOutcome.RETRY
        and "modality.pem and " in sent.reason
        and "are not a certificate in PEM and its key" in sent.reason
    )
    assert "nobody answers" in echo(Pacs(name="a", ae_title="A", host="127.0.0.1", port=1, tls=papers.client()), "FOURVIEW").reason


# ---------------------------------------------------------------------------------------------------------------- Orthanc


def test_orthanc_both_ways(
    site: Site, papers: Papers, start_orthanc: Callable[..., OrthancProcess], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It stores to us and we to it, and it answers our query, all with certificates on both sides."""
    ours = {"AET": "FOURVIEW", "Host": "127.0.0.1", "Port": site.port, "UseDicomTls": True, "Timeout": 60}
    pacs = start_orthanc(
        extra={
            "DicomModalities": {"fourview": ours},
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(papers.pem("orthanc")),
            "DicomTlsPrivateKey": str(papers.key("orthanc")),
            "DicomTlsTrustedCertificates": str(papers.pem("authority")),
            "DicomTlsRemoteCertificateRequired": True,
        }
    )
    incoming, outgoing = mammogram(study="incoming"), mammogram(study="outgoing")
    for name, ds in (("in.dcm", incoming), ("out.dcm", outgoing)):
        ds.save_as(tmp_path / name, enforce_file_format=True)
    before = site.kept()
    pacs.post("/modalities/fourview/echo")
    pacs.post("/modalities/fourview/store", pacs.upload((tmp_path / "in.dcm").read_bytes()))
    assert site.kept() == before + 1
    its = Pacs(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=pacs.dicom_port, tls=papers.client("fourview"))
    uids = {
        "study_instance_uid": outgoing.StudyInstanceUID,
        "series_instance_uid": outgoing.SeriesInstanceUID,
        "sop_instance_uid": outgoing.SOPInstanceUID,
    }
    assert find_instance(its, "FOURVIEW", **uids) is Found.ABSENT
    [sent] = send(its, "FOURVIEW", [tmp_path / "out.dcm"])
    assert sent.outcome is SendOutcome.SENT, sent.reason
    assert find_instance(its, "FOURVIEW", **uids) is Found.PRESENT
    assert refusals(caplog) == []
    assert not echo(replace(its, tls=None), "FOURVIEW").ok and not echo(replace(its, tls=papers.client("")), "FOURVIEW").ok


# ---------------------------------------------------------------------------------------------------------------- settings


@pytest.fixture
def written(tmp_path: Path, papers: Papers) -> Callable[..., Config]:
    """A configuration with `dicom` under [dicom], beside the certificates."""

    def write(dicom: str) -> Config:
        for path in papers.folder.iterdir():
            shutil.copy(path, tmp_path)
        (tmp_path / "config.toml").write_text(
            f"[dicom]\n{dicom}\n[[rule]]\nname = 'all'\nwhen = 'true'\naction = 'analyse'\nsend_to = ['pacs']\n"
            "[[pacs]]\nname = 'pacs'\nae_title = 'P'\nhost = 'h'\nport = 1\ntls = true\ntls_authority = 'authority.pem'\n"
        )
        return load(tmp_path / "config.toml", {})

    return write


MUTUAL = "tls_certificate = 'fourview.pem'\ntls_key = 'fourview.key'\ntls_client_authority = 'authority.pem'"


def said(config: Config) -> list[str]:
    found = doors(config, None)
    return [f"{'ok' if one.ok else 'FAIL'} {one.what}: {one.remedy}" for one in found if "DICOM" in one.what or "dicom] port" in one.what]


def test_the_check_knows_our_port_by_its_certificate(site: Site, written: Callable[..., Config], tmp_path: Path) -> None:
    config = written(f"port = {site.port}\n{MUTUAL}")
    assert config.pacs[0].tls == ClientTls(authority=str(tmp_path / "authority.pem"))
    tls, port = said(config)
    assert tls == f"ok TLS of DICOM with {tmp_path}/fourview.pem: "
    assert port == f"ok port {site.port} ([dicom] port) is answered by us: "
    _, port = said(written(f"port = {site.port}\n{MUTUAL}".replace("fourview", "orthanc")))
    assert port.startswith("FAIL") and "its certificate is another than that of [dicom] tls_certificate" in port


def test_the_check_says_what_is_doubtful_about_tls(written: Callable[..., Config], free_port: Callable[[], int]) -> None:
    port = f"port = {free_port()}\n"
    assert said(written(port + MUTUAL.replace("tls_client_authority = 'authority.pem'", "")))[0].endswith("names who may")
    [_, line, _] = said(written(port + MUTUAL.replace("fourview", "expired")))
    assert line.startswith("FAIL TLS of DICOM: ") and "expired.pem has expired" in line
    [line, _] = said(written(port + MUTUAL.replace("fourview.key", "orthanc.key")))
    assert line.startswith("FAIL TLS of DICOM: ") and "are not a certificate in PEM and its key" in line
    assert said(written(port + "host = '0.0.0.0'"))[0].startswith("ok DICOM without TLS: note: images can be read on the way")


def test_orthanc_is_told_to_call_us_with_tls(written: Callable[..., Config]) -> None:
    its = Pacs(name="pacs", ae_title="P", host="127.0.0.1", port=1, url="http://127.0.0.1:8042")
    assert wanted(written(MUTUAL), its).entry()["UseDicomTls"] is True
    assert "UseDicomTls" not in wanted(written(""), its).entry()
    mend = [list(_faults({"UseDicomTls": there}, its, tls=tls)) for there in (False, True) for tls in (False, True)]
    assert [len(faults) for faults in mend] == [0, 1, 1, 0] and "we speak TLS only" in mend[1][0] and "we speak no TLS" in mend[2][0]


def test_the_end_of_a_certificate_is_told_in_time(papers: Papers) -> None:
    path = papers.pem("fourview")
    end = expires(first_certificate(path))
    shown = subprocess.run(["openssl", "x509", "-in", path, "-noout", "-enddate"], capture_output=True, text=True, check=True, timeout=60)
    assert end.timestamp() == ssl.cert_time_to_seconds(shown.stdout.strip().partition("=")[2])
    assert list(expiry("TLS", path, datetime.now(UTC))) == []
    [soon] = expiry("TLS", path, end - timedelta(days=30) + timedelta(seconds=1))
    assert soon.ok and "expires in 29 days" in soon.remedy
    [over] = expiry("TLS", path, end + timedelta(seconds=1))
    assert not over.ok and "has expired" in over.remedy
