"""Rules that are refused when the configuration is loaded: patterns that run away, rules that can never match, what nobody uses."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_config import PACS, complaints, read

from pipeline.rule_condition import RuleError, check, compiled, truth
from pipeline.rule_pattern import runs_away
from pipeline.rule_reach import is_covered, never_matches

# Patterns


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a*)*$",
        "(a|a)*x",
        "(a|ab)*c",
        "([a-z]+)*1",
        "(.*,)*x",
        "(a?b?){40}",
        "((a{1,9}){1,9}){1,9}",
        "(?:\\w+\\s?)*$",
        "(a+){3,}",
        "(?=(a+)+b)c",
        "(x)?(?(1)(a+)+|b)c",
        ".*.*.*.*x",
        ".*a.*b.*c.*d",
        "(.*a){4}x",
        "(?i)(ia|\u0131a)*x",
        "(?i)(\u0130a|Ia)*x",
    ],
)
def test_a_pattern_that_runs_away_is_refused(pattern: str) -> None:
    re.compile(pattern)
    assert runs_away(pattern, anywhere=False), pattern
    with pytest.raises(RuleError, match="could try for"):
        check(f"StudyDescription =~ '{pattern}'".replace("\\", "\\\\"))


@pytest.mark.parametrize(
    "pattern",
    [
        "HOLOGIC",
        "(?i)screen",
        "^\\s*screen",
        "\\d{2}",
        "(?i)(left|right|bilat)",
        "(CC|MLO)+$",
        "ROOM[0-9]+",
        "(?i).*screen.*left.*",
        ".*mammo.*left",
        "1\\.2\\.840\\.(\\d{1,9}\\.){3}\\d+",
        "(a|b)*c",
        "(?:ab)+x",
        "a{1,1000}b",
        "[^,]*,[^,]*",
        "(?P<room>ROOM)(?P=room)?",
        "",
    ],
)
def test_an_ordinary_pattern_is_taken(pattern: str) -> None:
    assert runs_away(pattern, anywhere=False) == "", pattern
    assert runs_away(pattern, anywhere=True) == "", pattern


def test_what_is_searched_for_anywhere_may_have_fewer_open_parts() -> None:
    pattern = ".*a.*b.*c"
    assert runs_away(pattern, anywhere=False) == ""
    assert "at most 2 parts" in runs_away(pattern, anywhere=True)
    assert runs_away("^" + pattern, anywhere=True) == ""
    assert runs_away("(?m)^" + pattern, anywhere=True), "with (?m) it begins at every line"


def test_what_repeats_what_was_found_counts_as_of_open_length() -> None:
    assert runs_away("(.*)(.*)\\1b", anywhere=True), "it ran for half a minute on 1,024 equal letters"
    assert runs_away("(.*)-\\1", anywhere=True) == ""


PIECES = ["a", "b", ".", "[ab]", "a+", "a*", ".*", "(a|b)", "(a|ab)", "(a+)", "a?", "a{1,3}", "(ab)+", "(a+)+", "(a?b)*", "(?:a|a)*"]


TRIED = """
import re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
for pattern in sys.stdin.read().splitlines():
    for text in ("a", "b", "ab", "aab"):
        re.match(pattern, (text * 60)[:60])
