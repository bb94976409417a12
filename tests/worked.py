"""A worker's work, done in the test's own process until nothing is left of it."""

from __future__ import annotations

from pipeline import conclude, read
from pipeline.workshop import Workshop


def work_off(shop: Workshop, *, rounds: int) -> None:
    """Look at every study, read every image and report, as long as there is something; AssertionError when it does not end."""
    for _ in range(rounds):
        studies, scores = shop.archive.claim_studies(), shop.scoring.claim()
        for claim in studies:
            if conclude.advance(shop, claim.row, claim.workflow_id):
                conclude.conclude(shop, claim.row, claim.workflow_id)
        for claim in scores:
            read.read_image(shop, int(claim.row), claim.workflow_id)
        if not studies and not scores:
            return
    raise AssertionError("the work never ends: a row is claimed again and again")
