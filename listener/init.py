"""A site's first config.toml, from five questions: answers checked one by one, a comment for each key, never over an old file unasked.

What is not asked keeps its default; docs/configuration.md has every key. `Interview` asks, `text` is pure, `write` touches the disk.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_type_hints
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import StringConstraints, TypeAdapter, ValidationError

from listener.config_values import AETitle, Host, Port, TimeZone, WebAddress
from listener.orthanc_rest import OrthancRest, RestFailed, System

#: Where the password goes that is typed in, beside the configuration.
PASSWORD_FILE = "orthanc.password"  # nosec B105 # noqa: S105 - a file's name
#: The card that comes with Fourview, and the one that `fourview model demo-weights` writes.
SHIPPED_CARD = "weights/resnet50.toml"
DEMO_CARD = "weights/resnet50-demo.toml"


class InitFailed(Exception):
    """Nothing was written; the message says why and what to do."""


class Person(Protocol):
    """Who answers at a terminal."""

    def prompt(self, question: str, default: str) -> str:
        """What was typed, or the default."""

    def password(self, question: str) -> str:
        """What was typed and not shown."""


_Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a site says of itself; a text that is "" says: none."""

    ae_title: AETitle
    port: Port
    senders: Literal["here", "others"]  # who can reach our DICOM port: this machine, or others too
    orthanc_url: WebAddress
    user: _Line
    password_file: _Line
    pacs_ae_title: AETitle
    pacs_host: Host
    pacs_port: Port
    timezone: TimeZone
    language: Literal["en", "ko"]
    model_card: _Line
    untrained: bool
    accept_untrained: bool


_KINDS: Mapping[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in get_type_hints(Answers, include_extras=True).items()}
#: What may also be answered with "none".
_MAY_BE_NONE = frozenset({"orthanc_url", "user", "pacs_ae_title"})
DEMO = "demo"  # in place of a model card


def valid(name: str, typed: str) -> Any:
    """The answer called `name`; raises ValueError with what is wrong in words."""
    if name in _MAY_BE_NONE and typed.strip().lower() == "none":
        return ""
    try:
        return _KINDS[name].validate_python(typed.strip())
    except ValidationError as error:
        message = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ").replace("Input should", "it should", 1)
        raise ValueError(message) from None


