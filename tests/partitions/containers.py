"""Containers that see this machine's programs and nothing else of it, each a machine on a network of the run's own.

The image is a few links: no file of a distribution is copied and nothing is pulled. ``/usr``, the interpreter, the
virtual environment, the checkout and etcd are bound into each container, read-only, at the paths that they have here.
So a container starts in half a second with the programs that the other tests use, on any machine with Docker.
"""

import io
import ipaddress
import os
import random
import shutil
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tests.support.containers import docker_client
from tests.support.requirements import skip_or_fail
from tests.support.servers import etcd_binary

import docker  # isort: skip - tests.support.containers says first what testcontainers reads when it is imported
import docker.errors
import docker.types

CHECKOUT = Path(__file__).parents[2]
LABEL = "outrider.test.partitions"
TRIES = 30
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Network:
    """A bridge of this run's own, and what stands on it; ``remove`` takes all of it away again."""

    def __init__(self) -> None:
        """Make the image and the network; the test is skipped, or fails in CI, where that can't be had."""
        for program in ("iptables", "mount"):
            if shutil.which(program, path=SYSTEM_PATH) is None:
                skip_or_fail(f"{program}: no such program; a cut is made with it")
        self._client = docker_client()
        self.run = uuid.uuid4().hex[:8]
        self._image = f"outrider-test/machine:{self.run}"
        self._network: docker.models.networks.Network | None = None
        self._containers: list[Container] = []
        try:
            self._client.api.import_image_from_data(_root(), repository="outrider-test/machine", tag=self.run)
            self._network, self._subnet = self._create()
        except docker.errors.APIError as error:
            self.remove()
            skip_or_fail(f"this Docker daemon makes no network of its own: {error.explanation}")
        except BaseException:
            self.remove()
            raise

    @property
    def name(self) -> str:
        return f"outrider-{self.run}"

    def address(self, number: int) -> str:
        """The address of host ``number``: known before its container is, so that all can be told of each other."""
        return str(self._subnet[number])

    def add(
        self,
        name: str,
        number: int,
        command: Sequence[str | Path],
        *,
        folders: Iterable[Path] = (),
        env: Mapping[str, str] | None = None,
        capabilities: Sequence[str] = (),
    ) -> "Container":
        """Start ``command`` as host ``number``.

        Args:
            folders: Bound at the same path, writable.
            capabilities: For what ``Container.run`` does as root; the command itself runs as we do.
        """
        assert self._network is not None
        binds = {str(path): {"bind": str(path), "mode": "ro"} for path in _seen_inside()}
        binds |= {str(path): {"bind": str(path), "mode": "rw"} for path in folders}
        api = self._client.api
        made = api.create_container(
            self._image,
            command=[str(word) for word in command],
            name=f"{self.name}-{name}",
            hostname=name,
            user=f"{os.getuid()}:{os.getgid()}",
            environment={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
            | dict(env or {}),
            labels={LABEL: self.run},
            host_config=api.create_host_config(
                binds=binds,
                tmpfs={"/tmp": "", "/run": ""},
                cap_add=list(capabilities),
                cgroup_parent=os.environ.get("OUTRIDER_TEST_CGROUP"),
                **_unconfined(capabilities),
            ),
            networking_config=api.create_networking_config(
                {self.name: api.create_endpoint_config(ipv4_address=self.address(number))}
            ),
        )
        return self._begin(made["Id"], name, number)

    def add_of_image(
        self, name: str, number: int, image: str, command: Sequence[str], *, host_config: Mapping[str, object]
    ) -> "Container":
        """Start ``command`` of another image than the run's own as host ``number``, as root.

        Args:
            host_config: What Docker's API calls so: mounts, capabilities and so on.
        """
        api = self._client.api
        made = api.create_container(
            image,
            command=list(command),
            name=f"{self.name}-{name}",
            hostname=name,
            environment={"container": "docker"},
            labels={LABEL: self.run},
            host_config=api.create_host_config(cgroup_parent=os.environ.get("OUTRIDER_TEST_CGROUP"), **host_config),
            networking_config=api.create_networking_config(
                {self.name: api.create_endpoint_config(ipv4_address=self.address(number))}
            ),
        )
        return self._begin(made["Id"], name, number)

    def beside(self, container: "Container", script: str) -> str:
        """Run a shell script with this machine's programs in the network of ``container``, as one who may change it.

        For a container whose image has no such program.
        """
        binds = {str(path): {"bind": str(path), "mode": "ro"} for path in _seen_inside()}
        output: bytes = self._client.containers.run(
            self._image,
            ["/bin/sh", "-ec", f"PATH={SYSTEM_PATH}; {script}"],
            network_mode=f"container:{container.id}",
            volumes=binds,
            tmpfs={"/run": ""},
            cap_add=["NET_ADMIN"],
            remove=True,
        )
        return output.decode(errors="replace")

    def _begin(self, made: str, name: str, number: int) -> "Container":
        assert self._network is not None
        container = Container(self._client.containers.get(made), self._network, name, self.address(number))
        self._containers.append(container)
        container.start()
        return container

    def remove(self) -> None:
        """Remove the containers, the network and the image; what can't be removed doesn't keep the rest."""
        problems: list[str] = []
        for container in reversed(self._containers):
            problems += _tried(container.remove)
        if self._network is not None:
            problems += _tried(self._network.remove)
        problems += _tried(lambda: self._client.images.remove(self._image, force=True))
        self._client.close()
        self._containers, self._network = [], None
        assert not problems, f"left over in Docker: {problems}"

    def _create(self) -> tuple["docker.models.networks.Network", ipaddress.IPv4Network]:
        # Docker gives fixed addresses only on a network whose range was asked for, and says when that is taken.
        for attempt in range(TRIES):
            subnet = ipaddress.IPv4Network((f"10.{random.randrange(64, 192)}.{random.randrange(256)}.0", 24))
            ipam = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=str(subnet))])
            try:
                made = self._client.networks.create(self.name, driver="bridge", ipam=ipam, labels={LABEL: self.run})
            except docker.errors.APIError as error:
                if attempt == TRIES - 1 or "overlap" not in str(error.explanation).lower():
                    raise
            else:
                return made, subnet
        raise AssertionError("unreachable: the last attempt returned or raised")


