"""Tasks that run once per release, as operators see them, and what an operator may say about one that has ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, assert_never

import msgspec

from outrider.core.errors import Conflict, NotFound
from outrider.core.tasks import FOLLOWING, TaskKind
from outrider.etcd.seam import Entry
from outrider.model.damage import read_or_none
from outrider.model.documents import App, Block, Group, Package, Target
from outrider.model.keys import Keys
from outrider.model.oldest import Oldest
from outrider.model.tasks import Task
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import StoreContext, absent_app, app_id_of, checked_text
from outrider.service.store.groups import absent_group
from outrider.service.store.oldest import note_oldest
from outrider.service.store.task_states import due_again, key_of, task_in

TaskVerb = Literal["done", "failed", "retry"]
MAX_WHY = 500
WAITS_FOR: Mapping[TaskKind, str] = {
    "post": "runs once the whole group has the release",
    "contract": "runs once the whole group has the release, and nothing older may run from then on",
    "on-failure": "runs only if the release is blocked",
}
"""Why a task that no instance has claimed isn't due yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNow:
    """A task of a group.

    Attributes:
        state: As ``Task``, and ``waiting``: no instance has claimed it.
        release: Label of the release that it was claimed for; of the group's target where nobody has.
    """

    app: str
    group: str
    version: str
    name: str
    state: str
    kind: str = ""
    command: str = ""
    release: str = ""
    instance: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    code: int | None = None
    why: str = ""
    output: str = ""
    limit_s: float = 0.0
    repeatable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """The tasks of all groups."""

    context: StoreContext
    auditing: Auditing

    def list(self, app: str, group: str) -> tuple[TaskNow, ...]:
        """Those that an instance has claimed, newest first, after those of the target that wait for one.

        Raises:
            NotFound: there is no such app or group.
        """
        app_id, keys = self.context.require_app(app), self.context.keys
        if self.context.get(Group, keys.group(app_id, group)) is None:
            raise NotFound(absent_group(app_id, group))
        stored = [(entry.key, task) for entry in self._entries(app_id, group) if (task := task_in(entry)) is not None]
        known = {key for key, _ in stored}
        claimed = sorted((_now(task, group) for _, task in stored), key=lambda one: str(one.started), reverse=True)
        return (*self._waiting(app_id, group, known), *claimed)

    def get(self, app: str, group: str, version: str, name: str) -> TaskNow:
        """One task; of several with this name (one per release) the newest.

        Raises:
            NotFound: there is no such app, group or task.
        """
        found = next((one for one in self.list(app, group) if (one.version, one.name) == (version, name)), None)
        if found is None:
            raise NotFound(_absent(app, group, version, name))
        return found

    def say(
        self, app: str, group: str, version: str, name: str, verb: TaskVerb, *, why: str = "", by: str = ""
    ) -> TaskNow:
        """Say of a task that has ended, or of which nobody knows how far it came, what it is.

        ``done`` and ``retry`` also lift the blocks that the failure of a ``pre`` task has made. What is due may be said
        to be done or failed, so that nobody runs it.

        Raises:
            NotFound: there is no such app, group or task.
            Conflict: it runs, or is done; the message says what to do.
        """
        app_id, keys, reason = app_id_of(app), self.context.keys, checked_text("why", why, MAX_WHY)

        def attempt(change: Change) -> TaskNow:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            entry = self._newest(app_id, group, version, name)
            if entry is None:
                raise NotFound(_absent(app, group, version, name))
            old = task_in(entry)
            if old is None:
                change.guard_unread(entry)
                if verb != "retry":
                    raise Conflict(f"task {name} of {version} can't be read; `outrider task retry` lets it run again")
                change.delete(entry.key)
                return TaskNow(app=app_id, group=group, version=version, name=name, state="waiting")
            old = change.guard(Task, entry)
            _require_over(old, verb)
            said = f"said to be {verb}" + (f" by {by}" if by else "") + (f": {reason}" if reason else "")
            match verb:
                case "retry" if old.kind == "pre":
                    change.delete(entry.key)
                    _unblock(change, keys, app_id, entry.key)
                    return _waiting_again(old, group)
                case "retry":
                    _require_due(change, keys, old)
                    new = due_again(old, said)
                case "done":
                    if old.kind == "contract":
                        note_oldest(change, keys, entry.key, old, self.context.now())
                    new = msgspec.structs.replace(old, state="done", why=said, ended=old.ended or self.context.now())
                    _unblock(change, keys, app_id, entry.key)
                case "failed":
                    new = msgspec.structs.replace(old, state="failed", why=said, ended=old.ended or self.context.now())
                    if old.kind == "pre":
                        self._block(change, new, entry.key)
                case _:
                    assert_never(verb)
            change.put(entry.key, new)
            return _now(new, group)

        return apply(self.context.cluster, attempt, self.auditing)

    def oldest(self, app: str, group: str) -> tuple[Oldest, ...]:
        """What a ``contract`` task has made the oldest version that may run: in the group, and in the whole app.

        Raises:
            NotFound: there is no such app or group.
        """
        app_id, keys = self.context.require_app(app), self.context.keys
        if self.context.get(Group, keys.group(app_id, group)) is None:
            raise NotFound(absent_group(app_id, group))
        found = (self.context.get_or_none(Oldest, keys.oldest(app_id, each)) for each in (group, ""))
        return tuple(one for one in found if one is not None)

    def lift(self, app: str, group: str) -> tuple[Oldest, ...]:
        """Let older versions run again in the group, and with it, where a task ran for the whole app, in all groups.

        Raises:
            NotFound: there is no such app or group.
            Conflict: older versions may run there; or the task that took away what they need still runs.
        """
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> tuple[Oldest, ...]:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            change.require_only_existing(Group, keys.group(app_id, group), absent_group(app_id, group))
            lifted, found = [], False
            for each in (group, ""):
                key = keys.oldest(app_id, each)
                oldest = change.read_or_none(Oldest, key)
                if oldest is not None:
                    lifted.append(oldest)
                if change.exists(key):
                    found = True  # also one that can't be read: that is how it is mended
                    change.delete(key)
            if not found:
                raise Conflict(f"older versions may run in group {group!r}: no contract task has begun there")
            for entry in self._entries(app_id, group):
                task = task_in(entry)
                if task is not None and (task.kind, task.state) == ("contract", "running"):
                    raise Conflict(f"task {task.name} of {task.version} runs on {task.instance}; wait for its end")
            return tuple(lifted)

        return apply(self.context.cluster, attempt, self.auditing)

    def _entries(self, app_id: str, group: str) -> tuple[Entry, ...]:
        keys, cluster = self.context.keys, self.context.cluster
        return (*cluster.list(keys.tasks(app_id, group)).entries, *cluster.list(keys.tasks(app_id, "")).entries)

    def _newest(self, app_id: str, group: str, version: str, name: str) -> Entry | None:
        """The newest claim of the task; one that can't be read is found by its key."""
        package = self.context.get_or_none(Package, self.context.keys.package(app_id, version))
        sha256 = "" if package is None else package.sha256
        found = []
        for entry in self._entries(app_id, group):
            task, (digest, part) = task_in(entry), entry.key.split("/")[-2:]
            is_it = (task.version, task.name) == (version, name) if task is not None else (
                digest == sha256 and part.partition(":")[0] == name
            )  # fmt: skip
            if is_it:
                found.append(entry)
        return max(found, key=lambda entry: entry.create_revision, default=None)

    def _waiting(self, app_id: str, group: str, known: set[str]) -> tuple[TaskNow, ...]:
        keys = self.context.keys
        target = self.context.get_or_none(Target, keys.target(app_id, group))
        release = None if target is None else target.release
        package = None if release is None else self.context.get_or_none(Package, keys.package(app_id, release.version))
        if release is None or package is None:
            return ()
        unclaimed = (task for task in package.tasks if key_of(keys, app_id, group, release, task) not in known)
        return tuple(
            TaskNow(
                app=app_id,
                group=group,
                version=release.version,
                name=task.name,
                kind=task.kind,
                command=task.words,
                state="waiting",
                release=release.label,
                limit_s=task.limit_s,
                repeatable=task.repeatable,
                why=WAITS_FOR.get(task.kind, ""),
            )
            for task in unclaimed
        )

    def _block(self, change: Change, task: Task, key: str) -> None:
        """A release that no instance runs, and that isn't blocked, is blocked for its task."""
        keys = self.context.keys
        stands = keys.block(task.app, task.key)
        if change.exists(stands) or change.exists(keys.proof(task.app, task.key)):
            return
        target = self.context.get_or_none(Target, keys.target(task.app, task.group))
        release = None if target is None else target.release
        same = release is not None and release.key(task.group) == task.key
        block = Block(
            version=task.version,
            sha256=task.sha256,
            instance=task.instance,
            why=task.words,
            at=self.context.now(),
            task=key.removeprefix(f"{keys.prefix}/"),
        )
        if release is not None and same and not release.is_plain:
            block = msgspec.structs.replace(
                block,
                group=task.group,
                environment=release.environment,
                environment_digest=release.environment_digest,
                generation=release.generation,
            )
        elif task.key != task.version:
            return  # of an environment that is no longer the group's: whoever meets the task blocks its own release
        change.put(stands, block)
        change.exists(keys.verdict(task.app, task.instance, task.key))
        change.put(keys.verdict(task.app, task.instance, task.key), block)


