"""Searches in the database against the same keys met by hand (`listener.matching`), and the listings; on SQLite and PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mammograms_made import uid
from pydicom.dataset import Dataset
from results_made import ResultsMade, page, report
from stepped_store import SteppedStore, exam, image

from listener.matching import Key, Match, parse_key, parse_match
from store.header import header_json
from store.rows import UnknownStudy
from store.search import Hit
from store.study import View

KOREAN = "Hong^Gildong=洪^吉洞=홍^길동"
OBJECTS = [
    report("plain"),
    page("plain"),
    report("plain", 2),
    report("korean", PatientName=KOREAN, PatientID="P2", StudyDate="20250102", AccessionNumber="A_C%C!2"),
    page("korean", PatientName=KOREAN, PatientID="P2", StudyDate="20250102", AccessionNumber="A_C%C!2"),
    page("page only", PatientName="DOE^JOHN^^", PatientID="p1", StudyDate="20261231"),
    report("bare", PatientName="", PatientID="", StudyDate="", AccessionNumber=""),
    report("strange", PatientName="O'Neil^Ann*", PatientID="a\\\\b", StudyDate="20260229", AccessionNumber="'; DROP TABLE --"),
    report("strasse", PatientName="Straße^Ünal", PatientID="P10", StudyDate="20261120", AccessionNumber="ACC10"),
]
HEADERS = [header_json(ds) for ds in OBJECTS]

#: Key -> values that are asked for, as clients write them.
ASKED = {
    "PatientID": ["P1", "p1", "P*", "P?", "*1", "P1*", "*", "", "P_", "P%", "%", "?", "nobody", "a\\\\b", "a*b"],
    "PatientName": ["Doe^Jane", "doe*", "DOE^J*", "*JANE", "Doe^J?ne", "Hong*", "洪*", "*길동", "Doe", "doe^john", "O'Neil^Ann*",
                    "straße^ünal", "STRASSE*", "Doe^Jane^^", "%", "_oe*"],
    "AccessionNumber": ["ACC1", "acc1", "ACC*", "A_C%C!2", "A?C%C!2", "A_C*", "*!2", "'; DROP TABLE --", "ACC1?"],
    "StudyDate": ["20261120", "20250101-20261120", "20261121-", "-20250102", "20260229", "19000101-19991231"],
    "Modality": ["SR", "OT", "SR,OT", "S*", "sr", "?R", "MG"],
    "StudyInstanceUID": [uid("plain"), f"{uid('plain')},{uid('korean')}", f"{uid('bare')}\\{uid('plain')}", "1.2.3"],
    "SeriesInstanceUID": [uid("plain", "sr"), uid("korean", "page")],
    "SOPInstanceUID": [uid("plain", "sr", 2), f"{uid('plain', 'sr', 1)},{uid('korean', 'page', 1)}"],
    "SOPClassUID": ["1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.7"],
}  # fmt: skip
LEVELS = {
    "study": ("StudyInstanceUID",),
    "series": ("StudyInstanceUID", "SeriesInstanceUID"),
    "instance": ("SOPInstanceUID",),
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ResultsMade:
    folder: Path = tmp_path_factory.mktemp("results")
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_database")
    made = ResultsMade(folder, url)
    made.add(*OBJECTS)
    return made


def key(keyword: str) -> Key:
    found = parse_key(keyword)
    assert found is not None
    return found


def by_hand(level: str, matches: list[Match]) -> set[tuple[str, ...]]:
    """The entities of which an object meets every key."""
    met = [ds for ds, header in zip(OBJECTS, HEADERS, strict=True) if all(match.meets(header) for match in matches)]
    return {identity(level, ds) for ds in met}


def identity(level: str, ds: Dataset) -> tuple[str, ...]:
    return tuple(str(ds[keyword].value) for keyword in LEVELS[level])


def found(results: ResultsMade, level: str, matches: list[Match], **within: str) -> list[Hit]:
    scope = {"study_instance_uid": None, "series_instance_uid": None, **within}
    matching = {match.key.name: match.value for match in matches}
    hits = results.search.search(level, **scope, matching=matching, limit=100, offset=0)  # type: ignore[arg-type]
    assert results.search.count(level, **scope, matching=matching, at_most=100) == len(hits)  # type: ignore[arg-type]
    return hits


def identities(level: str, hits: list[Hit]) -> list[tuple[str, ...]]:
    columns = {"StudyInstanceUID": "study_instance_uid", "SeriesInstanceUID": "series_instance_uid", "SOPInstanceUID": "sop_instance_uid"}
    return [tuple(str(getattr(hit, columns[keyword])) for keyword in LEVELS[level]) for hit in hits]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("keyword", "value"), [(keyword, value) for keyword, values in ASKED.items() for value in values])
def test_a_key_is_met_as_by_hand(results: ResultsMade, level: str, keyword: str, value: str) -> None:
    match = parse_match(key(keyword), value)
    matches = [match] if match else []
    names = identities(level, found(results, level, matches))
    assert len(names) == len(set(names)) and set(names) == by_hand(level, matches)


def test_the_cases_find_something_and_nothing() -> None:
    """The comparison above says something: each key has values that find objects and values that leave some out."""
    for keyword, values in ASKED.items():
        counts = {len(by_hand("instance", [match])) for value in values if (match := parse_match(key(keyword), value))}
        assert max(counts) > 0 and min(counts) < len(OBJECTS), keyword


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "AccessionNumber", "Modality", "ModalitiesInStudy", "SOPClassUID"])
def test_a_value_that_no_database_holds_is_met_by_nothing(results: ResultsMade, keyword: str) -> None:
    matching = {keyword: "\0"}
    within: dict[str, Any] = {"study_instance_uid": None, "series_instance_uid": None, "matching": matching}
    assert results.search.search("study", **within, limit=5, offset=0) == []
    assert results.search.count("study", **within, at_most=5) == 0


@pytest.mark.parametrize("level", LEVELS)
def test_several_keys_are_met_by_one_object(results: ResultsMade, level: str) -> None:
    for asked in (
        {"PatientID": "P1", "Modality": "OT"},
        {"PatientName": "doe*", "StudyDate": "20261201-"},
        {"Modality": "SR", "PatientID": "p1"},
    ):
        matches = [match for keyword, value in asked.items() if (match := parse_match(key(keyword), value))]
        assert set(identities(level, found(results, level, matches))) == by_hand(level, matches)


@pytest.mark.parametrize(
    ("value", "studies"),
    [
        ("SR", {"plain", "korean", "bare", "strange", "strasse"}),
        ("OT", {"plain", "korean", "page only"}),
        ("SR,MG", {"plain", "korean", "bare", "strange", "strasse"}),
        ("MG", set()),
    ],
)
def test_modalities_in_study_look_at_the_whole_study(results: ResultsMade, value: str, studies: set[str]) -> None:
    match = parse_match(key("ModalitiesInStudy"), value)
    assert match is not None
    assert set(identities("study", found(results, "study", [match]))) == {(uid(name),) for name in studies}
    pages = parse_match(key("Modality"), "OT")
    assert pages is not None
    both = found(results, "instance", [match, pages])
    assert {hit.study_instance_uid for hit in both} == {uid(name) for name in studies & {"plain", "korean", "page only"}}


def test_a_search_may_lie_within_a_study_or_series(results: ResultsMade) -> None:
    assert len(found(results, "instance", [], study_instance_uid=uid("plain"))) == 3
    assert len(found(results, "series", [], study_instance_uid=uid("plain"))) == 2
    inside = found(results, "instance", [], study_instance_uid=uid("plain"), series_instance_uid=uid("plain", "sr"))
    assert {hit.sop_instance_uid for hit in inside} == {uid("plain", "sr", 1), uid("plain", "sr", 2)}
    assert found(results, "instance", [], study_instance_uid=uid("korean"), series_instance_uid=uid("plain", "sr")) == []


def test_pages_of_an_answer_cover_it_once_newest_study_first(results: ResultsMade) -> None:
    ask = {"study_instance_uid": None, "series_instance_uid": None, "matching": {}}
    whole = results.search.search("instance", **ask, limit=100, offset=0)  # type: ignore[arg-type]
    parts = [hit for offset in range(0, 12, 4) for hit in results.search.search("instance", **ask, limit=4, offset=offset)]  # type: ignore[arg-type]
    assert parts == whole and len(whole) == len(OBJECTS)
    dates = [results_date(hit) for hit in whole]
    assert dates == sorted(dates, reverse=True)


def results_date(hit: Hit) -> str:
    [ds] = [ds for ds in OBJECTS if hit.sop_instance_uid == ds.SOPInstanceUID]
    return str(ds.StudyDate)


def test_a_level_shows_its_newest_version(results: ResultsMade) -> None:
    [study] = found(results, "study", [], study_instance_uid=uid("plain"))
    assert study.sop_instance_uid == uid("plain", "sr", 2)


def test_objects_of_studies_come_in_the_order_of_their_versions(results: ResultsMade) -> None:
    objects = results.search.objects([uid("plain"), uid("bare")])
    assert [hit.sop_instance_uid for hit in objects] == [
        uid("plain", "sr", 1),
        uid("plain", "page", 1),
        uid("plain", "sr", 2),
        uid("bare", "sr", 1),
    ]
    assert results.search.objects([]) == [] and results.files.path(objects[0].file_name).is_file()


def test_a_stored_header_is_the_objects_own(results: ResultsMade) -> None:
    for ds, header in zip(OBJECTS, HEADERS, strict=True):
        [stored] = [one for one in results.search.objects([str(ds.StudyInstanceUID)]) if ds.SOPInstanceUID == one.sop_instance_uid]
        assert stored.header == header and stored.sop_class_uid == ds.SOPClassUID and "7FE00010" not in stored.header


def test_counting_ends_where_it_is_told_to(results: ResultsMade) -> None:
    for level, whole in {"study": len(by_hand("study", [])), "instance": len(OBJECTS)}.items():
        for at_most in (1, whole - 1, whole, whole + 1):
            count = results.search.count(level, study_instance_uid=None, series_instance_uid=None, matching={}, at_most=at_most)
            assert count == min(whole, at_most)


def test_a_key_that_is_not_indexed_is_a_fault_of_ours(results: ResultsMade) -> None:
    with pytest.raises(ValueError, match="BodyPartExamined"):
        results.search.count("study", study_instance_uid=None, series_instance_uid=None, matching={"BodyPartExamined": "BREAST"}, at_most=9)


# -------------------------------------------------------------------------------------------------------------------- listings


def test_a_study_tells_its_slots(stepped: SteppedStore) -> None:
    stepped.receive(*exam()[:2])
    stepped.work()
    slots = stepped.study()["slots"]
    assert slots[View.R_MLO] is None and slots[View.L_CC] == {
        "sop_instance_uid": None,
        "candidates": [str(exam()[1].SOPInstanceUID)],
        "losers": [],
    }
    retake = image(View.L_CC, "retake", AcquisitionTime="103000")
    stepped.receive(*exam()[2:], retake)
    stepped.settle()
    slots = stepped.study()["slots"]
    assert slots[View.L_CC]["sop_instance_uid"] == retake.SOPInstanceUID and slots[View.L_CC]["candidates"] == [
        retake.SOPInstanceUID,
        exam()[1].SOPInstanceUID,
    ]
    assert [(loser["sop_instance_uid"], loser["rule"]) for loser in slots[View.L_CC]["losers"]] == [(exam()[1].SOPInstanceUID, 7)]


def test_an_unknown_study_is_named(stepped: SteppedStore) -> None:
    with pytest.raises(UnknownStudy, match=r"no study 1\.2\.3"):
        stepped.search.study("1.2.3")


def test_deliveries_are_listed_newest_first(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    listed = stepped.search.deliveries()
    assert [line["destination"] for line in listed] == ["pacs", "pacs"] and listed[0]["id"] > listed[1]["id"]
    stepped.ledger.refused(listed[0]["id"], 0x0122, "refused")
    assert [line["id"] for line in stepped.search.deliveries("refused")] == [listed[0]["id"]]
    assert len(stepped.search.deliveries(limit=1)) == 1
