"""How a site, its senders and its devices say what the Standard says otherwise: words for sides and views, attributes that are written
wrongly, and a character set that is not named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What is peculiar to whoever wrote a header."""

    side_words: Mapping[str, str] = field(default_factory=dict)  # word -> "L" or "R"
    view_words: Mapping[str, str] = field(default_factory=dict)  # word -> label of CID 4014
    synthetic_words: tuple[str, ...] = ()  # words or phrases of Series Description that mean synthetic 2D
    distrust: tuple[str, ...] = ()  # of `store.view_text.TRUSTED`: attributes that are written wrongly and that are not read


@dataclass(frozen=True, kw_only=True)
class Device(Habits):
    """What is peculiar to one kind of device. Of several that match a header the first one counts."""

    manufacturer: str = ""  # Manufacturer (0008,0070), without regard to case; "" matches any
    model: str = ""  # Manufacturer's Model Name (0008,1090), likewise; at least one of the two is given

    def matches(self, manufacturer: str, model: str) -> bool:
        """Whether this is the device that wrote `manufacturer` and `model` into its header."""
        return bool(self.manufacturer or self.model) and all(
            not wanted or wanted.strip().casefold() == found.strip().casefold()
            for wanted, found in ((self.manufacturer, manufacturer), (self.model, model))
        )


@dataclass(frozen=True, kw_only=True)
class Sender(Habits):
    """What is peculiar to all that comes from one calling AE title."""

    character_set: str = ""  # of text in a header without Specific Character Set (0008,0005), as that would say it; "": not known


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The words of a site, and the habits of its senders and devices. The Standard's own words outrank a device's, those its sender's, and
    those the site's."""

    side_words: Mapping[str, str] = field(default_factory=dict)  # word -> "L" or "R", on every device
    devices: tuple[Device, ...] = ()
    senders: Mapping[str, Sender] = field(default_factory=dict)  # by calling AE title
    sender: Sender = Sender()  # of the header that is read

    def of(self, calling_ae_title: str) -> Dialect:
        """The same for what came from there."""
        sender = self.senders.get(calling_ae_title)
        return self if sender is None else replace(self, sender=sender)


#: A site that configured nothing: English side words, the Standard's labels.
STANDARD = Dialect()
