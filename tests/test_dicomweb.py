"""DICOMweb as clients use it: dicomweb-client and plain HTTP against a real server on loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from dicomweb_client import DICOMwebClient
from dicomweb_client.web import _load_xml_dataset
from mammograms_made import uid
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from reports_made import made_report
from results_made import ResultsMade, page, part10, report
from serving import serving

from listener import dicomweb
from listener.listing import REQUIRED, Level
from listener.matching import BadValue, Match, parse_key, parse_match, parse_query
from listener.media_types import MediaRange, Offer, choose, parse_accept
from listener.native_xml import native_xml
from listener.web import create_app
from pipeline.report import build

KOREAN = "Hong^Gildong=洪^吉洞=홍^길동"
STUDY, OLDER, LONELY = uid("study"), uid("older"), uid("lonely")
SR, PAGE = uid("study", "sr", 1), uid("study", "page", 1)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> ResultsMade:
    """Three studies: a report with its page, an older one in two versions, and a report alone without a date."""
    source = ResultsMade(tmp_path_factory.mktemp("files"))
    source.add(report(), page())
    older = {"StudyDate": "20250102", "PatientName": KOREAN, "PatientID": "P2", "AccessionNumber": "ACC2"}
    for version in (1, 2):
        source.add(report("older", version, **older), page("older", version, **older))
    source.add(report("lonely", PatientName="Roe^Richard", PatientID="P3", StudyDate=""))
    return source


@pytest.fixture(scope="module")
def url(results: ResultsMade) -> Iterator[str]:
    with serving(create_app(results=results.search, file_path=results.files.path, ready=list)) as base_url:
        yield base_url + "/dicom-web"


@pytest.fixture
def get(url: str) -> Iterator[Callable[..., httpx.Response]]:
    with httpx.Client(trust_env=False, base_url=url) as client:

        def get(path: str, accept: str = "*/*", /, **parameters: str) -> httpx.Response:
            return client.get(path, headers={"Accept": accept}, params=parameters or None)

        yield get


@pytest.fixture
def client(url: str, monkeypatch: pytest.MonkeyPatch) -> DICOMwebClient:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return DICOMwebClient(url)


Get = Callable[..., httpx.Response]


def listed(response: httpx.Response, tag: str = "0020000D") -> list[object]:
    """The first values of `tag` in a search's answer; nothing for 204."""
    if response.status_code == 204:
        assert not response.content
        return []
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/dicom+json"
    return [each[tag]["Value"][0] for each in response.json()]


def instance(study: str, kind: str, version: int = 1) -> str:
    return f"/studies/{uid(study)}/series/{uid(study, kind)}/instances/{uid(study, kind, version)}"


# --- dicomweb-client, as it comes -----------------------------------------------------------------------------------------------------


def test_dicomweb_client_searches_every_level(client: DICOMwebClient) -> None:
    studies = [Dataset.from_json(each) for each in client.search_for_studies()]
    assert [ds.StudyInstanceUID for ds in studies] == [STUDY, OLDER, LONELY]
    assert [ds.NumberOfStudyRelatedInstances for ds in studies] == [2, 4, 1]
    assert [ds.NumberOfStudyRelatedSeries for ds in studies] == [2, 2, 1]
    assert [list(ds["ModalitiesInStudy"]) for ds in studies[:2]] == [["OT", "SR"]] * 2
    assert str(studies[1].PatientName) == KOREAN
    assert {each["00080060"]["Value"][0] for each in client.search_for_series(STUDY)} == {"SR", "OT"}
    assert len(client.search_for_instances(OLDER)) == 4
    assert len(client.search_for_instances(OLDER, uid("older", "sr"))) == 2
    assert len(client.search_for_instances()) == 7
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []


def test_dicomweb_client_collects_all_pages(client: DICOMwebClient) -> None:
    found = client.search_for_instances(limit=2, get_remaining=True)
    assert len({each["00080018"]["Value"][0] for each in found}) == len(found) == 7


def test_dicomweb_client_retrieves_every_level_unchanged(client: DICOMwebClient, results: ResultsMade) -> None:
    originals = {ds.SOPInstanceUID: dcmread(results.files.path(name)) for ds, name in results.added}
    fetched = [
        *client.retrieve_study(OLDER),
        *client.retrieve_series(STUDY, uid("study", "page")),
        client.retrieve_instance(STUDY, uid("study", "sr"), SR),
        *client.iter_study(STUDY),
    ]
    assert len(fetched) == 4 + 1 + 1 + 2
    for ds in fetched:
        assert part10(ds) == part10(originals[ds.SOPInstanceUID])


