"""Three instances in one process, with real apps behind a real Traefik: rolled, killed in mid-swap, rolled again."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import OUTRIDER, QUICK, SERVICE
from outrider.demo.programs import Program
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[2]
INSTANCES = ["web-a", "web-b", "web-c"]


class OneProcess(LiveFixture):
    """The fleet whose sidekicks are one process."""

    def start_host(self) -> Program:
        folder = self.folder / "instances"
        folder.mkdir(exist_ok=True)
        for instance in self.instances:
            (folder / f"{instance}.toml").write_text(self._config(instance))
        program = Program(
            "sidekicks", [*OUTRIDER, "sidekick", "run", "--config-dir", folder], self.folder, env=self._environment
        )
        for instance in self.instances:
            self.sidekicks[instance] = program
        return self._keep(program)

    def leases(self) -> set[int]:
        """Those that presences hang on."""
        return {entry.lease for entry in self.cluster.list(self.keys.all_presences()).entries}


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneProcess]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    fixture = OneProcess(tmp_path, INSTANCES, settings=QUICK, environment={"PYTHONPATH": str(CHECKOUT)})
    try:
        fixture.start()
        fixture.create()
        yield fixture
    finally:
        fixture.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def test_a_killed_process_of_three_goes_on_where_each_of_them_was(fixture: OneProcess) -> None:
    """
    1. all three install 1.0.0 one after the other, under one lease
    2. 2.0.0 comes; in the middle of a swap the process is killed; a new one finishes all three
    3. a bad 3.0.0 is met by one instance and blocked; SIGTERM ends the process, and the apps serve on
    """
    host = fixture.start_host()
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=90, every_s=0.2)
    assert 1 == len(fixture.leases())

    fixture.publish("2.0.0")
    eventually(lambda: any(one.state.startswith("swapping.") for one in fixture.presences().values()), within_s=60)
    os.kill(host.pid, signal.SIGKILL)
    eventually(lambda: host.ended is not None)
    host = fixture.start_host()
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=120, every_s=0.2)

    fixture.publish("3.0.0", "unhealthy")
    eventually(lambda: fixture.blocked() == ["3.0.0"] and fixture.expect_all_on("2.0.0"), within_s=90, every_s=0.2)

    host.stop()
    assert 0 == host.ended
    assert set() == fixture.leases()
    entries = fixture.cluster.list(f"traefik/http/services/{SERVICE}/").entries
    assert 3 == sum(entry.key.endswith("/url") for entry in entries), "the apps serve on"
