"""Seven instances, two slots, two hundred schedules: P1, P3 and P5 as properties of the real chart."""

from functools import partial

import pytest

from outrider.core.blame import Evidence
from outrider.core.omaha import FailureCode
from outrider.core.sidekick.memory import Strategy
from tests.sim.fleet import Badness, Breach, Fleet
from tests.support.rings import mostly_long

SEEDS = range(200)


def chunks(seeds: range, size: int) -> list[range]:
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


def disturb(fleet: Fleet, crashes: int, lapses: int) -> None:
    """Spread crashes, of sidekicks and of whole machines, and lost leases over the first minute."""
    fleet.lost_answers = 0.02
    for _ in range(crashes):
        member, down_s = fleet.random.choice(fleet.members), fleet.random.uniform(0.1, 20.0)
        crash = fleet.random.choice((fleet.crash, fleet.reboot))
        fleet.at(fleet.random.uniform(0.0, 60.0), partial(crash, member, down_s))
    for _ in range(lapses):
        member = fleet.random.choice(fleet.members)
        fleet.at(fleet.random.uniform(0.0, 60.0), partial(fleet.lose_lease, member))


def all_on(fleet: Fleet, version: str) -> bool:
    return fleet.at_rest() and set(fleet.versions()) == {version}


def stopped_at(fleet: Fleet, version: str) -> bool:
    return fleet.at_rest() and fleet.blocked == {version}


@pytest.mark.parametrize(
    "seeds",
    mostly_long(chunks(SEEDS, 5), short=lambda seeds: seeds[0] == 0),
    ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}",
)
def test_a_good_release_reaches_every_instance_and_never_more_than_slots_swap(seeds: range) -> None:
    for seed in seeds:
        fleet = Fleet(seed, strategy="stop-first" if seed % 2 else "start-first")
        fleet.run(fleet.at_rest)
        disturb(fleet, crashes=seed % 5, lapses=seed % 3)

        fleet.promote("2.0.0")
        fleet.run(partial(all_on, fleet, "2.0.0"))

        assert {len(member.workloads) for member in fleet.members} == {1}, f"seed {seed}: something was left running"
        assert fleet.most_slots <= 2
        assert not fleet.blocked, f"seed {seed}: a good release was blocked"


@pytest.mark.parametrize("badness", ["refused", "unhealthy", "dies"])
@pytest.mark.parametrize(
    "seeds",
    mostly_long(chunks(range(66), 4), short=lambda seeds: seeds[0] == 0),
    ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}",
)
def test_a_bad_release_stops_at_the_slots_and_everybody_comes_home(seeds: range, badness: Badness) -> None:
    for seed in seeds:
        fleet = Fleet(seed, strategy="stop-first" if seed % 2 else "start-first", bad={"3.0.0": badness})
        fleet.run(fleet.at_rest)
        disturb(fleet, crashes=seed % 3, lapses=seed % 2)

        fleet.promote("3.0.0")
        fleet.run(partial(stopped_at, fleet, "3.0.0"))

        assert set(fleet.versions()) == {"1.0.0"}, f"seed {seed}: {fleet.versions()}"
        assert len(fleet.touched["3.0.0"]) <= 2, f"seed {seed}: P5: {fleet.touched['3.0.0']}"
        assert {len(member.workloads) for member in fleet.members} == {1}, f"seed {seed}: something was left running"


