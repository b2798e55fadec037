"""Blame in the chart: a release's fault blocks it once, a machine's never does, and neither is tried again in vain."""

from typing import Any

import pytest

from outrider.core.blame import Evidence
from outrider.core.omaha import FailureCode
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import BlockLock, ProveLock, ReleaseLock, ReportResult
from outrider.core.sidekick.guards import GUARDS
from outrider.core.sidekick.words import why
from tests.core.sidekick.test_sidekick import CHART, TURN, Sidekick, effect, effects

LASTING: tuple[Evidence, ...] = (
    "noexec", "wrong-setting", "no-interpreter", "other-architecture", "no-permission", "bad-name"
)  # fmt: skip
PASSING: tuple[Evidence, ...] = ("disk-full", "no-port", "no-resources")


def said(sidekick: Sidekick) -> str:
    return why(sidekick.memory, CHART.states[sidekick.machine.state].why)


def failed_at_start(evidence: Evidence, **known: Any) -> Sidekick:
    """An instance whose candidate couldn't be started under its turn, and that has come home."""
    sidekick = Sidekick(**known).come_up().queue()
    sidekick.answer("lock.acquire", ev.LockAcquired, turn=TURN)
    sidekick.answer("workload.start", ev.WorkloadFailed, evidence=evidence, cause="seen here")
    step = sidekick.answer("workload.remove", ev.WorkloadRemoved)
    assert ["lock.release"] == effects(step)
    sidekick.last = sidekick.answer("lock.release", ev.LockReleased)
    sidekick.answer("report.result", ev.ReportQueued)
    return sidekick


@pytest.mark.parametrize("evidence", LASTING + PASSING)
def test_this_machines_trouble_gives_the_turn_back_and_blocks_nothing(evidence: Evidence) -> None:
    sidekick = failed_at_start(evidence)

    assert {} == sidekick.memory.blocked
    assert sidekick.memory.turn is None
    assert sidekick.memory.setback is not None
    assert ("2.0.0", "machine", "seen here") == (
        sidekick.memory.setback.version, sidekick.memory.setback.blame, sidekick.memory.setback.cause,
    )  # fmt: skip


@pytest.mark.parametrize("evidence", LASTING)
def test_what_lasts_is_reported_as_this_machines_and_not_tried_again_under_a_turn(evidence: Evidence) -> None:
    sidekick = failed_at_start(evidence)

    report = effect(sidekick.last, ReportResult)
    assert (FailureCode.UNSUPPORTED, True) == (report.fault.error_code, report.fault.lasts)
    assert "idle.waiting" == sidekick.machine.state
    assert not GUARDS["wants_check"](sidekick.memory)
    assert said(sidekick).startswith("this machine cannot take 2.0.0: seen here; `outrider instance retry app a`")


@pytest.mark.parametrize("evidence", PASSING)
def test_what_may_pass_is_tried_again_after_a_pause(evidence: Evidence) -> None:
    sidekick = failed_at_start(evidence)

    assert ("idle.cooling", "tries again after a pause: seen here") == (sidekick.machine.state, said(sidekick))
    assert "checking" == sidekick.expire("retry.due").target


def offered_again(sidekick: Sidekick) -> Any:
    if sidekick.machine.state != "checking":
        sidekick.expire("poll.due")
    return sidekick.answer(
        "release.check", ev.ReleaseFound, version="2.0.0", urls=("http://x/2",), sha256="2" * 64, size_bytes=9,
        update="u2",
    )  # fmt: skip


def test_a_version_that_was_given_up_is_refused_when_it_is_offered_again() -> None:
    """So that its grant ends at once, and holds nobody up."""
    sidekick = failed_at_start("noexec")

    step = offered_again(sidekick)

    assert (["report.result"], "reporting") == (effects(step), step.target)
    assert FailureCode.UNSUPPORTED == effect(step, ReportResult).fault.error_code
    sidekick.answer("report.result", ev.ReportQueued)
    assert "idle.deferred" == sidekick.machine.state
    assert "this machine cannot take 2.0.0: seen here" in said(sidekick)


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (ev.OperatorRetried, {}),
        (ev.TargetChanged, {"version": "3.0.0", "paused": False, "slots": 1, "revision": 50}),
    ],
)
def test_an_operator_or_another_target_lets_it_try_again(kind: type[Any], facts: dict[str, Any]) -> None:
    sidekick = failed_at_start("noexec")

    assert "checking" == sidekick.tell(kind, **facts).target


