"""What a change means for the instances of a group, in a line for the person who made it."""

from collections.abc import Iterable, Sequence

from outrider.core.release import ReleaseId
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
    running: dict[tuple[str, str], Instance | Presence] = {
        (row.group, row.id): row for row in context.children(Instance, keys.instances(app_id))
    }
    running |= {(one.group, one.instance): one for one in context.all_below(Presence, keys.presences(app_id))}
    lines = []
    for group in chosen:
        ours = [one for (name, _), one in running.items() if name == group.id]
        lines.append(f"group {group.titled}: {_effect(context, group, ours)}")
    return tuple(lines)


def _effect(context: StoreContext, group: Group, ours: Sequence[Instance | Presence]) -> str:
    target = context.get_or_none(Target, context.keys.target(group.app, group.id))
    release = None if target is None else target.release
    total = f"{len(ours)} instance" + ("" if len(ours) == 1 else "s")
    if target is None or release is None:
        return f"no target; {total} keep what they run" if ours else "no target; no instances yet"
    if not ours:
        return f"target {release.label}; no instances yet"
    others = sum(not one.is_at(release) for one in ours)
    if not others:
        return f"target {release.label}; {total}, all on it"
    goes_back = target.go_back or group.policy.downgrade != "never"
    if not goes_back and all(one.is_at(release) or is_newer(one.version, release.version) for one in ours):
        return f"target {release.label}; {others} of {total} on a newer version, which they keep"
    what = "version" if release.is_plain else "release"
    return f"target {release.label}; {others} of {total} on another {what}, {_next(context, group, release, target)}"


def _next(context: StoreContext, group: Group, release: ReleaseId, target: Target) -> str:
    keys = context.keys
    key = keys.block(group.app, release.key(group.id))
    if context.cluster.get(key) is not None:
        block = context.get_or_none(Block, key)
        return f"held: {release.label} is blocked" + (f" ({block.why})" if block is not None else "")
    if target.paused:
        return "held: the group is paused"
    rollout = context.get_or_none(Rollout, keys.rollout(group.app, group.id))
    if rollout is not None and rollout.progress.version == release.label and rollout.progress.state != "running":
        return f"held: the rollout is {rollout.progress.state}"
    if not group.policy.enabled:
        return "held: updates are off in the group's policy"
    said = None if rollout is None or rollout.progress.version != release.label else rollout.progress.approval
    if said is not None and said.verdict == "rejected":
        return f"held: it was {said.words}"
    goes_back = group.undo is not None or group.back_to == release.label
    if group.policy.approval and not goes_back and (said is None or said.verdict is None):
        return "held until `outrider rollout approve`"
    return "updated from now on as the group's policy allows"
