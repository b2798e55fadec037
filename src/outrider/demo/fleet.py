"""A whole small world on loopback: etcd, Traefik, the update service, and some instances with a sidekick each.

The demo runs on it, and so do the live tests: what they kill and cut is what a newcomer watches.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from outrider.balancers.entry import ensure_static
from outrider.balancers.traefik import TraefikKeys, TraefikSettings
from outrider.config.sections import WorkloadSettings
from outrider.core.errors import DriverError
from outrider.demo.balancers import START, start_agent
from outrider.demo.example import build_package
from outrider.demo.programs import Etcd, Program, TraefikProgram, free_ports, start_etcd, start_traefik
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster, EtcdAddress
from outrider.http import ask
from outrider.model.keys import Keys
from outrider.runtimes.process import ProcessSettings
from outrider.runtimes.process.runtime import ProcessRuntime

APP_ID = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"
"""The app of CoreOS' guide."""
GROUP = "production"
CHANNEL = "stable"
HOST = "example.localhost"
SERVICE = "example"
COMMAND_LIMIT_S = 60.0

OUTRIDER = (sys.executable, "-m", "outrider")

P = TypeVar("P", bound=Program)

QUICK: Mapping[str, Mapping[str, object]] = {
    "lock": {"ttl_s": 5.0},
    "probe": {"interval_s": 0.2, "timeout_s": 1.0, "successes": 3, "failures": 2, "deadline_s": 5.0},
    "drain": {"wait_s": 1.0, "max_s": 10.0, "inflight_path": "/inflight"},
    "soak": {"duration_s": 1.0},
    "workload": {"stop_grace_s": 5.0},
    "service": {"retry_min_s": 0.5, "retry_max_s": 5.0},
}
"""Settings in the demo's haste. An operator's are longer: ``outrider config show``."""


