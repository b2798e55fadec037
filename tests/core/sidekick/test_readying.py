"""What must run once before a swap: nobody asks for a turn before it is done, and it has an end on every way."""

from typing import Any

import pytest

from outrider.core.chart.machine import Perform
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import AcquireLock, RunTask
from outrider.core.tasks import TaskSpec
from tests.core.sidekick.test_recalled import verifying
from tests.core.sidekick.test_sidekick import Sidekick

MIGRATE = TaskSpec(name="migrate", kind="pre", command=("bin/migrate",))
DONE = (("/outrider/v1/tasks/app/g/2/migrate", 7),)


def readying() -> Sidekick:
    sidekick = verifying()
    sidekick.answer("release.verify", ev.ReleaseVerified, tasks=(MIGRATE,))
    return sidekick


def effects(step: Any) -> list[Any]:
    return [action.effect for action in step.actions if isinstance(action, Perform)]


def test_a_release_with_tasks_is_readied_and_one_without_asks_for_its_turn() -> None:
    sidekick = verifying()
    step = sidekick.answer("release.verify", ev.ReleaseVerified, tasks=(MIGRATE,))
    (run,) = [effect for effect in effects(step) if isinstance(effect, RunTask)]
    plain = verifying().answer("release.verify", ev.ReleaseVerified)

    assert ("swapping.readying", "swapping.queueing") == (step.target, plain.target)
    assert ((MIGRATE,), "2.0.0") == (run.tasks, run.release.version)


def test_the_turn_is_asked_for_with_what_is_done() -> None:
    sidekick = readying()

    step = sidekick.answer("task.run", ev.TaskFinished, done=DONE)

    (acquire,) = [effect for effect in effects(step) if isinstance(effect, AcquireLock)]
    assert ("swapping.queueing", DONE) == (step.target, acquire.tasks)


def test_a_failed_task_blocks_the_release_and_a_machine_that_cannot_begin_it_does_not() -> None:
    bad, here = readying(), readying()

    bad.answer("task.run", ev.TaskFailed, cause="exit 3", evidence="task-failed")
    here.answer("task.run", ev.TaskFailed, cause="/var is noexec", evidence="noexec")

    assert ("release", {"2.0.0"}) == (bad.memory.fault.blame, set(bad.memory.blocked))  # type: ignore[union-attr]
    assert ("machine", set()) == (here.memory.fault.blame, set(here.memory.blocked))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "facts", "target"),
    [
        (ev.GrantEnded, {}, "checking"),
        (ev.OperatorPaused, {}, "idle.paused"),
        (ev.IdentityRefused, {"cause": "twin"}, "idle.refused"),
        (ev.OperatorDrained, {"update": "d1"}, "idle.retaking"),
        (ev.SidekickRestarted, {}, "idle.waking"),
        (ev.BlockChanged, {"versions": {"2.0.0": "b: 503"}}, "idle.waiting"),
    ],
)
def test_whatever_ends_an_update_ends_the_wait(kind: Any, facts: dict[str, Any], target: str) -> None:
    step = readying().tell(kind, **facts)

    assert target == step.target
    assert "task.leave" in [effect.name for effect in effects(step)]


def test_what_is_waited_for_is_said() -> None:
    sidekick = readying()

    sidekick.answer("task.run", ev.TaskProgressed, words="task migrate of 2.0.0 runs on web-2")

    assert "task migrate of 2.0.0 runs on web-2" == sidekick.memory.task
