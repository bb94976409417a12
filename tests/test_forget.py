"""A study that is forgotten leaves nothing behind, does not come back, and is not brought back by whoever has it in hand at this moment."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from dbos._serialization import DBOSPortableJSONSerializer
from fourview_process import SIMULATED_CARD
from mammograms_made import uid
from pydicom.dataset import Dataset
from stepped_store import SteppedStore, exam, image
from typer.testing import CliRunner

from listener import cli, parts
from listener.config import Config, load
from listener.scp import StorageScp
from listener.terminal import app
from pipeline import conclude, read, work
from pipeline.decode import Decoder
from pipeline.model import load_classifier, read_card
from pipeline.send import Pacs, SendOutcome, send
from pipeline.work import prepare_engine_tables
from pipeline.workshop import LoadedModel, Workshop
from store import acts, tables
from store.archive import Archive, Kept
from store.chores import Chores
from store.claims import Claims
from store.database import engine_database, workflow_engine, write_engine
from store.forget import Ambiguous, Forgetting, Forgotten
from store.ledger import Ledger
from store.rows import UnknownStudy
from store.scoring import Scoring
from store.study import View

assert cli.COMMANDS  # importing it makes the commands

CONFIG = """
[store]
database = "{database}"
files = "files"
min_free_gib = 0.1
[study]
fetch_from = ""
[model]
card = "card.toml"
allow_untrained = true
[[rule]]
name = "all mammograms"
when = 'Modality == "MG"'
action = "analyse"
"""

#: What must not be found any more: in the database's own form, and as it stands in headers and files.
SECRETS = ("Verloren^Ann", "SECRET-77", uid("lost"))


class Site:
    """An installation without processes: its configuration, its store, its command line."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.database = database
        self.path = folder / "config.toml"
        self.path.write_text(CONFIG.format(database=database))
        (folder / "card.toml").write_text(SIMULATED_CARD)
        self.config: Config = load(self.path, {})
        self.engine = write_engine(database)
        self.store = SteppedStore(self.engine, folder / "files")
        self.book = Forgetting(self.engine)
        self.workflows = engine_database(database)

    def run(self, *arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["--config", str(self.path), *arguments])
        assert done.exit_code == code, done.output + repr(done.exception)
        return done.output

    def prepare_workflows(self) -> sa.Engine:
        """The workflow engine's tables, as `fourview db upgrade` makes them."""
        engine = workflow_engine(self.workflows)
        prepare_engine_tables(self.workflows, engine)
        return engine

    def remembered(self) -> str:
        """Everything that the database and the spool hold, as it lies there."""
        self.engine.dispose()
        return "".join([*self._databases(), *(path.read_bytes().decode("latin-1") for path in self.kept_files())])

    def kept_files(self) -> list[Path]:
        return [path for path in (self.folder / "files").rglob("*") if path.is_file()]

    def _databases(self) -> Iterator[str]:
        if self.database.startswith("sqlite"):
            for path in self.folder.glob("*.db*"):
                yield path.read_bytes().decode("latin-1")
            return
        with self.engine.connect() as connection:
            names = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'dbos')"
            for name in connection.exec_driver_sql(names).scalars().all():
                # A header is packed text in bytes: shown as text too.
                columns = connection.exec_driver_sql(f"SELECT * FROM {name}")
                for row in columns:
                    yield " ".join(_text(value) for value in row)


def _text(value: object) -> str:
    return bytes(value).decode("latin-1") if isinstance(value, bytes | memoryview) else str(value)


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    made = Site(tmp_path, database_url)
    yield made
    made.engine.dispose()


def lost(**overrides: Any) -> list[Dataset]:
    return exam(**{"study": "lost", "PatientName": "Verloren^Ann", "PatientID": "SECRET-77", **overrides})


