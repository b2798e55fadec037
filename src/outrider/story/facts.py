"""What each event says, in words: the journal's facts for a person."""

from typing import assert_never

from outrider.core.sidekick import effects as do
from outrider.core.sidekick.events import (
    AnyEvent,
    BalancerDrained,
    BalancerFailed,
    BalancerJoined,
    BalancerLeft,
    BalancerRefused,
    BalancerRestored,
    BalancerSwitched,
    BalancerUnmoved,
    BlockChanged,
    LockAcquired,
    LockFailed,
    LockLost,
    LockQueued,
    LockRefused,
    LockReleased,
    OperatorPaused,
    OperatorResumed,
    OperatorRetried,
    OperatorRolledBack,
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
    return installed.release.version if installed is not None else "nothing"


def fact(event: AnyEvent, effect_name: str, before: Memory) -> str:
    """What ``event`` says.

    Args:
        effect_name: The effect that it answers; empty for news and timers.
        before: The memory when it came.
    """
    match event:
        case TargetChanged() | BlockChanged() | WakeupReceived():
            return _announced(event, before)
        case OperatorPaused():
            return "an operator paused it"
        case OperatorResumed():
            return "an operator let it go on"
        case OperatorRolledBack():
            return "an operator rolled it back"
        case OperatorRetried():
            return "an operator lets it try again"
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
            return "the balancer's entry is out"
        case BalancerDrained():
            return f"drained: {event.how}"
        case BalancerUnmoved() | BalancerRefused() | BalancerFailed():
            return f"balancer: {event.cause}"
        case WorkloadFailed() | ReleaseFailed():
            return event.cause
        case ReportQueued():
            return "the result is in the outbox"
        case SidekickRestarted():
            return "the sidekick was restarted"
        case TimerExpired():
            return _timer(event.name)
        case SidekickSettled() | ReleaseCommitted() | UpdateExposed() | UpdateFailed() | UpdateJudged() | UpdateEnded():
            return event.name  # the chart raises these within a step, no journal has them as a step's event
        case _:
            assert_never(event)


def _announced(event: TargetChanged | BlockChanged | WakeupReceived, before: Memory) -> str:
    match event:
        case TargetChanged():
            if event.version is None:
                return "the group has no target now"
            slots = f", {event.slots} at a time" if event.slots != before.slots else ""
            paused = ", but is paused" if event.paused else ""
            return f"the group shall run {event.version}{slots}{paused}"
        case BlockChanged():
            fresh = [f"{version} ({why})" for version, why in event.versions.items() if version not in before.blocked]
            return f"blocked: {', '.join(fresh)}" if fresh else "the list of blocked versions came"
        case WakeupReceived():
            return "the update service asks to be asked" + (f": {event.why}" if event.why else "")
        case _:
            assert_never(event)


def _release(
    event: ReleaseFound | ReleaseMissing | ReleaseProgressed | ReleaseDownloaded | ReleaseVerified, before: Memory
) -> str:
    match event:
        case ReleaseFound():
            image = ", a container image" if event.kind == "image" else ""
            return f"{event.version} is offered{image}, {_size(event.size_bytes)}"
        case ReleaseMissing():
            return "nothing is offered" + (f": {event.reason}" if event.reason else "")
        case ReleaseProgressed():
            return f"{event.done_bytes / max(1, event.size_bytes):.0%} is here"
        case ReleaseDownloaded():
            return f"{version_of(before.candidate)} is on disk"
        case ReleaseVerified():
            return "size and SHA-256 are right"
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
            valid = "its turn is valid again" if effect_name == do.ReclaimLock.name else "it has a turn"
            return f"{valid}, slot {event.turn.number}"
        case LockRefused():
            return f"no turn: {event.cause}"
        case LockReleased():
            if effect_name == do.BlockLock.name:
                return f"{version_of(before.candidate)} is blocked for the whole fleet, its turn is given back"
            return "its turn is given back" if before.turn is not None else "its place in the queue is given back"
        case LockLost():
            return "lost the lease" + (f": {event.why}" if event.why else "")
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
            return "there is nothing to run"
        case WorkloadRetired():
            return f"{version_of(before.leftover)} is stopped" if before.leftover else "there was nothing to stop"
        case WorkloadRemoved():
            return f"{version_of(before.candidate)} is removed"
        case WorkloadExited():
            return f"{_version_named(event.workload_id, before)} ended by itself: {event.status}"
        case _:
            assert_never(event)


def _size(size_bytes: int) -> str:
    if size_bytes < MEGABYTE:
        return f"{size_bytes / KILOBYTE:.1f} kB"
    return f"{size_bytes / MEGABYTE:.1f} MB"


def _timer(name: str) -> str:
    if name == "soak.due":
        return "long enough"
    return "it is time" if name.endswith(".due") else "no answer in time"


def _installed(memory: Memory) -> tuple[Installed, ...]:
    known = (memory.candidate, memory.running, memory.leftover, memory.previous)
    return tuple(one for one in known if one is not None)


def _version_named(workload_id: str, memory: Memory) -> str:
    return next((version_of(one) for one in _installed(memory) if one.workload_id == workload_id), workload_id)


def _version_at(url: str, memory: Memory) -> str:
    return next((version_of(one) for one in _installed(memory) if one.url == url), url)
