"""The sender's side of the account: dcmtk's `storescu` sends until everything was answered Success, and is believed."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mammograms_made import breast_pixels, mammogram, uid
from pydicom.dataset import Dataset

from store.study import HANGING_ORDER


@dataclass(frozen=True)
class Outgoing:
    """One instance on the sender's disk."""

    path: Path
    study_instance_uid: str
    sop_instance_uid: str


def write_exam(folder: Path, name: str, *, rows: int = 256, columns: int = 256, **overrides: object) -> list[Outgoing]:
    """Four views of a study as Part 10 files; `name` makes the UIDs and the patient."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, view in enumerate(HANGING_ORDER):
        seed = int(uid(name, view.value)[-9:])
        values = {"PatientID": f"P-{name}", "PatientName": f"Test^{name}", "AccessionNumber": f"A-{name}"[:16], **overrides}
        ds: Dataset = mammogram(view, study=name, pixels=breast_pixels(view, rows=rows, columns=columns, seed=seed), **values)
        path = folder / f"{name}-{number}.dcm"
        ds.save_as(path, enforce_file_format=True)
        written.append(Outgoing(path, str(ds.StudyInstanceUID), str(ds.SOPInstanceUID)))
    return written


@dataclass
class Sender:
    """Sends studies one after the other to 127.0.0.1:`port`, an association each, and repeats what was not answered Success."""

    program: str
    port: int
    called: str = "FOURVIEW"
    calling: str = "MODALITY"
    answered: list[Outgoing] = field(default_factory=list)  # 0x0000, in order; only these are owed
    statuses: Counter[str] = field(default_factory=Counter)
    attempts: int = 0

    def send(self, exam: list[Outgoing], *, until: threading.Event | None = None, seconds: float = 120) -> None:
        """Returns when each was answered Success; AssertionError after `seconds`, early when `until` is set."""
        pending = list(exam)
        give_up_at = time.monotonic() + seconds
        while pending and not (until is not None and until.is_set()):
            taken = self.try_once(pending)
            self.answered += taken
            pending = [one for one in pending if one not in taken]
            if pending:
                assert time.monotonic() < give_up_at, f"not taken within {seconds:g} s: {dict(self.statuses)}"
                time.sleep(0.2)

    def try_once(self, pending: list[Outgoing]) -> list[Outgoing]:
        """One association; those that were answered Success."""
        self.attempts += 1
        command = [self.program, "-v", "-nh", "-R", "-ta", "10", "-td", "30", "-aec", self.called, "-aet", self.calling]
        command += ["127.0.0.1", str(self.port), *(str(one.path) for one in pending)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)
        by_path = {str(one.path): one for one in pending}
        current: Outgoing | None = None
        taken = []
        for line in (done.stdout + done.stderr).splitlines():
            if found := re.search(r"Sending file: (.+)$", line):
                current = by_path.get(found[1].strip())
            elif found := re.search(r"Received Store Response \((.+)\)", line):
                self.statuses[found[1]] += 1
                if found[1] == "Success" and current is not None:
                    taken.append(current)
                current = None
        if not taken and "Received Store Response" not in done.stdout + done.stderr:
            self.statuses["no answer"] += 1
        return taken
