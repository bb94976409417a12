"""One thing that was looked at while a site is set up or checked, and what to do when it is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """`remedy` beside `ok` is advice; `seconds`: what took so long, where that says something."""

    ok: bool
    what: str
    remedy: str = ""
    seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        more = {} if self.seconds is None else {"seconds": round(self.seconds, 1)}
        return {"ok": self.ok, "what": self.what, "remedy": self.remedy, **more}