@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
@pytest.mark.parametrize(
    "seeds",
    mostly_long(chunks(range(10), 2), short=lambda seeds: seeds[0] == 0),
    ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}",
)
def test_an_image_that_no_runtime_can_run_blocks_nothing_and_the_next_archive_is_rolled_out(
    seeds: range, strategy: Strategy
) -> None:
    for seed in seeds:
        fleet = Fleet(seed, strategy=strategy)
        fleet.run(fleet.at_rest)
        fleet.images.add("2.0.0")
        disturb(fleet, crashes=seed % 4, lapses=seed % 3)

        fleet.promote("2.0.0")
        fleet.run(lambda fleet=fleet: fleet.now_s > 120.0 and fleet.at_rest())  # type: ignore[misc]
        asked = fleet.asked
        fleet.run(lambda fleet=fleet: fleet.now_s > 3000.0)  # type: ignore[misc]

        assert (asked, 0) == (fleet.asked, fleet.most_slots), f"seed {seed}: it asks again, or took a turn"
        assert not fleet.blocked, f"seed {seed}"
        assert "2.0.0" not in fleet.touched, f"seed {seed}"
        assert {"1.0.0"} == set(fleet.versions())
        for member in fleet.members:
            assert member.kept.memory is not None
            assert "2.0.0 is a container image" in member.kept.memory.deferred_reason
            assert FailureCode.UNSUPPORTED == member.outbox[-1].event.error_code
        fleet.promote("3.0.0")
        fleet.run(partial(all_on, fleet, "3.0.0"))


@pytest.mark.parametrize("evidence", ["noexec", "wrong-setting", "disk-full", "no-interpreter"])
def test_one_machines_trouble_blocks_nothing_and_all_others_are_updated(evidence: Evidence) -> None:
    """P11: whichever machine it is and whenever its turn comes; it waits, and takes the release once it can."""
    for seed in range(3):
        fleet = Fleet(seed, instances=4, strategy="stop-first" if seed % 2 else "start-first")
        fleet.run(fleet.at_rest)
        unlucky = fleet.members[seed % 4]
        unlucky.host.cannot["2.0.0"] = evidence
        disturb(fleet, crashes=seed % 3, lapses=seed % 2)

        fleet.promote("2.0.0")
        fleet.run(lambda: sorted(fleet.versions()) == ["1.0.0", *["2.0.0"] * 3])  # noqa: B023

        assert not fleet.blocked, f"seed {seed}"
        memory = unlucky.kept.memory
        assert memory is not None
        assert memory.running is not None
        assert "1.0.0" == memory.running.release.version
        unlucky.host.cannot.clear()
        fleet.run(lambda: unlucky.machine.state in ("idle.waiting", "idle.deferred", "idle.cooling"))  # noqa: B023
        fleet.command(unlucky, "retry")
        fleet.run(partial(all_on, fleet, "2.0.0"))


@pytest.mark.parametrize("badness", ["refused", "unhealthy", "dies"])
def test_what_one_has_committed_fails_on_another_alone(badness: Badness) -> None:
    """
    1. one instance runs the release for good
    2. on all others it fails, as a release does that is at fault
    3. none of them blocks it, and none tries it again
    """
    fleet = Fleet(3, instances=3, slots=1)
    fleet.run(fleet.at_rest)
    fleet.promote("2.0.0")
    fleet.run(lambda: "2.0.0" in fleet.promises.proved)

    fleet.bad["2.0.0"] = badness
    fleet.most_allowed = 9  # P5 speaks of what nobody has committed
    fleet.run(lambda: fleet.now_s > 400.0)
    tries = len(fleet.touched["2.0.0"])
    fleet.run(lambda: fleet.at_rest() and fleet.now_s > 4000.0)

    assert not fleet.blocked
    assert (tries, {"1.0.0", "2.0.0"}) == (len(fleet.touched["2.0.0"]), set(fleet.versions()))


def test_a_release_after_a_bad_one_is_rolled_out() -> None:
    fleet = Fleet(1, bad={"3.0.0": "unhealthy"})
    fleet.promote("3.0.0")
    fleet.run(lambda: fleet.blocked == {"3.0.0"} and fleet.at_rest())

    fleet.promote("3.0.1")
    fleet.run(lambda: fleet.at_rest() and set(fleet.versions()) == {"3.0.1"})

    assert len(fleet.touched["3.0.0"]) <= 2


def test_the_simulator_sees_a_broken_promise() -> None:
    """A world whose lock gives one turn too many must not pass."""
    fleet = Fleet(1)
    fleet.run(fleet.at_rest)
    fleet.promote("2.0.0")
    fleet.slots_allowed = 3

    def narrower() -> None:
        fleet.slots_allowed = 2
        fleet.check()

    fleet.run(lambda: len(fleet.slots) == 3)
    with pytest.raises(Breach, match="P1"):
        narrower()
