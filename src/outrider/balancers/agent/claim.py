"""An agent's name belongs to one process at a time: its ``applied`` keys, under its lease, are the claim.

A second process with the same name is refused. What an earlier process left behind ends with its lease; where it can be
proved that it has ended (same boot, same process namespace, no such process) its keys are taken over at once.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from outrider.core.errors import OutriderError
from outrider.model.balancer_agents import Applied

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class NameTaken(OutriderError):
    """Another process is the agent of that name."""

    kind: ClassVar[str] = "name-taken"

    @classmethod
    def by(cls, other: Applied) -> "NameTaken":
        """Who is it."""
        process = ProcessId.parse(other.process)
        return cls(
            f"another process is balancer agent {other.name} of {other.service}, on"
            f" {other.machine or 'an unknown host'} (process {process.pid if process else '?'}); give each agent a"
            " --name of its own"
        )


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, for as long as machines live: boot, process namespace, number and start."""

    boot: str
    namespace: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"{self.boot}:{self.namespace}:{self.pid}:{self.started}"

    @classmethod
    def parse(cls, text: str) -> "ProcessId | None":
        """None when it isn't one."""
        parts = text.split(":")
        if len(parts) != 4 or not parts[2].isdigit():
            return None
        return cls(parts[0], parts[1], int(parts[2]), parts[3])

    @classmethod
    def own(cls) -> "ProcessId":
        """Of this process. Parts that can't be read are empty, and then prove nothing."""
        return cls(_text(_BOOT_ID), _namespace(), os.getpid(), started(os.getpid()))

    def surely_ended(self, here: "ProcessId") -> bool:
        """Whether it can be told from ``here``, the process that asks, that this one has ended."""
        if not self.boot or not self.namespace or (self.boot, self.namespace) != (here.boot, here.namespace):
            return False
        return bool(self.started) and started(self.pid) != self.started


def started(pid: int) -> str:
    """When a process was started, in ticks since boot; empty when there is no such process."""
    # the name in brackets may hold anything, blanks and brackets too
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").removeprefix("pid:[").rstrip("]")
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
