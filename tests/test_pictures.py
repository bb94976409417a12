"""Pictures of views that a worker has just kept (`pipeline.pictures`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.grey_png import grey_png
from pipeline.pictures import MOST, Pictures
from store.files import FileGone, Files


def test_a_picture_is_the_same_from_memory_and_from_its_file(tmp_path: Path) -> None:
    files, kept = Files(tmp_path), Pictures()
    picture = np.random.default_rng(1).integers(0, 256, (40, 30), dtype=np.uint8)
    name = files.write(grey_png(picture))
    assert np.array_equal(kept.read(files, name), picture)
    kept.remember(name, picture)
    files.remove(name)
    assert kept.read(files, name) is picture
    for number in range(MOST):
        kept.remember(f"aa/{number:030x}", picture)
    with pytest.raises(FileGone):
        kept.read(files, name)
