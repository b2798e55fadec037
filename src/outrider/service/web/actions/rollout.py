"""Actions on a group's rollout: pause, halt, resume, approve, reject, undo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from outrider.service.rollouts.explain import GroupOverview, count, read_overviews
from outrider.service.store.effects import effects
from outrider.service.store.rollouts import RolloutNow, shown
from outrider.service.web.site import Action, Doing, Effect, Field, Visit

OF_GROUP = "/apps/{app}/groups/{group}"
API_GROUP = "/api/v1/apps/{app}/groups/{group}"
WHY = Field(name="why", label="Why", help="For the others who look at this group, and for the audit log.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A group in numbers, for what an action says of itself.

    Attributes:
        others: Instances with another release than the target.
        under_way: Updates that have begun.
    """

    target: str
    known: int
    others: int
    under_way: int
    rollout: RolloutNow | None


def overview_of(visit: Visit) -> GroupOverview:
    """The group that the path names.

    Raises:
        NotFound: there is none.
    """
    return read_overviews(visit.context, visit.names["app"], visit.names["group"])[0]


def numbers_of(visit: Visit) -> Numbers:
    """The group that the path names, in numbers.

    Raises:
        NotFound: there is none.
    """
    overview = overview_of(visit)
    release = overview.target.release
    known = [overview.alive.get(name) or overview.rows.get(name) for name in overview.instances]
    others = [one for one in known if one is not None and release is not None and not one.is_at(release)]
    has_rollout = overview.snapshot is not None and overview.snapshot.wanted is not None
    rollout = shown(overview.snapshot) if has_rollout and overview.snapshot is not None else None
    return Numbers(
        target=overview.target.label or "",
        known=len(overview.instances),
        others=len(others),
        under_way=0 if rollout is None else len(rollout.opened),
        rollout=rollout,
    )


def stops(visit: Visit, form: Mapping[str, str]) -> Effect:
    """What pausing or halting does."""
    now = numbers_of(visit)
    if now.rollout is None:
        return Effect(instances=0, lines=(), refused="the group has no target, so there is no rollout")
    waiting = max(0, now.others - now.under_way)
    lines = [
        f"{count(waiting, 'instance')} with another release than {now.target} keep what they run until it is resumed"
    ]
    if now.under_way:
        lines.append(f"{count(now.under_way, 'update')} that began go on and finish")
    return Effect(instances=waiting, lines=tuple(lines))


def goes_on(visit: Visit, form: Mapping[str, str]) -> Effect:
    """What resuming does."""
    now = numbers_of(visit)
    if now.rollout is None:
        return Effect(instances=0, lines=(), refused="the group has no target, so there is no rollout")
    lines = [f"{count(now.others, 'instance')} with another release than {now.target} update as the policy allows"]
    if now.rollout.failures:
        lines.append(f"{count(len(now.rollout.failures), 'failure')} so far no longer count")
    return Effect(instances=now.others, lines=tuple(lines))


def notes_of(doing: Doing) -> tuple[str, ...]:
    """What the instances of the group do now, after the change."""
    group = doing.store.groups.get(doing.names["app"], doing.names["group"])
    return effects(doing.store.context, group.app, [group])


def _pause(doing: Doing) -> Sequence[str]:
    by = doing.asked.speaker("")
    doing.store.rollouts.pause(doing.names["app"], doing.names["group"], why=doing.form.get("why", ""), by=by)
    return notes_of(doing)


def _halt(doing: Doing) -> Sequence[str]:
    by = doing.asked.speaker("")
    doing.store.rollouts.halt(doing.names["app"], doing.names["group"], why=doing.form.get("why", ""), by=by)
    return notes_of(doing)


def _resume(doing: Doing) -> Sequence[str]:
    doing.store.rollouts.resume(doing.names["app"], doing.names["group"], by=doing.asked.speaker(""))
    return notes_of(doing)


PAUSE = Action(
    path=f"{OF_GROUP}/pause",
    operation=f"POST {API_GROUP}/rollout/pause",
    title="Pause the rollout of {app}/{group}",
    button="Pause",
    back=OF_GROUP,
    effect=stops,
    do=_pause,
    fields=lambda visit: (WHY,),
)
HALT = Action(
    path=f"{OF_GROUP}/halt",
    operation=f"POST {API_GROUP}/rollout/halt",
    title="Halt the rollout of {app}/{group}",
    button="Halt",
    back=OF_GROUP,
    effect=stops,
    do=_halt,
    fields=lambda visit: (WHY,),
    danger=True,
)
RESUME = Action(
    path=f"{OF_GROUP}/resume",
    operation=f"POST {API_GROUP}/rollout/resume",
    title="Resume the rollout of {app}/{group}",
    button="Resume",
    back=OF_GROUP,
    effect=goes_on,
    do=_resume,
)
ACTIONS = (PAUSE, HALT, RESUME)
