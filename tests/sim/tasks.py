"""Tasks in the simulated fleet: their programs, the presences that claims compare, and who ends those of the dead."""

import hashlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from outrider.core import versions
from outrider.core.errors import DriverError, OutriderError
from outrider.core.sidekick.memory import Release
from outrider.core.tasks import TaskSpec
from outrider.etcd.seam import CreatedAt, Delete, Put
from outrider.model.documents import Block, Package, Presence, decode, encode
from outrider.model.oldest import Oldest
from outrider.model.tasks import Task
from outrider.service.store.context import StoreContext
from outrider.service.store.task_states import due_again, end_lost
from outrider.sidekick.due_tasks import DueTasks
from outrider.sidekick.task_claims import Claimed, Result, TaskClaims
from outrider.sidekick.workers.task import Follow
from tests.sim.host import sha_of
from tests.sim.store import KEYS

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet
    from tests.sim.life import Life

APP, GROUP = "app", "g"
CONTROLLER_S = 1.0
RUNS_S = (0.5, 20.0)


class SimTasks:
    """What the fleet knows of tasks.

    Attributes:
        ran: How often each was begun, by version and name; an operator's retry begins to count anew.
        bad: Names of tasks that fail.
        follows: A task that follows a rollout was made due.
    """

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet
        self.specs: dict[str, tuple[TaskSpec, ...]] = {}
        self.ran: Counter[tuple[str, str]] = Counter()
        self.bad: set[str] = set()
        self.follows = False
        self._hand = fleet.store.client("the service")

    def give(self, version: str, *specs: TaskSpec) -> None:
        """Let the package of ``version`` have these tasks."""
        package = Package(
            app=APP, version=version, url="http://x/1", name="1", size_bytes=1, sha256=sha_of(version), tasks=specs,
            created=self._fleet.now(),
        )  # fmt: skip
        if not self.specs:
            self._fleet.at(CONTROLLER_S, self._control)
            for member in self._fleet.members:
                member.life.write_presence()
        self.specs[version] = specs
        self._hand.txn((), (Put(key=KEYS.package(APP, version), value=encode(package)),))

    def stored(self) -> dict[str, Task]:
        """All tasks that are claimed, by name."""
        entries = self._fleet.store.entries
        found = (decode(Task, key, entry.value) for key, entry in entries.items() if key.startswith(KEYS.all_tasks()))
        return {task.name: task for task in found}

    def oldest(self) -> tuple[Oldest, ...]:
        """The oldest version that may run, as far as a task has made one."""
        places = (KEYS.oldest(APP, GROUP), KEYS.oldest(APP, ""))
        found = ((place, self._fleet.store.entries.get(place)) for place in places)
        return tuple(decode(Oldest, place, entry.value) for place, entry in found if entry is not None)

    def make_due(self, version: str, spec: TaskSpec) -> None:
        """What the service writes once the group has wholly taken a release; and every sidekick looks from now on."""
        task = Task(
            app=APP, group=GROUP, name=spec.name, kind=spec.kind, command=spec.command, version=version,
            release=version, key=version, sha256=sha_of(version), state="due", instance="", process="", claim="",
            limit_s=spec.limit_s, started=self._fleet.now(), repeatable=spec.repeatable,
        )  # fmt: skip
        self._hand.calls.clear()
        self._hand.txn((), (Put(key=KEYS.task(APP, GROUP, sha_of(version), spec.name), value=encode(task)),))
        self.follows = True
        for member in self._fleet.members:
            member.life.look_for_due()

    def let_run_again(self, name: str) -> None:
        """An operator's `task retry` of a task that follows a rollout."""
        entries = self._fleet.store.entries
        key = next(key for key in entries if key.startswith(KEYS.all_tasks()) and key.endswith(f"/{name}"))
        task = decode(Task, key, entries[key].value)
        self.ran[task.version, name] = 0
        self._hand.calls.clear()
        self._hand.txn((), (Put(key=key, value=encode(due_again(task, "said"))),))

    def retry(self, name: str) -> None:
        """An operator lets a task run again: what the service writes for `task retry`."""
        entries = self._fleet.store.entries
        key = next(key for key in entries if key.startswith(KEYS.all_tasks()) and key.endswith(f"/{name}"))
        task = decode(Task, key, entries[key].value)
        blocks = [each for each in entries if each.startswith(KEYS.blocks(APP))]
        lifted = [each for each in blocks if decode(Block, each, entries[each].value).task]
        self.ran[task.version, name] = 0
        self._hand.txn((), (Delete(key=key), *(Delete(key=each) for each in lifted)))

    def begun(self, version: str, spec: TaskSpec) -> None:
        """A program begins; the promise of tasks."""
        self.ran[version, spec.name] += 1
        if self.ran[version, spec.name] > 1 and not spec.repeatable:
            self._fleet.promises.fail(f"task {spec.name} of {version} runs twice")

    def check_started(self, name: str, version: str) -> None:
        """A version starts on an instance: everything that must run before it is done, and it isn't too old."""
        stored = self.stored()
        for oldest in self.oldest():
            if versions.is_newer(oldest.version, version):
                self._fleet.promises.fail(f"{name} starts {version}: {oldest.refusal(version)}")
        for spec in self.specs.get(version, ()):
            if spec.kind != "pre":
                continue
            task = stored.get(spec.name)
            if task is None or task.state != "done":
                state = "not claimed" if task is None else task.state
                self._fleet.promises.fail(f"{name} starts {version} while its task {spec.name} is {state}")

    def _control(self) -> None:
        self._fleet.at(CONTROLLER_S, self._control)
        self._hand.calls.clear()
        end_lost(StoreContext(cluster=self._hand, keys=KEYS, now=self._fleet.now))


