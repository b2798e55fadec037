"""The runtime ``systemd`` without a systemd: settings, directives, names, results, and a bus that is away or silent."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outrider.config.sections import InstanceSettings, WorkloadSettings
from outrider.core.blame import judge
from outrider.core.errors import DriverError, Unknown
from outrider.runtimes import Given
from outrider.runtimes.records import WorkloadRecord
from outrider.runtimes.systemd import SystemdSettings, problems
from outrider.runtimes.systemd.bus import Manager, UnitState
from outrider.runtimes.systemd.names import drains_of, own_unit_of, pattern_of, unit_of, user_of
from outrider.runtimes.systemd.properties import INFINITY, SANDBOX, properties_of, property_problems
from outrider.runtimes.systemd.results import GONE, invocation_of, result_of
from outrider.runtimes.systemd.units import TransientUnits, _quoted, environment_of, open_to_all, wait_started
from tests.contracts.kits.settings import settings_with
from tests.support.waiting import eventually

GOOD: dict[str, Any] = {"command": ("./server", "{port}")}


def found(strategy: str = "start-first", **changes: Any) -> list[tuple[str, str]]:
    settings = settings_with("systemd", SystemdSettings(**changes))
    instance = replace(settings.instance, strategy=strategy)  # type: ignore[arg-type]
    return list(problems(replace(settings, instance=instance)))


def test_good_settings_have_no_problem() -> None:
    assert [] == found(**GOOD)
    assert [] == found(**GOOD, properties={"CPUQuota": "150%", "MemoryMax": "1G", "ProtectHome": "tmpfs"})
    assert [] == found(unit="example@.service")
    assert [] == found("stop-first", unit="example.service")


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({}, "systemd.command", "missing; for example"),
        ({"command": ("./server", "{prot}")}, "systemd.command", "did you mean {port}?"),
        ({"unit": "example.service"}, "systemd.unit", "name a template such as example@.service, or set"),
        ({"unit": "a@.service", "user": "b"}, "systemd.user", "has no effect, for a@.service says it"),
        ({**GOOD, "properties": {"MemoryMaxx": "1G"}}, "systemd.properties", "did you mean MemoryMax?"),
        ({**GOOD, "properties": {"Restart": "always"}}, "systemd.properties", "would compete with systemd"),
        ({**GOOD, "properties": {"CPUQuota": "2"}}, "systemd.properties", "write 150%"),
    ],
)
def test_mistakes_are_found_when_the_settings_are_loaded(changes: dict[str, Any], key: str, said: str) -> None:
    ((where, text),) = found(**changes)

    assert key == where
    assert said in text


def test_without_the_library_it_is_refused_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert [("instance.runtime", "systemd needs the package jeepney: pip install 'outrider[systemd]'")] == found(**GOOD)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("NoNewPrivileges", "yes", ("NoNewPrivileges", ("b", True))),
        ("PrivateTmp", "off", ("PrivateTmp", ("b", False))),
        ("MemoryMax", "512M", ("MemoryMax", ("t", 512 * 1024**2))),
        ("TasksMax", "infinity", ("TasksMax", ("t", INFINITY))),
        ("CPUQuota", "150%", ("CPUQuotaPerSecUSec", ("t", 1_500_000))),
        ("WatchdogSec", "1min 30s", ("WatchdogUSec", ("t", 90_000_000))),
        ("UMask", "0027", ("UMask", ("u", 0o27))),
        ("Nice", "-5", ("Nice", ("i", -5))),
        ("StateDirectory", "a b", ("StateDirectory", ("as", ["a", "b"]))),
        ("CapabilityBoundingSet", "", ("CapabilityBoundingSet", ("t", 0))),
        ("AmbientCapabilities", "CAP_NET_BIND_SERVICE", ("AmbientCapabilities", ("t", 1 << 10))),
        ("SystemCallFilter", "~@mount", ("SystemCallFilter", ("(bas)", (False, ["@mount"])))),
        ("BindReadOnlyPaths", "/a:/b", ("BindReadOnlyPaths", ("a(ssbt)", [("/a", "/b", False, 16384)]))),
        ("BindPaths", "-/c", ("BindPaths", ("a(ssbt)", [("/c", "/c", True, 16384)]))),
        ("EnvironmentFile", "-/etc/a", ("EnvironmentFiles", ("a(sb)", [("/etc/a", True)]))),
        ("LoadCredential", "key:/etc/key", ("LoadCredential", ("a(ss)", [("key", "/etc/key")]))),
    ],
)  # fmt: skip
def test_directives_are_read_as_in_a_unit_file(name: str, text: str, wanted: object) -> None:
    assert [] == list(property_problems({name: text}))
    assert [wanted] == properties_of({name: text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("NoNewPrivileges", "maybe"),
        ("MemoryMax", "much"),
        ("TasksMax", "-1"),
        ("WatchdogSec", "3 fortnights"),
        ("UMask", "999"),
        ("CapabilityBoundingSet", "CAP_FLY"),
    ],
)
def test_a_directive_that_cannot_be_read_is_refused_with_its_text(name: str, text: str) -> None:
    (problem,) = property_problems({name: text})

    assert problem.startswith(f"{name}: ")
    assert text.split()[-1] in problem


def test_the_sandbox_is_made_of_directives_that_are_known() -> None:
    assert [] == list(property_problems(SANDBOX))


def test_names_are_escaped_and_no_two_workloads_share_one() -> None:
    assert "outrider-app-web.1@web.1-1.0.0-b.5-aa.service" == unit_of("web.1", "web.1-1.0.0-b.5-aa")
    assert unit_of("a", "b-c") != unit_of("a-b", "c")
    assert r"example@1.0.0\x2bb5-a.service" == own_unit_of("example@.service", "1.0.0+b5", "a")
    assert "example.service" == own_unit_of("example.service", "1.0.0", "a")
    assert "outrider-app-a@*.service" == pattern_of("a")
    assert "outrider-web-1" == user_of("web-1")
    assert len(user_of("a.name.with.dots" * 3)) <= 31, "systemd's limit for a user's name"


@pytest.mark.parametrize(
    ("service", "status", "blame"),
    [
        ({"Result": "exit-code", "ExecMainCode": 1, "ExecMainStatus": 3}, "exit 3", "release"),
        ({"Result": "signal", "ExecMainCode": 2, "ExecMainStatus": 11}, "signal 11 (SIGSEGV)", "release"),
        ({"Result": "core-dump", "ExecMainCode": 3, "ExecMainStatus": 6}, "signal 6 (SIGABRT)", "release"),
        ({"Result": "watchdog"}, "its watchdog had no sign of life", "release"),
        ({"Result": "signal", "ExecMainCode": 2, "ExecMainStatus": 9}, "signal 9 (SIGKILL)", "world"),
        ({"Result": "timeout"}, "systemd's time limit passed", "world"),
        ({"Result": "oom-kill", "MemoryMax": 1 << 26}, "killed for memory (MemoryMax 64 MiB)", "machine"),
        ({"Result": "oom-kill", "MemoryMax": INFINITY}, "killed for memory", "machine"),
        ({"Result": "resources"}, "systemd had no resources to start it", "machine"),
        (
            {"Result": "exit-code", "ExecMainCode": 1, "ExecMainStatus": 217},
            "systemd could not set it up: 217/USER",
            "machine",
        ),
        ({}, GONE, "release"),
    ],
)
def test_a_units_result_is_told_in_words_and_says_whose_fault_it_is(
    service: dict[str, object], status: str, blame: str
) -> None:
    result = result_of(service)

    assert (status, blame) == (result.status, judge(result.evidence))


def test_an_invocation_is_written_as_the_journal_has_it() -> None:
    assert "0aff" == invocation_of({"InvocationID": [10, 255]})
    assert "" == invocation_of({})


def test_what_an_environment_file_would_read_otherwise_is_escaped() -> None:
    assert r'"a \"b\" \$c \`d\` \\e"' == _quoted('a "b" $c `d` \\e')


def test_a_payload_is_made_readable_and_nothing_more(tmp_path: Path) -> None:
    program, text = tmp_path / "program", tmp_path / "text"
    program.touch(mode=0o700)
    text.touch(mode=0o600)
    (tmp_path / "link").symlink_to("/etc/passwd")
    tmp_path.chmod(0o700)

    open_to_all(tmp_path)

    assert [0o755, 0o755, 0o644] == [each.stat().st_mode & 0o777 for each in (tmp_path, program, text)]


@pytest.fixture
def silent_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A bus that takes connections and says nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bus"))
        listener.listen()
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}")
        yield


def test_a_bus_that_is_silent_holds_no_other_thread_up(silent_bus: None) -> None:
    """Threads go on while one waits: the sidekick's lease hangs on that."""
    ticks: list[int] = []
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.005):
            ticks.append(1)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        before = eventually(lambda: len(ticks))

        with pytest.raises(Unknown, match=r"no answer over D-Bus in 0\.3 s"):
            Manager(timeout_s=0.3).state("dbus.service")

        assert len(ticks) - before >= 3, "of sixty"
    finally:
        over.set()
        thread.join()


