"""A thousand rollouts in one fleet's life: nothing stuck, nothing left behind, nothing that grows.

The short form is the lives that once found something, of up to fifty rollouts each.
"""

import statistics

import pytest

from tests.sim.fleet import Breach
from tests.sim.long_run import LongRun

WARM_UP = 200
"""Rollouts until versions and counters have got their usual length and the list of bad releases its limit."""
GROWTH_BYTES = 64
"""Revisions, request numbers and versions get a digit or two longer in a thousand rollouts; nothing else may."""
GROWTH_OBJECTS = 0.06
"""Of all that the garbage collector tracks: chance decides how many calls, timers and watches a look meets. A leak of
ten objects in each rollout would be twice that."""


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [100, 101], ids=["start-first", "stop-first"])
def test_a_fleet_lives_through_a_thousand_roll_outs(seed: int) -> None:
    """The run itself judges every change of the world and looks for leftovers; see ``long_run.py``."""
    figures = LongRun(seed, instances=4).run(1000)

    assert 1000 == len(figures.journal_bytes)
    early, late = figures.journal_bytes[WARM_UP : WARM_UP + 300], figures.journal_bytes[-300:]
    assert statistics.median(late) - statistics.median(early) <= GROWTH_BYTES, "what a sidekick remembers grows"
    assert statistics.median(figures.objects[-3:]) <= statistics.median(figures.objects[1:4]) * (1 + GROWTH_OBJECTS)
    assert len(figures.troubles) >= 15, "every kind of trouble has come"
    assert set(figures.kinds) >= {"good", "refused", "unhealthy", "dies", "sours", "called off", "superseded"}


def test_a_run_sees_what_is_left_behind() -> None:
    run = LongRun(3, instances=3)
    stray = run.fleet.members[0].host

    def leave() -> None:
        stray.recorded["stray"] = f"http://{stray.name}:9"

    run.fleet.at(50.0, leave)

    with pytest.raises(Breach, match=r"left behind: web-0: workloads .*again: python -m tests\.sim\.long_run --seed 3"):
        run.run(2)


# Seeds of runs that found something, each with the rollouts until then and what it was.
# Those that take seconds are long.
FOUND = [
    pytest.param(10, 10, 0, id="a-standstill-blocked-a-good-release"),
    pytest.param(7, 26, 0, id="a-taken-command-was-left-behind", marks=pytest.mark.long),
    pytest.param(9, 49, 0, id="a-taken-command-was-left-behind-again", marks=pytest.mark.long),
    pytest.param(
        *(158, 47, 0),
        id="an-app-that-fell-was-not-restarted-once-the-service-had-nothing-newer",
        marks=pytest.mark.long,
    ),
]


@pytest.mark.parametrize(("seed", "rollouts", "instances"), FOUND)
def test_a_seed_that_found_something_finds_nothing_now(seed: int, rollouts: int, instances: int) -> None:
    figures = LongRun(seed, instances=instances).run(rollouts)

    assert rollouts == sum(figures.kinds.values())
