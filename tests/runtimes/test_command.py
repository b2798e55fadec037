"""The runtime ``command``: what the operator's programs are told, and what becomes of each of their failures."""

import queue
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from loguru import logger

from outrider.config.sections import InstanceSettings, WorkloadSettings
from outrider.core.blame import judge
from outrider.core.errors import DriverError, Refused
from outrider.runtimes import Exited, WorkloadSpec, endings
from outrider.runtimes.command import problems
from outrider.runtimes.command.programs import Call, Running, run
from outrider.runtimes.command.runtime import CommandRuntime
from outrider.runtimes.process.identity import boot_id, look_at, marked
from tests.contracts.kits.settings import settings_with
from tests.support.command_programs import command_settings
from tests.support.waiting import eventually
from tests.support.workloads import answer, payload, release, spec, state_dir

__all__ = ["state_dir"]

ID = "app-1.0.0-aa"
Make = Callable[..., CommandRuntime]


@pytest.fixture
def make(tmp_path: Path, state_dir: Path) -> Iterator[Make]:
    """Makes runtimes whose settings may be changed; all are closed at the end."""
    made: list[CommandRuntime] = []

    def make(*, shared: WorkloadSettings | None = None, **changes: object) -> CommandRuntime:
        made.append(
            CommandRuntime(
                command_settings(tmp_path, **changes),
                shared or WorkloadSettings(stop_grace_s=5),
                InstanceSettings(id="web-1", app="{hello}", group="g", state_dir=state_dir),
                environment={"PATH": "/usr/bin:/bin", "OUTRIDER_ETCD_PASSWORD": "secret"},
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def switch(folder: Path, name: str, text: str = "") -> None:
    (folder / "switches" / name).write_text(text)


def off(folder: Path, name: str) -> None:
    (folder / "switches" / name).unlink()


def calls(folder: Path) -> list[str]:
    return (folder / "switches/calls").read_text().split()


def second(folder: Path) -> WorkloadSpec:
    return WorkloadSpec(workload_id="app-2.0.0-bb", release=release("2.0.0", payload(folder)))


def test_programs_are_told_as_updatectl_told_them_and_nothing_of_our_secrets(make: Make, tmp_path: Path) -> None:
    runtime, old, new = make(), spec(tmp_path), second(tmp_path)
    runtime.start(old)

    started = runtime.start(new)

    told = dict(line.partition("=")[::2] for line in (tmp_path / "switches/start.env").read_text().splitlines())
    wanted = {
        "UPDATE_SERVICE_VERSION": "2.0.0",
        "UPDATE_SERVICE_OLD_VERSION": "1.0.0",
        "UPDATE_SERVICE_APP_ID": "hello",
        "UPDATE_SERVICE_URL": new.release.payload.as_uri(),
        "UPDATE_SERVICE_SHA256": new.release.sha256,
        "UPDATE_SERVICE_SIZE": str(new.release.payload.stat().st_size),
        "OUTRIDER_ACTION": "start",
        "OUTRIDER_INSTANCE": "web-1",
        "OUTRIDER_GROUP": "g",
        "OUTRIDER_WORKLOAD": "app-2.0.0-bb",
        "OUTRIDER_PAYLOAD": str(new.release.payload),
        "PORT": started.url.rpartition(":")[2],
        "HOST": "127.0.0.1",
    }
    assert wanted.items() <= told.items()
    assert "OUTRIDER_ETCD_PASSWORD" not in told


def test_what_programs_print_goes_to_the_log(make: Make, tmp_path: Path) -> None:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(str(message.record["extra"].get("said"))))
    try:
        make().prepare(spec(tmp_path).release)
    finally:
        logger.remove(sink)

    assert "unpacking 1.0.0" in said


def test_prepare_runs_once_and_check_each_time(make: Make, tmp_path: Path) -> None:
    runtime, wanted = make(), spec(tmp_path)

    runtime.prepare(wanted.release)
    runtime.start(wanted)

    assert ["prepare", "check", "check", "start", "find"] == calls(tmp_path)


@pytest.mark.parametrize("action", ["prepare", "check", "start"])
def test_75_means_not_now_and_the_release_is_not_to_blame(make: Make, tmp_path: Path, action: str) -> None:
    runtime = make()
    switch(tmp_path, f"{action}.exits", "75")
    switch(tmp_path, f"{action}.says", "a backup runs\n")

    with pytest.raises(DriverError, match=rf"{action} \(example-update\): not now; it said: a backup runs") as caught:
        runtime.start(spec(tmp_path))

    assert ("not-now", "machine") == (caught.value.evidence, judge(caught.value.evidence))
    assert not isinstance(caught.value, Refused)
    assert runtime.running() == ()

    off(tmp_path, f"{action}.exits")
    assert "1.0.0" == runtime.start(spec(tmp_path)).version


@pytest.mark.parametrize(
    ("code", "blame"), [("65", "release"), ("78", "machine"), ("77", "machine"), ("127", "machine"), ("1", "world")]
)
def test_an_exit_code_says_whose_fault_it_is_and_any_other_nobodys(
    make: Make, tmp_path: Path, code: str, blame: str
) -> None:
    runtime = make()
    switch(tmp_path, "start.exits", code)

    with pytest.raises(DriverError, match=f"exit {code}") as caught:
        runtime.start(spec(tmp_path))

    assert blame == judge(caught.value.evidence)


def test_what_ends_at_once_is_the_releases_fault_where_find_knows_another_version(make: Make, tmp_path: Path) -> None:
    runtime = make()
    answer(runtime.start(spec(tmp_path)))
    switch(tmp_path, "start.exits", "0")

    with pytest.raises(Refused, match="find says that it does not run"):
        runtime.start(second(tmp_path))

    assert ["1.0.0"] == [each.version for each in runtime.running()]


def test_without_another_version_nobody_is_blamed_for_what_find_does_not_see(make: Make, tmp_path: Path) -> None:
    runtime = make()
    switch(tmp_path, "start.exits", "0")

    with pytest.raises(DriverError, match="find says that it does not run") as caught:
        runtime.start(spec(tmp_path))

    assert "world" == judge(caught.value.evidence)


def test_what_start_tells_after_the_apps_last_words_hides_them_not(make: Make, tmp_path: Path) -> None:
    """An app in the background may end before its ``start`` prints how it is called."""
    runtime = make()
    answer(runtime.start(spec(tmp_path)))
    switch(tmp_path, "start.says", "sh: 1: exec: frobnicate: not found\nhandle=pid 7\nurl=http://127.0.0.1:7\n")
    switch(tmp_path, "start.exits", "0")

    with pytest.raises(DriverError, match="said: sh: 1: exec: frobnicate: not found; frobnicate is not on") as caught:
        runtime.start(second(tmp_path))

    assert "no-interpreter" == caught.value.evidence


def test_a_port_in_use_is_this_machines_fault_and_names_who_has_it(make: Make, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        runtime = make(shared=WorkloadSettings(ports=str(port)))

        with pytest.raises(DriverError, match=f"port {port} is in use by pid") as caught:
            runtime.start(spec(tmp_path))

    assert "no-port" == caught.value.evidence
    assert "start" not in calls(tmp_path)


def test_a_full_disk_is_this_machines_fault(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = make()
    switch(tmp_path, "start.exits", "65")
    monkeypatch.setattr(endings, "is_full", lambda folder: True)

    with pytest.raises(DriverError, match="this machine's disk is full") as caught:
        runtime.start(spec(tmp_path))

    assert "disk-full" == caught.value.evidence


def test_a_program_that_hangs_is_ended_at_its_limit(make: Make, tmp_path: Path, state_dir: Path) -> None:
    runtime = make(shared=WorkloadSettings(start_timeout_s=0.5))
    runtime.prepare(spec(tmp_path).release)
    switch(tmp_path, "start.hangs")

    with pytest.raises(DriverError, match=r"start \(example-update\): has not ended within 0\.5 s"):
        runtime.start(spec(tmp_path))

    assert () == marked({"OUTRIDER_WORKLOAD": ID, "OUTRIDER_INSTANCE_DIR": str(state_dir)})


def test_a_missing_program_is_this_machines_fault(make: Make, tmp_path: Path) -> None:
    runtime = make(start=("/nowhere/start",))

    with pytest.raises(DriverError, match="start: can't run /nowhere/start: No such file") as caught:
        runtime.start(spec(tmp_path))

    assert "wrong-setting" == caught.value.evidence


def test_find_that_does_not_know_is_no_end(make: Make, tmp_path: Path) -> None:
    """
    1. find exits with 4: neither yes nor no
    2. the watch waits; asked directly, the runtime doesn't know
    3. find works again, and the workload is stopped: now the watch tells it
    """
    runtime = make()
    runtime.start(spec(tmp_path))
    ends: queue.Queue[Exited] = queue.Queue()
    switch(tmp_path, "find.exits", "4")
    before = calls(tmp_path).count("find")
    runtime.watch(ID, ends.put)
    eventually(lambda: calls(tmp_path).count("find") >= before + 2)

    with pytest.raises(DriverError, match="it can't be told whether it runs"):
        runtime.find(ID)
    assert ends.empty()

    off(tmp_path, "find.exits")
    runtime.stop(ID, 5)
    assert Exited(workload_id=ID, status="gone") == ends.get(timeout=60)


def test_a_look_that_comes_after_the_removal_leaves_no_folder(make: Make, tmp_path: Path, state_dir: Path) -> None:
    """
    1. the watch has read the record of a workload, and is about to ask for it
    2. the workload is removed
    3. the watch asks: it doesn't run, and its folder doesn't come back
    """
    runtime = make()
    runtime.start(spec(tmp_path))
    record = runtime._records.read(ID)
    assert record is not None
    runtime.remove(ID)

    assert runtime._find(record) is None
    assert [] == list((state_dir / "workloads").iterdir())


def test_stop_that_fails_says_so_and_the_workload_runs_on(make: Make, tmp_path: Path) -> None:
    runtime = make()
    started = runtime.start(spec(tmp_path))
    switch(tmp_path, "stop.exits", "75")

    with pytest.raises(DriverError, match=r"stop \(example-update\): not now"):
        runtime.stop(ID, 5)

    assert started == runtime.find(ID)
    off(tmp_path, "stop.exits")
    runtime.remove(ID)
    assert () == runtime.running()


def test_start_may_say_where_it_answers(make: Make, tmp_path: Path) -> None:
    runtime = make()
    switch(tmp_path, "start.says", "url=http://10.0.0.7:99/\nurl=not-one\n")

    started = runtime.start(spec(tmp_path))

    assert "http://10.0.0.7:99" == started.url
    assert started == runtime.find(ID)


def test_a_program_that_a_killed_sidekick_left_is_ended_before_the_next_one(
    make: Make, tmp_path: Path, state_dir: Path
) -> None:
    runtime = make()
    home = state_dir / "workloads" / ID
    left = run(
        Call(
            action="start",
            words=["/bin/sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"],
            environment={"OUTRIDER_INSTANCE_DIR": str(state_dir)},
            home=home,
            output=tmp_path / "left.log",
            limit_s=60,
        )
    )
    found = look_at(int(left.lines[0]))
    assert found is not None
    note = Running(action="start", pid=found.pid, started=found.started, boot_id=boot_id())
    (home / "program.json").write_bytes(msgspec.json.encode(note))

    runtime.start(spec(tmp_path))

    gone = look_at(found.pid)
    assert gone is None or gone.zombie


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"start": ()}, "command.start", "missing; for example"),
        ({"stop": ("bin/stop",)}, "command.stop", "is relative; write the whole path"),
        ({"find": ("/nowhere/find",)}, "command.find", "/nowhere/find: no such program on this machine"),
        ({"check": ("/etc/passwd",)}, "command.check", "/etc/passwd: not executable"),
        ({"start": ("/bin/true", "{prot}")}, "command.start", "did you mean {port}?"),
        ({"prepare_timeout_s": 590.0}, "command.prepare_timeout_s", "longer than download.verify_timeout_s (600)"),
    ],
)
def test_mistakes_are_found_when_the_settings_are_loaded(
    tmp_path: Path, changes: dict[str, object], key: str, said: str
) -> None:
    found = problems(settings_with("command", command_settings(tmp_path, **changes)))

    assert [key] == [each for each, _ in found]
    assert said in found[0][1]


def test_good_settings_have_no_problem(tmp_path: Path) -> None:
    assert () == problems(settings_with("command", command_settings(tmp_path)))
