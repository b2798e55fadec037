"""The units of a machine that really shuts down: its instance leaves the balancer before its sidekick stops.

The sidekick of web-a runs in a container with systemd, as the units say and as the user that they name; etcd, the
update service, Traefik and web-b beside it run here.
"""

import re
import shutil
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import APP_ID, QUICK
from outrider.etcd.seam import KeyChanged, WatchEvent
from outrider.model.documents import Slot, decode
from outrider.model.keys import group_scope
from outrider.turns.turns import read_scope
from tests.live.live_fixture import LiveFixture
from tests.support.requirements import skip_or_fail
from tests.support.servers import etcd_binary
from tests.support.systemd_machine import BOOT_ID, ROOT, SystemdMachine, systemd_image
from tests.support.waiting import eventually

SIDEKICK, SHUTDOWN = "outrider-sidekick@web-a.service", "outrider-shutdown@web-a.service"
PYTHON, CHECKOUT, PACKAGES = "/usr/bin/python3", "/opt/checkout", "/opt/site-packages"
GROUP = "production"
ENTRY = "traefik/http/services/"


class Fleet(LiveFixture):
    """One instance here, and one on the machine."""

    def configuration(self, instance: str) -> str:
        return self._config(instance)


class History:
    """What became of web-a's entry, presence and turn in etcd, in order."""

    def __init__(self, fixture: Fleet) -> None:
        self.changes: list[KeyChanged] = []
        self._mutex = threading.Lock()
        keys = fixture.keys
        self._presence = keys.presence(APP_ID, GROUP, "web-a")
        self._slots = keys.slots(group_scope(APP_ID, GROUP))
        cluster = fixture.cluster
        self._watches = [
            cluster.watch(prefix, cluster.list(prefix).revision + 1, self._note)
            for prefix in (ENTRY, self._presence, self._slots)
        ]

    def _note(self, event: WatchEvent) -> None:
        assert isinstance(event, KeyChanged), event
        with self._mutex:
            self.changes.append(event)

    def told(self) -> list[str]:
        """In words."""
        with self._mutex:
            changes = sorted(self.changes, key=lambda one: one.revision)
        lines: list[str] = []
        for change in changes:
            what = "written" if change.entry is not None else "removed"
            if "/servers/web-a/" in change.key and change.key.endswith("/url"):
                lines.append(f"entry {what}")
            elif change.key == self._presence and change.entry is None:
                lines.append("presence removed")
            elif change.key.startswith(self._slots):
                owner = decode(Slot, change.key, change.entry.value).instance if change.entry is not None else ""
                lines.append(f"turn {'taken by ' + owner if owner else 'free'}")
        return lines

    def close(self) -> None:
        for watch in self._watches:
            watch.close()


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    settings = {
        **QUICK,
        "instance": {"drain_at_shutdown": True, "shutdown_wait_s": 20.0},
        "process": {"command": [PYTHON, "server.py"]},
    }
    made = Fleet(tmp_path, ["web-a", "web-b"], settings=settings, environment={"PYTHONPATH": str(ROOT)})
    try:
        made.start()
        made.create()
        made.start_sidekick("web-b")
        yield made
    finally:
        made.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def machine(tmp_path: Path, fixture: Fleet) -> Iterator[SystemdMachine]:
    """Set up as docs/use/install.md says."""
    systemd_image()
    packages = Path(sysconfig.get_paths()["purelib"])
    made = SystemdMachine(tmp_path, read_only={ROOT: CHECKOUT, packages: PACKAGES})
    try:
        version = made.run(PYTHON, "--version")
        if not re.fullmatch(rf"Python {re.escape(sysconfig.get_python_version())}\..*\s*", version):
            skip_or_fail(f"the machine has {version.strip()}, which can't load the packages of the tests' Python")
        made.write("/usr/lib/sysusers.d/outrider.conf", (ROOT / "units/outrider.sysusers.conf").read_text())
        made.run("systemd-sysusers")
        for unit in ("outrider-sidekick@.service", "outrider-apps@.service", "outrider-shutdown@.service"):
            made.write(f"/etc/systemd/system/{unit}", (ROOT / "units" / unit).read_text())
        # else ProtectKernelTunables= shows the kernel's own id of the boot, which no start of a container changes
        made.write(
            "/etc/systemd/system/outrider-sidekick@.service.d/boot.conf",
            f"[Service]\nBindReadOnlyPaths={BOOT_ID}:/proc/sys/kernel/random/boot_id\n",
        )
        made.write(
            "/opt/outrider/bin/outrider",
            f'#!/bin/sh\nPYTHONPATH={CHECKOUT}/src:{PACKAGES} exec {PYTHON} -m outrider "$@"\n',
        )
        made.run("chmod", "755", "/opt/outrider/bin/outrider")
        made.write("/etc/outrider/instances/web-a.toml", fixture.configuration("web-a"))
        made.run("mkdir", "-p", "/var/log/journal")  # what is said while it shuts down outlives it
        made.run("systemctl", "restart", "systemd-journald")
        made.run("journalctl", "--flush")
        made.run("systemctl", "daemon-reload")
        made.run("systemctl", "add-wants", "multi-user.target", SIDEKICK, SHUTDOWN)
        made.run("systemctl", "start", SIDEKICK, SHUTDOWN)
        yield made
    finally:
        made.remove()


def told_by(machine: SystemdMachine) -> str:
    return machine.run("journalctl", "--no-pager", "-n", "60", "-u", SIDEKICK, "-u", SHUTDOWN, check=False)


def test_a_reboot_drains_the_instance_before_its_sidekick_stops_and_a_restart_of_the_sidekick_does_not(
    fixture: Fleet, machine: SystemdMachine
) -> None:
    """
    1. the sidekick's unit is restarted, and stopped and started; the other unit, too: the instance serves on
    2. the machine reboots: it takes a turn, leaves the balancer, and only then the sidekick ends
    3. the machine is up again: it serves, and the turn is free
    """

    def serves() -> bool:
        assert fixture.expect_all_on("1.0.0"), told_by(machine)
        return True

    eventually(serves, within_s=60, every_s=0.2)
    history = History(fixture)
    try:
        machine.run("systemctl", "restart", SIDEKICK)
        machine.run("systemctl", "stop", SIDEKICK)
        machine.run("systemctl", "stop", SHUTDOWN)
        assert "isn't shutting down: nothing is drained" in told_by(machine)
        machine.run("systemctl", "start", SIDEKICK, SHUTDOWN)
        eventually(serves, within_s=60, every_s=0.2)
        assert {"presence removed"} == set(history.told()), told_by(machine)
        before = len(history.told())

        machine.reboot()

        eventually(serves, within_s=60, every_s=0.2)
        assert "instance web-a gets no more requests: drained under a turn" in told_by(machine)
        eventually(lambda: "turn free" in history.told()[before:])
        assert [
            "turn taken by web-a", "entry removed", "presence removed", "entry written", "turn free",
        ] == history.told()[before:], told_by(machine)  # fmt: skip
        assert {} == read_scope(fixture.cluster, fixture.keys, group_scope(APP_ID, GROUP)).slots
    finally:
        history.close()
