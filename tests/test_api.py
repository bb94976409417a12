"""The JSON API, asked over HTTP: it says what the command line prints, decides what people decide, and refuses the rest in words.

SQLite and PostgreSQL; the worker is a method call, so that what comes of a request is known.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from api_made import ANALYSED, HELD, Asked, fill, person
from mammograms_made import uid
from stepped_store import FixedRuling, SteppedStore, exam

from listener import api
from listener.api_asked import LONGEST_WAIT_SECONDS
from listener.users import Role
from listener.who import ANYBODY
from store import tables
from store.alerts import AlertKind, Alerts, Cause
from store.archive import NewVersion
from store.ledger import DeliveryState
from store.look import Reading

RECONCILED = '[study]\nreconcile = "list"\nfetch_from = "pacs"'


@pytest.fixture
def asked(stepped: SteppedStore, tmp_path: Path) -> Asked:
    fill(stepped)
    return Asked(stepped, tmp_path, RECONCILED)


@pytest.fixture
def client(asked: Asked) -> Iterator[httpx.Client]:
    with asked.client() as client:
        yield client


def decisions(asked: Asked) -> list[Any]:
    return list(asked.stepped.rows(sa.select(tables.decision).order_by(tables.decision.c.id)))


def acts(client: httpx.Client, **options: Any) -> list[tuple[str, str, str]]:
    """(person, what, why), newest first."""
    found = client.get("/acts", params={"since": "36500d", **options}).json()["acts"]
    return [(one["person"], one["what"], one["why"]) for one in found]


# ---------------------------------------------------------------------------------------------------------------------- looking


def test_it_says_what_the_command_line_prints(asked: Asked, client: httpx.Client) -> None:
    silent = Cause(cause="silent:ROOM1", kind=AlertKind.SILENT, text="ROOM1 is silent", command="fourview check")
    Alerts(asked.stepped.engine).settle([silent], [AlertKind.SILENT], tell=True)
    assert client.post("/pauses/sending", json={"reason": "the archive moves"}).json() == {
        "what": "sending",
        "paused": True,
        "changed": True,
    }
    assert client.post(f"/studies/{ANALYSED}/reprocess", json={"reason": "again"}).status_code == 202

    def told(path: str, **options: Any) -> Any:
        answer = client.get(path, params=options)
        assert answer.status_code == 200 and answer.headers["Content-Type"] == "application/json", answer.text
        return answer.json()

    listed = told("/studies", limit=1000)
    assert [one["study_instance_uid"] for one in listed["studies"]] == [HELD, ANALYSED] and listed["next"] == ""
    assert listed["studies"] == asked.fourview("studies")
    assert told("/studies", state="held")["studies"] == asked.fourview("studies", "--state", "held") != []
    for study in (ANALYSED, HELD):
        assert told(f"/studies/{study}") == asked.fourview("show", study)
    deliveries = told("/deliveries")
    assert deliveries["deliveries"] == asked.fourview("deliveries") and len(deliveries["deliveries"]) == 2
    assert [one["count"] for one in deliveries["given_up"]] == [1]
    assert told("/deliveries", state="refused")["deliveries"] == asked.fourview("deliveries", "--state", "refused")
    here, there = told("/status"), asked.fourview("status", code=1)
    assert here.pop("disk").keys() == there.pop("disk").keys()  # the disk does not stand still
    assert here == there and here["model"]["trained"] is False and not here["ok"]
    assert told("/alerts")["alerts"] == asked.fourview("alerts") and len(told("/alerts")["alerts"]) == 1
    assert told("/devices", days=36500)["devices"] == asked.fourview("devices", "--days", "36500") != []
    assert told("/acts", since="36500d")["acts"] == asked.fourview("acts", "--since", "36500d")
    assert told("/acts", since="36500d", study=ANALYSED)["acts"] == asked.fourview("acts", "--since", "36500d", "--study", ANALYSED) != []
    [rule] = told("/rules")["rules"]
    assert (rule["name"], rule["when"], rule["send_to"], rule["when_incomplete"]) == ("screening", 'Modality == "MG"', ["pacs"], "hold")


def test_studies_come_page_by_page_and_by_what_they_are(client: httpx.Client) -> None:
    first = client.get("/studies", params={"limit": 1}).json()
    second = client.get("/studies", params={"limit": 1, "after": first["next"]}).json()
    assert [one["studies"][0]["study_instance_uid"] for one in (first, second)] == [HELD, ANALYSED]
    assert first["next"] and not second["next"]
    by_class = client.get("/studies", params={"predicted_class": "Normal", "study_date_from": "20261120", "device": "ROOM1"}).json()
    assert [one["study_instance_uid"] for one in by_class["studies"]] == [ANALYSED]
    both = client.get("/studies?state=held&state=analysed&patient_id=P*").json()["studies"]
    assert len(both) == 2
    assert client.get("/studies", params={"patient_id": "P"}).json() == {"studies": [], "next": ""}


# --------------------------------------------------------------------------------------------------------------------- deciding


def test_a_request_is_answered_by_a_worker_and_tells_what_came_of_it(asked: Asked, client: httpx.Client) -> None:
    made = client.post(f"/studies/{ANALYSED}/reprocess", json={"reason": "a\u001b[1m new\u0000 card"})
    href = made.json()["href"]
    assert made.status_code == 202 and made.headers["Location"] == href == f"/api/v1/requests/{made.json()['request_id']}"
    path = href.removeprefix("/api/v1")
    found = client.get(path).json()
    assert (found["state"], found["ended"], found["done"], found["worker_running"]) == ("waiting", False, False, False)
    assert "no worker is running" in found["text"]
    asked.stepped.settle()
    found = client.get(path).json()
    assert (found["state"], found["ended"], found["done"], found["study_state"]) == ("accepted", True, True, "analysed")
    assert found["person"] == "the admin" and found["why"] == "a [1m new card" and found["version"] == 1
    assert acts(client, study=ANALYSED) == [("the admin", "reprocess", "a [1m new card")]
    assert client.post(f"/studies/{ANALYSED}/withdraw", json={}).status_code == 202
    asked.stepped.settle()
    assert client.get(f"/studies/{ANALYSED}").json()["state"] == "withdrawn"


def test_a_client_can_wait_for_the_end(asked: Asked, client: httpx.Client) -> None:
    """The answer comes when the worker has looked, not when the time is over; what nobody looks at is told when it is."""
    path = client.post(f"/studies/{ANALYSED}/reprocess", json={}).json()["href"].removeprefix("/api/v1")
    assert client.get(path, params={"wait": 0.3}).json()["state"] == "waiting"
    worker = threading.Thread(target=asked.stepped.settle)
    worker.start()
    found = client.get(path, params={"wait": LONGEST_WAIT_SECONDS}).json()
    worker.join()
    assert (found["state"], found["ended"]) == ("accepted", True)


@pytest.mark.parametrize("why", ["too many wait", "stopped"])
def test_nobody_is_kept_waiting_in_vain(asked: Asked, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """One look is enough for an answer then, however long the client would wait."""
    looks: list[str] = []
    answer = asked.desk.answer
    monkeypatch.setattr(asked.desk, "answer", lambda request_id: looks.append(request_id) or answer(request_id))
    if why == "stopped":
        asked.stopped.set()
    else:
        monkeypatch.setattr(api, "MOST_WAITING", 0)
    with asked.client() as client:
        path = client.post(f"/studies/{ANALYSED}/reprocess", json={}).json()["href"].removeprefix("/api/v1")
        assert client.get(path, params={"wait": LONGEST_WAIT_SECONDS}).json()["state"] == "waiting"
    assert len(looks) == 1


def test_a_release_is_refused_with_the_choices_until_it_settles_the_doubt(asked: Asked, client: httpx.Client) -> None:
    def released(**choices: Any) -> Any:
        made = client.post(f"/studies/{HELD}/release", json=choices)
        assert made.status_code == 202, made.text
        asked.stepped.settle()
        return client.get(made.json()["href"].removeprefix("/api/v1")).json()

    refused = released()
    assert (refused["state"], refused["ended"], refused["done"], refused["study_state"]) == ("refused", True, False, "held")
    [doubt] = refused["choices"]
    assert "names another patient" in doubt["reason"] and len(doubt["choices"]) == 4
    assert all(choice in refused["text"] for choice in doubt["choices"])
    right = next(one for one in asked.stepped.search.study(HELD)["images"] if one["patient_id"] == "P1")
    at_last = released(patient_of=right["sop_instance_uid"], reason="a typing error at the console")
    assert (at_last["done"], at_last["study_state"], at_last["choices"]) == (True, "analysed", [])
    sop = asked.stepped.search.study(HELD)["images"][0]["sop_instance_uid"]
    assert client.post(f"/studies/{HELD}/release", json={"exclude": [uid("x")], "view": {sop: "L-CC"}, "use_file": [3]}).status_code == 202
    assert decisions(asked)[-1].parameters == {
        "exclude": [uid("x")],
        "view": {sop: "L-CC"},
        "accept_patient": False,
        "patient_of": "",
        "patient_from_pacs": False,
        "use_file": [3],
    }


def test_the_same_key_asks_once_and_for_one_thing(asked: Asked, client: httpx.Client) -> None:
    def ask(study: str = ANALYSED, **body: Any) -> httpx.Response:
        return client.post(f"/studies/{study}/reprocess", json=body, headers={"Idempotency-Key": "order-17"})

    assert ask(reason="once").json() == ask(reason="once").json() == {"request_id": "order-17", "href": "/api/v1/requests/order-17"}
    assert len(decisions(asked)) == 1 and len(acts(client)) == 1
    asked.stepped.settle()
    assert ask(reason="once").status_code == 202 and len(decisions(asked)) == 1, "also when it was answered long ago"
    for other in (ask(reason="twice"), ask(HELD, reason="once")):
        assert other.status_code == 409 and "order-17" in other.json()["detail"]
    assert client.post(f"/studies/{ANALYSED}/withdraw", json={"reason": "once"}, headers={"Idempotency-Key": "order-17"}).status_code == 409
    assert len(decisions(asked)) == 1


def test_a_study_is_sent_whatever_the_rules_say(asked: Asked, client: httpx.Client) -> None:
    asked.stepped.ruling = FixedRuling(action="ignore", send_to=())
    asked.stepped.receive(*exam(study="ignored"))
    asked.stepped.settle()
    assert asked.stepped.state("ignored") == "ignored"
    made = client.post(f"/studies/{uid('ignored')}/send", json={"send_to": ["pacs"], "reason": "a second opinion"})
    assert made.status_code == 202, made.text
    asked.stepped.settle()
    found = client.get(made.json()["href"].removeprefix("/api/v1")).json()
    assert (found["kind"], found["state"], found["done"], found["version"]) == ("send", "accepted", True, 1)
    assert {one["destination"] for one in client.get(f"/studies/{uid('ignored')}").json()["deliveries"]} == {"pacs"}
    assert acts(client, study=uid("ignored")) == [("the admin", "send", "a second opinion")]


def test_who_sends_learns_when_nothing_goes_out(asked: Asked, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with an untrained model, which only a destination that accepts it gets."""
    made = client.post(f"/studies/{ANALYSED}/send", json={})
    asked.stepped.settle()
    found = client.get(made.json()["href"].removeprefix("/api/v1")).json()
    assert found["done"] is True and found["text"].endswith("; it goes to pacs")
    new_version = asked.stepped.new_version

    def nowhere(reading: Reading) -> NewVersion:
        new = new_version(reading)
        return replace(new, objects=tuple(replace(one, destinations=()) for one in new.objects))

    monkeypatch.setattr(asked.stepped, "new_version", nowhere)
    asked.stepped.receive(*exam(study="untrained"))
    made = client.post(f"/studies/{uid('untrained')}/send", json={"send_to": ["pacs"]})
    asked.stepped.settle()
    found = client.get(made.json()["href"].removeprefix("/api/v1")).json()
    assert (found["state"], found["ended"], found["done"], found["version"]) == ("accepted", True, False, 1)
    assert "nothing of it is sent, since no [[pacs]] takes it" in found["text"]


