"""Where a rollout is in the waves of its policy, and whom they defer. Pure.

A wave is *complete* when enough of its instances have come to the release, and none of them is under way any more.
An instance that ran the release before the wave began counts, and where nobody is left who doesn't run it, the wave is
complete, too. One that selects no known instance never is: nothing is skipped silently. After a complete wave its soak
time passes, its analyses pass, and a person approves what follows where the policy says so; then the next wave begins.

The number of grants of a wave is exact (P6): ``Progress`` counts them, and each grant compares and writes it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from outrider.core.rollout import wave_analysis
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.rollout import Approval, Opened, Progress, WaveState
from outrider.core.rollout.wave_analysis import over
from outrider.core.rollout.wave_settings import Wave
from outrider.core.rollout.windows import zone_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A known instance of the group. ``is_there``: it runs the release that is rolled out."""

    labels: Mapping[str, str]
    is_there: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """a wave defers an instance. ``again_at``: when that may change by itself."""

    reason: str
    again_at: datetime | None = None


def current(progress: Progress, policy: Policy, members: Collection[Member], now: datetime) -> WaveState | None:
    """The wave that the rollout is at, as of the last ``advanced``; None without waves."""
    if not policy.waves:
        return None
    state = progress.wave or _begun(progress, policy, 1, members, now)
    if state.number > len(policy.waves) or (not state.size and not progress.wave):
        return state
    return _grown(state, policy.waves[state.number - 1], members)


def advanced(progress: Progress, policy: Policy, members: Collection[Member], now: datetime) -> Progress:
    """The rollout after what time, results and approvals let it go on to. A rollout that stands still stays."""
    is_rejected = progress.approval is not None and progress.approval.verdict == "rejected"
    if not policy.waves or progress.version is None or progress.state != "running" or is_rejected:
        return progress
    state = current(progress, policy, members, now)
    while state is not None and state.number <= len(policy.waves):
        wave = policy.waves[state.number - 1]
        if state.proved is None:
            if not _is_complete(progress, state, wave, members):
                break
            state = replace(state, proved=now)
        if wave.approval and state.approval is None:
            state = replace(state, approval=Approval(asked=now))
        elif not wave.approval and state.waits_for_approval:
            state = replace(state, approval=None)
        state = _approved_by_itself(state, policy, now)
        state, stands = wave_analysis.decided(state, policy, now)
        if stands is not None:
            name = f"wave {state.number} of {len(policy.waves)} ({wave.words})"
            why = f"the analysis after {name} {stands.why}"
            progress = replace(progress, state=stands.state, why=why, by="", since=now)
            break
        if state.waits_for_approval or now < over(state, wave) or wave_analysis.is_open(state, policy):
            break
        state = _begun(progress, policy, state.number + 1, members, now)
        progress = replace(progress, others=replace(progress.others, in_wave=0))
    is_news = state is not None and (state.number > 1 or state.proved is not None or progress.wave is not None)
    return replace(progress, wave=state) if is_news else progress


def deferral_of(
    progress: Progress | None,
    policy: Policy,
    state: WaveState | None,
    *,
    instance: str,
    labels: Mapping[str, str] | None,
    under_way: Iterable[Opened],
    reserved: Collection[str],
) -> Held | None:
    """Why the waves defer an instance; None when they don't.

    Args:
        progress: The rollout; None before its first grant.
        policy: The group's.
        state: The wave that it is at.
        instance: Who asks.
        labels: Of that instance; None while they aren't known.
        under_way: Open grants of others.
        reserved: Others for which a place is kept.
    """
    if state is None or state.number > len(policy.waves):
        return None
    if labels is None:
        return Held(reason="waves: its labels aren't known, because its sidekick has no presence in etcd")
    wave, number = policy.waves[state.number - 1], state.number
    if _was_before(progress, policy, number, instance, labels):
        return None
    name = f"wave {number} of {len(policy.waves)} ({wave.words})"
    if state.proved is not None and not (wave.takes_all and wave.selects(labels)):
        return _between(state, policy, name)
    trying = [
        one.instance for one in under_way if progress is not None and progress.is_ours(one) and one.wave == number
    ]
    failures = progress.failures if progress is not None else ()
    failed = [one.instance for one in failures if one.wave == number and one.instance != instance]
    more = progress.others.in_wave if progress is not None else 0
    taken = state.there + state.succeeded + len(trying) + more + len(failed) + len(reserved)
    if wave.selects(labels) and (wave.takes_all or taken < (wave.count or state.size)):
        return None
    return Held(reason=f"{name} first: {_counts(state, trying, failed, more)}")


def place_of(
    progress: Progress | None, policy: Policy, state: WaveState | None, instance: str, labels: Mapping[str, str] | None
) -> int:
    """Number of the wave in which a grant to an instance counts; 0: in none, the waves are over or it was earlier."""
    if state is None or labels is None or state.number > len(policy.waves):
        return 0
    if _was_before(progress, policy, state.number, instance, labels):
        return 0
    return state.number if policy.waves[state.number - 1].selects(labels) else 0


def describe(progress: Progress, policy: Policy, state: WaveState | None) -> str:
    """Which wave a rollout is at, and what it waits for, for a person; empty without waves, or when they are over."""
    if state is None or state.number > len(policy.waves):
        return ""
    wave = policy.waves[state.number - 1]
    name = f"wave {state.number} of {len(policy.waves)} ({wave.words})"
    if state.proved is not None:
        return _between(state, policy, name).reason
    trying = [one.instance for one in progress.opened if progress.is_ours(one) and one.wave == state.number]
    failed = [one.instance for one in progress.failures if one.wave == state.number]
    return f"{name}: {_counts(state, trying, failed, progress.others.in_wave)}"


