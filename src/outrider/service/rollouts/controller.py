"""The rollout controller: it looks at the queues of all groups, woken by watches and by one timer.

Every process runs one, without a leader: a look decides and writes in one transaction (``wakeups.py``). The controller
starts with a look at every group, so it catches up after a time without any process.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from loguru import logger

from outrider.clocks import seconds_since_boot
from outrider.core.errors import DriverError, OutriderError
from outrider.etcd.epoch_watch import EpochWatch
from outrider.etcd.seam import Entry, KeyChanged, Resynced, Watch, WatchEvent
from outrider.model.damage import read_or_none
from outrider.model.documents import Gone, Group, Presence
from outrider.service.destinations import ANALYSES, Destinations
from outrider.service.rollouts.block_check import check_blocks
from outrider.service.rollouts.overdue import OverdueGrants
from outrider.service.rollouts.wakeups import look
from outrider.service.rollouts.wave_analyst import WaveAnalyst
from outrider.service.store.changes import Unaudited, apply
from outrider.service.store.context import StoreContext
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.read_model import ReadModel
from outrider.service.store.removal import finish
from outrider.service.store.task_states import end_lost

GATHER_S = 0.05
"""Changes come in bursts, and one look after a burst is enough. The length varies, so processes do not collide."""
RETRY_S = 2.0
RESTS = 9.0
"""A group is left alone for so many times what a look took: the looks at it leave nine tenths to the check-ins."""
LONGEST_REST_S = 1.0
COPY_S = 0.1
"""For how long the copy is waited for."""
LONGEST_WAIT_S = 60.0
"""After this time the controller reads the clock again, because an operator may have set it."""

_Group = tuple[str, str]


class RolloutController:
    """Wakes deferred instances from ``start`` until ``close``."""

    def __init__(
        self,
        context: StoreContext,
        group_lock: GroupLock | None = None,
        clock: Callable[[], float] = seconds_since_boot,
        model: ReadModel | None = None,
        destinations: Destinations = ANALYSES,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            group_lock: The lock of this process's check-ins.
            clock: Seconds that never go back.
            model: The copy of etcd that is looked at; None: etcd itself is.
            destinations: Where the analyses at the end of a wave may lead.
        """
        self._model = model
        self._noted = 0
        """Revision of the last change that was noted: a copy that is behind it is not looked at."""
        self._rests: dict[_Group, float] = {}
        """Until when a group is left alone after a look, by the monotonic clock."""
        self._context, self._group_lock = context, group_lock or GroupLock()
        self._clock, self._overdue, self._ends = clock, OverdueGrants(clock), dict[_Group, float]()
        self._changed = threading.Condition()
        self._to_look: set[_Group] = set()
        self._apps: set[str] = set()
        self._all = True
        self._gone: set[tuple[str, str]] = set()
        self._due: dict[_Group, datetime] = {}
        self._count_serving: set[_Group] = set()
        self._tasks = True
        """A task may have lost its runner."""
        self._blocks = True
        """A block may be nobody's."""
        self._runners: frozenset[str] = frozenset()
        self._closed = False
        self._watches: list[Watch] = []
        self._epoch = EpochWatch(context.cluster, context.keys, self._look_again)
        self._analyst = WaveAnalyst(context, self._group_lock, destinations)
        self._thread = threading.Thread(target=self._run, name="outrider-rollout-controller", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, even while etcd is away."""
        self._thread.start()
        self._analyst.start()

    def close(self) -> None:
        """Stop; this controller wakes no instance after this returns."""
        self._epoch.close()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(10.0)
        self._analyst.close()
        for watch in self._watches:
            watch.close()

    def _look_again(self, why: str) -> None:
        """etcd was restored: every watch lists anew, and each group is looked at, whatever was known of it."""
        with self._changed:
            watches = tuple(self._watches)
            self._all = True
            self._count_serving.clear()
            self._due.clear()
            self._changed.notify_all()
        for watch in watches:
            watch.look_again()

    def _run(self) -> None:
        try:
            while self._wait():
                self._round()
        except Exception:
            # A process that serves without waking instances would leave all of them waiting, unnoticed.
            logger.opt(exception=True).critical("rollout controller ended")
            raise

    def _wait(self) -> bool:
        """Sleep until there is a group to look at; False after ``close``."""
        with self._changed:
            while not self._closed and not (self._all or self._apps or self._is_any_ready() or self._gone):
                wait_s = self._until_due_s()
                if wait_s <= 0 or self._tasks or self._blocks:
                    break
                self._changed.wait(min(wait_s, LONGEST_WAIT_S))
            if not self._closed:
                self._changed.wait_for(lambda: self._closed, GATHER_S * random.uniform(0.2, 1.0))  # noqa: S311
            return not self._closed

    def _is_any_ready(self) -> bool:
        return any(not self._rests_s(group) for group in self._to_look)

    def _rests_s(self, group: _Group) -> float:
        """For how long a group is left alone, though something has changed; 0: it isn't."""
        return max(self._rests.get(group, 0.0) - time.monotonic(), 0.0)

    def _until_due_s(self) -> float:
        ends_in_s = min(self._ends.values(), default=LONGEST_WAIT_S + self._clock()) - self._clock()
        ends_in_s = min((ends_in_s, *map(self._rests_s, self._to_look)))
        if not self._due:
            return ends_in_s
        return min(ends_in_s, (min(self._due.values()) - self._context.now()).total_seconds())

    def _round(self) -> None:
        try:
            self._finish_removals()
            groups = self._take()
            self._end_lost_tasks()
            self._check_blocks()
        except OutriderError as error:
            self._failed("groups not listed", error)
            return
        for group in sorted(groups):
            with self._changed:
                if self._closed:
                    return
            self._look(group)

    def _finish_removals(self) -> None:
        """Remove the rows and grants of instances that were decommissioned."""
        with self._changed:
            gone, everything = set(self._gone), self._all
        if everything:
            for marker in self._context.all_below(Gone, f"{self._context.keys.prefix}/gone/"):
                gone.add((marker.app, marker.instance))
        for app, instance in sorted(gone):
            apply(
                self._context.cluster,
                lambda change, app=app, instance=instance: finish(self._context, change, app, instance),  # type: ignore[misc]
                Unaudited("the instance was decommissioned: its marker says by whom"),
            )
        with self._changed:
            self._gone -= gone

    def _check_blocks(self) -> None:
        """Let no block stand that its writer didn't make; after the watches began, so that none is missed."""
        with self._changed:
            is_due, self._blocks = self._blocks, False
        if not is_due:
            return
        try:
            check_blocks(self._context)
        except OutriderError:
            with self._changed:
                self._blocks = True
            raise

    def _end_lost_tasks(self) -> None:
        """Look for tasks whose runners have ended; after the watches began, so that no end is missed."""
        with self._changed:
            is_due, self._tasks = self._tasks, False
        if not is_due:
            return
        try:
            runners = end_lost(self._context)
        except OutriderError:
            with self._changed:
                self._tasks = True
            raise
        with self._changed:
            # a presence that ended before it was known to matter is found by another look
            self._tasks = self._tasks or bool(runners - self._runners)
            self._runners = runners

    def _take(self) -> set[_Group]:
        """The groups to look at now."""
        with self._changed:
            everything, apps = self._all, set(self._apps)
            groups = {group for group in self._to_look if not self._rests_s(group)}
        if everything:
            groups |= self._begin()
        for app in apps:
            groups |= self._groups_of(app)
        now = self._context.now()
        with self._changed:
            groups |= {group for group, due in self._due.items() if due <= now}
            groups |= {group for group, ends_s in self._ends.items() if ends_s <= self._clock()}
            if everything:
                self._all = False
            self._apps -= apps
            self._to_look -= groups
            for group in groups:
                self._due.pop(group, None)
                self._ends.pop(group, None)
        return groups

    def _begin(self) -> set[_Group]:
        """All groups; the first call also starts the watches."""
        keys = self._context.keys
        if not self._watches:
            self._epoch.read()
        listing = self._context.cluster.list(keys.apps())
        if not self._watches:
            prefixes = (
                keys.apps(),
                *(
                    f"{keys.prefix}/{what}/"
                    for what in ("blocks", "verdicts", "presence", "instances", "gone", "tasks")
                ),
            )
            self._watch(prefixes, listing.revision + 1)
        found = (self._place_of(entry.key) for entry in listing.entries)
        return {(app, group) for app, group in found if app and group}

    def _watch(self, prefixes: tuple[str, ...], revision: int) -> None:
        watches: list[Watch] = []
        try:
            for prefix in prefixes:
                watches.append(self._context.cluster.watch(prefix, revision, self._note))
        except OutriderError:
            for watch in watches:
                watch.close()
            raise
        with self._changed:
            self._watches = watches
        self._epoch.start()

    def _groups_of(self, app: str) -> set[_Group]:
        return {(app, group.id) for group in self._context.children(Group, self._context.keys.groups(app))}

    def _look(self, group: _Group) -> None:
        with self._changed:
            # Before the look, so that no change during the look is missed.
            self._count_serving.add(group)
            noted = self._noted
        began_s = time.thread_time()
        try:
            outcome = look(self._context, self._group_lock, *group, self._overdue, self._copy(noted))
        except OutriderError as error:
            self._failed("queue not checked", error, group)
            return
        took_s = time.thread_time() - began_s
        self._analyst.ask(*group, outcome.questions)
        with self._changed:
            self._rests[group] = time.monotonic() + min(took_s * RESTS, LONGEST_REST_S)
            if outcome.again_at is not None:
                self._due[group] = outcome.again_at
            if outcome.overdue_in_s is not None:
                self._ends[group] = self._clock() + outcome.overdue_in_s
            if not outcome.counts_serving:
                self._count_serving.discard(group)
        if outcome.called:
            logger.bind(app=group[0], group=group[1], instances=list(outcome.called)).info("woken")

    def _copy(self, revision: int) -> ReadModel | None:
        """The copy, when it has come to ``revision``; in a moment, for it follows the same etcd."""
        model = self._model
        return model if model is not None and model.has_reached(revision, COPY_S) else None

    def _failed(self, what: str, error: OutriderError, group: _Group | None = None) -> None:
        log = logger.bind(error_kind=error.kind, cause=str(error), retry=True)
        (log if group is None else log.bind(app=group[0], group=group[1])).warning(what)
        with self._changed:
            if group is not None:
                self._due[group] = self._context.now() + timedelta(seconds=RETRY_S)
            elif isinstance(error, DriverError) or self._all:
                self._changed.wait_for(lambda: self._closed, RETRY_S)

    def _note(self, event: WatchEvent) -> None:
        """Note the event of a watch; it only says where to look."""
        with self._changed:
            match event:
                case Resynced(listing=listing):
                    self._all = self._tasks = self._blocks = True
                    self._noted = listing.revision
                case KeyChanged(key=key, entry=entry):
                    self._noted = max(self._noted, event.revision)
                    if entry is not None and key.startswith(self._context.keys.all_presences()):
                        self._note_given_up(entry)
                    self._note_key(key)
            self._changed.notify_all()

    def _note_given_up(self, entry: Entry) -> None:
        """A sidekick that gave up its update may have a grant that ends now."""
        presence = read_or_none(Presence, entry.key, entry.value)
        if presence is not None and presence.given_up:
            self._to_look.add((presence.app, presence.group))

    def _note_key(self, key: str) -> None:
        what, _, rest = key[len(self._context.keys.prefix) + 1 :].partition("/")
        app, _, below = rest.partition("/")
        if what in ("blocks", "verdicts"):
            self._blocks = True
        if what == "verdicts":
            return
        if what == "tasks" or key in self._runners:
            self._tasks = True
        if what in ("presence", "instances"):
            # They change all the time, and matter only where an instance waits for others to serve.
            self._to_look |= {group for group in self._count_serving if group[0] == app}
            return
        if what == "gone":
            self._gone.add((app, below))
            return
        group = self._place_of(key)[1] if what == "apps" else ""
        if group:
            self._to_look.add((app, group))
        elif below:
            # A block, a channel or a package: it may matter to any group of the app.
            self._apps.add(app)

    def _place_of(self, key: str) -> tuple[str, str]:
        """App and group of a key below ``apps/``; the group is empty for a key outside the groups."""
        parts = key[len(self._context.keys.apps()) :].split("/")
        return parts[0], parts[2] if parts[1:2] == ["groups"] and parts[2:] else ""


@contextmanager
def rollout_controller(
    context: StoreContext,
    group_lock: GroupLock | None = None,
    clock: Callable[[], float] = seconds_since_boot,
    model: ReadModel | None = None,
    destinations: Destinations = ANALYSES,
) -> Iterator[None]:
    """Run the rollout controller while the block runs; any number of processes may."""
    controller = RolloutController(context, group_lock, clock, model, destinations)
    controller.start()
    try:
        yield
    finally:
        controller.close()
