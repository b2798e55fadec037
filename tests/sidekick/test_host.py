"""Several instances in one process: each goes its own way, over one connection and one lease."""

import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from loguru import logger

from outrider.config.drivers import DriverTable, Problem
from outrider.config.folder import Folder
from outrider.config.sections import Settings
from outrider.core.errors import ConfigError, Unknown
from outrider.core.images import PayloadKind
from outrider.core.sidekick.memory import Memory
from outrider.failpoints import FailpointHit, observe
from outrider.journal.journal import Record
from outrider.model.documents import Presence, decode
from outrider.model.keys import Keys
from outrider.runtimes import Exited, RunnableRelease, Runtime, Workload, WorkloadSpec
from outrider.runtimes.drivers import RuntimeContext, RuntimeDriver
from outrider.sd_notify import Notices, Notifier
from outrider.service.rollouts.explain import explain
from outrider.service.store.context import StoreContext
from outrider.sidekick import assemble, loop
from outrider.sidekick import host as host_module
from outrider.sidekick.assemble import Assembly
from outrider.sidekick.host import Host, make_assembly
from outrider.sidekick.session import EtcdSession
from tests.sim.fake_etcd import FakeEtcd
from tests.support.rings import mostly_long
from tests.support.waiting import eventually

APP = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"
KEYS = Keys()
SETTINGS = None


class Standing:
    """A runtime whose only workload runs already, at ``url``: this module is the driver that makes it."""

    name = "process"
    kinds: frozenset[PayloadKind] = frozenset({"archive"})

    def __init__(self, url: str) -> None:
        self.workload = Workload(workload_id="w-1", version="1.0.0", url=url, handle="made up")

    def running(self) -> tuple[Workload, ...]:
        return (self.workload,)

    def find(self, workload_id: str) -> Workload:
        return self.workload

    def start(self, spec: WorkloadSpec) -> Workload:
        return self.workload

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> "Standing":
        return self

    def prepare(self, release: RunnableRelease) -> None: ...
    def prune(self, needed: Collection[str]) -> None: ...
    def stop(self, workload_id: str, grace_s: float) -> None: ...
    def remove(self, workload_id: str) -> None: ...
    def close(self) -> None: ...


def problems(settings: Settings) -> tuple[Problem, ...]:
    return ()


