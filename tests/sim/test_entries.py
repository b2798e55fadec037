"""What a person does to servers' entries is put right by the sidekicks that own them, whatever else goes on.

Each run has a schedule of its own: entries vanish or name something else while instances are idle, in the middle of an
update, paused, or killed.
"""

from functools import partial

import pytest

from outrider.core.sidekick.memory import Strategy
from tests.sim.fleet import Fleet, Member

FOREIGN = "http://10.9.9.9:80"
RESTORED_WITHIN_S = 5.0


def are_right(fleet: Fleet) -> bool:
    return all(member.entry == member.running_url and member.entry in member.workloads for member in fleet.members)


def vanish(fleet: Fleet, member: Member) -> None:
    fleet.take_entry(member)


def overwrite(fleet: Fleet, member: Member) -> None:
    fleet.take_entry(member, FOREIGN)


def revert(fleet: Fleet, member: Member) -> None:
    """As a restore of an older etcd would: the address of a version that is long gone."""
    fleet.take_entry(member, f"http://{member.name}:7999")


@pytest.mark.parametrize("harm", [vanish, overwrite, revert])
@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
def test_an_idle_sidekick_puts_its_entry_right_within_seconds_and_says_so(strategy: Strategy, harm: object) -> None:
    fleet = Fleet(11, instances=3, slots=1, strategy=strategy)
    fleet.run(fleet.at_rest)
    began_s = fleet.now_s

    for member in fleet.members:
        harm(fleet, member)  # type: ignore[operator]
    fleet.run(partial(are_right, fleet))

    assert fleet.now_s - began_s < RESTORED_WITHIN_S
    fleet.run(fleet.at_rest)
    notices = [member.machine.memory.notice for member in fleet.members]
    assert all("its entry in the balancer" in notice and "put right at" in notice for notice in notices), notices


@pytest.mark.parametrize("state", ["idle.paused", "downloading.fetching", "swapping.queueing"])
def test_it_does_so_wherever_nothing_has_moved_yet(state: str) -> None:
    """Paused, or on the way to an update that hasn't begun to swap: the entry comes first."""
    fleet = Fleet(5, instances=4, slots=1)
    fleet.run(fleet.at_rest)
    if state == "idle.paused":
        fleet.command(fleet.members[0], "pause")
    else:
        fleet.promote("2.0.0")

    def holders() -> set[str]:
        return {slot.instance for slot in fleet.slots.values()}

    def there() -> list[Member]:
        return [one for one in fleet.members if one.machine.state == state and one.name not in holders()]

    fleet.run(lambda: bool(there() and (state != "swapping.queueing" or holders())))
    (member, *_) = there()

    fleet.take_entry(member)
    began_s = fleet.now_s
    fleet.run(lambda: member.entry == member.running_url and member.entry is not None)

    assert fleet.now_s - began_s < RESTORED_WITHIN_S


@pytest.mark.parametrize("seed", range(6))
def test_whenever_entries_are_harmed_during_an_update_all_are_right_in_the_end(seed: int) -> None:
    fleet = Fleet(seed, instances=5, slots=2, strategy="stop-first" if seed % 2 else "start-first")
    fleet.run(fleet.at_rest)
    fleet.promote("2.0.0")
    for number, harm in enumerate((vanish, overwrite, revert) * 3):
        member = fleet.random.choice(fleet.members)
        fleet.at(fleet.random.uniform(0.0, 60.0) + number * 0.01, partial(harm, fleet, member))
    for _ in range(seed % 3):
        fleet.at(fleet.random.uniform(0.0, 40.0), partial(fleet.crash, fleet.random.choice(fleet.members), 2.0))

    fleet.run(lambda: fleet.now_s > 62.0 and fleet.at_rest() and set(fleet.versions()) == {"2.0.0"})

    fleet.run(partial(are_right, fleet))
    assert not fleet.blocked
