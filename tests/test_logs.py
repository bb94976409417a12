"""Each test starts a process of its own: logging, warnings and hooks belong to a process."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
MARK = "MARKEDNAME"


def run(code: str, *, json_lines: bool = True, level: str = "DEBUG") -> tuple[str, list[dict[str, Any]]]:
    """What a process that runs `code` after `configure` prints, as text and as objects."""
    start = f"import logging\nfrom listener.logs import configure\nconfigure({level!r}, json={json_lines})\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    text = done.stdout + done.stderr
    return text, [json.loads(line) for line in text.splitlines()] if json_lines else []


def test_an_event_is_one_json_object_with_its_fields() -> None:
    _, [line] = run(
        "logging.getLogger('listener.scp').info('instance kept sop_instance_uid=%s seconds=%.3f reason=\"on disk\"', '1.2.3', 0.25)"
    )
    stamp = datetime.fromisoformat(line.pop("timestamp"))
    assert stamp.utcoffset() == timedelta(0)
    assert line == {
        "level": "info",
        "logger": "listener.scp",
        "event": "instance kept",
        "sop_instance_uid": "1.2.3",
        "seconds": "0.250",
        "reason": "on disk",
    }


def test_every_line_about_a_study_has_its_digest_beside_the_uid() -> None:
    _, lines = run(
        "log = logging.getLogger('store.rows')\n"
        "for uid in ('1.2.3', '1.2.3', '1.2.4'): log.info('study state study_instance_uid=%s', uid)\n"
        "log.info('listening')"
    )
    first, again, other, none = (line.get("study") for line in lines)
    assert first == again == hashlib.sha256(b"1.2.3").hexdigest()[:16] != other
    assert lines[0]["study_instance_uid"] == "1.2.3" and none is None


def test_a_field_never_replaces_what_every_line_has() -> None:
    _, [line] = run("logging.getLogger('store.archive').warning('odd level=9 state=held')")
    assert (line["level"], line["event"], line["state"]) == ("warning", "odd level=9", "held")


def test_the_console_shows_the_same_on_one_line() -> None:
    text, _ = run(
        "logging.getLogger('listener.scp').info('association refused ae_title=\"A\\nB\\x1b[31m\" port=%d', 104)", json_lines=False
    )
    [line] = text.splitlines()
    assert "association refused" in line and "listener.scp" in line and "port=104" in line and "Z" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    "library", ["pynetdicom.assoc", "uvicorn.access", "dbos", "sqlalchemy.engine.Engine", "httpx", "urllib3.connectionpool"]
)
def test_libraries_speak_from_warning_on(library: str) -> None:
    _, lines = run(f"log = logging.getLogger({library!r}); log.setLevel(1); log.debug('a'); log.info('b'); log.warning('c')")
    assert [(line["logger"], line["event"]) for line in lines] == [(library, "c")]


def test_dbos_does_not_print_by_itself() -> None:
    _, lines = run("from dbos._logger import init_logger\ninit_logger()\nlogging.getLogger('dbos').warning('c')")
    assert [line["event"] for line in lines] == ["c"]


def test_the_level_is_that_of_our_modules() -> None:
    _, lines = run("for level in (10, 20, 30): logging.getLogger('pipeline.work').log(level, 'at %d', level)", level="WARNING")
    assert [line["event"] for line in lines] == ["at 30"]


READ_A_BROKEN_HEADER = f"""
import io, warnings
from pydicom import dcmread
from pydicom.dataset import Dataset

ds = Dataset()
with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    ds.SpecificCharacterSet = 'ISO_IR 999'
    ds.PatientName = '{MARK}^Jane'
    ds.PatientBirthDate = '{MARK}'
    ds.PatientID = '{MARK}' * 20
    ds.PatientSex = '{MARK.lower()}'
    ds.PatientAge = '{MARK}'
    ds.FrameOfReferenceUID = '{MARK}'
raw = io.BytesIO()
ds.save_as(raw, implicit_vr=True, little_endian=True)
"""

USE_EVERY_ELEMENT = """
raw.seek(0)
for element in dcmread(raw, force=True):
    str(element.value)
ds.PatientBirthDate = 'MARKEDNAME'
"""


def test_pydicom_does_quote_values_where_logs_are_not_configured() -> None:
    code = READ_A_BROKEN_HEADER + USE_EVERY_ELEMENT
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    assert MARK in done.stderr, "without this the test below would prove nothing"


@pytest.mark.parametrize("json_lines", [True, False])
def test_pydicoms_warnings_are_heard_without_the_values_they_quote(json_lines: bool) -> None:
    text, _ = run(READ_A_BROKEN_HEADER + USE_EVERY_ELEMENT, json_lines=json_lines)
    assert MARK not in text.upper()
    assert "a library warned" in text and "category=UserWarning" in text.replace('"category": "', "category=")


def test_no_memory_of_warning_texts_is_kept() -> None:
    text, _ = run(
        READ_A_BROKEN_HEADER
        + USE_EVERY_ELEMENT
        + f"import sys\nheld = [str(getattr(m, '__warningregistry__', '')) for m in sys.modules.values()]\n"
        f"logging.getLogger('listener').info('held=%s', any('{MARK}' in text for text in held))",
        level="INFO",
    )
    assert '"held": "False"' in text


FAIL = f"""
from pipeline.rule_condition import RuleError
def parse():
    raise ValueError('{MARK}')
try:
    try:
        parse()
    except ValueError:
        raise RuleError('what to do')
except RuleError:
    logging.getLogger('pipeline.work').exception('step failed study_instance_uid=1.2')
"""


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_traceback_has_frames_and_our_words_but_no_foreign_text(json_lines: bool) -> None:
    text, _ = run(FAIL, json_lines=json_lines)
    assert MARK not in text
    assert "in parse" in text and "builtins.ValueError" in text and "pipeline.rule_condition.RuleError: what to do" in text


@pytest.mark.parametrize(
    "code",
    [
        f"logging.getLogger('pynetdicom.service').exception(ValueError('{MARK}'))",
        f"logging.getLogger('pydicom').error('bad value {MARK}')",
        f"logging.getLogger('asyncio').error('Task exception was never retrieved: {MARK}')",
        f"raise ValueError('{MARK}')",
        f"import threading\ndef fail(): raise ValueError('{MARK}')\nthread = threading.Thread(target=fail); thread.start(); thread.join()",
        f"import asyncio\nasync def fail(): raise ExceptionGroup('{MARK}', [ValueError('{MARK}')])\nasyncio.run(fail())",
        f"import warnings\nwarnings.warn('{MARK}')",
    ],
)
def test_what_others_say_of_a_failure_is_counted_not_quoted(code: str) -> None:
    text, lines = run(code)
    assert len(lines) == 1
    assert MARK not in text


def test_the_operating_systems_words_are_kept() -> None:
    _, [line] = run("open('/nonexistent/file')")
    assert (line["level"], line["logger"]) == ("critical", "listener")
    assert "No such file or directory" in line["exception"]
