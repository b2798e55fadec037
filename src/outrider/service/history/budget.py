"""How much room one update of one instance may take in the history (P15).

Theory: what a step takes in a chunk is about what it adds to the compressed text of the instance's own steps before it;
beside those of other instances, which are alike, it takes less. That is counted, with the third that base64 adds.
Ordinary steps leave room for the end of an update: that it was left out from here on, where it came to rest, and the
version that runs then.
"""

import zlib
from dataclasses import dataclass

import msgspec

from outrider.model.history import Step

FOR_THE_END = 400
"""Bytes that are kept for the last steps; ``FOR_A_VERSION`` of them for a step that brings another version."""
FOR_A_VERSION = 100
_REMEMBERED = 1024
"""Bytes of earlier steps by which the next one is measured."""


@dataclass(slots=True)
class Budget:
    """Of one update: of one instance's way to one release.

    Attributes:
        wanted: Label of the release.
        spent: Bytes so far.
    """

    wanted: str = ""
    spent: int = 0
    recent: bytes = b""

    def cost(self, step: Step) -> int:
        """Bytes that ``step`` adds."""
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=self.recent) if self.recent else zlib.compressobj(9)
        return (len(packer.compress(_text(step))) + len(packer.flush())) * 4 // 3

    def spend(self, step: Step) -> None:
        """``step`` is recorded."""
        self.spent += self.cost(step)
        self.recent = (self.recent + _text(step))[-_REMEMBERED:]


def _text(step: Step) -> bytes:
    return msgspec.json.encode(step)