def test_only_cards_that_the_configuration_names_read(asked: Asked, client: httpx.Client) -> None:
    """A path is no way to find out what lies on the server."""
    answer = client.post(f"/studies/{ANALYSED}/reprocess", json={"model": "/etc/passwd"})
    assert answer.status_code == 400 and "/etc" not in answer.text
    card = client.get("/rules").json()["rules"][0]["model"]
    assert client.post(f"/studies/{ANALYSED}/reprocess", json={"model": card}).status_code == 202
    assert decisions(asked)[-1].parameters == {"card": card}


def test_a_study_is_forgotten_with_its_files_and_comes_back_only_when_allowed(asked: Asked, client: httpx.Client) -> None:
    files = [path for path in asked.stepped.files.root.rglob("*") if path.is_file()]
    gone = client.delete(f"/studies/{ANALYSED}", params={"reason": "asked to"})
    assert gone.status_code == 200, gone.text
    told = gone.json()
    assert (told["study_instance_uid"], told["images"], told["versions"], told["senders"]) == (ANALYSED, 4, 1, ["MODALITY"])
    assert {one["state"] for one in told["elsewhere"]} == {"sending", "refused"} and told["files"] > 4
    left = [path for path in asked.stepped.files.root.rglob("*") if path.is_file()]
    assert len(left) < len(files) and len([one for one in left if one in files]) == len(left)
    again = client.get(f"/studies/{ANALYSED}")
    assert again.status_code == 404 and "was forgotten on" in again.json()["detail"]
    assert client.delete(f"/studies/{ANALYSED}").status_code == 404
    assert client.post(f"/studies/{ANALYSED}/allow-again", json={}).json()["allowed"] is True
    assert client.post(f"/studies/{ANALYSED}/allow-again", json={}).json()["allowed"] is False
    assert acts(client, study=ANALYSED) == [("the admin", "allow again", ""), ("the admin", "forget", "asked to")]


