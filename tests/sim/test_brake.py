"""A rollout that is paused stands still (P16), and one that is undone goes back under turns (P14)."""

from functools import partial

import pytest

from outrider.core.sidekick.memory import Strategy
from outrider.sidekick.workers.lock import LockWork
from tests.sim.fleet import Breach, Fleet, Member
from tests.sim.test_fleet import all_on, disturb
from tests.support.rings import mostly_long

STILL_S = 600.0


def begun(fleet: Fleet) -> set[str]:
    """Instances whose swap is under way or done."""
    return {member.name for member in fleet.members if _has_begun(fleet, member)}


def _has_begun(fleet: Fleet, member: Member) -> bool:
    memory = member.kept.memory  # what runs, also on a machine that is switched off
    done = memory is not None and memory.running is not None and memory.running.release.version == "2.0.0"
    return done or any(slot.instance == member.name for slot in fleet.slots.values())


def braked(fleet: Fleet) -> None:
    fleet.brake(braked=True)


@pytest.mark.parametrize(
    "seeds",
    mostly_long([range(3), range(3, 12), range(12, 24)], short=lambda seeds: seeds[0] == 0),
    ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}",
)
def test_nobody_begins_while_the_rollout_is_paused_and_all_go_on_afterwards(seeds: range) -> None:
    for seed in seeds:
        strategy: Strategy = "stop-first" if seed % 2 else "start-first"
        fleet = Fleet(seed, strategy=strategy)
        fleet.run(fleet.at_rest)
        disturb(fleet, crashes=seed % 4, lapses=seed % 3)
        fleet.faults.late = 0.05 if seed % 2 else 0.0
        fleet.at(fleet.random.uniform(0.5, 40.0), partial(braked, fleet))

        fleet.promote("2.0.0")
        fleet.run(lambda fleet=fleet: fleet.braked)  # type: ignore[misc]
        at_the_pause = begun(fleet)
        fleet.run(lambda fleet=fleet: fleet.at_rest() and fleet.now_s > 120.0)  # type: ignore[misc]
        until_s = fleet.now_s + STILL_S
        fleet.run(lambda fleet=fleet, until_s=until_s: fleet.now_s > until_s)  # type: ignore[misc]

        assert begun(fleet) <= at_the_pause, f"seed {seed}: began after the pause"
        fleet.brake(braked=False)
        fleet.run(partial(all_on, fleet, "2.0.0"))
        assert not fleet.blocked, f"seed {seed}"


@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
def test_who_waits_for_a_turn_leaves_the_queue_within_two_seconds(strategy: Strategy) -> None:
    fleet = Fleet(5, strategy=strategy, slots=1)
    fleet.run(fleet.at_rest)
    fleet.promote("2.0.0")
    fleet.run(lambda: len(fleet.promises.queue) > 3)

    fleet.brake(braked=True)
    paused_s = fleet.now_s
    fleet.run(lambda: fleet.promises.queue <= {slot.instance for slot in fleet.slots.values()})

    assert fleet.now_s - paused_s < 2.0


def test_a_pause_that_is_taken_back_at_once_stops_nobody_for_long() -> None:
    fleet = Fleet(9)
    fleet.run(fleet.at_rest)
    fleet.promote("2.0.0")
    fleet.run(lambda: len(fleet.promises.queue) > 3)
    for _ in range(3):
        fleet.brake(braked=True)
        fleet.brake(braked=False)

    fleet.run(partial(all_on, fleet, "2.0.0"), within_s=900.0)


def test_the_simulator_sees_a_sidekick_that_compares_neither_brake_nor_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LockWork, "_permission", lambda self, effect: None)
    monkeypatch.setattr("tests.sim.keeper.SimAnnouncements._tell_grant", lambda self, entries, revision: None)
    fleet = Fleet(5, slots=1)
    fleet.run(fleet.at_rest)
    fleet.promote("2.0.0")
    fleet.run(lambda: len(fleet.promises.queue) > 3)

    fleet.brake(braked=True)

    with pytest.raises(Breach, match="P16"):
        fleet.run(partial(all_on, fleet, "2.0.0"))


@pytest.mark.parametrize(
    "seeds",
    mostly_long([range(2), range(2, 12)], short=lambda seeds: seeds[0] == 0),
    ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}",
)
def test_a_group_that_is_taken_back_converges_from_any_moment_of_a_rollout(seeds: range) -> None:
    for seed in seeds:
        strategy: Strategy = "stop-first" if seed % 2 else "start-first"
        fleet = Fleet(seed, strategy=strategy)
        fleet.run(fleet.at_rest)
        disturb(fleet, crashes=seed % 4, lapses=seed % 3)
        at_s = fleet.now_s + fleet.random.uniform(0.5, 90.0)

        fleet.promote("2.0.0")
        fleet.run(lambda fleet=fleet, at_s=at_s: fleet.now_s > at_s)  # type: ignore[misc]
        if seed % 3 == 0:
            fleet.brake(braked=True)
        fleet.undo("1.0.0")
        fleet.run(partial(all_on, fleet, "1.0.0"))

        assert fleet.most_slots <= 2, f"seed {seed}"
        assert not fleet.blocked, f"seed {seed}"
