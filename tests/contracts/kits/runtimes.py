"""The kits of the runtimes."""

import atexit
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import pytest

from outrider.core.blame import Evidence
from outrider.runtimes import RunnableRelease, Workload
from outrider.runtimes.docker import DockerSettings
from outrider.runtimes.dpkg import DpkgSettings
from outrider.runtimes.fleet import FleetSettings
from outrider.runtimes.systemd import SystemdSettings
from tests.support import docker_images
from tests.support.barriers import WAIT, WAIT_SH, Barrier, ContainerBarrier, SocketBarrier
from tests.support.command_programs import command_settings
from tests.support.debs import build_deb, installed_content, use_dpkg_root
from tests.support.fleet_stand_in import MACHINE, FleetStandIn
from tests.support.systemd_machine import systemd_machine
from tests.support.waiting import eventually
from tests.support.workloads import SETTINGS, answer, payload, release

Ending = Literal["exit", "bind", "full", "program"]
"""It says that it has no licence; its port is taken; it met a full disk and says so; it lacks a program."""
_ENDS: Mapping[Ending, str] = {
    "exit": "print('no licence', flush=True)\nraise SystemExit(3)",
    "bind": "import socket\nsocket.socket().bind((os.environ['HOST'], int(os.environ['PORT'])))",
    "full": "raise OSError(28, 'No space left on device')",
    "program": "os.execvp('sh', ['sh', '-c', 'exec frobnicate'])",
}
_ENDS_SH: Mapping[Ending, str] = {
    "exit": "echo no licence; exit 3",
    "bind": "exit 1",
    "full": "echo 'write: No space left on device'; exit 1",
    "program": "exec frobnicate",
}


