"""Actions on a group's rollout: pause, halt, resume, approve, reject, undo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from outrider.core.release import ReleaseId
from outrider.model.documents import Served
from outrider.service.rollouts.explain import GroupOverview, count, read_overviews
from outrider.service.store.effects import effects
from outrider.service.store.rollouts import RolloutNow, shown
from outrider.service.store.served import before, releases_in
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


def _judge(verdict: str) -> Action:
    def effect(visit: Visit, form: Mapping[str, str]) -> Effect:
        now = numbers_of(visit)
        if now.rollout is None:
            return Effect(instances=0, lines=(), refused="the group has no target, so there is nothing to judge")
        then = "update as the policy allows" if verdict == "approve" else "keep what they run"
        lines = [f"{count(now.others, 'instance')} with another release than {now.target} {then}"]
        if now.rollout.wave_words:
            lines.append(now.rollout.wave_words)
        return Effect(instances=now.others, lines=tuple(lines))

    def do(doing: Doing) -> Sequence[str]:
        app, group, by = doing.names["app"], doing.names["group"], doing.asked.speaker("")
        version, why = doing.form.get("version", ""), doing.form.get("why", "")
        judge = doing.store.rollouts.approve if verdict == "approve" else doing.store.rollouts.reject
        judge(app, group, version=version, why=why, by=by)
        return notes_of(doing)

    def fields(visit: Visit) -> tuple[Field, ...]:
        # what the person has looked at: another target meanwhile is not approved
        looked_at = overview_of(visit).target.version or ""
        return (Field(name="version", label="", kind="hidden", value=looked_at), WHY)

    word = verdict.capitalize()
    return Action(
        path=f"{OF_GROUP}/{verdict}",
        operation=f"POST {API_GROUP}/rollout/{verdict}",
        title=f"{word} the rollout of {{app}}/{{group}}",
        button=word,
        back=OF_GROUP,
        effect=effect,
        do=do,
        fields=fields,
        danger=verdict == "reject",
    )


def _goes_back(visit: Visit, form: Mapping[str, str]) -> Effect:
    overview, to = overview_of(visit), form.get("to", "")
    target = overview.target.release
    if target is None:
        return Effect(instances=0, lines=(), refused="the group has no target, so there is nothing to undo")
    earlier = before(_served(visit), target)
    label = to or ("" if earlier is None else earlier.label)
    if not label:
        return Effect(instances=0, lines=(), refused=f"nothing is known that the group served before {target.label}")
    runs = [overview.alive.get(name) or overview.rows.get(name) for name in overview.instances]
    going = sum(one is not None and one.runs != label for one in runs)
    lines = [
        f"the group goes back from {target.label} to {label}; {count(going, 'instance')} with another release follow"
    ]
    if not form.get("keep"):
        lines.append(f"{target.label} is blocked for this group")
    return Effect(instances=going, lines=tuple(lines))


def _served(visit: Visit) -> tuple[ReleaseId, ...]:
    overview = overview_of(visit)
    return releases_in(visit.context.get_or_none(Served, visit.keys.served(overview.app, overview.name)))


def _undo_fields(visit: Visit) -> tuple[Field, ...]:
    target = overview_of(visit).target.version
    served = [one.version for one in reversed(_served(visit)) if one.version != target]
    choices = (("", "the release that it served before"), *((one, one) for one in dict.fromkeys(served)))
    return (
        Field(name="to", label="Back to", kind="select", choices=choices),
        Field(name="keep", label="don't block the release that is left", kind="checkbox"),
        Field(name="now", label="at once, also outside the update windows", kind="checkbox"),
        WHY,
    )


def _undo(doing: Doing) -> Sequence[str]:
    form = doing.form
    doing.store.rollouts.undo(
        doing.names["app"],
        doing.names["group"],
        to=form.get("to") or None,
        keep=form.get("keep") == "yes",
        at_once=form.get("now") == "yes",
        why=form.get("why", ""),
        by=doing.asked.speaker(""),
    )
    return notes_of(doing)


def _unblocks(visit: Visit, form: Mapping[str, str]) -> Effect:
    overview = overview_of(visit)
    block = overview.block
    if block is None or block.key != visit.names["version"]:
        return Effect(instances=0, lines=(), refused="this release isn't blocked, or isn't the group's target any more")
    now = numbers_of(visit)
    lines = (
        f"{block.instance} blocked {block.label}: {block.why}",
        f"{count(now.others, 'instance')} with another release may update to it again",
    )
    return Effect(instances=now.others, lines=lines)


def _unblock(doing: Doing) -> Sequence[str]:
    doing.store.fleet.unblock(doing.names["app"], doing.names["version"])
    return notes_of(doing)


UNDO = Action(
    path=f"{OF_GROUP}/undo",
    operation=f"POST {API_GROUP}/rollout/undo",
    title="Undo the rollout of {app}/{group}",
    button="Undo",
    back=OF_GROUP,
    effect=_goes_back,
    do=_undo,
    fields=_undo_fields,
    danger=True,
    lint=lambda visit, form: (),
)
UNBLOCK = Action(
    path=f"{OF_GROUP}/unblock/{{version}}",
    operation="DELETE /api/v1/apps/{app}/blocks/{version}",
    title="Unblock {version} of {app}",
    button="Unblock",
    back=OF_GROUP,
    effect=_unblocks,
    do=_unblock,
    danger=True,
)
ACTIONS = (PAUSE, HALT, RESUME, _judge("approve"), _judge("reject"), UNDO, UNBLOCK)
