"""The pictures of a study's images for its page: as they were read, and with the heat map laid over.

A heat map shows what influenced a score; it claims no place of anything. Of an image whose highest class is Normal none is shown, as on
the result page.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from pipeline.heat_colours import heat_map_picture
from pipeline.wording import NORMAL_CLASS
from store.files import Files
from store.search import Search


class NoPicture(Exception):
    """There is no such picture, or it is not kept any more."""


class Pictures:
    """Finds and makes them; nothing is kept."""

    def __init__(self, search: Search, files: Files) -> None:
        self._search = search
        self._files = files

    def png(self, study_instance_uid: str, score_id: int, name: str) -> bytes:
        """The `preview` of a score's image, or the same with its `heat-map`. Raises NoPicture."""
        found = self._search.pictures(study_instance_uid, score_id) if name in ("preview", "heat-map") and 0 < score_id < 1 << 63 else None
        if found is None:
            raise NoPicture("no_picture")
        try:
            if name == "preview":
                return self._files.read(found.preview_file)
            if found.heat_map_file is None or found.scores.predicted_class == NORMAL_CLASS:
                raise NoPicture("no_picture")
            picture, heat_map = self._grey(found.preview_file), self._grey(found.heat_map_file)
        except FileNotFoundError:
            raise NoPicture("no_picture") from None
        scores = found.scores
        over = heat_map_picture(picture, heat_map.astype(np.float32) / np.float32(255), scores.box, scores.rows, scores.columns)
        buffer = BytesIO()
        Image.fromarray(over).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def _grey(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return np.asarray(Image.open(BytesIO(self._files.read(name))).convert("L"))
