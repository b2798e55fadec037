"""Three instances with one slot over a real etcd and a real Traefik, under load, kept over many cases."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from outrider.balancers.entry import ensure_static
from outrider.balancers.traefik import TraefikKeys, TraefikSettings
from outrider.cli.rest_client import ServiceClient
from outrider.core.sidekick.memory import Strategy
from outrider.demo.example import build_package
from outrider.demo.fleet import APP_ID, CHANNEL, GROUP, HOST, SERVICE, end_workloads
from outrider.demo.load import LoadGenerator
from outrider.demo.programs import Program, start_traefik
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster, Delete, KeyChanged, Put, WatchEvent
from tests.chaos.disk import Disk
from tests.chaos.proxy import Proxy
from tests.live.killed_fixture import CHECKOUT
from tests.live.live_fixture import HEALTHY_ANSWERS, LiveFixture
from tests.support.secured import SecuredFixture
from tests.support.servers import EtcdNodes, etcd_binary, etcdctl_binary
from tests.support.waiting import eventually

INSTANCES = ("web-1", "web-2", "web-3")
RACKS: Mapping[str, str] = {"web-1": "a", "web-2": "a", "web-3": "b"}
"""Their label ``rack``; it means nothing until a policy has a budget of it."""
TTL_S = 2.0
HASTE: Mapping[str, Mapping[str, object]] = {
    "lock": {"ttl_s": TTL_S},
    "etcd": {"timeout_s": 1.0},
    "probe": {"interval_s": 0.03, "timeout_s": 1.0, "successes": 3, "failures": 2, "deadline_s": 4.0},
    "drain": {"wait_s": 0.05, "max_s": 8.0, "confirm_timeout_s": 5.0, "inflight_path": "/inflight"},
    "soak": {"duration_s": 0.6},
    "workload": {"stop_grace_s": 3.0, "start_timeout_s": 30.0},
    "service": {"retry_min_s": 0.2, "retry_max_s": 1.0, "timeout_s": 3.0, "poll_interval_s": 60.0},
    "download": {"timeout_s": 3.0, "deadline_s": 20.0, "keep_versions": 2},
}
RULE = f"Host(`{HOST}`)"
RATE_PER_S = 15.0
CASE_LIMIT_S = 120.0
FAKETIME = tuple(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


class ChaosFixture(LiveFixture):
    """The fixture of one fleet. ``bring_up`` takes about ten seconds; each case afterwards a few."""

    haste = HASTE

    def __init__(self, folder: Path, strategy: Strategy, *, instances: Sequence[str] = INSTANCES) -> None:
        super().__init__(
            folder, instances, settings=self.haste, strategy=strategy, environment={"PYTHONPATH": str(CHECKOUT)}
        )
        self.strategy: Strategy = strategy
        self.serial = 0
        self.proxies: dict[str, Proxy] = {}
        self.disks: dict[str, Disk] = {}
        self.load: LoadGenerator
        self.client: ServiceClient

    def bring_up(self) -> None:
        """Everything runs, every instance serves 1.0.0, the load has begun."""
        os.environ["OUTRIDER_DEMO_ETCD"] = str(etcd_binary())
        for instance in self.instances:
            self.disks[instance] = Disk(self.state_dir(instance))
        self.start()
        ensure_static(self.cluster, TraefikKeys(TraefikSettings(rule=RULE), service=SERVICE))
        self.proxies = self.make_proxies()
        self.client = self.connect_service()
        self.create(slots=1)
        for instance in self.instances:
            self.start_sidekick(instance)
        eventually(lambda: self.all_on("1.0.0"), within_s=CASE_LIMIT_S, every_s=0.1)
        for _ in range(2):  # from here on every rollout has payloads to prune
            eventually(partial(self.all_on, self.release("good")), within_s=CASE_LIMIT_S, every_s=0.1)
        self.load = LoadGenerator(f"{self.traefik.web_url}{self.path}", HOST, RATE_PER_S, posts=self.posts).start()

    def connect_service(self) -> ServiceClient:
        """For operators."""
        return ServiceClient(self.operators_url)

    def make_proxies(self) -> dict[str, Proxy]:
        """What stands between each sidekick and etcd."""
        return {instance: Proxy(self.etcd.endpoint.port) for instance in self.instances}

    def stop(self) -> None:
        try:
            if hasattr(self, "load"):
                self.load.stop()
        finally:
            for program in self.sidekicks.values():
                if program.ended is None:
                    os.killpg(program.pid, signal.SIGCONT)
            super().stop()
            for proxy in self.proxies.values():
                proxy.close()
            for disk in self.disks.values():
                disk.close()

    def etcd_control(self, *arguments: str) -> None:
        """Run ``etcdctl``."""
        command = [str(etcdctl_binary()), "--endpoints", f"http://{self.endpoint}", *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=60, env=os.environ | {"ETCDCTL_API": "3"})

    def next_version(self) -> str:
        """A version that was never seen before, newer than all."""
        self.serial += 1
        return f"1.{self.serial}.0"

    def release(self, kind: str) -> str:
        """Make the next version, of a kind of ``HEALTHY_ANSWERS``, and point the channel at it."""
        version = self.next_version()
        self.upload(version, kind)
        self.point_at(version)
        return version

    def upload(self, version: str, kind: str, tasks: Sequence[Mapping[str, object]] = ()) -> None:
        """Store a package of that kind, with these tasks."""
        package = build_package(self.folder, version, healthy_answers=HEALTHY_ANSWERS[kind])
        with package.open("rb") as file:
            stored = self.client.upload(file)
        body = {"version": version, "stored": stored["sha256"], "name": package.name, "tasks": list(tasks)}
        self.client.post("apps", APP_ID, "packages", body=body)
        self.sign(version)
        package.unlink()

    def end_apps(self, instance: str) -> None:
        """End the workloads of an instance behind its sidekick's back."""
        end_workloads(self.state_dir(instance))

    def leftovers(self, instance: str) -> list[str]:
        """What is left of workloads that don't run."""
        return []

    def point_at(self, version: str) -> None:
        self.client.put("apps", APP_ID, "channels", CHANNEL, body={"version": version})

    def say(self, instance: str, verb: str) -> None:
        """An operator's word to one sidekick."""
        self.client.post("apps", APP_ID, "instances", instance, "command", body={"verb": verb, "by": "chaos"})

    def start_armed(self, instance: str, signals: Path, options: Sequence[str], *, clock: bool) -> Program:
        """The armed sidekick in place of the ordinary one."""
        command: list[str | Path] = [sys.executable, "-m", "tests.chaos.sidekick"]
        command += ["--config", self.folder / f"{instance}.toml", "--signals", signals, *options]
        ordinary = self._environment
        if clock:
            off = signals / "off"
            off.write_text("+0")
            self._environment = ordinary | {
                "LD_PRELOAD": str(FAKETIME[0]), "FAKETIME_TIMESTAMP_FILE": str(off), "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }  # fmt: skip
        try:
            return self.start_sidekick(instance, command)
        finally:
            self._environment = ordinary

    def versions(self) -> dict[str, tuple[str, str]]:
        """Version and state of every sidekick that is alive."""
        return {name: (one.version, one.state) for name, one in self.presences().items()}

    def _config(self, instance: str) -> str:
        text = super()._config(instance)
        if instance in RACKS:
            text = text.replace("[instance]\n", f'[instance]\nlabels = {{ rack = "{RACKS[instance]}" }}\n', 1)
        if instance in self.proxies:
            text = text.replace(f'"{self.endpoint}"', f'"127.0.0.1:{self.proxies[instance].port}"')
        return text.replace("[traefik]\n", f"[traefik]\nrule = '{RULE}'\n")


class SecuredChaosFixture(SecuredFixture, ChaosFixture):
    """The same, secured."""


class NodesFixture(ChaosFixture):
    """The same over three etcd nodes, without proxies: what is killed here is etcd."""

    nodes: EtcdNodes

    @property
    def endpoint(self) -> str:
        return ",".join(f"{one.endpoint.host}:{one.endpoint.port}" for one in self.nodes.members)

    def start(self) -> None:
        self.nodes = EtcdNodes(self.folder / "nodes").start().wait_ready()
        self.cluster = connect(self.nodes.address())
        ensure_static(self.cluster, TraefikKeys(TraefikSettings(rule=RULE), service=SERVICE))
        self.traefik = self._keep(start_traefik(self.folder, self.nodes.members[0].endpoint))
        self.start_service()
        self.traefik.wait_ready()

    def make_proxies(self) -> dict[str, Proxy]:
        return {}

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            self.nodes.stop()

    def _config(self, instance: str) -> str:
        each = ", ".join(f'"{one}"' for one in self.endpoint.split(","))
        return super()._config(instance).replace(f'"{self.endpoint}"', each)


class History:
    """Everything that etcd goes through from now on."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.changes: list[KeyChanged] = []
        self.lost = False
        listings = {prefix: cluster.list(prefix) for prefix in ("/outrider/v1/", "traefik/")}
        self.before = {entry.key: entry.value for one in listings.values() for entry in one.entries}
        self._since = {prefix: listing.revision for prefix, listing in listings.items()}
        self._watches = [cluster.watch(prefix, at + 1, self._note) for prefix, at in self._since.items()]

    def _note(self, event: WatchEvent) -> None:
        if isinstance(event, KeyChanged):
            self.changes.append(event)
        else:
            self.lost = True

    def end(self) -> tuple[KeyChanged, ...]:
        """Stop, once everything up to now has come; all changes."""
        marks = [f"{prefix}chaos-mark" for prefix in self._since]
        for mark in marks:
            self._cluster.txn((), (Put(key=mark, value=b"x"),))
        eventually(lambda: {one.key for one in tuple(self.changes)} >= set(marks))
        for mark in marks:
            self._cluster.txn((), (Delete(key=mark),))
        for watch in self._watches:
            watch.close()
        return tuple(self.changes)


__all__ = ["APP_ID", "FAKETIME", "GROUP", "TTL_S", "ChaosFixture", "History", "NodesFixture"]
