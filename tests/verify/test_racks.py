"""Sidekicks with labels on one lock: the budgets hold, and a lock that doesn't compare them is found."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from outrider.core.rollout.budgets import Budget
from outrider.verify.check import PLANS, Configuration, Result, check
from outrider.verify.fleet import Racks
from tests.verify.faults import CALM, SHIPPED, loaded

pytestmark = pytest.mark.timeout(1800)

REFUSED = replace(CALM, badness="refused", waiting=0)
ONE_OUT, TWO_SERVE = Budget(label="rack", max_out=1), Budget(label="rack", min_serving=2)


def explored(*racks: Racks, slots: int = 2) -> Result:
    plan = Configuration(strategy="stop-first", setting=REFUSED, sizes=(), racks=tuple((one, slots) for one in racks))
    return list(check(loaded(SHIPPED), [plan]))[-1]


def test_the_usual_bounds_have_racks_and_floors_with_both_strategies() -> None:
    found: Mapping[str, set[str]] = {
        strategy: {racks.words for one in PLANS["usual"] if one.strategy == strategy for racks, _ in one.racks}
        for strategy in ("start-first", "stop-first")
    }

    assert {"a+a+b at most 1 out", "a+a+a 2 serving"} == found["start-first"] == found["stop-first"]


@pytest.mark.long
def test_never_two_of_one_rack_are_out_and_the_floor_holds() -> None:
    result = explored(
        Racks(of=("a", "a", "b"), budget=ONE_OUT),
        Racks(of=("a", "a", "a"), budget=TWO_SERVE),
        Racks(of=("a", "a", ""), budget=ONE_OUT),
    )

    assert "" == result.promise
    assert ["a+a+b at most 1 out", "a+a+a 2 serving", "a+a+- at most 1 out"] == [one.racks for one in result.fleets]
    assert all(one.states > 1000 for one in result.fleets)


@pytest.mark.long
@pytest.mark.parametrize(
    ("racks", "promise"),
    [
        (
            Racks(of=("a", "a", "b"), budget=ONE_OUT, compared=False),
            "budget: 2 of rack a are out at once, and at most 1 may be",
        ),
        (
            Racks(of=("a", "a", "a"), budget=TWO_SERVE, compared=False),
            "budget: 1 of rack a serve while one is out, and 2 must",
        ),
    ],
)
def test_a_turn_that_is_taken_without_comparing_the_budgets_is_found_and_told(racks: Racks, promise: str) -> None:
    result = explored(racks)

    assert promise == result.promise
    taken = [line for line in result.story if "has a turn, lock.acquired" in line]
    assert 2 == len(taken)
    assert all(any(f"{name}: " in line for line in taken) for name in ("web-1", "web-2"))


@pytest.mark.long
def test_without_the_budgets_two_of_one_rack_would_be_out() -> None:
    """Else the rack that holds would show nothing: with room for two, two are out."""
    result = explored(Racks(of=("a", "a", "b"), budget=Budget(label="rack", max_out=2)))

    assert "" == result.promise
    tight = explored(Racks(of=("a", "a", "b"), budget=ONE_OUT))
    assert result.fleets[0].states > tight.fleets[0].states
