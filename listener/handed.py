"""What a supervisor hands to its children: the configuration that they shall work by, in memory that they share (memfd_create(2)).

A child is given the descriptor when it is started. Later news is a byte on the pipe that it watches anyway (`listener.serve`): it says no
more than "look". What is being written is never taken for what was written: a digest stands in front of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass

_HEAD = 32 + 8  # SHA-256 of what follows, and its length


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A configuration to be taken, or why the file is refused: then `text` is still that of the one in force."""

    number: int  # grows whenever anything of it changes
    started: str  # the file as the supervisor was started with it: what waits for a restart stays as it says there
    text: str
    complaints: tuple[str, ...] = ()

    @classmethod
    def first(cls, text: str) -> Offer:
        """Of a process that reads the file itself."""
        return cls(number=0, started=text, text=text)


class Handed:
    """The shared memory; one writes, all read."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pokes = 0  # how often the children are to be told to look

    @classmethod
    def new(cls) -> Handed:
        """Memory that lasts as long as a process has it."""
        return cls(os.memfd_create("configuration"))

    def write(self, offer: Offer) -> None:
        """Replace what the children find."""
        content = json.dumps(asdict(offer)).encode()
        head = hashlib.sha256(content).digest() + len(content).to_bytes(8, "big")
        os.pwrite(self.descriptor, head + content, 0)

    def read(self) -> Offer:
        """What was written last."""
        while True:
            length = int.from_bytes(os.pread(self.descriptor, 8, _HEAD - 8), "big")
            found = os.pread(self.descriptor, _HEAD + length, 0)
            if hashlib.sha256(found[_HEAD:]).digest() == found[:32]:
                said = json.loads(found[_HEAD:])
                return Offer(**{**said, "complaints": tuple(said["complaints"])})
            time.sleep(0.01)  # it is being written at this moment

    def poke(self) -> None:
        """Have the children look; the supervisor's loop does it."""
        self.pokes += 1
