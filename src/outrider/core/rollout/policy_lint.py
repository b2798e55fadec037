"""Finds settings of a policy that can't work together although each is allowed. One line each, for the operator.

A warning is not a refusal: the group may grow, and the service does not know a sidekick's settings.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from outrider.core.rollout.budgets import endless_budgets
from outrider.core.rollout.policy import per
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.waves_lint import endless_waves


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a policy is judged against.

    Attributes:
        instances: Number of instances of the group that were seen.
        slots: Instances that may swap at the same time.
        drain_s: Longest drain of a sidekick.
        soak_s: Time for which its new version is watched.
        labels: Of each known instance of the group.
    """

    instances: int
    slots: int
    drain_s: float
    soak_s: float
    labels: tuple[Mapping[str, str], ...] = ()

    @property
    def swap_s(self) -> float:
        """Least time that one update takes, the download aside."""
        return self.drain_s + self.soak_s


def lint(policy: Policy, around: Surroundings) -> tuple[str, ...]:
    """Warnings, the most serious first."""
    return (
        *_nobody_ever(policy, around),
        *_short_timeout(policy, around),
        *_too_many_at_once(policy, around),
        *_short_windows(policy, around),
        *_never_reached(policy, around),
        *endless_waves(policy, around.labels),
        *endless_budgets(policy.budgets, around.labels),
    )


def expected_s(policy: Policy, around: Surroundings) -> float:
    """Least seconds until every instance of the group has been updated, by the limits and the slots."""
    count = math.ceil(around.instances * policy.percent / 100)
    if not count:
        return 0.0
    at_once = min(around.slots, policy.max_in_progress or around.slots)
    by_swaps_s = math.ceil(count / at_once) * around.swap_s
    rate = policy.max_per_interval
    by_rate_s = 0.0 if rate is None else (math.ceil(count / rate.count) - 1) * rate.interval_s + around.swap_s
    canary_s = around.swap_s if 0 < policy.canary < count else 0.0
    return max(by_swaps_s, by_rate_s) + canary_s


def _nobody_ever(policy: Policy, around: Surroundings) -> Iterator[str]:
    if policy.percent == 0:
        yield "percent 0: no instance is ever updated; `enabled: false` or a pause is clearer"
    if around.instances and policy.min_healthy >= around.instances:
        yield (
            f"min_healthy {policy.min_healthy}: the group has only {around.instances} instances, so none is "
            "ever updated"
        )


def _short_timeout(policy: Policy, around: Surroundings) -> Iterator[str]:
    if policy.update_timeout_s < around.swap_s:
        yield (
            f"update_timeout_s {policy.update_timeout_s}: shorter than drain ({around.drain_s:g} s) plus soak "
            f"({around.soak_s:g} s), so good updates count as failed"
        )
        return
    waiting = policy.max_in_progress or around.instances
    rounds = math.ceil(waiting / around.slots) if waiting else 0
    if rounds * around.swap_s > policy.update_timeout_s:
        yield (
            f"update_timeout_s {policy.update_timeout_s}: {waiting} granted at once wait for {around.slots} slots, and "
            f"the last needs at least {rounds * around.swap_s:g} s; set max_in_progress, or allow more time"
        )


def _too_many_at_once(policy: Policy, around: Surroundings) -> Iterator[str]:
    spare = around.instances - policy.min_healthy
    if not around.instances or not policy.min_healthy or spare <= 0:
        return
    if around.slots > spare:
        yield (
            f"slots {around.slots}: {around.instances} instances with {policy.min_healthy} that must serve leave "
            f"{spare}; more can never swap at once"
        )
    if policy.max_in_progress is not None and policy.max_in_progress > spare:
        yield (
            f"max_in_progress {policy.max_in_progress}: {around.instances} instances with {policy.min_healthy} that "
            f"must serve leave {spare}; more can never update at once"
        )


def _short_windows(policy: Policy, around: Surroundings) -> Iterator[str]:
    if not policy.windows:
        return
    longest = max(window.length for window in policy.windows)
    if longest >= timedelta(days=1):
        return
    if longest.total_seconds() < around.swap_s:
        yield f"windows: the longest is open {_length(longest)}, but one update takes {around.swap_s:g} s"
    needs = timedelta(seconds=expected_s(policy, around))
    if needs > longest:
        yield (
            f"windows: the longest is open {_length(longest)}, but {around.instances} instances take at least "
            f"{_length(needs)}: a rollout stops halfway until the next window"
        )


def _never_reached(policy: Policy, around: Surroundings) -> Iterator[str]:
    if policy.max_failures is not None and around.instances and policy.max_failures > around.instances:
        yield (
            f"max_failures {policy.max_failures}: the group has {around.instances} instances, and each counts once, "
            "so no rollout is ever halted"
        )
    if around.instances and policy.canary >= around.instances:
        yield f"canary {policy.canary}: these are all {around.instances} instances, so none goes first"
    rate, busy = policy.max_per_interval, policy.max_in_progress
    if rate is not None and busy is not None and busy >= rate.count and policy.update_timeout_s < rate.interval_s:
        yield (
            f"max_in_progress {busy}: grants end after {policy.update_timeout_s} s, and only {per(rate)} are made, so "
            "this limit is never reached"
        )


def _length(span: timedelta) -> str:
    minutes = math.ceil(span.total_seconds() / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
