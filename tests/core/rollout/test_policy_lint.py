"""What a policy is warned of. By values."""

from dataclasses import replace

import pytest

from outrider.core.rollout.policy_lint import Surroundings, expected_s, lint
from outrider.core.rollout.policy_settings import Policy, Rate
from outrider.core.rollout.windows import Window

TEN = Surroundings(instances=10, slots=1, drain_s=30, soak_s=10)


def test_a_policy_that_works_is_warned_of_nothing() -> None:
    policy = Policy(
        max_per_interval=Rate(count=1, interval_s=300), max_in_progress=2, canary=1, max_failures=2, min_healthy=8,
        windows=(Window(opens="22:00", closes="04:00"),),
    )  # fmt: skip

    assert () == lint(policy, TEN)
    assert () == lint(Policy(), TEN)
    assert () == lint(Policy(), replace(TEN, instances=0))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(update_timeout_s=39), "update_timeout_s 39: shorter than drain (30 s) plus soak (10 s)"),
        (Policy(update_timeout_s=399), "10 granted at once wait for 1 slots, and the last needs at least 400 s"),
        (Policy(min_healthy=8, max_in_progress=3), "max_in_progress 3: 10 instances with 8 that must serve leave 2"),
        (Policy(min_healthy=10), "min_healthy 10: the group has only 10 instances"),
        (Policy(percent=0), "percent 0: no instance is ever updated"),
        (Policy(max_failures=11), "max_failures 11: the group has 10 instances"),
        (Policy(canary=10), "canary 10: these are all 10 instances"),
        (
            Policy(windows=(Window(opens="22:00", closes="22:06"),)),
            "the longest is open 6 min, but 10 instances take at least 7 min",
        ),
        (
            Policy(windows=(Window(opens="22:00", closes="04:00"),), max_per_interval=Rate(count=1, interval_s=3600)),
            "the longest is open 6 h 00 min, but 10 instances take at least 9 h 01 min",
        ),
        (
            Policy(max_in_progress=2, max_per_interval=Rate(count=1, interval_s=7200)),
            "max_in_progress 2: grants end after 3600 s, and only 1 per 2 h are made",
        ),
    ],
)
def test_what_cannot_work_is_named_with_its_numbers(policy: Policy, words: str) -> None:
    assert any(words in warning for warning in lint(policy, TEN)), lint(policy, TEN)


def test_more_slots_than_the_floor_leaves_are_named() -> None:
    warnings = lint(Policy(min_healthy=8), replace(TEN, slots=3))

    assert any(warning.startswith("slots 3: 10 instances with 8 that must serve leave 2") for warning in warnings)


def test_a_window_shorter_than_one_update_is_named() -> None:
    warnings = lint(Policy(windows=(Window(opens="22:00", closes="22:01"),)), replace(TEN, drain_s=600))

    assert any("one update takes 610 s" in warning for warning in warnings)


def test_the_expected_time_follows_from_the_narrowest_limit() -> None:
    assert 400 == expected_s(Policy(), TEN)
    assert 200 == expected_s(Policy(), replace(TEN, slots=2))
    assert 400 == expected_s(Policy(max_in_progress=1), replace(TEN, slots=2))
    assert 9 * 300 + 40 == expected_s(Policy(max_per_interval=Rate(count=1, interval_s=300)), TEN)
    assert 240 == expected_s(Policy(percent=50, canary=1), TEN)
