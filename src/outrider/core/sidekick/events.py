"""What can happen to a sidekick. Past tense, frozen, plain values: they are written to the journal as they are.

Three kinds: *news* from the world (unasked), *answers* to an effect (with the request they answer), and timers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from outrider.core.blame import Evidence
from outrider.core.images import PayloadKind
from outrider.core.omaha.events import FailureCode
from outrider.core.sidekick.memory import Turn
from outrider.core.sidekick.raised import Event as Event
from outrider.core.sidekick.raised import ReleaseCommitted as ReleaseCommitted
from outrider.core.sidekick.raised import SidekickSettled as SidekickSettled
from outrider.core.sidekick.raised import UpdateEnded as UpdateEnded
from outrider.core.sidekick.raised import UpdateExposed as UpdateExposed
from outrider.core.sidekick.raised import UpdateFailed as UpdateFailed
from outrider.core.sidekick.raised import UpdateJudged as UpdateJudged
from outrider.core.tasks import TaskSpec

TIMERS = frozenset(
    {
        "analysis.expired",
        "check.expired", "block.expired", "download.expired", "drain.expired", "ensure.expired", "fetch.due",
        "drained.expired", "overdue.expired", "resign.expired",
        "giveback.expired", "join.expired", "leave.expired", "poll.due", "probe.expired", "prove.expired",
        "queue.expired", "quit.expired", "ready.expired", "reclaim.expired", "rejoin.expired", "release.expired",
        "relock.expired",
        "remove.expired", "replace.expired", "report.expired", "reprobe.expired", "restore.expired",
        "retire.expired", "retry.due", "revert.expired", "restart.due", "soak.due", "start.expired", "switch.due",
        "switch.expired", "undrain.expired", "verify.expired", "wake.expired", "withdraw.expired",
    }
)  # fmt: skip
"""Names of the events that timers of the chart send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerExpired:
    """A timer of the chart ran out. ``name`` is one of ``TIMERS``; an old generation is dropped by the machine."""

    final: ClassVar[bool] = True
    name: str
    at: datetime
    generation: int
    request: int | None = None


# --- news -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SidekickRestarted(Event):
    """This process begins where the journal of an earlier one ends."""

    name: ClassVar[str] = "sidekick.restarted"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetChanged(Event):
    """The group's target is this now. ``version`` None: the target is gone, or its channel points at nothing.

    Attributes:
        release: Label of the release, when it says more than the version.
        recorded: Label -> SHA-256 of the payload, of every release that the target lists.
    """

    name: ClassVar[str] = "target.changed"
    version: str | None
    release: str = ""
    recorded: Mapping[str, str] = field(default_factory=dict)
    paused: bool
    slots: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockChanged(Event):
    """These releases of the app are proved bad now: label -> why."""

    name: ClassVar[str] = "block.changed"
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantEnded(Event):
    """The update service has taken its permission to update back, or the time for it is over."""

    name: ClassVar[str] = "grant.ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeupReceived(Event):
    """The update service asks this instance to ask again now."""

    name: ClassVar[str] = "wakeup.received"
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commanded(Event):
    """Base of an operator's words.

    Attributes:
        revision: etcd revision of the command, so that none is obeyed twice.
        command: Its id, for the same; empty when an older service wrote it.
    """

    revision: int = 0
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorPaused(Commanded):
    """Begin no update until resumed; one under way stops at the next safe point."""

    name: ClassVar[str] = "operator.paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorResumed(Commanded):
    """Updates may begin again."""

    name: ClassVar[str] = "operator.resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRolledBack(Commanded):
    """Undo the update under way, or go back to the version before. ``update`` is a fresh id for the latter.

    Attributes:
        version: Go back to this one and no other; empty when the operator named none.
    """

    name: ClassVar[str] = "operator.rolled_back"
    update: str
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRetried(Commanded):
    """Forget back-off and refusals, and ask again now."""

    name: ClassVar[str] = "operator.retried"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorDrained(Commanded):
    """Leave the balancer under a turn, and stay out.

    Attributes:
        update: A fresh id, for the turn.
        for_s: After so many seconds a person must look.
        until_reboot: Come back by itself after the machine's next boot.
    """

    name: ClassVar[str] = "operator.drained"
    update: str
    for_s: float = 1800.0
    until_reboot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorUndrained(Commanded):
    """Come back into the balancer."""

    name: ClassVar[str] = "operator.undrained"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorDecommissioned(Commanded):
    """Leave for good: drain, stop the app, remove everything in etcd. ``update``: a fresh id, for the turn."""

    name: ClassVar[str] = "operator.decommissioned"
    update: str
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockLost(Event):
    """The lease behind the turn and the queue can no longer be trusted."""

    name: ClassVar[str] = "lock.lost"
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadExited(Event):
    """A workload ended by itself.

    Attributes:
        status: How, and what was found out about it, for people.
        evidence: What was found out, if the workload had not served yet.
        after_serving: The same, if it had: then a full disk or a taken port is no reason. None: no difference.
    """

    name: ClassVar[str] = "workload.exited"
    workload_id: str
    status: str
    evidence: Evidence = "ended"
    after_serving: Evidence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerChanged(Event):
    """The server's entry is this now, whoever wrote it.

    Attributes:
        url: None: it isn't there.
        revision: etcd revision at which it was so.
        restored: etcd was restored: revisions that were known before count for nothing.
    """

    name: ClassVar[str] = "balancer.changed"
    url: str | None
    revision: int
    restored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRefused(Event):
    """This sidekick may not be the instance that its settings say: another one is, or the instance is gone for good."""

    name: ClassVar[str] = "identity.refused"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityAccepted(Event):
    """etcd knows this sidekick as its instance, and no other."""

    name: ClassVar[str] = "identity.accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityAdmitted(Event):
    """An operator let the instance back after it had gone, and that word is later than the one to leave for good.

    The turn that the leaving had is given back.
    """

    name: ClassVar[str] = "identity.admitted"


