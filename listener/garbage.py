"""What a process that answers at once asks of the garbage collector."""

from __future__ import annotations

import gc


def keep_what_is_here() -> None:
    """Of what was made so far nothing goes before the process does: the garbage collector looks through it no more.

    Each time it did, everything waited 60 ms: the 95th percentile of searches that answer 100 studies was 76 ms, and is 13 without.
    Called again, it lets go of what was kept before and is not used any more.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
