"""Somebody changes what the update service says: nothing of his ever reaches a disk, and nobody is blocked (P13)."""

from functools import partial

import pytest

from outrider.core.sidekick.memory import Strategy
from tests.sim.fleet import Fleet
from tests.sim.host import sha_of
from tests.sim.test_fleet import all_on, disturb
from tests.sim.workers import FORGED


@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
def test_a_good_release_reaches_every_instance_although_every_other_answer_is_forged(strategy: Strategy) -> None:
    for seed in range(4):
        fleet = Fleet(seed, strategy=strategy, instances=4)
        fleet.run(fleet.at_rest)
        fleet.faults.forged_answers = 0.5
        disturb(fleet, crashes=seed % 3, lapses=seed % 2)

        fleet.promote("2.0.0")
        fleet.run(partial(all_on, fleet, "2.0.0"))

        assert not fleet.blocked, f"seed {seed}"
        assert FORGED not in fleet.touched, f"seed {seed}"
        assert all(sha_of(FORGED) not in member.host.payloads for member in fleet.members), f"seed {seed}"


def test_with_every_answer_forged_the_group_stays_where_it_is_and_says_why() -> None:
    fleet = Fleet(1, instances=3)
    fleet.run(fleet.at_rest)
    fleet.faults.forged_answers = 1.0

    fleet.promote("2.0.0")
    fleet.run(lambda: fleet.now_s > 600.0)

    assert {"1.0.0"} == set(fleet.versions())
    assert (0, set()) == (fleet.most_slots, fleet.blocked)
    for member in fleet.members:
        assert member.kept.memory is not None
        assert member.kept.memory.trouble is not None
        assert "refused: the update service offers" in member.kept.memory.trouble.cause
        assert "world" == member.kept.memory.trouble.blame