def test_dicomweb_client_retrieves_metadata(client: DICOMwebClient, url: str) -> None:
    header = client.retrieve_instance_metadata(STUDY, uid("study", "page"), PAGE)
    assert header["7FE00010"] == {"vr": "OB", "BulkDataURI": f"{url}{instance('study', 'page')}/bulkdata/7FE00010"}
    assert "00020010" not in header
    assert len(client.retrieve_study_metadata(OLDER)) == 4
    [read] = client.retrieve_series_metadata(STUDY, uid("study", "sr"))
    assert Dataset.from_json(read) == dcmread(BytesIO(part10(report())))
    assert "7FE00010" not in read


def test_dicomweb_client_retrieves_pixels(client: DICOMwebClient) -> None:
    series = uid("study", "page")
    pixels = page().PixelData
    assert client.retrieve_instance_frames(STUDY, series, PAGE, [1]) == [pixels]
    assert client.retrieve_instance_frames(STUDY, series, PAGE, [1], media_types=("application/octet-stream",)) == [pixels]
    [header] = client.retrieve_series_metadata(STUDY, series)
    assert client.retrieve_bulkdata(header["7FE00010"]["BulkDataURI"]) == [pixels]
    rendered = Image.open(BytesIO(client.retrieve_instance_rendered(STUDY, series, PAGE)))
    assert (rendered.format, rendered.size) == ("JPEG", (60, 40))
    png = Image.open(BytesIO(client.retrieve_instance_rendered(STUDY, series, PAGE, media_types=("image/png",))))
    assert (png.format, png.tobytes()) == ("PNG", pixels)
    assert client.retrieve_instance_frames_rendered(STUDY, series, PAGE, [1], media_types=("image/png",))[:4] == b"\x89PNG"


def test_what_the_pipeline_writes_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    built = build(made_report(every_header={"PatientName": KOREAN}))
    source = ResultsMade(tmp_path)
    source.add(*(each.ds for each in built))
    with serving(create_app(results=source.search, file_path=source.files.path, ready=list)) as base_url:
        client = DICOMwebClient(base_url + "/dicom-web")
        for each in built:
            uids = (each.ds.StudyInstanceUID, each.ds.SeriesInstanceUID, each.ds.SOPInstanceUID)
            assert source.path(uids[2]).read_bytes() == each.data
            assert part10(client.retrieve_instance(*uids)) == each.data
            header = Dataset.from_json(client.retrieve_instance_metadata(*uids), lambda _uri: None)
            assert [element for element in header if element.keyword != "PixelData"] == [e for e in each.ds if e.keyword != "PixelData"]
            if each.kind == "sr":
                words = client.retrieve_instance_rendered(*uids, media_types=("text/html",)).decode()
                assert "NOT FOR DIAGNOSTIC USE" in words
                assert KOREAN in words
            else:
                shown = Image.open(BytesIO(client.retrieve_instance_rendered(*uids, media_types=("image/png",))))
                assert shown.tobytes() == each.ds.PixelData
                [frame] = client.retrieve_instance_frames(*uids, [1])
                assert frame == shown.tobytes()


