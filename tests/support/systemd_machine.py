"""A machine that systemd runs: a container with init, D-Bus, journald and polkit, made once for each test process.

The runtime under test runs in the tests' own process. It reaches that systemd over the machine's D-Bus socket, which is
mounted here; ``journalctl`` is one that asks there. The temporary folder of this test run has the same path in both,
and ports are shared. Never mount more: a system that starts tidies up, ``/tmp`` first.
"""

import atexit
import contextlib
import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from types import MappingProxyType
from typing import Any

import docker.errors
import pytest

from tests.support.containers import docker_client
from tests.support.requirements import skip_or_fail
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PYTHON, CHECKOUT, PACKAGES = "/usr/bin/python3", "/opt/checkout", "/opt/site-packages"
"""On the machine: its Python, and where it sees this checkout and the packages of the tests' Python."""
SCRIPT, TREE = ROOT / "tools/systemd_image.sh", ROOT / ".cache/systemd/tree.tar"
_PROGRAM = """#!%s
import sys
import docker
code, output = docker.from_env().containers.get("%s").exec_run(["%s", *sys.argv[1:]])
sys.stdout.buffer.write(output)
sys.exit(code)
"""


BOOT_ID = "/etc/boot-id"
BOOT = f"""
# the kernel's id of the boot is that of the machine below; as systemd-nspawn does, each start has one of its own
cat /proc/sys/kernel/random/uuid >{BOOT_ID} && mount --bind {BOOT_ID} /proc/sys/kernel/random/boot_id
exec /sbin/init
"""


