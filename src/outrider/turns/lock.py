"""The turn lock: at most ``slots`` instances of a scope swap at once, first come, first served (P1, P2).

``core/rollout/slots.py`` decides, ``claim.py`` reads and writes, ``wait.py`` waits; here is what a sidekick calls.
Why it is safe: ``docs/decisions/0003-turns-and-fences.md``.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from outrider.core.errors import Refused, Unknown
from outrider.core.sidekick.memory import Turn
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Delete, Entry, ModifiedAt, Op, Put
from outrider.failpoints import failpoint
from outrider.model.damage import read_or_none
from outrider.model.documents import Contender, Slot, encode
from outrider.model.keys import Keys
from outrider.turns.claim import Claim, Denied, News, Queued, TurnGranted, TurnRequest, abandon, refuse_gone
from outrider.turns.permission import Permission
from outrider.turns.turns import UNREADABLE, read_scope
from outrider.turns.wait import Wait

__all__ = ["Denied", "News", "Permission", "Queued", "Turn", "TurnGranted", "TurnLock", "fence"]


def fence(keys: Keys, member: str, turn: Turn) -> tuple[CreatedAt, CreatedAt]:
    """Return the two comparisons that hold while ``turn`` is held: every guarded write to shared state has them (P2).

    Args:
        member: The owner's name in the turn's scope, as ``Contender.member`` has it.

    Raises:
        Refused: the turn is dirty (``TurnLock.find`` said so): no write may pass before ``reclaim``.
    """
    if not turn.waiter_revision:
        raise Refused(f"turn {turn.number} of {turn.scope} is dirty: reclaim it first")
    return (
        CreatedAt(key=keys.slot(turn.scope, turn.number, member), revision=turn.slot_revision),
        CreatedAt(key=keys.waiter(turn.scope, member), revision=turn.waiter_revision),
    )


class TurnLock:
    """One instance's hold on the turns of one scope. Every method may be called by any thread.

    Args:
        contender: The instance, and where it takes turns.
        clock: Aware UTC now, for the ``since`` of the documents.
        start: How a wait is run; the default gives it a thread of its own.
    """

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        contender: Contender,
        *,
        clock: Callable[[], datetime],
        start: Callable[[Wait], None] = Wait.start,
    ) -> None:
        self._cluster, self._keys, self._contender = cluster, keys, contender
        self._scope, self._member = contender.scope, contender.member
        self._clock, self._start = clock, start
        self._waiter_key = keys.waiter(self._scope, self._member)
        self._changing = threading.Lock()
        self._wait: Wait | None = None

    @property
    def scope(self) -> str:
        """Where the turns are taken."""
        return self._scope

    def acquire(
        self,
        *,
        lease: int,
        update: str,
        release: str,
        slots: int,
        conditions: tuple[Compare, ...] = (),
        permission: Permission | None = None,
        permits: Callable[[], tuple[Compare, ...]] = tuple,
        also: tuple[Op, ...] = (),
        deliver: Callable[[News], None],
    ) -> None:
        """Queue for a turn and return at once; the news comes on the lock's own thread.

        ``Queued`` comes whenever the last look differs from the one before, then exactly one ``TurnGranted`` or
        ``Denied``. While etcd doesn't answer it goes on trying. A place in the queue under the same lease is kept (a
        second acquire replaces the first in its place); one under another lease is given up for a new one.
        If the instance already has a slot of the same ``update``, that is the turn it gets.

        Args:
            lease: The sidekick's lease; the place in the queue and later the fence hang on it.
            update: Id in the journal: how the turn is known as ours after a crash.
            release: Version we want to swap to, for people.
            slots: The scope's budget as the caller knows it.
            conditions: Must hold in the transaction that takes the turn; when one doesn't, the answer is ``Denied``.
            permission: For an update that the service granted: the grant, read at each attempt, must hold; the
                transaction that takes the turn compares it and marks it as begun. None for any other turn.
            permits: What else must hold in that transaction, read at each attempt; raises ``TooOld`` for a version
                that may not run.
            also: Written in the transaction that takes the turn.
            deliver: Must not block, nor wait for another thread that calls this lock: put the news in a queue.
        """
        with self._changing:
            previous = self._wait
            superseded: tuple[str, ...] = ()
            if previous is not None and previous.stop() is None:
                superseded = tuple(each for each in previous.claim.updates if each != update)
            claim = Claim(
                self._cluster,
                self._keys,
                contender=self._contender,
                request=TurnRequest(
                    lease=lease,
                    update=update,
                    release=release,
                    slots=slots,
                    conditions=conditions,
                    permission=permission,
                    permits=permits,
                    also=also,
                ),
                clock=self._clock,
                superseded=superseded,
            )
            self._wait = Wait(claim, self._cluster, deliver, previous)
            self._start(self._wait)

    def withdraw(self) -> Turn | None:
        """Stop waiting and leave the queue; a turn whose news wasn't delivered yet is given back. Safe at any time.

        Returns:
            The turn, untouched, when its ``TurnGranted`` was delivered before (the two have crossed) and it wasn't
            released since. A caller that has not acted on it calls ``release``.

        Raises:
            Unknown: no answer; the wait has ended, the key may still be there; call it again.
        """
        with self._changing:
            wait = self._wait
            updates: tuple[str, ...] = ()
            if wait is not None:
                if (turn := wait.stop()) is not None:
                    return turn
                wait.join()
                wait.close_watches()
                updates = wait.claim.updates
            abandon(self._cluster, self._keys, self._contender, updates)
            self._wait = None
            return None

    def reclaim(self, turn: Turn, *, lease: int) -> Turn:
        """Make our own dirty turn held again, after a lapse or a restart, under a new lease.

        Returns:
            The same turn with a new ``waiter_revision``: writes with the fence of the old one are refused forever.

        Raises:
            Refused: the slot isn't ours any more (an operator released it, the policy let it lapse).
            Unknown: no answer, or ``lease`` has ended already; call it again, under a lease that lives.
        """
        slot_key = self._keys.slot(turn.scope, turn.number, self._member)
        ours = CreatedAt(key=slot_key, revision=turn.slot_revision)
        for _ in range(10):
            with failpoint("turn.read"):
                entry = self._cluster.get(slot_key)
            if entry is None or entry.create_revision != turn.slot_revision:
                raise Refused(f"{slot_key}: {self._whose(entry)}; our turn of update {turn.update} has ended")
            slot = read_or_none(Slot, slot_key, entry.value) or UNREADABLE
            if (slot.member, slot.update) != (self._member, turn.update):
                raise Refused(f"{slot_key}: belongs to {slot.member}, update {slot.update}")
            waiter = self._cluster.get(self._waiter_key)
            if waiter is None:
                document = self._contender.waiter(release=slot.release, since=self._clock())
                absent = CreatedAt(key=self._waiter_key, revision=0)
                gone = self._keys.gone(self._contender.app, self._contender.instance)
                put = Put(key=self._waiter_key, value=encode(document), lease=lease)
                try:
                    with failpoint("turn.reclaim"):
                        done = self._cluster.txn((ours, absent, CreatedAt(key=gone, revision=0)), (put,))
                except Refused as error:
                    with failpoint("lease.keep"):
                        lives_s = self._cluster.keep_alive(lease)
                    if lives_s > 0:
                        raise
                    # Refused would mean that the turn is gone; it is still ours.
                    raise Unknown(f"{self._waiter_key}: the lease has ended; reclaim under a new one") from error
                refuse_gone(gone, done)
                if done.succeeded:
                    return replace(turn, waiter_revision=done.revision)
            elif waiter.lease == lease:
                return replace(turn, waiter_revision=waiter.create_revision)
            else:
                # An earlier process's, whose lease hasn't ended yet. Written anew, not over: see Claim._enqueue.
                with failpoint("turn.reclaim"):
                    self._cluster.txn(
                        (ours, ModifiedAt(key=self._waiter_key, revision=waiter.mod_revision)),
                        (Delete(key=self._waiter_key),),
                    )
        raise Unknown(f"{self._waiter_key}: changed ten times while it was being written; try again")

    def release(self, turn: Turn, *, ops: tuple[Op, ...] = (), conditions: tuple[Compare, ...] = ()) -> None:
        """End the turn and apply ``ops`` (the block, say) in one transaction; may be repeated.

        A dirty turn can be ended too, as long as the slot is still the same and was not reclaimed.

        Args:
            conditions: Must hold too; when one doesn't, nothing is done.

        Raises:
            Refused: ``ops`` weren't applied, for another had ended the turn; or the turn was reclaimed since
                and this is its old value; or a condition doesn't hold.
            Unknown: no answer; call it again.
        """
        slot_key = self._keys.slot(turn.scope, turn.number, self._member)
        ours = CreatedAt(key=slot_key, revision=turn.slot_revision)
        alive = CreatedAt(key=self._waiter_key, revision=turn.waiter_revision)
        absent = CreatedAt(key=self._waiter_key, revision=0)
        keys = (slot_key, self._waiter_key, *turn.budgets)
        free = (*(Delete(key=key) for key in keys), *ops)
        with failpoint("turn.release"):
            ended = turn.waiter_revision > 0 and self._cluster.txn((ours, alive, *conditions), free).succeeded
            ended = ended or self._cluster.txn((ours, absent, *conditions), free).succeeded
        if not ended:
            self._check_ended(turn, slot_key, ops)
        with self._changing:
            if self._wait is not None and self._wait.ended and turn.update in self._wait.claim.updates:
                self._wait = None

    def _check_ended(self, turn: Turn, slot_key: str, ops: tuple[Op, ...]) -> None:
        """Tell an earlier attempt that succeeded from a turn that another has ended."""
        entry = self._cluster.get(slot_key)
        if entry is not None and entry.create_revision == turn.slot_revision:
            raise Refused(f"{slot_key}: this turn was reclaimed since, or a condition doesn't hold; look again")
        if turn.waiter_revision and (self._wait is None or self._wait.ended):
            # Left behind by whoever removed the slot alone, our key would be first in line with nobody waiting at it.
            ours = CreatedAt(key=self._waiter_key, revision=turn.waiter_revision)
            with failpoint("turn.leave"):
                self._cluster.txn((ours,), (Delete(key=self._waiter_key),))
        if not all(self._is_applied(op) for op in ops):
            raise Refused(
                f"{slot_key}: {self._whose(entry)}; our turn of update {turn.update} has ended without what was to be"
                " written with its end"
            )

    def _is_applied(self, op: Op) -> bool:
        match op:
            case Put(key=key, value=value):
                entry = self._cluster.get(key)
                return entry is not None and entry.value == value
            case Delete(key=key):
                return self._cluster.get(key) is None
            case _:
                return not self._cluster.list(op.prefix).entries

    def _whose(self, entry: Entry | None) -> str:
        if entry is None:
            return "is free"
        slot = read_or_none(Slot, entry.key, entry.value) or UNREADABLE
        return f"belongs to {slot.member} (create revision {entry.create_revision})"

    def suspend(self, update: str) -> bool:
        """Let our turn of ``update`` show as dirty: give up the key in the queue and keep the slot; may be repeated.

        The turn stays ours: ``release`` ends it, and ``reclaim`` makes it held again.

        Returns:
            False when the turn isn't ours any more.

        Raises:
            Unknown: no answer; call it again.
        """
        turn = self.find(update)
        if turn is None:
            return False
        if turn.waiter_revision:
            with failpoint("turn.leave"):
                self._cluster.txn(fence(self._keys, self._member, turn), (Delete(key=self._waiter_key),))
        return True

    def find(self, update: str) -> Turn | None:
        """Return our turn of ``update`` if its slot key exists, whatever the journal says.

        ``waiter_revision`` is 0 when it is dirty: reclaim it before anything is written under it.
        """
        scope = read_scope(self._cluster, self._keys, self._scope)
        slot = scope.slot_of(self._member)
        if slot is None or slot.slot.update != update:
            return None
        waiter = scope.queue.get(self._member)
        return Turn(
            scope=self._scope,
            number=slot.number,
            slot_revision=slot.entry.create_revision,
            waiter_revision=waiter.create_revision if waiter else 0,
            update=update,
            labels=slot.slot.frozen_labels,
            budgets=scope.budgets_of(self._member),
        )

    def leave_queue(self, lease: int | None) -> None:
        """Remove our key in the queue and our ticket, as the end of ``lease`` would; after ``close``.

        A slot stays: it is dirty then, and the journal knows. Keys of another lease aren't ours to remove.

        Raises:
            Unknown: no answer; the keys end with the lease.
        """
        for key in (self._waiter_key, self._keys.ticket(self._scope, self._member)):
            entry = self._cluster.get(key)
            if entry is not None and entry.lease == lease:
                with failpoint("turn.leave"):
                    self._cluster.txn((ModifiedAt(key=key, revision=entry.mod_revision),), (Delete(key=key),))

    def close(self) -> None:
        """End the threads and leave all keys as they are: the lease, or the journal, decides about them."""
        with self._changing:
            if self._wait is not None:
                self._wait.stop()
                self._wait.join()
                self._wait.close_watches()
                self._wait = None
