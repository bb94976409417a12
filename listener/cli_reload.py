"""`fourview config reload`: the running processes of all hosts read their configuration files anew, and say what became of them."""

from __future__ import annotations

import getpass
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer

from listener import parts
from listener.cli_setup import config_app
from listener.config import Config
from listener.show import printable
from listener.terminal import AsJson, Reason, configuration, print_json
from store.condition import Condition, Process
from store.leases import Configured

LOOK_SECONDS = 0.2
WaitSeconds = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the answers.")]
#: A process tells since when by two clocks.
SAME = timedelta(seconds=1)
NO_ANSWER, ENDED = "no answer", "ended"


@config_app.command("reload")
def config_reload(context: typer.Context, reason: Reason = "", wait_seconds: WaitSeconds = 60.0, as_json: AsJson = False) -> None:
    """Have every running process, on all hosts, read its configuration file anew, and print what each answers.

    Exit code 1 when one refuses it, does not answer, or none is running; 2 when this host's file is wrong: then nobody was asked.
    """
    config = configuration(context)
    answers = _asked(config, reason, wait_seconds)
    if as_json:
        print_json(answers)
    else:
        for line in _in_words(answers):
            print(printable(line))
    if not answers or any(one["outcome"] in ("refused", NO_ANSWER) for one in answers):
        raise typer.Exit(1)


def _asked(config: Config, reason: str, wait_seconds: float) -> list[dict[str, Any]]:
    """Ask all, and wait for them: the answer of each."""
    condition, request_id = parts.open_condition(config), uuid.uuid4().hex
    before = {one.process: one.configured for one in condition.processes()}
    asked = parts.open_claims(config).ask_to_reload(request_id)
    parts.open_acts(config).record(person=getpass.getuser(), what="config reload", why=reason, parameters={"processes": len(asked)})
    give_up_at = time.monotonic() + wait_seconds
    while True:
        now = _living(condition)
        answers = [_answer(process, before.get(process), now.get(process), request_id) for process in asked]
        if time.monotonic() >= give_up_at or all(one["outcome"] != NO_ANSWER for one in answers):
            return answers
        time.sleep(LOOK_SECONDS)


def _living(condition: Condition) -> dict[str, Process]:
    return {one.process: one for one in condition.processes() if one.alive}


def _answer(process: str, before: Configured | None, now: Process | None, request_id: str) -> dict[str, Any]:
    configured = now.configured if now is not None else None
    if configured is None or configured.answered != request_id:
        return {"process": process, "outcome": ENDED if now is None else NO_ANSWER}
    outcome = configured.outcome
    # What one is asked all children of its parent take: to be asked as well finds nothing new then.
    if outcome == "unchanged" and before is not None and configured.since - before.since > SAME:
        outcome = "taken"
    known = {name: getattr(configured, name) for name in ("hash", "since", "complaints", "waiting")}
    return {"process": process, "outcome": outcome, **known}


def _in_words(answers: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not answers:
        yield "no process is running that could read it; whichever is started next does"
    told: set[str] = set()
    for one in answers:
        yield f"{one['process']:<32} {one['outcome']:<10} {one.get('hash', '')}".rstrip()
        for sentence in (*one.get("complaints", ()), *one.get("waiting", ())):
            if sentence not in told:
                told.add(sentence)
                yield f"    {sentence}"
