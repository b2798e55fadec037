"""A group's policy, proved or broken: counted instances of the chart's outside view."""

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from outrider.core.rollout.budgets import Budget
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.wave_settings import Wave
from outrider.core.sidekick.memory import Strategy
from outrider.statechart import find_sidekick_chart
from outrider.verify.check import STRATEGIES
from outrider.verify.group import GroupModel, explore_group
from outrider.verify.outside import SERVES, OutsideView, shipped_views
from outrider.verify.phases import Class, phases_of
from outrider.verify.policy_check import Row, check_policy, required_by
from outrider.verify.world import Badness

VIEWS = shipped_views(find_sidekick_chart().read_bytes())
STOP_FIRST: tuple[Strategy, ...] = ("stop-first",)
Groups = Sequence[tuple[Class, Sequence[str]]]


def alike(count: int) -> Groups:
    return [(Class(labels={}, size=count), [f"web-{number}" for number in range(count)])]


def racks(count: int, size: int) -> Groups:
    return [
        (Class(labels={"rack": str(rack)}, size=size), [f"r{rack}-{number}" for number in range(size)])
        for rack in range(count)
    ]


def checked(
    groups: Groups, policy: Policy, slots: int, *, at_least: int = 0, strategies: Sequence[Strategy] = STRATEGIES
) -> list[Row]:
    required = required_by(policy, [one for one, _ in groups], at_least)
    return list(check_policy(VIEWS, groups, policy, slots, strategies, required))


def lowest(rows: Sequence[Row], *, lost: bool) -> int:
    return min(row.lowest for row in rows if lost or "lost" not in row.case.words)


def test_the_shipped_default_keeps_nine_of_ten_serving_without_a_lost_machine() -> None:
    rows = checked(alike(10), Policy(), 1, at_least=9)

    assert not rows[-1].broken
    assert 9 == lowest(rows, lost=False)
    assert 7 == lowest(rows, lost=True), "two machines are lost, and one has the turn"
    assert {1} == {row.reached for row in rows if "bad release" in row.case.words}


def test_start_first_serves_with_all_until_something_goes_wrong() -> None:
    rows = checked(alike(10), Policy(), 1, strategies=("start-first",))

    assert 10 == next(row.lowest for row in rows if row.case.words == "no fault that is counted")
    assert 9 == next(row.lowest for row in rows if row.case.words == "a bad release")


def test_too_many_slots_for_what_must_serve_are_found_with_the_steps_that_lead_there() -> None:
    """min_healthy looks at the moment of the grant; a sidekick that stays away makes room for a fourth turn."""
    began_s = time.process_time()
    rows = checked(alike(10), Policy(min_healthy=7), 4, strategies=STOP_FIRST)

    assert time.process_time() - began_s < 20.0
    assert "6 of 10 instances serve, and 7 must" == rows[-1].broken
    assert "a sidekick that stays away" == rows[-1].case.words
    story = "\n".join(rows[-1].story)
    assert "takes a turn, 4 of 4" in story
    assert "stays away until its grant has ended; its turn stays" in story
    assert rows[-1].story[-2].endswith("[6 of 10 serve]")


def test_the_same_policy_holds_with_three_slots() -> None:
    assert not checked(alike(10), Policy(min_healthy=7), 3, strategies=STOP_FIRST)[-1].broken


def test_what_an_operator_wants_is_broken_without_any_fault() -> None:
    rows = checked(alike(10), Policy(), 3, at_least=8, strategies=STOP_FIRST)

    assert "7 of 10 instances serve, and 8 must" == rows[-1].broken
    assert "no fault that is counted" == rows[-1].case.words
    assert 3 == sum("takes a turn" in line for line in rows[-1].story)


def test_instances_without_the_label_are_in_no_budget() -> None:
    """Two of six have no rack: their turns come besides the one of each rack."""
    policy, groups = Policy(budgets=(Budget(label="rack", max_out=1),)), [*racks(2, 2), (alike(2)[0])]

    rows = checked(groups, policy, 4, at_least=4, strategies=STOP_FIRST)

    assert "3 of 6 instances serve, and 4 must" == rows[-1].broken
    assert not checked(racks(2, 3), policy, 4, at_least=4, strategies=STOP_FIRST)[-1].broken


def test_a_budget_holds_for_each_value() -> None:
    rows = checked(racks(3, 4), Policy(budgets=(Budget(label="rack", max_out=1),)), 3)

    assert not rows[-1].broken
    for row in rows:
        lost = row.case.faults if "lost" in row.case.words else 0
        assert {("rack", str(number)): row.lowest_of["rack", "0"] for number in range(3)} == row.lowest_of
        assert 3 - lost <= row.lowest_of["rack", "0"]


def test_a_floor_is_kept_while_the_presence_of_a_lost_machine_is_still_there() -> None:
    """With two of three that must serve besides, one lost machine is excused, and no second instance goes."""
    rows = checked(racks(2, 3), Policy(budgets=(Budget(label="rack", min_serving=2),)), 2)

    assert not rows[-1].broken


@pytest.mark.parametrize("release", ["refused", "unhealthy", "dies"])
def test_the_waves_bound_how_far_a_bad_release_goes(release: Badness) -> None:
    all_ten, policy = [Class(labels={}, size=10)], Policy(waves=(Wave(count=1),))
    in_waves = GroupModel(VIEWS["start-first", release], all_ten, policy, 4)
    at_once = GroupModel(VIEWS["start-first", release], all_ten, Policy(), 4)

    assert 1 == explore_group(in_waves, 0).reached
    assert 4 == explore_group(at_once, 0).reached


def test_a_wave_that_takes_its_share_lets_the_others_follow() -> None:
    all_ten = [Class(labels={}, size=10)]
    policy = Policy(waves=(Wave(count=1), Wave(percent=30.0)), canary=2, max_in_progress=6)

    assert [1, 3, 2, 6] == [one.most for one in phases_of(policy, all_ten)]
    assert 6 == explore_group(GroupModel(VIEWS["stop-first", "none"], all_ten, policy, 4), 0).lowest


def test_three_hundred_in_five_racks_are_checked_in_a_minute() -> None:
    """The time is a benchmark of ``make bench``; here it is enough that the counters don't grow with the group."""
    small = checked(racks(5, 6), Policy(budgets=(Budget(label="rack", max_out=1),)), 2, strategies=STOP_FIRST)
    large = checked(racks(5, 60), Policy(budgets=(Budget(label="rack", max_out=1),)), 2, strategies=STOP_FIRST)

    assert [row.states for row in small] == [row.states for row in large]
    assert 298 == lowest(large, lost=False)


def test_a_view_that_gives_its_turn_back_too_early_breaks_it() -> None:
    """The composition can fail: a view that does not serve without a turn is counted as what it is."""
    good = VIEWS["stop-first", "none"]
    out = next(state for state, look in enumerate(good.looks) if look == 1)
    looks = tuple(0 if state == out else look for state, look in enumerate(good.looks))
    faulty: OutsideView = replace(good, looks=looks)
    model = GroupModel(faulty, [Class(labels={}, size=10)], Policy(), 1)

    found = explore_group(model, 0, required_by(Policy(), [Class(labels={}, size=10)], 9))

    assert found.broken
    assert not good.looks[out] & SERVES
