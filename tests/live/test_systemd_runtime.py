"""The runtime ``systemd`` against a real systemd: what the contract of all runtimes doesn't ask."""

import json
import queue
import shutil
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import jeepney
import msgspec
import pytest

from outrider.config.sections import InstanceSettings, WorkloadSettings
from outrider.core.blame import judge
from outrider.core.errors import DriverError, Refused, Unknown
from outrider.runtimes import Exited, RunnableRelease, Workload, WorkloadSpec
from outrider.runtimes.systemd import SystemdSettings
from outrider.runtimes.systemd import runtime as runtime_module
from outrider.runtimes.systemd.bus import Manager
from outrider.runtimes.systemd.names import unit_of
from outrider.runtimes.systemd.runtime import SystemdRuntime
from tests.support.systemd_machine import ROOT, SystemdMachine, systemd_machine
from tests.support.waiting import eventually
from tests.support.workloads import APP, answer, payload, release

OLD, NEW = "web-1-1.0.0-aa", "web-1-2.0.0-bb"
PYTHON = "/usr/bin/python3"
Make = Callable[..., SystemdRuntime]

LOOK = """
import http.server, json, os, subprocess

def can(path, mode):
    try:
        open(path, mode).close()
    except OSError as error:
        return error.strerror
    return "yes"

told = {
    "uid": os.getuid(),
    "etc": can("/etc/outrider-was-here", "w"),
    "own": can("app.py", "a"),
    "journal": can(os.environ["SECRET"], "r"),
    "caps": [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")][0],
    "ours": sorted(name for name in os.environ if name.startswith("OUTRIDER_")),
    "cwd": os.getcwd(),
}

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(told).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Answer).serve_forever()
"""
DAEMONS = """
import os, signal, subprocess, sys, time
# two forks, a session of its own, no environment, deaf to SIGTERM: what gets away from everything but a cgroup
child = "import os, signal, time\\nsignal.signal(15, 1)\\nos.setsid()\\nif os.fork() == 0: time.sleep(4711)"
subprocess.Popen([sys.executable, "-c", child], env={})
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemdMachine]:
    found = systemd_machine(tmp_path)
    found.use(monkeypatch)
    yield found
    found.run("systemctl", "start", "dbus.socket", "dbus.service")
    found.clean()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def make(machine: SystemdMachine, state_dir: Path) -> Iterator[Make]:
    """Makes runtimes whose settings may be changed; all are closed at the end."""
    made: list[SystemdRuntime] = []

    def make(shared: WorkloadSettings | None = None, **changes: object) -> SystemdRuntime:
        own: dict[str, object] = {"command": (PYTHON, "app.py"), "poll_interval_s": 0.1, **changes}
        if "unit" in changes:
            del own["command"]
        made.append(
            SystemdRuntime(
                SystemdSettings(**own),  # type: ignore[arg-type]
                shared or WorkloadSettings(stop_grace_s=5),
                InstanceSettings(id="web-1", app="hello", group="g", state_dir=state_dir),
                manager=Manager(timeout_s=5),
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def made(folder: Path, version: str, text: str = APP, files: dict[str, str] | None = None) -> RunnableRelease:
    """A release of one script."""
    home = folder / f"release-{version}"
    home.mkdir(exist_ok=True)
    return release(version, payload(home, {"app.py": text, **(files or {})}, mode=0o600))


def old(folder: Path, text: str = APP) -> WorkloadSpec:
    return WorkloadSpec(workload_id=OLD, release=made(folder, "1.0.0", text))


def new(folder: Path, text: str = APP) -> WorkloadSpec:
    return WorkloadSpec(workload_id=NEW, release=made(folder, "2.0.0", text))


def told(workload: Workload) -> dict[str, object]:
    def ask() -> dict[str, object]:
        with urllib.request.urlopen(workload.url, timeout=60) as response:
            found: dict[str, object] = json.loads(response.read())
            return found

    def tried() -> dict[str, object]:
        try:
            return ask()
        except OSError as error:
            raise AssertionError(f"no answer: {error}") from error

    return eventually(tried)


def see_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a start waits until what ends at once has ended, however long a busy machine takes for that.

    What ends later is the watch's to tell, with the same words: tests/contracts/test_endings.py.
    """
    monkeypatch.setattr(runtime_module, "_AT_ONCE_S", 60)


def expect_old_serves(runtime: SystemdRuntime, machine: SystemdMachine) -> None:
    """The version before runs, answers, and nothing is left of any other."""
    (running,) = runtime.running()
    assert OLD == running.workload_id
    assert "1.0.0" == answer(running)["OUTRIDER_VERSION"]
    assert [unit_of("web-1", OLD)] == machine.units("outrider-app-*")
    failed = machine.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "outrider-app-*")
    assert "" == failed.strip()


