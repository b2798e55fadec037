"""The REST API of policies, rollouts, floors and exclusions."""

from fastapi import APIRouter, Request

from outrider.core.rollout.policy_settings import Policy
from outrider.model.documents import Channel
from outrider.service.api.models import GroupShown, Items
from outrider.service.api.models_policy import (
    Emergency,
    ExcludedShown,
    FloorShown,
    Judgement,
    NewFloor,
    NewUndo,
    PolicyGiven,
    PolicyShown,
    RolloutShown,
    Steering,
)
from outrider.service.context import Asked, Bound, check_destinations, context_of
from outrider.service.problems import RESPONSES
from outrider.service.store.effects import effects
from outrider.service.store.rollouts import RolloutNow
from outrider.service.store.store import Store

router = APIRouter(prefix="/api/v1", responses=RESPONSES)


@router.get("/apps/{app}/groups/{group}/policy", tags=["groups"])
def get_policy(app: str, group: str, store: Bound, asked: Asked) -> PolicyShown:
    """Show the policy of a group, with warnings about parts that cannot work."""
    asked.seen.shows_more = True  # the warnings depend on the instances, too
    return _policy(store.rollouts.policy(app, group), store.rollouts.warnings(app, group))


@router.put("/apps/{app}/groups/{group}/policy", tags=["groups"])
def set_policy(app: str, group: str, given: PolicyGiven, store: Bound, request: Request) -> PolicyShown:
    """Replace the policy of a group; it applies from the next check-in, and instances that may update now are woken."""
    policy = given.to_policy()
    check_destinations(context_of(request), policy)
    saved = store.rollouts.set_policy(app, group, policy)
    notes = effects(store.context, saved.document.app, [saved.document])
    return _policy(saved.document.policy, saved.notes).model_copy(update={"notes": list(notes)})


@router.get("/apps/{app}/groups/{group}/rollout", tags=["groups"])
def get_rollout(app: str, group: str, store: Bound, asked: Asked) -> RolloutShown:
    """Show the progress of a group's rollout."""
    asked.seen.shows_more = True  # deferred instances and living grants have keys of their own
    return RolloutShown.model_validate(store.rollouts.get(app, group))


@router.post("/apps/{app}/groups/{group}/rollout/pause", tags=["groups"])
def pause_rollout(app: str, group: str, said: Steering, store: Bound, asked: Asked) -> RolloutShown:
    """Pause a rollout: no further update starts, and updates under way finish."""
    return _steered(store, store.rollouts.pause(app, group, why=said.why, by=asked.speaker(said.by)))


@router.post("/apps/{app}/groups/{group}/rollout/halt", tags=["groups"])
def halt_rollout(app: str, group: str, said: Steering, store: Bound, asked: Asked) -> RolloutShown:
    """Halt a rollout after failures: no further update starts."""
    return _steered(store, store.rollouts.halt(app, group, why=said.why, by=asked.speaker(said.by)))


@router.post("/apps/{app}/groups/{group}/rollout/resume", tags=["groups"])
def resume_rollout(app: str, group: str, said: Steering, store: Bound, asked: Asked) -> RolloutShown:
    """Continue a paused or halted rollout; earlier failures no longer count."""
    return _steered(store, store.rollouts.resume(app, group, by=asked.speaker(said.by)))


@router.post("/apps/{app}/groups/{group}/rollout/approve", tags=["groups"])
def approve_rollout(app: str, group: str, said: Judgement, store: Bound, asked: Asked) -> RolloutShown:
    """Approve a rollout; of two approvals the first one counts."""
    by = asked.speaker(said.by)
    now = store.rollouts.approve(app, group, version=said.version, wave=said.wave, why=said.why, by=by)
    at_wave = now.wave.approval if now.wave is not None else None
    shown, approval = _steered(store, now), at_wave or now.approval
    if approval is not None and approval.by != by:
        shown.notes.append(f"it was approved already{f' by {approval.by}' if approval.by else ''}")
    return shown


@router.post("/apps/{app}/groups/{group}/rollout/reject", tags=["groups"])
def reject_rollout(app: str, group: str, said: Judgement, store: Bound, asked: Asked) -> RolloutShown:
    """Reject a rollout: no further update starts, until a person approves it after all."""
    by = asked.speaker(said.by)
    return _steered(store, store.rollouts.reject(app, group, version=said.version, why=said.why, by=by))


