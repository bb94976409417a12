"""config.toml and the environment, checked and turned into frozen values.

The keys are the fields of the classes below; docs/configuration.md describes each. `FOURVIEW_<TABLE>__<KEY>` in the environment overrides
a key of a single table; lists and words are written there with commas. `load` finds every mistake in one go.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from listener import config_http, config_rules, config_tls, dialect, senders
from listener.config_files import absolute
from listener.config_http import Http, UserTable
from listener.config_lines import line_numbers
from listener.config_values import (
    CLOSED,
    COMMAS,
    AETitle,
    AtLeastZero,
    Condition,
    Database,
    FilePath,
    Host,
    Location,
    Name,
    Port,
    Table,
    TimeZone,
    WebAddress,
    WebPath,
    nearest,
    suggestion,
)
from listener.dialect import DeviceName, Distrusted, Phrases, SideWords, ViewWords
from listener.rules_examples import Example, PlacedExample
from listener.senders import SenderTable, StudiesPerHour
from listener.users import User
from pipeline.rules import Action, Rule
from pipeline.send import Pacs
from store.pace import Pace
from store.study import WhenIncomplete
from store.view import Device, Dialect

_PREFIX = "FOURVIEW_"
_CONFIG_VARIABLE = "FOURVIEW_CONFIG"
_DEFAULT_PATH = Path("config.toml")

#: Keys and tables whose values may hold a password: complaints never repeat them.
_SECRET_KEYS = {"database", "url", "user", "password_file"}

_LONGEST_WAIT_SECONDS = 4 * 3600
#: Keys of a [[pacs]] that are not what is sent by.
_NOT_OF_PACS = ("password_file", "by_hand", "tls", "tls_authority", "tls_certificate", "tls_key")


class ConfigErrors(Exception):
    """Everything that is wrong with the configuration, each as "file:line: key: what is wrong, what to write"."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__("\n".join(complaints))
        self.complaints = complaints


@dataclass(frozen=True, kw_only=True)
class Site(Table):
    timezone: TimeZone = "Europe/London"
    language: Literal["en", "ko"] = "en"
    heat_map_on_page: bool = False
    reload_on_change: bool = False


@dataclass(frozen=True, kw_only=True)
class Dicom(Table):
    ae_title: AETitle = "FOURVIEW"
    host: Host = "127.0.0.1"
    port: Port = 11112
    accept_from: Annotated[tuple[AETitle, ...], COMMAS] = ()
    max_associations: Annotated[int, Field(ge=1)] = 32
    receivers: Annotated[int, Field(ge=1, le=64)] = 1
    strict: bool = False
    studies_per_hour: StudiesPerHour = 0
    connections_per_address: Annotated[int, Field(ge=0)] = 100
    connections_per_minute: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 6000
    study_instances: Annotated[int, Field(ge=0)] = 2000
    study_gib: AtLeastZero = 4
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_authority: str = ""


@dataclass(frozen=True, kw_only=True)
class Store(Table):
    database: Database = field(default="sqlite:///data/fourview.db", repr=False)
    files: FilePath = Path("data/files")
    min_free_gib: AtLeastZero = 10
    keep_images_days: AtLeastZero = 7
    keep_unfinished_days: AtLeastZero = 90