class Interview:
    """Five questions. What `said` has is not asked; without a `person` what was not said is as usual. `secrets`: passwords that were typed,
    by the files that they belong into."""

    def __init__(self, said: Mapping[str, Any], folder: Path, *, zone: str, person: Person | None, say: Callable[[str], None]) -> None:
        self._values = dict(said)
        self._folder = folder
        self._zone = zone
        self._person = person
        self._say = say
        self.secrets: dict[Path, str] = {}

    def answers(self) -> Answers:
        """Asks. Raises InitFailed when something has no usual value and nobody can be asked."""
        self._heading("1/5  Fourview itself: the name by which senders call it, and who may send.")
        self._take("ae_title", "AE title of Fourview", "FOURVIEW")
        self._take("port", "its DICOM port", "11112")
        self._take("senders", "senders are on this machine only (here), or on others too (others)", "here")
        self._heading("2/5  Orthanc: the address of its REST, as in http://127.0.0.1:8042, or none.")
        url = self._take("orthanc_url", "Orthanc's address", "http://127.0.0.1:8042")
        user = self._take("user", "user there, or none", "none") if url else self._values.setdefault("user", "")
        if user:
            self._take("password_file", "file with the password; it is asked for when there is no such file", PASSWORD_FILE)
        self._values.setdefault("password_file", "")
        system = self._orthanc(url, user) if url else None
        self._heading("3/5  Where results go: AE title, host and port of Orthanc or of another PACS; none: results stay here.")
        self._take("pacs_ae_title", "AE title of the PACS, or none", system.ae_title if system else "ORTHANC" if url else "none")
        if self._values["pacs_ae_title"]:
            self._take("pacs_host", "its host", urlsplit(url).hostname or "127.0.0.1")
            self._take("pacs_port", "its DICOM port", str(system.port if system else 4242))
        self._heading("4/5  Times in results are local to a zone, their sentences in a language (en or ko).")
        self._take("timezone", "time zone", self._zone)
        self._take("language", "language", "en")
        self._heading("5/5  The model card that describes your weights; demo: UNTRAINED weights, whose numbers mean nothing.")
        self._card()
        return Answers(**{"pacs_host": "127.0.0.1", "pacs_port": 104, **self._values})

    def _card(self) -> None:
        there = (self._folder / SHIPPED_CARD).is_file()
        card = self._take("model_card", "model card, or demo", SHIPPED_CARD if there else "", "--model-card FILE or --demo-weights")
        untrained = self._values["untrained"] = card in (DEMO, DEMO_CARD)
        if untrained:
            self._values["model_card"] = DEMO_CARD
        if not untrained or not self._values["pacs_ae_title"] or self._person is None:
            self._values.setdefault("accept_untrained", False)
        elif "accept_untrained" not in self._values:
            self._take("accept_untrained", f"may UNTRAINED results be sent to {self._values['pacs_ae_title']} (yes or no)", "no")

    def _heading(self, line: str) -> None:
        if self._person is not None:
            self._say(line)

    def _take(self, name: str, question: str, usual: str, options: str = "") -> Any:
        if name in self._values:
            return self._values[name]
        if self._person is None and not usual:
            raise InitFailed(f"say {options}: there is no usual value")
        while True:
            try:
                self._values[name] = valid(name, usual if self._person is None else self._person.prompt(question, usual))
                return self._values[name]
            except ValueError as error:
                if self._person is None:
                    raise InitFailed(f"say --{name.replace('_', '-')}: {error} (got {usual!r})") from None
                self._say(f"  {error}")

    def _orthanc(self, url: str, user: str) -> System | None:
        """What Orthanc says of itself; why it says nothing is told."""
        try:
            with OrthancRest(url, user, self._password(user), seconds=5) as orthanc:
                system = orthanc.system()
        except RestFailed as failed:
            self._say(f"  {failed}. Its AE title and port are not known from it then.")
            return None
        self._say(f"  Orthanc {system.version} answers: AE title {system.ae_title}, DICOM port {system.port}")
        return system

    def _password(self, user: str) -> str:
        if not user:
            return ""
        file = self._folder / str(self._values["password_file"])
        if file.is_file():
            return file.read_text(encoding="utf-8").rstrip("\r\n")
        if self._person is None:
            raise InitFailed(f"{file} is not there: write the password of {user} into it, and nothing else (chmod 600)")
        self.secrets[file] = self._person.password(f"password of {user} (kept in {file})")
        return self.secrets[file]


def machine_zone(environ: Mapping[str, str], *, etc: Path = Path("/etc")) -> str:
    """The IANA name of this machine's time zone; UTC when it cannot be told."""
    local = etc / "localtime"
    linked = str(local.resolve()).partition("/zoneinfo/")[2] if local.is_symlink() else ""
    written = (etc / "timezone").read_text(encoding="utf-8", errors="replace") if (etc / "timezone").is_file() else ""
    for name in filter(None, (environ.get("TZ", "").removeprefix(":"), linked, written.strip())):
        try:
            return ZoneInfo(name).key
        except (LookupError, ValueError, OSError):
            continue
    return "UTC"


def text(answers: Answers) -> str:
    """The configuration of these answers."""
    return "\n".join((_HEAD, _ours(answers), _model(answers), *([_pacs(answers)] if answers.pacs_ae_title else []), _rule(answers)))


def _quoted(value: object) -> str:
    """A basic string of TOML, which is one of JSON."""
    return json.dumps(str(value), ensure_ascii=False)