# --- search ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "levels"),
    [
        ("/studies", {Level.STUDY}),
        ("/series", {Level.STUDY, Level.SERIES}),
        ("/instances", {Level.STUDY, Level.SERIES, Level.INSTANCE}),
        (f"/studies/{LONELY}/series", {Level.SERIES}),
        (f"/studies/{LONELY}/instances", {Level.SERIES, Level.INSTANCE}),
        (f"/studies/{LONELY}/series/{uid('lonely', 'sr')}/instances", {Level.INSTANCE}),
    ],
)
def test_required_attributes_are_there_even_without_a_value(get: Get, url: str, path: str, levels: set[Level]) -> None:
    entry = get(path).json()[-1]
    for level in Level:
        required = set(REQUIRED[level]) - {"00081190"}
        assert required <= set(entry) if level in levels else not required & set(entry)
    assert entry["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    if Level.STUDY in levels:
        assert entry["00080090"] == {"vr": "PN"}
    assert get(entry["00081190"]["Value"][0].removeprefix(url), 'multipart/related; type="application/dicom"').status_code == 200


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("StudyInstanceUID", STUDY, [STUDY]),
        ("0020000D", f"{STUDY},{LONELY}", [STUDY, LONELY]),
        ("StudyInstanceUID", f"{STUDY}\\{OLDER}", [STUDY, OLDER]),
        ("StudyInstanceUID", "", [STUDY, OLDER, LONELY]),
        ("SOPInstanceUID", SR, [STUDY]),
        ("PatientID", "P2", [OLDER]),
        ("00100020", "P?", [STUDY, OLDER, LONELY]),
        ("PatientID", "p2", []),
        ("PatientID", "*", [STUDY, OLDER, LONELY]),
        ("PatientName", "doe^*", [STUDY]),
        ("PatientName", "DOE^JANE^^^", [STUDY]),
        ("PatientName", "홍*", [OLDER]),
        ("PatientName", "Doe", []),
        ("StudyDate", "20261120", [STUDY]),
        ("StudyDate", "20250101-20251231", [OLDER]),
        ("StudyDate", "-20251231", [OLDER]),
        ("StudyDate", "20250102-", [STUDY, OLDER]),
        ("StudyTime", "1015", [STUDY, OLDER, LONELY]),
        ("StudyTime", "-09", []),
        ("AccessionNumber", "ACC*", [STUDY, OLDER, LONELY]),
        ("AccessionNumber", "A[C]C1", []),
        ("ModalitiesInStudy", "OT", [STUDY, OLDER]),
        ("ModalitiesInStudy", "SR,OT", [STUDY, OLDER, LONELY]),
        ("ModalitiesInStudy", "MG", []),
        ("SeriesNumber", "9102", [STUDY, OLDER]),
        ("Rows", "40.0", [STUDY, OLDER]),
        ("Manufacturer", "Four*", [STUDY, OLDER, LONELY]),
        ("ContentSequence.ConceptNameCodeSequence.CodeValue", "121071", [STUDY, OLDER, LONELY]),
        ("0040A730.0040A043.00080100", "nothing", []),
        ("StationName", "ROOM1", []),
    ],
)
def test_keys_find_studies(get: Get, key: str, value: str, found: list[str]) -> None:
    response = get("/studies", **{key: value})
    assert listed(response) == found
    assert "Warning" not in response.headers
    if found:
        tag = parse_key(key).path[0]
        assert all(tag in entry for entry in response.json())


def test_all_keys_must_be_met_by_one_object(get: Get) -> None:
    assert listed(get("/studies", Modality="SR", SeriesNumber="9100")) == [STUDY, OLDER, LONELY]
    assert listed(get("/studies", Modality="SR", SeriesNumber="9102")) == []
    assert listed(get("/series", Modality="OT", PatientID="P2"), "0020000E") == [uid("older", "page")]


def test_included_attributes_come_along(get: Get) -> None:
    studies = get("/studies", includefield="Manufacturer,00080060", PatientID="P1").json()
    assert studies[0]["00080070"]["Value"] == ["Fourview"]
    assert studies[0]["00080060"] == {"vr": "CS"}, "the objects of the study do not agree on a modality"
    everything = get("/instances", includefield="all", SOPInstanceUID=SR).json()[0]
    assert everything["0040A491"]["Value"] == ["COMPLETE"]
    assert "0040A730" not in everything
    series = get("/series", includefield="all", Modality="OT").json()
    assert all(each["00080070"]["Value"] == ["Fourview"] and "00080018" not in each for each in series)


def test_paging_is_stable_and_says_what_is_left(get: Get) -> None:
    first = get("/studies", limit="2")
    assert listed(first) == [STUDY, OLDER]
    assert "There are 1 additional results that can be requested" in first.headers["Warning"]
    second = get("/studies", limit="2", offset="2")
    assert listed(second) == [LONELY]
    assert "Warning" not in second.headers
    assert listed(get("/studies", offset="3")) == []
    assert listed(get("/studies", limit="0")) == []
    filtered = get("/studies", Manufacturer="Fourview", limit="1", offset="1")
    assert listed(filtered) == [OLDER]
    assert "There are 1 additional" in filtered.headers["Warning"]
    assert listed(get("/studies", limit="1000000000")) == [STUDY, OLDER, LONELY]


