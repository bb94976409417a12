"""Rules: what conditions may say, the truth of tests on absent values, precedence, and studies of unknown age."""

from __future__ import annotations

import itertools
import json
import warnings
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mammograms_made import mammogram
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from pipeline.rule_condition import SYMBOLS, RuleError, check
from pipeline.rule_facts import facts
from pipeline.rules import SLOTS, Action, Rule, decide
from store.study import HANGING_ORDER, ImageKind, View, WhenIncomplete

TODAY = date(2026, 11, 23)
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
T, F, U = True, False, None

ABSENT: dict[str, object] = {symbol.name: None for symbol in SYMBOLS} | {"Views": [], "NumViews": 0}


def truth(when: str, **values: object) -> bool | None:
    """The condition's truth, seen from outside: unknown is what neither it nor its negation matches."""
    given_facts = {**ABSENT, **values}
    yes = decide([Rule("yes", when, Action.HOLD)], given_facts).rule_name == "yes"
    no = decide([Rule("no", f"not ({when})", Action.HOLD)], given_facts).rule_name == "no"
    assert not (yes and no)
    return True if yes else False if no else None


# Absence


@pytest.mark.parametrize(
    ("when", "absent", "present", "value"),
    [
        ('Modality == "MG"', U, T, "MG"),
        ('Modality == "MG"', U, F, "CR"),
        ('Modality != "MG"', U, F, "MG"),
        ('Modality != "MG"', U, T, "CR"),
        ('"MG" == Modality', U, T, "MG"),
        ('Modality in ["MG", "CR"]', U, T, "CR"),
        ('Modality in ["MG", "CR"]', U, F, "DX"),
        ('Modality not in ["MG", "CR"]', U, F, "CR"),
        ('Modality not in ["MG", "CR"]', U, T, "DX"),
        ('"G" in Modality', U, T, "MG"),
        ('"G" not in Modality', U, F, "MG"),
        ('Modality =~ "M"', U, T, "MG"),
        ('Modality =~ "G"', U, F, "MG"),
        ('Modality =~~ "G"', U, T, "MG"),
        ('Modality !~ "M"', U, F, "MG"),
        ('Modality !~ "G"', U, T, "MG"),
        ('Modality !~~ "G"', U, F, "MG"),
        ('Modality =~~ "(?i)mg"', U, T, "MG"),
        ("Modality == CalledAET", U, U, "MG"),
        ("Modality != CalledAET", U, U, "MG"),
        ("Modality == null", T, F, "MG"),
        ("Modality != null", F, T, "MG"),
        ("null == Modality", T, F, "MG"),
        ("not Modality == null", F, T, "MG"),
        ('not Modality == "MG"', U, F, "MG"),
        ("true", T, T, "MG"),
        ("false", F, F, "MG"),
    ],
)
def test_tests_on_text(when: str, absent: bool | None, present: bool | None, value: str) -> None:
    assert truth(when) is absent
    assert truth(when, Modality=value) is present


@pytest.mark.parametrize(
    ("operator", "below", "equal", "above"),
    [("<", T, F, F), ("<=", T, T, F), (">", F, F, T), (">=", F, T, T), ("==", F, T, F), ("!=", T, F, T)],
)
def test_comparisons_of_numbers(operator: str, below: bool, equal: bool, above: bool) -> None:
    when = f"PatientAge {operator} 40"
    assert truth(when) is U
    assert [truth(when, PatientAge=age) for age in (39, 39.5, 40, 40.0, 40.5, 41)] == [below, below, equal, equal, above, above]


def test_lists_are_never_absent() -> None:
    assert truth('"L-CC" in Views') is F
    assert truth('"L-CC" in Views', Views=["R-CC", "L-CC"]) is T
    assert truth('"L-CC" not in Views', Views=["R-CC"]) is T
    assert truth("NumViews == 0") is T


VALUES = {True: "true", False: "false", None: 'Modality == "MG"'}


