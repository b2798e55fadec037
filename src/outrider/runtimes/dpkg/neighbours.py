"""What else of outrider runs on this machine, as its own files tell: the sidekicks' journals and systemd's units.

The journal of a sidekick is locked while it lives, and says which process wrote each step. So it tells, whether or not
etcd answers, who is in a swap, and who has resumed after an installation.
"""

import contextlib
import os
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from outrider.core.errors import DriverError
from outrider.core.sidekick.events import IdentityAccepted
from outrider.journal.journal import SCHEMA, JournalError, Record, read

_LOCKS = Path("/proc/locks")
_SYSTEMD = Path("/run/systemd/system")
_ASK_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A sidekick of this machine, as its journal tells.

    Attributes:
        folder: Its state folder.
        lives: Its process holds the journal.
        process: Id of the process that wrote the last step; empty when the journal doesn't say.
        state: After that step; empty: no step can be read.
        is_accepted: That process has written its presence.
        trouble: Why its journal can't be read; empty when it can.
    """

    folder: Path
    lives: bool
    process: str = ""
    state: str = ""
    is_accepted: bool = False
    trouble: str = ""

    @property
    def is_swapping(self) -> bool:
        """Whether it lives and is between two versions."""
        return self.lives and self.state.partition(".")[0] in ("swapping", "rollback")


def neighbours(folders: Iterable[str], *, own: Path) -> tuple[Neighbour, ...]:
    """The sidekicks with state in ``folders``, but for that of ``own``, by folder."""
    paths = sorted(path for folder in folders for path in Path(folder).glob("*/journal.jsonl") if path.parent != own)
    lockers = _lockers() if paths else {}
    return tuple(_look_at(path, lockers) for path in paths)


def _look_at(journal: Path, lockers: Mapping[int, Collection[int]]) -> Neighbour:
    """What one journal tells; ``lockers``: inode -> processes that hold a lock on such a file."""
    folder = journal.parent
    lives = False
    try:
        found = journal.stat()
        lives = any(_has_open(pid, found) for pid in lockers.get(found.st_ino, ()))
        records = _last_life(journal)
    except (OSError, JournalError) as error:
        return Neighbour(folder=folder, lives=lives, trouble=str(error))
    if not records:
        return Neighbour(folder=folder, lives=lives)
    return Neighbour(
        folder=folder,
        lives=lives,
        process=_process_of(records[-1]),
        state=records[-1].target,
        is_accepted=any(one.event.get("name") == IdentityAccepted.name for one in records),
    )


def _last_life(journal: Path) -> list[Record]:
    """The steps of the process that wrote the last one, as far as they are kept.

    Raises:
        JournalError: it can't be read, or not by this outrider.
    """
    records = read(journal)
    older = journal.with_suffix(".1.jsonl")
    if records and _process_of(records[0]) == _process_of(records[-1]) and older.is_file():
        records = read(older) + records
    if records and records[-1].schema != SCHEMA:
        raise JournalError(f"{journal}: schema {records[-1].schema}, this outrider reads {SCHEMA}")
    return [one for one in records if _process_of(one) == _process_of(records[-1])]


def _process_of(record: Record) -> str:
    return str(record.memory.get("process", ""))


def _lockers() -> dict[int, set[int]]:
    """Inode -> processes that hold a lock on a file with that number; on which disk, /proc/locks doesn't always say."""
    found: dict[int, set[int]] = {}
    for line in _LOCKS.read_text(encoding="ascii").splitlines():
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[3] == "WRITE":
            found.setdefault(int(words[5].rpartition(":")[2]), set()).add(int(words[4]))
    return found


def _has_open(pid: int, file: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), file):
                    return True
    return False


def active_units(patterns: Iterable[str]) -> tuple[str, ...]:
    """Those of the units that run; none where systemd isn't.

    Raises:
        DriverError: systemd doesn't say.
    """
    wanted = tuple(patterns)
    if not wanted or not _SYSTEMD.is_dir():
        return ()
    words = ("systemctl", "list-units", "--plain", "--no-legend", "--full", "--state=active", "--type=service", *wanted)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DriverError(f"systemctl: {error}") from error
    if done.returncode != 0:
        raise DriverError(f"systemctl list-units: exit {done.returncode}; it said: {done.stderr.strip()[:200]}")
    return tuple(sorted(line.split()[0] for line in done.stdout.splitlines() if line.strip()))
