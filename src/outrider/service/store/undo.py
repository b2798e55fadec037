"""`rollout undo` and `rollout follow`: a group goes back to an earlier release, and follows its channel again.

An earlier environment of the channel's version is what the group runs with from then on, also with the next version;
the group goes on following its channel. Only a group that went back to another version leaves its channel.
"""

from datetime import datetime

import msgspec

from outrider.core import versions
from outrider.core.errors import Conflict
from outrider.core.release import ReleaseId
from outrider.core.rollout import rollout
from outrider.core.rollout.policy_settings import begins_with
from outrider.model.documents import Channel, Group, GroupBlock, Package, Restarted, Rollout, Undo
from outrider.service.store.oldest import require_permitted
from outrider.service.store.served import before, read_served
from outrider.service.store.snapshot import GroupSnapshot, following
from outrider.service.store.targets import aim, dated, target_of, undo_target

MAX_GROUP_BLOCKS = 100
"""Versions that one group blocks for itself."""


def undo(snapshot: GroupSnapshot, *, to: str | None, keep: bool, at_once: bool, by: str, why: str) -> Group:
    """Take the group back.

    Args:
        snapshot: The group; its transaction makes the change.
        to: The version, with the environment that the group served it with; None: the release that the group served
            before its target.
        keep: Do not block the target that is abandoned.
        at_once: It does not wait for an update window.
        by: The operator's name.
        why: For people.

    Raises:
        ConfigError: ``to`` is not a version.
        Conflict: there is nothing to go back to, or that version can't be installed; the message says what to do.
    """
    change, keys, group, now = snapshot.change, snapshot.context.keys, snapshot.group, snapshot.now
    target = None if snapshot.target is None else snapshot.target.release
    if snapshot.target is None or target is None:
        raise Conflict(f"group {group.id!r} has no target, so there is no rollout to undo")
    back = _destination(snapshot, target, to)
    if back.label == target.label and snapshot.target.go_back:
        raise Conflict(f"group {group.id!r} goes back to {back.label} already")
    package = _usable(snapshot, back)
    _require_environment(snapshot, back)
    abandoned = target.label if target.label != back.label else ""
    new = msgspec.structs.replace(
        _with_release(group, back, now),
        blocked=group.blocked
        if keep or not abandoned
        else _with_block(group, GroupBlock(version=abandoned, by=by, why=why, at=now, release=target)),
    )
    channel = snapshot.channel
    if abandoned and group.undo is None and channel is not None and channel.version == back.version:
        new = msgspec.structs.replace(
            new,
            environment=back.environment,
            environment_digest=back.environment_digest,
            undo=None,
            back_to=back.label,
            back_at_once=at_once,
        )
        aimed = target_of(new, channel, package)
    else:
        pinned = Undo(
            version=back.version,
            abandoned=abandoned,
            by=by,
            why=why,
            at=now,
            at_once=at_once,
            environment=back.environment,
            environment_digest=back.environment_digest,
        )
        new = msgspec.structs.replace(new, undo=pinned)
        aimed = undo_target(new, package)
    require_permitted(change, keys, group, back.version)
    change.put(keys.group(group.app, group.id), new)
    change.put(keys.target(group.app, group.id), dated(aimed, snapshot.target, now))
    change.touch(keys.package(group.app, back.version))  # a change that deletes the package must see this
    snapshot.write_brake("undo", by)
    # The way back is a rollout of its own: it begins without the pause, the halt and the failures of the last one.
    progress = following(snapshot.progress, aimed.release, now)
    if progress is snapshot.progress:
        progress = rollout.told(progress, "running", "", by, now)
    change.put(keys.rollout(group.app, group.id), Rollout(progress=rollout.counted(progress)))
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
    aim(change, keys, new, channel, package, snapshot.now)
    return new


def _with_release(group: Group, back: ReleaseId, now: datetime) -> Group:
    """The group, so that ``release_of`` the version that it goes back to is ``back``."""
    restarted = None
    if back.generation:
        restarted = Restarted(generation=back.generation, version=back.version, environment=back.environment, at=now)
    return msgspec.structs.replace(group, restarted=restarted)


