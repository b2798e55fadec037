"""An analysis in the chart: what passes is committed, what fails is blocked, what is undecided follows the setting."""

from dataclasses import replace
from typing import Any

import pytest

from outrider.core.chart.machine import Perform, Step
from outrider.core.omaha import FailureCode
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import BlockLock, ReleaseLock, ReportResult, StartAnalysis
from outrider.core.sidekick.guards import has_analysis, takes_undecided
from outrider.core.sidekick.words import serves, why
from tests.core.sidekick.test_sidekick import CHART, TURN, Sidekick

SAMPLE = "new versus old: 12 of about 400 requests (0 errors; old version: 3 errors in 1200 requests)"


def analysing(undecided: Any = "pause", **known: Any) -> Sidekick:
    sidekick = Sidekick(analysis=undecided, **known).soak()
    sidekick.expire("soak.due")
    assert "swapping.analysing" == sidekick.machine.state
    return sidekick


def effects(step: Step) -> list[object]:
    return [action.effect for action in step.actions if isinstance(action, Perform)]


def reason(sidekick: Sidekick) -> str:
    return why(sidekick.memory, CHART.states[sidekick.machine.state].why)


def rolled_back(sidekick: Sidekick) -> Step:
    """All the way home after the analysis: the turn ends by ``lock.block`` or ``lock.release``."""
    sidekick.answer("lock.retake", ev.LockAcquired, turn=TURN)
    sidekick.answer("balancer.restore", ev.BalancerRestored)
    sidekick.answer("balancer.undrain", ev.BalancerDrained, how="asked")
    return sidekick.answer("workload.remove", ev.WorkloadRemoved)


def test_without_checks_the_soak_ends_in_the_commit() -> None:
    assert "swapping.retiring" == Sidekick().soak().expire("soak.due").target


def test_neither_an_operators_way_back_nor_a_first_install_is_analysed() -> None:
    sidekick = Sidekick(analysis="pause").soak()

    assert has_analysis(sidekick.memory)
    assert not has_analysis(replace(sidekick.memory, manual=True))
    assert not has_analysis(replace(sidekick.memory, running=None))


def test_after_the_soak_it_is_analysed_and_watched() -> None:
    sidekick = Sidekick(analysis="pause").soak()

    step = sidekick.expire("soak.due")

    started = next(one for one in effects(step) if isinstance(one, StartAnalysis))
    assert ("http://two", "2.0.0", "2.0.0") == (started.url, started.version, started.release)
    assert "probe.watch" in [one.name for one in effects(step)]  # type: ignore[attr-defined]


def test_the_sample_so_far_is_the_reason() -> None:
    sidekick = analysing()
    assert "2.0.0 serves and is analysed" == reason(sidekick)

    step = sidekick.answer("analysis.start", ev.AnalysisSampled, sample=SAMPLE)

    assert "swapping.analysing" == step.target
    assert f"2.0.0 serves and is analysed: {SAMPLE}" == reason(sidekick)


def test_what_passes_is_committed() -> None:
    sidekick = analysing()

    step = sidekick.answer("analysis.start", ev.AnalysisPassed, sample=SAMPLE)

    assert "swapping.retiring" == step.target
    assert SAMPLE == sidekick.memory.sample
    assert "analysis.stop" in [one.name for one in effects(step)]  # type: ignore[attr-defined]


def test_what_fails_is_rolled_back_and_blocked_with_the_sample() -> None:
    sidekick = analysing()

    step = sidekick.answer("analysis.start", ev.AnalysisFailed, cause="new versus old: 9 errors")

    assert "rollback.relocking" == step.target
    block = next(one for one in effects(rolled_back(sidekick)) if isinstance(one, BlockLock))
    assert "analysis: new versus old: 9 errors" == block.cause
    assert "2.0.0" in sidekick.memory.blocked


def test_undecided_pauses_the_instance_on_what_it_ran_and_blocks_nothing() -> None:
    sidekick = analysing()
    assert "rollback.relocking" == sidekick.answer("analysis.start", ev.AnalysisUndecided, cause=SAMPLE).target

    step = rolled_back(sidekick)

    assert [ReleaseLock] == [type(one) for one in effects(step)]
    assert {} == sidekick.memory.blocked
    report = next(
        one for one in effects(sidekick.answer("lock.release", ev.LockReleased)) if isinstance(one, ReportResult)
    )
    assert report.fault is not None
    assert ("world", FailureCode.UNDECIDED) == (report.fault.blame, report.fault.error_code)
    assert "idle.paused" == sidekick.answer("report.result", ev.ReportQueued).target
    assert 0 == sidekick.memory.failures
    assert (
        f"paused: the analysis of 2.0.0 is undecided: {SAMPLE}; `outrider instance resume app a` takes it as it is"
        == reason(sidekick)
    )


