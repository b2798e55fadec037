"""Which process is ours: pid and start time together, on one boot; a pid alone is given to others later.

Source: proc(5), pidfd_open(2).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process as /proc shows it.

    Attributes:
        started: Start time in clock ticks since boot; with ``pid`` it is unique on this boot.
        parent: Its parent's pid.
        group, session: Process group and session; the leader's pid equals both.
        zombie: It has ended and waits for its parent to read the status.
    """

    pid: int
    started: int
    parent: int
    group: int
    session: int
    zombie: bool


@cache
def boot_id() -> str:
    """The kernel's random id of this boot: pids and start times of another one say nothing."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def look_at(pid: int) -> Process | None:
    """The process with this pid now, zombies included; None when there is none."""
    try:
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses and may hold blanks and parentheses itself.
    rest = stat.rpartition(")")[2].split()
    return Process(
        pid=pid,
        started=int(rest[19]),
        parent=int(rest[1]),
        group=int(rest[2]),
        session=int(rest[3]),
        zombie=rest[0] in ("Z", "X"),
    )


def is_running(pid: int, started: int) -> bool:
    """Whether the very process that was started then still runs."""
    found = look_at(pid)
    return found is not None and found.started == started and not found.zombie


@contextmanager
def open_process(pid: int, started: int) -> Iterator[int | None]:
    """A pidfd of that very process, None when it is gone; the pidfd becomes readable when it ends."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # Looked at after opening: what the pidfd holds can't have been replaced in between.
        found = look_at(pid)
        yield pidfd if found is not None and found.started == started else None
    finally:
        os.close(pidfd)


def processes(*, zombies: bool = False) -> Iterator[Process]:
    """All processes that run now; with ``zombies`` also those that have ended and wait for their parent."""
    for entry in os.listdir(PROC):
        process = look_at(int(entry)) if entry.isdigit() else None
        if process is not None and (zombies or not process.zombie):
            yield process


def environment_of(process: Process) -> Mapping[str, str]:
    """What the process was started with; empty when it has ended, or when another user owns it."""
    try:
        content = (PROC / str(process.pid) / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    pairs = (part.partition(b"=") for part in content.split(b"\0") if part)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def marked(variables: Mapping[str, str]) -> tuple[Process, ...]:
    """All running processes that have these variables in their environment, oldest first.

    Children inherit the environment, so a workload's own children are among them.
    """
    found = (each for each in processes() if variables.items() <= environment_of(each).items())
    return tuple(sorted(found, key=lambda process: (process.started, process.pid)))
