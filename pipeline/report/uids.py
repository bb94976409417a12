"""UIDs that are derived from what they identify, so that building twice names the same object (PS3.5 9, B.2: UUID-derived UIDs).

An archive keeps the first object it sees under a UID: whatever changes the bytes of an object must therefore enter its UID.
"""

from __future__ import annotations

import uuid

from pydicom.uid import UID

from store.study import ModelIdentity


def derived_uid(*parts: str) -> UID:
    """A UID below 2.25 that depends on `parts` and their borders only: ("ab", "c") and ("a", "bc") differ. At most 44 characters."""
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, joined).int}")


def model_line(model: ModelIdentity) -> str:
    """What stays the same over a model's versions. Meaningless numbers are a line of their own, never in one series with real ones."""
    if model.engine == "simulated":
        return f"{model.name}|simulated"
    return model.name if model.trained else f"{model.name}|untrained"


def series_instance_uid(kind: str, study_instance_uid: str, model: ModelIdentity) -> UID:
    """The series of a study's results of one kind: all versions share it, so that a viewer can show the newest."""
    return derived_uid("series", kind, study_instance_uid, model_line(model))


def tracking_uid(study_instance_uid: str, sop_instance_uid: str, model: ModelIdentity) -> UID:
    """Tracking Unique Identifier (112040, DCM) of what one model line says of one image; stable over versions."""
    return derived_uid("tracking", study_instance_uid, sop_instance_uid, model_line(model))


def sop_instance_uid(kind: str, cause: str) -> UID:
    """The UID of a version's object: its cause holds everything that may change its bytes."""
    return derived_uid("object", kind, cause)