# A unit of its own


def test_the_app_runs_as_a_user_of_its_own_in_a_sandbox(make: Make, tmp_path: Path, state_dir: Path) -> None:
    secret = state_dir / "journal.jsonl"
    secret.write_text("secret")
    runtime = make(shared=WorkloadSettings(env={"SECRET": str(secret)}))

    seen = told(runtime.start(old(tmp_path, LOOK)))

    assert int(str(seen["uid"])) >= 61184, "systemd.exec(5): dynamic users begin there"
    assert "Read-only file system" == seen["etc"]
    assert seen["own"] in ("Read-only file system", "Permission denied")
    assert "No such file or directory" == seen["journal"], "the test's state folder is below /tmp, which is private"
    assert "0000000000000000" == seen["caps"]
    assert "/run/outrider-app" == seen["cwd"]
    ours = ["OUTRIDER_INSTANCE", "OUTRIDER_PAYLOAD_SHA256", "OUTRIDER_VERSION", "OUTRIDER_WORKLOAD"]
    assert ours == seen["ours"]


def test_a_user_that_is_named_has_the_payload_and_no_way_to_the_sidekicks_files(
    make: Make, tmp_path: Path, state_dir: Path
) -> None:
    secret = state_dir / "journal.jsonl"
    secret.write_text("secret")
    shared = WorkloadSettings(env={"SECRET": str(secret)})
    runtime = make(shared=shared, user="nobody", sandbox=False)

    seen = told(runtime.start(old(tmp_path, LOOK)))

    assert 65534 == seen["uid"]
    assert "Permission denied" == seen["journal"]
    assert "Permission denied" == seen["etc"]


def test_two_versions_have_the_same_user_and_settings_change_the_unit(
    make: Make, tmp_path: Path, machine: SystemdMachine
) -> None:
    runtime = make(
        memory_max_bytes=256 * 1024**2,
        tasks_max=33,
        cpu_quota_percent=150,
        properties={"Nice": "5", "LimitNOFILE": "2048", "StateDirectory": "hello", "ProtectHome": "tmpfs"},
        shared=WorkloadSettings(env={"SECRET": "/etc/shadow"}),
    )

    first, second = told(runtime.start(old(tmp_path, LOOK))), told(runtime.start(new(tmp_path, LOOK)))

    assert first["uid"] == second["uid"]
    names = "MemoryMax,TasksMax,CPUQuotaPerSecUSec,Nice,LimitNOFILE,StateDirectory,ProtectHome,Slice,User"
    said = machine.run("systemctl", "show", unit_of("web-1", NEW), f"--property={names}")
    assert {
        "MemoryMax=268435456",
        "TasksMax=33",
        "CPUQuotaPerSecUSec=1.500000s",
        "Nice=5",
        "LimitNOFILE=2048",
        "StateDirectory=hello",
        "ProtectHome=tmpfs",
        "Slice=outrider.slice",
        "User=outrider-web-1",
    } <= set(said.splitlines())


def test_nothing_of_a_version_outlives_its_unit(make: Make, tmp_path: Path, machine: SystemdMachine) -> None:
    runtime = make(shared=WorkloadSettings(stop_grace_s=1))
    answer(runtime.start(old(tmp_path, DAEMONS + APP)))
    eventually(lambda: "4711" in machine.run("systemctl", "status", unit_of("web-1", OLD), check=False))

    runtime.stop(OLD, 1)

    assert () == runtime.running()
    assert "4711" not in machine.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


def test_a_workload_is_found_by_its_unit_when_its_record_is_lost(make: Make, tmp_path: Path, state_dir: Path) -> None:
    started = make().start(old(tmp_path))
    shutil.rmtree(state_dir / "workloads")

    again = make()

    assert (started,) == again.running()
    assert started.sha256 == again.running()[0].sha256
    again.remove(OLD)
    assert () == again.running()


def test_what_crashes_is_told_with_its_status(make: Make, tmp_path: Path) -> None:
    runtime = make()
    ends: queue.Queue[Exited] = queue.Queue()
    answer(
        runtime.start(old(tmp_path, "import threading, os\nthreading.Timer(1, lambda: os._exit(7)).start()\n" + APP))
    )

    runtime.watch(OLD, ends.put)

    ended = ends.get(timeout=60)
    assert Exited(workload_id=OLD, status="exit 7") == ended
    assert "release" == judge(ended.evidence)
    assert runtime.find(OLD) is None
    answer(runtime.start(old(tmp_path)))


