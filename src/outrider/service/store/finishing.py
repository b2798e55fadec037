"""A rollout that is complete counts as finished before its group gets another target.

The rollout controller looks at a group a moment after its last instance is at rest. An operator may change the target
within that moment, and take it back. The way back would otherwise go one release too far: nobody saw the release
finished, so it is not among those that the group served.
"""

from collections.abc import Iterable

from outrider.core.errors import Conflict
from outrider.model.damage import readable
from outrider.model.documents import Group
from outrider.service.store.changes import Change, Unaudited, apply
from outrider.service.store.context import StoreContext, direct
from outrider.service.store.snapshot import read_snapshot

_AUDITING = Unaudited("finished: what is complete is booked so before its group gets another target")


def finish_what_is_complete(context: StoreContext, app_id: str, groups: Iterable[str]) -> None:
    """Look at each group once, in a transaction of its own; nothing is written where nothing is complete.

    Args:
        context: Where the groups are stored.
        app_id: The app's id.
        groups: Their ids; a group that doesn't exist is passed over.

    Raises:
        Unknown: etcd gives no answer.
    """
    for group in groups:

        def attempt(change: Change, group: str = group) -> None:
            snapshot = read_snapshot(context, change, app_id, group)
            if snapshot is not None:
                snapshot.settle()
                snapshot.finish()
                snapshot.write()

        try:
            apply(context.cluster, attempt, _AUDITING)
        except Conflict:
            continue  # others write this rollout again and again: it is not at rest


def groups_on(context: StoreContext, app_id: str, channel: str) -> tuple[str, ...]:
    """The ids of the groups that follow a channel."""
    prefix = context.keys.groups(app_id)
    listing = context.cluster.list(prefix)
    return tuple(group.id for _, group in readable(Group, direct(listing.entries, prefix)) if group.channel == channel)
