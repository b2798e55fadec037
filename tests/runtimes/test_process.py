"""What only the process runtime can break: processes that are lost, doubled, mistaken for others or left behind."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from outrider.core.errors import DriverError
from outrider.runtimes import Exited, Given, WorkloadSpec
from outrider.runtimes.process.identity import is_running, look_at, open_process
from outrider.runtimes.process.ports import free_port
from outrider.runtimes.process.runtime import ProcessRuntime
from tests.support.waiting import eventually
from tests.support.workloads import (
    SHARED,
    answer,
    make_process_runtime,
    ours,
    payload,
    pid_of,
    process_runtime,
    release,
    spec,
    state_dir,
)

__all__ = ["process_runtime", "state_dir"]


def test_the_app_gets_its_place_in_environment_and_arguments(process_runtime: ProcessRuntime, tmp_path: Path) -> None:
    started = process_runtime.start(spec(tmp_path))

    told = answer(started)
    port = started.url.rpartition(":")[2]
    assert [f"--port={port}", "127.0.0.1", "v1.0.0"] == told["ARGS"]
    assert port == told["PORT"]
    assert "web1" == told["OUTRIDER_INSTANCE"]
    assert str(tmp_path / "state/workloads/app-1.0.0-aa/root") == told["CWD"]


def test_the_app_gets_what_its_releases_environment_gives_it(state_dir: Path, tmp_path: Path) -> None:
    """Over the machine's settings, below what the runtime sets itself; arguments behind those of the command."""
    runtime = make_process_runtime(state_dir, replace(SHARED, env={"COLOUR": "blue", "SIZE": "9"}))
    given = Given(variables={"COLOUR": "red", "KEY": "ü"}, arguments=("--more", "a b"))

    told = answer(runtime.start(replace(spec(tmp_path), given=given)))

    assert ("red", "9", "ü") == (told["COLOUR"], told["SIZE"], told["KEY"])
    port = told["PORT"]
    assert [f"--port={port}", "127.0.0.1", "v1.0.0", "--more", "a b"] == told["ARGS"]


def test_the_app_inherits_the_environment_without_what_is_meant_for_the_sidekick(
    state_dir: Path, tmp_path: Path
) -> None:
    runtime = make_process_runtime(
        state_dir,
        replace(SHARED, env={"COLOUR": "blue"}),
        environment={"LANG": "C", "OUTRIDER_ETCD_PASSWORD": "geheim", "NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1"},
    )

    told = answer(runtime.start(spec(tmp_path)))

    assert ("C", "blue") == (told["LANG"], told["COLOUR"])
    assert not {"OUTRIDER_ETCD_PASSWORD", "NOTIFY_SOCKET", "WATCHDOG_USEC"} & told.keys()
    runtime.close()


def test_output_goes_to_a_file_that_outlives_the_workload(process_runtime: ProcessRuntime, tmp_path: Path) -> None:
    answer(process_runtime.start(spec(tmp_path)))

    process_runtime.remove("app-1.0.0-aa")

    assert "started" in (tmp_path / "state/logs/app-1.0.0-aa.log").read_text()
    assert not (tmp_path / "state/workloads/app-1.0.0-aa").exists()


def test_a_sigkilled_sidekick_leaves_the_app_running_and_the_next_one_adopts_it(
    process_runtime: ProcessRuntime, state_dir: Path, tmp_path: Path
) -> None:
    """
    1. another process starts the workload, prints it and is killed with SIGKILL
    2. the app goes on, and this runtime finds it under the same pid and address, starts no second one and sees its end
    """
    script = (
        "import sys, time; from pathlib import Path\n"
        "from tests.support.workloads import make_process_runtime, spec\n"
        "made = make_process_runtime(Path(sys.argv[1]))\n"
        "print(made.start(spec(Path(sys.argv[2]))).handle, flush=True); time.sleep(600)"
    )
    sidekick = subprocess.Popen(
        [sys.executable, "-c", script, str(state_dir), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert sidekick.stdout is not None
    handle = sidekick.stdout.readline().strip()
    sidekick.kill()
    sidekick.wait()
    sidekick.stdout.close()

    adopted = process_runtime.start(spec(tmp_path))

    assert handle == adopted.handle
    assert pid_of(adopted) == answer(adopted)["PID"]
    ends: queue.Queue[Exited] = queue.Queue()
    process_runtime.watch("app-1.0.0-aa", ends.put)
    process_runtime.stop("app-1.0.0-aa", 5)
    assert "gone" == ends.get(timeout=60).status
    assert not look_at(pid_of(adopted)) or look_at(pid_of(adopted)).zombie  # type: ignore[union-attr]


@pytest.mark.parametrize("left", ["before the start", "nothing", "half"])
def test_a_crash_between_start_and_record_loses_no_workload(state_dir: Path, tmp_path: Path, left: str) -> None:
    first = make_process_runtime(state_dir)
    started = first.start(spec(tmp_path))
    first.close()
    path = state_dir / "workloads/app-1.0.0-aa/record.json"
    record = json.loads(path.read_text())
    contents = {"before the start": json.dumps({**record, "pid": 0, "started": 0}), "nothing": "", "half": '{"pid": 7'}
    path.write_text(contents[left])
    second = make_process_runtime(state_dir)

    found = second.find("app-1.0.0-aa")

    assert started == found
    assert record == json.loads(path.read_text())
    second.close()


def test_two_instances_on_one_machine_never_take_each_others_workloads(state_dir: Path, tmp_path: Path) -> None:
    """Both run the same workload id; the second one's record was never finished."""
    neighbour_dir = state_dir / "neighbour"
    own = make_process_runtime(state_dir)
    neighbour = make_process_runtime(neighbour_dir, instance="web2")
    started = neighbour.start(spec(tmp_path))
    home = state_dir / "workloads/app-1.0.0-aa"
    home.mkdir(parents=True)
    (home / "record.json").write_text(
        (neighbour_dir / "workloads/app-1.0.0-aa/record.json")
        .read_text()
        .replace(f'"pid":{pid_of(started)}', '"pid":0')
    )

    assert own.find("app-1.0.0-aa") is None

    own.stop("app-1.0.0-aa", 0)
    assert started == neighbour.find("app-1.0.0-aa")
    neighbour.stop("app-1.0.0-aa", 5)
    own.close()
    neighbour.close()


def test_a_pid_that_was_given_to_another_process_is_not_the_workload(
    process_runtime: ProcessRuntime, state_dir: Path, tmp_path: Path
) -> None:
    """The record names a living process that was started at another time: this test's own."""
    process_runtime.start(spec(tmp_path))
    process_runtime.stop("app-1.0.0-aa", 5)
    path = state_dir / "workloads/app-1.0.0-aa/record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": os.getpid()}))

    assert process_runtime.find("app-1.0.0-aa") is None

    process_runtime.stop("app-1.0.0-aa", 0)  # would end this very test


