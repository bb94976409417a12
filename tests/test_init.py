"""`fourview init`: what it asks, what it writes, and what it leaves alone."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from odd_orthanc import STEERING, odd_orthanc
from typer.testing import CliRunner

from listener.cli import app
from listener.config import Config, load
from listener.init import Interview, machine_zone, text, write

NOWHERE = "http://127.0.0.1:9"  # nobody answers there
SITE = ["--orthanc-url", NOWHERE, "--timezone", "Asia/Seoul", "--model-card", "weights/ours.toml"]


def said(code: int, *arguments: str | Path) -> str:
    """What `fourview init` says where nobody can be asked."""
    done = CliRunner().invoke(app, ["init", *map(str, arguments)])
    if code == 1:
        return str(done.exception)
    assert done.exit_code == code, done.output
    return done.output


def read(path: Path) -> Config:
    return load(path, {})


def test_it_writes_a_configuration_that_is_accepted_and_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    told = said(0, path, "--yes", *SITE)
    config = read(path)
    assert (config.dicom.ae_title, config.dicom.host, config.dicom.port) == ("FOURVIEW", "127.0.0.1", 11112)
    assert (config.site.timezone, config.site.language, config.model.card) == ("Asia/Seoul", "en", tmp_path / "weights/ours.toml")
    assert [(one.name, one.ae_title, one.host, one.port, one.url) for one in config.pacs] == [
        ("orthanc", "ORTHANC", "127.0.0.1", 4242, NOWHERE)
    ]
    assert not config.model.allow_untrained and not config.pacs[0].accept_untrained
    assert [one.send_to for one in config.rules] == [("orthanc",)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["config.toml"]
    assert "does not answer" in told and "ours.toml is not there yet" in told and "orthanc connect" in told


def test_every_key_is_explained_and_the_rest_is_where_it_is_described(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    said(0, path, "--yes", *SITE, "--user", "alice", "--password-file", _password(tmp_path))
    lines = path.read_text().splitlines()
    keys = [line for line in lines if re.match(r"[a-z_]+ = ", line)]
    assert len(keys) >= 15
    assert [line for line in keys if "#" not in line and not line.startswith(('name = "every',))] == []
    assert "docs/configuration.md" in lines[1]


def _password(folder: Path) -> str:
    (folder / "secret").write_text("sesame\n")
    return "secret"


def test_options_say_everything(tmp_path: Path) -> None:
    path = tmp_path / "site" / "fourview.toml"
    said(
        0, path, "--yes", *SITE, "--ae-title", "READER", "--port", "104", "--senders", "others", "--language", "ko",
        "--pacs-ae-title", "ARCHIVE", "--pacs-host", "pacs.example.org", "--pacs-port", "11114",
    )  # fmt: skip
    config = read(path)
    assert (config.dicom.ae_title, config.dicom.host, config.dicom.port, config.site.language) == ("READER", "0.0.0.0", 104, "ko")
    assert (config.pacs[0].ae_title, config.pacs[0].host, config.pacs[0].port) == ("ARCHIVE", "pacs.example.org", 11114)


def test_a_site_without_a_pacs_keeps_its_results(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    said(0, path, "--yes", "--orthanc-url", "none", "--model-card", "card.toml")
    assert read(path).pacs == () and read(path).rules[0].send_to == ()


def test_an_old_file_is_not_written_over_unasked(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("# mine\n")
    assert "--replace" in said(1, path, "--yes", *SITE)
    assert path.read_text() == "# mine\n"
    with pytest.raises(Exception, match="--replace"):  # one that came meanwhile
        write(path, "other", replace_old=False)
    assert [one.name for one in tmp_path.iterdir()] == ["config.toml"] and path.read_text() == "# mine\n"
    said(0, path, "--yes", "--replace", *SITE)
    assert read(path).pacs and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "--yes"),
        (["--yes", "--orthanc-url", NOWHERE], 1, "--demo-weights"),
        (["--yes", *SITE, "--ae-title", "SEVENTEEN-LETTERS"], 2, "1 to 16"),
        (["--yes", *SITE, "--port", "70000"], 2, "65535"),
        (["--yes", *SITE, "--timezone", "Europe/Lodnon"], 2, "Europe/London"),
        (["--yes", *SITE, "--senders", "all"], 2, "here"),
        (["--yes", *SITE, "--orthanc-url", "alice:secret@host"], 2, "http://127.0.0.1:8042"),
        (["--yes", *SITE, "--user", "alice"], 1, "orthanc.password is not there"),
        (["--yes", *SITE, "--model-card", "a\nb"], 2, "pattern"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    told = said(code, tmp_path / "config.toml", *arguments)
    assert words in " ".join(told.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def system(**changed: object) -> dict[str, tuple[int, object]]:
    return {"/system": (200, {"Name": "x", "Version": "1.12", "DicomAet": "ORTHANC", "DicomPort": 4242} | changed)}


def test_what_a_stranger_says_steers_no_terminal(tmp_path: Path) -> None:
    with odd_orthanc(system(Version=STEERING)) as url:
        told = said(0, tmp_path / "config.toml", "--yes", "--orthanc-url", url, "--model-card", "card.toml")
    assert r"Orthanc \x1b]0;taken\x07\x9b31m" in told and not set(told) & set(STEERING) - set(STEERING).intersection(
        map(chr, range(32, 127))
    )


@pytest.mark.parametrize("changed", [{"DicomAet": "AN AE TITLE OF 22 CHARS"}, {"DicomAet": STEERING}, {"DicomPort": 0}])
def test_an_ae_title_that_is_none_is_said_and_not_taken(tmp_path: Path, changed: dict[str, object]) -> None:
    with odd_orthanc(system(**changed)) as url:
        told = said(0, tmp_path / "config.toml", "--yes", "--orthanc-url", url, "--model-card", "card.toml")
    assert "which cannot be: correct DicomAet and DicomPort" in told and "\x1b" not in told
    [pacs] = read(tmp_path / "config.toml").pacs
    assert (pacs.ae_title, pacs.port) == ("ORTHANC", 4242)


class Typed:
    """A person whose answers are known; what is not among them is taken as offered."""

    def __init__(self, *answers: tuple[str, str]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def prompt(self, question: str, default: str) -> str:
        self.asked.append((question, default))
        for number, (part, answer) in enumerate(self._answers):
            if part in question:
                del self._answers[number]
                return answer
        return default

    def password(self, question: str) -> str:
        self.asked.append((question, ""))
        return "sesame"


def test_five_questions_are_asked_and_a_wrong_answer_again(tmp_path: Path) -> None:
    person = Typed(
        ("DICOM port", "0"), ("DICOM port", "104"), ("senders", "others"), ("Orthanc's address", NOWHERE),
        ("user there", "alice"), ("model card", "demo"), ("UNTRAINED", "yes"),
    )  # fmt: skip
    lines: list[str] = []
    interview = Interview({"language": "ko"}, tmp_path, zone="Asia/Seoul", person=person, say=lines.append)
    answers = interview.answers()
    assert [line[:3] for line in lines if line[1:3] == "/5"] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert (answers.port, answers.senders, answers.user, answers.language) == (104, "others", "alice", "ko")
    assert answers.untrained and answers.accept_untrained
    assert interview.secrets == {tmp_path / "orthanc.password": "sesame"}
    assert [question for question, _ in person.asked if question == "its DICOM port"] == ["its DICOM port"] * 3  # ours twice, Orthanc's
    assert not [question for question, _ in person.asked if question == "language"]
    (tmp_path / "config.toml").write_text(text(answers))
    (tmp_path / "orthanc.password").write_text("sesame\n")
    config = read(tmp_path / "config.toml")
    assert (config.pacs[0].user, config.pacs[0].password) == ("alice", "sesame")
    assert config.model.allow_untrained and config.pacs[0].accept_untrained
    assert "sesame" not in (tmp_path / "config.toml").read_text() + "".join(lines)


def test_at_a_terminal_the_password_goes_into_a_file_of_its_own(tmp_path: Path) -> None:
    """A real terminal: the password is not shown on it."""
    ours, its = pty.openpty()
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith("FOURVIEW_")}, "TZ": "Asia/Seoul"}
    command = [sys.executable, "-m", "listener.cli", "init", str(tmp_path / "config.toml"), "--model-card", "card.toml"]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True)
    os.close(its)
    shown = ""
    for question, answer in (
        ("AE title of Fourview", ""), ("DICOM port", "x"), ("its DICOM port", "11119"), ("others", "here"), ("Orthanc's address", NOWHERE),
        ("user there", "alice"), ("file with the password", ""), ("password of alice", "sesame"), ("AE title of the PACS", "none"),
        ("time zone", ""), ("language", "en"),
    ):  # fmt: skip
        before = len(shown)
        shown += _until(ours, f"{question}", "]: " if question != "password of alice" else "): ")
        assert question in shown[before:]
        os.write(ours, f"{answer}\n".encode())
    shown += _until(ours, "next: ", "\n")
    assert process.wait(60) == 0, shown
    os.close(ours)
    assert "sesame" not in shown
    assert (tmp_path / "orthanc.password").read_text() == "sesame\n"
    assert {one.name: oct(one.stat().st_mode & 0o777) for one in tmp_path.iterdir()} == {
        "config.toml": "0o600",
        "orthanc.password": "0o600",
    }
    config = read(tmp_path / "config.toml")
    assert (config.dicom.port, config.site.timezone, config.pacs) == (11119, "Asia/Seoul", ())


def _until(terminal: int, words: str, then: str) -> str:
    """What the terminal shows until `words` and `then` behind it."""
    shown, give_up_at = "", time.monotonic() + 60
    while then not in shown.partition(words)[2]:
        assert time.monotonic() < give_up_at, f"{words!r} does not come:\n{shown}"
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096).decode()
    return shown


def test_the_time_zone_is_the_machines(tmp_path: Path) -> None:
    assert machine_zone({"TZ": ":Asia/Seoul"}, etc=tmp_path) == "Asia/Seoul"
    assert machine_zone({"TZ": "no/where"}, etc=tmp_path) == "UTC"
    (tmp_path / "timezone").write_text("Europe/Paris\n")
    assert machine_zone({}, etc=tmp_path) == "Europe/Paris"
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    assert machine_zone({}, etc=tmp_path) == "Europe/Berlin"
