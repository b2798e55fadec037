"""A small data centre for one run: three etcd nodes, the update service, a payload server, Traefik, three machines."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from outrider.balancers.entry import ensure_static
from outrider.balancers.traefik import TraefikKeys, TraefikSettings
from outrider.cli.rest_client import ServiceClient
from outrider.demo.fleet import HOST, OUTRIDER, SERVICE
from outrider.demo.programs import find_traefik
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster, Endpoint, EtcdAddress
from outrider.http import ask
from outrider.model.keys import Keys
from tests.partitions.containers import Container, Network
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

ETCDS, SERVER, PAYLOADS, BALANCER, MACHINES = (11, 12, 13), 21, 22, 31, (41, 42, 43)
"""Host numbers on the network."""
NAMES = ("m1", "m2", "m3")
READY_S = 60.0

TRAEFIK = """\
[global]
checkNewVersion = false
sendAnonymousUsage = false
[entryPoints.web]
address = ":8000"
[entryPoints.traefik]
address = ":8080"
[api]
insecure = true
[log]
level = "INFO"
noColor = true
[providers]
providersThrottleDuration = "100ms"
[providers.etcd]
endpoints = [{endpoints}]
rootKey = "traefik"
"""


class World:
    """The containers of one run. ``stop`` removes all of them, with their network and image."""

    def __init__(self, folder: Path) -> None:
        """Prepare; ``start`` makes everything. ``folder`` holds what machines and servers keep."""
        self.folder = folder
        self.keys = Keys()
        self.etcds: list[Container] = []
        self.machines: dict[str, Container] = {}
        self._network: Network | None = None
        self.service: Container
        self.payloads: Container
        self.balancer: Container
        self.cluster: Cluster
        self.operator: ServiceClient

    def start(self) -> "World":
        """Start all of it, and wait until each answers."""
        network = self._network = Network()
        self._start_etcd(network)
        self.cluster = connect(self.etcd_address())
        ensure_static(self.cluster, TraefikKeys(TraefikSettings(rule=f"Host(`{HOST}`)"), service=SERVICE))
        self._start_servers(network)
        for name, number in zip(NAMES, MACHINES, strict=True):
            self.machine_folder(name).mkdir(parents=True)
            self.machines[name] = network.add(
                name,
                number,
                [sys.executable, "-m", "tests.partitions.machine", self.machine_folder(name)],
                folders=[self.machine_folder(name)],
                # NET_ADMIN for the cuts, SYS_ADMIN for the runtime's disk that turns read-only
                capabilities=["NET_ADMIN", "SYS_ADMIN"],
            )
        os.environ["no_proxy"] = ",".join([os.environ.get("no_proxy", ""), self.service.address]).strip(",")
        self.operator = ServiceClient(self.service_url)
        self._await(self.service, f"{self.service_url}/readyz")
        self._await(self.balancer, f"{self.api_url}/api/http/services")
        self._await(self.payloads, f"{self.payload_url}/")
        return self

    def stop(self) -> None:
        """End and remove everything; safe to call when ``start`` failed half-way."""
        try:
            if hasattr(self, "cluster"):
                self.cluster.close()
        finally:
            if self._network is not None:
                self._network.remove()

    @property
    def run(self) -> str:
        """The mark of everything that this world made in Docker."""
        assert self._network is not None, "not started"
        return self._network.run

    @property
    def python(self) -> str:
        """The interpreter, inside as here."""
        return sys.executable

    @property
    def service_url(self) -> str:
        return f"http://{self.service.address}:8000"

    @property
    def payload_url(self) -> str:
        return f"http://{self.payloads.address}:8000"

    @property
    def web_url(self) -> str:
        """Where Traefik serves the apps."""
        return f"http://{self.balancer.address}:8000"

    @property
    def api_url(self) -> str:
        """Traefik's API."""
        return f"http://{self.balancer.address}:8080"

    @property
    def endpoints(self) -> list[str]:
        """etcd's, as ``[etcd] endpoints`` has them."""
        return [f"{etcd.address}:2379" for etcd in self.etcds]

    def etcd_address(self) -> EtcdAddress:
        """How the test itself reaches etcd, from the host."""
        endpoints = tuple(Endpoint(host=etcd.address, port=2379) for etcd in self.etcds)
        return EtcdAddress(endpoints=endpoints, timeout_s=10.0)

    def machine_folder(self, name: str) -> Path:
        """What machine ``name`` shares with the test."""
        return self.folder / name

    @property
    def payload_folder(self) -> Path:
        """What the payload server serves."""
        return self.folder / "files"

    def _start_etcd(self, network: Network) -> None:
        program = etcd_binary().resolve()
        peers = {f"etcd{number}": f"http://{network.address(number)}:2380" for number in ETCDS}
        cluster = ",".join(f"{name}={url}" for name, url in peers.items())
        for number in ETCDS:
            name, client = f"etcd{number}", f"http://{network.address(number)}:2379"
            command: Sequence[str | Path] = [
                *(program, "--name", name, "--data-dir", "/tmp/etcd"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name]),
                *("--initial-cluster", cluster, "--initial-cluster-token", network.run),
                # three members share few cores with all the rest: a slow moment is no reason for an election
                *("--heartbeat-interval", "100", "--election-timeout", "1500"),
                *("--log-level", "warn", "--unsafe-no-fsync"),
            ]
            self.etcds.append(network.add(name, number, command))
        for etcd in self.etcds:
            self._await(etcd, f"http://{etcd.address}:2379/health")

    def _start_servers(self, network: Network) -> None:
        stored, config_folder = self.folder / "stored", self.folder / "traefik"
        for folder in (stored, config_folder, self.payload_folder):
            folder.mkdir(parents=True)
        where = f"{network.address(SERVER)}:8000"
        command: list[str | Path] = [*OUTRIDER, "serve", "--listen", where, "--insecure-listen"]
        command += ["--payload-dir", stored, "--etcd", ",".join(self.endpoints)]
        self.service = network.add("service", SERVER, command, folders=[stored])
        self.payloads = network.add(
            "payloads",
            PAYLOADS,
            [sys.executable, "-m", "http.server", "8000", "--directory", self.payload_folder],
            folders=[self.payload_folder],
        )
        config = config_folder / "traefik.toml"
        config.write_text(TRAEFIK.format(endpoints=", ".join(f'"{endpoint}"' for endpoint in self.endpoints)))
        self.balancer = network.add(
            "balancer",
            BALANCER,
            [find_traefik(), f"--configfile={config}"],
            folders=[config_folder],
            capabilities=["NET_ADMIN"],
        )

    @staticmethod
    def _await(container: Container, url: str) -> None:
        """Wait until ``url`` is answered 200; a container that has ended is a failure with its last words."""

        def answers() -> bool:
            answer = ask(url, timeout_s=2.0)
            if answer is None and (words := container.ended()) is not None:
                raise RuntimeError(f"{container.name} has ended: {words}")
            return answer is not None and answer.status == 200

        eventually(answers, READY_S, every_s=0.1)
