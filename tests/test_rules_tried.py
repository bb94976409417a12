"""Rules tried before they count: the examples beside them, and other rules on the studies that came.

What a replay says is compared with what a worker decides of the same study, on both databases.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fourview_process import SIMULATED_CARD
from mammograms_made import uid
from stepped_store import SteppedStore, image
from test_config import complaints, read
from test_rules_explained import RULES, SEOUL, SITE, Site
from typer.testing import CliRunner

from listener import cli
from listener.reload import digest_of
from listener.rules_examples import EXPECTATIONS, Example, failures
from pipeline.rule_condition import SYMBOLS
from store import replay, tables
from store.replay import BATCH, page
from store.study import HANGING_ORDER, View

RULE = """[[rule]]
name = "new"
when = 'Modality == "MG" and StudyAge <= 14'
action = "analyse"
[[rule]]
name = "two views of the left breast"
when = 'NumViews == 2 and Laterality == "L" and "L-CC" in Views'
action = "hold"
"""


def example(*lines: str) -> str:
    return "[[rule.example]]\n" + "".join(f"{line}\n" for line in lines)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


# Examples


def test_an_example_may_say_every_symbol_and_no_other() -> None:
    assert [one.name for one in fields(Example)] == [*EXPECTATIONS, *(symbol.name for symbol in SYMBOLS)]


def test_examples_that_hold(config_file: Path) -> None:
    views = example('Views = ["L-CC", "L-MLO"]', 'then = "hold"')
    config = read(
        config_file,
        RULE.replace('[[rule]]\nname = "two', example('Modality = "MG"', "StudyAge = 3", 'then = "analyse"') + '[[rule]]\nname = "two')
        + views
        + example('Modality = "MG"', "StudyAge = 0", 'Views = ["L-CC"]', 'then = "analyse"', 'by = "new"')
        + example('Modality = "MG"', 'then = "hold"', 'by = "new"')  # of unknown age
        + example('Modality = "CT"', "StudyAge = 3", 'then = "ignore"', 'by = ""'),
    )
    assert [one.rule for one in config.examples] == ["new", *["two views of the left breast"] * 4]
    assert failures(config.rules, config.examples) == []


def test_an_example_changes_neither_its_rules_hash_nor_what_is_in_force(config_file: Path) -> None:
    """Processes that run go by the same configuration, whatever examples one of them has read."""
    before, after = read(config_file, RULE), read(config_file, RULE + example('Views = ["L-CC"]', 'then = "hold"'))
    assert [rule.text_hash for rule in before.rules] == [rule.text_hash for rule in after.rules]
    assert before == after and digest_of(before) == digest_of(after)
    assert (len(before.examples), len(after.examples)) == (0, 1)


def test_one_that_does_not_hold_is_told_with_its_line_and_what_each_rule_says(config_file: Path) -> None:
    read(config_file, RULE + example('Views = ["L-CC", "R-CC"]', 'Modality = "MG"', "StudyAge = 15", 'then = "hold"'))
    done = CliRunner().invoke(cli.app, ["--config", str(config_file), "rules", "test"])
    assert done.exit_code == 1
    assert done.stdout.replace(f"{config_file.parent}/", "").splitlines() == [
        "config.toml:9: expected hold by rule 'two views of the left breast', but the rules say ignore by no rule",
        "    1 false   'new'  needs StudyAge <= 14  but StudyAge is 15",
        '    2 false   \'two views of the left breast\'  needs Laterality == "L"  but Laterality is "B"',
        "1 examples, 1 do not hold",
    ]
    told = json.loads(CliRunner().invoke(cli.app, ["--config", str(config_file), "rules", "test", "--json"]).stdout)
    assert (told["examples"], len(told["failures"])) == (1, 1)
    assert told["failures"][0]["place"].endswith("config.toml:9")
    assert [one["truth"] for one in told["failures"][0]["verdicts"]] == ["false", "false"]


def test_the_check_of_the_configuration_tries_them_and_the_service_does_not(config_file: Path) -> None:
    text = RULE + example('Modality = "CT"', 'then = "hold"')
    assert len(read(config_file, text).examples) == 1, "it loads"
    done = CliRunner().invoke(cli.app, ["--config", str(config_file), "config", "check"])
    assert "rule.example: expected hold by rule 'two views of the left breast', but the rules say ignore by no rule" in str(done.exception)
    assert re.search(r"config\.toml:9: ", str(done.exception))
    read(config_file, RULE + example('Views = ["L-CC", "L-MLO"]', 'then = "hold"'))
    assert CliRunner().invoke(cli.app, ["--config", str(config_file), "config", "check"]).exit_code == 0


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (['Modlity = "MG"', 'then = "hold"'], "config.toml:10: rule.example.Modlity: unknown key; did you mean Modality?"),
        (['Modality = "MG"'], "config.toml:9: rule.example.then: missing; write then = ..."),
        (["Modality = 5", 'then = "hold"'], "config.toml:10: rule.example.Modality: should be a valid string (got 5)"),
        (['StudyAge = "3"', 'then = "hold"'], "config.toml:10: rule.example.StudyAge: should be a valid integer (got '3')"),
        (["StudyAge = -1", 'then = "hold"'], "config.toml:10: rule.example.StudyAge: should be greater than or equal to 0"),
        (["StudyAge = true", 'then = "hold"'], "config.toml:10: rule.example.StudyAge: should be a valid integer"),
        (['PatientAge = "56"', 'then = "hold"'], "config.toml:10: rule.example.PatientAge: should be a valid number"),
        (['Views = "L-CC"', 'then = "hold"'], "config.toml:10: rule.example.Views: should be a valid tuple"),
        (
            ['Views = ["LCC"]', 'then = "hold"'],
            "config.toml:10: rule.example.Views: should be 'R-CC', 'L-CC', 'R-MLO' or 'L-MLO' (got 'LCC')",
        ),
        (['Implant = "Yes"', 'then = "hold"'], "config.toml:10: rule.example.Implant: should be 'YES' or 'NO' (got 'Yes')"),
        (['Weekday = "Mon"', 'then = "hold"'], "config.toml:10: rule.example.Weekday: should be 'Monday', 'Tuesday'"),
        (['Kind = "2D"', 'then = "hold"'], "config.toml:10: rule.example.Kind: should be 'FFDM', 'synthetic 2D'"),
        (["Hour = 24", 'then = "hold"'], "config.toml:10: rule.example.Hour: should be less than or equal to 23"),
        (['then = "analise"'], "config.toml:10: rule.example.then: should be 'analyse', 'hold' or 'ignore' (got 'analise')"),
        (['then = "hold"', 'by = "nwe"'], "config.toml:11: rule.example.by: no [[rule]] is named 'nwe'; did you mean new?"),
        (['then = "hold"', 'by = ""'], "config.toml:11: rule.example.by: what no rule takes is ignored"),
        (
            ['Views = ["L-CC"]', "NumViews = 2", 'then = "hold"'],
            "config.toml:11: rule.example.NumViews: contradicts Views, from which 1 follows",
        ),
        (['Views = ["L-CC"]', 'Laterality = "R"', 'then = "hold"'], "config.toml:11: rule.example.Laterality: contradicts Views"),
    ],
)
def test_a_mistake_in_an_example_is_named_with_its_line(config_file: Path, lines: list[str], complaint: str) -> None:
    found = complaints(config_file, RULE + example(*lines))
    assert len(found) == 1 and found[0].startswith(complaint), found


def test_an_example_that_is_no_table_is_named(config_file: Path) -> None:
    [found] = complaints(config_file, RULE + 'example = "x"\n')
    assert found == "config.toml:9: rule.example: must be a list of tables; write [[rule.example]]"
    [found] = complaints(config_file, RULE + "example = [3]\n")
    assert found == "config.toml:9: rule.example: must be a table; write [[rule.example]] on a line of its own and the keys below it"


# Other rules on what came


@pytest.fixture
def site(stepped: SteppedStore, tmp_path: Path) -> Site:
    (tmp_path / "simulated.toml").write_text(SIMULATED_CARD)
    site = Site(stepped, tmp_path / "config.toml")
    site.write()
    stepped.rules = site.decide
    return site


def came(site: Site, study: str, *, days: int = 0, **overrides: Any) -> None:
    """An exam made so many days before it came."""
    made = f"{site.stepped.now.astimezone(SEOUL) - timedelta(days=days):%Y%m%d}"
    site.stepped.receive(*(image(view, study, study=study, **{"StudyDate": made, **overrides}) for view in HANGING_ORDER))
    site.stepped.settle()


def at_now(site: Site) -> None:
    """The clock of a replay is the database's; what was received shall lie in its last days."""
    site.stepped.now = datetime.now(UTC) - timedelta(hours=1)


