"""Each process of a sidekick proves who it is, through crashes and lost leases; an earlier one's proof is worthless."""

from functools import partial

import pytest

from tests.sim.fleet import Fleet
from tests.sim.test_fleet import all_on, disturb


@pytest.mark.parametrize("seed", range(3))
def test_every_check_in_of_a_sidekick_is_believed_and_none_of_anybody_else(seed: int) -> None:
    """
    1. a fleet updates, while its processes are killed and leases are lost
    2. no check-in of a sidekick was called unproved
    3. neither nothing, nor the proof of another instance, nor that of an earlier process is believed
    """
    fleet = Fleet(seed, instances=4)
    fleet.run(fleet.at_rest)
    before = {member.name: member.life.secret for member in fleet.members if member.life is not None}
    disturb(fleet, crashes=2, lapses=2)

    fleet.promote("2.0.0")
    fleet.run(partial(all_on, fleet, "2.0.0"))

    assert 0 == fleet.unproved
    now = {member.name: member.life.secret for member in fleet.members if member.life is not None}
    assert 4 == len(now)
    fleet.run(lambda: all(fleet.is_proved(name, secret) for name, secret in now.items()))
    for name, secret in now.items():
        others = [other for each, other in (*now.items(), *before.items()) if other != secret]
        assert [] == [each for each in ("", *others) if fleet.is_proved(name, each)]
