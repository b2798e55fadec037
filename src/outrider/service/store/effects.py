"""What a change means for the instances of a group, in a line for the person who made it."""

from collections.abc import Iterable

from outrider.model.documents import Block, Group, Instance, Presence, Rollout, Target
from outrider.service.store.context import StoreContext
from outrider.service.store.moving import is_newer


def effects(context: StoreContext, app_id: str, groups: Iterable[Group]) -> tuple[str, ...]:
    """One line per group: its target, how many instances run something else, and what they do now.

    Read after the change, so that the numbers are those of now. An instance counts with what its living sidekick says,
    else with its last check-in.
    """
    chosen = sorted(groups, key=lambda group: group.id)
    if not chosen:
        return ()
    keys = context.keys
    running = {(row.group, row.id): row.version for row in context.children(Instance, keys.instances(app_id))}
    alive = context.all_below(Presence, keys.presences(app_id))
    running |= {(one.group, one.instance): one.version for one in alive}
    lines = []
    for group in chosen:
        versions = [version for (name, _), version in running.items() if name == group.id]
        lines.append(f"group {group.id}: {_effect(context, group, versions)}")
    return tuple(lines)


def _effect(context: StoreContext, group: Group, versions: list[str]) -> str:
    target = context.get_or_none(Target, context.keys.target(group.app, group.id))
    total = f"{len(versions)} instance" + ("" if len(versions) == 1 else "s")
    if target is None or target.version is None:
        return f"no target; {total} keep what they run" if versions else "no target; no instances yet"
    if not versions:
        return f"target {target.version}; no instances yet"
    others = sum(version != target.version for version in versions)
    if not others:
        return f"target {target.version}; {total}, all on it"
    goes_back = target.go_back or group.policy.downgrade != "never"
    if not goes_back and all(version == target.version or is_newer(version, target.version) for version in versions):
        return f"target {target.version}; {others} of {total} on a newer version, which they keep"
    return f"target {target.version}; {others} of {total} on another version, {_next(context, group, target)}"


def _next(context: StoreContext, group: Group, target: Target) -> str:
    keys = context.keys
    if target.version is not None and context.cluster.get(keys.block(group.app, target.version)) is not None:
        block = context.get_or_none(Block, keys.block(group.app, target.version))
        return f"held: {target.version} is blocked" + (f" ({block.why})" if block is not None else "")
    if target.paused:
        return "held: the group is paused"
    rollout = context.get_or_none(Rollout, keys.rollout(group.app, group.id))
    if rollout is not None and rollout.progress.version == target.version and rollout.progress.state != "running":
        return f"held: the rollout is {rollout.progress.state}"
    if not group.policy.enabled:
        return "held: updates are off in the group's policy"
    said = None if rollout is None or rollout.progress.version != target.version else rollout.progress.approval
    if said is not None and said.verdict == "rejected":
        return f"held: it was {said.words}"
    if group.policy.approval and group.undo is None and (said is None or said.verdict is None):
        return "held until `outrider rollout approve`"
    return "updated from now on as the group's policy allows"
