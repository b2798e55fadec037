"""One instance's claim to a turn: what it reads and writes, one look at a time.

A ``Claim`` has no thread and never waits: its driver (``wait.Wait``, or a simulation) looks again when what the
last look pointed at has changed. Every look begins with a fresh list, so that an answer that was lost needs no
handling of its own: either the slot is there with our update, or it isn't.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Literal, assert_never

from outrider.core.errors import OutriderError, Refused, Unknown
from outrider.core.rollout.slots import Held, Take, WaitBehind, WatchSlots, decide
from outrider.core.sidekick.memory import Turn
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Delete, Entry, ModifiedAt, NotNewer, Op, Put, TxnResult
from outrider.failpoints import failpoint
from outrider.model.damage import read_or_none
from outrider.model.documents import Contender, Waiter, encode
from outrider.model.keys import Keys
from outrider.turns.budgets import Budgets, read_budgets
from outrider.turns.oldest import TooOld
from outrider.turns.permission import Permission, Permitted, permitted
from outrider.turns.turns import Scope, StoredSlot, read_scope

Why = Literal["blocked", "target-changed", "condition-changed", "recalled", "lapsed", "left-over", "gone", "refused"]


class GoneForGood(Refused):
    """The instance was removed for good."""

    kind: ClassVar[str] = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnGranted:
    """The slot key is ours."""

    turn: Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """Where we stood at the last look. Only rank 0 looks at every change; behind it ``rank`` may have fallen since.

    Attributes:
        ahead: The instance right before us in line, None when there is none.
        holders: Instances whose turns are held or dirty, by slot number.
        held: The disruption budget that holds us, for a person; empty when none does.
    """

    rank: int
    ahead: str | None
    holders: tuple[str, ...]
    held: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """No turn, and nothing of this claim is left in the queue.

    Attributes:
        reason: For a person, names the key.
        why: ``blocked``, ``target-changed``, ``condition-changed``: a condition of the acquire no longer holds.
            ``recalled``: the permission to update has ended.
            ``lapsed``: our key in the queue is gone (the lease ended, or another process of this instance took it).
            ``left-over``: this instance still has the turn of another update. ``gone``: it was removed for good.
            ``refused``: etcd refused the write.
    """

    reason: str
    why: Why


News = TurnGranted | Queued | Denied


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """The request for a turn; see ``TurnLock.acquire``."""

    lease: int
    update: str
    release: str
    slots: int
    conditions: tuple[Compare, ...] = ()
    permission: Permission | None = None
    permits: Callable[[], tuple[Compare, ...]] = tuple
    also: tuple[Op, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Nothing to do until something changes.

    Attributes:
        key: The key (``exact``) or the prefix to watch from ``revision`` + 1 on.
        seen: Keys and mod revisions below ``key`` at ``revision``: to tell whether it changed before the watch began.
        also: A second prefix to watch; empty: none.
    """

    queued: Queued
    key: str
    exact: bool
    revision: int
    seen: tuple[tuple[str, int], ...]
    also: str = ""


