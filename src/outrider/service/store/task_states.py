"""What the states of tasks mean for others: for grants, and for the tasks themselves when their runner has ended."""

import msgspec

from outrider.core.release import ReleaseId
from outrider.core.tasks import TaskSpec
from outrider.etcd.seam import Entry
from outrider.model.damage import read_or_none
from outrider.model.documents import Package, Presence
from outrider.model.keys import Keys
from outrider.model.tasks import Task
from outrider.service.store.changes import Change, Unaudited, apply
from outrider.service.store.context import StoreContext

RUNNER_ENDED = Unaudited("rollout controller: the presence of a task's runner has ended")


def task_in(entry: Entry) -> Task | None:
    """The task of a key; None when it can't be read."""
    return read_or_none(Task, entry.key, entry.value)


def words_of_others(context: StoreContext, app: str, group: str) -> tuple[str, ...]:
    """What is to be said of the tasks of a group that follow its rollouts and aren't done, the oldest first.

    Of those that must run before a swap the verdict on each instance speaks.
    """
    keys, cluster = context.keys, context.cluster
    entries = (*cluster.list(keys.tasks(app, group)).entries, *cluster.list(keys.tasks(app, "")).entries)
    tasks = (task_in(entry) for entry in sorted(entries, key=lambda entry: entry.create_revision))
    return tuple(task.words for task in tasks if task is not None and task.kind != "pre" and task.state != "done")


def due_again(task: Task, why: str) -> Task:
    """A task that isn't ``pre``, as any instance may claim it (again)."""
    return msgspec.structs.replace(
        task, state="due", instance="", process="", claim="", ended=None, code=None, output="", why=why
    )


def key_of(keys: Keys, app: str, group: str, release: ReleaseId, task: TaskSpec) -> str:
    """Where the claim of a task stands for a release of a group."""
    return keys.task(app, group if task.scope == "group" else "", release.sha256, task.part(release, group))


def end_lost(context: StoreContext) -> frozenset[str]:
    """Set to unknown what ran on a sidekick whose presence has ended; what is repeatable may be claimed again.

    Returns:
        Keys of the presences of those that run now.

    Raises:
        Unknown: etcd gives no answer; call it again.
    """
    keys, runners = context.keys, set[str]()
    for entry in context.cluster.list(keys.all_tasks()).entries:
        task = task_in(entry)
        if task is None or task.state != "running":
            continue
        presence = keys.presence(task.app, task.group, task.instance)

        def attempt(change: Change, entry: Entry = entry, presence: str = presence) -> bool:
            task = change.read_or_none(Task, entry.key)
            if task is None or task.state != "running":
                return False
            found = change.read_or_none(Presence, presence)
            if (found is None and change.exists(presence)) or (found is not None and found.process == task.process):
                return True
            if task.repeatable and task.kind == "pre":
                change.delete(entry.key)
                return False
            if task.repeatable:
                change.put(entry.key, due_again(task, f"its runner {task.instance} has ended; it may run again"))
                return False
            why = f"its runner {task.instance} has ended, and nobody knows how far it came"
            change.put(entry.key, msgspec.structs.replace(task, state="unknown", why=why))
            return False

        if apply(context.cluster, attempt, RUNNER_ENDED):
            runners.add(presence)
    return frozenset(runners)


def standstill_in(change: Change, keys: Keys, app: str, group: str, release: ReleaseId, package: Package) -> str:
    """Why no instance of a group may be granted a release, whose tasks are read in ``change``; empty: none.

    A running or unclaimed task holds up no grant: the granted instance claims it, or waits for it.
    """
    for task in package.tasks:
        if task.kind == "pre":
            stored = change.read_or_none(Task, key_of(keys, app, group, release, task))
            if stored is not None and stored.state in ("unknown", "failed"):
                return stored.words
    return ""
