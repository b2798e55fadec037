"""A drain's turn is given back also when its answer was lost, whatever happens in between.

The model checker found it: the sidekick was killed before the turn that it had never heard of was given back, and the
turn stayed, for nobody.
"""

import pytest

from outrider.core.chart.machine import Step
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import ReleaseLock
from tests.core.sidekick.test_sidekick import TURN, Sidekick, effect, effects


def killed(sidekick: Sidekick) -> Step:
    """It is started again, finds its app, and is back in the balancer."""
    sidekick.tell(ev.SidekickRestarted)
    sidekick.answer("workload.ensure", ev.WorkloadStarted, workload_id="a-1", url="http://one")
    sidekick.answer("probe.confirm", ev.ProbePassed, url="http://one")
    return sidekick.answer("balancer.return", ev.BalancerJoined, url="http://one")


@pytest.mark.parametrize("kind", [ev.OperatorDrained, ev.OperatorDecommissioned])
def test_a_drain_may_hold_a_turn_from_when_it_was_wanted(kind: type[ev.OperatorDrained]) -> None:
    sidekick = Sidekick().come_up()

    sidekick.tell(kind, update="d1")

    assert "d1" == sidekick.memory.drain_turn


@pytest.mark.parametrize("heard", [True, False], ids=["a turn that was heard of", "a turn whose answer was lost"])
def test_killed_before_its_turn_was_given_back(heard: bool) -> None:
    sidekick = Sidekick().come_up()
    sidekick.tell(ev.OperatorDrained, update="d1")
    if heard:
        sidekick.answer("lock.retake", ev.LockAcquired, turn=TURN)
    sidekick.tell(ev.OperatorUndrained)

    step = killed(sidekick)

    assert "idle.releasing" == step.target
    assert (TURN.update if heard else "d1") == effect(step, ReleaseLock).update
    assert "idle.waiting" == sidekick.answer("lock.release", ev.LockReleased).target
    assert "lock.release" not in effects(killed(sidekick)), "once is enough"


def test_no_update_begins_while_such_a_turn_may_be_held() -> None:
    sidekick = Sidekick().come_up()
    sidekick.tell(ev.OperatorDrained, update="d1")
    sidekick.tell(ev.OperatorUndrained)
    assert "idle.releasing" == sidekick.machine.state

    sidekick.promote()
    assert "idle.releasing" == sidekick.machine.state
    sidekick.answer("lock.release", ev.LockReleased)

    assert "" == sidekick.memory.drain_turn
    assert "checking" == sidekick.machine.state


def test_a_drain_under_an_update_takes_its_turn_after_the_updates() -> None:
    sidekick = Sidekick().retire()
    sidekick.tell(ev.OperatorDrained, update="d1")

    sidekick.answer("workload.retire", ev.WorkloadRetired)
    sidekick.answer("lock.release", ev.LockReleased)

    assert "d1" == sidekick.memory.drain_turn


@pytest.mark.parametrize("state", ["idle.retaking", "idle.leaving", "idle.emptying", "idle.stopping", "idle.resigning"])
def test_what_leaves_for_good_is_not_called_back(state: str) -> None:
    """Found by the model checker: it went on to ask for a release, and waited for a turn to leave forever."""
    sidekick = Sidekick().come_up()
    sidekick.tell(ev.OperatorDecommissioned, update="d1")
    for effect_name, kind, facts in (
        ("lock.retake", ev.LockAcquired, {"turn": TURN}),
        ("balancer.leave", ev.BalancerLeft, {}),
        ("balancer.drain", ev.BalancerDrained, {"how": "asked"}),
        ("workload.retire", ev.WorkloadRetired, {}),
    ):
        if sidekick.machine.state == state:
            break
        sidekick.answer(effect_name, kind, **facts)
    assert state == sidekick.machine.state

    assert state == sidekick.tell(ev.OperatorUndrained).target


def test_told_that_it_has_gone_before_the_answer_it_holds_no_turn_when_it_is_let_back() -> None:
    """Found by the kill matrix: it took nothing any more, for it thought that it still held the drain's turn."""
    sidekick = Sidekick().come_up()
    sidekick.tell(ev.OperatorDecommissioned, update="d1")
    sidekick.answer("lock.retake", ev.LockAcquired, turn=TURN)
    sidekick.answer("balancer.leave", ev.BalancerLeft)
    sidekick.answer("balancer.drain", ev.BalancerDrained, how="asked")
    sidekick.answer("workload.retire", ev.WorkloadRetired)

    assert "idle.refused" == sidekick.tell(ev.IdentityRefused, cause="it was decommissioned").target
    assert (None, "", None) == (sidekick.memory.turn, sidekick.memory.drain_turn, sidekick.memory.drain)

    sidekick.tell(ev.IdentityAccepted)
    sidekick.answer("workload.ensure", ev.WorkloadAbsent)
    found = {"urls": ("http://x/2",), "sha256": "2" * 64, "size_bytes": 9, "update": "u1"}
    assert "downloading.fetching" == sidekick.answer("release.check", ev.ReleaseFound, version="2.0.0", **found).target