def restart(snapshot: GroupSnapshot, by: str, why: str) -> Group:
    """Give the group's target a new generation.

    Raises:
        Conflict: there is no target, or it is blocked.
    """
    change, keys, group, now = snapshot.change, snapshot.context.keys, snapshot.group, snapshot.now
    target = None if snapshot.target is None else snapshot.target.release
    if snapshot.target is None or target is None:
        raise Conflict(f"group {group.id!r} has no target, so there is nothing to restart")
    if (blocked := snapshot.standstill) is not None:
        raise Conflict(
            f"{target.label} is blocked ({blocked}), and a restart would start it again; `rollout undo` or `release"
            " unblock` first"
        )
    generation = group.generations + 1
    restarted = Restarted(
        generation=generation, version=target.version, environment=target.environment, by=by, why=why, at=now
    )
    new = msgspec.structs.replace(group, restarted=restarted, generations=generation)
    change.put(keys.group(group.app, group.id), new)
    again = dated(msgspec.structs.replace(snapshot.target, generation=generation), snapshot.target, now)
    change.put(keys.target(group.app, group.id), again)
    return new


def previous_release(snapshot: GroupSnapshot) -> ReleaseId | None:
    """Where an undo without ``--to`` would go; None when that is not known."""
    target = None if snapshot.target is None else snapshot.target.release
    if target is None:
        return None
    served = read_served(snapshot.change, snapshot.context.keys, snapshot.group.app, snapshot.group.id)
    return before(served, target)


def _with_block(group: Group, block: GroupBlock) -> tuple[GroupBlock, ...]:
    others = tuple(one for one in group.blocked if one.version != block.version)
    if len(others) >= MAX_GROUP_BLOCKS:
        raise Conflict(
            f"group {group.id!r} blocks {MAX_GROUP_BLOCKS} releases already; `release unblock` some, or use --keep"
        )
    return (*others, block)


def _destination(snapshot: GroupSnapshot, target: ReleaseId, to: str | None) -> ReleaseId:
    if to is None:
        found = previous_release(snapshot)
        if found is None:
            raise Conflict(
                f"no version is known that group {snapshot.group.id!r} served before {target.label}; name it with --to"
            )
        return found
    versions.parse(to)
    if versions.is_newer(to, target.version):
        raise Conflict(f"{to} is newer than the target {target.label}, and undo only goes back; use `channel update`")
    served = read_served(snapshot.change, snapshot.context.keys, snapshot.group.app, snapshot.group.id)
    last = next((one for one in reversed(served) if one.version == to and one.label != target.label), None)
    return last or snapshot.release_of(to)


def _require_environment(snapshot: GroupSnapshot, release: ReleaseId) -> None:
    """Keep the change from going back to an environment that is no longer kept, or that goes meanwhile."""
    if not release.environment:
        return
    change, keys, group = snapshot.change, snapshot.context.keys, snapshot.group
    if not change.exists(keys.environment(group.app, group.id, release.environment)):
        raise Conflict(
            f"environment {release.environment} of group {group.id!r} is no longer kept, so nothing can go back to"
            f" {release.label}; set the values again with `env set`"
        )


def _usable(snapshot: GroupSnapshot, release: ReleaseId) -> Package:
    change, keys, group, version = snapshot.change, snapshot.context.keys, snapshot.group, release.version
    package = change.read(Package, keys.package(group.app, version))
    if package is None:
        raise Conflict(f"{version} has no package any more; name another version with --to, or add it")
    reason = snapshot.block_reason(release)
    if reason is not None:
        raise Conflict(
            f"{release.label} is blocked ({reason}); name another version with --to, or `release unblock` it"
        )
    if snapshot.channel is not None and version in snapshot.channel.excluded:
        raise Conflict(f"channel {group.channel!r} excludes {version}; include it first, or name another with --to")
    if not begins_with(version, group.policy.pin):
        raise Conflict(f"the policy pins group {group.id!r} to {group.policy.pin}; change that first (`--pin=none`)")
    return package
