"""A container that somebody else runs.

Its restart policy is set to ``no`` before it is stopped, so that a restart of Docker doesn't bring it back beside its
successor, and set again when a rollback starts it. It is known by its id: a container that was made anew under the same
name is another one.
"""

from collections.abc import Callable, Mapping
from typing import Any

from outrider.config.sections import Settings
from outrider.core.blame import Evidence
from outrider.core.errors import ConfigError, DriverError
from outrider.core.images import parse_image
from outrider.core.versions import parse
from outrider.runtimes import ExitWatch
from outrider.runtimes.adopted import AdoptedRecord, Candidate, Sighting
from outrider.runtimes.adopted.listening import listening_urls
from outrider.runtimes.docker import LABEL, DockerSettings
from outrider.runtimes.docker.container import Ending, health_in
from outrider.runtimes.docker.engine import Engine, EngineError
from outrider.runtimes.docker.exits import ContainerWatch
from outrider.runtimes.process.ports import address

_STOP_SLACK_S = 30.0
_SHORT = 12
_VERSION_LABEL = "org.opencontainers.image.version"
_UNSPECIFIED = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not listened on


def look(name: str, settings: Settings, environment: Mapping[str, str], *, url: str) -> Candidate:
    """As ``Adopter.look``: by name, id, or the first digits of an id."""
    engine = _engine(settings, environment)
    try:
        found = engine.inspect(name)
    except EngineError as said:
        if "multiple" in str(said).lower():
            raise ConfigError(f"container {name!r}: the ids of several containers begin like this: {said}") from said
        raise
    if found is None:
        raise ConfigError(f"container {name!r}: Docker ({engine.address}) has none of this name or id")
    called, labels = str(found["Name"]).lstrip("/"), found["Config"].get("Labels") or {}
    if f"{LABEL}workload" in labels:
        whose = f"{labels.get(f'{LABEL}app', '')}/{labels.get(f'{LABEL}instance', '')}"
        raise ConfigError(f"container {called!r}: a sidekick started it already, that of {whose}")
    if not _runs(found):
        raise ConfigError(f"container {called!r}: does not run ({found['State'].get('Status', 'ended')}); start it")
    version, told_by = _version(found, labels)
    host = found["HostConfig"]
    policy = dict(host.get("RestartPolicy") or {})
    auto = "it was started with --rm, so Docker removes it when it stops" if host.get("AutoRemove") else ""
    return Candidate(
        kind="container",
        id=str(found["Id"]),
        name=called,
        handle=f"container {called} ({found['Id'][:_SHORT]}, image {found['Config']['Image']})",
        urls=_urls(found, settings, engine) if not url else {url: _published_as(found, settings, url)},
        version=version,
        told_by=told_by,
        policy=policy,
        no_restart=auto,
        after="docker stop; Docker removes it then" if auto else "docker stop; it stays, and does not start by itself",
    )


def foreign(record: AdoptedRecord, settings: Settings, environment: Mapping[str, str]) -> "ForeignContainer":
    """As ``Adopter.foreign``."""
    return ForeignContainer(record, settings, _engine(settings, environment))


