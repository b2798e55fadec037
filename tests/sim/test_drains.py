"""Draining, coming back and leaving for good, in a fleet that updates meanwhile, with kills in every state there."""

from functools import partial

import pytest

from outrider.core.sidekick.memory import Strategy
from outrider.model.documents import Gone, decode
from tests.sim.fleet import Fleet, Member
from tests.sim.life import APP
from tests.sim.store import KEYS


def drained(member: Member) -> bool:
    return member.machine.state == "idle.drained" and member.entry is None


def serves(member: Member) -> bool:
    return member.machine.state == "idle.waiting" and member.entry == member.running_url != ""


@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
@pytest.mark.parametrize("paused", ["nothing", "instance", "group"])
def test_a_drained_instance_is_out_under_a_turn_until_it_is_called_back(strategy: Strategy, paused: str) -> None:
    """It works during a pause, doesn't count as serving, keeps its app, and gives the turn back when it serves."""
    fleet = Fleet(3, instances=3, slots=1, strategy=strategy)
    fleet.run(fleet.at_rest)
    member = fleet.members[0]
    if paused == "instance":
        fleet.command(member, "pause")
        fleet.run(lambda: member.machine.state == "idle.paused")
    elif paused == "group":
        fleet.pause(paused=True)

    fleet.command(member, "drain")
    fleet.run(partial(drained, member))

    assert {"web-0"} == {slot.instance for slot in fleet.slots.values()}
    assert 1 == len(member.workloads)
    assert member.machine.memory.is_out

    fleet.command(member, "undrain")
    fleet.run(lambda: member.entry == member.running_url and not fleet.slots)
    assert not member.machine.memory.is_out


def test_the_rest_waits_for_the_turn_and_then_goes_on() -> None:
    fleet = Fleet(7, instances=3, slots=1)
    fleet.run(fleet.at_rest)
    member = fleet.members[1]
    fleet.command(member, "drain")
    fleet.run(partial(drained, member))
    fleet.promote("2.0.0")
    began_s = fleet.now_s
    fleet.run(lambda: fleet.now_s > began_s + 120.0)
    assert {"1.0.0", "nothing"} == set(fleet.versions())

    fleet.command(member, "undrain")

    fleet.run(lambda: fleet.at_rest() and set(fleet.versions()) == {"2.0.0"})


@pytest.mark.parametrize("seed", range(4))
def test_a_drain_that_comes_in_mid_update_waits_for_its_end(seed: int) -> None:
    fleet = Fleet(seed, instances=3, slots=1, strategy="stop-first" if seed % 2 else "start-first")
    fleet.run(fleet.at_rest)
    fleet.promote("2.0.0")
    fleet.run(lambda: any(one.machine.state.startswith("swapping.so") for one in fleet.members))
    member = next(one for one in fleet.members if one.machine.state.startswith("swapping.so"))

    fleet.command(member, "drain")
    fleet.run(partial(drained, member))

    assert member.machine.memory.running is not None
    assert "2.0.0" == member.machine.memory.running.release.version


STATES = ("idle.retaking", "idle.leaving", "idle.emptying", "idle.drained", "idle.stopping", "idle.resigning")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", ["crash", "reboot", "lapse"])
def test_trouble_in_any_state_on_the_way_out_is_mended_by_a_restart_alone(state: str, how: str) -> None:
    fleet = Fleet(STATES.index(state), instances=3, slots=1)
    fleet.run(fleet.at_rest)
    member = fleet.members[2]
    leaves_for_good = state in ("idle.stopping", "idle.resigning")
    fleet.command(member, "decommission" if leaves_for_good else "drain")
    fleet.run(lambda: member.machine.state == state)

    if how == "lapse":
        fleet.lose_lease(member)
    else:
        getattr(fleet, how)(member, 3.0)
    if leaves_for_good:
        fleet.run(lambda: member.up and member.machine.state == "idle.refused")
        assert {} == member.workloads
        assert not fleet.slots
        return
    fleet.run(lambda: member.up and drained(member))
    fleet.command(member, "undrain")
    fleet.run(partial(serves, member))
    fleet.run(lambda: not fleet.slots)


