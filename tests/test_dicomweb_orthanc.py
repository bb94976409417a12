"""Our QIDO-RS and WADO-RS beside those of Orthanc's plug-in: the same results, the same questions, and no difference that has no reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dicomweb_compared import KNOWN, both


def test_every_difference_from_orthanc_has_a_reason(tmp_path: Path, needs_program: Callable[[str], str]) -> None:
    with both(tmp_path, needs_program("Orthanc")) as (ours, theirs):
        mine, others = dict(ours.answers()), dict(theirs.answers())
    differ = {name for name in mine if mine[name] != others[name]}
    assert differ <= set(KNOWN), {name: (mine[name], others[name]) for name in differ - set(KNOWN)}
    # the comparison says something: most questions are answered alike, and not by nothing found
    alike = [mine[name] for name in mine if name not in differ]
    assert set(mine) == set(others) and len(alike) >= 50
    assert sum(bool(answer) and not isinstance(answer, int) for answer in alike) >= 40
