"""Which process a sidekick is: so that two with the same settings are told apart, and one that restarts isn't two."""

import hashlib
import secrets
import socket
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from outrider.core.sidekick.memory import Memory
from outrider.journal.journal import Record

KEPT_PREDECESSORS = 8
"""Of a sidekick that is killed again and again before it could write its presence."""
SECRET_BYTES = 32
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One process of a sidekick.

    Attributes:
        process: Made anew at each start.
        machine: Name of the host, for people.
        home: The machine's boot and the folder of the state: two processes with the same home never live at the same
            time, for the journal in that folder is locked.
        predecessors: Processes with the same home that ran before, the newest last.
        secret: Of this process, 32 random bytes in base64; it is nowhere but in this process's memory, and proves to
            the update service who checks in.
    """

    process: str
    machine: str
    home: str
    predecessors: tuple[str, ...] = ()
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(SECRET_BYTES), repr=False)

    @property
    def secret_sha256(self) -> str:
        """What the presence says of the secret, 64 lower-case hex digits."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def identity_of(state_dir: Path, last: Record | None) -> Identity:
    """A new identity; ``last`` is the last record of the journal in ``state_dir``, which exists and is locked.

    A copied folder, or a cloned machine, has another home: its journal names processes that may live.
    """
    folder = state_dir.stat()
    home = f"{boot_id()}:{folder.st_dev}:{folder.st_ino}"
    predecessors: tuple[str, ...] = ()
    if last is not None:
        before = msgspec.convert(last.memory, type=Memory)
        if before.home == home:
            predecessors = (*before.predecessors, before.process)[-KEPT_PREDECESSORS:]
    return Identity(process=uuid.uuid4().hex, machine=socket.gethostname(), home=home, predecessors=predecessors)


def boot_id() -> str:
    """Changes with every boot of the machine; empty where the system has none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
