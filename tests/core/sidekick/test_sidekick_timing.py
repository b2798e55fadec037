"""What comes at an awkward moment: news that cross with answers, words to a sidekick that is busy, starts in vain."""

from typing import Any

import pytest

from outrider.core.chart.machine import Machine
from outrider.core.omaha import FailureCode
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import ReturnBalancer, VerifyRelease
from outrider.core.sidekick.memory import Installed, Release
from outrider.core.sidekick.rules import make_rules
from tests.core.sidekick.test_sidekick import CHART, TURN, Sidekick, effect, effects

OFFER: dict[str, Any] = {"urls": ("http://x/2",), "sha256": "2" * 64, "size_bytes": 9, "update": "u1"}
PREVIOUS = Installed(
    release=Release(version="0.9.0", urls=("http://x/0",), sha256="9" * 64, size_bytes=1), workload_id="a-0"
)


def restarted(sidekick: Sidekick) -> Sidekick:
    """The same sidekick after a restart, from what the journal has."""
    sidekick.machine = Machine.restore(CHART, make_rules({}), sidekick.memory, sidekick.machine.snapshot())
    sidekick.tell(ev.SidekickRestarted)
    return sidekick


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (ev.TargetChanged, {"version": "2.0.1", "paused": False, "slots": 1, "revision": 41}),
        (ev.WakeupReceived, {"why": "your turn"}),
    ],
    ids=["target", "wakeups"],
)
def test_news_that_crosses_with_the_services_answer_is_not_lost(kind: type[Any], facts: dict[str, Any]) -> None:
    """
    1. the service is asked, and answers by what it knew then
    2. before that answer is read, something newer is announced
    3. the answer is dropped, and the service asked again
    """
    sidekick = Sidekick().come_up()
    sidekick.promote("2.0.0")
    crossed = sidekick.asked["release.check"]

    step = sidekick.tell(kind, **facts)

    assert ("checking", ["release.check"]) == (step.target, effects(step))
    assert sidekick.tell(ev.ReleaseFound, request=crossed, version="2.0.0", **OFFER).dropped


def test_a_roll_back_reaches_a_sidekick_whose_app_does_not_come_up() -> None:
    sidekick = Sidekick(previous=PREVIOUS)
    sidekick.answer("workload.ensure", ev.WorkloadStarted, workload_id="a-1", url="http://one")
    assert "idle.proving" == sidekick.machine.state

    step = sidekick.tell(ev.OperatorRolledBack, update="u2")

    assert "downloading.fetching" == step.target
    assert sidekick.memory.candidate is not None
    assert ("0.9.0", "1.0.0") == (sidekick.memory.candidate.release.version, sidekick.memory.undone)


@pytest.mark.parametrize("state", ["idle.waiting", "idle.deferred"])
def test_a_resume_looks_for_work_also_where_nothing_was_paused(state: str) -> None:
    sidekick = Sidekick().come_up()
    if state == "idle.deferred":
        sidekick.promote("2.0.0")
        sidekick.answer("release.check", ev.ReleaseMissing, reason="not yet")
    assert state == sidekick.machine.state

    assert "checking" == sidekick.tell(ev.OperatorResumed).target


def test_a_release_that_was_blocked_while_the_turn_was_away_is_not_tried_again() -> None:
    sidekick = restarted(Sidekick().probe())
    assert "swapping.reclaiming" == sidekick.machine.state
    sidekick.tell(ev.BlockChanged, versions={"2.0.0": "b: 503"})

    assert "rollback.relocking" == sidekick.answer("lock.reclaim", ev.LockAcquired, turn=TURN).target
    assert sidekick.memory.fault is not None
    assert ("world", "blocked by b: 503") == (sidekick.memory.fault.blame, sidekick.memory.fault.cause)


def test_a_roll_back_that_came_while_the_lease_was_lost_is_obeyed_with_the_turn() -> None:
    sidekick = Sidekick().probe()
    sidekick.tell(ev.LockLost, why="etcd away")
    sidekick.tell(ev.OperatorRolledBack, update="u9")
    sidekick.answer("workload.remove", ev.WorkloadRemoved)

    assert "rollback.relocking" == sidekick.answer("lock.reclaim", ev.LockAcquired, turn=TURN).target