# What may go wrong


def test_a_version_that_ends_at_once_is_refused_with_its_last_words(
    make: Make, tmp_path: Path, machine: SystemdMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make()
    answer(runtime.start(old(tmp_path)))
    see_at_once(monkeypatch)

    with pytest.raises(Refused, match=r"ends at once: exit 3; it said: .*no licence") as caught:
        runtime.start(new(tmp_path, "print('no licence', flush=True)\nraise SystemExit(3)"))

    assert "release" == judge(caught.value.evidence)
    expect_old_serves(runtime, machine)


def test_a_missing_program_is_this_machines_fault(make: Make, tmp_path: Path, machine: SystemdMachine) -> None:
    answer(make().start(old(tmp_path)))
    runtime = make(command=("./nowhere",))

    for act in (lambda: runtime.prepare(new(tmp_path).release), lambda: runtime.start(new(tmp_path))):
        with pytest.raises(DriverError, match="no program") as caught:
            act()
        assert "machine" == judge(caught.value.evidence)

    expect_old_serves(runtime, machine)


def test_a_program_that_a_script_misses_is_this_machines_fault(
    make: Make, tmp_path: Path, machine: SystemdMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(make().start(old(tmp_path)))
    runtime = make(command=("/bin/sh", "app.py"))
    see_at_once(monkeypatch)

    with pytest.raises(DriverError, match="frobnicate is not on this machine: install it") as caught:
        runtime.start(new(tmp_path, "exec frobnicate"))

    assert "machine" == judge(caught.value.evidence)
    expect_old_serves(runtime, machine)


def test_a_user_that_is_not_there_is_this_machines_fault(
    make: Make, tmp_path: Path, machine: SystemdMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(make().start(old(tmp_path)))
    runtime = make(user="nobody-we-know")
    see_at_once(monkeypatch)

    with pytest.raises(DriverError, match=r"217/USER|[Uu]ser") as caught:
        runtime.start(new(tmp_path))

    assert "machine" == judge(caught.value.evidence)
    expect_old_serves(runtime, machine)


def test_a_port_in_use_is_this_machines_fault(make: Make, tmp_path: Path, machine: SystemdMachine) -> None:
    answer(make().start(old(tmp_path)))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        runtime = make(shared=WorkloadSettings(ports=str(taken.getsockname()[1])))

        with pytest.raises(DriverError, match="is in use by pid") as caught:
            runtime.start(new(tmp_path))

    assert "no-port" == caught.value.evidence
    expect_old_serves(runtime, machine)


def test_a_full_disk_is_this_machines_fault(
    make: Make, tmp_path: Path, machine: SystemdMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make()
    answer(runtime.start(old(tmp_path)))
    monkeypatch.setattr("outrider.runtimes.endings.is_full", lambda folder: True)
    see_at_once(monkeypatch)

    with pytest.raises(DriverError, match="this machine's disk is full") as caught:
        runtime.start(new(tmp_path, "raise SystemExit('No space left on device')"))

    assert "disk-full" == caught.value.evidence
    expect_old_serves(runtime, machine)


def test_what_is_killed_for_memory_blocks_nothing(make: Make, tmp_path: Path, machine: SystemdMachine) -> None:
    """
    1. a version with a limit of 64 MiB starts, and takes more after a second
    2. the kernel kills it; systemd says so, where cgroups are of version 2
    3. the version before serves on; the release is not to blame, for the limit is this machine's
    """
    answer(make().start(old(tmp_path)))
    runtime = make(memory_max_bytes=64 * 1024**2, properties={"MemorySwapMax": "0"})
    hungry = "import threading\nthreading.Timer(1, lambda: b'x' * (1 << 30)).start()\n" + APP
    ends: queue.Queue[Exited] = queue.Queue()
    runtime.start(new(tmp_path, hungry))

    runtime.watch(NEW, ends.put)

    ended = ends.get(timeout=60)
    assert ended.status in ("killed for memory (MemoryMax 64 MiB)", "signal 9 (SIGKILL)")
    assert judge(ended.evidence) != "release"
    runtime.remove(NEW)
    expect_old_serves(runtime, machine)


def test_without_d_bus_nothing_is_known_and_the_app_serves_on(
    make: Make, tmp_path: Path, machine: SystemdMachine
) -> None:
    """
    1. D-Bus is lost in mid-swap: what was asked for is neither done nor refused, and a watch tells no end
    2. the version before serves on
    3. D-Bus is back: the same runtime goes on, and nothing was left
    """
    runtime = make()
    running = runtime.start(old(tmp_path))
    answer(running)
    ends: queue.Queue[Exited] = queue.Queue()
    runtime.watch(OLD, ends.put)
    machine.run("systemctl", "stop", "dbus.socket", "dbus.service")

    acts: list[Callable[[], object]] = [
        lambda: runtime.find(OLD),
        lambda: runtime.start(new(tmp_path)),
        lambda: runtime.stop(OLD, 5),
        lambda: runtime.remove(NEW),
    ]
    for act in acts:
        with pytest.raises(Unknown, match="D-Bus can't be reached") as caught:
            act()
        assert judge(caught.value.evidence) != "release"
    assert "1.0.0" == answer(running)["OUTRIDER_VERSION"]
    assert ends.empty()

    machine.run("systemctl", "start", "dbus.socket", "dbus.service")
    runtime.remove(NEW)
    expect_old_serves(runtime, machine)


def test_d_bus_that_is_lost_while_a_version_starts_leaves_nothing_once_it_is_back(
    make: Make, tmp_path: Path, machine: SystemdMachine
) -> None:
    """
    1. the new unit is started; its answer, and all that would follow, is lost
    2. D-Bus is back: the candidate is removed as the chart has it, and the old version was never touched
    """
    runtime = make()
    answer(runtime.start(old(tmp_path)))

    class Losing(Manager):
        def start_transient(self, unit: str, properties: object) -> None:
            super().start_transient(unit, properties)  # type: ignore[arg-type]
            machine.run("systemctl", "stop", "dbus.socket", "dbus.service")

    runtime._manager = Losing(timeout_s=5)
    with pytest.raises(Unknown, match="D-Bus can't be reached"):
        runtime.start(new(tmp_path))
    assert [unit_of("web-1", OLD), unit_of("web-1", NEW)] == machine.units("outrider-app-*")

    machine.run("systemctl", "start", "dbus.socket", "dbus.service")
    runtime.remove(NEW)
    expect_old_serves(runtime, machine)


def test_a_machine_that_shuts_down_stops_a_version_after_its_instance_was_drained(
    make: Make, tmp_path: Path, machine: SystemdMachine
) -> None:
    """
    1. a version starts, and at that moment all stops are queued, as at a shutdown; the drain takes its time
    2. the start is seen as over, and the version serves on
    3. the drain ends: now it is stopped
    """
    drain = "outrider-shutdown@web-1.service"
    machine.write(
        f"/run/systemd/system/{drain}",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sleep 600\n",
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", drain)
    runtime = make(WorkloadSettings(stop_grace_s=5, start_timeout_s=20))

    class ShuttingDown(Manager):
        def start_transient(self, unit: str, properties: object) -> None:
            super().start_transient(unit, properties)  # type: ignore[arg-type]
            eventually(lambda: self.state(unit).active == "active")
            machine.run("systemctl", "stop", "--no-block", drain, unit)
            eventually(lambda: self.state(unit).job)

    runtime._manager = ShuttingDown(timeout_s=5)
    try:
        started = runtime.start(old(tmp_path))
        assert "1.0.0" == answer(started)["OUTRIDER_VERSION"]
    finally:
        machine.run("systemctl", "kill", "--signal=KILL", drain)
    eventually(lambda: not machine.units("outrider-app-*"))


# The operator's own unit

TEMPLATE = """
[Service]
Type=exec
EnvironmentFile={state_dir}/units/%N/env
BindReadOnlyPaths={state_dir}/units/%N/root:/run/example
DynamicUser=yes
ExecStart={python} /run/example/app.py %i
{more}
"""


def write_unit(machine: SystemdMachine, name: str, state_dir: Path, more: str = "") -> None:
    text = TEMPLATE.format(state_dir=state_dir, python=PYTHON, more=more)
    machine.write(f"/run/systemd/system/{name}", text)
    machine.run("systemctl", "daemon-reload")


def test_versions_run_as_instances_of_the_operators_template(
    make: Make, tmp_path: Path, machine: SystemdMachine, state_dir: Path
) -> None:
    write_unit(machine, "example@.service", state_dir)
    runtime = make(unit="example@.service")

    first, second = answer(runtime.start(old(tmp_path))), answer(runtime.start(new(tmp_path)))

    assert ["1.0.0", "2.0.0"] == [first["OUTRIDER_VERSION"], second["OUTRIDER_VERSION"]]
    assert ["1.0.0-web-1"] == first["ARGS"]
    assert ["example@1.0.0-web-1.service", "example@2.0.0-web-1.service"] == machine.units("example@*")
    runtime.remove(OLD)
    assert ["2.0.0"] == [each.version for each in runtime.running()]
    assert not (state_dir / "units/example@1.0.0-web-1").exists()


def test_a_template_that_restarts_by_itself_is_given_up_when_it_ends_at_once(
    make: Make, tmp_path: Path, machine: SystemdMachine, state_dir: Path
) -> None:
    # a shell, which on a busy machine still ends "at once"; Python takes longer to begin
    ends = "ExecStart=\nExecStart=/bin/sh -c 'echo no licence; exit 4'"
    write_unit(machine, "example@.service", state_dir, more=f"Restart=always\n{ends}")
    runtime = make(unit="example@.service")

    with pytest.raises(Refused, match=r"ends at once: (exit 4|ended, and restarted by systemd); it said: .*no licence"):
        runtime.start(new(tmp_path))

    assert [] == machine.units("example@*")
    assert () == runtime.running()


def test_a_single_unit_takes_one_version_after_the_other(
    make: Make, tmp_path: Path, machine: SystemdMachine, state_dir: Path
) -> None:
    """stop-first: and back again, as a rollback does."""
    write_unit(machine, "example.service", state_dir)
    runtime = make(unit="example.service")
    assert "1.0.0" == answer(runtime.start(old(tmp_path)))["OUTRIDER_VERSION"]
    with pytest.raises(DriverError, match=r"example\.service runs version 1\.0\.0: stop that first"):
        runtime.start(new(tmp_path))

    runtime.stop(OLD, 5)
    assert "2.0.0" == answer(runtime.start(new(tmp_path)))["OUTRIDER_VERSION"]
    assert runtime.find(OLD) is None
    runtime.stop(NEW, 5)
    back = runtime.start(old(tmp_path))

    assert "1.0.0" == answer(back)["OUTRIDER_VERSION"]
    runtime.remove(NEW)
    assert (back,) == runtime.running()


def test_a_unit_that_is_not_there_is_this_machines_fault(make: Make, tmp_path: Path) -> None:
    runtime = make(unit="nowhere@.service")

    with pytest.raises(DriverError, match=r"nowhere@1\.0\.0-web-1\.service: not-found") as caught:
        runtime.start(old(tmp_path))

    assert "machine" == judge(caught.value.evidence)


# Who may

CALL = """
import sys
sys.path.insert(0, {path!r})
from outrider.core.errors import DriverError
from outrider.runtimes.systemd.bus import Manager
try:
    getattr(Manager(), sys.argv[1])(*sys.argv[2:], *([[("ExecStart", ("a(sasb)", [("/bin/sleep", ["sleep", "60"], False)]))]] if sys.argv[1] == "start_transient" else []))
    print("done")
except DriverError as error:
    print(error.evidence, error)
"""  # noqa: E501


def test_the_shipped_rule_lets_a_sidekick_without_root_have_its_units_and_no_other(
    machine: SystemdMachine, tmp_path: Path
) -> None:
    """
    1. without a rule the user outrider is refused, and told where to read
    2. with the rule it starts, kills, stops and forgets units that are called as outrider calls them
    3. of other units it still has none
    """
    place = tmp_path / "python"
    shutil.copytree(ROOT / "src/outrider", place / "outrider")
    for library in (jeepney.__file__, msgspec.__file__):
        assert library is not None
        shutil.copytree(Path(library).parent, place / Path(library).parent.name)
    (tmp_path / "call.py").write_text(CALL.format(path=str(place)))
    for folder in (tmp_path, place):
        folder.chmod(0o755)
    tmp_path.parent.chmod(0o755)
    machine.run("useradd", "--system", "outrider", check=False)
    own, other = "outrider-app-a@x.service", "dbus.service"

    def call(*words: str) -> str:
        return machine.run(PYTHON, str(tmp_path / "call.py"), *words, user="outrider").strip()

    assert "done" == call("state", other), "looking needs no rule"
    assert call("stop", own).startswith("no-permission systemd: StopUnit:")
    machine.write("/etc/polkit-1/rules.d/50-outrider.rules", (ROOT / "units/outrider.rules").read_text())
    eventually(lambda: "done" == call("start_transient", own))

    assert [own] == machine.units("outrider-app-*")
    assert "done" == call("stop", own)
    eventually(lambda: [] == machine.units("outrider-app-*"))
    assert "done" == call("reset_failed", own)
    for method in ("stop", "start"):
        assert call(method, other).startswith("no-permission"), method
    assert machine.units("dbus.service")