class ForeignContainer:
    """Implements ``Foreign``."""

    def __init__(self, record: AdoptedRecord, settings: Settings, engine: Engine) -> None:
        self._record, self._settings, self._engine = record, settings, engine

    def find(self) -> Sighting | None:
        """As ``Foreign.find``; with the address at which its port is published now."""
        found = self._engine.inspect(self._record.id)
        if found is None or not _runs(found):
            return None
        url = self._record.url
        if self._record.published:
            published = {inside: one for one, inside in _published(found, self._settings).items()}
            url = published.get(self._record.published, url)
        return Sighting(handle=f"container {self._record.id[:_SHORT]} ({self._record.name})", url=url)

    def stop(self, grace_s: float) -> None:
        """As ``Foreign.stop``: ``docker stop``, with the container's own stop signal."""
        found = self._engine.inspect(self._record.id)
        if found is None:
            return
        try:
            self._set_policy(found, {"Name": "no"})
            if not _runs(found):
                return
            with self._engine.client(grace_s + _STOP_SLACK_S) as docker:
                if found["State"].get("Paused"):
                    docker.unpause(self._record.id)
                docker.stop(self._record.id, timeout=max(0, round(grace_s)))
        except EngineError as said:
            if said.status not in (304, 404):  # stopped already, or gone
                raise
        if self.find() is not None:
            raise DriverError(f"container {self._record.name}: still runs after SIGKILL")

    def start(self) -> None:
        """As ``Foreign.start``: ``docker start``, and the restart policy that it had."""
        try:
            with self._engine.client() as docker:
                docker.start(self._record.id)
        except EngineError as said:
            gone = "somebody removed it" if said.status == 404 else str(said)
            raise DriverError(
                f"container {self._record.name} can't be started again: {gone}", evidence=said.evidence
            ) from said
        found = self._engine.inspect(self._record.id)
        if found is not None:
            self._set_policy(found, self._record.policy)

    def watch(self, deliver: Callable[[str, Evidence], None]) -> ExitWatch:
        """As ``Foreign.watch``."""
        found = self._engine.inspect(self._record.id)

        def tell(ending: Ending) -> None:
            deliver(ending.status, ending.evidence)

        memory = int((found or {}).get("HostConfig", {}).get("Memory") or 0)
        return ContainerWatch(self._engine, self._record.id if found else "", tell, memory_bytes=memory)

    def health(self) -> str:
        """As ``Foreign.health``: by its HEALTHCHECK."""
        found = self._engine.inspect(self._record.id)
        return "no container answers there" if found is None else health_in(found["State"])

    def close(self) -> None:
        """Nothing is kept open."""

    def _set_policy(self, found: Mapping[str, Any], policy: Mapping[str, object]) -> None:
        """Change it unless it is so; a container with ``--rm`` has none, and Docker refuses to give it one."""
        name = policy.get("Name") or "no"
        if found["HostConfig"].get("AutoRemove") or (found["HostConfig"]["RestartPolicy"].get("Name") or "no") == name:
            return
        with self._engine.client() as docker:
            docker.update_container(self._record.id, restart_policy={"MaximumRetryCount": 0, **policy, "Name": name})


def _engine(settings: Settings, environment: Mapping[str, str]) -> Engine:
    docker = settings.of(DockerSettings)
    return Engine(docker.address, timeout_s=docker.timeout_s, tls_dir=docker.tls_dir, environment=environment)


def _runs(found: Mapping[str, Any]) -> bool:
    return bool(found["State"].get("Running"))


def _version(found: Mapping[str, Any], labels: Mapping[str, str]) -> tuple[str, str]:
    """The version, and what tells it; empty when nothing does."""
    image = str(found["Config"]["Image"])
    try:
        tag = parse_image(image).tag
    except ConfigError:
        tag = ""
    label = labels.get(_VERSION_LABEL, "")
    for text, told_by in ((tag, "the tag of its image"), (label, f"its label {_VERSION_LABEL}")):
        try:
            return str(parse(text)), told_by
        except ConfigError:
            continue
    return "", ""


def _published(found: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """Addresses of its published TCP ports -> the port inside it."""
    urls: dict[str, str] = {}
    for inside, bindings in sorted((found["NetworkSettings"].get("Ports") or {}).items()):
        if not inside.endswith("/tcp"):
            continue
        for binding in bindings or ():
            host = str(binding.get("HostIp", ""))
            if host in _UNSPECIFIED:
                host = settings.workload.host
            urls.setdefault(address(host, int(binding["HostPort"])), inside)
    return urls


def _published_as(found: Mapping[str, Any], settings: Settings, url: str) -> str:
    return _published(found, settings).get(url, "")


def _urls(found: Mapping[str, Any], settings: Settings, engine: Engine) -> Mapping[str, str]:
    """Where it may answer; on the host's network those where it listens."""
    published = _published(found, settings)
    if published or not engine.is_local or found["HostConfig"].get("NetworkMode") != "host":
        return published
    return dict.fromkeys(listening_urls(int(found["State"]["Pid"]), settings.workload.host), "")
