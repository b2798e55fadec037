"""docs/use/quickstart-docker.md, typed as it stands: by bash, with Docker and a registry of its own.

Addresses and names that others on this machine could use, too, are replaced, and the two images of Docker Hub by local
ones: nothing is pulled from elsewhere.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from outrider.core.errors import OutriderError
from outrider.demo.programs import find_etcd, free_ports
from tests.support import docker_images
from tests.support.containers import docker_client
from tests.support.requirements import skip_or_fail
from tests.support.terminal import Terminal, blocks_of, typed_blocks
from tests.support.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs" / "use" / "quickstart-docker.md"
EXAMPLES = PAGE.parent / "examples"
VERSIONS, NAMES = ("1.0.0", "2.0.0"), ("web-1", "web-2", "web-3")


@pytest.fixture
def registry() -> str:
    """Where the page's registry will listen."""
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def terminal(tmp_path: Path, registry: str) -> Iterator[Terminal]:
    docker_client().close()
    try:
        find_etcd()
    except OutriderError as error:
        skip_or_fail(str(error))
    if shutil.which("docker") is None:
        skip_or_fail("no docker command; apt-get install docker.io")
    etcd, service = (f"127.0.0.1:{port}" for port in free_ports(2))
    port = registry.rpartition(":")[2]
    name = f"greeting-registry-{port}"
    replaced = {
        "127.0.0.1:5000:5000": f"127.0.0.1:{port}:5000",
        "127.0.0.1:5000/": f"{registry}/",
        "greeting-registry": name,
        "registry:2": docker_images.registry_image(),
    }
    folder = tmp_path / "docs/use/examples"
    shutil.copytree(EXAMPLES, folder)
    for path, before, now in (
        (folder / "quickstart-docker.toml", "127.0.0.1:5000/", f"{registry}/"),
        (folder / "greeting/Dockerfile", "FROM busybox", f"FROM {docker_images.base()}"),
    ):
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, now))
    typed = Terminal(
        tmp_path,
        etcd,
        "/outrider/v1",
        {"OUTRIDER_ETCD": etcd, "OUTRIDER_SERVE_LISTEN": service, "OUTRIDER_SERVICE_URLS": f"http://{service}"},
        replaced=replaced,
    )
    yield typed
    with contextlib.suppress(AssertionError):
        typed.type("kill -TERM $(jobs -p); wait")
    typed.close()
    for state in (tmp_path / "outrider-sidekicks").glob("*/*/state/*"):
        docker_images.clean(state)
    subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)
    for version in VERSIONS:
        docker_images.remove(f"{registry}/greeting:{version}")


def test_the_docker_quickstart_leads_to_three_containers_that_roll(terminal: Terminal, registry: str) -> None:
    """
    1. the images are built and pushed, the group is made, and three containers run 1.0.0
    2. one changed line: they run 2.0.0, one container each
    3. the clean-up leaves no container behind
    """
    images, start, look, roll, clean = typed_blocks(PAGE)

    def running() -> list[str]:
        """What the page's own ``docker ps`` says of this test's containers."""
        return sorted(terminal.type(look[0]).splitlines())

    terminal.type(images[0])
    eventually(lambda: requests.get(f"http://{registry}/v2/", timeout=5).status_code == 200, within_s=60)
    for line in images[1:]:
        terminal.type(line)
    setup, serve, apply, sidekicks, wait = start
    assert setup.startswith("make setup ")
    terminal.type(serve)
    log = terminal.folder / "background-0.log"
    eventually(lambda: log.exists() and "outrider update service on " in log.read_text(), within_s=60)
    assert "applied 5 changes" in terminal.type(apply)
    terminal.type(sidekicks)
    assert "group web: 1.0.0 finished, 3 updated" in terminal.type(wait)

    (shown,) = blocks_of(PAGE, "text")
    assert [f"{name} runs 1.0.0" for name in NAMES] == shown == running()
    rows = [line.split() for line in terminal.type(look[1]).splitlines() if " web-" in line]
    assert [["web", name, "idle.waiting", "1.0.0"] for name in NAMES] == [row[:4] for row in rows]

    terminal.type(roll[0])
    changes = terminal.type(roll[1])
    assert "~ channel greeting/stable  (3 instances in web)\n    version: 1.0.0 -> 2.0.0\n" in changes
    assert "group web: 2.0.0 finished, 3 updated" in terminal.type(roll[2])
    assert [f"{name} runs 2.0.0" for name in NAMES] == running()

    terminal.type(clean[0])
    eventually(lambda: running() == [], within_s=60, every_s=0.5)
    assert "greeting-registry" in terminal.type(clean[1])
