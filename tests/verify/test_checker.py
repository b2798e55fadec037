"""The model checker: what it says of the shipped chart, and that it finds faults that were put into it."""

from dataclasses import replace

import pytest

from outrider.core.chart import load_chart
from outrider.core.chart_model import Chart
from outrider.core.hierarchy import Hierarchy
from outrider.core.rules import VOCABULARY
from outrider.statechart import find_sidekick_chart
from outrider.verify.check import PLANS, Result, check
from outrider.verify.explore import explore
from outrider.verify.fleet import Looks, explore_fleet
from outrider.verify.steps import Steps
from outrider.verify.world import Setting, World

pytestmark = pytest.mark.timeout(300)
TEXT = find_sidekick_chart().read_text()


def chart_of(text: str) -> Chart:
    return load_chart(text.encode(), "sidekick.scxml", VOCABULARY)


def with_fault(old: str, new: str) -> Chart:
    """The shipped chart with one edit, which must apply exactly once."""
    assert 1 == TEXT.count(old), f"{TEXT.count(old)} times in the chart: {old}"
    return chart_of(TEXT.replace(old, new))


def last(chart: Chart, bounds: str = "small") -> Result:
    *_, result = check(chart, PLANS[bounds])
    return result


def test_the_shipped_chart_holds_within_small_bounds() -> None:
    results = list(check(chart_of(TEXT), PLANS["small"]))

    assert [] == [result.promise for result in results if result.promise]
    assert len(PLANS["small"]) == len(results)
    assert all(result.states > 3_000 and result.edges > 20_000 for result in results)
    assert {(3, 1), (3, 2)} <= {(one.sidekicks, one.slots) for result in results for one in result.fleets}


def test_every_state_of_the_chart_is_entered() -> None:
    chart = chart_of(TEXT)
    hierarchy = Hierarchy(chart)
    entered: set[str] = set()
    for configuration in PLANS["small"]:
        setting = replace(configuration.setting, words=1)
        steps = Steps(chart, configuration.strategy, hierarchy)
        explore(World(steps, setting), limit=500_000)
        entered |= {brain.leaf for brain in steps.brains}

    # swapping.committing is left in the step in which it is entered
    assert {leaf.id for leaf in chart.leaves} - {"swapping.committing"} <= entered


FAULTS = {
    "the turn is given back before the instance serves again": (
        '<transition event="workload.failed replace.expired" target="rollback.reverting"/>',
        '<transition event="workload.failed replace.expired" target="rollback.releasing"/>',
        "P3: the instance is out of the balancer without a turn",
        ("rollback.releasing", "balancer to nobody"),
    ),
    "a roll-back after the commit": (
        '<transition event="workload.retired" target="swapping.releasing"/>',
        '<transition event="workload.retired" target="rollback.removing"/>',
        "an update is rolled back after its commit",
        ("swapping.retiring -> rollback.removing",),
    ),
    "the old version is stopped although the traffic hasn't moved": (
        '<transition event="balancer.refused switch.expired lock.lost" target="rollback.relocking"/>',
        '<transition event="balancer.refused switch.expired lock.lost" target="swapping.committing"/>',
        "P3: the balancer sends to",
        ("workload.retire is done",),
    ),
    "nothing leads on": (
        '<transition event="lock.released" target="reporting"/>\n'
        '      <transition event="release.expired" target="swapping.releasing"/>',
        '<transition event="release.expired" target="swapping.releasing"/>',
        "from here no way leads back to idle",
        (),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_chart_is_found_and_told(fault: str) -> None:
    old, new, promise, words = FAULTS[fault]

    result = last(with_fault(old, new))

    assert promise in result.promise
    story = "\n".join(result.story)
    assert result.promise in story
    assert all(word in story for word in words), story


def test_leaving_without_a_fence_is_found() -> None:
    chart = chart_of(TEXT)
    hierarchy = Hierarchy(chart)
    found = [
        explore(World(Steps(chart, strategy, hierarchy), Setting(fenced=False, late_limit=0, words=0)), limit=500_000)
        for strategy in ("start-first", "stop-first")
    ]

    promises = [one.breach.promise for one in found if one.breach is not None]
    assert any("P2" in promise for promise in promises), promises
    assert any("balancer.leave is accepted, although its turn has ended" in promise for promise in promises), promises


REACHES_OTHERS = {
    "a bad release isn't condemned": (
        'cond="is_release_bad" target="rollback.condemning"/>\n'
        '      <transition event="workload.removed remove.expired" target="rollback.releasing"/>',
        'cond="is_release_bad" target="rollback.releasing"/>\n'
        '      <transition event="workload.removed remove.expired" target="rollback.condemning"/>',
    ),
    "the turn is given back with a lost lease (decision 0008)": (
        '<transition event="workload.removed remove.expired sidekick.restarted" target="swapping.reclaiming"/>',
        '<transition event="workload.removed remove.expired sidekick.restarted" target="rollback.releasing"/>',
    ),
}


@pytest.mark.parametrize("fault", REACHES_OTHERS)
def test_a_fault_that_lets_a_bad_release_walk_on_is_found(fault: str) -> None:
    chart = with_fault(*REACHES_OTHERS[fault])
    steps = Steps(chart, "start-first", Hierarchy(chart))
    explored = explore(World(steps, Setting(badness="unhealthy", late_limit=0, words=0)), limit=500_000)

    fleet = explore_fleet(Looks(explored), 2, 1)

    assert "P5: a bad release reached 2 instances, and there are 1 slots" == fleet.promise
