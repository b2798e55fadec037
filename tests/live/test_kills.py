"""``kill -9`` of a real sidekick in every state of the chart: after a restart alone it ends where it would have."""

import os
import shutil
from pathlib import Path

import pytest

from outrider.demo.fleet import APP_ID, GROUP
from outrider.model.keys import group_scope
from outrider.statechart import load_sidekick_chart
from outrider.story import read_lines, replay
from tests.live.killed_fixture import KilledFixture, Life
from tests.live.live_fixture import HEALTHY_ANSWERS
from tests.live.test_kills_apart import APART
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

START, STOP = "start-first", "stop-first"
LIVES = (
    Life(("idle.waking",)),
    Life(("idle.proving",)),
    Life(("idle.joining",)),
    Life(("idle.waiting",)),
    Life(("checking",)),
    Life(("downloading.fetching",)),
    Life(("verifying",)),
    Life(("swapping.queueing",)),
    Life(("swapping.queueing", "swapping.withdrawing")),
    Life(("swapping.starting",)),
    Life(("swapping.probing",)),
    Life(("swapping.switching",)),
    Life(("swapping.switching", "swapping.reclaiming")),
    Life(("swapping.draining",)),
    Life(("swapping.soaking",)),
    Life(("swapping.retiring",)),
    Life(("swapping.retiring", "swapping.restarting")),
    Life(("swapping.retiring", "swapping.reproving")),
    Life(("swapping.retiring", "swapping.returning")),
    Life(("swapping.releasing",)),
    Life(("reporting",)),
    Life(("swapping.leaving",), strategy="stop-first"),
    Life(("swapping.draining",), strategy="stop-first"),
    Life(("swapping.replacing",), strategy="stop-first"),
    Life(("swapping.probing",), strategy="stop-first"),
    Life(("swapping.joining",), strategy="stop-first"),
    Life(("swapping.soaking",), strategy="stop-first"),
    Life(("rollback.removing",), "unhealthy"),
    Life(("rollback.blocking",), "unhealthy"),
    Life(("rollback.reverting",), "unhealthy", "stop-first"),
    Life(("rollback.reprobing",), "unhealthy", "stop-first"),
    Life(("rollback.rejoining",), "unhealthy", "stop-first"),
    Life(("rollback.relocking",), "souring"),
    Life(("rollback.restoring",), "souring"),
    Life(("rollback.undraining",), "souring"),
    Life(("rollback.quitting",), "souring", "stop-first"),
)

ELSEWHERE = {
    *APART,
    # left in the same step in which it is entered: never the state of a journal
    "swapping.committing",
    # tests/live/test_analysis.py kills in it: only instances with an analysis get there
    "swapping.analysing",
    # nothing is asked for and nothing written there; a restart leads through idle.waking
    "idle.refused",
    # only where a package has tasks; tests/sim/test_tasks.py kills there
    "swapping.readying",
    # tests/sim/test_drains.py kills in each of them
    "idle.retaking",
    "idle.leaving",
    "idle.emptying",
    "idle.drained",
    "idle.stopping",
    "idle.resigning",
    "idle.releasing",
}


def test_every_state_of_the_chart_has_its_kill() -> None:
    leaves = {leaf.id for leaf in load_sidekick_chart().leaves}

    assert {state for life in LIVES for state in life.kills} == leaves - ELSEWHERE


BATCHES = [
    pytest.param(release, strategy, odd_acts, id=f"{release}-{strategy}-{'b' if odd_acts else 'a'}")
    for release in HEALTHY_ANSWERS
    for strategy in (START, STOP)
    # the second half of the matrix, with before and after exchanged, runs when it is asked for
    for odd_acts in ((False, True) if os.environ.get("OUTRIDER_TEST_KILLS") == "all" else (False,))
]


@pytest.mark.parametrize(("release", "strategy", "odd_acts"), BATCHES)
def test_a_kill_in_any_state_is_mended_by_a_restart_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, strategy: str, odd_acts: bool
) -> None:
    """
    1. all instances run 1.0.0
    2. a release comes; each sidekick is killed in its state, and restarted, nothing else
    3. a good release runs everywhere, a bad one nowhere; nothing is left of turns, and one workload runs each
    """
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    lives = tuple(life for life in LIVES if (life.release, life.strategy) == (release, strategy))
    assert lives, "every batch has its lives"
    fixture = KilledFixture(tmp_path, lives, odd_acts=odd_acts)
    try:
        fixture.bring_up()
        fixture.arm()
        fixture.publish("2.0.0", release)

        eventually(fixture.restart_the_dead, within_s=150, every_s=0.1)
        wanted = "2.0.0" if release == "good" else "1.0.0"
        eventually(lambda: fixture.restart_the_dead() and fixture.expect_all_on(wanted), within_s=120, every_s=0.3)

        assert ([] if release == "good" else ["2.0.0"]) == fixture.blocked()
        assert () == fixture.cluster.list(fixture.keys.turns(group_scope(APP_ID, GROUP))).entries
        for instance in fixture.instances:
            records = fixture.records(instance)
            assert records[-1].memory["running"]["release"]["version"] == wanted
            assert 1 == len(fixture.running(instance)), f"{instance}: {fixture.running(instance)}"
            assert replay(read_lines(fixture.state_dir(instance)), load_sidekick_chart()).restarts
    finally:
        fixture.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)