@router.post("/apps/{app}/groups/{group}/rollout/override", tags=["groups"])
def override_calendar(app: str, group: str, said: Emergency, store: Bound, asked: Asked) -> RolloutShown:
    """Let a rollout go on outside its windows and in a freeze for a time; the reason is audited."""
    by = asked.speaker(said.by)
    return _steered(store, store.rollouts.override(app, group, for_s=said.for_s, why=said.why, by=by))


@router.post("/apps/{app}/groups/{group}/rollout/undo", tags=["groups"])
def undo_rollout(app: str, group: str, said: NewUndo, store: Bound, asked: Asked) -> GroupShown:
    """Take a group back to an earlier version; its channel and other groups stay as they are."""
    by = asked.speaker(said.by)
    return GroupShown.model_validate(
        store.rollouts.undo(app, group, to=said.to, keep=said.keep, at_once=said.now, why=said.why, by=by)
    )


@router.post("/apps/{app}/groups/{group}/rollout/restart", tags=["groups"])
def restart_rollout(app: str, group: str, said: Steering, store: Bound, asked: Asked) -> GroupShown:
    """Restart every instance of a group, one after the other, under turns, probes and policy."""
    restarted = store.rollouts.restart(app, group, why=said.why, by=asked.speaker(said.by))
    notes = effects(store.context, restarted.app, [restarted])
    return GroupShown.model_validate(restarted).model_copy(update={"notes": list(notes)})


@router.post("/apps/{app}/groups/{group}/rollout/follow", tags=["groups"])
def follow_channel(app: str, group: str, store: Bound) -> GroupShown:
    """Let a group that was taken back follow its channel again."""
    return GroupShown.model_validate(store.rollouts.follow(app, group))


@router.get("/apps/{app}/channels/{channel}/floors", tags=["channels"])
def list_floors(app: str, channel: str, store: Bound) -> Items[FloorShown]:
    """List the floors of a channel: versions that no update skips, in their order."""
    return _floors(store.channels.get(app, channel))


@router.put("/apps/{app}/channels/{channel}/floors/{version}", tags=["channels"])
def set_floor(app: str, channel: str, version: str, new: NewFloor, store: Bound) -> Items[FloorShown]:
    """Make a version a floor, or change its reason."""
    return _floors(store.floors.set(app, channel, version, reason=new.reason))


@router.delete("/apps/{app}/channels/{channel}/floors/{version}", tags=["channels"])
def remove_floor(app: str, channel: str, version: str, store: Bound) -> Items[FloorShown]:
    """Remove a floor; the version becomes an ordinary one."""
    return _floors(store.floors.remove(app, channel, version))


@router.get("/apps/{app}/channels/{channel}/excluded", tags=["channels"])
def list_excluded(app: str, channel: str, store: Bound) -> Items[ExcludedShown]:
    """List the versions that a channel excludes."""
    return _excluded(store.channels.get(app, channel))


@router.put("/apps/{app}/channels/{channel}/excluded/{version}", tags=["channels"])
def exclude(app: str, channel: str, version: str, store: Bound) -> Items[ExcludedShown]:
    """Exclude a version: the channel cannot point at it."""
    return _excluded(store.floors.exclude(app, channel, version))


@router.delete("/apps/{app}/channels/{channel}/excluded/{version}", tags=["channels"])
def include(app: str, channel: str, version: str, store: Bound) -> Items[ExcludedShown]:
    """Remove the exclusion of a version."""
    return _excluded(store.floors.include(app, channel, version))


def _steered(store: Store, now: RolloutNow) -> RolloutShown:
    """The rollout after a command, and what its instances do now."""
    notes = effects(store.context, now.app, [store.groups.get(now.app, now.group)])
    return RolloutShown.model_validate(now).model_copy(update={"notes": list(notes)})


def _policy(policy: Policy, warnings: tuple[str, ...]) -> PolicyShown:
    return PolicyShown.model_validate(policy).model_copy(update={"warnings": list(warnings)})


def _floors(channel: Channel) -> Items[FloorShown]:
    return Items(items=[FloorShown.model_validate(floor) for floor in channel.floors])


def _excluded(channel: Channel) -> Items[ExcludedShown]:
    return Items(items=[ExcludedShown(version=version) for version in channel.excluded])
