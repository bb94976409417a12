"""The tables of docs/conformance.md that say what the code says, made from the code (PS3.2).

Each stands in the document between `<!-- table: NAME -->` and `<!-- end -->`. tests/test_conformance.py compares them;
`python tests/conformance_tables.py --write` writes them anew. What a value means in words stands here, once for each, and a value without
its words is a KeyError.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_description, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification  # type: ignore[attr-defined]
from reports_made import VARIANTS, built_variant, made_report

from listener import dicomweb, guard, listing, matching, scp
from listener.config import SINGLE_TABLES
from listener.keeping import SOP_CLASSES, OnArrival
from listener.keys import Status
from pipeline import decode, send
from pipeline.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pipeline.report import build
from pipeline.report.header import TYPE_2
from pipeline.report.structured_report import PRIVATE_SCHEME, build_structured_report
from store.correction import CORRECTABLE
from store.files import RESERVE

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "conformance.md"

Rows = Iterable[Sequence[object]]


def table(headings: Sequence[str], rows: Rows) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _name(uid: str) -> str:
    return UID(uid).name


def _hex(first: int, last: int | None = None) -> str:
    return f"0x{first:04X}" if last in (None, first) else f"0x{first:04X} to 0x{last:04X}"


# --- associations


def product() -> str:
    """PS3.2: the cover page."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    rows = (
        ("product", "Fourview"),
        ("version", project["version"]),
        ("date", "that of the release"),
        ("AE title", SINGLE_TABLES["dicom"]().ae_title),
    )
    return table(("", "value"), rows)


