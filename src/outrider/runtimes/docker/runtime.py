"""Runs a version as a container, and knows it again by its labels.

A container that has ended stays until its workload is removed or started again: its labels say which port it had. What
is in the middle of being made is found by its name, which Docker gives once. See docs/decisions/0010-docker-runtime.md.
"""

import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from outrider.config.sections import Settings
from outrider.core.blame import Evidence, judge
from outrider.core.errors import DriverError, Refused
from outrider.core.images import MAX_DESCRIPTOR_BYTES, PayloadKind, is_descriptor
from outrider.failpoints import failpoint
from outrider.payloads.transfer import Progress
from outrider.runtimes import Exited, ExitWatch, RunnableRelease, Workload, WorkloadSpec
from outrider.runtimes.docker import LABEL, DockerSettings
from outrider.runtimes.docker.container import (
    Ending,
    Home,
    create_arguments,
    ending_of,
    health_in,
    labels_of,
    port_of,
    workload_of,
)
from outrider.runtimes.docker.engine import Engine, EngineError, evidence_in
from outrider.runtimes.docker.exits import ContainerWatch
from outrider.runtimes.docker.images import Images
from outrider.runtimes.endings import Finding, Run, look_at_end
from outrider.runtimes.process.ports import address, in_use, port_again

_AT_ONCE_S = 0.5
"""How long a start waits for what shows at once: a missing library, a wrong argument. Docker needs 0.3 s to tell."""
_STOP_SLACK_S = 30.0
_WORKLOAD_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")
_LINES = 20
_SHOWN = 200


