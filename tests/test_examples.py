"""The sites of examples/: each file is valid, and what its `# study:` lines promise comes true.

Every study goes through the real archive, headers, rules and timers, with the site's own configuration and the rules' own `decide`; only
the model and the report are made up (stepped_store.py). One site runs as `fourview serve`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from fourview_process import FourviewProcess
from mammograms_made import mammogram, uid
from pydicom.dataset import Dataset
from stepped_store import POLICY, START, SteppedStore, image

from listener import rules_examples
from listener.config import Config, load
from pipeline import rule_facts, rules
from store import tables
from store.database import write_engine
from store.header import pack_header, read_header, unpack_header
from store.seen import Seen
from store.study import HANGING_ORDER, Outcome, View, WhenIncomplete
from store.view import resolve

EXAMPLES = Path(__file__).parents[1] / "examples"
SITES = sorted(path.stem for path in EXAMPLES.glob("*.toml"))
TODAY = START.date()
LEFT, RIGHT = (View.L_CC, View.L_MLO), (View.R_CC, View.R_MLO)
THREE = (View.R_CC, View.L_CC, View.R_MLO)
_PROMISE = re.compile(r"(?m)^# study: (.*?) -> (.*)$")


@dataclass(frozen=True)
class Exam:
    """What a sender sends of one study: these views, with these attributes (None: without it), so many days old."""

    sender: str
    views: tuple[View, ...]
    days: int | None
    attributes: Mapping[str, Any]

    def images(self, study: str, *, today: date = TODAY, make: Callable[..., Dataset] = image) -> list[Dataset]:
        day = None if self.days is None else (today - timedelta(days=self.days)).strftime("%Y%m%d")
        return [
            make(view, study=study, **{"StudyDate": day} | {key: _of(value, view) for key, value in self.attributes.items()})
            for view in self.views
        ]


def _of(value: Any, view: View) -> Any:
    return value(view) if callable(value) else value


def exam(*views: View, sender: str = "PACS", days: int | None = 0, **attributes: Any) -> Exam:
    """All four views of today, unless told otherwise."""
    return Exam(sender, views or HANGING_ORDER, days, attributes)


_NO_CODES = {"ImageLaterality": None, "ViewPosition": None, "ViewCodeSequence": None, "PatientOrientation": None}
_OLD_UNIT = {"Manufacturer": "EXAMPLE MEDICAL", "ManufacturerModelName": "MAMMO 1000", "Laterality": "R", **_NO_CODES}
_ITALIAN = {"CC": "CC", "MLO": "OBL"}


def _in_italian(view: View) -> str:
    return f"{_ITALIAN[view.position]} {'DX' if view.laterality == 'R' else 'SX'}"


def _in_korean(view: View) -> str:
    return f"{'우' if view.laterality == 'R' else '좌'} {view.position}"


#: Site -> what a promise speaks of -> its images.
EXAMS: Mapping[str, Mapping[str, Exam]] = {
    "screening_bus": {
        "four views from the bus, taken today": exam(StationName="BUS1"),
        "four views from the bus, taken four days ago": exam(StationName="BUS2", days=4),
        "three views from the bus": exam(*THREE, StationName="BUS1"),
        "four views from a room of the hospital": exam(StationName="ROOM1"),
        "three views from a room of the hospital": exam(*THREE, StationName="ROOM1"),
        "four views of five years ago from the bus": exam(StationName="BUS1", days=1826),
    },
    "two_orthancs": {
        "four views of the east house": exam(sender="ORTHANC_EAST"),
        "four views of the west house": exam(sender="ORTHANC_WEST"),
        "four views of the old unit in the west house": exam(sender="ORTHANC_WEST", DeviceSerialNumber="SN-0042"),
        "four views of a sender that nobody knows": exam(sender="TESTTOOL"),
    },
    "research_without_sending": {
        "four views of five years ago": exam(days=1826),
        "four views without a date": exam(days=None),
        "two views of one breast and one of the other": exam(*THREE),
        "four views with an implant": exam(BreastImplantPresent="YES"),
        "four views of a woman of 30": exam(PatientAge="030Y"),
    },
    "unilateral_follow_up": {
        "both left views, ordered as left follow-up": exam(*LEFT, ProtocolName="FOLLOW-UP LEFT"),
        "both right views, ordered as right follow-up": exam(*RIGHT, StudyDescription="Mammography, follow up right"),
        "one left view, ordered as left follow-up": exam(View.L_CC, ProtocolName="Follow-up left"),
        "four views, ordered as screening": exam(ProtocolName="SCREENING"),
        "both left views, ordered as screening": exam(*LEFT, ProtocolName="SCREENING"),
    },
    "implants_held": {
        "four views without implants": exam(BreastImplantPresent="NO"),
        "four views with implants": exam(BreastImplantPresent="YES"),
        "four views that say nothing of implants": exam(BreastImplantPresent=None),
        "four views without implants, of three years ago": exam(BreastImplantPresent="NO", days=1096),
    },
    "priors_ignored": {
        "four views of today": exam(),
        "four views of three days ago": exam(days=3),
        "four views of two years ago": exam(days=731),
        "four views without a date": exam(days=None),
        "four views dated tomorrow": exam(days=-1),
        "four views of two years ago from the workstation": exam(days=731, sender="ARCHIVEWS"),
    },
    "diagnostic_first": {
        "four views, ordered as diagnostic": exam(StudyDescription="DIAGNOSTIC MAMMOGRAM"),
        "four views of the clinic's room, without a description": exam(StationName="CLINIC1"),
        "one view of the clinic's room": exam(View.L_CC, StationName="CLINIC2"),
        "four views of a woman of 35, ordered as screening": exam(PatientAge="035Y", StudyDescription="SCREENING"),
        "four views, ordered as screening": exam(StudyDescription="SCREENING"),
        "three views, ordered as screening": exam(*THREE, StudyDescription="SCREENING"),
    },
    "several_hosts": {
        "four views of the northern hospital": exam(sender="GATEWAY_N", InstitutionName="Northern Hospital"),
        "four views of a hospital that is not in the list": exam(sender="GATEWAY_N", InstitutionName="Eastern Hospital"),
        "four views without an institution": exam(sender="GATEWAY_W", InstitutionName=None),
        "three views of the southern hospital": exam(*THREE, sender="GATEWAY_S", InstitutionName="Southern Hospital"),
    },
    "italian_clinic": {
        "four views of the newer unit": exam(),
        "four views of the older unit, named in Italian": exam(**_OLD_UNIT, SeriesDescription=_in_italian),
        "four summed-up images of the older unit": exam(**_OLD_UNIT, SeriesDescription=lambda view: f"SOMMA {_in_italian(view)}"),
        "four views of the older unit, named in no language": exam(**_OLD_UNIT, SeriesDescription="SENO"),
    },
    "korean_hospital": {
        "four views of a health check-up": exam(StudyDescription="건강검진 유방촬영"),
        "four views ordered by a doctor": exam(StudyDescription="유방촬영"),
        "four views that name their side in Korean only": exam(**_NO_CODES, StudyDescription="유방촬영", SeriesDescription=_in_korean),
    },
    "teleradiology": {
        "four views of the practice at the lake": exam(InstitutionName="Praxis am See"),
        "four views of the practice in the valley": exam(InstitutionName="Praxis im Tal"),
        "four views of the practice in the valley, sent by the company's PACS": exam(sender="TELERAD", InstitutionName="Praxis im Tal"),
        "four views of a practice without a contract": exam(InstitutionName="Praxis am Wald"),
        "four views of two months ago of the practice at the lake": exam(InstitutionName="Praxis am See", days=61),
    },
}


class SiteStore(SteppedStore):
    """A store that goes by a site's configuration: its rules, timers, words and devices."""

    def __init__(self, engine: sa.Engine, files: Path, config: Config) -> None:
        super().__init__(engine, files)
        self.config = config
        self.policy = replace(
            POLICY,
            wait_for_retake_seconds=config.study.wait_for_retake_seconds,
            give_up_after_seconds=config.study.give_up_after_seconds,
            when_incomplete=WhenIncomplete(config.study.when_incomplete),
            dialect=config.dialect,
            ae_titles={pacs.name: pacs.ae_title for pacs in config.pacs},
        )

    def advance(self, study: str) -> bool:
        resolved: dict[int, Any] = {}
        for one in self.archive.unresolved(study):
            packed = pack_header(read_header(self.files.path(one.file_name)))
            resolved[one.instance_id] = (resolve(unpack_header(packed), self.config.dialect), packed)
        return self.archive.advance(study, resolved, self.policy, self._by_the_rules)

    def _by_the_rules(self, seen: Seen) -> rules.Decision:
        zone = ZoneInfo(self.config.site.timezone)
        facts = rule_facts.of_study(seen, today=self.now.astimezone(zone).date(), timezone=zone)
        return rules.decide(self.config.rules, facts)

    def became(self, study: str) -> str:
        """What became of a study, in the words of the promises."""
        found = self.study(study)
        [row] = self.rows(sa.select(tables.study).where(tables.study.c.study_instance_uid == uid(study)))
        rule = f'"{row.rule_name}"' if row.rule_name else "no rule"
        results = [one["destination"] for one in found["deliveries"] if one["kind"] != "original"]
        forwarded_to = " and ".join(dict.fromkeys(one["destination"] for one in found["deliveries"] if one["kind"] == "original"))
        forwarded = f", images forwarded to {forwarded_to}" if forwarded_to else ""
        if found["state"] != "analysed":
            assert not results, "nothing of it may be sent"
            return f"{found['state']} by {rule}{forwarded}"
        outcome = found["runs"][-1]["outcome"]
        sent_to = " and ".join(dict.fromkeys(results))
        partial = "" if outcome == Outcome.COMPLETE else f" {outcome}"
        priority = "" if row.rule_priority == 5 else f", priority {row.rule_priority}"
        return f"analysed{partial} by {rule}, sent {f'to {sent_to}' if sent_to else 'nowhere'}{priority}{forwarded}"