class RuntimeKit(Protocol):
    """What a runtime's contract is tested with.

    Attributes:
        settings: Of the driver's own section; None when it has none.
        stopped: How it words the end of a workload that was stopped and obeyed.
        gone: How it words the end of what isn't there.
        is_live: It needs a program that the first ring does without.
        runs_apps: What it starts is a process of the app's, and several run beside each other.
    """

    stopped: str
    gone: str
    is_live: bool
    runs_apps: bool

    @property
    def settings(self) -> object: ...

    def begin(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """Start what the runtime needs, before it is made. Its files will be below ``folder``."""

    def clean(self, state_dir: Path) -> None:
        """Remove what a test has left, that isn't below ``state_dir``."""

    def good(self, folder: Path, version: str) -> RunnableRelease:
        """A release that runs: an app that answers its environment. The payload is made below ``folder``."""

    def bad(self, folder: Path) -> tuple[RunnableRelease, str]:
        """A release that can't run for a reason of its own, and the pattern of what is said about it."""

    def ending(self, folder: Path, version: str, how: Ending) -> RunnableRelease:
        """A release of an app that ends by itself, before it serves; where ``barrier`` is used once that is open."""

    def seen_in(self, how: Ending) -> Evidence | None:
        """What such an end is evidence of here; None: it can't come about."""

    def barrier(self) -> Barrier:
        """What lets such an app go on, when it was given the barrier's variables."""

    def answer(self, workload: Workload) -> Mapping[str, object]:
        """The environment of the app, once it answers."""


class ProcessKit:
    """A tar with a script that Python runs."""

    settings: object = SETTINGS
    stopped = "signal 15"
    gone = "gone"
    is_live = False
    runs_apps = True

    def begin(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        pass

    def clean(self, state_dir: Path) -> None:
        pass  # the fixture state_dir ends processes

    def good(self, folder: Path, version: str) -> RunnableRelease:
        home = folder / f"good-{version}"
        home.mkdir(exist_ok=True)
        return release(version, payload(home))

    def bad(self, folder: Path) -> tuple[RunnableRelease, str]:
        path = folder / "bad.payload"
        path.write_text("<html>not found</html>" * 100)
        return release("1.0.0", path), r"bad\.payload: not a tar file"

    def ending(self, folder: Path, version: str, how: Ending) -> RunnableRelease:
        home = folder / f"ending-{version}"
        home.mkdir(exist_ok=True)
        return release(version, payload(home, {"app.py": WAIT + _ENDS[how]}))

    def seen_in(self, how: Ending) -> Evidence | None:
        seen: Mapping[Ending, Evidence] = {
            "exit": "ended", "bind": "no-port", "full": "disk-full", "program": "no-interpreter"
        }  # fmt: skip
        return seen[how]

    def barrier(self) -> Barrier:
        return SocketBarrier()

    def answer(self, workload: Workload) -> Mapping[str, object]:
        return answer(workload)


class DockerKit:
    """An image in a tar, with a shell that Docker runs."""

    settings: object = DockerSettings()
    stopped = "exit 0: somebody let Docker stop it"
    gone = "gone"
    is_live = True
    runs_apps = True

    def begin(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        pass

    def clean(self, state_dir: Path) -> None:
        docker_images.clean(state_dir)

    def good(self, folder: Path, version: str) -> RunnableRelease:
        path = folder / f"good-{version}.payload"
        return release(version, docker_images.save(docker_images.build(version), path))

    def bad(self, folder: Path) -> tuple[RunnableRelease, str]:
        path = folder / "bad.payload"
        path.write_text("<html>not found</html>" * 100)
        return release("1.0.0", path), r"bad\.payload: not a tar file as `docker save` writes it"

    def ending(self, folder: Path, version: str, how: Ending) -> RunnableRelease:
        path = folder / f"ending-{version}.payload"
        image = docker_images.build(version, {"run": f"#!/bin/sh\n{WAIT_SH}{_ENDS_SH[how]}\n"})
        return release(version, docker_images.save(image, path))

    def seen_in(self, how: Ending) -> Evidence | None:
        # Docker takes the published port before the app is started; an image lacks what it lacks on every machine
        seen: Mapping[Ending, Evidence | None] = {
            "exit": "ended", "bind": None, "full": "disk-full", "program": "ended"
        }  # fmt: skip
        return seen[how]

    def barrier(self) -> Barrier:
        return ContainerBarrier()

    def answer(self, workload: Workload) -> Mapping[str, object]:
        def ask() -> Mapping[str, object]:
            with urllib.request.urlopen(f"{workload.url}/cgi-bin/env", timeout=60) as response:
                lines = response.read().decode().splitlines()
            return {name: text for name, _, text in (line.partition("=") for line in lines)}

        told = eventually(lambda: docker_images.answered(ask))
        assert told is not None
        return told


class CommandKit(ProcessKit):
    """The same app, which an operator's script unpacks, starts, finds and stops."""

    stopped = gone = "gone"

    @cached_property
    def settings(self) -> object:  # type: ignore[override]
        folder = Path(tempfile.mkdtemp(prefix="outrider-kit-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return command_settings(folder)

    def bad(self, folder: Path) -> tuple[RunnableRelease, str]:
        return super().bad(folder)[0], r"exit 65; it said: damaged: not a tar file"


class SystemdKit(ProcessKit):
    """The same app in a unit of its own, on a machine that systemd runs."""

    settings: object = SystemdSettings(
        command=("/usr/bin/python3", "app.py", "--port={port}", "{host}", "v{version}"), poll_interval_s=0.1
    )
    stopped = gone = "gone"
    is_live = True

    def begin(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        systemd_machine(folder).use(monkeypatch)

    def clean(self, state_dir: Path) -> None:
        systemd_machine(state_dir.parent).clean()


class FleetKit(ProcessKit):
    """The same app as a unit of a stand-in for fleet, which is at one address and made anew for each test."""

    stopped = gone = "gone"

    def __init__(self) -> None:
        self._fleets: list[FleetStandIn] = []

    @cached_property
    def settings(self) -> object:  # type: ignore[override]
        folder = Path(tempfile.mkdtemp(prefix="outrider-kit-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        template = folder / "example@.service"
        template.write_text(f"[Service]\nExecStart={sys.executable} {{root}}/app.py\n[X-Fleet]\nMachineID={MACHINE}\n")
        return FleetSettings(url=f"unix://{folder / 'fleet.sock'}", template=template, poll_interval_s=0.05)

    def begin(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        assert isinstance(self.settings, FleetSettings)
        self._fleets.append(FleetStandIn(Path(self.settings.url.removeprefix("unix://")).parent))
        self._fleets[-1].use_journal(monkeypatch)

    def clean(self, state_dir: Path) -> None:
        fleet = self._fleets.pop()
        fleet.close()
        fleet.socket.unlink()


class DpkgKit:
    """A Debian package with one file, which this machine's dpkg installs below a folder of the test."""

    settings: object = DpkgSettings(
        package="outrider-kit", instances=(), units=(), check=(), look_interval_s=0.05, quiet_timeout_s=5
    )
    stopped = gone = "gone"
    is_live = False
    runs_apps = False

    def begin(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        use_dpkg_root(monkeypatch, folder / "system")

    def clean(self, state_dir: Path) -> None:
        pass  # all of it is below the test's folder

    def good(self, folder: Path, version: str) -> RunnableRelease:
        return release(version, build_deb(folder, version))

    def bad(self, folder: Path) -> tuple[RunnableRelease, str]:
        path = folder / "bad.payload"
        path.write_text("<html>not found</html>" * 100)
        return release("1.0.0", path), r"bad\.payload: not a Debian package"

    def ending(self, folder: Path, version: str, how: Ending) -> RunnableRelease:
        raise AssertionError("a package is no process, and ends in none of these ways")

    def seen_in(self, how: Ending) -> Evidence | None:
        return None

    def barrier(self) -> Barrier:
        raise AssertionError("a package is no process")

    def answer(self, workload: Workload) -> Mapping[str, object]:
        return {"OUTRIDER_VERSION": installed_content()}


RUNTIME_KITS: Mapping[str, RuntimeKit] = {
    "process": ProcessKit(),
    "command": CommandKit(),
    "systemd": SystemdKit(),
    "fleet": FleetKit(),
    "docker": DockerKit(),
    "dpkg": DpkgKit(),
}
