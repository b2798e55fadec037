"""Tasks that run once per release, under kills, cut-offs and lost answers (P3, P5 and the promises of tasks)."""

import pytest

from outrider.core.tasks import TaskSpec
from tests.sim.fleet import Fleet
from tests.support.rings import mostly_long

MIGRATE = TaskSpec(name="migrate", kind="pre", command=("bin/migrate",))


def serve(fleet: Fleet, version: str) -> None:
    fleet.run(lambda: fleet.at_rest() and fleet.versions() == [version] * len(fleet.members))


def is_in(fleet: Fleet, state: str) -> bool:
    return fleet.tasks.stored().get("migrate") is not None and fleet.tasks.stored()["migrate"].state == state


@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
def test_a_task_runs_once_and_no_instance_swaps_before_it_is_done(strategy: str) -> None:
    fleet = Fleet(1, instances=5, strategy=strategy)  # type: ignore[arg-type]
    serve(fleet, "1.0.0")
    fleet.tasks.give("2.0.0", MIGRATE)

    fleet.promote("2.0.0")
    serve(fleet, "2.0.0")

    assert 1 == fleet.tasks.ran["2.0.0", "migrate"]


def test_a_task_that_fails_blocks_the_release_and_nothing_was_started() -> None:
    fleet = Fleet(2, instances=4)
    serve(fleet, "1.0.0")
    fleet.tasks.give("2.0.0", MIGRATE)
    fleet.tasks.bad.add("migrate")

    fleet.promote("2.0.0")
    fleet.run(lambda: "2.0.0" in fleet.blocked and fleet.at_rest())

    assert (1, "failed") == (fleet.tasks.ran["2.0.0", "migrate"], fleet.tasks.stored()["migrate"].state)
    assert ["1.0.0"] * 4 == fleet.versions()
    assert not fleet.touched.get("2.0.0")


def test_what_an_operator_lets_run_again_leads_to_the_release() -> None:
    fleet = Fleet(3, instances=3)
    serve(fleet, "1.0.0")
    fleet.tasks.give("2.0.0", MIGRATE)
    fleet.tasks.bad.add("migrate")
    fleet.promote("2.0.0")
    fleet.run(lambda: "2.0.0" in fleet.blocked and fleet.at_rest())

    fleet.tasks.bad.clear()
    fleet.tasks.retry("migrate")

    serve(fleet, "2.0.0")


@pytest.mark.parametrize("seed", range(12))
def test_a_runner_that_dies_leaves_a_task_that_is_unknown_and_runs_no_second_time(seed: int) -> None:
    """Killed at any moment from its claim to its result; everybody waits until a person has looked."""
    fleet = Fleet(seed, instances=3)
    serve(fleet, "1.0.0")
    fleet.tasks.give("2.0.0", MIGRATE)
    fleet.promote("2.0.0")
    fleet.run(lambda: is_in(fleet, "running") or is_in(fleet, "done"))
    started_s = fleet.now_s
    wait_s = fleet.random.uniform(0.0, 15.0)
    fleet.run(lambda: fleet.now_s > started_s + wait_s or is_in(fleet, "done"))

    runner = fleet.member(fleet.tasks.stored()["migrate"].instance)
    fleet.crash(runner, fleet.random.uniform(1.0, 90.0))
    fleet.run(lambda: is_in(fleet, "unknown") or is_in(fleet, "done"))
    if is_in(fleet, "unknown"):
        waited_s = fleet.now_s
        fleet.run(lambda: fleet.now_s > waited_s + 200.0)
        assert is_in(fleet, "unknown")
        assert ["1.0.0"] * 3 == fleet.versions()
        fleet.tasks.retry("migrate")

    serve(fleet, "2.0.0")
    assert 1 == fleet.tasks.ran["2.0.0", "migrate"]


@pytest.mark.parametrize("seed", range(6))
def test_a_repeatable_task_is_run_again_by_itself(seed: int) -> None:
    fleet = Fleet(seed, instances=3)
    serve(fleet, "1.0.0")
    fleet.tasks.give("2.0.0", TaskSpec(name="migrate", kind="pre", command=("bin/migrate",), repeatable=True))
    fleet.promote("2.0.0")
    fleet.run(lambda: is_in(fleet, "running"))

    fleet.crash(fleet.member(fleet.tasks.stored()["migrate"].instance), 60.0)

    serve(fleet, "2.0.0")


@pytest.mark.parametrize("seed", range(10))
def test_lost_answers_late_writes_and_lapsed_leases_run_no_task_twice(seed: int) -> None:
    fleet = Fleet(seed, instances=4)
    serve(fleet, "1.0.0")
    fleet.tasks.give("2.0.0", MIGRATE, TaskSpec(name="warm", kind="pre", command=("bin/warm",)))
    fleet.faults.lost_answers, fleet.faults.lost_calls, fleet.faults.late = 0.1, 0.1, 0.05
    fleet.promote("2.0.0")
    fleet.run(lambda: is_in(fleet, "running") or is_in(fleet, "done"))
    fleet.lose_lease(fleet.member(fleet.tasks.stored()["migrate"].instance))
    settled_s = fleet.now_s
    fleet.run(lambda: fleet.now_s > settled_s + 300.0)
    fleet.faults.lost_answers = fleet.faults.lost_calls = fleet.faults.late = 0.0
    fleet.run(lambda: all(task.state in ("done", "unknown") for task in fleet.tasks.stored().values()))
    for task in fleet.tasks.stored().values():
        if task.state == "unknown":
            fleet.tasks.retry(task.name)

    serve(fleet, "2.0.0")