def due(progress: Progress, policy: Policy) -> datetime | None:
    """When the next wave may begin, an approval comes by itself, or an analysis is late; None: only an event helps."""
    state = progress.wave
    if state is None or state.proved is None or state.number > len(policy.waves):
        return None
    wave, approval = policy.waves[state.number - 1], state.approval
    by_itself = _approval_due(approval, policy) if approval is not None and approval.verdict is None else None
    if (late := wave_analysis.due(progress, policy)) is not None:
        return min(filter(None, (late, by_itself)))
    if state.waits_for_approval and by_itself is None:
        return None
    return max(filter(None, (over(state, wave), by_itself)))


def _begun(progress: Progress, policy: Policy, number: int, members: Collection[Member], now: datetime) -> WaveState:
    state = WaveState(number=number, began=now)
    if number > len(policy.waves):
        return state
    wave = policy.waves[number - 1]
    selected = [one for one in members if wave.selects(one.labels)]
    there = sum(one.is_there for one in selected)
    there = there if wave.takes_all else max(0, there - progress.succeeded)  # those were counted in earlier waves
    return _grown(replace(state, there=there), wave, members)


def _grown(state: WaveState, wave: Wave, members: Collection[Member]) -> WaveState:
    """With its size, where it isn't known yet; a wave that takes all grows with the group."""
    if wave.count is None and state.size and not wave.takes_all:
        return state
    selected = sum(wave.selects(one.labels) for one in members)
    size = wave.size_among(selected) if selected else state.size
    return replace(state, size=max(size, state.size) if wave.takes_all else size)


def _is_complete(progress: Progress, state: WaveState, wave: Wave, members: Collection[Member]) -> bool:
    if progress.others.in_wave or any(progress.is_ours(one) and one.wave == state.number for one in progress.opened):
        return False
    selected = [one.is_there for one in members if wave.selects(one.labels)]
    if wave.takes_all:
        return bool(selected) and sum(selected) >= wave.needed(len(selected))
    is_reached = bool(state.size) and state.there + state.succeeded >= wave.needed(state.size)
    return is_reached or (bool(selected) and all(selected))


def _was_before(
    progress: Progress | None, policy: Policy, number: int, instance: str, labels: Mapping[str, str]
) -> bool:
    """It belongs to an earlier wave: to one that takes all, or to that in which it failed."""
    if any(wave.takes_all and wave.selects(labels) for wave in policy.waves[: number - 1]):
        return True
    failures = progress.failures if progress is not None else ()
    return any(one.instance == instance and 0 < one.wave < number for one in failures)


def _between(state: WaveState, policy: Policy, name: str) -> Held:
    """What a complete wave waits for."""
    assert state.proved is not None, "the wave is complete"
    wave = policy.waves[state.number - 1]
    begins = over(state, wave)
    is_last = state.number == len(policy.waves)
    following, verb = ("the others", "wait") if is_last else (f"wave {state.number + 1}", "waits")
    asked = wave_analysis.words(state, policy)
    if state.approval is not None and state.waits_for_approval:
        by_itself = _approval_due(state.approval, policy)
        when = f"; by itself at {_clock(by_itself, policy)}" if by_itself is not None else ""
        when += f"; {asked}" if asked else ""
        reason = f"{name} succeeded; {following} {verb} for an approval (`outrider rollout approve`){when}"
        return Held(reason=reason, again_at=by_itself)
    reason = f"{name} succeeded; {following} may begin at {_clock(begins, policy)}"
    if (late := wave_analysis.late_at(state, policy)) is not None:
        return Held(reason=f"{reason} if its analysis passes ({asked}); undecided at {_clock(late, policy)}")
    return Held(reason=reason, again_at=begins)


def _counts(state: WaveState, trying: Collection[str], failed: Collection[str], more: int = 0) -> str:
    if not state.size:
        return "no known instance has these labels"
    parts = [f"{state.there + state.succeeded} of {state.size} succeeded"]
    parts += [f"failed: {_names(failed)}"] if failed else []
    parts += [f"in progress: {_names(trying, more)}"] if trying or more else []
    return "; ".join(parts)


def _names(instances: Collection[str], unknown: int = 0) -> str:
    shown, more = ", ".join(list(instances)[:3]), max(len(instances) - 3, 0) + unknown
    if more and not shown:
        return str(more)
    return f"{shown} and {more} more" if more else shown


def _clock(at: datetime, policy: Policy) -> str:
    local = at.astimezone(zone_of(policy.time_zone))
    return f"{local:%Y-%m-%d %H:%M:%S} {local:%Z}"


def _approval_due(approval: Approval, policy: Policy) -> datetime | None:
    return None if policy.approve_after_s is None else approval.asked + timedelta(seconds=policy.approve_after_s)


def _approved_by_itself(state: WaveState, policy: Policy, now: datetime) -> WaveState:
    if state.approval is None or not state.waits_for_approval:
        return state
    at = _approval_due(state.approval, policy)
    if at is None or now < at:
        return state
    word = replace(state.approval, verdict="approved", why="nobody rejected it in time", at=at)
    return replace(state, approval=word)
