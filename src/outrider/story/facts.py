"""What each event says, in words: the journal's facts for a person."""

from typing import assert_never

from outrider.core.sidekick import effects as do
from outrider.core.sidekick.events import (
    AnalysisFailed,
    AnalysisPassed,
    AnalysisSampled,
    AnalysisUndecided,
    AnyEvent,
    BalancerChanged,
    BalancerDrained,
    BalancerFailed,
    BalancerJoined,
    BalancerLeft,
    BalancerRefused,
    BalancerRestored,
    BalancerSwitched,
    BalancerUnmoved,
    BlockChanged,
    GrantEnded,
    IdentityAccepted,
    IdentityAdmitted,
    IdentityRefused,
    LockAcquired,
    LockFailed,
    LockLost,
    LockQueued,
    LockRefused,
    LockReleased,
    OperatorDecommissioned,
    OperatorDrained,
    OperatorPaused,
    OperatorResumed,
    OperatorRetried,
    OperatorRolledBack,
    OperatorUndrained,
    ProbeFailed,
    ProbePassed,
    ReleaseCommitted,
    ReleaseDownloaded,
    ReleaseFailed,
    ReleaseFound,
    ReleaseMissing,
    ReleaseProgressed,
    ReleaseVerified,
    ReportQueued,
    SidekickRestarted,
    SidekickSettled,
    TargetChanged,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TimerExpired,
    UpdateEnded,
    UpdateExposed,
    UpdateFailed,
    UpdateJudged,
    WakeupReceived,
    WorkloadAbsent,
    WorkloadExited,
    WorkloadFailed,
    WorkloadRemoved,
    WorkloadRetired,
    WorkloadStarted,
)
from outrider.core.sidekick.memory import Installed, Memory

KILOBYTE, MEGABYTE = 1_000, 1_000_000


def version_of(installed: Installed | None) -> str:
    """The version, or ``nothing``."""
    return installed.release.label if installed is not None else "nothing"


def fact(event: AnyEvent, effect_name: str, before: Memory) -> str:
    """What ``event`` says.

    Args:
        effect_name: The effect that it answers; empty for news and timers.
        before: The memory when it came.
    """
    match event:
        case TargetChanged() | BlockChanged() | GrantEnded() | WakeupReceived():
            return _announced(event, before)
        case OperatorPaused():
            return "an operator paused the instance"
        case OperatorResumed():
            return "an operator resumed the instance"
        case OperatorRolledBack():
            return "an operator rolled the instance back"
        case OperatorDrained():
            return "an operator drains the instance"
        case OperatorUndrained():
            return "an operator lets the instance back into the balancer"
        case OperatorDecommissioned():
            return "an operator removes the instance for good"
        case OperatorRetried():
            return "an operator requested a retry"
        case ReleaseFound() | ReleaseMissing() | ReleaseProgressed() | ReleaseDownloaded() | ReleaseVerified():
            return _release(event, before)
        case LockQueued() | LockAcquired() | LockRefused() | LockReleased() | LockLost() | LockFailed():
            return _lock(event, effect_name, before)
        case WorkloadStarted() | WorkloadAbsent() | WorkloadRetired() | WorkloadRemoved() | WorkloadExited():
            return _workload(event, before)
        case ProbePassed():
            return f"{_version_at(event.url, before)} is healthy"
        case ProbeFailed():
            return f"health check: {event.cause}"
        case BalancerSwitched():
            return f"the balancer's entry names {version_of(before.candidate)} now"
        case BalancerJoined():
            joined = before.candidate if effect_name == do.JoinBalancer.name else before.running
            return f"the balancer's entry names {version_of(joined)}"
        case BalancerRestored():
            return f"the balancer's entry names {version_of(before.running)} again"
        case BalancerLeft():
            return "the balancer's entry is removed"
        case BalancerChanged():
            return f"the balancer's entry names {event.url}" if event.url else "the balancer's entry is missing"
        case IdentityRefused():
            return f"identity refused: {event.cause}"
        case IdentityAccepted():
            return "identity accepted"
        case IdentityAdmitted():
            return "an operator let it back after it had gone"
        case BalancerDrained():
            return f"drained: {event.how}"
        case BalancerUnmoved() | BalancerRefused() | BalancerFailed():
            return f"balancer: {event.cause}"
        case AnalysisSampled():
            return f"analysis: {event.sample}"
        case AnalysisPassed():
            return f"analysis passed: {event.sample}"
        case AnalysisFailed():
            return f"analysis failed: {event.cause}"
        case AnalysisUndecided():
            return f"analysis undecided: {event.cause}"
        case WorkloadFailed() | ReleaseFailed():
            return event.cause
        case TaskFinished():
            return "what must run before a swap is done"
        case TaskFailed():
            return event.cause
        case TaskProgressed():
            return event.words
        case ReportQueued():
            return "result queued in the outbox"
        case SidekickRestarted():
            return "the sidekick was restarted"
        case TimerExpired():
            return _timer(event.name)
        case SidekickSettled() | ReleaseCommitted() | UpdateExposed() | UpdateFailed() | UpdateJudged() | UpdateEnded():
            return event.name  # the chart raises these within a step, no journal has them as a step's event
        case _:
            assert_never(event)


