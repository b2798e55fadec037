"""What a move of a channel will do to the instances of its groups, in words for the operator who makes it."""

from collections.abc import Iterator

from outrider.core import versions
from outrider.core.errors import ConfigError
from outrider.model.documents import Channel, Group, Instance
from outrider.service.store.context import StoreContext


def moving_notes(context: StoreContext, channel: Channel, *, moves: bool) -> tuple[str, ...]:
    """One line for each group for which the channel's version is not simply an update.

    Args:
        context: Where groups and instances are stored.
        channel: As it will be.
        moves: The operator named a version; otherwise groups that were taken back keep their target.
    """
    if channel.version is None or not moves:
        return ()
    every = context.children(Group, context.keys.groups(channel.app))
    groups = [group for group in every if group.channel == channel.name]
    if not groups:
        return ()
    rows = context.children(Instance, context.keys.instances(channel.app))
    notes: list[str] = []
    for group in groups:
        notes += _notes_of(group, channel.version, tuple(row for row in rows if row.group == group.id))
    return tuple(notes)


def _notes_of(group: Group, version: str, rows: tuple[Instance, ...]) -> Iterator[str]:
    if group.undo is not None:
        yield f"group {group.id} was taken back to {group.undo.version} by `rollout undo`; it follows the channel again"
    own = next((one for one in group.blocked if one.version == version), None)
    if own is not None:
        yield f"{version} was {own.reason}; group {group.id} does not take it before `release unblock`"
    newer = sum(is_newer(row.version, version) for row in rows)
    if not newer:
        return
    count = f"{newer} of {len(rows)} instances of group {group.id} run a newer version than {version}"
    undo = f"`outrider rollout undo --app-id={group.app} --group-id={group.id} --to={version}` takes them back"
    match group.policy.downgrade:
        case "always":
            yield f"{count} and go back to it (policy: downgrade always)"
        case "asked":
            yield f"{count}; those that allow it go back (policy: downgrade asked)"
        case _:
            yield f"{count} and keep it (policy: downgrade never); {undo}"


def is_newer(running: str, version: str) -> bool:
    """Whether ``running``, as an instance reported it, is newer than ``version``; False for what is not a version."""
    try:
        return versions.is_newer(running, version)
    except ConfigError:  # what it reported is not a version
        return False
