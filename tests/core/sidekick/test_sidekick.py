"""The sidekick's chart and rules by values: what each word of the operator, the fleet and the world leads to."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from outrider.core.chart.machine import Machine, Perform, StartTimer, Step
from outrider.core.omaha import FailureCode
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import (
    AcquireLock,
    BlockLock,
    Effect,
    ReclaimLock,
    ReportResult,
    RestoreBalancer,
    ReturnBalancer,
    SwitchBalancer,
)
from outrider.core.sidekick.memory import Installed, Memory, Release, Strategy, Turn
from outrider.core.sidekick.rules import make_rules
from outrider.core.sidekick.words import why
from outrider.statechart import load_sidekick_chart

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
CHART = load_sidekick_chart()
TURN = Turn(scope="turns/app/g", number=0, slot_revision=7, waiter_revision=6, update="u1")


class Sidekick:
    """A machine that is told events by name, and answers requests with their numbers."""

    def __init__(self, strategy: Strategy = "start-first", **known: Any) -> None:
        release = Release(version="1.0.0", urls=("http://x/1",), sha256="0" * 64, size_bytes=1)
        running = Installed(release=release, workload_id="a-1", url="http://one")
        memory = Memory(
            instance="a",
            app="app",
            group="g",
            scope="turns/app/g",
            strategy=strategy,
            at=NOON,
            running=running,
            **known,
        )
        self.machine = Machine(CHART, make_rules({"soak": 3.0}, retry_min_s=2.0, retry_max_s=60.0), memory)
        self.last = self.machine.start()
        self.asked: dict[str, int] = {}
        self.timers: dict[str, int] = {}
        self._note(self.last)

    @property
    def memory(self) -> Memory:
        return self.machine.memory

    def tell(self, kind: type[Any], /, **facts: Any) -> Step:
        return self._note(self.machine.step(kind(at=NOON, **facts)))

    def answer(self, effect: str, kind: type[Any], /, **facts: Any) -> Step:
        return self.tell(kind, request=self.asked[effect], **facts)

    def expire(self, event: str) -> Step:
        return self._note(self.machine.step(ev.TimerExpired(name=event, at=NOON, generation=self.timers[event])))

    def _note(self, step: Step) -> Step:
        for action in step.actions:
            if isinstance(action, Perform) and action.request is not None:
                self.asked[action.effect.name] = action.request
            if isinstance(action, StartTimer):
                self.timers[action.event] = action.generation
        return step

    def come_up(self) -> "Sidekick":
        self.answer("workload.ensure", ev.WorkloadStarted, workload_id="a-1", url="http://one")
        self.answer("probe.confirm", ev.ProbePassed, url="http://one")
        self.answer("balancer.return", ev.BalancerJoined)
        self.answer("release.check", ev.ReleaseMissing)
        return self

    def promote(self, version: str = "2.0.0", revision: int = 40, paused: bool = False) -> Step:
        return self.tell(ev.TargetChanged, version=version, paused=paused, slots=1, revision=revision)

    def queue(self) -> "Sidekick":
        self.come_up().promote()
        self.answer(
            "release.check",
            ev.ReleaseFound,
            version="2.0.0",
            urls=("http://x/2",),
            sha256="2" * 64,
            size_bytes=9,
            update="u1",
        )
        self.answer("release.download", ev.ReleaseDownloaded)
        self.answer("release.verify", ev.ReleaseVerified)
        return self

    def start(self) -> "Sidekick":
        self.queue().answer("lock.acquire", ev.LockAcquired, turn=TURN)
        return self

    def probe(self) -> "Sidekick":
        self.start().answer("workload.start", ev.WorkloadStarted, workload_id=self.candidate_id(), url="http://two")
        return self

    def switch(self) -> "Sidekick":
        self.probe().answer("probe.start", ev.ProbePassed, url="http://two")
        return self

    def soak(self) -> "Sidekick":
        self.switch().answer("balancer.switch", ev.BalancerSwitched)
        self.answer("balancer.drain", ev.BalancerDrained, how="asked")
        return self

    def retire(self) -> "Sidekick":
        self.soak().expire("soak.due")
        return self

    def candidate_id(self) -> str:
        assert self.memory.candidate is not None
        return self.memory.candidate.workload_id


def effects(step: Step) -> list[str]:
    return [action.effect.name for action in step.actions if isinstance(action, Perform)]


def effect(step: Step, kind: type[Effect]) -> Any:
    return next(
        action.effect for action in step.actions if isinstance(action, Perform) and isinstance(action.effect, kind)
    )


def test_a_good_update_walks_the_main_road_and_reports_it() -> None:
    sidekick = Sidekick().retire()
    assert "swapping.retiring" == sidekick.machine.state
    sidekick.answer("workload.retire", ev.WorkloadRetired)
    step = sidekick.answer("lock.release", ev.LockReleased)

    report = effect(step, ReportResult)

    assert (None, "2.0.0", "1.0.0") == (report.fault, report.version, report.previous_version)
    assert "idle.waiting" == sidekick.answer("report.result", ev.ReportQueued).target
    assert sidekick.memory.candidate is None
    assert sidekick.memory.previous is not None
    assert "1.0.0" == sidekick.memory.previous.release.version


def test_a_turn_is_asked_for_only_while_the_target_is_the_one_that_was_seen() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote(revision=41)
    sidekick.answer(
        "release.check", ev.ReleaseFound, version="2.0.0", urls=("u",), sha256="2" * 64, size_bytes=9, update="u1"
    )
    sidekick.answer("release.download", ev.ReleaseDownloaded)

    step = sidekick.answer("release.verify", ev.ReleaseVerified)

    assert 41 == effect(step, AcquireLock).target_revision


def test_an_unhealthy_release_is_blocked_with_the_end_of_its_turn() -> None:
    sidekick = Sidekick().probe()

    assert "rollback.removing" == sidekick.answer("probe.start", ev.ProbeFailed, cause="503").target
    step = sidekick.answer("workload.remove", ev.WorkloadRemoved)

    blocked = effect(step, BlockLock)
    assert ("2.0.0", "health check: 503", TURN) == (blocked.version, blocked.cause, blocked.turn)
    assert "2.0.0" in sidekick.memory.blocked


def test_a_release_that_fails_while_soaking_is_taken_out_of_the_balancer_under_a_valid_turn_first() -> None:
    sidekick = Sidekick().soak()

    assert ["probe.stop", "workload.restart", "lock.retake"] == effects(
        sidekick.answer("probe.watch", ev.ProbeFailed, cause="503")
    )
    renewed = replace(TURN, waiter_revision=9)
    step = sidekick.answer("lock.retake", ev.LockAcquired, turn=renewed)

    assert ("http://one", renewed) == (effect(step, RestoreBalancer).url, effect(step, RestoreBalancer).turn)


def test_losing_the_lease_before_the_traffic_moved_undoes_and_keeps_the_turn() -> None:
    sidekick = Sidekick().probe()

    step = sidekick.tell(ev.LockLost, why="etcd away")

    assert "swapping.retreating" == step.target
    assert ["probe.stop", "workload.remove"] == effects(step)
    assert ["workload.restart", "lock.reclaim"] == effects(sidekick.answer("workload.remove", ev.WorkloadRemoved))
    assert TURN == sidekick.memory.turn


@pytest.mark.parametrize("state", ["draining", "soaking"])
def test_losing_the_lease_after_the_traffic_moved_goes_on(state: str) -> None:
    sidekick = Sidekick().switch()
    sidekick.answer("balancer.switch", ev.BalancerSwitched)
    if state == "soaking":
        sidekick.answer("balancer.drain", ev.BalancerDrained, how="asked")

    step = sidekick.tell(ev.LockLost, why="etcd away")

    assert f"swapping.{state}" == step.source == step.target


def test_after_the_commit_nothing_rolls_back() -> None:
    sidekick = Sidekick().retire()
    for kind, facts in (
        (ev.OperatorRolledBack, {"update": "u9"}),
        (ev.LockLost, {"why": "x"}),
        (ev.BlockChanged, {"versions": {"2.0.0": "b: 503"}}),
        (ev.WorkloadExited, {"workload_id": "a-2.0.0-u1", "status": "exit 1"}),
        (ev.WorkloadFailed, {"evidence": "unknown", "cause": "x"}),
    ):
        assert "swapping.retiring" == sidekick.tell(kind, **facts).target, kind.__name__


def test_a_paused_instance_leaves_the_queue_and_its_place_is_given_back_first() -> None:
    sidekick = Sidekick().queue()

    assert ["lock.release"] == effects(sidekick.tell(ev.OperatorPaused))
    assert "idle.paused" == sidekick.answer("lock.release", ev.LockReleased).target
    assert "idle.paused" == sidekick.promote("2.0.1").target
    assert "checking" == sidekick.tell(ev.OperatorResumed).target


def test_a_grant_that_crossed_with_the_change_of_mind_is_dropped_and_given_back() -> None:
    sidekick = Sidekick().queue()
    request = sidekick.asked["lock.acquire"]
    sidekick.tell(ev.OperatorPaused)

    late = sidekick.tell(ev.LockAcquired, request=request, turn=TURN)

    assert "no longer outstanding" in late.dropped
    assert "swapping.withdrawing" == sidekick.machine.state


def test_a_pause_in_mid_swap_waits_for_its_end() -> None:
    sidekick = Sidekick().probe()

    assert "swapping.probing" == sidekick.tell(ev.OperatorPaused).target
    sidekick.answer("probe.start", ev.ProbePassed, url="http://two")
    sidekick.answer("balancer.switch", ev.BalancerSwitched)
    sidekick.answer("balancer.drain", ev.BalancerDrained, how="asked")
    sidekick.expire("soak.due")
    sidekick.answer("workload.retire", ev.WorkloadRetired)
    sidekick.answer("lock.release", ev.LockReleased)

    assert "idle.paused" == sidekick.answer("report.result", ev.ReportQueued).target


def test_a_target_that_moves_on_calls_the_download_off() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote("2.0.0")
    sidekick.answer(
        "release.check", ev.ReleaseFound, version="2.0.0", urls=("u",), sha256="2" * 64, size_bytes=9, update="u1"
    )

    step = sidekick.promote("2.0.1", revision=41)

    assert ["release.abandon", "release.check"] == effects(step), "given up, and asked anew in the same step"


def test_a_paused_group_takes_its_instances_out_of_the_queue() -> None:
    sidekick = Sidekick().queue()

    assert "swapping.withdrawing" == sidekick.promote(paused=True, revision=41).target
    assert "idle.waiting" == sidekick.answer("lock.release", ev.LockReleased).target
    assert "2.0.0 waits: the group is paused" == why(sidekick.memory, CHART.states[sidekick.machine.state].why)


def test_an_operator_rolls_a_finished_update_back_and_it_stays_back() -> None:
    sidekick = Sidekick().retire()
    sidekick.answer("workload.retire", ev.WorkloadRetired)
    sidekick.answer("lock.release", ev.LockReleased)
    sidekick.answer("report.result", ev.ReportQueued)

    assert "downloading.fetching" == sidekick.tell(ev.OperatorRolledBack, update="u2").target
    sidekick.answer("release.download", ev.ReleaseDownloaded)
    step = sidekick.answer("release.verify", ev.ReleaseVerified)
    assert ("1.0.0", -1) == (effect(step, AcquireLock).version, effect(step, AcquireLock).target_revision)
    sidekick.answer("lock.acquire", ev.LockAcquired, turn=TURN)
    sidekick.answer("workload.start", ev.WorkloadStarted, workload_id=sidekick.candidate_id(), url="http://three")
    sidekick.answer("probe.start", ev.ProbePassed, url="http://three")
    sidekick.answer("balancer.switch", ev.BalancerSwitched)
    sidekick.answer("balancer.drain", ev.BalancerDrained, how="asked")
    sidekick.expire("soak.due")
    sidekick.answer("workload.retire", ev.WorkloadRetired)
    sidekick.answer("lock.release", ev.LockReleased)

    assert "idle.waiting" == sidekick.answer("report.result", ev.ReportQueued).target
    assert "rolled 2.0.0 back" in why(sidekick.memory, "{idle}")
    assert "checking" == sidekick.tell(ev.OperatorRetried).target


def test_an_operator_rolls_an_update_under_way_back_without_blocking_it() -> None:
    sidekick = Sidekick().probe()

    assert "rollback.removing" == sidekick.tell(ev.OperatorRolledBack, update="u9").target
    assert ["lock.release"] == effects(sidekick.answer("workload.remove", ev.WorkloadRemoved))
    assert {} == sidekick.memory.blocked


def test_the_pause_before_the_next_try_doubles_up_to_its_limit() -> None:
    sidekick = Sidekick().come_up()
    pauses = []
    for _ in range(8):
        sidekick.promote("2.0.0") if sidekick.machine.state == "idle.waiting" else sidekick.expire("retry.due")
        step = sidekick.answer("release.check", ev.ReleaseFailed, cause="away", error_code=FailureCode.ERROR)
        pauses += [action.delay_s for action in step.actions if isinstance(action, StartTimer)]

    assert [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0] == pauses


def test_a_service_that_wants_to_be_left_alone_is() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote("2.0.0")

    step = sidekick.answer(
        "release.check", ev.ReleaseFailed, cause="busy", error_code=FailureCode.ERROR, retry_after_s=300.0
    )

    assert [300.0] == [action.delay_s for action in step.actions if isinstance(action, StartTimer)]


def test_stop_first_leaves_before_it_replaces_and_comes_back_without_a_fence() -> None:
    sidekick = Sidekick("stop-first").queue()

    assert "swapping.leaving" == sidekick.answer("lock.acquire", ev.LockAcquired, turn=TURN).target
    sidekick.answer("balancer.leave", ev.BalancerLeft)
    sidekick.answer("balancer.drain", ev.BalancerDrained, how="asked")
    sidekick.answer("workload.replace", ev.WorkloadStarted, workload_id=sidekick.candidate_id(), url="http://one")
    assert ["probe.stop", "balancer.join"] == effects(sidekick.answer("probe.start", ev.ProbePassed, url="http://one"))
    assert "swapping.soaking" == sidekick.answer("balancer.join", ev.BalancerJoined).target


def test_a_candidate_that_dies_while_stop_first_brings_it_in_is_taken_out_again() -> None:
    sidekick = Sidekick("stop-first").queue()
    sidekick.answer("lock.acquire", ev.LockAcquired, turn=TURN)
    sidekick.answer("balancer.leave", ev.BalancerLeft)
    sidekick.answer("balancer.drain", ev.BalancerDrained, how="asked")
    candidate = sidekick.candidate_id()
    sidekick.answer("workload.replace", ev.WorkloadStarted, workload_id=candidate, url="http://one")
    assert "swapping.joining" == sidekick.answer("probe.start", ev.ProbePassed, url="http://one").target

    step = sidekick.tell(ev.WorkloadExited, workload_id=candidate, status=1)

    assert "rollback.relocking" == step.target


def test_losing_the_lease_while_stop_first_drains_brings_the_instance_back() -> None:
    sidekick = Sidekick("stop-first").queue()
    sidekick.answer("lock.acquire", ev.LockAcquired, turn=TURN)
    sidekick.answer("balancer.leave", ev.BalancerLeft)

    step = sidekick.tell(ev.LockLost, why="etcd away")

    assert ("rollback.rejoining", ["balancer.return"]) == (step.target, effects(step))


def test_a_restart_before_the_commit_does_the_swap_again_under_the_same_turn() -> None:
    before = Sidekick().soak()
    after = Machine.restore(CHART, make_rules({}), before.memory, before.machine.snapshot())

    step = after.step(ev.SidekickRestarted(at=NOON))

    assert "swapping.reclaiming" == step.target
    assert TURN == effect(step, ReclaimLock).turn


def test_an_app_that_ends_by_itself_while_idle_is_started_again() -> None:
    sidekick = Sidekick().come_up()

    step = sidekick.tell(ev.WorkloadExited, workload_id="a-1", status="exit 1")

    assert ("idle.waking", ["workload.ensure"]) == (step.target, effects(step))


def test_the_switch_is_fenced_with_the_turn_that_was_taken() -> None:
    step = Sidekick().probe().answer("probe.start", ev.ProbePassed, url="http://two")

    assert ("http://two", TURN) == (effect(step, SwitchBalancer).url, effect(step, SwitchBalancer).turn)


def test_an_older_version_is_taken_only_where_that_is_allowed() -> None:
    offer: dict[str, Any] = {"version": "0.9.0", "urls": ("u",), "sha256": "2" * 64, "size_bytes": 9, "update": "u1"}
    for allowed, state in ((False, "idle.deferred"), (True, "downloading.fetching")):
        sidekick = Sidekick(allow_downgrade=allowed).come_up()
        sidekick.promote("0.9.0")
        assert state == sidekick.answer("release.check", ev.ReleaseFound, **offer).target


def test_an_app_that_comes_up_at_another_port_may_overwrite_its_former_address() -> None:
    """
    1. the machine was down, and somebody else has the port now
    2. the app is started at another one; the balancer's entry still names the former
    3. coming back, the sidekick knows that address for its own
    """
    sidekick = Sidekick().come_up()
    sidekick.tell(ev.WorkloadExited, workload_id="a-1", status="gone")
    sidekick.answer("workload.ensure", ev.WorkloadStarted, workload_id="a-1", url="http://one:2")

    step = sidekick.answer("probe.confirm", ev.ProbePassed, url="http://one:2")

    assert "http://one:2" == effect(step, ReturnBalancer).url
    assert {"http://one", "http://one:2"} == set(effect(step, ReturnBalancer).replacing)


def test_a_candidate_stays_while_the_balancer_surely_still_sends_to_it() -> None:
    """
    1. a release turned bad under traffic, and the balancer's entry is turned back
    2. the balancer doesn't follow: it is asked again, and the candidate goes on serving
    3. only the deadline, or the balancer, ends the wait
    """
    sidekick = Sidekick().soak()
    sidekick.answer("probe.watch", ev.ProbeFailed, cause="503")
    sidekick.answer("lock.retake", ev.LockAcquired, turn=TURN)
    sidekick.answer("balancer.restore", ev.BalancerRestored)

    step = sidekick.answer("balancer.undrain", ev.BalancerUnmoved, cause="stale")

    assert ("rollback.undraining", ["balancer.undrain"]) == (step.target, effects(step))
    assert "rollback.removing" == sidekick.expire("undrain.expired").target


def test_a_service_that_never_answers_is_asked_less_and_less() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote("2.0.0")
    pauses = []
    for _ in range(3):
        step = sidekick.expire("check.expired")
        pauses += [action.delay_s for action in step.actions if isinstance(action, StartTimer)]
        sidekick.expire("retry.due")

    assert [2.0, 4.0, 8.0] == pauses