def test_an_answer_has_no_more_than_the_cap(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "MAX_RESULTS", 2)
    response = get("/instances", limit="5")
    assert len(response.json()) == 2
    assert "There are 5 additional" in response.headers["Warning"]


def test_long_lists_are_read_in_pieces(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "_AT_ONCE", 2)
    whole = listed(get("/instances"), "00080018")
    assert len(set(whole)) == 7
    assert listed(get("/instances", offset="1", limit="5"), "00080018") == whole[1:6]
    assert listed(get("/instances", Manufacturer="Fourview"), "00080018") == whole


def test_what_is_far_behind_a_page_is_not_counted(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "MAX_COUNTED", 2)
    response = get("/instances", limit="3")
    assert len(response.json()) == 3
    assert "There are at least 2 additional results that can be requested" in response.headers["Warning"]
    assert "There are 1 additional results" in get("/instances", limit="3", offset="3").headers["Warning"]
    assert "Warning" not in get("/instances", limit="3", offset="4").headers


def test_a_search_opens_no_file(results: ResultsMade) -> None:
    def refuse(name: str) -> Path:
        raise AssertionError(f"file {name} was asked for")

    app = create_app(results=results.search, file_path=refuse, ready=list)
    with serving(app) as base_url, httpx.Client(base_url=base_url + "/dicom-web", trust_env=False) as client:
        for path in (
            "/studies",
            "/series",
            "/instances?includefield=all",
            "/instances?Manufacturer=Fourview",
            f"/studies/{STUDY}/metadata",
        ):
            assert client.get(path).status_code == 200


def test_a_search_that_would_read_every_header_is_refused(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "MAX_CANDIDATES", 3)
    response = get("/instances", Manufacturer="Fourview")
    assert response.status_code == 413
    assert "StudyDate" in response.json()["detail"]
    assert len(get("/instances", Manufacturer="Fourview", PatientID="P1").json()) == 2


def test_what_is_not_understood_is_a_warning(get: Get) -> None:
    response = get("/studies", PatientsName="Doe", fuzzymatching="true", includefield="Nonsense")
    assert len(response.json()) == 3
    warnings = response.headers.get_list("Warning")
    assert len(warnings) == 3
    assert all(warning.startswith("299 http") for warning in warnings)
    assert "PatientsName is not a known attribute and was ignored." in " ".join(warnings)
    assert "The fuzzymatching parameter is not supported. Only literal matching has been performed." in " ".join(warnings)
    forged = get("/studies", **{"x\r\nSet-Cookie: a": "1"})
    assert "Set-Cookie" not in forged.headers
    assert forged.status_code == 200


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/studies", {"limit": "-1"}),
        ("/studies", {"limit": "abc"}),
        ("/studies", {"offset": "1.5"}),
        ("/studies", {"limit": "9" * 5000}),
        ("/studies", {"StudyDate": "yesterday-Doe"}),
        ("/studies", {"StudyDate": "-"}),
        ("/studies", {"StudyInstanceUID": "1.2.*"}),
        ("/studies", {"StudyInstanceUID": "1..2"}),
        ("/instances", {"Rows": "many"}),
        ("/instances", {"PixelData": "x"}),
        ("/studies/1.2.x/series", {}),
        ("/studies/" + "1" * 65 + "/series", {}),
        ("/studies/01.2/metadata", {}),
        ("/studies/1.2%0A/metadata", {}),
        ("/studies/.../metadata", {}),
        (instance("study", "page") + "/frames/0", {}),
        (instance("study", "page") + "/frames/one", {}),
        (instance("study", "page") + "/frames/1,1", {}),
        (instance("study", "page") + "/rendered", {"viewport": "0,5"}),
        (instance("study", "page") + "/rendered", {"viewport": "100000000,5"}),
        (instance("study", "page") + "/rendered", {"quality": "101"}),
    ],
)
def test_bad_requests_are_told_so_without_echo(get: Get, path: str, parameters: dict[str, str]) -> None:
    response = get(path, **parameters)
    assert response.status_code == 400
    assert response.json()["detail"]
    assert "Doe" not in response.text
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_key_given_twice_is_refused(url: str) -> None:
    assert httpx.get(f"{url}/studies?PatientID=a&PatientID=b", trust_env=False).status_code == 400


