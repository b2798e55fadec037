"""What the instances of a group have counted together of a release under analysis."""

from datetime import datetime

from outrider.core.analysis.pool import Pool
from outrider.core.analysis.sequential import Counts, SequentialTest
from outrider.model.documents import Document


class PooledAnalysis(Document, frozen=True, kw_only=True):
    """``analysis/{app}/{group}``: the test of the release that is rolled out, written after each interval.

    Every write compares the revision that its writer saw before it began to count: no interval counts twice.

    Attributes:
        number: Of the test, in its rollout.
        against: Natural logarithm of the evidence against the candidate.
        passed, failed: Sample of the test of this wave that has.
        instance: Who wrote it last.
    """

    release: str
    wave: str = ""
    ratio: float
    base_rate: float
    number: int = 1
    candidate_requests: int = 0
    candidate_errors: int = 0
    old_requests: int = 0
    old_errors: int = 0
    against: float = 0.0
    passed: str = ""
    failed: str = ""
    instance: str
    at: datetime

    @property
    def pool(self) -> Pool:
        return Pool(
            release=self.release,
            wave=self.wave,
            ratio=self.ratio,
            base_rate=self.base_rate,
            test=SequentialTest(
                number=self.number,
                candidate=Counts(requests=self.candidate_requests, errors=self.candidate_errors),
                old=Counts(requests=self.old_requests, errors=self.old_errors),
                against=self.against,
            ),
            passed=self.passed,
            failed=self.failed,
        )


def pooled(pool: Pool, instance: str, at: datetime) -> PooledAnalysis:
    """The document that keeps ``pool``."""
    return PooledAnalysis(
        release=pool.release,
        wave=pool.wave,
        ratio=pool.ratio,
        base_rate=pool.base_rate,
        number=pool.test.number,
        candidate_requests=pool.test.candidate.requests,
        candidate_errors=pool.test.candidate.errors,
        old_requests=pool.test.old.requests,
        old_errors=pool.test.old.errors,
        against=pool.test.against,
        passed=pool.passed,
        failed=pool.failed,
        instance=instance,
        at=at,
    )
