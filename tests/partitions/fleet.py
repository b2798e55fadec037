"""The apps of one run: for each place an app of its own, with one instance that is cut and one that is a bystander."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from outrider.demo.example import build_package
from outrider.demo.fleet import GROUP, SERVICE
from outrider.etcd.seam import Entry
from outrider.journal.journal import Record, read
from outrider.model.documents import Instance, decode
from outrider.model.keys import group_scope
from tests.live.live_fixture import HEALTHY_ANSWERS
from tests.partitions.cut_points import CutPoint
from tests.partitions.world import World
from tests.support.waiting import eventually

BYSTANDERS = "m3"
CHANNEL = "stable"
FIRST_PORT = 9000
FIRST_VERSION = "1.0.0"
WITHIN_S = 90.0
AT_REST = ("idle.waiting", "idle.deferred")

SETTINGS: Mapping[str, Mapping[str, object]] = {
    "etcd": {"timeout_s": 1.5},
    "lock": {"ttl_s": 5.0},
    "probe": {"interval_s": 0.2, "timeout_s": 1.0, "successes": 3, "failures": 2, "deadline_s": 6.0},
    "drain": {"wait_s": 0.5, "confirm_timeout_s": 5.0, "max_s": 60.0, "inflight_path": "/inflight"},
    # long enough for two failed probes on a busy machine: a machine off the network must not pass it
    "soak": {"duration_s": 3.0},
    "workload": {"stop_grace_s": 3.0},
    # the machines' network is a bridge of this one's: what proves an instance may be sent over plain http
    "service": {"timeout_s": 2.0, "retry_min_s": 0.5, "retry_max_s": 3.0, "allow_plain_identity": True},
    "download": {"timeout_s": 1.0, "deadline_s": 5.0},
}
"""In the demo's haste, with deadlines that a cut of some seconds passes."""


ANALYSIS = """
[analysis]
interval_s = 0.5
duration_s = 1
deadline_s = 20

[[analysis.checks]]
name = "up"
kind = "command"
command = ["true"]

"""
"""Asks nothing of the network, so that what is cut is all that is away."""


@dataclass(frozen=True)
class App:
    """An app with two instances: ``cut`` on the machine that is cut off, ``other`` on one that isn't."""

    cut_point: CutPoint
    machine: str

    @property
    def name(self) -> str:
        return f"{self.cut_point.name}-{self.machine}"

    @property
    def cut(self) -> str:
        return self.name

    @property
    def other(self) -> str:
        return f"{self.name}-other"

    @property
    def instances(self) -> tuple[tuple[str, str], ...]:
        """Names of the instances, with their machines."""
        return (self.cut, self.machine), (self.other, BYSTANDERS)

    @property
    def scope(self) -> str:
        return group_scope(self.name, GROUP)


