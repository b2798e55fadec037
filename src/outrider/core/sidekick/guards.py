"""Guards: what the chart may ask, one named question each. They read the memory, and never raise."""

from collections.abc import Callable, Mapping

from outrider.core.omaha.events import FailureCode
from outrider.core.sidekick.memory import Memory, Strategy
from outrider.core.versions import NOTHING, is_newer

MAX_ATTEMPTS = 5
"""Failed downloads of one update before it is reported and left to the back-off."""

MAX_RESTARTS = 5
"""Restarts of the sidekick within one update before the update is suspected of causing them."""

MAY_PASS = frozenset({FailureCode.TRANSFER, FailureCode.WRITE})
"""Failures of a download that the next attempt may not meet: the network, a full disk."""

GUARDS: dict[str, Callable[[Memory], bool]] = {}


def guard(function: Callable[[Memory], bool]) -> Callable[[Memory], bool]:
    """Enter a guard in the table under its own name."""
    GUARDS[function.__name__] = function
    return function


@guard
def starts_first(memory: Memory) -> bool:
    """Old and new can run side by side on this machine."""
    return decided_by(memory.strategy)["starts_first"]


def decided_by(strategy: Strategy) -> Mapping[str, bool]:
    """What the guards that ask about nothing but the strategy say under ``strategy``, by their names."""
    return {"starts_first": strategy == "start-first"}


@guard
def is_paused(memory: Memory) -> bool:
    """An operator has paused the instance."""
    return memory.paused


@guard
def is_down(memory: Memory) -> bool:
    """What should run ended, or isn't known to run since a restart."""
    return memory.down and memory.running is not None


@guard
def must_restart(memory: Memory) -> bool:
    """The turn is given back only when the instance serves again, unless it was down before the turn began."""
    return is_down(memory) and not memory.was_degraded


@guard
def has_lost_entry(memory: Memory) -> bool:
    """What runs serves, and the balancer's entry doesn't name it."""
    if memory.entry is None or memory.running is None or not memory.running.url or memory.down:
        return False
    return memory.entry.url != memory.running.url


@guard
def wants_out(memory: Memory) -> bool:
    """An operator wants it out of the balancer."""
    return memory.drain is not None


@guard
def is_out(memory: Memory) -> bool:
    """It is out of the balancer for a drain, or may be."""
    return memory.is_out


@guard
def is_decommissioned(memory: Memory) -> bool:
    """It leaves for good."""
    return memory.drain is not None and memory.drain.kind == "decommission"


@guard
def has_turn(memory: Memory) -> bool:
    """It holds a turn, or may: an answer that was lost may have been a turn for a drain."""
    return memory.turn is not None or bool(memory.drain_turn)


@guard
def is_refused(memory: Memory) -> bool:
    """It may not be the instance that it is set up as."""
    return bool(memory.refused)


@guard
def has_candidate(memory: Memory) -> bool:
    """There is an update that can go on, or a version to go back to."""
    return memory.candidate is not None


@guard
def is_candidate_down(memory: Memory) -> bool:
    """The candidate ended."""
    return memory.candidate_down


@guard
def is_candidate_blocked(memory: Memory) -> bool:
    """The release under way is proved bad."""
    return memory.candidate is not None and memory.candidate.release.label in memory.blocked


@guard
def is_undone(memory: Memory) -> bool:
    """An operator wants no more of the update under way."""
    return memory.candidate is not None and memory.candidate.release.label == memory.undone


@guard
def is_recalled(memory: Memory) -> bool:
    """The update service has taken its permission for the update under way back."""
    return memory.recalled


@guard
def has_analysis(memory: Memory) -> bool:
    """The operator wants releases to be analysed under traffic.

    A way back is not: what ran before is known. Nor is what an instance installs first: it serves nothing else.
    """
    return bool(memory.analysis) and not memory.manual and memory.running is not None


@guard
def takes_undecided(memory: Memory) -> bool:
    """What an analysis leaves undecided passes: by the setting, or because an operator has accepted this release."""
    accepted = memory.candidate is not None and memory.candidate.release.label == memory.accepted
    return memory.analysis == "pass" or accepted


@guard
def is_called_off(memory: Memory) -> bool:
    """The group wants something else than the candidate now, or another payload of it, or was paused."""
    if memory.manual or memory.candidate is None:
        return False
    release = memory.candidate.release
    known = memory.recorded.get(release.label, "")
    if known and known != release.sha256:
        return True
    if memory.running is None:
        return False  # who serves nothing yet takes what the group serves, also while its target stands still
    is_wanted = release.label == memory.wanted or release.label in memory.recorded
    return memory.group_paused or (memory.wanted is not None and not is_wanted)


@guard
def has_tasks(memory: Memory) -> bool:
    """Something must have run once before any instance swaps. An operator's way back needs nothing of it."""
    return bool(memory.tasks) and not memory.manual


@guard
def is_exposed(memory: Memory) -> bool:
    """The balancer may send requests to the candidate."""
    return memory.exposed


@guard
def is_release_bad(memory: Memory) -> bool:
    """What was found out lies in the release (``core.blame``). Only that blocks it, until somebody has committed it."""
    return memory.fault is not None and memory.fault.blame == "release"


@guard
def is_crash_looping(memory: Memory) -> bool:
    """The sidekick was restarted so often in this update that the update is suspected of it."""
    return memory.restarts > MAX_RESTARTS


@guard
def may_fetch_again(memory: Memory) -> bool:
    """The trouble may pass, and there are attempts left."""
    return memory.attempts <= MAX_ATTEMPTS and memory.trouble is not None and memory.trouble.error_code in MAY_PASS


@guard
def must_cool(memory: Memory) -> bool:
    """The last update failed through no fault of the release: it will be tried again, but not at once."""
    return memory.failures > 0


@guard
def wants_check(memory: Memory) -> bool:
    """The group's target is something that we don't run, and nothing known stands against it."""
    return (
        not memory.paused
        and not memory.group_paused
        and not has_turn(memory)
        and memory.wanted is not None
        and memory.wanted != running_label(memory)
        and memory.wanted != memory.undone
        and memory.wanted not in memory.blocked
        and not memory.unfit
        and not has_given_up(memory, memory.wanted)
    )


@guard
def may_take(memory: Memory) -> bool:
    """What was offered moves us forward (or back, where that is allowed) and nothing known stands against it."""
    if (
        memory.candidate is None
        or has_turn(memory)
        or memory.paused
        or (memory.group_paused and memory.running is not None)
    ):
        return False
    release = memory.candidate.release
    if release.label in (*memory.blocked, memory.undone, running_label(memory)):
        return False
    return memory.allow_downgrade or leads_forward(memory, release.version)


@guard
def can_run(memory: Memory) -> bool:
    """What was offered last is of a kind that the runtime here runs, or something has changed since."""
    return not memory.unfit


def leads_forward(memory: Memory, version: str) -> bool:
    """It isn't older than what runs. The same version with another environment, or after a restart, isn't."""
    return memory.running is None or version == running_version(memory) or is_newer(version, running_version(memory))


def has_given_up(memory: Memory, release: str) -> bool:
    """It failed here, isn't blocked, and is not tried again unasked."""
    return memory.setback is not None and memory.setback.final and memory.setback.version == release


def running_version(memory: Memory) -> str:
    """What runs, ``0.0.0`` before the first install."""
    return memory.running.release.version if memory.running is not None else NOTHING


def running_label(memory: Memory) -> str:
    """Label of the release that runs, ``0.0.0`` before the first install."""
    return memory.running.release.label if memory.running is not None else NOTHING