@pytest.mark.parametrize(
    ("a", "b", "not_a", "a_and_b", "a_or_b"),
    [
        (T, T, F, T, T),
        (T, F, F, F, T),
        (T, U, F, U, T),
        (F, T, T, F, T),
        (F, F, T, F, F),
        (F, U, T, F, U),
        (U, T, U, U, T),
        (U, F, U, F, U),
        (U, U, U, U, U),
    ],
)
def test_and_or_not_of_unknown(a: bool | None, b: bool | None, not_a: bool | None, a_and_b: bool | None, a_or_b: bool | None) -> None:
    assert truth(f"not {VALUES[a]}") is not_a
    assert truth(f"{VALUES[a]} and {VALUES[b]}") is a_and_b
    assert truth(f"{VALUES[a]} or {VALUES[b]}") is a_or_b


@pytest.mark.parametrize(("a", "b", "c"), list(itertools.product((T, F, U), repeat=3)))
def test_not_binds_before_and_and_that_before_or(a: bool | None, b: bool | None, c: bool | None) -> None:
    x, y, z = ({T: 1.0, F: 0.0, U: 0.5}[one] for one in (a, b, c))
    said = {1.0: T, 0.0: F, 0.5: U}
    assert truth(f"{VALUES[a]} or {VALUES[b]} and {VALUES[c]}") is said[max(x, min(y, z))]
    assert truth(f"{VALUES[a]} and {VALUES[b]} or {VALUES[c]}") is said[max(min(x, y), z)]
    assert truth(f"not {VALUES[a]} and {VALUES[b]}") is said[min(1 - x, y)]
    assert truth(f"not {VALUES[a]} or {VALUES[b]}") is said[max(1 - x, y)]


Tree = tuple[Any, ...]
LEAVES = st.sampled_from([("leaf", text, name, value) for text, name, value in (
    ('Modality == "MG"', "Modality", "MG"), ('StationName != "A"', "StationName", "B"), ('BodyPart =~ "BR"', "BodyPart", "BREAST"),
)])  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: st.tuples(st.just("not"), inner) | st.tuples(st.sampled_from(["and", "or"]), inner, inner),
    max_leaves=8,
)


def written(tree: Tree, level: int = 0) -> str:
    """With no more parentheses than needed: `not` binds tightest, then `and`, then `or`."""
    kind = tree[0]
    if kind == "leaf":
        return str(tree[1])
    if kind == "not":
        return "not " + written(tree[1], 3)
    own = 2 if kind == "and" else 1
    text = f"{written(tree[1], own)} {kind} {written(tree[2], own + 1)}"
    return f"({text})" if own < level else text


def kleene(tree: Tree, truths: dict[str, bool | None]) -> bool | None:
    """The same by numbers: false 0, unknown 1/2, true 1; and is min, or is max, not is 1 - x."""

    def number(node: Tree) -> float:
        if node[0] == "leaf":
            return {True: 1.0, False: 0.0, None: 0.5}[truths[node[2]]]
        if node[0] == "not":
            return 1 - number(node[1])
        return (min if node[0] == "and" else max)(number(node[1]), number(node[2]))

    return {1.0: True, 0.0: False, 0.5: None}[number(tree)]


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_any_condition_in_every_combination_of_absence(tree: Tree) -> None:
    right = {"Modality": "MG", "StationName": "B", "BodyPart": "BREAST"}
    wrong = {"Modality": "CR", "StationName": "A", "BodyPart": "HEAD"}
    for truths in itertools.product((T, F, U), repeat=3):
        by_name = dict(zip(right, truths, strict=True))
        values = {name: right[name] if said else None if said is None else wrong[name] for name, said in by_name.items()}
        assert truth(written(tree), **values) is kleene(tree, by_name)


@given(st.text(alphabet='MG"()[]=<>!~ andornotinullStudyAge1.,&|$', max_size=40))
def test_nonsense_is_refused_in_words(text: str) -> None:
    try:
        check(text)
    except RuleError as error:
        assert str(error)