class SimPrograms:
    """The programs of one sidekick's tasks."""

    def __init__(self, life: "Life") -> None:
        self._life = life

    def run(self, claimed: Claimed, release: Release) -> Result:
        """It takes no time here: its round does."""
        tasks = self._life.fleet.tasks
        tasks.begun(release.version, claimed.spec)
        if claimed.spec.name in tasks.bad:
            return Result(code=3, why="exit 3", output="no such table")
        return Result(code=0, why="exit 0", output="")

    def close(self) -> None:
        """Nothing outlives the process."""


def follow(life: "Life", one: Follow) -> None:
    """Let the rounds of a request come by appointment, with time between claim, run and result."""
    if one.over:
        return
    random = life.fleet.random
    life.client.spent_s = 0.0
    try:
        wait_s = one.round()
    except OutriderError:
        wait_s = 1.0
    pause_s = random.uniform(*RUNS_S) if one.is_busy else random.uniform(0.05, 0.3)
    life.at(life.client.spent_s + min(wait_s, 2.0) + pause_s, partial(follow, life, one))


def look_for_due(life: "Life", due: DueTasks) -> None:
    """Round by round, for as long as the process lives, with time between claim, run and result."""
    random, prefix = life.fleet.random, KEYS.tasks(APP, GROUP)
    life.client.spent_s = 0.0
    try:
        if not due.is_busy:
            due.tell(prefix, {entry.key: entry for entry in life.client.list(prefix).entries})
        due.round()
    except OutriderError:
        pass
    pause_s = random.uniform(*RUNS_S) if due.is_busy else random.uniform(0.2, 1.5)
    life.at(life.client.spent_s + pause_s, partial(look_for_due, life, due))


def due_tasks_of(life: "Life", process: str) -> DueTasks:
    """The tasks that follow rollouts, as one process looks for them."""
    fleet, name = life.fleet, life.member.name
    claims = TaskClaims(life.client, KEYS, app=APP, group=GROUP, instance=name, process=process, clock=fleet.now)
    return DueTasks(
        life.client,
        KEYS,
        claims,
        SimPrograms(life),
        life.oldest,
        app=APP,
        group=GROUP,
        instance=name,
        process=process,
        find_payload=lambda sha256: Path("/payload"),
        clock=fleet.now,
        crash=lambda error: fleet.promises.fail(f"due tasks of {name} died: {error}"),
        monotonic=life.unsuspended_s,
    )


def write_presence(life: "Life", process: str, at: Callable[[], None]) -> None:
    """As the presence's own thread: under the lease, again when that has changed."""
    lease = life.keeper.lease
    if lease is None:
        return
    presence = Presence(
        instance=life.member.name, app=APP, group=GROUP, state="", version="", since=life.fleet.now(), process=process,
        secret_sha256=hashlib.sha256(life.secret.encode()).hexdigest(),
    )  # fmt: skip
    life.client.spent_s = 0.0
    try:
        key = KEYS.presence(APP, GROUP, life.member.name)
        admitted = CreatedAt(key=KEYS.gone(APP, life.member.name), revision=0)
        if life.client.txn((admitted,), (Put(key=key, value=encode(presence), lease=lease),)).succeeded:
            life.acknowledged = lease
    except DriverError:
        life.at(2.0, at)
