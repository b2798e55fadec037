"""Promoting a version: a channel is pointed at it, and every group on the channel follows."""

from collections.abc import Mapping, Sequence

from outrider.core import versions
from outrider.core.errors import NotFound
from outrider.model.documents import Channel, Group, Package
from outrider.service.rollouts.explain import count, read_overviews
from outrider.service.store.context import app_id_of
from outrider.service.store.effects import effects
from outrider.service.web.actions.rollout import OF_GROUP
from outrider.service.web.site import Action, Doing, Effect, Field, Visit

MOST = 200
"""Versions that are offered, the newest first."""


def _channel(visit: Visit) -> Channel:
    app, name = visit.names["app"], visit.names["channel"]
    found = visit.context.get(Channel, visit.keys.channel(app_id_of(app), name))
    if found is None:
        raise NotFound(f"app {app} has no channel {name!r}")
    return found


def _versions(visit: Visit) -> list[str]:
    app = app_id_of(visit.names["app"])
    known = [one.version for one in visit.context.children(Package, visit.keys.packages(app))]
    excluded = set(_channel(visit).excluded)
    return sorted((one for one in known if one not in excluded), key=versions.parse, reverse=True)[:MOST]


def _fields(visit: Visit) -> tuple[Field, ...]:
    now, known = _channel(visit).version, _versions(visit)
    choices = tuple((one, f"{one} (now)" if one == now else one) for one in known)
    return (Field(name="version", label="Version", kind="select", choices=choices, value=known[0] if known else ""),)


def _effect(visit: Visit, form: Mapping[str, str]) -> Effect:
    channel, known = _channel(visit), _versions(visit)
    wanted = form.get("version") or (known[0] if known else "")
    if not wanted:
        return Effect(instances=0, lines=(), refused="the app has no package yet")
    if wanted == channel.version:
        return Effect(instances=0, lines=(f"{channel.name} points at {wanted} already",))
    lines, total = [f"channel {channel.name}: {channel.version or 'nothing'} → {wanted}"], 0
    for overview in read_overviews(visit.context, channel.app):
        if overview.group is None or overview.group.channel != channel.name:
            continue
        runs = [overview.alive.get(name) or overview.rows.get(name) for name in overview.instances]
        others = sum(one is not None and one.version != wanted for one in runs)
        pinned = overview.group.undo is not None
        total += others
        paused = ", which is paused" if overview.group.paused else ""
        back = ", which follows its channel again" if pinned else ""
        lines.append(f"group {overview.label}{paused}{back}: {count(others, 'instance')} with another version")
    return Effect(instances=total, lines=tuple(lines))


def _do(doing: Doing) -> Sequence[str]:
    app, name = doing.names["app"], doing.names["channel"]
    saved = doing.store.channels.save(app, name, version=doing.form.get("version", ""), allow_missing=False)
    groups: list[Group] = [one for one in doing.store.groups.list(app) if one.channel == name]
    return (*saved.notes, *effects(doing.store.context, app_id_of(app), groups))


PROMOTE = Action(
    path=f"{OF_GROUP}/promote/{{channel}}",
    operation="PUT /api/v1/apps/{app}/channels/{channel}",
    title="Promote a version to {app}/{channel}",
    button="Promote",
    back=OF_GROUP,
    effect=_effect,
    do=_do,
    fields=_fields,
    lint=lambda visit, form: (),
)
ACTIONS = (PROMOTE,)
