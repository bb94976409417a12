"""The acceptance kit, the other side: whether each destination hears us and takes what we send, and how Orthanc sees us.

Presentation contexts are tried by negotiation alone (PS3.8 7.1.1.13): nothing is stored or queried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydicom.uid import (
    ComprehensiveSRStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
)

from listener.config import Config
from listener.config_http import is_loopback
from listener.connect import MODALITY, TIMEOUT, configuration_lines, lua_value, orthanc_echoes_us
from listener.finding import Finding
from listener.orthanc_rest import OrthancRest, RestFailed
from listener.reconcile import GRACE
from listener.tls import expiry
from pipeline.send import Pacs, echo, negotiate

#: A clock that is further from ours, or ours from the database's, is told.
MOST_APART_SECONDS = 5.0
#: Longer than this nothing may be on its way, says `reconcile`.
GRACE_SECONDS = GRACE.total_seconds()
#: Orthanc's, where its configuration has none.
DEFAULT_STABLE_AGE = 60

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve - FIND
#: What `results` of a [[pacs]] sends: the words, and the SOP class.
_SENT: Mapping[str, tuple[str, str]] = {
    "sr": ("Comprehensive SR", ComprehensiveSRStorage),
    "page": ("Secondary Capture", SecondaryCaptureImageStorage),
}
#: In which mammograms come most often, the plain one first.
_SYNTAXES: Mapping[str, str] = {
    str(ExplicitVRLittleEndian): "Explicit VR Little Endian",
    str(JPEGLosslessSV1): "JPEG Lossless",
    str(JPEGLSLossless): "JPEG-LS Lossless",
    str(JPEG2000Lossless): "JPEG 2000 Lossless",
}
#: What an answer raises that has another form than Orthanc gives it; what else there is to check is checked all the same.
_NO_SUCH_ANSWER = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError)
#: So many changes of Orthanc's are looked through for a series that became stable.
_CHANGES = 1000


def destinations(config: Config, *, listening: bool) -> Iterator[Finding]:
    """Every [[pacs]]; `listening`: a receiver of ours runs, so that it can be called."""
    for pacs in config.pacs:
        answer = echo(pacs, config.dicom.ae_title)
        how = " over TLS" if pacs.tls else ""
        what = f"C-ECHO{how} to {pacs.name} ({pacs.ae_title} at {pacs.host}:{pacs.port})"
        yield Finding(answer.ok, what, "" if answer.ok else answer.reason)
        if pacs.tls and pacs.tls.certificate:
            yield from expiry(f"our certificate for {pacs.name}", Path(pacs.tls.certificate), datetime.now(UTC))
        if answer.ok:
            yield from _takes(pacs, config)
            if any(pacs.name in rule.forward_to for rule in config.rules):
                yield from _takes_images(pacs, config)
        if pacs.url:
            yield from _rest(pacs, config, listening)


def _takes(pacs: Pacs, config: Config) -> Iterator[Finding]:
    """Whether it accepts the SOP classes of what we send there, and of the query by which we ask."""
    sent = {words: uid for kind, (words, uid) in _SENT.items() if kind in pacs.results}
    asked = [(str(uid), str(ExplicitVRLittleEndian)) for uid in sent.values()]
    by_query = pacs.confirm == "find"
    if not asked:
        return
    answer = negotiate(pacs, config.dicom.ae_title, [*asked, *([(_FIND, "")] if by_query else [])])
    refused = [words for words, uid in sent.items() if (str(uid), str(ExplicitVRLittleEndian)) not in answer.accepted]
    what = f"{pacs.name} takes {', '.join(sent)}"
    remedy = f"it does not accept {', '.join(refused)}: enable it there, or leave the kind out of `results` of this [[pacs]]"
    yield Finding(not refused, what, (answer.reason or remedy) if refused else "")
    if by_query:
        ok = any(sop_class == _FIND for sop_class, _ in answer.accepted)
        remedy = "it does not accept C-FIND (Study Root) from us: allow it there, or set `confirm` of this [[pacs]] to dicomweb or none"
        yield Finding(ok, f"{pacs.name} answers queries", "" if ok else answer.reason or remedy)


def _takes_images(pacs: Pacs, config: Config) -> Iterator[Finding]:
    """Whether it accepts mammograms as they come, since what a rule forwards is not transcoded."""
    mammograms = str(DigitalMammographyXRayImageStorageForPresentation)
    answer = negotiate(pacs, config.dicom.ae_title, [(mammograms, syntax) for syntax in _SYNTAXES])
    refused = [words for syntax, words in _SYNTAXES.items() if (mammograms, syntax) not in answer.accepted]
    plain = str(ExplicitVRLittleEndian) not in {syntax for _, syntax in answer.accepted}
    remedy = f"images are forwarded as they come, and it does not accept them in {', '.join(refused)}: enable it there"
    advice = f"note: {remedy}, if your modalities or your PACS send so" if refused and not plain else remedy
    yield Finding(not plain, f"{pacs.name} takes mammograms (forward_to)", (answer.reason or advice) if refused else "")


def _rest(pacs: Pacs, config: Config, listening: bool) -> Iterator[Finding]:
    with OrthancRest(pacs.url, pacs.user, pacs.password) as orthanc:
        try:
            system = orthanc.system()
        except RestFailed as failed:
            if orthanc.is_dicomweb():
                yield Finding(True, f"{pacs.url} is no Orthanc; its DICOMweb answers")
            else:
                yield Finding(False, f"REST of {pacs.name}", str(failed))
            return
        yield Finding(True, f"REST of {pacs.name}: Orthanc {system.version}")
        if not orthanc.is_dicomweb():
            needed = pacs.confirm == "dicomweb"
            remedy = "install the plug-in (Debian: orthanc-dicomweb): `reprocess --from-orthanc` and `reconcile --fetch` read images by it"
            yield Finding(not needed, f"{pacs.name} has no DICOMweb at {pacs.url}/dicom-web", f"{'' if needed else 'note: '}{remedy}")
        for looked_at, findings in (
            (f"{pacs.name} knows us as a modality", _knows_us(orthanc, pacs, config, system.ae_title, listening)),
            (f"clock of {pacs.name}", _clock(orthanc, pacs)),
            (f"routing of {pacs.name}", _routing(orthanc, pacs, config)),
        ):
            try:
                yield from findings
            except RestFailed as failed:
                yield Finding(False, looked_at, str(failed))
            except _NO_SUCH_ANSWER as error:
                why = f"{pacs.url} does not answer as Orthanc does ({type(error).__name__})"
                yield Finding(False, looked_at, f"{why}: does a proxy or a plug-in change its answers?")


def _knows_us(orthanc: OrthancRest, pacs: Pacs, config: Config, its_ae_title: str, listening: bool) -> Iterator[Finding]:
    """Whether Orthanc's list of modalities has an entry that reaches us: without it nothing is routed to us."""
    what = f"{pacs.name} knows us as a modality"
    ours = {name: entry for name, entry in orthanc.modalities().items() if entry.get("AET") == config.dicom.ae_title}
    right = {name: entry for name, entry in ours.items() if entry.get("Port") == config.dicom.port}
    if not right:
        wrong = "has our AE title with another port" if ours else "has no entry with our AE title"
        entry = configuration_lines({"AET": config.dicom.ae_title, "Host": "...", "Port": config.dicom.port, "Timeout": TIMEOUT})
        yield Finding(False, what, f"its DicomModalities {wrong}: `fourview orthanc connect {pacs.name}` writes it, or write {entry}")
        return
    name = MODALITY if MODALITY in right else next(iter(right))
    faults = list(_faults(right[name], pacs, tls=bool(config.dicom.tls_certificate)))
    yield Finding(not faults, f'{what}, "{name}"', "\n     ".join(faults))
    if name != MODALITY:
        yield Finding(True, f'our entry is named "{name}"', f'note: the routing scripts that come with Fourview send to "{MODALITY}"')
    if listening:
        yield orthanc_echoes_us(orthanc, config, its_ae_title, name)
    else:
        yield Finding(True, "Orthanc's C-ECHO to us is not tried: no receiver runs", "start `fourview serve`, and check again")


