"""The pictures of views that this worker has just kept: the report that shows them follows at once and need not read them from the disk."""

from __future__ import annotations

import threading
from collections import OrderedDict
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from store.files import Files

Picture = np.ndarray[Any, np.dtype[np.uint8]]

#: Of four studies; each is below a megabyte.
MOST = 16


class Pictures:
    """The last `MOST` pictures by the names of their files, which are never used again. Called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: OrderedDict[str, Picture] = OrderedDict()

    def remember(self, name: str, picture: Picture) -> None:
        """`picture` (rows, columns), which nobody changes any more, is what the file `name` holds."""
        with self._lock:
            self._last[name] = picture
            while len(self._last) > MOST:
                self._last.popitem(last=False)

    def read(self, files: Files, name: str) -> Picture:
        """The picture in the file `name`. Raises FileGone, OSError."""
        with self._lock:
            found = self._last.get(name)
        if found is None:
            files.check(name)
            found = np.asarray(Image.open(BytesIO(files.read(name))))
        return found