def test_without_a_bus_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'nowhere'}")

    with pytest.raises(Unknown, match=r"D-Bus can't be reached: .*No such file"):
        Manager().state("dbus.service")


def test_a_unit_is_told_what_its_release_gives_it_over_the_settings_and_below_its_place() -> None:
    record = WorkloadRecord(
        runtime="systemd", workload_id="web-1", version="2.0.0", host="127.0.0.1", port=8085, run=1, sha256="a" * 64
    )
    shared = WorkloadSettings(env={"COLOUR": "blue", "SIZE": "9"})
    instance = InstanceSettings(id="web-1", app="web", group="beta")

    told = environment_of(record, shared, instance, Given(variables={"COLOUR": "red", "HOST": "elsewhere"}))

    assert ("red", "9", "127.0.0.1") == (told["COLOUR"], told["SIZE"], told["HOST"])


class Started:
    """A manager that notes what it is to start."""

    def __init__(self) -> None:
        self.properties: dict[str, Any] = {}

    def start_transient(self, unit: str, properties: Any) -> None:
        self.properties = dict(properties)


def test_a_version_is_stopped_at_a_shutdown_after_its_instance_was_drained(tmp_path: Path) -> None:
    """Else systemd stops the app at once, while the balancer still sends to it."""
    record = WorkloadRecord(
        runtime="systemd", workload_id="w", version="1.0.0", host="127.0.0.1", port=8085, run=1, sha256="a" * 64
    )
    instance = InstanceSettings(id="Web 1", app="web", group="beta", state_dir=tmp_path)
    units, manager = TransientUnits(SystemdSettings(command=("/bin/true",)), WorkloadSettings(), instance), Started()

    units.start(manager, record, tmp_path, Given())  # type: ignore[arg-type]

    drains = ["outrider-shutdown@Web\\x201.service", "outrider-shutdown-Web\\x201.service"]
    assert ("as", drains) == manager.properties["Before"]
    assert tuple(drains) == drains_of("Web 1")


class Told:
    """A manager that says how a unit is, one answer after the other; the last one stays."""

    def __init__(self, *states: tuple[str, bool]) -> None:
        self.left = list(states)

    def state(self, unit: str) -> UnitState:
        active, job = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return UnitState(name=unit, load="loaded", active=active, sub="", path="", job=job)


def test_a_start_is_over_when_the_unit_is_active_although_its_stop_is_queued() -> None:
    """A machine that shuts down queues that at once, and begins it when the instance is drained."""
    told = Told(("inactive", True), ("activating", True), ("active", True))

    assert "active" == wait_started(told, "a.service", 60.0).active  # type: ignore[arg-type]


def test_a_start_that_is_queued_or_under_way_is_not_over() -> None:
    for state in (("inactive", True), ("activating", False)):
        with pytest.raises(DriverError, match="has not started within 0 s"):
            wait_started(Told(state), "a.service", 0.0)  # type: ignore[arg-type]
