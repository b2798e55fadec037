"""Releases that are analysed, in simulated fleets: what errs is blocked, what stays undecided blocks nothing."""

from functools import partial

import pytest

from outrider.core.omaha import FailureCode
from outrider.core.sidekick.memory import Strategy
from tests.sim.fleet import Fleet
from tests.sim.test_fleet import all_on, disturb, stopped_at
from tests.support.rings import mostly_long

STRATEGIES: tuple[Strategy, ...] = ("start-first", "stop-first")
SEEDS = mostly_long(range(24), short=lambda seed: seed < 2)


def paused_over(fleet: Fleet, version: str) -> bool:
    return all(member.up and member.machine.memory.undecided == version for member in fleet.members)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_release_that_answers_errors_is_blocked_and_one_that_does_not_is_rolled_out(seed: int) -> None:
    fleet = Fleet(seed, strategy=STRATEGIES[seed % 2], bad={"2.0.0": "errs"}, analysis="pause")
    fleet.run(fleet.at_rest)
    disturb(fleet, crashes=seed % 4, lapses=seed % 3)

    fleet.promote("2.0.0")
    fleet.run(partial(stopped_at, fleet, "2.0.0"))

    assert {"1.0.0"} == set(fleet.versions()), f"seed {seed}"
    assert len(fleet.touched["2.0.0"]) <= 2, f"seed {seed}: P5"
    fleet.promote("3.0.0")
    fleet.run(partial(all_on, fleet, "3.0.0"))


@pytest.mark.parametrize("seed", SEEDS)
def test_undecided_pauses_each_instance_on_what_it_ran_and_gives_every_turn_back(seed: int) -> None:
    """
    1. nobody sends the new release enough requests: every instance goes back, is paused, and blocks nothing
    2. an operator resumes one of them: it takes the release as it is
    3. another release comes: whoever was paused over the first follows it without being resumed
    """
    fleet = Fleet(seed, instances=4, strategy=STRATEGIES[seed % 2], bad={"2.0.0": "unasked"}, analysis="pause")
    fleet.run(fleet.at_rest)
    disturb(fleet, crashes=seed % 3, lapses=seed % 2)

    fleet.promote("2.0.0")
    fleet.run(partial(paused_over, fleet, "2.0.0"))
    fleet.run(lambda: not fleet.slots and {"1.0.0"} == set(fleet.versions()))

    assert not fleet.blocked, f"seed {seed}"
    first = fleet.members[0]
    fleet.run(lambda: first.outbox[-1].event.error_code == FailureCode.UNDECIDED)
    fleet.command(first, "resume")
    fleet.run(lambda: sorted(fleet.versions()) == ["1.0.0"] * 3 + ["2.0.0"])
    fleet.promote("3.0.0")
    fleet.run(partial(all_on, fleet, "3.0.0"))


@pytest.mark.parametrize("seed", SEEDS)
def test_undecided_may_pass_or_count_as_this_instances_failure(seed: int) -> None:
    passes = Fleet(seed, instances=3, bad={"2.0.0": "unasked"}, analysis="pass")
    passes.run(passes.at_rest)
    passes.promote("2.0.0")
    passes.run(partial(all_on, passes, "2.0.0"))

    fails = Fleet(seed, instances=3, bad={"2.0.0": "unasked"}, analysis="fail")
    fails.run(fails.at_rest)
    fails.promote("2.0.0")
    fails.run(lambda: all(member.machine.memory.setback is not None for member in fails.members) and fails.at_rest())

    assert {"1.0.0"} == set(fails.versions())
    assert not fails.blocked
    assert not fails.slots
    assert FailureCode.ROLLED_BACK == fails.members[0].outbox[-1].event.error_code