class SystemdMachine:
    """The container. ``run`` types a command on it as root."""

    def __init__(self, shared: Path, *, read_only: Mapping[Path, str] = MappingProxyType({})) -> None:
        """Build the image when it is missing, start the machine and wait until it is up.

        Args:
            shared: A folder of this test run alone, which the machine sees under the same path.
            read_only: Further folders here -> where the machine sees them, and can't write to them.
        """
        self._client = docker_client()
        self.folder, self.shared = Path(tempfile.mkdtemp(prefix="outrider-systemd-")), shared
        (self.folder / "dbus").mkdir()
        atexit.register(self.remove)
        self._container: Any = self._client.containers.run(
            _image(self._client),
            ["/bin/sh", "-c", BOOT],
            detach=True,
            name=self.folder.name,
            network_mode="host",
            cap_add=["SYS_ADMIN", "SYS_PTRACE"],
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            cgroupns="host",
            tmpfs={"/run": "", "/run/lock": ""},
            volumes={
                "/sys/fs/cgroup": {"bind": "/sys/fs/cgroup", "mode": "rw"},
                str(self.folder / "dbus"): {"bind": "/run/dbus", "mode": "rw"},
                str(shared): {"bind": str(shared), "mode": "rw"},
                **{str(path): {"bind": there, "mode": "ro"} for path, there in read_only.items()},
            },
            environment={"container": "docker"},
        )
        self.name: str = self._container.name
        self.programs("journalctl", folder="bin")
        eventually(self._is_up, every_s=0.2)

    @property
    def socket(self) -> Path:
        """Its system bus."""
        return self.folder / "dbus/system_bus_socket"

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process talk to its systemd and read its journal, for one test."""
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={self.socket}")
        monkeypatch.setenv("PATH", f"{self.folder / 'bin'}:{os.environ['PATH']}")
        # it goes through Docker here, which takes its time on a busy machine
        monkeypatch.setattr("outrider.runtimes.systemd.results._JOURNAL_S", 60.0)

    def programs(self, *names: str, folder: str = "programs") -> Path:
        """A folder with programs of these names, which run on the machine."""
        (self.folder / folder).mkdir(exist_ok=True)
        for name in names:
            program = self.folder / folder / name
            program.write_text(_PROGRAM % (sys.executable, self.name, name))
            program.chmod(0o755)
        return self.folder / folder

    def run(self, *words: str, check: bool = True, user: str = "root") -> str:
        """What a command prints on the machine.

        Raises:
            AssertionError: it left with something else than 0, and that is checked.
        """
        code, output = self._container.exec_run(list(words), user=user)
        text: str = output.decode(errors="replace")
        assert code == 0 or not check, f"{' '.join(words)}: {code}: {text}"
        return text

    def write(self, path: str, text: str) -> None:
        """A file on the machine."""
        source = self.shared / "file"
        source.write_text(text)
        self.run("mkdir", "-p", str(Path(path).parent))
        self.run("cp", str(source), path)

    def clean(self) -> None:
        """End and forget all units that a test has left."""
        for pattern in ("outrider-app-*", "example*"):
            if self.units(pattern):
                self.run("systemctl", "stop", "--no-block", pattern, check=False)
                self.run("systemctl", "kill", "--signal=KILL", pattern, check=False)
                eventually(lambda pattern=pattern: not self.units(pattern))  # type: ignore[misc]
            self.run("systemctl", "reset-failed", pattern, check=False)

    def units(self, pattern: str) -> list[str]:
        """Units that run, or are about to."""
        said = self.run("systemctl", "list-units", "--plain", "--no-legend", "--full", pattern, check=False)
        lines = (line.split() for line in said.splitlines() if line.strip())
        return [words[0] for words in lines if words[2] in ("active", "activating", "deactivating", "reloading")]

    def reboot(self, within_s: float = 90.0) -> None:
        """Shut it down in good order, as a person types it, and start it again once it is off."""
        self.run("systemctl", "reboot", "--no-block", check=False)
        eventually(self._is_off, within_s=within_s, every_s=0.2)
        self._container.start()
        eventually(self._is_up, within_s=60.0, every_s=0.2)

    def _is_off(self) -> bool:
        self._container.reload()
        return bool(self._container.status == "exited")

    def remove(self) -> None:
        """End it, with all that it stored."""
        with contextlib.suppress(docker.errors.DockerException, AttributeError):
            self._container.remove(force=True)
        self._client.close()
        rmtree(self.folder, ignore_errors=True)

    def _is_up(self) -> bool:
        self._container.reload()
        if self._container.status == "exited":
            raise RuntimeError(f"systemd ended in its container: {self._container.logs(tail=20)!r}")
        try:
            _, output = self._container.exec_run(["systemctl", "is-system-running"])
        except docker.errors.APIError:  # it is about to start
            return False
        return output.strip() in (b"running", b"degraded") and self.socket.exists()


def outrider_machine(shared: Path, *, read_only: Mapping[Path, str] = MappingProxyType({})) -> SystemdMachine:
    """A machine of its own with outrider's users and units, as docs/use/install.md says; the code is this checkout's.

    Args:
        shared, read_only: As ``SystemdMachine``.
    """
    systemd_image()
    packages, units = Path(sysconfig.get_paths()["purelib"]), ROOT / "units"
    made = SystemdMachine(shared, read_only={ROOT: CHECKOUT, packages: PACKAGES, **read_only})
    try:
        version = made.run(PYTHON, "--version")
        if not re.fullmatch(rf"Python {re.escape(sysconfig.get_python_version())}\..*\s*", version):
            skip_or_fail(f"the machine has {version.strip()}, which can't load the packages of the tests' Python")
        made.write("/usr/lib/sysusers.d/outrider.conf", (units / "outrider.sysusers.conf").read_text())
        made.run("systemd-sysusers")
        for path in units.rglob("*"):
            if path.suffix in (".service", ".conf") and "sysusers" not in path.name:
                made.write(f"/etc/systemd/system/{path.relative_to(units)}", path.read_text())
        made.write(
            "/opt/outrider/bin/outrider",
            f'#!/bin/sh\nPYTHONPATH={CHECKOUT}/src:{PACKAGES} exec {PYTHON} -m outrider "$@"\n',
        )
        made.run("chmod", "755", "/opt/outrider/bin/outrider")
        made.run("systemctl", "daemon-reload")
    except BaseException:
        made.remove()
        raise
    return made


_machine: list[SystemdMachine] = []


def systemd_machine(folder: Path) -> SystemdMachine:
    """The machine of this process, which sees ``folder``; where it can't be had the test is skipped, or fails in CI.

    Args:
        folder: The ``tmp_path`` of a test: all those of one run are beside each other.
    """
    if not _machine:
        systemd_image()
        _machine.append(SystemdMachine(folder.resolve().parent))
    assert folder.resolve().parent == _machine[0].shared, "all tests of one process share their temporary folder"
    return _machine[0]


def systemd_image() -> None:
    """Make the tree of the image when it is missing; where it can't be made the test is skipped, or fails in CI."""
    done = subprocess.run([str(SCRIPT)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        skip_or_fail(done.stderr.strip() or "tools/systemd_image.sh failed")


def _image(client: docker.DockerClient) -> str:
    """The image of the tree, imported when it isn't there."""
    facts = TREE.stat()
    mark = hashlib.sha256(SCRIPT.read_bytes() + f"{facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:16]
    tag = f"outrider-test/systemd:{mark}"
    if not client.images.list(name=tag):
        client.api.import_image_from_file(str(TREE), repository="outrider-test/systemd", tag=mark)
    return tag