def _faults(entry: Mapping[str, Any], pacs: Pacs, *, tls: bool) -> Iterator[str]:
    """What is wrong with our entry; what Orthanc does not tell is not."""
    mend = f"`fourview orthanc connect {pacs.name} --replace` writes it anew"
    if is_loopback(str(entry.get("Host", ""))) and not is_loopback(urlsplit(pacs.url).hostname or ""):
        yield f"its Host is {entry['Host']}, which on Orthanc's machine is that machine and not ours: {mend}"
    if bool(entry.get("UseDicomTls", tls)) is not tls:
        yield f"its UseDicomTls is {'false, and we speak TLS only' if tls else 'true, and we speak no TLS'}: {mend}"
    if entry.get("AllowStore") is False and pacs.results:
        yield f"its AllowStore is false, so our results are refused: {mend}"
    if entry.get("AllowFind") is False and pacs.confirm == "find":
        yield f'its AllowFind is false, and confirm = "find" asks: {mend}'


def _clock(orthanc: OrthancRest, pacs: Pacs) -> Iterator[Finding]:
    before = datetime.now(UTC)
    theirs = orthanc.now()  # to the second, cut off
    after = datetime.now(UTC)
    apart = max(0.0, (before - theirs).total_seconds() - 1, (theirs - after).total_seconds())
    remedy = (
        "" if apart < MOST_APART_SECONDS else "what it received since when is asked by its clock; let both hosts follow one time server"
    )
    yield Finding(apart < MOST_APART_SECONDS, f"clock: {apart:.0f} s from that of {pacs.name}", remedy)