def _announced(event: TargetChanged | BlockChanged | GrantEnded | WakeupReceived, before: Memory) -> str:
    match event:
        case TargetChanged():
            if event.version is None:
                return "the group has no target"
            slots = f", {event.slots} at a time" if event.slots != before.slots else ""
            paused = ", group paused" if event.paused else ""
            return f"target: {event.version}{slots}{paused}"
        case BlockChanged():
            fresh = [f"{version} ({why})" for version, why in event.versions.items() if version not in before.blocked]
            return f"blocked: {', '.join(fresh)}" if fresh else "list of blocked versions received"
        case GrantEnded():
            return "the update service took its permission back"
        case WakeupReceived():
            return "wake-up from the update service" + (f": {event.why}" if event.why else "")
        case _:
            assert_never(event)


def _release(
    event: ReleaseFound | ReleaseMissing | ReleaseProgressed | ReleaseDownloaded | ReleaseVerified, before: Memory
) -> str:
    match event:
        case ReleaseFound():
            image = ", a container image" if event.kind == "image" else ""
            return f"{event.version} granted{image}, {_size(event.size_bytes)}"
        case ReleaseMissing():
            return "no update" + (f": {event.reason}" if event.reason else "")
        case ReleaseProgressed():
            return f"{event.done_bytes / max(1, event.size_bytes):.0%} downloaded"
        case ReleaseDownloaded():
            return f"{version_of(before.candidate)} downloaded"
        case ReleaseVerified():
            return "size and SHA-256 verified"
        case _:
            assert_never(event)


def _lock(
    event: LockQueued | LockAcquired | LockRefused | LockReleased | LockLost | LockFailed,
    effect_name: str,
    before: Memory,
) -> str:
    match event:
        case LockQueued():
            return f"number {event.rank + 1} in the queue"
        case LockAcquired():
            valid = "turn reclaimed" if effect_name == do.ReclaimLock.name else "turn acquired"
            return f"{valid}, slot {event.turn.number}"
        case LockRefused():
            return f"no turn: {event.cause}"
        case LockReleased():
            if effect_name == do.BlockLock.name:
                return f"{version_of(before.candidate)} blocked for the whole fleet, turn released"
            return "turn released" if before.turn is not None else "left the queue"
        case LockLost():
            return "lease lost" + (f": {event.why}" if event.why else "")
        case LockFailed():
            return event.cause
        case _:
            assert_never(event)


def _workload(
    event: WorkloadStarted | WorkloadAbsent | WorkloadRetired | WorkloadRemoved | WorkloadExited, before: Memory
) -> str:
    match event:
        case WorkloadStarted():
            return f"{_version_named(event.workload_id, before)} runs at {event.url}"
        case WorkloadAbsent():
            return "no version to run"
        case WorkloadRetired():
            return f"{version_of(before.leftover)} stopped" if before.leftover else "no old version to stop"
        case WorkloadRemoved():
            return f"{version_of(before.candidate)} removed"
        case WorkloadExited():
            return f"{_version_named(event.workload_id, before)} exited: {event.status}"
        case _:
            assert_never(event)


def _size(size_bytes: int) -> str:
    if size_bytes < MEGABYTE:
        return f"{size_bytes / KILOBYTE:.1f} kB"
    return f"{size_bytes / MEGABYTE:.1f} MB"


def _timer(name: str) -> str:
    if name == "soak.due":
        return "soak time over"
    return "timer due" if name.endswith(".due") else "no answer in time"


def _installed(memory: Memory) -> tuple[Installed, ...]:
    known = (memory.candidate, memory.running, memory.leftover, memory.previous)
    return tuple(one for one in known if one is not None)


def _version_named(workload_id: str, memory: Memory) -> str:
    return next((version_of(one) for one in _installed(memory) if one.workload_id == workload_id), workload_id)


def _version_at(url: str, memory: Memory) -> str:
    return next((version_of(one) for one in _installed(memory) if one.url == url), url)
