"""One container: what it is made of, how it is known again by its labels, and what its end means. Pure.

Labels: ``outrider.app``, ``.instance``, ``.workload``, ``.version``, ``.payload`` (SHA-256), ``.state-dir``, ``.url``,
``.kind`` and ``.started``. App, instance and state folder together tell this instance's containers from all others.
"""

import hashlib
import ipaddress
import re
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outrider.config.sections import WorkloadSettings
from outrider.core.blame import Evidence
from outrider.core.errors import DriverError
from outrider.core.images import PayloadKind
from outrider.runtimes import Workload, WorkloadSpec
from outrider.runtimes.docker import LABEL, DockerSettings

_HANDLE_LENGTH = 12
_SHOWN = 200
_SIGNALS = 128
"""A shell, and Docker, add the number of the signal that ended a program to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Whose containers they are."""

    app: str
    instance: str
    state_dir: str

    @property
    def owner(self) -> str:
        """The same, as one text."""
        return "\0".join((self.app, self.instance, self.state_dir))

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels that all of them have."""
        return {
            f"{LABEL}app": self.app,
            f"{LABEL}instance": self.instance,
            f"{LABEL}state-dir": self.state_dir,
        }

    def name(self, workload_id: str) -> str:
        """The container's name: Docker allows one of that name, so there is never a second copy."""
        return f"outrider-{hashlib.sha256(self.owner.encode()).hexdigest()[:8]}-{workload_id}"


def labels_of(home: Home, spec: WorkloadSpec, *, url: str, kind: PayloadKind, started: int) -> dict[str, str]:
    """All labels of a container."""
    return {
        **home.labels,
        f"{LABEL}workload": spec.workload_id,
        f"{LABEL}version": spec.release.version,
        f"{LABEL}payload": spec.release.sha256,
        f"{LABEL}url": url,
        f"{LABEL}kind": kind,
        f"{LABEL}started": str(started),
    }


def workload_of(container: str, labels: Mapping[str, str]) -> Workload:
    """What a container's labels say of it. ``container``: its id."""
    started, kind = labels.get(f"{LABEL}started", ""), labels.get(f"{LABEL}kind", "")
    return Workload(
        workload_id=labels.get(f"{LABEL}workload", ""),
        version=labels.get(f"{LABEL}version", ""),
        url=labels.get(f"{LABEL}url", ""),
        handle=f"container {container[:_HANDLE_LENGTH]}",
        sha256=labels.get(f"{LABEL}payload", ""),
        order=int(started) if started.isdigit() else 0,
        kind="image-tar" if kind == "image-tar" else "image",
    )


def port_of(labels: Mapping[str, str]) -> int | None:
    """The port at which a container answers, or answered."""
    port = labels.get(f"{LABEL}url", "").rpartition(":")[2]
    return int(port) if port.isdigit() else None


