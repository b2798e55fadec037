"""Builders: each turns the memory into one complete effect. The chart names the effect, the table finds its builder."""

from collections.abc import Callable

from outrider.core.release import ReleaseId
from outrider.core.sidekick import effects as do
from outrider.core.sidekick.effects import Effect
from outrider.core.sidekick.guards import running_label, running_version, starts_first
from outrider.core.sidekick.memory import Installed, Memory, Release

EFFECTS: dict[str, Callable[[Memory], Effect]] = {}


def effect(kind: type[Effect]) -> Callable[[Callable[[Memory], Effect]], Callable[[Memory], Effect]]:
    """Enter a builder in the table under its effect's name."""

    def enter(function: Callable[[Memory], Effect]) -> Callable[[Memory], Effect]:
        EFFECTS[kind.name] = function
        return function

    return enter


def _candidate(memory: Memory) -> Installed:
    assert memory.candidate is not None, "the chart enters this state only with a candidate"
    return memory.candidate


def _candidate_version(memory: Memory) -> str:
    return memory.candidate.release.version if memory.candidate is not None else running_version(memory)


def _next_release(memory: Memory) -> ReleaseId | None:
    """What the update under way leads to, or has led to; None where its version says all."""
    return _release_of(memory.candidate or memory.running)


def _running_release(memory: Memory) -> ReleaseId | None:
    return _release_of(memory.running)


def _release_of(installed: Installed | None) -> ReleaseId | None:
    return None if installed is None or installed.release.id.is_plain else installed.release.id


def _committed(memory: Memory) -> Release | None:
    """What the update under way has committed; None before its commit."""
    is_over = memory.update and memory.candidate is None and memory.running is not None
    return memory.running.release if is_over and memory.running is not None else None


def _given_up(memory: Memory) -> Release | None:
    """What was to be the first that runs here, and won't be."""
    return memory.candidate.release if memory.candidate is not None and memory.running is None else None


def _needed(*installed: Installed | None) -> tuple[Release, ...]:
    """Releases whose payloads stay."""
    return tuple(dict.fromkeys(one.release for one in installed if one is not None))


def _url(installed: Installed | None) -> str | None:
    return installed.url or None if installed is not None else None


def _turn_id(memory: Memory) -> str:
    """What its turn was taken for: the update under way, else the drain."""
    if memory.update:
        return memory.update
    if memory.drain is not None:
        return memory.drain.id
    return memory.turn.update if memory.turn is not None else memory.drain_turn


def _workload(installed: Installed | None) -> str:
    return installed.workload_id if installed is not None else ""


def _former_urls(memory: Memory) -> tuple[str, ...]:
    """Addresses that may stand in the balancer's entry and are ours."""
    known = (memory.running, memory.candidate, memory.previous, memory.leftover)
    return tuple(dict.fromkeys([*(one.url for one in known if one is not None and one.url), *memory.former_urls]))


@effect(do.AcquireLock)
def acquire_lock(memory: Memory) -> Effect:
    release = _candidate(memory).release
    follows_target = not memory.manual and memory.target_revision > 0  # also on the way, to a floor
    return do.AcquireLock(
        update=memory.update,
        version=release.label,
        key="" if release.id.is_plain else release.id.key(memory.group),
        slots=memory.slots,
        target_revision=memory.target_revision if follows_target else -1,
        first_start=release if memory.running is None else None,
        tasks=memory.tasks_done,
    )


@effect(do.ReclaimLock)
def reclaim_lock(memory: Memory) -> Effect:
    return do.ReclaimLock(turn=memory.turn, update=memory.update)


@effect(do.RetakeLock)
def retake_lock(memory: Memory) -> Effect:
    leaves = memory.drain is not None and memory.drain.kind == "decommission" and not memory.update
    return do.RetakeLock(
        turn=memory.turn,
        update=_turn_id(memory),
        version=memory.candidate.release.label if memory.candidate is not None else running_label(memory),
        slots=memory.slots,
        removal_revision=memory.drain.revision if leaves and memory.drain is not None else None,
    )


