"""The names that the chart uses, and what they mean: guards and effects, looked up in two tables.

Guards read the memory and never raise. Effect builders turn the memory into a complete effect. How events change the
memory is in ``remember.py``, what a person is told in ``words.py``.
"""

from collections.abc import Callable, Mapping

from outrider.core import effects as do
from outrider.core.chart import Vocabulary
from outrider.core.effects import ANSWERED, Effect
from outrider.core.events import (
    TIMERS,
    Event,
    ReleaseCommitted,
    SidekickSettled,
    UpdateEnded,
    UpdateExposed,
    UpdateFailed,
)
from outrider.core.machine import Rules
from outrider.core.memory import Installed, Memory
from outrider.core.remember import EVENT_NAMES, remember
from outrider.core.versions import NOTHING, is_newer

MAX_ATTEMPTS = 5
"""Failed downloads of one update before it is reported and left to the back-off."""

MAX_RESTARTS = 5
"""Restarts of the sidekick within one update before the update is suspected of causing them."""

GUARDS: dict[str, Callable[[Memory], bool]] = {}
EFFECTS: dict[str, Callable[[Memory], Effect]] = {}


def guard(function: Callable[[Memory], bool]) -> Callable[[Memory], bool]:
    """Enter a guard in the table under its own name."""
    GUARDS[function.__name__] = function
    return function


def effect(kind: type[Effect]) -> Callable[[Callable[[Memory], Effect]], Callable[[Memory], Effect]]:
    """Enter a builder in the table under its effect's name."""

    def enter(function: Callable[[Memory], Effect]) -> Callable[[Memory], Effect]:
        EFFECTS[kind.name] = function
        return function

    return enter


# --- guards ---------------------------------------------------------------------------------------------------------


@guard
def starts_first(memory: Memory) -> bool:
    """Old and new can run side by side on this machine."""
    return memory.strategy == "start-first"


@guard
def is_paused(memory: Memory) -> bool:
    return memory.paused


@guard
def has_fallen(memory: Memory) -> bool:
    """What should run ended, or isn't known to run since a restart."""
    return memory.fallen and memory.running is not None


@guard
def must_revive(memory: Memory) -> bool:
    """The turn is given back only when the instance serves again, unless it was down before the turn began."""
    return has_fallen(memory) and not memory.was_ailing


@guard
def has_candidate(memory: Memory) -> bool:
    return memory.candidate is not None


@guard
def has_candidate_fallen(memory: Memory) -> bool:
    return memory.candidate_fallen


@guard
def is_candidate_poisoned(memory: Memory) -> bool:
    return memory.candidate is not None and memory.candidate.release.version in memory.poisoned


@guard
def is_declined(memory: Memory) -> bool:
    """An operator wants no more of the update under way."""
    return memory.candidate is not None and memory.candidate.release.version == memory.declined


@guard
def is_called_off(memory: Memory) -> bool:
    """The group wants something else than the candidate now, or was paused."""
    if memory.manual or memory.candidate is None:
        return False
    return memory.group_paused or (memory.wanted is not None and memory.wanted != memory.candidate.release.version)


@guard
def is_exposed(memory: Memory) -> bool:
    return memory.exposed


@guard
def is_release_bad(memory: Memory) -> bool:
    return memory.fault is not None and memory.fault.blame == "release"


@guard
def is_crash_looping(memory: Memory) -> bool:
    return memory.restarts > MAX_RESTARTS


@guard
def may_fetch_again(memory: Memory) -> bool:
    """The trouble may pass, and there are attempts left."""
    return memory.attempts <= MAX_ATTEMPTS and memory.trouble is not None and memory.trouble.error_code in (9, 14)


@guard
def must_cool(memory: Memory) -> bool:
    """The last update failed through no fault of the release: it will be tried again, but not at once."""
    return memory.failures > 0