def test_a_release_that_was_blocked_while_the_old_one_drained_is_not_committed() -> None:
    sidekick = Sidekick().switch()
    sidekick.answer("balancer.switch", ev.BalancerSwitched)
    sidekick.tell(ev.BlockChanged, versions={"2.0.0": "b: 503"})
    sidekick.answer("balancer.drain", ev.BalancerDrained, how="asked")

    assert "rollback.relocking" == sidekick.expire("soak.due").target


def test_an_app_that_ends_as_soon_as_it_is_started_is_not_started_again_at_once() -> None:
    sidekick = Sidekick()
    sidekick.answer("workload.ensure", ev.WorkloadStarted, workload_id="a-1", url="http://one")

    step = sidekick.tell(ev.WorkloadExited, workload_id="a-1", status="exit 1")

    assert ("idle.degraded", ["probe.stop", "sidekick.alarm"]) == (step.target, effects(step))
    assert "idle.waking" == sidekick.expire("restart.due").target


def test_after_a_restart_past_the_commit_the_entry_is_written_before_the_old_version_ends() -> None:
    """
    1. the machine goes down right after the commit
    2. what runs is started again, and answers at another address
    3. the balancer learns it, under the turn, before anything is retired
    """
    sidekick = restarted(Sidekick().retire())
    running = sidekick.memory.running
    assert running is not None
    sidekick.answer("workload.ensure", ev.WorkloadStarted, workload_id=running.workload_id, url="http://new")

    step = sidekick.answer("probe.confirm", ev.ProbePassed, url="http://new")

    assert ("swapping.returning", "http://new") == (step.target, effect(step, ReturnBalancer).url)
    assert "http://two" in effect(step, ReturnBalancer).replacing
    assert "swapping.retiring" == sidekick.answer("balancer.return", ev.BalancerJoined).target


def test_no_turn_is_given_back_before_the_old_version_serves_even_when_the_new_one_does_not_go() -> None:
    sidekick = Sidekick().probe()
    sidekick.tell(ev.WorkloadExited, workload_id="a-1", status="killed")
    sidekick.answer("probe.start", ev.ProbeFailed, cause="503")
    assert "rollback.removing" == sidekick.machine.state

    assert "rollback.reverting" == sidekick.expire("remove.expired").target


def test_an_app_started_again_and_again_still_knows_the_address_that_the_balancer_has() -> None:
    sidekick = Sidekick().come_up()
    for port in range(1, 31):
        sidekick.tell(ev.WorkloadExited, workload_id="a-1", status="exit 1")
        if sidekick.machine.state == "idle.degraded":
            sidekick.expire("restart.due")
        sidekick.answer("workload.ensure", ev.WorkloadStarted, workload_id="a-1", url=f"http://one:{port}")

    step = sidekick.answer("probe.confirm", ev.ProbePassed, url="http://one:30")

    assert "http://one" in effect(step, ReturnBalancer).replacing
    sidekick.answer("balancer.return", ev.BalancerJoined)
    assert () == sidekick.memory.former_urls


def test_a_release_that_could_not_be_asked_is_rolled_back_and_tried_again_but_not_blocked() -> None:
    """The machine was unplugged while the release soaked: that says nothing of the release."""
    sidekick = Sidekick().soak()
    sidekick.answer("probe.watch", ev.ProbeFailed, cause="network is unreachable", evidence="unreachable")
    sidekick.answer("lock.retake", ev.LockAcquired, turn=TURN)
    sidekick.answer("balancer.restore", ev.BalancerRestored)
    sidekick.answer("balancer.undrain", ev.BalancerDrained, how="asked")
    sidekick.answer("workload.remove", ev.WorkloadRemoved)

    assert "reporting" == sidekick.answer("lock.release", ev.LockReleased).target
    assert "idle.cooling" == sidekick.answer("report.result", ev.ReportQueued).target
    assert {} == sidekick.memory.blocked


