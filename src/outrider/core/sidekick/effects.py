"""What a sidekick may do to the world. Imperative, frozen, complete: a performer needs nothing but the effect.

The noun before the dot names its worker; effects on one noun are performed in order, and each may be repeated
safely. An effect with an ``answered_by`` is answered by an event with the request's number; the others are never
waited for. Each noun has a union of its effects; the worker of the noun closes its ``match`` over it, so that mypy
names an effect without a worker.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, get_args

from outrider.core.release import ReleaseId
from outrider.core.sidekick import events as said
from outrider.core.sidekick.memory import Fault, Installed, Release, Turn
from outrider.core.tasks import TaskSpec

Answers = tuple[type[said.Event], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Something to be done.

    Attributes:
        answered_by: The events that say how it went; a state that starts it listens to each of them. Not among them:
            that there was no answer (``lock.failed`` and its like), for which the state's deadline is there. Empty for
            an effect that is never waited for.
    """

    name: ClassVar[str]
    answered_by: ClassVar[Answers]


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireLock(Effect):
    """Queue for a turn.

    Attributes:
        version: Label of the release.
        key: The release as a part of a key; empty: the label is it.
        target_revision: The target, the group's brake and the update service's grant must be unchanged when the turn
            is taken. -1 leaves all three out: an operator's way back, or an update service of another make.
        tasks: Keys with revisions that must be unchanged, too: the tasks that are done before any swap.
        first_start: The release, when nothing ran here before: that it may run is recorded with the turn.
    """

    name: ClassVar[str] = "lock.acquire"
    answered_by: ClassVar[Answers] = (said.LockAcquired, said.LockRefused)
    update: str
    version: str
    slots: int
    target_revision: int
    key: str = ""
    first_start: Release | None = None
    tasks: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimLock(Effect):
    """Make our own turn valid again after a restart; refused when it isn't ours any more."""

    name: ClassVar[str] = "lock.reclaim"
    answered_by: ClassVar[Answers] = (said.LockAcquired, said.LockRefused)
    turn: Turn | None
    update: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetakeLock(Effect):
    """Have a valid turn again, to roll back or to leave: our own if it is still there, else queue for a new one.

    Attributes:
        removal_revision: Of etcd, at which it was said that the instance leaves for good; None: it doesn't. When it was
            admitted since, the answer is ``identity.admitted``.
    """

    name: ClassVar[str] = "lock.retake"
    answered_by: ClassVar[Answers] = (said.LockAcquired,)
    turn: Turn | None
    update: str
    version: str
    slots: int
    removal_revision: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseLock(Effect):
    """Give back slot and place in the queue, whatever of them is there.

    Attributes:
        committed: What was committed under the turn, to be recorded before it ends; None when nothing was.
        left: What it has replaced, when that couldn't be stopped: it may still run.
        given_up: A first start that came to nothing: it runs no more.
    """

    name: ClassVar[str] = "lock.release"
    answered_by: ClassVar[Answers] = (said.LockReleased,)
    turn: Turn | None
    update: str
    committed: Release | None = None
    left: Release | None = None
    given_up: Release | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProveLock(Effect):
    """Record that this instance has committed the release, unless another one has before: from now on nobody blocks it.

    It is recorded, too, that it may run here.
    As soon as possible after the commit. ``lock.release`` makes sure of it.
    """

    name: ClassVar[str] = "lock.prove"
    answered_by: ClassVar[Answers] = ()
    committed: Release | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspendLock(Effect):
    """Let our turn show as dirty: leave the queue, keep the slot. Answered only when an operator has freed the turn."""

    name: ClassVar[str] = "lock.suspend"
    answered_by: ClassVar[Answers] = (said.LockReleased,)
    update: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResignLock(Effect):
    """Remove what etcd has of this instance, and leave the marker that it is gone, with the end of the turn.

    Refused when the turn has ended: an operator took it away, and without it nothing is removed. Nor is it once the
    instance was admitted: then it had gone before, and is to come back.

    Attributes:
        update: Also the id of the removal, for the marker.
        at: When it was said that it goes; for the marker, as ``by``.
        by: Who said it.
        removal_revision: As in ``lock.retake``.
    """

    name: ClassVar[str] = "lock.resign"
    answered_by: ClassVar[Answers] = (said.LockReleased, said.LockRefused, said.IdentityAdmitted)
    turn: Turn | None
    update: str
    at: datetime
    by: str
    removal_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLock(Effect):
    """Block the release for the fleet and give the turn back, in one transaction.

    A release that an instance has committed is not blocked; the turn ends all the same. ``given_up``: as in
    ``lock.release``.
    """

    name: ClassVar[str] = "lock.block"
    answered_by: ClassVar[Answers] = (said.LockReleased,)
    turn: Turn | None
    update: str
    version: str
    sha256: str
    cause: str
    release: ReleaseId | None = None
    given_up: Release | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureWorkload(Effect):
    """What should run, runs: found, or started again."""

    name: ClassVar[str] = "workload.ensure"
    answered_by: ClassVar[Answers] = (said.WorkloadStarted, said.WorkloadAbsent)
    installed: Installed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TidyWorkload(Effect):
    """Stop and remove all workloads but ``keep``: what should run serves, so the others are not needed."""

    name: ClassVar[str] = "workload.tidy"
    answered_by: ClassVar[Answers] = ()
    keep: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorkload(Effect):
    """Start the candidate beside what runs."""

    name: ClassVar[str] = "workload.start"
    answered_by: ClassVar[Answers] = (said.WorkloadStarted,)
    installed: Installed


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceWorkload(Effect):
    """Stop what runs, then start the candidate in its place."""

    name: ClassVar[str] = "workload.replace"
    answered_by: ClassVar[Answers] = (said.WorkloadStarted,)
    old: Installed | None
    new: Installed


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertWorkload(Effect):
    """Stop the candidate, and start (or find) what ran before. With no ``old``: only stop."""

    name: ClassVar[str] = "workload.revert"
    answered_by: ClassVar[Answers] = (said.WorkloadStarted, said.WorkloadAbsent)
    old: Installed | None
    new: Installed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireWorkload(Effect):
    """Stop what was replaced, and tidy up. ``needed``: what runs and where a rollback would go: payloads that stay."""

    name: ClassVar[str] = "workload.retire"
    answered_by: ClassVar[Answers] = (said.WorkloadRetired,)
    installed: Installed | None
    needed: tuple[Release, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveWorkload(Effect):
    """Stop the candidate and remove what was unpacked for it."""

    name: ClassVar[str] = "workload.remove"
    answered_by: ClassVar[Answers] = (said.WorkloadRemoved,)
    installed: Installed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartWorkload(Effect):
    """After a restart in mid-swap: start again whatever the balancer may be sending to."""

    name: ClassVar[str] = "workload.restart"
    answered_by: ClassVar[Answers] = ()
    installed: tuple[Installed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartProbe(Effect):
    """Prove the candidate healthy: enough good answers in a row before the deadline."""

    name: ClassVar[str] = "probe.start"
    answered_by: ClassVar[Answers] = (said.ProbePassed, said.ProbeFailed)
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmProbe(Effect):
    """The same for what runs, or should."""

    name: ClassVar[str] = "probe.confirm"
    answered_by: ClassVar[Answers] = (said.ProbePassed, said.ProbeFailed)
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchProbe(Effect):
    """Watch a workload's health; only bad news is answered."""

    name: ClassVar[str] = "probe.watch"
    answered_by: ClassVar[Answers] = (said.ProbeFailed,)
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopProbe(Effect):
    """End all health checks."""

    name: ClassVar[str] = "probe.stop"
    answered_by: ClassVar[Answers] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAnalysis(Effect):
    """Ask the operator's checks of the candidate, and compare it with the old version, until both have decided.

    Attributes:
        release: Label of the candidate.
    """

    name: ClassVar[str] = "analysis.start"
    answered_by: ClassVar[Answers] = (said.AnalysisPassed, said.AnalysisFailed, said.AnalysisUndecided)
    url: str
    version: str
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAnalysis(Effect):
    """Analyse no more."""

    name: ClassVar[str] = "analysis.stop"
    answered_by: ClassVar[Answers] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchBalancer(Effect):
    """Overwrite the server's entry: new in, old out, one fenced transaction."""

    name: ClassVar[str] = "balancer.switch"
    answered_by: ClassVar[Answers] = (said.BalancerSwitched,)
    url: str
    turn: Turn | None
    workload: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveBalancer(Effect):
    """Take the server's entry out, fenced."""

    name: ClassVar[str] = "balancer.leave"
    answered_by: ClassVar[Answers] = (said.BalancerLeft,)
    turn: Turn | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinBalancer(Effect):
    """Put the candidate's entry in after it took the old one's place; coming back needs no fence."""

    name: ClassVar[str] = "balancer.join"
    answered_by: ClassVar[Answers] = (said.BalancerJoined,)
    url: str
    replacing: tuple[str, ...]
    workload: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnBalancer(Effect):
    """Put the entry of what runs in; coming back needs no fence. ``url`` None: nothing runs, nothing to do.

    ``replacing``: our own former addresses; in an entry without a known owner any other is somebody else's and stays.
    """

    name: ClassVar[str] = "balancer.return"
    answered_by: ClassVar[Answers] = (said.BalancerJoined,)
    url: str | None
    replacing: tuple[str, ...]
    workload: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreBalancer(Effect):
    """Put the old address back (None: there was none), fenced."""

    name: ClassVar[str] = "balancer.restore"
    answered_by: ClassVar[Answers] = (said.BalancerRestored,)
    url: str | None
    turn: Turn | None
    workload: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainBalancer(Effect):
    """Wait until the balancer sends to ``present`` and nothing to ``absent``, and ``absent`` has no request open."""

    name: ClassVar[str] = "balancer.drain"
    answered_by: ClassVar[Answers] = (said.BalancerDrained, said.BalancerUnmoved)
    present: str | None
    absent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UndrainBalancer(Effect):
    """The same in a rollback: away from the candidate."""

    name: ClassVar[str] = "balancer.undrain"
    answered_by: ClassVar[Answers] = (said.BalancerDrained, said.BalancerUnmoved)
    present: str | None
    absent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRelease(Effect):
    """Ask the update service. ``release``: what runs; None where the version says all."""

    name: ClassVar[str] = "release.check"
    answered_by: ClassVar[Answers] = (said.ReleaseFound, said.ReleaseMissing)
    version: str
    previous_version: str
    release: ReleaseId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadRelease(Effect):
    """Fetch the payload, or the rest of it."""

    name: ClassVar[str] = "release.download"
    answered_by: ClassVar[Answers] = (said.ReleaseDownloaded,)
    release: Release


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRelease(Effect):
    """Prove what was downloaded.

    Attributes:
        needed: It, what runs and what ran before: payloads that stay.
        minimum, keys: As ``Memory``.
    """

    name: ClassVar[str] = "release.verify"
    answered_by: ClassVar[Answers] = (said.ReleaseVerified,)
    release: Release
    needed: tuple[Release, ...] = ()
    minimum: str = ""
    keys: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonRelease(Effect):
    """End a download that is under way; what is on disk stays for the next try."""

    name: ClassVar[str] = "release.abandon"
    answered_by: ClassVar[Answers] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTask(Effect):
    """Have all tasks done that must run once before a swap: run what nobody has claimed, wait for the others.

    Attributes:
        target_revision: As in ``lock.acquire``; a claim compares the target, the brake and the grant.
    """

    name: ClassVar[str] = "task.run"
    answered_by: ClassVar[Answers] = (said.TaskFinished, said.TaskFailed)
    release: Release
    tasks: tuple[TaskSpec, ...]
    target_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveTask(Effect):
    """Wait for no task any more. One that runs here goes on to its end, and its result is written."""

    name: ClassVar[str] = "task.leave"
    answered_by: ClassVar[Answers] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDownloading(Effect):
    """Tell the update service that the download has begun."""

    name: ClassVar[str] = "report.downloading"
    answered_by: ClassVar[Answers] = ()
    update: str
    version: str
    next_version: str
    running: ReleaseId | None = None
    release: ReleaseId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDownloaded(Effect):
    """Tell the update service that the payload is on disk."""

    name: ClassVar[str] = "report.downloaded"
    answered_by: ClassVar[Answers] = ()
    update: str
    version: str
    next_version: str
    running: ReleaseId | None = None
    release: ReleaseId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportQueueing(Effect):
    """Installed on disk, not completed: the instance waits for its turn."""

    name: ClassVar[str] = "report.queueing"
    answered_by: ClassVar[Answers] = ()
    update: str
    version: str
    next_version: str
    running: ReleaseId | None = None
    release: ReleaseId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportResult(Effect):
    """How the update ended; ``fault`` None means well. ``release``: what it led, or was to lead to."""

    name: ClassVar[str] = "report.result"
    answered_by: ClassVar[Answers] = (said.ReportQueued,)
    update: str
    version: str
    previous_version: str
    next_version: str
    fault: Fault | None
    running: ReleaseId | None = None
    release: ReleaseId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseAlarm(Effect):
    """A person must look; the chart tries on meanwhile."""

    name: ClassVar[str] = "sidekick.alarm"
    answered_by: ClassVar[Answers] = ()
    cause: str


LockEffect = AcquireLock | ReclaimLock | RetakeLock | ReleaseLock | ProveLock | SuspendLock | BlockLock | ResignLock
WorkloadEffect = (
    EnsureWorkload
    | TidyWorkload
    | StartWorkload
    | ReplaceWorkload
    | RevertWorkload
    | RetireWorkload
    | RemoveWorkload
    | RestartWorkload
)
ProbeEffect = StartProbe | ConfirmProbe | WatchProbe | StopProbe
AnalysisEffect = StartAnalysis | StopAnalysis
BalancerEffect = (
    SwitchBalancer | LeaveBalancer | JoinBalancer | ReturnBalancer | RestoreBalancer | DrainBalancer | UndrainBalancer
)
ReleaseEffect = CheckRelease | DownloadRelease | VerifyRelease | AbandonRelease
TaskEffect = RunTask | LeaveTask
ReportEffect = ReportDownloading | ReportDownloaded | ReportQueueing | ReportResult
SidekickEffect = RaiseAlarm
AnyEffect = (
    LockEffect
    | WorkloadEffect
    | ProbeEffect
    | AnalysisEffect
    | BalancerEffect
    | ReleaseEffect
    | TaskEffect
    | ReportEffect
    | SidekickEffect
)

NOUNS: Mapping[str, frozenset[type[Effect]]] = {
    "lock": frozenset(get_args(LockEffect)),
    "workload": frozenset(get_args(WorkloadEffect)),
    "probe": frozenset(get_args(ProbeEffect)),
    "analysis": frozenset(get_args(AnalysisEffect)),
    "balancer": frozenset(get_args(BalancerEffect)),
    "release": frozenset(get_args(ReleaseEffect)),
    "task": frozenset(get_args(TaskEffect)),
    "report": frozenset(get_args(ReportEffect)),
    "sidekick": frozenset({SidekickEffect}),
}
"""What begins an effect's name -> the effects of its worker."""

EFFECT_TYPES: Mapping[str, type[Effect]] = {kind.name: kind for kind in get_args(AnyEffect)}
ANSWERED = frozenset(name for name, kind in EFFECT_TYPES.items() if kind.answered_by)
