"""A sequential test: does the candidate answer errors more often than the old version, over the same minutes?

It may be looked at after every interval, and ended at any moment, without losing its error rates.

**Evidence against the candidate.** In one interval the candidate has answered ``n1`` requests and the old version
``n0``, with ``e`` errors together. When errors come as two Poisson processes of equal rate per request, each of the
``e`` errors is the candidate's with probability ``n1 / (n1 + n0)``, whatever that rate is, and however it changes from
one interval to the next: trouble that both have at the same time says nothing. When the candidate's rate is ``ratio``
times as high, that probability is ``ratio n1 / (ratio n1 + n0)``. The test multiplies the likelihood ratios of the
intervals. While the candidate is no worse, the product is a nonnegative supermartingale that begins at 1, so it ever
reaches ``1 / a`` with probability ``a`` at most (Ville's inequality): at any number of looks.

**Evidence for it.** The same product turned round is one under "``ratio`` times the old version's rate". Where errors
are rare it hardly moves, for only errors say something. So there is a second one, Wald's for a known rate, under
"``ratio`` times ``base_rate``": it moves with each request without an error. The candidate passes when either reaches
``1 / missed``.

**Several tests in one rollout.** A test that has passed is followed by a new one, which can still find what begins
later. The k-th test of a rollout has the share ``1 / (k (k + 1))`` of the rollout's false alarms; these shares add up
to 1, so that a rollout has at most ``false_alarms`` in all, however many instances it has.

What it can't know: errors that come in bursts at one version only, such as one client that tries again at once a
hundred times, are not independent, and count as if they were.

Sources: A. Wald, Sequential Tests of Statistical Hypotheses, Ann. Math. Stat. 16 (1945); M. Lindon and A. Malek,
Anytime-Valid Inference for Multinomial Count Data, arXiv:2011.03567 (2020): canary tests by errors as counting
processes whose rates change; J. Przyborowski and H. Wilenski, Biometrika 31 (1940), for the comparison of two Poisson
rates given their sum.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

Decision = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Requests, and how many of them were answered with an error."""

    requests: int = 0
    errors: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(requests=self.requests + other.requests, errors=self.errors + other.errors)

    def __str__(self) -> str:
        return f"{self.errors} errors in {self.requests} requests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a comparison must find, and how often it may be wrong.

    Attributes:
        ratio: So many times the old version's error rate must be found; above 1.
        base_rate: Share of requests. A candidate is let pass once it is shown to stay below ``ratio`` times this,
            even where the old version has no errors at all; above 0, and ``ratio * base_rate`` at most 1.
        false_alarms: Chance that a rollout of a release that is no worse is failed.
        missed: Chance that each of the two kinds of evidence lets a candidate pass that is ``ratio`` times worse.
    """

    ratio: float = 3.0
    base_rate: float = 0.01
    false_alarms: float = 0.01
    missed: float = 0.025

    def bar_to_fail(self, number: int) -> float:
        """Natural logarithm of the evidence that fails a candidate in the test ``number`` of its rollout, from 1."""
        return math.log(number * (number + 1) / self.false_alarms)

    @property
    def bar_to_pass(self) -> float:
        """Natural logarithm of the evidence that lets a candidate pass."""
        return -math.log(self.missed)

    @property
    def gain_per_request(self) -> float:
        """What one request adds on average to the evidence for a candidate that has errors at ``base_rate``."""
        return self.base_rate * (self.ratio - 1.0 - math.log(self.ratio))

    @property
    def fewest_requests(self) -> int:
        """No candidate passes with fewer requests than so many, neither without an error nor beside a worse one."""
        return math.ceil(self.bar_to_pass / (self.base_rate * (self.ratio - 1.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialTest:
    """One test, as far as it has gone.

    Attributes:
        number: Which one of its rollout, from 1.
        against: Natural logarithm of the evidence against the candidate, from the comparison; negative: for it.
    """

    number: int = 1
    candidate: Counts = field(default_factory=Counts)
    old: Counts = field(default_factory=Counts)
    against: float = 0.0

    def with_interval(self, candidate: Counts, old: Counts, plan: Plan) -> "SequentialTest":
        """The test after one more interval; both have counted the same minutes."""
        return replace(
            self,
            candidate=self.candidate + candidate,
            old=self.old + old,
            against=self.against + _evidence(candidate, old, plan.ratio),
        )

    def decision(self, plan: Plan) -> Decision:
        """What it comes to so far."""
        if self.against >= plan.bar_to_fail(self.number):
            return "fail"
        if self.candidate.requests >= plan.fewest_requests and self.evidence_for(plan) >= plan.bar_to_pass:
            return "pass"
        return "undecided"

    def evidence_for(self, plan: Plan) -> float:
        """Natural logarithm of the evidence that the candidate isn't ``ratio`` times worse: the better of the two."""
        few_errors = self.candidate.requests * plan.base_rate * (plan.ratio - 1.0) - self.candidate.errors * math.log(
            plan.ratio
        )
        return max(-self.against, few_errors)

    def about_requests(self, plan: Plan) -> int:
        """How many of the candidate's requests it will have taken in all to pass, as far as that can be told now."""
        missing = max(0.0, plan.bar_to_pass - self.evidence_for(plan))
        return _rounded(max(plan.fewest_requests, self.candidate.requests + missing / plan.gain_per_request))

    def sample(self, plan: Plan) -> str:
        """``12 of about 400 requests (0 errors; old version: 3 errors in 1200 requests)``."""
        candidate = self.candidate
        return (
            f"{candidate.requests} of about {self.about_requests(plan)} requests"
            f" ({candidate.errors} errors; old version: {self.old})"
        )


def _evidence(candidate: Counts, old: Counts, ratio: float) -> float:
    """Natural logarithm of the likelihood ratio of one interval. Where one side was asked nothing it is 0."""
    n1, n0 = candidate.requests, old.requests
    if n1 <= 0 or n0 <= 0:
        return 0.0
    # of an error at the candidate: (r n1 / (r n1 + n0)) / (n1 / (n1 + n0)); at the old version: without the first r
    common = math.log((n1 + n0) / (ratio * n1 + n0))
    return candidate.errors * (math.log(ratio) + common) + old.errors * common


def _rounded(count: float) -> int:
    """To two figures: more would say that it is known so well."""
    whole = max(1, math.ceil(count))
    step: int = 10 ** max(0, len(str(whole)) - 2)
    return -(-whole // step) * step
