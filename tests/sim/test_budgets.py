"""Twelve instances in three racks: never two out in one rack, judged at every revision of the store."""

from functools import partial

import pytest

from tests.sim.fleet import Fleet
from tests.sim.test_fleet import all_on, chunks, disturb, stopped_at
from tests.support.rings import mostly_long


def fleet_of(seed: int, **facts: object) -> Fleet:
    strategy = "stop-first" if seed % 2 else "start-first"
    return Fleet(seed, instances=12, slots=6, racks=3, strategy=strategy, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "seeds",
    mostly_long(chunks(range(50), 2), short=lambda seeds: seeds[0] == 0),
    ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}",
)
def test_sidekicks_killed_at_random_never_take_two_of_one_rack_out(seeds: range) -> None:
    """
    1. six turns, and a budget of one per rack; sidekicks and machines die, leases end, answers get lost
    2. everybody comes to the release, and never more than one of a rack was out
    3. the racks went in parallel
    """
    for seed in seeds:
        fleet = fleet_of(seed)
        fleet.run(fleet.at_rest)
        disturb(fleet, crashes=4 + seed % 8, lapses=seed % 5)

        fleet.promote("2.0.0")
        fleet.run(partial(all_on, fleet, "2.0.0"))

        assert 2 <= fleet.most_slots <= 3, f"seed {seed}"
        assert not fleet.promises.budgets, f"seed {seed}: left behind: {fleet.promises.budgets}"


def test_a_bad_release_stops_and_gives_every_slot_of_its_budgets_back() -> None:
    for seed in range(2):
        fleet = fleet_of(seed, bad={"3.0.0": "unhealthy"})
        fleet.run(fleet.at_rest)
        disturb(fleet, crashes=2, lapses=1)

        fleet.promote("3.0.0")
        fleet.run(partial(stopped_at, fleet, "3.0.0"))

        assert {"1.0.0"} == set(fleet.versions())
        assert not fleet.promises.budgets, f"seed {seed}"


def test_what_an_operator_frees_is_free_in_its_rack_too() -> None:
    """
    1. a sidekick dies with a turn; its rack waits, the others go on
    2. an operator frees the turn: the rack goes on
    """
    fleet = fleet_of(3)
    fleet.run(fleet.at_rest)
    fleet.promote("2.0.0")
    fleet.run(lambda: bool(fleet.slots))
    owner = next(member for member in fleet.members if member.name == next(iter(fleet.slots.values())).instance)
    fleet.crash(owner, 100_000.0)
    rack = fleet.labels_of(owner.name)["rack"]
    others = [one for one in fleet.members if fleet.labels_of(one.name)["rack"] != rack]
    fleet.run(lambda: all(fleet.versions()[fleet.members.index(one)] == "2.0.0" for one in others))
    same = [one for one in fleet.members if fleet.labels_of(one.name)["rack"] == rack and one is not owner]
    assert {"1.0.0"} == {fleet.versions()[fleet.members.index(one)] for one in same}

    fleet.end_turn(owner)

    fleet.run(lambda: all(fleet.versions()[fleet.members.index(one)] == "2.0.0" for one in same))