def make(settings: Settings, context: RuntimeContext) -> Runtime:
    return Standing(settings.workload.env["URL"])


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def healthy() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def hanging() -> Iterator[str]:
    """An app that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class Machine:
    """A folder of settings, an etcd, and the host between them."""

    def __init__(self, folder: Path) -> None:
        self.files, self.states = folder / "instances", folder / "states"
        self.files.mkdir()
        self.etcd = FakeEtcd()
        self.cluster = self.etcd.client()
        self.sessions: list[EtcdSession] = []
        self.made: list[str] = []
        self.refuse: dict[str, Exception] = {}

    def write(self, name: str, url: str, more: str = "", instance: str = "") -> None:
        text = (
            f'[instance]\napp = "{APP}"\ngroup = "web"\nbalancer = "none"\n'
            f'state_dir = "{self.states / name}"\n{instance}\n'
            f'[process]\ncommand = ["./run"]\n[workload]\nenv = {{ URL = "{url}" }}\n'
            "[probe]\ninterval_s = 0.02\nsuccesses = 1\ntimeout_s = 30\ndeadline_s = 60\n"
            f'[service]\nurls = ["http://127.0.0.1:9"]\n{more}'
        )
        (self.files / f"{name}.toml").write_text(text)

    def session(self, settings: Settings, on_bug: Callable[[BaseException], None]) -> EtcdSession:
        self.sessions.append(EtcdSession(self.etcd.client(), KEYS, settings.lock.ttl_s))
        return self.sessions[-1]

    def assembly(self, settings: Settings, session: EtcdSession, notices: Notices) -> Assembly:
        name = settings.instance.id
        if name in self.refuse:
            raise self.refuse[name]
        self.made.append(name)
        return make_assembly(settings, session, notices)

    @contextmanager
    def running(self) -> Iterator[Host]:
        host = Host(Folder(self.files, (), {}), Notifier(), make=self.assembly, make_session=self.session)
        failed: list[BaseException] = []

        def run() -> None:
            try:
                host.run()
            except BaseException as error:  # noqa: BLE001 - raised again below
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield host
        finally:
            host.stop()
            thread.join(60)
        assert not thread.is_alive()
        if failed:
            raise failed[0]

    def presences(self) -> Mapping[str, Presence]:
        found = [decode(Presence, one.key, one.value) for one in self.cluster.list(KEYS.presences(APP)).entries]
        return {one.instance: one for one in found}

    def notice(self, name: str) -> str:
        """What the fleet is told of it; empty also while it is away for a moment."""
        presence = self.presences().get(name)
        return presence.notice if presence is not None else ""

    def why(self, name: str) -> tuple[str, ...]:
        """What ``outrider why`` says of it."""
        return explain(StoreContext(cluster=self.cluster, keys=KEYS, now=lambda: datetime.now(UTC)), APP, name)

    def serving(self) -> set[str]:
        """Who has proved healthy, and goes on to ask the update service, which is away."""
        return {name for name, one in self.presences().items() if one.state in ("checking", "idle.cooling")}

    def leases(self) -> set[int]:
        return {one.lease for one in self.cluster.list(KEYS.presences(APP)).entries}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    table: DriverTable[RuntimeDriver] = DriverTable(chosen_by="instance.runtime", modules={"process": __name__})
    monkeypatch.setattr(assemble, "RUNTIMES", table)
    return Machine(tmp_path)


def test_they_share_a_connection_and_a_lease_and_each_leaves_with_its_own_keys_alone(
    machine: Machine, healthy: str
) -> None:
    for name in ("a", "b", "c"):
        machine.write(name, healthy)
    with machine.running() as host:
        eventually(lambda: machine.serving() == {"a", "b", "c"})
        assert (1, 1) == (len(machine.leases()), len(machine.sessions))
        before = machine.presences()

        (machine.files / "b.toml").unlink()
        host.reload()
        eventually(lambda: set(machine.presences()) == {"a", "c"})
        assert {name: before[name].process for name in "ac"} == {
            name: one.process for name, one in machine.presences().items()
        }
    assert {} == machine.presences(), "the lease has ended with the process"


def test_a_file_that_comes_or_changes_is_applied_by_itself(machine: Machine, healthy: str) -> None:
    machine.write("a", healthy)
    with machine.running():
        eventually(lambda: machine.serving() == {"a"})
        machine.write("b", healthy)
        eventually(lambda: machine.serving() == {"a", "b"})
        first = machine.presences()

        machine.write("a", healthy, instance='alias = "front"')
        eventually(lambda: machine.presences().get("a", first["a"]).process != first["a"].process)
        eventually(lambda: machine.serving() == {"a", "b"})
        assert first["b"].process == machine.presences()["b"].process
    assert ["a", "b", "a"] == machine.made


@pytest.mark.parametrize(
    "broken", ["nonsense", '[instance]\napp = "x"\n', '[instance]\napp = "x"\ngroup = "g"\ngruop = "h"\n']
)
def test_an_invalid_file_leaves_the_instance_with_its_settings_and_the_fleet_is_told(
    machine: Machine, healthy: str, broken: str
) -> None:
    machine.write("a", healthy)
    machine.write("b", healthy)
    with machine.running() as host:
        eventually(lambda: machine.serving() == {"a", "b"})
        good = (machine.files / "a.toml").read_text()

        (machine.files / "a.toml").write_text(broken)
        host.reload()
        eventually(lambda: machine.notice("a").startswith("runs with earlier settings: "))
        assert "a.toml" in machine.notice("a")
        assert "" == machine.notice("b")

        (machine.files / "a.toml").write_text(good)
        host.reload()
        eventually(lambda: machine.notice("a") == "" and "a" in machine.presences())
    assert ["a", "b"] == sorted(machine.made)


def test_settings_that_must_wait_for_the_end_of_an_update_are_told_and_the_earlier_ones_stay(
    machine: Machine, healthy: str
) -> None:
    machine.write("a", healthy)
    with machine.running() as host:
        eventually(lambda: machine.serving() == {"a"})

        def refuse_once(settings: Settings, session: EtcdSession, notices: Notices) -> Assembly:
            if settings.instance.strategy == "stop-first":
                raise ConfigError("instance.strategy: an update is under way")
            return machine.assembly(settings, session, notices)

        host._make = refuse_once
        machine.write("a", healthy, instance='strategy = "stop-first"')
        host.reload()

        eventually(lambda: "an update is under way" in machine.notice("a"))
        eventually(lambda: machine.serving() == {"a"})


def test_one_whose_runtime_is_away_at_its_first_start_begins_when_it_is_back(
    machine: Machine, healthy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made before it failed is let go of: the journal, which is locked while it is open, and every thread."""
    asked: list[int] = []

    def away(self: Standing) -> tuple[Workload, ...]:
        asked.append(threading.active_count())
        raise Unknown("Docker does not answer")

    monkeypatch.setattr(Standing, "running", away)
    monkeypatch.setattr(host_module, "AGAIN_MIN_S", 0.05)
    machine.write("a", healthy)
    with machine.running():
        eventually(lambda: len(asked) >= 5, within_s=60)
        assert "machine cannot begin: Docker does not answer (tried " in "\n".join(machine.why("a"))
        assert {} == machine.presences()
        # threads that have no work left end after a while; what each attempt left behind would only grow
        eventually(lambda: asked[-1] - asked[1] < 3, within_s=90)
        monkeypatch.setattr(Standing, "running", lambda self: (self.workload,))
        eventually(lambda: machine.serving() == {"a"}, within_s=60)
        eventually(lambda: "cannot begin" not in "\n".join(machine.why("a")), within_s=60)