def test_a_release_without_a_verdict_keeps_its_turn_while_the_runtime_may_start_it_yet() -> None:
    """
    1. the runtime hangs: neither the start is answered, nor the removal that waits behind it
    2. were the turn given back now, the next instance would take it, and the start could still happen here
    """
    sidekick = Sidekick().start()
    assert "rollback.removing" == sidekick.expire("start.expired").target

    step = sidekick.expire("remove.expired")

    assert ("rollback.removing", ["sidekick.alarm", "workload.remove"]) == (step.target, effects(step))
    assert "rollback.releasing" == sidekick.answer("workload.remove", ev.WorkloadRemoved).target


def test_a_runtime_that_answers_and_can_not_remove_the_candidate_does_not_hold_up_the_fleet() -> None:
    sidekick = Sidekick().start()
    sidekick.expire("start.expired")

    step = sidekick.answer("workload.remove", ev.WorkloadFailed, evidence="unknown", cause="device busy")

    assert "rollback.releasing" == step.target


def test_a_release_that_is_known_to_be_bad_is_blocked_even_if_it_can_not_be_removed() -> None:
    sidekick = Sidekick().probe()
    sidekick.answer("probe.start", ev.ProbeFailed, cause="503")

    assert "rollback.blocking" == sidekick.expire("remove.expired").target


def stop_first_again(*, down: bool) -> Sidekick:
    """Stop-first, which has started the candidate before, and takes the instance out once more under its own turn."""
    sidekick = Sidekick("stop-first").queue()
    sidekick.answer("lock.acquire", ev.LockAcquired, turn=TURN)
    sidekick.answer("balancer.leave", ev.BalancerLeft)
    sidekick.answer("balancer.drain", ev.BalancerDrained, how="")
    sidekick.answer("workload.replace", ev.WorkloadStarted, workload_id=sidekick.candidate_id(), url="http://n:2")
    if not down:
        sidekick.answer("probe.start", ev.ProbePassed, url="http://n:2")
    step = sidekick.tell(ev.SidekickRestarted)
    assert "swapping.reclaiming" == step.target
    sidekick.answer("lock.reclaim", ev.LockAcquired, turn=TURN)
    assert down is not sidekick.memory.exposed
    return sidekick


@pytest.mark.parametrize("down", [True, False], ids=["restarted before it was exposed", "exposed"])
@pytest.mark.parametrize("state", ["swapping.leaving", "swapping.draining"])
def test_a_lost_lease_is_no_verdict_on_a_release_that_was_started_here(state: str, down: bool) -> None:
    """
    1. the candidate was started here, and may be bad; nobody knows yet
    2. were it rolled back now for want of a lease, its turn would go to the next instance, and the release with it
    """
    sidekick = stop_first_again(down=down)
    if state == "swapping.draining":
        sidekick.answer("balancer.leave", ev.BalancerLeft)
    assert state == sidekick.machine.state

    step = sidekick.tell(ev.LockLost, why="etcd away")

    assert ("swapping.reclaiming", True) == (step.target, "lock.reclaim" in effects(step))
    assert sidekick.memory.fault is None


def test_losing_the_lease_while_traffic_may_move_keeps_the_turn_and_goes_on_when_it_is_back() -> None:
    sidekick = Sidekick().switch()
    assert "swapping.switching" == sidekick.machine.state

    step = sidekick.tell(ev.LockLost, why="etcd away")

    assert ("swapping.reclaiming", ["workload.restart", "lock.reclaim"]) == (step.target, effects(step))
    assert "swapping.starting" == sidekick.answer("lock.reclaim", ev.LockAcquired, turn=TURN).target