# --- answers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFound(Event):
    """The update service grants this release. ``update`` is a fresh id, made by the client.

    Attributes:
        environment, environment_digest: As ``memory.Release``.
        release_generation: The release's; ``generation`` is what the machine knows timers by.
    """

    name: ClassVar[str] = "release.found"
    version: str
    urls: tuple[str, ...]
    sha256: str
    size_bytes: int
    update: str
    kind: PayloadKind = "archive"
    environment: int = 0
    environment_digest: str = ""
    release_generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseMissing(Event):
    """There is nothing for us now; ``reason`` says why when the service told.

    Attributes:
        poll_interval_s: When the service wants to be asked again, seconds; 0 when it didn't say.
    """

    name: ClassVar[str] = "release.missing"
    reason: str = ""
    poll_interval_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseProgressed(Event):
    """Part of the payload is on disk."""

    name: ClassVar[str] = "release.progressed"
    final: ClassVar[bool] = False
    done_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDownloaded(Event):
    """The whole payload is on disk, not yet verified."""

    name: ClassVar[str] = "release.downloaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseVerified(Event):
    """Size and SHA-256 of the payload on disk are what was promised, and its signatures are what this machine asks for.

    Attributes:
        tasks: What must run before a swap.
        minimum: No older version may run from now on, as signatures say; empty: they say nothing.
        keys: Name of the keys that counted; empty: none were asked for.
    """

    name: ClassVar[str] = "release.verified"
    tasks: tuple[TaskSpec, ...] = ()
    minimum: str = ""
    keys: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFailed(Event):
    """Asking, downloading or verifying failed.

    Attributes:
        evidence: What was found out about it.
        error_code: What the update service is told if the update is given up over it.
        retry_after_s: Least pause that the service asked for, seconds; 0 when it didn't.
        refused: Label of what was offered and isn't what etcd records; empty: it wasn't that.
    """

    name: ClassVar[str] = "release.failed"
    cause: str
    error_code: FailureCode
    evidence: Evidence = "unknown"
    retry_after_s: float = 0.0
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockQueued(Event):
    """Where we stand in the queue. ``held``: the disruption budget that holds us, for a person; empty: none does."""

    name: ClassVar[str] = "lock.queued"
    final: ClassVar[bool] = False
    rank: int
    ahead: str | None
    holders: tuple[str, ...]
    held: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockAcquired(Event):
    """etcd granted the turn, or gave us back our own."""

    name: ClassVar[str] = "lock.acquired"
    turn: Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRefused(Event):
    """No turn: the release is blocked or no longer the target, or the turn to be reclaimed is another's.

    Attributes:
        recalled: The update may no longer begin: the service took its permission back, or the release is blocked.
    """

    name: ClassVar[str] = "lock.refused"
    cause: str
    recalled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LockReleased(Event):
    """Nothing of ours is left in the scope: neither slot nor place in the queue.

    Attributes:
        proved_by: The instance that has committed the release, so that it was not blocked; empty otherwise.
    """

    name: ClassVar[str] = "lock.released"
    proved_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockFailed(Event):
    """No answer from etcd; the timer tries again."""

    name: ClassVar[str] = "lock.failed"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadStarted(Event):
    """It runs (or ran already), not yet proved healthy."""

    name: ClassVar[str] = "workload.started"
    workload_id: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadAbsent(Event):
    """There is nothing to run: no version was ever installed here."""

    name: ClassVar[str] = "workload.absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadFailed(Event):
    """The runtime couldn't. ``evidence``: what was found out about it."""

    name: ClassVar[str] = "workload.failed"
    cause: str
    evidence: Evidence = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRetired(Event):
    """The replaced workload is stopped."""

    name: ClassVar[str] = "workload.retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRemoved(Event):
    """The candidate is stopped and what was unpacked for it is gone."""

    name: ClassVar[str] = "workload.removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePassed(Event):
    """The workload at ``url`` proved healthy."""

    name: ClassVar[str] = "probe.passed"
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailed(Event):
    """It didn't prove healthy. ``evidence``: what was found out about it."""

    name: ClassVar[str] = "probe.failed"
    cause: str
    evidence: Evidence = "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisSampled(Event):
    """How far the analysis is, in words: ``12 of about 400 requests``."""

    name: ClassVar[str] = "analysis.sampled"
    final: ClassVar[bool] = False
    sample: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPassed(Event):
    """All checks have passed, and the comparison, too. ``sample``: what that was seen by."""

    name: ClassVar[str] = "analysis.passed"
    sample: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisFailed(Event):
    """A check has failed, or the candidate is worse than the old version."""

    name: ClassVar[str] = "analysis.failed"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisUndecided(Event):
    """Nothing failed, and at the deadline not everything had passed: too few requests, or no data."""

    name: ClassVar[str] = "analysis.undecided"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerSwitched(Event):
    """The server's entry now names the candidate: ``url``. ``revision``: of that write, 0 when there is none."""

    name: ClassVar[str] = "balancer.switched"
    url: str | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerLeft(Event):
    """The server's entry is gone."""

    name: ClassVar[str] = "balancer.left"
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerJoined(Event):
    """The server's entry names what serves here: ``url``."""

    name: ClassVar[str] = "balancer.joined"
    url: str | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerRestored(Event):
    """The server's entry is again what it was before the update."""

    name: ClassVar[str] = "balancer.restored"
    url: str | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerDrained(Event):
    """The balancer was seen to send nothing to the old address any more. ``how`` says how we know."""

    name: ClassVar[str] = "balancer.drained"
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerUnmoved(Event):
    """The balancer surely still sends to the address that it should have left."""

    name: ClassVar[str] = "balancer.unmoved"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerRefused(Event):
    """The fence didn't hold, or another's address is in our entry."""

    name: ClassVar[str] = "balancer.refused"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerFailed(Event):
    """No answer: it may or may not have been written."""

    name: ClassVar[str] = "balancer.failed"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFinished(Event):
    """All tasks that must run before a swap are done. ``done``: key and etcd revision of each."""

    name: ClassVar[str] = "task.finished"
    done: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed(Event):
    """One of them has failed, or can't be run here. ``evidence``: what was found out about it."""

    name: ClassVar[str] = "task.failed"
    cause: str
    evidence: Evidence = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProgressed(Event):
    """What is known of the task that is waited for, for a person."""

    name: ClassVar[str] = "task.progressed"
    final: ClassVar[bool] = False
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportQueued(Event):
    """The result is in the outbox, on disk."""

    name: ClassVar[str] = "report.queued"


