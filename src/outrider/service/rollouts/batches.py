"""All waiting check-ins of a group are judged against one snapshot and committed in one transaction.

Each grant writes the group's rollout, so check-ins of one group can't be committed side by side. One thread serves a
group at a time: it takes all that wait, as many as a transaction of etcd holds, lets each see what those before it were
given, and commits once; then it is another group's turn. Who waits keeps no thread: it is told the outcome.

First they are judged over this process's copy of etcd, and the commit compares all that was read. A commit that fails
is tried again, and reads etcd then. A check-in of which an own key was written meanwhile (the same instance through
another process, say) goes alone then, so that it sends the others back once. One that can't be judged takes no other
along: what it had read and written is forgotten.
"""

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from loguru import logger

from outrider.core.errors import Conflict, DriverError, OutriderError, Throttled
from outrider.etcd.seam import Cluster
from outrider.service.store.changes import ATTEMPTS, MAX_OPERATIONS, Change, ChangeMark, Unaudited
from outrider.service.store.context import StoreContext
from outrider.service.store.copied_change import CopiedChange
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.read_model import Behind, ReadModel
from outrider.service.store.serving import over_copy
from outrider.service.store.snapshot import GroupSnapshot, SnapshotMark

MOST = 20
"""Check-ins of one transaction: each compares about five keys, besides those that all of them share."""
SPARE = 8
"""Operations of a transaction that stay free: for the rollout and the brake, which are written at its end."""
THREADS = 16
"""Groups that are served at the same time; a thread that had nothing to do for a while ends."""
IDLE_S = 0.1
"""Between the batches of a burst a thread stays; starting one costs a tenth of a millisecond."""
WAITS_S = 8.0
"""Who has waited longer is sent away, and nothing is written: its answer would come too late for a sidekick."""
COME_BACK_S = (30, 90)
"""A random time between these, so that the clients do not return all at once."""
COPY_PAUSE_S = 0.2
"""After the copy was behind, etcd is read for so long: another process is writing the same group."""

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class TooBusy(Throttled):
    """A check-in has waited so long that its answer would come too late; nothing was decided."""


class Batch:
    """One transaction for several check-ins, and the snapshots of the groups that they see."""

    def __init__(self, change: Change, model: ReadModel | None = None) -> None:
        """``model``: whose copy is read; None: etcd is."""
        self.change = change
        self.snapshots: dict[str, GroupSnapshot] = {}
        self._model = model
        self._known: tuple[StoreContext, StoreContext] | None = None

    def context(self, given: StoreContext) -> StoreContext:
        """The context of a check-in, with what this batch reads."""
        if self._model is None:
            return given
        if self._known is None or self._known[0] is not given:
            self._known = given, over_copy(given, self._model)
        return self._known[1]

    def mark(self) -> tuple[ChangeMark, dict[str, tuple[GroupSnapshot, SnapshotMark]]]:
        """What is decided as yet."""
        return self.change.mark(), {name: (one, one.mark()) for name, one in self.snapshots.items()}

    def back_to(self, mark: tuple[ChangeMark, dict[str, tuple[GroupSnapshot, SnapshotMark]]]) -> None:
        """Forget everything since ``mark``."""
        change, snapshots = mark
        self.change.back_to(change)
        self.snapshots = {name: one for name, (one, _) in snapshots.items()}
        for one, before in snapshots.values():
            one.back_to(before)

    def write(self) -> None:
        """Write the rollouts that have changed."""
        for one in self.snapshots.values():
            one.write()


