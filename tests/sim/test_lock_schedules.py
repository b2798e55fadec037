"""The turn lock under hundreds of schedules: crashes, lapsed leases, lost and late calls, operators (P1, P2)."""

from random import Random

import pytest

from outrider.etcd.seam import KeyChanged
from tests.sim.lock_fixture import LockFixture, Trouble
from tests.sim.lock_history import KEYS, SCOPE, check_history
from tests.support.rings import mostly_long

SEEDS = mostly_long(range(70), short=lambda seed: seed < 4)


def trouble_of(seed: int, *, operator: bool) -> Trouble:
    """A mixture of its own for every seed: each kind of trouble is off, or so strong that kinds meet."""
    rng = Random(seed)

    def off_or(*strengths: float) -> float:
        return rng.choice((0.0, *strengths))

    return Trouble(
        no_call=off_or(0.03, 0.1),
        lost_answer=off_or(0.05, 0.2),
        late=off_or(0.05, 0.2),
        kill=off_or(0.001, 0.005),
        lapse=off_or(0.002, 0.01),
        pause=off_or(0.01),
        withdraw=off_or(0.05, 0.2),
        operator=off_or(0.001, 0.004) if operator else 0.0,
        resize=rng.choice((0.002, 0.006)) if operator else 0.0,
    )


def run_schedule(seed: int, *, instances: int, slots: int, trouble: Trouble, steps: int, racks: int = 0) -> LockFixture:
    fixture = LockFixture(seed, instances=instances, slots=slots, trouble=trouble, racks=racks)
    fixture.run(steps)
    return fixture


def check(fixture: LockFixture, slots: int) -> int:
    taken = check_history(fixture.history, slots)
    left = [key for key in fixture.store.entries if key.startswith(KEYS.turns(SCOPE))]
    assert left == [], f"left behind: {left}"
    return taken


@pytest.mark.parametrize("seed", SEEDS)
def test_never_more_than_the_slots_and_everybody_gets_a_turn_whatever_happens(seed: int) -> None:
    """
    1. 7 instances want turns again and again; 2 slots; calls and answers get lost, processes die, leases end
    2. the trouble stops; dirty turns are reclaimed by their owners
    3. at no revision were there more turns than slots, nobody was overtaken, no write passed without a turn;
       and everybody had two more turns
    """
    fixture = run_schedule(seed, instances=7, slots=2, trouble=trouble_of(seed, operator=False), steps=2000)

    assert check(fixture, 2) >= 14


@pytest.mark.parametrize("seed", SEEDS)
def test_reduced_slots_and_an_operators_release_keep_the_budget(seed: int) -> None:
    """The same with 3 slots that a target changes to 1, 2, 3 at any time, and an operator who frees turns in use."""
    fixture = run_schedule(seed, instances=5, slots=3, trouble=trouble_of(seed, operator=True), steps=2000)

    assert check(fixture, 3) >= 10


@pytest.mark.parametrize("seed", mostly_long(range(70), short=lambda seed: seed < 2))
def test_never_two_out_in_one_rack_and_everybody_gets_a_turn_whatever_happens(seed: int) -> None:
    """The first again with 4 slots and 3 racks; of each one may be out, and in each the order of arrival holds."""
    fixture = run_schedule(seed, instances=7, slots=4, trouble=trouble_of(seed, operator=False), steps=2000, racks=3)

    assert check(fixture, 4) >= 14


def test_without_trouble_turns_are_taken_in_the_order_of_arrival() -> None:
    fixture = run_schedule(1, instances=7, slots=1, trouble=Trouble(), steps=0)

    assert check(fixture, 1) == 14


def test_the_same_seed_gives_the_same_history() -> None:
    """A failing seed can be run again."""

    def history() -> list[KeyChanged]:
        return run_schedule(7, instances=4, slots=2, trouble=trouble_of(7, operator=True), steps=400).history

    assert history() == history()