def test_nothing_is_found_below_a_study_that_is_not_here(get: Get) -> None:
    assert get("/studies/1.2.3/series").status_code == 204
    for path in ("", "/metadata", "/series/1.2", f"/series/{uid('study', 'sr')}/instances/{SR}/rendered", "/thumbnail"):
        assert get("/studies/1.2.3" + path).status_code == 404


# --- retrieve -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "accept", "status", "content_type"),
    [
        ("", "*/*", 200, 'multipart/related; type="application/dicom"'),
        ("", "", 200, 'multipart/related; type="application/dicom"'),
        ("", "multipart/related; type=application/dicom; transfer-syntax=*", 200, 'multipart/related; type="application/dicom"'),
        ("", 'multipart/related; type="*/*"', 200, 'multipart/related; type="application/dicom"'),
        ("", 'MULTIPART/RELATED;TYPE="application/dicom";Transfer-Syntax="1.2.840.10008.1.2.1"', 200, "multipart/related"),
        ("", "multipart/related", 200, "multipart/related"),
        ("", 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90', 406, ""),
        ("", "application/dicom", 200, "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"),
        ("", 'application/dicom;q=0.5, multipart/related;type="application/dicom";q=0.9', 200, "multipart/related"),
        ("", "application/*", 406, ""),
        ("", "text/html", 406, ""),
        ("", "*/*;q=0", 406, ""),
        ("", "???", 406, ""),
        ("/metadata", "application/json", 200, "application/json"),
        ("/metadata", "application/json, application/dicom+json", 200, "application/json"),
        ("/metadata", "application/json;q=0.4, application/dicom+json;q=0.5", 200, "application/dicom+json"),
        ("/metadata", 'multipart/related; type="application/dicom+xml"', 200, 'multipart/related; type="application/dicom+xml"'),
        ("/metadata", 'multipart/related; type="application/dicom+xml";q=0.5, application/dicom+json;q=0.9', 200, "application/dicom+json"),
        ("/metadata", "application/dicom+xml", 406, ""),
        ("/frames/1", 'multipart/related; type="*/*"', 200, 'multipart/related; type="application/octet-stream"'),
        ("/frames/1", "application/octet-stream", 200, "application/octet-stream"),
        ("/frames/1", 'multipart/related; type="application/octet-stream"; transfer-syntax=*', 200, "multipart/related"),
        ("/frames/1", "image/jp2", 406, ""),
        ("/rendered", "image/*", 200, "image/jpeg"),
        ("/rendered", "image/png, image/jpeg;q=0.9", 200, "image/png"),
        ("/rendered", "text/html,application/xhtml+xml,image/avif,*/*;q=0.8", 200, "image/jpeg"),
        ("/rendered", "text/html", 406, ""),
    ],
)
def test_the_client_gets_what_it_likes_best(get: Get, path: str, accept: str, status: int, content_type: str) -> None:
    response = get(instance("study", "page") + path, accept)
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"].startswith(content_type)


def test_the_accept_parameter_comes_before_the_header(get: Get) -> None:
    response = get(instance("study", "page") + "/rendered", "image/jpeg", accept="image/png")
    assert response.headers["Content-Type"] == "image/png"
    assert get("/studies", "text/html", accept="application/dicom+json").headers["Content-Type"] == "application/dicom+json"


def test_one_file_alone_only_for_one_instance(get: Get, results: ResultsMade) -> None:
    single = get(instance("study", "sr"), "application/dicom")
    assert single.content == results.path(SR).read_bytes()
    assert get(f"/studies/{STUDY}", "application/dicom").status_code == 406


def test_multipart_is_well_formed(get: Get, results: ResultsMade) -> None:
    response = get(f"/studies/{STUDY}", 'multipart/related; type="application/dicom"')
    boundary = re.fullmatch(r'multipart/related; type="application/dicom"; boundary=([0-9a-f]{64})', response.headers["Content-Type"])
    assert boundary is not None
    first, *parts, last = response.content.split(b"--" + boundary[1].encode())
    assert (first, last) == (b"", b"--\r\n")
    kept = [results.path(SR).read_bytes(), results.path(PAGE).read_bytes()]
    head = b"\r\nContent-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.1\r\n\r\n"
    assert parts == [head + data + b"\r\n" for data in kept]