@guard
def wants_check(memory: Memory) -> bool:
    """The group shall run something that we don't, and nothing known stands against it."""
    return (
        not memory.paused
        and not memory.group_paused
        and memory.wanted is not None
        and memory.wanted != running_version(memory)
        and memory.wanted != memory.declined
        and memory.wanted not in memory.poisoned
    )


@guard
def may_take(memory: Memory) -> bool:
    """What was offered moves us forward (or back, where that is allowed) and nothing known stands against it."""
    if memory.candidate is None or memory.paused or memory.group_paused:
        return False
    version = memory.candidate.release.version
    if version in memory.poisoned or version == memory.declined or version == running_version(memory):
        return False
    return memory.running is None or memory.allow_downgrade or is_newer(version, running_version(memory))


def running_version(memory: Memory) -> str:
    """What runs, ``0.0.0`` before the first install."""
    return memory.running.release.version if memory.running is not None else NOTHING


# --- effects --------------------------------------------------------------------------------------------------------


def _candidate(memory: Memory) -> Installed:
    assert memory.candidate is not None, "the chart enters this state only with a candidate"
    return memory.candidate


def _candidate_version(memory: Memory) -> str:
    return memory.candidate.release.version if memory.candidate is not None else running_version(memory)


def _url(installed: Installed | None) -> str | None:
    return installed.url or None if installed is not None else None


def _former_urls(memory: Memory) -> tuple[str, ...]:
    """Addresses that may stand in the balancer's entry and are ours."""
    known = (memory.running, memory.candidate, memory.previous, memory.leftover)
    return tuple(dict.fromkeys(one.url for one in known if one is not None and one.url))


@effect(do.AcquireLock)
def acquire_lock(memory: Memory) -> Effect:
    version = _candidate(memory).release.version
    follows_target = not memory.manual and memory.wanted == version and memory.target_revision > 0
    return do.AcquireLock(
        update=memory.update,
        version=version,
        slots=memory.slots,
        target_revision=memory.target_revision if follows_target else -1,
    )


@effect(do.ReclaimLock)
def reclaim_lock(memory: Memory) -> Effect:
    return do.ReclaimLock(turn=memory.turn, update=memory.update)


@effect(do.RetakeLock)
def retake_lock(memory: Memory) -> Effect:
    return do.RetakeLock(turn=memory.turn, update=memory.update, version=_candidate_version(memory), slots=memory.slots)


@effect(do.ReleaseLock)
def release_lock(memory: Memory) -> Effect:
    return do.ReleaseLock(turn=memory.turn, update=memory.update)


