"""A worker's first reading, of an image that does not exist, so that the first real one waits for no library to load."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation

from pipeline import report
from pipeline.pixels import ModelImage
from pipeline.workshop import Workshop
from store.study import Outcome, Scores, View
from store.view import resolve_view


def warm_up(shop: Workshop) -> None:
    """Read and report an image that does not exist, so that the first real one waits for no library to load."""
    with contextlib.suppress(OSError):  # the first image says what is wrong
        shop.decoder.start()
    model = shop.load("")
    size = model.size
    grey = np.zeros((size, size), dtype=np.float32)
    probabilities = model.classifier.classify(ModelImage(grey=grey, box=(0, 0, size, size), threshold=0.0, warnings=()))
    header = Dataset()
    header.StudyInstanceUID = header.SeriesInstanceUID = header.SOPInstanceUID = "2.25.1"
    header.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    header.Rows = header.Columns = size
    scores = Scores(classes=model.identity.classes, probabilities=probabilities, box=(0, 0, size, size), rows=size, columns=size)
    view = report.ReportedView(
        view=View.L_CC, header=header, evidence=resolve_view(header), scores=scores, failure="", picture=np.zeros((8, 8), dtype=np.uint8)
    )
    report.build(
        report.Report(
            study_instance_uid=header.StudyInstanceUID,
            views=(view,),
            missing=(View.R_CC, View.R_MLO, View.L_MLO),
            outcome=Outcome.PARTIAL,
            losers=(),
            warnings=(),
            model=model.identity,
            version_number=1,
            created_at=datetime.now(UTC),
            cause="",
            predecessors={},
            installation=shop.installation,
        )
    )