class Claim:
    """Takes a turn when it is this instance's turn to take one.

    Args:
        superseded: Updates of earlier claims of this process whose news nobody got: a slot with one of them is freed.
    """

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        *,
        contender: Contender,
        request: TurnRequest,
        clock: Callable[[], datetime],
        superseded: tuple[str, ...] = (),
    ) -> None:
        self._cluster, self._keys, self._contender = cluster, keys, contender
        self._scope, self._member = contender.scope, contender.member
        self._request, self._clock, self._superseded = request, clock, superseded
        self._waiter_key = keys.waiter(self._scope, self._member)
        self._waiter_revision = 0
        self._since = clock()

    @property
    def waiter_key(self) -> str:
        return self._waiter_key

    @property
    def updates(self) -> tuple[str, ...]:
        """All updates for which a slot may have been taken unnoticed."""
        return (*self._superseded, self._request.update)

    def look(self) -> TurnGranted | Denied | Pending | None:
        """Read the scope and do the one thing that is due; None when the scope changed and must be read again.

        Raises:
            Unknown: no answer; look again later.
            Refused, Conflict: see ``refusal``.
        """
        scope = read_scope(self._cluster, self._keys, self._scope)
        entry = scope.queue.get(self._member)
        slot = scope.slot_of(self._member)
        if slot is not None:
            return self._own_slot(slot, entry, scope.budgets_of(self._member))
        if not self._waiter_revision:
            allowed = self._permitted()
            if isinstance(allowed, Denied):
                return allowed if entry is None else self._leave(entry, allowed)
            self._enqueue(entry)
            return None
        if entry is None or entry.create_revision != self._waiter_revision:
            return Denied(reason=f"{self._waiter_key}: our place in the queue is gone", why="lapsed")
        budgets = read_budgets(self._cluster, self._keys, scope)
        if budgets.are_newer:
            return None
        if self._member not in budgets.contending:
            self._rewrite(entry)
            return None
        match decide(self._member, scope.waiting, scope.holding, self._request.slots, budgets.held):
            case Take() as take:
                return self._take(take, entry, budgets)
            case Held() as held:
                return self._pending_in(scope, budgets, self._queued(scope, held.rank, None, held.why))
            case WaitBehind() as behind if budgets.are_set:
                return self._pending_in(scope, budgets, self._queued(scope, behind.rank, behind.instance))
            case WaitBehind() as behind:
                watched = scope.queue[behind.instance]
                return Pending(
                    queued=self._queued(scope, behind.rank, behind.instance),
                    key=behind.key,
                    exact=True,
                    revision=scope.revision,
                    seen=((watched.key, watched.mod_revision),),
                )
            case WatchSlots():
                return Pending(
                    queued=self._queued(scope, 0, None),
                    key=self._keys.slots(self._scope),
                    exact=False,
                    revision=scope.revision,
                    seen=fingerprint(tuple(stored.entry for stored in scope.slots.values())),
                )
            case unreachable:
                assert_never(unreachable)

    def _rewrite(self, entry: Entry) -> None:
        """Our key in the queue can't be read: written anew, in its place."""
        waiter = self._contender.waiter(release=self._request.release, since=self._since)
        with failpoint("turn.enqueue"):
            self._cluster.txn(
                (ModifiedAt(key=entry.key, revision=entry.mod_revision),),
                (Put(key=entry.key, value=encode(waiter), lease=self._request.lease),),
            )

    def _pending_in(self, scope: Scope, budgets: Budgets, queued: Queued) -> Pending:
        """Any change of the scope may matter, and of who serves where a floor counts them."""
        serving = f"{self._keys.presences(self._contender.app)}{self._contender.group}/"
        return Pending(
            queued=queued,
            key=self._keys.turns(self._scope),
            exact=False,
            revision=scope.revision,
            seen=fingerprint(scope.entries),
            also=serving if budgets.has_floors(self._contender) else "",
        )

    def refusal(self, error: OutriderError) -> Denied:
        """Turn an error that no retry helps into the last news. A lease that has ended is the usual cause."""
        with failpoint("lease.keep"):
            lives_s = self._cluster.keep_alive(self._request.lease)
        if lives_s <= 0:
            return Denied(reason=f"{self._waiter_key}: the lease has ended", why="lapsed")
        if self._waiter_revision:
            # Refused again, as a rule for the same reason? Then the place in the queue ends with the lease.
            with suppress(Refused):
                ours = CreatedAt(key=self._waiter_key, revision=self._waiter_revision)
                with failpoint("turn.leave"):
                    self._cluster.txn((ours,), (Delete(key=self._waiter_key),))
        return Denied(reason=str(error), why="gone" if isinstance(error, GoneForGood) else "refused")

    def _queued(self, scope: Scope, rank: int, ahead: str | None, held: str = "") -> Queued:
        holders = tuple(stored.slot.member for stored in scope.slots.values())
        return Queued(rank=rank, ahead=ahead, holders=holders, held=held)

    def _own_slot(self, slot: StoredSlot, entry: Entry | None, budgets: tuple[str, ...]) -> TurnGranted | Denied | None:
        """The instance has a slot: from an answer that was lost, from before a restart, or of another update."""
        same = CreatedAt(key=slot.entry.key, revision=slot.entry.create_revision)
        if slot.slot.update != self._request.update:
            if slot.slot.update in self._superseded:
                with failpoint("turn.leave"):
                    self._cluster.txn((same,), tuple(Delete(key=key) for key in (slot.entry.key, *budgets)))
                return None
            return Denied(
                reason=f"{slot.entry.key}: our own turn of update {slot.slot.update} was never ended", why="left-over"
            )
        if not self._waiter_revision:
            self._enqueue(entry, same)
            return None
        # Also when the lease lapsed meanwhile: the turn is dirty then and somebody must know that it is ours.
        return TurnGranted(
            turn=Turn(
                scope=self._scope,
                number=slot.number,
                slot_revision=slot.entry.create_revision,
                waiter_revision=self._waiter_revision,
                update=self._request.update,
                labels=slot.slot.frozen_labels,
                budgets=budgets,
            )
        )

    def _enqueue(self, entry: Entry | None, *also: Compare) -> None:
        """Have a key in the queue under our lease; a key of another lease is an earlier process's, and is replaced.

        Replaced in two transactions, for the new key must have a new create revision: what the earlier process may
        still have under way is refused by it.
        """
        key = self._waiter_key
        gone = self._keys.gone(self._contender.app, self._contender.instance)
        also = (*also, CreatedAt(key=gone, revision=0))
        waiter = self._contender.waiter(release=self._request.release, since=self._since)
        put = Put(key=key, value=encode(waiter), lease=self._request.lease)
        if entry is None:
            # A ticket for each attempt: whoever withdraws removes it, and what was given up can't come in late.
            ticket = self._keys.ticket(self._scope, self._member)
            with failpoint("turn.ticket"):
                opened = self._cluster.txn(
                    (CreatedAt(key=gone, revision=0),), (Put(key=ticket, value=b"", lease=self._request.lease),)
                )
            refuse_gone(gone, opened)
            with failpoint("turn.enqueue"):
                done = self._cluster.txn(
                    (CreatedAt(key=key, revision=0), ModifiedAt(key=ticket, revision=opened.revision), *also),
                    (put, Delete(key=ticket)),
                )
            if done.succeeded:
                self._waiter_revision = done.revision
            refuse_gone(gone, done)
        elif entry.lease != self._request.lease:
            with failpoint("turn.enqueue"):
                done = self._cluster.txn((ModifiedAt(key=key, revision=entry.mod_revision), *also), (Delete(key=key),))
            refuse_gone(gone, done)
        else:
            told = read_or_none(Waiter, key, entry.value)
            kept = told is not None and (told.release, told.labels) == (waiter.release, waiter.labels)
            if not kept:
                with failpoint("turn.enqueue"):
                    unchanged = ModifiedAt(key=key, revision=entry.mod_revision)
                    done = self._cluster.txn((unchanged, *also), (put,))
                refuse_gone(gone, done)
                kept = done.succeeded
            if kept:
                self._waiter_revision = entry.create_revision

    def _take(self, take: Take, entry: Entry, budgets: Budgets) -> TurnGranted | Denied | None:
        """Create the slot key, and write our key in the queue once more.

        The second write does two things. The one behind us watches that key and wakes, for it is next now. And this
        transaction compares the key's mod revision, so it can't happen twice, not even when etcd carries out late an
        attempt that was given up.
        """
        allowed = self._permitted()
        if isinstance(allowed, Denied):
            return self._leave(entry, allowed)
        slot_key = self._keys.slot(self._scope, take.number, self._member)
        update, since = self._request.update, self._clock()
        slot = self._contender.slot(release=self._request.release, since=since, update=update)
        kept, taken = budgets.taking(self._keys, self._contender, number=take.number, update=update, since=since)
        kept = tuple(each for each in kept if each not in self._request.conditions)
        with failpoint("turn.take"):
            done = self._cluster.txn(
                (
                    CreatedAt(key=entry.key, revision=self._waiter_revision),
                    ModifiedAt(key=entry.key, revision=entry.mod_revision),
                    *(NotNewer(key=self._keys.slot_of_number(self._scope, each), revision=0) for each in take.absent),
                    *self._request.conditions,
                    *kept,
                    *allowed.compares,
                ),
                (
                    Put(key=slot_key, value=encode(slot)),
                    Put(key=entry.key, value=entry.value, lease=self._request.lease),
                    *taken,
                    *allowed.ops,
                    *self._request.also,
                ),
            )
        if done.succeeded:
            return TurnGranted(
                turn=Turn(
                    scope=self._scope,
                    number=take.number,
                    slot_revision=done.revision,
                    waiter_revision=self._waiter_revision,
                    update=self._request.update,
                    labels=slot.frozen_labels,
                    budgets=tuple(put.key for put in taken),
                )
            )
        found = {each.key: each for each in done.found}
        for condition in self._request.conditions:
            denied = self._difference(condition, found.get(condition.key))
            if denied is not None:
                return self._leave(entry, denied)
        return None

    def _permitted(self) -> Permitted | Denied:
        try:
            permits = self._request.permits()
        except TooOld as error:
            return Denied(reason=str(error), why="recalled")
        permission = self._request.permission
        if permission is None:
            return Permitted(compares=permits)
        answer = permitted(self._cluster, permission, self._clock())
        if isinstance(answer, Permitted):
            return replace(answer, compares=(*answer.compares, *permits))
        return Denied(reason=answer, why="recalled")

    def _difference(self, condition: Compare, found: Entry | None) -> Denied | None:
        match condition:
            case CreatedAt(revision=revision):
                actual = found.create_revision if found else 0
            case ModifiedAt(revision=revision):
                actual = found.mod_revision if found else 0
            case NotNewer():
                return None
            case unreachable:
                assert_never(unreachable)
        if actual == revision:
            return None
        if found is None:
            change = "is gone"
        elif revision == 0:
            change = "exists"
        else:
            change = f"changed: revision {actual}, expected {revision}"
        return Denied(reason=f"{condition.key} {change}", why=_why(self._keys, condition.key))

    def _leave(self, entry: Entry, denied: Denied) -> Denied | None:
        """Leave the queue, unless a first attempt was carried out after all: then the next look finds the slot."""
        with failpoint("turn.leave"):
            done = self._cluster.txn(
                (ModifiedAt(key=entry.key, revision=entry.mod_revision),),
                (Delete(key=entry.key),),
            )
        return denied if done.succeeded else None