@dataclass(frozen=True, kw_only=True)
class Study(Table):
    wait_for_retake_seconds: AtLeastZero = 60
    give_up_after_seconds: Annotated[float, Field(ge=0, le=_LONGEST_WAIT_SECONDS, allow_inf_nan=False)] = 1800
    when_incomplete: Literal["hold", "analyse", "ignore"] = "hold"
    fetch_from: str = "orthanc"
    reconcile: Literal["off", "list", "fetch"] = "list"
    reconcile_hours: Annotated[float, Field(gt=0, le=168, allow_inf_nan=False)] = 6
    side_words: SideWords = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Model(Table):
    card: FilePath = Path("weights/resnet50.toml")
    allow_untrained: bool = False
    engine: Literal["auto", "torch", "openvino"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Work(Table):
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    images_at_once: Annotated[int, Field(ge=1, le=64)] = 2


@dataclass(frozen=True, kw_only=True)
class Alert(Table):
    url: WebAddress = field(default="", repr=False)
    waiting_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60
    silent_hours: AtLeastZero = 0


@dataclass(frozen=True, kw_only=True)
class _Pacs(Table):
    name: Name
    ae_title: AETitle
    host: Host
    port: Port
    url: WebAddress = ""
    dicomweb: WebPath = "/dicom-web"
    user: str = ""
    password_file: str = ""
    results: tuple[Literal["sr", "page"], ...] = ("sr", "page")
    confirm: Literal["find", "dicomweb", "none"] = "find"
    retry_days: AtLeastZero = 3
    accept_untrained: bool = False
    by_hand: bool = False
    tls: bool = False
    tls_authority: str = ""
    tls_certificate: str = ""
    tls_key: str = ""


@dataclass(frozen=True, kw_only=True)
class _Rule(Table):
    name: Name
    when: Condition
    action: Action
    send_to: tuple[str, ...] = ()
    slots: Literal["standard", "left", "right"] = "standard"
    when_incomplete: Literal["", "hold", "analyse", "ignore"] = ""
    model: str = ""
    priority: Annotated[int, Field(ge=1, le=9)] = 5
    forward_to: tuple[str, ...] = ()
    example: tuple[Example, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Device(Table):
    manufacturer: DeviceName = ""
    model: DeviceName = ""
    side_words: SideWords = field(default_factory=dict)
    view_words: ViewWords = field(default_factory=dict)
    synthetic_words: Phrases = ()
    distrust: Distrusted = ()

    def __post_init__(self) -> None:
        if not (self.manufacturer or self.model):
            raise ValueError("would match every device; write manufacturer, model, or both")


#: The tables that occur once, and the lists of tables.
SINGLE_TABLES: Mapping[str, type] = {
    "site": Site,
    "dicom": Dicom,
    "http": Http,
    "store": Store,
    "study": Study,
    "model": Model,
    "work": Work,
    "alert": Alert,
}
LISTED_TABLES: Mapping[str, type] = {"pacs": _Pacs, "rule": _Rule, "device": _Device, "sender": SenderTable, "user": UserTable}


class _Settings(BaseModel):
    model_config = CLOSED

    site: Site = Site()
    dicom: Dicom = Dicom()
    http: Http = Http()
    store: Store = Store()
    study: Study = Study()
    model: Model = Model()
    work: Work = Work()
    alert: Alert = Alert()
    pacs: tuple[_Pacs, ...] = ()
    rule: tuple[_Rule, ...] = ()
    device: tuple[_Device, ...] = ()
    sender: tuple[SenderTable, ...] = ()
    user: tuple[UserTable, ...] = ()


@dataclass(frozen=True)
class Config:
    """The whole configuration: paths are absolute, passwords and tokens are read. `study.fetch_from` is "" when there is nowhere to fetch
    from."""

    path: Path
    site: Site
    dicom: Dicom
    http: Http
    store: Store
    study: Study
    model: Model
    work: Work
    alert: Alert
    pacs: tuple[Pacs, ...]
    rules: tuple[Rule, ...]
    dialect: Dialect
    pace: Pace
    users: tuple[User, ...] = ()
    examples: tuple[PlacedExample, ...] = field(default=(), compare=False)  # beside the rules; they decide nothing


@dataclass(frozen=True)
class _Source:
    """Where each key was written."""

    path: Path
    lines: Mapping[Location, int]
    variables: Mapping[tuple[str, str], str]  # key -> environment variable that gives it

    def complaint(self, location: Location, message: str) -> str:
        key = _dotted(location)
        if variable := next((name for place, name in self.variables.items() if place == location[:2]), None):
            return f"environment {variable}: {key}: {message}"
        while location and location not in self.lines:
            location = location[:-1]
        return f"{self.place(location)}: {key}: {message}"

    def place(self, location: Location) -> str:
        """ "file:line" of a table or key."""
        return f"{self.path}:{self.lines.get(location, 1)}"


def located(path: Path | None, environ: Mapping[str, str]) -> Path:
    """`path`, else the file that FOURVIEW_CONFIG names, else ./config.toml."""
    return path or Path(environ.get(_CONFIG_VARIABLE) or _DEFAULT_PATH)


def load(path: Path | None, environ: Mapping[str, str], *, text: str | None = None) -> Config:
    """Read the file that is `located`; raises ConfigErrors with every complaint at once. `text`: what stood in it when it was `read`.

    Paths in the file are relative to its folder. Files of passwords and tokens are read here, once.
    """
    path = located(path, environ)
    if text is None:
        text = read(path)
    try:
        written = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigErrors([_syntax_complaint(path, text, str(error))]) from None
    if not written:
        advice = "copy the config.toml that comes with Fourview, or let `fourview init` write one"
        raise ConfigErrors([f"{path}:1: the file is empty; {advice}"])
    variables, complaints = _variables(environ)
    source = _Source(path, line_numbers(text), variables)
    merged = _merged(written, {location: environ[name] for location, name in variables.items()})
    try:
        settings = _Settings.model_validate(merged)
    except ValidationError as error:
        settings = None
        for detail in error.errors(include_url=False, include_context=False):
            complaints.append(source.complaint(*_in_words(detail)))
    for location, message in _contradictions(merged, source):
        complaints.append(source.complaint(location, message))
    folder = path.absolute().parent
    passwords: list[str] = []
    for index, table in enumerate(_tables(written, "pacs")):
        try:
            passwords.append(_password(folder, table.get("password_file")))
        except ValueError as error:
            complaints.append(source.complaint(("pacs", index, "password_file"), str(error)))
    tokens: list[tuple[bytes, ...]] = []
    for index, table in enumerate(_tables(written, "user")):
        try:
            tokens.append(config_http.read_tokens(folder, table.get("token_file")))
        except ValueError as error:
            complaints.append(source.complaint(("user", index, "token_file"), str(error)))
    for location, message in config_http.unreadable(_table(merged, "http"), folder):
        complaints.append(source.complaint(location, message))
    for location, message in config_tls.unreadable(_table(merged, "dicom"), _tables(merged, "pacs"), folder):
        complaints.append(source.complaint(location, message))
    for location, message in config_rules.missing_cards(_tables(written, "rule"), folder):
        complaints.append(source.complaint(location, message))
    if not complaints and settings is not None:
        # Of what is wrong already these would say it once more in other words.
        for location, message in (
            *config_rules.unreachable(_tables(written, "rule")),
            *config_rules.unused(_tables(written, "pacs"), _tables(written, "rule"), settings.study.fetch_from),
        ):
            complaints.append(source.complaint(location, message))
    if complaints or settings is None:
        raise ConfigErrors(sorted(complaints, key=_by_line))
    examples = tuple(
        PlacedExample(place=source.place(("rule", index, "example", number)), rule=rule.name, example=example)
        for index, rule in enumerate(settings.rule)
        for number, example in enumerate(rule.example)
    )
    return replace(_config(path.absolute(), settings, passwords, tokens), examples=examples)


def _config(path: Path, settings: _Settings, passwords: list[str], tokens: list[tuple[bytes, ...]]) -> Config:
    folder = path.parent
    sources = {pacs.name for pacs in settings.pacs if pacs.url}
    return Config(
        path=path,
        site=settings.site,
        dicom=config_tls.placed(settings.dicom, folder),
        http=replace(settings.http, certificate=absolute(folder, settings.http.certificate), key=absolute(folder, settings.http.key)),
        store=replace(settings.store, database=_absolute_database(settings.store.database, folder), files=folder / settings.store.files),
        study=replace(settings.study, fetch_from=settings.study.fetch_from if settings.study.fetch_from in sources else ""),
        model=replace(settings.model, card=folder / settings.model.card),
        work=settings.work,
        alert=settings.alert,
        pacs=tuple(
            Pacs(
                password=password,
                tls=config_tls.of_pacs(pacs, folder),
                **{field.name: getattr(pacs, field.name) for field in fields(pacs) if field.name not in _NOT_OF_PACS},
            )
            for pacs, password in zip(settings.pacs, passwords, strict=True)
        ),
        rules=tuple(
            Rule(
                rule.name,
                rule.when,
                rule.action,
                rule.send_to,
                rule.slots,
                WhenIncomplete(rule.when_incomplete) if rule.when_incomplete else None,
                absolute(folder, rule.model),
                rule.priority,
                tuple(dict.fromkeys(rule.forward_to)),
            )
            for rule in settings.rule
        ),
        dialect=Dialect(
            side_words=settings.study.side_words,
            devices=tuple(Device(**{field.name: getattr(device, field.name) for field in fields(device)}) for device in settings.device),
            senders=senders.habits(settings.sender),
        ),
        pace=senders.pace(settings.sender, settings.dicom.studies_per_hour),
        users=tuple(
            User(name=user.name, role=user.role, password_hash=user.password_hash, token_hashes=hashes)
            for user, hashes in zip(settings.user, tokens, strict=True)
        ),
    )


def line_of(text: str, table: str, key: str) -> int:
    """The line, from 1, on which `key` of the single `table` stands in a file that could be loaded; 1 when it stands nowhere."""
    lines = line_numbers(text)
    return lines.get((table, key)) or lines.get((table,), 1)


def read(path: Path) -> str:
    """The text of a configuration file. Raises ConfigErrors."""
    try:
        # Editors on Windows put a byte order mark in front.
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        advice = f"name yours with --config or {_CONFIG_VARIABLE}, or copy the config.toml that comes with Fourview"
        raise ConfigErrors([f"{path}: no such file; {advice}"]) from None
    except UnicodeDecodeError:
        raise ConfigErrors([f"{path}: is not UTF-8 text; save it as UTF-8"]) from None
    except OSError as error:
        raise ConfigErrors([f"{path}: cannot be read: {error.strerror}"]) from None


def _syntax_complaint(path: Path, text: str, message: str) -> str:
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if found is None:
        return f"{path}:1: {message}"
    line, column = (found[2], f" at column {found[3]}") if found[2] else (text.count("\n") + 1, "")
    return f"{path}:{line}: {found[1]}{column}; write key = value, with texts in quotes"


def _variables(environ: Mapping[str, str]) -> tuple[dict[tuple[str, str], str], list[str]]:
    """The variables that set a key, and a complaint for each other one that begins like ours."""
    known = {
        f"{_PREFIX}{table}__{field.name}".upper(): (table, field.name) for table, keys in SINGLE_TABLES.items() for field in fields(keys)
    }
    ours = sorted(name for name in environ if name.startswith(_PREFIX) and name != _CONFIG_VARIABLE)
    complaints = []
    for name in ours:
        if name in known:
            continue
        if name.split("__")[0] in {f"{_PREFIX}{table}".upper() for table in LISTED_TABLES}:
            advice = f"; {', '.join(f'[[{table}]]' for table in LISTED_TABLES)} can only be written in the configuration file"
        else:
            near = nearest(name.removeprefix(_PREFIX), [variable.removeprefix(_PREFIX) for variable in (*known, _CONFIG_VARIABLE)])
            advice = f"; did you mean {_PREFIX}{near}?" if near else f"; variables are named as in {_PREFIX}DICOM__PORT"
        complaints.append(f"environment {name}: unknown variable{advice}")
    return {known[name]: name for name in ours if name in known}, complaints


def _merged(written: Mapping[str, Any], overrides: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    merged = dict(written)
    for (table, key), value in overrides.items():
        below = merged.get(table, {})
        # What is not a table is left for the validation to complain of.
        merged[table] = {**below, key: value} if isinstance(below, dict) else below
    return merged


def _table(written: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A single table, empty when it is none."""
    table = written.get(name)
    return table if isinstance(table, dict) else {}


def _tables(written: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The tables of a list, with an empty one in place of what is not a table."""
    listed = written.get(name, [])
    return [table if isinstance(table, dict) else {} for table in listed] if isinstance(listed, list) else []


def _in_words(detail: Any) -> tuple[Location, str]:
    """Pydantic's error as location and words. Values are shown unless they may be secret; those of unknown keys always may."""
    location: Location = tuple(detail["loc"])
    if location[-1] == "[key]":  # the word itself, not what it is said to mean
        location = location[:-1]
    key = next(part for part in reversed(location) if isinstance(part, str))
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = list(_Settings.model_fields) if len(location) == 1 else _keys(location)
        return location, "unknown key" + (suggestion(key, known) or f"; the keys here are {', '.join(known)}")
    if detail["type"] in ("missing", "missing_argument"):
        return location, f"missing; write {key} = ..."
    if detail["type"] == "dict_type":
        return location, f'must be a table of words; write {key} = {{ WORD = "..." }}'
    if detail["type"] == "dataclass_type":
        header = f"[{key}]" if len(location) == 1 else f"[[{_dotted(location)}]]"
        return location, f"must be a table; write {header} on a line of its own and the keys below it"
    if detail["type"] == "tuple_type" and (len(location) == 1 or key == "example"):
        return location, f"must be a list of tables; write [[{_dotted(location)}]]"
    message = str(detail["msg"]).removeprefix("Value error, ").replace("Input should", "should", 1)
    shown = detail.get("input")
    secret = bool(_SECRET_KEYS & set(location)) or isinstance(shown, dict | list)
    return location, message if secret or key == "when" else f"{message} (got {shown!r})"


def _dotted(location: Location) -> str:
    """A table's name as its header has it."""
    return ".".join(part for part in location if isinstance(part, str))


def _keys(location: Location) -> list[str]:
    """The keys of the table in which a key was written."""
    table = Example if "example" in location[:-1] else {**SINGLE_TABLES, **LISTED_TABLES}[str(location[0])]
    return [field.name for field in fields(table)]


def _contradictions(merged: Mapping[str, Any], source: _Source) -> Iterator[tuple[Location, str]]:
    """What is wrong between keys that are right by themselves. Works on what was written, whether or not it is valid."""
    pacs, rules = _tables(merged, "pacs"), _tables(merged, "rule")
    yield from config_rules.contradictions(pacs, rules, _table(merged, "dicom").get("accept_from"))
    yield from config_tls.contradictions(_table(merged, "dicom"), pacs)
    if "rule" not in merged:
        yield ("rule",), "there is no [[rule]], so nothing would be analysed; write one"
    yield from senders.contradictions(_tables(merged, "sender"))
    yield from dialect.contradictions(_table(merged, "study"), _tables(merged, "sender"), _tables(merged, "device"))
    names = [str(table.get("name", "")).strip() for table in pacs]
    yield from _contradictions_of_tables(merged, names, source)


def _contradictions_of_tables(merged: Mapping[str, Any], names: list[str], source: _Source) -> Iterator[tuple[Location, str]]:
    def value(table: str, key: str) -> Any:
        return _table(merged, table).get(key)

    fetch_from = value("study", "fetch_from")
    if isinstance(fetch_from, str) and fetch_from:
        if fetch_from not in names:
            yield ("study", "fetch_from"), f"no [[pacs]] is named {fetch_from!r}{suggestion(fetch_from, names)}"
        elif not _tables(merged, "pacs")[names.index(fetch_from)].get("url"):
            yield ("study", "fetch_from"), f"the [[pacs]] {fetch_from!r} has no url, and images are fetched by DICOMweb"
    yield from config_http.contradictions(_table(merged, "http"), _tables(merged, "user"))
    database = value("store", "database")
    if isinstance(database, str) and ("store", "database") not in source.variables and re.match(r"[^/]*//[^/@]*:[^/]*@", database):
        yield (
            ("store", "database"),
            f"a password does not belong in this file; set {_PREFIX}STORE__DATABASE or use PostgreSQL's PGPASSFILE",
        )


def _password(folder: Path, name: object) -> str:
    """The first line of a file; what it says appears in no complaint."""
    if not isinstance(name, str) or not name:
        return ""
    try:
        password = (folder / name).read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8 text; write the password, and nothing else, into it") from None
    except OSError as error:
        raise ValueError(
            f"{name} cannot be read ({error.strerror}); make the file, readable by this user, with the password in it"
        ) from None
    if not password or "\n" in password:
        raise ValueError(f"{name} must hold the password on one line, and nothing else")
    return password


def _absolute_database(url: str, folder: Path) -> str:
    prefix = "sqlite:///"
    return prefix + str(folder / url.removeprefix(prefix)) if url.startswith(prefix) else url


def _by_line(complaint: str) -> tuple[int, str]:
    """Complaints of the file in its order; those of the environment, which have no line, first."""
    found = re.match(r".*?:(\d+): ", complaint)
    return (int(found[1]) if found else 0, complaint)
