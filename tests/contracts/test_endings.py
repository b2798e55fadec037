"""An end means the same whenever it comes: what every runtime finds out about an app that ends before it has served.

``tests/live/test_runtime_contract.py`` runs the same for those that need a program of their own.
"""

import contextlib
import queue
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from outrider.core.errors import DriverError
from outrider.runtimes import Exited, Given, Runtime, Workload, WorkloadSpec
from tests.contracts.kits.runtimes import RUNTIME_KITS, Ending, RuntimeKit
from tests.contracts.test_runtimes import ID, kit, runtime, state_dir
from tests.support.barriers import Barrier
from tests.support.waiting import eventually

__all__ = ["kit", "runtime", "state_dir"]

NEW = "app-2.0.0-bb"
ENDINGS: tuple[Ending, ...] = get_args(Ending)


@pytest.fixture(params=[name for name, kit in RUNTIME_KITS.items() if kit.runs_apps and not kit.is_live])
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def old(runtime: Runtime, kit: RuntimeKit, tmp_path: Path) -> Workload:
    """A version that serves meanwhile: without one some runtimes blame nobody."""
    started = runtime.start(WorkloadSpec(workload_id=ID, release=kit.good(tmp_path, "1.0.0")))
    kit.answer(started)
    return started


def candidate(kit: RuntimeKit, folder: Path, how: Ending, variables: Mapping[str, str]) -> WorkloadSpec:
    return WorkloadSpec(
        workload_id=NEW, release=kit.ending(folder, f"2.0.{ENDINGS.index(how)}", how), given=Given(variables=variables)
    )


def end_of(runtime: Runtime, spec: WorkloadSpec, let_go: Callable[[Workload], object]) -> Exited:
    """Start it, and have its end told by the start or by the watch; whichever sees it."""
    ends: queue.Queue[Exited] = queue.Queue()
    try:
        started = runtime.start(spec)
    except DriverError as error:
        return Exited(workload_id=spec.workload_id, status="", more=str(error), evidence=error.evidence)
    runtime.watch(spec.workload_id, ends.put)
    let_go(started)
    return ends.get(timeout=60)


@contextlib.contextmanager
def taken(port: int = 0) -> Iterator[int]:
    """Somebody else listens there."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield other.getsockname()[1]


def let_go(barrier: Barrier, how: Ending, stack: contextlib.ExitStack, started: Workload) -> None:
    """Let the app come up, and find its port taken if that is how it ends."""
    if how == "bind":
        stack.enter_context(taken(int(started.url.rpartition(":")[2])))
    barrier.open(started)


def test_what_ends_at_once_is_judged_by_its_words_and_by_this_machine(
    runtime: Runtime, kit: RuntimeKit, name: str, old: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"outrider.runtimes.{name}.runtime._AT_ONCE_S", 60, raising=False)
    for how in (each for each in ENDINGS if kit.seen_in(each)):
        place: AbstractContextManager[int | None] = taken() if how == "bind" else contextlib.nullcontext()
        with place as port, monkeypatch.context() as patched:
            if port is not None:  # it was free when it was chosen
                patched.setattr("outrider.runtimes.process.ports.free_port", lambda *given, port=port: port)
            exited = end_of(runtime, candidate(kit, tmp_path, how, {}), lambda started: None)

        assert (how, kit.seen_in(how)) == (how, exited.evidence), exited
        runtime.remove(NEW)
        assert (old,) == runtime.running()


def test_what_ends_after_a_while_is_judged_as_what_ends_at_once(
    runtime: Runtime, kit: RuntimeKit, old: Workload, tmp_path: Path
) -> None:
    """A busy machine takes a while to load an app; the barrier stands for that."""
    for how in (each for each in ENDINGS if kit.seen_in(each)):
        with kit.barrier() as barrier, contextlib.ExitStack() as stack:
            exited = end_of(
                runtime, candidate(kit, tmp_path, how, barrier.variables), partial(let_go, barrier, how, stack)
            )

            assert exited.status, "the watch has told it"
            assert (how, kit.seen_in(how)) == (how, exited.evidence), exited
        eventually(lambda: runtime.find(NEW) is None)
        runtime.remove(NEW)
        assert (old,) == runtime.running()


def test_a_full_disk_is_this_machines_fault_before_an_app_has_served_and_nobodys_after(
    runtime: Runtime, kit: RuntimeKit, old: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outrider.runtimes.endings.is_full", lambda folder: True)
    with kit.barrier() as barrier:
        exited = end_of(runtime, candidate(kit, tmp_path, "exit", barrier.variables), barrier.open)

    assert ("disk-full", "unknown") == (exited.evidence, exited.after_serving), exited
    assert exited.more.endswith("this machine's disk is full: make room there")
