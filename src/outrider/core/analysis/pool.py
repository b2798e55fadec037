"""The tests of one wave, as the instances of a group share them: what one has counted need not be counted again."""

from dataclasses import dataclass, field, replace

from outrider.core.analysis.sequential import Counts, Decision, Plan, SequentialTest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What a group's instances have counted together of one release.

    Attributes:
        release: Label of the candidate.
        wave: Name of the wave; empty where a rollout has none, and is one.
        ratio, base_rate: Of the plan that the evidence was counted with.
        test: The one under way.
        passed, failed: Sample of the test of this wave that passed, or failed; empty: none has.
    """

    release: str
    wave: str = ""
    ratio: float
    base_rate: float
    test: SequentialTest = field(default_factory=SequentialTest)
    passed: str = ""
    failed: str = ""

    @property
    def decision(self) -> Decision:
        """What it comes to for an instance of this wave: what was found out later counts for more."""
        if self.failed:
            return "fail"
        return "pass" if self.passed else "undecided"

    def adds_up_with(self, other: "Pool") -> bool:
        """Whether both are of the same test of the same release, or of one after the other."""
        mine, others = ((one.release, one.wave, one.ratio, one.base_rate) for one in (self, other))
        return mine == others

    def sample(self, plan: Plan) -> str:
        """The sample that decided, else that of the test under way."""
        return self.failed or self.passed or self.test.sample(plan)

    def with_interval(self, candidate: Counts, old: Counts, plan: Plan) -> "Pool":
        """The pool after one more interval. A test that has passed is followed by the next of the rollout."""
        test = self.test.with_interval(candidate, old, plan)
        match test.decision(plan):
            case "fail":
                return replace(self, test=test, failed=test.sample(plan))
            case "pass":
                return replace(self, test=SequentialTest(number=test.number + 1), passed=test.sample(plan))
            case _:
                return replace(self, test=test)


def begun(known: Pool | None, release: str, wave: str, plan: Plan) -> Pool:
    """The pool with which an instance begins its analysis of ``release``: as far as ``known`` is of use.

    Another wave is another test of the same rollout. So is one after a failure: the release was blocked then, and an
    operator has lifted that; and one with other settings, whose evidence can't be added up with this plan's.
    """
    fresh = Pool(release=release, wave=wave, ratio=plan.ratio, base_rate=plan.base_rate)
    if known is None or known.release != release:
        return fresh
    fits = known.wave == wave and (known.ratio, known.base_rate) == (plan.ratio, plan.base_rate)
    return known if fits and not known.failed else replace(fresh, test=SequentialTest(number=known.test.number + 1))
