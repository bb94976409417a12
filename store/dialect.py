"""How a site and its devices say what the Standard says otherwise: words for sides and views, and attributes that are written wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Device:
    """What is peculiar to one kind of device. Of several that match a header the first one counts."""

    manufacturer: str = ""  # Manufacturer (0008,0070), without regard to case; "" matches any
    model: str = ""  # Manufacturer's Model Name (0008,1090), likewise; at least one of the two is given
    side_words: Mapping[str, str] = field(default_factory=dict)  # word -> "L" or "R"
    view_words: Mapping[str, str] = field(default_factory=dict)  # word -> label of CID 4014
    synthetic_words: tuple[str, ...] = ()  # words or phrases of Series Description that mean synthetic 2D
    distrust: tuple[str, ...] = ()  # of `store.view_text.TRUSTED`: attributes that this device writes wrongly and that are not read

    def matches(self, manufacturer: str, model: str) -> bool:
        """Whether this is the device that wrote `manufacturer` and `model` into its header."""
        return bool(self.manufacturer or self.model) and all(
            not wanted or wanted.strip().casefold() == found.strip().casefold()
            for wanted, found in ((self.manufacturer, manufacturer), (self.model, model))
        )


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The words of a site, and the habits of its devices."""

    side_words: Mapping[str, str] = field(default_factory=dict)  # word -> "L" or "R", on every device
    devices: tuple[Device, ...] = ()


#: A site that configured nothing: English side words, the Standard's labels.
STANDARD = Dialect()
