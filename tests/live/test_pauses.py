"""A real sidekick is stopped while it judges a release: the time doesn't count, for or against."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.stage import QUICK
from tests.live.live_stage import LiveStage
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

pytestmark = pytest.mark.live
CHECKOUT = Path(__file__).parents[2]
SOAK_S = 6.0
PROBE_S = 6.0


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveStage]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    settings = {**QUICK, "soak": {"duration_s": SOAK_S}, "probe": {**QUICK["probe"], "deadline_s": PROBE_S}}
    stage = LiveStage(tmp_path, ["web-a"], settings=settings, environment={"PYTHONPATH": str(CHECKOUT)})
    try:
        stage.start()
        stage.create()
        stage.start_sidekick("web-a")
        eventually(lambda: stage.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
        yield stage
    finally:
        stage.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def stand_still(stage: LiveStage, state: str, for_s: float, version: str, kind: str) -> None:
    """Publish a release to a sidekick that stops in ``state`` (SIGSTOP), and let it go on ``for_s`` later."""
    stage.sidekicks["web-a"].stop()
    command = [sys.executable, "-m", "tests.live.killed_sidekick", "--config", str(stage.folder / "web-a.toml")]
    command += ["--kill-at", state, "--stop", "--after-acting", "--done", str(stage.folder / "stopped")]
    program = stage.start_sidekick("web-a", command)
    eventually(lambda: stage.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
    stage.publish(version, kind)
    eventually(lambda: (stage.folder / "stopped").exists(), within_s=60)
    stopped_s = time.monotonic()
    eventually(lambda: time.monotonic() - stopped_s > for_s, within_s=for_s + 10)
    os.kill(program.pid, signal.SIGCONT)


def test_a_good_release_is_not_condemned_for_a_standstill_while_it_is_probed(stage: LiveStage) -> None:
    stand_still(stage, "swapping.probing", PROBE_S + 3.0, "2.0.0", "good")

    eventually(lambda: stage.expect_all_on("2.0.0"), within_s=90, every_s=0.2)
    assert [] == stage.poison()


def test_a_bad_release_does_not_pass_by_a_standstill_while_it_is_watched(stage: LiveStage) -> None:
    stand_still(stage, "swapping.soaking", SOAK_S + 3.0, "3.0.0", "souring")

    eventually(lambda: stage.poison() == ["3.0.0"] and stage.expect_all_on("1.0.0"), within_s=90, every_s=0.2)
