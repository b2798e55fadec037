"""A consistent snapshot of one group, read in the transaction that compares it.

Check-ins, the rollout controller and ``outrider why`` judge by the same snapshot, so they cannot disagree.

Some reads are not compared, because they need not be: who waits and who serves changes every second. Every *grant* and
every end of one writes the rollout's key, which counts the open grants and is compared: that alone keeps grants exact
(P6) for any number of processes. So either the listed grants are those that the rollout counts, or the transaction
fails. A count may still be wrong, because a person has removed a key; the next reader of the list puts it right.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from outrider.core.release import ReleaseId
from outrider.core.rollout import rollout
from outrider.core.rollout.rollout import Progress, counted
from outrider.model.documents import (
    Brake,
    Channel,
    Deferral,
    Group,
    Instance,
    Presence,
    Rollout,
    Target,
)
from outrider.service.store.changes import Change
from outrider.service.store.checking import CAN_SERVE, SEEN
from outrider.service.store.checking import PATIENCE as PATIENCE
from outrider.service.store.checking import CheckingInstance as CheckingInstance
from outrider.service.store.checking import DeferredInstance as DeferredInstance
from outrider.service.store.context import StoreContext
from outrider.service.store.group_snapshot import GroupSnapshot as GroupSnapshot
from outrider.service.store.group_snapshot import SnapshotMark as SnapshotMark
from outrider.service.store.group_snapshot import keys_of_release


def keys_of_check(context: StoreContext, app: str, group: str, instance: str) -> tuple[str, ...]:
    """The keys that a check-in reads first, fetched in one call."""
    keys = context.keys
    return (
        keys.group(app, group),
        keys.target(app, group),
        keys.rollout(app, group),
        keys.brake(app, group),
        keys.grant(app, group, instance),
        keys.deferral(app, group, instance),
    )


def read_snapshot(
    context: StoreContext, change: Change, app: str, group_id: str, *, checking: str | None = None, alone: bool = False
) -> GroupSnapshot | None:
    """Read a group's snapshot.

    Args:
        context: Where the group is stored.
        change: Reads, and compares the read keys in its transaction.
        app: The app's id.
        group_id: The group's.
        checking: The only instance that will be judged; None: any, so everything is read.
        alone: Even so, no other instance is read: only verdicts of rules that look at none of them count.

    Returns:
        None when there is no such group.
    """
    keys = context.keys
    first = (
        keys.group(app, group_id), keys.target(app, group_id), keys.rollout(app, group_id), keys.brake(app, group_id)
    )  # fmt: skip
    change.fetch(*(first if checking is None else keys_of_check(context, app, group_id, checking)))
    group = change.read(Group, keys.group(app, group_id))
    if group is None:
        return None
    now = context.now()
    target = change.read(Target, keys.target(app, group_id))
    wanted = None if target is None else target.release
    stored = change.read(Rollout, keys.rollout(app, group_id))
    known = None if stored is None else counted(stored.progress)
    progress = following(known, wanted, now)
    if target is not None and target.since is not None and progress is not known:
        progress = replace(progress, started=min(target.since, now))  # it began with the target, not with a grant
    change.read_or_none(Brake, keys.brake(app, group_id))  # only its revision counts
    brake = change.entry(keys.brake(app, group_id))
    change.fetch(keys.channel(app, group.channel), *(() if wanted is None else keys_of_release(context, group, wanted)))
    snapshot = GroupSnapshot(
        context=context,
        change=change,
        group=group,
        target=target,
        channel=change.read(Channel, keys.channel(app, group.channel)),
        progress=progress,
        now=now,
        brake=0 if brake is None else brake.mod_revision,
        has_begun=known is not None and progress is known,
        _begun=progress,
    )
    if alone:
        snapshot._members = {}
    if checking is None:
        _read_all_instances(snapshot)
    elif alone or not group.policy.counts:
        snapshot.look_at(checking)
    elif not _read_numbers(snapshot, checking):
        _read_all_instances(snapshot)
    return snapshot


def _read_numbers(snapshot: GroupSnapshot, checking: str) -> bool:
    """Know the instance's own grant, and how many others there are; False: all of them must be read.

    That is so where a rule asks which instances update, and where the rollout counts another number than there is.
    """
    numbers, policy = snapshot.context.numbers, snapshot.group.policy
    if numbers is None or policy.min_healthy or policy.uses_labels:
        return False
    found = numbers(snapshot.group, snapshot.now)
    if found.open != snapshot.progress.open.total:
        return False
    snapshot.look_at(checking)
    for instance, entry in found.some:
        snapshot.know(instance, entry)
    snapshot.waiting = found.woken
    return True


def _read_all_instances(snapshot: GroupSnapshot) -> None:
    keys, app, group = snapshot.context.keys, snapshot.group.app, snapshot.group.id
    grants, deferred = keys.grants(app, group), keys.deferrals(app, group)
    waiting, granted = [], []
    for entry in snapshot.change.list(f"{keys.group(app, group)}/").entries:
        if entry.key.startswith(grants):
            granted.append((entry.key[len(grants) :], entry))
        elif entry.key.startswith(deferred):
            one = snapshot.context.document(Deferral, entry)
            if one is None or (snapshot.group.requires_identity and not one.proved):
                continue
            waiting.append(DeferredInstance(instance=entry.key[len(deferred) :], deferred=one, entry=entry))
    snapshot.know_all(granted)
    snapshot.waiting = tuple(sorted(waiting, key=lambda one: one.entry.create_revision))
    snapshot.is_whole = True
    if snapshot.group.policy.min_healthy:
        count = snapshot.context.serving
        snapshot.serving = _serving(snapshot) if count is None else count(snapshot.group, snapshot.now)


def _serving(snapshot: GroupSnapshot) -> frozenset[str]:
    """Sidekicks that report it, and recently seen clients without a sidekick that neither failed nor update."""
    context, app, group = snapshot.context, snapshot.group.app, snapshot.group.id
    alive = context.children(Presence, f"{context.keys.presences(app)}{group}/")
    spoken = {one.instance for one in alive}
    rows = context.children(Instance, context.keys.instances(app))
    return frozenset(
        (
            *(one.instance for one in alive if one.serving),
            *(row.id for row in _seen_lately(rows, snapshot.group, snapshot.now) if row.id not in spoken),
        )
    )


def _seen_lately(rows: Iterable[Instance], group: Group, now: datetime) -> Iterable[Instance]:
    ours = (row for row in rows if row.group == group.id and group.counts(row))
    return (row for row in ours if row.status in CAN_SERVE and now - row.last_seen < SEEN)


def following(progress: Progress | None, release: ReleaseId | None, now: datetime) -> Progress:
    """The rollout to ``release``: the one that is there, or a new one."""
    if release is None:
        return rollout.following(progress, None, now)
    package = "" if release.is_plain else release.version
    return rollout.following(progress, release.label, now, package=package)
