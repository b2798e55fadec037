"""Draws for the simulations of the sequential test: errors of so many requests, seeded."""

import math
from random import Random

from outrider.core.analysis.pool import Pool, begun
from outrider.core.analysis.sequential import Counts, Decision, Plan, SequentialTest


def draw(random: Random, requests: int, rate: float) -> Counts:
    """Binomial: by the gaps between errors; where there are many of them by the normal law, which is as good there."""
    expected = requests * rate
    if expected > 40:
        errors = round(random.gauss(expected, math.sqrt(expected * (1 - rate))))
        return Counts(requests=requests, errors=max(0, min(requests, errors)))
    errors, place, scale = 0, 0, math.log1p(-rate) if rate else -math.inf
    while True:
        place += int(math.log(1.0 - random.random()) / scale) + 1 if rate else requests + 1
        if place > requests:
            return Counts(requests=requests, errors=errors)
        errors += 1


def decided(
    random: Random, plan: Plan, *, rate: float, old_rate: float, others: int, limit: int, step: int = 10
) -> tuple[Decision, int]:
    """One candidate beside ``others`` on the old version, looked at every ``step`` requests: decision and requests."""
    test = SequentialTest()
    while test.candidate.requests < limit and (decision := test.decision(plan)) == "undecided":
        test = test.with_interval(draw(random, step, rate), draw(random, step * others, old_rate), plan)
    decision = test.decision(plan)
    return decision, test.candidate.requests


def rollout_fails(random: Random, plan: Plan, *, rate: float, instances: int, requests: int, looks: int) -> bool:
    """Whether a rollout of a release that is no worse fails, when each instance answers so many requests in its soak.

    The instances come one after the other, and all that have the release are on its side.
    """
    pool: Pool = begun(None, "2.0.0", "", plan)
    each = requests // looks
    for swapped in range(1, instances):
        for _ in range(looks):
            candidate = draw(random, each * swapped, rate)
            old = draw(random, each * (instances - swapped), rate)
            pool = pool.with_interval(candidate, old, plan)
            if pool.decision == "fail":
                return True
    return False
