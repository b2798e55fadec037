"""What may go wrong with an image: the version before serves on, it is said why, and nothing is left behind."""

import json
import re

import pytest

from outrider.demo.docker_fleet import DOCKER, push
from outrider.demo.fleet import APP_ID, CHANNEL, HOST
from outrider.demo.load import LoadGenerator
from tests.live.test_docker_fleet import Containers, Start, start  # noqa: F401 - the fixture
from tests.support import docker_images
from tests.support.containers import docker_client
from tests.support.waiting import eventually

NO_LICENCE = {"run": "#!/bin/sh\necho no licence\nexit 3\n"}
HUNGRY = {"run": '#!/bin/sh\necho up\nsleep 1\na=x\nwhile :; do a="$a$a"; done\n'}
"""It grows until the kernel ends it."""
NOWHERE = f"sha256:{'ab' * 32}"
SETTINGS = {
    **DOCKER,
    "docker": {"memory_bytes": 24 * 1024**2},
    "service": {"retry_min_s": 0.5, "retry_max_s": 2.0},
    "download": {"timeout_s": 5.0, "deadline_s": 15.0},
}


class Faulty(Containers):
    """Releases of which something is wrong."""

    def push(self, version: str, files: dict[str, str]) -> str:
        name = f"{self.registry_host}/example:{version}"
        docker_client().images.get(docker_images.build(version, files)).tag(f"{self.registry_host}/example", version)
        self._images.append(name)
        push(name)
        return name

    def create_package(self, version: str, image: str, *more: str) -> None:
        self.outrider("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={image}", *more)

    def promote(self, version: str) -> None:
        self.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")

    def causes(self) -> str:
        """Everything bad that the instance has said in its life."""
        lines = []
        for record in self.records("web-a"):
            told = record.event
            lines += [str(told[key]) for key in ("cause", "status", "reason") if key in told]
            lines += [str((record.memory.get(key) or {}).get("cause", "")) for key in ("fault", "trouble")]
        return json.dumps(lines)

    def serves_alone(self, version: str) -> bool:
        return [(version, "running")] == self.containers("web-a")

    def said(self, pattern: str) -> bool:
        """Whether it has said so.

        Raises:
            AssertionError: it has said something else.
        """
        found = self.causes()
        assert re.search(pattern, found), f"{pattern}: {found[-1500:]}"
        return True


@pytest.fixture
def fleet(start: Start, monkeypatch: pytest.MonkeyPatch) -> Faulty:  # noqa: F811
    monkeypatch.setattr("tests.live.test_docker_fleet.Containers", Faulty)
    found: Faulty = start("web-a", settings=SETTINGS)
    return found


def test_whatever_goes_wrong_the_version_before_serves_on_and_it_is_said_why(fleet: Faulty) -> None:
    """
    1. an app that ends at once: the release's fault, so it is blocked, with its last words
    2. an image that the registry doesn't have: nobody's fault yet
    3. a container that the kernel ends for memory: this machine's limit
    4. a registry that is away: waited for, and the version comes once it is back
    """
    load = LoadGenerator(f"{fleet.web_url}{fleet.path}", HOST, 20.0, posts=False).start()
    try:
        fleet.create_package("2.0.0", fleet.push("2.0.0", NO_LICENCE))
        fleet.promote("2.0.0")
        eventually(lambda: fleet.blocked() == ["2.0.0"], within_s=120, every_s=0.2)
        # on a busy machine it may be seen to run before it ends
        words = r"ends at once: exit 3; it said: no licence|ended by itself: exit 3"
        eventually(lambda: fleet.said(words), within_s=60, every_s=0.2)
        eventually(lambda: fleet.serves_alone("1.0.0"), within_s=60, every_s=0.2)

        fleet.create_package("3.0.0", f"{fleet.registry_host}/example:3.0.0", f"--digest={NOWHERE}")
        fleet.promote("3.0.0")
        eventually(lambda: fleet.said(r"(not found|manifest unknown)"), within_s=120, every_s=0.2)
        assert fleet.serves_alone("1.0.0")

        fleet.create_package("4.0.0", fleet.push("4.0.0", HUNGRY))
        fleet.promote("4.0.0")
        eventually(lambda: fleet.said(r"killed for memory.*docker\.memory_bytes"), within_s=120, every_s=0.2)
        eventually(lambda: fleet.serves_alone("1.0.0"), within_s=60, every_s=0.2)

        fleet.create_package("5.0.0", fleet.package("5.0.0"))
        fleet.registry.stop()
        docker_client().images.remove(f"{fleet.registry_host}/example:5.0.0", force=True)
        fleet.promote("5.0.0")
        eventually(lambda: fleet.said(r"connection refused"), within_s=120, every_s=0.2)
        assert fleet.serves_alone("1.0.0")
        assert {"1.0.0"} == set(load.snapshot().versions), "no other version has answered"
        fleet.start_registry()
        eventually(lambda: fleet.expect_all_on("5.0.0"), within_s=120, every_s=0.2)
    finally:
        figures = load.stop()

    assert (0, {}) == (figures.failed, figures.failures), figures.examples
    assert ["2.0.0"] == fleet.blocked(), "one was the release's fault"
    eventually(lambda: fleet.serves_alone("5.0.0"), within_s=60, every_s=0.2)
