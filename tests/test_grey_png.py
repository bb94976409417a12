"""pipeline/grey_png.py: what is written is read back by others, pixel for pixel."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pipeline.grey_png import grey_png


@settings(deadline=None)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)),
    st.sampled_from([np.asarray, np.flipud, np.fliplr]),
)
def test_a_picture_is_read_back(grey: Any, turned: Any) -> None:
    with Image.open(BytesIO(grey_png(turned(grey))), formats=["PNG"]) as opened:
        opened.load()  # checks the sums of its chunks
        assert opened.mode == "L"
        assert np.array_equal(np.asarray(opened), turned(grey))
