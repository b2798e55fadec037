"""The demo's fleet with containers: images of static busybox, pushed to a registry of its own (``docker-registry``).

Nothing is pulled from elsewhere. The containers, their images and the registry go when the fleet stops.
"""

import contextlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from outrider.config.sections import InstanceSettings, Settings
from outrider.core.errors import DriverError
from outrider.demo.fleet import APP_ID, GROUP, QUICK, DemoFleet
from outrider.demo.programs import Program, ProgramMissing, free_ports
from outrider.http import ask
from outrider.runtimes import Runtime
from outrider.runtimes.docker import DockerSettings
from outrider.runtimes.drivers import RUNTIMES, RuntimeContext

RATE_PER_S = 40.0
"""Each request is answered by a shell of its own, inside a container."""
PATH = "/cgi-bin/hello"
_RUN = """#!/bin/sh
# stop listening, then let the answers under way end
trap 'kill $server; busybox sleep 1; exit 0' TERM
busybox httpd -f -p "$HOST:$PORT" -h /www &
server=$!
wait $server
"""
_HELLO = """#!/bin/sh
[ -z "$CONTENT_LENGTH" ] || busybox head -c "$CONTENT_LENGTH" > /dev/null
text="hello from $VERSION on $PORT"
printf 'Content-Type: text/plain\\r\\nX-Version: %s\\r\\nContent-Length: %d\\r\\n\\r\\n%s' "$VERSION" ${#text} "$text"
"""
DOCKER: Mapping[str, Mapping[str, object]] = {
    **QUICK,
    "instance": {"runtime": "docker"},
    # busybox does not count the requests that it has open
    "drain": {"wait_s": 1.5, "max_s": 10.0},
    "probe": {"interval_s": 0.2, "timeout_s": 2.0, "successes": 3, "failures": 2, "deadline_s": 6.0},
}
"""Settings in the demo's haste."""


class DockerFleet(DemoFleet):
    """As ``DemoFleet``, whose versions are container images."""

    path = PATH
    rate_per_s = RATE_PER_S
    # busybox's httpd breaks one POST to a script in 300 off, also when nothing is swapped (measured on 1.35.0)
    posts = False

    def __init__(
        self,
        folder: Path,
        instances: Sequence[str],
        *,
        settings: Mapping[str, Mapping[str, object]] = DOCKER,
        strategy: str = "start-first",
        environment: Mapping[str, str] | None = None,
        balancer: str = "traefik",
    ) -> None:
        """As ``DemoFleet``; nothing is started yet."""
        super().__init__(
            folder, instances, settings=settings, strategy=strategy, environment=environment, balancer=balancer
        )
        self.registry: Program
        self.registry_host = ""
        self._images: list[str] = []

    def start(self) -> None:
        """Start the registry, and the rest as ``DemoFleet``.

        Raises:
            ProgramMissing: there is no busybox, no registry or no library for Docker on this machine.
            DriverError: Docker does not answer.
        """
        busybox()
        with client() as docker:
            docker.ping()
        self.start_registry()
        super().start()

    def start_registry(self) -> None:
        """Start the registry, at its earlier address if it had one; its images stay in the fleet's folder."""
        program = shutil.which("docker-registry")
        if program is None:
            raise ProgramMissing("docker-registry is not installed: apt-get install docker-registry")
        self.registry_host = self.registry_host or f"127.0.0.1:{free_ports(1)[0]}"
        config = self.folder / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {self.folder}/registry\n"
            f"http:\n  addr: {self.registry_host}\n"
        )
        self.registry = self._keep(
            Program("registry", [program, "serve", config], self.folder, ready=lambda: _answers(self.registry_host))
        )
        self.registry.wait_ready()

    def package(self, version: str, *, healthy: bool = True) -> str:
        """Build an image, push it, and name it as ``package create --file`` takes it."""
        name = f"{self.registry_host}/example:{version}"
        build(name, version, healthy=healthy)
        self._images.append(name)
        push(name)
        return name

    def running(self, instance: str) -> tuple[str, ...]:
        """Ids of the workloads of ``instance`` that run, whoever started them."""
        return tuple(one.workload_id for one in self.runtime(instance).running())

    def runtime(self, instance: str) -> Runtime:
        """The runtime of one instance, to look at its workloads from outside."""
        settings = Settings(
            instance=InstanceSettings(id=instance, app=APP_ID, group=GROUP, state_dir=self.state_dir(instance)),
            drivers={"docker": DockerSettings()},
        )
        return RUNTIMES.load("docker").make(settings, RuntimeContext(environment=os.environ))

    def stop(self) -> None:
        """End everything, and remove the containers and images."""
        for program in self.sidekicks.values():
            program.stop()
        with contextlib.suppress(DriverError):
            for instance in self.instances:
                runtime = self.runtime(instance)
                for workload in runtime.running():
                    runtime.stop(workload.workload_id, 2.0)
                remove_containers(self.state_dir(instance))
                runtime.prune([])
        for image in self._images:
            with contextlib.suppress(DriverError), client() as docker:
                docker.remove_image(image, force=True)
        super().stop()


