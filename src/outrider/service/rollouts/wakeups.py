"""Wakes deferred instances of a group: one look at its queue, and one transaction for the result.

The first in the queue is woken first, one instance per free place, and each place is kept for a short time. A wake-up
grants nothing: the woken instance checks in, and is judged like every other. So an extra wake-up is harmless; of two
processes that look at once, one wins the transaction; and the next look repeats the work of a process that died.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from outrider.core.rollout import wave_analysis, waves
from outrider.core.rollout.policy import Defer, Grant
from outrider.core.rollout.wave_analysis import Question
from outrider.model.documents import Deferral, Presence, Wakeup
from outrider.service.rollouts.overdue import OverdueGrants
from outrider.service.store.changes import Change, Unaudited
from outrider.service.store.context import StoreContext
from outrider.service.store.copied_change import CopiedChange
from outrider.service.store.due_tasks import LEFT_RUNNING, note_due
from outrider.service.store.group_lock import GroupLock, Leases, NeedsGroupLock
from outrider.service.store.instances import WAKEUP_TTL_S
from outrider.service.store.judging import judge
from outrider.service.store.read_model import Behind, ReadModel
from outrider.service.store.recalls import closes_at, recall, take_back
from outrider.service.store.serving import over_copy
from outrider.service.store.snapshot import PATIENCE, DeferredInstance, GroupSnapshot, read_snapshot

ROLLOUT_CONTROLLER = Unaudited("rollout controller: carries out the policy that an operator set")
BATCH = 40
"""Instances woken at once; each costs one comparison and two writes, and etcd takes 128 in one transaction."""
LONGEST = timedelta(hours=1)
"""The longest pause between wake-ups of an instance that does not check in, such as a paused one."""
LAGGING = timedelta(minutes=10)
"""Time until the next look for instances that report nothing: updated without a grant, or gone forever."""
GONE = timedelta(hours=25)
"""An instance without a sidekick leaves the queue after this time without a check-in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The result of a look at the queue of one group.

    Attributes:
        called: The woken instances, in order.
        again_at: Time of the next look if nothing changes before; None: look after the next change.
        counts_serving: The sidekicks' states matter: an instance waits for others to serve, or has a grant that ends
            when its sidekick is idle.
        overdue_in_s: Seconds until the next open grant is overdue; None without one.
        questions: What is to be asked at the end of a wave.
    """

    called: tuple[str, ...] = ()
    again_at: datetime | None = None
    counts_serving: bool = False
    overdue_in_s: float | None = None
    questions: tuple[Question, ...] = ()


def look(
    context: StoreContext,
    group_lock: GroupLock,
    app: str,
    group: str,
    overdue: OverdueGrants | None = None,
    model: ReadModel | None = None,
) -> Look:
    """Close overdue grants, wake the instances that may update now, and finish the rollout if it is complete.

    Args:
        overdue: Which they are, as this process has seen them; None: none.
        model: The copy that is looked at first; None: etcd is read.

    Raises:
        Unknown: etcd gives no answer; look again.
        Conflict: other changes of the same keys win every race; look again.
    """

    def attempt(change: Change, leases: Leases, context: StoreContext = context) -> Look:
        snapshot = read_snapshot(context, change, app, group)
        if snapshot is None:
            return Look()
        ended, overdue_in_s = (frozenset[str](), None) if overdue is None else overdue.of(snapshot)
        more = len(ended) > BATCH
        snapshot.settle(sorted(ended)[:BATCH])
        _end_given_up(snapshot)
        dues = [snapshot.now] if recall(snapshot) or more else []
        outcome = _go_through(snapshot, leases) if snapshot.waiting else Look()
        if (closes := closes_at(snapshot)) is not None:
            # While grants are open that a closing window, or an instance that no longer serves, would end.
            dues.append(closes)
            counts = bool(snapshot.group.policy.min_healthy)
            outcome = replace(outcome, counts_serving=outcome.counts_serving or counts)
        if (due := waves.due(snapshot.progress, snapshot.policy)) is not None:
            dues.append(due)
        if snapshot.finish():
            dues.append(snapshot.now + LAGGING)
        if note_due(snapshot):
            dues.append(snapshot.now + LEFT_RUNNING)
        if dues:
            outcome = replace(outcome, again_at=min(dues if outcome.again_at is None else [*dues, outcome.again_at]))
        if snapshot.has_changed and not leases.has_group_lock:
            raise NeedsGroupLock
        snapshot.write()
        questions = wave_analysis.questions(snapshot.progress, snapshot.policy)
        return replace(outcome, overdue_in_s=overdue_in_s, questions=questions)

    if model is not None and model.is_confirmed:
        found = _looked_at_copy(context, model, attempt)
        if found is not None:
            return found
    return group_lock.apply(context.cluster, f"{app}/{group}", attempt, ROLLOUT_CONTROLLER)


def _looked_at_copy(
    context: StoreContext, model: ReadModel, attempt: Callable[[Change, Leases, StoreContext], Look]
) -> Look | None:
    """What a look at the copy found, when nothing is to be written; None: look at etcd.

    Nothing is compared: whatever has moved meanwhile is noted, and looked at again.
    """
    change = CopiedChange(context.cluster, model)
    copied = over_copy(context, model)
    try:
        found = attempt(change, Leases(context.cluster, has_group_lock=False), copied)
    except (NeedsGroupLock, Behind):
        return None
    return None if change.has_writes else found


def _end_given_up(snapshot: GroupSnapshot) -> None:
    """End the grants of updates that their sidekicks have given up without a result.

    Such a sidekick (paused, rolled back by an operator, unable to go on) may not check in for a long time. Its
    presence counts when it was written after the grant: an older one is about an earlier grant.
    """
    if not snapshot.living:
        return
    keys, group, ended = snapshot.context.keys, snapshot.group, 0
    for entry in snapshot.context.cluster.list(f"{keys.presences(group.app)}{group.id}/").entries:
        presence = snapshot.context.document(Presence, entry)
        if presence is None:
            continue
        grant = snapshot.grants.get(presence.instance)
        if grant is None or not presence.given_up or entry.mod_revision < grant.mod_revision:
            continue
        if snapshot.living.get(presence.instance) == presence.given_up and ended < BATCH:
            take_back(snapshot, presence.instance)
            ended += 1


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
        match judge(snapshot, one.checking, reserved=tuple(name for name in reserved if name != one.instance)):
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
        counts_serving=bool(snapshot.group.policy.min_healthy or snapshot.policy.uses_labels),
    )


def _not_before(one: DeferredInstance, now: datetime) -> datetime | None:
    """The time from which a woken instance may be woken again; None: now."""
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
            keys.wakeup(app, one.instance), Wakeup(why=f"{snapshot.wanted} may be granted now"), lease=lease
        )


def _strike(snapshot: GroupSnapshot, one: DeferredInstance) -> None:
    """Remove the instance from the queue."""
    snapshot.change.guard(Deferral, one.entry)
    snapshot.change.delete(one.entry.key)