class Container:
    """One host on the network."""

    def __init__(
        self,
        container: "docker.models.containers.Container",
        network: "docker.models.networks.Network",
        name: str,
        address: str,
    ) -> None:
        self._container, self._network = container, network
        self.name, self.address = name, address

    @property
    def id(self) -> str:
        """Docker's name for it."""
        return str(self._container.id)

    def start(self) -> None:
        self._container.start()

    def kill(self) -> None:
        """SIGKILL to all of it, as when the power goes; it is down when this returns, and ``start`` runs it again."""
        self._container.kill()
        self._container.wait(timeout=60)

    def run(self, script: str) -> str:
        """Run a shell script inside, as root with the container's capabilities; returns what it printed."""
        done = self._container.exec_run(["/bin/sh", "-ec", f"PATH={SYSTEM_PATH}; {script}"], user="0")
        said = str(done.output.decode(errors="replace"))
        assert done.exit_code == 0, f"{self.name}: {script!r} left with {done.exit_code}: {said}"
        return said

    def ended(self) -> str | None:
        """What it said last, when it has ended."""
        self._container.reload()
        return None if self._container.status == "running" else self.log()

    def log(self, lines: int = 30) -> str:
        return str(self._container.logs(tail=lines).decode(errors="replace"))

    def unplug(self) -> None:
        """Take it off the network: interface and address are gone."""
        self._network.disconnect(self._container)

    def plug_in(self) -> None:
        """Put it back, with the address that it had."""
        self._network.connect(self._container, ipv4_address=self.address)

    def remove(self) -> None:
        try:
            self._container.remove(force=True, v=True)
        except docker.errors.NotFound:
            return


def _root() -> bytes:
    """A root file system as a tar: this machine's links into /usr, and folders to bind to."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            member = tarfile.TarInfo(name)
            if Path("/", name).is_symlink():
                member.type, member.linkname = tarfile.SYMTYPE, os.readlink(Path("/", name))
                tar.addfile(member)
        for name in ("etc", "tmp", "run", "usr"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(member)
    return content.getvalue()


def _seen_inside() -> tuple[Path, ...]:
    """What programs need here: system, interpreter, environment, checkout, etcd; none that lies within another."""
    system = [Path("/", name) for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")]
    wanted = [path for path in system if path.is_dir() and not path.is_symlink()]
    wanted += [Path("/usr"), Path("/etc/alternatives"), Path("/etc/ld.so.cache"), Path(sys.base_prefix).resolve()]
    wanted += [Path(sys.base_prefix), Path(sys.prefix), CHECKOUT, etcd_binary().resolve().parent]
    there = sorted({path for path in wanted if path.exists()}, key=lambda path: len(path.parts))
    return tuple(path for path in there if not any(other in path.parents for other in there))


def _unconfined(capabilities: Sequence[str]) -> dict[str, object]:
    # Docker's own AppArmor profile forbids mount to all, whatever their capabilities; kernels without it don't mind.
    return {"security_opt": ["apparmor=unconfined", "seccomp=unconfined"]} if "SYS_ADMIN" in capabilities else {}


def _tried(cuts: Callable[[], object]) -> list[str]:
    try:
        cuts()
    except (docker.errors.ImageNotFound, docker.errors.NotFound):
        return []
    except docker.errors.DockerException as error:
        return [str(error)]
    return []
