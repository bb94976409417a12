"""What /openapi.json says is true: schemathesis asks every route with what it allows and what it forbids, and no answer is a surprise."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import schemathesis
from api_made import ANALYSED, HELD, Asked, fill
from hypothesis import HealthCheck, given, settings
from mammograms_made import uid
from schemathesis import GenerationMode, checks
from serving import serving
from stepped_store import SteppedStore, exam
from test_api import NEEDS

from listener import api, dropped, parts
from listener.config import load
from listener.on_demand import Patience, Reader
from listener.reference_api import create_router
from listener.web import create_app
from pipeline.figures import Figures
from store.database import write_engine

FORGOTTEN = uid("forgotten")
#: What there is, so that it is not only about what there is not.
KNOWN = {"study_instance_uid": [ANALYSED, HELD, "1.2.3"], "request_id": ["order-17", "none"]}
#: For each operation, of what it allows and of what it forbids.
MOST_EXAMPLES = 8
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]


ORTHANC = """
[study]
fetch_from = "orthanc"
[[pacs]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 104
url = "http://127.0.0.1:{port}"
"""


class Nothing(BaseHTTPRequestHandler):
    """An Orthanc that has nothing."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(sqlite_template: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "fourview.db").write_bytes(sqlite_template.read_bytes())
    stepped = SteppedStore(write_engine(f"sqlite:///{folder / 'fourview.db'}"), folder / "files")
    fill(stepped)
    stepped.receive(*exam(study="forgotten"))
    stepped.settle()
    stepped.ask("reprocess", "order-17")
    orthanc = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=orthanc.serve_forever, daemon=True).start()
    asked = Asked(stepped, folder, ORTHANC.format(port=orthanc.server_port))
    config = load(asked.path, {})
    patience = Patience(fetch_seconds=20.0, read_seconds=0.1)
    figures = Figures()
    reader = Reader(config, parts.open_on_demand(config), stepped.files, parts.site_policy(config), figures, threading.Event(), patience)
    app = create_app(
        results=stepped.search,
        file_path=stepped.files.path,
        ready=list,
        routers=[create_router(reader, list), dropped.create_router(reader, stepped.files, figures), api.create_router(asked.desk)],
    )
    with serving(app) as url:
        yield url
    orthanc.shutdown()


@pytest.fixture(scope="module")
def described(address: str) -> dict[str, Any]:
    answer = httpx.get(f"{address}/openapi.json", trust_env=False)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_description_is_complete(described: dict[str, Any]) -> None:
    found = dict(operations(described))
    asked = {label for label in found if " /api/v1/" in label and label != "POST /api/v1/files"}
    for name, value in {"study_instance_uid": "1.2.3", "request_id": "none", "what": "sending"}.items():
        asked = {label.replace(f"{{{name}}}", value) for label in asked}
    assert asked == {f"{method} /api/v1{path.replace(ANALYSED, '1.2.3')}" for method, path, _, _ in NEEDS}, "who may is told for each"
    assert {"POST /inference", "POST /api/mri/mammography/analyze/", "GET /api/mri/mammography/health/", "GET /healthz"} <= set(found)
    assert len({operation["operationId"] for operation in found.values()}) == len(found)
    for label, operation in found.items():
        assert operation["summary"] and operation["description"], label
        assert "422" not in operation["responses"], f"{label}: what is wrong with a request is answered 400"
        if label not in ("GET /healthz", "GET /readyz"):
            assert {"401", "403", "429", "503"} <= set(operation["responses"]) and {"basic": []} in operation["security"], label
    assert set(described["components"]["securitySchemes"]) == {"basic", "bearer"}


def closed(described: dict[str, Any]) -> dict[str, Any]:
    """The same, so that a field in an answer that it does not name is an error."""
    strict = copy.deepcopy(described)
    for schema in strict["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return strict


def test_every_answer_is_one_that_the_description_names(address: str, described: dict[str, Any], subtests: pytest.Subtests) -> None:
    schema = schemathesis.openapi.from_dict(closed(described))
    reached: dict[str, set[int]] = {}
    for operation in (found.ok() for found in schema.get_all_operations()):
        given_something = bool(list(operation.iter_parameters())) or bool(list(operation.body))
        for mode in GenerationMode if given_something else [GenerationMode.POSITIVE]:
            with subtests.test(f"{operation.label} {mode.value}"):
                statuses = ask(address, operation.as_strategy(generation_mode=mode), KNOWN if mode is GenerationMode.POSITIVE else {})
                reached.setdefault(operation.label, set()).update(statuses)
    # Otherwise it would have been about errors only.
    assert {label for label, statuses in reached.items() if not statuses & {200, 202}} == {"POST /api/mri/mammography/analyze/"}


def ask(address: str, cases: Any, known: dict[str, list[str]]) -> set[int]:
    """The statuses that were answered."""
    statuses: set[int] = set()
    here = {name: itertools.cycle(values) for name, values in known.items()}

    @settings(max_examples=MOST_EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def asked(case: schemathesis.Case) -> None:
        for name in set(here) & set(case.path_parameters):
            case.path_parameters[name] = next(here[name]) if case.method != "DELETE" else FORGOTTEN
        statuses.add(case.call_and_validate(base_url=address, checks=CHECKS, timeout=60).status_code)

    asked()
    return statuses