AnyEvent = (
    TimerExpired | SidekickRestarted | SidekickSettled | ReleaseCommitted | UpdateExposed | UpdateFailed
    | UpdateJudged | UpdateEnded | TargetChanged | BlockChanged | GrantEnded | WakeupReceived | OperatorPaused
    | OperatorResumed | OperatorRolledBack | OperatorRetried | OperatorDrained | OperatorUndrained
    | OperatorDecommissioned | LockLost | WorkloadExited | BalancerChanged | IdentityRefused
    | IdentityAccepted | IdentityAdmitted | ReleaseFound | ReleaseMissing
    | ReleaseProgressed | ReleaseDownloaded | ReleaseVerified | ReleaseFailed | LockQueued | LockAcquired
    | LockRefused | LockReleased | LockFailed | WorkloadStarted | WorkloadAbsent | WorkloadFailed | WorkloadRetired
    | WorkloadRemoved | ProbePassed | ProbeFailed | AnalysisSampled | AnalysisPassed | AnalysisFailed
    | AnalysisUndecided | BalancerSwitched | BalancerLeft | BalancerJoined
    | BalancerRestored | BalancerDrained | BalancerUnmoved | BalancerRefused | BalancerFailed | ReportQueued
    | TaskFinished | TaskFailed | TaskProgressed
)  # fmt: skip
