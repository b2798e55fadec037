"""Tasks that follow a rollout: the update service says that one is due, and an instance of the group claims it.

``post``: the rollout is finished, and no other release may still run anywhere in the group. ``contract``: the same,
after those; who claims one compares it once more, and what is older may run no more from then on. ``on-failure``: the
group's target is blocked, or the group has undone the release. They become due one after the other, in the order of
their package, each when the one before it is done: what failed stops those behind it until an operator has spoken.

The key is created in the transaction that compares all of that. So a task that is due is due once, with any number of
service processes; and once it was claimed it is never made due again by itself.
"""

from collections.abc import Iterator
from datetime import timedelta

from outrider.core.release import ReleaseId
from outrider.core.tasks import FOLLOWING, TaskKind, TaskSpec
from outrider.model.damage import read_or_none
from outrider.model.documents import Package
from outrider.model.running import Running
from outrider.model.tasks import Task
from outrider.service.store.snapshot import GroupSnapshot
from outrider.service.store.task_states import key_of

LEFT_RUNNING = timedelta(seconds=30)
"""Time until the next look when something older may still run: nothing tells of its end by itself."""


def note_due(snapshot: GroupSnapshot) -> bool:
    """Write what is due now into the snapshot's transaction, and take back what is no longer.

    Returns:
        True: it waits for what may still run elsewhere; look again later.
    """
    waits = False
    target = None if snapshot.target is None else snapshot.target.release
    if not snapshot.has_begun:
        _leave_behind(snapshot, target)
    if target is not None:
        after = tuple(task for kind in FOLLOWING for task in _of_kind(snapshot, target, kind))
        if after and snapshot.progress.finished is not None and snapshot.progress.version == target.label:
            waits = bool(left_running(snapshot, target))
            if not waits:
                _next(snapshot, target, after)
        if snapshot.block_reason(target) is None:
            _withdraw(snapshot, target)
    for release in _given_up(snapshot, target):
        _next(snapshot, release, _of_kind(snapshot, release, "on-failure"))
    return waits


def left_running(snapshot: GroupSnapshot, release: ReleaseId) -> tuple[str, ...]:
    """Where something else than ``release`` may still run in the group: ``web-3 (1.0.0)``."""
    keys, app, group = snapshot.context.keys, snapshot.group.app, snapshot.group.id
    found = []
    for entry in snapshot.change.list(keys.running_in(app, group)).entries:
        instance, key = entry.key.split("/")[-2:]
        if key != release.key(group):
            document = read_or_none(Running, entry.key, entry.value)
            version = "unknown" if document is None else document.release.label
            found.append(f"{instance} ({version})")
    return tuple(found)


def _given_up(snapshot: GroupSnapshot, target: ReleaseId | None) -> Iterator[ReleaseId]:
    """The releases that are blocked for the group, as far as it wanted them."""
    if target is not None and snapshot.block_reason(target) is not None:
        yield target
    for block in snapshot.group.blocked[-1:]:  # only the last: those before it were seen when they were the last
        if block.release is not None and block.release != target:
            yield block.release


def _of_kind(snapshot: GroupSnapshot, release: ReleaseId, kind: TaskKind) -> tuple[TaskSpec, ...]:
    package = snapshot.package(release.version)
    if package is None or not _is_its(package, release):
        return ()
    return tuple(task for task in package.tasks if task.kind == kind)


def _is_its(package: Package, release: ReleaseId) -> bool:
    return package.sha256 == release.sha256 and not package.is_unresolved


def _next(snapshot: GroupSnapshot, release: ReleaseId, tasks: tuple[TaskSpec, ...]) -> None:
    change, group = snapshot.change, snapshot.group
    for spec in tasks:
        key = key_of(snapshot.context.keys, group.app, group.id, release, spec)
        if not change.exists(key):
            change.put(key, _due(snapshot, release, spec))
            return
        stored = change.read_or_none(Task, key)
        if stored is None or stored.state != "done":
            return


def _leave_behind(snapshot: GroupSnapshot, target: ReleaseId | None) -> None:
    """The group wants another payload now: what was to follow the one before, and never began, isn't due any more."""
    change, group = snapshot.change, snapshot.group
    for entry in change.list(snapshot.context.keys.tasks(group.app, group.id)).entries:
        task = read_or_none(Task, entry.key, entry.value)
        if task is None or task.kind not in FOLLOWING or task.state != "due":
            continue
        if target is None or task.sha256 != target.sha256:
            change.guard(Task, entry)
            change.delete(entry.key)


def _withdraw(snapshot: GroupSnapshot, target: ReleaseId) -> None:
    """A release that was unblocked before anybody ran what follows its failure: that isn't due any more."""
    group, change = snapshot.group, snapshot.change
    for spec in _of_kind(snapshot, target, "on-failure"):
        key = key_of(snapshot.context.keys, group.app, group.id, target, spec)
        stored = change.read_or_none(Task, key)
        if stored is not None and stored.state == "due" and stored.group == group.id:
            change.delete(key)


def _due(snapshot: GroupSnapshot, release: ReleaseId, spec: TaskSpec) -> Task:
    return Task(
        app=snapshot.group.app,
        group=snapshot.group.id,
        name=spec.name,
        kind=spec.kind,
        command=spec.command,
        version=release.version,
        release=release.label,
        key=release.key(snapshot.group.id),
        sha256=release.sha256,
        state="due",
        instance="",
        process="",
        claim="",
        limit_s=spec.limit_s,
        started=snapshot.now,
        repeatable=spec.repeatable,
        environment=release.environment,
        environment_digest=release.environment_digest,
        generation=release.generation,
    )
