"""The runtime ``dpkg`` with this machine's dpkg, on a system of its own: kills, waiting, going back."""

import fcntl
import hashlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outrider.config.load import load_settings
from outrider.config.sections import InstanceSettings
from outrider.core.errors import ConfigError, DriverError, Refused
from outrider.failpoints import FAILPOINTS_OF, FailpointHit, observe, performing
from outrider.journal.journal import Journal, Record
from outrider.runtimes import Exited, Restarter, RunnableRelease, WorkloadSpec
from outrider.runtimes.dpkg import DpkgSettings, calls
from outrider.runtimes.dpkg.calls import Facts, facts_of, install, same_version, upstream_of
from outrider.runtimes.dpkg.runtime import LAUNCHED, DpkgRuntime
from outrider.runtimes.drivers import RUNTIMES
from outrider.runtimes.records import Records, WorkloadRecord
from outrider.trust.keys import create_key, public_file
from tests.support.debs import NAME, build_deb, installed_content, use_dpkg_root
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/use/examples/updater.toml"
OLD, NEW = "outrider-1.0.0-aa", "outrider-2.0.0-bb"


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return use_dpkg_root(monkeypatch, tmp_path / "system")


@pytest.fixture
def settings(tmp_path: Path) -> DpkgSettings:
    return DpkgSettings(
        package=NAME,
        instances=(str(tmp_path / "instances"),),
        units=(),
        check=(),
        look_interval_s=0.05,
        quiet_timeout_s=30.0,
        install_timeout_s=60.0,
    )


def runtime_of(settings: DpkgSettings, folder: Path, environment: dict[str, str] | None = None) -> DpkgRuntime:
    instance = InstanceSettings(id="m", app="outrider", group="g", state_dir=folder / "state")
    instance.state_dir.mkdir(exist_ok=True)
    return DpkgRuntime(settings, instance, environment=environment or {})


@pytest.fixture
def runtime(settings: DpkgSettings, tmp_path: Path) -> Iterator[DpkgRuntime]:
    made = runtime_of(settings, tmp_path)
    yield made
    made.close()


def spec(folder: Path, version: str, workload_id: str, **more: dict[str, str]) -> WorkloadSpec:
    deb = build_deb(folder, version, **more)  # type: ignore[arg-type]
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    return WorkloadSpec(workload_id=workload_id, release=RunnableRelease(version=version, sha256=digest, payload=deb))


class Killed(BaseException):
    """Where a sidekick is killed, nothing of it goes on."""


@contextmanager
def killed_at(point: str, when: str) -> Iterator[list[FailpointHit]]:
    """The first touch of ``point`` ends the life under test."""
    met: list[FailpointHit] = []

    def see(hit: FailpointHit) -> None:
        if hit.point == point and hit.when == when and not met:
            met.append(hit)
            raise Killed

    performing("")  # a test before this one may have left an effect on this thread
    observe(see)
    try:
        yield met
    finally:
        observe(None)


POINTS = ("workload.clear", "workload.unpack", "workload.record", "workload.spawn", "workload.signal")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("goes_on", [True, False], ids=["goes-on", "goes-back"])
def test_a_kill_anywhere_in_an_installation_ends_in_one_of_the_two_versions(
    settings: DpkgSettings, tmp_path: Path, point: str, when: str, goes_on: bool
) -> None:
    """
    1. 1.0.0 is installed; the swap to 2.0.0 is killed at the point
    2. the next life repeats the swap, or reverts it
    3. dpkg has one of the two, whole, and only that one runs
    """
    old, new = spec(tmp_path, "1.0.0", OLD), spec(tmp_path, "2.0.0", NEW)
    runtime_of(settings, tmp_path).start(old)
    first = runtime_of(settings, tmp_path)
    with killed_at(point, when) as met, suppress(Killed):
        first.stop(OLD, 0)
        first.start(new)
    assert met

    second = runtime_of(settings, tmp_path)
    if goes_on:
        second.stop(OLD, 0)
        second.start(new)
        second.remove(OLD)
    else:
        second.stop(NEW, 0)
        second.start(old)
        second.remove(NEW)

    wanted, version = (NEW, "2.0.0") if goes_on else (OLD, "1.0.0")
    assert [wanted] == [one.workload_id for one in second.running()]
    assert Facts(version=f"{version}-1", status="installed") == facts_of(NAME)
    assert version == installed_content()
    assert not (tmp_path / "state/pending.json").exists()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", ["workload.signal", "workload.rename", "workload.erase"])