def _require_over(task: Task, verb: TaskVerb) -> None:
    where = f"task {task.name} of {task.version}"
    if task.state == "running":
        raise Conflict(
            f"{where} runs on {task.instance}, at most until its limit of {task.limit_s:g} s; wait for its end, or stop"
            " that sidekick"
        )
    if task.state == "done":
        raise Conflict(f"{where} is done already; nothing waits for it")
    if task.state == "due" and verb == "retry":
        raise Conflict(f"{where} is due already: any instance of the group may claim it")
    if task.state == verb:
        raise Conflict(f"{where} is {verb} already; `outrider task retry` lets it run again")


def _require_due(change: Change, keys: Keys, task: Task) -> None:
    """A task that follows a release runs only while the group wants that release, or has it blocked."""
    if task.kind == "on-failure":
        group = change.read_or_none(Group, keys.group(task.app, task.group))
        undone = () if group is None else tuple(block.version for block in group.blocked)
        if task.release not in undone and not change.exists(keys.block(task.app, task.key)):
            raise Conflict(
                f"task {task.name} of {task.version} follows the failure of {task.release}, which isn't blocked any"
                " more; `outrider task done` ends it"
            )
    target = change.read_or_none(Target, keys.target(task.app, task.group))
    if task.kind in FOLLOWING and (target is None or target.sha256 != task.sha256):
        wanted = "nothing" if target is None or target.label is None else target.label
        raise Conflict(
            f"task {task.name} of {task.version} follows that release, but group {task.group!r} wants {wanted} now;"
            " `outrider task done` ends it"
        )


