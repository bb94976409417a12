"""OHIF's requests against our server, and its loaders' conditions on what comes back. That is no proof that OHIF shows it: OHIF itself
does not run here. The conditions are written anew from its published source, read in 2026, each with the file that it stands in:

* [qido] OHIF/Viewers extensions/default/src/DicomWebDataSource/qido.js at 00f012e
* [source] OHIF/Viewers extensions/default/src/DicomWebDataSource/index.ts at 03247f5
* [series] OHIF/Viewers extensions/default/src/DicomWebDataSource/wado/retrieveMetadataLoaderAsync.js at 03225b3
* [bulk] OHIF/Viewers extensions/default/src/DicomWebDataSource/utils/fixBulkDataURI.ts at 00419a4
* [accept] OHIF/Viewers platform/core/src/utils/generateAcceptHeader.ts at 0f1390a
* [sort] OHIF/Viewers platform/core/src/utils/sortStudy.ts at 04c17cd
* [stack] OHIF/Viewers extensions/default/src/getSopClassHandlerModule.js at 008aad1
* [sr] OHIF/Viewers extensions/cornerstone-dicom-sr/src/getSopClassHandlerModule.ts at 0012c30
* [enums] OHIF/Viewers extensions/cornerstone-dicom-sr/src/enums.ts at 5a6a319
* [client] dcmjs-org/dicomweb-client src/api.js at 0224b1f
* [frames] cornerstonejs/cornerstone3D packages/dicomImageLoader/src/imageLoader/wadors/loadImage.ts at e5287e7
* [multipart] cornerstonejs/cornerstone3D packages/dicomImageLoader/src/imageLoader/wadors/extractMultipart.ts at 10aa3ef
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cmp_to_key
from io import BytesIO
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from mammograms_made import mammogram, uid
from PIL import Image
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import UID
from reports_made import VARIANTS, built_variant
from results_made import ResultsMade
from serving import serving

from listener.door import Access
from listener.web import create_app
from pipeline.report.values import BuiltObject

JSON = "application/dicom+json"  # [client] _httpGetApplicationJson
OCTETS = 'multipart/related; type="application/octet-stream"'  # [client] _httpGetMultipartApplicationOctetStream
ORIGIN = "https://ohif.example.org"
STUDY_FIELDS = "00081030,00080060,00080090,00100030"  # [qido] mapParams
SERIES_FIELDS = "0008103E,00080021"  # [qido] seriesInStudy
SR_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.88.{one}" for one in (11, 22, 33, 34))  # [sr] sopClassUids
#: Every kind of report in English, and one with Korean letters.
KINDS = [name for name in VARIANTS if "Korean" not in name or name.startswith("normal")]
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # [stack] sopClassUids


class Ohif:
    """OHIF as it asks: the paths, parameters and headers of its data source."""

    def __init__(self, base_url: str) -> None:
        self.root = f"{base_url}/dicom-web"
        self._client = httpx.Client(trust_env=False, headers={"Origin": ORIGIN})

    def get(self, url: str, accept: str, /, **parameters: object) -> httpx.Response:
        # [client] _parseQueryParameters: each value through encodeURIComponent.
        query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in parameters.items())
        return self._client.get(url + (f"?{query}" if query else ""), headers={"Accept": accept})

    def listed(self, path: str, **parameters: object) -> list[dict[str, Any]]:
        """[client] _httpRequest: 200 has JSON, 204 stands for nothing, all else is an error."""
        answer = self.get(self.root + path, JSON, **parameters)
        assert answer.status_code in (200, 204), answer.text
        found: list[dict[str, Any]] = answer.json() if answer.status_code == 200 else []
        return found

    def studies(self, **wanted: str) -> list[dict[str, Any]]:
        """[qido] mapParams: what the study list asks."""
        return self.listed("/studies", **wanted, limit=101, offset=0, fuzzymatching="false", includefield=STUDY_FIELDS)

    def instances(self, study: str) -> list[dict[str, Any]]:
        """[series] preLoad, load: the series of a study, then the metadata of each; naturalised."""
        series = [naturalised(one) for one in self.listed(f"/studies/{study}/series")]
        found = [self.listed(f"/studies/{study}/series/{one['SeriesInstanceUID']}/metadata") for one in series]
        return [naturalised(one) for instances in found for one in instances]

    def instance_url(self, instance: dict[str, Any]) -> str:
        """What getWADORSImageId.js builds upon."""
        uids = (instance["StudyInstanceUID"], instance["SeriesInstanceUID"], instance["SOPInstanceUID"])
        return "{}/studies/{}/series/{}/instances/{}".format(self.root, *uids)


def naturalised(header: dict[str, Any]) -> dict[str, Any]:
    """dcmjs naturalizeDataset: keywords for tags; one value alone without its list, but items of sequences stay in theirs."""
    found: dict[str, Any] = {}
    for tag, element in header.items():
        values = element.get("Value")
        if "BulkDataURI" in element:
            found[keyword_for_tag(tag)] = {"BulkDataURI": element["BulkDataURI"]}
        elif element["vr"] == "SQ":
            found[keyword_for_tag(tag)] = [naturalised(item) for item in values or []]
        else:
            found[keyword_for_tag(tag)] = None if not values else values[0] if len(values) == 1 else values
    return found


def first(items: Any) -> dict[str, Any]:
    """dcmjs addAccessors: a sequence is read like its first item. A missing one would be a TypeError there, and is a KeyError here."""
    item: dict[str, Any] = items[0]
    return item


def code_of(item: dict[str, Any]) -> Any:
    return first(item["ConceptNameCodeSequence"])["CodeValue"]


# ------------------------------------------------------------------------------------------------------- the loader of reports


def newest(instances: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """[sort] sortByInstanceNumber; [sr] takes the last one."""

    def compared(one: dict[str, Any], other: dict[str, Any]) -> int:
        return int(one.get("InstanceNumber") or 0) - int(other.get("InstanceNumber") or 0)

    return sorted(instances, key=cmp_to_key(compared))[-1]


def loaded(instance: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """[sr] _getDisplaySetsFromSeries and _load: (referenced images, measurements); an assertion where it shows a warning or nothing, a
    KeyError or IndexError where it throws."""
    assert instance["SOPClassUID"] in SR_CLASSES and code_of(instance) == "126000", "OHIF only supports TID 1500"
    content = instance["ContentSequence"]
    assert not list(_bulk_data(content)), "[sr] retrieveBulkData takes each for a Float32Array"
    library = next(item for item in content if code_of(item) == "111028")  # [sr] _getReferencedImagesList; undefined would throw
    group = next(item for item in library["ContentSequence"] if code_of(item) == "126200")
    references = [reference for item in group["ContentSequence"] for reference in item.get("ReferencedSOPSequence", [])]
    measurements = next(item for item in content if code_of(item) == "126010")  # [sr] _getMeasurements
    groups = [item for item in measurements.get("ContentSequence", []) if code_of(item) == "125007"]  # [sr] _getSequenceAsArray
    merged: dict[str, list[dict[str, Any]]] = {}
    for one in groups:  # [sr] _getMergedContentSequencesByTrackingUniqueIdentifiers
        tracking = next(item for item in one["ContentSequence"] if code_of(item) == "112040")["UID"]
        assert tracking not in merged, "two groups would be taken for one"
        merged[tracking] = one["ContentSequence"]
    return references, [_measurement(items) for items in merged.values()]


def _measurement(items: list[dict[str, Any]]) -> dict[str, Any]:
    """[sr] _processTID1410Measurement. A group without a region goes the other way, which reads NUMs only with a region of their own."""
    regions = [item for item in items if item["ValueType"] == "SCOORD"]
    tracking = next(item for item in items if item["ValueType"] == "UIDREF")  # whichever comes first
    assert code_of(tracking) == "112040"
    identifier = next(item for item in items if code_of(item) == "112039")["TextValue"]
    numbers = [item for item in items if item["ValueType"] == "NUM"]
    assert regions or not numbers, "[sr] _processNonGeometricallyDefinedMeasurement throws"
    labels = [(_label(item), _value(item)) for item in numbers if item.get("MeasuredValueSequence")]
    sites = [
        item for item in items if code_of(item) == "363698007" and first(item["ConceptNameCodeSequence"])["CodingSchemeDesignator"] == "SCT"
    ]
    labels += [("site", first(item["ConceptCodeSequence"])["CodeMeaning"]) for item in sites[:1]]
    coords = [
        {
            "GraphicType": region["GraphicType"],
            "GraphicData": region["GraphicData"],
            "reference": first(first(region["ContentSequence"])["ReferencedSOPSequence"]),
        }
        for region in regions[:1]
    ]
    return {"TrackingIdentifier": identifier, "labels": labels, "coords": coords}


def _label(item: dict[str, Any]) -> str:
    return str(first(item["ConceptNameCodeSequence"])["CodeMeaning"])


def _value(item: dict[str, Any]) -> str:
    """[sr] _getLabelFromMeasuredValueSequence"""
    measured = first(item["MeasuredValueSequence"])
    return f"{float(measured['NumericValue']):.2f} {first(measured['MeasurementUnitsCodeSequence'])['CodeValue']}"


def _bulk_data(value: Any) -> Iterator[str]:
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _bulk_data(inner)
    if isinstance(value, dict) and "BulkDataURI" in value:
        yield value["BulkDataURI"]


# --------------------------------------------------------------------------------------------------------------------- tests


@pytest.fixture(scope="module")
def built() -> dict[str, tuple[BuiltObject, ...]]:
    """The objects of every kind of report that the pipeline writes, each in a study of its own."""
    return {name: built_variant(name)[1] for name in KINDS}


@pytest.fixture(scope="module")
def ohif(built: dict[str, tuple[BuiltObject, ...]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ohif]:
    source = ResultsMade(tmp_path_factory.mktemp("ohif"))
    for name, objects in built.items():
        source.add(*(_of_study(one.ds, name) for one in objects))
    app = create_app(results=source.search, file_path=source.files.path, ready=list, access=Access(origins=frozenset({ORIGIN})))
    with serving(app) as base_url:
        yield Ohif(base_url)


def _of_study(original: Dataset, name: str) -> Dataset:
    ds = deepcopy(original)  # `Dataset(original)` would share its elements, and other tests use the original
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(name), uid(name, original.Modality)
    ds.SOPInstanceUID = uid(name, original.Modality, original.InstanceNumber)
    return ds


def test_the_study_list_gets_what_it_shows(ohif: Ohif) -> None:
    found = ohif.studies()
    assert len(found) == len(KINDS)
    for one in found:  # [qido] processResults
        assert UID(one["0020000D"]["Value"][0]).is_valid
        assert len(one["00080020"]["Value"][0]) == 8 and one["00080020"]["Value"][0].isdigit()
        assert one["00100010"]["Value"][0]["Alphabetic"] and isinstance(one["00100020"]["Value"][0], str)
        assert int(one["00201208"]["Value"][0]) == 2 and set(one["00080061"]["Value"]) == {"SR", "OT"}
        assert {"00080030", "00080050", "00081030", "00080090", "00100030"} <= one.keys()


@pytest.mark.parametrize(
    ("wanted", "hits"),
    [
        ({"PatientName": "*Doe*"}, True),
        ({"PatientName": "*nobody*"}, False),
        ({"00100020": "*P1*"}, True),
        ({"AccessionNumber": "*ACC*"}, True),
        ({"StudyDescription": "*nothing like it*"}, False),
        ({"ModalitiesInStudy": "SR"}, True),
        ({"ModalitiesInStudy": "CT"}, False),
        ({"StudyDate": "20261101-20261130"}, True),
        ({"StudyDate": "19700102-20200101"}, False),
        ({"StudyInstanceUID": "{}\\\\{}"}, True),
    ],
)
def test_the_filters_of_the_study_list_work(ohif: Ohif, wanted: dict[str, str], hits: bool) -> None:
    """[qido] mapParams with `supportsWildcard: true`; UIDs come with backslashes between them."""
    names = list(KINDS)[:2]
    found = ohif.studies(**{key: value.replace("\\\\", "\\").format(*map(uid, names)) for key, value in wanted.items()})
    expected = 2 if "StudyInstanceUID" in wanted else len(KINDS)
    assert len(found) == (expected if hits else 0)


def test_the_series_of_a_study_are_listed(ohif: Ohif) -> None:
    for one in ohif.listed(f"/studies/{uid(next(iter(KINDS)))}/series", includefield=SERIES_FIELDS):  # [qido] processSeriesResults
        assert one["0020000E"]["Value"][0] and one["00080060"]["Value"][0] in ("SR", "OT")
        assert int(one["00200011"]["Value"][0]) in (9100, 9102) and int(one["00201209"]["Value"][0]) == 1
        assert "NOT FOR DIAGNOSTIC USE" in one["0008103E"]["Value"][0]


@pytest.mark.parametrize("name", KINDS)
def test_the_loader_takes_each_report(ohif: Ohif, name: str) -> None:
    report, _ = built_variant(name)
    instances = ohif.instances(uid(name))
    assert {one["StudyInstanceUID"] for one in instances} == {uid(name)}  # [sr] validateSameStudyUID
    structured = newest([one for one in instances if one["Modality"] == "SR"])
    references, measurements = loaded(structured)
    images = {str(view.header.SOPInstanceUID): str(view.view) for view in report.views}
    assert {one["ReferencedSOPInstanceUID"] for one in references} <= images.keys() and references
    with_region = [one for one in measurements if one["coords"]]
    assert len(with_region) == len(report.analysed)
    for one in with_region:
        [coord] = one["coords"]
        assert images[coord["reference"]["ReferencedSOPInstanceUID"]] == one["TrackingIdentifier"]
        # [sr] _checkIfCanAddMeasurementsToDisplaySet compares it with the classes of a stack.
        assert coord["reference"]["ReferencedSOPClassUID"] == str(mammogram().SOPClassUID)
        assert (
            coord["GraphicType"] == "POLYLINE"
            and len(coord["GraphicData"]) % 2 == 0
            and coord["GraphicData"][:2] == coord["GraphicData"][-2:]
        )
        scores = [value for label, value in one["labels"] if value.endswith(" %")]
        assert [float(value.removesuffix(" %")) for value in scores] == sorted(
            (float(value.removesuffix(" %")) for value in scores), reverse=True
        )
        assert scores and any(label == "site" for label, _ in one["labels"])


@pytest.mark.parametrize("broken", ["112040", "112039", "111030", "126010", "111028", "concept"])
def test_these_conditions_find_a_report_that_the_loader_would_not_take(ohif: Ohif, broken: str) -> None:
    [structured] = [one for one in ohif.instances(uid(next(iter(KINDS)))) if one["Modality"] == "SR"]
    if broken == "concept":
        del structured["ContentSequence"][0]["ConceptNameCodeSequence"]
    else:
        structured["ContentSequence"] = _without(structured["ContentSequence"], broken)
    with pytest.raises((AssertionError, KeyError, StopIteration)):
        loaded(structured)


def _without(items: list[dict[str, Any]], code: str) -> list[dict[str, Any]]:
    kept = [item for item in items if code_of(item) != code]
    for item in kept:
        if "ContentSequence" in item and item["ValueType"] == "CONTAINER":
            item["ContentSequence"] = _without(item["ContentSequence"], code)
    return kept


@pytest.mark.parametrize("name", KINDS)
def test_the_page_becomes_a_stack_and_its_pixels_come_as_they_are_asked_for(
    ohif: Ohif, built: dict[str, tuple[BuiltObject, ...]], name: str
) -> None:
    [page] = [one for one in ohif.instances(uid(name)) if one["Modality"] == "OT"]
    assert page["SOPClassUID"] == SECONDARY_CAPTURE and page["Rows"] and not page.get("NumberOfFrames")  # [stack] getDisplaySetsFromSeries
    pixels = (page["SamplesPerPixel"], page["PhotometricInterpretation"], page["PlanarConfiguration"], page["BitsAllocated"])
    assert pixels == (3, "RGB", 0, 8)
    expected = next(one.ds.PixelData for one in built[name] if one.kind == "page")
    url = ohif.instance_url(page)
    accepts = (
        "multipart/related; type=application/octet-stream; transfer-syntax=*",  # [frames] mediaType
        'multipart/related; type="application/octet-stream"; transfer-syntax="*"',  # [accept]
        "multipart/related; type=application/octet-stream; transfer-syntax=*;q=0.9",
    )
    for accept in accepts:
        content_type, data = extracted(ohif.get(f"{url}/frames/1", accept))
        assert data == expected and "transfer-syntax=1.2.840.10008.1.2.1" in content_type.replace(" ", "")
    # [bulk] an absolute URI stays as it is; [client] retrieveBulkData
    uri = page["PixelData"]["BulkDataURI"]
    assert uri.startswith(f"{url}/bulkdata/") and extracted(ohif.get(uri, OCTETS))[1] == expected


def extracted(answer: httpx.Response) -> tuple[str, bytes]:
    """[multipart] extractMultipart, also in its order: the first blank line, the boundary before it, then the next boundary."""
    assert answer.status_code == 200 and "multipart" in answer.headers["Content-Type"]
    blank = answer.content.index(b"\r\n\r\n")
    head = answer.content[:blank].decode().split("\r\n")
    boundary = next(line for line in head if line.startswith("--"))
    content_type = next(line for line in head if line.startswith("Content-Type:")).removeprefix("Content-Type:").strip()
    return content_type, answer.content[blank + 4 : answer.content.index(boundary.encode(), blank + 4) - 2]


def test_thumbnails_come_as_they_are_asked_for(ohif: Ohif) -> None:
    """[source] getGetThumbnailSrc: with `thumbnailRequestStrategy: "fetch"`, and `thumbnailRendering: "thumbnailDirect"`."""
    [page] = [one for one in ohif.instances(uid(next(iter(KINDS)))) if one["Modality"] == "OT"]
    url = ohif.instance_url(page)
    series = url.partition("/instances/")[0]
    for path in (f"{url}/thumbnail", f"{url}/rendered", f"{series}/thumbnail", f"{series}/rendered"):
        answer = ohif.get(path, "image/jpeg")
        assert answer.headers["Content-Type"] == "image/jpeg" and Image.open(BytesIO(answer.content)).format == "JPEG"
    assert ohif.get(f"{url}/thumbnail", "image/*", accept="image/jpeg").headers["Content-Type"] == "image/jpeg"


def test_a_browser_lets_ohif_read_the_answers(ohif: Ohif) -> None:
    """CORS: a request beforehand because of Authorization, then answers that its page may read; no other origin may."""
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    before = httpx.options(f"{ohif.root}/studies", headers=asks, trust_env=False)
    assert before.status_code == 200 and before.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "authorization" in before.headers["Access-Control-Allow-Headers"].lower()
    answer = ohif.get(f"{ohif.root}/studies", JSON)
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    other = httpx.get(f"{ohif.root}/studies", headers={"Origin": "https://evil.example"}, trust_env=False)
    assert "Access-Control-Allow-Origin" not in other.headers