def test_headers_are_the_same_in_xml(get: Get) -> None:
    """Read by dicomweb-client's own reader of the Native DICOM Model, which knows no person names and no values of several lines."""
    xml = 'multipart/related; type="application/dicom+xml"'
    for path in (instance("older", "page", 2) + "/metadata", "/studies"):
        response = get(path, xml, PatientID="P2") if path == "/studies" else get(path, xml)
        assert response.status_code == 200
        message = message_from_bytes(f"Content-Type: {response.headers['Content-Type']}\r\n\r\n".encode() + response.content)
        [part] = message.get_payload()
        root = ElementTree.fromstring(part.get_payload(decode=True))  # type: ignore[union-attr, arg-type]
        space = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
        [name] = root.findall(f"{space}DicomAttribute[@tag='00100010']")
        found = [[each.text for each in group] for person in name for group in person]
        assert found == [["Hong", "Gildong"], ["洪", "吉洞"], ["홍", "길동"]]
        root.remove(name)
        for bulk in root.findall(f"{space}DicomAttribute[@vr='OB']"):
            assert bulk[0].attrib["uri"].endswith("/bulkdata/7FE00010")
            root.remove(bulk)
        [expected] = (get(path, PatientID="P2") if path == "/studies" else get(path)).json()
        del expected["00100010"]
        expected.pop("7FE00010", None)
        assert _load_xml_dataset(root).to_json_dict() == Dataset.from_json(expected).to_json_dict()


def test_xml_holds_what_xml_cannot() -> None:
    header = {
        "00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [42752]}}, {}]},
        "00104000": {"vr": "LT", "Value": ["a < b & c > d \x0c\ud800"]},
        "00280030": {"vr": "DS", "Value": [None, 0.1]},
        "00091001": {"vr": "UN", "InlineBinary": "AAE="},
    }
    root = ElementTree.fromstring(native_xml(header).encode())
    assert [each.attrib.get("keyword") for each in root] == ["FailedSOPSequence", None, "PatientComments", "PixelSpacing"]
    assert [item.attrib["number"] for item in root[0]] == ["1", "2"]
    assert root[0][0][0][0].text == "42752"
    assert root[2][0].text == "a < b & c > d \ufffd\ufffd"
    assert [(value.attrib["number"], value.text) for value in root[3]] == [("2", "0.1")]


