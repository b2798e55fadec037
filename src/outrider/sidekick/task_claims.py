"""The claims of tasks in etcd: what is to be done next about the tasks of a release, one look at a time.

A claim is a key without a lease. It is created in a transaction that compares the target, the service's permission and
this sidekick's presence; each later write compares the claim. So a task has one runner, and one that has lost its
presence, or its claim to an operator, writes nothing over what was said since.

Nothing here waits or has a thread: ``workers/task.py`` looks again when something has changed.
"""

import signal
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from loguru import logger

from outrider.core.errors import Unknown
from outrider.core.sidekick.effects import RunTask
from outrider.core.tasks import TaskSpec
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Delete, Entry, ModifiedAt, Put
from outrider.failpoints import failpoint
from outrider.model.damage import read_or_none
from outrider.model.documents import Block, Package, Presence, decode, encode
from outrider.model.keys import Keys
from outrider.model.tasks import Task, TaskState
from outrider.turns.blocks import block_puts
from outrider.turns.permission import Permission, Permitted, permitted

SENT_BY_OTHERS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})
"""Signals by which a person, a machine that shuts down or the kernel ends a program that has no fault."""

NO_PRESENCE = "this sidekick has no presence in etcd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """This sidekick runs the task: nobody else does.

    Attributes:
        key, revision: Where the claim stands, and the revision that the result compares.
    """

    spec: TaskSpec
    key: str
    task: Task
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AllDone:
    """Nothing stands before the swap. ``done``: key and revision of each task."""

    done: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HasFailed:
    """A task failed, and the release is blocked for it."""

    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Nothing to do until one of the keys changes.

    Attributes:
        words: What is waited for, for a person.
        revision: Of etcd when that was seen.
    """

    words: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a task ended here. ``code`` None: it was ended at its time limit."""

    code: int | None
    why: str
    output: str

    @property
    def state(self) -> TaskState:
        """What the task is now. One that was ended from outside may be half done, and no release is at fault."""
        if self.code is not None and -self.code in SENT_BY_OTHERS:
            return "unknown"
        return "done" if self.code == 0 else "failed"


Outcome = Claimed | AllDone | HasFailed | Pending


class TaskClaims:
    """The tasks of one instance's group, as its sidekick sees and claims them."""

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        *,
        app: str,
        group: str,
        instance: str,
        process: str,
        clock: Callable[[], datetime],
    ) -> None:
        """``process``: this sidekick's, as its presence says it."""
        self._cluster, self._keys, self._clock = cluster, keys, clock
        self._app, self._group, self._instance, self._process = app, group, instance, process
        self._presence = keys.presence(app, group, instance)
        self._unanswered: set[str] = set()

    def tasks_of(self, version: str, sha256: str) -> tuple[TaskSpec, ...]:
        """What must run once before any instance swaps to this payload.

        The package says it, in etcd: the update service's answers, which anybody on the way may write, say nothing of
        programs. A package of another digest is another package, and one that is unknown here has no tasks: so has
        everything that a foreign update service offers.

        Raises:
            Unknown: no answer; nothing is known of the tasks.
            Conflict: the package can't be read.
        """
        key = self._keys.package(self._app, version)
        with failpoint("task.read"):
            entry = self._cluster.get(key)
        if entry is None:
            return ()
        package = decode(Package, key, entry.value)
        if package.sha256 != sha256:
            return ()
        return tuple(task for task in package.tasks if task.kind == "pre")

    @property
    def watched(self) -> tuple[str, str]:
        """Prefixes whose changes are a reason to look again."""
        return self._keys.tasks(self._app, self._group), self._keys.tasks(self._app, "")

    def key_of(self, spec: TaskSpec, effect: RunTask) -> str:
        """Where the claim of a task that must run before a swap stands."""
        group = self._group if spec.scope == "group" else ""
        return self._keys.task(self._app, group, effect.release.sha256, spec.part(effect.release.id, self._group))

    def look(self, effect: RunTask) -> Outcome | None:
        """Do the one thing that is due about the first task that isn't done; None: look again at once.

        Raises:
            Unknown: no answer; look again later.
        """
        done: list[tuple[str, int]] = []
        for spec in effect.tasks:
            key = self.key_of(spec, effect)
            with failpoint("task.read"):
                entry = self._cluster.get(key)
            if entry is None:
                return self._claim(spec, key, effect)
            task = read_or_none(Task, key, entry.value)
            if task is None:
                return Pending(words=f"{key} can't be read; `outrider task retry` removes it", revision=0)
            if task.state == "failed":
                self._block(task, entry, effect)
                return HasFailed(cause=task.words)
            if task.state == "running" and task.claim in self._unanswered:
                # it was made after all, and nothing was begun for it: what runs has had its answer
                self._unanswered.discard(task.claim)
                return Claimed(spec=spec, key=key, task=task, revision=entry.mod_revision)
            if task.state != "done":
                return Pending(words=task.words, revision=entry.mod_revision)
            done.append((key, entry.mod_revision))
        return AllDone(done=tuple(done))

    def present(self) -> Compare | None:
        """What holds as long as this sidekick's presence, as it is now, says that it lives; None: it has none.

        Raises:
            Unknown: no answer.
        """
        with failpoint("task.read"):
            entry = self._cluster.get(self._presence)
        presence = None if entry is None else read_or_none(Presence, self._presence, entry.value)
        if entry is None or presence is None or presence.process != self._process:
            return None
        return ModifiedAt(key=self._presence, revision=entry.mod_revision)

    def give_back(self, claimed: Claimed) -> None:
        """The task could not be begun here: whoever can, may run it.

        Raises:
            Unknown: no answer; call it again.
        """
        ours = ModifiedAt(key=claimed.key, revision=claimed.revision)
        with failpoint("task.write"):
            self._cluster.txn((ours,), (Delete(key=claimed.key),))

    def finish(self, claimed: Claimed, result: Result, effect: RunTask | None = None) -> bool:
        """Write how the task ended; with ``effect`` a failure blocks its release in the same transaction.

        May be repeated.

        When the task was set to unknown meanwhile, because this sidekick's presence had ended, and nobody has said
        more about it since, its end is known now and is written all the same.

        Returns:
            False: an operator has spoken, or the task was claimed again: this result counts for nothing.

        Raises:
            Unknown: no answer; call it again.
        """
        revision = claimed.revision
        ended = msgspec.structs.replace(
            claimed.task,
            state=result.state,
            ended=self._clock(),
            code=result.code,
            why=result.why,
            output=result.output,
        )
        for _ in range(5):
            if self._write(claimed.key, revision, ended, effect):
                return True
            with failpoint("task.read"):
                entry = self._cluster.get(claimed.key)
            found = None if entry is None else read_or_none(Task, claimed.key, entry.value)
            if entry is None or found is None or found.claim != claimed.task.claim:
                break
            if found.state in ("done", "failed"):
                return (found.state, found.code, found.output) == (ended.state, ended.code, ended.output)
            revision = entry.mod_revision
        logger.bind(task=claimed.key, state=ended.state, why=ended.why).warning("result of a task came too late")
        return False

    def _write(self, key: str, revision: int, ended: Task, effect: RunTask | None) -> bool:
        ours = ModifiedAt(key=key, revision=revision)
        put = Put(key=key, value=encode(ended))
        if ended.state == "failed" and effect is not None:
            block, absent = self._block_of(ended, key, effect)
            with failpoint("task.write"):
                if self._cluster.txn((ours, *absent), (put, *block)).succeeded:
                    return True
        with failpoint("task.write"):  # it is blocked already, or an instance runs it
            return self._cluster.txn((ours,), (put,)).succeeded

    def _block(self, task: Task, entry: Entry, effect: RunTask) -> None:
        """The release is blocked as long as its task stands as failed: also another one of the same payload."""
        block, absent = self._block_of(task, entry.key, effect)
        with failpoint("task.write"):
            self._cluster.txn((ModifiedAt(key=entry.key, revision=entry.mod_revision), *absent), block)

    def _block_of(self, task: Task, key: str, effect: RunTask) -> tuple[tuple[Put, ...], tuple[Compare, ...]]:
        release = effect.release.id
        name = release.key(self._group)
        block = Block(
            version=release.version,
            sha256=release.sha256,
            instance=self._instance,
            why=task.words,
            at=self._clock(),
            group="" if release.is_plain else self._group,
            task=key.removeprefix(f"{self._keys.prefix}/"),
            environment=release.environment,
            environment_digest=release.environment_digest,
            generation=release.generation,
        )
        stands = self._keys.block(self._app, name)
        absent = (CreatedAt(key=stands, revision=0), CreatedAt(key=self._keys.proof(self._app, name), revision=0))
        return block_puts(self._keys, self._app, block, name), absent

    def _claim(self, spec: TaskSpec, key: str, effect: RunTask) -> Claimed | Pending | None:
        conditions = self._conditions(effect)
        if isinstance(conditions, str):
            return Pending(words=f"task {spec.name} of {effect.release.version} waits: {conditions}", revision=0)
        release = effect.release
        task = Task(
            app=self._app,
            group=self._group,
            name=spec.name,
            kind=spec.kind,
            command=spec.command,
            version=release.version,
            release=release.label,
            key=release.id.key(self._group),
            sha256=release.sha256,
            state="running",
            instance=self._instance,
            process=self._process,
            claim=uuid.uuid4().hex,
            limit_s=spec.limit_s,
            started=self._clock(),
            repeatable=spec.repeatable,
        )
        try:
            with failpoint("task.claim"):
                done = self._cluster.txn(
                    (CreatedAt(key=key, revision=0), *conditions), (Put(key=key, value=encode(task)),)
                )
        except Unknown:
            self._unanswered.add(task.claim)
            raise
        return Claimed(spec=spec, key=key, task=task, revision=done.revision) if done.succeeded else None

    def _conditions(self, effect: RunTask) -> tuple[Compare, ...] | str:
        """What must hold as the claim is made; or why there is none now."""
        block = self._keys.block(self._app, effect.release.id.key(self._group))
        conditions: list[Compare] = [CreatedAt(key=block, revision=0)]
        present = self.present()
        if present is None:
            return NO_PRESENCE
        conditions.append(present)
        if effect.target_revision < 0:
            return tuple(conditions)
        target = self._keys.target(self._app, self._group)
        conditions.append(ModifiedAt(key=target, revision=effect.target_revision))
        with failpoint("task.read"):
            found = self._cluster.get(target)
        if found is None or found.mod_revision != effect.target_revision:
            return "the group's target has changed"
        with failpoint("task.read"):
            blocked = self._cluster.get(block)
        if blocked is not None:
            return f"{effect.release.label} is blocked"
        allowed = permitted(
            self._cluster,
            Permission(
                grant=self._keys.grant(self._app, self._group, self._instance),
                brake=self._keys.brake(self._app, self._group),
                version=effect.release.label,
            ),
            self._clock(),
        )
        return (*conditions, *allowed.compares) if isinstance(allowed, Permitted) else allowed