def test_deliveries_pauses_and_the_comparison(asked: Asked, client: httpx.Client) -> None:
    [refused] = [one["id"] for one in client.get("/deliveries", params={"state": "refused"}).json()["deliveries"]]
    done = client.post("/deliveries/retry", json={"delivery_ids": [refused, 4711], "reason": "disk mended"}).json()
    assert done == {"retried": 1, "refused": ["4711: no such delivery"]}
    assert client.post("/deliveries/retry", json={"states": ["refused"], "destination": "pacs"}).json() == {"retried": 0, "refused": []}
    assert client.get("/deliveries").json()["deliveries"][-1]["state"] == DeliveryState.WAITING
    for changed in (True, False):
        assert client.post("/pauses/analysing", json={"reason": "x"}).json() == {"what": "analysing", "paused": True, "changed": changed}
    assert [(one["what"], one["person"]) for one in client.get("/status").json()["paused"]] == [("analysing", "the admin")]
    for changed in (True, False):
        assert client.delete("/pauses/analysing").json() == {"what": "analysing", "paused": False, "changed": changed}
    assert client.get("/reconciliation").json()["asked"] is False
    assert client.post("/reconciliation", json={"reason": "after the failure"}).status_code == 202
    found = client.get("/reconciliation").json()
    assert (found["scheduled"], found["asked"], found["outcome"]) == (True, True, None)
    assert [what for _, what, _ in acts(client)] == ["reconcile", "resume analysing", "pause analysing", "retry deliveries"]