def test_a_file_is_never_in_memory_whole(tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(1 << 32)
    chunks = dicomweb._chunks(big, 0, 1 << 32)
    assert max(len(next(chunks)) for _ in range(3)) <= 256 * 1024
    assert b"".join(dicomweb._chunks(big, (1 << 32) - 5, 100)) == bytes(5)


_SERVER = """
import sys, time
from pathlib import Path
from serving import serving
from listener.web import create_app
from store.database import read_engine
from store.files import Files
from store.search import Search
folder = Path(sys.argv[1])
search, files = Search(read_engine(f"sqlite:///{folder / 'results.db'}")), Files(folder / "files")
with serving(create_app(results=search, file_path=files.path, ready=list)) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def _peak_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024


def test_fifty_clients_fetch_large_objects_at_once_in_little_memory(tmp_path: Path) -> None:
    source = ResultsMade(tmp_path)
    source.add(page(rows=2500, columns=2800))  # 21 MB
    size = source.path(PAGE).stat().st_size
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    command = [sys.executable, "-c", _SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None and server.stdin is not None
        url = server.stdout.readline().strip() + "/dicom-web" + instance("study", "page")
        together = threading.Barrier(50)

        def fetch(number: int) -> int:
            path = ("", "/frames/1", "/bulkdata/7FE00010")[number % 3]
            read = 0
            with httpx.stream(
                "GET", url + path, headers={"Accept": 'multipart/related; type="*/*"'}, timeout=120, trust_env=False
            ) as response:
                assert response.status_code == 200
                together.wait(60)  # all have begun, none has ended
                for piece in response.iter_bytes():
                    read += len(piece)
            return read

        with ThreadPoolExecutor(50) as clients:
            fetched = list(clients.map(fetch, range(50)))
        assert min(fetched) >= 2500 * 2800 * 3 and max(fetched) >= size
        assert _peak_mib(server.pid) < 300
        server.stdin.close()


def test_pixels_and_words_each_have_their_resources(get: Get) -> None:
    image, text = instance("study", "page"), instance("study", "sr")
    assert get(text + "/frames/1").status_code == 404
    assert get(text + "/bulkdata/7FE00010").status_code == 404
    assert get(text + "/thumbnail").status_code == 404
    assert get(image + "/frames/2").status_code == 404
    assert get(image + "/frames/2/rendered").status_code == 404
    assert get(image + "/bulkdata/00280010").status_code == 404
    small = Image.open(BytesIO(get(image + "/rendered", viewport="30,30").content))
    assert small.size == (30, 20)
    for path in (f"/studies/{OLDER}", f"/studies/{OLDER}/series/{uid('older', 'page')}", image):
        assert get(path + "/thumbnail").headers["Content-Type"] == "image/jpeg"


def test_frames_of_an_object_with_several(tmp_path: Path) -> None:
    ds = page(rows=2, columns=2)
    ds.NumberOfFrames = 3
    ds.PixelData = bytes(range(36))
    path = tmp_path / "frames"
    path.write_bytes(part10(ds))
    pixels = dicomweb._Pixels(path)
    assert [b"".join(pixels.frame(number)) for number in (1, 2, 3)] == [bytes(range(12 * n, 12 * n + 12)) for n in range(3)]


def test_a_report_is_readable_and_its_words_are_escaped(get: Get) -> None:
    html = get(instance("study", "sr") + "/rendered")
    assert html.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in html.headers["Content-Security-Policy"]
    assert "<script>" not in html.text
    assert "Comment: &lt;script&gt;alert(&#x27;research use only&#x27;)&lt;/script&gt;" in html.text
    text = get(instance("older", "sr") + "/rendered", "text/plain").text
    assert f"Patient: {KOREAN}\n" in text
    assert "\n  Finding: Mammographic breast mass\n    Certainty of Finding: 61.25 %\n" in text


def test_a_file_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    source = ResultsMade(tmp_path)
    source.add(report(), page())
    source.path(PAGE).unlink()
    app = create_app(results=source.search, file_path=source.files.path, ready=list)
    with serving(app) as base_url, httpx.Client(base_url=base_url, trust_env=False) as client:
        for path in ("", "/frames/1", "/rendered"):
            response = client.get("/dicom-web" + instance("study", "page") + path)
            assert response.status_code == 410
            assert str(tmp_path) not in response.text
        assert client.get("/dicom-web" + instance("study", "page") + "/metadata").status_code == 200


def test_other_methods_are_not_allowed(url: str) -> None:
    response = httpx.post(f"{url}/studies", content=b"x", trust_env=False)
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")
    assert httpx.delete(f"{url}/studies/{STUDY}/metadata", trust_env=False).headers["Allow"] == "GET, HEAD"


def test_pages_of_a_study_and_of_a_series_are_rendered_together(get: Get, results: ResultsMade) -> None:
    pages = [results.path(uid("older", "page", version)) for version in (1, 2)]
    for path in (f"/studies/{OLDER}/rendered", f"/studies/{OLDER}/series/{uid('older', 'page')}/rendered"):
        for accept, kind in (("*/*", "jpeg"), ('multipart/related; type="image/png"', "png")):
            response = get(path, accept)
            message = message_from_bytes(f"Content-Type: {response.headers['Content-Type']}\r\n\r\n".encode() + response.content)
            parts = list(message.walk())[1:]
            assert [part.get_content_type() for part in parts] == [f"image/{kind}"] * 2
            shown = [Image.open(BytesIO(part.get_payload(decode=True))) for part in parts]
            assert [picture.size for picture in shown] == [(60, 40)] * 2
        assert [picture.tobytes() for picture in shown] == [dcmread(path).PixelData for path in pages]
        assert get(path, "image/png").status_code == 406, "several are no picture"
    alone = f"/studies/{STUDY}/series/{uid('study', 'page')}/rendered"
    assert get(alone).headers["Content-Type"] == "image/jpeg"
    assert Image.open(BytesIO(get(alone, "image/png", viewport="30,30").content)).size == (30, 20)
    assert get(f"/studies/{LONELY}/rendered").status_code == 404, "a report is no image"
    assert get(f"/studies/{uid('nobody')}/rendered").status_code == 404


@pytest.mark.parametrize("name", ["window", "annotation", "iccprofile"])
def test_what_changes_nothing_of_a_picture_is_a_warning(get: Get, name: str) -> None:
    for path in (f"/studies/{OLDER}/rendered", f"/studies/{STUDY}/series/{uid('study', 'page')}/instances/{PAGE}/rendered"):
        response = get(path, **{name: "2000,4000,linear"})
        assert response.status_code == 200 and f"{name} is not supported here and was ignored" in response.headers["Warning"]


# --- the pure parts -------------------------------------------------------------------------------------------------------------------


def test_accept_headers_are_understood_however_they_are_written() -> None:
    assert parse_accept('a/b; x="1,2;\\"3"; Q=0.5 , c/*;q=2,, nonsense, */*') == [
        MediaRange("a/b", {"x": '1,2;"3'}, 0.5),
        MediaRange("c/*", {}, 0.0),
        MediaRange("*/*"),
    ]


def test_the_most_specific_range_decides() -> None:
    jpeg, png = Offer("image/jpeg"), Offer("image/png")
    assert choose(parse_accept("image/*, image/jpeg;q=0.1"), [jpeg, png]) is png
    assert choose(parse_accept("*/*;q=0.1, image/png;q=0"), [png]) is None
    assert choose([], [jpeg, png]) is jpeg


@pytest.mark.parametrize(
    ("pattern", "text", "met"),
    [
        ("*", "", False),
        ("a*c", "abbc", True),
        ("a?c", "ac", False),
        ("**b?", "aabc", True),
        ("", "a", False),
        ("a" * 50 + "*", "a" * 49, False),
    ],
)
def test_wildcards(pattern: str, text: str, met: bool) -> None:
    key = parse_key("PatientID")
    assert key is not None
    assert Match(key, pattern).meets({"00100020": {"vr": "LO", "Value": [text] if text else []}}) is met


def test_values_are_normalised_for_the_store() -> None:
    def value(keyword: str, text: str) -> str:
        key = parse_key(keyword)
        assert key is not None
        match = parse_match(key, text)
        assert match is not None
        return match.value

    assert value("StudyDate", "20260101") == "20260101-20260101"
    assert value("StudyDate", "-20260101") == "00000000-20260101"
    assert value("StudyDate", "20260101-") == "20260101-99999999"
    assert value("StudyTime", "10-1130") == "100000.000000-113059.999999"
    assert value("ModalitiesInStudy", "SR,OT") == "SR\\OT"
    assert value("StudyInstanceUID", "1.2, 1.3") == "1.2\\1.3"


@pytest.mark.parametrize(
    ("wanted", "met"),
    [
        ("20261120", True),
        ("202611201015", True),
        ("20261120101530.25", True),
        ("20261120101530.26", False),
        ("2026-", True),
        ("-20261120", True),
        ("-2026112010", True),
        ("-2026112009", False),
        ("20261120102000-20261121", False),
    ],
)
def test_dates_with_times_are_matched_by_range(wanted: str, met: bool) -> None:
    key = parse_key("AcquisitionDateTime")
    assert key is not None
    match = parse_match(key, wanted)
    assert match is not None
    for offset in ("", "+0100", "-0500"):
        assert match.meets({"0008002A": {"vr": "DT", "Value": [f"20261120101530.250000{offset}"]}}) is met
    assert not match.meets({"0008002A": {"vr": "DT"}})


@pytest.mark.parametrize("wanted", ["-", "yesterday", "20261120+0100", "2026112", "20261120-20261121-", "*"])
def test_what_is_no_date_with_time_is_refused(wanted: str) -> None:
    key = parse_key("AcquisitionDateTime")
    assert key is not None
    with pytest.raises(BadValue, match="YYYYMMDDHHMMSS"):
        parse_match(key, wanted)


def test_keys_name_attributes_of_the_dictionary() -> None:
    assert parse_key("00400275.ScheduledProcedureStepID") == parse_key("RequestAttributesSequence.00400009")
    for text in ("PatientsName", "00090010", "PatientID.PatientName", "", ".", "PatientID."):
        assert parse_key(text) is None
    with pytest.raises(BadValue):
        parse_query([("limit", "1"), ("limit", "1")])


def test_json_never_has_what_json_does_not_know(get: Get) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(get(f"/studies/{OLDER}/metadata").content, parse_constant=refuse)
