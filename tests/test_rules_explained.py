"""Why the rules say what they say: of a study that is held here, on the command line, over HTTP and on its page, and of files.

The worker's own decision is what is explained, on both databases; what is told of it must be what the worker kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import sqlalchemy as sa
from fourview_process import SIMULATED_CARD
from mammograms_made import mammogram, uid
from serving import serving
from stepped_store import START, SteppedStore, exam
from typer.testing import CliRunner

from listener import api, cli, dashboard
from listener.config import Config, load
from listener.desk import Desk
from listener.door import Access
from listener.pages import Pages
from listener.pictures import Pictures
from listener.web import create_app
from pipeline import rule_facts, rules
from store import tables
from store.seen import Seen

SITE = """
[site]
timezone = "Asia/Seoul"
[store]
database = "{database}"
files = "{files}"
min_free_gib = 0.1
[model]
card = "simulated.toml"
allow_untrained = true
[[pacs]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
"""
RULES = """
[[rule]]
name = "implants"
when = 'Implant == "YES" or StationName == "IMPLANTS"'
action = "hold"
send_to = ["pacs"]
[[rule]]
name = "new ones"
when = 'Modality == "MG" and StudyAge <= 14 and Hour >= 0'
action = "analyse"
send_to = ["pacs"]
when_incomplete = "analyse"
[[rule]]
name = "men"
when = 'PatientSex == "M"'
action = "hold"
"""
OTHER_RULES = (
    RULES.replace("StudyAge <= 14", "StudyAge <= 2").replace('name = "men"', 'name = "the rest"').replace('PatientSex == "M"', "true")
)
UID = uid("study")
SEOUL = ZoneInfo("Asia/Seoul")


@dataclass
class Site:
    """A store whose worker decides by real rules, and what people ask of it."""

    stepped: SteppedStore
    path: Path
    zone: ZoneInfo = SEOUL
    config: Config | None = None

    def write(self, rules_written: str = RULES) -> Config:
        database = self.stepped.engine.url.render_as_string(hide_password=False)
        self.path.write_text(SITE.format(database=database, files=self.stepped.files.root) + rules_written, encoding="utf-8")
        self.config = load(self.path, {})
        return self.config

    def decide(self, seen: Seen) -> rules.Decision:
        """As the worker does, at the store's time."""
        today = self.stepped.now.astimezone(self.zone).date()
        assert self.config is not None
        return rules.decide(self.config.rules, rule_facts.of_study(seen, today=today, timezone=self.zone))

    def receive(self, **overrides: Any) -> None:
        self.stepped.receive(*exam(**{"StudyDate": f"{self.stepped.now.astimezone(self.zone):%Y%m%d}", **overrides}))
        self.stepped.settle()

    def explain(self, *what: str, code: int = 0) -> Any:
        done = CliRunner().invoke(cli.app, ["--config", str(self.path), "rules", "explain", *what, "--json"], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    def explained(self) -> Any:
        [told] = self.explain(UID)
        return told

    def in_words(self, *what: str) -> str:
        done = CliRunner().invoke(cli.app, ["--config", str(self.path), "rules", "explain", *what], catch_exceptions=False)
        return done.stdout


@pytest.fixture
def site(stepped: SteppedStore, tmp_path: Path) -> Site:
    (tmp_path / "simulated.toml").write_text(SIMULATED_CARD)
    site = Site(stepped, tmp_path / "config.toml")
    site.write()
    stepped.rules = site.decide
    return site


def test_each_rule_is_told_with_what_it_saw(site: Site) -> None:
    site.receive(BreastImplantPresent=None, PatientSex=None)
    told = site.explained()
    assert [(one["name"], one["truth"], one["reached"], one["decides"]) for one in told["rules"]] == [
        ("implants", "unknown", True, False),
        ("new ones", "true", True, True),
        ("men", "unknown", False, False),
    ]
    implants, new, men = told["rules"]
    assert implants["failing"] == 'Implant == "YES" or StationName == "IMPLANTS"'
    assert implants["saw"] == 'Implant is absent, StationName is "ROOM1"'
    assert implants["values"] == {"Implant": None, "StationName": "ROOM1"}
    assert (new["failing"], new["values"]["StudyAge"]) == ("", 0)
    assert (men["failing"], men["saw"]) == ('PatientSex == "M"', "PatientSex is absent")
    now = told["outcome"]
    assert (now["action"], now["rule_name"], now["send_to"]) == ("analyse", "new ones", ["pacs"])
    assert now["slots"] == ["R-CC", "L-CC", "R-MLO", "L-MLO"] and now["when_incomplete"] == "analyse"
    assert now["model"].endswith("simulated.toml")


def test_what_was_decided_then_is_told_as_it_was_kept(site: Site) -> None:
    site.receive()
    rule = site.stepped.study()["rule"]
    [row] = site.stepped.rows(sa.select(tables.study))
    kept = site.explained()["kept"]
    assert (kept["rule_name"], kept["reason"], kept["action"]) == ("new ones", rule["reason"], "analyse")
    assert kept["rule_hash"] == row.rule_hash == load(site.path, {}).rules[1].text_hash
    told = site.explained()
    assert (told["same"], told["compared"]) == (True, "today's rules say the same")
    assert told["outcome"]["reason"] == kept["reason"]


def test_a_study_is_explained_by_the_day_on_which_it_came(site: Site) -> None:
    """Weeks later it is still the new study that it was: what its rule saw then is what is told."""
    site.receive()
    site.stepped.step(90 * 86_400)
    assert site.explained()["rules"][1]["values"]["StudyAge"] == 0
    assert site.explained()["same"] is True


def test_other_rules_would_say_otherwise(site: Site) -> None:
    site.receive(StudyDate=f"{START.astimezone(site.zone) - timedelta(days=5):%Y%m%d}")
    site.write(OTHER_RULES)
    told = site.explained()
    assert (told["kept"]["rule_name"], told["outcome"]["rule_name"]) == ("new ones", "the rest")
    assert told["same"] is False
    assert told["compared"].startswith("today's rules say otherwise: action analyse -> hold; destinations pacs -> (none)")
    assert told["compared"].endswith("by rule 'the rest'")


def test_a_rule_that_was_reworded_says_the_same(site: Site) -> None:
    site.receive()
    site.write(RULES.replace("StudyAge <= 14", "StudyAge <= 15"))
    told = site.explained()
    assert told["same"] is True
    assert told["compared"] == "today's rules say the same, by rule 'new ones' as it is written now"
    assert told["kept"]["rule_hash"] != told["outcome"]["rule_hash"]


def test_who_overruled_a_rule_is_not_taken_for_a_change_of_rules(site: Site) -> None:
    site.receive(BreastImplantPresent="YES")
    assert site.stepped.state() == "held"
    assert site.stepped.ask("release") == "accepted"
    told = site.explained()
    assert told["kept"]["overruled"] is True and told["kept"]["action"] == "analyse"
    assert told["outcome"]["action"] == "hold"
    assert told["compared"] == "a person overruled the rule, which stands as it was"


def test_a_study_without_headers_is_not_explained(site: Site) -> None:
    site.receive()
    with site.stepped.engine.begin() as connection:
        connection.execute(sa.update(tables.instance).values(header=None))
    [told] = site.explain(UID, code=1)
    assert told["problem"] == "no header of it is kept that could be looked at"
    assert (told["rules"], told["outcome"]) == ([], None)
    assert told["kept"]["rule_name"] == "new ones", "what was decided then is still known"


def test_in_words(site: Site) -> None:
    site.receive(BreastImplantPresent=None)
    words = site.in_words(UID)
    assert f"Study {UID}\n" in words
    assert "  1 unknown 'implants'" in words and "but Implant is absent" in words
    assert "  2 true    'new ones'" in words and "StudyAge is 0" in words
    assert '  3 false   \'men\'  needs PatientSex == "M"  but PatientSex is "F"  (not reached)' in words
    assert "Outcome: analyse by rule 'new ones'" in words and "results to pacs; priority 5" in words
    assert "Decided when it came: analyse by rule 'new ones'" in words
    assert words.endswith("Now: today's rules say the same\n")
    assert "Doe" not in words


def test_what_is_no_study_and_no_file_is_refused(site: Site) -> None:
    unknown = CliRunner().invoke(cli.app, ["--config", str(site.path), "rules", "explain", "1.2.3"])
    assert "no study 1.2.3 is known here" in str(unknown.exception)
    neither = CliRunner().invoke(cli.app, ["--config", str(site.path), "rules", "explain", "nowhere.dcm"])
    assert neither.exit_code == 2 and "no such file" in neither.output


def test_the_api_and_the_page_say_the_same(site: Site) -> None:
    site.receive(StudyDate=f"{START.astimezone(site.zone) - timedelta(days=5):%Y%m%d}", StudyDescription="<b>bold</b>")
    site.write(OTHER_RULES.replace("'true'", """'StudyDescription != "<i>"'"""))
    desk = Desk(load(site.path, {}))
    people = dashboard.create_router(desk, Pictures(site.stepped.search, site.stepped.files), Pages(zone=site.zone, language="en"))
    app = create_app(
        results=site.stepped.search,
        file_path=site.stepped.files.path,
        ready=list,
        routers=[api.create_router(desk), people],
        access=Access(),
    )
    with serving(app) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        assert client.get(f"/api/v1/studies/{UID}/rules").json() == site.explained()
        assert client.get("/api/v1/studies/1.2.3/rules").status_code == 404
        pages = [client.get(f"/studies/{UID}", headers={"Accept-Language": language}).text for language in ("en", "ko")]
    for page in pages:
        told = re.sub(r"\s+", " ", page[page.index('id="rules"') : page.index('id="timeline"')])
        assert "&lt;b&gt;" in told and "<b>bold" not in told
        assert "StudyAge &lt;= 2" in told and "StudyAge is 5" in told
        assert "today&#39;s rules say otherwise" in told
    assert "Decided when it came:" in pages[0] and "수신 당시의 결정:" in pages[1]


# Files


def test_files_are_explained_as_if_they_came_now(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    today = f"{datetime.now(site.zone):%Y%m%d}"
    for number, ds in enumerate(exam(StudyDate=today)):
        ds.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    mammogram(SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT", image="ct").save_as(folder / "ct.dcm", enforce_file_format=True)
    (folder / "notes.txt").write_text("no DICOM")
    told = {one["study_instance_uid"]: one for one in site.explain(str(folder), "--from", "ROOM1", code=1)}
    exam_told = told[UID]
    assert (exam_told["outcome"]["action"], exam_told["outcome"]["rule_name"]) == ("analyse", "new ones")
    assert exam_told["rules"][1]["values"] == {"Modality": "MG", "StudyAge": 0, "Hour": datetime.now(site.zone).hour}
    assert exam_told["kept"] is None
    assert exam_told["left_out"] == [f"{folder / 'ct.dcm'}: not an image of the mammography classes"]
    assert told[""]["problem"] == "no file of it would be kept" and "notes.txt" in told[""]["left_out"][0]
    assert not site.stepped.rows(sa.select(tables.study)), "nothing is kept of them"


def test_a_file_is_seen_with_the_sender_that_is_named(site: Site, tmp_path: Path) -> None:
    site.write(RULES.replace('StationName == "IMPLANTS"', 'CallingAET == "VAN"'))
    path = tmp_path / "one.dcm"
    mammogram().save_as(path, enforce_file_format=True)
    [by_van] = site.explain(str(path), "--from", "VAN")
    [by_nobody] = site.explain(str(path))
    assert (by_van["outcome"]["rule_name"], by_nobody["rules"][0]["truth"]) == ("implants", "unknown")


# When it came


@pytest.mark.parametrize(
    ("came_at", "zone", "weekday", "hour"),
    [
        ("2026-11-23T00:30:00+00:00", "Europe/London", "Monday", 0),
        ("2026-11-22T15:30:00+00:00", "Asia/Seoul", "Monday", 0),
        ("2026-11-23T00:30:00+00:00", "America/New_York", "Sunday", 19),
        ("2026-03-29T00:59:59+00:00", "Europe/London", "Sunday", 0),  # the clocks go forward at 01:00
        ("2026-03-29T01:00:00+00:00", "Europe/London", "Sunday", 2),
        ("2026-10-25T00:30:00+00:00", "Europe/London", "Sunday", 1),  # and back: the hour comes twice
        ("2026-10-25T01:30:00+00:00", "Europe/London", "Sunday", 1),
    ],
)
def test_day_and_hour_are_those_of_the_first_image_at_the_site(came_at: str, zone: str, weekday: str, hour: int) -> None:
    moment = datetime.fromisoformat(came_at).astimezone(ZoneInfo(zone))
    told = {"calling_ae_title": "A", "called_ae_title": "B", "today": date(2026, 11, 23)}
    seen = rule_facts.facts([mammogram()], views=[], came_at=moment, **told)  # type: ignore[arg-type]
    assert (seen["Weekday"], seen["Hour"]) == (weekday, hour)


def test_an_image_that_comes_later_does_not_move_the_hour(site: Site) -> None:
    first, *others = exam(StudyDate=f"{START.astimezone(site.zone):%Y%m%d}")
    site.stepped.receive(first)
    site.stepped.step(3600)
    site.stepped.receive(*others)
    site.stepped.settle()
    came_at = START.astimezone(site.zone)
    assert site.explained()["rules"][1]["values"]["Hour"] == came_at.hour
    assert site.stepped.study()["rule"]["values"]["Hour"] == came_at.hour