# Decisions


@pytest.mark.parametrize("truths", list(itertools.product((T, F, U), repeat=3)))
def test_the_first_match_decides(truths: tuple[bool | None, ...]) -> None:
    rules = [Rule(f"rule {index}", VALUES[said], Action.ANALYSE, ("a",)) for index, said in enumerate(truths)]
    decision = decide(rules, ABSENT)
    if True in truths:
        first = rules[truths.index(True)]
        assert (decision.action, decision.rule_name, decision.rule_hash) == (Action.ANALYSE, first.name, first.text_hash)
        assert decision.send_to == ("a",)
    else:
        assert (decision.action, decision.rule_name, decision.rule_hash, decision.send_to) == (Action.IGNORE, "", "", ())


def test_a_match_tells_the_values_it_saw() -> None:
    rule = Rule("every new mammogram", 'Modality == "MG" and StudyAge <= 14', Action.ANALYSE, ("orthanc",))
    decision = decide([rule], {**ABSENT, "Modality": "MG", "StudyAge": 3})
    assert decision.reason == "rule 'every new mammogram' matched: Modality is \"MG\", StudyAge is 3"
    assert decision.values == {"Modality": "MG", "StudyAge": 3}


def test_no_match_tells_for_each_rule_what_was_missing() -> None:
    rules = [
        Rule("every new mammogram", 'Modality == "MG" and StudyAge <= 14', Action.ANALYSE),
        Rule("rooms", '(StationName == "A" or StationName == "B") and Modality == "MG"', Action.ANALYSE),
        Rule("women", 'not (PatientSex == "M" or NumViews < 4)', Action.ANALYSE),
        Rule("off", "false", Action.ANALYSE),
    ]
    decision = decide(rules, {**ABSENT, "Modality": "MG", "StudyAge": 3412, "PatientSex": "F"})
    assert decision.action is Action.IGNORE
    assert decision.reason == (
        "no rule matched: 'every new mammogram' needs StudyAge <= 14 but StudyAge is 3412; "
        '\'rooms\' needs StationName == "A" or StationName == "B" but StationName is absent; '
        '\'women\' needs not (PatientSex == "M" or NumViews < 4) but PatientSex is "F", NumViews is 0; '
        "'off' needs false"
    )
    assert decide([], ABSENT).reason == "no rule is configured"


def test_a_false_part_explains_more_than_an_unknown_one() -> None:
    decision = decide([Rule("r", 'BodyPart == "BREAST" and Modality == "MG"', Action.ANALYSE)], {**ABSENT, "Modality": "CT"})
    assert decision.reason.endswith('needs Modality == "MG" but Modality is "CT"')


def test_decisions_can_be_kept_as_json() -> None:
    rules = [Rule("r", 'PatientAge > 50 and "L-CC" in Views and Kind == "FFDM"', Action.HOLD)]
    seen = facts([mammogram()], views=[View.L_CC], calling_ae_title="A", called_ae_title="B", today=TODAY, kind="FFDM")
    decision = decide(rules, seen)
    assert json.loads(json.dumps(decision.values)) == {"PatientAge": 56, "Views": ["L-CC"], "Kind": "FFDM"}


