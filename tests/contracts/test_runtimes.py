"""What every runtime promises (``outrider.runtimes.Runtime``)."""

import queue
from pathlib import Path

import pytest

from outrider.core.errors import Refused
from outrider.runtimes import Exited, Runtime, WorkloadSpec
from tests.support.workloads import answer, process_runtime, spec, state_dir

__all__ = ["process_runtime", "state_dir"]


@pytest.fixture(params=["process"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found: Runtime = request.getfixturevalue(f"{request.param}_runtime")
    return found


def test_a_started_workload_answers_at_its_url_and_is_found(runtime: Runtime, tmp_path: Path) -> None:
    started = runtime.start(spec(tmp_path))

    assert "1.0.0" == answer(started)["OUTRIDER_VERSION"]
    assert started == runtime.find("app-1.0.0-aa")
    assert (started,) == runtime.running()


def test_starting_twice_starts_one(runtime: Runtime, tmp_path: Path) -> None:
    first = runtime.start(spec(tmp_path))

    assert first == runtime.start(spec(tmp_path))
    assert (first,) == runtime.running()


def test_two_versions_run_beside_each_other(runtime: Runtime, tmp_path: Path) -> None:
    old = runtime.start(spec(tmp_path))
    new = runtime.start(spec(tmp_path, "app-2.0.0-bb", "2.0.0"))

    assert "1.0.0" == answer(old)["OUTRIDER_VERSION"]
    assert "2.0.0" == answer(new)["OUTRIDER_VERSION"]
    assert (old, new) == runtime.running()


def test_what_was_stopped_is_not_found_and_stopping_it_again_is_no_error(runtime: Runtime, tmp_path: Path) -> None:
    answer(runtime.start(spec(tmp_path)))

    runtime.stop("app-1.0.0-aa", 5)

    assert runtime.find("app-1.0.0-aa") is None
    assert () == runtime.running()
    runtime.stop("app-1.0.0-aa", 5)


def test_a_stopped_workload_can_be_started_again(runtime: Runtime, tmp_path: Path) -> None:
    first = runtime.start(spec(tmp_path))
    runtime.stop("app-1.0.0-aa", 5)

    again = runtime.start(spec(tmp_path))

    assert "1.0.0" == answer(again)["OUTRIDER_VERSION"]
    assert first.handle != again.handle


def test_what_never_ran_is_not_found_and_may_be_stopped_and_removed(runtime: Runtime) -> None:
    assert runtime.find("never") is None

    runtime.stop("never", 5)
    runtime.remove("never")


def test_the_watch_tells_the_end_once(runtime: Runtime, tmp_path: Path) -> None:
    ends: queue.Queue[Exited] = queue.Queue()
    answer(runtime.start(spec(tmp_path)))
    runtime.watch("app-1.0.0-aa", ends.put)

    runtime.stop("app-1.0.0-aa", 5)

    assert Exited(workload_id="app-1.0.0-aa", status="signal 15") == ends.get(timeout=10)
    assert ends.empty()


def test_watching_what_does_not_run_tells_the_end_at_once(runtime: Runtime) -> None:
    ends: queue.Queue[Exited] = queue.Queue()

    runtime.watch("never", ends.put)

    assert Exited(workload_id="never", status="gone") == ends.get(timeout=10)


def test_a_closed_watch_is_silent(runtime: Runtime, tmp_path: Path) -> None:
    closed: queue.Queue[Exited] = queue.Queue()
    open_: queue.Queue[Exited] = queue.Queue()
    runtime.start(spec(tmp_path))
    watch = runtime.watch("app-1.0.0-aa", closed.put)
    runtime.watch("app-1.0.0-aa", open_.put)
    watch.close()
    watch.close()

    runtime.stop("app-1.0.0-aa", 5)

    open_.get(timeout=10)
    assert closed.empty()


def test_removing_stops_it_and_keeps_the_payload(runtime: Runtime, tmp_path: Path) -> None:
    wanted = spec(tmp_path)
    runtime.start(wanted)

    runtime.remove("app-1.0.0-aa")

    assert runtime.find("app-1.0.0-aa") is None
    assert wanted.payload.is_file()


def test_a_payload_that_is_no_archive_is_refused_and_nothing_runs(runtime: Runtime, tmp_path: Path) -> None:
    bad = tmp_path / "bad.payload"
    bad.write_text("<html>not found</html>" * 100)

    with pytest.raises(Refused, match=r"bad\.payload: not a tar file"):
        runtime.start(WorkloadSpec(workload_id="bad", version="1.0.0", payload=bad))

    assert () == runtime.running()
