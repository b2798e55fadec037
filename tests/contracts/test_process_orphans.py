"""No worker outlives its app into the app's next start, whatever shape it has (P3)."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from outrider.runtimes.process.cgroups import own_cgroup
from outrider.runtimes.process.family import reap
from outrider.runtimes.process.identity import boot_id, look_at
from outrider.runtimes.process.runtime import ProcessRecord
from tests.support.orphans import Shape, end_workers, orphan_runtime, orphan_spec, program, worker_of
from tests.support.rings import mostly_long
from tests.support.waiting import eventually
from tests.support.workloads import pid_of, state_dir

__all__ = ["state_dir"]

ID = "app-1.0.0-aa"
WITH_EVIDENCE: tuple[Shape, ...] = ("blank", "group", "daemon", "printing", "stubborn")
"""What a sidekick finds that was restarted, too."""


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Path]:
    """Where workers write their pid; at the end none of them is left."""
    yield tmp_path / "worker"
    end_workers(tmp_path / "worker")


@pytest.fixture
def cgroup(tmp_path: Path) -> Iterator[Path]:
    """A cgroup (version 2) that the test may write."""
    unified = next((Path(each) for each in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified") if _is_v2(Path(each))), None)
    own = own_cgroup() or unified
    if own is None or not os.access(own, os.W_OK):
        pytest.skip("no cgroup of version 2 that may be written")
    folder = own / f"outrider-test-{os.getpid()}-{tmp_path.name}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup may be made in {own}: {error}")
    yield folder
    for leaf in sorted(folder.iterdir(), reverse=True):
        if leaf.is_dir():
            leaf.rmdir()
    folder.rmdir()


def _is_v2(folder: Path) -> bool:
    return (folder / "cgroup.controllers").exists()


def _lives(pid: int) -> bool:
    found = look_at(pid)
    return found is not None and not found.zombie


@pytest.mark.parametrize("shape", WITH_EVIDENCE)
def test_a_worker_that_outlives_its_master_is_stopped_before_the_app_starts_again(
    state_dir: Path, notes: Path, tmp_path: Path, shape: Shape
) -> None:
    runtime = orphan_runtime(state_dir, shape, notes)
    master = pid_of(runtime.start(orphan_spec(tmp_path)))
    worker = worker_of(notes)
    os.kill(master, signal.SIGKILL)
    eventually(lambda: runtime.find(ID) is None)
    lived = _lives(worker)

    runtime.start(orphan_spec(tmp_path))

    assert lived
    assert not _lives(worker)
    again = worker_of(notes)  # a busy machine takes its time until the app has one
    runtime.stop(ID, 0.2)
    assert not _lives(again)
    runtime.close()


@pytest.mark.parametrize("shape", mostly_long(WITH_EVIDENCE, short=WITH_EVIDENCE[0].__eq__))
def test_another_life_of_the_sidekick_finds_the_worker_too(
    state_dir: Path, notes: Path, tmp_path: Path, shape: Shape
) -> None:
    with program(state_dir, shape, notes, tmp_path) as first:
        master = int(first.ask("start"))
        worker = worker_of(notes)
    os.kill(master, signal.SIGKILL)
    eventually(lambda: not _lives(master))
    runtime = orphan_runtime(state_dir, shape, notes)

    runtime.stop(ID, 0.2)

    assert not _lives(worker)
    runtime.close()


def test_a_double_fork_without_a_trace_is_found_by_the_subreaper(state_dir: Path, notes: Path, tmp_path: Path) -> None:
    with program(state_dir, "double-fork", notes, tmp_path) as sidekick:
        master = int(sidekick.ask("start"))
        worker = worker_of(notes)
        os.kill(master, signal.SIGKILL)
        eventually(lambda: sidekick.ask("find") == "None")
        lived = _lives(worker)

        sidekick.ask("start")
        again = worker_of(notes)
        killed = not _lives(worker)
        sidekick.ask("stop")

        assert lived
        assert killed
        assert not _lives(again)


def test_the_worker_of_another_version_is_left_alone(state_dir: Path, notes: Path, tmp_path: Path) -> None:
    """
    1. the old version and the new one run side by side, each with a worker that nothing ties to it
    2. the old version is stopped: its worker is older than the new version, so it can't be of that one
    """
    with program(state_dir, "double-fork", notes, tmp_path) as sidekick:
        sidekick.ask("start", "app-1.0.0-aa")
        old = worker_of(notes)
        sidekick.ask("start", "app-2.0.0-bb")
        new = worker_of(notes)

        sidekick.ask("stop", "app-1.0.0-aa")
        after_old = (_lives(old), _lives(new))
        sidekick.ask("stop", "app-2.0.0-bb")

        assert (False, True) == after_old
        assert not _lives(new)


def test_what_the_sidekicks_process_had_started_before_is_left_alone(
    state_dir: Path, notes: Path, tmp_path: Path
) -> None:
    """An entry point of a container starts a helper, and becomes the sidekick."""
    helper = tmp_path / "helper"
    shell = ("sh", "-c", 'sleep 600 & echo $! > "$0"; exec "$@"', str(helper))
    with program(state_dir, "double-fork", notes, tmp_path, before=shell) as sidekick:
        sidekick.ask("start")
        worker = worker_of(notes)

        sidekick.ask("stop")

        lives = _lives(int(helper.read_text()))
        os.kill(int(helper.read_text()), signal.SIGKILL)
        assert lives
        assert not _lives(worker)


def test_a_double_fork_without_a_trace_is_found_by_its_cgroup(
    state_dir: Path, notes: Path, tmp_path: Path, cgroup: Path
) -> None:
    """Also by another life of the sidekick, which is no ancestor of it."""
    first = orphan_runtime(state_dir, "double-fork", notes, cgroup=cgroup)
    master = pid_of(first.start(orphan_spec(tmp_path)))
    worker = worker_of(notes)
    first.close()
    os.kill(master, signal.SIGKILL)
    second = orphan_runtime(state_dir, "double-fork", notes, cgroup=cgroup)
    eventually(lambda: second.find(ID) is None)

    second.remove(ID)

    assert not _lives(worker)
    assert [] == [each for each in cgroup.iterdir() if each.is_dir()]
    second.close()


@pytest.mark.parametrize("left", ["its leader", "a member in another cgroup"])
def test_a_stranger_in_a_session_with_a_number_that_was_used_before_is_left_alone(
    state_dir: Path, notes: Path, left: str
) -> None:
    """
    1. the record names a process that has ended
    2. a younger one has got its pid, and leads a session; or that one has ended, too, and another is left in there
    """
    leader = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    member = int(leader.stdout.readline())
    found = look_at(leader.pid)
    assert found is not None
    if left != "its leader":
        leader.kill()
        leader.wait()
    home = state_dir / "workloads" / ID
    home.mkdir(parents=True)
    record = ProcessRecord(
        workload_id=ID, version="1.0.0", host="127.0.0.1", port=1, boot=boot_id(), pid=leader.pid,
        started=found.started - 1, cgroup="/system.slice/app.service",
    )  # fmt: skip
    (home / "record.json").write_bytes(msgspec.json.encode(record))
    runtime = orphan_runtime(state_dir, "blank", notes)

    runtime.stop(ID, 0.2)

    assert _lives(member)
    os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
    leader.stdout.close()
    runtime.close()


def test_orphans_that_ended_are_reaped_and_children_of_others_are_not(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        os._exit(3)
    eventually(lambda: (look_at(child) or pytest.fail("reaped too early")).zombie)
    first: set[tuple[int, int]] = set()

    def noticed() -> bool:  # /proc may show it a moment before it can be waited for
        first.update(reap(set()))
        return child in {pid for pid, _ in first}

    eventually(noticed)
    waits = look_at(child)
    assert waits is not None
    assert waits.zombie
    seen = first

    def forgotten() -> bool:
        nonlocal seen
        seen = reap(seen)
        return look_at(child) is None

    eventually(forgotten)
    assert child not in {pid for pid, _ in seen}
