"""The target key of a group: the release for its instances, always written with its sources.

A target follows from three documents: the group (paused, slots, environment, generation), its channel (the version) and
the package of that version (the digest). Every change of one of them writes the targets in the same transaction, so no
reader ever sees a target that contradicts them.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from outrider.core.errors import Conflict
from outrider.model.damage import read_or_none, readable
from outrider.model.documents import Channel, Group, Package, Target
from outrider.model.keys import Keys
from outrider.service.store.changes import Change
from outrider.service.store.context import direct
from outrider.service.store.oldest import require_permitted

MAX_GROUPS_PER_CHANNEL = 40
"""A move compares each group, its target and its oldest version: 3 x 40 + the channel, the package, the app and the
app's oldest version stay below etcd's 128.
"""


def target_of(group: Group, channel: Channel, package: Package | None) -> Target:
    """The target that follows from them; without a version while the channel has no package."""
    if package is None:
        return Target(version=None, paused=group.paused, slots=group.slots, budgets=group.policy.budgets)
    assert package.version == channel.version, f"package {package.version} is not the version of channel {channel.name}"
    return _target(group, package)


def undo_target(group: Group, package: Package) -> Target:
    """The target of a group that an operator took back: its channel says nothing about it."""
    return _target(group, package, go_back=True)


def _target(group: Group, package: Package, *, go_back: bool = False) -> Target:
    release = group.release_of(package.version)
    return Target(
        version=package.version,
        sha256=package.sha256,
        paused=group.paused,
        slots=group.slots,
        go_back=go_back,
        environment=release.environment,
        environment_digest=release.environment_digest,
        generation=release.generation,
        budgets=group.policy.budgets,
    )


def dated(new: Target, old: Target | None, now: datetime) -> Target:
    """The new target with the time at which the group was given its release."""
    if new.release is None:
        return new
    is_same = old is not None and old.release is not None and old.label == new.label
    return msgspec.structs.replace(new, since=old.since if old is not None and is_same else now)


def aim(change: Change, keys: Keys, group: Group, channel: Channel, package: Package | None, now: datetime) -> None:
    """Write the target of one group, unless it is stored already."""
    key = keys.target(group.app, group.id)
    old = change.read_or_none(Target, key)
    require_permitted(change, keys, group, channel.version if group.undo is None else group.undo.version)
    if group.undo is None:
        change.put(key, dated(target_of(group, channel, package), old, now))
        return
    back = change.read(Package, keys.package(group.app, group.undo.version))
    if back is not None:
        change.put(key, dated(undo_target(group, back), old, now))


def aim_all(
    change: Change,
    keys: Keys,
    channels: Iterable[Channel],
    package: Package | None,
    now: datetime,
    *,
    ends_undo: bool = False,
) -> None:
    """Write the target of every group on ``channels``, which all point at ``package``.

    Args:
        change: Reads and writes.
        keys: Names the keys.
        channels: Of one app.
        package: Of their version; None while it has none.
        now: Since when their groups have it.
        ends_undo: Groups that an operator took back follow their channel again; otherwise they keep their target.

    Raises:
        Conflict: more groups than one transaction can hold.
    """
    by_name = {channel.name: channel for channel in channels}
    if not by_name:
        return
    app = next(iter(by_name.values())).app
    prefix = keys.groups(app)
    listing = change.list(prefix)
    targets = {entry.key: entry for entry in listing.entries}
    # Groups on other channels are read but not guarded: they do not matter here.
    on_them = [
        (entry, group) for entry, group in readable(Group, direct(listing.entries, prefix)) if group.channel in by_name
    ]
    if len(on_them) > MAX_GROUPS_PER_CHANNEL:
        raise Conflict(
            f"{len(on_them)} groups follow channel {', '.join(sorted(by_name))}, but one change moves at most "
            f"{MAX_GROUPS_PER_CHANNEL}; move some of them to another channel"
        )
    for entry, group in on_them:
        change.guard(Group, entry)
        if group.undo is not None:
            if not ends_undo:
                continue
            group = msgspec.structs.replace(group, undo=None)
            change.put(entry.key, group)
        require_permitted(change, keys, group, by_name[group.channel].version)
        key = keys.target(app, group.id)
        old = None
        if key in targets:
            change.guard_unread(targets[key])
            old = read_or_none(Target, key, targets[key].value)
        else:
            change.read(Target, key)
        change.put(key, dated(target_of(group, by_name[group.channel], package), old, now))
