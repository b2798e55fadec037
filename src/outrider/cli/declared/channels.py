"""Steps for channels: new ones, and those whose version or rules change."""

from collections.abc import Mapping

from outrider.cli.declared.state import AppState, ChannelState
from outrider.cli.declared.steps import Session, Step, count
from outrider.cli.rest_client import Json

Problems = list[tuple[int, str]]
_FIELDS = ("version", "publish", "follow", "follow_moves")


def channel_steps(app: AppState, before: AppState, problems: Problems) -> tuple[list[Step], list[Step]]:
    """Channels that are new, which nobody follows yet, and those that change."""
    new: list[Step] = []
    changed: list[Step] = []
    packages = {*before.packages, *app.packages}
    for channel in app.channels.values():
        what = f"apps.{app.name}.channels.{channel.name}"
        named = [*([channel.version] if channel.version and not channel.allow_missing else []), *(channel.floors or ())]
        problems += [
            (channel.line, f'{what}: {version} has no package; add [apps.{app.name}.packages."{version}"]')
            for version in named
            if version not in packages
        ]
        known = before.channels.get(channel.name)
        step = _new(app.id, channel) if known is None else _changed(app, before, channel, known)
        if step is not None:
            (new if known is None else changed).append(step)
    return new, changed


def _new(app: str, channel: ChannelState) -> Step:
    fields = _given(channel)
    details = [f"{name}: {value}" for name, value in fields.items() if value not in ("", False)]
    details += [f"floor {version}" for version in channel.floors or ()]
    details += [f"excludes {version}" for version in sorted(channel.excluded or ())]
    place = ("apps", app, "channels", channel.name)

    def create(session: Session) -> tuple[str, ...]:
        moving = {name: fields[name] for name in ("version",) if name in fields}
        rest = {name: value for name, value in fields.items() if name not in moving}
        session.write("PUT", *place, body=rest, absent=True)
        _rules(session, place, ChannelState(name=channel.name), channel)
        if not moving:
            return ()
        return tuple(session.write("PUT", *place, body=moving | _missing(channel))["notes"])

    return Step(sign="+", what=f"channel {app}/{channel.name}", details=tuple(details), make=create)


def _changed(app: AppState, before: AppState, channel: ChannelState, known: ChannelState) -> Step | None:
    fields = {name: value for name, value in _given(channel).items() if value != getattr(known, name)}
    details = [f"{name}: {getattr(known, name) or 'none'} -> {value or 'none'}" for name, value in fields.items()]
    floors, excluded = channel.floors, channel.excluded
    old_floors, old_excluded = known.floors or {}, known.excluded or frozenset()
    if floors is not None:
        details += [
            f"floor {version}: {reason}" for version, reason in floors.items() if old_floors.get(version) != reason
        ]
        details += [f"no floor any more: {version}" for version in old_floors if version not in floors]
    if excluded is not None:
        details += [f"excludes {version}" for version in sorted(excluded - old_excluded)]
        details += [f"no longer excludes {version}" for version in sorted(old_excluded - excluded)]
    if not details:
        return None
    place = ("apps", app.id, "channels", channel.name)

    def change(session: Session) -> tuple[str, ...]:
        _allow(session, place, known, channel)
        notes: tuple[str, ...] = ()
        if fields:
            body = fields | (_missing(channel) if "version" in fields else {})
            notes = tuple(session.write("PUT", *place, body=body)["notes"])
        _forbid(session, place, known, channel)
        return notes

    affects = _affects(app, before, channel.name) if "version" in fields else ""
    return Step(sign="~", what=f"channel {app.id}/{channel.name}", details=tuple(details), affects=affects, make=change)


def _affects(app: AppState, before: AppState, channel: str) -> str:
    """Instances of the groups that follow the channel, once the groups are as the file has them."""
    followed: Mapping[str, str | None] = {name: group.channel for name, group in before.groups.items()}
    followed = {**followed, **{name: group.channel for name, group in app.groups.items() if group.channel is not None}}
    groups = sorted(name for name, followed_one in followed.items() if followed_one == channel)
    number = sum(len(before.instances.get(name, ())) for name in groups)
    return f"{count(number, 'instance')} in {', '.join(groups)}" if groups else "no group follows it"


def _given(channel: ChannelState) -> Json:
    return {name: getattr(channel, name) for name in _FIELDS if getattr(channel, name) is not None}


def _missing(channel: ChannelState) -> Json:
    return {"allow_missing": True} if channel.allow_missing else {}


def _rules(session: Session, place: tuple[str, ...], known: ChannelState, channel: ChannelState) -> None:
    _allow(session, place, known, channel)
    _forbid(session, place, known, channel)


def _allow(session: Session, place: tuple[str, ...], known: ChannelState, channel: ChannelState) -> None:
    """What must hold before the channel moves: new floors, and versions that it no longer excludes."""
    if channel.excluded is not None:
        for version in sorted((known.excluded or frozenset()) - channel.excluded):
            session.write("DELETE", *place, "excluded", version)
    for version, reason in (channel.floors or {}).items():
        if (known.floors or {}).get(version) != reason:
            session.write("PUT", *place, "floors", version, body={"reason": reason})


def _forbid(session: Session, place: tuple[str, ...], known: ChannelState, channel: ChannelState) -> None:
    """What can hold once it has moved: floors that end, and versions that it excludes now."""
    if channel.floors is not None:
        for version in known.floors or {}:
            if version not in channel.floors:
                session.write("DELETE", *place, "floors", version)
    for version in sorted((channel.excluded or frozenset()) - (known.excluded or frozenset())):
        session.write("PUT", *place, "excluded", version)
