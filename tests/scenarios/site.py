"""A small data centre of real machines: three etcd nodes, the update service, two balancers, three machines for apps.

Every machine but those of etcd is a container that systemd runs, with the built packages. Traefik serves the app
``web`` from the keys in etcd; HAProxy serves ``api`` as the agent of the package tells it. Each machine has an instance
of both, run by the runtime ``systemd``.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

from outrider.balancers.entry import ensure_static
from outrider.balancers.traefik import TraefikKeys, TraefikSettings
from outrider.demo.example import build_package
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster, DeletePrefix, Put
from outrider.model.balancer_agents import ServerEntry
from outrider.model.documents import Block, Presence, decode
from outrider.model.keys import Keys
from tests.partitions.containers import Network
from tests.scenarios.apps import APPS, CHANNEL, GROUP, HOST, WEB, App, configuration
from tests.scenarios.balancers import TRAEFIK_CHECKS, copy_programs, set_up
from tests.scenarios.etcd import EtcdCluster
from tests.scenarios.image import Images, installed_images
from tests.scenarios.machine import HERE, PROGRAMS, WITHIN_S, Machine
from tests.support.systemd_machine import BOOT, BOOT_ID
from tests.support.waiting import eventually

SERVICE, BALANCERS, FIRST_MACHINE = 21, 31, 41
"""Host numbers on the network."""
SMALL_DISK = "m3"
"""The machine whose disk is small enough to be filled, and lost when it is switched off."""
SMALL_DISK_MB = 200
HEALTHY: Mapping[str, int | None] = {"good": None, "bad": 0}
"""Kinds of releases, and how many healthy answers one gives."""


class Site:
    """All of it. ``stop`` removes everything."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys = folder, Keys()
        self.etcd: EtcdCluster
        self.machines: dict[str, Machine] = {}
        self.service: Machine
        self.balancers: Machine
        self.cluster: Cluster
        self.network: Network
        self.version, self._serial, self._numbers = "", 0, FIRST_MACHINE
        self._images: Images

    # -- what it consists of

    def start(self) -> "Site":
        """Start everything; return when each instance serves the first version."""
        self._images = installed_images()
        self.shared.mkdir(parents=True)
        self.network = Network()
        self.etcd = EtcdCluster(self.folder, self.network)
        self.cluster = connect(self.etcd.address)
        self._start_service()
        self._start_balancers()
        for app in APPS:
            self.outrider(f"app create --app-id={app.name} --label={app.name}")
        self.release("good")
        for app in APPS:
            where = f"--app-id={app.name} --channel={CHANNEL} --group-id={GROUP}"
            self.outrider(f"group create {where} --label=Production --slots=1")
        for _ in range(3):
            self.add_machine()
        self.await_rest(self.version)
        for app in APPS:
            eventually(lambda app=app: self.serves(app), WITHIN_S, every_s=0.2)  # type: ignore[misc]
        return self

    def stop(self) -> None:
        """End and remove everything; safe to call when ``start`` failed half-way."""
        try:
            if hasattr(self, "cluster"):
                self.cluster.close()
        finally:
            if hasattr(self, "network"):
                self.network.remove()
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def shared(self) -> Path:
        return self.folder / "shared"

    @property
    def service_url(self) -> str:
        return f"http://{self.network.address(SERVICE)}:8000"

    def web_url(self, app: App) -> str:
        """Where its balancer serves the app."""
        return f"http://{self.balancers.address}:{app.port}/"

    def instance(self, app: App, machine: str) -> str:
        """The app's instance on a machine."""
        return f"{app.name}-{machine}"

    def instances(self, app: App) -> tuple[str, ...]:
        return tuple(self.instance(app, machine) for machine in self.machines)

    # -- what a person types

    def outrider(self, line: str) -> str:
        """A command of root on the service's machine."""
        return self.service.run(f"outrider {line}")

    def release(self, kind: str) -> str:
        """Upload the next version of both apps and point their channels at it."""
        self._serial += 1
        version = f"1.{self._serial}.0"
        path = build_package(self.shared, version, healthy_answers=HEALTHY[kind])
        for app in APPS:
            self.outrider(f"package create --app-id={app.name} --version={version} --file={HERE}/{path.name}")
            self.point_at(app, version)
        if kind == "good":
            self.version = version
        return version

    def point_at(self, app: App, version: str) -> None:
        """Roll out a version that is there."""
        self.outrider(f"channel update --app-id={app.name} --channel={CHANNEL} --version={version}")

    def add_machine(self) -> Machine:
        """Start one more machine, with an instance of each app."""
        number, self._numbers = self._numbers, self._numbers + 1
        name = f"m{number - FIRST_MACHINE + 1}"
        machine = self._machine(name, number, self._images.machine, small_disk=name == SMALL_DISK)
        self.machines[name] = machine
        # else ProtectKernelTunables= shows the kernel's own id of the boot, which no start of a container changes
        machine.write(
            "/etc/systemd/system/outrider-sidekick@.service.d/boot.conf",
            f"[Service]\nBindReadOnlyPaths={BOOT_ID}:/proc/sys/kernel/random/boot_id\n",
        )
        for app in APPS:
            text = configuration(
                app,
                host=machine.address,
                endpoints=self.etcd.endpoints,
                service_url=self.service_url,
                traefik_url=f"http://{self.balancers.address}:8080",
            )
            machine.write(f"/etc/outrider/instances/{self.instance(app, name)}.toml", text)
        units = " ".join(
            f"outrider-{kind}@{self.instance(app, name)}.service" for app in APPS for kind in ("sidekick", "shutdown")
        )
        machine.run("chgrp -R outrider /etc/outrider/instances; systemctl daemon-reload")
        machine.run(f"systemctl add-wants multi-user.target {units}; systemctl start {units}")
        return machine

    # -- where it is

    def presences(self, app: App) -> dict[str, Presence]:
        """Every sidekick's live state, by instance."""
        listing = self.cluster.list(self.keys.presences(app.name))
        found = (decode(Presence, entry.key, entry.value) for entry in listing.entries)
        return {one.instance: one for one in found}

    def presence(self, app: App, machine: str) -> Presence | None:
        return self.presences(app).get(self.instance(app, machine))

    def blocked(self, app: App) -> list[str]:
        """Versions that are blocked."""
        listing = self.cluster.list(self.keys.blocks(app.name))
        return [decode(Block, entry.key, entry.value).version for entry in listing.entries]

    def at_rest(self, app: App, version: str) -> bool:
        """Whether all its instances run ``version`` and have nothing to do, and no turn is taken."""
        found = self.presences(app)
        resting = {name for name, one in found.items() if (one.version, one.state) == (version, "idle.waiting")}
        return resting == set(self.instances(app)) and not self.cluster.list(self.keys.turns(app.scope)).entries

    def await_rest(self, version: str, *, apps: tuple[App, ...] = APPS) -> None:
        """Return when every app is at rest on a version.

        Raises:
            AssertionError: who is where, when it doesn't come to that.
        """
        try:
            eventually(lambda: all(self.at_rest(app, version) for app in apps), WITHIN_S, every_s=0.2)
        except AssertionError:
            found = [one for app in apps for one in self.presences(app).values()]
            told = "; ".join(f"{one.instance} {one.state} {one.version} ({one.why})" for one in found)
            turns = [entry.key for app in apps for entry in self.cluster.list(self.keys.turns(app.scope)).entries]
            raise AssertionError(f"not all at rest on {version} after {WITHIN_S:g} s: {told}; turns: {turns}") from None

    def await_swap(self, app: App, machine: str) -> str:
        """Return the state in which an instance is in the middle of a swap, as soon as it is."""

        def swapping() -> str | None:
            found = self.presence(app, machine)
            return found.state if found is not None and is_in_a_swap(found.state) else None

        return str(eventually(swapping, WITHIN_S, every_s=0.02))

    def serves(self, app: App) -> bool:
        """Whether a request through the balancer is answered."""
        try:
            return requests.get(self.web_url(app), headers={"Host": HOST}, timeout=5.0).status_code == 200
        except requests.RequestException:
            return False

    def entry(self, app: App, instance: str) -> str | None:
        """The instance's address in the keys that its balancer goes by."""
        if app is WEB:
            found = self.cluster.get(f"traefik/http/services/{app.name}/loadbalancer/servers/{instance}/url")
            return found.value.decode() if found is not None else None
        key = self.keys.server_entry(app.name, instance)
        found = self.cluster.get(key)
        return decode(ServerEntry, key, found.value).url if found is not None else None

    @contextmanager
    def health_checks(self) -> Iterator[None]:
        """Let Traefik check the servers of ``web`` meanwhile.

        One check that takes more than a second takes a server out: on a machine with much other work that would happen
        to all of them at once, so they are checked only where one is about to be lost.
        """
        prefix = f"traefik/http/services/{WEB.name}/loadbalancer/healthcheck/"
        checks = (Put(key=f"{prefix}{name}", value=text.encode()) for name, text in TRAEFIK_CHECKS.items())
        self.cluster.txn((), tuple(checks))
        try:
            yield
        finally:
            self.cluster.txn((), (DeletePrefix(prefix=prefix),))

    def told(self) -> str:
        """The last lines of all journals, for a person."""
        lines = []
        for machine in (*self.machines.values(), self.service, self.balancers):
            if machine.container.ended() is None:
                lines.append(f"--- {machine.name}")
                lines.append(machine.try_to_run("journalctl --no-pager --lines=400 --output=short-precise"))
        return "\n".join(lines)

    # -- how it is made

    def _start_service(self) -> None:
        self.service = self._machine("service", SERVICE, self._images.service)
        listen = self.service_url.removeprefix("http://")
        settings = f"OUTRIDER_ETCD={','.join(self.etcd.endpoints)}\nOUTRIDER_SERVE_LISTEN={listen}\n"
        self.service.write("/etc/outrider/serve.env", settings)
        self.service.run("systemctl add-wants multi-user.target outrider-serve; systemctl start outrider-serve")

    def _start_balancers(self) -> None:
        keys = TraefikKeys(TraefikSettings(rule=f"Host(`{HOST}`)"), service=WEB.name)
        ensure_static(self.cluster, keys)
        programs = self.folder / "programs"
        commands = copy_programs(programs)
        self.balancers = self._machine("balancers", BALANCERS, self._images.machine, programs=programs)
        set_up(self.balancers, commands, self.etcd.endpoints)

    def _machine(
        self, name: str, number: int, image: str, *, programs: Path | None = None, small_disk: bool = False
    ) -> Machine:
        binds = {
            "/sys/fs/cgroup": {"bind": "/sys/fs/cgroup", "mode": "rw"},
            str(self.shared): {"bind": HERE, "mode": "ro"},
        }
        if programs is not None:
            binds[str(programs)] = {"bind": PROGRAMS, "mode": "ro"}
        tmpfs = {"/run": "", "/run/lock": ""}
        if small_disk:
            tmpfs["/var/lib/outrider"] = f"size={SMALL_DISK_MB}m,mode=755,exec"
        container = self.network.add_of_image(
            name,
            number,
            image,
            ["/bin/sh", "-c", BOOT],
            host_config={
                "binds": binds,
                "tmpfs": tmpfs,
                "cap_add": ["SYS_ADMIN", "SYS_PTRACE"],
                "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
                "cgroupns": "host",
            },
        )
        machine = Machine(container, self.shared)
        machine.await_up()
        return machine


def is_in_a_swap(state: str) -> bool:
    """Whether it holds a turn, and has begun."""
    return state.startswith("swapping.") and state != "swapping.queueing"
