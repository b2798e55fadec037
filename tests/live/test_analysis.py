"""Analysis with real etcd, sidekicks, HAProxy and its agent: new versus old by HAProxy's own counts, under load."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from outrider.demo.balancers import Haproxy
from outrider.demo.example import build_package
from outrider.demo.fleet import APP_ID, CHANNEL, GROUP, QUICK
from outrider.demo.programs import ProgramMissing
from outrider.model.documents import Block, decode
from outrider.model.keys import group_scope
from tests.live.live_fixture import LiveFixture
from tests.support.requirements import skip_or_fail
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

INSTANCES = ("web-a", "web-b")
ANALYSIS = {"compare": "haproxy", "duration_s": 0.5, "interval_s": 0.5, "deadline_s": 40.0}
"""The deadline is what a busy machine needs for some hundred requests."""


class AnalysedFixture(LiveFixture):
    """HAProxy's statistics are known once it runs."""

    def _config(self, instance: str) -> str:
        (haproxy,) = (one for one in self._started if isinstance(one, Haproxy))
        self._settings = {**QUICK, "analysis": {**ANALYSIS, "counts_urls": [haproxy.stats_url]}}
        return super()._config(instance)

    def publish_failing(self, version: str, share: float) -> None:
        """A release that stays healthy, and answers so many greetings with 500."""
        package = build_package(self.folder, version, failing_share=share)
        self.outrider("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={package}")
        self.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")

    def state(self, instance: str) -> str:
        presence = self.presences().get(instance)
        return "" if presence is None else presence.state


class Traffic:
    """Greetings, one after the other, until it is stopped."""

    def __init__(self, url: str) -> None:
        self._url, self._stopped = url, threading.Event()
        self.answers = 0
        self._thread = threading.Thread(target=self._run, name="traffic")
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(30)

    def _run(self) -> None:
        # a connection for each request, so that HAProxy sends them to all servers by turns
        while not self._stopped.is_set():
            try:
                requests.get(self._url, timeout=5, headers={"Connection": "close"})
                self.answers += 1
            except requests.RequestException:
                self._stopped.wait(0.05)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AnalysedFixture]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    fixture = AnalysedFixture(tmp_path, INSTANCES, balancer="haproxy")
    try:
        try:
            fixture.start()
        except ProgramMissing as missing:
            skip_or_fail(str(missing))
        fixture.create(slots=1)
        for instance in INSTANCES:
            fixture.start_sidekick(instance)
        eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=90, every_s=0.1)
        yield fixture
    finally:
        fixture.stop()


def test_new_is_compared_with_old_and_undecided_pauses(fleet: AnalysedFixture) -> None:
    """
    1. under load a good release is analysed on one instance, whose sidekick is killed meanwhile: it is rolled out
    2. one that answers every fifth request with an error is found, rolled back and blocked
    3. without load nothing is decided: the instance goes back and is paused, nothing is blocked, the turn is free
    4. an operator resumes it, and it takes the release as it is
    """
    traffic = Traffic(fleet.web_url + "/")
    try:
        fleet.publish("2.0.0")
        eventually(lambda: "swapping.analysing" in map(fleet.state, INSTANCES), within_s=90, every_s=0.02)
        first = next((name for name in INSTANCES if fleet.state(name) == "swapping.analysing"), INSTANCES[0])
        fleet.sidekicks[first].kill()
        fleet.start_sidekick(first)
        eventually(lambda: fleet.expect_all_on("2.0.0"), within_s=120, every_s=0.2)

        fleet.publish_failing("3.0.0", 0.2)
        eventually(lambda: fleet.blocked() == ["3.0.0"], within_s=120, every_s=0.2)
        eventually(lambda: fleet.expect_all_on("2.0.0"), within_s=90, every_s=0.2)
    finally:
        traffic.stop()
    (entry,) = fleet.cluster.list(fleet.keys.blocks(APP_ID)).entries
    why = decode(Block, entry.key, entry.value).why
    assert "analysis: new versus old: " in why
    assert "errors; old version: " in why
    passed = [
        record.event["sample"] for name in INSTANCES for record in fleet.records(name)
        if record.event["name"] == "analysis.passed"
    ]  # fmt: skip
    assert passed, "the decision is in the journal"
    assert all("new versus old: " in sample for sample in passed)

    fleet.publish("4.0.0")
    eventually(lambda: "idle.paused" in map(fleet.state, INSTANCES), within_s=120, every_s=0.2)
    paused = next(name for name in INSTANCES if fleet.state(name) == "idle.paused")
    told = fleet.outrider("why", f"{APP_ID}/{GROUP}/{paused}")
    assert "paused: the analysis of 4.0.0 is undecided: new versus old: " in told
    assert " of about 4" in told
    assert ["3.0.0"] == fleet.blocked()
    assert "2.0.0" == fleet.presences()[paused].version
    turns = fleet.cluster.list(fleet.keys.turns(group_scope(APP_ID, GROUP))).entries
    assert not [entry.key for entry in turns if entry.key.endswith(f"/{paused}")]
    fleet.outrider("instance", "resume", APP_ID, paused)
    eventually(lambda: fleet.presences()[paused].version == "4.0.0", within_s=120, every_s=0.2)