def implementation() -> str:
    """PS3.2: implementation identifying information."""
    return table(
        ("", "value"),
        (
            ("Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
            ("Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
        ),
    )


def limits() -> str:
    """What one connection may do, in either role."""
    defaults = guard.Limits()
    dicom = SINGLE_TABLES["dicom"]()
    acceptor = scp.StorageScp.__init__.__kwdefaults__ or {}
    rows = (
        ("simultaneous associations, of one receiver", f"{dicom.max_associations}", "`[dicom] max_associations`"),
        ("receivers that share the port", f"{dicom.receivers}", "`[dicom] receivers`"),
        ("maximum PDU size that is announced", f"{defaults.pdu_bytes // 2} bytes", "no"),
        ("longest PDU that is read", f"{defaults.pdu_bytes} bytes", "no"),
        ("longest time for one PDU to arrive", f"{defaults.pdu_seconds:g} s", "no"),
        ("largest data set of one message", f"{defaults.message_bytes // 1024**2} MiB", "no; each class has a limit of its own, see below"),
        ("wait for an A-ASSOCIATE-RQ, or for the end of an association", f"{acceptor['acse_seconds']:g} s", "no"),
        ("wait for the next message of an open association", f"{acceptor['network_seconds']:g} s", "no"),
        ("free space below which a transfer under way is cut off", f"{RESERVE:g} of `min_free_gib`", "`[store] min_free_gib`"),
    )
    return table(("as an acceptor", "value", "configurable"), rows)


def initiator_limits() -> str:
    """The same for associations that Fourview opens."""
    rows = (
        ("wait for the TCP connection", f"{send.CONNECT_SECONDS:g} s"),
        ("wait for the answer to A-ASSOCIATE-RQ or A-RELEASE-RQ", f"{send.ACSE_SECONDS:g} s"),
        ("wait for the answer to a message", f"{send.DIMSE_SECONDS:g} s"),
    )
    return table(("as an initiator (not configurable)", "value"), rows)


_ON_ARRIVAL = {
    OnArrival.KEEP: "kept",
    OnArrival.KEEP_LISTED: "kept when the model card lists the kind, else ignored",
    OnArrival.KEEP_KEY_OBJECT: "kept and read",
    OnArrival.IGNORE: "ignored",
}


def accepted_sop_classes() -> str:
    """PS3.2: acceptable presentation contexts; the transfer syntaxes stand in `transfer_syntaxes`."""
    rows: list[Sequence[object]] = [("Verification", f"`{scp.VERIFICATION}`", "documents", "answered", "", "")]
    for one in SOP_CLASSES:
        syntaxes = "images" if one.is_image else "documents"
        limit = f"{one.limit_bytes // 1024**2} MiB"
        rows.append((one.name, f"`{one.uid}`", syntaxes, _ON_ARRIVAL[one.on_arrival], limit, one.reason))
    return table(("SOP class", "UID", "transfer syntaxes", "what becomes of it", "largest", "why it is not read"), rows)


def transfer_syntaxes() -> str:
    """Those of images, in our order of preference, and the plugins of pydicom of which one must be installed."""
    documents = set(next(one for one in SOP_CLASSES if not one.is_image).transfer_syntaxes)
    rows = [
        (
            _name(uid),
            f"`{uid}`",
            "images, documents" if uid in documents else "images",
            "no" if not plugins else " or ".join(plugins),
        )
        for uid, plugins in decode._PLUGINS.items()
    ]
    return table(("transfer syntax", "UID", "of", "needs a decoder"), rows)


_STATUS_WORDS = {
    Status.SUCCESS: ("Success", "kept durably, or ignored on purpose, or known already"),
    Status.SOP_CLASS_NOT_SUPPORTED: ("Refused: SOP Class Not Supported", "an ignored class, only with `[dicom] strict = true`"),
    Status.OUT_OF_RESOURCES: (
        "Refused: Out of Resources",
        "disk below `[store] min_free_gib` at the end of a transfer, full, broken or read-only in the middle of it, database busy, full or "
        "away: try again later (below half of it, the connection is closed during the transfer)",
    ),
    Status.DOES_NOT_MATCH: ("Error: Data Set Does Not Match SOP Class", "SOP class or instance UID differ between command and data set"),
    Status.INVALID_UID: ("Error: Cannot Understand", "a UID is missing or malformed"),
    Status.CANNOT_PARSE: ("Error: Cannot Understand", "the data set cannot be parsed, or its pixel data is cut short"),
    Status.TOO_LARGE: ("Error: Cannot Understand", "larger than allowed"),
    Status.UNEXPECTED: ("Error: Cannot Understand", "a fault of ours; its log says more"),
}
#: PS3.18 Table I.2-2 has it; C-STORE negotiates instead.
_ONLY_STOW = (Status.TRANSFER_SYNTAX_NOT_SUPPORTED,)


def store_scp_statuses() -> str:
    """PS3.2: C-STORE response status behaviour of the SCP."""
    rows = [(*reversed_words(status), "yes" if status is Status.OUT_OF_RESOURCES else "") for status in Status if status not in _ONLY_STOW]
    return table(("status", "service status", "when", "worth a retry"), rows)


def reversed_words(status: Status) -> tuple[str, str, str]:
    """The cells of one status."""
    service_status, when = _STATUS_WORDS[status]
    return _hex(status), service_status, when


_RESULTS = {1: "rejected-permanent", 2: "rejected-transient"}
_SOURCES = {1: "service-user", 2: "service-provider (ACSE)", 3: "service-provider (presentation)"}


def _rejections(given: Mapping[Any, str]) -> str:
    rows = [(f"{r} {_RESULTS[r]}", f"{s} {_SOURCES[s]}", d, words) for (r, s, d), words in given.items()]
    return table(("result", "source", "reason", "when"), rows)


def scp_rejections() -> str:
    """A-ASSOCIATE-RJ that we give."""
    return _rejections(scp._REJECTIONS)


def scu_rejections() -> str:
    """A-ASSOCIATE-RJ that we get."""
    words = {key: text.format(ours="(ours)", pacs=_AnyPacs()) for key, text in send._REJECTIONS.items()}
    rows = [
        (f"{r} {_RESULTS[r or 0]}", f"{s} {_SOURCES[s or 0]}", d, f"it {text}", "tried again" if r == 2 else "stops")
        for (r, s, d), text in words.items()
    ]
    return table(("result", "source", "reason", "what is said", "what follows"), rows)


class _AnyPacs:
    ae_title = "(its)"


def proposed_contexts() -> str:
    """PS3.2: proposed presentation contexts, by activity."""
    rows: list[Sequence[object]] = []
    for one in built_variant("normal")[1]:
        sop_class, syntax = one.ds.SOPClassUID, one.ds.file_meta.TransferSyntaxUID
        rows.append(("send results", _name(sop_class), f"`{sop_class}`", f"{_name(syntax)} `{syntax}`", "SCU", "none"))
    for kept in (one for one in SOP_CLASSES if one.on_arrival is not OnArrival.IGNORE):
        rows.append(("forward images", _name(kept.uid), f"`{kept.uid}`", "that of the image as it was received", "SCU", "none"))
    for activity, sop_class in (("ask, and confirm", StudyRootQueryRetrieveInformationModelFind), ("check", Verification)):
        syntaxes = build_context(sop_class).transfer_syntax
        said = ", ".join(f"{_name(syntax)} `{syntax}`" for syntax in syntaxes)
        rows.append((activity, _name(sop_class), f"`{sop_class}`", said, "SCU", "none"))
    return table(("activity", "SOP class", "UID", "transfer syntaxes", "role", "extended negotiation"), rows)


_OUTCOMES = {
    send.SendOutcome.SENT: "sent; it is then confirmed as `confirm` says",
    send.SendOutcome.RETRY: "tried again for `retry_days`",
    send.SendOutcome.REFUSED: "stops, and people are told",
}


def store_scu_statuses() -> str:
    """PS3.2: C-STORE response status handling of the SCU."""
    rows: list[Sequence[object]] = [(_hex(one.first, one.last), one.words, _OUTCOMES[one.outcome]) for one in send.VERDICTS]
    rows.append(("any other, or no answer", send._verdict(0x0001)[1], _OUTCOMES[send._verdict(0x0001)[0]]))
    return table(("status", "what is said", "what follows"), rows)


def find_keys() -> str:
    """The identifiers of our C-FIND."""
    rows = [("STUDY", *_attribute("StudyInstanceUID"), "single value"), ("STUDY", *_attribute("SpecificCharacterSet"), "ISO_IR 192")]
    rows += [("STUDY", *_attribute(keyword), "universal (return)") for keyword in CORRECTABLE]
    rows += [("IMAGE", *_attribute(keyword), "single value") for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    return table(("level", "attribute", "tag", "matching"), rows)


def _attribute(keyword: str) -> tuple[str, str]:
    """Name and tag as PS3.6 has them."""
    tag = tag_for_keyword(keyword) or 0
    return dictionary_description(tag), f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


# --- web services


def web_resources() -> str:
    """Every path below `/dicom-web` with its methods; what stands beside it in words is `_RESOURCES`."""
    rows = [(f"`{path}`", *_RESOURCES[path]) for path in _RESOURCES]
    return table(("resource", "method", "transaction", "media types, the default first"), rows)


_METADATA = '`application/dicom+json`, `application/json`, `multipart/related; type="application/dicom+xml"`'
_FILES = '`multipart/related; type="application/dicom"`'
_OCTETS = '`multipart/related; type="application/octet-stream"`'
_PICTURES = "`image/jpeg`, `image/png`"
_PAGES = (
    'the pages, each a part: `multipart/related; type="image/jpeg"` or `"image/png"`; one page alone also `image/jpeg` (the default then), '
    "`image/png`. SRs are left out"
)
_STOW = (
    'request `multipart/related; type="application/dicom"`; answer `application/dicom+json`, `application/json`, `application/dicom+xml`'
)
_S, _E, _I = "/studies/{study}", "/studies/{study}/series/{series}", "/studies/{study}/series/{series}/instances/{instance}"
_RESOURCES: Mapping[str, tuple[str, str, str]] = {
    "/studies": ("GET, POST", "QIDO-RS; STOW-RS", f"GET: {_METADATA}; POST: {_STOW}"),
    "/series": ("GET", "QIDO-RS", _METADATA),
    "/instances": ("GET", "QIDO-RS", _METADATA),
    f"{_S}/series": ("GET", "QIDO-RS", _METADATA),
    f"{_S}/instances": ("GET", "QIDO-RS", _METADATA),
    f"{_E}/instances": ("GET", "QIDO-RS", _METADATA),
    _S: ("GET, POST", "WADO-RS; STOW-RS", f"GET: {_FILES}; POST: {_STOW}"),
    _E: ("GET", "WADO-RS", _FILES),
    _I: ("GET", "WADO-RS", f"{_FILES}; `application/dicom` when it is named"),
    f"{_S}/metadata": ("GET", "WADO-RS", _METADATA),
    f"{_E}/metadata": ("GET", "WADO-RS", _METADATA),
    f"{_I}/metadata": ("GET", "WADO-RS", _METADATA),
    f"{_I}/frames/{{frames}}": ("GET", "WADO-RS", f"{_OCTETS}; `application/octet-stream` when it is named, for one frame"),
    f"{_I}/bulkdata/{{tag}}": ("GET", "WADO-RS", f"of tag 7FE00010: {_OCTETS}; `application/octet-stream` when it is named"),
    f"{_I}/rendered": ("GET", "WADO-RS", f"page or view: {_PICTURES}; SR: `text/html`, `text/plain`"),
    f"{_I}/frames/{{frames}}/rendered": ("GET", "WADO-RS", f"frame 1: {_PICTURES}"),
    f"{_S}/rendered": ("GET", "WADO-RS", _PAGES),
    f"{_E}/rendered": ("GET", "WADO-RS", _PAGES),
    f"{_S}/thumbnail": ("GET", "WADO-RS", _PICTURES),
    f"{_E}/thumbnail": ("GET", "WADO-RS", _PICTURES),
    f"{_I}/thumbnail": ("GET", "WADO-RS", _PICTURES),
}


def resources() -> dict[str, str]:
    """Path below `/dicom-web` -> methods, as the document has them."""
    return {path: methods for path, (methods, _, _) in _RESOURCES.items()}


def qido_attributes() -> str:
    """PS3.18 Tables 10.6.3-3 to 10.6.3-5, as far as we return them."""
    rows = []
    for level in listing.Level:
        for returned, tags in (
            ("always", listing.REQUIRED[level]),
            ("when known", listing.CONDITIONAL[level]),
            ("with `includefield=all`, or by its name", listing.ADDITIONAL.get(level, ())),
        ):
            rows += [(level.value, *_attribute(keyword_for_tag(tag)), returned) for tag in tags]
    return table(("level", "attribute", "tag", "returned"), rows)


def qido_matching() -> str:
    """PS3.4 C.2.2.2, by value representation."""
    kinds = [
        ("UI", "list of UIDs, single value"),
        ("CS", "single value, wildcard, alternatives with commas"),
        ("PN", "wildcard without regard to case, against each of the three groups"),
        (", ".join(matching._RANGES), "range, single value (a DT as it is written, without its offset)"),
        (", ".join(sorted(matching._NUMBERS)), "single value, as numbers"),
        (", ".join(sorted(matching._WILDCARDS - {"CS", "PN"})), "single value, wildcard"),
        ("SQ", "a path of keywords or tags with dots: as the VR of its last attribute"),
        ("any other", "universal only; a value is answered 400"),
    ]
    return table(("value representation", "matching (universal always)"), kinds)


def qido_keys() -> str:
    """What the database finds by itself."""
    return table(("attribute", "tag"), (_attribute(keyword) for keyword in sorted(dicomweb.INDEXED)))


# --- what is written


@cache
def _written() -> tuple[tuple[Dataset, Dataset], ...]:
    """(SR, page) of every kind of report, read back: also of images that say as little, and as much, as can be of the patient."""
    bare = dict.fromkeys((*_OPTIONAL, *TYPE_2))
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "71651007", "SCT", "Mammography"
    request = Dataset()
    request.RequestedProcedureID, request.RequestedProcedureDescription = "RP1", "Mammography, both sides"
    full: dict[str, Any] = {
        "IssuerOfPatientID": "Example",
        "PatientSize": "1.7",
        "PatientWeight": "70",
        "StudyDescription": "MAMMOGRAPHY",
        "ReferringPhysicianName": "Roe^Jo",
        "ProcedureCodeSequence": [code],
        "RequestAttributesSequence": [request],
    }
    built = [built_variant(name)[1] for name in VARIANTS if "Korean" not in name]
    built += [build(made_report(every_header=header)) for header in (bare, full)]
    return tuple((structured_report.ds, page.ds) for structured_report, page in built)


_OPTIONAL = (
    "PatientAge",
    "StudyDescription",
    "PatientSize",
    "PatientWeight",
    "IssuerOfPatientID",
    "BreastImplantPresent",
    "ImagerPixelSpacing",
)

_COPY, _AUTO = "COPY", "AUTO"
#: Keyword -> (module of the SR / of the page, where the value comes from as PS3.2 calls it, the value in words).
_ATTRIBUTES: Mapping[str, tuple[str, str, str]] = {
    "SpecificCharacterSet": ("SOP Common", _AUTO, "ISO_IR 192"),
    "InstanceCreationDate": ("SOP Common", _AUTO, "when the version was made, local to `[site] timezone`"),
    "InstanceCreationTime": ("SOP Common", _AUTO, "the same"),
    "SOPClassUID": ("SOP Common", _AUTO, "of the object"),
    "SOPInstanceUID": ("SOP Common", _AUTO, "below 2.25, derived from the version's cause"),
    "TimezoneOffsetFromUTC": ("SOP Common", _AUTO, "of `[site] timezone` at that time"),
    "CodingSchemeIdentificationSequence": ("SOP Common", _AUTO, f"one item: {PRIVATE_SCHEME}, Fourview classifier outputs"),
    "ContributingEquipmentSequence": (
        "SOP Common",
        _COPY,
        "one item, (109101, DCM, Acquisition Equipment): manufacturer, model, serial number and institution of the first image as hung",
    ),
    "InstanceNumber": (
        "SOP Common / General Image",
        _AUTO,
        "the version's number / 10000 less the version's number, so that the newest is first",
    ),
    "PatientName": ("Patient", _COPY, "of the images"),
    "PatientID": ("Patient", _COPY, "of the images"),
    "IssuerOfPatientID": ("Patient", _COPY, "of the images"),
    "PatientBirthDate": ("Patient", _COPY, "of the images"),
    "PatientSex": ("Patient", _COPY, "of the images: M, F or O"),
    "PatientAge": ("Patient Study", _COPY, "of the images"),
    "PatientSize": ("Patient Study", _COPY, "of the images"),
    "PatientWeight": ("Patient Study", _COPY, "of the images"),
    "StudyInstanceUID": ("General Study", _COPY, "of the images: results belong to the study"),
    "StudyDate": ("General Study", _COPY, "of the images"),
    "StudyTime": ("General Study", _COPY, "of the images"),
    "AccessionNumber": ("General Study", _COPY, "of the images"),
    "StudyID": ("General Study", _COPY, "of the images"),
    "StudyDescription": ("General Study", _COPY, "of the images, 64 characters of it"),
    "ReferringPhysicianName": ("General Study", _COPY, "of the images"),
    "ProcedureCodeSequence": ("General Study", _COPY, "the first usable item of the images"),
    "Modality": ("SR Document Series / General Series", _AUTO, "SR / OT"),
    "SeriesInstanceUID": (
        "SR Document Series / General Series",
        _AUTO,
        "below 2.25, derived from study, kind of object and model line; all versions share it",
    ),
    "SeriesNumber": ("SR Document Series / General Series", _AUTO, "9100 / 9102"),
    "SeriesDescription": ("SR Document Series / General Series", _AUTO, "names the model, and says that it is AI for research use"),
    "ReferencedPerformedProcedureStepSequence": ("SR Document Series", _AUTO, "no item"),
    "BodyPartExamined": ("General Series", _AUTO, "BREAST"),
    "Manufacturer": ("General Equipment", _AUTO, "Fourview"),
    "ManufacturerModelName": ("General Equipment", _AUTO, "Fourview"),
    "DeviceSerialNumber": ("General Equipment", _AUTO, "drawn at random when the database was made"),
    "SoftwareVersions": ("General Equipment", _AUTO, "of Fourview"),
    "ConversionType": ("SC Equipment", _AUTO, "WSD"),
    "ContentDate": ("SR Document General / General Image", _AUTO, "as Instance Creation Date"),
    "ContentTime": ("SR Document General / General Image", _AUTO, "as Instance Creation Time"),
    "PreliminaryFlag": ("SR Document General", _AUTO, "PRELIMINARY, always"),
    "CompletionFlag": ("SR Document General", _AUTO, "COMPLETE when everything that was expected was read; else PARTIAL"),
    "CompletionFlagDescription": ("SR Document General", _AUTO, "how many of the expected views; or that it is withdrawn"),
    "VerificationFlag": ("SR Document General", _AUTO, "UNVERIFIED, always"),
    "PredecessorDocumentsSequence": ("SR Document General", _AUTO, "the SR of the version before, of the same series"),
    "ReferencedRequestSequence": (
        "SR Document General",
        _COPY,
        "one item, when the images name an accession number or a requested procedure",
    ),
    "PerformedProcedureCodeSequence": ("SR Document General", _AUTO, "no item"),
    "CurrentRequestedProcedureEvidenceSequence": (
        "SR Document General",
        _AUTO,
        "the images that were read; of a withdrawn version those that its predecessor was made of",
    ),
    "ValueType": ("SR Document Content", _AUTO, "CONTAINER"),
    "ConceptNameCodeSequence": ("SR Document Content", _AUTO, "(126000, DCM, Imaging Measurement Report)"),
    "ContinuityOfContent": ("SR Document Content", _AUTO, "SEPARATE"),
    "ContentTemplateSequence": ("SR Document Content", _AUTO, "DCMR 1500"),
    "ContentSequence": ("SR Document Content", _AUTO, "see the content tree"),
    "PatientOrientation": ("General Image", _AUTO, "empty: four views as hung have none in common"),
    "ImageType": ("General Image", _AUTO, "DERIVED\\SECONDARY"),
    "ImageLaterality": ("General Image", _AUTO, "B, or the side of a unilateral exam"),
    "ImageComments": ("General Image", _AUTO, "research use only, not for diagnosis, not reviewed; what else a reader must know"),
    "BurnedInAnnotation": ("General Image", _AUTO, "YES: classes, scores and remarks; no name"),
    "RecognizableVisualFeatures": ("General Image", _AUTO, "NO"),
    "DerivationDescription": ("General Image", _AUTO, "what was done, in words"),
    "SourceImageSequence": (
        "General Image",
        _AUTO,
        "the images that are shown, (121322, DCM, Source image for image processing operation)",
    ),
    "ReferencedImageSequence": ("General Image", _AUTO, "only of a withdrawn page: the images that its predecessor showed"),
    "ReferencedInstanceSequence": ("General Image", _AUTO, f"the page of the version before, (REPLACES, {PRIVATE_SCHEME})"),
    "SamplesPerPixel": ("Image Pixel", _AUTO, "3"),
    "PhotometricInterpretation": ("Image Pixel", _AUTO, "RGB"),
    "PlanarConfiguration": ("Image Pixel", _AUTO, "0"),
    "Rows": ("Image Pixel", _AUTO, "2000"),
    "Columns": ("Image Pixel", _AUTO, "1800"),
    "BitsAllocated": ("Image Pixel", _AUTO, "8"),
    "BitsStored": ("Image Pixel", _AUTO, "8"),
    "HighBit": ("Image Pixel", _AUTO, "7"),
    "PixelRepresentation": ("Image Pixel", _AUTO, "0"),
    "PixelData": ("Image Pixel", _AUTO, "OB"),
}


#: Modules in the order of the document.
_MODULES = (
    "Patient",
    "General Study",
    "Patient Study",
    "SR Document Series",
    "General Series",
    "General Equipment",
    "SC Equipment",
    "General Image",
    "Image Pixel",
    "SR Document General",
    "SR Document Content",
    "SOP Common",
)


def _attribute_table(objects: Sequence[Dataset], *, side: int) -> str:
    """PS3.2: attributes of a created IOD with their presence: ALWAYS with a value, VNAP (sometimes empty), ANAP (sometimes absent), EMPTY.
    `side`: 0 of the SR, -1 of the page, where a module or a value is told for both."""
    rows = []
    for tag in sorted({element.tag for ds in objects for element in ds}):
        holding = [ds for ds in objects if tag in ds]
        filled = [ds for ds in holding if not ds[tag].is_empty]
        presence = "EMPTY" if not filled else "ANAP" if len(holding) < len(objects) else "VNAP" if len(filled) < len(objects) else "ALWAYS"
        module, source, value = (said.split(" / ")[side] for said in _ATTRIBUTES[keyword_for_tag(tag)])
        rows.append((module, *_attribute(keyword_for_tag(tag)), holding[0][tag].VR, value, presence, source))
    rows.sort(key=lambda row: _MODULES.index(row[0]))
    return table(("module", "attribute", "tag", "VR", "value", "presence", "source"), rows)


@cache
def sr_attributes() -> str:
    """Comprehensive SR, the level of the data set."""
    return _attribute_table([structured_report for structured_report, _ in _written()], side=0)


@cache
def page_attributes() -> str:
    """Secondary Capture, the level of the data set."""
    return _attribute_table([page for _, page in _written()], side=-1)


_Code = tuple[str, str, str]


def _codes(item: Dataset, uses: dict[_Code, set[str]]) -> None:
    def note(sequence: str, use: str, holder: Dataset) -> None:
        for code in holder.get(sequence, []):
            uses.setdefault((str(code.CodingSchemeDesignator), str(code.CodeValue), str(code.CodeMeaning)), set()).add(use)

    note("ConceptNameCodeSequence", "name", item)
    note("ConceptCodeSequence", "value", item)
    for measured in item.get("MeasuredValueSequence", []):
        note("MeasurementUnitsCodeSequence", "unit", measured)
    for below in item.get("ContentSequence", []):
        _codes(below, uses)


@cache
def coded_concepts() -> str:
    """Every code of the SRs, by scheme, with what it is used as. Only the language differs in Korean."""
    uses: dict[_Code, set[str]] = {}
    ours = [one for one, _ in _written() if "ProcedureCodeSequence" not in one]  # a procedure's code is the images'
    for structured_report in (*ours, build_structured_report(VARIANTS["normal, Korean"]())):
        _codes(structured_report, uses)
    rows = [(f"`{value}`", scheme, meaning, ", ".join(sorted(used))) for (scheme, value, meaning), used in sorted(uses.items())]
    return table(("code value", "scheme", "meaning", "used as"), rows)


@cache
def templates() -> str:
    """The templates that content items name."""
    found: set[tuple[str, str]] = set()

    def look(item: Dataset) -> None:
        for one in item.get("ContentTemplateSequence", []):
            found.add((str(one.MappingResource), str(one.TemplateIdentifier)))
        for below in item.get("ContentSequence", []):
            look(below)

    for structured_report, _ in _written():
        look(structured_report)
    return table(("mapping resource", "template", "of"), [(resource, name, _TEMPLATES[name]) for resource, name in sorted(found)])


_TEMPLATES = {
    "1500": "Measurement Report: the document",
    "1410": "Planar ROI Measurements and Qualitative Evaluations: one group for each image that was read",
}


def character_sets() -> str:
    """Specific Character Sets that texts of received headers are read in."""
    defined = [name for name in python_encoding if name.startswith(("ISO_IR", "ISO 2022 IR", "GB"))]
    return table(("defined terms of (0008,0005) that are read",), [(", ".join(f"`{name}`" for name in defined),)])


#: Name -> what makes it.
TABLES: Mapping[str, Callable[[], str]] = {
    "product": product,
    "implementation": implementation,
    "limits": limits,
    "initiator limits": initiator_limits,
    "accepted SOP classes": accepted_sop_classes,
    "transfer syntaxes": transfer_syntaxes,
    "store SCP statuses": store_scp_statuses,
    "SCP rejections": scp_rejections,
    "proposed contexts": proposed_contexts,
    "store SCU statuses": store_scu_statuses,
    "SCU rejections": scu_rejections,
    "find keys": find_keys,
    "web resources": web_resources,
    "QIDO attributes": qido_attributes,
    "QIDO matching": qido_matching,
    "QIDO keys": qido_keys,
    "SR attributes": sr_attributes,
    "page attributes": page_attributes,
    "coded concepts": coded_concepts,
    "templates": templates,
    "character sets": character_sets,
}

_MARKED = re.compile(r"(?s)<!-- table: (.*?) -->\n(.*?)<!-- end -->")


def tables_in(text: str) -> dict[str, str]:
    """Name -> table as it stands in the document."""
    return {name: body.strip("\n") for name, body in _MARKED.findall(text)}


def written(text: str) -> str:
    """The document with its tables made anew."""
    return _MARKED.sub(lambda found: f"<!-- table: {found[1]} -->\n{TABLES[found[1]]()}\n<!-- end -->", text)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/conformance_tables.py --write")
    DOCUMENT.write_text(written(DOCUMENT.read_text("utf-8")), "utf-8")
