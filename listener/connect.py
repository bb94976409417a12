"""Makes Orthanc and Fourview know each other: our entry in Orthanc's DicomModalities, C-ECHO both ways, the routing script.

Orthanc takes an entry by REST, and keeps it over a restart only with DicomModalitiesInDatabase; it takes no script by REST for longer
than a call. What it does not keep is printed as the lines of its configuration file.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from listener.config import Config
from listener.config_http import is_loopback
from listener.finding import Finding
from listener.orthanc_rest import OrthancRest, RestFailed
from pipeline.send import Pacs, echo

#: The name of our entry: the routing scripts know us by it.
MODALITY = "fourview"
#: Seconds that Orthanc waits for an answer of ours, as deploy/orthanc/orthanc.json says.
TIMEOUT = 60
#: Seconds that Orthanc waits for our C-ECHO.
ECHO_SECONDS = 10
#: Where a script stays for good on Orthanc's machine, and folders that the next start of a machine may empty.
_LASTING = Path("/etc/orthanc")
_PASSING = (Path("/tmp"), Path("/var/tmp"))  # nosec B108 # noqa: S108 - nothing is written there

#: Files that come with Fourview: beside this module where it was installed from a wheel, in the project's folders otherwise.
_SHIPPED = (Path(__file__).parent / "shipped", Path(__file__).parent.parent / "deploy" / "orthanc", Path(__file__).parent.parent / "docs")


class ConnectFailed(Exception):
    """The two are not connected; the message says why and what to do."""


class Script(StrEnum):
    """What makes Orthanc send mammograms to us."""

    STABLE = "stable"  # a series at a time, StableAge seconds after its last image
    INSTANT = "instant"  # each image at once
    NONE = "none"  # the site's own


def shipped(name: str) -> str:
    """The text of a file that comes with Fourview."""
    for folder in _SHIPPED:
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise ConnectFailed(f"{name} is missing from this installation: install Fourview again")


def chosen(config: Config, name: str = "", *, url: str = "") -> Pacs:
    """The [[pacs]] of that name, with that url, or the only one with a url (that of fetch_from, if there are several).

    `url` without a [[pacs]] of its own: an Orthanc that answers there, by what it says of itself. Raises ConnectFailed and RestFailed.
    """
    if name:
        found = [pacs for pacs in config.pacs if pacs.name == name]
        if not found:
            raise ConnectFailed(f"no [[pacs]] is named {name}; there are {', '.join(pacs.name for pacs in config.pacs) or 'none'}")
        if not found[0].url and not url:
            raise ConnectFailed(f"[[pacs]] {name} has no url: write the address of Orthanc's REST there, or say --url")
        return found[0]
    if url:
        found = [pacs for pacs in config.pacs if pacs.url == url.rstrip("/")]
        return found[0] if found else _by_itself(url)
    found = [pacs for pacs in config.pacs if pacs.url]
    preferred = [pacs for pacs in found if pacs.name == config.study.fetch_from]
    if len(found) != 1 and not preferred:
        names = ", ".join(pacs.name for pacs in found)
        raise ConnectFailed(f"which Orthanc? Name one of {names}" if found else "no [[pacs]] has a url: write it there, or say --url")
    return (preferred or found)[0]


def _by_itself(url: str) -> Pacs:
    with OrthancRest(url) as orthanc:
        system = orthanc.system()
    return Pacs(name=url, ae_title=system.ae_title, host=urlsplit(url).hostname or "", port=system.port, url=url.rstrip("/"))


@dataclass(frozen=True)
class Wanted:
    """Our entry as Orthanc should have it."""

    ae_title: str
    host: str
    port: int
    tls: bool = False

    def entry(self) -> dict[str, Any]:
        """As it is written in Orthanc's configuration and put by REST. Without TLS its word is left out: before 1.9 Orthanc knew none."""
        return {
            "AET": self.ae_title,
            "Host": self.host,
            "Port": self.port,
            "Timeout": TIMEOUT,
            "AllowEcho": True,
            "AllowStore": True,
            "AllowFind": True,
            "AllowGet": False,
            "AllowMove": False,
            **({"UseDicomTls": True} if self.tls else {}),
        }