def test_a_strategy_that_must_wait_for_the_end_of_an_update_leaves_the_journal_free(
    machine: Machine, healthy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(record: Record, settings: Memory) -> Memory:
        if settings.strategy == "stop-first":
            raise ConfigError("instance.strategy: an update is under way")
        return recall(record, settings)

    recall = loop._recall
    monkeypatch.setattr(loop, "_recall", refuse)
    machine.write("a", healthy)
    with machine.running() as host:
        eventually(lambda: machine.serving() == {"a"})
        machine.write("a", healthy, instance='strategy = "stop-first"')
        host.reload()

        eventually(lambda: "an update is under way" in machine.notice("a"))
        eventually(lambda: machine.serving() == {"a"})


def test_one_that_fails_is_started_again_alone(machine: Machine, healthy: str) -> None:
    machine.write("a", healthy)
    machine.write("b", healthy)
    machine.refuse["a"] = Unknown("its disk is away")
    with machine.running() as host:
        eventually(lambda: machine.serving() == {"b"})
        eventually(lambda: host.instances["a"] == "failed: its disk is away; starts again")

        del machine.refuse["a"]
        eventually(lambda: machine.serving() == {"a", "b"})
    assert 1 == machine.made.count("b")


@pytest.mark.parametrize("number_of_hung", mostly_long((4, 20), short=lambda number: number == 4))
def test_probes_that_hang_hold_up_nobody_else(
    machine: Machine, healthy: str, hanging: str, number_of_hung: int
) -> None:
    for number in range(number_of_hung):
        machine.write(f"hung-{number}", hanging)
    machine.write("good", healthy)
    with machine.running() as host:
        eventually(lambda: machine.serving() == {"good"})
        eventually(lambda: sum(one.state == "idle.proving" for one in machine.presences().values()) == number_of_hung)

        machine.write("good", healthy, instance='alias = "again"')
        host.reload()
        eventually(lambda: machine.made.count("good") == 2 and machine.serving() == {"good"})
        assert 1 == len(machine.leases())


def test_each_failpoint_says_whose_it_is(machine: Machine, healthy: str) -> None:
    """What the kill matrix arms: one instance of several, and what they share is nobody's."""
    hits: list[FailpointHit] = []
    observe(hits.append)
    try:
        machine.write("a", healthy)
        machine.write("b", healthy)
        with machine.running():
            eventually(lambda: machine.serving() == {"a", "b"})
    finally:
        observe(None)

    whose: dict[str, set[str]] = {}
    for hit in hits:
        whose.setdefault(hit.point, set()).add(hit.instance)
    both = ("journal.write", "presence.write", "probe.ask", "omaha.check")
    assert {point: {"a", "b"} for point in both} == {point: whose[point] for point in both}
    assert {"", "a", "b"} == whose["announcement.read"], "of the epoch, and of each one's own"
    assert {""} == whose["lease.grant"]


def test_with_no_file_that_can_be_used_it_does_not_start(machine: Machine) -> None:
    (machine.files / "a.toml").write_text("nonsense")

    with pytest.raises(ConfigError, match=r"a\.toml"), machine.running():
        pass


def test_an_empty_folder_is_said_and_waited_at(machine: Machine, healthy: str) -> None:
    said: list[str] = []
    log = logger.add(lambda line: said.append(str(line)), level="WARNING")
    try:
        with machine.running():
            eventually(lambda: any("no instance: the folder has no file NAME.toml" in line for line in said))
            machine.write("a", healthy)
            eventually(lambda: machine.serving() == {"a"})
    finally:
        logger.remove(log)


def test_all_of_them_may_move_to_another_etcd_at_once(machine: Machine, healthy: str) -> None:
    machine.write("a", healthy)
    machine.write("b", healthy)
    with machine.running() as host:
        eventually(lambda: machine.serving() == {"a", "b"})
        old = machine.leases()
        for name in ("a", "b"):
            machine.write(name, healthy, more="[lock]\nttl_s = 20\n")
        host.reload()
        eventually(lambda: machine.serving() == {"a", "b"} and not machine.leases() & old)
    assert 2 == len(machine.sessions)