def _why(keys: Keys, key: str) -> Why:
    if key.startswith(f"{keys.prefix}/blocks/"):
        return "blocked"
    if key.startswith(keys.apps()) and key.endswith("/target"):
        return "target-changed"
    return "condition-changed"


def refuse_gone(gone: str, done: TxnResult) -> None:
    """Whoever was removed for good gets no place in the queue.

    Raises:
        GoneForGood: ``gone`` is the key of the marker, and a transaction that compared it as absent found it.
    """
    if any(entry.key == gone for entry in done.found):
        raise GoneForGood(f"{gone}: the instance was removed for good; `outrider instance admit` lets it back")


def fingerprint(entries: tuple[Entry, ...]) -> tuple[tuple[str, int], ...]:
    """What two reads have in common when nothing changed between them."""
    return tuple(sorted((entry.key, entry.mod_revision) for entry in entries))


def abandon(cluster: Cluster, keys: Keys, contender: Contender, updates: tuple[str, ...]) -> None:
    """Remove the instance's key from the queue, and its slot when it is of one of ``updates``; remove its ticket.

    A slot of any other update is a turn in use: then nothing is touched, for the key in the queue is part of its fence.

    Raises:
        Unknown: no answer; call it again.
    """
    scope, member = contender.scope, contender.member
    waiter_key, ticket_key = keys.waiter(scope, member), keys.ticket(scope, member)
    for _ in range(10):
        with failpoint("turn.read"):
            ticket = cluster.get(ticket_key)
        seen = read_scope(cluster, keys, scope)
        slot, entry = seen.slot_of(member), seen.queue.get(member)
        if slot is not None and slot.slot.update not in updates:
            return
        ops: list[Op] = []
        compares: list[Compare] = [ModifiedAt(key=waiter_key, revision=entry.mod_revision if entry else 0)]
        if entry is not None:
            ops.append(Delete(key=waiter_key))
        if ticket is not None:
            compares.append(ModifiedAt(key=ticket_key, revision=ticket.mod_revision))
            ops.append(Delete(key=ticket_key))
        if slot is not None:
            compares.append(CreatedAt(key=slot.entry.key, revision=slot.entry.create_revision))
            ops += (Delete(key=key) for key in (slot.entry.key, *seen.budgets_of(member)))
        if not ops:
            return
        with failpoint("turn.leave"):
            done = cluster.txn(tuple(compares), tuple(ops))
        if done.succeeded:
            return
    raise Unknown(f"{waiter_key}: changed ten times while it was being removed; try again")