def test_a_kill_while_the_old_one_is_removed_is_mended_by_doing_it_again(
    settings: DpkgSettings, tmp_path: Path, point: str, when: str
) -> None:
    first = runtime_of(settings, tmp_path)
    first.start(spec(tmp_path, "1.0.0", OLD))
    first.stop(OLD, 0)
    first.start(spec(tmp_path, "2.0.0", NEW))
    with killed_at(point, when) as met, suppress(Killed):
        first.remove(OLD)
    assert met or point == "workload.signal", "what is stopped is not stopped again"

    second = runtime_of(settings, tmp_path)
    second.remove(OLD)

    assert [NEW] == [one.workload_id for one in second.running()]
    assert not (tmp_path / "state/pending.json").exists()
    assert not (tmp_path / f"state/workloads/{OLD}").exists()


def test_every_failpoint_of_a_swap_is_killed_at() -> None:
    assert set(POINTS) == set(FAILPOINTS_OF["workload.replace"])


def test_a_dpkg_that_a_killed_updater_left_is_waited_for(
    settings: DpkgSettings, tmp_path: Path, runtime: DpkgRuntime
) -> None:
    """A real dpkg hangs in a script of the package; its sidekick is gone; the next one calls for the same."""
    barrier = tmp_path / "barrier"
    os.mkfifo(barrier)
    slow = build_deb(tmp_path, "1.0.0", scripts={"preinst": f"#!/bin/sh\nread line <{barrier}\n"})
    code = (
        "import sys; from pathlib import Path; from outrider.runtimes.dpkg.calls import install\n"
        "install(Path(sys.argv[1]), Path(sys.argv[2]), 600)"
    )
    home = tmp_path / "state/dpkg"
    home.mkdir(parents=True)
    # scripts would run below the test's root, where there is no shell
    environment = {**os.environ, "DPKG_FORCE": f"{os.environ['DPKG_FORCE']},script-chrootless"}
    first = subprocess.Popen([sys.executable, "-c", code, str(slow), str(home)], env=environment)

    eventually(lambda: calls.is_busy(home))
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert calls.is_busy(home), "dpkg outlives the updater"
    record = WorkloadRecord(runtime="dpkg", workload_id=OLD, version="1.0.0", host="", port=0, run=1, note="1.0.0-1")
    Records(tmp_path / "state", "dpkg").keep(record)
    (tmp_path / "state/current.json").write_text(f'{{"workload_id": "{OLD}"}}')
    with pytest.raises(DriverError, match="dpkg is at work"):
        runtime.find(OLD)
    done = threading.Event()

    def go_on() -> None:
        os.environ.update(environment)
        second = build_deb(tmp_path, "2.0.0")
        install(second, home, 120)
        done.set()

    worker = threading.Thread(target=go_on)
    worker.start()
    with barrier.open("w") as gate:
        gate.write("go\n")
    worker.join(120)

    assert done.is_set()
    assert "2.0.0" == installed_content()


