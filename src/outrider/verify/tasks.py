"""A task that must run once before any instance swaps to the new version: its claim, its program and its end.

``Local.task`` says where it is: ``FREE``; claimed by this sidekick's life (``CLAIMED``), and begun (``BEGUN``); claimed
by another instance (``OTHERS``), or by a life of this one that was killed (``LOST``); ``DONE``, ``FAILED`` or
``UNKNOWN``. A task that was begun goes on whatever the chart does. ``Local.ran`` counts its beginnings, from an
operator's word that lets it run again on.
"""

from outrider.core.sidekick import effects as do
from outrider.core.sidekick import events as ev
from outrider.core.tasks import TaskSpec
from outrider.verify.steps import NEW, answer
from outrider.verify.world import Edge, Local, World

FREE, CLAIMED, BEGUN, OTHERS, LOST, DONE, FAILED, UNKNOWN = range(8)
TASK = TaskSpec(name="migrate", kind="pre", command=("bin/migrate",))


def asked(world: World, s: Local, found: list[Edge]) -> None:
    """What becomes of the request to have the task done."""
    for effect, request in s.asks:
        if not isinstance(world.steps.effects[effect], do.RunTask):
            continue
        if s.task == FREE and s.permitted and not s.blocked:
            found.append(Edge("claims the task", False, s._replace(task=CLAIMED)))
        elif s.task == DONE:
            event = answer(ev.TaskFinished, request, done=(("task", 7),))
            found.extend(world.tell(s, event, "the task is done", False))
        elif s.task == FAILED:
            event = answer(ev.TaskFailed, request, cause="", evidence="task-failed")
            found.extend(world.tell(s, event, "the task has failed", False))
        failed = answer(ev.TaskFailed, request, cause="", evidence="noexec")
        if s.task == CLAIMED:
            found.extend(world.tell(s._replace(task=FREE), failed, "this machine can't begin the task", True))
        if s.task == BEGUN and world.setting.regretted:
            found.extend(world.tell(s._replace(task=FREE), failed, "this machine fails, and gives the task back", True))


def runs(world: World, s: Local, found: list[Edge]) -> None:
    """The program that this sidekick has claimed begins and ends; another's does; and a person has the last word."""
    if not world.setting.tasked:
        return
    if s.task == CLAIMED:
        found.append(Edge("begins the task", False, _begun(s, BEGUN), _twice(world, s)))
    elif s.task in (BEGUN, OTHERS):
        found.append(Edge("the task ends well", False, s._replace(task=DONE)))
        found.append(Edge("the task fails", True, s._replace(task=FAILED, blocked=s.blocked or not s.proved)))
        if s.task == OTHERS:
            found.append(Edge("the task's runner ends, and it is unknown", True, s._replace(task=UNKNOWN)))
    elif s.task == LOST and world.setting.lost == "again":
        found.append(Edge("its dead life has no presence any more: it may run again", False, s._replace(task=FREE)))
    elif s.task == LOST:
        found.append(
            Edge("its dead life has no presence any more: the task is unknown", False, s._replace(task=UNKNOWN))
        )
    elif s.task == UNKNOWN:
        found.append(Edge("an operator says that the task is done", False, s._replace(task=DONE)))
        found.append(Edge("an operator lets the task run again", True, s._replace(task=FREE, ran=0)))
    elif s.task == FREE and not s.blocked:
        found.append(Edge("another instance claims the task and begins it", True, _begun(s, OTHERS), _twice(world, s)))


def killed(s: Local) -> int:
    """Where the task is once this life is over."""
    return LOST if s.task in (CLAIMED, BEGUN) else s.task


def breach(world: World, s: Local, effect: do.Effect) -> str:
    """What a turn that is taken now breaks; empty: nothing."""
    is_update = isinstance(effect, do.AcquireLock) and effect.version == NEW
    if world.setting.tasked and is_update and s.task != DONE:
        return f"a swap to {NEW} begins before its task is done"
    return ""


def _begun(s: Local, task: int) -> Local:
    return s._replace(task=task, ran=min(s.ran + 1, 2))


def _twice(world: World, s: Local) -> str:
    return "a task runs twice, and nobody has asked for it" if s.ran and not world.setting.repeatable else ""