@effect(do.ReleaseLock)
def release_lock(memory: Memory) -> Effect:
    committed = _committed(memory)
    return do.ReleaseLock(
        turn=memory.turn,
        update=_turn_id(memory),
        committed=committed,
        left=memory.leftover.release if committed is not None and memory.leftover is not None else None,
        given_up=_given_up(memory),
    )


@effect(do.ProveLock)
def prove_lock(memory: Memory) -> Effect:
    return do.ProveLock(committed=_committed(memory))


@effect(do.SuspendLock)
def suspend_lock(memory: Memory) -> Effect:
    return do.SuspendLock(update=memory.update)


@effect(do.ResignLock)
def resign_lock(memory: Memory) -> Effect:
    drain = memory.drain
    return do.ResignLock(
        turn=memory.turn,
        update=_turn_id(memory),
        at=drain.since if drain is not None else memory.at,
        by=drain.by if drain is not None else "",
        removal_revision=drain.revision if drain is not None else 0,
    )


@effect(do.BlockLock)
def block_lock(memory: Memory) -> Effect:
    release = _candidate(memory).release
    return do.BlockLock(
        turn=memory.turn,
        update=memory.update,
        version=release.version,
        sha256=release.sha256,
        release=None if release.id.is_plain else release.id,
        cause=memory.fault.cause if memory.fault is not None else "",
        given_up=_given_up(memory),
    )


@effect(do.EnsureWorkload)
def ensure_workload(memory: Memory) -> Effect:
    return do.EnsureWorkload(installed=memory.running)


@effect(do.TidyWorkload)
def tidy_workload(memory: Memory) -> Effect:
    known = (memory.running, memory.candidate)
    return do.TidyWorkload(keep=tuple(one.workload_id for one in known if one is not None))


@effect(do.StartWorkload)
def start_workload(memory: Memory) -> Effect:
    return do.StartWorkload(installed=_candidate(memory))


@effect(do.ReplaceWorkload)
def replace_workload(memory: Memory) -> Effect:
    return do.ReplaceWorkload(old=memory.running, new=_candidate(memory))


@effect(do.RevertWorkload)
def revert_workload(memory: Memory) -> Effect:
    return do.RevertWorkload(old=memory.running, new=memory.candidate)


@effect(do.RetireWorkload)
def retire_workload(memory: Memory) -> Effect:
    if memory.drain is not None and memory.drain.kind == "decommission" and not memory.update:
        return do.RetireWorkload(installed=memory.running)
    return do.RetireWorkload(installed=memory.leftover, needed=_needed(memory.running, memory.previous))


@effect(do.RemoveWorkload)
def remove_workload(memory: Memory) -> Effect:
    return do.RemoveWorkload(installed=memory.candidate)


@effect(do.RestartWorkload)
def restart_workload(memory: Memory) -> Effect:
    """Start-first: both may be in the balancer. Stop-first: only one may run, and only after exposure is it the new."""
    if not memory.down:
        return do.RestartWorkload(installed=())
    new = memory.candidate if memory.exposed and not memory.candidate_down else None
    old = memory.running if starts_first(memory) else None
    return do.RestartWorkload(installed=tuple(one for one in (old, new) if one is not None and one.url))


@effect(do.StartProbe)
def start_probe(memory: Memory) -> Effect:
    return do.StartProbe(url=_candidate(memory).url)


@effect(do.ConfirmProbe)
def confirm_probe(memory: Memory) -> Effect:
    assert memory.running is not None, "the chart enters this state only with a running version"
    return do.ConfirmProbe(url=memory.running.url)


@effect(do.WatchProbe)
def watch_probe(memory: Memory) -> Effect:
    return do.WatchProbe(url=_candidate(memory).url)


@effect(do.StopProbe)
def stop_probe(memory: Memory) -> Effect:
    return do.StopProbe()


@effect(do.StartAnalysis)
def start_analysis(memory: Memory) -> Effect:
    candidate = _candidate(memory)
    return do.StartAnalysis(url=candidate.url, version=candidate.release.version, release=candidate.release.label)


@effect(do.StopAnalysis)
def stop_analysis(memory: Memory) -> Effect:
    return do.StopAnalysis()


