"""The fixture with containers: what a kill in the middle of Docker's work leaves behind, and whether it is found."""

from collections.abc import Mapping, Sequence

from outrider.demo.docker_fleet import DOCKER, DockerFleet
from outrider.demo.fleet import APP_ID
from tests.chaos.fixture import HASTE, ChaosFixture
from tests.support import docker_images
from tests.support.secured import SecuredFixture


class ContainerChaosFixture(ChaosFixture, DockerFleet):
    """Each version is an image in a registry of the fixture's own."""

    haste: Mapping[str, Mapping[str, object]] = {
        **HASTE,
        "instance": DOCKER["instance"],
        # busybox does not count the requests that it has open
        "drain": {**HASTE["drain"], "inflight_path": "", "wait_s": 1.0},
        "probe": {**HASTE["probe"], "interval_s": 0.1},
    }

    def upload(self, version: str, kind: str, tasks: Sequence[Mapping[str, object]] = ()) -> None:
        assert not tasks, "an image has tasks of the machine only, and no scenario has those"
        image = self.package(version, healthy=kind == "good")
        self.outrider("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={image}")
        self.sign(version)

    def publish(self, version: str, kind: str = "good") -> None:
        self.upload(version, kind)
        self.outrider("channel", "update", f"--app-id={APP_ID}", "--channel=stable", f"--version={version}")

    def end_apps(self, instance: str) -> None:
        runtime = self.runtime(instance)
        for workload in runtime.running():
            runtime.stop(workload.workload_id, 0.0)

    def leftovers(self, instance: str) -> list[str]:
        found = docker_images.containers_of(self.state_dir(instance))
        return [f"{one.name} ({one.status})" for one in found if one.status != "running"]


class SecuredContainerFixture(SecuredFixture, ContainerChaosFixture):
    """The same, secured."""

    def start(self) -> None:
        self.start_registry()  # the secured start takes the place of the one that starts a registry
        super().start()
