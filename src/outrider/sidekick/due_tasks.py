"""Tasks that follow a rollout: watched all the time, claimed when the update service says that one is due, and run.

They are no part of an update, so the chart knows nothing of them: an instance that runs one swaps, rolls back or
restarts its app meanwhile like any other. Who claims one compares what was due, its own presence, and for a ``post``
task the group's target; the result compares the claim. What is killed is never run twice: the update service sets it to
unknown when the runner's presence has ended.

The program is the one that the package names. A key of a task says only which one is due: every sidekick may write such
keys, and none may make another one run a program.
"""

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec
from loguru import logger

from outrider.core.errors import Conflict, DriverError, OutriderError, Unknown
from outrider.core.sidekick.memory import Release
from outrider.core.tasks import FOLLOWING, TaskSpec
from outrider.etcd.seam import Cluster, Compare, Entry, ModifiedAt, Op, Put
from outrider.etcd.subject import Subject
from outrider.failpoints import failpoint, for_same_instance
from outrider.model.damage import read_or_none
from outrider.model.documents import Package, Target, decode, encode
from outrider.model.keys import Keys
from outrider.model.tasks import Task
from outrider.pool import ElasticPool, Rounds
from outrider.sidekick.task_claims import NO_PRESENCE, Claimed, Result, TaskClaims
from outrider.sidekick.task_programs import Interrupted
from outrider.sidekick.workers.task import LOOK_S, RETRY_MAX_S, RETRY_MIN_S, Programs
from outrider.turns.oldest import OldestVersion

UNABLE_S = 60.0
"""After a task could not be begun on this machine another one has so long to claim it before this one tries again."""
IDLE_S = 3600.0


