"""The whole updater on a real etcd and update service, with this machine's dpkg on a system of its own.

The package has no scripts: what its restart does to the sidekicks is done by the test.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import OUTRIDER
from outrider.demo.programs import Program
from outrider.model.documents import Block, Presence, decode
from outrider.trust.keys import create_key, public_file
from tests.live.live_fixture import LiveFixture
from tests.support.debs import NAME, build_deb, installed_content, use_dpkg_root
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

APP, GROUP, UPDATER = "outrider", "machines", "m1"
WITHIN_S = 240.0

SETTINGS = """
[instance]
id = "{updater}"
app = "{app}"
group = "{group}"
runtime = "dpkg"
strategy = "stop-first"
balancer = "none"
state_dir = "{folder}/updater"
[dpkg]
package = "{name}"
instances = ["{folder}/state"]
units = []
check = ["{python}", "-c", "pass"]
look_interval_s = 0.5
quiet_timeout_s = 60.0
install_timeout_s = 60.0
[workload]
start_timeout_s = 120.0
[probe]
kind = "healthcheck"
interval_s = 0.2
timeout_s = 10.0
successes = 2
failures = 3
deadline_s = {deadline_s}
[soak]
duration_s = 1.0
[trust]
keys = ["{key}"]
[lock]
ttl_s = 5.0
[service]
urls = ["{service}"]
retry_min_s = 0.5
retry_max_s = 5.0
[etcd]
endpoints = ["{etcd}"]
"""


class Fleet(LiveFixture):
    """One machine: an instance of an ordinary app, and the updater."""

    updater: Program

    def start_updater(self, *, deadline_s: float = 120.0) -> None:
        config = self.folder / "updater.toml"
        config.write_text(
            SETTINGS.format(
                updater=UPDATER,
                app=APP,
                group=GROUP,
                folder=self.folder,
                name=NAME,
                python=sys.executable,
                key=public_file(self.folder / "key"),
                service=self.service_url,
                etcd=self.endpoint,
                deadline_s=deadline_s,
            )
        )
        self.updater = self._keep(Program("updater", [*OUTRIDER, "sidekick", "run", "--config", config], self.folder))

    def updater_is(self, state: str, version: str) -> bool:
        """Where the updater is.

        Raises:
            AssertionError: elsewhere; it says where.
        """
        entry = self.cluster.get(self.keys.presence(APP, GROUP, UPDATER))
        seen = decode(Presence, entry.key, entry.value) if entry is not None else None
        if seen is not None and (seen.state, seen.version) == (state, version):
            return True
        log = self.updater.log.read_text(errors="replace").splitlines()[-15:]
        raise AssertionError("\n".join([f"not {state} with {version}, but {seen}", *log]))

    def release(self, version: str, *, signed: bool = True) -> None:
        """A package that the channel points at."""
        deb = build_deb(self.folder, version)
        named = (f"--app-id={APP}", f"--version={version}")
        self.outrider("package", "create", *named, f"--file={deb}", "--as-is")
        if signed:
            self.outrider("package", "sign", *named, f"--private-key={self.folder / 'key'}")
        self.outrider("channel", "update", f"--app-id={APP}", "--channel=stable", f"--version={version}")

    def restart_sidekick(self) -> None:
        """As the package does it after its installation."""
        self.sidekicks["web-a"].stop()
        self.start_sidekick("web-a")

    def blocked_packages(self) -> list[str]:
        listing = self.cluster.list(self.keys.blocks(APP))
        return [decode(Block, entry.key, entry.value).version for entry in listing.entries]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    use_dpkg_root(monkeypatch, tmp_path / "system")
    made = Fleet(tmp_path / "fleet", ["web-a"])
    try:
        made.start()
        made.create()
        made.start_sidekick("web-a")
        made.outrider("app", "create", f"--app-id={APP}")
        made.outrider("group", "create", f"--app-id={APP}", f"--group-id={GROUP}", "--channel=stable")
        create_key(made.folder / "key")
        first = build_deb(tmp_path, "1.0.0")
        subprocess.run(["dpkg", "--install", str(first)], check=True, capture_output=True)
        kept = made.folder / "updater/kept"
        kept.mkdir(parents=True)
        first.rename(kept / first.name)
        eventually(lambda: made.expect_all_on("1.0.0"), within_s=WITHIN_S, every_s=0.5)
        yield made
    finally:
        made.stop()


def wait_for(fleet: Fleet, state: str, version: str) -> None:
    eventually(lambda: fleet.updater_is(state, version), within_s=WITHIN_S, every_s=0.2)


def test_the_updater_installs_confirms_and_takes_back(fleet: Fleet) -> None:
    """
    1. what is installed is taken for the first version
    2. 2.0.0 is installed; it counts only when the machine's sidekick has come back
    3. the updater is killed while 3.0.0 is not confirmed yet, and started again: 3.0.0 comes through
    4. an unsigned 4.0.0 is never installed
    5. with 5.0.0 the sidekick doesn't come back: 3.0.0 is installed again, and 5.0.0 is blocked
    """
    fleet.start_updater()
    wait_for(fleet, "idle.waiting", "1.0.0")

    fleet.release("2.0.0")
    wait_for(fleet, "swapping.probing", "1.0.0")
    assert "2.0.0" == installed_content()
    fleet.restart_sidekick()
    wait_for(fleet, "idle.waiting", "2.0.0")
    assert not (fleet.folder / "updater/pending.json").exists()

    fleet.release("3.0.0")
    wait_for(fleet, "swapping.probing", "2.0.0")
    os.kill(fleet.updater.pid, signal.SIGKILL)
    eventually(lambda: fleet.updater.ended is not None)
    assert (fleet.folder / "updater/pending.json").exists()
    fleet.start_updater()
    fleet.restart_sidekick()
    wait_for(fleet, "idle.waiting", "3.0.0")
    assert "3.0.0" == installed_content()

    fleet.release("4.0.0", signed=False)
    eventually(
        lambda: "isn't signed" in fleet.outrider("why", f"{APP}/{GROUP}/{UPDATER}"), within_s=WITHIN_S, every_s=0.5
    )
    assert "3.0.0" == installed_content()

    fleet.updater.stop()
    fleet.start_updater(deadline_s=8.0)
    fleet.release("5.0.0")
    wait_for(fleet, "rollback.reprobing", "3.0.0")
    assert "3.0.0" == installed_content()
    fleet.restart_sidekick()
    wait_for(fleet, "idle.waiting", "3.0.0")
    assert ["5.0.0"] == fleet.blocked_packages()
    assert "3.0.0" == installed_content()
    assert fleet.expect_all_on("1.0.0"), "the app itself was never touched"
