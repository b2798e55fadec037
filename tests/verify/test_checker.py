"""The model checker and the shipped chart: all promises hold, and no state of the chart is left out."""

from dataclasses import replace

import pytest

from outrider.core.sidekick.memory import Strategy
from outrider.verify.check import BADNESS, STRATEGIES, Configuration, Result, check
from outrider.verify.explore import explore
from outrider.verify.steps import Steps
from outrider.verify.world import Setting, World
from tests.verify.faults import CALM, SHIPPED, loaded

pytestmark = pytest.mark.timeout(1800)

AT_ONCE = replace(CALM, waiting=0)
"""The smallest bounds: what is asked is answered, or fails, before anything else is asked. ``make verify`` goes on."""


@pytest.fixture(scope="module")
def results() -> list[Result]:
    settings = [*(replace(AT_ONCE, badness=badness) for badness in BADNESS), replace(AT_ONCE, fresh=True)]
    plan = [
        Configuration(strategy=strategy, setting=setting, sizes=((3, 1), (3, 2)))
        for strategy in STRATEGIES
        for setting in settings
    ]
    return list(check(loaded(SHIPPED), plan))


@pytest.mark.long
def test_two_sidekicks_of_the_shipped_chart_hold_within_the_smallest_bounds() -> None:
    """The smallest of all: a release that doesn't start, one turn, the strategy with fewer states.

    ``make verify`` has this and more; that the checker finds what is wrong is in ``test_seeded_faults.py``.
    """
    setting = replace(AT_ONCE, badness="refused")

    (found,) = check(loaded(SHIPPED), [Configuration(strategy="stop-first", setting=setting, sizes=((2, 1),))])

    assert "" == found.promise
    assert found.states > 3_000
    assert found.edges > 15_000
    assert {"swapping.replacing", "rollback.blocking", "rollback.rejoining"} <= found.leaves


@pytest.mark.long
def test_the_shipped_chart_holds_within_the_smallest_bounds(results: list[Result]) -> None:
    assert [] == [result.promise for result in results if result.promise]
    assert 14 == len(results)
    taken = [one for one in results if one.configuration.setting.badness != "unfit"]
    assert all(result.states > 3_000 and result.edges > 15_000 for result in taken)
    assert all([(3, 1), (3, 2)] == [(one.sidekicks, one.slots) for one in result.fleets] for result in results)


@pytest.mark.long
def test_every_state_of_the_chart_is_entered(results: list[Result]) -> None:
    chart = loaded(SHIPPED)
    paused = replace(AT_ONCE, words=1, says=("pause",))
    words = explore(World(Steps(chart, "start-first"), paused), limit=500_000)
    tasked = explore(World(Steps(chart, "start-first"), replace(AT_ONCE, tasked=True)), limit=500_000)
    analysed = explore(World(Steps(chart, "start-first"), replace(AT_ONCE, analysis="pause")), limit=500_000)
    entered = words.leaves().union(tasked.leaves(), analysed.leaves(), *(result.leaves for result in results))

    # swapping.committing is left in the step in which it is entered
    assert {leaf.id for leaf in chart.leaves} - {"swapping.committing"} <= entered


@pytest.mark.long
def test_releases_that_are_analysed_hold_within_the_smallest_bounds() -> None:
    """Undecided goes back and is paused, or passes; a bad one is found by the analysis or by its health."""
    settings = [
        *(replace(AT_ONCE, analysis="pause", badness=badness) for badness in ("none", "unhealthy")),
        replace(AT_ONCE, analysis="pass"),
    ]
    plan = [
        Configuration(strategy=strategy, setting=setting, sizes=((3, 1), (3, 2)))
        for strategy in STRATEGIES
        for setting in settings
    ]

    results = list(check(loaded(SHIPPED), plan))

    assert [""] * 6 == [result.promise for result in results]
    good = [result for result in results if result.configuration.setting.badness == "none"]
    assert all("swapping.analysing" in result.leaves for result in good), "a bad one is found in the soak already"
    assert "idle.paused" in results[0].leaves


@pytest.mark.long
def test_a_repeatable_task_runs_again_and_is_never_lost_within_the_smallest_bounds() -> None:
    setting = replace(AT_ONCE, tasked=True, repeatable=True, lost="again")

    (found,) = check(loaded(SHIPPED), [Configuration(strategy="stop-first", setting=setting, sizes=((2, 1),))])

    assert "" == found.promise
    assert "swapping.readying" in found.leaves


@pytest.mark.long
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_older_runs_once_a_contract_task_has_begun(strategy: Strategy) -> None:
    setting = replace(AT_ONCE, contracts=True)

    (found,) = check(loaded(SHIPPED), [Configuration(strategy=strategy, setting=setting, sizes=((2, 1),))])

    assert "" == found.promise
    assert "swapping.releasing" in found.leaves


def test_more_states_than_the_limit_are_an_error_and_no_proof() -> None:
    with pytest.raises(ValueError, match="more than 100 states"):
        explore(World(Steps(loaded(SHIPPED), "start-first"), Setting()), limit=100)