@effect(do.CondemnLock)
def condemn_lock(memory: Memory) -> Effect:
    release = _candidate(memory).release
    return do.CondemnLock(
        turn=memory.turn,
        update=memory.update,
        version=release.version,
        sha256=release.sha256,
        cause=memory.fault.cause if memory.fault is not None else "",
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
    needed = tuple(one.release for one in (memory.running, memory.previous) if one is not None)
    return do.RetireWorkload(installed=memory.leftover, needed=needed)


@effect(do.RemoveWorkload)
def remove_workload(memory: Memory) -> Effect:
    return do.RemoveWorkload(installed=memory.candidate)


@effect(do.ReviveWorkload)
def revive_workload(memory: Memory) -> Effect:
    """Start-first: both may be in the balancer. Stop-first: only one may run, and only after exposure is it the new."""
    if not memory.fallen:
        return do.ReviveWorkload(installed=())
    new = memory.candidate if memory.exposed and not memory.candidate_fallen else None
    old = memory.running if starts_first(memory) else None
    return do.ReviveWorkload(installed=tuple(one for one in (old, new) if one is not None and one.url))


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


@effect(do.SwitchBalancer)
def switch_balancer(memory: Memory) -> Effect:
    return do.SwitchBalancer(url=_candidate(memory).url, turn=memory.turn)


@effect(do.LeaveBalancer)
def leave_balancer(memory: Memory) -> Effect:
    return do.LeaveBalancer(turn=memory.turn)


@effect(do.JoinBalancer)
def join_balancer(memory: Memory) -> Effect:
    return do.JoinBalancer(url=_candidate(memory).url, replacing=_former_urls(memory))


@effect(do.ReturnBalancer)
def return_balancer(memory: Memory) -> Effect:
    return do.ReturnBalancer(url=_url(memory.running), replacing=_former_urls(memory))


@effect(do.RestoreBalancer)
def restore_balancer(memory: Memory) -> Effect:
    return do.RestoreBalancer(url=_url(memory.running), turn=memory.turn)


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
    return do.CheckRelease(version=running_version(memory), previous_version=previous)


@effect(do.DownloadRelease)
def download_release(memory: Memory) -> Effect:
    return do.DownloadRelease(release=_candidate(memory).release)


@effect(do.VerifyRelease)
def verify_release(memory: Memory) -> Effect:
    return do.VerifyRelease(release=_candidate(memory).release)


@effect(do.AbandonRelease)
def abandon_release(memory: Memory) -> Effect:
    return do.AbandonRelease()


@effect(do.ReportDownloading)
def report_downloading(memory: Memory) -> Effect:
    return do.ReportDownloading(
        update=memory.update, version=running_version(memory), next_version=_candidate_version(memory)
    )


@effect(do.ReportDownloaded)
def report_downloaded(memory: Memory) -> Effect:
    return do.ReportDownloaded(
        update=memory.update, version=running_version(memory), next_version=_candidate_version(memory)
    )


@effect(do.ReportQueueing)
def report_queueing(memory: Memory) -> Effect:
    return do.ReportQueueing(
        update=memory.update, version=running_version(memory), next_version=_candidate_version(memory)
    )


@effect(do.ReportResult)
def report_result(memory: Memory) -> Effect:
    """After a commit the version before is ``previous``; after a roll-back what was tried is the candidate."""
    return do.ReportResult(
        update=memory.update,
        version=running_version(memory),
        previous_version=memory.previous.release.version if memory.fault is None and memory.previous else "",
        next_version=_candidate_version(memory),
        fault=memory.fault,
    )


@effect(do.RaiseAlarm)
def raise_alarm(memory: Memory) -> Effect:
    return do.RaiseAlarm(cause=memory.trouble.cause if memory.trouble is not None else "a deadline passed")


# --- the whole ------------------------------------------------------------------------------------------------------


def _raised(kind: type[Event]) -> Callable[[Memory], Event]:
    return lambda memory: kind(at=memory.at)


INTERNAL: Mapping[str, Callable[[Memory], Event]] = {
    kind.name: _raised(kind) for kind in (SidekickSettled, ReleaseCommitted, UpdateExposed, UpdateFailed, UpdateEnded)
}
"""Events that the chart raises itself, at the time of the event that caused them."""

VOCABULARY = Vocabulary(events=EVENT_NAMES | TIMERS, effects=frozenset(EFFECTS), guards=frozenset(GUARDS))


def make_rules(delays: Mapping[str, float], retry_min_s: float = 5.0, retry_max_s: float = 600.0) -> Rules[Memory]:
    """Put the tables together with an operator's settings.

    Args:
        delays: Timer id of the chart -> seconds, in place of the chart's own delay.
        retry_min_s: First pause after a failed update; it doubles with each failure in a row.
        retry_max_s: Longest such pause.
    """

    def delay(memory: Memory, timer: str, delay_s: float) -> float:
        if timer == "retry":
            backoff_s = min(retry_max_s, retry_min_s * 2.0 ** max(0, min(memory.failures, 30) - 1))
            return max(backoff_s, memory.retry_after_s)
        if timer in ("poll", "poll-held") and memory.poll_interval_s:
            return memory.poll_interval_s
        if timer == "fetch":
            return min(retry_max_s, delays.get(timer, delay_s) * 2.0 ** max(0, memory.attempts - 1))
        return delays.get(timer, delay_s)

    return Rules(
        guards=GUARDS,
        effects=EFFECTS,
        remember=remember,
        internal=INTERNAL,
        delays=delay,
        answered=ANSWERED,
    )