def wanted(config: Config, pacs: Pacs, host: str = "") -> Wanted:
    """Our entry for this Orthanc; `host`: by which it reaches us, else what can be told from here. Raises ConnectFailed."""
    orthanc = urlsplit(pacs.url).hostname or ""
    ours = config.dicom.host
    if not host and is_loopback(ours) and not is_loopback(orthanc):
        raise ConnectFailed(
            f'[dicom] host is {ours}, and {orthanc} is another machine: it cannot reach us. Set [dicom] host = "0.0.0.0" and start again; '
            "when there is a way all the same (a tunnel), say --host"
        )
    return Wanted(config.dicom.ae_title, host or _seen_from(orthanc, ours), config.dicom.port, tls=bool(config.dicom.tls_certificate))


def _seen_from(orthanc: str, ours: str) -> str:
    """The address by which `orthanc` reaches us when we listen on `ours`."""
    if is_loopback(orthanc):
        return "127.0.0.1"
    try:
        everywhere = ipaddress.ip_address(ours).is_unspecified
    except ValueError:
        everywhere = False
    if not everywhere:
        return ours
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(orthanc, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # sends nothing: it only asks which of our addresses would be used
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConnectFailed(f"{orthanc} is not to be found from here ({error.strerror}): say --host, by which it reaches us") from None


def differences(known: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    """What an entry of Orthanc's has otherwise than `entry`, a line each. What Orthanc does not tell is no difference."""
    return [
        f"{key}: {json.dumps(known[key])} there, {json.dumps(value)} wanted"
        for key, value in entry.items()
        if key in known and known[key] != value and not (key == "Timeout" and known[key] > value)
    ]


def connect(config: Config, pacs: Pacs, ours: Wanted, *, replace: bool, dry_run: bool) -> Iterator[Finding]:
    """Write our entry, if it is not there, and try both directions. Raises ConnectFailed and RestFailed when it goes no further."""
    entry = ours.entry()
    with OrthancRest(pacs.url, pacs.user, pacs.password) as orthanc:
        system = orthanc.system()
        yield Finding(True, f"{pacs.url}: Orthanc {system.version}, AE title {system.ae_title}, DICOM port {system.port}")
        known = orthanc.modalities()
        for name, other in known.items():
            if name != MODALITY and other.get("AET") == ours.ae_title:
                advice = f"the scripts know us by the name {MODALITY}; take this entry out unless something else uses it"
                yield Finding(True, f'there is also an entry "{name}" with our AE title', advice)
        different = differences(known.get(MODALITY, {}), entry)
        if different and not replace:
            raise ConnectFailed(f'{pacs.url} has an entry "{MODALITY}" already. {"; ".join(different)}. Say --replace to write ours')
        if MODALITY in known and not different:
            yield Finding(True, f'its DicomModalities has "{MODALITY}" as it should be: {_place(ours)}')
        elif dry_run:
            yield Finding(True, f'its entry "{MODALITY}" would be written: {json.dumps(entry)}')
        else:
            _put(orthanc, entry)
            yield Finding(True, f'its entry "{MODALITY}" is written: {_place(ours)}')
        yield _is_kept(orthanc, entry)
        if not dry_run or MODALITY in known:
            yield orthanc_echoes_us(orthanc, config, system.ae_title, MODALITY)
    answer = echo(pacs, config.dicom.ae_title)
    yield Finding(answer.ok, f"our C-ECHO to {pacs.ae_title} at {pacs.host}:{pacs.port}", "" if answer.ok else answer.reason)


def _put(orthanc: OrthancRest, entry: Mapping[str, Any]) -> None:
    try:
        orthanc.put(f"/modalities/{MODALITY}", entry)
    except RestFailed as failed:
        if failed.status in (403, 405):
            lines = configuration_lines(entry)
            raise ConnectFailed(f"{failed}. Write this into its configuration and start it again:\n{lines}") from None
        raise


def _place(ours: Wanted) -> str:
    return f"{ours.ae_title} at {ours.host}:{ours.port}"


def keeps_modalities(orthanc: OrthancRest) -> bool | None:
    """Whether Orthanc keeps what is put into its modalities (DicomModalitiesInDatabase); None: it does not say. REST has no word of it, a
    script inside Orthanc can tell."""
    said = lua_value(orthanc, 'GetOrthancConfiguration()["DicomModalitiesInDatabase"]')
    return None if said is None else said == "true"


def lua_value(orthanc: OrthancRest, expression: str) -> str | None:
    """What a Lua expression is inside Orthanc ("nil" when it has no value); None when it runs no scripts for us."""
    try:
        return orthanc.lua(f"print(tostring({expression}))")
    except RestFailed:
        return None


def _is_kept(orthanc: OrthancRest, entry: Mapping[str, Any]) -> Finding:
    kept = keeps_modalities(orthanc)
    if kept:
        return Finding(True, "Orthanc keeps the entry in its database (DicomModalitiesInDatabase)")
    why = (
        "it forgets the entry at its next start (DicomModalitiesInDatabase is false)"
        if kept is False
        else "it does not say whether it keeps the entry over a restart (only with DicomModalitiesInDatabase, whose default is false)"
    )
    where = 'inside the section "DicomModalities" of its configuration (Debian: /etc/orthanc/orthanc.json)'
    return Finding(True, f"Orthanc's memory: {why}", f"have this line {where}:\n{_line(entry)}")


def configuration_lines(entry: Mapping[str, Any]) -> str:
    """The section with our entry as it stands in Orthanc's configuration file."""
    return f'"DicomModalities": {{ {_line(entry)} }}'


def _line(entry: Mapping[str, Any]) -> str:
    return f'"{MODALITY}": {json.dumps(entry)}'


def orthanc_echoes_us(orthanc: OrthancRest, config: Config, its_ae_title: str, name: str) -> Finding:
    """Has Orthanc send a C-ECHO to its modality `name`, which is us."""
    what = f'Orthanc\'s C-ECHO to its modality "{name}", us'
    if config.dicom.accept_from and its_ae_title not in config.dicom.accept_from:
        return Finding(False, what, f"[dicom] accept_from does not name {its_ae_title}: add it, and start again")
    try:
        orthanc.echo(name, ECHO_SECONDS)
    except RestFailed as failed:
        remedy = (
            f"{failed}. Does `fourview serve` run here, does [dicom] host let Orthanc's machine in, and does that machine reach this one "
            "by the entry's Host?"
        )
        return Finding(False, what, remedy)
    return Finding(True, what)


def install(script: Script, folder: Path | None, *, replace: bool, dry_run: bool) -> Iterator[str]:
    """Write the routing script into `folder`, or tell its text, and the line of Orthanc's configuration that loads it.

    Raises ConnectFailed when another file is in its place, or the folder cannot be written.
    """
    if script is Script.NONE:
        return
    name = f"{script}.lua"
    content = shipped(name)
    path = (folder or _LASTING).absolute() / f"fourview-{name}"
    if folder is None:
        yield f"The routing script, to be saved as {path} on Orthanc's machine (or run this there with --into /etc/orthanc):"
        yield content
    else:
        yield _installed(path, content, replace=replace, dry_run=dry_run)
    yield "Orthanc takes no script by REST for good, it reads it at each start."
    if any(path.is_relative_to(passing) for passing in _PASSING):
        yield f"Copy it to where it stays (Debian: sudo install -m 644 {path} {_LASTING}/)."
        path = _LASTING / path.name
    yield "Have this in its configuration, into the section that is there, and no other of our scripts, and start it again:"
    yield f'  "LuaScripts": [ "{path}" ]'


def _installed(path: Path, content: str, *, replace: bool, dry_run: bool) -> str:
    try:
        there = path.read_text(encoding="utf-8") if path.exists() else None
        if there == content:
            return f"The routing script is there: {path}"
        if there is not None and not replace:
            raise ConnectFailed(f"{path} is another file than ours: say --replace to write over it, or name another folder")
        if dry_run:
            return f"The routing script would be written: {path}"
        path.write_text(content, encoding="utf-8")
        path.chmod(0o644)  # Orthanc runs as another user
    except OSError as error:
        raise ConnectFailed(f"{path} cannot be written ({error.strerror})") from error
    return f"The routing script is written: {path}"
