"""One log line for each look at a patient and each act: who, from where, at which studies. UIDs only, no names and no queries."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from http import HTTPStatus

from starlette.types import Scope

from listener.keys import is_uid, told
from listener.users import Person

log = logging.getLogger(__name__)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: A line names no more studies than that; it always says how many there are.
MOST_NAMED = 100
#: A page that stays open asks again every few seconds: the same look is told once in this time.
SAME_LOOK_SECONDS = 300.0
_MOST_REMEMBERED = 1024
_SMALL_NUMBER = re.compile(r"[0-9]{1,5}")
#: What a path says beside the words of its route.
_WORDS = frozenset({"analysing", "sending", "pause", "resume"})


class Audit:
    """Tells looks that were granted or that the role forbids, and whatever is no mere look."""

    def __init__(self) -> None:
        self._told: OrderedDict[int, float] = OrderedDict()

    def tell(self, scope: Scope, person: Person, address: str, status: int, now: float) -> None:
        """What became of a request; `now` in seconds of any steady clock. The studies are those of the path and of `who.speaks_of`."""
        named = [str(value) for name, value in scope.get("path_params", {}).items() if name == "study_instance_uid"]
        studies = [*named, *(uid for uid in scope["state"].get("studies", ()) if uid not in named)]
        method = scope["method"]
        path = path_told(scope)
        if method in SAFE_METHODS:
            seen = status < HTTPStatus.BAD_REQUEST or status == HTTPStatus.FORBIDDEN
            if not studies or not seen or self._is_told(hash((person, address, path, status, *studies)), now):
                return
        log.info(
            "event=audit person=%s role=%s address=%s method=%s status=%d studies=%d %s=%s path=%s",
            person.name,
            person.role,
            address,
            method,
            status,
            len(studies),
            "study_instance_uid" if len(studies) < 2 else "study_instance_uids",
            ",".join(told(uid) for uid in studies[:MOST_NAMED]) or "-",
            path,
        )

    def _is_told(self, look: int, now: float) -> bool:
        before = self._told.get(look)
        if before is not None and now - before < SAME_LOOK_SECONDS:
            return True
        self._told[look] = now
        self._told.move_to_end(look)
        while len(self._told) > _MOST_REMEMBERED:
            self._told.popitem(last=False)
        return False


def path_told(scope: Scope) -> str:
    """The path of a request for the log: what our routes say of it, UIDs, small numbers and words of ours. Whatever else a client writes
    into a path may be a patient's name, and is told as the parameter that it stands for; the query is left out."""
    if "endpoint" not in scope:
        return "(none)"  # it is none of ours, or was refused before that was asked
    path = str(scope["path"])
    for name, value in scope.get("path_params", {}).items():
        written = str(value)
        if written and not (written in _WORDS or _SMALL_NUMBER.fullmatch(written) or (is_uid(written) and "." in written)):
            path = path.replace(written, f"{{{name}}}")
    return path
