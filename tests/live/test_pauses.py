"""A real sidekick is stopped while it judges a release: the time doesn't count, for or against."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import QUICK
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[2]
SOAK_S = 6.0
PROBE_S = 6.0


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveFixture]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    settings = {**QUICK, "soak": {"duration_s": SOAK_S}, "probe": {**QUICK["probe"], "deadline_s": PROBE_S}}
    fixture = LiveFixture(tmp_path, ["web-a"], settings=settings, environment={"PYTHONPATH": str(CHECKOUT)})
    try:
        fixture.start()
        fixture.create()
        fixture.start_sidekick("web-a")
        eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
        yield fixture
    finally:
        fixture.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def stand_still(fixture: LiveFixture, state: str, for_s: float, version: str, kind: str) -> None:
    """Publish a release to a sidekick that stops in ``state`` (SIGSTOP), and let it go on ``for_s`` later."""
    fixture.sidekicks["web-a"].stop()
    command = [sys.executable, "-m", "tests.live.killed_sidekick", "--config", str(fixture.folder / "web-a.toml")]
    command += ["--kill-at", state, "--stop", "--after-acting", "--done", str(fixture.folder / "stopped")]
    program = fixture.start_sidekick("web-a", command)
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
    fixture.publish(version, kind)
    eventually(lambda: (fixture.folder / "stopped").exists(), within_s=60)
    stopped_s = time.monotonic()
    eventually(lambda: time.monotonic() - stopped_s > for_s, within_s=for_s + 10)
    os.kill(program.pid, signal.SIGCONT)


def test_a_good_release_is_not_blocked_for_a_standstill_while_it_is_probed(fixture: LiveFixture) -> None:
    stand_still(fixture, "swapping.probing", PROBE_S + 3.0, "2.0.0", "good")

    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=90, every_s=0.2)
    assert [] == fixture.blocked()


def test_a_bad_release_does_not_pass_by_a_standstill_while_it_is_watched(fixture: LiveFixture) -> None:
    stand_still(fixture, "swapping.soaking", SOAK_S + 3.0, "3.0.0", "souring")

    eventually(lambda: fixture.blocked() == ["3.0.0"] and fixture.expect_all_on("1.0.0"), within_s=90, every_s=0.2)
