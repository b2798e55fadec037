"""Containers for tests: an etcd of its own, in an image that is built here or named by ``OUTRIDER_TEST_ETCD_IMAGE``.

The built image holds nothing but the etcd that ``tools/fetch_etcd.sh`` fetched and the shared libraries it names: no
base image, so nothing is pulled. Containers publish a fixed port of 127.0.0.1, because Docker chooses a new one at each
start and a client must find the restarted server where it was. A daemon without a bridge (started by
``tools/start_docker.sh`` on a restricted kernel) can't publish ports; then the container uses the host's network.
"""

import hashlib
import io
import os
import subprocess
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

# No container may stand guard over ours: its image would have to be pulled. Read when testcontainers is imported.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"

import docker
import docker.errors
import testcontainers.core.container as testcontainers

from outrider.demo.programs import free_ports
from outrider.etcd.seam import Endpoint, EtcdAddress
from tests.support.requirements import skip_or_fail
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

_DOCKERFILE = b'FROM scratch\nCOPY root /\nENV PATH=/usr/bin\nENTRYPOINT ["etcd"]\n'


def docker_client() -> docker.DockerClient:
    """A client of a daemon that answers; else the test is skipped, or fails in CI."""
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except docker.errors.DockerException as error:
        skip_or_fail(f"no Docker daemon answers ({error}); run tools/start_docker.sh")
    return client


def etcd_image(client: docker.DockerClient) -> str:
    """Name of an image whose program ``etcd`` is the one to test with; built when it isn't there."""
    given = os.environ.get("OUTRIDER_TEST_ETCD_IMAGE")
    if given:
        return given
    files = {path: path for path in libraries_of(etcd_binary())} | {Path("/usr/bin/etcd"): etcd_binary()}
    mark = hashlib.sha256(_DOCKERFILE)
    for path in sorted(files):
        mark.update(str(path).encode() + files[path].read_bytes())
    tag = f"outrider-test/etcd:{mark.hexdigest()[:16]}"
    if not client.images.list(name=tag):
        client.images.build(fileobj=_context(files), custom_context=True, tag=tag, rm=True)
    return tag


def libraries_of(program: Path) -> tuple[Path, ...]:
    """The loader and the libraries of ``program``, at the paths where it looks for them; none when it is static."""
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=60, check=False)
    words = (word for line in said.stdout.splitlines() for word in line.split())
    return tuple(sorted({Path(word) for word in words if word.startswith("/") and not word.endswith(":")}))


def _context(files: dict[Path, Path]) -> io.BytesIO:
    """A tar with the Dockerfile and ``files`` (path in the image -> path here), links resolved."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w", dereference=True) as tar:
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(_DOCKERFILE)
        tar.addfile(member, io.BytesIO(_DOCKERFILE))
        for inside, here in files.items():
            tar.add(here.resolve(), arcname=f"root{inside}")
    context.seek(0)
    return context


class EtcdContainer:
    """One etcd in a container; its address and its stored keys stay the same over ``kill`` and ``start_again``."""

    def __init__(self) -> None:
        """Prepare the container; ``start`` runs it."""
        self._client = docker_client()
        has_bridge = bool(self._client.networks.list(names=["bridge"]))
        (self.port,) = free_ports(1)
        host, port = ("0.0.0.0", 2379) if has_bridge else ("127.0.0.1", self.port)
        self._container = testcontainers.DockerContainer(etcd_image(self._client)).with_command(
            [
                *("--data-dir", "/var/lib/etcd", "--log-level", "warn"),
                *("--listen-client-urls", f"http://{host}:{port}", "--advertise-client-urls", self.url),
                # One member talks to no other, but etcd insists on listening; port 0 can't disturb a neighbour.
                *("--listen-peer-urls", "http://127.0.0.1:0"),
            ]
        )
        if has_bridge:
            self._container.ports[str(port)] = ("127.0.0.1", self.port)
            self._container.with_kwargs(entrypoint=["etcd"])
        else:
            self._container.with_kwargs(entrypoint=["etcd"], network_mode="host")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(host="127.0.0.1", port=self.port)

    def address(self, *, timeout_s: float = 3.0) -> EtcdAddress:
        """How to reach it."""
        return EtcdAddress(endpoints=(self.endpoint,), timeout_s=timeout_s)

    def start(self) -> "EtcdContainer":
        """Create and run the container; returns when etcd serves."""
        self._container.start()
        return self._wait_ready()

    def kill(self) -> None:
        """SIGKILL to the whole container; it is down when this returns."""
        container = self._container.get_wrapped_container()
        container.kill()
        container.wait(timeout=30)

    def start_again(self) -> "EtcdContainer":
        """Run a killed container on what it had stored; returns when etcd serves."""
        self._container.get_wrapped_container().start()
        return self._wait_ready()

    def remove(self) -> None:
        """End it and remove it with all it stored."""
        self._container.stop()
        self._client.close()

    def _wait_ready(self) -> "EtcdContainer":
        eventually(self._healthy, 30, every_s=0.05)
        return self

    def _healthy(self) -> bool:
        container = self._container.get_wrapped_container()
        container.reload()
        if container.status == "exited":
            raise RuntimeError(f"etcd ended in its container:\n{container.logs(tail=20).decode(errors='replace')}")
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return b'"true"' in answer.read()
        except (urllib.error.URLError, OSError):
            return False