def busybox() -> Path:
    """The static busybox of this machine.

    Raises:
        ProgramMissing: there is none.
    """
    found = shutil.which("busybox")
    if found is None or b"ld-linux" in Path(found).read_bytes()[:4096]:
        raise ProgramMissing("no static busybox is installed: apt-get install busybox-static")
    return Path(found)


def build(name: str, version: str, *, healthy: bool = True) -> None:
    """Build the demo's app as an image: FROM scratch, with busybox and a shell script.

    Raises:
        DriverError: Docker does not do it.
    """
    files = {"run": _RUN, "www/cgi-bin/hello": _HELLO, "www/index.html": f"{version}\n"}
    if healthy:
        files["www/health"] = "ok\n"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        recipe = f'FROM scratch\nCOPY root /\nENV VERSION={version} PATH=/bin\nENTRYPOINT ["/run"]\n'
        _add(tar, "Dockerfile", recipe.encode())
        _add(tar, "root/bin/busybox", busybox().read_bytes())
        link = tarfile.TarInfo("root/bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
        for path, text in files.items():
            _add(tar, f"root/{path}", text.encode())
    packed.seek(0)
    with client() as docker:
        _read(docker.build(fileobj=packed, custom_context=True, tag=name, rm=True, decode=True))


def push(name: str) -> str:
    """Push a local image to the registry in its name; returns the digest that the registry gives it.

    Raises:
        DriverError: Docker or the registry does not do it.
    """
    with client() as docker:
        # the registry asks for nothing, but Docker wants something to send
        nobody = {"username": "demo", "password": "demo"}
        lines = _read(docker.push(name, stream=True, decode=True, auth_config=nobody))
    return next(str(line["aux"]["Digest"]) for line in lines if "aux" in line)


def remove_containers(state_dir: Path) -> None:
    """Remove all containers of the instance with this folder.

    Raises:
        DriverError: Docker does not do it.
    """
    with client() as docker:
        for one in docker.containers(all=True, filters={"label": f"outrider.state-dir={state_dir.resolve()}"}):
            docker.remove_container(one["Id"], force=True, v=True)


@contextlib.contextmanager
def client() -> Iterator[Any]:
    """A client of Docker's API.

    Raises:
        ProgramMissing: its library is not installed.
        DriverError: it does not answer, or says no.
    """
    from outrider.runtimes.docker.engine import Engine

    try:
        with Engine("", timeout_s=120.0, environment=os.environ).client() as docker:
            yield docker
    except ModuleNotFoundError as error:
        raise ProgramMissing(f"the Python package {error.name} is missing; install outrider[docker]") from error


def _read(lines: Any) -> list[dict[str, Any]]:
    told = list(lines)
    for line in told:
        if "error" in line:
            raise DriverError(f"Docker: {line['error']}".strip())
    return told


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o755
    tar.addfile(member, io.BytesIO(content))


def _answers(host: str) -> bool:
    answer = ask(f"http://{host}/v2/", timeout_s=5.0)
    return answer is not None and answer.status == 200