@effect(do.SwitchBalancer)
def switch_balancer(memory: Memory) -> Effect:
    candidate = _candidate(memory)
    return do.SwitchBalancer(url=candidate.url, turn=memory.turn, workload=candidate.workload_id)


@effect(do.LeaveBalancer)
def leave_balancer(memory: Memory) -> Effect:
    return do.LeaveBalancer(turn=memory.turn)


@effect(do.JoinBalancer)
def join_balancer(memory: Memory) -> Effect:
    candidate = _candidate(memory)
    return do.JoinBalancer(url=candidate.url, replacing=_former_urls(memory), workload=candidate.workload_id)


@effect(do.ReturnBalancer)
def return_balancer(memory: Memory) -> Effect:
    running = memory.running
    return do.ReturnBalancer(url=_url(running), replacing=_former_urls(memory), workload=_workload(running))


@effect(do.RestoreBalancer)
def restore_balancer(memory: Memory) -> Effect:
    return do.RestoreBalancer(url=_url(memory.running), turn=memory.turn, workload=_workload(memory.running))


@effect(do.DrainBalancer)
def drain_balancer(memory: Memory) -> Effect:
    present = _url(memory.candidate) if starts_first(memory) else None
    return do.DrainBalancer(present=present, absent=_url(memory.running))


@effect(do.UndrainBalancer)
def undrain_balancer(memory: Memory) -> Effect:
    present = _url(memory.running) if starts_first(memory) else None
    return do.UndrainBalancer(present=present, absent=_url(memory.candidate))


@effect(do.CheckRelease)
def check_release(memory: Memory) -> Effect:
    previous = memory.previous.release.version if memory.previous is not None else ""
    return do.CheckRelease(version=running_version(memory), previous_version=previous, release=_running_release(memory))


@effect(do.DownloadRelease)
def download_release(memory: Memory) -> Effect:
    return do.DownloadRelease(release=_candidate(memory).release)


@effect(do.VerifyRelease)
def verify_release(memory: Memory) -> Effect:
    candidate = _candidate(memory)
    return do.VerifyRelease(
        release=candidate.release,
        needed=_needed(candidate, memory.running, memory.previous),
        minimum=memory.minimum,
        keys=memory.keys,
    )


@effect(do.AbandonRelease)
def abandon_release(memory: Memory) -> Effect:
    return do.AbandonRelease()


@effect(do.RunTask)
def run_task(memory: Memory) -> Effect:
    return do.RunTask(
        release=_candidate(memory).release,
        tasks=memory.tasks,
        target_revision=memory.target_revision if memory.target_revision > 0 else -1,
    )


@effect(do.LeaveTask)
def leave_task(memory: Memory) -> Effect:
    return do.LeaveTask()


@effect(do.ReportDownloading)
def report_downloading(memory: Memory) -> Effect:
    return do.ReportDownloading(
        update=memory.update,
        version=running_version(memory),
        next_version=_candidate_version(memory),
        running=_running_release(memory),
        release=_next_release(memory),
    )


@effect(do.ReportDownloaded)
def report_downloaded(memory: Memory) -> Effect:
    return do.ReportDownloaded(
        update=memory.update,
        version=running_version(memory),
        next_version=_candidate_version(memory),
        running=_running_release(memory),
        release=_next_release(memory),
    )


@effect(do.ReportQueueing)
def report_queueing(memory: Memory) -> Effect:
    return do.ReportQueueing(
        update=memory.update,
        version=running_version(memory),
        next_version=_candidate_version(memory),
        running=_running_release(memory),
        release=_next_release(memory),
    )


@effect(do.ReportResult)
def report_result(memory: Memory) -> Effect:
    """After a commit the version before is ``previous``; after a rollback what was tried is the candidate."""
    return do.ReportResult(
        update=memory.update,
        version=running_version(memory),
        previous_version=memory.previous.release.version if memory.fault is None and memory.previous else "",
        next_version=_candidate_version(memory),
        running=_running_release(memory),
        release=_next_release(memory),
        fault=memory.fault,
    )


@effect(do.RaiseAlarm)
def raise_alarm(memory: Memory) -> Effect:
    return do.RaiseAlarm(cause=memory.trouble.cause if memory.trouble is not None else "a deadline passed")
