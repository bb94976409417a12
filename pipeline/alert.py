"""Telling people: what is wrong is found every few seconds and told by webhook, a POST of JSON without patient data (RFC 8259, RFC 9110).

Any 2xx answer is "told". Redirects are not followed and no proxy of the environment is used: the address is the one that was configured.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import requests

from pipeline.chores import Chore
from store.alerts import OF_SENDERS, AlertKind, Alerts, Limits, Message, causes, sender_causes
from store.condition import Condition
from store.files import Files, Room

log = logging.getLogger(__name__)

ALERT_SECONDS = 15.0
SENDER_SECONDS = 300.0
#: A process that began to look so long ago and never ended is dead.
ABANDONED_SECONDS = 120.0
#: Seconds until connected, and until the first byte of the answer.
TIMEOUTS = (5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is looked at, and who is told; `url` "": nobody."""

    condition: Condition
    alerts: Alerts
    files: Files
    limits: Limits
    url: str

    def chores(self) -> tuple[Chore, ...]:
        """What the processes of all hosts share: looking and telling."""
        return (
            Chore(name="alerts", every_seconds=ALERT_SECONDS, do=self.look, abandoned_seconds=ABANDONED_SECONDS),
            Chore(name="senders", every_seconds=SENDER_SECONDS, do=self.look_at_senders, abandoned_seconds=SENDER_SECONDS),
        )

    def room(self) -> Room | None:
        """The room for what is received; None when a volume cannot be asked."""
        try:
            return self.files.least_room()
        except OSError:
            return None

    def free_bytes(self) -> int | None:
        """The same for a gauge: bytes alone."""
        room = self.room()
        return None if room is None else room.free_bytes

    def look(self) -> dict[str, int]:
        """Find what is wrong, and tell what is not told yet."""
        found = causes(self.condition.facts(), self.limits, self.room(), self.alerts.standing())
        raised, cleared = self.alerts.settle(found, [kind for kind in AlertKind if kind not in OF_SENDERS], tell=bool(self.url))
        return {"raised": raised, "cleared": cleared, "told": self._tell()}

    def look_at_senders(self) -> dict[str, int]:
        """The same for what costs more to find out."""
        found = sender_causes(self.condition.senders(), self.limits, self.condition.facts().now)
        raised, cleared = self.alerts.settle(found, OF_SENDERS, tell=bool(self.url))
        return {"raised": raised, "cleared": cleared}

    def _tell(self) -> int:
        """Tell what is due, until the first failure: whoever does not answer now will not answer for the next one either."""
        told = 0
        for message in self.alerts.due() if self.url else ():
            error = post(self.url, body(message))
            if error:
                log.warning("alert not told cause=%r tries=%d reason=%r", message.cause, message.tries + 1, error)
                self.alerts.not_told(message, error)
                break
            self.alerts.told(message)
            told += 1
        return told


def body(message: Message) -> dict[str, Any]:
    """The JSON of a message."""
    resolved = message.cleared_at is not None
    return {
        "source": "fourview",
        "state": "resolved" if resolved else "raised",
        "kind": message.kind,
        "cause": message.cause,
        "text": f"Fourview: {'resolved: ' if resolved else ''}{message.text}",
        "count": message.count,
        "since": message.raised_at.isoformat(),
        "until": message.cleared_at.isoformat() if message.cleared_at is not None else None,
        "command": message.command,
    }


def post(url: str, content: dict[str, Any]) -> str:
    """Why it could not be told, in words; "" when it was."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(url, json=content, timeout=TIMEOUTS, allow_redirects=False, stream=True)
            answer.close()
    except requests.RequestException as error:
        return f"no answer ({type(error).__name__})"  # its own words repeat the address, which may hold a key
    return "" if 200 <= answer.status_code < 300 else f"answered {answer.status_code}"