def paused() -> Sidekick:
    sidekick = analysing()
    sidekick.answer("analysis.start", ev.AnalysisUndecided, cause=SAMPLE)
    rolled_back(sidekick)
    sidekick.answer("lock.release", ev.LockReleased)
    sidekick.answer("report.result", ev.ReportQueued)
    return sidekick


def found(sidekick: Sidekick, version: str, update: str) -> Step:
    return sidekick.answer(
        "release.check", ev.ReleaseFound, version=version, urls=("http://x/2",), sha256="2" * 64, size_bytes=9,
        update=update,
    )  # fmt: skip


def test_whoever_resumes_it_accepts_what_is_undecided_but_not_what_fails() -> None:
    sidekick = paused()

    assert "checking" == sidekick.tell(ev.OperatorResumed).target

    assert ("", "2.0.0") == (sidekick.memory.undecided, sidekick.memory.accepted)
    found(sidekick, "2.0.0", "u2")
    sidekick.answer("release.download", ev.ReleaseDownloaded)
    sidekick.answer("release.verify", ev.ReleaseVerified)
    sidekick.answer("lock.acquire", ev.LockAcquired, turn=TURN)
    candidate = sidekick.candidate_id()
    sidekick.answer("workload.start", ev.WorkloadStarted, workload_id=candidate, url="http://two")
    sidekick.answer("probe.start", ev.ProbePassed, url="http://two")
    sidekick.answer("balancer.switch", ev.BalancerSwitched)
    sidekick.answer("balancer.drain", ev.BalancerDrained, how="asked")
    assert "swapping.analysing" == sidekick.expire("soak.due").target
    assert takes_undecided(sidekick.memory)
    assert "swapping.retiring" == sidekick.answer("analysis.start", ev.AnalysisUndecided, cause=SAMPLE).target


def test_another_target_lifts_such_a_pause_and_no_other() -> None:
    sidekick = paused()
    assert "idle.paused" == sidekick.promote("2.0.0", revision=41).target

    assert "checking" == sidekick.promote("3.0.0", revision=42).target

    assert not sidekick.memory.paused
    by_hand = Sidekick().come_up()
    by_hand.tell(ev.OperatorPaused)
    assert "idle.paused" == by_hand.promote("3.0.0", revision=42).target


def test_undecided_that_fails_is_not_tried_again_unasked_and_blocks_nothing() -> None:
    sidekick = analysing("fail")
    sidekick.answer("analysis.start", ev.AnalysisUndecided, cause=SAMPLE)
    rolled_back(sidekick)

    sidekick.answer("lock.release", ev.LockReleased)
    assert "idle.waiting" == sidekick.answer("report.result", ev.ReportQueued).target

    assert {} == sidekick.memory.blocked
    assert sidekick.memory.setback is not None
    assert sidekick.memory.fault is not None
    assert FailureCode.ROLLED_BACK == sidekick.memory.fault.error_code
    assert f"2.0.0 failed here: analysis undecided: {SAMPLE}" in reason(sidekick)


@pytest.mark.parametrize("undecided", ["pause", "pass", "fail"])
def test_an_analysis_that_does_not_answer_is_undecided(undecided: str) -> None:
    step = analysing(undecided).expire("analysis.expired")

    assert ("swapping.retiring" if undecided == "pass" else "rollback.relocking") == step.target


def test_bad_health_while_it_is_analysed_blocks_as_in_the_soak() -> None:
    sidekick = analysing()

    step = sidekick.answer("probe.watch", ev.ProbeFailed, cause="503")

    assert "rollback.relocking" == step.target
    assert "2.0.0" in sidekick.memory.blocked


def test_a_restart_while_it_is_analysed_begins_the_swap_anew_under_its_own_turn() -> None:
    assert "swapping.reclaiming" == analysing().tell(ev.SidekickRestarted).target


def test_a_pause_by_hand_meanwhile_is_no_acceptance() -> None:
    sidekick = analysing()
    sidekick.tell(ev.OperatorPaused)
    sidekick.answer("analysis.start", ev.AnalysisUndecided, cause=SAMPLE)
    rolled_back(sidekick)
    sidekick.answer("lock.release", ev.LockReleased)
    sidekick.answer("report.result", ev.ReportQueued)

    sidekick.tell(ev.OperatorResumed)

    assert "" == sidekick.memory.accepted


def test_what_the_balancer_is_sent_to_is_the_candidate_once_it_is_exposed() -> None:
    sidekick = Sidekick(analysis="pause").probe()
    assert (None, "1.0.0") == (
        serves(sidekick.memory, serving=False),
        (one.release.version if (one := serves(sidekick.memory, serving=True)) else ""),
    )
    exposed = analysing()
    assert "http://two" == (one.url if (one := serves(exposed.memory, serving=False)) else "")
    exposed.answer("analysis.start", ev.AnalysisFailed, cause="x")
    assert serves(exposed.memory, serving=False) is None
