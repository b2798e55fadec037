"""The same version with another environment, or after a restart, is another release for the chart, too."""

from typing import Any

import pytest

from outrider.core.chart.machine import Perform
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import AcquireLock
from tests.core.sidekick.test_sidekick import TURN, Sidekick

DIGEST = "e" * 64
FACTS: dict[str, Any] = {
    "version": "1.0.0", "urls": ("http://x/1",), "sha256": "0" * 64, "size_bytes": 1, "update": "u1",
}  # fmt: skip
SEVENTH = {"environment": 7, "environment_digest": DIGEST}


def offered(sidekick: Sidekick, label: str, **facts: Any) -> Sidekick:
    """The group's target is the release ``label`` of the version that runs, and the service grants it."""
    sidekick.tell(ev.TargetChanged, version="1.0.0", release=label, paused=False, slots=1, revision=40)
    sidekick.answer("release.check", ev.ReleaseFound, **FACTS, **facts)
    return sidekick


@pytest.mark.parametrize(
    ("label", "facts"),
    [
        ("1.0.0 with environment 7", SEVENTH),
        ("1.0.0, generation 3", {"release_generation": 3}),
        ("1.0.0 with environment 7, generation 3", SEVENTH | {"release_generation": 3}),
    ],
)
@pytest.mark.parametrize("allow_downgrade", [True, False])
def test_it_is_taken_where_a_machine_forbids_going_back_too(
    label: str, facts: dict[str, Any], allow_downgrade: bool
) -> None:
    sidekick = offered(Sidekick(allow_downgrade=allow_downgrade).come_up(), label, **facts)

    assert "downloading.fetching" == sidekick.machine.state
    assert sidekick.memory.candidate is not None
    assert label == sidekick.memory.candidate.release.label


def test_an_older_environment_is_no_older_version() -> None:
    """`rollout undo` of an environment also reaches a machine that forbids going back."""
    sidekick = offered(Sidekick(allow_downgrade=False).come_up(), "1.0.0 with environment 7", **SEVENTH)
    commit(sidekick)

    offered(sidekick, "1.0.0 with environment 6", environment=6, environment_digest="d" * 64)

    assert "downloading.fetching" == sidekick.machine.state


def test_what_runs_already_is_not_started_again() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote("1.0.0")

    assert "idle.waiting" == sidekick.machine.state


def test_one_environment_is_blocked_and_another_is_taken() -> None:
    sidekick = Sidekick().come_up()
    sidekick.tell(ev.BlockChanged, versions={"1.0.0 with environment 7": "b: it crashed"})
    sidekick.tell(
        ev.TargetChanged, version="1.0.0", release="1.0.0 with environment 7", paused=False, slots=1, revision=40
    )
    assert "idle.waiting" == sidekick.machine.state

    offered(sidekick, "1.0.0 with environment 8", environment=8, environment_digest=DIGEST)

    assert "downloading.fetching" == sidekick.machine.state


def test_a_bad_environment_is_blocked_as_the_release_that_it_is() -> None:
    """It ends by itself: this release is blocked, the version with what ran before is not."""
    sidekick = offered(Sidekick().come_up(), "1.0.0 with environment 7", **SEVENTH)
    acquired = turn(sidekick)
    assert ("1.0.0 with environment 7", "1.0.0:env7.eeeeeeee:gen0:g") == (acquired.version, acquired.key)

    sidekick.answer("workload.start", ev.WorkloadFailed, cause="exit 3", evidence="ended")

    assert {"1.0.0 with environment 7": "a: exit 3"} == dict(sidekick.memory.blocked)
    assert sidekick.memory.running is not None
    assert "1.0.0" == sidekick.memory.running.release.label


def turn(sidekick: Sidekick) -> AcquireLock:
    """It downloads, verifies and gets its turn; with which words it asked for that."""
    sidekick.answer("release.download", ev.ReleaseDownloaded)
    step = sidekick.answer("release.verify", ev.ReleaseVerified)
    asked = [one.effect for one in step.actions if isinstance(one, Perform)]
    (acquire,) = [effect for effect in asked if isinstance(effect, AcquireLock)]
    sidekick.answer("lock.acquire", ev.LockAcquired, turn=TURN)
    return acquire


def commit(sidekick: Sidekick) -> None:
    """The whole way, up to the commit and back to rest."""
    turn(sidekick)
    sidekick.answer("workload.start", ev.WorkloadStarted, workload_id=sidekick.candidate_id(), url="http://two")
    sidekick.answer("probe.start", ev.ProbePassed, url="http://two")
    sidekick.answer("balancer.switch", ev.BalancerSwitched)
    sidekick.answer("balancer.drain", ev.BalancerDrained, how="seen")
    sidekick.expire("soak.due")
    sidekick.answer("workload.retire", ev.WorkloadRetired)
    sidekick.answer("lock.release", ev.LockReleased)
    sidekick.answer("report.result", ev.ReportQueued)
