"""``outrider adopt`` against real containers, units and processes: the same promises for all three."""

import contextlib
import queue
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from outrider.balancers.traefik import TraefikSettings
from outrider.config.sections import BalancerSettings, InstanceSettings, ProbeSettings, Settings, WorkloadSettings
from outrider.core.errors import ConfigError, DriverError
from outrider.core.sidekick.memory import Strategy
from outrider.demo.programs import free_ports
from outrider.etcd.seam import Put
from outrider.journal.journal import Journal, JournalError
from outrider.runtimes import Exited, Runtime
from outrider.runtimes.adopted import NAME, read_record
from outrider.runtimes.adopted.runtime import AdoptedRuntime, with_adopted
from outrider.runtimes.docker import DockerSettings
from outrider.runtimes.process import ProcessSettings
from outrider.runtimes.process.identity import look_at
from outrider.runtimes.process.runtime import ProcessRuntime
from outrider.runtimes.systemd import SystemdSettings
from outrider.sidekick.adopt import Adoption, Plan
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support import docker_images
from tests.support.containers import docker_client
from tests.support.systemd_machine import SystemdMachine, systemd_machine
from tests.support.waiting import eventually

UNIT = "example-adopted.service"
SERVERS = "traefik/http/services/example/loadBalancer/servers"
POOL = "traefik/http/services/example/"
_SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


class Kit(Protocol):
    """One kind of workload that something else started.

    Attributes:
        kind: As ``outrider adopt`` has it.
        name: What it is adopted by.
        url: Where it answers.
        restarts: Whether it can be started again.
        told: What must be said of it: nothing tells its version, or its address.
    """

    kind: str
    name: str
    url: str
    restarts: bool
    told: dict[str, str]

    def start(self) -> None:
        """Start it by its own means."""

    def comes_back(self) -> bool:
        """Whether something would start it again, at boot or when Docker starts."""

    def kill(self) -> None:
        """End it behind the sidekick's back."""

    def clean(self) -> None:
        """Remove it."""


class ContainerKit:
    kind, restarts = "container", True

    def __init__(self, folder: Path, **options: Any) -> None:
        self.name = f"outrider-adopt-{folder.name[:40]}"
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.told: dict[str, str] = {}
        self._options = {"restart_policy": {"Name": "always"}, **options}
        self._port = port

    def start(self) -> None:
        image = docker_images.build("1.0.0")
        client = docker_client()
        client.images.get(image).tag("outrider-adopt/app", "1.0.0")
        client.containers.run(
            "outrider-adopt/app:1.0.0",
            detach=True,
            name=self.name,
            environment={"HOST": "0.0.0.0", "PORT": "8080"},
            ports={"8080/tcp": ("127.0.0.1", self._port)},
            **self._options,
        )

    def container(self) -> Any:
        return docker_client().containers.get(self.name)

    def comes_back(self) -> bool:
        return bool(self.container().attrs["HostConfig"]["RestartPolicy"]["Name"] == "always")

    def kill(self) -> None:
        self.container().stop(timeout=5)

    def clean(self) -> None:
        import docker.errors

        with contextlib.suppress(docker.errors.APIError):
            self.container().remove(force=True, v=True)
        with contextlib.suppress(docker.errors.APIError):
            docker_client().images.remove("outrider-adopt/app:1.0.0")


class UnitKit:
    kind, name, restarts = "unit", UNIT, True

    def __init__(self, folder: Path, machine: SystemdMachine) -> None:
        self._machine = machine
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        # the machine is a container here: its pids are others, and say nothing of ports
        self.told = {"version": "1.0.0", "url": self.url}
        self._port = port

    def start(self) -> None:
        self._machine.write("/opt/adopted.py", _SERVER)
        self._machine.write(
            f"/etc/systemd/system/{UNIT}",
            f"[Service]\nExecStart=/usr/bin/python3 /opt/adopted.py {self._port}\nRestart=always\nRestartSec=1\n"
            "[Install]\nWantedBy=multi-user.target\n",
        )
        self._machine.run("systemctl", "daemon-reload")
        self._machine.run("systemctl", "enable", "--now", UNIT)

    def comes_back(self) -> bool:
        return self._machine.run("systemctl", "is-enabled", UNIT, check=False).strip() == "enabled"

    def kill(self) -> None:
        self._machine.run("systemctl", "stop", UNIT)

    def clean(self) -> None:
        self._machine.run("systemctl", "disable", "--now", UNIT, check=False)
        self._machine.run("rm", "-f", f"/etc/systemd/system/{UNIT}")
        self._machine.run("systemctl", "daemon-reload")


