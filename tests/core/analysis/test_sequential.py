"""The sequential test keeps its error rates: by simulation, in a short form here and with 10,000 runs in the long ring.

``docs/use/analysis.md`` states the numbers of requests that ``test_a_release_three_times_as_bad_is_found`` proves.
"""

from random import Random

import pytest

from outrider.core.analysis.pool import begun
from outrider.core.analysis.sequential import Counts, Plan, SequentialTest
from tests.core.analysis.draws import decided, rollout_fails
from tests.support.rings import mostly_long

PLAN = Plan()
RUNS = mostly_long((150, 10_000), short=lambda runs: runs < 1_000)
FOUND_WITHIN = {299: 1_500, 2: 3_000}
"""Others on the old version -> requests of the candidate within which one that is three times as bad is found."""


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize("others", sorted(FOUND_WITHIN))
def test_a_release_three_times_as_bad_is_found(runs: int, others: int) -> None:
    random = Random(13)

    results = [
        decided(random, PLAN, rate=0.03, old_rate=0.01, others=others, limit=FOUND_WITHIN[others]) for _ in range(runs)
    ]

    found = sum(decision == "fail" for decision, _ in results)
    assert 0.95 * runs <= found, f"{found} of {runs}"


@pytest.mark.parametrize("runs", mostly_long((12, 10_000), short=lambda runs: runs < 1_000))
def test_a_rollout_that_is_no_worse_is_hardly_ever_failed(runs: int) -> None:
    """300 instances, each with some requests in its soak; the bound is for all of the rollout's looks together."""
    random = Random(7)
    looks = 1 if runs > 1_000 else 2

    failed = sum(rollout_fails(random, PLAN, rate=0.01, instances=300, requests=100, looks=looks) for _ in range(runs))

    allowed = max(1, 0.01 * runs)  # the short form is too short for less than one
    assert failed <= allowed, f"{failed} of {runs}"


@pytest.mark.parametrize("runs", mostly_long((120, 10_000), short=lambda runs: runs < 1_000))
@pytest.mark.parametrize("others", [299, 2])
def test_one_candidate_that_is_no_worse_is_hardly_ever_failed_however_often_it_is_looked_at(
    runs: int, others: int
) -> None:
    """The first test of a rollout has half of its false alarms, and a look after every request."""
    random = Random(5)
    step, limit = (1, 400) if runs > 1_000 else (5, 600)

    results = [
        decided(random, PLAN, rate=0.01, old_rate=0.01, others=others, limit=limit, step=step) for _ in range(runs)
    ]

    assert sum(decision == "fail" for decision, _ in results) <= 0.01 * runs


@pytest.mark.parametrize("minutes", [10, 60, 180])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.03])
def test_one_request_a_minute_decides_nothing_and_never_passes(minutes: int, rate: float) -> None:
    random = Random(3)

    results = {decided(random, PLAN, rate=rate, old_rate=0.01, others=9, limit=minutes, step=1)[0] for _ in range(40)}

    assert "pass" not in results
    assert "undecided" in results
    assert PLAN.fewest_requests > 180


def test_no_error_at_all_passes_after_a_known_number_of_requests() -> None:
    before = SequentialTest().with_interval(Counts(requests=PLAN.fewest_requests - 1), Counts(requests=9_000), PLAN)
    after = before.with_interval(Counts(requests=1), Counts(requests=48), PLAN)

    assert 185 == PLAN.fewest_requests
    assert ("undecided", "pass") == (before.decision(PLAN), after.decision(PLAN))


def test_trouble_that_both_versions_have_at_the_same_time_says_nothing_against_the_new_one() -> None:
    """Every third request fails for some minutes, at both."""
    test = SequentialTest()
    for _ in range(20):
        test = test.with_interval(Counts(requests=30, errors=10), Counts(requests=300, errors=100), PLAN)

    assert test.against < 0
    assert "fail" != test.decision(PLAN)


def test_without_requests_on_one_side_nothing_is_compared() -> None:
    test = SequentialTest().with_interval(Counts(requests=40, errors=40), Counts(), PLAN)

    assert 0.0 == test.against
    assert "undecided" == test.decision(PLAN)


def test_a_sample_says_how_far_it_is() -> None:
    test = SequentialTest().with_interval(Counts(requests=12), Counts(requests=1_200, errors=3), PLAN)

    assert "12 of about 400 requests (0 errors; old version: 3 errors in 1200 requests)" == test.sample(PLAN)


def test_a_test_that_has_passed_is_followed_by_one_that_still_finds_what_begins_later() -> None:
    pool = begun(None, "2.0.0", "", PLAN).with_interval(Counts(requests=400), Counts(requests=9_000, errors=90), PLAN)
    assert ("pass", 2) == (pool.decision, pool.test.number)

    worse = pool.with_interval(Counts(requests=100, errors=20), Counts(requests=9_000, errors=90), PLAN)

    assert "fail" == worse.decision
    assert "20 errors" in worse.sample(PLAN)


def test_counts_of_one_wave_are_pooled_and_another_wave_begins_anew() -> None:
    pool = begun(None, "2.0.0", "canary", PLAN)
    pool = pool.with_interval(Counts(requests=100), Counts(requests=500, errors=5), PLAN)
    again = begun(pool, "2.0.0", "canary", PLAN).with_interval(Counts(requests=100), Counts(requests=500), PLAN)

    assert "pass" == again.decision
    assert (0, 2) == ((second := begun(pool, "2.0.0", "rest", PLAN)).test.candidate.requests, second.test.number)
    assert (0, 1) == ((other := begun(pool, "3.0.0", "canary", PLAN)).test.candidate.requests, other.test.number)


def test_a_release_that_failed_and_was_unblocked_is_tested_anew_within_the_same_rate() -> None:
    pool = begun(None, "2.0.0", "", PLAN)
    pool = pool.with_interval(Counts(requests=100, errors=30), Counts(requests=9_000, errors=90), PLAN)
    assert "fail" == pool.decision

    assert ("undecided", 2) == ((again := begun(pool, "2.0.0", "", PLAN)).decision, again.test.number)


def test_other_settings_do_not_add_up_with_what_was_counted_before() -> None:
    pool = begun(None, "2.0.0", "", PLAN).with_interval(Counts(requests=100), Counts(requests=500), PLAN)

    assert 0 == begun(pool, "2.0.0", "", Plan(ratio=2.0)).test.candidate.requests


def test_the_shares_of_all_tests_of_a_rollout_add_up_to_its_false_alarms() -> None:
    shares = sum(1 / (number * (number + 1)) for number in range(1, 100_000))

    assert 0.9999 < shares < 1
    assert PLAN.bar_to_fail(1) < PLAN.bar_to_fail(2) < PLAN.bar_to_fail(300)