def test_nothing_is_left_of_a_forgotten_study(site: Site) -> None:
    engine = site.prepare_workflows()
    client = DBOSClient(system_database_url=site.workflows, system_database_engine=engine, serializer=DBOSPortableJSONSerializer())
    for study in ("lost", "other"):
        client.enqueue({"queue_name": "study", "workflow_name": "study", "workflow_id": f"study:{uid(study)}:1:ab12"}, uid(study))
    site.store.receive(*exam(study="other", PatientName="Andere^Eva", PatientID="P2"))
    site.store.receive(*lost())
    site.store.settle()
    site.store.receive(
        image(View.L_CC, "retake", study="lost", PatientName="Verloren^Ann", PatientID="SECRET-77", AcquisitionTime="110000")
    )
    site.store.settle()
    for number in range(2):
        for claim in site.store.ledger.claim():  # the versions of a study one after the other
            for one in site.store.begin(claim.workflow_id):
                site.store.ledger.sent(one.delivery_id, 0, "", ask=bool(number))
    site.store.ask("withdraw", study="lost", why="wrong")
    with site.engine.begin() as connection:
        alert = {"cause": f"held:{uid('lost')}", "kind": "held", "text": f"study {uid('lost')}", "raised_at": site.store.now}
        connection.execute(sa.insert(tables.alert).values(**alert))
        refused = {"cause": "refused:pacs:1", "kind": "refused", "text": f"1 result: no {uid('lost')}. Why?", "raised_at": site.store.now}
        connection.execute(sa.insert(tables.alert).values(**refused))
    book = Chores(site.engine)
    book.ask("reconcile")
    book.done("reconcile", {"partly_seen": [uid("lost"), "1.2.3"], "not_fetched": {uid("lost"): "busy"}, "error": f"of {uid('lost')}"})
    before = site.remembered()
    for secret in SECRETS:
        assert secret in before, "what is looked for is there as long as it is not forgotten"

    (told,) = json.loads(site.run("forget", uid("lost"), "--yes", "--json", "--reason", "she asked for it"))
    engine.dispose()
    after = site.remembered()
    for secret in SECRETS:
        assert secret not in after, secret
    assert "Andere^Eva" in after and f"study:{uid('other')}:1:ab12" in after, "nothing else went"
    assert site.store.state("other") == "analysed"
    assert told["left"] == [] and told["images"] == 5 and told["versions"] == 3 and told["senders"] == ["MODALITY"]
    sent = {one["sop_instance_uid"] for one in told["elsewhere"]}
    assert len(sent) >= 4 and {one["destination"] for one in told["elsewhere"]} == {"pacs"}
    assert book.outcome("reconcile") == {"partly_seen": ["1.2.3"], "not_fetched": {}, "error": ""}
    assert site.store.rows(sa.select(tables.alert)) == []
    with site.engine.begin() as connection:
        act = connection.execute(sa.select(tables.act).where(tables.act.c.what == "forget")).one()
        assert act.study_key == acts.study_key(connection, uid("lost")) and act.why == "she asked for it"
    client.destroy()


def test_what_speaks_of_another_study_stays(site: Site) -> None:
    """Its UID may begin or end with the digits of the one that is forgotten."""
    site.prepare_workflows()
    site.store.receive(*lost())
    others = [f"{uid('lost')}4", f"{uid('lost')}.4", f"1.{uid('lost')}", f"1{uid('lost')}"]
    with site.engine.begin() as connection:
        for other in others:
            alert = {"cause": f"held:{other}", "kind": "held", "text": f"study {other} waits", "raised_at": site.store.now}
            connection.execute(sa.insert(tables.alert).values(**alert))
    book = Chores(site.engine)
    book.ask("reconcile")
    remembered = {"not_fetched": dict.fromkeys(others, "busy"), "error": f"of {others[0]}"}
    book.done("reconcile", remembered)
    site.run("forget", uid("lost"), "--yes")
    assert {one.cause for one in site.store.rows(sa.select(tables.alert))} == {f"held:{other}" for other in others}
    assert book.outcome("reconcile") == remembered


def test_to_let_a_study_come_again_it_must_be_named(site: Site) -> None:
    """Of whom it was stands nowhere any more: by a patient none would be found, and the command would seem to have done it."""
    assert "name the studies" in site.run("forget", "--allow-again", "--patient", "SECRET-77", code=2)


def test_the_spool_keeps_no_file_of_it(site: Site) -> None:
    site.prepare_workflows()
    site.store.receive(*lost())
    assert len(site.kept_files()) == 4
    site.run("forget", uid("lost"), "--yes")
    assert site.kept_files() == []


