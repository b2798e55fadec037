"""Runtimes: how one version of the app is run beside another on this machine. ``drivers`` lists them.

A *workload* is one started version, named by ``workload_id``, which the sidekick chooses and journals *before* it
asks for the start: whatever happens in between, the workload is found again under that name. Every call is
idempotent, ends within a deadline, and reports through ``DriverError``, ``Refused`` and ``Unknown``.
``tests/contracts/test_runtimes.py`` holds all of them to the same promises.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from outrider.core.blame import Evidence
from outrider.core.images import PayloadKind

TASK = "OUTRIDER_TASK"
"""Variable that marks what the sidekick itself runs, a probe's command for example: it belongs to no workload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnableRelease:
    """A release whose payload is on this machine and proved.

    Attributes:
        version: Told to the app in its environment.
        sha256: Of the payload, 64 lower-case hex digits: what is prepared for a release goes by it.
        payload: The verified payload on disk.
    """

    version: str
    sha256: str
    payload: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a release's environment adds to what the settings say of the app. Its values may be secrets.

    Attributes:
        variables: Over ``[workload] env``, below what the runtime sets itself.
        arguments: Behind those of the app's command.
    """

    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """What to start.

    Attributes:
        workload_id: Lower-case name, unique on this machine, chosen by the caller.
    """

    workload_id: str
    release: RunnableRelease
    given: Given = field(default_factory=Given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What runs.

    Attributes:
        url: Where it answers, ``http://host:port`` without a slash at the end.
        handle: The runtime's own name for it (``pid 4711``, a container id, a unit), for people.
        sha256: Of the payload that it was started from; empty when that isn't known any more.
        order: Of two workloads, the one with the smaller number was started first.
        kind: What its payload is.
    """

    workload_id: str
    version: str
    url: str
    handle: str
    sha256: str = field(default="", compare=False)
    order: int = field(default=0, compare=False)
    kind: PayloadKind = field(default="archive", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A workload ended.

    Attributes:
        status: For people: ``exit 3``, ``signal 9``, ``gone``.
        more: What belongs behind it: its last words, and what was found out.
        evidence: What the runtime found out about it, if the workload had not served yet (see ``runtimes.endings``).
        after_serving: The same, if it had; None: no difference.
    """

    workload_id: str
    status: str
    more: str = field(default="", compare=False)
    evidence: Evidence = field(default="ended", compare=False)
    after_serving: Evidence | None = field(default=None, compare=False)


class ExitWatch(Protocol):
    """A running look-out for a workload's end."""

    def close(self) -> None:
        """Stop looking; nothing is delivered after it returns. Safe to call twice."""


class Runtime(Protocol):
    """Starts, finds and ends workloads.

    ``prepare`` and ``prune`` may be called by another thread than the rest.

    Attributes:
        name: As in the configuration.
        kinds: What payloads it runs. Others are refused before anything is fetched.
    """

    name: str
    kinds: frozenset[PayloadKind]

    def prepare(self, release: RunnableRelease) -> None:
        """Do ahead of ``start`` whatever takes long and needs no turn: unpack, pull, see whether there is room.

        May be repeated: what is prepared already stays. Nothing runs because of it.

        Raises:
            Refused: the payload is bad: the release's fault. Only ``start`` proves that under a turn.
            DriverError: this machine can't do it now (no room, no permission).
        """

    def start(self, spec: WorkloadSpec) -> Workload:
        """Start it, or adopt it when it runs already under that id (never a second copy).

        Takes what was prepared for the release, and prepares it when that is missing. Returns as soon as it was
        started and not yet proved healthy.

        Raises:
            Refused: the payload is bad (unsafe archive, command missing, exits at once): the release's fault.
            DriverError: this machine can't do it now (no port, no memory, disk full).
        """

    def find(self, workload_id: str) -> Workload | None:
        """The workload if it runs, also when another sidekick process started it; None when it doesn't run."""

    def running(self) -> tuple[Workload, ...]:
        """All workloads of this instance that run, by id."""

    def stop(self, workload_id: str, grace_s: float) -> None:
        """End it: SIGTERM, up to ``grace_s`` seconds, then KILL. What doesn't run is stopped already."""

    def remove(self, workload_id: str) -> None:
        """Stop it if it runs, and remove what was unpacked for it. The payload itself stays."""

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> ExitWatch:
        """Call ``deliver`` once, from another thread, when the workload ends; at once when it doesn't run."""

    def prune(self, needed: Collection[str]) -> None:
        """Remove what was prepared for releases other than ``needed`` (SHA-256s). Workloads stay.

        What can't be removed stays: it is tried again the next time.
        """

    def close(self) -> None:
        """Let go of threads and connections. The workloads go on running."""


@runtime_checkable
class Fetcher(Protocol):
    """A runtime whose payloads only name what to run: it fetches that itself, while the release is downloaded."""

    def fetch(self, release: RunnableRelease, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Bring what the payload names onto this machine, outside any turn; nothing when it is here already.

        Args:
            release: Its payload is on disk and not proved yet.
            on_progress: Called from another thread with the bytes that are here and those of all of it.

        Raises:
            PayloadError: it isn't to be had now, or ``download.deadline_s`` is over.
        """

    def cancel_fetch(self) -> None:
        """End the fetch that is under way, if any; nothing is told after this returns. Any thread may call it."""


@runtime_checkable
class Restarter(Protocol):
    """A runtime with workloads that it can start again without a payload: those that were adopted."""

    def restart(self, workload_id: str) -> Workload | None:
        """Start it again if it is such a workload; None: it isn't.

        Raises:
            DriverError: it can't be started again.
        """


@runtime_checkable
class HealthReporter(Protocol):
    """A runtime that knows whether its workloads are well."""

    def health(self, url: str) -> str:
        """What ails the workload that answers at ``url``; empty when it is well.

        Raises:
            DriverError: nobody can say.
        """

    def trouble(self) -> str:
        """What ails the runtime itself, so that a workload's bad health is no verdict on it; empty when nothing."""
