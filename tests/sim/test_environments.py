"""A new environment, and a rolling restart, are releases of the version that runs: turns, proofs and blocks hold."""

from functools import partial

import pytest

from outrider.core.sidekick.memory import Strategy
from tests.sim.fleet import Fleet
from tests.sim.test_fleet import all_on, disturb, stopped_at
from tests.support.rings import mostly_long

SEVENTH = "1.0.0 with environment 7"


def settled(seed: int, **facts: object) -> Fleet:
    """A fleet on 1.0.0, which is disturbed from here on."""
    strategy: Strategy = "stop-first" if seed % 2 else "start-first"
    fleet = Fleet(seed, strategy=strategy, **facts)  # type: ignore[arg-type]
    fleet.run(fleet.at_rest)
    disturb(fleet, crashes=seed % 4, lapses=seed % 3)
    fleet.faults.late = 0.05 if seed % 2 else 0.0
    return fleet


SEEDS = mostly_long([range(2), range(2, 20), range(20, 40)], short=lambda seeds: seeds[0] == 0)


@pytest.mark.parametrize("seeds", SEEDS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_a_new_environment_reaches_every_instance_under_turns_and_so_does_a_restart(seeds: range) -> None:
    for seed in seeds:
        fleet = settled(seed)

        fleet.give_environment(7)
        fleet.run(partial(all_on, fleet, SEVENTH))
        fleet.give_environment(7, generation=1)
        fleet.run(partial(all_on, fleet, f"{SEVENTH}, generation 1"))

        assert not fleet.blocked, f"seed {seed}"
        assert fleet.most_slots <= fleet.slots_allowed, f"seed {seed}"


@pytest.mark.parametrize("badness", ["refused", "unhealthy", "dies"])
@pytest.mark.parametrize("seeds", SEEDS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_a_bad_environment_stops_at_the_slots_and_the_version_goes_on_with_the_one_before(
    seeds: range, badness: str
) -> None:
    """P5 for an environment: it is blocked as the release that it is, and going back to the one before is allowed."""
    for seed in seeds:
        fleet = settled(seed, bad={SEVENTH: badness})

        fleet.give_environment(7)
        fleet.run(partial(stopped_at, fleet, SEVENTH))
        assert len(fleet.touched[SEVENTH]) <= fleet.slots_allowed, f"seed {seed}"
        fleet.give_environment(0)
        fleet.run(partial(all_on, fleet, "1.0.0"))
        fleet.give_environment(8)
        fleet.run(partial(all_on, fleet, "1.0.0 with environment 8"))

        assert {SEVENTH} == fleet.blocked, f"seed {seed}"
