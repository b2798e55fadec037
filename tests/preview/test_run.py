"""One rollout in simulated time: the real chart, lock decisions and policy."""

from datetime import timedelta

import pytest

from outrider.core.rollout.budgets import Budget
from outrider.core.rollout.wave_settings import Wave
from outrider.core.rollout.windows import Window
from outrider.core.sidekick.memory import Strategy
from tests.preview.groups import MONDAY, group, most_at_once, once


@pytest.mark.parametrize(("strategy", "lowest"), [("start-first", 4), ("stop-first", 3)])
def test_a_good_release_reaches_all_one_after_the_other(strategy: Strategy, lowest: int) -> None:
    found = once(group(strategy=strategy))

    assert {"web-0", "web-1", "web-2", "web-3"} == set(found.updated)
    assert "" == found.stopped
    assert 1 == most_at_once(found)
    assert lowest == found.lowest
    assert 84.0 == pytest.approx(found.ended_s, rel=0.05), "a download and four turns of 20 s"


def test_two_turns_at_once_take_half_the_time() -> None:
    one, two = once(group(8)), once(group(8, slots=2))

    assert 2 == most_at_once(two)
    assert one.ended_s / 2 == pytest.approx(two.ended_s, rel=0.1)


def test_a_release_that_the_first_one_blocks_reaches_nobody_else() -> None:
    found = once(group(), fails_at=1)

    assert 1 == len(found.reached)
    assert () == found.updated
    assert found.stopped.startswith("2.0.0 is blocked:")
    assert 4 == found.lowest


def test_while_it_is_watched_a_bad_release_serves_on_one_instance() -> None:
    found = once(group(), fails_at=1, how="soaking")

    assert 1 == len(found.reached)
    assert 3 == found.lowest
    assert 4 == found.capacity[-1].serving, "it was taken back"


def test_after_the_first_success_a_failure_is_one_machines() -> None:
    found = once(group(), fails_at=2)

    assert 3 == len(found.updated)
    assert 4 == len(found.reached)
    (failed,) = found.failed
    assert f"failed, and not tried again unasked: {failed}" == found.stopped


def test_the_threshold_halts_the_rollout_and_who_took_a_turn_before_finishes() -> None:
    """The turn of the one that failed is free a moment before the service has heard of the failure."""
    found = once(group(6, max_failures=1), fails_at=2)

    assert 2 == len(found.updated)
    assert 3 == len(found.reached)
    assert "1 failed (max_failures 1)" in found.stopped


def test_a_budget_lets_one_of_each_rack_be_out() -> None:
    found = once(group(8, slots=4, racks=2, budgets=(Budget(label="rack", max_out=1),)))

    assert 8 == len(found.updated)
    assert 2 == most_at_once(found)


def test_waves_go_in_their_order_with_their_soak_time() -> None:
    waves = (Wave(selector="rack=1", count=1, soak_s=600), Wave(selector="rack=1"))

    found = once(group(6, slots=3, waves=waves))

    assert 6 == len(found.updated)
    racks = [int(one.removeprefix("web-")) % 2 for one in found.updated]
    assert [1, 1, 1, 0, 0, 0] == racks
    first, second = found.turns[0], sorted(found.turns, key=lambda one: one.began_s)[1]
    assert first.ended_s is not None
    assert 600.0 <= second.began_s - first.ended_s <= 620.0


def test_updates_begin_in_the_window_only() -> None:
    found = once(group(windows=(Window(days=("mon",), opens="22:00", closes="23:00"),)))

    opens = (MONDAY.replace(hour=22) - MONDAY).total_seconds()
    assert 4 == len(found.updated)
    assert opens <= found.turns[0].began_s <= opens + 10.0


def test_an_etcd_that_is_away_costs_time_and_no_instance() -> None:
    plain, found = once(group(strategy="stop-first")), once(group(strategy="stop-first"), away_from_s=30.0, away_s=60.0)

    assert 4 == len(found.updated)
    assert plain.lowest == found.lowest == 3
    assert plain.ended_s + 40.0 <= found.ended_s


def test_a_person_halts_it_and_who_waits_begins_no_swap() -> None:
    """
    1. four instances have their grants, and one has the turn
    2. the rollout is halted
    3. that one finishes; nobody else begins
    """
    found = once(group(), halted_at_s=10.0)

    assert 1 == len(found.reached) == len(found.updated)
    assert "halted" in found.stopped


def test_the_percentage_leaves_some_out_with_their_reason() -> None:
    found = once(group(10, percent=50.0))

    assert 10 == len(found.updated) + len(found.outside)
    assert found.outside
    assert all("50 % of the instances" in why for why in found.outside.values())
    assert "" == found.stopped


def test_the_same_seed_gives_the_same_run() -> None:
    assert once(group(), seed=3) == once(group(), seed=3)
    assert timedelta(0) < timedelta(seconds=once(group(), seed=3).ended_s)