def test_it_does_not_come_back_until_somebody_lets_it(site: Site, free_port: Callable[[], int], tmp_path: Path) -> None:
    site.prepare_workflows()
    site.store.receive(*lost())
    site.run("forget", uid("lost"), "--yes")
    paths = []
    for number, ds in enumerate(lost()):
        paths.append(tmp_path / f"{number}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    scp = StorageScp(ae_title="FOURVIEW", host="127.0.0.1", port=free_port(), archive=site.store.archive, files=site.store.files)
    with scp:
        ours = Pacs(name="fourview", ae_title="FOURVIEW", host="127.0.0.1", port=scp.port)
        answers = send(ours, "ORTHANC", paths)
        assert [(one.outcome, one.status) for one in answers] == [(SendOutcome.SENT, 0)] * 4, "one refusal would end the sender's job"
        assert site.kept_files() == [] and site.store.rows(sa.select(tables.study)) == []
        assert site.store.receive(*lost(), ignored="not an image") == [Kept.FORGOTTEN] * 4
        assert site.store.rows(sa.select(tables.instance)) == []
        for command in ("show", "reprocess"):
            done = CliRunner().invoke(app, ["--config", str(site.path), command, uid("lost")])
            assert (
                done.exit_code == 1
                and "was forgotten on" in done.output + str(done.exception)
                and "--allow-again" in done.output + str(done.exception)
            )
        assert "may come again" in site.run("forget", "--allow-again", uid("lost"))
        assert "was not forgotten" in site.run("forget", "--allow-again", uid("lost"), code=1)
        send(ours, "ORTHANC", paths)
    assert len(site.kept_files()) == 4 and site.store.state("lost") == "collecting"
    with site.engine.begin() as connection:
        what = connection.execute(sa.select(tables.act.c.what).order_by(tables.act.c.id)).scalars().all()
    assert list(what) == ["forget", "allow again"]


def test_all_studies_of_a_patient(site: Site) -> None:
    site.prepare_workflows()
    site.store.receive(*lost(), *lost(study="lost 2"), *exam(study="other"))
    for study, issuer in (("namesake", "A"), ("namesake 2", "B")):
        site.store.receive(*exam(study=study, PatientID="P9", IssuerOfPatientID=issuer))
    told = site.run("forget", "--patient", "SECRET-77", "--yes")
    assert f"{uid('lost')}: forgotten" in told and f"{uid('lost 2')}: forgotten" in told and "SECRET-77" not in told
    assert {row.patient_id for row in site.store.rows(sa.select(tables.study))} == {"P1", "P9"}
    with pytest.raises(Ambiguous, match="--issuer"):
        site.book.studies_of("P9")
    assert site.book.studies_of("P9", "B") == [uid("namesake 2")]
    assert isinstance(CliRunner().invoke(app, ["--config", str(site.path), "forget", "--patient", "nobody"]).exception, UnknownStudy)
    assert CliRunner().invoke(app, ["--config", str(site.path), "forget", uid("other")], input="n\n").exit_code == 1
    assert site.store.state("other") == "collecting", "asked, and told no"


def _breaks(*_arguments: object) -> bool:
    raise sa.exc.OperationalError("DELETE", {}, Exception("connection lost"))


@pytest.mark.parametrize("step", ["forget_workflows", "empty_log"])
def test_what_others_hold_is_said_also_when_clearing_away_fails(site: Site, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this command knows it: a second call finds nothing."""
    site.prepare_workflows()
    site.store.receive(*lost())
    site.store.settle()
    for claim in site.store.ledger.claim():
        for one in site.store.begin(claim.workflow_id):
            site.store.ledger.sent(one.delivery_id, 0, "", ask=False)
    monkeypatch.setattr(work if step == "forget_workflows" else parts, step, _breaks)
    (told,) = json.loads(site.run("forget", uid("lost"), "--yes", "--json"))
    assert len(told["elsewhere"]) == 2 and told["images"] == 4
    assert [text[-len("(OperationalError)") :] for text in told["left"]] == ["(OperationalError)"]
    assert site.kept_files() == []


def test_what_was_forgotten_is_said_when_the_next_study_cannot_be(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.prepare_workflows()
    site.store.receive(*lost(), *exam(study="other"))
    forget = Forgetting.forget

    def first_only(book: Forgetting, study: str, **named: str) -> Forgotten:
        if study == uid("other"):
            _breaks()
        return forget(book, study, **named)

    monkeypatch.setattr(Forgetting, "forget", first_only)
    done = CliRunner().invoke(app, ["--config", str(site.path), "forget", uid("lost"), uid("other"), "--yes", "--json"])
    assert isinstance(done.exception, sa.exc.OperationalError)
    assert [one["study_instance_uid"] for one in json.loads(done.stdout)] == [uid("lost")]


def test_nothing_is_forgotten_while_the_files_are_away(site: Site) -> None:
    site.prepare_workflows()
    site.store.receive(*lost())
    (site.folder / "files").rename(site.folder / "elsewhere")
    done = CliRunner().invoke(app, ["--config", str(site.path), "forget", uid("lost"), "--yes"])
    assert isinstance(done.exception, parts.SpoolAway)
    assert site.store.state("lost") == "collecting"


# --------------------------------------------------------------------------------------------------- whoever has it in hand


def workshop(site: Site, decoder: Any = None) -> Workshop:
    """A worker's, with the real model card, decoder and store; nothing is sent."""
    card = read_card(site.folder / "card.toml")
    policy = parts.policy(site.config)
    site.store.policy = policy
    model = LoadedModel(identity=policy.model, classifier=load_classifier(card, allow_untrained=True, device="cpu"), size=card.input_size)
    return Workshop(
        archive=Archive(site.engine, clock=lambda _: site.store.now),
        scoring=Scoring(site.engine, clock=lambda _: site.store.now),
        claims=Claims(site.engine),
        ledger=Ledger(site.engine),
        chore_book=Chores(site.engine),
        files=site.store.files,
        policy=policy,
        rules=site.config.rules,
        pacs=(),
        installation=parts.installation(site.config, site.store.archive),
        timezone=ZoneInfo("UTC"),
        load=lambda _: model,
        decoder=decoder or Decoder(),
        process="host:work:0",
        life="host:work:0/1",
    )


class ForgetsMeanwhile:
    """Does what `real` does, and `then`."""

    def __init__(self, real: Any, method: str, then: Callable[[], Any]) -> None:
        self._real, self._method, self._then = real, method, then

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name != self._method:
            return real

        def do(*arguments: Any, **named: Any) -> Any:
            self._then()
            return real(*arguments, **named)

        return do


def forgets(site: Site) -> Callable[[], None]:
    def then() -> None:
        for name in site.book.forget(uid("lost"), person="kim").files:
            site.store.files.remove(name)

    return then


@pytest.mark.parametrize("moment", ["decode", "save_pixel_hash", "save", "fail"])
def test_a_worker_that_reads_its_image_leaves_nothing(site: Site, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = workshop(site)
    site.store.receive(*lost())
    site.store.work(read=False)
    (claim, *_) = site.store.scoring.claim()
    if moment == "fail":
        monkeypatch.setattr(read, "uniform", lambda _: True)
    target, name = (shop.decoder, "decoder") if moment == "decode" else (shop.scoring, "scoring")
    object.__setattr__(shop, name, ForgetsMeanwhile(target, moment, forgets(site)))
    read.read_image(shop, int(claim.row), claim.workflow_id)
    assert site.kept_files() == []
    assert site.store.rows(sa.select(tables.study)) == site.store.rows(sa.select(tables.score)) == []
    assert site.store.rows(sa.select(tables.timeline)) == []


@pytest.mark.parametrize("moment", ["reading", "save_version", "unresolved", "advance"])
def test_a_worker_that_concludes_it_leaves_nothing(site: Site, moment: str) -> None:
    shop = workshop(site)
    site.store.receive(*lost())
    early = moment in ("unresolved", "advance")
    if not early:
        site.store.work(read=False)
        for claim in site.store.scoring.claim():
            read.read_image(shop, int(claim.row), claim.workflow_id)
        site.store.step(3600)
        site.store.work(report=False)
        assert site.store.state("lost") == "analysing"
    else:
        site.store.archive.claim_studies()
    [held] = site.store.rows(sa.select(tables.study.c.workflow_id))
    object.__setattr__(shop, "archive", ForgetsMeanwhile(shop.archive, moment, forgets(site)))
    if early:
        assert conclude.advance(shop, uid("lost"), held.workflow_id) is False
    else:
        conclude.conclude(shop, uid("lost"), held.workflow_id)
    assert site.kept_files() == []
    assert site.store.rows(sa.select(tables.study)) == site.store.rows(sa.select(tables.version)) == []
    assert site.store.rows(sa.select(tables.timeline)) == []


def test_images_that_come_while_it_is_forgotten_do_not_bring_it_back(site: Site) -> None:
    """Whatever the order: once the tombstone stands there is no row of the study."""

    def receive(number: int) -> None:
        for each in range(6):
            site.store.receive(image(View.L_CC, f"{number} {each}", study="lost"))

    site.store.receive(image(View.L_CC, study="lost"))
    with ThreadPoolExecutor(3) as threads:
        receiving = [threads.submit(receive, number) for number in range(3)]
        gone = site.book.forget(uid("lost"), person="kim")
    for one in receiving:
        one.result()
    assert gone.images >= 1
    for table in (tables.study, tables.instance, tables.timeline):
        assert site.store.rows(sa.select(table)) == []


def test_sqlite_overwrites_what_it_deletes(tmp_path: Path, sqlite_template: Path) -> None:
    """The pragma is what the tests above rely on: without it the same bytes stay in the file."""
    left = {}
    for mode in ("OFF", "ON"):
        path = tmp_path / f"{mode}.db"
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA secure_delete={mode}")
            connection.execute("CREATE TABLE t (v TEXT)")
            connection.executemany("INSERT INTO t VALUES (?)", [("Verloren^Ann" * 300,)] * 5)
            connection.commit()
            connection.execute("DELETE FROM t")
            connection.commit()
        left[mode] = b"Verloren" in path.read_bytes()
    assert left == {"OFF": True, "ON": False}
    with write_engine(f"sqlite:///{sqlite_template}").connect() as ours:
        assert ours.exec_driver_sql("PRAGMA secure_delete").scalar_one() == 1