def _unblock(change: Change, keys: Keys, app_id: str, key: str) -> None:
    """Lift what the failure of the task has blocked."""
    below = key.removeprefix(f"{keys.prefix}/")
    for entry in change.list(keys.blocks(app_id)).entries:
        block = read_or_none(Block, entry.key, entry.value)
        if block is not None and block.task == below:
            change.guard(Block, entry)
            change.delete(entry.key)
            change.delete(keys.verdict(app_id, block.instance, block.key))


def _now(task: Task, group: str) -> TaskNow:
    return TaskNow(
        app=task.app,
        group=group,
        version=task.version,
        name=task.name,
        kind=task.kind,
        command=" ".join(task.command),
        state=task.state,
        release=task.release,
        instance=task.instance,
        started=task.started,
        ended=task.ended,
        code=task.code,
        why=task.why,
        output=task.output,
        limit_s=task.limit_s,
        repeatable=task.repeatable,
    )


def _waiting_again(task: Task, group: str) -> TaskNow:
    return TaskNow(
        app=task.app,
        group=group,
        version=task.version,
        name=task.name,
        kind=task.kind,
        command=" ".join(task.command),
        state="waiting",
        release=task.release,
        limit_s=task.limit_s,
        repeatable=task.repeatable,
    )


def _absent(app: str, group: str, version: str, name: str) -> str:
    return (
        f"group {group!r} of {app} has no task {name!r} of {version} that an instance has claimed; `outrider task list`"
        " shows them"
    )