def test_a_pidfd_is_only_given_for_the_very_process() -> None:
    own = look_at(os.getpid())
    assert own is not None

    with open_process(own.pid, own.started) as right, open_process(own.pid, own.started + 1) as other:
        assert right is not None
        assert other is None


def test_a_record_of_another_boot_is_not_believed(
    process_runtime: ProcessRuntime, state_dir: Path, tmp_path: Path
) -> None:
    process_runtime.start(spec(tmp_path))
    path = state_dir / "workloads/app-1.0.0-aa/record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))

    assert process_runtime.find("app-1.0.0-aa") is None


def test_an_app_that_ignores_sigterm_is_killed_after_the_grace(state_dir: Path, tmp_path: Path) -> None:
    runtime = make_process_runtime(state_dir, replace(SHARED, env={"STUBBORN": "1"}))
    ends: queue.Queue[Exited] = queue.Queue()
    answer(runtime.start(spec(tmp_path)))
    runtime.watch("app-1.0.0-aa", ends.put)
    began = time.monotonic()

    runtime.stop("app-1.0.0-aa", 0.5)

    assert 0.5 <= time.monotonic() - began < 60
    assert "signal 9" == ends.get(timeout=60).status
    runtime.close()


def test_what_the_app_has_started_ends_with_it(state_dir: Path, tmp_path: Path) -> None:
    """The app itself obeys SIGTERM at once; its child ignores it."""
    runtime = make_process_runtime(state_dir, replace(SHARED, env={"WITH_CHILD": "1"}))
    answer(runtime.start(spec(tmp_path)))
    assert 2 == len(ours(state_dir))

    runtime.stop("app-1.0.0-aa", 0.5)

    assert () == ours(state_dir)
    runtime.close()


def test_the_orphans_of_a_crashed_app_are_gone_before_it_is_started_again(state_dir: Path, tmp_path: Path) -> None:
    settings = replace(SHARED, env={"WITH_CHILD": "1"}, stop_grace_s=0.2)
    runtime = make_process_runtime(state_dir, settings)
    crashed = runtime.start(spec(tmp_path))
    answer(crashed)
    before = set(ours(state_dir))
    os.kill(pid_of(crashed), signal.SIGKILL)
    eventually(lambda: runtime.find("app-1.0.0-aa") is None)

    runtime.start(spec(tmp_path))

    assert not before & set(ours(state_dir))
    runtime.close()


def test_an_ended_child_does_not_stay_a_zombie(process_runtime: ProcessRuntime, tmp_path: Path) -> None:
    started = process_runtime.start(spec(tmp_path))
    pid = pid_of(started)
    assert look_at(pid) is not None

    os.kill(pid, signal.SIGKILL)

    eventually(lambda: look_at(pid) is None)


def test_an_exit_status_is_told_to_those_who_come_late(state_dir: Path, tmp_path: Path) -> None:
    runtime = make_process_runtime(state_dir, command=("server",))
    script = {"server": "#!/bin/sh\nsleep 0.5\nexit 7\n"}
    runtime.start(WorkloadSpec(workload_id="late", release=release("1.0.0", payload(tmp_path, script, mode=0o755))))
    eventually(lambda: runtime.find("late") is None)
    ends: queue.Queue[Exited] = queue.Queue()

    runtime.watch("late", ends.put)

    assert "exit 7" == ends.get(timeout=60).status
    runtime.close()