class PidFileKit:
    kind, restarts = "pid-file", False

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "example.pid"
        self.name = str(self._path)
        (self._port,) = free_ports(1)
        self.url, self.told = f"http://127.0.0.1:{self._port}", {"version": "1.0.0"}
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", _SERVER, str(self._port)], start_new_session=True)
        self._children.append(child)
        self._path.write_text(f"{child.pid}\n")

    def comes_back(self) -> bool:
        return False

    def kill(self) -> None:
        self._children[-1].kill()
        self._children[-1].wait()

    def clean(self) -> None:
        for child in self._children:
            child.kill()
            child.wait()


@pytest.fixture(params=["container", "unit", "pid-file"])
def kit(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    """A workload that runs and answers."""
    kit: Kit
    match request.param:
        case "container":
            kit = ContainerKit(tmp_path)
        case "unit":
            machine = systemd_machine(tmp_path)
            machine.use(monkeypatch)
            kit = UnitKit(tmp_path, machine)
        case _:
            kit = PidFileKit(tmp_path)
    try:
        kit.start()
        eventually(lambda: answers(kit.url))
        yield kit
    finally:
        kit.clean()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeEtcd().client()


def settings(folder: Path, strategy: Strategy = "start-first", **probe: Any) -> Settings:
    return Settings(
        instance=InstanceSettings(
            id="web-a", app="hello", group="g", state_dir=folder / "state", strategy=strategy, balancer="traefik"
        ),
        balancer=BalancerSettings(service="example", server_id="web-a"),
        probe=ProbeSettings(path="/health", interval_s=0.1, timeout_s=2.0, **probe),
        workload=WorkloadSettings(stop_grace_s=5.0, start_timeout_s=30.0),
        drivers={
            "docker": DockerSettings(),
            "systemd": SystemdSettings(poll_interval_s=0.1),
            "process": ProcessSettings(command=("true",)),
            "traefik": TraefikSettings(),
        },
    )


def adopt(kit: Kit, folder: Path, cluster: FakeCluster) -> Plan:
    adoption = Adoption(settings(folder), {}, cluster=cluster)
    plan = adoption.plan(kit.kind, kit.name, **kit.told)
    adoption.carry_out(plan)
    return plan


def runtime(folder: Path) -> Runtime:
    """As a sidekick has it."""
    own = settings(folder)
    inner = ProcessRuntime(
        ProcessSettings(command=("true",)), own.workload, state_dir=own.instance.state_dir, instance="web-a"
    )
    return with_adopted(inner, own, {})


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def test_it_is_found_checked_and_shown_and_a_look_changes_nothing(
    kit: Kit, tmp_path: Path, cluster: FakeCluster
) -> None:
    cluster.txn((), (Put(key=f"{SERVERS}/0/url", value=kit.url.encode()),))
    before = [(entry.key, entry.mod_revision) for entry in cluster.list("").entries]

    plan = Adoption(settings(tmp_path), {}, cluster=cluster).plan(kit.kind, kit.name, **kit.told)

    assert ("1.0.0", kit.url) == (plan.record.version, plan.record.url)
    assert "server 0 of service example becomes web-a" == plan.entry_words
    assert kit.restarts is not bool(plan.record.no_restart)
    assert not (tmp_path / "state").exists()
    assert before == [(entry.key, entry.mod_revision) for entry in cluster.list("").entries]


def test_what_was_adopted_runs_on_as_the_sidekicks_own_and_its_entry_too(
    kit: Kit, tmp_path: Path, cluster: FakeCluster
) -> None:
    cluster.txn((), (Put(key=f"{SERVERS}/0/url", value=kit.url.encode()),))

    plan = adopt(kit, tmp_path, cluster)

    assert [f"{SERVERS.lower()}/web-a/url"] == [entry.key for entry in cluster.list(POOL).entries]
    found = runtime(tmp_path)
    with contextlib.closing(found):
        (workload,) = found.running()
        assert (plan.record.workload_id, "1.0.0", kit.url) == (workload.workload_id, workload.version, workload.url)
        assert workload == found.find(plan.record.workload_id)
    assert answers(kit.url), "closing changes nothing"
    assert kit.comes_back() is (kit.kind != "pid-file"), "as before, until it is replaced"
    # typed again after an interruption
    assert plan.record == adopt(kit, tmp_path, cluster).record


def test_it_is_stopped_by_its_own_means_and_does_not_come_back(kit: Kit, tmp_path: Path, cluster: FakeCluster) -> None:
    plan = adopt(kit, tmp_path, cluster)
    found = runtime(tmp_path)
    with contextlib.closing(found):
        ended: queue.Queue[Exited] = queue.Queue()
        watch = found.watch(plan.record.workload_id, ended.put)

        found.stop(plan.record.workload_id, 5.0)
        assert not answers(kit.url)
        assert plan.record.workload_id == ended.get(timeout=60).workload_id
        watch.close()
        assert not kit.comes_back()
        assert () == found.running()
        found.stop(plan.record.workload_id, 5.0)  # stopped already

        found.remove(plan.record.workload_id)
        found.remove(plan.record.workload_id)

    assert read_record(tmp_path / "state") is None
    if isinstance(kit, ContainerKit):
        assert "exited" == kit.container().status, "it isn't ours to remove"


def test_a_rollback_starts_it_again_where_that_can_be(kit: Kit, tmp_path: Path, cluster: FakeCluster) -> None:
    plan = adopt(kit, tmp_path, cluster)
    found = runtime(tmp_path)
    assert isinstance(found, AdoptedRuntime)
    with contextlib.closing(found):
        found.stop(plan.record.workload_id, 5.0)
        if not kit.restarts:
            with pytest.raises(DriverError, match="does not run, and outrider can't start it again: only what started"):
                found.restart(plan.record.workload_id)
            return

        workload = found.restart(plan.record.workload_id)

        assert workload is not None
        assert kit.url == workload.url
        eventually(lambda: answers(kit.url))
        assert kit.comes_back(), "as it was"
        assert found.restart("another") is None


def test_an_end_behind_its_back_is_seen(kit: Kit, tmp_path: Path, cluster: FakeCluster) -> None:
    plan = adopt(kit, tmp_path, cluster)
    found = runtime(tmp_path)
    with contextlib.closing(found):
        ended: queue.Queue[Exited] = queue.Queue()
        found.watch(plan.record.workload_id, ended.put)

        kit.kill()

        assert plan.record.workload_id == ended.get(timeout=60).workload_id
        assert found.find(plan.record.workload_id) is None


def test_what_does_not_answer_well_is_refused(kit: Kit, tmp_path: Path, cluster: FakeCluster) -> None:
    own = settings(tmp_path)
    sick = Settings(
        instance=own.instance,
        balancer=own.balancer,
        probe=ProbeSettings(path="/nothing", interval_s=0.1),
        drivers=own.drivers,
    )

    with pytest.raises(ConfigError, match=r"health check fails at .* \(/nothing\): 404; check probe.path"):
        Adoption(sick, {}, cluster=cluster).plan(kit.kind, kit.name, **kit.told)

    assert not (tmp_path / "state").exists()


def test_stop_first_needs_one_that_can_be_started_again(kit: Kit, tmp_path: Path, cluster: FakeCluster) -> None:
    adoption = Adoption(settings(tmp_path, "stop-first"), {}, cluster=cluster)
    if kit.restarts:
        adoption.plan(kit.kind, kit.name, **kit.told)
        return
    with pytest.raises(
        ConfigError, match=r"a rollback could not start it again: .*; set instance.strategy to start-fi"
    ):
        adoption.plan(kit.kind, kit.name, **kit.told)


def test_a_sidekick_that_runs_or_has_a_version_keeps_others_out(kit: Kit, tmp_path: Path, cluster: FakeCluster) -> None:
    adoption = Adoption(settings(tmp_path), {}, cluster=cluster)
    plan = adoption.plan(kit.kind, kit.name, **kit.told)
    journal = Journal(tmp_path / "state")
    try:
        with pytest.raises(JournalError, match="another sidekick runs with this state_dir"):
            adoption.carry_out(plan)
        with pytest.raises(JournalError, match="another sidekick runs with this state_dir"):
            adoption.plan(kit.kind, kit.name, **kit.told)
    finally:
        journal.close()

    assert not (tmp_path / "state" / NAME).exists()


class TestContainers:
    @pytest.fixture
    def docker(self, tmp_path: Path) -> Iterator[list[ContainerKit]]:
        kits: list[ContainerKit] = []
        yield kits
        for kit in kits:
            kit.clean()

    def test_one_that_docker_removes_can_not_be_started_again(
        self, docker: list[ContainerKit], tmp_path: Path, cluster: FakeCluster
    ) -> None:
        kit = ContainerKit(tmp_path, restart_policy=None, auto_remove=True)
        docker.append(kit)
        kit.start()
        eventually(lambda: answers(kit.url))

        plan = adopt(kit, tmp_path, cluster)
        found = runtime(tmp_path)
        with contextlib.closing(found):
            found.remove(plan.record.workload_id)

        assert "started with --rm" in plan.record.no_restart
        assert read_record(tmp_path / "state") is None

    def test_ambiguous_names_ports_and_entries_are_refused_in_a_line(
        self, docker: list[ContainerKit], tmp_path: Path, cluster: FakeCluster
    ) -> None:
        ports = free_ports(2)
        published = {"8080/tcp": [("127.0.0.1", port) for port in ports]}
        kit = ContainerKit(tmp_path, restart_policy=None)
        docker.append(kit)
        kit._options["ports"] = published
        image = docker_images.build("1.0.0")
        docker_client().images.get(image).tag("outrider-adopt/app", "1.0.0")
        docker_client().containers.run(
            "outrider-adopt/app:1.0.0",
            detach=True,
            name=kit.name,
            environment={"HOST": "0.0.0.0", "PORT": "8080"},
            ports=published,
        )
        adoption = Adoption(settings(tmp_path), {}, cluster=cluster)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        eventually(lambda: answers(urls[0]))

        with pytest.raises(ConfigError, match=r"answers at http://.*, http://.*: say which with --url"):
            adoption.plan("container", kit.name)
        assert urls[1] == adoption.plan("container", kit.name, url=urls[1]).record.url
        cluster.txn((), tuple(Put(key=f"{SERVERS}/{name}/url", value=urls[1].encode()) for name in "01"))
        with pytest.raises(DriverError, match="several servers have the address"):
            adoption.plan("container", kit.name, url=urls[1])
        with pytest.raises(ConfigError, match="has none of this name or id"):
            adoption.plan("container", "outrider-adopt-nobody")
        kit.kill()
        with pytest.raises(ConfigError, match=r"does not run \(exited\); start it"):
            adoption.plan("container", kit.name)


class TestUnits:
    @pytest.fixture
    def machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemdMachine]:
        found = systemd_machine(tmp_path)
        found.use(monkeypatch)
        yield found
        for name in ("example-a.service", "example-b.service", "example-b.socket"):
            found.run("systemctl", "stop", name, check=False)
            found.run("rm", "-f", f"/etc/systemd/system/{name}")
        found.run("systemctl", "daemon-reload")

    def test_patterns_transient_units_and_those_that_a_socket_starts(
        self, machine: SystemdMachine, tmp_path: Path, cluster: FakeCluster
    ) -> None:
        (port,) = free_ports(1)
        for name in ("example-a", "example-b"):
            machine.write(f"/etc/systemd/system/{name}.service", "[Service]\nExecStart=/bin/sleep 1000\n")
        machine.write("/etc/systemd/system/example-b.socket", f"[Socket]\nListenStream=127.0.0.1:{port}\n")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", "example-b.socket")
        machine.run("systemctl", "start", "example-a", "example-b")
        adoption = Adoption(settings(tmp_path, kind="command", command=("true",)), {}, cluster=cluster)
        told = {"version": "1.0.0", "url": f"http://127.0.0.1:{port}"}

        with pytest.raises(ConfigError, match=r"example-a.service, example-b.service run: name one of them"):
            adoption.plan("unit", "example-*", **told)
        assert "example-a.service" == adoption.plan("unit", "example-a*", **told).record.id
        with pytest.raises(ConfigError, match=r"example-b\.socket would start it again"):
            adoption.plan("unit", "example-b", **told)
        with pytest.raises(ConfigError, match="systemd knows none of this name"):
            adoption.plan("unit", "example-c", **told)
        with pytest.raises(ConfigError, match="nothing tells its version"):
            adoption.plan("unit", "example-a", url=told["url"])
        machine.run("systemd-run", "--unit=example-t", "/bin/sleep", "1000")
        assert "transient unit" in adoption.plan("unit", "example-t", **told).record.no_restart
        machine.run("systemctl", "stop", "example-t")


