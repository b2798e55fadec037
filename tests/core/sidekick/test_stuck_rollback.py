"""A rollback that can't bring back what ran before: its turn shows as dirty with the cause, and an operator ends it."""

from typing import Any

import pytest

from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import BlockLock, ReturnBalancer, RevertWorkload
from outrider.core.sidekick.memory import Installed, Release
from outrider.core.sidekick.words import why
from tests.core.sidekick.test_sidekick import CHART, TURN, Sidekick, effect, effects

PREVIOUS = Installed(
    release=Release(version="0.9.0", urls=("http://x/0",), sha256="9" * 64, size_bytes=1), workload_id="a-0"
)
CAUSE = "no free port on 127.0.0.1 in 8085: port 8085 is in use by pid 4711 (nginx: worker process)"


def reverting(**known: Any) -> Sidekick:
    """The new version was unhealthy, and the old one is started again."""
    sidekick = Sidekick("stop-first", **known)
    sidekick.queue().answer("lock.acquire", ev.LockAcquired, turn=TURN)
    sidekick.answer("balancer.leave", ev.BalancerLeft)
    sidekick.answer("balancer.drain", ev.BalancerDrained, how="asked")
    sidekick.answer("workload.replace", ev.WorkloadStarted, workload_id=sidekick.candidate_id(), url="http://two")
    sidekick.answer("probe.start", ev.ProbeFailed, cause="503")
    assert "rollback.reverting" == sidekick.machine.state
    return sidekick


def stuck(cause: str = CAUSE, **known: Any) -> Sidekick:
    """Its deadline has passed."""
    sidekick = reverting(**known)
    sidekick.answer("workload.revert", ev.WorkloadFailed, cause=cause)
    sidekick.expire("revert.expired")
    return sidekick


def said(sidekick: Sidekick) -> str:
    return why(sidekick.memory, CHART.states[sidekick.machine.state].why)


@pytest.mark.parametrize(
    "cause", [CAUSE, "web: can't start: [Errno 28] No space left on device", "no program 'server' on PATH"]
)
def test_after_the_deadline_the_turn_shows_as_dirty_with_the_cause(cause: str) -> None:
    sidekick = reverting()
    sidekick.answer("workload.revert", ev.WorkloadFailed, cause=cause)
    before = sidekick.machine.state

    step = sidekick.expire("revert.expired")

    assert "rollback.reverting" == before == step.target
    assert ["lock.suspend", "sidekick.alarm", "workload.revert"] == effects(step)
    assert f"1.0.0 is being started again: {cause}" == said(sidekick)


def test_a_runtime_that_says_nothing_is_reported_as_that() -> None:
    sidekick = reverting()

    sidekick.expire("revert.expired")

    assert "1.0.0 is being started again: the version before did not start in time" == said(sidekick)


def test_an_old_version_that_does_not_prove_healthy_is_such_a_rollback_too() -> None:
    sidekick = reverting()
    sidekick.answer("workload.revert", ev.WorkloadStarted, workload_id="a-1", url="http://one")

    step = sidekick.answer("probe.confirm", ev.ProbeFailed, cause="/health: 500 (9 of 9 answers)")

    assert "lock.suspend" in effects(step)
    assert "1.0.0 is being started again: health check: /health: 500 (9 of 9 answers)" == said(sidekick)


def test_an_old_version_that_comes_up_later_ends_the_rollback_as_ever() -> None:
    sidekick = stuck()
    sidekick.answer("workload.revert", ev.WorkloadStarted, workload_id="a-1", url="http://one")
    sidekick.answer("probe.confirm", ev.ProbePassed, url="http://one")
    sidekick.answer("balancer.return", ev.BalancerJoined)

    step = sidekick.answer("workload.remove", ev.WorkloadRemoved)

    assert "2.0.0" == effect(step, BlockLock).version
    assert not sidekick.memory.down


@pytest.mark.parametrize("is_bad", [True, False])
def test_an_operator_who_frees_the_turn_ends_the_rollback(is_bad: bool) -> None:
    """What is bad is blocked all the same; then the instance looks for a newer release while it starts the old one."""
    sidekick = stuck()
    if not is_bad:
        sidekick = Sidekick("stop-first")
        sidekick.queue().answer("lock.acquire", ev.LockAcquired, turn=TURN)
        sidekick.answer("balancer.leave", ev.BalancerLeft)
        sidekick.answer("balancer.drain", ev.BalancerDrained, how="asked")
        sidekick.answer("workload.replace", ev.WorkloadFailed, cause=CAUSE)
        sidekick.expire("revert.expired")

    step = sidekick.answer("lock.suspend", ev.LockReleased)

    assert ("rollback.blocking" if is_bad else "rollback.releasing") == step.target
    sidekick.answer("lock.block" if is_bad else "lock.release", ev.LockReleased)
    assert "idle.waking" == sidekick.answer("report.result", ev.ReportQueued).target
    assert sidekick.memory.turn is None


def test_a_retry_starts_the_old_version_at_once() -> None:
    sidekick = stuck()

    step = sidekick.tell(ev.OperatorRetried)

    assert "rollback.reverting" == step.target
    assert "1.0.0" == effect(step, RevertWorkload).old.release.version


def test_a_rollback_to_the_version_before_that_takes_it_instead() -> None:
    sidekick = stuck(previous=PREVIOUS)

    step = sidekick.tell(ev.OperatorRolledBack, update="u2", version="0.9.0")

    started = effect(step, RevertWorkload).old
    assert ("0.9.0", "a-0.9.0-u2") == (started.release.version, started.workload_id)
    sidekick.answer("workload.revert", ev.WorkloadStarted, workload_id="a-0.9.0-u2", url="http://zero")
    joins = sidekick.answer("probe.confirm", ev.ProbePassed, url="http://zero")
    assert "http://zero" == effect(joins, ReturnBalancer).url
    assert "http://one" in effect(joins, ReturnBalancer).replacing


@pytest.mark.parametrize(
    ("version", "previous", "kept"),
    [
        ("0.8.0", PREVIOUS, "1.0.0 and 0.9.0"),
        ("0.9.0", None, "1.0.0"),
        ("2.0.0", PREVIOUS, "1.0.0 and 0.9.0"),
    ],
)
def test_a_version_that_was_not_kept_is_refused_with_those_that_were(
    version: str, previous: Installed | None, kept: str
) -> None:
    sidekick = stuck(previous=previous)

    sidekick.tell(ev.OperatorRolledBack, update="u2", version=version)

    assert said(sidekick).endswith(f"can't go back to {version}: this machine has kept {kept}")
    assert sidekick.memory.running is not None
    assert "1.0.0" == sidekick.memory.running.release.version


def test_at_rest_a_version_that_was_not_kept_changes_nothing() -> None:
    sidekick = Sidekick(previous=PREVIOUS).come_up()

    step = sidekick.tell(ev.OperatorRolledBack, update="u2", version="0.8.0")

    assert "idle.waiting" == step.target
    assert sidekick.memory.candidate is None
    assert "can't go back to 0.8.0: this machine has kept 0.9.0" == sidekick.memory.deferred_reason
    assert "downloading.fetching" == sidekick.tell(ev.OperatorRolledBack, update="u3", version="0.9.0").target