def _routing(orthanc: OrthancRest, pacs: Pacs, config: Config) -> Iterator[Finding]:
    """Whether a script routes, which only a script can tell, and how long Orthanc waits against how long we wait."""
    handlers = {name: lua_value(orthanc, f"type({name})") for name in ("OnStableSeries", "OnStoredInstance")}
    if None not in handlers.values():
        there = [name for name, kind in handlers.items() if kind == "function"]
        note = "" if there else f"note: unless a plug-in routes, nothing is sent to us: `fourview orthanc connect {pacs.name}`"
        yield Finding(True, f"routing: Orthanc has {' and '.join(there) or 'neither OnStableSeries nor OnStoredInstance'} in Lua", note)
    yield _stable_age(orthanc, config)


def _stable_age(orthanc: OrthancRest, config: Config) -> Finding:
    study = config.study
    configured = lua_value(orthanc, 'GetOrthancConfiguration()["StableAge"]')
    if configured is not None:
        age, how = float(configured) if configured != "nil" else DEFAULT_STABLE_AGE, "configured"
    elif (seen := observed_stable_age(orthanc)) is not None:
        age, how = seen, "as its last series became stable"
    else:
        look = (
            'look at "StableAge" in its configuration (Debian: grep StableAge /etc/orthanc/orthanc.json; 60 seconds when it is not there). '
            "With stable.lua an image comes so much later; it must be below the "
            f"{GRACE_SECONDS:g} seconds after which `fourview reconcile` calls a study missing"
        )
        return Finding(True, "StableAge: Orthanc does not tell it by REST, and no series became stable lately", look)
    what = f"StableAge is {age:g} s ({how})"
    if age >= GRACE_SECONDS:
        remedy = f"with stable.lua `fourview reconcile` calls a study missing before it is sent, after {GRACE_SECONDS:g} s: lower StableAge"
        return Finding(False, what, remedy)
    wait = study.wait_for_retake_seconds
    soonest = f"with stable.lua a result is made {age + wait:g} s after the last image, {wait:g} of them by [study] wait_for_retake_seconds"
    shorter = "; a retake within StableAge comes along with the others, so these may be fewer" if age >= wait > 0 else ""
    return Finding(True, what, f"note: {soonest}{shorter}")


def observed_stable_age(orthanc: OrthancRest) -> float | None:
    """Seconds from a series' last image to the moment when Orthanc called it stable, the least of its late changes; None without any."""
    last = int(orthanc.get("/changes?last").get("Last", 0))
    changes = orthanc.get(f"/changes?since={max(0, last - _CHANGES)}&limit={_CHANGES}").get("Changes", [])
    seen: dict[str, str] = {one["ID"]: one["Date"] for one in changes if one.get("ChangeType") == "StableSeries"}
    ages = []
    for series, stable_at in list(seen.items())[-5:]:
        try:
            updated_at = orthanc.get(f"/series/{series}").get("LastUpdate", "")
            ages.append((_time(stable_at) - _time(updated_at)).total_seconds())
        except (RestFailed, ValueError):
            continue  # deleted meanwhile
    return min((age for age in ages if age >= 0), default=None)  # below 0: something was added since


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