class TestPidFiles:
    def test_all_of_its_session_ends_and_what_is_not_its_own_stays(self, tmp_path: Path, cluster: FakeCluster) -> None:
        """The app started a helper of its own; the shell that it was typed in goes on."""
        (port,) = free_ports(1)
        pid_file, helper_file = tmp_path / "example.pid", tmp_path / "helper.pid"
        helped = f"open({str(helper_file)!r}, 'w').write(str(helper.pid))"
        program = f"import subprocess\nhelper = subprocess.Popen(['sleep', '1000'])\n{helped}\n{_SERVER}"
        (tmp_path / "app.py").write_text(program)
        # without job control: the app shares the shell's group and session
        shell = subprocess.Popen(
            ["sh", "-c", f"{sys.executable} {tmp_path}/app.py {port} & echo $! > {pid_file}; exec sleep 1000"],
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: answers(url))
            adoption = Adoption(settings(tmp_path), {}, cluster=cluster)
            plan = adoption.plan("pid-file", str(pid_file), version="1.0.0")
            assert url == plan.record.url, "the one port that it listens on"
            adoption.carry_out(plan)
            helper = int(helper_file.read_text())

            found = runtime(tmp_path)
            with contextlib.closing(found):
                found.stop(plan.record.workload_id, 5.0)

            assert not answers(url)
            left = look_at(helper)
            assert left is None or left.zombie
            assert shell.poll() is None, "it isn't the app's"
        finally:
            with contextlib.suppress(ProcessLookupError):
                subprocess.run(["pkill", "-KILL", "-s", str(shell.pid)], check=False)
            shell.wait()

    def test_another_program_in_the_pid_file_is_another_workload(self, tmp_path: Path, cluster: FakeCluster) -> None:
        kit = PidFileKit(tmp_path)
        stranger = subprocess.Popen(["sleep", "1000"])
        try:
            kit.start()
            eventually(lambda: answers(kit.url))
            plan = adopt(kit, tmp_path, cluster)
            found = runtime(tmp_path)
            with contextlib.closing(found):
                Path(kit.name).write_text(f"{stranger.pid}\n")
                assert found.find(plan.record.workload_id) is None
                found.stop(plan.record.workload_id, 0.0)
                assert stranger.poll() is None
                kit.start()  # as what started it may do
                assert found.find(plan.record.workload_id) is not None
        finally:
            stranger.kill()
            stranger.wait()
            kit.clean()

    @pytest.mark.parametrize("content", ["", "nothing", "99999999"])
    def test_a_file_without_a_process_is_refused(self, tmp_path: Path, cluster: FakeCluster, content: str) -> None:
        path = tmp_path / "example.pid"
        path.write_text(content)

        with pytest.raises(ConfigError, match="names no process that runs"):
            Adoption(settings(tmp_path), {}, cluster=cluster).plan("pid-file", str(path), version="1.0.0")
        with pytest.raises(ConfigError, match="No such file"):
            Adoption(settings(tmp_path), {}, cluster=cluster).plan("pid-file", str(path) + "x", version="1.0.0")
