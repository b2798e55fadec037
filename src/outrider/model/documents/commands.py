"""What operators and the service tell a sidekick."""

from datetime import datetime
from typing import Literal

from outrider.model.documents.base import Document

DRAIN_S = 1800.0
"""How long a drain may take before a person must look, unless the operator says otherwise."""
Verb = Literal["pause", "resume", "rollback", "retry", "drain", "undrain", "decommission"]


class Command(Document, frozen=True, kw_only=True):
    """``commands/{app}/{instance}``: an operator's command to one sidekick; the sidekick removes it when taken.

    Attributes:
        version: Where a rollback is to go; empty for the version before.
        for_s: Of ``drain``: seconds after which a person must look.
        id: Made by the service; empty when an older one wrote it.
        until_reboot: Of ``drain``: come back by itself after the machine's next boot.
    """

    verb: Verb
    for_s: float = DRAIN_S
    until_reboot: bool = False
    id: str = ""
    by: str
    at: datetime
    version: str = ""


class Wakeup(Document, frozen=True, kw_only=True):
    """``wakeups/{app}/{instance}``: ask the update service again now."""

    why: str