class DockerRuntime:
    """The runtime ``docker``. ``close`` leaves the containers alone."""

    name = "docker"
    kinds: frozenset[PayloadKind] = frozenset({"image", "image-tar"})

    def __init__(self, settings: Settings, docker: DockerSettings, *, environment: Mapping[str, str]) -> None:
        """Docker is not asked yet. ``environment``: where ``DOCKER_HOST`` is looked up."""
        instance = settings.instance
        self._docker, self._shared = docker, settings.workload
        self._home = Home(app=instance.app.lower(), instance=instance.id, state_dir=str(instance.state_dir.resolve()))
        self._engine = Engine(
            docker.address, timeout_s=docker.timeout_s, tls_dir=docker.tls_dir, environment=environment
        )
        self._images = Images(
            self._engine,
            owner=self._home.owner,
            download=settings.download,
            auth_file=docker.auth_file,
            reserve_bytes=instance.reserve_bytes,
        )

    def fetch(self, release: RunnableRelease, on_progress: Progress | None = None) -> None:
        """As ``Fetcher.fetch``: pull the image by digest."""
        self._images.fetch(release, on_progress)

    def cancel_fetch(self) -> None:
        """As ``Fetcher.cancel_fetch``."""
        self._images.cancel()

    def prepare(self, release: RunnableRelease) -> None:
        """As ``Runtime.prepare``: have the image, pulled or loaded, and compare it with what was announced."""
        with failpoint("workload.prepare"):
            self._images.ensure(release)

    def prune(self, needed: Collection[str]) -> None:
        """As ``Runtime.prune``."""
        self._images.prune(needed)

    def start(self, spec: WorkloadSpec) -> Workload:
        """As ``Runtime.start``."""
        running = self.find(spec.workload_id)
        if running is not None:
            return running
        port = self._port(spec.workload_id)
        with failpoint("workload.unpack"):
            image = self._images.ensure(spec.release)
        with failpoint("workload.clear"):
            self._discard(spec.workload_id)
        return self._launch(spec, image, port)

    def find(self, workload_id: str) -> Workload | None:
        """As ``Runtime.find``."""
        found = self._containers(workload_id)
        return None if not found else workload_of(found[0]["Id"], found[0]["Labels"])

    def running(self) -> tuple[Workload, ...]:
        """As ``Runtime.running``."""
        found = (workload_of(one["Id"], one["Labels"]) for one in self._containers())
        return tuple(sorted(found, key=lambda one: one.workload_id))

    def stop(self, workload_id: str, grace_s: float) -> None:
        """As ``Runtime.stop``; with the image's own stop signal, or the one of the settings."""
        for one in self._containers(workload_id):
            with failpoint("workload.signal"):
                self._stop(one["Id"], one.get("State", ""), grace_s)
        if left := self._containers(workload_id):
            raise DriverError(f"{workload_id}: still runs after SIGKILL: container {left[0]['Id'][:12]}")

    def remove(self, workload_id: str) -> None:
        """As ``Runtime.remove``; the container's anonymous volumes go with it."""
        self.stop(workload_id, self._shared.stop_grace_s)
        with failpoint("workload.erase"):
            self._discard(workload_id)

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> ExitWatch:
        """As ``Runtime.watch``; also of a container that an earlier sidekick started."""

        found = self._containers(workload_id, ended=True)
        container = found[0]["Id"] if found else ""
        port = (port_of(found[0]["Labels"]) or 0) if found else 0

        def tell(ending: Ending) -> None:
            deliver(self._look_at_end(container, port, ending).exited(workload_id, ending.status))

        return ContainerWatch(self._engine, container, tell, memory_bytes=self._docker.memory_bytes)

    def health(self, url: str) -> str:
        """As ``HealthReporter.health``: what the image's HEALTHCHECK found last."""
        found = next((one for one in self._containers() if one["Labels"].get(f"{LABEL}url") == url), None)
        state = None if found is None else (self._engine.inspect(found["Id"]) or {}).get("State")
        if state is None:
            return "no container answers there"
        return health_in(state)

    def trouble(self) -> str:
        """As ``HealthReporter.trouble``: containers end with Docker, and that is no fault of theirs."""
        if not self._engine.answers():
            return f"Docker ({self._engine.address}) does not answer"
        return f"Docker ({self._engine.address}) was away" if self._engine.was_away() else ""

    def close(self) -> None:
        """Nothing is kept open. The containers go on."""

    def _name(self, workload_id: str) -> str:
        if not _WORKLOAD_ID.fullmatch(workload_id):
            raise ValueError(f"workload id {workload_id!r}")
        return self._home.name(workload_id)

    def _containers(self, workload_id: str = "", *, ended: bool = False) -> list[dict[str, Any]]:
        """Our containers; with ``ended`` also those that don't run."""
        wanted = {**self._home.labels, **({f"{LABEL}workload": workload_id} if workload_id else {})}
        with self._engine.client() as docker:
            found: list[dict[str, Any]] = docker.containers(
                all=ended, filters={"label": [f"{name}={text}" for name, text in wanted.items()]}
            )
        return found

    def _port(self, workload_id: str) -> int:
        """A port for the workload: the one that it had, or one that none of our others had."""
        with self._engine.client() as docker:
            published = {
                int(port["PublicPort"])
                for one in docker.containers()
                for port in one.get("Ports") or ()
                if port.get("PublicPort")
            }
        ports: dict[str, int | None] = {
            one["Labels"].get(f"{LABEL}workload", ""): port_of(one["Labels"]) for one in self._containers(ended=True)
        }
        before = ports.pop(workload_id, None)
        known = [port for port in ports.values() if port is not None]
        # not every published port has a listener that a bind would meet
        return port_again(
            self._shared.host, self._shared.ports, before=before, known=[*known, *published], running=sorted(published)
        )

    def _launch(self, spec: WorkloadSpec, image: str, port: int) -> Workload:
        labels = labels_of(
            self._home,
            spec,
            url=address(self._shared.host, port),
            kind=_kind_of(spec.release),
            started=time.time_ns(),
        )
        arguments = create_arguments(
            self._docker,
            self._shared,
            image=image,
            name=self._name(spec.workload_id),
            port=port,
            version=spec.release.version,
            environment={
                **spec.given.variables,
                "OUTRIDER_WORKLOAD": spec.workload_id,
                "OUTRIDER_VERSION": spec.release.version,
                "OUTRIDER_PAYLOAD_SHA256": spec.release.sha256,
                "OUTRIDER_INSTANCE": self._home.instance,
            },
            labels=labels,
            more=spec.given.arguments,
        )
        try:
            with failpoint("workload.record"), self._engine.client() as docker:
                made = docker.create_container_from_config(arguments["body"], arguments["name"])
            container = str(made["Id"])
            with failpoint("workload.spawn"), self._engine.client() as docker:
                for network in self._docker.networks:
                    docker.connect_container_to_network(container, network)
                docker.start(container)
            self._look_at_once(spec, container, port)
        except EngineError as said:
            self._discard(spec.workload_id)
            raise self._start_problem(spec.workload_id, said, port) from said
        except Refused:
            self._discard(spec.workload_id)
            raise
        return workload_of(container, labels)

    def _look_at_once(self, spec: WorkloadSpec, container: str, port: int) -> None:
        """Wait a moment for an end that comes at once.

        Raises:
            DriverError, Refused: it came.
        """
        if self._engine.wait(container, _AT_ONCE_S) is None:
            return
        found = self._engine.inspect(container)
        if found is None or found["State"]["Running"]:
            return
        ending = ending_of(
            found["State"],
            int(found["State"]["ExitCode"]),
            asked=False,
            away=False,
            memory_bytes=self._docker.memory_bytes,
        )
        seen = self._look_at_end(container, port, ending)
        self._discard(spec.workload_id)
        raise seen.error(f"{spec.workload_id}: ends at once: {ending.status}")

    def _look_at_end(self, container: str, port: int, ending: Ending) -> Finding:
        """Why it has ended. What it lacks is not looked for on this machine: an image brings everything with it.

        A published port was had when the container started, and what listens inside is none of this machine's ports.
        """
        said = self._last_lines(container)
        evidence = ending.evidence
        # what the kernel makes of a program for another processor, in the words of Docker's own starter
        if evidence == "ended" and said and evidence_in(said[-1]) == "other-architecture":
            evidence = "other-architecture"
        is_on_host = self._docker.network == "host"
        run = Run(disk=self._images.disk(), host=self._shared.host, port=port if is_on_host else 0)
        return look_at_end(ending.status, said, run, evidence=evidence)

    def _last_lines(self, container: str) -> tuple[str, ...]:
        """What it printed last; nothing where Docker can't read its log driver, or is away."""
        if not container:
            return ()
        try:
            with self._engine.client() as docker:
                lines = docker.logs(container, tail=_LINES).decode(errors="replace").strip().splitlines()
        except DriverError:
            return ()
        return tuple(line.strip()[:_SHOWN] for line in lines if line.strip())

    def _start_problem(self, workload_id: str, said: EngineError, port: int) -> DriverError:
        text, evidence = f"{workload_id}: Docker can't start it: {said}", said.evidence
        lower = str(said).lower()
        own = bool(self._docker.command or self._docker.entrypoint)
        if evidence == "unknown" and ("exec:" in lower or "no command specified" in lower):
            # what an image names is in the image; what the settings name is this machine's matter
            evidence = "wrong-setting" if own else "bad-payload"
            text += "; check docker.command and docker.entrypoint" if own else ""
        elif evidence == "no-port":
            text += in_use(self._shared.host, port)
        return _problem(text, evidence)

    def _stop(self, container: str, state: str, grace_s: float) -> None:
        try:
            with self._engine.client(grace_s + _STOP_SLACK_S) as docker:
                if state == "paused":
                    docker.unpause(container)
                docker.stop(container, timeout=max(0, round(grace_s)))
        except EngineError as said:
            if said.status not in (304, 404):  # stopped already, or gone
                raise

    def _discard(self, workload_id: str) -> None:
        """Remove the container of that name, if it doesn't run."""
        for one in self._containers(workload_id, ended=True):
            try:
                with self._engine.client() as docker:
                    docker.remove_container(one["Id"], v=True)
            except EngineError as said:
                if said.status != 404 and "already in progress" not in str(said):
                    raise


def _kind_of(release: RunnableRelease) -> PayloadKind:
    with release.payload.open("rb") as file:
        return "image" if is_descriptor(file.read(MAX_DESCRIPTOR_BYTES)) else "image-tar"


def _problem(text: str, evidence: Evidence) -> DriverError:
    return Refused(text, evidence=evidence) if judge(evidence) == "release" else DriverError(text, evidence=evidence)
