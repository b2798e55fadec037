"""Who of a group is called now: one look at its line, and one transaction for what follows from it.

The one who came first is called first, as many as there are free places, and a place is kept for each a little while. A
wake-up grants nothing: who was called asks, and is judged like everybody. So a wake-up too many is harmless, two
processes that look at once differ only in who wins the transaction, and one that dies in between leaves nothing undone
that the next look wouldn't do.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from outrider.core.rollout.policy import Defer, Grant
from outrider.model.documents import Deferral, Presence, Wakeup
from outrider.service.store.changes import Change, Unaudited
from outrider.service.store.context import StoreContext
from outrider.service.store.group_lock import GroupLock, Leases, NeedsGroupLock
from outrider.service.store.instances import WAKEUP_TTL_S
from outrider.service.store.snapshot import PATIENCE, DeferredInstance, GroupSnapshot, read_snapshot

ROLLOUT_CONTROLLER = Unaudited("rollout controller: carries out the policy that an operator set")
BATCH = 40
"""Called at once; each costs a comparison and two writes of the 128 that etcd takes in one transaction."""
LONGEST = timedelta(hours=1)
"""Who doesn't come is called ever more seldom; a paused sidekick doesn't come, and asks when it is resumed."""
LAGGING = timedelta(minutes=10)
"""Who comes to a version by another way than a grant tells the rollout nothing, nor does who is gone for good."""
GONE = timedelta(hours=25)
"""Without a sidekick, and silent for so long: it waits for nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at one group's line came to.

    Attributes:
        called: Who was woken, in order.
        again_at: When to look again if nothing happens before; None when only a happening helps.
        counts_serving: What sidekicks are at matters: somebody waits for others to serve, or has a grant that ends
            when it rests.
    """

    called: tuple[str, ...] = ()
    again_at: datetime | None = None
    counts_serving: bool = False


def look(context: StoreContext, group_lock: GroupLock, app: str, group: str) -> Look:
    """Close what lapsed, call those whose time has come, and see whether the rollout is finished.

    Raises:
        Unknown: etcd gives no answer; look again.
        Conflict: others change the same keys all the time; look again.
    """

    def attempt(change: Change, leases: Leases) -> Look:
        snapshot = read_snapshot(context, change, app, group)
        if snapshot is None:
            return Look()
        snapshot.settle()
        dues = _end_called_off(snapshot)
        outcome = _go_through(snapshot, leases) if snapshot.waiting else Look()
        outcome = replace(outcome, counts_serving=outcome.counts_serving or bool(dues))
        if snapshot.finish():
            dues.append(snapshot.now + LAGGING)
        if dues:
            outcome = replace(outcome, again_at=min(dues if outcome.again_at is None else [*dues, outcome.again_at]))
        if snapshot.has_changed and not leases.has_group_lock:
            raise NeedsGroupLock
        snapshot.write()
        return outcome

    return group_lock.apply(context.cluster, f"{app}/{group}", attempt, ROLLOUT_CONTROLLER)


def _end_called_off(snapshot: GroupSnapshot) -> list[datetime]:
    """End the grants of releases that are blocked, of sidekicks that are at nothing any more; when to look again.

    They were called off while they waited for their turn. They have nothing to report and ask no more, so their grants
    would stand in everybody's way, and in what operators are shown, until the time for the update is over.
    """
    versions = {one.version for one in snapshot.progress.opened if one.instance in snapshot.living}
    marked = {version for version in versions if snapshot.block_reason(version) is not None}
    mine = [
        one.instance for one in snapshot.progress.opened if one.version in marked and one.instance in snapshot.living
    ]
    if not mine:
        return []
    resting = {one.instance for one in _alive(snapshot) if one.state.partition(".")[0] == "idle"}
    ended = [instance for instance in mine if instance in resting][:BATCH]
    for instance in ended:
        snapshot.end(instance, "withdrawn")
    return [snapshot.now + PATIENCE] if len(ended) < len(mine) else []


def _alive(snapshot: GroupSnapshot) -> tuple[Presence, ...]:
    keys, group = snapshot.context.keys, snapshot.group
    return snapshot.context.children(Presence, f"{keys.presences(group.app)}{group.id}/")


def _go_through(snapshot: GroupSnapshot, leases: Leases) -> Look:
    now = snapshot.now
    alive = {one.instance for one in _alive(snapshot)}
    reserved = [one.instance for one in snapshot.waiting if one.has_reservation(now)]
    calls: list[DeferredInstance] = []
    dues: list[datetime] = []
    edits = 0
    for one in sorted(snapshot.waiting, key=lambda each: (each.deferred.calls, each.entry.create_revision)):
        if edits + len(calls) >= BATCH:
            dues.append(now)
            break
        later = _not_before(one, now)
        if later is not None:
            dues.append(later)
            if one.has_reservation(now) and one.deferred.woken_at is not None:
                dues.append(one.deferred.woken_at + PATIENCE)
            continue
        if one.instance not in alive:
            if now - one.deferred.asked_at >= GONE:
                _strike(snapshot, one)
                edits += 1
            else:
                dues.append(one.deferred.asked_at + GONE)
            continue
        match snapshot.judge(one.checking, reserved=tuple(name for name in reserved if name != one.instance)):
            case Grant():
                calls.append(one)
                reserved.append(one.instance)
            case Defer(pending=False):
                _strike(snapshot, one)
                edits += 1
            case Defer(again_at=again_at) if again_at is not None:
                dues.append(again_at)
    if calls:
        _call(snapshot, calls, leases)
        dues.append(now + PATIENCE)
    return Look(
        called=tuple(one.instance for one in calls),
        again_at=min(dues, default=None),
        counts_serving=bool(snapshot.group.policy.min_healthy),
    )


def _not_before(one: DeferredInstance, now: datetime) -> datetime | None:
    """When one who was called may be called again; None when that is now."""
    if one.deferred.woken_at is None:
        return None
    pause = min(PATIENCE * 2 ** min(one.deferred.calls - 1, 10), LONGEST)
    again_at = one.deferred.woken_at + pause
    return again_at if now < again_at else None


def _call(snapshot: GroupSnapshot, calls: list[DeferredInstance], leases: Leases) -> None:
    keys, app, group = snapshot.context.keys, snapshot.group.app, snapshot.group.id
    lease = leases.new(WAKEUP_TTL_S, keys.wakeup(app, calls[0].instance))
    for one in calls:
        deferred = snapshot.change.guard(Deferral, one.entry)
        snapshot.change.put(
            keys.deferral(app, group, one.instance),
            msgspec.structs.replace(deferred, woken_at=snapshot.now, calls=deferred.calls + 1),
        )
        snapshot.change.put(
            keys.wakeup(app, one.instance), Wakeup(why=f"{snapshot.wanted}: you may be granted now"), lease=lease
        )


def _strike(snapshot: GroupSnapshot, one: DeferredInstance) -> None:
    """It waits for nothing any more."""
    snapshot.change.guard(Deferral, one.entry)
    snapshot.change.delete(one.entry.key)
