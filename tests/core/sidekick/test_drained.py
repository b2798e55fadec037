"""A drain's turn is given back also when its answer was lost, whatever happens in between.

The model checker found it: the sidekick was killed before the turn that it had never heard of was given back, and the
turn stayed, for nobody.
"""

import pytest

from outrider.core.chart.machine import Step
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import ReleaseLock, ResignLock, RetakeLock
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


def leaving(until: str) -> Sidekick:
    """One that is told to leave for good, on its way in the state ``until``."""
    sidekick = Sidekick().come_up()
    sidekick.tell(ev.OperatorDecommissioned, update="d1", revision=7)
    for effect_name, kind, facts in (
        ("lock.retake", ev.LockAcquired, {"turn": TURN}),
        ("balancer.leave", ev.BalancerLeft, {}),
        ("balancer.drain", ev.BalancerDrained, {"how": "asked"}),
        ("workload.retire", ev.WorkloadRetired, {}),
    ):
        if sidekick.machine.state == until:
            break
        sidekick.answer(effect_name, kind, **facts)
    assert until == sidekick.machine.state
    return sidekick


def test_killed_after_it_had_removed_itself_and_let_back_it_comes_back() -> None:
    """Found by the kill matrix: its journal said that it leaves, so it removed itself once more."""
    sidekick = leaving("idle.resigning")
    step = sidekick.tell(ev.SidekickRestarted)
    assert 7 == effect(step, RetakeLock).removal_revision

    assert "idle.waking" == sidekick.answer("lock.retake", ev.IdentityAdmitted).target

    assert (None, "", None, False) == (
        sidekick.memory.turn, sidekick.memory.drain_turn, sidekick.memory.drain, sidekick.memory.is_out
    )  # fmt: skip
    assert "checking" == sidekick.answer("workload.ensure", ev.WorkloadAbsent).target


def test_let_back_before_it_has_heard_that_it_had_gone() -> None:
    sidekick = leaving("idle.resigning")

    assert "idle.waking" == sidekick.answer("lock.resign", ev.IdentityAdmitted).target


def test_let_back_before_it_left_the_balancer_it_goes_on_serving() -> None:
    sidekick = leaving("idle.retaking")

    assert "idle.waking" == sidekick.answer("lock.retake", ev.IdentityAdmitted).target
    sidekick.answer("workload.ensure", ev.WorkloadStarted, workload_id="a-1", url="http://one")
    sidekick.answer("probe.confirm", ev.ProbePassed, url="http://one")
    step = sidekick.answer("balancer.return", ev.BalancerJoined, url="http://one")

    assert "checking" == step.target, "without a turn to give back"


@pytest.mark.parametrize("state", ["idle.emptying", "idle.stopping"])
def test_what_is_stopped_in_part_is_stopped_to_the_end_and_comes_back_as_new(state: str) -> None:
    """Deleted while its machine was down, and let back: how far it had come with its app, nobody knows."""
    sidekick = leaving(state)
    sidekick.tell(ev.SidekickRestarted)

    assert "idle.stopping" == sidekick.answer("lock.retake", ev.IdentityAdmitted).target
    step = sidekick.answer("workload.retire", ev.WorkloadRetired)
    assert (None, 7) == (effect(step, ResignLock).turn, effect(step, ResignLock).removal_revision)
    assert "idle.waking" == sidekick.answer("lock.resign", ev.IdentityAdmitted).target

    assert (None, None) == (sidekick.memory.running, sidekick.memory.drain)


def test_refused_while_it_stopped_its_app_it_goes_on_with_that_when_it_is_let_back() -> None:
    """Woken up it would look for an app of which only a part is left."""
    sidekick = leaving("idle.stopping")
    sidekick.tell(ev.IdentityRefused, cause="it was deleted by ann")
    assert "idle.refused" == sidekick.machine.state

    assert "idle.retaking" == sidekick.tell(ev.IdentityAccepted).target


def test_said_once_more_after_it_was_let_back_it_leaves() -> None:
    sidekick = leaving("idle.resigning")

    step = sidekick.tell(ev.OperatorDecommissioned, update="d2", revision=20, by="bob")

    assert ("idle.retaking", 20, "d1") == (
        step.target, effect(step, RetakeLock).removal_revision, effect(step, RetakeLock).update
    )  # fmt: skip
    assert sidekick.memory.drain is not None
    assert "bob" == sidekick.memory.drain.by