def test_a_comparison_that_nobody_makes_is_not_promised(stepped: SteppedStore, tmp_path: Path) -> None:
    with Asked(stepped, tmp_path, '[study]\nreconcile = "off"').client() as client:
        assert client.get("/reconciliation").json()["scheduled"] is False
        answer = client.post("/reconciliation", json={})
        assert answer.status_code == 409 and "[study] reconcile" in answer.json()["detail"]


def test_a_database_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    stepped = SteppedStore(sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none"), tmp_path / "files")
    with Asked(stepped, tmp_path, RECONCILED).client() as client:
        for method, path in [("GET", "/studies"), ("GET", "/studies/1.2.3"), ("GET", "/requests/1"), ("DELETE", "/studies/1.2.3")]:
            answer = client.request(method, path)
            assert answer.status_code == 503 and answer.headers["Retry-After"] and "database" in answer.json()["detail"], answer.text
        assert client.post("/studies/1.2.3/reprocess", json={}).status_code == 503
        found = client.get("/status")
        assert found.status_code == 200 and (found.json()["database"], found.json()["ok"]) == ("away", False)
        assert "127.0.0.1" not in client.get("/studies").text
        assert client.get("/rules").status_code == 200


def test_files_and_tables_that_cannot_be_used_are_said_without_paths(asked: Asked, client: httpx.Client) -> None:
    shutil.rmtree(asked.stepped.files.root)
    answer = client.delete(f"/studies/{ANALYSED}")
    assert answer.status_code == 503 and "files" in answer.json()["detail"] and str(asked.path.parent) not in answer.text
    assert client.get(f"/studies/{ANALYSED}").status_code == 200, "nothing is forgotten whose files cannot be removed"
    with asked.stepped.engine.begin() as connection:
        row = sa.table("alembic_version", sa.column("version_num"))
        [now] = connection.execute(sa.select(row.c.version_num)).scalars()
        connection.execute(sa.update(row).values(version_num="0000"))
    try:
        answer = client.get("/acts")  # the part of the desk that it needs is opened now
        assert answer.status_code == 503 and "another release" in answer.json()["detail"] and "sql" not in answer.text
    finally:
        with asked.stepped.engine.begin() as connection:
            connection.execute(sa.update(row).values(version_num=now))


# ----------------------------------------------------------------------------------------------------------------- who may what

#: Method, path, body, the role that it needs.
NEEDS = [
    ("GET", "/studies", None, Role.VIEWER),
    ("GET", f"/studies/{ANALYSED}", None, Role.VIEWER),
    ("GET", f"/studies/{ANALYSED}/rules", None, Role.VIEWER),
    ("GET", "/requests/none", None, Role.VIEWER),
    ("GET", "/deliveries", None, Role.VIEWER),
    ("GET", "/status", None, Role.VIEWER),
    ("GET", "/alerts", None, Role.VIEWER),
    ("GET", "/devices", None, Role.VIEWER),
    ("GET", "/rules", None, Role.VIEWER),
    ("GET", "/reconciliation", None, Role.VIEWER),
    ("POST", "/studies/1.2.3/reprocess", {}, Role.OPERATOR),
    ("POST", "/studies/1.2.3/release", {}, Role.OPERATOR),
    ("POST", "/studies/1.2.3/withdraw", {}, Role.OPERATOR),
    ("POST", "/studies/1.2.3/send", {}, Role.OPERATOR),
    ("POST", "/deliveries/retry", {"delivery_ids": [4711]}, Role.OPERATOR),
    ("POST", "/deliveries/retry", {"states": ["expired"]}, Role.ADMIN),
    ("DELETE", "/studies/1.2.3", None, Role.ADMIN),
    ("POST", "/studies/1.2.3/allow-again", {}, Role.ADMIN),
    ("GET", "/acts", None, Role.ADMIN),
    ("POST", "/pauses/sending", {}, Role.ADMIN),
    ("DELETE", "/pauses/sending", None, Role.ADMIN),
    ("POST", "/reconciliation", {}, Role.ADMIN),
]


def test_each_route_asks_for_its_role(stepped: SteppedStore, tmp_path: Path) -> None:
    asked = Asked(stepped, tmp_path, RECONCILED)
    with asked.serve() as url:
        for role in Role:
            with person(url, role) as client:
                for method, path, body, needed in NEEDS:
                    answer = client.request(method, path, json=body) if body is not None else client.request(method, path)
                    assert (answer.status_code == 403) is not role.covers(needed), (role, method, path, answer.text)
                    assert answer.status_code in (200, 202, 403, 404), answer.text
        assert httpx.get(f"{url}/api/v1/status", trust_env=False).status_code == 401
    assert ANYBODY.name not in {one["person"] for one in asked.desk.acts(days=36500)}


# -------------------------------------------------------------------------------------------------------------------- bad input

LONG = "1." * 32 + "1"  # 65 characters

WRONG_CHOICES: list[tuple[str, list[Any] | str]] = [("exclude", ["Doe"]), ("patient_of", "Doe"), ("use_file", [0]), ("use_file", [2**63])]

BAD: list[tuple[str, str, Any]] = [
    *(("GET", f"/studies/{study}", None) for study in ("1.2.X", LONG, "1.2..3", "01.2", "1.2.٣", "%2e%2e%2fetc", "1.2.3%0a", "1.2.3%00")),
    *(("POST", f"/studies/{study}/reprocess", {}) for study in ("1.2.X", LONG)),
    *(("DELETE", f"/studies/{study}", None) for study in ("1.2.X", LONG)),
    *(("GET", f"/studies?limit={limit}", None) for limit in ("-1", "abc", "1000000000", "0", "1.5", "")),
    *(("GET", f"/studies?{query}", None) for query in ("state=lost", "study_date_from=2026-11-20", "patient_id=a%00", "aftr=x", "after=x")),
    ("GET", "/studies?after=99999999999999999-1.2", None),
    *(("GET", f"/deliveries?{query}", None) for query in ("state=gone", "limit=-1", "destination=pacs")),
    *(("GET", f"/acts?{query}", None) for query in ("since=yesterday", "since=99999999d", "study=1.2.X", "limit=0")),
    *(("GET", f"/devices?days={days}", None) for days in ("-1", "nan", "inf", "1e9")),
    *(("GET", f"/requests/{name}", None) for name in ("a%20b", "a" * 65, "%00")),
    *(("GET", f"/requests/none?wait={wait}", None) for wait in ("-1", "31", "nan", "x")),
    ("POST", "/pauses/everything", {}),
    ("DELETE", "/pauses/everything", None),
    *(("POST", f"/studies/{ANALYSED}/{kind}", {"resaon": "Doe"}) for kind in ("reprocess", "release", "withdraw", "send")),
    *(("POST", f"/studies/{ANALYSED}/withdraw", body) for body in (None, [], "text", 1, {"reason": 1}, {"reason": "x" * 1001})),
    *(("POST", f"/studies/{ANALYSED}/release", {"view": view}) for view in ({"Doe": "L-CC"}, {"1.2.3": "L-XX"}, ["L-CC"])),
    *(
        ("POST", f"/studies/{ANALYSED}/release", {name: value})
        for name, value in [("exclude", ["Doe"]), ("patient_of", "Doe"), ("use_file", [0])]
    ),
    ("POST", f"/studies/{ANALYSED}/release", {"use_file": [2**63]}),
    *(("POST", f"/studies/{ANALYSED}/send", {"send_to": names}) for names in (["elsewhere"], "pacs", ["pacs", "Doe"])),
    *(("POST", "/deliveries/retry", body) for body in ({}, {"delivery_ids": [1], "states": ["refused"]}, {"states": ["sent"]})),
    *(("POST", "/deliveries/retry", {"delivery_ids": ids}) for ids in ([0], [2**63], ["Doe"], list(range(1, 1002)))),
]


def test_what_is_wrong_is_refused_in_words_that_repeat_nothing(asked: Asked, client: httpx.Client) -> None:
    for method, path, body in BAD:
        answer = client.request(method, path, json=body) if body is not None else client.request(method, path)
        expected = (400, 404) if "%2f" in path else (400,)
        assert answer.status_code in expected, (method, path, body, answer.status_code, answer.text)
        assert answer.json()["detail"] and "Doe" not in answer.text and "xxx" not in answer.text, answer.text
    assert decisions(asked) == [] and acts(client) == []


#: Content type, body: none of it is a request.
NOT_JSON = [
    ("application/json", b'{"reason": '),
    ("application/json", b'{"reason": NaN}'),
    ("application/json", b'{"reason": "\\ud800"}'),
    ("application/json", b'{"\\ud800": 1}'),
    ("application/json", b"\xff\xfe{}"),
    ("application/json", b"[" * 100_000),
    ("application/json", b""),
    ("application/x-www-form-urlencoded", b"reason=x"),
    ("text/plain", b"{}"),
]


def test_what_is_no_json_is_refused(client: httpx.Client) -> None:
    for content_type, body in NOT_JSON:
        answer = client.post(f"/studies/{ANALYSED}/withdraw", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == 400 and answer.json()["detail"], (content_type, body[:20], answer.text)


def test_an_unknown_study_or_request_is_said_to_be_unknown(client: httpx.Client) -> None:
    for method, path in [
        ("GET", "/studies/1.2.3"),
        ("DELETE", "/studies/1.2.3"),
        ("POST", "/studies/1.2.3/reprocess"),
        ("POST", "/studies/1.2.3/release"),
        ("POST", "/studies/1.2.3/withdraw"),
        ("POST", "/studies/1.2.3/send"),
        ("GET", "/requests/1"),
    ]:
        answer = client.request(method, path, json={}) if method == "POST" else client.request(method, path)
        assert answer.status_code == 404 and "known here" in answer.json()["detail"], (path, answer.text)


def test_too_much_is_too_much(asked: Asked) -> None:
    with asked.client() as client:
        assert client.get("/studies?patient_id=" + "x" * 60_000).status_code == 414
        assert client.post(f"/studies/{ANALYSED}/withdraw", json={"reason": "x" * (1 << 20)}).status_code == 413
        connection = HTTPConnection(str(client.base_url.host), client.base_url.port, timeout=60)
        connection.request("GET", "/api/v1/studies?patient_id=" + "x" * (1 << 20), headers={"Authorization": "Bearer admin"})
        assert connection.getresponse().status in (400, 414, 431)
        connection.close()
        assert client.get("/status").status_code == 200
