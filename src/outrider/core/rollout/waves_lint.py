"""Finds waves that can never complete, or that never defer anybody, in the group as it is now."""

from collections.abc import Iterator, Mapping, Sequence

from outrider.core.labels import parse_selector
from outrider.core.rollout.policy_settings import Policy


def endless_waves(policy: Policy, labels: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Warnings about waves and the canaries' selector, one line each.

    Args:
        policy: What is looked at.
        labels: Of each known instance; nothing is said of a group without instances.
    """
    if not labels:
        return
    if policy.canary and policy.canary_selector:
        found = sum(parse_selector(policy.canary_selector).selects(one) for one in labels)
        if found < policy.canary:
            yield (
                f"canary_selector {policy.canary_selector}: selects {found} of {len(labels)} instances, and canary"
                f" {policy.canary} must succeed, so the others never follow"
            )
    for number, wave in enumerate(policy.waves, 1):
        name = f"waves: wave {number} ({wave.words})"
        selected = [one for one in labels if wave.selects(one)]
        if not selected:
            yield f"{name}: no known instance has these labels, so it never completes and nothing follows"
            continue
        left = [one for one in selected if not any(w.takes_all and w.selects(one) for w in policy.waves[: number - 1])]
        if not left:
            yield f"{name}: every instance that it selects belongs to an earlier wave"
        if wave.count is not None and wave.count > len(selected):
            yield f"{name}: only {len(selected)} instances have these labels; it completes when all of them have it"
        allowed = wave.size_among(len(selected)) - wave.needed(wave.size_among(len(selected)))
        if policy.max_failures is not None and 0 < policy.max_failures <= allowed:
            yield f"{name}: {allowed} may fail in it, but max_failures {policy.max_failures} halts the rollout before"
        if policy.percent < 100 and wave.takes_all:
            yield f"{name}: takes all that it selects, but percent {policy.percent:g} keeps some of them out for good"