def test_a_rules_hash_changes_with_every_word() -> None:
    rule = Rule("a", "true", Action.ANALYSE, ("b",))
    others = [
        Rule("A", "true", Action.ANALYSE, ("b",)),
        Rule("a", "true ", Action.ANALYSE, ("b",)),
        Rule("a", "true", Action.HOLD, ("b",)),
        Rule("a", "true", Action.ANALYSE, ("b", "c")),
        Rule("a", "true", Action.ANALYSE, ()),
        Rule("a", "true", Action.ANALYSE, ("b",), "left"),
        Rule("a", "true", Action.ANALYSE, ("b",), "right"),
        Rule("a", "true", Action.ANALYSE, ("b", "left")),
        Rule("a", "true", Action.ANALYSE, ("b", "slots", "left")),
        *(Rule("a", "true", Action.ANALYSE, ("b",), when_incomplete=said) for said in WhenIncomplete),
        *(Rule("a", "true", Action.ANALYSE, ("b",), "left", said) for said in WhenIncomplete),
        Rule("a", "true", Action.ANALYSE, ("b", "hold")),
    ]
    assert len({other.text_hash for other in [rule, *others]}) == 1 + len(others)
    assert rule.text_hash == Rule("a", "true", Action.ANALYSE, ("b",)).text_hash


def test_a_rule_that_says_nothing_of_slots_keeps_the_hash_that_databases_hold() -> None:
    kept = "0b28082d6bd12b446936d9fed865d07738c7db36a4d0582361ade561bb469794"  # written before rules had slots
    assert Rule("a", "true", Action.ANALYSE, ("b",)).text_hash == kept
    assert Rule("a", "true", Action.ANALYSE, ("b",), "standard", None).text_hash == kept


# Slots, and what happens when some stay empty


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("standard", (View.R_CC, View.L_CC, View.R_MLO, View.L_MLO)),
        ("left", (View.L_CC, View.L_MLO)),
        ("right", (View.R_CC, View.R_MLO)),
    ],
)
@pytest.mark.parametrize("when_incomplete", [None, *WhenIncomplete])
@pytest.mark.parametrize("action", [Action.ANALYSE, Action.HOLD])
def test_the_rule_that_decides_says_which_views_are_expected(
    word: str, expected: tuple[View, ...], when_incomplete: WhenIncomplete | None, action: Action
) -> None:
    rules = [
        Rule("another", "false", Action.ANALYSE, ("b",), "right" if word == "left" else "left", WhenIncomplete.IGNORE),
        Rule("this", "true", action, ("a",), word, when_incomplete),
        Rule("later", "true", Action.ANALYSE, ("c",)),
    ]
    decision = decide(rules, ABSENT)
    assert (decision.rule_name, decision.action, decision.send_to) == ("this", action, ("a",))
    assert (decision.slots, decision.when_incomplete) == (expected, when_incomplete)


def test_without_a_match_the_standard_views_are_expected() -> None:
    for rules in ([], [Rule("r", "false", Action.ANALYSE, ("a",), "left", WhenIncomplete.ANALYSE)]):
        decision = decide(rules, ABSENT)
        assert (decision.action, decision.slots, decision.when_incomplete) == (Action.IGNORE, HANGING_ORDER, None)


def test_there_are_three_profiles_of_slots() -> None:
    assert list(SLOTS) == ["standard", "left", "right"]
    assert SLOTS["standard"] == HANGING_ORDER


# Studies of unknown age

NEW = Rule("new", 'Modality == "MG" and StudyAge <= 14', Action.ANALYSE, ("orthanc",))
OLD = Rule("old", "StudyAge > 14", Action.IGNORE)
ANY = Rule("any", 'Modality == "MG"', Action.ANALYSE, ("orthanc",))
ELSEWHERE = Rule("elsewhere", 'Modality == "MG"', Action.ANALYSE, ("archive",))
EXACT = Rule("exact", "StudyAge == 14", Action.ANALYSE)
REST = Rule("rest", "true", Action.IGNORE)
UNDATED = Rule("undated", "StudyAge == null", Action.IGNORE)
CHECKED = Rule("checked", "StudyAge != null and StudyAge <= 14", Action.ANALYSE)
ADULT = Rule("adult", "PatientAge >= 18 and StudyAge <= 14", Action.ANALYSE)
NEVER = Rule("never", "StudyAge < 0", Action.ANALYSE)
BETWEEN = Rule("between", "StudyAge > 13 and StudyAge < 15", Action.ANALYSE)
EITHER = Rule("either", "StudyAge <= 14 or StudyAge > 14", Action.ANALYSE, ("orthanc",))
LEFT = Rule("left", 'Modality == "MG" and StudyAge <= 14', Action.ANALYSE, ("orthanc",), "left")
PARTIAL = Rule("partial", 'Modality == "MG" and StudyAge <= 14', Action.ANALYSE, ("orthanc",), when_incomplete=WhenIncomplete.ANALYSE)
ANY_LEFT = Rule("any left", 'Modality == "MG"', Action.ANALYSE, ("orthanc",), "left")