def test_after_a_restart_a_machines_trouble_is_looked_at_again_for_its_settings_may_have_changed() -> None:
    sidekick = failed_at_start("wrong-setting")

    sidekick.tell(ev.SidekickRestarted)

    assert sidekick.memory.setback is not None
    assert not sidekick.memory.setback.final


@pytest.mark.parametrize("evidence", ["noexec", "wrong-setting", "disk-full"])
def test_trouble_that_is_seen_before_a_turn_takes_none_and_is_looked_at_again(evidence: Evidence) -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote()
    offered_again(sidekick)
    sidekick.answer("release.download", ev.ReleaseDownloaded)

    step = sidekick.answer(
        "release.verify", ev.ReleaseFailed, cause="seen here", evidence=evidence, error_code=FailureCode.WRITE
    )

    assert "report.result" in effects(step)
    assert "lock.acquire" not in effects(step)
    sidekick.answer("report.result", ev.ReportQueued)
    assert ("idle.cooling", {}) == (sidekick.machine.state, sidekick.memory.blocked)
    assert not sidekick.memory.setback.final  # type: ignore[union-attr]


def unhealthy(proved_by: str) -> Sidekick:
    """An instance that found the release bad under its turn; ``proved_by``: who has committed it."""
    sidekick = Sidekick().come_up().queue().start().probe()
    sidekick.answer("probe.start", ev.ProbeFailed, cause="503")
    step = sidekick.answer("workload.remove", ev.WorkloadRemoved)
    assert "2.0.0" == effect(step, BlockLock).version
    sidekick.last = sidekick.answer("lock.block", ev.LockReleased, proved_by=proved_by)
    sidekick.answer("report.result", ev.ReportQueued)
    return sidekick


def test_until_somebody_has_committed_it_one_fault_blocks_the_release_at_once() -> None:
    sidekick = unhealthy("")

    assert {"2.0.0": "a: health check: 503"} == sidekick.memory.blocked
    assert sidekick.memory.setback is None


def test_after_that_it_counts_as_this_instances_failure_and_is_not_tried_again_unasked() -> None:
    sidekick = unhealthy("web-9")

    assert {} == sidekick.memory.blocked
    assert FailureCode.ROLLED_BACK == effect(sidekick.last, ReportResult).fault.error_code
    assert not GUARDS["wants_check"](sidekick.memory)
    assert said(sidekick).startswith("2.0.0 failed here: health check: 503; it runs on web-9")
    sidekick.tell(ev.SidekickRestarted)
    assert sidekick.memory.setback is not None
    assert sidekick.memory.setback.final, "P5: through any restart"


def test_the_commit_is_recorded_at_once_and_before_the_turn_ends() -> None:
    sidekick = Sidekick().come_up().queue().start().probe().switch().soak()

    step = sidekick.expire("soak.due")

    proof = effect(step, ProveLock)
    assert ("2.0.0", "lock.prove") == (proof.committed.version, effects(step)[effects(step).index("lock.prove")])
    release = sidekick.answer("workload.retire", ev.WorkloadRetired)
    assert "2.0.0" == effect(release, ReleaseLock).committed.version


def test_a_turn_that_ends_without_a_commit_proves_nothing() -> None:
    sidekick = Sidekick().come_up().queue()
    sidekick.answer("lock.acquire", ev.LockAcquired, turn=TURN)
    sidekick.answer("workload.start", ev.WorkloadFailed, evidence="noexec", cause="x")

    step = sidekick.answer("workload.remove", ev.WorkloadRemoved)

    assert effect(step, ReleaseLock).committed is None


@pytest.mark.parametrize(
    ("evidence", "after_serving", "before", "after"),
    [
        ("disk-full", "unknown", "machine", "world"),
        ("no-port", "ended", "machine", "release"),
        ("unknown", "ended", "world", "release"),
        ("disk-full", None, "machine", "machine"),
    ],
)
def test_an_end_is_judged_by_whether_the_candidate_has_served(
    evidence: Evidence, after_serving: Evidence | None, before: str, after: str
) -> None:
    """What an app needs to come up is no reason any more once it has proved healthy and gets requests."""
    loading, serving = Sidekick().probe(), Sidekick().switch()

    blames = []
    for sidekick in (loading, serving):
        candidate = sidekick.memory.candidate
        assert candidate is not None
        sidekick.tell(
            ev.WorkloadExited,
            workload_id=candidate.workload_id,
            status="exit 1",
            evidence=evidence,
            after_serving=after_serving,
        )
        assert sidekick.memory.fault is not None
        blames.append(sidekick.memory.fault.blame)

    assert [before, after] == blames