def other_rules(site: Site, text: str) -> Path:
    path = site.path.with_name("new.toml")
    database = site.stepped.engine.url.render_as_string(hide_password=False)
    path.write_text(SITE.format(database=database, files=site.stepped.files.root) + text, encoding="utf-8")
    return path


def diff(site: Site, new: Path, *options: str) -> Any:
    done = CliRunner().invoke(cli.app, ["--config", str(site.path), "rules", "diff", str(new), *options, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_studies_whose_outcome_would_change(site: Site) -> None:
    at_now(site)
    came(site, "today")
    came(site, "last week", days=7)
    came(site, "implant", BreastImplantPresent="YES")
    new = other_rules(
        site, RULES.replace("StudyAge <= 14", "StudyAge <= 2").replace('action = "hold"\nsend_to = ["pacs"]', 'action = "ignore"')
    )
    told = diff(site, new)
    assert (told["studies"], told["changed"], told["cannot_be_replayed"]) == (3, 2, 0)
    assert told["changes"] == [
        {"change": "analyse by 'new ones' -> ignore by no rule", "studies": 1},
        {"change": "hold by 'implants' -> ignore by 'implants'", "studies": 1},
    ]
    assert {one["study_instance_uid"]: one["change"] for one in told["changed_studies"]} == {
        uid("last week"): "analyse by 'new ones' -> ignore by no rule",
        uid("implant"): "hold by 'implants' -> ignore by 'implants'",
    }
    words = CliRunner().invoke(cli.app, ["--config", str(site.path), "rules", "diff", str(new)]).stdout.splitlines()
    assert words[0] == "3 studies received an image in the last 7d, 2 would have another outcome"
    assert words[1] == "       1  analyse by 'new ones' -> ignore by no rule"
    assert {line.split("  ")[0] for line in words[3:]} == {uid("last week"), uid("implant")}


def test_what_is_said_is_what_a_worker_would_decide(site: Site) -> None:
    """The same studies under the new rules in force: a person has them read again, and the worker decides."""
    at_now(site)
    for number, overrides in enumerate(
        ({}, {"BreastImplantPresent": "YES"}, {"PatientSex": "M"}, {"StationName": "VAN"}, {"PatientAge": "030Y"}, {"StudyDate": ""})
    ):
        came(site, f"study {number}", days=number, **overrides)
    text = """
[[rule]]
name = "the van"
when = 'StationName == "VAN"'
action = "analyse"
send_to = ["pacs"]
priority = 2
[[rule]]
name = "women"
when = 'PatientSex == "F" and PatientAge >= 40 and StudyAge <= 20 and Weekday != null'
action = "analyse"
[[rule]]
name = "others"
when = 'Implant == "NO"'
action = "hold"
"""
    told = diff(site, other_rules(site, text))
    before = {row.study_instance_uid: row for row in site.stepped.rows(sa.select(tables.study))}
    site.write(text)
    for number in range(6):
        site.stepped.ask("reprocess", f"again {number}", study=f"study {number}")
    after = {row.study_instance_uid: row for row in site.stepped.rows(sa.select(tables.study))}

    def outcome(row: Any) -> tuple[object, ...]:
        if row.rule_action == "ignore":
            return ("ignore",)
        when_incomplete = {"new ones": "analyse"}.get(row.rule_name, "hold")
        return row.rule_action, row.rule_send_to, row.rule_priority, when_incomplete

    changed = {one: f"{before[one].rule_action} by {before[one].rule_name!r} -> {after[one].rule_action} by {after[one].rule_name!r}"
               for one in before if outcome(before[one]) != outcome(after[one])}  # fmt: skip
    assert len(changed) == 6 == told["changed"]
    assert {one["study_instance_uid"]: one["change"].split(" (")[0].replace("no rule", "''") for one in told["changed_studies"]} == changed
    assert uid("study 3") in changed


def test_the_same_rules_change_nothing(site: Site) -> None:
    at_now(site)
    came(site, "one")
    came(site, "two", BreastImplantPresent="YES")
    told = diff(site, other_rules(site, RULES.replace('name = "new ones"', 'name = "renamed"')))
    assert (told["studies"], told["changed"], told["changed_studies"]) == (2, 0, [])


def test_only_the_last_days_count(site: Site) -> None:
    at_now(site)
    now = site.stepped.now
    site.stepped.now = now - timedelta(days=10)
    came(site, "before")
    site.stepped.now = now
    came(site, "lately")
    new = other_rules(site, "[[rule]]\nname = 'all'\nwhen = 'true'\naction = 'hold'\n".replace("action", "send_to = ['pacs']\naction"))
    assert diff(site, new)["studies"] == 1
    assert diff(site, new, "--last", "2w")["studies"] == 2
    assert CliRunner().invoke(cli.app, ["--config", str(site.path), "rules", "diff", str(new), "--last", "soon"]).exit_code == 2


def test_a_study_without_headers_is_counted_as_such(site: Site) -> None:
    at_now(site)
    came(site, "gone")
    with site.stepped.engine.begin() as connection:
        connection.execute(sa.update(tables.instance).values(header=None))
    came(site, "here")
    told = diff(site, other_rules(site, RULES))
    assert (told["studies"], told["cannot_be_replayed"], told["changed"]) == (2, 1, 0)


def test_more_studies_than_one_batch_come_each_once(site: Site) -> None:
    """Copies of one study's rows in a few hours, more in one hour than a batch has."""
    at_now(site)
    came(site, "first")
    count = 2 * BATCH + 7
    with site.stepped.engine.begin() as connection:
        study = dict(connection.execute(sa.select(tables.study)).one()._mapping)
        [first, *_] = [dict(row._mapping) for row in connection.execute(sa.select(tables.instance)).all()]
        del first["id"]
        for number in range(count):
            copied = f"1.2.3.{number}"
            moved = {"study_instance_uid": copied, "last_hour": study["last_hour"] - (number % 5 == 0), "workflow_id": None}
            connection.execute(sa.insert(tables.study).values({**study, **moved}))
            connection.execute(sa.insert(tables.instance).values({**first, "study_instance_uid": copied}))
    new = other_rules(site, "[[rule]]\nname = 'all'\nwhen = 'true'\nsend_to = ['pacs']\naction = 'hold'\n")
    told = diff(site, new)
    uids = [one["study_instance_uid"] for one in told["changed_studies"]]
    assert told["studies"] == told["changed"] == len(uids) == len(set(uids)) == count + 1


def test_a_batch_is_found_by_its_index(stepped: SteppedStore) -> None:
    """Whatever is stored, a page costs what stands on it."""
    with stepped.engine.begin() as connection:
        now = stepped.now
        rows = [
            {
                "study_instance_uid": f"1.2.{number}",
                "state": "analysed",
                "first_instance_at": now,
                "last_instance_at": now,
                "last_hour": 400_000 + number,
                "collecting_since": now,
            }
            for number in range(3000)
        ]
        connection.execute(sa.insert(tables.study), rows)
        query = page((402_000, "1.2.3"), 402_900).compile(connection, compile_kwargs={"literal_binds": True})
        if connection.dialect.name == "sqlite":
            plan = " ".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all())
            assert "ix_study_last_hour" in plan and "SCAN study" not in plan, plan
        else:
            connection.exec_driver_sql("ANALYZE study")
            plan = " ".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN {query}").all())
            assert "Index" in plan and "Seq Scan" not in plan, plan


def test_a_card_of_the_new_rules_is_looked_through(site: Site) -> None:
    """Another model takes other images: its rule is asked again with those, as a worker would."""
    at_now(site)
    site.path.with_name("other.toml").write_text(SIMULATED_CARD.replace('name = "', 'name = "Other '))
    came(site, "one")
    text = RULES.replace('name = "new ones"', 'name = "new ones"\nmodel = "other.toml"')
    told = diff(site, other_rules(site, text))
    assert told["changed"] == 1
    assert "model the site's -> " in told["changes"][0]["change"] and "other.toml" in told["changes"][0]["change"]


def test_a_study_that_moves_into_a_later_hour_meanwhile_is_not_left_out(stepped: SteppedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "BATCH", 1)
    monkeypatch.setattr(replay, "database_now", lambda _connection: stepped.now)
    studies = ("one", "another")
    stepped.receive(*(image(View.L_CC, study, study=study) for study in studies))
    stepped.work()
    found = replay.Replay(stepped.engine, stepped.policy).of_last(1)
    first = next(found).study_instance_uid
    [other] = [study for study in studies if uid(study) != first]
    stepped.step(3600)
    stepped.receive(image(View.R_CC, other, study=other))
    assert [one.study_instance_uid for one in found] == [uid(other)]