@pytest.mark.parametrize(
    ("rules", "action", "rule_name"),
    [
        ([NEW], Action.HOLD, "new"),
        ([NEW, REST], Action.HOLD, "new"),  # a later rule for the rest must not drop it
        ([OLD, ANY], Action.HOLD, "old"),  # nor may a later one analyse it
        ([OLD], Action.IGNORE, ""),  # ignored at any age
        ([NEW, ANY], Action.ANALYSE, "any"),  # analysed at any age, to the same places
        ([NEW, ELSEWHERE], Action.HOLD, "new"),  # where its results go would be a guess
        ([LEFT, ANY], Action.HOLD, "left"),  # which views are awaited would be one
        ([PARTIAL, ANY], Action.HOLD, "partial"),  # and what happens when some never come
        ([LEFT, ANY_LEFT], Action.ANALYSE, "any left"),
        ([EXACT], Action.HOLD, "exact"),
        ([UNDATED, NEW], Action.IGNORE, "undated"),  # the site has said what to do
        ([REST, NEW], Action.IGNORE, "rest"),
        ([CHECKED], Action.IGNORE, ""),  # here too
        ([ADULT], Action.IGNORE, ""),  # the patient's age is absent too: no StudyAge would make it match
        ([NEVER], Action.IGNORE, ""),
        ([BETWEEN], Action.HOLD, "between"),
        ([EITHER], Action.HOLD, "either"),
    ],
)
def test_a_study_of_unknown_age(rules: list[Rule], action: Action, rule_name: str) -> None:
    decision = decide(rules, {**ABSENT, "Modality": "MG"})
    assert (decision.action, decision.rule_name) == (action, rule_name)
    if action is Action.HOLD:
        held_by = next(rule for rule in rules if rule.name == rule_name)
        assert decision.send_to == held_by.send_to and decision.rule_hash == held_by.text_hash
        assert decision.slots == SLOTS[held_by.slots] and decision.when_incomplete == held_by.when_incomplete
        assert "StudyAge" in decision.reason and "Study Date" in decision.reason and rule_name in decision.reason


def test_age_makes_no_difference_to_another_modality() -> None:
    assert decide([NEW], {**ABSENT, "Modality": "CT"}).action is Action.IGNORE