def test_there_are_ten_sites_and_each_is_listed() -> None:
    assert len(SITES) >= 10
    assert set(EXAMS) == set(SITES)
    listed = re.findall(r"(?m)^\| `(\w+)\.toml` \|", (EXAMPLES / "README.md").read_text("utf-8"))
    assert sorted(listed) == SITES


@pytest.mark.parametrize("site", SITES)
def test_what_a_site_promises_of_its_studies_comes_true(site: str, tmp_path: Path, sqlite_template: Path) -> None:
    path = EXAMPLES / f"{site}.toml"
    config = load(path, {})
    promised = dict(_PROMISE.findall(path.read_text("utf-8")))
    assert set(promised) == set(EXAMS[site]), "every line has its images, and no other"
    shutil.copy(sqlite_template, tmp_path / "fourview.db")
    engine = write_engine(f"sqlite:///{tmp_path / 'fourview.db'}")
    store = SiteStore(engine, tmp_path / "files", config)
    for study, sent in EXAMS[site].items():
        store.receive(*sent.images(study), sender=sent.sender)
    store.settle()
    assert {study: store.became(study) for study in promised} == promised
    engine.dispose()


def test_a_site_runs_for_real(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """`fourview serve` with the file as it is; the environment moves ports and folders, and a simulated model reads."""
    dicom_port, http_port = free_port(), free_port()
    site = "research_without_sending"
    path = EXAMPLES / f"{site}.toml"
    moved = {
        "DICOM__HOST": "127.0.0.1",
        "DICOM__PORT": str(dicom_port),
        "HTTP__PORT": str(http_port),
        "STORE__DATABASE": f"sqlite:///{tmp_path / 'data' / 'fourview.db'}",
        "STORE__FILES": str(tmp_path / "data" / "files"),
        "STORE__MIN_FREE_GIB": "0.1",
        "STUDY__WAIT_FOR_RETAKE_SECONDS": "0",
        "STUDY__RECONCILE": "off",
        "MODEL__CARD": str(tmp_path / "simulated.toml"),
        "MODEL__ALLOW_UNTRAINED": "true",
    }
    environment = {f"FOURVIEW_{name}": value for name, value in moved.items()}
    fourview = FourviewProcess(tmp_path, dicom_port=dicom_port, http_port=http_port, pacs_port=free_port(), environment=environment)
    fourview.config = path
    # What nobody has to wait for: an exam that lacks a view is decided at the ceiling, which is the site's.
    soon = {study: outcome for study, outcome in _PROMISE.findall(path.read_text("utf-8")) if not re.match("incomplete|.*PARTIAL", outcome)}
    today = datetime.now(ZoneInfo(load(path, {}).site.timezone)).date()
    with fourview:
        fourview.send([one for study in soon for one in EXAMS[site][study].images(study, today=today, make=mammogram)])
        for study, outcome in soon.items():
            found = fourview.wait_for_state(uid(study), outcome.split()[0])
            assert f'"{found["rule"]["name"]}"' in outcome
            assert [one["outcome"] for one in found["runs"] if one["outcome"] != "COMPLETE"] == re.findall("UNILATERAL", outcome)
    assert len(soon) >= 4


def test_the_examples_beside_rules_hold() -> None:
    """`fourview rules test` of each site; two of them have some."""
    configs = {site: load(EXAMPLES / f"{site}.toml", {}) for site in SITES}
    assert {site for site, config in configs.items() if config.examples} == {"implants_held", "priors_ignored"}
    assert [one for config in configs.values() for one in rules_examples.failures(config.rules, config.examples)] == []


def test_every_rule_and_every_destination_of_a_site_is_met_by_a_promise() -> None:
    """A rule that no line speaks of would be tried by nobody."""
    for site in SITES:
        path = EXAMPLES / f"{site}.toml"
        config = load(path, {})
        outcomes = " ".join(outcome for _, outcome in _PROMISE.findall(path.read_text("utf-8")))
        assert [rule.name for rule in config.rules if f'"{rule.name}"' not in outcomes] == [], site
        assert [one.name for one in config.pacs if not re.search(rf"(to|and) {one.name}\b", outcomes)] == [], site
