"""A real Fourview that is watched: /metrics, the webhook and the log of one installation that reads, holds, and cannot deliver."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from fourview_process import FourviewProcess
from mammograms_made import uid
from stepped_store import exam
from test_metrics import samples
from webhook import webhook

from listener.logs import study_digest
from store.chores import Chores
from store.database import write_engine

#: Patient data that stands nowhere but where it belongs.
SECRET: dict[str, Any] = {
    "PatientName": "MARKEDNAME^ANNA",
    "PatientID": "MARKEDID",
    "PatientBirthDate": "19610203",
    "AccessionNumber": "MARKEDACC",
    "ReferringPhysicianName": "MARKEDDOCTOR",
    "StudyDescription": "MARKEDTEXT",
}
MARKS = ("MARKED", "19610203", "19500101")


def test_what_is_told_counted_and_logged_names_no_patient(tmp_path: Path, free_port: Callable[[], int]) -> None:
    made = FourviewProcess(
        tmp_path,
        dicom_port=free_port(),
        http_port=free_port(),
        pacs_port=free_port(),  # where nobody listens
        pacs_url=f"http://127.0.0.1:{free_port()}",
        study='wait_for_retake_seconds = 0\nreconcile = "off"',
    )
    with webhook() as hook:
        made.config.write_text(f'{made.config.read_text()}\n[alert]\nurl = "{hook.url}"\n')
        with made:
            made.send(exam(study="read", **SECRET))
            other = {**SECRET, "PatientID": "MARKEDOTHER", "PatientName": "MARKEDOTHER^EVE", "PatientBirthDate": "19500101"}
            made.send([*exam(study="held", **SECRET)[:2], *exam(study="held", **other)[2:]])
            made.wait_for_state(uid("read"), "analysed")
            made.wait_for_state(uid("held"), "held")
            book = Chores(write_engine(f"sqlite:///{tmp_path / 'data' / 'fourview.db'}"))

            def told() -> bool:
                book.ask("alerts")
                return bool(hook.posted)

            made.wait_for(told, "nobody was told of the held study")

            def counted() -> dict[Any, float]:
                found = samples(httpx.get(f"{made.url}/metrics", trust_env=False).text)
                total = sum(value for (name, _), value in found.items() if name == "fourview_instances_received_total")
                stages = {key: value for key, value in found.items() if key[0] == "fourview_stage_seconds_count"}
                decoded = [value for (_, labels), value in stages.items() if ("stage", "decode") in labels]
                return found if total == 8 and sum(decoded) >= 4 else {}

            found = made.wait_for(counted, "/metrics does not count what came and was read")
            assert [found["fourview_processes", (("role", role),)] for role in ("receive", "work", "web")] == [1, 1, 1]
            assert found["fourview_studies", (("state", "held"),)] == 1
            metrics = httpx.get(f"{made.url}/metrics", trust_env=False).text
            status = made.run("status", code=1)
            listed = made.run("alerts")
    assert [(one["kind"], one["cause"]) for one in hook.posted] == [("held", f"held:{uid('held')}")]
    assert f"study {uid('held')} waits for a person" in status and "Process     web" in status and f"fourview show {uid('held')}" in listed
    log = made.log.read_text()
    for text in (log, metrics, status, listed, *hook.raw):
        assert not [mark for mark in MARKS if mark in text.upper()]
    lines = [json.loads(line) for line in log.splitlines()]
    of_study = [line for line in lines if line.get("study_instance_uid") == uid("read")]
    assert {line["study"] for line in of_study} == {study_digest(uid("read"))}
    timed = {line["event"] for line in of_study if "seconds" in line}
    assert timed >= {"instance", "image read", "version saved"}