WARM = TaskSpec(name="warm", kind="post", command=("bin/warm",))


def warm_is(fleet: Fleet, *states: str) -> bool:
    task = fleet.tasks.stored().get("warm")
    return task is not None and task.state in states


@pytest.mark.parametrize("seed", range(12))
def test_a_task_that_follows_a_rollout_runs_once_whatever_befalls_its_runner(seed: int) -> None:
    """Killed, cut off from its lease, and with lost answers, from its claim to its result: done, or unknown."""
    fleet = Fleet(seed, instances=4)
    fleet.tasks.give("1.0.0", WARM)
    serve(fleet, "1.0.0")
    fleet.faults.lost_answers, fleet.faults.lost_calls, fleet.faults.late = 0.1, 0.1, 0.05
    fleet.tasks.make_due("1.0.0", WARM)
    fleet.run(lambda: warm_is(fleet, "running", "done"))
    started_s, wait_s = fleet.now_s, fleet.random.uniform(0.0, 15.0)
    fleet.run(lambda: fleet.now_s > started_s + wait_s or warm_is(fleet, "done"))

    runner = fleet.member(fleet.tasks.stored()["warm"].instance)
    if seed % 2:
        fleet.lose_lease(runner)
    else:
        fleet.crash(runner, fleet.random.uniform(1.0, 90.0))
    settled_s = fleet.now_s
    fleet.run(lambda: fleet.now_s > settled_s + 300.0)
    fleet.faults.lost_answers = fleet.faults.lost_calls = fleet.faults.late = 0.0
    fleet.run(lambda: warm_is(fleet, "unknown", "done"))
    if warm_is(fleet, "unknown"):
        fleet.tasks.let_run_again("warm")

    fleet.run(lambda: warm_is(fleet, "done"))
    assert 1 == fleet.tasks.ran["1.0.0", "warm"]


DROP = TaskSpec(name="drop", kind="contract", command=("bin/drop",))


def drop_is(fleet: Fleet, *states: str) -> bool:
    task = fleet.tasks.stored().get("drop")
    return task is not None and task.state in states


@pytest.mark.parametrize("seed", mostly_long(range(16), short=lambda seed: seed < 4))
@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
def test_once_a_contract_task_has_begun_nothing_older_starts(strategy: str, seed: int) -> None:
    """
    1. a group of four is on its way to 2.0.0; the contract task is due too early, and waits for the last one
    2. at some moment an operator goes back to 1.0.0, and an instance crashes
    3. either the task had begun, and everybody stays at 2.0.0; or it never begins, and everybody is at 1.0.0
    """
    fleet = Fleet(seed, instances=4, strategy=strategy)  # type: ignore[arg-type]
    serve(fleet, "1.0.0")
    fleet.tasks.give("2.0.0", DROP)
    fleet.faults.lost_answers, fleet.faults.lost_calls, fleet.faults.late = 0.05, 0.05, 0.05
    fleet.promote("2.0.0")
    fleet.run(lambda: "2.0.0" in fleet.versions())
    fleet.tasks.make_due("2.0.0", DROP)
    still = 2 if seed % 2 else 0
    fleet.run(lambda: fleet.versions().count("1.0.0") <= still)
    begun_s, wait_s = fleet.now_s, fleet.random.uniform(0.0, 12.0)
    fleet.run(lambda: fleet.now_s > begun_s + wait_s)

    fleet.undo("1.0.0")
    fleet.crash(fleet.random.choice(fleet.members), fleet.random.uniform(1.0, 60.0))
    fleet.run(lambda: fleet.now_s > begun_s + 400.0)
    fleet.faults.lost_answers = fleet.faults.lost_calls = fleet.faults.late = 0.0

    if fleet.tasks.oldest():
        fleet.run(lambda: drop_is(fleet, "done", "unknown"))
        assert ["2.0.0"] * 4 == fleet.versions()
    else:
        serve(fleet, "1.0.0")
        assert drop_is(fleet, "due")
        assert not fleet.tasks.ran["2.0.0", "drop"]


@pytest.mark.parametrize("is_early", [True, False])
def test_both_outcomes_of_that_race_are_seen(is_early: bool) -> None:
    """Otherwise the test above would show nothing."""
    fleet = Fleet(7, instances=2)
    serve(fleet, "1.0.0")
    fleet.tasks.give("2.0.0", DROP)
    fleet.promote("2.0.0")
    fleet.run(lambda: "2.0.0" in fleet.versions())
    if is_early:
        fleet.undo("1.0.0")
    fleet.tasks.make_due("2.0.0", DROP)
    serve(fleet, "1.0.0" if is_early else "2.0.0")
    if not is_early:
        fleet.run(lambda: drop_is(fleet, "done"))
        fleet.undo("1.0.0")
        undone_s = fleet.now_s
        fleet.run(lambda: fleet.now_s > undone_s + 300.0)

    assert ([] if is_early else ["2.0.0"]) == [one.version for one in fleet.tasks.oldest()]
    assert ["1.0.0" if is_early else "2.0.0"] * 2 == fleet.versions()