@pytest.mark.parametrize(
    ("study_date", "age"),
    [
        ("20261123", 0),
        ("20261109", 14),
        ("2026.11.22", 1),
        ("19991231", (TODAY - date(1999, 12, 31)).days),
        ("20261124", None),
        ("20260230", None),
        ("2026", None),
        ("20261101-20261102", None),
        ("", None),
        (None, None),
    ],
)
def test_study_age(study_date: str | None, age: int | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = mammogram(StudyDate=study_date)
    seen = facts([ds], views=[View.L_CC], calling_ae_title="A", called_ae_title="B", today=TODAY)
    assert seen["StudyAge"] == age
    assert decide([NEW], seen).action is (Action.HOLD if age is None else Action.ANALYSE if age <= 14 else Action.IGNORE)


# Facts


def seen(*headers: Any, views: tuple[View, ...] = (), **more: Any) -> dict[str, object]:
    return facts(headers, views=views, calling_ae_title=more.get("calling", "PEER"), called_ae_title="FOURVIEW", today=TODAY)


def test_every_symbol_has_a_value_of_its_type() -> None:
    types = {"string": str, "number": int | float, "list of strings": list}
    ds = mammogram(StudyDescription="Screening", SeriesDescription="L CC", ProtocolName="P")
    values = facts(
        [ds], views=HANGING_ORDER, calling_ae_title="A", called_ae_title="B", today=TODAY, kind=ImageKind.FFDM.value, came_at=NOW
    )
    assert list(ABSENT) == [symbol.name for symbol in SYMBOLS]
    assert values.keys() == ABSENT.keys()
    for symbol in SYMBOLS:
        assert isinstance(values[symbol.name], types[symbol.type]), symbol.name


def test_without_headers_everything_is_absent() -> None:
    assert facts([], views=[], calling_ae_title="", called_ae_title=" ", today=TODAY) == ABSENT


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ("ROOM1 ", "ROOM1"),
        ("ROOM1\0\0", "ROOM1"),
        (["A ", " B"], "A\\B"),
        (["", "B"], "\\B"),
        ("", None),
        (" \0", None),
        ("x" * 3000, "x" * 1024),
    ],
)
def test_text_is_cleaned(value: Any, fact: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = mammogram(StationName=value)
    assert seen(ds)["StationName"] == fact


@pytest.mark.parametrize(
    ("age", "birth_date", "years"),
    [
        ("056Y", None, 56),
        ("006M", None, 0.5),
        ("010W", None, 0.19),
        ("365D", None, 1),
        ("000Y", "19700101", 0),
        (None, "19761120", 50),
        (None, "19761121", 49),
        ("", "19761120", 50),
        ("56", "19761120", 50),
        (None, "20270101", None),
        (None, "", None),
        (None, None, None),
    ],
)
def test_patient_age(age: str | None, birth_date: str | None, years: float | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = mammogram(PatientAge=age, PatientBirthDate=birth_date)
    assert seen(ds)["PatientAge"] == years


def test_patient_age_is_that_at_the_study() -> None:
    later = TODAY + timedelta(days=4000)
    ds = mammogram(PatientAge=None, PatientBirthDate="19761120")
    assert facts([ds], views=[], calling_ae_title="A", called_ae_title="B", today=later)["PatientAge"] == 50


@pytest.mark.parametrize(
    ("said", "implant"),
    [(("NO", "NO"), "NO"), (("NO", "YES"), "YES"), (("YES", None), "YES"), (("NO", None), None), ((None, None), None), (("", "NO"), None)],
)
def test_an_implant_on_one_image_is_an_implant(said: tuple[str | None, ...], implant: str | None) -> None:
    assert seen(*(mammogram(BreastImplantPresent=value) for value in said))["Implant"] == implant


@pytest.mark.parametrize(
    ("views", "laterality"),
    [((), None), ((View.L_CC,), "L"), ((View.R_MLO, View.R_CC), "R"), ((View.R_MLO, View.L_CC), "B")],
)
def test_views_and_sides(views: tuple[View, ...], laterality: str | None) -> None:
    values = seen(mammogram(), views=views)
    assert values["Laterality"] == laterality
    assert values["NumViews"] == len(views)
    assert values["Views"] == [view.value for view in HANGING_ORDER if view in views]


def test_what_the_header_says_of_the_patient_stays_out() -> None:
    ds = mammogram(PatientName="Marked^Name", PatientID="MARKED-ID", AccessionNumber="MARKED-ACC", PatientBirthDate="19010203")
    assert not any("MARKED" in str(value).upper() or "1901" in str(value) for value in seen(ds).values())


@pytest.mark.parametrize("vr", ["LO", "UN", "XX", "SQ", "US", "FD", "DS", "PN", "OB", "AT"])
@pytest.mark.parametrize("value", [b"", b"1", b"\xff\xfe\0abc", b"\x1b$)C\xb0", b"\xfe\xff\x00\xe0\x08\0\0\0\x10\0\x10\0\0\0\0\0"])
def test_a_header_in_any_vr_gives_text_or_nothing(vr: str, value: bytes) -> None:
    ds = mammogram(SpecificCharacterSet=None)
    for tag in (0x00081010, 0x00080020, 0x00101010, 0x00281300):
        ds[tag] = RawDataElement(BaseTag(tag), vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = seen(ds)
    assert isinstance(values["StationName"], str | None)
    assert (values["StudyAge"], values["Implant"]) == (None, None)


# What is refused at load


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("", ["empty", "true"]),
        ("   ", ["empty"]),
        ('Modlity == "MG"', ["unknown name Modlity", "Modality"]),
        ('modality == "MG"', ["unknown name modality", "Modality"]),
        ("Xyzzy == 1", ["unknown name Xyzzy", "Modality", "BodyPart"]),
        ("True", ["true"]),
        ('Modality = "MG"', ["column 10", "=="]),
        ('Modality == "MG" && StudyAge < 3', ["column 19", "and"]),
        ('Modality == "MG" AND StudyAge < 3', ["column 18", "and"]),
        ('Modality == "MG" and', ["missing"]),
        ('(Modality == "MG"', ["missing"]),
        ('Modality == "MG', ["column 13"]),
        ('Modality == "MG" or "CR"', ['"CR"', "each test in full"]),
        ("StudyDescription", ["not a test"]),
        ('StudyAge <= "14"', ["different types", "StudyAge is a number"]),
        ('StudyAge == "14"', ["number", "string"]),
        ("Modality == 5", ["string", "number"]),
        ('Modality < "MG"', ["numbers"]),
        ("StudyAge < null", ["different types"]),
        ('StudyAge =~ "1"', ["different types"]),
        ("Modality =~ StationName", ["pattern in quotes"]),
        ('Modality =~ "("', ["not a regular expression", "position 0"]),
        ('Views == "L-CC"', ['"L-CC" in Views']),
        ('"LCC" in Views', ["never", "L-CC"]),
        ('Implant == "Yes"', ["never", "YES"]),
        ('Implant in ["YES", "N"]', ["never", '"N"']),
        ('Kind != "2D"', ["never", "FFDM"]),
        ('Modality in "MG"', ['["MG", "CR"]']),
        ("Modality in []", ["list of values"]),
        ('Modality in ["MG", 3]', ["list of values"]),
        ('Modality in ["MG", null]', ["list of values"]),
        ("3 in Views", ['"L-CC" in Views']),
        ("StudyAge in [1, 2] and PatientAge < 1e12", ["out of range"]),
        ("StudyAge < nan", ["out of range"]),
        ("StudyAge < inf", ["out of range"]),
        ("StudyAge * 2 < 9", ["compare a name with a value"]),
        ("$now == null", ["$now"]),
        ("$today", ["$today"]),
        ("Views.length == 4", ["compare a name with a value"]),
        ('Modality.as_lower == "mg"', ["compare a name with a value"]),
        ('Modality == "MG" ? true : false', ["no functions"]),
        ("[v for v in Views]", ["no functions"]),
        ("Modality == true", ["compare a name with a value"]),
        ('Modality == "\\ud800"', ["surrogate"]),
        ("not " * 5000 + "true", ["nested too deeply"]),
    ],
)
def test_what_is_refused(when: str, words: list[str]) -> None:
    with pytest.raises(RuleError) as refusal:
        check(when)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    "when",
    [
        'Modality == "MG" and StudyAge <= 14',
        "StudyAge in [0, 1, 2]",
        "StudyAge > -1",
        'Modality == "MG"\n  and StudyAge <= 14  # the new ones',
        "Modality == 'MG'",
        'InstitutionName == "Städtisches Klinikum" or InstitutionName == "서울"',
        'StudyDescription =~~ "^\\\\s*screen"',
        'StudyDescription =~~ r"\\d{2}"',
    ],
)
def test_what_is_accepted(when: str) -> None:
    check(when)
