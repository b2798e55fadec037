"""The REST API of policies, rollouts, floors and exclusions."""

from fastapi import APIRouter

from outrider.core.rollout.policy_settings import Policy
from outrider.model.documents import Channel
from outrider.service.api.models import Items
from outrider.service.api.models_policy import (
    ExcludedShown,
    FloorShown,
    NewFloor,
    PolicyGiven,
    PolicyShown,
    RolloutShown,
    Steering,
)
from outrider.service.context import Asked, Bound
from outrider.service.problems import RESPONSES

router = APIRouter(prefix="/api/v1", responses=RESPONSES)


@router.get("/apps/{app}/groups/{group}/policy", tags=["groups"])
def get_policy(app: str, group: str, store: Bound, asked: Asked) -> PolicyShown:
    """A group's policy, with what in it can't work."""
    asked.seen.shows_more = True  # the warnings depend on the instances, too
    return _policy(store.rollouts.policy(app, group), store.rollouts.warnings(app, group))


@router.put("/apps/{app}/groups/{group}/policy", tags=["groups"])
def set_policy(app: str, group: str, given: PolicyGiven, store: Bound) -> PolicyShown:
    """Replace a group's policy; it counts from the next check on, and those whose time has come by it are woken."""
    saved = store.rollouts.set_policy(app, group, given.to_policy())
    return _policy(saved.document.policy, saved.notes)


@router.get("/apps/{app}/groups/{group}/rollout", tags=["groups"])
def get_rollout(app: str, group: str, store: Bound, asked: Asked) -> RolloutShown:
    """How far a group is on its way to what its channel points at."""
    asked.seen.shows_more = True  # who waits, and whose grant lives, stands elsewhere
    return RolloutShown.model_validate(store.rollouts.get(app, group))


@router.post("/apps/{app}/groups/{group}/rollout/pause", tags=["groups"])
def pause_rollout(app: str, group: str, said: Steering, store: Bound, asked: Asked) -> RolloutShown:
    """Let no further update begin; those under way are finished."""
    return RolloutShown.model_validate(store.rollouts.pause(app, group, why=said.why, by=asked.speaker(said.by)))


@router.post("/apps/{app}/groups/{group}/rollout/halt", tags=["groups"])
def halt_rollout(app: str, group: str, said: Steering, store: Bound, asked: Asked) -> RolloutShown:
    """As pause, for a rollout that went wrong."""
    return RolloutShown.model_validate(store.rollouts.halt(app, group, why=said.why, by=asked.speaker(said.by)))


@router.post("/apps/{app}/groups/{group}/rollout/resume", tags=["groups"])
def resume_rollout(app: str, group: str, said: Steering, store: Bound, asked: Asked) -> RolloutShown:
    """Let a paused or halted rollout go on; the failures so far count no more."""
    return RolloutShown.model_validate(store.rollouts.resume(app, group, by=asked.speaker(said.by)))


@router.get("/apps/{app}/channels/{channel}/floors", tags=["channels"])
def list_floors(app: str, channel: str, store: Bound) -> Items[FloorShown]:
    """The versions that must be passed on the way to a channel's version, in their order."""
    return _floors(store.channels.get(app, channel))


@router.put("/apps/{app}/channels/{channel}/floors/{version}", tags=["channels"])
def set_floor(app: str, channel: str, version: str, new: NewFloor, store: Bound) -> Items[FloorShown]:
    """Make a version a floor, or change the reason."""
    return _floors(store.floors.set(app, channel, version, reason=new.reason))


@router.delete("/apps/{app}/channels/{channel}/floors/{version}", tags=["channels"])
def remove_floor(app: str, channel: str, version: str, store: Bound) -> Items[FloorShown]:
    """Make a floor an ordinary version again."""
    return _floors(store.floors.remove(app, channel, version))


@router.get("/apps/{app}/channels/{channel}/excluded", tags=["channels"])
def list_excluded(app: str, channel: str, store: Bound) -> Items[ExcludedShown]:
    """The versions that a channel can't be pointed at."""
    return _excluded(store.channels.get(app, channel))


@router.put("/apps/{app}/channels/{channel}/excluded/{version}", tags=["channels"])
def exclude(app: str, channel: str, version: str, store: Bound) -> Items[ExcludedShown]:
    """Keep a channel from being pointed at a version."""
    return _excluded(store.floors.exclude(app, channel, version))


@router.delete("/apps/{app}/channels/{channel}/excluded/{version}", tags=["channels"])
def include(app: str, channel: str, version: str, store: Bound) -> Items[ExcludedShown]:
    """Take an exclusion back."""
    return _excluded(store.floors.include(app, channel, version))


def _policy(policy: Policy, warnings: tuple[str, ...]) -> PolicyShown:
    return PolicyShown.model_validate(policy).model_copy(update={"warnings": list(warnings)})


def _floors(channel: Channel) -> Items[FloorShown]:
    return Items(items=[FloorShown.model_validate(floor) for floor in channel.floors])


def _excluded(channel: Channel) -> Items[ExcludedShown]:
    return Items(items=[ExcludedShown(version=version) for version in channel.excluded])
