"""The demo's fleet with what a soak does to it: programs are killed and started again at their addresses."""

import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Literal

from outrider.core.errors import DriverError
from outrider.demo.example import build_package
from outrider.demo.fleet import APP_ID, CHANNEL, workloads
from outrider.demo.programs import Etcd, Program
from tests.live.live_fixture import HEALTHY_ANSWERS, LiveFixture
from tests.soak.history import History
from tests.support.secured import SecuredFixture
from tests.support.waiting import eventually

Kind = Literal["good", "unhealthy", "souring", "refused"]
PATIENCE_S = 120.0


class SoakFixture(LiveFixture):
    """Keeps what it started by name, so that a restart replaces it."""

    history: History

    def watch(self, slots: int) -> None:
        """Judge every revision from here on."""
        self.history = History(self.cluster, self.keys, slots=slots)

    def restart_sidekick(self, instance: str) -> None:
        self._forget(self.sidekicks[instance])
        self.start_sidekick(instance)

    def restart_service(self) -> None:
        """Start the service again; its readiness isn't waited for."""
        command = self._command_of["service"]
        self._forget(self.service)
        self.service = self._keep(Program("service", command, self.folder))

    def restart_etcd(self) -> None:
        """Start etcd again on its data; its readiness isn't waited for."""
        endpoint = self.etcd.endpoint
        self._forget(self.etcd)
        self.etcd = self._keep(Etcd("etcd", self._command_of["etcd"], self.folder))
        self.etcd.endpoint = endpoint

    def remember_commands(self) -> None:
        """Look how etcd and service were started, to start them so again."""
        self._command_of = {
            name: [word.decode() for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
            for name, pid in (("etcd", self.etcd.pid), ("service", self.service.pid))
        }

    def release(self, version: str, kind: Kind) -> None:
        """Publish a release, by the service's commands; while the service is away they are tried again."""
        if kind == "refused":
            package = self.folder / f"empty-{version}.tar"
            with tarfile.open(package, "w") as tar:
                member = tarfile.TarInfo("README")
                member.size = len(version)
                tar.addfile(member, BytesIO(version.encode()))
        else:
            package = build_package(self.folder, version, healthy_answers=HEALTHY_ANSWERS[kind])
        self._insist("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={package}")
        self._insisted(lambda: self.sign(version))
        self._insist("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")
        package.unlink()

    def app_at(self, instance: str, url: str) -> int | None:
        """Process id of the workload of ``instance`` that serves at ``url``."""
        with workloads(self.state_dir(instance)) as runtime:
            for workload in runtime.running():
                if workload.url == url:
                    return int(workload.handle.removeprefix("pid "))
        return None

    def _insist(self, *words: str) -> None:
        self._insisted(lambda: self.outrider(*words))

    def _insisted(self, deed: Callable[[], object]) -> None:
        def done() -> bool:
            try:
                deed()
            except DriverError as error:
                if "exists already" in str(error):  # the answer of an earlier try was lost
                    return True
                raise AssertionError(str(error)) from error
            return True

        eventually(done, within_s=PATIENCE_S, every_s=0.5)

    def _forget(self, program: Program) -> None:
        program.kill()
        self._started.remove(program)


class SecuredSoakFixture(SecuredFixture, SoakFixture):
    """The same, secured."""
