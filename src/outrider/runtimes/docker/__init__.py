"""The runtime ``docker``: runs a version as a container of the image that the package names."""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from outrider.config.drivers import Problem
from outrider.config.sections import Settings, computed, setting
from outrider.runtimes import Runtime
from outrider.runtimes.drivers import RuntimeContext

_VOLUME = r"(/[^:\0]*|[A-Za-z0-9][A-Za-z0-9_.-]*):/[^:\0]*(:[A-Za-z,]+)?"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerSettings:
    """[docker]: runs a version as a container."""

    address: str = setting(
        "",
        "Where Docker answers. Default: DOCKER_HOST, else unix:///var/run/docker.sock. Podman's socket speaks the same"
        " protocol, and was not tried.",
        pattern=r"(unix|tcp)://\S+",
        wanted="unix:///PATH or tcp://HOST:PORT",
    )
    tls_dir: Path | None = setting(  # noqa: RUF009 - its default is None, which setting says
        None, "Folder with ca.pem, cert.pem and key.pem for an address tcp://. Default: no TLS."
    )
    timeout_s: float = setting(30.0, "Longest time for one answer of Docker.", above=0)
    auth_file: Path | None = setting(  # noqa: RUF009
        None, "File with the registries' credentials, in the form of Docker's config.json; read again for each pull."
    )
    network: str = setting(
        "bridge",
        "Network of the container: bridge, host, or the name of one that exists. With host the app"
        " listens on PORT itself; with any other its port is published at workload.host.",
        pattern=_NAME,
        wanted="bridge, host or a network's name",
        empty=False,
    )
    networks: tuple[str, ...] = setting(
        (), "Further networks to connect the container with.", pattern=_NAME, wanted="a network's name"
    )
    port: int = setting(
        0,
        "Port on which the app listens inside the container. 0: the one that PORT says, the same as outside.",
        least=0,
        most=65535,
    )
    command: tuple[str, ...] = setting(
        (), "Arguments in place of the image's CMD. {port}, {host} and {version} are replaced."
    )
    entrypoint: tuple[str, ...] = setting((), "Program and arguments in place of the image's ENTRYPOINT.")
    volumes: tuple[str, ...] = setting(
        (),
        "Folders of this machine, or named volumes, as SOURCE:TARGET or SOURCE:TARGET:ro.",
        pattern=_VOLUME,
        wanted="SOURCE:TARGET or SOURCE:TARGET:ro, with /TARGET a whole path",
    )
    tmpfs: tuple[str, ...] = setting(
        (), "Paths in the container that are in memory.", pattern=r"/[^:\0]*", wanted="a path that begins with /"
    )
    user: str = setting("", "User, or UID:GID, that the app runs as. Default: the image's.")
    read_only: bool = setting(False, "Whether the container's own files can't be written.")
    init: bool = setting(False, "Whether Docker's init runs first in it, which hands on signals and reaps orphans.")
    privileged: bool = setting(False, "Whether the container may do what root of this machine may do.")
    cap_add: tuple[str, ...] = setting((), "Capabilities to add, such as NET_BIND_SERVICE.")
    cap_drop: tuple[str, ...] = setting((), "Capabilities to take away; ALL for all.")
    security_options: tuple[str, ...] = setting((), "Docker's security options, such as no-new-privileges.")
    extra_hosts: tuple[str, ...] = setting(
        (), "Names for the container's /etc/hosts.", pattern=r"[^:\s]+:\S+", wanted="NAME:ADDRESS"
    )
    labels: Mapping[str, str] = computed(
        dict, "Labels to add to the container. Those that begin with outrider. are ours."
    )
    memory_bytes: int = setting(0, "Most memory; beyond it the kernel ends the app. 0: no limit.", least=0)
    cpus: str = setting(
        "", "Most processors, such as 1.5. Default: no limit.", pattern=r"[0-9]+(\.[0-9]{1,3})?", wanted="a number"
    )
    pids: int = setting(0, "Most processes and threads. 0: no limit.", least=0)
    log_driver: str = setting("", "Docker's log driver, such as local or journald. Default: the daemon's.")
    log_options: Mapping[str, str] = computed(dict, "Options of the log driver, such as max-size.")
    stop_signal: str = setting(
        "",
        "Signal that asks the app to end. Default: the image's, else SIGTERM.",
        pattern=r"SIG[A-Z0-9+]+|[0-9]{1,2}",
        wanted="a signal such as SIGTERM",
    )


SETTINGS = DockerSettings
LABEL = "outrider."
"""What the names of our labels begin with."""
_INSTALL = "pip install 'outrider[docker]'"


def problems(settings: Settings) -> tuple[Problem, ...]:
    """The library must be there, and no two settings may exclude each other."""
    return tuple(_problems(settings, settings.of(DockerSettings)))


def _problems(settings: Settings, docker: DockerSettings) -> Iterator[Problem]:
    if importlib.util.find_spec("docker") is None:
        yield "instance.runtime", f"docker needs a Python package that is missing: {_INSTALL}"
    if docker.network == "host" and docker.networks:
        yield "docker.networks", "has no effect with docker.network = host; remove one of them"
    if docker.network == "host" and docker.port:
        yield (
            "docker.port",
            "has no effect with docker.network = host, where the app listens on PORT; remove one of them",
        )
    if docker.network == "none":
        yield "docker.network", "none has no port that could be published; write bridge, host or a network's name"
    if docker.tls_dir is not None:
        for name in ("ca.pem", "cert.pem", "key.pem"):
            if not (docker.tls_dir / name).is_file():
                yield "docker.tls_dir", f"{docker.tls_dir / name}: no such file"
    if docker.auth_file is not None and not docker.auth_file.is_file():
        yield "docker.auth_file", f"{docker.auth_file}: no such file"
    for name in docker.labels:
        if name.startswith(LABEL) or not name:
            yield "docker.labels", f"{name!r}: is set by outrider itself"
    if docker.log_options and not docker.log_driver:
        yield "docker.log_options", "needs docker.log_driver"
    if docker.cpus and not float(docker.cpus):
        yield "docker.cpus", f"{docker.cpus!r} is no processor at all"
    if 0 < docker.memory_bytes < 6 * 1024**2:
        yield "docker.memory_bytes", "Docker takes no limit below 6 MiB"
    for word in docker.command:
        for name in re.findall(r"(?<!\$)\{([A-Za-z_]+)\}", word):
            if name not in PLACEHOLDERS and name.lower() in PLACEHOLDERS:
                yield "docker.command", f"{word!r}: {{{name}}} is not replaced; did you mean {{{name.lower()}}}?"


PLACEHOLDERS = ("port", "host", "version")


def make(settings: Settings, context: RuntimeContext) -> Runtime:
    """The runtime whose containers carry the labels of ``settings.instance``; Docker is not asked yet."""
    from outrider.runtimes.docker.runtime import DockerRuntime

    return DockerRuntime(settings, settings.of(DockerSettings), environment=context.environment)