def test_an_exit_status_is_told_right_to_who_comes_before_it_was_read(state_dir: Path, tmp_path: Path) -> None:
    """
    1. the thread that reads statuses is held up by a delivery
    2. the workload ends, and somebody who wants to know of its end comes
    3. the thread goes on: status and request are found at the same time
    """
    runtime = make_process_runtime(state_dir, command=("server",))
    script = {"server": "#!/bin/sh\nread line <../go\nexit 7\n"}
    (state_dir / "workloads" / "late").mkdir(parents=True)
    os.mkfifo(state_dir / "workloads" / "late" / "go")
    runtime.start(WorkloadSpec(workload_id="late", release=release("1.0.0", payload(tmp_path, script, mode=0o755))))
    held, go_on = threading.Event(), threading.Event()
    ends: queue.Queue[Exited] = queue.Queue()

    def hold(_: Exited) -> None:
        held.set()
        go_on.wait(30)

    runtime.watch("another", hold)
    assert held.wait(60)
    (state_dir / "workloads" / "late" / "go").write_text("\n")
    eventually(lambda: runtime.find("late") is None)
    runtime.watch("late", ends.put)
    go_on.set()

    assert "exit 7" == ends.get(timeout=60).status
    runtime.close()


def test_the_first_free_port_of_a_range_is_taken(state_dir: Path, tmp_path: Path) -> None:
    with socket.socket() as busy:
        port = free_port("127.0.0.1", "")  # no outgoing connection is given one of those behind it
        busy.bind(("127.0.0.1", port))
        busy.listen()
        settings = replace(SHARED, ports=f"{port}-{port + 20}")
        runtime = make_process_runtime(state_dir, settings)

        started = runtime.start(spec(tmp_path))

        assert port < int(started.url.rpartition(":")[2]) <= port + 20
        answer(started)
        runtime.close()


def test_a_fixed_port_in_use_is_this_machines_trouble_and_may_pass(state_dir: Path, tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        runtime = make_process_runtime(state_dir, replace(SHARED, ports=str(port)))

        with pytest.raises(DriverError, match=f"no free port on 127.0.0.1 in {port}") as caught:
            runtime.start(spec(tmp_path))

        assert caught.value.retry
        runtime.close()


def test_a_host_that_is_not_here_is_named(state_dir: Path, tmp_path: Path) -> None:
    runtime = make_process_runtime(state_dir, replace(SHARED, host="192.0.2.1"))

    with pytest.raises(DriverError, match=r"workload\.host '192\.0\.2\.1': can't listen there") as caught:
        runtime.start(spec(tmp_path))

    assert "network" == caught.value.evidence, "its interface may come back"
    runtime.close()


def test_a_host_that_is_no_address_is_a_setting_to_correct(state_dir: Path, tmp_path: Path) -> None:
    runtime = make_process_runtime(state_dir, replace(SHARED, host="1.2.3.4.5"))

    with pytest.raises(DriverError, match=r"workload\.host '1\.2\.3\.4\.5': can't listen there") as caught:
        runtime.start(spec(tmp_path))

    assert caught.value.evidence in ("wrong-setting", "network"), "a resolver that is away can't say"
    runtime.close()


def test_closing_the_runtime_leaves_the_workload_alone(state_dir: Path, tmp_path: Path) -> None:
    runtime = make_process_runtime(state_dir)
    started = runtime.start(spec(tmp_path))
    process = look_at(pid_of(started))
    assert process is not None

    runtime.close()

    answer(started)
    assert is_running(process.pid, process.started)


def test_a_port_that_nobody_chose_is_none_that_an_outgoing_connection_can_take() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    ports = [free_port("127.0.0.1", "") for _ in range(50)]

    assert all(10_000 <= port < lowest for port in ports), ports
    assert len(set(ports)) > 40, "instances that start at the same time shall not all get the same one"


def test_a_workload_that_is_started_again_gets_no_address_but_its_own(state_dir: Path, tmp_path: Path) -> None:
    """
    1. two versions ran, and are down, as after a reboot of the machine in mid-swap
    2. the one that the balancer's entry names is started first, and a third beside it
    3. each is where the balancer may look for it, and the third where nothing of ours was
    """
    port = free_port("127.0.0.1", "")  # of those that no outgoing connection is given
    settings = replace(SHARED, ports=f"{port}-{port + 20}")
    runtime = make_process_runtime(state_dir, settings)
    try:
        old, new = (runtime.start(spec(tmp_path, workload_id=name)).url for name in ("app-old", "app-new"))
        for name in ("app-old", "app-new"):
            runtime.stop(name, 5)

        again = runtime.start(spec(tmp_path, workload_id="app-new")).url
        third = runtime.start(spec(tmp_path, workload_id="app-third")).url

        assert new == again
        assert third not in (old, new)
        assert old == runtime.start(spec(tmp_path, workload_id="app-old")).url
    finally:
        for workload in runtime.running():
            runtime.stop(workload.workload_id, 5)
        runtime.close()
