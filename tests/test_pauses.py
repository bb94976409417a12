"""What people pause and what they did: pauses stop the handing out and nothing else, acts stay for ever."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from mammograms_made import uid
from stepped_store import START, SteppedStore, exam, image

from listener.show import in_words
from store import tables
from store.acts import Acts
from store.pauses import Paused, Pauses
from store.study import View

LONDON = ZoneInfo("Europe/London")


def pauses(stepped: SteppedStore) -> Pauses:
    return Pauses(stepped.engine, clock=lambda _: stepped.now)


def test_while_analysing_is_paused_images_come_and_wait(stepped: SteppedStore) -> None:
    assert pauses(stepped).pause(Paused.ANALYSING, person="anna", why="new model")
    stepped.receive(*exam())
    stepped.step(120)
    stepped.work()
    assert stepped.state() == "analysing" and stepped.decoded == [] and len(stepped.study()["images"]) == 4
    shown = in_words(stepped.study(), LONDON)
    assert "analysing is paused since 2026-11-20 10:00:00 by anna (new model): fourview resume analysing" in shown
    assert pauses(stepped).resume(Paused.ANALYSING, person="ben")
    stepped.work()
    assert stepped.state() == "analysed" and len(stepped.decoded) == 4
    assert "paused" not in in_words(stepped.study(), LONDON)


def test_while_sending_is_paused_nothing_is_handed_out_and_what_is_in_hand_ends(stepped: SteppedStore) -> None:
    stepped.receive(*exam())
    stepped.settle()
    [claim] = stepped.ledger.claim()
    pauses(stepped).pause(Paused.SENDING, person="anna")
    one, other = stepped.begin(claim.workflow_id)
    stepped.ledger.sent(one.delivery_id, 0, "", ask=True)
    stepped.ledger.not_sent(other.delivery_id, 0xA700, "full", retry_days=3)
    stepped.step(10 * 86400)
    assert stepped.ledger.claim() == []
    assert "sending is paused" in in_words(stepped.study(), LONDON)
    pauses(stepped).resume(Paused.SENDING, person="anna")
    [claim] = stepped.ledger.claim()
    states = {one.state for one in stepped.ledger.batch(claim.workflow_id)}
    assert states == {"waiting", "sent"}, "a pause longer than retry_days expires nothing: there is one more try"


def test_who_paused_first_stays(stepped: SteppedStore) -> None:
    assert pauses(stepped).pause(Paused.SENDING, person="anna", why="PACS is moved")
    stepped.step(60)
    assert not pauses(stepped).pause(Paused.SENDING, person="ben")
    [row] = stepped.rows(sa.select(tables.pause))
    assert (row.at, row.person, row.why) == (START, "anna", "PACS is moved")
    assert pauses(stepped).resume(Paused.SENDING, person="ben") and not pauses(stepped).resume(Paused.SENDING, person="ben")
    acts = Acts(stepped.engine, clock=lambda _: stepped.now).listing(days=1)
    assert [(act["what"], act["person"], act["why"]) for act in acts] == [
        ("resume sending", "ben", ""),
        ("pause sending", "anna", "PACS is moved"),
    ]


def test_what_is_asked_of_a_study_is_an_act(stepped: SteppedStore) -> None:
    mlo = image(View.L_MLO)
    stepped.receive(*exam()[:3], mlo)
    stepped.settle()
    stepped.ask("release", "r1", exclude=(str(mlo.SOPInstanceUID),), why="blurred")
    stepped.ask("withdraw", "r2", why="wrong patient")
    stepped.receive(*exam(study="other"))
    stepped.ask("reprocess", "r3", study="other")
    acts = Acts(stepped.engine, clock=lambda _: stepped.now)
    mine = acts.listing(days=1, study_instance_uid=uid("study"))
    assert [(act["what"], act["person"], act["why"]) for act in mine] == [
        ("withdraw", "Kim", "wrong patient"),
        ("release", "Kim", "blurred"),
    ]
    assert mine[1]["parameters"] == {"choices": ["--exclude"]}
    assert str(mlo.SOPInstanceUID) not in str(mine), "the record outlives the study and must not name its images"
    assert len(acts.listing(days=1)) == 3
    stepped.step(2 * 86400)
    assert acts.listing(days=1) == [] and len(acts.listing(days=3)) == 3


def test_the_database_refuses_to_change_or_delete_an_act(engine: sa.Engine) -> None:
    Acts(engine).record(person="anna", what="pause sending")
    for statement in (sa.update(tables.act).values(person="ben"), sa.delete(tables.act)):
        with pytest.raises(sa.exc.DatabaseError, match="append-only"), engine.begin() as connection:
            connection.execute(statement)
    [act] = Acts(engine).listing(days=timedelta(days=1).days)
    assert act["person"] == "anna"
