"""Who wrote an object and who opens an association: Implementation Class UID and Version Name (PS3.7 D.3.3.2, PS3.10 7.1)."""

from __future__ import annotations

from pydicom.uid import UID

#: (0002,0012), the same in every file and every association of every release.
IMPLEMENTATION_CLASS_UID = UID("2.25.85165277927782948745775202559280070808")
#: (0002,0013), at most 16 characters.
IMPLEMENTATION_VERSION_NAME = "FOURVIEW"