"""


def test_what_is_taken_ends() -> None:
    """Every pattern of up to three pieces that is not refused, on texts on which an exponential one would go on for ages."""
    patterns = ["".join(pieces) + "x" for count in (1, 2, 3) for pieces in itertools.product(PIECES, repeat=count)]
    taken = [pattern for pattern in patterns if not runs_away(pattern, anywhere=False)]
    assert 500 < len(taken) < len(patterns)
    tried = subprocess.run([sys.executable, "-c", TRIED], input="\n".join(taken), text=True, timeout=600, check=False)
    assert tried.returncode == 0, "a pattern that was taken ran until its time was over"


def test_the_pattern_is_named_with_its_line(config_file: Path) -> None:
    text = '[[rule]]\nname = "a"\nwhen = \'StudyDescription =~~ "(a+)+"\'\naction = "hold"\n'
    [found] = complaints(config_file, text)
    assert found.startswith('config.toml:3: rule.when: StudyDescription =~~ "(a+)+": the pattern repeats a part that can match in several')
    assert "[a-z ]+" in found


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


# Rules that can never match


@pytest.mark.parametrize(
    "when",
    [
        "false",
        "not true",
        'Modality == "MG" and Modality == "CR"',
        'Modality == "MG" and not Modality == "MG"',
        'Modality == "MG" and Modality not in ["MG", "CR"]',
        'Modality == "MG" and Modality == null',
        'Modality == ""',
        'Modality == "MG "',
        "NumViews == null",
        "NumViews > 4",
        'NumViews == 4 and Laterality == "L"',
        'NumViews < 2 and "L-CC" in Views and "R-CC" in Views',
        'Laterality == "R" and "L-MLO" in Views',
        "StudyAge < 0",
        "StudyAge > 3 and StudyAge < 4",
        "StudyAge == 2.5",
        "StudyAge <= 14 and StudyAge > 20",
        "PatientAge < 40 and PatientAge > 50",
        "Hour > 23",
        "Hour >= 18 and Hour < 6",
        'Weekday == "Monday" and Weekday == "Tuesday"',
        'Implant not in ["YES", "NO"]',
        'Modality == "MG" and Modality =~ "C"',
        'StationName =~ "ROOM" and not StationName =~ "ROOM"',
    ],
)
def test_a_condition_that_no_study_meets(when: str) -> None:
    assert never_matches(when), when


@pytest.mark.parametrize(
    "when",
    [
        "true",
        'Modality == "MG"',
        'Modality != "MG" and Modality != "CR"',
        'Modality == "MG" or Modality == "CR"',
        'StationName =~ "ROOM" and StationName =~ "VAN"',  # a pattern may say what it likes
        'StationName =~ "ROOM" and StationName != "ROOM1"',
        "Modality == CallingAET and Modality != CalledAET",
        "StudyAge > 3 and StudyAge < 5",
        "PatientAge > 3 and PatientAge < 4",
        "StudyAge == null and Modality == null",
        "Hour >= 18 or Hour < 6",
        'NumViews == 2 and Laterality == "L"',
        'Implant == null or Implant == "NO"',
        'StationName == "ROOM1" and StationName =~ "ROOM"',
    ],
)
def test_a_condition_that_some_study_may_meet(when: str) -> None:
    assert not never_matches(when), when


@pytest.mark.parametrize(
    ("when", "by", "covered"),
    [
        ('Modality == "MG"', "true", True),
        ('Modality == "MG"', 'Modality=="MG"', True),
        ('Modality == "MG" and StudyAge <= 14', 'Modality == "MG"', True),
        ('Modality == "MG" and StudyAge <= 14', 'StudyAge <= 14 and Modality == "MG"', True),
        ("StudyAge <= 7", "StudyAge <= 14", True),
        ("StudyAge < 15", "StudyAge <= 14", True),  # whole days
        ("PatientAge < 15", "PatientAge <= 14", False),
        ("StudyAge <= 14", "StudyAge <= 7", False),
        ('Modality == "MG"', 'Modality in ["MG", "CR"]', True),
        ('Modality in ["MG", "CR"]', 'Modality == "MG"', False),
        ('Modality == "MG"', 'Modality != "CR"', True),
        ("NumViews == 4", 'Laterality == "B"', True),
        ('Laterality == "B"', "NumViews == 4", False),
        ('StationName =~ "ROOM1"', 'StationName =~ "ROOM"', False),  # so it is, but a pattern's meaning is not looked at
        ('StationName == "ROOM1"', 'StationName =~ "ROOM"', True),
        ('not (Implant == "YES")', 'Implant != "YES"', True),
        ('Implant == null or Implant == "NO"', 'not (Implant == "YES")', False),  # which does not match without a value
        ("true", 'Modality == "MG" or not (Modality == "MG")', False),
    ],
)
def test_what_another_rule_takes_before(when: str, by: str, covered: bool) -> None:
    assert is_covered(when, by) is covered


def test_too_many_ways_are_not_tried() -> None:
    names = ("Modality", "StationName", "Manufacturer", "StudyDescription", "ProtocolName", "SeriesDescription", "BodyPart", "CallingAET")
    many = " and ".join(f'{name} in ["A", "B", "C", "D"]' for name in names)
    assert not never_matches(many + ' and Modality == "E"')


LEAVES = [
    'Modality == "MG"',
    'Modality != "CR"',
    'Modality in ["MG", "US"]',
    'Modality =~ "M"',
    'StationName =~~ "1"',
    'StationName == "ROOM1"',
    "StudyAge <= 14",
    "StudyAge > 7",
    "StudyAge == null",
    "PatientAge >= 40.5",
    'Implant == "YES"',
    "Implant == null",
    "Modality == StationName",
    "true",
    "false",
]
CONDITIONS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: (
        inner.map(lambda one: f"not ({one})")
        | st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda one: f"({one[0]}) {one[1]} ({one[2]})")
    ),
    max_leaves=6,
)
FACTS = st.fixed_dictionaries(
    {
        "Modality": st.sampled_from([None, "MG", "CR", "US", "M", "ROOM1"]),
        "StationName": st.sampled_from([None, "ROOM1", "ROOM2", "1", "MG"]),
        "StudyAge": st.sampled_from([None, 0, 7, 8, 14, 15, 99]),
        "PatientAge": st.sampled_from([None, 0.5, 40, 40.5, 41]),
        "Implant": st.sampled_from([None, "YES", "NO"]),
    }
)


@settings(max_examples=200, deadline=None)
@given(CONDITIONS, CONDITIONS, FACTS)
def test_nothing_is_claimed_that_a_study_refutes(first: str, second: str, facts: dict[str, object]) -> None:
    one, other = truth(compiled(first), facts), truth(compiled(second), facts)
    assert not (one and never_matches(first))
    assert not (one and other is not True and is_covered(first, second))


NEVER = "can never match"


def rule(name: str, when: str, **more: str) -> str:
    keys = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f'[[rule]]\nname = "{name}"\nwhen = \'{when}\'\naction = "hold"\n{keys}'


def test_rules_that_are_never_reached_are_named_with_their_lines(config_file: Path) -> None:
    text = rule("a", 'Modality == "MG"') + rule("b", 'Modality == "MG" and StudyAge <= 3') + rule("c", "StudyAge < 0") + rule("d", "true")
    assert complaints(config_file, text + rule("e", 'StationName == "X"')) == [
        f"config.toml:7: rule.when: {NEVER}: whatever it matches, rule 'a' before it matches too; put it before that rule, or remove it",
        f"config.toml:11: rule.when: {NEVER}: no study has values that make it true; correct it, or remove the rule",
        f"config.toml:19: rule.when: {NEVER}: whatever it matches, rule 'd' before it matches too; put it before that rule, or remove it",
    ]


def test_rules_in_the_right_order_are_taken(config_file: Path) -> None:
    assert (
        len(read(config_file, rule("b", 'Modality == "MG" and StudyAge <= 3') + rule("a", 'Modality == "MG"') + rule("d", "true")).rules)
        == 3
    )


# Destinations and cards


def test_a_destination_that_nobody_uses_is_named(config_file: Path) -> None:
    [found] = complaints(config_file, PACS + rule("a", "true"))
    assert found.startswith("config.toml:3: pacs.name: no rule names it and nothing is fetched from it; write it into send_to of a rule")
    assert "by_hand = true" in found


@pytest.mark.parametrize(
    "text",
    [
        PACS + "by_hand = true\n" + rule("a", "true"),
        PACS + rule("a", "true", send_to='["archive"]'),
        '[study]\nfetch_from = "archive"\n' + PACS + 'url = "http://127.0.0.1:8042"\n' + rule("a", "true"),
        PACS.replace("archive", "orthanc") + 'url = "http://127.0.0.1:8042"\n' + rule("a", "true"),  # fetched from by default
    ],
)
def test_a_destination_that_somebody_uses_is_taken(config_file: Path, text: str) -> None:
    assert len(read(config_file, text).pacs) == 1


def test_a_model_card_that_is_not_there_is_named(config_file: Path) -> None:
    (config_file.parent / "cards").mkdir()
    (config_file.parent / "cards" / "resnet.toml").touch()
    text = rule("a", 'Modality == "MG"', model='"cards/resnt.toml"') + rule("b", "true", model='"nowhere.toml"')
    near, unknown = complaints(config_file, text)
    assert near == "config.toml:5: rule.model: no such file; did you mean resnet.toml? (got 'cards/resnt.toml')"
    assert unknown.startswith(
        "config.toml:10: rule.model: no such file; write the path of a model card, relative to the folder of this file"
    )
    assert read(config_file, text.replace("resnt", "resnet").replace("nowhere", "cards/resnet")).rules


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "\ufeff"])
def test_an_empty_file_says_so(config_file: Path, text: str) -> None:
    [found] = complaints(config_file, text)
    assert found.startswith("config.toml:1: the file is empty; copy the config.toml that comes with Fourview")
