"""All waiting check-ins of a group are judged against one snapshot and committed in one transaction.

Each grant writes the group's rollout, so check-ins of one group can't be committed side by side. Of the threads that
have one, the first leads: it takes all that wait, as many as a transaction of etcd holds, lets each see what those
before it were given, and commits once. Then it hands over to the next that waits.

A commit that fails is tried again. A check-in of which an own key was written meanwhile (the same instance through
another process, say) goes alone then, so that it sends the others back once. One that can't be judged takes no other
along: what it had read and written is forgotten.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from outrider.core.errors import Conflict, DriverError, OutriderError, Throttled
from outrider.etcd.seam import Cluster
from outrider.service.store.changes import ATTEMPTS, MAX_OPERATIONS, Change, ChangeMark, Unaudited
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.snapshot import GroupSnapshot, SnapshotMark

MOST = 20
"""Check-ins of one transaction: each compares about five keys, besides those that all of them share."""
SPARE = 8
"""Operations of a transaction that stay free: for the rollout and the brake, which are written at its end."""

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Batch:
    """One transaction for several check-ins, and the snapshots of the groups that they see."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.snapshots: dict[str, GroupSnapshot] = {}

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

    def book_in(self, batch: Batch) -> T_co:
        """Read, decide and write into the batch."""


class _Waiting(Generic[T]):
    def __init__(self, booking: Booking[T]) -> None:
        self.booking = booking
        self.told = threading.Event()
        self.leads = False
        self.outcome: Callable[[], T] | None = None

    def tell(self, outcome: Callable[[], T]) -> None:
        self.outcome = outcome
        self.told.set()

    def fail(self, error: BaseException) -> None:
        def fail() -> T:
            raise error

        self.tell(fail)


class _Queue(Generic[T]):
    def __init__(self) -> None:
        self.waiting: deque[_Waiting[T]] = deque()
        self.is_led = False


class Batches(Generic[T]):
    """The check-ins of one process that wait, by group. Any thread may book."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._queues: dict[str, _Queue[T]] = {}

    def book(self, cluster: Cluster, group_lock: GroupLock, name: str, booking: Booking[T], auditing: Unaudited) -> T:
        """Book one check-in of the group ``name``, together with all others that wait.

        Raises:
            Unknown: etcd gives no answer.
            Conflict: other changes of the same keys win every race.
            Exception: what the booking itself raised.
        """
        mine = _Waiting(booking)
        with self._changing:
            queue = self._queues.setdefault(name, _Queue())
            queue.waiting.append(mine)
            mine.leads, queue.is_led = not queue.is_led, True
        if not mine.leads:
            mine.told.wait()
        if mine.outcome is None:
            self._lead(cluster, group_lock, name, queue, mine, auditing)
        assert mine.outcome is not None, "the leader has told everybody"
        return mine.outcome()

    def waiting(self, name: str) -> int:
        """How many check-ins of a group wait."""
        with self._changing:
            queue = self._queues.get(name)
            return 0 if queue is None else len(queue.waiting)

    def _lead(
        self,
        cluster: Cluster,
        group_lock: GroupLock,
        name: str,
        queue: _Queue[T],
        mine: _Waiting[T],
        auditing: Unaudited,
    ) -> None:
        """Book until the own one is booked, then let another lead."""
        try:
            while mine.outcome is None:
                with group_lock.held(name):
                    with self._changing:
                        taken = [queue.waiting.popleft() for _ in range(min(MOST, len(queue.waiting)))]
                    try:
                        self._commit(cluster, taken, auditing)
                    except BaseException as error:
                        for one in taken:
                            if one.outcome is None:
                                one.fail(error)
                        if not isinstance(error, Exception):
                            raise
        finally:
            with self._changing:
                if queue.waiting:
                    following = queue.waiting[0]
                    following.leads = True
                    following.told.set()
                else:
                    queue.is_led = False
                    self._queues.pop(name, None)

    def _commit(self, cluster: Cluster, taken: list[_Waiting[T]], auditing: Unaudited) -> None:
        """Commit all of them: together, then one by one those that could not be."""
        together, alone = taken, list[_Waiting[T]]()
        for _ in range(ATTEMPTS):
            if not together:
                break
            batch = Batch(Change(cluster))
            booked, left = self._judge(batch, together)
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
    ) -> tuple[list[tuple[_Waiting[T], T]], list[_Waiting[T]]]:
        """Who was judged, with the outcome, and who comes later; who can't be judged is told at once."""
        keys = [one.booking.keys for one in together]
        batch.change.fetch(
            *(key for every, _ in keys for key in every), only_existing=tuple(key for _, some in keys for key in some)
        )
        booked: list[tuple[_Waiting[T], T]] = []
        later: list[_Waiting[T]] = []
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
                one.fail(error)
                continue
            if booked and batch.change.size > MAX_OPERATIONS - SPARE:
                batch.back_to(mark)
                return booked, [*later, *together[number:]]
            if batch.change.overwrites(mark[0]):
                batch.back_to(mark)
                later.append(one)
                continue
            booked.append((one, outcome))
        return booked, later