class NeighbourFixture:
    """A sidekick of this machine, as far as its journal is concerned."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self._journal: Journal | None = None

    def live(self, process: str, state: str, event: str = "sidekick.restarted") -> None:
        if self._journal is None:
            self._journal = Journal(self.folder)
            last = self._journal.last
            self.number = last.number if last is not None else 0
        self.number += 1
        self._journal.append(
            Record(
                number=self.number,
                at=datetime.now(UTC),
                event={"name": event},
                source=state,
                target=state,
                machine={},
                memory={"process": process},
            )
        )

    def die(self) -> None:
        assert self._journal is not None
        self._journal.close()
        self._journal = None


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[NeighbourFixture]:
    made = NeighbourFixture(tmp_path / "instances/web-a")
    yield made
    if made._journal is not None:
        made.die()


def test_nothing_is_installed_while_an_instance_of_the_machine_is_in_a_swap(
    runtime: DpkgRuntime, tmp_path: Path, neighbour: NeighbourFixture
) -> None:
    neighbour.live("p1", "swapping.draining")
    wanted, done = spec(tmp_path, "1.0.0", OLD), threading.Event()

    def begin() -> None:
        runtime.start(wanted)
        done.set()

    worker = threading.Thread(target=begin)
    worker.start()
    assert not done.wait(1.0)
    assert "" == installed_content()
    neighbour.live("p1", "idle.waiting")
    worker.join(60)

    assert done.is_set()
    assert "1.0.0" == installed_content()


def test_a_swap_that_does_not_end_is_this_machines_trouble_for_now(
    settings: DpkgSettings, tmp_path: Path, neighbour: NeighbourFixture
) -> None:
    neighbour.live("p1", "rollback.relocking")
    impatient = runtime_of(replace(settings, quiet_timeout_s=0.2), tmp_path)

    with pytest.raises(DriverError, match=r"in a swap for longer than 0\.2 s: web-a \(rollback") as raised:
        impatient.start(spec(tmp_path, "1.0.0", OLD))

    assert "not-now" == raised.value.evidence
    assert "" == installed_content()


def test_a_dead_sidekick_in_mid_swap_holds_nothing_up(
    runtime: DpkgRuntime, tmp_path: Path, neighbour: NeighbourFixture
) -> None:
    neighbour.live("p1", "swapping.draining")
    neighbour.die()

    runtime.start(spec(tmp_path, "1.0.0", OLD))

    assert "1.0.0" == installed_content()


def test_the_new_version_is_well_when_every_sidekick_has_resumed_and_shown_itself(
    runtime: DpkgRuntime, tmp_path: Path, neighbour: NeighbourFixture
) -> None:
    neighbour.live("p1", "idle.waiting", "identity.accepted")
    url = runtime.start(spec(tmp_path, "1.0.0", OLD)).url

    assert "web-a: its sidekick has not resumed its journal since the installation" == runtime.health(url)
    neighbour.die()
    assert "web-a: its sidekick does not run" == runtime.health(url)
    neighbour.live("p2", "idle.waking")
    assert "web-a: its sidekick has not written its presence since the installation" == runtime.health(url)
    neighbour.live("p2", "idle.waking", "identity.accepted")
    assert "" == runtime.health(url)


def test_whoever_must_be_back_after_the_new_version_must_be_back_after_the_old_one_too(
    runtime: DpkgRuntime, tmp_path: Path, neighbour: NeighbourFixture
) -> None:
    """The new version keeps the sidekick from starting: it isn't forgotten when the old one is installed again."""
    old = spec(tmp_path, "1.0.0", OLD)
    runtime.start(old)
    runtime.remove("never")
    neighbour.live("p1", "idle.waiting", "identity.accepted")
    runtime.stop(OLD, 0)
    runtime.start(spec(tmp_path, "2.0.0", NEW))
    neighbour.die()

    runtime.stop(NEW, 0)
    url = runtime.start(old).url

    assert "web-a: its sidekick does not run" == runtime.health(url)
    neighbour.live("p2", "idle.waking", "identity.accepted")
    assert "" == runtime.health(url)


def test_a_journal_that_this_outrider_can_not_read_is_no_confirmation(
    runtime: DpkgRuntime, tmp_path: Path, neighbour: NeighbourFixture
) -> None:
    neighbour.live("p1", "idle.waiting")
    url = runtime.start(spec(tmp_path, "1.0.0", OLD)).url
    neighbour.die()
    (neighbour.folder / "journal.jsonl").write_text("00000000 {}\n00000000 {}\n")

    with (neighbour.folder / "journal.jsonl").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert runtime.health(url).startswith("web-a: its journal can't be read: ")


def test_the_new_versions_own_program_has_a_say(settings: DpkgSettings, tmp_path: Path) -> None:
    told = tmp_path / "told"
    check = ("/bin/sh", "-c", f"echo no such setting >&2; test -e {told}")
    strict = runtime_of(replace(settings, check=check), tmp_path)
    url = strict.start(spec(tmp_path, "1.0.0", OLD)).url

    assert strict.health(url).endswith("exit 1; it said: no such setting")
    told.touch()
    assert "" == strict.health(url)


