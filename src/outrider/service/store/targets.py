"""The target key of a group: what its instances shall run, always written with what it follows from.

A target follows from three documents: the group (paused, slots), its channel (the version) and the package of that
version (the digest). Every writer of one of them writes the targets in the same transaction, so no reader ever sees a
target that contradicts them.
"""

from collections.abc import Iterable

from outrider.core.errors import Conflict
from outrider.model.documents import Channel, Group, Package, Target, decode
from outrider.model.keys import Keys
from outrider.service.store.changes import Change
from outrider.service.store.context import direct

MAX_GROUPS_PER_CHANNEL = 60
"""A move compares each group and its target: 2 x 60 + the channel, the package and the app stay below etcd's 128."""


def target_of(group: Group, channel: Channel, package: Package | None) -> Target:
    """What the group's instances shall run; no version while the channel's package doesn't exist."""
    if package is None:
        return Target(version=None, paused=group.paused, slots=group.slots)
    assert package.version == channel.version, f"package {package.version} isn't what {channel.name} points at"
    return Target(version=package.version, sha256=package.sha256, paused=group.paused, slots=group.slots)


def aim(change: Change, keys: Keys, group: Group, channel: Channel, package: Package | None) -> None:
    """Write one group's target, if it isn't that already."""
    key = keys.target(group.app, group.id)
    change.read(Target, key)
    change.put(key, target_of(group, channel, package))


def aim_all(change: Change, keys: Keys, channels: Iterable[Channel], package: Package | None) -> None:
    """Write the targets of every group on ``channels``, which all point at ``package``.

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
    # Groups on other channels are read and not guarded: only those that we aim at matter.
    on_them = [
        (entry, group)
        for entry, group in ((e, decode(Group, e.key, e.value)) for e in direct(listing.entries, prefix))
        if group.channel in by_name
    ]
    if len(on_them) > MAX_GROUPS_PER_CHANNEL:
        raise Conflict(
            f"{len(on_them)} groups follow channel {', '.join(sorted(by_name))}: one change can move at most "
            f"{MAX_GROUPS_PER_CHANNEL} at once; put some of them on a channel of their own"
        )
    for entry, group in on_them:
        change.guard(Group, entry)
        key = keys.target(app, group.id)
        if key in targets:
            change.guard(Target, targets[key])
        else:
            change.read(Target, key)
        change.put(key, target_of(group, by_name[group.channel], package))