class DemoFleet:
    """The programs, in a folder of their own. ``stop`` ends what was started, in the opposite order.

    Attributes:
        path: Of the app's greeting.
        rate_per_s: How many greetings a second it is asked for under load.
        posts: Whether some of them are POSTs.
    """

    path = "/"
    rate_per_s = 120.0
    posts = True

    def __init__(
        self,
        folder: Path,
        instances: Sequence[str],
        *,
        settings: Mapping[str, Mapping[str, object]] = QUICK,
        strategy: str = "start-first",
        environment: Mapping[str, str] | None = None,
        balancer: str = "traefik",
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            balancer: ``traefik``, or a product of ``demo/balancers.py``, which gets an agent.
            settings: Section -> key -> value, on top of what the fleet itself must set.
            environment: Added to that of every sidekick.
        """
        self.folder, self.instances = folder, tuple(instances)
        self.keys = Keys()
        self._settings, self._strategy, self._environment = settings, strategy, dict(environment or {})
        self.etcd: Etcd
        self.balancer, self.web_url = balancer, ""
        self.traefik: TraefikProgram
        self.service: Program
        self.service_url = ""
        self.cluster: Cluster
        self.sidekicks: dict[str, Program] = {}
        self._started: list[Program] = []

    @property
    def endpoint(self) -> str:
        """etcd's, as ``--etcd`` takes it."""
        return f"{self.etcd.endpoint.host}:{self.etcd.endpoint.port}"

    @property
    def socket(self) -> Path:
        """The update service's Unix socket."""
        return self.folder.absolute() / "serve.sock"

    @property
    def operators_url(self) -> str:
        """The update service, as commands without a token reach it."""
        return f"unix:{self.socket}"

    def start(self) -> None:
        """Start etcd, Traefik and the update service, and wait until all three answer."""
        self.etcd = self._keep(start_etcd(self.folder))
        self.etcd.wait_ready()
        self.cluster = connect(EtcdAddress(endpoints=(self.etcd.endpoint,)))
        if self.balancer == "traefik":
            ensure_static(self.cluster, TraefikKeys(TraefikSettings(rule=f"Host(`{HOST}`)"), service=SERVICE))
            self.traefik = self._keep(start_traefik(self.folder, self.etcd.endpoint))
            self.start_service()
            self.traefik.wait_ready()
            self.web_url = self.traefik.web_url
            return
        program = self._keep(START[self.balancer](self.folder, SERVICE))
        self.start_service()
        program.wait_ready()
        self.web_url = program.web_url
        self._keep(start_agent(self.folder, program, self.etcd.endpoint, SERVICE))

    def start_service(self) -> None:
        """Start the update service, at its earlier address if it had one."""
        if not self.service_url:
            self.service_url = f"http://127.0.0.1:{free_ports(1)[0]}"
        listen = self.service_url.removeprefix("http://")
        command = [*OUTRIDER, "serve", "--listen", listen, "--etcd", self.endpoint, "--socket", str(self.socket)]
        command += ["--payload-dir", str(self.folder / "payloads")]
        self.service = self._keep(
            Program(
                "service",
                command,
                self.folder,
                ready=lambda: self.socket.exists() and _answers(f"{self.service_url}/readyz"),
            )
        )
        self.service.wait_ready()

    def start_sidekick(self, instance: str, command: Sequence[str | Path] = ()) -> Program:
        """Start (or, after a kill, restart) the sidekick of ``instance``; it isn't waited for.

        Args:
            command: Another program than the ordinary one; its configuration is in ``{folder}/{instance}.toml``.
        """
        config = self.folder / f"{instance}.toml"
        config.write_text(self._config(instance))
        command = command or [*OUTRIDER, "sidekick", "run", "--config", config]
        program = Program(f"sidekick-{instance}", command, self.folder, env=self._environment)
        self.sidekicks[instance] = self._keep(program)
        return program

    def outrider(self, *arguments: str, check: bool = True) -> str:
        """Run one command as a person would; returns what it printed on stdout.

        Raises:
            DriverError: it left with another status than 0, and ``check`` is set.
        """
        environment = {"OUTRIDER_SERVER": self.operators_url, "OUTRIDER_ETCD": self.endpoint}
        done = subprocess.run(
            [*OUTRIDER, *arguments],
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            env={**os.environ, **environment},
            check=False,
        )
        if check and done.returncode != 0:
            raise DriverError(f"outrider {' '.join(arguments)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def package(self, version: str, *, healthy: bool = True) -> str:
        """Make what a release consists of, and name it as ``package create --file`` takes it."""
        return str(build_package(self.folder, version, healthy_answers=None if healthy else 0))

    def state_dir(self, instance: str) -> Path:
        """Where the sidekick of ``instance`` keeps its journal, payloads and workloads."""
        return self.folder / "state" / instance

    def running(self, instance: str) -> tuple[str, ...]:
        """Ids of the workloads of ``instance`` that run, whoever started them."""
        with workloads(self.state_dir(instance)) as runtime:
            return tuple(workload.workload_id for workload in runtime.running())

    def stop(self) -> None:
        """End everything: sidekicks, then the instances that they leave running, then the rest."""
        for program in reversed(self._started):
            program.stop()
        for instance in self.instances:
            end_workloads(self.state_dir(instance))
        if hasattr(self, "cluster"):
            self.cluster.close()

    def _keep(self, program: P) -> P:
        self._started.append(program)
        return program

    def _config(self, instance: str) -> str:
        needed: dict[str, dict[str, object]] = {
            "instance": {
                "id": instance,
                "app": APP_ID,
                "group": GROUP,
                "strategy": self._strategy,
                "state_dir": str(self.state_dir(instance)),
            },
            "etcd": {"endpoints": [self.endpoint]},
            "service": {"urls": [self.service_url]},
            "process": {"command": [sys.executable, "server.py"]},
            "balancer": {"service": SERVICE},
        }
        if self.balancer == "traefik":
            needed["traefik"] = {"api_urls": [self.traefik.api_url], "throttle_s": 0.1}
        else:
            needed["instance"]["balancer"] = "agent"
        if self._strategy == "stop-first":
            ports = self.folder / f"{instance}.port"
            if not ports.exists():
                ports.write_text(str(free_ports(1)[0]))
            needed["workload"] = {"ports": ports.read_text()}
        for section, values in self._settings.items():
            needed[section] = {**needed.get(section, {}), **values}
        return "\n".join(
            f"[{section}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())
            for section, values in needed.items()
        )


@contextmanager
def workloads(state_dir: Path) -> Iterator[ProcessRuntime]:
    """The runtime of one instance, to look at its workloads from outside."""
    runtime = ProcessRuntime(
        ProcessSettings(command=("true",)), WorkloadSettings(), state_dir=state_dir, instance=state_dir.name
    )
    try:
        yield runtime
    finally:
        runtime.close()


def end_workloads(state_dir: Path) -> None:
    """End the workloads of one instance whose sidekick has ended."""
    if not state_dir.is_dir():
        return
    with workloads(state_dir) as runtime:
        for workload in runtime.running():
            runtime.stop(workload.workload_id, grace_s=2.0)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(str(value))  # JSON's strings are TOML's basic strings


def _answers(url: str) -> bool:
    answer = ask(url, timeout_s=5.0)
    return answer is not None and answer.status == 200
