"""One real balancer with its agent, an etcd, and the entry of one instance: what the tests of balancers stand on."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import requests

from outrider.balancers import Balancer
from outrider.balancers.agent.envoy import hosts_in
from outrider.balancers.agent.haproxy import HaproxyDriver
from outrider.balancers.agent.nginx import addresses_in
from outrider.balancers.drain import Drain, DrainVerdict
from outrider.balancers.drivers import BALANCERS, BalancerContext
from outrider.balancers.entry import ensure_static
from outrider.balancers.traefik import TraefikKeys, TraefikSettings
from outrider.config.sections import DrainSettings
from outrider.demo.balancers import START, BalancerProgram, Caddy, Envoy, Haproxy, Nginx, start_agent
from outrider.demo.programs import Program, ProgramMissing, start_etcd, start_traefik
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster, CreatedAt, Delete, EtcdAddress, Put
from outrider.model.balancer_agents import Applied
from outrider.model.documents import decode
from outrider.model.keys import Keys, group_scope
from tests.contracts.kits.settings import SERVICE, settings_with
from tests.live.test_traefik import App
from tests.support.requirements import skip_or_fail
from tests.support.waiting import eventually

HOST = "hello.test"
KEYS = Keys()
SLOT = KEYS.slot(group_scope(SERVICE, "g"), 0, "web-1")
BY_COUNT = DrainSettings(wait_s=20.0)
"""Time alone would show: what ends sooner was counted."""
BY_APP = DrainSettings(wait_s=20.0, inflight_path="/inflight")
RULE = f"Host(`{HOST}`)"


class Stand:
    """Traefik has no agent: it reads etcd itself."""

    def __init__(
        self,
        product: str,
        folder: Path,
        stack: ExitStack,
        start: Callable[[Path, str], BalancerProgram] | None = None,
    ) -> None:
        """``start``: starts the product otherwise than its users do."""
        self.product, self.folder, self._stack = product, folder, stack
        self.etcd = start_etcd(folder)
        stack.callback(self.etcd.stop)
        self.etcd.wait_ready()
        self.cluster: Cluster = connect(EtcdAddress(endpoints=(self.etcd.endpoint,)))
        stack.callback(self.cluster.close)
        self.program: Program
        own: object = None
        if product == "traefik":
            ensure_static(self.cluster, TraefikKeys(TraefikSettings(rule=RULE), service=SERVICE))
            traefik = start_traefik(folder, self.etcd.endpoint)
            self.program, self.web_url, self.api_url = traefik, traefik.web_url, traefik.api_url
            own = TraefikSettings(rule=RULE, api_urls=(traefik.api_url,), throttle_s=0.1)
        else:
            try:
                self.program = started = (start or START[product])(folder, SERVICE)
            except ProgramMissing as missing:
                skip_or_fail(str(missing))
            self.web_url = started.web_url
        stack.callback(self.program.stop)
        self.program.wait_ready()
        self.kind = "traefik" if product == "traefik" else "agent"
        self.balancer: Balancer = BALANCERS.load(self.kind).make(
            settings_with(self.kind, own), BalancerContext(cluster=self.cluster, keys=KEYS)
        )
        self.fence = self.take_turn()

    @property
    def balancer_program(self) -> BalancerProgram:
        assert isinstance(self.program, BalancerProgram)
        return self.program

    def start_agent(self) -> Program:
        return self.keep(start_agent(self.folder, self.balancer_program, self.etcd.endpoint, SERVICE))

    def keep(self, program: Program) -> Program:
        """End it with the stand."""
        self._stack.callback(program.stop)
        return program

    def take_turn(self) -> tuple[CreatedAt, ...]:
        """A turn without a lease."""
        self.cluster.txn((), (Delete(key=SLOT),))
        self.cluster.txn((), (Put(key=SLOT, value=b"mine"),))
        entry = self.cluster.get(SLOT)
        assert entry is not None
        return (CreatedAt(key=SLOT, revision=entry.create_revision),)

    def app(self, version: str) -> App:
        app = App(self.folder, version)
        self.keep(app.program)
        app.program.wait_ready()
        return app

    def begin(self, version: str = "1.0.0") -> App:
        """The agent, and a first server that is served."""
        if self.kind == "agent":
            self.start_agent()
        app = self.app(version)
        self.balancer.entry.join(app.url)
        eventually(lambda: self.version() == version, every_s=0.05)
        if self.kind == "agent":  # it is written down, too: a reload before that would begin without it
            eventually(lambda: app.url in self.applied().serving, every_s=0.05)
        return app

    def switch(self, app: App) -> None:
        self.balancer.entry.switch(app.url, fence=self.fence)

    def get(self, path: str = "/") -> requests.Response:
        return requests.get(self.web_url + path, headers={"Host": HOST}, timeout=60)

    def version(self) -> str:
        """Who answers; empty when nobody does."""
        return self.get().headers.get("X-Version", "")

    def drain(self, old: App | None, new: App | None, settings: DrainSettings | None = None) -> DrainVerdict:
        """As a sidekick waits: agents count open requests, Traefik doesn't, and there the app is asked."""
        settings = settings or (BY_APP if self.product == "traefik" else BY_COUNT)
        return Drain(self.balancer.observer, settings).wait(
            frozenset({new.url} if new else ()),
            frozenset({old.url} if old else ()),
            inflight_url=f"{old.url}{settings.inflight_path}" if old and settings.inflight_path else None,
            stop=threading.Event(),
        )

    def applied(self) -> Applied:
        key = KEYS.applied(SERVICE, "lb-1")
        found = self.cluster.get(key)
        assert found is not None, "the agent isn't heard"
        return decode(Applied, key, found.value)

    def own_state(self) -> frozenset[str]:
        """The addresses that the balancer itself says it sends new requests to, asked in its own way."""
        match self.program:
            case Haproxy():
                driver = HaproxyDriver(socket_path=self.program.socket, backend=SERVICE, state_file=Path("/nowhere"))
                return frozenset(f"http://{slot.address}" for slot in driver.look().slots if slot.state == "ready")
            case Nginx():
                return frozenset(f"http://{one}" for one in addresses_in(self.program.upstream_file.read_text()))
            case Caddy():
                told = requests.get(f"{self.program.admin_url}/{self.program.handler}", timeout=60).json()
                weights = told["load_balancing"]["selection_policy"]["weights"]
                return frozenset(
                    f"http://{one['dial']}"
                    for one, weight in zip(told["upstreams"], weights, strict=True)
                    if weight or len(weights) == 1
                )
            case Envoy():
                told = requests.get(f"{self.program.admin_url}/clusters?format=json", timeout=60).json()
                found = hosts_in(told, self.program.cluster)
                assert found is not None
                return frozenset(f"http://{address}" for address, host in found.items() if not host.draining)
            case _:
                told = requests.get(f"{self.api_url}/api/http/services/{SERVICE}@etcd", timeout=60).json()
                return frozenset(one["url"] for one in told["loadBalancer"].get("servers") or ())