@pytest.mark.parametrize("state", ["idle.waking", "idle.proving", "idle.joining", "idle.releasing"])
def test_so_is_trouble_on_the_way_back(state: str) -> None:
    fleet = Fleet(13, instances=3, slots=1)
    fleet.run(fleet.at_rest)
    member = fleet.members[0]
    fleet.command(member, "drain")
    fleet.run(partial(drained, member))
    fleet.command(member, "undrain")
    fleet.run(lambda: member.machine.state == state)

    fleet.crash(member, 2.0)

    fleet.run(lambda: member.up and serves(member) and not fleet.slots)


@pytest.mark.parametrize("kind", ["reboot", "restart"])
def test_a_drain_for_a_reboot_ends_with_the_next_boot_and_with_no_restart(kind: str) -> None:
    fleet = Fleet(17, instances=2, slots=1)
    fleet.run(fleet.at_rest)
    member = fleet.members[0]
    fleet.command(member, "drain", until_reboot=True)
    fleet.run(partial(drained, member))

    (fleet.reboot if kind == "reboot" else fleet.crash)(member, 5.0)

    if kind == "reboot":
        fleet.run(lambda: member.up and serves(member) and not fleet.slots)
    else:
        fleet.run(lambda: member.up and drained(member))
        began_s = fleet.now_s
        fleet.run(lambda: fleet.now_s > began_s + 60.0)
        assert drained(member)


@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
def test_an_instance_that_is_decommissioned_leaves_nothing_but_the_marker(strategy: Strategy) -> None:
    fleet = Fleet(19, instances=3, slots=1, strategy=strategy)
    fleet.run(fleet.at_rest)
    member = fleet.members[1]

    fleet.command(member, "decommission")
    fleet.run(lambda: member.machine.state == "idle.refused")

    assert {} == member.workloads
    left = [key for key, entry in fleet.store.entries.items() if "/web-1" in key or b'"web-1"' in entry.value]
    assert [KEYS.gone(APP, "web-1")] == [key for key in left if "/tickets/" not in key and "/commands/" not in key]
    marker = decode(Gone, left[0], fleet.store.entries[KEYS.gone(APP, "web-1")].value)
    assert ("decommissioned", "test") == (marker.how, marker.by)
    fleet.promote("2.0.0")
    others = [fleet.members[0], fleet.members[2]]
    fleet.run(lambda: ["2.0.0", "nothing", "2.0.0"] == fleet.versions() and all(serves(one) for one in others))
    assert "idle.refused" == member.machine.state


@pytest.mark.parametrize("state", ["idle.leaving", "idle.emptying", "idle.stopping", "idle.resigning"])
def test_a_turn_that_an_operator_takes_away_from_one_that_leaves_for_good_is_taken_again(state: str) -> None:
    """Found by the kill matrix: it asked to be removed without a turn again and again, and never was."""
    fleet = Fleet(5, instances=3, slots=1)
    fleet.run(fleet.at_rest)
    member = fleet.members[1]
    fleet.command(member, "decommission")
    fleet.run(lambda: member.machine.state == state)

    fleet.end_turn(member)

    fleet.run(lambda: member.machine.state == "idle.refused")
    assert {} == member.workloads
    fleet.run(lambda: not fleet.slots)


@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
@pytest.mark.parametrize("how", ["crash", "reboot", "lapse"])
def test_let_back_before_it_knows_that_it_had_gone_it_serves_again(strategy: Strategy, how: str) -> None:
    """Found by the kill matrix: its journal said that it leaves, so it removed itself once more."""
    fleet = Fleet(29, instances=3, slots=1, strategy=strategy)
    fleet.run(fleet.at_rest)
    member, marker = fleet.members[1], KEYS.gone(APP, "web-1")
    fleet.command(member, "decommission")
    fleet.run(lambda: member.machine.state == "idle.resigning")
    fleet.faults.lost_answers = 1.0
    fleet.run(lambda: marker in fleet.store.entries)
    fleet.faults.lost_answers = 0.0
    assert member.machine.memory.drain is not None, "it has heard of nothing yet"

    if how == "lapse":
        fleet.lose_lease(member)
    else:
        getattr(fleet, how)(member, 3.0)
    fleet.admit(member)
    fleet.run(lambda: member.up and serves(member) and not fleet.slots)

    assert marker not in fleet.store.entries
    assert member.machine.memory.drain is None
    fleet.promote("2.0.0")
    fleet.run(lambda: fleet.at_rest() and ["2.0.0"] * 3 == fleet.versions())