def create_arguments(
    docker: DockerSettings,
    shared: WorkloadSettings,
    *,
    image: str,
    name: str,
    port: int,
    version: str,
    environment: Mapping[str, str],
    labels: Mapping[str, str],
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """What Docker is asked to create: the body of ``POST /containers/create``, and the name.

    Args:
        port: Where it shall answer on this machine.
        environment: Besides ``[workload] env``, PORT and HOST.
        more: Arguments behind those of ``docker.command``; in place of the image's own where that says nothing.

    Source: Docker Engine API v1.41, ``ContainerCreate``.
    """
    on_host = docker.network == "host"
    inside = port if on_host else docker.port or port
    host = shared.host if on_host else "0.0.0.0"  # noqa: S104 - all addresses of the container itself
    known = {"port": str(inside), "host": host, "version": version}
    variables = {**shared.env, **environment, "PORT": str(inside), "HOST": host}
    limits: dict[str, Any] = {}
    if docker.memory_bytes:
        # without swap beside it, or the limit is twice what was said
        limits |= {"Memory": docker.memory_bytes, "MemorySwap": docker.memory_bytes}
    if docker.cpus:
        limits["NanoCpus"] = round(float(docker.cpus) * 1e9)
    if docker.pids:
        limits["PidsLimit"] = docker.pids
    host_config: dict[str, Any] = {
        "NetworkMode": docker.network,
        # The sidekick starts it again, and only the sidekick knows whether it should run.
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": False,
        "Binds": list(docker.volumes),
        "Tmpfs": dict.fromkeys(docker.tmpfs, ""),
        "ReadonlyRootfs": docker.read_only,
        "Privileged": docker.privileged,
        "CapAdd": list(docker.cap_add),
        "CapDrop": list(docker.cap_drop),
        "SecurityOpt": list(docker.security_options),
        "ExtraHosts": list(docker.extra_hosts),
        **limits,
    }
    if docker.init:
        host_config["Init"] = True
    if docker.log_driver:
        host_config["LogConfig"] = {"Type": docker.log_driver, "Config": dict(docker.log_options)}
    body: dict[str, Any] = {
        "Image": image,
        "Env": [f"{key}={text}" for key, text in variables.items()],
        "Labels": {**docker.labels, **labels},
        "StopTimeout": max(1, round(shared.stop_grace_s)),
        "HostConfig": host_config,
    }
    if not on_host:
        published = f"{inside}/tcp"
        body["ExposedPorts"] = {published: {}}
        host_config["PortBindings"] = {published: [{"HostIp": address_of(shared.host), "HostPort": str(port)}]}
    if docker.command or more:
        body["Cmd"] = [*(_filled(word, known) for word in docker.command), *more]
    if docker.entrypoint:
        body["Entrypoint"] = [_filled(word, known) for word in docker.entrypoint]
    if docker.user:
        body["User"] = docker.user
    if docker.stop_signal:
        body["StopSignal"] = docker.stop_signal
    return {"name": name, "body": body}


def address_of(host: str) -> str:
    """The IP address to publish a port at: Docker takes no names.

    Raises:
        DriverError: this machine can't look the name up.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise DriverError(
            f"workload.host {host!r}: can't be looked up: {error.strerror or error}", evidence="network"
        ) from error


def health_in(state: Mapping[str, Any]) -> str:
    """What its HEALTHCHECK found last, by Docker's account (``State``); empty when it is well.

    Raises:
        DriverError: it has none.
    """
    health = state.get("Health")
    if health is None or health.get("Status") in (None, "", "none"):
        raise DriverError("the image has no HEALTHCHECK: choose another probe.kind", evidence="wrong-setting")
    if health["Status"] == "healthy":
        return ""
    log = health.get("Log") or [{}]
    lines = str(log[-1].get("Output", "")).strip().splitlines()
    return f"{health['Status']}{f': {lines[-1][:_SHOWN]}' if lines else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a container ended. ``status`` is for people; ``evidence``: what that says of whose fault it is."""

    status: str
    evidence: Evidence


def ending_of(
    state: Mapping[str, Any] | None, code: int | None, *, asked: bool, away: bool, memory_bytes: int = 0
) -> Ending:
    """What a container's end means.

    Args:
        state: Docker's account (``State``); None when the container is gone.
        code: Its exit code; None when nobody knows it.
        asked: Somebody let Docker stop or kill it.
        away: Docker gave no answer in between: it may have ended with Docker.
        memory_bytes: Its limit.
    """
    how = _code(code) if code is not None else "gone"
    if state is not None and state.get("OOMKilled"):
        # either the version needs more than before, or this machine gives less than others
        return Ending(status=f"killed for memory ({how}); {_limit(memory_bytes)}", evidence="no-resources")
    if away:
        return Ending(status=f"{how}, while Docker was away", evidence="no-answer")
    if state is None:
        return Ending(status=f"{how}: somebody removed the container", evidence="unknown")
    if asked:
        return Ending(status=f"{how}: somebody let Docker stop it", evidence="unknown")
    if code == _SIGNALS + signal.SIGKILL:
        # Docker 20.10 has missed the kernel's word (cgroup v1, kernel 6.18) when the whole container ended with it
        likely = f"nobody let Docker send it: most likely killed for memory; {_limit(memory_bytes)}"
        return Ending(status=f"{how}, {likely}", evidence="no-resources")
    return Ending(status=how, evidence="ended")


def _limit(memory_bytes: int) -> str:
    return f"its limit is {memory_bytes} bytes: docker.memory_bytes" if memory_bytes else "it has no limit of its own"


def _code(code: int) -> str:
    return f"exit {code}" if code <= _SIGNALS or code > _SIGNALS + 64 else f"signal {code - _SIGNALS}"


def _filled(word: str, known: Mapping[str, str]) -> str:
    return re.sub(r"(?<!\$)\{(port|host|version)\}", lambda found: known[found[1]], word)
