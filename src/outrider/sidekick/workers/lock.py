"""The lock's worker: turns through ``TurnLock``, under the lease that the session keeps."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, assert_never

from loguru import logger

from outrider.core.errors import Conflict, DriverError, Refused
from outrider.core.release import ReleaseId
from outrider.core.sidekick.effects import (
    AcquireLock,
    BlockLock,
    LockEffect,
    ProveLock,
    ReclaimLock,
    ReleaseLock,
    ResignLock,
    RetakeLock,
    SuspendLock,
)
from outrider.core.sidekick.events import (
    IdentityAdmitted,
    IdentityRefused,
    LockAcquired,
    LockQueued,
    LockRefused,
    LockReleased,
)
from outrider.core.sidekick.memory import Release, Turn
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Delete, ModifiedAt, Op, Put
from outrider.failpoints import failpoint
from outrider.model.damage import read_or_none
from outrider.model.documents import Admission, Block, Gone, Proof, decode, encode
from outrider.model.keys import Keys
from outrider.sidekick.workers.worker import Post, now
from outrider.turns.blocks import block_puts
from outrider.turns.lock import Denied, News, Permission, Queued, TurnGranted, TurnLock
from outrider.turns.oldest import OldestVersion
from outrider.turns.running import RunningKeys


class HasLease(Protocol):
    """Who keeps the lease."""

    @property
    def lease(self) -> int | None:
        """Its id while it can be trusted."""


class LockWork:
    """Performs ``lock.*``."""

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        lock: TurnLock,
        keeper: HasLease,
        *,
        app: str,
        group: str,
        instance: str,
        post: Post,
        own_keys: Sequence[str] = (),
        resigned: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            own_keys: What else etcd has of this instance, to be removed when it resigns.
            resigned: Called once it has, after the answer.
        """
        self._group, self._own_keys, self._resigned = group, tuple(own_keys), resigned
        self._cluster, self._keys, self._lock, self._keeper = cluster, keys, lock, keeper
        self._app, self._instance, self._post = app, instance, post
        self._target, self._brake = keys.target(app, group), keys.brake(app, group)
        self._grant = f"{keys.grants(app, group)}{instance}"
        self._admission = keys.admission(app, instance)
        self._oldest = OldestVersion(cluster, keys, app=app, group=group, scope=lock.scope)
        self._running = RunningKeys(cluster, keys, app=app, group=group, instance=instance)
        self._mutex = threading.Lock()
        self._pending: tuple[LockEffect, int | None] | None = None
        self._newest = 0

    def interrupt(self, effect: LockEffect) -> None:
        """A newer request replaces one that still waits for a lease."""
        if isinstance(effect, ProveLock):
            return
        with self._mutex:
            self._pending = None

    def take_pending(self) -> tuple[LockEffect, int | None] | None:
        """What waits for a lease, once: to be submitted again when there is one."""
        with self._mutex:
            pending, self._pending = self._pending, None
            return pending

    def perform(self, effect: LockEffect, request: int | None) -> None:
        if request is not None:
            if request < self._newest:  # it had waited for a lease, and its successor overtook it on the way back
                return
            self._newest = request
        match effect:
            case AcquireLock() | RetakeLock() | ReclaimLock():
                lease = self._keeper.lease
                if lease is None:
                    with self._mutex:
                        self._pending = (effect, request)
                    # the lease may have been granted between the lines above, and then nobody would come for us
                    lease = self._keeper.lease
                    if lease is None or self.take_pending() is None:
                        return
                self._take(effect, request, lease)
            case ReleaseLock():
                self._give_back(effect, request)
            case ProveLock():
                self._prove(effect.committed)
                if effect.committed is not None:
                    self._running.note(effect.committed, now())
            case SuspendLock():
                if not self._lock.suspend(effect.update):
                    self._post(LockReleased(at=now(), request=request))
            case BlockLock():
                self._block(effect, request)
            case ResignLock():
                self._resign(effect, request)
            case _:
                assert_never(effect)

    def close(self) -> None:
        self._lock.close()

    def give_up_place(self) -> None:
        """Leave the queue, as if the lease had ended, after ``close``: a turn that is under way is dirty then."""
        try:
            self._lock.leave_queue(self._keeper.lease)
        except DriverError as error:
            logger.bind(error_kind=error.kind, cause=str(error), retry=False).warning("place left to its lease")

    def _take(self, effect: AcquireLock | RetakeLock | ReclaimLock, request: int | None, lease: int) -> None:
        match effect:
            case AcquireLock():
                self._lock.acquire(
                    lease=lease,
                    update=effect.update,
                    release=effect.version,
                    slots=effect.slots,
                    conditions=self._conditions(effect),
                    permits=partial(self._oldest.permits, effect.version),
                    permission=self._permission(effect),
                    also=() if effect.first_start is None else (self._running.begins(effect.first_start, now()),),
                    deliver=lambda news: self._tell(news, request),
                )
            case ReclaimLock():
                turn = self._known(effect.turn, effect.update)
                if turn is None:
                    self._post(LockRefused(at=now(), request=request, cause="the turn is no longer ours"))
                    return
                try:
                    again = self._lock.reclaim(turn, lease=lease)
                except Refused as error:
                    self._post(LockRefused(at=now(), request=request, cause=str(error)))
                else:
                    self._post(LockAcquired(at=now(), request=request, turn=again))
            case RetakeLock():
                if effect.removal_revision is not None and self._read_admission(effect) is None:
                    self._let_back(effect, request)
                    return
                turn = self._known(effect.turn, effect.update)
                if turn is not None:
                    try:
                        again = self._lock.reclaim(turn, lease=lease)
                    except Refused:
                        pass  # an operator released it meanwhile: queue for another
                    else:
                        self._post(LockAcquired(at=now(), request=request, turn=again))
                        return
                self._lock.acquire(
                    lease=lease,
                    update=effect.update,
                    release=effect.version,
                    slots=effect.slots,
                    deliver=lambda news: self._tell(news, request),
                )
            case _:
                assert_never(effect)

    def _conditions(self, effect: AcquireLock) -> tuple[Compare, ...]:
        """No turn for a blocked release, nor for one that the target has left: checked by etcd as it grants."""
        key = self._keys.block(self._app, effect.key or effect.version)
        conditions: list[Compare] = [CreatedAt(key=key, revision=0)]
        if effect.target_revision >= 0:
            conditions.append(ModifiedAt(key=self._target, revision=effect.target_revision))
        conditions += [ModifiedAt(key=each, revision=revision) for each, revision in effect.tasks]
        return tuple(conditions)

    def _permission(self, effect: AcquireLock) -> Permission | None:
        """What an update to the group's target needs; an operator's way back, and one without a target, need none."""
        if effect.target_revision < 0:
            return None
        return Permission(grant=self._grant, brake=self._brake, version=effect.version)

    def _known(self, turn: Turn | None, update: str) -> Turn | None:
        return turn if turn is not None else self._lock.find(update)

    def _tell(self, news: News, request: int | None) -> None:
        match news:
            case TurnGranted():
                self._post(LockAcquired(at=now(), request=request, turn=news.turn))
            case Queued():
                self._post(
                    LockQueued(
                        at=now(),
                        request=request,
                        rank=news.rank,
                        ahead=news.ahead,
                        holders=news.holders,
                        held=news.held,
                    )
                )
            case Denied(why="gone"):
                self._post(IdentityRefused(at=now(), cause=news.reason))
            case Denied():
                ended = news.why in ("blocked", "recalled")
                self._post(LockRefused(at=now(), request=request, cause=news.reason, recalled=ended))
            case _:
                assert_never(news)

    def _give_back(self, effect: ReleaseLock, request: int | None) -> None:
        self._prove(effect.committed)  # before the turn ends: the next one must not block what runs here
        if effect.committed is not None:
            self._running.settle(effect.committed, effect.left, now())
        self._end(self._lock.withdraw() or effect.turn, effect.update, ())
        if effect.given_up is not None:  # after it: a turn that was taken meanwhile has written it
            self._running.forget(effect.given_up)
        self._post(LockReleased(at=now(), request=request))

    def _block(self, effect: BlockLock, request: int | None) -> None:
        release = effect.release or ReleaseId(version=effect.version, sha256=effect.sha256)
        name = release.key(self._group)
        block = Block(
            version=effect.version,
            sha256=effect.sha256,
            instance=self._instance,
            why=effect.cause,
            at=now(),
            group="" if release.is_plain else self._group,
            update=effect.update,
            environment=release.environment,
            environment_digest=release.environment_digest,
            generation=release.generation,
        )
        block_key, puts = self._keys.block(self._app, name), block_puts(self._keys, self._app, block, name)
        unproved = CreatedAt(key=self._keys.proof(self._app, name), revision=0)
        proved_by = self._proved_by(name)
        if not proved_by and not self._end(effect.turn, effect.update, puts, (unproved,)):
            # the turn is gone, and the verdict stands; or another instance has committed the release meanwhile
            with failpoint("block.write"):
                self._cluster.txn((CreatedAt(key=block_key, revision=0), unproved), puts)
            proved_by = self._proved_by(name)
        if proved_by:
            self._end(effect.turn, effect.update, ())
        if effect.given_up is not None:
            self._running.forget(effect.given_up)
        self._post(LockReleased(at=now(), request=request, proved_by=proved_by))

    def _resign(self, effect: ResignLock, request: int | None) -> None:
        """Everything in one transaction with the end of the turn: without the turn nothing is removed.

        It also compares what was read of the admission. So when an earlier attempt has removed the instance, and nobody
        heard of that, a later one can't do so once more behind the back of the operator who let it back.
        """
        unadmitted = self._read_admission(effect)
        if unadmitted is None:
            self._let_back(effect, request)
            return
        marker = Gone(
            app=self._app,
            group=self._group,
            instance=self._instance,
            how="decommissioned",
            by=effect.by,
            removal=effect.update,
            at=effect.at,
        )
        gone = Put(key=self._keys.gone(self._app, self._instance), value=encode(marker))
        runs = tuple(entry.key for entry in self._running.own())
        removed: tuple[Op, ...] = (gone, *(Delete(key=key) for key in (*self._own_keys, self._admission, *runs)))
        if not self._end(effect.turn, effect.update, removed, (unadmitted,)):
            if self._read_admission(effect) is None:
                self._let_back(effect, request)
                return
            cause = "the turn of the drain has ended, and nothing was removed"
            self._post(LockRefused(at=now(), request=request, cause=cause))
            return
        self._post(LockReleased(at=now(), request=request))
        self._resigned()

    def _read_admission(self, effect: RetakeLock | ResignLock) -> Compare | None:
        """What holds as long as the instance isn't admitted after it was said to leave; None when it was."""
        with failpoint("admission.read"):
            entry = self._cluster.get(self._admission)
        if entry is None:
            return ModifiedAt(key=self._admission, revision=0)
        admission = read_or_none(Admission, entry.key, entry.value)
        has_lifted_it = admission is not None and admission.removal == effect.update
        if has_lifted_it or entry.mod_revision > (effect.removal_revision or 0):
            return None
        return ModifiedAt(key=self._admission, revision=entry.mod_revision)

    def _let_back(self, effect: RetakeLock | ResignLock, request: int | None) -> None:
        """It is the instance again, and what was left of its turn goes."""
        self._end(self._lock.withdraw() or effect.turn, effect.update, ())
        self._post(IdentityAdmitted(at=now(), request=request))
        self._resigned()

    def _prove(self, committed: Release | None) -> None:
        if committed is None:
            return
        key = self._keys.proof(self._app, committed.id.key(self._group))
        proof = Proof(version=committed.version, sha256=committed.sha256, instance=self._instance, at=now())
        with failpoint("proof.write"):
            self._cluster.txn((CreatedAt(key=key, revision=0),), (Put(key=key, value=encode(proof)),))

    def _proved_by(self, release: str) -> str:
        """The instance that keeps a release from being blocked; empty when none does, or when it is blocked already."""
        key = self._keys.proof(self._app, release)
        with failpoint("proof.read"):
            entry = self._cluster.get(key)
            blocked = entry is not None and self._cluster.get(self._keys.block(self._app, release)) is not None
        if entry is None or blocked:
            return ""
        try:
            return decode(Proof, key, entry.value).instance
        except Conflict:  # written by another outrider: it counts all the same
            return "another instance"

    def _end(self, turn: Turn | None, update: str, ops: tuple[Op, ...], conditions: tuple[Compare, ...] = ()) -> bool:
        """End the turn with ``ops`` if ``conditions`` hold; False when there is none of ours to end any more.

        The turn that we know may be an older value of ours: a reclaim whose answer nobody waited for any more.
        """
        for known in (turn, None):
            known = known if known is not None else self._lock.find(update)
            if known is None:
                return False
            try:
                self._lock.release(known, ops=ops, conditions=conditions)
            except Refused as error:
                logger.bind(cause=str(error)).info("turn had ended or changed")
            else:
                return True
        return False
