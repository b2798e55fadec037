"""`rollout undo` and `rollout follow`: a group goes back to an earlier version, and follows its channel again."""

import msgspec

from outrider.core import versions
from outrider.core.errors import Conflict
from outrider.core.rollout import rollout
from outrider.core.rollout.policy_settings import begins_with
from outrider.model.documents import Channel, Group, GroupBlock, Package, Rollout, Undo
from outrider.service.store.served import before, read_served
from outrider.service.store.snapshot import GroupSnapshot
from outrider.service.store.targets import aim, undo_target

MAX_GROUP_BLOCKS = 100
"""Versions that one group blocks for itself."""


def undo(snapshot: GroupSnapshot, *, to: str | None, keep: bool, at_once: bool, by: str, why: str) -> Group:
    """Take the group back.

    Args:
        snapshot: The group; its transaction makes the change.
        to: The version; None: the one that the group served before its target.
        keep: Do not block the target that is abandoned.
        at_once: It does not wait for an update window.
        by: The operator's name.
        why: For people.

    Raises:
        ConfigError: ``to`` is not a version.
        Conflict: there is nothing to go back to, or that version can't be installed; the message says what to do.
    """
    change, keys, group, now = snapshot.change, snapshot.context.keys, snapshot.group, snapshot.now
    target = snapshot.target
    if target is None or target.version is None:
        raise Conflict(f"group {group.id!r} has no target, so there is no rollout to undo")
    version = _destination(snapshot, target.version, to)
    if version == target.version and target.go_back:
        raise Conflict(f"group {group.id!r} goes back to {version} already")
    package = _usable(snapshot, version)
    abandoned = target.version if target.version != version else ""
    new = msgspec.structs.replace(
        group,
        undo=Undo(version=version, abandoned=abandoned, by=by, why=why, at=now, at_once=at_once),
        blocked=group.blocked
        if keep or not abandoned
        else _with_block(group, GroupBlock(version=abandoned, by=by, why=why, at=now)),
    )
    change.put(keys.group(group.app, group.id), new)
    change.put(keys.target(group.app, group.id), undo_target(new, package))
    change.touch(keys.package(group.app, version))  # a change that deletes the package must see this
    snapshot.write_brake("undo", by)
    # The way back is a rollout of its own: it begins without the pause, the halt and the failures of the last one.
    progress = rollout.following(snapshot.progress, version, now)
    if progress is snapshot.progress:
        progress = rollout.told(progress, "running", "", by, now)
    change.put(keys.rollout(group.app, group.id), Rollout(progress=progress))
    return new


def follow(snapshot: GroupSnapshot) -> Group:
    """Let the group follow its channel again.

    Raises:
        Conflict: it does.
    """
    change, keys, group = snapshot.change, snapshot.context.keys, snapshot.group
    if group.undo is None:
        raise Conflict(f"group {group.id!r} follows channel {group.channel!r} already")
    absent = f"app {group.app} has no channel {group.channel!r}"
    channel = change.require(Channel, keys.channel(group.app, group.channel), absent)
    package = None if channel.version is None else change.read(Package, keys.package(group.app, channel.version))
    new = msgspec.structs.replace(group, undo=None)
    change.put(keys.group(group.app, group.id), new)
    aim(change, keys, new, channel, package)
    return new


def previous_version(snapshot: GroupSnapshot) -> str | None:
    """Where an undo without ``--to`` would go; None when that is not known."""
    if snapshot.wanted is None:
        return None
    served = read_served(snapshot.change, snapshot.context.keys, snapshot.group.app, snapshot.group.id)
    return before(served, snapshot.wanted)


def _with_block(group: Group, block: GroupBlock) -> tuple[GroupBlock, ...]:
    others = tuple(one for one in group.blocked if one.version != block.version)
    if len(others) >= MAX_GROUP_BLOCKS:
        raise Conflict(
            f"group {group.id!r} blocks {MAX_GROUP_BLOCKS} versions already; `release unblock` some, or use --keep"
        )
    return (*others, block)


def _destination(snapshot: GroupSnapshot, target: str, to: str | None) -> str:
    if to is None:
        found = previous_version(snapshot)
        if found is None:
            raise Conflict(
                f"no version is known that group {snapshot.group.id!r} served before {target}; name it with --to"
            )
        return found
    versions.parse(to)
    if versions.is_newer(to, target):
        raise Conflict(f"{to} is newer than the target {target}, and undo only goes back; use `channel update`")
    return to


def _usable(snapshot: GroupSnapshot, version: str) -> Package:
    change, keys, group = snapshot.change, snapshot.context.keys, snapshot.group
    package = change.read(Package, keys.package(group.app, version))
    if package is None:
        raise Conflict(f"{version} has no package any more; name another version with --to, or add it")
    reason = snapshot.block_reason(version)
    if reason is not None:
        raise Conflict(f"{version} is blocked ({reason}); name another version with --to, or `release unblock` it")
    if snapshot.channel is not None and version in snapshot.channel.excluded:
        raise Conflict(f"channel {group.channel!r} excludes {version}; include it first, or name another with --to")
    if not begins_with(version, group.policy.pin):
        raise Conflict(f"the policy pins group {group.id!r} to {group.policy.pin}; change that first (`--pin=none`)")
    return package