def test_the_found_package_is_taken_over_and_can_be_gone_back_to(runtime: DpkgRuntime, tmp_path: Path) -> None:
    """
    1. 0.9.0 was installed by hand; nothing is known of it
    2. without a file of it nothing else is prepared; with one it is
    3. the new version is installed, and taken back
    """
    found_deb = build_deb(tmp_path, "0.9.0")
    subprocess.run(["dpkg", "--install", str(found_deb)], check=True, capture_output=True)
    (found,) = runtime.running()
    assert ("0.9.0", "") == (found.version, found.sha256)
    new = spec(tmp_path, "2.0.0", NEW)
    with pytest.raises(DriverError, match=r"there would be no way back: no package file of outrider-kit 0\.9\.0-1"):
        runtime.prepare(new.release)
    kept = tmp_path / "state/kept"
    kept.mkdir()
    found_deb.rename(kept / found_deb.name)
    runtime.prune([])  # before anything is prepared, as the sidekick does it
    runtime.prepare(new.release)
    runtime.stop(found.workload_id, 0)
    runtime.start(new)
    assert "2.0.0" == installed_content()

    runtime.stop(NEW, 0)
    assert isinstance(runtime, Restarter)
    back = runtime.restart(found.workload_id)

    assert back == runtime.find(found.workload_id)
    assert "0.9.0" == installed_content()
    assert runtime.restart(NEW) is None, "it has a payload"
    runtime.stop(found.workload_id, 0)
    runtime.start(new)
    runtime.remove(found.workload_id)
    runtime.prune([])
    assert [] == list(kept.iterdir()), "nobody goes back there any more"


def test_another_package_or_version_in_the_payload_is_the_releases_fault(runtime: DpkgRuntime, tmp_path: Path) -> None:
    deb = build_deb(tmp_path, "1.0.0")
    for version, name, said in (("1.0.1", NAME, "is offered as 1.0.1"), ("1.0.0", "other", "holds the package other")):
        path = deb if name == NAME else build_deb(tmp_path, "1.0.0", name=name)
        with pytest.raises(Refused, match=said):
            runtime.prepare(RunnableRelease(version=version, sha256="0" * 64, payload=path))


def test_a_payload_for_another_processor_is_this_machines_trouble(runtime: DpkgRuntime, tmp_path: Path) -> None:
    other = build_deb(tmp_path, "1.0.0", fields={"Architecture": "s390x"})

    with pytest.raises(DriverError, match="is for s390x, this machine is") as raised:
        runtime.prepare(RunnableRelease(version="1.0.0", sha256="0" * 64, payload=other))
    assert "other-architecture" == raised.value.evidence


def test_a_payload_that_was_changed_after_it_was_proved_is_not_installed(runtime: DpkgRuntime, tmp_path: Path) -> None:
    wanted = spec(tmp_path, "1.0.0", OLD)
    build_deb(tmp_path, "1.0.0", fields={"Description": "another one"})

    with pytest.raises(DriverError, match="was changed on this machine since it was proved"):
        runtime.start(wanted)
    assert "" == installed_content()


def test_a_missing_dependency_is_this_machines_trouble_and_leaves_the_way_back_open(
    runtime: DpkgRuntime, tmp_path: Path
) -> None:
    old = spec(tmp_path, "1.0.0", OLD)
    runtime.start(old)
    runtime.stop(OLD, 0)
    with pytest.raises(DriverError, match="dependency") as raised:
        runtime.start(spec(tmp_path, "2.0.0", NEW, fields={"Depends": "python3.99"}))
    assert "unfit" == raised.value.evidence

    runtime.start(old)

    assert Facts(version="1.0.0-1", status="installed") == facts_of(NAME)


def test_an_installation_by_hand_is_an_end_of_what_ran(runtime: DpkgRuntime, tmp_path: Path) -> None:
    ends: queue.Queue[Exited] = queue.Queue()
    runtime.start(spec(tmp_path, "1.0.0", OLD))
    runtime.watch(OLD, ends.put)

    subprocess.run(["dpkg", "--install", str(build_deb(tmp_path, "3.0.0"))], check=True, capture_output=True)

    assert ": outrider-kit 3.0.0-1 is installed" == ends.get(timeout=60).more