class DueTasks:
    """The tasks that are due in one instance's group. ``round`` does the next thing; ``start`` gives it a thread."""

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        claims: TaskClaims,
        programs: Programs,
        oldest: OldestVersion,
        *,
        app: str,
        group: str,
        instance: str,
        process: str,
        find_payload: Callable[[str], Path | None],
        clock: Callable[[], datetime],
        crash: Callable[[BaseException], None],
        monotonic: Callable[[], float] = time.monotonic,
        pool: ElasticPool | None = None,
    ) -> None:
        """Prepare.

        Args:
            programs: Runs them; not the one that runs the tasks of an update, which may run at the same time.
            oldest: What a ``contract`` task compares and leaves behind.
            find_payload: By its digest; None: it isn't on this machine.
            crash: Told of a bug that a round died of.
            pool: Lends the thread that runs what is due.
        """
        self._cluster, self._keys, self._claims, self._programs = cluster, keys, claims, programs
        self._oldest = oldest
        self._app, self._group, self._instance, self._process = app, group, instance, process
        self._find_payload, self._clock, self._crash, self._monotonic = find_payload, clock, crash, monotonic
        self._changed = threading.Lock()
        self._started = self._closed = False
        self._entries: dict[str, Mapping[str, Entry]] = {}
        self._unable: dict[str, float] = {}
        self._unanswered: set[str] = set()
        self._claimed: Claimed | None = None
        self._result: Result | None = None
        self._subjects: list[Subject] = []
        self._rounds = Rounds(pool, for_same_instance(self._round), "due tasks")
        self._delay_s = RETRY_MIN_S
        self._told: dict[str, str] = {}

    @property
    def is_busy(self) -> bool:
        """A task is claimed here, and its result isn't written."""
        return self._claimed is not None

    def start(self) -> None:
        """Watch, and run what is due on a thread of the pool."""
        for prefix in self._claims.watched:
            self._subjects.append(
                Subject(self._cluster, prefix, lambda entries, _, at=prefix: self.tell(at, entries), exact=False)  # type: ignore[misc]
            )
        self._started = True
        self._rounds.ask()

    def look_again(self) -> None:
        """etcd was restored: list what is due anew."""
        for subject in self._subjects:
            subject.begin_again()

    def close(self) -> None:
        """End; a program that runs is ended, too, and its task is unknown until somebody has looked."""
        self._programs.close()
        for subject in self._subjects:
            subject.close()
        self._closed = True
        self._rounds.close(10.0)

    def tell(self, prefix: str, entries: Mapping[str, Entry]) -> None:
        """What stands below one of the watched prefixes now."""
        with self._changed:
            self._entries[prefix] = dict(entries)
        if self._started:
            self._rounds.ask()

    def round(self) -> float:
        """Do the next thing.

        Returns:
            Seconds after which another round may help, if nothing changes before; 0: at once.

        Raises:
            Unknown: no answer from etcd; another round does the same again.
        """
        if self._claimed is not None:
            self._go_on(self._claimed)
            return 0.0
        with self._changed:
            entries = sorted(
                (entry for listing in self._entries.values() for entry in listing.values()),
                key=lambda entry: entry.create_revision,
            )
        waits = False
        for entry in entries:
            task = read_or_none(Task, entry.key, entry.value)
            if task is None:
                continue
            if task.state == "running" and task.claim in self._unanswered:
                # it was made after all, and nothing was begun for it: what runs has had its answer
                self._unanswered.discard(task.claim)
                spec = self._spec_of(task)
                if spec is not None:
                    self._claimed = Claimed(spec=spec, key=entry.key, task=task, revision=entry.mod_revision)
                    return 0.0
            if task.state != "due" or (task.group != self._group and not self._is_ours_too(entry.key)):
                continue
            self._claimed = self._claim(entry, task)
            if self._claimed is not None:
                return 0.0
            waits = True
        return LOOK_S if waits else IDLE_S

    def _is_ours_too(self, key: str) -> bool:
        """It runs once for the whole app, and any group's instance may run it."""
        return key.startswith(self._keys.tasks(self._app, ""))

    def _claim(self, entry: Entry, task: Task) -> Claimed | None:
        """Make it ours; None: not now, or another one was faster."""
        if self._unable.get(entry.key, 0.0) > self._monotonic():
            return None
        spec = self._spec_of(task)
        if spec is None:
            self._note(entry, f"{task.version} has no such task in its package")
            return None
        if not spec.is_of_machine and self._find_payload(task.sha256) is None:
            self._note(entry, f"the payload of {task.version} isn't on this machine")
            return None
        conditions = self._conditions(task)
        if isinstance(conditions, str):
            self._note(entry, conditions)
            return None
        claimed = msgspec.structs.replace(
            task,
            state="running",
            instance=self._instance,
            group=self._group,
            process=self._process,
            claim=uuid.uuid4().hex,
            command=spec.command,
            started=self._clock(),
            why="",
        )
        ours = ModifiedAt(key=entry.key, revision=entry.mod_revision)
        also: tuple[Op, ...] = ()
        if task.kind == "contract":
            begins = self._oldest.begins(claimed, spec.scope, self._instance)
            if isinstance(begins, str):
                self._note(entry, begins)
                return None
            compares, also = begins
            conditions = (*conditions, *compares)
        try:
            with failpoint("due.claim"):
                done = self._cluster.txn((ours, *conditions), (Put(key=entry.key, value=encode(claimed)), *also))
        except Unknown:
            self._unanswered.add(claimed.claim)
            raise
        if not done.succeeded:
            return None
        return Claimed(spec=spec, key=entry.key, task=claimed, revision=done.revision)

    def _spec_of(self, task: Task) -> TaskSpec | None:
        """The task as its package has it."""
        key = self._keys.package(self._app, task.version)
        with failpoint("task.read"):
            entry = self._cluster.get(key)
        if entry is None:
            return None
        try:
            package = decode(Package, key, entry.value)
        except Conflict:
            return None
        known = package.tasks if package.sha256 == task.sha256 else ()
        return next((spec for spec in known if (spec.name, spec.kind) == (task.name, task.kind)), None)

    def _conditions(self, task: Task) -> tuple[Compare, ...] | str:
        """What must hold as the claim is made; or why it isn't made now."""
        present = self._claims.present()
        if present is None:
            return NO_PRESENCE
        if task.kind not in FOLLOWING:
            return (present,)
        key = self._keys.target(self._app, self._group)
        with failpoint("task.read"):
            entry = self._cluster.get(key)
        target = None if entry is None else read_or_none(Target, key, entry.value)
        if entry is None or target is None or target.sha256 != task.sha256:
            return f"the group's target isn't {task.version} any more"
        if target.paused:
            return "the group is paused"
        return present, ModifiedAt(key=key, revision=entry.mod_revision)

    def _note(self, entry: Entry, why: str) -> None:
        if self._told.get(entry.key) != why:
            self._told[entry.key] = why
            logger.bind(task=entry.key, why=why).info("task is due, and not for this instance now")

    def _go_on(self, claimed: Claimed) -> None:
        task = claimed.task
        if self._result is None:
            release = Release(
                version=task.version,
                urls=(),
                sha256=task.sha256,
                size_bytes=0,
                environment=task.environment,
                environment_digest=task.environment_digest,
                generation=task.generation,
            )
            try:
                self._result = self._programs.run(claimed, release)
            except Interrupted:
                self._claimed = None
            except DriverError as error:
                self._give_back(claimed, str(error))
                self._unable[claimed.key] = self._monotonic() + UNABLE_S
                self._claimed = None
            return
        counts = self._claims.finish(claimed, self._result)
        logger.bind(task=claimed.spec.name, result=self._result.why, counts=counts).info("task ended")
        self._claimed = self._result = None

    def _give_back(self, claimed: Claimed, why: str) -> None:
        """It could not be begun here: whoever can, may run it."""
        again = msgspec.structs.replace(
            claimed.task, state="due", instance="", process="", claim="", why=f"{self._instance}: {why}"
        )
        with failpoint("task.write"):
            ours = ModifiedAt(key=claimed.key, revision=claimed.revision)
            self._cluster.txn((ours,), (Put(key=claimed.key, value=encode(again)),))

    def _round(self) -> float | None:
        if self._closed:
            return None
        try:
            wait_s, self._delay_s = self.round(), RETRY_MIN_S
        except OutriderError as error:
            logger.bind(error_kind=error.kind, cause=str(error)).warning("due task waits for etcd")
            wait_s, self._delay_s = self._delay_s, min(RETRY_MAX_S, self._delay_s * 2)
        except BaseException as error:  # noqa: BLE001 - handed to the loop, which dies of it
            self._closed = True
            self._crash(error)
            return None
        return wait_s