class Fleet:
    """What a test does to the apps, and what it sees of them."""

    def __init__(self, world: World, apps: Sequence[App]) -> None:
        """``bring_up`` starts them."""
        self.world, self.apps = world, tuple(apps)
        self._machine_of = {name: machine for app in apps for name, machine in app.instances}

    def bring_up(self) -> None:
        """Create the apps, start the sidekicks, and wait until everybody serves the first version."""
        for app in self.apps:
            self.world.operator.post("apps", body={"id": app.name, "label": app.name})
            self.publish(app, FIRST_VERSION)
            group = {"id": GROUP, "channel": CHANNEL, "label": GROUP, "slots": 1}
            self.world.operator.post("apps", app.name, "groups", body=group)
            for name, machine in app.instances:
                config = self.file(name, "toml")
                config.with_suffix(".unfinished").write_text(self._config(app, name, machine))
                config.with_suffix(".unfinished").rename(config)
        eventually(lambda: all(self.at_rest(name, FIRST_VERSION) for name in self._machine_of), WITHIN_S, every_s=0.2)

    def publish(self, app: App, version: str, *, release: str = "good", from_elsewhere: bool = False) -> None:
        """Make a package and point the app's channel at it; ``from_elsewhere``: the payload server has it."""
        package = build_package(self.world.payload_folder, version, healthy_answers=HEALTHY_ANSWERS[release])
        named = package.rename(package.with_name(f"{release}-{package.name}"))
        operator, body = self.world.operator, {"version": version}
        if from_elsewhere:
            content = named.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            where = {"url": f"{self.world.payload_url}/{named.name}", "size_bytes": len(content), "sha256": digest}
            operator.post("apps", app.name, "packages", body=body | where)
        else:
            with named.open("rb") as file:
                stored = operator.upload(file)["sha256"]
            operator.post("apps", app.name, "packages", body=body | {"stored": stored, "name": named.name})
        operator.put("apps", app.name, "channels", CHANNEL, body=body)

    def pause(self, app: App, paused: bool) -> None:
        """Pause or resume the app's group."""
        self.world.operator.patch("apps", app.name, "groups", GROUP, body={"paused": paused})

    def roll_back(self, instance: str) -> None:
        """An operator's word to one instance."""
        app = next(app for app in self.apps if instance in (app.cut, app.other))
        self.world.operator.post("apps", app.name, "instances", instance, "command", body={"verb": "rollback"})

    def file(self, instance: str, suffix: str) -> Path:
        """A file between the test and a sidekick, see ``machine.py`` and ``held_sidekick.py``."""
        return self.world.machine_folder(self._machine_of[instance]) / f"{instance}.{suffix}"

    def hold(self, instance: str, state: str) -> None:
        """Let the sidekick stand still when it comes to ``state``; lets it go from where it stands now."""
        self._tell(instance, "hold", state)

    def _tell(self, instance: str, suffix: str, text: str) -> None:
        """Write a file so that nobody reads half of it."""
        request = self.file(instance, suffix)
        request.with_suffix(".request").write_text(text)
        request.with_suffix(".request").rename(request)

    def let_go(self, instance: str) -> None:
        self.file(instance, "hold").unlink(missing_ok=True)

    def await_held(self, instance: str, state: str) -> None:
        """Return when the sidekick stands at ``state``."""

        def there() -> bool:
            self.complain_of_ends()
            try:
                return self.file(instance, "held").read_text() == state
            except FileNotFoundError:  # not yet, or it has just gone on
                return False

        try:
            eventually(there, WITHIN_S, every_s=0.05)
        except AssertionError as error:
            raise AssertionError(f"{instance} never came to {state}: it is in {self.last(instance).target}") from error

    def kill(self, instance: str, then_hold: str) -> None:
        """SIGKILL the sidekick, which is then started again, to stand still when it comes to ``then_hold``."""
        self._tell(instance, "kill", then_hold)

    def complain_of_ends(self) -> None:
        """Fail when a sidekick has ended: none may, whatever is cut."""
        for name in self._machine_of:
            ended = self.file(name, "ended")
            if ended.exists():
                log = self.file(name, "log").read_text(errors="replace")
                raise RuntimeError(f"{name} ended with {ended.read_text()}: {log[-3000:]}")

    def state_dir(self, instance: str) -> Path:
        return self.world.machine_folder(self._machine_of[instance]) / "state" / instance

    def records(self, instance: str, since: int = 0) -> list[Record]:
        """The journal's records after number ``since``."""
        folder = self.state_dir(instance)
        older = folder / "journal.1.jsonl"
        records = (read(older) if older.exists() else []) + read(folder / "journal.jsonl")
        return list({record.number: record for record in records if record.number > since}.values())

    def last(self, instance: str) -> Record:
        """The newest record of the journal: read here, whatever is cut."""
        path = self.state_dir(instance) / "journal.jsonl"
        if not path.exists():
            raise AssertionError(f"{instance} has no journal yet")
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 200_000))
            lines = file.read().split(b"\n")
        assert len(lines) > 1, f"{path} is empty"
        return msgspec.json.decode(lines[-2].partition(b" ")[2], type=Record)

    def version(self, instance: str) -> str:
        """What the instance runs, by its journal."""
        running = self.last(instance).memory["running"]
        return str(running["release"]["version"]) if running else "0.0.0"

    def at_rest(self, instance: str, version: str) -> bool:
        """Whether it runs ``version`` and has nothing to do."""
        self.complain_of_ends()
        return self.last(instance).target in AT_REST and self.version(instance) == version

    def seen(self, machine: str) -> dict[str, list[str]]:
        """Versions of the processes that run on ``machine``, by instance."""
        look = self.world.machine_folder(machine) / "look"
        look.touch()
        eventually(lambda: not look.exists(), 30.0, every_s=0.02)
        seen: dict[str, list[str]] = json.loads((look.parent / "seen.json").read_text())
        return seen

    def entry(self, instance: str) -> str | None:
        """The instance's address in the balancer's keys."""
        found = self.world.cluster.get(f"traefik/http/services/{SERVICE}/loadbalancer/servers/{instance}/url")
        return found.value.decode() if found is not None else None

    def turns(self, app: App) -> tuple[Entry, ...]:
        """All keys of the app's queue and slots."""
        return self.world.cluster.list(self.world.keys.turns(app.scope)).entries

    def reports(self, instance: str) -> int:
        """How many reports wait in the outbox."""
        return len(list((self.state_dir(instance) / "outbox").glob("*.json")))

    def row(self, app: App, instance: str) -> Instance | None:
        """The instance as the update service knows it."""
        key = self.world.keys.instance(app.name, instance)
        entry = self.world.cluster.get(key)
        return decode(Instance, key, entry.value) if entry is not None else None

    def _config(self, app: App, name: str, machine: str) -> str:
        cut_point, container = app.cut_point, self.world.machines[machine]
        sections: dict[str, dict[str, object]] = {
            "instance": {
                "id": name,
                "app": app.name,
                "group": GROUP,
                "strategy": cut_point.strategy,
                "state_dir": str(self.state_dir(name)),
            },
            "etcd": {"endpoints": self.world.endpoints},
            "service": {"urls": [self.world.service_url]},
            "process": {"command": [sys.executable, "server.py"]},
            "workload": {"host": container.address},
            "balancer": {"service": SERVICE},
            "traefik": {"api_urls": [self.world.api_url], "throttle_s": 0.1},
        }
        if cut_point.strategy == "stop-first":
            sections["process"]["ports"] = str(FIRST_PORT + self.apps.index(app))
        for section, values in SETTINGS.items():
            sections[section] = {**sections.get(section, {}), **values}
        analysis = ANALYSIS if cut_point.state == "swapping.analysing" else ""
        # what JSON writes of texts, numbers, truths and lists of them is TOML as well
        return analysis + "\n".join(
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
            for section, values in sections.items()
        )