def test_the_updater_starts_anew_once_its_own_swap_is_over(
    settings: DpkgSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while an installation isn't decided, and not in mid-swap."""
    ended = threading.Event()
    monkeypatch.setattr("outrider.runtimes.dpkg.runtime.os.kill", lambda pid, number: ended.set())
    own = NeighbourFixture(tmp_path / "state")
    runtime_of(settings, tmp_path).start(spec(tmp_path, "1.0.0", OLD))
    runtime_of(settings, tmp_path).remove("never")
    made = runtime_of(settings, tmp_path, {LAUNCHED: str(tmp_path / "state/code")})
    own.live("u1", "swapping.probing")
    made.watch(OLD, lambda exited: None)
    assert not ended.wait(0.5)
    made.stop(OLD, 0)
    made.start(spec(tmp_path, "2.0.0", NEW))
    made.watch(NEW, lambda exited: None)
    own.live("u1", "idle.waiting")
    assert not ended.wait(0.5), "not decided yet"
    own.live("u1", "swapping.releasing")
    made.remove(OLD)
    assert not ended.wait(0.5), "in mid-swap"
    own.live("u1", "idle.waiting")

    assert ended.wait(60)
    made.close()
    own.die()


def test_the_launchers_folder_and_the_settings_must_be_one(settings: DpkgSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"instance\.state_dir: the updater was started from /elsewhere/code"):
        runtime_of(settings, tmp_path, {LAUNCHED: "/elsewhere/code"})


def test_the_example_is_a_configuration_and_each_of_its_promises_is_asked_for(tmp_path: Path) -> None:
    create_key(tmp_path / "outrider.key")
    key = public_file(tmp_path / "outrider.key")
    text = EXAMPLE.read_text().replace("/etc/outrider/keys/outrider.pub", str(key))

    def problem(old: str, new: str) -> str:
        path = tmp_path / "updater.toml"
        assert old in text
        path.write_text(text.replace(old, new))
        try:
            load_settings((path,), {})
        except ConfigError as error:
            return str(error)
        return ""

    assert "" == problem("[soak]", "[soak]")
    assert "trust.keys: missing" in problem(f'keys = ["{key}"]', "keys = []")
    assert "instance.strategy" in problem('strategy = "stop-first"', 'strategy = "start-first"')
    assert "probe.kind" in problem('kind = "healthcheck"', 'kind = "tcp"')
    assert "instance.balancer" in problem('balancer = "none"', 'balancer = "keys"')
    assert "workload.start_timeout_s" in problem("start_timeout_s = 600.0", "start_timeout_s = 60.0")
    assert "instance.state_dir" in problem('"/var/lib/outrider-updater"', '"/var/lib/outrider/updater"')
    assert "dpkg" in RUNTIMES


@pytest.mark.parametrize(
    ("debian", "version"),
    [("1.2.3-1~deb12", "1.2.3"), ("2:1.2.3-1", "1.2.3"), ("1.2.3~rc.1-1", "1.2.3-rc.1"), ("1.2.3", "1.2.3")],
)
def test_a_version_of_debian_is_read(debian: str, version: str) -> None:
    assert version == upstream_of(debian)
    assert same_version(upstream_of(debian), version)
    assert not same_version(upstream_of(debian), "9.9.9")


def launch(folder: Path, version: str) -> str:
    """Start the launcher with a program that says which version it is; what it printed."""
    program = folder / "program"
    (program / "bin").mkdir(parents=True, exist_ok=True)
    python = program / "bin/python3"
    python.unlink(missing_ok=True)  # as dpkg does it
    python.write_text(f'#!/bin/sh\necho {version} "$OUTRIDER_UPDATER_CODE" "$@"\n')
    python.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "OUTRIDER_PROGRAM_FOLDER": str(program),
        "OUTRIDER_UPDATER_HOME": str(folder),
    }
    words = ["/bin/sh", str(ROOT / "units/updater.sh")]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_launcher_runs_the_code_of_before_until_an_installation_is_decided(tmp_path: Path) -> None:
    rest = f"{tmp_path}/code -m outrider sidekick run --config /etc/outrider/updater.toml\n"
    assert f"1.0.0 {rest}" == launch(tmp_path, "1.0.0")
    (tmp_path / "pending.json").touch()
    assert f"1.0.0 {rest}" == launch(tmp_path, "2.0.0")
    (tmp_path / "pending.json").unlink()
    (tmp_path / "code.new").mkdir()  # a power cut in mid-copy
    assert f"2.0.0 {rest}" == launch(tmp_path, "2.0.0")
