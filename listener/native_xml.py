"""A data set of the DICOM JSON model as XML: the Native DICOM Model, PS3.19 A.1, as PS3.18 F.3.1 relates the two. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr  # nosec B406 # XML is written here, none is parsed

from pydicom.datadict import keyword_for_tag

_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
#: What XML 1.0 cannot hold, however it is written.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def native_xml(header: Mapping[str, Any]) -> str:
    """The whole document, UTF-8 to be encoded."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xmlns="{_NAMESPACE}" xml:space="preserve">'
        f"{''.join(_attributes(header))}</NativeDicomModel>"
    )


def _attributes(header: Mapping[str, Any]) -> Iterator[str]:
    for tag, attribute in sorted(header.items()):
        keyword = keyword_for_tag(int(tag, 16))
        named = f" keyword={quoteattr(keyword)}" if keyword else ""
        yield f"<DicomAttribute tag={quoteattr(tag)} vr={quoteattr(attribute['vr'])}{named}>{''.join(_content(attribute))}</DicomAttribute>"


def _content(attribute: Mapping[str, Any]) -> Iterator[str]:
    if "BulkDataURI" in attribute:
        yield f"<BulkData uri={quoteattr(attribute['BulkDataURI'])}/>"
    if "InlineBinary" in attribute:
        yield f"<InlineBinary>{attribute['InlineBinary']}</InlineBinary>"
    for number, value in enumerate(attribute.get("Value", ()), 1):
        if attribute["vr"] == "SQ":
            yield f'<Item number="{number}">{"".join(_attributes(value or {}))}</Item>'
        elif value is None:
            continue  # the numbers of the others tell that it is empty
        elif isinstance(value, Mapping):
            yield f'<PersonName number="{number}">{"".join(_groups(value))}</PersonName>'
        else:
            yield f'<Value number="{number}">{_text(str(value))}</Value>'


def _groups(name: Mapping[str, str]) -> Iterator[str]:
    for group in ("Alphabetic", "Ideographic", "Phonetic"):
        if group in name:
            components = zip(_COMPONENTS, name[group].split("^"), strict=False)
            yield f"<{group}>{''.join(f'<{what}>{_text(text)}</{what}>' for what, text in components if text)}</{group}>"


def _text(value: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", value))