def _key(name: str, value: object, comment: str) -> str:
    shown = str(value).lower() if isinstance(value, bool | int) else _quoted(value)
    return f"{name} = {shown}".ljust(32) + f" # {comment}"


_HEAD = """\
# Fourview's configuration, written by `fourview init`. Paths are relative to this file.
# What is not written here has its default; docs/configuration.md describes every key, its unit and its default.
# `fourview config check` finds all mistakes at once. FOURVIEW_DICOM__PORT=11113 in the environment overrides [dicom] port, and so on.
# DICOM is spoken without TLS: docs/operations.md, "TLS for DICOM", says how to change that, on both sides.
# Database and images go to data/ beside this file ([store]); pages and DICOMweb are at http://127.0.0.1:8080/, for this machine ([http]).
"""


_LISTENS = {
    "here": ("127.0.0.1", "no other machine can send to us; 0.0.0.0 listens on every interface"),
    "others": ("0.0.0.0", "every interface: other machines may send to us"),  # noqa: S104 - a person chooses it
}


def _ours(answers: Answers) -> str:
    host, reach = _LISTENS[answers.senders]
    lines = (
        "[site]",
        _key("timezone", answers.timezone, "IANA name; dates and times in results are local to it"),
        _key("language", answers.language, "of the fixed sentences in results: en | ko"),
        "",
        "[dicom]",
        _key("ae_title", answers.ae_title, "by this name senders call us; at most 16 characters"),
        _key("host", host, reach),
        _key("port", answers.port, "of DICOM: the one that senders are told"),
        "",
    )
    return "\n".join(lines)


def _model(answers: Answers) -> str:
    lines = (
        "[model]",
        _key("card", answers.model_card, "describes the weights; weights/README.md"),
        _key("allow_untrained", bool(answers.untrained), "true: also untrained demonstration weights; every output then says so"),
        "",
    )
    return "\n".join(lines)


def _pacs(answers: Answers) -> str:
    lines = [
        "[[pacs]]                         # where results go, and where images can be fetched; one table for each",
        _key("name", "orthanc", "rules name it so in send_to"),
        _key("ae_title", answers.pacs_ae_title, "its own"),
        _key("host", answers.pacs_host, "its own, seen from this machine"),
        _key("port", answers.pacs_port, "of its DICOM"),
    ]
    if answers.orthanc_url:
        lines.append(_key("url", answers.orthanc_url, "of Orthanc's REST and DICOMweb: `fourview check`, `orthanc connect`, `reconcile`"))
        if answers.user:
            lines.append(_key("user", answers.user, "of Orthanc's RegisteredUsers"))
            lines.append(_key("password_file", answers.password_file, "a file with the password in it, and nothing else"))
    untrained = "true: may get results of untrained weights"
    return "\n".join((*lines, _key("accept_untrained", bool(answers.accept_untrained), untrained), ""))


def _rule(answers: Answers) -> str:
    send_to = '["orthanc"]' if answers.pacs_ae_title else "[]"
    return f"""\
[[rule]]                         # first match wins; a study without a match is ignored
name = "every new mammogram"
when = 'Modality == "MG" and StudyAge <= 14'     # days; keeps prefetched priors and migrations out
action = "analyse"               # analyse | hold | ignore
send_to = {send_to:<22} # names of [[pacs]]; []: results stay here, as in the first week of a site
"""


def exists(path: Path) -> InitFailed:
    """What is said of a file that is there."""
    return InitFailed(f"{path} exists; say --replace to write a new one in its place, or name another file")


def write(path: Path, content: str, *, replace_old: bool) -> None:
    """The file `path`, readable by its owner only, synced; an old one stays unless `replace_old`. Raises InitFailed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if replace_old:
                Path(name).replace(path)
            else:
                path.hardlink_to(name)  # which fails when there is one
        finally:
            Path(name).unlink(missing_ok=True)
    except FileExistsError:
        raise exists(path) from None
    except OSError as error:
        raise InitFailed(f"{path} cannot be written ({error.strerror})") from error
