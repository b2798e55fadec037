"""What every runtime promises (``outrider.runtimes.Runtime``), with each driver's kit.

``tests/live/test_runtime_contract.py`` runs the same for those that need a program of their own.
"""

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.core.errors import Refused
from outrider.runtimes import Exited, Runtime, WorkloadSpec
from outrider.runtimes.drivers import RUNTIMES, RuntimeContext
from tests.contracts.kits.runtimes import RUNTIME_KITS, RuntimeKit
from tests.contracts.kits.settings import settings_with
from tests.support.workloads import state_dir

__all__ = ["state_dir"]

ID = "app-1.0.0-aa"


@pytest.fixture(params=[name for name, kit in RUNTIME_KITS.items() if not kit.is_live])
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def kit(name: str) -> RuntimeKit:
    return RUNTIME_KITS[name]


@pytest.fixture
def runtime(name: str, kit: RuntimeKit, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    kit.begin(monkeypatch, state_dir.parent)
    made = RUNTIMES.load(name).make(settings_with(name, kit.settings, state_dir), RuntimeContext(environment={}))
    yield made
    made.close()
    kit.clean(state_dir)


@pytest.fixture
def spec(kit: RuntimeKit, tmp_path: Path) -> WorkloadSpec:
    return WorkloadSpec(workload_id=ID, release=kit.good(tmp_path, "1.0.0"))


def test_it_is_called_as_in_the_configuration(runtime: Runtime, name: str) -> None:
    assert name == runtime.name
    assert runtime.kinds


def test_a_started_workload_answers_at_its_url_and_is_found(
    runtime: Runtime, kit: RuntimeKit, spec: WorkloadSpec
) -> None:
    started = runtime.start(spec)

    assert "1.0.0" == kit.answer(started)["OUTRIDER_VERSION"]
    assert started == runtime.find(ID)
    assert (started,) == runtime.running()


def test_starting_twice_starts_one(runtime: Runtime, kit: RuntimeKit, spec: WorkloadSpec) -> None:
    first = runtime.start(spec)

    assert first == runtime.start(spec)
    assert (first,) == runtime.running()


def test_two_versions_run_beside_each_other_or_the_second_takes_the_place_of_the_first(
    runtime: Runtime, kit: RuntimeKit, spec: WorkloadSpec, tmp_path: Path
) -> None:
    old = runtime.start(spec)
    assert "1.0.0" == kit.answer(old)["OUTRIDER_VERSION"]
    new = runtime.start(WorkloadSpec(workload_id="app-2.0.0-bb", release=kit.good(tmp_path, "2.0.0")))

    assert "2.0.0" == kit.answer(new)["OUTRIDER_VERSION"]
    if kit.runs_apps:
        assert "1.0.0" == kit.answer(old)["OUTRIDER_VERSION"]
    assert ((old, new) if kit.runs_apps else (new,)) == runtime.running()


def test_what_was_stopped_is_not_found_and_stopping_it_again_is_no_error(
    runtime: Runtime, kit: RuntimeKit, spec: WorkloadSpec
) -> None:
    kit.answer(runtime.start(spec))

    runtime.stop(ID, 5)

    assert runtime.find(ID) is None
    assert () == runtime.running()
    runtime.stop(ID, 5)


def test_a_stopped_workload_can_be_started_again(runtime: Runtime, kit: RuntimeKit, spec: WorkloadSpec) -> None:
    first = runtime.start(spec)
    runtime.stop(ID, 5)

    again = runtime.start(spec)

    assert "1.0.0" == kit.answer(again)["OUTRIDER_VERSION"]
    assert first.handle != again.handle


def test_what_never_ran_is_not_found_and_may_be_stopped_and_removed(runtime: Runtime) -> None:
    assert runtime.find("never") is None

    runtime.stop("never", 5)
    runtime.remove("never")


def test_the_watch_tells_the_end_once(runtime: Runtime, kit: RuntimeKit, spec: WorkloadSpec) -> None:
    ends: queue.Queue[Exited] = queue.Queue()
    kit.answer(runtime.start(spec))
    runtime.watch(ID, ends.put)

    runtime.stop(ID, 5)

    assert Exited(workload_id=ID, status=kit.stopped) == ends.get(timeout=60)
    assert ends.empty()


def test_watching_what_does_not_run_tells_the_end_at_once(runtime: Runtime, kit: RuntimeKit) -> None:
    ends: queue.Queue[Exited] = queue.Queue()

    runtime.watch("never", ends.put)

    assert Exited(workload_id="never", status=kit.gone) == ends.get(timeout=60)


def test_a_closed_watch_is_silent(runtime: Runtime, kit: RuntimeKit, spec: WorkloadSpec) -> None:
    closed: queue.Queue[Exited] = queue.Queue()
    open_: queue.Queue[Exited] = queue.Queue()
    runtime.start(spec)
    watch = runtime.watch(ID, closed.put)
    runtime.watch(ID, open_.put)
    watch.close()
    watch.close()

    runtime.stop(ID, 5)

    open_.get(timeout=60)
    assert closed.empty()


def test_removing_stops_it_and_keeps_the_payload(runtime: Runtime, spec: WorkloadSpec) -> None:
    runtime.start(spec)

    runtime.remove(ID)

    assert runtime.find(ID) is None
    assert spec.release.payload.is_file()


def test_a_bad_payload_is_refused_and_nothing_runs(runtime: Runtime, kit: RuntimeKit, tmp_path: Path) -> None:
    release, said = kit.bad(tmp_path)

    with pytest.raises(Refused, match=said):
        runtime.start(WorkloadSpec(workload_id="bad", release=release))

    assert () == runtime.running()


def test_a_bad_payload_is_refused_when_it_is_prepared_and_again_when_it_is_started(
    runtime: Runtime, kit: RuntimeKit, tmp_path: Path
) -> None:
    """The second time counts: it is under a turn."""
    release, said = kit.bad(tmp_path)

    for _ in range(2):
        with pytest.raises(Refused, match=said):
            runtime.prepare(release)
    with pytest.raises(Refused, match=said):
        runtime.start(WorkloadSpec(workload_id="bad", release=release))


def test_preparing_runs_nothing_and_can_be_repeated(runtime: Runtime, kit: RuntimeKit, spec: WorkloadSpec) -> None:
    for _ in range(2):
        runtime.prepare(spec.release)
    assert () == runtime.running()

    assert "1.0.0" == kit.answer(runtime.start(spec))["OUTRIDER_VERSION"]


def test_what_was_prepared_and_pruned_or_started_before_can_be_started(
    runtime: Runtime, kit: RuntimeKit, spec: WorkloadSpec
) -> None:
    """
    1. prepared, and pruned: the start prepares it again
    2. removed, and started once more from the payload alone
    """
    runtime.prepare(spec.release)
    runtime.prune([])
    assert "1.0.0" == kit.answer(runtime.start(spec))["OUTRIDER_VERSION"]
    runtime.remove(ID)

    assert "1.0.0" == kit.answer(runtime.start(spec))["OUTRIDER_VERSION"]


def test_pruning_leaves_what_runs_and_what_is_needed(
    runtime: Runtime, kit: RuntimeKit, spec: WorkloadSpec, tmp_path: Path
) -> None:
    running, coming = runtime.start(spec), kit.good(tmp_path, "2.0.0")
    runtime.prepare(coming)

    for needed in ([coming.sha256], []):
        runtime.prune(needed)

    assert "1.0.0" == kit.answer(running)["OUTRIDER_VERSION"]
    assert (running,) == runtime.running()
    assert coming.payload.is_file()


def test_closing_leaves_the_workload_running(
    name: str, kit: RuntimeKit, spec: WorkloadSpec, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.begin(monkeypatch, state_dir.parent)
    settings = settings_with(name, kit.settings, state_dir)
    first, second = (RUNTIMES.load(name).make(settings, RuntimeContext(environment={})) for _ in range(2))
    started = first.start(spec)

    first.close()

    assert "1.0.0" == kit.answer(started)["OUTRIDER_VERSION"]
    assert started == second.find(ID)
    second.stop(ID, 5)
    second.close()
    kit.clean(state_dir)