def degraded() -> Sidekick:
    """The app ended, and can't be started again for now."""
    sidekick = Sidekick(allow_downgrade=False).come_up()
    sidekick.tell(ev.WorkloadExited, workload_id="a-1", status="exit 1")
    sidekick.answer("workload.ensure", ev.WorkloadFailed, evidence="unknown", cause="no memory")
    assert "idle.degraded" == sidekick.machine.state
    return sidekick


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (ev.ReleaseMissing, {"reason": "group is paused"}),
        (ev.ReleaseFailed, {"cause": "503", "error_code": FailureCode.ERROR}),
        (ev.ReleaseFound, {**OFFER, "version": "0.5.0"}),
    ],
    ids=["nothing", "no answer", "one that it doesn't take"],
)
def test_an_app_that_fell_is_started_again_when_the_service_has_no_cure(kind: type[Any], facts: dict[str, Any]) -> None:
    sidekick = degraded()
    assert "checking" == sidekick.promote("2.0.0").target

    assert "idle.degraded" == sidekick.answer("release.check", kind, **facts).target
    step = sidekick.expire("restart.due")
    assert ("idle.waking", ["workload.ensure"]) == (step.target, effects(step))


@pytest.mark.parametrize("way", ["cannot be fetched", "called off", "paused"])
def test_an_app_that_fell_is_started_again_when_its_cure_comes_to_nothing(way: str) -> None:
    sidekick = degraded()
    sidekick.promote("2.0.0")
    sidekick.answer("release.check", ev.ReleaseFound, version="2.0.0", **OFFER)
    match way:
        case "cannot be fetched":
            sidekick.answer("release.download", ev.ReleaseFailed, cause="404", error_code=FailureCode.ERROR)
            step = sidekick.answer("report.result", ev.ReportQueued)
        case "called off":
            step = sidekick.promote("1.0.0", revision=41)
        case _:
            step = sidekick.tell(ev.OperatorPaused)

    assert step.target in ("idle.degraded", "idle.waking")


def test_a_cure_that_is_announced_while_the_app_is_being_started_is_asked_for_when_that_fails() -> None:
    sidekick = degraded()
    sidekick.expire("restart.due")
    assert "idle.waking" == sidekick.machine.state
    sidekick.promote("2.0.0")

    step = sidekick.answer("workload.ensure", ev.WorkloadFailed, evidence="unknown", cause="no memory")

    assert ("checking", ["release.check"]) == (step.target, effects(step))


def unserved(way: str) -> Sidekick:
    """What should run is there, but isn't known to serve."""
    sidekick = Sidekick()
    match way:
        case "not started":
            sidekick.answer("workload.ensure", ev.WorkloadFailed, evidence="unknown", cause="no memory")
        case "not started in time":
            sidekick.expire("wake.expired")
        case _:
            sidekick.answer("workload.ensure", ev.WorkloadStarted, workload_id="a-1", url="http://one")
    match way:
        case "not healthy":
            sidekick.answer("probe.confirm", ev.ProbeFailed, evidence="unhealthy", cause="500")
        case "not healthy in time":
            sidekick.expire("prove.expired")
        case "not let into the balancer":
            sidekick.answer("probe.confirm", ev.ProbePassed, url="http://one")
            sidekick.answer("balancer.return", ev.BalancerRefused, cause="somebody else's entry")
    assert "idle.degraded" == sidekick.machine.state
    return sidekick


@pytest.mark.parametrize(
    "way", ["not started", "not started in time", "not healthy", "not healthy in time", "not let into the balancer"]
)
def test_what_is_not_known_to_serve_is_seen_to_again_when_the_service_has_no_cure(way: str) -> None:
    sidekick = unserved(way)
    sidekick.promote("2.0.0")

    step = sidekick.answer("release.check", ev.ReleaseMissing, reason="group is paused")

    assert "idle.degraded" == step.target
    assert "idle.waking" == sidekick.expire("restart.due").target


def test_a_new_payload_makes_room_for_itself_and_leaves_what_runs_and_what_ran() -> None:
    sidekick = Sidekick(previous=PREVIOUS).come_up()
    sidekick.promote("2.0.0")
    sidekick.answer("release.check", ev.ReleaseFound, version="2.0.0", **OFFER)

    step = sidekick.answer("release.download", ev.ReleaseDownloaded)

    needed = effect(step, VerifyRelease).needed
    assert ["2.0.0", "1.0.0", "0.9.0"] == [release.version for release in needed]