class Booking(Protocol[T_co]):
    """What takes part in a batch."""

    @property
    def keys(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The keys that it reads first, and those of which only the existence counts."""

    @property
    def own_keys(self) -> tuple[str, ...]:
        """Those of them that no other member reads."""

    @property
    def seen(self) -> tuple[int, str]:
        """The revision, and its epoch, that must have been seen to judge it; 0: any."""

    def book_in(self, batch: Batch) -> T_co:
        """Read, decide and write into the batch."""


Outcome = Callable[[], T]
"""Gives what a check-in came to, or raises why it came to nothing."""


class _Waiting(Generic[T]):
    def __init__(
        self, booking: Booking[T], told: Callable[[Outcome[T]], None], is_wanted: Callable[[], bool], waits_s: float
    ) -> None:
        self.booking, self.is_wanted, self.waits_s, self._told = booking, is_wanted, waits_s, told
        self.came = time.monotonic()
        self.is_told = False

    def tell(self, outcome: Outcome[T]) -> None:
        if self.is_told:
            return
        self.is_told = True
        self._told(outcome)

    def fail(self, error: BaseException) -> None:
        def fail() -> T:
            raise error

        self.tell(fail)


class Batches(Generic[T]):
    """The check-ins of one process that wait, by group. Any thread may book."""

    def __init__(self, model: ReadModel | None = None) -> None:
        """``model``: over which they are judged first; None: etcd is read."""
        self._model = model
        self._changing = threading.Condition()
        self._queues: dict[str, deque[_Waiting[T]]] = {}
        self._ready: deque[Callable[[], None]] = deque()
        self._threads = self._idle = 0
        self._no_copy_until: dict[str, float] = {}

    def book(self, cluster: Cluster, group_lock: GroupLock, name: str, booking: Booking[T], auditing: Unaudited) -> T:
        """Book one check-in of the group ``name``, together with all others that wait.

        Raises:
            Unknown: etcd gives no answer.
            Conflict: other changes of the same keys win every race.
            Exception: what the booking itself raised.
        """
        told, outcomes = threading.Event(), list[Outcome[T]]()

        def tell(outcome: Outcome[T]) -> None:
            outcomes.append(outcome)
            told.set()

        self.submit(cluster, group_lock, name, booking, auditing, tell)
        told.wait()
        return outcomes[0]()

    def submit(
        self,
        cluster: Cluster,
        group_lock: GroupLock,
        name: str,
        booking: Booking[T],
        auditing: Unaudited,
        told: Callable[[Outcome[T]], None],
        is_wanted: Callable[[], bool] = lambda: True,
        waits_s: float = math.inf,
    ) -> None:
        """As ``book``, without waiting.

        Args:
            waits_s: If it waits longer, it is sent away, and nothing is decided.
            told: Called once, from a thread of this object; it does not block, and raises nothing.
            is_wanted: Whether anybody still waits for it; asked before it is judged.
        """
        mine = _Waiting(booking, told, is_wanted, waits_s)
        with self._changing:
            queue = self._queues.get(name)
            if queue is not None:
                queue.append(mine)
                return
            queue = self._queues[name] = deque()
            queue.append(mine)
            self._be_served(lambda: self._serve(cluster, group_lock, name, queue, auditing))

    def waiting(self, name: str) -> int:
        """How many check-ins of a group wait."""
        with self._changing:
            queue = self._queues.get(name)
            return 0 if queue is None else len(queue)

    def _be_served(self, serve: Callable[[], None]) -> None:
        """The condition is held."""
        self._ready.append(serve)
        if self._idle >= len(self._ready):
            self._changing.notify()
        elif self._threads < THREADS:
            self._threads += 1
            threading.Thread(target=self._run, name=f"outrider-checkins-{self._threads}", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._changing:
                self._idle += 1
                has_work = self._changing.wait_for(lambda: self._ready, IDLE_S)
                self._idle -= 1
                if not has_work:
                    self._threads -= 1
                    return
                serve = self._ready.popleft()
            serve()

    def _serve(
        self, cluster: Cluster, group_lock: GroupLock, name: str, queue: deque[_Waiting[T]], auditing: Unaudited
    ) -> None:
        """Commit one batch of a group; what waits then comes after the other groups."""
        taken: list[_Waiting[T]] = []
        try:
            with group_lock.held(name):
                with self._changing:
                    taken = [queue.popleft() for _ in range(min(MOST, len(queue)))]
                self._commit_all(cluster, name, self._in_time(taken), auditing)
        except Exception as error:  # noqa: BLE001 - told to who waits; the thread serves other groups, too
            if not isinstance(error, OutriderError):
                logger.opt(exception=True).error("check-ins not booked")
            for one in taken:
                one.fail(error)
        with self._changing:
            if queue:
                self._be_served(lambda: self._serve(cluster, group_lock, name, queue, auditing))
            else:
                self._queues.pop(name, None)

    def _in_time(self, taken: list[_Waiting[T]]) -> list[_Waiting[T]]:
        now, wanted = time.monotonic(), []
        for one in taken:
            if not one.is_wanted():
                one.fail(Throttled("the client has gone", retry_after_s=1))
            elif now - one.came > one.waits_s:
                waited = f"too busy: this check-in has waited {now - one.came:.0f} s; come back later"
                one.fail(TooBusy(waited, retry_after_s=random.randint(*COME_BACK_S)))  # noqa: S311 - spreads them
            else:
                wanted.append(one)
        return wanted

    def _commit_all(self, cluster: Cluster, name: str, taken: list[_Waiting[T]], auditing: Unaudited) -> None:
        """Over the copy those that may be judged over it, then the others over etcd."""
        model, left = self._model, taken
        if model is not None and model.is_confirmed and self._no_copy_until.get(name, 0.0) <= time.monotonic():
            self._no_copy_until.pop(name, None)
            seen = [one for one in taken if self._is_seen(model, *one.booking.seen)]
            try:
                is_current = self._commit_copied(cluster, model, seen, auditing)
            except Behind:
                is_current = False
            if not is_current:
                self._no_copy_until[name] = time.monotonic() + COPY_PAUSE_S
            left = [one for one in taken if not one.is_told]
        self._commit(cluster, left, auditing)

    @staticmethod
    def _is_seen(model: ReadModel, revision: int, epoch: str) -> bool:
        return model.revision >= revision and model.knows_epoch(epoch)

    def _commit_copied(self, cluster: Cluster, model: ReadModel, taken: list[_Waiting[T]], auditing: Unaudited) -> bool:
        """Judge them over the copy; whoever isn't told is judged again. False: the copy was behind."""
        together = taken
        while together:
            batch = Batch(CopiedChange(cluster, model), model)
            booked, together, _ = self._judge(batch, together)
            batch.write()
            if not batch.change.commit(auditing):
                return False
            for one, outcome in booked:
                one.tell(lambda outcome=outcome: outcome)  # type: ignore[misc]
            if not booked:
                return True
        return True

    def _commit(self, cluster: Cluster, taken: list[_Waiting[T]], auditing: Unaudited) -> None:
        """Commit all of them: together, then one by one those that could not be."""
        together, alone = taken, list[_Waiting[T]]()
        for _ in range(ATTEMPTS):
            if not together:
                break
            batch = Batch(Change(cluster))
            booked, left, failed = self._judge(batch, together)
            for one, error in failed:
                one.fail(error)
            batch.write()
            if batch.change.commit(auditing):
                for one, outcome in booked:
                    one.tell(lambda outcome=outcome: outcome)  # type: ignore[misc]
                together = left
                continue
            moved = batch.change.moved
            judged = [one for one, _ in booked]
            hindering = [one for one in judged if moved.intersection(one.booking.own_keys)]
            if len(judged) > 1:
                alone += hindering
                judged = [one for one in judged if one not in hindering]
            together = [*judged, *left]
        if together:
            raise Conflict(f"lost {ATTEMPTS} races against other changes of the same documents; try again")
        for one in alone:
            self._commit(cluster, [one], auditing)

    def _judge(
        self, batch: Batch, together: list[_Waiting[T]]
    ) -> tuple[list[tuple[_Waiting[T], T]], list[_Waiting[T]], list[tuple[_Waiting[T], OutriderError]]]:
        """Who was judged, with the outcome, who comes later, and who can't be judged."""
        keys = [one.booking.keys for one in together]
        batch.change.fetch(
            *(key for every, _ in keys for key in every), only_existing=tuple(key for _, some in keys for key in some)
        )
        booked: list[tuple[_Waiting[T], T]] = []
        later: list[_Waiting[T]] = []
        failed: list[tuple[_Waiting[T], OutriderError]] = []
        seen: set[str] = set()
        for number, one in enumerate(together):
            # what a change writes it doesn't read: whoever needs that is judged after the commit
            own = one.booking.own_keys
            if not seen.isdisjoint(own):
                later.append(one)
                continue
            seen.update(own)
            mark = batch.mark()
            try:
                outcome = one.booking.book_in(batch)
            except OutriderError as error:
                if isinstance(error, DriverError) and not isinstance(error, Throttled):
                    raise  # etcd is away for all of them
                batch.back_to(mark)
                failed.append((one, error))
                continue
            if booked and batch.change.size > MAX_OPERATIONS - SPARE:
                batch.back_to(mark)
                return booked, [*later, *together[number:]], failed
            if batch.change.overwrites(mark[0]):
                batch.back_to(mark)
                later.append(one)
                continue
            booked.append((one, outcome))
        return booked, later, failed
